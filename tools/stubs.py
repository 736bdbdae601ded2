"""Generate what the learner starts from: ``exercises/`` and the notebooks' task cells.

Both come from ``solutions/``, by taking out what stands between BEGIN SOLUTION and END SOLUTION.
``python -m tools.stubs`` writes them; ``--check`` only says whether they have drifted.
"""

import argparse
import ast
import re
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
BLOCK = re.compile(
    r"^(?P<indent> *)# BEGIN SOLUTION\n.*?^ *# END SOLUTION\n", re.MULTILINE | re.DOTALL
)


def stub(source: str) -> str:
    """The module or function with each solution replaced by ``raise NotImplementedError``.

    Raises:
        ValueError: a marker has no partner.
    """
    text = BLOCK.sub(lambda m: f"{m['indent']}raise NotImplementedError\n", source)
    if "# BEGIN SOLUTION" in text or "# END SOLUTION" in text:
        raise ValueError("each # BEGIN SOLUTION needs its # END SOLUTION, on lines of their own.")
    return text


def exercise(path: Path) -> str:
    """The text of ``exercises/chNN_slug.py`` for a solutions file."""
    text = stub(path.read_text(encoding="utf-8"))
    return text.replace('"""Worked answers to', '"""Tasks of', 1)


def task_functions(source: str) -> dict[str, str]:
    """Task id → source of the decorated function, in order."""
    lines = source.splitlines(keepends=True)
    found = {}
    for node in ast.parse(source).body:
        for decorator in getattr(node, "decorator_list", []):
            if isinstance(decorator, ast.Call) and getattr(decorator.func, "id", "") == "task":
                start = min(d.lineno for d in node.decorator_list) - 1
                found[decorator.args[0].value] = "".join(lines[start : node.end_lineno]).rstrip()
    return found


def stub_cells(root: Path = ROOT) -> dict[str, str]:
    """Task id → the notebook cell's source, for every chapter."""
    return {
        task: text
        for path in sorted((root / "solutions").glob("ch*.py"))
        for task, text in task_functions(stub(path.read_text(encoding="utf-8"))).items()
    }


def refresh_cells(notebook, root: Path = ROOT) -> None:
    """Write the current stubs into a notebook's task cells.

    Raises:
        ValueError: a task cell names a task that has no solution.
    """
    cells = stub_cells(root)
    for cell in notebook.cells:
        if "task" not in cell.metadata.get("tags", []):
            continue
        named = re.search(r"@task\(\"([^\"]+)\"", cell.source)
        if named is None or named[1] not in cells:
            raise ValueError(
                f"a cell tagged `task` names no task of solutions/: {cell.source[:60]!r}"
            )
        cell.source = cells[named[1]]


def drift(root: Path = ROOT) -> list[str]:
    """Files of ``exercises/`` that are not what ``solutions/`` would make."""
    found = []
    for path in sorted((root / "solutions").glob("ch*.py")):
        target = root / "exercises" / path.name
        if not target.exists() or target.read_text(encoding="utf-8") != exercise(path):
            found.append(
                f"exercises/{path.name} differs from solutions/{path.name}: make exercises"
            )
    for path in sorted((root / "exercises").glob("ch*.py")):
        if not (root / "solutions" / path.name).exists():
            found.append(f"exercises/{path.name} has no solutions/{path.name}")
    return found


def main() -> int:
    """Write the stubs, or with ``--check`` say which have drifted."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--check", action="store_true", help="write nothing; exit 1 on drift")
    arguments = parser.parse_args()
    drifted = drift()
    if arguments.check:
        print("\n".join(drifted) or "exercises/ is up to date")
        return 1 if drifted else 0
    for path in sorted((ROOT / "solutions").glob("ch*.py")):
        target = ROOT / "exercises" / path.name
        text = exercise(path)
        changed = not target.exists() or target.read_text(encoding="utf-8") != text
        if changed:
            target.write_text(text, encoding="utf-8", newline="\n")
        print(f"exercises/{path.name}: {'written' if changed else 'unchanged'}")
    return 0


if __name__ == "__main__":
    from minillm.lab.program import program

    with program("tools.stubs"):
        sys.exit(main())
