"""The lattice of a word: every way to cut it into pieces, walked without listing the ways.

The *lattice* (词格) of a word has a node before each byte and one at the end, and an edge from
node i to node j for each piece word[i:j]. A segmentation (切分) is a path from the first node to
the last. Each piece has a probability, and a path has the product of its pieces' probabilities.
Four questions, four walks:

    which path is the likeliest?             Viterbi              `best_segmentation`
    what is the sum over all paths?          forward              `forward`
    a random path, drawn by probability?     backward sampling    `sample_segmentation`
    how often is each piece expected?        forward-backward     `Lattice.expected_counts`

All four take O(n · longest piece) steps for n bytes, though there are up to 2^(n-1) paths.
`segment_brute_force` lists every path; it is the specification that the tests hold them to. The
first three take one word, in plain Python; training needs the last for all words of a text, so
`Lattice` lays them side by side for numpy.

Paper: Kudo 2018, "Subword Regularization", arXiv 1804.10959, §3.2 and §3.3; the walks are the
forward-backward and Viterbi algorithms of hidden Markov models (Rabiner 1989, §III).
Differs: characters are bytes.

Chapter: 01
"""

import math
from collections.abc import Iterable, Mapping

import numpy as np


def segment_brute_force(word: bytes, log_prob: Mapping[bytes, float]) -> dict[tuple, float]:
    """List every segmentation of a short word with its log-probability: the specification.

    Args:
        word: at most 20 bytes, since n bytes have up to 2^(n-1) segmentations.
        log_prob: natural logarithm of each piece's probability.

    Returns:
        {segmentation: log P(segmentation)}; a segmentation is a tuple of pieces.

    Raises:
        ValueError: the word is longer than 20 bytes.

    Example:
        >>> found = segment_brute_force(b"aab", {b"a": -1.0, b"b": -2.0, b"ab": -2.5})
        >>> for tokens, score in found.items():
        ...     print(score, tokens)
        -4.0 (b'a', b'a', b'b')
        -3.5 (b'a', b'ab')
    """
    if len(word) > 20:
        raise ValueError(
            f"brute force lists up to 2^(n-1) segmentations and takes words of at most 20 bytes; "
            f"this one has {len(word)}: use best_segmentation or a shorter word"
        )
    if not word:
        return {(): 0.0}
    scores = {}
    for end in range(1, len(word) + 1):
        token = word[:end]
        if token in log_prob:
            for rest, score in segment_brute_force(word[end:], log_prob).items():
                scores[(token, *rest)] = log_prob[token] + score
    return scores


def best_segmentation(word: bytes, log_prob: Mapping[bytes, float], longest: int) -> list[bytes]:
    """Cut a word into its likeliest pieces (Viterbi).

    best(j) = max over pieces word[i:j] of best(i) + log p(word[i:j]),  best(0) = 0.
    The best way to node j goes through the best way to some earlier node i, so one pass from left
    to right is enough. Of two ways that are equally good, the one whose last piece is longer wins.

    Args:
        word: any bytes; every byte of it must be a piece, so that a way exists.
        log_prob: natural logarithm of each piece's probability.
        longest: bytes in the longest piece.

    Returns:
        The pieces in order; joined, they are the word.

    Raises:
        ValueError: no pieces spell this word.

    Example:
        >>> best_segmentation(b"aab", {b"a": -1.0, b"b": -2.0, b"ab": -2.5}, longest=2)
        [b'a', b'ab']

    Paper: arXiv 1804.10959, equation 4.
    Differs: none.
    """
    best = [0.0]  # best[j]: log-probability of the best way from node 0 to node j
    came_from = [0]  # came_from[j]: the node before j on that way
    for end in range(1, len(word) + 1):
        score, before = -math.inf, -1
        for start in range(max(0, end - longest), end):  # longer pieces first
            step = log_prob.get(word[start:end])
            if step is not None and best[start] + step > score:
                score, before = best[start] + step, start
        if before < 0:
            raise _no_way(word, end)
        best.append(score)
        came_from.append(before)
    tokens = []
    end = len(word)
    while end > 0:  # walk back along the best way
        tokens.append(word[came_from[end] : end])
        end = came_from[end]
    return tokens[::-1]


