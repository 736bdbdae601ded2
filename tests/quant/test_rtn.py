import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from minillm.quant.rtn import BITS, CLIPS, Grid, decode, encode, quantize, scale_for, scale_of

sizes = st.integers(1, 6)
seeds = st.integers(0, 10**6)
bits = st.sampled_from(BITS)


def matrix(rows, columns, seed, spread=1.0):
    generator = torch.Generator().manual_seed(seed)
    return spread * torch.randn(rows, columns, generator=generator)


# --- by hand --------------------------------------------------------------------------------------
def test_a_symmetric_grid_has_its_largest_weight_at_its_end():
    weight = torch.tensor([[1.5, -0.5, 0.2], [-7.0, 3.4, 3.6]])
    quantized = quantize(weight, Grid(bits=4))
    assert quantized.codes.tolist() == [[15, 6, 9], [1, 11, 12]]  # 8 stands for 0
    assert quantized.scales.tolist() == pytest.approx([1.5 / 7, 1.0], rel=1e-3)
    assert quantized.zeros is None
    assert quantized.dequantize()[1].tolist() == [-7, 3, 4]


def test_an_asymmetric_grid_reaches_from_the_lowest_to_the_highest():
    quantized = quantize(torch.tensor([[-1.0, 2.0, 0.4, 0.6]]), Grid(bits=2, symmetric=False))
    assert quantized.codes.tolist() == [[0, 3, 1, 2]]  # -1, 0, 1 and 2
    assert (quantized.scales.item(), quantized.zeros.item()) == (1, 1)
    assert quantized.dequantize().tolist() == [[-1, 2, 0, 1]]


def test_a_grid_of_positive_weights_still_has_a_zero():
    quantized = quantize(torch.tensor([[3.0, 2.0, 0.9]]), Grid(bits=2, symmetric=False))
    assert quantized.zeros.item() == 0
    assert quantized.dequantize().tolist() == [[3, 2, 1]]


def test_half_way_goes_to_the_even_number():
    scale, zero = torch.tensor(1.0), torch.tensor(8.0)
    assert encode(torch.tensor([0.5, 1.5, -0.5, 99.0]), scale, zero, 4).tolist() == [8, 10, 8, 15]


def test_a_block_of_zeros_and_one_of_tiny_weights_stay_numbers():
    for symmetric in (True, False):
        quantized = quantize(torch.tensor([[0.0, 0.0], [1e-9, -1e-9]]), Grid(symmetric=symmetric))
        assert quantized.dequantize().abs().max() == 0


@pytest.mark.parametrize(
    ("grid", "n_bytes", "n_scales"),
    [
        (Grid(bits=8, granularity="tensor"), 192 + 2, 1),
        (Grid(bits=3), 72 + 2 * 4, 4),
        (Grid(bits=2, granularity=16, symmetric=False), 48 + 4 * 12, 12),
    ],
)
def test_bytes_are_packed_codes_and_16_bits_for_each_scale_and_zero(grid, n_bytes, n_scales):
    quantized = quantize(matrix(4, 48, seed=0), grid)
    assert (quantized.n_bytes, len(quantized.scales)) == (n_bytes, n_scales)
    assert grid.n_bytes(4, 48) == n_bytes


def test_one_outlier_spoils_its_own_block_only():
    weight = torch.ones(2, 8) * torch.tensor([0.1, -0.1] * 4)
    weight[0, 0] = 100
    spoiled = {
        granularity: int((quantize(weight, Grid(granularity=granularity)).codes == 8).sum())
        for granularity in ("tensor", "channel", 4)
    }
    assert spoiled == {"tensor": 15, "channel": 7, 4: 3}  # so many became 0


def test_a_clipped_grid_cuts_one_large_weight_for_the_sake_of_many():
    weight = torch.tensor([[0.1] * 300 + [1.0]])
    whole, clipped = (quantize(weight, Grid(bits=2, clip=clip)) for clip in (False, True))
    assert whole.dequantize()[0].tolist() == [0.0] * 300 + [1.0]
    # 300 (0.1 - s)² + (1 - s)² is least at s = 31 / 301; of those that are tried, at 0.1
    assert clipped.dequantize()[0].tolist() == pytest.approx([0.1] * 301, rel=1e-3)
    assert str(clipped.grid) == "2 bits, channel, clipped"
    assert clipped.n_bytes == whole.n_bytes


