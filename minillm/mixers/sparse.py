"""Sparse attention (稀疏注意力): what a pattern hides is not computed at all.

A mask alone saves nothing: all scores are multiplied, and then most are thrown away.
`attend_blocks` cuts queries and keys into blocks (分块), looks up in a small table, the layout, in
which of them some pair is allowed, and multiplies only those:

    window of 2, 6 tokens         layout, blocks of 2
    1 · · · · ·
    1 1 · · · ·                   1 · ·
    · 1 1 · · ·                   1 1 ·            5 blocks of 4 scores in place of 9
    · · 1 1 · ·                   · 1 1
    · · · 1 1 ·
    · · · · 1 1

So a pattern should come in blocks: strides shorter than a block leave none out.

`SparseAttention` is the attention of chapter 03 with patterns (`minillm.mixers.patterns`): the same
parameters, the same cache. A pattern is laid over the places in a text, so a row that is filled up
on the left has that of its text alone. New texts go through blocks; one more token, which sees a
single row of the table, through the mask.

Paper: Child et al. 2019, "Sparse Transformers", arXiv:1904.10509, section 5.5 (blocks); Zaheer et
al. 2020, "BigBird", arXiv:2007.14062, section 2 and appendix D (blocks).
Differs: blocks are slices of tensors, one call of torch for each block of queries, with no kernel
of its own; global tokens have no matrices of their own.

Chapter: 09
"""

from collections.abc import Callable
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Any, final

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn

from minillm.mixers.patterns import Pattern, Sinks, Window, any_of, at_least, checked_patterns
from minillm.model.attention import Attention, AttentionConfig, Context, attend_fast
from minillm.model.cache import KVCache
from minillm.model.masks import causal

# --- blocks -------------------------------------------------------------------------------------
MaskOf = Callable[[Tensor, Tensor], Tensor]  # places of queries and keys → [T, S] or [B, 1, T, S]


def block_layout(
    mask_of: MaskOf, n_queries: int, n_keys: int, block_tokens: int
) -> Bool[Tensor, "Q L"]:
    """Which blocks of keys each block of queries has a pair in.

    It asks for the whole mask once, a block of queries at a time.

    Args:
        mask_of: given places of queries and of keys, who may look; the queries are the last of the
            keys' places, from n_keys - n_queries on.
        n_queries, n_keys: T and S.
        block_tokens: of both; the last block may be shorter.

    Raises:
        ValueError: a block below 1 token.

    Example:
        >>> near = Window(n_tokens=2)
        >>> block_layout(near.mask, 6, 6, block_tokens=2).int()
        tensor([[1, 0, 0],
                [1, 1, 0],
                [0, 1, 1]], dtype=torch.int32)
    """
    at_least(1, "block_tokens", block_tokens)
    keys = torch.arange(n_keys, device="cpu")
    rows = []
    for queries in keys[n_keys - n_queries :].split(block_tokens):
        seen = mask_of(queries, keys).reshape(-1, n_keys).any(dim=0)
        rows.append(torch.stack([block.any() for block in seen.split(block_tokens)]))
    return torch.stack(rows)


def n_multiplied(
    layout: Bool[Tensor, "Q L"], n_queries: int, n_keys: int, block_tokens: int
) -> int:
    """How many scores `attend_blocks` multiplies for one head of one row.

    Example:
        >>> layout = block_layout(Window(n_tokens=2).mask, 6, 6, block_tokens=2)
        >>> n_multiplied(layout, 6, 6, block_tokens=2)  # 5 blocks of 4; 36 without a pattern
        20
    """
    heights, widths = (
        torch.tensor([min(block_tokens, n - i) for i in range(0, n, block_tokens)], device="cpu")
        for n in (n_queries, n_keys)
    )
    return int((layout.cpu() * heights[:, None] * widths).sum())


def attend_blocks(
    q: Float[Tensor, "B H T K"],
    k: Float[Tensor, "B G S K"],
    v: Float[Tensor, "B G S K"],
    mask_of: MaskOf,
    block_tokens: int,
    layout: Bool[Tensor, "Q L"] | None = None,
) -> Float[Tensor, "B H T K"]:
    """`attend_fast` with the mask `mask_of(all queries, all keys)`; empty blocks are left out.

    No more than a block of queries and the blocks of keys that it sees are multiplied at a time.

    Args:
        q, k, v: the queries are the last T of the S tokens.
        mask_of: as for `block_layout`.
        block_tokens: of queries, and of keys.
        layout: from `block_layout`, where it is known already; it may have blocks too many. None
            to make it, which takes as long as attention to everything: keep it for the next time.

    Raises:
        ValueError: a block below 1 token; more queries than keys.

    Example:
        >>> q = k = v = torch.randn(1, 2, 7, 4)
        >>> near, positions = Window(n_tokens=3), torch.arange(7)
        >>> whole = attend_fast(q, k, v, near.mask(positions, positions))
        >>> torch.allclose(attend_blocks(q, k, v, near.mask, block_tokens=2), whole, atol=1e-6)
        True
    """
    n_queries, n_keys = q.shape[2], k.shape[2]
    if n_queries > n_keys:
        raise ValueError(
            "queries are the last T of the S tokens, so T may be at most S; got "
            f"T = {n_queries}, S = {n_keys}. Pass the keys of all tokens"
        )
    if layout is None:
        layout = block_layout(mask_of, n_queries, n_keys, block_tokens)
    positions = torch.arange(n_keys, device=q.device)
    # Cut once: the way back then puts each block's gradient where it belongs, where indexing would
    # write a whole row of zeros for every block of queries.
    key_blocks, value_blocks = k.split(block_tokens, dim=2), v.split(block_tokens, dim=2)
    place_blocks = positions.split(block_tokens)
    outputs = []
    for q_block, queries, row in zip(
        q.split(block_tokens, dim=2),
        positions[n_keys - n_queries :].split(block_tokens),
        layout.tolist(),
        strict=True,
    ):
        seen = [block for block, some in enumerate(row) if some]
        if not seen:
            outputs.append(torch.zeros_like(q_block))
            continue
        keys, values = (
            torch.cat([blocks[i] for i in seen], dim=2) for blocks in (key_blocks, value_blocks)
        )
        mask = mask_of(queries, torch.cat([place_blocks[i] for i in seen]))
        outputs.append(attend_fast(q_block, keys, values, mask))
    return torch.cat(outputs, dim=2)


