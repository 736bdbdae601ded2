"""Pictures of tools: how a call goes, and what it brings.

Chapter: 28
"""

from collections.abc import Mapping, Sequence
from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from minillm.lab.figures import BLUE, COLOURS, GREY, INK, ORANGE, diagram, figure, label
from minillm.reason.pictures import draw_ranges


def draw_call(question: str, call: str, function: str, result: str, answer: str) -> Figure:
    """A call on its way: above who does what, at the bottom the text that grows.

    Args:
        question, call, result, answer: parts of the text, in this order.
        function: that the program runs.

    Example:
        >>> fig = draw_call("What is 3 times 4?", "[ 3 * 4 ]", "calculate", "12 ;", "12 .")
        >>> [text.get_text().splitlines()[-1] for text in fig.axes[0].texts[:5]]
        ['What is 3 times 4?', '[ 3 * 4 ]', 'calculate', '12 ;', '12 .']
        >>> [text.get_text() for text in fig.axes[0].texts[-4:]]
        ['What is 3 times 4?', '[ 3 * 4 ]', '12 ;', '12 .']
    """
    boxes = {
        "question": (0, 1, f"the question\n{question}"),
        "call": (1.5, 1, f"the model writes, and\nis stopped at {call.split()[-1]}\n{call}"),
        "run": (2.3, 0, f"a program runs\n{function}"),
        "result": (3.1, 1, f"spliced in by\nthe program\n{result}"),
        "answer": (4.3, 1, f"the model, again\n{answer}"),
    }
    arrows = [
        ("question", "call"),
        ("call", "run"),
        ("run", "result"),
        ("result", "answer"),
        ("result", "call"),
    ]
    colours = {"call": BLUE, "answer": BLUE, "run": ORANGE, "result": ORANGE}
    fig = diagram(boxes, arrows, width=10.0, height=3.1, colours=colours)
    ax = fig.axes[0]
    ax.set_ylim(-0.5, 1.3)
    ax.text(2.3, 1.08, "or calls again", ha="center", va="bottom", color=GREY)
    # the text, each part behind the one before
    part = ax.text(0.55, -0.45, "the whole text:", color=INK)
    for words, colour in ((question, GREY), (call, BLUE), (result, ORANGE), (answer, BLUE)):
        part = ax.annotate(
            words,
            xy=(1, 0),
            xycoords=part,
            xytext=(8, 0),
            textcoords="offset points",
            va="bottom",
            color=colour,
            weight="bold",
        )
    return fig


def draw_headline(
    calls: Mapping[str, Sequence[Mapping[str, Any]]], rules: Mapping[str, float]
) -> Figure:
    """Two panels: which products are right, and how well a model knows when to call.

    Args:
        calls: as `minillm bench calls` has them: "bare", "masked" and "unmasked" models, a row for
            each seed, with shares from 0 to 1 for combinations of a statement and a question that
            were "seen" in training, and "held out".
        rules: F1 of some simple rules for when to call, in %.

    Example:
        >>> row = {"products": 0.5, "f1": 0.9}
        >>> way = [{"seen": row, "held out": row}]
        >>> fig = draw_headline({"bare": way, "masked": way, "unmasked": way}, {"always": 67})
        >>> [len(ax.patches) for ax in fig.axes]
        [4, 3]
    """

    def shares(way: str, combinations: str, key: str) -> list[float]:
        return [100 * row[combinations][key] for row in calls[way]]

    products = {
        "bare answers": shares("bare", "seen", "products"),
        "result masked": shares("masked", "seen", "products"),
        "masked, new combinations": shares("masked", "held out", "products"),
        "result learned": shares("unmasked", "seen", "products"),
    }
    calling = {rule: [f1] for rule, f1 in rules.items()}
    calling |= {
        "result masked": shares("masked", "seen", "f1"),
        "masked, new combinations": shares("masked", "held out", "f1"),
    }
    fig, (left, right) = figure(width=10.2, height=2.9, columns=2, share_y=False)
    draw_ranges(left, products, "% right", digits=1)
    left.set_title("Products of three-digit numbers")
    draw_ranges(
        right,
        calling,
        "F1, in %: simple rules, and below\nthe models with the result masked",
        digits=1,
    )
    for dot in right.lines[: len(rules)]:  # a rule has no seeds
        dot.remove()
    right.set_title("Knowing when to call")
    for ax in (left, right):
        ax.set(xlim=(0, 122), xticks=range(0, 101, 20))  # room for a number behind 100
    return fig


