"""Muon: each hidden matrix takes a step of which all directions are equally long.

A gradient of a matrix is G = U S Vᵀ: directions (U, V) and how much each is wanted (S, the singular
values, 奇异值). A few directions are a hundred times as long as most. Muon keeps the directions and
makes all lengths about 1, so that the rare ones are learned too. M is the average over the steps:

    M ← β M + (1 - β) G                                 momentum
    O = newton_schulz(β M + (1 - β) G)                  ≈ U Vᵀ (正交化, orthogonalised)
    W ← W - η (scale · O + λ W)

`newton_schulz` needs no singular values. It repeats a polynomial of odd powers, which acts on each
singular value alone, since (U S Vᵀ)(U S Vᵀ)ᵀ(U S Vᵀ) = U S³ Vᵀ:

    X ← a X + b (X Xᵀ) X + c (X Xᵀ)² X           s ← a s + b s³ + c s⁵

What is no hidden matrix (the table of tokens, the head, gains) is AdamW's. So that a loop drives
one optimizer, `Muon` has groups of two kinds. It keeps M of a matrix, 1 number a weight (4 bytes in
float32); AdamW keeps 2 of every other weight.

Paper: Jordan et al. 2024, "Muon: An optimizer for hidden layers in neural networks",
kellerjordan.github.io/posts/muon: μ is β; a, b, c are theirs. Weight decay and the scale
"match_adamw": Liu et al. 2025, "Muon is Scalable for LLM Training", arXiv:2502.16982, section 2.2.
Squares in place of rectangles: Zhang, Amsel, Chen and Dao 2026, "Gram Newton-Schulz",
dao-ailab.github.io/blog/2026/gram-newton-schulz.
Differs: M is an average, where the post's algorithm adds up (M ← μ M + G), as in their code; of M's
size nothing is left in O. Their code computes in bfloat16 whatever the weights are, which the CPU
does slowly; this stays in the weights' own type. It adds ε to the length of G, this puts ε in the
place of a smaller one, as torch does. It orthogonalises a matrix at a time; here those of equal
shape go together. Gram Newton-Schulz computes in float16 and tunes where it starts anew; here that
is after every 5 repetitions, and 16 bits are left alone.

Chapter: 06
"""

import math
from collections import defaultdict
from collections.abc import Callable, Iterable
from typing import Any, final

import torch
from einops import rearrange
from jaxtyping import Float
from torch import Tensor

from minillm.optim.adamw import AdamWState, adamw_update

COEFFICIENTS = (3.4445, -4.7750, 2.0315)  # a, b, c: chosen so that small values grow fast
SCALES = ("original", "match_adamw")
OPTIONS = {
    "muon": {"kind", "lr", "beta", "weight_decay", "scale", "n_steps"},
    "adamw": {"kind", "lr", "betas", "epsilon", "weight_decay"},
}


# --- one direction as long as the other ---------------------------------------------------------
def newton_schulz_naive(
    matrix: Float[Tensor, "... M N"],
    *,
    coefficients: tuple[float, float, float] = COEFFICIENTS,
    n_steps: int = 5,
    epsilon: float = 1e-7,
) -> Float[Tensor, "... M N"]:
    """About U Vᵀ of U S Vᵀ, as it is written.

    A tall matrix is transposed, so that X Xᵀ is the smaller square.

    With the usual coefficients and 5 steps, a singular value of at least 0.0015 of the matrix's
    length (the root of the sum of all squares) ends between 0.68 and 1.21, and from 0.01 on below
    1.14. One that is smaller grows 485 times at most, and 0 stays 0: a matrix may be of full rank
    and have such directions.

    Args:
        matrix: G, or several.
        coefficients: a, b, c.
        n_steps: how often the polynomial is repeated.
        epsilon: a matrix shorter than this is divided by it, not by its length.

    Example:
        >>> x = newton_schulz_naive(torch.tensor([[3.0, 0.0], [0.0, 4.0]]), n_steps=1)
        >>> x  # (3, 4) / 5 is (0.6, 0.8); 3.4445 · 0.6 - 4.775 · 0.6³ + 2.0315 · 0.6⁵ is 1.1933
        tensor([[1.1933, 0.0000],
                [0.0000, 0.9765]])
    """
    a, b, c = coefficients
    tall = matrix.shape[-2] > matrix.shape[-1]
    x = matrix.mT if tall else matrix  # [M N] with M ≤ N
    # 1. divided by its norm, so that no singular value is above 1
    x = x / x.norm(dim=(-2, -1), keepdim=True).clamp(min=epsilon)
    # 2. X ← a X + b (X Xᵀ) X + c (X Xᵀ)² X, which drives every singular value towards 1
    for _ in range(n_steps):
        square = x @ x.mT  # X Xᵀ: [M M]
        x = a * x + (b * square + c * square @ square) @ x
    return x.mT if tall else x


