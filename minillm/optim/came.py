"""CAME: Adafactor with a momentum, and with less trust where updates disagree with it.

Adafactor's V is rebuilt from the means of rows and columns, so some entries of its update are
wrong. CAME keeps a running mean m of the updates and watches how far each new one lies from it. The
square of that distance, the instability, is remembered by rows and columns, as V is, and a step is
short where it is large:

    û = clipped(G / √V)                                 as in Adafactor, with a fixed β₂
    m ← β₁ m + (1 - β₁) û
    U = (û - m)² + ε₂                                   the instability (不稳定度)
    R ← β₃ R + (1 - β₃) mean over columns of U
    C ← β₃ C + (1 - β₃) mean over rows of U
    S[i, j] = R[i] C[j] / mean(R)
    direction = m / √S                                  1 / √S is the confidence (置信度)

Vectors keep V in full and have no confidence: their direction is m.

**The first step is long.** The running means begin at 0 without bias correction, and the division
by √S is not clipped. At step 1 every entry of the direction has the size

    (1 - β₁) / (β₁ √(1 - β₃))

which is 11.1 with the default betas (Adam: 1), 3.5 with β₃ = 0.999 and 1.1 with 0.99. So start with
a warm-up, and for runs below some thousand steps choose β₃ from 0.99 to 0.999.

Kept: 4 (n m + 2 n + 2 m) bytes for an n×m matrix of float32, 8 n for a vector; AdamW keeps 8 n m
and 8 n. Memory has the type of its parameter; in bfloat16 a share of 1 - β₃ = 0.0001 is lost when
it is added, so the averages soon stand still: keep weights in float32.

Paper: Luo et al. 2023, "CAME: Confidence-guided Adaptive Memory Efficient Optimization",
arXiv:2307.02047, algorithm 2. Theirs to ours: r and c are `rows` and `columns`, m is `momentum`, R
and C are `unstable_rows` and `unstable_columns`, v of a vector is `full`, d is `clip`, ε₁ and ε₂
are `epsilons`, η is lr.
Differs: means where the paper has sums; V and S are the same. Vectors, of which algorithm 2 does
not speak, are treated as in the authors' code (came_pytorch). That code keeps the memory of 16-bit
weights in float32, and remembers RMS(weight), which it never uses. Like it and the paper we correct
no average. β₁ = 0 is refused: m would be û, U only ε₂, and each step 10⁸ long.

Chapter: 06
"""

import math
from collections.abc import Callable
from typing import Any, NamedTuple, final

import torch
from jaxtyping import Float
from torch import Tensor

from minillm.optim.adafactor import clipped, over_root


class CAMEMatrix(NamedTuple):
    """What is remembered of an n×m matrix: n m + 2 n + 2 m numbers."""

    momentum: Float[Tensor, "*stack n m"]
    rows: Float[Tensor, "*stack n"]
    columns: Float[Tensor, "*stack m"]
    unstable_rows: Float[Tensor, "*stack n"]
    unstable_columns: Float[Tensor, "*stack m"]


class CAMEVector(NamedTuple):
    """What is remembered of a vector, or of a single number."""

    momentum: Float[Tensor, "..."]
    full: Float[Tensor, "..."]


def came_state(weight: Float[Tensor, "..."]) -> CAMEMatrix | CAMEVector:
    """The state before the first step: zeros, of the weight's type and on its device."""
    if weight.ndim < 2:
        return CAMEVector(torch.zeros_like(weight), torch.zeros_like(weight))
    by_row, by_column = weight.shape[:-1], (*weight.shape[:-2], weight.shape[-1])
    shapes = (weight.shape, by_row, by_column, by_row, by_column)
    return CAMEMatrix(*(weight.new_zeros(shape) for shape in shapes))


