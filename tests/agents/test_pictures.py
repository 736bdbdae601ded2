import pytest

from minillm.agents.pictures import draw_call, draw_clone, draw_headline, draw_lines
from minillm.lab.figures import BLUE, ORANGE, figure


def test_what_the_model_writes_and_what_the_program_does_have_colours_of_their_own():
    (ax,) = draw_call("What is 3 times 4?", "[ 3 * 4 ]", "calculate", "12 ;", "12 .").axes
    boxes = [text for text in ax.texts if text.get_bbox_patch()]
    assert len(boxes) == 5 and len(ax.texts) == 16  # boxes, arrows, words at one; the text
    parts = [(text.get_text(), text.get_color()) for text in ax.texts[-3:]]
    assert parts == [("[ 3 * 4 ]", BLUE), ("12 ;", ORANGE), ("12 .", BLUE)]
    edges = {}
    for box in boxes:
        red, green, blue, _ = box.get_bbox_patch().get_edgecolor()
        colour = f"#{round(255 * red):02X}{round(255 * green):02X}{round(255 * blue):02X}"
        edges.setdefault(colour, []).append(box.get_text().splitlines()[-1])
    assert edges[BLUE] == ["[ 3 * 4 ]", "12 ."] and edges[ORANGE] == ["calculate", "12 ;"]


def test_the_headline_has_a_panel_for_products_and_one_for_when_to_call():
    def row(seen, held_out, f1, new_f1):
        both = {"seen": (seen, f1), "held out": (held_out, new_f1)}
        return {name: {"products": p, "f1": f} for name, (p, f) in both.items()}

    bare, learned = [row(0.01, 0, 0, 0), row(0.03, 0, 0, 0)], [row(0.9, 0.8, 1, 1)]
    calls = {"bare": bare, "masked": [row(0.996, 0.88, 0.99, 0.97)], "unmasked": learned}
    left, right = draw_headline(calls, {"always call": 67}).axes
    numbers = [[text.get_text() for text in ax.texts] for ax in (left, right)]
    assert numbers == [["2.0", "99.6", "88.0", "90.0"], ["67.0", "99.0", "97.0"]]  # not 100
    names = [text.get_text() for text in right.get_yticklabels()]
    assert names == ["always call", "result masked", "masked, new combinations"]
    assert left.get_xlabel() == "% right" and right.get_xlabel().startswith("F1, in %: ")
    assert [len(line.get_xdata()) for line in right.lines] == [1, 1]  # no dots for the rule


def test_a_clone_has_a_panel_of_lines_with_the_bound_and_a_panel_of_its_actions():
    def row(seed, demos, right, success, scroll):
        verbs = {"quote": 0.9, "scroll": scroll}
        shares = {"step_accuracy": right, "success": success, "verbs": verbs}
        return {"seed": seed, "demos": demos, **shares}

    rows = [row(0, 500, 0.8, 0.3, 0.04), row(0, 100, 0.7, 0.1, 0.5), row(1, 500, 0.9, 0.2, 0.06)]
    left, right = draw_clone([*rows, row(1, 100, 0.6, 0.1, 0.5)], (38, "b")).axes
    assert [text.get_text() for text in left.texts] == ["right actions", "success", "b"]
    means = [line.get_ydata().tolist() for line in left.lines if line.get_linestyle() == "-"]
    assert means == [pytest.approx([65, 85]), pytest.approx([10, 25])]
    assert left.lines[-1].get_ydata() == [38, 38]
    assert [text.get_text() for text in left.get_xticklabels()] == ["100", "500"]
    assert [round(bar.get_width()) for bar in right.patches] == [90, 5]


def test_a_line_is_the_mean_of_the_seeds_and_each_seed_has_points():
    ax = figure()[1]
    draw_lines(ax, ["50", "500"], {"clone": [[20, 80], [30, 90]], "expert": [[100, 100]]})
    drawn = [line.get_ydata().tolist() for line in ax.lines]
    assert [list(map(float, each)) for each in drawn] == [
        [25, 85],
        [20, 80],
        [30, 90],
        [100, 100],
        [100, 100],
    ]
    assert [text.get_text() for text in ax.get_xticklabels()] == ["50", "500"]
    assert [text.get_text() for text in ax.texts] == ["clone", "expert"]
