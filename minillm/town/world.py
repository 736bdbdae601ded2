"""A town from a seed: people, families, homes, jobs, places, roads, goods, prices, likes, fame.

`World()` is the village of the bilingual reader; `World("your name")` is another town, which shares
the language (jobs, goods, kinds of place, the seven relations) but none of the facts. A world is a
value: the same seed and knobs give the same town on every machine.

**Fame.** Some people are spoken of far more often than others. The nth in fame has probability

    p(n) = n^(-s) / (1^(-s) + 2^(-s) + … + N^(-s))          Zipf's law (齐夫定律), exponent s

**Knobs.** `ambiguity`: share of the people who are called by the name of somebody more famous.
`change_rate`: share of the people who on an average day change what they like or where they live.
Both are zero by default.

Paper: Zipf 1949, "Human Behavior and the Principle of Least Effort".
Differs: fame is the law itself, not a count that follows it roughly.

Chapter: 02
"""

import math
import random
from dataclasses import dataclass, replace
from functools import cached_property
from typing import final

from minillm.town import terrain
from minillm.town.folk import Person, common_likes, homes, invent, read_cast
from minillm.town.mystery import Mystery, invent_mystery, tinytown_mystery
from minillm.town.names import names
from minillm.town.terrain import Place, Road
from minillm.town.tinytown import CAST, GOODS, JOBS

TINYTOWN = "tinytown"
RELATIONS = ("lives-in", "works-as", "parent-of", "likes", "sells", "owns", "born-in")


@final
@dataclass(frozen=True)
class Good:
    """Something for sale: one of it, it in general ("plums"), 中文, measure word (量词), coins."""

    name: str
    general: str
    chinese: str
    measure: str
    price: int
    job: str