def confidence(
    update: Float[Tensor, "*stack n m"],
    momentum: Float[Tensor, "*stack n m"],
    rows: Float[Tensor, "*stack n"],
    columns: Float[Tensor, "*stack m"],
    *,
    beta: float = 0.9999,
    epsilon: float = 1e-16,
) -> tuple[Float[Tensor, "*stack n m"], Float[Tensor, "*stack n"], Float[Tensor, "*stack m"]]:
    """1 / √S: what CAME multiplies the momentum with; all that it adds to Adafactor.

    Args:
        update: û.
        momentum: m, which has taken in this update.
        rows, columns: R and C of the step before.
        beta: β₃.
        epsilon: ε₂.

    Returns:
        The confidence, and the new R and C.

    Example:
        >>> update, momentum = torch.tensor([[4.0, 0.0]]), torch.tensor([[2.0, 1.0]])  # U is 4, 1
        >>> old = torch.tensor([1.5]), torch.tensor([2.0, 1.0])
        >>> confidence(update, momentum, *old, beta=0.5)  # C is 3 and 1
        (tensor([[0.5774, 1.0000]]), tensor([2.]), tensor([3., 1.]))
    """
    instability = (update - momentum).square() + epsilon  # U = (û - m)² + ε₂
    # R ← β₃ R + (1 - β₃) mean of U's rows, C the same with columns; S[i, j] = R[i] C[j] / mean(R)
    rows = torch.lerp(rows, instability.mean(dim=-1), 1 - beta)
    columns = torch.lerp(columns, instability.mean(dim=-2), 1 - beta)
    return over_root(torch.ones_like(update), rows, columns), rows, columns


def came_update(
    gradient: Float[Tensor, "..."],
    state: CAMEMatrix | CAMEVector,
    *,
    betas: tuple[float, float, float] = (0.9, 0.999, 0.9999),
    clip: float = 1.0,
    epsilons: tuple[float, float] = (1e-30, 1e-16),
) -> tuple[Float[Tensor, "..."], CAMEMatrix | CAMEVector]:
    """One step for one parameter; nothing that was given is changed.

    No step is counted, since no average is corrected.

    Args:
        gradient: G.
        state: of the step before; before the first step `came_state(gradient)`.
        betas: β₁ of the momentum, β₂ of V, β₃ of the instability.
        clip: d, the largest root mean square of û. The direction may be longer.
        epsilons: ε₁, is added to G², and ε₂, to the instability.

    Returns:
        The direction, of which lr times is to be subtracted from the weight, and the new state.

    Raises:
        ValueError: a state of another shape; an epsilon that is 0 in the gradient's type (1e-30
            is, in float16).

    Example:
        >>> gradient = torch.tensor([[1.0, -2.0], [3.0, 6.0]])  # û is 1 or -1, m is û / 2
        >>> betas = (0.5, 0.75, 0.75)
        >>> update, state = came_update(gradient, came_state(gradient), betas=betas)
        >>> update, state.unstable_rows  # U is 1/4, R is 1/16, and (1/2) / √(1/16) is 2
        (tensor([[ 2., -2.], [ 2., 2.]]), tensor([0.0625, 0.0625]))
    """
    _check_update(gradient, state, epsilons)
    beta1, beta2, beta3 = betas
    squares = gradient.square() + epsilons[0]  # G² + ε₁
    if isinstance(state, CAMEVector):
        full = torch.lerp(state.full, squares, 1 - beta2)
        update = clipped(gradient * full.rsqrt(), clip)
        momentum = torch.lerp(state.momentum, update, 1 - beta1)
        return momentum.clone(), CAMEVector(momentum, full)
    # 1. û = clipped(G / √V), with V from the running means of rows and columns, as in Adafactor
    rows = torch.lerp(state.rows, squares.mean(dim=-1), 1 - beta2)
    columns = torch.lerp(state.columns, squares.mean(dim=-2), 1 - beta2)
    update = clipped(over_root(gradient, rows, columns), clip)
    # 2. the running mean of the updates: m ← β₁ m + (1 - β₁) û
    momentum = torch.lerp(state.momentum, update, 1 - beta1)
    # 3. the confidence 1 / √S, where S is the running mean of (û - m)²; the direction is m / √S
    trust, *unstable = confidence(
        update,
        momentum,
        state.unstable_rows,
        state.unstable_columns,
        beta=beta3,
        epsilon=epsilons[1],
    )
    return trust * momentum, CAMEMatrix(momentum, rows, columns, *unstable)


