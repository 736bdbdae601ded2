import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from minillm.model.config import TransformerConfig
from minillm.train.plain import fit
from minillm.tune import reward
from minillm.tune.reward import RewardModel, bradley_terry


def model():
    config = TransformerConfig(vocab_size=12, context_length=8, d_model=16, n_layers=1)
    return RewardModel(config.build(seed=0))


# --- by hand --------------------------------------------------------------------------------------
def test_scores_that_differ_by_the_logarithm_of_three_win_three_of_four():
    loss = bradley_terry(torch.tensor([math.log(3), 0.0]), torch.tensor([0.0, math.log(3)]))
    torch.testing.assert_close(loss, -torch.tensor([0.75, 0.25]).log())


def test_before_training_every_comparison_costs_one_bit():
    batch = reward.comparisons([([1, 2], [3]), ([4], [5, 6, 7])])
    total = reward.preference_loss(model(), batch)
    assert total.n_tokens == 2
    assert total.nats.item() == pytest.approx(2 * math.log(2))


# --- twin -----------------------------------------------------------------------------------------
def test_padding_changes_no_score(monkeypatch):
    scorer = model()
    torch.nn.init.normal_(scorer.score.weight, generator=torch.Generator().manual_seed(1))
    rows = [[1, 2, 3, 4], [5], [6, 7]]
    together = reward.scores(scorer, rows)
    assert together == pytest.approx([reward.scores(scorer, [row])[0] for row in rows], abs=1e-6)
    assert len(set(together)) == 3
    monkeypatch.setattr(reward, "AT_ONCE", 2)
    assert reward.scores(scorer, rows) == pytest.approx(together, abs=1e-6)


# --- law ------------------------------------------------------------------------------------------
@given(st.floats(-50, 50), st.floats(-50, 50), st.floats(-50, 50))
def test_only_differences_count_and_the_two_probabilities_sum_to_one(a, b, shift):
    a, b = torch.tensor([a], dtype=torch.float64), torch.tensor([b], dtype=torch.float64)
    loss = bradley_terry(a, b)
    torch.testing.assert_close(loss, bradley_terry(a + shift, b + shift))
    torch.testing.assert_close((-loss).exp() + (-bradley_terry(b, a)).exp(), torch.ones_like(a))


def test_it_learns_which_is_better_from_comparisons_alone():
    # better: the text with more 1s
    def batch_at(step):
        ones = torch.rand(16, 2, 6, generator=torch.Generator().manual_seed(step)) < 0.5
        texts = [sorted(pair, key=sum) for pair in (1 + (~ones).int()).tolist()]
        return reward.comparisons([(few, many) for few, many in texts if sum(few) < sum(many)])

    scorer = model()
    losses = fit(scorer, reward.preference_loss, batch_at, 60, 0.01)
    assert losses[0] == pytest.approx(math.log(2))
    rows = [[1] * n + [2] * (6 - n) for n in range(7)]
    scored = reward.scores(scorer, rows)
    assert scored == sorted(scored)


# --- bad input ------------------------------------------------------------------------------------
@pytest.mark.parametrize("rows", [[], [[1], []]])
def test_texts_without_a_token_are_refused(rows):
    with pytest.raises(ValueError, match="at least one token"):
        reward.right_pad(rows)
