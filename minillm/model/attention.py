"""Attention (注意力): every token looks back and takes what it needs.

Of each token three things are computed: a query (what it looks for), a key (what it can be found
by), a value (what it has to give). A query's product with every key, through a softmax, says how
much of each value is taken:

    weights = softmax(q kᵀ / √K)          values taken = weights v

`attend` does just that and gives the weights too; `attend_fast` is the same in one call of torch.
H such heads (多头) look side by side, each K numbers wide. Keys and values may have fewer heads,
G: each then serves H/G queries (分组查询, grouped-query attention; G = 1 is multi-query), and a
cache of keys and values is H/G times smaller.

`Attention` is one layer of it: a `Mixer`, the part of a block in which tokens see each other. It is
given what is not its own: a `Context` (where the tokens stand, who may look where) and a cache.

Paper: Vaswani et al. 2017, "Attention Is All You Need", arXiv:1706.03762, section 3.2, equation
(1); Ainslie et al. 2023, "GQA", arXiv:2305.13245, section 2.2; Shazeer 2019, arXiv:1911.02150,
section 3 (multi-query). Theirs to ours: d_model is D, h is H, d_k and d_v are K.
Differs: queries, keys and values are made by one matrix; no dropout; positions by rotation
(`minillm.model.rope`).

Chapter: 03
"""

import math
from dataclasses import dataclass, field
from typing import Any, NamedTuple, Protocol, final

import torch
from einops import einsum, rearrange
from jaxtyping import Bool, Float, Float64, Int
from torch import Tensor, nn

from minillm.model.cache import KVCache
from minillm.model.masks import causal, window
from minillm.model.rope import RopeConfig, Rotations

# --- the maths ----------------------------------------------------------------------------------


class Attended(NamedTuple):
    """The outputs of attention and its weights.

    Args:
        values: for each query the weighted sum of the values.
        weights: for each query the attention weight of each key; a row sums to 1.
    """

    values: Float[Tensor, "B H T K"]
    weights: Float[Tensor, "B H T S"]


def attend(
    q: Float[Tensor, "B H T K"],
    k: Float[Tensor, "B G S K"],
    v: Float[Tensor, "B G S K"],
    mask: Bool[Tensor, "..."] | None = None,
) -> Attended:
    """Scaled dot-product attention, by hand: softmax(q kᵀ / √K) v.

    Args:
        q, k, v: G must divide H; key head 0 serves the first H/G query heads, and so on.
        mask: True = may look; broadcasts to [B, H, T, S]. See `minillm.model.masks`.

    Returns:
        Values and weights. Where a query may not look its weight is exactly 0. A query that may
        look nowhere has weights 0 and takes 0: not NaN, so padding cannot spoil a batch.

    Raises:
        ValueError: G does not divide H; a mask of another shape, or of numbers.

    Example:
        >>> q = torch.tensor([2.0, 0.0]).reshape(1, 1, 2, 1)  # two queries, K = 1
        >>> k = v = torch.tensor([math.log(2), 0.0]).reshape(1, 1, 2, 1)
        >>> attend(q, k, v).weights  # exp(2 log 2) : exp(0) is 4 : 1
        tensor([[[[0.8000, 0.2000],
                  [0.5000, 0.5000]]]])
    """
    _check(q, k, mask)
    # 1. scores q kᵀ / √K: how well each query fits each key; R query heads share one key head
    q = rearrange(q, "B (G R) T K -> B G R T K", G=k.shape[1])
    scores = einsum(q, k, "B G R T K, B G S K -> B G R T S") / math.sqrt(q.shape[-1])
    scores = rearrange(scores, "B G R T S -> B (G R) T S")
    # 2. mask: a key that may not be seen gets -∞
    if mask is not None:
        scores = scores.masked_fill(~mask, -math.inf)
    # 3. softmax over the keys: weights that sum to 1
    weights = scores.softmax(dim=-1)
    if mask is not None:
        weights = weights.masked_fill(~mask, 0)  # a row of -inf alone had become NaN
    # 4. for each query the weighted sum of the values, [B H T K]
    shared = rearrange(weights, "B (G R) T S -> B G R T S", G=k.shape[1])
    values = einsum(shared, v, "B G R T S, B G S K -> B G R T K")
    return Attended(rearrange(values, "B G R T K -> B (G R) T K"), weights)


