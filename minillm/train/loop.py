"""The training loop: one step after the other, and after each a report.

A step looks at `n_batches` batches, adds up their losses and the tokens that counted, and takes one
step along the mean over all those tokens:

    g = Σ ∇ nats(batch) / Σ tokens(batch)         then g is shortened to at most `clip_norm`
    learning rate = the optimizer's own · schedule(step)

Sums, not means of means: batches of different numbers of tokens then count by their tokens, and
four small batches are exactly one large one (梯度累积, gradient accumulation).

`train` is a generator. It hands out a `Report` a step and goes on when asked for the next; showing,
logging, saving and stopping are its caller's. All that changes is in the `TrainState`, and
`batch_at(step)` and the schedule are functions of the step alone. So a state that was saved and
loaded goes on as if nothing had happened, to the last bit.

**What is not finite is skipped.** A loss or gradient that is infinite or NaN would turn every
weight into NaN in one step. Such a step changes nothing, says so in its report, and is passed for
good; after `most_skipped` of them in a row more is wrong than a batch, and training stops.

Paper: Pascanu, Mikolov and Bengio 2013, arXiv:1211.5063, algorithm 1 (clipping).
Differs: none. (torch's `clip_grad_norm_` adds 1e-6 to the length; this does not.)

Chapter: 05
"""

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import TypeVar, final

import torch
from torch import Tensor, nn

from minillm.train.losses import Total
from minillm.train.schedule import Constant, Schedule

Batch = TypeVar("Batch")


@final
@dataclass(frozen=True, kw_only=True)
class LoopConfig:
    """How a run is stepped through.

    Args:
        n_steps: where it ends, counted from the very first step.
        schedule: of the learning rate.
        n_batches: how many batches make a step.
        clip_norm: the greatest length of the gradient of all weights together; None for any.
        evaluate_every: after every so many steps, and at the end; 0 for never.
        most_skipped: how many steps in a row may be skipped.

    Raises:
        ValueError: a count below 1, a clip_norm that is not above 0.
    """

    n_steps: int
    schedule: Schedule = field(default_factory=Constant)
    n_batches: int = 1
    clip_norm: float | None = 1.0
    evaluate_every: int = 0
    most_skipped: int = 5

    def __post_init__(self):
        if self.n_steps < 1 or self.n_batches < 1 or self.most_skipped < 1:
            raise ValueError(
                "n_steps, n_batches and most_skipped must be at least 1; got "
                f"{self.n_steps}, {self.n_batches} and {self.most_skipped}"
            )
        if self.clip_norm is not None and not self.clip_norm > 0:
            raise ValueError(f"clip_norm must be above 0, or None; got {self.clip_norm}")
        if self.evaluate_every < 0:
            raise ValueError(f"evaluate_every must be at least 0; got {self.evaluate_every}")


@final
@dataclass
class TrainState:
    """All that training changes.

    Args:
        model: its weights.
        optimizer: what it remembers of them; its learning rates are those at factor 1.
        step: how many steps were taken or skipped.
    """

    model: nn.Module
    optimizer: torch.optim.Optimizer
    step: int = 0

    def __post_init__(self):
        for group in self.optimizer.param_groups:
            group.setdefault("initial_lr", group["lr"])  # torch's own name for it


@final
@dataclass(frozen=True, kw_only=True)
class Report:
    """What one step did.

    Args:
        step: its number, from 0 on.
        loss: nats a token before the step, over all its batches.
        n_tokens: how many counted.
        learning_rate: of the optimizer's first group.
        gradient_norm: the gradient's length before it was clipped.
        skipped: why nothing was changed; None if all was well.
        evaluation: what `evaluate` said after the step; None if it was not asked.
    """

    step: int
    loss: float
    n_tokens: int
    learning_rate: float
    gradient_norm: float
    skipped: str | None = None
    evaluation: float | None = None


