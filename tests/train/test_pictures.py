import pytest

from minillm.train import pictures

RUN = {0: 3.0, 1: 2.0, 2: 1.5, 3: 1.0}


@pytest.fixture
def published(monkeypatch):
    figures = []
    monkeypatch.setattr(pictures, "publish", lambda fig, alt: figures.append(fig))
    return figures


def test_only_what_a_step_changes_is_blue(published):
    pictures.picture_step()
    boxes = [text for text in published[0].axes[0].texts if text.get_bbox_patch() is not None]
    blue = {box.get_text() for box in boxes if box.get_bbox_patch().get_edgecolor()[2] > 0.6}
    assert blue == {"step\nnumber", "optimizer\nand its state", "weights"}


def test_every_part_but_the_last_ends_in_a_cross_and_the_other_panel_has_the_difference(published):
    pictures.picture_kills(RUN, [{0: 3.0, 1: 2.0}, {1: 2.0, 2: 1.5}, {3: 1.0}], RUN | {2: 2.5})
    left, right = published[0].axes
    circles = next(line for line in left.lines if line.get_marker() == "o")
    assert list(circles.get_xdata()) == [1]
    crosses = [line for line in left.lines if line.get_marker() == "x"]
    assert [line.get_xdata()[0] for line in crosses] == [1, 2]
    assert [text.get_text() for text in left.texts].count("killed") == 2
    assert list(right.lines[-1].get_ydata()) == [0, 0, 1, 0]


def test_each_vocabulary_has_a_bar_in_both_units(published):
    pictures.picture_units(["256", "512"], [2.5, 3.5], [4.0, 2.0])
    heights = [[bar.get_height() for bar in ax.patches] for ax in published[0].axes]
    assert heights == [[2.5, 3.5], [4.0, 2.0]]


def test_further_runs_are_dots_on_the_bar_of_their_vocabulary(published):
    pictures.picture_units(["256", "512"], [2.5, 3.5], [4.0, 2.0], [[(2.4, 4.1)], [(3.6, 1.9)]])
    dots = [list(ax.lines[0].get_ydata()) for ax in published[0].axes]
    assert dots == [[2.4, 3.6], [4.1, 1.9]]
