"""minillm.train.sweep_results: nothing of a sweep is missing in its table, CSV and figure."""

import csv

import pytest

from minillm.train.sweep import Run
from minillm.train.sweep_results import csv_text, draw, law, rows, table, varied

#: loss = 2 · size^-0.5, for two rates and two seeds; the last run failed.
RUNS = [
    Run(
        settings={"size": size, "rate": rate, "seed": seed},
        status="finished",
        result={"loss": 2 * size**-0.5, "n": 10 * size},
        seconds=1.25,
    )
    for size in (1, 4, 16)
    for rate in (0.1, 0.2)
    for seed in (0, 1)
]
FAILED = Run(settings={"size": 64, "rate": 0.1, "seed": 0}, status="failed", error="Oh: two\nlines")


def lines_of(fig):
    """The lines through means, without the points."""
    return [each for each in fig.axes[0].lines if each.get_linestyle() != "None"]


def test_the_csv_gives_back_every_number():
    (*whole, failed) = csv.DictReader(csv_text([*RUNS, FAILED]).splitlines(keepends=True))
    assert [*failed] == ["size", "rate", "seed", "loss", "n", "seconds", "error"]
    for text, row in zip(whole, rows(RUNS), strict=True):
        assert {name: float(text[name]) for name in row} == row
    assert (failed["loss"], failed["error"]) == ("", "Oh: two\nlines")


def test_a_table_has_a_line_for_each_run_and_says_what_is_missing():
    first, *lines = table([RUNS[-1], FAILED]).splitlines()
    assert first.split() == ["size", "rate", "seed", "loss", "n", "seconds", "error"]
    assert lines[0].split() == ["16", "0.2", "1", "0.5", "160", "1.25", "–"]
    assert lines[1].split() == ["64", "0.1", "0", "–", "–", "–", "Oh:", "two", "lines"]


def test_a_setting_is_not_hidden_by_a_result_of_its_name():
    run = Run(settings={"n": 1}, status="finished", result={"n": 2, "y": 3})
    assert rows([run]) == [{"n": 1, "y": 3, "seconds": None}]


def test_a_figure_has_a_line_for_each_setting_that_x_does_not_follow_from():
    by_size, by_result = (lines_of(draw([*RUNS, FAILED], x, "loss")) for x in ("size", "n"))
    assert len(by_size) == len(by_result) == 2  # of the rates: n follows from size
    assert list(by_size[0].get_xdata()) == [1, 4, 16]  # means of seeds
    assert list(by_size[0].get_ydata()) == [2, 1, 0.5]


def test_the_law_is_that_of_all_points_and_is_none_where_there_is_none():
    fitted = law([*RUNS, FAILED], "size", "loss")
    assert (fitted.coefficient, fitted.exponent) == pytest.approx((2, -0.5))
    fig = draw(RUNS, "size", "loss", with_law=True)
    titles = [fig.axes[0].get_title(loc=loc) for loc in ("left", "center")]
    assert "exponent -0.500 (95 %: -0.500 to -0.500)" in titles
    assert len(lines_of(fig)) == 3
    assert law(RUNS[:8], "size", "loss") is law(RUNS, "size", "none") is None  # two sizes; no loss
    assert varied(RUNS, "n")
    assert not varied(RUNS[:4], "n")


def test_without_numbers_there_is_no_figure():
    with pytest.raises(ValueError, match="no run has numbers for both size and loss"):
        draw([FAILED], "size", "loss")
