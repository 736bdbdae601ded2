from itertools import islice, permutations, product

import pytest
from hypothesis import given
from hypothesis import strategies as st

from minillm.town import cups
from minillm.town.cups import CupSource, Problem

PROBLEM = Problem("CABED", ((1, 3), (2, 4)))


# --- by hand --------------------------------------------------------------------------------------
def test_each_swap_is_done_to_what_the_one_before_has_left():
    assert PROBLEM.states == ("BACED", "BECAD")
    assert PROBLEM.answer == "BECAD"


@pytest.mark.parametrize(
    ("style", "question", "completion"),
    [
        ("direct", "C A B E D 1-3 2-4 ?", "= B E C A D ."),
        ("dots", "C A B E D 1-3 2-4 ?", "· · · · · · · · · · · · = B E C A D ."),
        ("states", "C A B E D 1-3 2-4 ?", "B A C E D B E C A D = B E C A D ."),
        ("steps", "C A B E D 1-3 2-4 ?", "1-3 B A C E D 2-4 B E C A D = B E C A D ."),
        (
            "indexed",
            "C A B E D #1 1-3 #2 2-4 ?",
            "#1 1-3 B A C E D #2 2-4 B E C A D = B E C A D .",
        ),
    ],
)
def test_the_five_formats(style, question, completion):
    assert PROBLEM.question(style) == question
    assert PROBLEM.completion(style) == completion


def test_renamed_things_lead_to_the_renamed_answer():
    other = PROBLEM.renamed("BCDEA")
    assert other.start == "DBCAE"
    assert other.answer == "BECAD".translate(str.maketrans("ABCDE", "BCDEA"))


@pytest.mark.parametrize(
    ("text", "right"),
    [
        ("1-3 B A C E D 2-4 B E C A D = B E C A D .", [True, True, True]),
        ("1-3 B A C E D 2-4 B E C A D = B E C D A .", [True, True, False]),
        ("1-3 B A C E D 2-5 B E C A D = B E C A D .", [True, False, True]),
        ("1-3 B A C E D 2-4 B E", [True, False, False]),
        ("1-3 B A C E D 2-4 B E C A D 1-2 E B C A D = E B C A D .", [True, True, False, False]),
    ],
)
def test_which_steps_are_right(text, right):
    assert cups.right_steps(PROBLEM, text) == right


@pytest.mark.parametrize("text", ["", "B E C A D", "= B E C A", "= B E C A A .", "= B E C A D D ."])
def test_what_is_no_answer(text):
    assert cups.read_answer(text) is None


def test_a_source_is_a_function_of_seed_and_index_and_keeps_to_its_lengths():
    source = CupSource((2, 5))
    assert source.block(3, "a") == source.block(3, "a") != source.block(3, "b")
    assert {len(each.swaps) for each in islice(source.problems(), 128)} == {2, 5}


# --- law ------------------------------------------------------------------------------------------
@given(st.lists(st.sampled_from(cups.SWAPS), min_size=1, max_size=16))
def test_all_is_words_and_swapping_back_gives_the_beginning(swaps):
    problem = Problem("ABCDE", tuple(swaps))
    for style in cups.FORMATS:
        text = f"{problem.question(style)} {problem.completion(style)}"
        assert cups.decode(cups.encode(text)) == text
        assert cups.read_answer(text) == problem.answer
    assert Problem(problem.answer, tuple(reversed(swaps))).answer == "ABCDE"


def test_who_counts_the_swaps_is_left_with_sixty_orders():
    reached = {"ABCDE"}
    for _ in range(12):
        reached = {
            cups.swap(cups.swap(s, a), b) for s in reached for a in cups.SWAPS for b in [(1, 2)]
        }
    assert len(reached) == len(list(permutations("ABCDE"))) // 2 == round(1 / cups.GUESSING)


def test_the_best_guess_is_as_often_right_as_its_order_comes():
    for n in (1, 2):  # all sequences of swaps, counted
        ends = [Problem("ABCDE", swaps).answer for swaps in product(cups.SWAPS, repeat=n)]
        assert cups.guessing(n) == pytest.approx(max(map(ends.count, ends)) / len(ends))
    assert cups.guessing(16) == pytest.approx(cups.GUESSING, rel=1e-3)


# --- bad input ------------------------------------------------------------------------------------
@pytest.mark.parametrize(
    ("attempt", "match"),
    [
        (lambda: cups.encode("A 6-7"), "got '6-7'"),
        (lambda: Problem("CABED", ()), "at least one swap"),
        (lambda: Problem("CABEE", ((1, 2),)), "in some order"),
        (lambda: Problem("CABED", ((3, 1),)), "the smaller number first"),
        (lambda: CupSource((0,)), "from 1 to 16"),
        (lambda: CupSource().block(-1), "counted from 0"),
        (lambda: PROBLEM.completion("prose"), "the format must be one of direct, dots"),
        (lambda: cups.right_steps(PROBLEM, "", "dots"), "formats with states"),
    ],
)
def test_refusals(attempt, match):
    with pytest.raises(ValueError, match=match):
        attempt()
