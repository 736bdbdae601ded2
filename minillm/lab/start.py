"""Fill ``my/`` with the course, outputs cleared, and never touch what the learner has changed.

What was delivered is remembered by its hash in ``my/.delivered.json``. A copy that still equals
what was delivered is brought up to date; a copy that the learner changed stays, and a newer
version of the chapter is laid beside it.

Chapter: 00
"""

import hashlib
import json
from itertools import count
from pathlib import Path

from minillm.lab.answers import answer_file, is_stub, read_answers
from minillm.lab.files import write_whole
from minillm.lab.grade import find, graders
from minillm.lab.project import (
    building,
    display_path,
    my,
    read_json,
    read_progress,
    root,
    syllabus,
    write_json,
)
from minillm.lab.task import function_source, put_answer, remember, solution_source
from minillm.lab.text_file import parse_json, read_text


def fill(at: str | None = None) -> list[str]:
    """Bring ``my/`` up to date.

    Args:
        at: a task id such as "1.3": every earlier task is answered with its worked solution,
            which is where a workshop may begin. Answers of the learner's own are kept.

    Returns:
        What was done, a line each; empty if there was nothing to do.

    Raises:
        ValueError: ``at`` is no task.
    """
    if at is not None:
        find(at)
    messages = []
    for path in _chapters():
        name = path.relative_to(root() / "course").as_posix()
        messages += _deliver(my() / "course" / name, cleared(path.read_text(encoding="utf-8")))
    for path in sorted((root() / "exercises").glob("ch*.py")):
        messages += _deliver(my() / "exercises" / path.name, path.read_text(encoding="utf-8"))
    return messages + (_solve_before(at) if at else [])


def cleared(notebook: str) -> str:
    """A notebook's text without outputs and execution counts.

    Example:
        >>> text = '{"cells": [{"cell_type": "code", "outputs": [1], "execution_count": 4}]}'
        >>> json.loads(cleared(text))["cells"][0]
        {'cell_type': 'code', 'execution_count': None, 'outputs': []}
    """
    content = json.loads(notebook)
    for cell in content["cells"]:
        if cell["cell_type"] == "code":
            cell["outputs"], cell["execution_count"] = [], None
    return json.dumps(content, indent=1, ensure_ascii=False, sort_keys=True) + "\n"


def _chapters() -> list[Path]:
    course = root() / "course"
    return [*sorted(course.glob("*.ipynb")), *sorted((course / "labs").glob("*.ipynb"))]


def _deliver(path: Path, text: str) -> list[str]:
    """Lay a file down, or beside the learner's version of it."""
    ledger = my() / ".delivered.json"
    delivered = read_json(ledger)
    name, hashed = _name(path), _hash(text)
    if path.exists():
        if hashed in (delivered.get(name), _hash_of(path)):
            return []
        if _hash_of(path) != delivered.get(name):
            beside = _free_place_beside(path, delivered)
            write_whole(beside, text)
            write_json(ledger, {**delivered, name: hashed, _name(beside): hashed})
            return [f"{display_path(path)} is yours and stays; the new version is {beside.name}"]
    message = f"{display_path(path)} {'brought up to date' if path.exists() else 'is new'}"
    write_whole(path, text)
    write_json(ledger, {**delivered, name: hashed})
    return [message]


def _free_place_beside(path: Path, delivered: dict) -> Path:
    """``name.new.py``, or ``name.new2.py`` where the learner has gone on in the former."""
    for number in count(1):
        beside = path.with_name(f"{path.stem}.new{number if number > 1 else ''}{path.suffix}")
        if not beside.exists() or _hash_of(beside) == delivered.get(_name(beside)):
            return beside


def _solve_before(at: str) -> list[str]:
    order = [task for chapter in syllabus() for task in chapter.tasks if task in graders()]
    messages = []
    for task_id in order[: order.index(at)]:
        chapter, grader = find(task_id)
        path = answer_file(chapter)
        if _answered(path, grader.function):
            messages.append(f"{task_id}: your own answer is kept")
            continue
        source = solution_source(task_id)
        put_answer(chapter, grader.function, source)
        remember(task_id, status="given")
        notebook = my() / "course" / f"{chapter.name}.ipynb"
        trouble = _answer_cell(notebook, grader.function, source)
        if trouble:
            trouble = (
                f" in {display_path(path)}; {display_path(notebook)} stays as it is: {trouble}"
            )
        messages.append(f"{task_id}: answered with the worked solution{trouble}")
    return messages


def _answered(path: Path, function: str) -> bool:
    """False for the stub, and where the file lacks the function: it came with a later version."""
    if not path.exists():
        return False
    try:
        text = read_answers(path)
        return function_source(text, function) is not None and not is_stub(text, function)
    except (SyntaxError, ValueError):
        return True


def _answer_cell(path: Path, function: str, source: str) -> str:
    """Write an answer into the notebook's cell that asks for it, if that is still the stub.

    Returns:
        Why nothing was written, where the learner's file is no notebook; "" otherwise.
    """
    try:
        content = parse_json(read_text(path))
        cells = content.get("cells") if isinstance(content, dict) else None
        if not isinstance(cells, list):
            return "it is no notebook, since it has no list of cells"
        for cell in cells:
            text = "".join(cell["source"])
            is_task = "task" in cell["metadata"].get("tags", [])
            if is_task and "NotImplementedError" in text and _defines(text, function):
                cell["source"] = source.rstrip().splitlines(keepends=True)
    except (ValueError, TypeError, KeyError, AttributeError) as error:
        return f"it is no notebook ({error!r})"
    write_whole(path, json.dumps(content, indent=1, ensure_ascii=False, sort_keys=True) + "\n")
    return ""


def _defines(text: str, function: str) -> bool:
    try:
        return function_source(text, function) is not None
    except SyntaxError:  # half an answer, or a magic of IPython
        return False


def _name(path: Path) -> str:
    return path.relative_to(my()).as_posix()


def _hash(text: str | bytes) -> str:
    content = text.encode() if isinstance(text, str) else text
    return hashlib.sha256(content.replace(b"\r\n", b"\n")).hexdigest()[:16]


def _hash_of(path: Path) -> str:
    """Of whatever bytes the learner's file holds; some editors write other line ends."""
    return _hash(path.read_bytes())


def first_notebook() -> Path:
    """What ``make learn`` opens: the first chapter that has an unsolved task, in ``my/course``."""
    progress = {} if building() else read_progress()
    ready = [chapter for chapter in syllabus() if chapter.finished]
    for chapter in ready:
        if any(
            progress.get(task, {}).get("status") not in ("done", "given") for task in chapter.tasks
        ):
            return my() / "course" / f"{chapter.name}.ipynb"
    return my() / "course" / f"{ready[-1].name}.ipynb"
