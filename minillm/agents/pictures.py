"""Pictures of tools: how a call goes, and what it brings.

Chapter: 28
"""

from collections.abc import Mapping, Sequence

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from minillm.lab.figures import BLUE, COLOURS, GREY, ORANGE, diagram, figure, label
from minillm.reason.pictures import draw_ranges


def draw_call(question: str, call: str, function: str, result: str, answer: str) -> Figure:
    """A call on its way: above what stands in the text, below what a program does.

    Args:
        question, call, result, answer: parts of the text, in this order.
        function: that the program runs.

    Example:
        >>> fig = draw_call("What is 3 times 4?", "[ 3 * 4 ]", "calculate", "12 ;", "12 .")
        >>> [text.get_text().splitlines()[-1] for text in fig.axes[0].texts[:5]]
        ['What is 3 times 4?', '[ 3 * 4 ]', 'calculate', '12 ;', '12 .']
    """
    boxes = {
        "question": (0, 1, f"the question\n{question}"),
        "call": (1.5, 1, f"the model writes, and\nis stopped at the end\n{call}"),
        "run": (2.3, 0, f"a program runs\n{function}"),
        "result": (3.1, 1, f"spliced in by\nthe program\n{result}"),
        "answer": (4.3, 1, f"the model\nwrites on\n{answer}"),
    }
    arrows = [
        ("question", "call"),
        ("call", "run"),
        ("run", "result"),
        ("result", "answer"),
        ("result", "call"),
    ]
    colours = {"call": BLUE, "answer": BLUE, "run": ORANGE, "result": ORANGE}
    fig = diagram(boxes, arrows, width=10.0, height=2.9, colours=colours)
    fig.axes[0].text(2.3, 1.08, "or calls again", ha="center", va="bottom", color=GREY)
    return fig


def draw_headline(
    products: Mapping[str, Sequence[float]], calling: Mapping[str, Sequence[float]]
) -> Figure:
    """Two panels: which products are right, and how well a model knows when to call.

    Args:
        products: % right of each way to answer, for each seed.
        calling: F1 of each way to decide, 0 to 100, for each seed.

    Example:
        >>> fig = draw_headline({"bare": [1, 2], "calls": [99, 98]}, {"always": [67]})
        >>> [len(ax.patches) for ax in fig.axes]
        [2, 1]
    """
    fig, (left, right) = figure(width=9.6, height=2.9, columns=2, share_y=False)
    draw_ranges(left, products, "% right", digits=1)
    left.set_title("Products of three-digit numbers")
    draw_ranges(right, calling, "F1, in %", digits=1)
    right.set_title("Knowing when to call")
    for ax in (left, right):
        ax.set(xlim=(0, 122), xticks=range(0, 101, 20))  # room for a number behind 100
    return fig


def draw_clone(
    demos: Sequence[int],
    lines: Mapping[str, Sequence[Sequence[float]]],
    verbs: Mapping[str, Sequence[float]],
    bound: tuple[float, str],
) -> Figure:
    """Two panels: how a clone does with more demonstrations, and which of its actions are right.

    Args:
        demos: numbers of demonstrations.
        lines: of each measure, for each seed one % at each number of demonstrations.
        verbs: of each action, % right for each seed.
        bound: a height that is marked in the left panel, in %, and what it is.

    Example:
        >>> lines = {"success": [[10, 20], [12, 24]]}
        >>> fig = draw_clone([100, 500], lines, {"scroll": [3, 5]}, (38, "bound"))
        >>> [text.get_text() for text in fig.axes[0].texts]
        ['success', 'bound']
    """
    fig, (left, right) = figure(width=10.4, height=3.4, columns=2, share_y=False)
    draw_lines(left, [f"{n:,}" for n in demos], lines)
    left.axhline(bound[0], color=GREY, lw=1.2, ls="--")
    left.text(0, bound[0] + 2, bound[1], color=GREY, va="bottom")
    left.set_xlim(-0.2, len(demos) - 0.1)
    left.set(xlabel="demonstrations", title="Most actions are right, but few episodes succeed")
    draw_ranges(right, verbs, "% of the expert's actions that the clone takes, too")
    right.set(xlim=(0, 122), xticks=range(0, 101, 20), title="One of the five actions fails")
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
    ax.axhline(100, color=GREY, lw=0.8, ls=":")
    ax.set_xticks(range(len(x)), x)
    ax.set(xlim=(-0.2, len(x) + 0.3), ylim=(0, 104), ylabel="%")
