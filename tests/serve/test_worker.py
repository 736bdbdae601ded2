import logging
import threading
from queue import SimpleQueue

import pytest

from minillm.model.config import tiny
from minillm.serve.engine import Engine, EngineConfig
from minillm.serve.request import Request
from minillm.serve.worker import Failed, Full, Worker

MODEL = tiny(vocab_size=50).build(seed=0)
REQUESTS = [Request(prompt=(7, 3, n), n_tokens=5 + n, seed=n) for n in range(4)]


def engine():
    return Engine(MODEL, config=EngineConfig(max_batch=2))


@pytest.fixture
def make():
    """Workers that are started, and stopped afterwards."""
    workers = []

    def start(of=None, most_open=8):
        worker = Worker(engine() if of is None else of, most_open)
        workers.append(worker)
        worker.start()
        return worker

    yield start
    assert all(worker.stop(60) for worker in workers)


def opened(worker, requests):
    """A job, and the queue of what it is given."""
    queue = SimpleQueue()
    return worker.open(requests, lambda *given: queue.put(given)), queue


def answers(queue, n):
    """All tokens of n choices, in the order in which choices are numbered; or an exception."""
    tokens, n_open = [[] for _ in range(n)], n
    while n_open:
        choice, event = queue.get(timeout=100)
        if isinstance(event, Exception):
            return event
        tokens[choice].append(event.token)
        n_open -= event.finish_reason is not None
    return tokens


def held(of):
    """Let the engine take a step for each release, and no other; gives what to release."""
    step, gate = of.step, threading.Semaphore(0)

    def wait_and_step():
        gate.acquire()
        return step()

    of.step = wait_and_step
    return gate


def failing(of, name, error):
    """Let one method of the engine fail, or do nothing; gives how to mend it."""
    method = getattr(of, name)

    def fail(*_):
        if error:
            raise error

    setattr(of, name, fail)
    return lambda: setattr(of, name, method)


# --- twin -----------------------------------------------------------------------------------------
def test_each_job_is_given_what_the_engine_alone_gives(make):
    worker = make()
    expected = [answer.tokens for answer in engine().run(REQUESTS)]
    jobs = [opened(worker, REQUESTS[:1]), opened(worker, REQUESTS[1:])]
    assert [*answers(jobs[0][1], 1), *answers(jobs[1][1], 3)] == expected
    assert worker.counts["length"] == 4
    assert worker.counts["prompt_tokens"] == 12
    assert worker.counts["completion_tokens"] == sum(map(len, expected))


# --- room and cancelling --------------------------------------------------------------------------
def test_one_too_many_is_refused_until_another_has_ended(make):
    of = engine()
    gate, worker = held(of), make(of, most_open=2)
    _, queue = opened(worker, REQUESTS[:1])
    with pytest.raises(Full, match="1 requests are in the works, 2 at most"):
        opened(worker, REQUESTS[1:3])  # half of it would be of no use
    _, other = opened(worker, REQUESTS[1:2])
    with pytest.raises(Full, match="2 requests are in the works, 2 at most"):
        opened(worker, REQUESTS[2:3])
    gate.release(100)
    answers(queue, 1)
    answers(other, 1)
    assert worker.n_open == 0
    assert answers(opened(worker, REQUESTS[2:3])[1], 1)


def test_who_goes_away_frees_blocks_and_room(make):
    of = engine()
    gate, worker = held(of), make(of)
    job, queue = opened(worker, REQUESTS[:3])
    gate.release(2)
    assert [queue.get(timeout=100)[1].number for _ in range(2)] == [0, 1]
    worker.close(job)
    worker.close(job)  # twice is once
    _, other = opened(worker, REQUESTS[3:])
    gate.release(100)
    assert answers(other, 1) == [engine().run(REQUESTS[3:])[0].tokens]
    assert worker.n_open == 0
    assert worker.stop(60)
    assert worker.load.n_blocks_used == 0
    assert worker.counts["cancelled"] == 3


# --- errors ---------------------------------------------------------------------------------------
def test_what_the_engine_refuses_is_told_to_who_asked_and_to_nobody_else(make):
    of = engine()
    gate, worker = held(of), make(of)
    _, good = opened(worker, REQUESTS[:1])
    _, bad = opened(worker, [REQUESTS[1], Request(prompt=(), n_tokens=1)])
    gate.release()  # it may already be within a step of the first, and take the second in after it
    error = bad.get(timeout=100)[1]
    assert isinstance(error, ValueError)
    assert "at least one token" in str(error)
    gate.release(100)
    assert answers(good, 1) == [engine().run(REQUESTS[:1])[0].tokens]
    assert (worker.n_open, worker.counts["refused"]) == (0, 2)


def test_a_step_that_fails_is_told_to_all_and_the_thread_goes_on(make, caplog):
    of = engine()
    mend, worker = failing(of, "step", IndexError("no block")), make(of)
    with caplog.at_level(logging.ERROR):
        error = answers(opened(worker, REQUESTS[:3])[1], 3)
    assert isinstance(error, Failed)
    assert "IndexError: no block" in str(error)
    assert "a step of the engine failed" in caplog.text
    mend()
    assert answers(opened(worker, REQUESTS[:1])[1], 1) == [engine().run(REQUESTS[:1])[0].tokens]
    assert (worker.n_open, worker.counts["failed"], worker.error) == (0, 3, None)


@pytest.mark.parametrize("error", [KeyError("books"), None])
def test_an_engine_that_cannot_even_cancel_is_given_up(make, caplog, error):
    of = engine()
    failing(of, "cancel", error)
    failing(of, "step", IndexError("no block"))
    worker = make(of)
    with caplog.at_level(logging.CRITICAL):
        assert isinstance(answers(opened(worker, REQUESTS[:1])[1], 1), Failed)
    assert worker.stop(60)
    assert worker.error is not None
    with pytest.raises(Failed, match="the engine has stopped"):
        opened(worker, REQUESTS[:1])


def test_what_is_in_the_works_when_it_stops_is_told_so(make):
    of = engine()
    gate, worker = held(of), make(of)
    _, queue = opened(worker, [Request(prompt=(7,), n_tokens=50)])
    gate.release()
    assert queue.get(timeout=100)[1].token is not None
    worker.stop(0)
    gate.release(100)
    assert worker.stop(60)
    given = [queue.get(timeout=100)[1] for _ in range(queue.qsize())]
    assert "the server is stopping" in str(given[-1])
    with pytest.raises(Failed):
        opened(worker, REQUESTS[:1])


def test_a_worker_has_room_for_one_at_least():
    with pytest.raises(ValueError, match="must be at least 1, requests in the works; got 0"):
        Worker(engine(), 0)
