import pytest

from minillm.lab import project
from minillm.lab.project import chapter, in_notebook, my, read_json, root, syllabus, write_json


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


def test_a_write_that_fails_leaves_the_old_file_whole(monkeypatch, tmp_path):
    path = tmp_path / "progress.json"
    write_json(path, {"a": 1})

    def full(*_):
        raise OSError("disk full")

    monkeypatch.setattr("os.replace", full)
    with pytest.raises(OSError, match="disk full"):
        write_json(path, {"a": 2})
    assert read_json(path) == {"a": 1}


def test_no_file_reads_as_empty(tmp_path):
    assert read_json(tmp_path / "none.json") == {}


def test_a_terminal_is_no_notebook():
    assert not in_notebook()
