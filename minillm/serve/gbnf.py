r"""GBNF, a notation for grammars: rules as text, for people to write.

    root   ::= "[" (item ("," item)*)? "]"      # a list of numbers
    item   ::= "-"? [0-9]{1,9}

    name ::= …        a rule; it ends where the next one begins, or the text does
    "text"            exactly this
    [a-z_] [^\n]      one character of these, or none of these
    .                 one character, any
    a b               one after the other
    a | b             one or the other
    ( … )             as one part
    a? a* a+          at most once; any number of times; at least once
    a{3} a{3,} a{3,5} three times; at least; from three to five times
    # …               a remark, to the end of the line

A whole text is what the rule `root` says. Between quotes and brackets `\n` `\r` `\t` and
`\xE9` `\u7EA2` `\U0001F642` (a character by its number) may be written, and `\` before a sign that
would mean something else.

Characters are Unicode's, and become bytes here: `[é红]` is `C3 A9` or `E7 BA A2`. So a grammar in
this notation has texts in valid UTF-8 alone, and reads tokens that end inside a character.

Paper: none; the notation is that of llama.cpp, grammars/README.md.
Differs: a subset, in which line ends mean nothing. There a rule ends with its line, unless a
bracket is open or `|` stands last. Left out are its terminals for whole tokens (`<think>`).

Chapter: 17
"""

import re
from collections.abc import Iterable, Iterator
from itertools import accumulate
from typing import NamedTuple

from minillm.serve.grammar import ByteClass, Choice, Concat, Expression, Reference, Repeat, literal

UNIT = r"(?:\\x[0-9A-Fa-f]{2}|\\u[0-9A-Fa-f]{4}|\\U[0-9A-Fa-f]{8}|\\[^xuU]|[^\\])"
RANGE = re.compile(rf"({UNIT})(?:-({UNIT}))?")
TOKEN = re.compile(
    rf"""(?P<space>\s+|\#[^\n]*)
    | (?P<rule>[A-Za-z][\w-]*)\s*::=
    | (?P<name>[A-Za-z][\w-]*)
    | "(?P<text>(?:(?!["\n]){UNIT})*)"
    | \[(?P<characters>(?:(?![\]\n]){UNIT})+)\]
    | (?P<times>[*+?]|\{{\d+(?:,\d*)?\}})
    | (?P<mark>.)""",
    re.VERBOSE,
)
TIMES = {"*": "0,", "+": "1,", "?": "0,1"}
CONTROLS = {"n": "\n", "r": "\r", "t": "\t"}
#: The numbers of characters, by the length of their UTF-8; surrogates are no characters.
PLANES = ((0, 0x7F), (0x80, 0x7FF), (0x800, 0xD7FF), (0xE000, 0xFFFF), (0x10000, 0x10FFFF))
LOWEST, HIGHEST = b"\x80", b"\xbf"  # of the bytes after the first


class _Token(NamedTuple):
    kind: str  # a group of TOKEN; a mark is its own kind
    text: str
    line: int


def parse(text: str) -> dict[str, Expression]:
    r"""The rules of a grammar in this notation.

    Args:
        text: as in this module's description.

    Returns:
        What each rule says; `minillm.serve.grammar.Grammar` takes it.

    Raises:
        ValueError: what is no grammar, with the number of the line.

    Example:
        >>> from minillm.serve.grammar import Grammar
        >>> grammar = Grammar(parse('root ::= "红"+ | [0-9]{2,}'))
        >>> grammar.accepts("红红"), grammar.accepts("7")
        (True, False)
    """
    tokens = list(_tokens(text))
    rest, rules = tokens[::-1], {}  # the next token is popped
    try:
        while rest:
            kind, name, _ = rest.pop()
            if kind != "rule" or name in rules:
                raise ValueError(f"here a new rule, `name ::=`, must begin; got {name!r}")
            rules[name] = _choice(rest)
    except ValueError as error:  # it is about the token that was popped last
        raise _error(tokens[-1 - len(rest)], error) from None
    for token in tokens:
        if token.kind == "name" and token.text not in rules:
            raise _error(token, f"there is no rule {token.text!r}")
    return rules


