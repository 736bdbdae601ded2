from itertools import product

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import chisquare

from minillm.town.chance import generator, stationary
from minillm.town.dialects import HiddenMarkov, Markov, context_entropy, dialects
from minillm.town.world import World

SEEDS = st.integers(0, 2**32 - 1)
FLIP = [[0.9, 0.1], [0.3, 0.7]]


def rows_of(seed, *shape):
    return np.random.default_rng(seed).dirichlet(np.ones(shape[-1]), shape[:-1])


def markov(seed=0, n_symbols=4, order=1):
    transition = rows_of(seed, *(n_symbols,) * (order + 1))
    initial = rows_of(seed + 1, n_symbols**order).reshape((n_symbols,) * order)
    return Markov(initial, transition)


def hidden(seed=0, n_states=3, n_symbols=4):
    return HiddenMarkov(
        rows_of(seed, n_states),
        rows_of(seed + 1, n_states, n_states),
        rows_of(seed + 2, n_states, n_symbols),
    )


def as_hidden(source):
    """The same source, its last k symbols being the state; it must start from π if k > 1."""
    n, order = source.n_symbols, source.order
    moves, says = np.zeros((n**order, n**order)), np.zeros((n**order, n))
    for number, context in enumerate(product(range(n), repeat=order)):
        says[number, context[-1]] = 1
        for symbol in range(n):
            moves[number, number * n % n**order + symbol] = source.transition[(*context, symbol)]
    return HiddenMarkov(source.initial.reshape(-1), moves, says)


def p_value(found, expected):
    """Of a chi-square test; rare cells, which expect less than 5, are one cell together."""
    large = expected >= 5
    found, expected = (np.append(a[large], a[~large].sum()) for a in (found, expected))
    return chisquare(found[expected > 0], expected[expected > 0]).pvalue


SOURCES = {
    "order 1": markov(),
    "order 2": markov(order=2),
    "order 3": markov(order=3, n_symbols=3),
    "hidden": hidden(),
}
every_source = pytest.mark.parametrize("source", SOURCES.values(), ids=SOURCES.keys())


# --- by hand -----------------------------------------------------------------------------------


def test_the_entropy_rate_of_two_states_is_the_mean_of_their_coins():
    def coin(p):
        return -p * np.log(p) - (1 - p) * np.log(1 - p)

    rate = Markov([0.5, 0.5], FLIP).entropy_rate()
    assert rate.nats == pytest.approx(0.75 * coin(0.1) + 0.25 * coin(0.3))
    assert rate.standard_error == 0


def test_the_filter_learns_from_a_symbol_which_state_it_is_in():
    # Heard 0: b = (0.5·0.8, 0.5·0.4)/0.6 = (2/3, 1/3); then one step: (0.7, 0.3); p(0) = 0.68.
    source = HiddenMarkov([0.5, 0.5], FLIP, [[0.8, 0.2], [0.4, 0.6]])
    assert source.next_token([]) == pytest.approx([0.6, 0.4])
    assert source.next_token([0]) == pytest.approx([0.68, 0.32])
    assert source.log_prob([0, 1]) == pytest.approx(np.log(0.6 * 0.32))


def test_the_best_loss_by_context_of_a_source_that_alternates_in_pairs():
    # 0 0 1 1 0 0 1 1 …: one symbol of context tells nothing, two tell everything.
    pairs = np.zeros((2, 2, 2))
    pairs[0, 0, 1] = pairs[0, 1, 1] = pairs[1, 1, 0] = pairs[1, 0, 0] = 1
    source = Markov(np.full((2, 2), 0.25), pairs)
    found = [context_entropy(source, n) for n in range(4)]
    assert found == pytest.approx([np.log(2), np.log(2), 0, 0], abs=1e-12)


def test_what_cannot_follow_costs_infinitely_much_and_so_does_the_rest():
    source = Markov([1, 0], [[0, 1], [1, 0]])
    assert source.log_probs([0, 1, 1, 0]).tolist() == [0, 0, -np.inf, -np.inf]
    assert as_hidden(source).log_probs([0, 1, 1, 0]).tolist() == [0, 0, -np.inf, -np.inf]


# --- twin --------------------------------------------------------------------------------------


