"""Tasks in the notebook: answer in place, graded at once, kept in ``my/``.

::

    @task("1.2", minutes=8)
    def merge_pair(ids, pair, new_id):
        ...

prints ``1.2 ☐ to do`` for the untouched stub, a diagnosis for a wrong answer, and ``1.2 ✔``.
What the learner wrote is saved to ``my/exercises/``, where ``minillm check 1.2`` finds it.

Chapter: 00
"""

import ast
import inspect
import io
import re
import sys
import textwrap
from collections.abc import Callable
from dataclasses import replace
from datetime import datetime
from pathlib import Path
from types import ModuleType

from minillm.lab.answers import answer_file, grade_file, grade_text, read_answers
from minillm.lab.files import write_whole
from minillm.lab.grade import Result, find
from minillm.lab.project import (
    Chapter,
    building,
    display_path,
    in_notebook,
    my,
    read_progress,
    root,
    write_json,
)
from minillm.lab.show import print_source

MARKERS = re.compile(r"^ *# (BEGIN|END) SOLUTION\n", re.MULTILINE)

IMPORT = re.compile(r"^from minillm\.lab\.task import .*\btask\b", re.MULTILINE)


def task(task_id: str, *, minutes: int) -> Callable:
    """Mark a function as the answer to a task; in a notebook, grade and keep it at once.

    Args:
        task_id: chapter and number, for instance "1.2".
        minutes: what the author expects it to take; printed by ``minillm progress``.
    """

    def decorate(function: Callable) -> Callable:
        function.task_id, function.minutes = task_id, minutes
        if function.__module__ == "__main__" and in_notebook():
            print(_answer_in_notebook(task_id, function).text(task_id))
        return function

    return decorate


def hint(task_id: str, level: int | None = None) -> None:
    """Print the next hint of a task; there are three, each says more.

    Args:
        task_id: for instance "1.2".
        level: 1, 2 or 3 to see that one; by default the first that was not yet shown.

    Raises:
        ValueError: no such task, or no such level.
    """
    _, grader = find(task_id)
    if level not in (None, 1, 2, 3):
        raise ValueError(f"hints have the levels 1, 2 and 3; got {level!r}.")
    shown = record(task_id).get("hints", 0)
    level = level or min(3, shown + 1)
    call = f'{{}}("{task_id}")' if in_notebook() else f"minillm {{}} {task_id}"
    more = f"  ({'more' if level < 3 else 'the last; then'}: "
    more += call.format("hint" if level < 3 else "solution") + ")"
    print(f"Hint {level} of 3 for {task_id}: {grader.hints[level - 1]}{more}")
    remember(task_id, hints=max(level, shown))


def solution(task_id: str) -> None:
    """Print the worked answer, and remember that it was seen."""
    _, grader = find(task_id)
    print_source(solution_source(task_id))
    if grader.model_answer:
        print(f"\nIn words: {grader.model_answer}")
    remember(task_id, seen=True)


def check(task_id: str) -> Result:
    """Grade the answer that ``my/exercises/`` holds, in a process of its own, and print the line.

    Returns:
        The result; its status is "to do", "wrong" or "done".
    """
    chapter, _ = find(task_id)
    result = grade_file(task_id, answer_file(chapter))
    print(result.text(task_id))
    if result.status == "to do":
        path = answer_file(chapter)
        print(f"  write it in {display_path(path)}, or in the notebook's cell")
    _count(task_id, result)
    return result


def record(task_id: str) -> dict:
    """What is remembered of a task: status, tries, hints, seen, when."""
    return read_progress().get(task_id, {})


def remember(task_id: str, **facts: object) -> None:
    """Add to what is remembered of a task. Nothing is written while the course is built.

    Where the file cannot be read or written, one line says so, and the lesson goes on.
    """
    if building():
        return
    path = my() / "progress.json"
    try:
        progress = read_progress(path)
        entry = progress.setdefault(task_id, {})
        entry.update(facts, when=datetime.now().isoformat(timespec="seconds"))
        write_json(path, progress)
    except (OSError, ValueError) as error:
        print(f"  not remembered: {error}")


def solution_source(task_id: str) -> str:
    """The worked answer's source, without its markers.

    Raises:
        ValueError: the solutions' file lacks the function that the grader names.
    """
    chapter, grader = find(task_id)
    path = root() / "solutions" / f"ch{chapter.name}.py"
    source = function_source(path.read_text(encoding="utf-8"), grader.function)
    if source is None:
        raise ValueError(f"{display_path(path)} has no function {grader.function!r}.")
    return MARKERS.sub("", source)


def function_source(module_source: str, name: str) -> str | None:
    """The source of one top-level function or class of a module, decorators included."""
    span = _span(module_source, name)
    if span is None:
        return None
    return "".join(_lines(module_source)[slice(*span)])


def put_answer(chapter: Chapter, name: str, source: str) -> None:
    """Replace one function in ``my/exercises/``, leaving everything else there as it is."""
    write_whole(answer_file(chapter), with_answer(_answers(chapter), name, source))


