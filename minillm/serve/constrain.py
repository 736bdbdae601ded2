"""Constrained decoding (约束解码): an answer that a program can read, whatever the model prefers.

Before each token is chosen, all tokens that cannot continue a valid text get probability 0. What
may follow is known byte by byte (`minillm.serve.grammar`). But a model writes tokens, and a token
may be half a character, or span several parts of a grammar, as `":"` does. So the tokens stand in
a **trie** (前缀树): one node for each beginning of a token. Trie and grammar are walked together,
and a branch is left at the first byte that the grammar does not allow.

    tokens  tr  true  to  "        trie   t ─ r ─ u ─ e          after `{"sold":`
                                          │   └ tr    └ true     t r u e   allowed: tr, true
                                          └ o                    t o       left: to
                                          "                      "         left: "

The **mask** of a state is True for the tokens that are allowed. It is kept, so that a state that
comes again costs nothing. Tokens that end a text are allowed exactly where the text is complete.
Some token always is allowed: each state of the grammar can go on or end, each byte is a token, and
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
arXiv:2411.15100 (a cache of masks; from memory). Park et al. 2024, "Grammar-Aligned Decoding",
arXiv:2405.21047 (the model's distribution is distorted, and what to do).
Differs: Willard and Louf make the index for all states in advance, here each mask is made when its
state first comes. XGrammar prepares masks for what is on top of a stack, and at run time asks only
about the tokens for which the rest of the stack matters; here a mask belongs to whole stacks.

Chapter: 17
"""

import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from functools import lru_cache, partial
from typing import Any, NamedTuple, Protocol, final

import torch
from jaxtyping import Bool
from torch import Tensor

from minillm.serve.gbnf import parse
from minillm.serve.grammar import Expression, Grammar, State
from minillm.serve.schema import schema_grammar

#: How many masks of a constraint are kept, of one byte a token; and how many constraints.
MOST_MASKS, MOST_CONSTRAINTS = 512, 8


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
    return _constraint(_grammar(json.dumps(schema)), tokenizer, tuple(end_ids), vocab_size)


def json_object(tokenizer: Spelling, end_ids: Sequence[int], vocab_size: int) -> Constraint:
    """The constraint that the text be a JSON object, any; arguments as of `json_schema`."""
    return json_schema({"type": "object"}, tokenizer, end_ids, vocab_size)


def grammar(
    rules: str | Mapping[str, Expression],
    tokenizer: Spelling,
    end_ids: Sequence[int],
    vocab_size: int,
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
        mask: of a state.
        state: of the grammar; None when a token has ended the text: after it only such may come.
    """

    grammar: Grammar = field(repr=False)
    vocabulary: "Vocabulary" = field(repr=False)
    mask: Callable[[State | None], Tensor] = field(repr=False)
    state: State | None

    def allowed(self) -> Bool[Tensor, "V"]:
        """True for each token that may come next; the caller's own copy."""
        return self.mask(self.state).clone()

    def after(self, token: int) -> "GrammarConstraint":
        """The constraint when this token has been written.

        Raises:
            ValueError: that token was not allowed.
        """
        is_complete = self.state is None or self.grammar.is_complete(self.state)
        if token in self.vocabulary.end_ids and is_complete:
            return replace(self, state=None)
        spelling = self.vocabulary.spelling.get(token, b"")
        state = self.grammar.after(self.state or (), spelling)
        if not spelling or not state:
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
class Node(NamedTuple):
    """The beginning of some tokens: how they go on, and the ids of those that end here."""

    children: dict[int, "Node"]
    ids: list[int]


class Vocabulary(NamedTuple):
    """Tokens that are text, by id and as a trie, and those that end it."""

    spelling: Mapping[int, bytes]
    trie: Node
    end_ids: tuple[int, ...]
    vocab_size: int


@lru_cache(MOST_CONSTRAINTS)
def _vocabulary(tokenizer: Spelling, end_ids: tuple[int, ...], vocab_size: int) -> Vocabulary:
    if not end_ids or not set(end_ids) <= set(range(vocab_size)):
        raise ValueError(
            "end_ids must be at least one id below vocab_size, so that a complete text can end; "
            f"got {end_ids} and {vocab_size}"
        )
    spelling, trie = {}, Node({}, [])
    for token in set(range(vocab_size)) - {*tokenizer.special_ids.values(), *end_ids}:
        with suppress(ValueError):  # a model's table may have rows without a token
            spelling[token] = tokenizer.decode_bytes([token])
    if missing := {bytes([n]) for n in range(256)} - set(spelling.values()):
        raise ValueError(
            "each of the 256 bytes must be a token, so that whatever must come next can be "
            f"written; this vocabulary lacks {len(missing)} of them, such as {min(missing)}"
        )
    for token, data in spelling.items():
        node = trie
        for byte in data:
            node = node.children.setdefault(byte, Node({}, []))
        node.ids.append(token)
    return Vocabulary(spelling, trie, end_ids, vocab_size)


def _mask(grammar: Grammar, vocabulary: Vocabulary, state: State | None) -> Tensor:
    # 1. the tokens that end a text, if it is complete
    is_complete = state is None or grammar.is_complete(state)
    ids = list(vocabulary.end_ids) if is_complete else []
    # 2. the trie and the grammar, walked together
    todo = [(vocabulary.trie, state or ())]
    while todo:
        node, state = todo.pop()
        moves = grammar.moves(state)
        for byte in moves.keys() & node.children.keys():
            child = node.children[byte]
            ids += child.ids
            if child.children:
                todo.append((child, moves[byte]))
    mask = torch.zeros(vocabulary.vocab_size, dtype=torch.bool, device="cpu")
    mask[torch.tensor(ids, device="cpu")] = True
    return mask
