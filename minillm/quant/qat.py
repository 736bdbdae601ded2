"""Quantization-aware training (QAT, 量化感知训练): a model that learns with rounded weights.

Rounding after training hurts most at 2 bits, where each weight becomes -α, 0 or α. Here the rounded
weights are used *during* training. Float weights w are kept beside them, and are what changes.

    forward     ŵ = scale · round(clip(w / scale, -n, n))       n = 2ᵇ⁻¹ - 1, and α = n · scale
    backward    as if round(x) were x (straight-through estimator, STE, 直通估计)

The derivative of rounding is 0 nearly everywhere, so without the second line nothing would be
learned. At the end the codes are kept and w is thrown away.

**Module-wise dynamic scaling** (模块级动态缩放). Matrices differ in how large their weights are,
and one large weight makes α = max|w| useless to all others. So each matrix, and each row of the
table of tokens, learns a number γ, and clips at

    α = γ · mean|w|         ∂ŵ/∂γ = mean|w| · (round(n w/α) - n w/α) / n      |w| < α
                                    mean|w| · sign(w)                          |w| ≥ α

α follows the weights as they grow, and γ is near 1 to 3 whatever the matrix, so one learning rate
suits all of them. Two rivals are here for comparison: "max", min-max, α = max|w|; and "clip", PACT,
which learns α itself, from the weights beyond it alone.

**Distillation** (蒸馏). The float model is the teacher. The student learns its probabilities, and
by a contrastive loss over tokens its last hidden states: of all the teacher's states in a row of
text, that of the same token is to be the most similar.

    contrast(i) = -log ( exp(s(i, i) / τ) / Σⱼ exp(s(i, j) / τ) )
        s(i, j) = cosine of the student's state of token i and the teacher's of token j

Paper: Tao et al. 2022, "Compression of Generative Pre-trained Language Models via Quantization"
(QuantGPT), arXiv:2203.10705, sections 3.1 (contrast) and 3.2 (scaling). Equations, λ and τ from
memory, compared with summaries; Choi et al. 2018, "PACT", arXiv:1805.06085, from memory.
Differs: activations stay in float, theirs have 8 bits. All other tokens of the row are negatives,
states of the teacher; theirs are drawn, and a memory bank holds running means of the student's.
The divergence in place of the cross-entropy with the teacher: a constant less. The gradient of w
also counts that mean|w| depends on w. Scales are rounded to the 16 bits that they are stored in.

Chapter: 18
"""

import copy
import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import final

import torch
from einops import einsum
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn.utils import parametrize

from minillm.data.packing import Batch
from minillm.model.transformer import Transformer
from minillm.optim.step import Total
from minillm.quant import rtn
from minillm.quant.apply import QuantizedModel
from minillm.quant.layers import place
from minillm.quant.plan import Plan, plan
from minillm.quant.rtn import Grid

SCALINGS = ("dynamic", "max", "clip")


@final
@dataclass(frozen=True, kw_only=True)
class QATConfig:
    """How a model is trained with rounded weights.

    Args:
        bits: of a code: 2, 3, 4 or 8.
        scaling: how α is chosen: "dynamic", "max" or "clip".
        gamma: γ at the beginning. 1.5 · mean|w| is the best clip at 2 bits where weights are normal
            (3 bits: 2.4, 4 bits: 3.1, 8 bits: about 5).
        contrastive_weight: λ of the contrastive loss; 0 for none.
        temperature: τ of the contrastive loss.

    Raises:
        ValueError: other bits, another scaling, a number out of its range.
    """

    bits: int = 2
    scaling: str = "dynamic"
    gamma: float = 1.5
    contrastive_weight: float = 0.1
    temperature: float = 0.1

    def __post_init__(self):
        Grid(bits=self.bits)  # refuses other bits
        if self.scaling not in SCALINGS:
            raise ValueError(f"scaling must be one of {', '.join(SCALINGS)}; got {self.scaling!r}")
        above_0 = self.gamma > 0 and self.temperature > 0
        if not above_0 or not 0 <= self.contrastive_weight < math.inf:
            raise ValueError(
                "gamma and temperature must be above 0, contrastive_weight at least 0; got "
                f"{self.gamma}, {self.temperature} and {self.contrastive_weight}"
            )


# --- rounding with a gradient -------------------------------------------------------------------
def straight_through(
    x: Float[Tensor, "*shape"], value: Float[Tensor, "*shape"]
) -> Float[Tensor, "*shape"]:
    """`value`, to the last bit, with the gradient of x.

    Example:
        >>> x = torch.tensor([0.4, 0.6], requires_grad=True)
        >>> rounded = straight_through(x, x.round())
        >>> rounded.sum().backward()
        >>> rounded.tolist(), x.grad.tolist()
        ([0.0, 1.0], [1.0, 1.0])
    """
    return value.detach() + (x - x.detach())  # the bracket is 0


