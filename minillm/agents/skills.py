"""Skills (技能): programs that an agent writes, tries, keeps and calls again, as Voyager does.

    curriculum   what to try next                 stone pickaxe
    proposer     a program                        craft stone pickaxe
    world        runs it                          fails: takes 2 stone, 1 stick; needs 1 table; …
    proposer     reads the error, writes anew     have 1 table
                                                  have 2 stone       ← calls the skill "stone"
                                                  have 1 stick       ← calls the skill "stick"
                                                  craft stone pickaxe
    world        runs it                          there is a stone pickaxe more than before
    library      keeps it                         stone, stick, table, …, *stone pickaxe*

Programs and how they call each other: `minillm.agents.skill_library`.

**Three parts**, each of which can be taken away:

- the *curriculum* (课程) chooses the next item. `automatic` takes one whose recipe, as far as
  errors have told it, has only items that were held before; `at_random` takes any that is left;
- the *library* (技能库) keeps each program that worked, with a description, by whose words it is
  retrieved;
- *feedback* (反馈): the error of a failed program is shown to the proposer, which tries again.

**How much does the curriculum know?** The names of all items, the map, and every error so far. It
does not know a recipe before something has failed. Voyager's curriculum is GPT-4, which has read
about Minecraft.

**A skill can have worked by luck**: "craft plank" alone works while there is wood. The loop does
not notice, and keeps it. When such a skill fails inside another program, it becomes the next task,
and its error mends it.

Paper: Wang et al. 2023, "Voyager: An Open-Ended Embodied Agent with Large Language Models",
arXiv:2305.16291. Abstract read: 3.3 times as many unique items as earlier agents, 2.3 times the
distance, up to 15.3 times as fast to milestones of the tech tree. Top 5 skills retrieved and four
rounds a task are from public accounts of the paper.
Differs: the proposer enumerates programs, where Voyager asks GPT-4; whether a program worked is
counted in the inventory, there GPT-4 judges.

Chapter: 29
"""

import random
import re
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cache
from itertools import permutations, product
from typing import Protocol, final

from minillm.agents.skill_library import MOST_STEPS, Library, Program, Skill, execute
from minillm.town.crafts import GOODS, RECIPES, Workshop

N_RETRIEVED = 5  # skills
MOST_NEEDED = 4  # of an item, in programs that are written without errors


# --- what errors say ------------------------------------------------------------------------------
@final
@dataclass(frozen=True)
class Needs:
    """What an error tells of the recipe of an item.

    Args:
        takes: what is used up.
        tools: what is not.
    """

    takes: Mapping[str, int]
    tools: tuple[str, ...]


def read_needs(errors: Iterable[str]) -> dict[str, Needs]:
    """Item → what it needs, from the sentences of the world; other sentences tell nothing.

    Example:
        >>> read_needs(["craft stick: takes 1 plank; you lack 1 plank"])
        {'stick': Needs(takes={'plank': 1}, tools=())}
    """
    return dict(pair for error in errors if (pair := _read_need(error)))


@cache
def _read_need(error: str) -> tuple[str, Needs] | None:
    match = re.match(r"(?:gather|craft) ([^:]+): ((?:it lies|takes|needs) .*)", error)
    if match is None:
        return None
    # "it lies at hill; takes 2 stone, 1 stick; needs 1 table"
    counts = {
        verb: {item: int(n) for n, item in re.findall(r"(\d+) ([^,]+)", rest)}
        for verb, _, rest in (part.partition(" ") for part in match[2].split("; "))
    }
    return match[1], Needs(counts.get("takes", {}), tuple(counts.get("needs", ())))


# --- the proposer ---------------------------------------------------------------------------------
@final
@dataclass(frozen=True)
class Attempt:
    """A program that was tried for an item.

    Args:
        target: the item.
        program: that was run.
        error: how it failed; empty if it did not, or if nobody is told.
        n_steps: of the world, when it ended.
        success: whether there was one more of the item afterwards.
    """

    target: str
    program: Program
    error: str = ""
    n_steps: int = 0
    success: bool = False


class Proposer(Protocol):
    """Writes programs: a search as here, or a language model."""

    def propose(
        self, target: str, library: Library, attempts: Sequence[Attempt], state: Workshop
    ) -> Program | None:
        """A program that may get an item; None to give up.

        Args:
            target: the item.
            library: the skills that can be called.
            attempts: at this item, the latest last; without feedback they have no errors.
            state: of the world.
        """


