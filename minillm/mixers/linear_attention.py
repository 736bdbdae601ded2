"""Linear attention (线性注意力): a sum that grows no longer, in place of keys and values.

Without its softmax, attention is a product of three matrices, and those may be multiplied from
either side: (q kᵀ) v, every token with every other, or q (kᵀ v), where kᵀ v is a sum of outer
products (外积), as large after a million tokens as after one. In time, with γ ≤ 1 that lets the
old fade:

    S_t = γ S_(t-1) + k_t v_tᵀ          y_t = S_tᵀ q_t

One function, three ways to compute it, each with its use:

    outer_parallel    all pairs of tokens at once     T² steps side by side; what it means
    outer_recurrent   token after token               T steps one by one; how text is written
    outer_chunked     pairs within a chunk, S between T·C side by side; how it is trained

The Linear Transformer weighs values by φ(q) · φ(k) (`minillm.mixers.feature_maps`) and divides by
the sum of weights. That sum is what a value of 1 would give, so v gets one more column, of ones:

    y_t = Σ_s φ(q_t)·φ(k_s) v_s / Σ_s φ(q_t)·φ(k_s)

Sums are of float32 at least, in a model of 16 bits too: in bfloat16 256 + 1 is 256, so a sum would
stop growing, and float16 ends at 65,504. What comes out has the type of the values again.

Paper: Katharopoulos, Vyas, Pappas and Fleuret 2020, "Transformers are RNNs: Fast Autoregressive
Transformers with Linear Attention", arXiv:2006.16236, equations (8) to (12) and (16) to (20).
Theirs to ours: S_i is the state, Z_i its last column. Chunks: Sun et al. 2023, arXiv:2307.08621,
equation (7).
Differs: queries, keys and values are made by one matrix; positions by rotation before φ, if any.

Chapter: 09
"""

from dataclasses import dataclass, field
from typing import Any, NamedTuple, final

import torch
from einops import rearrange
from jaxtyping import Bool, Float, Float64, Int
from torch import Tensor, nn

from minillm.mixers.feature_maps import EluFeatures, FeatureMap, FeaturesConfig
from minillm.mixers.recurrent_state import State, checked, writes
from minillm.model.attention import Context
from minillm.model.rope import RopeConfig, Rotations

# --- sums of outer products ----------------------------------------------------------------------


class Summed(NamedTuple):
    """What was read from the sums, and the sum after the last token.

    Args:
        values: y, of the type of v.
        state: S, of float32 or wider.
    """

    values: Float[Tensor, "B H T K"]
    state: Float[Tensor, "B H N K"]


def outer_parallel(
    q: Float[Tensor, "B H T N"],
    k: Float[Tensor, "B H T N"],
    v: Float[Tensor, "B H T K"],
    decay: Float[Tensor, "H"] | None = None,
    state: Float[Tensor, "B H N K"] | None = None,
    is_token: Bool[Tensor, "B T"] | None = None,
) -> Summed:
    """y_t = Σ_(s ≤ t) γ^(t-s) (q_t · k_s) v_s, all pairs in one table.

    Args:
        q, k: N features of each token.
        v: K numbers of each.
        decay: γ of each head, above 0 and at most 1; None for 1.
        state: S before the first token; None for zeros.
        is_token: False for padding, which write nothing and let nothing fade; None for no filler.

    Example:
        >>> q = k = torch.ones(1, 1, 3, 1)
        >>> v = torch.tensor([8.0, 4.0, 1.0]).reshape(1, 1, 3, 1)
        >>> y, state = outer_parallel(q, k, v, decay=torch.tensor([0.5]))
        >>> y.flatten().tolist(), state.item()  # 8, 8/2 + 4, 8/4 + 4/2 + 1
        ([8.0, 8.0, 5.0], 5.0)
    """
    dtype, (q, k, v, state) = v.dtype, _wide(q, k, v, state)
    k, written = _written(k, is_token)
    clock = written.cumsum(dim=1)  # by how many tokens S has been changed, each with itself
    # 1. y_t = Σ_(s ≤ t) γ^(t-s) (q_t · k_s) v_s, from a table of all pairs [B H T T]
    values = _within(q, k, decay, clock) @ v
    # 2. what the tokens leave behind: S = Σ_s γ^(T-s) k_s v_sᵀ, [B H N K]
    new = _faded(k, decay, (clock[:, -1:] - clock)[..., None]).mT @ v
    # 3. what came before them, faded
    if state is not None:
        values = values + _faded(q @ state, decay, clock[..., None])
        new = new + _faded(state, decay, clock[:, -1:, None])
    return Summed(values.to(dtype), new)


