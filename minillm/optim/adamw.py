"""AdamW: every weight steps at its own scale, and weight decay is kept out of the gradient.

How large a gradient is says more about where its weight stands in the model than about how far to
go. So Adam remembers of each weight the running mean of its gradients and of their squares (矩,
moments), and divides the one by the root of the other. At step t = 1, 2, ...

    m ← β₁ m + (1 - β₁) g        v ← β₂ v + (1 - β₂) g²
    update = m̂ / (√v̂ + ε)     with m̂ = m / (1 - β₁ᵗ) and v̂ = v / (1 - β₂ᵗ)
    θ ← θ - lr (update + λ θ)

m and v begin at 0, which is no gradient's mean; the hats take that beginning out again (偏差修正),
so the first update is the sign of g. Afterwards an update is near ±1 where the gradients
agree, and near 0 where they contradict each other. Weight decay (权重衰减) λ shrinks every weight
at one rate. As a part of g, λ θ would be divided by √v̂ too, and weights with large gradients would
shrink the least.

Kept: m and v, two numbers a weight, which is 2.00 times the bytes of the parameters.

Paper: Kingma and Ba 2015, "Adam", arXiv:1412.6980, algorithm 1. Loshchilov and Hutter 2019,
"Decoupled Weight Decay Regularization", arXiv:1711.05101, algorithm 2, line 12. Theirs to ours: α
and α η_t are lr.
Differs: lr multiplies λ too, as in torch; in line 12 only η_t does, so our λ is their λ / α. ε must
be above 0. Section 2.1 of "Adam" bounds an update by (1 - β₁) / √(1 - β₂), which is 3.2. That
holds for a lone gradient after zeros; twelve equal ones give 6.5. What always holds (by Cauchy and
Schwarz) is (1 - β₁) / √((1 - β₂) (1 - β₁² / β₂)), which is 7.3.
Against torch.optim.AdamW: the numbers are the same; the count of steps is a Python int; `eps` is
called epsilon; no amsgrad, maximize, foreach, fused or capturable, no complex numbers.

Chapter: 06
"""

import math
from collections.abc import Callable, Iterable
from typing import Any, NamedTuple, final

import torch
from jaxtyping import Float
from torch import Tensor


class AdamWState(NamedTuple):
    """What is remembered of one parameter.

    Args:
        mean: m, of the gradients.
        square: v, of their squares.
    """

    mean: Float[Tensor, "..."]
    square: Float[Tensor, "..."]


def adamw_update(
    gradient: Float[Tensor, "..."],
    moments: AdamWState,
    step: int,
    *,
    betas: tuple[float, float] = (0.9, 0.999),
    epsilon: float = 1e-8,
) -> tuple[Float[Tensor, "..."], AdamWState]:
    """One step's update, and what is remembered for the next; nothing given is changed.

    Args:
        gradient: g.
        moments: after the step before; zeros at first.
        step: t, from 1 on.
        betas: β₁ and β₂, how much of m and of v is kept.
        epsilon: ε.

    Returns:
        The update, to be subtracted lr times, and the new moments, in the types of the old.

    Raises:
        ValueError: a step below 1; a gradient of another shape than the moments.

    Example:
        >>> nothing = AdamWState(torch.zeros(3), torch.zeros(3))
        >>> first, moments = adamw_update(torch.tensor([8.0, -0.5, 0.0]), nothing, 1)
        >>> first
        tensor([ 1., -1.,  0.])
        >>> second, _ = adamw_update(torch.zeros(3), moments, 2)  # m̂ = 0.09 g / 0.19, v̂ ≈ g² / 2
        >>> second
        tensor([ 0.6701, -0.6701,  0.0000])
    """
    _check_update(gradient, moments, step)
    beta1, beta2 = betas
    # 1. the two running means: m ← β₁ m + (1 - β₁) g  and  v ← β₂ v + (1 - β₂) g²
    m = (moments.mean * beta1).add_(gradient, alpha=1 - beta1)
    v = (moments.square * beta2).addcmul_(gradient, gradient, value=1 - beta2)
    # 2. bias correction: both began at 0, so their weights sum to 1 - βᵗ only
    m_hat = m / (1 - beta1**step)
    v_hat = v / (1 - beta2**step)
    # 3. the update m̂ / (√v̂ + ε), which the caller multiplies by the learning rate
    update = m_hat.div_(v_hat.sqrt_().add_(epsilon))
    return update, AdamWState(mean=m, square=v)


