"""LookupFFN (查表代替计算): rows of tables are looked up and added, in place of two large matrices.

A feed-forward layer multiplies x with every column of a matrix, and most of the products are bent
to almost nothing. Here x only decides which numbers are fetched. It is projected to h · τ numbers
z; the signs of τ of them spell a row of a table of 2^τ rows, and of h tables h rows are added:

    row_k(x) = the bits z_k1 > 0, z_k2 > 0, …, z_kτ > 0
    y        = Σ_k s(z_k) T_k[row_k(x)]          s(z) = (Σ_j |z_j|) · Π_j σ(2 |z_j|)

A sign has no gradient, so the weight s must teach the projection. It comes from a soft lookup
(软查表) in which every row i speaks. With S_i its τ signs, a softmax over all rows falls apart into
a product of sigmoids:

    p_i(z) = exp⟨z, S_i⟩ / Σ_j exp⟨z, S_j⟩ = Π_j σ(2 S_ij z_j)
    soft:    y = Σ_k Σ_i ⟨z_k, S_i⟩ p_i(z_k) T_ki

Of these 2^τ weights the addressed row has the largest, and s is that weight: the others are left
out, in training too. So a step changes only the rows that were read, and what is computed hardly
grows with the tables. FLOPs are saved, bytes are spent.

The projection is a matrix, or for large D the paper's BH4: four block-diagonal matrices, each
followed by a Hadamard transform (`hadamard`), which mixes all numbers by sums and differences.

Paper: Zeng et al. 2024, "LookupFFN", arXiv:2403.07221, equations (6), (10) and (13) with one row a
table (N = 1) and the projection BH4. s is that of the authors' code (mlpen/LookupFFN,
compute_code_score), which weights p by ⟨z, S⟩. Theirs to ours: R_k is the projection, N rows of a
table are kept.
Differs: BH4 is as narrow as D, a power of two, without their mixture with x (0.3 of it) and their
padding; no norm inside and no bias added to y; `soft` lets all rows speak, for comparison.

Chapter: 10
"""

import copy
import math
from dataclasses import dataclass
from typing import final

import torch
from einops import einsum, rearrange
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from minillm.model.attention import Context
from minillm.model.transformer import Transformer

N_FACTORS = 4  # BH4: block-diagonal, Hadamard, four times

# --- the lookup ---------------------------------------------------------------------------------


def row_bits(bits: int, device: torch.device | str = "cpu") -> Bool[Tensor, "rows bits"]:
    """The signs that spell each row: bit j of its number says whether z_j must be above 0.

    Example:
        >>> row_bits(2).int()
        tensor([[0, 0],
                [1, 0],
                [0, 1],
                [1, 1]], dtype=torch.int32)
    """
    rows, bit_positions = torch.arange(2**bits, device=device), torch.arange(bits, device=device)
    return (rows[:, None] >> bit_positions) % 2 == 1


def row_weights(z: Float[Tensor, "... h bits"]) -> Float[Tensor, "... h rows"]:
    """⟨z, S_i⟩ p_i(z): how loud each row of each table is, if all may speak; 2^τ numbers a table.

    Example:
        >>> row_weights(torch.tensor([[1.0, 2.0]]))  # rows --, +-, -+, ++; 3 · σ(2) · σ(4) = 2.595
        tensor([[-0.0064, -0.0158,  0.1171,  2.5949]])
    """
    towards = z @ (2 * row_bits(z.shape[-1], z.device).to(z.dtype) - 1).T  # ⟨z, S_i⟩
    return towards * torch.softmax(towards, dim=-1)


def lookup_soft(
    z: Float[Tensor, "... h bits"], tables: Float[Tensor, "h rows D"]
) -> Float[Tensor, "... D"]:
    """Every row of every table, each with its weight: 2^τ times the work of `lookup`."""
    return einsum(row_weights(z), tables, "... h rows, h rows D -> ... D")


def lookup_naive(
    z: Float[Tensor, "... h bits"], tables: Float[Tensor, "h rows D"]
) -> Float[Tensor, "... D"]:
    """As `lookup_soft`, but in each table only the loudest row: what `lookup` must give."""
    weights = row_weights(z)
    loudest = nn.functional.one_hot(weights.argmax(dim=-1), weights.shape[-1])
    return einsum(weights * loudest, tables, "... h rows, h rows D -> ... D")


def addresses(z: Float[Tensor, "... h bits"]) -> Int[Tensor, "... h"]:
    """Which row of each table: τ signs read as a number, the first as ones, the next as twos."""
    return ((z > 0).long() << torch.arange(z.shape[-1], device=z.device)).sum(dim=-1)


