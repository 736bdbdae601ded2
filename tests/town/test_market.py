"""Shop arithmetic: the questions ask for what the steps compute, and wrong steps are noticed."""

import re
from fractions import Fraction

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from minillm.town.market import Finding, MarketSource, Problem, Step, check, read_answer, wordings
from minillm.town.world import World

WORLD = World()
SOURCES = {language: MarketSource(WORLD, language) for language in ("en", "zh")}
# 3 plums at 4 coins and 2 pears at 5: 12 + 10
BASKETS = Problem("total", "What?", (Step(3, "·", 4), Step(2, "·", 5), Step(12, "+", 10)), "en", 0)
RIGHT = "3 · 4 = 12. 2 · 5 = 10. 12 + 10 = 22. Answer: 22."
blocks = st.tuples(st.integers(0, 10**6), st.integers(0, 10**6), st.sampled_from(["en", "zh"]))


# --- by hand -----------------------------------------------------------------------------------
def test_a_problem_is_written_with_its_answer_alone_or_with_its_steps():
    assert BASKETS.direct == "What? Answer: 22."
    assert BASKETS.worked == f"What? Steps: {RIGHT}"
    chinese = Problem("total", "多少？", BASKETS.steps[:1], "zh", 0)
    assert chinese.worked == "多少？步骤：3 · 4 = 12。答案：12。"


@pytest.mark.parametrize(
    ("text", "finding"),
    [
        (RIGHT, None),
        ("5 · 2 = 10. 4 · 3 = 12. 10 + 12 = 22. Answer: 22.", None),
        ("3 · 4 = 12. 2 · 5 = 11. 12 + 11 = 23. Answer: 23.", Finding(2, "arithmetic")),
        ("3 · 4 = 12. 2 · 5 = 10. 12 - 10 = 2. Answer: 2.", Finding(3, "plan")),
        ("3 · 4 = 12. 3 · 4 = 12. 12 + 12 = 24. Answer: 24.", Finding(2, "plan")),
        ("3 ÷ 0 = 4. Answer: 22.", Finding(1, "arithmetic")),
        ("3 · 4 = 12. 12 + 10 = 22. Answer: 22.", Finding(3, "missing")),
        (RIGHT.removesuffix("Answer: 22."), Finding(4, "missing")),
        (RIGHT.replace("Answer: 22", "Answer: 21"), Finding(4, "answer")),
        ("", Finding(1, "missing")),
    ],
)
def test_the_first_wrong_step_is_named_and_why(text, finding):
    assert check(BASKETS, text) == finding


def test_all_ways_to_ask_are_there_and_each_language_has_its_own():
    for kind in ("total", "change", "share", "difference"):
        assert len({*wordings("en", kind), *wordings("zh", kind)}) == 6


# --- twin --------------------------------------------------------------------------------------
def cost_by_reading(problem):
    """Read off the numbers of the question alone what is asked for."""
    pattern = (
        r"(\d+) [a-z ]+ at (\d+) coins? each"
        if problem.language == "en"
        else (r"(\d+)[^\d，。]+（每.(\d+)块）")
    )
    costs = [int(n) * int(price) for n, price in re.findall(pattern, problem.question)]
    rest = [int(number) for number in re.findall(r"\d+", re.sub(pattern, "", problem.question))]
    match problem.kind:
        case "total":
            return sum(costs)
        case "change":
            return rest[0] - sum(costs)
        case "share":
            return Fraction(sum(costs), rest[0])
    return abs(costs[0] - costs[1])


@settings(max_examples=20, deadline=None)
@given(blocks)
def test_the_answer_is_what_the_numbers_of_the_question_give(block):
    index, seed, language = block
    for problem in SOURCES[language].block(index, seed):
        assert cost_by_reading(problem) == problem.answer


# --- law ---------------------------------------------------------------------------------------
@settings(max_examples=20, deadline=None)
@given(blocks)
def test_steps_are_whole_numbers_of_three_digits_and_build_on_each_other(block):
    index, seed, language = block
    for problem in SOURCES[language].block(index, seed):
        known = {int(number) for number in re.findall(r"\d+", problem.question)}
        assert 1 <= len(problem.steps) <= 4
        for step in problem.steps:
            assert {step.left, step.right} <= known
            assert 0 < step.result <= 999
            assert step.sign != "÷" or step.result * step.right == step.left
            known.add(step.result)
        assert read_answer(problem.direct) == read_answer(problem.worked) == problem.answer
        assert check(problem, problem.worked) is None


@settings(max_examples=40, deadline=None)
@given(blocks, st.integers(0, 63), st.randoms())
def test_one_changed_digit_is_noticed_at_its_step(block, number, rng):
    index, seed, language = block
    problem = SOURCES[language].block(index, seed)[number]
    text = problem.worked.removeprefix(problem.question)
    place = rng.choice([place for place, character in enumerate(text) if character.isdigit()])
    digit = rng.choice([digit for digit in "0123456789" if digit != text[place]])
    step = 1 + len(re.findall(r"=[^.。]*[.。]", text[:place]))
    finding = check(problem, text[:place] + digit + text[place + 1 :])
    assert finding is not None
    assert finding.step == step


@settings(max_examples=10, deadline=None)
@given(blocks)
def test_a_block_depends_on_seed_and_index_alone_and_is_as_true_in_chinese(block):
    index, seed, _ = block
    english, chinese = (SOURCES[language].block(index, seed) for language in ("en", "zh"))
    assert english == MarketSource(WORLD).block(index, seed)
    assert [p.steps for p in english] == [p.steps for p in chinese]
    assert english != SOURCES["en"].block(index + 1, seed)


# --- what stops it -----------------------------------------------------------------------------
def test_other_languages_and_negative_blocks_are_refused():
    with pytest.raises(ValueError, match=r'language must be "en" or "zh"; got \'de\''):
        MarketSource(WORLD, "de")
    with pytest.raises(ValueError, match="counted from 0; got -1"):
        SOURCES["en"].block(-1)