def characters(ranges: Iterable[tuple[int, int]]) -> Expression:
    """One character, as bytes of UTF-8.

    Args:
        ranges: of its number: first and last.

    Example:
        >>> (e_acute,) = characters([(0xE9, 0xE9)]).options  # C3 A9
        >>> [sorted(part.values) for part in e_acute.parts]
        [[195], [169]]
    """
    spans = [
        span
        for low, high in ranges
        for first, last in PLANES
        if max(low, first) <= min(high, last)
        for span in _spans(chr(max(low, first)).encode(), chr(min(high, last)).encode())
    ]
    single = frozenset().union(*(span[0].values for span in spans if len(span) == 1))
    several = [Concat(span) for span in spans if len(span) > 1]
    return Choice((*([ByteClass(single)] if single else []), *several))


def _spans(low: bytes, high: bytes) -> list[tuple[ByteClass, ...]]:
    """Rows of byte classes that together spell the characters from `low` to `high`."""
    n = len(low) - 1
    if low[1:] == LOWEST * n and high[1:] == HIGHEST * n:
        return [(_bytes(low[0], high[0]), *[_bytes(*LOWEST, *HIGHEST)] * n)]
    if low[0] == high[0]:
        return [(_bytes(low[0], low[0]), *rest) for rest in _spans(low[1:], high[1:])]
    # cut where the first byte grows: after the lowest one, or else before the highest
    cut = low[0] + 1 if low[1:] != LOWEST * n else high[0]
    below, above = bytes([cut - 1]) + HIGHEST * n, bytes([cut]) + LOWEST * n
    return _spans(low, below) + _spans(above, high)


def _bytes(first: int, last: int) -> ByteClass:
    return ByteClass(frozenset(range(first, last + 1)))


# --- from text to expressions ---------------------------------------------------------------------
def _tokens(text: str) -> Iterator[_Token]:
    for match in TOKEN.finditer(text):
        kind, line = match.lastgroup, text.count("\n", 0, match.start()) + 1
        if kind != "space":
            yield _Token(match[0] if kind == "mark" else kind, match[kind], line)


def _choice(tokens: list[_Token]) -> Expression:
    options = [_concat(tokens)]
    while tokens and tokens[-1].kind == "|":
        tokens.pop()
        options.append(_concat(tokens))
    return Choice(tuple(options))


def _concat(tokens: list[_Token]) -> Expression:
    parts: list[Expression] = []
    while tokens and tokens[-1].kind not in ("rule", "|", ")"):
        kind, text, _ = tokens.pop()
        match kind:
            case "name":
                parts.append(Reference(text))
            case "text":
                parts.append(literal("".join(chr(_number(u)) for u in re.findall(UNIT, text))))
            case "characters":
                parts.append(characters(_ranges(text)))
            case ".":
                parts.append(characters(PLANES))
            case "times" if parts:
                least, comma, most = TIMES.get(text, text.strip("{}")).partition(",")
                most = int(most or least) if most or not comma else None
                parts.append(Repeat(parts.pop(), int(least), most))
            case "(":
                parts.append(_choice(tokens))
                if not tokens or tokens.pop().kind != ")":
                    raise ValueError("a bracket is open, and has no )")
            case _:
                raise ValueError(f"{text!r} has no meaning here, or no end in this line")
    return Concat(tuple(parts))


def _ranges(text: str) -> Iterable[tuple[int, int]]:
    """The ranges that stand between [ and ]."""
    units = RANGE.findall(text.removeprefix("^"))
    ranges = sorted((_number(first), _number(last or first)) for first, last in units)
    if any(first > last for first, last in ranges):
        raise ValueError(f"a range goes from a lower character to a higher one; got [{text}]")
    if not text.startswith("^"):
        return ranges
    # what lies between them
    begins = [0, *(last + 1 for last in accumulate((last for _, last in ranges), max))]
    return zip(begins, [*(first - 1 for first, _ in ranges), 0x10FFFF], strict=True)


def _number(unit: str) -> int:
    """The number of a character that stands there as itself or as an escape."""
    if len(unit) > 2:
        return int(unit[2:], 16)
    return ord(CONTROLS.get(unit[1], unit[1]) if len(unit) == 2 else unit)


def _error(token: _Token, why: object) -> ValueError:
    return ValueError(f"line {token.line} of the grammar: {why}")
