"""Plug the learner's own answers into later chapters.

``setup(mine=["1.2"])`` asks for it; ``pick(function)`` then gives the learner's version of that
function, and the library's everywhere else. No module is patched: a notebook passes on what it
picked, by name.

Chapter: 00
"""

import inspect
from collections.abc import Callable, Iterable

from minillm.lab.grade import answer_file, find, grade, graders, load_file, taking_new_names
from minillm.lab.project import display_path

_mine: set[str] = set()


def use_mine(task_ids: Iterable[str]) -> None:
    """From here on, ``pick`` gives the learner's answers to these tasks.

    Raises:
        ValueError: a task is unknown, or the library has nothing that it could replace.
    """
    _mine.clear()
    for task_id in [task_ids] if isinstance(task_ids, str) else task_ids:
        _, grader = find(task_id)
        if grader.target is None:
            swappable = ", ".join(t for t, (_, g) in graders().items() if g.target)
            raise ValueError(
                f"task {task_id} replaces nothing in the library. Tasks that do: {swappable}."
            )
        _mine.add(task_id)


def pick(function: Callable) -> Callable:
    """The learner's version of a library function where it was asked for, else the function.

    Says in one line when it gives the learner's, or why it does not.

    Args:
        function: a function of the library.
    """
    name = f"{function.__module__}.{function.__qualname__}"
    for task_id in sorted(_mine):
        chapter, grader = find(task_id)
        if grader.target != name:
            continue
        path = answer_file(chapter)
        if not path.exists():
            print(f"{grader.function}: the library's (no {display_path(path)} yet)")
            return function
        try:
            mine = getattr(load_file(path, f"my_ch{chapter.name}"), grader.function)
            result = grade(task_id, mine, inspect.getsource(mine))
        except Exception as error:
            what = f"{type(error).__name__}: {error}"
            print(f"{grader.function}: the library's ({display_path(path)} gives {what})")
            return function
        if result.status != "done":
            print(f"{grader.function}: the library's (your {task_id} is not solved yet)")
            return function
        print(f"{grader.function}: yours (task {task_id})")
        return taking_new_names(mine)
    return function
