"""Feature maps (特征映射): functions φ whose products φ(q) · φ(k) say how much a query likes a key.

Softmax attention weighs by exp(q · k / √K), which must be computed for every pair of tokens. If the
weight is a plain product of two vectors instead, one made from the query alone and one from the key
alone, sums over keys can be kept and the keys forgotten (`minillm.mixers.linear_attention`). Two
such φ:

    elu        elu(x) + 1                                   N = K        simply positive
    FAVOR+     exp(ωᵀx - |x|²/2) / √m for m random ω        N = m        exp(q · k) on average

For FAVOR+, q and k are divided by K^(1/4) first, so that their product is divided by √K.
Why FAVOR+ is right on average: ω · (q + k) with ω from N(0, I) has the variance |q + k|², so

    mean of exp(ω · q - |q|²/2) exp(ω · k - |k|²/2) = exp(|q + k|²/2 - |q|²/2 - |k|²/2) = exp(q · k)

Weights are only ever compared with each other, so a factor of a query, or one that all keys share,
cancels; each map may leave such factors out.

Paper: Katharopoulos, Vyas, Pappas and Fleuret 2020, "Transformers are RNNs", arXiv:2006.16236,
equation (7) (elu); Choromanski et al. 2020, "Rethinking Attention with Performers",
arXiv:2009.14794, lemma 1 and sections 2.3, 2.4 (FAVOR+). Theirs to ours: Performer's d is K.
Differs: FAVOR+'s maximum is taken of queries only, since sums over keys of different times must
have one scale; ω is drawn once and not anew during training; no small ε is added to features.

Chapter: 09
"""

import math
from dataclasses import KW_ONLY, dataclass
from typing import Protocol, final, runtime_checkable

import torch
from jaxtyping import Float
from torch import Tensor, nn

# --- random features -----------------------------------------------------------------------------


def draw_omega(
    n_features: int, d_head: int, orthogonal: bool, generator: torch.Generator
) -> Float[Tensor, "m K"]:
    """Directions ω for `favor`: each by itself as if drawn from N(0, I).

    Args:
        n_features: m.
        d_head: K.
        orthogonal: rows stand at right angles to each other, K at a time. Errors of one are then
            made up for by others, and an estimate varies less.
        generator: where chance comes from; on the CPU.

    Example:
        >>> omega = draw_omega(3, 2, True, torch.Generator().manual_seed(0))
        >>> omega.shape, abs((omega[0] @ omega[1]).item()) < 1e-6  # the third begins a new block
        (torch.Size([3, 2]), True)
    """

    def gaussian(*shape: int) -> Tensor:
        return torch.randn(shape, generator=generator, dtype=torch.float64, device="cpu")

    if not orthogonal:
        return gaussian(n_features, d_head).float()
    n_blocks = math.ceil(n_features / d_head)
    q, r = torch.linalg.qr(gaussian(n_blocks, d_head, d_head))
    # Of the two signs of each column QR takes one by rule; undone, all directions are as likely.
    blocks = q * r.diagonal(dim1=-2, dim2=-1).sign()[:, None]
    directions = blocks.mT.flatten(0, 1)[:n_features]
    lengths = gaussian(n_features, d_head).norm(dim=1, keepdim=True)
    return (directions * lengths).float()


def favor(x: Float[Tensor, "... K"], omega: Float[Tensor, "m K"]) -> Float[Tensor, "... m"]:
    """exp(ωᵀx - |x|²/2) / √m: positive, and favor(q) · favor(k) estimates exp(q · k) without bias.

    Args:
        x: queries or keys.
        omega: from `draw_omega`.

    Example:
        >>> omega = torch.tensor([[math.log(4)], [0.0]])
        >>> phi = favor(torch.tensor([1.0]), omega) * math.sqrt(2 * math.e)  # x² / 2 is 1/2
        >>> [round(number, 4) for number in phi.tolist()]
        [4.0, 1.0]
    """
    return (x @ omega.mT - x.square().sum(dim=-1, keepdim=True) / 2).exp() / len(omega) ** 0.5


# --- what linear attention asks of a map ---------------------------------------------------------


