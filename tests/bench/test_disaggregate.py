"""minillm.bench.disaggregate: a quick run has every figure, and its ratios are of its own rates."""

import json
import math

import pytest

from minillm.bench import disaggregate as bench
from minillm.bench._run import Finished, _plain
from minillm.serve.costs import Costs


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


def test_what_is_timed_is_the_shipped_model_with_room_for_longer_texts():
    model = bench.built("town-1m")
    assert model.context_length == bench.CONTEXT_LENGTH >= max(bench.PROMPTS)


def test_where_nobody_is_served_in_time_there_is_no_ratio():
    costs = Costs(fixed=1.0, prompt_token=0.0, row=0.0, transfer_token=9.0)
    impossible = {"ttft": 0.5, "tpot": 1.5}
    cell = bench.cell((4, 4), costs, impossible, bench.QUICK)
    assert cell["apart"]["goodput"] == 0 and cell["apart"]["gap_p99"] is None
    assert cell["over_prefill_first"] is cell["over_chunked"] is cell["gap_ratio"] is None


# --- law ------------------------------------------------------------------------------------------
@pytest.fixture(scope="module")
def quick():
    finished = Finished()
    return bench.run(quick=True, finished=finished), finished


def test_a_quick_run_has_every_figure_as_json(quick):
    figures, _ = quick
    assert set(figures["costs"]) == {"town-1m", "random-10m", "a100-13b"}
    assert len(figures["maps"]) == len(bench.GRIDS)
    assert len(figures["promises"]) == len(figures["seeds"]) == 1
    assert set(figures["saturated"]) == set(bench.WAYS)
    json.dumps(_plain(figures))


def test_ratios_are_of_the_goodputs_beside_them(quick):
    figures, _ = quick
    cells = [cell for cells in figures["maps"].values() for cell in cells]
    for cell in [*cells, *figures["changes"].values()]:
        rates = {way: cell[way]["goodput"] for way in bench.WAYS}
        for other in ("prefill_first", "chunked"):
            if rates[other]:
                ratio = rates["apart"] / rates[other]
                assert cell[f"over_{other}"] == pytest.approx(ratio)


def test_nothing_is_computed_twice(quick, monkeypatch):
    figures, finished = quick
    monkeypatch.setattr(bench, "cell", None)
    monkeypatch.setattr(bench, "timed", None)
    assert bench.run(quick=True, finished=finished) == figures
