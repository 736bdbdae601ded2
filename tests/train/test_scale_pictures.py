"""minillm.train.scale_pictures: every run is drawn, and a lowest point only where there is one."""

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
    draw_best_sizes(ax, bowls, size_law(bowls))
    assert [star.get_xdata()[0] for star in stars(ax)] == [1e9, 2e9, 4e9]
    assert [text.get_text() for text in ax.texts] == ["C^1.00, ours", "C^0.5"]


def test_market_laws_and_sealed_run_are_drawn():
    fig = draw_forecasts(
        [(1e9, 1.0), (2e9, 0.8)], {"a law": ([1e9, 1e10], [1, 0.5])}, [(1e10, 0.6)]
    )
    assert [text.get_text() for text in fig.axes[0].texts] == ["market", "a law", "sealed run"]
    assert list(stars(fig.axes[0])[0].get_ydata()) == [0.6]
