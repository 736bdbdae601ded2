"""Evol-Instruct (指令进化): harder instructions from easy ones, and the failures thrown out.

    seed        The list: plums, pears, buns. Turn the list around.
    constrain   The list: plums, pears, buns. Turn the list around. As JSON.
    deepen      The list: plums, pears, buns. Turn the list around. Next, name the first. As JSON.

Instructions that people write, or that a model writes in one go, are mostly easy. Evol-Instruct
begins with those as a pool and goes round: each instruction of the last round is changed a little
by one way of changing, drawn at random. What comes out joins the pool and is changed in the next
round. What fails is thrown out, and the instruction it came from is tried again.

*In depth* (深度进化) an instruction becomes harder. The paper's five ways, and ours for requests:

    add constraints             constrain    another form of the answer
    concretizing                concretise   a more particular argument: a number where there was
                                             none, the third where an item was named
    deepening, more reasoning   deepen       one more step
    steps, complicate input

*In breadth* (广度进化) it is the model for a new one: `broaden` asks something else of another
list. *Elimination* (淘汰) throws out an evolved instruction that brings nothing new (the answer is
the same), that cannot be answered, that is a copy, or that is too long.

Paper: Xu et al. 2023, "WizardLM: Empowering Large Language Models to Follow Complex Instructions",
arXiv:2304.12244, section 3 (its number from memory).
Differs: there a language model writes the evolved instruction, and then its answer; here a program
does both, so every answer is right, and nothing is lost by a model that misunderstands its prompt.
What evolves is a request on a list, not any text. Of the paper's four signs of a failure, one needs
a model as a judge (no information gain; here: the same list and the same answer) and three are
signs of a model that did not manage (it is sorry, it answers in stop words, it copies words of the
prompt for evolving); here what cannot be carried out, copies, and length stand for these. One way,
`deepen`, stands for three of the paper's. Held-out pairs and combinations never come up, because
the town's requests are also its exam.

Chapter: 20
"""

import random
from collections import Counter
from collections.abc import Callable, Mapping, Sequence, Set
from dataclasses import dataclass
from typing import Any, final

from minillm.town.chains import (
    MOST_STEPS,
    SEEN_PAIRS,
    ChainSource,
    carry_out,
    chain,
    draw_step,
    list_kinds,
    step_pairs,
)
from minillm.town.lists import Item, draw_items
from minillm.town.request_words import SEEN_WORDINGS
from minillm.town.requests import SEEN, RequestSource, ask
from minillm.town.steps import KINDS, Instruction, Step, argument_kind, has_one_word
from minillm.town.world import World

Operator = Callable[[Instruction, random.Random, World], Instruction | None]
#: Why an evolved instruction is thrown out.
REASONS = ("cannot be done", "same text", "same answer", "in the pool", "too long")
MORE_PARTICULAR = {"none": "number", "item": "ordinal"}
N_TRIES = 50  # to draw a list of the same kind: of goods, or of people


# --- in depth -----------------------------------------------------------------------------------
def deepen(request: Instruction, rng: random.Random, world: World) -> Instruction | None:
    """One step more: behind the last one, or before it where that is answered in one word.

    The operations of steps that follow each other are a pair that is not held out, and the last
    step and the form a combination that is not held out.

    Args:
        request: of one step or two.
        rng: of what is drawn.
        world: whose goods and people may come onto the list.

    Returns:
        The harder one. None if it would have too many steps; if its only step is "all", to which
        nothing can be joined; if the step that was drawn cannot be done.

    Example:
        >>> easy = ask("reverse", (), (Item("plums", "李子"), Item("eggs", "茶叶蛋")))
        >>> deepen(easy, random.Random(3), World()).text
        'The list: plums, eggs. Turn the list around. And then repeat the last only.'
    """
    steps, items = request.steps, request.items
    operation, argument = steps[-1]
    one_word = has_one_word(operation, argument_kind(operation, argument))
    at = len(steps) - one_word
    # 1. an operation, and the kind of its argument
    if one_word:
        choices = [(each, kind) for each in KINDS for kind in list_kinds(each)]
    else:
        choices = [(each, kind) for each, kind, form in SEEN if form == request.constraint]
    names = [each for each, _ in steps]
    names = [
        each
        for each in dict.fromkeys(each for each, _ in choices)
        if _is_seen([*names[:at], each, *names[at:]])
    ]
    if len(steps) == MOST_STEPS or not names:
        return None
    name = rng.choice(names)
    kind = rng.choice([kind for each, kind in choices if each == name])
    # 2. its argument, for the list as it is there
    before = carry_out(steps[:at], items)
    new = [each for each in _stock(items[0], rng, world) if each not in (*items, *before)]
    gone = [each for each in items if each not in before]
    argument = draw_step(rng, name, kind, before, new, gone) if new else None
    if argument is None:
        return None
    ways = (*request.wording[:at], rng.choice(SEEN_WORDINGS), *request.wording[at:])
    return _build(request, (*steps[:at], (name, argument), *steps[at:]), wording=ways)


