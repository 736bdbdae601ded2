"""The closing table of `make test`: each notebook against its budget.

    python -m tools.report [FOLDER]      what MINILLM_REPORT named during the notebook check

Size and memory over budget fail; the memory that torch itself takes is not counted, since a build
for GPUs takes twice as much. Time over budget is only flagged, since machines differ, and fails
beyond three times the budget. The exit status is 1 if anything failed.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

SECONDS = 90  # one notebook
AVERAGE_SECONDS = 45
ALL_SECONDS = 25 * 60  # one after another
PATIENCE = 3  # time fails beyond so many budgets
SIZE = 200_000  # bytes
MEMORY = 1_180_000_000  # bytes beyond `bare_kernel_bytes`: 1.5 GB with torch for CPUs
CHECKED = 0.85  # of the code cells


@dataclass(frozen=True)
class Count:
    """So many of so many, and what is missing."""

    done: int
    wanted: int
    missing: tuple[str, ...] = ()

    def __str__(self) -> str:
        return f"{self.done}/{self.wanted}"


@dataclass(frozen=True, kw_only=True)
class Row:
    """One notebook. What was not measured is None."""

    notebook: str
    size_bytes: int
    seconds: float | None = None
    peak_bytes: int | None = None
    cells: int = 0
    compared: int = 0
    failed: tuple[int, ...] = ()
    tasks: Count | None = None
    claims: Count | None = None


def tasks_graded(tasks: Iterable[str], graders: Collection[str]) -> Count:
    """Return how many of a chapter's tasks have a grader.

    Example:
        >>> tasks_graded(["1.1", "1.2"], {"1.2", "9.9"})
        Count(done=1, wanted=2, missing=('1.1',))
    """
    tasks = list(tasks)
    missing = tuple(task for task in tasks if task not in graders)
    return Count(len(tasks) - len(missing), len(tasks), missing)


def claims_measured(chapter: str, claims: Iterable[Any], measured: Collection[str]) -> Count:
    """Return how many of a chapter's testable claims its notebooks measured.

    A claim is testable unless its verdict says otherwise or its evidence is reading.
    """
    testable = [
        claim.id
        for claim in claims
        if claim.chapter == chapter
        and claim.evidence != "reading"
        and not claim.verdict.startswith("not testable")
    ]
    missing = tuple(name for name in testable if name not in measured)
    return Count(len(testable) - len(missing), len(testable), missing)


def make_row(
    notebook: str,
    size_bytes: int,
    record: dict[str, Any] | None,
    tasks: Count | None = None,
    claims: Count | None = None,
) -> Row:
    """Return a notebook's row from what the check recorded; None if it recorded nothing."""
    record = record or {}
    return Row(
        notebook=notebook,
        size_bytes=size_bytes,
        seconds=record.get("seconds"),
        peak_bytes=record.get("peak_bytes"),
        cells=record.get("cells", 0),
        compared=record.get("compared", 0),
        failed=tuple(record.get("failed", ())),
        tasks=tasks,
        claims=claims,
    )


def bare_kernel_bytes() -> int:
    """Return what a kernel holds that has imported torch and done nothing, in bytes.

    0.32 GB with torch for CPUs; 0.68 GB with torch for CUDA, which loads that one's libraries.
    """
    from tools.nbval_plugin import PEAK_MEMORY

    program = f"{PEAK_MEMORY}\nimport ipykernel.kernelapp, torch._dynamo\nprint(_peak_memory())"
    command = [sys.executable, "-W", "ignore", "-c", program]
    return int(subprocess.run(command, check=True, capture_output=True, text=True).stdout)


def judge(rows: Sequence[Row], memory: int = MEMORY) -> tuple[list[str], list[str]]:
    """Return what is flagged and what fails, each as a sentence.

    Args:
        rows: the notebooks.
        memory: how many bytes a notebook may hold, those of a bare kernel with them.
    """
    flagged, failing = [], []

    def time(seconds: float, budget: float, what: str) -> None:
        if seconds > budget:
            text = f"{what} {seconds:.0f} s, more than {budget:.0f} s"
            over = seconds > PATIENCE * budget
            (failing if over else flagged).append(text + (f" ×{PATIENCE}" if over else ""))

    if not rows:
        failing.append("there are no notebooks")
    for row in rows:
        name = row.notebook
        if row.size_bytes > SIZE:
            failing.append(f"{name} has {row.size_bytes / 1000:.0f} kB, more than {SIZE // 1000}")
        failing += _gaps(name, row)
        if row.seconds is None:
            failing.append(f"{name} was not checked to its end")
            continue
        time(row.seconds, SECONDS, f"{name} took")
        if row.failed:
            failing.append(f"{name}: {len(row.failed)} of {row.cells} code cells failed")
        if row.peak_bytes is None:
            failing.append(f"{name}: its memory was not measured; did the kernel die?")
        elif row.peak_bytes > memory:
            failing.append(
                f"{name} used {row.peak_bytes / 1e9:.2f} GB of memory, more than {memory / 1e9:.2f}"
            )
        if row.compared < CHECKED * row.cells or not row.cells:
            failing.append(
                f"{name}: {row.compared} of {row.cells} code cells are checked, "
                f"fewer than {CHECKED:.0%}"
            )
    seconds = [row.seconds for row in rows if row.seconds is not None]
    if seconds:
        time(sum(seconds) / len(seconds), AVERAGE_SECONDS, "on average a notebook took")
        time(sum(seconds), ALL_SECONDS, "all notebooks together took")
    return flagged, failing


