"""What a learner sees when the cells of a task are run in a real kernel."""

import json

import nbformat
import pytest
from nbclient import NotebookClient

from minillm.lab.task import check, function_source

HEAD = "from minillm.lab.task import task\nimport math as maths\nfrom functools import cache"
STUB = '@task("0.1", minutes=2)\ndef mended_slide():\n    raise NotImplementedError'
WRONG = STUB.replace("raise NotImplementedError", "return '32 conversations, 576 GB'")
RIGHT = STUB.replace("raise NotImplementedError", "return 'batch of 32 -> 576 GiB'")
MISNAMED = RIGHT.replace("mended_slide", "slide")
ELSEWHERE = "unit, default = ' GiB', 2"
BORROWED = RIGHT.replace(" GiB'", "' + unit")
AT_ITS_HEAD = RIGHT.replace("slide()", "slide(n=default)")
IMPORTED = RIGHT.replace("\ndef", "\n@cache\ndef").replace("return", "return maths.inf and")
CALLS_ITSELF = """@task("1.1", minutes=8)
def merge_pair(ids, pair, new_id):
    if len(ids) < 2:
        return list(ids)
    if (ids[0], ids[1]) == pair:
        return [new_id, *merge_pair(ids[2:], pair, new_id)]
    return [ids[0], *merge_pair(ids[1:], pair, new_id)]"""
CALLS_ITSELF_WRONGLY = CALLS_ITSELF.replace("ids[2:]", "ids[1:]")
SWALLOWS = STUB.replace(
    "raise NotImplementedError",
    "while True:\n        try:\n            print('round')\n        except:\n            pass",
)
CELLS = [
    HEAD, STUB, WRONG, MISNAMED, ELSEWHERE, BORROWED, AT_ITS_HEAD, IMPORTED, SWALLOWS,
    CALLS_ITSELF, CALLS_ITSELF_WRONGLY, RIGHT,
]  # fmt: skip


@pytest.fixture(scope="module")
def printed(tmp_path_factory):
    """Run all cells in one kernel; give what each printed, and the learner's folder."""
    my = tmp_path_factory.mktemp("learner") / "my"
    notebook = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(c) for c in CELLS])
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("MINILLM_MY", str(my))
        patch.delenv("MINILLM_BUILD", raising=False)
        NotebookClient(notebook, allow_errors=True).execute()
    outputs = ["".join(o.get("text", "") for o in c.outputs) for c in notebook.cells]
    return dict(zip(CELLS, outputs, strict=True)), my


def test_the_stub_is_to_do(printed):
    assert printed[0][STUB] == "0.1 ☐ to do\n"


def test_a_wrong_answer_gets_its_diagnosis_at_once(printed):
    assert printed[0][WRONG].startswith("0.1 ✘ 576 is exact in GiB")


def test_an_answer_under_another_name_is_told_the_right_one(printed):
    assert "must be called `mended_slide`, not `slide`" in printed[0][MISNAMED]


def test_an_answer_that_needs_another_cell_is_told_what_to_do(printed):
    said = printed[0][BORROWED]
    assert said.startswith("0.1 ✘ it raised NameError: name 'unit' is not defined (line `return ")
    assert said.endswith(
        "define or import it in the function: a notebook's other cells do not count\n"
    )


def test_an_answer_whose_first_line_needs_another_cell_is_not_saved(printed):
    said = printed[0][AT_ITS_HEAD]
    assert said.startswith(
        "0.1 ✘ your file cannot be imported: it raised NameError: name 'default'"
    )
    assert said.endswith("ch00_claims.py stays as it was.)\n")


def test_what_another_cell_imports_comes_along(printed):
    assert printed[0][IMPORTED] == "0.1 ✔\n"


def test_an_answer_that_calls_itself_is_graded_as_it_is_saved(printed):
    assert printed[0][CALLS_ITSELF] == "1.1 ✔\n"
    assert printed[0][CALLS_ITSELF_WRONGLY].startswith("1.1 ✘ ")


def test_a_loop_that_swallows_every_exception_ends_and_shows_its_first_prints(printed):
    said = printed[0][SWALLOWS]
    assert said.startswith("round\nround\n")
    assert said.endswith("is a print inside a loop?\n")
    assert len(said) < 1_200


def test_a_right_answer_is_ticked_and_kept_and_the_terminal_agrees(printed, monkeypatch, capsys):
    outputs, my = printed
    assert outputs[RIGHT] == "0.1 ✔\n"
    text = (my / "exercises" / "ch00_claims.py").read_text(encoding="utf-8")
    assert function_source(text, "mended_slide").rstrip() == RIGHT
    assert text.count("import math as maths") == text.count("from functools import cache\n") == 1
    record = json.loads((my / "progress.json").read_text(encoding="utf-8"))["0.1"]
    assert (record["status"], record["tries"]) == ("done", 5)
    monkeypatch.setenv("MINILLM_MY", str(my))
    for task_id, cell in (("0.1", RIGHT), ("1.1", CALLS_ITSELF_WRONGLY)):
        check(task_id)
        assert capsys.readouterr().out == outputs[cell]
