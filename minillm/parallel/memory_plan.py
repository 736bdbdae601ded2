"""A memory plan (显存规划): what becomes of each layer's activations, the fastest way that fits.

The backward pass of a layer needs the activations of its forward pass. They can be kept, be thrown
away and recomputed from the layer's input (重计算), or wait in the host's memory (offload, 卸载):

                 bytes on the card     seconds more
    keep         all                   0
    recompute    the input's           one forward pass of the layer
    offload      0                     there and back over the bus

One of three for each of L layers makes 3ᴸ plans. `memory_plan` looks at far fewer, by dynamic
programming (动态规划), as for a knapsack. Memory comes in units; f(l, u) is the least seconds of
the first l layers within u units:

    f(l, u) = min over the options of layer l:  f(l - 1, u - its units) + its seconds

Paper: Jain et al. 2020, "Checkmate", arXiv:1910.02653 (which to recompute, as a programme with a
limit of memory; from memory). The talks ascribe a dynamic programme to BMTrain. Its public code of
May 2025 has none: there `use_checkpoint` and `zero_level` are set by hand, block by block, and what
goes to the host is the optimizer's state (`AdamOffloadOptimizer`). Miao et al. 2022, "Galvatron",
arXiv:2211.13878, searches by one, over ways to share out each layer.
Differs: nothing is measured here, all seconds are given. What is alive of a single layer while it
is recomputed is not part of a plan. Nothing hides the time of the bus.

Chapter: 16
"""

import itertools
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple, final

#: The largest table of `memory_plan`, in cells (layers · units): some seconds of plain Python.
MOST_CELLS = 5_000_000


@final
@dataclass(frozen=True, kw_only=True)
class LayerCost:
    """What one layer's activations cost.

    Args:
        activation_bytes: all that its backward pass needs.
        input_bytes: what its forward pass can be repeated from.
        forward_seconds: that it takes to repeat it.
        offload_seconds: to the host and back, where nothing hides them; inf where there is no host.

    Raises:
        ValueError: a negative number; an input larger than all activations.
    """

    activation_bytes: int
    input_bytes: int
    forward_seconds: float
    offload_seconds: float = math.inf

    def __post_init__(self) -> None:
        if not 0 <= self.input_bytes <= self.activation_bytes:
            raise ValueError(
                "input_bytes must be at least 0 and at most activation_bytes, of which they are a "
                f"part; got {self.input_bytes} and {self.activation_bytes}"
            )
        if not (0 <= self.forward_seconds < math.inf and self.offload_seconds >= 0):
            raise ValueError(
                "forward_seconds must be at least 0 and finite, offload_seconds at least 0; got "
                f"{self.forward_seconds} and {self.offload_seconds}"
            )

    def options(self) -> tuple["Option", ...]:
        """The table of the module, for this layer."""
        keep = Option("keep", self.activation_bytes, 0.0)
        recompute = Option("recompute", self.input_bytes, self.forward_seconds)
        if self.offload_seconds == math.inf:
            return keep, recompute
        return keep, recompute, Option("offload", 0, self.offload_seconds)


class Option(NamedTuple):
    """One way to treat a layer's activations: bytes on the card, seconds more."""

    name: str
    n_bytes: int
    seconds: float


@final
@dataclass(frozen=True, kw_only=True)
class MemoryPlan:
    """What becomes of each layer's activations.

    Args:
        choices: of each layer, "keep", "recompute" or "offload".
        n_bytes: of all layers' activations on the card.
        seconds: more than a step that keeps all.
    """

    choices: tuple[str, ...]
    n_bytes: int
    seconds: float

    @classmethod
    def of(cls, options: Sequence[Option]) -> "MemoryPlan":
        """The plan that takes these, one a layer."""
        return cls(
            choices=tuple(option.name for option in options),
            n_bytes=sum(option.n_bytes for option in options),
            seconds=sum(option.seconds for option in options),
        )


def memory_plan_naive(layers: Sequence[LayerCost], limit_bytes: int) -> MemoryPlan:
    """The fastest plan of all 3ᴸ: what `memory_plan` must equal.

    Example:
        >>> layers = [LayerCost(activation_bytes=4, input_bytes=1, forward_seconds=3.0)] * 2
        >>> memory_plan_naive(layers, limit_bytes=5)  # one of them
        MemoryPlan(choices=('keep', 'recompute'), n_bytes=5, seconds=3.0)
    """
    _check_limit(layers, limit_bytes)
    plans = itertools.product(*(layer.options() for layer in layers))
    fitting = (plan for plan in plans if sum(option.n_bytes for option in plan) <= limit_bytes)
    return MemoryPlan.of(min(fitting, key=lambda plan: sum(option.seconds for option in plan)))