def newton_schulz(
    matrix: Float[Tensor, "... M N"],
    *,
    coefficients: tuple[float, float, float] = COEFFICIENTS,
    n_steps: int = 5,
    epsilon: float = 1e-7,
) -> Float[Tensor, "... M N"]:
    """The same with fewer products: a long matrix is touched twice in 5 steps, not 10 times.

    A step is X ← P X with a square P = a + b A + c A², where A = X Xᵀ. The next A is P A P, so all
    the P can be had without X, and their product is multiplied with X once. That takes fewer
    operations where X is more than 1.5 times as long as it is wide.

    Where a singular value is below √(the last digit), A holds it as noise, which could be negative
    and would grow with every step. So after 5 steps A is computed anew from X; and numbers of 16
    bits, which would not last for 5, go the naive way.

    Args:
        matrix, coefficients, n_steps, epsilon: as for `newton_schulz_naive`.

    Example:
        >>> newton_schulz(torch.tensor([[3.0, 0.0, 4.0]]), n_steps=1)  # 1 becomes a + b + c, 0.701
        tensor([[0.4206, 0.0000, 0.5608]])
    """
    a, b, c = coefficients
    tall = matrix.shape[-2] > matrix.shape[-1]
    x = rearrange(matrix.mT if tall else matrix, "... M N -> (...) M N")
    x = x / x.norm(dim=(-2, -1), keepdim=True).clamp(min=epsilon)
    if x.shape[-1] > 1.5 * x.shape[-2] and torch.finfo(x.dtype).bits > 16:
        for taken in range(0, n_steps, 5):
            x = _all_in_one(x @ x.mT, coefficients, min(5, n_steps - taken)) @ x
    else:
        for _ in range(n_steps):
            square = x @ x.mT
            square = torch.baddbmm(square, square, square, beta=b, alpha=c)
            x = torch.baddbmm(x, square, x, beta=a)
    return (x.mT if tall else x).reshape(matrix.shape)


def _all_in_one(square: Tensor, coefficients: tuple[float, float, float], n_steps: int) -> Tensor:
    """The product of the steps' P."""
    a, b, c = coefficients
    product = None
    for step in range(n_steps):
        p = torch.baddbmm(square, square, square, beta=b, alpha=c)
        p.diagonal(dim1=-2, dim2=-1).add_(a)
        product = p if product is None else p @ product
        if step < n_steps - 1:
            square = p @ (p @ square)  # p and square commute: both are made of the first square
    return product


def step_scale(n_rows: int, n_columns: int, scale: str = "original") -> float:
    """How large a step a matrix takes: what U Vᵀ is multiplied with.

    - "original": √max(1, rows / columns). Then no output of a matrix with more rows than columns
      moves less than that of a square one.
    - "match_adamw": 0.2 · √max(rows, columns). A number of U Vᵀ is 1 / √max(rows, columns) in root
      mean square, so here it is 0.2, as in AdamW's steps: its learning rate and weight decay can
      be taken over. torch's name for it is "match_rms_adamw".

    Args:
        n_rows, n_columns: of the weight: outputs and inputs of a layer.
        scale: one of the two.

    Raises:
        ValueError: another.

    Example:
        >>> step_scale(400, 100), step_scale(100, 400), step_scale(400, 100, "match_adamw")
        (2.0, 1.0, 4.0)
    """
    if scale == "original":
        return math.sqrt(max(1, n_rows / n_columns))
    if scale == "match_adamw":
        return 0.2 * math.sqrt(max(n_rows, n_columns))
    raise ValueError(f"scale must be one of {', '.join(SCALES)}; got {scale!r}")


