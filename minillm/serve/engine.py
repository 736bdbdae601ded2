"""The engine (推理引擎): many requests at once, each answered as if it were alone.

    engine = Engine(model, tokenizer)
    number = engine.submit(Request(prompt=(7, 3, 9), n_tokens=20))
    while engine.has_work:
        for event in engine.step(): ...        one new token of one request

A step is: ask the scheduler who reads what, run the model once for all who read one token and once
for each longer chunk, and choose a token for each request that has read all of its text.

**The law.** What a request gets depends on its own prompt, settings and seed, and on nothing else:
not on who else is in the batch, on when they came, on the size of blocks, on what was shared, nor
on how often it was stopped and read again. Its tokens are those of `minillm.serve.sample.stream`,
up to the rounding of floats, which a batch may change: where two tokens are as good as equally
likely, the other may be taken. In float64 no test has seen it.

Paper: Yu et al. 2022, "Orca", OSDI 2022, section 3; Kwon et al. 2023, arXiv:2309.06180, section 5.
From memory.
Differs: chunks of several tokens are not put into one batch with others.

Chapter: 17
"""

import math
from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass
from itertools import count
from typing import final

import torch
from jaxtyping import Float
from torch import Tensor, nn

from minillm.experts.hash_routing import HashedMoE
from minillm.experts.moe import MoE
from minillm.model.attention import Context
from minillm.model.cache import KVCache
from minillm.model.masks import padding
from minillm.model.transformer import Transformer
from minillm.serve import sample
from minillm.serve.blocks import BlockPool
from minillm.serve.constrain import Constraint
from minillm.serve.detokenize import Spelling, TextStream
from minillm.serve.paged import Places, paged
from minillm.serve.request import Completion, Event, Load, Logprobs, Request
from minillm.serve.scheduler import Chunk, Scheduler, Sequence


@final
@dataclass(frozen=True, kw_only=True)
class EngineConfig:
    """How much an engine does at once.

    Args:
        max_batch: requests that run at once.
        block_size: tokens in a block of the cache.
        n_blocks: blocks in all; None for as many as max_batch whole contexts take.
        step_tokens: tokens read in a step at most; longer prompts are read in chunks.
        share_prefixes: whether requests that begin alike share blocks. Where a mixer keeps a state
            in place of keys and values, nothing can be shared.
        static: static batching, for comparison: the next batch waits for the whole one before.

    Raises:
        ValueError: from the engine, numbers that do not fit together.
    """

    max_batch: int = 16
    block_size: int = 16
    n_blocks: int | None = None
    step_tokens: int = 256
    share_prefixes: bool = True
    static: bool = False


@dataclass(eq=False)
class _Work:
    """A request with what has become of it; `sequence` is the scheduler's part of it."""

    request: Request
    sequence: Sequence
    uniforms: Tensor
    text: TextStream | None
    constraint: Constraint | None
    n_written: int = 0


