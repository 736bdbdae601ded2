"""A quantized model as a folder: codes packed to their bits, and all else as it was.

    config.json           what the model is built from (`minillm.formats.config_json`)
    quantization.json     what was done to each matrix: the plan; the hash of the weights
    model.safetensors     packed codes, scales, and what was kept in float
    tokenizer.json, …     as they stood beside the model that was quantized

b-bit codes are written one behind the other, the lowest bit first, across the bounds of bytes:

    3 bits     codes 5 = 101, 3 = 011, 7 = 111      bits 101 110 111      bytes 11011101 1
               read from the right                                        (the second holds 1 bit)

The folder appears whole or not at all: it is written under another name, and then renamed. A model
that is loaded gives the logits of the one that was saved, bit for bit.

Paper: none.
Differs: none.

Chapter: 18
"""

import hashlib
import json
import os
import shutil
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Integer, UInt8
from torch import Tensor, nn

from minillm.formats import hf, safetensors_file
from minillm.formats.config_json import MODEL_PARTS, from_json, to_json
from minillm.formats.gguf_file import check_space
from minillm.formats.hf import CONFIG, check_names
from minillm.formats.json_file import read_object
from minillm.formats.safetensors_file import WHOLE, Entry
from minillm.lab.files import empty_folder, write_whole
from minillm.model.config import TransformerConfig
from minillm.quant.apply import QuantizedModel
from minillm.quant.layers import VALUES, matrices, place
from minillm.quant.nf4 import NF4Config
from minillm.quant.plan import Line, Plan
from minillm.quant.rtn import Grid, Layout

QUANTIZATION = "quantization.json"
FORMAT, VERSION = "minillm quantized", 1
PLAN_PARTS = (Plan, Line, Grid, NF4Config)
BESIDE = ("tokenizer.json", "tokenizer_config.json", "generation_config.json", "chat_template.json")
DTYPES = {str(each).removeprefix("torch."): each for each in hf.KINDS}
KINDS = {**hf.KINDS, torch.uint8: "U8", torch.int64: "I64"}
MOST_BUFFER_BYTES = 2**31  # such as rotations, which no file holds


# --- bits ---------------------------------------------------------------------------------------
def pack(codes: Integer[Tensor, "*shape"], bits: int) -> UInt8[Tensor, "bytes"]:
    """Codes as bits, one behind the other.

    Args:
        codes: 0 to 2^bits - 1.
        bits: of each.

    Example:
        >>> pack(torch.tensor([5, 3, 7]), bits=3).tolist()  # 5 + 8 · 3 + 64 · 7 = 477 = 221 + 256
        [221, 1]
    """
    each = codes.flatten()[:, None].int() >> torch.arange(bits, device=codes.device) & 1
    stream = nn.functional.pad(each.flatten(), (0, -each.numel() % 8)).view(-1, 8)
    return (stream << torch.arange(8, device=codes.device)).sum(dim=-1).to(torch.uint8)


