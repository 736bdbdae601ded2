"""Arithmetic coding (算术编码): any next-token prediction becomes a compressor, and back.

Every message owns a part of the interval [0, 1). Before each token the interval is cut into shares,
one a token, as wide as their probabilities; the token that comes keeps its share, and on it goes:

    0                    .5        .75       1
    [         a          |    b    |    c    )     b comes: go on inside [.5, .75)
    [.5                .625    .6875       .75)    a comes: go on inside [.5, .625)

The final width is p(x1) p(x2) …, the probability of the message, and to name a number inside it
takes -log2 of the width, and two bits at most. So the length of the code *is* the model's loss in
bits: who predicts better, compresses better. The decoder makes the same predictions and looks into
whose share the number falls.

With integers: `low` and `high` are 62 bits wide. What both begin with is written and shifted out.
If the interval straddles the middle and lies within the two inner quarters, the next bit is not
known, yet the one after it will be its opposite: it is counted (`n_pending`) and the interval
stretched. So it is always wider than a quarter of 2^62 before it is cut, and every token, with a
share of at least one in 2^32, keeps a part of it: nothing overflows and nothing runs dry.

No two messages of n tokens have codes of which one begins with the other. Hence after decoding,
`decode` knows exactly which bytes it should have read, and every code that was cut off, lengthened
or finished in another way is refused. (A code whose bits were changed may be the code of another
message; a checksum is not the coder's work.)

The decoder must see the very same probabilities. Use the same function on the same machine for both
ways: floating-point sums may differ in the last digit between batches, threads and machines.

Paper: Witten, Neal and Cleary 1987, "Arithmetic coding for data compression", Communications of the
ACM 30(6), pages 520-540; Delétang et al. 2023, "Language modeling is compression", arXiv:2309.10668
(what it says about models).

Differs: 62 bits in place of 16, and shares in 2^32ths; the probabilities come from a function, in
place of their adaptive counts; the number of tokens is known, or an end token is named; a code that
is not exactly what the encoder would have written is refused.

Chapter: 02
"""

import gzip
import lzma
from collections.abc import Callable, Sequence
from typing import final

import numpy as np

NextToken = Callable[[Sequence[int]], np.ndarray]

CODE_BITS = 62
HALF = 1 << CODE_BITS - 1
QUARTER = HALF >> 1
SHARES = 1 << 32  # into how many parts an interval is cut


# --- probabilities to whole numbers -------------------------------------------------------------
def shares(probabilities: np.ndarray) -> np.ndarray:
    """Cut 2^32 parts among the tokens by their probabilities: at least one part for each.

    share(w) = 1 + floor(p(w) (2^32 - V)), and what is left goes to the likeliest token, the first
    of them in a tie. The same floats give the same integers, on every machine.

    Args:
        probabilities: [V], each above zero, together one (to 1e-4; they are divided by their sum).

    Returns:
        [V] integers that sum to 2^32.

    Raises:
        ValueError: another shape; a probability that is zero, negative or not finite; another sum.

    Example:
        >>> shares(np.array([0.5, 0.25, 0.25])) / 2**32
        array([0.5 , 0.25, 0.25])
    """
    p = np.asarray(probabilities, dtype=np.float64)
    if p.ndim != 1 or not 0 < p.size <= SHARES >> 8:
        raise ValueError(
            "probabilities must be one axis of 1 to 2^24 numbers, one a token; got the shape "
            f"{list(p.shape)}"
        )
    if not np.isfinite(p).all() or p.min() <= 0:
        token = int(np.flatnonzero(~(np.isfinite(p) & (p > 0)))[0])
        raise ValueError(
            f"every token needs a probability above zero, or it could not be coded; token {token} "
            f"has {p[token]}: mix the prediction with a uniform one, with_floor(next_token)"
        )
    total = p.sum()
    if abs(total - 1) > 1e-4:
        raise ValueError(f"probabilities must sum to one; they sum to {total:.6g}")
    parts = 1 + np.floor(p / total * (SHARES - p.size)).astype(np.int64)
    parts[p.argmax()] += SHARES - parts.sum()
    return parts


