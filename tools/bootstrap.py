"""Make ``.venv``, install the course into it once, and run a job there.

``python tools/bootstrap.py JOB [args]`` works on Linux, macOS and Windows and needs nothing but
Python; the Makefile calls it. A stamp in ``.venv`` says for which pyproject.toml and
constraints.txt it was made, so that every later call goes straight to the job. The stamp is taken
away before anything is changed and written last: whatever interrupts a set-up, the next call sees
that it is unfinished and makes it anew.

Environment variables: ``TORCH=default`` takes the plain torch package, whatever the machine;
``PYTHON`` (as a variable of make) chooses which Python makes ``.venv``.
"""

import hashlib
import json
import os
import re
import shutil
import subprocess
import sys
import threading
import time
import urllib.request
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
OLDEST = (3, 11)
CPU_INDEX = "https://download.pytorch.org/whl/cpu"
STAMP = "minillm-stamp.json"  # .venv is finished
MARK = "minillm-unfinished"  # .venv is ours, and is not finished
NO_NETWORK = re.compile(
    "NewConnectionError|ConnectTimeout|ConnectionError|NameResolutionError|name resolution"
    "|getaddrinfo failed|nodename nor servname|Network is unreachable|ProxyError|ReadTimeout"
)


class Stop(Exception):
    """A set-up that cannot go on; the message says why and what to do."""


def main(argv):
    """Set up what is missing, then run the job; the return value is the exit status."""
    if sys.version_info < OLDEST:
        print(too_old(), file=sys.stderr)
        return 2
    sys.path.insert(0, str(ROOT))
    from tools import jobs

    with jobs.program("tools/bootstrap.py"):
        return begin(jobs, argv)


