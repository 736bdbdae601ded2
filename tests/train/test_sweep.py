"""minillm.train.sweep: each run once, whatever ends it, and every end is written down."""

import json
import os
import signal
import subprocess
import sys
import time
from importlib import import_module
from pathlib import Path

import pytest

from minillm.train import sweep as module
from minillm.train.sweep import Run, points, read, sweep

#: What the processes import: it has nothing but the standard library.
WORK = """
import os, sys, time
from importlib import import_module
from pathlib import Path

def noted(x, log, folder=None, power=2):
    with open(log, "a") as file:
        file.write(f"{x}\\n")
    print("working on", x)
    return {"y": x**power, "threads": os.environ["OMP_NUM_THREADS"], "folder": folder.name}

def fails(x, folder):
    if x == 1:
        raise ValueError("x is 1")
    if x == 2:
        os._exit(7)
    return float("nan") if x == 3 else x

def waits(x, log, folder):
    with open(log, "a") as file:
        file.write(f"{x} {os.getpid()}\\n")
    kept = folder / "kept"
    if kept.exists():
        return kept.read_text()
    kept.write_text(f"begun {x}")
    if x > 1:
        time.sleep(600)
    return x

def counts(n): return n
"""
GRID = {"x": [1, 2, 3]}
SECONDS = 200  # at most, on a busy machine


@pytest.fixture(scope="module")
def work(tmp_path_factory):
    folder = tmp_path_factory.mktemp("work")
    file = folder / "swept_work.py"
    file.write_text(WORK, encoding="utf-8")
    sys.path.insert(0, str(folder))
    yield import_module(file.stem)
    sys.path.remove(str(folder))


def lines(log):
    return sorted(log.read_text().split("\n")[:-1])


# --- runs ---------------------------------------------------------------------------------------
def test_a_grid_is_a_plain_loop_in_processes_and_nothing_is_repeated(work, tmp_path, monkeypatch):
    monkeypatch.setenv("OMP_NUM_THREADS", "5")
    log, folder = tmp_path / "log", tmp_path / "sweep"
    common = {"log": str(log)}
    runs = sweep(work.noted, GRID, folder, common=common, processes=2)
    assert [run.result["y"] for run in runs] == [x**2 for x in GRID["x"]]
    assert {run.result["threads"] for run in runs} == {"1"}
    assert os.environ["OMP_NUM_THREADS"] == "5"
    assert lines(log) == ["1", "2", "3"]
    assert "working on 2" in (folder / runs[1].result["folder"] / "output.txt").read_text()
    # a larger grid runs what is new; a damaged file is kept, and its run is run again
    path = folder / f"{runs[0].name}.json"
    path.write_text('{"settings": {"x"')
    again = sweep(work.noted, {"x": [1, 2, 3, 4]}, folder, common=common, processes=2)
    assert lines(log) == ["1", "1", "2", "3", "4"]
    assert again[1] == runs[1]
    assert again[3].result["y"] == 16
    assert path.with_name(f"{path.name}.damaged-1").exists()
    # nothing to do, and no process for it
    monkeypatch.setattr(module, "_started", lambda *_: pytest.fail("a process was started"))
    assert sweep(work.noted, GRID, folder, common=common) == again[:3]
    assert json.loads(path.read_text())["origin"]["machine"]["threads"] == 1


def test_a_run_that_fails_is_kept_with_its_error_and_the_others_go_on(work, tmp_path):
    runs = sweep(work.fails, {"x": [1, 2, 3, 4]}, tmp_path, processes=1)
    assert [run.status for run in runs] == ["failed", "failed", "failed", "finished"]
    assert runs[0].error == "ValueError: x is 1"
    assert "swept_work.py" in (tmp_path / runs[0].name / "output.txt").read_text()
    assert "its process ended with status 7" in runs[1].error
    assert "must give plain JSON with finite numbers" in runs[2].error
    assert runs[3].result == 4
    assert [read(tmp_path, run) for run in points({"x": [1, 2, 3, 4]})] == runs


SCRIPT = """
import sys
sys.path[:0] = [{work!r}]
import swept_work
from minillm.train.sweep import sweep
sweep(swept_work.waits, {grid}, {folder!r}, common=dict(log={log!r}), processes=2)
"""


