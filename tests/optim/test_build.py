"""minillm.optim.build: a name gives an optimizer of all parameters."""

import pytest

from minillm.model.config import tiny
from minillm.optim.build import NAMES, build


@pytest.mark.parametrize("name", NAMES)
def test_each_moves_every_parameter_once_and_only_matrices_decay(name):
    model = tiny(50).build(seed=0)
    optimizer = build(model, name, 0.25)
    grouped = [id(p) for group in optimizer.param_groups for p in group["params"]]
    assert sorted(grouped) == sorted(id(p) for p in model.parameters())
    assert optimizer.param_groups[0]["lr"] == 0.25
    decays = {id(p): g["weight_decay"] for g in optimizer.param_groups for p in g["params"]}
    assert decays[id(model.norm.weight)] == 0
    ladder = name in ("SGD", "momentum", "RMSProp")
    assert decays[id(model.blocks[0].ffn.down.weight)] == (0 if ladder else 0.1)


def test_momentum_is_a_mean_of_gradients_and_no_sum():
    optimizer = build(tiny(50).build(seed=0), "momentum", 0.1, beta1=0.95)
    assert {g["momentum"] for g in optimizer.param_groups} == {0.95}
    assert {g["dampening"] for g in optimizer.param_groups} == {0.95}


def test_another_name_and_an_option_of_another_are_refused():
    model = tiny(50).build(seed=0)
    with pytest.raises(ValueError, match="no optimizer 'Adam'; there are SGD, momentum"):
        build(model, "Adam", 0.1)
    with pytest.raises(ValueError, match="Lion has no option beta2; it has weight_decay"):
        build(model, "Lion", 0.1, beta2=0.9)
