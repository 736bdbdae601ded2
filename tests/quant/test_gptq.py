import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from minillm.quant import gptq, rtn
from minillm.quant.gptq import Hessian, hessian
from minillm.quant.rtn import BITS, Grid

ALL_GRIDS = [
    Grid(bits=bits, granularity=granularity, symmetric=symmetric)
    for bits in BITS
    for granularity in ("tensor", "channel", 4)
    for symmetric in (True, False)
]


def layer(seed, rows=5, columns=8, n_inputs=64):
    """A matrix, and inputs that are alike, as those of a network are."""
    generator = torch.Generator().manual_seed(seed)
    mixing = torch.randn(columns, columns, generator=generator)
    x = torch.randn(n_inputs, columns, generator=generator) @ mixing
    return torch.randn(rows, columns, generator=generator), x


def output_error(weight, quantized, x):
    return (x @ (weight - quantized.dequantize()).T).square().sum().item()


# --- by hand --------------------------------------------------------------------------------------
@pytest.mark.parametrize("grid", ALL_GRIDS, ids=str)
@pytest.mark.parametrize("ordered", [False, True])
def test_inputs_that_are_not_alike_give_round_to_nearest(grid, ordered):
    weight, _ = layer(seed=1)
    nearest = rtn.quantize(weight, grid)
    quantized = gptq.quantize(weight, torch.eye(8).double(), grid, damping=0, ordered=ordered)
    assert torch.equal(quantized.codes, nearest.codes)
    assert torch.equal(quantized.scales, nearest.scales)


def test_the_second_of_two_equal_inputs_takes_what_the_first_lost():
    weight = torch.tensor([[0.4, 0.4, 3.0], [0.6, 0.6, 3.0]])
    x = torch.tensor([[1.0, 1.0, 0.0], [0.0, 0.0, 1.0]])
    quantized = gptq.quantize(weight, hessian(x), Grid(bits=3), damping=1e-6)  # the scale is 1
    assert quantized.dequantize().tolist() == [[0, 1, 3], [1, 0, 3]]


def test_a_hessian_is_a_sum_over_inputs_however_they_come():
    _, x = layer(seed=2, n_inputs=12)
    total = Hessian(columns=8)
    for part in (x[:4].view(2, 2, 8), x[4:5], x[5:]):
        total.add(part)
    torch.testing.assert_close(total.matrix, 2 * x.double().T @ x.double())
    assert total.n_inputs == 12


def test_a_dead_column_is_rounded_to_nearest_and_moves_nothing():
    weight, x = layer(seed=3)
    x[:, 2] = 0
    quantized = gptq.quantize(weight, hessian(x), Grid())
    assert torch.equal(quantized.codes[:, 2], rtn.quantize(weight, Grid()).codes[:, 2])
    rest = [0, 1, 3, 4, 5, 6, 7]
    grid = Grid(granularity="tensor")  # a scale that the column has no part in
    weight[0, 0] = 9
    with_it = gptq.quantize(weight, hessian(x), grid)
    without = gptq.quantize(weight[:, rest], hessian(x[:, rest]), grid)
    assert torch.equal(with_it.codes[:, rest], without.codes)


def test_a_larger_unit_of_inputs_changes_nothing():
    weight, x = layer(seed=4)
    once, twice = (gptq.quantize(weight, n * hessian(x), Grid(bits=3)) for n in (1, 4096))
    assert torch.equal(once.codes, twice.codes)


# --- reference ------------------------------------------------------------------------------------
def exact_obq(weight, H, grid, order):
    """Optimal brain quantization in a fixed order, with an inverse that is made anew each time."""
    n = grid.block_size(*weight.shape)
    scale, zero = rtn.scale_of(weight.view(-1, n), grid.bits, grid.symmetric)
    codes = torch.empty(weight.shape, dtype=torch.uint8)
    for row in range(len(weight)):
        w, left = weight[row].double(), list(order)
        block = scale[row, None], zero[row, None]
        while left:
            column = left[0]
            inverse = torch.linalg.inv(H[left][:, left])
            code = rtn.encode(w[column].view(1, 1), *block, grid.bits)
            codes[row, column] = code
            error = w[column] - rtn.decode(code, *block).item()
            w[left] -= error / inverse[0, 0] * inverse[:, 0]
            left = left[1:]
    return codes


