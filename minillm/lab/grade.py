"""Grade an answer: find its grader, run it, and turn what happens into a sentence.

Graders stand in ``exercises/graders/chNN_slug.py``, one dictionary ``GRADERS`` a chapter, keyed by
task id. A grader raises ``Diagnosis`` with a sentence that names the mistake; everything else that
an answer can do (raise, print without end, loop, ask for input) gets a plain message here.

Chapter: 00
"""

import ast
import builtins
import contextlib
import inspect
import io
import json
import os
import signal
import subprocess
import sys
import tempfile
import threading
import traceback
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cache, wraps
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING

from minillm.lab.project import Chapter, display_path, my, root, syllabus
from minillm.lab.text_file import decode
from minillm.lab.threads import threads

if TYPE_CHECKING:
    from torch import Tensor

SECONDS = 20
NEVER_ENDS = "no answer after {} seconds: is there a loop that never ends?"
PRINTED_CHARACTERS = 10_000
#: Arguments of tasks that were renamed; an answer from before keeps working.
RENAMED_ARGUMENTS = {"head_width": "d_head", "width": "d_model"}


class Diagnosis(Exception):
    """What is wrong with an answer, in one sentence that helps to mend it."""


@dataclass(frozen=True, kw_only=True)
class Grader:
    """How one task is graded.

    ``function`` is the name that the answer defines, ``target`` the dotted name of the library's
    own version (None where the library has none), ``level`` "everyone" or "stretch", ``grade`` a
    function of the answer that raises ``Diagnosis``, ``hints`` three sentences that help more and
    more, ``model_answer`` the explanation for a predict–measure–explain task.
    """

    function: str
    level: str
    grade: Callable[[Callable], None]
    hints: tuple[str, str, str]
    target: str | None = None
    model_answer: str = ""


@dataclass(frozen=True)
class Result:
    """``status`` is "to do", "wrong" or "done"; ``message`` is empty unless something is wrong."""

    status: str
    message: str = ""

    def line(self, task_id: str) -> str:
        """The line that a learner sees."""
        mark = {"to do": "☐ to do", "wrong": "✘ ", "done": "✔"}[self.status]
        return f"{task_id} {mark}{self.message}"


def load_file(path: Path, name: str) -> ModuleType:
    """Import one file by its path, anew each time.

    Python's own import keeps compiled files by the second: of two answers saved within one, it
    would give the older.
    """
    module = ModuleType(name)
    module.__file__ = str(path)
    exec(compile(path.read_bytes(), str(path), "exec"), module.__dict__)
    return module


def read_answers(path: Path) -> str:
    """The text of a learner's file.

    Raises:
        ValueError: it is not UTF-8, which some editors do not write by themselves.
    """
    return decode(path.read_bytes(), display_path(path))


def as_number(got: object) -> float:
    """What an answer returned, for a grader that needs one number.

    Raises:
        Diagnosis: it is nothing, or cannot be read as one number.

    Example:
        >>> as_number("0.5")
        0.5
    """
    if got is None:
        raise Diagnosis("your function returns nothing; is there a `return`?")
    try:
        return float(got)
    except (TypeError, ValueError):
        raise Diagnosis(f"return one number; yours is {type(got).__name__}.") from None


def as_tensor(got: object) -> "Tensor":
    """What an answer returned, for a grader that needs a tensor, of whatever shape.

    Raises:
        Diagnosis: it is nothing, or of another type.

    Example:
        >>> as_tensor([1.0, 2.0])
        Traceback (most recent call last):
        minillm.lab.grade.Diagnosis: return a tensor; yours is list.
    """
    from torch import Tensor

    if got is None:
        raise Diagnosis("your function returns nothing; is there a `return`?")
    if not isinstance(got, Tensor):
        raise Diagnosis(f"return a tensor; yours is {type(got).__name__}.")
    return got


