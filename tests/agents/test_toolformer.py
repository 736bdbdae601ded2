"""minillm.agents.toolformer: weights, losses and what is kept."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from minillm.agents.toolformer import CallLosses, Candidate, call_losses, weighted_loss, weights
from minillm.train.losses import token_log_probs
from minillm.zoo.checkpoints import load

BEGIN = "<|endoftext|>"
PLUMS, PEARS = "7 plums at 2 coins each", "6 pears at 13 coins each"
QUESTION = f"{BEGIN}Mei buys {PLUMS} and {PEARS}. What does Mei pay?"
TEXT = f"{QUESTION} Answer: 92."
BEFORE_ANSWER = len(QUESTION) + 1


@pytest.fixture(scope="module")
def base():
    return load("town-base")


def candidate(step, result, *, place=BEFORE_ANSWER):
    call = f"Steps: {step}"
    return Candidate(
        text=TEXT,
        position=TEXT.index(" 92"),
        call=f"{call}. ",
        with_result=f"{call} = {result}. ",
        place=place,
    )


# --- by hand --------------------------------------------------------------------------------------
def test_five_tokens_count_and_the_nearer_the_more():
    torch.testing.assert_close(weights(), torch.tensor([5.0, 4, 3, 2, 1]) / 15)
    loss = weighted_loss(-torch.tensor([15.0, 0, 0, 0, 15, 15]))
    assert loss == pytest.approx(5 + 1)
    assert weighted_loss(torch.tensor([-15.0])) == pytest.approx(5)  # the weights stay as they are


@pytest.mark.parametrize(
    ("losses", "gain"),
    [((0.9, 1.2, 0.4), 0.5), ((1.2, 0.9, 0.4), 0.5), ((0.2, 0.9, 0.4), -0.2)],
)
def test_a_gain_is_over_the_better_of_no_call_and_the_call_alone(losses, gain):
    assert CallLosses(*losses).gain == pytest.approx(gain)


# --- twin -----------------------------------------------------------------------------------------
def test_losses_are_those_of_each_text_read_alone(base):
    model, tokenizer = base
    wrong, right = candidate("7 · 2", 14), candidate("14 + 78", 92, place=len(BEGIN))
    losses = call_losses(model, tokenizer, [wrong, right])
    for each, z, loss in [
        (wrong, "", losses[0].without),
        (wrong, wrong.call, losses[0].call),
        (right, right.with_result, losses[1].with_result),
    ]:
        ids = tokenizer.encode(TEXT[: each.place] + z + TEXT[each.place : each.position], [BEGIN])
        after = tokenizer.encode(TEXT[each.position :])
        tokens = torch.tensor([ids + after])
        with torch.no_grad():
            log_probs = token_log_probs(model(tokens)[:, :-1], tokens[:, 1:])[0, len(ids) - 1 :]
        expected = -sum(w * p for w, p in zip(weights().tolist(), log_probs.tolist(), strict=False))
        assert loss == pytest.approx(expected, abs=1e-4)
    assert losses[0].without == losses[1].without


# --- law ------------------------------------------------------------------------------------------
def test_the_base_keeps_the_step_that_gives_the_answer_and_no_other(base):
    steps = [("14 + 78", 92), ("7 · 2", 14), ("6 · 13", 78), ("7 + 6", 13)]
    losses = call_losses(*base, [candidate(*step) for step in steps])
    assert [each.keep(0.5) for each in losses] == [True, False, False, False]


@given(st.tuples(*[st.floats(0, 10)] * 3), st.floats(0, 5), st.floats(0, 5))
def test_a_larger_threshold_keeps_no_more_and_no_gain_exceeds_the_loss(losses, one, other):
    each = CallLosses(*losses)
    assert each.keep(min(one, other)) or not each.keep(max(one, other))
    assert each.gain <= min(each.without, each.call)


def test_what_the_base_knows_by_itself_needs_no_call(base):
    text = f"{BEGIN}Mei buys 3 plums at 4 coins each. What does Mei pay? Answer: 12."
    place, call = text.index("Answer"), "Steps: 3 · 4"
    (losses,) = call_losses(
        *base,
        [
            Candidate(
                text=text,
                position=text.index(" 12"),
                call=f"{call}. ",
                with_result=f"{call} = 12. ",
                place=place,
            )
        ],
    )
    assert losses.with_result < losses.without < 0.1
    assert not losses.keep(0.1)


# --- bad input ------------------------------------------------------------------------------------
def test_refusals(base):
    for position, place, match in [(0, 0, "position must lie inside"), (3, 4, "place must lie")]:
        with pytest.raises(ValueError, match=match):
            Candidate(text="3 · 4", position=position, call="a", with_result="b", place=place)
    with pytest.raises(ValueError, match="decay must be above 0"):
        weights(0)
    long = Candidate(text="pay " * 300, position=1190, call="a", with_result="b")
    with pytest.raises(ValueError, match="at most 256 tokens"):
        call_losses(*base, [long])
