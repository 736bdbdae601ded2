"""Mixtral's folders: models with experts that `transformers` reads and writes.

As `minillm.formats.hf`, which is for models without experts: the same files, the same care with
what comes from outside. `minillm.formats.hf_mixtral_names` says which number is which.

`load` reads the experts one by one, as folders of the hub have them, and stacked, as transformers 5
can write them. `save` writes them one by one, which every transformers reads.

Paper: Jiang et al. 2024, "Mixtral", arXiv:2401.04088, section 2.1.
Differs: none.

Chapter: 10
"""

import os
from dataclasses import replace
from pathlib import Path

import torch
from torch import Tensor

from minillm.formats import hf, safetensors_file
from minillm.formats.hf_mixtral_names import no_such, places, read_config, to_config
from minillm.formats.hf_names import rows
from minillm.formats.hf_rope import check_rotations
from minillm.model.transformer import Transformer
from minillm.text.tokenizer import Tokenizer


# --- from a folder ------------------------------------------------------------------------------
def load(
    directory: str | os.PathLike,
    *,
    dtype: torch.dtype = torch.float32,
    device: torch.device | str = "cpu",
    context_length: int | None = None,
) -> Transformer:
    """The model in a folder that `save` or `transformers` wrote, with the experts in either form.

    Its tokenizer and the ids that end a text are read by `minillm.formats.hf`.

    Args:
        directory: with config.json and safetensors files.
        dtype: of the model; the files may have another.
        device: where it is to be.
        context_length: the longest text it is to read, if not the one that its config names.

    Raises:
        ValueError: a file is missing, damaged or a pickle; the model has no experts; the config
            asks for what our parts do not do; a tensor is missing, unexpected, of another shape,
            of integers, or has a NaN or an infinity among its numbers. Each is named.

    Example:
        >>> import tempfile
        >>> from minillm.model.config import TransformerConfig
        >>> from minillm.experts.moe import MoEConfig
        >>> ffn = MoEConfig(n_experts=4, d_expert=24)
        >>> model = TransformerConfig(vocab_size=50, d_model=16, n_layers=1, ffn=ffn).build(seed=0)
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     save(model, folder)
        ...     again = load(folder)
        >>> tokens = torch.tensor([[7, 3, 9]])
        >>> torch.equal(model(tokens), again(tokens))
        True
    """
    if dtype not in hf.KINDS:
        raise ValueError(f"dtype must be one of {', '.join(map(str, hf.KINDS))}; got {dtype}")
    directory = Path(directory)
    config = hf.config_of(directory, read_config)
    if context_length is not None:
        config = replace(config, context_length=context_length)
    entries = {
        name: entry
        for name, entry in safetensors_file.find(directory).items()
        if not hf.ANGLES.fullmatch(name)
    }
    there = places(config, stacked=any(".mlp." in name for name in entries))
    hf.check_names(entries, there)
    hf.check_entries(entries, {name: theirs.shape for name, theirs in there.items()})
    check_rotations(config, dtype)
    model = config.build(device=device, dtype=dtype)
    state = model.state_dict()  # shares the parameters' memory
    for name, tensor in safetensors_file.read(entries):
        parts = hf.finite(str(entries[name]), tensor, dtype).reshape(
            -1, *there[name].places[0].shape
        )
        for place, part in zip(there[name].places, parts, strict=True):
            rows(state, place).copy_(part)
    return model


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
    `minillm.formats.hf.save`: the old config.json goes first, the new one comes last.

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
    hf.check_can_save(model, directory)
    hf.write_folder(
        model,
        directory,
        _tensors(model),
        to_config(model.config),
        tokenizer,
        end_token,
        max_shard_bytes,
    )


def _tensors(model: Transformer) -> dict[str, Tensor]:
    """Theirs, each a view of rows of ours; the model must be what its config says."""
    there, state = places(model.config), model.state_dict()
    expected = model.config.build(device="meta").state_dict()
    shapes = [{name: tensor.shape for name, tensor in s.items()} for s in (expected, state)]
    if wrong := dict(shapes[0].items() ^ shapes[1].items()):
        raise ValueError(
            "the model is not what its config says, so transformers could not read it; they "
            f"differ in {hf.listed(wrong)}"
        )
    for layer, block in enumerate(model.blocks):
        if block.ffn.expert_bias.any():
            raise ValueError(
                no_such(f"a bias on the choice of experts, as blocks.{layer}.ffn.expert_bias is")
            )
    tensors = {name: rows(state, theirs.places[0]) for name, theirs in there.items()}
    for name, tensor in tensors.items():
        hf.finite(name, tensor, tensor.dtype)
    return tensors
