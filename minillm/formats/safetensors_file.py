"""Weights on disk: tensors by name in safetensors files, whole or in shards.

A safetensors file is 8 bytes with the length of a header, the header (JSON: each tensor's type,
shape and place), then the numbers as they lie in memory. Nothing in it is ever executed, whereas
opening a pickle (`.bin`, `.pt`) runs whatever its author put there.

A large model is cut into shards (分片), each a file of its own, and an index says which tensor is
in which: `model.safetensors` becomes `model-00001-of-00002.safetensors` and so on, with
`model.safetensors.index.json`.

`find` reads headers alone and takes no memory for weights: what they declare is held against the
size of the file first, so that a damaged file cannot ask for a terabyte.

Chapter: 04
"""

import json
import os
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path, PureWindowsPath
from typing import Any, final

from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from minillm.formats.json_file import read_object
from minillm.lab.files import write_whole

WHOLE, INDEX = "model.safetensors", "model.safetensors.index.json"
SHARDS = "model-*-of-*.safetensors"
#: Whose weights lie as torch's do: a row for each number that comes out.
FORMS = ("pt", "np", "mlx")
PICKLES = (".bin", ".pt", ".pth", ".pkl", ".pickle", ".ckpt")


@final
@dataclass(frozen=True)
class Entry:
    """What a header says of one tensor, and in which file it stands.

    Args:
        path: of the file.
        name: of the tensor.
        kind: the type of its numbers, such as "F32" or "BF16".
        shape: rows first.
    """

    path: Path
    name: str
    kind: str
    shape: tuple[int, ...]

    def __str__(self) -> str:
        return f"{self.path.name}: {self.name}"


# --- reading ------------------------------------------------------------------------------------
def find(directory: str | os.PathLike) -> dict[str, Entry]:
    """Every tensor of a folder's weights, by name; no numbers are read yet.

    Raises:
        ValueError: there are no safetensors files (a pickle is named as what it is); a file is cut
            off or damaged; a shard is missing, lies outside the folder, or does not hold what the
            index says; there is a whole file and an index of others too.
    """
    directory = Path(directory)
    whole, index = directory / WHOLE, directory / INDEX
    if index.is_file():
        file_of = _weight_map(index)
        if whole.is_file() and WHOLE not in file_of.values():
            raise ValueError(
                f"{directory} holds {WHOLE}, and {INDEX} of other files: they may be of two "
                "models; move one away"
            )
        return _of_shards(index, file_of)
    if not whole.is_file():
        refuse_pickles(directory.glob("*"))
        raise ValueError(f"there is no {WHOLE} in {directory}, and no {INDEX}")
    return _headers(whole)


def refuse_pickles(paths: Iterable[Path]) -> None:
    """Raise if one of the files is a pickle by its name.

    Raises:
        ValueError: names them.
    """
    if names := sorted(path.name for path in paths if path.suffix in PICKLES):
        raise ValueError(_is_pickle(", ".join(names)))


def _is_pickle(name: str) -> str:
    return (
        f"{name}: a pickle. Opening one runs whatever it contains, so minillm never does; ask its "
        "author for safetensors"
    )


def _weight_map(index: Path) -> dict[str, str]:
    content = read_object(index)
    file_of = content.get("weight_map")
    if not isinstance(file_of, dict) or not all(isinstance(file, str) for file in file_of.values()):
        raise ValueError(f"{index.name} must hold a weight_map from tensors to files' names")
    if unknown := set(content) - {"metadata", "weight_map"}:
        raise ValueError(f"{index.name} has keys that nobody reads: {sorted(unknown)}")
    return file_of


def _of_shards(index: Path, file_of: Mapping[str, str]) -> dict[str, Entry]:
    entries, held = {}, set()
    for name in sorted(set(file_of.values())):
        if PureWindowsPath(name).name != name or not name.endswith(".safetensors"):
            raise ValueError(
                f"{index.name} names the file {name!r}; a shard must be a .safetensors file in the "
                "folder of the index itself, named without any path"
            )
        if not (index.parent / name).is_file():
            raise ValueError(f"{index.name} names {name}, which is not there; copy all shards")
        headers = _headers(index.parent / name)
        entries |= headers
        held |= {(tensor, name) for tensor in headers}
    if wrong := held ^ set(file_of.items()):
        tensor, name = min(wrong)
        both = ("holds {}, but {} does not say so", "does not hold {}, though {} says so")
        raise ValueError(
            f"{name} {both[(tensor, name) not in held].format(tensor, index.name)} "
            f"({len(wrong)} such); shards and index must be of one model: copy all of them again"
        )
    return entries


