"""Turns of a conversation in which tools are called: what is asked, call, result, answer.

    sum       "What is 347 times 582?", "{…}", "201954", "201954"
              "Mei says 347 times 582. Who says it?", "Mei"
    look-up   "Where does Mei live?", "{…}", "Plum Lane", "The home of Mei is Plum Lane."

The results are not written here: the tools are run.

Chapter: app
"""

from collections.abc import Sequence

from minillm.agents.tools import Call, Toolbox
from minillm.recipes.look_ups import LookUpSource
from minillm.recipes.look_ups import Question as LookUp
from minillm.recipes.town_tools import town_toolbox
from minillm.town.sums import Question as Sum
from minillm.town.sums import SumSource
from minillm.town.world import World

KINDS = {"sum": SumSource, "look-up": LookUpSource}


def questions(kind: str, world: World, language: str, seed: str) -> list[Sum] | list[LookUp]:
    """64 questions about a town.

    Args:
        kind: "sum" or "look-up".
        world: the town.
        language: "en" or "zh".
        seed: of the stream.
    """
    return KINDS[kind](world, language).block(0, seed)


def right_calls(question: Sum | LookUp) -> list[Call]:
    """What must be called to answer a question, one after the other; nothing for some.

    Example:
        >>> question = LookUp("Who?", "en", "one hop", (("Mei", "mother"),), "Tan.")
        >>> [each.text for each in right_calls(question)]
        ['{"name":"look_up","arguments":{"person":"Mei","relation":"mother"}}']
    """
    if isinstance(question, LookUp):
        return [
            Call("look_up", {"person": person, "relation": relation})
            for person, relation in question.calls
        ]
    if question.expression is None:
        return []
    return [Call("calculate", {"expression": question.expression})]


def turn(question: Sum | LookUp, toolbox: Toolbox) -> Sequence[str]:
    """A question, its calls with the results that they have in this town, and its answer."""
    called = ((each.text, toolbox.call(each).text) for each in right_calls(question))
    return (question.text, *(text for pair in called for text in pair), question.answer)


def tool_turns(kind: str, world: World, language: str, seed: str) -> list[Sequence[str]]:
    """64 turns of a town; arguments as of `questions`."""
    toolbox = town_toolbox(world)
    return [turn(question, toolbox) for question in questions(kind, world, language, seed)]
