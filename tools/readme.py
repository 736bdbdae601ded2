"""The parts of README.md that are made from the course itself: chapters, claims, and the map.

``python -m tools.readme`` prints what each part should be; ``--write`` puts them into README.md,
each between its two marks.
"""

import re
import sys
from collections.abc import Callable
from pathlib import Path

from minillm.lab import claims
from minillm.lab.map import modules
from minillm.lab.project import syllabus

ROOT = Path(__file__).resolve().parents[1]


def the_chapters(_: Path = ROOT) -> str:
    """A table of the chapters that can be opened, and one line on those to come."""
    lines = ["| | chapter | what you will see | minutes |", "|---|---|---|---|"]
    ready = [chapter for chapter in syllabus() if chapter.finished]
    for chapter in ready:
        title = f"[{chapter.title}](course/{chapter.name}.ipynb)"
        if chapter.lab:
            title += f" · [lab](course/labs/{chapter.name}.ipynb)"
        lines.append(f"| {chapter.number} | {title} | {chapter.headline} | {chapter.minutes} |")
    coming = [f"{c.number} {c.title}" for c in syllabus() if not c.finished]
    if coming:
        lines += ["", f"To come: {' · '.join(coming)}."]
    return "\n".join(lines) + "\n"


def the_claims(_: Path = ROOT) -> str:
    """How many claims have which verdict, and a table of those that took more than arithmetic."""
    ledger = claims.load()
    measured = {measurement.claim for measurement in claims.all_measurements()}
    settled = [claim for claim in ledger if claim.verdict == "follows by arithmetic"]
    lines = [
        f"{len(ledger)} claims so far, {sum(claim.id in measured for claim in ledger)} of them "
        f"measured in a notebook whose output is checked. {len(settled)} follow by arithmetic; "
        "`minillm claims` lists them all. The others:",
        "",
        "| claim | verdict | chapter |",
        "|---|---|---|",
    ]
    others = [claim for claim in ledger if claim not in settled]
    lines += [f"| {claim.claim} | {claim.verdict} | {claim.chapter} |" for claim in others]
    return "\n".join(lines) + "\n"


def the_map(root: Path = ROOT) -> str:
    """Each part of the library, and below it each module with its chapter and one clause."""
    lines, part = ["```text"], None
    for module in modules(root):
        if module.part != part:
            part = module.part
            lines.append(f"minillm/{part}/" if part else "minillm/")
        name = f"{module.name}.py"
        lines.append(f"  {name:<19}{module.chapter:>4}  {first_sentence(module.clause)}")
    return "\n".join([*lines, "```"]) + "\n"


BLOCKS: dict[str, Callable[[Path], str]] = {
    "chapters": the_chapters,
    "claims": the_claims,
    "map": the_map,
}


def first_sentence(text: str) -> str:
    """Up to the first full stop that ends a sentence.

    Example:
        >>> first_sentence("Count bytes, e.g. of weights. Plain numbers.")
        'Count bytes, e.g. of weights'
    """
    return re.split(r"\.(?= [A-Z`])", text, maxsplit=1)[0].rstrip(".")


def current(readme: str, name: str) -> str | None:
    """What a README holds between the marks of one part, or None if it lacks the marks."""
    found = _between(name).search(readme)
    return found[1] if found else None


def with_block(readme: str, name: str, text: str) -> str:
    """A README with one part replaced.

    Raises:
        ValueError: it lacks the part's marks.
    """
    if current(readme, name) is None:
        raise ValueError(
            f"README.md needs the lines <!-- {name} --> and <!-- /{name} -->; the part goes there."
        )
    return _between(name).sub(lambda _: f"<!-- {name} -->\n{text}<!-- /{name} -->", readme)


def out_of_date(root: Path, names: list[str] | None = None) -> list[str]:
    """The parts of a checkout's README that are not what the course would make."""
    path = root / "README.md"
    readme = path.read_text(encoding="utf-8") if path.exists() else ""
    found = []
    for name in names or BLOCKS:
        held = current(readme, name)
        if held is None:
            found.append(f"README.md has no part <!-- {name} --> … <!-- /{name} -->")
        elif held != BLOCKS[name](root):
            found.append(
                f"README.md: its part `{name}` is out of date; run `python -m tools.readme --write`"
            )
    return found


def _between(name: str) -> re.Pattern[str]:
    return re.compile(rf"<!-- {name} -->\n(.*?)<!-- /{name} -->", re.DOTALL)


def main(words: list[str]) -> int:
    """Print the parts, or write them."""
    if words not in ([], ["--write"]):
        print("python -m tools.readme [--write]", file=sys.stderr)
        return 2
    path = ROOT / "README.md"
    readme = path.read_text(encoding="utf-8")
    for name, make in BLOCKS.items():
        if words:
            readme = with_block(readme, name, make(ROOT))
        else:
            print(f"<!-- {name} -->\n{make(ROOT)}<!-- /{name} -->\n")
    if words:
        path.write_text(readme, encoding="utf-8", newline="\n")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
