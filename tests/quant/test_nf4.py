import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from minillm.quant import rtn
from minillm.quant.nf4 import (
    NF4Config,
    double_dequantize,
    double_quantize,
    levels,
    nearest,
    quantize,
)

#: QLoRA, appendix E, as bitsandbytes has them.
PUBLISHED = [
    -1.0, -0.6961928009986877, -0.5250730514526367, -0.39491748809814453, -0.28444138169288635,
    -0.18477343022823334, -0.09105003625154495, 0.0, 0.07958029955625534, 0.16093020141124725,
    0.24611230194568634, 0.33791524171829224, 0.44070982933044434, 0.5626170039176941,
    0.7229568362236023, 1.0,
]  # fmt: skip


def normal(rows, columns, seed=0):
    return torch.randn(rows, columns, generator=torch.Generator().manual_seed(seed))


# --- by hand --------------------------------------------------------------------------------------
def test_a_block_is_its_largest_weight_times_the_16_numbers():
    numbers = levels()
    weight = torch.cat([3 * numbers, -2 * numbers]).view(2, 16)
    quantized = quantize(weight, NF4Config(block_size=16))
    assert quantized.codes[0].tolist() == list(range(16))
    torch.testing.assert_close(quantized.dequantize()[0], weight[0], rtol=1e-5, atol=1e-6)
    assert quantized.dequantize()[1, 0] == pytest.approx(2, rel=1e-5)


def test_scales_are_8_bits_around_their_mean():
    double = double_quantize(torch.tensor([1.0, 2.0, 6.0]))
    assert (double.mean.item(), double.steps.item()) == (3, pytest.approx(3 / 127))
    assert double.codes.tolist() == [128 - 85, 128 - 42, 255]  # -84.7, -42.3 and 127 steps
    assert double_dequantize(*double)[2] == pytest.approx(6)


def test_double_quantization_leaves_0_127_bits_a_weight():
    rows = columns = 4096
    overhead = 8 * NF4Config().n_bytes(rows, columns) / (rows * columns) - 4
    assert round(overhead, 3) == 0.127
    assert overhead == pytest.approx(8 / 64 + 32 / (64 * 256), abs=1e-5)


def test_matrices_of_any_size_have_a_shorter_last_block():
    quantized = quantize(normal(7, 11), NF4Config(block_size=32))
    assert (len(quantized.scales), len(quantized.steps)) == (3, 1)
    assert quantized.n_bytes == 39 + 3 + 4 + 4


def test_zeros_stay_zeros():
    weight = torch.zeros(2, 64)
    weight[1] = normal(1, 64)
    assert quantize(weight).dequantize()[0].abs().max() == 0
    assert quantize(torch.zeros(1, 5)).dequantize().abs().max() == 0


# --- reference ------------------------------------------------------------------------------------
def test_the_16_numbers_are_the_published_ones():
    torch.testing.assert_close(levels(), torch.tensor(PUBLISHED), rtol=0, atol=1e-6)


def test_normal_numbers_lose_less_than_by_int4():
    weight = normal(256, 1024)

    def error(quantized):
        return (quantized.dequantize() - weight).square().mean().item()

    int4 = error(rtn.quantize(weight, rtn.Grid(bits=4, granularity=64)))
    assert error(quantize(weight)) <= 0.9 * int4
    assert error(quantize(weight)) > 0.5 * int4


# --- laws -----------------------------------------------------------------------------------------
@given(st.lists(st.floats(-1.5, 1.5, width=32), min_size=1))
def test_no_other_of_the_16_is_nearer(numbers):
    x = torch.tensor(numbers)
    error = (levels()[nearest(x).int()] - x).abs()
    best = (levels() - x[:, None]).abs().min(dim=1).values
    torch.testing.assert_close(error, best, rtol=0, atol=1e-6)


@given(st.integers(1, 9), st.integers(1, 70), st.sampled_from([1, 16, 64]))
def test_the_error_is_at_most_half_the_widest_gap_of_its_block(rows, columns, block_size):
    weight = normal(rows, columns, seed=rows * columns)
    quantized = quantize(weight, NF4Config(block_size=block_size))
    scale = double_dequantize(quantized.scales, quantized.steps, quantized.mean)
    largest = torch.stack([part.abs().max() for part in weight.flatten().split(block_size)])
    lost = (scale - largest).abs()  # by the scales' own rounding
    bound = (0.152 * scale.abs() + lost).repeat_interleave(block_size)[: weight.numel()]
    error = (quantized.dequantize() - weight).abs().flatten()
    assert (error <= bound + 1e-6).all()


# --- what is refused ------------------------------------------------------------------------------
def test_what_is_no_number_and_no_block_is_refused():
    with pytest.raises(ValueError, match="NaN or infinite"):
        quantize(torch.tensor([[torch.inf, 1.0]]))
    with pytest.raises(ValueError, match="block_size must be at least 1; got 0"):
        NF4Config(block_size=0)
