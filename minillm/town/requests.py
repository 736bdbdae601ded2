"""Requests: a list, something to do with it, a form for the answer, and an executor that grades.

    The list: plums, pears, buns. Turn the list around. In brackets.    →    (buns, pears, plums)

A request is put together from an operation (操作), its argument (参数), a form of the answer (格式)
and a wording (措辞). The executor carries it out, so every answer can be graded exactly, and what
was asked and how it was to look are graded apart.

**Compositional split** (组合划分). A combination is (operation, kind of argument, form), such as
(replace, ordinal, json). About a quarter of the combinations of every operation is held out. So a
model that is trained on the others has met every operation and every form, but must put these
together by itself.

**Minimal pairs** (最小对). `pair` gives a request that differs in one thing only: "all of them" and
"all of them but plums".

Paper: Lake and Baroni 2018, "Generalization without Systematicity", arXiv:1711.00350, for commands
whose combinations are held out (from memory); Honovich et al. 2022, "Instruction Induction",
arXiv:2205.10782, for tasks on short lists (from memory).
Differs: the form of the answer is part of the request; two languages.

Chapter: 20
"""

import random
from collections.abc import Sequence
from dataclasses import dataclass
from hashlib import sha256
from typing import final

from minillm.town.lists import OTHER, SEPARATOR, Item, answer_language, draw_items, read, write
from minillm.town.request_words import (
    FORMS,
    LISTS,
    N_WORDINGS,
    NUMBERS,
    OPERATIONS,
    SEEN_WORDINGS,
    YES_NO,
    end,
    nth,
)
from minillm.town.world import World

BLOCK = 64
SHARE_HELD_OUT = 0.25  # of the combinations of each operation
KINDS = {
    "all": ("none",),
    "all-but": ("item",),
    "reverse": ("none",),
    "count": ("none",),
    "first": ("none", "number"),
    "last": ("none", "number"),
    "nth": ("ordinal",),
    "without": ("ordinal",),
    "skip": ("number",),
    "replace": ("item", "ordinal"),
    "swap": ("item", "ordinal"),
    "contains": ("item",),
    "append": ("item",),
    "prepend": ("item",),
    "after": ("item",),
    "before": ("item",),
}
PAIRS = (("all", "all-but"), ("first", "last"), ("append", "prepend"), ("after", "before"))
Combination = tuple[str, str, str]


Argument = tuple[Item | int, ...]


@final
@dataclass(frozen=True)
class Request:
    """A request and its truth; `ask` puts one together.

    Args:
        operation: a key of `KINDS`.
        argument: items, or numbers counted from 1; empty for none.
        items: the list.
        constraint: form of the answer: "commas", "lines", "numbered", "json", "brackets", or
            "translated" (with commas, in the other language).
        language: "en" or "zh".
        wording: of the operation and the list, and of the form; 0 to 4 each.
        text: as it is said.
        answer: the right one.
    """

    operation: str
    argument: Argument
    items: tuple[Item, ...]
    constraint: str
    language: str
    wording: tuple[int, int]
    text: str
    answer: str

    @property
    def combination(self) -> Combination:
        """(operation, kind of argument, form)."""
        return self.operation, argument_kind(self.operation, self.argument), self.constraint


def argument_kind(operation: str, argument: Argument) -> str:
    """What an argument begins with: "none", "item", "ordinal" or "number" (how many).

    Example:
        >>> argument_kind("first", (2,)), argument_kind("nth", (2,)), argument_kind("first", ())
        ('number', 'ordinal', 'none')
    """
    if not argument:
        return "none"
    if isinstance(argument[0], Item):
        return "item"
    return "number" if "number" in KINDS[operation] else "ordinal"


def say_argument(operation: str, argument: Argument, language: str) -> list[str]:
    """An argument in words; "first", "last" and "skip" always have one.

    Example:
        >>> say_argument("nth", (2,), "en"), say_argument("first", (), "en")
        (['the second'], ['the first'])
    """
    if operation in ("first", "last", "skip"):
        which = "last" if operation == "last" else "first"
        return [end(which, argument[0] if argument else None, language)]
    return [x.say(language) if isinstance(x, Item) else nth(x, language) for x in argument]


