"""A grammar over bytes, read byte by byte: which bytes may come next, and may the text end here?

A grammar has rules. A rule says how texts of its name are put together: of one byte out of a set,
of parts in a row, of one part out of several, of a part so and so often, or of another rule's
text. A rule may use itself, so brackets can be counted, which no regular expression does:

    root ::= "[" (root | "7")* "]"            such as []   [7]   [7[77][]]

The recogniser is a **pushdown automaton** (下推自动机). It keeps stacks. A **stack** is the list of
all that is still to come, the next one on the left. Where the grammar leaves a choice, there is one
stack for each possibility, so the **state** after some bytes is several stacks. Here R stands for
`(root | "7")*`:

    bytes      stacks
               "[" R "]"
    [          "[" R "]" R "]"     "7" R "]"     "]"
    [[         "[" R "]" R "]" R "]"     "7" R "]" R "]"     "]" R "]"
    []         (nothing is still to come: the text is complete)

Two steps are repeated. *Open*: replace what is on top of a stack by what it consists of, in every
way, until a byte is on top. *Read* a byte: drop the stacks that have another byte on top, and take
that byte off the others.

No state is a dead end: each rule can be finished, so each stack can.

Paper: Willard and Louf 2023, "Efficient Guided Generation for Large Language Models",
arXiv:2307.09702, section 4 (parsers that read what a model writes). Dong et al. 2024, "XGrammar",
arXiv:2411.15100 (a pushdown automaton over bytes with several stacks; from memory).
Differs: Willard and Louf use an LALR parser, which has one stack, and terminals that are regular
expressions. XGrammar compiles the rules to automata and keeps its stacks in a tree, in which they
share their lower ends. Here the stacks are tuples of the rules' own parts. A rule that begins with
itself is refused. Of a very ambiguous text only `MOST_STACKS` stacks are kept: what may follow
stays right, but something that also might follow can be lost.

Chapter: 17
"""

from collections.abc import Callable, Collection, Iterator, Mapping
from dataclasses import dataclass, field
from functools import cached_property, lru_cache
from itertools import chain
from typing import final

#: How many stacks a state may have, and how many states' moves are kept, of up to 10 kB each.
MOST_STACKS, MOST_STATES = 10_000, 4_096


# --- what rules consist of ------------------------------------------------------------------------
@final
@dataclass(frozen=True, eq=False)
class ByteClass:
    """One byte out of a set."""

    values: frozenset[int]


@final
@dataclass(frozen=True, eq=False)
class Concat:
    """Parts, one after the other; no part is the empty text."""

    parts: tuple["Expression", ...]


@final
@dataclass(frozen=True, eq=False)
class Choice:
    """One of several."""

    options: tuple["Expression", ...]


@final
@dataclass(frozen=True, eq=False)
class Repeat:
    """A part, at least and at most so often; None for any number of times."""

    part: "Expression"
    least: int = 0
    most: int | None = None

    @cached_property
    def after_one(self) -> "Repeat":
        """What is still to come when the part has come once."""
        if self.least == 0 and self.most is None:
            return self
        return Repeat(self.part, max(0, self.least - 1), self.most and self.most - 1)


@final
@dataclass(frozen=True, eq=False)
class Reference:
    """What the rule of this name says."""

    name: str


Expression = ByteClass | Concat | Choice | Repeat | Reference
Stack = tuple[Expression, ...]
State = tuple[Stack, ...]


def literal(text: str) -> Concat:
    """Exactly this text, as UTF-8."""
    return Concat(tuple(ByteClass(frozenset([byte])) for byte in text.encode()))