def _gaps(name: str, row: Row) -> list[str]:
    found = []
    if row.tasks and row.tasks.missing:
        found.append(f"{name}: no grader for {', '.join(row.tasks.missing)}")
    if row.claims and row.claims.missing:
        found.append(f"{name}: no notebook measures the claims {', '.join(row.claims.missing)}")
    return found


def table(rows: Sequence[Row], memory: int = MEMORY) -> str:
    """Return the table as text, with the sums and the budgets below."""
    head = ["notebook", "seconds", "memory", "size", "checked", "tasks", "claims"]
    lines = [head]
    for row in rows:
        seconds = "-" if row.seconds is None else f"{row.seconds:.0f}"
        peak = "-" if row.peak_bytes is None else f"{row.peak_bytes / 1e9:.2f} GB"
        size = f"{row.size_bytes / 1000:.0f} kB"
        counts = [str(count) if count else "-" for count in (row.tasks, row.claims)]
        lines.append([row.notebook, seconds, peak, size, f"{row.compared}/{row.cells}", *counts])
    lines.append(_together(rows))
    lines.append(
        [
            "budget",
            f"{SECONDS}, mean {AVERAGE_SECONDS}",
            f"{memory / 1e9:.2f} GB",
            f"{SIZE // 1000} kB",
            f"{CHECKED:.0%}",
            "all",
            "all",
        ]
    )
    widths = [max(len(line[place]) for line in lines) for place in range(len(head))]
    texts = [_aligned(line, widths) for line in lines]
    rule = "-" * len(texts[0])
    return "\n".join([texts[0], rule, *texts[1:-2], rule, *texts[-2:]])


def _together(rows: Sequence[Row]) -> list[str]:
    def total(counts: Iterable[Count | None]) -> str:
        there = [count for count in counts if count]
        return f"{sum(c.done for c in there)}/{sum(c.wanted for c in there)}"

    seconds = [row.seconds for row in rows if row.seconds is not None]
    return [
        "together",
        f"{sum(seconds):.0f}, mean {sum(seconds) / max(1, len(seconds)):.0f}",
        f"{max((row.peak_bytes or 0 for row in rows), default=0) / 1e9:.2f} GB",
        f"{sum(row.size_bytes for row in rows) / 1000:.0f} kB",
        f"{sum(row.compared for row in rows)}/{sum(row.cells for row in rows)}",
        total(row.tasks for row in rows),
        total(row.claims for row in rows),
    ]


def _aligned(line: Sequence[str], widths: Sequence[int]) -> str:
    numbers = [text.rjust(width) for text, width in zip(line[1:], widths[1:], strict=True)]
    return "  ".join([line[0].ljust(widths[0]), *numbers])


def rows_of_course(records: Iterable[dict[str, Any]]) -> list[Row]:
    """Return the rows of all notebooks that exist, chapters before labs."""
    from minillm.lab.claims import load, measurements
    from minillm.lab.grade import graders
    from minillm.lab.project import syllabus

    known = {record["notebook"]: record for record in records}
    claims, graded = load(), set(graders())
    rows, labs = [], []
    for chapter in syllabus():
        name = chapter.notebook.stem
        paths = [path for path in (chapter.notebook, chapter.lab) if path and path.exists()]
        measured = {line.claim for path in paths for line in measurements(path)}
        for path in paths:
            lab = path != chapter.notebook
            title = f"labs/{name}" if lab else name
            row = make_row(
                title,
                path.stat().st_size,
                known.get(title),
                None if lab else tasks_graded(chapter.tasks, graded),
                None if lab else claims_measured(chapter.number, claims, measured),
            )
            (labs if lab else rows).append(row)
    return rows + labs


def main(words: Sequence[str] | None = None) -> int:
    """Print the table, then what is flagged and what fails; return the exit status."""
    parser = argparse.ArgumentParser(prog="python -m tools.report", description="The table.")
    parser.add_argument("folder", nargs="?", default=os.environ.get("MINILLM_REPORT"))
    folder = parser.parse_args(words).folder
    if not folder:
        parser.error("say which folder the notebook check wrote, or set MINILLM_REPORT")
    files = sorted(Path(folder).glob("*.json"))
    records = [json.loads(file.read_text(encoding="utf-8")) for file in files]
    if not records:
        print(f"{folder} has no records: the notebooks were not checked.")
    rows = rows_of_course(records)
    memory = MEMORY + bare_kernel_bytes()
    flagged, failing = judge(rows, memory)
    print(table(rows, memory))
    for text in flagged:
        print(f"flagged: {text}")
    for text in failing:
        print(f"failed:  {text}")
    return 1 if failing else 0


if __name__ == "__main__":
    from minillm.lab.program import program

    with program("tools.report"):
        sys.exit(main())
