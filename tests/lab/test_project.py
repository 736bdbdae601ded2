from pathlib import Path

import pytest

from minillm.lab import progress, project
from minillm.lab.project import (
    building,
    chapter,
    in_notebook,
    my,
    read_json,
    read_progress,
    read_syllabus,
    root,
    syllabus,
    write_json,
)
from minillm.lab.start import first_notebook


def test_the_syllabus_has_every_chapter_once_and_in_order():
    numbers = [entry.number for entry in syllabus()]
    assert numbers == [f"{n:02}" for n in range(31)]
    assert len({entry.slug for entry in syllabus()}) == 31


def test_a_chapter_is_found_by_its_number_with_or_without_the_zero():
    assert chapter("1") is chapter("01")
    assert chapter("01").notebook == root() / "course" / "01_tokenizer.ipynb"


def test_an_unknown_chapter_is_told_which_exist():
    with pytest.raises(ValueError, match=r"no chapter '77'.*00, 01"):
        chapter("77")


def test_the_learners_folder_can_be_moved(monkeypatch, tmp_path):
    monkeypatch.setenv("MINILLM_MY", str(tmp_path))
    assert my() == tmp_path
    monkeypatch.delenv("MINILLM_MY")
    assert my() == root() / "my"


def test_without_the_course_the_message_says_what_to_do(monkeypatch, tmp_path):
    monkeypatch.setattr(project, "__file__", str(tmp_path / "a" / "b" / "c.py"))
    with pytest.raises(ValueError, match="make learn"):
        root()


def test_no_file_reads_as_empty(tmp_path):
    assert read_json(tmp_path / "none.json") == {}


def test_a_terminal_is_no_notebook():
    assert not in_notebook()


def test_a_learners_folder_that_is_relative_is_the_same_from_a_notebook(monkeypatch, tmp_path):
    monkeypatch.setenv("MINILLM_MY", "elsewhere")
    monkeypatch.chdir(tmp_path)
    assert my() == root() / "elsewhere"
    monkeypatch.setenv("MINILLM_MY", "~/elsewhere")
    assert my() == Path.home() / "elsewhere"


def test_only_the_value_1_says_that_the_course_is_built(monkeypatch):
    monkeypatch.setenv("MINILLM_BUILD", "1")
    assert building()
    monkeypatch.setenv("MINILLM_BUILD", "0")
    assert not building()


@pytest.mark.parametrize("content", [b"{broken", b"[1]", b"\xff\xfe{}"])
def test_a_damaged_file_is_named_and_left_alone(tmp_path, content):
    path = tmp_path / "progress.json"
    path.write_bytes(content)
    with pytest.raises(ValueError, match=r"progress\.json is not valid JSON .*Mend it by hand"):
        read_json(path)
    assert path.read_bytes() == content


@pytest.mark.parametrize(
    "facts", [7, {}, {"status": "dnne"}, {"tries": "2"}, {"seen": 1}, {"plum": 7}]
)
def test_what_is_no_fact_of_a_task_is_named_and_left_alone(tmp_path, facts):
    path = tmp_path / "progress.json"
    good = {"status": "done", "tries": 2, "seen": True, "hints": 1, "when": "2026-01-31T12:00:00"}
    write_json(path, {"0.1": good})
    assert read_progress(path) == {"0.1": good}
    write_json(
        path, {"0.1": {"when": "today", **facts} if facts else facts} if facts != 7 else {"0.1": 7}
    )
    before = path.read_bytes()
    with pytest.raises(ValueError, match=r"progress\.json is damaged: of task 0\.1 it says"):
        read_progress(path)
    assert path.read_bytes() == before


def test_a_syllabus_without_a_chapters_facts_is_named(tmp_path):
    path = tmp_path / "syllabus.toml"
    for text, named in [
        ('slug = "a"', "missing"),
        ("tasks = 7", "tasks in a .* must be a list of te"),
    ]:
        path.write_text(f"[[chapter]]\n{text}\n", encoding="utf-8")
        with pytest.raises(ValueError, match=rf"syllabus\.toml: .*{named}"):
            read_syllabus(path)


def test_a_byte_order_mark_of_an_editor_is_no_damage(tmp_path):
    path = tmp_path / "progress.json"
    path.write_text('{"a": 1}', encoding="utf-8-sig")
    assert read_json(path) == {"a": 1}


def test_a_file_is_written_with_line_feeds_and_readable_chinese(tmp_path):
    write_json(tmp_path / "made" / "a.json", {"村": 1})
    assert (tmp_path / "made" / "a.json").read_bytes() == '{\n "村": 1\n}\n'.encode()


def test_progress_of_another_form_is_named_by_its_task_and_stays(tmp_path, monkeypatch):
    monkeypatch.setenv("MINILLM_MY", str(tmp_path))
    (tmp_path / "progress.json").write_text(
        '{"0.1": {"when": ""}, "0.2": "done"}', encoding="utf-8"
    )
    for read in (project.read_progress, progress.table, first_notebook):
        with pytest.raises(ValueError, match=r"progress\.json .*: of task 0\.2 .*Mend it by hand"):
            read()
