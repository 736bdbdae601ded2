from collections import deque

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from minillm.town import crafts
from minillm.town.crafts import GOODS, ITEMS, RECIPES, START, CraftMap, Recipe, Workshop
from minillm.town.terrain import Road

LINE = CraftMap(
    (Road(START, "grove", 1), Road("grove", "hill", 1)), {"grove": "wood", "hill": "stone"}
)
#: The same tree with small numbers, so that a blind search can reach what needs two tools.
SMALL = {
    **RECIPES,
    "wooden pickaxe": Recipe({"wood": 1}),
    "stone pickaxe": Recipe({"stone": 1, "wood": 1}, ("wooden pickaxe",)),
}


def act(state, *actions):
    for action in actions:
        state = state.after(action)
    return state


def fewest_by_search(map, item):
    """Breadth first over all states; nothing is held more often than it is used in all."""
    most, queue = crafts.demand(item), deque([Workshop(map)])
    known = {(START, queue[0].held)}
    while queue:
        state = queue.popleft()
        if state.count(item):
            return state.n_steps
        goods = [f"gather {map.goods[state.place]}"] if state.place in map.goods else []
        crafted = [f"craft {x}" for x in most if x not in GOODS]
        for action in [f"go {x}" for x in map.next_to[state.place]] + goods + crafted:
            new = state.after(action)
            few = all(n <= most[x] for x, n in zip(ITEMS, new.held, strict=True))
            if not new.remark and few and (new.place, new.held) not in known:
                known.add((new.place, new.held))
                queue.append(new)
    return None


# --- by hand --------------------------------------------------------------------------------------
def test_what_a_recipe_takes_goes_and_its_tools_stay():
    state = act(Workshop(LINE), "go grove", *["gather wood"] * 7, *["craft plank"] * 7)
    state = act(state, "craft table", "craft stick", "craft wooden pickaxe")
    assert state.view().splitlines()[-1] == "you have: 1 table, 1 wooden pickaxe"
    state = act(state, "go hill", "gather stone")
    assert (state.count("stone"), state.count("wooden pickaxe"), state.n_steps) == (1, 1, 20)
    assert state.obtained == {
        "wood": 2, "plank": 9, "table": 16, "stick": 17, "wooden pickaxe": 18, "stone": 20
    }  # fmt: skip


@pytest.mark.parametrize(
    ("action", "remark"),
    [
        ("go hill", "no road leads there from green"),
        ("gather wood", "it lies at grove"),
        ("gather stone", "it lies at hill; needs 1 wooden pickaxe; you lack 1 wooden pickaxe"),
        ("gather sand", "it lies nowhere here"),
        ("craft rope", "takes 2 reed; you lack 2 reed"),
        ("craft wood", "one must gather it"),
        ("dance", "an action is go PLACE, gather ITEM or craft ITEM"),
    ],
)
def test_a_failed_action_costs_a_step_and_says_why(action, remark):
    state = Workshop(LINE).after(action)
    assert state == Workshop(LINE, n_steps=1, remark=f"{action}: {remark}")
    assert state.view().endswith(remark)
    assert act(state, "go grove").remark == ""


def test_demand_has_tools_once_and_ingredients_as_often_as_they_are_used():
    counts = crafts.demand("iron")  # ore, coal, a kiln; for ore a stone pickaxe
    assert counts["stone"] == 3 + 2 and counts["table"] == counts["wooden pickaxe"] == 1
    assert counts["wood"] == 4 + 2 + 1 + 1  # a table, planks, and two sticks
    assert crafts.demand("iron", "iron")["iron"] == 2


def test_all_twenty_items_are_on_the_way_to_three():
    assert len(ITEMS) == 20
    assert set(crafts.demand("gem", "lantern", "brick")) == set(ITEMS)


# --- reference ------------------------------------------------------------------------------------
@pytest.mark.parametrize("item", ["stick", "rope", "table"])
def test_plans_are_as_short_as_a_search_over_all_states_has_it(item):
    for seed in range(2):
        map = crafts.craft_map(seed)
        assert len(crafts.plan(map, item)) == fewest_by_search(map, item)


def test_plans_are_shortest_where_tools_decide_the_order(monkeypatch):
    monkeypatch.setattr(crafts, "RECIPES", SMALL)
    for seed in range(4):
        map = crafts.craft_map(seed)
        assert len(crafts.plan(map, "ore")) == fewest_by_search(map, "ore")


# --- law ------------------------------------------------------------------------------------------
@settings(max_examples=30)
@given(st.integers(0, 99), st.lists(st.sampled_from(ITEMS), min_size=1, max_size=3, unique=True))
@example(0, ["table", "stone"])  # the pickaxe for the stone needs the table
def test_every_plan_succeeds(seed, items):
    state = Workshop(crafts.craft_map(seed))
    for action in crafts.plan(state.map, *items):
        state = state.after(action)
        assert not state.remark
    assert all(state.count(item) for item in items)


@given(st.lists(st.text() | st.sampled_from(["gather wood", "go x", "craft ", "go"]), max_size=4))
def test_no_text_raises_and_each_costs_a_step(actions):
    state = act(Workshop(LINE), *actions)
    assert state.n_steps == len(actions)
    assert sum(state.held) == 0


def test_maps_differ_and_hold_every_good():
    maps = [crafts.craft_map(seed) for seed in range(5)]
    assert len({map.roads for map in maps}) == 5
    for map in maps:
        assert set(map.goods.values()) == set(GOODS)
        assert all(map.path(START, place) for place in map.goods)


# --- what cannot be -------------------------------------------------------------------------------
def test_what_takes_a_missing_good_has_no_plan():
    map = crafts.craft_map(1, missing=("clay",))
    assert crafts.plan(map, "iron") is None
    assert crafts.plan(map, "stone pickaxe") is not None


def test_a_place_that_no_road_leads_to_is_refused():
    with pytest.raises(ValueError, match="there is no place 'cave'; the map has green"):
        CraftMap(LINE.roads, {"cave": "gem"})
    with pytest.raises(ValueError, match="no road leads from green to cave"):
        CraftMap((*LINE.roads, Road("cave", "mine", 1)), {"cave": "gem"})
