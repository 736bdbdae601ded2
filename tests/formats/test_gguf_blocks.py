import gguf
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from minillm.formats.gguf_blocks import TYPES, decode, encode, n_bytes

ROWS = torch.randn(5, 96, generator=torch.Generator().manual_seed(0))
BLOCKS = arrays(np.float32, (2, 64), elements={"min_value": -30_000, "max_value": 30_000})


def block(*values):
    """A row of one block, zeros behind those values."""
    return torch.tensor([*values, *[0.0] * (32 - len(values))])


# --- by hand --------------------------------------------------------------------------------------
def test_a_block_of_q8_0_worked_on_paper():
    values = block(127.0, -126.4, 0.5, -0.5, 1.4)  # the scale is 1, 0x3c00
    codes = [127, -126, 1, -1, 1]  # halves away from zero
    assert encode(values, "Q8_0").tolist() == [0x00, 0x3C, *[n % 256 for n in codes], *[0] * 27]
    assert decode(encode(values, "Q8_0"), "Q8_0")[:5].tolist() == codes


def test_a_block_of_q4_0_worked_on_paper():
    values = block(4.0, -8.0, 1.2, 0.4, 8.0, *[0.0] * 11, 0.5, -0.6)  # -8 is first, the scale is 1
    low, high = [12, 0, 9, 8, 15, *[8] * 11], [9, 7, *[8] * 14]  # plus 8; number 8 becomes 7
    data = [0x00, 0x3C, *[a + 16 * b for a, b in zip(low, high, strict=True)]]
    assert encode(values, "Q4_0").tolist() == data
    assert decode(encode(values, "Q4_0"), "Q4_0").tolist() == [n - 8 for n in low + high]


def test_a_block_of_zeros_or_of_numbers_too_small_for_a_scale_is_zeros():
    for kind in ("Q8_0", "Q4_0"):
        for size in (0.0, 1e-9, 1e-42):
            data = encode(block(size, -size), kind)
            assert set(data[2:].tolist()) == {0 if kind == "Q8_0" else 8 + 8 * 16}
            assert decode(data, kind).tolist() == [0.0] * 32


# --- twins and references -------------------------------------------------------------------------
def naive_q4(values):
    """One block of Q4_0, a number at a time."""
    largest = max(values, key=abs)
    scale = largest / -8
    codes = [min(15, int(value / scale + 8.5)) for value in values]
    halves = zip(codes[:16], codes[16:], strict=True)
    return [*np.float16(scale).tobytes(), *(low | high << 4 for low, high in halves)]


def naive_q8(values):
    """One block of Q8_0, a number at a time."""
    scale = max(map(abs, values)) / 127
    codes = [int(abs(value / scale) + 0.5) * (1 if value > 0 else -1) for value in values]
    return [*np.float16(scale).tobytes(), *(code % 256 for code in codes)]


@pytest.mark.parametrize(("kind", "naive"), [("Q8_0", naive_q8), ("Q4_0", naive_q4)])
def test_blocks_are_those_of_a_loop_over_numbers(kind, naive):
    expected = [naive(values.tolist()) for values in ROWS.reshape(15, 32)]
    assert encode(ROWS, kind).reshape(15, -1).tolist() == expected


@pytest.mark.parametrize("kind", TYPES)
def test_bytes_and_numbers_are_those_of_the_gguf_package(kind):
    number_type = gguf.GGMLQuantizationType[kind]
    data = encode(ROWS, kind)
    expected = gguf.quants.quantize(ROWS.numpy(), number_type)
    assert data.numpy().tobytes() == expected.tobytes()
    assert (decode(data, kind).numpy() == gguf.quants.dequantize(expected, number_type)).all()
    assert TYPES[kind] == (number_type, *gguf.GGML_QUANT_SIZES[number_type])


# --- laws -----------------------------------------------------------------------------------------
@settings(max_examples=60, deadline=None)
@given(BLOCKS, st.sampled_from([("Q8_0", 127, 0.5), ("Q4_0", 8, 1.0)]))
def test_no_number_is_off_by_more_than_its_share_of_the_scale(values, of_kind):
    kind, steps, share = of_kind
    values = torch.from_numpy(values)
    error = (decode(encode(values, kind), kind) - values).abs().reshape(-1, 32)
    scale = values.abs().reshape(-1, 32).amax(-1, keepdim=True) / steps
    rounding = steps * torch.maximum(scale * 2**-11, torch.tensor(2.0**-25))  # of the scale itself
    assert (error <= (share * scale + rounding) * 1.0001).all()


@settings(max_examples=30, deadline=None)
@given(st.lists(st.integers(1, 3), max_size=2), st.integers(1, 3), st.sampled_from(list(TYPES)))
def test_shapes_come_back_and_bytes_are_as_many_as_said(axes, n_blocks, kind):
    values = torch.ones(*axes, 32 * n_blocks)
    data = encode(values, kind)
    assert decode(data, kind).shape == values.shape
    assert data.numel() == n_bytes(values.shape, kind)


# --- what can be wrong ----------------------------------------------------------------------------
@pytest.mark.parametrize(
    ("values", "kind", "words"),
    [
        (block(1.0), "Q5_K", "F32, F16, BF16, Q8_0, Q4_0; got 'Q5_K'"),
        (torch.ones(2, 344), "Q4_0", r"multiple of 32 .* shape \[2, 344\]"),
        (block(1e6), "F16", "largest is 1e.06, and a number must be finite, at most 65504"),
        (block(1e7), "Q8_0", "largest is 1e.07, and a scale must be finite"),
        (block(float("nan")), "Q4_0", "cannot hold"),
    ],
)
def test_what_a_type_cannot_hold_is_refused(values, kind, words):
    with pytest.raises(ValueError, match=words):
        encode(values, kind)
