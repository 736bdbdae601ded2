"""Adafactor: Adam's division by the size of the gradients, remembered by rows and columns only.

Adam keeps a second moment V of each weight: as many numbers as there are weights. Adafactor keeps,
of an n×m matrix, the mean of each row and of each column of what V would be, n + m numbers, and
rebuilds V from them as if it had rank one:

    R ← β R + (1 - β) mean over columns of (G² + ε₁)      β = 1 - t^-0.8, at step t = 1, 2, ...
    C ← β C + (1 - β) mean over rows of (G² + ε₁)
    V[i, j] = R[i] C[j] / mean(R)
    U = G / √V
    update = U / max(1, RMS(U) / d)                    RMS: the root of the mean square

Vectors (the gains of norms, biases) keep V in full. At step 1, β is 0, so no average begins too
small and none needs a correction. The last line is update clipping (更新裁剪): when gradients grow
faster than V learns of it, U is longer than it should be, and only then it is shortened. There is
no momentum.

Kept: 4 (n + m) bytes for an n×m matrix of float32, 4 n for a vector; AdamW keeps 8 n m and 8 n.
Memory has the type of its parameter, and a long average in bfloat16 soon stands still (a share of
1/512 that is added is lost): keep weights in float32.

Paper: Shazeer and Stern 2018, "Adafactor", arXiv:1804.04235, algorithms 4 (matrices) and 5
(vectors); section 3 on rows and columns, 6 on clipping, 7 on β; section 8 on `relative_size`.
Theirs to ours: R is `rows`, C is `columns`, V̂ of a vector is `full`, β̂₂ₜ is β, c of section 7.2 is
`decay_power`, d is `clip`, ε₁ is `epsilon`, ε₂ is `scale_floor`.
Differs: R and C hold means, the paper's sums: V is the same. The learning rate comes from outside,
where the paper has min(0.01, 1/√t) max(ε₂, RMS(weight)); `scale_floor=1e-3` gives the second
factor. Of tensors with three axes or more each matrix of the last two is factored.
torch.optim.Adafactor puts no ε₁ into the averages, but a floor under mean(R) and √V; it always has
the factor max(ε₂, RMS(weight)), and holds lr below 1/√t. transformers' Adafactor with
relative_step=False is ours, but that its weight decay is multiplied by the factor, too.

Chapter: 06
"""

import math
from collections.abc import Callable
from typing import Any, NamedTuple, final

import torch
from jaxtyping import Float
from torch import Tensor


class AdafactorMatrix(NamedTuple):
    """What is remembered of an n×m matrix: n + m numbers."""

    rows: Float[Tensor, "*stack n"]
    columns: Float[Tensor, "*stack m"]


class AdafactorVector(NamedTuple):
    """What is remembered of a vector, or of a single number."""

    full: Float[Tensor, "..."]


def adafactor_state(weight: Float[Tensor, "..."]) -> AdafactorMatrix | AdafactorVector:
    """The state before the first step: zeros, of the weight's type and on its device."""
    if weight.ndim < 2:
        return AdafactorVector(torch.zeros_like(weight))
    by_column = (*weight.shape[:-2], weight.shape[-1])
    return AdafactorMatrix(weight.new_zeros(weight.shape[:-1]), weight.new_zeros(by_column))


def factored(
    rows: Float[Tensor, "*stack n"], columns: Float[Tensor, "*stack m"]
) -> Float[Tensor, "*stack n m"]:
    """The matrix of rank one that has these means: R[i] C[j] / mean(R).

    It is exact for a matrix of rank one. For any other it keeps each row's mean and each column's,
    and of all matrices of rank one it is the nearest in the sense of the paper's section 3.

    Args:
        rows: R, the mean of each row, all above 0.
        columns: C, the mean of each column; its mean is that of `rows`.

    Example:
        >>> factored(torch.tensor([2.0, 6.0]), torch.tensor([3.0, 5.0]))  # of [[1, 3], [5, 7]]
        tensor([[1.5000, 2.5000],
                [4.5000, 7.5000]])
    """
    share = rows / rows.mean(dim=-1, keepdim=True)  # R[i] / mean(R)
    return share.unsqueeze(-1) * columns.unsqueeze(-2)  # times C[j]: [n 1] · [1 m]


