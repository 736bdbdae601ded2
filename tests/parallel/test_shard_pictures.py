import pytest
from matplotlib.colors import same_color
from matplotlib.patches import Rectangle

from minillm.lab.figures import figure
from minillm.parallel.shard_pictures import KINDS, draw_bytes, draw_holdings, draw_ring, draw_sent
from minillm.parallel.zero import bytes_per_rank


def test_what_is_filled_of_a_rank_are_its_bytes_and_all_ranks_together_have_everything():
    axes = figure(columns=4)[1]
    draw_holdings(axes, 4)
    for stage, ax in enumerate(axes):
        filled = [p for p in ax.patches if isinstance(p, Rectangle) and p.get_facecolor()[3]]
        for rank in range(4):
            own = [patch.get_height() for patch in filled if patch.get_x() == rank]
            assert sum(own) == pytest.approx(bytes_per_rank(1, 4, stage))
        for place, (_, size, colour) in enumerate(KINDS):
            rows = [p for p in filled if same_color(p.get_facecolor(), colour)]
            covered = {round(p.get_y(), 6): p.get_height() for p in rows}
            assert sum(covered.values()) == pytest.approx(size)  # ranks' parts lie apart, or equal
            assert len(covered) == (4 if stage >= 3 - place else 1)


def test_a_ring_of_three_adds_up_chunk_by_chunk_and_hands_the_sums_round():
    axes = figure(columns=5)[1]
    draw_ring(axes, 3)
    numbers = ["".join(t.get_text() for t in ax.texts if t.get_text().isdigit()) for ax in axes]
    assert numbers == [
        "111111111",
        "121112211",
        "321132213",  # rank r has the sum of chunk r
        "323332233",
        "333333333",
    ]
    arrived = [sum(patch.get_edgecolor()[3] > 0 for patch in ax.patches) for ax in axes]
    assert arrived == [0, 3, 3, 3, 3]


def test_dots_are_what_was_measured_and_lines_the_formula():
    ax = figure()[1]
    measured = {
        n: [{"weights": 20 * n + stage, "gradients": 20, "optimizer": 60, "n_parameters": 10}
            for stage in range(4)]
        for n in (2, 4)
    }  # fmt: skip
    draw_bytes(ax, measured)
    for stage in range(4):
        line, *dots = ax.lines[3 * stage : 3 * stage + 3]
        assert line.get_ydata()[3] == bytes_per_rank(1, 8, stage)
        points = [(*dot.get_xdata(), *dot.get_ydata()) for dot in dots]
        assert points == [(2, 12 + stage / 10), (4, 16 + stage / 10)]


def test_bars_are_shares_of_what_stage_0_sends():
    ax = figure()[1]
    draw_sent(ax, {1: [4.0, 4.0, 4.0, 6.0], 4: [4.0, 4.0, 10.0, 20.0]}, ["0", "1", "2", "3"])
    assert [bar.get_height() for bar in ax.patches] == [1, 1, 1, 1.5, 1, 1, 2.5, 5]
    texts = {text.get_text() for text in ax.texts}
    assert {"1.50", "5.00", "1 backward pass", "4 backward passes"} <= texts
