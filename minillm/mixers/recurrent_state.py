"""A state of fixed size: what a recurrent mixer (循环混合层) keeps in place of keys and values.

Attention keeps two vectors of every token, so its cache grows with the text. The mixers of this
chapter keep a few tensors and change them with each token:

    state = update(state, token)          as large after a million tokens as after one

`State` holds those tensors for its owner, the caller, as `minillm.model.cache.KVCache` holds keys
and values, and answers to the same names: `n_tokens`, `n_bytes`, `reset`, `keep`. One thing it
cannot do: forget the last token alone, since what a token did to a state cannot be taken out.

A mask says who may look at whom, and a state can follow only one kind: everything so far, without
the padding of shorter rows. `writes` reads from a mask which tokens are no padding, and refuses any
other mask by name.

Chapter: 09
"""

from collections.abc import Mapping, Sequence
from typing import Any, final

import torch
from jaxtyping import Bool, Int
from torch import Tensor


@final
class State:
    """What one recurrent mixer keeps of B rows.

    Args:
        kind: the mixer's name: a state of one means nothing to another.
        parts: its tensors by name, each with the rows first, as they are before the first token:
            the same in every row.

    Raises:
        ValueError: no part, no row, or parts of different numbers of rows.

    Example:
        >>> state = State("Summing", {"sum": torch.zeros(2, 3)})
        >>> state.update(5, sum=torch.ones(2, 3))
        >>> state.n_tokens, state.n_bytes, state["sum"].shape  # 2 · 3 numbers of 4 bytes
        (5, 24, torch.Size([2, 3]))
        >>> state.reset()
        >>> state.n_tokens, state["sum"].sum().item()
        (0, 0.0)
    """

    def __init__(self, kind: str, parts: Mapping[str, Tensor]):
        batch_size = {len(part) for part in parts.values()}
        if len(batch_size) != 1 or batch_size == {0}:
            raise ValueError(
                "a state has at least one part of at least one row, and all have as many; got "
                f"{_shown(parts)}"
            )
        self.kind, self.n_tokens = kind, 0
        self._parts = dict(parts)
        self._before = {name: part[:1].clone() for name, part in parts.items()}

    def __getitem__(self, name: str) -> Tensor:
        """A part as it is now; not to be changed in place."""
        return self._parts[name]

    @property
    def names(self) -> tuple[str, ...]:
        """Of its parts."""
        return tuple(self._parts)

    @property
    def batch_size(self) -> int:
        """B."""
        return len(next(iter(self._parts.values())))

    @property
    def n_bytes(self) -> int:
        """Bytes of all parts, after any number of tokens."""
        return sum(part.nbytes for part in self._parts.values())

    def update(self, n_new: int, **parts: Tensor) -> None:
        """Put new tensors in the place of all parts, after n_new more tokens.

        Raises:
            ValueError: other names, shapes or types than the state has.
        """
        for name in self._parts.keys() | parts.keys():
            old, new = self._parts.get(name), parts.get(name)
            if old is None or new is None or old.shape != new.shape or old.dtype != new.dtype:
                raise ValueError(
                    f"a state of {self.kind} keeps {_shown(self._parts)}; got {_shown(parts)}"
                )
        self._parts, self.n_tokens = parts, self.n_tokens + n_new

    def append(self, k: Tensor, v: Tensor) -> None:
        """Refused: what attention asks of its own cache.

        Raises:
            ValueError: always.
        """
        raise ValueError(
            f"attention needs a KVCache, from its own new_cache; got a state of {self.kind}. Make "
            "all caches by the model's new_cache, which asks each block for its own"
        )

    def reset(self) -> None:
        """Forget all tokens: as before the first."""
        batch_size = self.batch_size
        self._parts = {
            name: part.repeat_interleave(batch_size, dim=0) for name, part in self._before.items()
        }
        self.n_tokens = 0

    def truncate(self, n_tokens: int) -> None:
        """Nothing where all tokens are kept, `reset` where none is; else it cannot be done.

        Raises:
            ValueError: another number of tokens: a state holds their sum, not one by one.
        """
        if n_tokens == 0:
            self.reset()
        elif n_tokens != self.n_tokens:
            raise ValueError(
                f"a state cannot go back: it has taken in {self.n_tokens} tokens and keeps none "
                f"by itself; got truncate({n_tokens}). Copy the state (copy.deepcopy) before the "
                "tokens that may be taken back, or reset it and read again"
            )

    def keep(self, rows: Sequence[int] | Int[Tensor, "N"]) -> None:
        """Keep these rows, in this order; a row may be kept twice or not.

        Raises:
            ValueError: no row, or one that is not there.
        """
        chosen = torch.as_tensor(rows, dtype=torch.int64)
        if not chosen.numel() or not bool(((chosen >= 0) & (chosen < self.batch_size)).all()):
            raise ValueError(
                f"keep needs at least one row out of 0 to {self.batch_size - 1}; got "
                f"{chosen.tolist()}"
            )
        self._parts = {name: part[chosen.to(part.device)] for name, part in self._parts.items()}


