"""A quantized matrix in the place of an `nn.Linear` or of a table of tokens.

Codes and scales are kept, as buffers; whenever the weight is asked for, numbers are made of them
(dequantization, 反量化). So a model computes as before, with the weights that it would have after
rounding; what is saved is memory, at the cost of time. Kernels that compute with the codes
themselves are in `minillm.quant.kernels`.

Paper: none.
Differs: none.

Chapter: 18
"""

from collections.abc import Callable, Iterator
from typing import final

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from minillm.quant.nf4 import NF4Config, NF4Quantized
from minillm.quant.rtn import Grid, Quantized

VALUES = {Grid: Quantized, NF4Config: NF4Quantized}


@final
class QuantizedMatrix(nn.Module):
    """The codes of a matrix and what makes numbers of them, as buffers.

    Args:
        value: codes and scales.
        dtype: of the numbers that come out.
    """

    def __init__(self, value: Quantized | NF4Quantized, dtype: torch.dtype):
        super().__init__()
        self.grid, self.dtype = value.grid, dtype
        for name in value.grid.layout(*value.codes.shape):
            self.register_buffer(name, getattr(value, name))

    @property
    def value(self) -> Quantized | NF4Quantized:
        """Codes and scales."""
        names = self.grid.layout(*self.codes.shape)
        parts = {name: getattr(self, name) for name in names}
        return VALUES[type(self.grid)](**parts, grid=self.grid)

    def forward(self) -> Float[Tensor, "rows columns"]:
        """The matrix."""
        return self.value.dequantize().to(self.dtype)

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> "QuantizedMatrix":
        """`model.to(...)`: a new type is that of the numbers; codes and scales only move."""
        self.dtype = fn(torch.empty(0, dtype=self.dtype)).dtype
        for name, part in self.named_buffers():
            setattr(self, name, part.to(fn(part).device))
        return self


@final
class QuantizedLinear(nn.Module):
    """What stands in the place of an `nn.Linear`.

    Args:
        matrix: its weight.
        bias: its bias, in float.
    """

    def __init__(self, matrix: QuantizedMatrix, bias: nn.Parameter | None = None):
        super().__init__()
        self.matrix, self.bias = matrix, bias
        self.out_features, self.in_features = matrix.codes.shape

    @property
    def weight(self) -> Float[Tensor, "rows columns"]:
        """The matrix as numbers, made at every call."""
        return self.matrix()

    def forward(self, x: Float[Tensor, "*rows columns"]) -> Float[Tensor, "*rows outputs"]:
        """W x + b."""
        return nn.functional.linear(x, self.weight, self.bias)


@final
class QuantizedEmbedding(nn.Module):
    """What stands in the place of an `nn.Embedding`.

    Args:
        matrix: the table.
    """

    def __init__(self, matrix: QuantizedMatrix):
        super().__init__()
        self.matrix = matrix
        self.num_embeddings, self.embedding_dim = matrix.codes.shape

    @property
    def weight(self) -> Float[Tensor, "V D"]:
        """The table as numbers, made at every call."""
        return self.matrix()

    def forward(self, tokens: Int[Tensor, "B T"]) -> Float[Tensor, "B T D"]:
        """The row of each token."""
        return nn.functional.embedding(tokens, self.weight)


def place(model: nn.Module, name: str, value: Quantized | NF4Quantized) -> None:
    """Put codes in the place of a matrix, in the model itself.

    Args:
        model: in which a module is replaced.
        name: of an `nn.Linear` or an `nn.Embedding`.
        value: its codes.

    Example:
        >>> from minillm.quant import rtn
        >>> model = nn.Sequential(nn.Linear(4, 2, bias=False))
        >>> place(model, "0", rtn.quantize(model[0].weight.detach(), Grid(bits=8)))
        >>> model(torch.ones(1, 4)).shape, [name for name, _ in matrices(model)]
        (torch.Size([1, 2]), ['0'])
    """
    module = model.get_submodule(name)
    matrix = QuantizedMatrix(value, module.weight.dtype)
    is_table = isinstance(module, nn.Embedding)
    layer = QuantizedEmbedding(matrix) if is_table else QuantizedLinear(matrix, module.bias)
    model.set_submodule(name, layer)


def matrices(model: nn.Module) -> Iterator[tuple[str, QuantizedMatrix]]:
    """Every quantized matrix of a model, with the name of the layer that holds it."""
    for name, module in model.named_modules():
        if isinstance(module, QuantizedMatrix):
            yield name.removesuffix(".matrix"), module
