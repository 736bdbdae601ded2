"""The Bayes-optimal next word: Earley's parser with prefix probabilities (前缀概率).

After some words, many ways of going on are open. An item is one of them: a symbol A that began at
word k, of which the parts `rest` are still to come, with two probabilities,

    inner    of the words from k on, as the beginning of A with `rest` to come
    forward  of all words so far, and of this A being the phrase we are in

A column holds the items after one word, sorted by the part that they wait for. The next word comes
from the first part of some item's rest, so with `forward[X]` the sum over items that wait for X,

    P(next = t) = sum over X of forward[X] · P(X begins with t)
    P(end)      = inner of the start symbol, complete

One step: (1) each X that is waited for begins with t in a few ways, listed once for the grammar:
each is an item of the new column; (2) when an item has no rest, the phrase is complete, and every
item of column k that waited for it moves on, inner and forward multiplied by the phrase's inner.
Phrases that began later are completed first. Columns are scaled by P(t | prefix) as they are made,
so that long texts do not underflow; the factors are the conditional probabilities themselves.

Exact, cubic in the length at worst, and quick for a grammar in which few ways are open at once.

Paper: Stolcke 1995, "An Efficient Probabilistic Context-Free Parsing Algorithm that Computes Prefix
Probabilities", Computational Linguistics 21(2), sections 4.2 (forward and inner) and 4.6 (scaling).
Differs: no left recursion and no empty rules, so his matrix of left corners R_L (section 4.5.1) is
a finite list of chains, which we write out and run through in one step.

Chapter: 02
"""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, final

from minillm.town.parse import check_alphabet

if TYPE_CHECKING:
    from minillm.town.grammar import Grammar

END = None  # what follows the last word
# part that is waited for: [(symbol, where it began, rest after the part, inner, forward)]
Column = dict[str, list[tuple[str, int, tuple[str, ...], float, float]]]
Chain = tuple[float, tuple[str, ...]]
Corners = dict[str, dict[str, tuple[Chain, ...]]]


def left_corners(grammar: "Grammar") -> Corners:
    """For each symbol and each word it can begin with: the ways, as (probability, rest).

    Example:
        >>> from minillm.town.grammar import Grammar
        >>> toy = Grammar({"S": [(1.0, ("A", "c"))], "A": [(0.5, ("a",)), (0.5, ("b", "S"))]})
        >>> left_corners(toy)["S"]
        {'a': ((0.5, ('c',)),), 'b': ((0.5, ('S', 'c')),)}
    """
    corners: dict[str, dict[str, dict[tuple[str, ...], float]]] = {}

    def visit(part: str) -> dict[str, dict[tuple[str, ...], float]]:
        if part not in grammar.rules:
            return {part: {(): 1.0}}
        if part not in corners:
            ways: dict[str, dict[tuple[str, ...], float]] = {}
            for p, (corner, *rest) in grammar.rules[part]:
                for word, chains in visit(corner).items():
                    known = ways.setdefault(word, {})
                    for inner_rest, q in chains.items():
                        whole = (*inner_rest, *rest)
                        known[whole] = known.get(whole, 0.0) + p * q
            corners[part] = ways
        return corners[part]

    for part in (*grammar.rules, *grammar.alphabet):
        corners[part] = visit(part)
    return {
        part: {
            word: tuple((p, rest) for rest, p in chains.items()) for word, chains in ways.items()
        }
        for part, ways in corners.items()
    }


