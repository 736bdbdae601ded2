"""Hold an answer to the right one, and recognise typical mistakes by what they give.

A grader has a few cases, a right function, and a list of wrong ones with a message each. If an
answer differs from the right function on some case, and agrees with a wrong one on every case, it
has made that mistake. So a mistake is written once, as code, and its message is true: the answer
does give what that code gives.

Chapter: 00
"""

import copy
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

from minillm.lab.grade import Diagnosis

RTOL, ATOL = 1e-4, 1e-6
SHOWN = 6  # numbers of a tensor


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
