"""Run the course's notebooks and write them in canonical form; edit them as text.

    python -m tools.notebooks [NB …] [--refresh]     run all notebooks, or only 01, labs/00
    python -m tools.notebooks edit NB                write .edit/NN_slug.py for any text editor

What is edited as text is taken back by the next run. While a cell's source is unchanged, a stored
output that counts as equal to the new one stays, so that running an unchanged chapter changes no
byte of its file; `--refresh` takes every new output.
"""

from __future__ import annotations

import argparse
import difflib
import hashlib
import importlib.util
import json
import os
import re
import sys
import tempfile
import textwrap
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import nbformat
from nbformat import NotebookNode

from tools.canonical import IGNORED, TAGS, canonical, dumps, number, title_cell
from tools.compare import same_outputs

ROOT = Path(__file__).resolve().parents[1]
CELL_SECONDS = 270

_COLOUR = re.compile(r"\x1b\[[0-9;]*[A-Za-z]")
_TEXT_FORMAT = "py:percent"


class Refused(ValueError):
    """What an author has to settle first; the message says how."""


@dataclass(frozen=True)
class Document:
    """One notebook of the course: its file, its text for editing, and what ties the two."""

    root: Path
    name: str  # 01_tokenizer, labs/00_claims

    @property
    def lab(self) -> bool:
        return self.name.startswith("labs/")

    @property
    def number(self) -> str:
        return self.name.removeprefix("labs/").partition("_")[0]

    @property
    def short(self) -> str:
        return f"labs/{self.number}" if self.lab else self.number

    @property
    def notebook(self) -> Path:
        return self.root / "course" / f"{self.name}.ipynb"

    @property
    def text(self) -> Path:
        return self.root / ".edit" / f"{self.name.replace('/', '_')}.py"

    @property
    def record(self) -> Path:
        return self.text.with_suffix(".json")


def documents(root: Path = ROOT) -> list[Document]:
    """Return every notebook that exists, or is begun as text; chapters first, then labs."""
    course = root / "course"
    names = {path.stem for path in course.glob("*.ipynb")}
    names |= {f"labs/{path.stem}" for path in (course / "labs").glob("*.ipynb")}
    for path in (root / ".edit").glob("*.py"):
        lab = path.stem.startswith("labs_")
        names.add(f"labs/{path.stem.removeprefix('labs_')}" if lab else path.stem)
    return [Document(root, name) for name in sorted(names, key=lambda n: ("/" in n, n))]


def find(wanted: str, root: Path = ROOT, chapters: Sequence[Any] = ()) -> Document:
    """Return the notebook that an author means by `1`, `01`, `01_tokenizer` or `labs/00`.

    Raises:
        Refused: there is no such notebook; the message lists those that there are.
    """
    name = wanted.removeprefix("course/").removesuffix(".ipynb")
    lab = name.startswith("labs/")
    wanted_number = number(name.removeprefix("labs/").partition("_")[0])
    known = documents(root)
    for document in known:
        if document.lab == lab and document.number == wanted_number:
            return document
    for chapter in chapters:
        if number(chapter.number) == wanted_number:
            stem = f"{wanted_number}_{chapter.slug}"
            return Document(root, f"labs/{stem}" if lab else stem)
    there = ", ".join(document.short for document in known) or "none yet"
    raise Refused(
        f"There is no notebook {wanted!r}. There are: {there}. A new one begins with its entry in "
        "course/syllabus.toml and `make edit NB=NN`."
    )


# --------------------------------------------------------------------------- notebook and text


def read(path: Path) -> NotebookNode | None:
    """Return a notebook in canonical form, or None if there is no such file."""
    if not path.exists():
        return None
    try:
        return canonical(nbformat.reads(path.read_text(encoding="utf-8"), as_version=4))
    except (nbformat.reader.NotJSONError, KeyError, AttributeError) as error:
        raise Refused(
            f"{path.name} is not a notebook that can be read: {error}. If git left conflict marks "
            "in it, take one side (git checkout --ours or --theirs) and run make notebooks."
        ) from None


