import math

import pytest
import torch
from torch import nn
from transformers import LlamaConfig
from transformers.activations import ACT2FN
from transformers.models.llama.modeling_llama import LlamaMLP

from minillm.model import count
from minillm.model.ffn import (
    MLP,
    MLPConfig,
    SwiGLU,
    SwiGLUConfig,
    activate,
    swiglu_naive,
)


def numbers(*shape, seed=0):
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def matrix(*rows):
    return torch.tensor(rows, dtype=torch.float32)


def filled(layer, seed=0):
    """The layer with weights of a size that shows (first weights are small)."""
    with torch.no_grad():
        for i, parameter in enumerate(layer.parameters()):
            parameter.copy_(numbers(*parameter.shape, seed=seed + i))
    return layer


LAYERS = pytest.mark.parametrize(
    "config",
    [SwiGLUConfig(), SwiGLUConfig(d_ff=5), MLPConfig(), MLPConfig(activation="relu2")],
    ids=["swiglu", "swiglu-5", "mlp", "mlp-relu2"],
)


# --- by hand -----------------------------------------------------------------------------------
def test_a_gate_of_log_three_lets_three_quarters_of_it_through():
    # sigmoid(log 3) = 3/4, so silu(log 3) = 3/4 log 3; up brings 2, down doubles
    layer = SwiGLU(1, 1)
    with torch.no_grad():
        layer.gate_up.weight.copy_(matrix([math.log(3)], [2.0]))  # the gate's row first
        layer.down.weight.copy_(matrix([2.0]))
    y, routing = layer(torch.ones(1, 1, 1))
    assert y.item() == pytest.approx(0.75 * math.log(3) * 2 * 2)
    assert routing is None


def test_the_plain_layer_bends_between_its_two_matrices():
    layer = MLP(2, 2, "relu")
    with torch.no_grad():
        layer.up.weight.copy_(matrix([1, -1], [-1, 1]))
        layer.down.weight.copy_(matrix([1, 0], [10, 100]))
    y, routing = layer(matrix([5, 2])[None])  # up gives 3 and -3, relu 3 and 0
    assert y.tolist() == [[[3.0, 30.0]]]
    assert routing is None


def test_the_three_activations_on_paper():
    x = torch.tensor([-2.0, 0.0, 3.0])
    assert activate(x, "relu").tolist() == [0, 0, 3]
    assert activate(x, "relu2").tolist() == [0, 0, 9]
    bell = [0.5 * (1 + math.erf(value / math.sqrt(2))) for value in x.tolist()]
    assert activate(x, "gelu").tolist() == pytest.approx([-2 * bell[0], 0, 3 * bell[2]], abs=1e-6)


@pytest.mark.parametrize(
    ("d_model", "d_ff"), [(3, 8), (64, 176), (96, 256), (128, 344), (320, 856)]
)
def test_swiglu_is_eight_thirds_wide_rounded_up_to_a_multiple_of_eight(d_model, d_ff):
    assert SwiGLUConfig().build(d_model).down.in_features == d_ff
    assert d_ff == math.ceil(8 * d_model / 3 / 8) * 8


def test_a_hidden_width_that_is_given_is_taken_and_four_times_the_width_is_the_plain_layers_own():
    assert SwiGLUConfig(d_ff=5).build(8).gate_up.weight.shape == (10, 8)
    assert MLPConfig(d_ff=5).build(8).up.weight.shape == (5, 8)
    assert MLPConfig().build(8).up.weight.shape == (32, 8)


# --- twin --------------------------------------------------------------------------------------
def test_one_matrix_for_gate_and_up_is_two():
    layer = filled(SwiGLU(6, 10))
    x = numbers(2, 3, 6, seed=9)
    gate, up = layer.gate_up.weight.split(10)
    naive = swiglu_naive(x, gate, up, layer.down.weight)
    torch.testing.assert_close(layer(x)[0], naive, rtol=0, atol=1e-6 * naive.abs().max().item())


