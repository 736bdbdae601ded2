"""Offloading (卸载): a model runs though its weights do not fit into memory.

A text passes the blocks one after the other, so only the block at work need be here. The weights of
all others stay in their file, and while one block computes, a thread reads the next:

    block at work    0       1       2       0       1
    read ahead       1       2       0       1       2          the next token begins at block 0

What has been used is let go before the next block is taken. So beside the tables, which every token
needs at both ends, two blocks are here at most; without reading ahead it is one, and every block is
waited for.

`open_offloaded` gives a `Transformer` like any other: `generate`, `layers` and losses work, and its
logits are those of the whole model, bit for bit. A block fetches its weights as it is called, and
holds one number in the place of each matrix otherwise.

**What is counted.** Tensors of weights in memory of our own. The operating system keeps copies of
the file's pages while memory is free, and drops them when it is not (as in `minillm.train.paging`).
Caches and what is computed are not weights. All numbers are looked at once while a model is opened,
one matrix at a time beside the tables.

Paper: Han et al. 2022, "BMInf", ACL 2022 (demo), section on model offloading and scheduling: from
memory, and from the abstract.
Differs: theirs moves quantized weights between the memories of CPU and GPU; here they come from a
disk, and as they are.

Chapter: 18
"""

import os
from concurrent.futures import Future, ThreadPoolExecutor
from typing import final

import torch
from torch import Tensor, nn

from minillm.formats import hf, safetensors_file
from minillm.formats.hf import Checkpoint
from minillm.formats.hf_names import rows
from minillm.model.rope import Rotations
from minillm.model.transformer import Transformer

Weights = dict[str, Tensor]  # by their names in the model


@final
class Pager:
    """Brings the weights of a model's blocks from the disk, and lets them go.

    Args:
        declared: the folder.
        model: that `open_offloaded` prepares.
        read_ahead: whether the next block is read while one is at work.
    """

    def __init__(self, declared: Checkpoint, model: Transformer, read_ahead: bool):
        self.files, self.model = declared, model
        self.read_ahead = read_ahead and len(model.blocks) > 1
        self.names = [f"blocks.{n}." for n in range(len(model.blocks))]
        #: In bytes: of the tables and the last norm, and of each block.
        state = model.state_dict()
        self.block_bytes = [_bytes(state, name) for name in self.names]
        self.table_bytes = _bytes(state, "") - sum(self.block_bytes)
        self.resident_bytes = self.most_resident_bytes = 0
        self._at_work: int | None = None
        self._ahead: tuple[int, Future] | None = None

    @property
    def total_bytes(self) -> int:
        """Of all weights."""
        return self.table_bytes + sum(self.block_bytes)

    @property
    def needed_bytes(self) -> int:
        """The smallest cap: the tables, and as many of the largest blocks as are here at once."""
        return self.table_bytes + sum(sorted(self.block_bytes)[-2 if self.read_ahead else -1 :])

    def take(self, n: int) -> None:
        """Give block n its weights, and begin to read the next."""
        self.let_go()  # of a pass that was broken off
        # 1. this block: read already, or now
        if self._ahead is not None and self._ahead[0] != n:
            self._forget_ahead()
        if self._ahead is None:
            self._begin(n)
        try:
            weights = self._ahead[1].result()
        except Exception:
            self._forget_ahead()
            raise
        self._ahead, self._at_work = None, n
        _put(self.model, weights)
        # 2. the next one
        if self.read_ahead:
            self._begin((n + 1) % len(self.names))

    def let_go(self) -> None:
        """Free the weights of the block at work, if there is one."""
        if self._at_work is not None:
            n, self._at_work = self._at_work, None
            block = self.model.blocks[n].state_dict(prefix=self.names[n])
            _put(self.model, {name: _nothing(tensor) for name, tensor in block.items()})
            self._count(-self.block_bytes[n])

    def load_tables(self) -> None:
        """Read what is here all the time; check all numbers once, tensor by tensor."""
        state = {
            name: torch.empty(each.shape, dtype=each.dtype)
            for name, each in self.model.state_dict().items()
            if not name.startswith("blocks.")
        }
        self._count(self.table_bytes)
        dtype = self.model.norm.weight.dtype
        for name, tensor in safetensors_file.read(self.files.entries):
            checked = hf.finite(str(self.files.entries[name]), tensor, dtype)
            if self.files.places[name].ours in state:
                rows(state, self.files.places[name]).copy_(checked)
        hf.check_doubled(self.files, state["embedding.weight"])
        _put(self.model, state)

    def _begin(self, n: int) -> None:
        """Have block n read by a thread, which ends when it has read it."""
        self._count(self.block_bytes[n])
        pool = ThreadPoolExecutor(max_workers=1)
        self._ahead = n, pool.submit(self._read, n)
        pool.shutdown(wait=False)

    def _read(self, n: int) -> Weights:
        state, places = self.model.blocks[n].state_dict(prefix=self.names[n]), self.files.places
        entries = {
            name: entry for name, entry in self.files.entries.items() if places[name].ours in state
        }
        weights = {name: torch.empty(each.shape, dtype=each.dtype) for name, each in state.items()}
        for name, tensor in safetensors_file.read(entries):
            rows(weights, places[name]).copy_(tensor)
        return weights

    def _forget_ahead(self) -> None:
        (n, future), self._ahead = self._ahead, None
        future.exception()  # waits until it is read
        self._count(-self.block_bytes[n])

    def _count(self, n_bytes: int) -> None:
        self.resident_bytes += n_bytes
        self.most_resident_bytes = max(self.most_resident_bytes, self.resident_bytes)


