"""`minillm bench corrupt`: every kind of file that is read, damaged in many ways.

A good file of each kind is written, damaged, and read by what the product reads it with. Then it is

- *same*: read as if nothing had happened (a mark, line ends, a key that says nothing);
- *refused*: a ValueError or OSError whose message names the file;
- *other value*: still a file of its kind, which plainly says another value of the same type where
  nothing seals it (`Kind.free`: letters of a text, a weight, a learning rate); nobody could know;
- *silent*: taken for something else than it says, or than it said. Bad;
- *crashed*: another error, or one that does not name the file. Bad;
- *lost*: the file or a neighbour changed by being read. Bad.

Sealed, so that every damage is refused: a checkpoint, both of its files, and a download. A value
that is huge or of another type, a name that stands twice and another encoding may be "same" or
"refused", never "other value", but where any JSON (`Kind.open`), any number (`Kind.unbounded`) or
a number or null (`Kind.optional`) may stand.

Chapter: app
"""

import json
import random
import re
import shutil
import struct
import tempfile
import tomllib
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from fnmatch import fnmatch
from pathlib import Path
from typing import Any, final

from minillm.bench import _file_kinds
from minillm.bench._file_kinds import Kind

VERDICTS = ("same", "refused", "other value", "silent", "crashed", "lost")
BAD = ("silent", "crashed", "lost")
HUGE = ("1" + "0" * 30, "-1" + "0" * 30, "1e400", "9" * 5000)
OTHERS = ('"plum"', "7", "-1", "0.5", "true", "null", "[]", "{}", '["plum"]', '{"plum": 7}')
TOML_OTHERS = ('"plum"', "7", "-1", "0.5", "true", "nan", "[]", "{}", '["plum"]', "{plum = 7}")
TOML_VALUE = re.compile(r"^(\w+ *= *)([^\s\[{\"].*|\"[^\"]*\"|\[.*\]|\{.*\})$", re.MULTILINE)


# --- damages ------------------------------------------------------------------------------------
def cut(data: bytes, form: str, chance: random.Random) -> bytes:
    """The beginning of a file."""
    return data[: chance.randrange(len(data))]


def flip(data: bytes, form: str, chance: random.Random) -> bytes:
    """One to three bits are others."""
    damaged = bytearray(data)
    for _ in range(chance.randint(1, 3)):
        damaged[chance.randrange(len(data))] ^= 1 << chance.randrange(8)
    return bytes(damaged)


