"""Letters: what is asked for is given, what is said is so, in both languages."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from minillm.town.facts import FactTable
from minillm.town.letters import KINDS, LetterSource
from minillm.town.world import World

WORLD = World()
TABLE = FactTable(WORLD)
SOURCES = {language: LetterSource(WORLD, language) for language in ("en", "zh")}
LETTERS = [letter for index in range(4) for letter in SOURCES["en"].block(index, "tests")]
blocks = st.tuples(st.integers(0, 10**6), st.integers(0, 10**6), st.sampled_from(["en", "zh"]))


# --- by hand -----------------------------------------------------------------------------------
def test_the_first_letter_of_the_village():
    letter = SOURCES["en"].block(0)[0]
    assert letter.text == (
        "To Joe:\nWho sells pencils? The birthplace of Jiwu is the forge.\nGreetings, Hu.\n\n"
        "To Hu:\nWen sells pencils.\nGreetings, Joe."
    )
    assert (letter.sender, letter.receiver, letter.kind) == ("Hu", "Joe", "seller")
    assert SOURCES["zh"].block(0)[0].text == (
        "给阿乔：\n谁卖铅笔？吉梧的出生地是铁匠铺。\n祝好，老胡。\n\n给老胡：\n老文卖铅笔。\n祝好，阿乔。"
    )


def test_all_kinds_of_requests_occur():
    assert {letter.kind for letter in LETTERS} == set(KINDS)


# --- twin --------------------------------------------------------------------------------------
def test_answers_are_what_the_town_says():
    for letter in LETTERS:
        about = letter.about[0]
        match letter.kind:
            case "things":
                assert letter.answer == letter.about
            case "cost":
                assert letter.answer == (str(WORLD.good(about).price),)
            case "seller":
                assert about in WORLD.person(letter.answer[0]).sells
            case "home":
                assert letter.answer == (WORLD.person(about).home,)


# --- law ---------------------------------------------------------------------------------------
@settings(max_examples=8, deadline=None)
@given(blocks)
def test_a_letter_tells_its_fact_and_the_reply_gives_what_was_asked_for(block):
    index, seed, language = block
    for letter in SOURCES[language].block(index, seed):
        asks, gives = letter.text.split("\n\n")
        assert letter.fact in TABLE.facts
        assert any(TABLE.say(letter.fact, language, way) in asks for way in range(4))
        two = [WORLD.person(name) for name in (letter.sender, letter.receiver)]
        for person in two:
            name = person.chinese if language == "zh" else person.name
            assert name in asks
            assert name in gives
        if letter.kind == "things":
            goods = [WORLD.good(name) for name in letter.about]
            names = [good.chinese if language == "zh" else good.general for good in goods]
            comma, joins = ("、", "和") if language == "zh" else (", ", " and ")
            listed = comma.join(names[:-1]) + joins * (len(names) > 1) + names[-1]
            assert listed in asks
            assert listed in gives


@settings(max_examples=5, deadline=None)
@given(blocks)
def test_a_block_depends_on_seed_and_index_alone_and_is_as_true_in_chinese(block):
    index, seed, _ = block
    english, chinese = (SOURCES[language].block(index, seed) for language in ("en", "zh"))
    assert english == LetterSource(WORLD).block(index, seed) != SOURCES["en"].block(index + 1, seed)
    for a, b in zip(english, chinese, strict=True):
        assert (a.sender, a.receiver, a.fact, a.kind) == (b.sender, b.receiver, b.fact, b.kind)
        assert (a.about, a.answer) == (b.about, b.answer)


# --- what stops it -----------------------------------------------------------------------------
def test_other_languages_and_negative_blocks_are_refused():
    with pytest.raises(ValueError, match='must be "en" or "zh"; got \'de\''):
        LetterSource(WORLD, "de")
    with pytest.raises(ValueError, match="index must be at least 0; got -1"):
        SOURCES["en"].block(-1)
