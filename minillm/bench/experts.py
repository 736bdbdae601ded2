"""`minillm bench experts`: more experts, the same work for a token: how many steps does it save?

Eight districts of the town speak eight dialects (`minillm.town.dialects`). A row begins with its
district's own token, and 64 symbols of that district follow. A small model must learn eight tables
at once, and a feed-forward part of hidden width 24 is narrow for that.

Every contender sends a token through one such part in each of two blocks: the dense one always
through the same, the others through one of E experts. So each does the same multiplications for a
token, but for the router's own E · D. All learn from the same rows in the same order, with AdamW at
a constant rate. Told is the loss on held-out rows above what the sources themselves pay for the
same rows (excess, nats a token), and after which share of the steps a contender was as good as the
dense one at its end, with the same seed. Steps are timed afterwards, all contenders taking turns,
and the least time of each is told: the machine may have other work.

With one expert a token, the answer is weighted by p (`norm_topk=False`): else the router would
learn nothing from the loss. At first p is about 1/E, so the experts begin quietly. At 8 experts:

    no balance    neither auxiliary loss
    by bias       the z-loss alone; experts are balanced by a bias on the choice, after each step
    up-cycled     dense for the first half, then eight copies; a new optimizer, warmed up again
    hashed        an expert for each district, by a table; the domain is given, nothing is routed

`upcycle` keeps what the dense model says only where weights sum to 1. With one expert a token they
are all 1, and the router of "up-cycled" learns from the auxiliary losses alone. The same work for a
token was to be kept; with two experts it would have been doubled.

Paper: Fedus et al. 2021, "Switch", arXiv:2101.03961, section 3.1 (experts against steps);
Komatsuzaki et al. 2022, arXiv:2212.05055 (up-cycling); Wang et al. 2024, arXiv:2408.15664 (bias).
Differs: no places are limited, so no token is dropped; sources whose best loss is known.

Chapter: app
"""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cache
from statistics import fmean
from time import perf_counter
from typing import Any, final

import numpy as np
import torch
from torch import Tensor

from minillm.experts import moe
from minillm.experts.hash_routing import HashedMoE, HashedMoEConfig
from minillm.experts.upcycle import upcycle
from minillm.lab.track import track
from minillm.model import transformer
from minillm.model.attention import AttentionConfig, Context
from minillm.model.config import FFNConfig, TransformerConfig
from minillm.model.count import ParameterCount
from minillm.model.ffn import Routing, SwiGLUConfig
from minillm.model.transformer import Transformer
from minillm.optim.schedule import Constant
from minillm.optim.step import Total
from minillm.town.chance import generator
from minillm.town.dialects import Source, dialects
from minillm.train.loop import LoopConfig, Metrics, TrainState, train

N_DISTRICTS, N_SYMBOLS, N_TOKENS = 8, 32, 64
VOCAB_SIZE = N_SYMBOLS + N_DISTRICTS
D_FF = 24
N_EXPERTS = (2, 4, 8, 16, 32)
RATE, WARMUP_STEPS, BATCH_ROWS = 0.01, 10, 32
SEEDS = (1, 2, 3)


# --- who takes part -----------------------------------------------------------------------------
@final
@dataclass(frozen=True, kw_only=True)
class Contender:
    """A feed-forward part, and how it is trained.

    Args:
        ffn: of both blocks.
        balance_weight, z: of the auxiliary losses, where it routes.
        bias_rate: of `balance_by_bias`; 0 for none.
        from_dense: dense for the first half, then up-cycled to `ffn`.
    """

    ffn: SwiGLUConfig | moe.MoEConfig | HashedMoEConfig
    balance_weight: float = 0.01
    z: float = 0.001
    bias_rate: float = 0.0
    from_dense: bool = False


DENSE = SwiGLUConfig(d_ff=D_FF)


def experts(n_experts: int, norm_topk: bool = False) -> moe.MoEConfig:
    """Experts as wide as the dense part, of which a token passes one."""
    return moe.MoEConfig(n_experts=n_experts, top_k=1, d_expert=D_FF, norm_topk=norm_topk)


HASHED = HashedMoEConfig(
    vocab_size=VOCAB_SIZE, n_domains=N_DISTRICTS, experts_per_domain=1, d_expert=D_FF
)
#: By name; the dense one is first, since the others are compared with it.
CONTENDERS: dict[str, Contender] = {
    "dense": Contender(ffn=DENSE),
    **{str(n): Contender(ffn=experts(n)) for n in N_EXPERTS},
    "8, no balance": Contender(ffn=experts(8), balance_weight=0.0, z=0.0),
    "8, by bias": Contender(ffn=experts(8), balance_weight=0.0, bias_rate=0.01),
    "8, up-cycled": Contender(ffn=experts(8, norm_topk=True), from_dense=True),
    "hashed": Contender(ffn=HASHED),
}


