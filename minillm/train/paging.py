"""Paging (分页): what an optimizer remembers lies in a file, and is here only while it is used.

AdamW keeps two numbers for each weight, and touches those of one parameter once a step. So the
moments of all others need not be in memory at that time: they can lie on a disk. A file can be
**memory-mapped** (内存映射): the operating system gives the process addresses, reads a page of 4
KiB when an address on it is used, and writes pages back that were changed.

    optimizer.state[weight]["mean"]            maps that tensor's part of the file
    optimizer.state[weight]["mean"] = moments  copies into it; the tensor itself may go

Whoever reads a tensor and drops it gives its addresses back at once. So the optimizer is the same
as ever (`paged` changes only where its state lies), and its numbers are the same to the last bit.

**What is saved, exactly.** The process holds no state in memory of its own, except scalars such as
the count of steps, and what is computed of one parameter during its update. The operating system
keeps copies of the file's pages while memory is free (page cache), and drops them when it is not;
these are not part of what we count.

The file is no checkpoint: a process that dies during a step leaves moments of two steps in it.
Checkpoints are written as always, from the optimizer's state.

Paper: Ren et al. 2021, "ZeRO-Offload", arXiv:2101.06840 (optimizer state and update leave the
accelerator); Rajbhandari et al. 2021, "ZeRO-Infinity", arXiv:2104.07857 (they go on to a disk).
Both from memory.
Differs: there is no accelerator here, so nothing overlaps, and weights and gradients stay.

Chapter: 16
"""

from collections import defaultdict
from collections.abc import Iterator, MutableMapping
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple, final

import numpy as np
import torch
from torch import Tensor

#: The file that `paged` writes into its folder.
NAME = "optimizer.pages"


class Page(NamedTuple):
    """Where a tensor lies in a file.

    Args:
        offset: of its first byte.
        shape, dtype: of the tensor.
    """

    offset: int
    shape: torch.Size
    dtype: torch.dtype

    @property
    def n_bytes(self) -> int:
        """That it takes."""
        return self.shape.numel() * self.dtype.itemsize


def mapped(path: Path, page: Page) -> Tensor:
    """A tensor whose numbers are those of the file: read when used, written when changed.

    Args:
        path: of a file that reaches to the page's end; `check_size` first, since what lies behind
            the end of a file ends the process.
        page: of at least one number.
    """
    raw = np.memmap(path, dtype=np.uint8, mode="r+", offset=page.offset, shape=(page.n_bytes,))
    return torch.from_numpy(raw).view(page.dtype).view(page.shape)


def check_size(path: Path, n_bytes: int) -> None:
    """Refuse a file that is gone, or was cut or replaced.

    Raises:
        ValueError: it has another size.
    """
    size = path.stat().st_size if path.is_file() else 0
    if size != n_bytes:
        raise ValueError(
            f"{path} must have {n_bytes} bytes, and has {size}: someone else deleted, cut or "
            "replaced it. Nothing was read from it; go on from the last checkpoint"
        )


@final
class PageFile:
    """A file of tensors, one behind the other.

    Args:
        path: where no file may be yet.

    Raises:
        ValueError: there is one, or none can be written.
    """

    def __init__(self, path: Path):
        self.path, self.n_bytes = path, 0
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            path.open("xb").close()
        except FileExistsError:
            raise ValueError(
                f"{path} exists; it may hold what another run remembers, so it was not touched. If "
                "that run has ended, its checkpoint has it all: delete the file, or name another "
                "folder"
            ) from None
        except OSError as error:
            raise ValueError(_not_written(path, error)) from None

    def append(self, tensor: Tensor) -> Page:
        """Write a tensor behind the others. A full disk is an OSError here, and none later."""
        check_size(self.path, self.n_bytes)
        page = Page(self.n_bytes, tensor.shape, tensor.dtype)
        padding = -page.n_bytes % 64
        with self.path.open("ab") as file:
            file.write(tensor.detach().flatten().contiguous().view(torch.uint8).numpy())
            file.write(bytes(padding))
        self.n_bytes += page.n_bytes + padding
        return page

    def tensor(self, page: Page) -> Tensor:
        """The tensor of a page, mapped."""
        check_size(self.path, self.n_bytes)
        return mapped(self.path, page)


