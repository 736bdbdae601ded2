"""The Bayes-optimal next word: a left-corner parser with prefix probabilities (前缀概率).

After some words of a sentence, its derivation may have gone several ways. What matters of each is
its **stack**: the symbols and words that are still to come, the next one first. The state is a
table: for each stack its probability given the words so far.

    P(next = t | prefix) = Σ over stacks X·rest of P(X·rest | prefix) · P(X begins with t)
    P(end | prefix)      = P(empty stack | prefix)

`left_corners` lists once, for each symbol X and each word t that it can begin with, the ways as
(probability q, what of X is left). So one step takes X off a stack and puts back what is left:

    P'(left·rest) = Σ P(X·rest) · q          divided by P(next = t | prefix)

Stacks that are equal are added up, since they go on alike. Dividing at every word keeps long texts
from underflow, and the divisors are the conditional probabilities themselves.

Exact for any grammar of `minillm.town.grammar`. The town's English leaves few stacks open. A
grammar that nests two different endings (S → a S b, S → a S c) doubles them with every word;
Earley's parser, which shares the common parts of stacks, would not.

Paper: Stolcke 1995, "An Efficient Probabilistic Context-Free Parsing Algorithm that Computes Prefix
Probabilities", Computational Linguistics 21(2), for prefix probabilities and the scaling (4.6).
Differs: whole stacks instead of his Earley items. Without left recursion and empty rules, the left
corners are finite lists, where he inverts a matrix (4.5.1).

Chapter: 02
"""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, final

from minillm.town.parse import check_alphabet

if TYPE_CHECKING:
    from minillm.town.grammar import Grammar

END = None  # what follows the last word
Stack = tuple[str, ...]
# symbol: first word: [(probability, what is left of the symbol after that word)]
Corners = dict[str, dict[str, tuple[tuple[float, Stack], ...]]]


def left_corners(grammar: "Grammar") -> Corners:
    """For each symbol and each word it can begin with: the ways, as (probability, rest).

    Example:
        >>> from minillm.town.grammar import Grammar
        >>> toy = Grammar({"S": [(1.0, ("A", "c"))], "A": [(0.5, ("a",)), (0.5, ("b", "S"))]})
        >>> left_corners(toy)["S"]
        {'a': ((0.5, ('c',)),), 'b': ((0.5, ('S', 'c')),)}
    """
    corners: dict[str, dict[str, dict[Stack, float]]] = {}

    def visit(part: str) -> dict[str, dict[Stack, float]]:
        if part not in grammar.rules:
            return {part: {(): 1.0}}
        if part not in corners:
            ways: dict[str, dict[Stack, float]] = {}
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
        stacks: for each stack that is open its probability given the words so far; sums to 1.
        log_prob: log P(a sentence begins with these words), in nats.
        tokens: the words so far.

    Example:
        >>> from minillm.town.grammar import Grammar
        >>> toy = Grammar({"S": [(0.75, ("Mei", "sings")), (0.25, ("Mei", "knows", "S"))]}, "S")
        >>> prefix = begin(toy).then("Mei")
        >>> prefix.stacks
        {('sings',): 0.75, ('knows', 'S'): 0.25}
        >>> prefix.next_token()
        {'sings': 0.75, 'knows': 0.25}
        >>> prefix.then("sings").next_token()
        {None: 1.0}
    """

    grammar: "Grammar"
    stacks: dict[Stack, float]
    log_prob: float
    tokens: tuple[str, ...]

    def next_token(self) -> dict[str | None, float]:
        """The distribution of the next word given the words so far; `None` is the end."""
        corners, likely = self.grammar.left_corners, {}
        # 1. how likely each symbol is the one that comes next
        tops: dict[str, float] = {}
        for stack, p in self.stacks.items():
            if stack:
                tops[stack[0]] = tops.get(stack[0], 0.0) + p
        # 2. the words that it can begin with
        for top, p in tops.items():
            for word, chains in corners[top].items():
                likely[word] = likely.get(word, 0.0) + p * sum(q for q, _ in chains)
        if () in self.stacks:
            likely[END] = self.stacks[()]
        return likely

    def then(self, token: str) -> "Prefix":
        """The state one word later.

        Raises:
            ValueError: the grammar has no sentence that goes on like this.
        """
        corners, longer = self.grammar.left_corners, {}
        # 1. each stack whose top can begin with the word, in each way it can
        for stack, p in self.stacks.items():
            for q, left in corners[stack[0]].get(token, ()) if stack else ():
                after = left + stack[1:]
                longer[after] = longer.get(after, 0.0) + p * q
        # 2. their sum is P(token | prefix); divide by it
        total = math.fsum(longer.values())
        if total == 0:
            raise ValueError(self._no_way(token))
        stacks = {stack: p / total for stack, p in longer.items()}
        return Prefix(self.grammar, stacks, self.log_prob + math.log(total), (*self.tokens, token))

    def end(self) -> float:
        """Log-probability of the whole sentence, if it ends here.

        Raises:
            ValueError: it cannot end here.
        """
        if () not in self.stacks:
            raise ValueError(self._no_way(END))
        return self.log_prob + math.log(self.stacks[()])

    def _no_way(self, token: str | None) -> str:
        so_far = " ".join(self.tokens) or "the beginning"
        likely = sorted(self.next_token().items(), key=lambda item: -item[1])
        words = ", ".join("the end" if word is END else repr(word) for word, _ in likely[:6])
        what = "the end" if token is END else repr(token)
        return (
            f"the grammar has no sentence that goes on with {what} after {so_far!r} (word "
            f"{len(self.tokens)}); it could go on with {words}" + (", …" if len(likely) > 6 else "")
        )


def begin(grammar: "Grammar") -> Prefix:
    """The state before the first word."""
    return Prefix(grammar, {(grammar.start,): 1.0}, 0.0, ())


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
