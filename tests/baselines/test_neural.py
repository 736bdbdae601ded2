import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from minillm.baselines.neural import NeuralConfig, loss, token_log_probs, with_start
from minillm.train.plain import draw_rows, fit

SMALL = NeuralConfig(vocab_size=5, context_length=3, d_model=4, d_ff=6, direct=True)


# --- by hand -----------------------------------------------------------------------------------
def test_one_context_token_with_weights_that_can_be_followed_on_paper():
    model = NeuralConfig(vocab_size=2, context_length=1, d_model=1, d_ff=1, direct=True).build()
    with torch.no_grad():
        model.points.weight.copy_(torch.tensor([[0.0], [1.0], [-1.0]]))
        model.hidden.weight.fill_(2.0)
        model.hidden.bias.fill_(0.5)
        model.output.weight.copy_(torch.tensor([[1.0], [-1.0]]))
        model.output.bias.copy_(torch.tensor([0.25, 0.0]))
        model.direct.weight.copy_(torch.tensor([[0.0], [3.0]]))
    # after token 1: y = (0.25 + tanh 2.5, 3 - tanh 2.5)
    tanh = math.tanh(2.5)
    first = 1 / (1 + math.exp((3 - tanh) - (0.25 + tanh)))
    assert model.next_token([1]) == pytest.approx([first, 1 - first], rel=1e-6)


def test_the_start_mark_is_the_id_after_the_last_and_fills_the_first_windows():
    torch.testing.assert_close(
        with_start(torch.tensor([[3, 1]]), start=5), torch.tensor([[5, 3, 1]])
    )
    model = SMALL.build()
    x = model.points(torch.tensor([5, 5, 2])).reshape(-1)
    y = model.output(torch.tanh(model.hidden(x))) + model.direct(x)
    torch.testing.assert_close(model(torch.tensor([[2]]))[0, 0], y.log_softmax(dim=0))


@pytest.mark.parametrize("direct", [False, True])
def test_parameters_are_as_many_as_counted_on_paper(direct):
    model = NeuralConfig(
        vocab_size=32, context_length=4, d_model=32, d_ff=512, direct=direct
    ).build()
    n_parameters = sum(parameter.numel() for parameter in model.parameters())
    points, hidden, output = 33 * 32, 512 * (4 * 32 + 1), 32 * (512 + 1)
    assert n_parameters == points + hidden + output + direct * 32 * 4 * 32


def test_an_untrained_network_without_weights_says_one_over_v():
    model = SMALL.build()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.zero_()
    assert loss(model, torch.tensor([[0, 1, 2]])).mean.item() == pytest.approx(math.log(5))


# --- twin --------------------------------------------------------------------------------------
def test_all_places_at_once_are_token_by_token():
    model = SMALL.build(seed=1)
    rows = np.random.default_rng(0).integers(0, 5, size=(4, 7))
    one_by_one = [
        [math.log(model.next_token(row[:place])[token]) for place, token in enumerate(row)]
        for row in rows.tolist()
    ]
    np.testing.assert_allclose(model.log_probs(rows), one_by_one, rtol=1e-5)
    assert model.log_probs(rows[0]).shape == (7,)
    assert loss(model, torch.from_numpy(rows)).mean.item() == pytest.approx(
        -np.mean(one_by_one), rel=1e-5
    )


def test_many_rows_are_predicted_in_parts_and_come_back_whole(monkeypatch):
    model = SMALL.build(seed=1)
    rows = np.random.default_rng(0).integers(0, 5, size=(9, 7))
    whole = model.log_probs(rows)
    monkeypatch.setattr("minillm.baselines.neural.CHUNK_TOKENS", 20)
    np.testing.assert_allclose(model.log_probs(rows), whole, rtol=1e-5)


# --- reference ---------------------------------------------------------------------------------
def test_the_loss_is_torchs_cross_entropy_of_the_shifted_rows():
    model = SMALL.build(seed=2)
    rows = torch.from_numpy(np.random.default_rng(0).integers(0, 5, size=(4, 7)))
    y = model(with_start(rows, 5)[:, :-1])  # log-probabilities are logits, too
    expected = nn.functional.cross_entropy(y.flatten(0, 1), rows.flatten())
    torch.testing.assert_close(loss(model, rows).mean, expected)


