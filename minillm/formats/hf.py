"""Models as folders that `transformers` reads and writes: weights, config, tokenizer.

    config.json               what the model is built from (`minillm.formats.hf_config`)
    model.safetensors         its weights, or shards of them (`minillm.formats.safetensors_file`),
                              under the names of `minillm.formats.hf_names`
    generation_config.json    the token that ends a text
    tokenizer.json            how text becomes ids (`minillm.formats.tokenizer_json`)
    tokenizer_config.json     which class of transformers is to read that

A file from outside is not trusted: nothing in it is executed, sizes are checked before memory is
taken, and a model comes back whole or not at all.

Chapter: 04
"""

import json
import os
import re
from collections.abc import Callable, Collection, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor

from minillm.formats import safetensors_file, tokenizer_json
from minillm.formats.hf_beside import check_generation, check_has_rows, check_tokenizer_config
from minillm.formats.hf_config import read_config, to_config
from minillm.formats.hf_names import EMBEDDING, HEAD, Place, places, rows
from minillm.formats.hf_rope import check_rotations
from minillm.formats.json_file import read_object
from minillm.formats.safetensors_file import Entry
from minillm.formats.tokenizer_json import JsonTokenizer
from minillm.lab.files import empty_folder, write_whole
from minillm.model.config import TransformerConfig
from minillm.model.transformer import Transformer
from minillm.text.fast import save_tokenizers_json
from minillm.text.tokenizer import Tokenizer

CONFIG, GENERATION = "config.json", "generation_config.json"
TOKENIZER, TOKENIZER_CONFIG = "tokenizer.json", "tokenizer_config.json"
KINDS = {torch.float64: "F64", torch.float32: "F32", torch.float16: "F16", torch.bfloat16: "BF16"}
#: Old files hold the angles of the rotation, which follow from the config.
ANGLES = re.compile(r"model\.layers\.\d+\.self_attn\.rotary_emb\.inv_freq")


# --- from a folder ------------------------------------------------------------------------------
def load(
    directory: str | os.PathLike,
    *,
    dtype: torch.dtype = torch.float32,
    device: torch.device | str = "cpu",
    context_length: int | None = None,
) -> Transformer:
    """The model in a folder that `save` or `transformers` wrote.

    Args:
        directory: with config.json and safetensors files.
        dtype: of the model; the files may have another.
        device: where it is to be.
        context_length: the longest text it is to read, if not the one that its config names. Each
            layer prepares a rotation for every place, so a shorter text saves memory.

    Raises:
        ValueError: a file is missing, damaged or a pickle; the config asks for what our parts do
            not do; a tensor is missing, unexpected, of another shape, of integers, or has a NaN or
            an infinity among its numbers. Each is named.

    Example:
        >>> import tempfile
        >>> from minillm.model.config import tiny
        >>> model = tiny(vocab_size=50).build(seed=0)
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     save(model, folder)
        ...     again = load(folder)
        >>> tokens = torch.tensor([[7, 3, 9]])
        >>> torch.equal(model(tokens), again(tokens))
        True
    """
    declared = checkpoint(directory, dtype=dtype, context_length=context_length)
    model = declared.config.build(device=device, dtype=dtype)
    state = model.state_dict()  # shares the parameters' memory
    for name, tensor in safetensors_file.read(declared.entries):
        rows(state, declared.places[name]).copy_(finite(str(declared.entries[name]), tensor, dtype))
    check_doubled(declared, state["embedding.weight"])
    return model


class Checkpoint(NamedTuple):
    """A folder's model, of which no number has been read yet.

    Args:
        config: of the model.
        places: of each of their tensors in ours.
        entries: of each of their tensors in the files.
        doubled: a second copy of the one table, which some files hold.
    """

    config: TransformerConfig
    places: dict[str, Place]
    entries: dict[str, Entry]
    doubled: dict[str, Entry]


def checkpoint(
    directory: str | os.PathLike, *, dtype: torch.dtype, context_length: int | None = None
) -> Checkpoint:
    """What a folder declares, if its files hold it and a model of it can be built.

    Args:
        directory, dtype, context_length: as for `load`.

    Raises:
        ValueError: as for `load`, but for what only the numbers can show.
    """
    if dtype not in KINDS:
        raise ValueError(f"dtype must be one of {', '.join(map(str, KINDS))}; got {dtype}")
    directory = Path(directory)
    config = config_of(directory, read_config)
    if context_length is not None:
        config = replace(config, context_length=context_length)
    there, entries = places(config), safetensors_file.find(directory)
    doubled = {HEAD: entries.pop(HEAD)} if config.tied_embeddings and HEAD in entries else {}
    entries = {name: entry for name, entry in entries.items() if not ANGLES.fullmatch(name)}
    check_names(entries, there)
    shapes = {name: place.shape for name, place in there.items()}
    check_entries(entries | doubled, shapes | dict.fromkeys(doubled, shapes.get(EMBEDDING)))
    check_rotations(config, dtype)
    return Checkpoint(config, there, entries, doubled)


