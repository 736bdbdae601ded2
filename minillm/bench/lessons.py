"""`minillm bench lessons`: second attempts at an errand, with a lesson and with five other things.

Two shops are named in the view, and one of them has the good. Who asks in the other one first
comes too late. Nothing in the view tells which is which, so a first attempt goes to the first shop.

======  ==========================  ====================================================
case    the first shop is sold out  so always going to the second shop
======  ==========================  ====================================================
always  in every errand             always succeeds
half    in every other errand       succeeds in half of them, as does the first attempt
======  ==========================  ====================================================

Each errand is run, and then run again from its start by the same agent. No action fails by chance,
and the agent is greedy. So a second attempt that reads the same views is the first one again.
What the views begin with **after a failure** differs:

- *own*: the lesson that the agent wrote;
- *rule*: the lesson that a rule writes from what went wrong, always true;
- *none*: no lesson;
- *another's*: the rule's lesson of another errand that failed, in another town;
- *false*: a sentence of the same form that names the shop which has the good.

After a failure there is nothing to lose. So in three more tests **all** second attempts have a
sentence, also those whose first one succeeded: *another's, all*, *false, all*, and *second shop,
all*, which speaks against the first shop whatever happened. In the case "half" the last one shows
what "try the other shop" is worth without experience.

**What is read?** Success does not say why a lesson helped: where the first shop is always sold out,
whatever drives an agent to the second shop helps. So all first decisions are counted where a road
of its own leads to each shop: how many turn to the second shop? Right is all of them with a lesson
against the first shop, and none of them with all other lessons:

=============  ============================================
lesson         names
=============  ============================================
first shop     the good, and the first shop
second shop    the good, and the second shop
another good   another good, and the first shop
third place    the good, and another place
no lesson      nothing: there is no lesson
=============  ============================================

The model has learned from demonstrations to write such lessons and to heed them, in other towns.
So this measures whether the way through the agent's own words works. It doesn't measure whether an
agent comes upon that way by itself.

Paper: Shinn et al. 2023, "Reflexion", arXiv:2303.11366. From memory.
Differs: a model of 1 M parameters, trained to reflect; lessons of one form.

Chapter: app
"""

import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from statistics import fmean
from typing import Any, final

from minillm.agents import imitate
from minillm.agents.errands import NOTHING
from minillm.agents.imitate import Trace, success_rate
from minillm.agents.lessons import MOST_ACTIONS, question, try_again, with_lesson
from minillm.bench._errands import Agent, by_rule, errands, open_agent, oracle
from minillm.bench._run import Finished
from minillm.lab.track import track
from minillm.town.map import SLACK, Errand, right_action

CASES = ("always", "half")
KINDS = ("first shop", "second shop", "another good", "third place", "no lesson")
FEWEST_STEPS = 6


@final
@dataclass(frozen=True, kw_only=True)
class Work:
    """How much is done.

    Args:
        n_errands: of each seed and case.
        seeds: of errands.
    """

    n_errands: int = 40
    seeds: tuple[int, ...] = (0, 1, 2)


QUICK = Work(n_errands=4, seeds=(0,))


def run(quick: bool = False, finished: Finished | None = None) -> dict[str, Any]:
    """Run the errands twice, and print the tables.

    Args:
        quick: a few; its figures mean nothing.
        finished: rows that are not to be measured again.

    Returns:
        "rows", each with its "agent", and what `measure` says; "first decisions", rows with
        "agent", "seed", and what `turns` says.
    """
    work, finished = QUICK if quick else Work(), finished or Finished()
    agents = {"oracle": oracle(), "model": open_agent()}
    rows = [
        finished(
            f"{name}, {case}, seed {seed}, {work.n_errands} errands",
            partial(_row, name, agent, case, work.n_errands, seed),
        )
        for name, agent in agents.items()
        for case in CASES
        for seed in track(work.seeds, f"{name}, {case}")
    ]
    decisions = [
        {"agent": name, "seed": seed}
        | finished(
            f"{name}, first decisions, seed {seed}, {work.n_errands} errands",
            partial(turns, agent, work.n_errands, seed),
        )
        for name, agent in agents.items()
        for seed in work.seeds
    ]
    _print(rows)
    _print_turns(decisions)
    return {"rows": rows, "first decisions": decisions}