# --- law ---------------------------------------------------------------------------------------
@given(st.lists(st.integers(0, 4), max_size=6), st.integers(0, 99))
@settings(max_examples=40, deadline=None)
def test_predictions_sum_to_one_and_nothing_is_impossible(prefix, seed):
    p = SMALL.build(seed).next_token(prefix)
    assert p.shape == (5,)
    assert p.sum() == pytest.approx(1)
    assert p.min() > 0


@given(st.integers(0, 9), st.integers(0, 4))
@settings(max_examples=40, deadline=None)
def test_a_token_changes_the_predictions_after_it_within_n_and_no_others(place, token):
    model = SMALL.build(seed=3)
    rows = torch.from_numpy(np.random.default_rng(0).integers(0, 5, size=(1, 10)))
    changed = rows.clone()
    changed[0, place] = (changed[0, place] + 1 + token % 4) % 5
    differs = (model(rows) != model(changed)).any(dim=-1)[0].nonzero().flatten().tolist()
    assert differs == list(range(place, min(place + 3, 10)))


def test_no_token_sees_itself():
    model = SMALL.build(seed=3)
    points = model.points(torch.arange(6)).detach().requires_grad_()
    rows = torch.tensor([[0, 1, 2, 3]])
    model.points.forward = lambda ids: points[ids]
    token_log_probs(model, rows)[0, 2].backward()  # of token 2, at place 2
    touched = points.grad.abs().sum(dim=1).nonzero().flatten().tolist()
    assert touched == [0, 1, 5]  # the two before it and the start mark


def test_the_same_seed_builds_the_same_network_and_leaves_torch_alone():
    before = torch.random.get_rng_state()
    same, other = SMALL.build(seed=4), SMALL.build(seed=5)
    assert torch.equal(torch.random.get_rng_state(), before)
    assert torch.equal(SMALL.build(seed=4).points.weight, same.points.weight)
    assert not torch.equal(other.points.weight, same.points.weight)


def test_it_learns_a_rule_that_needs_two_tokens_of_context():
    rng = np.random.default_rng(0)
    rows = rng.integers(0, 4, size=(200, 12))
    for place in range(2, 12):  # each token is the sum of the two before it, modulo 4
        rows[:, place] = (rows[:, place - 1] + rows[:, place - 2]) % 4
    model = NeuralConfig(vocab_size=4, context_length=2, d_model=8, d_ff=32).build()
    fit(model, loss, draw_rows(rows, 32), n_steps=150, learning_rate=0.03)
    assert -model.log_probs(rows)[:, 2:].mean() < 0.05
    assert -model.log_probs(rows)[:, :2].mean() > 1.2  # log 4 = 1.39: nobody knows these


# --- bad input ---------------------------------------------------------------------------------
@pytest.mark.parametrize("name", ["vocab_size", "context_length", "d_model", "d_ff"])
def test_a_size_below_one_is_named(name):
    with pytest.raises(ValueError, match=f"{name} must be at least 1; got 0"):
        NeuralConfig(**{"vocab_size": 5, name: 0})


def test_an_unknown_setting_is_an_error():
    with pytest.raises(TypeError, match="depth"):
        NeuralConfig(vocab_size=5, depth=3)


@pytest.mark.parametrize("tokens", [[5], [-1]])
def test_a_token_outside_the_vocabulary_is_refused(tokens):
    model = SMALL.build()
    with pytest.raises(ValueError, match="from 0 to 4"):
        model.next_token(tokens)
    with pytest.raises(ValueError, match="from 0 to 4"):
        model.log_probs(np.array(tokens))


def test_tokens_that_are_no_integers_or_have_three_axes_are_refused():
    for wrong in (np.zeros(3), np.zeros((1, 1, 1), dtype=int)):
        with pytest.raises(ValueError, match=r"must be integers, \[T\] or \[B, T\]"):
            SMALL.build().log_probs(wrong)
