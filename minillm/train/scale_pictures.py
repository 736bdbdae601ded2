"""Pictures of scaling laws: the plan, bowls of equal compute, and a forecast beside its run.

Chapter: 12
"""

from collections.abc import Callable, Mapping, Sequence
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
    ax: Any,
    bowls: Mapping[float, Sequence[tuple[float, float]]],
    law: PowerLaw,
    other: tuple[float, PowerLaw],
) -> None:
    """The lowest point of each bowl over its compute, and how one of them moves the line.

    Args:
        ax: axes to draw into.
        bowls: compute in operations to its runs, each (n_parameters, loss).
        law: the line through the lowest points.
        other: the best size of the first bowl as another tuning found it, and the line with it.
    """
    lowest = {flops: isoflop_minimum(*zip(*runs, strict=True)) for flops, runs in bowls.items()}
    for (flops, minimum), colour in zip(lowest.items(), COLOURS, strict=False):
        ax.loglog(flops, minimum.n_parameters, "*", color=colour, markersize=14)
    (first, best), (other_best, other_law) = next(iter(lowest.items())), other
    ax.loglog(first, other_best, "*", color=COLOURS[0], markersize=14, markerfacecolor="white")
    for size, words in ((best.n_parameters, "as in section 5"), (other_best, "as in section 3")):
        label(ax, first, size, words, COLOURS[0], offset=(-9, 0), ha="right")
    ends = np.array([min(lowest) / 1.3, max(lowest) * 1.3])
    for each, dashes in ((law, "-"), (other_law, "--")):
        ax.loglog(ends, each.predict(ends), dashes, color=GREY, zorder=1)
        height = 10 if each.exponent > min(law.exponent, other_law.exponent) else -10
        label(
            ax, ends[-1], each.predict(ends[-1]), f"C^{each.exponent:.2f}", GREY, offset=(4, height)
        )
    ax.set(xlabel="operations (log axis)", ylabel="best size, parameters (log axis)")
    ax.set_xlim(ends[0] / 20, ends[-1] * 4)


def draw_forecasts(
    market: Sequence[Mapping[str, Any]],
    curves: Mapping[str, Callable[[np.ndarray], np.ndarray]],
    sealed: Sequence[Mapping[str, Any]],
):
    """What was for sale, the sealed run, and what each law says of the sealed run's size.

    Args:
        market: runs, each with its `n_parameters`, `flops`, `loss` and `floor`.
        curves: words to a function of the tokens: the loss that was foretold.
        sealed: the same run with several seeds.
    """
    size, floor = sealed[0]["n_parameters"], sealed[0]["floor"]
    own = [run for run in market if run["n_parameters"] == size]
    fig, ax = figure(width=7.6, height=4.2)
    for runs, marker, look in (
        ([run for run in market if run not in own], "o", {"color": GREY, "markersize": 4}),
        (own, "s", {"color": INK, "markersize": 7, "zorder": 3}),
        (sealed, "*", {"color": INK, "markersize": 10, "zorder": 3}),
    ):
        points = [(run["flops"], run["loss"] - floor) for run in runs]
        ax.loglog(*zip(*points, strict=True), marker, **look)
    cheapest = min(market, key=lambda run: run["flops"])
    place = cheapest["flops"], cheapest["loss"] - floor
    label(ax, *place, "for sale,\nother sizes", GREY, offset=(-2, -80))
    place = own[0]["flops"], own[0]["loss"] - floor
    label(ax, *place, f"for sale, {size:,} parameters", INK, offset=(10, 5))
    place = sealed[0]["flops"], sealed[0]["loss"] - floor
    label(ax, *place, "sealed run,\nthree seeds", INK, offset=(-12, -8), ha="right")
    flops = np.geomspace(own[0]["flops"], sealed[0]["flops"])
    for (words, curve), colour in zip(curves.items(), COLOURS, strict=False):
        losses = curve(flops / (6 * size)) - floor
        ax.plot(flops, losses, color=colour)
        label(ax, flops[-1], losses[-1], words, colour, offset=(10, 0))
    ax.set(xlabel="operations (log axis)", ylabel="loss above the floor, nats a token (log)")
    ax.set_xlim(None, 40 * sealed[0]["flops"])
    return fig
