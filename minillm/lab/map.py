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

#: The parts in their order: each imports only itself and those before it.
PARTS = (
    "lab", "text", "town", "optim", "baselines", "model", "mixers", "experts", "data", "formats",
    "train", "measure", "probe", "parallel", "serve", "quant", "small", "tune", "reason", "agents",
)  # fmt: skip
#: What may import every part, and is imported by none.
APPS = ("cli", "__main__", "bench", "recipes", "zoo")
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
    entries = []
    for path in sorted((checkout / "minillm").rglob("*.py")):
        if path.name == "__init__.py":
            continue
        part = path.parent.name if path.parent.name != "minillm" else ""
        source = path.read_text(encoding="utf-8")
        doc = ast.get_docstring(ast.parse(source)) or ""
        chapter = re.search(r"^Chapter: (\S+)\s*$", doc, re.MULTILINE)
        clause = " ".join(doc.split("\n\n")[0].split()).rstrip(".")
        lines = code_lines(source)
        entries.append(Module(part, path.stem, clause, lines, chapter[1] if chapter else "?", path))
    order = {part: place for place, part in enumerate((*PARTS, "", *APPS))}
    return tuple(sorted(entries, key=lambda m: (order.get(m.part, len(order)), m.chapter, m.name)))


def part_lines(checkout: Path | None = None) -> dict[str, str]:
    """Each part that is there, in order, with the first sentence of its ``__init__.py``.

    Args:
        checkout: the folder that holds ``minillm/``; by default this one.
    """
    package = (checkout or root()) / "minillm"
    lines = {}
    for part in (*PARTS, *APPS):
        path = package / part / "__init__.py"
        if path.exists():
            doc = ast.get_docstring(ast.parse(path.read_text(encoding="utf-8"))) or ""
            lines[part] = " ".join(doc.split("\n\n")[0].split()).rstrip(".")
    return lines


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
    lines, part, all_modules = [], None, modules()
    for module in all_modules:
        if module.part != part:
            part = module.part
            lines.append(f"\n{f'minillm/{part}/' if part else 'minillm/'}")
        lines.append(f"  {module.chapter:>4}  {module.name:<14}{module.lines:>4}  {module.clause}")
    total = sum(module.lines for module in all_modules)
    return "\n".join(lines).lstrip("\n") + f"\n\n{len(all_modules)} modules, {total} lines of code"