def execute(operation: str, argument: Argument, items: tuple[Item, ...]) -> tuple[Item, ...]:
    """Carry an operation out: what stands on the list afterwards, or the one word of the answer.

    Example:
        >>> a, b, c = Item("plums", "李子"), Item("pears", "梨"), Item("buns", "小圆面包")
        >>> [item.english for item in execute("all-but", (b,), (a, b, c))]
        ['plums', 'buns']
        >>> execute("count", (), (a, b, c))
        (Item(english='three', chinese='三'),)
    """
    # 1. where on the list the argument stands, from 0; what is new to the list stands nowhere
    places = [
        x - 1 if isinstance(x, int) else items.index(x) if x in items else -1 for x in argument
    ]
    i, j = (*places, 0, 0)[:2]
    k = i + 1  # as a number of items
    # 2. what is left, or the one word
    match operation:
        case "all":
            return items
        case "reverse":
            return items[::-1]
        case "count":
            return (Item(*(NUMBERS[language][len(items) - 1] for language in ("en", "zh"))),)
        case "first":
            return items[:k]
        case "last":
            return items[-k:]
        case "nth":
            return items[i : i + 1]
        case "all-but" | "without":
            return items[:i] + items[i + 1 :]
        case "skip":
            return items[k:]
        case "replace":
            return (*items[:i], argument[1], *items[i + 1 :])
        case "swap":
            return tuple(items[{i: j, j: i}.get(n, n)] for n in range(len(items)))
        case "contains":
            return (Item(*(YES_NO[language][argument[0] not in items] for language in YES_NO)),)
        case "append":
            return (*items, argument[0])
        case "prepend":
            return (argument[0], *items)
        case "after":
            return items[i + 1 : i + 2]
        case "before":
            return items[i - 1 : i]
    raise ValueError(f"no operation {operation!r}; there are {', '.join(KINDS)}")


@final
@dataclass(frozen=True)
class Grade:
    """What is right about an answer.

    Args:
        content: the right words in the right order, in any form and language.
        form: the form and the language that were asked for.
    """

    content: bool
    form: bool

    @property
    def right(self) -> bool:
        """Both."""
        return self.content and self.form


def grade(request: Request, answer: str) -> Grade:
    """Grade an answer; spaces and line breaks around it do not count.

    Example:
        >>> plums, pears = Item("plums", "李子"), Item("pears", "梨")
        >>> request = ask("reverse", (), (plums, pears), "lines", "en")
        >>> grade(request, "pears\\nplums "), grade(request, "pears, plums")
        (Grade(content=True, form=True), Grade(content=True, form=False))
    """
    text = answer.strip()
    right = execute(request.operation, request.argument, request.items)
    content = any(
        read(text, form, language) == tuple(item.say(language) for item in right)
        for language in OTHER
        for form in FORMS[language]
    )
    spoken = answer_language(request.language, request.constraint)
    return Grade(content, read(text, request.constraint, spoken) is not None)


# --- which combinations there are, and which are held out ---------------------------------------
def has_one_word(operation: str, kind: str) -> bool:
    """Whether the answer is one word, which nobody asks to be written on lines.

    Example:
        >>> has_one_word("first", "none"), has_one_word("first", "number")
        (True, False)
    """
    one = ("count", "nth", "contains", "after", "before")
    return operation in one or (operation in ("first", "last") and kind == "none")


def _combinations() -> tuple[tuple[Combination, ...], frozenset[Combination]]:
    every, held = [], []
    for operation, kinds in KINDS.items():
        own = [
            (operation, kind, form)
            for kind in kinds
            for form in FORMS["en"]
            if not (has_one_word(operation, kind) and form in ("lines", "numbered"))
        ]
        every += own
        own.sort(key=lambda each: sha256("/".join(("requests", *each)).encode()).digest())
        held += own[: max(1, round(SHARE_HELD_OUT * len(own)))]
    return tuple(every), frozenset(held)


COMBINATIONS, HELD_OUT = _combinations()
SEEN = tuple(each for each in COMBINATIONS if each not in HELD_OUT)


def held_out(request: Request) -> bool:
    """Whether the request is for evaluation: no training request has its combination."""
    return request.combination in HELD_OUT


# --- making requests ----------------------------------------------------------------------------
def ask(
    operation: str,
    argument: Argument,
    items: tuple[Item, ...],
    constraint: str = "commas",
    language: str = "en",
    wording: tuple[int, int] = (0, 0),
) -> Request:
    """Put a request into words and carry it out.

    Raises:
        ValueError: a combination, language or wording that does not exist; an argument that is
            not on the list.

    Example:
        >>> items = Item("plums", "李子"), Item("pears", "梨"), Item("buns", "小圆面包")
        >>> request = ask("first", (2,), items, "json")
        >>> request.text, request.answer
        ('The list: plums, pears, buns. Give me the first two. As JSON.', '["plums", "pears"]')
    """
    if operation not in KINDS or language not in OTHER:
        raise ValueError(
            f"operation must be one of {', '.join(KINDS)} and language en or zh; got "
            f"{operation!r} and {language!r}"
        )
    combination = (operation, argument_kind(operation, argument), constraint)
    if combination not in COMBINATIONS:
        raise ValueError(f"no combination {combination}; COMBINATIONS has those that there are")
    if not all(0 <= way < N_WORDINGS for way in wording):
        raise ValueError(f"wordings are 0 to {N_WORDINGS - 1}; got {wording}")
    new = {"contains": 1, "append": 1, "prepend": 1}.get(operation, 0)  # need not be on the list
    known = argument[new : 1 if operation == "replace" else None]
    if any(x not in (items if isinstance(x, Item) else range(1, len(items) + 1)) for x in known):
        raise ValueError(f"{operation} needs what is on the list {items}; got {argument}")
    answer = execute(operation, argument, items)
    if not answer:
        raise ValueError(f"{operation} {argument} leaves nothing of {items} to answer with")
    # 1. what stands in the blanks
    blanks = say_argument(operation, argument, language)
    # 2. the list, the operation, the form
    listed = SEPARATOR[language].join(item.say(language) for item in items)
    parts = [
        LISTS[language][wording[0]].format(items=listed),
        OPERATIONS[language][operation][wording[0]].format(**dict(zip("xy", blanks, strict=False))),
        FORMS[language][constraint][wording[1]],
    ]
    text = ("" if language == "zh" else " ").join(part for part in parts if part)
    spoken = answer_language(language, constraint)
    written = write([item.say(spoken) for item in answer], constraint, spoken)
    return Request(operation, argument, items, constraint, language, wording, text, written)


