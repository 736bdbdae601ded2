"""Lists: every form is written and read back, and no form passes for another."""

import random
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from minillm.town.lists import FORMS, Item, answer_language, draw_items, read, write
from minillm.town.world import World

WORLD = World()
GOODS = [Item(good.general, good.chinese) for good in WORLD.goods]
lists = st.lists(st.sampled_from(GOODS), min_size=2, max_size=7, unique=True)


# --- by hand -----------------------------------------------------------------------------------
@pytest.mark.parametrize(
    ("form", "english", "chinese"),
    [
        ("commas", "plums, plum jam", "李子、李子酱"),
        ("translated", "plums, plum jam", "李子、李子酱"),
        ("lines", "plums\nplum jam", "李子\n李子酱"),
        ("numbered", "1. plums\n2. plum jam", "1. 李子\n2. 李子酱"),
        ("json", '["plums", "plum jam"]', '["李子", "李子酱"]'),
        ("brackets", "(plums, plum jam)", "（李子、李子酱）"),
    ],
)
def test_a_list_in_each_form(form, english, chinese):
    assert write(["plums", "plum jam"], form, "en") == english
    assert write(["李子", "李子酱"], form, "zh") == chinese


@pytest.mark.parametrize(
    ("text", "form"),
    [
        ("", "commas"),
        ("plums,pears", "commas"),
        ("plums, ", "commas"),
        ("plums, pears.", "commas"),
        ("plums\n\npears", "lines"),
        ("1. plums\n3. pears", "numbered"),
        ("1. plums, pears", "numbered"),
        ("[plums, pears]", "json"),
        ('["plums", 2]', "json"),
        ("[]", "json"),
        ("[" * 5000, "json"),
        ("plums, pears)", "brackets"),
        ("()", "brackets"),
        ("李子、梨", "commas"),
        ("plums, 梨", "commas"),
    ],
)
def test_what_is_not_in_a_form_is_not_read(text, form):
    assert read(text, form, "en") is None


def test_json_may_be_spaced_as_it_likes():
    assert read('[ "plums","pears"]', "json", "en") == ("plums", "pears")


# --- law ---------------------------------------------------------------------------------------
@given(lists, st.sampled_from(FORMS), st.sampled_from(["en", "zh"]))
def test_what_is_written_in_a_form_is_read_in_that_form_and_no_other(items, form, language):
    words = tuple(item.say(language) for item in items)
    text = write(words, form, language)
    same = {"commas", "translated"}
    for other in FORMS:
        as_written = other == form or {other, form} == same
        assert read(text, other, language) == (words if as_written else None)
        assert read(text, other, answer_language(language, "translated")) is None


def test_items_are_three_to_six_of_one_kind_and_nobody_shares_a_name():
    people = {person.name for person in WORLD.people}
    for seed in range(50):
        items, others = draw_items(WORLD, random.Random(seed))
        assert 3 <= len(items) <= 6
        assert len({item.say("zh") for item in (*items, *others)}) == len(items) + len(others)
        kinds = [item.english in people for item in (*items, *others)]
        assert all(a == b for a, b in pairwise(kinds))
