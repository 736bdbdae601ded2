"""The one form in which git holds a notebook, and the cells that are generated from facts.

Two people who run the same chapter must get the same bytes. So a notebook keeps its sources, its
outputs and its tags, and loses everything that tells who ran it, when, and in which program.
"""

from __future__ import annotations

import copy
import hashlib
import re
from collections.abc import Iterable, Sequence
from typing import Any

import nbformat
from nbformat import NotebookNode

TAGS = frozenset({"nbval-ignore-output", "raises-exception", "hide-input", "task", "teaches-step"})
IGNORED = "nbval-ignore-output"

METADATA = {
    "kernelspec": {"display_name": "Python 3 (ipykernel)", "language": "python", "name": "python3"},
    "language_info": {"name": "python"},
}

_OVERWRITTEN = re.compile(r"^.*\r(?=[^\n])", re.MULTILINE)


def canonical(notebook: NotebookNode) -> NotebookNode:
    """Return the canonical form of a notebook; the argument is left alone.

    Executed code cells are counted 1, 2, 3 from the top. A cell that was never executed keeps its
    empty count, so that putting a notebook into this form cannot hide that it was never run.
    Unknown tags stay too: they are an author's slip, for the checks to name.

    Example:
        >>> from nbformat.v4 import new_notebook, new_markdown_cell
        >>> canonical(new_notebook(cells=[new_markdown_cell("# Town")])).cells[0].id
        '0d35b9dd'
    """
    cells, seen, count = [], {}, 0
    for cell in notebook.cells:
        source = clean_source(cell.source)
        fresh = NotebookNode(cell_type=cell.cell_type, source=source)
        tags = sorted(set(cell.metadata.get("tags", [])))
        fresh.metadata = NotebookNode(tags=tags) if tags else NotebookNode()
        identity = cell_id(cell.cell_type, source)
        seen[identity] = seen.get(identity, 0) + 1
        fresh.id = identity if seen[identity] == 1 else f"{identity}-{seen[identity]}"
        if cell.cell_type == "code":
            executed = cell.get("execution_count") is not None
            count += executed
            fresh.execution_count = count if executed else None
            fresh.outputs = canonical_outputs(cell.get("outputs", []), fresh.execution_count)
        cells.append(fresh)
    metadata = nbformat.from_dict(copy.deepcopy(METADATA))
    return NotebookNode(cells=cells, metadata=metadata, nbformat=4, nbformat_minor=5)


def dumps(notebook: NotebookNode) -> str:
    """Return the text of the notebook's file: sorted keys, indent 1, one newline at the end."""
    return nbformat.writes(notebook, version=4).rstrip("\n") + "\n"


def cell_id(cell_type: str, source: str) -> str:
    """Return the id of a cell, which depends on its kind and content and on nothing else."""
    digest = hashlib.sha1((cell_type + source).encode("utf-8"), usedforsecurity=False)
    return digest.hexdigest()[:8]


def clean_source(source: str) -> str:
    """Return a source without blank lines at its ends and without `\\r`."""
    lines = re.sub(r"\r\n?", "\n", source).rstrip()
    return re.sub(r"\A(?:\s*\n)+", "", lines)


def canonical_outputs(outputs: Iterable[Any], count: int | None) -> list[NotebookNode]:
    """Return a cell's outputs in canonical form.

    Neighbouring chunks of a stream become one, text overwritten by `\\r` is dropped, a traceback
    becomes its last line (the others name files of one machine), and of the metadata only the
    alternative text of an image stays.
    """
    kept: list[NotebookNode] = []
    for output in outputs:
        if output.output_type == "stream":
            if kept and kept[-1].output_type == "stream" and kept[-1].name == output.name:
                kept[-1].text += output.text
            else:
                kept.append(NotebookNode(output_type="stream", name=output.name, text=output.text))
        elif output.output_type == "error":
            line = f"{output.ename}: {output.evalue}" if output.evalue else output.ename
            kept.append(
                NotebookNode(
                    output_type="error", ename=output.ename, evalue=output.evalue, traceback=[line]
                )
            )
        else:
            shown = NotebookNode(output_type=output.output_type)
            shown.data = copy.deepcopy(output.data)
            shown.metadata = _alternative_text(output.get("metadata", {}))
            if output.output_type == "execute_result":
                shown.execution_count = count
            kept.append(shown)
    for output in kept:
        if output.output_type == "stream":
            output.text = final_text(output.text)
    return kept


def final_text(text: str) -> str:
    """Return what stays on the screen when `\\r` has overwritten the beginnings of lines."""
    return _OVERWRITTEN.sub("", re.sub(r"\r+\n", "\n", text))


def _alternative_text(metadata: Any) -> NotebookNode:
    kept = NotebookNode()
    if "alt" in metadata:
        kept.alt = metadata["alt"]
    for mime, facts in metadata.items():
        if mime.startswith("image/") and "alt" in facts:
            kept[mime] = NotebookNode(alt=facts["alt"])
    return kept


def number(value: int | str) -> str:
    """Return a chapter's number as it is printed: `00`, `07`, `30`, `A`."""
    text = str(value)
    return f"{int(text):02d}" if text.isdigit() else text


def title_cell(chapter: Any, lab: bool = False) -> str:
    """Return the first cell of a chapter (or of its lab), made from `course/syllabus.toml`.

    Args:
        chapter: anything with the fields of `minillm.lab.project.Chapter`.
        lab: whether it is the chapter's optional lab notebook.
    """
    name = number(chapter.number)
    if lab:
        home = f"[chapter {name}](../{name}_{chapter.slug}.ipynb)"
        return f"# {name} · {chapter.title} · lab\n\nOptional depth beside {home}."
    needs = [number(each) for each in chapter.needs]
    before = f"chapter{'s' if len(needs) > 1 else ''} {', '.join(needs)}" if needs else "nothing"
    facts = [f"{chapter.minutes} minutes", f"before it: {before}"]
    if chapter.builds:
        facts.append("you build: " + ", ".join(f"`{path}`" for path in chapter.builds))
    in_lab = getattr(chapter, "lab_tasks", ())
    if tasks := [task for task in chapter.tasks if task not in in_lab]:
        facts.append("tasks: " + span(tasks))
    if in_lab:
        facts.append("in the lab: " + span(in_lab))
    return f"# {name} · {chapter.title}\n\n{chapter.promise}\n\n*{' · '.join(facts)}*"


def span(tasks: Sequence[str]) -> str:
    """Return task ids in one phrase: a run of three or more by its two ends.

    Example:
        >>> span(["1.1", "1.2"])
        '1.1, 1.2'
        >>> span(["1.1", "1.2", "1.3"]) == "1.1\\N{EN DASH}1.3"
        True
    """
    heads = {task.rpartition(".")[0] for task in tasks}
    lasts = [task.rpartition(".")[2] for task in tasks]
    in_a_row = all(last.isdigit() for last in lasts) and [int(last) for last in lasts] == list(
        range(int(lasts[0]), int(lasts[0]) + len(lasts))
    )
    if len(tasks) > 2 and len(heads) == 1 and in_a_row:
        return f"{tasks[0]}\N{EN DASH}{tasks[-1]}"
    return ", ".join(tasks)
