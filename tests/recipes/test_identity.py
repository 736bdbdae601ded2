"""What a run is, and whether a folder holds that run."""

from dataclasses import replace

import numpy as np
import pytest

from minillm.recipes.data import TextData
from minillm.recipes.identity import agree, described
from minillm.recipes.recipe import Recipe

STREAM = np.arange(5)
MINE = Recipe(name="mine", data=TextData(files=("/home/mei/letters.txt",)))
CHILD = replace(MINE, parent="/home/mei/runs/base/model", parent_sha256="a" * 64)


def test_no_path_of_this_machine_is_written_down():
    config = described(CHILD, STREAM).config
    assert config["data"]["files"] == ["letters.txt"]
    assert (config["parent"], config["parent_sha256"]) == ("model", "a" * 64)


def test_a_new_folder_gets_the_manifest_and_the_same_run_goes_on(tmp_path, capsys):
    now = described(CHILD, STREAM)
    path = tmp_path / "run" / "manifest.json"
    assert agree(path, now) is now
    assert agree(path, replace(now, started="2027-01-31T12:00:00+00:00")) == now
    agree(path, replace(now, machine={**now.machine, "threads": 99}))
    assert "since this run began: machine.threads" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("other", "message"),
    [
        (described(replace(CHILD, parent_sha256="b" * 64), STREAM), r"config\.parent_sha256"),
        (described(MINE, STREAM), r"another recipe \(config\.parent"),
        (described(replace(CHILD, seed=1), STREAM), "another recipe"),
        (described(CHILD, STREAM[:4]), "has changed since"),
    ],
)
def test_another_run_in_the_folder_is_refused(tmp_path, other, message):
    path = tmp_path / "manifest.json"
    agree(path, described(CHILD, STREAM))
    before = path.read_bytes()
    with pytest.raises(ValueError, match=message):
        agree(path, other)
    assert path.read_bytes() == before


def test_a_manifest_that_cannot_be_read_or_of_former_names_is_refused(tmp_path):
    path = tmp_path / "manifest.json"
    agree(path, described(MINE, STREAM))
    text = path.read_text(encoding="utf-8")
    path.write_text(text.replace('"d_model"', '"width"'), encoding="utf-8")
    with pytest.raises(ValueError, match=r"an older minillm began.*width is d_model now"):
        agree(path, described(MINE, STREAM))
    path.write_text("{", encoding="utf-8")
    with pytest.raises(ValueError, match=r"does not say what this run is.*another folder with"):
        agree(path, described(MINE, STREAM))
