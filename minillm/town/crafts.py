"""Crafts (手工): a world in words with twenty items, most of which are made from others.

    wood → plank → stick ─┐
             └──→ table ──┴→ wooden pickaxe → stone → kiln → iron → iron pickaxe → gem

    green          the agent stands here, with nothing
    go grove       a road leads there: one step
    gather wood    wood lies here: one step, one wood
    craft table    fails, and costs a step too: "craft table: takes 4 plank; you lack 4 plank"

An action is `go PLACE`, `gather ITEM` or `craft ITEM`. Each is one *environment step*, whether it
succeeds or fails. A recipe (配方) has two parts: what it *takes* is used up, its *tools* are not.
So a table is made once, and a plank for each stick anew. All that an agent can learn of recipes
stands in the sentence that a failed action leaves, the remark.

**Maps.** A seed lays the roads, and calls the place of each good by one of two names. So a row of
`go` from one map is worth nothing on another, and what is gathered and crafted stays the same.

**The oracle** (`plan`) knows all recipes. Each item can be made in one way only, so the number of
things to gather and to craft is fixed (`demand`). Crafting is possible everywhere. What is left is
to walk as little as possible: to visit the places of the goods in an order in which each tool is
there when it is needed, and at each visit to gather all that will be used. The shortest such walk
is a shortest path over pairs (place, goods gathered so far).

Paper: the tree follows Minecraft's from wood to diamond, as in Wang et al. 2023, "Voyager",
arXiv:2305.16291; a world of the same kind for reinforcement learning is Hafner 2021, "Crafter",
arXiv:2109.06780. From memory.
Differs: twenty items; no dangers, no time of day; tables and kilns are carried along.

Chapter: 29
"""

import heapq
import random
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property
from itertools import product
from types import MappingProxyType
from typing import final

from minillm.town.terrain import Road, neighbours, shortest_path

START = "green"
MOST_CHARACTERS = 80  # of an action, in a remark
N_SHORTCUTS = 2  # roads besides those that connect the places


@final
@dataclass(frozen=True)
class Recipe:
    """What an item needs.

    Args:
        takes: how many of which items are used up; none for what is gathered.
        tools: items that must be there, and stay.
    """

    takes: Mapping[str, int] = field(default_factory=dict)
    tools: tuple[str, ...] = ()

    @property
    def verb(self) -> str:
        """How the item is got: "gather" or "craft"."""
        return "craft" if self.takes else "gather"


RECIPES: Mapping[str, Recipe] = MappingProxyType(
    {
        "wood": Recipe(),
        "reed": Recipe(),
        "clay": Recipe(),
        "sand": Recipe(),
        "stone": Recipe(tools=("wooden pickaxe",)),
        "coal": Recipe(tools=("wooden pickaxe",)),
        "ore": Recipe(tools=("stone pickaxe",)),
        "gem": Recipe(tools=("iron pickaxe",)),
        "plank": Recipe({"wood": 1}),
        "stick": Recipe({"plank": 1}),
        "rope": Recipe({"reed": 2}),
        "table": Recipe({"plank": 4}),
        "wooden pickaxe": Recipe({"plank": 2, "stick": 1}, ("table",)),
        "stone pickaxe": Recipe({"stone": 2, "stick": 1}, ("table",)),
        "kiln": Recipe({"stone": 3, "clay": 1}, ("table",)),
        "brick": Recipe({"clay": 1, "coal": 1}, ("kiln",)),
        "glass": Recipe({"sand": 1, "coal": 1}, ("kiln",)),
        "iron": Recipe({"ore": 1, "coal": 1}, ("kiln",)),
        "iron pickaxe": Recipe({"iron": 2, "stick": 1}, ("table",)),
        "lantern": Recipe({"iron": 1, "glass": 1, "rope": 1}),
    }
)
ITEMS = tuple(RECIPES)
GOODS = tuple(item for item, recipe in RECIPES.items() if recipe.verb == "gather")
#: Where a good lies: on each map one of two names.
NAMES = MappingProxyType(
    {
        "wood": ("forest", "grove"),
        "reed": ("pond", "marsh"),
        "clay": ("river bank", "clay field"),
        "sand": ("beach", "dune"),
        "stone": ("hill", "quarry"),
        "coal": ("pit", "gorge"),
        "ore": ("mine", "ridge"),
        "gem": ("cave", "cliff"),
    }
)


