"""`minillm bench recall`: what five mixers remember, at two sizes of their state.

Multi-query associative recall (`minillm.data.recall.Pairs`): a row tells 4 to 64 pairs of a key and
a value and then asks for each key's value. Every contender is one block of width 64 (a hybrid two),
behind the same short convolution, where it has none of its own; only the mixer differs, and the
size of what it keeps. All learn with Muon from rows of all five lengths, 512 questions a step, the
rate falling in a straight line to zero.

What a mixer cannot hold and what it was not trained to hold look alike in one run. So each
contender is searched by itself, with seed 0, and the mean of its five accuracies decides:

    1. 300 steps at the rates 0.01, 0.02 and 0.04; while the best is the smallest or the largest
       that was tried, the next one, a factor of 2 beyond it.
    2. Twice the steps, at the best rate so far and at half of it. Again, up to 2,400 steps, until
       doubling the steps adds less than 2 points. Who is no better than guessing even then is not
       at its limit, it has not begun to learn: the next doubling tries all rates again, as in 1.

The best rate at the last number of steps is then run with three other seeds, and those are told.
A contender is `settled` if the last doubling added less than 2 points; one that is not might recall
more if it were trained longer.

Then selective copying (`minillm.data.recall.SelectiveCopy`): two blocks of Mamba whose steps are
computed from the token, and two whose steps are learned constants. And real text: two blocks each
of three mixers learn Python's documentation (`minillm.train.compare.real_text`). Both with the same
search, but up to 600 steps, and to 1,200 as long as anything is gained on real text.

After a stop the same command goes on.

Paper: Arora et al. 2023, "Zoology", arXiv:2312.04927, section 3 (the task, and state size against
recall); Arora et al. 2024, "Based", arXiv:2402.18668 (recall against bytes of state); Okpekpe and
Orvieto 2025, arXiv:2508.19029 (recall depends on how well each mixer is tuned); Gu and Dao 2023,
"Mamba", arXiv:2312.00752, section 4.1.1 and table 1 (selective copying).
Differs: lengths are mixed in training; theirs are two blocks.

Chapter: app
"""

import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import cache, partial
from typing import final

import numpy as np
import torch

from minillm.bench._run import Finished
from minillm.data.corpus import python_documentation
from minillm.data.recall import Pairs, SelectiveCopy
from minillm.measure.metrics import n_parameters
from minillm.mixers.linear_attention import LinearAttentionConfig
from minillm.mixers.mamba import MambaConfig
from minillm.mixers.retention import RetentionConfig
from minillm.mixers.rwkv import RWKVConfig
from minillm.mixers.short_conv import ShiftedConfig
from minillm.model.attention import AttentionConfig
from minillm.model.config import MixerConfig
from minillm.optim.build import build
from minillm.train.compare import Task, attempt, real_text
from minillm.train.recall import learned, of_mixers, right_share

