"""minillm.lab.diagnose: what is equal, and what an answer is told."""

import math

import pytest
import torch

from minillm.lab.diagnose import (
    check_sentence,
    held,
    hold,
    measured,
    randn,
    same,
    same_gradient,
    split_sentence,
    swapped,
)
from minillm.lab.grade import Diagnosis, as_number

CASES = [(torch.ones(2),)]


def double(x):
    return 2 * x, "twice"


def told(answer, right=double, cases=CASES, wrong=(), names=("the number", "the word")):
    with pytest.raises(Diagnosis) as error:
        hold(answer, right, cases, wrong, names)
    return str(error.value)


@pytest.mark.parametrize(
    ("got", "expected", "equal"),
    [
        (1.00001, 1.0, True),
        (1, 1.0, True),
        (1.1, 1.0, False),
        ("A", "A", True),
        ("a", "A", False),
        (True, 1, False),
        ([1, 2.0], (1, 2.0), True),
        ((1,), (1, 2), False),
        (math.nan, math.nan, True),
        (torch.ones(2), torch.ones(2, dtype=torch.float64), True),
        (torch.ones(2), torch.ones(2, 1), False),
        ("plum", 1.0, False),
    ],
)
def test_results_are_equal_if_their_numbers_nearly_are(got, expected, equal):
    assert same(got, expected) == equal


def test_a_right_answer_passes_also_with_a_list_for_a_tuple():
    names = ("the number", "the word")
    assert hold(lambda x: [x + x, "twice"], double, CASES, names=names) is None


def test_a_mistake_is_recognised_only_if_it_agrees_on_every_case():
    cases = [(1,), (2,)]
    wrong = [(lambda x: x + 1, "you add one."), (lambda x: x**3, "that is the cube.")]
    assert told(lambda x: x**3, lambda x: x * x, cases, wrong, ()) == "that is the cube."
    other = told(lambda x: {1: 2, 2: 8}[x], lambda x: x * x, cases, wrong, ())
    assert other == "for (1) your result should be 1; yours is 2."


def test_what_has_no_message_is_said_with_what_was_expected():
    assert "the word should be 'twice'; yours is 'two'" in told(lambda x: (2 * x, "two"))
    assert "the number must have the shape [2]; yours has [1]" in told(lambda x: (x[:1], "twice"))
    assert "the number must be a tensor; yours is float" in told(lambda x: (2.0, "twice"))
    assert told(lambda x: 2 * x) == "return 2 things, in this order: the number, the word."
    assert "returns nothing" in told(lambda x: None)
    assert "you change what was given" in told(lambda x: (x.mul_(2), "twice"))


def message_of(function, *arguments):
    with pytest.raises(Diagnosis) as error:
        function(*arguments)
    return str(error.value)


def test_a_grade_function_holds_what_it_reads_of_a_result():
    wrong = [(lambda x: -x, "a sign is wrong.")]
    grade = held(lambda x: x + 0.5, [(1.0,), (2.0,)], wrong, read=as_number)
    assert grade(lambda x: str(x + 0.5)) is None
    assert message_of(grade, lambda x: str(-x)) == "a sign is wrong."
    assert "your result should be 1.5; yours is 1" in message_of(grade, lambda x: x)


def test_an_answer_with_a_sentence_has_all_its_numbers():
    assert split_sentence(["3", 4, "because"], 2) == ([3.0, 4.0], "because")
    assert "return 2 numbers and your sentence" in message_of(split_sentence, (3, "because"), 2)
    assert "a number is None" in message_of(split_sentence, (None, "because"))


@pytest.mark.parametrize("sentence", ["a b c", "七个字不够长", None, 12345678])
def test_a_sentence_has_four_words_or_eight_characters(sentence):
    assert check_sentence("four words will do", "why") is None
    assert check_sentence("这里有八个汉字吧", "why") is None
    assert message_of(check_sentence, sentence, "why") == "now say in a sentence why."


def test_a_measured_number_is_near_the_right_one_or_recognised():
    graded = measured(10.0, [(0.0, "none."), (20.0, "twice.")], "measure it.", "why", 0.05)
    because = "because it is so"
    for number, message in [(20.9, "twice."), (0, "none."), (11, "11 is not it: measure it.")]:
        assert message_of(graded["grade"], lambda n=number: (n, because)) == message
    assert graded["grade"](lambda: (10.4, because)) is None
    for answer, message in graded["wrong"]:
        assert message_of(graded["grade"], answer) == message


def test_a_gradient_is_held_to_the_right_one():
    x, fourth = randn(3), lambda x: x**4
    assert same_gradient(lambda x: x * x * x * x, fourth, x) is None
    assert "no gradient flows" in message_of(same_gradient, lambda x: fourth(x).detach(), fourth, x)
    partly = message_of(same_gradient, lambda x: x**2 * (x**2).detach(), fourth, x)
    assert partly.startswith("the result is right, its gradient is not: ")


def test_random_numbers_are_the_same_in_every_run():
    before = torch.rand(1, generator=torch.Generator().manual_seed(1))
    torch.manual_seed(1)
    assert torch.equal(randn(4), randn(4)) and not torch.equal(randn(4), randn(4, seed=1))
    assert torch.equal(torch.rand(1), before)


def test_two_results_are_swapped_and_no_other():
    of = swapped(str.lower, "a", "b")
    assert [of(letter) for letter in "ABC"] == ["b", "a", "c"]
