"""Steps: what an argument is, what a step needs of the list, and how it is said."""

import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from minillm.town.lists import FORMS, Item
from minillm.town.request_words import OPERATIONS
from minillm.town.steps import (
    KINDS,
    argument_kind,
    check_step,
    draw_argument,
    execute,
    has_one_word,
    put_together,
    say_step,
    write_result,
)

PLUMS, PEARS, BUNS, TEA = ITEMS = (
    Item("plums", "李子"),
    Item("pears", "梨"),
    Item("buns", "小圆面包"),
    Item("tea", "茶"),
)
EVERY = [(operation, kind) for operation, kinds in KINDS.items() for kind in kinds]


# --- by hand -----------------------------------------------------------------------------------
def test_numbers_stand_for_a_place_or_for_how_many():
    assert [argument_kind(each, (2,)) for each in ("skip", "without")] == ["number", "ordinal"]
    assert say_step("skip", (2,), "en", 0) == "Leave out the first two."
    assert say_step("without", (2,), "en", 0) == "Leave out the second."
    assert say_step("replace", (2, TEA), "zh", 1) == "把第二个换成茶。"


def test_a_text_is_the_list_the_sentences_and_the_form():
    text = put_together(["A.", "B."], (PLUMS, PEARS), "json", "en", (1, 4, 3))
    assert text == "Here is a list: plums, pears. A. B. Answer in JSON."
    assert write_result((PLUMS, PEARS), "translated", "zh") == "plums, pears"
    assert write_result((PLUMS, PEARS), "lines", "zh") == "李子\n梨"


@pytest.mark.parametrize(
    ("operation", "argument", "message"),
    [
        ("sing", (), "operation must be one of all, .*; got 'sing'"),
        ("nth", (4,), "nth needs what is on the list"),
        ("nth", (0,), "nth needs what is on the list"),
        ("swap", (PLUMS, TEA), "swap needs what is on the list"),
        ("replace", (TEA, PLUMS), "replace needs what is on the list"),
        ("swap", (PLUMS,), "swap needs 2 things in its argument; got 1"),
        ("all-but", (PLUMS, PEARS), "all-but needs 1 things in its argument; got 2"),
        ("first", (1, 2), "first needs 0 or 1 things"),
        ("reverse", (1,), "reverse needs 0 things"),
        ("swap", (PLUMS, 2), "swap needs two items or two ordinals"),
        ("after", (BUNS,), "leaves nothing"),
        ("skip", (3,), "leaves nothing"),
    ],
)
def test_a_step_that_cannot_be_done_is_refused(operation, argument, message):
    with pytest.raises(ValueError, match=message):
        check_step(operation, argument, ITEMS[:3])


# --- law ---------------------------------------------------------------------------------------
@given(st.sampled_from(EVERY), st.integers(3, 4), st.integers(0, 10**6))
def test_what_is_drawn_for_a_list_can_be_done_and_is_of_the_kind(step, n, seed):
    operation, kind = step
    argument = draw_argument(random.Random(seed), operation, kind, ITEMS[:n], [Item("ink", "墨")])
    check_step(operation, argument, ITEMS[:n])
    assert argument_kind(operation, argument) == kind
    result = execute(operation, argument, ITEMS[:n])
    assert not has_one_word(operation, kind) or len(result) == 1


@given(st.sampled_from(EVERY), st.sampled_from(["en", "zh"]), st.integers(0, 4))
def test_a_sentence_has_no_blanks_left(step, language, way):
    argument = draw_argument(random.Random(0), *step, ITEMS, [Item("ink", "墨")])
    assert "{" not in say_step(step[0], argument, language, way)
    assert set(OPERATIONS[language]) == set(KINDS)
    assert len(FORMS) == 6
