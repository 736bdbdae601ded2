"""A tokenizer: a list of merges that turns text into ids and back.

To encode, a text is cut into words, each word becomes its bytes (ids 0 to 255), and the merges are
replayed in the order in which they were learned (`minillm.text.bpe` learns them). To decode, each
id is looked up: it spells the bytes of the two ids that it was merged from.

`merge_steps` encodes a word the plain way and shows each step; `merge_word` gives the same ids for
a word of any length in about linear time. The tests hold them equal.

Paper: Sennrich, Haddow and Birch 2016, "Neural Machine Translation of Rare Words with Subword
Units" (arXiv:1508.07909), section 3.2.
Differs: bytes instead of characters; special tokens, which are no part of the paper.

Chapter: 01
"""

import heapq
import re
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from operator import index
from typing import final

from minillm.text.escape import escape
from minillm.text.pretokenize import PATTERN, pretokenize, refuse_surrogates

Pair = tuple[int, int]

#: What stands in a row of ids where there is none: the end of a word, or an id merged to the left.
END, GONE = -1, -2

#: How bytes that are not UTF-8 pass through a str: `data.decode(*LOSSLESS).encode(*LOSSLESS)`.
LOSSLESS = ("utf-8", "surrogateescape")


def merge_steps(
    word: Sequence[int], new_ids: Mapping[Pair, int]
) -> Iterator[tuple[int, list[int]]]:
    """Encode one word the plain way: the earliest-learned merge first, one merge a step.

    Args:
        word: the ids to begin with, e.g. `bytes`.
        new_ids: which id each pair merges into.

    Yields:
        The new id and the whole word after each merge.

    Example:
        >>> list(merge_steps(b"abab", {(97, 98): 256, (256, 256): 257}))
        [(256, [256, 97, 98]), (256, [256, 256]), (257, [257])]
    """
    ids = list(word)
    while known := [(new_ids[pair], i) for i, pair in enumerate(pairwise(ids)) if pair in new_ids]:
        new_id, i = min(known)
        ids = [*ids[:i], new_id, *ids[i + 2 :]]
        yield new_id, ids


def merge_word(word: Sequence[int], new_ids: Mapping[Pair, int]) -> list[int]:
    """Encode one word to the ids that `merge_steps` ends with, in time about linear in its length.

    The ids are linked to their neighbours, so that a merge changes a few links and moves nothing.
    The heap holds each merge that is due, once; beside it stand the merge's places, from left to
    right.

    Example:
        >>> merge_word(b"abab", {(97, 98): 256, (256, 256): 257})
        [257]
    """
    ids = [*word, END]
    previous = list(range(-1, len(word)))  # ids[previous[0]] is ids[-1], which is END as well
    following = list(range(1, len(word) + 2))
    positions: dict[int, list[int]] = {}  # for each merge that is due: where its pair begins
    for i, pair in enumerate(pairwise(ids)):
        if pair in new_ids:
            positions.setdefault(new_ids[pair], []).append(i)
    due = list(positions)
    heapq.heapify(due)
    while due:
        new_id = heapq.heappop(due)
        for i in positions.pop(new_id):
            j = following[i]
            if new_ids.get((ids[i], ids[j])) != new_id:
                continue  # an earlier merge took one of the two
            before, after = previous[i], following[j]
            ids[i], ids[j] = new_id, GONE
            following[i], previous[after] = after, i
            for begin, pair in (before, (ids[before], new_id)), (i, (new_id, ids[after])):
                if pair in new_ids:
                    newer = new_ids[pair]
                    if newer not in positions:
                        positions[newer] = []
                        heapq.heappush(due, newer)
                    positions[newer].append(begin)
    return [token for token in ids if token >= 0]


def split_specials(
    text: str, special_tokens: Collection[str], allowed: Collection[str]
) -> list[str]:
    """Cut `text` at the special tokens that are allowed to be special in it.

    A special token is a command to the model. Text from a stranger must not be able to spell one
    (prompt injection, 提示注入), so none is recognised unless `allowed` names it. Where several fit
    at one place, the longest is taken.

    Returns:
        Parts that alternate: ordinary text (maybe empty), a special token, ordinary text, …

    Raises:
        ValueError: `text` is no text, or `allowed` names a token that does not exist.

    Example:
        >>> split_specials("a<|end|>b", ["<|end|>"], allowed=["<|end|>"])
        ['a', '<|end|>', 'b']
        >>> split_specials("a<|end|>b", ["<|end|>"], allowed=[])
        ['a<|end|>b']
    """
    check_specials(text, special_tokens, allowed)
    if not allowed:
        return [text]
    longest_first = sorted(allowed, key=len, reverse=True)
    return re.split(f"({'|'.join(map(re.escape, longest_first))})", text)


