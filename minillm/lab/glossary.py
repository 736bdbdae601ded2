"""The glossary: the field's terms, in English and Chinese, and what they are called in the code.

The entries stand in ``course/glossary.toml``, one a term. A term may list words that are *not* to
be used for it: looking one of them up leads to the term.

Chapter: 00
"""

import difflib
import re
from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from functools import cache
from pathlib import Path

from minillm.lab.project import root
from minillm.lab.text_file import read_tables

#: Of the values in glossary.toml.
KINDS = {
    **dict.fromkeys(("term", "chinese", "identifier", "meaning", "chapter", "instead"), str),
    **dict.fromkeys(("banned", "avoid", "words", "folders"), list),
    "banned_in": dict,
}


@dataclass(frozen=True, kw_only=True, eq=False)
class Term:
    """One entry of the glossary.

    Attributes:
        term: the field's term.
        chinese: its Chinese term.
        identifier: its name in the code, or "" if none is needed.
        meaning: what it is, in one sentence.
        chapter: where it is used first.
        banned: identifiers that are not to be used for it, anywhere.
        banned_in: the same for one place: identifier → names of the folders.
        avoid: words of prose that are not to be used for it.
    """

    term: str
    chinese: str
    identifier: str
    meaning: str
    chapter: str
    banned: tuple[str, ...] = ()
    banned_in: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    avoid: tuple[str, ...] = ()

    @property
    def names(self) -> tuple[str, ...]:
        """What the term is called."""
        return tuple(filter(None, (self.term, self.chinese, self.identifier)))

    @property
    def wrong_names(self) -> tuple[str, ...]:
        """What it is not to be called."""
        return (*self.banned, *self.banned_in, *self.avoid)


@dataclass(frozen=True, kw_only=True)
class NoName:
    """Words that name nothing in particular; ``instead`` says what a name should be."""

    words: tuple[str, ...]
    folders: tuple[str, ...]
    instead: str


@cache
def load(path: Path | None = None) -> tuple[Term, ...]:
    """All terms, in the order of the file.

    Args:
        path: the file; by default ``course/glossary.toml``.

    Raises:
        ValueError: an entry lacks a field or has an unknown one, or a term stands there twice.
    """
    path = path or root() / "course" / "glossary.toml"
    entries = read_tables(path, "term", KINDS)
    try:
        terms = tuple(_term(entry) for entry in entries)
    except ValueError as error:
        raise ValueError(f"{path.name}: {error}") from None
    names = [term.term for term in terms]
    if twice := sorted({name for name in names if names.count(name) > 1}):
        raise ValueError(f"{path.name}: more than one entry for {', '.join(twice)}; keep one.")
    return terms


@cache
def no_names(path: Path | None = None) -> tuple[NoName, ...]:
    """The words that are no names; ``path`` as in `load`."""
    return tuple(
        NoName(
            words=tuple(entry["words"]),
            folders=tuple(entry["folders"]),
            instead=entry["instead"],
        )
        for entry in read_tables(path or root() / "course" / "glossary.toml", "no_name", KINDS)
    )


def _term(entry: dict) -> Term:
    known = {each.name for each in fields(Term)}
    missing = {"term", "chinese", "identifier", "meaning", "chapter"} - entry.keys()
    unknown = entry.keys() - known
    if missing or unknown:
        name = entry.get("term", "without a name")
        raise ValueError(
            f"glossary term {name}: missing fields {sorted(missing)}, unknown {sorted(unknown)}."
        )
    folders = {word: tuple(places) for word, places in entry.get("banned_in", {}).items()}
    return Term(
        **{
            **entry,
            "banned": tuple(entry.get("banned", ())),
            "banned_in": folders,
            "avoid": tuple(entry.get("avoid", ())),
        }
    )


def find(word: str, terms: tuple[Term, ...] | None = None) -> tuple[Term, ...]:
    """The terms that a word means: its exact name, else a wrong name for it, else a part of a name.

    Upper and lower case are one; so are ``d model``, ``d-model`` and ``d_model``.

    Example:
        >>> [term.identifier for term in find("n_vocab")]
        ['vocab_size']

    Raises:
        ValueError: no term; the message lists those that look alike.
    """
    terms = load() if terms is None else terms
    matches = _meant(word, terms) or _within(word, terms)
    if matches:
        return matches
    known = {_plain(n): t.term for t in terms for n in (*t.names, *t.wrong_names)}
    close = [known[name] for name in difflib.get_close_matches(_plain(word), known, n=3)]
    close = list(dict.fromkeys(close))
    hint = f"Did you mean {' or '.join(close)}?" if close else "`minillm glossary` prints all."
    raise ValueError(f"the glossary has no {word!r}. {hint}")


def _meant(word: str, terms: tuple[Term, ...]) -> tuple[Term, ...]:
    right = [term for term in terms if _plain(word) in map(_plain, term.names)]
    wrong = [term for term in terms if _plain(word) in map(_plain, term.wrong_names)]
    return tuple(dict.fromkeys(right + wrong))


def _within(word: str, terms: tuple[Term, ...]) -> tuple[Term, ...]:
    sought = _plain(word)
    return tuple(t for t in terms if sought and any(sought in _plain(name) for name in t.names))


def _plain(name: str) -> str:
    return re.sub(r"[\s_-]+", " ", name).strip().lower()


def text(word: str | None = None) -> str:
    """All terms by chapter, or those that a word means, for a terminal.

    Raises:
        ValueError: no term of that name.
    """
    if word is None:
        terms = sorted(load(), key=lambda term: (term.chapter, term.term.lower()))
        return "\n".join(_lines(term) for term in terms) + f"\n\n{len(terms)} terms"
    lines = [f"Not {word!r} but {n.instead}." for n in no_names() if word.lower() in n.words]
    matches = _meant(word, load()) if lines else find(word)
    for term in matches:
        if _plain(word) in map(_plain, term.wrong_names):
            folders = ", ".join(term.banned_in.get(word, ()))
            where = f" (in {folders})" if folders else ""
            lines.append(f"Not {word!r} but {term.identifier or term.term}{where}:")
        lines.append(_lines(term))
    others = [term.term for term in _within(word, load()) if term not in matches]
    return "\n".join(lines + ([f"See also: {', '.join(others)}."] if others else []))


def _lines(term: Term) -> str:
    return f"{term.chapter}  {' · '.join(term.names)}\n      {term.meaning}"