@every_source
def test_the_vectorised_log_loss_is_that_of_the_predictions_one_by_one(source):
    tokens = source.sample(generator("twin"), 5, 12).tokens
    slow = [[np.log(source.next_token(row[:t])[row[t]]) for t in range(12)] for row in tokens]
    assert source.log_probs(tokens) == pytest.approx(np.array(slow), abs=1e-12)
    assert source.log_probs(tokens[0]) == pytest.approx(np.array(slow[0]), abs=1e-12)
    assert source.log_prob(tokens) == pytest.approx(np.sum(slow, axis=1), abs=1e-11)


@pytest.mark.parametrize("order", [1, 2])
def test_a_markov_source_is_a_hidden_one_whose_state_can_be_heard(order):
    transition = markov(order=order).transition
    seen = Markov(stationary(transition), transition)
    unseen = as_hidden(seen)
    tokens = seen.sample(generator("seen"), 64, 2000).tokens
    assert np.abs(unseen.log_probs(tokens) - seen.log_probs(tokens)).max() < 1e-10
    assert np.abs(unseen.next_token([1, 2, 0]) - seen.next_token([1, 2, 0])).max() < 1e-12
    assert unseen.next_token([]) == pytest.approx(seen.next_token([]))
    rate = unseen.entropy_rate(2**17)
    assert abs(rate.nats - seen.entropy_rate().nats) < 4 * rate.standard_error
    for n in range(1, 4):
        assert unseen.ngram_probs(n) == pytest.approx(seen.ngram_probs(n), abs=1e-12)


@every_source
def test_probabilities_of_all_short_rows_are_products_of_predictions(source):
    rows = np.array(list(product(range(source.n_symbols), repeat=4)))
    assert np.exp(source.log_prob(rows)).sum() == pytest.approx(1)


# --- reference ---------------------------------------------------------------------------------


@every_source
def test_frequencies_are_the_stated_probabilities(source):
    # Every row gives its first four symbols, so the counted rows know nothing of each other.
    n_rows, n = 40_000, source.n_symbols
    tokens = source.sample(generator("chi square", 1), n_rows, 4).tokens
    found = np.bincount(np.ravel_multi_index(tokens.T, (n,) * 4), minlength=n**4)
    every_row = np.array(list(product(range(n), repeat=4)))
    assert p_value(found, n_rows * np.exp(source.log_prob(every_row))) > 0.001


@pytest.mark.parametrize("kind", ["markov", "hidden"])
def test_a_district_speaks_as_often_as_it_states_from_the_first_token_to_the_last(kind):
    # Of each of 9,600 rows one pair of symbols counts, so the counted pairs are independent.
    (source,) = dialects("chi square", n_districts=1, kind=kind)
    blocks = [source.block(index, n_tokens=12) for index in range(150)]
    tokens = np.concatenate([block.tokens for block in blocks])
    expected = len(tokens) * source.ngram_probs(2).ravel()
    for first in (0, 10):
        found = np.bincount(tokens[:, first] * 32 + tokens[:, first + 1], minlength=32**2)
        assert p_value(found, expected) > 0.001
    if kind == "hidden":
        states = np.concatenate([block.states for block in blocks])[:, -1]
        found = np.bincount(states * 32 + tokens[:, -1], minlength=16 * 32)
        expected = len(tokens) * (source.stationary[:, None] * source.emission).ravel()
        assert p_value(found, expected) > 0.001


def test_a_long_sample_loses_the_entropy_rate_a_token():
    for source in dialects(n_districts=2, order=2):
        figures = -source.log_probs(source.block(0, "monte carlo", 2048).tokens).mean(axis=1)
        error = figures.std(ddof=1) / 8
        assert error < 0.005
        assert abs(figures.mean() - source.entropy_rate().nats) < 4 * error


