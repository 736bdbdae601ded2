"""A step (步骤): an operation (操作) and its argument (参数), done to a list and said in words.

    operation   argument     said                                  plums, pears, buns  →
    first       2            Give me the first two.                plums, pears
    replace     3, tea       Replace the third by tea.             plums, pears, tea
    count       none         How many are there?                   three

A request (`minillm.town.requests`) is one step on a list and a form for the answer; a chained one
(`minillm.town.chains`) is several.

Paper: none.
Differs: none.

Chapter: 20
"""

import random
from collections.abc import Sequence
from typing import Protocol

from minillm.town.lists import SEPARATOR, Item, answer_language, write
from minillm.town.request_words import FORMS, LISTS, NUMBERS, OPERATIONS, YES_NO, end, nth

Argument = tuple[Item | int, ...]
Step = tuple[str, Argument]
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


class Instruction(Protocol):
    """What can be graded, of one step (`Request`) or of several (`minillm.town.chains.Chain`)."""

    items: tuple[Item, ...]
    constraint: str
    language: str
    wording: tuple[int, ...]
    text: str
    answer: str

    @property
    def steps(self) -> tuple[Step, ...]:
        """What is done to the list: (operation, argument), one after the other."""

    @property
    def result(self) -> tuple[Item, ...]:
        """What the right answer names."""


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


def has_one_word(operation: str, kind: str) -> bool:
    """Whether the answer is one word, which nobody asks to be written on lines.

    Example:
        >>> has_one_word("first", "none"), has_one_word("first", "number")
        (True, False)
    """
    one = ("count", "nth", "contains", "after", "before")
    return operation in one or (operation in ("first", "last") and kind == "none")


# --- checked and said --------------------------------------------------------------------------
def check_step(operation: str, argument: Argument, items: tuple[Item, ...]) -> None:
    """Refuse a step that cannot be done to a list.

    Raises:
        ValueError: an operation that does not exist; too few or too many things in the argument,
            or one that is not on the list; a step that leaves nothing.

    Example:
        >>> check_step("nth", (2,), (Item("plums", "李子"), Item("pears", "梨")))
    """
    if operation not in KINDS:
        raise ValueError(f"operation must be one of {', '.join(KINDS)}; got {operation!r}")
    n_blanks = 2 if operation in ("replace", "swap") else 1
    optional = operation in ("first", "last")
    numbers = {0} if KINDS[operation] == ("none",) else {n_blanks} | ({0} if optional else set())
    if len(argument) not in numbers:
        raise ValueError(
            f"{operation} needs {' or '.join(map(str, sorted(numbers)))} things in its argument; "
            f"got {len(argument)}, {argument}"
        )
    if operation == "swap" and isinstance(argument[0], Item) != isinstance(argument[1], Item):
        raise ValueError(f"swap needs two items or two ordinals; got {argument}")
    new = {"contains": 1, "append": 1, "prepend": 1}.get(operation, 0)  # need not be on the list
    known = argument[new : 1 if operation == "replace" else None]
    if any(x not in (items if isinstance(x, Item) else range(1, len(items) + 1)) for x in known):
        raise ValueError(f"{operation} needs what is on the list {items}; got {argument}")
    if not execute(operation, argument, items):
        raise ValueError(f"{operation} {argument} leaves nothing of {items} to answer with")


def say_step(operation: str, argument: Argument, language: str, way: int) -> str:
    """A step as a sentence, in one of its wordings.

    Example:
        >>> say_step("first", (2,), "en", 1)
        'Name the first two.'
    """
    blanks = say_argument(operation, argument, language)
    return OPERATIONS[language][operation][way].format(**dict(zip("xy", blanks, strict=False)))


def put_together(
    sentences: Sequence[str],
    items: tuple[Item, ...],
    constraint: str,
    language: str,
    wording: tuple[int, ...],
) -> str:
    """The whole text: the list, the steps, the form.

    Args:
        sentences: one for each step.
        items: the list.
        constraint: the form.
        language: "en" or "zh".
        wording: of the list, first, and of the form, last.

    Example:
        >>> put_together(["Count them."], (Item("plums", "李子"),), "json", "en", (1, 0))
        'Here is a list: plums. Count them. As JSON.'
    """
    listed = SEPARATOR[language].join(item.say(language) for item in items)
    parts = [
        LISTS[language][wording[0]].format(items=listed),
        *sentences,
        FORMS[language][constraint][wording[-1]],
    ]
    return ("" if language == "zh" else " ").join(part for part in parts if part)


def write_result(result: tuple[Item, ...], constraint: str, language: str) -> str:
    """The answer that names a result, in the form, to someone who speaks a language.

    Example:
        >>> write_result((Item("plums", "李子"),), "translated", "en")
        '李子'
    """
    spoken = answer_language(language, constraint)
    return write([item.say(spoken) for item in result], constraint, spoken)


# --- drawn
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