def open_offloaded(
    directory: str | os.PathLike,
    cap_bytes: int,
    *,
    dtype: torch.dtype = torch.float32,
    context_length: int | None = None,
    read_ahead: bool = True,
) -> tuple[Transformer, Pager]:
    """A model whose weights stay in its folder, and what brings them.

    The model is for reading and writing text: its weights cannot be trained or saved.

    Args:
        directory: that `minillm.formats.hf.save` or transformers wrote.
        cap_bytes: how many bytes of weights may be in memory at once.
        dtype, context_length: as for `minillm.formats.hf.load`.
        read_ahead: whether the next block is read while one is at work.

    Raises:
        ValueError: as for `minillm.formats.hf.load`; a cap below what the tables and two blocks
            take (one, without reading ahead). At a later pass: a file that was changed since.

    Example:
        >>> import tempfile
        >>> from minillm.model.config import TransformerConfig
        >>> whole = TransformerConfig(vocab_size=50, d_model=16, n_layers=8).build(seed=0)
        >>> tokens = torch.tensor([[7, 3, 9]])
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     hf.save(whole, folder)
        ...     model, pager = open_offloaded(folder, cap_bytes=40_000)
        ...     torch.equal(model(tokens), whole(tokens))
        ...     pager.most_resident_bytes, pager.total_bytes
        True
        (33344, 113984)
    """
    declared = hf.checkpoint(directory, dtype=dtype, context_length=context_length)
    model = declared.config.build(device="meta", dtype=dtype)
    pager = Pager(declared, model, read_ahead)
    if cap_bytes < pager.needed_bytes:
        blocks = "the two largest blocks" if pager.read_ahead else "the largest block"
        raise ValueError(
            f"cap_bytes must be at least {pager.needed_bytes:,}: {pager.table_bytes:,} for the "
            f"tables, {pager.needed_bytes - pager.table_bytes:,} for {blocks} of "
            f"{pager.total_bytes:,} in all; got {cap_bytes:,}. Allow more, or load in a smaller "
            "dtype" + (", or with read_ahead=False" if pager.read_ahead else "")
        )
    _empty(model)
    pager.load_tables()
    for n, block in enumerate(model.blocks):
        block.register_forward_pre_hook(lambda _, inputs, n=n: pager.take(n))
        block.register_forward_hook(lambda _, inputs, outputs: pager.let_go())
    return model, pager


def _empty(model: Transformer) -> None:
    """Put one number in the place of each weight, and make the rotations, which no file holds."""
    for module in model.modules():
        for name, weight in module.named_parameters(recurse=False):
            setattr(module, name, nn.Parameter(_nothing(weight), requires_grad=False))
    for module in model.modules():
        if isinstance(module, Rotations):
            n_positions, module.table = len(module.table), None
            module.reserve(n_positions, like=model.norm.weight)


def _put(model: Transformer, weights: Weights) -> None:
    for name, tensor in weights.items():
        model.get_parameter(name).data = tensor


def _nothing(like: Tensor) -> Tensor:
    """NaN in that shape, which takes the memory of one number."""
    return torch.full((), torch.nan, dtype=like.dtype).expand(like.shape)


def _bytes(state: Weights, prefix: str) -> int:
    return sum(tensor.nbytes for name, tensor in state.items() if name.startswith(prefix))