def to_text(notebook: NotebookNode) -> str:
    """Return a notebook's inputs as py:percent text."""
    import jupytext

    inputs = nbformat.v4.new_notebook()
    inputs.metadata["jupytext"] = {
        "notebook_metadata_filter": "-all",
        "cell_metadata_filter": "tags,-all",
    }
    for cell in notebook.cells:
        make = getattr(nbformat.v4, f"new_{cell.cell_type}_cell")
        inputs.cells.append(make(cell.source, metadata=dict(cell.metadata)))
    return jupytext.writes(inputs, fmt=_TEXT_FORMAT)


def from_text(text: str) -> NotebookNode:
    """Return the notebook of a py:percent text, canonical and never executed."""
    import jupytext

    notebook = jupytext.reads(text, fmt=_TEXT_FORMAT)
    notebook.cells = [cell for cell in notebook.cells if cell.source.strip()]
    return canonical(notebook)


def inputs_hash(notebook: NotebookNode) -> str:
    """Return a hash of what an author writes: kinds, sources and tags, but no outputs."""
    inputs = [
        (cell.cell_type, cell.source, cell.metadata.get("tags", [])) for cell in notebook.cells
    ]
    return hashlib.sha256(json.dumps(inputs).encode("utf-8")).hexdigest()


@dataclass(frozen=True)
class Sides:
    """Both forms of a notebook, and which of them changed since they last agreed."""

    stored: NotebookNode | None
    edited: NotebookNode | None
    stored_changed: bool
    edited_changed: bool


def sides(document: Document) -> Sides:
    """Compare a notebook and its text with the hashes of when they last agreed."""
    stored = read(document.notebook)
    if not document.text.exists():
        return Sides(stored, None, False, False)
    edited = from_text(document.text.read_text(encoding="utf-8"))
    if stored is not None and inputs_hash(stored) == inputs_hash(edited):
        return Sides(stored, edited, False, False)
    agreed = json.loads(document.record.read_text("utf-8")) if document.record.exists() else {}
    return Sides(
        stored,
        edited,
        stored is not None and inputs_hash(stored) != agreed.get("notebook"),
        inputs_hash(edited) != agreed.get("text"),
    )


def settle(document: Document, keep: str | None = None) -> Sides:
    """Return both sides, at most one of them changed.

    Raises:
        Refused: both changed and `keep` does not say which to keep.
    """
    found = sides(document)
    if found.edited is None or found.stored is None:
        return found
    if keep:
        return Sides(found.stored, found.edited, keep == "notebook", keep == "text")
    if found.stored_changed and found.edited_changed:
        edit = document.text.relative_to(document.root).as_posix()
        notebook = document.notebook.relative_to(document.root).as_posix()
        diff = difflib.unified_diff(
            to_text(found.stored).splitlines(),
            to_text(found.edited).splitlines(),
            notebook,
            edit,
            lineterm="",
        )
        raise Refused(
            f"{document.name}: {notebook} and {edit} both changed since they last agreed.\n"
            + "\n".join(diff)
            + "\nNothing was written. Take over by hand what you want of one into the other; then\n"
            f"  python -m tools.notebooks {document.short} --keep text       keeps {edit}\n"
            f"  python -m tools.notebooks {document.short} --keep notebook   keeps {notebook}"
        )
    return found


def write_sides_agree(document: Document, notebook: NotebookNode, text: str) -> None:
    """Write the text, if it is not there already, and record that both sides agree."""
    _write(document.text, text)
    agreed = {
        "notebook": inputs_hash(notebook) if document.notebook.exists() else None,
        "text": inputs_hash(from_text(text)),
    }
    _write(document.record, json.dumps(agreed, indent=1, sort_keys=True) + "\n")


