"""`minillm bench evolve`: is a model better tuned on evolved instructions than on their seeds?

`chat-1m`, which follows requests of one step, is tuned on with as many examples and as many steps,
in four ways, three seeds each:

    seeds      3,000 requests of one step, as the town gives them
    evolved    750 of these, and what `minillm.tune.evolve` makes of them until there are 3,000
    kept       the same without elimination: only what cannot be done is missing
    drawn      3,000 requests, of which as many have one, two and three steps as in *evolved*, but
               drawn as they are. If these do as well, it is not the evolving that helps, but that
               there are harder examples

Two tests, of 256 English requests each: *hard*, two steps whose operations are a held-out pair, and
neither of which can be left out; *easy*, one step, of a held-out combination. Wrong answers to the
hard ones are told apart: the right words in another form, the answer to the first step alone, that
to the second step alone.

Paper: Xu et al. 2023, "WizardLM", arXiv:2304.12244: people who compare answers to instructions of
all difficulties prefer WizardLM's to ChatGPT's where these are hardest (abstract).
Differs: there a base is tuned. The seeds are Alpaca's 52,000, evolved to 250,000; the models have
billions of parameters, and their answers are compared by people and by a model. Our control,
*drawn*, has no counterpart there, because nobody can draw hard instructions of that kind.

Chapter: app
"""

from collections import Counter
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import replace
from functools import partial
from itertools import count, islice
from statistics import fmean
from typing import Any

from minillm.bench._run import Finished
from minillm.bench._tuned import (
    QUESTIONS,
    Base,
    conversation,
    conversations,
    counts,
    gains,
    open_base,
    some,
)
from minillm.lab.track import track
from minillm.measure.evaluate import Score
from minillm.town.chains import HELD_OUT_PAIRS, Chain, ChainSource
from minillm.town.requests import HELD_OUT, ask, grade
from minillm.town.steps import Instruction
from minillm.town.world import World
from minillm.tune import chat
from minillm.tune.evolve import evolve
from minillm.zoo import checkpoints

START, N_EXAMPLES, N_STEPS = "chat-1m", 3000, 90
SEEDS_AMONG = 4  # one in 4 examples of the evolved is a seed
ARMS = ("seeds", "evolved", "kept", "drawn")
OUTCOMES = ("right", "other form", "first step alone", "last step alone", "no end", "else")


def run(
    *, quick: bool = False, finished: Finished | None = None, base: Base | None = None
) -> dict[str, Any]:
    """Measure, and print the tables.

    Args:
        quick: 2 steps, one seed, few questions; its figures mean nothing.
        finished: results that are there already.
        base: to tune; None for `chat-1m`.

    Returns:
        "rows", one a seed and way: scores, outcomes of the hard test, and what the examples are;
        "means", of each way the share of right answers; "gains", of the evolved over each other.

    Raises:
        ValueError: there is no base.
    """
    finished = Finished() if finished is None else finished
    if base is None:
        start = open_base(checkpoints.folder(START))
        base = replace(start, n_examples=N_EXAMPLES, n_steps=N_STEPS)
    base = base.quick() if quick else base
    rows = [
        finished(f"{arm}, seed {seed}", partial(measure, base, arm, seed))
        for seed in track(base.seeds, "evolve")
        for arm in ARMS
    ]
    figures = {"rows": rows} | conclude(rows)
    _print(figures)
    return figures


# --- what is learned, and what is asked ---------------------------------------------------------
def chains(n: int, seed: int | str, **how: Any) -> list[Chain]:
    """The first n chained requests of a stream, in English.

    Args:
        n: how many.
        seed: of the stream.
        how: see `minillm.town.chains.ChainSource.block`.
    """
    source = ChainSource(World())
    blocks = (source.block(index, seed, **how) for index in count())
    return list(islice((each for block in blocks for each in block), n))


