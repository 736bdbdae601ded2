"""Outliers (离群值): channels much larger than the others, planted into a model and measured.

One large number makes a grid coarse for all that share its scale. Large language models have such
numbers: a few channels carry inputs tens of times as large as the rest. Here is a way to measure
how far the numbers of a model reach, and a way to give it outliers without changing what it
computes. Between two matrices that have nothing but products between them, a channel may be made
larger in one and smaller in the other:

    W₂ (g ⊙ (W₁ x))      row i of W₁ times s, column i of W₂ divided by s: the same for every x

    attention     W₁ the rows of qkv that give values, W₂ output; g is a mean over tokens
    SwiGLU        W₁ the rows of gate_up that give up, W₂ down; g is the gate

With s above 1 the inputs of W₂ have outliers, and the weights they meet are small. With s below 1
the weights of W₂ have them. A power of two rounds nothing, so the logits stay equal bit by bit.

Paper: Xiao et al. 2023, "SmoothQuant", arXiv:2211.10438, section 4, equation (3), where channels
are scaled by it to remove outliers; from memory.
Differs: it is used the other way round, with one s for channels drawn at random.

Chapter: 18
"""

import copy
import math
from collections.abc import Iterator
from typing import NamedTuple

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from minillm.model.attention import Attention
from minillm.model.ffn import SwiGLU
from minillm.model.transformer import Transformer


@torch.no_grad()
def plant(model: Transformer, *, share: float, scale: float, seed: int = 0) -> Transformer:
    """A copy that computes the same, in which some channels are larger and others were not touched.

    Args:
        model: with attention or SwiGLU; its other parts stay as they are.
        share: of the channels between two matrices; at least one is taken.
        scale: s; above 1 for outliers among inputs, below 1 among weights.
        seed: which channels.

    Raises:
        ValueError: a share not above 0 and at most 1, a scale that is no positive number, a model
            without such pairs of matrices.

    Example:
        >>> from minillm.model.config import tiny
        >>> model, tokens = tiny(vocab_size=50).build(seed=0), torch.tensor([[7, 3, 9]])
        >>> other = plant(model, share=0.02, scale=32)
        >>> bool((other(tokens) == model(tokens)).all())
        True
        >>> largest = [m.blocks[0].ffn.gate_up.weight.abs().max() for m in (model, other)]
        >>> bool(largest[1] > 10 * largest[0])
        True
    """
    if not 0 < share <= 1 or not 0 < scale < math.inf:
        raise ValueError(
            "share must be above 0 and at most 1, and scale a number above 0; got "
            f"share={share} and scale={scale}"
        )
    planted, generator = copy.deepcopy(model), torch.Generator().manual_seed(seed)
    all_pairs = list(_pairs(planted))
    if not all_pairs:
        raise ValueError(
            "outliers are planted into attention and SwiGLU, and this model has neither; take a "
            "dense model"
        )
    for first, second, n_groups in all_pairs:
        # 1. s for the channels that are drawn, 1 for the others
        n = max(1, round(share * len(first)))
        factors = torch.ones(len(first), device=first.device)
        factors[torch.randperm(len(first), generator=generator)[:n]] = scale
        # 2. rows times s; the columns that they feed divided by it, those of every query head
        first.mul_(factors[:, None])
        n_repeats = second.shape[1] // len(first)
        second.div_(factors.view(n_groups, 1, -1).expand(-1, n_repeats, -1).flatten())
    return planted


def _pairs(model: nn.Module) -> Iterator[tuple[Tensor, Tensor, int]]:
    """Rows of one matrix, the matrix whose columns they feed, and in how many groups."""
    for part in model.modules():
        if isinstance(part, Attention):
            n_before = (part.n_heads + part.n_kv_heads) * part.d_head
            yield part.qkv.weight[n_before:], part.output.weight, part.n_kv_heads
        elif isinstance(part, SwiGLU):
            yield part.gate_up.weight.chunk(2)[1], part.down.weight, 1


# --- how far numbers reach ----------------------------------------------------------------------
def peak(x: Float[Tensor, "..."]) -> float:
    """The largest |x| over the mean |x|: how many numbers of a grid a usual one must do without.

    Example:
        >>> peak(torch.tensor([1.0, -1.0, 1.0, 5.0]))
        2.5
    """
    return (x.abs().max() / x.abs().mean()).item()


def kurtosis(x: Float[Tensor, "..."]) -> float:
    """The mean of x⁴ over the square of the mean of x²: 3 for a normal distribution about 0.

    Example:
        >>> kurtosis(torch.tensor([1.0, -1.0])), kurtosis(torch.tensor([0.0, 0.0, 0.0, 2.0]))
        (1.0, 4.0)
    """
    square = x.double().square()
    return (square.square().mean() / square.mean().square()).item()


def channel_peak(x: Float[Tensor, "*rows columns"]) -> float:
    """`peak` of the channels' sizes: whether a few channels are larger than the others always are.

    The size of a channel is its root mean square. Where it stays near 1 and `peak` is large, large
    numbers come now in this channel and now in that.

    Example:
        >>> channel_peak(torch.tensor([[1.0, 9.0], [1.0, 9.0]]))
        1.7999999523162842
    """
    return peak(x.flatten(0, -2).square().mean(dim=0).sqrt())


class Range(NamedTuple):
    """How far the numbers of a matrix reach, and those it is given.

    Args:
        weight_peak, weight_kurtosis, weight_channel_peak: of its weights; channels are columns.
        input_peak, input_kurtosis, input_channel_peak: of its inputs; None for a table of tokens,
            which has none.
    """

    weight_peak: float
    weight_kurtosis: float
    weight_channel_peak: float
    input_peak: float | None = None
    input_kurtosis: float | None = None
    input_channel_peak: float | None = None


@torch.no_grad()
def ranges(model: Transformer, tokens: Int[Tensor, "B T"]) -> dict[str, Range]:
    """The range of every matrix of a model, by name.

    Args:
        model: in float.
        tokens: a text to look at the inputs with.

    Example:
        >>> from minillm.model.config import tiny
        >>> of_each = ranges(tiny(vocab_size=50).build(seed=0), torch.tensor([[7, 3, 9]]))
        >>> 2.8 < of_each["blocks.0.mixer.qkv"].weight_kurtosis < 3.2
        True
    """
    inputs: dict[str, Tensor] = {}
    matrices = {
        name: module
        for name, module in model.named_modules()
        if isinstance(module, nn.Linear | nn.Embedding)
    }
    hooks = [
        matrix.register_forward_pre_hook(lambda _, x, name=name: inputs.update({name: x[0]}))
        for name, matrix in matrices.items()
        if isinstance(matrix, nn.Linear)
    ]
    model(tokens)
    for hook in hooks:
        hook.remove()
    return {
        name: Range(*_of(matrix.weight), *(_of(inputs[name]) if name in inputs else ()))
        for name, matrix in matrices.items()
    }


def _of(x: Tensor) -> tuple[float, float, float]:
    return peak(x), kurtosis(x), channel_peak(x)