@cache
def graders() -> dict[str, tuple[Chapter, Grader]]:
    """Every task of every chapter that has a grader, by task id."""
    grader_of = {}
    for chapter in syllabus():
        path = root() / "exercises" / "graders" / f"ch{chapter.name}.py"
        if path.exists():
            module = load_file(path, f"graders_ch{chapter.name}")
            grader_of.update({task: (chapter, grader) for task, grader in module.GRADERS.items()})
    return grader_of


def find(task_id: str) -> tuple[Chapter, Grader]:
    """The chapter and the grader of a task.

    Raises:
        ValueError: there is no such task; the message lists those that exist.
    """
    if task_id not in graders():
        known = ", ".join(graders()) or "none yet"
        raise ValueError(f"there is no task {task_id!r}. Tasks: {known}.")
    return graders()[task_id]


def answer_file(chapter: Chapter) -> Path:
    """Where a learner's answers to a chapter are kept."""
    return my() / "exercises" / f"ch{chapter.name}.py"


def taking_new_names(answer: Callable) -> Callable:
    """The same function, which also takes its former arguments by the names that they have now.

    Example:
        >>> taking_new_names(lambda *, width: 2 * width)(d_model=4)
        8
    """
    try:
        arguments = inspect.signature(answer).parameters
    except (TypeError, ValueError):  # no function at all, or one that does not say
        return answer
    former = {new: old for old, new in RENAMED_ARGUMENTS.items() if old in arguments}
    if not former:
        return answer

    @wraps(answer)
    def answer_of_before(*positional: object, **named: object) -> object:
        return answer(*positional, **{former.get(name, name): x for name, x in named.items()})

    return answer_of_before


def grade(task_id: str, answer: Callable, source: str | None = None) -> Result:
    """Grade a function that is already in memory.

    Args:
        task_id: for instance "1.2".
        answer: the learner's function.
        source: its source text, if it is known; it is searched for the library's own version.
    """
    _, grader = find(task_id)
    try:
        refuse_borrowed(grader, answer, source)
        with time_limit(SECONDS):
            grader.grade(taking_new_names(answer))
    except NotImplementedError:
        return Result("to do")
    except Diagnosis as diagnosis:
        return Result("wrong", str(diagnosis))
    except EOFError:
        return Result("wrong", "your answer waits for input(); take the arguments instead.")
    except RecursionError:
        return Result("wrong", "your function calls itself without end; which case stops it?")
    except Exception as error:
        return Result("wrong", _crash(error, _file_of(answer), grader.function))
    return Result("done")