def edit(document: Document, chapters: Sequence[Any] = (), keep: str | None = None) -> str:
    """Write a notebook as text, and say in one line what was done.

    Raises:
        Refused: both sides changed, a cell cannot be written as text, or there is nothing to edit.
    """
    found = settle(document, keep)
    shown = document.text.relative_to(document.root).as_posix()
    take_back = f"make notebooks NB={document.short}"
    if found.edited is not None and found.edited_changed:
        return f"{shown} holds changes that are not yet in the notebook: {take_back}"
    if found.stored is None and found.edited is not None:
        return f"{shown} is the beginning of a new notebook; when it is ready: {take_back}"
    if found.stored is None:
        write_sides_agree(document, from_text(""), template(_chapter(document, chapters), document))
        return f"{shown} begins a new notebook; when it is ready: {take_back}"
    text = to_text(found.stored)
    if inputs_hash(from_text(text)) != inputs_hash(found.stored):
        pairs = zip(found.stored.cells, from_text(text).cells, strict=False)
        odd = next((c.source for c, d in pairs if c.source != d.source), "the last cells")
        raise Refused(
            f"{document.name}: this cell does not survive as py:percent text, edit it in Jupyter "
            f"(a line that begins with `# %%`?):\n{textwrap.indent(odd, '  ')}"
        )
    write_sides_agree(document, found.stored, text)
    return f"{shown}; take it back with {take_back}"


def _chapter(document: Document, chapters: Sequence[Any]) -> Any:
    for chapter in chapters:
        if number(chapter.number) == document.number:
            return chapter
    raise Refused(f"{document.name} has no [[chapter]] in course/syllabus.toml; write it first.")


def template(chapter: Any, document: Document) -> str:
    """Return the text that a new notebook begins with: the parts that every chapter has."""
    name = document.number
    parts = [
        ("[markdown]", title_cell(chapter, document.lab)),
        ("", "from minillm.lab.setup import setup\n\nsetup(seed=0)"),
        ("[markdown]", "## A question, with a worked number before any formula"),
        ("", 'answer = predict("what, in which unit", guess=None)'),
        ("[markdown]", "Build it on numbers small enough for paper; import it; hold both equal."),
        ('tags=["task"]', f'@task("{name.lstrip("0") or "0"}.1", minutes=5)'),
        ("[markdown]", f"## {getattr(chapter, 'headline', '')}".rstrip()),
        ("", 'publish(fig, alt="what the figure shows, in one sentence")'),
        ("[markdown]", "## What was said, what we measured"),
        ("", 'expect("a sentence with a number", 1, at_least=1, claim="id-in-claims-toml")'),
        ("[markdown]", "## Recap\n\nWhat to keep, what to read, and where to go on."),
    ]
    cells = []
    for kind, source in parts:
        if kind == "[markdown]":
            source = "\n".join(f"# {line}".rstrip() for line in source.split("\n"))
        cells.append(f"# %% {kind}".rstrip() + f"\n{source}\n")
    return "\n".join(cells)


# --------------------------------------------------------------------------- run and write


def generated(
    notebook: NotebookNode, document: Document, chapters: Sequence[Any] = ()
) -> NotebookNode:
    """Return a notebook whose title and task cells are the generated ones.

    Raises:
        Refused: a cell has an unknown tag, which would be without any effect.
    """
    for place, cell in enumerate(notebook.cells):
        if unknown := set(cell.metadata.get("tags", [])) - TAGS:
            raise Refused(
                f"{document.name}: cell {place + 1} has the tag {sorted(unknown)[0]!r}; "
                f"known tags: {', '.join(sorted(TAGS))}."
            )
    notebook = nbformat.from_dict(notebook)
    for chapter in chapters:
        if number(chapter.number) == document.number and notebook.cells:
            first = notebook.cells[0]
            if first.cell_type == "markdown" and first.source.startswith("# "):
                first.source = title_cell(chapter, document.lab)
    if document.root == ROOT and importlib.util.find_spec("tools.stubs"):
        from tools.stubs import refresh_cells

        refresh_cells(notebook)
    return canonical(notebook)


