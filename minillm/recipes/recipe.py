"""Recipes: everything that decides how a model comes out, as values and as a TOML file.

    name = "mine"                     seed = 0
    threads = 1                       more only for a machine that does nothing else

    [data]                            what it reads: kind = "town", "life" or "text"
    kind = "text"
    files = ["letters.txt"]

    [model]                           its shape
    vocab_size = 1024
    d_model = 128

    [training]                        how it is stepped through
    n_steps = 2000

What a file leaves out has the value written here; what it says and nobody asked for is an error.

Chapter: app
"""

import os
from collections.abc import Iterable
from dataclasses import asdict, dataclass, field, fields, replace
from importlib import import_module
from pathlib import Path
from typing import Any, final

from minillm.lab.text_file import read_toml
from minillm.model.attention import AttentionConfig
from minillm.model.config import TransformerConfig
from minillm.model.ffn import MLPConfig, SwiGLUConfig
from minillm.optim.schedule import Cosine, Schedule, WarmupStableDecay
from minillm.recipes.data import LifeData, TextData, TownData
from minillm.train.autocast import PRECISIONS
from minillm.train.loop import LoopConfig

#: Keys of recipes from before the names were the field's, and what they are called now.
RENAMED = {
    "context_tokens": "context_length",
    "n_batches": "accumulation_steps",
    "n_rows": "batch_size",
    "n_vocab": "vocab_size",
    "silent_start": "zero_residual_projections",
    "width": "d_model",
}
MOST_THREADS = 256
MOST_LAYERS = 1_000
MOST = 2**31  # no number in a recipe is larger


@final
@dataclass(frozen=True, kw_only=True)
class ModelShape:
    """The numbers of a dense model, by chapter 04's names.

    Args:
        vocab_size, context_length, width, n_layers, n_heads, n_kv_heads, qk_norm, tied_embeddings,
            initial_std: see `TransformerConfig` and `AttentionConfig`.
        feed_forward: "swiglu", or the activation of a plain one: "gelu", "relu", "relu2".
        d_ff: of the feed-forward; None for the one that `minillm.model.ffn` takes for this d_model.
        zero_residual_projections: matrices that write into the stream begin at zero, so that every
            block adds nothing at first.
    """

    vocab_size: int = 1024
    context_length: int = 128
    d_model: int = 128
    n_layers: int = 4
    n_heads: int = 4
    n_kv_heads: int | None = None
    qk_norm: bool = False
    feed_forward: str = "swiglu"
    d_ff: int | None = None
    tied_embeddings: bool = True
    initial_std: float = 0.02
    zero_residual_projections: bool = False

    def __post_init__(self):
        if self.n_layers > MOST_LAYERS:
            raise ValueError(f"n_layers must be at most {MOST_LAYERS:,}; got {self.n_layers:,}")

    def config(self) -> TransformerConfig:
        """What `minillm.model.config` makes of it."""
        return TransformerConfig(
            vocab_size=self.vocab_size,
            context_length=self.context_length,
            d_model=self.d_model,
            n_layers=self.n_layers,
            mixer=AttentionConfig(
                n_heads=self.n_heads, n_kv_heads=self.n_kv_heads, qk_norm=self.qk_norm
            ),
            ffn=SwiGLUConfig(d_ff=self.d_ff)
            if self.feed_forward == "swiglu"
            else MLPConfig(activation=self.feed_forward, d_ff=self.d_ff),
            tied_embeddings=self.tied_embeddings,
            initial_std=self.initial_std,
        )


