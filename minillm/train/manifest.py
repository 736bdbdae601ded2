"""What a run was: its recipe, its data, its code, its versions, in one small JSON file.

A number from a run means something only to someone who can run it again. So the manifest (清单) is
written before the first step, and names everything that decides the result: the seed, the whole
config, a hash of the tokens, a hash of the library's code, the versions of Python, torch and numpy,
and the kind of machine with its threads (the sum of the same numbers in another order is another
float).

    data_hash = SHA-256("8", then 8 bytes per token, lowest first)      for 8 tokens, say

`differences` reads two manifests and says in sentences what has changed since. `check_same_data`
stops a run that would go on with another text than it began with.

A manifest is made to be passed on, so it names no person and no place: no host, no user, no folder.

Differs: no commit of git is recorded, since a learner may have none; the hash is of the files.

Chapter: 05
"""

import hashlib
import json
import os
import platform
import re
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field, fields
from datetime import UTC, datetime, timedelta
from pathlib import Path, PurePosixPath, PureWindowsPath
from typing import Any

import numpy as np
import torch

import minillm
from minillm.formats.json_file import read_object
from minillm.lab.files import write_whole

PACKAGE = Path(__file__).resolve().parents[1]
CHUNK = 2**20  # tokens, so 8 MiB at a time
HASH = re.compile(r"[0-9a-f]{64}")


@dataclass(frozen=True, kw_only=True)
class Manifest:
    """Everything that decides what a run does, and what came of it.

    Args:
        name: of the run.
        seed: of all its draws.
        config: the whole recipe in plain JSON.
        data_hash: `hash_tokens` of the data.
        n_tokens: of the data.
        code_hash: `hash_code` of the library.
        versions: of python, torch, numpy and minillm.
        machine: system, architecture of the processor, threads.
        started: date and time in UTC, such as "2026-01-31T12:00:00+00:00".
        losses: by name, such as "final", in nats per token; empty while it runs.

    Raises:
        ValueError: a value is of another kind; the config is no plain JSON (a tuple, a NaN, a key
            that is no string); a text in it is a path of this machine.
    """

    name: str
    seed: int
    config: dict[str, Any]
    data_hash: str
    n_tokens: int
    code_hash: str
    versions: dict[str, str]
    machine: dict[str, str | int]
    started: str
    losses: dict[str, float] = field(default_factory=dict)

    def __post_init__(self):
        if not isinstance(self.name, str) or not self.name:
            raise ValueError(f"name must be a text that is not empty; got {self.name!r}")
        for key in ("seed", "n_tokens"):
            value = getattr(self, key)
            if type(value) is not int or value < 0:
                raise ValueError(f"{key} must be a whole number of at least 0; got {value!r}")
        for key in ("data_hash", "code_hash"):
            value = getattr(self, key)
            if not isinstance(value, str) or not HASH.fullmatch(value):
                raise ValueError(f"{key} must be 64 hexadecimal digits; got {value!r}")
        for key in ("config", "versions", "machine", "losses"):
            _check_object(key, getattr(self, key))
        for name, loss in self.losses.items():
            if isinstance(loss, bool) or not isinstance(loss, int | float):
                raise ValueError(f"losses.{name} must be a number; got {loss!r}")
        _check_date(self.started)
        for where, text in _texts("", asdict(self)):
            if _is_path(text):
                raise ValueError(
                    f"{where} is {text!r}, a path of one machine; a manifest is passed on, so name "
                    "what is there instead, or give a path from the run's folder"
                )


def is_plain(value: object) -> bool:
    """Whether a value comes back from JSON as it went.

    Example:
        >>> is_plain({"width": 64}), is_plain({64: "width"}), is_plain((1, 2))
        (True, False, False)
    """
    try:
        return json.loads(json.dumps(value, allow_nan=False)) == value
    except (TypeError, ValueError, RecursionError):
        return False


def _check_object(key: str, value: object) -> None:
    if not isinstance(value, dict):
        raise ValueError(f"{key} must be a dict; got a {type(value).__name__}")
    for inner, held in value.items():
        if not is_plain({inner: held}):
            raise ValueError(
                f"{key}[{inner!r}] must be plain JSON: lists for tuples, texts as keys, finite "
                f"numbers, true, false, null; got {held!r}"
            )


