"""minillm.serve.machine: passes on paper, and what no machine may do."""

from hypothesis import given, settings
from hypothesis import strategies as st

from minillm.serve.costs import Costs
from minillm.serve.machine import Job, Machine

COSTS = Costs(fixed=1.0, prompt_token=0.125, row=0.0)


def played(machine, *jobs):
    """Jobs as (arrival, n_prompt, n_tokens), and the times of their tokens."""
    done = [Job(number, n_prompt, n_tokens) for number, (_, n_prompt, n_tokens) in enumerate(jobs)]
    for job, (arrival, *_) in zip(done, jobs, strict=True):
        machine.advance(arrival)
        machine.submit(job, arrival)
    machine.advance(float("inf"))
    return [[j.first, *machine.ends[j.begin : j.begin + j.n_tokens - 1]] for j in done]


# --- by hand --------------------------------------------------------------------------------------
def test_a_prompt_that_is_read_whole_stalls_the_rows():
    times = played(Machine(COSTS, False, 512), (0, 8, 4), (3.5, 16, 2))
    assert times == [[2, 3, 4, 8], [7, 8]]


def test_a_prompt_in_chunks_does_not_but_is_read_later():
    times = played(Machine(COSTS, True, 9), (0, 8, 4), (3.5, 16, 2))
    assert times == [[2, 3, 4, 6], [8, 9]]  # 8 of B beside A, then the other 8 alone


def test_prompts_are_read_together_while_they_fit_in_a_step():
    jobs = [(0, 8, 1), (0.5, 8, 1), (0.5, 8, 1), (0.5, 24, 1)]
    assert played(Machine(COSTS, False, 16), *jobs) == [[2], [5], [5], [9]]  # 16 tokens, 24 alone
    assert played(Machine(COSTS, False, 1), *jobs) == [[2], [4], [6], [10]]


def test_a_job_waits_until_there_are_places_for_its_prompt_and_answer():
    costs = Costs(fixed=1.0, prompt_token=0.125, row=0.0, cache_tokens=20)
    times = played(Machine(costs, False, 512), (0, 8, 4), (0, 8, 2))  # 11 + 9 places
    assert times == [[3, 4, 5, 6], [3, 4]]
    times = played(Machine(costs, False, 512), (0, 8, 4), (0, 8, 3))  # 11 + 10
    assert times == [[2, 3, 4, 5], [7, 8, 9]]


def test_a_job_that_was_read_elsewhere_is_a_row_at_once():
    machine = Machine(COSTS, False, 512)
    job = Job(0, n_prompt=8, n_tokens=3, n_read=8)
    machine.submit(job, 10.0)
    machine.advance(100.0)
    assert (machine.ends, machine.busy) == ([11, 12], 2)


def test_steps_grow_with_the_caches_and_a_second_chunk_reads_the_first():
    costs = Costs(fixed=1.0, prompt_token=0.0, row=0.5, cached_token=0.25, pair=0.125)
    # read 3: 1 + 6 pairs; a step with 3 in the cache, one with 4
    assert played(Machine(costs, False, 512), (0, 3, 3)) == [[1.75, 4.0, 6.5]]
    # 2 of 3: 1 + 3 pairs; the last: 1 + 3 pairs + 2 in the cache
    assert played(Machine(costs, True, 2), (0, 3, 1)) == [[1.375 + 1.875]]


def test_of_equals_the_machine_that_is_free_first_has_less_to_do():
    one, other = Machine(COSTS, False, 512), Machine(COSTS, False, 512)
    one.submit(Job(0, 8, 1), 0.0)
    one.advance(0.5)  # its pass lasts until 2
    assert one.load(1.0) > other.load(1.0)
    other.submit(Job(1, 8, 1), 1.0)
    assert other.load(1.0) > one.load(1.0)


# --- laws -----------------------------------------------------------------------------------------
job_lists = st.lists(
    st.tuples(st.integers(0, 40), st.integers(1, 30), st.integers(1, 12)), min_size=1, max_size=12
).map(sorted)


@settings(max_examples=40)
@given(job_lists, st.booleans(), st.integers(1, 40), st.integers(41, 200))
def test_every_job_gets_its_tokens_in_order_and_all_places_come_back(jobs, chunked, step, most):
    costs = Costs(fixed=1.0, prompt_token=0.1, row=0.2, cached_token=0.01, cache_tokens=most)
    machine = Machine(costs, chunked, step)
    times = played(machine, *jobs)
    for (arrival, _, n_tokens), each in zip(jobs, times, strict=True):
        assert len(each) == n_tokens and each[0] > arrival and each == sorted(set(each))
    assert (machine.n_cached, machine.n_reserved, len(machine.rows)) == (0, 0, 0)
    assert machine.clock == max(each[-1] for each in times)
    assert machine.busy <= machine.clock * (1 + 1e-9)


@settings(max_examples=40)
@given(job_lists, st.booleans(), st.integers(1, 40))
def test_what_comes_later_changes_nothing_before_it(jobs, chunked, step):
    before = played(Machine(COSTS, chunked, step), *jobs)[:-1]
    alone = played(Machine(COSTS, chunked, step), *jobs[:-1]) if before else []
    arrival = jobs[-1][0]
    for each, other in zip(before, alone, strict=True):
        n = sum(time <= arrival for time in other)
        assert each[:n] == other[:n]
