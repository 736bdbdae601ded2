"""`minillm bench lengths`: a solver that learned 2 to 6 swaps is asked 2 to 12.

The problems are swaps of cups (`minillm.town.cups`), solved in steps. Each step begins with the
swap that it does, so a solver must find where it stands in the question. Three ways to write them:

==========  ==================================================================================
steps       swaps have no number: among equal swaps nothing says which one comes next
numbered    every swap has a number, from 1 on: 7 and more are in no text to learn from
anywhere    numbers begin anywhere, as long as the last is at most 16: all numbers are learned
==========  ==================================================================================

All read equally many tokens. Told are right answers by the number of swaps, and how many steps are
right before the first wrong one: whoever is right up to the sixth and then lost has learned the
step, but not to go on with it.

Paper: Anil et al. 2022, "Exploring Length Generalization in Large Language Models",
arXiv:2207.04901; Zhou et al. 2024, "Transformers Can Achieve Length Generalization But Not
Robustly", arXiv:2402.09371 (index hints that begin anywhere). From memory.
Differs: swaps in place of digits; RoPE alone says where a token stands.

Chapter: app
"""

import random
import re
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from statistics import fmean
from typing import Any, final

from minillm.bench._run import Finished
from minillm.lab.track import track
from minillm.model.transformer import Transformer
from minillm.reason.solver import Pair, SolverConfig, pairs_of, solve, train
from minillm.town.cups import MOST_SWAPS, CupSource, Problem, read_answer, right_steps

TRAINED = (2, 3, 4, 5, 6)
CONTEXT_LENGTH = 128
WAYS = {"steps": "steps", "numbered": "indexed", "anywhere": "indexed"}  # and their formats


@final
@dataclass(frozen=True, kw_only=True)
class Work:
    """How much is done.

    Args:
        n_tokens: read in a training.
        n_questions: of each length.
        lengths: numbers of swaps that are asked.
        seeds: one training each.
    """

    n_tokens: int = 2_500_000
    n_questions: int = 256
    lengths: tuple[int, ...] = tuple(range(2, 13))
    seeds: tuple[int, ...] = (0, 1, 2)


QUICK = Work(n_tokens=1, n_questions=4, lengths=(2, 3), seeds=(0,))


def run(quick: bool = False, finished: Finished | None = None) -> dict[str, Any]:
    """Train, ask, and print two tables.

    Args:
        quick: one step; its figures mean nothing.
        finished: runs that are not to be repeated.

    Returns:
        "trained" and "lengths", numbers of swaps; for each of `WAYS` what `learned` returns, one a
        seed.
    """
    work, finished = QUICK if quick else Work(), finished or Finished()
    figures: dict[str, Any] = {"trained": list(TRAINED), "lengths": list(work.lengths)}
    for way in WAYS:
        figures[way] = [
            finished(f"{way}, {work.n_tokens} tokens, {seed}", partial(learned, way, seed, work))
            for seed in track(work.seeds, way)
        ]
    _print(figures)
    return figures


def learned(way: str, seed: int, work: Work) -> dict[str, Any]:
    """One training, and its answers by length.

    Args:
        way: one of `WAYS`.
        seed: of first weights and problems.
        work: how long, and what is asked.

    Returns:
        "n_right" and "steps", a number for each length: right answers of "n", and the mean number
        of steps before the first wrong one.
    """
    config = SolverConfig(n_tokens=work.n_tokens, seed=seed)
    model = train(
        pairs_at(way, config), config, context_length=CONTEXT_LENGTH, label=f"{way}, seed {seed}"
    )
    asked = [answers(model, way, n, work.n_questions) for n in work.lengths]
    return {
        "seed": seed,
        "n": work.n_questions,
        "n_right": [n_right for n_right, _ in asked],
        "steps": [steps for _, steps in asked],
    }


def pairs_at(way: str, config: SolverConfig) -> Callable[[int], list[Pair]]:
    """The pairs of each step, of 2 to 6 swaps mixed: `solver.pairs_of`, with numbers moved."""
    pairs_of_step = pairs_of(CupSource(TRAINED), WAYS[way], config)

    def numbered_at(step: int) -> list[Pair]:
        rng = random.Random(f"lengths/{config.seed}/{step}")
        pairs = []
        for question, completion in pairs_of_step(step):
            by = drawn_move(rng, way, question.count("#"))
            pairs.append((moved(question, by), moved(completion, by)))
        return pairs

    return numbered_at


def drawn_move(rng: random.Random, way: str, n_swaps: int) -> int:
    """By how much the numbers of a problem are moved; 0 unless they begin anywhere."""
    return rng.randint(0, MOST_SWAPS - n_swaps) if way == "anywhere" else 0


def moved(text: str, by: int) -> str:
    """A text whose numbers are all larger by so much.

    Example:
        >>> moved("#1 1-3 #2 2-4 ?", 9)
        '#10 1-3 #11 2-4 ?'
    """
    return re.sub(r"#(\d+)", lambda number: f"#{int(number[1]) + by}", text)


def answers(model: Transformer, way: str, n_swaps: int, n: int) -> tuple[int, float]:
    """Right answers to n problems of one length, and the mean of right steps before a wrong one.

    Args:
        model: a solver.
        way: one of `WAYS`.
        n_swaps: of each problem.
        n: how many, the same for all models.
    """
    style, source = WAYS[way], CupSource((n_swaps,))
    rng = random.Random(f"lengths/questions/{n_swaps}")
    problems = [problem for problem, _ in zip(source.problems("questions"), range(n), strict=False)]
    moves = [drawn_move(rng, way, n_swaps) for _ in problems]
    asked = [moved(each.question(style), by) for each, by in zip(problems, moves, strict=True)]
    n_tokens = len(problems[0].completion(style).split())
    texts = [text for (text,) in solve(model, asked, n_tokens=n_tokens)]
    back = [moved(text, -by) for text, by in zip(texts, moves, strict=True)]
    both = list(zip(problems, back, strict=True))
    return (
        sum(read_answer(text) == each.answer for each, text in both),
        fmean(steps_before_wrong(each, text, style) for each, text in both),
    )


def steps_before_wrong(problem: Problem, text: str, style: str) -> int:
    """How many steps are right before the first wrong or missing one; the answer does not count.

    Example:
        >>> problem = Problem("CABED", ((1, 3), (2, 4)))
        >>> steps_before_wrong(problem, "1-3 B A C E D 2-4 B A C E D = B A C E D .", "steps")
        1
    """
    steps, _, _ = text.partition("=")
    return [*right_steps(problem, steps, style), False].index(False)


def _print(figures: dict[str, Any]) -> None:
    lengths = figures["lengths"]
    print("right answers in %, the mean of the seeds; trained with 2 to 6 swaps")
    print(f"{'swaps:':>10}" + "".join(f"{n:>7}" for n in lengths))
    for way in WAYS:
        shares = [[100 * right / row["n"] for right in row["n_right"]] for row in figures[way]]
        print(f"{way:>10}" + "".join(f"{fmean(each):7.1f}" for each in zip(*shares, strict=True)))
    print("steps that are right before the first wrong one")
    for way in WAYS:
        steps = zip(*(row["steps"] for row in figures[way]), strict=True)
        print(f"{way:>10}" + "".join(f"{fmean(each):7.1f}" for each in steps))
