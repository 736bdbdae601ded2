"""Hold an answer to the right one, and recognise typical mistakes by what they give.

A grader has a few cases, a right function, and a list of wrong ones with a message each. If an
answer differs from the right function on some case, and agrees with a wrong one on every case, it
has made that mistake. So a mistake is written once, as code, and its message is true: the answer
does give what that code gives. `held` makes a grade function of all that, `measured` one for a
number with a sentence; `same_gradient`, `randn` and `swapped` are for cases and for mistakes.

Chapter: 00
"""

import copy
import math
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

from minillm.lab.grade import Diagnosis, as_number, as_tensor

RTOL, ATOL = 1e-4, 1e-6
SHOWN = 6  # numbers of a tensor
NO_GRADIENT = "no gradient flows through your result; .item(), .detach() and no_grad cut it off."


def hold(
    answer: Callable,
    right: Callable,
    cases: Sequence[tuple],
    wrong: Sequence[tuple[Callable, str]] = (),
    names: Sequence[str] = (),
) -> None:
    """Compare an answer with the right function, case by case.

    Args:
        answer: the learner's function.
        right: the reference.
        cases: the arguments of each call.
        wrong: typical mistakes, (function, message).
        names: of the results, where there are several.

    Raises:
        Diagnosis: the first thing that is wrong.

    Example:
        >>> hold(lambda x: -x, lambda x: x * x, [(2,), (3,)], [(lambda x: -x, "a sign is wrong.")])
        Traceback (most recent call last):
        minillm.lab.grade.Diagnosis: a sign is wrong.
    """
    results = [_called(answer, case, names) for case in cases]
    rights = [right(*copy.deepcopy(case)) for case in cases]
    if all(map(same, results, rights)):
        return
    for mistake, message in wrong:
        if all(
            same(got, mistake(*copy.deepcopy(case)))
            for got, case in zip(results, cases, strict=True)
        ):
            raise Diagnosis(message)
    for case, got, expected in zip(cases, results, rights, strict=True):
        _agree(case, got, expected, names)


def held(
    right: Callable,
    cases: Sequence[tuple],
    wrong: Sequence[tuple[Callable, str]] = (),
    names: Sequence[str] = (),
    read: Callable[[Any], Any] | None = None,
) -> Callable[[Callable], None]:
    """`hold` for a `Grader`: all that it needs but the answer.

    Args:
        right, cases, wrong, names: see `hold`.
        read: makes of each result what is compared: `as_number` takes any type of number.

    Example:
        >>> grade = held(lambda x: x / 2, [(3.0,)], read=as_number)
        >>> grade(lambda x: "1.5")
        >>> grade(lambda x: 1)
        Traceback (most recent call last):
        minillm.lab.grade.Diagnosis: for (3) your result should be 1.5; yours is 1.
    """

    def grade(answer: Callable) -> None:
        called = answer if read is None else lambda *case: read(answer(*case))
        hold(called, right, cases, wrong, names)

    return grade


def split_sentence(got: Any, n_numbers: int = 1) -> tuple[list[float], Any]:
    """The numbers of an answer, and the sentence that explains them and stands last.

    Raises:
        Diagnosis: there is another number of things, or a number is none.

    Example:
        >>> split_sentence((11, 0.5, "because half of them are lost"), n_numbers=2)
        ([11.0, 0.5], 'because half of them are lost')
        >>> split_sentence(11)
        Traceback (most recent call last):
        minillm.lab.grade.Diagnosis: return the number and your sentence, as in 2.0, "because …".
    """
    if not (isinstance(got, tuple | list) and len(got) == n_numbers + 1):
        what = "the number" if n_numbers == 1 else f"{n_numbers} numbers"
        raise Diagnosis(f'return {what} and your sentence, as in 2.0, "because …".')
    if None in got[:n_numbers]:
        raise Diagnosis("a number is None; measure, and put it there.")
    return [as_number(each) for each in got[:n_numbers]], got[n_numbers]


def check_sentence(sentence: Any, why: str) -> None:
    """A sentence must be there: four words, or eight characters of any script; nobody grades it.

    Example:
        >>> check_sentence("修正后的平均就是梯度", "why it is one")
        >>> check_sentence("Adam", "why it is one")
        Traceback (most recent call last):
        minillm.lab.grade.Diagnosis: now say in a sentence why it is one.
    """
    if not isinstance(sentence, str) or (len(sentence.split()) < 4 and len(sentence) < 8):
        raise Diagnosis(f"now say in a sentence {why}.")


def measured(
    right: float,
    wrong: Sequence[tuple[float, str]],
    how: str,
    why: str,
    tolerance: float = 0.02,
) -> dict[str, Any]:
    """`grade` and `wrong` of a `Grader` for a number that is measured, with a sentence.

    Args:
        right: the number.
        wrong: numbers that a typical mistake gives, each with its message.
        how: how to measure; said to any other number.
        why: what the sentence has to explain.
        tolerance: relative, of the right number and of the wrong ones.

    Example:
        >>> graded = measured(8.0, [(64.0, "take the root.")], "count the rows.", "why so few")
        >>> graded["grade"](lambda: (8.1, "because a board has eight rows"))
        >>> graded["grade"](lambda: (64, "because a board has eight rows"))
        Traceback (most recent call last):
        minillm.lab.grade.Diagnosis: take the root.
        >>> [message for _, message in graded["wrong"]]
        ['take the root.', 'now say in a sentence why so few.']
    """

    def grade(answer: Callable) -> None:
        (number,), sentence = split_sentence(answer())
        for other, message in wrong:
            if math.isclose(number, other, rel_tol=tolerance, abs_tol=1e-9):
                raise Diagnosis(message)
        if not math.isclose(number, right, rel_tol=tolerance):
            raise Diagnosis(f"{shown(number)} is not it: {how}")
        check_sentence(sentence, why)

    def giving(number: float, sentence: str) -> Callable[[], tuple[float, str]]:
        return lambda: (number, sentence)

    pairs = [(giving(number, "because it is so"), message) for number, message in wrong]
    return {"grade": grade, "wrong": [*pairs, (giving(right, ""), f"now say in a sentence {why}.")]}


