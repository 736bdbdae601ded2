"""Blocks of the KV cache (分页缓存, paged KV cache): who holds which, and what stands in them.

A cache that takes one long stretch of memory for each text must be as long as the longest answer
that may come, and most of it stays empty. Here memory is cut into blocks of a few tokens each. A
text holds a table of blocks, in order, and takes one more when the last is full:

    text A    Mei sells | red plums | .          blocks 5 0 3
    text B    Mei sells | red pears |            blocks 5 7        block 5 is held by both

**Sharing.** Two texts that begin alike have the same keys and values there. So a full block is
kept under its tokens and all tokens before it, and a text that begins alike holds the same block.
A text that would write into a block that others hold gets a copy first (写时复制, copy on write). A
block that nobody holds any more is free, but stays readable until it is needed for something else,
the longest unused first: the next text of the same conversation finds it.

**The last token is always read.** Its output chooses the next token, and no cache keeps outputs. So
of a text that is wholly stored all but its last token is shared.

This file keeps books only; keys and values stand in `minillm.serve.paged`.

Paper: Kwon et al. 2023, "Efficient Memory Management for Large Language Model Serving with
PagedAttention", arXiv:2309.06180, sections 4.1 to 4.4 (blocks, tables, sharing, copy on write).
Differs: a block is found by its tokens, not by a hash of them, so no two texts are ever confused;
a text also shares the first tokens of a block whose rest differs.

Chapter: 17
"""

from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import count, takewhile
from typing import NamedTuple, final


class Prefix(NamedTuple):
    """The beginning of a text that is stored already.

    Args:
        blocks: in order.
        n_tokens: how many tokens of the text stand in them; of the last block perhaps only some.
    """

    blocks: tuple[int, ...]
    n_tokens: int


class Copy(NamedTuple):
    """A block whose numbers are to be copied into another before anything is written."""

    source: int
    target: int


@final
@dataclass(eq=False)
class BlockTable:
    """The blocks of one text.

    Args:
        blocks: in order; token t stands in blocks[t // block_size], at place t % block_size.
        n_tokens: how many tokens are stored in them.
        parent: the number under which the last full block is known; 0 before the first.
    """

    blocks: list[int] = field(default_factory=list)
    n_tokens: int = 0
    parent: int = 0


