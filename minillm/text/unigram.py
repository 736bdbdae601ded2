"""Byte-level unigram tokenizer: every piece has a probability, and a text takes its likeliest cut.

BPE builds a vocabulary upwards and remembers the order of its merges. A unigram tokenizer goes
the other way. It starts with far too many pieces, gives each a probability, and drops those that
the text misses least. The probability of one segmentation (切分) x = x1 … xM of a text X is

    P(x) = p(x1) · p(x2) · … · p(xM)            the pieces are independent: a unigram model

and the probability of X is the sum of P(x) over all its segmentations. `lattice` walks over them;
here the probabilities are learned and used.

Paper: Kudo 2018, "Subword Regularization", arXiv 1804.10959, §3.2 (model, EM, pruning) and §3.3
(sampling); Su 2023, BytePiece, github.com/bojone/bytepiece (no paper; README and source).

Differs: from Kudo, (1) characters are bytes: all 256 are always kept, so no text is unknown and
nothing is normalised; (2) words are cut off by our pretokenizer, not at spaces turned into "▁";
(3) the seed holds the substrings with the largest count x length, Kudo's "frequent substrings"
made definite (he finds them with a suffix array, we count); (4) EM adds one to each byte's count,
so that no byte ends with probability zero; (5) the loss of a piece is first order: its expected
count x (log p(piece) - log of the sum over its other segmentations), others' counts held still;
(6) only words of up to 64 bytes are learned from whole, longer ones in parts. From BytePiece,
(7) the vocabulary is learned by EM and pruning instead of its byte n-gram model; (8) it takes the
text line by line, we take words; (9) a piece may end inside a character (its `ensure_unicode` is
off). As in BytePiece, ids run by length and then by bytes, so ids 0 to 255 are the bytes.

Chapter: 01
"""

import math
from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import final

import numpy as np

from minillm.text.bpe import count_words
from minillm.text.lattice import Lattice, best_segmentation, sample_segmentation
from minillm.text.pretokenize import pretokenize, refuse_surrogates
from minillm.text.tokenizer import LOSSLESS

LONGEST_WORD_BYTES = 64  # while training; encoding has no such limit
ALL_BYTES = tuple(bytes([value]) for value in range(256))


@final
@dataclass(frozen=True)
class Unigram:
    """A trained tokenizer: pieces and the natural logarithms of their probabilities.

    Args:
        vocabulary: the piece of each id; ids 0 to 255 are the single bytes.
        log_probs: log p of each id's piece; the probabilities sum to one.

    Example:
        >>> quarter, rest = math.log(0.25), math.log(0.75 / 256)
        >>> tokenizer = Unigram((*ALL_BYTES, b"ab"), (*(rest,) * 256, quarter))
        >>> tokenizer.encode("cab"), tokenizer.decode([99, 256])
        ([99, 256], 'cab')
    """

    vocabulary: tuple[bytes, ...]
    log_probs: tuple[float, ...]

    def __post_init__(self):
        if self.vocabulary[:256] != ALL_BYTES:
            raise ValueError("the first 256 pieces must be the bytes 0 to 255, in order")
        if len(self.log_probs) != len(self.vocabulary):
            raise ValueError(
                f"each piece needs one log-probability; got {len(self.vocabulary)} pieces and "
                f"{len(self.log_probs)} log-probabilities"
            )
        if len(self.score) != len(self.vocabulary) or b"" in self.score:
            raise ValueError("pieces must differ from each other and hold at least one byte")
        total = sum(map(math.exp, self.log_probs))
        if not all(map(math.isfinite, self.log_probs)) or abs(total - 1) > 1e-6:
            raise ValueError(f"probabilities must be finite and sum to one; they sum to {total}")

    @property
    def vocab_size(self) -> int:
        """How many ids there are."""
        return len(self.vocabulary)

    @cached_property
    def score(self) -> dict[bytes, float]:
        """{piece: log p(piece)}."""
        return dict(zip(self.vocabulary, self.log_probs, strict=True))

    @cached_property
    def id_of(self) -> dict[bytes, int]:
        """{piece: id}."""
        return {token: number for number, token in enumerate(self.vocabulary)}

    @cached_property
    def longest(self) -> int:
        """Bytes in the longest piece."""
        return max(map(len, self.vocabulary))

    def tokens(self, text: str) -> list[bytes]:
        """Cut a text into its likeliest pieces; joined, they are its UTF-8 bytes.

        Raises:
            ValueError: the text holds a lone surrogate, which has no bytes.
        """
        refuse_surrogates(text)
        return self._cut(text)

    def encode(self, text: str) -> list[int]:
        """Ids of the likeliest pieces.

        Raises:
            ValueError: the text holds a lone surrogate, which has no bytes.
        """
        return [self.id_of[token] for token in self.tokens(text)]

    def encode_bytes(self, data: bytes) -> list[int]:
        """Ids of any bytes, UTF-8 or not; on UTF-8 the same as `encode` of the text."""
        return [self.id_of[token] for token in self._cut(data.decode(*LOSSLESS))]

    def _cut(self, text: str) -> list[bytes]:
        seen: dict[str, list[bytes]] = {}  # a word that returns is cut only once
        tokens: list[bytes] = []
        for word in pretokenize(text):
            if word not in seen:
                seen[word] = best_segmentation(word.encode(*LOSSLESS), self.score, self.longest)
            tokens += seen[word]
        return tokens

    def sample(self, text: str, alpha: float, rng: np.random.Generator) -> list[int]:
        """Ids of a random segmentation, drawn with probability proportional to P(x)^alpha.

        alpha 1 is the model's own posterior, 0 makes all segmentations equally likely, and a
        large alpha comes close to `encode`. Each word is drawn by itself.

        Raises:
            ValueError: alpha is negative or not finite; the text holds a lone surrogate.
        """
        if not (math.isfinite(alpha) and alpha >= 0):
            raise ValueError(f"alpha must be a finite number, 0 or larger; got {alpha}")
        refuse_surrogates(text)
        return [
            self.id_of[token]
            for word in pretokenize(text)
            for token in sample_segmentation(word.encode(), self.score, self.longest, alpha, rng)
        ]

    def token_bytes(self, token: int) -> bytes:
        """The bytes that one id spells.

        Raises:
            ValueError: the vocabulary has no such id.
        """
        if not 0 <= token < self.vocab_size:
            raise ValueError(f"ids run from 0 to {self.vocab_size - 1}; got {token}")
        return self.vocabulary[token]

    def decode_bytes(self, ids: Iterable[int]) -> bytes:
        """The bytes that the ids spell, without loss.

        Raises:
            ValueError: the vocabulary has no such id.
        """
        return b"".join(map(self.token_bytes, ids))

    def decode(self, ids: Iterable[int], errors: str = "replace") -> str:
        """The text that the ids spell; what is not UTF-8 becomes "�", or is refused ("strict").

        Raises:
            ValueError: the vocabulary has no such id; with "strict", the bytes are not UTF-8.
        """
        return self.decode_bytes(ids).decode("utf-8", errors=errors)