def check_specials(text: str, special_tokens: Collection[str], allowed: Collection[str]) -> None:
    """Refuse what is no text, and special tokens that do not exist.

    Raises:
        ValueError: as `split_specials`.
    """
    refuse_surrogates(text)
    if isinstance(allowed, str):
        raise ValueError(
            f"allowed_special must be a set of tokens: {{{allowed!r}}}, not {allowed!r}"
        )
    if unknown := set(allowed) - set(special_tokens):
        raise ValueError(
            f"allowed_special names {sorted(unknown)}, but this tokenizer's special tokens are "
            f"{sorted(special_tokens)}"
        )


def to_text(data: bytes, errors: str) -> str:
    """Decode UTF-8; what is none becomes "�", or is refused.

    Args:
        data: what tokens spell.
        errors: "replace" or "strict".

    Raises:
        ValueError: `errors` is neither; with "strict", the bytes are not UTF-8.
    """
    if errors not in ("replace", "strict"):
        raise ValueError(f'errors must be "replace" or "strict", not {errors!r}')
    try:
        return data.decode("utf-8", errors)
    except UnicodeDecodeError as error:
        raise ValueError(
            f"these ids spell no whole text: at byte {error.start} of {len(data)} stands "
            f"{escape(data[error.start : error.end])}, which is not UTF-8 ({error.reason}); "
            "decode_bytes keeps the bytes, errors='replace' marks them with �"
        ) from None


@dataclass(frozen=True)
class Step:
    """One merge while a word is encoded; `print` shows it on one line, each space as ␣."""

    new_id: int
    left: bytes
    right: bytes
    tokens: tuple[bytes, ...]  #: the whole word after the merge

    def __str__(self) -> str:
        left, right, *tokens = (
            escape(token).replace(" ", "␣") for token in (self.left, self.right, *self.tokens)
        )
        return f"{self.new_id:>6}  {left} + {right}  →  {'|'.join(tokens)}"


