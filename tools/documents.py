"""What is made from the course itself: README's tables, and three pages of `course/`.

``python -m tools.documents`` says what is out of date; ``--write`` writes all of it. The pages are
`LIBRARY.md` (from the modules' docstrings), `CLAIMS.md` (from `claims.toml`) and `GLOSSARY.md`
(from `glossary.toml`); a table of README.md stands between its two marks.
"""

import re
import sys
import tomllib
from collections.abc import Callable
from pathlib import Path

from minillm.lab import claims, glossary
from minillm.lab.claims import VERDICTS, Claim
from minillm.lab.map import Module, modules, part_lines
from minillm.lab.project import Chapter, syllabus

ROOT = Path(__file__).resolve().parents[1]
MADE_FROM = "<!-- Made from {} by `python -m tools.documents --write`; edit that. -->\n"
#: Five verdicts for README.md that most people would not have guessed.
SURPRISING = ("kv-cache-576", "loss-is-learning", "square", "adafactor", "moe-4-7x")


def chapter_table(_: Path = ROOT) -> str:
    """A table of the chapters that can be opened, and one line on those to come."""
    lines = ["| | chapter | what you will see | minutes |", "|---|---|---|---|"]
    for chapter in syllabus():
        if chapter.finished:
            title = f"[{chapter.title}](course/{chapter.name}.ipynb)"
            if chapter.lab:
                title += " · lab"
            lines.append(f"| {chapter.number} | {title} | {chapter.headline} | {chapter.minutes} |")
    coming = [f"{c.number} {c.title}" for c in syllabus() if not c.finished]
    if coming:
        more = f", and {len(coming) - 3} more up to {coming[-1]}" if len(coming) > 3 else ""
        lines += ["", f"To come: {' · '.join(coming[:3])}{more}."]
    return "\n".join(lines) + "\n"


def part_table(root: Path = ROOT) -> str:
    """One line for each part of the library."""
    lines = ["| part | what is in it |", "|---|---|"]
    lines += [f"| `{part}/` | {first_sentence(line)} |" for part, line in part_lines(root).items()]
    return "\n".join(lines) + "\n"


def surprising_claims(_: Path = ROOT) -> str:
    """Five verdicts, and how many claims there are."""
    ledger = {claim.id: claim for claim in claims.load()}
    lines = ["| what was said | what we found | chapter |", "|---|---|---|"]
    for name in SURPRISING:
        claim = ledger[name]
        lines.append(f"| {claim.claim} | {claim.verdict} | {claim.chapter} |")
    return "\n".join([*lines, "", count_of_claims()]) + "\n"


def count_of_claims() -> str:
    """How many claims there are, and how many are measured."""
    ledger = claims.load()
    measured = {measurement.claim for measurement in claims.all_measurements()}
    return (
        f"{len(ledger)} claims so far, {sum(claim.id in measured for claim in ledger)} of them "
        "measured in a notebook whose output is checked."
    )


def count_of_verdicts() -> list[str]:
    """A line for each verdict: how many claims have it."""
    counts = {
        word: sum(claim.verdict.startswith(word.rstrip(" …")) for claim in claims.load())
        for word in VERDICTS
    }
    return [f"- {count} × *{word}*" for word, count in counts.items()]


def library_page(root: Path = ROOT) -> str:
    """The file map: each part, and below it each module with its chapter and one clause."""
    lines = [
        MADE_FROM.format("the modules' docstrings") + "# The library, file by file",
        "",
        "A module imports only modules of its own chapter or an earlier one, so whoever has read",
        "to chapter N can read every line that runs. A part imports only itself and those above",
        "it; the apps, which come last, may import everything. `minillm map` prints the same in a",
        "terminal, with the lines of code.",
    ]
    about, part = part_lines(root), None
    for module in modules(root):
        if module.part != part:
            part = module.part
            lines += ["", f"## {part or 'minillm'}/", ""]
            lines += [first_sentence(about[part]), ""] if part in about else []
            lines += ["| module | chapter | what it is |", "|---|---|---|"]
        lines.append(_module_row(module))
    return "\n".join(lines) + "\n"


def _module_row(module: Module) -> str:
    file = "/".join(filter(None, ["..", "minillm", module.part, f"{module.name}.py"]))
    return f"| [{module.name}]({file}) | {module.chapter} | {first_sentence(module.clause)} |"


def claims_page(_: Path = ROOT) -> str:
    """The whole ledger, chapter by chapter."""
    lines = [
        MADE_FROM.format("claims.toml") + "# What was said, what we measured",
        "",
        f"{count_of_claims()} The verdicts:",
        "",
        *count_of_verdicts(),
        "",
        "A toy refutes no 175B model: read what each entry *cannot show*. `minillm claims ID`",
        "prints an entry with what the stored notebook measured; `minillm reproduce ID` measures",
        "it again. What was said comes from five sources:",
        "",
    ]
    with (ROOT / "course" / "claims.toml").open("rb") as file:
        lines += [f"- {name}: {talk}" for name, talk in tomllib.load(file)["talks"].items()]
    for chapter in syllabus():
        entries = [claim for claim in claims.load() if claim.chapter == chapter.number]
        if entries:
            lines += ["", f"## {_linked(chapter)}"]
        for claim in entries:
            lines += ["", *_claim_lines(claim)]
    return "\n".join(lines) + "\n"


