"""The people of a town: the cast that the reader names, and households made up around it.

There is one baker, and he sings. So each of the twelve jobs has one keeper; everyone else who works
helps a keeper. Children from 6 to 15 are pupils.

Chapter: 02
"""

import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import final

from minillm.town.names import FAMILIES
from minillm.town.tinytown import (
    CAST,
    JOBS,
    LIKES,
    ONE_OF_A_KIND,
    OTHER_HOMES,
    OWNS,
    PARENTS,
    TITLES,
)

WITHOUT_HOUSES = ("stone bridge", "hill")


@final
@dataclass(frozen=True)
class Person:
    """Somebody of the town; no two people share `name` or `chinese`.

    Args:
        name: unique in the town, such as "Mei"; what `World.person` finds.
        chinese: unique too.
        called: what people say; another's name if the town's ambiguity made it so.
        family: family name.
        family_chinese: its character.
        pronoun: "she" or "he".
        age: in years.
        job: one of the twelve; "pupil" from 6 to 15; None if none.
        keeper: the one who has the job; all others with the same job help (there is one baker).
        home: a place.
        likes: one of `tinytown.LIKES`.
        owns: of `tinytown.OWNS`.
        sells: names of goods, for a keeper.
        born_in: a place; None if not in this town.
        parents, children: names.
    """

    name: str
    chinese: str
    called: str
    family: str
    family_chinese: str
    pronoun: str
    age: int
    job: str | None
    keeper: bool
    home: str
    likes: str
    owns: tuple[str, ...]
    sells: tuple[str, ...]
    born_in: str | None
    parents: tuple[str, ...] = ()
    children: tuple[str, ...] = ()

    @property
    def title(self) -> str:
        """What stands in a list: "Doctor Su" for Su of the default town, else the name."""
        return TITLES.get(self.name, self.name)

    @property
    def works_as(self) -> str | None:
        """The job in words: "baker" for the keeper of it, "baker's helper" for the others.

        Example:
            >>> from minillm.town.world import World
            >>> World().person("Bao").works_as
            'baker'
        """
        helps = self.job is not None and self.job in JOBS and not self.keeper
        return f"{self.job}'s helper" if helps else self.job


def read_cast(stock: Mapping[str, tuple[str, ...]]) -> list[Person]:
    """The fifteen people whom the reader names.

    Args:
        stock: for each job the goods that its keeper sells.

    Example:
        >>> read_cast({"baker": ("bun",)})[1].sells
        ('bun',)
    """
    rows = [[cell.strip() for cell in line.split("|")] for line in CAST.strip().splitlines()]
    cast = []
    for name, chinese, family, character, pronoun, age, job, home, likes, owns, born in rows:
        keeper = job in JOBS
        cast.append(
            Person(
                name=name,
                chinese=chinese,
                called=name,
                family=family,
                family_chinese=character,
                pronoun=pronoun,
                age=int(age),
                job=None if job == "-" else job,
                keeper=keeper,
                home=home,
                likes=likes,
                owns=() if owns == "-" else tuple(owns.split(", ")),
                sells=stock.get(job, ()),
                born_in=None if born == "-" else born,
                parents=PARENTS.get(name, ()),
                children=tuple(child for child, parents in PARENTS.items() if name in parents),
            )
        )
    return cast


def homes(places: Sequence[str], *, tinytown: bool) -> list[str]:
    """Where people live whom the reader does not name."""
    return list(OTHER_HOMES) if tinytown else [p for p in places if p not in WITHOUT_HOUSES]


def common_likes() -> list[str]:
    """What anybody may like."""
    return [like for like in LIKES if not like.startswith(("his ", "a certain "))]


def invent(
    n: int,
    forms: Sequence[tuple[str, str]],
    places: Sequence[str],
    stock: Mapping[str, tuple[str, ...]],
    rng: random.Random,
    *,
    tinytown: bool,
) -> list[Person]:
    """People the reader does not name, household by household: one or two adults, and children.

    Args:
        n: how many.
        forms: their names, English and Chinese.
        places: of the town.
        stock: for each job the goods that its keeper sells.
        rng: decides everything else.
        tinytown: whether they live in the default town, where every job has its keeper already.
    """
    houses = homes(places, tinytown=tinytown)
    likes, jobs = common_likes(), list(JOBS)
    things = [thing for thing in OWNS if not tinytown or thing not in ONE_OF_A_KIND]
    born = [place for place in places if place not in WITHOUT_HOUSES]
    unfilled = [] if tinytown else rng.sample(jobs, len(jobs))  # each job gets one keeper
    people: list[Person] = []
    while len(people) < n:
        family, character = rng.choice(list(FAMILIES.items()))
        home, n_adults = rng.choice(houses), rng.choice((1, 2, 2))
        youngest = rng.randint(22, 60)
        n_children = rng.choice((0, 1, 1, 2, 3)) if youngest < 48 else 0
        if len(unfilled) > n - len(people) - n_adults - n_children:
            n_children = 0  # the jobs need everybody who is left
        first = len(people)
        for i in range(min(n_adults + n_children, n - first)):
            adult = i < n_adults
            age = rng.randint(youngest, youngest + 6) if adult else rng.randint(0, youngest - 20)
            keeper = adult and bool(unfilled)
            job = unfilled.pop() if keeper else rng.choice(jobs) if age > 15 and age < 65 else None
            if job is None and 6 <= age <= 15:
                job = "pupil"
            name, chinese = forms[first + i]
            own = (family, character)
            if adult and i == 1:  # who marries keeps the family name
                own = rng.choice(list(FAMILIES.items()))
            people.append(
                Person(
                    name=name,
                    chinese=chinese,
                    called=name,
                    family=own[0],
                    family_chinese=own[1],
                    pronoun=("she", "he")[i % 2] if adult else rng.choice(("she", "he")),
                    age=age,
                    job=job,
                    keeper=keeper,
                    home=home,
                    likes=rng.choice(likes),
                    owns=(rng.choice(things),) if age > 5 and rng.random() < 0.6 else (),
                    sells=stock.get(job, ()) if keeper else (),
                    born_in=home if not adult else rng.choice(born),
                )
            )
        household = people[first:]
        elders = tuple(person.name for person in household[:n_adults])
        young = tuple(person.name for person in household[n_adults:])
        for i in range(first, len(people)):
            if i - first < n_adults:
                people[i] = replace(people[i], children=young)
            else:
                people[i] = replace(people[i], parents=elders)
    return people