@final
@dataclass(frozen=True, kw_only=True)
class Work:
    """How much is done.

    Args:
        n_steps: of each run.
        every: so many steps lie between two measurements.
        seeds: of the runs.
        n_pool: rows to learn from, for each seed.
        n_held_out: rows to judge by.
        n_rounds: of timing.
    """

    n_steps: int = 500
    every: int = 20
    seeds: tuple[int, ...] = SEEDS
    n_pool: int = 16_384
    n_held_out: int = 512
    n_rounds: int = 40


QUICK = Work(n_steps=4, every=2, seeds=(1,), n_pool=64, n_held_out=32, n_rounds=4)


# --- what is read -------------------------------------------------------------------------------
@final
@dataclass(frozen=True, eq=False)
class Texts:
    """Rows, as many of each district.

    Args:
        tokens: [B, 65] the district's token, then 64 symbols.
        districts: [B] whose.
        nll: what the sources themselves pay, nats a symbol.
    """

    tokens: Tensor
    districts: Tensor
    nll: float


@cache
def sources() -> tuple[Source, ...]:
    """The eight districts."""
    return dialects(
        n_districts=N_DISTRICTS, order=2, n_symbols=N_SYMBOLS, sharpness=8, n_classes=16
    )


def texts(batch_size: int, *key: int | str) -> Texts:
    """Rows that depend on the key alone, those of the first district first.

    Args:
        batch_size: of all districts together.
        key: what they are for, and a seed.
    """
    n_each = batch_size // N_DISTRICTS
    rows, prices = [], []
    for k, source in enumerate(sources()):
        symbols = source.sample(generator("experts", *key, k), n_each, N_TOKENS).tokens
        rows.append(np.concatenate((np.full((n_each, 1), N_SYMBOLS + k), symbols), axis=1))
        prices.append(-source.log_probs(symbols).mean())
    districts = torch.arange(N_DISTRICTS).repeat_interleave(n_each)
    return Texts(torch.from_numpy(np.concatenate(rows)), districts, float(np.mean(prices)))


# --- one run ------------------------------------------------------------------------------------
@final
@dataclass(eq=False)
class Run:
    """A trained model.

    Args:
        model: at its end.
        curve: excess on the held-out rows, after each `every` steps.
    """

    model: Transformer
    curve: list[float]


def trained(
    contender: Contender, seed: int, work: Work, pool: Texts, held_out: Texts, label: str = ""
) -> Run:
    """Train once; the same seed reads the same rows in the same order."""
    model = built(DENSE if contender.from_dense else contender.ffn, seed)
    rng = np.random.default_rng(seed)
    rows = torch.from_numpy(rng.integers(len(pool.tokens), size=(work.n_steps, BATCH_ROWS)))
    curve, n_taken = [], 0
    for number, part in enumerate(rows.tensor_split(2 if contender.from_dense else 1)):
        if number:
            model = upcycle(model, contender.ffn, seed=seed)
        for _ in track(steps(model, contender, pool, part), label, total=len(part)):
            n_taken += 1
            if n_taken % work.every == 0:
                curve.append(loss_above_entropy(model, held_out))
    return Run(model, curve)


def steps(model: Transformer, contender: Contender, pool: Texts, rows: Tensor) -> Iterator[Metrics]:
    """Train step by step, with a new optimizer.

    Args:
        model: changed in place.
        contender: how it is trained.
        pool: what is read.
        rows: [steps, B] which rows of it at each step.
    """
    routings: list[Routing | None] = []

    def loss(model: Transformer, rows: Tensor) -> Total:
        total, routings[:] = loss_of(model, pool.tokens[rows], pool.districts[rows], contender)
        return total

    # one call for all experts (fused), so that their number costs little time
    optimizer = torch.optim.AdamW(model.parameters(), lr=RATE, weight_decay=0.0, fused=True)
    schedule = Constant(warmup_steps=WARMUP_STEPS)
    config = LoopConfig(n_steps=len(rows), schedule=schedule, clip_norm=None)
    for report in train(TrainState(model, optimizer), loss, rows.__getitem__, config):
        if contender.bias_rate:
            moe.balance_by_bias(model, routings, contender.bias_rate)
        yield report


