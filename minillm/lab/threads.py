"""How many threads torch computes with: one, unless somebody asks for more.

A second thread makes a step of a model as small as the course's a sixth faster on an idle machine,
and many times slower as soon as anything else needs a core, because torch's threads wait for each
other spinning. So work that can run side by side does so in processes, each with one thread.

Chapter: 00
"""

import os


def threads(default: int = 1) -> int:
    """The number of threads: ``OMP_NUM_THREADS`` if that is set, else the default.

    Args:
        default: for what asks for a number of its own, such as a recipe.

    Raises:
        ValueError: OMP_NUM_THREADS is set to something that is not a number of threads.
    """
    asked = os.environ.get("OMP_NUM_THREADS", "").split(",")[0]
    if not asked:
        return default
    if not asked.isdigit() or int(asked) < 1:
        raise ValueError(f"OMP_NUM_THREADS must be a number of at least 1; it is {asked!r}.")
    return int(asked)


def use_threads(default: int = 1) -> None:
    """Let torch compute with that many threads in this process."""
    import torch

    torch.set_num_threads(threads(default))
