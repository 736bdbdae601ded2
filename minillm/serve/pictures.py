"""Pictures of serving: a request, slots, blocks; where prefill and decode apart pay.

Chapter: 17
"""

import math
from collections.abc import Mapping, Sequence

from matplotlib.axes import Axes
from matplotlib.colors import to_rgb
from matplotlib.patches import Rectangle

from minillm.lab.figures import BLUE, GREEN, GREY, INK, ORANGE, label


def draw_map(
    ax: Axes,
    ratios: Mapping[tuple[float, float], float | None],
    *,
    claim: float = 2.0,
    rows: str = "prompt, tokens",
    columns: str = "answer, tokens",
) -> None:
    """A heat map: the larger a ratio the darker its cell; those that reach a claim are framed.

    White is a ratio of 1 or less; each doubling is as much darker as the one before, up to 4.

    Args:
        ax: to draw on.
        ratios: by row and column, such as a prompt's and an answer's length; None where there is
            none. Rows are drawn upwards, columns to the right, both in order.
        claim: from which ratio on a cell is framed.
        rows, columns: what the axes are called.

    Raises:
        ValueError: no cell.

    Example:
        >>> from minillm.lab.figures import figure
        >>> fig, ax = figure()
        >>> draw_map(ax, {(128, 16): 2.29, (128, 64): 0.97, (512, 16): None})
        >>> [text.get_text() for text in ax.texts]
        ['2.29×', '0.97×', '–']
    """
    if not ratios:
        raise ValueError("a map has at least one cell, ratios[row, column]; got none")
    ys, xs = (sorted({place[axis] for place in ratios}) for axis in (0, 1))
    ink = {"ha": "center", "va": "center"}
    for (row, column), ratio in ratios.items():
        x, y = xs.index(column), ys.index(row)
        shade = 0.0 if not ratio else min(max(math.log2(ratio) / 2, 0.0), 1.0)
        fill = tuple(1 - shade * (1 - part) for part in to_rgb(BLUE))
        ax.add_patch(Rectangle((x, y), 1, 1, fc=fill, ec="#BBBBBB", lw=0.8))
        if ratio and ratio >= claim:
            frame = {"fill": False, "ec": ORANGE, "lw": 2.5, "zorder": 3}
            ax.add_patch(Rectangle((x + 0.04, y + 0.04), 0.92, 0.92, **frame))
        words = f"{ratio:.2f}×" if ratio is not None else "–"
        ax.text(x + 0.5, y + 0.5, words, color="white" if shade > 0.65 else INK, **ink)
    ax.set(xlim=(0, len(xs)), ylim=(0, len(ys)), ylabel=rows)
    ax.set_xlabel(f"{columns} (framed: {claim:g}× or more)")
    ax.set_xticks([x + 0.5 for x in range(len(xs))], [f"{x:g}" for x in xs])
    ax.set_yticks([y + 0.5 for y in range(len(ys))], [f"{y:g}" for y in ys])
    ax.tick_params(length=0)
    for side in ("left", "bottom"):
        ax.spines[side].set_visible(False)


# --- a request, slots, blocks ---------------------------------------------------------------------
LIGHT = "#BFD9EA"


def _words(ax: Axes, x: float, y: float, text: str, **options: object) -> None:
    ax.text(x, y, text, **({"ha": "center", "va": "center", "fontsize": 10} | options))


def draw_request(ax: Axes) -> None:
    """A request's life: one pass over its prompt, then a pass for each token; the cache grows.

    Args:
        ax: to draw on.

    Example:
        >>> from minillm.lab.figures import figure
        >>> fig, ax = figure()
        >>> draw_request(ax)
        >>> [text.get_text() for text in ax.texts][:2]
        ['Mei', 'sells']
    """
    ax.set(xlim=(-2.4, 10.6), ylim=(-1.3, 4.2))
    ax.axis("off")
    passes, answer = (("Mei", "sells"), ("red",), ("plums",)), ("red", "plums", ".")
    x, n_kept = 0.0, 0
    for place, (read, out) in enumerate(zip(passes, answer, strict=True)):
        width, fill = (4.0, BLUE) if place == 0 else (2.2, ORANGE)
        # 1. what is read, the pass, and what comes out
        for n, word in enumerate(read):
            _words(ax, x + width * (n + 0.5) / len(read), 3.9, word)
        ax.add_patch(Rectangle((x + 0.1, 2.1), width - 0.2, 1.3, fc=fill, ec=INK))
        _words(ax, x + width / 2, 2.75, "all weights", color="white")
        _words(ax, x + width - 0.45, 1.65, out, color=GREEN, fontweight="bold")
        # 2. the cache after it
        n_kept += len(read)
        for n in range(n_kept):
            colour = fill if n >= n_kept - len(read) else LIGHT
            box = Rectangle((x + 0.3, -0.3 + 0.4 * n), 0.9, 0.34, fc=colour, ec=INK, lw=0.8)
            ax.add_patch(box)
        x += width + 0.1
    for y, text in ((3.9, "read"), (2.75, "one pass"), (1.65, "written"), (0.3, "cache")):
        _words(ax, -0.3, y, text, ha="right", color=GREY)
    _words(ax, 2.0, -1.0, "prefill: many tokens", color=BLUE, fontweight="bold")
    _words(ax, 6.3, -1.0, "decode: one token a pass", color=ORANGE, fontweight="bold")
    _words(ax, 9.1, 2.75, "…", fontsize=16)


