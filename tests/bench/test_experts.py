"""minillm.bench.experts: the benchmark runs, and its arithmetic is right."""

import pytest
import torch

from minillm.bench import experts as bench
from minillm.bench._run import Finished
from minillm.train import districts


# --- by hand ------------------------------------------------------------------------------------
def test_the_goal_is_met_on_the_line_between_two_measurements():
    curve = [4.0, 2.0, 1.0, 0.5]  # after 25, 50, 75 and 100 % of the steps
    assert bench.crossing(curve, goal=2.5) == pytest.approx(0.25 + 0.25 * 0.75)
    assert bench.crossing(curve, goal=0.6) == pytest.approx(0.75 + 0.25 * 0.8)
    assert bench.crossing(curve, goal=1.0) == pytest.approx(0.75)


def test_a_goal_is_met_at_the_first_measurement_or_at_the_end_or_never():
    curve = [4.0, 2.0, 1.0, 0.5]
    assert bench.crossing(curve, goal=9.0) == 0.25
    assert bench.crossing(curve, goal=0.5) == 1.0
    assert bench.crossing(curve, goal=0.4) is None
    assert bench.crossing([4.0, 1.0, 3.0, 1.5], goal=1.5) == pytest.approx(0.25 + 0.25 * 5 / 6)


def test_one_expert_of_a_hashed_layer_is_active_as_one_of_a_routed_one():
    one = 3 * 48 * districts.D_FF
    dense, routes, hashed = (
        bench.parameters(districts.built(ffn, seed=0))
        for ffn in (bench.DENSE, bench.experts(8), bench.HASHED)
    )
    assert dense.active == dense.total == hashed.active
    assert hashed.total == dense.total + 2 * 7 * one
    assert (routes.total, routes.active) == (hashed.total + 2 * 8 * 48, dense.active + 2 * 8 * 48)


def test_figures_are_the_crossings_and_shares_of_all_seeds():
    first = torch.tensor([[6, 2]] * 8).tolist()
    last = torch.eye(2, dtype=torch.int64).repeat(4, 1).tolist()
    facts = {"parameters": 9, "active": 5}
    runs = [
        {"curve": [3.0, 1.0], "tables": [first, last], **facts},
        {"curve": [3.0, 2.5], "tables": [[[30, 1]] * 8, last], **facts},
    ]
    figures = bench.figures_of(runs, [2.0, 2.0])
    assert figures["curves"] == [[3.0, 1.0], [3.0, 2.5]]
    assert figures["steps"] == [pytest.approx(0.75), None]
    assert figures["shares"] == [[1.0, 0.0], [0.0, 1.0]] * 4  # the last block's
    assert figures["information"] == [pytest.approx(1 / 3)] * 2
    assert figures["largest_share"] == pytest.approx([0.75, 30 / 31])  # the first block's
    assert figures["idle"] == [0, 1]  # 1/31 is less than a tenth of 1/2
    assert bench.line("2", figures).split()[3:5] == ["1.750", "never"]


# --- law ----------------------------------------------------------------------------------------
def test_every_side_of_the_search_takes_part_and_its_rate_is_among_those_searched():
    assert set(bench.SEARCHED) <= set(bench.CONTENDERS)
    assert {bench.CONTENDERS[name].rate for name in bench.SEARCHED} <= set(bench.RATES)


def test_a_quick_run_returns_and_prints_every_figure_and_repeats_nothing(
    tmp_path, capsys, monkeypatch
):
    record = tmp_path / "experts.json"
    figures = bench.run(quick=True, finished=Finished(record))
    printed = capsys.readouterr().out.splitlines()
    assert printed[0].startswith("4 steps of 32 rows, seeds (1,); the dialects' own loss is ")
    assert list(figures) == list(bench.CONTENDERS)
    always = {"curves", "steps", "ms", "parameters", "active"}
    routes = {"shares", "information", "largest_share", "idle"}
    for name, own in figures.items():
        search = {"search"} if name in bench.SEARCHED else set()
        assert set(own) - search == (always if "dense" in name else always | routes)
        assert [len(curve) for curve in own["curves"]] == [2]
        expected = bench.crossing(own["curves"][0], figures["dense"]["curves"][0][-1])
        assert own["steps"] == [expected]
        assert 0 < own["active"] <= own["parameters"]
        assert own["ms"] > 0
        assert bench.line(name, own) in printed
        if search:
            assert list(own["search"]) == [str(bench.RATES[0])]
        if "dense" in name:
            continue
        n_experts = 8 if name == "hashed" else int(name.split(",")[0])
        assert [len(row) for row in own["shares"]] == [n_experts] * 8
        assert [sum(row) for row in own["shares"]] == pytest.approx([1.0] * 8)
    assert figures["dense"]["steps"][0] == 1.0
    assert figures["hashed"]["information"] == pytest.approx([1.0])

    monkeypatch.setattr(districts, "trained", lambda *_, **__: 1 / 0)
    assert bench.run(quick=True, finished=Finished(record)) == figures
