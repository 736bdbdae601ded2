"""A run that is stopped, at whatever moment: the same command ends with the same bits."""

import json
import os
import random
import signal
import subprocess
import sys
import time
from dataclasses import replace
from functools import cache

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from minillm.data.packing import Packed
from minillm.formats import hf
from minillm.optim.adafactor import Adafactor
from minillm.optim.adamw import AdamW
from minillm.optim.came import CAME
from minillm.optim.groups import hidden_matrices_and_others
from minillm.optim.lion import Lion
from minillm.optim.muon import Muon
from minillm.recipes import recipe, run
from minillm.text import bpe
from minillm.train import checkpoint

SHAPE = {"vocab_size": 260, "d_model": 16, "n_layers": 1, "n_heads": 2, "context_length": 8}
MINE = recipe.of(
    {
        "name": "mine",
        "model": SHAPE | {"qk_norm": True, "zero_residual_projections": True},
        "training": {
            "n_steps": 5,
            "warmup_steps": 1,
            "decay_steps": 2,
            "batch_size": 2,
            "evaluate_every": 2,
            "save_every": 2,
        },
    }
)
OPTIMIZERS = {
    "torch's AdamW": lambda model: torch.optim.AdamW(model.parameters(), lr=0.01),
    "torch's SGD": lambda model: torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9),
    "AdamW": lambda model: AdamW(model.parameters(), lr=0.01),
    "Adafactor": lambda model: Adafactor(model.parameters(), lr=0.01),
    "CAME": lambda model: CAME(model.parameters(), lr=0.01),
    "Lion": lambda model: Lion(model.parameters(), lr=0.01),
    "Muon": lambda model: Muon(*hidden_matrices_and_others(model), lr=0.01),
}


class Operations(TorchDispatchMode):
    """Counts torch's operations, and is interrupted in one of them."""

    def __init__(self, signals):
        super().__init__()
        self.n, self.at, self.signals = 0, None, signals

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        self.n += 1
        if self.n == self.at:
            for number in self.signals:
                signal.raise_signal(number)
        return function(*args, **(kwargs or {}))


@cache
def parts():
    tokenizer = bpe.train("Mei sells red plums. " * 20, 260, special_tokens=[run.END])
    ids, end_id = tokenizer.encode("Mei sells red plums. " * 20), tokenizer.special_ids[run.END]
    packed = [
        Packed([ids], end_id=end_id, context_length=8, batch_size=batch_size)
        for batch_size in (2, 1)
    ]
    return tokenizer, *packed


@pytest.fixture
def interrupted(monkeypatch, tmp_path):
    """Go on with a run, up to an interruption: so many operations after a place, the nth time.

    Gives the numbers of operations, by place; `.weights` has those of finished runs, by folder.
    """
    monkeypatch.setattr(run, "corpus", lambda _: parts())
    monkeypatch.setattr(run.run_log, "draw", lambda *_: None)
    monkeypatch.setattr(run.hf, "save", lambda model, path, *_, **__: finish(model, path))
    begin, before = run.begin, signal.signal(signal.SIGTERM, _die)

    def finish(model, path):
        go.weights[path.parent.name] = torch.cat([p.flatten() for p in model.parameters()])

    def go(folder, optimizer, place=None, nth=0, after=0, signals=(), precision="fp32"):
        counts, operations = {}, Operations(signals)

        mine = replace(MINE, training=replace(MINE.training, precision=precision))

        def begun(recipe):
            state = begin(recipe)
            state = run.TrainState(state.model, OPTIMIZERS[optimizer](state.model))
            state.optimizer.register_step_pre_hook(lambda *_: note("before it steps"))
            state.optimizer.register_step_post_hook(lambda *_: note("after it"))
            return state

        def note(name, then=None):
            counts.setdefault(name, []).append(operations.n)
            if (name, len(counts[name])) == (place, nth + 1):
                operations.at = operations.n + after
            return then

        save, evaluate = run.run_state.pack, run.held_out_loss
        with monkeypatch.context() as patched, operations:
            patched.setattr(run, "begin", begun)
            patched.setattr(run.run_state, "pack", lambda *a: note("saving", save)(*a))
            patched.setattr(run, "held_out_loss", lambda *a: note("evaluating", evaluate)(*a))
            run.run(mine, tmp_path / folder)
        return counts

    go.weights = {}
    yield go
    signal.signal(signal.SIGTERM, before)


def _die(*_):
    raise RuntimeError("ended at once")


