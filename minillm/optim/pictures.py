"""Pictures of optimizers: walks down a valley, a matrix before and after Muon, searches and ends.

Chapter: 06
"""

import math
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from matplotlib.axes import Axes
from torch import Tensor

from minillm.lab.figures import BLUE, GREEN, GREY, INK, ORANGE, label
from minillm.optim.muon import newton_schulz

LINES = (0.5, 4, 15, 40, 80)  # of equal loss
TICKS = (7, 8, 9, 10, 12, 15, 20, 25, 30)


def draw_walks(
    axes: Sequence[Axes], walks: Mapping[str, Tensor], hessian: Tensor, ylim: tuple[float, float]
) -> None:
    """Walks over lines of equal loss ½ wᵀ H w, one on each axes; a cross marks the minimum.

    Args:
        axes: as many as walks.
        walks: by name, the places, [steps, 2].
        hessian: H, [2, 2].
        ylim: from and to.

    Example:
        >>> from minillm.lab.figures import figure
        >>> fig, axes = figure(columns=2)
        >>> draw_walks(axes, {"SGD": torch.ones(3, 2), "Adam": torch.eye(2)}, torch.eye(2), (-4, 4))
        >>> [ax.get_xlabel() for ax in axes]
        ['weight x', 'weight x']
    """
    sides = [torch.linspace(*ends, 80, dtype=hessian.dtype) for ends in ((-4, 10), ylim)]
    x, y = torch.meshgrid(*sides, indexing="xy")
    points = torch.stack([x, y], dim=-1)
    loss = ((points @ hessian) * points).sum(dim=-1) / 2
    for ax, (name, places) in zip(axes, walks.items(), strict=True):
        ax.contour(x, y, loss, levels=LINES, colors="#cccccc", linewidths=1)
        ax.plot(*places.T, "o-", ms=3, lw=1, color=BLUE)
        ax.plot(0, 0, "P", ms=9, color=ORANGE, mec="white")
        ax.set(xlim=(-4, 10), ylim=ylim, title=name, xlabel="weight x")
    axes[0].set_ylabel("weight y")


def draw_orthogonalised(axes: Sequence[Axes], example: Tensor, gradient: Tensor) -> None:
    """Where a matrix and Muon's step send a circle; the strengths of a gradient before and after.

    Args:
        axes: two.
        example: [2, 2], for the left ones.
        gradient: of a layer, for the right ones.

    Example:
        >>> from minillm.lab.figures import figure
        >>> fig, axes = figure(columns=2, share_y=False)
        >>> draw_orthogonalised(axes, torch.eye(2), torch.eye(3))
        >>> [text.get_text() for text in axes[1].texts]
        ['gradient', "Muon's step"]
    """
    left, right = axes
    angle = torch.linspace(0, 2 * math.pi, 100)
    circle = torch.stack([angle.cos(), angle.sin()])
    left.plot(*circle, ":", color=INK)
    left.plot(*(example @ circle), color=GREY)
    step = newton_schulz(example)
    left.plot(*(step @ circle), color=BLUE)
    label(left, 1.0, -0.3, "the circle\nthat goes in", INK)
    label(left, 1.25, 1.1, "gradient", GREY)
    words = f"Muon's step:\nradius ≈ {torch.linalg.svdvals(step).mean():.1f}"
    label(left, 1.25, 0.55, words, BLUE)
    left.set(aspect="equal", xlim=(-1.5, 2.8), xlabel="output 1", ylabel="output 2")
    left.set_title("An ellipse becomes nearly a circle")
    before, after = torch.linalg.svdvals(gradient), torch.linalg.svdvals(newton_schulz(gradient))
    places = range(1, len(before) + 1)
    right.semilogy(places, after / after[0], "o", ms=3.5, color=BLUE)
    # rings: the strongest, 1 in both, does not hide the other
    right.semilogy(places, before / before[0], "o", ms=6, mfc="none", mew=1.2, color=GREY)
    middle = len(before) // 2
    label(right, middle, before[middle] / before[0], "gradient", GREY, offset=(0, 20))
    label(right, middle, 1, "Muon's step", BLUE, offset=(0, 8))
    right.set(xlabel=f"{len(before)} directions, the strongest first", ylim=(0.003, 2.2))
    right.set(ylabel="strength ÷ the strongest", title="The directions become about equal")


def draw_search(ax: Axes, record: Mapping[str, Any], names: Sequence[str]) -> None:
    """Loss above the entropy against the learning rate, with a ring at the best.

    Args:
        ax: to draw on.
        record: the figures of `minillm bench optimizers`; of the two values of an option the better
            is drawn, at each rate.
        names: at most three.

    Example:
        >>> from minillm.lab.figures import figure
        >>> fig, ax = figure()
        >>> runs = [[0.1, None, 30.0], [0.2, None, 20.0], [0.4, None, 25.0]]
        >>> draw_search(ax, {"SGD": {"runs": runs}}, ["SGD"])
        >>> [text.get_text() for text in ax.texts]
        ['SGD, best at 0.2']
    """
    for name, colour, height in zip(names, (BLUE, ORANGE, GREEN), (1.0, 0.92, 0.84), strict=False):
        best: dict[float, float] = {}
        for rate, _, above in sorted(record[name]["runs"], key=lambda run: run[0]):
            best[rate] = min(above, best.get(rate, math.inf))
        ax.loglog(list(best), list(best.values()), "o-", ms=3, color=colour)
        optimum = min(best, key=lambda rate: best[rate])
        ax.plot(optimum, best[optimum], "o", ms=9, mfc="none", color=colour)
        words = {"xycoords": "axes fraction", "ha": "right", "va": "top", "fontsize": 9.5}
        label(ax, 1.0, height, f"{name}, best at {optimum:.2g}", colour, offset=(0, 0), **words)
    ax.set(xlabel="learning rate (log axis)", ylim=(5, 500))


def draw_new_seeds(ax: Axes, record: Mapping[str, Any], reference: str, marked: str) -> None:
    """The ends of each optimizer's new runs, a row each, sorted by state; a band for one of them.

    The band's name stands beside it in the top row.

    Args:
        ax: to draw on.
        record: the figures of `minillm bench optimizers`.
        reference: whose range is the band.
        marked: whose dots are blue.

    Example:
        >>> from minillm.lab.figures import figure
        >>> fig, ax = figure()
        >>> ends = {"state": 2.0, "loss_above_entropy": [10.0, 11.0]}
        >>> draw_new_seeds(ax, {"AdamW": ends, "SGD": ends | {"state": 0.0}}, "AdamW", "SGD")
        >>> [text.get_text() for text in ax.get_yticklabels()]
        ['AdamW · state 2.00', 'SGD · state 0.00']
    """
    names = sorted(record, key=lambda name: record[name]["state"], reverse=True)
    band = record[reference]["loss_above_entropy"]
    ax.axvspan(min(band), max(band), color="#e0e0e0", lw=0)
    label(ax, max(band), len(names) - 1, f"{reference}'s range", GREY)
    for place, name in enumerate(names):
        ends, colour = record[name]["loss_above_entropy"], BLUE if name == marked else INK
        ax.semilogx(ends, [place] * len(ends), "o", ms=6, color=colour)
    ax.set_yticks(
        range(len(names)), [f"{name} · state {record[name]['state']:.2f}" for name in names]
    )
    ax.set_xticks(TICKS, TICKS)
    ax.minorticks_off()
    ax.set(xlabel="% above the entropy (log axis); lower is better", xlim=(6.5, 38))
