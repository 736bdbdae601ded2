"""An evaluation harness (评测框架): how many of some questions are answered rightly, and how sure.

    questions → answer → answers → is_right → 83 of 100 right: 83.0 % (74.5–89.1)

The harness never sees a model. It takes a function from questions to answers, and a function that
says whether an answer is right. So a person, a rule and a model are measured alike.

**How sure.** 100 questions are a sample of all that could be asked. The **confidence interval**
(置信区间) is made so that 95 of 100 such intervals hold the share that all questions would give.
With p the share in the sample, n its size and z = 1.96, Wilson's is

    (p + z²/2n ± z · √(p (1 - p)/n + z²/4n²)) / (1 + z²/n)

It stays between 0 and 1, and is not empty where all answers are right: 20 of 20 gives 83.9 to 100.

**Two models** answer the same questions, and some questions are hard for both. So one does not
compare two intervals. One draws questions again, with replacement, and looks at the difference of
the two each time: the **paired bootstrap** (配对自助法).

**Contamination** (数据污染) is a question that stood in the training text already. `overlap` looks
for the whole question, and for its **n-grams**: any 8 words in a row that training had too.

Paper: Wilson 1927, "Probable Inference, the Law of Succession, and Statistical Inference", Journal
of the American Statistical Association 22, 209-212. From memory: Newcombe 1998, Statistics in
Medicine 17, 873-890 (method 10: intervals of the parts give that of the whole); Koehn 2004,
"Statistical Significance Tests for Machine Translation Evaluation" (paired bootstrap); Brown et al.
2020, arXiv:2005.14165, appendix C (overlap of n-grams).
Differs: Newcombe's method is for the difference of two shares, and is used for the mean of several.
Brown et al. choose n for each test set, from 8 to 13; here the caller does.

Chapter: 20
"""

from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass, field
from math import sqrt
from statistics import fmean
from typing import Any, TypeVar, final

import numpy as np

Question, Answer = TypeVar("Question"), TypeVar("Answer")
Z = 1.959964  # of a normal distribution, 95 % lie within ± Z


@final
@dataclass(frozen=True)
class Estimate:
    """A share, or a difference of two, and its 95 % confidence interval.

    Args:
        value: as a fraction, not in percent.
        low, high: the ends of the interval.

    Example:
        >>> print(Estimate(0.0525, -0.01, 0.115))
        5.2 % (-1.0–11.5)
    """

    value: float
    low: float
    high: float

    def __str__(self) -> str:
        return f"{100 * self.value:.1f} % ({100 * self.low:.1f}–{100 * self.high:.1f})"


@final
@dataclass(frozen=True)
class Score:
    """How many of n answers are right.

    Raises:
        ValueError: no answer; more right ones than there are, or fewer than none.

    Example:
        >>> print(Score(83, 100))
        83.0 % (74.5–89.1)
    """

    n_right: int
    n: int

    def __post_init__(self) -> None:
        if not 0 <= self.n_right <= self.n or self.n < 1:
            raise ValueError(
                "a score needs at least one answer, and from 0 to all of them right; got "
                f"{self.n_right} of {self.n}"
            )

    @property
    def share(self) -> float:
        """Of the answers that are right, 0 to 1."""
        return self.n_right / self.n

    @property
    def interval(self) -> tuple[float, float]:
        """Wilson's 95 % confidence interval of the share."""
        p, n = self.share, self.n
        middle = p + Z**2 / (2 * n)
        reach = Z * sqrt(p * (1 - p) / n + Z**2 / (4 * n**2))
        low, high = ((middle + sign * reach) / (1 + Z**2 / n) for sign in (-1, 1))
        # 0 of n and n of n end at 0 and 1, which floats may miss by a last digit
        return min(p, max(0.0, low)), max(p, min(1.0, high))

    @property
    def estimate(self) -> Estimate:
        """The share with its interval."""
        return Estimate(self.share, *self.interval)

    def __str__(self) -> str:
        return str(self.estimate)


