"""Retention (保留, RetNet): linear attention that forgets, each head at its own pace.

No softmax and no feature map: a query's weight for a key is their product, which may be negative,
times γ for every token that has come since:

    S_t = γ S_(t-1) + k_t v_tᵀ          y_t = S_tᵀ q_t / √K          q, k turned as by RoPE

Each head has its own γ: 1 - 1/32, 1 - 1/64, 1 - 1/128, …, so one remembers about thirty tokens,
the next twice as many. Nothing divides by a sum of weights, so a head's output has no size of its
own: a norm gives each head's numbers mean 0 and variance 1. At last a gate made from the token
itself opens and closes every number:

    layer(x) = W_O (swish(W_G x) ⊙ norm(y))

`minillm.mixers.linear_attention` computes the sums, in chunks to train and token by token to write.
A rotation in front makes γ a complex number: γ e^(iθ), an oscillation that dies away.

Paper: Sun et al. 2023, "Retentive Network: A Successor to Transformer for Large Language Models",
arXiv:2307.08621, sections 2.1 to 2.3, equations (5) to (8). Theirs to ours: d is K, Θ is the
rotation, D is γ^(t-s) under the causal mask, R is S.
Differs: queries, keys, values and gate are made by one matrix; pairs are turned as in
`minillm.model.rope`; values are as wide as keys unless told otherwise (theirs: twice); of the three
normalisations of a score only the division by √K is made, since the norm undoes the other two; the
norm has no gain, which would be one with W_O's, and no bias (the authors' code has an RMSNorm
there, which subtracts no mean).

Chapter: 09
"""

import math
from dataclasses import dataclass, field
from typing import Any, NamedTuple, final

import torch
from einops import rearrange
from jaxtyping import Float, Float64, Int
from torch import Tensor, nn

from minillm.mixers.linear_attention import (
    outer_chunked,
    outer_recurrent,
    sum_dtype,
    width_of_a_head,
)
from minillm.mixers.recurrent_state import State, checked, writes
from minillm.model.attention import Context
from minillm.model.rope import RopeConfig, Rotations


def paper_decays(n_heads: int) -> tuple[float, ...]:
    """γ of each head h = 0, 1, …: 1 - 2^(-5-h).

    Example:
        >>> paper_decays(2)  # 1 - 1/32, 1 - 1/64
        (0.96875, 0.984375)
    """
    return tuple(1 - 2.0 ** (-5 - head) for head in range(n_heads))


@final
@dataclass(frozen=True, kw_only=True)
class RetentionConfig:
    """What a layer of retention is built from.

    Args:
        n_heads: H.
        d_head: K, of queries and keys; None for width / n_heads.
        value_width: of the values of each head; None for as wide as keys.
        decays: γ of each head; None for the paper's, see `paper_decays`.
        rope: which rotation; None for none: γ alone then tells near from far.
        chunk_tokens: C; changes the speed only.
        norm_epsilon: of the norm of each head.

    Raises:
        ValueError: a number below 1 (norm_epsilon: not above 0); decays that are not one a head,
            above 0 and at most 1; from `build`, a width that n_heads does not divide, or a
            d_head that RoPE cannot pair.

    Example:
        >>> layer = RetentionConfig(n_heads=4, value_width=16).build(d_model=32)
        >>> {name: list(p.shape) for name, p in layer.named_parameters()}  # 4 · (8 + 8 + 16 + 16)
        {'qkvg.weight': [192, 32], 'output.weight': [32, 64]}
        >>> layer.state_bytes(batch_size=1)  # 4 heads · 8 · 16 numbers of 4 bytes
        2048
    """

    n_heads: int = 4
    d_head: int | None = None
    value_width: int | None = None
    decays: tuple[float, ...] | None = None
    rope: RopeConfig | None = field(default_factory=RopeConfig)
    chunk_tokens: int = 64
    norm_epsilon: float = 1e-6

    def __post_init__(self):
        for name in ("n_heads", "d_head", "value_width", "chunk_tokens"):
            value = getattr(self, name)
            if value is not None and value < 1:
                raise ValueError(f"{name} must be at least 1; got {value}")
        if not 0 < self.norm_epsilon < math.inf:
            raise ValueError(
                f"norm_epsilon must be a finite number above 0; got {self.norm_epsilon}"
            )
        if self.decays is not None and (
            len(self.decays) != self.n_heads or not all(0 < decay <= 1 for decay in self.decays)
        ):
            raise ValueError(
                f"decays must be one γ a head, {self.n_heads} here, each above 0 and at most 1 "
                f"(1 forgets nothing); got {self.decays}"
            )

    def build(
        self,
        d_model: int,
        context_length: int = 2048,
        *,
        device: torch.device | str = "cpu",
        dtype: torch.dtype = torch.float32,
    ) -> "Retention":
        """The layer for a model of that width; see `AttentionConfig.build`."""
        d_head = self.d_head or width_of_a_head(d_model, self.n_heads)
        layer = Retention(
            d_model,
            self.decays or paper_decays(self.n_heads),
            d_head,
            self.value_width or d_head,
            frequencies=None if self.rope is None else self.rope.frequencies(d_head),
            chunk_tokens=self.chunk_tokens,
            norm_epsilon=self.norm_epsilon,
            device=device,
            dtype=dtype,
        )
        layer.reserve(context_length)
        return layer


