"""minillm.bench.scaling: its search decides as its text says, and each run takes its price."""

import math
from dataclasses import replace

import pytest

from minillm.bench import scaling as bench
from minillm.bench.scaling import Setting, Work
from minillm.train.sweep import Run

WORK = Work(
    searched=(1e11, 1e10),
    widths=(8, 16),
    bowls=((1e10, (8, 16)), (1e11, (8, 64))),
    seeds=(1, 2),
    market=((8, 16), (2**15, 2**20)),
    largest_sale=3e10,
    fixed=(2**15, (8, 16, 24)),
    shapes=((1, 16), (4, 8)),
    copying=(((1, 16),), (2**15,)),
)


@pytest.fixture
def pretended(monkeypatch, tmp_path):
    """No run is trained: the best rate is 0.01 for width 8 and 0.1 for 16, the best batch 4."""
    ran = []

    def sweep(function, grid, folder, *, about):
        assert function is bench.one
        runs = []
        for run in grid["run"]:
            ran.append(run)
            best = 0.1 if run["d_model"] == 16 else 0.01
            loss = 3 + abs(math.log(run["rate"] / best)) + abs(math.log(run["batch_size"] / 4))
            result = {"loss": loss, "floor": 2.7, "flops": bench.flops_of(run)}
            result |= {"n_parameters": 1, "n_tokens": run["n_tokens"]}
            runs.append(Run(settings={"run": run}, status="finished", result=result))
        return runs

    monkeypatch.setattr(bench, "sweep", sweep)
    return bench._Scaling(WORK, tmp_path), ran


# --- by hand ------------------------------------------------------------------------------------
def test_the_search_climbs_until_no_neighbour_is_better(pretended):
    scaling, ran = pretended
    scaling.search()
    at = {(flops, width) for flops in (1e11, 1e10) for width in (8, 16)}
    assert set(scaling.best) == at
    for (_, width), how in scaling.best.items():
        assert how == Setting(0.09 if width == 16 else 0.01, 4)
    assert len(ran) == len({str(run) for run in ran})  # nothing twice
    assert {run["batch_size"] for run in ran} == {2, 4, 8, 16, 32}
    assert {run["rate"] for run in ran if run["d_model"] == 8} == {0.003, 0.01, 0.03}


def test_neighbours_stop_at_the_ends():
    assert bench.neighbours(Setting(0.01, 16)) == [
        Setting(0.003, 16),
        Setting(0.03, 16),
        Setting(0.01, 8),
        Setting(0.01, 32),
    ]
    assert bench.neighbours(Setting(0.0003, 1)) == [Setting(0.001, 1), Setting(0.0003, 2)]
    assert bench.neighbours(Setting(0.09, 64)) == [Setting(0.03, 64), Setting(0.09, 32)]


def test_a_run_takes_the_setting_nearest_in_compute_and_width(pretended):
    scaling, _ = pretended
    scaling.best = {
        (flops, width): Setting(flops * width, 16) for flops in (1e11, 1e10) for width in (8, 16)
    }
    assert scaling.setting(2e10, 9).rate == 1e10 * 8
    assert scaling.setting(9e11, 200).rate == 1e11 * 16


def test_every_part_has_the_runs_that_the_work_names(pretended):
    figures = pretended[0].figures()
    assert [len(figures[name]) for name in ("bowls", "market", "fixed", "copying")] == [8, 3, 6, 1]
    assert {run["n_tokens"] for run in figures["fixed"]} == {2**15}
    assert all(bench.flops_of(run) <= 3e10 for run in figures["market"])
    assert all(run["repeats"] for run in figures["copying"])
    for run, flops in zip(figures["bowls"], [1e10] * 4 + [1e11] * 4, strict=True):
        assert run["flops"] == pytest.approx(flops, rel=0.05)
    shapes = figures["shapes"]  # three rates each, and the best of them with two seeds
    assert [(run["n_layers"], run["seed"]) for run in shapes] == (
        [(1, 0)] * 3 + [(4, 0)] * 3 + [(1, 1), (1, 2), (4, 1), (4, 2)]
    )
    assert {run["rate"] for run in shapes[-2:]} == {0.01}


def test_a_run_that_is_asked_for_twice_runs_once(pretended):
    scaling, ran = pretended
    run = bench.settings_of(8, 2**15, Setting(0.01, 16), seed=1)
    assert len(scaling.measured([run, run | {"seed": 2}, dict(run)])) == 3
    assert len(ran) == 2


def test_a_failed_run_is_named(pretended, monkeypatch):
    def sweep(function, grid, folder, *, about):
        return [Run(settings={"run": grid["run"][0]}, status="failed", error="no disk")]

    monkeypatch.setattr(bench, "sweep", sweep)
    run = bench.settings_of(8, 2**15, Setting(0.01, 16), seed=1)
    with pytest.raises(ValueError, match=r"no disk; its settings: .*'d_model': 8"):
        pretended[0].measured([run])


# --- law ----------------------------------------------------------------------------------------
def test_the_quick_run_goes_through_in_processes(tmp_path, monkeypatch, capsys):
    quick = replace(bench.QUICK, market=((8,), (2**11,)))
    monkeypatch.setattr(bench, "QUICK", quick)
    figures = bench.run(quick=True, folder=tmp_path)
    assert {*figures} == {"settings", "searched", "bowls", "market", "fixed", "shapes", "copying"}
    for run in figures["bowls"]:
        assert run["floor"] < run["loss"] < 6
    assert "above the floor" in capsys.readouterr().out
    n_files = len(list(tmp_path.glob("run=*.json")))
    assert bench.run(quick=True, folder=tmp_path) == figures  # nothing is repeated
    assert len(list(tmp_path.glob("run=*.json"))) == n_files