def outer_recurrent(
    q: Float[Tensor, "B H T N"],
    k: Float[Tensor, "B H T N"],
    v: Float[Tensor, "B H T K"],
    decay: Float[Tensor, "H"] | None = None,
    state: Float[Tensor, "B H N K"] | None = None,
    is_token: Bool[Tensor, "B T"] | None = None,
) -> Summed:
    """The same, token after token: S_t = γ S_(t-1) + k_t v_tᵀ, y_t = S_tᵀ q_t.

    Args:
        q, k, v, decay, state, is_token: as for `outer_parallel`.
    """
    dtype, (q, k, v, state) = v.dtype, _wide(q, k, v, state)
    k, written = _written(k, is_token)
    if state is None:
        state = _zeros(k, v)
    # γ of each head and token, 1 at padding: [R H T]
    gamma = v.new_ones(1, 1, q.shape[2]) if decay is None else _powers(decay, written)
    gamma, values = gamma.to(state.dtype), []
    for t in range(q.shape[2]):
        # 1. fade and write: S ← γ S + k vᵀ, [B H N K]
        state = gamma[:, :, t, None, None] * state + k[:, :, t, :, None] * v[:, :, t, None, :]
        # 2. read: y = Sᵀ q, [B H 1 K]
        values.append(q[:, :, t, None, :] @ state)
    return Summed(torch.cat(values, dim=2).to(dtype), state)


def outer_chunked(
    q: Float[Tensor, "B H T N"],
    k: Float[Tensor, "B H T N"],
    v: Float[Tensor, "B H T K"],
    decay: Float[Tensor, "H"] | None = None,
    state: Float[Tensor, "B H N K"] | None = None,
    is_token: Bool[Tensor, "B T"] | None = None,
    chunk_tokens: int = 64,
) -> Summed:
    """The same, in chunks: a table of pairs within each, and S carried from one to the next.

    Args:
        q, k, v, decay, state, is_token: as for `outer_parallel`.
        chunk_tokens: C. The last chunk may be shorter; it is filled up with padding.

    Raises:
        ValueError: chunk_tokens below 1.
    """
    _check_chunk(chunk_tokens)
    n_tokens = q.shape[2]
    size = min(chunk_tokens, n_tokens)
    dtype, (q, k, v, state) = v.dtype, _wide(q, k, v, state)
    k, written = _written(k, is_token)
    q, k, v = (_in_chunks(x, size) for x in (q, k, v))  # [B H n C N]
    clock = _in_chunks(written[..., None], size).squeeze(-1).cumsum(dim=-1)  # [1 or B, n, C]
    # 1. within each chunk: the table of pairs [B H n C C], as in `outer_parallel`
    values = _within(q, k, decay, clock) @ v
    # 2. from chunk to chunk: S ← γ^C S + Σ γ^(C-s) k_s v_sᵀ
    added = _faded(k, decay, (clock[..., -1:] - clock)[..., None]).mT @ v  # by each chunk to S
    if state is None:
        state = _zeros(k, v)
    before = []
    for chunk in range(added.shape[2]):
        before.append(state)
        state = _faded(state, decay, clock[:, chunk, -1:, None]) + added[:, :, chunk]
    # 3. what each token reads of the chunks before its own
    carried = q @ torch.stack(before, dim=2)
    values = values + _faded(carried, decay, clock[..., None])
    values = rearrange(values, "B H n C K -> B H (n C) K")[:, :, :n_tokens]
    return Summed(values.to(dtype), state)


def _wide(*tensors: Tensor | None) -> list[Any]:
    """In float32, or as they are where they are wider: what sums are made of and kept in."""
    return [None if x is None else x.to(sum_dtype(x.dtype)) for x in tensors]


def sum_dtype(dtype: torch.dtype) -> torch.dtype:
    """The type in which sums over tokens of that type are kept.

    Example:
        >>> sum_dtype(torch.bfloat16), sum_dtype(torch.float64)
        (torch.float32, torch.float64)
    """
    return torch.promote_types(dtype, torch.float32)


def _written(k: Tensor, is_token: Tensor | None) -> tuple[Tensor, Int[Tensor, "R T"]]:
    """k without its padding, and a 1 for each token, a 0 for each filler; R is 1 or B."""
    if is_token is None:
        return k, torch.ones(1, k.shape[2], dtype=torch.int64, device=k.device)
    return k.masked_fill(~is_token[:, None, :, None], 0), is_token.long()


def _within(q: Tensor, k: Tensor, decay: Tensor | None, clock: Tensor) -> Tensor:
    """γ^(t-s) (q_t · k_s) of every pair, and 0 where s is later."""
    scores = q @ k.mT
    n_tokens = scores.shape[-1]
    table = torch.ones(n_tokens, n_tokens, dtype=q.dtype, device=q.device).tril()
    if decay is not None:
        age = (clock[..., :, None] - clock[..., None, :]).clamp(min=0)
        table = table * _powers(decay, age).to(q.dtype)
    return scores * table  # one small table for all rows, in place of a tril of each


