"""Constrained decoding (约束解码): an answer that a program can read, whatever the model prefers.

Before each token is chosen, all tokens that cannot continue a valid text get probability 0. What
may follow is known byte by byte (`minillm.serve.grammar`). But a model writes tokens, and a token
may be half a character, or span several parts of a grammar, as `":"` does. So each token is tried
byte by byte. After `{"sold":`, where `true` or `false` must come:

    token       t     tr    true    to    tea    "
    1st byte    t     t     t       t     t      " ✗
    2nd               r     r       o ✗   e ✗
    3rd                     u
    4th                     e
    allowed     yes   yes   yes     no    no     no

Tokens that begin alike are tried together. They stand in a **trie** (前缀树), with a node for each
beginning of a token, and a level of the trie is a byte. The states of all nodes of a level are
looked up at once in those of the level above, until all are dead.

The **mask** of a state is True for the tokens that are allowed. It is kept, so that a state that
comes again costs nothing. Tokens that end a text are allowed exactly where the text is complete.
Some token is always allowed: each state of the grammar can go on or end, each byte is a token, and
there is a token that ends.

**A mask is not a condition.** The mask knows which texts are possible, not how likely the model
finds them. Say a model writes `a` first 9 times out of 10, then `x` once in 100; and `b` once in
10, then `x` 5 times in 10. Only `ax` and `bx` are allowed:

    text   the model      given that it is allowed        with masks
    ax     0.9 · 0.01     0.009 / (0.009 + 0.05) = 0.15   0.9 · 1 = 0.9
    bx     0.1 · 0.5      0.05  / (0.009 + 0.05) = 0.85   0.1 · 1 = 0.1

After `a` the mask leaves nothing but `x`, and the model is not asked how badly that fits. To draw
from the middle column one can draw texts without a mask until one is allowed, which may take long.

Paper: Willard and Louf 2023, "Efficient Guided Generation for Large Language Models",
arXiv:2307.09702, section 3 (an index from states to tokens). Dong et al. 2024, "XGrammar",
arXiv:2411.15100 (a cache of masks). Park et al. 2024, "Grammar-Aligned Decoding",
arXiv:2405.21047 (the model's distribution is distorted, and what to do).
Differs: Willard and Louf make the index for all states in advance, here each mask is made when its
state first comes. XGrammar prepares masks for what is on top of a stack, and at run time asks only
about the tokens for which the rest of the stack matters; here a mask belongs to whole stacks.

Chapter: 17
"""

import json
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from functools import cache, lru_cache, partial
from typing import Any, NamedTuple, Protocol, final

import numpy as np
import torch
from jaxtyping import Bool
from torch import Tensor

from minillm.serve.gbnf import parse
from minillm.serve.grammar import DEAD, Grammar, Rules, State
from minillm.serve.schema import schema_grammar

#: How many masks of a constraint are kept, of one byte a token; and how many constraints.
MOST_MASKS, MOST_CONSTRAINTS = 512, 8
ENDED = State(((),))


class Constraint(Protocol):
    """What may be written next; a frozen value."""

    def allowed(self) -> Bool[Tensor, "V"]:
        """True for each token that may come next; at least one is."""

    def after(self, token: int) -> "Constraint":
        """The constraint when this token has been written.

        Raises:
            ValueError: that token was not allowed.
        """


class Spelling(Protocol):
    """What must be known of a tokenizer; every tokenizer of ours has it."""

    #: Tokens that are commands, not text.
    special_ids: Mapping[str, int]

    def decode_bytes(self, ids: Iterable[int]) -> bytes:
        """The bytes that the ids spell; ValueError for an id without a token."""


def json_schema(
    schema: Mapping[str, Any], tokenizer: Spelling, end_ids: Sequence[int], vocab_size: int
) -> Constraint:
    """The constraint that the text be JSON of this schema; see `minillm.serve.schema`.

    Where it was asked for before, it comes with the masks that have been worked out since.

    Args:
        schema: as `json.loads` gives it.
        tokenizer: of the model.
        end_ids: tokens that end a text, at least one.
        vocab_size: V, the rows of the model's table; some may have no token.

    Raises:
        ValueError: a keyword that is not supported; no `end_ids`; a byte that is no token.

    Example:
        >>> from minillm.text.tokenizer import Tokenizer
        >>> tokenizer = Tokenizer((), special_tokens=("<|end|>",))
        >>> constraint = json_schema({"enum": [7, 75, "红"]}, tokenizer, [256], vocab_size=257)
        >>> bytes(constraint.allowed().nonzero().flatten().tolist())
        b'"7'
        >>> constraint.after(ord("7")).allowed().nonzero().flatten().tolist()  # 5, or the end
        [53, 256]
    """
    try:
        grammar = _grammar(json.dumps(schema))
    except RecursionError:
        raise ValueError("the schema has schemas in schemas too deeply to be read") from None
    return _constraint(grammar, tokenizer, tuple(end_ids), vocab_size)


def json_object(tokenizer: Spelling, end_ids: Sequence[int], vocab_size: int) -> Constraint:
    """The constraint that the text be a JSON object, any; arguments as of `json_schema`."""
    return json_schema({"type": "object"}, tokenizer, end_ids, vocab_size)


