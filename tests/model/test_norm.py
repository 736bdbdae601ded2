import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from transformers.models.llama.modeling_llama import LlamaRMSNorm

from minillm.model.norm import RMSNorm, rms_norm, rms_norm_naive


def numbers(*shape, seed=0, dtype=torch.float32):
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(shape, generator=generator, dtype=torch.float64).to(dtype)


BOTH = pytest.mark.parametrize("norm", [rms_norm_naive, rms_norm])


# --- by hand -----------------------------------------------------------------------------------
@BOTH
def test_one_and_seven_are_divided_by_five_and_multiplied_by_the_gain(norm):
    # √((1 + 49) / 2) = 5; no mean is subtracted
    y = norm(torch.tensor([1.0, 7.0]), torch.tensor([10.0, 100.0]), 0.0)
    assert y.tolist() == pytest.approx([2.0, 140.0])


@BOTH
def test_epsilon_stands_under_the_root_and_keeps_zeros_zeros(norm):
    assert norm(torch.zeros(4), torch.ones(4), 1e-6).tolist() == [0.0] * 4
    # mean(x²) = 9, ε = 16: x / √(9 + 16)
    assert norm(torch.tensor([3.0, -3.0]), torch.ones(2), 16.0).tolist() == pytest.approx(
        [0.6, -0.6]
    )


@BOTH
def test_a_number_whose_square_is_beyond_float16_is_normed_in_float16(norm):
    y = norm(torch.tensor([300.0, 300.0], dtype=torch.float16), torch.ones(2).half(), 1e-6)
    assert y.dtype == torch.float16
    assert y.tolist() == [1.0, 1.0]


def test_the_module_begins_with_gains_of_one_and_has_no_other_numbers():
    norm = RMSNorm(3, epsilon=0.5)
    assert {name: p.tolist() for name, p in norm.named_parameters()} == {"weight": [1.0, 1.0, 1.0]}
    # mean(x²) = 2, so √2.5
    assert norm(torch.tensor([2.0, 1.0, 1.0])).tolist() == pytest.approx(
        [2 / math.sqrt(2.5), 1 / math.sqrt(2.5), 1 / math.sqrt(2.5)]
    )
    assert str(norm) == "RMSNorm(3, epsilon=0.5)"


def test_what_lies_along_a_token_has_no_gradient_and_what_lies_across_is_shortened():
    # x = (3, 4), √(25 / 2) = 3.5355: y keeps its length whatever x's, so only (-4, 3) matters
    root = math.sqrt(12.5)
    for gradient, expected in (([3.0, 4.0], [0.0, 0.0]), ([-4.0, 3.0], [-4 / root, 3 / root])):
        x = torch.tensor([3.0, 4.0], requires_grad=True)
        weight = torch.ones(2, requires_grad=True)
        rms_norm(x, weight, 0.0).backward(torch.tensor(gradient))
        assert x.grad.tolist() == pytest.approx(expected, abs=1e-6)
    assert weight.grad.tolist() == pytest.approx([-4 * 3 / root, 3 * 4 / root])


# --- twin --------------------------------------------------------------------------------------
@pytest.mark.parametrize(
    ("dtype", "tolerance"), [(torch.float64, 1e-14), (torch.float32, 1e-6), (torch.bfloat16, 1e-2)]
)
def test_fast_is_naive_with_all_its_gradients(dtype, tolerance):
    outcomes = []
    for norm in (rms_norm_naive, rms_norm):
        x = (10 * numbers(3, 5, 16, dtype=dtype)).requires_grad_()
        weight = (1 + numbers(16, seed=1, dtype=dtype)).requires_grad_()
        y = norm(x, weight, 1e-3)
        assert y.dtype == dtype
        y.backward(numbers(3, 5, 16, seed=2, dtype=dtype))
        outcomes.append((y.detach(), x.grad, weight.grad))
    for naive, fast in zip(*outcomes, strict=True):
        torch.testing.assert_close(fast, naive, rtol=0, atol=tolerance * naive.abs().max().item())


# --- reference ---------------------------------------------------------------------------------
def test_it_is_the_norm_of_transformers_llama():
    ours, theirs = RMSNorm(24, epsilon=1e-2), LlamaRMSNorm(24, eps=1e-2)
    with torch.no_grad():
        ours.weight.copy_(numbers(24))
        theirs.weight.copy_(ours.weight)
    x = numbers(2, 7, 24, seed=1)
    torch.testing.assert_close(ours(x), theirs(x), rtol=0, atol=1e-6)


# --- law ---------------------------------------------------------------------------------------
@given(st.integers(1, 40), st.floats(1e-3, 1e3), st.integers(0, 99))
@settings(max_examples=50, deadline=None)
def test_the_size_of_a_token_is_forgotten_and_becomes_the_root_of_the_width(d_model, factor, seed):
    x = numbers(d_model, seed=seed, dtype=torch.float64) + 0.1
    y = rms_norm(x, torch.ones(d_model).double(), 0.0)
    assert y.norm().item() == pytest.approx(math.sqrt(d_model))
    torch.testing.assert_close(rms_norm(factor * x, torch.ones(d_model).double(), 0.0), y)
    torch.testing.assert_close(y / y.norm(), x / x.norm())  # the direction stays


def test_each_token_is_normed_by_itself():
    x = numbers(2, 3, 8)
    norm = RMSNorm(8)
    whole = norm(x)
    for row in range(2):
        for place in range(3):
            torch.testing.assert_close(norm(x[row, place]), whole[row, place])


def test_of_a_token_only_its_scale_is_remembered_beside_what_was_given():
    x, weight = numbers(3, 5, 16).requires_grad_(), torch.ones(16, requires_grad=True)
    remembered = []

    def remember(tensor):
        remembered.append(tensor)
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(remember, lambda tensor: tensor):
        rms_norm(x, weight)
    assert [list(tensor.shape) for tensor in remembered] == [[3, 5, 16], [16], [3, 5, 1]]
    assert remembered[0].data_ptr() == x.data_ptr()


def test_where_no_gradient_is_wanted_none_is_prepared():
    x, weight = numbers(3, 16), torch.ones(16, requires_grad=True)
    with torch.no_grad():
        assert rms_norm(x, weight).grad_fn is None
    assert rms_norm(x, weight.detach()).grad_fn is None
    assert rms_norm(x, weight).grad_fn is not None


def test_a_gradient_of_the_gradient_is_refused_and_not_wrong():
    x = numbers(3, 16).requires_grad_()
    with pytest.raises(ValueError, match=r"no gradients of gradients.*Use rms_norm_naive"):
        torch.autograd.grad(rms_norm(x, torch.ones(16)).sum(), x, create_graph=True)


def test_device_and_dtype_are_arguments():
    norm = RMSNorm(8, device="meta", dtype=torch.bfloat16)
    y = norm(torch.empty(2, 8, device="meta", dtype=torch.bfloat16))
    assert (y.device.type, y.dtype, y.shape) == ("meta", torch.bfloat16, (2, 8))
    with torch.device("meta"):  # a default device changes nothing
        assert RMSNorm(8).weight.device.type == "cpu"
