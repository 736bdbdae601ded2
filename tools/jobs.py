"""The jobs of the Makefile, run by the Python that has the course installed.

``python -m tools.jobs JOB [args]`` in an environment of one's own (conda, say), or
``python tools/bootstrap.py JOB [args]``, which makes ``.venv`` first. Nothing but the standard
library is imported until a job needs it, so that help and mistakes are answered at once.
"""

import contextlib
import os
import secrets
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
import webbrowser
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
TEST_MINUTES = 80
MOST_WORKERS = 8
FIRST_PORT = 8888
START_SECONDS = 90
POSIX = os.name != "nt"


@dataclass(frozen=True)
class Job:
    """One target: the words after it, one clause of help, and what it does."""

    run: Callable[[list[str]], int]
    clause: str
    words: str = ""
    needs_venv: bool = True
    hidden: bool = False


@dataclass(frozen=True)
class Step:
    """One program of a job, announced by one line."""

    name: str
    command: tuple[str, ...]
    environment: dict[str, str] = field(default_factory=dict)


class Mistake(Exception):
    """Something that the caller can put right; the message says how."""


def main(words: Sequence[str]) -> int:
    """Run a job and return its exit status: 0, 1 if something failed, 2 for a mistake."""
    name, *rest = words or ["help"]
    if name in ("help", "-h", "--help"):
        print(help_text())
        return 0
    mistake = complaint(name, rest)
    if mistake:
        print(mistake, file=sys.stderr)
        return 2
    os.chdir(ROOT)
    try:
        return JOBS[name].run(rest)
    except Mistake as mistake:
        print(mistake, file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("\nstopped.", file=sys.stderr)
        return 130


def program(name: str) -> contextlib.AbstractContextManager:
    """How a program of the course ends; bootstrap.py, which imports no minillm, asks here."""
    from minillm.lab import program

    return program.program(name)


def help_text() -> str:
    """Every target with one clause."""
    shown = {name: job for name, job in JOBS.items() if not job.hidden}
    lines = [f"  make {f'{name} {job.words}':<18}{job.clause}" for name, job in shown.items()]
    return "\n".join(
        [
            "minillm: what is said about large language models, measured on your own laptop",
            "",
            *lines,
            "",
            "Without make: python tools/bootstrap.py TARGET [01]",
            "The first call installs into .venv; PYTHON=python3.13 chooses the Python for it.",
        ]
    )


def complaint(name: str, words: Sequence[str]) -> str | None:
    """What is wrong with a call, or None. Asked before anything is installed."""
    if name not in JOBS:
        return f"there is no target {name!r}. Targets: {', '.join(JOBS)}."
    asked = JOBS[name].words
    if len(words) > len(asked.split()):
        return f"{name} takes {asked or 'nothing more'}; got: {' '.join(words)}"
    if asked and not asked.startswith("[") and not words:
        return f"{name} needs one word more, for instance: make {name} {asked}"
    return None


# --- learn ---------------------------------------------------------------------------------------


def learn(_: list[str]) -> int:
    """Fill ``my/``, start JupyterLab on it, and print or open the address."""
    from minillm.lab import project, start

    try:
        messages = start.fill()
        folder, notebook = project.my().resolve(), start.first_notebook().resolve()
        log = folder / ".jupyter.log"
        out = log.open("wb")
    except ValueError as error:
        raise Mistake(str(error)) from None
    except OSError as error:
        raise Mistake(
            f"{error.filename}: {error.strerror}. Your work needs a folder that can be written; "
            "MINILLM_MY names another one, as in: MINILLM_MY=~/minillm-my make learn"
        ) from None
    for message in messages:
        print(message)
    token = os.environ.get("JUPYTER_TOKEN") or secrets.token_hex(24)
    port = free_port(FIRST_PORT)
    with out:
        server = subprocess.Popen(
            server_command(port, folder),
            cwd=folder,
            env=server_environment(os.environ, token),
            stdin=subprocess.DEVNULL,
            stdout=out,
            stderr=subprocess.STDOUT,
            **apart(),
        )
    with stopping_on_signals():
        try:
            page = f"http://127.0.0.1:{port}/lab/tree/{notebook.relative_to(folder).as_posix()}"
            if not wait_for(f"http://127.0.0.1:{port}/api/status", token, server):
                said = log.read_text(encoding="utf-8", errors="replace").splitlines()[-15:]
                print("\n".join(["JupyterLab did not start:", *said]), file=sys.stderr)
                return 1
            print(where_it_is(f"{page}?token={token}", port, os.environ), flush=True)
            if opens_browser(os.environ, sys.platform):
                webbrowser.open(f"{page}?token={token}")
            status = server.wait()
            print(f"JupyterLab ended (status {status}); its log is {log}")
            return 1 if status else 0
        except KeyboardInterrupt:
            print("\nJupyterLab is stopped; what you wrote is in my/.")
            return 0
        finally:
            stop(server)


def server_command(port: int, folder: Path) -> list[str]:
    """JupyterLab on this machine's own address only, with its token."""
    settings = {
        "ip": "127.0.0.1",
        "port": port,
        "port_retries": 0,
        "open_browser": False,
        "root_dir": folder,
    }
    command = [sys.executable, "-m", "jupyterlab", "--log-level=WARN"]
    command += [f"--ServerApp.{name}={value}" for name, value in settings.items()]
    if POSIX and os.geteuid() == 0:
        command.append("--allow-root")
    return command


def server_environment(environment: dict[str, str], token: str) -> dict[str, str]:
    """What JupyterLab sees: the token (not on its command line, which others can read), no news."""
    configured = [str(ROOT / "tools" / "jupyter"), environment.get("JUPYTER_CONFIG_PATH", "")]
    kept = {name: value for name, value in environment.items() if name != "BROWSER"}
    return kept | {
        "JUPYTER_TOKEN": token,
        "JUPYTER_CONFIG_PATH": os.pathsep.join(path for path in configured if path),
    }


def free_port(first: int, tries: int = 100) -> int:
    """The first port from ``first`` on that nobody listens at."""
    for port in range(first, first + tries):
        with socket.socket() as probe:
            if POSIX:
                probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                probe.bind(("127.0.0.1", port))
            except OSError:
                continue
            return port
    raise Mistake(f"the ports {first} to {first + tries - 1} are all taken; end a Jupyter of yours")


def wait_for(url: str, token: str, server: subprocess.Popen) -> bool:
    """True once the server answers to its token; False if it ends or takes too long."""
    request = urllib.request.Request(url, headers={"Authorization": f"token {token}"})
    direct = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    until = time.monotonic() + START_SECONDS
    while time.monotonic() < until and server.poll() is None:
        try:
            with direct.open(request, timeout=5):
                return True
        except (urllib.error.URLError, OSError):
            time.sleep(0.2)
    return False


def where_it_is(address: str, port: int, environment: dict[str, str]) -> str:
    """The address, how to reach it from another machine, and how to stop."""
    name = environment.get("USER") or environment.get("USERNAME") or "user"
    host = socket.gethostname()
    remote = f"  ssh -L {port}:127.0.0.1:{port} {name}@{host}"
    if environment.get("SSH_CONNECTION"):
        remote = "You are on a remote machine. On your own, in a second terminal, type\n" + remote
    else:
        remote = "If this is a remote machine, first type on your own\n" + remote
    return (
        f"\nThe course is open at\n  {address}\n\n{remote}\nand open the address there.\n\n"
        "Ctrl-C stops it. What you write is kept in my/."
    )


def opens_browser(environment: dict[str, str], platform: str) -> bool:
    """Whether there is a screen on which a browser can open, and nobody said BROWSER=no."""
    if environment.get("BROWSER", "").lower() in ("no", "none", "0", "false"):
        return False
    if environment.get("SSH_CONNECTION"):
        return False
    if platform.startswith("linux"):
        # without a screen, Python would open a text browser in this very terminal
        return any(environment.get(name) for name in ("DISPLAY", "WAYLAND_DISPLAY"))
    return True


# --- check, test and their steps -----------------------------------------------------------------


def check(_: list[str]) -> int:
    """Format, lint, layout, unit tests and the docstrings' examples."""
    return closing(run_steps(check_steps(), deadline=None))


def test(_: list[str]) -> int:
    """Everything, and a table at the end; stopped with a report after ``TEST_MINUTES``."""
    deadline = time.monotonic() + 60 * TEST_MINUTES
    with tempfile.TemporaryDirectory() as scratch:
        report = {"MINILLM_REPORT": scratch}
        nbval = ("-p", "tools.nbval_plugin", "--nbval", "course")
        steps = [*check_steps(), Step("notebooks", on_all_cores(*nbval), report)]
        failed = run_steps(steps, deadline)
        # the table is made in any case, and has its own minute
        last = Step("report", python("tools.report"), report)
        failed += run_steps([last], time.monotonic() + 60, first=len(steps) + 1)
    return closing(failed)


def check_steps() -> list[Step]:
    """The steps of ``check``; cheap ones first."""
    rules = ("tests/test_layout.py", "tests/test_notebooks.py")
    apart_from_rules = [f"--ignore={path}" for path in rules]
    present = [path for path in rules if (ROOT / path).exists()]
    return [
        Step("format", python("ruff", "format", "--check", "--quiet", ".")),
        Step("lint", python("ruff", "check", "--quiet", ".")),
        Step("layout", python("pytest", "-q", *present)),
        Step("unit tests", on_all_cores("tests", *apart_from_rules)),
        Step("docstrings' examples", on_all_cores("--doctest-modules", "minillm")),
    ]


def on_all_cores(*arguments: str) -> tuple[str, ...]:
    """The command that runs pytest in one process a core, each with whole files.

    At most ``MOST_WORKERS``, since a notebook may take 1.5 GB of memory. The order of files is that
    of conftest.py, not the plugin's.
    """
    workers = ("-n", "auto", "--maxprocesses", str(MOST_WORKERS))
    return python(
        "pytest", "-q", *workers, "--dist", "loadfile", "--no-loadscope-reorder", *arguments
    )


def python(module: str, *arguments: str) -> tuple[str, ...]:
    """The command that runs a module with this Python."""
    return (sys.executable, "-m", module, *arguments)


def run_steps(steps: Sequence[Step], deadline: float | None, first: int = 1) -> list[str]:
    """Run every step, also after one has failed; return what failed, in words.

    What a step starts computes with `minillm.lab.threads.threads` threads: it has all cores by
    processes.
    """
    from minillm.lab.threads import threads

    failed = []
    try:
        environment = {"OMP_NUM_THREADS": str(threads())}
    except ValueError as error:
        raise Mistake(str(error)) from None
    for number, step in enumerate(steps, first):
        left = None if deadline is None else deadline - time.monotonic()
        if left is not None and left <= 0:
            print(f"── {number} {step.name}: not begun, the time is over", flush=True)
            failed.append(f"{step.name} (not begun)")
            continue
        print(f"── {number} {step.name}", flush=True)
        began = time.monotonic()
        status = run_one(replace(step, environment=environment | step.environment), left)
        seconds = f"{time.monotonic() - began:.0f} s"
        if status is None:
            print(f"── {step.name}: stopped after {seconds}, the time is over", flush=True)
            failed.append(f"{step.name} (stopped)")
        elif status:
            print(f"── {step.name}: failed, {seconds}", flush=True)
            failed.append(step.name)
    return failed


def run_one(step: Step, seconds: float | None) -> int | None:
    """Run a step and return its exit status, or None if its time was over."""
    process = subprocess.Popen(step.command, env={**os.environ, **step.environment}, **apart())
    with stopping_on_signals():
        try:
            return process.wait(seconds)
        except subprocess.TimeoutExpired:
            return None
        finally:
            stop(process, signal.SIGINT)  # so that pytest still says how far it came


def closing(failed: list[str]) -> int:
    """Say how it ended; the exit status."""
    print(f"\nFAILED: {', '.join(failed)}" if failed else "\nall passed")
    return 1 if failed else 0


# --- processes -----------------------------------------------------------------------------------


def apart() -> dict:
    """How to start a program that does not get this terminal's Ctrl-C, but is told by ``stop``."""
    if POSIX:
        return {"start_new_session": True}
    return {"creationflags": subprocess.CREATE_NEW_PROCESS_GROUP}


@contextlib.contextmanager
def stopping_on_signals() -> Iterator[None]:
    """Within it, a closed terminal and a polite kill end the job as Ctrl-C does."""

    def interrupt(*_: object) -> None:
        raise KeyboardInterrupt

    names = [name for name in ("SIGTERM", "SIGHUP") if hasattr(signal, name)]
    before = {name: signal.signal(getattr(signal, name), interrupt) for name in names}
    try:
        yield
    finally:
        for name, handler in before.items():
            signal.signal(getattr(signal, name), handler)


def stop(process: subprocess.Popen, ask: int = signal.SIGTERM, grace_seconds: float = 10) -> None:
    """End a program started ``apart``, and what it started; it is asked before it is made to."""
    if process.poll() is not None:
        return
    with contextlib.suppress(KeyboardInterrupt, subprocess.TimeoutExpired):
        send(process, ask)
        process.wait(grace_seconds)
    if process.poll() is None:
        send(process, signal.SIGKILL if POSIX else signal.SIGTERM)
        process.wait()


def send(process: subprocess.Popen, number: int) -> None:
    """Send a signal to a program and its children; on Windows, end it with them."""
    if POSIX:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, number)
    else:
        subprocess.run(
            ["taskkill", "/F", "/T", "/PID", str(process.pid)], capture_output=True, check=False
        )


