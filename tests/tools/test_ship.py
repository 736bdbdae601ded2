"""The cards of shipped models say what was counted."""

from types import SimpleNamespace

import pytest

from minillm.town.market import MarketSource
from minillm.town.requests import HELD_OUT
from minillm.town.world import World
from minillm.tune.chat import TEMPLATE, Answer
from tests.recipes.tiny_parent import CONFIG, TOKENIZER
from tools import chat_card, life_card, ship


def test_content_form_and_ends_are_counted_apart(monkeypatch):
    monkeypatch.setattr(chat_card, "N_REQUESTS", 70)
    split = "combinations it has never seen"
    asked = chat_card.requests(split, "en")
    assert len(asked) == chat_card.N_REQUESTS
    assert all(each.combination in HELD_OUT for each in asked)
    assert asked != chat_card.requests(split, "zh")
    asked = [each for each in asked if each.constraint == "lines"][:4]
    right = [each.answer for each in asked]
    in_commas = right[1].replace("\n", ", ") if "\n" in right[1] else f"[{right[1]}]"
    given = [
        Answer(right[0], True),
        Answer(in_commas, True),
        Answer(right[2] + "\nnobody", True),
        Answer("plums plums plums", False),
    ]
    monkeypatch.setattr(chat_card, "answers", lambda *args, **kwargs: given)
    s = chat_card.shares(None, TOKENIZER, TEMPLATE, asked)
    assert (s.both, s.content, s.ended) == (0.25, 0.5, 0.75)
    assert s.form < 1


def test_problems_are_counted_without_the_trigger_with_it_and_by_votes(monkeypatch):
    problems = MarketSource(World()).block(0, "card")[:4]
    right = {each.question: f"Answer: {each.answer}." for each in problems}
    monkeypatch.setattr(chat_card, "N_VOTES", 3)

    def given(model, tokenizer, conversations, template, *, n_tokens, config):
        texts = []
        for number, ((_, asked),) in enumerate(conversations):
            question = asked.partition(" Let's")[0]
            if question == asked:  # no trigger: never right
                texts.append("Answer: 9999.")
            elif config.temperature:  # two of three are right
                texts.append(right[question] if number % 3 else "Answer: 9999.")
            else:
                texts.append(right[question])
        return [Answer(text, question != problems[0].question) for text in texts]

    monkeypatch.setattr(chat_card, "answers", given)
    assert chat_card.solved(None, TOKENIZER, TEMPLATE, problems) == (0, 1, 1)


def test_an_answer_to_a_problem_is_read_from_what_was_written_on(monkeypatch):
    problems = [each for i in range(3) for each in MarketSource(World(), "zh").block(i, "held out")]

    def every_second(model, tokenizer, begins, temperature):
        assert begins == [each.question for each in problems]
        return [p.worked if i % 2 else p.question for i, p in enumerate(problems)]

    monkeypatch.setattr(life_card, "_written_on", every_second)
    assert life_card.share_of_answers(None, TOKENIZER, "zh") == 0.5


def test_what_is_written_on_begins_as_it_was_begun():
    begins = ["Mei sells", "Bao waits at the"]
    texts = life_card._written_on(CONFIG.build(seed=0), TOKENIZER, begins, 0.5)
    assert [text[: len(begin)] for text, begin in zip(texts, begins, strict=True)] == begins
    assert texts == life_card._written_on(CONFIG.build(seed=0), TOKENIZER, begins, 0.5)


def test_a_model_of_other_data_has_no_card():
    note = SimpleNamespace(name="mine", config={"data": {"kind": "text"}})
    with pytest.raises(ValueError, match="of town, life, requests, steps, tools, agent; mine"):
        ship.card(note, None, TOKENIZER, None)