@final
class PagedState(MutableMapping):
    """What an optimizer remembers of one parameter: tensors in the file, all else here.

    Args:
        file: that other parameters use too.
    """

    def __init__(self, file: PageFile):
        self.file = file
        self.held: dict[str, Any] = {}  # a `Page` for each tensor that lies in the file

    def __getitem__(self, key: str) -> Any:
        value = self.held[key]
        return self.file.tensor(value) if isinstance(value, Page) else value

    def __setitem__(self, key: str, value: Any) -> None:
        page = self.held.get(key)
        if not isinstance(value, Tensor) or not value.ndim or not value.numel():
            self.held[key] = value
        elif not isinstance(page, Page):
            self.held[key] = self.file.append(value)
        elif (page.shape, page.dtype) != (value.shape, value.dtype):
            raise ValueError(
                f"{key!r} lies in {self.file.path} as {list(page.shape)} of {page.dtype}, and is "
                f"now {list(value.shape)} of {value.dtype}: the model has changed. `unpaged` takes "
                "the state back as it was; make a new optimizer for a new model"
            )
        else:
            self.file.tensor(page).copy_(value)

    def __delitem__(self, key: str) -> None:
        del self.held[key]

    def __iter__(self) -> Iterator[str]:
        return iter(self.held)

    def __len__(self) -> int:
        return len(self.held)

    def __ior__(self, other: Any) -> "PagedState":
        self.update(other)
        return self


def paged(optimizer: torch.optim.Optimizer, folder: str | Path) -> PageFile:
    """Move an optimizer's state into a file, and keep it there from now on.

    What it remembers so far moves too. Load a checkpoint first: loading puts state into memory.

    Args:
        optimizer: of parameters in this machine's memory; one that steps through them one after
            the other, as this course's do.
        folder: where the file is made.

    Returns:
        The file.

    Raises:
        ValueError: the folder holds such a file or cannot be written; a parameter on another
            device. The optimizer is then as it was.

    Example:
        >>> import tempfile
        >>> weight = torch.nn.Parameter(torch.ones(3, 5))
        >>> optimizer = torch.optim.AdamW([weight], lr=0.1)
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     file = paged(optimizer, folder)
        ...     weight.sum().backward()
        ...     optimizer.step()
        ...     file.n_bytes, ram_bytes(optimizer)  # 2 · 15 · 4, up to 64s; a count of steps
        ...     unpaged(optimizer)
        (128, 4)
        >>> optimizer.state[weight]["exp_avg"][0, 0]
        tensor(0.1000)
    """
    parameters = [parameter for group in optimizer.param_groups for parameter in group["params"]]
    for parameter in parameters:
        if parameter.device.type != "cpu":
            raise ValueError(
                f"a parameter is on {parameter.device}, and a mapped file is this machine's "
                "memory; page an optimizer of parameters on the CPU"
            )
    file = PageFile(Path(folder) / NAME)
    # 1. write all, before anything is changed
    states = defaultdict(partial(PagedState, file))  # for parameters without any state yet, too
    try:
        for parameter, state in optimizer.state.items():
            states[parameter].update(state)
    except OSError as error:
        file.path.unlink(missing_ok=True)
        raise ValueError(_not_written(file.path, error)) from None
    # 2. the optimizer looks there from now on
    optimizer.state = states
    return file


def unpaged(optimizer: torch.optim.Optimizer) -> None:
    """Take the state back into memory. The file stays, and may be deleted."""
    states = defaultdict(dict)
    for parameter, state in optimizer.state.items():
        for key, value in state.items():
            states[parameter][key] = value.clone() if isinstance(value, Tensor) else value
    optimizer.state = states


def ram_bytes(optimizer: torch.optim.Optimizer) -> int:
    """Bytes of state tensors that the process holds in memory of its own between two steps.

    Pages of a file, which the operating system may keep or drop, are none.
    """
    held = (
        value
        for state in optimizer.state.values()
        for value in (state.held if isinstance(state, PagedState) else state).values()
    )
    return sum(value.nbytes for value in held if isinstance(value, Tensor))


def _not_written(path: Path, error: OSError) -> str:
    return (
        f"no pages can be written to {path}: {error.strerror}. Name a folder with enough room that "
        "may be written; the optimizer is as it was"
    )
