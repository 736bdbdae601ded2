"""Errands on the town's map (地图): fetch a good somewhere, and bring it to somebody.

    task: bring plums to Joe          what an agent reads, the view
    you are at: mill
    you have: nothing
    plums: market square, by way of bridge; pottery, by way of green
    Joe: well, by way of green

    go bridge       a road leads there
    take plums      only where they are, and not every sign tells the truth
    give plums      only where Joe is
    give_up …       right if the good is nowhere; else a failure

**A view is all there is to know.** It says where the agent stands, and signposts say which road
leads on. So who acts on the view needs neither a map nor a memory. A plan that was made at the
beginning knows the map, and nothing of what went wrong since.

**Things go wrong.** With probability `failure_rate` an action fails: on the road one loses one's
way and comes to another place next to here, and what one takes or gives slips from one's hands.
From a place with a single road nobody loses the way.
A sign may also name a shop that is sold out. Who asks there in vain is told, and the sign is gone.

**The oracle** (`right_action`) follows the signs, to the first shop that is still named.

Paper: none. A household of the same kind, in words, is Shridhar et al. 2021, "ALFWorld",
arXiv:2010.03768. From memory.
Differs: from ALFWorld: signposts make every step decidable from the view alone.

Chapter: 29
"""

import random
from dataclasses import dataclass, field, replace
from functools import cache
from typing import final

from minillm.town.world import World

MOST_CHARACTERS = 80  # of an action, in a remark
MOST_TRIES = 10_000  # to draw an errand of the length that is asked for
SLACK = 4  # steps that an errand with a detour has to spare


@final
@dataclass(frozen=True, kw_only=True)
class Task:
    """What is to be done, where, and how long it may take.

    Args:
        world: the town.
        good: in general, such as "plums".
        person: who gets it.
        start, home: where the agent begins, and where the person is.
        shops: that the signs name, in their order.
        stocked: the shops that have the good; none: the task cannot be done.
        most_steps: after these it is too late.
        failure_rate: how often an action fails, 0 to 1.
        seed: of the failures.

    Raises:
        ValueError: a rate that is no probability; a place that is not in the town; no step.
    """

    world: World
    good: str
    person: str
    start: str
    home: str
    shops: tuple[str, ...]
    stocked: frozenset[str]
    most_steps: int
    failure_rate: float = 0.0
    seed: int | str = 0

    def __post_init__(self) -> None:
        if not 0 <= self.failure_rate <= 1:
            raise ValueError(
                f"failure_rate must be a probability from 0 to 1; got {self.failure_rate}"
            )
        if self.most_steps < 1:
            raise ValueError(f"most_steps must be at least 1; got {self.most_steps}")
        for name in (self.start, self.home, *self.shops, *self.stocked):
            self.world.place(name)  # raises for what is not there

    def __str__(self) -> str:
        return f"bring {self.good} to {self.person}"

    @property
    def n_shortest(self) -> int | None:
        """The steps of somebody who follows the signs to the best shop that has the good.

        None if it cannot be done. Signs show the way of fewest minutes; now and then another way
        has fewer roads.
        """
        ways = [
            _n_roads(self.world, self.start, shop) + _n_roads(self.world, shop, self.home) + 2
            for shop in self.shops
            if shop in self.stocked
        ]
        return min(ways, default=None)