def _words(
    texts: str | bytes | Iterable[str | bytes] | Mapping[str | bytes, int],
) -> dict[bytes, int]:
    """Count the words of a text, sorted; cut up those that are too long to learn from."""
    counted = texts if isinstance(texts, Mapping) else count_words(texts)
    words: Counter[bytes] = Counter()
    for word, count in counted.items():
        if count < 1:
            raise ValueError(f"a word's count must be at least 1; {word!r} has {count}")
        if isinstance(word, str):
            refuse_surrogates(word)
        data = word.encode() if isinstance(word, str) else word
        for start in range(0, len(data), LONGEST_WORD_BYTES):
            words[data[start : start + LONGEST_WORD_BYTES]] += count
    return dict(sorted(words.items()))


def _seed(words: Mapping[bytes, int], n_seed: int, longest: int) -> dict[bytes, int]:
    """All bytes, and the substrings seen twice or more with the largest count x length."""
    counts: Counter = Counter()
    for word, count in words.items():
        for start in range(len(word)):
            for end in range(start + 2, min(start + longest, len(word)) + 1):
                counts[word[start:end]] += count
    repeated = [token for token, count in counts.items() if count > 1]
    # The sort is stable: equals stay as they came, in the order of the sorted words.
    repeated.sort(key=lambda token: -counts[token] * len(token))
    for word, count in words.items():
        for value in word:
            counts[ALL_BYTES[value]] += count
    return {token: counts[token] for token in (*ALL_BYTES, *repeated[: n_seed - 256])}


