"""Errands as calls of tools: what an agent may call, and demonstrations of a good one.

    view       task: bring plums to Joe … plums: market square, by way of bridge …
    thought    I need plums from market square, by way of bridge.
    call       {"name":"go","arguments":{"place":"bridge"}}
    result     ok

A *demonstration* is one such decision. A model that has learned many of them can be the policy of
an agent: it is shown a view, writes a thought, and then the call (ReAct). Each decision is a
conversation of its own, which begins with the view and has nothing of what was before. So the
agent's context does not grow with the errand.

**Lessons.** After an errand that failed, the agent is shown what went wrong and asked what it
learns. The sentence that it writes stands in the views of its next errand
(`minillm.agents.lessons`).

Paper: Yao et al. 2022, "ReAct: Synergizing Reasoning and Acting in Language Models",
arXiv:2210.03629, section 2 (a thought before an action). From memory.
Differs: each step is shown the present view alone, in place of all thoughts and results so far.

Chapter: 29
"""

import random
from collections.abc import Sequence
from dataclasses import replace

from minillm.agents.loop import OK
from minillm.agents.tools import Call, Toolbox, tool
from minillm.serve.template import Message
from minillm.town.chance import block_rng
from minillm.town.map import Errand, draw_errand, open_shops, right_action
from minillm.town.world import World
from minillm.tune.chat import Conversation

NOTHING = "nothing"  # to be learned
TOO_LATE = "it is too late"  # what went wrong if nothing else did
ASKED = "what do you learn?"
SLIPS = 0.15  # how often an action fails, in demonstrations
PER_BLOCK = 64
MOST_EVENTS = 5  # that somebody is shown who is asked for a lesson


# --- tools ----------------------------------------------------------------------------------------
def go(place: str) -> str:
    """Walk to a place that a road leads to.

    Args:
        place: its name.
    """
    return f"go {place}"


def take(good: str) -> str:
    """Take a good that is here.

    Args:
        good: its name.
    """
    return f"take {good}"


def give(good: str) -> str:
    """Give a good to the person it is for.

    Args:
        good: its name.
    """
    return f"give {good}"


def give_up(reason: str) -> str:
    """End an errand that cannot be done.

    Args:
        reason: why not.
    """
    return f"give_up {reason}"


def errand_tools() -> Toolbox:
    """The tools of an errand; each gives the action that it stands for.

    Example:
        >>> errand_tools().call('{"name":"go","arguments":{"place":"mill"}}').text
        'go mill'
    """
    return Toolbox([tool(function) for function in (go, take, give, give_up)])


def call_of(action: str) -> Call:
    """The call that stands for an action.

    Example:
        >>> call_of("go mill").text
        '{"name":"go","arguments":{"place":"mill"}}'
    """
    verb, _, argument = action.partition(" ")
    parameter = {"go": "place", "give_up": "reason"}.get(verb, "good")
    return Call(verb, {parameter: argument})


# --- demonstrations -------------------------------------------------------------------------------
def thought(errand: Errand) -> str:
    """What somebody would think before the right action.

    Example:
        >>> thought(draw_errand(World(), 1))
        'I need noodles from market square, by way of Duck Lane.'
    """
    task = errand.task
    if errand.has_good:
        step = errand.step_to(task.home)
        way = f"by way of {step}" if step else "here"
        return f"I have {task.good} for {task.person}, {way}."
    shops = open_shops(errand)
    if not shops:
        return f"Nobody has {task.good}."
    step = errand.step_to(shops[0])
    way = f"by way of {step}" if step else "here"
    ruled_out = [shop for shop in errand.shops if shop not in shops]
    lesson = f"The lesson rules out {ruled_out[0]}. " if ruled_out else ""
    return f"{lesson}I need {task.good} from {shops[0]}, {way}."


def demonstration(errand: Errand) -> Conversation:
    """A decision: the view, the thought, the call, and the result of the call.

    Example:
        >>> [each.role for each in demonstration(draw_errand(World(), 1))]
        ['user', 'assistant', 'call', 'result']
    """
    action = right_action(errand)
    return (
        Message("user", errand.view()),
        Message("assistant", thought(errand)),
        Message("call", call_of(action).text),
        Message("result", errand.after(action).remark or OK),
    )


