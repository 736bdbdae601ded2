import itertools
import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import chisquare
from transformers import (
    MinPLogitsWarper,
    TemperatureLogitsWarper,
    TopKLogitsWarper,
    TopPLogitsWarper,
)

from minillm.serve.logits_processors import draw, min_p, temperature, top_k, top_p


def logits_of(*weights):
    """Logits whose softmax is these weights, over their sum."""
    return torch.tensor(weights, dtype=torch.float64).log()


def kept(logits):
    """Which tokens are left."""
    return torch.isfinite(logits).nonzero().flatten().tolist()


def probabilities(logits):
    return logits.softmax(dim=-1).tolist()


# --- by hand -----------------------------------------------------------------------------------
def test_half_the_temperature_squares_and_twice_takes_the_root():
    logits = logits_of(9, 4, 1)
    assert probabilities(temperature(logits, 0.5)) == pytest.approx([81 / 98, 16 / 98, 1 / 98])
    assert probabilities(temperature(logits, 2.0)) == pytest.approx([3 / 6, 2 / 6, 1 / 6])
    assert probabilities(temperature(logits, 1.0)) == pytest.approx([9 / 14, 4 / 14, 1 / 14])


def test_temperature_zero_leaves_the_likeliest_and_of_equals_the_first():
    assert probabilities(temperature(logits_of(3, 5, 2), 0.0)) == [0, 1, 0]
    assert probabilities(temperature(logits_of(2, 5, 5), 0.0)) == [0, 1, 0]


@pytest.mark.parametrize("t", [1e-3, 1e-30, 1e-37, 1e-40, 5e-324])
@pytest.mark.parametrize("dtype", [torch.float16, torch.float32, torch.float64])
def test_a_small_temperature_comes_to_the_limit_whatever_the_numbers_can_hold(t, dtype):
    logits = torch.tensor([[300.0, -300.0, -math.inf], [-4.0, -3.0, -5.0]], dtype=dtype)
    assert probabilities(temperature(logits, t)) == [[1, 0, 0], [0, 1, 0]]


def test_top_k_keeps_k_and_what_is_as_likely_as_the_last_of_them():
    logits = logits_of(2, 5, 3, 1)
    assert [kept(top_k(logits, k)) for k in (1, 2, 3)] == [[1], [1, 2], [0, 1, 2]]
    assert kept(top_k(logits, 4)) == kept(top_k(logits, 99)) == [0, 1, 2, 3]
    assert kept(top_k(logits_of(3, 1, 3, 5), 2)) == [0, 2, 3]
    assert probabilities(top_k(logits, 2)) == pytest.approx([0, 5 / 8, 3 / 8, 0])


def test_top_p_keeps_the_fewest_that_reach_it():
    logits = logits_of(0.15, 0.5, 0.05, 0.3)
    wanted = {0.01: [1], 0.49: [1], 0.51: [1, 3], 0.79: [1, 3], 0.81: [0, 1, 3], 0.96: [0, 1, 2, 3]}
    for share, tokens in wanted.items():
        assert kept(top_p(logits, share)) == tokens, share
    assert kept(top_p(torch.zeros(100), 0.595)) == list(range(60))  # of equals the first


def test_top_p_of_one_keeps_even_what_rounding_would_lose():
    logits = torch.tensor([0.0, -40.0, -41.0])
    assert kept(top_p(logits, 1.0)) == [0, 1, 2]


def test_min_p_is_measured_on_the_likeliest():
    sure, unsure = logits_of(90, 5, 4, 1), logits_of(30, 25, 25, 20)
    assert kept(min_p(sure, 0.05)) == [0, 1]  # at least 4.5 %
    assert kept(min_p(unsure, 0.05)) == [0, 1, 2, 3]
    assert kept(min_p(unsure, 0.7)) == [0, 1, 2]
    assert kept(min_p(sure, 0.0)) == [0, 1, 2, 3]


