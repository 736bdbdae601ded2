"""A model made from a model: it takes over weights, shape and tokenizer of its parent.

    parent = "town-base"               a shipped model, or parent = "runs/mine/model"

    [data]
    kind = "text"                      read on, in other texts: continued pre-training (继续预训练)
    files = ["letters.txt"]            or kind = "chat", "requests": supervised fine-tuning

What the child may have of its own is a shorter context. Its manifest names the parent and has the
hash of its weights, so a run goes on only if its parent is still the same.

Chapter: app
"""

import hashlib
import json
import shutil
from dataclasses import fields, replace
from pathlib import Path

from minillm.formats import hf
from minillm.formats.hf_config import read_config
from minillm.formats.json_file import read_object
from minillm.formats.tokenizer_json import JsonTokenizer
from minillm.lab.files import write_whole
from minillm.model.transformer import Transformer
from minillm.quant import store
from minillm.recipes.chat_data import Chats
from minillm.recipes.recipe import ModelShape, Recipe
from minillm.serve import template as chat_template
from minillm.serve.template import ChatTemplate
from minillm.tune.chat import save_template
from minillm.zoo import checkpoints


def adopted(recipe: Recipe) -> Recipe:
    """The recipe with its parent's shape and the hash of its weights; as it is without a parent.

    Raises:
        ValueError: no such model; one that is quantized, or of a family that is not trained here;
            other weights than the recipe names; a shape that is not the parent's.
    """
    if recipe.parent is None:
        return recipe
    theirs, digest = shape_of(recipe.parent), weights_sha256(folder(recipe.parent))
    if recipe.parent_sha256 not in (None, digest):
        raise ValueError(
            f"the weights of {recipe.parent} must have the SHA-256 that {recipe.name} names, "
            f"{recipe.parent_sha256[:12]}…; they have {digest[:12]}…. Bring back that model, or "
            "leave out parent_sha256 in a new run"
        )
    return replace(recipe, model=_agreed(recipe.model, theirs), parent_sha256=digest)


def _agreed(ours: ModelShape | None, theirs: ModelShape) -> ModelShape:
    if ours is None:
        return theirs
    if ours.context_length > theirs.context_length:
        raise ValueError(
            f"context_length may be at most the parent's, {theirs.context_length}, since it has "
            f"seen no later position; got {ours.context_length}"
        )
    differences = [
        f"{each.name} is {getattr(ours, each.name)!r} here and {getattr(theirs, each.name)!r} there"
        for each in fields(ModelShape)
        if each.name != "context_length"
        and getattr(ours, each.name) not in (None, getattr(theirs, each.name))
    ]
    if differences:
        raise ValueError(
            "[model] must say what is so of the parent, whose weights are taken over; "
            f"{'; '.join(differences)}. Leave it out, or train without a parent"
        )
    return replace(theirs, context_length=ours.context_length)


def folder(parent: str) -> Path:
    """Where the parent's files are.

    Raises:
        ValueError: it is a quantized model, or there is none; says what is shipped.
    """
    place = checkpoints.folder_of(Path(parent))
    if not place.exists():
        raise ValueError(
            f"parent must be the name of a shipped model, {', '.join(checkpoints.names())}, or a "
            f"folder with a model; there is no {parent}"
        )
    if store.is_quantized(place):
        raise ValueError(f"{parent} is quantized; name the model that it was made from")
    return place


def shape_of(parent: str) -> ModelShape:
    """The parent's numbers, as `[model]` names them.

    Raises:
        ValueError: there is no model, or one of a family that is not trained here.
    """
    config = hf.config_of(folder(parent), read_config)
    mixer = config.mixer[0] if isinstance(config.mixer, tuple) else config.mixer
    return ModelShape(
        vocab_size=config.vocab_size,
        context_length=config.context_length,
        d_model=config.d_model,
        n_layers=config.n_layers,
        n_heads=mixer.n_heads,
        n_kv_heads=mixer.n_kv_heads,
        qk_norm=mixer.qk_norm,
        d_ff=config.ffn.d_ff,
        tied_embeddings=config.tied_embeddings,
        initial_std=config.initial_std,
    )


def weights_sha256(place: Path) -> str:
    """The SHA-256 of a model's safetensors files, by the order of their names."""
    digest = hashlib.sha256()
    for path in sorted(place.glob("*.safetensors")):
        with path.open("rb") as file:
            digest.update(hashlib.file_digest(file, "sha256").digest())
    return digest.hexdigest()


def first_weights(recipe: Recipe) -> Transformer:
    """The parent's model in float32, with the context that the recipe has."""
    return hf.load(folder(recipe.parent), context_length=recipe.model.context_length)


def tokenizer_and_end(recipe: Recipe) -> tuple[JsonTokenizer, int]:
    """The parent's tokenizer, and the id that ends a text.

    Raises:
        ValueError: its files name no such id; what the readers refuse.
    """
    place = folder(recipe.parent)
    end_ids = hf.end_ids(place)
    if not end_ids:
        raise ValueError(
            f"{place} names no token that ends a text, and texts must have ends; write its id as "
            f"eos_token_id into {hf.GENERATION}"
        )
    return hf.load_tokenizer(place), end_ids[0]


def template_of(recipe: Recipe, tokenizer: JsonTokenizer) -> ChatTemplate:
    """The parent's own chat template, or the one that the data need (`minillm.tune.chat`).

    Raises:
        ValueError: the tokenizer lacks its special tokens.
    """
    own = chat_template.load(folder(recipe.parent), tokenizer)
    if own is not None:
        return own
    try:
        recipe.data.template.check(tokenizer)
    except ValueError as error:
        raise ValueError(
            f"{recipe.parent} has no chat_template.json of its own, and cannot have the usual one: "
            f"{error}. Take a parent whose recipe has them as special_tokens, such as town-base"
        ) from None
    return recipe.data.template


def save(model: Transformer, place: Path, recipe: Recipe) -> None:
    """Write the child as `hf.save` would, with its parent's tokenizer and, for chat, a template.

    Args:
        model: trained.
        place: folder to write.
        recipe: of the model, with a parent.

    Raises:
        ValueError: the folder is the parent's own; what `hf.save` refuses.
    """
    parent = folder(recipe.parent)
    if place.exists() and parent.samefile(place):
        raise ValueError(f"{place} holds the parent; name another folder with --out")
    tokenizer, end_id = tokenizer_and_end(recipe)
    hf.save(model, place)
    for name in (hf.TOKENIZER, hf.TOKENIZER_CONFIG, chat_template.FILE):
        if (parent / name).is_file():
            shutil.copyfile(parent / name, place / name)
    ids = {hf.CONFIG: end_id, hf.GENERATION: [*hf.end_ids(parent)]}
    if isinstance(recipe.data, Chats):
        template = template_of(recipe, tokenizer)
        save_template(place, template)
        # an answer's end ends a text too, for programs that read no template
        ids[hf.GENERATION] = [*dict.fromkeys([*ids[hf.GENERATION], *template.stop_ids(tokenizer)])]
    for name, end_ids in ids.items():
        content = read_object(place / name) | {"eos_token_id": end_ids}
        write_whole(place / name, json.dumps(content, indent=2) + "\n")
