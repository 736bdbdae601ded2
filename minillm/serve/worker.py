"""The thread that owns the engine: requests come in from many others, events go back to each.

    a client ── open ──▶ inbox ──▶ one thread:  take in what has come       an engine is for one
    a client ── close ─▶           step the engine                          thread at a time
    a client ◀── deliver(choice, event) ── of the requests that ran

**Room.** At most `most_open` requests are in the works, waiting or running. One too many is refused
at once (`Full`): its client can come back later, and need not wait without an end.

**Errors.** What the engine refuses (`ValueError`) goes to the one who asked. An error within a step
cannot be laid at one request's door: all that are in the works are cancelled and told (`Failed`),
and the thread goes on. An engine that cannot even cancel is given up: everybody is told so.

Paper: none.
Differs: none.

Chapter: 17
"""

import logging
import threading
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from queue import Empty, SimpleQueue
from typing import final

from minillm.serve.engine import Engine
from minillm.serve.request import Event, Load, Request

Deliver = Callable[[int, Event | Exception], None]
_log = logging.getLogger("minillm.serve")


class Full(Exception):
    """There is no room for another request now."""


class Failed(RuntimeError):
    """The engine failed, or is being stopped, and the request has no answer."""


@final
@dataclass(eq=False)
class Job:
    """The requests of one client, which end together.

    Args:
        requests: one for each choice of the answer.
        deliver: called in the worker's thread with the number of a choice, and what it was given.
    """

    requests: Sequence[Request]
    deliver: Deliver
    numbers: dict[int, int] = field(default_factory=dict)  # of those in the engine: their choice
    n_open: int = 0


@final
class Worker:
    """One thread, and the engine that nobody else touches.

    Args:
        engine: from now on the worker's.
        most_open: requests that may wait or run at once.

    Raises:
        ValueError: room for no request.

    Example:
        >>> from queue import SimpleQueue
        >>> from minillm.model.config import tiny
        >>> worker, events = Worker(Engine(tiny(vocab_size=50).build(seed=0)), 4), SimpleQueue()
        >>> worker.start()
        >>> job = worker.open([Request(prompt=(7, 3), n_tokens=2)], lambda *got: events.put(got))
        >>> [events.get()[1].finish_reason for _ in range(2)]
        [None, 'length']
        >>> worker.stop()
        True
    """

    def __init__(self, engine: Engine, most_open: int):
        if most_open < 1:
            raise ValueError(
                f"most_open must be at least 1, requests in the works; got {most_open}"
            )
        self.engine, self.most_open = engine, most_open
        self.load: Load = engine.load  # as after the last step; any thread may look at it
        self.counts: Counter[str] = Counter()  # only the worker's thread adds to it
        self.error: Exception | None = None  # why the engine was given up
        self._inbox: SimpleQueue[Callable[[], None]] = SimpleQueue()
        self._jobs: dict[int, Job] = {}  # by the number of a request in the engine
        self._n_open, self._lock = 0, threading.Lock()
        self._stopping = False
        self._thread = threading.Thread(target=self._run, name="engine", daemon=True)

    def start(self) -> None:
        """Begin to answer."""
        self._thread.start()

    def stop(self, seconds: float = 5.0) -> bool:
        """Cancel what is in the works, tell everybody, and end the thread.

        Args:
            seconds: to wait for it at most.

        Returns:
            Whether it has ended.
        """
        with self._lock:
            self._stopping = True
            self._inbox.put(lambda: None)  # wakes it
        if self._thread.ident is not None:
            self._thread.join(seconds)
        return not self._thread.is_alive()

    def open(self, requests: Sequence[Request], deliver: Deliver) -> Job:
        """Hand in requests.

        Args:
            requests: at least one.
            deliver: see `Job`. An exception is the last that the whole job is told.

        Returns:
            What `close` takes.

        Raises:
            Full: there is no room for all of them.
            Failed: the engine was given up, or the worker stops.
        """
        job = Job(requests, deliver)
        with self._lock:
            if self.error or self._stopping:
                raise Failed("the engine has stopped")
            if self._n_open + len(requests) > self.most_open:
                raise Full(f"{self._n_open} requests are in the works, {self.most_open} at most")
            self._n_open += len(requests)
            job.n_open = len(requests)
            self._inbox.put(lambda: self._submit(job))
        return job

    def close(self, job: Job) -> None:
        """Cancel what is left of a job: its client has gone, or has all that it wants."""
        self._inbox.put(lambda: self._cancel(job))

    @property
    def n_open(self) -> int:
        """How many requests wait or run."""
        return self._n_open

    # --- in the thread --------------------------------------------------------------------------
    def _run(self) -> None:
        while not self._stopping:
            # 1. what has come in; without work, wait for something to come
            self._take(wait=not self._can_step)
            # 2. one step
            if self._can_step and not self._stopping:
                try:
                    self._step()
                except Exception as error:
                    _log.exception("a step of the engine failed")
                    self._fail(Failed(f"the engine failed: {type(error).__name__}: {error}"))
            self.load = self.engine.load
        self._take(wait=False)  # who came last is told too
        self._fail(Failed("the server is stopping"))

    @property
    def _can_step(self) -> bool:
        return self.engine.has_work and not self.error

    def _take(self, wait: bool) -> None:
        while True:
            try:
                self._inbox.get(block=wait)()
            except Empty:
                return
            wait = False

    def _submit(self, job: Job) -> None:
        if self.error:
            self._end(job, Failed("the engine has stopped"))
            return
        for choice, request in enumerate(job.requests):
            try:
                number = self.engine.submit(request)
            except Exception as error:  # of this request, so it is for who asked
                if not isinstance(error, ValueError):
                    _log.exception("the engine could not take a request")
                self._end(job, error)
                return
            self._jobs[number], job.numbers[number] = job, choice
            self.counts["prompt_tokens"] += len(request.prompt)

    def _step(self) -> None:
        for event in self.engine.step():
            job = self._jobs[event.number]
            choice = job.numbers[event.number]
            self.counts["completion_tokens"] += event.token is not None
            if event.finish_reason:
                del self._jobs[event.number], job.numbers[event.number]
                self._leave(job, 1, event.finish_reason)
            job.deliver(choice, event)

    def _cancel(self, job: Job) -> None:
        """What of a job is still in the engine comes out; its blocks are free then."""
        for number in list(job.numbers):
            try:
                self.engine.cancel(number)
            except Exception as error:  # then its books cannot be trusted
                _log.exception("the engine could not cancel a request")
                self.error = error
            del self._jobs[number], job.numbers[number]
        self._leave(job, job.n_open, "cancelled")

    def _end(self, job: Job, error: Exception) -> None:
        """Cancel a job for a reason that its client is told."""
        self._leave(job, job.n_open, "refused" if isinstance(error, ValueError) else "failed")
        self._cancel(job)
        job.deliver(0, error)

    def _fail(self, error: Failed) -> None:
        """End all jobs; an engine that keeps something even then is given up."""
        for job in set(self._jobs.values()):
            self._end(job, error)
        if self.engine.has_work:
            self.error = error

    def _leave(self, job: Job, n_requests: int, outcome: str) -> None:
        with self._lock:
            self._n_open -= n_requests
        job.n_open -= n_requests
        self.counts[outcome] += n_requests