@final
@dataclass(frozen=True)
class CraftMap:
    """Places, the roads between them, and what lies where.

    Args:
        roads: each is one step long.
        goods: place → what can be gathered there.

    Raises:
        ValueError: a place that no road leads to.
    """

    roads: tuple[Road, ...]
    goods: Mapping[str, str]

    def __post_init__(self) -> None:
        for place in (*self.goods, *self.next_to):
            shortest_path(self.next_to, START, place)  # raises if there is no way

    @cached_property
    def next_to(self) -> dict[str, dict[str, int]]:
        """Place → the places that one road leads to."""
        return neighbours(self.roads)

    def place_of(self, good: str) -> str | None:
        """Where a good lies; None if it lies nowhere on this map."""
        return next((place for place, other in self.goods.items() if other == good), None)

    def path(self, a: str, b: str) -> list[str]:
        """The places on a shortest way from a to b, without a."""
        return self._paths[a, b]

    @cached_property
    def _paths(self) -> dict[tuple[str, str], list[str]]:
        pairs = product(self.next_to, repeat=2)
        return {(a, b): shortest_path(self.next_to, a, b)[1][1:] for a, b in pairs}


def craft_map(seed: int | str, *, missing: tuple[str, ...] = ()) -> CraftMap:
    """A map: nine places, ten roads.

    Args:
        seed: another seed, other roads and names.
        missing: goods that do not lie on it.

    Example:
        >>> craft_map(1).place_of("wood"), craft_map(1).path("green", "grove")
        ('grove', ['cliff', 'hill', 'grove'])
    """
    rng = random.Random(f"crafts/{seed}")
    goods = {rng.choice(NAMES[good]): good for good in GOODS}
    places = [START, *rng.sample(list(goods), len(goods))]
    # each place has a road to one of the two before it, so all are connected; then shortcuts
    pairs = [(place, rng.choice(places[max(0, n - 2) : n])) for n, place in enumerate(places) if n]
    known = {frozenset(pair) for pair in pairs}
    others = [(a, b) for n, a in enumerate(places) for b in places[:n] if {a, b} not in known]
    pairs += rng.sample(others, N_SHORTCUTS)
    return CraftMap(
        tuple(Road(a, b, 1) for a, b in pairs),
        {place: good for place, good in goods.items() if good not in missing},
    )


@final
@dataclass(frozen=True)
class Workshop:
    """Where the agent stands, and what it has: a frozen state.

    Args:
        map: of the places.
        place: on it.
        held: how many of each item it has, in the order of ITEMS.
        n_steps: actions so far.
        first_steps: of each item, after how many steps it was first held; 0 for never.
        remark: why the last action failed; empty if it did not.

    Example:
        >>> state = Workshop(craft_map(1), place="grove").after("gather wood")
        >>> state = state.after("craft plank").after("craft table")
        >>> print(state.view())
        you are at grove, after 3 steps
        here: wood
        roads: hill
        you have: 1 plank
        craft table: takes 4 plank; you lack 3 plank
    """

    map: CraftMap
    place: str = START
    held: tuple[int, ...] = (0,) * len(ITEMS)
    n_steps: int = 0
    first_steps: tuple[int, ...] = (0,) * len(ITEMS)
    remark: str = ""

    def count(self, item: str) -> int:
        """How many of an item the agent has."""
        return self.held[ITEMS.index(item)] if item in RECIPES else 0

    @property
    def obtained(self) -> dict[str, int]:
        """Item → after how many steps it was first held."""
        pairs = zip(ITEMS, self.first_steps, strict=True)
        return {item: n for item, n in pairs if n}

    def view(self) -> str:
        """What a policy reads: place, goods, roads, inventory, remark."""
        inventory = [f"{n} {item}" for item, n in zip(ITEMS, self.held, strict=True) if n]
        lines = [
            f"you are at {self.place}, after {self.n_steps} steps",
            f"here: {self.map.goods.get(self.place, 'nothing')}",
            f"roads: {', '.join(self.map.next_to[self.place])}",
            f"you have: {', '.join(inventory) or 'nothing'}",
        ]
        return "\n".join([*lines, self.remark]).rstrip()

    def after(self, action: str) -> "Workshop":
        """The state after an action; whatever cannot be done changes the steps and the remark.

        Args:
            action: anything.
        """
        step = replace(self, n_steps=self.n_steps + 1, remark="")
        verb, _, name = action.partition(" ")
        if verb == "go" and name in self.map.next_to[self.place]:
            return replace(step, place=name)
        remark = self._problem(verb, name)
        if remark:
            return replace(step, remark=f"{action[:MOST_CHARACTERS]}: {remark}")
        # what is taken goes, what is made comes
        change = Counter({name: 1})
        change.subtract(RECIPES[name].takes)
        held = tuple(n + change[item] for item, n in zip(ITEMS, self.held, strict=True))
        firsts = zip(ITEMS, self.first_steps, strict=True)
        first_steps = tuple(n or step.n_steps * (item == name) for item, n in firsts)
        return replace(step, held=held, first_steps=first_steps)

    def _problem(self, verb: str, name: str) -> str:
        """Why an action fails; empty if it does not."""
        if verb == "go":
            return f"no road leads there from {self.place}"
        if verb not in ("gather", "craft") or name not in RECIPES:
            return "an action is go PLACE, gather ITEM or craft ITEM"
        recipe = RECIPES[name]
        if verb != recipe.verb:
            return f"one must {recipe.verb} it"
        tools = dict.fromkeys(recipe.tools, 1)
        lacks = {item: n - self.count(item) for item, n in {**recipe.takes, **tools}.items()}
        lacks = {item: n for item, n in lacks.items() if n > 0}
        elsewhere = verb == "gather" and self.map.goods.get(self.place) != name
        if not lacks and not elsewhere:
            return ""
        # the whole recipe, and what of it is not there
        parts = {"takes": recipe.takes, "needs": tools, "you lack": lacks}
        place = self.map.place_of(name)
        where = [f"it lies at {place}" if place else "it lies nowhere here"] * elsewhere
        return "; ".join(
            where + [f"{word} {in_words(items)}" for word, items in parts.items() if items]
        )


