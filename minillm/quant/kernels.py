"""Kernels that multiply by codes: fewer bytes from memory, so less time, where torch has them.

To write one token, every weight is read from memory once and used once. What takes time is the
reading; so weights of a quarter the bytes could be four times as fast, if making numbers of them
cost nothing. Numbers made beforehand (`weight`) cost more time than they save. A kernel reads codes
and makes numbers of them in the processor's registers.

torch has two for the CPU, under private names, for activations in bfloat16:

    int8     a scale a row                  torch._weight_int8pack_mm
    int4     a scale for 32 to 256 columns  torch._weight_int4pack_mm_for_cpu

`pack` brings codes into the form that they want, with scales in bfloat16, and fills up what does
not fit: they check no bounds, and int8 times several rows reads beyond the end of a matrix of 860
columns. `linear` calls them, or does the same by numbers where there is no kernel.

Paper: none.
Differs: none.

Chapter: 18
"""

import copy
from dataclasses import dataclass
from typing import Literal, final

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn.functional import linear as float_linear
from torch.nn.functional import pad

from minillm.quant.layers import QuantizedLinear, QuantizedMatrix
from minillm.quant.nf4 import NF4Quantized
from minillm.quant.rtn import Quantized

NAMES = {
    "int8": ("_weight_int8pack_mm",),
    "int4": ("_weight_int4pack_mm_for_cpu", "_convert_weight_to_int4pack_for_cpu"),
}
GROUPS = (256, 128, 64, 32)  # columns with one scale, as the int4 kernel knows them
ROWS, COLUMNS = 16, 32  # what they must be multiples of
MIDDLE = 8  # the code that the int4 kernel takes for 0


@final
@dataclass(frozen=True, kw_only=True, eq=False)
class Packed:
    """A matrix in the form that a kernel wants.

    Args:
        kind: the kernel; "float" where there is none.
        weight: codes as the kernel lays them; numbers where there is none.
        scales: as the kernel lays them.
        group: columns with one scale.
        shape: rows and columns, without what fills them up.
    """

    kind: Literal["int8", "int4", "float"]
    weight: Tensor
    scales: Tensor | None = None
    group: int = 0
    shape: tuple[int, int]

    @property
    def n_bytes(self) -> int:
        """What it takes, with what fills it up."""
        return self.weight.nbytes + (0 if self.scales is None else self.scales.nbytes)


def has_kernel(kind: str) -> bool:
    """Whether this torch has the kernel "int8" or "int4"."""
    return all(hasattr(torch, name) for name in NAMES[kind])


def pack(value: Quantized | NF4Quantized) -> Packed:
    """A quantized matrix for the kernel that takes its grid; as numbers if none does.

    int8 takes 8 bits, symmetric, a scale a row or one for all. int4 takes up to 4 bits, and groups
    of 32, 64, 128 or 256; where a row is one group, its scale is repeated.

    Args:
        value: from `minillm.quant.rtn` or `gptq`; NF4 has no kernel.

    Example:
        >>> from minillm.quant.rtn import Grid, quantize
        >>> pack(quantize(torch.randn(20, 40), Grid(bits=3, granularity=20))).kind
        'float'
    """
    shape = rows, columns = tuple(value.codes.shape)
    on_cpu, grid = value.codes.device.type == "cpu", value.grid
    if isinstance(value, Quantized) and on_cpu:
        is_row = type(grid.granularity) is str
        if grid.bits == 8 and grid.symmetric and is_row and has_kernel("int8"):
            codes = (value.codes.short() - 128).to(torch.int8)
            weight = pad(codes, (0, -columns % COLUMNS)).contiguous()
            scales = value.scales.bfloat16().expand(rows).contiguous()
            return Packed(kind="int8", weight=weight, scales=scales, shape=shape)
        if grid.bits <= 4 and (is_row or grid.granularity in GROUPS) and has_kernel("int4"):
            return _pack_int4(value)
    return Packed(kind="float", weight=value.dequantize(), shape=shape)


