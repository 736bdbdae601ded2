"""What ranks do in `test_cluster`: mostly, end badly. Imports nothing heavy, for parents' sake."""

import atexit
import os
import signal
import sys
import time
from pathlib import Path


def _rank() -> int:
    return int(os.environ["RANK"])


def _wait_for_all() -> None:
    from torch import distributed

    distributed.barrier()


def tell(words: list[str]) -> dict:
    """What a rank knows."""
    from torch import distributed

    print("not a result")
    return {
        "words": words[_rank() :],
        "rank": distributed.get_rank(),
        "local": os.environ["LOCAL_RANK"],
    }


def one_fails() -> None:
    """The other loses its connection."""
    if _rank() == 1:
        raise ValueError("out of plums")
    _wait_for_all()


def one_is_killed() -> None:
    """As the system does when memory is short."""
    if _rank() == 1:
        os.kill(os.getpid(), signal.SIGKILL)
    _wait_for_all()


def one_ends_early() -> None:
    """Rank 0 waits for one that has left."""
    if _rank() == 0:
        _wait_for_all()


def aborts_at_the_end() -> str:
    """As where a thread of gloo fails while the ranks leave."""
    atexit.register(os.abort)
    return "done"


def one_never_sends() -> None:
    """Rank 0 waits for one that does something else."""
    if _rank() == 1:
        time.sleep(1000)
    _wait_for_all()


def leave(status: int) -> None:
    """Without a result."""
    print("I would rather not")
    sys.exit(status)


def stay(folder: str) -> None:
    """And say who is here."""
    Path(folder, f"{_rank()}.partial").write_text(str(os.getpid()))
    Path(folder, f"{_rank()}.partial").rename(Path(folder, f"{_rank()}"))
    time.sleep(1000)
