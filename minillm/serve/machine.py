"""One simulated machine that batches continuously: its queue, its rows, and its clock.

Requests wait until their prompts are read; then they are rows, of which each gets a token a pass.
Between two passes rows come and go, so a pass has as much to do as there is:

    whole        0      2   3   4             7   8         A arrives at 0, B with 16 tokens at 3.5
                 A's 8  | A | A |    B's 16   |A B|         A has tokens at 2, 3, 4 and 8, B from 7
    in chunks    0      2   3   4       6       8   9       of 9 tokens: a row's and 8 of a prompt
                 A's 8  | A | A | A,B's 8 | B's 8 | B |     A has tokens at 2, 3, 4 and 6, B from 8

Only times are simulated, no tokens.

Paper: Yu et al. 2022, "Orca: A Distributed Serving System for Transformer-Based Generative Models",
OSDI 2022, section 3.1 (a batch is made anew for each pass); Agrawal et al. 2024, "Sarathi-Serve",
arXiv:2403.02310, algorithm 3 (a budget of tokens: rows first, then a prompt that has been begun,
then new ones).
Differs: a request is admitted when there are places for its prompt and its whole answer, so that
nobody is preempted; how long the answer will be is known.

Chapter: 17
"""

import heapq
from collections import deque
from dataclasses import dataclass, field
from typing import final

from minillm.serve.costs import Costs, pairs


@final
@dataclass(eq=False)
class Job:
    """A request on its way through the machines.

    Its first token comes at `first`, the others with the passes `begin`, `begin + 1`, … of the
    machine's `ends`.

    Args:
        number: of the request.
        n_prompt: tokens of its prompt.
        n_tokens: of its answer.
        n_read: tokens of its prompt that are in the cache; all if another machine has read it.
    """

    number: int
    n_prompt: int
    n_tokens: int
    n_read: int = 0
    is_admitted: bool = False
    machine: "Machine | None" = None
    first: float = 0.0
    begin: int = 0

    @property
    def n_places(self) -> int:
        """In the caches, for all its tokens but the last, which nobody looks at."""
        return self.n_prompt + self.n_tokens - 1


@final
@dataclass(eq=False)
class Machine:
    """What it has to do, and until when it has been simulated.

    Args:
        costs: seconds of its passes, places of its caches.
        chunked: whether prompts are read in parts, beside the rows.
        step_tokens: the most tokens in a pass; see `minillm.serve.disaggregate.Fleet`.

    Attributes:
        clock: until when it has been simulated; `busy`, the seconds of it that it computed.
        link: until when it sends caches.
        n_reserved, n_cached: places that are promised, and tokens in the caches of its rows.
        waiting, rows: jobs whose prompts are not read, and a heap of those that are, by the number
            of the pass after which they leave.
        ends: times at which the rows had a token.

    Example:
        >>> machine = Machine(Costs(fixed=1.0, prompt_token=0.125, row=0.0), False, 512)
        >>> first, second = Job(0, n_prompt=8, n_tokens=4), Job(1, n_prompt=16, n_tokens=2)
        >>> machine.submit(first, now=0.0), machine.advance(until=3.5)
        (None, None)
        >>> machine.submit(second, now=3.5), machine.advance(until=100.0)
        (None, None)
        >>> first.first, second.first, machine.ends
        (2.0, 7.0, [3.0, 4.0, 8.0])
    """

    costs: Costs
    chunked: bool
    step_tokens: int
    clock: float = 0.0
    busy: float = 0.0
    link: float = 0.0
    n_reserved: int = 0
    n_cached: int = 0
    waiting: deque[Job] = field(default_factory=deque)
    rows: list[tuple[int, int, Job]] = field(default_factory=list)
    ends: list[float] = field(default_factory=list)

    def load(self, now: float) -> tuple[int, float]:
        """How many jobs it has; of equals, the one that is free first has less."""
        return len(self.waiting) + len(self.rows), max(self.clock, now)

    def submit(self, job: Job, now: float) -> None:
        """Take a job in; `advance` up to now comes first."""
        if not self.waiting and not self.rows:
            self.clock = max(self.clock, now)
        job.machine = self
        self.waiting.append(job)

    def advance(self, until: float) -> None:
        """Begin passes for as long as there is work and the time is not reached."""
        while self.clock < until and (self.waiting or self.rows):
            if chunks := self._admit() if self.waiting else []:
                self._read(chunks)
            else:
                self._decode(until)

    def _admit(self) -> list[tuple[Job, int]]:
        """Whose prompts are read in the next pass, by arrival, and how many tokens of each."""
        budget = self.step_tokens - (len(self.rows) if self.chunked else 0)
        chunks: list[tuple[Job, int]] = []
        while self.waiting and budget > 0:
            job = self.waiting[0]
            # 1. its tokens: a part of the prompt, or all of it, if need be alone
            n_unread = job.n_prompt - job.n_read
            n_new = min(n_unread, budget) if self.chunked else n_unread
            if n_new > budget and chunks:
                break
            # 2. its places in the caches
            if not job.is_admitted and self.n_reserved + job.n_places > self.costs.cache_tokens:
                break
            self.n_reserved += 0 if job.is_admitted else job.n_places
            job.is_admitted = True
            # 3. it waits no longer if this is the rest
            if n_new == n_unread:
                self.waiting.popleft()
            if n_new:
                chunks.append((job, n_new))
                budget -= n_new
            else:  # another machine has read it, and its cache is here
                self._join(job)
        return chunks

    def _read(self, chunks: list[tuple[Job, int]]) -> None:
        """A pass over prompts, beside the rows if it is chunked; otherwise the rows wait."""
        batch_size = len(self.rows) if self.chunked else 0
        n_prompt, n_cached, n_pairs = 0, self.n_cached if batch_size else 0, 0.0
        for job, n_new in chunks:
            n_prompt += n_new
            n_cached += job.n_read
            n_pairs += pairs(n_new, job.n_read)
            job.n_read += n_new
        seconds = self.costs.seconds(n_prompt, batch_size, n_cached, n_pairs)
        self.busy += seconds
        self.clock += seconds
        if batch_size:
            self.ends.append(self.clock)
            self.n_cached += batch_size
        self._leave()
        for job, _ in chunks:
            if job.n_read == job.n_prompt:
                job.first = self.clock
                self._join(job)

    def _decode(self, until: float) -> None:
        """Passes that give each row a token, until one leaves or the time is reached."""
        batch_size, clock, n_cached = len(self.rows), self.clock, self.n_cached
        without_caches = self.costs.decode(batch_size, 0)  # the same for all these passes
        while clock < until and len(self.ends) < self.rows[0][0]:
            clock += without_caches + self.costs.cached_token * n_cached
            n_cached += batch_size
            self.ends.append(clock)
        self.busy += clock - self.clock
        self.clock, self.n_cached = clock, n_cached
        self._leave()

    def _join(self, job: Job) -> None:
        """A job whose prompt is read becomes a row, unless its first token was its last."""
        job.begin = len(self.ends)
        if job.n_tokens == 1:
            self.n_reserved -= job.n_places
        else:
            self.n_cached += job.n_prompt
            heapq.heappush(self.rows, (job.begin + job.n_tokens - 1, job.number, job))

    def _leave(self) -> None:
        """Rows that have all their tokens give their places back."""
        while self.rows and self.rows[0][0] == len(self.ends):
            job = heapq.heappop(self.rows)[-1]
            self.n_cached -= job.n_places
            self.n_reserved -= job.n_places