def forward(
    word: bytes, log_prob: Mapping[bytes, float], longest: int, alpha: float = 1.0
) -> list[float]:
    """Sum, for each node, over all ways that lead to it from the start.

    f(j) = log of the sum over pieces word[i:j] of exp(f(i) + alpha · log p(word[i:j])),  f(0) = 0.
    It is Viterbi with "sum" where that has "max". At alpha = 1 the last value is log P(word).

    Args:
        word: any bytes; every byte of it must be a piece.
        log_prob: natural logarithm of each piece's probability.
        longest: bytes in the longest piece.
        alpha: every probability is raised to this power.

    Returns:
        len(word) + 1 values, one a node.

    Raises:
        ValueError: no pieces spell this word.

    Example:
        >>> half = math.log(0.5)
        >>> ways = forward(b"ab", {b"a": half, b"b": half, b"ab": half}, longest=2)
        >>> [round(math.exp(way), 3) for way in ways]  # the last is 1/2 + 1/2 · 1/2
        [1.0, 0.5, 0.75]
    """
    total = [0.0]
    for end in range(1, len(word) + 1):
        ways = [
            total[start] + alpha * log_prob[word[start:end]]
            for start in range(max(0, end - longest), end)
            if word[start:end] in log_prob
        ]
        if not ways:
            raise _no_way(word, end)
        largest = max(ways)  # taken out first, so that exp never overflows or loses everything
        total.append(largest + math.log(sum(math.exp(way - largest) for way in ways)))
    return total


def sample_segmentation(
    word: bytes,
    log_prob: Mapping[bytes, float],
    longest: int,
    alpha: float,
    rng: np.random.Generator,
) -> list[bytes]:
    """Draw one segmentation x of a word with probability P(x)^alpha / sum of P(y)^alpha, exactly.

    Forward filtering, backward sampling. From the last node we step back along the piece
    word[i:j] with probability exp(f(i) + alpha · log p(word[i:j]) - f(j)), until node 0. The f
    cancel along the way, and what is left is P(x)^alpha / exp(f(n)).

    Example:
        >>> half = math.log(0.5)
        >>> rng = np.random.default_rng(0)
        >>> tokens = {b"a": half, b"b": half, b"ab": half}
        >>> draws = [sample_segmentation(b"ab", tokens, 2, 1.0, rng) for _ in range(999)]
        >>> 620 < draws.count([b"ab"]) < 712  # P("ab" in one token) = 1/2 : 3/4, two in three
        True

    Paper: arXiv 1804.10959, §3.3, with l = infinity.
    Differs: Kudo keeps the l best segmentations first; here all of them take part.
    """
    total = forward(word, log_prob, longest, alpha)
    tokens = []
    end = len(word)
    while end > 0:
        left = rng.random()  # what remains of a stick of length 1 as the ways take their shares
        for start in range(max(0, end - longest), end):
            step = log_prob.get(word[start:end])
            if step is None:
                continue
            chosen = start
            left -= math.exp(total[start] + alpha * step - total[end])
            if left < 0:
                break
        tokens.append(word[chosen:end])
        end = chosen
    return tokens[::-1]


def _no_way(word: bytes, end: int) -> ValueError:
    return ValueError(
        f"no way through {word!r}: no piece ends after its byte {end}; "
        f"add the single byte {word[end - 1 : end]!r} to the pieces"
    )


