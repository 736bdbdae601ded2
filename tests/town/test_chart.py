"""minillm.town.chart: a page about a town, and its map."""

import random

import pytest

from minillm.town.chart import describe, draw_map
from minillm.town.world import World


def words_in(figure):
    return [text.get_text().replace("~", " ") for text in figure.axes[0].texts]


def test_a_page_says_how_far_things_are_from_the_market_square():
    assert "  2  clock tower, well\n" in describe(World())
    assert " 20  hill" in describe(World())


def test_the_page_names_only_the_knobs_that_were_turned():
    assert "knobs" not in describe(World())
    assert describe(World(ambiguity=0.25)).endswith("knobs: ambiguity 0.25")


@pytest.mark.parametrize("seed", ["tinytown", "Ada"])
def test_the_map_shows_every_place_every_road_and_every_keeper(seed, capsys):
    world = World(seed)
    words = words_in(draw_map(world))
    assert "18 places joined by 20 roads" in capsys.readouterr().out
    for place in world.places:
        assert any(word.lower().startswith(place.name.lower()) for word in words)
    minutes = [word for word in words if word[0].isdigit()]
    assert sorted(minutes) == sorted(
        f"{road.minutes}{' by boat' if road.by == 'boat' else ''}" for road in world.roads
    )
    for person in world.people:
        if person.keeper:
            assert any(person.title in word for word in words)


def test_no_letter_of_the_map_is_chinese():
    assert all(ord(letter) < 0x3000 for word in words_in(draw_map(World())) for letter in word)


@pytest.mark.parametrize("seed", ["tinytown", 0, 2])
def test_no_two_names_on_the_map_lie_on_each_other(seed):
    from matplotlib.backends.backend_agg import FigureCanvasAgg

    figure = draw_map(World(seed))
    canvas = FigureCanvasAgg(figure)
    canvas.draw()
    boxes = [
        (text.get_text(), text.get_window_extent(canvas.get_renderer()))
        for text in figure.axes[0].texts
        if not text.get_text()[0].isdigit() and text.get_text() != "river"
    ]
    for i, (one, box) in enumerate(boxes):
        for other, second in boxes[:i]:
            width = min(box.x1, second.x1) - max(box.x0, second.x0)
            height = min(box.y1, second.y1) - max(box.y0, second.y0)
            assert width <= 6 or height <= 6, (one, other)


def test_drawing_uses_no_chance():
    before = random.getstate()
    draw_map(World())
    assert random.getstate() == before
