"""N-gram models: count what followed the last few tokens, and share out what was never seen.

An n-gram (n 元语法) is n tokens in a row. The model of order n looks at the last n - 1 of them, the
context h, and predicts the next, w, from c(hw), how often w followed h:

    add-k         p(w|h) = (c(hw) + k) / (c(h•) + k V)

    Kneser-Ney    p_n(w|h) = max(c(hw) - D, 0) / c(h•) + D N(h•) / c(h•) · p_(n-1)(w|h')

Kneser-Ney takes a discount (折扣) D from each kind of continuation that was seen, N(h•) kinds in
all, and hands it to the shorter context h' (h without its oldest token). What is counted there is
not how often h'w was seen, but in how many surroundings, the *continuation count*

    N(•h'w) = number of different tokens seen before h'w

for `Francisco` may be common and still come after `San` only: a new context should not expect it.
The recursion ends at 1/V, so no token has probability zero. A context that was never seen leaves
all to the shorter one. D = n1 / (n1 + 2 n2), with n1 and n2 the numbers of n-grams counted once and
twice; every order has its own D, from its own (continuation) counts. With plain counts at every
order (`continuation=False`) the same formula is interpolated absolute discounting.

Kneser-Ney is here twice: `kneser_ney_naive` says what is meant, with dictionaries and one
prediction at a time; `KneserNey` keeps each n-gram as one integer, its tokens the digits of base
V + 1, in sorted arrays, and looks a whole text up at once. Before a row stand n - 1 start marks,
the id V, so that how rows begin is learned too; the mark is never predicted.

Paper: Chen and Goodman 1999, "An empirical study of smoothing techniques for language modeling",
Computer Speech and Language 13, §2 (add-k is their "additive smoothing"; Kneser-Ney in its
interpolated form, their §4.1.6 in the report TR-10-98); Kneser and Ney 1995, ICASSP (continuation
counts); Ney, Essen and Kneser 1994 (the estimate of D).

Differs: one discount an order, their "modified" form has three; n-grams that begin with start marks
get continuation counts as all others do (KenLM keeps their plain counts); where no n-gram was
counted once, the estimate of D is 0 and we take 1/2, so that unseen tokens keep a share.

Chapter: 02
"""

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import final

import numpy as np

Rows = np.ndarray | Sequence[Sequence[int]]
Gram = tuple[int, ...]


# --- counts, as one would write them ------------------------------------------------------------
def count_grams(rows: Rows, order: int, vocab_size: int) -> Counter[Gram]:
    """How often each n-gram occurs, n = order; n - 1 start marks (the id V) stand before each row.

    Raises:
        ValueError: tokens outside the vocabulary, or none at all; order below 1.

    Example:
        >>> sorted(count_grams([[0, 1, 0, 1]], order=2, vocab_size=2).items())
        [((0, 1), 2), ((1, 0), 1), ((2, 0), 1)]
    """
    return Counter(tuple(window) for window in _windows(rows, order, vocab_size).tolist())


def continuation_counts(grams: Mapping[Gram, int]) -> Counter[Gram]:
    """N(•g): in front of each shorter gram g, how many different tokens were seen.

    Example:
        >>> san, los, francisco, angeles = range(4)
        >>> grams = {(san, francisco): 9, (san, angeles): 1, (los, angeles): 2}
        >>> continuation_counts(grams)[(francisco,)], continuation_counts(grams)[(angeles,)]
        (1, 2)

    Paper: Chen and Goodman 1999, N₁₊(• w).
    Differs: none.
    """
    return Counter(gram[1:] for gram in grams)


def estimate_discount(counts: Mapping[Gram, int]) -> float:
    """D = n1 / (n1 + 2 n2), n1 and n2 the numbers of grams counted once and twice.

    Example:
        >>> estimate_discount({(0, 1): 1, (1, 1): 1, (1, 0): 2, (2, 0): 5})
        0.5

    Paper: Ney, Essen and Kneser 1994.
    Differs: 1/2 if no gram is counted once.
    """
    return _discount(np.array(list(counts.values())))


def _discount(counts: np.ndarray) -> float:
    n_once, n_twice = int((counts == 1).sum()), int((counts == 2).sum())
    return n_once / (n_once + 2 * n_twice) if n_once else 0.5