def _answers(chapter: Chapter) -> str:
    """The learner's file of answers as it is, or as it begins."""
    path = answer_file(chapter)
    if path.exists():
        return read_answers(path)
    return (root() / "exercises" / f"ch{chapter.name}.py").read_text(encoding="utf-8")


def with_answer(text: str, name: str, source: str) -> str:
    """A file of answers in which one function is replaced, or added at the end.

    Raises:
        SyntaxError: the text is no Python.
    """
    span = _span(text, name)
    lines = _lines(text)
    source = source.rstrip("\n") + "\n"
    if "@task(" in source and not IMPORT.search(text):
        source = f"from minillm.lab.task import task\n\n\n{source}"
    if span is None:
        return text.rstrip("\n") + "\n\n\n" + source
    return "".join([*lines[: span[0]], source, *lines[span[1] :]])


def _with_imports(source: str, cells: dict[str, object], text: str) -> str:
    """An answer below the imports that it takes from the notebook's other cells.

    Args:
        source: of the answer.
        cells: the notebook's names.
        text: of the file of answers; what it imports already is left out.
    """
    known = {
        alias.asname or alias.name.partition(".")[0]
        for node in [*ast.parse(text).body, *ast.walk(ast.parse(source))]
        if isinstance(node, ast.Import | ast.ImportFrom)
        for alias in node.names
    }
    used = {node.id for node in ast.walk(ast.parse(source)) if isinstance(node, ast.Name)}
    imports = filter(None, (_import_of(cells.get(name), name) for name in sorted(used - known)))
    return "\n".join([*imports, source])


def _import_of(value: object, name: str) -> str | None:
    """The line that imports a value under a name; None where it was not imported."""
    if isinstance(value, ModuleType):
        own, line = value.__name__, f"import {value.__name__}"
    else:
        own, module = str(getattr(value, "__qualname__", "")), getattr(value, "__module__", None)
        if module in (None, "__main__") or getattr(sys.modules.get(module), own, None) is not value:
            return None
        line = f"from {module} import {own}"
    return line if own == name else f"{line} as {name}"


def _span(module_source: str, name: str) -> tuple[int, int] | None:
    """The lines of the definition that counts (the last), with the comments that end its body."""
    for node in reversed(ast.parse(module_source).body):
        if getattr(node, "name", None) == name:
            first = min([node.lineno, *(d.lineno for d in node.decorator_list)])
            lines, end = _lines(module_source), node.end_lineno
            for place in range(end, len(lines)):
                if lines[place].startswith((" ", "\t")) and lines[place].lstrip().startswith("#"):
                    end = place + 1
                elif lines[place].strip():
                    break
            return first - 1, end
    return None


def _lines(text: str) -> list[str]:
    """Lines as Python counts them; str.splitlines would also break at a form feed or U+2028."""
    return io.StringIO(text).readlines()


def _answer_in_notebook(task_id: str, function: Callable) -> Result:
    """Grade the file that would be saved, as `check` does, and save it."""
    chapter, grader = find(task_id)
    if function.__name__ != grader.function:
        return Result(
            "wrong", f"the answer must be called `{grader.function}`, not `{function.__name__}`."
        )
    try:
        source = textwrap.dedent(inspect.getsource(function))
        ast.parse(source)
    except (OSError, TypeError, SyntaxError):
        return Result("wrong", "its source cannot be read; write the function itself into a cell.")
    path, trouble = answer_file(chapter), ""
    try:
        text = _answers(chapter)
        ast.parse(text)
    except (SyntaxError, OSError, ValueError) as error:
        text, trouble = "", _why(error, path)
    source = _with_imports(source, vars(sys.modules["__main__"]), text)
    text = with_answer(text, grader.function, source)
    result = grade_text(task_id, text, display_path(path))
    if result.status == "to do" or building():
        return result
    if not result.loads and not trouble:
        trouble = f"({display_path(path)} stays as it was.)"
    if not trouble:
        try:
            write_whole(path, text)
        except OSError as error:
            trouble = _why(error, path)
    if trouble:
        return replace(
            result, status="wrong", message=f"{result.message or 'right, but'} {trouble}"
        )
    _count(task_id, result)
    return result


def _why(error: Exception, path: Path) -> str:
    """Why an answer was not saved."""
    where = display_path(path)
    if isinstance(error, SyntaxError):
        return f"not saved: {where}, line {error.lineno}, cannot be read; mend it."
    return f"not saved in {where}: {getattr(error, 'strerror', None) or error}."


def _count(task_id: str, result: Result) -> None:
    if result.status == "to do":
        return
    try:
        before = record(task_id)
    except (OSError, ValueError):
        before = {}  # and remember says why
    status = "done" if "done" in (result.status, before.get("status")) else "wrong"
    remember(task_id, status=status, tries=before.get("tries", 0) + 1)