@contextlib.contextmanager
def time_limit(seconds: float) -> Iterator[None]:
    """Stop an answer that never ends, also in a notebook.

    It rings an alarm, which Windows and threads do not have; there only a person, or the parent
    process of ``grade_file``, can stop it.

    Raises:
        Diagnosis: the time is over.
    """
    alone = threading.current_thread() is threading.main_thread()
    if not (hasattr(signal, "SIGALRM") and alone):
        yield
        return

    def ring(*_: object) -> None:
        raise Diagnosis(NEVER_ENDS.format(seconds))

    before = signal.signal(signal.SIGALRM, ring)
    signal.setitimer(signal.ITIMER_REAL, seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


def refuse_borrowed(grader: Grader, answer: Callable, source: str | None) -> None:
    """An answer that calls the library's version, or the solution, has not answered.

    Raises:
        Diagnosis: the answer imports its target, or reaches it through a global name.
    """
    if grader.target is None:
        return
    module, _, name = grader.target.rpartition(".")
    refusal = f"this answer uses {grader.target} itself; write what it does."
    names_used = set()
    for node in ast.walk(ast.parse(source or "")):
        imported = []
        if isinstance(node, ast.Import):
            imported = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            package = node.module or ""
            imported = [package, *(f"{package}.{alias.name}" for alias in node.names)]
        elif isinstance(node, ast.Name):
            names_used.add(node.id)
        if any(
            i in (module, "solutions", "importlib") or i.startswith("solutions.") for i in imported
        ):
            raise Diagnosis(refusal)
    target_module = sys.modules.get(module)
    target = getattr(target_module, name, None) if target_module else None
    code = inspect.unwrap(answer).__globals__ if inspect.isfunction(answer) else {}
    for used in names_used - {grader.function}:
        value = code.get(used)
        if value is not None and (value is target or value is target_module):
            raise Diagnosis(refusal)


def grade_file(task_id: str, path: Path) -> Result:
    """Grade the answer in a file, in a child process with a time limit and capped output."""
    _, grader = find(task_id)
    if not path.exists():
        return Result("to do")
    try:
        ast.parse(read_answers(path))
    except SyntaxError as error:
        where = f"{display_path(path)}, line {error.lineno}"
        return Result("wrong", f"Python cannot read {where}: {error.msg}.")
    except ValueError as error:
        return Result("wrong", str(error))
    with tempfile.TemporaryDirectory() as folder:
        report = Path(folder) / "result.json"
        command = [sys.executable, "-m", "minillm.lab.grade", task_id, str(path), str(report)]
        try:
            child = subprocess.run(
                command,
                env=os.environ | {"OMP_NUM_THREADS": str(threads())},
                stdin=subprocess.DEVNULL,
                capture_output=True,
                text=True,
                errors="replace",
                timeout=SECONDS,
            )
        except subprocess.TimeoutExpired:
            return Result("wrong", NEVER_ENDS.format(SECONDS))
        if not report.exists():
            last = (child.stderr.strip().splitlines() or ["no message"])[-1]
            return Result("wrong", f"Python stopped while it ran {grader.function}: {last}")
        return Result(**json.loads(report.read_text(encoding="utf-8")))


class _Capped(io.StringIO):
    """Standard output for an answer: a learner's prints, up to a limit."""

    def write(self, text: str) -> int:
        if self.tell() + len(text) > PRINTED_CHARACTERS:
            raise Diagnosis(
                f"your answer prints more than {PRINTED_CHARACTERS} characters; "
                "is a print inside a loop?"
            )
        return super().write(text)


def _grade_in_child(task_id: str, path: Path) -> Result:
    _, grader = find(task_id)

    def no_input(prompt: str = "") -> str:
        raise EOFError

    builtins.input = no_input
    with contextlib.redirect_stdout(_Capped()):
        try:
            module = load_file(path, "answers")
            answer = getattr(module, grader.function, None)
        except Diagnosis as diagnosis:
            return Result("wrong", str(diagnosis))
        except EOFError:
            return Result("wrong", "your file waits for input(); remove it.")
        except Exception as error:
            return Result("wrong", f"your file cannot be imported: {_crash(error, str(path))}")
        if answer is None:
            return Result(
                "wrong", f"{display_path(path)} defines no `{grader.function}`; what is its name?"
            )
        if not inspect.isroutine(inspect.unwrap(answer)):
            kind = type(answer).__name__
            return Result("wrong", f"`{grader.function}` is no function here but a {kind}.")
        return grade(task_id, answer, inspect.getsource(answer))


def _file_of(answer: Callable) -> str:
    code = getattr(inspect.unwrap(answer), "__code__", None)
    return code.co_filename if code else ""


def _crash(error: Exception, filename: str, called: str = "") -> str:
    """An exception in one line: where an answer raised it, or that its result broke the grader."""
    frames = traceback.extract_tb(error.__traceback__)
    own = [f for f in frames if f.filename == filename or "ipykernel" in f.filename]
    what = f"{type(error).__name__}: {error}"
    if isinstance(error, ModuleNotFoundError) and str(error.name).startswith("minillm."):
        what += "; if it stood there before, `minillm map` says where it stands now"
    if called and not own and f"{called}()" not in str(error):
        return f"what it returns is not of the kind that the task asks for ({what})."
    where = f" (line `{own[-1].line}`)" if own and own[-1].line else ""
    return f"it raised {what}{where}"


if __name__ == "__main__":
    # Under -m this file is imported twice; graders raise the Diagnosis of the imported one.
    from minillm.lab import grade as imported

    outcome = imported._grade_in_child(sys.argv[1], Path(sys.argv[2]))
    Path(sys.argv[3]).write_text(
        json.dumps({"status": outcome.status, "message": outcome.message}), encoding="utf-8"
    )
