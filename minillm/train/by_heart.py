"""A learner by heart: the simplest learner, whose scaling law follows from theory.

    p = zipf(100_000, alpha=1.0)                        how often each fact is told, and asked for
    by_heart_error(p, n_draws=4096)                     questions it fails after so many sentences

It knows what was told, and nothing else. Under Zipf's law (齐夫定律) there is always something
rarer left to learn, so its error falls as a power law: four times the text for half of the errors,
if alpha is 1.

Paper: Hutter 2021, "Learning Curve Theory", arXiv:2102.04074, sections 3 and 4.
Differs: none.

Chapter: 12
"""

import math

import numpy as np


def zipf(n_facts: int, alpha: float) -> np.ndarray:
    """Zipf's law: how often each fact is told, p_k in proportion to k^-(1 + alpha).

    Args:
        n_facts: K.
        alpha: above 0; larger means that few facts are told nearly always.

    Returns:
        [K] probabilities, the most famous first.

    Raises:
        ValueError: no facts, or an alpha that is not above 0.

    Example:
        >>> zipf(3, alpha=1.0).round(2).tolist()  # 1, 1/4, 1/9 in proportion
        [0.73, 0.18, 0.08]
    """
    if n_facts < 1 or not 0 < alpha < math.inf:
        raise ValueError(
            f"there must be at least one fact, and alpha above 0; got {n_facts} and {alpha}"
        )
    weights = np.arange(1, n_facts + 1) ** -(1.0 + alpha)
    return weights / weights.sum()


def by_heart_error(probabilities: np.ndarray, n_draws: int) -> float:
    """The share of questions that a learner by heart fails, after so many sentences of a fact each.

        Σ_k p_k · (1 - p_k)^n_draws

    It knows what was told, and nothing else; questions come with the same probabilities. Under
    Zipf's law it falls as n_draws^(-alpha / (1 + alpha)).

    Args:
        probabilities: [K], of each fact.
        n_draws: sentences.

    Example:
        >>> by_heart_error(np.array([0.5, 0.5]), n_draws=2)
        0.25

    Paper: Hutter 2021, sections 3 and 4. Differs: none.
    """
    # asked for, and told by no sentence
    return float((probabilities * (1 - probabilities) ** n_draws).sum())
