"""Where things are: the checkout, the learner's own folder ``my/``, and the syllabus.

Chapter: 00
"""

import json
import os
import sys
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from minillm.lab.files import write_whole
from minillm.lab.text_file import decode, parse_json, read_tables

#: The facts of a task: their types, or their values.
PROGRESS = {
    "status": ("done", "wrong", "given"),
    "tries": (int,),
    "hints": (int,),
    "seen": (bool,),
    "when": (str,),
}


@dataclass(frozen=True, kw_only=True)
class Chapter:
    """One chapter's facts, as ``course/syllabus.toml`` states them (they stand nowhere else)."""

    number: str
    slug: str
    title: str
    headline: str
    promise: str = ""
    minutes: int = 60
    needs: tuple[str, ...] = ()
    builds: tuple[str, ...] = ()
    tasks: tuple[str, ...] = ()  # those of the lab with them
    lab_tasks: tuple[str, ...] = ()

    @property
    def name(self) -> str:
        """The file name that the chapter's files share, without its ending: ``01_tokenizer``."""
        return f"{self.number}_{self.slug}"

    @property
    def notebook(self) -> Path:
        """The chapter's notebook, whether or not it has been written yet."""
        return root() / "course" / f"{self.name}.ipynb"

    @property
    def lab(self) -> Path | None:
        """The chapter's optional lab notebook, or None."""
        path = root() / "course" / "labs" / f"{self.name}.ipynb"
        return path if path.exists() else None

    @property
    def finished(self) -> bool:
        """True once the chapter can be opened."""
        return self.notebook.exists()


def root() -> Path:
    """The checkout of the course.

    Returns:
        The folder that holds ``course/`` and ``minillm/``.

    Raises:
        ValueError: minillm was installed without the course around it.
    """
    here = Path(__file__).resolve().parents[2]
    if not (here / "course" / "syllabus.toml").exists():
        raise ValueError(
            f"minillm needs the course around it, and {here} has no course/syllabus.toml. "
            "Clone the repository and type `make learn` in it (or `pip install -e .`)."
        )
    return here


def my() -> Path:
    """The learner's own folder, git-ignored; ``MINILLM_MY`` moves it.

    A relative path is meant from the checkout: a notebook runs in another folder than a terminal.
    """
    return root() / Path(os.environ.get("MINILLM_MY") or "my").expanduser()


def building() -> bool:
    """True while notebooks are executed by the build or by CI: no bars, nothing saved."""
    return os.environ.get("MINILLM_BUILD") == "1"


def in_notebook() -> bool:
    """True inside a Jupyter kernel."""
    ipython = sys.modules.get("IPython")
    shell = ipython.get_ipython() if ipython else None
    return shell is not None and hasattr(shell, "kernel")


def display_path(path: Path) -> str:
    """A path as a person would write it: relative to the checkout where that is possible."""
    try:
        return path.resolve().relative_to(root()).as_posix()
    except ValueError:
        return str(path)


@cache
def syllabus() -> tuple[Chapter, ...]:
    """All chapters in reading order, also those that are still to be written."""
    return read_syllabus(root() / "course" / "syllabus.toml")


def read_syllabus(path: Path) -> tuple[Chapter, ...]:
    """The chapters that a syllabus names.

    Raises:
        ValueError: the file is damaged; an entry lacks a fact, or has an unknown one.
    """
    kinds = dict.fromkeys(("number", "slug", "title", "headline", "promise"), str)
    kinds |= {"minutes": int} | dict.fromkeys(("needs", "builds", "tasks"), list)
    entries = read_tables(path, "chapter", kinds)
    try:
        return tuple(
            Chapter(**{k: tuple(v) if isinstance(v, list) else v for k, v in entry.items()})
            for entry in entries
        )
    except TypeError as error:  # names what is missing or unknown
        raise ValueError(f"{path}: {error}") from None


def chapter(number: str) -> Chapter:
    """The chapter of that number.

    Example:
        >>> chapter("01").slug
        'tokenizer'

    Raises:
        ValueError: no such chapter; the message lists those that can be opened.
    """
    wanted = str(number).zfill(2)
    for entry in syllabus():
        if entry.number == wanted:
            return entry
    known = ", ".join(entry.number for entry in syllabus() if entry.finished)
    raise ValueError(f"there is no chapter {number!r}. Chapters that can be opened: {known}.")


def read_json(path: Path) -> dict:
    """A small JSON file of the learner's, or {} where there is none yet.

    Raises:
        ValueError: the file is damaged; it is left as it is, so that nothing is lost.
    """
    if not path.exists():
        return {}
    try:
        value = parse_json(decode(path.read_bytes(), "it"))
        if not isinstance(value, dict):
            raise ValueError("it must begin with a brace")
    except ValueError as error:
        raise ValueError(
            f"{path} is not valid JSON ({error}). Mend it by hand, or move it away to start anew."
        ) from None
    return value


def read_progress(path: Path | None = None) -> dict:
    """What is remembered of each task: status, tries, hints, seen, when.

    Args:
        path: of the file; by default ``my/progress.json``.

    Raises:
        ValueError: the file is damaged; it is left as it is, so that nothing is lost.
    """
    path = path or my() / "progress.json"
    content = read_json(path)
    for task, facts in content.items():
        known = isinstance(facts, dict) and {"when"} <= facts.keys() <= PROGRESS.keys()
        if not known or any(
            type(fact) not in PROGRESS[key] and fact not in PROGRESS[key]
            for key, fact in facts.items()
        ):
            raise ValueError(
                f"{path} is damaged: of task {task} it says {facts!r}. Mend it by hand, or move it "
                "away to start anew."
            )
    return content


def write_json(path: Path, value: dict) -> None:
    """Write JSON so that a stop in the middle leaves the old file whole."""
    text = json.dumps(value, indent=1, ensure_ascii=False, sort_keys=True) + "\n"
    write_whole(path, text)
