"""The Makefile's jobs: targets, steps with a time limit, and a JupyterLab that starts and stops."""

import json
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from pathlib import Path

import pytest

from tools import jobs
from tools.jobs import JOBS, Mistake, Step, run_steps

ROOT = Path(__file__).resolve().parents[2]


def says(name, code):
    return Step(name, (sys.executable, "-c", code))


# --- targets ---


def test_help_names_every_target_with_one_clause(capsys):
    assert jobs.main(["help"]) == 0
    lines = capsys.readouterr().out.splitlines()
    for name in ("learn", "test", "check", "notebooks", "edit", "exercises", "bench", "clean"):
        assert len([line for line in lines if re.match(rf"  make {name}\b.* \w+ \w+", line)]) == 1


def test_the_makefile_has_the_same_targets_each_one_line_of_python():
    text = (ROOT / "Makefile").read_text(encoding="utf-8")
    targets = dict(re.findall(r"^(\w+):\n\t(.*)$", text, re.MULTILINE))
    assert set(targets) == {"help"} | {name for name, job in JOBS.items() if not job.hidden}
    for name, line in targets.items():
        variable = {"notebooks": " $(NB)", "edit": " $(NB)", "bench": " $(NAME)"}.get(name, "")
        assert line == f"$(DO) {name}{variable}"


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["lern"], "there is no target 'lern'. Targets: learn, test, check"),
        (["edit"], "edit needs one word more, for instance: make edit NB=01"),
        (["check", "1.2"], "check takes nothing more; got: 1.2"),
        (["bench", "a", "b"], "bench takes [NAME=bpe]; got: a b"),
    ],
)
def test_a_mistake_is_one_sentence_and_status_2(words, said, capsys):
    assert jobs.main(words) == 2
    assert capsys.readouterr().err.startswith(said)


def test_a_mistake_of_the_job_itself_is_one_sentence_too(monkeypatch, capsys):
    def learn(_):
        raise Mistake("close something first")

    monkeypatch.setitem(JOBS, "learn", jobs.Job(learn, "learn"))
    assert jobs.main(["learn"]) == 2
    assert capsys.readouterr().err == "close something first\n"


def test_the_words_of_a_job_reach_the_program_behind_it(monkeypatch):
    called = []
    monkeypatch.setattr(jobs.subprocess, "call", lambda command: called.append(command) or 3)
    assert jobs.main(["edit", "01"]) == 3
    assert jobs.main(["bench"]) == 3
    assert called == [
        (sys.executable, "-m", "tools.notebooks", "edit", "01"),
        (sys.executable, "-m", "minillm", "bench"),
    ]


# --- steps ---


def test_every_step_runs_and_each_is_announced_by_one_line(capfd):
    failed = run_steps([says("one", "print('1')"), says("two", "print('2')")], deadline=None)
    assert failed == []
    assert capfd.readouterr().out.split("\n") == ["── 1 one", "1", "── 2 two", "2", ""]


def test_a_failing_step_does_not_keep_the_next_from_running(capfd):
    failed = run_steps([says("one", "raise SystemExit(3)"), says("two", "print('2')")], None)
    assert failed == ["one"]
    out = capfd.readouterr().out
    assert "one: failed" in out
    assert out.endswith("── 2 two\n2\n")
    assert jobs.closing(failed) == 1
    assert "FAILED: one" in capfd.readouterr().out
    assert jobs.closing([]) == 0


def test_a_step_is_stopped_when_the_time_is_over_and_the_rest_is_not_begun(capfd):
    steps = [says("long", "import time; time.sleep(60)"), says("late", "print('late')")]
    began = time.monotonic()
    failed = run_steps(steps, deadline=began + 0.5)
    assert time.monotonic() - began < 20
    assert failed == ["long (stopped)", "late (not begun)"]
    assert "late\n" not in capfd.readouterr().out.replace("── 2 late", "")


def test_the_whole_proof_ends_with_the_report_even_if_everything_failed(monkeypatch, capfd):
    ran = []

    def run_one(step, seconds):
        ran.append((step, seconds))
        return 1

    monkeypatch.setattr(jobs, "run_one", run_one)
    assert jobs.test([]) == 1
    names = [step.name for step, _ in ran]
    assert names == [
        *("format", "lint", "layout", "unit tests", "docstrings' examples", "notebooks", "report")
    ]
    assert all(seconds <= 60 * jobs.TEST_MINUTES for _, seconds in ran)
    assert ran[0][1] > 60 * jobs.TEST_MINUTES - 60
    written, read = (step.environment["MINILLM_REPORT"] for step, _ in ran[-2:])
    assert written == read  # one folder, which the notebooks write and the report reads
    assert "FAILED: format, lint" in capfd.readouterr().out


