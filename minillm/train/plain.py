"""The plain training loop: draw a batch, measure the loss, take a step, again.

    θ ← θ - learning rate · AdamW(∇ loss(θ, batch))         for step 0, 1, …, n_steps - 1

The loop knows nothing of what it trains. `loss(model, batch)` says what is to become small and
`batch_at(step)` what to look at, so n-gram networks, transformers and straight lines all fit in.
`batch_at` is a pure function: the same step always gives the same batch, whoever asks. So a run is
repeated by its arguments, and nothing has to be remembered about where the data stood.

Nothing is logged, plotted or saved here: the losses come back, and the rest is the caller's.

Paper: Loshchilov and Hutter 2019, "Decoupled Weight Decay Regularization", arXiv:1711.05101,
algorithm 2 (AdamW), as `torch.optim.AdamW` has it.
Differs: the learning rate falls in a straight line to zero, in place of the paper's cosine.

Chapter: 02
"""

import math
from collections.abc import Callable
from typing import Any, Protocol, TypeVar

import numpy as np
import torch
from torch import Tensor, nn

from minillm.lab.track import track
from minillm.optim.step import Total, take_step

Batch = TypeVar("Batch")
Model = TypeVar("Model", bound=nn.Module)


def adamw(model: nn.Module, learning_rate: float) -> torch.optim.Optimizer:
    """torch's AdamW of all parameters, without weight decay."""
    return torch.optim.AdamW(model.parameters(), lr=learning_rate, weight_decay=0.0)


def fit(
    model: Model,
    loss: Callable[[Model, Batch], Total],
    batch_at: Callable[[int], Batch],
    n_steps: int,
    learning_rate: float,
    *,
    make_optimizer: Callable[[Model, float], torch.optim.Optimizer] = adamw,
    watch: Callable[[Model], object] | None = None,
    seed: int = 0,
    label: str = "training",
) -> list[float]:
    """Train a model in place.

    Args:
        model: any module with parameters; whether it is in train or eval mode is the caller's say.
        loss: of the model on one batch, its sum over tokens and how many they are.
        batch_at: the batch of a step, a pure function of the step.
        n_steps: how many steps.
        learning_rate: of the first step; it falls in a straight line and would be zero at n_steps.
        make_optimizer: (model, learning_rate) to optimizer. Where its groups have rates of their
            own, each falls in a straight line from there.
        watch: is given the model before each step, for instance to measure it on held-out rows.
        seed: of what the model draws while it trains (dropout); torch's own state is put back.
        label: what the bar says.

    Returns:
        The loss of each step in nats a token, before that step.

    Raises:
        ValueError: n_steps or the learning rate too small; a loss that is no Total; a loss or
            gradient that became infinite or NaN.

    Example:
        >>> line = nn.Linear(1, 1, bias=False)
        >>> x = torch.tensor([[0.0], [1.0], [2.0]])
        >>> def loss(model, x):
        ...     return Total(((model(x) - 3 * x) ** 2).sum(), len(x))
        >>> losses = fit(line, loss, lambda step: x, 300, 0.1)
        >>> round(line.weight.item(), 2)
        3.0
    """
    if n_steps < 1 or not 0 < learning_rate < math.inf:
        raise ValueError(
            "fit needs n_steps of at least 1 and a finite learning_rate above 0; got "
            f"n_steps={n_steps}, learning_rate={learning_rate}"
        )
    optimizer, losses = make_optimizer(model, learning_rate), []
    rates = [group["lr"] for group in optimizer.param_groups]
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        for step in track(range(n_steps), label):
            for group, rate in zip(optimizer.param_groups, rates, strict=True):
                group["lr"] = rate * (1 - step / n_steps)
            if watch is not None:
                watch(model)
            taken = take_step(model, optimizer, [loss(model, batch_at(step))])
            if taken.skipped:
                raise ValueError(
                    f"{taken.skipped} at step {step}: look at its batch, for a logarithm of 0 or a "
                    f"division by 0, or try a learning_rate below {learning_rate}"
                )
            losses.append(taken.loss)
    return losses


def draw_rows(rows: np.ndarray, batch_size: int, seed: int = 0) -> Callable[[int], Tensor]:
    """`batch_at` for a fixed set of rows: each step draws `batch_size` of them, with replacement.

    Args:
        rows: [rows, T] token ids.
        batch_size: B, how many a batch has.
        seed: of the draws; step and seed alone decide.

    Raises:
        ValueError: rows are not [rows, T] or there is none; batch_size below 1.

    Example:
        >>> batch_at = draw_rows(np.arange(6).reshape(3, 2), batch_size=2)
        >>> batch_at(7).shape, torch.equal(batch_at(7), batch_at(7))
        (torch.Size([2, 2]), True)
    """
    rows = np.asarray(rows)
    if rows.ndim != 2 or not rows.size or batch_size < 1:
        raise ValueError(
            "draw_rows needs an array [rows, T] with at least one token and batch_size of at "
            f"least 1; got the shape {list(rows.shape)} and batch_size={batch_size}"
        )

    def batch_at(step: int) -> Tensor:
        chosen = np.random.default_rng([seed, step]).integers(len(rows), size=batch_size)
        return torch.from_numpy(rows[chosen])

    return batch_at


class Source(Protocol):
    """What draws blocks of independent rows, such as a dialect of the town."""

    def block(self, index: int, seed: int | str, n_tokens: int) -> Any:
        """The rows of a block, as `.tokens` [rows, n_tokens]."""


def token_rows(source: Source, n_tokens: int, seed: int | str, row_length: int = 64) -> np.ndarray:
    """So many tokens of a source, in independent rows of one length: [n_tokens / T, T].

    Args:
        source: what draws them.
        n_tokens: a multiple of row_length.
        seed: other seeds, other rows.
        row_length: T.

    Raises:
        ValueError: n_tokens is not a positive multiple of row_length.

    Example:
        >>> from minillm.town.dialects import Markov
        >>> coin = Markov([0.5, 0.5], [[0.5, 0.5], [0.5, 0.5]])
        >>> token_rows(coin, 6400, seed="train").shape
        (100, 64)
    """
    if row_length < 1 or n_tokens < 1 or n_tokens % row_length:
        raise ValueError(
            f"n_tokens must be a multiple of row_length, at least one row; got {n_tokens} tokens "
            f"in rows of {row_length}"
        )
    blocks = [source.block(0, seed, row_length).tokens]
    while sum(map(len, blocks)) * row_length < n_tokens:
        blocks.append(source.block(len(blocks), seed, row_length).tokens)
    return np.concatenate(blocks)[: n_tokens // row_length]
