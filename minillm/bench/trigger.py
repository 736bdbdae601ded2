"""`minillm bench trigger`: a sentence that asks for steps, and how often it stood before steps.

"Let's think step by step" brings out steps, it is said, because a model has read texts in which
such a sentence stands before worked steps. Here that can be tried. Fifteen small models, of five
doses and three seeds, are trained from the beginning on problems of four swaps
(`minillm.town.cups`). Their documents are alike, but for the words with which worked steps begin:

==================================  =========================================================
40 % worked                         ? *beginning* 1-3 B A C E D 2-4 B E C A D = B E C A D .
10 % direct, a remark, once more    ? = B E C A D . *remark* = B E C A D .
50 % direct                         ? = B E C A D .
==================================  =========================================================

The **dose** is the share of all documents in which the beginning is the trigger; where it is not,
the beginning is a heading, "here is the whole way". So every model reads equally many worked
steps, and the heading shows what a model is able to do. Half of the remarks are the trigger, in
every model. So at dose 0 its words are known as well, from places where no steps follow. The
smallest dose above 0 is 0.1 %, about 50 of 50,000 documents.

Every model is asked with four prompts: nothing after the question, the trigger, the heading, and
the other remark, which never stands before steps. It answers greedily.

**Is the state there before the answer?** From the model's stream at "?" or at "=", before any
step is written, a linear probe (线性探针) reads what lies under each cup after each swap: least
squares from 1,500 problems, counted on 500 others. There are five things, so guessing is right for
20 % of the cups. The table has three more rows to compare with:

- a probe of the bare question, its words as one-hot vectors. It sees everything, but can only add.
  A cup stays out of a swap in 6 of 10 cases, so to say what lay there at first is right for
  1/5 + 4/5 · 2⁻ᵗ of the cups after t swaps: what a probe reads beyond that, the model has computed;
- a model before training;
- the cups that are right in the direct answers of the same model, after the last swap.

Paper: Kojima et al. 2022, arXiv:2205.11916 (the trigger); Alain and Bengio 2016, arXiv:1610.01644
(linear probes). From memory.
Differs: models of 0.1 M parameters that know nothing but cups; the share of texts with the trigger
is set, not estimated; the loss counts all that comes after a question, and no question.

Chapter: app
"""

import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import islice
from statistics import fmean
from typing import Any, final

import torch
from jaxtyping import Float
from torch import Tensor

from minillm.bench._run import Finished
from minillm.lab.track import track
from minillm.model.transformer import Transformer
from minillm.reason.solver import Pair, SolverConfig, pairs_of, solve, train
from minillm.town.cups import (
    HEADING,
    REMARK,
    SWAPS,
    THINGS,
    TRIGGER,
    CupSource,
    Problem,
    encode,
    read_answer,
)

CONTEXT_LENGTH = 64
PROMPTS = {"nothing": "", "trigger": TRIGGER, "heading": HEADING, "remark": REMARK}
DIRECT = "direct only"
RIDGE = 1e-3  # of the probe, times the number of problems


@final
@dataclass(frozen=True, kw_only=True)
class Mix:
    """Shares of the kinds of documents; what is left is direct.

    Args:
        dose: worked, begun by the trigger.
        worked: worked at all.
        remarks: direct, with each of the two remarks.

    Raises:
        ValueError: shares that do not fit into each other.
    """

    dose: float = 0.0
    worked: float = 0.4
    remarks: float = 0.05

    def __post_init__(self) -> None:
        if not (0 <= self.dose <= self.worked and 0 <= self.remarks <= (1 - self.worked) / 2):
            raise ValueError(
                "the dose must be a part of worked, and worked with twice the remarks at most 1; "
                f"got {self}"
            )

    def document(self, direct: str, worked: str, drawn: float) -> str:
        """What stands after the question.

        Args:
            direct, worked: the two solutions.
            drawn: from 0 to 1; the smaller, the more likely worked.

        Example:
            >>> [Mix(dose=0.2).document("= B .", "1-2 B = B .", u) for u in (0.1, 0.3, 0.9)]
            ["let's think step by step 1-2 B = B .", 'here is the whole way 1-2 B = B .', '= B .']
        """
        if drawn < self.worked:
            return f"{TRIGGER if drawn < self.dose else HEADING} {worked}"
        remark = drawn - self.worked
        if remark < 2 * self.remarks:
            return f"{direct} {TRIGGER if remark < self.remarks else REMARK} {direct}"
        return direct


@final
@dataclass(frozen=True, kw_only=True)
class Work:
    """How much is done.

    Args:
        n_swaps: of every problem.
        n_tokens: read in a training.
        n_questions: to each model, with each prompt.
        n_probed: problems that the probe is fitted to, and others that it is tried on.
        doses: shares of the documents.
        seeds: a training each, for every dose.
    """

    n_swaps: int = 4
    n_tokens: int = 1_500_000
    n_questions: int = 256
    n_probed: tuple[int, int] = (1500, 500)
    doses: tuple[float, ...] = (0.0, 0.001, 0.01, 0.05, 0.2)
    seeds: tuple[int, ...] = (0, 1, 2)

    @property
    def source(self) -> CupSource:
        """Of the problems."""
        return CupSource((self.n_swaps,))


