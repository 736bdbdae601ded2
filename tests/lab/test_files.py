import os

import pytest

from minillm.lab.files import empty_folder, write_whole


def test_a_file_is_written_with_line_feeds_into_a_folder_that_is_made(tmp_path):
    write_whole(tmp_path / "made" / "a.txt", "村\nb\n")
    assert (tmp_path / "made" / "a.txt").read_bytes() == "村\nb\n".encode()


@pytest.mark.parametrize("step", ["fsync", "replace"])
def test_a_write_that_fails_leaves_the_old_file_and_nothing_else(step, tmp_path, monkeypatch):
    def full(*_):
        raise OSError("no space left on device")

    write_whole(tmp_path / "a.txt", "old")
    monkeypatch.setattr(os, step, full)
    with pytest.raises(OSError, match="no space left"):
        write_whole(str(tmp_path / "a.txt"), "new")
    assert [(path.name, path.read_text()) for path in tmp_path.iterdir()] == [("a.txt", "old")]


def test_a_folder_for_a_while_is_empty_at_first_and_gone_at_the_end(tmp_path):
    folder = tmp_path / "a"
    folder.mkdir()
    (folder / "left.txt").touch()
    with pytest.raises(ZeroDivisionError), empty_folder(folder) as within:
        assert [*within.iterdir()] == []
        write_whole(within / "b.txt", "plum")
        raise ZeroDivisionError
    assert not folder.exists()