def _row(name: str, agent: Agent, case: str, n_errands: int, seed: int) -> dict[str, Any]:
    return {"agent": name, **measure(agent, case, n_errands, seed)}


def starts_of(case: str, n_errands: int, seed: int) -> list[Errand]:
    """Errands with two shops, one of which has the good.

    Args:
        case: "always", or "half": in every other errand the first shop has it.
        n_errands, seed: see `errands`.
    """
    starts = errands(seed, n_errands, n_shops=2, detour=True, fewest_steps=FEWEST_STEPS)
    return [
        start if case == "always" or n % 2 else _first_has_it(start)
        for n, start in enumerate(starts)
    ]


def _first_has_it(start: Errand) -> Errand:
    """The same errand, but for the shop that has the good; there are as many steps to spare."""
    task = replace(start.task, stocked=frozenset(start.task.shops[:1]))
    return replace(start, task=replace(task, most_steps=task.n_shortest + SLACK))


def measure(agent: Agent, case: str, n_errands: int, seed: int) -> dict[str, Any]:
    """First and second attempts at some errands.

    Args:
        agent: who runs them, and reflects.
        case, n_errands, seed: see `starts_of`.

    Returns:
        "case", "seed", and "n" errands; "first", the success of the first attempts; "second", that
        of the second ones with each kind of lesson; "heeded", with the rule's lesson, the share of
        decisions that are the oracle's where a different road leads to each of the two shops; of
        the agent's own lessons, "n_lessons", the share "right" that equals the rule's, and some of
        them, "examples".
    """
    starts, policy = starts_of(case, n_errands, seed), agent.act(lambda event: None)
    # 1. first attempts
    traces = imitate.run(policy, starts, MOST_ACTIONS)
    failed = [trace for trace in traces if not trace.success]
    questions = [question(trace) for trace in failed]
    # 2. lessons after a failure
    own, rule = agent.reflect(questions), by_rule(questions)
    after_failure = {
        "own": own,
        "rule": rule,
        "none": [NOTHING for _ in failed],
        "another's": _others(rule),
        "false": [_against(trace.states[0], has_it=True) for trace in failed],
    }
    # 3. sentences for all
    sold_out = [_against(start, has_it=False) for start in starts]
    for_all = {
        "another's, all": _others(sold_out),
        "false, all": [_against(start, has_it=True) for start in starts],
        "second shop, all": [f"no {s.task.good} at {s.task.shops[0]}" for s in starts],
    }
    # 4. second attempts
    again = {
        name: try_again(policy, starts, _fixed(lessons))[1]
        for name, lessons in after_failure.items()
    }
    second = {name: success_rate(traces) for name, traces in again.items()}
    for name, lessons in for_all.items():
        some = [with_lesson(*pair) for pair in zip(starts, lessons, strict=True)]
        second[name] = success_rate(imitate.run(policy, some, MOST_ACTIONS))
    return {
        "case": case,
        "seed": seed,
        "n": n_errands,
        "first": success_rate(traces),
        "second": second,
        "heeded": _heeded(again["rule"]),
        "n_lessons": len(own),
        "right": fmean(a == b for a, b in zip(own, rule, strict=True)) if own else None,
        "examples": own[:5],
    }


