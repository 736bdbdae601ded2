"""GGUF, llama.cpp's file of one whole model: a header, names with values, and tensors.

    GGUF 3  2 1                    four letters, version 3; 2 tensors, 1 name with a value
    general.architecture = llama   metadata: whatever a reader must know, tokenizer and all
    token_embd  Q8_0 [64, 96] 0    tensors: type, shape (rows last), place from where they begin
    output_norm F32 [64] 6528
    ...                            zeros up to a multiple of 32 bytes; then the tensors, each
                                   beginning at such a multiple, so that a reader may map the file

Every number lies low byte first. A text is its length in eight bytes and then its UTF-8.

`read` takes no memory for weights. What a file declares is held against its size first, so that a
damaged one cannot ask for a terabyte.

Paper: none; the specification is docs/gguf.md of ggml, version 3.
Differs: of the types of tensors, those of `minillm.formats.gguf_blocks` alone are known; files with
the high byte first, with another alignment than 32 and with lists of lists are refused.

Chapter: 18
"""

import os
import shutil
import struct
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO, final

import torch
from torch import Tensor

from minillm.formats.gguf_blocks import TYPES, decode, encode, n_bytes

MAGIC, VERSION, ALIGNMENT = b"GGUF", 3, 32
#: Values of metadata that have a fixed size: their number in a file, and how struct writes them.
PLAIN = {0: "B", 1: "b", 2: "H", 3: "h", 4: "I", 5: "i", 6: "f", 7: "?", 10: "Q", 11: "q", 12: "d"}
UINT32, INT32, FLOAT32, BOOL, STRING, ARRAY = 4, 5, 6, 7, 8, 9
KINDS = {number_type.code: kind for kind, number_type in TYPES.items()}


@final
@dataclass(frozen=True, kw_only=True)
class Entry:
    """What a file says of one tensor.

    Args:
        path: of the file.
        name: of the tensor.
        kind: one of `minillm.formats.gguf_blocks.TYPES`.
        shape: rows first, as torch has it.
        first_byte: where it begins in the file.
    """

    path: Path
    name: str
    kind: str
    shape: tuple[int, ...]
    first_byte: int

    @property
    def n_bytes(self) -> int:
        """How many bytes it takes."""
        return n_bytes(self.shape, self.kind)


# --- writing ------------------------------------------------------------------------------------
def write(
    path: str | os.PathLike,
    metadata: Mapping[str, Any],
    tensors: Mapping[str, tuple[str, Tensor]],
) -> int:
    """Write a file, whole or not at all, and return how many bytes it has.

    Args:
        path: of the file, in a folder that exists. What is there is replaced in one step.
        metadata: of names to values. A str, a bool, an int (written as uint32) or a float (as
            float32); or a list of texts, or of ints (as int32).
        tensors: of names to type and numbers, in this order.

    Raises:
        ValueError: the disk has too little space; a value of another kind; what `encode` refuses,
            with the tensor's name.

    Example:
        >>> import tempfile
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     path = Path(folder, "a.gguf")
        ...     n = write(path, {"general.architecture": "llama"}, {"a": ("F32", torch.ones(2, 3))})
        ...     metadata, entries = read(path)
        ...     print(n == path.stat().st_size, metadata, load(entries["a"]).tolist())
        True {'general.architecture': 'llama'} [[1.0, 1.0, 1.0], [1.0, 1.0, 1.0]]
    """
    path = Path(path)
    # 1. the header, where each tensor's place follows from the sizes of those before it
    header = [MAGIC, struct.pack("<IQQ", VERSION, len(tensors), len(metadata))]
    header += [_text(key) + _value(key, value) for key, value in metadata.items()]
    place = 0
    for name, (kind, tensor) in tensors.items():
        axes = tensor.shape[::-1]
        header += [_text(name), struct.pack(f"<I{len(axes)}Q", len(axes), *axes)]
        header.append(struct.pack("<IQ", TYPES[kind].code, place))
        place = _aligned(place + n_bytes(tensor.shape, kind))
    start = b"".join(header)
    total = _aligned(len(start)) + place
    check_space(path.parent, total)
    # 2. all of it under another name first
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        with open(temporary, "wb") as file:
            file.write(start.ljust(_aligned(len(start)), b"\0"))
            for name, (kind, tensor) in tensors.items():
                try:
                    data = encode(tensor.detach().cpu().float(), kind)
                except ValueError as error:
                    raise ValueError(f"{name}: {error}") from None
                file.write(data.numpy().tobytes().ljust(_aligned(data.numel()), b"\0"))
            file.flush()
            os.fsync(file.fileno())  # on the disk before the name changes
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)
    return total


def check_space(directory: Path, n_bytes: int) -> None:
    """Refuse to begin to write what the disk has no space for.

    Raises:
        ValueError: with both numbers.
    """
    free = shutil.disk_usage(directory).free
    if free < n_bytes:
        raise ValueError(
            f"this takes {n_bytes:,} bytes, and the disk of {directory} has {free:,} left; make "
            "space, or write to another disk"
        )