class Lattice:
    """The lattices of many words laid side by side, so that numpy walks them all at once.

    Word w with n bytes owns n + 1 nodes in a row. The walk goes level by level: all edges that end
    one byte into their word, then two bytes, and so on; forward and backward are the same walk,
    seen from the left and from the right.

    Args:
        words: the words; each byte of each must be a piece.
        tokens: the pieces; an edge names its piece by the index here.
        whole: False leaves out the edges that span a whole word.
    """

    def __init__(self, words: Iterable[bytes], tokens: Iterable[bytes], whole: bool = True):
        index = {token: number for number, token in enumerate(tokens)}
        longest = max(map(len, index))
        edges, first, last, depth, height = [], [], [], [], []
        node = 0
        for word in words:
            n = len(word)
            for end in range(1, n + 1):
                for start in range(max(0, end - longest), end):
                    token = index.get(word[start:end])
                    if token is not None and (whole or end - start < n):
                        edges.append((node + start, node + end, token))
            first.append(node)
            node += n + 1
            last.append(node - 1)
            depth.extend(range(n + 1))
            height.extend(range(n, -1, -1))
        self.first, self.last = np.array(first, dtype=int), np.array(last, dtype=int)
        self.depth, self.height = np.array(depth, dtype=int), np.array(height, dtype=int)
        self.keep_edges(*np.array(edges, dtype=int).reshape(-1, 3).T)

    def keep_edges(self, start: np.ndarray, end: np.ndarray, token: np.ndarray) -> None:
        """Take these edges and work out the order in which the two walks go through them."""
        self.start, self.end, self.token = start, end, token
        self.rightward = _levels(end, self.depth)
        self.leftward = _levels(start, self.height)

    def keep_pieces(self, alive: np.ndarray) -> None:
        """Drop the edges of all pieces that are no longer alive (one boolean a piece)."""
        kept = alive[self.token]
        self.keep_edges(self.start[kept], self.end[kept], self.token[kept])

    def log_likelihood(self, log_prob: np.ndarray) -> np.ndarray:
        """Log of the sum over all segmentations, one value a word."""
        left = self._walk(self.first, self.rightward, self.start, self.end, log_prob)
        return left[self.last]

    def expected_counts(
        self, log_prob: np.ndarray, counts: np.ndarray
    ) -> tuple[np.ndarray, np.ndarray]:
        """Forward-backward: how often each piece is used, on average over all segmentations.

        An edge i → j with piece x lies on the path with probability
        exp(f(i) + log p(x) + b(j) - log P(word)), f from the left and b from the right.

        Args:
            log_prob: natural logarithm of each piece's probability.
            counts: how often each word occurs.

        Returns:
            One expected count a piece, and log P(word), one a word.
        """
        left = self._walk(self.first, self.rightward, self.start, self.end, log_prob)
        right = self._walk(self.last, self.leftward, self.end, self.start, log_prob)
        whole = left[self.last]
        word_of_node = np.repeat(np.arange(len(whole)), self.last - self.first + 1)
        word = word_of_node[self.start]
        share = np.exp(left[self.start] + log_prob[self.token] + right[self.end] - whole[word])
        return np.bincount(self.token, share * counts[word], minlength=len(log_prob)), whole

    def _walk(self, origins, levels, source, target, log_prob) -> np.ndarray:
        total = np.full(len(self.depth), -np.inf)
        total[origins] = 0.0
        for edges, groups in levels:
            ways = total[source[edges]] + log_prob[self.token[edges]]
            total[target[edges[groups]]] = np.logaddexp.reduceat(ways, groups)
        return total


def _levels(target: np.ndarray, distance: np.ndarray) -> list[tuple[np.ndarray, np.ndarray]]:
    """Split the edges by their target's distance; in each level, say where each target begins."""
    order = np.lexsort((target, distance[target]))
    target = target[order]
    cuts = np.flatnonzero(np.diff(distance[target])) + 1
    levels = []
    for edges, nodes in zip(np.split(order, cuts), np.split(target, cuts), strict=True):
        groups = np.flatnonzero(np.diff(nodes, prepend=-1))
        if len(edges):
            levels.append((edges, groups))
    return levels