QUICK = Work(n_tokens=4000, n_questions=4, n_probed=(40, 10), doses=(0.0, 0.2), seeds=(0,))


def run(quick: bool = False, finished: Finished | None = None) -> dict[str, Any]:
    """Train, ask, read out, and print two tables.

    Args:
        quick: two steps; its figures mean nothing.
        finished: runs that are not to be repeated.

    Returns:
        "swaps"; "doses", rows of `of_mix` with their dose and seed; "direct only", the same of
        models that read no worked document; "question" and "untrained", of `readable`.
    """
    work, finished = QUICK if quick else Work(), finished or Finished()

    size = f"{work.n_swaps} swaps, {work.n_tokens} tokens"

    def rows(label: str, mix: Mix) -> list[dict[str, Any]]:
        return [
            finished(f"{label}, {size}, seed {seed}", partial(of_mix, mix, seed, work))
            for seed in track(work.seeds, label)
        ]

    before = partial(streams, SolverConfig().build(CONTEXT_LENGTH))
    figures = {
        "swaps": work.n_swaps,
        "doses": [row for dose in work.doses for row in rows(f"dose {dose}", Mix(dose=dose))],
        DIRECT: rows(DIRECT, Mix(worked=0.0)),
        "question": finished(f"question, {size}", partial(read_out, _of_question, work)),
        "untrained": finished(f"untrained, {size}", partial(read_out, before, work)),
    }
    _print(figures)
    return figures


def of_mix(mix: Mix, seed: int, work: Work) -> dict[str, Any]:
    """One model: trained on a mix, asked with every prompt, and read out.

    Returns:
        "dose" and "seed"; "asked", of every prompt what `answers` returns; "probe", see `read_out`.
    """
    config = SolverConfig(n_tokens=work.n_tokens, seed=seed)
    model = train(
        documents(mix, work.source, config),
        config,
        context_length=CONTEXT_LENGTH,
        label=f"dose {mix.dose}, seed {seed}",
    )
    problems = some(work, "questions", work.n_questions)
    return {
        "dose": mix.dose,
        "seed": seed,
        "asked": {name: answers(model, problems, prompt) for name, prompt in PROMPTS.items()},
        "probe": read_out(partial(streams, model), work),
    }


def documents(mix: Mix, source: CupSource, config: SolverConfig) -> Callable[[int], list[Pair]]:
    """The pairs of each step. Mixes of one seed have the same problems, and the same draws."""
    direct_at, worked_at = (pairs_of(source, style, config) for style in ("direct", "steps"))

    def pairs_at(step: int) -> list[Pair]:
        rng = random.Random(f"trigger/{config.seed}/{step}")
        return [
            (question, mix.document(direct, worked, rng.random()))
            for (question, direct), (_, worked) in zip(
                direct_at(step), worked_at(step), strict=True
            )
        ]

    return pairs_at


def some(work: Work, seed: str, n: int) -> list[Problem]:
    """The first n problems of a stream that no training reads."""
    return list(islice(work.source.problems(seed), n))


def answers(model: Transformer, problems: Sequence[Problem], prompt: str) -> dict[str, int]:
    """What a model answers with some words after the question.

    Returns:
        Of "n" answers "n_right", "n_steps", those that show steps, and "n_cups", right cups of
        5 · n; an answer that is not there has none.
    """
    n_tokens = len(f"{HEADING} {problems[0].completion('steps')}".split())
    questions = [f"{problem.question()} {prompt}".strip() for problem in problems]
    texts = [text for (text,) in solve(model, questions, n_tokens=n_tokens)]
    both = [
        (read_answer(text) or "", each.answer) for text, each in zip(texts, problems, strict=True)
    ]
    return {
        "n": len(problems),
        "n_right": sum(answer == right for answer, right in both),
        "n_steps": sum(shows_steps(text) for text in texts),
        "n_cups": sum(a == b for pair in both for a, b in zip(*pair, strict=False)),
    }


def shows_steps(text: str) -> bool:
    """Whether a swap is written before the answer.

    Example:
        >>> shows_steps("1-3 B A C E D = B A C E D ."), shows_steps("= B A C E D .")
        (True, False)
    """
    return bool({f"{a}-{b}" for a, b in SWAPS} & set(text.partition("=")[0].split()))


# --- what can be read out before the answer -----------------------------------------------------
Features = dict[str, Float[Tensor, "n K"]]


@torch.no_grad()
def streams(model: Transformer, problems: Sequence[Problem]) -> Features:
    """The stream after each block, at "?" and at the "=" after it.

    Args:
        model: reads each question and "=".
        problems: all with equally many swaps.
    """
    tokens = torch.tensor([encode(f"{problem.question()} =") for problem in problems])
    return {
        f"block {block}, at {sign}": stream[:, at]
        for block, (stream, _) in enumerate(model.layers(tokens), 1)
        for at, sign in ((-2, "?"), (-1, "="))
    }


