from matplotlib.colors import same_color

from minillm.lab.figures import figure
from minillm.parallel.pictures import (
    BACKWARD,
    FORWARD,
    RANKS,
    draw_column_row,
    draw_cuts,
    draw_plans,
    draw_ring_attention,
    draw_timeline,
)
from minillm.parallel.plan import ThreeD
from minillm.parallel.schedule import Action, Event, Timeline, one_forward_one_backward, simulate


def blocks(ax, colour):
    """Row, left and right end of the blocks of a colour, without the legend's."""
    patches = [p for p in ax.patches if same_color(p.get_facecolor(), colour) and p.get_y() < 0.5]
    return sorted((round(-p.get_y() - 0.4), p.get_x(), p.get_x() + p.get_width()) for p in patches)


def test_each_pass_is_a_block_in_its_stages_row_with_its_number():
    ax = figure()[1]
    draw_timeline(ax, simulate([one_forward_one_backward(n, 2, 2) for n in range(2)]))
    assert blocks(ax, FORWARD) == [(0, 0, 1), (0, 1, 2), (1, 1, 2), (1, 4, 5)]
    assert blocks(ax, BACKWARD) == [(0, 4, 6), (0, 7, 9), (1, 2, 4), (1, 5, 7)]
    numbers = [text.get_text() for text in ax.texts if text.get_text().isdigit()]
    assert sorted(numbers) == ["0"] * 4 + ["1"] * 4


def test_a_measured_timeline_begins_at_0_and_two_can_have_one_axis():
    ax = figure()[1]
    draw_timeline(ax, Timeline([Event(0, Action("forward", 3), 100.5, 101.0)]), until=2)
    assert blocks(ax, FORWARD) == [(0, 0, 0.5)]
    assert ax.get_xlim() == (0, 2)


def test_every_layer_is_shared_by_all_ranks_or_is_one_ranks():
    axes = figure(columns=3)[1]
    draw_cuts(axes)
    for ax, ranks_a_layer in zip(axes, (4, 4, 1), strict=True):
        for layer in range(4):
            row = [p for p in ax.patches if p.get_y() == layer]
            assert len(row) == ranks_a_layer
            owners = {n for n, colour in enumerate(RANKS) for p in row if _is(p, colour)}
            assert owners == (set(range(4)) if ranks_a_layer == 4 else {layer})


def _is(patch, colour):
    return same_color(patch.get_facecolor(), colour)


def test_two_ranks_halves_are_the_whole_of_both_matrices():
    ax = figure()[1]
    draw_column_row(ax)
    outlines = [p for p in ax.patches if _is(p, "white")]
    filled = [p for p in ax.patches if not _is(p, "white")]
    area = lambda patches: sum(p.get_width() * p.get_height() for p in patches)  # noqa: E731
    assert abs(area(filled) - area(outlines) / 2) < 1e-9
    up, down = filled[0::2], filled[1::2]
    heights = [p.get_y() - o.get_y() for p, o in zip(up, outlines[0::2], strict=True)]
    assert [round(height, 6) for height in heights] == [0.8, 0]
    assert [round(p.get_x(), 6) for p in down] == [5.2, 6.0]
    assert {p.get_width() for p in up} == {1.2}  # all inputs, half of the outputs
    assert {p.get_height() for p in down} == {1.2}  # all outputs, half of the inputs


def test_the_star_is_the_fastest_plan_that_fits():
    def plan(seconds, n_gb, recompute):
        n_bytes = n_gb * 10**9
        return ThreeD(
            seconds=seconds, n_bytes=n_bytes, dp=1, tp=1, pp=1, n_micro_batches=1,
            recompute=recompute,
        )  # fmt: skip

    ax = figure()[1]
    draw_plans(ax, [plan(10, 90, False), plan(30, 70, True), plan(20, 80, True)], 2, 80e9)
    star = next(line for line in ax.lines if line.get_marker() == "*")
    assert (*star.get_xdata(), *star.get_ydata()) == (80, 40)


def test_a_rank_meets_the_keys_of_the_rank_s_before_it_at_step_s():
    ax = figure()[1]
    draw_ring_attention(ax, 3)
    assert [text.get_text() for text in ax.texts] == ["0", "", "", "1", "0", "", "2", "1", "0"]