@pytest.mark.parametrize("bits", BITS)
@pytest.mark.parametrize("ordered", [False, True])
def test_six_columns_are_those_of_exact_obq(bits, ordered):
    weight, x = layer(seed=bits, rows=12, columns=6)
    H, grid = hessian(x), Grid(bits=bits, symmetric=False)
    damped = H + 0.01 * H.diagonal().mean() * torch.eye(6)
    order = H.diagonal().argsort(descending=True).tolist() if ordered else list(range(6))
    quantized = gptq.quantize(weight, H, grid, ordered=ordered)
    assert torch.equal(quantized.codes, exact_obq(weight, damped, grid, order))
    assert not torch.equal(quantized.codes, rtn.quantize(weight, grid).codes)


def test_a_groups_scale_is_that_of_its_weights_when_it_is_reached():
    weight, x = layer(seed=5, rows=3, columns=8)
    grid = Grid(bits=3, granularity=4, symmetric=False)
    quantized = gptq.quantize(weight, hessian(x), grid)
    # the second group by hand: the exact move of its weights after the first group's errors
    H = hessian(x) + 0.01 * hessian(x).diagonal().mean() * torch.eye(8)
    errors = (weight - quantized.dequantize())[:, :4].double()
    moved = weight[:, 4:].double() + errors @ H[:4, 4:] @ torch.linalg.inv(H[4:, 4:])
    scale, _ = rtn.scale_of(moved, 3, symmetric=False)
    torch.testing.assert_close(quantized.scales.view(3, 2)[:, 1].float(), scale, rtol=2e-3, atol=0)


# --- laws -----------------------------------------------------------------------------------------
@pytest.mark.parametrize("grid", ALL_GRIDS, ids=str)
def test_outputs_are_nearer_than_those_of_round_to_nearest_on_average(grid):
    ratios = []
    for seed in range(30):
        weight, x = layer(seed, rows=16, columns=16)
        error = output_error(weight, gptq.quantize(weight, hessian(x), grid), x)
        ratios.append(error / output_error(weight, rtn.quantize(weight, grid), x))
    assert sum(ratios) / len(ratios) < 0.8


@given(st.integers(0, 10**6))
def test_columns_in_another_order_give_the_same_where_the_largest_input_comes_first(seed):
    weight, x = layer(seed)
    order = torch.randperm(8, generator=torch.Generator().manual_seed(seed))
    grid = Grid(bits=3)
    there = gptq.quantize(weight, hessian(x), grid, ordered=True)
    here = gptq.quantize(weight[:, order], hessian(x[:, order]), grid, ordered=True)
    same = (there.codes[:, order] == here.codes).float().mean()
    assert same > 0.95  # all, but for what lies half-way up to rounding


# --- what is refused ------------------------------------------------------------------------------
def test_a_singular_hessian_is_refused_without_damping():
    weight, x = layer(seed=6, n_inputs=4)  # 4 inputs for 8 columns
    with pytest.raises(ValueError, match=r"8 columns is singular with a damping of 0.*as 0\.01"):
        gptq.quantize(weight, hessian(x), Grid(), damping=0)
    gptq.quantize(weight, hessian(x), Grid())


def test_an_input_that_is_the_sum_of_others_up_to_rounding_is_refused_as_well():
    weight, x = layer(seed=8)
    x[:, 7] = x[:, 0] / 3 + x[:, 1] / 7
    with pytest.raises(ValueError, match="is singular"):
        gptq.quantize(weight, hessian(x), Grid(), damping=0)


def test_what_is_no_number_is_refused():
    weight, x = layer(seed=7)
    x[0, 0] = torch.nan
    with pytest.raises(ValueError, match="the Hessian has a NaN"):
        gptq.quantize(weight, hessian(x), Grid())
    with pytest.raises(ValueError, match="damping must be"):
        gptq.quantize(weight, torch.eye(8).double(), Grid(), damping=-1)
    weight[0, 0] = torch.nan
    with pytest.raises(ValueError, match="weights that are NaN"):
        gptq.quantize(weight, torch.eye(8).double(), Grid())
