"""Who is speaking? The best prediction when one of K sources speaks and nobody says which.

A model trained on all districts at once (混合语料) has to find out the dialect from the text.
The best that it can do is Bayes' rule,

    p(x_t | x_<t) = Σ_k p(k | x_<t) p_k(x_t | x_<t)        p(k | x_<t) ∝ w_k p_k(x_<t)

so what it loses against someone who knows the district is at most log(1/w_k) in the whole row.

Paper: Cover and Thomas 2006, "Elements of Information Theory", §13.2 (mixtures as universal codes).

Differs: none.

Chapter: 02
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import final

import numpy as np

from minillm.town.chance import (
    Estimate,
    Rows,
    as_table,
    check_probabilities,
    check_tokens,
    cumulated,
    draw_block,
    log,
    refuse_impossible,
)
from minillm.town.dialects import Source


@final
@dataclass(frozen=True, eq=False)
class Mixture:
    """K sources, one of which speaks a whole row.

    Args:
        sources: K sources over the same alphabet.
        weights: [K] probability of each before anything is heard; None: all alike.

    Raises:
        ValueError: no sources, other alphabets, weights that are no probabilities.
    """

    sources: tuple[Source, ...]
    weights: np.ndarray | None = None
    name: str = ""

    def __post_init__(self):
        sizes = [source.n_symbols for source in self.sources]
        if len(set(sizes)) != 1:
            raise ValueError(f"the sources of a mixture must share one alphabet; got sizes {sizes}")
        even = np.full(len(sizes), 1 / len(sizes))
        weights = even if self.weights is None else self.weights
        weights = as_table("weights", weights, (len(sizes),))
        check_probabilities("weights", weights)
        object.__setattr__(self, "sources", tuple(self.sources))
        object.__setattr__(self, "weights", weights)

    @property
    def n_symbols(self) -> int:
        """V."""
        return self.sources[0].n_symbols

    def entropy_rate(self) -> Estimate:
        """Σ_k w_k h_k: in the end one knows who speaks."""
        rates = [source.entropy_rate() for source in self.sources]
        errors = self.weights * [rate.standard_error for rate in rates]
        return Estimate(
            float(self.weights @ [rate.nats for rate in rates]), float((errors**2).sum() ** 0.5)
        )

    def posterior(self, tokens: np.ndarray) -> np.ndarray:
        """Who speaks? p(k | tokens): [T] → [K] or [B, T] → [B, K].

        Raises:
            ValueError: a row that none of the sources ever says.
        """
        tokens = check_tokens(tokens, self.n_symbols)
        scores = np.stack([source.log_prob(tokens) for source in self.sources], axis=-1)
        scores = scores + log(self.weights)
        refuse_impossible(tokens, scores.max(axis=-1).min())
        likelihood = np.exp(scores - scores.max(axis=-1, keepdims=True))
        return likelihood / likelihood.sum(axis=-1, keepdims=True)

    def next_token(self, prefix: Sequence[int]) -> np.ndarray:
        """The best prediction for someone who does not know the district."""
        shares = self.posterior(prefix)
        return sum(
            share * source.next_token(prefix)
            for share, source in zip(shares, self.sources, strict=True)
            if share > 0
        )

    def log_probs(self, tokens: np.ndarray) -> np.ndarray:
        """log p(x_t | x_<t) of each token, in nats; shapes and -inf as in `Markov.log_probs`."""
        tokens = check_tokens(tokens, self.n_symbols)
        start = log(self.weights).reshape(-1, *[1] * tokens.ndim)
        so_far = start + np.stack([source.log_probs(tokens) for source in self.sources]).cumsum(-1)
        total = np.logaddexp.reduce(so_far, axis=0)  # log p(x_1 … x_t)
        before = np.concatenate([np.zeros_like(total[..., :1]), total[..., :-1]], axis=-1)
        return np.where(total == -np.inf, -np.inf, total - np.where(before > -np.inf, before, 0))

    def log_prob(self, tokens: np.ndarray) -> np.ndarray:
        """log p of a whole row in nats, or of each of many."""
        return self.log_probs(tokens).sum(axis=-1)

    def sample(self, rng: np.random.Generator, n_rows: int, n_tokens: int) -> Rows:
        """Rows by sources drawn with `weights`; the truth is which source spoke each row."""
        speakers = cumulated(self.weights).searchsorted(rng.random(n_rows), "right")
        tokens = np.empty((n_rows, n_tokens), dtype=np.int64)
        for k, source in enumerate(self.sources):
            chosen = np.flatnonzero(speakers == k)
            tokens[chosen] = source.sample(rng, len(chosen), n_tokens).tokens
        return Rows(tokens, speakers)

    def block(self, index: int, seed: int | str = 0, n_tokens: int = 256) -> Rows:
        """64 rows that depend on (name, seed, index) alone."""
        return draw_block(self.sample, self.name, index, seed, n_tokens)
