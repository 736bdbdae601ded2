"""`minillm export`: a model for other programs, as a GGUF file or as a folder of transformers.

Chapter: app
"""

import json
import os
import re
import shutil
from collections.abc import Iterable
from pathlib import Path

import torch

from minillm.experts.moe import MoEConfig
from minillm.formats import gguf, hf, hf_mixtral
from minillm.formats.gguf_file import Entry, check_space
from minillm.formats.json_file import read_object
from minillm.formats.tokenizer_json import JsonTokenizer
from minillm.lab.files import empty_folder, write_whole
from minillm.model.transformer import Transformer
from minillm.quant import store
from minillm.serve import template
from minillm.text.pretokenize import PATTERN
from minillm.zoo import checkpoints

DTYPES = {"f32": torch.float32, "f16": torch.float16, "bf16": torch.bfloat16}
#: What each format can hold.
TYPES = {"gguf": (*DTYPES, "q8_0", "q4_0"), "hf": tuple(DTYPES)}
#: What stands beside the weights of a folder, and is copied.
BESIDE = (
    hf.TOKENIZER, hf.TOKENIZER_CONFIG, hf.GENERATION, template.FILE, "chat_template.jinja",
)  # fmt: skip
IDS = ("bos_token_id", "eos_token_id", "pad_token_id")
OTHER_IDS = (
    "  text is cut by GPT-2's pattern there: other ids than here for some numbers (four digits in "
    "a row, digits beyond 0 to 9) and for letters with combining marks"
)


def run(place: Path, *, form: str, kind: str, out: Path) -> list[str]:
    """Export a model, and return what is to be printed.

    Args:
        place: a model's folder, or the name of a shipped one.
        form: "gguf" or "hf".
        kind: the type of its numbers, one of `TYPES[form]`.
        out: the file or the folder to make.

    Raises:
        ValueError: another format or type; `out` is there already, or its folder is not; a model
            that cannot be read, is quantized, or that the format cannot hold; a disk with too
            little space.
    """
    check(form, kind, out)
    folder = checkpoints.folder_of(place)
    if store.is_quantized(folder):
        raise ValueError(
            f"{place} is quantized already, and no format here has its codes; export the model "
            "that it was quantized from: --type q8_0 and q4_0 quantize, too"
        )
    model, tokenizer, end_ids = checkpoints.open_model(folder)
    n_bytes = sum(tensor.nbytes for tensor in model.parameters())
    if form == "hf":
        written = _write_folder(model, folder, kind, out)
        return [f"{out}: {written:,} bytes, {kind}; in float32 the weights are {n_bytes:,}"]
    entries = gguf.save(
        model,
        out,
        tokenizer,
        end_ids=end_ids or tuple(tokenizer.special_ids.values()),
        kind=kind.upper(),
        name=folder.resolve().name,
    )
    size = out.stat().st_size
    lines = [f"{out}: {size:,} bytes; in float32 the weights alone are {n_bytes:,}"]
    return lines + _table(entries.values(), kind.upper()) + [OTHER_IDS] * _is_ours(tokenizer)


def check(form: str, kind: str, out: Path) -> None:
    """Refuse what need not be tried.

    Raises:
        ValueError: another format or type; `out` is there already, or its folder is not.

    Example:
        >>> check("hf", "q8_0", Path("town"))
        Traceback (most recent call last):
            ...
        ValueError: --type of hf must be one of f32, f16, bf16; got 'q8_0'
    """
    if form not in TYPES:
        raise ValueError(f"--format must be one of {', '.join(TYPES)}; got {form!r}")
    if kind not in TYPES[form]:
        raise ValueError(f"--type of {form} must be one of {', '.join(TYPES[form])}; got {kind!r}")
    if os.path.lexists(out):
        raise ValueError(f"{out} is there already; take another --out, or delete it first")
    if not out.parent.is_dir():
        raise ValueError(f"there is no folder {out.parent} to write {out.name} into; make it first")


def _write_folder(model: Transformer, folder: Path, kind: str, out: Path) -> int:
    """Write a folder of transformers, whole or not at all, and return how many bytes it has."""
    model = model.to(DTYPES[kind])
    check_space(out.parent, sum(tensor.nbytes for tensor in model.parameters()))
    family = hf_mixtral if isinstance(model.config.ffns[0], MoEConfig) else hf
    with empty_folder(out.with_name(f".{out.name}.exporting")) as beside:
        family.save(model, beside)
        for path in filter(Path.is_file, map(folder.joinpath, BESIDE)):
            shutil.copyfile(path, beside / path.name)
        old, new = (read_object(path / hf.CONFIG) for path in (folder, beside))
        config = new | {key: old.get(key) for key in IDS}
        write_whole(beside / hf.CONFIG, json.dumps(config, indent=2) + "\n")
        os.rename(beside, out)
    return sum(path.stat().st_size for path in out.iterdir())


def _table(entries: Iterable[Entry], kind: str) -> list[str]:
    """A line for each type: how many tensors, how many bytes, and which stayed F16."""
    by_kind: dict[str, list[Entry]] = {}
    for entry in entries:
        by_kind.setdefault(entry.kind, []).append(entry)
    lines = []
    for each, of_kind in sorted(by_kind.items(), key=lambda item: item[0] != kind):
        n_bytes = sum(entry.n_bytes for entry in of_kind)
        line = f"  {each:<5}{len(of_kind):>5} tensors{n_bytes:>16,} bytes"
        if each == "F16" != kind:
            stayed = {f"{re.sub(r'[0-9]+', '*', e.name)}: rows of {e.shape[-1]}" for e in of_kind}
            line += f"   (32 does not divide {'; '.join(sorted(stayed))})"
        lines.append(line)
    return lines


def _is_ours(tokenizer: JsonTokenizer) -> bool:
    """Whether text is cut by a pattern that llama.cpp has not."""
    parts = tokenizer.content["pre_tokenizer"].get("pretokenizers", [])
    return any(part.get("pattern") == {"Regex": PATTERN} for part in parts)
