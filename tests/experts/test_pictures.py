import numpy as np
import pytest
from matplotlib.patches import FancyArrowPatch

from minillm.experts.pictures import (
    draw_busiest,
    draw_ends,
    draw_layer,
    draw_learning,
    draw_shares,
    draw_sorting,
    draw_speed,
)
from minillm.lab.figures import figure


@pytest.mark.parametrize("top_k", [1, 2, 3])
def test_the_k_most_probable_experts_have_a_weight_and_the_others_are_not_called(top_k):
    axes = figure(columns=2)[1]
    draw_layer(axes, [0.5, 0.1, 0.4], top_k)
    texts = [text.get_text() for text in axes[1].texts]
    weights = [float(text[2:]) for text in texts if text.startswith("×")]
    assert len(weights) == top_k
    assert sum(weights) == pytest.approx(1, abs=0.02)
    assert texts.count("not called") == 3 - top_k
    arrows = [patch for patch in axes[1].patches if isinstance(patch, FancyArrowPatch)]
    assert len(arrows) == 1 + 3 + top_k


def test_a_table_shows_the_shares_of_a_tenth_and_more():
    ax = figure()[1]
    draw_shares(ax, np.array([[0.05, 0.95], [0.5, 0.5]]))
    assert [text.get_text() for text in ax.texts] == ["95", "50", "50"]


def test_sorted_tokens_stand_in_one_slice_an_expert_and_keep_their_order_in_it():
    ax = figure()[1]
    draw_sorting(ax, [2, 0, 2, 1, 0])
    texts = [text.get_text() for text in ax.texts]
    assert texts[5:10] == ["token 1", "token 4", "token 3", "token 0", "token 2"]
    assert texts[10:] == [f"expert {e}: one multiplication" for e in range(3)]
    right_ends = [line.get_xdata()[1] for line in ax.lines]
    left_ends = [line.get_xdata()[0] for line in ax.lines]
    assert all(right < left for right, left in zip(right_ends, left_ends[1:], strict=False))


def test_the_dashed_lines_stand_where_the_first_rival_ends_in_the_mean():
    curves = {"dense": [[4.0, 2.0], [4.0, 3.0]], "8": [[4.0, 1.0], [4.0, 1.5]]}
    ax = figure()[1]
    draw_learning(ax, curves, every=20)
    assert ax.lines[0].get_xdata().tolist() == [20, 40]
    assert set(ax.lines[-1].get_ydata()) == {2.5}
    ax = figure()[1]
    draw_ends(ax, curves)
    assert [line.get_xdata() for line in ax.lines if line.get_linestyle() == "--"] == [[2.5, 2.5]]
    dots = [line for line in ax.lines if line.get_linestyle() == "None"]
    assert [list(line.get_xdata()) for line in dots] == [[2.0, 3.0], [1.0, 1.5]]


def test_the_band_of_the_claim_stands_where_it_was_said():
    ax = figure()[1]
    steps, hours = {2: [0.75, 0.85], 8: [0.5, 0.75]}, {2: [1.0], 8: [2.0]}
    draw_speed(ax, {"in steps": steps, "by the clock": hours}, (4, 7))
    band = ax.patches[0]
    assert (band.get_y(), band.get_y() + band.get_height()) == (4, 7)
    lines = [line.get_ydata().tolist() for line in ax.lines[1:] if line.get_linestyle() == "-"]
    assert lines == [pytest.approx([1.25, 1.6]), [1.0, 0.5]]
    dots = [line for line in ax.lines if line.get_linestyle() == "None"]
    assert dots[1].get_xdata().tolist() == [8, 8]
    assert dots[1].get_ydata().tolist() == pytest.approx([2, 4 / 3])


def test_each_way_has_its_own_group_of_bars_a_seed_each():
    ax = figure()[1]
    draw_busiest(ax, {"losses": [0.2, 0.3, 0.1], "bias": [0.15, 0.15, 0.2]}, n_experts=4)
    middles = [bar.get_y() + bar.get_height() / 2 for bar in ax.patches]
    assert [round(middle) for middle in middles] == [0, 0, 0, -1, -1, -1]
    assert middles == sorted(middles, reverse=True)  # the first seed on top
    assert ax.lines[0].get_xdata() == [25, 25]


def test_a_note_stands_right_of_all_bars_in_the_row_of_its_name():
    ax = figure()[1]
    shares = {"losses": [0.2, 0.3], "bias": [0.15, 0.1]}
    draw_busiest(ax, shares, n_experts=4, notes=["early", "late"])
    positions = {text.get_text(): text.xy for text in ax.texts}
    assert (positions["early"], positions["late"]) == ((30, 0), (30, -1))
    assert ax.get_xlim() == (0, 60)