def test_tests_and_notebooks_run_a_process_a_core_each_with_one_thread(monkeypatch, capfd):
    ran = {}
    monkeypatch.setattr(jobs, "run_one", lambda step, seconds: ran.update({step.name: step}) or 0)
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    assert jobs.test([]) == 0
    for name in ("unit tests", "docstrings' examples", "notebooks"):
        command = " ".join(ran[name].command)
        assert "-n auto" in command and "--dist loadfile" in command
    assert {step.environment["OMP_NUM_THREADS"] for step in ran.values()} == {"1"}
    monkeypatch.setenv("OMP_NUM_THREADS", "2")
    assert jobs.check([]) == 0
    assert ran["unit tests"].environment["OMP_NUM_THREADS"] == "2"


def test_a_check_has_no_notebooks_and_needs_no_report(monkeypatch, capfd):
    names = []
    monkeypatch.setattr(jobs, "run_one", lambda step, seconds: names.append(step.name) or 0)
    assert jobs.check([]) == 0
    assert names == ["format", "lint", "layout", "unit tests", "docstrings' examples"]
    assert "all passed" in capfd.readouterr().out


# --- learn ---


@pytest.mark.parametrize(
    "place", ["my", "my/course", "my/exercises/ch00_claims.py", "my/.jupyter.log"]
)
def test_a_file_or_folder_that_stands_in_the_way_is_named_with_the_cure(
    place, tmp_path, monkeypatch, capsys
):
    monkeypatch.setenv("MINILLM_MY", str(tmp_path / "my"))
    monkeypatch.delenv("MINILLM_BUILD", raising=False)
    in_the_way = tmp_path / place
    if in_the_way.suffix:
        in_the_way.mkdir(parents=True)
    else:
        in_the_way.parent.mkdir(exist_ok=True)
        in_the_way.write_text("a file stands here", encoding="utf-8")
    assert jobs.main(["learn"]) == 2
    errors = capsys.readouterr().err
    assert str(in_the_way) in errors
    assert "MINILLM_MY=" in errors


def test_the_next_free_port_is_taken():
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        assert jobs.free_port(port) > port
    assert jobs.free_port(port) == port
    with pytest.raises(Mistake, match="are all taken"):
        jobs.free_port(port, tries=0)


def test_jupyter_listens_on_this_machine_only_and_its_token_is_not_in_the_command(monkeypatch):
    if jobs.POSIX:
        monkeypatch.setattr(jobs.os, "geteuid", lambda: 1000)
    command = jobs.server_command(8890, Path("my"))
    assert "--ServerApp.ip=127.0.0.1" in command
    assert "--ServerApp.port=8890" in command
    assert "--ServerApp.root_dir=my" in command
    assert "--allow-root" not in command
    environment = jobs.server_environment({"BROWSER": "no", "KEPT": "1"}, "secret")
    assert environment["JUPYTER_TOKEN"] == "secret"
    assert "secret" not in " ".join(command)
    assert environment["KEPT"] == "1"
    assert "BROWSER" not in environment


@pytest.mark.skipif(not jobs.POSIX, reason="there is no root")
def test_root_may_start_it_as_in_a_container(monkeypatch):
    monkeypatch.setattr(jobs.os, "geteuid", lambda: 0)
    assert "--allow-root" in jobs.server_command(8888, Path("my"))


def test_no_news_and_no_update_checks_disturb_the_first_minute():
    path = jobs.server_environment({}, "t")["JUPYTER_CONFIG_PATH"]
    file = Path(path) / "labconfig" / "default_setting_overrides.json"
    settings = json.loads(file.read_text(encoding="utf-8"))
    assert settings["@jupyterlab/apputils-extension:notification"] == {
        "checkForUpdates": False,
        "fetchNews": "false",
    }