@final
class CAME(torch.optim.Optimizer):
    """weight ← weight - lr (direction + weight_decay · weight), by `came_update`.

    Args:
        parameters: of a model, or groups of them, as torch's optimizers take.
        lr: the learning rate, read at every step. The authors advise 0.5 to 0.9 of AdamW's.
        betas, clip, epsilons: as in `came_update`; see the first-step trap above on β₃.
        weight_decay: the share of a weight that lr = 1 would take away.

    Raises:
        ValueError: an option outside of its range, in any group; at a step, a sparse gradient, or
            what `came_update` refuses.

    Example:
        >>> weight = torch.nn.Parameter(torch.zeros(2, 2))
        >>> optimizer = CAME([weight], lr=0.5, betas=(0.5, 0.75, 0.75))
        >>> (weight * torch.tensor([[1.0, -2.0], [3.0, 6.0]])).sum().backward()
        >>> optimizer.step()
        >>> weight.detach()
        tensor([[-1.,  1.],
                [-1., -1.]])
    """

    def __init__(
        self,
        parameters: Any,
        lr: float = 1e-3,
        *,
        betas: tuple[float, float, float] = (0.9, 0.999, 0.9999),
        clip: float = 1.0,
        epsilons: tuple[float, float] = (1e-30, 1e-16),
        weight_decay: float = 0.0,
    ):
        options = {"lr": lr, "betas": betas, "clip": clip, "epsilons": epsilons}
        super().__init__(parameters, options | {"weight_decay": weight_decay})

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
                f"CAME needs dense gradients; got a sparse one, of shape {list(weight.shape)}. "
                "Build that nn.Embedding with sparse=False"
            )
        state = self.state[weight]
        if not state:
            state.update(came_state(weight)._asdict())
        kind = CAMEVector if weight.ndim < 2 else CAMEMatrix
        confident_update, new_state = came_update(
            weight.grad,
            kind(**{name: state[name] for name in kind._fields}),
            betas=group["betas"],
            clip=group["clip"],
            epsilons=group["epsilons"],
        )
        state.update(new_state._asdict())
        weight.mul_(1 - group["lr"] * group["weight_decay"])
        weight.sub_(confident_update, alpha=group["lr"])


def _check_update(
    gradient: Tensor, state: CAMEMatrix | CAMEVector, epsilons: tuple[float, float]
) -> None:
    needed = {name: list(x.shape) for name, x in came_state(gradient)._asdict().items()}
    given = {name: list(x.shape) for name, x in state._asdict().items()}
    if needed != given:
        raise ValueError(
            f"a gradient of shape {list(gradient.shape)} needs a state of shapes {needed}; got "
            f"{given}. Before the first step take came_state(gradient)"
        )
    if min(epsilons) < torch.finfo(gradient.dtype).tiny:
        raise ValueError(
            f"both epsilons must be above 0 in the gradient's type too, but {min(epsilons)} is "
            f"lost in {gradient.dtype}; keep the weights in float32 or bfloat16"
        )


def _check_options(options: dict[str, Any]) -> None:
    for name, n in (("betas", 3), ("epsilons", 2)):
        if not isinstance(options[name], tuple | list) or len(options[name]) != n:
            raise ValueError(f"{name} must be {n} numbers; got {options[name]!r}")
    for name in ("lr", "weight_decay"):
        if not (_number(options[name]) and 0 <= options[name] < math.inf):
            raise ValueError(f"{name} must be a finite number of at least 0; got {options[name]!r}")
    for name, value in [("clip", options["clip"]), *(("epsilons", e) for e in options["epsilons"])]:
        if not (_number(value) and 0 < value < math.inf):
            raise ValueError(f"{name} must be finite and above 0; got {options[name]!r}")
    betas = options["betas"]
    if not all(_number(beta) and 0 <= beta < 1 for beta in betas) or betas[0] == 0:
        raise ValueError(
            f"betas must be from 0 up to, but not, 1, and the first above 0; got {betas!r}. "
            "Without a momentum there is no confidence: that is Adafactor"
        )


def _number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)
