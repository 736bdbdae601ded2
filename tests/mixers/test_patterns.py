import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from minillm.mixers.patterns import (
    Global,
    Hierarchical,
    Random,
    Sinks,
    Strided,
    Window,
    any_of,
    checked_patterns,
    n_edges,
)
from minillm.model.masks import causal

EACH = {
    "window": Window(n_tokens=3),
    "sinks": Sinks(n_tokens=2),
    "strided": Strided(stride=3),
    "random": Random(n_blocks=2, block_tokens=3, seed=4),
    "global": Global(every=5),
    "hierarchical": Hierarchical(fan=2),
}


def seen(pattern, n_tokens=8):
    """Of each token the places that it sees, under the causal mask."""
    positions = torch.arange(n_tokens)
    mask = pattern.mask(positions, positions) & causal(positions, positions)
    return [row.nonzero().flatten().tolist() for row in mask]


# --- by hand -----------------------------------------------------------------------------------
def test_a_window_of_three_is_the_token_and_two_before_it():
    assert seen(Window(n_tokens=3))[:4] == [[0], [0, 1], [0, 1, 2], [1, 2, 3]]
    assert seen(Window(n_tokens=3))[7] == [5, 6, 7]


def test_sinks_are_the_first_tokens_of_the_text():
    assert seen(Sinks(n_tokens=2)) == [[0]] + 7 * [[0, 1]]


def test_strides_are_the_last_three_and_every_third_before_them():
    assert seen(Strided(stride=3)) == [
        [0],
        [0, 1],
        [0, 1, 2],
        [0, 1, 2, 3],
        [1, 2, 3, 4],
        [2, 3, 4, 5],
        [0, 3, 4, 5, 6],
        [1, 4, 5, 6, 7],
    ]


def test_every_fourth_token_sees_all_and_is_seen_by_all():
    assert seen(Global(every=4)) == [
        [0],
        [0],
        [0],
        [0],
        [0, 1, 2, 3, 4],
        [0, 4],
        [0, 4],
        [0, 4],
    ]


def test_hierarchical_distances_are_nought_one_two_four():
    assert seen(Hierarchical(fan=2)) == [
        [0],
        [0, 1],
        [0, 1, 2],
        [1, 2, 3],
        [0, 2, 3, 4],
        [1, 3, 4, 5],
        [2, 4, 5, 6],
        [3, 5, 6, 7],
    ]


def test_random_blocks_are_whole_are_earlier_and_are_all_where_there_are_few():
    rows = seen(Random(n_blocks=2, block_tokens=2, seed=0))
    assert rows[0] == rows[1] == []  # no block before the first
    assert rows[2] == rows[3] == [0, 1]
    assert rows[4] == rows[5] == [0, 1, 2, 3]
    assert rows[6] == rows[7] and len(rows[6]) == 4 and set(rows[6]) < set(range(6))
    assert all(place + 1 in rows[6] for place in rows[6] if place % 2 == 0)


def test_another_seed_draws_other_blocks():
    drawn = [seen(Random(n_blocks=1, block_tokens=1, seed=seed), 40) for seed in (0, 0, 1)]
    assert drawn[0] == drawn[1] != drawn[2]


def test_patterns_are_joined_by_or_and_pairs_are_counted():
    positions = torch.arange(8)
    mask = any_of((Window(n_tokens=1), Sinks(n_tokens=1)), positions, positions)
    assert n_edges(mask & causal(positions, positions)) == 8 + 7
    assert n_edges(causal(positions, positions)) == 36


# --- twin --------------------------------------------------------------------------------------
@pytest.mark.parametrize("name", EACH)
def test_any_part_of_the_table_is_that_part_of_the_whole_one(name):
    positions = torch.arange(40)
    whole = EACH[name].mask(positions, positions)
    assert whole.shape == (40, 40) and whole.dtype == torch.bool
    for queries, keys in ((slice(7, 8), slice(0, 8)), (slice(11, 30), slice(3, 35))):
        part = EACH[name].mask(positions[queries], positions[keys])
        assert torch.equal(part, whole[queries, keys])


@pytest.mark.parametrize("name", EACH)
def test_rows_with_places_of_their_own_have_masks_of_their_own(name):
    positions = torch.stack([torch.arange(20), torch.arange(7, 27), torch.arange(20).flip(0)])
    mask = EACH[name].mask(positions, positions)
    assert mask.shape == (3, 1, 20, 20)
    for row in range(3):
        assert torch.equal(mask[row, 0], EACH[name].mask(positions[row], positions[row]))


