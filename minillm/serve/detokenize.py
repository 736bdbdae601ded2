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
from typing import Protocol, final


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
    return _shown(tokens, TextStream(tokenizer, stop))


@final
class TextStream:
    """`stream_text` from the other side: a token is put in, the text that is certain comes out.

    Args:
        tokenizer, stop: as for `stream_text`.

    Raises:
        ValueError: as for `stream_text`.

    Example:
        >>> from minillm.text.tokenizer import Tokenizer
        >>> text = TextStream(Tokenizer(()), stop=[". P"])
        >>> [text.push(token) for token in b"um. Pe"], text.stopped
        (['u', 'm', '', '', '', ''], True)
    """

    def __init__(self, tokenizer: Spelling, stop: Sequence[str] = ()):
        if isinstance(stop, str):
            raise ValueError(f"stop must be a list of texts, [{stop!r}], not one text")
        if "" in stop:
            raise ValueError(
                "a stop string must have at least one character: an empty one stands everywhere, "
                f"so nothing would be shown; got {list(stop)}"
            )
        self.stopped = False
        self._tokenizer, self._stops = tokenizer, tuple(stop)
        self._decoder = codecs.getincrementaldecoder("utf-8")(errors="replace")
        self._waiting = ""

    def push(self, token: int) -> str:
        """What is certain now; nothing once a stop string is complete (`stopped`)."""
        if self.stopped:
            return ""
        # 1. the characters that are whole
        text = self._waiting + self._decoder.decode(self._tokenizer.decode_bytes([token]))
        # 2. the first stop string, by its end, so that it does not matter how the text was cut
        matches = [
            (text.index(stop) + len(stop), text.index(stop)) for stop in self._stops if stop in text
        ]
        if matches:
            self.stopped, self._waiting = True, ""
            return text[: min(matches)[1]]
        # 3. what could be the beginning of one waits
        certain = len(text) - _n_waiting(text, self._stops)
        self._waiting = text[certain:]
        return text[:certain]

    def close(self) -> str:
        """What waited, when no token follows: a stop string did not come true."""
        text, self._waiting = self._waiting, ""
        return text


def _shown(tokens: Iterable[int], text: TextStream) -> Iterator[str]:
    for token in tokens:
        if part := text.push(token):
            yield part
        if text.stopped:
            return
    if part := text.close():
        yield part


def _n_waiting(text: str, stops: tuple[str, ...]) -> int:
    """How many of the last characters could be the beginning of a stop string."""
    begins = (stop[:n] for stop in stops for n in range(1, len(stop)))
    return max((len(begin) for begin in begins if text.endswith(begin)), default=0)
