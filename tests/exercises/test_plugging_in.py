"""A learner's answers take the library's place in a later chapter: proven with the solutions."""

import nbformat

from minillm.lab.project import chapter
from minillm.lab.task import put_answer, solution_source
from tools.canonical import IGNORED
from tools.compare import same_outputs
from tools.notebooks import ROOT, execute

SETUP = "setup(seed=0)"


def test_chapter_01_runs_on_an_answer_of_chapter_00(tmp_path, monkeypatch):
    monkeypatch.setenv("MINILLM_MY", str(tmp_path / "my"))
    put_answer(chapter("00"), "kv_cache_bytes", solution_source("0.2"))
    path = chapter("01").notebook
    stored = nbformat.read(path, as_version=4)
    plugged = nbformat.read(path, as_version=4)
    first = next(cell for cell in plugged.cells if SETUP in cell.source)
    first.source = first.source.replace(SETUP, 'setup(seed=0, mine=["0.2"])')
    plugged = execute(
        plugged,
        folder=ROOT / "course",
        name="01_tokenizer",
        environment={"MINILLM_MY": str(tmp_path / "my")},
    )
    changed = [
        new
        for old, new in zip(stored.cells, plugged.cells, strict=True)
        if old.cell_type == "code"
        and IGNORED not in old.metadata.get("tags", [])
        and not same_outputs(old, new)
    ]
    (cell,) = changed
    said, *rest = "".join(output.text for output in cell.outputs).splitlines()
    assert said == "kv_cache_bytes: yours (task 0.2)"
    (old,) = [c for c in stored.cells if c.cell_type == "code" and c.source == cell.source]
    assert "".join(output.text for output in old.outputs).splitlines() == rest
