"""minillm.train.scale_pictures: every run is drawn, and a lowest point only where there is one."""

from dataclasses import replace

import pytest

from minillm.lab.figures import figure
from minillm.train.laws import size_law
from minillm.train.scale_pictures import draw_best_sizes, draw_bowls, draw_forecasts, draw_plan

BOWL = [(1000, 2.2), (1000, 2.3), (4000, 2.0), (16_000, 2.3), (64_000, 2.9)]


def stars(ax):
    return [line for line in ax.lines if line.get_marker() == "*"]


def test_the_plan_has_a_box_for_each_step():
    texts = {text.get_text() for text in draw_plan().axes[0].texts}
    assert {"many small runs", "its loss", "how far off?"} <= texts


def test_a_bowl_has_its_runs_a_parabola_and_a_star_on_it():
    _, ax = figure()
    draw_bowls(ax, {"first": BOWL, "no bowl": BOWL[2:]})
    assert list(ax.lines[0].get_ydata()) == [2.2, 2.3, 2.0, 2.3, 2.9]
    assert len(stars(ax)) == 1
    parabola = ax.lines[1].get_ydata()
    assert stars(ax)[0].get_ydata()[0] == pytest.approx(min(parabola), abs=1e-3)
    assert [text.get_text() for text in ax.texts] == ["first", "no bowl"]


def test_the_best_sizes_stand_over_their_compute():
    _, ax = figure()
    bowls = {1e9 * k: [(n * k, loss) for n, loss in BOWL] for k in (1, 2, 4)}
    law = size_law(bowls)
    draw_best_sizes(ax, bowls, law, (1234.0, replace(law, exponent=0.5)))
    assert [star.get_xdata()[0] for star in stars(ax)] == [1e9, 2e9, 4e9, 1e9]
    assert stars(ax)[-1].get_ydata()[0] == 1234
    words = ["as in section 5", "as in section 3", "C^1.00", "C^0.50"]
    assert [text.get_text() for text in ax.texts] == words


def test_market_laws_and_sealed_run_are_drawn():
    def run(n_parameters, flops, loss):
        return {"n_parameters": n_parameters, "flops": flops, "loss": loss, "floor": 2.0}

    market = [run(10, 6e8, 3.2), run(20, 1.2e9, 3.0), run(20, 2.4e9, 2.9)]
    curves = {"a law": lambda tokens: 2.0 + tokens / 1e9}
    fig = draw_forecasts(market, curves, [run(20, 1.2e10, 2.6), run(20, 1.2e10, 2.5)])
    others, own, sealed, law = [text.get_text() for text in fig.axes[0].texts]
    assert others.endswith("other sizes")
    assert own == "for sale, 20 parameters"
    assert (sealed, law) == ("sealed run,\nthree seeds", "a law")
    heights = [pytest.approx(list(line.get_ydata())) for line in fig.axes[0].lines[:3]]
    assert heights == [[1.2], [1.0, 0.9], [0.6, 0.5]]
    assert fig.axes[0].lines[3].get_ydata()[-1] == pytest.approx(0.1)  # 1.2e10 / (6 · 20) tokens
