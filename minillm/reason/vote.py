"""Self-consistency (自洽性): sample many answers to a question, and take the commonest one.

    chain 1   … so she has 12      12        majority vote
    chain 2   … so she has 14      14        12 ×3, 14 ×1   →   12
    chain 3   … so she has 12      12
    chain 4   … so she has 12      12

A chain of thought that is sampled can go wrong at any step. Right chains all end in one answer;
wrong ones scatter, so that a right answer wins votes that it would lose as a single sample. Chains
are compared by their answers alone: two that differ in every step but agree in the end vote alike.

**What a vote can do is known beforehand.** The samples of one question are independent draws from
one distribution over answers. With more votes the winner becomes the *mode*, the likeliest answer.
If the mode is right, more votes help, up to always right. If it is wrong, they do harm: a single
sample was right now and then, and the majority of many never is.

An answer that could not be read from its chain is None. It has no vote, but it is counted.

Paper: Wang et al. 2022, "Self-Consistency Improves Chain of Thought Reasoning in Language Models",
arXiv:2203.11171, section 2 (sample chains, marginalise them out, majority vote over the answers).
Differs: what happens in a tie is fixed here: the tied answer that was given first wins.

Chapter: 24
"""

import math
import random
from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean
from typing import final

Answer = Hashable  # None where a chain has none that can be read


@final
@dataclass(frozen=True)
class Vote:
    """What came of a vote.

    Args:
        answer: the winner; None if no chain had an answer.
        counts: votes of each answer, or their summed weights, in order of first appearance.
        n_none: chains without an answer.
        tied: whether another answer had as much as the winner.
    """

    answer: Answer | None
    counts: dict[Answer, float]
    n_none: int
    tied: bool


def majority(answers: Sequence[Answer | None]) -> Vote:
    """Majority vote (多数投票): each chain has one vote.

    Args:
        answers: of each chain; None where there is none to be read.

    Raises:
        ValueError: no chain.

    Example:
        >>> majority([12, 14, None, 12])
        Vote(answer=12, counts={12: 2, 14: 1}, n_none=1, tied=False)
        >>> majority([14, 12]).answer, majority([14, 12]).tied  # the first given
        (14, True)

    Paper: Wang et al. 2022, section 2. Differs: ties.
    """
    return weighted(answers, [1] * len(answers))


def weighted(answers: Sequence[Answer | None], weights: Sequence[float]) -> Vote:
    """Weighted vote (加权投票): the answer whose chains have the largest sum of weights.

        winner = argmax over y of  Σ_i [y_i = y] · w_i

    With a verifier's probability as w_i it is DIVERSE's voting verifier (`minillm.reason.verify`).

    Args:
        answers: y_i of each chain; None where there is none to be read.
        weights: w_i of each chain, 0 or more.

    Raises:
        ValueError: no chain; another number of weights; a weight below 0, NaN or infinite.

    Example:
        >>> weighted([12, 14, 14], [0.9, 0.3, 0.2])  # two that are doubted, one that is trusted
        Vote(answer=12, counts={12: 0.9, 14: 0.5}, n_none=0, tied=False)

    Paper: Li et al. 2022, arXiv:2206.02336, section 2.2, the equation of the voting verifier.
    Differs: ties; chains without an answer.
    """
    if not answers or len(answers) != len(weights):
        raise ValueError(
            "a vote needs at least one answer, and one weight for each; got "
            f"{len(answers)} answers and {len(weights)} weights"
        )
    for number, weight in enumerate(weights):
        if not 0 <= weight < math.inf:
            raise ValueError(
                f"a weight must be a finite number of at least 0; weight {number} is {weight}. "
                "Give probabilities, not their logarithms"
            )
    # 1. what each answer has; a dict keeps the order of first appearance
    counts: dict[Answer, float] = {}
    for answer, weight in zip(answers, weights, strict=True):
        if answer is not None:
            counts[answer] = counts.get(answer, 0) + weight
    n_none = sum(answer is None for answer in answers)
    if not counts:
        return Vote(None, {}, n_none, tied=False)
    # 2. the most, and whoever has it first
    most = max(counts.values())
    winners = [answer for answer, count in counts.items() if count == most]
    return Vote(winners[0], counts, n_none, tied=len(winners) > 1)


# --- what votes will bring ----------------------------------------------------------------------
def shares(answers: Sequence[Answer | None]) -> dict[Answer | None, float]:
    """How often each answer was given, None among them: an estimate of the answer distribution.

    Raises:
        ValueError: no answer.

    Example:
        >>> shares([12, 14, None, 12])
        {12: 0.5, 14: 0.25, None: 0.25}
    """
    if not answers:
        raise ValueError("shares need at least one answer; got none")
    return {answer: answers.count(answer) / len(answers) for answer in dict.fromkeys(answers)}


def expected_accuracy(
    probabilities: Mapping[Answer | None, float],
    right: Answer,
    k: int,
    *,
    n_draws: int = 1000,
    seed: int | str = 0,
) -> float:
    """How often a majority of k samples will be right: maj@k, predicted by Monte Carlo (蒙特卡洛).

    k answers are drawn from the question's own answer distribution, a vote is held, and all of it
    is done `n_draws` times. The standard error is at most 0.5 ÷ √n_draws.

    Args:
        probabilities: of each answer to one question, None among them; they sum to 1. Estimated
            from the very samples whose vote is to be predicted, they predict it too well.
        right: the right answer.
        k: votes in each draw.
        n_draws: how many votes are held.
        seed: of the draws.

    Raises:
        ValueError: k or n_draws below 1; probabilities below 0, or that do not sum to 1.

    Example:
        >>> good, bad = {12: 0.6, 14: 0.4}, {12: 0.4, 14: 0.6}
        >>> [round(expected_accuracy(good, 12, k), 1) for k in (1, 101)]
        [0.6, 1.0]
        >>> [round(expected_accuracy(bad, 12, k), 1) for k in (1, 101)]  # the mode is wrong
        [0.4, 0.0]
    """
    if k < 1 or n_draws < 1:
        raise ValueError(f"k and n_draws must be at least 1; got {k} and {n_draws}")
    _check(probabilities)
    rng, answers, weights = random.Random(seed), list(probabilities), list(probabilities.values())
    return fmean(
        majority(rng.choices(answers, weights, k=k)).answer == right for _ in range(n_draws)
    )


def is_wrong_mode(probabilities: Mapping[Answer | None, float], right: Answer) -> bool:
    """Whether a wrong answer is likelier than the right one: then more votes do harm.

    Args:
        probabilities: of each answer to one question; None, which has no vote, does not count.
        right: the right answer.

    Raises:
        ValueError: probabilities below 0, or that do not sum to 1.

    Example:
        >>> is_wrong_mode({12: 0.4, 14: 0.6}, 12), is_wrong_mode({12: 0.4, 14: 0.3, 15: 0.3}, 12)
        (True, False)
    """
    _check(probabilities)
    wrong = [p for answer, p in probabilities.items() if answer not in (None, right)]
    return max(wrong, default=0) > probabilities.get(right, 0)


def _check(probabilities: Mapping[Answer | None, float]) -> None:
    values = list(probabilities.values())
    if any(not p >= 0 for p in values) or abs(sum(values) - 1) > 1e-6:
        raise ValueError(
            "probabilities of a question's answers must be at least 0 and sum to 1; these go from "
            f"{min(values, default=math.nan)} and sum to {sum(values)}. `shares` makes them of a "
            "list of answers"
        )
