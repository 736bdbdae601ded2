"""Pictures of instruction tuning: a loss mask, a split of kinds, and what tuning brought.

Chapter: 20
"""

from collections.abc import Collection, Mapping, Sequence
from typing import Any

from matplotlib.axes import Axes
from matplotlib.patches import Rectangle

from minillm.lab.figures import BLUE, COLOURS, GREY, GROUND, INK, label

MARKERS = "os^D"
_PALE = "#BFD9EA"
_CELL = 0.86  # of the distance between two cells
_NAME = 6.5  # %, height of a name


def draw_mask(ax: Axes, tokens: Sequence[str], loss_mask: Sequence[bool]) -> None:
    """A conversation as one row of tokens, those in the loss in blue.

    Args:
        ax: to draw on.
        tokens: as they are written.
        loss_mask: of each, whether it is learned.

    Example:
        >>> from minillm.lab.figures import figure
        >>> fig, ax = figure()
        >>> draw_mask(ax, ["<|assistant|>", "buns"], [False, True])
        >>> [text.get_text() for text in ax.texts[:4]]
        ['<|assistant|>', '–', 'buns', 'learn']
    """
    x, begins = 0.0, []
    for token, in_loss in zip(tokens, loss_mask, strict=True):
        size, colour = 0.55 + 0.13 * len(token), BLUE if in_loss else GREY
        box = {"fc": _PALE if in_loss else GROUND, "ec": colour, "lw": 1.5}
        ax.add_patch(Rectangle((x, 1), size, 0.7, **box))
        ax.text(x + size / 2, 1.35, token, ha="center", va="center", fontsize=9)
        ax.text(x + size / 2, 0.6, "learn" if in_loss else "–", ha="center", color=colour)
        begins.append(x)
        x += size + 0.06
    label(ax, 0, 2.1, "the program writes this; the model reads it", GREY, offset=(0, 0))
    first = begins[[*loss_mask].index(True)]
    label(ax, first, 2.1, "the model writes this", BLUE, offset=(0, 0))
    label(ax, 0, 0.1, "loss mask: which tokens the loss counts", INK, offset=(0, 0))
    ax.set(xlim=(-0.1, x), ylim=(-0.2, 2.5), xticks=[], yticks=[])
    ax.spines[:].set_visible(False)


def draw_kinds(
    ax: Axes, seen: Collection[tuple[str, str, str]], held_out: Collection[tuple[str, str, str]]
) -> None:
    """A grid of kinds: operations and their arguments down, forms across; those held out hatched.

    Args:
        ax: to draw on.
        seen: kinds of the training, (operation, argument, form).
        held_out: the others that there are.

    Example:
        >>> from minillm.lab.figures import figure
        >>> fig, ax = figure()
        >>> draw_kinds(ax, [("all", "none", "json")], [("nth", "ordinal", "json")])
        >>> [text.get_text() for text in ax.get_yticklabels()]
        ['all', 'nth, ordinal']
    """
    # 1. rows and columns, in the order in which they come
    kinds = [*seen, *held_out]
    rows = list(dict.fromkeys(kind[:2] for kind in kinds))
    columns = list(dict.fromkeys(kind[2] for kind in kinds))
    # 2. a cell for each kind; where there is none, none
    looks = {False: {"fc": GROUND, "ec": GREY}, True: {"fc": _PALE, "ec": BLUE, "hatch": "////"}}
    for n, (operation, argument, form) in enumerate(kinds):
        corner = (columns.index(form), rows.index((operation, argument)))
        ax.add_patch(Rectangle(corner, _CELL, _CELL, lw=1.2, **looks[n >= len(seen)]))
    # 3. names, and beside them what a cell says
    names = [operation if kind == "none" else f"{operation}, {kind}" for operation, kind in rows]
    ax.set_xticks([n + _CELL / 2 for n in range(len(columns))], columns)
    ax.set_yticks([n + _CELL / 2 for n in range(len(rows))], names)
    ax.xaxis.tick_top()
    ax.xaxis.set_label_position("top")
    ax.set(xlabel="form of the answer", ylabel="operation, and what its argument is")
    ax.tick_params(length=0)
    ax.spines[:].set_visible(False)
    x = len(columns) + 0.3
    for y, (number, colour) in zip((1, 3), ((len(seen), INK), (len(held_out), BLUE)), strict=True):
        held = colour == BLUE
        ax.add_patch(Rectangle((x, y), 0.4, _CELL, lw=1.2, **looks[held]))
        words = f"{number} kinds {'held out' if held else 'trained'}"
        label(ax, x + 0.4, y + _CELL / 2, words, colour)
    label(ax, x, 5.5, "no cell: its answer\nis a single word", GREY, offset=(0, 0))
    ax.set(xlim=(_CELL - 1, x + 2.4), ylim=(len(rows), _CELL - 1))