@final
class AdamW(torch.optim.Optimizer):
    """The update, for all parameters.

    Moments have their parameter's type. In bfloat16 v never falls, since 0.999 v is rounded to v;
    keep the weights in float32.

    Args:
        parameters: tensors, or dicts {"params": tensors, ...} whose own options come first.
        lr: the learning rate; read from the group anew at every step.
        betas: β₁ and β₂.
        epsilon: ε; float16 would round the usual one to 0.
        weight_decay: λ; lr · λ of a weight is taken away at every step.

    Raises:
        ValueError: an option of any group is out of range; in a step, a gradient is sparse or
            complex.

    Example:
        >>> weight = torch.nn.Parameter(torch.tensor([1.0]))
        >>> optimizer = AdamW([weight], lr=0.5, weight_decay=0.1)
        >>> (3 * weight).sum().backward()
        >>> optimizer.step()
        >>> weight.data  # 1 - 0.5 · (1 + 0.1 · 1)
        tensor([0.4500])
    """

    def __init__(
        self,
        parameters: Iterable[Tensor] | Iterable[dict[str, Any]],
        lr: float = 1e-3,
        betas: tuple[float, float] = (0.9, 0.999),
        epsilon: float = 1e-8,
        weight_decay: float = 0.01,
    ):
        options = {"lr": lr, "betas": betas, "epsilon": epsilon, "weight_decay": weight_decay}
        super().__init__(parameters, options)

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
                "AdamW needs gradients that are dense and real; got one of "
                f"{gradient.layout} and {gradient.dtype}. Build an embedding with sparse=False"
            )
        if not state:
            state |= {"step": 0, "mean": torch.zeros_like(parameter)}
            state["square"] = torch.zeros_like(parameter)
        state["step"] += 1
        update, moments = adamw_update(
            gradient,
            AdamWState(state["mean"], state["square"]),
            state["step"],
            betas=group["betas"],
            epsilon=group["epsilon"],
        )
        state |= moments._asdict()
        # decoupled weight decay, then the step: w ← (1 - lr λ) w - lr · update
        parameter.mul_(1 - group["lr"] * group["weight_decay"])
        parameter.add_(update, alpha=-group["lr"])


def _check_update(gradient: Tensor, moments: AdamWState, step: int) -> None:
    if step < 1:
        raise ValueError(f"steps are counted from 1, or 1 - β₁ᵗ would be 0; got step {step}")
    if not gradient.shape == moments.mean.shape == moments.square.shape:
        shapes = [list(tensor.shape) for tensor in (gradient, *moments)]
        raise ValueError(
            f"gradient, mean and square must be of one shape; got {', '.join(map(str, shapes))}"
        )


def _check(options: dict[str, Any]) -> None:
    lr, betas, epsilon = options["lr"], options["betas"], options["epsilon"]
    decay = options["weight_decay"]
    if not 0 <= lr < math.inf:
        raise ValueError(f"lr must be at least 0, and finite; got {lr}")
    if len(betas) != 2 or not all(0 <= beta < 1 for beta in betas):
        raise ValueError(f"betas must be two numbers, each at least 0 and below 1; got {betas}")
    if not 0 < epsilon < math.inf:
        raise ValueError(
            f"epsilon must be above 0, and finite; got {epsilon}. A weight whose gradients were "
            "all 0 would otherwise get 0 / 0"
        )
    if not 0 <= decay < math.inf:
        raise ValueError(f"weight_decay must be at least 0, and finite; got {decay}")