# --- law ---------------------------------------------------------------------------------------
def slope(patterns_of, smallest=512, largest=8192):
    """Of log(pairs) against log(tokens), between two lengths; counted 512 rows at a time."""
    edges = []
    for n_tokens in (smallest, largest):
        positions, patterns = torch.arange(n_tokens), patterns_of(n_tokens)
        edges.append(
            sum(
                n_edges(any_of(patterns, rows, keys) & causal(rows, keys))
                for rows in positions.split(512)
                for keys in [positions[: rows[-1] + 1]]
            )
        )
    return math.log(edges[1] / edges[0]) / math.log(largest / smallest)


def test_pairs_grow_as_the_text_with_window_sinks_random_and_sixteen_globals():
    def patterns(n_tokens):
        return (
            Window(n_tokens=64),
            Sinks(n_tokens=4),
            Random(n_blocks=2, block_tokens=16),
            Global(every=n_tokens // 16),
        )

    assert 0.95 < slope(patterns, 512, 8192) <= 1.1


def test_pairs_of_all_with_all_before_grow_as_the_square():
    assert slope(lambda n: (Window(n_tokens=n),), 512, 2048) == pytest.approx(2, abs=0.01)


@given(st.integers(2, 6), st.integers(1, 300))
@settings(max_examples=50, deadline=None)
def test_hierarchical_keys_are_few_and_their_distances_have_one_digit_that_is_not_zero(fan, n):
    keys = Hierarchical(fan=fan).mask(torch.tensor([n - 1]), torch.arange(n))[0].nonzero().flatten()
    distances = [n - 1 - key for key in keys.tolist()]

    def digits_not_zero(number):
        return 0 if number == 0 else (number % fan != 0) + digits_not_zero(number // fan)

    assert sorted(distances) == [d for d in range(n) if digits_not_zero(d) <= 1]
    assert len(distances) <= 1 + (fan - 1) * (math.log(max(n - 1, 1), fan) + 1.001)


@given(st.integers(1, 9), st.integers(1, 60))
@settings(max_examples=50, deadline=None)
def test_two_steps_of_a_stride_reach_every_earlier_token(stride, n_tokens):
    positions = torch.arange(n_tokens)
    one = (Strided(stride=stride).mask(positions, positions) & causal(positions, positions)).float()
    assert torch.equal(one @ one > 0, causal(positions, positions))


@given(st.integers(1, 4), st.integers(1, 5), st.integers(0, 9))
@settings(max_examples=30, deadline=None)
def test_as_many_random_blocks_as_asked_for_and_no_later_one(n_blocks, block_tokens, seed):
    positions = torch.arange(40)
    mask = Random(n_blocks=n_blocks, block_tokens=block_tokens, seed=seed).mask(
        positions, positions
    )
    for query in range(40):
        block = query // block_tokens
        assert mask[query].sum() == min(n_blocks, block) * block_tokens
        assert not mask[query, block * block_tokens :].any()


# --- what stops it -----------------------------------------------------------------------------
@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: Window(n_tokens=0), "n_tokens of a Window must be at least 1; got 0"),
        (lambda: Sinks(n_tokens=0), "n_tokens of Sinks must be at least 1; got 0"),
        (lambda: Strided(stride=0), "stride must be at least 1; got 0"),
        (lambda: Random(n_blocks=0, block_tokens=4), "n_blocks of Random must be at least 1"),
        (lambda: Random(n_blocks=1, block_tokens=0), "block_tokens of Random must be at least 1"),
        (lambda: Random(n_blocks=1, block_tokens=4, seed=-1), "seed of Random must be at least 0"),
        (lambda: Global(every=0), "every must be at least 1; got 0"),
        (lambda: Hierarchical(fan=1), "fan must be at least 2; got 1"),
        (lambda: any_of((), torch.arange(2), torch.arange(2)), "at least one pattern"),
        (lambda: checked_patterns(()), r"at least one pattern.*got \(\)"),
        (lambda: checked_patterns((3,)), "a pattern is an object with mask.*got 3"),
        (lambda: checked_patterns(Window(n_tokens=1)), r"Give a tuple"),
    ],
)
def test_what_is_no_pattern_is_refused(make, message):
    with pytest.raises(ValueError, match=message):
        make()