# --- the recogniser -------------------------------------------------------------------------------
@final
@dataclass(frozen=True, eq=False)
class Grammar:
    """Rules, and the pushdown automaton that reads by them.

    Args:
        rules: for each name what its texts consist of.
        root: the rule of whole texts.

    Raises:
        ValueError: a rule that is used and not there; one with a part that no text can finish; one
            that begins with itself.

    Example:
        >>> inner = Repeat(Choice((Reference("root"), literal("7"))))
        >>> grammar = Grammar({"root": Concat((literal("["), inner, literal("]")))})
        >>> state = grammar.after(grammar.start, b"[[7")
        >>> bytes(sorted(grammar.moves(state))), grammar.is_complete(state)
        (b'7[]', False)
        >>> grammar.accepts("[[7]]")
        True
    """

    rules: Mapping[str, Expression]
    root: str = "root"
    #: How many parts the rules have.
    size: int = field(init=False)
    #: The state before the first byte.
    start: State = field(init=False, repr=False)
    #: For each byte that may come next in a state, the state after it.
    moves: Callable[[State], Mapping[int, State]] = field(init=False, repr=False)

    def __post_init__(self):
        _check_ends(self.rules, self.root)
        size = sum(len(list(_parts(expression))) for expression in self.rules.values())
        object.__setattr__(self, "size", size)
        starts = {name: self._open((Reference(name),)) for name in self.rules}
        object.__setattr__(self, "start", starts[self.root])
        object.__setattr__(self, "moves", lru_cache(MOST_STATES)(self._moves))

    def after(self, state: State, data: bytes) -> State:
        """The state after more bytes; it has no stack if they cannot come."""
        for byte in data:
            state = self.moves(state).get(byte, ())
        return state

    def is_complete(self, state: State) -> bool:
        """Whether the text may end here: on some stack nothing is still to come."""
        return () in state

    def accepts(self, text: str) -> bool:
        """Whether a text is one of the grammar's."""
        return self.is_complete(self.after(self.start, text.encode()))

    def _moves(self, state: State) -> dict[int, State]:
        after: dict[int, list[State]] = {}
        for stack in filter(None, state):
            opened = self._open(stack[1:])
            for byte in stack[0].values:
                after.setdefault(byte, []).append(opened)
        return {byte: _union(states) for byte, states in after.items()}

    def _open(self, whole: Stack) -> State:
        """All stacks that a stack can become, with a byte class on top or with nothing left."""
        opened, todo, seen = [], [whole], set()
        while todo and len(opened) < MOST_STACKS:
            stack = todo.pop()
            if stack in seen:  # such as a repetition whose part was empty
                continue
            if len(stack) > len(whole) + self.size:  # some rule has been opened inside of itself
                raise ValueError(
                    f"rule {whole[0].name!r} can begin with itself, or with a rule that can (left "
                    'recursion); write `a ::= "x" a`, not `a ::= a "x"`'
                )
            seen.add(stack)
            top, rest = stack[:1], stack[1:]
            match top:
                case () | (ByteClass(),):
                    opened.append(stack)
                case (Concat(parts),):
                    todo.append(parts + rest)
                case (Choice(options),):
                    todo += [(option, *rest) for option in reversed(options)]
                case (Reference(name),):
                    todo.append((self.rules[name], *rest))
                case (Repeat(part, least, most) as repeat,):
                    todo += [rest] if least == 0 else []
                    todo += [(part, repeat.after_one, *rest)] if most != 0 else []
        return tuple(opened)


def _union(states: Collection[State]) -> State:
    if len(states) == 1:
        return states[0]
    return tuple(dict.fromkeys(chain.from_iterable(states)))[:MOST_STACKS]


# --- what can be wrong ----------------------------------------------------------------------------
def _check_ends(rules: Mapping[str, Expression], root: str) -> None:
    """Refuse what would be a dead end: each part of each rule must have a text."""
    parts = {name: list(_parts(expression)) for name, expression in rules.items()}
    uses = {part.name for part in chain(*parts.values()) if isinstance(part, Reference)}
    if missing := sorted({root, *uses} - set(rules)):
        raise ValueError(f"there is no rule {missing[0]!r}; there are {sorted(rules)}")
    finite: set[str] = set()
    while new := {name for name in rules if _ends(rules[name], finite)} - finite:
        finite |= new
    for name in rules:
        if not all(_ends(part, finite) for part in parts[name]):
            raise ValueError(
                f"no text can finish rule {name!r}: a part of it always needs one more of itself, "
                "has nothing to choose from, or is repeated at least more often than at most"
            )


def _parts(expression: Expression) -> Iterator[Expression]:
    """An expression, what it consists of, what that consists of, and so on."""
    yield expression
    match expression:
        case Concat(parts) | Choice(parts):
            yield from chain(*map(_parts, parts))
        case Repeat(part):
            yield from _parts(part)


def _ends(expression: Expression, finite: Collection[str]) -> bool:
    """Whether it has a text, if each rule in `finite` has one."""
    match expression:
        case ByteClass(values):
            return bool(values)
        case Concat(parts):
            return all(_ends(part, finite) for part in parts)
        case Choice(options):
            return any(_ends(option, finite) for option in options)
        case Repeat(part, least, most):
            in_order = 0 <= least <= (least if most is None else most)
            return in_order and (least == 0 or _ends(part, finite))
        case Reference(name):
            return name in finite
