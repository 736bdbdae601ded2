"""Rotary positions (旋转位置编码, RoPE): each token's query and key are turned by its place.

The K numbers of a head are K/2 pairs, each a point in a plane. At position m, pair i is turned by
the angle m θᵢ, and θᵢ = base^(-2i/K) falls from 1 (a whole turn in six tokens) to nearly 1/base
(a turn in some sixty thousand):

    first  ← first cos(m θᵢ) - second sin(m θᵢ)
    second ← first sin(m θᵢ) + second cos(m θᵢ)

or, with first + i second as one complex number z, z ← z · e^(i m θ).

Turning both of two arrows by one angle leaves their dot product as it was. So the score of a query
at m and a key at n, each turned by its own angle, depends on m - n alone: the places themselves
have left no trace, and nothing was learned or added.

A longer text than was trained on turns the slow pairs to angles never seen. Three remedies change θ
and nothing else: `PositionInterpolation`, `NtkScaling`, `Llama3Scaling`.

Paper: Su, Lu, Pan, Murtadha, Wen and Liu 2021, "RoFormer: Enhanced Transformer with Rotary Position
Embedding", arXiv:2104.09864, section 3.2.2, equations (14) to (16). Theirs to ours: d is K, Θ is
`frequencies`, R is `rotate`.
Differs: a pair is (x[i], x[i + K/2]), as in GPT-NeoX and transformers; the paper's pair is two
neighbours, (x[2i], x[2i + 1]). One fixed permutation of a head's numbers leads from one to the
other, so training finds either as well; but a checkpoint of one kind is no checkpoint of the other.

Chapter: 03
"""

import math
from dataclasses import dataclass
from typing import final

import torch
from jaxtyping import Float, Float64, Int
from torch import Tensor, nn

# --- one rotation -------------------------------------------------------------------------------


def frequencies(d_head: int, base: float = 10000.0) -> Float64[Tensor, "pairs"]:
    """θᵢ = base^(-2i/K), in radians a token, of the pairs i = 0, 1, …, K/2 - 1.

    Raises:
        ValueError: d_head is odd or below 2; base is not a finite number above 1.

    Example:
        >>> frequencies(4, base=100.0).tolist()
        [1.0, 0.1]
    """
    if d_head < 2 or d_head % 2:
        raise ValueError(
            "RoPE turns pairs of numbers, so d_head must be even and at least 2; got "
            f"{d_head}. Choose another d_head, or rope=None for no positions"
        )
    if not 1 < base < math.inf:
        raise ValueError(f"base must be a finite number above 1, such as 10000.0; got {base}")
    return base ** (-torch.arange(0, d_head, 2, dtype=torch.float64, device="cpu") / d_head)


def tables(
    frequencies: Float64[Tensor, "pairs"],
    n_positions: int,
    *,
    dtype: torch.dtype = torch.float32,
    device: torch.device | str = "cpu",
) -> tuple[Float[Tensor, "P K"], Float[Tensor, "P K"]]:
    """What `rotate` needs, for the positions 0 to P - 1: a row of cos and a row of sin for each.

    Both members of a pair are turned by one angle, so every cosine stands twice in its row; so does
    every sine, but first with a minus: the signs of the two equations.

        cos: (cos m θ₀, cos m θ₁, …,  cos m θ₀, cos m θ₁, …)
        sin: (-sin m θ₀, -sin m θ₁, …, sin m θ₀, sin m θ₁, …)

    They are computed in float64 and rounded once: in float32 an angle near 100,000 has steps of
    1/128, and each would be wrong by up to half a step.

    Example:
        >>> cos, sin = tables(torch.tensor([math.pi / 2]).double(), 2)  # a quarter turn a token
        >>> sin.tolist()
        [[-0.0, 0.0], [-1.0, 1.0]]
    """
    positions = torch.arange(n_positions, dtype=torch.float64, device="cpu")
    angles = torch.outer(positions, frequencies)
    cos, sin = angles.cos(), angles.sin()
    return (
        torch.cat((cos, cos), dim=-1).to(device, dtype),
        torch.cat((-sin, sin), dim=-1).to(device, dtype),
    )


