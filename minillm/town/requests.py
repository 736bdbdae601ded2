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

from minillm.town.lists import OTHER, Item, answer_language, draw_items, read
from minillm.town.request_words import FORMS, N_WORDINGS, SEEN_WORDINGS
from minillm.town.steps import (
    KINDS,
    Argument,
    Instruction,
    Step,
    argument_kind,
    check_step,
    draw_argument,
    execute,
    has_one_word,
    put_together,
    say_step,
    write_result,
)
from minillm.town.world import World

BLOCK = 64
SHARE_HELD_OUT = 0.25  # of the combinations of each operation
PAIRS = (("all", "all-but"), ("first", "last"), ("append", "prepend"), ("after", "before"))
Combination = tuple[str, str, str]


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

    @property
    def steps(self) -> tuple[Step, ...]:
        """The one step."""
        return ((self.operation, self.argument),)

    @property
    def result(self) -> tuple[Item, ...]:
        """What the right answer names."""
        return execute(self.operation, self.argument, self.items)


@final
@dataclass(frozen=True)
class Grade:
    """What is right about an answer.

    Args:
        content: the right words in the right order, in any of the six forms and either language;
            a form that is spoiled, such as JSON without its quotes, is none of them.
        form: the form and the language that were asked for.
    """

    content: bool
    form: bool

    @property
    def right(self) -> bool:
        """Both."""
        return self.content and self.form


def grade(request: Instruction, answer: str) -> Grade:
    """Grade an answer; spaces and line breaks around it do not count.

    Example:
        >>> plums, pears = Item("plums", "李子"), Item("pears", "梨")
        >>> request = ask("reverse", (), (plums, pears), "lines", "en")
        >>> grade(request, "pears\\nplums "), grade(request, "pears, plums")
        (Grade(content=True, form=True), Grade(content=True, form=False))
    """
    text = answer.strip()
    right = request.result
    content = any(
        read(text, form, language) == tuple(item.say(language) for item in right)
        for language in OTHER
        for form in FORMS[language]
    )
    spoken = answer_language(request.language, request.constraint)
    return Grade(content, read(text, request.constraint, spoken) is not None)


# --- which combinations there are, and which are held out ---------------------------------------
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
    check_step(operation, argument, items)
    sentence = say_step(operation, argument, language, wording[0])
    text = put_together([sentence], items, constraint, language, wording)
    answer = write_result(execute(operation, argument, items), constraint, language)
    return Request(operation, argument, items, constraint, language, wording, text, answer)


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
        return [self.draw(rng, combinations, wordings) for _ in range(BLOCK)]

    def draw(
        self,
        rng: random.Random,
        combinations: Sequence[Combination] = SEEN,
        wordings: Sequence[int] = SEEN_WORDINGS,
    ) -> Request:
        """One request; see `block`.

        Args:
            rng: of all that is drawn.
            combinations: to draw from.
            wordings: to draw from.
        """
        choice = rng.choice(list(dict.fromkeys(each[0] for each in combinations)))
        operation, kind, form = rng.choice([each for each in combinations if each[0] == choice])
        items, others = draw_items(self.world, rng)
        argument = draw_argument(rng, operation, kind, items, others)
        ways = (rng.choice(wordings), rng.choice(wordings))
        if has_one_word(operation, kind) and form == "commas":
            ways = (ways[0], 0)  # nothing to put between
        return ask(operation, argument, items, form, self.language, ways)
