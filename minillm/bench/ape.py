"""`minillm bench ape`: instructions that a model writes from examples, beside those of people.

The follower is `chat-1m`, which carries requests out. The proposer is tuned from it, to say what
was asked (`minillm.tune.induce`), in English and on combinations that are not held out. Then there
are tasks: half of them with combinations that neither has met.
For each task

    16 demonstrations    the proposer writes 32 proposals, each from a draw of 3 of them; then they
                         are scored on the same 16, by execution accuracy and by log-probability
    20 other lists       only for judging: what is measured below

is told of the chosen instruction

    equal in meaning     read back by the town's grammar, it gives the right answer on all 20 lists
    accuracy             how many of the 20 the follower answers exactly, beside the five wordings
                         in which the town's people ask for the same (`request_words`)

Beside it stand a proposal at random (the share of all different ones that are equal in meaning),
the one that was written most often, and whether there was a right one among them at all: no choice
can do better than that. List and instruction are joined in the same way for all.

Paper: Zhou et al. 2022, arXiv:2211.01910, section 4.1: 24 tasks, instructions of people, choice by
execution accuracy and by log-probability (from memory).
Differs: tasks, models and sizes; meaning is judged by an executor.

Chapter: app
"""

import random
import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import cache, partial
from pathlib import Path
from statistics import fmean, median
from typing import Any, final

from minillm.bench import _tuned
from minillm.bench._run import Finished
from minillm.lab.track import track
from minillm.measure.evaluate import Score
from minillm.model.transformer import Transformer
from minillm.serve.template import Encoder
from minillm.town.lists import MOST, N_PEOPLE, Item
from minillm.town.request_words import FORMS, N_WORDINGS, OPERATIONS
from minillm.town.requests import HELD_OUT, SEEN, Request, ask
from minillm.town.steps import (
    KINDS,
    Argument,
    Step,
    argument_kind,
    check_step,
    execute,
    has_one_word,
    say_argument,
    write_result,
)
from minillm.town.world import World
from minillm.tune import induce
from minillm.tune.sft import SFTConfig, fine_tune
from minillm.zoo import checkpoints

FOLLOWER, SEEDS = "chat-1m", (0, 1, 2)
SCORES = {"accuracy": induce.execution_accuracy, "log_prob": induce.log_prob}
LANGUAGE = "en"


@final
@dataclass(frozen=True, kw_only=True)
class Size:
    """How much is learned and measured.

    Args:
        n_tasks: of a seed, half of them of held-out combinations.
        n_proposals: written for a task, equal ones too.
        n_demonstrations: of a task.
        n_fresh: other lists to judge on.
        n_examples: for the proposer.
        n_steps: of its tuning.
    """

    n_tasks: int = 24
    n_proposals: int = 32
    n_demonstrations: int = 16
    n_fresh: int = 20
    n_examples: int = 6000
    n_steps: int = 200


QUICK = Size(
    n_tasks=2,
    n_proposals=4,
    n_demonstrations=4,
    n_fresh=2,
    n_examples=64,
    n_steps=2,
)


def run(
    *, quick: bool = False, base: Path | None = None, finished: Finished | None = None
) -> dict[str, Any]:
    """Measure, and print the tables.

    Args:
        quick: two tasks and hardly any tuning; its figures mean nothing.
        base: folder of the follower, from which the proposer is tuned; None for `chat-1m`.
        finished: results that are there already.

    Returns:
        "tasks", a row each (`measure`); "shares", of each group of tasks and way to choose.
    """
    finished = Finished() if finished is None else finished
    size, seeds = (QUICK, SEEDS[:1]) if quick else (Size(), SEEDS)
    opened = _tuned.open_base(checkpoints.folder(FOLLOWER) if base is None else base)
    world = World()
    rows = []
    for seed in seeds:
        both = cache(partial(tune, opened, world, size, seed))  # only if a task is not finished
        for number, task in enumerate(track(tasks(world, size, seed), f"seed {seed}")):
            one = partial(measure, both, opened.tokenizer, world, task, size, seed)
            rows.append({"seed": seed} | finished(f"seed {seed}, task {number}", one))
    figures = {"tasks": rows, "shares": shares(rows)}
    _print(figures)
    return figures


