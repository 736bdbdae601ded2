"""Planted notebooks: what the checker must pass and what it must refuse, and in which words.

All faults stand in a few notebooks that one run of pytest checks side by side, as `make test` does,
because each notebook costs the start of a kernel.
"""

import _thread
import json
import os
import re
import subprocess
import sys
import threading
import time
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import psutil
import pytest
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook, new_output

from tools import jobs
from tools.canonical import dumps

ROOT = Path(__file__).resolve().parents[2]
# What pytest loads by itself, hypothesis above all, costs a second in each process.
LEAN = {
    "PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1",
    "PYTEST_ADDOPTS": "-p xdist.plugin -p nbval.plugin",
}
EXPECT = 'print("✔ it learns: {} (at most 1.65)")'


def planted(source, printed=None, *, run=True, tags=(), outputs=None):
    """A code cell whose stored output need not be what it prints."""
    if outputs is None:
        outputs = [new_output("stream", name="stdout", text=printed + "\n")] if printed else []
    cell = new_code_cell(source, outputs=outputs, execution_count=1 if run else None)
    cell.metadata["tags"] = list(tags)
    return cell


def shown(text):
    return [new_output("execute_result", {"text/plain": text}, execution_count=1)]


GOOD = [
    planted("import os, sys, math, warnings"),
    planted('print("loss 2.3456 at step 10")', "loss 2.3459 at step 10"),
    planted(EXPECT.format(1.61), "✔ it learns: 1.58 (at most 1.65)"),
    planted("print(os.getpid())", "-7", tags=["nbval-ignore-output"]),
    planted("math.pi", outputs=shown("3.14")),
    planted(
        'int("plums")',
        tags=["raises-exception"],
        outputs=[
            new_output(
                "error",
                ename="ValueError",
                evalue="invalid literal for int() with base 10: 'plums'",
                traceback=["ValueError"],
            )
        ],
    ),
    planted('print(os.environ["MINILLM_BUILD"])', "1"),
    planted('print("minillm-learner" in os.environ["MINILLM_MY"])', "False"),
    planted('print("ipython" in os.environ["IPYTHONDIR"])', "True"),
    planted('print(os.path.basename(os.getcwd()) == "course")', "True"),
    planted(f"print(sys.prefix == {sys.prefix!r})", "True"),
    planted("big = bytearray(300_000_000); del big"),
]
FAULTS = {
    "nothing wrong": planted("import warnings"),
    "a wrong number": planted('print("loss 2.3456")', "loss 2.4456"),
    "a wrong count": planted("print('step 11')", "step 10"),
    "a changed bound": planted(EXPECT.format(1.58), "✔ it learns: 1.58 (at most 1.70)"),
    "a changed sentence": planted(EXPECT.format(1.58), "✔ we learn: 1.58 (at most 1.65)"),
    "a status": planted('print("1.2 ✔")', "1.2 ☐ to do"),
    "a missing line": planted('print("one\\nthree")', "one\ntwo\nthree"),
    "an unexecuted cell": planted('print("never")', run=False),
    "a cell with outputs and no count": planted('print("half")', "half", run=False),
    "a new warning": planted('warnings.warn("plums are sold out")'),
    "a result that is gone": planted("_ = 7", outputs=shown("7")),
    "a new result": planted("6 * 7"),
    "an exception": planted("1 / 0", "1"),
    "its victim": planted("print(never_defined)", "7"),
}
STRIPPED = [planted("x = 1", run=False), planted("print(x)", run=False)]