@final
@dataclass(frozen=True, eq=False)
class Prefix:
    """The state after some words; a value, from which any number of continuations can be tried.

    Args:
        grammar: the grammar.
        columns: one for each place between words, the beginning first.
        complete: P(the sentence ends here | the words so far).
        log_prob: log P(a sentence begins with these words), in nats.
        tokens: the words so far.

    Example:
        >>> from minillm.town.grammar import Grammar
        >>> toy = Grammar({"S": [(0.75, ("Mei", "sings")), (0.25, ("Mei", "knows", "S"))]}, "S")
        >>> prefix = begin(toy).then("Mei")
        >>> prefix.next_token()
        {'sings': 0.75, 'knows': 0.25}
        >>> prefix.then("sings").next_token()
        {None: 1.0}
    """

    grammar: "Grammar"
    columns: tuple[Column, ...]
    complete: float
    log_prob: float
    tokens: tuple[str, ...]

    @cached_property
    def _waiting(self) -> dict[str, float]:
        last = self.columns[-1]
        return {part: math.fsum(item[4] for item in items) for part, items in last.items()}

    def next_token(self) -> dict[str | None, float]:
        """The distribution of the next word given the words so far; `None` is the end."""
        corners, likely = self.grammar.left_corners, {}
        for part, forward in self._waiting.items():
            for word, chains in corners[part].items():
                p = forward * sum(q for q, _ in chains)
                likely[word] = likely.get(word, 0.0) + p
        if self.complete:
            likely[END] = self.complete
        return likely

    def then(self, token: str) -> "Prefix":
        """The state one word later.

        Raises:
            ValueError: the grammar has no sentence that goes on like this.
        """
        corners, k = self.grammar.left_corners, len(self.columns) - 1
        scanned: dict[tuple, list[float]] = {}
        for part, forward in self._waiting.items():
            for q, rest in corners[part].get(token, ()):
                scanned[part, k, rest] = [q, forward * q]
        p = math.fsum(forward for _, forward in scanned.values())
        if p == 0:
            raise ValueError(self._no_way(token))
        for pair in scanned.values():
            pair[0] /= p
            pair[1] /= p
        column, complete = self._close(scanned)
        return Prefix(
            self.grammar,
            (*self.columns, column),
            complete,
            self.log_prob + math.log(p),
            (*self.tokens, token),
        )

    def _close(self, items: dict[tuple, list[float]]) -> tuple[Column, float]:
        """Complete phrases, those that began last first, and sort items by what they wait for."""
        done: list[dict[str, list[float]]] = [{} for _ in self.columns]
        column: Column = {}
        complete = 0.0

        def add(part: str, k: int, rest: tuple[str, ...], inner: float, forward: float) -> None:
            if rest:
                column.setdefault(rest[0], []).append((part, k, rest[1:], inner, forward))
            else:
                done[k].setdefault(part, []).append(inner)

        for (part, k, rest), (inner, forward) in items.items():
            add(part, k, rest, inner, forward)
        for k in reversed(range(len(self.columns))):
            for part, inners in done[k].items():
                whole = math.fsum(inners)
                for symbol, began, rest, inner, forward in self.columns[k].get(part, ()):
                    if symbol == "":
                        complete += forward * whole
                    else:
                        add(symbol, began, rest, inner * whole, forward * whole)
        return {part: _merge(items) for part, items in column.items()}, complete

    def _no_way(self, token: str) -> str:
        so_far = " ".join(self.tokens) or "the beginning"
        likely = sorted(self.next_token().items(), key=lambda item: -item[1])
        words = ", ".join("the end" if word is END else repr(word) for word, _ in likely[:6])
        what = "the end" if token is END else repr(token)
        return (
            f"the grammar has no sentence that goes on with {what} after {so_far!r} (word "
            f"{len(self.tokens)}); it could go on with {words}" + (", …" if len(likely) > 6 else "")
        )

    def end(self) -> float:
        """Log-probability of the whole sentence, if it ends here.

        Raises:
            ValueError: it cannot end here.
        """
        if not self.complete:
            raise ValueError(self._no_way(END))
        return self.log_prob + math.log(self.complete)


def _merge(items: list[tuple]) -> list[tuple]:
    """Items that differ in nothing but their probabilities are one."""
    if len(items) == 1:
        return items
    merged: dict[tuple, tuple[float, float]] = {}
    for part, k, rest, inner, forward in items:
        old = merged.get((part, k, rest), (0.0, 0.0))
        merged[part, k, rest] = (old[0] + inner, old[1] + forward)
    return [(*item, inner, forward) for item, (inner, forward) in merged.items()]


def begin(grammar: "Grammar") -> Prefix:
    """The state before the first word."""
    return Prefix(grammar, ({grammar.start: [("", 0, (), 1.0, 1.0)]},), 0.0, 0.0, ())


def next_token(grammar: "Grammar", prefix: Sequence[str] = ()) -> dict[str | None, float]:
    """The Bayes-optimal distribution of the word after a prefix; `None` stands for the end.

    Raises:
        ValueError: a word outside the alphabet, or no sentence begins like this.

    Example:
        >>> from minillm.town.grammar import Grammar
        >>> toy = Grammar({"S": [(0.75, ("Mei", "sings")), (0.25, ("Mei", "knows", "S"))]}, "S")
        >>> next_token(toy, ["Mei", "knows"])
        {'Mei': 1.0}
    """
    check_alphabet(grammar, prefix)
    state = begin(grammar)
    for token in prefix:
        state = state.then(token)
    return state.next_token()


def next_tokens(grammar: "Grammar", tokens: Sequence[str]) -> Iterator[dict[str | None, float]]:
    """The distribution before each word of a sentence and before its end, in one pass."""
    check_alphabet(grammar, tokens)
    state = begin(grammar)
    yield state.next_token()
    for token in tokens:
        state = state.then(token)
        yield state.next_token()


def log_probs(grammar: "Grammar", tokens: Sequence[str]) -> list[float]:
    """The source's own log p of each word given those before it, and of the end: n + 1 numbers.

    Raises:
        ValueError: a word outside the alphabet, or a sentence the grammar does not have.

    Example:
        >>> from minillm.town.grammar import Grammar
        >>> toy = Grammar({"S": [(0.75, ("Mei", "sings")), (0.25, ("Mei", "knows", "S"))]}, "S")
        >>> [round(math.exp(x), 6) for x in log_probs(toy, ["Mei", "sings"])]
        [1.0, 0.75, 1.0]
    """
    check_alphabet(grammar, tokens)
    state, logs = begin(grammar), []
    for token in tokens:
        after = state.then(token)
        logs.append(after.log_prob - state.log_prob)
        state = after
    return [*logs, state.end() - state.log_prob]


def log_prob(grammar: "Grammar", tokens: Sequence[str]) -> float:
    """Exact log-probability of a sentence in nats.

    Raises:
        ValueError: a word outside the alphabet, or a sentence the grammar does not have.
    """
    return math.fsum(log_probs(grammar, tokens))
