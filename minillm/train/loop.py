"""The training loop: one step after the other, and after each a report.

A step looks at `accumulation_steps` batches and goes along the mean gradient of all their tokens
(`minillm.optim.step`), at

    learning rate = the optimizer's own · schedule(step)

`train` is a generator. It hands out a `Metrics` a step and goes on when asked for the next;
showing, logging, saving and stopping are its caller's. All that changes is in the `TrainState`, and
`batch_at(step)` and the schedule are functions of the step alone. So a state that was saved and
loaded goes on as if nothing had happened, to the last bit. So does one that was left by Ctrl-C,
which is answered when the step is complete (`minillm.train.stop`).

A step whose loss or gradient is not finite is skipped, says so in its report, and is passed for
good; after `most_skipped` of them in a row more is wrong than a batch, and training stops.

Chapter: 05
"""

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import TypeVar, final

import torch
from torch import nn

from minillm.optim.schedule import Constant, Schedule
from minillm.optim.step import Reduction, Total, take_step
from minillm.train.stop import Stop

Batch = TypeVar("Batch")


@final
@dataclass(frozen=True, kw_only=True)
class LoopConfig:
    """How a run is stepped through.

    Args:
        n_steps: where it ends, counted from the very first step.
        schedule: of the learning rate.
        accumulation_steps: how many batches make a step.
        clip_norm: the greatest length of the gradient of all weights together; None for any.
        evaluate_every: after every so many steps, and at the end; 0 for never.
        most_skipped: how many steps in a row may be skipped.

    Raises:
        ValueError: a count below 1, a clip_norm that is not above 0.
    """

    n_steps: int
    schedule: Schedule = field(default_factory=Constant)
    accumulation_steps: int = 1
    clip_norm: float | None = 1.0
    evaluate_every: int = 0
    most_skipped: int = 5

    def __post_init__(self):
        if self.n_steps < 1 or self.accumulation_steps < 1 or self.most_skipped < 1:
            raise ValueError(
                "n_steps, accumulation_steps and most_skipped must be at least 1; got "
                f"{self.n_steps}, {self.accumulation_steps} and {self.most_skipped}"
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
        reduction: how sums are taken where several processes make each step; None for one alone.
    """

    model: nn.Module
    optimizer: torch.optim.Optimizer
    step: int = 0
    reduction: Reduction | None = None

    def __post_init__(self):
        for group in self.optimizer.param_groups:
            group.setdefault("initial_lr", group["lr"])  # torch's own name for it


@final
@dataclass(frozen=True, kw_only=True)
class Metrics:
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
) -> Iterator[Metrics]:
    """Step on from where the state stands, up to `config.n_steps`.

    Args:
        state: changed in place, complete whenever a report is handed out.
        loss: summed nats of a batch, and how many tokens they are of.
        batch_at: the batch of a number, a pure function; step s looks at the batches from
            s · accumulation_steps on.
        config: how.
        evaluate: a number that says how good the model is; lower is better.

    Raises:
        ValueError: batches without a token that counts; too many skipped steps in a row; an
            evaluation that is not finite.

    Example:
        >>> line = nn.Linear(1, 1, bias=False)
        >>> _ = nn.init.zeros_(line.weight)
        >>> state = TrainState(line, torch.optim.SGD(line.parameters(), lr=0.5))
        >>> def loss(model, x):  # two "tokens": (model(x) - 3)² each
        ...     return Total(((model(x) - 3) ** 2).sum(), torch.tensor(len(x)))
        >>> batch_at = lambda step: torch.ones(2, 1)
        >>> [metrics.loss for metrics in train(state, loss, batch_at, LoopConfig(n_steps=2))]
        [9.0, 6.25]
    """
    n_skipped = 0
    while state.step < config.n_steps:
        factor = config.schedule(state.step)
        for group in state.optimizer.param_groups:
            group["lr"] = group["initial_lr"] * factor
        first = state.step * config.accumulation_steps
        totals = (loss(state.model, batch_at(first + n)) for n in range(config.accumulation_steps))
        with Stop() as stop:  # Ctrl-C waits until the state is of one step again
            taken = take_step(
                state.model,
                state.optimizer,
                totals,
                clip_norm=config.clip_norm,
                reduction=state.reduction,
            )
            if not taken.n_tokens:
                raise ValueError(
                    f"no token counts at step {state.step}, so there is nothing to learn from; "
                    f"look at batch_at({first})"
                )
            step, state.step = state.step, state.step + 1
        stop.honour()
        n_skipped = 0 if taken.skipped is None else n_skipped + 1
        yield Metrics(
            step=step,
            learning_rate=state.optimizer.param_groups[0]["lr"],
            evaluation=_evaluated(state, config, evaluate),
            **taken._asdict(),
        )
        if n_skipped == config.most_skipped:
            raise ValueError(
                f"{n_skipped} steps in a row were skipped, up to step {step}: {taken.skipped}. The "
                "last good weights are kept. Try a smaller learning rate, or look at these batches"
            )


def _evaluated(
    state: TrainState, config: LoopConfig, evaluate: Callable[[nn.Module], float] | None
) -> float | None:
    if evaluate is None or not config.evaluate_every:
        return None
    if state.step % config.evaluate_every and state.step < config.n_steps:
        return None
    with torch.no_grad():
        value = evaluate(state.model)
    if not math.isfinite(value):
        raise ValueError(
            f"the evaluation after step {state.step - 1} is {value}, and must be a finite number: "
            "some logits of the model are infinite or NaN. Go on from an earlier checkpoint with a "
            "smaller learning rate, or look at what is evaluated"
        )
    return value
