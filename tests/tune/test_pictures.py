"""The figures of chapter 20 show the numbers that they are given."""

import pytest
from matplotlib.colors import to_hex
from matplotlib.patches import Rectangle

from minillm.lab.figures import BLUE, figure
from minillm.tune import pictures


def counts(*pairs):
    """One seed a pair (n_right, n)."""
    return [{"new": {"n_right": n_right, "n": n}} for n_right, n in pairs]


def texts(ax):
    return [text.get_text() for text in ax.texts]


def test_tokens_in_the_loss_are_blue_and_the_model_writes_from_the_first_of_them():
    _, ax = figure()
    pictures.draw_mask(ax, ["a", "b", "c"], [False, True, True])
    boxes = [patch for patch in ax.patches if isinstance(patch, Rectangle)]
    assert [to_hex(box.get_edgecolor()).upper() == BLUE for box in boxes] == [False, True, True]
    (writes,) = [text for text in ax.texts if text.get_text() == "the model writes this"]
    assert writes.xy[0] == boxes[1].get_x()


def test_a_kind_has_its_cell_in_the_row_of_its_operation_and_the_column_of_its_form():
    _, ax = figure()
    seen = [("all", "none", "lines"), ("all", "none", "json"), ("nth", "ordinal", "lines")]
    pictures.draw_kinds(ax, seen, [("nth", "ordinal", "json")])
    cells = {box.get_xy(): bool(box.get_hatch()) for box in ax.patches[:4]}
    assert cells == {(0, 0): False, (1, 0): False, (0, 1): False, (1, 1): True}
    assert [tick.get_text() for tick in ax.get_xticklabels()] == ["lines", "json"]
    assert texts(ax)[:2] == ["3 kinds trained", "1 kinds held out"]


def test_a_line_weighs_every_question_and_leaves_out_what_nobody_was_asked():
    _, ax = figure()
    rows = {4: counts((1, 1), (0, 3)), 12: counts((0, 0), (1, 2)), 36: counts((0, 0), (0, 0))}
    pictures.draw_by_number(ax, rows, {"new": "new kinds"})
    *dots, line = ax.lines
    assert [[*dot.get_ydata()] for dot in dots] == [[100.0, 0.0], [50.0]]
    assert line.get_xydata().tolist() == [[4.0, 25.0], [12.0, 50.0]]


def test_names_at_the_ends_of_lines_do_not_stand_on_each_other():
    _, ax = figure()
    row = {"a": {"n_right": 99, "n": 100}, "b": {"n_right": 100, "n": 100}}
    pictures.draw_by_number(ax, {1: [row]}, {"a": "lower", "b": "upper"})
    heights = {text.get_text(): text.xy[1] for text in ax.texts}
    assert heights["upper"] == 100
    assert heights["upper"] - heights["lower"] >= 6


def test_arms_stand_in_their_order_with_their_lowest_and_highest():
    _, ax = figure()
    pictures.draw_arms(ax, {"seeds": [3.0, 1.0], "drawn": [4.0, 9.4]}, marked="drawn")
    assert [tick.get_text() for tick in ax.get_yticklabels()] == ["seeds", "drawn"]
    assert texts(ax) == ["1 to 3", "4 to 9"]
    assert [line.get_color() == BLUE for line in ax.lines] == [False, True]
    assert ax.get_ylim()[0] > ax.get_ylim()[1]  # the first is on top


def test_a_mask_as_long_as_the_tokens_is_required():
    _, ax = figure()
    with pytest.raises(ValueError, match="longer"):
        pictures.draw_mask(ax, ["a"], [True, False])