def kernel_environment(scratch: Path) -> dict[str, str]:
    """Return what a kernel of the build sees beside the usual environment.

    The library of this checkout, no learner's folder, and IPython's own files out of the way.
    """
    search = [str(ROOT), os.environ.get("PYTHONPATH", "")]
    return {
        "MINILLM_BUILD": "1",
        "MINILLM_MY": str(scratch / "my"),
        "IPYTHONDIR": str(scratch / "ipython"),
        "PYTHONPATH": os.pathsep.join(each for each in search if each),
    }


def execute(
    notebook: NotebookNode,
    folder: Path,
    name: str = "notebook",
    environment: Mapping[str, str] | None = None,
    cell_seconds: int = CELL_SECONDS,
) -> NotebookNode:
    """Run a copy of a notebook from top to bottom in a kernel of this Python and return it.

    Args:
        notebook: what to run.
        folder: the kernel's working directory.
        name: what messages call the notebook.
        environment: further variables for the kernel, on top of `kernel_environment`.
        cell_seconds: how long one cell may take.

    Raises:
        Refused: a cell failed, took too long, or the kernel died; the message shows the cell.
    """
    from ipykernel.kernelspec import get_kernel_dict
    from jupyter_client.kernelspec import KernelSpec, KernelSpecManager
    from jupyter_client.manager import AsyncKernelManager
    from nbclient import NotebookClient
    from nbclient.exceptions import CellExecutionError, CellTimeoutError, DeadKernelError

    class ThisPython(KernelSpecManager):
        """A kernel that somebody installed as `python3` may belong to another environment."""

        def get_kernel_spec(self, kernel_name: str) -> KernelSpec:
            return KernelSpec(**get_kernel_dict())

    fresh = canonical(notebook)
    place, raised = 0, ""

    def starting(cell: NotebookNode, cell_index: int) -> None:
        nonlocal place
        place = cell_index

    def failing(cell: NotebookNode, cell_index: int, execute_reply: dict[str, Any]) -> None:
        nonlocal raised
        raised = _COLOUR.sub("", "\n".join(execute_reply["content"]["traceback"]))

    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as scratch:
        added = kernel_environment(Path(scratch)) | dict(environment or {})
        client = NotebookClient(
            fresh,
            km=AsyncKernelManager(kernel_name="python3", kernel_spec_manager=ThisPython()),
            timeout=cell_seconds,
            record_timing=False,
            store_widget_state=False,
            coalesce_streams=False,
            on_cell_start=starting,
            on_cell_error=failing,
        )
        with (Path(scratch) / "kernel.txt").open("w+", encoding="utf-8") as said:
            try:
                client.execute(
                    cwd=str(folder), env={**os.environ, **added}, stderr=said, cleanup_kc=True
                )
            except CellTimeoutError:
                raise Refused(
                    _failure(name, fresh, place, f"it took longer than {cell_seconds} seconds")
                ) from None
            except CellExecutionError:
                raise Refused(_failure(name, fresh, place, raised)) from None
            except (DeadKernelError, RuntimeError) as error:
                said.seek(0)
                last = "\n".join([str(error), *said.read().splitlines()[-8:]])
                raise Refused(_failure(name, fresh, place, last)) from None
    return fresh


def _failure(name: str, notebook: NotebookNode, place: int, reason: str) -> str:
    count = sum(cell.cell_type == "code" for cell in notebook.cells[: place + 1])
    return (
        f"{name}: code cell {count} (cell {place + 1} of {len(notebook.cells)}) failed, "
        f"nothing was written.\n{textwrap.indent(notebook.cells[place].source, '    ')}\n"
        f"{textwrap.indent(reason.strip(), '  ')}"
    )


