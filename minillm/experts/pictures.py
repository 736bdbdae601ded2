"""Pictures of a mixture of experts: the layer, tokens sorted by expert, and what came of training.

Chapter: 10
"""

from collections.abc import Mapping, Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import FancyArrowPatch, Rectangle

from minillm.lab.figures import BLUE, COLOURS, GREY, INK, ORANGE, diagram, label


def draw_layer(axes: Sequence[Axes], probabilities: Sequence[float], top_k: int) -> None:
    """A dense FFN on the left axes; on the right one a router and the experts that it chooses.

    Args:
        axes: two.
        probabilities: of the router, one an expert, the lowest box first.
        top_k: how many are chosen.

    Example:
        >>> from minillm.lab.figures import figure
        >>> fig, axes = figure(columns=2)
        >>> draw_layer(axes, [0.1, 0.3, 0.6], top_k=2)
        >>> [text.get_text() for text in axes[1].texts if "expert" in text.get_text()]
        ['expert 0, p = 0.1', 'expert 1, p = 0.3', 'expert 2, p = 0.6']
    """
    for ax, title in zip(
        axes, ("A dense block: one FFN", "A sparse block: its own router and experts"), strict=True
    ):
        ax.set(xlim=(0, 10), ylim=(-0.6, 6.2), title=title)
        ax.axis("off")
    dense, sparse = axes
    _box(dense, 0.2, 2.4, 1.2, "x", INK)
    _box(dense, 3.6, 2.4, 2.8, "FFN", BLUE)
    _box(dense, 8.4, 2.4, 1.2, "y", INK)
    _arrow(dense, (1.4, 2.9), (3.6, 2.9), BLUE)
    _arrow(dense, (6.4, 2.9), (8.4, 2.9), BLUE)

    _box(sparse, 0.1, 2.4, 0.8, "x", INK)
    _box(sparse, 1.6, 2.4, 1.6, "router", INK)
    _arrow(sparse, (0.9, 2.9), (1.6, 2.9), INK)
    _box(sparse, 9.1, 2.4, 0.8, "y", INK)
    chosen = set(np.argsort(probabilities)[-top_k:].tolist())
    total = sum(probabilities[e] for e in chosen)
    heights = np.linspace(0.0, 4.8, len(probabilities))
    for e, (p, y) in enumerate(zip(probabilities, heights, strict=True)):
        colour = BLUE if e in chosen else GREY
        _box(sparse, 4.4, y, 3.4, f"expert {e}, p = {p:.1f}", colour, dashed=e not in chosen)
        _arrow(sparse, (3.2, 2.9), (4.4, y + 0.5), colour, dashed=e not in chosen)
        words = {"ha": "left", "va": "top", "color": colour, "fontsize": 9}
        if e in chosen:
            _arrow(sparse, (7.8, y + 0.5), (9.1, 2.9), colour)
            level = abs(y - 2.4) < 0.1  # an arrow that falls or rises would cross the text
            sparse.text(7.9 if level else 8.6, y + 0.4, f"× {p / total:.2f}", **words)
        else:
            sparse.text(7.9, y + 0.7, "not called", **words)


def draw_sorting(ax: Axes, experts: Sequence[int]) -> None:
    """Tokens as they stand in the text, and below them sorted by expert, one slice an expert.

    Args:
        ax: to draw on.
        experts: of each token, which one it is routed to; at most four different ones.

    Example:
        >>> from minillm.lab.figures import figure
        >>> fig, ax = figure()
        >>> draw_sorting(ax, [1, 0, 1])
        >>> [text.get_text() for text in ax.texts]  # doctest: +NORMALIZE_WHITESPACE
        ['token 0 → 1', 'token 1 → 0', 'token 2 → 1', 'token 1', 'token 0', 'token 2',
        'expert 0: one multiplication', 'expert 1: one multiplication']
    """
    ax.set(xlim=(-0.2, 1.5 * len(experts) + 0.8), ylim=(-0.4, 4.4))
    ax.axis("off")
    length, shift = 1.2, {e: 0.5 * rank for rank, e in enumerate(sorted(set(experts)))}
    start = 0.5 * max(shift.values())  # the upper row stands above the middle of the lower one
    for token, e in enumerate(experts):
        _box(ax, start + 1.5 * token, 3.2, length, f"token {token} → {e}", COLOURS[e])
    slices: dict[int, list[float]] = {e: [] for e in shift}
    for place, token in enumerate(np.argsort(experts, kind="stable").tolist()):
        e = experts[token]
        x = 1.5 * place + shift[e]
        slices[e].append(x)
        _box(ax, x, 1.0, length, f"token {token}", COLOURS[e])
        _arrow(ax, (start + 1.5 * token + length / 2, 3.2), (x + length / 2, 2.0), COLOURS[e])
    for e, lefts in slices.items():
        left, right = lefts[0], lefts[-1] + length
        ax.plot([left, right], [0.7, 0.7], color=COLOURS[e], lw=3)
        words = {"ha": "center", "va": "top", "color": COLOURS[e], "fontsize": 9}
        ax.text((left + right) / 2, 0.5, f"expert {e}: one multiplication", **words)


