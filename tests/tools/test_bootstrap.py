"""The set-up: what it does on a first call, on a second, after every kind of interruption.

Environments are really made here (without pip, which takes seconds); pip itself is a stand-in that
writes down what it was asked to install. The whole of it runs in CI's own first call.
"""

import ast
import http.server
import json
import socket
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from tools import bootstrap, jobs
from tools.bootstrap import MARK, STAMP, Stop

BOOTSTRAP = Path(bootstrap.__file__)


class Ended:
    """A stand-in for a process that has ended already; execve, for its part, never returns."""

    def __init__(self, *_, **__):
        pass

    def wait(self):
        return 0


class Pip:
    """A stand-in for pip: remembers its calls, and fails for the words it is told to."""

    def __init__(self):
        self.calls = []
        self.failing = {}

    def __call__(self, venv, log, *arguments):
        self.calls.append(" ".join(arguments))
        for words, error in self.failing.items():
            if words in self.calls[-1]:
                raise error


@pytest.fixture
def pip(monkeypatch):
    stand_in = Pip()
    monkeypatch.setattr(bootstrap, "pip", stand_in)
    return stand_in


@pytest.fixture
def project(tmp_path, monkeypatch, pip):
    """A project to set up, on a Linux machine without a GPU whose CPU index does not answer."""
    root = tmp_path / "a project"
    root.mkdir()
    (root / "pyproject.toml").write_text('[project]\nname = "minillm"\n')
    (root / "constraints.txt").write_text("# tested\nnumpy==2.4.6\ntorch==2.13.0\n")
    monkeypatch.setattr(bootstrap, "ROOT", root)
    monkeypatch.setattr(bootstrap, "answers", lambda url, seconds: False)
    monkeypatch.setattr(bootstrap, "has_nvidia", lambda: False)
    monkeypatch.setattr(sys, "path", list(sys.path))
    monkeypatch.setattr(sys, "platform", "linux")
    for name in ("TORCH", "PYTHON"):
        monkeypatch.delenv(name, raising=False)
    really = bootstrap.quietly

    def quietly(command):
        if "ensurepip" in command:
            return subprocess.CompletedProcess(command, 0, "", "")
        return really([*command, "--without-pip"] if "venv" in command else command)

    monkeypatch.setattr(bootstrap, "quietly", quietly)
    return root


@pytest.fixture
def ran(monkeypatch):
    """The jobs that were started; nothing is really run."""
    started = []

    def run(venv, arguments):
        started.append(arguments)
        return 0

    monkeypatch.setattr(bootstrap, "run", run)
    return started


# --- by hand ---


