"""A tokenizer as a file that a person can read, and that notices when it was damaged.

One merge stands on one line: its id, and what the two ids that it joins spell. Bytes that are no
readable character stand as `\\xNN` (JSON doubles the backslash).

    {
      "format": "minillm byte-level BPE",
      "version": 1,
      "n_vocab": 258,
      "pattern": "...",
      "special_tokens": ["<|endoftext|>"],
      "merges": [
        [256, "h", "e"]
      ],
      "sha256": "..."
    }

The SHA-256 is taken over everything else, whatever the white space. It finds accidents: cut-off
copies, a search-and-replace that went too far. It is no signature, since whoever changes a file on
purpose can compute it anew. Nothing in the file is ever executed.

Chapter: 01
"""

import hashlib
import json
import os
from pathlib import Path
from typing import Any

from minillm.text.escape import escape, unescape
from minillm.text.tokenizer import Pair, Tokenizer

FORMAT = "minillm byte-level BPE"
VERSION = 1
MAX_BYTES = 64 * 2**20
MAX_VOCAB = 2**20
_KEYS = ("format", "version", "n_vocab", "pattern", "special_tokens", "merges", "sha256")


def save(tokenizer: Tokenizer, path: str | os.PathLike) -> None:
    """Write a tokenizer to `path`, whole or not at all.

    Raises:
        ValueError: the folder does not exist; or the tokenizer could not be loaded again, since two
            of its merges spell the same (training never makes such a one).

    Example:
        >>> import tempfile
        >>> tokenizer = Tokenizer(((104, 101),), ("<|endoftext|>",))
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     save(tokenizer, f"{folder}/tokenizer.json")
        ...     load(f"{folder}/tokenizer.json") == tokenizer
        True
    """
    text = _to_text(tokenizer)
    if _from_content(_parse(text.encode("utf-8"))) != tokenizer:
        raise ValueError("this tokenizer would not come back from its file as it is")
    write_whole(path, text)


def write_whole(path: str | os.PathLike, text: str) -> None:
    """Write a text file so that a reader sees the old content or the new, never a part.

    The text goes to a temporary file beside `path`, which then takes its name in one step. If that
    fails, as on a full disk, the old file is still there.

    Raises:
        ValueError: the folder does not exist.
    """
    path = Path(path)
    if not path.parent.is_dir():
        raise ValueError(
            f"cannot save {path.name}: there is no folder {path.parent}; create it first"
        )
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        with open(temporary, "w", encoding="utf-8", newline="\n") as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


def load(path: str | os.PathLike) -> Tokenizer:
    """Read a tokenizer that `save` wrote.

    Raises:
        ValueError: there is no such file, or it is cut off, edited, of another version or kind, a
            pickle, or unreasonably large; each has its own message.
    """
    path = Path(path)
    if not path.is_file():
        raise ValueError(
            f"there is no file {path}; `minillm train tokenizer FILES... --out DIR` writes one"
        )
    with open(path, "rb") as file:
        data = file.read(MAX_BYTES + 1)
    try:
        return _from_content(_parse(data))
    except ValueError as error:
        raise ValueError(f"{path.name} cannot be loaded: {error}") from error


def _to_text(tokenizer: Tokenizer) -> str:
    content = {
        "format": FORMAT,
        "version": VERSION,
        "n_vocab": tokenizer.n_vocab,
        "pattern": tokenizer.pattern,
        "special_tokens": list(tokenizer.special_tokens),
        "merges": [
            [256 + n, *(escape(tokenizer.token_bytes(part)) for part in pair)]
            for n, pair in enumerate(tokenizer.merges)
        ],
    }
    content["sha256"] = _checksum(content)
    merges = content.pop("merges")
    lines = [f"  {_json(key)}: {_json(value)}," for key, value in content.items()]
    block = ",\n".join(f"    {_json(merge)}" for merge in merges)
    lines.insert(-1, f'  "merges": [\n{block}\n  ],' if merges else '  "merges": [],')
    return "{\n" + "\n".join(lines).removesuffix(",") + "\n}\n"


