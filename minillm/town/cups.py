"""Cups and swaps (换杯子): where everything is, after some cups have changed places.

    C A B E D   1-3 2-4   ?        under cups 1 to 5 lie C, A, B, E, D; swap cups 1 and 3, then 2, 4
    B A C E D                      after the first swap
    B E C A D                      after the second: the answer

Each swap is done to what the one before has left. No swap can be looked up in the question alone,
and none can be left out. So the task asks for as many operations in a row as it has swaps, and it
asks for nothing else: there is no arithmetic, and no word to understand.

A problem can be written down in several formats, which differ in what stands between the question
and the answer:

========  ============================================  ==========================================
direct    nothing                                       ? = B E C A D .
dots      dots, as many as the steps have tokens        ? · · · … · = B E C A D .
states    what lies under the cups after each swap      ? B A C E D B E C A D = B E C A D .
steps     each swap once more, and what it leaves       ? 1-3 B A C E D 2-4 B E C A D = B E C A D .
indexed   the same, where every swap has a number       #1 1-3 #2 2-4 ? #1 1-3 B A C E D #2 2-4 …
========  ============================================  ==========================================

All is words with blanks between them, and each word is one token.

**Guessing.** Five things can lie in 120 orders. A swap turns an even order into an odd one, so
whoever counts the swaps is left with 60, and guesses right in 1.7 %. After few swaps not all orders
are equally likely: `guessing` says how often the likeliest is right, 10 % for one or two.

Paper: the word problem of the symmetric group S₅, as in Li et al. 2024, "Chain of Thought Empowers
Transformers to Solve Inherently Serial Problems", arXiv:2402.12875, section 4 (composition of
permutations); dots are Pfau et al. 2024, "Let's Think Dot by Dot", arXiv:2404.15758. From memory.
Differs: single swaps in place of any permutations; the order at the beginning is part of the
question; five formats of the chain.

Chapter: 24
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cache
from itertools import combinations, count
from typing import final

from minillm.town.chance import block_rng

BLOCK = 64
THINGS = "ABCDE"
SWAPS = tuple(combinations(range(1, len(THINGS) + 1), 2))  # cups are counted from 1
MOST_SWAPS = 16
FORMATS = ("direct", "dots", "states", "steps", "indexed")
GUESSING = 1 / 60
#: Words that the town's solvers know; the first is padding.
TRIGGER = "let's think step by step"
HEADING = "here is the whole way"  # another beginning of steps
REMARK = "that was quick"
VOCABULARY = tuple(
    dict.fromkeys(
        ["_", "?", "=", ".", "·", *THINGS]
        + [f"{a}-{b}" for a, b in SWAPS]
        + [f"#{n}" for n in range(1, MOST_SWAPS + 1)]
        + f"{TRIGGER} {HEADING} {REMARK}".split()
    )
)
_IDS = {word: number for number, word in enumerate(VOCABULARY)}


def encode(text: str) -> list[int]:
    """The token ids of words.

    Raises:
        ValueError: a word that is not in the vocabulary.

    Example:
        >>> encode("A 1-2 ?"), decode([5, 10, 1])
        ([5, 10, 1], 'A 1-2 ?')
    """
    try:
        return [_IDS[word] for word in text.split()]
    except KeyError as error:
        raise ValueError(
            f"words must be among the {len(VOCABULARY)} of cups.VOCABULARY, with blanks between "
            f"them; got {error.args[0]!r}"
        ) from None


def decode(ids: Sequence[int]) -> str:
    """Words of token ids, with blanks between them."""
    return " ".join(VOCABULARY[number] for number in ids)


def swap(state: str, cups: tuple[int, int]) -> str:
    """What lies under the cups after two of them have changed places.

    Example:
        >>> swap("CABED", (1, 3))
        'BACED'
    """
    things = list(state)
    a, b = (cup - 1 for cup in cups)
    things[a], things[b] = things[b], things[a]
    return "".join(things)


@cache
def guessing(n_swaps: int) -> float:
    """How often the best guess is right that knows the beginning, but not which swaps there were.

    Example:
        >>> [round(guessing(n), 3) for n in (1, 2, 3, 8)]
        [0.1, 0.1, 0.034, 0.018]
    """
    chances = {THINGS: 1.0}
    for _ in range(n_swaps):
        after: dict[str, float] = {}
        for state, chance in chances.items():
            for cups in SWAPS:
                other = swap(state, cups)
                after[other] = after.get(other, 0.0) + chance / len(SWAPS)
        chances = after
    return max(chances.values())


@final
@dataclass(frozen=True)
class Problem:
    """A beginning and some swaps, and with them every state in between.

    Args:
        start: what lies under cups 1 to 5.
        swaps: pairs of cups, the smaller number first; at least one.

    Raises:
        ValueError: another beginning, no swap, or one of other cups.
    """

    start: str
    swaps: tuple[tuple[int, int], ...]

    def __post_init__(self) -> None:
        whole = sorted(self.start) == list(THINGS)
        if not whole or not self.swaps or not set(self.swaps) <= set(SWAPS):
            raise ValueError(
                f"a problem needs {', '.join(THINGS)} in some order, and at least one swap such as "
                f"(1, 3), the smaller number first; got {self.start!r} and {self.swaps}"
            )

    @property
    def states(self) -> tuple[str, ...]:
        """After each swap."""
        states, state = [], self.start
        for cups in self.swaps:
            state = swap(state, cups)
            states.append(state)
        return tuple(states)

    @property
    def answer(self) -> str:
        """After the last one."""
        return self.states[-1]

    def question(self, style: str = "direct") -> str:
        """What is asked, up to and with the question mark.

        Args:
            style: "indexed" gives every swap a number; all other formats ask alike.
        """
        words = [*self.start]
        for number, (a, b) in enumerate(self.swaps, 1):
            words += [f"#{number}"] * (style == "indexed") + [f"{a}-{b}"]
        return " ".join([*words, "?"])

    def steps(self, style: str) -> list[str]:
        """What stands between question and answer, a text for each swap.

        Raises:
            ValueError: there is no such format.
        """
        if style not in FORMATS:
            raise ValueError(f"the format must be one of {', '.join(FORMATS)}; got {style!r}")
        steps = []
        for number, ((a, b), state) in enumerate(zip(self.swaps, self.states, strict=True), 1):
            step = {
                "direct": [],
                "dots": ["·"] * (1 + len(THINGS)),
                "states": [*state],
                "steps": [f"{a}-{b}", *state],
                "indexed": [f"#{number}", f"{a}-{b}", *state],
            }[style]
            steps.append(" ".join(step))
        return steps

    def completion(self, style: str) -> str:
        """What is to be written after the question: the steps, "=", the answer, ".".

        Example:
            >>> Problem("CABED", ((1, 3),)).completion("steps")
            '1-3 B A C E D = B A C E D .'
        """
        return " ".join(filter(None, [*self.steps(style), "=", *self.answer, "."]))

    def renamed(self, names: str) -> "Problem":
        """The same problem, where A has the first of these names, B the second, and so on.

        Args:
            names: the five things in another order.
        """
        return Problem(self.start.translate(str.maketrans(THINGS, names)), self.swaps)


def read_answer(text: str) -> str | None:
    """The five things after the last "="; None if they are not there.

    Example:
        >>> read_answer("1-3 B A C E D = B A C E D ."), read_answer("1-3 B A C E D")
        ('BACED', None)
    """
    _, equals, after = text.rpartition("=")
    things = "".join(after.replace(".", " ").split())
    return things if equals and sorted(things) == sorted(THINGS) else None


def right_steps(problem: Problem, text: str, style: str = "steps") -> list[bool]:
    """Of each step that was written, whether it is right at its place; and whether the answer is.

    Args:
        problem: that was to be solved.
        text: what was written after the question.
        style: the format it is in, one with states.

    Raises:
        ValueError: a format without states.

    Example:
        >>> problem = Problem("CABED", ((1, 3), (2, 4)))
        >>> right_steps(problem, "1-3 B A C E D 2-4 B A C E D = B A C E D .")
        [True, False, False]
        >>> right_steps(problem, "1-3 B A C E D")  # no answer
        [True, False]
    """
    if style not in ("states", "steps", "indexed"):
        raise ValueError(f"steps are checked in formats with states; got {style!r}")
    written, equals, after = text.partition("=")
    size = len(problem.steps(style)[0].split())
    words = written.split()
    steps = [" ".join(words[i : i + size]) for i in range(0, len(words), size)]
    expected = problem.steps(style)
    right = [n < len(expected) and step == expected[n] for n, step in enumerate(steps)]
    return [*right, bool(equals) and read_answer(equals + after) == problem.answer]


@final
@dataclass(frozen=True)
class CupSource:
    """Problems without end, in blocks of 64.

    Args:
        lengths: how many swaps; each length is as likely as another.

    Raises:
        ValueError: no length, or one below 1 or above 16.

    Example:
        >>> [len(problem.swaps) for problem in CupSource((2,)).block(0)][:3]
        [2, 2, 2]
    """

    lengths: tuple[int, ...] = (8,)

    def __post_init__(self) -> None:
        if not self.lengths or not all(1 <= n <= MOST_SWAPS for n in self.lengths):
            raise ValueError(
                f"lengths must be numbers of swaps from 1 to {MOST_SWAPS}; got {self.lengths}"
            )

    def block(self, index: int, seed: int | str = 0) -> list[Problem]:
        """The 64 problems number 64·index to 64·index + 63 of a stream.

        Args:
            index: 0, 1, 2, …
            seed: another seed, another stream.

        Raises:
            ValueError: a negative index.
        """
        rng = block_rng(f"cups/{self.lengths}/{seed}/{index}", index)
        return [
            Problem(
                "".join(rng.sample(THINGS, len(THINGS))),
                tuple(rng.choice(SWAPS) for _ in range(rng.choice(self.lengths))),
            )
            for _ in range(BLOCK)
        ]

    def problems(self, seed: int | str = 0) -> Iterator[Problem]:
        """All of them, one after the other."""
        for index in count():
            yield from self.block(index, seed)