def fake_quantize(
    weight: Float[Tensor, "*blocks n"], scale: Float[Tensor, "*blocks"], bits: int
) -> Float[Tensor, "*blocks n"]:
    """ŵ: weights as they will be after rounding, still as floats (伪量化).

    Args:
        weight: those of the last axis share a scale.
        scale: the distance of two neighbours, α / n.
        bits: of a code.

    Example:
        >>> scale = torch.tensor(0.5, requires_grad=True)
        >>> rounded = fake_quantize(torch.tensor([0.9, 0.3, -0.1]), scale, bits=2)
        >>> rounded.sum().backward()
        >>> rounded.tolist(), scale.grad  # 1 beyond the clip, then 1 - 0.6, and 0 + 0.2
        ([0.5, 0.5, 0.0], tensor(1.6000))
    """
    n = 2 ** (bits - 1) - 1
    # 1. in scales, a block of zeros has none; clipped
    x = (weight / torch.where(scale > 0, scale, torch.inf)[..., None]).clamp(-n, n)
    # 2. rounded, with the gradient of x
    return straight_through(x, x.round()) * scale[..., None]


@final
class FakeQuantize(nn.Module):
    """What stands between a matrix's float weights and its use: a parametrization.

    Args:
        weight: as it is at the beginning.
        grid: which weights share a scale.
        config: how their clip is chosen.
    """

    def __init__(self, weight: Float[Tensor, "rows columns"], grid: Grid, config: QATConfig):
        super().__init__()
        self.grid, self.scaling = grid, config.scaling
        mean = self._blocks(weight.detach()).abs().mean(dim=-1)
        if self.scaling == "dynamic":
            self.gamma = nn.Parameter(torch.full_like(mean, config.gamma))
        elif self.scaling == "clip":
            self.clip = nn.Parameter(config.gamma * mean)

    def scale(self, weight: Float[Tensor, "rows columns"]) -> Float[Tensor, "blocks"]:
        """α / n of each block, a number that float16 holds."""
        size = self._blocks(weight).abs()
        # 1. where each block is clipped
        if self.scaling == "dynamic":
            clip = self.gamma * size.mean(dim=-1)
        else:
            clip = self.clip if self.scaling == "clip" else size.amax(dim=-1).detach()
        # 2. the distance of two neighbours
        scale = clip / (2 ** (self.grid.bits - 1) - 1)
        return straight_through(scale, scale.half().to(scale.dtype))

    def forward(self, weight: Float[Tensor, "rows columns"]) -> Float[Tensor, "rows columns"]:
        """ŵ."""
        blocks, scale = self._blocks(weight), self.scale(weight)
        rounded = fake_quantize(blocks, scale, self.grid.bits)
        if self.scaling == "clip":  # PACT: what is within does not pull at α
            clip = self.clip[..., None]
            rounded = straight_through(torch.minimum(blocks.maximum(-clip), clip), rounded)
        return rounded.view(weight.shape)

    def _blocks(self, weight: Tensor) -> Tensor:
        return weight.reshape(-1, self.grid.block_size(*weight.shape))


# --- a model ------------------------------------------------------------------------------------
def prepare(model: Transformer, config: QATConfig) -> Transformer:
    """The student: a copy that computes with rounded weights and is trained as any other model.

    A matrix has one scale, a table of tokens one a row. Routers and what is no matrix stay as they
    are, and learn, too.

    Args:
        model: in float; it stays as it is, and can be the teacher.
        config: bits and scaling.

    Raises:
        ValueError: a model that is quantized already, or a student; weights that are not finite.

    Example:
        >>> from minillm.model.config import tiny
        >>> student = prepare(tiny(vocab_size=50).build(), QATConfig(bits=2))
        >>> len(student.embedding.weight[7].unique())  # in a row of the table
        3
        >>> finish(student).model.blocks[0].mixer.qkv.matrix.codes.unique().tolist()
        [1, 2, 3]
    """
    if _prepared(model):
        raise ValueError("the model is a student already; prepare the one that it was made from")
    student = copy.deepcopy(model)
    for name, line in _plan(model, config.bits).quantized.items():
        module = student.get_submodule(name)
        rounding = FakeQuantize(module.weight, line.grid, config)
        parametrize.register_parametrization(module, "weight", rounding)
    return student


@torch.no_grad()
def finish(student: Transformer) -> QuantizedModel:
    """The student's codes and scales, which give its logits; the float weights are gone.

    Args:
        student: from `prepare`, trained; it stays as it is.

    Raises:
        ValueError: a model that is no student; weights or scales that are not finite any more.
    """
    roundings = _prepared(student)
    if not roundings:
        raise ValueError("the model is no student; make one with prepare, and train it")
    # 1. what was done, as data; γ is not among the others, but becomes the scales
    done = _plan(student, next(iter(roundings.values())).grid.bits)
    learned = sum(p.nbytes for rounding in roundings.values() for p in rounding.parameters())
    *matrices, others = done.lines
    rest = others.bytes_before - learned
    lines = [replace(line, method="qat") if line.grid else line for line in matrices]
    lines.append(replace(others, bytes_before=rest, bytes_after=rest))
    # 2. codes in the place of numbers
    small = copy.deepcopy(student)
    for name, rounding in roundings.items():
        module, grid = student.get_submodule(name), rounding.grid
        scale = rounding.scale(module.parametrizations.weight.original)
        zero = torch.full_like(scale, 2 ** (grid.bits - 1))
        codes = rtn.encode(module.weight.view(len(scale), -1), scale, zero, grid.bits)
        place(small, name, rtn.of(codes.view(module.weight.shape), scale, zero, grid))
    return QuantizedModel(small, replace(done, lines=tuple(lines)))


