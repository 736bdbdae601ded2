"""Places, roads, and how long it takes from one to another.

A map is a small number of things that are said (the roads) and a large number of things that follow
(all distances). A town from a new seed gets a river, a bridge, a ferry, and roads that never cross:
all of them are edges of the Gabriel graph, which joins two places if no third one lies in the
circle between them, and which is planar and contains the shortest tree.

Paper: Dijkstra 1959, "A note on two problems in connexion with graphs", for both algorithms here:
the shortest tree (his problem 1) and the shortest path (problem 2); Gabriel and Sokal 1969, "A new
statistical approach to geographic variation analysis".
Differs: none.

Chapter: 02
"""

import heapq
import math
import random
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from typing import final

from minillm.town.tinytown import LANES, PLACES, ROADS

RIVER_LEFT, RIVER_RIGHT, WIDTH, HEIGHT = 8.2, 9.8, 16.0, 10.0
MINUTES_BY_BOAT = 5


@final
@dataclass(frozen=True)
class Place:
    """A place on the map; x and y are for drawing, distances follow from the roads."""

    name: str
    chinese: str
    bank: str
    x: float
    y: float


@final
@dataclass(frozen=True)
class Road:
    """A way between two places, the same in both directions; `by` is "foot" or "boat"."""

    a: str
    b: str
    minutes: int
    by: str = "foot"


def read_places() -> tuple[Place, ...]:
    """The eighteen places of the default town.

    Example:
        >>> read_places()[0]
        Place(name='market square', chinese='集市', bank='west', x=6.4, y=5.0)
    """
    rows = [[cell.strip() for cell in line.split("|")] for line in PLACES.strip().splitlines()]
    return tuple(Place(a, b, bank, float(x), float(y)) for a, b, bank, x, y in rows)


def read_roads() -> tuple[Road, ...]:
    """The twenty roads of the default town.

    Example:
        >>> read_roads()[0]
        Road(a='market square', b='town hall', minutes=1, by='foot')
    """
    roads = []
    for line in ROADS.strip().splitlines():
        a, ends = line.split(": ")
        for end in ends.split(", "):
            b, minutes = end.rsplit(" ", 1)
            by = "boat" if {a, b} == {"ferry", "pottery"} else "foot"
            roads.append(Road(a, b, int(minutes), by))
    return tuple(roads)


def neighbours(roads: Iterable[Road]) -> dict[str, dict[str, int]]:
    """Who is next to whom, in minutes.

    Example:
        >>> neighbours([Road("well", "clinic", 2)])
        {'well': {'clinic': 2}, 'clinic': {'well': 2}}
    """
    next_to: dict[str, dict[str, int]] = {}
    for road in roads:
        next_to.setdefault(road.a, {})[road.b] = road.minutes
        next_to.setdefault(road.b, {})[road.a] = road.minutes
    return next_to


def shortest_path(next_to: dict[str, dict[str, int]], a: str, b: str) -> tuple[int, list[str]]:
    """Minutes of the quickest way from a to b, and the places along it, both ends included.

    Of two ways that take equally long, the one that comes first by the names along it.

    Raises:
        ValueError: a place is not on the map, or no road leads from a to b.

    Example:
        >>> shortest_path(neighbours(read_roads()), "bakery", "well")
        (3, ['bakery', 'market square', 'well'])
    """
    for place in (a, b):
        if place not in next_to:
            raise ValueError(f"there is no place {place!r}; the map has {', '.join(next_to)}")
    queue, done = [(0, [a])], set()
    while queue:
        minutes, path = heapq.heappop(queue)
        if path[-1] == b:
            return minutes, path
        if path[-1] not in done:
            done.add(path[-1])
            for place, more in next_to[path[-1]].items():
                heapq.heappush(queue, (minutes + more, [*path, place]))
    raise ValueError(f"no road leads from {a} to {b}")


def invent_map(rng: random.Random) -> tuple[tuple[Place, ...], tuple[Road, ...]]:
    """A new map: the same kinds of place elsewhere, two other lanes, other roads.

    Example:
        >>> places, roads = invent_map(random.Random(1))
        >>> len(places), len(roads)
        (18, 20)
    """
    lanes = dict(zip(("Plum Lane", "Duck Lane"), rng.sample(sorted(LANES), 2), strict=True))
    places: list[Place] = []
    for place in read_places():
        name = lanes.get(place.name, place.name)
        place = replace(place, name=name, chinese=LANES.get(name, place.chinese))
        places.append(_settle(place, places, rng))
    by_kind = {place.name: place for place in places}
    east = [place for place in places if place.bank != "west"]
    west = [place for place in places if place.bank != "east"]
    landing = min(
        (place for place in east if place.bank == "east"),
        key=lambda place: _length(place, by_kind["ferry"]),
    )
    roads = [*_tree(west), *_tree(east)]
    known = {frozenset((road.a, road.b)) for road in roads}
    more = [
        Road(a.name, b.name, _minutes(a, b))
        for side in (west, east)
        for i, a in enumerate(side)
        for b in side[:i]
        if frozenset((a.name, b.name)) not in known and _nobody_between(a, b, side)
    ]
    more.sort(key=lambda road: (road.minutes, road.a, road.b))
    crossing = Road("ferry", landing.name, MINUTES_BY_BOAT, by="boat")
    return tuple(places), (*roads, *more[: 19 - len(roads)], crossing)


def _settle(place: Place, others: Sequence[Place], rng: random.Random) -> Place:
    """Of forty spots on its bank, take the one farthest from everything that already stands."""
    if place.bank == "river":
        return replace(place, x=9.0, y=round(rng.uniform(4, 8), 1))
    if place.name == "ferry":
        return replace(place, x=7.6, y=round(rng.uniform(0.8, 2.4), 1))
    low, high = (0.8, RIVER_LEFT - 0.8) if place.bank == "west" else (RIVER_RIGHT + 0.8, WIDTH - 1)
    spots = [
        replace(place, x=round(rng.uniform(low, high), 1), y=round(rng.uniform(0.8, 9.2), 1))
        for _ in range(40)
    ]
    # Sideways counts less: the names that are written beside the places are wide.
    return max(
        spots,
        key=lambda spot: min(
            (math.hypot((spot.x - o.x) * 0.6, spot.y - o.y) for o in others), default=0.0
        ),
    )


def _length(a: Place, b: Place) -> float:
    return math.hypot(a.x - b.x, a.y - b.y)


def _minutes(a: Place, b: Place) -> int:
    return max(1, round(_length(a, b)))


def _tree(places: Sequence[Place]) -> list[Road]:
    """The shortest roads that connect all places, one at a time from what is already connected."""
    inside, outside, roads = [places[0]], list(places[1:]), []
    while outside:
        a, b = min(((a, b) for a in inside for b in outside), key=lambda pair: _length(*pair))
        roads.append(Road(a.name, b.name, _minutes(a, b)))
        inside.append(b)
        outside.remove(b)
    return roads


def _nobody_between(a: Place, b: Place, places: Sequence[Place]) -> bool:
    x, y, radius = (a.x + b.x) / 2, (a.y + b.y) / 2, _length(a, b) / 2
    return not any(math.hypot(p.x - x, p.y - y) < radius for p in places if p not in (a, b))
