"""From a number for every token to one token: what is ruled out, and how one is drawn (采样).

A model gives logits; their softmax is p(next token). To take the likeliest each time (greedy, 贪心)
makes dull text that repeats itself; to draw from all of p takes, sooner or later, one of the many
tokens that are nearly impossible each, and the text goes astray. Between the two stand filters.
Each takes logits and gives logits, with -∞ where a token is ruled out, so they can be chained; the
softmax of what is left shares the probability among the tokens that remain.

    temperature    p(token) ∝ exp(logit / t)      t < 1: likely ones gain; t = 0: one is left
    top_k          the k likeliest
    top_p          the fewest that together have probability p (nucleus, 核采样)
    min_p          those at least min_p times as likely as the likeliest

How many remain is fixed for top_k; for the others it depends on how sure the model is.

Paper: at each function.

Chapter: 04
"""

import math

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn


def temperature(logits: Float[Tensor, "*rows V"], value: float) -> Float[Tensor, "*rows V"]:
    """Divide by t (温度): below 1 the likely gain, above 1 the unlikely.

    0 is the limit: the likeliest token is left alone, of equals the first. Below 1 the largest
    logit is taken off first, which changes no probability, and lets none grow beyond all bounds.

    Args:
        logits: of each token.
        value: t.

    Raises:
        ValueError: t below 0 or not finite.

    Example:
        >>> logits = torch.tensor([4.0, 2.0, 2.0]).log()  # p is 1/2, 1/4, 1/4
        >>> temperature(logits, 0.5).softmax(dim=-1)  # squared: 16 : 4 : 4
        tensor([0.6667, 0.1667, 0.1667])
        >>> temperature(logits, 0.0).softmax(dim=-1)
        tensor([1., 0., 0.])

    Paper: Ackley, Hinton and Sejnowski 1985, "A Learning Algorithm for Boltzmann Machines";
        Holtzman et al. 2020, arXiv:1904.09751, section 3.3.
    Differs: t = 0, which the formula leaves out.
    """
    if not 0 <= value < math.inf:
        raise ValueError(
            "temperature must be a finite number of at least 0: 1 for the model's own "
            f"probabilities, less for safer choices, 0 for the likeliest always; got {value}"
        )
    if value == 0:
        likeliest = logits.argmax(dim=-1, keepdim=True)
        return torch.full_like(logits, -math.inf).scatter(-1, likeliest, 0.0)
    if value < 1:
        logits = logits - logits.amax(dim=-1, keepdim=True)
    return logits / max(value, torch.finfo(logits.dtype).tiny)


def top_k(logits: Float[Tensor, "*rows V"], n_tokens: int) -> Float[Tensor, "*rows V"]:
    """Keep the k likeliest tokens; those as likely as the last of them stay too.

    Args:
        logits: of each token.
        n_tokens: k; where it is V or more, all stay.

    Raises:
        ValueError: k below 1.

    Example:
        >>> logits = torch.tensor([0.5, 0.3, 0.2]).log()
        >>> top_k(logits, 2).softmax(dim=-1)  # 5 : 3
        tensor([0.6250, 0.3750, 0.0000])

    Paper: Fan, Lewis and Dauphin 2018, "Hierarchical Neural Story Generation", arXiv:1805.04833
        (k = 10).
    Differs: none.
    """
    if n_tokens < 1:
        raise ValueError(
            "top_k must be at least 1, the number of tokens to choose from, or None for all of "
            f"them; got {n_tokens}"
        )
    last = logits.topk(min(n_tokens, logits.shape[-1]), dim=-1).values[..., -1:]
    return logits.masked_fill(logits < last, -math.inf)


def top_p(logits: Float[Tensor, "*rows V"], share: float) -> Float[Tensor, "*rows V"]:
    """Keep the smallest set of tokens whose probabilities reach p together, the nucleus (核采样).

    A token stays if those before it, in order of probability, have not reached p yet: so one stays
    always, and of equals the first in the vocabulary.

    Args:
        logits: of each token.
        share: p.

    Raises:
        ValueError: p not above 0 or above 1.

    Example:
        >>> logits = torch.tensor([0.2, 0.5, 0.3]).log()
        >>> top_p(logits, 0.7).softmax(dim=-1)  # 0.5 is not enough, 0.5 + 0.3 is
        tensor([0.0000, 0.6250, 0.3750])
        >>> top_p(logits, 0.4).softmax(dim=-1)
        tensor([0., 1., 0.])

    Paper: Holtzman, Buys, Du, Forbes and Choi 2020, "The Curious Case of Neural Text Degeneration",
        arXiv:1904.09751, section 3.1, equation (2).
    Differs: none.
    """
    if not 0 < share <= 1:
        raise ValueError(
            "top_p must be above 0 and at most 1, the probability that the tokens to choose from "
            f"have together (1 for all of them); got {share}"
        )
    if share == 1:
        return logits  # a sum of roundings may reach 1 too early
    # 1. the tokens by probability, the largest first, [... V]
    ordered, positions = logits.sort(dim=-1, descending=True, stable=True)
    cumulative = ordered.softmax(dim=-1).cumsum(dim=-1)
    # 2. a token stays while those before it have less than `share` together
    before = nn.functional.pad(cumulative[..., :-1], (1, 0))
    kept = ordered.masked_fill(before >= share, -math.inf)
    # 3. back to the order of the vocabulary
    return torch.empty_like(logits).scatter(-1, positions, kept)


def min_p(logits: Float[Tensor, "*rows V"], share: float) -> Float[Tensor, "*rows V"]:
    """Keep the tokens that are at least a given share as likely as the likeliest.

    Args:
        logits: of each token.
        share: of the largest probability; 0 keeps all.

    Raises:
        ValueError: a share below 0, or of 1 or more.

    Example:
        >>> logits = torch.tensor([0.5, 0.3, 0.2]).log()
        >>> min_p(logits, 0.5).softmax(dim=-1)  # at least 0.25
        tensor([0.6250, 0.3750, 0.0000])

    Paper: Nguyen et al. 2024, "Turning Up the Heat: Min-p Sampling for Creative and Coherent LLM
        Outputs", arXiv:2407.01082, section 3.
    Differs: none.
    """
    if not 0 <= share < 1:
        raise ValueError(
            "min_p must be at least 0 and below 1, a share of the largest probability (0 keeps all "
            f"tokens, 0.05 is usual); got {share}"
        )
    p = logits.softmax(dim=-1)
    return logits.masked_fill(p < share * p.amax(dim=-1, keepdim=True), -math.inf)


def draw(logits: Float[Tensor, "*rows V"], uniform: Float[Tensor, "*rows"]) -> Int[Tensor, "*rows"]:
    """Draw one token from the softmax, with a random number that is given.

    The probabilities lie end to end on a line from 0 to 1; the token on whose stretch the number
    falls is taken. A token that was ruled out has no stretch.

    Args:
        logits: of each token; none is ∞ or NaN, and one at least is not -∞.
        uniform: from 0 on and below 1, equally likely everywhere.

    Example:
        >>> logits = torch.tensor([0.5, 0.3, 0.2]).log()
        >>> draw(logits.expand(3, 3), torch.tensor([0.4, 0.7, 0.9])).tolist()
        [0, 1, 2]
    """
    cumulative = logits.softmax(dim=-1).cumsum(dim=-1)
    whole = cumulative[..., -1:]  # 1, but for roundings
    return (cumulative <= uniform[..., None] * whole).sum(dim=-1)
