"""A sweep (扫描): one run for every point of a grid of settings, on all cores, whatever happens.

    sweep(train_one, {"d_model": [16, 32], "seed": [0, 1]}, "runs/sizes")        4 runs

    runs/sizes/sweep.json                  what all runs have in common; another sweep is refused
    runs/sizes/d_model=16,seed=0-….json    a run: its settings, its result or its error, and when
    runs/sizes/d_model=16,seed=0-…/        its own folder: output.txt, and what the function keeps

Runs are processes with one thread each (see `minillm.lab.threads`). A run that is finished is never
repeated: not after Ctrl-C, not after a kill, not when values are added to the grid. One that was
stopped in the middle begins again, or goes on, if the function keeps checkpoints in its folder. One
that ended in an error is tried again by the next call. Code may change in between; so the file of
each run names the code that ran it (`code_hash`).

Chapter: 12
"""

import hashlib
import inspect
import itertools
import json
import multiprocessing
import os
import re
import signal
import threading
import time
import traceback
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, redirect_stderr, redirect_stdout, suppress
from dataclasses import asdict, dataclass, replace
from importlib import import_module
from multiprocessing.connection import Connection, wait
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any, NamedTuple, final

from tqdm import tqdm

from minillm.lab.files import set_aside, write_whole
from minillm.lab.track import track
from minillm.train.stop import Stop

ABOUT = "sweep.json"
OUTPUT = "output.txt"
THREADS = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS")
STOPPING = "\nstopping the runs; Ctrl-C again ends them at once\n"
READABLE = 60  # characters of a name


@final
@dataclass(frozen=True, kw_only=True)
class Run:
    """A point of the grid, and what came of it.

    Args:
        settings: by name.
        status: "to do", "finished" or "failed".
        result: what the function gave, plain JSON.
        error: the last line of what went wrong; the whole of it stands in the run's output.
        seconds: that it took, since it was begun or last gone on with.
        origin: versions, machine and hash of the library that ran it.
    """

    settings: dict[str, Any]
    status: str = "to do"
    result: Any = None
    error: str | None = None
    seconds: float | None = None
    origin: dict[str, Any] | None = None

    @property
    def name(self) -> str:
        """Of its files: its settings as far as they can be read, and a hash of all of them.

        Example:
            >>> Run(settings={"training.learning_rate": 0.01, "seed": 1}).name
            'learning_rate=0.01,seed=1-d676aafa'
        """
        text = json.dumps(self.settings, sort_keys=True)
        words = (f"{key.rpartition('.')[2]}={value}" for key, value in self.settings.items())
        readable = re.sub(r"[^\w.,=+-]+", "_", ",".join(words), flags=re.ASCII)[:READABLE]
        return f"{readable}-{hashlib.sha256(text.encode()).hexdigest()[:8]}"


class Work(NamedTuple):
    """What every process is given: where the function stands, and what its runs have in common."""

    where: str
    common: dict[str, Any]
    folder: Path
    origin: dict[str, Any]


def points(grid: Mapping[str, Sequence[Any]]) -> list[Run]:
    """Every combination of the grid's values, the last name's fastest, still to do.

    Raises:
        ValueError: an empty grid, a name without values, values that are equal or no plain JSON.

    Example:
        >>> [run.settings for run in points({"size": [1, 2], "seed": [0]})]
        [{'size': 1, 'seed': 0}, {'size': 2, 'seed': 0}]
    """
    from minillm.train.manifest import is_plain  # brings torch, which not every process needs

    if not grid:
        raise ValueError("the grid is empty; it must name a setting and its values: seed = [0, 1]")
    for name, values in grid.items():
        if isinstance(values, str) or not isinstance(values, Sequence) or not values:
            raise ValueError(
                f"{name} needs a list with at least one value, such as [1, 2]; got {values!r}"
            )
        if not is_plain(list(values)):
            raise ValueError(f"the values of {name} must be plain JSON; got {values!r}")
        texts = [json.dumps(value, sort_keys=True) for value in values]
        if len(set(texts)) < len(texts):
            raise ValueError(f"{name} has a value twice: {', '.join(texts)}")
    combinations = itertools.product(*grid.values())
    return [Run(settings=dict(zip(grid, values, strict=True))) for values in combinations]


