"""Recipes that several ranks train: the same losses, checkpoints for all, and what can go wrong."""

import json
import re
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
from dataclasses import replace
from types import SimpleNamespace

import psutil
import pytest

from minillm import cli
from minillm.parallel import cluster
from minillm.recipes import recipe, run, team
from minillm.recipes.chat_data import RequestData
from minillm.train import checkpoint

needs_gloo = pytest.mark.skipif(sys.platform == "win32", reason="ranks need Linux or macOS")
SHAPE = {"vocab_size": 260, "d_model": 16, "n_layers": 2, "n_heads": 2, "context_length": 8}
HOW = {"n_steps": 8, "warmup_steps": 2, "batch_size": 4, "evaluate_every": 2, "save_every": 3}
AMPLE = 300.0  # seconds


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """A folder with short.toml, which runs to its end, and long.toml, which must be stopped."""
    place = tmp_path_factory.mktemp("team")
    (place / "letters.txt").write_text("plums and pears\n\n" * 50, encoding="utf-8")
    data = {"kind": "text", "files": [str(place / "letters.txt")], "held_out": 0.14}
    long = HOW | {"n_steps": 1_000_000, "evaluate_every": 1000, "save_every": 25}
    for name, how in (("short", HOW), ("long", long)):
        lines = [f'name = "{name}"']
        for title, table in (("data", data), ("model", SHAPE), ("training", how)):
            lines += [f"[{title}]", *(f"{k} = {json.dumps(v)}" for k, v in table.items())]
        (place / f"{name}.toml").write_text("\n".join(lines), encoding="utf-8")
    return place


@pytest.fixture(scope="module")
def whole(place):
    """The folder of one process's run."""
    run.run(recipe.find(str(place / "short.toml")), place / "whole")
    return place / "whole"


def command(*words):
    """The exit status of `minillm train …`, here."""
    with pytest.MonkeyPatch.context() as patched, pytest.raises(SystemExit) as end:
        patched.setattr(sys, "argv", ["minillm", "train", *map(str, words)])
        cli.main()
    return end.value.code or 0


def losses(folder):
    log = [json.loads(line) for line in (folder / "log.jsonl").read_text().splitlines()]
    assert [line["step"] for line in log] == [2, 4, 6, 8]
    return [line["held_out"] for line in log]


def same(folder, other):
    return losses(folder) == pytest.approx(losses(other), rel=1e-4)


def stopped_at(step, folder, new):
    """A run as it was when it had just saved this step."""
    shutil.copytree(folder, new)
    for path in checkpoint.complete(new):
        if int(path.name.removeprefix("step-")) > step:
            shutil.rmtree(path)
    assert checkpoint.complete(new)[-1].name == f"step-{step:08}"
    return new


# --- twin -----------------------------------------------------------------------------------------
@needs_gloo
def test_two_ranks_train_what_one_trains_and_either_goes_on_from_the_others_checkpoint(
    place, whole, capfd
):
    short = place / "short.toml"
    held_out = run.corpus(recipe.find(str(short)))[2]
    assert held_out.n_places % 2  # a row is left over, and both read it
    # 1. two ranks, from the beginning
    words = (short, "--out", place / "two", "--ranks", "2", "--plan", "zero=3")
    assert command(*words) == 0
    said = capfd.readouterr().out
    assert "short: 2 ranks, zero=3" in said
    assert said.count("short: reading") == said.count("step 8 of 8") == 1  # one rank speaks
    assert same(place / "two", whole)
    assert (place / "two" / "model" / "tokenizer.json").exists()
    # 2. their checkpoint, one process
    one = stopped_at(3, place / "two", place / "one")
    assert command(short, "--out", one) == 0
    assert "going on from step-00000003" in capfd.readouterr().out
    assert same(one, whole)
    # 3. its checkpoint, two ranks of another plan
    back = stopped_at(6, one, place / "back")
    assert command(short, "--out", back, "--ranks", "2", "--plan", "fsdp=2") == 0
    assert "going on from step-00000006" in capfd.readouterr().out
    assert same(back, whole)


@needs_gloo
def test_a_run_of_tensor_parallel_ranks_is_gone_on_with_by_the_stages_of_a_pipeline(
    place, whole, capfd
):
    short = place / "short.toml"
    assert command(short, "--out", place / "tp", "--ranks", "2", "--plan", "tp=2") == 0
    assert same(place / "tp", whole)
    pp = stopped_at(6, place / "tp", place / "pp")
    assert command(short, "--out", pp, "--ranks", "2", "--plan", "pp=2") == 0
    assert "going on from step-00000006" in capfd.readouterr().out
    assert same(pp, whole)


@needs_gloo
def test_two_torchruns_find_each_other_and_train_together(place, whole):
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    words = f"-m torch.distributed.run --nnodes 2 --nproc-per-node 1 --rdzv-backend c10d \
        --rdzv-endpoint 127.0.0.1:{port} --local-addr 127.0.0.1 -m minillm train".split()
    words += [str(place / "short.toml"), "--out", str(place / "torchrun"), "--plan", "dp=2"]
    machines = [
        subprocess.Popen(
            [sys.executable, *words], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
        )
        for _ in range(2)
    ]
    said = "".join(machine.communicate(timeout=AMPLE)[0] for machine in machines)
    assert [machine.returncode for machine in machines] == [0, 0], said
    assert said.count("the model is in") == 1
    assert same(place / "torchrun", whole)