def with_floor(next_token: NextToken, uniform_share: float = 1e-6) -> NextToken:
    """Mix a prediction with a uniform one, so that nothing is impossible.

    (1 - a) p(w) + a / V, a the uniform share: costs a token at most -log2(1 - a) bits.

    Raises:
        ValueError: a share that is not between 0 and 1.

    Example:
        >>> never_one = lambda prefix: np.array([1.0, 0.0])
        >>> with_floor(never_one, uniform_share=0.5)([])
        array([0.75, 0.25])
    """
    if not 0 < uniform_share < 1:
        raise ValueError(f"uniform_share must be between 0 and 1; got {uniform_share}")

    def mixed(prefix: Sequence[int]) -> np.ndarray:
        p = np.asarray(next_token(prefix), dtype=np.float64)
        return (1 - uniform_share) * p + uniform_share / p.size

    return mixed


# --- the interval -------------------------------------------------------------------------------
@final
class Interval:
    """The interval of a message so far, and the bits that are certain already."""

    def __init__(self):
        self.low, self.high = 0, 2 * HALF - 1
        self.n_pending = 0  # bits that will be the opposite of the next one
        self.bits = bytearray()

    def narrow(self, start: int, end: int) -> list[int]:
        """Keep the parts from start to end of 2^32, and write the bits that become certain.

        Returns:
            What was taken from `low` and `high` before each doubling: a decoder does the same.
        """
        width = self.high - self.low + 1
        self.high = self.low + width * end // SHARES - 1
        self.low = self.low + width * start // SHARES
        taken = []
        while True:
            if self.high < HALF:
                self._write(0)
                shift = 0
            elif self.low >= HALF:
                self._write(1)
                shift = HALF
            elif self.low >= QUARTER and self.high < HALF + QUARTER:
                self.n_pending += 1
                shift = QUARTER
            else:
                return taken
            self.low = 2 * (self.low - shift)
            self.high = 2 * (self.high - shift) + 1
            taken.append(shift)

    def _write(self, bit: int) -> None:
        self.bits.append(bit)
        self.bits.extend([1 - bit] * self.n_pending)
        self.n_pending = 0

    def code(self) -> bytes:
        """The bits, two more that name a quarter inside the interval, and zeros up to a byte."""
        self.n_pending += 1
        self._write(0 if self.low < QUARTER else 1)
        return np.packbits(np.frombuffer(self.bits, dtype=np.uint8)).tobytes()


def encode(tokens: Sequence[int], next_token: NextToken) -> bytes:
    """Compress tokens with the predictions of a model.

    Args:
        tokens: what to encode. To decode without knowing how many they are, let the last one be an
            end token that stands nowhere else.
        next_token: probability of each token, [V], given the list of those before it, which must
            not be changed.

    Returns:
        The code. Its length in bits is Σ -log2 p(token), and a few bits.

    Raises:
        ValueError: a token outside the alphabet; a prediction with zeros, or that does not sum to
            one. The message says at which token.

    Example:
        >>> biased = lambda prefix: np.array([0.9, 0.1])
        >>> len(encode([0] * 100, biased)), len(encode([1] * 100, biased))  # 15.2 and 332.2 bits
        (3, 42)

    Paper: Witten, Neal and Cleary 1987, `encode_symbol` and `done_encoding`.
    Differs: see the module.
    """
    interval = Interval()
    prefix: list[int] = []
    for token in map(int, tokens):
        bounds = _bounds(next_token, prefix)
        if not 0 <= token < len(bounds) - 1:
            raise ValueError(
                f"token {token} at place {len(prefix)} is outside the alphabet: the prediction "
                f"there has {len(bounds) - 1} tokens, 0 to {len(bounds) - 2}"
            )
        interval.narrow(int(bounds[token]), int(bounds[token + 1]))
        prefix.append(token)
    return interval.code()