def turns(agent: Agent, n_errands: int, seed: int) -> dict[str, float]:
    """Of first decisions, the share that turns to the second shop, with each kind of lesson.

    Args:
        agent: who decides.
        n_errands, seed: of the case "always"; those without a choice of roads are left out.
    """
    starts = [
        start
        for start in starts_of("always", n_errands, seed)
        if len({start.step_to(shop) for shop in start.task.shops}) == 2
    ]
    lessons: dict[str, list[str]] = {kind: [] for kind in KINDS}
    for n, start in enumerate(starts):
        task, rng = start.task, random.Random(f"turn/{seed}/{n}")
        goods = sorted({good.general for good in task.world.goods} - {task.good})
        places = sorted({place.name for place in task.world.places} - {*task.shops})
        lessons["first shop"].append(f"no {task.good} at {task.shops[0]}")
        lessons["second shop"].append(f"no {task.good} at {task.shops[1]}")
        lessons["another good"].append(f"no {rng.choice(goods)} at {task.shops[0]}")
        lessons["third place"].append(f"no {task.good} at {rng.choice(places)}")
        lessons["no lesson"].append(NOTHING)
    policy = agent.act(lambda event: None)
    shares = {}
    for kind, some in lessons.items():
        states = [with_lesson(*pair) for pair in zip(starts, some, strict=True)]
        to_second = [step_to_take(state, state.task.shops[1]) for state in states]
        actions = policy(states, 0)
        shares[kind] = fmean(a == b for a, b in zip(actions, to_second, strict=True))
    return shares


def step_to_take(state: Errand, shop: str) -> str:
    """The action that leads to the good of a shop."""
    step = state.step_to(shop)
    return f"take {state.task.good}" if step is None else f"go {step}"


def _fixed(lessons: list[str]) -> Any:
    """Who writes these lessons, whatever is asked."""
    return lambda questions: lessons


def _heeded(traces: Sequence[Trace]) -> float | None:
    """The share of decisions that a lesson decides, and that are the oracle's."""
    right = [
        action == right_action(state)
        for trace in traces
        for state, action in zip(trace.states, trace.actions, strict=False)
        if state.lessons
        and not state.has_good
        and len({state.step_to(shop) for shop in state.shops}) == 2
    ]
    return fmean(right) if right else None


def _others(lessons: list[str]) -> list[str]:
    """The next errand's lesson for each."""
    return lessons[1:] + lessons[:1]


def _against(start: Errand, has_it: bool) -> str:
    """A sentence against the first shop that has the good, or has it not."""
    task = start.task
    shop = next(shop for shop in task.shops if (shop in task.stocked) == has_it)
    return f"no {task.good} at {shop}"


# --- tables ---------------------------------------------------------------------------------------
def _print(rows: Sequence[Mapping[str, Any]]) -> None:
    print("success in %, the mean of the seeds (from the lowest to the highest); above the first")
    for agent, case in dict.fromkeys((row["agent"], row["case"]) for row in rows):
        some = [row for row in rows if (row["agent"], row["case"]) == (agent, case)]
        print(f"{agent}, first shop sold out: {case}")
        first = [100 * row["first"] for row in some]
        print(f"{'first attempt':>18}{fmean(first):7.1f}  ({min(first):.0f}–{max(first):.0f})")
        for name in some[0]["second"]:
            each = [100 * row["second"][name] for row in some]
            gain = fmean(each) - fmean(first)
            spread = f"({min(each):.0f}–{max(each):.0f})"
            print(f"{name:>18}{fmean(each):7.1f}  {spread:10}{gain:+7.1f}")
        right = [100 * row["right"] for row in some if row["right"] is not None]
        if right:
            n = sum(row["n_lessons"] for row in some)
            print(f"of {n} own lessons, {fmean(right):.1f} % are those of the rule")
            heeded = [100 * row["heeded"] for row in some]
            print(f"decisions that heed the rule's lesson: {fmean(heeded):.1f} %")


def _print_turns(rows: Sequence[Mapping[str, Any]]) -> None:
    print(
        "first decisions that turn to the second shop, in %; right: 100 in the first column, else 0"
    )
    print(f"{'lesson against':>18}" + "".join(f"{kind:>14}" for kind in KINDS))
    for agent in dict.fromkeys(row["agent"] for row in rows):
        some = [row for row in rows if row["agent"] == agent]
        cells = "".join(f"{100 * fmean(row[kind] for row in some):14.1f}" for kind in KINDS)
        print(f"{agent:>18}{cells}")
