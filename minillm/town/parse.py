"""Parsing: all trees of a sentence, and its probability as their sum.

Without empty and left-recursive rules, a parser is a few lines. `spans(symbol, i)` is everything
that `symbol` can be from word i on: for each place j where it may end, its trees. A rule's right
side is walked from left to right, each part starting where the one before ended, and a table
remembers what was found (so that this is a chart parser, read from the top). A symbol is not even
tried if none of its sentences begins with word i.

The probability of a sentence is the inside probability (内部概率): the sum over its trees, each the
product of its rules. `log_prob` here adds up the trees one by one, and says what is meant;
`minillm.town.left_corner.Prefix` reaches the same number from left to right, without listing trees.

Paper: Baker 1979, "Trainable grammars for speech recognition" (inside probabilities).
Differs: rules of any length instead of Chomsky normal form.

Chapter: 02
"""

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from minillm.town.grammar import Grammar, Tree


def first_words(grammar: "Grammar") -> dict[str, frozenset[str]]:
    """For each symbol the words that its phrases can begin with.

    Example:
        >>> from minillm.town.grammar import Grammar
        >>> toy = Grammar({"S": [(1.0, ("A", "c"))], "A": [(0.5, ("a",)), (0.5, ("b", "S"))]})
        >>> sorted(first_words(toy)["S"])
        ['a', 'b']
    """
    first: dict[str, frozenset[str]] = {}

    def visit(part: str) -> frozenset[str]:
        if part not in grammar.rules:
            return frozenset((part,))
        if part not in first:
            first[part] = frozenset().union(*(visit(right[0]) for _, right in grammar.rules[part]))
        return first[part]

    visit(grammar.start)
    for symbol in grammar.rules:
        visit(symbol)
    return first


def check_alphabet(grammar: "Grammar", tokens: Sequence[str]) -> None:
    """Refuse words that the grammar has no rule for.

    Raises:
        ValueError: names the first such word and its place.
    """
    if isinstance(tokens, str):
        raise ValueError(f"tokens must be a row of words, not one text: use unspell({tokens!r})")
    known = grammar.words
    for i, token in enumerate(tokens):
        if token not in known:
            raise ValueError(
                f"{token!r}, word {i} of {len(tokens)}, is outside the alphabet of the grammar, "
                f"which has {len(known)} words such as {', '.join(grammar.alphabet[:6])}"
            )


def parse(grammar: "Grammar", tokens: Sequence[str]) -> "tuple[Tree, ...]":
    """All trees of a row of words; none if it is no sentence of the grammar.

    Raises:
        ValueError: a word outside the alphabet.

    Example:
        >>> from minillm.town.grammar import Grammar
        >>> toy = Grammar({"S": [(0.5, ("x",)), (0.5, ("y", "S"))]})
        >>> parse(toy, ["y", "x"])
        (('S', 'y', ('S', 'x')),)
        >>> parse(toy, ["x", "y"])
        ()
    """
    check_alphabet(grammar, tokens)
    first, rules, n = grammar.first_words, grammar.rules, len(tokens)
    table: dict[tuple[str, int], dict[int, list]] = {}

    def spans(symbol: str, i: int) -> dict[int, list]:
        if (symbol, i) in table:
            return table[symbol, i]
        ends = table[symbol, i] = {}
        if i == n or tokens[i] not in first[symbol]:
            return ends
        for _, right in rules[symbol]:
            partial = {i: [(symbol,)]}
            for part in right:
                longer: dict[int, list] = {}
                for j, trees in partial.items():
                    if part not in rules:
                        if j < n and tokens[j] == part:
                            longer.setdefault(j + 1, []).extend((*tree, part) for tree in trees)
                        continue
                    for end, children in spans(part, j).items():
                        longer.setdefault(end, []).extend(
                            (*tree, child) for tree in trees for child in children
                        )
                partial = longer
            for end, trees in partial.items():
                ends.setdefault(end, []).extend(trees)
        return ends

    return tuple(spans(grammar.start, 0).get(n, ()))


def tree_log_prob(grammar: "Grammar", tree: "Tree") -> float:
    """Sum of log p over the rules of a tree, in nats.

    Raises:
        ValueError: a node of the tree is no rule of the grammar.
    """
    total, todo = 0.0, [tree]
    while todo:
        symbol, *children = todo.pop()
        right = tuple(child if isinstance(child, str) else child[0] for child in children)
        matching = [p for p, other in grammar.rules.get(symbol, ()) if other == right]
        if not matching:
            raise ValueError(f"{symbol} → {' '.join(right)} is no rule of the grammar")
        total += math.log(matching[0])
        todo += [child for child in children if not isinstance(child, str)]
    return total


def log_prob(grammar: "Grammar", tokens: Sequence[str]) -> float:
    """Log-probability by adding up the trees of a sentence; `left_corner.log_prob` must equal it.

    Raises:
        ValueError: a word outside the alphabet, or no sentence of the grammar.
    """
    trees = parse(grammar, tokens)
    if not trees:
        raise ValueError(f"the grammar does not have the sentence {' '.join(tokens)!r}")
    return math.log(math.fsum(math.exp(tree_log_prob(grammar, tree)) for tree in trees))