def pair(request: Request) -> Request | None:
    """The request that differs in the operation alone, or None if there is no such.

    "All" has "all but", with an item of the list that the request's text decides. The other one's
    combination may be held out where this one's is not.

    Example:
        >>> plums, pears = Item("plums", "李子"), Item("pears", "梨")
        >>> pair(ask("after", (plums,), (plums, pears))) is None  # nothing before the first
        True
    """
    for here, there in (*PAIRS, *((b, a) for a, b in PAIRS)):
        if request.operation == here:
            argument = () if there == "all" else request.argument
            if there == "all-but":
                argument = (random.Random(request.text).choice(request.items),)
            if not execute(there, argument, request.items):
                return None
            how = (request.constraint, request.language, request.wording)
            return ask(there, argument, request.items, *how)
    return None


@final
@dataclass(frozen=True)
class RequestSource:
    """Requests without end, in blocks of 64.

    Args:
        world: the town, whose goods and famous people stand on the lists.
        language: "en" or "zh"; one seed asks for the same in both.

    Raises:
        ValueError: another language.

    Example:
        >>> request = RequestSource(World()).block(0)[0]
        >>> grade(request, request.answer).right, held_out(request)
        (True, False)
    """

    world: World
    language: str = "en"

    def __post_init__(self) -> None:
        if self.language not in OTHER:
            raise ValueError(f'language must be "en" or "zh"; got {self.language!r}')

    def block(
        self,
        index: int,
        seed: int | str = 0,
        *,
        combinations: Sequence[Combination] = SEEN,
        wordings: Sequence[int] = SEEN_WORDINGS,
    ) -> list[Request]:
        """The 64 requests number 64·index to 64·index + 63 of a stream.

        Args:
            index: 0, 1, 2, …
            seed: another seed, another stream.
            combinations: to draw from: an operation first, then one of its combinations. Those
                that are not held out; `sorted(HELD_OUT)` for evaluation.
            wordings: to draw from.

        Raises:
            ValueError: a negative index; nothing to draw from.
        """
        if index < 0 or not combinations or not wordings:
            raise ValueError(
                f"index must be at least 0, with combinations and wordings to draw from; got "
                f"{index}, {len(combinations)} and {len(wordings)}"
            )
        rng = random.Random(f"requests/{self.world.seed}/{seed}/{index}")
        by_operation: dict[str, list[Combination]] = {}
        for each in combinations:
            by_operation.setdefault(each[0], []).append(each)
        requests = []
        for _ in range(BLOCK):
            operation, kind, form = rng.choice(by_operation[rng.choice(list(by_operation))])
            items, others = draw_items(self.world, rng)
            argument = draw_argument(rng, operation, kind, items, others)
            ways = (rng.choice(wordings), rng.choice(wordings))
            if has_one_word(operation, kind) and form == "commas":
                ways = (ways[0], 0)  # nothing to put between
            requests.append(ask(operation, argument, items, form, self.language, ways))
        return requests


def draw_argument(
    rng: random.Random, operation: str, kind: str, items: Sequence[Item], others: Sequence[Item]
) -> Argument:
    """An argument of a kind for an operation on a list; what is new to the list is of the others.

    Example:
        >>> draw_argument(random.Random(0), "append", "item", (), (Item("plums", "李子"),))
        (Item(english='plums', chinese='李子'),)
    """
    n = len(items)
    match operation, kind:
        case _, "none":
            return ()
        case _, "number":
            return (rng.randint(2, n - 1),)
        case "swap", _:
            places = sorted(rng.sample(range(n), 2))
            return tuple(items[i] if kind == "item" else i + 1 for i in places)
        case "replace", _:
            i = rng.randrange(n)
            return (items[i] if kind == "item" else i + 1, others[0])
        case _, "ordinal":
            return (rng.randint(1, n),)
        case "append" | "prepend", _:
            return (others[0],)
        case "contains", _:
            return (rng.choice(items) if rng.random() < 0.5 else others[0],)
        case "after", _:
            return (rng.choice(items[:-1]),)
        case "before", _:
            return (rng.choice(items[1:]),)
    return (rng.choice(items),)
