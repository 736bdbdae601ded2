"""Round to nearest (RTN, 就近舍入): a weight becomes the nearest of 2ᵇ numbers at equal distances.

The distance of two neighbours is the **scale** (缩放因子), and a **code** counts scales from a
**zero point** (零点), the code that stands for 0:

    code = round(w / scale) + zero          w' = (code - zero) · scale

    bits 3, symmetric           weights     1.5   -0.5    0.2      scale = 1.5 / 3
                                codes       7      3      4        zero = 4
                                w'          1.5   -0.5    0

A **symmetric** grid puts 0 in its middle and takes its scale from the largest |w|. Of the 2ᵇ codes
it then uses 2ᵇ - 1, which at 2 bits leaves three: -1, 0, 1. An asymmetric one spans from the lowest
weight to the highest, with all 2ᵇ, and keeps its zero point beside its scale.

The **granularity** says which weights share a scale: all of a matrix (tensor), a row (channel,
逐通道), or n neighbours in a row (a group, 分组). One large weight makes the grid coarse for all
that share its scale, so fewer sharing is better, at 16 bits (asymmetric: 32) for each scale.

**Clipping** (截断) is the other way: the grid need not reach the largest weight. A smaller scale is
finer for all, and what lies beyond its ends becomes the end. The best of several scales is the one
with the least squared error of its weights.

Here a code takes a byte, so that it can be computed with; `n_bytes` counts it as its bits, as
`minillm.quant.store` writes it.

Paper: Jacob et al. 2018, arXiv:1712.05877, section 2.1, equation (1): theirs r = S (q - Z).
Differs: scales and zero points are stored in 16 bits; codes are found with the stored scale. A
block whose scale would be below 6e-8, the least of float16, becomes 0.

Chapter: 18
"""

import math
from dataclasses import dataclass
from typing import NamedTuple, final

import torch
from jaxtyping import Float, Float16, UInt8
from torch import Tensor

BITS = (8, 4, 3, 2)
GRANULARITIES = ("tensor", "channel")
CLIPS = [share / 50 for share in range(49, 4, -1)]  # parts of the largest weight that are tried
Layout = dict[str, tuple[torch.dtype, tuple[int, ...]]]  # of each part, type and shape
NOT_FINITE = "there are weights that are NaN or infinite; look at the run that they come from"


