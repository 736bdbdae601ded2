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
from collections.abc import Callable
from datetime import datetime

from minillm.lab.files import write_whole
from minillm.lab.grade import (
    Result,
    answer_file,
    find,
    grade,
    grade_file,
    load_file,
    read_answers,
)
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
            print(_answer_in_notebook(task_id, function).line(task_id))
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
    print(result.line(task_id))
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
    path = answer_file(chapter)
    if path.exists():
        text = read_answers(path)
    else:
        text = (root() / "exercises" / f"ch{chapter.name}.py").read_text(encoding="utf-8")
    span = _span(text, name)
    lines = _lines(text)
    source = source.rstrip("\n") + "\n"
    if span is None:
        needs_import = source.startswith("@task") and not IMPORT.search(text)
        source = "from minillm.lab.task import task\n\n\n" * needs_import + source
        text = text.rstrip("\n") + "\n\n\n" + source
    else:
        text = "".join([*lines[: span[0]], source, *lines[span[1] :]])
    write_whole(path, text)


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
    chapter, grader = find(task_id)
    if function.__name__ != grader.function:
        return Result(
            "wrong", f"the answer must be called `{grader.function}`, not `{function.__name__}`."
        )
    source = inspect.getsource(function)
    result = grade(task_id, function, source)
    if result.status == "to do" or building():
        return result
    try:
        put_answer(chapter, grader.function, source)
    except (SyntaxError, OSError, ValueError) as error:
        trouble = _not_saved(error, display_path(answer_file(chapter)))
        return Result("wrong", f"{result.message or 'right, but'} {trouble}")
    if result.status == "done" and grader.target:
        result = _grade_alone(task_id, chapter, grader.function)
    _count(task_id, result)
    return result


def _not_saved(error: Exception, path: str) -> str:
    if isinstance(error, SyntaxError):
        return f"not saved: {path}, line {error.lineno}, cannot be read; mend it."
    return f"not saved in {path}: {getattr(error, 'strerror', None) or error}."


def _grade_alone(task_id: str, chapter: Chapter, name: str) -> Result:
    """Does a right answer also work without the notebook's other cells, as later chapters need?"""
    path = answer_file(chapter)
    try:
        result = grade(task_id, getattr(load_file(path, "answers"), name))
    except Exception as error:
        return Result("wrong", f"right here, but {display_path(path)} cannot be imported: {error}")
    if "NameError" in result.message:
        missing = result.message.split("'")[1]
        return Result(
            "done",
            f" here; but `{missing}` comes from another cell: import or define it inside the "
            "function, or later chapters cannot use your answer.",
        )
    return result


def _count(task_id: str, result: Result) -> None:
    if result.status == "to do":
        return
    try:
        before = record(task_id)
    except ValueError:
        before = {}  # and remember says why
    status = "done" if "done" in (result.status, before.get("status")) else "wrong"
    remember(task_id, status=status, tries=before.get("tries", 0) + 1)
