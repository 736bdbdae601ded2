"""A probabilistic context-free grammar (概率上下文无关文法): every probability is known.

A rule rewrites a symbol, with a probability, into a row of symbols and words:

    S → NAME VERB .     1.0          NAME → Mei 0.7 | Bao 0.3          VERB → sings 0.5 | sleeps 0.5

A sentence is what is left when no symbol is. The probability of a derivation is the product of its
rules' probabilities; if the grammar is unambiguous, it is the probability of the sentence. Then the
entropy (熵) of a sentence has a closed form. With M[A, B] the mean number of B's that one rewriting
of A makes, and h(A) the entropy of the choice among A's rules,

    H = h + M·H        so        H = (I - M)^-1 h,    H[S] nats a sentence

and the expected length solves the same system, with words counted in place of h.

A symbol is written in capitals (NP, NAME_2), everything else is a word. Three restrictions keep the
code small and every sum finite: no rule is empty, none is left-recursive (A → A …, also in several
steps), and the expected length is finite. `minillm.town.parse` finds the trees of a sentence,
`minillm.town.left_corner` the Bayes-optimal next word.

Paper: Booth and Thompson 1973, "Applying Probability Measures to Abstract Languages", for the
condition that a grammar terminates; Grenander 1967, "Syntax-controlled probabilities", for the
entropy.
Differs: none, but see the three restrictions.

Chapter: 02
"""

import math
import random
import re
from bisect import bisect
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import final

import numpy as np

from minillm.town import left_corner, parse
from minillm.town.chance import block_rng
from minillm.town.english import english_rules, spell
from minillm.town.world import World

Alternative = tuple[float, tuple[str, ...]]
Rules = Mapping[str, Sequence[Alternative]]
Tree = tuple  # (symbol, child, …); a child is a tree or a word
BLOCK = 64
SYMBOL = re.compile(r"[A-Z][A-Z0-9_]*")


@final
@dataclass(frozen=True, slots=True)
class Sentence:
    """A sampled sentence with its truth.

    Args:
        tokens: the words, with "," "." and "?" as words of their own.
        derivation: which rules made it: the numbers of its rules, leftmost symbol first.
        log_prob: natural logarithm of its probability under the grammar.
        grammar: the grammar it is from.
    """

    tokens: tuple[str, ...]
    derivation: tuple[int, ...]
    log_prob: float
    grammar: "Grammar" = field(repr=False, compare=False)

    @property
    def text(self) -> str:
        """As it is written: "Mei sings." """
        return spell(self.tokens)

    @property
    def tree(self) -> Tree:
        """Who belongs to whom: (symbol, child, …), a child being a tree or a word."""
        return self.grammar.tree_of(self.derivation)