def draw_slots(
    ax: Axes, runs: Mapping[str, Sequence[Sequence[tuple[int, int, int]]]], n_slots: int
) -> None:
    """Runs one above the other: a row for each slot, a bar from a request's first step to its last.

    Args:
        ax: to draw on.
        runs: by name; of each step the engine's `last_step`: (request, slot, tokens read).
        n_slots: rows of a run.

    Example:
        >>> from minillm.lab.figures import figure
        >>> fig, ax = figure()
        >>> draw_slots(ax, {"a": [[(0, 0, 5), (1, 1, 3)], [(0, 0, 1)], [(0, 0, 1)]]}, n_slots=2)
        >>> [int(bar.get_width()) for bar in ax.patches]
        [3, 1]
    """
    middles, height = [], n_slots + 1.5
    for place, steps in enumerate(runs.values()):
        spans: dict[tuple[int, int], list[int]] = {}
        for step, entries in enumerate(steps):
            for number, slot, _ in entries:
                spans.setdefault((number, slot), [step, step])[1] = step + 1
        for (number, slot), (start, end) in spans.items():
            fill, y = (BLUE, ORANGE, GREEN)[number % 3], -slot - height * place
            box = Rectangle((start, y - 0.42), end - start, 0.84, fc=fill, ec="white", lw=0.4)
            ax.add_patch(box)
        middles.append(-height * place - (n_slots - 1) / 2)
        label(ax, len(steps), middles[-1], f"{len(steps):,} steps", INK)
    longest = max(map(len, runs.values()))
    ax.set(xlim=(0, 1.18 * longest), ylim=(0.8 - height * len(runs), 0.8))
    ax.set(xlabel="step")
    ax.set_yticks(middles, [f"{name}\n{n_slots} slots" for name in runs])


def draw_blocks(ax: Axes) -> None:
    """Two texts with tables of blocks: the first is shared, each has its own second one.

    Args:
        ax: to draw on.

    Example:
        >>> from minillm.lab.figures import figure
        >>> fig, ax = figure()
        >>> draw_blocks(ax)
        >>> [text.get_text() for text in ax.texts if text.get_text().startswith("text")]
        ['text A', 'text B']
    """
    ax.set(xlim=(-2.2, 12.2), ylim=(-0.8, 3.6))
    ax.axis("off")
    held = {
        5: (LIGHT, "Mei sells", "A and B"),
        0: (BLUE, "red plums", "A"),
        7: (ORANGE, "red pears", "B"),
    }
    for place, block in enumerate((0, 1, 5, 6, 7)):
        fill, words, holders = held.get(block, ("white", "", "free"))
        ax.add_patch(Rectangle((0.2 + 2.4 * place, 0), 2.1, 1.0, fc=fill, ec=INK))
        _words(ax, 1.25 + 2.4 * place, 0.5, words, color=INK if block == 5 else "white")
        _words(ax, 1.25 + 2.4 * place, -0.45, f"block {block}: {holders}", color=GREY)
    arrow = {"arrowstyle": "-|>", "color": INK, "lw": 1.2}
    for name, x, blocks, colour in (("A", 1.2, (5, 0), BLUE), ("B", 8.2, (5, 7), ORANGE)):
        _words(ax, x - 0.2, 3.1, f"text {name}", ha="right", color=colour, fontweight="bold")
        for place, block in enumerate(blocks):
            ax.add_patch(Rectangle((x + place, 2.75), 0.9, 0.7, fc="white", ec=colour, lw=2))
            _words(ax, x + place + 0.45, 3.1, str(block))
            target = 1.25 + 2.4 * (0, 1, 5, 6, 7).index(block)
            ax.annotate("", (target, 1.02), (x + place + 0.45, 2.74), arrowprops=arrow)