def _prepared(model: Transformer) -> dict[str, FakeQuantize]:
    return {
        name: module.parametrizations.weight[0]
        for name, module in model.named_modules()
        if parametrize.is_parametrized(module, "weight")
    }


def _plan(model: Transformer, bits: int) -> Plan:
    """Every matrix and table in so many bits; a scale a matrix, and a row of a table."""
    chosen = plan(model, "rtn", Grid(bits=bits, granularity="tensor"), tables=True)
    by_row = plan(model, "rtn", Grid(bits=bits, granularity="channel"), tables=True)
    both = zip(chosen.lines, by_row.lines, strict=True)
    lines = (row if row.name in ("embedding", "head") else line for line, row in both)
    return replace(chosen, lines=tuple(lines))


# --- what the student learns --------------------------------------------------------------------
def logit_distillation(
    student: Float[Tensor, "*tokens V"], teacher: Float[Tensor, "*tokens V"]
) -> Float[Tensor, ""]:
    """Σ over tokens of KL(teacher ‖ student), in nats: how far the student's probabilities are off.

    Args:
        student, teacher: logits.

    Example:
        >>> teacher = torch.tensor([[0.5, 0.5]]).log()
        >>> logit_distillation(torch.tensor([[0.8, 0.2]]).log(), teacher)  # ½ log(.25 / .16)
        tensor(0.2231)
    """
    theirs, ours = teacher.log_softmax(dim=-1), student.log_softmax(dim=-1)
    return (theirs.exp() * (theirs - ours)).sum()


def token_contrast(
    student: Float[Tensor, "B T D"], teacher: Float[Tensor, "B T D"], temperature: float = 0.1
) -> Float[Tensor, ""]:
    """Σ over tokens of -log p(the teacher's state of the same token, among those of its row).

    Args:
        student, teacher: hidden states of the same tokens.
        temperature: τ.

    Example:
        >>> states = torch.eye(2)[None]  # two tokens at a right angle: -log(e / (e + 1)) each
        >>> token_contrast(states, states, temperature=1.0)
        tensor(0.6265)
    """
    ours, theirs = (nn.functional.normalize(x, dim=-1) for x in (student, teacher))
    similarity = einsum(ours, theirs, "B T D, B S D -> B T S") / temperature
    return -similarity.log_softmax(dim=-1).diagonal(dim1=1, dim2=2).sum()


def distillation(teacher: Transformer, config: QATConfig) -> Callable[[nn.Module, Batch], Total]:
    """The loss of a student for `minillm.train.loop.train`: distillation + λ · contrast.

    Args:
        teacher: the float model; it gets no gradients.
        config: λ and τ.

    Example:
        >>> from minillm.data.packing import Packed
        >>> from minillm.model.config import tiny
        >>> packed = Packed([[5, 6, 7], [8, 9]], end_id=0, context_length=4, batch_size=1)
        >>> teacher = tiny(vocab_size=10).build(seed=0)
        >>> loss = distillation(teacher, QATConfig(contrastive_weight=0))
        >>> round(loss(teacher, packed.batch_at(0)).mean.item(), 4)  # nothing to learn from itself
        0.0
    """

    def loss(student: nn.Module, batch: Batch) -> Total:
        context = batch.context()
        with torch.no_grad():
            theirs = teacher.hidden(batch.tokens, context=context)
            target = teacher.logits(theirs)
        ours = student.hidden(batch.tokens, context=context)
        nats = logit_distillation(student.logits(ours), target)
        if config.contrastive_weight:
            contrast = token_contrast(ours, theirs, config.temperature)
            nats = nats + config.contrastive_weight * contrast
        return Total(nats, batch.tokens.numel())

    return loss


def mean_cosine(vectors: Float[Tensor, "n D"]) -> float:
    """Mean cosine of all pairs of vectors, from 0 (all different) to 1 (all alike, homogeneous).

    Args:
        vectors: such as the rows of a table of tokens; zeros have no direction and are left out.

    Example:
        >>> round(mean_cosine(torch.tensor([[1.0, 0.0], [2.0, 0.0], [0.0, 1.0]])), 4)  # 1, 0, 0
        0.3333
    """
    x = vectors.detach().double()
    units = nn.functional.normalize(x[x.any(dim=-1)], dim=-1)
    n = len(units)
    # |Σ u|² counts every pair twice, and every vector with itself once
    return (units.sum(dim=0).square().sum().item() - n) / max(1, n * (n - 1))
