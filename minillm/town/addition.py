"""Sums of two numbers, written in three formats: the same truth, harder or easier to learn.

A model writes from left to right, but a sum is worked out from right to left: the first digit of
the answer depends on every carry, and so on all the digits behind it. Three ways to solve 95 + 17:

==========  ==========================================================
plain       ``9 5 + 1 7 =  1 1 2 .``
reversed    ``9 5 + 1 7 =  2 1 1 .``
scratchpad  ``9 5 + 1 7 =  5 + 7 + 0 = 1 2 , 9 + 1 + 1 = 1 1 ; 1 1 2 .``
==========  ==========================================================

*Reversed* writes the last digit of the answer first. So every digit needs one column and one carry,
and the carry can be told from the column before. A *scratchpad* (草稿纸) writes each column, last
digit first: two digits, the carry that comes in, and what they give as two digits, the first of
which is the carry that goes out. Only then comes the answer.

All is single digits and signs with blanks between them, and each is one token.

A pair of numbers has two orders, 95 + 17 and 17 + 95. About one pair in eight is held out, in both
orders: it is in no block to learn from, so a model cannot know it by heart.

Paper: Lee et al. 2023, "Teaching Arithmetic to Small Transformers", arXiv:2307.03381, figure 1
(plain, reverse, simplified scratchpad); Nye et al. 2021, "Show Your Work: Scratchpads for
Intermediate Computation with Language Models", arXiv:2112.00114 (long addition; from memory).
Differs: our scratchpad writes a column as one sum. Numbers are drawn alike, where Lee et al. also
balance how many digits and carries there are (from memory).

Chapter: 24
"""

from collections.abc import Sequence
from dataclasses import dataclass
from hashlib import sha256
from itertools import takewhile
from typing import final

from minillm.town.chance import block_rng

BLOCK = 64
FORMATS = ("plain", "reversed", "scratchpad")
MOST_DIGITS = 9
SHARE_HELD_OUT = 1 / 8  # of the pairs
NEXT, ANSWER, END = ",", ";", "."  # before another column, before the answer, behind it
DIGITS = tuple("0123456789")
VOCABULARY = ("_", *DIGITS, "+", "=", NEXT, ANSWER, END)  # the first is padding
_IDS = {token: number for number, token in enumerate(VOCABULARY)}


def encode(text: str) -> list[int]:
    """The token ids of digits and signs.

    Raises:
        ValueError: a token that is not in the vocabulary, such as a number of two digits.

    Example:
        >>> encode("9 5 +"), decode([10, 6, 11])
        ([10, 6, 11], '9 5 +')
    """
    tokens = text.split()
    if unknown := [token for token in tokens if token not in _IDS]:
        raise ValueError(
            f"tokens are single digits and + = {NEXT} {ANSWER} {END} with blanks between them; "
            f"got {unknown[0]!r}"
        )
    return [_IDS[token] for token in tokens]


def decode(ids: Sequence[int]) -> str:
    """Digits and signs of token ids, with blanks between them."""
    return " ".join(VOCABULARY[number] for number in ids)


# --- a sum --------------------------------------------------------------------------------------
@final
@dataclass(frozen=True)
class Column:
    """One column of a sum: two digits, and the carry (进位) from its right.

    Args:
        left, right: the digits, 0 to 9.
        carry_in: 0 or 1.

    Example:
        >>> column = Column(5, 8, 0)
        >>> str(column), column.carry
        ('5 + 8 + 0 = 1 3', 1)
    """

    left: int
    right: int
    carry_in: int

    @property
    def carry(self) -> int:
        """What goes to the next column, 0 or 1."""
        return (self.left + self.right + self.carry_in) // 10

    def __str__(self) -> str:
        digit = (self.left + self.right + self.carry_in) % 10
        return f"{self.left} + {self.right} + {self.carry_in} = {self.carry} {digit}"