def decode(
    data: bytes, next_token: NextToken, *, n_tokens: int | None = None, end: int | None = None
) -> list[int]:
    """Read tokens back: `decode(encode(tokens, f), f, n_tokens=len(tokens)) == tokens`.

    Args:
        data: a code of `encode`, all of it and nothing else.
        next_token: what it was encoded with.
        n_tokens: how many tokens it holds; with `end`, how many at most.
        end: the token that ends the message; it comes back as the last one. Where the model hardly
            ever expects it, a damaged code may take very long: give n_tokens as the limit.

    Returns:
        The tokens.

    Raises:
        ValueError: neither n_tokens nor end; a code that is cut off, too long or not from `encode`
            with these predictions; no end token within n_tokens; predictions as in `encode`.

    Example:
        >>> biased = lambda prefix: np.array([0.6, 0.3, 0.1])
        >>> decode(encode([0, 1, 0, 2], biased), biased, end=2)
        [0, 1, 0, 2]

    Paper: Witten, Neal and Cleary 1987, `decode_symbol`.
    Differs: see the module.
    """
    if n_tokens is None and end is None:
        raise ValueError("where does the message stop? pass n_tokens, or end (a token), or both")
    if n_tokens is not None and n_tokens < 0:
        raise ValueError(f"n_tokens must be at least 0; got {n_tokens}")
    bits = np.unpackbits(np.frombuffer(data, dtype=np.uint8)).tolist()
    n_bits = len(bits)
    value = int.from_bytes(data[:8].ljust(8, b"\0")) >> 64 - CODE_BITS  # as if zeros followed
    n_read = CODE_BITS
    interval = Interval()
    tokens: list[int] = []
    while len(tokens) != n_tokens:
        bounds = _bounds(next_token, tokens)
        if end is not None and not 0 <= end < len(bounds) - 1:
            raise ValueError(
                f"end={end} is outside the alphabet: the prediction at place {len(tokens)} has "
                f"{len(bounds) - 1} tokens, 0 to {len(bounds) - 2}"
            )
        width = interval.high - interval.low + 1
        part = ((value - interval.low + 1) * SHARES - 1) // width
        token = int(np.searchsorted(bounds, part, side="right")) - 1
        for shift in interval.narrow(int(bounds[token]), int(bounds[token + 1])):
            value = 2 * (value - shift) + (bits[n_read] if n_read < n_bits else 0)
            n_read += 1
        tokens.append(token)
        if len(interval.bits) + interval.n_pending > n_bits:
            raise ValueError(
                f"the code is cut off: its {len(data)} bytes end before token {len(tokens)} of the "
                "message does; pass all bytes that encode returned, and the n_tokens it was given"
            )
        if token == end:
            break
    else:
        if end is not None:
            raise ValueError(f"no end token {end} among the first {n_tokens} tokens of this code")
    if interval.code() != data:
        raise ValueError(
            f"these {len(data)} bytes are not the code of the {len(tokens)} tokens that they give: "
            "the code is cut off, goes on after the message, or was made with other predictions"
        )
    return tokens


def _bounds(next_token: NextToken, prefix: list[int]) -> np.ndarray:
    """Where each token's share begins, and 2^32."""
    try:
        parts = shares(next_token(prefix))
    except ValueError as error:
        raise ValueError(f"the prediction of the token at place {len(prefix)}: {error}") from error
    return np.concatenate([[0], parts.cumsum()])


# --- what everyone has --------------------------------------------------------------------------
def gzip_bytes(data: bytes) -> int:
    """How many bytes gzip needs at its best level, header included.

    Example:
        >>> gzip_bytes(b"plum" * 1000) < 60
        True
    """
    return len(gzip.compress(data, compresslevel=9, mtime=0))


def xz_bytes(data: bytes) -> int:
    """How many bytes xz needs at its best level, header included.

    Example:
        >>> xz_bytes(b"plum" * 1000) < 120
        True
    """
    return len(lzma.compress(data, preset=9 | lzma.PRESET_EXTREME))
