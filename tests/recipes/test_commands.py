import sys

import pytest

from minillm import cli
from minillm.recipes import run


def test_the_command_takes_a_name_or_a_file_and_another_number_of_steps(
    tmp_path, monkeypatch, capsys
):
    asked = []
    monkeypatch.setattr(run, "run", lambda *each: asked.append(each))
    file = tmp_path / "mine.toml"
    file.write_text('name = "mine"\n', encoding="utf-8")
    for words in (["town-1m", "--seed", "4"], [str(file), "--steps", "30", "--out", "here"]):
        monkeypatch.setattr(sys, "argv", ["minillm", "train", *words])
        with pytest.raises(SystemExit) as end:
            cli.main()
        assert not end.value.code
    (first, folder), (second, here) = asked
    assert (first.name, first.seed, folder.as_posix()) == ("town-1m", 4, "runs/town-1m")
    assert (second.name, second.training.n_steps, here.as_posix()) == ("mine", 30, "here")
    monkeypatch.setattr(sys, "argv", ["minillm", "train", "town-2m"])
    with pytest.raises(SystemExit) as end:
        cli.main()
    assert end.value.code == 2
    assert "there is no recipe 'town-2m'" in capsys.readouterr().err