@final
@dataclass(frozen=True)
class World:
    """A town.

    Args:
        seed: "tinytown" for the reader's village, anything else for another town; 7 is "7".
        n_people: everyone, at least the 15 of the cast, or one for each of 12 jobs elsewhere.
        fame_exponent: Zipf's s; 0 makes all equally famous.
        ambiguity, change_rate: shares from 0 to 1, see the module.

    Raises:
        ValueError: an argument is out of its range; the message names it.

    Example:
        >>> world = World()
        >>> mei = world.person("Mei")
        >>> mei.job, mei.home, world.good("plum").price, world.distance("bakery", "well")
        ('fruit seller', 'Plum Lane', 2, 3)
        >>> World("your name").people[0].name in {person.name for person in world.people}
        False
    """

    seed: int | str = TINYTOWN
    n_people: int = 103
    fame_exponent: float = 1.0
    ambiguity: float = 0.0
    change_rate: float = 0.0

    def __post_init__(self) -> None:
        if isinstance(self.seed, bool) or not isinstance(self.seed, int | str) or self.seed == "":
            raise ValueError(f"seed must be a number or a name, not {self.seed!r}")
        least = len(CAST.strip().splitlines()) if self.seed == TINYTOWN else len(JOBS)
        if self.n_people < least:
            who = "the cast of the reader" if self.seed == TINYTOWN else "one for each job"
            raise ValueError(f"n_people must be at least {least} ({who}); got {self.n_people}")
        if not (math.isfinite(self.fame_exponent) and self.fame_exponent >= 0):
            raise ValueError(f"fame_exponent must be 0 or more; got {self.fame_exponent}")
        for knob in ("ambiguity", "change_rate"):
            if not 0 <= getattr(self, knob) <= 1:
                raise ValueError(
                    f"{knob} is a share and must lie between 0 and 1; got {getattr(self, knob)}"
                )

    def rng(self, purpose: str) -> random.Random:
        """A stream of random numbers for one purpose, the same for the same seed everywhere."""
        return random.Random(f"{self.seed}/{purpose}")

    @cached_property
    def _map(self) -> tuple[tuple[Place, ...], tuple[Road, ...]]:
        if self.seed == TINYTOWN:
            return terrain.read_places(), terrain.read_roads()
        return terrain.invent_map(self.rng("map"))

    @property
    def places(self) -> tuple[Place, ...]:
        """Eighteen places."""
        return self._map[0]

    @property
    def roads(self) -> tuple[Road, ...]:
        """Twenty roads, which connect all places."""
        return self._map[1]

    @cached_property
    def _next_to(self) -> dict[str, dict[str, int]]:
        return terrain.neighbours(self.roads)

    def neighbours(self, place: str) -> dict[str, int]:
        """The places next to one, with minutes on foot (by boat over the ferry).

        Example:
            >>> World().neighbours("ferry")
            {'Duck Lane': 2, 'pottery': 5}
        """
        return dict(self._next_to[self.place(place).name])

    def distance(self, a: str, b: str) -> int:
        """Minutes of the quickest way; 0 from a place to itself."""
        return terrain.shortest_path(self._next_to, a, b)[0]

    def path(self, a: str, b: str) -> list[str]:
        """The places along the quickest way, both ends included."""
        return terrain.shortest_path(self._next_to, a, b)[1]

    @cached_property
    def goods(self) -> tuple[Good, ...]:
        """Thirty-two goods with their prices in whole coins."""
        rng, goods = self.rng("prices"), []
        for shop in GOODS.strip().replace(";\n", ";").splitlines():
            job, rows = shop.split(": ")
            for row in rows.split(";"):
                name, general, chinese, measure, price = (cell.strip() for cell in row.split("|"))
                coins = int(price)
                if self.seed != TINYTOWN:
                    coins = rng.randint(max(1, coins // 2), 2 * coins + 3)
                goods.append(Good(name, general, chinese, measure, coins, job))
        return tuple(goods)

    @cached_property
    def people(self) -> tuple[Person, ...]:
        """Everyone, the most famous first."""
        stock: dict[str, tuple[str, ...]] = {}
        for good in self.goods:
            stock[good.job] = (*stock.get(good.job, ()), good.name)
        tinytown = self.seed == TINYTOWN
        cast = read_cast(stock) if tinytown else []
        n, places = self.n_people - len(cast), [place.name for place in self.places]
        forms = names(n, self.seed, taken={person.name for person in cast})
        others = invent(n, forms, places, stock, self.rng("people"), tinytown=tinytown)
        if not tinytown:
            self.rng("fame").shuffle(others)
        people = [*cast, *others]
        rng = self.rng("ambiguity")
        for i in range(1, len(people)):
            if rng.random() < self.ambiguity:
                people[i] = replace(people[i], called=people[rng.randrange(i)].called)
        return tuple(people)

    @cached_property
    def fame(self) -> tuple[float, ...]:
        """How likely each of `people` is to be the one that is spoken of; sums to one.

        Example:
            >>> first, second, *_ = World().fame
            >>> round(first / second, 12)
            2.0
        """
        weights = [(i + 1) ** -self.fame_exponent for i in range(self.n_people)]
        total = math.fsum(weights)
        return tuple(weight / total for weight in weights)

    @cached_property
    def mystery(self) -> Mystery:
        """The open question of the town, its clues, and a way to try an answer."""
        if self.seed == TINYTOWN:
            return tinytown_mystery()
        keepers = [person.name for person in self.people if person.keeper]
        return invent_mystery(keepers, self.rng("mystery"))

    @cached_property
    def _by_name(self) -> dict[tuple[type, str], object]:
        things = [*self.people, *self.places, *self.goods]
        return {(type(thing), thing.name): thing for thing in things}

    def person(self, name: str) -> Person:
        """Find somebody by name."""
        return self._find(Person, name, self.people)

    def place(self, name: str) -> Place:
        """Find a place by name."""
        return self._find(Place, name, self.places)

    def good(self, name: str) -> Good:
        """Find a good by the name of one of it."""
        return self._find(Good, name, self.goods)

    def _find(self, kind, name, known):
        if (kind, name) not in self._by_name:
            some = ", ".join(thing.name for thing in known[:20]) + (
                ", …" if len(known) > 20 else ""
            )
            raise ValueError(f"{kind.__name__} {name!r} is not in this town; there is {some}")
        return self._by_name[kind, name]

    def objects(self, person: Person | str, relation: str) -> tuple[str, ...]:
        """What stands on the other end of a relation: none, one or several.

        Args:
            person: or the name.
            relation: one of `RELATIONS`.

        Raises:
            ValueError: unknown person or relation.

        Example:
            >>> World().objects("Mei", "owns")
            ('donkey', "orchard's trees")
        """
        who = self.person(person) if isinstance(person, str) else person
        answers = {
            "lives-in": who.home,
            "works-as": who.works_as,
            "parent-of": who.children,
            "likes": who.likes,
            "sells": who.sells,
            "owns": who.owns,
            "born-in": who.born_in,
        }
        if relation not in answers:
            raise ValueError(f"no relation {relation!r}; there are {', '.join(RELATIONS)}")
        value = answers[relation]
        return value if isinstance(value, tuple) else () if value is None else (value,)

    def on_day(self, day: int) -> tuple[Person, ...]:
        """Everyone as of a day; day 0 is `people`. Each day, a share `change_rate` changes.

        Somebody who changes moves house or finds something else to like, each half of the time.

        Raises:
            ValueError: a day before 0.
        """
        if day < 0:
            raise ValueError(f"days are counted from 0; got {day}")
        people = list(self.people)
        names_of_places = [place.name for place in self.places]
        houses = homes(names_of_places, tinytown=self.seed == TINYTOWN)
        for today in range(1, day + 1 if self.change_rate else 0):
            rng = self.rng(f"day/{today}")
            for i, person in enumerate(people):
                if rng.random() >= self.change_rate:
                    continue
                if rng.random() < 0.5:
                    home = rng.choice([home for home in houses if home != person.home])
                    people[i] = replace(person, home=home)
                else:
                    new = rng.choice([like for like in common_likes() if like != person.likes])
                    people[i] = replace(person, likes=new)
        return tuple(people)

    def __str__(self) -> str:
        from minillm.town.chart import describe

        return describe(self)


def sealed_town() -> World:
    """The exam: a town nothing in the course is trained on, none of whose people live elsewhere.

    Example:
        >>> homes = {person.name for person in World().people}
        >>> homes.isdisjoint(person.name for person in sealed_town().people)
        True
    """
    return World("sealed town 6")