@final
@dataclass(frozen=True)
class Errand:
    """How far an errand is: a frozen state.

    Args:
        task: what is to be done.
        place: where the agent is.
        has_good: whether it carries the good.
        n_steps: actions so far.
        sold_out: shops where it asked in vain.
        lessons: sentences from earlier errands, which the view begins with.
        remark: what went wrong with the last action; empty if nothing did.
        end: "delivered", "gave up", or empty.

    Example:
        >>> errand = draw_errand(World(), 1)
        >>> print(errand.view())
        task: bring noodles to Jinhe
        you are at: ferry
        you have: nothing
        noodles: market square, by way of Duck Lane
        Jinhe: well, by way of Duck Lane
    """

    task: Task
    place: str
    has_good: bool = False
    n_steps: int = 0
    sold_out: frozenset[str] = field(default_factory=frozenset)
    lessons: tuple[str, ...] = ()
    remark: str = ""
    end: str = ""

    @property
    def done(self) -> bool:
        """Whether no further action is taken."""
        return bool(self.end) or self.n_steps >= self.task.most_steps

    @property
    def success(self) -> bool:
        """Whether the good was brought; or was given up where it is nowhere."""
        return self.end == ("delivered" if self.task.stocked else "gave up")

    @property
    def shops(self) -> list[str]:
        """Those that the signs still name."""
        return [shop for shop in self.task.shops if shop not in self.sold_out]

    def view(self) -> str:
        """What a policy reads, line by line."""
        task = self.task
        signs = "; ".join(self._sign(shop) for shop in self.shops)
        lines = [
            *(f"lesson: {lesson}" for lesson in self.lessons),
            f"task: {task}",
            f"you are at: {self.place}",
            f"you have: {task.good if self.has_good else 'nothing'}",
            f"{task.good}: {signs or 'nowhere'}",
            f"{task.person}: {self._sign(task.home)}",
        ]
        return "\n".join([*lines, self.remark]).rstrip()

    def _sign(self, place: str) -> str:
        step = self.step_to(place)
        return f"{place}, by way of {step}" if step else f"{place}, here"

    def step_to(self, place: str) -> str | None:
        """The next place on the way to another one; None if the agent is there."""
        return _step(self.task.world, self.place, place)

    def after(self, action: str) -> "Errand":
        """The state after an action; whatever cannot be done costs a step, and leaves a remark.

        Args:
            action: anything.
        """
        task = self.task
        step = replace(self, n_steps=self.n_steps + 1, remark="")
        verb, _, name = action.partition(" ")
        if verb == "give_up":
            return replace(step, end="gave up")
        remark = self._problem(verb, name)
        if remark:
            in_vain = action == f"take {task.good}" and self.place in self.shops
            sold_out = {self.place} if in_vain else set()
            remark = f"{' '.join(action.split())[:MOST_CHARACTERS]}: {remark}"  # on one line
            return replace(step, remark=remark, sold_out=self.sold_out | sold_out)
        rng = random.Random(f"failure/{task.seed}/{self.n_steps}")
        failure = rng.random() < task.failure_rate
        if verb == "go":
            others = sorted({*task.world.neighbours(self.place)} - {name}) if failure else []
            if not others:
                return replace(step, place=name)
            wrong = rng.choice(others)
            return replace(step, place=wrong, remark=f"go {name}: you lost your way")
        if failure:
            return replace(step, remark=f"{action}: it slipped from your hands")
        if verb == "take":
            return replace(step, has_good=True)
        return replace(step, has_good=False, end="delivered")

    def _problem(self, verb: str, name: str) -> str:
        """Why an action cannot be done; empty if it can."""
        task = self.task
        if verb == "go" and name not in task.world.neighbours(self.place):
            return f"no road leads there from {self.place}"
        if verb not in ("go", "take", "give"):
            return "an action is go PLACE, take GOOD, give GOOD or give_up REASON"
        if verb != "go" and name != task.good:
            return f"the errand is about {task.good}"
        if verb == "take" and self.place not in task.stocked:
            return f"no {task.good} at {self.place}"
        if verb == "give" and not self.has_good:
            return "you do not have it"
        if verb == "give" and self.place != task.home:
            return f"{task.person} is not at {self.place}"
        return ""


@cache
def _step(world: World, a: str, b: str) -> str | None:
    return None if a == b else world.path(a, b)[1]


@cache
def _n_roads(world: World, a: str, b: str) -> int:
    return len(world.path(a, b)) - 1


