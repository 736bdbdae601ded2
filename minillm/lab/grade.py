"""Grade an answer: find its grader, run it, and turn what happens into a sentence.

Graders stand in ``exercises/graders/chNN_slug.py``, one dictionary ``GRADERS`` a chapter, keyed by
task id. A grader raises ``Diagnosis`` with a sentence that names the mistake; everything else that
an answer can raise gets a plain message here.

Chapter: 00
"""

import ast
import inspect
import sys
import traceback
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache, wraps
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING

from minillm.lab.project import Chapter, root, syllabus

if TYPE_CHECKING:
    from torch import Tensor

SHOWN_CHARACTERS = 1_000
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
    more, ``model_answer`` the explanation for a predict–measure–explain task, ``wrong`` three to
    six typical mistakes, each a function and (the beginning of) the diagnosis that it must get.
    """

    function: str
    level: str
    grade: Callable[[Callable], None]
    hints: tuple[str, str, str]
    target: str | None = None
    model_answer: str = ""
    wrong: Sequence[tuple[Callable, str]] = ()


@dataclass(frozen=True)
class Result:
    """``status`` is "to do", "wrong" or "done"; ``message`` is empty unless something is wrong.

    ``printed`` is what the answer printed; ``loads`` is False where its file cannot even be loaded.
    """

    status: str
    message: str = ""
    printed: str = ""
    loads: bool = True

    def line(self, task_id: str) -> str:
        """The line that a learner sees."""
        mark = {"to do": "☐ to do", "wrong": "✘ ", "done": "✔"}[self.status]
        return f"{task_id} {mark}{shortened(self.message)}"

    def text(self, task_id: str) -> str:
        """That line, below the first part of what the answer printed."""
        printed = shortened(self.printed.rstrip("\n"))
        return f"{printed}\n{self.line(task_id)}" if printed else self.line(task_id)


def shortened(text: str) -> str:
    """A text of any length as a learner sees it: whole, or its beginning and how much follows.

    Example:
        >>> shortened("plum " * 1_000)[-30:]
        'lum  … (4,000 more characters)'
    """
    more = len(text) - SHOWN_CHARACTERS
    return text if more <= 0 else f"{text[:SHOWN_CHARACTERS]} … ({more:,} more characters)"


def load_file(path: Path, name: str) -> ModuleType:
    """Import one file by its path, anew each time.

    Python's own import keeps compiled files by the second: of two answers saved within one, it
    would give the older.
    """
    module = ModuleType(name)
    module.__file__ = str(path)
    exec(compile(path.read_bytes(), str(path), "exec"), module.__dict__)
    return module


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
def _graders_of(chapter: Chapter) -> dict[str, Grader]:
    """The graders of one chapter; to load those of all would import everything that they use."""
    path = root() / "exercises" / "graders" / f"ch{chapter.name}.py"
    return load_file(path, f"graders_ch{chapter.name}").GRADERS if path.exists() else {}


def graders() -> dict[str, tuple[Chapter, Grader]]:
    """Every task of every chapter that has a grader, by task id."""
    return {
        task: (chapter, grader)
        for chapter in syllabus()
        for task, grader in _graders_of(chapter).items()
    }


def find(task_id: str) -> tuple[Chapter, Grader]:
    """The chapter and the grader of a task.

    Raises:
        ValueError: there is no such task; the message lists those that exist.
    """
    number = task_id.partition(".")[0].zfill(2)
    for chapter in syllabus():
        if chapter.number == number and task_id in _graders_of(chapter):
            return chapter, _graders_of(chapter)[task_id]
    known = ", ".join(graders()) or "none yet"
    raise ValueError(f"there is no task {task_id!r}. Tasks: {known}.")


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
    """Grade a function that is already in memory, without a limit of time.

    Args:
        task_id: for instance "1.2".
        answer: the learner's function.
        source: its source text, if it is known; it is searched for the library's own version.
    """
    _, grader = find(task_id)
    try:
        refuse_borrowed(grader, answer, source)
        grader.grade(taking_new_names(answer))
    except NotImplementedError as error:
        return _to_do(error, answer, grader.function)
    except Diagnosis as diagnosis:
        return Result("wrong", str(diagnosis))
    except EOFError:
        return Result("wrong", "your answer waits for input(); take the arguments instead.")
    except RecursionError:
        return Result("wrong", "your function calls itself without end; which case stops it?")
    except Exception as error:
        return Result("wrong", crash(error, _file_of(answer), grader.function))
    return Result("done")


def _to_do(error: NotImplementedError, answer: Callable, function: str) -> Result:
    """Only the stub's own exception, which says nothing, means "to do"."""
    raised_in = traceback.extract_tb(error.__traceback__)[-1]
    if str(error) or raised_in.filename != _file_of(answer):
        return Result("wrong", crash(error, _file_of(answer)))
    if raised_in.name != function:
        return Result("wrong", f"your answer calls `{raised_in.name}`, which is still to do.")
    return Result("to do")


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
    if answer is target:
        raise Diagnosis(refusal)
    code = inspect.unwrap(answer).__globals__ if inspect.isfunction(answer) else {}
    for used in names_used - {grader.function}:
        value = code.get(used)
        if value is not None and (value is target or value is target_module):
            raise Diagnosis(refusal)


def _file_of(answer: Callable) -> str:
    code = getattr(inspect.unwrap(answer), "__code__", None)
    return code.co_filename if code else ""


def crash(error: Exception, filename: str, called: str = "") -> str:
    """An exception in one line: where an answer raised it, or that its result broke the grader."""
    frames = traceback.extract_tb(error.__traceback__)
    own = [f for f in frames if f.filename == filename or "ipykernel" in f.filename]
    what = f"{type(error).__name__}: {error}"
    if isinstance(error, ModuleNotFoundError) and str(error.name).startswith("minillm."):
        what += "; if it stood there before, `minillm map` says where it stands now"
    if called and not own and f"{called}()" not in str(error):
        return f"what it returns is not of the kind that the task asks for ({what})."
    where = f" (line `{own[-1].line}`)" if own and own[-1].line else ""
    advice = ""
    if isinstance(error, NameError) and not isinstance(error, UnboundLocalError):
        advice = "; define or import it in the function: a notebook's other cells do not count"
    return f"it raised {what}{where}{advice}"