# --- twin -----------------------------------------------------------------------------------------
def naive(weight, grid):
    """Weight by weight, as it is written."""
    rows, columns = weight.shape
    n = {"tensor": rows * columns, "channel": columns}.get(grid.granularity, grid.granularity)
    flat, top, codes = weight.flatten().tolist(), 2**grid.bits - 1, []
    for first in range(0, rows * columns, n):
        block = flat[first : first + n]
        low, high = min(0, *block, 0), max(0, *block, 0)
        largest = max(-low, high)
        span = 2 * largest / (top - 1) if grid.symmetric else (high - low) / top
        scale = torch.tensor(span).half().item()
        zero = 2 ** (grid.bits - 1) if grid.symmetric else min(max(round(-low / scale), 0), top)
        codes += [min(max(round(w / scale) + zero, 0), top) for w in block]
    return torch.tensor(codes).view(rows, columns)


@given(sizes, st.integers(1, 3), bits, st.sampled_from(["tensor", "channel", 4]), st.booleans())
def test_all_weights_at_once_are_as_each_alone(rows, quarter, n_bits, granularity, symmetric):
    grid = Grid(bits=n_bits, granularity=granularity, symmetric=symmetric)
    weight = matrix(rows, 4 * quarter, seed=rows + quarter)
    assert (quantize(weight, grid).codes - naive(weight, grid)).abs().max() == 0


# --- laws -----------------------------------------------------------------------------------------
@given(seeds, bits, st.booleans(), st.floats(1e-2, 1e3))
def test_the_error_is_at_most_half_a_step_inside_the_grid(seed, n_bits, symmetric, spread):
    x = matrix(3, 17, seed, spread)
    scale, zero = scale_of(x, n_bits, symmetric)
    codes = encode(x, scale, zero, n_bits)
    low, high = (-zero * scale)[:, None], ((2**n_bits - 1 - zero) * scale)[:, None]
    error = (decode(codes, scale, zero) - x.clamp(low, high)).abs()
    assert (error <= 0.5001 * scale[:, None]).all()
    beyond = (x - x.clamp(low, high)).abs()  # as far as 16 bits of a scale can be wrong, and Δ/2
    assert (beyond <= 0.63 * scale[:, None]).all()


@given(seeds, bits, st.booleans())
def test_rounding_what_is_rounded_changes_nothing(seed, n_bits, symmetric):
    grid = Grid(bits=n_bits, granularity=8, symmetric=symmetric)
    once = quantize(matrix(3, 16, seed), grid)
    scale = once.scales.float()
    zero = torch.full_like(scale, 2 ** (n_bits - 1)) if symmetric else once.zeros.float()
    again = encode(once.dequantize().view(-1, 8), scale, zero, n_bits)
    assert torch.equal(again.view(3, 16), once.codes)


@given(seeds, bits)
def test_a_weight_turned_round_is_its_code_turned_round(seed, n_bits):
    weight, grid = matrix(2, 9, seed), Grid(bits=n_bits)
    assert torch.equal(quantize(-weight, grid).dequantize(), -quantize(weight, grid).dequantize())


@given(seeds, bits, st.booleans())
def test_a_clipped_scale_is_the_best_of_those_that_are_tried(seed, n_bits, symmetric):
    x, grid = matrix(2, 12, seed), Grid(bits=n_bits, symmetric=symmetric, clip=True)
    scales = [scale_of(share * x, n_bits, symmetric) for share in (1, *CLIPS)]
    *errors, error = (
        (decode(encode(x, *scale, n_bits), *scale) - x).square().sum(-1)
        for scale in (*scales, scale_for(x, grid))
    )
    assert torch.equal(error, torch.stack(errors).amin(0))


# --- what is refused ------------------------------------------------------------------------------
def test_grids_that_are_none_are_refused():
    with pytest.raises(ValueError, match="one of 8, 4, 3, 2; got 5"):
        Grid(bits=5)
    for wrong in ("row", 0, True, 1.5):
        with pytest.raises(ValueError, match="granularity must be"):
            Grid(granularity=wrong)
    with pytest.raises(ValueError, match=r"groups of 5 and rows of 12.*1, 2, 3, 4, 6, 12"):
        quantize(torch.ones(2, 12), Grid(granularity=5))


def test_weights_that_fit_no_grid_are_refused():
    for wrong in (torch.nan, torch.inf):
        with pytest.raises(ValueError, match="NaN or infinite"):
            quantize(torch.tensor([[1.0, wrong]]), Grid())
    with pytest.raises(ValueError, match="1e\\+06, and float16"):
        quantize(torch.tensor([[1e6, 1.0]]), Grid())
    for shape in ((0, 4), (4, 0)):
        with pytest.raises(ValueError, match="must be a weight to round; got"):
            quantize(torch.zeros(shape), Grid())