@final
@dataclass(frozen=True, kw_only=True)
class Training:
    """How the weights are moved.

    Args:
        optimizer: "adamw", or "muon" for the matrices of the blocks and AdamW for the rest
            (chapter 06).
        n_steps: in all.
        batch_size: of `context_length` tokens each, a batch.
        accumulation_steps: a step.
        precision: "fp32", or "bf16" for products of matrices in bfloat16, on one process or with
            whole models (chapter 18); `minillm doctor` says whether this machine gains.
        learning_rate: AdamW's, at its highest.
        matrix_rate: Muon's, at its highest.
        warmup_steps: until they are reached.
        decay_steps: of a straight way down at the end; None for half a cosine from the warm-up on.
        weight_decay: of matrices only.
        clip_norm: greatest length of the gradient.
        evaluate_every: steps.
        save_every: steps.
    """

    n_steps: int = 1000
    batch_size: int = 16
    accumulation_steps: int = 1
    precision: str = "fp32"
    optimizer: str = "adamw"
    learning_rate: float = 3e-3
    matrix_rate: float = 0.02
    warmup_steps: int = 100
    decay_steps: int | None = None
    weight_decay: float = 0.1
    clip_norm: float = 1.0
    evaluate_every: int = 200
    save_every: int = 200

    def __post_init__(self):
        _at_least("evaluate_every and save_every", 1, self.evaluate_every, self.save_every)
        if self.precision not in PRECISIONS:
            raise ValueError(
                f"precision must be one of {', '.join(PRECISIONS)}; got {self.precision!r}"
            )
        if self.optimizer not in ("adamw", "muon"):
            raise ValueError(f'optimizer must be "adamw" or "muon"; got {self.optimizer!r}')
        if not (self.learning_rate > 0 and self.matrix_rate > 0) or self.weight_decay < 0:
            raise ValueError(
                "learning_rate and matrix_rate must be above 0 and weight_decay at least 0; got "
                f"{self.learning_rate}, {self.matrix_rate} and {self.weight_decay}"
            )
        self.schedule()  # says what is wrong with the steps

    def loop(self) -> LoopConfig:
        """What the training loop is told."""
        return LoopConfig(
            n_steps=self.n_steps,
            schedule=self.schedule(),
            accumulation_steps=self.accumulation_steps,
            clip_norm=self.clip_norm,
            evaluate_every=self.evaluate_every,
        )

    def schedule(self) -> Schedule:
        """Of the learning rates."""
        if self.decay_steps is None:
            return Cosine(n_steps=self.n_steps, warmup_steps=self.warmup_steps)
        return WarmupStableDecay(
            n_steps=self.n_steps, warmup_steps=self.warmup_steps, decay_steps=self.decay_steps
        )


@final
@dataclass(frozen=True, kw_only=True)
class Recipe:
    """A model that can be made again.

    Args:
        name: of its folder.
        seed: of the first weights and of the order of the data.
        data: what it reads.
        model: its shape.
        training: how.
        special_tokens: beside the end of a document, for a model that is made from this one. No
            text holds them, so their rows of the table are there and mean nothing yet.
        threads: with which torch computes, unless OMP_NUM_THREADS says otherwise.

    Raises:
        ValueError: a name that is no plain folder name; what the parts refuse.
    """

    name: str
    seed: int = 0
    data: TownData | LifeData | TextData = field(default_factory=TownData)
    model: ModelShape = field(default_factory=ModelShape)
    training: Training = field(default_factory=Training)
    special_tokens: tuple[str, ...] = ()
    threads: int = 1

    def __post_init__(self):
        plain = self.name.replace("-", "").replace("_", "").isalnum()
        if not plain or not self.name.isascii():
            raise ValueError(
                "a recipe's name becomes a folder: letters, digits, - and _ only; got "
                f"{self.name!r}"
            )
        if self.seed < 0:
            raise ValueError(f"seed must be at least 0; got {self.seed}")
        if not 1 <= self.threads <= MOST_THREADS:
            raise ValueError(f"threads must be from 1 to {MOST_THREADS}; got {self.threads}")
        self.model.config()  # says what is wrong with the shape

    def as_dict(self) -> dict[str, Any]:
        """Plain values, as a manifest keeps them; `of` reads them back.

        Threads are not among them: they belong to the machine, which a manifest has beside them.
        Nor are a precision of fp32, a d_ff that is not chosen and special tokens that are not
        there: manifests from before there was a choice do not name them.
        """
        content = asdict(self)
        del content["threads"]
        if self.training.precision == "fp32":
            del content["training"]["precision"]
        if self.model.d_ff is None:
            del content["model"]["d_ff"]
        if not self.special_tokens:
            del content["special_tokens"]
        content["data"] = {"kind": self.data.kind, **content["data"]}
        return _plain(content)


def of(content: dict[str, Any]) -> Recipe:
    """The recipe of a table such as TOML or JSON gives.

    Raises:
        ValueError: a key that a recipe does not have, a value of another type, a missing name.

    Example:
        >>> of({"name": "mine", "training": {"n_steps": 50, "warmup_steps": 5}}).training.n_steps
        50
        >>> of(Recipe(name="mine").as_dict()) == Recipe(name="mine")
        True
    """
    parts = {"data": _data, "model": ModelShape, "training": Training}
    values = {
        key: _made(parts[key], value, key) if key in parts else value
        for key, value in content.items()
    }
    return _made(Recipe, values, "")


def find(name: str) -> Recipe:
    """The recipe of that name, or in that TOML file.

    Raises:
        ValueError: there is none; the message lists those there are.
    """
    if name.endswith(".toml"):
        return load(name)
    here = Path(__file__).parent
    known = sorted(
        path.stem.replace("_", "-")
        for path in here.glob("*.py")
        if "\nRECIPE = " in path.read_text(encoding="utf-8")
    )
    if name not in known:
        raise ValueError(
            f"there is no recipe {name!r}; there are {', '.join(known)}. A file's name must end "
            "in .toml"
        )
    return import_module(f"minillm.recipes.{name.replace('-', '_')}").RECIPE