@final
class BlockPool:
    """All blocks: which are free, who holds the others, what is stored in them.

    Args:
        n_blocks: how many there are.
        block_size: tokens a block.

    Raises:
        ValueError: a count below 1.

    Example:
        >>> pool = BlockPool(n_blocks=4, block_size=2)
        >>> first = pool.hold(pool.match([7, 3, 9]))  # nothing is stored yet
        >>> pool.grow(first, 3), first.blocks
        ([], [0, 1])
        >>> pool.store(first, [7, 3, 9])
        >>> second = pool.hold(pool.match([7, 3, 5]))  # begins alike: the full block is shared
        >>> second.blocks, second.n_tokens, pool.n_free
        ([0], 2, 2)
        >>> pool.release(first)
        >>> pool.release(second)
        >>> pool.n_free, pool.match([7, 3, 5])  # free, and still there
        (4, Prefix(blocks=(0,), n_tokens=2))
    """

    def __init__(self, n_blocks: int, block_size: int):
        if min(n_blocks, block_size) < 1:
            raise ValueError(
                "n_blocks and block_size must be at least 1, a block and a token; got "
                f"{n_blocks} and {block_size}"
            )
        self.n_blocks, self.block_size = n_blocks, block_size
        self._n_holders = [0] * n_blocks
        self._free = OrderedDict.fromkeys(range(n_blocks))  # the longest unused first
        # A stored block: the number of the block before it, and its tokens.
        self._key_of: dict[int, tuple[int, tuple[int, ...]]] = {}
        self._block_of: dict[tuple[int, tuple[int, ...]], int] = {}
        self._number_of: dict[int, int] = {}
        self._numbers = count(1)

    @property
    def n_free(self) -> int:
        """Blocks that nobody holds."""
        return len(self._free)

    def match(self, tokens: Sequence[int]) -> Prefix:
        """The longest stored beginning of a text, its last token always left out."""
        size, blocks, n_tokens, parent = self.block_size, [], 0, 0
        while True:
            rest = tuple(tokens[n_tokens : min(n_tokens + size, len(tokens) - 1)])
            block = self._block_of.get((parent, rest)) if len(rest) == size else None
            if block is None:
                break
            blocks.append(block)
            n_tokens, parent = n_tokens + size, self._number_of[block]
        # Of the blocks that would come next, the one that agrees longest.
        n_common, block = max(
            (
                (_n_common(rest, stored), block)
                for (before, stored), block in self._block_of.items()
                if before == parent
            ),
            default=(0, -1),
        )
        if n_common:
            blocks.append(block)
        return Prefix(tuple(blocks), n_tokens + n_common)

    def hold(self, prefix: Prefix) -> BlockTable:
        """A table that begins with these blocks, which can then not be taken by others."""
        for block in prefix.blocks:
            self._free.pop(block, None)
            self._n_holders[block] += 1
        n_full = prefix.n_tokens // self.block_size
        parent = self._number_of[prefix.blocks[n_full - 1]] if n_full else 0
        return BlockTable(list(prefix.blocks), prefix.n_tokens, parent)

    def n_missing(self, table: BlockTable | Prefix, n_new: int) -> int:
        """How many free blocks it takes to store n_new tokens more.

        Of a `Prefix`, which nobody holds yet, free blocks in it count too: to hold them takes them
        from the free ones.
        """
        size, held = self.block_size, isinstance(table, BlockTable)
        n_missing = -(-(table.n_tokens + n_new) // size) - len(table.blocks)
        if not held:
            n_missing += sum(block in self._free for block in table.blocks)
        place = table.n_tokens // size
        if n_new and place < len(table.blocks):  # the first token goes into a block that is there
            n_others = self._n_holders[table.blocks[place]] - held
            n_missing += n_others > 0
        return n_missing

    def grow(self, table: BlockTable, n_new: int) -> list[Copy]:
        """Make places for n_new tokens more, in blocks that this table alone holds.

        Returns:
            The copies to be done first, in this order; at most one.

        Raises:
            ValueError: there are not as many free blocks as `n_missing` says.
        """
        if self.n_missing(table, n_new) > self.n_free:
            raise ValueError(
                f"{n_new} more tokens need {self.n_missing(table, n_new)} free blocks; there are "
                f"{self.n_free}. Release the table of another text first"
            )
        copies, place = [], table.n_tokens // self.block_size
        if n_new and place < len(table.blocks):
            block = table.blocks[place]
            if self._n_holders[block] > 1:
                # 1. others read it: from now on this text has a copy
                table.blocks[place] = self._take()
                self._n_holders[block] -= 1
                copies.append(Copy(block, table.blocks[place]))
            else:
                # 2. nobody else does, but it will not be what it was
                self._forget(block)
        # 3. new blocks behind
        while len(table.blocks) * self.block_size < table.n_tokens + n_new:
            table.blocks.append(self._take())
        return copies

    def store(self, table: BlockTable, tokens: Sequence[int]) -> None:
        """Note that all these tokens are stored; blocks that became full can now be shared.

        Args:
            table: with places for all of them, see `grow`.
            tokens: the text from its first token on.
        """
        size = self.block_size
        for place in range(table.n_tokens // size, len(tokens) // size):
            block = table.blocks[place]
            key = (table.parent, tuple(tokens[place * size : (place + 1) * size]))
            if key not in self._block_of:  # else somebody has just stored the same
                self._block_of[key], self._key_of[block] = block, key
                self._number_of[block] = next(self._numbers)
            table.parent = self._number_of[self._block_of[key]]
        table.n_tokens = len(tokens)

    def release(self, table: BlockTable) -> None:
        """Give all blocks of a table back. The table is empty afterwards."""
        for block in reversed(table.blocks):  # so the end of a text is taken before its beginning
            self._n_holders[block] -= 1
            if not self._n_holders[block]:
                self._free[block] = None
                if block not in self._key_of:  # nobody can find what stands in it
                    self._free.move_to_end(block, last=False)
        table.blocks, table.n_tokens, table.parent = [], 0, 0

    def _take(self) -> int:
        block, _ = self._free.popitem(last=False)
        self._forget(block)
        self._n_holders[block] = 1
        return block

    def _forget(self, block: int) -> None:
        key = self._key_of.pop(block, None)
        if key is not None:
            del self._block_of[key], self._number_of[block]


def _n_common(a: Sequence[int], b: Sequence[int]) -> int:
    """How many first tokens two texts share."""
    pairs = zip(a, b, strict=False)
    return sum(1 for _ in takewhile(lambda pair: pair[0] == pair[1], pairs))
