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
arXiv:2411.15100 (a pushdown automaton over bytes with several stacks).
Differs: Willard and Louf use an LALR parser (from memory), which has one stack, and terminals that
are regular expressions. XGrammar compiles the rules to automata and keeps its stacks in a tree, in
which they share their lower ends. Here stacks are tuples of the rules' own parts. A rule that
begins with itself is refused. Of a very ambiguous text only `MOST_STACKS` stacks are kept: what may
follow stays right, but something that also might follow can be lost.

Chapter: 17
"""

from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import dataclass, field
from functools import cached_property, lru_cache
from itertools import chain
from typing import final
from weakref import WeakValueDictionary

#: How many stacks a state may have, and of how many states the moves are kept.
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
Rules = Mapping[str, Expression]
Stack = tuple[Expression, ...]


def literal(text: str) -> Concat:
    """Exactly this text, as UTF-8."""
    return Concat(tuple(ByteClass(frozenset([byte])) for byte in text.encode()))


@final
@dataclass(frozen=True, eq=False)
class State:
    """Where a text stands after some bytes; a grammar has one object for equal states.

    Args:
        stacks: all that are possible, each with a byte class on top or with nothing left.
    """

    stacks: tuple[Stack, ...]

    @property
    def is_complete(self) -> bool:
        """Whether the text may end here: on some stack nothing is still to come."""
        return () in self.stacks


#: The state after bytes that cannot come.
DEAD = State(())


# --- the recogniser -------------------------------------------------------------------------------
@final
@dataclass(frozen=True, eq=False)
class Grammar:
    """Rules, and the pushdown automaton that reads by them.

    Args:
        rules: for each name what its texts consist of; whole texts are those of "root".

    Raises:
        ValueError: a rule that is used and not there; one with a part that no text can finish; one
            that begins with itself.

    Example:
        >>> inner = Repeat(Choice((Reference("root"), literal("7"))))
        >>> grammar = Grammar({"root": Concat((literal("["), inner, literal("]")))})
        >>> state = grammar.after(grammar.start, b"[[7")
        >>> [*grammar.moves(state)], state.is_complete
        ([b'[', b'7', b']'], False)
        >>> grammar.accepts("[[7]]")
        True
    """

    rules: Rules
    #: The state before the first byte.
    start: State = field(init=False, repr=False)
    #: Of a state: the bytes that may come next, and the state after any of them.
    moves: Callable[[State], Mapping[bytes, State]] = field(init=False, repr=False)

    def __post_init__(self):
        _check(self.rules)
        object.__setattr__(self, "_states", WeakValueDictionary())
        object.__setattr__(self, "_opening", set())
        object.__setattr__(self, "_heads", lru_cache(MOST_STATES)(self._open_part))
        object.__setattr__(self, "moves", lru_cache(MOST_STATES)(self._moves))
        starts = {name: self._state(self._open((Reference(name),))) for name in self.rules}
        object.__setattr__(self, "start", starts["root"])

    def after(self, state: State, data: bytes) -> State:
        """The state after more bytes; `DEAD` if they cannot come."""
        for byte in data:
            moves = self.moves(state).items()
            state = next((after for values, after in moves if byte in values), DEAD)
        return state

    def accepts(self, text: str) -> bool:
        """Whether a text is one of the grammar's."""
        return self.after(self.start, text.encode()).is_complete

    def _moves(self, state: State) -> dict[bytes, State]:
        # take the byte off, open what lies below it, and put together what the same bytes lead to
        stacks = [stack for stack in state.stacks if stack]
        opened = [self._open(stack[1:]) for stack in stacks]
        return {
            values: self._state(chain(*(opened[n] for n in numbers)))
            for values, numbers in _split(tuple(stack[0] for stack in stacks))
        }

    def _open(self, stack: Stack) -> list[Stack]:
        """The stacks that it can become, with a byte class on top or with nothing left."""
        opened: list[Stack] = []
        for n, top in enumerate(stack, start=1):
            heads = self._heads(top)
            opened += [head + stack[n:] for head in heads if head]
            if () not in heads:
                return opened
        return [*opened, ()]

    def _open_part(self, part: Expression) -> tuple[Stack, ...]:
        """The same for a part by itself; () among them says that it may be empty."""
        match part:
            case ByteClass():
                heads = [(part,)]
            case Concat(parts):
                heads = self._open(parts)
            case Choice(options):
                heads = [*chain(*map(self._heads, options))]
            case Repeat(repeated, least, most):
                once = self._heads(repeated) if most != 0 else ((),)
                heads = [(*head, part.after_one) for head in once if head]
                heads += [()] if least == 0 or () in once else []
            case Reference(name):
                if name in self._opening:
                    raise ValueError(
                        f"rule {name!r} can begin with itself (left recursion), and would be "
                        'opened for ever; write `a ::= "x" a` in place of `a ::= a "x"`'
                    )
                self._opening.add(name)
                heads = self._heads(self.rules[name])
                self._opening.remove(name)
        return tuple(dict.fromkeys(heads))[-MOST_STACKS:]

    def _state(self, stacks: Iterable[Stack]) -> State:
        different = tuple(dict.fromkeys(stacks))[-MOST_STACKS:]  # the last ones lead to the end
        return self._states.setdefault(different, State(different))


