"""Requests: the executor does what a naive reader of the text does, and grades by it."""

import re
from functools import cache

import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from minillm.town.lists import FORMS, SEPARATOR, Item, write
from minillm.town.request_words import NUMBERS, OPERATIONS, ORDINALS, SEEN_WORDINGS
from minillm.town.requests import (
    COMBINATIONS,
    HELD_OUT,
    SEEN,
    Grade,
    RequestSource,
    ask,
    grade,
    held_out,
    pair,
)
from minillm.town.steps import KINDS
from minillm.town.world import World

WORLD = World()
SOURCES = {language: RequestSource(WORLD, language) for language in ("en", "zh")}
PLUMS, PEARS, BUNS, EGGS = ITEMS = (
    Item("plums", "李子"),
    Item("pears", "梨"),
    Item("buns", "小圆面包"),
    Item("eggs", "茶叶蛋"),
)
EVERYTHING = {"combinations": COMBINATIONS, "wordings": range(5)}
requests = st.builds(
    lambda language, index, number: block(language, index)[number],
    st.sampled_from(["en", "zh"]),
    st.integers(0, 20),
    st.integers(0, 63),
)


@cache
def block(language, index):
    return SOURCES[language].block(index, "tests", **EVERYTHING)


# --- by hand -----------------------------------------------------------------------------------
@pytest.mark.parametrize(
    ("operation", "argument", "answer"),
    [
        ("all", (), "plums, pears, buns, eggs"),
        ("all-but", (PEARS,), "plums, buns, eggs"),
        ("reverse", (), "eggs, buns, pears, plums"),
        ("count", (), "four"),
        ("first", (), "plums"),
        ("first", (3,), "plums, pears, buns"),
        ("last", (), "eggs"),
        ("last", (2,), "buns, eggs"),
        ("nth", (2,), "pears"),
        ("without", (1,), "pears, buns, eggs"),
        ("skip", (2,), "buns, eggs"),
        ("replace", (BUNS, Item("tea", "茶")), "plums, pears, tea, eggs"),
        ("replace", (4, Item("tea", "茶")), "plums, pears, buns, tea"),
        ("swap", (PLUMS, BUNS), "buns, pears, plums, eggs"),
        ("swap", (3, 4), "plums, pears, eggs, buns"),
        ("contains", (EGGS,), "yes"),
        ("contains", (Item("tea", "茶"),), "no"),
        ("append", (Item("tea", "茶"),), "plums, pears, buns, eggs, tea"),
        ("prepend", (Item("tea", "茶"),), "tea, plums, pears, buns, eggs"),
        ("after", (PLUMS,), "pears"),
        ("before", (EGGS,), "buns"),
    ],
)
def test_each_operation_on_four_goods(operation, argument, answer):
    assert ask(operation, argument, ITEMS).answer == answer


def test_a_request_names_the_list_the_operation_and_the_form():
    asked = ask("swap", (1, 3), ITEMS[:3], "brackets", "en", (0, 4))
    assert asked.text == "The list: plums, pears, buns. Swap the first and the third. Use brackets."
    assert asked.answer == "(buns, pears, plums)"
    chinese = ask("all-but", (PEARS,), ITEMS[:3], "translated", "zh", (1, 0))
    assert chinese.text == "这是单子：李子、梨、小圆面包。除了梨，说出整张单子。说英文。"
    assert chinese.answer == "plums, buns"


@pytest.mark.parametrize(
    ("answer", "content", "form"),
    [
        ("1. pears\n2. plums", True, True),
        (" \n1. pears\n2. plums\n", True, True),
        ("1. 梨\n2. 李子", True, False),
        ("pears, plums", True, False),
        ('["pears","plums"]', True, False),
        ("1. plums\n2. pears", False, True),
        ("1. pears\n2. plums\n3. plums", False, True),
        ("1. pears\n2. plums\n\nMei", False, False),
        ("", False, False),
    ],
)
def test_content_and_form_are_graded_apart(answer, content, form):
    asked = ask("reverse", (), (PLUMS, PEARS), "numbered")
    assert grade(asked, answer) == Grade(content, form)
    assert grade(asked, answer).right == (content and form)