def tune(base: _tuned.Base, world: World, size: Size, seed: int) -> tuple[Transformer, Transformer]:
    """The follower and the proposer.

    Args:
        base: the follower.
        world: whose goods and people stand on the lists.
        size: how much.
        seed: of examples and their order.
    """
    backward = induce.reversed_examples(world, base.tokenizer, size.n_examples, seed=seed)
    config = SFTConfig(n_steps=size.n_steps, seed=seed)
    return base.model, fine_tune(base.model, backward, config)


# --- one task -----------------------------------------------------------------------------------
def tasks(world: World, size: Size, seed: int) -> list[Request]:
    """A request of each combination that is drawn; the first half are held out."""
    rng = random.Random(f"ape/{seed}")
    half = size.n_tasks // 2
    drawn = rng.sample(sorted(HELD_OUT), half) + rng.sample(SEEN, size.n_tasks - half)
    return [induce.draw_request(world, rng, each, language=LANGUAGE) for each in drawn]


def measure(
    both: Callable[[], tuple[Transformer, Transformer]],
    tokenizer: Encoder,
    world: World,
    task: Request,
    size: Size,
    seed: int,
) -> dict[str, Any]:
    """Propose, choose in two ways, judge.

    Args:
        both: gives follower and proposer.
        tokenizer: of both.
        world: whose goods and people stand on the lists.
        task: what is to be shown by demonstrations.
        size: how much.
        seed: of all that is drawn.
    """
    follower, proposer = both()
    rng = random.Random(f"ape/{seed}/{task.text}")
    n = size.n_demonstrations + size.n_fresh
    every = induce.on_other_lists(task, world, rng, n)
    fresh = every[size.n_demonstrations :]
    shown = [induce.demonstration(each) for each in every[: size.n_demonstrations]]
    # 1. proposals; if none came, an empty one, which asks for nothing
    proposals = induce.propose(proposer, tokenizer, shown, size.n_proposals, seed=seed) or [""]
    right = [is_right(each, fresh, world) for each in proposals]
    # 2. choice
    chosen = {"frequent": proposals[0]}
    for name, score in SCORES.items():
        candidates = induce.induce(proposals, shown, partial(score, follower, tokenizer))
        chosen[name] = candidates[0].instruction
    # 3. on fresh lists, together with the wordings of people
    instructions = [*chosen.values(), *human_wordings(task)]
    accuracies = induce.execution_accuracy(
        follower, tokenizer, instructions, [induce.demonstration(each) for each in fresh]
    )
    return {
        "combination": "/".join(task.combination),
        "held_out": task.combination in HELD_OUT,
        "instruction": induce.instruction_of(task),
        "n_proposals": len(proposals),
        "random": fmean(right),
        "any": any(right),
        "human": accuracies[len(chosen) :],
    } | {
        name: {
            "instruction": text,
            "right": right[proposals.index(text)],
            "accuracy": accuracies[number],
        }
        for number, (name, text) in enumerate(chosen.items())
    }


def human_wordings(task: Request) -> list[str]:
    """The five ways in which the town's people ask for it.

    Example:
        >>> items = Item("plums", "李子"), Item("pears", "梨")
        >>> human_wordings(ask("reverse", (), items, "json"))[:2]
        ['Turn the list around. As JSON.', 'Say them backwards. In JSON.']
    """
    kind = task.combination[1]
    is_plain = has_one_word(task.operation, kind) and task.constraint == "commas"
    return [
        induce.instruction_of(
            ask(
                task.operation,
                task.argument,
                task.items,
                task.constraint,
                task.language,
                (way, 0 if is_plain else way),
            )
        )
        for way in range(N_WORDINGS)
    ]


# --- meaning ------------------------------------------------------------------------------------
Reading = tuple[str, Argument, str]


def is_right(instruction: str, requests: Sequence[Request], world: World) -> bool:
    """Whether an instruction, however it is spelled, gives the right answer to all requests.

    Args:
        instruction: of the town's language: an operation and a form, in any of their wordings.
        requests: other lists, with their right answers.
        world: whose goods and people may be named.

    Example:
        >>> items = Item("plums", "李子"), Item("pears", "梨"), Item("buns", "小圆面包")
        >>> requests = [ask("nth", (1,), each) for each in (items, items[::-1])]
        >>> is_right("Name the first.", requests, World()), is_right("Count.", requests, World())
        (True, False)
    """
    return any(
        all(_answer(reading, request) == request.answer for request in requests)
        for reading in readings(instruction, requests[0].language, world)
    )


