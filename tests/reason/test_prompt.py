"""Prompts for a chain of thought: triggers, labels, examples, and what the town's texts have."""

import pytest

from minillm.reason.prompt import few_shot, language_of, with_label, with_trigger
from minillm.town.market import MarketSource, read_answer
from minillm.town.world import World

EN, ZH = (MarketSource(World(), language).block(0) for language in ("en", "zh"))


def test_a_trigger_stands_behind_the_question_in_its_language():
    assert with_trigger("Why? ") == "Why? Let's think step by step."
    assert with_trigger("为什么？") == "为什么？请一步一步地思考。"
    assert with_trigger("Why?", "zh") == "Why?请一步一步地思考。"


@pytest.mark.parametrize("problem", [*EN[:8], *ZH[:8]])
def test_a_label_is_how_the_town_goes_on_after_a_question(problem):
    for steps, text in ((True, problem.worked), (False, problem.direct)):
        begun = with_label(problem.question, problem.language, steps=steps)
        assert text.startswith(begun)
        assert text[len(begun) :].strip()[0].isdigit()
    assert language_of(problem.question) == problem.language


@pytest.mark.parametrize("steps", [True, False])
def test_examples_stand_before_the_question_in_their_order_and_have_steps_or_none(steps):
    text = few_shot(EN[:3], EN[3].question, steps=steps)
    *solved, asked = text.split("\n\n")
    assert asked == EN[3].question
    assert solved == [each.worked if steps else each.direct for each in EN[:3]]
    assert [read_answer(each) for each in solved] == [each.answer for each in EN[:3]]
    assert ("Steps:" in text) == steps


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: with_trigger(" "), "the question is empty"),
        (lambda: with_label("", steps=True), "the question is empty"),
        (lambda: few_shot(EN[:1], "\n", steps=True), "the question is empty"),
        (lambda: with_trigger("Why?", "fr"), "language must be .*; got 'fr'"),
    ],
)
def test_what_cannot_be_asked_is_refused(make, message):
    with pytest.raises(ValueError, match=message):
        make()
