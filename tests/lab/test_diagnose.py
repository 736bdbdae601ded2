"""minillm.lab.diagnose: what is equal, and what an answer is told."""

import math

import pytest
import torch

from minillm.lab.diagnose import hold, same
from minillm.lab.grade import Diagnosis

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
