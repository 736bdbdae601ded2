"""NF4 (4-bit NormalFloat): 16 numbers that lie where the weights of a network lie.

Trained weights are nearly normal: many small ones, few large ones. Sixteen numbers at equal
distances spend most of their codes where few weights are. NF4's are quantiles of the normal
distribution (分位数), close together around 0, stretched so that the outermost are -1 and 1:

    -1  -.70  -.53  -.39  -.28  -.18  -.09   0   .08  .16  .25  .34  .44  .56  .72  1

A weight is divided by the largest |w| of its block of 64, and becomes the nearest of these.

A float32 scale for every 64 weights costs 32 / 64 = 0.5 bits a weight. So the scales are quantized
in their turn (double quantization, 双重量化): less their mean, 8 bits each, in blocks of 256 that
have a float32 scale. That leaves 8 / 64 + 32 / (64 · 256) = 0.127 bits.

Paper: Dettmers et al. 2023, "QLoRA", arXiv:2305.14314, section 3 and appendix E (the 16 numbers).
Differs: equation (4) does not give those numbers; bitsandbytes' rule does, which is here: quantiles
at equal distances from ½ to the offset 1 - (1/32 + 1/30) / 2 on either side, 8 of them above 0 and
7 below (how it comes about: Yoshida 2023, arXiv:2306.06965). Scales become whole numbers, where
theirs become 8-bit floats; codes are found with the stored scale. The mean, 4 bytes, is counted.

Chapter: 18
"""

from dataclasses import dataclass
from typing import NamedTuple, final

import torch
from jaxtyping import Float, Float32, UInt8
from torch import Tensor
from torch.nn.functional import pad

from minillm.quant import rtn

BITS, SCALE_BITS = 4, 8
SCALE_BLOCK_SIZE = 256
OFFSET = 1 - (1 / 32 + 1 / 30) / 2


def levels() -> Float32[Tensor, "16"]:
    """The 16 numbers of NF4, the smallest first.

    Example:
        >>> levels()[[0, 1, 7, 8, 15]]
        tensor([-1.0000, -0.6962,  0.0000,  0.0796,  1.0000])
    """
    above, below = (
        torch.special.ndtri(torch.linspace(OFFSET, 0.5, n + 1, dtype=torch.float64))[:-1]
        for n in (8, 7)
    )
    numbers = torch.cat([-below, torch.zeros(1, dtype=torch.float64), above]).sort().values
    return (numbers / numbers.abs().max()).float()


def nearest(x: Float[Tensor, "*any"]) -> UInt8[Tensor, "*any"]:
    """The code of the nearest of the 16.

    Args:
        x: numbers; beyond -1 and 1 the outermost.

    Example:
        >>> nearest(torch.tensor([-1.0, 0.02, 0.7])).tolist()
        [0, 7, 14]
    """
    numbers = levels().to(x.device)
    return torch.bucketize(x.float(), (numbers[1:] + numbers[:-1]) / 2).to(torch.uint8)


# --- scales of scales ---------------------------------------------------------------------------
class DoubleQuantized(NamedTuple):
    """Scales as codes: mean + (code - 128) · step.

    Args:
        codes: of each scale.
        steps: of each block of 256 scales.
        mean: of all scales.
    """

    codes: UInt8[Tensor, "scales"]
    steps: Float32[Tensor, "scale_blocks"]
    mean: Float32[Tensor, ""]


def double_quantize(scales: Float32[Tensor, "scales"]) -> DoubleQuantized:
    """Scales, less their mean, rounded to 8 bits.

    Example:
        >>> double = double_quantize(torch.tensor([1.0, 2.0, 3.0]))
        >>> double.codes.tolist(), double.mean.item()  # -1, 0 and 1, of which 1 is 127 steps
        ([1, 128, 255], 2.0)
        >>> double_dequantize(*double)
        tensor([1., 2., 3.])
    """
    mean = scales.mean()
    blocks = _in_blocks(scales - mean, SCALE_BLOCK_SIZE)
    steps = blocks.abs().amax(dim=-1) / (2 ** (SCALE_BITS - 1) - 1)
    codes = rtn.encode(blocks, steps, _middle(steps), SCALE_BITS)
    return DoubleQuantized(codes.flatten()[: len(scales)], steps, mean)


