"""Eight dialects at once: the task on which chapter 10 compares dense and sparse models.

Eight districts of the town speak eight dialects (`minillm.town.dialects`), each with a table of its
own for what follows what. A row begins with its district's own token (32 to 39), and 64 symbols (0
to 31) of that district follow. A small model has to learn eight tables, and an FFN of 24 hidden
neurons is narrow for that. The entropy of the dialects is known, so a loss is given as what lies
above the negative log-likelihood that the dialects themselves give the same rows.

A `Contender` is an FFN and how it is trained; `trained` trains it. The same seed reads the same
rows in the same order, whatever the FFN. With `from_dense`, the first half of the steps is dense,
then every expert becomes a copy (`minillm.experts.upcycle`), with a new optimizer, warmed up again,
or with the old one's state. Upcycling needs weights that sum to 1. Where one expert with the
weight p is wanted all the same, the copies' answers are multiplied by E, since p is about 1/E at
first: nearly the dense model, and the router has a gradient.

Chapter: 10
"""

import math
from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import cache
from typing import NamedTuple, final

import numpy as np
import torch
from torch import Tensor

from minillm.experts import moe
from minillm.experts.hash_routing import HashedMoE, HashedMoEConfig
from minillm.experts.upcycle import upcycle, upcycle_state
from minillm.lab.track import track
from minillm.model import transformer
from minillm.model.attention import AttentionConfig, Context
from minillm.model.config import FFNConfig, TransformerConfig
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
RATE, WARMUP_STEPS, BATCH_ROWS = 0.01, 10, 32
DENSE = SwiGLUConfig(d_ff=D_FF)
#: One expert for each district, by a table: the domain is given, nothing is routed.
HASHED = HashedMoEConfig(
    vocab_size=VOCAB_SIZE, n_domains=N_DISTRICTS, experts_per_domain=1, d_expert=D_FF
)


def experts(n_experts: int, *, top_k: int = 1, norm_topk: bool = False) -> moe.MoEConfig:
    """Experts as wide as the dense FFN; one is active, and its weight is p."""
    return moe.MoEConfig(n_experts=n_experts, top_k=top_k, d_expert=D_FF, norm_topk=norm_topk)


# --- the rows -----------------------------------------------------------------------------------
@final
@dataclass(frozen=True, eq=False)
class Rows:
    """Rows, as many of each district.

    Args:
        tokens: [B, 65] the district's token, then 64 symbols.
        districts: [B] whose.
        nll: the negative log-likelihood that the dialects themselves give, nats a symbol.
    """

    tokens: Tensor
    districts: Tensor
    nll: float

    def of(self, district: int, known_as: int | None = None) -> "Rows":
        """The rows of one district; `nll` stays that of all.

        Args:
            district: whose.
            known_as: its number in a model that was cut out for it: 0.
        """
        mine = self.districts == district
        number = district if known_as is None else known_as
        return Rows(self.tokens[mine], torch.full_like(self.districts[mine], number), self.nll)


@cache
def sources() -> tuple[Source, ...]:
    """The eight districts."""
    return dialects(
        n_districts=N_DISTRICTS, order=2, n_symbols=N_SYMBOLS, sharpness=8, n_classes=16
    )


def rows(batch_size: int, *key: int | str) -> Rows:
    """Rows that depend on the key alone, those of the first district first.

    Args:
        batch_size: of all districts together.
        key: what they are for, and a seed.

    Example:
        >>> rows(16, "example").tokens[:, :4].shape, rows(16, "example").districts[:3].tolist()
        (torch.Size([16, 4]), [0, 0, 1])
    """
    n_each = batch_size // N_DISTRICTS
    parts, nll = [], []
    for k, source in enumerate(sources()):
        symbols = source.sample(generator("experts", *key, k), n_each, N_TOKENS).tokens
        parts.append(np.concatenate((np.full((n_each, 1), N_SYMBOLS + k), symbols), axis=1))
        nll.append(-source.log_probs(symbols).mean())
    districts = torch.arange(N_DISTRICTS).repeat_interleave(n_each)
    return Rows(torch.from_numpy(np.concatenate(parts)), districts, float(np.mean(nll)))


# --- one run ------------------------------------------------------------------------------------
@final
@dataclass(frozen=True, kw_only=True)
class Contender:
    """An FFN, and how it is trained.

    Args:
        ffn: of both blocks.
        rate: AdamW's learning rate, constant after 10 steps of warm-up.
        balance_weight, z: weights of the auxiliary losses, where it routes.
        bias_rate: of `balance_by_bias`; 0 for none.
        from_dense: dense for the first half, then upcycled to `ffn`.
        keep_state: whether the optimizer's state is taken over then.
    """

    ffn: FFNConfig
    rate: float = RATE
    balance_weight: float = 0.01
    z: float = 0.001
    bias_rate: float = 0.0
    from_dense: bool = False
    keep_state: bool = False


class Run(NamedTuple):
    """A trained model.

    Args:
        model: at its end.
        curve: loss above the entropy on held-out rows, after each `every` steps.
    """

    model: Transformer
    curve: list[float]


