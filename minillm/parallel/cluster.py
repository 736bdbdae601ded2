"""A cluster on one machine: processes (ranks, 进程序号) with a memory each, that send tensors.

A large run is one program, started many times. Each of its processes, the **ranks** 0 to N - 1,
has its own weights and its own data, and nothing of another rank's unless that sends it. Here the
ranks are processes of this machine, and gloo carries the messages; on a real cluster torchrun
starts one a GPU, and nccl carries them. The function that runs is the same.

    run(function, 2)       start two ranks, each calls function(), and get both results
    joined()               inside a rank: join the others, and leave at the end

`run` gives every rank what torchrun gives it (RANK, WORLD_SIZE, LOCAL_RANK). Two things are easier
here: ranks meet by a file, so that no port can be taken, and what went wrong comes back as one
message. If a rank fails, is killed, or the time is up, all others are ended.

Source: torchrun's environment variables, https://docs.pytorch.org/docs/stable/elastic/run.html.
Differs: `run` is no torchrun: no restarts, one machine. A process less has to start, a second or
two. A program for several machines is started by torchrun, and `joined` answers to it.

Chapter: 15
"""

import faulthandler
import importlib
import json
import math
import os
import subprocess
import sys
import threading
import time
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from datetime import timedelta
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from minillm.lab.program import program
from minillm.train.stop import Stop

PATIENCE = 60.0  # seconds that a rank waits for another's message
GRACE = 1.0  # seconds that a rank stays for the others when it is done
MEET = "MINILLM_MEET"  # where ranks of `run` meet: a file
CALL = "call.json"  # in the folder of a run: what every rank calls


class RankError(ValueError):
    """A rank failed, was killed, or did not end in time; the message says which, and where."""


# --- outside: start ranks, and wait for them ------------------------------------------------------
def run(
    function: Callable[..., Any],
    n_ranks: int,
    *,
    time_limit: float | None = 3 * PATIENCE,
    show: bool = False,
    **arguments: Any,
) -> list[Any]:
    """Call a function in N new processes that can send each other tensors; the results, by rank.

    Args:
        function: stands at the top of a module, since each process imports it anew; it gives plain
            JSON. It may use `torch.distributed` at once.
        n_ranks: N, at most 64.
        time_limit: seconds; a rank that waits for a message which nobody sends would never end.
            None for work of any length: then a message may take `PATIENCE` seconds.
        show: rank 0 prints where this process prints; else what ranks print is seen when they fail.
        arguments: plain JSON, the same for all ranks.

    Raises:
        ValueError: a function that no process could import; no number of ranks; Windows.
        RankError: a rank failed (with its traceback), was killed, or the time is up (with the place
            where each rank stood).
        KeyboardInterrupt: Ctrl-C, after all ranks have ended, each in its own good time; SystemExit
            for a SIGTERM. A second Ctrl-C ends them at once.

    Example:
        >>> from minillm.parallel.collectives import whoami
        >>> run(whoami, 2)
        [[0, 2], [1, 2]]
    """
    check_here(n_ranks)
    module, name = function.__module__, function.__qualname__
    if module == "__main__" or not name.isidentifier():
        raise ValueError(
            f"{name} must stand at the top of a module: each rank is a new process, which imports "
            "it; write it into a file, and import it from there"
        )
    until = None if time_limit is None else time.time() + time_limit
    call = {"function": f"{module}:{name}", "arguments": arguments, "until": until}
    with TemporaryDirectory(prefix="ranks-") as name, Stop() as stop:
        folder = Path(name)
        (folder / CALL).write_text(json.dumps(call), encoding="utf-8")
        with _processes(folder, n_ranks, show=show) as processes:
            ended = _ended(processes, time_limit, stop)
        if stop.requested:
            stop.end()
        _refuse(ended, folder, time_limit)
        return [json.loads(_result(folder, rank).read_text()) for rank in range(n_ranks)]


def check_here(n_ranks: int) -> None:
    """Refuse what is not tested, which is Windows, and a number of ranks that is none."""
    if sys.platform == "win32":
        raise ValueError(
            "several ranks need Linux or macOS; on Windows this is not tested. Run it in WSL, or "
            "read the stored outputs"
        )
    if not 1 <= n_ranks <= 64:
        raise ValueError(f"the number of ranks must be from 1 to 64; got {n_ranks}")


