import base64
import io

import matplotlib
import pytest
from PIL import Image

from minillm.lab import figures


def luminance(colour):
    """Relative luminance as WCAG 2.1 defines it."""
    channels = [int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5)]
    linear = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in channels]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


def test_every_colour_reads_on_the_figures_own_ground():
    ground = luminance(figures.GROUND)
    for colour in (*figures.COLOURS, figures.GREY, figures.INK):
        assert (ground + 0.05) / (luminance(colour) + 0.05) >= 3


def test_the_ground_is_opaque_so_a_dark_page_does_not_show_through():
    figures.style()
    fig, _ = figures.figure()
    assert fig.get_facecolor()[3] == 1
    assert matplotlib.rcParams["savefig.facecolor"] == figures.GROUND


def test_a_projector_gets_larger_type():
    figures.style()
    small = matplotlib.rcParams["font.size"]
    figures.style(projector=True)
    assert matplotlib.rcParams["font.size"] > 1.3 * small
    figures.style()


def test_the_same_figure_gives_the_same_bytes():
    def draw():
        fig, ax = figures.figure()
        ax.plot([1, 2, 3])
        figures.label(ax, 2, 3, "here", figures.BLUE)
        return figures.png(fig)

    assert draw() == draw()
    assert draw().startswith(b"\x89PNG")


def test_columns_give_axes_side_by_side():
    _, axes = figures.figure(columns=3)
    assert len(axes) == 3


def test_outside_a_notebook_the_text_is_printed(capsys):
    fig, _ = figures.figure()
    figures.publish(fig, alt="A line that rises.")
    assert capsys.readouterr().out == "Figure: A line that rises.\n"


def test_a_figure_without_alternative_text_is_refused():
    fig, _ = figures.figure()
    with pytest.raises(ValueError, match="what the figure shows"):
        figures.publish(fig, alt=" ")


def test_in_a_notebook_the_picture_carries_its_text(monkeypatch):
    shown = []
    monkeypatch.setattr(figures, "in_notebook", lambda: True)
    monkeypatch.setattr("IPython.display.display", lambda data, **more: shown.append((data, more)))
    fig, _ = figures.figure()
    figures.publish(fig, alt="A line that rises.")
    ((data, more),) = shown
    assert data["text/plain"] == "Figure: A line that rises."
    assert more["metadata"] == {"image/png": {"alt": "A line that rises."}}
    assert base64.b64decode(data["image/png"]) == figures.png(fig)


def test_columns_share_their_vertical_axis():
    _, (left, right) = figures.figure(columns=2)
    left.set_ylim(0, 7)
    assert right.get_ylim() == (0, 7)


def test_the_picture_has_a_palette_of_few_colours():
    fig, _ = figures.figure()
    assert Image.open(io.BytesIO(figures.png(fig))).mode == "P"


def test_columns_may_have_a_vertical_axis_each():
    _, (left, right) = figures.figure(columns=2, share_y=False)
    left.set_ylim(0, 7)
    assert right.get_ylim() != (0, 7)


def test_a_diagram_joins_every_box_that_an_arrow_names():
    figures.style()
    fig = figures.diagram({"a": (0, 0, "one"), "b": (1, 0, "two")}, [("a", "b")])
    words = [text.get_text() for text in fig.axes[0].texts]
    assert words == ["one", "two", ""]
    with pytest.raises(ValueError, match=r"no box is called c; there are \['a'\]"):
        figures.diagram({"a": (0, 0, "one")}, [("a", "c")])
