import json

import pytest

from minillm.lab.project import chapter, root
from minillm.lab.start import _hash, fill, first_notebook
from minillm.lab.task import check, put_answer, remember, solution_source

NAME = "course/00_claims.ipynb"


def test_the_first_fill_copies_every_chapter_without_outputs(my):
    messages = fill()
    assert any("00_claims.ipynb is new" in message for message in messages)
    for path in (root() / "course").glob("*.ipynb"):
        for cell in json.loads((my / "course" / path.name).read_text(encoding="utf-8"))["cells"]:
            assert cell.get("outputs", []) == []
    assert (my / "exercises" / "ch00_claims.py").exists()


def test_a_second_fill_has_nothing_to_do(my):
    fill()
    assert fill() == []


def test_a_learners_work_is_never_overwritten(my):
    fill()
    (my / NAME).write_text("my work", encoding="utf-8")
    assert fill() == []
    assert (my / NAME).read_text(encoding="utf-8") == "my work"


def test_a_new_version_of_a_changed_chapter_comes_beside_it_once(my):
    fill()
    (my / NAME).write_text("my work", encoding="utf-8")
    age(my)
    messages = fill()
    assert len(messages) == 1
    assert "is yours and stays; the new version is 00_claims.new.ipynb" in messages[0]
    assert (my / NAME).read_text(encoding="utf-8") == "my work"
    assert json.loads((my / "course" / "00_claims.new.ipynb").read_text(encoding="utf-8"))["cells"]
    assert fill() == []


def test_an_untouched_chapter_is_brought_up_to_date(my):
    fill()
    (my / NAME).write_text("an older version", encoding="utf-8")
    age(my, _hash("an older version"))
    messages = fill()
    assert len(messages) == 1
    assert "brought up to date" in messages[0]
    assert json.loads((my / NAME).read_text(encoding="utf-8"))["cells"]


def test_a_workshop_starts_with_everything_before_it_solved(my):
    put = "def kv_cache_bytes(**shape):\n    return 1"
    fill()
    put_answer(chapter("00"), "kv_cache_bytes", put)
    messages = fill(at="0.4")
    assert "0.1: answered with the worked solution" in messages
    assert "0.2: your own answer is kept" in messages
    assert check("0.1").status == "done"
    assert check("0.4").status == "to do"
    assert put in (my / "exercises" / "ch00_claims.py").read_text(encoding="utf-8")
    assert "batch of 32 -> 576 GiB" in (my / NAME).read_text(encoding="utf-8")


def test_a_start_at_an_unknown_task_is_an_error(my):
    with pytest.raises(ValueError, match="no task"):
        fill(at="0.77")


def test_the_first_unsolved_chapter_opens_first(my):
    assert first_notebook().name == "00_claims.ipynb"
    for task_id in ("0.1", "0.2", "0.3", "0.4", "0.5"):
        remember(task_id, status="done")
    assert first_notebook().name == "01_tokenizer.ipynb"


def age(my, hashed="an older hash", name=NAME):
    """Pretend that an older version of a file was delivered."""
    path = my / ".delivered.json"
    ledger = json.loads(path.read_text(encoding="utf-8"))
    path.write_text(json.dumps({**ledger, name: hashed}), encoding="utf-8")


def test_work_in_a_version_that_was_laid_beside_is_not_overwritten_either(my):
    fill()
    (my / NAME).write_text("my work", encoding="utf-8")
    age(my)
    fill()
    beside = my / "course" / "00_claims.new.ipynb"
    untouched = beside.read_text(encoding="utf-8")
    beside.write_text("my work goes on here", encoding="utf-8")
    age(my)
    assert "the new version is 00_claims.new2.ipynb" in fill()[0]
    assert beside.read_text(encoding="utf-8") == "my work goes on here"
    assert beside.with_name("00_claims.new2.ipynb").read_text(encoding="utf-8") == untouched


def test_a_version_beside_that_nobody_touched_is_replaced(my):
    fill()
    (my / NAME).write_text("my work", encoding="utf-8")
    age(my)
    fill()
    age(my)
    assert "the new version is 00_claims.new.ipynb" in fill()[0]


def test_other_line_ends_or_another_encoding_stop_nothing(my):
    fill()
    path = my / NAME
    text = path.read_bytes()
    path.write_bytes(text.replace(b"\n", b"\r\n"))
    age(my)
    assert fill() == []
    path.write_bytes(b"\xff\xfe")
    age(my)
    assert "is yours and stays" in fill()[0]
    assert path.read_bytes() == b"\xff\xfe"


def test_answers_stay_when_the_tasks_change(my):
    fill()
    path = my / "exercises" / "ch00_claims.py"
    put_answer(chapter("00"), "mended_slide", solution_source("0.1"))
    mine = path.read_text(encoding="utf-8")
    age(my, name="exercises/ch00_claims.py")
    assert "the new version is ch00_claims.new.py" in fill()[0]
    assert path.read_text(encoding="utf-8") == mine
    assert check("0.1").status == "done"


def test_a_workshop_answers_a_task_that_an_older_file_lacks(my):
    fill()
    path = my / "exercises" / "ch00_claims.py"
    path.write_text("# an older version\n", encoding="utf-8")
    assert "0.1: answered with the worked solution" in fill(at="0.2")
    assert check("0.1").status == "done"
    path.write_text("def broken(:\n", encoding="utf-8")
    assert "0.1: your own answer is kept" in fill(at="0.2")
    assert path.read_text(encoding="utf-8") == "def broken(:\n"


def test_a_workshop_leaves_a_cell_that_holds_half_an_answer(my):
    fill()
    path = my / NAME
    notebook = json.loads(path.read_text(encoding="utf-8"))
    (cell,) = [c for c in notebook["cells"] if '@task("0.1"' in "".join(c["source"])]
    cell["source"] = '@task("0.1", minutes=2)\ndef mended_slide(:\n    raise NotImplementedError'
    path.write_text(json.dumps(notebook), encoding="utf-8")
    assert "0.1: answered with the worked solution" in fill(at="0.2")
    assert "def mended_slide(:" in path.read_text(encoding="utf-8")


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("{}", "no list of cells"),
        ("[]", "no list of cells"),
        ('{"cells": {}}', "no list of cells"),
        ('{"cells": [{"source": 3}]}', "TypeError"),
        ('{"cells": [], "cells": []}', "'cells' stands twice"),
        ("no notebook", "Expecting value"),
    ],
)
def test_a_workshop_says_of_what_is_no_notebook_that_it_stays(my, text, why):
    fill()
    path = my / NAME
    path.write_text(text, encoding="utf-8")
    (said,) = fill(at="0.2")
    assert said.startswith("0.1: answered with the worked solution in ")
    assert "00_claims.ipynb stays as it is: it is no notebook" in said
    assert why in said
    assert path.read_text(encoding="utf-8") == text
    assert check("0.1").status == "done"


def test_a_workshop_opens_where_it_begins(my):
    fill(at="1.1")
    assert first_notebook().name == "01_tokenizer.ipynb"
    assert check("1.1").status == "to do"


def test_the_lab_notebooks_come_along(my):
    fill()
    assert (my / "course" / "labs" / "00_claims.ipynb").exists()


def test_with_everything_solved_the_last_chapter_opens(my):
    from minillm.lab.grade import graders
    from minillm.lab.project import syllabus

    for task_id in graders():
        remember(task_id, status="done")
    last = [chapter for chapter in syllabus() if chapter.finished][-1]
    assert first_notebook().stem == last.name
