"""Chance, checked: tables of probabilities, chains that settle, draws that can be repeated.

Everything random in the town comes from `generator(*key)`: the same key, the same numbers, in every
process and in any order. Tables are checked once, where they enter; a message names the row.

A chain settles if, wherever it starts, its states have the same probabilities after a long time:
the stationary distribution (平稳分布) π with π = πP. There is exactly one π if the chain has one
*closed class*, a set of states that it cannot leave and in which each leads to each.

Paper: Norris 1997, "Markov Chains", §1.2 (classes) and §1.7 (invariant distributions).

Differs: from Norris, a chain of order k is kept as k + 1 axes: its states are the last k symbols.

Chapter: 02
"""

import hashlib
import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

BLOCK_ROWS = 64
LARGEST_TABLE = 2**24  # entries of an n-gram table
SOLVE_STATES = 256  # up to so many states π is solved for; beyond, iterated
MAX_STEPS = 20_000
TOLERANCE = 1e-9  # of a sum that must be one


@dataclass(frozen=True)
class Rows:
    """What a source said, and what lay behind it.

    Args:
        tokens: [rows, n_tokens] symbols.
        states: the truth behind them. Markov: the symbols again; hidden Markov: the state at each
            token; mixture: [rows], which source speaks.
    """

    tokens: np.ndarray
    states: np.ndarray


@dataclass(frozen=True)
class Estimate:
    """A number of nats a token, with its standard error (0 if it is exact)."""

    nats: float
    standard_error: float = 0.0


def generator(*key: int | str) -> np.random.Generator:
    """A random generator that depends on its key alone.

    Example:
        >>> generator("plums", 3).integers(100) == generator("plums", 3).integers(100)
        np.True_
    """
    for part in key:
        if isinstance(part, bool) or not isinstance(part, (int, np.integer, str)):
            raise ValueError(f"a seed must be a whole number or a text; got {part!r}")
    text = repr([part if isinstance(part, str) else int(part) for part in key])
    return np.random.default_rng(list(hashlib.sha256(text.encode("utf-8")).digest()))


def block_rng(name: str, index: int) -> random.Random:
    """The random numbers of one block of a stream.

    Args:
        name: of the block: source, world, seed and index.
        index: of the block.

    Raises:
        ValueError: a negative index.

    Example:
        >>> block_rng("plums/7/3", 3).random() == block_rng("plums/7/3", 3).random()
        True
    """
    if index < 0:
        raise ValueError(f"blocks are counted from 0; got {index}")
    return random.Random(name)


def as_table(name: str, values: object, shape: Sequence[int] | None = None) -> np.ndarray:
    """A read-only float64 copy of values.

    Raises:
        ValueError: ragged, not numbers, or another shape.
    """
    try:
        table = np.array(values, dtype=np.float64)
    except (ValueError, TypeError) as error:
        raise ValueError(f"{name} must be a table of numbers with rows alike: {error}") from error
    if shape is not None and table.shape != tuple(shape):
        raise ValueError(f"{name} must have the shape {list(shape)}; got {list(table.shape)}")
    table.flags.writeable = False
    return table


def check_probabilities(name: str, table: np.ndarray) -> None:
    """Hold each row (the last axis) to be probabilities.

    Raises:
        ValueError: negative, not finite, or a sum that is not one; the row is named.

    Example:
        >>> check_probabilities("row", np.array([[0.5, 0.5], [0.5, 0.4]]))
        Traceback (most recent call last):
        ValueError: row[1] must sum to one; it sums to 0.9: divide it by its sum
    """
    bad = ~np.isfinite(table) | (table < 0)
    if bad.any():
        where = tuple(int(i) for i in np.argwhere(bad)[0])
        raise ValueError(
            f"{name}{list(where)} must be a probability, 0 or larger; it is {table[where]:g}"
        )
    sums = table.sum(axis=-1)
    off = np.argwhere(np.abs(sums - 1) > TOLERANCE)
    if len(off):
        where = tuple(int(i) for i in off[0])
        place = list(where) if where else ""
        raise ValueError(
            f"{name}{place} must sum to one; it sums to {sums[where]:.10g}: divide it by its sum"
        )


