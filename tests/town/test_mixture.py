from itertools import product

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import chisquare

from minillm.town.chance import generator
from minillm.town.dialects import HiddenMarkov, Markov, dialects
from minillm.town.mixture import Mixture

HEADS = Markov([0.9, 0.1], [[0.9, 0.1], [0.9, 0.1]])
TAILS = Markov([0.2, 0.8], [[0.2, 0.8], [0.2, 0.8]])
WALKER = HiddenMarkov([0.5, 0.5], [[0.9, 0.1], [0.2, 0.8]], [[0.7, 0.3], [0.1, 0.9]])
COINS = Mixture((HEADS, TAILS), [0.25, 0.75])
ALL = Mixture((HEADS, TAILS, WALKER))


# --- by hand -----------------------------------------------------------------------------------


def test_one_symbol_heard_weighs_the_coins_by_bayes_rule():
    # 0.25 · 0.9 = 0.225 against 0.75 · 0.2 = 0.15: 0.6 and 0.4; next 0: 0.6 · 0.9 + 0.4 · 0.2.
    assert COINS.posterior([0]) == pytest.approx([0.6, 0.4])
    assert COINS.next_token([0]) == pytest.approx([0.62, 0.38])
    assert COINS.log_probs([0, 0]) == pytest.approx(np.log([0.375, 0.62]))


def test_in_the_end_one_knows_who_speaks():
    rate = COINS.entropy_rate().nats
    assert rate == pytest.approx(
        0.25 * HEADS.entropy_rate().nats + 0.75 * TAILS.entropy_rate().nats
    )
    assert ALL.entropy_rate().standard_error == pytest.approx(
        WALKER.entropy_rate().standard_error / 3
    )


# --- twin --------------------------------------------------------------------------------------


def test_the_vectorised_log_loss_is_that_of_the_predictions_one_by_one():
    tokens = ALL.sample(generator("twin"), 6, 10).tokens
    slow = [[np.log(ALL.next_token(row[:t])[row[t]]) for t in range(10)] for row in tokens]
    assert ALL.log_probs(tokens) == pytest.approx(np.array(slow), abs=1e-12)
    assert ALL.posterior(tokens)[2] == pytest.approx(ALL.posterior(tokens[2]))


# --- reference ---------------------------------------------------------------------------------


def test_a_mixture_of_hidden_sources_is_one_large_hidden_source():
    # Two walkers side by side in one chain that never crosses over: built without its checks.
    other = HiddenMarkov([0.3, 0.7], [[0.5, 0.5], [0.4, 0.6]], [[0.2, 0.8], [0.6, 0.4]])
    mixed = Mixture((WALKER, other), [0.4, 0.6])
    rows = np.array(list(product(range(2), repeat=6)))
    by_hand = []
    for row in rows:
        weight = np.concatenate([0.4 * WALKER.initial, 0.6 * other.initial])
        moves = np.zeros((4, 4))
        moves[:2, :2], moves[2:, 2:] = WALKER.transition, other.transition
        says = np.concatenate([WALKER.emission, other.emission])
        for symbol in row:
            weight = (weight * says[:, symbol]) @ moves
        by_hand.append(weight.sum())
    assert np.exp(mixed.log_prob(rows)) == pytest.approx(np.array(by_hand), rel=1e-10)


# --- law ---------------------------------------------------------------------------------------


@given(st.lists(st.integers(0, 1), max_size=30))
def test_not_knowing_the_district_costs_at_most_the_log_of_its_weight(tokens):
    best = max(source.log_prob(tokens) for source in ALL.sources)
    assert best >= ALL.log_prob(tokens) - 1e-9
    assert ALL.log_prob(tokens) >= best - np.log(3) - 1e-9
    assert ALL.next_token(tokens).sum() == pytest.approx(1)
    assert ALL.posterior(tokens).sum() == pytest.approx(1)


def test_twenty_tokens_give_a_district_away():
    town = Mixture(dialects(n_districts=4))
    block = town.block(0, "who")
    assert block.states.shape == (64,)
    assert set(block.states) == {0, 1, 2, 3}
    heard = town.posterior(block.tokens[:, :20]).argmax(axis=1)
    assert (heard == block.states).mean() > 0.95
    assert (block.tokens == town.block(0, "who").tokens).all()


def test_speakers_and_what_they_say_come_as_often_as_stated():
    town = Mixture(ALL.sources, [0.2, 0.3, 0.5])
    rows = town.sample(generator("chi square"), 20_000, 2)
    said = rows.states * 4 + rows.tokens[:, 0] * 2 + rows.tokens[:, 1]
    found = np.bincount(said, minlength=12)
    every_row = np.array(list(product(range(2), repeat=2)))
    each = np.exp([source.log_prob(every_row) for source in town.sources])
    assert chisquare(found, (20_000 * town.weights[:, None] * each).ravel()).pvalue > 0.001


def test_a_source_that_cannot_have_said_it_is_out():
    swing = Markov([1, 0], [[0, 1], [1, 0]])
    mixed = Mixture((swing, HEADS))
    assert mixed.posterior([0, 0]).tolist() == [0, 1]
    assert mixed.next_token([0, 0]) == pytest.approx(HEADS.next_token([0, 0]))
    alone = Mixture((swing,))
    assert alone.log_probs([0, 0, 1]).tolist() == [0, -np.inf, -np.inf]
    with pytest.raises(ValueError, match=r"never says \[0, 0\]"):
        alone.next_token([0, 0])


# --- bad input ---------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("make", "says"),
    [
        (lambda: Mixture(()), r"share one alphabet; got sizes \[\]"),
        (lambda: Mixture((HEADS, Markov([1 / 3] * 3, np.full((3, 3), 1 / 3)))), r"sizes \[2, 3\]"),
        (lambda: Mixture((HEADS, TAILS), [0.5, 0.4]), "weights must sum to one"),
        (lambda: Mixture((HEADS, TAILS), [1.0]), r"weights must have the shape \[2\]"),
        (lambda: ALL.log_probs([2]), "symbols must be 0 to 1; got 2"),
    ],
)
def test_what_is_wrong_is_named(make, says):
    with pytest.raises(ValueError, match=says):
        make()
