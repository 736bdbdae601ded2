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
       doubling the steps adds less than 2 points.

The best rate at the last number of steps is then run with three other seeds, and those are told.
A contender is `settled` if the last doubling added less than 2 points; one that is not might recall
more if it were trained longer.

Then selective copying (`minillm.data.recall.SelectiveCopy`): two blocks of Mamba whose steps are
computed from the token, and two whose steps are learned constants; both are searched in the same
way.

After a stop the same command goes on.

Paper: Arora et al. 2023, "Zoology", arXiv:2312.04927, section 3 (the task, and state size against
recall); Arora et al. 2024, "Based", arXiv:2402.18668 (recall against bytes of state); Okpekpe and
Orvieto 2025, arXiv:2508.19029 (recall depends on how well each mixer is tuned); Gu and Dao 2023,
"Mamba", arXiv:2312.00752, section 4.1.1 and table 1 (selective copying).
Differs: lengths are mixed in training; theirs are two blocks.

Chapter: app
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import final

import numpy as np
import torch

from minillm.bench._run import Finished
from minillm.data.recall import Pairs, Questions, SelectiveCopy, accuracy, batch_at, recall_loss
from minillm.measure.metrics import n_parameters
from minillm.mixers.linear_attention import LinearAttentionConfig
from minillm.mixers.mamba import MambaConfig
from minillm.mixers.retention import RetentionConfig
from minillm.mixers.rwkv import RWKVConfig
from minillm.mixers.short_conv import ShiftedConfig
from minillm.model.attention import AttentionConfig
from minillm.model.config import MixerConfig, TransformerConfig
from minillm.model.transformer import Transformer
from minillm.optim.groups import hidden_matrices_and_others
from minillm.optim.muon import Muon
from minillm.train.plain import fit

N_PAIRS = (4, 8, 16, 32, 64)
SEEDS = (1, 2, 3)  # of the runs that are told; the search has seed 0
RATES = (0.01, 0.02, 0.04)  # of Muon; what Muon does not take goes at half of it, with AdamW
N_STEPS = (300, 600, 1200, 2400)
LEAST_GAIN = 0.02  # of the mean accuracy; a doubling that adds less is the last
N_QUESTIONS, N_BLOCKS = 512, 4


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


@final
@dataclass(frozen=True, kw_only=True)
class Work:
    """How much is done.

    Args:
        n_steps: numbers of steps, each twice the one before.
        seeds: of the runs that are told.
        rates: tried first, each twice the one before.
        contenders: names of `CONTENDERS`.
    """

    n_steps: tuple[int, ...] = N_STEPS
    seeds: tuple[int, ...] = SEEDS
    rates: tuple[float, ...] = RATES
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
        `state_bytes` (of one row after 192 tokens, all blocks), too.
    """
    work, finished = QUICK if quick else Work(), finished or Finished()
    print(
        f"{N_QUESTIONS} questions a step, up to {max(work.n_steps):,} steps, rates from "
        f"{work.rates}, seeds {work.seeds}; threads: {torch.get_num_threads()}"
    )
    print(f"{'share right, of pairs:':<24}" + "".join(f"{n:>7}" for n in N_PAIRS) + "   bytes kept")
    figures = {}
    for name in work.contenders:
        model = contender(name, 0)
        figures[name] = {
            "parameters": n_parameters(model),
            "state_bytes": sum(cache.n_bytes for cache in model.new_cache(1, 3 * max(N_PAIRS))),
            **searched(name, recalled, work, finished),
        }
        print(_line(name, figures[name]) + f"{figures[name]['state_bytes']:13,}", flush=True)
    print("share copied")
    for name in COPIERS:
        figures[name] = searched(name, copied, work, finished)
        print(_line(name, figures[name]), flush=True)
    return figures


def _line(name: str, figures: dict) -> str:
    return f"{name:<24}" + "".join(
        f"{100 * share:7.1f}" for share in np.mean(figures["accuracy"], axis=0)
    )


def searched(name: str, score: Callable[..., list[float]], work: Work, finished: Finished) -> dict:
    """The accuracy of one contender at the best rate and number of steps that the search finds.

    Args:
        name: of the contender.
        score: (name, rate, n_steps, seed) to accuracies.
        work: the rates and steps.
        finished: runs that are not to be repeated.

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
        return max(rates, key=lambda rate: float(np.mean(search[n_steps, rate])))

    # 1. the rate, at the fewest steps; a better one may lie beyond the last that was tried
    n_steps, rates = work.n_steps[0], work.rates
    rate = best_of(n_steps, rates)
    while len(rates) > 1 and rate in (rates[0], rates[-1]):
        rates = (rate / 2, *rates) if rate == rates[0] else (*rates, 2 * rate)
        rate = best_of(n_steps, rates)
    # 2. twice the steps, until that adds little
    settled = False
    for longer in work.n_steps[1:]:
        slower = best_of(longer, (rate, rate / 2))
        gain = np.mean(search[longer, slower]) - np.mean(search[n_steps, rate])
        if gain > 0:
            n_steps, rate = longer, slower
        if settled := bool(gain < LEAST_GAIN):
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
    model = contender(name, seed)
    batches = [batch_at(Pairs(n_pairs=n), N_QUESTIONS // n, f"train {seed}") for n in N_PAIRS]
    lengths = np.random.default_rng(seed).integers(len(N_PAIRS), size=n_steps)

    def batch(step: int) -> Questions:
        return batches[lengths[step]](step)

    learn(model, batch, n_steps, rate, f"{name}, {n_steps} steps, rate {rate:g}, seed {seed}")
    return [right_share(model, Pairs(n_pairs=n)) for n in N_PAIRS]


def copied(name: str, rate: float, n_steps: int, seed: int) -> list[float]:
    """A copier learns to copy; the share of the symbols that it says right."""
    model = built(COPIERS[name], COPY.vocab_size, COPY.context_length, seed)
    learn(model, batch_at(COPY, 32, f"train {seed}"), n_steps, rate, f"{name}, seed {seed}")
    return [right_share(model, COPY)]


def contender(name: str, seed: int) -> Transformer:
    """A contender that has learned nothing."""
    return built(CONTENDERS[name], Pairs(n_pairs=1).vocab_size, 3 * max(N_PAIRS), seed)


def built(
    mixers: tuple[MixerConfig, ...], vocab_size: int, context_length: int, seed: int
) -> Transformer:
    """A model of width 64, a block for each mixer."""
    return TransformerConfig(
        vocab_size=vocab_size,
        context_length=context_length,
        d_model=64,
        n_layers=len(mixers),
        mixer=mixers,
        initial_std=0.1,
    ).build(seed=seed)


def learn(
    model: Transformer, batch: Callable[[int], Questions], n_steps: int, rate: float, label: str
) -> None:
    """Train in place with Muon."""
    fit(model, recall_loss, batch, n_steps, rate, make_optimizer=muon, label=label)


def muon(model: Transformer, rate: float) -> Muon:
    """Of the hidden matrices; all else goes at half the rate, with AdamW."""
    matrices, others = hidden_matrices_and_others(model)
    return Muon(matrices, others, lr=rate, weight_decay=0.0, others_lr=rate / 2)


def right_share(model: Transformer, source: Pairs | SelectiveCopy) -> float:
    """Of rows that no training has seen."""
    blocks = (source.block(i, seed="held out") for i in range(N_BLOCKS))
    return float(np.mean([accuracy(model, block) for block in blocks]))