@final
@dataclass(frozen=True)
class Enumerator:
    """A proposer that enumerates programs, the shortest first; errors leave it few to enumerate.

    As long as it knows nothing, it puts lines in front of "gather ITEM" or "craft ITEM": no line,
    then each single one, then each pair. An error names the recipe. Then only programs are left
    that get what the recipe needs, in one order or another. It calls the skills that it retrieves;
    for all else it writes the actions, as far as the errors of this task tell them.

    Args:
        most_lines: of a program.
    """

    most_lines: int = 4

    def propose(
        self, target: str, library: Library, attempts: Sequence[Attempt], state: Workshop
    ) -> Program | None:
        """See `Proposer`."""
        if target in library.skills and not attempts:
            return library.skills[target].program
        earlier = {attempt.program for attempt in attempts}
        needs = read_needs([attempt.error for attempt in attempts])
        if target not in needs:
            return next((p for p in self.blind(target, library) if p not in earlier), None)
        query = " ".join([target, *(attempt.error for attempt in attempts)])
        names = set(library.search(query, N_RETRIEVED + 1)) - {target}  # no skill calls itself
        for program in self.informed(target, needs, names, state):
            if program not in earlier and len(program) <= self.most_lines:
                return program
        return None

    def blind(self, target: str, library: Library) -> Iterator[Program]:
        """Programs that end in the item's own action, the shortest first."""
        calls = [f"have {n} {x}" for n in range(1, MOST_NEEDED + 1) for x in library.skills]
        walks = [f"reach {good}" for good in GOODS]
        actions = [f"{recipe.verb} {item}" for item, recipe in RECIPES.items()]
        for length in range(self.most_lines):
            for lines in product([*walks, *calls, *actions], repeat=length):
                yield (*lines, f"{RECIPES[target].verb} {target}")

    def informed(
        self, target: str, needs: Mapping[str, Needs], names: set[str], state: Workshop
    ) -> Iterator[Program]:
        """Programs that get first what the recipe needs; one for each order of what it takes."""
        for order in permutations(needs[target].takes):
            free = Counter({item: state.count(item) for item in RECIPES})
            need = replace(needs[target], takes={x: needs[target].takes[x] for x in order})
            yield tuple(_lines(target, {**needs, target: need}, names, free))


def _lines(item: str, needs: Mapping[str, Needs], names: set[str], free: Counter) -> list[str]:
    """Lines that get one of an item; `free` is what is there, and not yet meant for anything."""
    lines = []
    need = needs.get(item, Needs({}, ()))
    for tool in need.tools:
        if tool in names:
            lines.append(f"have 1 {tool}")
        elif not free[tool]:
            lines += _lines(tool, needs, names, free)
            free[tool] += 1
    for other, n in need.takes.items():
        if other in names:
            lines.append(f"have {n} {other}")
            continue
        for _ in range(n):
            if free[other]:
                free[other] -= 1
            else:
                lines += _lines(other, needs, names, free)
    walk = [f"reach {item}"] * (item in needs and RECIPES[item].verb == "gather")
    return [*lines, *walk, f"{RECIPES[item].verb} {item}"]


# --- curricula ------------------------------------------------------------------------------------
#: The state, the library and all attempts so far, to the next item; None if nothing is left.
Curriculum = Callable[[Workshop, Library, Sequence[Attempt]], str | None]


def automatic(state: Workshop, library: Library, history: Sequence[Attempt]) -> str | None:
    """The item that was tried least, of those whose recipe has only items that were held before.

    An item of whose recipe nothing is known is possible, too: failing once tells it. Of items that
    were tried equally often, new ones come first; of those, what is gathered; of that, the nearest.
    """
    obtained = state.obtained
    known = {*obtained, *library.skills}
    needs = read_needs(attempt.error for attempt in history)
    tries = Counter(attempt.target for attempt in history)

    def is_ready(item: str) -> bool:
        if item in needs:
            return known.issuperset([*needs[item].takes, *needs[item].tools])
        return RECIPES[item].verb == "craft" or state.map.place_of(item) is not None

    def rank(item: str) -> tuple:
        place = state.map.place_of(item)
        distance = len(state.map.path(state.place, place)) if place else 0
        return tries[item], item in obtained, RECIPES[item].verb == "craft", distance

    return min(filter(is_ready, left(state, library, history)), key=rank, default=None)