# --- one layer ----------------------------------------------------------------------------------
@final
@dataclass(frozen=True, kw_only=True)
class SparseAttentionConfig:
    """What a layer of sparse attention is built from.

    Args:
        attention: its heads; without a window_tokens, for which there is `Window`.
        patterns: which keys a query sees: those of any of them.
        block_tokens: of `attend_blocks`.

    Raises:
        ValueError: no pattern, or what is none; a block below 1 token; attention with a window.

    Example:
        >>> config = SparseAttentionConfig(patterns=(Window(n_tokens=8), Sinks(n_tokens=2)))
        >>> layer = config.build(d_model=32)
        >>> {name: list(p.shape) for name, p in layer.named_parameters()}  # as without patterns
        {'attention.qkv.weight': [96, 32], 'attention.output.weight': [32, 32]}
    """

    attention: AttentionConfig = field(default_factory=AttentionConfig)
    patterns: tuple[Pattern, ...] = (Window(n_tokens=64), Sinks(n_tokens=1))
    block_tokens: int = 64

    def __post_init__(self):
        checked_patterns(self.patterns)
        at_least(1, "block_tokens", self.block_tokens)
        if self.attention.window_tokens is not None:
            raise ValueError(
                "a window of sparse attention is one of its patterns; got an attention with "
                f"window_tokens={self.attention.window_tokens}. Leave that None and put "
                f"Window(n_tokens={self.attention.window_tokens}) among the patterns"
            )

    def build(
        self,
        d_model: int,
        context_length: int = 2048,
        *,
        device: torch.device | str = "cpu",
        dtype: torch.dtype = torch.float32,
    ) -> "SparseAttention":
        """The layer for a model of that width; see `AttentionConfig.build`."""
        attention = self.attention.build(d_model, context_length, device=device, dtype=dtype)
        return SparseAttention(attention, self.patterns, self.block_tokens)


@final
class SparseAttention(nn.Module):
    """Attention that looks by a pattern: a `Mixer`.

    Args:
        attention: its matrices and rotations.
        patterns: a tuple of them.
        block_tokens: of `attend_blocks`, which is used for new texts of more than three blocks.
    """

    def __init__(self, attention: Attention, patterns: tuple[Pattern, ...], block_tokens: int = 64):
        super().__init__()
        self.attention, self.patterns, self.block_tokens = attention, patterns, block_tokens

    def new_cache(self, batch_size: int, max_length: int) -> KVCache:
        """An empty cache: of all tokens, since some later query may see any of them."""
        return self.attention.new_cache(batch_size, max_length)

    def forward(
        self, x: Float[Tensor, "B T D"], context: Context, cache: Any = None
    ) -> Float[Tensor, "B T D"]:
        """What each token found among the keys that causal & (any pattern) & context.mask leave.

        Args:
            x: the tokens.
            context: where they stand in their texts, which decides what the patterns allow. With a
                cache that is not empty a row must hold one text, with padding on its left or none.
            cache: from `new_cache`; these tokens are appended to it.

        Raises:
            ValueError: as for `Attention`.
        """
        q, k, v = self.attention.project(x, context.positions)
        if cache is not None:
            k, v = cache.append(k, v)
        n_queries, n_keys = q.shape[2], k.shape[2]
        positions = torch.arange(n_keys, device=x.device)  # in the row, as the cache counts
        queries = keys = context.positions  # in the text
        if n_keys > n_queries:
            keys = (
                positions - (n_keys - 1) + queries[..., -1:]
            )  # one text, so it ends as the row does

        def mask_of(rows: Tensor, columns: Tensor) -> Tensor:
            first = n_keys - n_queries
            allowed = any_of(self.patterns, queries[..., rows - first], keys[..., columns])
            allowed = allowed & causal(rows, columns)
            if context.mask is None:
                return allowed
            given = context.mask.expand(*context.mask.shape[:-2], n_queries, n_keys)
            return allowed & given[..., rows - first, :][..., columns]

        plain = n_queries == n_keys > 3 * self.block_tokens and torch.equal(queries, positions)
        if plain:
            layout = _remembered(self.patterns, n_keys, self.block_tokens)
            values = attend_blocks(q, k, v, mask_of, self.block_tokens, layout)
        else:
            values = attend_fast(q, k, v, mask_of(positions[n_keys - n_queries :], positions))
        return self.attention.output(values.transpose(1, 2).flatten(2))


@lru_cache(maxsize=64)
def _remembered(
    patterns: tuple[Pattern, ...], n_tokens: int, block_tokens: int
) -> Bool[Tensor, "Q L"]:
    """The layout of a text that stands by itself: the same in all layers and at every step."""

    def mask_of(queries: Tensor, keys: Tensor) -> Tensor:
        return any_of(patterns, queries, keys) & causal(queries, keys)

    return block_layout(mask_of, n_tokens, n_tokens, block_tokens)
