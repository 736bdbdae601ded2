"""minillm.town.terrain: places, roads, and what follows from them."""

import random
from itertools import combinations, pairwise, permutations

import pytest

from minillm.town.terrain import (
    Road,
    invent_map,
    neighbours,
    read_places,
    read_roads,
    shortest_path,
)

MAP = neighbours(read_roads())

# --- by hand ---


def test_the_readers_three_rounds_take_13_10_and_23_minutes():
    rounds = {
        13: "market square, clock tower, library, school, Plum Lane, well, market square",
        10: "market square, well, clinic, forge, bakery, market square",
        23: "market square, bakery, Duck Lane, ferry, pottery, mill, stone bridge, market square",
    }
    for minutes, places in rounds.items():
        stops = places.split(", ")
        total = sum(MAP[a][b] for a, b in pairwise(stops))
        assert total == minutes


def test_the_bakery_is_three_minutes_from_the_well():
    assert shortest_path(MAP, "bakery", "well") == (3, ["bakery", "market square", "well"])
    assert shortest_path(MAP, "well", "well") == (0, ["well"])


def test_a_place_that_is_not_there_is_named():
    with pytest.raises(ValueError, match="no place 'prison'"):
        shortest_path(MAP, "bakery", "prison")
    with pytest.raises(ValueError, match="no road leads from a to c"):
        shortest_path(neighbours([Road("a", "b", 1), Road("c", "d", 1)]), "a", "c")


# --- twin ---


def test_the_shortest_path_is_the_shortest_of_all_paths():
    rng = random.Random(0)
    for _ in range(30):
        names = "abcde"
        roads = [Road(x, y, rng.randint(1, 9)) for x, y in combinations(names, 2)]
        next_to = neighbours(roads)
        ways = [("a", *middle, "e") for n in range(4) for middle in permutations("bcd", n)]
        best = min(sum(next_to[x][y] for x, y in pairwise(w)) for w in ways)
        assert shortest_path(next_to, "a", "e")[0] == best


# --- law ---


def crosses(p, q, r, s):
    def side(a, b, c):
        return (b.x - a.x) * (c.y - a.y) - (b.y - a.y) * (c.x - a.x)

    return side(p, q, r) * side(p, q, s) < 0 and side(r, s, p) * side(r, s, q) < 0


@pytest.mark.parametrize("seed", range(12))
def test_an_invented_map_is_connected_and_its_roads_on_land_do_not_cross(seed):
    places, roads = invent_map(random.Random(seed))
    at = {place.name: place for place in places}
    assert len(at) == 18 and len(roads) == 20
    assert len({frozenset((road.a, road.b)) for road in roads}) == 20
    next_to = neighbours(roads)
    assert all(shortest_path(next_to, "well", name)[0] < 100 for name in at)
    on_foot = [road for road in roads if road.by == "foot"]
    for first, second in combinations(on_foot, 2):
        if not {first.a, first.b} & {second.a, second.b}:
            assert not crosses(at[first.a], at[first.b], at[second.a], at[second.b])


def test_there_are_two_ways_over_the_river_in_every_town():
    for places, roads in [(read_places(), read_roads()), invent_map(random.Random(3))]:
        bank = {place.name: place.bank for place in places}
        over = [road for road in roads if {bank[road.a], bank[road.b]} == {"west", "east"}]
        assert [road.by for road in over] == ["boat"]
        assert {bank[other] for other in neighbours(roads)["stone bridge"]} == {"west", "east"}