class Projected(NamedTuple):
    """What is made of each token.

    Args:
        q, k: rotated; k divided by √K.
        v: values.
        gate: of each number of the heads' outputs, before its swish.
    """

    q: Float[Tensor, "B H T N"]
    k: Float[Tensor, "B H T N"]
    v: Float[Tensor, "B H T K"]
    gate: Float[Tensor, "B T HK"]


@final
class Retention(nn.Module):
    """Heads that fade at their own pace, a norm, a gate, and a matrix at the end: a `Mixer`.

    Args:
        d_model: D.
        decays: γ of each head.
        d_head, value_width: of queries and keys, and of values.
        frequencies: θ of the rotation, from `RopeConfig.frequencies`; None for no rotation.
        chunk_tokens: C.
        norm_epsilon: of the norm of each head.
        device, dtype: of the parameters. The sums are of float32 at least.
    """

    residual_projections = ("output",)

    def __init__(
        self,
        d_model: int,
        decays: tuple[float, ...],
        d_head: int,
        value_width: int,
        *,
        frequencies: Float64[Tensor, "pairs"] | None = None,
        chunk_tokens: int = 64,
        norm_epsilon: float = 1e-6,
        device: torch.device | str = "cpu",
        dtype: torch.dtype = torch.float32,
    ):
        super().__init__()
        factory_kwargs = {"device": device, "dtype": dtype}
        # Not a buffer: 1 - 2^-12 would be 1 in a model of 16 bits
        self.decays, self.n_heads = decays, len(decays)
        self.d_head, self.value_width = d_head, value_width
        self.chunk_tokens, self.norm_epsilon = chunk_tokens, norm_epsilon
        batch_size = 2 * self.n_heads * (d_head + value_width)  # all q heads, all k, all v, gates
        self.qkvg = nn.Linear(d_model, batch_size, bias=False, **factory_kwargs)
        self.output = nn.Linear(self.n_heads * value_width, d_model, bias=False, **factory_kwargs)
        self.rotations = None if frequencies is None else Rotations(frequencies)

    def reserve(self, context_length: int) -> None:
        """Prepare rotations for positions up to context_length - 1; what is there stays."""
        if self.rotations is not None:
            self.rotations.reserve(context_length, like=self.qkvg.weight)

    def state_bytes(self, batch_size: int) -> int:
        """Bytes of the state: B · H · K · (width of values) numbers of 4 bytes (8 in float64)."""
        n_numbers = batch_size * self.n_heads * self.d_head * self.value_width
        return n_numbers * sum_dtype(self.qkvg.weight.dtype).itemsize

    def new_cache(self, batch_size: int, max_length: int) -> State:
        """An empty state; `max_length` is for the rotations, the state needs no room."""
        self.reserve(max_length)
        shape = (batch_size, self.n_heads, self.d_head, self.value_width)
        weight = self.qkvg.weight
        empty = torch.zeros(shape, dtype=sum_dtype(weight.dtype), device=weight.device)
        return State("Retention", {"sum": empty})

    def forward(
        self, x: Float[Tensor, "B T D"], context: Context, cache: Any = None
    ) -> Float[Tensor, "B T D"]:
        """What each token found.

        Raises:
            ValueError: a cache of another mixer, a mask that
                `minillm.mixers.recurrent_state.writes` refuses,
                or more tokens than rotations are prepared for.
        """
        before = None
        if cache is not None:
            before = checked(cache, "Retention", len(x))["sum"]
        is_token = writes(context.mask, len(x), x.shape[1])
        q, k, v, gate = self.project(x, context.positions)
        upcast = sum_dtype(q.dtype)  # back only after the norm: sums may be beyond float16
        q, k, v = q.to(upcast), k.to(upcast), v.to(upcast)
        decays = torch.tensor(self.decays, dtype=upcast, device=q.device)
        if x.shape[1] == 1:
            values, after = outer_recurrent(q, k, v, decays, before, is_token)
        else:
            values, after = outer_chunked(q, k, v, decays, before, is_token, self.chunk_tokens)
        if cache is not None:
            cache.update(x.shape[1], sum=after)
        normed = nn.functional.layer_norm(values, (self.value_width,), eps=self.norm_epsilon)
        normed = rearrange(normed, "B H T K -> B T (H K)").to(gate.dtype)
        return self.output(nn.functional.silu(gate) * normed)

    def project(self, x: Float[Tensor, "B T D"], positions: Int[Tensor, "*B T"]) -> Projected:
        """Queries, keys, values and gates of the tokens; see `Projected`.

        Example:
            >>> layer = RetentionConfig(n_heads=2).build(d_model=8)
            >>> q, k, v, gate = layer.project(torch.randn(1, 3, 8), torch.arange(3))
            >>> outer_recurrent(q, k, v, torch.tensor(layer.decays)).values.shape
            torch.Size([1, 2, 3, 4])
        """
        n_heads = self.n_heads
        n_keys, n_values = n_heads * self.d_head, n_heads * self.value_width
        qk, v, gate = self.qkvg(x).split((2 * n_keys, n_values, n_values), dim=-1)
        qk = rearrange(qk, "B T (H N) -> B H T N", H=2 * n_heads)
        if self.rotations is not None:
            qk = self.rotations(qk, positions)
        q, k = qk.chunk(2, dim=1)
        v = rearrange(v, "B T (H K) -> B H T K", H=n_heads)
        return Projected(q, k / math.sqrt(self.d_head), v, gate)
