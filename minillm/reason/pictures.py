"""Pictures of chains of thought: what they bring, and which earlier words a step looks at.

Chapter: 24
"""

from collections.abc import Mapping, Sequence

import torch
from jaxtyping import Float, Int
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from torch import Tensor

from minillm.lab.figures import BLUE, COLOURS, GREY, INK, diagram, label
from minillm.model.attention import attend
from minillm.model.masks import causal
from minillm.model.transformer import Transformer


def draw_at_once_and_in_steps(steps: Sequence[str]) -> Figure:
    """A question that is answered at once, and beside it the same with a written step each time.

    Args:
        steps: as they are written.

    Example:
        >>> fig = draw_at_once_and_in_steps(["1-3 B A C E D"])
        >>> [text.get_text() for text in fig.axes[0].texts].count("2 blocks")
        3
    """
    boxes = {
        "q": (0, 1, "at once:\nthe question"),
        "b": (0, 0, "2 blocks"),
        "a": (1.2, 0, "answer"),
    }
    chain = [word for step in steps for word in ("2 blocks", step)] + ["2 blocks", "answer"]
    boxes |= {str(n): (3 + 1.2 * n, 0, words) for n, words in enumerate(chain)}
    boxes["question"] = (3 + 1.2 * len(steps), 1, "in steps:\nthe question")
    arrows = [("q", "b"), ("b", "a")]
    arrows += [(str(n), str(n + 1)) for n in range(len(chain) - 1)]
    # the question is read again each time
    arrows += [("question", str(n)) for n in range(0, len(chain) - 1, 2)]
    colours = {str(n): BLUE for n in range(1, len(chain) - 1, 2)}
    return diagram(boxes, arrows, width=10.4, height=2.4, colours=colours)


@torch.no_grad()
def attention_weights(
    model: Transformer, tokens: Int[Tensor, "B T"]
) -> list[Float[Tensor, "B H T T"]]:
    """Of each block the attention weights of its heads: row t tells where the word at t looks.

    Args:
        model: whose mixers are attention.
        tokens: rows of equally many.

    Example:
        >>> from minillm.model.config import TransformerConfig
        >>> model = TransformerConfig(vocab_size=9, d_model=16, n_layers=2).build(seed=0)
        >>> [weights.shape for weights in attention_weights(model, torch.tensor([[3, 1, 4]]))]
        [torch.Size([1, 4, 3, 3]), torch.Size([1, 4, 3, 3])]
    """
    positions = torch.arange(tokens.shape[1])
    mask, weights, x = causal(positions, positions), [], model.embedding(tokens)
    for block, (stream, _) in zip(model.blocks, model.layers(tokens), strict=True):
        # 1. what this block's mixer is given: the stream before the block, normed
        q, k, v = block.mixer.project(block.mixer_norm(x), positions)
        # 2. attention by hand, which keeps its weights
        weights.append(attend(q, k, v, mask).weights)
        x = stream
    return weights


def draw_attention(
    ax: Axes,
    weights: Float[Tensor, "T S"],
    written: Sequence[str],
    read: Sequence[str],
) -> None:
    """A map: a row for each word that is written, a column for each that it looks at.

    Args:
        ax: to draw on.
        weights: of attention, 0 to 1.
        written: names of the rows, from top to bottom.
        read: names of the columns.

    Example:
        >>> from minillm.lab.figures import figure
        >>> fig, ax = figure()
        >>> draw_attention(ax, torch.eye(2), ["B", "A"], ["1-3", "C"])
        >>> [text.get_text() for text in ax.get_yticklabels()]
        ['B', 'A']
    """
    ax.imshow(weights.numpy(), cmap="Blues", vmin=0, aspect="auto")
    ax.set_xticks(range(len(read)), read, fontsize=8)
    ax.set_yticks(range(len(written)), written)
    ax.set(xlabel="earlier words (a selection)", ylabel="next word written")
    ax.spines[:].set_visible(False)
    ax.tick_params(length=0)


def draw_accuracies(
    ax: Axes,
    lengths: Sequence[int],
    shares: Mapping[str, Sequence[Sequence[float]]],
    guessing: Sequence[float],
) -> None:
    """Accuracy against the number of swaps, a thin line for each seed of a format.

    Args:
        ax: to draw on.
        lengths: numbers of swaps.
        shares: % right of each format, for each seed one at each length.
        guessing: %, of whoever guesses, at each length.

    Example:
        >>> from minillm.lab.figures import figure
        >>> fig, ax = figure()
        >>> draw_accuracies(ax, (1, 2), {"steps": [(100, 90), (98, 86)]}, [10, 10])
        >>> [line.get_ydata().tolist() for line in ax.lines[:2]]
        [[100, 90], [98, 86]]
    """
    means = {
        name: [sum(values) / len(values) for values in zip(*seeds, strict=True)]
        for name, seeds in shares.items()
    }
    for (name, seeds), colour in zip(shares.items(), COLOURS, strict=False):
        for each in seeds:
            ax.plot(lengths, each, "o-", color=colour, alpha=0.6, markersize=4, lw=1.2)
        # the name stands where its mean is farthest from the others, at the best seed
        others = [mean for other, mean in means.items() if other != name]
        clear = [
            min((abs(mean[i] - y) for mean in others), default=0) for i, y in enumerate(means[name])
        ]
        at = max(range(len(lengths)), key=lambda i: (clear[i], i))
        best = max(each[at] for each in seeds)
        label(ax, lengths[at], best, name, colour, offset=(10, 6))
    ax.plot(lengths, guessing, ":", color=GREY)
    label(ax, lengths[0], guessing[0], "guessing", GREY, fontsize=9, offset=(0, -8))
    ax.set(xticks=list(lengths), ylim=(-6, 104), xlabel="swaps", ylabel="% right")


def draw_ranges(
    ax: Axes, values: Mapping[str, Sequence[float]], unit: str = "% right", digits: int = 0
) -> None:
    """A line for each name: a point for each seed, and their mean as a bar and a number.

    Args:
        ax: to draw on.
        values: of each name, one for each seed; the first name stands on top.
        unit: of the values.
        digits: of the number, behind the point.

    Example:
        >>> from minillm.lab.figures import figure
        >>> fig, ax = figure()
        >>> draw_ranges(ax, {"one sample": [50, 54], "majority": [70, 72]})
        >>> [round(bar.get_width()) for bar in ax.patches]
        [52, 71]
    """
    names = list(values)
    means = [sum(each) / len(each) for each in values.values()]
    ax.barh(names, means, color="#BFD9EA")
    for row, (name, mean) in enumerate(zip(names, means, strict=True)):
        ax.plot(values[name], [row] * len(values[name]), "o", color=BLUE, markersize=4)
        label(ax, max(values[name]), row, f"{mean:.{digits}f}", INK, offset=(8, 0))
    ax.invert_yaxis()
    ax.set(xlabel=unit, xlim=(0, 1.1 * max(max(each) for each in values.values())))