def _headers(path: Path) -> dict[str, Entry]:
    with _opened(path, "numpy") as file:  # for torch, it would be mapped as memory to write to
        form = (file.metadata() or {}).get("format", "pt")
        if form not in FORMS:
            raise ValueError(
                f"{path.name} says that its format is {form!r}, whose weights may lie in another "
                f"order; minillm reads {', '.join(FORMS)}"
            )
        parts = {name: file.get_slice(name) for name in file.keys()}  # noqa: SIM118, no dict
        return {
            name: Entry(path, name, part.get_dtype(), tuple(part.get_shape()))
            for name, part in parts.items()
        }


@contextmanager
def _opened(path: Path, framework: str) -> Iterator[Any]:
    try:
        file = safe_open(path, framework)  # checks that header and file agree, to the byte
    except SafetensorError as error:
        raise ValueError(_damage(path, error)) from None
    with file:
        yield file


def _damage(path: Path, error: SafetensorError) -> str:
    with open(path, "rb") as file:
        first = file.read(2)
    if first[:1] == b"\x80" or first == b"PK":
        return _is_pickle(path.name)
    return (
        f"{path.name} is cut off or damaged, or no safetensors file: its {path.stat().st_size:,} "
        f"bytes are not what its header declares ({error}); copy it again"
    )


def read(entries: Mapping[str, Entry]) -> Iterator[tuple[str, Tensor]]:
    """The tensors of those entries one after the other, on the CPU, in the types of the file.

    One is in memory at a time, if the caller keeps none.
    """
    for path in sorted({entry.path for entry in entries.values()}):
        with _opened(path, "pt") as file:
            for name, entry in entries.items():
                if entry.path == path:
                    yield name, file.get_tensor(name)


# --- writing ------------------------------------------------------------------------------------
def write(
    directory: str | os.PathLike, tensors: Mapping[str, Tensor], max_shard_bytes: int = 2**32
) -> None:
    """Write tensors into one file, or into shards and their index.

    Args:
        directory: a folder that exists.
        tensors: in this order. None may share memory with another but as rows of one matrix.
        max_shard_bytes: of a file; a tensor that is larger stands in a file alone.

    Raises:
        ValueError: max_shard_bytes below 1.

    Example:
        >>> import tempfile, torch
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     write(folder, {"a": torch.zeros(2, 3), "b": torch.ones(4)}, max_shard_bytes=24)
        ...     print(sorted(os.listdir(folder)))
        ...     print([(name, entry.shape) for name, entry in find(folder).items()])
        ['model-00001-of-00002.safetensors', 'model-00002-of-00002.safetensors',
         'model.safetensors.index.json']
        [('a', (2, 3)), ('b', (4,))]
    """
    if max_shard_bytes < 1:
        raise ValueError(f"max_shard_bytes must be at least 1; got {max_shard_bytes}")
    directory = Path(directory)
    shards = _packed(tensors, max_shard_bytes)
    if len(shards) <= 1:
        return _write_one(directory / WHOLE, tensors, tensors)
    weight_map = {}
    for number, names in enumerate(shards, start=1):
        file = f"model-{number:05}-of-{len(shards):05}.safetensors"
        _write_one(directory / file, tensors, names)
        weight_map |= dict.fromkeys(names, file)
    total = sum(tensor.nbytes for tensor in tensors.values())
    index = {"metadata": {"total_size": total}, "weight_map": weight_map}
    write_whole(directory / INDEX, json.dumps(index, indent=2) + "\n")


def _packed(tensors: Mapping[str, Tensor], max_bytes: int) -> list[list[str]]:
    shards: list[list[str]] = []
    n_bytes = 0
    for name, tensor in tensors.items():
        if not shards or n_bytes + tensor.nbytes > max_bytes:
            shards.append([])
            n_bytes = 0
        shards[-1].append(name)
        n_bytes += tensor.nbytes
    return shards


def _write_one(path: Path, tensors: Mapping[str, Tensor], names: Iterable[str]) -> None:
    kept = {name: tensors[name].detach().cpu().contiguous() for name in names}
    save_file(kept, path, metadata={"format": "pt"})  # transformers asks for this word
    with open(path, "rb+") as file:
        os.fsync(file.fileno())
