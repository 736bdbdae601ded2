"""Texts about lists: what they say is so, in both languages, and nobody asks for anything."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from minillm.town.list_stories import SENTENCES, ListSource, say
from minillm.town.lists import FORMS, SEPARATOR, Item, answer_language, write
from minillm.town.request_words import OPERATIONS
from minillm.town.requests import KINDS, execute
from minillm.town.world import World

WORLD = World()
SOURCES = {language: ListSource(WORLD, language) for language in ("en", "zh")}
PLUMS, PEARS, BUNS = ITEMS = Item("plums", "李子"), Item("pears", "梨"), Item("buns", "小圆面包")
blocks = st.tuples(st.integers(0, 10**6), st.integers(0, 10**6), st.sampled_from(["en", "zh"]))


# --- by hand -----------------------------------------------------------------------------------
@pytest.mark.parametrize(
    ("operation", "argument", "english", "chinese"),
    [
        ("all", (), "Bao copies it: plums, pears, buns.", "大宝抄了一遍：李子、梨、小圆面包。"),
        ("count", (), "There are three.", "一共三个。"),
        ("first", (2,), "The first two: plums, pears.", "前两个：李子、梨。"),
        ("nth", (3,), "The third: buns.", "第三个：小圆面包。"),
        (
            "swap",
            (PLUMS, BUNS),
            "Plums and buns change places: buns, pears, plums.",
            "李子和小圆面包对调：小圆面包、梨、李子。",
        ),
        ("contains", (PEARS,), "Does it name pears? Yes.", "有梨吗？是。"),
        ("translated", (), "In Chinese: 李子、梨、小圆面包.", "英文：plums, pears, buns。"),
    ],
)
def test_what_is_so_of_a_list(operation, argument, english, chinese):
    assert say(operation, argument, ITEMS, "en", "Bao") == english
    assert say(operation, argument, ITEMS, "zh", "大宝") == chinese


def test_everything_that_a_request_can_ask_for_is_said_of_some_list():
    assert set(SENTENCES["en"]) == set(SENTENCES["zh"]) == {*KINDS, "translated"}
    stories = [story for index in range(8) for story in SOURCES["en"].block(index)]
    assert {operation for story in stories for operation, _ in story.sentences} == set(
        SENTENCES["en"]
    )
    assert {story.form for story in stories} == set(FORMS)


# --- law ---------------------------------------------------------------------------------------
@settings(max_examples=15, deadline=None)
@given(blocks)
def test_a_text_holds_its_list_and_what_comes_out_of_it(block):
    index, seed, language = block
    for story in SOURCES[language].block(index, seed):
        spoken = answer_language(language, story.form)
        assert write([item.say(spoken) for item in story.items], story.form, spoken) in story.text
        assert 2 <= len(story.sentences) <= 4
        for operation, argument in story.sentences:
            if operation not in ("contains", "translated"):  # "Yes" begins a sentence
                result = execute(operation, argument, story.items)
                words = SEPARATOR[language].join(item.say(language) for item in result)
                assert f"{words}{'个' * (operation == 'count' and language == 'zh')}" in story.text


@settings(max_examples=6, deadline=None)
@given(blocks)
def test_a_block_depends_on_seed_and_index_alone_and_is_as_true_in_chinese(block):
    index, seed, _ = block
    english, chinese = (SOURCES[language].block(index, seed) for language in ("en", "zh"))
    assert english == ListSource(WORLD).block(index, seed) != SOURCES["en"].block(index + 1, seed)
    assert [(s.items, s.form, s.sentences) for s in english] == [
        (s.items, s.form, s.sentences) for s in chinese
    ]


def test_no_request_stands_in_them():
    asked = {way for ways in OPERATIONS["en"].values() for way in ways if "{" not in way}
    stories = [story for index in range(8) for story in SOURCES["en"].block(index)]
    assert not [story.text for story in stories if any(way in story.text for way in asked)]


# --- what stops it -----------------------------------------------------------------------------
def test_other_languages_and_negative_blocks_are_refused():
    with pytest.raises(ValueError, match='must be "en" or "zh"; got \'de\''):
        ListSource(WORLD, "de")
    with pytest.raises(ValueError, match="counted from 0; got -1"):
        SOURCES["en"].block(-1)