def constrain(request: Instruction, rng: random.Random, world: World) -> Instruction | None:
    """Another form of the answer, drawn from those that its last step may have.

    Args:
        request: any.
        rng: of what is drawn.
        world: not looked at.

    Returns:
        The same steps on the same list; None if there is no other form that is not held out.

    Example:
        >>> easy = ask("reverse", (), (Item("plums", "李子"), Item("pears", "梨")))
        >>> constrain(easy, random.Random(0), World()).text
        'The list: plums, pears. Turn the list around. Put numbers in front.'
    """
    operation, argument = request.steps[-1]
    here = (operation, argument_kind(operation, argument))
    forms = [form for *other, form in SEEN if (*other,) == here and form != request.constraint]
    if not forms:
        return None
    ways = (*request.wording[:-1], rng.choice(SEEN_WORDINGS))
    return _build(request, request.steps, constraint=rng.choice(forms), wording=ways)


def concretise(request: Instruction, rng: random.Random, world: World) -> Instruction | None:
    """A more particular argument of one step: a number for none, or an ordinal for an item.

    Args:
        request: any.
        rng: of what is drawn.
        world: whose goods and people may come onto the list.

    Returns:
        The same operations on the same list; None if no step has such an argument.

    Example:
        >>> plums, eggs = Item("plums", "李子"), Item("eggs", "茶叶蛋")
        >>> easy = ask("swap", (plums, eggs), (plums, eggs))
        >>> concretise(easy, random.Random(0), World()).text
        'The list: plums, eggs. Swap the first and the second.'
    """
    steps, items = request.steps, request.items
    choices = []
    for i, (operation, argument) in enumerate(steps):
        kind = MORE_PARTICULAR.get(argument_kind(operation, argument))
        is_seen = i < len(steps) - 1 or (operation, kind, request.constraint) in SEEN
        if kind in KINDS[operation] and is_seen:
            choices.append((i, operation, kind))
    if not choices:
        return None
    i, operation, kind = rng.choice(choices)
    before = carry_out(steps[:i], items)
    new = [each for each in _stock(items[0], rng, world) if each not in (*items, *before)]
    argument = draw_step(rng, operation, kind, before, new) if new else None
    if argument is None:
        return None
    return _build(request, (*steps[:i], (operation, argument), *steps[i + 1 :]))


# --- in breadth ---------------------------------------------------------------------------------
def broaden(request: Instruction, rng: random.Random, world: World) -> Instruction:
    """Something else of another list, in as many steps.

    Args:
        request: any.
        rng: of what is drawn.
        world: whose goods and people stand on the list.

    Example:
        >>> easy = ask("reverse", (), (Item("plums", "李子"), Item("pears", "梨")))
        >>> broaden(easy, random.Random(0), World()).text
        'A list: Bean, Mei, Ruimu. Write Jun after the rest. Answer in Chinese.'
    """
    n_steps = len(request.steps)
    if n_steps == 1:
        return RequestSource(world, request.language).draw(rng)
    return ChainSource(world, request.language).draw(rng, n_steps)


OPERATORS: tuple[Operator, ...] = (deepen, constrain, concretise, broaden)


def _is_seen(names: Sequence[str]) -> bool:
    return all(pair in SEEN_PAIRS for pair in step_pairs([(name, ()) for name in names]))


def _stock(item: Item, rng: random.Random, world: World) -> tuple[Item, ...]:
    """All that can stand on a list beside an item: goods beside goods, people beside people."""
    for _ in range(N_TRIES):
        stock = sum(draw_items(world, rng), ())
        if item in stock:
            return stock
    return ()


