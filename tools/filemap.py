"""The README's map of the library, made from the modules' own docstrings.

``python -m tools.filemap`` prints it; ``--write`` puts it into README.md, between the two marks.
"""

import re
import sys
from pathlib import Path

from minillm.lab.map import modules

ROOT = Path(__file__).resolve().parents[1]
OPENS, CLOSES = "<!-- map -->", "<!-- /map -->"
BLOCK = re.compile(re.escape(OPENS) + r"\n(.*?)" + re.escape(CLOSES), re.DOTALL)


def render(root: Path = ROOT) -> str:
    """The map: each part, and below it each module with its chapter and one clause."""
    lines, part = ["```text"], None
    for module in modules(root):
        if module.part != part:
            part = module.part
            lines.append(f"minillm/{part}/" if part else "minillm/")
        name = f"{module.name}.py"
        lines.append(f"  {name:<19}{module.chapter:>4}  {first_sentence(module.clause)}")
    return "\n".join([*lines, "```"]) + "\n"


def first_sentence(text: str) -> str:
    """Up to the first full stop that ends a sentence.

    Example:
        >>> first_sentence("Count bytes, e.g. of weights. Plain numbers.")
        'Count bytes, e.g. of weights'
    """
    return re.split(r"\.(?= [A-Z`])", text, maxsplit=1)[0].rstrip(".")


def current(readme: str) -> str | None:
    """The map that a README holds, or None if it has no place for one."""
    found = BLOCK.search(readme)
    return found[1] if found else None


def with_map(readme: str, text: str) -> str:
    """A README with its map replaced.

    Raises:
        ValueError: it has no place for a map.
    """
    if current(readme) is None:
        raise ValueError(f"README.md needs the lines {OPENS} and {CLOSES}; the map goes between.")
    return BLOCK.sub(lambda _: f"{OPENS}\n{text}{CLOSES}", readme)


def main(words: list[str]) -> int:
    """Print the map, or write it."""
    if words not in ([], ["--write"]):
        print("python -m tools.filemap [--write]", file=sys.stderr)
        return 2
    if not words:
        print(render(), end="")
        return 0
    path = ROOT / "README.md"
    readme = path.read_text(encoding="utf-8")
    try:
        path.write_text(with_map(readme, render()), encoding="utf-8", newline="\n")
    except ValueError as error:
        print(error, file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