def sweep(
    function: Callable[..., Any],
    grid: Mapping[str, Sequence[Any]],
    folder: str | os.PathLike,
    *,
    common: Mapping[str, Any] | None = None,
    about: Mapping[str, Any] | None = None,
    processes: int | None = None,
) -> list[Run]:
    """Call a function once for each point of a grid, in processes, and keep what it gives.

    Each process imports the program's main file again, so a script calls this under `if __name__ ==
    "__main__":`. A notebook needs no such line.

    Args:
        function: `function(**settings, **common)` gives plain JSON. It stands at the top of a
            module, since each process imports it anew. If it has a parameter `folder`, it gets the
            path of a folder of its own, which is the same when a stopped run is begun again.
        grid: name to values.
        folder: of the sweep; made if it is missing.
        common: arguments that are the same in all runs.
        about: plain JSON that tells another sweep from this one; by default `common`.
        processes: at most; by default one a core.

    Returns:
        the runs of this grid in its order; the errors of those that failed are theirs to tell.

    Raises:
        ValueError: what `points` refuses, a function that no process could import or that does not
            take the settings, a folder with another sweep in it.
        KeyboardInterrupt: Ctrl-C, after all processes have ended; SystemExit for a SIGTERM.
    """
    folder, common, runs = Path(folder), dict(common or {}), points(grid)
    if both := sorted({*grid} & {*common}):
        raise ValueError(f"{', '.join(both)} cannot both be in the grid and be common to all runs")
    if processes is not None and processes < 1:
        raise ValueError(f"processes must be at least 1; got {processes}")
    where = _place(function, {*grid, *common})
    _agree(folder / ABOUT, {"function": where, "about": common if about is None else about})
    done = {run.name: run for run in (read(folder, run) for run in runs)}
    waiting = [run for run in runs if done[run.name].status != "finished"]
    work = Work(where, common, folder.resolve(), _origin())
    ended = _processed(work, waiting, processes or cores())
    for run in track(ended, "sweep", total=len(waiting)):
        done[run.name] = run
    return [done[run.name] for run in runs]


def read(folder: str | os.PathLike, run: Run) -> Run:
    """The run as its file has it; still to do if there is none.

    A damaged file is kept under another name, and the run is still to do.
    """
    path = Path(folder, f"{run.name}.json")
    if not path.exists():
        return run
    with suppress(ValueError, TypeError):
        kept = Run(**json.loads(path.read_text(encoding="utf-8")))
        if kept.settings == run.settings and kept.status in ("finished", "failed"):
            return kept
    set_aside(path)
    return run


def cores() -> int:
    """Of this machine that this process may use."""
    with suppress(AttributeError):  # not on every system
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def _place(function: Callable[..., Any], names: set[str]) -> str:
    """Where a new process finds the function; refuse what it would not find, or could not call."""
    module, name = function.__module__, getattr(function, "__qualname__", "")
    if module == "__main__" or not name.isidentifier():
        raise ValueError(
            f"{name or function!r} must stand at the top of a module: each run is a new process, "
            "which imports it; write it into a file, and import it from there"
        )
    taken = inspect.signature(function).parameters.values()
    known = {each.name for each in taken if each.kind is not each.VAR_KEYWORD}
    needed = {each.name for each in taken if each.default is each.empty} & known
    if len(known) < len(taken):  # it takes any
        known |= names
    if unknown := sorted(names - known):
        raise ValueError(f"{name} takes no {', '.join(unknown)}; it takes {', '.join(known)}")
    if missing := sorted(needed - names - {"folder"}):
        raise ValueError(f"{name} needs {', '.join(missing)}, which the grid does not give")
    return f"{module}:{name}"


def _agree(path: Path, now: dict[str, Any]) -> None:
    """Refuse the folder of another sweep; a new one gets the file."""
    from minillm.formats.json_file import read_object
    from minillm.train.manifest import changes, is_plain

    if not is_plain(now):
        raise ValueError(f"about, or else common, must be plain JSON; got {now['about']!r}")
    if not path.exists():
        if others := sorted(path.parent.glob("*.json")):
            raise ValueError(
                f"{path} is missing, which says of which sweep {others[0].name} is; put it back, "
                "or name another folder"
            )
        write_whole(path, json.dumps(now, indent=1) + "\n")
        return
    if difference := next(changes("the sweep", read_object(path), now), None):
        raise ValueError(
            f"{path.parent} holds runs of another sweep ({difference}); name another folder, or "
            "take back the change"
        )


