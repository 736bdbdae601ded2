"""The feed-forward part (前馈网络, FFN): what each token does by itself, having looked around.

Attention moves information between tokens; this part works on one token at a time. It spreads the
D numbers out to F, bends them, and puts them together again. GPT has two matrices with an
activation (激活函数) φ between them. Llama has three: what one brings opens and closes what another
brings, number by number, like a gate:

    MLP       y = W_down φ(W_up x)
    SwiGLU    y = W_down (silu(W_gate x) ⊙ W_up x)              silu(z) = z / (1 + exp(-z))

Three matrices of F = 8/3 D have as many parameters as two of F = 4 D, hence the odd fraction. Most
of a model's parameters stand here, and whatever takes the place of these layers (a mixture of
experts, a table to look up) keeps to `FFN`: it returns y and, if it chose among experts, a
`Routing` that says how.

Paper: Vaswani et al. 2017, arXiv:1706.03762, equation (2); Shazeer 2020, "GLU Variants Improve
Transformer", arXiv:2002.05202, equation (6); So et al. 2021, "Primer", arXiv:2109.08668, section
3.1 (squared ReLU). Theirs to ours: W is gate, V is up, W_2 is down.
Differs: no biases; F is rounded up to a multiple of 8.

Chapter: 04
"""

from dataclasses import dataclass
from typing import Protocol, final, runtime_checkable

import torch
from jaxtyping import Float
from torch import Tensor, nn

from minillm.model.attention import Context

ACTIVATIONS = ("gelu", "relu", "relu2")


# --- what a block asks of it --------------------------------------------------------------------
@runtime_checkable
class Routing(Protocol):
    """The routing of a layer of experts: router logits [N, E], N tokens and E experts.

    The load-balancing loss reads it. Concrete routings hold more, see `minillm.experts.routing`.
    """

    logits: Float[Tensor, "N E"]


class FFN(Protocol):
    """The feed-forward part of a block: it works on each token alone.

    A module names in `residual_projections` those of its `nn.Linear`s whose outputs are added to
    the stream, as for a `Mixer`.
    """

    def __call__(
        self, x: Float[Tensor, "B T D"], context: Context | None = None
    ) -> tuple[Float[Tensor, "B T D"], Routing | None]:
        """What is to be added to x, and how it was routed; None where there is no choice.

        Args:
            x: the tokens.
            context: as a mixer's. Most layers read x alone and need none.
        """


# --- Llama's ------------------------------------------------------------------------------------
def swiglu_naive(
    x: Float[Tensor, "... D"],
    gate: Float[Tensor, "F D"],
    up: Float[Tensor, "F D"],
    down: Float[Tensor, "D F"],
) -> Float[Tensor, "... D"]:
    """W_down (silu(W_gate x) ⊙ W_up x), as it is written: what `SwiGLU` must give.

    Example:
        >>> one = torch.ones(1, 1)
        >>> swiglu_naive(torch.tensor([2.0]), gate=0 * one, up=one, down=one)  # silu(0) is 0: shut
        tensor([0.])
        >>> swiglu_naive(torch.tensor([2.0]), gate=9 * one, up=one, down=one)  # silu(18) · 2
        tensor([36.])
    """
    # 1. the gate: silu(z) = z · sigmoid(z) of z = W_gate x, [... F]
    opened = x @ gate.T
    opened = opened * torch.sigmoid(opened)
    # 2. gate times W_up x, number by number, and back to D by W_down
    return (opened * (x @ up.T)) @ down.T