def built(ffn: FFNConfig, seed: int) -> Transformer:
    """The small model with that feed-forward part in both blocks."""
    return TransformerConfig(
        vocab_size=VOCAB_SIZE,
        d_model=48,
        n_layers=2,
        context_length=N_TOKENS,
        mixer=AttentionConfig(n_heads=3),
        ffn=ffn,
        initial_std=0.1,
    ).build(seed=seed)


def least_ms(pool: Texts, n_rounds: int) -> dict[str, float]:
    """Of each contender the least milliseconds of a step; all take turns.

    The first 3 rounds do not count. The up-cycled one is timed with its experts.
    """
    rng = np.random.default_rng(0)
    rows = torch.from_numpy(rng.integers(len(pool.tokens), size=(n_rounds, BATCH_ROWS)))
    runs = {
        name: steps(built(contender.ffn, seed=0), contender, pool, rows)
        for name, contender in CONTENDERS.items()
    }
    took: dict[str, list[float]] = {name: [] for name in CONTENDERS}
    for _ in track(range(n_rounds), "timing"):
        for name, run in runs.items():
            start = perf_counter()
            next(run)
            took[name].append(1000 * (perf_counter() - start))
    return {name: min(each[3:]) for name, each in took.items()}


def loss_of(
    model: Transformer, tokens: Tensor, districts: Tensor, contender: Contender
) -> tuple[Total, list[Routing | None]]:
    """What is made small, and how it was routed: `moe_loss` that hands out its routings."""
    if not isinstance(model.blocks[0].ffn, moe.MoE):
        return transformer.loss(model, tokens, context=Context(domains=districts)), []
    inputs, targets = transformer.shifted(tokens)
    output = moe.routed(model, inputs)
    total = transformer.next_token_loss(output.logits, targets)
    auxiliary = moe.auxiliary_loss(
        output.routings, balance_weight=contender.balance_weight, z=contender.z
    )
    return total._replace(nats=total.nats + total.n_tokens * auxiliary), output.routings


@torch.no_grad()
def loss_above_entropy(model: Transformer, held_out: Texts) -> float:
    """Nats a symbol above what the sources pay."""
    context = Context(domains=held_out.districts)  # which hashed experts read, and no others
    return transformer.loss(model, held_out.tokens, context=context).mean.item() - held_out.nll


# --- what is told of it -------------------------------------------------------------------------
def crossing(curve: Sequence[float], goal: float) -> float | None:
    """After which share of the steps a curve first reached the goal, on straight lines; or None.

    Args:
        curve: its values after equal numbers of steps, the last at the end.
        goal: reached by a value that is not above it. If the first one has, that is told.

    Example:
        >>> crossing([4.0, 2.0, 1.0, 0.5], goal=3.0)  # in the middle of 1/4 and 2/4
        0.375
        >>> crossing([4.0, 2.0], goal=1.0) is None
        True
    """
    for i, value in enumerate(curve):
        if value <= goal:
            back = (goal - value) / (curve[i - 1] - value) if i else 0.0
            return (i + 1 - back) / len(curve)
    return None


def information(counts: Tensor) -> float:
    """Mutual information of row and column, by the logarithm of the number of rows.

    Args:
        counts: [districts, experts] how many tokens.

    Example:
        >>> information(torch.tensor([[5, 0], [0, 5]])), information(torch.ones(2, 2))
        (1.0, 0.0)
    """
    joint = counts.double() / counts.sum()
    apart = joint.sum(dim=1, keepdim=True) * joint.sum(dim=0, keepdim=True)
    seen = joint > 0
    nats = (joint[seen] * (joint[seen] / apart[seen]).log()).sum().item()
    return nats / math.log(len(counts))


@torch.no_grad()
def sent(model: Transformer, held_out: Texts) -> list[Tensor]:
    """For each block how many tokens of each district each expert was sent; [] if none routes.

    Returns:
        Of each block [districts, experts].
    """
    read = held_out.tokens[:, :-1]
    if isinstance(model.blocks[0].ffn, HashedMoE):
        chosen = [block.ffn.experts_of(read, held_out.districts) for block in model.blocks]
    elif isinstance(model.blocks[0].ffn, moe.MoE):
        chosen = []
        for routing in moe.routed(model, read).routings:
            chosen.append(torch.empty_like(routing.tokens))  # a pair for each token
            chosen[-1][routing.tokens] = routing.experts
    else:
        return []
    districts = held_out.districts.repeat_interleave(read.shape[1])
    tables = []
    for block, mine in zip(model.blocks, chosen, strict=True):
        n_experts = len(block.ffn.experts)
        pairs = districts * n_experts + mine.flatten()
        counts = torch.bincount(pairs, minlength=N_DISTRICTS * n_experts)
        tables.append(counts.view(N_DISTRICTS, n_experts))
    return tables


