"""Files that are written whole or not at all, and damaged ones that are kept.

Chapter: 00
"""

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


def write_whole(path: str | os.PathLike, text: str) -> None:
    """Write a text file so that a reader sees the old content or the new, never a part.

    The text goes to a temporary file beside `path`, which then takes its name in one step. If that
    fails, as on a full disk, the old file is still there. Lines end with a line feed on every
    system; a folder that is missing is made.

    Args:
        path: of the file.
        text: its content, written as UTF-8.

    Example:
        >>> import tempfile
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     write_whole(Path(folder, "made", "a.txt"), "plum")
        ...     Path(folder, "made", "a.txt").read_text(encoding="utf-8")
        'plum'
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        with open(temporary, "w", encoding="utf-8", newline="\n") as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())  # on the disk before the name changes
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


def set_aside(path: str | os.PathLike) -> Path:
    """Rename a damaged file or folder to a name that is free, so that nothing is lost.

    Returns:
        The new name: that of `path`, ".damaged-" and the first number that is free.
    """
    path, n = Path(path), 1
    while (aside := path.with_name(f"{path.name}.damaged-{n}")).exists():
        n += 1
    os.rename(path, aside)
    return aside


@contextmanager
def empty_folder(path: str | os.PathLike) -> Iterator[Path]:
    """A folder for a while: empty at first, gone at the end.

    Its name is always the same, so what a program that was killed has left of it goes, too.

    Args:
        path: of the folder; whatever is there is deleted.

    Example:
        >>> import tempfile
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     with empty_folder(Path(folder, "plums")) as plums:
        ...         write_whole(plums / "a.txt", "plum")
        ...     plums.exists()
        False
    """
    path = Path(path)
    shutil.rmtree(path, ignore_errors=True)
    path.mkdir()
    try:
        yield path
    finally:
        shutil.rmtree(path, ignore_errors=True)
