"""The dialects of the districts: random sources whose entropy is known, to measure models by.

A source (信源) here says one symbol after the other from an alphabet of V. A *Markov* source of
order k looks at its last k symbols and draws the next from the row of `transition` that belongs to
them. A *hidden Markov* source (隐马尔可夫) walks over S states that nobody sees, and each state
says a symbol. Since we made the source, we know what nobody knows of real text: the best prediction
that is possible, and the loss that remains even then, its entropy rate (熵率)

    h = lim H(x_t | x_1 … x_(t-1))          in nats a token

Markov, in closed form, with the stationary distribution π over the states s = the last k symbols:

    h = -Σ_s π(s) Σ_x p(x|s) log p(x|s)

Hidden Markov: h has no closed form. The *forward filter* keeps the belief b_t(s) = p(s_t=s | x_<t)
and from it the best prediction p(x_t | x_<t) = Σ_s b_t(s) p(x_t|s); the mean of -log p(x_t | x_<t)
over a long sample is h, up to a standard error that is told beside it.

`dialects` makes K districts at once. A row of its tables is a Dirichlet draw around the row for one
symbol of context less, so each further symbol of context tells a model something new; and symbols
further back than the last count only by their class (as words do by their part of speech), which a
network can find out and a table of counts cannot.

Paper: Shannon 1948, "A Mathematical Theory of Communication", §4-7 (Markov sources, their entropy);
Cover and Thomas 2006, "Elements of Information Theory", §4.2 (entropy rate) and §4.5 (functions of
Markov chains, the bounds our tests use); Rabiner 1989, "A Tutorial on Hidden Markov Models", §III.A
(the forward procedure).

Differs: from Rabiner, the forward variable is scaled at each step (his §V.A): it is a belief.

Chapter: 02
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import final

import numpy as np

from minillm.town.chance import (
    BLOCK_ROWS,
    Estimate,
    Rows,
    as_table,
    check_probabilities,
    check_size,
    check_tokens,
    cumulated,
    draw,
    draw_block,
    entropy,
    generator,
    log,
    refuse_impossible,
    refuse_several_ends,
    stationary,
)
from minillm.town.world import World

KINDS = ("markov", "hidden")
FLOOR = 0.02  # of each row is the row above it: so nothing is impossible


@final
@dataclass(frozen=True, eq=False)
class Markov:
    """A source that looks at its last k symbols.

    Args:
        initial: probability of the first k symbols, k axes of V.
        transition: probability of the next symbol after each k, k + 1 axes of V.
        name: what the source is called; sources of different names speak independently.

    Raises:
        ValueError: wrong shapes; not probabilities; no single stationary distribution.

    Example:
        >>> coin = Markov([0.5, 0.5], [[0.5, 0.5], [0.5, 0.5]])
        >>> round(coin.entropy_rate().nats, 3)  # log 2
        0.693
    """

    initial: np.ndarray
    transition: np.ndarray
    name: str = ""

    def __post_init__(self):
        transition = as_table("transition", self.transition)
        if transition.ndim < 2 or len(set(transition.shape)) != 1:
            raise ValueError(
                "transition must have k + 1 axes of n_symbols each: [V, V] for order 1, [V, V, V] "
                f"for order 2; got the shape {list(transition.shape)}"
            )
        initial = as_table("initial", self.initial, transition.shape[:-1])
        check_probabilities("transition", transition)
        check_probabilities("initial", initial.reshape(-1))
        object.__setattr__(self, "initial", initial)
        object.__setattr__(self, "transition", transition)
        refuse_several_ends(transition)

    @property
    def n_symbols(self) -> int:
        """V."""
        return self.transition.shape[-1]

    @property
    def order(self) -> int:
        """k, how many symbols of context count."""
        return self.transition.ndim - 1

    @cached_property
    def stationary(self) -> np.ndarray:
        """π, the probability of each k symbols in a row after a long time; k axes of V."""
        return stationary(self.transition)

    def entropy_rate(self) -> Estimate:
        """h = -Σ_s π(s) Σ_x p(x|s) log p(x|s), exactly."""
        return Estimate(
            entropy(self.stationary[..., None] * self.transition) - entropy(self.stationary)
        )

    def ngram_probs(self, n: int) -> np.ndarray:
        """Stationary probability of every n symbols in a row, n axes of V."""
        check_size(self.n_symbols, n)
        table = self.stationary
        while table.ndim < n:
            table = table[..., None] * self.transition
        return table.sum(axis=tuple(range(n, table.ndim)))

    def next_token(self, prefix: Sequence[int]) -> np.ndarray:
        """The best prediction after a prefix: probability of each symbol.

        Raises:
            ValueError: a symbol outside the alphabet; a prefix that this source never says.
        """
        refuse_impossible(prefix, self.log_prob(prefix))
        if len(prefix) >= self.order:
            return self.transition[tuple(prefix[len(prefix) - self.order :])]
        following = self.initial[tuple(prefix)]
        following = following.reshape(self.n_symbols, -1).sum(axis=1)
        return following / following.sum()

    def log_probs(self, tokens: np.ndarray) -> np.ndarray:
        """log p(x_t | x_<t) of each token, in nats: [T] → [T] or [B, T] → [B, T].

        What cannot stand there has -inf, and so has all that follows it.

        Raises:
            ValueError: a symbol outside the alphabet; another shape.
        """
        tokens = check_tokens(tokens, self.n_symbols)
        rows = np.atleast_2d(tokens)
        out = np.empty(rows.shape)
        for t in range(min(self.order, rows.shape[1])):
            seen = tuple(rows[:, : t + 1].T)
            starts = self.initial.sum(axis=tuple(range(t + 1, self.order)))
            out[:, t] = log(starts[seen]) - (log(starts.sum(axis=-1)[seen[:-1]]) if t else 0.0)
        if rows.shape[1] > self.order:
            n_predicted = rows.shape[1] - self.order
            windows = tuple(rows[:, lag : lag + n_predicted] for lag in range(self.order + 1))
            out[:, self.order :] = self._log_transition[windows]
        return _impossible_for_good(out).reshape(tokens.shape)

    def log_prob(self, tokens: np.ndarray) -> np.ndarray:
        """log p of a whole row in nats, or of each of many."""
        return self.log_probs(tokens).sum(axis=-1)

    def sample(self, rng: np.random.Generator, n_rows: int, n_tokens: int) -> Rows:
        """Let the source speak: n_rows rows that know nothing of each other."""
        uniforms = rng.random((n_tokens, n_rows))
        tokens = np.empty((max(n_tokens, self.order), n_rows), dtype=np.int64)
        n_contexts = self.initial.size
        context = cumulated(self.initial.reshape(-1)).searchsorted(uniforms[:1].ravel(), "right")
        tokens[: self.order] = np.unravel_index(context, self.initial.shape)
        chances = self._cumulated.reshape(n_contexts, self.n_symbols)
        for t in range(self.order, n_tokens):
            symbol = draw(chances[context], uniforms[t])
            tokens[t] = symbol
            context = (context * self.n_symbols + symbol) % n_contexts
        tokens = np.ascontiguousarray(tokens[:n_tokens].T)
        return Rows(tokens, tokens)

    def block(self, index: int, seed: int | str = 0, n_tokens: int = 256) -> Rows:
        """64 rows of (name, seed, index) alone; a longer block begins like a shorter.

        Example:
            >>> coin = Markov([0.5, 0.5], [[0.5, 0.5], [0.5, 0.5]])
            >>> coin.block(0, n_tokens=10).tokens.shape
            (64, 10)
        """
        return draw_block(self.sample, self.name, index, seed, n_tokens)

    @cached_property
    def _log_transition(self) -> np.ndarray:
        return log(self.transition)

    @cached_property
    def _cumulated(self) -> np.ndarray:
        return cumulated(self.transition)


@final
@dataclass(frozen=True, eq=False)
class HiddenMarkov:
    """A source whose state is hidden: it moves, and each state says a symbol.

    Args:
        initial: [S] probability of the first state.
        transition: [S, S] probability of the next state.
        emission: [S, V] probability of the symbol that a state says.
        name: what the source is called; sources of different names speak independently.

    Raises:
        ValueError: wrong shapes; not probabilities; no single stationary distribution.

    Example:
        >>> source = HiddenMarkov([1, 0], [[0, 1], [1, 0]], [[0.9, 0.1], [0.1, 0.9]])
        >>> source.next_token([]), source.next_token([0])
        (array([0.9, 0.1]), array([0.1, 0.9]))
    """

    initial: np.ndarray
    transition: np.ndarray
    emission: np.ndarray
    name: str = ""

    def __post_init__(self):
        initial = as_table("initial", self.initial)
        n_states = initial.size
        if initial.ndim != 1 or not n_states:
            raise ValueError(f"initial must be [n_states]; got the shape {list(initial.shape)}")
        transition = as_table("transition", self.transition, (n_states, n_states))
        emission = as_table("emission", self.emission)
        if emission.ndim != 2 or len(emission) != n_states or not emission.size:
            raise ValueError(
                f"emission must be [n_states, n_symbols] with n_states = {n_states}, as in "
                f"initial; got the shape {list(emission.shape)}"
            )
        for name, table in (
            ("initial", initial),
            ("transition", transition),
            ("emission", emission),
        ):
            check_probabilities(name, table)
            object.__setattr__(self, name, table)
        refuse_several_ends(transition)

    @property
    def n_symbols(self) -> int:
        """V."""
        return self.emission.shape[1]

    @property
    def n_states(self) -> int:
        """S."""
        return self.initial.size

    @cached_property
    def stationary(self) -> np.ndarray:
        """π, the probability of each state after a long time, [S]."""
        return stationary(self.transition)

    def entropy_rate(self, n_tokens: int = 2**19, seed: int | str = 0) -> Estimate:
        """h from the forward filter on a long sample, with its standard error.

        64 independent rows start from π. Each row is one batch: the first eighth is the filter's
        warm-up (at first it knows nothing of the state, and its loss is above h), the mean of
        -log p(x_t | x_<t) over the rest is the row's figure. The estimate is the mean m of the 64
        figures, its standard error sqrt(Σ (figure - m)² / 63 / 64): rows know nothing of each
        other, so no correlation inside a row can make it too small.

        Args:
            n_tokens: how many are drawn in all.
            seed: of the sample.
        """
        n_columns = n_tokens // BLOCK_ROWS
        if n_columns < 64:
            raise ValueError(f"n_tokens must be at least {64 * BLOCK_ROWS}; got {n_tokens}")
        source = HiddenMarkov(self.stationary, self.transition, self.emission, self.name)
        rng = generator("entropy rate", self.name, seed)
        losses = -source.log_probs(source.sample(rng, BLOCK_ROWS, n_columns).tokens)
        figures = losses[:, n_columns // 8 :].mean(axis=1)
        error = figures.std(ddof=1) / BLOCK_ROWS**0.5
        return Estimate(float(figures.mean()), float(error))

    def ngram_probs(self, n: int) -> np.ndarray:
        """Stationary probability of every n symbols in a row, n axes of V."""
        check_size(self.n_symbols, n)
        joint = self.stationary  # p(symbols so far, state now)
        for _ in range(n):
            spoken = joint[..., None, :] * self.emission.T
            joint = spoken @ self.transition
        return joint.sum(axis=-1)

    def next_token(self, prefix: Sequence[int]) -> np.ndarray:
        """The best prediction after a prefix: the forward filter, then Σ_s b(s) p(x|s).

        Raises:
            ValueError: a symbol outside the alphabet; a prefix that this source never says.
        """
        belief = self.initial
        for symbol in check_tokens(prefix, self.n_symbols):
            belief = belief * self.emission[:, symbol]
            refuse_impossible(prefix, log(belief.sum()))
            belief = belief / belief.sum() @ self.transition
        return belief @ self.emission

    def log_probs(self, tokens: np.ndarray) -> np.ndarray:
        """log p(x_t | x_<t) of each token, in nats; shapes and -inf as in `Markov.log_probs`."""
        tokens = check_tokens(tokens, self.n_symbols)
        rows = np.atleast_2d(tokens)
        said_by = self.emission.T
        belief = np.broadcast_to(self.initial, (len(rows), self.n_states))
        evidence = np.empty(rows.shape)
        for t, symbols in enumerate(rows.T):
            joint = belief * said_by[symbols]
            total = joint.sum(axis=1, keepdims=True)
            evidence[:, t] = total[:, 0]
            belief = joint / np.where(total > 0, total, 1.0) @ self.transition
        return log(evidence).reshape(tokens.shape)

    def log_prob(self, tokens: np.ndarray) -> np.ndarray:
        """log p of a whole row in nats, or of each of many."""
        return self.log_probs(tokens).sum(axis=-1)

    def sample(self, rng: np.random.Generator, n_rows: int, n_tokens: int) -> Rows:
        """Let the source speak: n_rows rows that know nothing of each other."""
        uniforms = rng.random((n_tokens, 2, n_rows))
        tokens = np.empty((n_tokens, n_rows), dtype=np.int64)
        states = np.empty_like(tokens)
        moves, says = cumulated(self.transition), cumulated(self.emission)
        chances = np.broadcast_to(cumulated(self.initial), (n_rows, self.n_states))
        for t in range(n_tokens):
            states[t] = draw(chances, uniforms[t, 0])
            tokens[t] = draw(says[states[t]], uniforms[t, 1])
            chances = moves[states[t]]
        return Rows(np.ascontiguousarray(tokens.T), np.ascontiguousarray(states.T))

    def block(self, index: int, seed: int | str = 0, n_tokens: int = 256) -> Rows:
        """64 rows of (name, seed, index) alone; a longer block begins like a shorter."""
        return draw_block(self.sample, self.name, index, seed, n_tokens)


Source = Markov | HiddenMarkov


def dialects(
    town: World | int | str = "tinytown",
    n_districts: int = 8,
    *,
    kind: str = "markov",
    n_symbols: int = 32,
    order: int = 2,
    n_classes: int = 4,
    n_states: int = 16,
    sharpness: float = 4.0,
) -> tuple[Source, ...]:
    """The sources of a town's districts, over one alphabet, each with its own tables.

    Every district shuffles Zipf's law over the symbols for its own frequencies. A row of a table
    is a Dirichlet draw with mean = the row of one symbol of context less, and parameters that sum
    to n_symbols / sharpness; symbols before the last count by their class. 2 % of each row is its
    mean again, so that every symbol may follow every other. They start from π.

    Args:
        town: or its seed alone. The same seed gives the same dialects, whatever n_districts is.
        n_districts: how many; they are called after the town's places.
        kind: "markov", or "hidden" for hidden Markov sources.
        n_symbols: V.
        order: k, of Markov sources.
        n_classes: of the symbols before the last, of Markov sources of order 2 and more.
        n_states: S, of hidden Markov sources.
        sharpness: larger is more predictable; hidden Markov tables are drawn with four times of it,
            for nobody sees them by themselves.

    Raises:
        ValueError: an unknown kind; a number that is too small; a table of more than 2²⁴ entries.

    Example:
        >>> square, hall = dialects(n_districts=2)
        >>> square.name, square.transition.shape
        ('market square', (32, 32, 32))
        >>> best = [context_entropy(square, n) for n in (0, 1, 2)]
        >>> best[0] > best[1] > best[2]
        True
    """
    if kind not in KINDS:
        raise ValueError(f"kind must be one of {', '.join(KINDS)}; got {kind!r}")
    least = {"n_districts": 1, "n_symbols": 2, "order": 1, "n_classes": 1, "n_states": 1}
    given = (n_districts, n_symbols, order, n_classes, n_states)
    for (name, smallest), value in zip(least.items(), given, strict=True):
        if value < smallest:
            raise ValueError(f"{name} must be at least {smallest}; got {value}")
    if not 0 < sharpness < float("inf"):
        raise ValueError(f"sharpness must be a finite number above 0; got {sharpness}")
    check_size(n_symbols, order + 1)
    world = town if isinstance(town, World) else World(town)
    names = [place.name for place in world.places]
    names += [f"district {number}" for number in range(len(names) + 1, n_districts + 1)]
    sources: list[Source] = []
    for name in names[:n_districts]:
        rng = generator("dialect", str(world.seed), name, kind)
        zipf = 1 / np.arange(1, n_symbols + 1)
        base = rng.permutation(zipf / zipf.sum())
        if kind == "hidden":
            even = np.full((n_states, n_states), 1 / n_states)
            moves = _vary(even, 4 * sharpness, rng)
            says = _vary(np.tile(base, (n_states, 1)), 4 * sharpness, rng)
            sources.append(HiddenMarkov(stationary(moves), moves, says, name))
            continue
        table = _vary(np.tile(base, (n_symbols, 1)), sharpness, rng)
        for _ in range(order - 1):
            table = _vary(np.tile(table, (n_classes, *[1] * table.ndim)), sharpness, rng)
        class_of = rng.permutation(np.arange(n_symbols) % n_classes)
        every = np.arange(n_symbols)
        table = table[np.ix_(*[class_of] * (order - 1), every, every)]
        sources.append(Markov(stationary(table), table, name))
    return tuple(sources)


def _vary(means: np.ndarray, sharpness: float, rng: np.random.Generator) -> np.ndarray:
    """A Dirichlet draw around each row of means (the last axis)."""
    rows = means.reshape(-1, means.shape[-1])
    drawn = np.array([rng.dirichlet(row * row.size / sharpness) for row in rows])
    return ((1 - FLOOR) * drawn + FLOOR * rows).reshape(means.shape)


def context_entropy(source: Source, n_context: int) -> float:
    """The loss that no model can beat which sees only the last n_context symbols.

    H(x_(n+1) | x_1 … x_n) = H(x_1 … x_(n+1)) - H(x_1 … x_n) under π, in nats a token: n = 0 for
    unigrams, 1 for bigrams. It falls with n towards the entropy rate, and for a Markov source
    reaches it at n = k.

    Raises:
        ValueError: n_context is negative, or the table of n-grams has more than 2²⁴ entries.

    Example:
        >>> flip = Markov([0.5, 0.5], [[0, 1], [1, 0]])
        >>> round(context_entropy(flip, 0), 3), context_entropy(flip, 1)
        (0.693, 0.0)
    """
    if n_context < 0:
        raise ValueError(f"n_context must be at least 0; got {n_context}")
    longer = entropy(source.ngram_probs(n_context + 1))
    return longer - (entropy(source.ngram_probs(n_context)) if n_context else 0.0)


def _impossible_for_good(log_probs: np.ndarray) -> np.ndarray:
    """What follows the impossible is impossible."""
    bad = np.logical_or.accumulate(log_probs == -np.inf, axis=-1)
    return np.where(bad, -np.inf, log_probs)
