"""`minillm bench recall`: what five mixers remember, at two sizes of their state.

Multi-query associative recall (`minillm.data.recall.Pairs`): a row tells 4 to 64 pairs of a key and
a value and then asks for each key's value. Every contender is one block of width 64 (a hybrid two),
behind the same short convolution, where it has none of its own; only the mixer differs, and the
size of what it keeps. All learn with Muon from rows of all five lengths, as many questions a step,
the rate falling in a straight line to zero.

Equal effort: each contender is run with two rates and seed 0; the better one, by the mean of the
five accuracies, is then run with three other seeds, and those are told.

Then selective copying (`minillm.data.recall.SelectiveCopy`): two blocks of Mamba whose steps are
computed from the token, and two whose steps are learned constants; one rate, three seeds.

Paper: Arora et al. 2023, "Zoology", arXiv:2312.04927, section 3 (the task, and state size against
recall); Arora et al. 2024, "Based", arXiv:2402.18668 (recall against bytes of state); Gu and Dao
2023, "Mamba", arXiv:2312.00752, section 4.1.1 and table 1 (selective copying).
Differs: lengths are mixed in training; theirs are two blocks.

Chapter: app
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import final

import numpy as np
import torch

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
SEEDS = (1, 2, 3)  # of the runs that are told; the choice of the rate has seed 0
RATES = (0.01, 0.02)
N_STEPS, N_QUESTIONS, N_BLOCKS = 600, 512, 4


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
        n_steps: of each run.
        seeds: of the runs that are told.
        rates: tried before.
        contenders: names of `CONTENDERS`.
    """

    n_steps: int = N_STEPS
    seeds: tuple[int, ...] = SEEDS
    rates: tuple[float, ...] = RATES
    contenders: tuple[str, ...] = tuple(CONTENDERS)


QUICK = Work(n_steps=2, seeds=(1,), rates=(0.01,), contenders=("attention", "linear, small"))


def run(quick: bool = False) -> dict[str, dict]:
    """Run the benchmark, print its table, and return every figure.

    Args:
        quick: a few seconds, two steps of two contenders, to see that it works; its figures mean
            nothing.

    Returns:
        For each contender: `rate` (the better one), `parameters`, `state_bytes` (of one row after
        192 tokens, all blocks), `accuracy` (for each seed a list, one number for each of
        `N_PAIRS`), and `choice` (accuracies of seed 0, by rate). For each copier: `rate`, and
        `accuracy` (a number for each seed).
    """
    work = QUICK if quick else Work()
    print(
        f"{work.n_steps} steps of {N_QUESTIONS} questions, rates {work.rates}, seeds {work.seeds}; "
        f"threads: {torch.get_num_threads()}"
    )
    print(f"{'share right, of pairs:':<24}" + "".join(f"{n:>7}" for n in N_PAIRS) + "   bytes kept")
    figures = {}
    for name in work.contenders:
        choice = {rate: trained(name, rate, 0, work.n_steps)[1] for rate in work.rates}
        rate = max(work.rates, key=lambda rate: float(np.mean(choice[rate])))
        trials = [trained(name, rate, seed, work.n_steps) for seed in work.seeds]
        model = trials[0][0]
        figures[name] = {
            "rate": rate,
            "parameters": n_parameters(model),
            "state_bytes": sum(cache.n_bytes for cache in model.new_cache(1, 3 * max(N_PAIRS))),
            "accuracy": [right for _, right in trials],
            "choice": {str(rate): right for rate, right in choice.items()},
        }
        mean = np.mean(figures[name]["accuracy"], axis=0)
        shown = "".join(f"{100 * share:7.1f}" for share in mean)
        print(f"{name:<24}{shown}{figures[name]['state_bytes']:13,}", flush=True)
    print(f"share copied, seeds {work.seeds}")
    return figures | copied(work.n_steps, work.seeds)


def copied(n_steps: int, seeds: tuple[int, ...]) -> dict[str, dict]:
    """Selective copying: `accuracy` of each copier, one number a seed."""
    figures = {}
    for name, mixers in COPIERS.items():
        accuracies = []
        for seed in seeds:
            model = built(mixers, COPY.vocab_size, COPY.context_length, seed)
            batches = batch_at(COPY, 32, f"train {seed}")
            learn(model, batches, n_steps, max(RATES), f"{name}, seed {seed}")
            blocks = (COPY.block(i, seed="held out") for i in range(N_BLOCKS))
            accuracies.append(float(np.mean([accuracy(model, block) for block in blocks])))
        figures[name] = {"rate": max(RATES), "accuracy": accuracies}
        print(f"{name:<24}" + "".join(f"{100 * share:7.1f}" for share in accuracies), flush=True)
    return figures


def trained(name: str, rate: float, seed: int, n_steps: int) -> tuple[Transformer, list[float]]:
    """A model that has learned recall, and the share of its answers that are right, by length."""
    model = built(CONTENDERS[name], Pairs(n_pairs=1).vocab_size, 3 * max(N_PAIRS), seed)
    batches = [batch_at(Pairs(n_pairs=n), N_QUESTIONS // n, f"train {seed}") for n in N_PAIRS]
    lengths = np.random.default_rng(seed).integers(len(N_PAIRS), size=n_steps)

    def batch(step: int) -> Questions:
        return batches[lengths[step]](step)

    learn(model, batch, n_steps, rate, f"{name}, rate {rate}, seed {seed}")
    return model, [right_share(model, n) for n in N_PAIRS]


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
    """Of the hidden matrices; all else goes at AdamW's own rate."""
    matrices, others = hidden_matrices_and_others(model)
    return Muon(matrices, others, lr=rate, weight_decay=0.0, others_lr=0.01)


def right_share(model: Transformer, n_pairs: int) -> float:
    """Of rows that no training has seen."""
    blocks = (Pairs(n_pairs=n_pairs).block(i, seed="held out") for i in range(N_BLOCKS))
    return float(np.mean([accuracy(model, block) for block in blocks]))