def over_root(
    x: Float[Tensor, "*stack n m"],
    rows: Float[Tensor, "*stack n"],
    columns: Float[Tensor, "*stack m"],
) -> Float[Tensor, "*stack n m"]:
    """x / √factored(rows, columns), without building that matrix.

    Two roots are better than the root of a product: where a row and a column have had no gradient,
    both numbers are about ε₁ = 1e-30, and their product is 0 in float32.

    Example:
        >>> over_root(torch.ones(1, 2), torch.tensor([10.0]), torch.tensor([4.0, 16.0]))
        tensor([[0.5000, 0.2500]])
    """
    share = rows / rows.mean(dim=-1, keepdim=True)
    return x * share.rsqrt().unsqueeze(-1) * columns.rsqrt().unsqueeze(-2)


def root_mean_square(x: Float[Tensor, "..."]) -> Float[Tensor, ""]:
    """√mean(x²), the size of a typical entry.

    Example:
        >>> root_mean_square(torch.tensor([1.0, 7.0]))
        tensor(5.)
    """
    return torch.linalg.vector_norm(x) / math.sqrt(x.numel())


def clipped(update: Float[Tensor, "..."], clip: float = 1.0) -> Float[Tensor, "..."]:
    """The update, shortened to a root mean square of `clip` if its own is above that.

    Example:
        >>> clipped(torch.tensor([1.0, 7.0])), clipped(torch.tensor([0.1, 0.7]))
        (tensor([0.2000, 1.4000]), tensor([0.1000, 0.7000]))
    """
    return update / (root_mean_square(update) / clip).clamp(min=1.0)


def relative_size(weight: Float[Tensor, "..."], floor: float = 1e-3) -> Float[Tensor, ""]:
    """max(floor, RMS(weight)): times the update, a step is a share of the weight's own size.

    The floor (the paper's ε₂) lets weights that begin at 0 move at all.

    Example:
        >>> relative_size(torch.tensor([0.3, -0.3])), relative_size(torch.zeros(2))
        (tensor(0.3000), tensor(0.0010))
    """
    return root_mean_square(weight).clamp(min=floor)


def adafactor_update(
    gradient: Float[Tensor, "..."],
    state: AdafactorMatrix | AdafactorVector,
    step: int,
    *,
    decay_power: float = 0.8,
    clip: float = 1.0,
    epsilon: float = 1e-30,
) -> tuple[Float[Tensor, "..."], AdafactorMatrix | AdafactorVector]:
    """One step for one parameter; nothing that was given is changed.

    Args:
        gradient: G.
        state: of the step before; before the first step `adafactor_state(gradient)`.
        step: t, 1 at the first step.
        decay_power: β is 1 - t^-decay_power.
        clip: d, the largest root mean square of the update.
        epsilon: ε₁, is added to G², so that nothing is divided by 0.

    Returns:
        The update, of which lr times is to be subtracted from the weight, and the new state.

    Raises:
        ValueError: a step below 1; a state of another shape; an epsilon that is 0 in the
            gradient's type (1e-30 is, in float16).

    Example:
        >>> gradient = torch.tensor([[1.0, -2.0], [3.0, 6.0]])  # G² is of rank one, so V is G²
        >>> update, state = adafactor_update(gradient, adafactor_state(gradient), step=1)
        >>> update, state.rows, state.columns
        (tensor([[ 1., -1.], [ 1., 1.]]), tensor([ 2.5000, 22.5000]), tensor([ 5., 20.]))
    """
    _check_update(gradient, state, step, epsilon)
    new_share = step**-decay_power  # 1 - β
    squares = gradient.square() + epsilon  # G² + ε₁
    # 1. the running mean of G²: of a vector V itself, of a matrix R and C, its rows' and columns'
    # 2. the update G / √V, for a matrix with V[i, j] = R[i] C[j] / mean(R)
    if isinstance(state, AdafactorVector):
        state = AdafactorVector(torch.lerp(state.full, squares, new_share))
        update = gradient * state.full.rsqrt()
    else:
        state = AdafactorMatrix(
            torch.lerp(state.rows, squares.mean(dim=-1), new_share),
            torch.lerp(state.columns, squares.mean(dim=-2), new_share),
        )
        update = over_root(gradient, state.rows, state.columns)
    # 3. shortened to a root mean square of d at most
    return clipped(update, clip), state