@final
@dataclass(frozen=True, kw_only=True)
class Grid:
    """Which numbers a weight may become.

    Args:
        bits: of a code: 8, 4, 3 or 2.
        granularity: which weights share a scale: "tensor", "channel" (a row), or how many
            neighbours of a row.
        symmetric: whether 0 is in the middle of the grid.
        clip: whether a scale is chosen for the least squared error, instead of reaching the largest
            weight.

    Raises:
        ValueError: other bits or another granularity.

    Example:
        >>> Grid(bits=4).n_bytes(rows=2, columns=64)  # 64 bytes of codes, two scales
        68
        >>> Grid(bits=3, granularity=32, symmetric=False).n_bytes(rows=2, columns=64)
        64
    """

    bits: int = 4
    granularity: str | int = "channel"
    symmetric: bool = True
    clip: bool = False

    def __post_init__(self):
        if self.bits not in BITS:
            raise ValueError(f"bits must be one of {', '.join(map(str, BITS))}; got {self.bits!r}")
        is_group = type(self.granularity) is int and self.granularity >= 1
        if not is_group and self.granularity not in GRANULARITIES:
            raise ValueError(
                'granularity must be "tensor", "channel" (a row), or a group\'s size, at least 1; '
                f"got {self.granularity!r}"
            )

    def block_size(self, rows: int, columns: int) -> int:
        """How many weights of such a matrix share a scale.

        Raises:
            ValueError: no weight at all; a group that does not divide the row.
        """
        if not rows * columns:
            raise ValueError(f"there must be a weight to round; got {rows} rows of {columns}")
        if self.granularity == "tensor":
            return rows * columns
        n = columns if self.granularity == "channel" else self.granularity
        if columns % n:
            raise ValueError(
                f"a group must divide the row; got groups of {n} and rows of {columns}. Groups of "
                f"{', '.join(map(str, divisors(columns)))} would fit"
            )
        return n

    def layout(self, rows: int, columns: int) -> "Layout":
        """What such a matrix is stored as: its codes packed to their bits, its scales and zeros."""
        scales = torch.float16, (rows * columns // self.block_size(rows, columns),)
        codes = torch.uint8, (-(-rows * columns * self.bits // 8),)
        parts = {"codes": codes, "scales": scales}
        return parts if self.symmetric else parts | {"zeros": scales}

    def n_bytes(self, rows: int, columns: int) -> int:
        """What that takes."""
        return layout_bytes(self.layout(rows, columns))

    def __str__(self) -> str:
        shared = f"group {self.granularity}" if type(self.granularity) is int else self.granularity
        kinds = ", asymmetric" * (not self.symmetric) + ", clipped" * self.clip
        return f"{self.bits} bits, {shared}{kinds}"


def layout_bytes(layout: Layout) -> int:
    """What such parts take."""
    return sum(dtype.itemsize * math.prod(shape) for dtype, shape in layout.values())


def divisors(n: int) -> list[int]:
    """The whole numbers that divide n.

    Example:
        >>> divisors(344)
        [1, 2, 4, 8, 43, 86, 172, 344]
    """
    return [d for d in range(1, n + 1) if n % d == 0]


# --- the maths ----------------------------------------------------------------------------------
class Scale(NamedTuple):
    """The grid of each block of weights.

    Args:
        scale: the distance of two neighbours, a number that float16 holds.
        zero: the code that stands for 0, a whole number.
    """

    scale: Float[Tensor, "*blocks"]
    zero: Float[Tensor, "*blocks"]


def scale_of(x: Float[Tensor, "*blocks n"], bits: int, symmetric: bool = True) -> Scale:
    """The finest grid that reaches all n weights of a block.

    Args:
        x: the weights; those of the last axis share a scale.
        bits, symmetric: as in `Grid`.

    Example:
        >>> scale_of(torch.tensor([1.5, -0.5, 0.2]), bits=3)
        Scale(scale=tensor(0.5000), zero=tensor(4.))
        >>> scale_of(torch.tensor([1.5, -0.25, 0.2]), bits=3, symmetric=False)  # 1.75 is 7 scales
        Scale(scale=tensor(0.2500), zero=tensor(1.))
    """
    x, top = x.float(), 2**bits - 1
    if symmetric:
        scale = x.abs().amax(dim=-1) / (top // 2)
        return Scale(scale.half().float(), torch.full_like(scale, 2 ** (bits - 1)))
    low, high = x.amin(dim=-1).clamp(max=0), x.amax(dim=-1).clamp(min=0)  # 0 stays 0
    scale = ((high - low) / top).half().float()
    return Scale(scale, _in_scales(-low, scale).round().clamp(0, top))


def scale_for(x: Float[Tensor, "*blocks n"], grid: Grid) -> Scale:
    """The scale of each block that a grid asks for, clipped or not.

    Args:
        x: the weights; those of the last axis share a scale.
        grid: bits, symmetry, and whether to clip.

    Example:
        >>> x = torch.tensor([0.5, -0.5, 0.5, 0.75])  # 2 bits: -scale, 0 or scale
        >>> scale_for(x, Grid(bits=2)).scale.item(), scale_for(x, Grid(bits=2, clip=True)).scale
        (0.75, tensor(0.5698))
    """
    best = scale_of(x, grid.bits, grid.symmetric)
    if not grid.clip:
        return best
    x, least = x.float(), _squared_error(x, best, grid.bits)
    for share in CLIPS:
        scale = scale_of(share * x, grid.bits, grid.symmetric)
        error = _squared_error(x, scale, grid.bits)
        better, least = error < least, torch.minimum(error, least)
        best = Scale(*(torch.where(better, new, old) for new, old in zip(scale, best, strict=True)))
    return best


def _squared_error(x: Tensor, scale: Scale, bits: int) -> Tensor:
    return (decode(encode(x, *scale, bits), *scale) - x).square().sum(dim=-1)


def encode(
    x: Float[Tensor, "*blocks n"],
    scale: Float[Tensor, "*blocks"],
    zero: Float[Tensor, "*blocks"],
    bits: int,
) -> UInt8[Tensor, "*blocks n"]:
    """The code of the nearest number of the grid; half-way the even one, beyond its ends the end.

    Args:
        x: the weights.
        scale, zero: from `scale_of`.
        bits: of a code.

    Example:
        >>> encode(torch.tensor([1.5, -0.5, 0.2]), *scale_of(torch.tensor([1.5]), 3), 3).tolist()
        [7, 3, 4]
    """
    codes = _in_scales(x.float(), scale[..., None]).round() + zero[..., None]
    return codes.clamp(0, 2**bits - 1).to(torch.uint8)


def decode(
    codes: UInt8[Tensor, "*blocks n"],
    scale: Float[Tensor, "*blocks"],
    zero: Float[Tensor, "*blocks"],
) -> Float[Tensor, "*blocks n"]:
    """The numbers that the codes stand for.

    Example:
        >>> codes = torch.tensor([7, 3, 4], dtype=torch.uint8)
        >>> decode(codes, torch.tensor(0.5), torch.tensor(4.0)).tolist()
        [1.5, -0.5, 0.0]
    """
    return (codes.float() - zero[..., None]) * scale[..., None]


def _in_scales(x: Tensor, scale: Tensor) -> Tensor:
    """x / scale; 0 where the scale is 0, as it is for a block of zeros."""
    return x / torch.where(scale > 0, scale, torch.inf)


# --- a matrix -----------------------------------------------------------------------------------
@final
@dataclass(frozen=True, kw_only=True, eq=False)
class Quantized:
    """A matrix as codes, with what makes numbers of them.

    Args:
        codes: of each weight.
        scales: of each block, row after row.
        zeros: the code that stands for 0, of each block; None on a symmetric grid, where it is the
            middle.
        grid: which numbers there are.
    """

    codes: UInt8[Tensor, "rows columns"]
    scales: Float16[Tensor, "blocks"]
    zeros: Float16[Tensor, "blocks"] | None = None
    grid: Grid

    @property
    def n_bytes(self) -> int:
        """As `Grid.n_bytes` counts."""
        return self.grid.n_bytes(*self.codes.shape)

    def dequantize(self) -> Float[Tensor, "rows columns"]:
        """The weights as numbers again, in float32."""
        blocks = self.codes.reshape(len(self.scales), -1)
        scale = self.scales.float()
        middle = torch.full_like(scale, 2 ** (self.grid.bits - 1))
        zero = middle if self.zeros is None else self.zeros.float()
        return decode(blocks, scale, zero).view(self.codes.shape)


def quantize(weight: Float[Tensor, "rows columns"], grid: Grid) -> Quantized:
    """Every weight of a matrix rounded to the nearest number of its block's grid.

    Args:
        weight: the matrix.
        grid: bits, granularity, symmetry.

    Raises:
        ValueError: a matrix without a weight; a group that does not divide the row; a weight that
            is NaN or infinite, or so large that float16 has no such scale.

    Example:
        >>> weight = torch.tensor([[1.5, -0.5, 0.2], [0.0, 0.0, 0.0]])
        >>> quantized = quantize(weight, Grid(bits=3))
        >>> quantized.dequantize().tolist(), quantized.n_bytes  # 18 bits and two scales
        ([[1.5, -0.5, 0.0], [0.0, 0.0, 0.0]], 7)
    """
    blocks = weight.reshape(-1, grid.block_size(*weight.shape))
    scale, zero = checked(scale_for(blocks, grid), weight)
    codes = encode(blocks, scale, zero, grid.bits).view(weight.shape)
    return of(codes, scale, zero, grid)


def of(
    codes: UInt8[Tensor, "rows columns"],
    scale: Float[Tensor, "blocks"],
    zero: Float[Tensor, "blocks"],
    grid: Grid,
) -> Quantized:
    """The value of codes that were found with these scales."""
    zeros = None if grid.symmetric else zero.half()
    return Quantized(codes=codes, scales=scale.half(), zeros=zeros, grid=grid)


def checked(scale: Scale, weight: Float[Tensor, "rows columns"]) -> Scale:
    """Scales, if they are numbers.

    Raises:
        ValueError: says what is wrong with the weights.
    """
    if not weight.isfinite().all():
        raise ValueError(NOT_FINITE)
    if not scale.scale.isfinite().all():
        raise ValueError(
            f"the largest |weight| is {weight.abs().max():.3g}, and float16, in which scales are "
            "stored, ends at 65504; scale the weights down"
        )
    return scale
