"""The number types of a GGUF file: floats as they are, and blocks of 32 with one scale.

llama.cpp rounds a row of weights in blocks of 32 numbers. A block is a scale, in float16, and 32
whole numbers; each weight is its whole number times the scale:

    Q8_0   34 bytes   scale = largest / 127      32 numbers from -127 to 127, a byte each
    Q4_0   18 bytes   scale = largest / -8       32 numbers from -8 to 7, plus 8, half a byte each

    weights           4.0    -8.0    1.2    0.4  …           largest: -8.0, so the Q4_0 scale is 1
    whole numbers       4      -8      1      0  …           how far apart two weights can stand: 1
    in the file      12 | 0<<4 …                             number i and number i + 16 share a byte

"largest" is the number of the largest size: for Q8_0 without its sign; for Q4_0 with it, since -8
is there and 8 is not. So that number survives, and one of the other sign that is as large becomes 7
instead of 8. A scale costs half a bit a weight: Q8_0 is 8.5 bits, Q4_0 is 4.5.

Paper: none; ggml, `quantize_row_q8_0_ref` and `quantize_row_q4_0_ref` of ggml-quants.c, and the
list of types of GGUF's specification, docs/gguf.md.
Differs: a block whose scale is 0 in float16 holds zeros (ggml rounds with the scale in float32, and
may divide by zero); one whose scale is too large for float16 is refused.

Chapter: 18
"""

from collections.abc import Sequence
from math import prod
from typing import NamedTuple

import torch
from jaxtyping import Float32, UInt8
from torch import Tensor

BLOCK = 32  # numbers


class NumberType(NamedTuple):
    """A type of numbers.

    Args:
        code: its number in a file.
        block_size: how many numbers stand together.
        block_bytes: how many bytes they take.
    """

    code: int
    block_size: int
    block_bytes: int


TYPES = {
    "F32": NumberType(0, 1, 4),
    "F16": NumberType(1, 1, 2),
    "BF16": NumberType(30, 1, 2),
    "Q8_0": NumberType(8, BLOCK, 34),
    "Q4_0": NumberType(2, BLOCK, 18),
}
FLOATS = {"F32": torch.float32, "F16": torch.float16, "BF16": torch.bfloat16}


def n_bytes(shape: Sequence[int], kind: str) -> int:
    """How many bytes a tensor takes.

    Args:
        shape: its last axis is a row.
        kind: one of `TYPES`.

    Raises:
        ValueError: another type; rows that the blocks of the type do not divide.

    Example:
        >>> n_bytes((2, 64), "Q8_0"), n_bytes((2, 64), "F16")
        (136, 256)
    """
    if kind not in TYPES:
        raise ValueError(f"a type must be one of {', '.join(TYPES)}; got {kind!r}")
    _, block_size, block_bytes = TYPES[kind]
    if not shape or shape[-1] % block_size:
        raise ValueError(
            f"{kind} takes rows of a multiple of {block_size} numbers; got a tensor of shape "
            f"{list(shape)}, which may stay F16"
        )
    return prod(shape) // block_size * block_bytes


def encode(values: Float32[Tensor, "*rows n"], kind: str) -> UInt8[Tensor, "*rows row_bytes"]:
    """The bytes of numbers in a type, row by row.

    Args:
        values: finite; n is a multiple of 32 for the types of blocks.
        kind: one of `TYPES`.

    Raises:
        ValueError: another type; rows that its blocks do not divide; a number that is not finite,
            or too large for float16, in which F16's numbers and all scales are.

    Example:
        >>> encode(torch.tensor([1.0, -2.0]), "F16").tolist()  # 0x3c00 and 0xc000, low byte first
        [0, 60, 0, 192]
    """
    n_bytes(values.shape, kind)  # checks
    if kind in FLOATS:
        numbers = values.to(FLOATS[kind])
        _check_finite(numbers, values, kind)
        return numbers.contiguous().view(torch.uint8)
    blocks = values.unflatten(-1, (-1, BLOCK))
    scales, whole = (_round_q8 if kind == "Q8_0" else _round_q4)(blocks)
    _check_finite(scales, values, kind)
    return torch.cat([scales.view(torch.uint8), whole], dim=-1).flatten(-2)


def decode(data: UInt8[Tensor, "*rows row_bytes"], kind: str) -> Float32[Tensor, "*rows n"]:
    """The numbers that `encode` wrote, as they read.

    Example:
        >>> halves = torch.arange(32) / 2  # up to 15.5, so 15.5/127 is the scale
        >>> (decode(encode(halves, "Q8_0"), "Q8_0") - halves).abs().max() < 15.5 / 127
        tensor(True)
    """
    if kind in FLOATS:
        return data.contiguous().view(FLOATS[kind]).float()
    blocks = data.unflatten(-1, (-1, TYPES[kind].block_bytes))
    scales = blocks[..., :2].contiguous().view(torch.float16).float()
    codes = blocks[..., 2:].contiguous()
    if kind == "Q8_0":
        whole = codes.view(torch.int8).float()
    else:
        whole = torch.cat([codes & 15, codes >> 4], dim=-1).float() - 8
    return (whole * scales).flatten(-2)


def _round_q8(blocks: Tensor) -> tuple[Tensor, Tensor]:
    """Scales, and whole numbers as bytes."""
    scales = blocks.abs().amax(-1, keepdim=True) / 127
    scaled = blocks * _inverse(scales)
    whole = scaled.trunc()
    whole += ((scaled - whole).abs() >= 0.5) * scaled.sign()  # halves away from zero, as C rounds
    return scales.half(), whole.to(torch.int8).view(torch.uint8)


def _round_q4(blocks: Tensor) -> tuple[Tensor, Tensor]:
    """Scales, and whole numbers plus 8, two to a byte."""
    largest = blocks.gather(-1, blocks.abs().argmax(-1, keepdim=True))
    scales = largest / -8
    codes = (blocks * _inverse(scales) + 8.5).clamp(max=15).to(torch.uint8)
    low, high = codes.chunk(2, dim=-1)
    return scales.half(), low | high << 4


def _inverse(scales: Tensor) -> Tensor:
    """1 / scale; 0 where float16 makes the scale 0."""
    return torch.where(scales.half() == 0, 0, 1 / scales)


def _check_finite(written: Tensor, values: Tensor, kind: str) -> None:
    if not written.isfinite().all():
        raise ValueError(
            f"{kind} cannot hold these numbers: the largest is {values.abs().max():g}, and "
            f"{'a scale' if kind[0] == 'Q' else 'a number'} must be finite, at most "
            f"{torch.finfo(FLOATS.get(kind, torch.float16)).max:g}"
        )
