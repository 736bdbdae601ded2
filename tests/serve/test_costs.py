"""minillm.serve.costs: the formula, what is measured and fitted, and what data sheets give."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from minillm.model.config import tiny
from minillm.serve.costs import Costs, Sample, copy_seconds, fit, measure, pairs, roofline

SHEET = {
    "n_parameters": 100,
    "n_layers": 2,
    "d_model": 4,
    "flops_per_second": 50.0,
    "memory_bytes_per_second": 20.0,
    "link_bytes_per_second": 8.0,
    "memory_bytes": 520,
}
costs_of_any_kind = st.builds(
    Costs,
    **{name: st.floats(0.01, 10) for name in ("fixed", "prompt_token", "row")},
    **{name: st.floats(0, 1) for name in ("cached_token", "pair", "floor")},
)


# --- by hand --------------------------------------------------------------------------------------
def test_the_floor_hides_some_tokens_and_no_attention():
    costs = Costs(fixed=1, prompt_token=2, row=3, cached_token=0.5, pair=0.25, floor=10)
    assert costs.seconds(n_prompt=3, batch_size=1) == 10 == costs.seconds(batch_size=1)
    assert costs.seconds(n_prompt=2, batch_size=1, n_cached=8, n_pairs=4) == 10 + 4 + 1
    assert costs.prefill(6) == 1 + 12 + 0.25 * 21
    assert costs.decode(4, 20) == 1 + 12 + 10


def test_pairs_are_counted_one_by_one():
    for start, n_new in ((0, 1), (0, 5), (7, 3)):
        assert pairs(n_new, start) == sum(start + n + 1 for n in range(n_new))


def test_data_sheets_give_operations_and_bytes():
    costs = roofline(**SHEET)
    assert costs.floor == 200 / 20  # 100 parameters of 2 bytes
    assert costs.prompt_token == costs.row == 200 / 50
    assert costs.cached_token == 2 * 2 * 4 * 2 / 20  # keys and values of 2 layers, 4 wide
    assert costs.pair == 4 * 2 * 4 / 50
    assert (costs.transfer_token, costs.cache_tokens) == (32 / 8, 320 // 32)


def test_all_kinds_of_passes_take_turns_and_the_first_round_does_not_count():
    slow, even = range(0, 1600, 100), range(1600, 1616)  # two looks at the clock a pass, 8 kinds
    ticks = iter([*slow, *even])
    model = tiny(16).build(seed=0)
    samples = measure(
        model, prompts=[4, 6], batch_sizes=[1, 3], n_repeats=1, clock=lambda: next(ticks)
    )
    assert [sample[:4] for sample in samples] == [
        (4, 0, 0, 10), (2, 0, 2, 7), (0, 1, 4, 0), (0, 3, 12, 0),
        (6, 0, 0, 21), (3, 0, 3, 15), (0, 1, 6, 0), (0, 3, 18, 0),
    ]  # fmt: skip
    assert {sample.seconds for sample in samples} == {1}
    assert list(ticks) == []  # two rounds


def test_a_model_s_times_are_positive_and_so_are_its_costs():
    model = tiny(16).build(seed=0)
    costs, error = fit(measure(model, prompts=[8, 32], batch_sizes=[1, 4], n_repeats=1))
    assert costs.prefill(32) > 0 and costs.decode(4, 32) > 0 and error >= 0
    assert copy_seconds(model, 16, n_repeats=1) > 0


# --- laws -----------------------------------------------------------------------------------------
@given(costs_of_any_kind)
def test_a_fit_returns_the_costs_that_made_the_samples(costs):
    costs = Costs(**{**vars(costs), "floor": 0.0})
    kinds = [(n, 0, s, pairs(n, s)) for n in (2, 9, 30) for s in (0, 5)]
    kinds += [(0, b, b * s, 0) for b in (1, 4) for s in (3, 50)]
    solved, error = fit([Sample(*kind, costs.seconds(*kind)) for kind in kinds])
    assert error < 1e-6
    for kind in kinds:
        assert solved.seconds(*kind) == pytest.approx(costs.seconds(*kind), rel=1e-5)


def test_no_cost_is_negative_even_where_that_would_fit_better():
    # rows that cost less and less: the line through them would begin below 0
    kinds = [(n, 0, 0, 0) for n in (1, 2, 3)] + [(0, n, 0, 0) for n in (1, 2, 3)]
    seconds = [0.1, 1.0, 1.9, 0.1, 1.0, 1.9]
    samples = [Sample(*kind, each) for kind, each in zip(kinds, seconds, strict=True)]
    costs, error = fit(samples)
    assert costs.fixed == 0 and costs.prompt_token > 0 and costs.row > 0
    predicted = np.array([costs.seconds(*kind) for kind in kinds])
    assert error == pytest.approx(np.sqrt(np.mean((predicted / seconds - 1) ** 2)))


@given(costs_of_any_kind, st.integers(1, 100), st.integers(1, 100))
def test_reading_in_two_parts_is_never_faster(costs, n, m):
    parts = costs.prefill(n) + costs.seconds(n_prompt=m, n_cached=n, n_pairs=pairs(m, n))
    assert parts >= costs.prefill(n + m) * (1 - 1e-9)


# --- bad input ------------------------------------------------------------------------------------
@pytest.mark.parametrize(
    ("attempt", "words"),
    [
        (lambda: Costs(fixed=-1.0, prompt_token=1, row=1), "fixed"),
        (lambda: Costs(fixed=1.0, prompt_token=math.inf, row=1), "prompt_token"),
        (lambda: Costs(fixed=0.0, prompt_token=1, row=0), "must take some time"),
        (lambda: Costs(fixed=1.0, prompt_token=1, row=1, cache_tokens=0), "at least one token"),
        (lambda: roofline(**{**SHEET, "memory_bytes": 200}), "no place is left for caches"),
        (lambda: measure(None, prompts=[1], batch_sizes=[1]), "2 tokens or more"),
        (lambda: fit([Sample(1, 0, 0, 1, 1.0)] * 4), "at least 5 samples"),
    ],
)
def test_what_cannot_be_a_cost_is_refused(attempt, words):
    with pytest.raises(ValueError, match=words):
        attempt()
