"""Recipes: everything that decides how a model comes out, as values and as a TOML file.

    name = "mine"                     seed = 0
    threads = 1                       more only for a machine that does nothing else

    [data]                            what it reads: kind = "town", "life", "text"; and, with a
    kind = "text"                     parent, "chat", "requests", "steps", "tools"
    files = ["letters.txt"]

    [model]                           its shape
    vocab_size = 1024
    d_model = 128

    [training]                        how it is stepped through
    n_steps = 2000

What a file leaves out has the value written here; what it says and nobody asked for is an error.

With parent = "town-base", or a folder, a model is made from a model: it begins with the parent's
weights, and has its tokenizer and shape (`minillm.recipes.parent`).

Chapter: app
"""

import os
from dataclasses import asdict, dataclass, field, fields, replace
from importlib import import_module
from pathlib import Path
from typing import Any, final, get_args

from minillm.lab.text_file import read_toml
from minillm.model.attention import AttentionConfig
from minillm.model.config import TransformerConfig
from minillm.model.ffn import MLPConfig, SwiGLUConfig
from minillm.optim.schedule import Cosine, Schedule, WarmupStableDecay
from minillm.recipes.chat_data import ChatData, Chats
from minillm.recipes.data import LifeData, TextData, TownData
from minillm.recipes.plain_values import check_table, make, plain
from minillm.train.autocast import PRECISIONS
from minillm.train.loop import LoopConfig

MOST_THREADS = 256
MOST_LAYERS = 1_000
Data = TownData | LifeData | TextData | Chats


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
        model: its shape; None for that of the parent, or for the usual one.
        training: how.
        parent: the model that it is made from, by the name of a shipped one or a folder; None for
            random first weights.
        parent_sha256: of the parent's weights (`minillm.recipes.parent.weights_sha256`); with it,
            another parent is refused. A manifest always has it.
        special_tokens: beside the end of a document, for a model that is made from this one. No
            text holds them, so their rows of the table are there and mean nothing yet.
        threads: with which torch computes, unless OMP_NUM_THREADS says otherwise.

    Raises:
        ValueError: a name that is no plain folder name; special tokens beside a parent, whose
            tokenizer it has; conversations without a parent; what the parts refuse.
    """

    name: str
    seed: int = 0
    data: Data = field(default_factory=TownData)
    model: ModelShape | None = None
    training: Training = field(default_factory=Training)
    parent: str | None = None
    parent_sha256: str | None = None
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
        if self.parent is None:
            self._check_without_parent()
            if self.model is None:
                object.__setattr__(self, "model", ModelShape())
        elif self.special_tokens:
            raise ValueError(
                "a model that is made from another takes over its tokenizer; leave out "
                f"special_tokens, which are {', '.join(self.special_tokens)}"
            )
        if self.model is not None:
            self.model.config()  # says what is wrong with the shape

    def _check_without_parent(self) -> None:
        if isinstance(self.data, Chats):
            raise ValueError(
                f'data of kind "{self.data.kind}" are conversations, from which a model that can '
                'write already learns to answer; name it, as in parent = "town-base"'
            )
        if self.parent_sha256 is not None:
            raise ValueError("parent_sha256 is of a parent's weights; name the parent too")

    def as_dict(self) -> dict[str, Any]:
        """Plain values, as a manifest keeps them; `of` reads them back.

        Threads are not among them: they belong to the machine, which a manifest has beside them.
        Nor are a precision of fp32, a d_ff that is not chosen, special tokens and a parent that are
        not there: manifests from before there was a choice do not name them.
        """
        content = asdict(self)
        del content["threads"]
        for key in ("parent", "parent_sha256", "model"):
            if content[key] is None:
                del content[key]
        if self.training.precision == "fp32":
            del content["training"]["precision"]
        if self.model is not None and self.model.d_ff is None:
            del content["model"]["d_ff"]
        if not self.special_tokens:
            del content["special_tokens"]
        content["data"] = {"kind": self.data.kind, **content["data"]}
        return plain(content)


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
    parts = {
        "data": _data,
        "model": lambda values: _shape(values, content.get("parent")),
        "training": lambda values: make(Training, values, "training"),
    }
    values = {key: parts[key](value) if key in parts else value for key, value in content.items()}
    return make(Recipe, values, "")


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
    if isinstance(recipe.data, ChatData):
        return replace(recipe, data=replace(recipe.data, files=(str(file),)))
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


# --- parts ---------------------------------------------------------------------------------------
def _data(values: Any) -> Data:
    check_table(values, "data")
    kinds = {each.kind: each for each in get_args(Data)}
    values = dict(values)
    kind = values.pop("kind", "town")
    if kind not in kinds:
        raise ValueError(f"data.kind must be one of {', '.join(kinds)}; got {kind!r}")
    return make(kinds[kind], values, "data")


def _shape(values: Any, parent: Any) -> ModelShape:
    """What a child does not say of its shape is its parent's."""
    shape = make(ModelShape, values, "model")
    if not isinstance(parent, str) or values.keys() >= {each.name for each in fields(ModelShape)}:
        return shape
    from minillm.recipes.parent import shape_of

    return replace(shape_of(parent), **values)


def _at_least(names: str, least: int, *values: int) -> None:
    if any(value < least for value in values):
        raise ValueError(f"{names} must be at least {least}; got {', '.join(map(str, values))}")
