"""Pictures of training: one step and its checkpoint, a run that was killed, losses in two units.

Chapter: 05
"""

from collections.abc import Mapping, Sequence

from minillm.lab.figures import BLUE, GREEN, GREY, INK, ORANGE, diagram, figure, label, publish


def picture_step() -> None:
    """Publish what a step reads and changes; blue is what it changes, and so what must be saved.

    Example:
        >>> picture_step()  # doctest: +ELLIPSIS
        Figure: The step number gives the batch; ...
    """
    boxes = {
        "step": (0, 1, "step\nnumber"),
        "batch": (1.9, 1, "batch"),
        "loss": (3.7, 1, "loss"),
        "optimizer": (7.4, 1, "optimizer\nand its state"),
        "weights": (5.4, 2.2, "weights"),
        "disk": (5.4, -0.2, "checkpoint on the disk"),
    }
    arrows = [("step", "batch"), ("batch", "loss"), ("loss", "optimizer"), ("optimizer", "weights")]
    arrows += [("weights", "loss"), *((name, "disk") for name in ("step", "optimizer", "weights"))]
    saved = dict.fromkeys(("step", "optimizer", "weights", "disk"), BLUE)
    fig = diagram(boxes, arrows, colours=saved, height=3.4)
    words = {"batch_at": (1.0, 1.07), "gradient": (4.6, 1.07), "update": (6.8, 1.65)}
    words |= {"read by the\nnext step": (3.6, 1.65), "+ 1 in each step": (0, 1.4)}
    for text, (x, y) in words.items():
        fig.axes[0].text(x, y, text, color=GREY, ha="center", va="bottom")
    publish(
        fig,
        alt="The step number gives the batch; batch and weights give the loss; its gradient goes "
        "to the optimizer, which updates the weights. Step number, optimizer's state and weights, "
        "in blue, also go to a checkpoint on the disk.",
    )


def picture_kills(
    undisturbed: Mapping[int, float],
    parts: Sequence[Mapping[int, float]],
    weights_only: Mapping[int, float],
) -> None:
    """Publish a killed run on top of one that nobody touched, and how far a third one is from it.

    Args:
        undisturbed: the loss of each step.
        parts: the same, of each process of the killed run; all but the last were killed.
        weights_only: the same, of a run whose optimizer began anew.

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
        left.plot(list(part), list(part.values()), color=(BLUE, GREEN)[number % 2], lw=1.5)
    for part in parts[:-1]:
        step = max(part)
        left.plot(step, part[step], "x", color=INK, ms=10, mew=3, zorder=5)
        label(left, step, part[step], "killed", INK, offset=(8, 12))
    left.set(xlabel="step", ylabel="training loss, nats per token")
    left.set_title("Killed, it goes on on the same line")
    gap = {step: weights_only[step] - loss for step, loss in undisturbed.items()}
    right.axhline(0, color=GREY, lw=6, alpha=0.5)
    right.plot(list(gap), list(gap.values()), color=ORANGE)
    label(right, max(gap, key=gap.get), max(gap.values()), "weights only", ORANGE)
    right.set(xlabel="step", ylabel="loss above the run never killed")
    right.set_title("With the weights alone it stays above")
    publish(
        fig,
        alt="Left, training loss against steps: the parts of the killed run, with a cross where "
        "each was killed, lie on the run that nobody killed. Right, how far the run that kept only "
        "its weights is from that line.",
    )


def picture_units(
    names: Sequence[str], per_token: Sequence[float], per_byte: Sequence[float]
) -> None:
    """Publish the losses of models with several vocabularies, per token and per byte.

    Args:
        names: of the vocabularies.
        per_token: nats.
        per_byte: bits.

    Example:
        >>> picture_units(["256", "512"], [2.6, 3.6], [3.8, 2.4])  # doctest: +ELLIPSIS
        Figure: Two panels of bars, one bar for each vocabulary: ...
    """
    fig, axes = figure(width=8.0, height=3.4, columns=2, share_y=False)
    axes[0].bar(names, per_token, color=ORANGE, width=0.6)
    axes[0].set(xlabel="vocabulary", ylabel="nats per token; lower is better")
    axes[0].set_title("Per token, bytes come first …")
    axes[1].bar(names, per_byte, color=BLUE, width=0.6)
    axes[1].set(xlabel="vocabulary", ylabel="bits per byte; lower is better")
    axes[1].set_title("… per byte, last (they read less text)")
    publish(
        fig,
        alt="Two panels of bars, one bar for each vocabulary: nats per token rise with the "
        "vocabulary, bits per byte fall.",
    )
