"""Cut text into words before any merge is learned, so that no token spans two words.

A byte-pair encoder that saw the whole text at once would learn tokens such as `. The` or `, and`.
GPT-2 stopped that with one regular expression: it cuts the text into *pre-tokens* (预分词), and
merges happen only inside them. A pre-token is a word with the one space before it, up to three
digits, a run of punctuation, or a run of white space. Nothing is thrown away: glued together, the
pre-tokens are the text.

**Why the pattern looks as it does.** GPT-2's own pattern says `\\s+(?!\\S)`: white space, but leave
the last space to the word that follows. To be able to give one character back, tiktoken's engine
remembers every character that it took, and it remembers at most a million. A million spaces are
therefore a crash ("StackOverflow"), and no ordinary exception. Two changes cure it:

- `++` is a *possessive* quantifier: take all, give nothing back, remember nothing. It serves
  wherever a run ends by itself, as letters do.
- White space has to give one character back, so it cannot be possessive. It is bounded instead: at
  most 1,000 characters at a time. (`(?:\\s(?!\\S))++` is possessive and means the same, but breaks
  the same engine's other limit, the one on backtracking. Adding `\\s++$`, as later patterns do,
  saves only a text that ends with the spaces.)

`{1,3}+` is avoided: tiktoken and `regex` read it as possessive, but Oniguruma, the engine inside
`tokenizers`, reads it as "one or more groups of one to three".

Paper: Radford et al. 2019, "Language Models are Unsupervised Multitask Learners", section 2.2.
Differs: combining marks count as letters (many vowels of Hindi and Thai are marks, and GPT-2 cuts
words at them); digits come at most three at a time and never take the space, as in OpenAI's later
cl100k pattern; white space is bounded.

Chapter: 01
"""

from functools import lru_cache

import regex

PATTERN = "|".join(
    (
        r"'(?:[sdmt]|ll|re|ve)",  # an English ending: it's, I'd, I'm, don't, we'll, you're, I've
        r" ?[\p{L}\p{M}]++",  # a word in any script, with the space before it
        r"\p{N}{1,3}",  # digits, three at most, so that no long number is a word of its own
        r" ?[^\s\p{L}\p{M}\p{N}]++",  # punctuation, symbols, emoji
        r"\s{1,1000}(?!\S)",  # white space, but its last character stays for what follows
        r"\s",  # one white space that nothing above could take
    )
)

#: The classes of characters that `PATTERN` tells apart. Any other character is punctuation.
CLASSES = (r"[\p{L}\p{M}]", r"\p{N}", r"\s")


@lru_cache(maxsize=16)
def _compiled(pattern: str) -> regex.Pattern[str]:
    if not isinstance(pattern, str):
        raise ValueError(f"a pattern must be a str, not {type(pattern).__name__}")
    try:
        compiled = regex.compile(pattern)
    except regex.error as error:
        raise ValueError(f"{pattern!r} is not a regular expression: {error}") from error
    if compiled.groups:
        raise ValueError(
            f"the pattern {pattern!r} has {compiled.groups} capturing group(s), which would stand "
            "in for the whole word; write (?:...) for every (...)"
        )
    if compiled.fullmatch(""):
        raise ValueError(
            f"the pattern {pattern!r} matches the empty text, so it can cut without advancing; "
            "every alternative must take at least one character (+ instead of *)"
        )
    return compiled


def pretokenize(text: str, pattern: str = PATTERN) -> list[str]:
    """Cut `text` into pre-tokens, in time linear in its length.

    Law: `"".join(pretokenize(text)) == text`.

    Args:
        text: any text; a lone surrogate counts as punctuation.
        pattern: what a pre-token looks like, for the `regex` module.

    Returns:
        The pre-tokens in order; none for the empty text.

    Raises:
        ValueError: the pattern is malformed, has capturing groups, or leaves characters out.

    Example:
        >>> pretokenize("I don't live  in 12345 villages.")
        ['I', ' don', "'t", ' live', ' ', ' in', ' ', '123', '45', ' villages', '.']

    Paper: Radford et al. 2019, section 2.2.
    Differs: see the module.
    """
    words = _compiled(pattern).findall(text)
    n_kept = sum(map(len, words))
    if n_kept != len(text):
        raise ValueError(
            f"a pattern must cover every character, but {pattern!r} kept {n_kept:,} of "
            f"{len(text):,}; end it with |[\\s\\S] to take whatever is left"
        )
    return words


def refuse_surrogates(text: str) -> None:
    """Raise if `text` is no text, or holds half of a surrogate pair, which UTF-8 cannot carry.

    Such halves come from broken decoding: an emoji is two of them in UTF-16, and `"\\ud83d"` is the
    first alone. A Python string can hold it; tiktoken would silently make it "�".

    Raises:
        ValueError: names the first lone surrogate and its position.

    Example:
        >>> refuse_surrogates("a smile 🙂")
    """
    if not isinstance(text, str):
        raise ValueError(
            f"text must be a str, not {type(text).__name__}; bytes go to encode_bytes, or become "
            "text by .decode('utf-8')"
        )
    try:
        text.encode("utf-8")
    except UnicodeEncodeError as error:
        raise ValueError(
            f"the text holds a lone surrogate, U+{ord(text[error.start]):04X}, at position "
            f"{error.start:,}: half of a pair, and no character. Its source was probably decoded "
            "wrongly: read it again with the right encoding, or drop the half with "
            "text.encode('utf-8', 'ignore').decode('utf-8')"
        ) from None