def checked(cache: Any, kind: str, batch_size: int) -> State:
    """The cache itself, if it is this mixer's and for as many rows.

    Args:
        cache: what a mixer was given.
        kind: the mixer's name.
        batch_size: B of the tokens that came with it.

    Raises:
        ValueError: a cache of another mixer, or of another number of rows.

    Example:
        >>> state = State("RWKV", {"sum": torch.zeros(2, 3)})
        >>> checked(state, "Mamba", batch_size=2)  # doctest: +ELLIPSIS
        Traceback (most recent call last):
            ...
        ValueError: Mamba needs a cache from its own new_cache; got one of RWKV...
    """
    of = cache.kind if isinstance(cache, State) else type(cache).__name__
    if of != kind:
        raise ValueError(
            f"{kind} needs a cache from its own new_cache; got one of {of}. Make all caches by "
            "the model's new_cache, which asks each block for its own"
        )
    if cache.batch_size != batch_size:
        raise ValueError(
            f"this state of {kind} is for {cache.batch_size} rows; got tokens of {batch_size}. "
            "Make one for this batch with new_cache, or drop finished rows with keep"
        )
    return cache


def writes(
    mask: Bool[Tensor, "..."] | None, batch_size: int, n_new: int
) -> Bool[Tensor, "B T"] | None:
    """Which tokens may write into the state: all but those that only fill a row up.

    A filler is a token that is hidden from itself. Every other token must see all tokens before it
    that are no padding, since a state cannot leave some of them out.

    Args:
        mask: as for attention, [T, S] or [B, 1, T, S]; None for plainly causal.
        batch_size, n_new: B and T.

    Returns:
        True = writes; None where all do.

    Raises:
        ValueError: another mask, such as a window, or documents in one row; a mask of another
            shape. Of a single new token's mask nobody can tell what it hides: a window passes.

    Example:
        >>> from minillm.model.masks import causal, padding
        >>> positions, is_token = torch.arange(3), torch.tensor([[False, True, True]])
        >>> writes(causal(positions, positions) & padding(is_token), 1, 3)
        tensor([[False,  True,  True]])
        >>> writes(causal(positions, positions), 1, 3) is None
        True
    """
    if mask is None:
        return None
    n_seen = mask.shape[-1]
    fits = mask.shape[:-2] in ((), (1, 1), (batch_size, 1)) and mask.shape[-2] in (1, n_new)
    if mask.dtype != torch.bool or not fits or n_seen < n_new:
        raise ValueError(
            "a recurrent mixer needs a mask of bool, [tokens, keys] or [rows, 1, tokens, keys], "
            f"with keys for all tokens so far; for {batch_size} rows of {n_new} tokens got "
            f"{mask.dtype} of {list(mask.shape)}"
        )
    table = mask.expand(batch_size, 1, n_new, n_seen)[:, 0]
    is_token = table.diagonal(offset=n_seen - n_new, dim1=1, dim2=2)  # does it see itself?
    seen = torch.cat((table[:, -1, : n_seen - n_new], is_token), dim=1)
    keys = torch.arange(n_seen, device=mask.device)
    before = keys <= keys[n_seen - n_new :, None]
    if not bool((table == (before & seen[:, None]))[is_token].all()):
        raise ValueError(
            "a recurrent mixer sees everything so far, so of masks it knows causal & padding "
            "only; got another, such as a window or several documents in one row. Put one "
            "document in a row, or use a mixer that attends"
        )
    return None if bool(is_token.all()) else is_token


def _shown(parts: Mapping[str, Tensor]) -> str:
    return ", ".join(f"{name} {list(p.shape)} {p.dtype}" for name, p in parts.items()) or "nothing"
