"""Chains: their executor does what a naive reader does, sentence by sentence."""

import re
from functools import cache

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from minillm.town.chains import (
    HELD_OUT_PAIRS,
    MOST_ITEMS,
    SEEN_PAIRS,
    STEP_PAIRS,
    THEN,
    ChainSource,
    carry_out,
    chain,
    needs_every_step,
    step_pairs,
)
from minillm.town.lists import SEPARATOR, Item
from minillm.town.request_words import SEEN_WORDINGS
from minillm.town.requests import COMBINATIONS, HELD_OUT, SEEN, Grade, grade
from minillm.town.steps import KINDS, has_one_word
from minillm.town.world import World
from tests.town.test_requests import follow

WORLD = World()
SOURCES = {language: ChainSource(WORLD, language) for language in ("en", "zh")}
PLUMS, PEARS, BUNS = ITEMS = Item("plums", "李子"), Item("pears", "梨"), Item("buns", "小圆面包")
TEA = Item("tea", "茶")
REVERSE, COUNT, TWO = ("reverse", ()), ("count", ()), ("first", (2,))
EVERYTHING = {"pairs": STEP_PAIRS, "combinations": COMBINATIONS, "wordings": range(5)}
chains = st.builds(
    lambda language, index, n_steps, number: block(language, index, n_steps)[number],
    st.sampled_from(["en", "zh"]),
    st.integers(0, 1),
    st.sampled_from([2, 3]),
    st.integers(0, 63),
)


@cache
def block(language, index, n_steps):
    return SOURCES[language].block(index, "tests", n_steps=n_steps, **EVERYTHING)


# --- by hand -----------------------------------------------------------------------------------
@pytest.mark.parametrize(
    ("steps", "answer"),
    [
        ([REVERSE, TWO], "buns, pears"),
        ([TWO, REVERSE], "pears, plums"),
        ([("without", (1,)), ("nth", (1,))], "pears"),
        ([("append", (TEA,)), ("before", (TEA,))], "buns"),
        ([("all-but", (PEARS,)), ("contains", (PEARS,))], "no"),
        ([("skip", (2,)), ("prepend", (TEA,)), COUNT], "two"),
        ([("swap", (1, 3)), ("replace", (1, TEA)), REVERSE], "plums, pears, tea"),
    ],
)
def test_a_later_step_is_done_to_what_the_one_before_leaves(steps, answer):
    asked = chain(steps, ITEMS)
    assert asked.answer == answer
    assert grade(asked, answer) == Grade(content=True, form=True)
    assert asked.combination[::2] == (steps[-1][0], "commas")


def test_each_step_has_its_wording_and_its_joining_words():
    asked = chain([("swap", (1, 3)), TWO, COUNT], ITEMS, "json", "en", (1, 2, 3, 4))
    assert asked.text == (
        "Here is a list: plums, pears, buns. Exchange the first and the third. "
        "After that, say the first two of the list. And then say how many there are. Use JSON."
    )
    chinese = chain([REVERSE, TWO], ITEMS, "translated", "zh", (0, 1, 0))
    assert chinese.text == "单子：李子、梨、小圆面包。把单子倒过来。接着说出前两个。说英文。"
    assert grade(chinese, "小圆面包、梨") == Grade(content=True, form=False)


@pytest.mark.parametrize(
    ("steps", "needed"),
    [
        ([REVERSE, COUNT], False),
        ([REVERSE, TWO], True),
        ([("append", (TEA,)), TWO], False),
        ([("append", (TEA,)), ("without", (4,))], True),  # back to the list as it was
        ([REVERSE, ("append", (TEA,)), ("first", (3,))], False),
        ([("all-but", (PLUMS,)), ("contains", (PLUMS,))], True),
    ],
)
def test_a_step_is_needed_if_the_result_is_another_without_it(steps, needed):
    assert needs_every_step(chain(steps, ITEMS)) == needed


# --- twin --------------------------------------------------------------------------------------
JOINS = re.compile(
    "(Then |Next, |After that, |And then |When that is done, |然后|接着|之后，|接下来，|做完以后，)"
)


def naive(text, language):
    """The words of the answer, from the text alone: one sentence after the other."""
    opening, *sentences = re.findall(r"[^.?。？]+[.?。？]", text)
    words = re.split("[:：] ?", opening)[1][:-1].split(SEPARATOR[language])
    for number, sentence in enumerate(each.strip() for each in sentences):
        joined = JOINS.match(sentence)
        if not number or joined:  # else it is the form
            step = sentence[joined.end() :] if joined else sentence
            words = follow(step[0].upper() + step[1:], words, language)
    return words