def test_the_pair_of_all_is_all_but_and_back():
    asked = ask("all", (), ITEMS, "lines", "en", (2, 1))
    other = pair(asked)
    assert (other.operation, other.items, other.constraint) == ("all-but", ITEMS, "lines")
    assert other.text.replace(f" but {other.argument[0].english}", "") == asked.text
    assert pair(other) == asked
    assert pair(ask("reverse", (), ITEMS)) is None


# --- twin --------------------------------------------------------------------------------------
KNOWN = {good.general for good in WORLD.goods} | {person.name for person in WORLD.people}
KNOWN |= {good.chinese for good in WORLD.goods} | {person.chinese for person in WORLD.people}


def spans(n, language):
    """What words of an end or an ordinal mean on a list of n: their places on it."""
    meant = {"the last": [n - 1], "最后一个": [n - 1]}
    for i in range(n):
        meant["the " + ORDINALS["en"][i]] = meant[f"第{ORDINALS['zh'][i]}个"] = [i]
    for k in range(2, n + 1):
        english, chinese = (NUMBERS[each][k - 1] for each in ("en", "zh"))
        meant[f"the first {english}"] = meant[f"前{chinese}个"] = list(range(k))
        meant[f"the last {english}"] = meant[f"最后{chinese}个"] = list(range(n - k, n))
    return meant


@cache
def patterns(language):
    """Each wording as a pattern whose blanks are groups."""
    rows = [(key, way) for key, ways in OPERATIONS[language].items() for way in ways]
    blank = re.compile(r"\\{(\w)\\}")
    return [(key, re.compile(blank.sub(r"(?P<\1>.+?)", re.escape(way)))) for key, way in rows]


def naive(text, language):
    """The words of the answer, from the text alone."""
    listed, _, rest = re.split("[:：] ?", text, maxsplit=1)[1].partition(".。"[language == "zh"])
    return follow(rest.strip(), listed.split(SEPARATOR[language]), language)


def follow(sentence, words, language):
    """What one sentence makes of the words of a list."""
    places = spans(len(words), language) | {word: [i] for i, word in enumerate(words)}
    for operation, pattern in patterns(language):
        heard = pattern.match(sentence)
        blanks = heard.groupdict() if heard else {"x": None}
        if all(blank in places or blank in KNOWN for blank in blanks.values()):
            return carry_out(operation, words, blanks, places, language)
    raise AssertionError(sentence)


def carry_out(operation, words, blanks, places, language):
    x, y = blanks.get("x"), blanks.get("y")
    at = places.get(x, [])
    match operation:
        case "all":
            return words
        case "all-but" | "without" | "skip":
            return [word for i, word in enumerate(words) if i not in at]
        case "first" | "last" | "nth":
            return [words[i] for i in at]
        case "reverse":
            return list(reversed(words))
        case "count":
            return [NUMBERS[language][len(words) - 1]]
        case "contains":
            return [{True: ("yes", "是"), False: ("no", "否")}[x in words][language == "zh"]]
        case "append" | "prepend":
            return [*words, x] if operation == "append" else [x, *words]
        case "after" | "before":
            return [words[at[0] + (1 if operation == "after" else -1)]]
    if operation == "swap":
        i, j = at[0], places[y][0]
        words[i], words[j] = words[j], words[i]
    else:
        words[at[0]] = y
    return words


@settings(max_examples=200, deadline=None)
@given(requests)
def test_the_executor_agrees_with_a_naive_reader_of_the_text(request):
    assert [x.say(request.language) for x in request.result] == naive(
        request.text, request.language
    )


