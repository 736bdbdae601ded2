"""What becomes of each matrix of a model, as data: method, grid, and bytes before and after.

    matrix              shape       method  numbers          bytes before    after
    embedding           1024 × 128  kept                          524,288  524,288
    blocks.0.mixer.qkv  384 × 128   gptq    4 bits, group 32      196,608   27,648
    …
    others                          kept                            5,632    5,632

Every `nn.Linear` is in it, of whatever mixer, feed-forward part or expert. Kept in float are
routers, whose few numbers decide where whole tokens go, and all that is no matrix. The tables of
tokens, a seventh of a small model, are kept as well unless `tables` asks for them. They are then
rounded to nearest, with GPTQ too: the inputs of a table are single rows, its Hessian is diagonal.

Paper: none.
Differs: none.

Chapter: 18
"""

from dataclasses import dataclass, replace
from typing import final

from torch import Tensor, nn

from minillm.experts.moe import MoE
from minillm.model.transformer import Transformer
from minillm.quant import gptq, layers, rtn
from minillm.quant.nf4 import NF4Config
from minillm.quant.rtn import Grid

METHODS = ("rtn", "gptq", "nf4")


@final
@dataclass(frozen=True, kw_only=True)
class Line:
    """What becomes of one matrix.

    Args:
        name: its module's; "others" for all that is no matrix.
        shape: rows and columns.
        method: one of `METHODS`, or "kept".
        grid: which numbers its weights may become; None where it is kept.
        bytes_before, bytes_after: in the model's type; packed, with scales.
        note: what is not as it was asked for.
    """

    name: str
    shape: tuple[int, int] | None = None
    method: str = "kept"
    grid: Grid | NF4Config | None = None
    bytes_before: int
    bytes_after: int
    note: str = ""

    def cells(self) -> list[str]:
        """Its row of the table."""
        shape = "" if self.shape is None else "{} × {}".format(*self.shape)
        numbers = "" if self.grid is None else str(self.grid)
        sizes = f"{self.bytes_before:,}", f"{self.bytes_after:,}"
        return [self.name, shape, self.method, numbers, *sizes, self.note]


@final
@dataclass(frozen=True, kw_only=True)
class Plan:
    """What becomes of each matrix of a model; `print` shows a table.

    Args:
        lines: one a matrix, in the model's order, and one for all else.
        damping, ordered: of GPTQ.
    """

    lines: tuple[Line, ...]
    damping: float = gptq.DAMPING
    ordered: bool = False

    @property
    def quantized(self) -> dict[str, Line]:
        """The lines of matrices that are not kept, by name."""
        return {line.name: line for line in self.lines if line.method != "kept"}

    @property
    def bytes_before(self) -> int:
        """Of all parameters."""
        return sum(line.bytes_before for line in self.lines)

    @property
    def bytes_after(self) -> int:
        """Likewise, scales included."""
        return sum(line.bytes_after for line in self.lines)

    @property
    def bits_per_weight(self) -> float:
        """Of the matrices that are quantized, scales included."""
        lines = self.quantized.values()
        n_weights = sum(line.shape[0] * line.shape[1] for line in lines)
        return 8 * sum(line.bytes_after for line in lines) / n_weights

    def __str__(self) -> str:
        rows = [["matrix", "shape", "method", "numbers", "bytes before", "after", ""]]
        rows += [line.cells() for line in self.lines]
        sizes = [max(map(len, column)) for column in zip(*rows, strict=True)]
        align = (*[str.ljust] * 4, str.rjust, str.rjust, str.ljust)
        return "\n".join(
            "  ".join(put(cell, size) for put, cell, size in zip(align, row, sizes, strict=True))
            for row in rows
        )


def plan(
    model: Transformer,
    method: str,
    grid: Grid | NF4Config | None = None,
    *,
    tables: bool | Grid = False,
    damping: float = gptq.DAMPING,
    ordered: bool = False,
) -> Plan:
    """What would become of each matrix of a model.

    Args:
        model: in float.
        method: "rtn", "gptq" or "nf4".
        grid: a `Grid`; for nf4 an `NF4Config`. None for the default. A group that does not divide
            a row is replaced by the nearest that does, up to a factor of two, with a note.
        tables: whether the tables of tokens are quantized, too; a grid of their own for rtn.
        damping, ordered: see `minillm.quant.gptq.quantize`.

    Raises:
        ValueError: another method, or a grid that is not its; a model that is quantized already; a
            matrix whose rows no such group divides; weights that are NaN or infinite, with their
            name.

    Example:
        >>> from minillm.model.config import tiny
        >>> chosen = plan(tiny(vocab_size=50).build(), "rtn", Grid(bits=4, granularity=32))
        >>> for line in (chosen.lines[1], chosen.lines[4]):
        ...     print(line.name, line.grid, line.bytes_after, line.note, sep="; ")
        blocks.0.mixer.qkv; 4 bits, group 32; 6912;
        blocks.0.ffn.down; 4 bits, group 44; 6144; 32 does not divide 176
    """
    grid_type = NF4Config if method == "nf4" else Grid
    grid = grid_type() if grid is None else grid
    if method not in METHODS or not isinstance(grid, grid_type):
        raise ValueError(
            "a method is rtn or gptq, with a Grid, or nf4, with an NF4Config; got "
            f"{method!r} with {grid!r}"
        )
    if name := next((name for name, _ in layers.matrices(model)), None):
        raise ValueError(
            f"the model is quantized already ({name}); take the one that it was made from"
        )
    of_tables = (model.embedding, model.head)
    routers = [layer.router for layer in model.modules() if isinstance(layer, MoE)]
    of_table = ("", grid)
    if isinstance(tables, Grid):
        of_table = ("rtn", tables)
    elif tables:
        of_table = ("rtn" if method == "gptq" else method, grid)
    how_of = dict.fromkeys(of_tables, of_table) | dict.fromkeys(routers, ("", grid))
    lines = [
        _line(name, module.weight, *how_of.get(module, (method, grid)))
        for name, module in model.named_modules()
        if isinstance(module, nn.Linear | nn.Embedding)
    ]
    rest = sum(tensor.nbytes for tensor in model.state_dict().values())
    rest -= sum(line.bytes_before for line in lines)
    others = Line(name="others", bytes_before=rest, bytes_after=rest)
    return Plan(lines=(*lines, others), damping=damping, ordered=ordered)


def _line(name: str, weight: Tensor, method: str, grid: Grid | NF4Config) -> Line:
    shape, before, note = tuple(weight.shape), weight.nbytes, ""
    if not method:
        return Line(name=name, shape=shape, bytes_before=before, bytes_after=before)
    if not weight.isfinite().all():
        raise ValueError(f"{name}: {rtn.NOT_FINITE}")
    if isinstance(grid, Grid) and type(grid.granularity) is int and shape[1] % grid.granularity:
        note = f"{grid.granularity} does not divide {shape[1]}"
        grid = replace(grid, granularity=_nearest(grid.granularity, name, shape[1]))
    return Line(
        name=name,
        shape=shape,
        method=method,
        grid=grid,
        bytes_before=before,
        bytes_after=grid.n_bytes(*shape),
        note=note,
    )


def _nearest(n: int, name: str, columns: int) -> int:
    """The size of a group that divides the row, as near to n as there is."""
    sizes = rtn.divisors(columns)
    near = [size for size in sizes if n <= 2 * size <= 4 * n]
    if not near:
        raise ValueError(
            f"{name} has rows of {columns}, which neither groups of {n} nor of a size near that "
            f"divide; these would: {', '.join(map(str, sizes))}"
        )
    return min(near, key=lambda size: max(size / n, n / size))