def check_tokens(tokens: object, n_symbols: int) -> np.ndarray:
    """Tokens as an integer array [T] or [B, T].

    Raises:
        ValueError: not whole numbers, another number of axes, or outside 0 … n_symbols - 1.

    Example:
        >>> check_tokens([3, 32], 32)
        Traceback (most recent call last):
        ValueError: symbols must be 0 to 31; got 32 at [1]
    """
    array = np.asarray(tokens)
    if array.ndim not in (1, 2):
        raise ValueError(f"tokens must be [T] or [B, T]; got {array.ndim} axes")
    if not array.size:
        return array.astype(np.int64)
    if array.dtype.kind not in "iu":
        raise ValueError(f"tokens must be whole numbers; got {array.dtype}")
    outside = np.argwhere((array < 0) | (array >= n_symbols))
    if len(outside):
        where = tuple(int(i) for i in outside[0])
        raise ValueError(
            f"symbols must be 0 to {n_symbols - 1}; got {array[where]} at {list(where)}"
        )
    return array.astype(np.int64)


def log(values: np.ndarray) -> np.ndarray:
    """Natural logarithm, -inf for 0 without a warning."""
    with np.errstate(divide="ignore"):
        return np.log(values)


def cumulated(table: np.ndarray) -> np.ndarray:
    """Running sums of each row, ending in exactly one."""
    sums = table.cumsum(axis=-1)
    return sums / sums[..., -1:]


def draw(chances: np.ndarray, uniforms: np.ndarray) -> np.ndarray:
    """One entry of each row [B, V] of running sums, by a number in [0, 1) each.

    The entry is the number of running sums that u has reached, so an entry of probability 0 is
    never drawn.

    Example:
        >>> draw(cumulated(np.array([[0.5, 0.0, 0.5]] * 3)), np.array([0.0, 0.5, 0.99]))
        array([0, 2, 2])
    """
    return (chances <= uniforms[:, None]).sum(axis=1)


def entropy(probabilities: np.ndarray) -> float:
    """-Σ p log p over all entries, in nats; an impossible one adds nothing.

    Example:
        >>> round(entropy(np.array([0.5, 0.5, 0.0])), 3)  # log 2
        0.693
    """
    possible = probabilities[probabilities > 0]
    return float(-(possible * np.log(possible)).sum())


def stationary(transition: np.ndarray) -> np.ndarray:
    """π of a chain of order k: transition has k + 1 axes of V, π has k.

    π(x_2 … x_(k+1)) = Σ_(x_1) π(x_1 … x_k) p(x_(k+1) | x_1 … x_k), and π sums to one.

    Raises:
        ValueError: no single π; more than 256 states and far too slow to settle.

    Example:
        >>> stationary(np.array([[0.9, 0.1], [0.3, 0.7]])).round(6).tolist()
        [0.75, 0.25]
    """
    refuse_several_ends(transition)
    shape = transition.shape[:-1]
    n_states = int(np.prod(shape))
    if n_states <= SOLVE_STATES:
        steps = np.zeros((n_states, n_states))
        states = np.arange(n_states)[:, None]
        following = (states * shape[0] + np.arange(shape[0])) % n_states
        steps[states, following] = transition.reshape(n_states, -1)
        equations = steps.T - np.eye(n_states)
        equations[-1] = 1.0  # one equation is superfluous; instead, π sums to one
        settled = np.linalg.solve(equations, np.eye(n_states)[-1]).clip(min=0)
        return (settled / settled.sum()).reshape(shape)
    settled = np.full(shape, 1 / n_states)
    for _ in range(MAX_STEPS):  # half a step at a time, so that no period can keep it swinging
        new = (settled + (settled[..., None] * transition).sum(axis=0)) / 2
        change = np.abs(new - settled).sum()
        settled = new / new.sum()
        if change < 1e-14:
            return settled
    raise ValueError(
        f"the chain of {n_states} states has not settled after {MAX_STEPS:,} steps; "
        "make its transitions less extreme, or lower its order"
    )