def parameters(model: Transformer) -> ParameterCount:
    """`active_parameters`, which counts hashed experts as all active, and here all but one idle."""
    total, active = moe.active_parameters(model)
    for block in model.blocks:
        if isinstance(block.ffn, HashedMoE):
            active -= sum(p.numel() for p in block.ffn.experts[1:].parameters())
    return ParameterCount(total, active)


# --- the benchmark ------------------------------------------------------------------------------
def run(quick: bool = False) -> dict[str, dict[str, Any]]:
    """Run the benchmark, print its table, and return every figure.

    Args:
        quick: a few seconds, four steps of each, to see that it works; its figures mean nothing.

    Returns:
        For each contender: `curves` (excess for each seed), `steps` (for each seed the share of the
        steps after which it was as good as the dense one at its end; None if never), `ms` (least
        time of a step), `parameters` and `active`. For all but the dense one: `shares` (the last
        block with the first seed: of each district's tokens, which share each expert was sent),
        `information` (of district and expert in the last block by log 8, for each seed; 1 if the
        expert tells the district) and `largest_share` (of all tokens, what the busiest expert of
        any block was sent, for each seed).
    """
    work = QUICK if quick else Work()
    held_out = texts(work.n_held_out, "held out")
    pools = {seed: texts(work.n_pool, "train", seed) for seed in work.seeds}
    print(
        f"{work.n_steps} steps of {BATCH_ROWS} rows, seeds {work.seeds}; the sources pay "
        f"{held_out.nll:.3f} nats a token; torch {torch.__version__}, "
        f"threads: {torch.get_num_threads()}"
    )
    titles = "    parameters  active  excess  steps  district  largest"
    print(titles.rjust(len(titles) + 11))
    figures: dict[str, dict[str, Any]] = {}
    for name, contender in CONTENDERS.items():
        runs = [
            trained(contender, seed, work, pools[seed], held_out, f"{name}, seed {seed}")
            for seed in work.seeds
        ]
        dense = figures["dense"]["curves"] if figures else [each.curve for each in runs]
        figures[name] = figures_of(runs, [curve[-1] for curve in dense], held_out)
        print(line(name, figures[name]), flush=True)
    for name, ms in least_ms(pools[work.seeds[0]], work.n_rounds).items():
        figures[name]["ms"] = ms
        print(f"{name:<14}{ms:7.1f} ms a step, {ms / figures['dense']['ms']:.2f} of dense")
    return figures


def figures_of(runs: Sequence[Run], goals: Sequence[float], held_out: Texts) -> dict[str, Any]:
    """The figures of a contender, as `run` returns them, but for `ms`.

    Args:
        runs: one a seed.
        goals: where the dense one ended, with each seed.
        held_out: rows to judge by.
    """
    total, active = parameters(runs[0].model)
    figures: dict[str, Any] = {
        "curves": [each.curve for each in runs],
        "steps": [crossing(each.curve, goal) for each, goal in zip(runs, goals, strict=True)],
        "parameters": total,
        "active": active,
    }
    tables = [sent(each.model, held_out) for each in runs]
    if tables[0]:
        last = tables[0][-1]
        figures["shares"] = (last / last.sum(dim=1, keepdim=True)).tolist()
        figures["information"] = [information(blocks[-1]) for blocks in tables]
        figures["largest_share"] = [
            max((block.sum(dim=0).max() / block.sum()).item() for block in blocks)
            for blocks in tables
        ]
    return figures


def line(name: str, figures: dict[str, Any]) -> str:
    """A contender in the table: means of all seeds."""
    end = fmean(curve[-1] for curve in figures["curves"])
    steps = "never" if None in figures["steps"] else f"{100 * fmean(figures['steps']):.0f} %"
    shown = f"{name:<14}{figures['parameters']:>11,}{figures['active']:>8,}{end:>8.3f}{steps:>7}"
    if "shares" not in figures:
        return shown
    return f"{shown}{fmean(figures['information']):>10.2f}{fmean(figures['largest_share']):>9.2f}"
