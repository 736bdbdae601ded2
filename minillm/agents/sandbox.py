"""A sandbox (沙箱): Python code that a model wrote, run in a child process that can do little.

    run_python("print(347 * 582)")            201954
    run_python("open('/etc/passwd')")         PermissionError: [Errno 13] Permission denied
    run_python("while True: pass")            stopped: it reached the limit on seconds

A model that reads pages of others may write what a page says. So its code is taken to be hostile.
To look through Python code for what is forbidden has failed again and again: every object leads to
every other, as in `().__class__.__base__.__subclasses__()`. Here the code may call whatever Python
has. The operating system refuses; `minillm.agents.confine` shows how.

=================  ================================================  ===============================
the code may not   held by                                           what it sees
=================  ================================================  ===============================
run for ever       the parent, which kills it; a limit on processor  nothing: it is ended
use much memory    a limit on the address space                      MemoryError
print much         the parent, which reads the first bytes only      nothing: it is ended
fill the disk      a limit on a file; the parent, on the folder      OSError, or it is ended
read your files    Landlock: only Python's library and the folder    PermissionError
write elsewhere    Landlock: only the folder, which is then removed  PermissionError
use a network      seccomp: no socket of any kind                    PermissionError
start a program    seccomp: no other process, no thread, no signal   PermissionError
read your secrets  no variable that is yours is handed on            KeyError
=================  ================================================  ===============================

**What it does not protect against.** An error of the kernel, or of the processor (side channels).
The processor is busy for the seconds of a call, and so is the disk. The code can ask whether a file
with a known name exists, and how large it is; it can read the machine's name, its clock, its load,
the installed Python, and the variable `LD_LIBRARY_PATH`. Its answer may be wrong, or may mislead
whoever reads it: a person, or the model itself. Who runs code of strangers for strangers needs a
virtual machine of its own for each.

**Where.** Linux since 5.13 with Landlock turned on, x86-64 or 64-bit ARM. Elsewhere `run_python`
refuses, unless `unsafe=True` takes what protections there are; `protections` says which.

**What the code has.** Python's standard library and nothing that was installed; one thread, so no
asyncio; a folder without folders in it. Nothing is kept from one call to the next, neither a
variable nor a file.

Paper: the tool is that of Gao et al. 2022, "PAL: Program-aided Language Models", arXiv:2211.10435,
from memory. The escapes that the tests try are CVE-2025-5120 and CVE-2025-9959 of smolagents, as
its issue #2125 describes them, and that of its issue #2094.
Differs: only what is printed comes back; the value of the last line does not.

Chapter: 28
"""

import contextlib
import math
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import IO, final

from minillm.agents import confine

BETWEEN_LOOKS = 0.05  # seconds at most, after which the parent looks at output and folder again
KEPT_VARIABLES = ("LD_LIBRARY_PATH", "SYSTEMROOT")  # without which some Pythons do not start
#: Tries what must fail, and prints what did; `{}` is a file that exists.
PROBE = """
import socket, subprocess, sys
def refuses(name, action):
    try:
        action()
    except (OSError, MemoryError):
        print(name)
refuses("memory", lambda: bytearray(2**28))
refuses("files", lambda: open({!r}, "rb"))
refuses("network", socket.socket)
refuses("processes", lambda: subprocess.run([sys.executable, "-ISc", ""]))
"""


@final
@dataclass(frozen=True, kw_only=True)
class Limits:
    """How much a run may use.

    Args:
        seconds: on the clock, the start of Python included.
        memory_bytes: of the child's address space; Python itself takes some 30 MB.
        output_bytes: of what it prints, and as many of errors.
        folder_bytes: of the files it writes; one of less than 4,096 bytes counts as 4,096.

    Raises:
        ValueError: one of them is not above 0.
    """

    seconds: float = 5.0
    memory_bytes: int = 2**28
    output_bytes: int = 10_000
    folder_bytes: int = 2**23

    def __post_init__(self) -> None:
        if min(self.seconds, self.memory_bytes, self.output_bytes, self.folder_bytes) <= 0:
            raise ValueError(f"every limit must be above 0; got {self}")


@final
@dataclass(frozen=True, kw_only=True)
class Outcome:
    """What became of a run.

    Args:
        output: what the code printed, at most `output_bytes` of it.
        error: what went to the error stream, such as a traceback; as many bytes.
        status: 0 after a run without an error; -n after signal n.
        limit: the name of the limit for which the parent ended it; None if it ended by itself.
        seconds: how long it took.
    """

    output: str
    error: str
    status: int
    limit: str | None
    seconds: float

    @property
    def ok(self) -> bool:
        """Whether the code came to its end, without an error and within its limits."""
        return self.status == 0 and self.limit is None

    @property
    def text(self) -> str:
        """What a model is to read: the output, then in one line what went wrong.

        Example:
            >>> error = "Traceback …\\nZeroDivisionError: division by zero\\n"
            >>> Outcome(output="1\\n", error=error, status=1, limit=None, seconds=0.1).text
            '1\\nZeroDivisionError: division by zero'
        """
        lines = self.error.strip().splitlines()
        if self.limit is not None:
            remark = f"stopped: it reached the limit on {self.limit}"
        elif self.status < 0:
            remark = f"stopped: signal {-self.status}"
        else:
            remark = lines[-1] if lines and self.status else ""
        return "\n".join(filter(None, (self.output.rstrip("\n"), remark)))


