"""Values of a TOML or JSON table as the fields of a dataclass, each checked.

    [training]            make(Training, {"n_steps": 50}, "training")
    n_steps = 50          → Training(n_steps=50)

A key that nobody asked for is an error, and so is a value of another type: what a person wrote
and the program passed over would be the worst of both.

Chapter: app
"""

from collections.abc import Iterable
from dataclasses import fields
from typing import Any

#: Keys of recipes from before the names were the field's, and what they are called now.
RENAMED = {
    "context_tokens": "context_length",
    "n_batches": "accumulation_steps",
    "n_rows": "batch_size",
    "n_vocab": "vocab_size",
    "silent_start": "zero_residual_projections",
    "width": "d_model",
}
MOST = 2**31  # no number in a recipe is larger


def make(maker: Any, values: Any, table: str) -> Any:
    """A dataclass with these values.

    Args:
        maker: the dataclass.
        values: by the names of its fields; lists become tuples.
        table: what the file calls it; "" for the file itself.

    Raises:
        ValueError: no table, a key that it does not have, a value of another type, one missing.

    Example:
        >>> from minillm.recipes.data import TextData
        >>> make(TextData, {"files": ["a.txt"]}, "data").files
        ('a.txt',)
    """
    check_table(values, table)
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


def check_table(values: Any, table: str) -> None:
    """Refuse what is no table.

    Raises:
        ValueError: with its name.
    """
    if not isinstance(values, dict):
        raise ValueError(f"[{table}] must be a table of names and values; got {values!r}")


def plain(value: Any) -> Any:
    """Tuples as lists, as JSON has them, in tables too.

    Example:
        >>> plain({"files": ("a.txt", "b.txt")})
        {'files': ['a.txt', 'b.txt']}
    """
    if isinstance(value, dict):
        return {key: plain(each) for key, each in value.items()}
    return [plain(each) for each in value] if isinstance(value, tuple) else value


def renamed(keys: Iterable[str]) -> str:
    """What the former ones among these keys are called now, as the end of a message.

    Example:
        >>> renamed(["n_rows", "seed", "width"])
        '. Names that have changed: n_rows is batch_size now, width is d_model now'
    """
    changes = [f"{key} is {RENAMED[key]} now" for key in keys if key in RENAMED]
    return f". Names that have changed: {', '.join(changes)}" if changes else ""


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
