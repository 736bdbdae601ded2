"""The claims ledger: what was said, what we measured, and what our scale cannot show.

The entries stand in ``course/claims.toml``. A notebook settles a claim with
``expect(..., claim="id")``; what it measured is read back from its stored output.

Chapter: 00
"""

import ast
import re
from dataclasses import dataclass, fields
from functools import cache
from pathlib import Path

from minillm.lab.project import root
from minillm.lab.text_file import parse_json, read_tables, read_text

VERDICTS = (
    "follows by arithmetic",
    "seen at our scale",
    "seen only if …",
    "not seen at our scale",
    "sources disagree",
    "not testable here",
)
EVIDENCE = ("live", "recorded", "arithmetic", "reading")
MEASURED = re.compile(r"^✔ (?P<sentence>.*): (?P<value>\S+) \((?P<band>[^()]*)\)$", re.MULTILINE)


@dataclass(frozen=True, kw_only=True)
class Claim:
    """One entry of the ledger. ``original`` are its own words, ``translation`` their English."""

    id: str
    claim: str
    original: str
    translation: str
    where: str
    paper: str
    chapter: str
    test: str
    scale: str
    evidence: str
    result: str
    verdict: str
    cannot_show: str
    since: str


@dataclass(frozen=True, kw_only=True)
class Measurement:
    """A line that ``expect`` printed into a stored notebook."""

    claim: str
    sentence: str
    value: str
    band: str
    notebook: str


@cache
def load(path: Path | None = None) -> tuple[Claim, ...]:
    """All claims, in the ledger's order.

    Raises:
        ValueError: an entry lacks a field, has an unknown one, or an unknown verdict or evidence.
    """
    path = path or root() / "course" / "claims.toml"
    kinds = {field.name: str for field in fields(Claim)}
    try:
        return tuple(_claim(entry) for entry in read_tables(path, "claim", kinds))
    except ValueError as error:
        raise ValueError(f"{path.name}: {error}") from None


def _claim(entry: dict) -> Claim:
    name = entry.get("id", "without id")
    known = {field.name for field in fields(Claim)}
    if entry.keys() != known:
        missing, unknown = sorted(known - entry.keys()), sorted(entry.keys() - known)
        raise ValueError(f"claim {name}: missing fields {missing}, unknown fields {unknown}.")
    verdict = entry["verdict"]
    if not any(verdict.startswith(word.rstrip(" …")) for word in VERDICTS):
        raise ValueError(f"claim {name}: verdict {verdict!r} is none of {VERDICTS}.")
    if entry["evidence"] not in EVIDENCE:
        raise ValueError(f"claim {name}: evidence {entry['evidence']!r} is none of {EVIDENCE}.")
    return Claim(**entry)


def claimed_sentences(source: str) -> dict[str, str]:
    """The claims that a cell settles: sentence → claim id, read from its source.

    Example:
        >>> claimed_sentences('expect("one cache, GiB", 18.0, equals=18, claim="kv")')
        {'one cache, GiB': 'kv'}
    """
    claim_of = {}
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Call) and getattr(node.func, "id", None) == "expect":
            claim = next((k.value for k in node.keywords if k.arg == "claim"), None)
            if isinstance(claim, ast.Constant) and isinstance(node.args[0], ast.Constant):
                claim_of[node.args[0].value] = claim.value
    return claim_of


def read_cells(notebook: Path) -> list[dict]:
    """The cells of a stored notebook.

    Raises:
        ValueError: it is no notebook as nbformat 4 has it; the message names the file.
    """
    try:
        cells = parse_json(read_text(notebook))["cells"]
        for cell in cells:
            source = "".join(cell["source"])
            if cell["cell_type"] == "code" and "claim=" in source:
                claimed_sentences(source)
            ["".join(output.get("text", "")) for output in cell.get("outputs", ())]
        return cells
    except (ValueError, TypeError, KeyError, AttributeError, SyntaxError) as error:
        raise ValueError(f"{notebook} is no notebook ({error!r}); restore it with git") from None


def measurements(notebook: Path) -> tuple[Measurement, ...]:
    """What a stored notebook measured for the ledger, in the order of its cells."""
    results = []
    for cell in read_cells(notebook):
        source = "".join(cell["source"])
        if cell["cell_type"] != "code" or "claim=" not in source:
            continue
        sentences = claimed_sentences(source)
        printed = "".join("".join(output.get("text", "")) for output in cell.get("outputs", ()))
        for match in MEASURED.finditer(printed):
            if match["sentence"] in sentences:
                results.append(
                    Measurement(
                        claim=sentences[match["sentence"]],
                        sentence=match["sentence"],
                        value=match["value"],
                        band=match["band"],
                        notebook="labs/" * (notebook.parent.name == "labs") + notebook.stem,
                    )
                )
    return tuple(results)


def all_measurements() -> tuple[Measurement, ...]:
    """What all stored notebooks measured, chapters before labs."""
    course = root() / "course"
    paths = [*sorted(course.glob("*.ipynb")), *sorted((course / "labs").glob("*.ipynb"))]
    return tuple(line for path in paths for line in measurements(path))
