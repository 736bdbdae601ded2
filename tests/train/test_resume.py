import pytest
import torch

from minillm.optim.step import Total
from minillm.train import checkpoint
from minillm.train.loop import LoopConfig, TrainState
from minillm.train.resume import resume


def loss(model, x):
    return Total(model(torch.nn.functional.dropout(x, 0.5)).square().sum(), len(x))


def batch_at(step):
    return torch.full((2, 3), 1.0 + step)


def losses(folder, stop_after=None, n_steps=12, save_every=5):
    """Of the steps that a run took in this folder, up to where it was stopped."""
    torch.manual_seed(0)
    model = torch.nn.Linear(3, 1)
    state = TrainState(model, torch.optim.AdamW(model.parameters(), lr=0.1))
    config = LoopConfig(n_steps=n_steps)
    seen = {}
    for metrics in resume(folder, state, loss, batch_at, config, save_every=save_every):
        seen[metrics.step] = metrics.loss
        if metrics.step == stop_after:
            break
    return seen


@pytest.mark.parametrize("stop_after", range(12))
def test_a_run_that_is_stopped_anywhere_goes_on_to_the_same_bits(tmp_path, stop_after):
    whole = losses(tmp_path / "whole")
    first = losses(tmp_path / "stopped", stop_after)
    then = losses(tmp_path / "stopped")
    assert first | then == whole
    assert min(then, default=12) == (stop_after + 1) // 5 * 5


def test_a_step_that_is_handed_out_is_already_saved(tmp_path):
    losses(tmp_path, stop_after=4)
    assert checkpoint.newest(tmp_path)[0].step == 5


def test_a_damaged_checkpoint_is_passed_over_and_named(tmp_path):
    losses(tmp_path)
    (tmp_path / "step-00000010" / "state.safetensors").write_bytes(b"torn")
    with pytest.warns(UserWarning, match="step-00000010"):
        assert min(losses(tmp_path)) == 5


def test_saving_every_zeroth_step_is_refused(tmp_path):
    with pytest.raises(ValueError, match="save_every must be at least 1; got 0"):
        losses(tmp_path, save_every=0)