def refuse_several_ends(transition: np.ndarray) -> None:
    """Refuse a chain that does not have exactly one stationary distribution, or that falls silent.

    Raises:
        ValueError: reducible, with two classes that it cannot leave; or absorbing, with one state
            that it cannot leave. The states are named.

    Example:
        >>> refuse_several_ends(np.array([[1.0, 0.0], [0.0, 1.0]]))  # doctest: +ELLIPSIS
        Traceback (most recent call last):
        ValueError: the chain is reducible: it may end in {0} or in {1} and leaves neither, ...
    """
    possible = transition > 0

    def forward(here: np.ndarray) -> np.ndarray:
        return (here[..., None] & possible).any(axis=0)

    def backward(here: np.ndarray) -> np.ndarray:
        return (possible & here[None]).any(axis=-1)

    start = np.zeros(transition.shape[:-1], dtype=bool)
    start.flat[0] = True
    end, leads_here = _closed_class(start, forward, backward)
    if not leads_here.all():
        start = np.zeros_like(start)
        start.flat[np.flatnonzero(~leads_here)[0]] = True
        other, _ = _closed_class(start, forward, backward)
        raise ValueError(
            f"the chain is reducible: it may end in {_some(end)} or in {_some(other)} and leaves "
            "neither, so it has no single stationary distribution; give it a way from one to the "
            "other, or make two sources and mix them"
        )
    if end.size > 1 and end.sum() == 1:
        raise ValueError(
            f"the chain is absorbing: once in {_some(end)} it stays there for ever; give that "
            "state a way out"
        )


def check_size(n_symbols: int, n: int) -> None:
    """Refuse a table of all n-grams that would fill the memory.

    Raises:
        ValueError: n is not positive, or there are more than 2²⁴ n-grams.
    """
    if n < 1 or n_symbols**n > LARGEST_TABLE:
        raise ValueError(
            f"a table of all {n}-grams over {n_symbols} symbols needs {n_symbols}^{n} entries; "
            f"it must have 1 to {LARGEST_TABLE:,}: take a smaller n or fewer symbols"
        )


def draw_block(
    sample: Callable[[np.random.Generator, int, int], Rows],
    name: str,
    index: int,
    seed: int | str,
    n_tokens: int,
) -> Rows:
    """64 rows of `sample`, from a generator that belongs to (name, seed, index).

    Raises:
        ValueError: a negative index, or no tokens.
    """
    if index < 0 or n_tokens < 1:
        raise ValueError(
            f"index must be at least 0 and n_tokens at least 1; got {index} and {n_tokens}"
        )
    return sample(generator("block", name, seed, index), BLOCK_ROWS, n_tokens)


def refuse_impossible(prefix: Sequence[int], log_prob: float) -> None:
    """Refuse to predict after what cannot have been said (log-probability -inf).

    Raises:
        ValueError: it is so.
    """
    if log_prob == -np.inf:
        shown = ", ".join(str(int(symbol)) for symbol in np.ravel(prefix)[:20])
        raise ValueError(
            f"this source never says [{shown}{', …' if np.size(prefix) > 20 else ''}] (its "
            "probability is 0), so nothing follows it; log_probs tells where it becomes impossible"
        )


def _closed_class(
    start: np.ndarray,
    forward: Callable[[np.ndarray], np.ndarray],
    backward: Callable[[np.ndarray], np.ndarray],
) -> tuple[np.ndarray, np.ndarray]:
    """The closed class that a state can end in, and all states that lead to it."""
    while True:
        ahead, behind = _spread(start, forward), _spread(start, backward)
        one_way = ahead & ~behind
        if not one_way.any():
            return ahead, behind
        start = np.zeros_like(start)  # a state with no way back: it can reach less
        start.flat[np.flatnonzero(one_way)[0]] = True


def _spread(here: np.ndarray, step: Callable[[np.ndarray], np.ndarray]) -> np.ndarray:
    while True:
        wider = here | step(here)
        if (wider == here).all():
            return here
        here = wider


def _some(states: np.ndarray) -> str:
    named = [",".join(map(str, state)) for state in np.argwhere(states).tolist()]
    return "{" + " ".join(named[:6]) + (" …" if len(named) > 6 else "") + "}"
