"""Shop arithmetic: what is paid, shared or left over, in one to four steps (分步计算).

    Mei buys 3 plums at 2 coins each and 2 pears at 3 coins each. What does Mei pay?
    Steps: 3 · 2 = 6. 2 · 3 = 6. 6 + 6 = 12. Answer: 12.

A problem holds its question, and the steps as data. Each question can be asked in two ways: with
the answer at once (`direct`), or with the steps before it (`worked`), so that one model can be
taught both and the two can be compared.

There are four kinds, each with one basket of goods or with two:

==========  ================================================  ==========
total       what is paid                                      1, 3 steps
change      what is left of a note                            2, 4 steps
share       what each pays, if several pay equal parts        2, 4 steps
difference  how much more one of two baskets costs            3 steps
==========  ================================================  ==========

Every number is a whole number of at most three digits, and every division comes out even. Goods
and prices are those of the town. The English and the Chinese stream of one seed tell the same
problems.

Paper: Cobbe et al. 2021, "Training Verifiers to Solve Math Word Problems", arXiv:2110.14168,
section 2, for word problems with worked steps (from memory).
Differs: generated, so that every step is known as data and not only the answer.

Chapter: 08
"""

import random
import re
from dataclasses import dataclass
from functools import cache
from operator import add, floordiv, mul, sub
from typing import final

from minillm.town.chance import block_rng
from minillm.town.story_words import things_of
from minillm.town.world import Good, World

BLOCK = 64
N_PEOPLE = 20  # the most famous, who go shopping
NOTES = (10, 20, 50, 100, 200, 500)  # coins
FEWEST, MOST = 2, 9  # of one good
MOST_FRIENDS = 5
LARGEST = 999
KINDS = ("total", "change", "share", "difference")  # the last one only with two baskets
# a, b people; x, y baskets; goods both of them; note; k friends
WORDINGS = """
en total: {a} buys {goods}. What does {a} pay?
en total: {a} sells {goods}. What does {a} get?
en total: How many coins are paid for {goods}?
en change: {a} buys {goods} and pays with {note} coins. What does {a} get back?
en change: {a} has {note} coins and buys {goods}. How many coins are left?
en change: {a} gives {b} {note} coins for {goods}. What is the change?
en share: {k} friends buy {goods} and pay equal parts. What does each pay?
en share: {a} buys {goods}. {k} people share the cost. What is one part?
en share: The cost of {goods} is shared among {k}. What does each pay?
en difference: {a} buys {x}. {b} buys {y}. How many coins more does one of them pay?
en difference: How many coins lie between {x} and {y}?
en difference: {a} pays for {x} and {b} pays for {y}. How many coins lie between the two?
zh total: {a}买了{goods}。{a}要付多少块？
zh total: {a}卖了{goods}。{a}收到多少块？
zh total: 买{goods}一共多少块？
zh change: {a}买了{goods}，付了{note}块。找回多少块？
zh change: {a}有{note}块，买了{goods}。还剩多少块？
zh change: {a}给{b}{note}块，买{goods}。找多少块？
zh share: {k}个朋友买了{goods}，平分付钱。每人付多少块？
zh share: {a}买了{goods}。{k}个人分担。一份是多少块？
zh share: {goods}的钱由{k}个人平分。每人付多少块？
zh difference: {a}买了{x}。{b}买了{y}。两人相差多少块？
zh difference: {x}和{y}相差多少块？
zh difference: {a}付{x}的钱，{b}付{y}的钱。差多少块？
"""
N_WORDINGS = 3
# before the steps, before the answer, a full stop, between parts, between two baskets
SIGNS = {
    "en": ("Steps: ", "Answer: ", ".", " ", " and "),
    "zh": ("步骤：", "答案：", "。", "", "和"),
}
_RESULTS = {"·": mul, "+": add, "-": sub, "÷": floordiv}
_STEP = re.compile(r"(\d+) ([·+÷-]) (\d+) = (\d+)")
_ANSWER = re.compile(r"(?:Answer: |答案：)(\d+)")


@final
@dataclass(frozen=True)
class Step:
    """One line of arithmetic.

    Example:
        >>> str(Step(3, "·", 4))
        '3 · 4 = 12'
    """

    left: int
    sign: str
    right: int

    @property
    def result(self) -> int:
        """What comes out."""
        return _RESULTS[self.sign](self.left, self.right)

    def __str__(self) -> str:
        return f"{self.left} {self.sign} {self.right} = {self.result}"


@final
@dataclass(frozen=True)
class Problem:
    """A question and its truth.

    Args:
        kind: "total", "change", "share" or "difference".
        question: as it is asked.
        steps: the last one gives the answer.
        language: "en" or "zh".
        wording: 0 to 2.
    """

    kind: str
    question: str
    steps: tuple[Step, ...]
    language: str
    wording: int

    @property
    def answer(self) -> int:
        """Coins."""
        return self.steps[-1].result

    @property
    def direct(self) -> str:
        """The question and the answer."""
        _, says, stop, gap, _ = SIGNS[self.language]
        return f"{self.question}{gap}{says}{self.answer}{stop}"

    @property
    def worked(self) -> str:
        """The question, the steps and the answer."""
        begin, says, stop, gap, _ = SIGNS[self.language]
        steps = gap.join(f"{step}{stop}" for step in self.steps)
        return f"{self.question}{gap}{begin}{steps}{gap}{says}{self.answer}{stop}"


