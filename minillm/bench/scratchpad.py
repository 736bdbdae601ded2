"""`minillm bench scratchpad`: how many sums until a model can add, in three formats.

A model of 0.1 M parameters learns sums of three-digit numbers (`minillm.town.addition`): the answer
at once, the answer with its last digit first, or every column with its carry before the answer. All
formats have the same sums in the same batches, each drawn anew. Every 50 steps 256 sums of pairs
that no training has are asked, and the run ends as soon as 95 % of the answers are right: after so
many sums, and after so many tokens, since a scratchpad is longer.

The learning rate stays the same up to the end, because a run cannot know when it will end. Which
rate is best for a format is tried with seed 0; the runs that count have other seeds. A run that has
not come to 95 % after 3,000 steps has not reached it, and then a ratio to it is only a bound.

Paper: Lee et al. 2023, "Teaching Arithmetic to Small Transformers", arXiv:2307.03381, figure 1.
Differs: they ask how large a set of examples must be that is read again and again (from memory);
here every batch is drawn anew, so examples and time are one. The model's size is ours.

Chapter: app
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from statistics import fmean, median
from typing import Any, final

from minillm.bench._run import Finished
from minillm.lab.track import track
from minillm.model.transformer import Transformer
from minillm.optim.schedule import Constant
from minillm.reason.solver import SolverConfig, batch_of, pairs_of, solve
from minillm.town import addition
from minillm.town.addition import FORMATS, AdditionSource, Sum, read_answer, right_steps
from minillm.train.loop import LoopConfig, TrainState, train
from minillm.train.losses import language_loss
from minillm.train.recall import muon

SOURCE = AdditionSource(n_digits=3)
CONTEXT_LENGTH = 48
SHARE = 0.95  # of right answers, where a run ends
WARMUP_STEPS = 20


@final
@dataclass(frozen=True, kw_only=True)
class Work:
    """How much is done.

    Args:
        n_steps: of a run at most, 64 sums each.
        every: so many steps it is asked.
        n_questions: each time.
        rates: Muon's, tried with seed 0; what Muon does not take goes at half of it, with AdamW.
        seeds: of the runs that count.
    """

    n_steps: int = 3000
    every: int = 50
    n_questions: int = 256
    rates: tuple[float, ...] = (0.01, 0.02)
    seeds: tuple[int, ...] = (1, 2, 3)


QUICK = Work(n_steps=2, every=1, n_questions=4, rates=(0.02,), seeds=(1,))


def run(quick: bool = False, finished: Finished | None = None) -> dict[str, Any]:
    """Train, and print two tables.

    Args:
        quick: two steps; its figures mean nothing.
        finished: runs that are not to be repeated.

    Returns:
        "share", where a run ends. For each format "rate", the best; "search", its runs with seed 0;
        "runs", what `learned` returns, one a seed; "sums" and "tokens", what it needs of them
        against plain in the mean over the seeds (None if it did not reach 95 % each time); and
        "bound", whether plain did not reach it, so that it needs less than that.
    """
    work, finished = QUICK if quick else Work(), finished or Finished()
    figures: dict[str, Any] = {"share": SHARE}
    for style in FORMATS:
        runs = {
            (rate, 0): finished(f"{style}, {rate:g}, 0", partial(learned, style, rate, 0, work))
            for rate in work.rates
        }
        rate = min(work.rates, key=lambda rate: _slowness(runs[rate, 0]))
        figures[style] = {
            "rate": rate,
            "search": list(runs.values()),
            "runs": [
                finished(f"{style}, {rate:g}, {seed}", partial(learned, style, rate, seed, work))
                for seed in track(work.seeds, style)
            ],
        }
    for style in FORMATS:
        figures[style] |= against(figures[style]["runs"], figures["plain"]["runs"])
    _print(figures)
    return figures


def learned(style: str, rate: float, seed: int, work: Work) -> dict[str, Any]:
    """One run: sums and tokens until 95 % of the answers are right.

    Args:
        style: one of `FORMATS`.
        rate: of learning.
        seed: of first weights and sums.
        work: how long, and how often it is asked.

    Returns:
        "n_sums" and "n_tokens" that it had read, questions included; "reached", whether 95 % were
        right then, or the run had come to its limit; "curve", [sums, right answers, of them with
        all steps right] each time that it was asked.
    """
    config = SolverConfig(seed=seed, learning_rate=rate)
    model = config.build(CONTEXT_LENGTH, addition)
    pairs_at, asked = pairs_of(SOURCE, style, config), questions(work.n_questions)
    n_tokens, curve = 0, []
    reports = train(
        TrainState(model, muon(model, rate)),
        language_loss,
        lambda step: batch_of(pairs_at(step), addition),
        LoopConfig(n_steps=work.n_steps, schedule=Constant(warmup_steps=WARMUP_STEPS)),
    )
    for report in track(reports, f"{style}, seed {seed}", total=work.n_steps):
        pairs = pairs_at(report.step)
        n_tokens += sum(len(addition.encode(" ".join(pair))) for pair in pairs)
        n_steps = report.step + 1
        if n_steps % work.every and n_steps < work.n_steps:
            continue
        curve.append([n_steps * config.batch_size, *n_right(model, asked, style)])
        if curve[-1][1] >= SHARE * len(asked):
            break
    return {
        "seed": seed,
        "rate": rate,
        "n_sums": curve[-1][0],
        "n_tokens": n_tokens,
        "reached": curve[-1][1] >= SHARE * len(asked),
        "n_asked": len(asked),
        "curve": curve,
    }


def questions(n: int) -> list[Sum]:
    """Sums to be asked, of pairs that no training has; the same for all runs."""
    return [
        problem
        for index in range(-(-n // addition.BLOCK))
        for problem in SOURCE.block(index, "questions", held_out=True)
    ][:n]


def n_right(model: Transformer, asked: Sequence[Sum], style: str) -> tuple[int, int]:
    """How many greedy answers are right, and how many of them with every step before them right.

    Args:
        model: a solver.
        asked: sums.
        style: one of `FORMATS`; without steps both numbers are the same.
    """
    # as many tokens as the longest has, its full stop included
    n_tokens = max(len(each.completion(style).split()) for each in asked)
    texts = solve(model, [each.question() for each in asked], n_tokens=n_tokens, words=addition)
    right = [
        (each, text)
        for each, (text,) in zip(asked, texts, strict=True)
        if read_answer(text, style) == each.answer
    ]
    if style != "scratchpad":
        return len(right), len(right)
    all_right = [
        [True] * (len(each.columns) + 1) == right_steps(each, text) for each, text in right
    ]
    return len(right), sum(all_right)


# --- several runs -------------------------------------------------------------------------------
def against(runs: Sequence[dict[str, Any]], others: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """What the runs need of what the others need, seed by seed, in the mean.

    Args:
        runs: of one format.
        others: of plain.

    Example:
        >>> half = {"n_sums": 4, "n_tokens": 9, "reached": True}
        >>> against([half], [half | {"n_sums": 8, "reached": False}])  # the other: more than 8
        {'sums': 0.5, 'tokens': 1.0, 'bound': True}
    """
    ratios: dict[str, Any] = {"sums": None, "tokens": None}
    if all(each["reached"] for each in runs):
        for name in ratios:
            pairs = zip(runs, others, strict=True)
            ratios[name] = fmean(one[f"n_{name}"] / other[f"n_{name}"] for one, other in pairs)
    return ratios | {"bound": not all(each["reached"] for each in others)}


def _slowness(run: dict[str, Any]) -> tuple[float, int]:
    """How long it took; where it was not reached, how much is wrong at the end."""
    return (run["n_sums"] if run["reached"] else math.inf), -run["curve"][-1][1]


def _print(figures: dict[str, Any]) -> None:
    print(f"until {100 * SHARE:.0f} % of the answers are right; against plain in the last columns")
    print(f"{'':>10} {'rate':>6} {'sums':>9} {'tokens':>11}  {'each seed, sums':<30} sums  tokens")
    for style in FORMATS:
        row = figures[style]
        each = ", ".join(
            f"{'' if run['reached'] else 'more than '}{run['n_sums']:,}" for run in row["runs"]
        )
        mark = "<" if row["bound"] else " "
        ratios = [
            "  none" if row[name] is None else f"{mark}{row[name]:5.2f}"
            for name in ("sums", "tokens")
        ]
        n_sums, n_tokens = (
            median(run[key] for run in row["runs"]) for key in ("n_sums", "n_tokens")
        )
        print(f"{style:>10} {row['rate']:>6g} {n_sums:>9,} {n_tokens:>11,}  {each:<30}", *ratios)
    print("right answers of the last time that it was asked, and of them with every step right")
    for style in FORMATS:
        last = [(run["curve"][-1], run["n_asked"]) for run in figures[style]["runs"]]
        print(
            f"{style:>10} "
            + ", ".join(f"{right} and {every} of {n}" for (_, right, every), n in last)
        )