def same_gradient(answer: Callable, right: Callable, given: Tensor) -> None:
    """Hold the gradient of an answer to the right one's, by a weighted sum of the results.

    Raises:
        Diagnosis: no gradient flows, or it is another.

    Example:
        >>> same_gradient(lambda x: x * x, lambda x: x**2, torch.ones(3))
        >>> same_gradient(lambda x: (x * x).detach(), lambda x: x**2, torch.ones(3))
        Traceback (most recent call last):
        minillm.lab.grade.Diagnosis: no gradient flows through your result; .item(), .detach()
        and no_grad cut it off.
    """
    gradients = []
    for function in (answer, right):
        leaf = given.clone().requires_grad_()
        result = as_tensor(function(leaf))
        if not result.requires_grad:
            raise Diagnosis(NO_GRADIENT)
        back = randn(*result.shape, seed=9).to(result.dtype)
        (gradient,) = torch.autograd.grad((result * back).sum(), leaf, allow_unused=True)
        gradients.append(torch.zeros_like(leaf) if gradient is None else gradient)
    if not torch.allclose(*gradients, rtol=1e-3, atol=1e-6):
        own, needed = map(shown, gradients)
        raise Diagnosis(f"the result is right, its gradient is not: {needed} is; yours is {own}.")


def randn(*shape: int, seed: int = 0) -> Tensor:
    """Normal numbers that are the same in every run.

    Example:
        >>> torch.equal(randn(2, 3), randn(2, 3)), torch.equal(randn(4), randn(4, seed=1))
        (True, False)
    """
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def swapped(function: Callable, one: Any, other: Any) -> Callable:
    """A mistake: the same function with two of its results exchanged.

    Example:
        >>> [swapped(max, 2, 3)(n, 1) for n in (1, 2, 3)]
        [1, 3, 2]
    """

    def exchanged(*case: Any) -> Any:
        got = function(*case)
        return other if got == one else one if got == other else got

    return exchanged


def same(got: Any, expected: Any) -> bool:
    """Whether two results are equal: numbers nearly, NaN to itself, anything else exactly.

    Example:
        >>> same((1.0, "a"), [1.0000001, "a"]), same(torch.ones(2), torch.ones(3))
        (True, False)
    """
    if isinstance(expected, tuple | list):
        fits = isinstance(got, tuple | list) and len(got) == len(expected)
        return fits and all(map(same, got, expected))
    if isinstance(expected, Tensor):
        return (
            isinstance(got, Tensor)
            and got.shape == expected.shape
            and torch.allclose(got.double(), expected.double(), RTOL, ATOL, equal_nan=True)
        )
    if isinstance(expected, float):
        try:
            number = torch.tensor(float(got))
        except (TypeError, ValueError, RuntimeError):
            return False
        return same(number, torch.tensor(expected))
    return type(got) is type(expected) and got == expected


def shown(value: Any) -> str:
    """A result in few characters.

    Example:
        >>> shown(torch.arange(9.0)), shown((1, "plum"))
        ('0, 1, 2, 3, 4, 5, …', "1, 'plum'")
    """
    if isinstance(value, Tensor):
        numbers = [f"{number:.4g}" for number in value.flatten().tolist()]
        return ", ".join(numbers[:SHOWN]) + ", …" * (len(numbers) > SHOWN)
    if isinstance(value, tuple | list):
        return ", ".join(map(shown, value))
    text = f"{value:.4g}" if isinstance(value, float) else repr(value)
    return text if len(text) <= 80 else text[:77] + "…"


def _called(answer: Callable, case: tuple, names: Sequence[str]) -> Any:
    """What the answer gives; its arguments must stay as they are."""
    given = copy.deepcopy(case)
    got = answer(*given)
    if not all(map(same, given, case)):
        raise Diagnosis("you change what was given; build new values instead.")
    if got is None:
        raise Diagnosis("your function returns nothing; is there a `return`?")
    if names and not (isinstance(got, tuple | list) and len(got) == len(names)):
        raise Diagnosis(f"return {len(names)} things, in this order: {', '.join(names)}.")
    return got


def _agree(case: tuple, got: Any, expected: Any, names: Sequence[str]) -> None:
    if names:
        pairs = list(zip(names, got, expected, strict=True))
    else:
        pairs = [("your result", got, expected)]
    for name, own, needed in pairs:
        if isinstance(needed, Tensor) and not isinstance(own, Tensor):
            raise Diagnosis(f"{name} must be a tensor; yours is {type(own).__name__}.")
        if isinstance(needed, Tensor) and own.shape != needed.shape:
            raise Diagnosis(
                f"{name} must have the shape {[*needed.shape]}; yours has {[*own.shape]}."
            )
        if not same(own, needed):
            raise Diagnosis(
                f"for ({', '.join(shown(each) for each in case)}) {name} should be "
                f"{shown(needed)}; yours is {shown(own)}."
            )