@contextmanager
def _processes(folder: Path, n_ranks: int, *, show: bool) -> Iterator[list[subprocess.Popen]]:
    """N processes that call what the folder says; none outlives the block, or this process."""
    processes = []
    try:
        for rank in range(n_ranks):
            environment = os.environ | {
                "RANK": str(rank),
                "LOCAL_RANK": str(rank),
                "WORLD_SIZE": str(n_ranks),
                "OMP_NUM_THREADS": os.environ.get("OMP_NUM_THREADS", "1"),
                "PYTHONPATH": os.pathsep.join(filter(None, sys.path)),
                MEET: str(folder / "meet"),
            }
            with open(folder / f"{rank}.txt", "wb") as printed:
                seen = show and not rank
                processes.append(
                    subprocess.Popen(
                        [sys.executable, "-m", "minillm.parallel.cluster", str(folder)],
                        env=environment,
                        stdin=subprocess.PIPE,  # closes when we end: `_end_with_parent`
                        stdout=None if seen else printed,
                        stderr=None if seen else printed,
                        start_new_session=True,  # Ctrl-C is answered here, for all of them
                    )
                )
        yield processes
    finally:
        for process in processes:
            process.kill()
        for process in processes:
            process.stdin.close()
            process.wait()


def _ended(
    processes: list[subprocess.Popen], time_limit: float | None, stop: Stop
) -> list[int | None]:
    """Every rank's exit status; None for one still at it when another failed, or at the end.

    When one fails the others get a second: they often fail for the same reason, and say so.
    """
    until = time.monotonic() + (math.inf if time_limit is None else time_limit + 2)
    failed = asked = False
    while time.monotonic() < until:
        status = [process.poll() for process in processes]
        if None not in status:
            break
        if any(status) and not failed and not asked:
            failed, until = True, min(until, time.monotonic() + 1)
        if stop.requested and not asked:
            asked = True
            for process in processes:
                process.terminate()
        time.sleep(0.02)
    return [process.poll() for process in processes]


def _refuse(ended: list[int | None], folder: Path, time_limit: float | None) -> None:
    """Raise if a rank did not end well: the one that failed first, or where all of them stood.

    A rank whose result is there has done its work. If a signal ends it after that, it was gloo's
    own thread, which cannot bear that the others leave.
    """
    finished = [rank for rank in range(len(ended)) if _result(folder, rank).exists()]
    lost = [
        rank
        for rank, status in enumerate(ended)
        if rank not in finished or status is None or status > 0
    ]
    if not lost:
        return
    errors = {}
    for rank in range(len(ended)):
        with suppress(OSError, ValueError):
            errors[rank] = json.loads(Path(folder, f"{rank}.error").read_text())
    n_ranks, others = len(ended), "the others were ended"
    killed = [rank for rank in lost if ended[rank] is not None and ended[rank] < 0]
    if killed:
        signal, printed = -ended[killed[0]], _read(folder / f"{killed[0]}.txt").strip()
        printed = f":\n{printed}" if printed else ""
        raise RankError(
            f"rank {killed[0]} of {n_ranks} was killed by signal {signal}; {others}{printed}"
        )
    if errors:
        first = min(errors, key=lambda rank: errors[rank]["at"])
        names = ", ".join(map(str, finished))
        hint = f" (rank {names} had ended: do all call the same collectives?)" if finished else ""
        raise RankError(
            f"rank {first} of {n_ranks} failed{hint}, {others}:\n{errors[first]['traceback']}"
        )
    late = [rank for rank, status in enumerate(ended) if status is None]
    if late:
        places = {rank: _read(folder / f"{rank}.stood").split("\n\n")[-1] for rank in late}
        stood = "\n".join(f"rank {rank} stood here, {places[rank]}" for rank in late)
        raise RankError(
            f"after {time_limit} s rank {', '.join(map(str, late))} of {n_ranks} had not ended. "
            "One may wait for a message that nobody sends: do all ranks call the same collectives, "
            f"in the same order?\n{stood}"
        )
    printed = _read(folder / f"{lost[0]}.txt")
    raise RankError(f"rank {lost[0]} of {n_ranks} ended with status {ended[lost[0]]}:\n{printed}")


def _result(folder: Path, rank: int | str) -> Path:
    return folder / f"{rank}.json"


def _read(path: Path) -> str:
    return path.read_text(errors="replace")[-3000:] if path.exists() else "(it wrote nothing)"