@settings(max_examples=40, deadline=None)
@given(chains)
def test_the_executor_agrees_with_a_naive_reader_of_the_text(asked):
    assert [x.say(asked.language) for x in asked.result] == naive(asked.text, asked.language)
    assert grade(asked, asked.answer) == Grade(content=True, form=True)
    assert needs_every_step(asked)


# --- law ---------------------------------------------------------------------------------------
def test_about_a_quarter_of_the_pairs_of_each_first_operation_is_held_out():
    assert set(SEEN_PAIRS) | HELD_OUT_PAIRS == set(STEP_PAIRS)
    assert not set(SEEN_PAIRS) & HELD_OUT_PAIRS
    lists = {first for first, _ in STEP_PAIRS}
    assert all(any(not has_one_word(first, kind) for kind in KINDS[first]) for first in lists)
    for first in lists:
        own = [pair for pair in STEP_PAIRS if pair[0] == first]
        assert 0.2 < len(HELD_OUT_PAIRS.intersection(own)) / len(own) < 0.3
    assert {second for _, second in SEEN_PAIRS} == set(KINDS) - {"all"}


def test_a_block_has_seen_pairs_combinations_and_wordings_unless_others_are_asked_for():
    asked = [each for n in (2, 3) for i in (0, 1) for each in SOURCES["en"].block(i, n_steps=n)]
    assert not HELD_OUT_PAIRS.intersection(
        pair for each in asked for pair in step_pairs(each.steps)
    )
    assert {each.combination for each in asked} <= set(SEEN)
    assert {way for each in asked for way in each.wording} == set(SEEN_WORDINGS)
    exam = SOURCES["zh"].block(0, pairs=HELD_OUT_PAIRS, combinations=sorted(HELD_OUT), wordings=[4])
    assert all(set(step_pairs(each.steps)) <= HELD_OUT_PAIRS for each in exam)
    assert all(each.combination in HELD_OUT and each.wording[0] == 4 for each in exam)


def test_a_block_depends_on_seed_and_index_alone_and_asks_for_the_same_in_chinese():
    english, chinese = (SOURCES[language].block(1, "a") for language in ("en", "zh"))
    assert english == ChainSource(WORLD).block(1, "a") != SOURCES["en"].block(1, "b")
    for a, b in zip(english, chinese, strict=True):
        assert (a.steps, a.items, a.constraint, a.result) == (
            b.steps,
            b.items,
            b.constraint,
            b.result,
        )
    assert [len(ways) for ways in THEN.values()] == [5, 5]


# --- what stops it -----------------------------------------------------------------------------
@pytest.mark.parametrize(
    ("steps", "options", "message"),
    [
        ([REVERSE], {}, "2 to 3 steps, none of them \"all\".*got reverse in 'en'"),
        ([REVERSE] * 4, {}, "2 to 3 steps"),
        ([("all", ()), REVERSE], {}, "got all, reverse"),
        ([REVERSE, TWO], {"language": "de"}, "in 'de'"),
        ([COUNT, REVERSE], {}, "only the last of 2 steps .* step 1 is 'count'"),
        ([("first", ()), REVERSE], {}, "step 1 is 'first'"),
        ([("without", (1,)), ("all-but", (PLUMS,))], {}, "all-but needs what is on the list"),
        ([TWO, ("nth", (3,))], {}, "nth needs what is on the list"),
        ([("skip", (2,)), ("without", (1,))], {}, "leaves nothing"),
        ([REVERSE, COUNT], {"constraint": "lines"}, "no combination"),
        ([REVERSE, TWO], {"wording": (0, 0)}, r"one for each of 2 steps .* got \(0, 0\)"),
        ([REVERSE, TWO], {"wording": (0, 5, 0)}, "wordings are 0 to 4"),
    ],
)
def test_chains_that_make_no_sense_are_refused(steps, options, message):
    with pytest.raises(ValueError, match=message):
        chain(steps, ITEMS, **options)


def test_a_list_that_nobody_can_count_and_sources_without_chains_are_refused():
    long = tuple(Item(f"plum {n}", f"李子{n}") for n in range(MOST_ITEMS))
    assert len(carry_out([("append", (TEA,))], long)) == MOST_ITEMS + 1
    with pytest.raises(ValueError, match="at most 7 items; step 2 meets 8"):
        carry_out([("append", (TEA,)), COUNT], long)
    with pytest.raises(ValueError, match='must be "en" or "zh"; got \'both\''):
        ChainSource(WORLD, "both")
    with pytest.raises(ValueError, match="got 0, 4 and 4"):
        SOURCES["en"].block(0, n_steps=4)
    with pytest.raises(ValueError, match="no chain of 2 steps that are all needed"):
        SOURCES["en"].block(0, pairs=[("append", "first")])