def train(
    texts: str | bytes | Iterable[str | bytes] | Mapping[str | bytes, int],
    vocab_size: int,
    *,
    max_piece_bytes: int = 16,
    n_seed: int | None = None,
    em_rounds: int = 2,
    keep_share: float = 0.75,
    progress: Callable[[int], object] | None = None,
) -> Unigram:
    """Learn a unigram vocabulary: expectation maximisation (EM) and pruning, in turn.

    E step: expected count of each piece under the present probabilities (forward-backward).
    M step: p(x) = count(x) / sum of counts, each byte's count first raised by one.
    Pruning: loss(x) = count(x) · (log p(x) - log of the sum over the other segmentations of x),
    the log-likelihood that goes if the occurrences of x must be spelled by other pieces. The
    pieces with the largest losses stay, `keep_share` of them a time; the 256 bytes always stay.

    Args:
        texts: one text or many, cut into words by `pretokenize`; or words with their counts.
        vocab_size: pieces wanted, the 256 bytes included.
        max_piece_bytes: no piece is longer.
        n_seed: pieces to start from; 16 x vocab_size if None.
        em_rounds: EM rounds before each pruning, and twice as many at the end.
        keep_share: share of the pieces that survives a pruning.
        progress: called with the number of pieces still alive before each pruning.

    Returns:
        The tokenizer. The same text gives the same pieces, in any order of the words.

    Raises:
        ValueError: an empty text, vocab_size below 256 or above what the text supports, or an
            argument out of its range; the message says which.

    Example:
        >>> tokenizer = train({"plum": 6, "plums": 4, "slum": 1}, vocab_size=259)
        >>> tokenizer.vocabulary[256:]
        (b'lum', b'plum', b'plums')
        >>> tokenizer.tokens("slums")
        [b's', b'lum', b's']

    Paper: arXiv 1804.10959, §3.2.
    Differs: see the module's docstring, points 1 to 9.
    """
    _check_arguments(vocab_size, max_piece_bytes, n_seed, em_rounds, keep_share)
    words = _words(texts)
    if not words:
        raise ValueError("training needs text; this one is empty: pass at least a few sentences")
    seed = _seed(words, n_seed or 16 * vocab_size, max_piece_bytes)
    if len(seed) < vocab_size:
        raise ValueError(
            f"this text supports at most {len(seed)} pieces (256 bytes and the substrings that "
            f"occur twice), but vocab_size={vocab_size}: pass a longer text or a smaller vocab_size"
        )
    tokens = list(seed)
    lattice = Lattice(words, tokens)
    spelled_otherwise = Lattice(tokens[256:], tokens, whole=False)
    word_counts = np.array(list(words.values()), dtype=float)
    alive = np.ones(len(tokens), dtype=bool)
    log_prob = _log_share(np.array(list(seed.values()), dtype=float), alive)
    while True:
        n_alive = int(alive.sum())
        for _ in range(em_rounds if n_alive > vocab_size else 2 * em_rounds):
            counts, _ = lattice.expected_counts(log_prob, word_counts)
            log_prob = _log_share(counts, alive)
        if n_alive == vocab_size:
            break
        if progress is not None:
            progress(n_alive)
        gain = log_prob[256:] - spelled_otherwise.log_likelihood(log_prob)
        loss = np.full(len(tokens), np.inf)  # a byte is never dropped
        loss[256:] = np.multiply(counts[256:], gain, where=alive[256:], out=loss[256:])
        loss[~alive] = -np.inf
        # Nine digits: machines round exp and log differently, and ties must stay ties. The sort is
        # stable, so among equals the piece that came first in the seed stays.
        order = np.argsort([-float(f"{value:.9g}") for value in loss], kind="stable")
        alive[order[max(vocab_size, int(keep_share * n_alive)) :]] = False
        lattice.keep_pieces(alive)
        spelled_otherwise.keep_pieces(alive)
        log_prob = _log_share(counts, alive)
    order = sorted(np.flatnonzero(alive), key=lambda number: (len(tokens[number]), tokens[number]))
    return Unigram(
        tuple(tokens[number] for number in order),
        tuple(float(log_prob[number]) for number in order),
    )


def _log_share(counts: np.ndarray, alive: np.ndarray) -> np.ndarray:
    """The M step: log of each living piece's share of all counts, one added to each byte's."""
    counts = np.where(alive, np.maximum(counts, 1e-30), 0.0)
    counts[:256] += 1.0
    with np.errstate(divide="ignore"):  # a dropped piece: log 0 is -inf, as it should be
        return np.log(counts / counts.sum())


def _check_arguments(vocab_size, max_piece_bytes, n_seed, em_rounds, keep_share) -> None:
    if vocab_size < 256:
        raise ValueError(f"vocab_size must be at least 256, one id a byte; got {vocab_size}")
    if max_piece_bytes < 1:
        raise ValueError(f"max_piece_bytes must be at least 1; got {max_piece_bytes}")
    if n_seed is not None and n_seed < vocab_size:
        raise ValueError(
            f"n_seed must be at least vocab_size={vocab_size}, since pieces are only dropped; "
            f"got {n_seed}"
        )
    if em_rounds < 1:
        raise ValueError(f"em_rounds must be at least 1; got {em_rounds}")
    if not 0 < keep_share < 1:
        raise ValueError(f"keep_share must lie between 0 and 1 (both excluded); got {keep_share}")