def train(
    state: TrainState,
    loss: Callable[[nn.Module, Batch], Total],
    batch_at: Callable[[int], Batch],
    config: LoopConfig,
    evaluate: Callable[[nn.Module], float] | None = None,
) -> Iterator[Report]:
    """Step on from where the state stands, up to `config.n_steps`.

    Args:
        state: changed in place, complete whenever a report is handed out.
        loss: summed nats of a batch, and how many tokens they are of.
        batch_at: the batch of a number, a pure function; step s looks at the batches from
            s · n_batches on.
        config: how.
        evaluate: a number that says how good the model is; lower is better.

    Raises:
        ValueError: batches without a token that counts; too many skipped steps in a row.

    Example:
        >>> line = nn.Linear(1, 1, bias=False)
        >>> _ = nn.init.zeros_(line.weight)
        >>> state = TrainState(line, torch.optim.SGD(line.parameters(), lr=0.5))
        >>> def loss(model, x):  # two "tokens": (model(x) - 3)² each
        ...     return Total(((model(x) - 3) ** 2).sum(), torch.tensor(len(x)))
        >>> batch_at = lambda step: torch.ones(2, 1)
        >>> [report.loss for report in train(state, loss, batch_at, LoopConfig(n_steps=2))]
        [9.0, 6.25]
    """
    n_skipped = 0
    while state.step < config.n_steps:
        factor = config.schedule(state.step)
        for group in state.optimizer.param_groups:
            group["lr"] = group["initial_lr"] * factor
        nats, n_tokens = _gradients(state, loss, batch_at, config.n_batches)
        norm = _average(state.model, n_tokens)
        skipped = _problem(nats, norm)
        if skipped is None:
            _clip(state.model, norm, config.clip_norm)
            state.optimizer.step()
        n_skipped = 0 if skipped is None else n_skipped + 1
        state.optimizer.zero_grad()
        step, state.step = state.step, state.step + 1
        yield Report(
            step=step,
            loss=nats / n_tokens,
            n_tokens=n_tokens,
            learning_rate=state.optimizer.param_groups[0]["lr"],
            gradient_norm=norm,
            skipped=skipped,
            evaluation=_evaluated(state, config, evaluate),
        )
        if n_skipped == config.most_skipped:
            raise ValueError(
                f"{n_skipped} steps in a row were skipped, up to step {step}: {skipped}. The last "
                "good weights are kept. Try a smaller learning rate, or look at these batches"
            )


def _gradients(
    state: TrainState, loss: Callable, batch_at: Callable, n_batches: int
) -> tuple[float, int]:
    """Add up gradients, nats and tokens of a step's batches."""
    nats, n_tokens = 0.0, 0
    for part in range(n_batches):
        total = loss(state.model, batch_at(state.step * n_batches + part))
        total.nats.backward()
        nats += total.nats.item()
        n_tokens += int(total.n_tokens)
    if not n_tokens:
        raise ValueError(
            f"no token counts at step {state.step}, so there is nothing to learn from; look at "
            f"batch_at({state.step * n_batches})"
        )
    return nats, n_tokens


def _average(model: nn.Module, n_tokens: int) -> float:
    """Divide the gradients by the number of tokens; the length of all of them together."""
    gradients = _of(model)
    for gradient in gradients:
        gradient /= n_tokens
    return torch.nn.utils.get_total_norm(gradients).item()


def _clip(model: nn.Module, norm: float, clip_norm: float | None) -> None:
    if clip_norm is not None and norm > clip_norm:
        for gradient in _of(model):
            gradient *= clip_norm / norm


def _of(model: nn.Module) -> list[Tensor]:
    return [p.grad for p in model.parameters() if p.grad is not None]


def _problem(nats: float, norm: float) -> str | None:
    if not math.isfinite(nats):
        return f"the loss is {nats}"
    if not math.isfinite(norm):
        return f"the loss is finite, but its gradient is {norm}"
    return None


def _evaluated(
    state: TrainState, config: LoopConfig, evaluate: Callable[[nn.Module], float] | None
) -> float | None:
    if evaluate is None or not config.evaluate_every:
        return None
    if state.step % config.evaluate_every and state.step < config.n_steps:
        return None
    with torch.no_grad():
        return evaluate(state.model)