# --- the processes that runs are run in --------------------------------------------------------
def _processed(work: Work, waiting: Sequence[Run], processes: int) -> Iterator[Run]:
    """The runs as they end; whatever happens, no process is left behind."""
    waiting, busy, idle = list(waiting), {}, []
    workers: list[BaseProcess] = []
    try:
        with Stop(STOPPING) as stop:
            while (waiting or busy) and not stop.requested:
                # 1. every process that is idle gets a run
                while waiting and len(busy) < processes:
                    process, pipe = idle.pop() if idle else _started(work, workers)
                    run = waiting.pop(0)
                    with suppress(OSError):  # it has ended, which is seen below
                        pipe.send(run)
                    busy[pipe] = process, run
                # 2. those that have ended their run, or have ended altogether
                for pipe in wait(list(busy), timeout=0.5):
                    process, run = busy.pop(pipe)
                    try:
                        yield pipe.recv()
                        idle.append((process, pipe))
                    except (EOFError, OSError):
                        process.join()
                        if not stop.requested:
                            yield _lost(work, run, process.exitcode)
            if stop.requested:
                for process in workers:
                    process.terminate()
                for process in workers:
                    process.join()
                stop.end()
    finally:
        for process in workers:
            process.kill()
            process.join()


def _started(work: Work, workers: list[BaseProcess]) -> tuple[BaseProcess, Connection]:
    context = multiprocessing.get_context("spawn")
    ours, theirs = context.Pipe()
    process = context.Process(target=_work, args=(work, theirs), daemon=True)
    with _one_thread():
        process.start()
    theirs.close()  # so that ours ends when the process does
    workers.append(process)
    return process, ours


@contextmanager
def _one_thread() -> Iterator[None]:
    """What is started within has one thread, as libraries read it when they are imported."""
    before = {name: os.environ.get(name) for name in THREADS}
    os.environ.update(dict.fromkeys(THREADS, "1"))
    try:
        yield
    finally:
        for name, value in before.items():
            os.environ.pop(name)
            if value is not None:
                os.environ[name] = value


def _work(work: Work, pipe: Connection) -> None:
    """Of a process: run what comes through the pipe, until nothing comes any more."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the parent answers Ctrl-C, with a SIGTERM
    tqdm.set_lock(threading.RLock())  # its own is one of the system's, which a SIGTERM would leave
    threading.Thread(target=_end_with_parent, daemon=True).start()
    with suppress(EOFError, OSError):
        while True:
            pipe.send(_one(work, pipe.recv()))


def _end_with_parent() -> None:
    """A parent that was killed tells nobody; and two runs must not write into one folder."""
    multiprocessing.parent_process().join()
    os._exit(1)


def _one(work: Work, run: Run) -> Run:
    """Run it, and write down what came of it."""
    own, began = work.folder / run.name, time.perf_counter()
    own.mkdir(parents=True, exist_ok=True)
    ended = replace(run, status="finished", origin=work.origin)
    with (
        open(own / OUTPUT, "a", encoding="utf-8", buffering=1) as file,
        redirect_stdout(file),
        redirect_stderr(file),
    ):
        try:
            ended = replace(ended, result=_call(work, run, own))
        except Exception as error:
            traceback.print_exc()
            ended = replace(ended, status="failed", error=f"{type(error).__name__}: {error}")
    return _written(work, replace(ended, seconds=round(time.perf_counter() - began, 1)))


def _call(work: Work, run: Run, own: Path) -> Any:
    module, _, name = work.where.partition(":")
    function = getattr(import_module(module), name)
    arguments = {**work.common, **run.settings}
    if "folder" in inspect.signature(function).parameters:
        arguments["folder"] = own
    result = function(**arguments)
    try:
        return json.loads(json.dumps(result, allow_nan=False))
    except (TypeError, ValueError):
        raise ValueError(
            f"{name} must give plain JSON with finite numbers (None for one that is missing); it "
            f"gave {result!r}"
        ) from None


def _lost(work: Work, run: Run, status: int | None) -> Run:
    """A run whose process has ended, of which nobody else can write."""
    kept = read(work.folder, run)
    if kept.status == "finished":  # it ended just after
        return kept
    how = f"was killed by signal {-status}" if (status or 0) < 0 else f"ended with status {status}"
    error = f'its process {how}; too little memory? a script without `if __name__ == "__main__":`?'
    return _written(work, replace(run, status="failed", error=error, origin=work.origin))


def _written(work: Work, run: Run) -> Run:
    write_whole(work.folder / f"{run.name}.json", json.dumps(asdict(run), indent=1) + "\n")
    return run


def _origin() -> dict[str, Any]:
    from minillm.train.manifest import hash_code, machine, versions

    one_thread = {**machine(), "threads": 1}
    return {"versions": versions(), "machine": one_thread, "code_hash": hash_code()}
