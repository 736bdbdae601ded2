"""One style for every figure of the course, and a way to publish it with its text.

Colours are Okabe and Ito's, which people with any kind of colour vision tell apart; the ground is
opaque, so a figure reads the same on a light and on a dark page, and printed.

Chapter: 00
"""

import base64
import io

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