def at_random(seed: int) -> Curriculum:
    """Any item that is left, each as likely as another."""

    def choose(state: Workshop, library: Library, history: Sequence[Attempt]) -> str | None:
        items = left(state, library, history)
        return random.Random(f"{seed}/{len(history)}").choice(items) if items else None

    return choose


def left(state: Workshop, library: Library, history: Sequence[Attempt]) -> list[str]:
    """Items that were never held, or have neither a skill nor a success of their own.

    What was only made on the way to something else is left: it may be needed as a skill.
    """
    done = {*library.skills, *(attempt.target for attempt in history if attempt.success)}
    return [item for item in RECIPES if item not in done or item not in state.obtained]


# --- the loop -------------------------------------------------------------------------------------
@final
@dataclass(frozen=True)
class Run:
    """How an exploration went.

    Args:
        state: of the world at the end; `state.obtained` has the items.
        library: at the end.
        history: all attempts.
    """

    state: Workshop
    library: Library
    history: tuple[Attempt, ...]

    @property
    def missing(self) -> dict[str, str]:
        """The items that were never held, and why: the last error of each."""
        lost = [good for good in GOODS if self.state.map.place_of(good) is None]
        reasons = {good: f"gather {good}: it lies nowhere here" for good in lost}
        reasons |= {attempt.target: attempt.error for attempt in self.history if attempt.error}
        obtained = self.state.obtained
        return {x: reasons.get(x, "no program was run") for x in RECIPES if x not in obtained}


def explore(
    start: Workshop,
    proposer: Proposer,
    curriculum: Curriculum,
    library: Library | None = None,
    *,
    n_steps: int,
    n_rounds: int = 4,
    keep: bool = True,
    feedback: bool = True,
) -> Run:
    """Voyager's loop: choose an item, propose, run, read the error, propose anew, keep what works.

    Args:
        start: of the world.
        proposer: writes programs.
        curriculum: chooses items.
        library: to begin with; None for an empty one.
        n_steps: of the world, in all.
        n_rounds: programs for one item, before another is chosen.
        keep: False for no library: what works is forgotten.
        feedback: False if the proposer is only told that a program failed. The curriculum reads
            errors all the same.

    Raises:
        ValueError: fewer than one step or round.
    """
    if n_steps < 1 or n_rounds < 1:
        raise ValueError(f"n_steps and n_rounds must be at least 1; got {n_steps} and {n_rounds}")
    state, library = start, Library() if library is None else library
    last = start.n_steps + n_steps
    history: list[Attempt] = []
    failure: Attempt | None = None
    for _ in range(n_steps):  # tasks; programs that take no step must not go on for ever
        # 1. what to try: a skill that has just failed, or what the curriculum chooses
        target = failure.target if failure else curriculum(state, library, history)
        if target is None or state.n_steps >= last:
            break
        # an error is shown for as long as the task lasts; who sees none must know what was tried
        attempts = [failure] if failure else []
        if not feedback:
            attempts = [replace(a, error="") for a in history if a.target == target]
        failure = None
        for _ in range(n_rounds):
            # 2. a program; does it bring one more?
            program = proposer.propose(target, library, attempts, state)
            if program is None:
                history.append(Attempt(target, (), n_steps=state.n_steps))  # it gives up
                break
            most_steps = min(MOST_STEPS, last - state.n_steps)
            outcome = execute(program, state, library, most_steps=most_steps)
            success = outcome.state.count(target) > state.count(target)
            state = outcome.state
            attempt = Attempt(target, program, outcome.error, state.n_steps, success)
            history.append(attempt)
            attempts.append(attempt if feedback else replace(attempt, error=""))
            # 3. keep what works; mend what has stopped working
            if success and keep:
                library = library.add(Skill(target, f"get {target}", program))
            elif outcome.skill:
                lines = library.skills[outcome.skill].program
                failure = Attempt(outcome.skill, lines, outcome.error, state.n_steps)
                history.append(failure)
            if success or failure or state.n_steps >= last:
                break
    return Run(state, library, tuple(history))