# --- the oracle -----------------------------------------------------------------------------------
def right_action(errand: Errand) -> str:
    """What to do: follow the signs, but for what a lesson speaks against.

    A lesson counts if it is the sentence that a shop without the good answers with.

    Example:
        >>> right_action(draw_errand(World(), 1))
        'go Duck Lane'
    """
    task = errand.task
    if errand.has_good:
        step = errand.step_to(task.home)
        return f"go {step}" if step else f"give {task.good}"
    shops = open_shops(errand)
    if not shops:
        return f"give_up nobody has {task.good}"
    step = errand.step_to(shops[0])
    return f"go {step}" if step else f"take {task.good}"


def open_shops(errand: Errand) -> list[str]:
    """The shops that the signs name and no lesson speaks against."""
    return [
        shop for shop in errand.shops if f"no {errand.task.good} at {shop}" not in errand.lessons
    ]


# --- errands by chance ----------------------------------------------------------------------------
def draw_errand(
    world: World,
    seed: int | str,
    *,
    n_shops: int = 1,
    n_stocked: int = 1,
    fewest_steps: int = 4,
    failure_rate: float = 0.0,
    detour: bool = False,
    good: str | None = None,
    person: str | None = None,
) -> Errand:
    """An errand of a town: people are at home, and the shop is wherever the signs say.

    Args:
        world: the town.
        seed: another seed, another errand.
        n_shops: that the signs name.
        n_stocked: of these, how many have the good; which ones is a matter of chance.
        fewest_steps: along the signs, see `Task.n_shortest`; where nobody has the good, it only
            sets how much time there is.
        failure_rate: how often an action fails.
        detour: the first shop is sold out, and who goes there first comes too late. There are
            `SLACK` steps to spare; without it, three times the steps and ten more.
        good: in general, such as "plums"; None for any.
        person: who gets it; None for anybody.

    Raises:
        ValueError: numbers of shops that cannot be; the town has no such good, person or errand.
    """
    most = len(world.places) - 1  # at home there is no shop
    if not (1 <= n_shops <= most and detour <= n_stocked <= n_shops - detour):
        raise ValueError(
            f"n_shops must be from 1 to {most}, and n_stocked from 0 to n_shops (with a detour at "
            f"least 1, and less than n_shops); got {n_shops} and {n_stocked}"
        )
    people = world.people if person is None else (world.person(person),)
    goods = [each for each in world.goods if good in (None, each.general)]
    if not goods:
        names = ", ".join(each.general for each in world.goods)
        raise ValueError(f"good must be one of this town, {names}; got {good!r}")
    rng = random.Random(f"errand/{seed}")
    for _ in range(MOST_TRIES):
        # 1. who wants what, and where the signs say that it is
        receiver, item = rng.choice(people), rng.choice(goods)
        others = [place.name for place in world.places if place.name != receiver.home]
        shops = tuple(rng.sample(others, n_shops))
        stocked = shops[1 : 1 + n_stocked] if detour else rng.sample(shops, n_stocked)
        task = Task(
            world=world,
            good=item.general,
            person=receiver.name,
            start=rng.choice(world.places).name,
            home=receiver.home,
            shops=shops,
            stocked=frozenset(stocked),
            most_steps=1,
            failure_rate=failure_rate,
            seed=seed,
        )
        # 2. is it long enough, and is the wrong way too long?
        n_shortest = task.n_shortest or fewest_steps
        if n_shortest < fewest_steps or (detour and _n_detour(task) <= n_shortest + SLACK):
            continue
        most_steps = n_shortest + SLACK if detour else 3 * n_shortest + 10
        task = replace(task, most_steps=most_steps)
        return Errand(task, task.start)
    raise ValueError(
        f"the town must have an errand of at least {fewest_steps} steps with {n_shops} shops; "
        f"none was met in {MOST_TRIES:,} draws. Ask for fewer"
    )


def _n_detour(task: Task) -> int:
    """Steps of somebody who asks in the shops one after the other."""
    errand = Errand(replace(task, most_steps=1000, failure_rate=0.0), task.start)
    while not errand.done:
        errand = errand.after(right_action(errand))
    return errand.n_steps
