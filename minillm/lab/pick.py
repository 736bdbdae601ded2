"""Plug the learner's own answers into later chapters.

``setup(mine=["1.2"])`` asks for it; ``pick(function)`` then gives the learner's version of that
function, and the library's everywhere else. No module is patched: a notebook passes on what it
picked, by name.

Chapter: 00
"""

from collections.abc import Callable, Iterable

from minillm.lab.answers import answer_file, grade_file
from minillm.lab.grade import find, graders, load_file, shortened, taking_new_names
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
        result = grade_file(task_id, path)
        if result.status != "done":
            why = f"your {task_id} is not solved yet" if result.loads else shortened(result.message)
            print(f"{grader.function}: the library's ({display_path(path)}: {why})")
            return function
        mine = getattr(load_file(path, f"my_ch{chapter.name}"), grader.function)
        print(f"{grader.function}: yours (task {task_id})")
        return taking_new_names(mine)
    return function
