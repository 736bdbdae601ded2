"""How pytest checks the notebooks: nbval runs the cells, `tools.compare` judges the outputs.

    python -m pytest --nbval course

Beyond nbval itself: the kernel is always this Python's; floats have the tolerance of the writer;
a message says what was stored, what came and what to do; a cell that was never executed fails,
where nbval would pass it in silence. With `MINILLM_REPORT=FOLDER` each notebook's seconds, memory
and checked cells are written there as JSON, one file a notebook, since they run side by side.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import tempfile
import textwrap
import time
from collections.abc import Iterator
from pathlib import Path
from queue import Empty
from typing import Any

import pytest
from nbval.plugin import IPyNbCell, IPyNbFile, NbCellError

from tools.compare import differences
from tools.notebooks import CELL_SECONDS, kernel_environment

REPORT = "MINILLM_REPORT"

_NBVAL_CELL_SECONDS = 2000
_COLOUR = re.compile(r"\x1b\[[0-9;]*[A-Za-z]")
_MEMORY_SECONDS = 10
_DIFFER = "Cell outputs differ"
_NEVER_RUN = "This cell was never executed, so nothing is stored for it"

# Linux: the high-water mark of this program alone (getrusage's begins with that of the program
# that started the kernel). Elsewhere getrusage, in bytes on macOS; on Windows psutil.
PEAK_MEMORY = """
def _peak_memory():
    import pathlib, sys
    status = pathlib.Path("/proc/self/status")
    if status.exists():
        for line in status.read_text().splitlines():
            if line.startswith("VmHWM:"):
                return int(line.split()[1]) * 1024
    if sys.platform == "win32":
        import psutil
        return psutil.Process().memory_info().peak_wset
    import resource
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024
"""
# A budget in processor time, with that of child processes: a busy machine then changes no verdict.
PROCESSOR_SECONDS = "sum(__import__('os').times()[:4])"


class CourseNotebook(IPyNbFile):
    """A notebook under check, with the figures for the closing table."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.began = 0.0
        self.cells = 0
        self.compared = 0
        self.failed: list[int] = []
        self.raised: list[int] = []

    @property
    def title(self) -> str:
        """The notebook as `make notebooks NB=…` knows it, for instance `labs/00_claims`."""
        lab = "labs/" if self.path.parent.name == "labs" else ""
        return lab + self.path.stem

    def collect(self) -> Iterator[CourseCell]:
        for cell in super().collect():
            self.cells += 1
            yield CourseCell.from_parent(
                self,
                name=cell.name,
                cell_num=cell.cell_num,
                cell=cell.cell,
                options=cell.options,
            )

    def setup(self) -> None:
        self.began = time.perf_counter()
        super().setup()

    def teardown(self) -> None:
        peak = seconds = None
        with contextlib.suppress(Empty, RuntimeError, OSError):
            peak, seconds = self.used_by_the_kernel()
        super().teardown()
        if seconds is None:  # the kernel died, so by the clock
            seconds = time.perf_counter() - self.began
        write_report(
            {
                "notebook": self.title,
                "seconds": round(seconds, 1),
                "peak_bytes": peak,
                "size_bytes": self.path.stat().st_size,
                "cells": self.cells,
                "compared": self.compared,
                "failed": self.failed,
            }
        )

    def used_by_the_kernel(self) -> tuple[int | None, float | None]:
        """Return the most bytes that the kernel ever held, and its processor time in seconds.

        Either is None if the kernel cannot tell.
        """
        if self.kernel is None or not self.kernel.is_alive():
            return None, None
        client = self.kernel.kc
        message = client.execute(
            PEAK_MEMORY,
            silent=True,
            store_history=False,
            user_expressions={"peak": "_peak_memory()", "seconds": PROCESSOR_SECONDS},
        )
        until = time.monotonic() + _MEMORY_SECONDS
        while time.monotonic() < until:
            reply = client.get_shell_msg(timeout=_MEMORY_SECONDS)
            if reply["parent_header"].get("msg_id") == message:
                answers = reply["content"].get("user_expressions", {})
                peak, seconds = (
                    answers[name]["data"]["text/plain"] if "data" in answers.get(name, {}) else None
                    for name in ("peak", "seconds")
                )
                return peak and int(peak), seconds and float(seconds)
        return None, None