def draw_clone(rows: Sequence[Mapping[str, Any]], bound: tuple[float, str]) -> Figure:
    """Two panels: how a clone does with more demonstrations, and which of its actions are right.

    Args:
        rows: as `minillm bench browser` has them, one for each seed and number "demos" of
            demonstrations, with shares from 0 to 1: "step_accuracy", "success", and "verbs", a
            share for each action. The right panel has those with the most demonstrations.
        bound: a height that is marked in the left panel, in %, and what it is.

    Example:
        >>> row = {"seed": 0, "demos": 100, "step_accuracy": 0.8, "success": 0.2, "verbs": {}}
        >>> fig = draw_clone([{**row, "verbs": {"scroll": 0.1}}], (38, "bound"))
        >>> [text.get_text() for text in fig.axes[0].texts]
        ['right actions', 'success', 'bound']
    """
    demos = sorted({row["demos"] for row in rows})
    seeds = sorted({row["seed"] for row in rows})
    shares = {(row["seed"], row["demos"]): row for row in rows}
    lines = {
        name: [[100 * shares[seed, n][key] for n in demos] for seed in seeds]
        for name, key in (("right actions", "step_accuracy"), ("success", "success"))
    }
    fig, (left, right) = figure(width=10.4, height=3.4, columns=2, share_y=False)
    draw_lines(left, [f"{n:,}" for n in demos], lines)
    left.axhline(bound[0], color=GREY, lw=1.2, ls="--")
    left.text(0, bound[0] + 2, bound[1], color=GREY, va="bottom")
    left.set_xlim(-0.2, len(demos) - 0.1)
    left.set(xlabel="demonstrations", title="Most actions are right, but few episodes succeed")
    most = [row["verbs"] for row in rows if row["demos"] == demos[-1]]
    verbs = {verb: [100 * each[verb] for each in most] for verb in most[0]}
    draw_ranges(right, verbs, "% of the expert's actions that the clone takes, too")
    right.set(xlim=(0, 122), xticks=range(0, 101, 20), title="Scrolling is usually wrong")
    return fig


def draw_lines(
    ax: Axes,
    x: Sequence[str],
    lines: Mapping[str, Sequence[Sequence[float]]],
    offsets: Mapping[str, tuple[int, int]] | None = None,
) -> None:
    """Percentages against something that grows: a thick line for the mean, points for the seeds.

    Args:
        ax: to draw on.
        x: names of the points on the horizontal axis, evenly spaced.
        lines: of each name, for each seed one value at each point.
        offsets: of a name's label from the end of its line, in points.

    Example:
        >>> fig, ax = figure()
        >>> draw_lines(ax, ["50", "500"], {"clone": [[20, 80], [30, 90]]})
        >>> ax.lines[0].get_ydata().tolist()
        [25.0, 85.0]
    """
    for (name, seeds), colour in zip(lines.items(), COLOURS, strict=False):
        means = [sum(values) / len(values) for values in zip(*seeds, strict=True)]
        ax.plot(range(len(x)), means, "-", color=colour)
        for each in seeds:
            ax.plot(range(len(x)), each, "o", color=colour, markersize=3.5, alpha=0.6)
        label(ax, len(x) - 1, means[-1], name, colour, offset=(offsets or {}).get(name, (10, 0)))
    ax.set_xticks(range(len(x)), x)
    ax.set(xlim=(-0.2, len(x) + 0.3), ylim=(0, 104), ylabel="%")
