"""Text from outside: any line ends, with or without a byte order mark, and what it may hold.

Editors and systems write one text in several forms. Those that mean the same are taken as they
come; another encoding is named, with how to save the file again. JSON in which a name stands twice
is refused, since readers disagree about which of the two counts.

Chapter: 00
"""

import codecs
import json
import os
import re
import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

#: What only Windows and some editors write at the beginning of a file.
MARKS = {
    codecs.BOM_UTF32_LE: "UTF-32",  # before UTF-16, whose mark it begins with
    codecs.BOM_UTF32_BE: "UTF-32",
    codecs.BOM_UTF16_LE: "UTF-16",
    codecs.BOM_UTF16_BE: "UTF-16",
}
SAVE_AGAIN = (
    "save it again as UTF-8 in your editor (Notepad: Save as, Encoding; VS Code: Save with "
    "Encoding)"
)


def read_text(path: str | os.PathLike) -> str:
    r"""The text of a file; lines end with `\n`, whatever the file has.

    Raises:
        ValueError: there is no such file; it cannot be read; what `decode` refuses.

    Example:
        >>> import tempfile
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     path = Path(folder, "a.txt")
        ...     n_bytes = path.write_bytes(b"\xef\xbb\xbfplum\r\npear")
        ...     read_text(path)
        'plum\npear'
    """
    path = Path(path)
    if not path.is_file():
        raise ValueError(f"there is no file {path} (looked for from {Path.cwd()})")
    try:
        return decode(path.read_bytes(), path)
    except OSError as error:
        raise ValueError(f"{path} cannot be read: {error.strerror}") from error


def decode(data: bytes, name: object) -> str:
    r"""Bytes from outside as text: without a byte order mark, lines ended by `\n`.

    Args:
        data: UTF-8.
        name: of the file, for messages.

    Raises:
        ValueError: another encoding, which is named; or no text at all.

    Example:
        >>> decode("plum\r\npear\r".encode("utf-8-sig"), "a.txt")
        'plum\npear\n'
        >>> decode("plum".encode("utf-16"), "a.txt")
        Traceback (most recent call last):
            ...
        ValueError: a.txt is UTF-16, not UTF-8; save it again as UTF-8 in your editor (Notepad: Save
            as, Encoding; VS Code: Save with Encoding)
    """
    if encoding := _wide(data):
        raise ValueError(f"{name} is {encoding}, not UTF-8; {SAVE_AGAIN}")
    if b"\0" in data:
        raise ValueError(
            f"{name} is binary: it has a zero byte at position {data.index(0):,}; name a text file"
        )
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        raise ValueError(
            f"{name} is not UTF-8: byte 0x{data[error.start]:02x} at position {error.start:,} "
            f"(line {line:,}), {error.reason}. {_narrow(data)}; {SAVE_AGAIN}"
        ) from None
    return text.replace("\r\n", "\n").replace("\r", "\n")


def _wide(data: bytes) -> str | None:
    """The encoding of two or four bytes a character that this seems to be."""
    for mark, encoding in MARKS.items():
        if data.startswith(mark):
            return encoding
    halves = [half for half in (data[0::2], data[1::2]) if half]
    shares = [half.count(0) / len(half) for half in halves]
    if len(shares) == 2 and abs(shares[0] - shares[1]) > 0.5:  # of each Latin letter, one byte is 0
        return "UTF-16 without its mark"
    return None


def _narrow(data: bytes) -> str:
    """What bytes that are not UTF-8 seem to be."""
    text = data.decode("utf-8", "replace")
    if sum(character > "\x7f" for character in text) > 2 * text.count("�"):
        return "The rest of it is, so it is damaged there"
    try:
        text = data.decode("gb18030")
    except UnicodeDecodeError:
        text = ""
    n_chinese = 2 * len(re.findall("[\u4e00-\u9fff]{2}", text))
    if 2 * n_chinese > sum(character > "\x7f" for character in text):
        return "It may be GB18030, as Chinese Windows has it"
    return "It may be Windows-1252, as Western Windows has it"


