import sys

import pytest

from minillm import cli
from minillm.recipes import run


def command(monkeypatch, *words):
    """The exit status of `minillm train …`."""
    monkeypatch.setattr(sys, "argv", ["minillm", "train", *words])
    with pytest.raises(SystemExit) as end:
        cli.main()
    return end.value.code or 0


def test_the_command_takes_a_name_or_a_file_and_another_number_of_steps(
    tmp_path, monkeypatch, capsys
):
    asked = []
    monkeypatch.setattr(run, "run", lambda *each: asked.append(each))
    file = tmp_path / "mine.toml"
    file.write_text('name = "mine"\n', encoding="utf-8")
    for words in (["town-1m", "--seed", "4"], [str(file), "--steps", "30", "--out", "here"]):
        assert command(monkeypatch, *words) == 0
    (first, folder), (second, here) = asked
    assert (first.name, first.seed, folder.as_posix()) == ("town-1m", 4, "runs/town-1m")
    assert (second.name, second.training.n_steps, here.as_posix()) == ("mine", 30, "here")
    assert command(monkeypatch, "town-2m") == 2
    assert "there is no recipe 'town-2m'" in capsys.readouterr().err


def test_a_recipe_that_reads_text_can_be_given_another_file(monkeypatch, capsys):
    asked = []
    monkeypatch.setattr(run, "run", lambda *each: asked.append(each))
    words = ["shakespeare", "--text", "letters.txt", "--seed", "4", "--steps", "100"]
    assert command(monkeypatch, *words) == 0
    ((found, folder),) = asked
    assert (found.data.files, found.data.url, found.data.ends) == (("letters.txt",), None, "file")
    assert (found.seed, found.training.n_steps, found.training.decay_steps) == (4, 100, 70)
    assert folder.as_posix() == "runs/shakespeare"
    assert command(monkeypatch, "town-1m", "--text", "letters.txt") == 2
    assert "town-1m reads no text file" in capsys.readouterr().err
    assert len(asked) == 1