@final
class Adafactor(torch.optim.Optimizer):
    """weight ← weight - lr (update + weight_decay · weight), by `adafactor_update`.

    Args:
        parameters: of a model, or groups of them, as torch's optimizers take.
        lr: the learning rate, read at every step.
        decay_power, clip, epsilon: as in `adafactor_update`.
        scale_floor: with a number, the update is multiplied by `relative_size(weight,
            scale_floor)`, as in the paper, which has 1e-3; lr, about 0.01, is then a share.
        weight_decay: the share of a weight that lr = 1 would take away.

    Raises:
        ValueError: an option outside of its range, in any group; at a step, a sparse gradient, or
            what `adafactor_update` refuses.

    Example:
        >>> weight = torch.nn.Parameter(torch.tensor([[1.0, 2.0], [3.0, 4.0]]))
        >>> optimizer = Adafactor([weight], lr=0.5)
        >>> (weight * torch.tensor([[1.0, -2.0], [3.0, 6.0]])).sum().backward()
        >>> optimizer.step()
        >>> weight.detach()
        tensor([[0.5000, 2.5000],
                [2.5000, 3.5000]])
    """

    def __init__(
        self,
        parameters: Any,
        lr: float = 1e-3,
        *,
        decay_power: float = 0.8,
        clip: float = 1.0,
        epsilon: float = 1e-30,
        scale_floor: float | None = None,
        weight_decay: float = 0.0,
    ):
        options = {"lr": lr, "decay_power": decay_power, "clip": clip, "epsilon": epsilon}
        super().__init__(
            parameters, options | {"scale_floor": scale_floor, "weight_decay": weight_decay}
        )

    def add_param_group(self, param_group: dict[str, Any]) -> None:
        """One more group, with its own options; torch calls this for the first ones, too."""
        _check_options(self.defaults | param_group)
        super().add_param_group(param_group)

    @torch.no_grad()
    def step(self, closure: Callable[[], Any] | None = None) -> Any:
        """One step for all parameters that have a gradient; returns the closure's loss, if any."""
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        for group in self.param_groups:
            for weight in group["params"]:
                if weight.grad is not None:
                    self._step_one(weight, group)
        return loss

    def _step_one(self, weight: Tensor, group: dict[str, Any]) -> None:
        if weight.grad.layout != torch.strided:
            raise ValueError(
                f"Adafactor needs dense gradients; got a sparse one, of shape {list(weight.shape)}."
                " Build that nn.Embedding with sparse=False"
            )
        state = self.state[weight]
        if not state:
            state.update(step=0, **adafactor_state(weight)._asdict())
        kind = AdafactorVector if weight.ndim < 2 else AdafactorMatrix
        update, new_state = adafactor_update(
            weight.grad,
            kind(**{name: state[name] for name in kind._fields}),
            state["step"] + 1,
            decay_power=group["decay_power"],
            clip=group["clip"],
            epsilon=group["epsilon"],
        )
        state.update(step=state["step"] + 1, **new_state._asdict())
        if group["scale_floor"] is not None:
            update = update * relative_size(weight, group["scale_floor"])
        weight.mul_(1 - group["lr"] * group["weight_decay"])
        weight.sub_(update, alpha=group["lr"])


def _check_update(
    gradient: Tensor, state: AdafactorMatrix | AdafactorVector, step: int, epsilon: float
) -> None:
    if step < 1:
        raise ValueError(f"steps are counted from 1, where β is 0; got step={step}")
    needed = {name: list(x.shape) for name, x in adafactor_state(gradient)._asdict().items()}
    given = {name: list(x.shape) for name, x in state._asdict().items()}
    if needed != given:
        raise ValueError(
            f"a gradient of shape {list(gradient.shape)} needs a state of shapes {needed}; got "
            f"{given}. Before the first step take adafactor_state(gradient)"
        )
    if epsilon < torch.finfo(gradient.dtype).tiny:
        raise ValueError(
            f"epsilon must be above 0 in the gradient's type too, but {epsilon} is lost in "
            f"{gradient.dtype}; keep the weights in float32 or bfloat16"
        )


def _check_options(options: dict[str, Any]) -> None:
    for name in ("lr", "weight_decay", "decay_power", "clip", "epsilon", "scale_floor"):
        value, zero = options[name], name in ("lr", "weight_decay")
        if name == "scale_floor" and value is None:
            continue
        number = isinstance(value, int | float) and not isinstance(value, bool)
        if not number or not 0 <= value < math.inf or (value == 0 and not zero):
            least = "of at least 0" if zero else "above 0"
            raise ValueError(f"{name} must be a finite number {least}; got {value!r}")
