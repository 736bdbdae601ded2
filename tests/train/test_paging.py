"""State in a file: the same numbers, and next to nothing of it in memory."""

import os

import pytest
import torch
from torch import nn

from minillm.measure.memory_meter import Meter
from minillm.model.config import TransformerConfig
from minillm.model.transformer import loss
from minillm.optim.adafactor import Adafactor
from minillm.optim.adamw import AdamW
from minillm.optim.lion import Lion
from minillm.train.checkpoint import load, save
from minillm.train.compare import state_bytes
from minillm.train.loop import LoopConfig, TrainState, train
from minillm.train.paging import NAME, paged, ram_bytes, unpaged
from minillm.train.run_state import pack, unpack

CONFIG = TransformerConfig(vocab_size=50, d_model=32, n_layers=6)


def batch_at(step):
    return torch.randint(50, (2, 9), generator=torch.Generator().manual_seed(step))


def fresh(kind=AdamW, dtype=torch.float32):
    model = CONFIG.build(seed=0).to(dtype)
    return TrainState(model, kind(model.parameters(), lr=0.01))


def go(state, n_steps):
    for _ in train(state, loss, batch_at, LoopConfig(n_steps=n_steps)):
        pass
    return state


def assert_equal(state, reference):
    for p, q in zip(state.model.parameters(), reference.model.parameters(), strict=True):
        assert torch.equal(p, q)
        ours, theirs = state.optimizer.state[p], reference.optimizer.state[q]
        assert list(ours) == list(theirs)
        for key, value in theirs.items():
            assert torch.equal(torch.as_tensor(ours[key]), torch.as_tensor(value))


# --- twin: in the file = in memory ---
@pytest.mark.parametrize("kind", [AdamW, Lion, Adafactor, torch.optim.AdamW, torch.optim.Adam])
def test_weights_and_state_are_the_same_to_the_last_bit(kind, tmp_path):
    state = fresh(kind)
    paged(state.optimizer, tmp_path)
    assert_equal(go(state, 4), go(fresh(kind), 4))


def test_bfloat16_has_pages_too(tmp_path):
    state = fresh(dtype=torch.bfloat16)
    paged(state.optimizer, tmp_path)
    assert_equal(go(state, 2), go(fresh(dtype=torch.bfloat16), 2))


def test_state_moves_into_the_file_and_back_in_the_middle_of_a_run(tmp_path):
    state, reference = go(fresh(), 2), go(fresh(), 6)
    paged(state.optimizer, tmp_path)
    go(state, 4)
    unpaged(state.optimizer)
    (tmp_path / NAME).unlink()
    assert ram_bytes(state.optimizer) == state_bytes(state.optimizer)
    assert_equal(go(state, 6), reference)


def test_a_checkpoint_of_a_paged_run_goes_on_elsewhere(tmp_path):
    state = fresh()
    paged(state.optimizer, tmp_path / "pages")
    tensors, packed = pack(go(state, 2).model, state.optimizer)
    path = save(tmp_path / "checkpoints", 2, tensors, packed)
    other = fresh()
    unpack(load(path), other.model, other.optimizer)
    other.step = 2
    paged(other.optimizer, tmp_path / "other pages")
    assert_equal(go(other, 4), go(fresh(), 4))


# --- what is in memory ---
def test_between_steps_no_moment_is_in_memory_and_within_one_at_most_a_quarter(tmp_path):
    state = fresh()
    file = paged(state.optimizer, tmp_path)
    go(state, 1)
    loss(state.model, batch_at(1)).nats.backward()
    with Meter() as meter:
        state.optimizer.step()
    sizes = [p.numel() for p in state.model.parameters()]
    n_state = 2 * sum(sizes)
    assert state_bytes(state.optimizer) == 4 * n_state and ram_bytes(state.optimizer) == 0
    # the meter sees two mapped moments too, as bytes; what is left are new moments and the update
    working = meter.peak - 2 * 4 * max(sizes)
    assert 2 * max(sizes) <= working <= 5 * max(sizes)
    assert working <= 0.25 * n_state
    assert file.n_bytes == os.path.getsize(tmp_path / NAME)
    assert 4 * n_state <= file.n_bytes <= 4 * n_state + 2 * 64 * len(sizes)


# --- bad input ---
def test_a_folder_in_use_or_not_to_be_written_is_refused_and_nothing_changes(tmp_path):
    state = go(fresh(), 1)
    before = dict(state.optimizer.state)
    (tmp_path / NAME).write_bytes(b"another run's")
    with pytest.raises(ValueError, match=r"exists; .* delete the file, or name another folder"):
        paged(state.optimizer, tmp_path)
    assert (tmp_path / NAME).read_bytes() == b"another run's"
    with pytest.raises(ValueError, match=r"no pages can be written to .*may be written"):
        paged(state.optimizer, tmp_path / NAME / "below a file")
    assert dict(state.optimizer.state) == before


def test_a_full_disk_leaves_the_optimizer_as_it_was_and_no_file(tmp_path, monkeypatch):
    state = go(fresh(), 1)

    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("minillm.train.paging.PageFile.append", full)
    with pytest.raises(ValueError, match=r"No space left on device.*as it was"):
        paged(state.optimizer, tmp_path)
    assert not (tmp_path / NAME).exists()
    assert_equal(go(state, 2), go(fresh(), 2))


@pytest.mark.parametrize("spoil", [lambda p: os.truncate(p, 100), os.unlink], ids=["cut", "gone"])
@pytest.mark.skipif(os.name == "nt", reason="Windows does not let go of a mapped file")
def test_a_file_of_another_size_stops_the_step_before_any_weight_changes(tmp_path, spoil):
    state = fresh()
    paged(state.optimizer, tmp_path)
    go(state, 1)
    before = [p.clone() for p in state.model.parameters()]
    spoil(tmp_path / NAME)
    with pytest.raises(ValueError, match=r"must have \d+ bytes, and has (100|0): .*checkpoint"):
        go(state, 2)
    assert all(map(torch.equal, state.model.parameters(), before))


def test_a_changed_model_is_refused_and_its_state_stays(tmp_path):
    weight = nn.Parameter(torch.ones(3, 2))
    optimizer = AdamW([weight], lr=0.1)
    paged(optimizer, tmp_path)
    weight.sum().backward()
    optimizer.step()
    with pytest.raises(ValueError, match=r"'mean' lies in .* as \[3, 2\] .* now \[4\] .*changed"):
        optimizer.state[weight]["mean"] = torch.ones(4)
    unpaged(optimizer)
    assert torch.allclose(optimizer.state[weight]["mean"], torch.full((3, 2), 0.1))
    with pytest.raises(ValueError, match=r"on meta.*on the CPU"):
        paged(AdamW([nn.Parameter(torch.ones(2, device="meta"))]), tmp_path / "meta")
