"""From tokens to text while they come: whole characters only, and nothing of a stop string.

A token is some bytes. One character may be spread over several tokens, so bytes wait until their
character is whole. And a text is to end *before* a stop string such as "\\nQuestion:", which may be
spread over several tokens too: text that could be its beginning waits until it is, or cannot be.

    tokens    pl | um | s\\n | Qu | iet        stop "\\nQuestion:"
    shown     pl | um | s  |    | \\nQuiet

Chapter: 04
"""

import codecs
from collections.abc import Iterable, Iterator, Sequence
from typing import Protocol


class Spelling(Protocol):
    """What knows the bytes of a token; every tokenizer of ours does."""

    def decode_bytes(self, ids: Iterable[int]) -> bytes:
        """The bytes that the ids spell."""


def stream_text(
    tokens: Iterable[int], tokenizer: Spelling, stop: Sequence[str] = ()
) -> Iterator[str]:
    """Text of the tokens, as soon as it is certain, up to the first stop string.

    The first is the one that is complete first; what comes after it is not even asked for. All
    pieces together are `tokenizer.decode_bytes(tokens)` as text up to there: what the tokens add to
    a text before them. Where they end in the middle of a character, that character is left out.

    Args:
        tokens: ids, one at a time: what `minillm.serve.sample.stream` gives.
        tokenizer: whose ids they are.
        stop: texts that end the text.

    Returns:
        Pieces of text, none of them empty.

    Raises:
        ValueError: `stop` is one text in place of a list, or has an empty one; from the tokenizer,
            an id that does not exist.

    Example:
        >>> from minillm.text.tokenizer import Tokenizer
        >>> tokens = list("红 plum. Pear".encode())
        >>> list(stream_text(tokens, Tokenizer(()), stop=[". P"]))
        ['红', ' ', 'p', 'l', 'u', 'm']
    """
    if isinstance(stop, str):
        raise ValueError(f"stop must be a list of texts, [{stop!r}], not one text")
    if "" in stop:
        raise ValueError(
            "a stop string must have at least one character: an empty one stands everywhere, so "
            f"nothing would be shown; got {list(stop)}"
        )
    return _until(_characters(tokens, tokenizer), tuple(stop))


def _characters(tokens: Iterable[int], tokenizer: Spelling) -> Iterator[str]:
    """The text of each token, but for bytes whose character is not whole yet; those wait."""
    decoder = codecs.getincrementaldecoder("utf-8")(errors="replace")
    for token in tokens:
        yield decoder.decode(tokenizer.decode_bytes([token]))


def _until(tokens: Iterable[str], stops: tuple[str, ...]) -> Iterator[str]:
    text = ""
    for token in tokens:
        text += token
        # By their ends, so that it does not matter how the text was cut into pieces.
        matches = [
            (text.index(stop) + len(stop), text.index(stop)) for stop in stops if stop in text
        ]
        if matches:
            _, begin = min(matches)
            if begin:
                yield text[:begin]
            return
        certain = len(text) - _n_waiting(text, stops)
        if certain:
            yield text[:certain]
        text = text[certain:]
    if text:
        yield text


def _n_waiting(text: str, stops: tuple[str, ...]) -> int:
    """How many of the last characters could be the beginning of a stop string."""
    begins = (stop[:n] for stop in stops for n in range(1, len(stop)))
    return max((len(begin) for begin in begins if text.endswith(begin)), default=0)