@lru_cache(MOST_STATES)
def _split(classes: tuple[ByteClass, ...]) -> list[tuple[bytes, list[int]]]:
    """All bytes, those together that are in the same classes, and the numbers of these."""
    numbers: dict[int, list[int]] = {}
    for n, byte_class in enumerate(classes):
        for byte in sorted(byte_class.values):
            numbers.setdefault(byte, []).append(n)
    values: dict[tuple[int, ...], list[int]] = {}
    for byte, of_byte in numbers.items():
        values.setdefault(tuple(of_byte), []).append(byte)
    return [(bytes(values), numbers) for numbers, values in values.items()]


# --- what can be wrong ----------------------------------------------------------------------------
def _check(rules: Rules) -> None:
    """Refuse what would be a dead end."""
    # 1. each part of each rule can be chosen, repeated or looked up
    for name, expression in {"": Reference("root"), **rules}.items():
        for part in _parts(expression):
            match part:
                case ByteClass(values) if not values:
                    raise ValueError(f"rule {name!r} has a byte class without a byte")
                case Choice(options) if not 0 < len(options) <= MOST_STACKS:
                    raise ValueError(
                        f"rule {name!r} chooses from {len(options)} parts, not 1 to 10,000"
                    )
                case Repeat(_, least, most) if not 0 <= least <= (least if most is None else most):
                    raise ValueError(f"rule {name!r} repeats a part from {least} to {most} times")
                case Reference(other) if other not in rules:
                    raise ValueError(f"there is no rule {other!r}; there are {sorted(rules)}")
    # 2. each rule has a text
    finite: set[str] = set()
    while new := {name for name in rules if _is_finite(rules[name], finite)} - finite:
        finite |= new
    if endless := sorted(set(rules) - finite):
        raise ValueError(
            f"no text can finish rule {endless[0]!r}, since it always needs one more of itself; "
            "give it an alternative that does not"
        )


def _parts(expression: Expression) -> list[Expression]:
    """An expression, what it consists of, what that consists of, and so on."""
    parts = [expression]
    for part in parts:  # grows as it is read
        match part:
            case Concat(inner) | Choice(inner):
                parts += inner
            case Repeat(inner):
                parts.append(inner)
    return parts


def _is_finite(expression: Expression, finite: Collection[str]) -> bool:
    """Whether it has a text, if each rule in `finite` has one."""
    match expression:
        case ByteClass():
            return True
        case Concat(parts):
            return all(_is_finite(part, finite) for part in parts)
        case Choice(options):
            return any(_is_finite(option, finite) for option in options)
        case Repeat(part, least):
            return least == 0 or _is_finite(part, finite)
        case Reference(name):
            return name in finite