def attend_fast(
    q: Float[Tensor, "B H T K"],
    k: Float[Tensor, "B G S K"],
    v: Float[Tensor, "B G S K"],
    mask: Bool[Tensor, "..."] | None = None,
    causal: bool = False,
) -> Float[Tensor, "B H T K"]:
    """`attend(q, k, v, mask).values` by torch's own kernel, which keeps no weights.

    Args:
        q, k, v, mask: as for `attend`.
        causal: look at no later token; for as many keys as queries. No mask is needed then, and
            the half that it would hide is not computed.

    Raises:
        ValueError: as for `attend`; `causal` with a mask, or with more keys than queries.
    """
    _check(q, k, mask)
    if causal and (mask is not None or q.shape[2] != k.shape[2]):
        raise ValueError(
            "causal=True is for as many keys as queries and no mask; got "
            f"{q.shape[2]} queries, {k.shape[2]} keys and {'no' if mask is None else 'a'} mask. "
            "Make one mask of both: minillm.model.masks.causal(query_positions, key_positions)"
        )
    # Grouped heads by enable_gqa, the fastest of four ways (torch 2.13, one CPU thread; forward and
    # backward of 32 rows of 64, H 4, G 2 | one new token after 128, one row): 5.8 ms | 15 µs. Heads
    # repeated 6.7 | 45, a fifth axis broadcast 8.5 | 90, by hand 7.8 | 110. By hand is the faster
    # only for one new token in many rows of large groups (16 rows, H 8, G 2: 0.41 against 0.53 ms).
    grouped = q.shape[1] != k.shape[1]
    return nn.functional.scaled_dot_product_attention(
        q, k, v, attn_mask=mask, is_causal=causal, enable_gqa=grouped
    )


def _check(q: Tensor, k: Tensor, mask: Tensor | None) -> None:
    _check_heads(q.shape[1], k.shape[1])
    if mask is None:
        return
    scores = (q.shape[0], q.shape[1], q.shape[2], k.shape[2])
    fits = mask.ndim <= 4 and all(
        n == 1 or n == size for n, size in zip(mask.shape[::-1], scores[::-1], strict=False)
    )
    if mask.dtype != torch.bool or not fits:
        raise ValueError(
            "a mask must be of bool, True = may look, and broadcast to [rows, heads, queries, "
            f"keys] = {list(scores)}; got {mask.dtype} of {list(mask.shape)}. Keys are all tokens "
            "in the cache, the new ones with them"
        )


def _check_heads(n_heads: int, n_kv_heads: int) -> None:
    if n_heads % n_kv_heads:
        raise ValueError(
            "each key/value head serves the same number of queries, so n_kv_heads must divide "
            f"n_heads; got {n_kv_heads} and {n_heads}"
        )


# --- what a block asks of it --------------------------------------------------------------------


@final
@dataclass(frozen=True, kw_only=True, eq=False)
class Context:
    """What mixers and feed-forward layers are told of the tokens that they are given.

    A whole model fills in `positions` and `tokens` where they are None.

    Args:
        positions: of these tokens in their texts, from 0 on; [T], or [B, T] where rows differ.
        mask: True = may look; broadcasts to [B, H, T, S], where S counts all tokens in the cache
            too. None means plainly causal: everything in the cache, and no later token.
        memory: an encoder's output, for those that look at one.
        tokens: their ids, for layers that choose by them.
        domains: of each text, a number from 0 on, for layers that choose by it.
    """

    positions: Int[Tensor, "T"] | Int[Tensor, "B T"] | None = None
    mask: Bool[Tensor, "..."] | None = None
    memory: Float[Tensor, "B S D"] | None = None
    tokens: Int[Tensor, "B T"] | None = None
    domains: Int[Tensor, "texts"] | None = None


class Mixer(Protocol):
    """The part of a block in which tokens see each other (token mixing); attention is one.

    A module names in `residual_projections` those of its `nn.Linear`s whose outputs are added to
    the stream: their first weights are smaller (`minillm.model.transformer.initialise`).
    """

    def __call__(
        self, x: Float[Tensor, "B T D"], context: Context, cache: Any = None
    ) -> Float[Tensor, "B T D"]:
        """Mix the tokens of each row; with a cache, also those that it keeps."""

    def new_cache(self, batch_size: int, max_length: int) -> Any:
        """An empty cache, of a kind that this mixer understands; the caller owns it."""