# --- law ---------------------------------------------------------------------------------------
@settings(max_examples=60, deadline=None)
@given(requests, st.data())
def test_the_answer_is_right_and_any_other_list_is_wrong(request, data):
    assert grade(request, f" {request.answer}\n") == Grade(content=True, form=True)
    right = list(request.result)
    stock = sorted({*right, *request.items, Item("yes", "是")}, key=lambda item: item.english)
    other = data.draw(st.lists(st.sampled_from(stock), min_size=1, max_size=len(right) + 1))
    assume(other != right)
    for form in FORMS:
        for language in ("en", "zh"):
            text = write([item.say(language) for item in other], form, language)
            assert not grade(request, text).content


@settings(max_examples=50, deadline=None)
@given(requests)
def test_a_pair_differs_in_the_operation_alone(request):
    other = pair(request)
    assume(other is not None)
    assert other.operation != request.operation
    assert other.text != request.text
    assert (other.items, other.wording) == (request.items, request.wording)
    assert grade(other, other.answer).right


def test_every_operation_and_form_is_on_both_sides_of_the_split_and_no_combination():
    assert set(SEEN) | HELD_OUT == set(COMBINATIONS)
    assert not set(SEEN) & HELD_OUT
    for side in (SEEN, HELD_OUT):
        assert {operation for operation, _, _ in side} == set(KINDS) == set(OPERATIONS["en"])
        assert {form for _, _, form in side} == set(FORMS)
    assert {each[:2] for each in SEEN} == {each[:2] for each in COMBINATIONS}
    assert 0.2 < len(HELD_OUT) / len(COMBINATIONS) < 0.3


def test_a_block_has_seen_combinations_and_wordings_unless_others_are_asked_for():
    seen = [each for index in range(15) for each in SOURCES["en"].block(index)]
    assert {each.combination for each in seen} == set(SEEN)
    assert {way for each in seen for way in each.wording} == set(SEEN_WORDINGS)
    exam = SOURCES["zh"].block(0, combinations=sorted(HELD_OUT), wordings=[4])
    assert all(held_out(each) and each.wording[0] == 4 for each in exam)


@pytest.mark.parametrize("index", [0, 7])
def test_a_block_depends_on_seed_and_index_alone_and_asks_for_the_same_in_chinese(index):
    english, chinese = (SOURCES[language].block(index, "a") for language in ("en", "zh"))
    assert english == RequestSource(WORLD).block(index, "a") != SOURCES["en"].block(index, "b")
    for a, b in zip(english, chinese, strict=True):
        assert (a.combination, a.argument, a.items) == (b.combination, b.argument, b.items)
        assert a.result == b.result


# --- what stops it -----------------------------------------------------------------------------
@pytest.mark.parametrize(
    ("request_", "message"),
    [
        (("sing", (), ITEMS), "operation must be one of all, .*got 'sing'"),
        (("all", (), ITEMS, "commas", "de"), "language en or zh; got 'all' and 'de'"),
        (("count", (), ITEMS, "lines"), r"no combination \('count', 'none', 'lines'\)"),
        (("nth", (5,), ITEMS), "nth needs what is on the list"),
        (("swap", (PLUMS, Item("tea", "茶")), ITEMS), "swap needs what is on the list"),
        (("after", (EGGS,), ITEMS), "leaves nothing"),
        (("all", (), ITEMS, "commas", "en", (0, 5)), r"wordings are 0 to 4; got \(0, 5\)"),
    ],
)
def test_requests_that_make_no_sense_are_refused(request_, message):
    with pytest.raises(ValueError, match=message):
        ask(*request_)


def test_a_source_refuses_other_languages_and_nothing_to_draw_from():
    with pytest.raises(ValueError, match='must be "en" or "zh"; got \'both\''):
        RequestSource(WORLD, "both")
    with pytest.raises(ValueError, match="got 0, 0 and 4"):
        SOURCES["en"].block(0, combinations=())