def kneser_ney_naive(
    rows: Rows, vocab_size: int, order: int, prefix: Sequence[int], discount: float | None = None
) -> list[float]:
    """The prediction of `KneserNey(rows, vocab_size, order, discount)` after `prefix`, plainly.

    Everything is counted anew for each call. This is what `KneserNey` must equal.

    Example:
        >>> [round(p, 3) for p in kneser_ney_naive([[0, 1, 0, 1]], 2, 2, [0], discount=0.5)]
        [0.167, 0.833]
    """
    counts = count_grams(rows, order, vocab_size)
    context = _context(prefix, order, vocab_size)
    # 1. one table for each length: counts, then in how many contexts a shorter n-gram stands
    tables = [counts]
    while len(tables) < order:
        tables.insert(0, continuation_counts(tables[0]))
    # 2. from the uniform distribution up to the longest context, each level refines the one below
    p = [1 / vocab_size] * vocab_size
    for length, counts in enumerate(tables):
        h = context[order - 1 - length :]
        seen = {gram[-1]: count for gram, count in counts.items() if gram[:-1] == h}
        if not seen:
            continue
        taken = estimate_discount(counts) if discount is None else discount
        # p(w | h) = (max(c(h w) - d, 0) + d · n(h) · p(w | shorter h)) / c(h)
        # where c counts, d is the discount and n(h) how many different tokens follow h
        total, passed_on = sum(seen.values()), taken * len(seen)
        p = [(max(seen.get(w, 0) - taken, 0) + passed_on * p[w]) / total for w in range(vocab_size)]
    return p


