import pytest
from matplotlib.colors import to_rgb

from minillm.lab.figures import figure
from minillm.serve.pictures import draw_blocks, draw_map, draw_request, draw_slots


def drawn(ratios, **options):
    ax = figure()[1]
    draw_map(ax, ratios, **options)
    cells = {(p.get_x(), p.get_y()): p for p in ax.patches if p.get_width() == 1}
    frames = {(round(p.get_x()), round(p.get_y())) for p in ax.patches if p.get_width() < 1}
    return ax, cells, frames


def test_a_cell_stands_at_its_lengths_with_its_ratio():
    ax, cells, _ = drawn({(512, 16): 1.24, (128, 64): 0.7, (128, 16): 3.0, (512, 64): None})
    words = {text.get_position(): text.get_text() for text in ax.texts}
    assert words == {(0.5, 1.5): "1.24×", (1.5, 0.5): "0.70×", (0.5, 0.5): "3.00×", (1.5, 1.5): "–"}
    assert set(cells) == {(0, 0), (0, 1), (1, 0), (1, 1)}
    assert [tick.get_text() for tick in ax.get_xticklabels()] == ["16", "64"]
    assert [tick.get_text() for tick in ax.get_yticklabels()] == ["128", "512"]


def test_larger_is_darker_also_in_grey_and_words_stay_readable():
    ratios = [0.5, 1.0, 1.3, 2.0, 3.0, 4.0, 9.0]
    ax, cells, _ = drawn({(0, n): ratio for n, ratio in enumerate(ratios)})
    weights = (0.299, 0.587, 0.114)
    grey = [
        sum(w * c for w, c in zip(weights, cells[n, 0].get_facecolor()[:3], strict=True))
        for n in range(len(ratios))
    ]
    assert grey[0] == grey[1] == pytest.approx(1) and grey[-1] == grey[-2]
    assert grey[1:-1] == sorted(grey[1:-1], reverse=True)
    for text, ground in zip(ax.texts, grey, strict=True):
        ink = sum(w * c for w, c in zip(weights, to_rgb(text.get_color()), strict=True))
        assert abs(ink - ground) > 0.35


def test_cells_that_reach_the_claim_are_framed():
    ratios = {(1, 1): 2.0, (1, 2): 1.99, (2, 1): None, (2, 2): 5.0}
    assert drawn(ratios)[2] == {(0, 0), (1, 1)}
    ax, _, frames = drawn(ratios, claim=1.5)
    assert frames == {(0, 0), (1, 0), (1, 1)}
    assert ax.get_xlabel() == "answer, tokens (framed: 1.5× or more)"


def test_no_cell_is_no_map():
    with pytest.raises(ValueError, match="at least one cell"):
        draw_map(figure()[1], {})


def test_a_bar_goes_from_a_requests_first_step_to_its_last():
    ax = figure()[1]
    steps = [[(0, 0, 4), (1, 1, 4)], [(0, 0, 1)], [(0, 0, 1), (2, 1, 4)]]
    draw_slots(ax, {"a": steps, "b": [[(0, 1, 1)]]}, n_slots=2)
    bars = {(p.get_x(), round(p.get_y() + 0.42)): p.get_width() for p in ax.patches}
    assert bars == {(0, 0): 3, (0, -1): 1, (2, -1): 1, (0, -4): 1}  # b is drawn 3.5 lower
    assert [text.get_text() for text in ax.texts] == ["3 steps", "1 steps"]


def test_the_cache_grows_by_what_is_read():
    ax = figure()[1]
    draw_request(ax)
    kept = [p.get_x() for p in ax.patches if p.get_width() < 1]
    assert sorted(map(kept.count, set(kept))) == [2, 3, 4]


def test_one_of_three_blocks_is_shared():
    ax = figure()[1]
    draw_blocks(ax)
    words = [text.get_text() for text in ax.texts]
    assert words.count("5") == 2 and "block 5: A and B" in words