def examples(base: Base, arm: str, seed: int) -> tuple[list[Instruction], dict[str, Any]]:
    """What one way tunes on, and what there is to tell of it.

    Args:
        base: whose tokenizer and context say what is too long.
        arm: one of `ARMS`.
        seed: of all that is drawn.

    Returns:
        `base.n_examples` instructions; "steps", how many have one, two and three steps, and of
        evolved ones "origins" and "eliminated".
    """
    n = base.n_examples
    singles = some(n, seed)
    if arm == "seeds":
        return singles, {"steps": _by_steps(singles)}

    def is_too_long(one: Instruction) -> bool:
        ids = chat.example(conversation(one.text, one.answer), base.tokenizer).ids
        return len(ids) > base.model.config.context_length + 1

    evolution = evolve(
        singles[: n // SEEDS_AMONG],
        World(),
        n=n,
        seed=seed,
        eliminate=arm != "kept",
        is_too_long=is_too_long,
    )
    steps = _by_steps(evolution.instructions)
    if arm == "drawn":
        requests: list[Instruction] = singles[: steps["1"]]
        for n_steps in (2, 3):
            requests += chains(steps.get(str(n_steps), 0), seed, n_steps=n_steps)
        return requests, {"steps": _by_steps(requests)}
    about = {"origins": Counter(evolution.origins), "eliminated": evolution.eliminated}
    return list(evolution.instructions), {"steps": steps} | about


def _by_steps(instructions: Sequence[Instruction]) -> dict[str, int]:
    """How many have one step, two, three; as JSON has its keys."""
    numbers = Counter(len(each.steps) for each in instructions)
    return {str(n_steps): numbers[n_steps] for n_steps in sorted({1, *numbers})}


def outcome(request: Chain, answer: str) -> str:
    """What an answer to two steps is, one of `OUTCOMES`.

    Args:
        request: of two steps.
        answer: the model's; empty where it came to no end.

    Example:
        >>> from minillm.town.chains import Item, chain
        >>> items = Item("plums", "李子"), Item("pears", "梨"), Item("buns", "小圆面包")
        >>> two = chain([("reverse", ()), ("first", (2,))], items)
        >>> [outcome(two, text) for text in ("buns, pears", "plums, pears", "(buns, pears)", "")]
        ['right', 'last step alone', 'other form', 'no end']
    """
    if not answer:
        return "no end"
    if grade(request, answer).content:
        return "right" if grade(request, answer).right else "other form"
    for step, name in zip(request.steps, ("first step alone", "last step alone"), strict=True):
        with suppress(ValueError):  # a last step that cannot be done to the list as it was
            alone = ask(*step, request.items, request.constraint, request.language)
            if grade(alone, answer).content:
                return name
    return "else"


def measure(base: Base, arm: str, seed: int) -> dict[str, Any]:
    """Tune in one way, and ask both tests.

    Args:
        base: to tune.
        arm: one of `ARMS`.
        seed: of the examples, and of their order.
    """
    instructions, about = examples(base, arm, seed)
    tuned = base.tune(conversations(instructions), seed=seed)
    hard = base.ask(tuned, chains(base.n_questions, QUESTIONS, pairs=HELD_OUT_PAIRS))
    easy = base.ask(tuned, some(base.n_questions, QUESTIONS, combinations=sorted(HELD_OUT)))
    pairs = zip(hard.questions, hard.answers, strict=True)
    outcomes = Counter(outcome(*pair) for pair in pairs)
    return {
        "arm": arm,
        "seed": seed,
        "hard": counts(hard),
        "easy": counts(easy),
        "outcomes": {name: outcomes[name] for name in OUTCOMES},
    } | about


# --- the tables ---------------------------------------------------------------------------------
def conclude(rows: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """The means of each way, and what the evolved gain over each other way, seed by seed.

    Args:
        rows: of `measure`; of every way the same seeds, in the same order.
    """
    shares = {
        test: {arm: [Score(**row[test]).share for row in rows if row["arm"] == arm] for arm in ARMS}
        for test in ("hard", "easy")
    }
    return {
        "means": {test: {arm: fmean(s) for arm, s in by.items()} for test, by in shares.items()},
        "gains": {
            test: {arm: gains(by["evolved"], by[arm]) for arm in ARMS if arm != "evolved"}
            for test, by in shares.items()
        },
    }


def _print(figures: dict[str, Any]) -> None:
    print(f"\n{'right answers':14}  {'hard':>6}  {'easy':>6}  evolved over it, hard and easy")
    for arm in ARMS:
        cells = [f"{figures['means'][test][arm]:6.1%}" for test in ("hard", "easy")]
        over = [figures["gains"][test].get(arm) for test in ("hard", "easy")]
        cells += [f"{100 * each['mean']:+6.1f}" for each in over if each]
        print(f"{arm:14}  {'  '.join(cells)}")
    print(f"\n{'hard test, all seeds':20}  {'  '.join(f'{name:>16}' for name in OUTCOMES)}")
    for arm in ARMS:
        mine = [row["outcomes"] for row in figures["rows"] if row["arm"] == arm]
        n = sum(sum(each.values()) for each in mine)
        cells = [f"{sum(each[name] for each in mine) / n:16.1%}" for name in OUTCOMES]
        print(f"{arm:20}  {'  '.join(cells)}")
    print("\nexamples")
    for row in figures["rows"]:
        parts = [
            f"{each} {row[key][each]:,}"
            for key in ("steps", "origins", "eliminated")
            for each in row.get(key, ())
        ]
        print(f"{row['arm']:8} seed {row['seed']}  {', '.join(parts)}")
