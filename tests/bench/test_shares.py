"""minillm.bench.shares: every side is searched alike, and the best is run with new seeds."""

import pytest
from torch import nn

from minillm.bench import shares
from minillm.bench._run import Finished
from minillm.bench.train import chosen
from minillm.recipes import nanogpt

TEXT = "the plum fell from the tree, and the town went on as before.\n" * 60


@pytest.fixture
def text(tmp_path):
    path = tmp_path / "plums.txt"
    path.write_text(TEXT, encoding="utf-8")
    return path


def test_a_quick_run_measures_every_side_in_rows_of_one_length(text, capsys):
    finished = Finished()
    figures = shares.run(quick=True, text=text, finished=finished)
    assert len(figures) == 6
    for side in figures.values():
        assert side["rate"] == side["runs"][0]["rate"]
        assert all(0 < run["loss"] < 7 for run in side["runs"])
    printed = capsys.readouterr().out.splitlines()
    assert len(printed) == len(finished.results) == 6
    assert shares.run(quick=True, text=text, finished=finished) == figures
    assert capsys.readouterr().out == ""  # nothing is measured twice


def test_a_search_goes_on_until_its_best_lies_within_and_that_is_run_again(text, monkeypatch):
    asked = []

    def pretended(side, rate, seed, context_length):
        asked.append((side.name, rate, seed))
        lowest = side.rates[0] / 2 if "AdamW" in side.name else side.rates[-1] * 2
        return {"rate": rate, "seed": seed, "loss": abs(rate - lowest), "own": 0.0}

    monkeypatch.setattr(shares, "_run", pretended)
    for name, side in shares.run(text=text).items():
        tried = [(rate, seed) for each, rate, seed in asked if each == name]
        searched = [rate for rate, seed in tried if seed == 0]
        if name == "nanoGPT as published":
            assert len(searched) == 1
        else:  # four, the best beyond them, and one beyond that
            assert len(searched) == 6
            assert min(searched) < side["rate"] < max(searched)
        assert [(rate, seed) for rate, seed in tried if seed] == [(side["rate"], s) for s in (1, 2)]


def test_muon_takes_the_matrices_of_nanogpts_blocks_and_adamw_the_rest():
    model = nanogpt.NanoGPT(20, chosen(True, None, 0)[1])
    optimizer = shares.muon(0.02, model)
    kinds = {id(p): g["kind"] for g in optimizer.param_groups for p in g["params"]}
    assert len(kinds) == len(list(model.parameters()))
    for module in model.modules():
        if isinstance(module, nn.Linear):
            assert kinds[id(module.weight)] == "muon"
    assert kinds[id(model.tokens.weight)] == kinds[id(model.positions.weight)] == "adamw"