# --- one layer ----------------------------------------------------------------------------------


@final
@dataclass(frozen=True, kw_only=True)
class AttentionConfig:
    """What a layer of attention is built from.

    Args:
        n_heads: H.
        n_kv_heads: G; None for as many as heads.
        d_head: K; None for width / n_heads.
        rope: which rotation; None for a layer that knows no positions.
        qk_norm: queries and keys are scaled to a root mean square of 1, and by a learned weight,
            before they are rotated (Qwen 3), so that scores cannot grow without bound.
        norm_epsilon: of that norm.
        window_tokens: a token sees itself and the window_tokens - 1 before it; None for all.

    Raises:
        ValueError: a number below 1 (norm_epsilon: not above 0), or n_kv_heads that does not
            divide n_heads; from `build`, a width that n_heads does not divide, or a d_head
            that RoPE cannot pair.

    Example:
        >>> layer = AttentionConfig(n_heads=4, n_kv_heads=2).build(d_model=32)
        >>> {name: list(p.shape) for name, p in layer.named_parameters()}  # K is 8
        {'qkv.weight': [64, 32], 'output.weight': [32, 32]}
    """

    n_heads: int = 4
    n_kv_heads: int | None = None
    d_head: int | None = None
    rope: RopeConfig | None = field(default_factory=RopeConfig)
    qk_norm: bool = False
    norm_epsilon: float = 1e-6
    window_tokens: int | None = None

    def __post_init__(self):
        for name in ("n_heads", "n_kv_heads", "d_head", "window_tokens"):
            value = getattr(self, name)
            if value is not None and value < 1:
                raise ValueError(f"{name} must be at least 1; got {value}")
        if not 0 < self.norm_epsilon < math.inf:
            raise ValueError(
                f"norm_epsilon must be a finite number above 0; got {self.norm_epsilon}"
            )
        if self.n_kv_heads is not None:
            _check_heads(self.n_heads, self.n_kv_heads)

    def build(
        self,
        d_model: int,
        context_length: int = 2048,
        *,
        device: torch.device | str = "cpu",
        dtype: torch.dtype = torch.float32,
    ) -> "Attention":
        """The layer for a model of that width, with torch's own first weights.

        Args:
            d_model: D.
            context_length: for how many positions rotations are prepared; `reserve` adds more.
            device, dtype: of its parameters.
        """
        if d_model < 1 or (self.d_head is None and d_model % self.n_heads):
            raise ValueError(
                "d_model must be at least 1, and n_heads must divide it where d_head is None; "
                f"got d_model={d_model} and n_heads={self.n_heads}"
            )
        d_head = self.d_head or d_model // self.n_heads
        layer = Attention(
            d_model,
            self.n_heads,
            self.n_kv_heads or self.n_heads,
            d_head,
            frequencies=None if self.rope is None else self.rope.frequencies(d_head),
            qk_norm_epsilon=self.norm_epsilon if self.qk_norm else None,
            window_tokens=self.window_tokens,
            device=device,
            dtype=dtype,
        )
        layer.reserve(context_length)
        return layer