@final
@dataclass(frozen=True)
class Result:
    """Questions, answers, and which of them are right; three lists of one length.

    Args:
        name: of who answered, or of what was asked.
        questions, answers: in their order.
        right: whether each answer is.
    """

    name: str
    questions: tuple[Any, ...] = field(repr=False)
    answers: tuple[Any, ...] = field(repr=False)
    right: tuple[bool, ...] = field(repr=False)

    @property
    def score(self) -> Score:
        """How many are right."""
        return Score(sum(self.right), len(self.right))


def evaluate(
    questions: Sequence[Question],
    answer: Callable[[Sequence[Question]], Sequence[Answer]],
    is_right: Callable[[Question, Answer], bool],
    *,
    name: str = "",
) -> Result:
    """Ask all questions, and judge the answers.

    Args:
        questions: at least one.
        answer: from all questions to as many answers, in their order; it may do them in batches.
        is_right: judges one answer.
        name: of who answers.

    Raises:
        ValueError: no question; another number of answers.

    Example:
        >>> print(evaluate([1, 2, 3], lambda xs: [x * x for x in xs], lambda x, y: x == y).score)
        33.3 % (6.1–79.2)
    """
    if not questions:
        raise ValueError("there must be at least one question; got none")
    answers = tuple(answer(questions))
    if len(answers) != len(questions):
        raise ValueError(
            f"{len(questions)} questions need as many answers, in their order; got {len(answers)}. "
            "Give an empty one where there is none"
        )
    pairs = zip(questions, answers, strict=True)
    return Result(name, tuple(questions), answers, tuple(bool(is_right(*pair)) for pair in pairs))


def choose_by_log_prob(
    prompt: str,
    options: Sequence[str],
    log_prob: Callable[[str, Sequence[str]], Sequence[float]],
    *,
    length: Callable[[str], int] | None = None,
) -> int:
    """Multiple choice (选择题): the option that a model finds likeliest after the prompt.

    Args:
        prompt: what stands before each option.
        options: at least two.
        log_prob: from a prompt and all options to ln p(option | prompt) of each.
        length: of an option, such as its characters or tokens. Then log-probabilities are divided
            by it, so that a long option is not unlikely for its length alone; None: they are not.

    Returns:
        The number of the option, from 0; the first of those that are equally likely.

    Raises:
        ValueError: fewer than two options; another number of log-probabilities.

    Example:
        >>> log_prob = lambda prompt, options: [-4.0, -6.0]
        >>> choose_by_log_prob("Mei sells", ["tea", "plums"], log_prob)
        0
        >>> choose_by_log_prob("Mei sells", ["to", "plums"], log_prob, length=len)  # -2, -1.2
        1
    """
    if len(options) < 2:
        raise ValueError(f"a choice needs at least two options; got {list(options)}")
    values = list(log_prob(prompt, options))
    if len(values) != len(options):
        raise ValueError(f"{len(options)} options need as many numbers; got {len(values)}")
    if length is not None:
        values = [value / length(option) for value, option in zip(values, options, strict=True)]
    return max(range(len(values)), key=values.__getitem__)


def difference(a: Result, b: Result, *, n_resamples: int = 2000, seed: int = 0) -> Estimate:
    """By how much a is better than b on the same questions: the paired bootstrap.

    Args:
        a, b: two who answered.
        n_resamples: how often the questions are drawn again.
        seed: of the draws.

    Returns:
        The difference of shares, and the middle 95 % of its resamples. An interval without 0 says
        that one is better, and no other draw of such questions is likely to say otherwise; but
        where one is right and the other wrong on every question, no resample differs, and the
        interval is empty.

    Raises:
        ValueError: they were asked different questions.

    Example:
        >>> a = Result("a", (1, 2, 3, 4), (), (True, True, True, True))
        >>> b = Result("b", (1, 2, 3, 4), (), (True, True, True, False))
        >>> print(difference(a, b))
        25.0 % (0.0–75.0)
    """
    if a.questions != b.questions:
        raise ValueError(
            f"{a.name or 'a'} and {b.name or 'b'} must have answered the same questions in the "
            "same order. Evaluate both on one list"
        )
    gains = np.array(a.right, dtype=float) - np.array(b.right)
    drawn = np.random.default_rng(seed).integers(len(gains), size=(n_resamples, len(gains)))
    low, high = np.quantile(gains[drawn].mean(axis=1), (0.025, 0.975))
    return Estimate(float(gains.mean()), float(low), float(high))


