"""The figures of chapter 06 show the numbers that they are given."""

import torch

from minillm.lab.figures import BLUE, figure
from minillm.optim import pictures


def record(**others):
    runs = [[0.2, 1.0, 20.0], [0.1, 1.0, 30.0], [0.2, 2.0, 15.0], [0.4, 2.0, 40.0]]
    return {"runs": runs, "loss_above_entropy": [16.0, 18.0, 17.0], "state": 1.0} | others


def test_a_search_shows_the_better_option_at_each_rate_and_rings_the_best():
    _, ax = figure()
    pictures.draw_search(ax, {"Lion": record()}, ["Lion"])
    curve, ring = ax.lines
    assert curve.get_xydata().tolist() == [[0.1, 30.0], [0.2, 15.0], [0.4, 40.0]]
    assert ring.get_xydata().tolist() == [[0.2, 15.0]]


def test_new_seeds_are_sorted_by_state_beside_the_band_of_the_reference():
    _, ax = figure()
    both = {"SGD": record(state=0.0), "AdamW": record(state=2.0, loss_above_entropy=[9.0, 11.0])}
    pictures.draw_new_seeds(ax, both, reference="AdamW", marked="SGD")
    assert [tick.get_text() for tick in ax.get_yticklabels()] == [
        "AdamW · state 2.00",
        "SGD · state 0.00",
    ]
    assert [line.get_color() == BLUE for line in ax.lines] == [False, True]
    (band,) = ax.patches
    assert (band.get_x(), band.get_x() + band.get_width()) == (9.0, 11.0)
    assert [text.get_text() for text in ax.texts] == ["AdamW's range"]


def test_walks_are_drawn_as_they_were_taken_with_the_minimum_marked():
    _, axes = figure(columns=2)
    walk = torch.tensor([[9.0, 1.0], [4.0, 0.5]])
    pictures.draw_walks(axes, {"SGD": walk, "Adam": walk / 2}, torch.eye(2), (-4, 4))
    assert torch.equal(torch.tensor(axes[1].lines[0].get_xydata()).float(), walk / 2)
    assert axes[1].lines[1].get_xydata().tolist() == [[0.0, 0.0]]


def test_strengths_are_shown_before_and_after_relative_to_the_strongest():
    _, axes = figure(columns=2, share_y=False)
    pictures.draw_orthogonalised(axes, torch.eye(2), torch.diag(torch.tensor([4.0, 2.0, 1.0])))
    after, before = (line.get_ydata() for line in axes[1].lines)
    assert before.tolist() == [1.0, 0.5, 0.25]
    assert min(after) > 0.5
