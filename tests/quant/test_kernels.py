import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from minillm.model.config import tiny
from minillm.quant import kernels
from minillm.quant.apply import quantize
from minillm.quant.kernels import has_kernel, linear, pack, with_kernels
from minillm.quant.layers import place
from minillm.quant.plan import plan
from minillm.quant.rtn import Grid
from minillm.quant.rtn import quantize as rounded

TAKEN = {
    "int8": [Grid(bits=8), Grid(bits=8, granularity="tensor")],
    "int4": [
        Grid(bits=4),
        Grid(bits=4, granularity="tensor", symmetric=False),
        Grid(bits=3, granularity=32, symmetric=False),
        Grid(bits=2, granularity=64),
    ],
    "float": [Grid(bits=8, symmetric=False), Grid(bits=8, granularity=32), Grid(granularity=16)],
}
CASES = [(kind, grid) for kind, grids in TAKEN.items() for grid in grids]


def some(*shape, seed=0):
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def error(value, x):
    exact = x @ value.dequantize().T
    return ((linear(x, pack(value)) - exact).abs().max() / exact.abs().max()).item()


def test_this_torch_has_both_kernels():
    """If this fails, torch took them away or renamed them: `linear` is right, but slow."""
    assert has_kernel("int8")
    assert has_kernel("int4")


@pytest.mark.parametrize(("kind", "grid"), CASES, ids=str)
def test_a_kernel_gives_what_the_numbers_give(kind, grid):
    value = rounded(some(48, 128), grid)
    assert pack(value).kind == kind
    for n_rows in (1, 5):
        assert error(value, some(n_rows, 128, seed=1)) < (1e-5 if kind == "float" else 0.02)


@given(st.integers(1, 40), st.integers(1, 70), st.integers(1, 5), st.sampled_from([4, 8]))
def test_any_size_is_filled_up_to_one_that_the_kernel_reads_safely(rows, columns, n_rows, bits):
    value = rounded(some(rows, columns), Grid(bits=bits))
    packed, x = pack(value), some(n_rows, columns, seed=1)
    assert linear(x, packed).shape == (n_rows, rows)
    scale = x.norm(dim=1, keepdim=True) * value.dequantize().norm(dim=1)
    assert ((linear(x, packed) - x @ value.dequantize().T).abs() <= 0.02 * scale + 1e-6).all()
    if packed.kind == "int8":
        assert packed.weight.shape[1] % 32 == 0


@pytest.mark.parametrize(("kind", "grid"), CASES, ids=str)
def test_without_kernels_the_numbers_are_right_all_the_same(kind, grid, monkeypatch):
    monkeypatch.setattr(kernels, "NAMES", {"int8": ("_gone",), "int4": ("relu", "_gone")})
    value = rounded(some(48, 128), grid)
    assert pack(value).kind == "float"
    assert error(value, some(3, 128, seed=1)) < 1e-5


@pytest.mark.parametrize("grid", [Grid(bits=8), Grid(bits=4, granularity=32)], ids=str)
def test_a_model_with_kernels_says_nearly_the_same(grid):
    model = tiny(vocab_size=50).build(seed=0)
    small, _ = quantize(model, plan(model, "rtn", grid))
    fast, tokens = with_kernels(small), torch.arange(20)[None]
    cache = fast.new_cache(batch_size=1)
    with torch.no_grad():
        exact = small(tokens)
        for logits in (fast(tokens), fast(tokens, cache=cache), fast.bfloat16()(tokens).float()):
            assert (logits - exact).abs().max() < 0.05 * exact.abs().max()


def test_a_bias_is_added_after_the_kernel():
    layer = torch.nn.Linear(32, 16)
    model = torch.nn.Sequential(layer)
    x, bias = some(2, 32), layer.bias.detach().clone()
    place(model, "0", rounded(layer.weight.detach(), Grid(bits=8)))
    with torch.no_grad():
        difference = with_kernels(model)(x) - linear(x, pack(model[0].matrix.value))
    torch.testing.assert_close(difference, bias.expand(2, -1), rtol=1e-3, atol=1e-4)


def test_only_the_form_for_the_kernel_is_kept_and_nobody_computes_with_the_weight():
    model = torch.nn.Sequential(torch.nn.Linear(64, 32, bias=False))
    place(model, "0", rounded(model[0].weight.detach(), Grid(bits=8)))
    layer = with_kernels(model).bfloat16()[0]
    assert layer.packed.n_bytes == 64 * 32 + 2 * 32
    assert not layer.state_dict()
    assert (layer.weight.shape, layer.weight.dtype) == ((32, 64), torch.bfloat16)
    assert layer.weight.isnan().all()