# --- the same, on arrays ------------------------------------------------------------------------
@final
class _Table:
    """Grams of one length as sorted integers, their counts, and the sums over each context."""

    def __init__(self, grams: np.ndarray, counts: np.ndarray, base: int):
        self.base, self.grams, self.counts = base, grams, counts
        self.contexts, starts = np.unique(grams // base, return_index=True)
        self.ends = np.append(starts, len(grams))
        self.totals = np.add.reduceat(counts, starts)

    def look_up(self, grams: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """c(hw), c(h•) and N(h•) of every gram hw; zeros where it was not seen."""
        count = _found(self.grams, grams, self.counts)
        contexts = grams // self.base
        total = _found(self.contexts, contexts, self.totals)
        return count, total, _found(self.contexts, contexts, np.diff(self.ends))

    def followers(self, context: int) -> tuple[np.ndarray, np.ndarray]:
        """Which tokens followed a context, and how often."""
        i = int(np.searchsorted(self.contexts, context))
        if i == len(self.contexts) or self.contexts[i] != context:
            return self.grams[:0], self.counts[:0]
        span = slice(self.ends[i], self.ends[i + 1])
        return self.grams[span] % self.base, self.counts[span]


def _found(keys: np.ndarray, targets: np.ndarray, values: np.ndarray) -> np.ndarray:
    i = np.minimum(np.searchsorted(keys, targets), len(keys) - 1)
    return np.where(keys[i] == targets, values[i], 0)


@final
class AddK:
    """Counts with k added to each: the simplest model that never says never.

    Args:
        rows: [rows, T] token ids, or rows of any lengths.
        vocab_size: V, ids 0 to V - 1.
        order: n; 1 is a unigram model (no context), 2 a bigram model.
        k: what is added to each count.

    Raises:
        ValueError: tokens outside the vocabulary, or none at all; order below 1 or so large that
            (V + 1)^n does not fit into 63 bits; k not above 0.

    Example:
        >>> model = AddK([[0, 1, 0, 1, 0, 0]], vocab_size=2, order=2, k=1)
        >>> model.next_token([0])  # after 0 came one 0 and two 1
        array([0.4, 0.6])

    Paper: Chen and Goodman 1999, additive smoothing (Lidstone 1920; k = 1 is Laplace's).
    Differs: none.
    """

    def __init__(self, rows: Rows, vocab_size: int, order: int, k: float = 1.0):
        if not 0 < k < math.inf:
            raise ValueError(f"k must be a finite number above 0; got {k}")
        self.vocab_size, self.order, self.k = vocab_size, order, k
        codes = _codes(_windows(rows, order, vocab_size), vocab_size)
        self._table = _Table(*np.unique(codes, return_counts=True), vocab_size + 1)

    def next_token(self, prefix: Sequence[int]) -> np.ndarray:
        """Probability of each token after a prefix, [V].

        Raises:
            ValueError: a token outside the vocabulary.
        """
        context = _codes(_context(prefix, self.order, self.vocab_size), self.vocab_size)
        tokens, counts = self._table.followers(int(context))
        p = np.full(self.vocab_size, self.k)
        p[tokens] += counts
        return p / (counts.sum() + self.k * self.vocab_size)

    def log_probs(self, rows: Rows) -> np.ndarray:
        """log p of each token given those before it, in nats; shapes as in `KneserNey`."""
        codes = _codes(_windows(rows, self.order, self.vocab_size), self.vocab_size)
        count, total, _ = self._table.look_up(codes)
        return _shaped(np.log((count + self.k) / (total + self.k * self.vocab_size)), rows)


@final
class KneserNey:
    """Interpolated Kneser-Ney: what is taken from the seen goes to the shorter context.

    Args:
        rows: [rows, T] token ids, or rows of any lengths.
        vocab_size: V, ids 0 to V - 1.
        order: n; 1 is a unigram model (no context), 2 a bigram model.
        discount: D of every order; each order's own estimate if None.
        continuation: whether shorter n-grams get continuation counts; if not, they get plain ones,
            which is absolute discounting.

    Raises:
        ValueError: as `AddK`; a discount not above 0 or larger than 1.

    Example:
        >>> model = KneserNey([[0, 1, 0, 1]], vocab_size=2, order=2, discount=0.5)
        >>> model.next_token([0]).round(3)
        array([0.167, 0.833])

    Paper: Chen and Goodman 1999, interpolated Kneser-Ney; Ney, Essen and Kneser 1994 for absolute
    discounting.
    Differs: see the module.
    """

    def __init__(
        self,
        rows: Rows,
        vocab_size: int,
        order: int,
        discount: float | None = None,
        *,
        continuation: bool = True,
    ):
        if discount is not None and not 0 < discount <= 1:
            raise ValueError(f"discount must be above 0 and at most 1; got {discount}")
        self.vocab_size, self.order = vocab_size, order
        base = vocab_size + 1
        codes = _codes(_windows(rows, order, vocab_size), vocab_size)
        grams, counts = np.unique(codes, return_counts=True)
        self._tables = [_Table(grams, counts, base)]
        for length in range(order - 1, 0, -1):
            # one for each different longer n-gram, or one for each time that it occurs
            longer = grams if continuation else codes
            grams, counts = np.unique(longer % base**length, return_counts=True)
            self._tables.insert(0, _Table(grams, counts, base))
        self.discounts = tuple(
            _discount(table.counts) if discount is None else discount for table in self._tables
        )

    def next_token(self, prefix: Sequence[int]) -> np.ndarray:
        """Probability of each token after a prefix, [V].

        Raises:
            ValueError: a token outside the vocabulary.
        """
        context = int(_codes(_context(prefix, self.order, self.vocab_size), self.vocab_size))
        p = np.full(self.vocab_size, 1 / self.vocab_size)
        for length, (table, taken) in enumerate(zip(self._tables, self.discounts, strict=True)):
            tokens, counts = table.followers(context % table.base**length)
            if len(tokens):
                p *= taken * len(tokens)
                p[tokens] += np.maximum(counts - taken, 0)
                p /= counts.sum()
        return p

    def log_probs(self, rows: Rows) -> np.ndarray:
        """log p of each token given those before it, in nats.

        Returns:
            The shape of `rows`: [B, T] for [B, T] or rows of one length, [T] for [T]; for rows of
            different lengths one axis, row after row.

        Raises:
            ValueError: tokens outside the vocabulary, or none at all.
        """
        codes = _codes(_windows(rows, self.order, self.vocab_size), self.vocab_size)
        p = np.full(len(codes), 1 / self.vocab_size)
        for length, (table, taken) in enumerate(zip(self._tables, self.discounts, strict=True), 1):
            count, total, n_kinds = table.look_up(codes % table.base**length)
            mixed = np.maximum(count - taken, 0) + taken * n_kinds * p
            p = np.where(total > 0, mixed / np.maximum(total, 1), p)
        return _shaped(np.log(p), rows)


# --- how good a model is ------------------------------------------------------------------------
def perplexity(log_probs: np.ndarray) -> float:
    """exp of the mean loss (困惑度): among how many equally likely tokens the model wavers.

    Args:
        log_probs: of each token, in nats.

    Raises:
        ValueError: there is no token; one's log-probability is NaN or above 0.

    Example:
        >>> round(perplexity(np.log([1 / 8, 1 / 2])), 6)
        4.0
        >>> perplexity([-1000.0])  # e^1000 is more than a float can hold
        inf
    """
    try:
        return math.exp(-float(_checked_log_probs(log_probs).mean()))
    except OverflowError:
        return math.inf


def bits_per_byte(log_probs: np.ndarray, n_bytes: int) -> float:
    """Bits that the model needs for all the tokens, by bytes of the text that they spell.

    Models of different tokenizers can be compared so; losses a token cannot.

    Args:
        log_probs: of each token, in nats.
        n_bytes: of the whole text.

    Raises:
        ValueError: there is no token, or no byte; a log-probability is NaN or above 0.

    Example:
        >>> bits_per_byte(np.log([1 / 8, 1 / 2]), n_bytes=2)  # 3 bits and 1 bit
        2.0
    """
    if n_bytes < 1:
        raise ValueError(f"n_bytes must be at least 1, the bytes of the text; got {n_bytes}")
    return -float(_checked_log_probs(log_probs).sum()) / math.log(2) / n_bytes


def _checked_log_probs(log_probs: np.ndarray) -> np.ndarray:
    log_probs = np.asarray(log_probs, dtype=float)
    if not log_probs.size:
        raise ValueError("there is no token to measure: pass the log-probability of at least one")
    if (wrong := np.isnan(log_probs) | (log_probs > 1e-6)).any():  # log 1, but for roundings
        place = int(wrong.argmax())
        raise ValueError(
            "a log-probability must be at most 0 (-∞ for what was impossible); that of token "
            f"{place} is {log_probs.flat[place]}"
        )
    return log_probs


# --- tokens come in -----------------------------------------------------------------------------
def _windows(rows: Rows, order: int, vocab_size: int) -> np.ndarray:
    """[tokens, order]: each token with the order - 1 before it, start marks where a row begins."""
    if order < 1 or vocab_size < 1:
        raise ValueError(f"order and vocab_size must be at least 1; got {order} and {vocab_size}")
    if (vocab_size + 1) ** order >= 2**63:
        longest = int(63 * math.log(2) / math.log(vocab_size + 1))
        raise ValueError(
            f"an n-gram is kept as one integer of 63 bits, so with vocab_size={vocab_size} order "
            f"can be at most {longest}; got {order}"
        )
    rows = [rows] if isinstance(rows, np.ndarray) and rows.ndim == 1 else rows
    marks = np.full(order - 1, vocab_size)
    parts = []
    for number, row in enumerate(rows):
        try:
            parts += [marks, checked_tokens(row, vocab_size)]
        except ValueError as error:
            raise ValueError(f"row {number}: {error}") from None
    flat = np.concatenate([marks, *parts])
    if not (flat != vocab_size).any():
        raise ValueError("there is no token in these rows: pass at least one")
    windows = np.lib.stride_tricks.sliding_window_view(flat, order)
    return windows[windows[:, -1] != vocab_size]


def checked_tokens(row: Sequence[int], vocab_size: int) -> np.ndarray:
    """A row of token ids as an array of int64.

    Raises:
        ValueError: not one row of integers; a token outside the vocabulary, by name.

    Example:
        >>> checked_tokens([3, 1], vocab_size=4)
        array([3, 1])
    """
    tokens = np.asarray(row)
    if tokens.ndim != 1 or (tokens.size and tokens.dtype.kind not in "iu"):
        raise ValueError(
            "a row must be integers, one after the other, and rows a list of such rows; got the "
            f"shape {list(tokens.shape)} of {tokens.dtype}"
        )
    outside = np.flatnonzero((tokens < 0) | (tokens >= vocab_size))
    if outside.size:
        raise ValueError(
            f"token {tokens[outside[0]]} at place {outside[0]} is outside the vocabulary of "
            f"{vocab_size}: ids run from 0 to {vocab_size - 1}"
        )
    return tokens.astype(np.int64)


def _context(prefix: Sequence[int], order: int, vocab_size: int) -> Gram:
    """The last order - 1 tokens, start marks before them where there are fewer."""
    n_context = order - 1
    last = checked_tokens(prefix[max(0, len(prefix) - n_context) :], vocab_size).tolist()
    return (vocab_size,) * (n_context - len(last)) + tuple(last)


def _codes(grams: np.ndarray | Gram, vocab_size: int) -> np.ndarray:
    """Each gram (the last axis) as one integer: its tokens are digits of base V + 1."""
    grams = np.asarray(grams, dtype=np.int64)
    codes = np.zeros(grams.shape[:-1], dtype=np.int64)
    for digit in np.moveaxis(grams, -1, 0):
        codes = codes * (vocab_size + 1) + digit
    return codes


def _shaped(values: np.ndarray, rows: Rows) -> np.ndarray:
    if isinstance(rows, np.ndarray):
        return values.reshape(rows.shape)
    lengths = {len(row) for row in rows}
    return values.reshape(len(rows), -1) if len(lengths) == 1 else values