class CourseCell(IPyNbCell):
    """One code cell under check."""

    def compare_outputs(self, test: Any, ref: Any, skip_compare: Any = None) -> bool:
        self.parent.compared += 1
        self.comparison_traceback = differences(ref, test)
        return not self.comparison_traceback

    def runtest(self) -> None:
        never_run = self.cell.execution_count is None
        if never_run:
            self.cell.outputs = []  # It still has to run: later cells need what it defines.
        try:
            super().runtest()
            if never_run:
                self.raise_cell_error(_NEVER_RUN)
        except BaseException as error:
            self.parent.failed.append(self.cell_num)
            if str(error) not in (_DIFFER, _NEVER_RUN):
                self.parent.raised.append(self.cell_num)
            raise

    def repr_failure(self, excinfo: pytest.ExceptionInfo[BaseException]) -> str:
        error = excinfo.value
        if not isinstance(error, NbCellError | RuntimeError):
            return str(super().repr_failure(excinfo))
        found = "its outputs are not the stored ones" if str(error) == _DIFFER else str(error)
        if isinstance(error, RuntimeError):
            found = f"the kernel is gone ({error}); did it run out of memory?"
        lines = [f"{self.parent.title}, code cell {self.cell_num + 1}: {found}"]
        lines += ["", textwrap.indent(_shortened(self.cell.source), "    "), ""]
        if getattr(error, "inner_traceback", None):
            lines += [textwrap.indent(_COLOUR.sub("", error.inner_traceback).strip("\n"), "  "), ""]
        earlier = [count for count in self.parent.raised if count < self.cell_num]
        if earlier and self.cell_num in self.parent.raised:
            lines.append(f"Look at code cell {earlier[0] + 1} first: it failed before this one.")
        lines.append(
            f"If this is what the cell should do now: {_command(self.parent.title)}, read the "
            "diff, commit it."
        )
        return "\n".join(lines)

    def reportinfo(self) -> tuple[Any, int, str]:
        first = self.cell.source.strip().split("\n")[0]
        return self.path, 0, f"{self.parent.title}, code cell {self.cell_num + 1}: {first[:60]}"


def _shortened(source: str, lines: int = 12) -> str:
    found = source.strip("\n").split("\n")
    if len(found) <= lines:
        return "\n".join(found)
    return "\n".join([*found[:lines], f"… {len(found) - lines} more lines"])


def _command(title: str) -> str:
    lab, _, name = title.rpartition("/")
    short = name.partition("_")[0]
    return f"make notebooks NB={lab + '/' if lab else ''}{short}"


def write_report(record: dict[str, Any]) -> None:
    """Write one notebook's figures into the folder that `MINILLM_REPORT` names, if it names one."""
    if not os.environ.get(REPORT):
        return
    folder = Path(os.environ[REPORT])
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"{record['notebook'].replace('/', '_')}.json"
    path.write_text(json.dumps(record, indent=1) + "\n", encoding="utf-8")


def pytest_configure(config: pytest.Config) -> None:
    """Choose this Python's kernel, the course's time limit, and the build's environment."""
    if not getattr(config.option, "nbval", False):
        return
    config.option.nbval_current_env = True
    if config.option.nbval_cell_timeout == _NBVAL_CELL_SECONDS:
        config.option.nbval_cell_timeout = CELL_SECONDS
    scratch = tempfile.TemporaryDirectory(ignore_cleanup_errors=True)
    before = dict(os.environ)
    os.environ.update(kernel_environment(Path(scratch.name)))

    def restore() -> None:
        os.environ.clear()
        os.environ.update(before)
        scratch.cleanup()

    config.add_cleanup(restore)


@pytest.hookimpl(wrapper=True)
def pytest_collect_file(file_path: Path, parent: pytest.Collector) -> Iterator[Any]:
    """Put our collector in the place of nbval's."""
    found = yield
    return [
        CourseNotebook.from_parent(parent, path=file_path) if type(each) is IPyNbFile else each
        for each in found
    ]
