"""GPTQ: round a column, then move the columns that are still to come so that outputs stay.

Round to nearest makes each weight's error small. What counts is the error of the outputs, W x, over
the inputs that a layer meets, X of [columns, N]:

    ‖W X - W' X‖²  =  Σ over rows  (w - w') H/2 (w - w')ᵀ          H = 2 X Xᵀ, the **Hessian**

Where two inputs are alike (off the diagonal of H), one weight's error can be undone by the other's
weight. So the columns are rounded one after the other, and each error e is spread over those not
yet rounded, as well as it can be (optimal brain quantization, OBQ, 最优脑量化):

    weights     0.4   0.4         inputs always equal: H = [[1 1] [1 1]], and a little damping
    round       0     0.8         the second takes what the first lost
    round       0     1           outputs 0.8 → 1; to nearest they would be 0

How far each column moves stands in H⁻¹ of the columns that are left. All of these inverses are read
off one matrix, the upper Cholesky factor U of H⁻¹ = Uᵀ U: with the error divided by U_jj, column k
moves by U_jk. Where H is diagonal nothing moves, and GPTQ is round to nearest.

H is often singular, with fewer calibration rows (校准数据) than columns, or inputs that are never
active (dead columns). So a share of its mean diagonal is added to the diagonal, **damping** (阻尼).

Paper: Frantar et al. 2022, "GPTQ", arXiv:2210.17323, algorithm 1 and section 4, step 3 (damping by
1 %); order by activation, static groups and dead columns are of their code, IST-DASLab's `gptq.py`.
Differs: no blocks of columns with late updates, which only save a GPU's memory traffic. A dead
column is rounded to nearest; their code sets it to 0. The mean for damping is over live columns;
theirs counts dead ones as 1. Grids are symmetric unless asked otherwise, theirs asymmetric; scales
are of 16 bits. With `ordered`, groups keep the columns and scales that they have without it (their
"static groups").

Chapter: 18
"""

from typing import final

import torch
from jaxtyping import Float, Float64
from torch import Tensor

from minillm.quant import rtn
from minillm.quant.rtn import Grid, Quantized

DAMPING = 0.01


def hessian(x: Float[Tensor, "*rows columns"]) -> Float64[Tensor, "columns columns"]:
    """H = 2 X Xᵀ, where a row of x is one input.

    Example:
        >>> hessian(torch.tensor([[1.0, 2.0], [0.0, 1.0]])).tolist()
        [[2.0, 4.0], [4.0, 10.0]]
    """
    x = x.reshape(-1, x.shape[-1]).double()
    return 2 * x.T @ x


@final
class Hessian:
    """H of inputs that come in parts, and how many there were.

    Args:
        columns: how many numbers an input has.
        device: where they come from.

    Example:
        >>> total = Hessian(columns=2)
        >>> for part in torch.tensor([[[1.0, 2.0]], [[0.0, 1.0]]]):
        ...     total.add(part)
        >>> total.matrix.tolist(), total.n_inputs
        ([[2.0, 4.0], [4.0, 10.0]], 2)
    """

    def __init__(self, columns: int, device: torch.device | str = "cpu"):
        self.matrix = torch.zeros(columns, columns, dtype=torch.float64, device=device)
        self.n_inputs = 0

    def add(self, x: Float[Tensor, "*rows columns"]) -> None:
        """Count these inputs too."""
        self.matrix += hessian(x)
        self.n_inputs += x.shape[:-1].numel()


def quantize(
    weight: Float[Tensor, "rows columns"],
    hessian: Float64[Tensor, "columns columns"],
    grid: Grid,
    *,
    damping: float = DAMPING,
    ordered: bool = False,
) -> Quantized:
    """A matrix of codes whose outputs are near, rather than its weights.

    Args:
        weight: the matrix.
        hessian: of its inputs; any multiple of it gives the same.
        grid: bits, granularity, symmetry, clipping. A group's scale is taken when its first column
            is reached, from the weights as they have become; all others from them as they were.
        damping: what is added to the diagonal of H, as a share of its mean.
        ordered: round the columns of the largest inputs first (activation order), when the most
            columns are left to answer for their errors.

    Raises:
        ValueError: what `minillm.quant.rtn.quantize` refuses; a Hessian that is singular, or has a
            NaN; a damping below 0.

    Example:
        >>> weight, alike = torch.tensor([[0.9, 0.9, 2.0]]), torch.eye(3).double()
        >>> alike[0, 1] = alike[1, 0] = 0.99  # the first two inputs are nearly equal
        >>> rtn.quantize(weight, Grid(bits=2)).dequantize().tolist()  # the scale is 2
        [[0.0, 0.0, 2.0]]
        >>> quantize(weight, alike, Grid(bits=2)).dequantize().tolist()
        [[0.0, 2.0, 2.0]]
    """
    rows, columns = weight.shape
    n, is_group = grid.block_size(rows, columns), type(grid.granularity) is int
    scale, zero = rtn.checked(rtn.scale_for(weight.reshape(-1, n), grid), weight)
    scale, zero = (part.view(-1, max(1, columns // n)) for part in (scale, zero))  # [rows, groups]
    # 1. the order of the columns
    order = torch.arange(columns, device=weight.device)
    if ordered:
        order = hessian.diagonal().argsort(descending=True, stable=True)
    left = weight.double()[:, order]
    # 2. U, the upper Cholesky factor of H⁻¹
    U = _factor(hessian[order][:, order], damping)
    codes = torch.empty(rows, columns, dtype=torch.uint8, device=weight.device)
    for step, column in enumerate(order.tolist()):
        group = column // n
        if is_group and not ordered and column % n == 0:
            now = rtn.checked(rtn.scale_for(left[:, step : step + n], grid), weight)
            scale[:, group], zero[:, group] = now
        # 3. round one column
        its_grid = scale[:, group].expand(rows), zero[:, group].expand(rows)
        codes[:, column] = rtn.encode(left[:, step, None], *its_grid, grid.bits)[:, 0]
        # 4. spread its error over the columns that are left
        error = left[:, step] - rtn.decode(codes[:, column, None], *its_grid)[:, 0]
        left[:, step + 1 :] -= torch.outer(error / U[step, step], U[step, step + 1 :])
    return rtn.of(codes, scale.reshape(-1), zero.reshape(-1), grid)


def _factor(hessian: Tensor, damping: float) -> Tensor:
    if not 0 <= damping < torch.inf:
        raise ValueError(f"damping must be a number of at least 0; got {damping}")
    if not hessian.isfinite().all():
        raise ValueError(
            "the Hessian has a NaN or an infinity; so had the inputs that it was made from"
        )
    # 1. dead columns: nothing is known of them, so they stand for themselves
    diagonal = hessian.diagonal()
    dead = diagonal == 0
    mean = diagonal.sum() / (~dead).sum().clamp(min=1)
    # 2. damping
    added = torch.where(dead, 1.0, damping * mean)
    damped = hessian + torch.diag(added)
    lower, failed = torch.linalg.cholesky_ex(damped)
    if failed or lower.diagonal().min() ** 2 < 1e-13 * damped.diagonal().max():
        raise ValueError(
            f"the Hessian of {len(hessian)} columns is singular with a damping of {damping:g}: "
            "some inputs are sums of others, as they are with fewer calibration rows than "
            f"columns. Take more calibration text, or a larger damping, such as {DAMPING}"
        )
    return torch.linalg.cholesky(torch.cholesky_inverse(lower), upper=True)
