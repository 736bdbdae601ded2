"""Grade what a file of answers holds: one way for the notebook and for the terminal.

What runs is the text of the file alone, in a child process. So a verdict hangs on nothing else that
a notebook has defined, an answer can change nothing there, and whatever it does (print without end,
loop, swallow every exception, wait for input, crash Python) ends in time with a plain message.

Chapter: 00
"""

import ast
import builtins
import contextlib
import faulthandler
import inspect
import io
import json
import os
import signal
import subprocess
import sys
import tempfile
from collections.abc import Callable
from dataclasses import asdict, replace
from pathlib import Path

from minillm.lab.grade import Result, crash, find, grade, load_file
from minillm.lab.project import Chapter, display_path, my, root
from minillm.lab.text_file import decode
from minillm.lab.threads import threads

SECONDS = 20
START_SECONDS = 60  # for a child process to import what it needs; then it is ended from outside
ENDINGS = (".json", ".late", ".printed")  # the files beside the answers that a child leaves
NEVER_ENDS = "no answer after {} seconds: is there a loop that never ends?"
PRINTED_CHARACTERS = 10_000
PRINTS_TOO_MUCH = (
    f"your answer prints more than {PRINTED_CHARACTERS} characters; is a print inside a loop?"
)


def answer_file(chapter: Chapter) -> Path:
    """Where a learner's answers to a chapter are kept."""
    return my() / "exercises" / f"ch{chapter.name}.py"


def read_answers(path: Path) -> str:
    """The text of a learner's file.

    Raises:
        ValueError: it is not UTF-8, which some editors do not write by themselves.
    """
    return decode(path.read_bytes(), display_path(path))


def is_stub(text: str, function: str) -> bool:
    """True where a file of answers has that function, and it only raises NotImplementedError.

    Raises:
        SyntaxError: the text is no Python.

    Example:
        >>> is_stub('def f(x):\\n    "Doubles."\\n    raise NotImplementedError', "f")
        True
    """
    for node in reversed(ast.parse(text).body):
        if getattr(node, "name", None) == function and not isinstance(node, ast.ClassDef):
            body = node.body[1:] if ast.get_docstring(node) is not None else node.body
            return [ast.unparse(line) for line in body] == ["raise NotImplementedError"]
    return False


def grade_file(task_id: str, path: Path) -> Result:
    """Grade the answer in a file, as `grade_text` does; no file is "to do"."""
    find(task_id)
    if not path.exists():
        return Result("to do")
    try:
        text = read_answers(path)
    except (OSError, ValueError) as error:
        return Result("wrong", str(error), loads=False)
    return grade_text(task_id, text, display_path(path))


def grade_text(task_id: str, text: str, where: str) -> Result:
    """Grade the answer in the text of a file of answers: the one way, for notebook and terminal.

    What runs is this text alone, in a child process, so that an answer can neither use nor change
    what the caller holds. The child ends itself after `SECONDS`, whatever the answer catches, and
    what it prints is capped.

    Args:
        task_id: for instance "1.2".
        text: the whole file, in which the answer may call what stands beside it.
        where: the file's name, for messages.
    """
    chapter, grader = find(task_id)
    try:
        if is_stub(text, grader.function):
            return Result("to do")  # seen without a child process, which takes seconds
    except SyntaxError as error:
        message = f"Python cannot read {where}, line {error.lineno}: {error.msg}."
        return Result("wrong", message, loads=False)
    except ValueError as error:
        return Result("wrong", f"Python cannot read {where}: {error}.", loads=False)
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as folder:
        answers = Path(folder) / answer_file(chapter).name
        answers.write_text(text, encoding="utf-8")
        return _run_child(task_id, answers)


def _run_child(task_id: str, answers: Path) -> Result:
    command = [sys.executable, "-m", "minillm.lab.answers", task_id, str(answers), str(SECONDS)]
    child = subprocess.Popen(
        command,
        cwd=root(),
        env=os.environ | {"OMP_NUM_THREADS": str(threads())},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )
    try:
        status = child.wait(SECONDS + START_SECONDS)
    except subprocess.TimeoutExpired:
        status = None
    finally:
        _kill(child)
    report, late, printed = (answers.with_suffix(ending) for ending in ENDINGS)
    if status is None or (late.exists() and late.stat().st_size):
        result = Result("wrong", NEVER_ENDS.format(SECONDS))
    elif report.exists():
        result = Result(**json.loads(report.read_text(encoding="utf-8")))
    else:
        how = f"exit status {status}" if status >= 0 else signal.Signals(-status).name
        result = Result("wrong", f"Python stopped while it ran {find(task_id)[1].function}: {how}.")
    if printed.exists():
        result = replace(result, printed=printed.read_text(encoding="utf-8"))
    return result


def _kill(child: subprocess.Popen) -> None:
    """End a child that may have ended, and on POSIX all that it started."""
    if hasattr(os, "killpg"):
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(child.pid, signal.SIGKILL)
    child.kill()
    child.wait()


def grade_loaded(task_id: str, path: Path) -> Result:
    """Load a file of answers into a namespace of its own, and grade one of them."""
    _, grader = find(task_id)
    try:
        answer = getattr(load_file(path, "answers"), grader.function, None)
    except EOFError:
        return Result("wrong", "your file waits for input(); remove it.", loads=False)
    except Exception as error:
        message = f"your file cannot be imported: {crash(error, str(path))}"
        return Result("wrong", message, loads=False)
    if answer is None:
        message = f"your file defines no `{grader.function}`; what is its name?"
        return Result("wrong", message, loads=False)
    if not inspect.isroutine(inspect.unwrap(answer)):
        kind = type(answer).__name__
        return Result("wrong", f"`{grader.function}` is no function here but a {kind}.")
    try:
        source = inspect.getsource(answer)
    except (OSError, TypeError):
        source = None  # not written in Python, or not in this file
    return grade(task_id, answer, source)


class _Capped(io.TextIOBase):
    """What an answer prints, kept in a file at once; beyond the limit `full` is called."""

    def __init__(self, path: Path, full: Callable[[], None]) -> None:
        self.file = path.open("w", encoding="utf-8", errors="backslashreplace")
        self.room, self.full = PRINTED_CHARACTERS, full

    def write(self, text: str) -> int:
        self.file.write(text[: self.room])
        self.file.flush()
        self.room -= len(text)
        if self.room < 0:
            self.full()
        return len(text)


def _child(task_id: str, answers: Path, seconds: float) -> None:
    """What the child process does; it ends here, whatever threads the answer has left."""
    report, late, printed = (answers.with_suffix(ending) for ending in ENDINGS)

    def end(result: Result) -> None:
        faulthandler.cancel_dump_traceback_later()
        report.write_text(json.dumps(asdict(result)), encoding="utf-8")
        os._exit(0)  # neither an exception, which an answer may catch, nor a wait

    def no_input(prompt: str = "") -> str:
        raise EOFError

    def full() -> None:
        end(Result("wrong", PRINTS_TOO_MUCH))

    builtins.input = no_input
    find(task_id)  # imports what the grader needs, before the clock runs
    sys.stdout = sys.stderr = _Capped(printed, full)
    with late.open("w") as watched:
        # A thread in C: it ends the process also inside one long call, and on Windows.
        faulthandler.dump_traceback_later(seconds, exit=True, file=watched)
        try:
            end(grade_loaded(task_id, answers))
        except (SystemExit, KeyboardInterrupt):
            end(Result("wrong", "your answer ends Python itself; return a value instead."))


if __name__ == "__main__":
    _child(sys.argv[1], Path(sys.argv[2]), float(sys.argv[3]))