def muon_update(
    gradient: Float[Tensor, "... M N"],
    momentum: Float[Tensor, "... M N"],
    *,
    beta: float = 0.95,
    scale: str = "original",
    n_steps: int = 5,
) -> tuple[Float[Tensor, "... M N"], Float[Tensor, "... M N"]]:
    """The direction of a step, scale · O, and the momentum to remember; nothing given is changed.

    The matrix that is orthogonalised looks one step ahead (Nesterov): the gradient is mixed into
    the momentum a second time, as if the next one were the same.

    Args:
        gradient: G of a matrix, or of several of one shape.
        momentum: M; zeros at first.
        beta: β.
        scale: see `step_scale`.
        n_steps: of `newton_schulz`.

    Raises:
        ValueError: an unknown scale.

    Example:
        >>> gradient = torch.tensor([[3.0, 0.0], [0.0, 4.0]])
        >>> update, momentum = muon_update(gradient, torch.zeros(2, 2), beta=0.5, n_steps=1)
        >>> momentum
        tensor([[1.5000, 0.0000],
                [0.0000, 2.0000]])
        >>> update  # that of 0.5 · (1.5, 2) + 0.5 · (3, 4), of which only 3 : 4 matters
        tensor([[1.1933, 0.0000],
                [0.0000, 0.9765]])
    """
    # 1. the running mean of the gradients: M ← β M + (1 - β) G
    momentum = momentum.lerp(gradient, 1 - beta)
    # 2. Nesterov's look ahead, β M + (1 - β) G once more, and of it U S Vᵀ only U Vᵀ
    update = newton_schulz(gradient.lerp(momentum, beta), n_steps=n_steps)
    # 3. scaled by the shape
    return update * step_scale(*gradient.shape[-2:], scale), momentum


# --- the optimizer ------------------------------------------------------------------------------
@final
class Muon(torch.optim.Optimizer):
    """Muon for hidden matrices and AdamW for whatever else a model has.

    Args:
        matrices: parameters of two axes (of more: several matrices each, as the experts of a
            layer), or groups of such with options of their own. `minillm.optim.groups` finds them.
        others: parameters, or groups, that are AdamW's.
        lr: η, times the size that `step_scale` says.
        beta: β.
        weight_decay: λ.
        scale, n_steps: see `muon_update`.
        others_lr, others_betas, others_epsilon, others_weight_decay: AdamW's.

    State: of a matrix "momentum", of another parameter "step", "mean" and "square"; in the
    parameter's own type.

    Raises:
        ValueError: an option out of its range or unknown; a parameter with one axis among the
            matrices; a sparse gradient.

    Example:
        >>> layer = torch.nn.Linear(2, 2)
        >>> optimizer = Muon([layer.weight], [layer.bias], lr=0.1, others_lr=0.01)
        >>> [(group["kind"], group["lr"]) for group in optimizer.param_groups]
        [('muon', 0.1), ('adamw', 0.01)]
    """

    def __init__(
        self,
        matrices: Iterable[Tensor] | Iterable[dict[str, Any]],
        others: Iterable[Tensor] | Iterable[dict[str, Any]] = (),
        *,
        lr: float = 0.02,
        beta: float = 0.95,
        weight_decay: float = 0.0,
        scale: str = "original",
        n_steps: int = 5,
        others_lr: float = 3e-3,
        others_betas: tuple[float, float] = (0.9, 0.95),
        others_epsilon: float = 1e-8,
        others_weight_decay: float = 0.0,
    ):
        muon = {"kind": "muon", "lr": lr, "beta": beta, "weight_decay": weight_decay}
        muon |= {"scale": scale, "n_steps": n_steps}
        adamw = {"kind": "adamw", "lr": others_lr, "betas": others_betas}
        adamw |= {"epsilon": others_epsilon, "weight_decay": others_weight_decay}
        super().__init__([*_groups(matrices, muon), *_groups(others, adamw)], {})

    def add_param_group(self, param_group: dict[str, Any]) -> None:
        """Add a group, whose "kind" is "muon" or "adamw"; the constructor comes through here too.

        Raises:
            ValueError: as for the class.
        """
        param_group = {**param_group, "params": _list(param_group["params"])}
        _check(param_group)
        super().add_param_group(param_group)

    @torch.no_grad()
    def step(self, closure: Callable[[], Any] | None = None) -> Any:
        """One step of every parameter that has a gradient.

        Args:
            closure: computes the loss and its gradients anew, if given.

        Returns:
            The closure's loss, or None.
        """
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        for group in self.param_groups:
            parameters = [p for p in group["params"] if p.grad is not None]
            for p in parameters:
                if p.grad.layout != torch.strided or p.grad.is_complex():
                    raise ValueError(
                        "Muon needs gradients that are dense and real; got one of "
                        f"{p.grad.layout} and {p.grad.dtype}. Build an embedding with sparse=False"
                    )
            (self._matrices if group["kind"] == "muon" else self._others)(parameters, group)
        return loss

    def _matrices(self, parameters: list[Tensor], group: dict[str, Any]) -> None:
        alike = defaultdict(list)
        for p in parameters:
            alike[p.shape, p.dtype, p.device].append(p)
            self.state[p].setdefault("momentum", torch.zeros_like(p))
        for matrices in alike.values():
            updates, momenta = muon_update(
                torch.stack([p.grad for p in matrices]),
                torch.stack([self.state[p]["momentum"] for p in matrices]),
                **{key: group[key] for key in ("beta", "scale", "n_steps")},
            )
            for p, update, momentum in zip(matrices, updates, momenta, strict=True):
                self.state[p]["momentum"].copy_(momentum)
                p.mul_(1 - group["lr"] * group["weight_decay"]).add_(update, alpha=-group["lr"])

    def _others(self, parameters: list[Tensor], group: dict[str, Any]) -> None:
        for p in parameters:
            state = self.state[p]
            if not state:
                state |= {"step": 0, "mean": torch.zeros_like(p), "square": torch.zeros_like(p)}
            state["step"] += 1
            update, moments = adamw_update(
                p.grad,
                AdamWState(state["mean"], state["square"]),
                state["step"],
                betas=group["betas"],
                epsilon=group["epsilon"],
            )
            state |= moments._asdict()
            p.mul_(1 - group["lr"] * group["weight_decay"]).add_(update, alpha=-group["lr"])