@final
@dataclass(frozen=True)
class Tokenizer:
    """A byte-level BPE tokenizer: a list of merges, some special tokens, and a pattern.

    It is a value: equal ones encode equally, and `dataclasses.replace(tokenizer,
    merges=tokenizer.merges[:100])` is the tokenizer that training would have given for a smaller
    vocabulary.

    Args:
        merges: pairs of ids; the nth (from 0) makes id 256 + n.
        special_tokens: their ids follow the merges'.
        pattern: how text is cut into words.

    Raises:
        ValueError: a merge uses an id that does not exist yet or repeats a pair; a special token is
            empty or double; the pattern is unusable.

    Example:
        >>> tokenizer = Tokenizer(((104, 105), (32, 256)), ("<|endoftext|>",))
        >>> tokenizer.encode("hi hi<|endoftext|>")[:2]
        [256, 257]
        >>> tokenizer.encode("hi hi<|endoftext|>", allowed_special={"<|endoftext|>"})
        [256, 257, 258]
        >>> tokenizer.decode([256, 257, 258])
        'hi hi<|endoftext|>'
    """

    merges: tuple[Pair, ...]
    special_tokens: tuple[str, ...] = ()
    pattern: str = PATTERN
    #: Which id each pair merges into.
    new_ids: Mapping[Pair, int] = field(init=False, repr=False, compare=False)
    #: The id of each special token.
    special_ids: Mapping[str, int] = field(init=False, repr=False, compare=False)
    _spelling: list[bytes] = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        merges = tuple((left, right) for left, right in self.merges)
        spelling = [bytes([byte]) for byte in range(256)]
        new_ids: dict[Pair, int] = {}
        for pair in merges:
            new_id = len(spelling)
            if not all(0 <= part < new_id for part in pair):
                raise ValueError(
                    f"merge {new_id - 256} makes id {new_id} from {pair}, but may only use the "
                    f"ids before it: 0 to {new_id - 1}"
                )
            if pair in new_ids:
                raise ValueError(
                    f"the pair {pair} is merged twice, as {new_ids[pair]} and {new_id}"
                )
            new_ids[pair] = new_id
            spelling.append(spelling[pair[0]] + spelling[pair[1]])
        if isinstance(self.special_tokens, str):
            raise ValueError(
                f"special_tokens must be a row of texts, ({self.special_tokens!r},), not one text"
            )
        special_ids: dict[str, int] = {}
        for token in self.special_tokens:
            refuse_surrogates(token)
            if not token or token in special_ids:
                raise ValueError(
                    f"each special token must be a different, non-empty text, not {token!r}"
                )
            special_ids[token] = len(spelling)
            spelling.append(token.encode("utf-8"))
        pretokenize("", self.pattern)  # complains of an unusable pattern
        # The dataclass is frozen, so what is derived once has to be set around it.
        object.__setattr__(self, "merges", merges)
        object.__setattr__(self, "special_tokens", tuple(self.special_tokens))
        object.__setattr__(self, "new_ids", new_ids)
        object.__setattr__(self, "special_ids", special_ids)
        object.__setattr__(self, "_spelling", spelling)

    @property
    def vocab_size(self) -> int:
        """How many ids there are: 256 bytes, the merges, the special tokens."""
        return len(self._spelling)

    def encode(self, text: str, allowed_special: Collection[str] = frozenset()) -> list[int]:
        """Turn text into ids.

        Args:
            text: any text without lone surrogates.
            allowed_special: special tokens that count as such where they stand in `text`. Any
                other is ordinary text, as the default is for all.

        Raises:
            ValueError: `text` is no str or holds a lone surrogate; a token of `allowed_special`
                does not exist.
        """
        ids: list[int] = []
        parts = split_specials(text, self.special_ids, allowed_special)
        for part, special in zip(parts[::2], [*parts[1::2], None], strict=True):
            ids += self._encode_ordinary(part)
            if special is not None:
                ids.append(self.special_ids[special])
        return ids

    def encode_bytes(self, data: bytes) -> list[int]:
        """Turn any bytes into ids, UTF-8 or not; on UTF-8 the same ids as `encode` of the text."""
        return self._encode_ordinary(data.decode(*LOSSLESS))

    def _encode_ordinary(self, text: str) -> list[int]:
        known: dict[str, list[int]] = {}  # each different word is merged once
        ids: list[int] = []
        for word in pretokenize(text, self.pattern):
            if word not in known:
                known[word] = merge_word(word.encode(*LOSSLESS), self.new_ids)
            ids += known[word]
        return ids

    def token_bytes(self, token: int) -> bytes:
        """Return the bytes that one id spells.

        Raises:
            ValueError: there is no such id.
        """
        try:
            token = index(token)
        except TypeError:
            raise ValueError(f"an id must be a whole number, not {token!r}") from None
        if not 0 <= token < self.vocab_size:
            raise ValueError(
                f"there is no id {token}: this vocabulary has {self.vocab_size:,} ids, 0 to "
                f"{self.vocab_size - 1}; ids must be decoded by the tokenizer that made them"
            )
        return self._spelling[token]

    def decode_bytes(self, ids: Iterable[int]) -> bytes:
        """Return the bytes that the ids spell: without loss, for any ids.

        Raises:
            ValueError: an id does not exist.
        """
        return b"".join(map(self.token_bytes, ids))

    def decode(self, ids: Iterable[int], errors: str = "replace") -> str:
        """Return the text that the ids spell.

        A token may end in the middle of a character, and a row of tokens too. What is not UTF-8
        becomes "�" (U+FFFD), so this can lose bytes; `decode_bytes` never does.

        Args:
            ids: what `encode` gave, or any other ids.
            errors: "replace" as above, or "strict" to refuse.

        Raises:
            ValueError: an id does not exist; with "strict", the bytes are not UTF-8.
        """
        return to_text(self.decode_bytes(ids), errors)

    def trace(self, word: str) -> list[Step]:
        """Show how one word is put together: every merge, in order.

        Raises:
            ValueError: `word` is several words for the pattern, which are encoded apart.

        Example:
            >>> for step in Tokenizer(((104, 105), (32, 256))).trace(" hi"):
            ...     print(step)
               256  h + i  →  ␣|hi
               257  ␣ + hi  →  ␣hi
        """
        refuse_surrogates(word)
        words = pretokenize(word, self.pattern)
        if len(words) > 1:
            raise ValueError(f"trace shows one word, but this is {len(words)}: {words}; pick one")
        steps = []
        for new_id, ids in merge_steps(word.encode("utf-8"), self.new_ids):
            left, right = self.merges[new_id - 256]
            tokens = tuple(map(self.token_bytes, ids))
            steps.append(Step(new_id, self.token_bytes(left), self.token_bytes(right), tokens))
        return steps
