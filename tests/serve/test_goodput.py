"""minillm.serve.goodput: traces, promises, and the highest rate at which they are kept."""

import math
from dataclasses import replace

import numpy as np
import pytest

from minillm.serve import goodput as module
from minillm.serve.costs import Costs
from minillm.serve.disaggregate import Served, apart, chunked, prefill_first, simulate
from minillm.serve.goodput import (
    SLO,
    Workload,
    best,
    candidates,
    compare,
    goodput,
    relative,
    tail_gap,
)

COSTS = Costs(fixed=0.01, prompt_token=0.001, row=0.0005)
WORKLOAD = Workload(n_prompt=100, n_tokens=6, n_requests=100)
SMALL = replace(WORKLOAD, n_requests=40)


# --- by hand --------------------------------------------------------------------------------------
def test_arrivals_are_poisson_and_answers_geometric():
    trace = Workload(n_prompt=5, n_tokens=20, n_requests=20_000).draw(rate=4.0, seed=1)
    waits = np.diff(trace.arrivals)
    assert waits.mean() == pytest.approx(1 / 4, rel=0.05)
    assert waits.std() == pytest.approx(1 / 4, rel=0.05)
    assert set(trace.n_prompt) == {5}
    assert trace.n_tokens.mean() == pytest.approx(20, rel=0.05)
    assert (trace.n_tokens == 1).mean() == pytest.approx(1 / 20, rel=0.2)


def test_a_promise_has_three_limits():
    tokens = (np.array([1.0, 2.0, 5.0]), np.array([2.0]), np.array([2.0, 3.0]))
    served = Served(arrivals=np.array([0.0, 1.0, 1.5]), token_times=tokens, busy=())
    assert SLO(ttft_seconds=1, tpot_seconds=2).attainment(served) == 1
    assert SLO(ttft_seconds=0.9, tpot_seconds=2).attainment(served) == pytest.approx(1 / 3)
    assert SLO(ttft_seconds=1, tpot_seconds=1.9).attainment(served) == pytest.approx(2 / 3)
    slo = SLO(ttft_seconds=1, tpot_seconds=2, gap_seconds=2.9)
    assert slo.attainment(served) == pytest.approx(2 / 3)


def test_one_gap_of_a_hundred_may_be_long():
    slo = SLO(ttft_seconds=1, tpot_seconds=9, gap_seconds=1)
    for n_tokens, share in ((100, 0), (101, 1)):  # 99 and 100 gaps
        times = np.arange(float(n_tokens))
        times[50:] += 5
        served = Served(arrivals=np.zeros(1), token_times=(times,), busy=())
        assert slo.attainment(served) == share


def test_limits_are_multiples_of_what_a_request_takes_alone():
    costs = Costs(fixed=1.0, prompt_token=0.5, row=1.0, cached_token=0.25)
    slo = relative(costs, Workload(n_prompt=4, n_tokens=8), ttft=3, tpot=1.5, gap=5)
    assert slo == SLO(ttft_seconds=9, tpot_seconds=6, gap_seconds=20)  # 3; 2 + 8 in the cache


def test_a_queue_of_prompts_keeps_its_promise_up_to_the_rate_that_theory_gives():
    # M/D/1: prompts alone, each of 1 second, waited for at most 1 second by 90 %
    costs = Costs(fixed=1.0, prompt_token=0, row=1)
    workload = Workload(n_prompt=1, n_tokens=1, n_requests=300)
    slo = SLO(ttft_seconds=2, tpot_seconds=1)
    rate = goodput(workload, costs, prefill_first(1, step_tokens=1), slo, seeds=range(3))
    # Erlang: P(wait <= 1) = (1 - r) (e^r - r e^0), 0.9 at r = 0.41
    assert math.isclose(rate, 0.41, rel_tol=0.2)


def test_candidates_are_searched_on_all_sides_and_the_likeliest_split_is_first():
    fleets = candidates(WORKLOAD, COSTS, 4)
    assert fleets["prefill_first"] == [prefill_first(4, 512), prefill_first(4, 1)]
    assert {fleet.step_tokens for fleet in fleets["chunked"]} == {64, 128, 256, 512, 1024}
    assert [fleet.n_prefill for fleet in fleets["apart"]] == [3, 2, 1] * 2
    assert {fleet.n_machines for each in fleets.values() for fleet in each} == {4}


def test_the_longest_gaps_are_those_of_stalled_rows():
    gaps = {
        fleet: tail_gap(WORKLOAD, COSTS, fleet, rate=2.0)
        for fleet in (prefill_first(2), apart(1, 1))
    }
    whole, separate = gaps.values()
    assert whole > COSTS.prefill(100) > 5 * separate
    assert math.isnan(tail_gap(Workload(n_prompt=1, n_tokens=1), COSTS, apart(1, 1), rate=1.0))


