"""The set-up cell of every notebook: seeds, threads, figures, and the learner's own answers.

Chapter: 00
"""

import random
from collections.abc import Iterable

from minillm.lab import figures
from minillm.lab.pick import use_mine
from minillm.lab.threads import use_threads


def setup(seed: int = 0, *, mine: Iterable[str] | None = None, projector: bool = False) -> None:
    """Make a notebook repeatable, and print the seed.

    Torch computes with one thread, or with ``OMP_NUM_THREADS`` if that is set.

    Args:
        seed: for random, numpy and torch.
        mine: ids of tasks whose answers ``pick`` takes from ``my/exercises/``.
        projector: larger type and lines, for a hall.

    Raises:
        ValueError: the seed is not a whole number of at least 0, a task id is unknown, or
            OMP_NUM_THREADS is no number of threads.
    """
    if isinstance(seed, bool) or not isinstance(seed, int) or seed < 0:
        raise ValueError(f"setup needs a whole number of at least 0 as its seed; got {seed!r}.")
    import numpy as np
    import torch

    random.seed(seed)
    np.random.seed(seed % 2**32)
    torch.manual_seed(seed)
    use_threads()
    figures.style(projector=projector)
    use_mine(mine or ())
    print(f"seed {seed}")
