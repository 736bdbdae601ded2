"""The set-up cell of every notebook: seeds, threads, figures, and the learner's own answers.

Chapter: 00
"""

import os
import random
from collections.abc import Iterable

from minillm.lab import figures
from minillm.lab.pick import use_mine


def setup(seed: int = 0, *, mine: Iterable[str] | None = None, projector: bool = False) -> None:
    """Make a notebook repeatable, and print the seed.

    Threads are ``OMP_NUM_THREADS`` if that is set, else two (one on a single core): more would
    change nothing that the course measures, and a busy core slows all the others.

    Args:
        seed: for random, numpy and torch.
        mine: ids of tasks whose answers ``pick`` takes from ``my/exercises/``.
        projector: larger type and lines, for a hall.

    Raises:
        ValueError: the seed is not a whole number of at least 0, or a task id is unknown.
    """
    if isinstance(seed, bool) or not isinstance(seed, int) or seed < 0:
        raise ValueError(f"setup needs a whole number of at least 0 as its seed; got {seed!r}.")
    import numpy as np
    import torch

    random.seed(seed)
    np.random.seed(seed % 2**32)
    torch.manual_seed(seed)
    torch.set_num_threads(threads())
    figures.style(projector=projector)
    use_mine(mine or ())
    print(f"seed {seed}")


def threads() -> int:
    """How many threads the course uses here.

    Raises:
        ValueError: OMP_NUM_THREADS is set to something that is not a number of threads.
    """
    wanted = os.environ.get("OMP_NUM_THREADS", "").split(",")[0]
    if not wanted:
        return min(2, os.cpu_count() or 1)
    if not wanted.isdigit() or int(wanted) < 1:
        raise ValueError(f"OMP_NUM_THREADS must be a number of at least 1; it is {wanted!r}.")
    return int(wanted)
