"""`minillm bench toolformer`: which calls a small model keeps, and which of them are useful.

The judge is the shipped base (`town-base`), as it is; nothing is trained. It has read shop
arithmetic in two forms: answers at once, and answers after steps. The texts here are new ones, in
English: answers at once, letters and stories. In each, some positions are drawn: before the number
of the answer, before another number, before another word. At each position there are several calls
of a calculator, written as the steps are:

    right steps     the problem's own: 3 · 2 = 6, 4 · 5 = 20, 6 + 20 = 26
    other steps     as many, of numbers that stand in the text before the position

Letters and stories have no steps. They get those of a problem that is drawn.

Every result is right arithmetic. A call is **useful** if and only if its result is the number that
follows at the position. So most right steps are not useful where they stand: the first step of
three is the answer to nothing yet. Some other steps are useful by chance.

Calls stand in three places: as a **prefix** before the text, as in the paper; **inline**, at the
position itself; and before the **sentence** of the position, which for an answer is where the model
has read steps.

precision   useful calls of the calls that are kept
recall      kept calls of the useful ones
possible    useful calls whose L⁻ reaches the threshold; no other useful call can be kept
guessing    useful calls of all, the precision of whoever keeps without looking

As a control the call alone is left out of L⁻, so a call may be kept for its words and not for its
result.

Paper: Schick et al. 2023, arXiv:2302.04761, section 2, see `minillm.agents.toolformer`.
Differs: theirs reports what a model learns from the kept calls. Here the kept calls themselves are
held against the truth, which a generated text has and a web page has not.

Chapter: app
"""

import random
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import islice
from typing import Any, final

from minillm.agents.toolformer import CallLosses, Candidate, call_losses
from minillm.bench._run import Finished
from minillm.lab.track import track
from minillm.town.letters import LetterSource
from minillm.town.market import LARGEST, MarketSource, Step
from minillm.town.stories import StorySource
from minillm.town.world import World
from minillm.zoo.checkpoints import load

MODEL = "town-base"
BEGIN = "<|endoftext|>"
PLACES = ("prefix", "inline", "sentence")
THRESHOLDS = (0.0, 0.05, 0.1, 0.2, 0.3, 0.5, 1.0)
N_TRIES = 20  # until an other step fits
_NUMBER = re.compile(r" \d+")
_WORD = re.compile(r" [A-Za-z]")
_SENTENCE_END = re.compile(r"[.!?:]\s")


@final
@dataclass(frozen=True, kw_only=True)
class Work:
    """How much is judged.

    Args:
        n_problems, n_others: answers at once; letters, and as many stories.
        seeds: of the texts.
    """

    n_problems: int = 64
    n_others: int = 16
    seeds: tuple[int, ...] = (0, 1, 2)


QUICK = Work(n_problems=2, n_others=1, seeds=(0,))


@final
@dataclass(frozen=True)
class Offer:
    """A step at a position of a text.

    Args:
        text: begins with the token that begins all.
        position: in characters, before a blank.
        step: of the calculator.
    """

    text: str
    position: int
    step: Step

    @property
    def useful(self) -> bool:
        """Whether the result is what follows.

        Example:
            >>> [Offer("pays 12.", 4, Step(3, "·", n)).useful for n in (4, 5)]
            [True, False]
        """
        follows = re.match(r" (\d+)", self.text[self.position :])
        return follows is not None and int(follows[1]) == self.step.result

    def candidate(self, place: str) -> Candidate:
        """The call in words that the model has read.

        Args:
            place: one of `PLACES`.

        Example:
            >>> offer = Offer(f"{BEGIN}Who pays? Answer: 12.", 30, Step(3, "·", 4))
            >>> for each in map(offer.candidate, PLACES):
            ...     print(each.before(each.with_result) + each.after)
            <|endoftext|>Steps: 3 · 4 = 12. Who pays? Answer: 12.
            <|endoftext|>Who pays? Answer: Steps: 3 · 4 = 12. 12.
            <|endoftext|>Who pays? Steps: 3 · 4 = 12. Answer: 12.
        """
        before = self.text[: self.position]
        ends = [match.end() for match in _SENTENCE_END.finditer(before)]
        index = {
            "prefix": len(BEGIN),
            "inline": self.position,
            "sentence": max(ends, default=len(BEGIN)),
        }[place]
        call = f"Steps: {self.step.left} {self.step.sign} {self.step.right}"
        calls = (f"{call}.", f"{call} = {self.step.result}.")
        alone, with_result = (f" {z}" if place == "inline" else f"{z} " for z in calls)
        return Candidate(
            text=self.text,
            position=self.position,
            call=alone,
            with_result=with_result,
            place=index,
        )


def offers(work: Work, seed: int) -> list[Offer]:
    """All steps at all positions of all texts of a seed."""
    rng = random.Random(f"toolformer/{seed}")
    name, world = f"toolformer {seed}", World()
    problems = _first(MarketSource(world), work.n_problems, name)
    texts = [(each.direct, each.steps) for each in problems]
    # letters and stories have no steps of their own: they get those of the problems
    others = [
        each.text
        for source in (LetterSource(world), StorySource(world))
        for each in _first(source, work.n_others, name)
    ]
    texts += [(text, rng.choice(problems).steps) for text in others]
    return [offer for text, steps in texts for offer in _offers(BEGIN + text, steps, rng)]


