"""`minillm bench mixers`: what a longer text costs each mixer, in time and in memory.

One layer of each, with the same width and the same number of heads where it has heads, reads one
row of noise. Told for texts of 256, 512, …, 8,192 tokens are

- *prefill*: the time to read the whole text, without gradient and without a cache;
- *decode*: the time for one more token, with the cache that the text has left;
- *cache*: bytes of that cache, with room for the one more token;
- *peak*: the most elements alive at once in the prefill, by `minillm.measure.memory_meter`.

The last line of a mixer has the slopes (斜率) of their logarithms over the longer texts: cost grows
like nᵃ with a = 2 where each token meets every other, 1 where each costs the same, 0 where the
length does not matter. Attention is expected to have about 2 for prefill and 1 for decode and
cache, the mixers with a state 1, 0 and 0. Sparse attention is in between: its prefill has 1, but
it keeps all tokens, and looks through their places for the few it may see.

Mixers and lengths take turns within each repetition, and each one's least time is told: whatever
else a machine does adds time and never takes any away. That one more token is what the whole text
would have given is checked first.

What this does not say: which mixer is fast where it matters. Here are a CPU, one row, one layer
with first weights, and formulas made of torch's operations with loops in Python; only attention has
a fused kernel (so its peak has no table of n² scores, and what the kernel takes by itself is not
seen). The slopes carry over, the milliseconds do not. What a mixer learns is another question.

Chapter: app
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from minillm.bench.bpe import race
from minillm.bench.model import verdict
from minillm.measure.memory_meter import peak_elements
from minillm.mixers.linear_attention import LinearAttentionConfig
from minillm.mixers.mamba import MambaConfig
from minillm.mixers.patterns import Sinks, Window
from minillm.mixers.retention import RetentionConfig
from minillm.mixers.rwkv import RWKVConfig
from minillm.mixers.sparse import SparseAttentionConfig
from minillm.model.attention import AttentionConfig, Context
from minillm.model.cache import KVCache

D_MODEL = 128
MIXERS = {
    "attention": AttentionConfig(),
    "sparse": SparseAttentionConfig(patterns=(Window(n_tokens=64), Sinks(n_tokens=4))),
    "linear": LinearAttentionConfig(),
    "retention": RetentionConfig(),
    "RWKV": RWKVConfig(),
    "Mamba": MambaConfig(),
}
COSTS = {"prefill": "ms", "decode": "ms", "cache": "KiB", "peak": "thousand elements"}
DIGITS = {"prefill": 1, "decode": 2, "cache": 1, "peak": 0}

#: Slopes, and what each is to reach: at most, or at least. Of what has no target, none is expected.
TARGETS = {
    "attention_prefill": ("at least", 1.5),
    "attention_decode": ("at least", 0.5),
    "attention_cache": ("at least", 0.99),
    "sparse_prefill": ("at most", 1.2),
} | {
    f"{mixer}_{cost}": ("at most", target)
    for mixer in ("linear", "retention", "RWKV", "Mamba")
    for cost, target in (("prefill", 1.2), ("decode", 0.1), ("cache", 0.0))
}


@dataclass(frozen=True, kw_only=True)
class Work:
    """The lengths of the texts, and how often everything is repeated.

    Args:
        lengths: tokens.
        long: slopes are taken over texts of so many tokens and more.
        n_repeats: turns that each mixer has.
        n_steps: how often the one more token is read in a turn.
    """

    lengths: tuple[int, ...]
    long: int
    n_repeats: int
    n_steps: int


FULL = Work(lengths=(256, 512, 1024, 2048, 4096, 8192), long=1024, n_repeats=9, n_steps=16)
QUICK = Work(lengths=(32, 256), long=32, n_repeats=1, n_steps=2)


def run(quick: bool = False) -> dict[str, float]:
    """Run the benchmark, print its tables, and return every figure.

    Args:
        quick: a few seconds, with short texts, to see that it works; its figures mean nothing.

    Returns:
        For each mixer and each of `COSTS`: `MIXER_COST_LENGTH`, in ms, bytes (cache) and elements
        (peak), and `MIXER_COST`, the slope. Also `n_threads`.

    Raises:
        AssertionError: a mixer's next token is not what the whole text gives.
    """
    work = QUICK if quick else FULL
    print(
        f"one layer, one row, width {D_MODEL}, float32; torch {torch.__version__}, "
        f"threads: {torch.get_num_threads()}; least of {work.n_repeats}"
    )
    torch.manual_seed(0)
    layers = {
        name: config.build(D_MODEL, max(work.lengths) + 1).eval() for name, config in MIXERS.items()
    }
    figures: dict[str, float] = {"n_threads": torch.get_num_threads()}
    with torch.no_grad():
        for layer in layers.values():
            check_next(layer, min(work.lengths))
        figures |= costs(layers, work)
    figures |= {
        f"{name}_{cost}": slope({n: figures[f"{name}_{cost}_{n}"] for n in work.lengths}, work.long)
        for name in layers
        for cost in COSTS
    }
    print_tables(figures, work)
    return figures


# --- the race -----------------------------------------------------------------------------------
def costs(layers: dict[str, nn.Module], work: Work) -> dict[str, float]:
    """What each layer takes for texts of each length: all of them in turns, so that a slow moment
    of the machine bends no slope."""
    figures: dict[str, float] = {}
    reading: dict[str, Callable[[], Tensor]] = {}
    writing: dict[str, Callable[[], Tensor]] = {}
    for n_tokens in work.lengths:
        x = noise(n_tokens + 1)
        text, token = x[:, :n_tokens], x[:, n_tokens:]
        for name, layer in layers.items():
            cache, read = filled(layer, text), reads(layer, text)
            reading[f"{name}_prefill_{n_tokens}"] = read
            writing[f"{name}_decode_{n_tokens}"] = steps(
                layer, token, cache, n_tokens, work.n_steps
            )
            figures[f"{name}_cache_{n_tokens}"] = cache.n_bytes
            # This warms up, too: sparse attention remembers the layout of a length it has met.
            figures[f"{name}_peak_{n_tokens}"] = peak_elements(read)
    race(writing, 1)
    figures |= {name: 1000 * took for name, took in least(reading, work.n_repeats).items()}
    took = least(writing, work.n_repeats)
    return figures | {name: 1000 * each / work.n_steps for name, each in took.items()}


def least(contenders: dict[str, Callable[[], object]], n_repeats: int) -> dict[str, float]:
    """Time each contender once a round, and return each one's least seconds."""
    rounds = [race(contenders, 1) for _ in range(n_repeats)]
    return {name: min(took[name] for took in rounds) for name in contenders}


