"""Names are the standard ones: what `course/glossary.toml` bans is refused as an identifier.

A word that is banned in some places only is looked for there: a place is a part, a module, or a
folder such as `course`, and stands for the tests of that part or module too.
"""

import ast
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from minillm.lab import glossary
from tests.layout_rules import notebook_code, rule, sources

NAMED = ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef | ast.ExceptHandler


@dataclass(frozen=True)
class Ban:
    """A word, where it is banned (nowhere in particular: everywhere), and what to write."""

    word: str
    places: tuple[str, ...]
    instead: str


def bans(root: Path) -> list[Ban]:
    """What the glossary forbids."""
    path, found = root / "course" / "glossary.toml", []
    for term in glossary.load(path):
        found += [Ban(word, (), term.identifier) for word in term.banned]
        found += [Ban(word, at, term.identifier) for word, at in term.banned_in.items()]
    for entry in glossary.no_names(path):
        found += [Ban(word, entry.folders, entry.instead) for word in entry.words]
    return found


def identifiers(tree: ast.AST) -> Iterator[tuple[str, int]]:
    """Every name that a file gives: to variables, attributes, arguments, functions and classes.

    A keyword in a call counts too, since it is somebody's argument; a name that is only read does
    not, since it was given elsewhere.
    """
    for node in ast.walk(tree):
        if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store):
            yield node.id, node.lineno
        elif isinstance(node, ast.Attribute) and isinstance(node.ctx, ast.Store):
            yield node.attr, node.lineno
        elif isinstance(node, ast.arg | ast.keyword) and node.arg:
            yield node.arg, node.lineno
        elif isinstance(node, NAMED) and node.name:
            yield node.name, node.lineno
        elif isinstance(node, ast.alias) and node.asname:
            yield node.asname, node.lineno


@rule
def names_are_the_standard_ones(root: Path) -> list[str]:
    """No identifier is a word that the glossary bans; each finding says what to write."""
    by_word: dict[str, list[Ban]] = {}
    for ban in bans(root):
        by_word.setdefault(ban.word, []).append(ban)
    files = sources(root, "minillm", "solutions", "exercises", "tests", "tools")
    trees = [(source.where, source.tree) for source in files]
    findings = []
    for where, tree in [*trees, *notebook_code(root)]:
        places = {part.removeprefix("test_") for part in Path(where).with_suffix("").parts}
        for word, line in identifiers(tree):
            findings += [
                f"{where}:{line} {word} is not the standard name: {ban.instead}"
                for ban in by_word.get(word, ())
                if not ban.places or places & set(ban.places)
            ]
    return findings
