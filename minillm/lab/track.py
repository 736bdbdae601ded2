"""Progress for long work: a bar for a person, silence in a build.

Chapter: 00
"""

import sys
from collections.abc import Iterable, Iterator
from typing import TypeVar

from minillm.lab.project import building, in_notebook

T = TypeVar("T")


def track(steps: Iterable[T], label: str, *, total: int | None = None) -> Iterator[T]:
    """Yield the steps of long work, with a bar that shows how much is left.

    Args:
        steps: what to go through.
        label: what is being done, in a word or two.
        total: how many steps there are, where ``len(steps)`` is not known.

    Example:
        >>> sum(track([1, 2, 3], "adding"))
        6
    """
    from tqdm import tqdm

    silent = building() or not (sys.stdout.isatty() or in_notebook())
    # Standard output, because a notebook shows standard error on red; `leave=False` wipes the bar.
    yield from tqdm(
        steps, desc=label, total=total, disable=silent, file=sys.stdout, leave=False, ncols=80
    )