def in_words(items: Mapping[str, int]) -> str:
    """Items in words.

    Example:
        >>> in_words({"stone": 2, "stick": 1})
        '2 stone, 1 stick'
    """
    return ", ".join(f"{n} {item}" for item, n in items.items())


# --- the oracle -----------------------------------------------------------------------------------
def demand(*items: str) -> Counter[str]:
    """How many of each item must be gathered or crafted to get one of each of these, from nothing.

    Example:
        >>> demand("stick")
        Counter({'stick': 1, 'plank': 1, 'wood': 1})
        >>> demand("wooden pickaxe")["wood"]  # 4 for a table, 2 for planks, 1 for a stick
        7
    """
    counts: Counter[str] = Counter()

    def add(name: str, n: int) -> None:
        counts[name] += n
        for other, each in RECIPES[name].takes.items():
            add(other, n * each)
        for tool in RECIPES[name].tools:
            if not counts[tool]:  # one is enough
                add(tool, 1)

    for item in items:
        add(item, 1)
    return counts


def plan(map: CraftMap, *items: str) -> list[str] | None:
    """The fewest actions that get some items, from the start of a map and from nothing.

    Args:
        map: of the places.
        items: of ITEMS.

    Returns:
        Actions; None if something that it takes lies nowhere on the map.

    Example:
        >>> plan(craft_map(1), "plank")
        ['go cliff', 'go hill', 'go grove', 'gather wood', 'craft plank']
    """
    # what another item needs as a tool comes anyway, and stays
    tools = {tool for item in demand(*items) for tool in RECIPES[item].tools}
    items = tuple(item for item in items if item not in tools)
    counts = demand(*items)
    visits = _shortest_walk(map, [good for good in GOODS if counts[good]])
    if visits is None:
        return None
    actions, place, held = [], START, Counter()

    def craft(name: str) -> None:
        """Craft one, and before it what it takes and needs."""
        for tool in RECIPES[name].tools:
            if not held[tool]:
                craft(tool)
        for other, n in RECIPES[name].takes.items():
            for _ in range(n):
                if RECIPES[other].verb == "craft":
                    craft(other)
                held[other] -= 1
        held[name] += 1
        actions.append(f"craft {name}")

    for good in visits:
        # 1. the tool, 2. the way, 3. all that will be used of the good
        for tool in RECIPES[good].tools:
            if not held[tool]:
                craft(tool)
        actions += [f"go {each}" for each in map.path(place, map.place_of(good))]
        actions += [f"gather {good}"] * counts[good]
        place, held[good] = map.place_of(good), counts[good]
    for item in items:
        if RECIPES[item].verb == "craft":
            craft(item)
    return actions


def _shortest_walk(map: CraftMap, goods: list[str]) -> list[str] | None:
    """An order of goods in which each can be gathered, with the shortest way; None if one lacks."""
    if not all(map.place_of(good) for good in goods):
        return None
    # what must be gathered before a good: all that its tools take
    before = {
        good: {o for tool in RECIPES[good].tools for o in demand(tool) if o in GOODS}
        for good in goods
    }
    queue, done = [(0, START, ())], set()
    while queue:
        n_steps, place, order = heapq.heappop(queue)
        if len(order) == len(goods):
            return list(order)
        if (place, frozenset(order)) in done:
            continue
        done.add((place, frozenset(order)))
        for good in goods:
            if good not in order and before[good] <= set(order):
                end = map.place_of(good)
                way = n_steps + len(map.path(place, end))
                heapq.heappush(queue, (way, end, (*order, good)))
    return None
