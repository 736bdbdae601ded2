"""Experts on demand (按需加载): an expert's weights lie in a file, and are read when it is called.

Of a layer's E experts a token uses k, and a small batch leaves most of them alone. Yet all E must
be somewhere. PanGu-Σ keeps them apart from the accelerators that compute, and fetches those that a
batch is routed to (expert computation and storage separation, ECSS, 专家计算与存储分离).

Here every parameter of an expert becomes a view of a memory-mapped file. `MoE` calls an expert only
if tokens were routed to it, so of the others no page is read; nor do they have a gradient, so no
optimizer touches them. What an optimizer changes, it changes in the file. With the optimizer paged
as well (`minillm.train.paging`), neither weights nor moments of idle experts are in memory.

    bytes read in a pass = Σ over the experts that were called: bytes of their weights

The file is a safetensors file, which others can read too.

Paper: Ren et al. 2023, "PanGu-Σ", arXiv:2303.10845, the section on ECSS (abstract checked; the
section from memory).
Differs: PanGu-Σ fetches from the hosts' memory, and its optimizer updates there. `n_bytes_read`
says what a pass asks for: what the operating system still has in its page cache, it does not read
from the disk again. A pass back reads the weights once more, which is not added.

Chapter: 16
"""

import json
import os
from pathlib import Path
from typing import final

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import nn

from minillm.experts.moe import MoE
from minillm.formats.hf import KINDS
from minillm.train.paging import Page, check_size, mapped


@final
class ExpertPages:
    """A file of experts, and how much was read of it.

    Args:
        path: of the file.

    Attributes:
        n_bytes_read: so far; set it to 0 to begin anew.
    """

    def __init__(self, path: Path):
        self.path, self.n_bytes = path, path.stat().st_size
        self.n_bytes_read = 0

    def fetch(self, expert: nn.Module, *_: object) -> None:
        """Note that an expert is about to be read; torch calls this before its forward pass."""
        check_size(self.path, self.n_bytes)
        self.n_bytes_read += sum(parameter.nbytes for parameter in expert.parameters())


def page_experts(model: nn.Module, path: str | os.PathLike) -> ExpertPages:
    """Write the weights of all experts to a new file, and use them from there.

    Args:
        model: a `MoE`, or a model with such layers, on the CPU.
        path: where no file may be yet.

    Raises:
        ValueError: there is a file; it cannot be written; there are no experts. The model is then
            as it was.

    Example:
        >>> import tempfile
        >>> from minillm.experts.moe import MoEConfig
        >>> layer = MoEConfig(n_experts=4, top_k=1, d_expert=16).build(d_model=8)
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     pages = page_experts(layer, f"{folder}/experts.safetensors")
        ...     y, _ = layer(torch.ones(1, 3, 8))  # three equal tokens call one expert
        ...     pages.n_bytes_read, 3 * 8 * 16 * 4
        (1536, 1536)
    """
    path, weights = Path(path), _weights(model)
    if path.exists():
        raise ValueError(
            f"{path} exists, and was not touched. `open_experts` uses the experts that are in it; "
            "or name another file"
        )
    try:
        save_file({name: weight.detach().clone() for name, weight in weights.items()}, path)
    except (OSError, SafetensorError) as error:
        raise ValueError(
            f"no experts can be written to {path}: {error}. Name a file in a folder that may be "
            "written; the model is as it was"
        ) from None
    return open_experts(model, path)


def open_experts(model: nn.Module, path: str | os.PathLike) -> ExpertPages:
    """Use the experts of a file, in place of the model's own.

    Args:
        model: of the same names and shapes as the one that wrote the file.
        path: what `page_experts` wrote. Training changes it.

    Raises:
        ValueError: no such file, or a damaged one; experts of another model. The model is then as
            it was.
    """
    path, weights = Path(path), _weights(model)
    pages = _pages(path)
    # 1. all fits, before anything is changed
    if unlike := [
        f"{name} {list(weight.shape)} {weight.dtype}"
        for name, weight in weights.items()
        if name not in pages or pages[name][1:] != (weight.shape, weight.dtype)
    ]:
        raise ValueError(
            f"{path} holds the experts of another model: it lacks {unlike[0]}, the first of "
            f"{len(unlike)}. Open it with the model that wrote it; this one is as it was"
        )
    file = ExpertPages(path)
    # 2. each parameter becomes a view of the file: optimizers keep hold of it
    for name, weight in weights.items():
        weight.data = mapped(path, pages[name])
    # 3. and each expert says when it is read
    for expert in _experts(model).values():
        expert.register_forward_pre_hook(file.fetch)
    return file


def _experts(model: nn.Module) -> dict[str, nn.Module]:
    experts = {
        f"{name}.experts.{e}".lstrip("."): expert
        for name, layer in model.named_modules()
        if isinstance(layer, MoE)
        for e, expert in enumerate(layer.experts)
    }
    if not experts:
        raise ValueError(f"{type(model).__name__} has no layer of experts; build with MoEConfig")
    return experts


def _weights(model: nn.Module) -> dict[str, nn.Parameter]:
    return {
        f"{name}.{key}": parameter
        for name, expert in _experts(model).items()
        for key, parameter in expert.named_parameters()
    }


def _pages(path: Path) -> dict[str, Page]:
    """Where each tensor of a safetensors file lies; the library checks the file's header first."""
    try:
        with safe_open(path, framework="pt"):
            pass  # the header is whole, and the file as long as it says
    except (OSError, SafetensorError) as error:
        raise ValueError(
            f"{path} is no whole safetensors file: {error}. `page_experts` writes one"
        ) from None
    with path.open("rb") as file:
        length = int.from_bytes(file.read(8), "little")
        header = json.loads(file.read(length))
    dtypes = {kind: dtype for dtype, kind in KINDS.items()}
    return {
        name: Page(
            8 + length + entry["data_offsets"][0],
            torch.Size(entry["shape"]),
            dtypes.get(entry["dtype"]),
        )
        for name, entry in header.items()
        if name != "__metadata__"
    }