def memory_plan_greedy(layers: Sequence[LayerCost], limit_bytes: int) -> MemoryPlan:
    """Keep all, then give up what costs the fewest seconds a byte, until it fits.

    Plain, and often not the best: the last step may free far more bytes than are missing.

    Example:
        >>> a = LayerCost(activation_bytes=10, input_bytes=0, forward_seconds=5.0)  # 0.5 s a byte
        >>> b = LayerCost(activation_bytes=2, input_bytes=0, forward_seconds=1.2)  # 0.6 s a byte
        >>> memory_plan_greedy([a, b], limit_bytes=10), memory_plan([a, b], limit_bytes=10)
        (MemoryPlan(choices=('recompute', 'keep'), n_bytes=2, seconds=5.0),
         MemoryPlan(choices=('keep', 'recompute'), n_bytes=10, seconds=1.2))
    """
    _check_limit(layers, limit_bytes)
    chosen = [layer.options()[0] for layer in layers]
    while sum(option.n_bytes for option in chosen) > limit_bytes:
        steps = []
        for place, (layer, now) in enumerate(zip(layers, chosen, strict=True)):
            for option in layer.options():
                if option.n_bytes < now.n_bytes:
                    a_byte = (option.seconds - now.seconds) / (now.n_bytes - option.n_bytes)
                    steps.append((a_byte, place, option))
        _, place, option = min(steps)
        chosen[place] = option
    return MemoryPlan.of(chosen)


def memory_plan(
    layers: Sequence[LayerCost], limit_bytes: int, *, unit_bytes: int | None = None
) -> MemoryPlan:
    """The fastest plan within a limit, by dynamic programming over memory in units.

    Args:
        layers: in their order.
        limit_bytes: for all layers' activations on one card.
        unit_bytes: of memory. By default the greatest common divisor of all options' bytes, and
            then the plan is the best there is. Any other is quicker and may miss it: an option
            is rounded up to units, so that the limit holds all the same.

    Raises:
        ValueError: even the smallest option of each layer is too much; a table of more than
            `MOST_CELLS`.

    Example:
        >>> layer = LayerCost(
        ...     activation_bytes=8, input_bytes=2, forward_seconds=1.0, offload_seconds=1.5
        ... )
        >>> memory_plan([layer] * 3, limit_bytes=12)  # 2 + 2 + 8
        MemoryPlan(choices=('recompute', 'recompute', 'keep'), n_bytes=12, seconds=2.0)
        >>> memory_plan([layer] * 3, limit_bytes=11)  # 0 + 2 + 8; three times 2 take 3.0 s
        MemoryPlan(choices=('offload', 'recompute', 'keep'), n_bytes=10, seconds=2.5)
    """
    _check_limit(layers, limit_bytes)
    table = [layer.options() for layer in layers]
    # 1. memory in units: what options need rounded up, the limit rounded down
    sizes = [option.n_bytes for options in table for option in options]
    unit = max(1, math.gcd(*sizes)) if unit_bytes is None else unit_bytes
    limit = min(int(limit_bytes), sum(-(-options[0].n_bytes // unit) * unit for options in table))
    n_units = limit // unit
    if (n_units + 1) * len(table) > MOST_CELLS:
        raise ValueError(
            f"{len(table)} layers and {n_units + 1} units of {unit} bytes make a table of more "
            f"than {MOST_CELLS} cells; give a larger unit_bytes, such as {limit // 1000}"
        )
    # 2. f(l, u): the least seconds of the layers so far within u units, and the option taken there
    seconds = [0.0] * (n_units + 1)
    taken: list[list[int]] = []
    for options in table:
        units = [-(-option.n_bytes // unit) for option in options]
        cells = [
            min(
                (
                    (seconds[u - need] + option.seconds, which)
                    for which, (need, option) in enumerate(zip(units, options, strict=True))
                    if need <= u
                ),
                default=(math.inf, 0),  # nothing fits
            )
            for u in range(n_units + 1)
        ]
        seconds = [least for least, _ in cells]
        taken.append([which for _, which in cells])
    if seconds[-1] == math.inf:
        raise ValueError(
            f"in units of {unit} bytes, rounded up, nothing fits into {limit_bytes} bytes; give a "
            "smaller unit_bytes"
        )
    # 3. from the last layer back: which option led here
    chosen, u = [], n_units
    for options, whiches in zip(reversed(table), reversed(taken), strict=True):
        option = options[whiches[u]]
        chosen.append(option)
        u -= -(-option.n_bytes // unit)
    return MemoryPlan.of(chosen[::-1])


def _check_limit(layers: Sequence[LayerCost], limit_bytes: int) -> None:
    least = sum(min(option.n_bytes for option in layer.options()) for layer in layers)
    if not layers or least > limit_bytes:
        raise ValueError(
            f"a plan needs at least one layer, and room for the smallest option of each, {least} "
            f"bytes; got {len(layers)} layers and {limit_bytes} bytes. Offload (give "
            "offload_seconds), or read smaller micro-batches"
        )