def shortened(recipe: Recipe, n_steps: int) -> Recipe:
    """The same with another number of steps, and a way up and down that fit.

    Example:
        >>> shortened(Recipe(name="mine"), 50).training.warmup_steps
        5
    """
    how = recipe.training
    warmup_steps = min(how.warmup_steps, n_steps // 10)
    changed = {"n_steps": n_steps, "warmup_steps": warmup_steps}
    if how.decay_steps is not None:
        decay_steps = max(1, how.decay_steps * n_steps // how.n_steps)
        changed["decay_steps"] = min(decay_steps, n_steps - warmup_steps)
    return replace(recipe, training=replace(how, **changed))


def reading(recipe: Recipe, file: str | os.PathLike) -> Recipe:
    """The same with another file to read, cut into documents as before.

    Raises:
        ValueError: a recipe that reads no text.
    """
    if not isinstance(recipe.data, TextData):
        raise ValueError(
            f"{recipe.name} reads no text file; its data are of kind {recipe.data.kind}"
        )
    return replace(recipe, data=replace(recipe.data, files=(str(file),), url=None, sha256=None))


def load(path: str | os.PathLike) -> Recipe:
    """The recipe in a TOML file.

    Raises:
        ValueError: no such file, no TOML; what `of` refuses. The message names the file.
    """
    content = read_toml(path)
    try:
        return of(content)
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from None


def renamed(keys: Iterable[str]) -> str:
    """What the former ones among these keys are called now, as the end of a message.

    Example:
        >>> renamed(["n_rows", "seed", "width"])
        '. Names that have changed: n_rows is batch_size now, width is d_model now'
    """
    changes = [f"{key} is {RENAMED[key]} now" for key in keys if key in RENAMED]
    return f". Names that have changed: {', '.join(changes)}" if changes else ""


# --- from plain values --------------------------------------------------------------------------
def _data(**values: Any) -> TownData | LifeData | TextData:
    kinds = {each.kind: each for each in (TownData, LifeData, TextData)}
    kind = values.pop("kind", "town")
    if kind not in kinds:
        raise ValueError(f"data.kind must be one of {', '.join(kinds)}; got {kind!r}")
    return _made(kinds[kind], values, "data")


def _made(maker: Any, values: Any, table: str) -> Any:
    if not isinstance(values, dict):
        raise ValueError(f"[{table}] must be a table of names and values; got {values!r}")
    if maker is _data:
        return maker(**values)
    known = {each.name: each for each in fields(maker)}
    if unknown := sorted(values.keys() - known.keys()):
        where = f"[{table}]" if table else "a recipe"
        raise ValueError(
            f"{where} has no key {', '.join(unknown)}; there are {', '.join(known)}"
            f"{renamed(unknown)}"
        )
    for name, value in values.items():
        _check_type(f"{table}.{name}" if table else name, value, known[name].type)
    values = {
        name: tuple(value) if isinstance(value, list) else value for name, value in values.items()
    }
    try:
        return maker(**values)
    except TypeError as error:  # what has no value of its own was left out
        missing = str(error).rpartition(": ")[2]
        raise ValueError(f"{f'[{table}]' if table else 'a recipe'} needs {missing}") from None


def _check_type(name: str, value: Any, wanted: Any) -> None:
    if isinstance(value, int | float) and not abs(value) <= MOST:  # nor NaN
        raise ValueError(f"{name} must be a finite number of at most {MOST:,}; got {value!r}")
    if wanted is float and isinstance(value, int) and not isinstance(value, bool):
        return
    if wanted == tuple[str, ...]:
        if not isinstance(value, list | tuple) or not all(isinstance(x, str) for x in value):
            raise ValueError(f'{name} must be a list of texts, such as ["a.txt"]; got {value!r}')
        return
    kinds = {bool: "true or false", int: "a whole number", float: "a number", str: "a text"}
    for kind, words in kinds.items():
        optional = wanted == kind | None
        if wanted is not kind and not optional:
            continue
        if optional and value is None:
            return
        if not isinstance(value, kind) or (isinstance(value, bool) and kind is not bool):
            raise ValueError(f"{name} must be {words}; got {value!r}")


def _plain(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _plain(each) for key, each in value.items()}
    return [_plain(each) for each in value] if isinstance(value, tuple) else value


def _at_least(names: str, least: int, *values: int) -> None:
    if any(value < least for value in values):
        raise ValueError(f"{names} must be at least {least}; got {', '.join(map(str, values))}")