def unpack(packed: UInt8[Tensor, "bytes"], bits: int, n_codes: int) -> UInt8[Tensor, "codes"]:
    """What `pack` packed.

    Raises:
        ValueError: another number of bytes than so many codes take.

    Example:
        >>> unpack(torch.tensor([221, 1], dtype=torch.uint8), bits=3, n_codes=3).tolist()
        [5, 3, 7]
    """
    if len(packed) != -(-n_codes * bits // 8):
        raise ValueError(f"{n_codes} codes of {bits} bits do not take {len(packed)} bytes")
    stream = packed[:, None].int() >> torch.arange(8, device=packed.device) & 1
    each = stream.flatten()[: n_codes * bits].view(n_codes, bits)
    return (each << torch.arange(bits, device=packed.device)).sum(dim=-1).to(torch.uint8)


# --- into a folder ------------------------------------------------------------------------------
def save(
    quantized: QuantizedModel, directory: str | os.PathLike, *, beside: Path | None = None
) -> None:
    """Write a quantized model, whole or not at all.

    Args:
        quantized: from `minillm.quant.apply.quantize`.
        directory: must not exist.
        beside: the folder of the model that was quantized, whose tokenizer is copied; None for a
            model without one.

    Raises:
        ValueError: the folder exists; the disk has too little space; a model that was built from no
            config, or is not what its config and its plan say.
    """
    directory, (model, plan) = Path(directory), quantized
    check_new(directory)
    if model.config is None:
        raise ValueError("a folder needs the config that the model was built from; it has none")
    tensors = model.state_dict()
    for name, matrix in matrices(model):
        tensors[_part(name, "codes")] = pack(matrix.codes, matrix.grid.bits)
    dtype = model.embedding.weight.dtype
    if wrong := _layout(model.config, plan, dtype).items() ^ _types(tensors).items():
        raise ValueError(
            "the model is not what its config and its plan say; they differ in "
            f"{min(name for name, _ in wrong)}"
        )
    directory.parent.mkdir(parents=True, exist_ok=True)
    check_space(directory.parent, sum(tensor.nbytes for tensor in tensors.values()) + 2**20)
    with empty_folder(directory.with_name(f".{directory.name}.saving")) as folder:
        safetensors_file.write(folder, tensors, max_shard_bytes=2**62)
        note = {
            "format": FORMAT,
            "version": VERSION,
            "dtype": str(dtype).removeprefix("torch."),
            "sha256": _digest(folder / WHOLE),
            "plan": to_json(plan, PLAN_PARTS),
        }
        config = {"model_type": FORMAT, "vocab_size": model.config.vocab_size}
        config["config"] = to_json(model.config)
        for file, content in ((QUANTIZATION, note), (CONFIG, config)):
            write_whole(folder / file, json.dumps(content, indent=1) + "\n")
        for file in BESIDE:
            if beside is not None and (beside / file).is_file():
                shutil.copyfile(beside / file, folder / file)
        os.rename(folder, directory)


def check_new(directory: Path) -> None:
    """Refuse a folder that is there.

    Raises:
        ValueError: with what to do.
    """
    if os.path.lexists(directory):
        raise ValueError(f"{directory} exists, and nothing is ever replaced; name another folder")


# --- from a folder ------------------------------------------------------------------------------
def is_quantized(directory: str | os.PathLike) -> bool:
    """Whether a folder holds what `save` wrote, by its files' names."""
    return (Path(directory) / QUANTIZATION).is_file()


def load(directory: str | os.PathLike) -> QuantizedModel:
    """The quantized model in a folder that `save` wrote.

    Raises:
        ValueError: a file is missing, damaged, of another version or another program's; sizes that
            do not fit each other. What is wrong is named.
    """
    directory = Path(directory)
    note, content = (read_object(directory / file) for file in (QUANTIZATION, CONFIG))
    if (note.get("format"), note.get("version")) != (FORMAT, VERSION):
        raise ValueError(
            f"{QUANTIZATION} must say format {FORMAT!r} and version {VERSION}; it says "
            f"{note.get('format')!r} and {note.get('version')!r}: a newer version needs a newer "
            "minillm, another format is another program's"
        )
    plan = _read(QUANTIZATION, note.get("plan"), PLAN_PARTS, Plan)
    config = _read(CONFIG, content.get("config"), MODEL_PARTS, TransformerConfig)
    if note.get("dtype") not in DTYPES:
        raise ValueError(f"{QUANTIZATION} has dtype {note.get('dtype')!r}, not {list(DTYPES)}")
    dtype = DTYPES[note["dtype"]]
    # 1. the file is what was declared, before any memory is taken
    entries = safetensors_file.find(directory)
    if config.n_layers > len(entries):
        raise ValueError(f"{WHOLE} has too few tensors for a model of {config.n_layers:,} layers")
    _check_entries(entries, _layout(config, plan, dtype))
    if _digest(directory / WHOLE) != note.get("sha256"):
        raise ValueError(f"{WHOLE} is damaged, or of another model: its SHA-256 is another")
    # 2. the model, with codes in the places of its matrices
    tensors, model = dict(safetensors_file.read(entries)), config.build(dtype=dtype)
    for name, line in plan.quantized.items():
        rows, columns = line.shape
        parts = {part: tensors[_part(name, part)] for part in line.grid.layout(rows, columns)}
        codes = unpack(parts["codes"], line.grid.bits, rows * columns).view(rows, columns)
        parts["codes"] = tensors[_part(name, "codes")] = codes
        place(model, name, VALUES[type(line.grid)](**parts, grid=line.grid))
    model.load_state_dict(tensors)
    return QuantizedModel(model, plan)


def _read(file: str, content: Any, parts: tuple[type, ...], kind: type) -> Any:
    try:
        value = from_json(content, parts)
    except ValueError as error:
        raise ValueError(f"{file}: {error}") from None
    if type(value) is not kind:
        raise ValueError(f"{file} must hold a {kind.__name__}; it holds {value!r:.60}")
    return value


def _layout(config: TransformerConfig, plan: Plan, dtype: torch.dtype) -> Layout:
    """Type and shape of every tensor of such a folder."""
    try:
        # no name and no shape depends on the context, but memory does: rotations are of its length
        model = replace(config, context_length=1).build(device="meta", dtype=dtype)
        layout = _types(model.state_dict())
        for name, line in plan.quantized.items():
            if layout.pop(f"{name}.weight", None) != (dtype, line.shape):
                raise ValueError(f"the plan has a matrix {name} {line.shape}, the model has not")
            parts = line.grid.layout(*line.shape)
            layout |= {_part(name, part): about for part, about in parts.items()}
    except (TypeError, AttributeError, RuntimeError) as error:
        raise ValueError(f"config and plan describe no model: {error}") from None
    stored = model.state_dict()
    beside = (buffer.nbytes for name, buffer in model.named_buffers() if name not in stored)
    n_bytes = config.context_length * sum(beside)
    if n_bytes > MOST_BUFFER_BYTES:
        raise ValueError(
            f"{config.context_length:,} tokens of context would take {n_bytes:,} bytes by "
            f"themselves; at most {MOST_BUFFER_BYTES:,} are"
        )
    return layout


def _types(tensors: Mapping[str, Tensor]) -> Layout:
    return {name: (each.dtype, tuple(each.shape)) for name, each in tensors.items()}


def _check_entries(entries: Mapping[str, Entry], layout: Layout) -> None:
    check_names(entries, layout)
    for name, entry in entries.items():
        dtype, shape = layout[name]
        if (entry.kind, entry.shape) != (KINDS.get(dtype), shape):
            raise ValueError(
                f"{entry} is of {entry.kind} {list(entry.shape)}; by {CONFIG} and {QUANTIZATION} "
                f"it should be of {KINDS.get(dtype)} {list(shape)}"
            )


def _part(name: str, part: str) -> str:
    """The name of a part of a quantized matrix, in the model and in the file."""
    return f"{name}.matrix.{part}"


def _digest(path: Path) -> str:
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