def macro_average(scores: Sequence[Score]) -> Estimate:
    """The mean share of several tasks, each counted once, however many questions it has.

    Each task's interval reaches down from its share by some distance. The distances are squared,
    added, and the root divided by the number of tasks; likewise upwards. Tasks are taken to be
    independent of each other.

    Raises:
        ValueError: no score.

    Example:
        >>> print(macro_average([Score(20, 20), Score(60, 100)]))
        80.0 % (70.6–84.5)
    """
    if not scores:
        raise ValueError("an average needs at least one score; got none")
    mean, k = fmean(score.share for score in scores), len(scores)
    low, high = (
        sqrt(sum((score.share - score.interval[side]) ** 2 for score in scores)) / k
        for side in (0, 1)
    )
    return Estimate(mean, mean - low, mean + high)


@final
@dataclass(frozen=True)
class Overlap:
    """How much of an exam stood in the training text.

    Args:
        verbatim: for each question, whether the whole of it did.
        n_grams: for each question, the share of its n-grams that did.
    """

    verbatim: tuple[bool, ...]
    n_grams: tuple[float, ...]

    @property
    def share_verbatim(self) -> float:
        """Of the questions that stood in the training text."""
        return fmean(self.verbatim)

    def share_above(self, threshold: float = 0.0) -> float:
        """Of the questions of whose n-grams more than this share did."""
        return fmean(share > threshold for share in self.n_grams)


def overlap(
    training_texts: Sequence[str],
    questions: Sequence[str],
    *,
    n: int = 8,
    split: Callable[[str], Sequence[Hashable]] = str.split,
) -> Overlap:
    """Contamination (数据污染): which questions stood in the training text, whole or in n-grams.

    Args:
        training_texts: all that a model was trained on.
        questions: of the exam.
        n: how many words in a row; all words of a question that has fewer.
        split: a text into words; a tokenizer's `encode` for tokens, `list` for characters.

    Raises:
        ValueError: n below 1; no question, or one without a word.

    Example:
        >>> texts = ["Mei sells red plums. Bao waits."]
        >>> both = overlap(texts, ["Mei sells red plums.", "Bao sells red plums."], n=3)
        >>> both.verbatim, both.n_grams, both.share_above(0.4)
        ((True, False), (1.0, 0.5), 1.0)
    """
    if isinstance(training_texts, str) or isinstance(questions, str):
        raise ValueError("training_texts and questions must be lists of texts; got one text")
    words = [tuple(split(question)) for question in questions]
    if n < 1 or not words or not all(words):
        raise ValueError(
            "n must be at least 1, and there must be questions, each with a word; got n = "
            f"{n} and {len(words)} questions"
        )
    # 1. the n-grams of the exam, which is small; only those are looked for in the training text
    asked = [_n_grams(question, n) for question in words]
    unseen = set().union(*asked)
    seen = set()
    for size in {len(gram) for gram in unseen}:
        of_size = {gram for gram in unseen if len(gram) == size}
        for text in training_texts:
            seen |= of_size & _n_grams(tuple(split(text)), size)
    # 2. whole questions
    verbatim = tuple(any(question in text for text in training_texts) for question in questions)
    return Overlap(verbatim, tuple(len(grams & seen) / len(grams) for grams in asked))


def _n_grams(words: tuple[Hashable, ...], n: int) -> set[tuple[Hashable, ...]]:
    return {words[i : i + n] for i in range(max(1, len(words) - n + 1))}
