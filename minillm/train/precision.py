"""Number formats of 8 and 16 bits, by arithmetic: what a number becomes when few bits hold it.

A floating-point number is a sign, an exponent and the bits of a mantissa (尾数). With E bits for
the exponent and M for the mantissa, a format has 2^M numbers from 2^e up to 2^(e+1), evenly spaced:

    spacing = 2^(max(e, e_min) - M)         e_min = 2 - 2^(E-1)
    rounded = spacing · round(x / spacing)

Below 2^e_min the spacing shrinks no further (subnormal numbers, 非规格化数), so what is at most
half of it becomes 0: underflow (下溢). Beyond the largest number lies infinity. float16 spends its
bits on digits and underflows at 3e-8; bfloat16 has the range of float32 and not three digits.

Training in mixed precision (混合精度) keeps weights in float32 and computes with fewer bits. In
float16 the small gradients would be lost, so the loss is multiplied by a large number before the
way back, and the gradients are divided by it afterwards, in float32: loss scaling (损失缩放).

Formats: IEEE 754-2019, binary16. bfloat16: Kalamkar et al. 2019, arXiv:1905.12322. FP8:
Micikevicius et al. 2022, arXiv:2209.05433, table 1, E4M3.
Paper: Micikevicius et al. 2018, "Mixed Precision Training", arXiv:1710.03740, section 3.2.
Differs: formats are imitated in float32 or float64, on any machine, and slowly. Only the final
gradients are rounded here; hardware rounds weights, activations and each gradient on its way too.
Their scale is a constant, ours seeks its own, by the rule of `torch.amp.GradScaler`.

Chapter: 05
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import final

import torch
from jaxtyping import Float
from torch import Tensor


@final
@dataclass(frozen=True)
class Format:
    """A floating-point format.

    Args:
        name: as torch has it.
        n_exponent_bits: E, from 2 to 8, or to 7 without infinities, so that float32 holds it.
        n_mantissa_bits: M, those that are stored, from 1 to 23; a leading 1 is not.
        has_infinities: the highest exponent is for inf and NaN, as in IEEE 754. Otherwise it is for
            numbers too, all but its last, which is NaN.

    Raises:
        ValueError: bits out of range.

    Example:
        >>> Format("float16", 5, 10).largest, Format("fp8", 4, 3, has_infinities=False).largest
        (65504.0, 448.0)
    """

    name: str
    n_exponent_bits: int
    n_mantissa_bits: int
    has_infinities: bool = True

    def __post_init__(self) -> None:
        most = 8 if self.has_infinities else 7
        if not (2 <= self.n_exponent_bits <= most and 1 <= self.n_mantissa_bits <= 23):
            raise ValueError(
                f"{self.name} needs 2 to {most} bits for its exponent and 1 to 23 for its mantissa;"
                f" got {self.n_exponent_bits} and {self.n_mantissa_bits}"
            )

    @property
    def lowest_exponent(self) -> int:
        """e_min: numbers below 2^e_min are subnormal."""
        return 2 - 2 ** (self.n_exponent_bits - 1)

    @property
    def largest(self) -> float:
        """The largest finite number."""
        highest = 1 - self.lowest_exponent
        if self.has_infinities:
            return math.ldexp(2 - self.epsilon, highest)
        return math.ldexp(2 - 2 * self.epsilon, highest + 1)

    @property
    def smallest_normal(self) -> float:
        """2^e_min, the smallest number with all its digits."""
        return math.ldexp(1, self.lowest_exponent)

    @property
    def smallest(self) -> float:
        """The smallest number above 0."""
        return self.smallest_normal * self.epsilon

    @property
    def epsilon(self) -> float:
        """From 1 to the next number."""
        return math.ldexp(1, -self.n_mantissa_bits)


FP32 = Format("float32", 8, 23)
FP16 = Format("float16", 5, 10)
BF16 = Format("bfloat16", 8, 7)
FP8_E4M3 = Format("float8_e4m3fn", 4, 3, has_infinities=False)


@torch.no_grad()
def round_to(x: Float[Tensor, "*shape"], format: Format) -> Float[Tensor, "*shape"]:
    """Each number's nearest in the format; of two equally near, the one whose last bit is 0.

    What rounds beyond the largest number becomes infinite, or in a format without infinities the
    largest number, as inf itself does (the standard calls this saturation, and leaves the choice).
    NaN stays NaN, and -0 stays -0. No gradient passes: that of rounding is 0.

    Args:
        x: in float32 or float64, as is the result.
        format: whose numbers are to come out.

    Raises:
        ValueError: x is of another type.

    Example:
        >>> round_to(torch.tensor([0.1, 2049.0, 2051.0, 65520.0, 2e-8]), FP16)
        tensor([9.9976e-02, 2.0480e+03, 2.0520e+03,        inf, 0.0000e+00])
        >>> round_to(torch.tensor([0.1, 500.0]), FP8_E4M3)
        tensor([1.0156e-01, 4.4800e+02])

    Paper: IEEE 754-2019, section 4.3.1, roundTiesToEven.
    Differs: none. From float64 torch casts by way of float32 and so rounds twice; this rounds once.
        To float8_e4m3fn torch 2.13 saturates too; other versions may give NaN.
    """
    if x.dtype not in (torch.float32, torch.float64):
        raise ValueError(
            f"round_to imitates {format.name} in float32 or float64; got {x.dtype}, which was "
            "rounded before. Pass x.float() if that is meant"
        )
    # 1. the spacing of the format's numbers around x: 2^(exponent - mantissa bits)
    upcast = x.double()  # holds every spacing, and what is divided by it, exactly
    exponent = torch.frexp(upcast).exponent - 1  # 2^exponent is at most |x|, twice it is more
    exponent = exponent.clamp(min=format.lowest_exponent)
    spacing = torch.exp2((exponent - format.n_mantissa_bits).double())
    # 2. the nearest multiple of it
    rounded = (upcast / spacing).round() * spacing  # torch's round() is to even
    # 3. what is larger than the largest number becomes ∞
    beyond = math.inf if format.has_infinities else format.largest
    too_large = rounded.abs() > format.largest
    return torch.where(too_large, rounded.sign() * beyond, rounded).to(x.dtype)


def share_lost(gradient: Float[Tensor, "*shape"], format: Format) -> float:
    """Which share of the numbers that are not 0 becomes exactly 0; without any it is 0.

    Args:
        gradient: in float32 or float64.
        format: rounded to.

    Raises:
        ValueError: of another type.

    Example:
        >>> share_lost(torch.tensor([1e-8, 1e-3, 0.0, -1e-9]), FP16)  # two of three
        0.6666666666666666
    """
    lost = (gradient != 0) & (round_to(gradient, format) == 0)
    return lost.sum().item() / max(1, gradient.count_nonzero().item())


def rounded_gradients(
    loss_total: Float[Tensor, ""],
    parameters: Sequence[Tensor],
    format: Format,
    scale: float = 1.0,
) -> list[Tensor]:
    """Gradients of the loss as a format would have held them: round(∂(scale · loss)/∂θ) / scale.

    Args:
        loss_total: of which the gradients are.
        parameters: θ; the loss depends on each.
        format: each gradient is rounded to it while it is scaled.
        scale: of the loss. A power of two costs no digits.

    Returns:
        One gradient a parameter, in float32, or float64 for parameters of float64. Where the
        scaled gradient overflowed it is infinite.

    Raises:
        ValueError: scale not above 0 or not finite.

    Example:
        >>> weight = torch.zeros(1, requires_grad=True)
        >>> rounded_gradients(1e-8 * weight.sum(), [weight], FP16)
        [tensor([0.])]
        >>> rounded_gradients(1e-8 * weight.sum(), [weight], FP16, scale=2.0**15)
        [tensor([9.9972e-09])]

    Paper: Micikevicius et al. 2018, section 3.2.
    Differs: only these final gradients are rounded; float16 hardware rounds every intermediate one,
        and the activations, so it loses more.
    """
    if not 0 < scale < math.inf:
        raise ValueError(f"scale must be a finite number above 0; got {scale}")
    gradients = torch.autograd.grad(loss_total * scale, parameters)
    upcast = [
        gradient.to(torch.promote_types(gradient.dtype, torch.float32)) for gradient in gradients
    ]
    return [round_to(gradient, format) / scale for gradient in upcast]


@final
@dataclass(frozen=True)
class LossScale:
    """A scale that seeks the largest number without overflow: dynamic loss scaling.

    Args:
        scale: what the loss is multiplied by; at least 1.
        growth_every: after so many steps in a row without overflow it is doubled.
        n_good: steps since the last change.

    Raises:
        ValueError: a number out of range.

    Example:
        >>> state = LossScale(scale=8.0, growth_every=2)
        >>> state.after(overflowed=True).scale  # the step itself is left out
        4.0
        >>> state.after(overflowed=False).after(overflowed=False).scale
        16.0

    Paper: Micikevicius et al. 2018, section 3.2.
    Differs: they choose a constant. Halving and doubling is the rule of `torch.amp.GradScaler`,
        which waits for 2,000 steps and knows no lower end; here it is 1.
    """

    scale: float = 2.0**15
    growth_every: int = 200
    n_good: int = 0

    def __post_init__(self) -> None:
        fits = 1 <= self.scale < math.inf and 0 <= self.n_good < self.growth_every
        if not fits:
            raise ValueError(
                "a loss scale needs a finite scale of at least 1, growth_every of at least 1 and "
                f"n_good from 0 to below it; got {self}"
            )

    def after(self, overflowed: bool) -> "LossScale":
        """The state after a step.

        Args:
            overflowed: whether any gradient was inf or NaN; such a step is not taken.
        """
        if overflowed:
            return replace(self, scale=max(1.0, self.scale / 2), n_good=0)
        if self.n_good + 1 == self.growth_every:
            return replace(self, scale=self.scale * 2, n_good=0)
        return replace(self, n_good=self.n_good + 1)
