"""Pictures of scaling laws: the plan, bowls of equal compute, and a forecast beside its run.

Chapter: 12
"""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from minillm.lab.figures import BLUE, COLOURS, GREY, INK, ORANGE, diagram, figure, label
from minillm.train.laws import PowerLaw, isoflop_minimum


def draw_plan():
    """Small runs, a line, a forecast; the large run, and how far off the forecast was."""
    boxes = {
        "small": (0, 0, "many small runs"),
        "line": (2.6, 0, "a line through\ntheir losses"),
        "forecast": (5.2, 0, "a forecast for\nthe large run"),
        "large": (5.2, 1.3, "the large run,\nmade once"),
        "loss": (7.4, 1.3, "its loss"),
        "check": (7.4, 0, "how far off?"),
    }
    arrows = [("small", "line"), ("line", "forecast"), ("large", "loss")]
    arrows += [("forecast", "check"), ("loss", "check")]
    fig = diagram(boxes, arrows, width=8.4, height=2.6, colours={"line": BLUE, "large": ORANGE})
    fig.suptitle("Fit the small runs, forecast the large one, then check", fontweight="bold")
    return fig


def draw_bowls(ax: Any, bowls: Mapping[str, Sequence[tuple[float, float]]]) -> None:
    """Each bowl: its runs, the parabola through them, and a star at its lowest point.

    Args:
        ax: axes to draw into.
        bowls: words beside a bowl to its runs, each (n_parameters, loss).
    """
    for (words, runs), colour in zip(bowls.items(), COLOURS, strict=False):
        sizes, losses = np.array(sorted(runs)).T
        ax.semilogx(sizes, losses, "o", color=colour, markersize=4)
        span = np.geomspace(sizes[0], sizes[-1], 50)
        parabola = np.polyfit(np.log(sizes / sizes[0]), losses, 2)
        ax.plot(span, np.polyval(parabola, np.log(span / sizes[0])), color=colour)
        minimum = isoflop_minimum(sizes, losses)
        if minimum.is_interior:
            ax.plot(minimum.n_parameters, minimum.loss, "*", color=colour, markersize=14)
        label(ax, sizes[-1], losses[sizes == sizes[-1]].mean(), words, colour)
    ax.set(xlabel="parameters (log axis)", ylabel="loss above the floor, nats a token")
    first, last = ax.get_xlim()
    ax.set_xlim(first, last * 4)  # room for the words


def draw_best_sizes(
    ax: Any, bowls: Mapping[float, Sequence[tuple[float, float]]], law: PowerLaw
) -> None:
    """The lowest point of each bowl over its compute, the law's line, and C^0.5 beside it."""
    lowest = {flops: isoflop_minimum(*zip(*runs, strict=True)) for flops, runs in bowls.items()}
    sizes = [minimum.n_parameters for minimum in lowest.values()]
    for (flops, minimum), colour in zip(lowest.items(), COLOURS, strict=False):
        ax.loglog(flops, minimum.n_parameters, "*", color=colour, markersize=14)
    ends = np.array([min(lowest) / 1.3, max(lowest) * 1.3])
    half = sizes[0] * (ends / min(lowest)) ** 0.5
    ax.loglog(ends, law.predict(ends), color=GREY)
    ax.loglog(ends, half, ":", color=GREY)
    label(ax, ends[-1], law.predict(ends[-1]), f"C^{law.exponent:.2f}, ours", GREY)
    label(ax, ends[-1], half[-1], "C^0.5", GREY)
    ax.set(xlabel="operations (log axis)", ylabel="best size, parameters (log axis)")
    ax.set_xlim(ends[0] / 1.3, ends[-1] * 8)


def draw_forecasts(
    market: Sequence[tuple[float, float]],
    lines: Mapping[str, tuple[Sequence[float], Sequence[float]]],
    sealed: Sequence[tuple[float, float]],
):
    """What was for sale, the line of each law, and the sealed run.

    Args:
        market: operations and loss above the floor of each run.
        lines: words to operations and foretold losses above the floor.
        sealed: operations and loss above the floor, one for each seed.
    """
    fig, ax = figure(width=6.8, height=4.2)
    ax.loglog(*zip(*market, strict=True), "o", color=GREY, markersize=4)
    label(ax, *max(market, key=lambda run: run[1]), "market", GREY)
    for (words, (flops, losses)), colour in zip(lines.items(), COLOURS, strict=False):
        ax.plot(flops, losses, color=colour)
        label(ax, flops[-1], losses[-1], words, colour)
    ax.plot(*zip(*sealed, strict=True), "*", color=INK, markersize=9)
    label(ax, *sealed[0], "sealed run", INK, offset=(-78, -4))
    ax.set(xlabel="operations (log axis)", ylabel="loss above the floor, nats a token (log)")
    ax.set_xlim(None, 12 * sealed[0][0])
    return fig