@dataclass
class Run:
    text: str
    status: int
    report: dict

    def message(self, notebook, code_cell):
        """The failure message of one cell, up to the next message."""
        head = f"{notebook}, code cell {code_cell}: "
        found = re.search(re.escape(head) + r"(?:.|\n)*?\n(?=_____|=====)", self.text_of_failures)
        assert found, f"no failure of {head}\n{self.text}"
        return found[0]

    @property
    def text_of_failures(self):
        # Each failure begins with a rule that repeats the cell's name; messages come after it.
        return re.sub(r"^_+ .* _+$", "_____", self.text, flags=re.MULTILINE)


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    folder = tmp_path_factory.mktemp("planted")
    course = folder / "course"
    (course / "labs").mkdir(parents=True)
    notebooks = {
        "01_good": GOOD,
        "02_faults": list(FAULTS.values()),
        "labs/02_stripped": STRIPPED,
    }
    for name, cells in notebooks.items():
        notebook = new_notebook(cells=[new_markdown_cell("# Planted"), *cells])
        notebook.metadata["kernelspec"] = {"name": "my-conda-env", "display_name": "mine"}
        (course / f"{name}.ipynb").write_text(dumps(notebook), encoding="utf-8")
    (folder / "conftest.py").write_text(
        "def pytest_report_header(config):\n"
        "    return f'cell timeout {config.option.nbval_cell_timeout}'\n",
        encoding="utf-8",
    )
    (folder / "pytest.ini").write_text("[pytest]\nfilterwarnings = error\n", encoding="utf-8")
    report = folder / "report"
    command = [sys.executable, "-m", "pytest", "-p", "tools.nbval_plugin", "-p", "no:cacheprovider"]
    command += ["--nbval", "-n", "2", "--dist", "loadfile", "-v", "--color=no", "course"]
    environment = (
        os.environ
        | LEAN
        | {
            "PYTHONPATH": str(ROOT),
            "MINILLM_REPORT": str(report),
            "MINILLM_MY": str(folder / "minillm-learner"),
            "COLUMNS": "100",
        }
    )
    done = subprocess.run(
        command, cwd=folder, env=environment, capture_output=True, encoding="utf-8", timeout=600
    )
    text = done.stdout + done.stderr
    records = [json.loads(path.read_text(encoding="utf-8")) for path in report.glob("*.json")]
    return Run(text, done.returncode, {record["notebook"]: record for record in records})


def fault(run, name):
    return run.message("02_faults", list(FAULTS).index(name) + 1)


def in_this_order(text, *parts):
    place = 0
    for part in parts:
        found = text.find(part, place)
        assert found != -1, f"{part!r} is not where it should be in\n{text}"
        place = found + len(part)
    return True


def test_a_good_notebook_passes_with_floats_and_measured_numbers_that_moved(run):
    passed = re.findall(r"PASSED course/01_good\.ipynb::Cell \d+", run.text)
    assert len(passed) == len(GOOD), run.text


def test_every_fault_fails_and_so_does_the_run(run):
    failed = re.findall(r"\] FAILED course/02_faults\.ipynb::Cell \d+", run.text)
    assert len(failed) == len(FAULTS) - 1, run.text
    assert run.status == 1


def test_a_wrong_number_shows_what_was_stored_then_what_came_and_what_to_do(run):
    message = fault(run, "a wrong number")
    assert in_this_order(
        message,
        "02_faults, code cell 2: its outputs are not the stored ones",
        'print("loss 2.3456")',
        "stored: loss 2.4456",
        "came:   loss 2.3456",
        "make notebooks NB=02",
    )


def test_a_wrong_count_fails(run):
    assert "a whole number" in fault(run, "a wrong count")


def test_a_changed_bound_fails(run):
    message = fault(run, "a changed bound")
    assert in_this_order(message, "the bound differs", "stored: ✔ it learns: 1.58 (at most 1.70)")


def test_a_changed_sentence_fails(run):
    assert "stored: ✔ we learn" in fault(run, "a changed sentence")


def test_a_task_that_is_suddenly_solved_fails(run):
    assert in_this_order(fault(run, "a status"), "stored: 1.2 ☐ to do", "came:   1.2 ✔")


def test_a_missing_line_fails(run):
    assert in_this_order(fault(run, "a missing line"), "line 2 is missing", "stored: two")


