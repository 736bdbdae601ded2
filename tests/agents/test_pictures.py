from minillm.agents.pictures import draw_call, draw_clone, draw_headline, draw_lines
from minillm.lab.figures import BLUE, ORANGE, figure


def test_what_the_model_writes_and_what_the_program_does_have_colours_of_their_own():
    (ax,) = draw_call("What is 3 times 4?", "[ 3 * 4 ]", "calculate", "12 ;", "12 .").axes
    boxes = [text for text in ax.texts if text.get_bbox_patch()]
    assert len(boxes) == 5 and len(ax.texts) == 11  # five boxes, five arrows, words at one of them
    edges = {}
    for box in boxes:
        red, green, blue, _ = box.get_bbox_patch().get_edgecolor()
        colour = f"#{round(255 * red):02X}{round(255 * green):02X}{round(255 * blue):02X}"
        edges.setdefault(colour, []).append(box.get_text().splitlines()[-1])
    assert edges[BLUE] == ["[ 3 * 4 ]", "12 ."] and edges[ORANGE] == ["calculate", "12 ;"]


def test_the_headline_has_a_panel_for_products_and_one_for_when_to_call():
    fig = draw_headline({"bare": [1, 3], "calls": [99, 97]}, {"always call": [67]})
    left, right = fig.axes
    assert [round(bar.get_width()) for bar in left.patches] == [2, 98]
    assert [round(bar.get_width()) for bar in right.patches] == [67]
    assert left.get_xlabel() == "% right" and right.get_xlabel() == "F1, in %"
    numbers = [text.get_text() for text in left.texts]
    assert numbers == ["2.0", "98.0"]  # 99.6 is not drawn as 100


def test_a_clone_has_a_panel_of_lines_with_the_bound_and_a_panel_of_its_actions():
    lines = {"right actions": [[70, 80]], "success": [[10, 30]]}
    left, right = draw_clone([100, 500], lines, {"quote": [90], "scroll": [4, 6]}, (38, "b")).axes
    assert [text.get_text() for text in left.texts] == ["right actions", "success", "b"]
    assert left.lines[-1].get_ydata() == [38, 38]
    assert [text.get_text() for text in left.get_xticklabels()] == ["100", "500"]
    assert [round(bar.get_width()) for bar in right.patches] == [90, 5]


def test_a_line_is_the_mean_of_the_seeds_and_each_seed_has_points():
    ax = figure()[1]
    draw_lines(ax, ["50", "500"], {"clone": [[20, 80], [30, 90]], "expert": [[100, 100]]})
    drawn = [line.get_ydata().tolist() for line in ax.lines[:-1] if hasattr(line, "get_ydata")]
    assert [list(map(float, each)) for each in drawn] == [
        [25, 85],
        [20, 80],
        [30, 90],
        [100, 100],
        [100, 100],
    ]
    assert [text.get_text() for text in ax.get_xticklabels()] == ["50", "500"]
    assert [text.get_text() for text in ax.texts] == ["clone", "expert"]
