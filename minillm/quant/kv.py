"""A quantized key/value cache (量化键值缓存): 8, 4 or 2 bits for each number that attention keeps.

The contract is that of `minillm.model.cache.KVCache`, so attention takes it as it is. What differs
is which numbers share a scale (`minillm.quant.rtn`):

    values    a scale for each token and head: the K numbers of one token
    keys      a scale for each channel: one number of the key, over a group of neighbouring tokens

Some channels of the keys are large in every token. By token, such a channel would make the grid of
all others coarse; by channel it has a grid of its own, and makes only itself coarse.

A group needs all of its tokens before it has a scale. The newest keys, which fill no group yet,
stay in float (residual, 残余), and become codes once their group is full:

    group 4     tokens  0 1 2 3 | 4 5 6 7 | 8 9          codes of 0 to 7, floats of 8 and 9

Groups begin at token 0. So what is read depends on the tokens alone, never on how many came at a
time. A guess that is taken back may open a full group again; then its floats are needed. They are
kept until `undo_tokens` more tokens have come.

Numbers are made of codes at every `append`, for all tokens and one layer at a time: memory is saved
at the cost of time.

Paper: Liu et al. 2024, "KIVI", arXiv:2402.02750, section 3.2 and algorithm 1.
Differs: a symmetric grid unless told otherwise (theirs is asymmetric); values have no residual;
keys of a text that is read at once are seen as codes at once, theirs in float until it has been
read; residual keys are kept for taking back, too; no kernel computes with codes.

Chapter: 18
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, final

import torch
from einops import rearrange
from jaxtyping import Float, Int, UInt8
from torch import Tensor

from minillm.model.cache import (
    KVCache,
    check_append,
    check_shape,
    check_truncate,
    checked_rows,
)
from minillm.model.transformer import Transformer
from minillm.quant import rtn

BITS = (8, 4, 2)
#: s tokens of a group: what shares a scale stands last.
BLOCKS = {"channel": "B G (n s) K -> B G n K s", "token": "B G (n s) K -> B G n s K"}
TOKENS = {"channel": "B G n K s -> B G (n s) K", "token": "B G n s K -> B G (n s) K"}


@final
@dataclass(frozen=True, kw_only=True)
class KVGrid:
    """Which numbers share a scale, and how fine their grid is.

    Args:
        bits: of a code: 8, 4 or 2.
        group_size: tokens of a group.
        undo_tokens: how many of the newest tokens `truncate` can take back as if they had never
            come.
        keys_by: "channel", or "token" for keys that are treated like values.
        symmetric: whether 0 is in the middle of the grid; else each scale has a zero point beside
            it.

    Raises:
        ValueError: other bits or another kind of keys; a group that does not fill whole bytes;
            fewer than no tokens.
    """

    bits: int = 8
    group_size: int = 32
    undo_tokens: int = 8
    keys_by: str = "channel"
    symmetric: bool = True

    def __post_init__(self):
        if self.bits not in BITS or self.keys_by not in BLOCKS:
            raise ValueError(
                f'bits must be 8, 4 or 2, and keys_by "channel" or "token"; got {self.bits!r} and '
                f"{self.keys_by!r}"
            )
        _check_bytes("group_size", self.group_size, self.bits)
        if self.undo_tokens < 0:
            raise ValueError(f"undo_tokens must be at least 0; got {self.undo_tokens}")


@final
class QuantizedKVCache:
    """Keys and values of one layer as codes; see `KVCache` for what its methods promise.

    `truncate` is exact for up to `undo_tokens` tokens, and down to whole groups. Where it cuts
    deeper into a group, the keys that remain of it go on as what their codes stood for.

    Args:
        batch_size, n_kv_heads, max_length, d_head, dtype, device: as for `KVCache`.
        grid: of keys and values.

    Raises:
        ValueError: a count below 1; a head that does not fill whole bytes.

    Example:
        >>> cache = QuantizedKVCache(1, 1, 8, 2, KVGrid(bits=4, group_size=2, undo_tokens=0))
        >>> k = torch.tensor([[7.0, 3.5], [3.2, 0.4], [5.5, 0.3]]).reshape(1, 1, 3, 2)
        >>> keys, values = cache.append(k, k)
        >>> keys[0, 0]  # scales 1 and 0.5; the third token's in float
        tensor([[7.0000, 3.5000],
                [3.0000, 0.5000],
                [5.5000, 0.3000]])
        >>> values[0, 0, 0]  # a token's scale is 7 / 7
        tensor([7., 4.])
    """

    def __init__(
        self,
        batch_size: int,
        n_kv_heads: int,
        max_length: int,
        d_head: int,
        grid: KVGrid | None = None,
        dtype: torch.dtype = torch.float32,
        device: torch.device | str = "cpu",
    ):
        self.grid = grid = KVGrid() if grid is None else grid
        self.shape, self.n_tokens = (batch_size, n_kv_heads, max_length, d_head), 0
        check_shape(self.shape)
        _check_bytes("d_head", d_head, grid.bits)
        rows, n_groups = (batch_size, n_kv_heads), max_length // grid.group_size
        by_channel = grid.keys_by == "channel"
        block = (d_head, grid.group_size) if by_channel else (grid.group_size, d_head)
        self.keys = _Codes((*rows, n_groups, *block), grid, device)
        self.values = _Codes((*rows, max_length, d_head), grid, device)
        n_float = min(max_length, grid.group_size - 1 + grid.undo_tokens)
        self.residual = torch.empty((*rows, n_float, d_head), dtype=dtype, device=device)

    def append(
        self, k: Float[Tensor, "B G T K"], v: Float[Tensor, "B G T K"]
    ) -> tuple[Float[Tensor, "B G S K"], Float[Tensor, "B G S K"]]:
        """Write the keys and values of T more tokens; give what is kept of all S tokens.

        Raises:
            ValueError: no room for T tokens; another number of rows or heads, another d_head.
        """
        check_append(k, v, self.shape, self.n_tokens)
        size, first, end = self.grid.group_size, self._first_float(), self.n_tokens + k.shape[2]
        n_before, n_coded = self.n_tokens // size, end // size
        # 1. values, token by token
        self.values.write(self.n_tokens, v)
        # 2. keys: floats that are still here and the new ones; groups that are now full
        floats = torch.cat((self.residual[:, :, : self.n_tokens - first], k), dim=2)
        full = floats[:, :, n_before * size - first : n_coded * size - first]
        self.keys.write(n_before, rearrange(full, BLOCKS[self.grid.keys_by], s=size))
        # 3. what fills no group, or may yet be taken back
        self.n_tokens = end
        self._keep_floats(floats[:, :, self._first_float() - first :])
        keys = torch.cat((self._coded(0, n_coded), floats[:, :, n_coded * size - first :]), dim=2)
        return keys, self.values.read(0, end).to(keys.dtype)

    @property
    def n_bytes(self) -> int:
        """Bytes taken, filled or not: codes, scales, and keys in float."""
        return self.keys.n_bytes + self.values.n_bytes + self.residual.nbytes

    def reset(self) -> None:
        """Forget all tokens; the memory stays."""
        self.n_tokens = 0

    def truncate(self, n_tokens: int) -> None:
        """Forget all but the first `n_tokens` of each row.

        Raises:
            ValueError: more tokens than are kept, or fewer than none.
        """
        check_truncate(n_tokens, self.n_tokens)
        floats, size, later = self.residual, self.grid.group_size, self._first_float()
        self.n_tokens = n_tokens
        first = self._first_float()
        if first < later:  # floats that are gone: what their codes stand for takes their place
            floats = torch.cat((self._coded(first // size, later // size), floats), dim=2)
        self._keep_floats(floats[:, :, : n_tokens - first])

    def keep(self, rows: Sequence[int] | Int[Tensor, "N"]) -> None:
        """Keep these rows, in this order; a row may be kept twice or not.

        Raises:
            ValueError: no row, or one that is not there.
        """
        rows = checked_rows(rows, self.residual)
        self.shape = (len(rows), *self.shape[1:])
        self.residual = self.residual[rows]
        self.keys.keep(rows)
        self.values.keep(rows)

    def _first_float(self) -> int:
        """The first token whose key is here in float."""
        size = self.grid.group_size
        return max(0, self.n_tokens - self.grid.undo_tokens) // size * size

    def _keep_floats(self, keys: Tensor) -> None:
        self.residual.narrow(2, 0, keys.shape[2]).copy_(keys.clone())

    def _coded(self, first: int, end: int) -> Float[Tensor, "B G S K"]:
        """Keys of groups, made of their codes."""
        blocks = self.keys.read(first, end).to(self.residual.dtype)
        return rearrange(blocks, TOKENS[self.grid.keys_by])


def new_cache(
    model: Transformer, batch_size: int, max_length: int | None = None, grid: KVGrid | None = None
) -> list[Any]:
    """Empty caches, one a block: what `model.new_cache` makes, with each `KVCache` quantized.

    A mixer that keeps something else (a state, as Mamba and linear attention do) keeps it in float.

    Args:
        model: that is to be given the caches.
        batch_size, max_length: as for `Transformer.new_cache`.
        grid: of keys and values; None for 8 bits.

    Raises:
        ValueError: a model none of whose mixers keeps a `KVCache`; what `QuantizedKVCache` refuses.

    Example:
        >>> from functools import partial
        >>> from minillm.model.config import tiny
        >>> from minillm.serve.sample import SampleConfig, generate
        >>> model = tiny(vocab_size=50).build(seed=0)
        >>> in_8_bits = partial(new_cache, model)
        >>> rows = generate(model, [[7, 3, 9]], SampleConfig(), n_tokens=5, new_cache=in_8_bits)
        >>> len(rows[0])
        5
    """
    max_length = model.context_length if max_length is None else max_length
    caches = []
    for block in model.blocks:
        cache = block.mixer.new_cache(batch_size, max_length)  # its memory goes before the next's
        if isinstance(cache, KVCache):
            like = cache.keys
            cache = QuantizedKVCache(*like.shape, grid, like.dtype, like.device)
        caches.append(cache)
    if not any(isinstance(cache, QuantizedKVCache) for cache in caches):
        kinds = sorted({type(block.mixer).__name__ for block in model.blocks})
        raise ValueError(
            f"no mixer of this model keeps keys and values that could be quantized: "
            f"{', '.join(kinds)}. Use model.new_cache"
        )
    return caches


# --- codes --------------------------------------------------------------------------------------
@final
class _Codes:
    """Packed codes of blocks and their scales, in memory that is taken once; axis 2 counts.

    Args:
        shape: of the numbers; those of the last axis share a scale.
        grid: of the codes.
        device: where they are.
    """

    def __init__(self, shape: tuple[int, ...], grid: KVGrid, device: torch.device | str):
        *blocks, n = shape
        self.bits, self.symmetric = grid.bits, grid.symmetric
        scales = [(blocks, torch.float16)] * (1 if grid.symmetric else 2)  # a scale, a zero point
        kinds = [((*blocks, n * grid.bits // 8), torch.uint8), *scales]
        self.parts = [torch.empty(each, dtype=dtype, device=device) for each, dtype in kinds]

    def write(self, first: int, x: Float[Tensor, "*blocks n"]) -> None:
        """Round these blocks, and store their codes from index `first` on."""
        if not x.shape[2]:
            return
        scale, zero = rtn.scale_of(x, self.bits, self.symmetric)
        codes = pack(rtn.encode(x, scale, zero, self.bits), self.bits)
        for part, new in zip(self.parts, (codes, scale, zero), strict=False):
            part.narrow(2, first, x.shape[2]).copy_(new)

    def read(self, first: int, end: int) -> Float[Tensor, "*blocks n"]:
        """The numbers of these blocks again."""
        codes, scale, *zeros = (part[:, :, first:end] for part in self.parts)
        scale = scale.float()
        middle = scale.new_tensor(2 ** (self.bits - 1)).expand_as(scale)
        zero = zeros[0].float() if zeros else middle
        return rtn.decode(unpack(codes, self.bits), scale, zero)

    def keep(self, rows: Int[Tensor, "N"]) -> None:
        self.parts = [part[rows] for part in self.parts]

    @property
    def n_bytes(self) -> int:
        return sum(part.nbytes for part in self.parts)


def pack(codes: UInt8[Tensor, "*blocks n"], bits: int) -> UInt8[Tensor, "*blocks bytes"]:
    """Codes of each block side by side in bytes, the first in the lowest bits.

    Example:
        >>> pack(torch.tensor([3, 10, 15, 0], dtype=torch.uint8), bits=4).tolist()  # 3 + 16 · 10
        [163, 15]
    """
    each = codes.unflatten(-1, (-1, 8 // bits))
    return (each << _shifts(bits, codes)).sum(dim=-1, dtype=torch.uint8)


def unpack(packed: UInt8[Tensor, "*blocks bytes"], bits: int) -> UInt8[Tensor, "*blocks n"]:
    """What `pack` packed."""
    return (packed[..., None] >> _shifts(bits, packed) & (2**bits - 1)).flatten(-2)


def _shifts(bits: int, like: Tensor) -> UInt8[Tensor, "codes"]:
    return torch.arange(0, 8, bits, dtype=torch.uint8, device=like.device)


def _check_bytes(name: str, n: int, bits: int) -> None:
    if n < 1 or n * bits % 8:
        raise ValueError(
            f"{name} must be at least 1 and fill whole bytes: a multiple of {8 // bits} at {bits} "
            f"bits; got {n}"
        )