def reads(layer: nn.Module, text: Tensor) -> Callable[[], Tensor]:
    """The whole text at once."""
    context = Context(positions=torch.arange(text.shape[1]))
    return lambda: layer(text, context)


def filled(layer: nn.Module, text: Tensor) -> Any:
    """The cache that a text leaves, with room for one more token."""
    n_tokens = text.shape[1]
    cache = layer.new_cache(1, n_tokens + 1)
    layer(text, Context(positions=torch.arange(n_tokens)), cache)
    return cache


def steps(
    layer: nn.Module, token: Tensor, cache: Any, n_tokens: int, n_steps: int
) -> Callable[[], Tensor]:
    """One more token, several times over, each time at the same place.

    Keys and values of the token are forgotten again. A state cannot forget, but its size and its
    work are the same after any number of tokens.
    """
    context = Context(positions=torch.tensor([n_tokens]))

    def step() -> Tensor:
        for _ in range(n_steps):
            y = layer(token, context, cache)
            if isinstance(cache, KVCache):
                cache.truncate(n_tokens)
        return y

    return step


def check_next(layer: nn.Module, n_tokens: int) -> None:
    """A token after the cache is the last one of the whole text, up to roundings."""
    x = noise(n_tokens + 1)
    whole = reads(layer, x)()[:, -1:]
    text, token = x[:, :n_tokens], x[:, n_tokens:]
    outputs = steps(layer, token, filled(layer, text), n_tokens, 1)()
    error = (outputs - whole).abs().max().item() / whole.abs().max().item()
    assert error <= 1e-4, (
        f"{type(layer).__name__}: a token after {n_tokens} differs by {error:.1e} from the text "
        "read whole"
    )


def noise(n_tokens: int) -> Tensor:
    """One row, always the same."""
    return torch.randn(1, n_tokens, D_MODEL, generator=torch.Generator().manual_seed(0))


# --- what was found -----------------------------------------------------------------------------
def slope(values: dict[int, float], long: int) -> float:
    """a of the n to the power of a that fits best, by least squares of logarithms.

    Args:
        values: by n.
        long: smaller n are left out.

    Example:
        >>> round(slope({1: 50.0, 10: 300.0, 20: 1200.0, 40: 4800.0}, long=10), 6)
        2.0
    """
    points = [(n, value) for n, value in values.items() if n >= long]
    n, y = np.log(np.array(points)).T
    n = n - n.mean()
    return float(n @ (y - y.mean()) / (n @ n))


def print_tables(figures: dict[str, float], work: Work) -> None:
    """Print one table for each cost, then the slopes."""
    factors = {"cache": 1 / 1024, "peak": 1 / 1000}
    for cost, unit in COSTS.items():
        heads = "".join(f"{n:>10,}" for n in work.lengths)
        print(f"\n{f'{cost}, {unit}':<24}{heads}")
        for name in MIXERS:
            values = (factors.get(cost, 1) * figures[f"{name}_{cost}_{n}"] for n in work.lengths)
            cells = "".join(f"{value:>10,.{DIGITS[cost]}f}" for value in values)
            print(f"  {name:<22}{cells}")
    print(f"\nslopes from {work.long:,} tokens on" + "".join(f"{cost:>9}" for cost in COSTS))
    for name in MIXERS:
        # + 0.0: a slope of -0.00 is 0.00
        cells = "".join(f"{round(figures[f'{name}_{cost}'], 2) + 0.0:>9.2f}" for cost in COSTS)
        verdicts = "; ".join(
            f"{cost} {verdict(round(figures[f'{name}_{cost}'], 2), *TARGETS[f'{name}_{cost}'])}"
            for cost in COSTS
            if f"{name}_{cost}" in TARGETS
        )
        print(f"  {name:<{len(f'slopes from {work.long:,} tokens on') - 2}}{cells}   {verdicts}")