# --- lessons --------------------------------------------------------------------------------------
def question_of(task: str, remarks: Sequence[str]) -> str:
    """What an agent is asked that is to learn from a failure.

    Args:
        task: what was to be done.
        remarks: what went wrong, one after the other; the last few are shown.

    Example:
        >>> print(question_of("bring plums to Joe", ["take plums: no plums at mill"]))
        task: bring plums to Joe
        you failed
        take plums: no plums at mill
        what do you learn?
    """
    return "\n".join([f"task: {task}", "you failed", *remarks[-MOST_EVENTS:], ASKED])


def lesson_of(remarks: Sequence[str]) -> str:
    """What can be learned: which shop is sold out; all else was bad luck.

    Example:
        >>> lesson_of(["go mill: you lost your way", "take plums: no plums at mill"])
        'no plums at mill'
    """
    facts = [remark.partition(": ")[2] for remark in remarks]
    sold_out = (fact for fact in facts if fact.startswith("no ") and " at " in fact)
    return next(sold_out, NOTHING)


# --- a stream of them -----------------------------------------------------------------------------
def block(world: World, index: int, seed: str) -> list[Conversation]:
    """64 decisions in a town, and among them questions about a failure, each with its lesson.

    Of the errands, two thirds have two shops, and a ninth cannot be done (see `number_of_shops`).
    Of five errands three have a lesson that speaks of the good of this one, one has a lesson about
    any good, and one has none. Where one of two shops is sold out, it is more often the first: else
    lessons would seldom matter. Actions fail now and then, so that there are views beside the
    shortest way too.

    Args:
        world: the town.
        index, seed: of the block.

    Raises:
        ValueError: a negative index.
    """
    rng = block_rng(f"errands/{world.seed}/{seed}/{index}", index)
    rows: list[Conversation] = []
    number = 0
    while len(rows) < PER_BLOCK:
        errand = _errand(world, f"{seed}/{index}/{number}", rng)
        number += 1
        # 1. the oracle runs the errand, with its slips
        states, remarks = [errand], []
        while not states[-1].done:
            states.append(states[-1].after(right_action(states[-1])))
            remarks += [states[-1].remark] * bool(states[-1].remark)
        # 2. a few of its views, and the last one always: there are few of its kind
        *others, last = states[:-1]
        some = [*rng.sample(others, min(3, len(others))), last]
        rows += [demonstration(state) for state in some]
        # 3. what is to be learned
        if number % 2 == 0:
            shown = remarks or [TOO_LATE]
            asked, lesson = question_of(str(errand.task), shown), lesson_of(shown[-MOST_EVENTS:])
            rows.append((Message("user", asked), Message("assistant", lesson)))
    return rows[:PER_BLOCK]


def number_of_shops(rng: random.Random) -> tuple[int, int]:
    """How many shops the signs name, and how many have the good; none once in nine times."""
    n_shops = rng.choice((1, 2, 2))
    return n_shops, rng.choice((0, 1, 1)) if n_shops == 1 else rng.choice((1, 1, 2))


def _errand(world: World, seed: str, rng: random.Random) -> Errand:
    """An errand of one of the kinds above."""
    n_shops, n_stocked = number_of_shops(rng)
    errand = draw_errand(
        world, seed, n_shops=n_shops, n_stocked=n_stocked, failure_rate=SLIPS, fewest_steps=3
    )
    task = errand.task
    if n_stocked == 1 and task.shops[0] in task.stocked and rng.random() < 0.5:
        errand = replace(errand, task=replace(task, shops=task.shops[::-1]))
    # a lesson that speaks of this errand, or of another
    empty = [shop for shop in task.shops if shop not in task.stocked]
    place, good = rng.choice(world.places).name, rng.choice(world.goods).general
    own, other = f"no {task.good} at {rng.choice(empty or [place])}", f"no {good} at {place}"
    return replace(errand, lessons=rng.choice([(), (own,), (own,), (own,), (other,)]))