def cut_out(domain: int, n_experts: int) -> Figure:
    """What stays of a model in which a table gives each domain its own expert: all that is blue.

    Args:
        domain: whose model is cut out.
        n_experts: one a domain.

    Example:
        >>> [text.get_text() for text in cut_out(1, 2).axes[0].texts if text.get_alpha() == 0.4]
        ['expert\\n0']
    """
    boxes: dict[str, tuple[float, float, str]] = {
        "x": (domain, 2, f"district {domain}'s tokens; embedding, attention: shared")
    }
    boxes |= {f"{e}": (e, 1, f"expert\n{e}") for e in range(n_experts)}
    boxes["y"] = (domain, 0, "the next block, or the output: shared")
    mine = f"{domain}"
    colours = dict.fromkeys(("x", mine, "y"), BLUE)
    fig = diagram(boxes, [("x", mine), (mine, "y")], colours=colours)
    for text in fig.axes[0].texts:
        others = text.get_text().startswith("expert") and text.get_text() != f"expert\n{domain}"
        text.set_alpha(0.4 if others else 1)
    fig.suptitle(
        f"Cut out for district {domain}: all that is blue, in both blocks", fontweight="bold"
    )
    return fig


def draw_shares(ax: Axes, shares: np.ndarray) -> None:
    """A table of districts and experts, coloured by share, with the percentages in it.

    Args:
        ax: to draw on.
        shares: [districts, experts] of a district's tokens, the share that each expert got.
    """
    ax.imshow(100 * shares, cmap="Blues", vmin=0, vmax=100, aspect="auto")
    for (row, column), share in np.ndenumerate(shares):
        if share >= 0.1:
            colour = "white" if share > 0.5 else "black"
            words = {"ha": "center", "va": "center", "fontsize": 8, "color": colour}
            ax.text(column, row, f"{100 * share:.0f}", **words)
    n_districts, n_experts = shares.shape
    ax.set(xlabel="expert", ylabel="district", xticks=range(n_experts), yticks=range(n_districts))


def draw_learning(ax: Axes, curves: Mapping[str, Sequence[Sequence[float]]], every: int) -> None:
    """Loss against steps, mean and range of the seeds; a dashed line at the mean of the first ends.

    Args:
        ax: to draw on.
        curves: by name (a number is a number of experts), of each seed the losses; at most three.
        every: so many steps lie between two losses.

    Example:
        >>> from minillm.lab.figures import figure
        >>> fig, ax = figure()
        >>> draw_learning(ax, {"dense": [[3.0, 2.0]], "8": [[2.0, 1.0]]}, every=20)
        >>> [text.get_text() for text in ax.texts]
        ['dense', '8 experts', "dense's mean end;\\na seed has its own"]
    """
    for (name, seeds), colour, up in zip(
        curves.items(), (GREY, BLUE, ORANGE), (8, 1, -8), strict=False
    ):
        losses = np.array(seeds)
        steps = every * np.arange(1, losses.shape[1] + 1)
        ax.plot(steps, losses.mean(axis=0), color=colour)
        low, high = losses.min(axis=0), losses.max(axis=0)
        ax.fill_between(steps, low, high, color=colour, alpha=0.2, lw=0)
        words = f"{name} experts" if name.isdigit() else name
        label(ax, steps[-1], losses[:, -1].mean(), words, colour, offset=(6, up))
    first, seeds = next(iter(curves.items()))
    goal = np.mean(seeds, axis=0)[-1]
    ax.axhline(goal, color=GREY, lw=1, ls="--")
    words = f"{first}'s mean end;\na seed has its own"
    label(ax, 10, goal, words, GREY, offset=(0, -4), va="top")