# --- the builders' jobs --------------------------------------------------------------------------


def call(module: str) -> Callable[[list[str]], int]:
    """A job that is another program of the project."""

    def run(words: list[str]) -> int:
        first, *rest = module.split()
        return subprocess.call(python(first, *rest, *words))

    return run


def setup(_: list[str]) -> int:
    """Nothing: whoever gets here is installed."""
    return 0


def clean(_: list[str]) -> int:
    """Remove caches; nothing that somebody wrote, and not ``.venv``."""
    names = {"__pycache__", ".pytest_cache", ".ruff_cache", ".hypothesis", ".ipynb_checkpoints"}
    kept = {ROOT / name for name in ("my", ".edit", ".venv", ".git")}
    gone = 0
    for folder, children, _files in os.walk(ROOT):
        here = Path(folder)
        children[:] = [child for child in children if here / child not in kept]
        for child in list(children):
            if child in names or (child.endswith(".egg-info") and here == ROOT):
                shutil.rmtree(here / child)
                children.remove(child)
                gone += 1
    shutil.rmtree(ROOT / "build", ignore_errors=True)
    print(f"{gone} caches removed; my/, .edit/ and .venv are as they were")
    return 0


JOBS: dict[str, Job] = {
    "learn": Job(learn, "open the course in JupyterLab (BROWSER=no prints the address)"),
    "test": Job(test, "prove everything: check, every notebook, a table at the end"),
    "check": Job(check, "format, lint, layout, unit tests"),
    "notebooks": Job(call("tools.notebooks"), "run and write the notebooks, or one", "[NB=01]"),
    "edit": Job(call("tools.notebooks edit"), "write a notebook as text into .edit/", "NB=01"),
    "exercises": Job(call("tools.stubs"), "make exercises/ from solutions/"),
    "bench": Job(call("minillm bench"), "run a benchmark, or list them", "[NAME=bpe]"),
    "clean": Job(clean, "remove caches", needs_venv=False),
    "setup": Job(setup, "only install", hidden=True),
}


if __name__ == "__main__":
    with program("tools.jobs"):
        sys.exit(main(sys.argv[1:]))