def _faded(x: Tensor, decay: Tensor | None, n_tokens: Tensor) -> Tensor:
    """x of [B H ...] after n_tokens more, of [R ...]: γ^n x."""
    return x if decay is None else x * _powers(decay, n_tokens).to(x.dtype)


def _powers(decay: Tensor, n_tokens: Tensor) -> Tensor:
    """γ^n of each head, [R H ...]; n is never negative, so no power is above 1."""
    return decay.reshape(-1, *[1] * (n_tokens.ndim - 1)) ** n_tokens[:, None]


def _zeros(k: Tensor, v: Tensor) -> Tensor:
    return v.new_zeros(*v.shape[:2], k.shape[-1], v.shape[-1])


def _in_chunks(x: Tensor, size: int) -> Tensor:
    """The axis of tokens, the last but one, cut into chunks; zeros at the end of the last."""
    n_missing = -x.shape[-2] % size
    if n_missing:
        x = nn.functional.pad(x, (0, 0, 0, n_missing))
    return x.unflatten(-2, (-1, size))


def _check_chunk(chunk_tokens: int) -> None:
    if chunk_tokens < 1:
        raise ValueError(
            f"chunk_tokens must be at least 1, and 32 to 128 is fast; got {chunk_tokens}"
        )


# --- the Linear Transformer ----------------------------------------------------------------------


def attend_linear(
    q: Float[Tensor, "B H T N"],
    k: Float[Tensor, "B H T N"],
    v: Float[Tensor, "B H T K"],
    state: Float[Tensor, "B H N n"] | None = None,
    is_token: Bool[Tensor, "B T"] | None = None,
    chunk_tokens: int = 64,
) -> Summed:
    """Of each query the mean of the values so far, weighted by q · k.

    Args:
        q, k: features φ(q) and φ(k), whose products must be positive.
        v: the values.
        state: of the tokens before: [B, H, N, K + 1], the last column for the sum of weights.
        is_token: False for padding, which are weighed by nobody; None for no filler.
        chunk_tokens: as for `outer_chunked`.

    Returns:
        The means, and the state after the last token. A query that sees nothing takes 0.

    Example:
        >>> q = torch.ones(1, 1, 2, 1)
        >>> k, v = torch.tensor([3.0, 1.0]), torch.tensor([4.0, 8.0])
        >>> y, state = attend_linear(q, k.reshape(1, 1, 2, 1), v.reshape(1, 1, 2, 1))
        >>> y.flatten().tolist(), state.flatten().tolist()  # (3 · 4 + 1 · 8) / (3 + 1)
        ([4.0, 5.0], [20.0, 4.0])
    """
    dtype, (q, k, v) = v.dtype, _wide(q, k, v)  # back only after the division
    v = nn.functional.pad(v, (0, 1), value=1.0)
    if q.shape[2] == 1:
        summed = outer_recurrent(q, k, v, None, state, is_token)
    else:
        summed = outer_chunked(q, k, v, None, state, is_token, chunk_tokens)
    weight = summed.values[..., -1:]
    weight = weight.masked_fill(weight == 0, 1)  # 0 / 0 would be NaN
    return Summed((summed.values[..., :-1] / weight).to(dtype), summed.state)


# --- one layer -----------------------------------------------------------------------------------


@final
@dataclass(frozen=True, kw_only=True)
class LinearAttentionConfig:
    """What a layer of linear attention is built from.

    Args:
        n_heads: H.
        d_head: K; None for width / n_heads.
        features: φ, with N features; see `minillm.mixers.feature_maps`.
        rope: a rotation of queries and keys before φ; None for no positions. With
            `FavorFeatures` a weight then depends, on average, on the distance alone, as in
            attention; with `EluFeatures`, which treats each number by itself, on positions too.
        chunk_tokens: C; changes the speed only.

    Raises:
        ValueError: a number below 1; from `build`, a width that n_heads does not divide, or a
            d_head that RoPE cannot pair.

    Example:
        >>> layer = LinearAttentionConfig(n_heads=4).build(d_model=32)
        >>> {name: list(p.shape) for name, p in layer.named_parameters()}  # K is 8
        {'qkv.weight': [96, 32], 'output.weight': [32, 32]}
        >>> layer.state_bytes(batch_size=1)  # 4 heads · 8 features · 9 numbers of 4 bytes
        1152
    """

    n_heads: int = 4
    d_head: int | None = None
    features: FeaturesConfig = field(default_factory=EluFeatures)
    rope: RopeConfig | None = None
    chunk_tokens: int = 64

    def __post_init__(self):
        for name in ("n_heads", "d_head"):
            value = getattr(self, name)
            if value is not None and value < 1:
                raise ValueError(f"{name} must be at least 1; got {value}")
        _check_chunk(self.chunk_tokens)

    def build(
        self,
        d_model: int,
        context_length: int = 2048,
        *,
        device: torch.device | str = "cpu",
        dtype: torch.dtype = torch.float32,
    ) -> "LinearAttention":
        """The layer for a model of that width; see `AttentionConfig.build`."""
        d_head = self.d_head or width_of_a_head(d_model, self.n_heads)
        layer = LinearAttention(
            d_model,
            self.n_heads,
            d_head,
            self.features.build(d_head, device=device, dtype=dtype),
            frequencies=None if self.rope is None else self.rope.frequencies(d_head),
            chunk_tokens=self.chunk_tokens,
            device=device,
            dtype=dtype,
        )
        layer.reserve(context_length)
        return layer


