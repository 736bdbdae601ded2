"""Fill ``my/`` with the course, outputs cleared, and never touch what the learner has changed.

What was delivered is remembered by its hash in ``my/.delivered.json``. A copy that still equals
what was delivered is brought up to date; a copy that the learner changed stays, and a newer
version of the chapter is laid beside it.

Chapter: 00
"""

import hashlib
import json
from pathlib import Path

from minillm.lab.grade import answer_file, find, grade_file, graders
from minillm.lab.project import (
    building,
    display_path,
    my,
    read_json,
    root,
    syllabus,
    write_json,
    write_text,
)
from minillm.lab.task import function_source, put_answer, remember, solution_source


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
    name, hashed = path.relative_to(my()).as_posix(), _hash(text)
    if path.exists():
        if delivered.get(name) == hashed or _hash(path.read_text(encoding="utf-8")) == hashed:
            return []
        untouched = _hash(path.read_text(encoding="utf-8")) == delivered.get(name)
        if not untouched:
            beside = path.with_name(f"{path.stem}.new{path.suffix}")
            write_text(beside, text)
            write_json(ledger, {**delivered, name: hashed})
            return [f"{display_path(path)} is yours and stays; the new version is {beside.name}"]
    message = f"{display_path(path)} {'brought up to date' if path.exists() else 'is new'}"
    write_text(path, text)
    write_json(ledger, {**delivered, name: hashed})
    return [message]


def _solve_before(at: str) -> list[str]:
    order = [task for chapter in syllabus() for task in chapter.tasks if task in graders()]
    messages = []
    for task_id in order[: order.index(at)]:
        chapter, grader = find(task_id)
        path = answer_file(chapter)
        if grade_file(task_id, path).status != "to do":
            messages.append(f"{task_id}: your own answer is kept")
            continue
        source = solution_source(task_id)
        put_answer(chapter, grader.function, source)
        remember(task_id, status="given")
        _answer_cell(my() / "course" / f"{chapter.name}.ipynb", grader.function, source)
        messages.append(f"{task_id}: answered with the worked solution")
    return messages


def _answer_cell(path: Path, function: str, source: str) -> None:
    """Write an answer into the notebook's cell that asks for it, if that is still the stub."""
    content = json.loads(path.read_text(encoding="utf-8"))
    for cell in content["cells"]:
        text = "".join(cell["source"])
        is_task = "task" in cell["metadata"].get("tags", [])
        if is_task and "NotImplementedError" in text and function_source(text, function):
            cell["source"] = source.rstrip().splitlines(keepends=True)
    write_text(path, json.dumps(content, indent=1, ensure_ascii=False, sort_keys=True) + "\n")


def _hash(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def first_notebook() -> Path:
    """What ``make learn`` opens: the first chapter that has an unsolved task, in ``my/course``."""
    progress = {} if building() else read_json(my() / "progress.json")
    ready = [chapter for chapter in syllabus() if chapter.finished]
    for chapter in ready:
        if any(
            progress.get(task, {}).get("status") not in ("done", "given") for task in chapter.tasks
        ):
            return my() / "course" / f"{chapter.name}.ipynb"
    return my() / "course" / f"{ready[-1].name}.ipynb"
