"""minillm.bench.disaggregate: a quick run has every figure, and its ratios are of its own rates."""

import json
import math
from dataclasses import replace

import pytest

from minillm.bench import disaggregate as bench
from minillm.bench._run import Finished, _plain
from minillm.serve.costs import Costs
from minillm.serve.goodput import Best, Comparison, candidates


# --- by hand --------------------------------------------------------------------------------------
def test_costs_come_back_from_json_with_their_infinity():
    costs = Costs(fixed=1.0, prompt_token=0.5, row=0.25, cache_tokens=math.inf)
    values = json.loads(json.dumps(_plain({**vars(costs), "error": 0.1})))
    assert values["cache_tokens"] is None
    assert bench.of(values) == costs


def test_a_target_counts_the_cells_that_reach_it(capsys):
    ratios = [(1.5, 2.5), (1.49, None), (2.5, 1.0)]
    cells = [{"over_prefill_first": goodput, "gap_ratio": gap} for goodput, gap in ratios]
    assert bench.targets(cells) == {
        "goodput_ratio": {"highest": 2.5, "n_reached": 2, "n_cells": 3},
        "gap_ratio": {"highest": 2.5, "n_reached": 1, "n_cells": 3},
    }
    assert "at least 1.5 in 2 of 3 cells" in capsys.readouterr().out


def test_a_cell_compares_three_ways_and_has_no_ratio_where_nobody_is_served_in_time():
    costs = Costs(fixed=1.0, prompt_token=0.5, row=0.5, transfer_token=9.0)
    work = replace(bench.QUICK, n_requests=10)
    cell = bench.cell((4, 4), costs, {"ttft": 2.0, "tpot": 1.5}, work)
    rates = {way: cell[way]["goodput"] for way in bench.WAYS}
    assert min(rates["prefill_first"], rates["chunked"]) > 0 == rates["apart"]  # 36 s to send
    assert cell["over_prefill_first"] == cell["over_chunked"] == 0
    assert cell["gap_ratio"] is cell["apart"]["gap_p99"] is None
    cell = bench.cell((4, 4), costs, {"ttft": 0.5, "tpot": 1.5}, work)
    assert cell["over_prefill_first"] is cell["over_chunked"] is None


# --- law ------------------------------------------------------------------------------------------
@pytest.fixture(scope="module")
def quick():
    """Figures of a quick run whose goodputs are pretended, and its finished parts."""

    def pretended(workload, costs, slo, n_machines, *, seeds):
        fleets = candidates(workload, costs, n_machines)
        rates = {"prefill_first": 2.0, "chunked": 4.0, "apart": 3.0}
        return Comparison(**{way: Best(each[0], rates[way]) for way, each in fleets.items()})

    finished = Finished()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(bench, "compare", pretended)
        patch.setattr(bench, "tail_gap", lambda *_, **__: 0.5)
        patch.setattr(bench, "throughputs", lambda *_: dict.fromkeys(bench.WAYS, 1.0))
        return bench.run(quick=True, finished=finished), finished


def test_a_quick_run_has_every_figure_as_json(quick):
    figures, _ = quick
    assert set(figures["costs"]) == {"town-1m", "random-10m", "a100-13b"}
    assert len(figures["maps"]) == len(bench.GRIDS)
    assert len(figures["promises"]) == len(figures["seeds"]) == 1
    assert set(figures["saturated"]) == set(bench.WAYS)
    json.dumps(_plain(figures))


def test_ratios_are_of_the_figures_beside_them(quick):
    figures, _ = quick
    cells = [cell for cells in figures["maps"].values() for cell in cells]
    for cell in [*cells, *figures["promises"], *figures["changes"].values()]:
        ratios = [cell[key] for key in ("over_prefill_first", "over_chunked", "gap_ratio")]
        assert ratios == [1.5, 0.75, 1.0]
    assert figures["targets"]["goodput_ratio"]["n_reached"] == 1


def test_throughput_without_a_limit_is_each_ways_highest():
    costs = Costs(fixed=1.0, prompt_token=0.0, row=0.0, cache_tokens=100)
    rates = bench.throughputs((8, 2), costs, bench.QUICK)
    assert 0 < rates["apart"] <= max(rates.values()) == rates["chunked"]


def test_nothing_is_computed_twice(quick, monkeypatch):
    figures, finished = quick
    monkeypatch.setattr(bench, "cell", None)
    monkeypatch.setattr(bench, "timed", None)
    assert bench.run(quick=True, finished=finished) == figures