def rotate(
    x: Float[Tensor, "*heads T K"], cos: Float[Tensor, "... K"], sin: Float[Tensor, "... K"]
) -> Float[Tensor, "*heads T K"]:
    """Turn every pair (x[i], x[i + K/2]) by its angle.

    Args:
        x: queries or keys.
        cos, sin: rows of `tables`, one a token: [T, K], or what broadcasts to x.

    Example:
        >>> cos, sin = tables(torch.tensor([math.pi / 2]).double(), 3)
        >>> rotate(torch.tensor([[3.0, 4.0]] * 3), cos, sin).round().tolist()
        [[3.0, 4.0], [-4.0, 3.0], [-3.0, -4.0]]
    """
    # Each pair (x₁, x₂) = (x[i], x[i + K/2]) turns by its angle:
    #     y₁ = x₁ cos - x₂ sin        y₂ = x₂ cos + x₁ sin
    # x rolled by K/2 is (x₂, x₁), and the table holds (-sin, sin), so both are one expression.
    return torch.addcmul(x * cos, x.roll(x.shape[-1] // 2, dims=-1), sin)


def rotate_naive(
    x: Float[Tensor, "*heads T K"], angles: Float[Tensor, "T pairs"]
) -> Float[Tensor, "*heads T K"]:
    """The same by complex numbers, z · e^(i angle): what `rotate` must give.

    Args:
        x: queries or keys.
        angles: m θᵢ in radians, of each token and pair.
    """
    first, second = x.chunk(2, dim=-1)
    turned = torch.complex(first, second) * torch.polar(torch.ones_like(angles), angles)
    return torch.cat((turned.real, turned.imag), dim=-1)


# --- longer texts than were trained on ----------------------------------------------------------


@final
@dataclass(frozen=True)
class PositionInterpolation:
    """All angles divided: position m is placed where m / factor was (位置插值).

    Args:
        factor: how many times longer the text may be.

    Raises:
        ValueError: a factor below 1.

    Example:
        >>> PositionInterpolation(4.0).frequencies(4, base=100.0).tolist()
        [0.25, 0.025]

    Paper: Chen, Wong, Chen and Tian 2023, arXiv:2306.15595, section 2.3. Their L'/L is `factor`.
    Differs: θ is divided, not m; the product is the same.
    """

    factor: float

    def __post_init__(self):
        _check_factor(self.factor)

    def frequencies(self, d_head: int, base: float) -> Float64[Tensor, "pairs"]:
        """θᵢ / factor."""
        return frequencies(d_head, base) / self.factor


@final
@dataclass(frozen=True)
class NtkScaling:
    """A larger base: the slowest pair is slowed by the factor, the fastest keeps its pace.

        base' = base · factor^(K / (K - 2))

    Near tokens stay as far apart as they were trained. The exponent is chosen so that the last
    pair's θ is divided by exactly the factor, as by interpolation.

    Args:
        factor: how many times longer the text may be.

    Raises:
        ValueError: a factor below 1; a d_head below 4, which has but one pair.

    Example:
        >>> NtkScaling(4.0).frequencies(4, base=100.0)  # base' is 100 · 4²
        tensor([1.0000, 0.0250], dtype=torch.float64)

    Paper: Peng, Quesnelle, Fan and Shippole 2023, "YaRN", arXiv:2309.00071, definition of the
    "NTK-aware" interpolation. Their s is `factor`.
    Differs: none. (transformers' "dynamic" lets the factor grow with the text; this one is fixed.)
    """

    factor: float

    def __post_init__(self):
        _check_factor(self.factor)

    def frequencies(self, d_head: int, base: float) -> Float64[Tensor, "pairs"]:
        """θᵢ of the larger base."""
        if d_head < 4:
            raise ValueError(
                "NTK scaling treats slow and fast pairs differently, so d_head must be at "
                f"least 4; got {d_head}. PositionInterpolation works for one pair"
            )
        return frequencies(d_head, base * self.factor ** (d_head / (d_head - 2)))


@final
@dataclass(frozen=True, kw_only=True)
class Llama3Scaling:
    """Slow pairs are interpolated, fast ones left alone, those between are mixed.

        turns = original_context_length · θᵢ / 2π
        share = (turns - low) / (high - low), kept within 0 and 1
        θᵢ' = share · θᵢ + (1 - share) · θᵢ / factor

    Args:
        factor: how many times longer the text may be.
        low_freq_factor: pairs that turned at most so often within the trained text are slowed.
        high_freq_factor: pairs that turned at least so often are left alone.
        original_context_length: the length that was trained on.

    Raises:
        ValueError: a factor below 1; low_freq_factor not below high_freq_factor, or below 0; no
            context.

    Example:
        >>> scaling = Llama3Scaling(factor=8.0, original_context_length=8192)
        >>> before = frequencies(64, base=500000.0)
        >>> (before / scaling.frequencies(64, base=500000.0))[[0, -1]].tolist()
        [1.0, 8.0]

    Paper: the code released with Llama 3.1 (Grattafiori et al. 2024, arXiv:2407.21783, gives the
    base alone); the "NTK-by-parts" interpolation of YaRN, arXiv:2309.00071, whose α and β are
    `low_freq_factor` and `high_freq_factor`.
    Differs: none.
    """

    factor: float
    low_freq_factor: float = 1.0
    high_freq_factor: float = 4.0
    original_context_length: int

    def __post_init__(self):
        _check_factor(self.factor)
        if not 0 <= self.low_freq_factor < self.high_freq_factor < math.inf:
            raise ValueError(
                "low_freq_factor must be at least 0 and below high_freq_factor; got "
                f"{self.low_freq_factor} and {self.high_freq_factor}"
            )
        if self.original_context_length < 1:
            raise ValueError(
                "original_context_length must be at least 1, the length that was trained on; got "
                f"{self.original_context_length}"
            )

    def frequencies(self, d_head: int, base: float) -> Float64[Tensor, "pairs"]:
        """θᵢ, slowed by up to the factor."""
        theta = frequencies(d_head, base)
        turns = self.original_context_length * theta / (2 * math.pi)
        d_model = self.high_freq_factor - self.low_freq_factor
        share = ((turns - self.low_freq_factor) / d_model).clamp(0, 1)
        return share * theta + (1 - share) * theta / self.factor


def _check_factor(factor: float) -> None:
    if not 1 <= factor < math.inf:
        raise ValueError(
            "factor must be a finite number of at least 1 (2.0 for texts twice as long); got "
            f"{factor}"
        )


@final
@dataclass(frozen=True, kw_only=True)
class RopeConfig:
    """Which angles: a base, and a remedy for longer texts.

    Args:
        base: the largest turn takes about 2π · base tokens; Llama 3 has 500000.0.
        scaling: None for the angles as they are.

    Raises:
        ValueError: when it is used with a d_head that it does not fit; see `frequencies`.

    Example:
        >>> RopeConfig(base=100.0, scaling=PositionInterpolation(2.0)).frequencies(4).tolist()
        [0.5, 0.05]
    """

    base: float = 10000.0
    scaling: PositionInterpolation | NtkScaling | Llama3Scaling | None = None

    def __post_init__(self):
        frequencies(2, self.base)  # says what is wrong with a base

    def frequencies(self, d_head: int) -> Float64[Tensor, "pairs"]:
        """θᵢ of the pairs of one head, in radians a token."""
        if self.scaling is None:
            return frequencies(d_head, self.base)
        return self.scaling.frequencies(d_head, self.base)

    def tables(
        self, d_head: int, n_positions: int
    ) -> tuple[Float[Tensor, "P K"], Float[Tensor, "P K"]]:
        """cos and sin for `rotate`, float32, of the positions 0 to P - 1; see `tables`."""
        return tables(self.frequencies(d_head), n_positions)


# --- the layer ----------------------------------------------------------------------------------


@final
class Rotations(nn.Module):
    """Rotary position embedding of queries and keys: what every mixer with positions uses.

    Angles are looked up in a table, one row a position, which `reserve` fills.

    Args:
        frequencies: θ, from `RopeConfig.frequencies`.
    """

    def __init__(self, frequencies: Float64[Tensor, "pairs"]):
        super().__init__()
        self.frequencies = frequencies
        self.register_buffer("table", None, persistent=False)

    def reserve(self, context_length: int, like: Tensor) -> None:
        """Prepare positions up to context_length - 1, of like's type and device."""
        if self.table is None or len(self.table) < context_length:
            factory_kwargs = {"dtype": like.dtype, "device": like.device}
            # cos and sin of a position side by side: one look-up brings both
            self.table = torch.cat(
                tables(self.frequencies, context_length, **factory_kwargs), dim=-1
            )

    def forward(
        self, x: Float[Tensor, "B H T K"], positions: Int[Tensor, "*rows positions"] | None
    ) -> Float[Tensor, "B H T K"]:
        """x, each token turned by its position's angles.

        Raises:
            ValueError: not a position for each token, or more tokens than are prepared.
        """
        n_tokens, n_prepared = x.shape[2], len(self.table)
        if positions is None or positions.shape[-1] != n_tokens or n_tokens > n_prepared:
            raise ValueError(
                f"each token needs a position, and rotations are prepared for {n_prepared} of "
                f"them; got {n_tokens} tokens and positions "
                f"{None if positions is None else list(positions.shape)}. For longer texts build "
                "with larger context_length, or call reserve"
            )
        cos_and_sin = nn.functional.embedding(positions, self.table).to(x.dtype)
        if positions.ndim == 2:
            cos_and_sin = cos_and_sin[:, None]  # the axis of heads
        return rotate(x, *cos_and_sin.chunk(2, dim=-1))
