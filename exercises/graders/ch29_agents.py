"""What `@task` runs for chapter 29.

Chapter: 29
"""

import re
from dataclasses import dataclass, field, replace
from functools import cache, partial
from math import prod
from statistics import fmean

from minillm.agents.imitate import follow
from minillm.agents.loop import carry_out, plan
from minillm.agents.memory import Memory, best, min_max, recency, weighted_sum
from minillm.lab.diagnose import check_sentence, held, split_sentence
from minillm.lab.grade import Diagnosis, Grader
from minillm.town.map import draw_errand, right_action
from minillm.town.world import World


def mistakes_of(function, *rows):
    """A list for a grader: the function with the options of each row, and the row's message."""
    return [(partial(function, **options), message) for options, message in rows]


def with_message(grade, error, message):
    """A grade function that has a message for an exception which an answer lets through."""

    def graded(answer):
        try:
            grade(answer)
        except error:
            raise Diagnosis(message) from None

    return graded


# --- 29.1 -----------------------------------------------------------------------------------------
NO_STEP = "your loop never ends: a call that no tool can read costs a step, too."


class UnreadableCall(ValueError):
    """No tool can read a call."""


@dataclass(frozen=True)
class Walk:
    """A road, on which some steps lead back."""

    place: int
    goal: int
    slips: tuple[int, ...] = ()
    n_steps: int = 0

    @property
    def done(self):
        return self.place == self.goal

    def view(self):
        return f"you are at {self.place} after {self.n_steps} steps, the goal is at {self.goal}"

    def after(self, action):
        step = {"east": 1, "west": -1}.get(action, 0) * (-1 if self.n_steps in self.slips else 1)
        return replace(self, place=self.place + step, n_steps=self.n_steps + 1)


@dataclass
class Walker:
    """An agent that walks to the goal; after some numbers of steps its call is unreadable."""

    stutters: tuple[int, ...] = ()
    calls: int = field(default=0, compare=False)

    def __call__(self, view):
        self.calls += 1
        if self.calls > 60:
            raise Diagnosis(NO_STEP)
        place, n_steps, goal = map(int, re.findall("-?[0-9]+", view))
        call = f"go {'east' if place < goal else 'west'}"
        return f"please {call}" if n_steps in self.stutters else call


@dataclass(frozen=True)
class Reader:
    """Gives the action of a call."""

    def __call__(self, call):
        if not call.startswith("go "):
            raise UnreadableCall(call)
        return call.removeprefix("go ")


def act(decide, read, state, most_steps, *, closed=True, stop=True, more=0, **mistakes):
    """The loop of an agent; the options are mistakes."""
    actions, view = [], state.view()
    while not (stop and state.done) and len(actions) < most_steps + more:
        view = state.view() if closed else view
        call = decide(view)
        try:
            action = read(call)
        except ValueError:
            if mistakes.get("free"):
                continue
            if mistakes.get("crash"):
                raise
            action = ""
        actions.append(call if mistakes.get("call") else action)
        state = state.after(action)
    return actions


WALKS = [
    (Walker(()), Reader(), Walk(0, 3), 9),
    (Walker(()), Reader(), Walk(5, 2, (1, 2)), 9),
    (Walker((1, 2)), Reader(), Walk(0, 3, (0,)), 9),
    (Walker((0,)), Reader(), Walk(0, 5), 4),
    (Walker(()), Reader(), Walk(2, 2), 4),
    (Walker(()), Reader(), Walk(0, 3), 0),
]
WALKS_WRONG = mistakes_of(
    act,
    ({"closed": False}, "the view is read once, before the loop: that is an open loop."),
    ({"stop": False}, "you act when the state is done already; look at state.done first."),
    ({"more": 1}, "you take one action more than `most_steps`."),
    ({"free": True}, NO_STEP),
    ({"crash": True}, "a call that no tool can read ends your loop; use try, except."),
    ({"call": True}, "you return the calls; return the actions that they stand for."),
)


# --- 29.2 -----------------------------------------------------------------------------------------
WHY = "why more than 0.9 ** 10 of them succeed with k = 11"


@cache
def errands():
    """The hundred errands as they are drawn."""
    return [draw_errand(World(), s, failure_rate=0.1, fewest_steps=8) for s in range(100)]


@cache
def success_shares(most_steps=None, failure_rate=0.1, n_plans=99):
    """The shares with k = 1, 3 and 11; the options are mistakes."""
    shares = []
    for k in (1, 3, 11):
        successes = []
        for state in errands():
            most, n_left = most_steps or state.task.n_shortest + 4, n_plans
            task = replace(state.task, most_steps=most, failure_rate=failure_rate)
            state = replace(state, task=task)
            while not state.done and n_left:
                dream = replace(state, task=replace(task, failure_rate=0.0))
                (actions,) = plan(follow(right_action), [dream], k)
                state, n_left = carry_out(actions, state).states[-1], n_left - 1
            successes.append(state.success)
        shares.append(fmean(successes))
    return shares