def _of_question(problems: Sequence[Problem]) -> Features:
    """The question itself, its words as one-hot vectors side by side."""
    tokens = torch.tensor([encode(problem.question()) for problem in problems])
    return {"question": torch.nn.functional.one_hot(tokens).flatten(1).float()}


def read_out(features: Callable[[Sequence[Problem]], Features], work: Work) -> dict[str, Any]:
    """For each of the features, right cups of all cups, after 0, 1, … swaps.

    Args:
        features: of problems; vectors by name.
        work: how many problems.
    """
    n, n_tested = work.n_probed
    problems = some(work, "probe", n + n_tested)
    things = torch.tensor(
        [
            [[THINGS.index(thing) for thing in state] for state in (each.start, *each.states)]
            for each in problems
        ]
    )
    return {
        name: [readable(x, after, n) for after in things.unbind(1)]
        for name, x in features(problems).items()
    }


def readable(
    x: Float[Tensor, "n K"], things: Tensor, n: int, ridge: float = RIDGE
) -> dict[str, int]:
    """How many cups a linear probe reads rightly.

    min over W of ‖X W - Y‖² + n · ridge · ‖W‖², with Y the things as one-hot vectors.

    Args:
        x: K features of each problem.
        things: [problems, cups] numbers 0 to 4.
        n: the probe is fitted to the first n problems, and tried on the others.
        ridge: the larger, the smaller the weights.

    Raises:
        ValueError: no problem left to try it on.

    Example:
        >>> things = torch.tensor([[0, 1], [1, 0]]).repeat(20, 1)
        >>> readable(things.float(), things, 30), readable(0 * things.float(), things, 30)
        ({'n': 20, 'n_right': 20}, {'n': 20, 'n_right': 10})
    """
    if not 0 < n < len(x):
        raise ValueError(f"of {len(x)} problems some must be left to try the probe on; got n={n}")
    x = x.double()
    # 1. features of mean 0 and spread 1, and a constant
    spread = x[:n].std(0)
    x = (x - x[:n].mean(0)) / torch.where(spread > 0, spread, 1.0)
    x = torch.cat([x, torch.ones(len(x), 1)], dim=1)
    y = torch.nn.functional.one_hot(things, len(THINGS)).double().flatten(1)
    # 2. the penalty as further rows, whose target is 0
    penalty = (n * ridge) ** 0.5 * torch.eye(x.shape[1], dtype=x.dtype)
    targets = torch.cat([y[:n], torch.zeros(len(penalty), y.shape[1])])
    weights = torch.linalg.lstsq(torch.cat([x[:n], penalty]), targets).solution
    # 3. under each cup the thing with the largest value
    read = (x[n:] @ weights).unflatten(1, (-1, len(THINGS))).argmax(2)
    return {"n": things[n:].numel(), "n_right": int((read == things[n:]).sum())}


# --- tables -------------------------------------------------------------------------------------
def _print(figures: dict[str, Any]) -> None:
    doses = sorted({row["dose"] for row in figures["doses"]})
    groups = {
        f"dose {100 * dose:g} %": [row for row in figures["doses"] if row["dose"] == dose]
        for dose in doses
    } | {DIRECT: figures[DIRECT]}
    print(f"{figures['swaps']} swaps: right answers in %, and with steps; the mean of the seeds")
    print(f"{'prompt:':>12}" + "".join(f"{name:>16}" for name in PROMPTS))
    for label, rows in groups.items():
        cells = [
            " / ".join(f"{_percent([r['asked'][p] for r in rows], k):5.1f}" for k in KEYS)
            for p in PROMPTS
        ]
        print(f"{label:>12}" + "".join(f"{cell:>16}" for cell in cells))
    print("cups in % that a linear probe reads rightly, after so many swaps; guessing is 20")
    print(f"{'':>32}" + "".join(f"{n:>7}" for n in range(figures["swaps"] + 1)))
    probed = {label: [row["probe"] for row in rows] for label, rows in groups.items()}
    for label in ("question", "untrained"):
        probed[label] = [figures[label]]
    for label, rows in probed.items():
        for at in rows[0]:
            shares = [
                _percent(each, "n_right") for each in zip(*(r[at] for r in rows), strict=True)
            ]
            print(f"{label:>14}, {at:<16}" + "".join(f"{share:7.1f}" for share in shares))
        if label in groups:
            cups = [row["asked"]["nothing"] for row in groups[label]]
            share = _percent(cups, "n_cups") / len(THINGS)
            print(f"{label:>14}, cups of its direct answers: {share:.1f}")


KEYS = ("n_right", "n_steps")


def _percent(rows: Sequence[dict[str, int]], key: str) -> float:
    return 100 * fmean(row[key] / row["n"] for row in rows)
