"""One style for every figure of the course, and a way to publish it with its text.

Colours are Okabe and Ito's, which people with any kind of colour vision tell apart; the ground is
opaque, so a figure reads the same on a light and on a dark page, and printed.

Chapter: 00
"""

import base64
import io
from collections.abc import Sequence

import matplotlib

from minillm.lab.project import in_notebook

BLUE, ORANGE, GREEN, PURPLE = "#0072B2", "#D55E00", "#009E73", "#AA4499"
GREY, INK, GROUND = "#777777", "#222222", "#FFFFFF"
COLOURS = (BLUE, ORANGE, GREEN, PURPLE)
DPI = 80


def style(*, projector: bool = False) -> None:
    """Set matplotlib's defaults for the course.

    Args:
        projector: type and lines large enough for the last row of a hall.
    """
    scale = 1.4 if projector else 1.0
    matplotlib.rcParams.update(
        {
            "figure.dpi": DPI,
            "savefig.dpi": DPI,
            "figure.facecolor": GROUND,
            "axes.facecolor": GROUND,
            "savefig.facecolor": GROUND,
            "font.family": "DejaVu Sans",
            "font.size": 11 * scale,
            "axes.titlesize": 11.5 * scale,
            "axes.titleweight": "bold",
            "axes.titlelocation": "left",
            "axes.titlepad": 10,
            "axes.labelcolor": INK,
            "axes.edgecolor": GREY,
            "axes.spines.top": False,
            "axes.spines.right": False,
            "text.color": INK,
            "xtick.color": INK,
            "ytick.color": INK,
            "lines.linewidth": 2.0 * scale,
            "lines.markersize": 6 * scale,
            "axes.prop_cycle": matplotlib.cycler(color=COLOURS),
            "legend.frameon": False,
        }
    )


def figure(width: float = 6.4, height: float = 3.6, *, columns: int = 1, share_y: bool = True):
    """A new figure with one row of axes.

    Args:
        width: of the whole figure, in inches.
        height: in inches.
        columns: how many axes stand side by side.
        share_y: whether they have the vertical axis in common.

    Returns:
        ``(figure, axes)``, where axes is a single one if ``columns`` is 1.
    """
    # Made without pyplot: nothing is left open, and no notebook shows a figure twice.
    from matplotlib.figure import Figure

    fig = Figure(figsize=(width, height), layout="constrained")
    return fig, fig.subplots(1, columns, sharey=share_y)


def label(ax, x: float, y: float, text: str, color: str, **options: object) -> None:
    """Write a label at a point of a curve, in the curve's colour, instead of a legend."""
    options = {"ha": "left", "va": "center", "fontweight": "bold", **options}
    offset = options.pop("offset", (6, 0))
    ax.annotate(text, (x, y), xytext=offset, textcoords="offset points", color=color, **options)


def diagram(
    boxes: dict[str, tuple[float, float, str]],
    arrows: Sequence[tuple[str, str]],
    *,
    width: float = 7.8,
    height: float = 3.0,
    colours: dict[str, str] | None = None,
):
    """Boxes with words, and arrows between them: how something works, on a napkin.

    Args:
        boxes: name to (x, y, words); the centre of each, in a plane of any units.
        arrows: pairs of names, from and to; two boxes side by side get a straight arrow.
        width: of the figure, in inches.
        height: in inches.
        colours: of some boxes, by name; the others are grey.

    Returns:
        the figure, for `publish`.

    Raises:
        ValueError: an arrow to a box that is not there.
    """
    if strange := {name for arrow in arrows for name in arrow} - set(boxes):
        raise ValueError(f"no box is called {', '.join(sorted(strange))}; there are {[*boxes]}")
    fig, ax = figure(width, height)
    ax.axis("off")
    places = [place[:2] for place in boxes.values()]
    for axis, values in zip("xy", zip(*places, strict=True), strict=True):
        margin = {"x": 0.12, "y": 0.3}[axis] * (max(values) - min(values) or 1)
        getattr(ax, f"set_{axis}lim")(min(values) - margin, max(values) + margin)
    patches = {}
    for name, (x, y, words) in boxes.items():
        edge = {"edgecolor": (colours or {}).get(name, GREY), "facecolor": GROUND, "linewidth": 2}
        style = {"boxstyle": "round,pad=0.5", **edge}
        patches[name] = ax.text(x, y, words, ha="center", va="center", bbox=style, zorder=2)
    fig.canvas.draw()  # only now a box knows how large it is
    for start, end in arrows:
        patch_a, patch_b = (patches[name].get_bbox_patch() for name in (start, end))
        how = {"arrowstyle": "-|>", "color": INK, "lw": 1.5, "shrinkA": 2, "shrinkB": 2}
        how |= {"patchA": patch_a, "patchB": patch_b}
        ax.annotate("", boxes[end][:2], boxes[start][:2], arrowprops=how, zorder=1)
    return fig


def png(fig) -> bytes:
    """The figure as PNG bytes that depend on nothing but its pixels.

    128 colours are enough for lines and letters, and make the file a third as large.
    """
    from PIL import Image

    drawn, small = io.BytesIO(), io.BytesIO()
    fig.savefig(drawn, format="png", dpi=DPI, metadata={"Software": None})
    Image.open(drawn).convert("RGB").quantize(128).save(small, format="png", optimize=True)
    return small.getvalue()


def publish(fig, *, alt: str) -> None:
    """Show a figure together with its alternative text.

    Args:
        fig: from ``figure``.
        alt: what the figure shows, in a sentence, for those who cannot see it. It is also the
            output's text, so the course's checks compare it.

    Raises:
        ValueError: no alternative text was given.
    """
    if not alt.strip():
        raise ValueError("publish needs alt=..., one sentence that says what the figure shows.")
    image = png(fig)
    if not in_notebook():
        print(f"Figure: {alt}")
        return
    from IPython.display import display

    data = {"image/png": base64.b64encode(image).decode(), "text/plain": f"Figure: {alt}"}
    display(data, raw=True, metadata={"image/png": {"alt": alt}})