# --- what can go wrong ----------------------------------------------------------------------------
def _when_saved(folder, act):
    """Act as soon as the run has a checkpoint; in a thread."""

    def watch():
        until = time.monotonic() + AMPLE
        while not checkpoint.complete(folder) and time.monotonic() < until:
            time.sleep(0.05)
        act()

    threading.Thread(target=watch, daemon=True).start()


def _kill_rank_1():
    for process in psutil.Process().children():
        if "minillm.parallel.cluster" in process.cmdline() and process.environ()["RANK"] == "1":
            process.kill()


@needs_gloo
def test_after_a_kill_of_one_rank_the_same_command_goes_on_and_a_polite_stop_saves(place, capfd):
    folder = place / "long"
    words = [str(place / "long.toml"), "--out", str(folder), "--ranks", "2", "--plan", "zero=2"]
    _when_saved(folder, _kill_rank_1)
    assert command(*words) == 2
    saved = checkpoint.complete(folder)[-1].name
    error = " ".join(capfd.readouterr().err.split("\x1b")[-1].split())
    assert "rank 1 of 2 was killed by signal 9; the others were ended" in error
    assert f"The same command goes on from {saved}." in error
    # once more, and a signal when it has gone on
    shutil.copytree(folder / saved, place / saved)
    with subprocess.Popen(
        [sys.executable, "-um", "minillm", "train", *words], stdout=subprocess.PIPE, text=True
    ) as child:
        while child.poll() is None and not checkpoint.complete(folder)[-1].name > saved:
            time.sleep(0.05)
        child.send_signal(signal.SIGTERM)
        seen = child.stdout.read()
    assert child.returncode == 128 + signal.SIGTERM
    assert f"going on from {saved}" in seen
    step = int(re.search(r"stopped and saved at step ([\d,]+);", seen)[1].replace(",", ""))
    assert checkpoint.complete(folder)[-1].name == f"step-{step:08}"


def test_ranks_that_see_different_folders_are_refused(place):
    asked = []
    alone = team.Alone()
    apart = SimpleNamespace(
        first=True,
        agree=lambda flag: asked.append(flag),
        same=lambda number: asked.append(number),
        shard=alone.shard,
    )
    with pytest.raises(ValueError, match=r"begin at different steps, this one at 0.*shared disk"):
        run.run(recipe.find(str(place / "short.toml")), place / "apart", apart)
    assert asked == [False, 0]


# --- refusals -------------------------------------------------------------------------------------
@pytest.fixture
def nothing_starts(monkeypatch):
    monkeypatch.setattr(cluster, "run", lambda *_, **__: pytest.fail("was started"))
    monkeypatch.setattr(cluster, "joined", lambda *_: pytest.fail("was started"))


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--ranks", "4", "--plan", "dp=2"], "is for 2 ranks, and there are 4"),
        (["--ranks", "3"], "3 data-parallel ranks must divide the 4 rows of a batch"),
        (["--plan", "fsdp=2"], "is for 2 ranks, and there are 1"),
        (["--ranks", "2", "--plan", "zero"], 'a plan is written "dp=2"'),
        (["--ranks", "3", "--plan", "tp=3"], "must divide vocab_size; got 260"),
        (["--ranks", "3", "--plan", "pp=3"], "at most pp=2, or a deeper model"),
        (["--ranks", "4", "--plan", "tp=2,pp=2"], "tp and pp are not combined here"),
        (["--ranks", "0"], "must be from 1 to 64; got 0"),
    ],
)
def test_plans_that_do_not_fit_are_refused_before_anything_is_started(
    place, nothing_starts, capsys, words, message
):
    assert command(place / "short.toml", "--out", place / "refused", *words) == 2
    assert re.search(message, " ".join(capsys.readouterr().err.split()))
    assert not (place / "refused").exists()


@pytest.mark.parametrize("plan", ["zero=1", "fsdp=2"])
def test_muon_is_refused_where_matrices_are_cut(place, nothing_starts, plan):
    short = recipe.find(str(place / "short.toml"))
    muon = replace(short, training=replace(short.training, optimizer="muon"))
    with pytest.raises(ValueError, match=r'Muon looks at whole matrices.*optimizer = "adamw"'):
        team.train(muon, place / "refused", 2, plan)


@pytest.mark.parametrize("plan", ["zero=2", "tp=2"])
def test_bfloat16_is_refused_where_models_are_cut(place, nothing_starts, plan):
    short = recipe.find(str(place / "short.toml"))
    mixed = replace(short, training=replace(short.training, precision="bf16"))
    with pytest.raises(ValueError, match='"bf16" is for whole models; train with --plan dp'):
        team.train(mixed, place / "refused", 2, plan)


def test_conversations_are_refused_where_every_token_is_learned(place, nothing_starts):
    how = replace(recipe.find(str(place / "short.toml")).training, optimizer="adamw")
    chat = recipe.Recipe(name="chat", parent="town-1m", data=RequestData(), training=how)
    with pytest.raises(ValueError, match="only the answers are learned; train chat with --plan dp"):
        team.train(chat, place / "refused", 2, "tp=2")


def test_torchrun_brings_its_own_number_of_ranks(place, nothing_starts, monkeypatch):
    monkeypatch.setenv("RANK", "0")
    monkeypatch.setenv("WORLD_SIZE", "2")
    short = recipe.find(str(place / "short.toml"))
    with pytest.raises(ValueError, match="torchrun started 2 ranks; leave out --ranks 3"):
        team.train(short, place / "refused", 3, None)
    with pytest.raises(ValueError, match="is for 3 ranks, and there are 2"):
        team.train(short, place / "refused", None, "dp=3")