def width_of_a_head(d_model: int, n_heads: int) -> int:
    """width / n_heads.

    Raises:
        ValueError: a width below 1, or one that n_heads does not divide.
    """
    if d_model < 1 or d_model % n_heads:
        raise ValueError(
            "d_model must be at least 1, and n_heads must divide it where d_head is None; "
            f"got d_model={d_model} and n_heads={n_heads}"
        )
    return d_model // n_heads


@final
class LinearAttention(nn.Module):
    """Heads that weigh by features, and a matrix that puts together what they found: a `Mixer`.

    Args:
        d_model: D.
        n_heads: H.
        d_head: K.
        features: φ.
        frequencies: θ of the rotation, from `RopeConfig.frequencies`; None for no rotation.
        chunk_tokens: C.
        device, dtype: of the parameters. The sums are of float32 at least.
    """

    residual_projections = ("output",)

    def __init__(
        self,
        d_model: int,
        n_heads: int,
        d_head: int,
        features: FeatureMap,
        *,
        frequencies: Float64[Tensor, "pairs"] | None = None,
        chunk_tokens: int = 64,
        device: torch.device | str = "cpu",
        dtype: torch.dtype = torch.float32,
    ):
        super().__init__()
        factory_kwargs = {"device": device, "dtype": dtype}
        self.n_heads, self.d_head, self.chunk_tokens = n_heads, d_head, chunk_tokens
        self.qkv = nn.Linear(
            d_model, 3 * n_heads * d_head, bias=False, **factory_kwargs
        )  # q's rows first
        self.features = features
        self.output = nn.Linear(n_heads * d_head, d_model, bias=False, **factory_kwargs)
        self.rotations = None if frequencies is None else Rotations(frequencies)

    def reserve(self, context_length: int) -> None:
        """Prepare rotations for positions up to context_length - 1; what is there stays."""
        if self.rotations is not None:
            self.rotations.reserve(context_length, like=self.qkv.weight)

    def state_bytes(self, batch_size: int) -> int:
        """Bytes of the state: B · H · N · (K + 1) numbers of 4 bytes (8 in float64)."""
        n_numbers = batch_size * self.n_heads * self.features.n_features * (self.d_head + 1)
        return n_numbers * sum_dtype(self.qkv.weight.dtype).itemsize

    def new_cache(self, batch_size: int, max_length: int) -> State:
        """An empty state; `max_length` is for the rotations, the state needs no room."""
        self.reserve(max_length)
        shape = (batch_size, self.n_heads, self.features.n_features, self.d_head + 1)
        weight = self.qkv.weight
        empty = torch.zeros(shape, dtype=sum_dtype(weight.dtype), device=weight.device)
        return State("LinearAttention", {"sum": empty})

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
            before = checked(cache, "LinearAttention", len(x))["sum"]
        is_token = writes(context.mask, len(x), x.shape[1])
        q, k, v = self.project(x, context.positions)
        values, after = attend_linear(q, k, v, before, is_token, self.chunk_tokens)
        if cache is not None:
            cache.update(x.shape[1], sum=after)
        return self.output(rearrange(values, "B H T K -> B T (H K)"))

    def project(
        self, x: Float[Tensor, "B T D"], positions: Int[Tensor, "*B T"]
    ) -> tuple[Float[Tensor, "B H T N"], Float[Tensor, "B H T N"], Float[Tensor, "B H T K"]]:
        """φ(q), φ(k) and v of the tokens: what `attend_linear` is given.

        Example:
            >>> layer = LinearAttentionConfig(n_heads=2).build(d_model=8)
            >>> q, k, v = layer.project(torch.randn(1, 3, 8), torch.arange(3))
            >>> attend_linear(q, k, v).values.shape
            torch.Size([1, 2, 3, 4])
        """
        n_heads = self.n_heads
        heads = rearrange(self.qkv(x), "B T (H K) -> B H T K", H=3 * n_heads)
        qk, v = heads.split((2 * n_heads, n_heads), dim=1)
        if self.rotations is not None:
            qk = self.rotations(qk, positions)
        q, k = self.features(*qk.chunk(2, dim=1))
        return q, k, v