@final
class Attention(nn.Module):
    """Heads that look, and a matrix that puts together what they found: a `Mixer`.

    Args:
        d_model: D.
        n_heads, n_kv_heads: H and G.
        d_head: K.
        frequencies: θ of the rotation, from `RopeConfig.frequencies`; None for no rotation.
        qk_norm_epsilon: of the norm of queries and keys; None for no norm.
        window_tokens: how many tokens a token sees, itself with them; None for all.
        device, dtype: of the parameters.
    """

    residual_projections = ("output",)

    def __init__(
        self,
        d_model: int,
        n_heads: int,
        n_kv_heads: int,
        d_head: int,
        *,
        frequencies: Float64[Tensor, "pairs"] | None = None,
        qk_norm_epsilon: float | None = None,
        window_tokens: int | None = None,
        device: torch.device | str = "cpu",
        dtype: torch.dtype = torch.float32,
    ):
        super().__init__()
        factory_kwargs = {"device": device, "dtype": dtype}
        self.n_heads, self.n_kv_heads, self.d_head = n_heads, n_kv_heads, d_head
        self.qk_norm_epsilon, self.window_tokens = qk_norm_epsilon, window_tokens
        n_projected = n_heads + 2 * n_kv_heads  # rows: all q heads, all k heads, all v heads
        self.qkv = nn.Linear(d_model, n_projected * d_head, bias=False, **factory_kwargs)
        self.output = nn.Linear(n_heads * d_head, d_model, bias=False, **factory_kwargs)
        normed = qk_norm_epsilon is not None
        self.q_norm = nn.Parameter(torch.ones(d_head, **factory_kwargs)) if normed else None
        self.k_norm = nn.Parameter(torch.ones(d_head, **factory_kwargs)) if normed else None
        self.rotations = None if frequencies is None else Rotations(frequencies)

    def reserve(self, context_length: int) -> None:
        """Prepare rotations for positions up to context_length - 1; what is there stays."""
        if self.rotations is not None:
            self.rotations.reserve(context_length, like=self.qkv.weight)

    def new_cache(self, batch_size: int, max_length: int) -> KVCache:
        """An empty cache for batch_size texts of up to max_length tokens; see `KVCache`."""
        self.reserve(max_length)
        weight = self.qkv.weight
        return KVCache(
            batch_size, self.n_kv_heads, max_length, self.d_head, weight.dtype, weight.device
        )

    def forward(
        self, x: Float[Tensor, "B T D"], context: Context, cache: Any = None
    ) -> Float[Tensor, "B T D"]:
        """What each token found.

        Args:
            x: the tokens.
            context: their positions, and the mask.
            cache: a `KVCache`, or what has its `append`; these tokens are appended to it, and see
                all that it keeps.

        Raises:
            ValueError: the cache is full, or was made for another batch; not a position for each
                token, or more tokens than rotations are prepared for.
        """
        q, k, v = self.project(x, context.positions)
        if cache is not None:
            k, v = cache.append(k, v)
        n_queries, n_keys, mask = q.shape[2], k.shape[2], context.mask
        windowed = self.window_tokens is not None and self.window_tokens < n_keys
        all_before = mask is None and not windowed
        if all_before and n_queries == n_keys:
            values = attend_fast(q, k, v, causal=True)
        elif all_before and n_queries == 1:
            values = attend_fast(q, k, v)  # nothing is later than the newest token
        else:
            # Places in the row, as the cache counts them; positions may begin anew in each text.
            keys = torch.arange(n_keys, device=x.device)
            queries = keys[n_keys - n_queries :]
            if windowed:
                near = window(queries, keys, self.window_tokens)
                mask = near if mask is None else mask & near
            elif mask is None:
                mask = causal(queries, keys)
            values = attend_fast(q, k, v, mask)
        return self.output(values.transpose(1, 2).flatten(2))

    def project(
        self, x: Float[Tensor, "B T D"], positions: Int[Tensor, "*B T"]
    ) -> tuple[Float[Tensor, "B H T K"], Float[Tensor, "B G T K"], Float[Tensor, "B G T K"]]:
        """Queries, keys and values of the tokens, normed and rotated: what `attend` is given.

        Example:
            >>> layer = AttentionConfig(n_heads=2).build(d_model=8)
            >>> q, k, v = layer.project(torch.randn(1, 3, 8), torch.arange(3))
            >>> attend(q, k, v).weights.shape
            torch.Size([1, 2, 3, 3])
        """
        H, G = self.n_heads, self.n_kv_heads
        heads = self.qkv(x).unflatten(-1, (H + 2 * G, self.d_head)).transpose(1, 2)
        qk, v = heads.split((H + G, G), dim=1)
        if torch.is_grad_enabled():
            v = v.contiguous()  # a view would keep all of qkv(x) in memory for the way back
        if self.q_norm is not None:
            q, k = qk.split((H, G), dim=1)
            qk = torch.cat((self._normed(q, self.q_norm), self._normed(k, self.k_norm)), dim=1)
        if self.rotations is not None:
            qk = self.rotations(qk, positions)
        q, k = qk.split((H, G), dim=1)
        return q, k, v

    def _normed(self, x: Tensor, weight: Tensor) -> Tensor:
        shape, epsilon = (self.d_head,), self.qk_norm_epsilon
        return nn.functional.rms_norm(x, shape, weight.to(x.dtype), epsilon)