def check_doubled(declared: Checkpoint, table: Tensor) -> None:
    """Refuse a second copy of the table that is another table."""
    for name, tensor in safetensors_file.read(declared.doubled):
        if not torch.equal(tensor.to(table.device, table.dtype), table):
            raise ValueError(
                "the config says tie_word_embeddings, one table for both ends, but "
                f"{declared.doubled[name]} is another than {EMBEDDING}"
            )


def config_of(
    directory: Path, read: Callable[[Mapping[str, Any]], TransformerConfig]
) -> TransformerConfig:
    """The config of a folder, as a model family reads it.

    Args:
        directory: that `save` or transformers wrote.
        read: what its config.json holds, to our config.

    Raises:
        ValueError: a file, a folder without a config.json, and what `read` refuses.
    """
    path = directory / CONFIG
    if directory.is_file():
        safetensors_file.refuse_pickles([directory])
        raise ValueError(
            f"{directory} is a file; a model is a folder with {CONFIG} and safetensors files"
        )
    if not path.is_file():
        raise ValueError(
            f"there is no {CONFIG} in {directory}, so no model; minillm reads folders that `save` "
            "or transformers' save_pretrained wrote, and downloads nothing"
        )
    try:
        return read(read_object(path))
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from None


def check_names(entries: Mapping[str, Entry], there: Collection[str]) -> None:
    """Refuse files that lack a tensor of the model, or have one more."""
    missing, unexpected = set(there) - set(entries), set(entries) - set(there)
    if missing or unexpected:
        files = listed({entry.path.name for entry in entries.values()})
        raise ValueError(
            f"the files ({files}) do not hold the tensors of the model that {CONFIG} describes. "
            f"Missing: {listed(missing)}. Unexpected: {listed(unexpected)}"
        )


def listed(names: Collection[str], most: int = 20) -> str:
    """The first names in order, and how many more there are."""
    first = ", ".join(sorted(names)[:most]) or "none"
    return first if len(names) <= most else f"{first} and {len(names) - most} more"


def check_entries(entries: Mapping[str, Entry], shapes: Mapping[str, tuple[int, ...]]) -> None:
    """Refuse a tensor of another shape than the config says, or of a type that is not read."""
    for name, entry in entries.items():
        if entry.shape != shapes[name]:
            raise ValueError(
                f"{entry} has shape {list(entry.shape)}; by {CONFIG} it should "
                f"have {list(shapes[name])}"
            )
        if entry.kind not in KINDS.values():
            raise ValueError(
                f"{entry} holds numbers of type {entry.kind}; minillm reads "
                f"{', '.join(KINDS.values())}, and quantised models not at all"
            )


def finite(name: str, tensor: Tensor, dtype: torch.dtype) -> Tensor:
    """The tensor in that type; refused where a number is NaN, infinite, or too large for it."""
    cast = tensor.to(dtype)
    if not cast.isfinite().all():
        n_wrong = int((~cast.isfinite()).sum())
        cause = "are too large for" if tensor.isfinite().all() else "are NaN or infinite, as"
        raise ValueError(f"{name}: {n_wrong:,} of {cast.numel():,} numbers {cause} {dtype}")
    return cast


def load_tokenizer(directory: str | os.PathLike) -> JsonTokenizer:
    """The tokenizer in a folder that `save` or `transformers` wrote.

    Raises:
        ValueError: there is no tokenizer.json, or it is of a kind that is not read (see
            `minillm.formats.tokenizer_json`); tokenizer_config.json asks for other ids; a config
            beside it is of a model with fewer rows than the tokenizer has ids.
    """
    directory = Path(directory)
    tokenizer = tokenizer_json.read(directory / TOKENIZER)
    if (directory / TOKENIZER_CONFIG).is_file():
        content = read_object(directory / TOKENIZER_CONFIG)
        try:
            check_tokenizer_config(content, tokenizer)
        except ValueError as error:
            raise ValueError(f"{TOKENIZER_CONFIG}: {error}") from None
    check_has_rows(directory / CONFIG, TOKENIZER, tokenizer.ids)
    return tokenizer


def end_ids(directory: str | os.PathLike) -> tuple[int, ...]:
    """The ids that end a text by the folder's generation_config.json, or by its config.json.

    Raises:
        ValueError: they are no ids, or have no row in the model's table; generation_config.json
            asks for what is not done here.
    """
    directory = Path(directory)
    for file in (GENERATION, CONFIG):
        if not (directory / file).is_file():
            continue
        content = read_object(directory / file)
        if file == GENERATION:
            try:
                check_generation(content)
            except ValueError as error:
                raise ValueError(f"{GENERATION}: {error}") from None
        end_ids = content.get("eos_token_id")
        if end_ids is not None:
            ids = end_ids if isinstance(end_ids, list) else [end_ids]
            if not ids or not all(type(token) is int and token >= 0 for token in ids):
                raise ValueError(f"{file} says eos_token_id {end_ids!r}; an id or a list of ids")
            check_has_rows(directory / CONFIG, file, ids)
            return tuple(ids)
    return ()