@final
@dataclass(frozen=True, eq=False)
class Grammar:
    """A proper, terminating grammar without empty or left-recursive rules.

    Args:
        rules: for each symbol its alternatives, as (probability, (symbol or word, …)).
        start: where every sentence begins.

    Raises:
        ValueError: probabilities that do not sum to one, an undefined or unreachable symbol, a
            left-recursive loop, an infinite expected length, an empty or a repeated alternative;
            the message names the symbol.

    Example:
        >>> toy = Grammar({"S": [(0.75, ("Mei", "sings")), (0.25, ("Mei", "knows", "S"))]}, "S")
        >>> toy.sample(random.Random(0)).text
        'Mei knows Mei knows Mei sings'
        >>> round(toy.expected_length(), 4)  # 2 words, and one third of a time 2 more
        2.6667
        >>> choice = -0.75 * math.log(0.75) - 0.25 * math.log(0.25)
        >>> round(toy.entropy() / choice, 4)  # 4/3 choices a sentence
        1.3333
    """

    rules: Rules
    start: str = "S"

    def __post_init__(self) -> None:
        frozen = {
            symbol: tuple((float(p), tuple(right)) for p, right in alternatives)
            for symbol, alternatives in self.rules.items()
        }
        object.__setattr__(self, "rules", frozen)
        for symbol, alternatives in frozen.items():
            _check_alternatives(symbol, alternatives)
        if self.start not in frozen:
            raise ValueError(
                f"the start symbol {self.start!r} has no rule; there are {_few(frozen)}"
            )
        self._check_symbols()
        self._check_left_recursion()
        self._check_termination()

    def _check_symbols(self) -> None:
        for symbol, alternatives in self.rules.items():
            for _, right in alternatives:
                for part in right:
                    if part not in self.rules and SYMBOL.fullmatch(part):
                        raise ValueError(
                            f"{symbol} → {' '.join(right)} uses the symbol {part}, which has no "
                            f"rule; define it, or write it in small letters if it is a word"
                        )
        reached, queue = {self.start}, [self.start]
        while queue:
            for _, right in self.rules[queue.pop()]:
                new = [part for part in right if part in self.rules and part not in reached]
                reached.update(new)
                queue += new
        if lost := [symbol for symbol in self.rules if symbol not in reached]:
            raise ValueError(
                f"no sentence can contain {_few(lost)}: unreachable from {self.start}; use or "
                f"remove the rules of {lost[0]}"
            )

    def _check_left_recursion(self) -> None:
        state: dict[str, str] = {}
        for root in self.rules:
            path = [root]
            while path:
                symbol = path[-1]
                state[symbol] = "open"
                corners = (right[0] for _, right in self.rules[symbol])
                for corner in corners:
                    if state.get(corner) == "open":
                        loop = [*path[path.index(corner) :], corner]
                        raise ValueError(
                            f"left-recursive loop {' → '.join(loop)}: a symbol may not begin with "
                            f"itself; write it right-recursive (A → b A instead of A → A b)"
                        )
                    if corner in self.rules and corner not in state:
                        path.append(corner)
                        break
                else:
                    state[path.pop()] = "done"

    def _check_termination(self) -> None:
        leads = self._means > 0
        np.fill_diagonal(leads, True)
        for _ in range(len(leads).bit_length()):
            leads = leads.astype(float) @ leads > 0
        # What returns to itself does so among the symbols that lead to it and that it leads to.
        for ring in dict.fromkeys(tuple(np.flatnonzero(row)) for row in leads & leads.T):
            growth = float(np.abs(np.linalg.eigvals(self._means[np.ix_(ring, ring)])).max())
            if growth > 1 - 1e-9:
                heart = self._symbols[ring[0]]
                raise ValueError(
                    f"the expected length is infinite: around {heart} each round of rewriting "
                    f"leaves {growth:.4g} symbols where there was one, and it must be below 1; "
                    f"lower the probability of the alternatives that lead from {heart} back to "
                    f"{heart}"
                )

    @cached_property
    def _symbols(self) -> tuple[str, ...]:
        return tuple(self.rules)

    @cached_property
    def alphabet(self) -> tuple[str, ...]:
        """All words, in the order of the rules."""
        words = (
            part
            for alternatives in self.rules.values()
            for _, right in alternatives
            for part in right
            if part not in self.rules
        )
        return tuple(dict.fromkeys(words))

    @cached_property
    def words(self) -> frozenset[str]:
        """The alphabet as a set."""
        return frozenset(self.alphabet)

    @cached_property
    def first_words(self) -> dict[str, frozenset[str]]:
        """For each symbol the words that its phrases can begin with."""
        return parse.first_words(self)

    @cached_property
    def left_corners(self) -> left_corner.Corners:
        """For each symbol and each word it can begin with, the ways (see `left_corner`)."""
        return left_corner.left_corners(self)

    @cached_property
    def numbered(self) -> tuple[tuple[str, float, tuple[str, ...]], ...]:
        """Every rule as (symbol, probability, right side); its place is the rule's number."""
        return tuple((a, p, right) for a in self.rules for p, right in self.rules[a])

    def parse(self, tokens: Sequence[str]) -> tuple[Tree, ...]:
        """All trees of a sentence; see `minillm.town.parse.parse`."""
        return parse.parse(self, tokens)

    def log_prob(self, tokens: Sequence[str]) -> float:
        """Exact log-probability in nats; see `minillm.town.left_corner.log_prob`."""
        return left_corner.log_prob(self, tokens)

    def log_probs(self, tokens: Sequence[str]) -> list[float]:
        """Log p of each word given those before it, and of the end: n + 1 numbers, in nats."""
        return left_corner.log_probs(self, tokens)

    def next_token(self, prefix: Sequence[str] = ()) -> dict[str | None, float]:
        """The Bayes-optimal distribution of the next word; `None` is the end."""
        return left_corner.next_token(self, prefix)

    def next_tokens(self, tokens: Sequence[str]) -> Iterator[dict[str | None, float]]:
        """The same before each word of a sentence and before its end, in one pass."""
        return left_corner.next_tokens(self, tokens)

    @cached_property
    def _means(self) -> np.ndarray:
        """M[A, B]: how many B's one rewriting of A makes on average."""
        index = {symbol: i for i, symbol in enumerate(self.rules)}
        means = np.zeros((len(index), len(index)))
        for symbol, p, right in self.numbered:
            for part in right:
                if part in index:
                    means[index[symbol], index[part]] += p
        return means

    def _expect(self, of_rule) -> float:
        """The mean over sentences of a sum over the rules used: solves x = c + M·x."""
        cost = dict.fromkeys(self.rules, 0.0)
        for symbol, p, right in self.numbered:
            cost[symbol] += p * of_rule(p, right)
        solved = np.linalg.solve(np.eye(len(cost)) - self._means, np.array(list(cost.values())))
        return float(solved[self._symbols.index(self.start)])

    def entropy(self) -> float:
        """Entropy of a sentence in nats, in closed form (of its derivation, if ambiguous)."""
        return self._expect(lambda p, right: -math.log(p))

    def expected_length(self) -> float:
        """Mean number of words of a sentence, in closed form."""
        return self._expect(lambda p, right: sum(part not in self.rules for part in right))

    @cached_property
    def _table(self) -> tuple:
        """For each symbol (cumulated probabilities, alternatives); an alternative is
        (right side reversed, with symbols as their tables; number of the rule; log p)."""
        tables: dict[str, tuple[list[float], list]] = {symbol: ([], []) for symbol in self.rules}
        for number, (symbol, p, right) in enumerate(self.numbered):
            cumulated, alternatives = tables[symbol]
            cumulated.append((cumulated[-1] if cumulated else 0.0) + p)
            parts = tuple(tables.get(part, part) for part in reversed(right))
            alternatives.append((parts, number, math.log(p)))
        for cumulated, _ in tables.values():
            cumulated.pop()  # whatever rounding left over belongs to the last alternative
        return tables[self.start]

    def sample(self, rng: random.Random) -> Sentence:
        """Draw a sentence.

        Args:
            rng: the random numbers; the same state gives the same sentence.
        """
        uniform = rng.random
        tokens: list[str] = []
        derivation: list[int] = []
        log_prob = 0.0
        stack: list = [self._table]
        while stack:
            top = stack.pop()
            if type(top) is str:
                tokens.append(top)
            else:
                parts, number, log_p = top[1][bisect(top[0], uniform())]
                derivation.append(number)
                log_prob += log_p
                stack += parts
        return Sentence(tuple(tokens), tuple(derivation), log_prob, self)

    def block(self, index: int, seed: int | str = 0) -> list[Sentence]:
        """The 64 sentences number 64·index to 64·index + 63 of a stream.

        Args:
            index: 0, 1, 2, …
            seed: another seed, another stream.

        Raises:
            ValueError: a negative index.
        """
        rng = block_rng(f"sentences/{seed}/{index}", index)
        return [self.sample(rng) for _ in range(BLOCK)]

    def tree_of(self, derivation: Sequence[int]) -> Tree:
        """The tree that a derivation builds.

        Example:
            >>> toy = Grammar({"S": [(1.0, ("Mei", "VERB"))], "VERB": [(1.0, ("sings",))]}, "S")
            >>> toy.tree_of((0, 1))
            ('S', 'Mei', ('VERB', 'sings'))
        """
        steps = iter(derivation)
        root: list = []
        todo: list = [(self.start, root)]
        nodes = []  # the nodes, parents first
        while todo:
            part, parent = todo.pop()
            if part not in self.rules:
                parent.append(part)
                continue
            node = [part]
            parent.append(node)
            nodes.append((node, parent, len(parent) - 1))
            todo += [(child, node) for child in reversed(self.numbered[next(steps)][2])]
        for node, parent, place in reversed(nodes):
            parent[place] = tuple(node)
        return root[0]


