import re
from collections import Counter
from itertools import islice

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from minillm.town import sums
from minillm.town.sums import (
    KINDS,
    STATEMENTS,
    Score,
    SumSource,
    SumWords,
    is_held_out,
    read_answer,
    score,
    wordings,
)
from minillm.town.world import World

SOURCES = {language: SumSource(World(), language) for language in STATEMENTS}
QUESTIONS = {
    (language, held_out): [*islice(source.questions("test", held_out=held_out), 1280)]
    for language, source in SOURCES.items()
    for held_out in (False, True)
}
ALL = [question for questions in QUESTIONS.values() for question in questions]


# --- by hand --------------------------------------------------------------------------------------
@pytest.mark.parametrize("question", ALL[::211], ids=lambda question: question.kind)
def test_answers_can_be_checked_on_the_text(question):
    numbers = [*map(int, re.findall(r"\d+", question.text))]
    large = [number for number in numbers if number > 9]
    match question.kind:
        case "product" | "tens":
            assert int(question.answer) == large[0] * large[1]
            assert (large[1] in sums.TENS) == (question.kind == "tens")
        case "given":
            second = "second" in question.text or "第二个" in question.text
            assert int(question.answer) == large[second]
        case "larger":
            assert int(question.answer) == max(large)
        case "often":
            assert [int(question.answer)] == [number for number in numbers if number < 10]
        case "who":
            assert question.answer in question.text


def test_half_of_all_questions_need_a_calculator():
    for questions in QUESTIONS.values():
        kinds = Counter(question.kind for question in questions)
        assert kinds["product"] == sum(question.needs_call for question in questions)
        assert 0.45 < kinds["product"] / len(questions) < 0.55
        assert all(0.07 < kinds[kind] / len(questions) < 0.13 for kind in KINDS[1:])


def test_no_word_is_used_by_products_alone():
    for language in SOURCES:
        questions = QUESTIONS[language, False]
        needing, others = (
            {
                word
                for q in questions
                if q.needs_call is need
                for word in re.findall(r"[^\d\W]+", q.text)
            }
            for need in (True, False)
        )
        assert needing <= others


def test_a_score_by_hand():
    needing = [q for q in ALL if q.needs_call][:2]
    others = [q for q in ALL if not q.needs_call][:2]
    questions = needing + others
    texts = [
        f"[ 1 * 1 ] 1 ; {' '.join(needing[0].answer)} .",  # a call, and the right answer
        "1 .",  # no call where one is needed
        f"[ 1 * 1 ] 1 ; {others[0].answer} .",  # a call that nobody needs
        f"{others[1].answer}",  # no full stop: no answer
    ]
    assert score(questions, texts) == Score(0.5, 0.5, 0.5, 0.5)
    assert score(questions, texts).f1 == 0.5
    assert score(questions, ["."] * 4) == Score(0, 0, 0, 0)
    assert score(questions, ["."] * 4).f1 == 0


def test_a_model_that_writes_the_turns_has_all_points():
    questions = QUESTIONS["zh", True]
    words = SumWords(SOURCES["zh"])
    texts = [words.decode(words.encode(" ".join(q.turns()[1:]))) for q in questions]
    assert score(questions, texts) == Score(1, 1, 1, 1)


# --- twin -----------------------------------------------------------------------------------------
def test_masked_and_unmasked_rows_have_the_same_words():
    for question in ALL[:200]:
        assert " ".join(question.turns("masked")) == " ".join(question.turns("unmasked"))
        assert len(question.turns("masked")) == (4 if question.needs_call else 2)


# --- law ------------------------------------------------------------------------------------------
@settings(max_examples=10)
@given(st.integers(0, 10**6), st.sampled_from([*SOURCES]), st.booleans())
def test_blocks_are_a_function_of_their_number_and_words_know_them(index, language, held_out):
    source = SOURCES[language]
    block = source.block(index, held_out=held_out)
    assert block == SumSource(World(), language).block(index, held_out=held_out)
    words = SumWords(source)
    for question in block:
        text = " ".join(question.turns())
        assert words.decode(words.encode(text)).split() == re.findall(
            r"[A-Za-z]+|\S", re.sub(r"(\d)", r"\1 ", text)
        )
        assert 0 not in words.encode(text)


def test_one_pair_in_five_is_held_out_and_every_part_of_it_is_known():
    for kind in KINDS:
        held_out = [pair for pair in wordings(kind) if is_held_out(kind, pair)]
        seen = [pair for pair in wordings(kind) if pair not in held_out]
        assert 5 * len(held_out) == len(wordings(kind))
        for side in (0, 1):
            assert {pair[side] for pair in held_out} <= {pair[side] for pair in seen}


def test_no_wording_is_in_both_streams():
    for language in SOURCES:
        plain = [
            {re.sub(r"\d+", "1", q.text) for q in QUESTIONS[language, held_out]}
            for held_out in (False, True)
        ]
        assert not plain[0] & plain[1]


# --- bad input ------------------------------------------------------------------------------------
@pytest.mark.parametrize(
    ("attempt", "match"),
    [
        (lambda: SumSource(World(), "de"), 'must be "en" or "zh"; got \'de\''),
        (lambda: SOURCES["en"].block(-1), "counted from 0; got -1"),
        (lambda: SumWords(SOURCES["en"]).encode("Mei sings"), "got 'sings'"),
        (lambda: ALL[0].turns("loud"), "bare, masked, unmasked; got 'loud'"),
        (lambda: score(ALL[:1], ["1 ."]), "with and without need of a call"),
    ],
)
def test_refusals(attempt, match):
    with pytest.raises(ValueError, match=match):
        attempt()


def test_what_is_no_answer():
    assert read_answer("1 2 .") == "12"
    assert read_answer("[ 3 * 4 ] 1 2 ; .") is None
    assert read_answer("[ 3 * 4 .") is None
    assert read_answer("") is None
