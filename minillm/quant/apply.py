"""A quantized copy of a model, made by a plan.

Round to nearest and NF4 look at weights alone. GPTQ needs inputs: a few rows of text (校准数据,
calibration) pass through the copy block by block.

    block 0    text → block in float: what is each matrix given?   quantize them
               text → block as it is now → block 1, likewise

So each block answers for the errors of those before it. A matrix with fewer inputs than columns, as
an expert to which hardly any token was routed, is rounded to nearest, and the plan that comes back
says so.

Paper: Frantar et al. 2022, "GPTQ", arXiv:2210.17323, section 5 (setup): block by block, inputs from
the part that is quantized already.
Differs: none.

Chapter: 18
"""

import copy
from collections.abc import Iterable, Mapping
from dataclasses import replace
from typing import Any, NamedTuple, final

import torch
from jaxtyping import Int
from torch import Tensor, nn

from minillm.lab.track import track
from minillm.model.transformer import Transformer
from minillm.quant import gptq, nf4, rtn
from minillm.quant.gptq import Hessian
from minillm.quant.layers import place
from minillm.quant.nf4 import NF4Quantized
from minillm.quant.plan import Line, Plan
from minillm.quant.rtn import Quantized

AT_ONCE = 16  # rows of calibration text


class QuantizedModel(NamedTuple):
    """A model whose matrices are codes, and what was done to each.

    Args:
        model: the copy.
        plan: as it was carried out.
    """

    model: Transformer
    plan: Plan


@torch.no_grad()
def quantize(
    model: Transformer, plan: Plan, calibration: Int[Tensor, "B T"] | None = None
) -> QuantizedModel:
    """A copy of a model, with the matrices of a plan as codes.

    Args:
        model: from which the plan was made; it stays as it is.
        plan: from `plan`.
        calibration: rows of token ids, for GPTQ; more than the widest matrix has columns.

    Raises:
        ValueError: a plan of another model; GPTQ without calibration rows, with too few of them, or
            with a Hessian that is singular; a weight too large for its scale.

    Example:
        >>> from minillm.model.config import TransformerConfig
        >>> from minillm.quant.plan import plan
        >>> model = TransformerConfig(vocab_size=50, d_model=16, n_layers=2).build()
        >>> small, done = quantize(model, plan(model, "rtn", rtn.Grid(bits=8)))
        >>> small.blocks[0].mixer.qkv.weight.shape, done.bytes_before / done.bytes_after > 2
        (torch.Size([48, 16]), True)
    """
    _check(model, plan, calibration)
    small, lines = copy.deepcopy(model), {line.name: line for line in plan.lines}
    passes = _Passes(small, calibration) if _needs_inputs(plan) else None
    of_blocks = [
        [name for name, _ in block.named_modules(prefix=f"blocks.{n}") if name in plan.quantized]
        for n, block in enumerate(small.blocks)
    ]
    # 1. the tables: the text passes through them first
    outside = plan.quantized.keys() - {name for names in of_blocks for name in names}
    _convert(small, outside, lines, {}, plan)
    # 2. block by block: inputs, codes, and on with the text
    for block, names in zip(track(small.blocks, "quantizing"), of_blocks, strict=True):
        hessians = {} if passes is None else passes.hessians(small, block, names)
        _convert(small, names, lines, hessians, plan)
        if passes is not None:
            passes.go_on(block)
    return QuantizedModel(small, replace(plan, lines=tuple(lines.values())))


def _convert(
    small: Transformer,
    names: Iterable[str],
    lines: dict[str, Line],
    hessians: Mapping[str, Hessian],
    plan: Plan,
) -> None:
    """Put codes in the place of these matrices, and into `lines` what was done."""
    for name in names:
        weight = small.get_submodule(name).weight
        try:
            value, lines[name] = _value(weight, lines[name], hessians.get(name), plan)
        except ValueError as error:
            raise ValueError(f"{name}: {error}") from None
        place(small, name, value)


def _value(
    weight: Tensor, line: Line, hessian: Hessian | None, plan: Plan
) -> tuple[Quantized | NF4Quantized, Line]:
    """The codes of one matrix, and its line, which says so where it is not done as planned."""
    if line.method == "nf4":
        return nf4.quantize(weight, line.grid), line
    if line.method == "gptq" and hessian.n_inputs < weight.shape[1]:
        few = f"{hessian.n_inputs:,} inputs for {weight.shape[1]:,} columns"
        line = replace(line, method="rtn", note=f"{line.note}; {few}".removeprefix("; "))
    if line.method == "rtn":
        return rtn.quantize(weight, line.grid), line
    how = {"damping": plan.damping, "ordered": plan.ordered}
    return gptq.quantize(weight, hessian.matrix, line.grid, **how), line


def _needs_inputs(plan: Plan) -> bool:
    return any(line.method == "gptq" for line in plan.lines)


def _check(model: Transformer, plan: Plan, calibration: Tensor | None) -> None:
    modules = dict(model.named_modules())
    for name, line in plan.quantized.items():
        weight = getattr(modules.get(name), "weight", None)
        is_float = isinstance(modules.get(name), nn.Linear | nn.Embedding)
        if not is_float or tuple(weight.shape) != line.shape:
            raise ValueError(f"the plan is of another model: this one has no {name} {line.shape}")
    if not _needs_inputs(plan):
        return
    columns = max(line.shape[1] for line in plan.quantized.values())
    n_tokens = 0 if calibration is None else calibration.numel()
    if n_tokens < columns:
        raise ValueError(
            f"GPTQ needs calibration rows, of more tokens than the widest matrix has columns, "
            f"{columns:,}; got {n_tokens:,} tokens. Take a longer text; some thousand tokens are "
            "usual"
        )
    vocab_size = len(model.embedding.weight)
    if calibration.min() < 0 or calibration.max() >= vocab_size:
        raise ValueError(f"calibration must be of ids 0 to {vocab_size - 1}, the model's tokens")


@final
class _Passes:
    """The calibration text on its way through a model that changes behind it."""

    def __init__(self, model: Transformer, calibration: Tensor):
        calibration = calibration.to(model.embedding.weight.device)
        self.passes = [model.layers(rows) for rows in calibration.split(AT_ONCE)]
        self.inputs: list[tuple[Any, ...]] = []

    def hessians(
        self, model: Transformer, block: nn.Module, names: Iterable[str]
    ) -> dict[str, Hessian]:
        """What each matrix of the next block is given, while the text passes it in float."""
        self.inputs.clear()
        matrices = {name: model.get_submodule(name) for name in names}
        totals = {
            name: Hessian(matrix.in_features, matrix.weight.device)
            for name, matrix in matrices.items()
        }
        hooks = [block.register_forward_pre_hook(lambda _, inputs: self.inputs.append(inputs))]
        hooks += [
            matrix.register_forward_pre_hook(lambda _, x, total=totals[name]: total.add(x[0]))
            for name, matrix in matrices.items()
        ]
        for each in self.passes:
            next(each)
        for hook in hooks:
            hook.remove()
        return totals

    def go_on(self, block: nn.Module) -> None:
        """The same inputs through the block as it is now, whose output takes the former's place."""
        for each, inputs in zip(self.passes, self.inputs, strict=True):
            each.send(block(*inputs)[0])