def test_each_row_is_filtered_by_itself():
    rows = torch.stack([logits_of(6, 3, 1), logits_of(1, 3, 6)]).reshape(2, 1, 3)
    for name, filtered in {
        "top_k": top_k(rows, 2),
        "top_p": top_p(rows, 0.7),
        "min_p": min_p(rows, 0.4),
    }.items():
        assert [kept(row) for row in filtered[:, 0]] == [[0, 1], [1, 2]], name
    assert temperature(rows, 0.0).softmax(dim=-1)[:, 0].tolist() == [[1, 0, 0], [0, 0, 1]]


def test_a_number_falls_on_the_stretch_of_its_token():
    numbers = [0.0, 0.2499, 0.25, 0.4999, 0.5, 0.7499, 0.75, 0.9999]
    drawn = draw(torch.zeros(8, 4), torch.tensor(numbers))  # four equal ones: exact everywhere
    assert drawn.tolist() == [0, 0, 1, 1, 2, 2, 3, 3]


def test_what_is_ruled_out_is_never_drawn_not_even_at_the_ends():
    smallest, largest = 0.0, 1 - 2**-24
    for inner in ([1.0, 2.0], [-30.0, 30.0], [0.1, 0.7, 0.3]):
        logits = torch.tensor([-math.inf, *inner, -math.inf, -math.inf])
        drawn = draw(logits.expand(2, len(logits)), torch.tensor([smallest, largest]))
        assert drawn.min() >= 1
        assert drawn.max() <= len(inner)
    many = torch.randn(200, 500, generator=torch.Generator().manual_seed(0))
    ends = many.softmax(dim=-1).cumsum(dim=-1)[:, -1]
    assert (ends <= largest).any()  # by rounding many rows end before 1; which ones, no law says
    assert draw(many, torch.full((200,), largest)).tolist() == [499] * 200


# --- twin --------------------------------------------------------------------------------------
some_logits = st.lists(st.integers(-40, 40), min_size=1, max_size=7, unique=True).map(
    lambda numbers: torch.tensor(numbers, dtype=torch.float64) / 10
)


@given(some_logits, st.floats(0.01, 0.99))
@settings(max_examples=80, deadline=None)
def test_the_nucleus_is_the_smallest_of_all_sets_that_reach_p(logits, share):
    p = logits.softmax(dim=-1).tolist()
    sets = [
        tokens
        for size in range(1, len(p) + 1)
        for tokens in itertools.combinations(range(len(p)), size)
        if math.fsum(p[token] for token in tokens) >= share - 1e-12
    ]
    smallest = min(map(len, sets))
    best = max((s for s in sets if len(s) == smallest), key=lambda s: sum(p[t] for t in s))
    found = kept(top_p(logits, share))
    if all(abs(math.fsum(p[t] for t in s) - share) > 1e-9 for s in sets):  # no tie by rounding
        assert tuple(found) == best


@given(some_logits, st.integers(1, 9))
@settings(max_examples=50, deadline=None)
def test_top_k_is_the_head_of_a_sorted_list(logits, k):
    order = sorted(range(len(logits)), key=lambda token: -logits[token])
    assert kept(top_k(logits, k)) == sorted(order[:k])


@given(some_logits, st.floats(0, 0.999))
@settings(max_examples=50, deadline=None)
def test_a_draw_is_a_walk_along_the_probabilities(logits, uniform):
    edges = [*itertools.accumulate(logits.softmax(dim=-1).tolist())]
    walked = next(token for token, edge in enumerate(edges) if edge > uniform * edges[-1])
    assert draw(logits, torch.tensor(uniform, dtype=torch.float64)).item() == walked


