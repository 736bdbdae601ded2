"""Real text to learn from: what Python brings along, the course's reader, your files, a URL.

Text that everyone has without a download: Python's own documentation and library sources. They
differ a little from one Python to the next, so what is measured on them goes through bands. The
reader (`course/reader/`) is the same for everyone, in English and Chinese, passage for passage.

Whatever comes from outside is checked before it is used: a file for its size and encoding, a
download for its size and SHA-256, the fingerprint that says that these are the bytes meant.

Chapter: 01
"""

import hashlib
import http.client
import importlib
import os
import re
import sys
import sysconfig
import tempfile
import urllib.error
import urllib.request
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO
from urllib.parse import urlsplit

from minillm.lab import project
from minillm.lab.text_file import decode

LANGUAGES = ("en", "zh")
MAX_BYTES = 256 * 2**20  # of one file, one folder's text, or one download
CHUNK_BYTES = 2**16

# In the folder of the standard library, but not of it; and what differs on every machine.
NOT_LIBRARY = re.compile(r"tests?|idle_test|(site|dist)-packages|__pycache__|config-.*")
THIS_MACHINE = re.compile(r"_sysconfigdata|sitecustomize|usercustomize")


# --- what Python brings along ------------------------------------------------------------------


def python_documentation() -> str:
    """The language reference that `help()` shows: about 460 kB of English prose about Python.

    Returns:
        All topics of the module `pydoc_data.topics`, in the order of their names.

    Raises:
        ValueError: this Python was installed without it.

    Example:
        >>> "assert" in python_documentation()
        True
    """
    try:
        topics = importlib.import_module("pydoc_data.topics").topics
    except ImportError as error:
        raise ValueError(
            f"this Python ({sys.executable}) came without its documentation (pydoc_data.topics); "
            "use Python from python.org, conda or your system's full package, or other text: "
            "library_sources() or read(folder)"
        ) from error
    return "\n\n".join(topics[name].strip() for name in sorted(topics)) + "\n"


def library_sources(max_bytes: int = 1_000_000) -> str:
    """Source code of Python's standard library, file after file in the order of their paths.

    Tests, installed packages and files that describe this one machine are left out. The
    last file is cut after a whole line.

    Args:
        max_bytes: at most so many bytes of UTF-8.

    Raises:
        ValueError: the sources are not installed, or max_bytes is not positive.

    Example:
        >>> code = library_sources(max_bytes=10_000)
        >>> len(code.encode()) <= 10_000 and "def " in code
        True
    """
    if max_bytes < 1:
        raise ValueError(f"max_bytes must be at least 1; got {max_bytes}")
    folder = Path(sysconfig.get_paths()["stdlib"])
    paths = []
    for parent, folders, files in os.walk(folder):
        folders[:] = [name for name in folders if not NOT_LIBRARY.fullmatch(name)]
        paths += [Path(parent, name) for name in files if not THIS_MACHINE.match(name)]
    lines: list[str] = []
    left = max_bytes
    for path in sorted(paths, key=lambda path: path.relative_to(folder).as_posix()):
        if path.suffix != ".py":
            continue
        try:
            text = path.read_text(encoding="utf-8")  # \r\n becomes \n
        except UnicodeDecodeError:  # a few files declare another encoding
            continue
        for line in text.splitlines(keepends=True):
            left -= len(line.encode())
            if left < 0:
                return "".join(lines)
            lines.append(line)
    if not lines:
        raise ValueError(
            f"no library sources under {folder}: this Python came without them (it may keep them "
            "in a zip file); use Python from python.org or conda, or read(folder) on other code"
        )
    return "".join(lines)


# --- the course's reader -----------------------------------------------------------------------


@dataclass(frozen=True, kw_only=True)
class Passage:
    """One passage of the reader; `slug` is the same in both languages."""

    slug: str
    language: str
    title: str
    paragraphs: tuple[str, ...]

    @property
    def text(self) -> str:
        """Title and paragraphs, a blank line between them."""
        return "\n\n".join((self.title, *self.paragraphs)) + "\n"