def test_the_estimate_lies_between_the_bounds_that_close_in_on_it():
    # Cover and Thomas, theorem 4.5.1: H(x_n | x_<n, s_1) ≤ h ≤ H(x_n | x_<n).
    source = hidden(seed=5, n_states=2, n_symbols=3)

    def entropies_given_the_first_state(n):
        total = 0.0
        for state, share in enumerate(source.stationary):
            known = HiddenMarkov(np.eye(2)[state], source.transition, source.emission)
            rows = np.array(list(product(range(3), repeat=n)))
            log_probs = known.log_prob(rows)
            total -= share * (np.exp(log_probs) * log_probs).sum()
        return total

    above = context_entropy(source, 7)
    below = entropies_given_the_first_state(8) - entropies_given_the_first_state(7)
    assert 0 <= above - below < 2e-3
    rate = source.entropy_rate(2**18)
    assert rate.standard_error < 2e-3
    assert below - 4 * rate.standard_error < rate.nats < above + 4 * rate.standard_error


def test_the_standard_error_is_the_spread_of_estimates():
    source = dialects(kind="hidden", n_districts=1)[0]
    rates = [source.entropy_rate(2**14, seed) for seed in range(40)]
    spread = np.std([rate.nats for rate in rates], ddof=1)
    stated = np.mean([rate.standard_error for rate in rates])
    assert 0.7 < spread / stated < 1.4  # ± 2.5 standard errors of a spread of 40


# --- law ---------------------------------------------------------------------------------------


@given(SEEDS, st.integers(1, 3), st.integers(2, 4), st.lists(st.integers(0, 1), max_size=8))
@settings(max_examples=60, deadline=None)
def test_predictions_are_probabilities_whatever_was_heard(seed, size, n_symbols, prefix):
    for source in (markov(seed, n_symbols, size), hidden(seed, size, n_symbols)):
        following = source.next_token(prefix)
        assert following.shape == (n_symbols,)
        assert following.min() >= 0
        assert following.sum() == pytest.approx(1)


@pytest.mark.parametrize("kind", ["markov", "hidden"])
def test_more_context_is_worth_something_in_every_district(kind):
    for source in dialects("law", n_districts=8, kind=kind):
        best = [context_entropy(source, n) for n in range(3)]
        assert np.log(32) - best[0] > 0.2
        assert best[0] - best[1] > 0.08
        assert best[1] - best[2] > 0.03
        if kind == "markov":
            assert best[2] == pytest.approx(source.entropy_rate().nats)
        else:
            assert best[2] > source.entropy_rate(2**15).nats


def test_a_block_is_a_function_of_name_seed_and_index():
    made = [*dialects(n_districts=2), *dialects(n_districts=2, kind="hidden")]
    again = [*dialects(n_districts=2), *dialects(n_districts=2, kind="hidden")]
    for source, other in zip(made, again, strict=True):
        block = source.block(3, "seed")
        assert block.tokens.shape == (64, 256)
        assert (block.tokens == other.block(3, "seed").tokens).all()
        assert (block.tokens[:, :100] == source.block(3, "seed", 100).tokens).all()
        for different in (source.block(4, "seed"), source.block(3, "sees")):
            assert (block.tokens == different.tokens).mean() < 0.5


def test_districts_do_not_depend_on_how_many_there_are_and_differ():
    two, twenty = dialects(n_districts=2), dialects(World(), n_districts=20, order=1)
    assert [source.name for source in twenty[17:]] == ["hill", "district 19", "district 20"]
    for one, same in zip(dialects(n_districts=2, order=1), twenty, strict=False):
        assert one.name == same.name
        assert (one.transition == same.transition).all()
    assert np.abs(two[0].transition - two[1].transition).sum(axis=-1).mean() > 0.5
    mine = dialects("another town", n_districts=1)[0]
    assert np.abs(two[0].transition - mine.transition).sum(axis=-1).mean() > 0.5


def test_rows_shorter_than_the_order_begin_like_longer_ones():
    source = markov(order=3, n_symbols=3)
    long = source.sample(generator("short"), 20, 5).tokens
    assert source.sample(generator("short"), 20, 2).tokens.shape == (20, 2)
    assert source.log_probs(long[:, :2]) == pytest.approx(source.log_probs(long)[:, :2])


def test_the_truth_of_a_hidden_block_is_the_state_behind_each_token():
    source = HiddenMarkov([1, 0], [[0, 1], [1, 0]], [[1, 0, 0], [0, 0.5, 0.5]])
    block = source.block(0, n_tokens=6)
    assert (block.states == [0, 1, 0, 1, 0, 1]).all()
    assert ((block.tokens > 0) == (block.states == 1)).all()
    assert (SOURCES["order 1"].block(0).states == SOURCES["order 1"].block(0).tokens).all()


