"""Scheduling (调度): which requests read how many tokens in the next step.

A model reads one token for each of sixteen texts in little more time than for one text. So requests
run together, in a batch. The old way, **static batching**, starts sixteen, waits until the longest
is done, and starts the next sixteen: short answers leave their slots empty. **Continuous batching**
(连续批处理) decides anew before every step: who is done leaves, who waits takes the slot.

Every running request has some tokens that it has not read yet: one, the token chosen last, or many,
its prompt. A step reads at most `step_tokens` in all:

    1. one token for each request that writes      nobody's text waits for another's prompt
    2. what is left of the budget for a prompt     a long one is read in chunks (分块预填充,
                                                   chunked prefill)
    3. while slots and blocks are free, the        first come, first served
       next request that waits

**When blocks run out** the request that came last is stopped (抢占, preemption). Its blocks are
freed, and it waits, first in the queue, until it can read its text again, prompt and answer so far.
So the oldest request always goes on, and since every answer has an end, each becomes the oldest:
none starves.

Paper: Yu et al. 2022, "Orca: A Distributed Serving System for Transformer-Based Generative Models",
OSDI 2022, section 3.1 (iteration-level scheduling); Kwon et al. 2023, arXiv:2309.06180, section 4.5
(preemption by recomputation); Agrawal et al. 2024, "Sarathi-Serve", arXiv:2403.02310, section 4
(chunks beside decoding). From memory.
Differs: none of them is a library of one file; no swapping of blocks, no priorities.

Chapter: 17
"""

from collections import deque
from dataclasses import dataclass, field
from typing import NamedTuple, final

from minillm.serve.blocks import BlockPool, BlockTable, Copy, Prefix


@final
@dataclass(eq=False)
class Sequence:
    """A text in the works.

    Args:
        number: of arrival.
        tokens: the prompt, and what has been written.
        table: its blocks.
        slot: its row in the batch; None while it waits.
    """

    number: int
    tokens: list[int]
    table: BlockTable = field(default_factory=BlockTable)
    slot: int | None = None

    @property
    def n_unread(self) -> int:
        """Tokens whose keys and values are not stored yet."""
        return len(self.tokens) - self.table.n_tokens


class Chunk(NamedTuple):
    """What one sequence reads in a step.

    Args:
        sequence: whose.
        n_new: its next so many unread tokens.
    """

    sequence: Sequence
    n_new: int


@final
class Scheduler:
    """Who runs and who waits.

    Args:
        pool: the blocks.
        max_batch: how many sequences run at once: the slots.
        step_tokens: how many tokens are read in a step at most.
        share_prefixes: whether texts that begin alike share blocks.
        static: start a batch only when the one before is done, all of it.

    Raises:
        ValueError: no slot, or fewer step_tokens than slots.

    Example:
        >>> scheduler = Scheduler(BlockPool(n_blocks=8, block_size=4), max_batch=2, step_tokens=6)
        >>> for number, n_prompt in enumerate((5, 3, 1)):
        ...     scheduler.add(Sequence(number, [7] * n_prompt))
        >>> [(chunk.sequence.number, chunk.n_new) for chunk in scheduler.plan()]
        [(0, 5), (1, 1)]
    """

    def __init__(
        self,
        pool: BlockPool,
        max_batch: int,
        step_tokens: int,
        *,
        share_prefixes: bool = True,
        static: bool = False,
    ):
        if not 1 <= max_batch <= step_tokens:
            raise ValueError(
                "step_tokens must be at least max_batch, so that each running request can write a "
                f"token in every step, and max_batch at least 1; got {step_tokens} and {max_batch}"
            )
        self.pool, self.max_batch, self.step_tokens = pool, max_batch, step_tokens
        self.share_prefixes, self.static = share_prefixes, static
        self.waiting: deque[Sequence] = deque()
        self.running: list[Sequence] = []  # in the order of arrival; all came before who waits
        self.copies: list[Copy] = []  # to be done before the plan's tokens are stored
        self.n_preemptions = 0

    def add(self, sequence: Sequence) -> None:
        """Let a sequence wait for its turn."""
        self.waiting.append(sequence)

    def remove(self, sequence: Sequence) -> None:
        """Take a sequence out, done or not, and free its blocks."""
        (self.running if sequence in self.running else self.waiting).remove(sequence)
        self._stop(sequence)

    def plan(self) -> list[Chunk]:
        """The chunks of the next step; their places are taken, and `copies` says what to copy."""
        self.copies, n_before = [], self.n_preemptions
        chunks, budget, was_empty = [], self.step_tokens, not self.running
        # 1. the oldest first; all but the youngest have read their prompts, and write
        for sequence in list(self.running):
            if sequence.slot is None:
                continue  # it has just given way to an older one
            n_new = min(sequence.n_unread, budget)
            if self._make_room(sequence, n_new):
                chunks.append(self._grown(sequence, n_new))
                budget -= n_new
        # 2. who waits, unless there was too little room even for those who ran
        while self.waiting and budget and self.n_preemptions == n_before:
            if (self.static and not was_empty) or not self._start():
                break
            sequence = self.running[-1]
            n_new = min(sequence.n_unread, budget)
            chunks.append(self._grown(sequence, n_new))
            budget -= n_new
        return chunks

    def _start(self) -> bool:
        """Give the first who waits a slot, if there is one, and blocks for its whole text."""
        if len(self.running) == self.max_batch:
            return False
        sequence = self.waiting[0]
        prefix = self.pool.match(sequence.tokens) if self.share_prefixes else Prefix((), 0)
        n_unread = len(sequence.tokens) - prefix.n_tokens
        if self.pool.n_missing(prefix, n_unread) > self.pool.n_free:
            return False
        sequence.table = self.pool.hold(prefix)
        sequence.slot = min(set(range(self.max_batch)) - {each.slot for each in self.running})
        self.running.append(self.waiting.popleft())
        return True

    def _make_room(self, sequence: Sequence, n_new: int) -> bool:
        """Stop the youngest until n_new tokens fit; False if that was the sequence itself."""
        while self.pool.n_missing(sequence.table, n_new) > self.pool.n_free:
            youngest = self.running.pop()
            self._stop(youngest)
            self.waiting.appendleft(youngest)
            self.n_preemptions += 1
            if youngest is sequence:
                return False
        return True

    def _grown(self, sequence: Sequence, n_new: int) -> Chunk:
        self.copies += self.pool.grow(sequence.table, n_new)
        return Chunk(sequence, n_new)

    def _stop(self, sequence: Sequence) -> None:
        self.pool.release(sequence.table)
        sequence.slot = None
