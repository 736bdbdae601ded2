"""The map of the library: parts, modules, one clause each, lines and chapter, in reading order.

Chapter: 00
"""

import ast
import io
import re
import tokenize
from dataclasses import dataclass
from pathlib import Path

from minillm.lab.project import root

PARTS = (
    "lab", "text", "town", "optim", "model", "train", "probe", "parallel",
    "serve", "small", "tune", "reason", "agents", "bench", "recipes",
)  # fmt: skip
SILENT = {
    tokenize.COMMENT, tokenize.NL, tokenize.NEWLINE, tokenize.INDENT, tokenize.DEDENT,
    tokenize.ENDMARKER, tokenize.ENCODING,
}  # fmt: skip


@dataclass(frozen=True)
class Module:
    """One file of the library. ``lines`` counts code, without docstrings, comments and blanks."""

    part: str
    name: str
    clause: str
    lines: int
    chapter: str
    path: Path


def modules(checkout: Path | None = None) -> tuple[Module, ...]:
    """Every module of the library: by part, and in each part by chapter, then by name.

    Args:
        checkout: the folder that holds ``minillm/``; by default this one.
    """
    checkout = checkout or root()
    found = []
    for path in sorted((checkout / "minillm").rglob("*.py")):
        if path.name == "__init__.py":
            continue
        part = path.parent.name if path.parent.name != "minillm" else ""
        source = path.read_text(encoding="utf-8")
        doc = ast.get_docstring(ast.parse(source)) or ""
        chapter = re.search(r"^Chapter: (\S+)\s*$", doc, re.MULTILINE)
        clause = " ".join(doc.split("\n\n")[0].split()).rstrip(".")
        lines = code_lines(source)
        found.append(Module(part, path.stem, clause, lines, chapter[1] if chapter else "?", path))
    order = {part: place for place, part in enumerate(PARTS)}
    return tuple(sorted(found, key=lambda m: (order.get(m.part, len(PARTS)), m.chapter, m.name)))


def code_lines(source: str) -> int:
    """Lines that hold code: not docstrings, comments or blanks.

    Example:
        >>> code_lines('def f():\\n    "Doc."\\n\\n    # why\\n    return 1\\n')
        2
    """
    documented = set()
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
            first = node.body[0] if node.body else None
            if isinstance(first, ast.Expr) and isinstance(first.value, ast.Constant):
                documented |= set(range(first.lineno, first.end_lineno + 1))
    lines = set()
    for token in tokenize.generate_tokens(io.StringIO(source).readline):
        if token.type not in SILENT:
            lines |= set(range(token.start[0], token.end[0] + 1))
    return len(lines - documented)


def table() -> str:
    """The map as text for a terminal."""
    lines, part = [], None
    for module in modules():
        if module.part != part:
            part = module.part
            lines.append(f"\n{f'minillm/{part}/' if part else 'minillm/'}")
        lines.append(f"  {module.chapter:>4}  {module.name:<14}{module.lines:>4}  {module.clause}")
    total = sum(module.lines for module in modules())
    return "\n".join(lines).lstrip("\n") + f"\n\n{len(modules())} modules, {total} lines of code"