def readings(instruction: str, language: str, world: World) -> list[Reading]:
    """What an instruction may mean: operation, argument, form; nothing if it is no instruction.

    Args:
        instruction: in words.
        language: "en" or "zh".
        world: whose goods and people may be named.

    Example:
        >>> readings("Give me the last two. Use JSON.", "en", World())
        [('last', (2,), 'json')]
    """
    every: list[Reading] = []
    for form, endings in FORMS[language].items():
        for ending in sorted(set(endings)):
            if instruction.endswith(ending):
                sentence = instruction.removesuffix(ending).strip()
                every += [(*step, form) for step in _steps(sentence, language, world)]
    return every


def _steps(sentence: str, language: str, world: World) -> Iterator[Step]:
    """What a sentence asks to be done: operation and argument."""
    for operation, templates in OPERATIONS[language].items():
        phrases = _phrases(operation, language, world)
        for template in templates:
            match = _pattern(template).fullmatch(sentence)
            if match is None:
                continue
            parts = [phrases.get(text) for _, text in sorted(match.groupdict().items())]
            if None in parts:
                continue
            argument = tuple(x for part in parts for x in part)
            if _fits(operation, argument):
                yield operation, argument


@cache
def _pattern(template: str) -> re.Pattern:
    """A wording, with a group for each of its blanks."""
    return re.compile(re.sub(r"\\\{([xy])\\\}", r"(?P<\1>.+?)", re.escape(template)))


@cache
def _phrases(operation: str, language: str, world: World) -> dict[str, Argument]:
    """What may stand in a blank, and what it means."""
    people = [Item(each.name, each.chinese) for each in world.people[:N_PEOPLE]]
    items = people + [Item(each.general, each.chinese) for each in world.goods]
    values: dict[str, list[Argument]] = {
        "none": [()] if operation in ("first", "last") else [],
        "item": [(item,) for item in items],
        "number": [(n,) for n in range(2, MOST + 1)],
        "ordinal": [(n,) for n in range(1, MOST + 1)],
    }
    return {
        say_argument(operation, argument, language)[0]: argument
        for kind in (*KINDS[operation], *(["item"] if operation == "replace" else []))
        for argument in values[kind]
    }


def _fits(operation: str, argument: Argument) -> bool:
    """Whether the operation can have such an argument; "swap plums and the second" is none."""
    same = len({isinstance(x, Item) for x in argument}) < 2
    new = operation == "replace"
    return argument_kind(operation, argument) in KINDS[operation] and (
        isinstance(argument[1], Item) if new else same
    )


def _answer(reading: Reading, request: Request) -> str | None:
    """What an instruction gives on a request's list; None if it makes no sense there."""
    operation, argument, form = reading
    try:
        check_step(operation, argument, request.items)
    except ValueError:
        return None
    return write_result(execute(operation, argument, request.items), form, request.language)


# --- the tables ---------------------------------------------------------------------------------
def shares(rows: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """For each group of tasks and way to choose: equal in meaning, and as good as people.

    Args:
        rows: of `measure`.
    """
    groups = {
        "all": rows,
        "seen": [row for row in rows if not row["held_out"]],
        "held out": [row for row in rows if row["held_out"]],
    }
    lines = []
    for group, some in groups.items():
        for name in ("frequent", *SCORES):
            right = Score(sum(row[name]["right"] for row in some), len(some))
            good = [row[name]["accuracy"] >= median(row["human"]) for row in some]
            lines.append(
                {
                    "group": group,
                    "choice": name,
                    "n_tasks": len(some),
                    "right": right.share,
                    "interval": list(right.interval),
                    "as_good_as_people": fmean(good),
                    "accuracy": fmean(row[name]["accuracy"] for row in some),
                    "human": fmean(median(row["human"]) for row in some),
                    "random": fmean(row["random"] for row in some),
                    "any": fmean(row["any"] for row in some),
                }
            )
    return lines


def _print(figures: dict[str, Any]) -> None:
    print("equal in meaning: of the chosen proposal, of one at random, and whether there is one")
    print(
        f"{'tasks':9}  {'chosen by':9}  {'right':>19}  random   any   accuracy  people  >= people"
    )
    for line in figures["shares"]:
        low, high = line["interval"]
        print(
            f"{line['group']:9}  {line['choice']:9}  {line['right']:6.1%} ({low:4.0%}–{high:4.0%})"
            f"  {line['random']:6.1%}  {line['any']:5.1%}  {line['accuracy']:8.1%}"
            f"  {line['human']:6.1%}  {line['as_good_as_people']:6.1%}"
        )
