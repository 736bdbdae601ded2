"""Pictures of a sharded model: who holds what, who does what when, and which plans fit.

Chapter: 16
"""

from collections.abc import Sequence

from matplotlib.axes import Axes
from matplotlib.patches import Rectangle

from minillm.lab.figures import BLUE, GREEN, GREY, INK, ORANGE, PURPLE, label
from minillm.parallel.plan import ThreeD
from minillm.parallel.schedule import Timeline

FORWARD, BACKWARD = BLUE, "#F0E442"  # one dark, one light: told apart in grey, too


def draw_timeline(ax: Axes, timeline: Timeline, *, until: float | None = None) -> None:
    """A row for each stage, a block for each pass with its micro-batch's number; idle is white.

    Forward passes are blue with white numbers, backward passes yellow with black ones.

    Args:
        ax: to draw on.
        timeline: simulated or measured; its first start is 0 on the axis.
        until: where the axis ends, in seconds, to compare several; None for the timeline's end.

    Example:
        >>> from minillm.lab.figures import figure
        >>> from minillm.parallel.schedule import gpipe, simulate
        >>> fig, ax = figure()
        >>> draw_timeline(ax, simulate([gpipe(stage, 2, n_micro=1) for stage in range(2)]))
        >>> [text.get_text() for text in ax.texts]
        ['0', '0', '0', '0', 'forward', 'backward', 'idle']
    """
    begin = min(event.start for event in timeline.events)
    end = timeline.seconds if until is None else until
    for stage in range(timeline.n_stages):  # what no block covers is idle
        ax.add_patch(Rectangle((0, -stage - 0.4), end, 0.8, fc="white", ec=GREY, lw=0.8))
    for stage, action, start, finish in timeline.events:
        fill, ink = (FORWARD, "white") if action.kind == "forward" else (BACKWARD, INK)
        x, length = start - begin, finish - start
        ax.add_patch(Rectangle((x, -stage - 0.4), length, 0.8, fc=fill, ec=INK, lw=0.8))
        words = {"ha": "center", "va": "center", "color": ink, "fontsize": 9}
        ax.text(x + length / 2, -stage, str(action.micro_batch), clip_on=True, **words)
    for place, (name, fill) in enumerate(
        (("forward", FORWARD), ("backward", BACKWARD), ("idle", "white"))
    ):
        x = end * (0.02 + 0.25 * place)
        ax.add_patch(Rectangle((x, 0.62), 0.03 * end, 0.25, fc=fill, ec=INK, lw=0.8))
        label(ax, x + 0.03 * end, 0.745, name, INK, fontsize=9)
    ax.set(xlim=(0, end), ylim=(-timeline.n_stages + 0.5, 1.0), xlabel="seconds")
    ax.set_yticks(
        [-n for n in range(timeline.n_stages)], [f"stage {n}" for n in range(timeline.n_stages)]
    )


RANKS = (BLUE, ORANGE, GREEN, PURPLE)


def _box(ax: Axes, x: float, y: float, size: tuple[float, float], rank: int, words: str) -> None:
    ax.add_patch(Rectangle((x, y), *size, fc=RANKS[rank], ec="white", lw=1.5))
    ax.text(x + size[0] / 2, y + size[1] / 2, words, ha="center", va="center", color="white")


def draw_cuts(axes: Sequence[Axes]) -> None:
    """Three ways to share a model of four layers among four ranks; each number is a rank's.

    Args:
        axes: three.

    Example:
        >>> from minillm.lab.figures import figure
        >>> fig, axes = figure(columns=3)
        >>> draw_cuts(axes)
        >>> [ax.get_title() for ax in axes][2]
        'by depth: pipeline'
    """
    titles = ("by rows: data (ch. 15)", "inside each layer: tensor", "by depth: pipeline")
    for ax, title in zip(axes, titles, strict=True):
        ax.set(xlim=(-0.2, 4.2), ylim=(-2.1, 4.9), title=title)
        ax.axis("off")
    for layer in range(4):
        for rank in range(4):
            _box(axes[0], rank + 0.05, layer, (0.9, 0.9), rank, str(rank))
            _box(axes[1], rank, layer, (1, 0.9), rank, str(rank))
        _box(axes[2], 0, layer, (4, 0.9), layer, str(layer))
    for place, ax in enumerate(axes):  # the rows of the batch, and who reads them
        for row in range(4):
            fill = RANKS[row] if place == 0 else "white"
            ax.add_patch(Rectangle((row + 0.05, -1.0), 0.9, 0.35, fc=fill, ec=INK, lw=0.8))
        words = ("each reads a quarter", "all read all rows", "rank 0 reads, then passes on")
        ax.text(2, -1.6, words[place], ha="center", va="center", fontsize=9.5)
        ax.annotate("", (2, -0.05), (2, -0.6), arrowprops={"arrowstyle": "-|>", "color": INK})
    axes[0].text(-0.1, 4.4, "four copies", fontsize=9.5)
    axes[1].text(-0.1, 4.4, "one model, four layers high", fontsize=9.5)