def _check_date(started: object) -> None:
    try:
        offset = datetime.fromisoformat(started).utcoffset()
    except (TypeError, ValueError):
        offset = None
    if offset != timedelta(0):
        raise ValueError(
            "started must be a date and time in UTC, such as '2026-01-31T12:00:00+00:00'; got "
            f"{started!r}"
        )


def _texts(where: str, value: object) -> Iterator[tuple[str, str]]:
    """Every text inside a value, keys too, and where it stands."""
    if isinstance(value, str):
        yield where, value
    elif isinstance(value, dict):
        for key, inner in value.items():
            yield f"a key of {where}", key
            yield from _texts(f"{where}.{key}" if where else key, inner)
    elif isinstance(value, list):
        for place, inner in enumerate(value):
            yield from _texts(f"{where}[{place}]", inner)


def _is_path(text: str) -> bool:
    """From the root of a disk, or from someone's home; "/" alone is a sign, not a place."""
    posix, windows = PurePosixPath(text), PureWindowsPath(text)
    from_root = (posix.is_absolute() and len(posix.parts) > 1) or windows.is_absolute()
    return from_root or text.startswith(("~/", "~\\", "file:"))


# --- writing one down ---------------------------------------------------------------------------
def describe(name: str, seed: int, config: dict[str, Any], data: np.ndarray) -> Manifest:
    """The manifest of a run that starts now, here, with the library as it stands.

    Args:
        name, seed, config: see `Manifest`.
        data: its tokens, integers [tokens].

    Raises:
        ValueError: see `Manifest` and `hash_tokens`.

    Example:
        >>> manifest = describe("tiny", 0, {"model": {"width": 64}}, np.arange(50))
        >>> manifest.n_tokens, manifest.data_hash[:8], list(manifest.machine)
        (50, 'c7670986', ['system', 'architecture', 'threads'])
    """
    return Manifest(
        name=name,
        seed=seed,
        config=config,
        data_hash=hash_tokens(data),
        n_tokens=len(data),
        code_hash=hash_code(),
        versions=versions(),
        machine=machine(),
        started=datetime.now(UTC).isoformat(timespec="seconds"),
    )


def versions() -> dict[str, str]:
    """Of what computes: python, torch, numpy and minillm."""
    return {
        "python": platform.python_version(),
        "torch": str(torch.__version__),
        "numpy": np.__version__,
        "minillm": minillm.__version__,
    }


def machine() -> dict[str, str | int]:
    """Its kind, and how many threads torch has; nothing that would name it."""
    return {
        "system": platform.system(),
        "architecture": platform.machine(),
        "threads": torch.get_num_threads(),
    }


def hash_tokens(tokens: np.ndarray) -> str:
    """SHA-256 of how many tokens there are and of each as 8 bytes, lowest first.

    The type of the array does not matter, only its numbers. One chunk is copied at a time, so a
    memory-mapped file of any size can be hashed.

    Args:
        tokens: integers [tokens].

    Returns:
        64 hexadecimal digits.

    Raises:
        ValueError: no integers, or not on one axis; a number beyond 2⁶³ - 1.

    Example:
        >>> hash_tokens(np.array([7, 3], np.uint16)) == hash_tokens(np.array([7, 3], np.int64))
        True
    """
    if not isinstance(tokens, np.ndarray) or tokens.ndim != 1 or tokens.dtype.kind not in "iu":
        received = (
            f"{tokens.dtype} of the shape {list(tokens.shape)}"
            if isinstance(tokens, np.ndarray)
            else f"a {type(tokens).__name__}"
        )
        raise ValueError(
            f"hash_tokens needs a numpy array of integers on one axis; got {received} (reshape(-1) "
            "makes one axis)"
        )
    digest = hashlib.sha256(str(len(tokens)).encode())
    for start in range(0, len(tokens), CHUNK):
        chunk = tokens[start : start + CHUNK]
        if chunk.max() > np.iinfo(np.int64).max:
            raise ValueError(f"a token must be below 2⁶³; got {chunk.max()}")
        digest.update(chunk.astype("<i8").tobytes())
    return digest.hexdigest()


def hash_code(package: str | os.PathLike = PACKAGE) -> str:
    """SHA-256 of a package's `.py` files: the name from its root and the content of each, sorted.

    So it says what ran, whether or not it was committed. The ends of lines do not matter: git
    writes others on Windows. Folders that begin with a dot are left out (Jupyter's copies).

    Args:
        package: its folder; this library's if none is given.

    Returns:
        64 hexadecimal digits.
    """
    package = Path(package)
    files = {path.relative_to(package).as_posix(): path for path in package.rglob("*.py")}
    digest = hashlib.sha256()
    for name in sorted(files):
        if not name.startswith(".") and "/." not in name:
            content = files[name].read_bytes().replace(b"\r\n", b"\n")
            digest.update(f"{name}\n{len(content)}\n".encode() + content)
    return digest.hexdigest()


