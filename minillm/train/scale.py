"""One source, models of many sizes: the runs that chapter 12 fits its laws to.

    run = trained(d_model=16, n_tokens=200_000, rate=0.01, batch_size=16)
    run["loss"] - run["floor"]                          nats a token above the source itself

The source is a district's dialect of order 2 over 128 symbols. Its entropy is known, so the floor
of every loss is known; and its symbols follow Zipf's law, so there is always something rarer left
to learn. Each batch is fresh: no run sees a row twice.

All models are the transformer of chapter 04 with two blocks, if nothing else is said; their width
decides their size.

Paper: Hoffmann et al. 2022, arXiv:2203.15556, section 3.2 (runs of equal compute); Porian et al.
2024, arXiv:2406.19146 (rate and batch size are searched for each size, the warm-up is short);
Pearce and Song 2024, arXiv:2406.12907 (which parameters are counted).
Differs: a rate goes down a cosine to 0, in place of a tenth of its peak.

Chapter: 12
"""

import math
from dataclasses import replace
from functools import cache, lru_cache
from typing import Any, NamedTuple

import numpy as np
import torch

from minillm.model import transformer
from minillm.model.attention import AttentionConfig
from minillm.model.config import TransformerConfig
from minillm.model.count import training_flops
from minillm.model.transformer import Transformer
from minillm.optim.build import build
from minillm.town.chance import BLOCK_ROWS
from minillm.town.dialects import Markov, dialects
from minillm.train.compare import Task, attempt

VOCAB_SIZE = 128
CONTEXT_LENGTH = 64
D_HEAD = 16
N_HELD_OUT = 16  # blocks of 64 rows
EVERY, HALF = 4, CONTEXT_LENGTH // 2  # of rows that repeat: every fourth row says its half twice


@cache
def source() -> Markov:
    """The dialect that all runs learn.

    Example:
        >>> round(source().entropy_rate().nats, 3)  # nats a token: no model's loss can be lower
        2.678
    """
    [dialect] = dialects(n_districts=1, n_symbols=VOCAB_SIZE, order=2, n_classes=8)
    return dialect