def _aligned(place: int) -> int:
    return -(-place // ALIGNMENT) * ALIGNMENT


def _text(text: str) -> bytes:
    data = text.encode()
    return struct.pack("<Q", len(data)) + data


def _value(key: str, value: Any) -> bytes:
    """A value of metadata, its type before it."""
    match value:
        case bool():
            return struct.pack("<I?", BOOL, value)
        case int() if 0 <= value < 2**32:
            return struct.pack("<II", UINT32, value)
        case float():
            return struct.pack("<If", FLOAT32, value)
        case str():
            return struct.pack("<I", STRING) + _text(value)
        case [*texts] if all(isinstance(text, str) for text in texts):
            return struct.pack("<IIQ", ARRAY, STRING, len(texts)) + b"".join(map(_text, texts))
        case [*counts] if all(type(count) is int and abs(count) < 2**31 for count in counts):
            return struct.pack(f"<IIQ{len(counts)}i", ARRAY, INT32, len(counts), *counts)
    raise ValueError(
        f"{key} must be a text, a bool, a number, or a list of texts or of ints; got {value!r}"
    )


# --- reading ------------------------------------------------------------------------------------
def read(path: str | os.PathLike) -> tuple[dict[str, Any], dict[str, Entry]]:
    """The metadata of a file, and what it says of each tensor; no weights are read yet.

    Raises:
        ValueError: it is no GGUF of version 3; it is cut off or damaged; a tensor is of a type
            that is not known here. What is wrong is named.
    """
    path = Path(path)
    if not path.is_file():
        raise ValueError(f"there is no file {path}")
    with open(path, "rb") as file:
        try:
            return _read(file, path)
        except struct.error:
            raise ValueError(f"{path.name} is cut off, or its lengths are damaged") from None
        except ValueError as error:  # a UnicodeDecodeError, too
            raise ValueError(f"{path.name}: {error}") from None


def _read(file: BinaryIO, path: Path) -> tuple[dict[str, Any], dict[str, Entry]]:
    size = path.stat().st_size
    if file.read(4) != MAGIC:
        raise ValueError("no GGUF file, which begins with the letters GGUF")
    version, n_tensors, n_values = _numbers(file, "IQQ")
    if version != VERSION:
        raise ValueError(f"GGUF version {version}; minillm reads version {VERSION}, low byte first")
    metadata = {}
    for _ in range(_plausible(n_values, file, size)):
        key = _read_text(file, size)
        metadata[key] = _read_value(file, size, *_numbers(file, "I"))
    declared = {}
    for _ in range(_plausible(n_tensors, file, size)):
        name = _read_text(file, size)
        (n_axes,) = _numbers(file, "I")
        *axes, code, place = _numbers(file, f"{min(n_axes, 5)}QIQ")
        if name in declared or not 1 <= n_axes <= 4 or 0 in axes:
            raise ValueError(f"damaged: {name} stands twice, or has {n_axes} axes, {axes}")
        if code not in KINDS:
            raise ValueError(f"{name} is of ggml's type {code}; minillm reads {', '.join(TYPES)}")
        declared[name] = (KINDS[code], tuple(axes[::-1]), place)
    if metadata.get("general.alignment", ALIGNMENT) != ALIGNMENT:
        raise ValueError(f"its tensors do not begin at multiples of {ALIGNMENT} bytes, as usual")
    start, entries = _aligned(file.tell()), {}
    for name, (kind, shape, place) in declared.items():
        entry = Entry(path=path, name=name, kind=kind, shape=shape, first_byte=start + place)
        if place % ALIGNMENT or entry.first_byte + entry.n_bytes > size:
            raise ValueError(f"cut off or damaged: {name} would end behind its {size:,} bytes")
        entries[name] = entry
    return metadata, entries


def load(entry: Entry) -> Tensor:
    """The numbers of one tensor, in float32, whatever their type in the file is."""
    with open(entry.path, "rb") as file:
        file.seek(entry.first_byte)
        data = torch.frombuffer(bytearray(file.read(entry.n_bytes)), dtype=torch.uint8)
    return decode(data.reshape(*entry.shape[:-1], -1), entry.kind)


def _numbers(file: BinaryIO, form: str) -> tuple[Any, ...]:
    return struct.unpack(f"<{form}", file.read(struct.calcsize(f"<{form}")))


def _plausible(n: int, file: BinaryIO, size: int) -> int:
    """A number of things that take a byte each at least."""
    if n > size - file.tell():
        raise ValueError(f"cut off or damaged: it declares {n:,} things in {size:,} bytes")
    return n


def _read_text(file: BinaryIO, size: int) -> str:
    (length,) = _numbers(file, "Q")
    return file.read(_plausible(length, file, size)).decode()


def _read_value(file: BinaryIO, size: int, code: int) -> Any:
    if code in PLAIN:
        return _numbers(file, PLAIN[code])[0]
    if code == STRING:
        return _read_text(file, size)
    if code != ARRAY:
        raise ValueError(f"damaged: there is no value of type {code}")
    inner, n = _numbers(file, "IQ")
    if inner == ARRAY:
        raise ValueError("it has lists of lists, which no model of ours needs")
    return [_read_value(file, size, inner) for _ in range(_plausible(n, file, size))]
