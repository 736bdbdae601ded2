"""A meter of live memory: how many elements of tensors are alive, and how many at the worst moment.

What a computation needs is not what it allocates in all but the most that is alive at once, its
peak. The meter watches every operation of torch while it is switched on. A tensor is a view of a
storage; a result whose storage was not among the operands' is new memory and is added, and is taken
off when the last view of it is gone:

    live = Σ elements of each storage that was made here and still is         peak = max over time

So a view counts once, an operation in place not at all, and what existed before is not counted.
Elements, not bytes: a mask's booleans count as much as a score's float32.

Not seen: what a kernel takes and gives back within one operation (its workspace), and what the
allocator keeps in reserve.

Chapter: 03
"""

import weakref
from collections.abc import Callable, Iterator
from typing import Any, final

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode


@final
class Meter(TorchDispatchMode):
    """Counts live elements inside a `with` block; forward and backward passes alike.

    Attributes:
        live: elements alive now that were allocated inside the block.
        peak: the most that `live` has been.
        largest: elements of the largest single storage.

    Example:
        >>> with Meter() as meter:
        ...     a = torch.zeros(3, 4)  # 12
        ...     b = a.T  # a view: nothing new
        ...     b += 1  # in place: nothing new
        ...     c = a + b.T  # 12 more
        ...     del a, b  # 12 less
        ...     d = torch.zeros(5)
        >>> meter.live, meter.peak, meter.largest
        (17, 24, 12)
    """

    def __init__(self):
        super().__init__()
        self.live = self.peak = self.largest = 0
        self._made: dict[int, list[int]] = {}  # by a storage's address: elements, bytes of each
        self._whole: set[Any] = set()  # operations that are not made of others

    def __torch_dispatch__(self, func: Any, types: Any, args: tuple = (), kwargs: Any = None):
        kwargs = kwargs or {}
        if func not in self._whole:  # under inference_mode matmul, say, comes in one: take it apart
            with self:
                result = func.decompose(*args, **kwargs)
            if result is not NotImplemented:
                return result
            self._whole.add(func)
        result = func(*args, **kwargs)
        # torch.tensor(...) fills its memory unseen, then hands it over as this operation's operand
        fresh = func is torch.ops.aten.lift_fresh.default
        operands = [] if fresh else _tensors([args, *kwargs.values()])
        borrowed = {tensor.untyped_storage()._cdata for tensor in operands}
        for tensor in _tensors(result):
            storage = tensor.untyped_storage()
            address = storage._cdata
            if address not in self._made:
                if address in borrowed:
                    continue  # a view of what was there before the block
                self._made[address] = [0, tensor.element_size()]
                weakref.finalize(storage, self._forget, address)
            n_before, n_bytes = self._made[address]
            n_elements = storage.nbytes() // n_bytes
            self.live += n_elements - n_before  # 0 if it was seen before, unless it was resized
            self._made[address][0] = n_elements
            self.peak = max(self.peak, self.live)
            self.largest = max(self.largest, n_elements)
        return result

    def _forget(self, address: int) -> None:
        self.live -= self._made.pop(address)[0]


def peak_elements(function: Callable[[], Any]) -> int:
    """The most elements alive at once among those that `function()` allocates.

    Example:
        >>> peak_elements(lambda: torch.zeros(100).sum())  # the sum is one element
        101
        >>> x = torch.zeros(100)
        >>> peak_elements(lambda: x.exp().exp().exp())  # two at a time
        200
    """
    with Meter() as meter:
        function()
    return meter.peak


def _tensors(tree: Any) -> Iterator[Tensor]:
    """The tensors of nested lists and tuples."""
    rest = [tree]
    while rest:
        branch = rest.pop()
        if isinstance(branch, Tensor):
            yield branch
        elif isinstance(branch, list | tuple):
            rest.extend(branch)
