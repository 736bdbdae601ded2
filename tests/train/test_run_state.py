"""A run goes on from its packed state as if nothing had happened; what does not fit is refused."""

from dataclasses import replace

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from minillm.train.checkpoint import load, save
from minillm.train.run_state import pack, unpack

OLD = {"x": torch.tensor([1.5, -0.0])}


def bits(tensor):
    return tensor.dtype, list(tensor.shape), tensor.contiguous().view(-1).view(torch.uint8).tolist()


def same(found, expected):
    return {n: bits(t) for n, t in found.items()} == {n: bits(t) for n, t in expected.items()}


def network(dtype=torch.float32, d_model=3, seed=0):
    torch.manual_seed(seed)
    return nn.Sequential(
        nn.Linear(2, d_model), nn.BatchNorm1d(d_model), nn.Dropout(0.3), nn.Linear(d_model, 1)
    ).to(dtype)


def take(model, optimizer, steps):
    for step in steps:
        x = torch.sin(torch.arange(8.0) + step).reshape(4, 2).to(model[0].weight.dtype)
        optimizer.zero_grad()
        model(x).square().mean().backward()
        optimizer.step()


def adamw(model, **options):
    return torch.optim.AdamW(model.parameters(), lr=0.01, **options)


# --- by hand -----------------------------------------------------------------------------------
def test_tied_parameters_and_persistent_buffers_are_stored_once_each():
    model = nn.ModuleDict({"a": nn.Linear(2, 2, bias=False), "b": nn.Linear(2, 2, bias=False)})
    model["b"].weight = model["a"].weight
    model.register_buffer("kept", torch.ones(1))
    model.register_buffer("angles", torch.ones(1), persistent=False)
    tensors, packed = pack(model, torch.optim.SGD(model.parameters(), lr=0.1))
    assert set(tensors) == {"model.a.weight", "model.kept", "random.torch"}
    assert packed["packed"]["groups"][0]["parameters"] == ["a.weight"]


def test_what_is_packed_stays_when_training_goes_on():
    model = network()
    optimizer = adamw(model)
    take(model, optimizer, [0])
    tensors, _ = pack(model, optimizer)
    before = {name: tensor.clone() for name, tensor in tensors.items()}
    take(model, optimizer, [1])
    assert same(tensors, before)


def test_plain_values_in_an_optimizers_memory_go_to_the_record(tmp_path):
    model = nn.Linear(1, 1, bias=False)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    optimizer.state[model.weight] = {"n_seen": 7, "mean": torch.ones(1)}
    tensors, packed = pack(model, optimizer)
    assert packed["packed"]["state"] == {"weight": {"tensors": ["mean"], "values": {"n_seen": 7}}}
    path = save(tmp_path, 1, tensors, packed)
    optimizer.state.clear()
    unpack(load(path), model, optimizer)
    assert optimizer.state[model.weight] == {"n_seen": 7, "mean": torch.ones(1)}


# --- law ---------------------------------------------------------------------------------------
KINDS = [torch.float32, torch.bfloat16, torch.float64]
OPTIMIZERS = [
    adamw,
    lambda model: adamw(model, amsgrad=True),
    lambda model: torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9),
    lambda model: torch.optim.Adagrad(model.parameters()),
]


@settings(max_examples=25, deadline=None)
@given(
    st.sampled_from(KINDS),
    st.sampled_from(OPTIMIZERS),
    st.integers(1, 4),
    st.integers(0, 3),
    st.integers(0, 9),
)
def test_what_was_packed_comes_back_bit_for_bit(
    tmp_path_factory, dtype, build, d_model, n_steps, seed
):
    folder = tmp_path_factory.mktemp("run")
    with torch.random.fork_rng(devices=[]):
        model = network(dtype, d_model, seed)
        optimizer = build(model)
        take(model, optimizer, range(n_steps))
        tensors, packed = pack(model, optimizer)
        path = save(folder, n_steps, tensors, packed)
        other = network(dtype, d_model, seed + 1)
        other_optimizer = build(other)
        other_optimizer.param_groups[0]["lr"] = 99.0
        unpack(load(path), other, other_optimizer)
        again, packed_again = pack(other, other_optimizer)
    assert same(again, tensors)
    assert packed_again == packed
    options = [{k: v for k, v in o.param_groups[0].items() if k != "params"}
               for o in (optimizer, other_optimizer)]  # fmt: skip
    assert options[0] == options[1]  # a tuple is a tuple again