@final
@dataclass(frozen=True)
class Sum:
    """Two numbers to be added, and the truth.

    Args:
        left, right: of equally many digits each, the first of them not 0.

    Raises:
        ValueError: below 1, too long, or not of one length.

    Example:
        >>> problem = Sum(305, 128)
        >>> problem.question(), problem.completion("reversed")
        ('3 0 5 + 1 2 8 =', '3 3 4 .')
    """

    left: int
    right: int

    def __post_init__(self) -> None:
        lengths = {len(str(number)) for number in (self.left, self.right)}
        if min(self.left, self.right) < 1 or len(lengths) != 1 or max(lengths) > MOST_DIGITS:
            raise ValueError(
                f"both numbers must be at least 1, of equally many digits, {MOST_DIGITS} at most; "
                f"got {self.left} and {self.right}"
            )

    @property
    def answer(self) -> int:
        """What comes out."""
        return self.left + self.right

    @property
    def columns(self) -> tuple[Column, ...]:
        """The columns, last digit first; a carry out of the last one begins the answer."""
        columns, carry = [], 0
        for left, right in zip(str(self.left)[::-1], str(self.right)[::-1], strict=True):
            columns.append(Column(int(left), int(right), carry))
            carry = columns[-1].carry
        return tuple(columns)

    def question(self, style: str = "plain") -> str:
        """What is asked, up to and with its "=": the same in every format.

        Args:
            style: one of `FORMATS`.
        """
        _check_style(style)
        return f"{_spaced(self.left)} + {_spaced(self.right)} ="

    def completion(self, style: str = "plain") -> str:
        """What is to be written after the question: columns if there are any, the answer, ".".

        Args:
            style: one of `FORMATS`.

        Raises:
            ValueError: another format.
        """
        _check_style(style)
        answer = _spaced(self.answer)
        if style == "reversed":
            return f"{answer[::-1]} {END}"
        if style == "plain":
            return f"{answer} {END}"
        columns = f" {NEXT} ".join(map(str, self.columns))
        return f"{columns} {ANSWER} {answer} {END}"


def _spaced(number: int) -> str:
    return " ".join(str(number))


def _check_style(style: str) -> None:
    if style not in FORMATS:
        raise ValueError(f"the format must be one of {', '.join(FORMATS)}; got {style!r}")


# --- what a model wrote -------------------------------------------------------------------------
def read_answer(text: str, style: str = "plain") -> int | None:
    """The number that a completion gives as its answer; None if it gives none.

    Args:
        text: what was written after the question, with its end.
        style: one of `FORMATS`.

    Raises:
        ValueError: another format.

    Example:
        >>> read_answer("4 3 3 ."), read_answer("3 3 4 .", "reversed"), read_answer("4 3 3")
        (433, 433, None)
    """
    _check_style(style)
    tokens = text.split()
    if style == "scratchpad":
        tokens = tokens[tokens.index(ANSWER) + 1 :] if ANSWER in tokens else []
    *digits, end = tokens or [""]
    if end != END or not digits or not all(token in DIGITS for token in digits):
        return None
    return int("".join(digits[::-1] if style == "reversed" else digits))


def right_steps(problem: Sum, text: str) -> list[bool]:
    """Of each column of a scratchpad, whether it is right at its place; the answer is one more.

    Args:
        problem: that was to be solved.
        text: what was written after the question, with its end.

    Returns:
        One a column that was written, and one for the answer if a ";" announces it.

    Example:
        >>> right_steps(Sum(95, 17), "5 + 7 + 0 = 1 2 , 9 + 1 + 0 = 1 0 ; 1 0 2 .")
        [True, False, False]
    """
    tokens = text.split()
    before = " ".join(takewhile(lambda token: token not in (ANSWER, END), tokens))
    written = before.split(f" {NEXT} ") if before else []
    expected = [str(column) for column in problem.columns]
    right = [n < len(expected) and step == expected[n] for n, step in enumerate(written)]
    return right + [read_answer(text, "scratchpad") == problem.answer] * (ANSWER in tokens)


# --- sums without end ---------------------------------------------------------------------------
def is_held_out(problem: Sum) -> bool:
    """Whether a sum is for evaluation alone; the same for a + b and b + a.

    Example:
        >>> is_held_out(Sum(305, 128)) == is_held_out(Sum(128, 305))
        True
    """
    numbers = sorted((problem.left, problem.right))
    return sha256(f"addition/{numbers}".encode()).digest()[0] < 256 * SHARE_HELD_OUT


@final
@dataclass(frozen=True)
class AdditionSource:
    """Sums without end, in blocks of 64.

    Args:
        n_digits: of each number; its first digit is not 0.

    Raises:
        ValueError: outside 2 to 9.

    Example:
        >>> problem = AdditionSource().block(0)[0]
        >>> len(str(problem.left)), is_held_out(problem)
        (3, False)
    """

    n_digits: int = 3

    def __post_init__(self) -> None:
        if not 2 <= self.n_digits <= MOST_DIGITS:
            raise ValueError(f"n_digits must be 2 to {MOST_DIGITS}; got {self.n_digits}")

    def block(self, index: int, seed: int | str = 0, *, held_out: bool = False) -> list[Sum]:
        """The 64 sums number 64·index to 64·index + 63 of a stream.

        Args:
            index: 0, 1, 2, …
            seed: another seed, another stream.
            held_out: sums that no other block has, for evaluation.

        Raises:
            ValueError: a negative index.
        """
        rng = block_rng(f"addition/{self.n_digits}/{held_out}/{seed}/{index}", index)
        numbers = range(10 ** (self.n_digits - 1), 10**self.n_digits)
        problems: list[Sum] = []
        while len(problems) < BLOCK:
            problem = Sum(rng.choice(numbers), rng.choice(numbers))
            if is_held_out(problem) == held_out:
                problems.append(problem)
        return problems