def draw_speed(
    ax: Axes, needs: Mapping[str, Mapping[int, Sequence[float]]], claimed: tuple[float, float]
) -> None:
    """How many times as fast as dense, against the number of experts; a band for the claim.

    A line is 1 ÷ the mean of the seeds' needs, and a small dot one seed.

    Args:
        ax: to draw on.
        needs: by name, for each number of experts what each seed needed, where dense needs 1; two
            names, the upper line first.
        claimed: from and to.

    Example:
        >>> from minillm.lab.figures import figure
        >>> fig, ax = figure()
        >>> draw_speed(ax, {"in steps": {8: [0.6, 0.8]}, "by the clock": {8: [0.9, 1.1]}}, (4, 7))
        >>> [text.get_text() for text in ax.texts]
        ['in steps', 'by the clock', 'what was said']
    """
    low, high = claimed
    ax.axhspan(low, high, color=GREY, alpha=0.25, lw=0)
    ax.axhline(1, color=GREY, lw=1)
    counts: list[int] = []
    for (name, parts), colour, up in zip(needs.items(), (BLUE, ORANGE), (20, -20), strict=True):
        counts = list(parts)
        factors = {n: 1 / np.mean(seeds) for n, seeds in parts.items()}
        ax.loglog(counts, list(factors.values()), "-", color=colour)
        for n, seeds in parts.items():
            ax.plot([n] * len(seeds), 1 / np.array(seeds), "o", color=colour, ms=4)
        middle = counts[len(counts) // 2]
        label(ax, middle, factors[middle], name, colour, offset=(0, up), ha="center")
    label(ax, counts[0], (low * high) ** 0.5, "what was said", GREY, offset=(0, 0))
    ax.set(
        xlabel="experts (log axis); a dot: one seed",
        ylabel="times as fast as dense (log axis)",
        ylim=(0.3, 8),
    )
    ax.set_xticks(counts, counts)
    ax.set_yticks((0.5, 1, 2, 4, 7), (0.5, 1, 2, 4, 7))
    ax.minorticks_off()


def draw_busiest(
    ax: Axes, shares: Mapping[str, Sequence[float]], n_experts: int, notes: Sequence[str] = ()
) -> None:
    """The busiest expert's share of the tokens, a bar a seed; a dashed line for even use.

    Args:
        ax: to draw on.
        shares: by name, of each seed the largest share.
        n_experts: among so many.
        notes: what is written to the right of the bars, one a name; none by default.

    Example:
        >>> from minillm.lab.figures import figure
        >>> fig, ax = figure()
        >>> draw_busiest(ax, {"losses": [0.2, 0.3], "bias": [0.15, 0.15]}, n_experts=8)
        >>> [text.get_text() for text in ax.texts], [round(bar.get_width()) for bar in ax.patches]
        (['even: 12.5 %'], [20, 30, 15, 15])
    """
    for row, (seeds, colour) in enumerate(zip(shares.values(), COLOURS, strict=False)):
        y = -row + 0.26 * (0.5 * (len(seeds) - 1) - np.arange(len(seeds)))
        ax.barh(y, [100 * share for share in seeds], 0.2, color=colour)
    right = 100 * max(max(seeds) for seeds in shares.values())
    for row, (note, colour) in enumerate(zip(notes, COLOURS, strict=False)):
        label(ax, right, -row, note, colour, fontsize=9)
    if notes:
        ax.set_xlim(0, 2 * right)
    ax.axvline(100 / n_experts, color=INK, lw=1, ls="--")
    label(ax, 100 / n_experts, 0.55, f"even: {100 / n_experts:.1f} %", INK, fontsize=9)
    ax.set_yticks([-row for row in range(len(shares))], list(shares))
    ax.set(ylim=(0.45 - len(shares), 0.75), xlabel="% of the tokens for the busiest expert")


def draw_ends(ax: Axes, curves: Mapping[str, Sequence[Sequence[float]]]) -> None:
    """Where runs end, a row a name and a dot a seed; a dashed line at the mean of the first name.

    Args:
        ax: to draw on.
        curves: by name, of each seed the losses; names that begin with "upcycled" are orange.

    Example:
        >>> from minillm.lab.figures import figure
        >>> fig, ax = figure()
        >>> draw_ends(ax, {"dense · 500": [[3.0, 2.0]], "upcycled": [[3.0, 1.5]]})
        >>> [text.get_text() for text in ax.texts]
        ['mean of dense']
    """
    for row, (name, seeds) in enumerate(curves.items()):
        ends = [losses[-1] for losses in seeds]
        colour = GREY if row == 0 else ORANGE if name.startswith("upcycled") else BLUE
        ax.plot(ends, [-row] * len(ends), "o", color=colour)
        if row == 0:
            ax.axvline(np.mean(ends), color=GREY, lw=1, ls="--")
            words = f"mean of {name.split(' ·')[0]}"
            label(ax, np.mean(ends), -len(curves) + 0.6, words, GREY, offset=(4, 0))
    ax.set_yticks([-row for row in range(len(curves))], list(curves))
    ax.set_ylim(-len(curves) + 0.3, 0.5)


def _box(ax: Axes, x: float, y: float, length: float, text: str, colour: str, dashed: bool = False):
    style = {"ls": "--" if dashed else "-", "lw": 1 if dashed else 2}
    ax.add_patch(Rectangle((x, y), length, 1.0, fc="white", ec=colour, **style))
    ax.text(x + length / 2, y + 0.5, text, ha="center", va="center", color=colour, fontsize=9)


def _arrow(ax: Axes, start: tuple, end: tuple, colour: str, dashed: bool = False) -> None:
    style = {"ls": "--" if dashed else "-", "lw": 1 if dashed else 1.6}
    ax.add_patch(
        FancyArrowPatch(start, end, arrowstyle="-|>", mutation_scale=10, color=colour, **style)
    )
