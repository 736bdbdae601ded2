"""Mixtral's folders: models with experts that `transformers` reads and writes.

As `minillm.model.convert`, which is for models without experts: the same files, the same care with
what comes from outside. `minillm.model.convert_mixtral_names` says which number is which.

`load` reads the experts one by one, as folders of the hub have them, and stacked, as transformers 5
can write them. `save` writes them one by one, which every transformers reads.

Paper: Jiang et al. 2024, "Mixtral", arXiv:2401.04088, section 2.1.
Differs: none.

Chapter: 10
"""

import json
import os
import tempfile
from collections.abc import Collection, Mapping
from dataclasses import replace
from pathlib import Path

import torch
from torch import Tensor

from minillm.model import convert, safetensors_file
from minillm.model.config import TransformerConfig
from minillm.model.convert_mixtral_names import Theirs, no_such, places, read_config, to_config
from minillm.model.convert_names import rows
from minillm.model.safetensors_file import Entry
from minillm.model.transformer import Transformer
from minillm.text.fast import save_tokenizers_json
from minillm.text.json_file import read_object
from minillm.text.tokenizer import Tokenizer
from minillm.text.tokenizer_file import write_whole


# --- from a folder ------------------------------------------------------------------------------
def load(
    directory: str | os.PathLike,
    *,
    dtype: torch.dtype = torch.float32,
    device: torch.device | str = "cpu",
    context_tokens: int | None = None,
) -> Transformer:
    """The model in a folder that `save` or `transformers` wrote, with the experts in either form.

    Its tokenizer and the ids that end a text are read by `minillm.model.convert`.

    Args:
        directory: with config.json and safetensors files.
        dtype: of the model; the files may have another.
        device: where it is to be.
        context_tokens: the longest text it is to read, if not the one that its config names.

    Raises:
        ValueError: a file is missing, damaged or a pickle; the model has no experts; the config
            asks for what our parts do not do; a tensor is missing, unexpected, of another shape,
            of integers, or has a NaN or an infinity among its numbers. Each is named.

    Example:
        >>> from minillm.model.moe import MoEConfig
        >>> ffn = MoEConfig(n_experts=4, expert_width=24)
        >>> model = TransformerConfig(n_vocab=50, width=16, n_layers=1, ffn=ffn).build(seed=0)
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     save(model, folder)
        ...     again = load(folder)
        >>> tokens = torch.tensor([[7, 3, 9]])
        >>> torch.equal(model(tokens), again(tokens))
        True
    """
    if dtype not in convert.KINDS:
        raise ValueError(f"dtype must be one of {', '.join(map(str, convert.KINDS))}; got {dtype}")
    directory = Path(directory)
    config = _config_of(directory)
    if context_tokens is not None:
        config = replace(config, context_tokens=context_tokens)
    entries = {
        name: entry
        for name, entry in safetensors_file.find(directory).items()
        if not convert.ANGLES.fullmatch(name)
    }
    there = places(config, stacked=any(".mlp." in name for name in entries))
    _check_entries(entries, there)
    _check_rotations(config, dtype)
    model = config.build(device=device, dtype=dtype)
    state = model.state_dict()  # shares the parameters' memory
    for name, tensor in safetensors_file.read(entries):
        parts = _finite(name, tensor, dtype).reshape(-1, *there[name].places[0].shape)
        for place, part in zip(there[name].places, parts, strict=True):
            rows(state, place).copy_(part)
    return model


def _config_of(directory: Path) -> TransformerConfig:
    path = directory / convert.CONFIG
    if directory.is_file():
        safetensors_file.refuse_pickles([directory])
        raise ValueError(
            f"{directory} is a file; a model is a folder with {path.name} and safetensors files"
        )
    if not path.is_file():
        raise ValueError(
            f"there is no {path.name} in {directory}, so no model; minillm reads folders that "
            "`save` or transformers' save_pretrained wrote, and downloads nothing"
        )
    try:
        return read_config(read_object(path))
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from None


def _check_entries(entries: Mapping[str, Entry], there: Mapping[str, Theirs]) -> None:
    missing, unexpected = set(there) - set(entries), set(entries) - set(there)
    if missing or unexpected:
        raise ValueError(
            f"the files do not hold the tensors of the model that {convert.CONFIG} describes. "
            f"Missing: {_listed(missing)}. Unexpected: {_listed(unexpected)}"
        )
    for name, entry in entries.items():
        if entry.shape != there[name].shape:
            raise ValueError(
                f"{name} has shape {list(entry.shape)}; by {convert.CONFIG} it should have "
                f"{list(there[name].shape)}"
            )
        if entry.kind not in convert.KINDS.values():
            raise ValueError(
                f"{name} holds numbers of type {entry.kind}; minillm reads "
                f"{', '.join(convert.KINDS.values())}, and quantised models not at all"
            )


def _listed(names: Collection[str], most: int = 20) -> str:
    first = ", ".join(sorted(names)[:most]) or "none"
    return first if len(names) <= most else f"{first} and {len(names) - most} more"


def _check_rotations(config: TransformerConfig, dtype: torch.dtype) -> None:
    n_numbers = sum(2 * mixer.head_width * config.context_tokens for mixer in config.mixers)
    if n_numbers * dtype.itemsize > convert.MOST_ROTATION_BYTES:
        raise ValueError(
            f"rotations for texts of {config.context_tokens:,} tokens would take "
            f"{n_numbers * dtype.itemsize:,} bytes; say how long your texts are, as by "
            "load(..., context_tokens=4096)"
        )


