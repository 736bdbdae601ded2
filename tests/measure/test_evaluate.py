"""minillm.measure.evaluate: intervals as scipy has them, choices, differences, contamination."""

from math import sqrt

import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import binomtest

from minillm.measure.evaluate import (
    Estimate,
    Result,
    Score,
    choose_by_log_prob,
    difference,
    evaluate,
    macro_average,
    overlap,
)

SCORES = st.integers(1, 2000).flatmap(
    lambda n: st.integers(0, n).map(lambda n_right: Score(n_right, n))
)


def result(right, name="", questions=None):
    right = tuple(map(bool, right))
    return Result(name, questions or tuple(range(len(right))), right, right)


# --- one score -----------------------------------------------------------------------------------
@given(SCORES)
def test_the_interval_is_scipys(score):
    theirs = binomtest(score.n_right, score.n).proportion_ci(0.95, "wilson")
    assert score.interval == pytest.approx((theirs.low, theirs.high), abs=1e-6)
    assert 0 <= score.interval[0] <= score.share <= score.interval[1] <= 1


def test_a_score_is_printed_in_percent():
    assert str(Score(20, 20)) == "100.0 % (83.9–100.0)"
    assert str(Score(0, 3)) == "0.0 % (0.0–56.1)"


def test_a_score_without_answers_is_refused():
    for n_right, n in ((0, 0), (5, 4), (-1, 4)):
        with pytest.raises(ValueError, match=f"got {n_right} of {n}"):
            Score(n_right, n)


# --- asking --------------------------------------------------------------------------------------
def test_questions_are_asked_once_and_judged_one_by_one():
    calls = []

    def answer(questions):
        calls.append(list(questions))
        return [question.upper() for question in questions]

    answered = evaluate(["a", "B"], answer, lambda q, a: q == a, name="shouter")
    assert calls == [["a", "B"]]
    assert (answered.name, answered.answers, answered.right) == (
        "shouter",
        ("A", "B"),
        (False, True),
    )
    assert answered.score == Score(1, 2)


def test_a_missing_answer_is_refused():
    with pytest.raises(ValueError, match=r"2 questions need as many answers.*got 1"):
        evaluate([1, 2], lambda questions: [1], int.__eq__)
    with pytest.raises(ValueError, match="at least one question"):
        evaluate([], lambda questions: [], int.__eq__)


def test_the_likeliest_option_is_chosen_and_length_may_be_divided_away():
    table = {"a": -3.0, "bb": -2.0, "cccc": -3.9}

    def log_prob(prompt, options):
        assert prompt == "which"
        return [table[option] for option in options]

    assert choose_by_log_prob("which", [*table], log_prob) == 1
    assert choose_by_log_prob("which", [*table], log_prob, length=len) == 2
    with pytest.raises(ValueError, match="at least two options"):
        choose_by_log_prob("which", ["a"], log_prob)
    with pytest.raises(ValueError, match="2 options need as many numbers; got 1"):
        choose_by_log_prob("which", ["a", "b"], lambda *_: [0.0])


# --- two scores ----------------------------------------------------------------------------------
def test_pairing_makes_a_small_difference_sure():
    """15 of 200 questions: too few for two separate intervals, enough for the paired one."""
    a = result([1] * 115 + [0] * 85)
    b = result([1] * 100 + [0] * 100)
    assert a.score.interval[0] < b.score.interval[1]
    paired = difference(a, b)
    assert paired.value == pytest.approx(0.075)
    assert 0 < paired.low < 0.075 < paired.high


def test_the_bootstrap_has_the_spread_of_theory():
    """Of n gains in {-1, 0, 1}, the mean's deviation is √(variance / n)."""
    a, b = result([1, 0, 1, 0] * 100), result([1, 1, 0, 0] * 100)
    reach = 1.96 * sqrt(0.5 / 400)
    paired = difference(a, b)
    assert (paired.low, paired.high) == pytest.approx((-reach, reach), rel=0.1)
    assert difference(a, b) == paired != difference(a, b, seed=1)


@given(st.lists(st.tuples(st.booleans(), st.booleans()), min_size=1, max_size=30))
def test_a_difference_changes_its_sign_with_the_order(pairs):
    a, b = (result(side) for side in zip(*pairs, strict=True))
    ab, ba = (difference(*both, n_resamples=50) for both in ((a, b), (b, a)))
    assert (ba.value, ba.low, ba.high) == pytest.approx((-ab.value, -ab.high, -ab.low))
    assert difference(a, a, n_resamples=50) == Estimate(0, 0, 0)


def test_different_questions_are_not_compared():
    with pytest.raises(ValueError, match="x and y must have answered the same"):
        difference(result([1], "x", ("q",)), result([1], "y", ("r",)))


# --- many scores ---------------------------------------------------------------------------------
@given(SCORES, st.integers(1, 9))
def test_the_average_of_one_task_is_its_score_and_of_k_alike_is_surer_by_the_root(score, k):
    low, high = score.interval
    average = macro_average([score] * k)
    assert average.value == pytest.approx(score.share)
    assert average.value - average.low == pytest.approx((score.share - low) / sqrt(k), abs=1e-9)
    assert average.high - average.value == pytest.approx((high - score.share) / sqrt(k), abs=1e-9)


def test_a_task_counts_once_however_many_questions_it_has():
    assert macro_average([Score(1, 1), Score(0, 1000)]).value == 0.5
    with pytest.raises(ValueError, match="at least one score"):
        macro_average([])


# --- contamination -------------------------------------------------------------------------------
def test_a_question_that_stood_in_training_is_seen_whole_and_in_parts():
    training = ["one two three four five six", "x y"]
    questions = ["two three four", "one two three nine", "x y", "six x", "seven"]
    both = overlap(training, questions, n=3)
    assert both.verbatim == (True, False, True, False, False)
    assert both.n_grams == (1.0, 0.5, 1.0, 0.0, 0.0)  # "six x" would lie across two texts
    assert (both.share_verbatim, both.share_above(), both.share_above(0.5)) == (0.4, 0.6, 0.4)


def test_chinese_is_compared_by_characters():
    both = overlap(["梅卖红李子。"], ["梅卖红李子", "宝卖红李子"], n=3, split=list)
    assert both.n_grams == pytest.approx((1, 2 / 3))


@pytest.mark.parametrize("questions, n", [([], 3), (["a", " "], 3), (["a"], 0)])
def test_an_empty_exam_is_refused(questions, n):
    with pytest.raises(ValueError, match="n must be at least 1"):
        overlap(["a"], questions, n=n)


@pytest.mark.parametrize("texts, questions", [("Mei sells plums.", ["Mei"]), (["Mei"], "Mei")])
def test_one_text_is_no_list_of_texts(texts, questions):
    with pytest.raises(ValueError, match="must be lists of texts; got one text"):
        overlap(texts, questions)