def _first(source: Any, n: int, seed: str) -> list[Any]:
    blocks = (source.block(index, seed) for index in range(n))
    return list(islice((each for block in blocks for each in block), n))


def _offers(text: str, steps: Sequence[Step], rng: random.Random) -> list[Offer]:
    numbers = [match.start() for match in _NUMBER.finditer(text)]
    words = [match.start() for match in _WORD.finditer(text)]
    # 1. the last number, another one, a word
    positions = [*numbers[-1:], *rng.sample(numbers[:-1], min(1, len(numbers[:-1])))]
    positions.append(rng.choice(words))
    # 2. at each the right steps, and as many others
    return [
        Offer(text, position, step)
        for position in positions
        for step in (*steps, *_other_steps(text[len(BEGIN) : position], steps, rng))
    ]


def _other_steps(before: str, steps: Sequence[Step], rng: random.Random) -> list[Step]:
    """Steps of numbers that stand before the position, or of numbers of the right steps."""
    numbers = [int(number) for number in re.findall(r"\d+", before)]
    numbers = (
        numbers if len(numbers) > 1 else [n for step in steps for n in (step.left, step.right)]
    )
    right = {(step.left, step.sign, step.right) for step in steps}
    others = []
    for _ in range(N_TRIES):
        step = Step(rng.choice(numbers), rng.choice("·+"), rng.choice(numbers))
        if step.result <= LARGEST and (step.left, step.sign, step.right) not in right:
            others.append(step)
    return others[: len(steps)]


# --- the filter against the truth -----------------------------------------------------------------
def run(quick: bool = False, finished: Finished | None = None) -> dict[str, Any]:
    """Judge all offers, and print a table of each place.

    Args:
        quick: a few texts; its figures mean nothing.
        finished: runs that are not to be repeated.

    Returns:
        Of each place a row a seed, see `of_place`.
    """
    work, finished = QUICK if quick else Work(), finished or Finished()
    size = f"{work.n_problems} problems, {work.n_others} others"
    figures = {
        place: [
            finished(f"{place}, {size}, seed {seed}", partial(of_place, place, seed, work))
            for seed in track(work.seeds, place)
        ]
        for place in PLACES
    }
    _print(figures)
    return figures


def of_place(place: str, seed: int, work: Work) -> dict[str, Any]:
    """What is kept of the calls that stand in one place.

    Returns:
        "seed"; "n" offers, of which "n_useful"; "filter" and "control", what `counts` returns for
        each threshold, the control without the call alone.
    """
    model, tokenizer = load(MODEL)
    some = offers(work, seed)
    losses = call_losses(model.eval(), tokenizer, [offer.candidate(place) for offer in some])
    useful = [offer.useful for offer in some]
    # the call alone counts for nothing if it is as bad as no call
    without = [CallLosses(each.without, each.without, each.with_result) for each in losses]
    return {
        "seed": seed,
        "n": len(some),
        "n_useful": sum(useful),
        "filter": [counts(losses, useful, threshold) for threshold in THRESHOLDS],
        "control": [counts(without, useful, threshold) for threshold in THRESHOLDS],
    }


def counts(
    losses: Sequence[CallLosses], useful: Sequence[bool], threshold: float
) -> dict[str, float]:
    """How many calls are kept.

    Returns:
        "threshold"; "n_kept" calls, of which "n_right" are useful; "n_possible" useful calls that
        could have been kept.

    Example:
        >>> large, small = CallLosses(0.9, 0.8, 0.1), CallLosses(0.1, 0.1, 0.0)
        >>> counts([large, large, small], [True, False, True], 0.5)
        {'threshold': 0.5, 'n_kept': 2, 'n_right': 1, 'n_possible': 1}
    """
    both = list(zip(losses, useful, strict=True))
    return {
        "threshold": threshold,
        "n_kept": sum(each.keep(threshold) for each, _ in both),
        "n_right": sum(each.keep(threshold) and good for each, good in both),
        "n_possible": sum(
            min(each.without, each.call) >= threshold and good for each, good in both
        ),
    }


def _print(figures: Mapping[str, Any]) -> None:
    for place, rows in figures.items():
        n, n_useful = (sum(row[key] for row in rows) for key in ("n", "n_useful"))
        print(f"{place}: {n} calls, guessing {100 * n_useful / n:.1f} %")
        print(f"{'':>10} threshold    kept  precision  recall  possible")
        for criterion in ("filter", "control"):
            for column in zip(*(row[criterion] for row in rows), strict=True):
                kept, right, possible = (
                    sum(each[key] for each in column) for key in ("n_kept", "n_right", "n_possible")
                )
                precision = f"{100 * right / kept:.1f}" if kept else "-"
                print(
                    f"{criterion:>10} {column[0]['threshold']:9.2f} {kept:7} {precision:>10} "
                    f"{100 * right / max(1, n_useful):7.1f} {possible:9}"
                )