@final
@dataclass(frozen=True)
class Finding:
    """What is wrong with a worked answer.

    Args:
        step: number of the wrong step, from 1; the answer counts as one more.
        reason: "arithmetic", it does not come out; "plan", it is not called for, or is there
            twice; "missing"; "answer", it is not what the steps give.
    """

    step: int
    reason: str


def check(problem: Problem, text: str) -> Finding | None:
    """The first thing wrong with a worked answer, or None.

    Steps may come in any order, and the two sides of + and · may be exchanged.

    Args:
        problem: that was to be solved.
        text: the answer; the question may stand before it.

    Example:
        >>> problem = Problem("total", "", (Step(3, "·", 4), Step(12, "+", 5)), "en", 0)
        >>> check(problem, "3 · 4 = 12. 12 + 5 = 18. Answer: 17.")
        Finding(step=2, reason='arithmetic')
    """
    left_over, number = [_sides(step) for step in problem.steps], 0
    for number, (left, sign, right, result) in enumerate(_STEP.findall(text), 1):
        step = Step(int(left), sign, int(right))
        # 1. a division by zero comes out as nothing
        if (sign == "÷" and step.right == 0) or step.result != int(result):
            return Finding(number, "arithmetic")
        # 2. it is one of those that are still to do
        if _sides(step) not in left_over:
            return Finding(number, "plan")
        left_over.remove(_sides(step))
    answer = read_answer(text)
    if left_over or answer is None:
        return Finding(number + 1, "missing")
    return None if answer == problem.answer else Finding(number + 1, "answer")


def read_answer(text: str) -> int | None:
    """The number that a text gives as its answer; None if it gives none.

    Example:
        >>> read_answer("3 · 4 = 12. Answer: 12."), read_answer("12")
        (12, None)
    """
    answers = _ANSWER.findall(text)
    return int(answers[-1]) if answers else None


@cache
def wordings(language: str, kind: str) -> tuple[str, ...]:
    """The ways to ask a question, with blanks.

    Example:
        >>> wordings("en", "total")[0]
        '{a} buys {goods}. What does {a} pay?'
    """
    rows = (row.partition(": ") for row in WORDINGS.strip().splitlines())
    return tuple(way for key, _, way in rows if key == f"{language} {kind}")


@final
@dataclass(frozen=True)
class MarketSource:
    """Problems without end, in blocks of 64.

    Args:
        world: the town.
        language: "en" or "zh".

    Raises:
        ValueError: another language.

    Example:
        >>> problem = MarketSource(World()).block(0)[0]
        >>> check(problem, problem.worked) is None
        True
    """

    world: World
    language: str = "en"

    def __post_init__(self) -> None:
        if self.language not in SIGNS:
            raise ValueError(f'language must be "en" or "zh"; got {self.language!r}')

    def block(self, index: int, seed: int | str = 0) -> list[Problem]:
        """The 64 problems number 64·index to 64·index + 63 of a stream.

        Args:
            index: 0, 1, 2, …
            seed: another seed, another stream.

        Raises:
            ValueError: a negative index.
        """
        rng = block_rng(f"market/{self.world.seed}/{seed}/{index}", index)
        return [self._problem(rng) for _ in range(BLOCK)]

    def _problem(self, rng: random.Random) -> Problem:
        goods = [self.world.good(name) for name in rng.sample(things_of(self.world), 2)]
        baskets = [(rng.randint(FEWEST, MOST), good) for good in goods[: rng.randint(1, 2)]]
        kind = rng.choice(KINDS[: 2 + len(baskets)])
        people = rng.sample(self.world.people[:N_PEOPLE], 2)
        wording, luck = rng.randrange(N_WORDINGS), rng.random()
        # 1. what each basket costs
        steps = [Step(n, "·", good.price) for n, good in baskets]
        costs = [step.result for step in steps]
        # 2. both together, or the difference
        if len(costs) == 2:
            less = Step(max(costs), "-", min(costs))
            steps.append(less if kind == "difference" else Step(costs[0], "+", costs[1]))
        # 3. from a note, or among friends
        cost = steps[-1].result
        notes = [note for note in NOTES if note > cost][:2]
        friends = [k for k in range(2, MOST_FRIENDS + 1) if cost % k == 0]
        choices = {"change": notes, "share": friends}.get(kind, [0])
        if not choices or cost == 0 or max(s.result for s in steps) > LARGEST:
            return self._problem(rng)
        number = choices[int(luck * len(choices))]
        last = {"change": Step(number, "-", cost), "share": Step(cost, "÷", number)}
        steps += [last[kind]] if kind in last else []
        a, b = (p.chinese if self.language == "zh" else p.name for p in people)
        phrases = [self._basket(n, good) for n, good in baskets]
        blanks = {"a": a, "b": b, "note": number, "k": number, "x": phrases[0]}
        blanks |= {"y": phrases[-1], "goods": SIGNS[self.language][4].join(phrases)}
        question = wordings(self.language, kind)[wording].format_map(blanks)
        return Problem(kind, question, tuple(steps), self.language, wording)

    def _basket(self, n: int, good: Good) -> str:
        if self.language == "zh":
            return f"{n}{good.measure}{good.chinese}（每{good.measure}{good.price}块）"
        return f"{n} {good.general} at {good.price} coin{'s' * (good.price > 1)} each"


def _sides(step: Step) -> tuple[str, tuple[int, ...]]:
    """The same for 3 · 4 and 4 · 3."""
    sides = (step.left, step.right)
    return step.sign, tuple(sorted(sides)) if step.sign in "·+" else sides