def parse_json(text: str) -> Any:
    """The value of a JSON text.

    Raises:
        ValueError: it is no JSON; a name stands twice in one object.

    Example:
        >>> parse_json('{"model": {"vocab": {"a": 1, "a": 2}}}')
        Traceback (most recent call last):
            ...
        ValueError: the name 'model.vocab.a' stands twice in one object; keep one of them
    """
    doubled: list[tuple[dict[str, Any], str]] = []

    def of_pairs(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        content, seen = dict(pairs), set()
        if len(content) < len(pairs):
            twice = next(name for name, _ in pairs if name in seen or seen.add(name))
            doubled.append((content, twice))
        return content

    try:
        content = json.loads(text, object_pairs_hook=of_pairs)
    except RecursionError:
        raise ValueError("it is nested too deeply") from None
    if doubled:  # the last one stands in no other: objects come after what is in them
        place = _place(content, *doubled[-1])
        raise ValueError(f"the name {place!r} stands twice in one object; keep one of them")
    return content


def _place(content: Any, wanted: dict[str, Any], name: str) -> str:
    """The path of keys to a name of an object that stands somewhere inside."""
    left = [("", content)]
    while left:
        path, value = left.pop()
        if value is wanted:
            return path + name
        parts = value.items() if isinstance(value, dict) else enumerate(value)
        left += [(f"{path}{key}.", part) for key, part in parts if isinstance(part, dict | list)]
    return name


def read_toml(path: str | os.PathLike) -> dict[str, Any]:
    """The content of a TOML file.

    Raises:
        ValueError: what `read_text` refuses; it is no TOML. The message names the file, and says
            how to write a path of Windows.
    """
    text = read_text(path)
    try:
        return tomllib.loads(text)
    except (ValueError, RecursionError) as error:
        reason = str(error) if isinstance(error, ValueError) else "it is nested too deeply"
        raise ValueError(f"{path} is no TOML: {reason}{_about_backslashes(text, reason)}") from None


def read_tables(
    path: str | os.PathLike, name: str, kinds: Mapping[str, type]
) -> list[dict[str, Any]]:
    """The tables of one name, [[name]], in a TOML file.

    Args:
        path: of the file.
        name: of the tables; there may be none.
        kinds: of their values: str, int, list (of texts) or dict (of such lists). Other keys are
            the caller's matter.

    Raises:
        ValueError: what `read_toml` refuses; no tables, or a value of another kind.
    """
    tables = read_toml(path).get(name, [])
    if not isinstance(tables, list) or not all(isinstance(table, dict) for table in tables):
        raise ValueError(f"{path} must have tables [[{name}]]; {name} is {tables!r}")
    for table in tables:
        for key, value in table.items():
            if key in kinds and not _is_kind(value, kinds[key]):
                texts = " of texts" if kinds[key] in (list, dict) else ""
                raise ValueError(
                    f"{path}: {key} in a [[{name}]] must be a {kinds[key].__name__}{texts}; got "
                    f"{value!r}"
                )
    return tables


def _is_kind(value: Any, kind: type) -> bool:
    if type(value) is not kind:
        return False
    if kind is dict:
        return all(_is_kind(each, list) for each in value.values())
    return kind is not list or all(isinstance(text, str) for text in value)


def _about_backslashes(text: str, reason: str) -> str:
    place, lines = re.search(r"at line (\d+)", reason), text.rstrip().split("\n")
    line = lines[int(place[1]) - 1] if place else lines[-1]
    if "\\" not in line:
        return ""
    return (
        ". Between double quotes a backslash begins a special character; write a path with forward "
        "slashes, \"C:/Users/mei/a.txt\", or between single quotes, 'C:\\Users\\mei\\a.txt'"
    )