# --- laws -----------------------------------------------------------------------------------------
def test_a_longer_or_a_faster_trace_begins_with_the_same_requests():
    long = Workload(n_prompt=9, n_tokens=9, prompts="geometric", n_requests=50).draw(1.0, seed=3)
    short = Workload(n_prompt=9, n_tokens=9, prompts="geometric", n_requests=20).draw(4.0, seed=3)
    assert short.arrivals * 4 == pytest.approx(long.arrivals[:20])
    for name in ("n_prompt", "n_tokens"):
        assert (getattr(short, name) == getattr(long, name)[:20]).all()
    assert (long.n_prompt != long.n_tokens).any()  # of equal means, drawn independently


@pytest.mark.parametrize("fleet", [prefill_first(2), chunked(2, 64), apart(1, 1)])
def test_goodput_never_rises_with_a_stricter_promise(fleet):
    rates = [
        goodput(SMALL, COSTS, fleet, relative(COSTS, SMALL, ttft=ttft, tpot=tpot), seeds=[0])
        for ttft, tpot in ((5, 4), (2, 4), (5, 1.3), (2, 1.3))
    ]
    for loose, strict in ((0, 1), (0, 2), (1, 3), (2, 3)):
        assert rates[strict] <= rates[loose] * 1.04  # the bisection ends at 3 %


def test_the_rate_is_kept_and_a_little_more_is_not():
    slo, fleet = relative(COSTS, WORKLOAD, ttft=3, tpot=2), chunked(2, 64)
    rate = goodput(WORKLOAD, COSTS, fleet, slo, seeds=[0, 1])
    workload = replace(WORKLOAD, n_requests=300)
    for factor, is_kept in ((0.8, True), (1.5, False)):
        served = simulate(workload.draw(2 * rate * factor, seed=9), COSTS, fleet).middle()
        assert (slo.attainment(served) >= 0.9) is is_kept
    assert goodput(WORKLOAD, COSTS, fleet, slo, seeds=[0, 1], beat=rate) == 0


def test_the_best_is_the_highest_of_all_and_who_is_no_better_costs_one_try(monkeypatch):
    rates, tries = {64: 3.0, 128: 5.0, 256: 5.1, 512: 4.0}, []

    def pretended(workload, costs, fleet, slo, *, seeds, beat):
        tries.append((fleet.step_tokens, beat))
        rate = rates[fleet.step_tokens]
        return rate if rate > beat * 1.03 else 0.0

    monkeypatch.setattr(module, "goodput", pretended)
    fleets = [chunked(2, size) for size in rates]
    assert best(SMALL, COSTS, fleets, None) == (chunked(2, 128), 5.0)
    assert tries == [(64, 0), (128, 3.0), (256, 5.0), (512, 5.0)]


def test_each_way_is_compared_at_its_best():
    tops = compare(SMALL, COSTS, relative(COSTS, SMALL, ttft=3, tpot=1.5), 2, seeds=[0])
    for top, fleets in zip(tops, candidates(SMALL, COSTS, 2).values(), strict=True):
        assert top.fleet in fleets and top.goodput > 0


def test_a_promise_that_cannot_be_kept_has_no_goodput():
    slo = SLO(ttft_seconds=0.05, tpot_seconds=1)  # a prompt takes 0.11 s
    assert goodput(SMALL, COSTS, prefill_first(1), slo, seeds=[0]) == 0
    assert best(SMALL, COSTS, [apart(1, 1)], slo, seeds=[0]) == (apart(1, 1), 0)


# --- bad input ------------------------------------------------------------------------------------
def test_a_promise_that_no_rate_breaks_is_refused(monkeypatch):
    monkeypatch.setattr(module, "MOST_AT_ONCE", 8)
    slo = SLO(ttft_seconds=math.inf, tpot_seconds=math.inf)
    with pytest.raises(ValueError, match="no rate is the highest"):
        goodput(SMALL, COSTS, chunked(1, 64), slo, seeds=[0])


@pytest.mark.parametrize(
    ("attempt", "words"),
    [
        (lambda: Workload(n_prompt=0, n_tokens=1), "at least 1"),
        (
            lambda: Workload(n_prompt=1, n_tokens=1, answers="normal"),
            "fixed or geometric; got norm",
        ),
        (lambda: WORKLOAD.draw(rate=0.0, seed=0), "above 0 a second"),
        (lambda: SLO(ttft_seconds=0, tpot_seconds=1), "seconds above 0"),
        (lambda: goodput(WORKLOAD, COSTS, apart(1, 1), None, seeds=[]), "a seed"),
        (lambda: candidates(WORKLOAD, COSTS, 1), "at least 2 machines"),
    ],
)
def test_what_cannot_be_promised_is_refused(attempt, words):
    with pytest.raises(ValueError, match=words):
        attempt()