def _linked(chapter: Chapter) -> str:
    title = f"{chapter.number} · {chapter.title}"
    return f"[{title}]({chapter.name}.ipynb)" if chapter.finished else title


def _claim_lines(claim: Claim) -> list[str]:
    quote = f"“{claim.original}”" + (f" ({claim.translation})" if claim.translation else "")
    return [
        f"### {claim.claim}",
        "",
        f"**{claim.verdict[0].upper()}{claim.verdict[1:]}.** Result: {claim.result}",
        "",
        f"- Said: {quote} — {claim.where}",
        f"- Cannot show: {claim.cannot_show}",
        f"- Id: `{claim.id}`",
    ]


def glossary_page(root: Path = ROOT) -> str:
    """The terms of the course for learners, sorted, each with its chapter."""
    lines = [
        MADE_FROM.format("glossary.toml") + "# Glossary",
        "",
        "The terms of the field as the course uses them: in English and Chinese, the name that",
        "they have in the code, and the chapter that uses them first. `minillm glossary WORD`",
        "looks one up.",
        "",
        "| term | 中文 | in code | what it is | chapter |",
        "|---|---|---|---|---|",
    ]
    for term in sorted(glossary.load(root / "course/glossary.toml"), key=lambda t: t.term.lower()):
        code = f"`{term.identifier}`" if term.identifier else ""
        meaning = term.meaning.replace("|", r"\|")
        lines.append(f"| {term.term} | {term.chinese} | {code} | {meaning} | {term.chapter} |")
    return "\n".join(lines) + "\n"


PAGES: dict[str, Callable[[Path], str]] = {
    "course/LIBRARY.md": library_page,
    "course/CLAIMS.md": claims_page,
    "course/GLOSSARY.md": glossary_page,
}
BLOCKS: dict[str, Callable[[Path], str]] = {
    "chapters": chapter_table,
    "parts": part_table,
    "claims": surprising_claims,
}


def first_sentence(text: str) -> str:
    """Up to the first full stop that ends a sentence.

    Example:
        >>> first_sentence("Count bytes, e.g. of weights. Plain numbers.")
        'Count bytes, e.g. of weights'
    """
    return re.split(r"\.(?= [A-Z`])", text, maxsplit=1)[0].rstrip(".")


def current(readme: str, name: str) -> str | None:
    """What a README holds between the marks of one table, or None if it lacks the marks."""
    match = _between(name).search(readme)
    return match[1] if match else None


def with_block(readme: str, name: str, text: str) -> str:
    """A README with one table replaced.

    Raises:
        ValueError: it lacks the table's marks.
    """
    if current(readme, name) is None:
        raise ValueError(
            f"README.md needs the lines <!-- {name} --> and <!-- /{name} -->; the table goes there."
        )
    return _between(name).sub(lambda _: f"<!-- {name} -->\n{text}<!-- /{name} -->", readme)


def _between(name: str) -> re.Pattern[str]:
    return re.compile(rf"<!-- {name} -->\n(.*?)<!-- /{name} -->", re.DOTALL)


def out_of_date(root: Path, names: list[str] | None = None) -> list[str]:
    """The pages and tables of a checkout that are not what the course would make."""
    readme = _text(root / "README.md") or ""
    findings = []
    for name in names or [*PAGES, *BLOCKS]:
        if name in PAGES:
            held, where, new = _text(root / name), name, PAGES[name](root)
        else:
            held, where, new = (
                current(readme, name),
                f"README.md <!-- {name} -->",
                BLOCKS[name](root),
            )
        if held is None:
            findings.append(f"{where} is missing")
        elif held != new:
            findings.append(f"{where} is out of date; run `python -m tools.documents --write`")
    return findings


def write(root: Path) -> None:
    """Write every page, and every table of the README."""
    for name, make in PAGES.items():
        (root / name).write_text(make(root), encoding="utf-8", newline="\n")
    readme = (root / "README.md").read_text(encoding="utf-8")
    for name, make in BLOCKS.items():
        readme = with_block(readme, name, make(root))
    (root / "README.md").write_text(readme, encoding="utf-8", newline="\n")


def _text(path: Path) -> str | None:
    return path.read_text(encoding="utf-8") if path.exists() else None


def main(words: list[str]) -> int:
    """Say what is out of date, or write it."""
    if words not in ([], ["--write"]):
        print("python -m tools.documents [--write]", file=sys.stderr)
        return 2
    if words:
        write(ROOT)
    findings = out_of_date(ROOT)
    print("\n".join(findings or ["the documents are up to date"]))
    return 1 if findings else 0


if __name__ == "__main__":
    from minillm.lab.program import program

    with program("tools.documents"):
        sys.exit(main(sys.argv[1:]))