def save(manifest: Manifest, path: str | os.PathLike) -> None:
    """Write a manifest as JSON, whole or not at all; an older one of that name is replaced.

    Raises:
        ValueError: the folder does not exist.
    """
    write_whole(path, json.dumps(asdict(manifest), indent=2) + "\n")


def load(path: str | os.PathLike) -> Manifest:
    """Read a manifest that `save` wrote.

    Raises:
        ValueError: there is no such file, or it is no JSON; a key is missing or unknown; a value
            is not what `Manifest` takes.
    """
    content = read_object(path)
    expected = {entry.name for entry in fields(Manifest)}
    missing, unknown = expected - set(content), set(content) - expected
    if missing or unknown:
        raise ValueError(
            f"{path} is not a manifest of this version. Missing keys: {_listed(missing)}. Unknown "
            f"keys: {_listed(unknown)}"
        )
    try:
        return Manifest(**content)
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from None


def _listed(names: set[str]) -> str:
    return ", ".join(sorted(names)) or "none"


# --- comparing two ------------------------------------------------------------------------------
def differences(then: Manifest, now: Manifest) -> list[str]:
    """What is not the same in two manifests, a sentence each; nothing if all is.

    Args:
        then: the older one.
        now: the newer one.

    Example:
        >>> then = describe("tiny", 0, {"model": {"width": 128}}, np.arange(50))
        >>> now = describe("tiny", 0, {"model": {"width": 64}}, np.arange(49))
        >>> for sentence in differences(then, now)[:2]:
        ...     print(sentence)
        the data: c76709860cf6 then, 2abebd1f8e05 now: 50 tokens became 49
        config.model.width: 128 then, 64 now
    """
    sentences = []
    if data := _data_changed(then, now):
        sentences.append(data)
    if then.code_hash != now.code_hash:
        sentences.append(f"the code: {_two_hashes(then.code_hash, now.code_hash)}")
    for key in ("name", "seed", "config", "versions", "machine", "losses", "started"):
        sentences += changes(key, getattr(then, key), getattr(now, key))
    return sentences


def check_same_data(then: Manifest, now: Manifest) -> None:
    """Raise if a run would go on with other data than it began with.

    Raises:
        ValueError: says how the data differ and how to mend it.
    """
    if data := _data_changed(then, now):
        raise ValueError(
            f"the corpus of the run {then.name!r} has changed since its manifest was written; "
            f"{data}. Going on would mix two corpora in one run: make the tokens again as they "
            "were (same files, same tokenizer, same seed), or start a new run in another folder"
        )


def _data_changed(then: Manifest, now: Manifest) -> str:
    if (then.data_hash, then.n_tokens) == (now.data_hash, now.n_tokens):
        return ""
    counts = f"{then.n_tokens:,} tokens became {now.n_tokens:,}"
    if then.n_tokens == now.n_tokens:
        counts = f"{now.n_tokens:,} tokens both times"
    return f"the data: {_two_hashes(then.data_hash, now.data_hash)}: {counts}"


def _two_hashes(then: str, now: str) -> str:
    n_digits = 12 if then[:12] != now[:12] else 64
    return f"{then[:n_digits]} then, {now[:n_digits]} now"


_ABSENT = object()


def changes(where: str, then: object, now: object) -> Iterator[str]:
    """What is not the same in two values of plain JSON, a sentence each, leaf by leaf.

    1, 1.0 and true are three values, as they are in JSON.

    Example:
        >>> list(changes("config", {"seed": 1, "width": 64}, {"seed": 1, "width": 128}))
        ['config.width: 64 then, 128 now']
    """
    if isinstance(then, dict) and isinstance(now, dict):
        for key in sorted({*then, *now}):
            yield from changes(f"{where}.{key}", then.get(key, _ABSENT), now.get(key, _ABSENT))
    elif (before := _shown(then)) != (after := _shown(now)):
        yield f"{where}: {before} then, {after} now"


def _shown(value: object) -> str:
    return "nothing" if value is _ABSENT else json.dumps(value, sort_keys=True, ensure_ascii=False)