ERRANDS_WRONG = [
    (
        lambda: success_shares()[:1] * 3,
        "all are as with k = 1: you look before each action, or plan in a copy with the same "
        "failures, so that the plan knows them; switch them off there.",
    ),
    *mistakes_of(
        success_shares,
        ({"n_plans": 1}, "you plan once only; after k actions look and plan anew."),
        ({"most_steps": 40}, "set most_steps to n_shortest + 4; you allow more."),
        ({"failure_rate": 0.0}, "nothing fails; only the copy is without failures."),
    ),
]


def with_sentence(shares, sentence="because it fails now and then"):
    """An answer that gives these shares."""
    return lambda: (*shares(), sentence)


def grade_look_every(answer):
    """Three shares within 0.015, and a sentence."""
    got, sentence = split_sentence(answer(), n_numbers=3)

    def near(shares):
        return all(abs(own - each) <= 0.015 for own, each in zip(got, shares, strict=True))

    if not near(success_shares()):
        for mistake, message in ERRANDS_WRONG:
            if near(mistake()):
                raise Diagnosis(message)
        raise Diagnosis(
            f"{got[0]:.2f}, {got[1]:.2f} and {got[2]:.2f} are not all right: copy the errand, but "
            "without failures; plan k actions there; do them; and so on until it is done."
        )
    check_sentence(sentence, WHY)


# --- 29.3 -----------------------------------------------------------------------------------------
EQUAL = "where all values are equal, you divide by highest - lowest, which is 0."


def pick_by_score(memories, relevances, now, weights, most, *, scale=min_max, **mistakes):
    """The numbers of the memories that are shown; the options are mistakes."""
    if mistakes.get("created"):
        memories = [replace(memory, last_seen_at=None) for memory in memories]
    sign = -1 if mistakes.get("oldest") else 1
    recencies = [sign * value for value in recency(memories, now)]
    columns = [scale(each) for each in (recencies, [m.importance for m in memories], relevances)]
    scores = weighted_sum(columns, weights)
    if mistakes.get("product"):
        scores = [prod(row) for row in zip(*columns, strict=True)]
    shown = []
    for number in best(scores, len(scores)):
        length = len(memories[number].text)
        if length <= most:
            shown.append(number)
            most -= length
        elif mistakes.get("stop"):
            break
    return shown


def divided(values):
    """Min-max scaling without thinking of equal values."""
    return [(value - min(values)) / (max(values) - min(values)) for value in values]


DAYS = [
    Memory("Bao sleeps", 0, 1),
    Memory("the mill is shut", 30, 2, last_seen_at=99),
    Memory("Joe is going to paint the mill", 70, 4),
    Memory("Mei is going to marry", 90, 8),
    Memory("the desk is idle", 95, 1),
    Memory("thieves break in at the mill", 10, 9),
]
MILL = [0.0, 0.62, 0.45, 0.12, 0.0, 0.4]
ALIKE = [replace(memory, importance=3) for memory in DAYS]
STREAMS = [
    (DAYS, MILL, 100, (1, 1, 1), 70),
    (DAYS, MILL, 100, (1, 1, 1), 1000),
    (DAYS, MILL, 100, (0.5, 2, 3), 60),
    (DAYS, MILL, 100, (3, 0.5, 0.5), 45),
    (ALIKE, MILL, 120, (1, 1, 1), 40),
    (DAYS[:1], MILL[:1], 50, (1, 2, 3), 30),
    ([], [], 50, (1, 1, 1), 30),
]
STREAMS_WRONG = mistakes_of(
    pick_by_score,
    ({"oldest": True}, "the memory that was seen longest ago gets your highest recency."),
    ({"created": True}, "recency is by the hours since a memory was last seen."),
    ({"scale": list}, "importance goes to 10, relevance to 1: first bring each to 0 … 1."),
    ({"product": True}, "add the three, each times its weight; you multiply them."),
    ({"stop": True}, "where one memory is too long, a shorter one may still fit: go on."),
    ({"scale": divided}, EQUAL),
)


