"""What a forward pass costs: the seconds of reading prompts, of decoding, and of moving a cache.

A request is served in two phases. **Prefill** (全量推理, full inference) reads the prompt, all its
tokens in one pass, and gives the first token. **Decode** (增量推理, incremental inference) gives
one more token a pass, for all the requests that run at once: the rows. Both are forward passes of
the same model, so one formula has to do for any mixture of them:

    seconds = max(floor, fixed + prompt_token · n_prompt + row · batch_size)
              + cached_token · n_cached + pair · n_pairs

              n_prompt   prompt tokens that are read          batch_size    rows that get a token
              n_cached   tokens in caches that are looked at  n_pairs   prompt token × token it sees

`floor` is the time to fetch the weights from memory: on a GPU a pass takes at least that, so a few
rows cost as much as one, and some prompt tokens beside them cost nothing. On a CPU with a small
model the floor is 0, and what rows share is `fixed`, the time to start a pass.

Where the numbers come from: `measure` and `fit` for a model that is here; `roofline` for one that
is not, by arithmetic from data sheets.

Paper: Zhong et al. 2024, "DistServe", arXiv:2401.09670, appendix A (a latency model of both phases
by operations and bytes; from memory); Agrawal et al. 2024, "Sarathi-Serve", arXiv:2403.02310,
section 3.1 and figure 6 (the floor: fetching weights dominates until there are many tokens).
Differs: one linear formula with a floor for both phases and for mixed passes; a mixed pass is
assumed to cost what its parts do, with `fixed` and `floor` once.

Chapter: 17
"""

import math
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from statistics import median
from typing import NamedTuple, final

import numpy as np
import torch

from minillm.model.transformer import Transformer


@final
@dataclass(frozen=True, kw_only=True)
class Costs:
    """Seconds of a forward pass by what is in it, and the caches' size and journey.

    Args:
        fixed: of any pass.
        prompt_token: of each prompt token.
        row: of each row that decodes.
        cached_token: of each token in a cache that is looked at.
        pair: of each pair of a prompt token and one that it sees, itself or an earlier one.
        floor: the least that fixed, prompt tokens and rows take together.
        transfer_token: to send one token's keys and values to another machine.
        cache_tokens: places for tokens in one machine's caches.

    Raises:
        ValueError: a negative or infinite number of seconds; passes that take no time; no place.

    Example:
        >>> costs = Costs(fixed=1.0, prompt_token=0.1, row=0.2, floor=2.0)
        >>> costs.prefill(30), costs.decode(1, 30), costs.decode(10, 300)
        (4.0, 2.0, 3.0)
        >>> costs.seconds(n_prompt=4, batch_size=1)  # four prompt tokens beside a row: free
        2.0
    """

    fixed: float
    prompt_token: float
    row: float
    cached_token: float = 0.0
    pair: float = 0.0
    floor: float = 0.0
    transfer_token: float = 0.0
    cache_tokens: float = math.inf

    def __post_init__(self):
        seconds = {name: value for name, value in vars(self).items() if name != "cache_tokens"}
        wrong = {name: value for name, value in seconds.items() if not 0 <= value < math.inf}
        if wrong:
            raise ValueError(f"costs are finite seconds of at least 0; got {wrong}")
        if not (self.prefill(1) > 0 and self.decode(1, 1) > 0 and self.cache_tokens >= 1):
            raise ValueError(
                "a pass must take some time (floor, fixed, or both prompt_token and row above 0) "
                f"and a machine must keep at least one token; got {self}"
            )

    def seconds(
        self, n_prompt: int = 0, batch_size: int = 0, n_cached: int = 0, n_pairs: float = 0
    ) -> float:
        """Of one pass, by the formula at the top."""
        work = self.fixed + self.prompt_token * n_prompt + self.row * batch_size
        attention = self.cached_token * n_cached + self.pair * n_pairs
        return (work if work > self.floor else self.floor) + attention

    def prefill(self, n_prompt: int) -> float:
        """Of a pass that reads one whole prompt."""
        return self.seconds(n_prompt=n_prompt, n_pairs=pairs(n_prompt))

    def decode(self, batch_size: int, n_cached: int) -> float:
        """Of a pass that gives each row one token; `n_cached` is of all rows together."""
        return self.seconds(batch_size=batch_size, n_cached=n_cached)