def grammar(
    rules: str | Rules, tokenizer: Spelling, end_ids: Sequence[int], vocab_size: int
) -> Constraint:
    """The constraint that the text be one of a grammar.

    Args:
        rules: in the notation of `minillm.serve.gbnf`, or as `minillm.serve.grammar` takes them.
        tokenizer, end_ids, vocab_size: as of `json_schema`.

    Raises:
        ValueError: what is wrong with the grammar; else as of `json_schema`.

    Example:
        >>> from minillm.text.tokenizer import Tokenizer
        >>> tokenizer = Tokenizer((), special_tokens=("<|end|>",))
        >>> constraint = grammar('root ::= "a" [b-d]', tokenizer, [256], vocab_size=257)
        >>> bytes(constraint.after(ord("a")).allowed().nonzero().flatten().tolist())
        b'bcd'
    """
    rules = parse(rules) if isinstance(rules, str) else rules
    return _constraint(Grammar(rules), tokenizer, tuple(end_ids), vocab_size)


@final
@dataclass(frozen=True)
class GrammarConstraint:
    """A grammar's `Constraint` after some tokens.

    Args:
        grammar, vocabulary: of texts and of tokens.
        mask: of a state; each pair of a grammar and a vocabulary has a function of its own.
        state: of the grammar; `ENDED` after a token that ends the text, where only such may come.
    """

    grammar: Grammar = field(repr=False, compare=False)
    vocabulary: "Vocabulary" = field(repr=False, compare=False)
    mask: Callable[[State], Tensor] = field(repr=False)
    state: State

    def allowed(self) -> Bool[Tensor, "V"]:
        """True for each token that may come next; the caller's own copy."""
        return self.mask(self.state).clone()

    def after(self, token: int) -> "GrammarConstraint":
        """The constraint when this token has been written.

        Raises:
            ValueError: that token was not allowed.
        """
        if token in self.vocabulary.end_ids and self.state.is_complete:
            return replace(self, state=ENDED)
        spelling = self.vocabulary.spelling.get(token, b"")
        state = self.grammar.after(self.state, spelling)
        if not spelling or state is DEAD:
            raise ValueError(
                f"token {token}, which spells {spelling!r}, is not allowed here; "
                f"{int(self.allowed().sum())} others are"
            )
        return replace(self, state=state)


@lru_cache(MOST_CONSTRAINTS)
def _grammar(schema: str) -> Grammar:
    return schema_grammar(json.loads(schema))


@lru_cache(MOST_CONSTRAINTS)
def _constraint(
    grammar: Grammar, tokenizer: Spelling, end_ids: tuple[int, ...], vocab_size: int
) -> Constraint:
    vocabulary = _vocabulary(tokenizer, end_ids, vocab_size)
    mask = lru_cache(MOST_MASKS)(partial(_mask, grammar, vocabulary))
    return GrammarConstraint(grammar, vocabulary, mask, grammar.start)


# --- from a state to its mask ---------------------------------------------------------------------
class Vocabulary(NamedTuple):
    """The tokens that are text, by id and as a trie, and those that end it.

    Args:
        trie: level by level, for each node the number of its parent in the level above and its
            last byte; then the ids of the tokens that end in this level, and each one's node.
    """

    spelling: Mapping[int, bytes]
    trie: list[tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]]
    end_ids: tuple[int, ...]
    vocab_size: int


@lru_cache(MOST_CONSTRAINTS)
def _vocabulary(tokenizer: Spelling, end_ids: tuple[int, ...], vocab_size: int) -> Vocabulary:
    if not end_ids or not set(end_ids) <= set(range(vocab_size)):
        raise ValueError(
            "end_ids must be at least one id below vocab_size, so that a complete text can end; "
            f"got {end_ids} and {vocab_size}"
        )
    spelling = {}
    for token in set(range(vocab_size)) - {*tokenizer.special_ids.values(), *end_ids}:
        with suppress(ValueError):  # a model's table may have rows without a token
            spelling[token] = tokenizer.decode_bytes([token])
    if missing := {bytes([n]) for n in range(256)} - set(spelling.values()):
        raise ValueError(
            "each of the 256 bytes must be a token, so that whatever must come next can be "
            f"written; this vocabulary lacks {len(missing)} of them, such as {min(missing)}"
        )
    return Vocabulary(spelling, list(_levels(spelling)), end_ids, vocab_size)


def _levels(spelling: Mapping[int, bytes]) -> Iterator[tuple[np.ndarray, ...]]:
    above, length = {b"": 0}, 0
    while spelling := {token: data for token, data in spelling.items() if len(data) > length}:
        length += 1
        prefixes = dict.fromkeys(data[:length] for data in spelling.values())
        nodes = {prefix: n for n, prefix in enumerate(prefixes)}
        ids = [token for token, data in spelling.items() if len(data) == length]
        parents = [above[prefix[:-1]] for prefix in nodes]
        level = parents, [p[-1] for p in nodes], ids, [nodes[spelling[token]] for token in ids]
        yield tuple(np.array(numbers, dtype=int) for numbers in level)
        above = nodes


def _mask(grammar: Grammar, vocabulary: Vocabulary, state: State) -> Tensor:
    # 1. the tokens that end a text, if it is complete
    mask = np.zeros(vocabulary.vocab_size, dtype=bool)
    mask[list(vocabulary.end_ids)] = state.is_complete
    # 2. the other tokens, all at once: a level of the trie is a byte further
    states = {DEAD: 0}  # and their numbers
    now = np.array([states.setdefault(state, len(states))])  # of the nodes of a level

    @cache
    def row(number: int) -> np.ndarray:  # the number of the state after each byte
        row = np.zeros(256, dtype=int)
        for values, after in grammar.moves([*states][number]).items():
            row[list(values)] = states.setdefault(after, len(states))
        return row

    for parents, last_bytes, ids, nodes in vocabulary.trie:
        different, now = np.unique(now, return_inverse=True)
        now = np.stack([row(n) for n in different])[now[parents], last_bytes]
        mask[ids] = now[nodes] != 0
        if not now.any():
            break
    return torch.from_numpy(mask)
