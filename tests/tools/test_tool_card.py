"""What the card of a model with tools says is what was counted."""

import pytest

from minillm.agents.tools import Call
from minillm.model.attention import AttentionConfig
from minillm.model.config import TransformerConfig
from minillm.recipes.tool_turns import turn
from minillm.recipes.town_tools import town_toolbox
from minillm.serve.template import Message
from minillm.text.tokenizer import Tokenizer
from minillm.town.world import World
from minillm.tune.chat import TOOL_TEMPLATE, turn_messages
from tools import tool_card
from tools.tool_card import Asker

TOOLBOX = town_toolbox(World(tool_card.TOWN))
TOKENIZER = Tokenizer((), TOOL_TEMPLATE.special_tokens)
MODEL = TransformerConfig(
    vocab_size=262, context_length=256, d_model=16, n_layers=1, mixer=AttentionConfig(n_heads=2)
).build(seed=0)
ASKER = Asker(model=MODEL, tokenizer=TOKENIZER, template=TOOL_TEMPLATE, toolbox=TOOLBOX)


@pytest.mark.parametrize("language", ["en", "zh"])
def test_right_turns_are_right_and_calls_are_counted_where_they_are_needed(language):
    for every in (tool_card.sums(language, held_out=True), tool_card.look_ups(language)):
        talks = [turn_messages(turn(each, TOOLBOX)) for each in every]
        assert all(map(tool_card.is_right, every, talks))
        n_good, n_all = tool_card.n_readable(ASKER, talks)
        assert n_good == n_all == sum(map(tool_card.n_calls, talks)) > 0
    sums = tool_card.sums(language, held_out=False)
    right = [turn_messages(turn(each, TOOLBOX)) for each in sums]
    needs = sum(each.needs_call for each in sums) / len(sums)
    assert tool_card.f1(sums, right) == 1
    always = [[Message("call", "{"), Message("result", "?")] for _ in sums]
    assert tool_card.f1(sums, always) == pytest.approx(2 * needs / (1 + needs))
    assert tool_card.n_readable(ASKER, always) == (0, len(sums))


def test_a_call_with_an_argument_too_many_cannot_be_read():
    call = Call("calculate", {"expression": "3 * 4", "digits": 2}).text
    assert tool_card.n_readable(ASKER, [[Message("call", call)]]) == (0, 1)


@pytest.mark.parametrize("way", tool_card.WAYS)
def test_a_model_that_has_learned_nothing_is_right_nowhere_and_comes_to_an_end(way):
    questions = tool_card.sums("en", held_out=False)[:3]
    talks = ASKER.talks([each.text for each in questions], way)
    assert [talk[0].content for talk in talks] == [each.text for each in questions]
    assert not any(map(tool_card.is_right, questions, talks))