@final
@dataclass(frozen=True, kw_only=True)
class SwiGLUConfig:
    """What a SwiGLU layer is built from.

    Args:
        d_ff: F; None for 8/3 of the width, rounded up to a multiple of 8.

    Raises:
        ValueError: a width below 1.

    Example:
        >>> layer = SwiGLUConfig().build(d_model=128)  # 8/3 · 128 is 341.3
        >>> {name: list(p.shape) for name, p in layer.named_parameters()}
        {'gate_up.weight': [688, 128], 'down.weight': [128, 344]}
    """

    d_ff: int | None = None

    def __post_init__(self):
        _check_width("d_ff", self.d_ff)

    def build(
        self,
        d_model: int,
        *,
        device: torch.device | str = "cpu",
        dtype: torch.dtype = torch.float32,
    ) -> "SwiGLU":
        """The layer for a model of that width, with torch's own first weights."""
        _check_width("d_model", d_model)
        d_ff = self.d_ff or 8 * -(-d_model // 3)
        return SwiGLU(d_model, d_ff, device=device, dtype=dtype)


@final
class SwiGLU(nn.Module):
    """Gate and up in one matrix, since they read the same x: an `FFN`.

    Args:
        d_model: D.
        d_ff: F.
        device, dtype: of the parameters.
    """

    residual_projections = ("down",)

    def __init__(
        self,
        d_model: int,
        d_ff: int,
        *,
        device: torch.device | str = "cpu",
        dtype: torch.dtype = torch.float32,
    ):
        super().__init__()
        factory_kwargs = {"device": device, "dtype": dtype}
        self.gate_up = nn.Linear(
            d_model, 2 * d_ff, bias=False, **factory_kwargs
        )  # gate's rows first
        self.down = nn.Linear(d_ff, d_model, bias=False, **factory_kwargs)

    def forward(
        self, x: Float[Tensor, "*rows D"], context: Context | None = None
    ) -> tuple[Float[Tensor, "*rows D"], None]:
        """What is to be added to x; nothing is routed."""
        gate, up = self.gate_up(x).chunk(2, dim=-1)
        return self.down(nn.functional.silu(gate) * up), None


# --- GPT's --------------------------------------------------------------------------------------
def activate(x: Float[Tensor, "... F"], activation: str) -> Float[Tensor, "... F"]:
    """φ: "relu" is max(x, 0), "relu2" its square, "gelu" x times the share of a bell below x.

    Example:
        >>> x = torch.tensor([-1.0, 0.0, 2.0])
        >>> activate(x, "relu").tolist(), activate(x, "relu2").tolist()
        ([0.0, 0.0, 2.0], [0.0, 0.0, 4.0])
        >>> activate(x, "gelu")  # 15.9 % of a bell lie below -1, 97.7 % below 2
        tensor([-0.1587,  0.0000,  1.9545])

    Raises:
        ValueError: another activation.

    Paper: Hendrycks and Gimpel 2016, arXiv:1606.08415 (GELU); So et al. 2021 (squared ReLU).
    Differs: GELU by its definition; GPT-2 has the approximation by tanh.
    """
    match activation:
        case "gelu":
            return nn.functional.gelu(x)
        case "relu":
            return x.relu()
        case "relu2":
            return x.relu().square()
    raise ValueError(_unknown(activation))


@final
@dataclass(frozen=True, kw_only=True)
class MLPConfig:
    """What a plain feed-forward layer is built from.

    Args:
        d_ff: F; None for four times the width.
        activation: "gelu", "relu" or "relu2".

    Raises:
        ValueError: a width below 1, an unknown activation.

    Example:
        >>> layer = MLPConfig(activation="relu").build(d_model=8)
        >>> {name: list(p.shape) for name, p in layer.named_parameters()}
        {'up.weight': [32, 8], 'down.weight': [8, 32]}
    """

    d_ff: int | None = None
    activation: str = "gelu"

    def __post_init__(self):
        _check_width("d_ff", self.d_ff)
        if self.activation not in ACTIVATIONS:
            raise ValueError(_unknown(self.activation))

    def build(
        self,
        d_model: int,
        *,
        device: torch.device | str = "cpu",
        dtype: torch.dtype = torch.float32,
    ) -> "MLP":
        """The layer for a model of that width, with torch's own first weights."""
        _check_width("d_model", d_model)
        d_ff = self.d_ff or 4 * d_model
        return MLP(d_model, d_ff, self.activation, device=device, dtype=dtype)


@final
class MLP(nn.Module):
    """Up, bend, down: an `FFN`.

    Args:
        d_model: D.
        d_ff: F.
        activation: φ, see `activate`.
        device, dtype: of the parameters.
    """

    residual_projections = ("down",)

    def __init__(
        self,
        d_model: int,
        d_ff: int,
        activation: str = "gelu",
        *,
        device: torch.device | str = "cpu",
        dtype: torch.dtype = torch.float32,
    ):
        super().__init__()
        factory_kwargs = {"device": device, "dtype": dtype}
        self.activation = activation
        self.up = nn.Linear(d_model, d_ff, bias=False, **factory_kwargs)
        self.down = nn.Linear(d_ff, d_model, bias=False, **factory_kwargs)

    def forward(
        self, x: Float[Tensor, "*rows D"], context: Context | None = None
    ) -> tuple[Float[Tensor, "*rows D"], None]:
        """What is to be added to x; nothing is routed."""
        return self.down(activate(self.up(x), self.activation)), None


def _unknown(activation: object) -> str:
    return f"activation must be one of {', '.join(ACTIVATIONS)}; got {activation!r}"


def _check_width(name: str, d_model: int | None) -> None:
    if d_model is not None and d_model < 1:
        raise ValueError(f"{name} must be at least 1; got {d_model}")
