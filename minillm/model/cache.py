"""The key/value cache (键值缓存, KV cache): what a model keeps so as not to read a text twice.

Under a causal mask no later token changes an earlier one's key and value. So while a text is
written token by token, they are computed once and kept, and each new token brings one query that
looks at them all: n steps cost n queries in place of 1 + 2 + … + n.

Memory is taken once, for `max_length`. Growing by concatenation would copy everything that is
kept at every token; here a token is written into its place, and what has been written so far is
handed out as a view. Its bytes are those of chapter 00's formula, and the cache is the caller's:
the model is given it as an argument and keeps nothing.

Paper: Shazeer 2019, "Fast Transformer Decoding: One Write-Head is All You Need", arXiv:1911.02150
(incremental inference); Pope et al. 2022, arXiv:2211.05102, section 2 (the bytes).
Differs: none.

Chapter: 03
"""

from collections.abc import Sequence
from typing import final

import torch
from jaxtyping import Float, Int
from torch import Tensor


@final
class KVCache:
    """Keys and values of one layer, for B rows of up to `max_length` tokens each.

    A cache is for writing text, under `torch.no_grad()`. Outside of it gradients flow through what
    was appended last only, and torch refuses to go back further.

    Args:
        batch_size: B, texts at once.
        n_kv_heads: G.
        max_length: how many tokens a row can keep.
        d_head: K.
        dtype, device: of the model's keys.

    Raises:
        ValueError: a count below 1.

    Example:
        >>> cache = KVCache(batch_size=1, n_kv_heads=2, max_length=8, d_head=4)
        >>> k = v = torch.ones(1, 2, 3, 4)
        >>> keys, values = cache.append(k, v)
        >>> list(keys.shape), cache.n_tokens, cache.n_bytes  # 2 · 1 · 2 · 8 · 4 numbers of 4 bytes
        ([1, 2, 3, 4], 3, 512)
    """

    def __init__(
        self,
        batch_size: int,
        n_kv_heads: int,
        max_length: int,
        d_head: int,
        dtype: torch.dtype = torch.float32,
        device: torch.device | str = "cpu",
    ):
        shape = (batch_size, n_kv_heads, max_length, d_head)
        check_shape(shape)
        self.keys = torch.empty(shape, dtype=dtype, device=device)
        self.values = torch.empty(shape, dtype=dtype, device=device)
        self.n_tokens = 0

    def append(
        self, k: Float[Tensor, "B G T K"], v: Float[Tensor, "B G T K"]
    ) -> tuple[Float[Tensor, "B G S K"], Float[Tensor, "B G S K"]]:
        """Write the keys and values of T more tokens; give those of all S tokens kept so far.

        Returns:
            Views of the memory itself: nothing is copied, and the next `append` leaves them valid.

        Raises:
            ValueError: no place for T tokens; another number of rows or heads, another width.
        """
        check_append(k, v, self.keys.shape, self.n_tokens)
        n_new = k.shape[2]
        # keys[:, :, first:end], by the one call that slices one axis alone
        self.keys.narrow(2, self.n_tokens, n_new).copy_(k)
        self.values.narrow(2, self.n_tokens, n_new).copy_(v)
        self.n_tokens += n_new
        end = self.n_tokens
        return self.keys.narrow(2, 0, end), self.values.narrow(2, 0, end)

    @property
    def n_bytes(self) -> int:
        """Bytes taken, filled or not: `minillm.model.count.kv_cache_bytes` of one layer."""
        return self.keys.nbytes + self.values.nbytes

    def reset(self) -> None:
        """Forget all tokens; the memory stays."""
        self.n_tokens = 0

    def truncate(self, n_tokens: int) -> None:
        """Forget all but the first `n_tokens` of each row, as when guesses are taken back.

        Raises:
            ValueError: more tokens than are kept, or fewer than none.
        """
        check_truncate(n_tokens, self.n_tokens)
        self.n_tokens = n_tokens

    def keep(self, rows: Sequence[int] | Int[Tensor, "N"]) -> None:
        """Keep these rows, in this order; a row may be kept twice (beams) or not (finished).

        Raises:
            ValueError: no row, or one that is not there.

        Example:
            >>> cache = KVCache(batch_size=3, n_kv_heads=1, max_length=2, d_head=1)
            >>> k = torch.tensor([0.0, 1.0, 2.0]).reshape(3, 1, 1, 1)
            >>> cache.append(k, k)[0].flatten().tolist()
            [0.0, 1.0, 2.0]
            >>> cache.keep([2, 0])
            >>> cache.keys[:, 0, 0, 0].tolist()
            [2.0, 0.0]
        """
        rows = checked_rows(rows, self.keys)
        self.keys, self.values = self.keys[rows], self.values[rows]


# --- what can be wrong, with any cache of keys and values ---------------------------------------
Shape = tuple[int, int, int, int]  # B, G, max_length, K


def check_shape(shape: Shape) -> None:
    """Refuse a count below 1."""
    if min(shape) < 1:
        batch_size, n_kv_heads, max_length, d_head = shape
        raise ValueError(
            "batch_size, n_kv_heads, max_length and d_head must be at least 1; got "
            f"{batch_size}, {n_kv_heads}, {max_length} and {d_head}"
        )


def check_append(
    k: Float[Tensor, "..."], v: Float[Tensor, "..."], shape: Shape, n_tokens: int
) -> None:
    """Refuse keys and values that a cache of this shape, which keeps n_tokens, cannot take."""
    batch_size, n_kv_heads, max_length, d_head = shape
    if k.shape != v.shape or k.shape != (batch_size, n_kv_heads, k.shape[2], d_head):
        raise ValueError(
            f"this cache keeps [{batch_size} rows, {n_kv_heads} heads, tokens, {d_head}]; got "
            f"keys {list(k.shape)} and values {list(v.shape)}. Make one for this batch with "
            "new_cache, or drop finished rows with keep"
        )
    n_new = k.shape[2]
    end = n_tokens + n_new
    if end > max_length:
        raise ValueError(
            f"the cache has places for {max_length} tokens a row and keeps "
            f"{n_tokens}; {n_new} more do not fit. Make it with a max_length of "
            f"at least {end}, or free places with truncate or reset"
        )


def check_truncate(n_tokens: int, n_kept: int) -> None:
    """Refuse more tokens than are kept, or fewer than none."""
    if not 0 <= n_tokens <= n_kept:
        raise ValueError(f"truncate keeps 0 to {n_kept} tokens, those there are; got {n_tokens}")


def checked_rows(rows: Sequence[int] | Int[Tensor, "N"], kept: Tensor) -> Int[Tensor, "N"]:
    """Rows of `kept` as a tensor beside it; refused if there are none, or one is not there."""
    rows = torch.as_tensor(rows, dtype=torch.int64, device=kept.device)
    if not rows.numel() or not bool(((rows >= 0) & (rows < len(kept))).all()):
        raise ValueError(
            f"keep needs at least one row out of 0 to {len(kept) - 1}; got {rows.tolist()}"
        )
    return rows
