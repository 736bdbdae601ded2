"""Turns with calls: calls where they are needed, and the results of the tools themselves."""

import pytest

from minillm.recipes.tool_turns import questions, right_calls, tool_turns, turn
from minillm.recipes.town_tools import town_toolbox
from minillm.town.world import World

WORLD = World("another town")


@pytest.mark.parametrize("kind", ["sum", "look-up"])
@pytest.mark.parametrize("language", ["en", "zh"])
def test_a_turn_has_the_right_calls_and_what_the_tools_give(kind, language):
    toolbox = town_toolbox(WORLD)
    every = questions(kind, WORLD, language, "a")
    for question, (asks, *called, answer) in zip(
        every, tool_turns(kind, WORLD, language, "a"), strict=True
    ):
        assert (asks, answer) == (question.text, question.answer)
        assert called[::2] == [each.text for each in right_calls(question)]
        assert called[1::2] == [toolbox.call(text).text for text in called[::2]]
    numbers = {len(right_calls(question)) for question in every}
    assert numbers == ({0, 1} if kind == "sum" else {1, 2})


def test_a_product_by_hand():
    product = next(each for each in questions("sum", WORLD, "en", "a") if each.needs_call)
    a, b = product.expression.split(" * ")
    call = f'{{"name":"calculate","arguments":{{"expression":"{a} * {b}"}}}}'
    result = str(int(a) * int(b))
    assert turn(product, town_toolbox(WORLD)) == (product.text, call, result, result)
