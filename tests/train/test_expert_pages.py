"""Experts in a file: the same answers and weights, and only those that are called are read."""

import copy
import os
import re
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from minillm.experts.moe import MoEConfig, moe_loss, routed
from minillm.model.config import TransformerConfig
from minillm.optim.adamw import AdamW
from minillm.train.expert_pages import open_experts, page_experts
from minillm.train.loop import LoopConfig, TrainState, train
from minillm.train.paging import paged, ram_bytes

MOE = MoEConfig(n_experts=8, top_k=2, d_expert=24)
CONFIG = TransformerConfig(vocab_size=50, d_model=16, n_layers=2, ffn=MOE)


def layer(config=MOE, d_model=16, seed=0):
    torch.manual_seed(seed)
    return config.build(d_model=d_model)


def go(state, n_steps):
    batches = torch.arange(50).view(10, 1, 5)
    list(train(state, moe_loss, lambda step: batches[step], LoopConfig(n_steps=n_steps)))


def on_experts(moe, experts):
    """Inputs that the router sends to just these."""
    with torch.no_grad():
        moe.router.weight.zero_()
        moe.router.weight[experts, 0] = 9.0
    return torch.ones(1, 4, moe.router.in_features)


# --- by hand, and twin ---
@pytest.mark.parametrize("experts", [[3], [0, 7], [1, 2, 5], list(range(8))])
def test_outputs_are_identical_and_bytes_are_those_of_the_active_experts(experts, tmp_path):
    moe = layer(MoEConfig(n_experts=8, top_k=len(experts), d_expert=24))
    x = on_experts(moe, experts)
    expected, _ = moe(x)
    pages = page_experts(moe, tmp_path / "experts.safetensors")
    y, routing = moe(x)
    assert torch.equal(y, expected)
    assert (routing.tokens_per_expert > 0).nonzero().flatten().tolist() == experts
    assert pages.n_bytes_read == len(experts) * 3 * 16 * 24 * 4


def test_bytes_of_a_pass_through_a_model_are_proportional_to_its_active_experts(tmp_path):
    model = CONFIG.build(seed=0)
    pages = page_experts(model, tmp_path / "experts.safetensors")
    for n_tokens in (2, 3, 9):
        pages.n_bytes_read = 0
        routings = routed(model, torch.arange(n_tokens)[None]).routings
        n_called = sum(int((routing.tokens_per_expert > 0).sum()) for routing in routings)
        assert 4 <= n_called <= 16
        assert pages.n_bytes_read == n_called * 3 * 16 * 24 * 4


def test_training_with_experts_and_moments_in_files_gives_the_same_weights(tmp_path):
    model, reference = CONFIG.build(seed=0), CONFIG.build(seed=0)
    path = tmp_path / "experts.safetensors"
    page_experts(model, path)
    state = TrainState(model, AdamW(model.parameters(), lr=0.01))
    paged(state.optimizer, tmp_path)
    go(state, 4)
    go(TrainState(reference, AdamW(reference.parameters(), lr=0.01)), 4)
    assert all(map(torch.equal, model.parameters(), reference.parameters()))
    assert ram_bytes(state.optimizer) == 0
    # idle experts have no moments; and the file holds the trained weights
    named, first = dict(model.named_parameters()), dict(CONFIG.build(seed=0).named_parameters())
    for name, weight in load_file(path).items():
        assert torch.equal(named[name], weight)
        assert torch.equal(first[name], weight) == (not state.optimizer.state[named[name]])


def test_experts_are_opened_again_by_a_model_of_the_same_shapes(tmp_path):
    first, second = layer(seed=0), layer(seed=1)
    path = tmp_path / "experts.safetensors"
    page_experts(first, path)
    second.router.load_state_dict(first.router.state_dict())
    open_experts(second, path)
    x = torch.randn(1, 6, 16)
    assert torch.equal(first(x)[0], second(x)[0])
    with torch.no_grad():
        first.experts[0].down.weight.fill_(7)
    assert (second.experts[0].down.weight == 7).all()  # one file


@pytest.mark.skipif(not Path("/proc/self/smaps").exists(), reason="Linux names its pages")
def test_the_operating_system_has_read_no_page_of_an_idle_expert(tmp_path):
    moe = layer(MoEConfig(n_experts=8, top_k=2, d_expert=1024), d_model=256)  # 3.1 MB each
    x, path = on_experts(moe, [1, 6]), tmp_path / "experts.safetensors"
    page_experts(moe, path)

    def resident():
        maps = Path("/proc/self/smaps").read_text().split(str(path))[1:]
        return 1024 * sum(int(re.search(r"Rss:\s+(\d+) kB", each)[1]) for each in maps)

    assert resident() == 0
    moe.requires_grad_(False)(x)
    assert resident() == pytest.approx(2 * 3 * 256 * 1024 * 4, rel=0.1)


# --- bad input ---
def test_files_that_are_there_or_cannot_be_are_refused_and_the_model_stays(tmp_path):
    moe, path = layer(), tmp_path / "experts.safetensors"
    before = copy.deepcopy(moe.state_dict())
    path.write_bytes(b"mine")
    with pytest.raises(ValueError, match="exists, and was not touched"):
        page_experts(moe, path)
    assert path.read_bytes() == b"mine"
    with pytest.raises(ValueError, match="no experts can be written to"):
        page_experts(moe, path / "below a file")
    for spoilt in (path, tmp_path / "nothing"):
        with pytest.raises(ValueError, match="no whole safetensors file"):
            open_experts(moe, spoilt)
    with pytest.raises(ValueError, match="Linear has no layer of experts"):
        page_experts(torch.nn.Linear(2, 2), tmp_path / "new")
    assert all(torch.equal(before[name], value) for name, value in moe.state_dict().items())


@pytest.mark.skipif(os.name == "nt", reason="Windows does not let go of a mapped file")
def test_experts_of_another_model_and_a_file_cut_short_are_refused(tmp_path):
    moe, path = layer(), tmp_path / "experts.safetensors"
    page_experts(moe, path)
    other = layer(MoEConfig(n_experts=8, top_k=2, d_expert=32))
    with pytest.raises(ValueError, match=r"lacks experts.0.gate_up.weight \[64, 16\] .* of 16"):
        open_experts(other, path)
    os.truncate(path, 500)
    with pytest.raises(ValueError, match=r"must have \d+ bytes, and has 500"):
        moe(torch.ones(1, 2, 16))
