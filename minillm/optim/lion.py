"""Lion: every weight goes one step of the same length, and only the sign is computed.

What an optimizer remembers costs memory. Lion (evolved sign momentum, 符号动量) remembers one
number a weight, the running mean m of its gradients g, and takes from it nothing but a sign:

    c = β₁ m + (1 - β₁) g
    θ ← θ - lr (sign(c) + λ θ)
    m ← β₂ m + (1 - β₂) g

With β₁ < β₂ the newest gradient counts ten times as much in c as in the m that stays (0.1 and 0.01
by default): what decides now is fresher than what is remembered.

Three things follow. A weight changes by lr exactly, or where c is 0 not at all (decay aside): most
of AdamW's updates are shorter than 1, so Lion takes an lr 3 to 10 times smaller, and a λ as much
larger (section 5). How large the gradients are does not matter, so there is no ε. And a weight does
not come to rest by itself: near its best value it goes to and fro, until a schedule makes lr small.

Kept: m, one number a weight, which is 1.00 times the bytes of the parameters.

Paper: Chen et al. 2023, "Symbolic Discovery of Optimization Algorithms", arXiv:2302.06675,
algorithm 2. Theirs to ours: η is lr.
Differs: none in the numbers, from the paper or from its code (google/automl, lion_pytorch.py),
where m is called exp_avg. lion-pytorch (lucidrains) differs: it refuses lr = 0, accepts β = 1, and
has an option that divides λ by the first lr.

Chapter: 06
"""

import math
from collections.abc import Callable, Iterable
from typing import Any, final

import torch
from jaxtyping import Float
from torch import Tensor


def lion_update(
    gradient: Float[Tensor, "..."],
    mean: Float[Tensor, "..."],
    *,
    betas: tuple[float, float] = (0.9, 0.99),
) -> tuple[Float[Tensor, "..."], Float[Tensor, "..."]]:
    """One step's update, and the mean for the next; nothing given is changed.

    The sign of 0 is 0: a weight that never had a gradient stays, and so does one whose mean and
    gradient cancel. torch's sign of NaN is 0 too, and a NaN stays in the mean for good: its weight
    stands still from then on, without a word. `minillm.train.loop` skips such gradients.

    Args:
        gradient: g.
        mean: m after the step before; zeros at first.
        betas: β₁, how much of m decides now, and β₂, how much of it is kept.

    Returns:
        The update, of numbers -1, 0 and 1, to be subtracted lr times; and the new mean, in the
        type of the old.

    Raises:
        ValueError: the gradient has another shape than the mean.

    Example:
        >>> gradient, mean = torch.tensor([-1.0, -1.0, 0.0]), torch.tensor([1.0, 0.1, 0.0])
        >>> update, mean = lion_update(gradient, mean)  # c = 0.9 m + 0.1 g
        >>> update
        tensor([ 1., -1.,  0.])
        >>> mean  # 0.99 m + 0.01 g
        tensor([0.9800, 0.0890, 0.0000])
    """
    if gradient.shape != mean.shape:
        raise ValueError(
            "gradient and mean must be of one shape; got "
            f"{list(gradient.shape)} and {list(mean.shape)}"
        )
    beta1, beta2 = betas
    # 1. the update: sign(β₁ m + (1 - β₁) g)
    update = (mean * beta1).add_(gradient, alpha=1 - beta1).sign_()
    # 2. the mean, which keeps more of the past: m ← β₂ m + (1 - β₂) g
    mean = (mean * beta2).add_(gradient, alpha=1 - beta2)
    return update, mean


@final
class Lion(torch.optim.Optimizer):
    """The update, for all parameters.

    The mean has its parameter's type, bfloat16 too.

    Args:
        parameters: tensors, or dicts {"params": tensors, ...} whose own options come first.
        lr: the learning rate, by which every weight changes; read from the group anew at every
            step.
        betas: β₁ and β₂.
        weight_decay: λ; lr · λ of a weight is taken away at every step.

    Raises:
        ValueError: an option of any group is out of range; in a step, a gradient is sparse or
            complex.

    Example:
        >>> weight = torch.nn.Parameter(torch.tensor([1.0, 1.0, 1.0]))
        >>> optimizer = Lion([weight], lr=0.5, weight_decay=0.1)
        >>> weight.grad = torch.tensor([3.0, -0.001, 0.0])
        >>> optimizer.step()
        >>> weight.data  # 1 - 0.5 · (sign + 0.1 · 1)
        tensor([0.4500, 1.4500, 0.9500])
    """

    def __init__(
        self,
        parameters: Iterable[Tensor] | Iterable[dict[str, Any]],
        lr: float = 1e-4,
        betas: tuple[float, float] = (0.9, 0.99),
        weight_decay: float = 0.0,
    ):
        super().__init__(parameters, {"lr": lr, "betas": betas, "weight_decay": weight_decay})

    def add_param_group(self, param_group: dict[str, Any]) -> None:
        """Check a group's options, then add it; torch calls this for the first groups too."""
        _check({**self.defaults, **param_group})
        super().add_param_group(param_group)

    @torch.no_grad()
    def step(self, closure: Callable[[], Any] | None = None) -> Any:
        """Change every parameter that has a gradient.

        Args:
            closure: computes the loss and its gradients anew, before the step.

        Returns:
            What the closure gave, or None.
        """
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        for group in self.param_groups:
            for parameter in group["params"]:
                if parameter.grad is not None:
                    self._step(parameter, group)
        return loss

    def _step(self, parameter: Tensor, group: dict[str, Any]) -> None:
        gradient, state = parameter.grad, self.state[parameter]
        if gradient.layout != torch.strided or gradient.is_complex():
            raise ValueError(
                "Lion needs gradients that are dense and real; got one of "
                f"{gradient.layout} and {gradient.dtype}. Build an embedding with sparse=False"
            )
        if not state:
            state["mean"] = torch.zeros_like(parameter)
        update, state["mean"] = lion_update(gradient, state["mean"], betas=group["betas"])
        parameter.mul_(1 - group["lr"] * group["weight_decay"])
        parameter.add_(update, alpha=-group["lr"])


def _check(options: dict[str, Any]) -> None:
    lr, betas, decay = options["lr"], options["betas"], options["weight_decay"]
    if not 0 <= lr < math.inf:
        raise ValueError(f"lr must be at least 0, and finite; got {lr}")
    if len(betas) != 2 or not all(0 <= beta < 1 for beta in betas):
        raise ValueError(f"betas must be two numbers, each at least 0 and below 1; got {betas}")
    if not 0 <= decay < math.inf:
        raise ValueError(f"weight_decay must be at least 0, and finite; got {decay}")
