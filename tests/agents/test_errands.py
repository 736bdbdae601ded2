"""Errands as calls, demonstrations of an agent, and what is to be learned from a failure."""

from collections import Counter
from dataclasses import replace
from random import Random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from minillm.agents import errands
from minillm.agents.errands import (
    call_of,
    demonstration,
    errand_tools,
    lesson_of,
    question_of,
    thought,
)
from minillm.agents.tools import read_call
from minillm.town.map import Errand, draw_errand, right_action
from minillm.town.world import World
from minillm.tune.chat import TOOL_TEMPLATE, check

WORLD = World()
START = draw_errand(WORLD, 1, n_shops=2, n_stocked=1)
SHOPS = START.task.shops


# --- by hand --------------------------------------------------------------------------------------
def test_a_demonstration_is_a_view_a_thought_a_call_and_its_result():
    here = {"shops": ("mill",), "stocked": frozenset({"mill"})}
    at_shop = replace(START, place="mill", task=replace(START.task, failure_rate=1.0, **here))
    view, thinking, call, result = demonstration(at_shop)
    good = START.task.good
    assert view.content == at_shop.view()
    assert thinking.content == f"I need {good} from mill, here."
    assert read_call(call.content).arguments == {"good": good}
    assert result.content == f"take {good}: it slipped from your hands"


def test_thoughts_say_where_to_go_for_what_and_which_lesson_counts():
    good, person, home = START.task.good, START.task.person, START.task.home
    first, second = SHOPS
    assert thought(replace(START, place=first)) == f"I need {good} from {first}, here."
    held = replace(START, has_good=True, place=home)
    assert thought(held) == f"I have {good} for {person}, here."
    other = f"no pebbles at {first}"
    lesson = f"no {good} at {first}"
    told = replace(START, place=second, lessons=(other, lesson))
    assert thought(told) == f"The lesson rules out {first}. I need {good} from {second}, here."
    assert thought(replace(told, sold_out=frozenset(SHOPS))) == f"Nobody has {good}."


@pytest.mark.parametrize(
    ("remarks", "lesson"),
    [
        ([], "nothing"),
        (["go mill: you lost your way", "take plums: it slipped from your hands"], "nothing"),
        (["go moon: no road leads there from mill"], "nothing"),
        (["go mill: you lost your way", "take plums: no plums at mill"], "no plums at mill"),
        (["take plums: no plums at mill", "take plums: no plums at well"], "no plums at mill"),
    ],
)
def test_the_lesson_is_the_shop_that_had_nothing(remarks, lesson):
    assert lesson_of(remarks) == lesson


def test_a_question_shows_the_last_remarks():
    lines = question_of("bring plums to Joe", [f"remark {n}" for n in range(7)]).split("\n")
    assert lines[:2] == ["task: bring plums to Joe", "you failed"]
    assert lines[2:] == [*(f"remark {n}" for n in range(2, 7)), "what do you learn?"]


def test_once_in_nine_times_nobody_has_the_good():
    rng = Random(0)
    counts = Counter(errands.number_of_shops(rng) for _ in range(6000))
    assert counts.keys() == {(1, 0), (1, 1), (2, 1), (2, 2)}
    assert counts[1, 0] / 6000 == pytest.approx(1 / 9, abs=0.02)


# --- a stream of them -----------------------------------------------------------------------------
def test_a_block_has_decisions_of_every_kind_and_lessons():
    rows = errands.block(WORLD, 0, "train")
    assert rows == errands.block(WORLD, 0, "train") != errands.block(WORLD, 1, "train")
    assert rows != errands.block(WORLD, 0, "held out")
    assert len(rows) == 64
    for row in rows:
        check(row, TOOL_TEMPLATE)
    roles = Counter(tuple(message.role for message in row) for row in rows)
    assert roles.keys() == {("user", "assistant", "call", "result"), ("user", "assistant")}
    assert 6 <= roles["user", "assistant"] <= 16
    several = [row for index in range(8) for row in errands.block(WORLD, index, "train")]
    names = Counter(read_call(row[2].content).name for row in several if len(row) == 4)
    assert names.keys() == {"go", "take", "give", "give_up"}
    views = [row[0].content for row in several if len(row) == 4]
    assert any("lost your way" in view for view in views)
    assert any(view.startswith("lesson: ") for view in views)
    learned = Counter(row[1].content == "nothing" for row in several if len(row) == 2)
    assert min(learned.values()) > 10


# --- twin -----------------------------------------------------------------------------------------
actions = st.one_of(
    st.tuples(st.sampled_from([*errand_tools().tools]), st.text(max_size=20)).map(" ".join),
    st.integers(0, 500).map(lambda seed: right_action(draw_errand(WORLD, seed))),
)


@given(actions)
def test_the_tool_that_an_action_calls_gives_that_action(action):
    result = errand_tools().call(call_of(action).text)
    assert (result.text, result.ok) == (action, True)


# --- law ------------------------------------------------------------------------------------------
@settings(max_examples=12)
@given(st.integers(0, 10_000))
def test_a_demonstrated_call_leads_to_the_result_that_stands_behind_it(seed):
    errand: Errand = draw_errand(WORLD, seed, n_shops=2, failure_rate=0.4)
    while not errand.done:
        _, thinking, call, result = demonstration(errand)
        action = errand_tools().call(call.content).text
        errand = errand.after(action)
        assert result.content == (errand.remark or "ok")
        assert action.split(" ", 1)[1].split(" ")[-1] in thinking.content.replace(".", "")


def test_a_block_before_the_first_is_refused():
    with pytest.raises(ValueError, match="counted from 0; got -1"):
        errands.block(WORLD, -1, "train")