def pairs(n_new: int, start: int = 0) -> float:
    """Pairs of a new token and one that it sees, for `n_new` tokens after `start` others.

    Example:
        >>> pairs(3), pairs(2, start=3)  # 1 + 2 + 3, 4 + 5
        (6.0, 9.0)
    """
    return n_new * (start + (n_new + 1) / 2)


def roofline(
    *,
    n_parameters: float,
    n_layers: int,
    d_model: int,
    flops_per_second: float,
    memory_bytes_per_second: float,
    link_bytes_per_second: float,
    memory_bytes: float,
    bytes_per_number: int = 2,
    fixed: float = 0.0,
) -> Costs:
    """Costs by arithmetic: a pass is bound by its operations or by its bytes, whichever is slower.

    A token takes 2 operations a parameter, and 4 · d_model a layer for each token that it sees; the
    weights are fetched once a pass, and a row's cache, 2 · d_model numbers a token and a layer.

    Args:
        n_parameters, n_layers, d_model: of the model, with a key/value head for each head.
        flops_per_second, memory_bytes_per_second, link_bytes_per_second: what is really reached.
        memory_bytes: of a machine; what the weights leave is for caches.
        bytes_per_number: of weights and caches.
        fixed: seconds to start a pass, beside what is computed.

    Raises:
        ValueError: weights that fill the memory.

    Example:
        >>> half, most = 0.5 * 312e12, 0.8 * 2.039e12  # of an A100's data sheet
        >>> costs = roofline(
        ...     n_parameters=13e9, n_layers=40, d_model=5120, flops_per_second=half,
        ...     memory_bytes_per_second=most, link_bytes_per_second=25e9, memory_bytes=72e9)
        >>> round(costs.prefill(512), 3), round(costs.decode(1, 512), 4), int(costs.cache_tokens)
        (0.086, 0.0162, 56152)
    """
    weights = n_parameters * bytes_per_number
    if not weights < memory_bytes:
        raise ValueError(
            f"the weights take {weights:.3g} bytes and the machine has {memory_bytes:.3g}, so no "
            "place is left for caches: take a smaller model, or count several cards as one machine"
        )
    token = 2 * n_layers * d_model * bytes_per_number
    return Costs(
        fixed=fixed,
        prompt_token=2 * n_parameters / flops_per_second,
        row=2 * n_parameters / flops_per_second,
        cached_token=token / memory_bytes_per_second,
        pair=4 * n_layers * d_model / flops_per_second,
        floor=fixed + weights / memory_bytes_per_second,
        transfer_token=token / link_bytes_per_second,
        cache_tokens=(memory_bytes - weights) // token,
    )


# --- measured -------------------------------------------------------------------------------------
class Sample(NamedTuple):
    """One kind of pass, and the median of the seconds that it took."""

    n_prompt: int
    batch_size: int
    n_cached: int
    n_pairs: float
    seconds: float


def measure(
    model: Transformer,
    *,
    prompts: Sequence[int],
    batch_sizes: Sequence[int],
    n_repeats: int = 7,
    clock: Callable[[], float] = time.thread_time,
) -> list[Sample]:
    """Time a model's passes: whole prompts, their second halves, and decoding in batches.

    All kinds take turns within each repetition, so that a slow moment of the machine hits all; one
    repetition more goes first and does not count.

    Args:
        model: on the CPU.
        prompts: lengths; the caches of the rows that decode have these lengths, too.
        batch_sizes: rows that decode at once.
        n_repeats: of which the median counts.
        clock: seconds. The default counts what this thread has had of a core, so other programs do
            not count; it is right where torch computes on one thread.

    Returns:
        A sample for each prompt, each half of one, and each pair of a length and a batch size.

    Raises:
        ValueError: no length or batch size, or one below 2 and 1; as the model, too long a text.
    """
    if not prompts or not batch_sizes or min(prompts) < 2 or min(batch_sizes) < 1 or n_repeats < 1:
        raise ValueError(
            "measure needs prompts of 2 tokens or more, batch sizes of 1 or more, and a repetition;"
            f" got {[*prompts]}, {[*batch_sizes]} and {n_repeats}"
        )
    kinds, timed = [], []
    for n in prompts:
        half = n // 2
        kinds += [(n, 0, 0, pairs(n)), (n - half, 0, half, pairs(n - half, half))]
        timed += [_pass(model, 1, 0, n), _pass(model, 1, half, n - half)]
        kinds += [(0, batch_size, n * batch_size, 0) for batch_size in batch_sizes]
        timed += [_pass(model, batch_size, n, 1) for batch_size in batch_sizes]
    took: list[list[float]] = [[] for _ in kinds]
    for _ in range(n_repeats + 1):
        for times, once in zip(took, timed, strict=True):
            start = clock()
            once()
            times.append(clock() - start)
    return [Sample(*kind, median(times[1:])) for kind, times in zip(kinds, took, strict=True)]


