"""What a sweep came to, side by side: a table for people, a CSV for programs, and a figure.

A row is a run: its settings, then what it gave. Where the loss stands against a size, the figure
also has the power law through the points, with its exponent and how sure that is.

Chapter: 12
"""

import csv
import io
from collections.abc import Sequence
from typing import Any

from minillm.lab.figures import COLOURS, GREY, figure, label
from minillm.train.laws import PowerLaw, power_law
from minillm.train.sweep import Run

SEEDS = ("seed", "seeds")


def rows(runs: Sequence[Run]) -> list[dict[str, Any]]:
    """Settings, results, seconds and error of each run, by name.

    A result that is no object of names and values has the name "result".

    Example:
        >>> rows([Run(settings={"size": 2}, status="finished", result={"loss": 1.5}, seconds=3.0)])
        [{'size': 2, 'loss': 1.5, 'seconds': 3.0}]
    """
    entries = []
    for run in runs:
        result = run.result if isinstance(run.result, dict) else {"result": run.result}
        result = {} if run.status != "finished" else result
        entry = {**result, **run.settings, "seconds": run.seconds}
        names = dict.fromkeys([*run.settings, *result, "seconds"])
        entries.append({name: entry[name] for name in names} | _error(run))
    return entries


def _error(run: Run) -> dict[str, str]:
    return {} if run.status == "finished" else {"error": run.error or "not run"}


def columns(runs: Sequence[Run]) -> list[str]:
    """All names of `rows`: settings, results, seconds, error."""
    names = dict.fromkeys(name for row in rows(runs) for name in row)
    last = [name for name in ("seconds", "error") if name in names]
    return [*(name for name in names if name not in last), *last]


def table(runs: Sequence[Run]) -> str:
    """The rows under each other; numbers with four digits, "–" for what a run does not have.

    Example:
        >>> print(table([Run(settings={"size": n}, status="finished", result=n / 3, seconds=0.1)
        ...     for n in (1, 1000)]))
         size  result  seconds
            1  0.3333      0.1
        1,000   333.3      0.1
    """
    names = columns(runs)
    lines = [names] + [[_shown(row.get(name)) for name in names] for row in rows(runs)]
    widths = [max(len(line[place]) for line in lines) for place in range(len(names))]
    return "\n".join(
        "  ".join(
            text.ljust(width) if name == "error" else text.rjust(width)
            for text, width, name in zip(line, widths, names, strict=True)
        ).rstrip()
        for line in lines
    )


def _shown(value: Any) -> str:
    if value is None:
        return "–"
    if isinstance(value, bool) or not isinstance(value, int | float):
        return " ".join(str(value).split())
    return f"{value:,}" if isinstance(value, int) else f"{value:.4g}"


def csv_text(runs: Sequence[Run]) -> str:
    """The rows as comma-separated values, numbers with all their digits."""
    file = io.StringIO()
    writer = csv.DictWriter(file, columns(runs), lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows(runs))
    return file.getvalue()


def varied(runs: Sequence[Run], name: str) -> bool:
    """Whether the runs have several numbers of that name."""
    return len({number for row in rows(runs) if (number := _number(row, name)) is not None}) > 1


def law(runs: Sequence[Run], x: str, y: str) -> PowerLaw | None:
    """The power law through y over x, or None where they cannot have one."""
    points = [(_number(row, x), _number(row, y)) for row in rows(runs)]
    points = [point for point in points if None not in point]
    try:
        return power_law(*zip(*points, strict=True))
    except (ValueError, TypeError):  # too few points, or numbers that are not above 0; no points
        return None


def draw(runs: Sequence[Run], x: str, y: str, *, with_law: bool = False):
    """A point for each run and a line through the means of each group.

    A group has the same settings, seeds apart; a setting that x follows from makes no groups.

    Args:
        runs: of one sweep; those without the two numbers are left out.
        x, y: names of settings or results.
        with_law: also draw the power law through all points, if there is one.

    Returns:
        the figure.

    Raises:
        ValueError: no run has both numbers.
    """
    points = [row for row in rows(runs) if None not in (_number(row, x), _number(row, y))]
    if not points:
        raise ValueError(f"no run has numbers for both {x} and {y}: there is nothing to draw")
    settings = [name for name in runs[0].settings if _groups(points, name, x)]
    groups: dict[str, list[dict]] = {}
    for row in points:
        words = ", ".join(f"{name} {_shown(row[name])}" for name in settings)
        groups.setdefault(words, []).append(row)
    fig, ax = figure()
    for number, (words, members) in enumerate(groups.items()):
        colour = COLOURS[number] if len(groups) <= len(COLOURS) else GREY
        ax.plot([row[x] for row in members], [row[y] for row in members], "o", color=colour)
        means: dict[float, list[float]] = {}
        for row in sorted(members, key=lambda row: row[x]):
            means.setdefault(row[x], []).append(row[y])
        line = [(each, sum(values) / len(values)) for each, values in means.items()]
        ax.plot(*zip(*line, strict=True), color=colour)
        label(ax, *line[-1], words, colour)
    xs = [row[x] for row in points]
    if min(xs) > 0 and max(xs) >= 8 * min(xs):
        ax.set_xscale("log")
    fitted = law(runs, x, y) if with_law else None
    if fitted is not None:
        ends = [min(xs), max(xs)]
        ax.set(xscale="log", yscale="log")
        ax.plot(ends, [fitted.predict(each) for each in ends], "--", color=GREY)
        low, high = fitted.interval
        ax.set_title(f"exponent {fitted.exponent:.3f} (95 %: {low:.3f} to {high:.3f})")
    ax.set(xlabel=x + (" (log)" if ax.get_xscale() == "log" else ""), ylabel=y)
    return fig


def _groups(points: Sequence[dict], name: str, x: str) -> bool:
    if name == x or name.rpartition(".")[2] in SEEDS:
        return False
    pairs = {(row[x], str(row[name])) for row in points}
    return len(pairs) > len({at for at, _ in pairs})


def _number(row: dict[str, Any], name: str) -> float | None:
    value = row.get(name)
    is_number = isinstance(value, int | float) and not isinstance(value, bool)
    return value if is_number else None