N_PAIRS = (4, 8, 16, 32, 64)
SEEDS = (1, 2, 3)  # of the runs that are told; the search has seed 0
RATES = (0.01, 0.02, 0.04)  # of Muon; what Muon does not take goes at half of it, with AdamW
N_STEPS = (300, 600, 1200, 2400)
N_QUESTIONS = 512
ASKED = {Pairs(n_pairs=n): N_QUESTIONS // n for n in N_PAIRS}  # and how many rows of it a step


def attending() -> MixerConfig:
    """Attention behind the convolution."""
    return ShiftedConfig(mixer=AttentionConfig(n_heads=1, rope=None))


def linear(d_head: int) -> MixerConfig:
    """Linear attention behind the convolution."""
    return ShiftedConfig(mixer=LinearAttentionConfig(n_heads=1, d_head=d_head))


def retaining(d_head: int) -> MixerConfig:
    """Retention behind the convolution, its four decays those of the paper."""
    return ShiftedConfig(mixer=RetentionConfig(n_heads=4, d_head=d_head, value_width=16, rope=None))


#: The mixers of each contender's blocks.
CONTENDERS: dict[str, tuple[MixerConfig, ...]] = {
    "attention": (attending(),),
    "linear, small": (linear(16),),
    "linear, large": (linear(64),),
    "retention, small": (retaining(8),),
    "retention, large": (retaining(32),),
    "RWKV, small": (RWKVConfig(d_state=64),),
    "RWKV, large": (RWKVConfig(d_state=256),),
    "Mamba, small": (MambaConfig(d_state=4),),
    "Mamba, large": (MambaConfig(d_state=16),),
    "linear twice": (linear(16), linear(16)),
    "attention, then linear": (attending(), linear(16)),
    "linear, then attention": (linear(16), attending()),
}


#: The mixers of those that copy.
COPIERS: dict[str, tuple[MixerConfig, ...]] = {
    "copying, selective": (MambaConfig(),) * 2,
    "copying, constant": (MambaConfig(selective=False),) * 2,
}
COPY = SelectiveCopy(n_tokens=64, n_copied=4, n_symbols=8)

#: Two blocks of those that read.
READERS: dict[str, tuple[MixerConfig, ...]] = {
    "reading, attention": (ShiftedConfig(mixer=AttentionConfig(n_heads=4)),) * 2,
    "reading, RWKV": (RWKVConfig(),) * 2,
    "reading, Mamba": (MambaConfig(d_state=4),) * 2,
}
VOCAB_SIZE = 512


@final
@dataclass(frozen=True, kw_only=True)
class Work:
    """How much is done.

    Args:
        n_steps: numbers of steps, each twice the one before.
        seeds: of the runs that are told.
        rates: tried first, each twice the one before.
        least_gain: of the mean accuracy; a doubling that adds less is the last.
        contenders: names of `CONTENDERS`.
    """

    n_steps: tuple[int, ...] = N_STEPS
    seeds: tuple[int, ...] = SEEDS
    rates: tuple[float, ...] = RATES
    least_gain: float = 0.02
    contenders: tuple[str, ...] = tuple(CONTENDERS)


QUICK = Work(n_steps=(2,), seeds=(1,), rates=(0.01,), contenders=("attention", "linear, small"))


def run(quick: bool = False, finished: Finished | None = None) -> dict[str, dict]:
    """Run the benchmark, print its table, and return every figure.

    Args:
        quick: a few seconds, two steps of two contenders, to see that it works; its figures mean
            nothing.
        finished: runs that are not to be repeated.

    Returns:
        For each contender and copier what `searched` returns, where an accuracy is a list with a
        number for each of `N_PAIRS` (for a copier one number); for a contender `parameters` and
        `state_bytes` (of one row after 192 tokens, all blocks), too. For each reader the same with
        a `loss`, held out, in nats a token, in place of an accuracy.
    """
    work, finished = QUICK if quick else Work(), finished or Finished()
    print(
        f"{N_QUESTIONS} questions a step, up to {max(work.n_steps):,} steps, rates from "
        f"{work.rates}, seeds {work.seeds}; threads: {torch.get_num_threads()}"
    )
    print(f"{'share right, of pairs:':<24}" + "".join(f"{n:>7}" for n in N_PAIRS) + "   bytes kept")
    figures = {}
    for name in work.contenders:
        model = of_mixers(CONTENDERS[name], Pairs(n_pairs=1).vocab_size, 3 * max(N_PAIRS))
        figures[name] = {
            "parameters": n_parameters(model),
            "state_bytes": sum(cache.n_bytes for cache in model.new_cache(1, 3 * max(N_PAIRS))),
            **searched(name, recalled, work, finished, float(np.mean([1 / n for n in N_PAIRS]))),
        }
        print(_line(name, figures[name]) + f"{figures[name]['state_bytes']:13,}", flush=True)
    shorter = replace(work, n_steps=work.n_steps[:2])
    print("share copied")
    for name in COPIERS:
        figures[name] = searched(name, copied, shorter, finished, COPY.chance)
        print(_line(name, figures[name]), flush=True)
    reading = replace(work, n_steps=work.n_steps[:3], least_gain=0)
    print("held-out loss, nats a token")
    for name in READERS:
        figures[name] = results = searched(name, read, reading, finished)
        results["loss"] = [-score for [score] in results.pop("accuracy")]
        for each in results["search"]:
            each["loss"] = -each.pop("accuracy")[0]
        print(f"{name:<24}" + "".join(f"{loss:7.3f}" for loss in results["loss"]), flush=True)
    return figures


def _line(name: str, figures: dict) -> str:
    return f"{name:<24}" + "".join(
        f"{100 * share:7.1f}" for share in np.mean(figures["accuracy"], axis=0)
    )


def searched(
    name: str,
    score: Callable[..., list[float]],
    work: Work,
    finished: Finished,
    guessing: float = -math.inf,
) -> dict:
    """The accuracy of one contender at the best rate and number of steps that the search finds.

    Args:
        name: of the contender.
        score: (name, rate, n_steps, seed) to accuracies.
        work: the rates and steps.
        finished: runs that are not to be repeated.
        guessing: the mean accuracy of a model that has learned nothing.

    Returns:
        `rate` and `n_steps`, the best; `accuracy`, a list for each of the seeds; `settled`, whether
        the last doubling added less than 2 points; and `search`: {"n_steps", "rate", "accuracy"} of
        each run with seed 0.
    """
    search: dict[tuple[int, float], list[float]] = {}

    def measured(rate: float, n_steps: int, seed: int) -> list[float]:
        label = f"{name}, {n_steps} steps, rate {rate:g}, seed {seed}"
        return finished(label, lambda: score(name, rate, n_steps, seed))

    def best_of(n_steps: int, rates: tuple[float, ...]) -> float:
        for rate in rates:
            search[n_steps, rate] = measured(rate, n_steps, 0)
        return max(rates, key=lambda rate: mean(n_steps, rate))

    def best_of_all(n_steps: int) -> float:
        rates = work.rates
        rate = best_of(n_steps, rates)
        while len(rates) > 1 and rate in (rates[0], rates[-1]):  # a better one may lie beyond
            rates = (rate / 2, *rates) if rate == rates[0] else (*rates, 2 * rate)
            rate = best_of(n_steps, rates)
        return rate

    def mean(n_steps: int, rate: float) -> float:
        return float(np.mean(search[n_steps, rate]))

    # 1. the rate, at the fewest steps
    n_steps, settled, stuck = work.n_steps[0], False, False
    rate = best_of_all(n_steps)
    # 2. twice the steps, until that adds little to what was learned
    for longer in work.n_steps[1:]:
        longest = best_of_all(longer) if stuck else best_of(longer, (rate, rate / 2))
        little = mean(longer, longest) - mean(n_steps, rate) < work.least_gain
        if mean(longer, longest) > mean(n_steps, rate):
            n_steps, rate = longer, longest
        stuck = little and mean(n_steps, rate) < guessing + work.least_gain
        settled = little and not stuck
        if settled:
            break
    return {
        "rate": rate,
        "n_steps": n_steps,
        "settled": settled,
        "accuracy": [measured(rate, n_steps, seed) for seed in work.seeds],
        "search": [
            {"n_steps": steps, "rate": tried, "accuracy": accuracies}
            for (steps, tried), accuracies in search.items()
        ],
    }


def recalled(name: str, rate: float, n_steps: int, seed: int) -> list[float]:
    """A contender learns recall; the share of its answers that are right, by length."""
    label = f"{name}, {n_steps} steps, rate {rate:g}, seed {seed}"
    model = learned(CONTENDERS[name], ASKED, n_steps, rate, seed=seed, label=label)
    return [right_share(model, source) for source in ASKED]


def copied(name: str, rate: float, n_steps: int, seed: int) -> list[float]:
    """A copier learns to copy; the share of the symbols that it says right."""
    model = learned(COPIERS[name], {COPY: 32}, n_steps, rate, seed=seed, label=f"{name}, {seed}")
    return [right_share(model, COPY)]


def read(name: str, rate: float, n_steps: int, seed: int) -> list[float]:
    """A reader learns Python's documentation; minus its held-out loss, so that more is better."""
    text = _documentation()
    task = replace(text, model=lambda seed: of_mixers(READERS[name], VOCAB_SIZE + 1, 64, seed))
    make = partial(build, name="Muon", learning_rate=rate, others_lr=rate / 2)
    return [-attempt(task, make, n_steps=n_steps, seed=seed, label=f"{name}, {rate:g}").loss]


@cache
def _documentation() -> Task:
    return real_text(python_documentation(), vocab_size=VOCAB_SIZE)
