"""A town on paper: a page of text, and a map to look at.

Chapter: 02
"""

import math
from typing import TYPE_CHECKING

from minillm.lab.figures import BLUE, GREEN, GREY, INK, ORANGE, figure, publish
from minillm.town.terrain import HEIGHT, RIVER_LEFT, RIVER_RIGHT, WIDTH, Road
from minillm.town.tinytown import JOBS

if TYPE_CHECKING:
    from minillm.town.world import World

WATER, GRASS, PAVED, ROOF = "#CFE6F4", "#EFF4E4", "#C9B48F", "#B5533C"


def describe(world: "World") -> str:
    """A page about a town: how many and where, who is famous, what things cost, what is open.

    Example:
        >>> from minillm.town.world import World
        >>> print(describe(World())[:79])
        TINYTOWN · 103 people, 18 places, 20 roads, 12 jobs, 32 goods (seed 'tinytown')
    """
    lines = [
        f"{str(world.seed).upper()} · {len(world.people)} people, {len(world.places)} places, "
        f"{len(world.roads)} roads, {len(JOBS)} jobs, {len(world.goods)} goods "
        f"(seed {world.seed!r})",
        "",
        f"{'the most famous':<16}{'in talk':>8}   {'works as':<17}{'lives at':<15}likes",
    ]
    for person, share in list(zip(world.people, world.fame, strict=True))[:13]:
        lines.append(
            f"{person.title:<16}{share:>8.1%}   {person.works_as or '-':<17}"
            f"{person.home:<15}{person.likes}"
        )
    lines += ["", "for sale, in coins"]
    for job in JOBS:
        goods = [f"{good.name} {good.price}" for good in world.goods if good.job == job]
        if goods:
            lines.append(f"{job:<18}{', '.join(goods)}")
    lines += ["", "from the market square, in minutes"]
    minutes = {place.name: world.distance("market square", place.name) for place in world.places}
    steps: dict[int, list[str]] = {}
    for name, n in sorted(minutes.items(), key=lambda item: item[1]):
        steps.setdefault(n, []).append(name)
    lines += [f"{n:>3}  {', '.join(names)}" for n, names in steps.items() if n]
    knobs = {"ambiguity": world.ambiguity, "change_rate": world.change_rate}
    turned = ", ".join(f"{knob} {value}" for knob, value in knobs.items() if value)
    lines += ["", f"open question: {world.mystery.question}"]
    return "\n".join(lines + ([f"knobs: {turned}"] if turned else []))


def draw_map(world: "World"):
    """Draw a town's river, roads with minutes, places, and who keeps what; and show it.

    Args:
        world: any town.

    Returns:
        The figure (which has been shown), for those who want to add to it.
    """
    fig, ax = figure(9.2, 6.0)
    ax.set(xlim=(-0.2, WIDTH + 0.2), ylim=(-0.1, HEIGHT + 0.25), aspect="equal")
    ax.set_axis_off()
    ax.set_facecolor(GRASS)
    ax.add_patch(_rectangle(-0.2, -0.1, WIDTH + 0.4, HEIGHT + 0.35, GRASS))
    _draw_river(ax, world.place("stone bridge").y)
    at = {place.name: (place.x, place.y) for place in world.places}
    for road in world.roads:
        _draw_road(ax, road, at)
    keepers = {JOBS[person.job][1]: person for person in world.people if person.keeper}
    labels = _label_sides(at, world.roads)
    for place in world.places:
        _draw_place(ax, place)
        who = keepers.get(place.name)
        dx, dy, side = labels[place.name]
        text = place.name[0].upper() + place.name[1:]
        style = {"ha": side, "color": INK, "zorder": 6, "bbox": _halo()}
        vertical = {0.0: "center"}.get(dy, "bottom" if dy > 0 else "top")
        if who is None:
            ax.text(place.x + dx, place.y + dy, text, fontsize=8.6, va=vertical, **style)
            continue
        ax.text(
            place.x + dx, place.y + dy, f"{text}\n$\\it{{{who.title.replace(' ', '~')}}}$",
            fontsize=8.6, va=vertical, linespacing=1.15, **style,
        )  # fmt: skip
    name = "Tinytown" if world.seed == "tinytown" else str(world.seed)
    ax.set_title(f"{name}: {len(world.places)} places, {len(world.roads)} roads, minutes on foot")
    publish(
        fig,
        alt=f"Map of {name}: {len(world.places)} places joined by {len(world.roads)} roads with "
        "minutes; a river runs between the west bank and the east bank.",
    )
    return fig


