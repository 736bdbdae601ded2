"""A model's caches cut into blocks, and what each layer is given of them in a step.

Attention asks its cache one thing: take these keys and values, give me all there are (`append`).
`PagedKV` holds the keys and values of all blocks of one layer in one row of places, and `PagedStep`
answers for the texts of a step: new ones are written to their places, and those of each text are
gathered, the last token of every text in the last column.

    places of A    5·4+0 … 5·4+3, 0·4+0      its table is blocks 5 0, of 4 tokens
    gathered       · · · A A A A A            A has five tokens, B eight; · is hidden by the mask
                   B B B B B B B B

A recurrent mixer (chapter 09) keeps no tokens but a state. It gets one place a slot (`StateSlots`),
nothing of it can be shared, and a request that was stopped reads its text again. What is neither a
`KVCache` nor a `State`, nor made of the two, is refused by name.

Paper: Kwon et al. 2023, arXiv:2309.06180, section 4.3.
Differs: their kernel reads the blocks where they are. Here they are first gathered into one tensor,
which copies all keys and values of the running texts once a layer and step.

Chapter: 17
"""

from collections.abc import Sequence
from typing import Any, NamedTuple, final

from jaxtyping import Float, Int
from torch import Tensor

from minillm.mixers.recurrent_state import State
from minillm.mixers.short_conv import ShiftedCache
from minillm.model.cache import KVCache
from minillm.serve.blocks import Copy


class Places(NamedTuple):
    """Where the tokens of a step's B texts stand.

    Args:
        new: the places of each text's T new tokens.
        kept: the places of each text's S tokens, the new ones last; filled up on the left with 0.
        slots: each text's slot.
    """

    new: Int[Tensor, "B T"]
    kept: Int[Tensor, "B S"]
    slots: Int[Tensor, "B"]


@final
class PagedKV:
    """Keys and values of one layer, for all blocks.

    Args:
        like: a cache of the layer, for its heads, width and type.
        n_blocks, block_size: see `minillm.serve.blocks.BlockPool`.
    """

    def __init__(self, like: KVCache, n_blocks: int, block_size: int):
        _, n_kv_heads, _, d_head = like.keys.shape
        shape = (n_blocks * block_size, n_kv_heads, d_head)
        # zeros: attention multiplies what is hidden by 0, and memory may hold NaN
        self.keys, self.values = like.keys.new_zeros(shape), like.values.new_zeros(shape)
        self.block_size = block_size

    def step(self, where: Places) -> "PagedStep":
        """The cache of a step, as the layer expects one."""
        return PagedStep(self, where)

    def end_step(self, step: "PagedStep", where: Places) -> None:
        """Nothing is left to do: `append` has written."""

    def copy(self, copies: Sequence[Copy]) -> None:
        """Copy blocks, one after the other."""
        for source, target in copies:
            for stored in (self.keys, self.values):
                by_block = stored.unflatten(0, (-1, self.block_size))
                by_block[target] = by_block[source]

    def start(self, slot: int) -> None:
        """Nothing to clear: a new text reads only what it has written or shares."""

    @property
    def n_bytes(self) -> int:
        """Bytes taken, filled or not."""
        return self.keys.nbytes + self.values.nbytes


@final
class PagedStep:
    """What attention is given in one step in place of a `KVCache`."""

    def __init__(self, stored: PagedKV, where: Places):
        self._stored, self._where = stored, where

    def append(
        self, k: Float[Tensor, "B G T K"], v: Float[Tensor, "B G T K"]
    ) -> tuple[Float[Tensor, "B G S K"], Float[Tensor, "B G S K"]]:
        """Write the new tokens' keys and values; gather those of all tokens of each text."""
        new, kept = self._where.new.flatten(), self._where.kept
        gathered = []
        for stored, added in ((self._stored.keys, k), (self._stored.values, v)):
            stored[new] = added.transpose(1, 2).flatten(0, 1)
            rows = stored.index_select(0, kept.flatten()).unflatten(0, kept.shape)
            gathered.append(rows.transpose(1, 2))
        return gathered[0], gathered[1]


@final
class StateSlots:
    """The states of one recurrent layer, one a slot.

    Args:
        like: an empty state of the layer.
        n_slots: how many texts run at once.
    """

    def __init__(self, like: State, n_slots: int):
        self._kind = like.kind
        self._empty = {name: like[name][:1].clone() for name in like.names}
        self._parts = {
            name: each.repeat_interleave(n_slots, 0) for name, each in self._empty.items()
        }

    def step(self, where: Places) -> State:
        """A state of the step's texts."""
        return State(self._kind, {name: each[where.slots] for name, each in self._parts.items()})

    def end_step(self, step: State, where: Places) -> None:
        """Put the texts' states back into their slots."""
        for name, each in self._parts.items():
            each[where.slots] = step[name]

    def copy(self, copies: Sequence[Copy]) -> None:
        """Nothing: a state stands in no block."""

    def start(self, slot: int) -> None:
        """As before the first token."""
        for name, each in self._parts.items():
            each[slot] = self._empty[name][0]

    @property
    def n_bytes(self) -> int:
        """Bytes of all slots."""
        return sum(each.nbytes for each in self._parts.values())


@final
class ShiftedSlots:
    """The caches of a mixer behind a short convolution: its last tokens, and the mixer's own."""

    def __init__(self, shift: StateSlots, mixer: Any):
        self._both = (shift, mixer)

    def step(self, where: Places) -> ShiftedCache:
        """Both for the step's texts."""
        return ShiftedCache(*(each.step(where) for each in self._both))

    def end_step(self, step: ShiftedCache, where: Places) -> None:
        """Both back."""
        self._both[0].end_step(step.shift, where)
        self._both[1].end_step(step.mixer, where)

    def copy(self, copies: Sequence[Copy]) -> None:
        """Blocks of the mixer, if it has any."""
        self._both[1].copy(copies)

    def start(self, slot: int) -> None:
        """As before the first token."""
        for each in self._both:
            each.start(slot)

    @property
    def n_bytes(self) -> int:
        """Bytes of both."""
        return sum(each.n_bytes for each in self._both)


def paged(like: Any, n_blocks: int, block_size: int, n_slots: int, layer: str) -> Any:
    """The store of one layer, after the kind of cache that the layer makes for itself.

    Args:
        like: a cache from the layer's own `new_cache`, of one row.
        n_blocks, block_size: for keys and values.
        n_slots: for states.
        layer: its name, for the message.

    Raises:
        ValueError: a cache of another kind.
    """
    if isinstance(like, KVCache):
        return PagedKV(like, n_blocks, block_size)
    if isinstance(like, State):
        return StateSlots(like, n_slots)
    if isinstance(like, ShiftedCache):
        sizes = (n_blocks, block_size, n_slots, layer)
        return ShiftedSlots(paged(like.shift, *sizes), paged(like.mixer, *sizes))
    raise ValueError(
        f"{layer} keeps a {type(like).__name__}, and the engine serves mixers that keep a KVCache "
        "or a State (chapter 09), alone or behind a short convolution. Write with "
        "minillm.serve.sample instead"
    )