def _build(request: Instruction, steps: Sequence[Step], **changes: Any) -> Instruction | None:
    """The request with other steps; None if they cannot be done."""
    how = {key: getattr(request, key) for key in ("constraint", "language", "wording")} | changes
    if how["constraint"] == "commas" and has_one_word(steps[-1][0], argument_kind(*steps[-1])):
        how["wording"] = (*how["wording"][:-1], 0)  # nothing to put between
    try:
        if len(steps) == 1:
            return ask(*steps[0], request.items, **how)
        return chain(steps, request.items, **how)
    except ValueError:
        return None


# --- elimination, and the loop ------------------------------------------------------------------
def keep(
    evolved: Instruction | None,
    original: Instruction,
    texts: Set[str] = frozenset(),
    *,
    is_too_long: Callable[[Instruction], bool] | None = None,
) -> str | None:
    """Why an evolved instruction is thrown out, one of `REASONS`; None if it is kept.

    Args:
        evolved: None if nothing came of it.
        original: what it came from.
        texts: of the pool.
        is_too_long: whether it and its answer do not fit into the model's context; None if all do.

    Example:
        >>> items = Item("plums", "李子"), Item("pears", "梨")
        >>> keep(ask("nth", (2,), items), ask("last", (), items))
        'same answer'
    """
    if evolved is None:
        return "cannot be done"
    if evolved.text == original.text:
        return "same text"
    if (evolved.items, evolved.answer) == (original.items, original.answer):
        return "same answer"
    if evolved.text in texts:
        return "in the pool"
    if is_too_long is not None and is_too_long(evolved):
        return "too long"
    return None


@final
@dataclass(frozen=True, kw_only=True)
class Evolution:
    """What came of evolving.

    Args:
        instructions: the seeds, then the evolved ones in their order.
        origins: of each: "seed", or the name of the operator.
        eliminated: how many were thrown out, by reason.
    """

    instructions: tuple[Instruction, ...]
    origins: tuple[str, ...]
    eliminated: Mapping[str, int]


def evolve(
    seeds: Sequence[Instruction],
    world: World,
    *,
    n: int,
    seed: int = 0,
    operators: Sequence[Operator] = OPERATORS,
    eliminate: bool = True,
    is_too_long: Callable[[Instruction], bool] | None = None,
) -> Evolution:
    """Evolve instructions until the pool has n, the seeds among them.

    Args:
        seeds: to begin with.
        world: whose goods and people may come onto lists.
        n: how many there are to be in the end.
        seed: of all that is drawn.
        operators: ways of changing, all equally likely.
        eliminate: False keeps whatever can be carried out.
        is_too_long: see `keep`.

    Raises:
        ValueError: no seeds, or more than n; operators that bring nothing new in a whole round.

    Example:
        >>> items = Item("plums", "李子"), Item("pears", "梨")
        >>> evolve([ask("reverse", (), items)], World(), n=4).origins
        ('seed', 'deepen', 'deepen', 'broaden')
    """
    if not 0 < len(seeds) <= n or not operators:
        raise ValueError(
            f"there must be 1 to n = {n} seeds, and an operator; got {len(seeds)} and "
            f"{len(operators)}"
        )
    rng = random.Random(f"evolve/{seed}")
    pool, origins, eliminated = list(seeds), ["seed"] * len(seeds), Counter()
    texts = {each.text for each in seeds}
    newest, n_idle = list(seeds), 0
    while len(pool) < n:
        size = len(pool)
        # 1. each instruction of the last round is changed in one way
        for place, original in enumerate(newest):
            if len(pool) == n:
                break
            operator = rng.choice(operators)
            evolved = operator(original, rng, world)
            # 2. failures are thrown out; their originals are tried again in the next round
            reason = keep(evolved, original, texts, is_too_long=is_too_long)
            if evolved is None or (eliminate and reason):
                eliminated[reason] += 1
                continue
            # 3. the rest joins the pool, and stands for its original in the next round
            newest[place] = evolved
            pool.append(evolved)
            origins.append(operator.__name__)
            texts.add(evolved.text)
        n_idle = n_idle + 1 if len(pool) == size else 0
        if n_idle == N_TRIES:
            raise ValueError(
                f"{N_TRIES} rounds brought nothing new beyond {size} instructions; got operators "
                f"{[each.__name__ for each in operators]}. Give more of them, or more seeds"
            )
    return Evolution(instructions=tuple(pool), origins=tuple(origins), eliminated=dict(eliminated))