def draw_by_number(
    ax: Axes, rows: Mapping[int, Sequence[Mapping[str, Any]]], names: Mapping[str, str]
) -> None:
    """Per cent right against a number on a log axis: a dot for each seed, a line through all.

    The line stands where all questions of all seeds together stand: seeds may have had different
    numbers of them.

    Args:
        ax: to draw on.
        rows: for each number the seeds, with n_right and n under each key.
        names: of the keys that are drawn, at most four; they stand at the lines' ends.

    Example:
        >>> from minillm.lab.figures import figure
        >>> fig, ax = figure()
        >>> seeds = [{"new": {"n_right": 1, "n": 1}}, {"new": {"n_right": 0, "n": 3}}]
        >>> draw_by_number(ax, {12: seeds}, {"new": "new kinds"})
        >>> ax.lines[-1].get_xydata().tolist()
        [[12.0, 25.0]]
    """
    ends: list[tuple[float, int, str, str]] = []
    for (key, name), colour, marker in zip(names.items(), COLOURS, MARKERS, strict=False):
        line = {}
        for number, seeds in rows.items():
            counts = [(row[key]["n_right"], row[key]["n"]) for row in seeds if row[key]["n"]]
            if counts:
                shares = [100 * n_right / n for n_right, n in counts]
                ax.plot([number] * len(shares), shares, marker, color=colour, alpha=0.5)
                n_right, n = map(sum, zip(*counts, strict=True))
                line[number] = 100 * n_right / n
        ax.plot([*line], [*line.values()], "-", color=colour)
        ends.append(([*line.values()][-1], max(line), name, colour))
    # names from the top down, each below the one before it
    y = 200.0
    for end, number, name, colour in sorted(ends, reverse=True):
        y = min(end, y - _NAME)
        label(ax, number, y, name, colour)
    ax.set(xscale="log", ylim=(-4, 104))
    ax.set_xticks([*rows], [f"{number:,}" for number in rows])
    ax.minorticks_off()


def draw_arms(ax: Axes, arms: Mapping[str, Sequence[float]], marked: str) -> None:
    """Training sets compared: a row each, a dot for each seed, their lowest and highest in words.

    Args:
        ax: to draw on.
        arms: by name, from the top; the seeds, in %.
        marked: the arm that is drawn in blue.

    Example:
        >>> from minillm.lab.figures import figure
        >>> fig, ax = figure()
        >>> draw_arms(ax, {"seeds": [11.3, 16.8], "drawn": [27.0, 33.6]}, "drawn")
        >>> [text.get_text() for text in ax.texts]
        ['11 to 17', '27 to 34']
    """
    for row, (name, seeds) in enumerate(arms.items()):
        colour = BLUE if name == marked else INK
        ax.plot(seeds, [row] * len(seeds), "D" if name == marked else "o", color=colour, alpha=0.7)
        label(ax, max(seeds), row, f"{min(seeds):.0f} to {max(seeds):.0f}", colour, offset=(9, 0))
    ax.set_yticks(range(len(arms)), [*arms])
    ax.set(ylim=(len(arms) - 0.5, -0.5))