# --- inside: a rank -------------------------------------------------------------------------------
def in_cluster() -> bool:
    """Whether this process is a rank, of `run` or of torchrun."""
    return {"RANK", "WORLD_SIZE"} <= os.environ.keys()


@contextmanager
def joined(patience: float = PATIENCE) -> Iterator[None]:
    """Within it this rank can send to the others, and wait for them.

    Args:
        patience: seconds that it waits for another's message before it fails.

    Raises:
        RankError: the others cannot be met, such as where torchrun's port is taken.
    """
    import torch
    from torch import distributed

    meet, on_gpu = os.environ.get(MEET), torch.cuda.is_available()
    if meet:  # all on this machine: no need to ask the net who we are
        loopback = {"linux": "lo", "darwin": "lo0"}.get(sys.platform)
        if loopback:
            os.environ.setdefault("GLOO_SOCKET_IFNAME", loopback)
    if on_gpu:
        torch.cuda.set_device(int(os.environ.get("LOCAL_RANK", 0)))
    try:
        distributed.init_process_group(
            "nccl" if on_gpu else "gloo",
            init_method=f"file://{meet}" if meet else "env://",
            rank=int(os.environ["RANK"]),
            world_size=int(os.environ["WORLD_SIZE"]),
            timeout=timedelta(seconds=patience),
        )
    except Exception as error:
        where = meet or f"{os.environ.get('MASTER_ADDR')}:{os.environ.get('MASTER_PORT')}"
        raise RankError(
            f"rank {os.environ['RANK']} could not meet the others at {where}: {error}. Is the port "
            "taken, or does another number of ranks run? torchrun's --rdzv-endpoint=HOST:0 chooses "
            "a free port"
        ) from None
    try:
        yield
    finally:
        distributed.destroy_process_group()


def _end_with_parent() -> None:
    """End this rank when the process that started it is gone: its end of our stdin closes."""

    def watch() -> None:
        with suppress(OSError, ValueError):
            while os.read(0, 4096):
                pass
        os._exit(1)

    if os.environ.get(MEET):
        threading.Thread(target=watch, daemon=True).start()


def main(folder: Path) -> None:
    """Of a rank that `run` started: call the function, and write down what came of it."""
    rank = os.environ["RANK"]
    call = json.loads(Path(folder, CALL).read_text(encoding="utf-8"))
    _end_with_parent()
    left = None if call["until"] is None else max(0.1, call["until"] - time.time())
    with open(folder / f"{rank}.stood", "w") as stood:
        if left is not None:
            faulthandler.dump_traceback_later(left, file=stood)
        # with a limit, who waits in vain is to stand there when the time is up
        patience = PATIENCE if left is None else left + PATIENCE
        with _noted(folder / f"{rank}.error"), joined(patience):
            with _noted(folder / f"{rank}.error"):  # before the others see that we are gone
                from minillm.lab.threads import use_threads

                use_threads()
                module, _, name = call["function"].partition(":")
                result = getattr(importlib.import_module(module), name)(**call["arguments"])
                text = json.dumps(result, allow_nan=False)
            _result(folder, rank).write_text(text, encoding="utf-8")
            _wait_for_others(folder)
        faulthandler.cancel_dump_traceback_later()


def _wait_for_others(folder: Path) -> None:
    """Stay a moment, until all have their results.

    Whoever leaves closes its connections, and where gloo's thread in another rank is told so at a
    bad moment, it ends that rank. Who waits for a message of ours is to hear that we are gone.
    """
    until = time.monotonic() + GRACE
    ranks = range(int(os.environ["WORLD_SIZE"]))
    while time.monotonic() < until and not all(_result(folder, n).exists() for n in ranks):
        time.sleep(0.01)


@contextmanager
def _noted(path: Path) -> Iterator[None]:
    """An error within is written down, and ends this rank."""
    try:
        yield
    except Exception as error:
        below = error.__traceback__.tb_next  # without the frames of this file
        below = below.tb_next or below
        lines = traceback.format_exception(type(error), error, below)
        note = {"at": time.time(), "error": str(error), "traceback": "".join(lines)}
        path.write_text(json.dumps(note), encoding="utf-8")
        os._exit(1)  # not sys.exit: gloo's own threads may still wait


if __name__ == "__main__":
    with program("minillm"):
        main(Path(sys.argv[1]))
