import random

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from minillm.town import chance
from minillm.town.chance import (
    as_table,
    block_rng,
    check_probabilities,
    check_size,
    check_tokens,
    cumulated,
    draw,
    draw_block,
    entropy,
    generator,
    log,
    refuse_impossible,
    refuse_several_ends,
    stationary,
)

SEEDS = st.integers(0, 2**32 - 1)


def random_chain(seed, n_symbols, order, n_zeros=0):
    rng = np.random.default_rng(seed)
    rows = rng.random((n_symbols**order, n_symbols)) + 0.01
    rows[:, 1 : 1 + n_zeros] *= rng.random((len(rows), n_zeros)) < 0.5
    return (rows / rows.sum(axis=1, keepdims=True)).reshape((n_symbols,) * (order + 1))


# --- by hand -----------------------------------------------------------------------------------


def test_the_stationary_distribution_of_two_states_is_the_ratio_of_their_ways_out():
    # Flow there = flow back: π0 · 0.1 = π1 · 0.3.
    assert stationary(np.array([[0.9, 0.1], [0.3, 0.7]])) == pytest.approx([0.75, 0.25])


def test_a_chain_that_swings_for_ever_still_has_a_stationary_distribution():
    assert stationary(np.array([[0.0, 1.0], [1.0, 0.0]])) == pytest.approx([0.5, 0.5])


def test_the_entropy_of_a_fair_die_is_log_six():
    assert entropy(np.full(6, 1 / 6)) == pytest.approx(np.log(6))
    assert entropy(np.array([1.0, 0.0])) == 0.0


def test_an_impossible_entry_is_never_drawn():
    chances = cumulated(np.array([[0.0, 0.3, 0.0, 0.7, 0.0]] * 4))
    uniforms = np.array([0.0, 0.3, np.nextafter(0.3, 0), np.nextafter(1.0, 0)])
    assert draw(chances, uniforms).tolist() == [1, 3, 1, 3]


def test_running_sums_end_in_exactly_one():
    assert cumulated(np.array([[0.1] * 3 + [0.2] * 3, [1e-9] * 6])).tolist()[1][-1] == 1.0
    assert (cumulated(np.full((1, 3), 0.3333333333))[:, -1] == 1.0).all()


def test_the_logarithm_of_zero_is_minus_infinity_without_a_warning():
    assert log(np.array([0.0, 1.0])).tolist() == [-np.inf, 0.0]


# --- twin --------------------------------------------------------------------------------------


@pytest.mark.parametrize("order", [1, 2, 3])
def test_iterating_gives_what_solving_gives(monkeypatch, order):
    chain = random_chain(3, 4, order)
    solved = stationary(chain)
    monkeypatch.setattr(chance, "SOLVE_STATES", 0)
    assert np.abs(stationary(chain) - solved).max() < 1e-12


def test_a_chain_of_order_two_settles_like_the_chain_of_its_pairs():
    chain = random_chain(4, 3, 2)
    pairs = np.zeros((9, 9))
    for a in range(3):
        for b in range(3):
            for c in range(3):
                pairs[3 * a + b, 3 * b + c] = chain[a, b, c]
    assert np.abs(stationary(chain).reshape(-1) - stationary(pairs)).max() < 1e-12


# --- reference ---------------------------------------------------------------------------------


@pytest.mark.parametrize("seed", range(40))
def test_chains_are_refused_where_scipy_finds_several_closed_classes(seed):
    from scipy.sparse.csgraph import connected_components

    rng = np.random.default_rng(seed)
    possible = rng.random((7, 7)) < 0.22
    possible[np.arange(7), rng.integers(0, 7, 7)] = True
    chain = possible / possible.sum(axis=1, keepdims=True)
    n, label = connected_components(possible, connection="strong")
    closed = [k for k in range(n) if not possible[label == k][:, label != k].any()]
    if len(closed) > 1:
        with pytest.raises(ValueError, match="is reducible"):
            refuse_several_ends(chain)
    elif (label == closed[0]).sum() == 1:
        with pytest.raises(ValueError, match="is absorbing"):
            refuse_several_ends(chain)
    else:
        refuse_several_ends(chain)
        assert stationary(chain)[label != closed[0]] == pytest.approx(0)


# --- law ---------------------------------------------------------------------------------------


@given(SEEDS, st.integers(3, 5), st.integers(1, 3), st.integers(0, 1))
@settings(max_examples=60, deadline=None)
def test_one_more_step_changes_the_stationary_distribution_no_more(seed, n_symbols, order, n_zeros):
    chain = random_chain(seed, n_symbols, order, n_zeros)
    settled = stationary(chain)
    assert settled.sum() == pytest.approx(1)
    assert np.abs((settled[..., None] * chain).sum(axis=0) - settled).max() < 1e-12


@given(st.lists(st.one_of(st.integers(), st.text(max_size=5)), max_size=4))
def test_the_same_key_gives_the_same_numbers_and_a_longer_key_others(key):
    numbers = generator(*key).random(4)
    assert (numbers == generator(*key).random(4)).all()
    assert (numbers != generator(*key, 0).random(4)).any()