def lookup(
    z: Float[Tensor, "... h bits"], tables: Float[Tensor, "h rows D"]
) -> Float[Tensor, "... D"]:
    """One row of each table, fetched and added; rows that nobody reads get a gradient of zero.

    Args:
        z: what x was projected to; signs address, sizes weight.
        tables: 2^τ rows each.

    Example:
        >>> z = torch.tensor([[1.0, 2.0]])  # one table, both signs positive: row 3
        >>> lookup(z, torch.tensor([[[0.0], [0.0], [0.0], [10.0]]]))
        tensor([25.9486])
    """
    size = z.abs()
    weights = size.sum(dim=-1) * nn.functional.logsigmoid(2 * size).sum(dim=-1).exp()
    n_tables, rows_per_table, d_model = tables.shape
    rows = addresses(z) + rows_per_table * torch.arange(n_tables, device=z.device)
    y = nn.functional.embedding_bag(
        rows.reshape(-1, n_tables),
        tables.reshape(-1, d_model),
        mode="sum",
        per_sample_weights=weights.reshape(-1, n_tables),
    )
    return y.reshape(*z.shape[:-2], d_model)


# --- the projection -----------------------------------------------------------------------------


def hadamard(x: Float[Tensor, "... D"]) -> Float[Tensor, "... D"]:
    """The Hadamard transform (哈达玛变换) over √D: sums and differences, D log2 D of them.

    Again and again every number meets a partner, 1, 2, 4, … places away, and the two become their
    sum and their difference. In the end each comes from all D. Done twice it gives x back.

    Args:
        x: D a power of two.

    Example:
        >>> hadamard(torch.tensor([3.0, 1.0, 0.0, 0.0]))  # sums 4 and 0, differences 2 and 0
        tensor([2., 1., 2., 1.])
    """
    d_model = x.shape[-1]
    apart = 1
    while apart < d_model:
        pairs = rearrange(x, "... (n two apart) -> ... n two apart", two=2, apart=apart)
        first, second = pairs.unbind(dim=-2)
        x = torch.stack((first + second, first - second), dim=-2).reshape(x.shape)
        apart *= 2
    return x / math.sqrt(d_model)


def bh4(
    x: Float[Tensor, "... D"], blocks: Float[Tensor, "copies factors n b c"]
) -> Float[Tensor, "... N"]:
    """Four times: blocks of b numbers are multiplied by a matrix each, then `hadamard` mixes all.

    Args:
        x: D = n · b numbers.
        blocks: b = c; each copy gives D other numbers of the same x.

    Returns:
        copies · D numbers.
    """
    x = x[..., None, :].expand(*x.shape[:-1], len(blocks), x.shape[-1])
    for factor in blocks.unbind(dim=1):
        parts = rearrange(x, "... copies (n b) -> ... copies n b", n=factor.shape[1])
        parts = einsum(parts, factor, "... copies n b, copies n b c -> ... copies n c")
        x = hadamard(rearrange(parts, "... copies n c -> ... copies (n c)"))
    return rearrange(x, "... copies D -> ... (copies D)")


# --- what it costs ------------------------------------------------------------------------------


def swiglu_flops(d_model: int, d_ff: int) -> int:
    """Floating-point operations of one token in a SwiGLU: 6 · D · F, and 5 · F for the gates.

    A gate is an exponential, a sum, a division and two products; each counts as one.
    """
    return 6 * d_model * d_ff + 5 * d_ff