@pytest.mark.parametrize("dtype", KINDS)
def test_ten_steps_are_five_and_a_checkpoint_and_five(tmp_path, dtype):
    with torch.random.fork_rng(devices=[]):
        model = network(dtype)
        optimizer = adamw(model)
        take(model, optimizer, range(5))
        tensors, packed = pack(model, optimizer)
        path = save(tmp_path, 5, tensors, {"evaluation": 0.5, **packed})
        take(model, optimizer, range(5, 10))  # with dropout, which draws
        straight, _ = pack(model, optimizer)

        other = network(dtype, seed=7)
        other_optimizer = adamw(other)
        unpack(load(path), other, other_optimizer)
        take(other, other_optimizer, range(5, 10))
        resumed, _ = pack(other, other_optimizer)
    assert same(resumed, straight)
    assert not same(straight, tensors)


def test_two_runs_from_one_checkpoint_share_no_memory(tmp_path):
    model = network()
    optimizer = adamw(model)
    take(model, optimizer, [0])
    tensors, packed = pack(model, optimizer)
    found = load(save(tmp_path, 1, tensors, packed))
    unpack(found, model, optimizer)
    take(model, optimizer, [1])
    assert same(found.tensors, tensors)


# --- what stops it -----------------------------------------------------------------------------
def packed_run(tmp_path):
    model = network()
    optimizer = adamw(model)
    take(model, optimizer, [0])
    tensors, packed = pack(model, optimizer)
    return load(save(tmp_path, 1, tensors, packed))


@pytest.mark.parametrize(
    ("build", "optimize", "message"),
    [
        (lambda: network(d_model=4), adamw, r"holds 0\.weight of \[3, 2\], this model has \[4, 2\]"
         ": it was saved from another shape; build the model from the run's manifest"),
        (lambda: network(torch.float64), adamw, r"of torch\.float32, this model has torch\.f"),
        (lambda: nn.Linear(2, 3), adamw, r"Missing: model\.bias.*Unexpected: model\.0\.bias"),
        (network, OPTIMIZERS[2], r"optimizer \['torch\.optim\.adamw\.AdamW'\], and.*SGD"),
        (network, lambda model: torch.optim.AdamW(model[0].parameters()),
         r"groups have the parameters .*'3\.bias'"),
    ],
)  # fmt: skip
def test_another_model_or_optimizer_is_refused_and_nothing_is_changed(
    tmp_path, build, optimize, message
):
    with torch.random.fork_rng(devices=[]):
        found = packed_run(tmp_path)
        model = build()
        optimizer = optimize(model)
        before = pack(model, optimizer)
        with pytest.raises(ValueError, match=message):
            unpack(found, model, optimizer)
        after = pack(model, optimizer)
    assert same(after[0], before[0])
    assert after[1] == before[1]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"optimizer.0.weight.exp_avg": None}, r"Missing: optimizer\.0\.weight\.exp_avg"),
        ({"optimizer.0.weight.more": torch.ones(1)}, r"Unexpected: optimizer\.0\.weight\.more"),
        ({"random.torch": None}, r"Missing: random\.torch"),
        ({"random.torch": torch.ones(3, dtype=torch.uint8)}, r"random\.torch of \[3\]"),
    ],
)
def test_tensors_that_are_missing_or_too_many_are_named(tmp_path, change, message):
    with torch.random.fork_rng(devices=[]):
        found = packed_run(tmp_path)
        model = network(seed=1)
        optimizer = adamw(model)
        before, _ = pack(model, optimizer)
        tensors = {n: t for n, t in (found.tensors | change).items() if t is not None}
        with pytest.raises(ValueError, match=message):
            unpack(replace(found, tensors=tensors), model, optimizer)
        assert same(pack(model, optimizer)[0], before)


def test_a_checkpoint_without_a_packed_run_is_refused(tmp_path):
    model = network()
    with pytest.raises(ValueError, match=r"does not hold what pack\(model, optimizer\) gave"):
        unpack(load(save(tmp_path, 1, OLD, {})), model, adamw(model))


def test_what_cannot_be_packed_is_named():
    model, other = nn.Linear(1, 1), nn.Linear(1, 3)
    with pytest.raises(ValueError, match=r"not this model's, of \[\[3, 1\], \[3\]\]"):
        pack(model, adamw(other))
    rate = torch.optim.AdamW(model.parameters(), lr=torch.tensor(0.1))
    with pytest.raises(ValueError, match="options in plain JSON"):
        pack(model, rate)
    optimizer = adamw(model)
    optimizer.state[model.weight] = {"history": [torch.ones(1)]}
    with pytest.raises(ValueError, match=r"options in plain JSON.*history"):
        pack(model, optimizer)

    class Extra(nn.Linear):
        def get_extra_state(self):
            return {"n": 1}

    model = Extra(1, 1)
    with pytest.raises(ValueError, match=r"no parameter or buffer: \['_extra_state'\]"):
        pack(model, adamw(model))