def draw_column_row(ax: Axes) -> None:
    """Two ranks in one feed-forward part: what each one multiplies by, and the only message.

    Args:
        ax: to draw on.

    Example:
        >>> from minillm.lab.figures import figure
        >>> fig, ax = figure()
        >>> draw_column_row(ax)
        >>> [text.get_text() for text in ax.texts if "rank" in text.get_text()]
        ['rank 0', 'rank 1']
    """
    ax.set(xlim=(-0.9, 10.9), ylim=(-0.6, 4.7), aspect="equal")
    ax.axis("off")
    arrow = {"arrowstyle": "-|>", "color": INK, "lw": 1.3}

    def words(x: float, y: float, text: str, **options: object) -> None:
        ax.text(x, y, text, **({"ha": "center", "va": "center"} | options))

    for rank, y in enumerate((2.5, 0.0)):
        words(-0.4, y + 0.8, f"rank {rank}", color=RANKS[rank], fontweight="bold")
        words(0.75, y + 0.8, "x")
        # W_up [F, D]: its own half of the rows; W_down [D, F]: its own half of the columns
        ax.add_patch(Rectangle((1.6, y), 1.2, 1.6, fc="white", ec=GREY))
        _box(ax, 1.6, y + 0.8 * (1 - rank), (1.2, 0.8), rank, "")
        words(4.1, y + 0.8, "φ")
        ax.add_patch(Rectangle((5.2, y + 0.2), 1.6, 1.2, fc="white", ec=GREY))
        _box(ax, 5.2 + 0.8 * rank, y + 0.2, (0.8, 1.2), rank, "")
        words(7.9, y + 0.8, "part\nof y", fontsize=10)
        for start, end in ((1.0, 1.5), (2.9, 3.8), (4.4, 5.1), (6.9, 7.4)):
            ax.annotate("", (end, y + 0.8), (start, y + 0.8), arrowprops=arrow)
        ax.annotate("", (9.1, 2.05 + 0.25 * (1 - 2 * rank)), (8.4, y + 0.8), arrowprops=arrow)
    words(2.2, 4.4, "W_up, by outputs")
    words(6.0, 4.4, "W_down, by inputs")
    words(9.35, 2.05, "+", fontsize=18, fontweight="bold")
    words(10.4, 2.05, "= y")
    words(9.5, 0.9, "all-reduce", fontsize=10)


def draw_plans(ax: Axes, plans: Sequence[ThreeD], days: float, limit_bytes: float) -> None:
    """Every plan's memory and time; those right of the line do not fit.

    Args:
        ax: to draw on.
        plans: from `minillm.parallel.plan.estimate`.
        days: of a whole run, for each second of a step.
        limit_bytes: of a card.
    """
    for recompute, colour, marker in ((False, GREY, "x"), (True, BLUE, "o")):
        own = [plan for plan in plans if plan.recompute == recompute]
        n_gb = [plan.n_bytes / 1e9 for plan in own]
        ax.plot(n_gb, [plan.seconds * days for plan in own], marker, color=colour, ms=4)
    best = min(plan for plan in plans if plan.n_bytes <= limit_bytes)
    ax.axvline(limit_bytes / 1e9, color=INK, lw=1.2)
    label(ax, limit_bytes / 1e9, 1.5e4, f"{limit_bytes / 1e9:.0f} GB: a card", INK, offset=(4, 0))
    label(ax, 150, 5000, "recompute", BLUE, ha="right")
    label(ax, 600, 260, "keep all activations", GREY)
    x, y = best.n_bytes / 1e9, best.seconds * days
    ax.plot([x], [y], "*", color=ORANGE, ms=17)
    label(ax, x, y, f"best that fits:\n{y:.0f} days", ORANGE, offset=(-10, -16), ha="right")
    ax.set(xscale="log", yscale="log", xlim=(10, 2e4), ylim=(200, 3e4))
    ax.set(xlabel="GB that a rank holds, log axis", ylabel="days for 300 billion tokens, log axis")


def draw_ring_attention(ax: Axes, n_ranks: int) -> None:
    """Which block of keys a rank's queries meet at which step of the ring; grey is never looked at.

    Args:
        ax: to draw on.
        n_ranks: P.

    Example:
        >>> from minillm.lab.figures import figure
        >>> fig, ax = figure()
        >>> draw_ring_attention(ax, 2)
        >>> [text.get_text() for text in ax.texts]
        ['0', '', '1', '0']
    """
    for rank in range(n_ranks):
        for block in range(n_ranks):
            seen = block <= rank
            corner = (block, n_ranks - 1 - rank)
            fill = RANKS[(rank - block) % len(RANKS)] if seen else "#DDDDDD"
            ax.add_patch(Rectangle(corner, 1, 1, fc=fill, ec="white", lw=2))
            step = str(rank - block) if seen else ""
            place = {"ha": "center", "va": "center", "color": "white", "fontsize": 13}
            ax.text(corner[0] + 0.5, corner[1] + 0.5, step, **place)
    ticks = [n + 0.5 for n in range(n_ranks)]
    ax.set(xlim=(0, n_ranks), ylim=(0, n_ranks), aspect="equal")
    ax.set_xticks(ticks, [f"keys {n}" for n in range(n_ranks)])
    ax.set_yticks(ticks, [f"rank {n_ranks - 1 - n}" for n in range(n_ranks)])
    for side in ("left", "bottom"):
        ax.spines[side].set_visible(False)
    ax.tick_params(length=0)
