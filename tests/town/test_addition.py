"""minillm.town.addition: three formats of one truth, and every wrong step is noticed."""

import re

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from minillm.town import addition
from minillm.town.addition import (
    FORMATS,
    VOCABULARY,
    AdditionSource,
    Column,
    Sum,
    decode,
    encode,
    is_held_out,
    read_answer,
    right_steps,
)

PAD = "9 + 7 + 0 = 1 6 , 2 + 5 + 1 = 0 8 ; 8 6 ."  # of 29 + 57
formats = st.sampled_from(FORMATS)
sums = st.integers(1, 9).flatmap(
    lambda n: st.tuples(*[st.integers(10 ** (n - 1), 10**n - 1)] * 2).map(lambda two: Sum(*two))
)


# --- by hand -----------------------------------------------------------------------------------
def test_one_sum_is_written_in_three_formats_after_one_question():
    problem = Sum(29, 57)
    assert {problem.question(style) for style in FORMATS} == {"2 9 + 5 7 ="}
    assert [problem.completion(style) for style in FORMATS] == ["8 6 .", "6 8 .", PAD]


def test_a_carry_out_of_the_last_column_begins_the_answer():
    assert Sum(95, 17).columns == (Column(5, 7, 0), Column(9, 1, 1))
    assert [Sum(95, 17).completion(style) for style in FORMATS[:2]] == ["1 1 2 .", "2 1 1 ."]


@pytest.mark.parametrize(
    ("written", "right"),
    [
        (PAD, [True, True, True]),
        (PAD.replace("= 1 6", "= 0 6"), [False, True, True]),  # a wrong carry
        (PAD.replace("9 + 7", "7 + 9"), [False, True, True]),  # the left number stands first
        (PAD.replace("2 + 5 + 1 = 0 8", "2 + 5 + 0 = 0 7"), [True, False, True]),
        (PAD.replace(" , 2 + 5 + 1 = 0 8", ""), [True, True]),  # a column is not there
        (PAD.replace(" ;", " , 0 + 0 + 0 = 0 0 ;"), [True, True, False, True]),
        (PAD.replace("; 8 6", "; 6 8"), [True, True, False]),
        (PAD.removesuffix(" ."), [True, True, False]),  # an answer has an end
        (PAD.replace(" ; 8 6", ""), [True, True]),
        ("", []),
    ],
)
def test_each_step_that_was_written_is_right_or_not(written, right):
    assert right_steps(Sum(29, 57), written) == right


def test_an_answer_without_its_end_or_with_other_signs_is_none():
    assert (read_answer("8 6 ."), read_answer("8 6 .", "reversed")) == (86, 68)
    assert read_answer(PAD.replace("0 8", "0 9"), "scratchpad") == 86  # only the answer is read
    bad = ("8 6", ".", "", "8 + 6 .", "8 . 6 .", PAD)
    assert [read_answer(text) for text in bad] == [None] * len(bad)
    assert read_answer("8 6 .", "scratchpad") is None


@pytest.mark.parametrize(
    ("refused", "message"),
    [
        (lambda: Sum(305, 28), "equally many digits, 9 at most; got 305 and 28"),
        (lambda: Sum(-3, 28), "at least 1, of equally many digits, 9 at most; got -3 and 28"),
        (lambda: Sum(29, 57).completion("back"), "plain, reversed, scratchpad; got 'back'"),
        (lambda: encode("29 + 57"), "single digits and + = , ; . with blanks between"),
        (lambda: AdditionSource(10), "2 to 9; got 10"),
        (lambda: AdditionSource().block(-1), "counted from 0; got -1"),
    ],
)
def test_bad_input_is_refused_with_what_is_allowed(refused, message):
    with pytest.raises(ValueError, match=re.escape(message)):
        refused()


# --- law ---------------------------------------------------------------------------------------
@given(sums, formats)
def test_what_is_to_be_written_is_right_and_survives_its_tokens(problem, style):
    completion = problem.completion(style)
    assert decode(encode(completion)) == completion
    assert read_answer(completion, style) == problem.left + problem.right
    if style == "scratchpad":
        n_columns = len(str(problem.left))
        assert right_steps(problem, completion) == [True] * (n_columns + 1)


@given(sums, st.data())
def test_any_changed_token_makes_a_step_wrong(problem, data):
    tokens = problem.completion("scratchpad").split()
    place = data.draw(st.integers(0, len(tokens) - 1))
    tokens[place] = data.draw(st.sampled_from([t for t in VOCABULARY if t != tokens[place]]))
    assert right_steps(problem, " ".join(tokens)) != [True] * (len(problem.columns) + 1)


@settings(max_examples=10, deadline=None)
@given(st.integers(0, 10**6), st.integers(0, 10**6), st.booleans())
def test_a_block_depends_on_seed_and_index_alone_and_keeps_to_its_side(index, seed, held_out):
    source = AdditionSource()
    block = source.block(index, seed, held_out=held_out)
    assert len(block) == 64
    assert block == AdditionSource().block(index, seed, held_out=held_out)
    assert block != source.block(index + 1, seed, held_out=held_out)
    assert block != source.block(index, seed + 1, held_out=held_out)
    for each in block:
        assert len(str(each.left)) == len(str(each.right)) == 3
        assert is_held_out(each) is is_held_out(Sum(each.right, each.left)) is held_out


def test_about_one_pair_in_eight_is_held_out():
    share = sum(is_held_out(Sum(a, b)) for a in range(10, 100) for b in range(a, 100)) / 4095
    assert abs(share - addition.SHARE_HELD_OUT) < 0.02