def double_dequantize(
    codes: UInt8[Tensor, "scales"],
    steps: Float32[Tensor, "scale_blocks"],
    mean: Float32[Tensor, ""],
) -> Float32[Tensor, "scales"]:
    """The scales as numbers again."""
    blocks = rtn.decode(_in_blocks(codes, SCALE_BLOCK_SIZE), steps, _middle(steps))
    return mean + blocks.flatten()[: len(codes)]


def _in_blocks(x: Tensor, n: int) -> Tensor:
    """All numbers in rows of n; the last row is filled up with 0."""
    return pad(x.flatten(), (0, -x.numel() % n)).view(-1, n)


def _middle(steps: Tensor) -> Tensor:
    return torch.full_like(steps, 2 ** (SCALE_BITS - 1))


# --- a matrix -----------------------------------------------------------------------------------
@final
@dataclass(frozen=True, kw_only=True)
class NF4Config:
    """NF4 as what the weights of a matrix may become.

    Args:
        block_size: how many weights share a scale.

    Raises:
        ValueError: a size below 1.

    Example:
        >>> 8 * NF4Config().n_bytes(rows=4096, columns=4096) / 4096**2  # bits a weight
        4.126955032348633
    """

    block_size: int = 64

    def __post_init__(self):
        if type(self.block_size) is not int or self.block_size < 1:
            raise ValueError(f"block_size must be at least 1; got {self.block_size!r}")

    @property
    def bits(self) -> int:
        """Of a code."""
        return BITS

    def layout(self, rows: int, columns: int) -> rtn.Layout:
        """What such a matrix is stored as; the last block of each kind may be shorter."""
        n_scales = -(-rows * columns // self.block_size)
        return {
            "codes": (torch.uint8, (-(-rows * columns // 2),)),
            "scales": (torch.uint8, (n_scales,)),
            "steps": (torch.float32, (-(-n_scales // SCALE_BLOCK_SIZE),)),
            "mean": (torch.float32, ()),
        }

    def n_bytes(self, rows: int, columns: int) -> int:
        """What that takes."""
        return rtn.layout_bytes(self.layout(rows, columns))

    def __str__(self) -> str:
        return f"4 bits, blocks of {self.block_size}"


@final
@dataclass(frozen=True, kw_only=True, eq=False)
class NF4Quantized:
    """A matrix as NF4 codes, with its double-quantized scales.

    Args:
        codes: of each weight.
        scales, steps, mean: as in `DoubleQuantized`; a scale for each block, row after row.
        grid: the size of a block.
    """

    codes: UInt8[Tensor, "rows columns"]
    scales: UInt8[Tensor, "scales"]
    steps: Float32[Tensor, "scale_blocks"]
    mean: Float32[Tensor, ""]
    grid: NF4Config

    @property
    def n_bytes(self) -> int:
        """As `NF4Config.n_bytes` counts."""
        return self.grid.n_bytes(*self.codes.shape)

    def dequantize(self) -> Float32[Tensor, "rows columns"]:
        """The weights as numbers again."""
        scale = double_dequantize(self.scales, self.steps, self.mean)
        numbers = levels().to(self.codes.device)[self.codes.int()]
        blocks = _in_blocks(numbers, self.grid.block_size) * scale[:, None]
        return blocks.flatten()[: self.codes.numel()].view(self.codes.shape)


def quantize(weight: Float[Tensor, "rows columns"], grid: NF4Config | None = None) -> NF4Quantized:
    """Every weight of a matrix as the nearest of the 16 numbers, times its block's scale.

    Args:
        weight: the matrix; blocks go on from one row to the next.
        grid: the size of a block; None for the paper's.

    Raises:
        ValueError: a weight that is NaN or infinite.

    Example:
        >>> quantized = quantize(torch.tensor([[-2.0, 0.5, 1.0]]))  # -1, 0.25 and 0.5, twice
        >>> quantized.codes.tolist(), quantized.dequantize()
        ([[0, 10, 12]], tensor([[-2.0000,  0.4922,  0.8814]]))
    """
    grid = NF4Config() if grid is None else grid
    if not weight.isfinite().all():
        raise ValueError(rtn.NOT_FINITE)
    blocks = _in_blocks(weight.float(), grid.block_size)
    double = double_quantize(blocks.abs().amax(dim=-1))
    scale = double_dequantize(*double)[:, None]
    codes = nearest(blocks / torch.where(scale == 0, torch.inf, scale))
    return NF4Quantized(
        codes=codes.flatten()[: weight.numel()].view(weight.shape),
        scales=double.codes,
        steps=double.steps,
        mean=double.mean,
        grid=grid,
    )