def _river(y: float) -> float:
    """How far the river swings to the east at a height."""
    return 0.22 * math.sin(1.1 * y) + 0.08 * math.sin(2.7 * y + 1)


def _draw_river(ax, bridge: float) -> None:
    heights = [i / 20 * 1.05 - 0.1 for i in range(int(HEIGHT * 20) + 3)]
    left = [RIVER_LEFT + _river(y) for y in heights]
    right = [RIVER_RIGHT + _river(y + 0.6) for y in heights]
    ax.fill_betweenx(heights, left, right, color=WATER, lw=0, zorder=1)
    for start in (0.4, 3.4, 6.6, 8.9):
        for shift, length in ((0.45, 0.5), (0.95, 0.35)):
            ys = [start + shift * 1.3 + i / 20 * length for i in range(21)]
            xs = [RIVER_LEFT + shift + 0.05 * math.sin(12 * y) + _river(y) for y in ys]
            ax.plot(xs, ys, color="white", lw=1.2, zorder=1.5, solid_capstyle="round")
    y = 6.9 if bridge < 5.9 else 4.6
    ax.text(9.0 + _river(y), y, "river", color=BLUE, fontsize=9, style="italic", rotation=80,
            ha="center", va="center", zorder=2)  # fmt: skip


def _draw_road(ax, road: Road, at: dict[str, tuple[float, float]]) -> None:
    (xa, ya), (xb, yb) = at[road.a], at[road.b]
    if road.by == "boat":
        ax.plot([xa, xb], [ya, yb], color=BLUE, lw=1.8, ls=(0, (3, 2)), zorder=3)
    else:
        ax.plot([xa, xb], [ya, yb], color=PAVED, lw=5, solid_capstyle="round", zorder=2.4)
        ax.plot([xa, xb], [ya, yb], color="#F7EFDD", lw=3, solid_capstyle="round", zorder=2.5)
    color = BLUE if road.by == "boat" else "#6B5836"
    text = f"{road.minutes}" + (" by boat" if road.by == "boat" else "")
    y = (ya + yb) / 2 + (0.28 if road.by == "boat" else 0)
    ax.text((xa + xb) / 2, y, text, fontsize=7.6, color=color, ha="center", va="center", zorder=4,
            bbox=None if road.by == "boat" else {
                "boxstyle": "circle,pad=0.12", "fc": "#F7EFDD", "ec": "none"})  # fmt: skip


def _draw_place(ax, place) -> None:
    x, y = place.x, place.y
    if place.name == "stone bridge":
        ax.plot([RIVER_LEFT - 0.1, RIVER_RIGHT + 0.1], [y, y], color=GREY, lw=9, zorder=3,
                solid_capstyle="butt")  # fmt: skip
        ax.plot([RIVER_LEFT - 0.1, RIVER_RIGHT + 0.1], [y, y], color="#D9D9D9", lw=6, zorder=3.1,
                solid_capstyle="butt")  # fmt: skip
    elif place.name == "hill":
        ax.fill([x - 0.7, x, x + 0.7], [y - 0.3, y + 0.55, y - 0.3], color="#A9BF8A", zorder=3)
        ax.fill([x - 0.18, x, x + 0.18], [y + 0.33, y + 0.55, y + 0.33], color="white", zorder=3.1)
    elif place.name == "orchard":
        for dx, dy in ((-0.42, 0.0), (0.0, 0.2), (0.42, 0.0), (-0.2, -0.25), (0.22, -0.25)):
            ax.plot(x + dx, y + dy, "o", color=GREEN, ms=8, mec="white", mew=0.8, zorder=4)
    elif place.name == "market square":
        ax.plot(x, y, "s", color="#F3D9A4", ms=19, mec=INK, mew=1, zorder=4)
        for dx, color in ((-0.2, ORANGE), (0.0, BLUE), (0.2, GREEN)):
            ax.plot(x + dx, y, "^", color=color, ms=5.5, zorder=4.1)
    elif place.name == "well":
        ax.plot(x, y, "o", color="#BDBDBD", ms=10, mec=INK, mew=1, zorder=4)
        ax.plot(x, y, "o", color=BLUE, ms=4.5, zorder=4.1)
    elif place.name == "ferry":
        ax.fill([x - 0.3, x + 0.3, x + 0.18, x - 0.18], [y, y, y - 0.17, y - 0.17], color=ROOF,
                zorder=4)  # fmt: skip
        ax.fill([x, x, x + 0.22], [y + 0.03, y + 0.42, y + 0.03], color="white", ec=INK, lw=0.7,
                zorder=4)  # fmt: skip
    elif place.name.endswith("Lane"):
        for dx in (-0.34, 0.0, 0.34):
            _house(ax, x + dx, y, 0.13)
    else:
        tower = place.name == "clock tower"
        _house(ax, x, y, 0.2, height=0.62 if tower else 0.24)
        if tower:
            ax.plot(x, y + 0.36, "o", color="white", ms=4.5, mec=INK, mew=0.7, zorder=5)