def run_python(code: str, limits: Limits | None = None, *, unsafe: bool = False) -> Outcome:
    """Run Python code in a child process, and give what it printed.

    Args:
        code: any text; one that is not Python is an outcome with a SyntaxError.
        limits: None for the values of `Limits`.
        unsafe: run it also where the system holds only some of the protections.

    Raises:
        ValueError: the system lacks a protection, and `unsafe` is not set.

    Example:
        >>> run_python("print(347 * 582)", unsafe=True).output
        '201954\\n'
    """
    absent = [name for name, is_held in protections().items() if not is_held]
    if absent and not unsafe:
        raise ValueError(
            "code of a model runs only where the system confines it; this one has no protection "
            f"of: {', '.join(absent)}. That needs Linux 5.13 or later with Landlock. Where there "
            "is nothing to lose, such as in a virtual machine, unsafe=True runs it all the same"
        )
    return _run(code, Limits() if limits is None else limits, unsafe)


def protections() -> dict[str, bool]:
    """Which protections this system holds, tried out once in a child: memory, files and so on.

    The limits on time and on output are the parent's work, so every system has them.

    Example:
        >>> list(protections())
        ['memory', 'files', 'network', 'processes']
    """
    return dict(_protections())


@cache
def _protections() -> tuple[tuple[str, bool], ...]:
    with tempfile.TemporaryDirectory() as folder:
        secret = Path(folder) / "secret"
        secret.touch()
        limits = Limits(seconds=20, memory_bytes=2**27)
        refusals = _run(PROBE.format(str(secret)), limits, unsafe=True).output.split()
    return tuple((name, name in refusals) for name in ("memory", "files", "network", "processes"))


def diagnosis() -> tuple[str, str, str]:
    """A line of `minillm doctor`: its name, which protections there are, and a remark."""
    held = [name for name, is_held in protections().items() if is_held]
    is_whole = len(held) == len(protections())
    remark = "" if is_whole else "run_python refuses here, unless unsafe=True"
    return "sandbox", ", ".join(["time", *held]), remark


def _run(code: str, limits: Limits, unsafe: bool) -> Outcome:
    with (
        tempfile.TemporaryDirectory(
            prefix="minillm-sandbox-", ignore_cleanup_errors=True
        ) as folder,
        tempfile.TemporaryFile() as output,
        tempfile.TemporaryFile() as error,
    ):
        (Path(folder) / "code.py").write_bytes(code.encode("utf-8", "backslashreplace"))
        start = time.perf_counter()
        child = _start(folder, limits, unsafe, output, error)
        limit = None
        try:
            while limit is None and child.poll() is None:
                left = limits.seconds - (time.perf_counter() - start)
                with contextlib.suppress(subprocess.TimeoutExpired):
                    child.wait(max(0.0, min(BETWEEN_LOOKS, left)))
                limit = _limit_reached(limits, folder, (output, error)) or (
                    "seconds" if child.poll() is None and left <= 0 else None
                )
        finally:  # also when the user stops the parent
            _kill(child)
        return Outcome(
            output=_first(output, limits.output_bytes),
            error=_first(error, limits.output_bytes),
            status=child.returncode,
            limit=limit,
            seconds=time.perf_counter() - start,
        )


def _start(
    folder: str, limits: Limits, unsafe: bool, output: IO[bytes], error: IO[bytes]
) -> subprocess.Popen:
    """The child: a Python without site-packages and without variables of the user."""
    numbers = (math.ceil(limits.seconds) + 1, limits.memory_bytes, limits.folder_bytes)
    words = [*map(str, numbers), "unsafe" if unsafe else "safe"]
    return subprocess.Popen(
        [sys.executable, "-I", "-S", "-B", "-X", "utf8", confine.__file__, *words],
        cwd=folder,
        env={name: os.environ[name] for name in KEPT_VARIABLES if name in os.environ},
        stdin=subprocess.DEVNULL,
        stdout=output,
        stderr=error,
        start_new_session=True,
    )


def _limit_reached(limits: Limits, folder: str, streams: tuple[IO[bytes], ...]) -> str | None:
    if any(os.fstat(stream.fileno()).st_size > limits.output_bytes for stream in streams):
        return "output_bytes"
    return "folder_bytes" if sum(_sizes(folder)) > limits.folder_bytes else None


def _sizes(folder: str) -> Iterator[int]:
    """The bytes of each file; an empty one takes room on the disk too."""
    with os.scandir(folder) as entries:
        for entry in entries:
            with contextlib.suppress(FileNotFoundError):  # removed since it was listed
                yield max(4096, entry.stat(follow_symlinks=False).st_size)


def _first(stream: IO[bytes], n_bytes: int) -> str:
    """The beginning of a file; bytes that are no UTF-8 become a mark."""
    stream.seek(0)
    return stream.read(n_bytes).decode("utf-8", "replace")


def _kill(child: subprocess.Popen) -> None:
    """End a child that may have ended, and on POSIX the whole group that it leads."""
    if hasattr(os, "killpg"):
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(child.pid, signal.SIGKILL)
    child.kill()
    child.wait()