def _pack_int4(value: Quantized) -> Packed:
    rows, columns = value.codes.shape
    scale, is_row = value.scales.float(), type(value.grid.granularity) is str
    zero = torch.full_like(scale, 2 ** (value.grid.bits - 1))
    zero = zero if value.zeros is None else value.zeros.float()
    # 1. w = (code - zero) · scale, and the kernel has (code' - 8) · scale + offset. So code' is
    #    code - zero + 8 and offset 0, which rounds nothing; but 4 bits with any zero have no room
    moved = zero if value.zeros is None or value.grid.bits < 4 else torch.full_like(zero, MIDDLE)
    codes = value.codes.view(len(scale), -1).int() - moved[:, None].int() + MIDDLE
    pairs = torch.stack([scale, (moved - zero) * scale], dim=-1).bfloat16()
    # 2. rows and columns as many as the kernel asks for, each group with its pair
    more_rows, more_columns = -rows % ROWS, -columns % COLUMNS
    codes = pad(codes.view(rows, columns), (0, more_columns, 0, more_rows), value=MIDDLE)
    fitting = next(n for n in GROUPS if codes.shape[1] % n == 0)
    group = fitting if is_row else value.grid.granularity
    pairs = pairs.expand(rows, 2)[:, None] if is_row else pairs.view(rows, -1, 2)
    pairs = pad(pairs.expand(rows, codes.shape[1] // group, 2), (0, 0, 0, 0, 0, more_rows))
    return Packed(
        kind="int4",
        weight=torch._convert_weight_to_int4pack_for_cpu(codes, 1),
        scales=pairs.transpose(0, 1).contiguous(),
        group=group,
        shape=(rows, columns),
    )


def linear(x: Float[Tensor, "*rows columns"], packed: Packed) -> Float[Tensor, "*rows outputs"]:
    """x times the matrix, transposed: in bfloat16 by a kernel, in x's type without one.

    Args:
        x: the inputs.
        packed: from `pack`.

    Example:
        >>> from minillm.quant.rtn import Grid, quantize
        >>> packed = pack(quantize(torch.eye(3), Grid(bits=8)))
        >>> linear(torch.tensor([[1.0, 2.0, 4.0]]), packed).round().tolist()
        [[1.0, 2.0, 4.0]]
    """
    rows, columns = packed.shape
    if packed.kind == "float":
        return float_linear(x, packed.weight.to(x.dtype))
    flat = x.reshape(-1, columns).bfloat16()
    if columns % COLUMNS:
        flat = pad(flat, (0, -columns % COLUMNS))
    if packed.kind == "int8":
        y = torch._weight_int8pack_mm(flat, packed.weight, packed.scales)
    else:
        y = torch._weight_int4pack_mm_for_cpu(flat, packed.weight, packed.group, packed.scales)
    if y.shape[1] > rows:
        y = y[:, :rows]
    return y.reshape(*x.shape[:-1], rows).to(x.dtype)


@final
class KernelLinear(nn.Module):
    """A `QuantizedLinear` that multiplies by codes where there is a kernel.

    Args:
        matrix: its weight, of which the form for the kernel alone is kept.
        bias: its bias, in float.
    """

    def __init__(self, matrix: QuantizedMatrix, bias: nn.Parameter | None = None):
        super().__init__()
        self.bias, self.packed = bias, pack(matrix.value)
        self.register_buffer("no_number", torch.tensor(torch.nan, dtype=matrix.dtype), False)

    @property
    def weight(self) -> Float[Tensor, "rows columns"]:
        """For those who ask for the matrix's shape, type or device; its numbers are not kept."""
        return self.no_number.expand(self.packed.shape)

    def forward(self, x: Float[Tensor, "*rows columns"]) -> Float[Tensor, "*rows outputs"]:
        """W x + b."""
        y = linear(x, self.packed)
        return y if self.bias is None else y + self.bias


def with_kernels(model: nn.Module) -> nn.Module:
    """A copy of a quantized model whose matrices are multiplied by kernels.

    Args:
        model: from `minillm.quant.apply.quantize`. In bfloat16 it saves the kernels' conversions.

    Example:
        >>> from minillm.model.config import tiny
        >>> from minillm.quant.apply import quantize
        >>> from minillm.quant.plan import plan
        >>> model = tiny(vocab_size=50).build(seed=0)
        >>> fast = with_kernels(quantize(model, plan(model, "rtn")).model)
        >>> fast.blocks[0].ffn.down.packed.shape
        (64, 176)
    """
    fast = copy.deepcopy(model)
    for name, module in list(fast.named_modules()):
        if isinstance(module, QuantizedLinear):
            fast.set_submodule(name, KernelLinear(module.matrix, module.bias))
    return fast