def town_grammar(town: World | int | str = "tinytown") -> Grammar:
    """The town English of a world: its people in proportion to their fame, its places and goods.

    Args:
        town: a world, or the seed of one.

    Example:
        >>> grammar = town_grammar()
        >>> sentence = grammar.block(0)[0]
        >>> sentence.text
        'Ranqi sees the baker at Duck Lane.'
    """
    world = town if isinstance(town, World) else World(town)
    return Grammar(english_rules(world), "S")


def _check_alternatives(symbol: str, alternatives: Sequence[Alternative]) -> None:
    seen = set()
    for p, right in alternatives:
        if not right:
            raise ValueError(
                f"{symbol} has an empty alternative; write out the rules with and without {symbol}"
            )
        if not p > 0:
            raise ValueError(
                f"{symbol} → {' '.join(right)} has probability {p}; it must be above 0 (leave out "
                f"an alternative that never happens)"
            )
        if right in seen:
            raise ValueError(f"{symbol} → {' '.join(right)} is there twice; add the two up")
        seen.add(right)
    total = math.fsum(p for p, _ in alternatives)
    if abs(total - 1) > 1e-9:
        raise ValueError(
            f"the probabilities of {symbol}'s {len(alternatives)} alternatives must sum to 1; "
            f"they sum to {total:.10g}"
        )


def _few(names) -> str:
    names = list(names)
    return ", ".join(names[:8]) + (", …" if len(names) > 8 else "")