# --- reference ---------------------------------------------------------------------------------
def test_swiglu_is_transformers_llama_mlp():
    config = LlamaConfig(hidden_size=12, intermediate_size=20, num_attention_heads=2)
    ours, theirs = filled(SwiGLU(12, 20)), LlamaMLP(config)
    with torch.no_grad():
        gate, up = ours.gate_up.weight.split(20)
        theirs.gate_proj.weight.copy_(gate)
        theirs.up_proj.weight.copy_(up)
        theirs.down_proj.weight.copy_(ours.down.weight)
    x = numbers(2, 5, 12, seed=9)
    expected = theirs(x)
    torch.testing.assert_close(
        ours(x)[0], expected, rtol=0, atol=1e-6 * expected.abs().max().item()
    )


@pytest.mark.parametrize("activation", ["gelu", "relu", "relu2"])
def test_the_plain_layer_is_two_matrices_around_transformers_activation(activation):
    ours = filled(MLP(6, 10, activation))
    x = numbers(2, 5, 6, seed=9)
    expected = ACT2FN[activation](x @ ours.up.weight.T) @ ours.down.weight.T
    torch.testing.assert_close(
        ours(x)[0], expected, rtol=0, atol=1e-6 * expected.abs().max().item()
    )


# --- law ---------------------------------------------------------------------------------------
@LAYERS
def test_each_token_works_by_itself(config):
    layer = filled(config.build(8))
    x = numbers(2, 3, 8, seed=9)
    before, _ = layer(x)
    x[1, 1] += 1
    changed = (layer(x)[0] != before).any(dim=-1)
    assert changed.tolist() == [[False] * 3, [False, True, False]]


@LAYERS
def test_every_row_of_every_matrix_and_every_token_gets_a_gradient(config):
    layer = filled(config.build(8))
    x = numbers(2, 40, 8, seed=9).requires_grad_()
    layer(x)[0].sum().backward()
    for tensor in (x, *layer.parameters()):
        assert (tensor.grad.abs().sum(dim=-1) > 0).all()


@pytest.mark.parametrize("d_model", [8, 24, 100, 320])
def test_parameters_are_those_of_chapter_00_and_as_many_in_both_kinds(d_model):
    swiglu, mlp = SwiGLUConfig().build(d_model), MLPConfig().build(d_model)
    in_swiglu, in_mlp = (sum(p.numel() for p in layer.parameters()) for layer in (swiglu, mlp))
    hidden = swiglu.down.in_features
    assert in_swiglu == count.ffn_parameters(d_model=d_model, ffn_width=hidden, n_matrices=3)
    assert in_mlp == count.ffn_parameters(d_model=d_model, ffn_width=4 * d_model, n_matrices=2)
    assert 0 <= in_swiglu - in_mlp < 3 * d_model * 8  # rounding up, nothing else


@LAYERS
def test_device_and_dtype_are_arguments(config):
    with torch.device("meta"):  # a default device changes nothing
        assert {p.device.type for p in config.build(8).parameters()} == {"cpu"}
    layer = config.build(8, device="meta", dtype=torch.bfloat16)
    assert {(p.device.type, p.dtype) for p in layer.parameters()} == {("meta", torch.bfloat16)}
    y, _ = layer(torch.empty(1, 2, 8, device="meta", dtype=torch.bfloat16))
    assert (y.device.type, y.dtype, y.shape) == ("meta", torch.bfloat16, (1, 2, 8))


@LAYERS
def test_configs_are_values_and_layers_have_no_biases(config):
    assert config == type(config)(**{name: getattr(config, name) for name in vars(config)})
    layer = config.build(8)
    assert all(m.bias is None for m in layer.modules() if isinstance(m, nn.Linear))


# --- bad input ---------------------------------------------------------------------------------
@pytest.mark.parametrize(
    ("call", "words"),
    [
        (lambda: SwiGLUConfig(d_ff=0), "d_ff must be at least 1; got 0"),
        (lambda: MLPConfig(d_ff=-8), "d_ff must be at least 1; got -8"),
        (lambda: SwiGLUConfig().build(0), "d_model must be at least 1; got 0"),
        (lambda: MLPConfig().build(-1), "d_model must be at least 1; got -1"),
        (lambda: MLPConfig(activation="tanh"), "one of gelu, relu, relu2; got 'tanh'"),
        (lambda: activate(torch.ones(1), "silu"), "one of gelu, relu, relu2; got 'silu'"),
    ],
)
def test_bad_input_is_named(call, words):
    with pytest.raises(ValueError) as error:
        call()
    assert words in str(error.value)