def reader_passages(language: str) -> tuple[Passage, ...]:
    """The passages of the bilingual reader, in order.

    Args:
        language: "en" or "zh".

    Raises:
        ValueError: another language; the reader is not there, or a passage is not as it should be.

    Example:
        >>> english, chinese = reader_passages("en"), reader_passages("zh")
        >>> [passage.slug for passage in english] == [passage.slug for passage in chinese]
        True
    """
    if language not in LANGUAGES:
        raise ValueError(f'the reader is in "en" (English) and "zh" (Chinese); got {language!r}')
    folder = project.root() / "course" / "reader"
    ending = f".{language}.txt"
    passages = []
    for path in sorted(folder.glob(f"*{ending}"), key=lambda path: path.name):
        text = read(path)
        title, *paragraphs = (part.strip() for part in re.split(r"\n\s*\n", text.strip()))
        if "\n" in title or not paragraphs:
            raise ValueError(
                f"{path} must have its title on the first line, then a blank line, then paragraphs "
                "with blank lines between them"
            )
        passages.append(
            Passage(
                slug=path.name.removesuffix(ending),
                language=language,
                title=title,
                paragraphs=tuple(paragraphs),
            )
        )
    if not passages:
        raise ValueError(f"no passages ({ending}) in {folder}; restore it with git checkout")
    return tuple(passages)


def reader(language: str) -> str:
    """The whole reader in one language, "en" or "zh"; see `reader_passages`."""
    return "\n".join(passage.text for passage in reader_passages(language))


# --- your own files ----------------------------------------------------------------------------


def read(path: str | Path, suffixes: Sequence[str] = (".txt", ".md", ".rst", ".py")) -> str:
    """Read a text file, or all text files of a folder.

    Args:
        path: a file with any ending, or a folder. Folders are walked in the order of their paths;
            hidden files and folders are left out.
        suffixes: which files of a folder to take.

    Returns:
        The file's text, without a byte order mark, with "\\n" for every line end (CRLF is what
        Windows writes); a folder's files with one line end between them.

    Raises:
        ValueError: nothing there, empty, too large, binary, or not UTF-8; the message says which
            file, and for bad UTF-8 where in it.
    """
    path = Path(path).expanduser()
    if path.is_dir():
        if isinstance(suffixes, str):
            raise ValueError(f'suffixes is a list such as [".txt"]; got the text {suffixes!r}')
        inside = {file.relative_to(path).as_posix(): file for file in path.rglob("*")}
        files = [
            inside[name]
            for name in sorted(inside)
            if inside[name].suffix in suffixes
            and inside[name].is_file()
            and not any(part.startswith(".") for part in name.split("/"))
        ]
        if not files:
            raise ValueError(
                f"{path} has no file that ends in {', '.join(suffixes)}; "
                "name another folder, or pass suffixes=[...]"
            )
        _check_size(path, sum(file.stat().st_size for file in files))
        texts = [_read_file(file) for file in files if file.stat().st_size]
        if not texts:
            raise ValueError(f"all {len(files)} files in {path} are empty; name another folder")
        return "\n".join(texts)
    if not path.exists():
        raise ValueError(
            f"there is no file or folder {path} (looked for from {Path.cwd()}); check the spelling"
        )
    return _read_file(path)


def _check_size(path: Path, n_bytes: int) -> None:
    if n_bytes > MAX_BYTES:
        raise ValueError(
            f"{path} holds {n_bytes:,} bytes, more than the {MAX_BYTES:,} that are read at once; "
            "take a part of it"
        )


def _read_file(path: Path) -> str:
    try:
        _check_size(path, path.stat().st_size)
        data = path.read_bytes()
    except OSError as error:
        raise ValueError(f"{path} cannot be read: {error.strerror}") from error
    if not data:
        raise ValueError(f"{path} is empty; name a file with text in it")
    return decode(data, path)


# --- a download with a checksum ----------------------------------------------------------------


def cache_folder() -> Path:
    """Where downloads are kept: MINILLM_CACHE if set, else the system's place for caches."""
    if os.environ.get("MINILLM_CACHE"):
        return Path(os.environ["MINILLM_CACHE"]).expanduser()
    if sys.platform == "win32":
        base = os.environ.get("LOCALAPPDATA") or Path.home() / "AppData" / "Local"
    elif sys.platform == "darwin":
        base = Path.home() / "Library" / "Caches"
    else:
        base = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(base) / "minillm"


