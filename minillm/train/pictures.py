"""Pictures of training: one step and its checkpoint, a run that was killed, losses in two units.

Chapter: 05
"""

from collections.abc import Mapping, Sequence
from itertools import pairwise

from minillm.lab.figures import BLUE, GREY, INK, ORANGE, diagram, figure, label, publish

CHANGED = ("step", "optimizer", "weights")  # by a step of training


def picture_step() -> None:
    """Publish what a step reads and changes; blue is what it changes, and so what must be saved.

    Example:
        >>> picture_step()  # doctest: +ELLIPSIS
        Figure: The step number gives the batch; ...
    """
    boxes = {
        "step": (0, 0, "step\nnumber"),
        "batch": (1.9, 0, "batch"),
        "loss": (3.7, 0, "loss"),
        "optimizer": (7.4, 0, "optimizer\nand its state"),
        "weights": (5.4, 1.2, "weights"),
        "disk": (5.4, 2.4, "checkpoint on the disk\n(random state, too)"),
    }
    arrows = [("step", "batch"), ("batch", "loss"), ("loss", "optimizer"), ("optimizer", "weights")]
    arrows += [("weights", "loss"), *((name, "disk") for name in CHANGED)]
    fig = diagram(boxes, arrows, colours=dict.fromkeys(CHANGED, BLUE), height=3.4)
    words = {"batch_at": (1.0, 0.07), "gradient": (5.2, 0.07), "update": (5.9, 0.45)}
    words |= {"read by the\nnext step": (3.8, 0.6), "+ 1 in each step": (0, -0.65)}
    for text, (x, y) in words.items():
        fig.axes[0].text(x, y, text, color=GREY, ha="center", va="bottom")
    publish(
        fig,
        alt="The step number gives the batch; batch and weights give the loss; its gradient goes "
        "to the optimizer, which updates the weights. Step number, optimizer's state and weights, "
        "in blue, are what it changes; they and the random state go to a checkpoint on the disk.",
    )


def picture_kills(
    undisturbed: Mapping[int, float],
    parts: Sequence[Mapping[int, float]],
    adamw_reset: Mapping[int, float],
) -> None:
    """Publish a killed run on top of one that nobody touched, and how far a third one is from it.

    Args:
        undisturbed: the loss of each step.
        parts: the same, of each process of the killed run; all but the last were killed.
        adamw_reset: the same, of a run whose optimizer began anew; weights and step number stayed.

    Example:
        >>> run = {0: 3.0, 1: 2.0, 2: 1.0}
        >>> parts = [{0: 3.0, 1: 2.0}, {1: 2.0, 2: 1.0}]
        >>> picture_kills(run, parts, run | {2: 1.5})  # doctest: +ELLIPSIS
        Figure: Left, training loss against steps: ...
    """
    fig, (left, right) = figure(width=8.0, height=3.6, columns=2, share_y=False)
    left.plot(list(undisturbed), list(undisturbed.values()), color=GREY, lw=6, alpha=0.5)
    label(left, *next(iter(undisturbed.items())), "never killed", GREY, offset=(16, 0))
    for number, part in enumerate(parts):
        middle = sorted(part)[len(part) // 2]
        left.plot(list(part), list(part.values()), color=BLUE, lw=1.5)
        side = {"offset": (0, -22), "ha": "center"} if number else {"offset": (8, 6)}
        label(left, middle, part[middle], f"process {number + 1}", BLUE, fontsize=9, **side)
    pairs = pairwise(parts)
    twice = {step: after[step] for before, after in pairs for step in after if step in before}
    left.plot(list(twice), list(twice.values()), "o", color=ORANGE, mfc="none", ms=8, mew=1.5)
    if twice:
        label(left, *min(twice.items()), "computed twice", ORANGE, offset=(20, 16))
    for part in parts[:-1]:
        step = max(part)
        left.plot(step, part[step], "x", color=INK, ms=10, mew=3, zorder=5)
        label(left, step, part[step], "killed", INK, offset=(7, 9))
    left.set(xlabel="step", ylabel="training loss, nats per token")
    left.margins(y=0.15)
    left.set_title("Killed and resumed: the same line")
    gap = {step: adamw_reset[step] - loss for step, loss in undisturbed.items()}
    right.axhline(0, color=GREY, lw=6, alpha=0.5)
    right.plot(list(gap), list(gap.values()), color=ORANGE)
    label(right, max(gap, key=gap.get), max(gap.values()), "AdamW reset", ORANGE)
    right.set(xlabel="step", ylabel="loss above the run never killed")
    right.set_title("It jumps, and it ends above")
    publish(
        fig,
        alt="Left, training loss against steps: the four processes of the killed run, with a "
        "cross where each was killed and circles where steps were computed twice, lie on the run "
        "that nobody killed. Right, how far the run whose AdamW was reset is from that line.",
    )


def picture_units(
    names: Sequence[str],
    per_token: Sequence[float],
    per_byte: Sequence[float],
    more: Sequence[Sequence[tuple[float, float]]] = (),
) -> None:
    """Publish the losses of models with several vocabularies, per token and per byte.

    Args:
        names: of the vocabularies.
        per_token: nats.
        per_byte: bits.
        more: of further runs, which become dots: for each vocabulary (per token, per byte) of each.

    Example:
        >>> picture_units(["256", "512"], [2.6, 3.6], [3.8, 2.4])  # doctest: +ELLIPSIS
        Figure: Two panels of bars, one bar for each vocabulary: ...
    """
    fig, axes = figure(width=8.0, height=3.4, columns=2, share_y=False)
    panels = ((per_token, "nats per token", ORANGE), (per_byte, "bits per byte", BLUE))
    for unit, (ax, (heights, words, colour)) in enumerate(zip(axes, panels, strict=True)):
        ax.bar(names, heights, color=colour, width=0.6, alpha=0.6)
        ax.set(xlabel="vocabulary", ylabel=f"{words}; lower is better")
        dots = [(name, run[unit]) for name, runs in zip(names, more, strict=False) for run in runs]
        if dots:
            ax.plot(*zip(*dots, strict=True), "o", color=INK, ms=5)
    if more:
        high = {"offset": (0, 14), "ha": "center"}
        label(axes[1], len(names) - 1, per_byte[-1], "dots: more seeds", INK, **high)
    axes[0].set_title("Per token, bytes come first …")
    axes[1].set_title("… per byte they come last")
    publish(
        fig,
        alt="Two panels of bars, one bar for each vocabulary: nats per token rise with the "
        "vocabulary, bits per byte fall, from bytes to 512 by much more than another seed moves "
        "them (dots: more seeds), from 512 to 2,048 by less. Text read, context and tables differ, "
        "too.",
    )