def lookup_flops(d_model: int, n_tables: int, bits: int, block_width: int | None = None) -> int:
    """Floating-point operations of one token in a `LookupFFN` with hard rows; 2^τ does not occur.

    The projection is 2 · D · h · τ and one sum each for the biases, or with blocks of b
    4 · (2 · D · b + D · log2 D) for each D numbers; weights are 6 a number (size, two sums, an
    exponential, a division, a product), rows 2 · h · D.

    Example:
        >>> lookup_flops(64, n_tables=8, bits=8), swiglu_flops(64, d_ff=176)
        (9664, 68464)
        >>> lookup_flops(1024, 64, 8), lookup_flops(1024, 64, 8, block_width=16)
        (1183232, 306688)
    """
    n_numbers = n_tables * bits
    projection = 2 * d_model * n_numbers
    if block_width is not None:
        factor = 2 * d_model * block_width + d_model * (d_model.bit_length() - 1)
        projection = -(-n_numbers // d_model) * N_FACTORS * factor
    return projection + n_numbers + 6 * n_numbers + 2 * n_tables * d_model


# --- the layer ----------------------------------------------------------------------------------


@final
@dataclass(frozen=True, kw_only=True)
class LookupFFNConfig:
    """What a layer of lookups is built from.

    Args:
        n_tables: h.
        bits: τ; a table has 2^τ rows.
        block_width: b, for a projection by BH4; None for a matrix.
        soft: whether all rows of a table speak, not the loudest alone; for small τ.

    Raises:
        ValueError: a number below 1, more than 16 bits; from `build`, a width that is no power of
            two or that block_width does not divide, where there is one.

    Example:
        >>> layer = LookupFFNConfig(n_tables=4, bits=3).build(d_model=16)
        >>> {name: list(p.shape) for name, p in layer.named_parameters()}
        {'tables': [4, 8, 16], 'projection': [12, 16], 'bias': [12]}
    """

    n_tables: int = 8
    bits: int = 8
    block_width: int | None = None
    soft: bool = False

    def __post_init__(self):
        for name in ("n_tables", "bits", "block_width"):
            value = getattr(self, name)
            if value is not None and value < 1:
                raise ValueError(f"{name} must be at least 1; got {value}")
        if self.bits > 16:
            raise ValueError(
                f"bits must be at most 16, a table of 65536 rows; got {self.bits}, 2 to the power "
                "of that. Take more tables of fewer rows"
            )

    def build(
        self,
        d_model: int,
        *,
        device: torch.device | str = "cpu",
        dtype: torch.dtype = torch.float32,
    ) -> "LookupFFN":
        """The layer for a model of that width; numbers begin so that z has those of a normed x."""
        if d_model < 1:
            raise ValueError(f"d_model must be at least 1; got {d_model}")
        b = self.block_width
        if b is not None and (d_model & (d_model - 1) or d_model % b):
            raise ValueError(
                f"BH4 needs a width that is a power of two and a multiple of block_width, {b}; got "
                f"{d_model}. Change the width, or leave block_width out for a matrix"
            )
        return LookupFFN(
            d_model, self.n_tables, self.bits, b, soft=self.soft, device=device, dtype=dtype
        )


@final
class LookupFFN(nn.Module):
    """Project, spell rows, fetch and add: an `FFN`.

    Its numbers are bare parameters, since the projection must not begin as small as other matrices
    do (`initialise`): where z is near 0 all rows are as loud as any other, and all are silent.

    Args:
        d_model: D.
        n_tables, bits, block_width, soft: see `LookupFFNConfig`.
        device, dtype: of the parameters.
    """

    def __init__(
        self,
        d_model: int,
        n_tables: int,
        bits: int,
        block_width: int | None = None,
        *,
        soft: bool = False,
        device: torch.device | str = "cpu",
        dtype: torch.dtype = torch.float32,
    ):
        super().__init__()
        factory_kwargs = {"device": device, "dtype": dtype}
        self.bits, self.soft = bits, soft
        n_numbers = n_tables * bits
        self.tables = nn.Parameter(0.02 * torch.randn(n_tables, 2**bits, d_model, **factory_kwargs))
        if block_width is None:
            shape, n_summands = (n_numbers, d_model), d_model
        else:
            n_blocks, n_copies = d_model // block_width, -(-n_numbers // d_model)
            shape = (n_copies, N_FACTORS, n_blocks, block_width, block_width)
            n_summands = block_width
        self.projection = nn.Parameter(torch.randn(shape, **factory_kwargs) / math.sqrt(n_summands))
        self.bias = nn.Parameter(torch.zeros(n_numbers, **factory_kwargs))

    def project(self, x: Float[Tensor, "... D"]) -> Float[Tensor, "... h bits"]:
        """z, whose signs are the rows' names."""
        if self.projection.ndim == 2:
            z = x @ self.projection.T
        else:
            z = bh4(x, self.projection)[..., : len(self.bias)]
        return rearrange(z + self.bias, "... (h bits) -> ... h bits", bits=self.bits)

    def forward(
        self, x: Float[Tensor, "B T D"], context: Context | None = None
    ) -> tuple[Float[Tensor, "B T D"], None]:
        """What is to be added to x; nothing is routed."""
        look = lookup_soft if self.soft else lookup
        return look(self.project(x), self.tables), None

    def extra_repr(self) -> str:
        """What `print(model)` shows."""
        n_tables, rows_per_table, d_model = self.tables.shape
        return f"{d_model}, n_tables={n_tables}, rows={rows_per_table}, soft={self.soft}"


def with_rows(model: Transformer, *, soft: bool) -> Transformer:
    """The same model, sharing all numbers, with its `LookupFFN` layers soft or not.

    Raises:
        ValueError: a model without such layers.
    """
    twin = copy.deepcopy(model, {id(p): p for p in model.parameters()})
    layers = [layer for layer in twin.modules() if isinstance(layer, LookupFFN)]
    if not layers:
        raise ValueError(
            "this needs a model with LookupFFN layers; got one without. Build it with "
            "TransformerConfig(ffn=LookupFFNConfig(...))"
        )
    for layer in layers:
        layer.soft = soft
    return twin