def _house(ax, x: float, y: float, half: float, height: float = 0.2) -> None:
    ax.add_patch(_rectangle(x - half, y - 0.16, 2 * half, height, "#FFF8E7", edge=INK, zorder=4))
    top = y - 0.16 + height
    ax.fill([x - half * 1.35, x, x + half * 1.35], [top, top + half * 1.1, top], color=ROOF, ec=INK,
            lw=0.7, zorder=4.2)  # fmt: skip


def _rectangle(x, y, width, height, color, *, edge="none", zorder=0.5):
    from matplotlib.patches import Rectangle

    return Rectangle((x, y), width, height, fc=color, ec=edge, lw=0.7, zorder=zorder)


def _halo() -> dict:
    return {"boxstyle": "round,pad=0.08", "fc": GRASS, "ec": "none", "alpha": 0.75}


def _wide(name: str) -> float:
    """How much wider than a house a place is drawn."""
    return 1.7 if name.endswith("Lane") or name in ("orchard", "hill") else 1.0


def _label_sides(at, roads) -> dict[str, tuple[float, float, str]]:
    """Where each label stands: on the side with the most room, away from roads and places."""
    sides = {}
    ends: dict[str, list[tuple[float, float]]] = {name: [] for name in at}
    for road in roads:
        ends[road.a].append(at[road.b])
        ends[road.b].append(at[road.a])
    spots = {
        (0.0, 0.5, "center"),
        (0.0, -0.36, "center"),
        (0.42, 0.0, "left"),
        (-0.42, 0.0, "right"),
    }
    spots |= {
        (-0.25, 0.42, "right"),
        (0.25, 0.42, "left"),
        (-0.25, -0.3, "right"),
        (0.25, -0.3, "left"),
    }
    taken: list[tuple[float, float]] = list(at.values())
    for road in roads:  # the minutes stand in the middle
        (xa, ya), (xb, yb) = at[road.a], at[road.b]
        taken += [(xa + t * (xb - xa), ya + t * (yb - ya)) for t in (0.25, 0.5, 0.75)]
    for name, (x, y) in at.items():

        def cost(spot, x=x, y=y, name=name):
            dx, dy, side = spot
            dx *= _wide(name)
            wide = 0.085 * len(name)
            cx = x + dx + {"left": wide, "right": -wide, "center": 0}[side]
            cy = y + dy * 1.4
            crowd = sum(
                math.exp(-(((cx - px) / (wide + 0.5)) ** 2 + ((cy - py) / 0.55) ** 2))
                for px, py in taken
                if (px, py) != (x, y)
            )
            for ex, ey in ends[name]:
                away = math.hypot(ex - x, ey - y)
                crowd += (
                    max(
                        0,
                        ((ex - x) * (cx - x) + (ey - y) * (cy - y))
                        / away
                        / math.hypot(cx - x, cy - y),
                    )
                    ** 2
                )
            outside = cx - wide < 0 or cx + wide > WIDTH or not 0.2 < cy < HEIGHT - 0.2
            return crowd + 5 * outside + 0.05 * (side != "center")

        dx, dy, side = min(sorted(spots), key=cost)
        dx *= _wide(name)
        sides[name] = (dx, dy, side)
        wide = 0.085 * len(name)
        taken.append((x + dx + {"left": wide, "right": -wide, "center": 0}[side], y + dy * 1.4))
    return sides
