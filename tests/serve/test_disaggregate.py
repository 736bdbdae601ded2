"""minillm.serve.disaggregate: fleets on paper, and what must be conserved."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from minillm.serve.costs import Costs
from minillm.serve.disaggregate import Fleet, Served, Trace, apart, chunked, prefill_first, simulate

COSTS = Costs(fixed=1.0, prompt_token=0.125, row=0.0)


def times(trace, costs, fleet):
    return [each.tolist() for each in simulate(trace, costs, fleet).token_times]


# --- by hand --------------------------------------------------------------------------------------
def test_two_requests_on_paper():
    trace = Trace([0.0, 3.5], [8, 16], [4, 2])
    assert times(trace, COSTS, prefill_first(1)) == [[2, 3, 4, 8], [7, 8]]
    assert times(trace, COSTS, chunked(1, 9)) == [[2, 3, 4, 6], [8, 9]]
    # read 0-2 and 3.5-6.5; the second joins the first one's rows after its last token
    assert times(trace, COSTS, apart(1, 1)) == [[2, 3, 4, 5], [6.5, 7.5]]


def test_a_cache_takes_its_time_and_caches_follow_each_other():
    costs = Costs(fixed=1.0, prompt_token=0.125, row=0.0, transfer_token=0.5)
    trace = Trace([0.0, 0.0, 0.0], [8, 8, 8], [2, 2, 1])
    # read until 2, 4 and 6; sent 2-6 and 6-10; the third has its only token
    assert times(trace, costs, apart(1, 1, step_tokens=1)) == [[2, 7], [4, 11], [6]]
    # two readers: sent 2-6 each; the two are rows of one step
    assert times(trace, costs, apart(2, 1, step_tokens=1)) == [[2, 7], [2, 7], [4]]


def test_a_request_goes_to_the_machine_that_has_the_fewest():
    trace = Trace([0.0, 0.0, 0.0, 0.5], [8, 16, 8, 8], [1, 1, 1, 1])
    # both are busy at 0.5, one until 2 with another waiting, one until 3
    assert times(trace, COSTS, prefill_first(2, step_tokens=1)) == [[2], [3], [4], [5]]


def test_what_requests_saw_follows_from_the_times_of_their_tokens():
    token_times = (np.array([3.0, 4.0, 8.0]), np.array([5.0]))
    served = Served(arrivals=np.array([1.0, 2.0]), token_times=token_times, busy=(6.0,))
    assert served.ttft.tolist() == [2, 3]
    assert [gaps.tolist() for gaps in served.gaps] == [[1, 4], []]
    assert served.tpot.tolist() == [2.5, 0]
    assert served.throughput == 4 / 7
    many = Served(arrivals=np.arange(9.0), token_times=token_times[1:] * 9, busy=())
    assert many.middle().arrivals.tolist() == [2, 3, 4, 5, 6]


# --- laws -----------------------------------------------------------------------------------------
def lists(low, high, n):
    return st.lists(st.integers(low, high), min_size=n, max_size=n)


traces = st.integers(1, 15).flatmap(
    lambda n: st.builds(
        Trace,
        lists(0, 60, n).map(sorted),
        lists(1, 40, n),
        lists(1, 15, n),
    )
)
fleets = st.one_of(
    st.builds(prefill_first, st.integers(1, 3), st.integers(1, 60)),
    st.builds(chunked, st.integers(1, 3), st.integers(1, 60)),
    st.builds(apart, st.integers(1, 2), st.integers(1, 2), st.integers(1, 60)),
)
machines = st.builds(
    Costs,
    fixed=st.floats(0.1, 2),
    prompt_token=st.floats(0.01, 1),
    row=st.floats(0, 1),
    cached_token=st.floats(0, 0.05),
    pair=st.floats(0, 0.01),
    floor=st.floats(0, 3),
    transfer_token=st.floats(0, 0.5),
    cache_tokens=st.integers(54, 200),
)


@settings(max_examples=40)
@given(traces, machines, fleets)
def test_every_request_gets_exactly_its_tokens_in_order(trace, costs, fleet):
    served = simulate(trace, costs, fleet)
    assert [len(each) for each in served.token_times] == trace.n_tokens
    assert all((gaps > 0).all() for gaps in served.gaps)
    # nobody is faster than alone: a whole pass over the prompt, then at least a step a token
    alone = [costs.prefill(n_prompt) for n_prompt in trace.n_prompt]
    assert (served.ttft >= np.array(alone) * (1 - 1e-9)).all()
    assert all((gaps >= costs.decode(1, 1) * (1 - 1e-6)).all() for gaps in served.gaps)
    assert len(served.busy) == fleet.n_machines
    end = max(each[-1] for each in served.token_times)
    assert max(served.busy) <= (end - trace.arrivals[0]) * (1 + 1e-9)


@settings(max_examples=40)
@given(traces, st.floats(0.1, 2), st.floats(0.01, 1), fleets)
def test_work_is_conserved_where_passes_share_nothing(trace, seconds, row, fleet):
    costs = Costs(fixed=0.0, prompt_token=seconds, row=row)  # no pass costs anything but its tokens
    served = simulate(trace, costs, fleet)
    work = seconds * sum(trace.n_prompt) + row * sum(n - 1 for n in trace.n_tokens)
    assert sum(served.busy) == pytest.approx(work)


@settings(max_examples=40)
@given(traces, machines, st.integers(1, 3))
def test_one_request_alone_takes_its_prefill_and_its_steps(trace, costs, n_machines):
    (arrival, *_), (n_prompt, *_), (n_tokens, *_) = trace
    alone = Trace([arrival], [n_prompt], [n_tokens])
    steps = [costs.decode(1, n_prompt + n) for n in range(n_tokens - 1)]
    expected = arrival + np.cumsum([costs.prefill(n_prompt), *steps])
    for fleet in (prefill_first(n_machines), chunked(n_machines, 99)):
        assert simulate(alone, costs, fleet).token_times[0] == pytest.approx(expected)
    expected[1:] += costs.transfer_token * n_prompt
    served = simulate(alone, costs, apart(n_machines, 1))
    assert served.token_times[0] == pytest.approx(expected)


@settings(max_examples=40)
@given(traces, st.integers(1, 2), st.integers(1, 2))
def test_apart_with_a_free_transfer_no_prompt_stalls_a_row(trace, n_prefill, n_decode):
    served = simulate(trace, COSTS, apart(n_prefill, n_decode))  # a step takes 1, a prompt more
    for first, *others in (gaps.tolist() for gaps in served.gaps if gaps.size):
        assert first < 2 + 1e-9  # at most one step that has begun, and its own
        assert others == pytest.approx([1] * len(others))


@settings(max_examples=40)
@given(st.integers(1, 30), st.integers(2, 12), st.integers(1, 5))
def test_at_saturation_throughput_is_the_capacity_on_paper(n_prompt, n_tokens, n_slots):
    costs = Costs(
        fixed=0.5, prompt_token=0.1, row=0.2, cache_tokens=n_slots * (n_prompt + n_tokens - 1)
    )
    n = 4 * n_slots
    trace = Trace([0.0] * n, [n_prompt] * n, [n_tokens] * n)
    # four rounds: each slot's prompt is read alone, then all decode together
    seconds = 4 * (n_slots * costs.prefill(n_prompt) + (n_tokens - 1) * costs.decode(n_slots, 0))
    served = simulate(trace, costs, prefill_first(1, step_tokens=1))
    assert served.throughput == pytest.approx(n * n_tokens / seconds)
    assert served.busy[0] == pytest.approx(seconds)


# --- bad input ------------------------------------------------------------------------------------
@pytest.mark.parametrize(
    ("attempt", "words"),
    [
        (lambda: Fleet(n_machines=2, n_prefill=2), "2 of 2 that read prompts only"),
        (lambda: chunked(1, 0), "0 step_tokens"),
        (lambda: apart(0, 2), "at least one machine to read prompts"),
        (lambda: simulate(Trace([], [], []), COSTS, prefill_first(1)), "at least one request"),
        (lambda: simulate(Trace([0], [1], []), COSTS, prefill_first(1)), "two lengths"),
        (lambda: simulate(Trace([1, 0], [1, 1], [1, 1]), COSTS, prefill_first(1)), "in the order"),
        (lambda: simulate(Trace([0], [1], [0]), COSTS, prefill_first(1)), "at least one token"),
    ],
)
def test_what_cannot_be_served_is_refused(attempt, words):
    with pytest.raises(ValueError, match=words):
        attempt()


def test_a_request_that_never_fits_is_refused():
    costs = Costs(fixed=1.0, prompt_token=1.0, row=1.0, cache_tokens=9)
    simulate(Trace([0.0], [8], [2]), costs, prefill_first(1))
    with pytest.raises(ValueError, match=r"needs 10 places .* have 9"):
        simulate(Trace([0.0], [8], [3]), costs, prefill_first(1))
