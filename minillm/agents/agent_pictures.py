"""Pictures of agents: the loop, success against failures, formulas, items against steps.

Chapter: 29
"""

from collections.abc import Mapping, Sequence
from statistics import fmean

from matplotlib.figure import Figure

from minillm.lab.figures import BLUE, COLOURS, GREY, INK, ORANGE, diagram, figure, label
from minillm.reason.pictures import draw_ranges

NAMED = (*COLOURS, INK, GREY)


def draw_loops() -> Figure:
    """Closed loop and open loop, side by side: in the open one no way leads back.

    Example:
        >>> fig = draw_loops()
        >>> [text.get_text() for text in fig.axes[0].texts[-2:]]
        ['closed loop', 'open loop']
    """
    boxes = {
        "view": (0, 1, "perceive\na view"),
        "policy": (1, 2, "decide\nthe policy"),
        "call": (2, 1, "act\none call"),
        "world": (1, 0, "the world\nchanges"),
        "first view": (3.6, 1, "perceive\nonce"),
        "planner": (4.6, 2, "decide\nthe policy"),
        "plan": (5.6, 1, "act\nall calls of a plan"),
        "other world": (4.6, 0, "the world\nchanges"),
    }
    arrows = [
        ("view", "policy"),
        ("policy", "call"),
        ("call", "world"),
        ("world", "view"),
        ("first view", "planner"),
        ("planner", "plan"),
        ("plan", "other world"),
    ]
    colours = {"policy": BLUE, "planner": BLUE, "call": ORANGE, "plan": ORANGE}
    fig = diagram(boxes, arrows, width=9.6, height=3.6, colours=colours)
    (ax,) = fig.axes
    for x, words in ((1, "closed loop"), (4.6, "open loop")):
        ax.text(x, 1, words, ha="center", va="center", fontweight="bold")
    # the way back that the open loop has not
    ax.plot([4.2, 3.75], [0.32, 0.72], ls=":", color=GREY)
    ax.plot(3.975, 0.52, "x", color=ORANGE, markersize=12, markeredgewidth=3)
    return fig


def draw_success(
    rates: Sequence[float],
    lines: Mapping[str, Sequence[Sequence[float]]],
    expected: Sequence[float],
    title: str,
) -> Figure:
    """Success against how often an action fails: lines are means, points are seeds.

    Args:
        rates: how often an action fails, 0 to 1.
        lines: of each name, for each seed the success at each rate, 0 to 1.
        expected: by arithmetic, at each rate, 0 to 1; drawn dotted.
        title: what the figure says.

    Example:
        >>> lines = {"closed loop": [[1, 1]], "open loop": [[1, 0.3]]}
        >>> fig = draw_success([0, 0.1], lines, [1, 0.31], "Eyes")
        >>> fig.axes[0].lines[0].get_xdata().tolist()
        [0.0, 10.0]
    """
    fig, ax = figure(width=7.2, height=3.4)
    x = [100 * rate for rate in rates]
    for (name, seeds), colour in zip(lines.items(), COLOURS, strict=False):
        means = [100 * fmean(values) for values in zip(*seeds, strict=True)]
        ax.plot(x, means, color=colour)
        for each in seeds:
            ax.plot(x, [100 * y for y in each], "o", color=colour, markersize=3.5, alpha=0.6)
        label(ax, x[-1], means[-1], name, colour, offset=(10, 5))
    ax.plot(x, [100 * y for y in expected], ":", color=GREY)
    label(ax, x[-1], 100 * expected[-1], "arithmetic", GREY, offset=(10, -8))
    ax.set(xticks=x, xlim=(-0.5, 1.25 * x[-1]), ylim=(0, 104))
    ax.set(xlabel="actions that fail, in %", ylabel="errands done, in %")
    ax.set_title(title)
    return fig


def draw_shares(values: Mapping[str, Sequence[float]], unit: str, title: str) -> Figure:
    """A bar for each name, in %: its mean as a number, its seeds as points.

    Args:
        values: of each name, for each seed a share, 0 to 1; the first name stands on top.
        unit: of the axis.
        title: what the figure says.

    Example:
        >>> fig = draw_shares({"sum": [0.3, 0.5], "product": [0.5, 0.6]}, "recall@3 in %", "Two")
        >>> [round(bar.get_width()) for bar in fig.axes[0].patches]
        [40, 55]
    """
    fig, ax = figure(width=7.2, height=0.9 + 0.32 * len(values))
    draw_ranges(ax, {name: [100 * each for each in values[name]] for name in values}, unit)
    ax.set_title(title)
    return fig


def draw_items(
    marks: Sequence[int], panels: Mapping[str, Mapping[str, Sequence[Sequence[int]]]], n_items: int
) -> Figure:
    """Items that were held against steps: a line for the mean of the maps, a band for all maps.

    Args:
        marks: steps at which items were counted.
        panels: of each title, of each name the items at each mark, for each map; at most six
            names in all.
        n_items: that there are.

    Raises:
        ValueError: more names than colours.

    Example:
        >>> panels = {"library": {"with": [[7, 20], [7, 18]], "without": [[7, 7], [5, 7]]}}
        >>> draw_items([50, 150], panels, 20).axes[0].lines[1].get_ydata().tolist()
        [7.0, 19.0]
    """
    fig, axes = figure(width=9.6, height=3.8, columns=len(panels))
    axes = [axes] if len(panels) == 1 else axes
    # one name has one colour in all panels, and no two names share one
    names = dict.fromkeys(name for arms in panels.values() for name in arms)
    if len(names) > len(NAMED):
        raise ValueError(f"there are colours for {len(NAMED)} names; got {len(names)}")
    colours = dict(zip(names, NAMED, strict=False))
    for ax, (title, arms) in zip(axes, panels.items(), strict=True):
        ax.axhline(n_items, color=GREY, lw=0.8, ls=":")
        means = {name: [fmean(each) for each in zip(*arms[name], strict=True)] for name in arms}
        for name, maps in arms.items():
            colour = colours[name]
            columns = [*zip(*maps, strict=True)]
            ax.plot(marks, means[name], color=colour)
            lows, highs = map(min, columns), map(max, columns)
            ax.fill_between(marks, [*lows], [*highs], color=colour, alpha=0.15, lw=0)
            # the name stands where the line is farthest from the others: the highest above it
            others = [means[other] for other in arms if other != name]
            at = max(
                range(len(marks)),
                key=lambda i: min((abs(y[i] - means[name][i]) for y in others), default=0),
            )
            is_top = all(means[name][at] >= y[at] for y in others)
            y = max(means[name]) if is_top else means[name][at]
            label(ax, marks[at], y, name, colour, offset=(4, 9 if is_top else -10))
        ax.set(xlabel="steps in the world", ylim=(0, 1.12 * n_items))
        ax.set_yticks(range(0, n_items + 1, 5))
        ax.set_title(title)
    axes[0].set_ylabel(f"items held, of {n_items}")
    return fig