@pytest.mark.parametrize("optimizer", OPTIMIZERS)
def test_wherever_a_run_is_stopped_the_same_command_ends_with_the_same_bits(
    interrupted, tmp_path, capsys, optimizer
):
    counts = interrupted("whole", optimizer)
    before, stepped, saving = (counts[name] for name in ("before it steps", "after it", "saving"))
    left = saving[-1] - before[-1]
    moments = [  # each run goes on from where the one before was stopped
        (1, "before it steps", (stepped[0] - before[0]) // 2, signal.SIGINT),  # of the parameters
        (2, "evaluating", 9, signal.SIGINT),
        (4, "saving", 3, signal.SIGTERM),
        (5, "before it steps", random.Random(optimizer).randrange(left), signal.SIGINT),
    ]
    for step, place, after, number in moments:
        with pytest.raises((KeyboardInterrupt, SystemExit)) as ended:
            interrupted("mine", optimizer, place, 0, after + 1, [number])
        assert getattr(ended.value, "code", 143) == 143
        assert f"stopped and saved at step {step}" in capsys.readouterr().out
        assert checkpoint.complete(tmp_path / "mine")[-1].name == f"step-0000000{step}"
    interrupted("mine", optimizer)
    assert "going on from step-00000005" in capsys.readouterr().out
    assert torch.equal(interrupted.weights["mine"], interrupted.weights["whole"])
    assert _evaluations(tmp_path / "mine") == _evaluations(tmp_path / "whole")


def test_the_second_signal_ends_at_once_and_saves_nothing(interrupted, tmp_path, capfd):
    interrupted("whole", "AdamW")
    with pytest.raises(KeyboardInterrupt):
        interrupted("mine", "AdamW", "before it steps", 2, 9, [signal.SIGTERM, signal.SIGINT])
    assert "Ctrl-C again ends at once, without saving" in capfd.readouterr().err
    assert [path.name for path in checkpoint.complete(tmp_path / "mine")] == ["step-00000002"]
    interrupted("mine", "AdamW")
    assert torch.equal(interrupted.weights["mine"], interrupted.weights["whole"])


def test_a_run_in_bfloat16_goes_on_with_the_same_bits_too(interrupted, tmp_path):
    interrupted("whole", "AdamW", precision="bf16")
    interrupted("exact", "AdamW")
    with pytest.raises(KeyboardInterrupt):
        interrupted("mine", "AdamW", "before it steps", 2, 9, [signal.SIGINT], precision="bf16")
    interrupted("mine", "AdamW", precision="bf16")
    assert torch.equal(interrupted.weights["mine"], interrupted.weights["whole"])
    assert not torch.equal(interrupted.weights["mine"], interrupted.weights["exact"])


@pytest.mark.skipif(os.name == "nt", reason="Windows cannot send them to one program")
def test_so_does_a_run_that_a_true_signal_stops_at_whatever_moment(tmp_path):
    (tmp_path / "letters.txt").write_text("plums and pears\n\n" * 50, encoding="utf-8")
    data = {"kind": "text", "files": [str(tmp_path / "letters.txt")]}
    how = {"n_steps": 100, "batch_size": 2, "evaluate_every": 25, "save_every": 25}
    mine = recipe.of({"name": "mine", "data": data, "model": SHAPE, "training": how})
    lines = ['name = "mine"']
    for name, table in (("data", data), ("model", SHAPE), ("training", how)):
        lines += [f"[{name}]", *(f"{key} = {json.dumps(value)}" for key, value in table.items())]
    file = tmp_path / "mine.toml"
    file.write_text("\n".join(lines), encoding="utf-8")
    run.run(mine, tmp_path / "whole")
    folder = tmp_path / "stopped"
    number, status = random.choice([(signal.SIGINT, 130), (signal.SIGTERM, 143)])
    command = [sys.executable, "-um", "minillm", "train", str(file), "--out", str(folder)]
    with subprocess.Popen(command, stdout=subprocess.PIPE) as child:
        while b"step 0 of" not in child.stdout.readline():
            pass
        time.sleep(random.uniform(0, 0.2))
        child.send_signal(number)
        output = child.stdout.read().decode()
    assert "stopped and saved at step" in output
    assert child.returncode == status
    run.run(mine, folder)
    ours, whole = (hf.load(each / "model").state_dict() for each in (folder, tmp_path / "whole"))
    assert all(torch.equal(ours[name], whole[name]) for name in whole)


def _evaluations(folder):
    log = [json.loads(line) for line in (folder / "log.jsonl").read_text().splitlines()]
    return [(line["step"], line["held_out"]) for line in log]