# --- reference ---------------------------------------------------------------------------------
def test_the_filters_are_those_of_transformers():
    generator = torch.Generator().manual_seed(0)
    logits = 3 * torch.randn(50, 19, generator=generator)
    for ours, theirs in [
        (temperature(logits, 1.7), TemperatureLogitsWarper(1.7)),
        *((top_k(logits, k), TopKLogitsWarper(k)) for k in (1, 5, 19, 30)),
        *((top_p(logits, p), TopPLogitsWarper(p)) for p in (0.05, 0.5, 0.9, 0.999)),
        *((min_p(logits, p), MinPLogitsWarper(p)) for p in (0.0, 0.05, 0.5, 0.9)),
    ]:
        assert torch.equal(ours, theirs(None, logits)), theirs
    cold, theirs = temperature(logits, 0.3), TemperatureLogitsWarper(0.3)(None, logits)
    assert torch.allclose(cold.softmax(dim=-1), theirs.softmax(dim=-1), rtol=1e-5)
    ties = torch.tensor([[1.0, 2.0, 2.0, 0.0, 2.0]])
    assert torch.equal(top_k(ties, 2), TopKLogitsWarper(2)(None, ties))


# --- law ---------------------------------------------------------------------------------------
@given(some_logits, st.floats(0.01, 1), st.integers(1, 8), st.floats(0, 0.99), st.floats(0.1, 3))
@settings(max_examples=80, deadline=None)
def test_what_is_left_sums_to_one_in_the_same_proportions(logits, share, k, least, t):
    for filtered in (top_p(logits, share), top_k(logits, k), min_p(logits, least)):
        p, left = filtered.softmax(dim=-1), kept(filtered)
        assert p.sum().item() == pytest.approx(1)
        assert logits.argmax().item() in left
        assert min(logits[left].tolist()) >= max(
            [n for token, n in enumerate(logits.tolist()) if token not in left], default=-math.inf
        )
        assert filtered[left].tolist() == logits[left].tolist()
    order = temperature(logits, t).argsort()
    assert order.tolist() == logits.argsort().tolist()


@given(some_logits, st.floats(0.05, 0.99), st.floats(0.05, 0.99))
@settings(max_examples=50, deadline=None)
def test_a_larger_p_keeps_no_fewer_and_a_larger_min_p_no_more(logits, one, other):
    small, large = sorted((one, other))
    assert set(kept(top_p(logits, small))) <= set(kept(top_p(logits, large)))
    assert set(kept(min_p(logits, large))) <= set(kept(min_p(logits, small)))


def test_drawn_frequencies_are_the_probabilities():
    p = np.array([0.4, 0.05, 0.3, 0.05, 0.2])
    uniform = torch.from_numpy(np.random.default_rng(0).random(20_000, dtype=np.float32))
    logits = torch.from_numpy(np.log(p)).float()
    counts = np.bincount(draw(logits.expand(20_000, 5), uniform), minlength=5)
    assert chisquare(counts, 20_000 * p).pvalue > 0.001
    warm = np.bincount(draw(temperature(logits, 2.0).expand(20_000, 5), uniform), minlength=5)
    assert chisquare(warm, 20_000 * np.sqrt(p) / np.sqrt(p).sum()).pvalue > 0.001
    assert chisquare(warm, 20_000 * p).pvalue < 1e-6  # the test can tell


# --- bad input ---------------------------------------------------------------------------------
@pytest.mark.parametrize(
    ("filtering", "number", "words"),
    [
        (temperature, -0.1, "temperature must be a finite number of at least 0"),
        (temperature, math.inf, "got inf"),
        (temperature, math.nan, "got nan"),
        (top_k, 0, "top_k must be at least 1"),
        (top_k, -3, "got -3"),
        (top_p, 0.0, "top_p must be above 0 and at most 1"),
        (top_p, 1.01, "got 1.01"),
        (top_p, math.nan, "got nan"),
        (min_p, -0.01, "min_p must be at least 0 and below 1"),
        (min_p, 1.0, "got 1.0"),
        (min_p, math.nan, "got nan"),
    ],
)
def test_a_number_out_of_its_range_is_named(filtering, number, words):
    with pytest.raises(ValueError) as error:
        filtering(torch.zeros(3), number)
    assert words in str(error.value)