def test_a_block_has_its_own_random_numbers_and_none_comes_before_the_first():
    assert block_rng("plums/0", 0).random() == random.Random("plums/0").random()
    with pytest.raises(ValueError, match="blocks are counted from 0; got -1"):
        block_rng("plums/-1", -1)


def test_keys_that_look_alike_differ():
    assert generator("a", "b").random() != generator("ab").random()
    assert generator(1).random() != generator("1").random()
    assert generator(np.int64(1)).random() == generator(1).random()


# --- bad input ---------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("table", "says"),
    [
        ([[0.5, 0.5], [0.5, 0.4]], r"row\[1\] must sum to one; it sums to 0\.9"),
        ([[0.5, 0.5], [1.5, -0.5]], r"row\[1, 1\] must be a probability, 0 or larger; it is -0\.5"),
        ([[0.5, np.nan], [0.5, 0.5]], r"row\[0, 1\] must be a probability"),
        ([np.inf, 0.0], r"row\[0\] must be a probability"),
        ([0.2, 0.2], "row must sum to one; it sums to 0.4"),
    ],
)
def test_what_is_no_probability_is_named(table, says):
    with pytest.raises(ValueError, match=says):
        check_probabilities("row", np.array(table))


@pytest.mark.parametrize(
    ("transition", "says"),
    [
        (np.eye(3), r"reducible: it may end in \{0\} or in \{1\}"),
        ([[0.5, 0.5, 0], [0, 1, 0], [0, 0.5, 0.5]], r"absorbing: once in \{1\}"),
        (
            [
                [0, 1, 0, 0, 0],
                [1, 0, 0, 0, 0],
                [0.5, 0, 0, 0.5, 0],
                [0, 0, 0, 0, 1],
                [0, 0, 0, 1, 0],
            ],
            r"may end in \{0 1\} or in \{3 4\}",
        ),
        (np.stack([np.eye(2), np.eye(2)]), r"may end in \{0,0\} or in \{1,1\}"),
    ],
)
def test_a_chain_without_one_stationary_distribution_is_named(transition, says):
    with pytest.raises(ValueError, match=says):
        stationary(np.array(transition, dtype=float))


def test_a_chain_of_one_state_stays_there_and_may():
    assert stationary(np.array([[1.0]])).tolist() == [1.0]


def test_a_chain_that_does_not_settle_is_told(monkeypatch):
    monkeypatch.setattr(chance, "SOLVE_STATES", 0)
    monkeypatch.setattr(chance, "MAX_STEPS", 10)
    with pytest.raises(ValueError, match="of 2 states has not settled after 10 steps"):
        stationary(np.array([[1 - 1e-6, 1e-6], [2e-6, 1 - 2e-6]]))


@pytest.mark.parametrize(
    ("tokens", "says"),
    [
        ([0, 5], r"symbols must be 0 to 3; got 5 at \[1\]"),
        ([[0, 1], [-1, 2]], r"got -1 at \[1, 0\]"),
        ([0.5], "whole numbers; got float64"),
        (3, "got 0 axes"),
        (np.zeros((1, 1, 1), dtype=int), "got 3 axes"),
    ],
)
def test_what_is_no_symbol_is_named(tokens, says):
    with pytest.raises(ValueError, match=says):
        check_tokens(tokens, 4)


def test_no_tokens_are_tokens():
    assert check_tokens([], 4).dtype == np.int64


def test_tables_are_copied_and_cannot_be_written():
    mine = np.array([0.5, 0.5])
    table = as_table("row", mine)
    mine[0] = 7
    assert table.tolist() == [0.5, 0.5]
    with pytest.raises(ValueError, match="read-only"):
        table[0] = 1


def test_ragged_tables_and_other_shapes_are_refused():
    assert as_table("row", [0.5, 0.5], (2,)).shape == (2,)
    with pytest.raises(ValueError, match="row must be a table of numbers with rows alike"):
        as_table("row", [[1], [0.5, 0.5]])
    with pytest.raises(ValueError, match=r"row must have the shape \[3\]; got \[2\]"):
        as_table("row", [0.5, 0.5], (3,))


def test_a_seed_is_a_number_or_a_text():
    for other in (0.5, True):
        with pytest.raises(ValueError, match=f"whole number or a text; got {other}"):
            generator("a", other)


def test_a_block_before_the_first_and_a_row_without_tokens_are_refused():
    for index, n_tokens in ((-1, 4), (0, 0)):
        with pytest.raises(ValueError, match=f"got {index} and {n_tokens}"):
            draw_block(lambda *_: None, "name", index, 0, n_tokens)


def test_nothing_follows_what_is_never_said():
    refuse_impossible([0, 1], -700.0)
    with pytest.raises(ValueError, match=r"never says \[0, 1\]"):
        refuse_impossible([0, 1], -np.inf)
    with pytest.raises(ValueError, match=r"0, 0, …\]"):
        refuse_impossible([0] * 30, -np.inf)


def test_a_table_that_would_fill_the_memory_is_refused():
    with pytest.raises(ValueError, match=r"needs 32\^5 entries"):
        check_size(32, 5)
    with pytest.raises(ValueError, match="table of all 0-grams"):
        check_size(32, 0)