def _json(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False)


def _checksum(content: dict[str, Any]) -> str:
    rest = {key: value for key, value in content.items() if key != "sha256"}
    return hashlib.sha256(json.dumps(rest, sort_keys=True).encode("ascii")).hexdigest()


def _parse(data: bytes) -> dict[str, Any]:
    if len(data) > MAX_BYTES:
        raise ValueError(f"it is larger than {MAX_BYTES // 2**20} MiB; a tokenizer takes a few")
    if data[:1] == b"\x80" or data[:2] == b"PK":
        raise ValueError(
            "it is a pickle or an archive that holds one. Opening a pickle runs whatever it "
            "contains, so minillm never does; ask its author for the JSON file"
        )
    try:
        text = data.decode("utf-8")
    except UnicodeDecodeError as error:
        raise ValueError(
            f"it is not UTF-8 text (byte {error.start:,}), so it is not ours"
        ) from None
    try:
        content = json.loads(text)
    except (json.JSONDecodeError, RecursionError) as error:
        if text.lstrip().startswith("{") and not text.rstrip().endswith("}"):
            raise ValueError(
                f"it is cut off after {len(data):,} bytes (no closing brace); copy it again"
            ) from None
        raise ValueError(f"it is not JSON ({error}); copy it again, or train it anew") from None
    if not isinstance(content, dict) or content.get("format") != FORMAT:
        other = " It looks like a tokenizer.json, for `tokenizers`." if _is_foreign(content) else ""
        raise ValueError(
            f'it is no tokenizer of ours, which would say "format": "{FORMAT}".{other}'
        )
    if content.get("version") != VERSION:
        raise ValueError(
            f"it has version {content.get('version')!r} of the format, and this minillm reads "
            f"version {VERSION}; update minillm, or train the tokenizer anew"
        )
    return content


def _is_foreign(content: object) -> bool:
    return isinstance(content, dict) and "model" in content and "added_tokens" in content


def _from_content(content: dict[str, Any]) -> Tokenizer:
    if set(content) != set(_KEYS):
        missing, unknown = set(_KEYS) - set(content), set(content) - set(_KEYS)
        raise ValueError(
            f"its keys are wrong: missing {sorted(missing)}, unknown {sorted(unknown)}"
        )
    n_vocab, merges, specials = (content[key] for key in ("n_vocab", "merges", "special_tokens"))
    if not isinstance(n_vocab, int) or not 256 <= n_vocab <= MAX_VOCAB:
        raise ValueError(f"it declares n_vocab {n_vocab!r}; possible are 256 to {MAX_VOCAB:,}")
    if (found := _checksum(content)) != content["sha256"]:
        raise ValueError(
            f"it was edited or damaged: its content has SHA-256 {found[:12]}…, but the file says "
            f"{str(content['sha256'])[:12]}…; copy it again, or train it anew"
        )
    if not (isinstance(merges, list) and isinstance(specials, list)):
        raise ValueError("its merges and special_tokens must be lists")
    tokenizer = Tokenizer(_to_pairs(merges), tuple(specials), content["pattern"])
    if tokenizer.n_vocab != n_vocab:
        raise ValueError(f"it declares n_vocab {n_vocab:,} but holds {tokenizer.n_vocab:,} ids")
    return tokenizer


def _to_pairs(merges: list) -> tuple[Pair, ...]:
    """Turn what each merge spells back into ids."""
    ids = {bytes([byte]): byte for byte in range(256)}
    pairs = []
    for new_id, merge in enumerate(merges, start=256):
        try:
            stated_id, *spelled = merge
            left, right = map(unescape, spelled)
            pairs.append((ids[left], ids[right]))
        except (TypeError, ValueError, KeyError):
            raise ValueError(
                f"merge {new_id - 256} is {merge!r}, not [{new_id}, left, right] with two tokens "
                "that exist before it"
            ) from None
        if stated_id != new_id or left + right in ids:
            raise ValueError(f"merge {merge!r} should have id {new_id} and a spelling of its own")
        ids[left + right] = new_id
    return tuple(pairs)
