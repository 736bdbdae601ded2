"""One step of training, the same for every model, loss and optimizer of this course.

    g = Σ ∇ nats(batch) / Σ tokens(batch)         then g is shortened to at most `clip_norm`
    θ ← θ - the optimizer's update for g

A loss is a `Total`: a sum, and of how many tokens. Sums add up and means do not: batches of
different numbers of tokens count by their tokens, and four small batches are exactly one large one
(梯度累积, gradient accumulation).

**Several processes** may each look at a part of a step's batches. Then sums run over all of them,
and a process may change only its part of the weights: that is what a `Reduction` is for.

**What is not finite is skipped.** A loss or gradient that is infinite or NaN would turn every
weight into NaN in one step. Such a step changes nothing, and says why.

Paper: Pascanu, Mikolov and Bengio 2013, arXiv:1211.5063, algorithm 1 (clipping).
Differs: none. (torch's `clip_grad_norm_` adds 1e-6 to the norm; this does not.)

Chapter: 02
"""

import math
from collections.abc import Iterable
from typing import NamedTuple, Protocol, final

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn


class Total(NamedTuple):
    """A loss: a sum over tokens, and how many they are.

    Args:
        nats: -log p of all tokens that count, and what else is to become small; differentiable.
        n_tokens: how many count.

    Example:
        >>> first = Total(torch.tensor(6.0), 2)
        >>> both = first + Total(torch.tensor(1.0), 5)
        >>> both.mean  # a token's loss, not the mean of 3 and 0.2
        tensor(1.)
    """

    nats: Float[Tensor, ""]
    n_tokens: Int[Tensor, ""] | int

    def __add__(self, other: "Total") -> "Total":  # type: ignore[override]  # a tuple's would join
        return Total(self.nats + other.nats, self.n_tokens + other.n_tokens)

    @property
    def mean(self) -> Float[Tensor, ""]:
        """Nats a token."""
        return self.nats / self.n_tokens


class StepMetrics(NamedTuple):
    """What a step found and did.

    Args:
        loss: nats a token before the step, over all its batches.
        n_tokens: how many counted.
        gradient_norm: the length of g, all weights together, before it was clipped.
        skipped: why nothing was changed; None if all was well.
    """

    loss: float
    n_tokens: int
    gradient_norm: float
    skipped: str | None


class Reduction(Protocol):
    """How sums are taken where several processes make a step together (chapters 15 and 16)."""

    def gradients(self, model: nn.Module) -> list[Tensor]:
        """The gradients of what the optimizer changes here, summed over all processes."""

    def total(self, values: Float[Tensor, "n"]) -> Float[Tensor, "n"]:
        """Numbers that each process counted for itself, summed over all."""

    def norm(self, gradients: list[Tensor]) -> float:
        """The length of the gradient of all weights of the model, wherever they are."""

    def clear(self) -> None:
        """The step is over: weights are what the update made of them, gradients are forgotten."""


@final
class Alone:
    """The `Reduction` of a single process, which has everything."""

    def gradients(self, model: nn.Module) -> list[Tensor]:
        """All gradients, as they are."""
        return [p.grad for p in model.parameters() if p.grad is not None]

    def total(self, values: Float[Tensor, "n"]) -> Float[Tensor, "n"]:
        """The numbers, as they are."""
        return values

    def norm(self, gradients: list[Tensor]) -> float:
        """√ of the sum of all squares."""
        return torch.nn.utils.get_total_norm(gradients).item()

    def clear(self) -> None:
        """Nothing is left over."""


def take_step(
    model: nn.Module,
    optimizer: torch.optim.Optimizer,
    totals: Iterable[Total],
    *,
    clip_norm: float | None = None,
    reduction: Reduction | None = None,
) -> StepMetrics:
    """Change the model's weights once, along the mean gradient of all tokens.

    Args:
        model: whose gradients are taken; afterwards they are cleared.
        optimizer: of its parameters, with the learning rate of this step.
        totals: the loss of each batch. A generator makes one after the other, so that only one
            batch's activations are alive at a time.
        clip_norm: the greatest length of the gradient of all weights together; None for any.
        reduction: where other processes look at other batches of this step; None for `Alone`.

    Raises:
        ValueError: a loss that is no Total of a single number.

    Example:
        >>> line = nn.Linear(1, 1, bias=False)
        >>> _ = nn.init.zeros_(line.weight)
        >>> x = torch.ones(2, 1)  # two "tokens", each with the loss (weight - 3)²
        >>> total = Total(((line(x) - 3) ** 2).sum(), 2)
        >>> take_step(line, torch.optim.SGD(line.parameters(), lr=0.5), [total])
        StepMetrics(loss=9.0, n_tokens=2, gradient_norm=6.0, skipped=None)
        >>> line.weight.item()  # 0 - 0.5 · (-6)
        3.0
    """
    # 1. add up the gradients of all batches, and count their tokens
    reduction = Alone() if reduction is None else reduction
    model.zero_grad()
    nats, n_tokens = 0.0, 0
    for total in totals:
        _check(total)
        total.nats.backward()
        nats += total.nats.item()
        n_tokens += int(total.n_tokens)
    # 2. divide by all tokens, and measure the gradient's length
    gradients = reduction.gradients(model)
    nats, n_tokens = reduction.total(torch.tensor([nats, n_tokens], dtype=torch.float64)).tolist()
    n_tokens = int(n_tokens)
    for gradient in gradients:
        gradient /= max(1, n_tokens)
    norm = reduction.norm(gradients)
    skipped = _problem(nats, n_tokens, norm)
    if skipped is None:
        # 3. shorten a gradient that is too long
        if clip_norm is not None and norm > clip_norm:
            for gradient in gradients:
                gradient *= clip_norm / norm
        # 4. change the weights
        optimizer.step()
    model.zero_grad()
    reduction.clear()
    return StepMetrics(nats / n_tokens if n_tokens else math.nan, n_tokens, norm, skipped)


def _problem(nats: float, n_tokens: int, norm: float) -> str | None:
    if not n_tokens:
        return "no token counts"
    if not math.isfinite(nats):
        return f"the loss is {nats}"
    if not math.isfinite(norm):
        return f"the loss is finite, but its gradient is {norm}"
    return None


def _check(total: Total) -> None:
    if isinstance(total, Total) and not total.nats.ndim:
        return
    value = total.nats if isinstance(total, Total) else total
    shape = f" of the shape {list(value.shape)}" if isinstance(value, Tensor) else ""
    raise ValueError(
        "a loss must return a Total (minillm.optim.step): the sum over all tokens, a single "
        f"number, and how many tokens they are; got {type(value).__name__}{shape} in place of "
        f"{'the sum' if isinstance(total, Total) else 'a Total'}. If `losses` has one number a "
        "token, it is Total(losses.sum(), losses.numel())"
    )