# --- 29.4 -----------------------------------------------------------------------------------------
def find_broken(programs, *, words=None, verbs=("have",), alone=True, **mistakes):
    """Skills that cannot work, with the reason; the options are mistakes."""
    below, calls = {}, {}
    for name, lines in programs.items():
        rows = [line.split() for line in lines]
        rows = [row[2:] if row[0] == "have" else row[1:] for row in rows if row[0] in verbs]
        calls[name] = {" ".join(row[:words]) for row in rows} - (set() if alone else {name})
    for name in programs:
        below[name], waiting = set(), [name]
        while waiting:
            new = calls.get(waiting.pop(), set()) - below[name]
            below[name] |= new
            waiting += new
    broken = []
    for name in sorted(programs):
        reached = {name} if mistakes.get("own") else {name} | below[name]
        is_circle = any(other in below.get(other, ()) for other in reached)
        if mistakes.get("twice"):
            n_calls = sum(len(calls.get(other, ())) for other in reached)
            is_circle = n_calls > len(below[name] - {name})
        if (calls if mistakes.get("direct") else below)[name] - programs.keys():
            broken.append((name, "missing"))
        elif is_circle:
            broken.append((name, "circle"))
    return broken


WOOD = {"wood": ["reach wood", "gather wood"], "plank": ["have 1 wood", "craft plank"]}
TABLE = WOOD | {"table": ["have 4 plank", "craft table"], "stick": ["have 1 plank", "craft stick"]}
LIBRARIES = [
    (TABLE | {"wooden pickaxe": ["have 1 table", "have 2 plank", "have 1 stick"]},),
    ({"plank": ["have 1 wood", "craft plank"]},),
    (TABLE | {"stone pickaxe": ["have 1 table"], "ore": ["have 1 stone pickaxe", "gather ore"]},),
    (WOOD | {"kiln": ["have 3 stone"], "brick": ["have 1 kiln"], "glass": ["have 1 brick"]},),
    ({"a": ["have 1 b"], "b": ["have 1 c"], "c": ["have 2 b"], "d": ["craft d"]},),
    ({"rope": ["have 2 rope", "craft rope"], "net": ["have 1 rope", "have 1 reed"]},),
    ({},),
]
LIBRARIES_WRONG = mistakes_of(
    find_broken,
    ({"direct": True}, "a skill that is missing further down breaks all that lead to it."),
    ({"twice": True}, "a skill that is called from two sides is not yet a circle."),
    ({"own": True}, "a skill that leads into a circle cannot work, even if not on it itself."),
    ({"alone": False}, "a skill that calls itself is a circle, too."),
    ({"words": 1}, "a name can have several words, such as stone pickaxe."),
    ({"verbs": ("have", "gather", "craft")}, "only lines that begin with have call a skill."),
)


GRADERS = {
    "29.1": Grader(
        function="run_agent",
        level="everyone",
        grade=with_message(held(act, WALKS, WALKS_WRONG), UnreadableCall, WALKS_WRONG[4][1]),
        wrong=WALKS_WRONG,
        target="minillm.agents.imitate.run",
        hints=(
            "A turn is: read the view, decide, read the call, act. All four stand in the loop.",
            "while not state.done and len(actions) < most_steps: … state = state.after(action)",
            'try: action = read(call), and except ValueError: action = "". Go on as always.',
        ),
    ),
    "29.2": Grader(
        function="look_every",
        level="stretch",
        grade=grade_look_every,
        wrong=[
            *((with_sentence(shares), message) for shares, message in ERRANDS_WRONG),
            (with_sentence(success_shares, ""), f"now say in a sentence {WHY}."),
        ],
        hints=(
            "The start: replace(errand, task=replace(errand.task, most_steps=…)).",
            "The copy: replace(state, task=replace(state.task, failure_rate=0.0)).",
            "actions = plan(oracle, [copy], k)[0]; the next state is "
            "carry_out(actions, state).last. Look again also after a plan's end, until it is done.",
        ),
        model_answer=(
            "0.9 ** 10 = 0.35 is the share of errands in which nothing fails. But the others have "
            "four steps left, and look again when the plan is through. If one of the last actions "
            "failed, as when the good slips from one's hands, that is enough to repair it. An "
            "early failure makes the rest of the plan useless, and four steps do not repair that."
        ),
    ),
    "29.3": Grader(
        function="remember",
        level="everyone",
        grade=with_message(held(pick_by_score, STREAMS, STREAMS_WRONG), ZeroDivisionError, EQUAL),
        wrong=STREAMS_WRONG,
        target="minillm.agents.memory.retrieve",
        hints=(
            "Make three lists with a number for each memory, and scale each list by itself.",
            "(value - lowest) / (highest - lowest) is from 0 to 1; if all are equal, any constant.",
            "Sort the numbers by -score. If a text fits, take it; less is left then.",
        ),
    ),
    "29.4": Grader(
        function="broken_skills",
        level="stretch",
        grade=held(find_broken, LIBRARIES, LIBRARIES_WRONG),
        wrong=LIBRARIES_WRONG,
        hints=(
            "First get the set of names that a program calls: line.split(maxsplit=2)[2].",
            "Then, for each skill, all names below it: what it calls, what those call, and so on.",
            "A name below it that is no key: missing. One that stands below itself: circle.",
        ),
    ),
}