def trained(
    contender: Contender,
    pool: Rows,
    *,
    n_steps: int,
    seed: int = 0,
    held_out: Rows | None = None,
    every: int = 20,
    label: str = "training",
) -> Run:
    """Train once, 32 rows of the pool a step.

    Args:
        contender: what and how.
        pool: what is read.
        n_steps: of both halves together.
        seed: of first weights and of the order of rows.
        held_out: what the curve is measured on; None for no curve.
        every: so many steps lie between two measurements.
        label: of the bar.
    """
    model = built(DENSE if contender.from_dense else contender.ffn, seed)
    optimizer, warmup_steps = _adamw(model, contender), WARMUP_STEPS
    order = np.random.default_rng(seed).integers(len(pool.tokens), size=(n_steps, BATCH_ROWS))
    curve, n_taken = [], 0
    halves = torch.from_numpy(order).tensor_split(2 if contender.from_dense else 1)
    for number, half in enumerate(halves):
        if number:
            dense, old = model, optimizer
            model = grown(dense, contender.ffn, seed)
            optimizer = _adamw(model, contender)
            if contender.keep_state:
                upcycle_state(old, dense, optimizer, model)
                warmup_steps = 0
        run = steps(model, optimizer, contender, pool, half, warmup_steps)
        for _ in track(run, label, total=len(half)):
            n_taken += 1
            if held_out is not None and n_taken % every == 0:
                curve.append(above_entropy(model, held_out))
    return Run(model, curve)


def steps(
    model: Transformer,
    optimizer: torch.optim.Optimizer,
    contender: Contender,
    pool: Rows,
    order: Tensor,
    warmup_steps: int = WARMUP_STEPS,
) -> Iterator[Metrics]:
    """Train step by step.

    Args:
        model, optimizer: changed in place.
        contender: how it is trained.
        pool: what is read.
        order: [steps, B] which rows of it at each step.
        warmup_steps: of the learning rate.
    """
    routings: list[Routing | None] = []

    def loss(model: Transformer, rows: Tensor) -> Total:
        total, routings[:] = loss_of(model, pool.tokens[rows], pool.districts[rows], contender)
        return total

    schedule = Constant(warmup_steps=warmup_steps)
    config = LoopConfig(n_steps=len(order), schedule=schedule, clip_norm=None)
    for metrics in train(TrainState(model, optimizer), loss, order.__getitem__, config):
        if contender.bias_rate:
            moe.balance_by_bias(model, routings, contender.bias_rate)
        yield metrics


def _adamw(model: Transformer, contender: Contender) -> torch.optim.Optimizer:
    # one call for all experts (fused), so that their number costs little time
    return torch.optim.AdamW(model.parameters(), lr=contender.rate, weight_decay=0.0, fused=True)


def built(ffn: FFNConfig, seed: int) -> Transformer:
    """The small model: two blocks, d_model 48, with that FFN in both."""
    return TransformerConfig(
        vocab_size=VOCAB_SIZE,
        d_model=48,
        n_layers=2,
        context_length=N_TOKENS,
        mixer=AttentionConfig(n_heads=3),
        ffn=ffn,
        initial_std=0.1,
    ).build(seed=seed)


@torch.no_grad()
def grown(dense: Transformer, ffn: moe.MoEConfig, seed: int) -> Transformer:
    """The dense model upcycled; with `norm_topk=False` the copies' answers count E-fold."""
    model = upcycle(dense, replace(ffn, norm_topk=True), seed=seed)
    if not ffn.norm_topk:
        for block in model.blocks:
            block.ffn.norm_topk = False
            for expert in block.ffn.experts:
                expert.down.weight.mul_(ffn.n_experts)
    return model


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


# --- what came out ------------------------------------------------------------------------------
@torch.no_grad()
def above_entropy(model: Transformer, held_out: Rows) -> float:
    """Nats a symbol above the negative log-likelihood of the dialects themselves."""
    context = Context(domains=held_out.districts)  # which hashed experts read, and no others
    return transformer.loss(model, held_out.tokens, context=context).mean.item() - held_out.nll


@torch.no_grad()
def sent(model: Transformer, held_out: Rows) -> list[Tensor]:
    """For each block how many tokens of each district were routed to each expert.

    A token that is routed to k experts counts k times.

    Returns:
        Of each block [districts, experts]; no tables if nothing routes.
    """
    read = held_out.tokens[:, :-1]
    districts = held_out.districts.repeat_interleave(read.shape[1])
    if isinstance(model.blocks[0].ffn, HashedMoE):
        chosen = [
            (districts, block.ffn.experts_of(read, held_out.districts).flatten())
            for block in model.blocks
        ]
    elif isinstance(model.blocks[0].ffn, moe.MoE):
        routings = moe.routed(model, read).routings
        chosen = [(districts[routing.tokens], routing.experts) for routing in routings]
    else:
        return []
    tables = []
    for block, (whose, whom) in zip(model.blocks, chosen, strict=True):
        n_experts = len(block.ffn.experts)
        counts = torch.bincount(whose * n_experts + whom, minlength=N_DISTRICTS * n_experts)
        tables.append(counts.view(N_DISTRICTS, n_experts))
    return tables


def information(counts: Tensor) -> float:
    """Mutual information of row and column, divided by the logarithm of the number of rows.

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
