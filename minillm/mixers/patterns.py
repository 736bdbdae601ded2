"""Patterns of sparse attention (稀疏注意力): every token looks at some of those before it.

Where all n tokens look back at all, a row has n (n + 1) / 2 pairs. A pattern says which of them are
worth the price; a token that a query does not see can still reach it over others, layer by layer.

    Window(n_tokens=w)        the last w                                 n w pairs
    Sinks(n_tokens=s)         the first s of the text                    n s
    Strided(stride=l)         the last l, and every l-th before them     n (l + n / l)
    Random(n_blocks=r, …)     r blocks of b tokens, drawn at random      n r b
    Global(every=e)           every e-th token sees all, is seen by all  n (n / e)
    Hierarchical(fan=f)       ever fewer, the further back               n f log n

Patterns are joined by "or" (`any_of`), then with the causal mask by "and": what is later is not
their business. Like the masks of `minillm.model.masks` they are tables of yes and no, [T, S] or
[B, 1, T, S], and a function of places alone.

Paper: Beltagy et al. 2020, "Longformer", arXiv:2004.05150, section 3.1 (window, global); Child et
al. 2019, "Sparse Transformers", arXiv:1904.10509, section 4.3 (strided); Zaheer et al. 2020,
"BigBird", arXiv:2007.14062, section 2 (random blocks); Li et al. 2019, "LogSparse",
arXiv:1907.00235, section 4.2 (hierarchical, with f = 2); Xiao et al. 2023, arXiv:2309.17453,
section 3 (sinks).
Differs: all are for one who writes and sees nothing later; heads share one union of patterns (in
Child et al. the merged head); random blocks are drawn from the earlier ones.

Chapter: 09
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import reduce
from typing import Any, Protocol, final, runtime_checkable

import numpy as np
import torch
from jaxtyping import Bool, Int
from torch import Tensor

from minillm.model.masks import window


@runtime_checkable
class Pattern(Protocol):
    """A rule that says which keys a query may see: a function of their places alone."""

    def mask(
        self, query_positions: Int[Tensor, "*B T"], key_positions: Int[Tensor, "*B S"]
    ) -> Bool[Tensor, "..."]:
        """[T, S], or [B, 1, T, S] where rows differ; True = may look."""


@final
@dataclass(frozen=True, kw_only=True)
class Window:
    """The last n_tokens, the query with them (滑动窗口).

    Args:
        n_tokens: how many.

    Raises:
        ValueError: below 1.
    """

    n_tokens: int

    def __post_init__(self):
        at_least(1, "n_tokens of a Window", self.n_tokens)

    def mask(
        self, query_positions: Int[Tensor, "*B T"], key_positions: Int[Tensor, "*B S"]
    ) -> Bool[Tensor, "..."]:
        """`minillm.model.masks.window`."""
        return window(query_positions, key_positions, self.n_tokens)


@final
@dataclass(frozen=True, kw_only=True)
class Sinks:
    """The first n_tokens of the text.

    Args:
        n_tokens: how many.

    Raises:
        ValueError: below 1.
    """

    n_tokens: int

    def __post_init__(self):
        at_least(1, "n_tokens of Sinks", self.n_tokens)

    def mask(
        self, query_positions: Int[Tensor, "*B T"], key_positions: Int[Tensor, "*B S"]
    ) -> Bool[Tensor, "..."]:
        """Keys at places below n_tokens."""
        _, keys = _pairs(query_positions, key_positions)
        return keys < self.n_tokens


@final
@dataclass(frozen=True, kw_only=True)
class Strided:
    """The last `stride` tokens, and every earlier one whose distance is a multiple of it.

    Two steps reach every earlier token: back by strides, then within one.

    Args:
        stride: about √n is cheapest.

    Raises:
        ValueError: below 1.

    Example:
        >>> positions = torch.arange(6)
        >>> Strided(stride=2).mask(positions, positions).int()[5]  # distances 4, 2, 1 and 0
        tensor([0, 1, 0, 1, 1, 1], dtype=torch.int32)
    """

    stride: int

    def __post_init__(self):
        at_least(1, "stride", self.stride)

    def mask(
        self, query_positions: Int[Tensor, "*B T"], key_positions: Int[Tensor, "*B S"]
    ) -> Bool[Tensor, "..."]:
        """0 ≤ distance < stride, or a multiple of stride."""
        queries, keys = _pairs(query_positions, key_positions)
        distance = queries - keys
        return (distance >= 0) & ((distance < self.stride) | (distance % self.stride == 0))


@final
@dataclass(frozen=True, kw_only=True)
class Random:
    """A few earlier blocks of tokens, drawn anew for each block of queries (随机块).

    What is drawn depends on the seed and the query's block alone, and not on which part of the
    table is asked for: token by token gives what the whole row gives.

    Args:
        n_blocks: how many of the blocks before the query's own; all where there are fewer.
        block_tokens: how many tokens a block has.
        seed: of the draw.

    Raises:
        ValueError: a count below 1, a seed below 0.
    """

    n_blocks: int
    block_tokens: int
    seed: int = 0

    def __post_init__(self):
        at_least(1, "n_blocks of Random", self.n_blocks)
        at_least(1, "block_tokens of Random", self.block_tokens)
        at_least(0, "seed of Random", self.seed)

    def mask(
        self, query_positions: Int[Tensor, "*B T"], key_positions: Int[Tensor, "*B S"]
    ) -> Bool[Tensor, "..."]:
        """Keys of the blocks that were drawn for the query's block."""
        blocks, which = (query_positions // self.block_tokens).unique(return_inverse=True)
        drawn = torch.tensor([self._drawn(block) for block in blocks.tolist()], device=which.device)
        drawn = drawn.reshape(-1, self.n_blocks)[which]  # of each query
        key_blocks = key_positions // self.block_tokens
        seen = [torch.eq(*_pairs(one, key_blocks)) for one in drawn.unbind(dim=-1)]
        return reduce(torch.logical_or, seen)

    def _drawn(self, block: int) -> list[int]:
        """The blocks that this one sees; -1, which is no block, where there are too few."""
        n_drawn = min(self.n_blocks, max(block, 0))
        chosen = np.random.default_rng([self.seed, max(block, 0)]).permutation(max(block, 0))
        return chosen[:n_drawn].tolist() + [-1] * (self.n_blocks - n_drawn)


@final
@dataclass(frozen=True, kw_only=True)
class Global:
    """Tokens 0, every, 2 · every, …: each sees everything before it and is seen by all after it.

    They are the post offices: any two tokens are two steps apart. For a number of pairs that grows
    as n, `every` must grow with the text; n / every is the number of post offices.

    Args:
        every: from one to the next.

    Raises:
        ValueError: below 1.
    """

    every: int

    def __post_init__(self):
        at_least(1, "every", self.every)

    def mask(
        self, query_positions: Int[Tensor, "*B T"], key_positions: Int[Tensor, "*B S"]
    ) -> Bool[Tensor, "..."]:
        """The query or the key is global."""
        are_global = (positions % self.every == 0 for positions in (query_positions, key_positions))
        return torch.logical_or(*_pairs(*are_global))


@final
@dataclass(frozen=True, kw_only=True)
class Hierarchical:
    """Near tokens all, further back ever fewer: distances with one digit that is not 0.

    Distances 0, 1, …, f - 1, then f, 2 f, …, (f - 1) f, then f², 2 f², …: what in base f is a digit
    and zeros behind it. A query sees f - 1 keys of each length of number, (f - 1) log_f n in all.

    Args:
        fan: f.

    Raises:
        ValueError: below 2: with 1 nothing would become fewer.

    Example:
        >>> positions = torch.arange(30)
        >>> seen = Hierarchical(fan=3).mask(positions[29:], positions)[0]
        >>> (29 - seen.nonzero().flatten()).flip(0).tolist()  # in base 3: 0, 1, 2, 10, 20, 100, …
        [0, 1, 2, 3, 6, 9, 18, 27]
    """

    fan: int

    def __post_init__(self):
        at_least(2, "fan", self.fan)

    def mask(
        self, query_positions: Int[Tensor, "*B T"], key_positions: Int[Tensor, "*B S"]
    ) -> Bool[Tensor, "..."]:
        """A digit and zeros, the distance in base fan."""
        queries, keys = _pairs(query_positions, key_positions)
        distance = queries - keys
        seen, unit = distance == 0, 1
        furthest = int(distance.max()) if distance.numel() else 0
        while unit <= furthest:
            digit = (distance >= unit) & (distance < self.fan * unit)
            seen = seen | (digit & (distance % unit == 0))
            unit *= self.fan
        return seen


def any_of(
    patterns: Sequence[Pattern],
    query_positions: Int[Tensor, "*B T"],
    key_positions: Int[Tensor, "*B S"],
) -> Bool[Tensor, "..."]:
    """What at least one of the patterns allows.

    Raises:
        ValueError: no pattern.

    Example:
        >>> positions = torch.arange(5)
        >>> from minillm.model.masks import causal
        >>> mask = any_of((Window(n_tokens=2), Sinks(n_tokens=1)), positions, positions)
        >>> (mask & causal(positions, positions)).int()
        tensor([[1, 0, 0, 0, 0],
                [1, 1, 0, 0, 0],
                [1, 1, 1, 0, 0],
                [1, 0, 1, 1, 0],
                [1, 0, 0, 1, 1]], dtype=torch.int32)
    """
    checked_patterns(patterns)
    return reduce(
        torch.logical_or, (each.mask(query_positions, key_positions) for each in patterns)
    )


def n_edges(mask: Bool[Tensor, "..."]) -> int:
    """How many pairs a mask allows, what attention over it would cost at best.

    Example:
        >>> from minillm.model.masks import causal
        >>> n_edges(causal(torch.arange(4), torch.arange(4)))  # 1 + 2 + 3 + 4
        10
    """
    return int(mask.sum())


def _pairs(query_positions: Tensor, key_positions: Tensor) -> Sequence[Tensor]:
    """The places of every query and every key, side by side: both [T, S], or [B, 1, T, S]."""
    queries, keys = query_positions[..., :, None], key_positions[..., None, :]
    if queries.ndim == 3:
        queries, keys = queries[:, None], keys[:, None]
    return torch.broadcast_tensors(queries, keys)


def at_least(least: int, name: str, value: int) -> None:
    """Refuse a number that is too small.

    Raises:
        ValueError: value is below least.
    """
    if value < least:
        raise ValueError(f"{name} must be at least {least}; got {value}")


def checked_patterns(patterns: Any) -> None:
    """Refuse what is no sequence of patterns.

    Raises:
        ValueError: no pattern, or an object without a `mask`.
    """
    if not isinstance(patterns, tuple | list) or not patterns:
        raise ValueError(
            "attention needs at least one pattern, or nobody sees anything; got "
            f"{patterns!r}. Give a tuple, such as (Window(n_tokens=64), Sinks(n_tokens=1))"
        )
    for pattern in patterns:
        if not isinstance(pattern, Pattern):
            raise ValueError(
                "a pattern is an object with mask(query_positions, key_positions), such as "
                f"Window(n_tokens=64); got {pattern!r}"
            )