def _pass(model: Transformer, batch_size: int, n_before: int, n_new: int) -> Callable[[], object]:
    """A pass over new tokens after others that are in the cache; it can be called again."""
    tokens = torch.zeros(batch_size, n_before + n_new, dtype=torch.int64)
    cache = model.new_cache(batch_size, n_before + n_new)

    @torch.inference_mode()
    def once() -> object:
        start = cache[0].n_tokens
        if start < n_before:
            model.hidden(tokens[:, :n_before], cache=cache)
        for layer in cache:
            layer.truncate(n_before)
        return model.logits(model.hidden(tokens[:, n_before:], cache=cache)[:, -1:])

    return once


def fit(samples: Sequence[Sample]) -> tuple[Costs, float]:
    """The costs that explain measured passes best, by least squares of the relative error.

    No cost may be negative: while one is, the most negative is set to 0 and the rest fitted again.

    Args:
        samples: from `measure`.

    Returns:
        The costs (floor and transfer are 0, since one machine's times do not show them), and the
        root of the mean squared relative error.

    Raises:
        ValueError: fewer samples than costs to be fitted, or one without time.

    Example:
        >>> line = [Sample(n, 0, 0, 0, 1 + 2 * n) for n in (1, 5)]
        >>> costs, error = fit(line + [Sample(0, n, 9, 0, 1 + n * 0.5) for n in (1, 3, 4)])
        >>> round(costs.fixed, 6), round(costs.prompt_token, 6), round(costs.row, 6)
        (1.0, 2.0, 0.5)
    """
    names = ("fixed", "prompt_token", "row", "cached_token", "pair")
    if len(samples) < len(names) or min(sample.seconds for sample in samples) <= 0:
        raise ValueError(
            f"fit needs at least {len(names)} samples, each of some time; got {len(samples)}"
        )
    table = np.array([(1, *sample) for sample in samples])
    inputs, seconds = table[:, :-1] / table[:, -1:], np.ones(len(table))
    kept = [place for place in range(len(names)) if inputs[:, place].any()]
    while True:
        solved = np.linalg.lstsq(inputs[:, kept], seconds, rcond=None)[0]
        if solved.min() >= 0:
            break
        kept.pop(int(solved.argmin()))
    errors = inputs[:, kept] @ solved - 1
    values = {names[place]: float(x) for place, x in zip(kept, solved, strict=True)}
    return Costs(**(dict.fromkeys(names, 0.0) | values)), float(np.sqrt(np.mean(errors**2)))


def copy_seconds(model: Transformer, n_tokens: int, n_repeats: int = 7) -> float:
    """Seconds to copy one token's keys and values within memory, the fastest way to move a cache.

    Args:
        model: on the CPU.
        n_tokens: that are copied at once.
        n_repeats: of which the median counts.
    """
    cache = model.new_cache(1, n_tokens)
    parts = [part for layer in cache for part in (layer.keys, layer.values)]
    took = []
    for _ in range(n_repeats + 1):
        start = time.perf_counter()
        for part in parts:
            part.clone()
        took.append(time.perf_counter() - start)
    return median(took[1:]) / n_tokens