def keep_stored(
    stored: NotebookNode | None, fresh: NotebookNode, refresh: bool = False
) -> NotebookNode:
    """Return the fresh notebook with each stored output that still stands for the fresh one.

    A cell is the stored one while its source is; its output stays if `tools.compare` calls the
    new one equal, or if the cell's output is ignored anyway.
    """
    result = canonical(fresh)
    if stored is None or refresh:
        return result
    before = {cell.id: cell for cell in canonical(stored).cells if cell.cell_type == "code"}
    for cell in result.cells:
        old = before.get(cell.id)
        if cell.cell_type == "code" and old is not None and old.execution_count is not None:
            ignored = IGNORED in cell.metadata.get("tags", [])
            if ignored or same_outputs(old, cell):
                cell.outputs = old.outputs
    return canonical(result)


def changed_cells(stored: NotebookNode | None, notebook: NotebookNode) -> int:
    """Return how many cells are new, gone, or not as they were (counts aside)."""

    def facts(cell: NotebookNode) -> str:
        plain = nbformat.from_dict(cell)
        plain.pop("execution_count", None)
        for output in plain.get("outputs", []):
            output.pop("execution_count", None)
        return json.dumps(plain, sort_keys=True)

    before = {cell.id: facts(cell) for cell in stored.cells} if stored else {}
    after = {cell.id: facts(cell) for cell in notebook.cells}
    gone = sum(key not in after for key in before)
    new = sum(key not in before for key in after)
    other = sum(before[key] != after[key] for key in before if key in after)
    return max(gone, new) + other


def build(
    document: Document,
    chapters: Sequence[Any] = (),
    refresh: bool = False,
    keep: str | None = None,
) -> str:
    """Run one notebook, write it if it changed, and say in one line what happened.

    Raises:
        Refused: what the author has to settle first; nothing was written then.
    """
    began = time.perf_counter()
    found = settle(document, keep)
    takes_text = found.edited is not None and (found.edited_changed or found.stored is None)
    notebook = generated(found.edited if takes_text else found.stored, document, chapters)
    fresh = execute(notebook, document.notebook.parent, document.name)
    result = keep_stored(found.stored, fresh, refresh)
    count = changed_cells(found.stored, result)
    written = _write(document.notebook, dumps(result))
    if found.edited is not None:
        write_sides_agree(document, result, to_text(result))
    cells = f"{count} cell{'' if count == 1 else 's'} changed" if count else "only its form changed"
    what = f"written, {cells}" if written else "unchanged"
    return f"{document.name}: {what} ({time.perf_counter() - began:.0f} s)"


def _write(path: Path, text: str) -> bool:
    """Write a file whole or not at all, and only if that changes it; say whether it did."""
    data = text.encode("utf-8")
    if path.exists() and path.read_bytes() == data:
        return False
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_name(f".{path.name}.{os.getpid()}.part")
    try:
        part.write_bytes(data)
        os.replace(part, path)
    finally:
        part.unlink(missing_ok=True)
    return True


def main(words: Sequence[str] | None = None) -> int:
    """Run the command line and return its exit status: 0, or 1 when something must be settled."""
    parser = argparse.ArgumentParser(
        prog="python -m tools.notebooks",
        description="Run the course's notebooks and write them in canonical form.",
    )
    parser.add_argument("words", nargs="*", metavar="NB", help="01, labs/00; or: edit NB")
    parser.add_argument("--refresh", action="store_true", help="replace every stored output")
    parser.add_argument("--keep", choices=("text", "notebook"), help="which side wins a conflict")
    given = parser.parse_args(words)

    from minillm.lab.project import syllabus

    chapters = syllabus()
    try:
        if given.words[:1] == ["edit"]:
            if len(given.words) != 2:
                raise Refused("Say which notebook to edit: make edit NB=01 (or NB=labs/00).")
            print(edit(find(given.words[1], ROOT, chapters), chapters, given.keep))
            return 0
        written = [document for document in documents() if document.notebook.exists()]
        chosen = [find(word) for word in given.words] or written
        for document in chosen:
            print(build(document, chapters, given.refresh, given.keep), flush=True)
    except Refused as refusal:
        print(refusal, file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    from minillm.lab.program import program

    with program("tools.notebooks"):
        sys.exit(main())