# --- into a folder ------------------------------------------------------------------------------
def save(
    model: Transformer,
    directory: str | os.PathLike,
    tokenizer: Tokenizer | None = None,
    *,
    end_token: str | None = None,
    max_shard_bytes: int = 2**32,
) -> None:
    """Write a model so that `load` and transformers' `from_pretrained` read it.

    A folder with a config.json holds a whole model at every moment: new files are written under
    other names first; then the old config.json goes, the weights take their places, and the new
    config.json comes last. Weights and configs of an older model in the folder are replaced, other
    files stay.

    Args:
        model: with the config it was built from.
        directory: made if it is missing.
        tokenizer: written as tokenizer.json, if one is given.
        end_token: the special token of `tokenizer` that ends a text, at which `generate` stops.
        max_shard_bytes: larger weights are cut into several files.

    Raises:
        ValueError: transformers has no such model; the model is not what its config says, or has
            NaN or infinite weights; the tokenizer has more ids than the model, or no such token.
    """
    check_can_save(model, directory)
    write_folder(
        model,
        directory,
        _tensors(model),
        to_config(model.config),
        tokenizer,
        end_token,
        max_shard_bytes,
    )


def check_can_save(model: Transformer, directory: str | os.PathLike) -> None:
    """Refuse what is no folder, and a model that nothing describes or that has no numbers."""
    if Path(directory).exists() and not Path(directory).is_dir():
        raise ValueError(f"save needs a folder, and {directory} is a file; choose another name")
    if model.config is None:
        raise ValueError("save needs a model that was built from a config; this one has none")
    if model.embedding.weight.is_meta:
        raise ValueError("the model is on the device meta, so it has no numbers to save")


def write_folder(
    model: Transformer,
    directory: str | os.PathLike,
    tensors: Mapping[str, Tensor],
    content: Mapping[str, Any],
    tokenizer: Tokenizer | None,
    end_token: str | None,
    max_shard_bytes: int,
) -> None:
    """What `save` writes, of any model family, in the order that it promises.

    Args:
        model: for its type and its context.
        directory, tokenizer, end_token, max_shard_bytes: as for `save`.
        tensors: by their names there.
        content: of config.json, without ids and type.

    Raises:
        ValueError: the tokenizer has more ids than the model, or no such token.
    """
    directory = Path(directory)
    end = _end_id(model.config, tokenizer, end_token)
    ids = {"bos_token_id": None, "eos_token_id": end, "pad_token_id": None}
    dtype = str(model.embedding.weight.dtype).removeprefix("torch.")
    texts = {CONFIG: {**content, **ids, "dtype": dtype}, GENERATION: ids}
    if tokenizer is not None:
        texts[TOKENIZER_CONFIG] = {
            "tokenizer_class": "PreTrainedTokenizerFast",
            "model_max_length": model.context_length,
            "clean_up_tokenization_spaces": False,
            "eos_token": end_token,
        }
    directory.mkdir(parents=True, exist_ok=True)
    with empty_folder(directory / ".saving") as beside:
        safetensors_file.write(beside, tensors, max_shard_bytes)
        for name, content in texts.items():
            write_whole(beside / name, json.dumps(content, indent=2) + "\n")
        if tokenizer is not None:
            save_tokenizers_json(tokenizer, beside / TOKENIZER)
        _move(beside, directory)


def _tensors(model: Transformer) -> dict[str, Tensor]:
    """Theirs, each a view of rows of ours; the model must be what its config says."""
    there, state = places(model.config), model.state_dict()
    expected = {place.ours: _end_of(place) for place in there.values()}  # the last rows count
    shapes = {name: tuple(tensor.shape) for name, tensor in state.items()}
    if wrong := dict(expected.items() ^ shapes.items()):
        raise ValueError(
            "the model is not what its config says, so transformers could not read it; they "
            f"differ in {listed(wrong)}"
        )
    tensors = {name: rows(state, place) for name, place in there.items()}
    for name, tensor in tensors.items():
        finite(name, tensor, tensor.dtype)
    return tensors


def _end_of(place: Place) -> tuple[int, ...]:
    return (place.first_row + place.shape[0], *place.shape[1:])


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
    if tokenizer.vocab_size > config.vocab_size:
        raise ValueError(
            f"the tokenizer has {tokenizer.vocab_size:,} ids and the model {config.vocab_size:,}; "
            "is it the one that the model was trained with?"
        )
    if end_token is not None and end_token not in tokenizer.special_ids:
        raise ValueError(
            f"end_token must be one of {list(tokenizer.special_ids)}, the tokenizer's special "
            f"tokens; got {end_token!r}"
        )
    return None if end_token is None else tokenizer.special_ids[end_token]


def _move(beside: Path, directory: Path) -> None:
    """Files into their places; see `save` for the order."""
    (directory / CONFIG).unlink(missing_ok=True)
    old = (safetensors_file.WHOLE, safetensors_file.INDEX)
    for path in (*map(directory.joinpath, old), *directory.glob(safetensors_file.SHARDS)):
        path.unlink(missing_ok=True)
    for path in sorted(beside.iterdir(), key=lambda path: path.name == CONFIG):
        path.replace(directory / path.name)
