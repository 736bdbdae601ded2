"""Errands in towns that no agent has learned from, and the agents that run them.

The oracle is here as an agent too. It shows what can be reached by who acts on views alone.

Chapter: app
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache, partial
from typing import Any, final

from minillm.agents.errands import call_of, errand_tools, lesson_of, thought
from minillm.agents.imitate import Policy
from minillm.agents.lessons import Reflect, write_by_model
from minillm.agents.loop import OK, Decide, Decision, Event, by_model, policy
from minillm.town.map import Errand, draw_errand, right_action
from minillm.town.world import World
from minillm.zoo import checkpoints

AGENT = "agent-1m"
N_TOWNS = 10  # of each seed

Note = Callable[[Event], None]


@final
@dataclass(frozen=True)
class Agent:
    """Who runs errands.

    Args:
        act: the policy, which reports each event.
        reflect: writes lessons.
        act_freely: the same without a constraint on calls; None for who cannot err.
    """

    act: Callable[[Note], Policy]
    reflect: Reflect
    act_freely: Callable[[Note], Policy] | None = None


def oracle() -> Agent:
    """The agent that the model has learned from; its lessons are those of the rule."""

    def act(note: Note) -> Policy:
        def policy(states: Sequence[Errand], n_actions: int) -> list[str]:
            actions = [right_action(state) for state in states]
            for state, action in zip(states, actions, strict=True):
                call, remark = call_of(action).text, state.after(action).remark
                note(Event(state.view(), thought(state), call, remark or OK))
            return actions

        return policy

    return Agent(act, by_rule)


def by_rule(questions: Sequence[str]) -> list[str]:
    """The lessons that the rule writes; a question shows what went wrong line by line.

    Example:
        >>> by_rule(["task: bring plums to Joe\\nyou failed\\ntake plums: no plums at mill"])
        ['no plums at mill']
    """
    return [lesson_of(question.splitlines()) for question in questions]


def open_agent() -> Agent:
    """The shipped agent, a model."""
    model, tokenizer = checkpoints.load(AGENT)
    toolbox = errand_tools()

    def act(constrained: bool) -> Callable[[Note], Policy]:
        decide = once(by_model(model, tokenizer, toolbox, constrained=constrained))
        return partial(policy, decide, toolbox)

    return Agent(act(True), write_by_model(model, tokenizer), act(False))


def once(decide: Decide) -> Decide:
    """The same agent, who remembers what it decided: it is greedy, and would decide so again.

    Args:
        decide: is asked once about each view.
    """
    decided: dict[str, Decision] = {}

    def remembering(views: Sequence[str]) -> list[Decision]:
        new = [view for view in dict.fromkeys(views) if view not in decided]
        decided.update(zip(new, decide(new), strict=True))
        return [decided[view] for view in views]

    return remembering


def errands(seed: int, n_errands: int, town: str | None = None, **options: Any) -> list[Errand]:
    """Errands by chance, in ten towns in turn.

    Args:
        seed: of the towns and the errands.
        n_errands: how many.
        town: the seed of a single town for all; None for ten that no agent has learned from.
        options: of `draw_errand`.
    """
    towns = [f"exam {seed}.{n}" for n in range(N_TOWNS)] if town is None else [town]
    return [
        draw_errand(_town(towns[n % len(towns)]), f"exam/{seed}/{n}", **options)
        for n in range(n_errands)
    ]


@cache
def _town(seed: str) -> World:
    """Only one of each: a world finds its roads once."""
    return World(seed)
