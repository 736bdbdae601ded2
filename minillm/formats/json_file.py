"""JSON from outside: one object of reasonable size, and values of the kind that was expected.

Chapter: 04
"""

from collections.abc import Mapping
from os import PathLike
from pathlib import Path
from typing import Any

from minillm.lab.text_file import decode, parse_json

MAX_BYTES = 64 * 2**20
LARGEST = 1e12  # of numbers that are no counts


def read_object(path: str | PathLike, max_bytes: int = MAX_BYTES) -> dict[str, Any]:
    """Read a file that must hold one JSON object.

    Args:
        path: of the file.
        max_bytes: a larger file is refused before it is read.

    Raises:
        ValueError: there is no such file; it is larger, a pickle, no UTF-8 text, cut off, no JSON,
            JSON in which a name stands twice, or of another kind, such as a list.

    Example:
        >>> import tempfile
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     path = Path(folder, "config.json")
        ...     n_written = path.write_text('{"vocab_size": 50}', encoding="utf-8")
        ...     read_object(path)
        {'vocab_size': 50}
    """
    path = Path(path)
    if not path.is_file():
        raise ValueError(f"there is no file {path}")
    with open(path, "rb") as file:
        data = file.read(max_bytes + 1)
    if len(data) > max_bytes:
        raise ValueError(
            f"{path.name} is larger than {max_bytes:,} bytes, which no such file needs; is it "
            "another file under this name?"
        )
    if data[:1] == b"\x80" or data[:2] == b"PK":
        raise ValueError(
            f"{path.name} is a pickle, or an archive that holds one. Opening a pickle runs "
            "whatever it contains, so minillm never does; ask its author for the JSON file"
        )
    text = decode(data, path.name)
    try:
        content = parse_json(text)
    except ValueError as error:
        raise ValueError(
            f"{path.name} is not JSON in UTF-8, or is cut off ({error}); copy it again"
        ) from None
    if not isinstance(content, dict):
        raise ValueError(
            f"{path.name} must hold a JSON object, {{...}}; it holds a {type(content).__name__}"
        )
    return content


def count(
    content: Mapping[str, Any],
    key: str,
    default: int | None = None,
    *,
    least: int = 1,
    most: int = 2**31,
) -> int:
    """A whole number of an object; `default` where it says null or nothing.

    Raises:
        ValueError: it is another kind of value, or out of bounds; so may the default be.

    Example:
        >>> count({"n_layers": 2}, "n_layers"), count({}, "n_heads", 4)
        (2, 4)
    """
    value = default if content.get(key) is None else content[key]
    if isinstance(value, bool) or not isinstance(value, int) or not least <= value <= most:
        raise ValueError(f"{key} must be a whole number from {least} to {most:,}; got {value!r}")
    return value


def number(content: Mapping[str, Any], key: str, default: float | None = None) -> float:
    """A number above 0 of an object; `default` where it says null or nothing.

    Raises:
        ValueError: it is another kind of value, not above 0, or too large.

    Example:
        >>> number({"base": 500000}, "base")
        500000.0
    """
    value = default if content.get(key) is None else content[key]
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 < value <= LARGEST:
        raise ValueError(
            f"{key} must be a finite number above 0; got {value!r} (the largest is {LARGEST:g})"
        )
    return float(value)


def flag(content: Mapping[str, Any], key: str) -> bool:
    """Yes or no of an object; no where it says null or nothing.

    Raises:
        ValueError: it is another kind of value.

    Example:
        >>> flag({"tied": True}, "tied"), flag({}, "tied")
        (True, False)
    """
    value = False if content.get(key) is None else content[key]
    if not isinstance(value, bool):
        raise ValueError(f"{key} must be true or false; got {value!r}")
    return value
