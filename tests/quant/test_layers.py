import pytest
import torch
from torch import nn

from minillm.quant import nf4, rtn
from minillm.quant.layers import QuantizedLinear, QuantizedMatrix, matrices, place
from minillm.quant.rtn import Grid


def some(rows=6, columns=8):
    return torch.randn(rows, columns, generator=torch.Generator().manual_seed(0))


VALUES = {
    "symmetric": lambda weight: rtn.quantize(weight, Grid(bits=3)),
    "asymmetric": lambda weight: rtn.quantize(weight, Grid(granularity=4, symmetric=False)),
    "nf4": nf4.quantize,
}
each_kind = pytest.mark.parametrize("kind", VALUES)


# --- by hand --------------------------------------------------------------------------------------
@each_kind
def test_a_linear_multiplies_by_its_numbers_and_adds_its_bias(kind):
    line = nn.Linear(8, 6)
    line.weight.data = some()
    value = VALUES[kind](line.weight.data)
    model, x = nn.Sequential(line), some(3)
    bias = line.bias
    place(model, "0", value)
    assert torch.equal(model(x), nn.functional.linear(x, value.dequantize(), bias))
    assert (model[0].in_features, model[0].out_features) == (8, 6)
    assert [name for name, _ in model.named_parameters()] == ["0.bias"]


@each_kind
def test_a_table_gives_the_rows_of_its_tokens(kind):
    table = nn.Embedding(6, 8)
    table.weight.data = some()
    model = nn.Sequential(table)
    place(model, "0", VALUES[kind](some()))
    tokens = torch.tensor([[5, 0, 5]])
    assert torch.equal(model(tokens), model[0].weight[tokens])
    assert torch.equal(model[0].weight, VALUES[kind](some()).dequantize())


@each_kind
def test_codes_stay_codes_when_the_model_changes_its_type(kind):
    layer = QuantizedLinear(QuantizedMatrix(VALUES[kind](some()), torch.float32))
    before = {name: part.clone() for name, part in layer.state_dict().items()}
    layer.to(torch.bfloat16)
    assert layer.weight.dtype == torch.bfloat16
    assert layer(some(1).bfloat16()).dtype == torch.bfloat16
    layer.double()
    after = layer.state_dict()
    assert {name: part.dtype for name, part in after.items()} == {
        name: part.dtype for name, part in before.items()
    }
    assert all(torch.equal(after[name], part) for name, part in before.items())
    assert torch.equal(layer.weight, VALUES[kind](some()).dequantize().double())


def test_a_model_on_another_device_has_its_codes_there():
    layer = QuantizedLinear(QuantizedMatrix(VALUES["symmetric"](some()), torch.float32))
    assert {part.device.type for part in layer.to("meta").state_dict().values()} == {"meta"}


def test_matrices_are_named_as_the_layers_that_hold_them():
    model = nn.Sequential(nn.Linear(8, 6), nn.Sequential(nn.Linear(6, 8), nn.Embedding(6, 8)))
    place(model, "1.0", VALUES["symmetric"](some(8, 6)))
    place(model, "1.1", VALUES["nf4"](some()))
    assert [name for name, _ in matrices(model)] == ["1.0", "1.1"]
