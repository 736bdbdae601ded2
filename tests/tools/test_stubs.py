import json
from types import SimpleNamespace

import pytest

from tools.stubs import ROOT, drift, exercise, refresh_cells, stub, stub_cells, task_functions

SOLUTION = '''"""Worked answers to chapter 77, Nothing.

Chapter: 77
"""

from minillm.lab.task import task


@task("77.1", minutes=3)
def double(x):
    """Double a number."""
    # BEGIN SOLUTION
    y = x + x
    return y
    # END SOLUTION


def helper():
    return 1
'''


@pytest.fixture
def planted(tmp_path):
    for folder in ("solutions", "exercises"):
        (tmp_path / folder).mkdir()
    path = tmp_path / "solutions" / "ch77_nothing.py"
    path.write_text(SOLUTION, encoding="utf-8")
    (tmp_path / "exercises" / path.name).write_text(exercise(path), encoding="utf-8")
    return tmp_path


def test_this_checkouts_exercises_are_what_its_solutions_make():
    assert drift() == []


def test_this_checkouts_task_cells_are_what_its_solutions_make():
    cells = stub_cells()
    found = []
    for path in (ROOT / "course").rglob("*.ipynb"):
        for cell in json.loads(path.read_text(encoding="utf-8"))["cells"]:
            if "task" in cell["metadata"].get("tags", []):
                source = "".join(cell["source"])
                task_id = source.split('"')[1]
                assert source == cells[task_id], task_id
                found.append(task_id)
    assert sorted(found) == sorted(cells)


def test_the_answer_is_taken_out_and_everything_else_stays(planted):
    text = (planted / "exercises" / "ch77_nothing.py").read_text(encoding="utf-8")
    assert '    """Double a number."""\n    raise NotImplementedError\n' in text
    assert "x + x" not in text
    assert text.startswith('"""Tasks of chapter 77, Nothing.')
    assert text.endswith("def helper():\n    return 1\n")


def test_a_task_cell_is_the_decorated_stub_alone(planted):
    assert stub_cells(planted) == {
        "77.1": '@task("77.1", minutes=3)\ndef double(x):\n    """Double a number."""\n'
        "    raise NotImplementedError"
    }
    assert list(task_functions(SOLUTION)) == ["77.1"]


def test_a_marker_without_its_partner_is_an_error():
    with pytest.raises(ValueError, match="END SOLUTION"):
        stub(SOLUTION.replace("    # END SOLUTION\n", ""))


@pytest.mark.parametrize("name", ["solutions/ch77_nothing.py", "exercises/ch77_nothing.py"])
def test_a_changed_file_has_drifted(planted, name):
    assert drift(planted) == []
    path = planted / name
    path.write_text(path.read_text(encoding="utf-8").replace("Double", "Twice"), encoding="utf-8")
    assert drift(planted) == [
        "exercises/ch77_nothing.py differs from solutions/ch77_nothing.py: make exercises"
    ]


def test_a_missing_partner_has_drifted(planted):
    (planted / "solutions" / "ch77_nothing.py").unlink()
    assert drift(planted) == ["exercises/ch77_nothing.py has no solutions/ch77_nothing.py"]


def cell(source, *tags):
    return SimpleNamespace(source=source, metadata={"tags": list(tags)})


def test_task_cells_are_refreshed_and_others_are_not(planted):
    old, other = cell('@task("77.1", minutes=9)\ndef old(): ...', "task"), cell("double(2)")
    refresh_cells(SimpleNamespace(cells=[old, other]), planted)
    assert old.source == stub_cells(planted)["77.1"]
    assert other.source == "double(2)"


def test_a_task_cell_of_an_unknown_task_is_an_error(planted):
    with pytest.raises(ValueError, match="names no task"):
        refresh_cells(SimpleNamespace(cells=[cell('@task("5.5", minutes=1)', "task")]), planted)


def test_markers_in_the_wrong_order_leak_no_answer():
    swapped = SOLUTION.replace("BEGIN", "X").replace("END", "BEGIN").replace("X", "END")
    with pytest.raises(ValueError, match="END SOLUTION"):
        stub(swapped)
