"""What a learner sees when the cells of a task are run in a real kernel."""

import json

import nbformat
import pytest
from nbclient import NotebookClient

HEAD = "from minillm.lab.task import task"
STUB = '@task("0.1", minutes=2)\ndef mended_slide():\n    raise NotImplementedError'
WRONG = STUB.replace("raise NotImplementedError", "return '32 conversations, 576 GB'")
RIGHT = STUB.replace("raise NotImplementedError", "return 'batch of 32 -> 576 GiB'")
BORROWED = STUB.replace("raise NotImplementedError", "return 'batch of 32 -> 576' + unit")
PLUGGABLE = """@task("0.2", minutes=8)
def kv_cache_bytes(*, n_layers, n_kv_heads, d_head, n_tokens, n_sequences, bytes_per_element=2):
    return two * n_layers * n_kv_heads * d_head * n_tokens * n_sequences * bytes_per_element"""
MISNAMED = RIGHT.replace("mended_slide", "slide")


@pytest.fixture(scope="module")
def printed(tmp_path_factory):
    """Run all cells in one kernel; give what each printed, and the learner's folder."""
    my = tmp_path_factory.mktemp("learner") / "my"
    cells = [HEAD, STUB, WRONG, MISNAMED, "unit, two = ' GiB', 2", BORROWED, PLUGGABLE, RIGHT]
    notebook = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(c) for c in cells])
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("MINILLM_MY", str(my))
        patch.delenv("MINILLM_BUILD", raising=False)
        NotebookClient(notebook, allow_errors=True).execute()
    outputs = ["".join(o.get("text", "") for o in c.outputs) for c in notebook.cells]
    return dict(zip(cells, outputs, strict=True)), my


def test_the_stub_is_to_do(printed):
    assert printed[0][STUB] == "0.1 ☐ to do\n"


def test_a_wrong_answer_gets_its_diagnosis_at_once(printed):
    assert printed[0][WRONG].startswith("0.1 ✘ 576 is exact in GiB")


def test_an_answer_under_another_name_is_told_the_right_one(printed):
    assert "must be called `mended_slide`, not `slide`" in printed[0][MISNAMED]


def test_an_answer_that_uses_another_cell_is_right(printed):
    assert printed[0][BORROWED] == "0.1 ✔\n"


def test_one_that_later_chapters_could_use_is_told_what_it_lacks(printed):
    said = printed[0][PLUGGABLE]
    assert said.startswith("0.2 ✔ here; but `two` comes from another cell")


def test_a_right_answer_is_ticked_and_kept(printed):
    outputs, my = printed
    assert outputs[RIGHT] == "0.1 ✔\n"
    assert RIGHT in (my / "exercises" / "ch00_claims.py").read_text(encoding="utf-8")
    record = json.loads((my / "progress.json").read_text(encoding="utf-8"))["0.1"]
    assert (record["status"], record["tries"]) == ("done", 3)