def fetch(
    url: str,
    sha256: str,
    cache: str | Path | None = None,
    *,
    max_bytes: int = MAX_BYTES,
    timeout_s: float = 30.0,
) -> Path:
    """Download a file once, and only if it is the file that was meant.

    Args:
        url: http or https.
        sha256: the file's SHA-256 in hexadecimal, 64 digits. It is also the name in the cache.
        cache: folder to keep it in; `cache_folder()` if None.
        max_bytes: a longer file is refused, before it is read where the server says its length.
        timeout_s: seconds to wait for the server whenever it says nothing.

    Returns:
        The file's path in the cache: `read(fetch(url, sha256))` is its text. A cached copy is
        checked again at each call; if it is not right, it is downloaded anew.

    Raises:
        ValueError: not an http(s) URL, not a SHA-256, another checksum than promised, too long, or
            no permission to write. Nothing is kept then.
        ConnectionError: no answer, an answer that is not the file, or only a part of it. The
            message says how to put the file into the cache by hand.
    """
    address = urlsplit(url)
    if address.scheme not in ("http", "https") or not address.netloc or re.search(r"\s", url):
        raise ValueError(f"url must be http:// or https://, a host, and no spaces; got {url!r}")
    sha256 = sha256.strip().lower()
    if not re.fullmatch(r"[0-9a-f]{64}", sha256):
        raise ValueError(f"sha256 must be 64 hexadecimal digits; got {sha256!r}")
    folder = Path(cache).expanduser() if cache is not None else cache_folder()
    target = folder / sha256
    if target.is_file() and _fingerprint(target) == sha256:
        return target
    try:
        folder.mkdir(parents=True, exist_ok=True)
        handle, name = tempfile.mkstemp(prefix="part-", dir=folder)
    except OSError as error:
        raise ValueError(
            f"cannot write to the cache {folder} ({error.strerror}); "
            "set MINILLM_CACHE to a folder of yours"
        ) from error
    part = Path(name)
    try:
        with os.fdopen(handle, "wb") as file:
            _download(url, file, target, max_bytes, timeout_s)
        digest = _fingerprint(part)
        if digest != sha256:
            raise ValueError(
                f"{url} is not the file that was meant: its sha256 is {digest}, not {sha256}. "
                "Nothing was kept. Either the file has changed, or what answered is not its owner"
            )
        os.replace(part, target)  # all at once: no one ever sees half a file
    finally:
        part.unlink(missing_ok=True)
    return target


def _fingerprint(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


class _WebOnly(urllib.request.HTTPRedirectHandler):
    """Follow redirects, but never to ftp."""

    def redirect_request(self, request, answer, code, message, headers, new_url):
        if urlsplit(new_url).scheme not in ("http", "https"):
            raise ValueError(f"{request.full_url} leads to {new_url}, which is not http or https")
        return super().redirect_request(request, answer, code, message, headers, new_url)


def _download(url: str, file: BinaryIO, target: Path, max_bytes: int, timeout_s: float) -> None:
    by_hand = (
        f"To go on without the network: get the file in another way (sha256 {target.name}) "
        f"and save it as {target}"
    )
    received, promised = 0, None
    try:
        with urllib.request.build_opener(_WebOnly).open(url, timeout=timeout_s) as answer:
            length = answer.headers.get("Content-Length", "")
            promised = int(length) if length.isdecimal() else None
            if promised is not None and promised > max_bytes:
                raise ValueError(_too_long(url, f"{promised:,} bytes long", max_bytes))
            while chunk := answer.read(CHUNK_BYTES):
                received += len(chunk)
                if received > max_bytes:
                    raise ValueError(_too_long(url, "longer than it may be", max_bytes))
                file.write(chunk)
    except urllib.error.HTTPError as error:
        error.close()
        raise ConnectionError(
            f"{url} answered {error.code} ({error.reason}) instead of the file; check the address. "
            + by_hand
        ) from None
    except urllib.error.URLError as error:
        raise ConnectionError(f"{url} cannot be reached ({error.reason}). {by_hand}") from error
    except (OSError, http.client.HTTPException) as error:
        reason = str(error) or type(error).__name__
        raise ConnectionError(f"{url} broke off ({reason}); try again. {by_hand}") from error
    if promised is not None and received != promised:
        raise ConnectionError(
            f"{url} broke off after {received:,} of {promised:,} bytes; try again. {by_hand}"
        )


def _too_long(url: str, length: str, max_bytes: int) -> str:
    return (
        f"{url} is {length}; max_bytes is {max_bytes:,}. Nothing was kept; "
        "if it is the file you want, pass a larger max_bytes"
    )
