"""Pictures of sharded training: who holds what, how many bytes, and how many are sent.

Chapter: 15
"""

from collections.abc import Mapping, Sequence
from typing import Any

from matplotlib.axes import Axes
from matplotlib.patches import Rectangle

from minillm.lab.figures import BLUE, GREEN, GREY, INK, ORANGE, label
from minillm.parallel.zero import bytes_per_rank

KINDS = (("weights", 2, BLUE), ("gradients", 2, GREEN), ("optimizer", 12, ORANGE))


def draw_holdings(axes: Sequence[Axes], n_ranks: int) -> None:
    """What each rank holds in stages 0 to 3: filled is here, empty is another rank's.

    Args:
        axes: four, one a stage.
        n_ranks: N, at most 4.

    Example:
        >>> from minillm.lab.figures import figure
        >>> fig, axes = figure(columns=4)
        >>> draw_holdings(axes, 4)
        >>> [ax.get_title() for ax in axes][0]
        'stage 0: all of it'
    """
    titles = (
        "stage 0: all of it",
        "stage 1: state cut",
        "stage 2: + gradients",
        "stage 3: + weights",
    )
    for stage, (ax, title) in enumerate(zip(axes, titles, strict=True)):
        ax.set(xlim=(-0.2, n_ranks), ylim=(-1.4, 17.5), title=title)
        ax.axis("off")
        for rank in range(n_ranks):
            bottom = 0.0
            for place, (_, size, colour) in enumerate(KINDS):
                cut = stage >= 3 - place
                ax.add_patch(
                    Rectangle((rank, bottom), 0.8, size, facecolor="none", edgecolor=colour, lw=1)
                )
                part = size / n_ranks if cut else size
                first = bottom + (rank * part if cut else 0)
                ax.add_patch(Rectangle((rank, first), 0.8, part, facecolor=colour, lw=0))
                bottom += size + 0.3
            ax.text(
                rank + 0.4, -0.9, f"rank {rank}", ha="center", va="center", fontsize=8, color=INK
            )
    for (name, size, colour), y in zip(KINDS, (1.0, 3.3, 10.6), strict=True):
        ax.annotate(
            f"{name}, {size} bytes", (n_ranks, y), color=colour, va="center", annotation_clip=False
        )


def draw_ring(axes: Sequence[Axes], n_ranks: int) -> None:
    """A ring's all-reduce, step by step: how many ranks' numbers are in each chunk of each rank.

    Args:
        axes: 2 N - 1, one for the beginning and one a step.
        n_ranks: N; 3 is clearest.

    Example:
        >>> from minillm.lab.figures import figure
        >>> fig, axes = figure(columns=5)
        >>> draw_ring(axes, 3)
        >>> [ax.get_title() for ax in axes]
        ['at first', 'step 1', 'step 2', 'step 3', 'step 4']
    """
    terms = [[1] * n_ranks for _ in range(n_ranks)]  # of rank r's chunk c
    for step, ax in enumerate(axes):
        moved = {}
        if step:  # rank r has just got a chunk from the left
            shift = step if step < n_ranks else step - 1
            for rank in range(n_ranks):
                chunk = (
                    rank - shift - 1 if step < n_ranks else rank - (step - n_ranks) - 1
                ) % n_ranks
                moved[rank] = chunk
            before = [row.copy() for row in terms]
            for rank, chunk in moved.items():
                arrived = before[rank - 1][chunk]
                terms[rank][chunk] = arrived + 1 if step < n_ranks else arrived
        ax.set(xlim=(-0.9, n_ranks + 0.1), ylim=(-0.9, n_ranks + 0.3))
        ax.set_title("at first" if not step else f"step {step}", fontsize=10)
        ax.axis("off")
        for rank in range(n_ranks):
            y = n_ranks - 1 - rank
            if not step:
                ax.text(-0.15, y + 0.4, f"rank {rank}", ha="right", va="center", fontsize=9)
            for chunk in range(n_ranks):
                n_terms = terms[rank][chunk]
                done = n_terms == n_ranks
                ax.add_patch(
                    Rectangle(
                        (chunk, y),
                        0.86,
                        0.86,
                        facecolor=ORANGE if done else BLUE,
                        alpha=1 if done else 0.2 + 0.25 * (n_terms - 1),
                        edgecolor=INK if moved.get(rank) == chunk else "none",
                        lw=2.5,
                    )
                )
                white = "white" if done else INK
                ax.text(chunk + 0.43, y + 0.43, str(n_terms), ha="center", va="center", color=white)
        for chunk in range(n_ranks):
            ax.text(chunk + 0.43, -0.35, f"chunk {chunk}", ha="center", va="center", fontsize=7)


def draw_bytes(ax: Axes, measured: Mapping[int, Sequence[Mapping[str, Any]]]) -> None:
    """Bytes a parameter of each stage: what was measured, and the formula for more ranks.

    Args:
        ax: to draw on.
        measured: by the number of ranks, what `minillm.parallel.measured.bytes_of_stages` gives.

    Example:
        >>> from minillm.lab.figures import figure
        >>> fig, ax = figure()
        >>> held = {"n_parameters": 1, "weights": 2, "gradients": 2, "optimizer": 12}
        >>> draw_bytes(ax, {1: [held] * 4})
        >>> ax.get_ylabel()
        'bytes a parameter on each rank'
    """
    many = [2**power for power in range(8)]
    for stage, colour in enumerate((GREY, GREEN, BLUE, ORANGE)):
        ax.plot(many, [bytes_per_rank(1, n, stage) for n in many], color=colour, lw=2)
        for n_ranks, stages in measured.items():
            total = sum(stages[stage][kind] for kind, _, _ in KINDS)
            total /= stages[stage]["n_parameters"]
            ax.plot([n_ranks], [total], "o", color=colour, markersize=8)
        words = f"stage {stage}" + (": 16" if not stage else f": to {(4, 2, 0)[stage - 1]}")
        label(ax, many[-1], bytes_per_rank(1, many[-1], stage), words, colour, offset=(6, 3))
    ax.set(xscale="log", xlabel="ranks N, log axis", ylabel="bytes a parameter on each rank")
    ax.set(xticks=many, xticklabels=map(str, many), ylim=(-0.4, 17), xlim=(0.9, 300))
    ax.minorticks_off()


def draw_sent(ax: Axes, sent: Mapping[int, Sequence[float]], names: Sequence[str]) -> None:
    """Bytes that a rank sends in a step, in those of plain data parallelism.

    Args:
        ax: to draw on.
        sent: backward passes a step to the bytes of stages 0 to 3.
        names: of the stages.
    """
    ax.set(xticks=range(len(names)), xticklabels=names, ylabel="bytes sent a step, stage 0 = 1")
    for place, (n_passes, values) in enumerate(sent.items()):
        shares = [value / values[0] for value in values]
        positions = [x + 0.38 * place - 0.19 for x in range(len(names))]
        words = f"{n_passes} backward pass" + ("es" if n_passes > 1 else "")
        bars = ax.bar(positions, shares, 0.36, color=(BLUE, ORANGE)[place])
        ax.bar_label(bars, [f"{share:.2f}" for share in shares], color=INK, fontsize=9)
        label(ax, -0.4, 5.4 - 0.7 * place, words, (BLUE, ORANGE)[place])
    ax.set(ylim=(0, 6.6))