def begin(jobs, argv):
    """Answer what can be answered at once, else set up, and run the job."""
    job, *rest = argv or ["help"]
    if job in ("help", "-h", "--help"):
        print(jobs.help_text())
        return 0
    mistake = jobs.complaint(job, rest)
    if mistake:
        print(mistake, file=sys.stderr)
        return 2
    if not jobs.JOBS[job].needs_venv:
        return jobs.main([job, *rest])
    venv = ROOT / ".venv"
    try:
        set_up(venv)
    except Stop as stop:
        print(f"\n{stop}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("\nstopped; the next call takes the set-up up again.", file=sys.stderr)
        return 130
    return run(venv, ["-m", "tools.jobs", job, *rest])


def too_old():
    """What to say to a Python that is too old: where a newer one is, if there is one."""
    have = ".".join(str(n) for n in sys.version_info[:3])
    need = ".".join(str(n) for n in OLDEST)
    text = f"minillm needs Python {need} or newer; {sys.executable} is {have}."
    for name in ("python3.13", "python3.12", "python3.11"):
        if shutil.which(name) and subprocess.call([name, "-c", ""], stderr=subprocess.DEVNULL) == 0:
            return f"{text} There is {name}: make learn PYTHON={name}"
    return f"{text} Get one from https://www.python.org, then: make learn PYTHON=<its name>"


def set_up(venv):
    """Bring ``.venv`` to the state that pyproject.toml and constraints.txt ask for.

    Raises:
        Stop: with a message for a person.
    """
    stamp = read_stamp(venv)
    if is_current(venv, stamp):
        return
    began, log = time.time(), venv / "minillm-setup.log"
    anew = reason_to_make_anew(venv, stamp)
    if anew is not None:
        with step(1, f".venv{anew}"):
            make_venv(venv)
    else:
        print("[1/4] .venv is here, and is brought up to date", flush=True)
        if stamp:
            (venv / MARK).touch()
        quietly([str(interpreter(venv)), "-m", "ensurepip"])
    (venv / STAMP).unlink(missing_ok=True)
    log.write_text("", encoding="utf-8")
    torch = install_torch(venv, log, stamp.get("torch"))
    with step(3, f"minillm and {len(constraints())} tested packages"):
        pip(venv, log, "-c", "constraints.txt", "-e", ".[course,test]")
    facts = {"for": wanted(), "root": str(ROOT), "python": python_of(venv), "torch": torch}
    (venv / STAMP).write_text(json.dumps(facts), encoding="utf-8")
    (venv / MARK).unlink(missing_ok=True)
    print(
        f"[4/4] ready after {time.time() - began:.0f} s; the next call starts at once", flush=True
    )


def wanted():
    """A hash of everything that decides what is installed."""
    digest = hashlib.sha256()
    for name in ("pyproject.toml", "constraints.txt"):
        digest.update((ROOT / name).read_bytes().replace(b"\r\n", b"\n"))
    return digest.hexdigest()[:16]


def read_stamp(venv):
    """What the stamp says, or {} if there is none that can be read."""
    try:
        stamp = json.loads((venv / STAMP).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return stamp if isinstance(stamp, dict) else {}


def is_current(venv, stamp):
    """True if nothing has to be done."""
    return (
        stamp.get("for") == wanted()
        and stamp.get("root") == str(ROOT)
        and interpreter(venv).exists()
        and not (chosen_python() and stamp.get("python") != this_python())
        and not (torch_choice() == "default" and stamp.get("torch") == "cpu")
    )


def reason_to_make_anew(venv, stamp):
    """Why ``.venv`` has to be made anew, as the end of a line; None if it can be built upon.

    An environment that works and has no stamp is the user's own: it is built upon, not removed.
    """
    if not venv.exists() and not venv.is_symlink():
        return " made"
    if (venv / MARK).exists():
        return " was unfinished: made anew"
    python = python_of(venv)
    if python is None:
        return " did not work: made anew"
    if not stamp:
        if tuple(int(n) for n in python.split(".")) < OLDEST:
            raise Stop(f".venv was made by Python {python}, which is too old; move it away.")
        return None
    if stamp.get("root") != str(ROOT):
        return " made anew: the project has moved"
    if chosen_python() and python != this_python():
        return f" made anew for Python {this_python()}"
    if torch_choice() == "default" and stamp.get("torch") == "cpu":
        return " made anew for another torch"
    return None


def make_venv(venv):
    """Make ``.venv``; the mark goes in first, so that an interruption is seen.

    Raises:
        Stop: Python has no venv module, or it fails.
    """
    try:
        if venv.is_symlink() or venv.is_file():
            venv.unlink()
        elif venv.exists():
            shutil.rmtree(venv)
        venv.mkdir()
        (venv / MARK).touch()
    except OSError as error:
        raise Stop(
            f"cannot make {venv} anew ({error}). Close what uses it, or move it away."
        ) from None
    # not sys.executable: this may be the Python of the very .venv that was just removed
    python = getattr(sys, "_base_executable", None) or sys.executable
    made = quietly([python, "-m", "venv", str(venv)])
    if made.returncode:
        hint = (
            "On Debian and Ubuntu: apt install python3-venv. Then repeat."
            if "ensurepip" in made.stdout
            else "Try another Python: make learn PYTHON=<its name>"
        )
        raise Stop(f"{python} cannot make an environment:\n{tail(made.stdout)}\n{hint}")


def install_torch(venv, log, before):
    """Install torch, the CPU build where that is enough; return "cpu" or "default"."""
    pinned = next(line for line in constraints() if line.startswith("torch=="))
    kind = before or ("cpu" if torch_choice() != "default" and cpu_build_is_enough() else "default")
    if kind == "cpu":
        try:
            with step(2, f"{pinned}, CPU build"):
                # its dependencies come with the third step: the CPU index has only old ones
                pip(venv, log, "--no-deps", "--index-url", CPU_INDEX, pinned)
            return "cpu"
        except Stop:
            print(f"[2/4] {CPU_INDEX} has no such build for this Python; taking the plain one")
    with step(2, f"{pinned}"):
        pip(venv, log, "-c", "constraints.txt", pinned)
    return "default"


def cpu_build_is_enough():
    """True on Linux without an NVIDIA GPU, if PyTorch's CPU index answers within 3 seconds.

    Elsewhere the plain package is the CPU build already.
    """
    if not sys.platform.startswith("linux"):
        return False
    if has_nvidia():
        return False
    return answers(CPU_INDEX + "/torch/", seconds=3)


def has_nvidia():
    """True if there is an NVIDIA GPU, or at least its driver."""
    return bool(shutil.which("nvidia-smi")) or os.path.exists("/proc/driver/nvidia")


def answers(url, seconds):
    """True if the address answers in time; the name look-up, which has no time limit, included."""
    said = []

    def ask():
        try:
            request = urllib.request.Request(url, method="HEAD")
            with urllib.request.urlopen(request, timeout=seconds) as reply:
                said.append(reply.status == 200)
        except Exception:  # whatever it was, there was no answer
            said.append(False)

    asking = threading.Thread(target=ask, daemon=True)
    asking.start()
    asking.join(seconds)
    return said == [True]


def pip(venv, log, *arguments):
    """Run ``pip install`` in ``.venv``, its output into the log.

    Raises:
        Stop: it failed; the message names the log and shows its end.
    """
    command = [str(interpreter(venv)), "-m", "pip", "install", "--disable-pip-version-check"]
    command += ["--no-input", "--progress-bar", "off", *arguments]
    begins = log.stat().st_size
    with log.open("a", encoding="utf-8") as out:
        out.write(f"$ {' '.join(command)}\n")
        out.flush()
        process = subprocess.Popen(
            command, cwd=str(ROOT), stdout=out, stderr=subprocess.STDOUT, env=clean_environment()
        )
        try:
            failed = process.wait()
        except BaseException:
            process.kill()
            process.wait()
            raise
    if failed:
        text = log.read_bytes()[begins:].decode("utf-8", errors="replace")
        raise Stop(explain(text, log))


def explain(text, log):
    """Why pip failed, for a person."""
    where = f"The whole of pip's output is in {log}; its end:\n{tail(text)}"
    if NO_NETWORK.search(text):
        return (
            f"{where}\n\nThe package index cannot be reached. Once there is a network, repeat the "
            "call. Without one, point pip at a folder of wheels, setuptools among them:\n"
            "  PIP_NO_INDEX=1 PIP_FIND_LINKS=/path/to/wheels TORCH=default make learn"
        )
    if "No space left" in text:
        return f"{where}\n\nThe disk is full: the course's packages need about 3 GB."
    return f"{where}\n\nThe set-up stopped here; mend the cause and repeat the call."


def tail(text, lines=12):
    """The last lines of a text, indented."""
    return "\n".join("    " + line[:160] for line in text.strip().splitlines()[-lines:])


class step:
    """One line for one step: what, then how long it took, or that it failed."""

    def __init__(self, number, what):
        self.what = f"[{number}/4] {what}"

    def __enter__(self):
        self.began = time.time()
        print(f"{self.what} ... ", end="", flush=True)

    def __exit__(self, kind, *_):
        seconds = time.time() - self.began
        print(f"{seconds:.0f} s" if kind is None else "not done", flush=True)


def constraints():
    """The lines of constraints.txt that name a version."""
    lines = (ROOT / "constraints.txt").read_text(encoding="utf-8").splitlines()
    return [line.strip() for line in lines if "==" in line and not line.startswith("#")]


def interpreter(venv):
    """The path of the Python in an environment."""
    return venv / ("Scripts/python.exe" if os.name == "nt" else "bin/python")


def python_of(venv):
    """Major and minor version of an environment's Python, or None if it does not work."""
    code = "import sys; print('%d.%d' % sys.version_info[:2])"
    try:
        asked = quietly([str(interpreter(venv)), "-c", code])
    except OSError:
        return None
    return asked.stdout.strip() if asked.returncode == 0 else None


def quietly(command):
    """Run a command, keeping what it says (both streams, as text) for the caller."""
    return subprocess.run(
        command,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        errors="replace",
        env=clean_environment(),
    )


def this_python():
    """Major and minor version of the Python that runs this."""
    return f"{sys.version_info[0]}.{sys.version_info[1]}"


def chosen_python():
    """True if the caller chose the Python: an existing .venv of another version then gives way."""
    return bool(os.environ.get("PYTHON"))


def torch_choice():
    """The value of TORCH: "" or "default".

    Raises:
        Stop: another value.
    """
    choice = os.environ.get("TORCH", "")
    if choice not in ("", "default"):
        raise Stop(f"TORCH may be `default` or nothing; got {choice!r}.")
    return choice


def clean_environment():
    """The environment without what another active environment or a user's pip would bring in."""
    left_out = {"PYTHONHOME", "PYTHONPATH", "VIRTUAL_ENV", "__PYVENV_LAUNCHER__"}
    left_out |= {"PIP_TARGET", "PIP_PREFIX", "PIP_ROOT", "PIP_REQUIRE_VIRTUALENV"}
    environment = {k: v for k, v in os.environ.items() if k not in left_out}
    environment["PIP_USER"] = "0"
    return environment


def run(venv, arguments):
    """Run Python of ``.venv`` in the project's root; on POSIX it takes this process's place."""
    python = interpreter(venv)
    environment = clean_environment()
    environment["VIRTUAL_ENV"] = str(venv)
    environment["PATH"] = str(python.parent) + os.pathsep + environment.get("PATH", "")
    environment["PYTHONUTF8"] = "1"
    command = [str(python), *arguments]
    os.chdir(str(ROOT))
    sys.stdout.flush()
    if os.name != "nt":
        os.execve(command[0], command, environment)
    process = subprocess.Popen(command, env=environment)
    while True:
        try:
            return process.wait()
        except KeyboardInterrupt:
            continue  # the job has been told as well, and ends by itself


if __name__ == "__main__":
    try:
        sys.exit(main(sys.argv[1:]))
    except KeyboardInterrupt:
        sys.exit(130)
