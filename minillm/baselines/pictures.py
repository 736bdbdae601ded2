"""Pictures of language models: what comes next, how much text they need, how they overfit.

Chapter: 02
"""

from collections.abc import Mapping, Sequence

import numpy as np
from matplotlib.axes import Axes

from minillm.lab.figures import BLUE, GREEN, ORANGE, label


def draw_next_tokens(
    axes: Sequence[Axes], predictions: Sequence[Mapping[str, float]], tokens: Sequence[str]
) -> None:
    """A panel for each token of a text: in blue the one that came, and the four likeliest others.

    Args:
        axes: one for each token.
        predictions: before each token, the probability of every token that may come.
        tokens: those that came.

    Example:
        >>> from minillm.lab.figures import figure
        >>> fig, axes = figure(columns=2, share_y=False)
        >>> draw_next_tokens(axes, [{"a": 0.9, "b": 0.1}, {"a": 0.3, "b": 0.7}], ["a", "b"])
        >>> [ax.get_xlabel() for ax in axes]
        ['p = 0.900', 'p = 0.700']
    """
    before = ["start", *tokens]
    for place, (ax, chances, token) in enumerate(zip(axes, predictions, tokens, strict=True)):
        likely = sorted(chances, key=chances.__getitem__)[-5:]
        shown = likely if token in likely else [token, *likely[1:]]
        colours = [BLUE if each == token else "#bbbbbb" for each in shown]
        ax.barh(shown, [chances[each] for each in shown], color=colours)
        ax.set(xlim=(0, 1), xticks=[0, 1], xlabel=f"p = {chances[token]:.3f}")
        ax.set_title(f"{before[place]} …")


def draw_race(
    ax: Axes, sizes: Sequence[int], above: Mapping[str, Sequence[float]], better: tuple[str, float]
) -> None:
    """Loss above the source's against tokens to learn from, both on logarithmic axes.

    Args:
        ax: where.
        sizes: tokens to learn from, rising.
        above: the losses of each model, by name, one for each size.
        better: words and a lower loss of the last model at the first size; an arrow leads there.

    Example:
        >>> from minillm.lab.figures import figure
        >>> fig, ax = figure()
        >>> draw_race(ax, (10, 1_000), {"table": (0.1, 0.01), "network": (1.0, 0.02)}, ("me", 0.2))
        >>> [text.get_text() for text in ax.texts]
        ['table', 'network', '', 'me']
    """
    for (name, losses), colour in zip(above.items(), (BLUE, ORANGE, GREEN), strict=False):
        ax.loglog(sizes, losses, "o-", color=colour)
        label(ax, sizes[-1], losses[-1], name, colour, offset=(8, 0))
    words, loss = better
    colour, beside = ax.lines[-1].get_color(), 0.75 * sizes[0]  # clear of the curves' points
    arrow = {"arrowstyle": "-|>", "color": colour, "shrinkA": 0, "shrinkB": 0, "lw": 1.5}
    ax.annotate("", (beside, loss), (beside, ax.lines[-1].get_ydata()[0]), arrowprops=arrow)
    label(ax, beside, loss, words, colour, ha="right", offset=(-8, 6))
    ax.minorticks_off()
    ax.set_xticks(sizes, [f"{size:,}" for size in sizes])
    ax.set_yticks([0.001, 0.01, 0.1, 1], ["0.001", "0.01", "0.1", "1"])
    ax.set(xlim=(sizes[0] / 20, 40 * sizes[-1]), ylim=(0.001, 2))
    ax.set(xlabel="tokens that it could read (log axis)", ylabel="nats above the source (log axis)")


def draw_readings(
    axes: Sequence[Axes],
    panels: Mapping[str, tuple[np.ndarray, Sequence[float]]],
    smooth: int = 9,
) -> None:
    """Losses above the source's while networks learn, each panel with training and held-out rows.

    Args:
        axes: one for each panel.
        panels: title to the training and the held-out loss of each step.
        smooth: over how many steps the training loss is averaged.

    Example:
        >>> from minillm.lab.figures import figure
        >>> fig, axes = figure(columns=2)
        >>> draw_readings(axes, {"few": (np.ones(20), np.ones(20)), "many": ([1] * 20, [1] * 20)})
        >>> [text.get_text() for text in axes[0].texts]
        ['held-out rows', 'training rows', 'the source']
    """
    for ax, (title, (training, held_out)) in zip(axes, panels.items(), strict=True):
        mean = np.convolve(training, np.ones(smooth) / smooth, mode="valid")
        ax.axhline(0, color="black", linewidth=1.2)
        ax.plot(np.arange(len(mean)) + smooth // 2, mean, color=ORANGE)
        ax.plot(held_out, color=BLUE)
        ax.set(xlim=(0, len(training)), ylim=(-1, 1.6), xlabel="step", title=title)
        ax.locator_params(axis="x", nbins=3)
    first, n_steps = axes[0], axes[0].get_xlim()[1]
    first.set_ylabel("nats above the source")
    label(first, n_steps, 1.3, "held-out rows", BLUE, ha="right", offset=(-4, 0))
    label(first, n_steps, -0.42, "training rows", ORANGE, ha="right", offset=(-4, 0))
    label(first, n_steps, 0.12, "the source", "black", ha="right", offset=(-4, 0))