def swap(data: bytes, form: str, chance: random.Random) -> bytes:
    """Two parts of one length change places."""
    length = chance.randint(1, max(1, len(data) // 8))
    first = chance.randrange(max(1, len(data) - 2 * length))
    second = chance.randint(first + length, max(first + length, len(data) - length))
    one, two = data[first : first + length], data[second : second + length]
    return data[:first] + two + data[first + length : second] + one + data[second + length :]


def encode(data: bytes, form: str, chance: random.Random) -> bytes:
    """The same text in the form of another editor; other bytes cannot be."""
    if form in ("safetensors", "bytes"):
        return b"\xef\xbb\xbf" + data
    text, encoding = data.decode("utf-8"), chance.choice(ENCODINGS)
    if encoding == "crlf":
        return data.replace(b"\n", b"\r\n")
    return text.encode(encoding, "replace")


ENCODINGS = ("utf-8-sig", "crlf", "utf-16", "utf-16-le", "utf-32", "gb18030")


def huge(data: bytes, form: str, chance: random.Random) -> bytes:
    """A number is far too large."""
    return _replaced(data, form, chance, HUGE, numbers=True)


def retype(data: bytes, form: str, chance: random.Random) -> bytes:
    """A value is of another type."""
    return _replaced(data, form, chance, TOML_OTHERS if form == "toml" else OTHERS)


def double(data: bytes, form: str, chance: random.Random) -> bytes:
    """A name stands twice, with two values."""
    if form == "toml":
        line = chance.choice([*TOML_VALUE.finditer(data.decode())])
        again = f"\n{line[1]}{chance.choice(TOML_OTHERS)}"
        return (data.decode()[: line.end()] + again + data.decode()[line.end() :]).encode()

    def with_two(text: str) -> str:
        key = chance.choice([*re.finditer(r'"(?:[^"\\]|\\.)*"(?=\s*:)', text)])
        return f"{text[: key.start()]}{key[0]}: {chance.choice(OTHERS)}, {text[key.start() :]}"

    return _in_json(data, form, with_two)


def mistype(data: bytes, form: str, chance: random.Random) -> bytes:
    """One letter or digit is another, as nobody would notice."""
    place = chance.choice([n for n, byte in enumerate(data) if chr(byte) in LETTERS + DIGITS])
    alike = DIGITS if chr(data[place]) in DIGITS else LETTERS
    other = chance.choice(alike.replace(chr(data[place]), ""))
    return data[:place] + other.encode() + data[place + 1 :]


LETTERS, DIGITS = "abcdefghijklmnopqrstuvwxyz", "0123456789"


def _replaced(
    data: bytes, form: str, chance: random.Random, values: tuple[str, ...], numbers: bool = False
) -> bytes:
    """A file in which one value is another: a number a huge one, or any one of another type."""
    if form == "toml":
        text = data.decode()
        lines = [m for m in TOML_VALUE.finditer(text) if not numbers or m[2][0] in "-.0123456789"]
        line = chance.choice(lines or [*TOML_VALUE.finditer(text)])
        old = tomllib.loads(f"x = {line[2]}")["x"]
        others = [v for v in values if numbers or not _alike(tomllib.loads(f"x = {v}")["x"], old)]
        return (text[: line.start(2)] + chance.choice(others) + text[line.end(2) :]).encode()

    def with_another(text: str) -> str:
        content, mark = json.loads(text), "\ue000"
        places = [place for place in _places(content) if not numbers or _is_number(place)]
        holder, key = chance.choice(places or [*_places(content)])
        others = [v for v in values if numbers or not _alike(json.loads(v), holder[key])]
        holder[key] = mark
        return json.dumps(content, ensure_ascii=False).replace(f'"{mark}"', chance.choice(others))

    return _in_json(data, form, with_another)


def _in_json(data: bytes, form: str, change: Callable[[str], str]) -> bytes:
    if form == "json":
        return change(data.decode("utf-8")).encode()
    (length,) = struct.unpack("<Q", data[:8])
    header = change(data[8 : 8 + length].decode()).encode()
    return struct.pack("<Q", len(header)) + header + data[8 + length :]


def _places(content: Any) -> list[tuple[Any, Any]]:
    """Every value inside, as what holds it and under which key."""
    keys = content if isinstance(content, dict) else range(len(content))
    inner = [content[key] for key in keys if isinstance(content[key], dict | list)]
    return [(content, key) for key in keys] + [place for each in inner for place in _places(each)]


def _alike(one: Any, other: Any) -> bool:
    """Whether two values are of one type; whole numbers are numbers."""
    numbers = {type(one), type(other)} <= {int, float}
    return numbers or type(one) is type(other)


def _is_number(place: tuple[Any, Any]) -> bool:
    return type(place[0][place[1]]) in (int, float)


ANY = (cut, flip, swap, mistype, encode)
DAMAGES = {
    "text": ANY,
    "bytes": ANY,
    **dict.fromkeys(("json", "toml", "safetensors"), (*ANY, huge, retype, double)),
}


# --- verdicts -----------------------------------------------------------------------------------
def leaves(data: bytes, form: str) -> dict[str, Any] | None:
    """What a file says by another reader, value by value; None if it is none of its kind."""
    try:
        match form:
            case "text":
                return {"text": data.decode("utf-8")}
            case "bytes":
                return {"bytes": data}
            case "toml":
                return dict(_flat("", tomllib.loads(data.decode("utf-8"))))
            case "json":
                return dict(_flat("", json.loads(data.decode("utf-8"))))
        (length,) = struct.unpack("<Q", data[:8])
        header = json.loads(data[8 : 8 + length].decode())
        return {**dict(_flat("", header)), "numbers": data[8 + length :]}
    except (ValueError, struct.error, RecursionError):
        return None


def _flat(path: str, value: Any) -> list[tuple[str, Any]]:
    if not isinstance(value, dict | list) or not value:
        return [(path, value)]
    parts = value.items() if isinstance(value, dict) else enumerate(value)
    return [leaf for key, part in parts for leaf in _flat(f"{path}.{key}".lstrip("."), part)]


def may_differ(kind: Kind, damage: Callable, before: bytes, after: bytes) -> bool:
    """Whether the damaged file plainly says another value where nothing seals it."""
    old, new = leaves(before, kind.form), leaves(after, kind.form)
    changed = [
        key
        for key in {*(old or ())} | {*(new or ())}
        if new and old.get(key, old) != new.get(key, new)
    ]
    free = {huge: kind.unbounded, retype: (), double: (), encode: ()}.get(damage, kind.free)

    def allowed(key: str) -> bool:
        alike = key not in old or key not in new or _alike(old[key], new[key])
        open_ = any(fnmatch(key, pattern) for pattern in kind.open)
        if any(fnmatch(key, pattern) for pattern in kind.optional):
            open_ = {type(old.get(key)), type(new.get(key))} <= {int, float, type(None)}
        return open_ or (alike and any(fnmatch(key, pattern) for pattern in free))

    return bool(changed) and all(map(allowed, changed))


@final
@dataclass(frozen=True)
class Try:
    """One damaged file: of which kind, how it was damaged, what came of it, in which words."""

    kind: str
    damage: str
    verdict: str
    words: str


def attempt(
    kind: Kind, whole: Path, meaning: Any, damage: Callable, seed: str, folder: Path
) -> Try:
    """Damage a copy of a good folder, and read it.

    Args:
        kind: of file.
        whole: the good folder.
        meaning: what it means.
        damage: one of `DAMAGES`.
        seed: of all chance in it.
        folder: for the copy; it must not exist.
    """
    shutil.copytree(whole, folder)
    path = folder / kind.file
    before = path.read_bytes()
    after = damage(before, kind.form, random.Random(seed))
    path.write_bytes(after)
    there, words = _contents(folder), ""
    try:
        same = kind.read(folder) == meaning
        verdict = "same" if same else "silent"
        if not same and may_differ(kind, damage, before, after):
            verdict = "other value"
    except (KeyboardInterrupt, SystemExit):
        raise
    except BaseException as error:  # a panic of Rust is no Exception
        words = f"{type(error).__name__}: {error}"
        named = isinstance(error, ValueError | OSError) and path.name in str(error)
        verdict = "refused" if named else "crashed"
    if _contents(folder) != there:
        verdict = "lost"
    shutil.rmtree(folder)
    return Try(kind.name, damage.__name__, verdict, words)


def _contents(folder: Path) -> dict[Path, bytes]:
    return {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}


# --- the run ------------------------------------------------------------------------------------
def run(quick: bool = False, seed: int = 0) -> dict[str, dict[str, int]]:
    """Damage files of every kind, print the table, and return it.

    Args:
        quick: 20 of a kind instead of 200.
        seed: of all chance.

    Returns:
        For each kind how many came out in which way.

    Raises:
        ValueError: a file was taken for something else, crashed its reader, or was lost; after the
            table, with the first words of each.
    """
    n_tries, tries = 20 if quick else 200, []
    for kind in _file_kinds.kinds():
        with tempfile.TemporaryDirectory() as folder:
            whole = Path(folder, "whole")
            whole.mkdir()
            kind.make(whole)
            meaning, damages = kind.read(whole), DAMAGES[kind.form]
            for number in range(n_tries):
                damage = damages[number % len(damages)]
                words = f"{seed} {kind.name} {number}"
                copy = Path(folder, str(number))
                tries.append(attempt(kind, whole, meaning, damage, words, copy))
    table = {
        name: Counter(each.verdict for each in tries if each.kind == name)
        for name in dict.fromkeys(each.kind for each in tries)
    }
    print(f"{n_tries} damaged files of each kind\n{'':<28}" + "".join(f"{v:>12}" for v in VERDICTS))
    for name, counts in table.items():
        print(f"{name:<28}" + "".join(f"{counts[verdict]:>12}" for verdict in VERDICTS))
    bad = [each for each in tries if each.verdict in BAD]
    for each in bad:
        print(f"{each.verdict}: {each.kind}, {each.damage}: {each.words[:200]}")
    if bad:
        raise ValueError(
            f"{len(bad)} of {len(tries):,} damaged files were not refused as they should"
        )
    return {name: {v: counts[v] for v in VERDICTS} for name, counts in table.items()}
