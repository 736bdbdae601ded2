"""Chained requests (多步指令): two or three steps, each done to the list that the last one left.

    The list: plums, pears, buns. Turn the list around. Then give me the first two. As JSON.

    plums, pears, buns   →   buns, pears, plums   →   buns, pears   =   ["buns", "pears"]

"The first" of a later step is the first of the list as it is then. Every step before the last must
leave a list: after "How many are there?" there is none to go on with. And "all of them" is no step
of a chain, because it leaves the list as it is.

**Compositional split** (组合划分). Two steps that follow each other are a pair of operations, such
as (reverse, first). About a quarter of the pairs of every first operation is held out. So a model
that is trained on the others has met every operation as a first step and as a second one, but must
put these two together by itself.

**Every step is needed.** "Add tea at the end. Then give me the first two" has the answer that it
would have without its first step, so whoever skips that step is right as well. `ChainSource` gives
only chains of which no step can be left out; so (append, first) never comes from it.

Paper: Lake and Baroni 2018, "Generalization without Systematicity", arXiv:1711.00350: commands of
two parts, some pairs of which are held out (from memory).
Differs: the steps are done to lists, and their arguments depend on the steps before.

Chapter: 20
"""

import random
from collections.abc import Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from hashlib import sha256
from itertools import pairwise
from typing import final

