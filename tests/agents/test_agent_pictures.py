import pytest

from minillm.agents.agent_pictures import draw_items, draw_loops, draw_shares, draw_success


def test_a_way_back_leads_from_the_world_in_the_closed_loop_alone():
    (ax,) = draw_loops().axes
    ways = {(text.xy, text.xyann) for text in ax.texts if text.get_text() == ""}
    closed = [way for way in ways if way[0][0] < 3]
    opened = [way for way in ways if way[0][0] > 3]
    assert len(closed) == 4 and ((0, 1), (1, 0)) in closed  # into the view, out of the world
    assert len(opened) == 3 and not any(start == (4.6, 0) for _, start in opened)


def test_success_is_drawn_in_percent_over_a_linear_axis_of_failures():
    lines = {"closed loop": [[1, 1, 0.9], [1, 0.8, 0.7]], "open loop": [[1, 0.4, 0.1]]}
    (ax,) = draw_success([0, 0.1, 0.2], lines, [1, 0.31, 0.09], "Eyes").axes
    assert ax.lines[0].get_xdata() == pytest.approx([0, 10, 20])
    assert ax.lines[0].get_ydata() == pytest.approx([100, 90, 80])
    assert ax.lines[-1].get_ydata() == pytest.approx([100, 31, 9])
    assert [text.get_text() for text in ax.texts] == ["closed loop", "open loop", "arithmetic"]


def test_a_bar_is_the_mean_of_its_seeds_in_percent():
    (ax,) = draw_shares({"sum": [0.3, 0.5], "product": [0.5, 0.6]}, "recall@3 in %", "Two").axes
    assert [bar.get_width() for bar in ax.patches] == pytest.approx([40, 55])
    assert ax.get_xlabel() == "recall@3 in %"


def test_lines_are_means_of_maps_and_no_two_names_stand_at_one_height():
    arms = {"all": [[7, 20], [7, 18]], "less": [[7, 11], [5, 9]], "least": [[1, 3], [1, 3]]}
    left, right = draw_items([50, 150], {"one": arms, "another": {"all": arms["all"]}}, 20).axes
    means = [line.get_ydata().tolist() for line in left.lines[1:]]
    assert means == [[7, 19], [6, 10], [1, 3]]
    heights = [text.xy[1] for text in left.texts]
    assert len(left.texts) == 3 and min(map(abs, (heights[0] - heights[1], heights[2]))) >= 3
    assert left.get_ylabel() == "items held, of 20" and right.get_ylabel() == ""


def test_a_name_has_one_colour_in_all_panels_and_no_other_name_has_it():
    arms = {"all": [[7, 20]], "less": [[7, 11]]}
    left, right = draw_items([50, 150], {"one": arms, "two": {**arms, "least": [[1, 3]]}}, 20).axes
    colours = [[line.get_color() for line in ax.lines[1:]] for ax in (left, right)]
    assert colours[0] == colours[1][:2] and len({*colours[1]}) == 3
    swapped = {"one": {"all": [[7, 20]]}, "two": {"less": [[7, 11]]}}
    first, second = draw_items([50, 150], swapped, 20).axes
    assert first.lines[1].get_color() != second.lines[1].get_color()


def test_more_names_than_colours_are_refused():
    arms = {str(n): [[1, 2]] for n in range(7)}
    with pytest.raises(ValueError, match="colours for 6 names; got 7"):
        draw_items([50, 150], {"many": arms}, 20)