def _finite(name: str, tensor: Tensor, dtype: torch.dtype) -> Tensor:
    cast = tensor.to(dtype)
    if not cast.isfinite().all():
        n_wrong = int((~cast.isfinite()).sum())
        cause = "are too large for" if tensor.isfinite().all() else "are NaN or infinite, as"
        raise ValueError(f"{name}: {n_wrong:,} of {cast.numel():,} numbers {cause} {dtype}")
    return cast


# --- into a folder ------------------------------------------------------------------------------
def save(
    model: Transformer,
    directory: str | os.PathLike,
    tokenizer: Tokenizer | None = None,
    *,
    end_token: str | None = None,
    max_shard_bytes: int = 2**32,
) -> None:
    """Write a model with experts so that `load` and transformers' `from_pretrained` read it.

    A folder with a config.json holds a whole model at every moment, as with
    `minillm.model.convert.save`: the old config.json goes first, the new one comes last.

    Args:
        model: with the config it was built from.
        directory: made if it is missing.
        tokenizer: written as tokenizer.json, if one is given.
        end_token: the special token of `tokenizer` that ends a text, at which `generate` stops.
        max_shard_bytes: larger weights are cut into several files.

    Raises:
        ValueError: no Mixtral is like that; the model is not what its config says, has NaN or
            infinite weights, or chooses experts with a bias; the tokenizer has more ids than the
            model, or no such token.
    """
    directory = Path(directory)
    if directory.exists() and not directory.is_dir():
        raise ValueError(f"save needs a folder, and {directory} is a file; choose another name")
    if model.config is None:
        raise ValueError("save needs a model that was built from a config; this one has none")
    tensors = _tensors(model)
    end = _end_id(model.config, tokenizer, end_token)
    ids = {"bos_token_id": None, "eos_token_id": end, "pad_token_id": None}
    dtype = str(model.embedding.weight.dtype).removeprefix("torch.")
    content = to_config(model.config) | ids | {"dtype": dtype}
    texts = {convert.CONFIG: content, convert.GENERATION: ids}
    if tokenizer is not None:
        texts[convert.TOKENIZER_CONFIG] = {
            "tokenizer_class": "PreTrainedTokenizerFast",
            "model_max_length": model.context_tokens,
            "clean_up_tokenization_spaces": False,
            "eos_token": end_token,
        }
    directory.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=directory, prefix=".saving-") as beside:
        safetensors_file.write(beside, tensors, max_shard_bytes)
        for name, said in texts.items():
            write_whole(Path(beside, name), json.dumps(said, indent=2) + "\n")
        if tokenizer is not None:
            save_tokenizers_json(tokenizer, Path(beside, convert.TOKENIZER))
        _move(Path(beside), directory)


def _tensors(model: Transformer) -> dict[str, Tensor]:
    """Theirs, each a view of rows of ours; the model must be what its config says."""
    if model.embedding.weight.is_meta:
        raise ValueError("the model is on the device meta, so it has no numbers to save")
    there, state = places(model.config), model.state_dict()
    expected = model.config.build(device="meta").state_dict()
    shapes = [{name: tensor.shape for name, tensor in s.items()} for s in (expected, state)]
    if wrong := dict(shapes[0].items() ^ shapes[1].items()):
        raise ValueError(
            "the model is not what its config says, so transformers could not read it; they "
            f"differ in {_listed(wrong)}"
        )
    for layer, block in enumerate(model.blocks):
        if block.ffn.balance.any():
            raise ValueError(
                no_such(f"a bias on the choice of experts, as blocks.{layer}.ffn.balance is")
            )
    tensors = {name: rows(state, theirs.places[0]) for name, theirs in there.items()}
    for name, tensor in tensors.items():
        _finite(name, tensor, tensor.dtype)
    return tensors


def _end_id(
    config: TransformerConfig, tokenizer: Tokenizer | None, end_token: str | None
) -> int | None:
    if tokenizer is None:
        if end_token is not None:
            raise ValueError("end_token needs the tokenizer whose token it is; pass both")
        return None
    if not isinstance(tokenizer, Tokenizer):
        raise ValueError(
            f"save writes a minillm.text.tokenizer.Tokenizer; got a {type(tokenizer).__name__}, "
            "whose .tokenizer may be one"
        )
    if tokenizer.n_vocab > config.n_vocab:
        raise ValueError(
            f"the tokenizer has {tokenizer.n_vocab:,} ids and the model {config.n_vocab:,}; is it "
            "the one that the model was trained with?"
        )
    if end_token is not None and end_token not in tokenizer.special_ids:
        raise ValueError(
            f"end_token must be one of {list(tokenizer.special_ids)}, the tokenizer's special "
            f"tokens; got {end_token!r}"
        )
    return None if end_token is None else tokenizer.special_ids[end_token]


def _move(beside: Path, directory: Path) -> None:
    """Files into their places; see `save` for the order."""
    (directory / convert.CONFIG).unlink(missing_ok=True)
    old = (safetensors_file.WHOLE, safetensors_file.INDEX)
    for path in (*map(directory.joinpath, old), *directory.glob(safetensors_file.SHARDS)):
        path.unlink(missing_ok=True)
    for path in sorted(beside.iterdir(), key=lambda path: path.name == convert.CONFIG):
        path.replace(directory / path.name)
