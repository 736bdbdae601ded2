"""Run a benchmark by its name; a long one goes on after a stop.

While `minillm bench NAME --record FILE` runs, each finished run is a line of FILE.part; the same
command takes those that are there and measures the rest. A line that a kill cut off is measured
again. A benchmark of many processes keeps its runs in a folder FILE.runs (`minillm.train.sweep`).
Once the record is written, both are removed.

Chapter: app
"""

import importlib
import inspect
import json
import math
import os
import shutil
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any, final

from minillm.lab.files import write_whole
from minillm.lab.threads import use_threads


def names() -> list[str]:
    """All benchmarks."""
    return [path.stem for path in sorted(Path(__file__).parent.glob("[!_]*.py"))]


def run(name: str, record: Path | None = None, *, quick: bool = False, **options: Any) -> None:
    """Run a benchmark, and keep its figures.

    Args:
        name: of the benchmark.
        record: the file for the figures; None keeps nothing.
        quick: small inputs, to see that it runs at all.
        options: for its `run`; those that are None were not given.

    Raises:
        ValueError: no such benchmark, an option that it does not have, a folder for a record.
    """
    from minillm.train.manifest import machine, versions

    if name not in names():
        raise ValueError(f"there is no benchmark {name!r}. Benchmarks: {', '.join(names())}.")
    measure = importlib.import_module(f"minillm.bench.{name}").run
    takes = inspect.signature(measure).parameters
    given = {option: value for option, value in options.items() if value is not None}
    for option in given.keys() - takes.keys():
        raise ValueError(f"--{option} is not for `minillm bench {name}`, which brings its own")
    if record is not None:  # now: a file that cannot be written costs no run
        if record.is_dir():
            raise ValueError(f"--record must name a file; {record} is a folder")
        record.parent.mkdir(parents=True, exist_ok=True)
    finished = Finished(None if quick else record)
    if "finished" in takes:
        given["finished"] = finished
    runs = Path(f"{record}.runs") if record is not None and not quick else None
    if "folder" in takes:
        given["folder"] = runs
    use_threads()
    figures = _plain(measure(quick=quick, **given))
    if record is not None:
        origin = {"made by": f"minillm bench {name}", "versions": versions(), "machine": machine()}
        write_whole(record, json.dumps({**origin, "figures": figures}, indent=1) + "\n")
        finished.clear()
        if runs is not None:
            shutil.rmtree(runs, ignore_errors=True)
        print(f"the figures are in {record}")


def _plain(value: Any, where: str = "") -> Any:
    """Figures as JSON has them: null for NaN and infinity, which it does not know, and says so."""
    if isinstance(value, dict):
        return {key: _plain(each, f"{where}.{key}") for key, each in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(each, f"{where}.{i}") for i, each in enumerate(value)]
    if isinstance(value, float) and not math.isfinite(value):
        print(f"no number came of {where[1:]}: it is {value}")
        return None
    return value


@final
class Finished:
    """Results by name, in memory and, if there is a record, on the disk.

    Args:
        record: the file that the figures will be in; None keeps nothing.

    Example:
        >>> finished = Finished()
        >>> finished("rate 0.1", lambda: 3.5), finished("rate 0.1", lambda: 1 / 0)
        (3.5, 3.5)
    """

    def __init__(self, record: str | os.PathLike | None = None):
        self.path = Path(f"{record}.part") if record is not None else None
        self.results: dict[str, Any] = {}
        if self.path is not None and self.path.exists():
            for line in self.path.read_text(encoding="utf-8", errors="replace").splitlines():
                with suppress(ValueError, TypeError):  # cut off
                    name, result = json.loads(line)
                    self.results[name] = result
            print(f"going on: {len(self.results)} finished runs in {self.path}", flush=True)

    def __call__(self, name: str, measure: Callable[[], Any]) -> Any:
        """The result of that name, measured only if it is not there.

        Args:
            name: says everything that the result depends on.
            measure: gives plain JSON.
        """
        if name not in self.results:
            result = measure()
            self.results[name] = result
            if self.path is not None:
                with open(self.path, "a", encoding="utf-8") as file:
                    file.write("\n" * self._is_cut_off() + json.dumps([name, result]) + "\n")
                    file.flush()
                    os.fsync(file.fileno())
        return self.results[name]

    def _is_cut_off(self) -> bool:
        """Whether the last line lacks its end."""
        return self.path.exists() and not (b"\n" + self.path.read_bytes()).endswith(b"\n")

    def clear(self) -> None:
        """Remove the file; the record has everything."""
        if self.path is not None:
            self.path.unlink(missing_ok=True)
