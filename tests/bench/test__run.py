"""minillm.bench._run: a long benchmark goes on after a stop."""

import pytest

from minillm.bench._run import Finished


def never():
    pytest.fail("measured again")


def test_what_is_finished_is_not_measured_again_and_what_was_cut_off_is(tmp_path, capsys):
    record = tmp_path / "record.json"
    first = Finished(record)
    assert first("one", lambda: {"loss": float("inf")}) == {"loss": float("inf")}
    first("two", lambda: 2)
    first.path.write_bytes(first.path.read_bytes()[:-3])  # killed while it wrote
    second = Finished(record)
    assert "1 finished runs" in capsys.readouterr().out
    assert second("one", never) == {"loss": float("inf")}
    assert second("two", lambda: 3) == 3
    third = Finished(record)
    assert (third("one", never), third("two", never)) == ({"loss": float("inf")}, 3)
    third.clear()
    assert list(tmp_path.iterdir()) == []


def test_without_a_record_nothing_is_written(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    finished = Finished()
    assert (finished("one", lambda: 1), finished("one", never)) == (1, 1)
    finished.clear()
    assert list(tmp_path.iterdir()) == []