def shape(d_model: int, n_layers: int = 2) -> TransformerConfig:
    """The model of one size; a head for every 16 of its width, and at least one.

    Raises:
        ValueError: a width that the heads do not divide.
    """
    return TransformerConfig(
        vocab_size=VOCAB_SIZE,
        context_length=CONTEXT_LENGTH,
        d_model=d_model,
        n_layers=n_layers,
        mixer=AttentionConfig(n_heads=max(1, d_model // D_HEAD)),
        initial_std=0.1,
    )


class Counts(NamedTuple):
    """Three ways to count the parameters of one model.

    Args:
        everything: all of them.
        with_head: without the table that reads tokens, which multiplies nothing.
        blocks: also without the table that predicts them.
    """

    everything: int
    with_head: int
    blocks: int


@cache
def counts(config: TransformerConfig) -> Counts:
    """The parameters of a model, counted in three ways.

    Example:
        >>> counts(shape(16))
        Counts(everything=10832, with_head=8784, blocks=6736)

    Paper: Kaplan et al. 2020, arXiv:2001.08361, section 2.1 (without embeddings); Hoffmann et al.
    2022, appendix F (with them).
    """
    model = config.build(device="meta")
    everything = sum(parameter.numel() for parameter in model.parameters())
    table = config.vocab_size * config.d_model
    return Counts(everything, everything - table, everything - 2 * table)


def tokens_for(flops: float, n_parameters: int, batch_size: int) -> int:
    """So many tokens that 6 · N · D comes as near to the operations as whole batches can.

    Args:
        flops: C.
        n_parameters: N.
        batch_size: rows of 64 tokens.

    Raises:
        ValueError: the operations are too few for one batch.

    Example:
        >>> tokens_for(1e10, n_parameters=10_832, batch_size=16)
        153600
    """
    a_step = batch_size * CONTEXT_LENGTH
    flops_a_step = training_flops(n_parameters=n_parameters, n_tokens=a_step)
    if flops < flops_a_step:
        raise ValueError(
            f"{flops:g} operations are too few for {n_parameters:,} parameters: one batch of "
            f"{a_step} tokens takes {flops_a_step:g}"
        )
    return round(flops / flops_a_step) * a_step


def task(config: TransformerConfig, batch_size: int, *, repeats: bool = False) -> Task:
    """A model of this shape, fresh rows of the source, and the held-out rows of all runs.

    Args:
        config: of the model.
        batch_size: rows of a step.
        repeats: whether every fourth row says its first half twice; then the floor is unknown.

    Raises:
        ValueError: a batch size that does not divide 64.
    """
    if batch_size < 1 or BLOCK_ROWS % batch_size:
        raise ValueError(f"batch_size must divide {BLOCK_ROWS}; got {batch_size}")
    a_block = BLOCK_ROWS // batch_size

    def batch_at(step: int, seed: int) -> torch.Tensor:
        index, part = divmod(step, a_block)
        return _rows(index, f"train {seed}", repeats)[part * batch_size :][:batch_size]

    held_out = [_rows(index, "held out", repeats) for index in range(N_HELD_OUT)]
    return Task(
        model=lambda seed: config.build(seed=seed),
        batch_at=batch_at,
        loss=transformer.loss,
        held_out=held_out,
        floor=0.0 if repeats else _floor(),
    )


@lru_cache(maxsize=2 * N_HELD_OUT)
def _rows(index: int, seed: str, repeats: bool = False) -> torch.Tensor:
    rows = torch.from_numpy(source().block(index, seed, CONTEXT_LENGTH).tokens)
    if repeats:
        rows[::EVERY, HALF:] = rows[::EVERY, :HALF]
    return rows


@cache
def _floor() -> float:
    """The source's own loss on the held-out rows, of the tokens that a model predicts."""
    rows = (_rows(index, "held out").numpy() for index in range(N_HELD_OUT))
    return -float(np.mean([source().log_probs(each)[:, 1:] for each in rows]))


def trained(
    d_model: int,
    n_tokens: int,
    rate: float,
    batch_size: int,
    *,
    n_layers: int = 2,
    seed: int = 0,
    repeats: bool = False,
) -> dict[str, Any]:
    """Train a model once, and say what it came to.

    Args:
        d_model: its width.
        n_tokens: D, whole batches.
        rate: AdamW's highest; β₂ is 0.99, and no weight decays.
        batch_size: rows of 64 tokens, a divisor of 64.
        n_layers: blocks.
        seed: of first weights and rows.
        repeats: whether every fourth row says its first half twice.

    Returns:
        `loss`, held out, nats a token (None if the run broke); `floor`, the source's own on the
        same rows (0 if rows repeat: nobody knows); `n_parameters`, all; `n_tokens`; `flops`,
        6 · N · D. If rows repeat, also `copied`, the share of second halves that it says rightly.

    Raises:
        ValueError: tokens that are not whole batches.

    Example:
        >>> run = trained(8, n_tokens=2048, rate=0.01, batch_size=16)
        >>> run["n_parameters"], run["flops"], run["floor"] < run["loss"] < 5
        (3752, 46104576, True)
    """
    n_steps, rest = divmod(n_tokens, batch_size * CONTEXT_LENGTH)
    if rest or n_steps < 1:
        raise ValueError(
            f"n_tokens must be whole batches of {batch_size} × {CONTEXT_LENGTH}; got {n_tokens}"
        )
    config = shape(d_model, n_layers)
    model = config.build(seed=seed)
    what = replace(task(config, batch_size, repeats=repeats), model=lambda seed: model)
    run = attempt(
        what,
        lambda model: build(model, "AdamW", rate, weight_decay=0.0),
        n_steps=n_steps,
        seed=seed,
        label=f"width {d_model}, {n_tokens:,} tokens",
    )
    n_parameters = counts(config).everything
    return {
        "loss": run.loss if math.isfinite(run.loss) else None,
        "floor": what.floor,
        "n_parameters": n_parameters,
        "n_tokens": n_tokens,
        "flops": training_flops(n_parameters=n_parameters, n_tokens=n_tokens),
        **({"copied": _copied(model, what.held_out)} if repeats else {}),
    }


@torch.no_grad()
def _copied(model: Transformer, blocks: list[torch.Tensor]) -> float:
    """The share of tokens in second halves, from their second on, that the model finds likeliest.

    The first of a second half could not be known: it is where the repetition begins.
    """
    rows = torch.cat([block[::EVERY] for block in blocks])
    guesses = model(rows[:, :-1]).argmax(-1)[:, HALF:]
    return (guesses == rows[:, HALF + 1 :]).float().mean().item()