@pytest.mark.parametrize(
    ("environment", "platform", "opens"),
    [
        ({}, "darwin", True),
        ({}, "win32", True),
        ({"BROWSER": "no"}, "darwin", False),
        ({"BROWSER": "firefox"}, "darwin", True),
        ({"SSH_CONNECTION": "1.2.3.4"}, "darwin", False),
        ({}, "linux", False),
        ({"DISPLAY": ":0"}, "linux", True),
        ({"DISPLAY": ":10", "SSH_CONNECTION": "1.2.3.4"}, "linux", False),
    ],
)
def test_a_browser_opens_only_where_there_is_a_screen(environment, platform, opens):
    assert jobs.opens_browser(environment, platform) is opens


def test_the_line_for_a_remote_machine_has_the_port_that_is_really_used():
    here = jobs.where_it_is("http://127.0.0.1:8891/lab", 8891, {"USER": "mei"})
    assert f"ssh -L 8891:127.0.0.1:8891 mei@{socket.gethostname()}" in here
    assert "If this is a remote machine" in here
    there = jobs.where_it_is("x", 8891, {"USER": "mei", "SSH_CONNECTION": "1.2.3.4"})
    assert "You are on a remote machine" in there


@pytest.mark.skipif(not jobs.POSIX, reason="Ctrl-C is sent as a signal")
def test_jupyter_answers_to_its_token_alone_and_ctrl_c_stops_it_cleanly(tmp_path):
    environment = {**os.environ, "MINILLM_MY": str(tmp_path), "BROWSER": "no"}
    environment.pop("JUPYTER_TOKEN", None)
    learn = subprocess.Popen(
        [sys.executable, "-m", "tools.jobs", "learn"],
        cwd=ROOT,
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
    )
    try:
        said = ""
        for line in learn.stdout:
            said += line
            if line.startswith("Ctrl-C"):
                break
        page = re.search(r"http://127\.0\.0\.1:(\d+)/lab/tree/(\S+\.ipynb)\?token=(\w+)", said)
        assert page, said
        port, notebook, token = page.groups()
        assert f"ssh -L {port}:127.0.0.1:{port} " in said
        assert (tmp_path / notebook).exists()
        api = f"http://127.0.0.1:{port}/api/contents/{notebook}?content=0"
        direct = urllib.request.build_opener(urllib.request.ProxyHandler({}))
        with direct.open(f"{api}&token={token}", timeout=10) as reply:
            assert json.load(reply)["path"] == notebook
        with pytest.raises(urllib.error.HTTPError, match="403") as refused:
            direct.open(api, timeout=10)
        refused.value.close()
        learn.send_signal(signal.SIGINT)
        rest, _ = learn.communicate(timeout=20)
        assert learn.returncode == 0
        assert rest.strip() == "JupyterLab is stopped; what you wrote is in my/."
        with pytest.raises(OSError):
            socket.create_connection(("127.0.0.1", int(port)), timeout=1)
    finally:
        jobs.stop(learn, signal.SIGINT)
        learn.stdout.close()


def test_a_jupyter_that_cannot_start_is_reported_with_its_last_words(tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("MINILLM_MY", str(tmp_path))
    monkeypatch.setattr(
        jobs, "server_command", lambda port, folder: says("", "raise SystemExit('no room')").command
    )
    assert jobs.learn([]) == 1
    assert "JupyterLab did not start:\nno room" in capsys.readouterr().err


# --- clean ---


def test_clean_removes_caches_and_nothing_that_somebody_wrote(tmp_path, monkeypatch, capsys):
    caches = ["minillm/text/__pycache__", ".pytest_cache", ".ruff_cache", "minillm.egg-info"]
    kept = ["my/__pycache__", ".venv/lib/__pycache__", ".edit", "minillm/text", "course"]
    for name in caches + kept:
        (tmp_path / name).mkdir(parents=True, exist_ok=True)
        (tmp_path / name / "file").touch()
    monkeypatch.setattr(jobs, "ROOT", tmp_path)
    assert jobs.clean([]) == 0
    assert [name for name in caches if (tmp_path / name).exists()] == []
    assert [name for name in kept if not (tmp_path / name / "file").exists()] == []
    assert "4 caches removed" in capsys.readouterr().out


# --- without make ---


@pytest.mark.skipif(not shutil.which("make"), reason="there is no make")
def test_make_alone_prints_the_same_help_as_python_does():
    by_make = subprocess.run(
        ["make", "--no-print-directory", f"PYTHON={sys.executable}"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
    )
    assert by_make.stdout == jobs.help_text() + "\n"