@pytest.mark.skipif(os.name == "nt", reason="signals are those of POSIX")
@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGINT])
def test_killed_or_stopped_it_leaves_no_process_and_goes_on(number, work, tmp_path, request):
    import psutil

    log, folder = tmp_path / "log", tmp_path / "sweep"
    grid = {"x": [1, 2, 3]}
    script = SCRIPT.format(
        work=str(Path(work.__file__).parent), grid=grid, folder=str(folder), log=str(log)
    )
    program = subprocess.Popen([sys.executable, "-c", script], stderr=subprocess.PIPE, text=True)
    request.addfinalizer(program.kill)
    ends = time.monotonic() + SECONDS
    while not log.exists() or len(lines(log)) < 3:  # 1 is finished, and both others wait
        assert program.poll() is None, program.stderr.read()
        assert time.monotonic() < ends
        time.sleep(0.05)
    pids = [int(line.split()[1]) for line in lines(log)]
    program.send_signal(number)
    _, errors = program.communicate(timeout=SECONDS)
    if number == signal.SIGINT:
        assert program.returncode == -signal.SIGINT
        assert "stopping the runs" in errors
    while any(psutil.pid_exists(pid) for pid in pids):
        assert time.monotonic() < ends
        time.sleep(0.05)
    # the same sweep again, in this program: 1 is not repeated, the others find what they kept
    assert [read(folder, run).status for run in points(grid)] == ["finished", "to do", "to do"]
    runs = sweep(work.waits, grid, folder, common={"log": str(log)}, processes=1)
    assert [run.result for run in runs] == [1, "begun 2", "begun 3"]
    assert [line.split()[0] for line in lines(log)] == ["1", "2", "2", "3", "3"]


# --- names --------------------------------------------------------------------------------------
def test_names_differ_where_settings_do_and_can_be_files_everywhere():
    settings = [{"model.d_model": 16}, {"d_model": 16}, {"d_model": 16.0}, {"files": ["a/b:c*"]}]
    names = [Run(settings=each).name for each in [*settings, {"long": "x" * 300}]]
    assert len(set(names)) == 5
    assert names[0].startswith("d_model=16-")
    assert names[3].startswith("files=_a_b_c_-")
    assert all(len(name) < 80 for name in names)
    assert Run(settings={"a": 1, "b": 2}).name[-8:] == Run(settings={"b": 2, "a": 1}).name[-8:]


# --- refused ------------------------------------------------------------------------------------
def nested():
    return lambda x: x


@pytest.mark.parametrize(
    ("grid", "options", "words"),
    [
        ({}, {}, "the grid is empty; it must name a setting"),
        ({"n": []}, {}, "n needs a list with at least one value"),
        ({"n": "abc"}, {}, "n needs a list"),
        ({"n": [(1, 2)]}, {}, "values of n must be plain JSON"),
        ({"n": [1, 1]}, {}, "n has a value twice: 1, 1"),
        ({"m": [1]}, {}, "counts takes no m; it takes n"),
        ({"n": [1]}, {"common": {"n": 1}}, "n cannot both be in the grid and be common"),
        ({"n": [1]}, {"about": {"a": (1,)}}, "about, or else common, must be plain JSON"),
        ({"n": [1]}, {"processes": 0}, "processes must be at least 1; got 0"),
    ],
)
def test_what_cannot_be_swept_is_refused_before_anything_runs(grid, options, words, work, tmp_path):
    with pytest.raises(ValueError, match=words):
        sweep(work.counts, grid, tmp_path / "none", **options)
    assert not (tmp_path / "none").exists()


def test_a_function_that_no_process_could_call_is_refused(work, tmp_path):
    with pytest.raises(ValueError, match="must stand at the top of a module"):
        sweep(nested(), {"x": [1]}, tmp_path)
    with pytest.raises(ValueError, match="noted needs log, which the grid does not give"):
        sweep(work.noted, {"x": [1]}, tmp_path)


def test_the_folder_of_another_sweep_is_refused(work, tmp_path, monkeypatch):
    monkeypatch.setattr(module, "_processed", lambda *_: iter(()))
    about = {"recipe": {"seed": 0}}
    sweep(work.counts, {"n": [1]}, tmp_path, about=about)
    sweep(work.counts, {"n": [1, 2]}, tmp_path, about=about)
    with pytest.raises(ValueError, match=r"another sweep \(the sweep.about.recipe.seed: 0 then, 1"):
        sweep(work.counts, {"n": [1]}, tmp_path, about={"recipe": {"seed": 1}})
    with pytest.raises(ValueError, match=r"the sweep.function: .*counts\\?\" then"):
        sweep(work.fails, {"x": [1]}, tmp_path, about=about)
    (tmp_path / "sweep.json").write_text("{")
    with pytest.raises(ValueError, match=r"sweep\.json"):
        sweep(work.counts, {"n": [1]}, tmp_path, about=about)
    (tmp_path / "sweep.json").rename(tmp_path / "n=1-00000000.json")
    with pytest.raises(ValueError, match=r"sweep.json is missing, which says of which sweep n=1-0"):
        sweep(work.counts, {"n": [1]}, tmp_path, about=about)
