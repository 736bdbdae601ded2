"""The course on one page: a tile for each chapter, a row for each stretch of the road.

Chapter: 00
"""

import textwrap

from minillm.lab import figures
from minillm.lab.project import syllabus

STRETCHES = (
    ("words", "00", "02"),
    ("the model", "03", "04"),
    ("training", "05", "08"),
    ("other designs", "09", "11"),
    ("laws", "12", "14"),
    ("many machines", "15", "16"),
    ("serving", "17", "19"),
    ("teaching", "20", "23"),
    ("reasoning", "24", "25"),
    ("knowing", "26", "27"),
    ("acting", "28", "30"),
)


def draw_course() -> None:
    """Draw every chapter of the syllabus, in reading order, row by row."""
    fig, ax = figures.figure(9.0, 5.6)
    for row, (name, first, last) in enumerate(STRETCHES):
        colour = figures.COLOURS[row % len(figures.COLOURS)]
        ax.text(-0.08, -row, name, ha="right", va="center", color=colour, fontweight="bold")
        chapters = [c for c in syllabus() if first <= c.number <= last]
        for column, chapter in enumerate(chapters):
            box = {"boxstyle": "round,pad=0.35", "facecolor": colour, "edgecolor": "none"}
            place = {"ha": "left", "va": "center", "fontsize": 9}
            ax.text(column, -row, chapter.number, color="white", bbox=box, **place)
            ax.text(column + 0.16, -row, _short(chapter.title), color=figures.INK, **place)
    ax.set(xlim=(-0.05, 4), ylim=(-len(STRETCHES) + 0.4, 0.6))
    ax.set_axis_off()
    ax.set_title("From counting bytes to a town of agents, on one laptop")
    titles = "; ".join(f"{c.number} {c.title}" for c in syllabus())
    figures.publish(fig, alt=f"The chapters of the course: {titles}.")


def _short(title: str, width: int = 18) -> str:
    """A title that fits beside its tile, broken into two lines where it is long."""
    return "\n".join(textwrap.wrap(title, width))
