"""Finished runs of a long benchmark, kept so that it goes on after a stop.

While `minillm bench NAME --record FILE` runs, each finished run is a line of FILE.part; the same
command takes those that are there and measures the rest. A line that a kill cut off is measured
again. Once the record is written, FILE.part is removed.

Chapter: app
"""

import json
import os
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any, final


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