@runtime_checkable
class FeatureMap(Protocol):
    """Queries and keys in, N features of each out.

    Args:
        n_features: N.
    """

    n_features: int

    def __call__(
        self, q: Float[Tensor, "B H T K"], k: Float[Tensor, "B H T K"]
    ) -> tuple[Float[Tensor, "B H T N"], Float[Tensor, "B H T N"]]:
        """φ(q) up to a factor of each query, φ(k) up to one factor of all keys."""


class FeaturesConfig(Protocol):
    """What builds feature maps."""

    def build(self, d_head: int, *, device: torch.device | str, dtype: torch.dtype) -> FeatureMap:
        """The map for heads of that width, a module with its buffers."""


# --- elu -----------------------------------------------------------------------------------------


@final
@dataclass(frozen=True)
class EluFeatures:
    """elu(x) + 1, which is x + 1 above 0 and exp(x) below.

    Example:
        >>> x = torch.tensor([2.0, 0.0, -1.0]).reshape(1, 1, 1, 3)
        >>> EluFeatures().build(d_head=3)(x, x)[0].flatten()  # exp(-1) is 0.3679
        tensor([3.0000, 1.0000, 0.3679])
    """

    def build(
        self,
        d_head: int,
        *,
        device: torch.device | str = "cpu",
        dtype: torch.dtype = torch.float32,
    ) -> "Elu":
        """The map; it has no numbers of its own."""
        return Elu(d_head)


@final
class Elu(nn.Module):
    """elu(x) + 1: a `FeatureMap`.

    Args:
        d_head: K; N is as many.
    """

    def __init__(self, d_head: int):
        super().__init__()
        self.n_features = d_head

    def forward(
        self, q: Float[Tensor, "B H T K"], k: Float[Tensor, "B H T K"]
    ) -> tuple[Float[Tensor, "B H T K"], Float[Tensor, "B H T K"]]:
        """Of each number by itself."""
        return nn.functional.elu(q) + 1, nn.functional.elu(k) + 1


# --- FAVOR+ --------------------------------------------------------------------------------------


@final
@dataclass(frozen=True)
class FavorFeatures:
    """Random features that estimate softmax attention.

    Args:
        n_features: m; the error falls as 1/√m.
        orthogonal: directions at right angles, see `draw_omega`.
        seed: of the directions; layers with the same seed have the same ones.

    Raises:
        ValueError: n_features below 1.

    Example:
        >>> FavorFeatures(32).build(d_head=8).omega.shape
        torch.Size([32, 8])
    """

    n_features: int = 64
    _: KW_ONLY
    orthogonal: bool = True
    seed: int = 0

    def __post_init__(self):
        if self.n_features < 1:
            raise ValueError(
                "n_features must be at least 1 (a multiple of d_head uses whole blocks of "
                f"directions); got {self.n_features}"
            )

    def build(
        self,
        d_head: int,
        *,
        device: torch.device | str = "cpu",
        dtype: torch.dtype = torch.float32,
    ) -> "Favor":
        """The map with its directions; torch's own random state is neither read nor changed."""
        generator = torch.Generator(device="cpu").manual_seed(self.seed)
        omega = draw_omega(self.n_features, d_head, self.orthogonal, generator)
        return Favor(omega.to(device, dtype))


@final
class Favor(nn.Module):
    """FAVOR+ of q and k divided by K^(1/4), kept from overflowing: a `FeatureMap`.

    A query's largest exponent is subtracted from all its exponents, and so cancels what |q|²/2
    would do. Keys get no maximum: one that grows with the text would change what the sums already
    hold. Theirs is bounded without: ω · k - |k|²/2 is never above |ω|²/2.

    Args:
        omega: directions.
    """

    def __init__(self, omega: Float[Tensor, "m K"]):
        super().__init__()
        self.n_features = len(omega)
        self.register_buffer("omega", omega)

    def forward(
        self, q: Float[Tensor, "B H T K"], k: Float[Tensor, "B H T K"]
    ) -> tuple[Float[Tensor, "B H T N"], Float[Tensor, "B H T N"]]:
        """The features; the largest of each query is 1."""
        scale = q.shape[-1] ** -0.25
        exponents = (scale * q) @ self.omega.mT
        # The maximum cancels, so it needs no gradient
        largest = exponents.detach().amax(dim=-1, keepdim=True)
        return (exponents - largest).exp(), favor(scale * k, self.omega)