def test_the_first_call_makes_the_environment_one_line_a_step(project, pip, ran, capsys):
    assert bootstrap.main(["check"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert [line[:5] for line in lines] == ["[1/4]", "[2/4]", "[3/4]", "[4/4]"]
    assert lines[0].startswith("[1/4] .venv made ... ")
    assert lines[1].startswith("[2/4] torch==2.13.0 ... ")
    assert lines[2].startswith("[3/4] minillm and 2 tested packages ... ")
    assert pip.calls == [
        "-c constraints.txt torch==2.13.0",
        "-c constraints.txt -e .[course,test]",
    ]
    assert ran == [["-m", "tools.jobs", "check"]]


def test_the_second_call_does_nothing_but_the_job(project, pip, ran, capsys, monkeypatch):
    bootstrap.main(["check"])
    capsys.readouterr()
    pip.calls.clear()
    monkeypatch.setattr(bootstrap, "quietly", lambda command: pytest.fail(f"ran {command}"))
    assert bootstrap.main(["notebooks", "01"]) == 0
    assert capsys.readouterr().out == ""
    assert pip.calls == []
    assert ran[-1] == ["-m", "tools.jobs", "notebooks", "01"]


@pytest.mark.parametrize("name", ["pyproject.toml", "constraints.txt"])
def test_a_changed_list_of_versions_is_installed_into_the_same_environment(name, project, pip, ran):
    bootstrap.main(["check"])
    (project / ".venv" / "kept").touch()
    with (project / name).open("a") as file:
        file.write("# changed\n")
    pip.calls.clear()
    bootstrap.main(["check"])
    assert len(pip.calls) == 2
    assert (project / ".venv" / "kept").exists()


def test_other_line_endings_are_no_change(project, ran, pip):
    bootstrap.main(["check"])
    text = (project / "pyproject.toml").read_bytes()
    (project / "pyproject.toml").write_bytes(text.replace(b"\n", b"\r\n"))
    pip.calls.clear()
    bootstrap.main(["check"])
    assert pip.calls == []


def test_a_target_that_does_not_exist_is_named_before_anything_is_installed(project, pip, capsys):
    assert bootstrap.main(["lern"]) == 2
    assert "there is no target 'lern'. Targets: learn, test, check" in capsys.readouterr().err
    assert not (project / ".venv").exists()


def test_a_call_without_a_target_prints_help_and_installs_nothing(project, capsys):
    assert bootstrap.main([]) == 0
    assert "make learn" in capsys.readouterr().out
    assert not (project / ".venv").exists()


# --- interruptions and repairs ---


@pytest.mark.parametrize("words", ["torch==", "-e .[course,test]"])
def test_ctrl_c_while_installing_leaves_what_the_next_call_mends(words, project, pip, ran, capsys):
    pip.failing = {words: KeyboardInterrupt()}
    assert bootstrap.main(["check"]) == 130
    assert "the next call takes the set-up up again" in capsys.readouterr().err
    assert (project / ".venv" / MARK).exists()
    assert not (project / ".venv" / STAMP).exists()
    assert ran == []
    pip.failing = {}
    assert bootstrap.main(["check"]) == 0
    assert "[1/4] .venv was unfinished: made anew ..." in capsys.readouterr().out
    assert not (project / ".venv" / MARK).exists()


def test_an_interrupted_update_is_made_anew(project, pip, ran, capsys):
    bootstrap.main(["check"])
    before = (project / "constraints.txt").read_text()
    (project / "constraints.txt").write_text("torch==2.13.0\n")
    pip.failing = {"-e": KeyboardInterrupt()}
    assert bootstrap.main(["check"]) == 130
    pip.failing = {}
    (project / "constraints.txt").write_text(before)  # even then: something else is installed
    capsys.readouterr()
    bootstrap.main(["check"])
    assert "was unfinished: made anew" in capsys.readouterr().out


def test_an_environment_whose_python_is_gone_is_made_anew(project, ran, capsys):
    bootstrap.main(["check"])
    bootstrap.interpreter(project / ".venv").unlink()
    capsys.readouterr()
    assert bootstrap.main(["check"]) == 0
    assert ".venv did not work: made anew" in capsys.readouterr().out
    assert bootstrap.python_of(project / ".venv") == bootstrap.this_python()


def test_an_empty_folder_is_made_into_an_environment(project, ran):
    (project / ".venv").mkdir()
    assert bootstrap.main(["check"]) == 0
    assert bootstrap.python_of(project / ".venv") == bootstrap.this_python()


def test_an_environment_of_the_users_own_is_built_upon(project, pip, ran, capsys):
    bootstrap.quietly([sys.executable, "-m", "venv", str(project / ".venv")])
    (project / ".venv" / "mine").touch()
    pip.failing = {"-e": Stop("no network")}
    assert bootstrap.main(["check"]) == 1
    pip.failing = {}
    assert bootstrap.main(["check"]) == 0
    assert "[1/4] .venv is here, and is brought up to date" in capsys.readouterr().out
    assert (project / ".venv" / "mine").exists()


def test_an_environment_is_made_anew_where_the_project_has_moved(project, ran, capsys, monkeypatch):
    bootstrap.main(["check"])
    moved = project.rename(project.with_name("elsewhere"))
    monkeypatch.setattr(bootstrap, "ROOT", moved)
    capsys.readouterr()
    bootstrap.main(["check"])
    assert "made anew: the project has moved" in capsys.readouterr().out


def test_a_chosen_python_replaces_the_environment_and_an_active_one_does_not(
    project, ran, capsys, monkeypatch
):
    bootstrap.main(["check"])
    capsys.readouterr()
    monkeypatch.setattr(bootstrap, "this_python", lambda: "3.99")
    bootstrap.main(["check"])
    assert capsys.readouterr().out == ""
    monkeypatch.setenv("PYTHON", "python3.99")
    bootstrap.main(["check"])
    assert "made anew for Python 3.99" in capsys.readouterr().out


def test_a_damaged_stamp_is_no_stamp(project, ran, pip):
    bootstrap.main(["check"])
    (project / ".venv" / STAMP).write_text('{"for": ')
    pip.calls.clear()
    assert bootstrap.main(["check"]) == 0
    assert len(pip.calls) == 2


# --- which torch ---


def test_linux_without_a_gpu_takes_the_cpu_build_if_the_index_answers(
    project, pip, ran, monkeypatch
):
    monkeypatch.setattr(bootstrap, "answers", lambda url, seconds: seconds == 3)
    bootstrap.main(["check"])
    assert pip.calls[0] == f"--no-deps --index-url {bootstrap.CPU_INDEX} torch==2.13.0"
    assert json.loads((project / ".venv" / STAMP).read_text())["torch"] == "cpu"


def test_a_cpu_index_without_the_build_falls_back_to_the_plain_package(
    project, pip, ran, monkeypatch, capsys
):
    monkeypatch.setattr(bootstrap, "answers", lambda url, seconds: True)
    pip.failing = {"--index-url": Stop("no such wheel")}
    assert bootstrap.main(["check"]) == 0
    assert pip.calls[1] == "-c constraints.txt torch==2.13.0"
    assert "taking the plain one" in capsys.readouterr().out


@pytest.mark.parametrize("case", ["a GPU", "macOS", "Windows", "TORCH=default"])
def test_the_index_is_not_even_asked_on(case, project, pip, ran, monkeypatch):
    monkeypatch.setattr(bootstrap, "answers", lambda url, seconds: pytest.fail("asked"))
    if case == "a GPU":
        monkeypatch.setattr(bootstrap, "has_nvidia", lambda: True)
    elif case == "TORCH=default":
        monkeypatch.setenv("TORCH", "default")
    else:
        monkeypatch.setattr(sys, "platform", {"macOS": "darwin", "Windows": "win32"}[case])
    assert bootstrap.main(["check"]) == 0
    assert pip.calls[0] == "-c constraints.txt torch==2.13.0"


def test_asking_for_the_plain_torch_later_makes_the_environment_anew_once(
    project, pip, ran, monkeypatch, capsys
):
    monkeypatch.setattr(bootstrap, "answers", lambda url, seconds: True)
    bootstrap.main(["check"])
    monkeypatch.setenv("TORCH", "default")
    bootstrap.main(["check"])
    assert "made anew for another torch" in capsys.readouterr().out
    monkeypatch.delenv("TORCH")
    bootstrap.main(["check"])
    assert capsys.readouterr().out == ""


def test_an_unknown_choice_of_torch_is_refused(project, pip, monkeypatch, capsys):
    monkeypatch.setenv("TORCH", "gpu")
    assert bootstrap.main(["check"]) == 1
    assert "TORCH may be `default` or nothing; got 'gpu'" in capsys.readouterr().err
    assert pip.calls == []


def test_an_address_that_answers_does_and_one_that_keeps_silent_does_not():
    class Page(http.server.BaseHTTPRequestHandler):
        def do_HEAD(self):
            self.send_response(200)
            self.end_headers()

        def log_message(self, *_):
            pass

    with http.server.HTTPServer(("127.0.0.1", 0), Page) as server:
        threading.Thread(target=server.handle_request).start()
        assert bootstrap.answers(f"http://127.0.0.1:{server.server_port}/", seconds=3)
    with socket.create_server(("127.0.0.1", 0)) as silent:
        began = time.monotonic()
        assert not bootstrap.answers(f"http://127.0.0.1:{silent.getsockname()[1]}/", seconds=0.2)
        assert time.monotonic() - began < 2
    assert not bootstrap.answers("http://127.0.0.1:1/", seconds=3)


def test_a_name_that_is_looked_up_for_ever_is_not_waited_for(monkeypatch):
    hang = threading.Event()

    def urlopen(*_, **__):
        hang.wait(3)
        raise OSError("no such name")

    monkeypatch.setattr(bootstrap.urllib.request, "urlopen", urlopen)
    began = time.monotonic()
    assert not bootstrap.answers("http://127.0.0.1/", seconds=0.2)
    assert time.monotonic() - began < 2
    hang.set()


# --- what goes wrong ---


def test_a_failing_pip_names_its_log_and_shows_its_end(tmp_path, monkeypatch):
    monkeypatch.setattr(bootstrap, "ROOT", tmp_path)
    monkeypatch.setattr(bootstrap, "interpreter", lambda venv: Path(sys.executable))
    log = tmp_path / "setup.log"
    log.write_text("an earlier step\n")
    with pytest.raises(Stop) as stopped:
        bootstrap.pip(tmp_path, log, "--no-index", "no-such-package-of-minillm")
    assert str(log) in str(stopped.value)
    assert "No matching distribution found for no-such-package-of-minillm" in str(stopped.value)
    assert "mend the cause" in str(stopped.value)
    assert "an earlier step" not in str(stopped.value)
    assert "an earlier step" in log.read_text()


def test_a_missing_network_is_called_so_and_the_way_without_it_is_told(tmp_path):
    text = "WARNING: Retrying: NewConnectionError('<...>: Failed to establish a new connection')"
    said = bootstrap.explain(text, tmp_path / "log")
    assert "The package index cannot be reached" in said
    assert "PIP_FIND_LINKS" in said


def test_a_full_disk_is_called_so(tmp_path):
    said = bootstrap.explain("OSError: [Errno 28] No space left on device", tmp_path / "log")
    assert "The disk is full" in said


def test_a_stopped_set_up_ends_with_status_1_and_no_traceback(project, pip, capsys, ran):
    pip.failing = {"-e": Stop("the reason")}
    assert bootstrap.main(["check"]) == 1
    said = capsys.readouterr()
    assert said.err.strip() == "the reason"
    assert said.out.splitlines()[-1] == "[3/4] minillm and 2 tested packages ... not done"
    assert ran == []


def test_a_python_without_venv_is_told_where_it_comes_from(project, monkeypatch, capsys):
    monkeypatch.setattr(
        bootstrap,
        "quietly",
        lambda command: subprocess.CompletedProcess(command, 1, "ensurepip is not available", ""),
    )
    assert bootstrap.main(["check"]) == 1
    assert "apt install python3-venv" in capsys.readouterr().err


def test_an_old_python_is_told_what_is_needed(monkeypatch, capsys):
    monkeypatch.setattr(bootstrap, "OLDEST", (3, 99))
    monkeypatch.setattr(bootstrap.shutil, "which", lambda name: name == "python3.12")
    monkeypatch.setattr(bootstrap.subprocess, "call", lambda *_, **__: 0)
    assert bootstrap.main(["check"]) == 2
    have = ".".join(str(n) for n in sys.version_info[:3])
    said = capsys.readouterr().err
    assert "minillm needs Python 3.99 or newer" in said
    assert f"is {have}" in said
    assert "There is python3.12: make learn PYTHON=python3.12" in said


# --- laws ---


def test_an_old_python_can_read_the_file_far_enough_to_say_so():
    ast.parse(BOOTSTRAP.read_text(encoding="utf-8"), feature_version=(3, 7))
    tree = ast.parse(BOOTSTRAP.read_text(encoding="utf-8"))
    functions = [node for node in ast.walk(tree) if isinstance(node, ast.FunctionDef)]
    assert functions
    for function in functions:  # `list[str]` in a signature would be an error before Python 3.9
        assert function.returns is None
        assert all(argument.annotation is None for argument in function.args.args)


def test_what_another_active_environment_brings_in_is_left_out(monkeypatch):
    monkeypatch.setenv("PYTHONPATH", "/somewhere")
    monkeypatch.setenv("VIRTUAL_ENV", "/other")
    monkeypatch.setenv("PIP_TARGET", "/there")
    monkeypatch.setenv("KEPT", "yes")
    left = bootstrap.clean_environment()
    assert not {"PYTHONPATH", "VIRTUAL_ENV", "PIP_TARGET"} & set(left)
    assert (left["KEPT"], left["PIP_USER"]) == ("yes", "0")


@pytest.mark.skipif(not jobs.POSIX, reason="on Windows the job is a child process")
def test_the_job_takes_this_process_and_the_environment_goes_first_in_path(tmp_path, monkeypatch):
    took = {}
    monkeypatch.setattr(bootstrap, "ROOT", tmp_path)
    monkeypatch.setattr(
        bootstrap.os, "execve", lambda path, command, env: took.update(command=command, env=env)
    )
    monkeypatch.setattr(bootstrap.subprocess, "Popen", Ended)
    monkeypatch.chdir(tmp_path)
    bootstrap.run(tmp_path / ".venv", ["-m", "tools.jobs", "check"])
    assert took["command"][1:] == ["-m", "tools.jobs", "check"]
    assert took["env"]["PATH"].startswith(str(tmp_path / ".venv"))
    assert took["env"]["VIRTUAL_ENV"] == str(tmp_path / ".venv")
