"""The shipped models: small, trained by the course's own recipes, ready in an instant.

    model, tokenizer = load("town-1m")

Each stands in a folder of its own: weights in bfloat16 (cast to float32 when they are loaded),
tokenizer, `manifest.json` with all that decided the run, and `CARD.md`, which says what the model
has read, what it can do and what it cannot. `minillm train NAME` makes it again.

Chapter: app
"""

from pathlib import Path

from minillm.formats import hf, hf_mixtral
from minillm.formats.json_file import read_object
from minillm.formats.tokenizer_json import JsonTokenizer
from minillm.model.transformer import Transformer
from minillm.quant import store
from minillm.train import manifest

HERE = Path(__file__).parent


def names() -> list[str]:
    """What there is.

    Example:
        >>> names()
        ['agent-1m', 'chat-1m', 'steps-1m', 'tools-1m', 'town-1m', 'town-50k', 'town-base']
    """
    return sorted(path.parent.name for path in HERE.glob("*/config.json"))


def folder(name: str) -> Path:
    """Where a model stands, for those who want its files.

    Raises:
        ValueError: there is no such model; the message lists those there are.
    """
    if name not in names():
        raise ValueError(f"the zoo has no model {name!r}; it has {', '.join(names()) or 'none'}")
    return HERE / name


def load(name: str) -> tuple[Transformer, JsonTokenizer]:
    """The model, in float32, and its tokenizer.

    Raises:
        ValueError: there is no such model.
    """
    path = folder(name)
    return hf.load(path), hf.load_tokenizer(path)


def folder_of(place: Path) -> Path:
    """The folder of a shipped model, where `place` is its name; else `place` itself."""
    is_shipped = not place.exists() and str(place) in names()
    return folder(str(place)) if is_shipped else place


def open_model(place: Path) -> tuple[Transformer, JsonTokenizer, tuple[int, ...]]:
    """A model, its tokenizer, and the ids that end its texts (none if its files name none).

    Args:
        place: a folder of a family that is read here, or of a quantized model, or the name of a
            shipped model.

    Raises:
        ValueError: what the family's reader refuses, with the reason.
    """
    place = folder_of(place)
    if store.is_quantized(place):
        return store.load(place).model, hf.load_tokenizer(place), hf.end_ids(place)
    config = place / hf.CONFIG
    is_mixtral = config.is_file() and read_object(config).get("model_type") == "mixtral"
    family = hf_mixtral if is_mixtral else hf  # either says what is missing, if anything is
    return family.load(place), hf.load_tokenizer(place), hf.end_ids(place)


def prompt_ids(prompt: str, tokenizer: JsonTokenizer, *, special: bool = False) -> list[int]:
    """The ids of a text to write on after, with those that begin every text.

    Args:
        prompt: how the text begins.
        tokenizer: of the model.
        special: read special tokens that the prompt spells as such; otherwise they are refused,
            since whoever types one hardly means its letters.

    Raises:
        ValueError: there is no id, or a special token that was not to be read.
    """
    spelled = [token for token in tokenizer.special_ids if token in prompt]
    if spelled and not special:
        raise ValueError(
            f"the prompt spells {spelled[0]}, a special token of this model; say --special to have "
            "it read as that token, or take it out"
        )
    ids, begin_ids = tokenizer.encode(prompt, spelled), list(tokenizer.begin_ids)
    if not begin_ids or ids[: len(begin_ids)] != begin_ids:  # once is enough
        ids = begin_ids + ids
    if not ids:
        raise ValueError('the prompt is empty; write how the text begins, such as "Once"')
    return ids


def ids_without_token(
    model: Transformer, tokenizer: JsonTokenizer, stop_ids: tuple[int, ...]
) -> tuple[int, ...]:
    """The ids that a model must not write: its table may be padded to a round number of rows."""
    return tuple(sorted({*range(model.config.vocab_size)} - {*tokenizer.ids, *stop_ids}))


def card(name: str) -> str:
    """What the model has read, what it can do and what it cannot: Markdown."""
    return (folder(name) / "CARD.md").read_text(encoding="utf-8")


def described(name: str) -> manifest.Manifest:
    """How it was made."""
    return manifest.load(folder(name) / "manifest.json")