from minillm.town.lists import OTHER, Item, draw_items
from minillm.town.request_words import N_WORDINGS, NUMBERS, SEEN_WORDINGS
from minillm.town.requests import BLOCK, COMBINATIONS, SEEN, SHARE_HELD_OUT, Combination
from minillm.town.steps import (
    KINDS,
    Argument,
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

MOST_STEPS = 3
MOST_ITEMS = len(NUMBERS["en"])  # before a step: further than that nobody counts
N_TRIES = 500  # until the steps that were drawn make sense together
Pair = tuple[str, str]
# How a later step is joined to the one before, in five wordings; the last is for evaluation.
THEN = {
    "en": ("Then {}", "Next, {}", "After that, {}", "And then {}", "When that is done, {}"),
    "zh": ("然后{}", "接着{}", "之后，{}", "接下来，{}", "做完以后，{}"),
}


def list_kinds(operation: str) -> tuple[str, ...]:
    """The kinds of argument with which an operation leaves a list and not one word.

    Example:
        >>> list_kinds("first"), list_kinds("count")
        (('number',), ())
    """
    return tuple(kind for kind in KINDS[operation] if not has_one_word(operation, kind))


# --- which pairs there are, and which are held out ----------------------------------------------
def _pairs() -> tuple[tuple[Pair, ...], frozenset[Pair]]:
    every, held = [], []
    steps = [operation for operation in KINDS if operation != "all"]
    for first in steps:
        own = [(first, second) for second in steps if list_kinds(first)]
        every += own
        own.sort(key=lambda pair: sha256("/".join(("chains", *pair)).encode()).digest())
        held += own[: round(SHARE_HELD_OUT * len(own))]
    return tuple(every), frozenset(held)


STEP_PAIRS, HELD_OUT_PAIRS = _pairs()
SEEN_PAIRS = tuple(pair for pair in STEP_PAIRS if pair not in HELD_OUT_PAIRS)


def step_pairs(steps: Sequence[Step]) -> tuple[Pair, ...]:
    """The operations of every two steps that follow each other.

    Example:
        >>> step_pairs([("reverse", ()), ("first", (2,)), ("count", ())])
        (('reverse', 'first'), ('first', 'count'))
    """
    names = [operation for operation, _ in steps]
    return tuple(pairwise(names))


# --- a chain ------------------------------------------------------------------------------------
@final
@dataclass(frozen=True)
class Chain:
    """A request of several steps and its truth; `chain` puts one together.

    Args:
        steps: (operation, argument) of each.
        items: the list at the beginning.
        constraint: form of the answer.
        language: "en" or "zh".
        wording: of each step, with what joins it to the one before, and of the form; 0 to 4 each.
            That of the first step is that of the list, too.
        text: as it is said.
        answer: the right one.
    """

    steps: tuple[Step, ...]
    items: tuple[Item, ...]
    constraint: str
    language: str
    wording: tuple[int, ...]
    text: str
    answer: str

    @property
    def result(self) -> tuple[Item, ...]:
        """What the right answer names."""
        return carry_out(self.steps, self.items)

    @property
    def combination(self) -> Combination:
        """(operation, kind of argument, form) of the last step."""
        operation, argument = self.steps[-1]
        return operation, argument_kind(operation, argument), self.constraint


def carry_out(steps: Sequence[Step], items: tuple[Item, ...]) -> tuple[Item, ...]:
    """Do the steps one after the other.

    Args:
        steps: (operation, argument) of each.
        items: the list at the beginning.

    Returns:
        The list after the last step, or the one word of the answer.

    Raises:
        ValueError: an argument that is not on the list as it is then; a step that leaves nothing;
            a step other than the last that leaves one word; a list that has become too long.

    Example:
        >>> a, b, c = Item("plums", "李子"), Item("pears", "梨"), Item("buns", "小圆面包")
        >>> [item.english for item in carry_out([("reverse", ()), ("first", (2,))], (a, b, c))]
        ['buns', 'pears']
    """
    for number, (operation, argument) in enumerate(steps, 1):
        if len(items) > MOST_ITEMS:
            raise ValueError(
                f"before a step the list must have at most {MOST_ITEMS} items; step {number} "
                f"meets {len(items)}. Begin with a shorter list"
            )
        check_step(operation, argument, items)
        if number < len(steps) and has_one_word(operation, argument_kind(operation, argument)):
            raise ValueError(
                f"only the last of {len(steps)} steps may be answered in one word; step {number} "
                f"is {operation!r}. Put it last"
            )
        items = execute(operation, argument, items)
    return items


def needs_every_step(instruction: Chain) -> bool:
    """Whether leaving out any one step changes the result, or makes no sense.

    Example:
        >>> items = Item("plums", "李子"), Item("pears", "梨")
        >>> tea = ("append", (Item("tea", "茶"),))
        >>> [needs_every_step(chain([tea, last], items)) for last in (("count", ()), ("first", ()))]
        [True, False]
    """
    steps, result = instruction.steps, instruction.result
    for i in range(len(steps)):
        with suppress(ValueError):
            if carry_out(steps[:i] + steps[i + 1 :], instruction.items) == result:
                return False
    return True


def chain(
    steps: Iterable[Step],
    items: tuple[Item, ...],
    constraint: str = "commas",
    language: str = "en",
    wording: tuple[int, ...] | None = None,
) -> Chain:
    """Put a chained request into words and carry it out.

    Args:
        steps: (operation, argument) of two or three.
        items: the list.
        constraint: form of the answer.
        language: "en" or "zh".
        wording: of each step, and of the form; None for 0 everywhere.

    Raises:
        ValueError: too few steps or too many; "all" as a step; a form that the last step does not
            have; a language or wording that does not exist; what `carry_out` refuses.

    Example:
        >>> items = Item("plums", "李子"), Item("pears", "梨"), Item("buns", "小圆面包")
        >>> asked = chain([("reverse", ()), ("first", (2,))], items, "json")
        >>> asked.text
        'The list: plums, pears, buns. Turn the list around. Then give me the first two. As JSON.'
        >>> asked.answer
        '["buns", "pears"]'
    """
    steps = tuple(steps)
    wording = (0,) * (len(steps) + 1) if wording is None else wording
    names = [operation for operation, _ in steps]
    if not 2 <= len(steps) <= MOST_STEPS or "all" in names or language not in OTHER:
        raise ValueError(
            f'a chain has 2 to {MOST_STEPS} steps, none of them "all", and language en or zh; '
            f"got {', '.join(names) or 'none'} in {language!r}"
        )
    if len(wording) != len(steps) + 1 or not all(0 <= way < N_WORDINGS for way in wording):
        raise ValueError(
            f"wordings are 0 to {N_WORDINGS - 1}, one for each of {len(steps)} steps and one for "
            f"the form; got {wording}"
        )
    # 1. do the steps; whatever makes no sense is refused here
    result = carry_out(steps, items)
    combination = (names[-1], argument_kind(*steps[-1]), constraint)
    if combination not in COMBINATIONS:
        raise ValueError(f"no combination {combination}; COMBINATIONS has those that there are")
    # 2. a sentence a step, joined to the one before
    sentences = []
    for number, (operation, argument) in enumerate(steps):
        sentence = say_step(operation, argument, language, wording[number])
        if number:
            sentence = THEN[language][wording[number]].format(sentence[0].lower() + sentence[1:])
        sentences.append(sentence)
    text = put_together(sentences, items, constraint, language, wording)
    answer = write_result(result, constraint, language)
    return Chain(steps, items, constraint, language, wording, text, answer)


# --- chains without end -------------------------------------------------------------------------
def draw_step(
    rng: random.Random,
    operation: str,
    kind: str,
    items: tuple[Item, ...],
    others: Sequence[Item],
    gone: Sequence[Item] = (),
) -> Argument | None:
    """An argument for a step; None if the list is too short or too long for one.

    Args:
        rng: of what is drawn.
        operation: of the step.
        kind: of its argument.
        items: the list as it is before the step.
        others: what can be new to the list.
        gone: what earlier steps took from it. "contains" asks for one of these, if there is one:
            nobody knows the answer who has not done the steps.

    Example:
        >>> draw_step(random.Random(0), "skip", "number", (Item("plums", "李子"),), ()) is None
        True
    """
    pairs = ("swap", "after", "before", "all-but", "without")
    fewest = 3 if kind == "number" else 2 if operation in pairs else 1
    if not fewest <= len(items) <= MOST_ITEMS:
        return None
    new = gone if operation == "contains" and gone else others
    return draw_argument(rng, operation, kind, items, new)


@final
@dataclass(frozen=True)
class ChainSource:
    """Chained requests without end, in blocks of 64; no step of theirs can be left out.

    Args:
        world: the town, whose goods and famous people stand on the lists.
        language: "en" or "zh"; one seed asks for the same in both.

    Raises:
        ValueError: another language.

    Example:
        >>> asked = ChainSource(World()).block(0)[0]
        >>> len(asked.steps), needs_every_step(asked), step_pairs(asked.steps)[0] in SEEN_PAIRS
        (2, True, True)
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
        n_steps: int = 2,
        pairs: Iterable[Pair] = SEEN_PAIRS,
        combinations: Sequence[Combination] = SEEN,
        wordings: Sequence[int] = SEEN_WORDINGS,
    ) -> list[Chain]:
        """The 64 chains number 64·index to 64·index + 63 of a stream.

        Args:
            index: 0, 1, 2, …
            seed: another seed, another stream.
            n_steps: of each chain, 2 or 3.
            pairs: of operations that may follow each other; `HELD_OUT_PAIRS` for evaluation.
            combinations: that the last step and the form may be.
            wordings: to draw from.

        Raises:
            ValueError: a negative index; nothing to draw from; pairs of which no chain comes.
        """
        if index < 0 or not 2 <= n_steps <= MOST_STEPS or not wordings:
            raise ValueError(
                f"index must be at least 0, n_steps 2 to {MOST_STEPS}, with wordings to draw "
                f"from; got {index}, {n_steps} and {len(wordings)}"
            )
        rng = random.Random(f"chains/{self.world.seed}/{seed}/{n_steps}/{index}")
        some = sorted(pairs)
        return [self.draw(rng, n_steps, some, combinations, wordings) for _ in range(BLOCK)]

    def draw(
        self,
        rng: random.Random,
        n_steps: int = 2,
        pairs: Sequence[Pair] = SEEN_PAIRS,
        combinations: Sequence[Combination] = SEEN,
        wordings: Sequence[int] = SEEN_WORDINGS,
    ) -> Chain:
        """One chain; see `block`.

        Args:
            rng: of all that is drawn.
            n_steps: how many.
            pairs: of operations that may follow each other.
            combinations: that the last step and the form may be.
            wordings: to draw from.

        Raises:
            ValueError: none of the pairs makes a chain of which every step is needed.
        """
        for _ in range(N_TRIES):
            parts = self._draw(rng, n_steps, pairs, combinations)
            if parts is None:
                continue
            items, form, steps = parts
            ways = [rng.choice(wordings) for _ in range(n_steps + 1)]
            if form == "commas" and has_one_word(steps[-1][0], argument_kind(*steps[-1])):
                ways[-1] = 0  # nothing to put between
            with suppress(ValueError):
                request = chain(steps, items, form, self.language, tuple(ways))
                if needs_every_step(request):
                    return request
        raise ValueError(
            f"{N_TRIES} draws gave no chain of {n_steps} steps that are all needed; give more "
            f"pairs and combinations; got {list(pairs)[:3]} … and {list(combinations)[:3]} …"
        )

    def _draw(
        self,
        rng: random.Random,
        n_steps: int,
        pairs: Sequence[Pair],
        combinations: Sequence[Combination],
    ) -> tuple[tuple[Item, ...], str, list[Step]] | None:
        """A list, a form, and steps for them; None where they do not fit together."""
        # 1. the operations: the first of all, then what may follow
        names = [rng.choice(list(dict.fromkeys(first for first, _ in pairs)))]
        while len(names) < n_steps:
            after = [second for first, second in pairs if first == names[-1]]
            if not after:
                return None
            names.append(rng.choice(after))
        # 2. the kinds of their arguments, and the form
        ends = [each for each in combinations if each[0] == names[-1]]
        if not ends:
            return None
        _, end, form = rng.choice(ends)
        kinds = [rng.choice(list_kinds(each) or ("",)) for each in names[:-1]]
        if "" in kinds:
            return None
        # 3. the arguments, each for the list as it is then
        start, others = draw_items(self.world, rng)
        items, steps = start, []
        for operation, kind in zip(names, (*kinds, end), strict=True):
            new = [each for each in others if each not in items]
            gone = [each for each in start if each not in items]
            argument = draw_step(rng, operation, kind, items, new, gone)
            if argument is None:
                return None
            steps.append((operation, argument))
            items = execute(operation, argument, items)
        return start, form, steps