def _list(parameters: Tensor | Iterable[Tensor]) -> list[Tensor]:
    return [parameters] if isinstance(parameters, Tensor) else list(parameters)


def _groups(given: Iterable, options: dict[str, Any]) -> list[dict[str, Any]]:
    given = _list(given)
    groups = given if given and isinstance(given[0], dict) else [{"params": given}]
    return [{**options, **group} for group in groups if group["params"]]


def _check(group: dict[str, Any]) -> None:
    kind = group.get("kind")
    if kind not in OPTIONS:
        raise ValueError(f'a group\'s "kind" must be "muon" or "adamw"; got {kind!r}')
    known = OPTIONS[kind]
    if wrong := (set(group) - {"params", "initial_lr"}) ^ known:
        raise ValueError(
            f"a group of kind {kind} has the options {', '.join(sorted(known))}; "
            f"missing or unknown: {', '.join(sorted(wrong))}"
        )
    if not all(isinstance(parameter, Tensor) for parameter in group["params"]):
        raise ValueError("parameters must be tensors, without names; give model.parameters()")
    for name in ("lr", "weight_decay"):
        if not 0 <= group[name] < math.inf:
            raise ValueError(f"{name} must be at least 0, and finite; got {group[name]}")
    if kind == "muon" and not 0 <= group["beta"] < 1:
        raise ValueError(f"beta must be at least 0 and below 1; got {group['beta']}")
    if kind == "adamw" and (
        len(group["betas"]) != 2 or not all(0 <= b < 1 for b in group["betas"])
    ):
        raise ValueError(
            f"betas must be two numbers, each at least 0 and below 1; got {group['betas']}"
        )
    if kind == "adamw" and not 0 < group["epsilon"] < math.inf:
        raise ValueError(f"epsilon must be above 0, and finite; got {group['epsilon']}")
    if kind == "adamw":
        return
    step_scale(1, 1, group["scale"])
    if group["n_steps"] < 1:
        raise ValueError(f"n_steps must be at least 1; got {group['n_steps']}")
    if wrong := [list(p.shape) for p in group["params"] if p.ndim < 2]:
        raise ValueError(
            f"only matrices can be orthogonalised; got parameters of {wrong} among them. Gains and "
            "biases belong to `others`, as do embeddings and the head; "
            "minillm.optim.groups.hidden_matrices_and_others(model) tells them apart"
        )
