import json

import pytest

from minillm.lab.project import chapter
from minillm.lab.task import (
    check,
    function_source,
    hint,
    put_answer,
    remember,
    solution,
    solution_source,
    task,
)


def test_outside_a_notebook_the_decorator_only_labels(capsys):
    @task("0.1", minutes=2)
    def mended_slide():
        raise NotImplementedError

    assert (mended_slide.task_id, mended_slide.minutes) == ("0.1", 2)
    assert capsys.readouterr().out == ""


def test_hints_come_one_after_the_other_and_the_last_stays(my, capsys):
    for _ in range(4):
        hint("0.1")
    lines = capsys.readouterr().out.splitlines()
    assert [line.split(" for")[0] for line in lines] == [
        "Hint 1 of 3", "Hint 2 of 3", "Hint 3 of 3", "Hint 3 of 3",
    ]  # fmt: skip
    assert lines[0].endswith("(more: minillm hint 0.1)")
    assert lines[3].endswith("(the last; then: minillm solution 0.1)")


def test_a_hint_of_a_level_that_does_not_exist_is_an_error(my):
    with pytest.raises(ValueError, match="levels 1, 2 and 3; got 4"):
        hint("0.1", 4)


def test_a_solution_is_shown_without_its_markers_and_marked_as_seen(my, capsys):
    solution("0.3")
    out = capsys.readouterr().out
    assert "175_000_000_000 * 4 / 8" in out
    assert "SOLUTION" not in out
    assert "In words: Weights are paid once" in out
    assert json.loads((my / "progress.json").read_text(encoding="utf-8"))["0.3"]["seen"] is True


def test_check_grades_the_learners_file_and_remembers_it(my, capsys):
    assert check("0.1").status == "to do"
    out = capsys.readouterr().out
    assert "0.1 ☐ to do" in out
    assert "write it in " in out
    assert not (my / "progress.json").exists()
    put_answer(chapter("00"), "mended_slide", solution_source("0.1"))
    assert check("0.1").status == "done"
    record = json.loads((my / "progress.json").read_text(encoding="utf-8"))["0.1"]
    assert (record["status"], record["tries"]) == ("done", 1)


def test_a_task_that_was_solved_once_stays_solved(my):
    put_answer(chapter("00"), "mended_slide", solution_source("0.1"))
    check("0.1")
    put_answer(chapter("00"), "mended_slide", "def mended_slide():\n    return 1")
    check("0.1")
    record = json.loads((my / "progress.json").read_text(encoding="utf-8"))["0.1"]
    assert (record["status"], record["tries"]) == ("done", 2)


def test_putting_an_answer_leaves_the_rest_of_the_file_as_it_is(my):
    put_answer(chapter("00"), "mended_slide", "def mended_slide():\n    return 1")
    path = my / "exercises" / "ch00_claims.py"
    text = path.read_text(encoding="utf-8")
    assert "return 1" in function_source(text, "mended_slide")
    path.write_text("# mine\n" + text, encoding="utf-8")
    put_answer(chapter("00"), "mended_slide", "def mended_slide():\n    return 2")
    after = path.read_text(encoding="utf-8")
    assert after == "# mine\n" + text.replace("return 1", "return 2")


def test_a_function_that_the_file_lacks_is_added_at_its_end(my):
    put_answer(chapter("00"), "brand_new", "def brand_new():\n    return 1")
    text = (my / "exercises" / "ch00_claims.py").read_text(encoding="utf-8")
    assert text.endswith("\n\n\ndef brand_new():\n    return 1\n")


def test_nothing_is_remembered_while_the_course_is_built(my, monkeypatch):
    monkeypatch.setenv("MINILLM_BUILD", "1")
    remember("0.1", status="done")
    assert not my.exists()


def test_the_source_of_one_function_includes_its_decorators():
    module = "import os\n\n@a\n@b(1)\ndef f():\n    return 1\n\ndef g(): pass\n"
    assert function_source(module, "f") == "@a\n@b(1)\ndef f():\n    return 1\n"
    assert function_source(module, "h") is None


def test_a_hint_asked_for_by_its_level_is_not_counted_back(my, capsys):
    hint("0.1", 3)
    hint("0.1", 1)
    hint("0.1")
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].startswith("Hint 3 of 3")
    assert "more:" not in lines[0]
    assert "(more: minillm hint 0.1)" in lines[1]
    assert lines[2].startswith("Hint 3 of 3")


def test_a_folder_that_cannot_be_written_costs_the_record_only(my, capsys):
    my.write_text("a file stands here", encoding="utf-8")
    hint("0.1")
    solution("0.1")
    out = capsys.readouterr().out
    assert "Hint 1 of 3" in out
    assert "def mended_slide" in out
    assert out.count("not remembered: ") == 2


def test_a_damaged_record_costs_no_answer_and_stays(my, capsys):
    put_answer(chapter("00"), "mended_slide", solution_source("0.1"))
    (my / "progress.json").write_text("{broken", encoding="utf-8")
    assert check("0.1").status == "done"
    assert "not remembered: " in capsys.readouterr().out
    assert (my / "progress.json").read_text(encoding="utf-8") == "{broken"


def test_a_line_separator_inside_a_text_is_no_end_of_a_line(my):
    path = my / "exercises" / "ch00_claims.py"
    path.parent.mkdir(parents=True)
    before = 'NOTE = "one\u2028two"\n\x0c\ndef first():\n    return 1\n\n\n'
    path.write_text(before + "def second():\n    return 2\n", encoding="utf-8")
    put_answer(chapter("00"), "second", "def second():\n    return 3")
    after = path.read_text(encoding="utf-8")
    assert after == before + "def second():\n    return 3\n"
    assert function_source(after, "first") == "def first():\n    return 1\n"


def test_an_answer_saved_twice_with_a_comment_at_its_end_has_it_once(my):
    answer = "def mended_slide():\n    return 1\n\n    # a note\n"
    put_answer(chapter("00"), "mended_slide", answer)
    once = (my / "exercises" / "ch00_claims.py").read_text(encoding="utf-8")
    put_answer(chapter("00"), "mended_slide", answer)
    assert (my / "exercises" / "ch00_claims.py").read_text(encoding="utf-8") == once


def test_of_two_definitions_the_last_is_the_answer():
    module = "def f():\n    return 1\n\ndef f():\n    return 2\n# end\n"
    assert function_source(module, "f") == "def f():\n    return 2\n"
