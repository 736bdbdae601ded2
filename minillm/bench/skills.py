"""`minillm bench skills`: items that an agent has held against environment steps, part by part.

An agent explores the crafting world (`minillm.town.crafts`, twenty items) with Voyager's loop
(`minillm.agents.skills`). A search writes its programs, and no model is trained. Then one part at a
time is taken away. All have the same maps and the same steps; those below differ from the first in
what the table says, and in nothing else.

====================================  ===========  =========  =======  ==========  =============
arm                                   library      lines      rounds   curriculum  errors shown
====================================  ===========  =========  =======  ==========  =============
full                                  yes          ≤ 4        4        automatic   yes
no library                            no           ≤ 4        4        automatic   yes
no library, long programs             no           any        4        automatic   yes
no library, long programs, 16 rounds  no           any        16       automatic   yes
no library, notes                     notes        any        4        automatic   yes
no curriculum                         yes          ≤ 4        4        at random   yes
no feedback                           yes          ≤ 4        4        automatic   no
====================================  ===========  =========  =======  ==========  =============

Lines are those of one program, rounds are programs for one task. Without a library, four lines are
few: a gem takes forty actions. So there are three arms without a library whose programs may have
any length. *Notes* are the sentences of failed actions, all of them; the agent keeps what it has
learned of recipes, but no program.

The automatic curriculum reads errors in every arm, also where the proposer does not see them. The
random one draws among the items that are left.

Programs and lines are counted up to the last new item. They are what a language model would have
to write.

**On new maps** the agent begins with the library of an earlier map, with the notes of an earlier
map, or with nothing. Some skills of one map have worked by luck, because something was there. So
each library is examined before and after the new map, on a third one: how many of its skills bring
their item to somebody who has nothing?

Paper: Wang et al. 2023, "Voyager", arXiv:2305.16291, figures 1 and 9 (from memory).
Differs: steps of the environment, where Voyager counts prompts; a search in place of GPT-4.

Chapter: app
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import partial
from itertools import takewhile
from statistics import fmean
from typing import Any, final

from minillm.agents.skill_library import Library, Program, execute
from minillm.agents.skills import (
    Attempt,
    Enumerator,
    Proposer,
    Run,
    at_random,
    automatic,
    explore,
)
from minillm.bench._run import Finished
from minillm.town.crafts import ITEMS, Workshop, craft_map, plan

LONG = 500  # lines: more than any program needs
LAST = ("gem", "lantern", "brick")  # on the way to these, all twenty items are made


@final
@dataclass(frozen=True, kw_only=True)
class Work:
    """How much is done.

    Args:
        n_steps: of each run.
        marks: after so many steps the items are counted.
        mark, new_mark: at these, arms are compared; on new maps all is quicker.
        seeds: of the maps.
        new_seeds: of the maps that come after; each agent begins with what it has from the map of
            the same rank in `seeds`.
    """

    n_steps: int = 400
    marks: tuple[int, ...] = (25, 50, 75, 100, 125, 150, 200, 300, 400)
    mark: int = 150
    new_mark: int = 75
    seeds: tuple[int, ...] = tuple(range(10))
    new_seeds: tuple[int, ...] = tuple(range(100, 110))


QUICK = Work(n_steps=30, marks=(15, 30), mark=30, new_mark=30, seeds=(0,), new_seeds=(100,))


@final
@dataclass
class Notes:
    """A proposer that shows another one all errors it has seen in its life.

    Args:
        proposer: that writes the programs.
        errors: so far.
    """

    proposer: Proposer
    errors: dict[str, None] = field(default_factory=dict)

    def propose(
        self, target: str, library: Library, attempts: Sequence[Attempt], state: Workshop
    ) -> Program | None:
        """See `Proposer`."""
        self.errors |= dict.fromkeys(attempt.error for attempt in attempts if attempt.error)
        notes = [Attempt("", (), error) for error in self.errors]
        return self.proposer.propose(target, library, [*notes, *attempts], state)


def arms(seed: int) -> dict[str, dict[str, Any]]:
    """Of each arm, in what it differs: keyword arguments of `explore`."""
    long = {"keep": False, "proposer": Enumerator(most_lines=LONG)}
    return {
        "full": {},
        "no library": {"keep": False},
        "no library, long programs": long,
        "no library, long programs, 16 rounds": {**long, "n_rounds": 16},
        "no library, notes": {**long, "proposer": Notes(long["proposer"])},
        "no curriculum": {"curriculum": at_random(seed)},
        "no feedback": {"feedback": False},
    }


def run(quick: bool = False, finished: Finished | None = None) -> dict[str, Any]:
    """Explore with every arm, then on new maps, and print both tables.

    Args:
        quick: few steps on one map; its figures mean nothing.
        finished: runs that are not to be repeated.

    Returns:
        "marks", "mark" and "new_mark", in steps; "arms", of each a list of rows, a row a map, see
        `row`; "new maps", the same for "nothing", "notes" and "library"; "oracle", of each map the
        fewest steps in which someone who knows all recipes makes all twenty items.
    """
    work, finished = QUICK if quick else Work(), finished or Finished()
    figures: dict[str, Any] = {
        "marks": work.marks,
        "mark": work.mark,
        "new_mark": work.new_mark,
        "oracle": [len(plan(craft_map(seed), *LAST) or ()) for seed in work.seeds],
        "arms": {
            name: [
                finished(
                    f"{name}, {work.n_steps} steps, map {seed}", partial(of_arm, name, seed, work)
                )
                for seed in work.seeds
            ]
            for name in arms(0)
        },
        "new maps": {},
    }
    for name in ("nothing", "notes", "library"):
        figures["new maps"][name] = [
            finished(
                f"{name} from map {seed}, {work.n_steps} steps, map {new}",
                partial(on_new_map, name, seed, new, work),
            )
            for seed, new in zip(work.seeds, work.new_seeds, strict=True)
        ]
    _print(figures)
    return figures


def of_arm(name: str, seed: int, work: Work) -> dict[str, Any]:
    """One exploration with one arm; see `row`."""
    return row(_explore(seed, work, arms(seed)[name]), work)


def on_new_map(name: str, seed: int, new_seed: int, work: Work) -> dict[str, Any]:
    """One exploration, by an agent that has explored another map before.

    Returns:
        See `row`; "robust before" and "robust after", skills that run from nothing on a third map.
    """
    if name == "nothing":
        return row(_explore(new_seed, work, {}), work)
    # the notes grow while the first map is explored
    options = arms(seed)["no library, notes" if name == "notes" else "full"]
    earlier = _explore(seed, work, options)
    run = _explore(new_seed, work, {**options, "library": earlier.library})
    third = f"third {new_seed}"
    robust = {"robust before": n_robust(earlier.library, third)}
    return {**row(run, work), **robust, "robust after": n_robust(run.library, third)}


def n_robust(library: Library, seed: int | str) -> int:
    """How many skills bring their item on a map to somebody who has nothing."""
    start = Workshop(craft_map(seed))
    return sum(not execute((f"have 1 {x}",), start, library).error for x in library.skills)


def _explore(seed: int, work: Work, options: dict[str, Any]) -> Run:
    start, usual = Workshop(craft_map(seed)), {"proposer": Enumerator(), "curriculum": automatic}
    return explore(start, n_steps=work.n_steps, **{**usual, **options})


def row(run: Run, work: Work) -> dict[str, Any]:
    """What came of an exploration.

    Returns:
        "items" at each mark; "end", the step of the last new item, and up to there "n_programs" and
        "n_lines" that were written; "longest", the lines of the longest of these programs.
    """
    steps = run.state.obtained.values()
    end = max(steps, default=0)
    # the program of the last new item may end after it
    n_before = sum(1 for _ in takewhile(lambda attempt: attempt.n_steps < end, run.history))
    lengths = [len(attempt.program) for attempt in run.history[: n_before + 1]]
    return {
        "items": [sum(n <= mark for n in steps) for mark in work.marks],
        "end": end,
        "n_programs": sum(length > 0 for length in lengths),
        "n_lines": sum(lengths),
        "longest": max(lengths),
    }


def items_at(rows: Sequence[dict[str, Any]], marks: Sequence[int], mark: int) -> float:
    """Items that were held by a mark, the mean of the maps."""
    return fmean(each["items"][list(marks).index(mark)] for each in rows)


def _print(figures: dict[str, Any]) -> None:
    marks = figures["marks"]
    print(f"items of {len(ITEMS)} held after so many steps, mean of the maps")
    for title, groups, mark in (
        ("arm", figures["arms"], figures["mark"]),
        ("on new maps, with", figures["new maps"], figures["new_mark"]),
    ):
        print(f"{title:>38}" + "".join(f"{n:>6}" for n in marks) + "  programs  lines  longest")
        first = items_at(next(iter(groups.values())), marks, mark)
        for name, rows in groups.items():
            means = "".join(f"{items_at(rows, marks, n):6.1f}" for n in marks)
            written = [fmean(each[key] for each in rows) for key in ("n_programs", "n_lines")]
            longest = max(each["longest"] for each in rows)
            share = f"   at {mark} steps {items_at(rows, marks, mark) / max(first, 1):.2f} x"
            print(f"{name:>38}{means}{written[0]:10.0f}{written[1]:7.0f}{longest:9}{share}")
    print(f"who knows all recipes has all items after {fmean(figures['oracle']):.0f} steps")
    for when in ("before", "after"):
        n = fmean(each[f"robust {when}"] for each in figures["new maps"]["library"])
        print(f"skills that run from nothing, {when} the new map: {n:.1f}")
