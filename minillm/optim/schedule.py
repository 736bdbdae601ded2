"""The learning rate over time: what share of its peak each step takes.

A schedule is a pure function of the step, so a run that was interrupted goes on with no more than
its step number. Three parts occur:

- Warm-up (学习率预热): the first steps climb in a straight line. Adam's averages know little yet,
  so its early steps are as large as they are ill-founded.
- Decay: large steps travel, small steps settle. Near the end the noise of the batches, times the
  learning rate, is what keeps the loss up.
- In between a plateau, or none: `Cosine` falls all the way and so must know the end beforehand.
  `WarmupStableDecay` falls only at the end; its plateau is the same however long it will have been,
  so one run can be prolonged, or tried at several lengths.

Chapter: 05
"""

import math
from dataclasses import dataclass
from typing import Protocol, final


class Schedule(Protocol):
    """Anything that gives a step its factor."""

    def __call__(self, step: int) -> float:
        """Multiplies the peak learning rate at that step, the first being 0."""
        ...


@final
@dataclass(frozen=True, kw_only=True)
class Constant:
    """The peak at every step after the warm-up.

    Args:
        warmup_steps: the first gets 1/warmup_steps, the last 1.

    Raises:
        ValueError: warmup_steps below 0; when called, a step below 0.

    Example:
        >>> factor = Constant(warmup_steps=4)
        >>> [factor(step) for step in range(6)]
        [0.25, 0.5, 0.75, 1.0, 1.0, 1.0]

    Paper: Goyal et al. 2017, arXiv:1706.02677, section 2.2, gradual warm-up.
    Differs: it starts at 1/warmup_steps of the peak, theirs at the rate of a single worker.
    """

    warmup_steps: int = 0

    def __post_init__(self) -> None:
        if self.warmup_steps < 0:
            raise ValueError(f"warmup_steps must be at least 0; got {self.warmup_steps}")

    def __call__(self, step: int) -> float:
        """The step's share of the peak."""
        return _warmup(step, self.warmup_steps)


@final
@dataclass(frozen=True, kw_only=True)
class Cosine:
    """Warm-up, then half a cosine from the peak, which the warm-up's last step has, to `final`.

        factor = final + (1 - final) · ½ (1 + cos(π · share of the way down))

    Args:
        n_steps: the last of them, n_steps - 1, gets `final`, and so does whatever comes after.
        warmup_steps: the first gets 1/warmup_steps, the last 1. With 0, or 1, step 0 is the peak.
        final: share of the peak.

    Raises:
        ValueError: n_steps below 1; a warm-up below 0 or longer than the run; `final` outside of
            0 to 1; when called, a step below 0.

    Example:
        >>> factor = Cosine(n_steps=6, warmup_steps=2, final=0.0)
        >>> [round(factor(step), 2) for step in range(8)]
        [0.5, 1.0, 0.85, 0.5, 0.15, 0.0, 0.0, 0.0]

    Paper: Loshchilov and Hutter 2017, "SGDR", arXiv:1608.03983, equation (5). Theirs to ours: η_max
        is 1, η_min is `final`, T_cur and T_i are the steps since the peak and from there to the
        last.
    Differs: one period and no restart; a warm-up before it. A run of one step, or that is all
        warm-up, has no way down and stays at the peak.
    """

    n_steps: int
    warmup_steps: int = 0
    final: float = 0.1

    def __post_init__(self) -> None:
        _check(self.n_steps, self.warmup_steps, self.final)

    def __call__(self, step: int) -> float:
        """The step's share of the peak."""
        # 1. warm-up: a straight line up to the peak
        peak, last = max(self.warmup_steps - 1, 0), self.n_steps - 1
        if step <= peak or peak == last:
            return _warmup(step, self.warmup_steps)
        # 2. half a cosine down: final + (1 - final) (1 + cos(π share)) / 2, share from 0 to 1
        share = min(1.0, (step - peak) / (last - peak))
        return self.final + (1 - self.final) * (1 + math.cos(math.pi * share)) / 2


@final
@dataclass(frozen=True, kw_only=True)
class WarmupStableDecay:
    """Warm-up, a plateau at the peak, then a straight line down over the last steps (WSD).

    Args:
        n_steps: the last of them, n_steps - 1, gets `final`, and so does whatever comes after.
        warmup_steps: the first gets 1/warmup_steps, the last 1.
        decay_steps: how many steps at the end are below the peak.
        final: share of the peak.

    Raises:
        ValueError: n_steps or decay_steps below 1; a warm-up below 0; warm-up and decay together
            longer than the run; `final` outside of 0 to 1; when called, a step below 0.

    Example:
        >>> factor = WarmupStableDecay(n_steps=8, warmup_steps=2, decay_steps=4)
        >>> [factor(step) for step in range(9)]
        [0.5, 1.0, 1.0, 1.0, 0.75, 0.5, 0.25, 0.0, 0.0]

    Paper: Hu et al. 2024, "MiniCPM", arXiv:2404.06395, section 4.
    Differs: their decay is exponential. This is a straight line, as the cooldown of Hägele et al.
        2024, arXiv:2405.18392, who find it as good as a cosine, and 1 - √share a little better.
    """

    n_steps: int
    warmup_steps: int = 0
    decay_steps: int
    final: float = 0.0

    def __post_init__(self) -> None:
        _check(self.n_steps, self.warmup_steps, self.final)
        if self.decay_steps < 1 or self.warmup_steps + self.decay_steps > self.n_steps:
            raise ValueError(
                "decay_steps must be at least 1, and with the warm-up fit into n_steps; got "
                f"n_steps={self.n_steps}, warmup_steps={self.warmup_steps}, "
                f"decay_steps={self.decay_steps}. Without any decay it is Constant"
            )

    def __call__(self, step: int) -> float:
        """The step's share of the peak."""
        into_decay = min(step, self.n_steps - 1) - (self.n_steps - 1 - self.decay_steps)
        if into_decay <= 0:
            return _warmup(step, self.warmup_steps)
        return 1 - (1 - self.final) * into_decay / self.decay_steps


def _warmup(step: int, warmup_steps: int) -> float:
    if step < 0:
        raise ValueError(f"steps are counted from 0; got {step}")
    return min(1.0, (step + 1) / warmup_steps) if warmup_steps else 1.0


def _check(n_steps: int, warmup_steps: int, final: float) -> None:
    if n_steps < 1 or not 0 <= warmup_steps <= n_steps:
        raise ValueError(
            "a schedule needs n_steps of at least 1 and warmup_steps from 0 to n_steps; got "
            f"n_steps={n_steps}, warmup_steps={warmup_steps}"
        )
    if not 0 <= final <= 1:
        raise ValueError(f"final is a share of the peak, from 0 to 1; got {final}")