# --- bad input ---------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("make", "says"),
    [
        (lambda: Markov([0.5, 0.5], [[0.5, 0.5], [0.5, 0.4]]), r"transition\[1\] must sum to one"),
        (lambda: Markov([0.7, 0.5], FLIP), "initial must sum to one; it sums to 1.2"),
        (lambda: Markov([0.5, 0.5], [[1.5, -0.5], [0, 1]]), r"transition\[0, 1\] .* it is -0\.5"),
        (lambda: Markov([1.0], [0.5, 0.5]), r"k \+ 1 axes of n_symbols each.*got the shape \[2\]"),
        (lambda: Markov([1.0, 0.0], [[0.5, 0.5]]), r"got the shape \[1, 2\]"),
        (lambda: Markov([1.0], FLIP), r"initial must have the shape \[2\]; got \[1\]"),
        (lambda: Markov([0.5, 0.5], np.eye(2)), "the chain is reducible"),
        (lambda: Markov([0.5, 0.5], [[0.5, 0.5], [0, 1]]), r"absorbing: once in \{1\}"),
        (lambda: Markov([0.5, 0.5], [[1], [0.5, 0.5]]), "rows alike"),
        (lambda: HiddenMarkov([[1.0]], [[1.0]], [[1.0]]), r"initial must be \[n_states\]"),
        (lambda: HiddenMarkov([], [], []), r"initial must be \[n_states\]; got the shape \[0\]"),
        (
            lambda: HiddenMarkov([0.5, 0.5], FLIP, [0.5, 0.5]),
            r"emission must be .* the shape \[2\]",
        ),
        (lambda: HiddenMarkov([1.0], [[1.0]], [[]]), r"emission must be .* got the shape \[1, 0\]"),
        (lambda: HiddenMarkov([1.0], FLIP, [[1.0]]), r"transition must have the shape \[1, 1\]"),
        (lambda: HiddenMarkov([0.5, 0.5], FLIP, [[1.0]]), r"with n_states = 2, .* \[1, 1\]"),
        (lambda: HiddenMarkov([0.5, 0.5], FLIP, [[0.5], [1]]), r"emission\[0\] must sum to one"),
        (lambda: HiddenMarkov([0.5, 0.5], np.eye(2), FLIP), "the chain is reducible"),
        (lambda: dialects(kind="hmm"), "kind must be one of markov, hidden; got 'hmm'"),
        (lambda: dialects(n_symbols=1), "n_symbols must be at least 2; got 1"),
        (lambda: dialects(n_districts=0), "n_districts must be at least 1"),
        (lambda: dialects(order=5), r"needs 32\^6 entries"),
        (lambda: dialects(sharpness=0), "sharpness must be a finite number above 0; got 0"),
        (lambda: dialects(0.5), "seed must be a number or a name"),
        (lambda: markov().next_token([0, 4]), r"symbols must be 0 to 3; got 4 at \[1\]"),
        (lambda: hidden().next_token([-1]), r"got -1 at \[0\]"),
        (
            lambda: markov().log_probs([[0, 1], [2, 4]]),
            r"symbols must be 0 to 3; got 4 at \[1, 1\]",
        ),
        (
            lambda: hidden().log_probs([[0, 1], [4, 3]]),
            r"symbols must be 0 to 3; got 4 at \[1, 0\]",
        ),
        (lambda: hidden().log_probs([[0.5]]), "whole numbers"),
        (lambda: Markov([1, 0], [[0, 1], [1, 0]]).next_token([0, 0]), r"never says \[0, 0\]"),
        (lambda: hidden().entropy_rate(100), "n_tokens must be at least 4096; got 100"),
        (lambda: markov().block(-1), "index must be at least 0"),
        (lambda: markov().block(0, n_tokens=0), "n_tokens at least 1"),
        (lambda: context_entropy(markov(), -1), "n_context must be at least 0"),
        (lambda: context_entropy(markov(), 12), r"4\^13 entries"),
    ],
)
def test_what_is_wrong_is_named(make, says):
    with pytest.raises(ValueError, match=says):
        make()