def test_an_unexecuted_cell_fails(run):
    assert "was never executed" in fault(run, "an unexecuted cell")
    assert "was never executed" in fault(run, "a cell with outputs and no count")


def test_a_new_warning_fails_and_its_text_is_printed(run):
    message = fault(run, "a new warning")
    assert in_this_order(message, "stderr: nothing stored, but this came", "plums are sold out")


def test_results_that_appear_or_vanish_fail(run):
    message = fault(run, "a result that is gone")
    assert in_this_order(message, "text/plain: stored, but nothing came", "7")
    assert in_this_order(fault(run, "a new result"), "nothing stored, but this came", "42")


def test_an_exception_shows_its_traceback_and_the_cells_after_it_point_back(run):
    assert "ZeroDivisionError: division by zero" in fault(run, "an exception")
    earlier = list(FAULTS).index("an exception") + 1
    assert f"Look at code cell {earlier} first" in fault(run, "its victim")
    assert "Look at code cell" not in fault(run, "a new result")


def test_a_stripped_notebook_fails_in_every_cell(run):
    failed = re.findall(r"\] FAILED course/labs/02_stripped\.ipynb::Cell \d+", run.text)
    assert len(failed) == len(STRIPPED), run.text
    assert "make notebooks NB=labs/02" in run.message("labs/02_stripped", 2)


def test_the_kernel_is_this_python_and_a_cell_has_270_seconds(run):
    assert "NoSuchKernel" not in run.text  # The notebooks ask for `my-conda-env`.
    assert "cell timeout 270" in run.text


def test_a_stop_leaves_no_kernel_and_no_worker_behind(tmp_path, monkeypatch):
    source = """import os, time
for pid in os.getpid(), os.getppid():  # the kernel and the worker that started it
    open(str(pid), 'w').close()
time.sleep(600)"""
    notebook = new_notebook(cells=[planted(source)])
    (tmp_path / "01_sleeps.ipynb").write_text(dumps(notebook), encoding="utf-8")
    for name, value in {"PYTHONPATH": str(ROOT), **LEAN}.items():
        monkeypatch.setenv(name, value)
    nbval = ("-p", "tools.nbval_plugin", "--nbval", "--rootdir", str(tmp_path), str(tmp_path))
    # xdist waits 10 seconds for its workers, and so does jobs.stop; what it does then is the same
    monkeypatch.setattr(jobs, "stop", partial(jobs.stop, grace_seconds=1))
    step = jobs.Step("notebooks", jobs.on_all_cores("-n", "1", *nbval))
    begun = []

    def both_run_or_it_is_late():
        until = time.monotonic() + 300
        while len(begun) < 2 and time.monotonic() < until:
            time.sleep(0.2)
            begun[:] = [int(path.name) for path in tmp_path.iterdir() if path.name.isdigit()]
        _thread.interrupt_main()  # as Ctrl-C does

    threading.Thread(target=both_run_or_it_is_late).start()
    with pytest.raises(KeyboardInterrupt):
        jobs.run_one(step, 300)
    assert len(begun) == 2
    until = time.monotonic() + 60
    while time.monotonic() < until and any(map(psutil.pid_exists, begun)):
        time.sleep(0.2)
    assert not any(map(psutil.pid_exists, begun))


def test_the_report_has_seconds_memory_and_cells(run):
    assert set(run.report) == {"01_good", "02_faults", "labs/02_stripped"}
    good, bad = run.report["01_good"], run.report["02_faults"]
    assert (good["cells"], good["compared"], good["failed"]) == (len(GOOD), len(GOOD) - 1, [])
    assert 0.1 < good["seconds"] < 100
    assert good["size_bytes"] > 1000
    assert good["peak_bytes"] > 300_000_000 > bad["peak_bytes"] > 10_000_000
    assert bad["failed"] == list(range(1, len(FAULTS)))
    assert run.report["labs/02_stripped"]["compared"] == 0