@final
class Engine:
    """Answers requests, many at a time; one thread at a time may use it.

    Args:
        model: its training mode is the caller's say.
        tokenizer: for the text of events and for stop texts; None for tokens alone.
        config: how much at once.

    Raises:
        ValueError: a mixer whose cache is of another kind, experts with limited room, experts of
            several domains, numbers of the config that do not fit together.

    Example:
        >>> from minillm.model.config import tiny
        >>> model, greedy = tiny(vocab_size=50).build(seed=0), sample.SampleConfig(temperature=0)
        >>> engine = Engine(model, config=EngineConfig(max_batch=2))
        >>> prompts = [(7, 3, 9), (4,), (7, 3, 8, 1)]
        >>> requests = [Request(prompt=each, n_tokens=5, config=greedy) for each in prompts]
        >>> answers = [answer.tokens for answer in engine.run(requests)]
        >>> answers == sample.generate(model, prompts, greedy, n_tokens=5)
        True
    """

    def __init__(
        self,
        model: Transformer,
        tokenizer: Spelling | None = None,
        config: EngineConfig | None = None,
    ):
        config = EngineConfig() if config is None else config
        self.model, self.tokenizer, self.config = model, tokenizer, config
        caches = [block.mixer.new_cache(1, 1) for block in model.blocks]
        n_blocks = config.n_blocks
        if n_blocks is None:
            if model.context_length > 2**20:
                raise ValueError(
                    "this model's context has no end to speak of, so n_blocks must say how many "
                    "blocks of the cache there are: EngineConfig(n_blocks=...)"
                )
            n_blocks = config.max_batch * -(-model.context_length // max(1, config.block_size))
        keep_tokens = all(isinstance(cache, KVCache) for cache in caches)
        self._pool = BlockPool(n_blocks, config.block_size)
        self._scheduler = Scheduler(
            self._pool,
            config.max_batch,
            config.step_tokens,
            share_prefixes=config.share_prefixes and keep_tokens,
            static=config.static,
        )
        self._stores = []
        for place, (block, cache) in enumerate(zip(model.blocks, caches, strict=True)):
            _check_ffn(block.ffn, f"the feed-forward layer of block {place}")
            layer = f"the mixer of block {place}, {type(block.mixer).__name__},"
            sizes = (n_blocks, config.block_size, config.max_batch)
            self._stores.append(paged(cache, *sizes, layer))
        self._work: dict[int, _Work] = {}
        self._numbers = count()
        self._n_shared_tokens = 0
        self.last_step: list[tuple[int, int, int]] = []

    @property
    def has_work(self) -> bool:
        """Whether any request runs or waits."""
        return bool(self._work)

    @property
    def load(self) -> Load:
        """How busy it is."""
        scheduler, pool = self._scheduler, self._pool
        n_requests = len(scheduler.waiting), len(scheduler.running)
        n_blocks = pool.n_blocks - pool.n_free, pool.n_blocks
        return Load(*n_requests, *n_blocks, scheduler.n_preemptions, self._n_shared_tokens)

    @property
    def n_bytes(self) -> int:
        """Bytes of all caches, filled or not."""
        return sum(store.n_bytes for store in self._stores)

    def submit(self, request: Request) -> int:
        """Let a request wait for its turn.

        Returns:
            Its number, which its events carry.

        Raises:
            ValueError: an empty prompt, a token outside the vocabulary, more tokens than the
                model's context or all blocks together can hold, a count below its range, stop texts
                without a tokenizer.
        """
        how = (request.config, request.n_tokens, request.stop_ids)
        prompts = sample.checked_prompts(self.model, [request.prompt], *how)
        sample.left_pad(prompts)  # refuses an empty one
        self._check(request, len(prompts[0]))
        number = next(self._numbers)
        text = None if self.tokenizer is None else TextStream(self.tokenizer, request.stop)
        uniforms = sample.uniform_rows(request.seed, 0, 1, request.n_tokens)[0]
        sequence = Sequence(number, prompts[0])
        work = _Work(request, sequence, uniforms, text, request.constraint)
        self._work[number] = work
        self._scheduler.add(sequence)
        return number

    def cancel(self, number: int) -> Event | None:
        """Take a request out and free its blocks; None if it is done, or was never there."""
        work = self._work.pop(number, None)
        if work is None:
            return None
        self._scheduler.remove(work.sequence)
        return Event(number, None, finish_reason="cancelled")

    def run(self, requests: Iterable[Request]) -> list[Completion]:
        """Submit all, and step until they are done.

        Returns:
            What each was given, in their order.

        Raises:
            ValueError: as for `submit`; nothing is run then.
        """
        numbers = []
        try:
            for request in requests:
                numbers.append(self.submit(request))
            answers = {number: Completion() for number in numbers}
            while any(number in self._work for number in numbers):
                for event in self.step():
                    if event.number in answers:
                        answers[event.number].add(event)
        finally:  # also after Ctrl-C: no block stays taken
            for number in numbers:
                self.cancel(number)
        return [answers[number] for number in numbers]

    @torch.inference_mode()
    def step(self) -> list[Event]:
        """One step for all who run: at most one event a request; an empty list without work."""
        running = set(self._scheduler.running)
        chunks = self._scheduler.plan()
        # 1. shared blocks that will be written to are copied; slots of new texts are cleared
        for store in self._stores:
            store.copy(self._scheduler.copies)
            for sequence in set(self._scheduler.running) - running:
                store.start(sequence.slot)
        self._n_shared_tokens += sum(
            chunk.sequence.table.n_tokens for chunk in chunks if chunk.sequence not in running
        )
        self.last_step = [(each.sequence.number, each.sequence.slot, each.n_new) for each in chunks]
        # 2. one pass for all who read one token, one for each longer chunk
        together = [[chunk for chunk in chunks if chunk.n_new == 1]]
        passes = together + [[chunk] for chunk in chunks if chunk.n_new > 1]
        events = []
        for batch in filter(None, passes):
            logits = self._read(batch)
            # 3. who has read all of its text is given a token
            ready = [row for row, chunk in enumerate(batch) if not chunk.sequence.n_unread]
            works = [self._work[batch[row].sequence.number] for row in ready]
            events += self._write(works, logits[ready])
        return sorted(events)

    def _read(self, chunks: list[Chunk]) -> Float[Tensor, "B V"]:
        """Logits after each chunk; all chunks are equally long."""
        device, size = self.model.embedding.weight.device, self.config.block_size
        n_new = chunks[0].n_new
        first = torch.tensor([chunk.sequence.table.n_tokens for chunk in chunks], device=device)
        n_kept = first + n_new
        longest = int(n_kept.max())
        # 1. the columns of each text, the last token in the last: which token, in which place
        columns = torch.arange(longest, device=device) - longest + n_kept[:, None]
        tables = nn.utils.rnn.pad_sequence(
            [torch.tensor(chunk.sequence.table.blocks, device=device) for chunk in chunks], True
        )
        tokens_at = columns.clamp(min=0)
        kept = tables.gather(1, tokens_at // size) * size + tokens_at % size
        slots = torch.tensor([chunk.sequence.slot for chunk in chunks], device=device)
        where = Places(kept[:, -n_new:], kept, slots)
        # 2. one pass; a mask only where some text is shorter than the longest
        ids = [
            chunk.sequence.tokens[n : n + n_new]
            for chunk, n in zip(chunks, first.tolist(), strict=True)
        ]
        mask = None if bool((n_kept == longest).all()) else padding(columns >= 0)
        context = Context(positions=columns[:, -n_new:].clone(), mask=mask)
        caches = [store.step(where) for store in self._stores]
        hidden = self.model.hidden(torch.tensor(ids, device=device), context=context, cache=caches)
        # 3. keep books: the states, and which blocks are full now
        for store, cache in zip(self._stores, caches, strict=True):
            store.end_step(cache, where)
        for chunk in chunks:
            sequence = chunk.sequence
            n_tokens = sequence.table.n_tokens + n_new
            self._pool.store(sequence.table, sequence.tokens[:n_tokens])
        return self.model.logits(hidden[:, -1:])[:, 0]

    def _write(self, works: list[_Work], logits: Float[Tensor, "B V"]) -> list[Event]:
        """The next token of each request."""
        allowed = logits.clone()
        for row, work in enumerate(works):
            if work.constraint is not None:
                mask = work.constraint.allowed().to(logits.device)
                allowed[row].masked_fill_(~mask, -math.inf)
        # requests with equal settings choose together
        by_config = defaultdict(list)
        for row, work in enumerate(works):
            by_config[work.request.config].append(row)
        chosen = torch.empty(len(works), dtype=torch.int64)
        for config, rows in by_config.items():
            uniforms = torch.stack([works[row].uniforms[works[row].n_written] for row in rows])
            chosen[rows] = config.choose(allowed[rows], uniforms.to(logits.device)).cpu()
        return [
            self._event(work, token, logits[row])
            for row, (work, token) in enumerate(zip(works, chosen.tolist(), strict=True))
        ]

    def _event(self, work: _Work, token: int, logits: Float[Tensor, "V"]) -> Event:
        """What a token means to its request: it goes on, or ends."""
        request, number = work.request, work.sequence.number
        if token in request.stop_ids:
            self._end(work)
            return Event(number, None, work.text.close() if work.text else "", "stop")
        work.sequence.tokens.append(token)
        work.n_written += 1
        text = work.text.push(token) if work.text else ""
        if work.constraint is not None:
            work.constraint = work.constraint.after(token)
        reason = None
        if work.text and work.text.stopped:
            reason = "stop"
        elif work.n_written == request.n_tokens:
            reason, text = "length", text + (work.text.close() if work.text else "")
        if reason:
            self._end(work)
        return Event(number, token, text, reason, _logprobs(logits, token, request.n_logprobs))

    def _end(self, work: _Work) -> None:
        del self._work[work.sequence.number]
        self._scheduler.remove(work.sequence)

    def _check(self, request: Request, n_prompt: int) -> None:
        if request.stop and self.tokenizer is None:
            raise ValueError(
                f"this engine has no tokenizer, so it cannot look for stop texts; got "
                f"{list(request.stop)}. Give it one: Engine(model, tokenizer)"
            )
        vocab_size = len(self.model.embedding.weight)
        if request.n_logprobs is not None and not 0 <= request.n_logprobs <= vocab_size:
            raise ValueError(
                f"n_logprobs must be None or 0 to {vocab_size}, the number of tokens; got "
                f"{request.n_logprobs}"
            )
        # the last token is never read, so its key and value need no place
        n_places, size = n_prompt + request.n_tokens - 1, self.config.block_size
        if -(-n_places // size) > self._pool.n_blocks:
            raise ValueError(
                f"prompt and answer may come to {n_places} stored tokens, and the cache has "
                f"{self._pool.n_blocks} blocks of {size}, {self._pool.n_blocks * size} tokens in "
                "all. Ask for fewer tokens, or give the engine more blocks (n_blocks)"
            )


def _logprobs(logits: Float[Tensor, "V"], token: int, n_top: int | None) -> Logprobs | None:
    if n_top is None:
        return None
    logprobs = logits.float().log_softmax(dim=-1)
    values, ids = logprobs.topk(n_top)
    return Logprobs(float(logprobs[token]), tuple(zip(ids.tolist(), values.tolist(), strict=True)))


def _check_ffn(ffn: nn.Module, layer: str) -> None:
    """Refuse a layer whose answer to a token depends on the others in the batch."""
    if isinstance(ffn, MoE) and ffn.capacity_factor is not None:
        raise ValueError(
            f"{layer} has experts with capacity_factor={ffn.capacity_factor}: what a token gets "
            "depends on who else is in the batch, so no answer could be repeated. Build it with "
            'router="top_k" and capacity_factor=None'
        )
    if isinstance(ffn, HashedMoE) and len(ffn.table) > 1:
        raise ValueError(
            f"{layer} has experts of {len(ffn.table)} domains, and a request names none. Cut the "
            "model of one domain out: minillm.experts.hash_routing.extract_domain"
        )
