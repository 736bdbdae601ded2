"""minillm.bench.optimizers: each optimizer is searched alike, and the arithmetic is right."""

from itertools import pairwise

import pytest

from minillm.bench import optimizers as bench
from minillm.bench._run import Finished
from minillm.model.config import tiny
from minillm.optim.build import build

ALL_SEARCHES = pytest.mark.parametrize("search", bench.SEARCHES.items(), ids=bench.SEARCHES)


# --- by hand ------------------------------------------------------------------------------------
def test_rates_lie_around_what_is_advised():
    assert bench.around(4.0) == (1.0, 2.0, 4.0, 8.0, 16.0, 32.0)


# --- law ----------------------------------------------------------------------------------------
@ALL_SEARCHES
def test_each_gets_twelve_runs_and_its_second_option_reaches_the_optimizer(search):
    name, search = search
    assert len(search.rates) * len(search.values) == 12
    steps = [high / low for low, high in pairwise(search.rates)]
    assert steps == pytest.approx([2.0 if search.option else 2**0.5] * len(steps))
    model = tiny(50).build(seed=0)
    if search.option:
        one, other = (
            [
                {**g, "params": None}
                for g in build(model, name, 0.1, **{search.option: v}).param_groups
            ]
            for v in search.values
        )
        assert one != other


def test_a_quick_run_returns_and_prints_every_figure(capsys):
    figures = bench.run(quick=True)
    printed = capsys.readouterr().out.splitlines()
    assert printed[0].startswith("2 steps, the grammar's entropy is ")
    assert list(figures) == list(bench.SEARCHES)
    for name, best in figures.items():
        line = next(line for line in printed if line.startswith(f"{name} "))
        assert len(best["runs"]) == 2
        assert best["option"] == bench.SEARCHES[name].option
        assert len(best["loss_above_entropy"]) == 1
        assert best["loss_above_entropy"][0] > 0
        assert line.endswith(f" {best['loss_above_entropy'][0]:.2f} %")
        assert line.split()[1] == f"{best['state']:.3f}"
    # AdamW keeps two numbers a weight, Lion one, Muon one for hidden matrices, the rest far less
    states = {name: best["state"] for name, best in figures.items()}
    assert (states["SGD"], states["AdamW"], states["Lion"]) == (0.0, 2.0, 1.0)
    assert 1 < states["Muon"] < 2
    assert states["Adafactor"] < 0.1


def test_the_best_of_twelve_is_run_again_with_other_seeds(monkeypatch):
    search, asked = bench.SEARCHES["Lion"], []

    def pretended(task, name, rate, value, seed, n_steps):
        asked.append((rate, value, seed))
        good = (rate, value) == (search.rates[4], search.values[1])
        return [1.0 + seed if good else float("inf"), 1.0]

    monkeypatch.setattr(bench, "SEARCHES", {"Lion": search})
    monkeypatch.setattr(bench, "_run", pretended)
    finished = Finished()
    best = bench.run(finished=finished)["Lion"]
    assert len({each[:2] for each in asked[:12]}) == 12
    assert {each[2] for each in asked[:12]} == {0}
    assert asked[12:] == [(search.rates[4], search.values[1], seed) for seed in (1, 2, 3)]
    assert (best["rate"], best["value"]) == (search.rates[4], search.values[1])
    assert best["loss_above_entropy"] == [2.0, 3.0, 4.0]
    assert len(best["runs"]) == 12
    bench.run(finished=finished)
    assert len(asked) == 15  # nothing is measured twice
