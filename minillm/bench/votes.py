"""`minillm bench votes`: what votes bring, what a verifier adds to them, and what renaming does.

A solver (`minillm.reason.solver`) learns problems of one to eight swaps, less than half as long as
in `minillm bench cot`, and is asked problems of eight. Three seeds:

- **votes**: 60 samples of each of 192 questions, in three groups of 20. maj@k is the share of right
  majorities of k, pass@20 that of groups with a right answer anywhere. What a group of 20 does is
  predicted from the answers of the *other* 40 samples by Monte Carlo. The same 40 say whether the
  question's commonest answer is a wrong one: votes are counted for these questions by themselves.
- **verifiers**: answer-level and step-level, trained on labelled samples of other questions, on
  equally many tokens. The same groups vote again, each chain with its score as weight; and the
  best of 20 is the answer of the chain with the highest score.
- **renamed**: five prompts with four samples each, in place of one with 20. A prompt is the same
  problem in which the five things have changed their names; answers are translated back.

Paper: Wang et al. 2022, arXiv:2203.11171, section 2; Li et al. 2022 (DIVERSE), arXiv:2206.02336,
section 2.1 (M₁ prompts with M₂ samples each) to 2.3.
Differs: a prompt of DIVERSE differs in its worked examples; here there are none, and things are
renamed. A task whose steps are checked by a program, and models of 0.1 M parameters.

Chapter: app
"""

import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from itertools import islice
from statistics import fmean
from typing import Any, final

from minillm.bench._run import Finished
from minillm.lab.track import track
from minillm.model.transformer import Transformer
from minillm.reason import verify
from minillm.reason.solver import SolverConfig, pairs_of, solve, train
from minillm.reason.vote import expected_accuracy, is_wrong_mode, majority, shares, weighted
from minillm.serve.sample import SampleConfig
from minillm.town.cups import THINGS, CupSource, Problem, read_answer

STYLE = "steps"
SAMPLING = SampleConfig(temperature=0.8)
SEEDS = (0, 1, 2)
N_DRAWS = 200  # of a Monte-Carlo prediction, for each question
HALF_TRAINED = SolverConfig(n_tokens=880_000)
VERIFIER = SolverConfig(n_tokens=5_000_000)
BATCH_SIZES = {"answer": 64, "step": 256}  # of a verifier; a reading of one step is short
Texts = Sequence[Sequence[str]]  # of each question, what was written
Answers = Sequence[Sequence[str | None]]


@final
@dataclass(frozen=True, kw_only=True)
class Settings:
    """How much is trained, asked and sampled.

    Args:
        solver: half trained.
        n_swaps: of each problem.
        n_questions: that are asked.
        group: chains that vote together.
        n_groups: such groups, of each question.
        n_prompts: renamings in a group.
        n_learned: questions of which a verifier learns.
        n_each: samples of each of these.
        verifier: how both verifiers are trained.
        with_solutions: whether a verifier also learns from right solutions.
    """

    solver: SolverConfig = HALF_TRAINED
    n_swaps: int = 8
    n_questions: int = 192
    group: int = 20
    n_groups: int = 3
    n_prompts: int = 5
    n_learned: int = 2048
    n_each: int = 4
    verifier: SolverConfig = VERIFIER
    with_solutions: bool = False

    def quick(self) -> "Settings":
        """The same for a look whether it runs at all."""
        return replace(
            self,
            solver=replace(self.solver, n_tokens=1, batch_size=2, d_model=16),
            n_swaps=2,
            n_questions=3,
            group=8,
            n_groups=2,
            n_prompts=2,
            n_learned=2,
            n_each=1,
            verifier=replace(self.verifier, n_tokens=1, d_model=16),
            with_solutions=True,  # such a solver writes nothing that is right
        )

    @property
    def ks(self) -> tuple[int, ...]:
        """Sizes of a vote: one, a quarter of a group, a whole group."""
        return 1, self.group // 4, self.group

    def problems(self, n: int, seed: str) -> list[Problem]:
        """The first n of a stream."""
        return list(islice(CupSource((self.n_swaps,)).problems(seed), n))

    def texts(self, model: Transformer, problems: Sequence[Problem], n: int, seed: int) -> Texts:
        """n samples of each; as many tokens as a right solution has, and a few more."""
        n_tokens = len(problems[0].completion(STYLE).split()) + 8
        questions = [problem.question(STYLE) for problem in problems]
        return solve(model, questions, SAMPLING, n_samples=n, n_tokens=n_tokens, seed=seed)


def run(*, quick: bool = False, finished: Finished | None = None) -> dict[str, Any]:
    """Train, sample, vote, and print the tables.

    Args:
        quick: few steps and questions, one seed; its figures mean nothing.
        finished: seeds that are not to be repeated.

    Returns:
        "seeds", of each "votes", "verifiers" and "renamed"; all figures are shares, 0 to 1.
    """
    finished = Finished() if finished is None else finished
    settings = Settings().quick() if quick else Settings()
    figures = {
        "seeds": [
            {"seed": seed} | finished(f"seed {seed}", lambda s=seed: of_seed(settings, s))
            for seed in track(SEEDS[:1] if quick else SEEDS, "seed")
        ]
    }
    _print(figures, settings)
    return figures


def of_seed(settings: Settings, seed: int) -> dict[str, Any]:
    """All that is measured of one solver."""
    config = replace(settings.solver, seed=seed)
    lengths = tuple(range(1, settings.n_swaps + 1))
    solver = train(pairs_of(CupSource(lengths), STYLE, config), config)
    problems = settings.problems(settings.n_questions, "questions")
    right = [problem.answer for problem in problems]
    greedy = solve(solver, [problem.question(STYLE) for problem in problems])
    texts = settings.texts(solver, problems, settings.group * settings.n_groups, 10 * seed + 1)
    answers = [[read_answer(text) for text in some] for some in texts]
    renamed = of_renamed(settings, solver, problems, 10 * seed + 2)
    return {
        "greedy": fmean(read_answer(text) == y for (text,), y in zip(greedy, right, strict=True)),
        "votes": of_votes(settings, answers, right),
        "renamed": {f"maj@{k}": voted(settings, renamed, right, k) for k in settings.ks},
        "verifiers": of_verifiers(settings, solver, problems, texts, answers, seed),
    }


# --- votes --------------------------------------------------------------------------------------
def voted(settings: Settings, answers: Answers, right: Sequence[str], k: int) -> float:
    """maj@k: the share of right majorities among all disjoint sets of k samples."""
    return fmean(
        majority(each[first : first + k]).answer == y
        for each, y in zip(answers, right, strict=True)
        for first in range(0, settings.group * settings.n_groups, k)
    )


def of_votes(settings: Settings, answers: Answers, right: Sequence[str]) -> dict[str, Any]:
    """Majorities, as they were and as they were predicted, and questions with a wrong mode."""
    size = settings.group
    begins = range(0, size * settings.n_groups, size)
    figures: dict[str, Any] = {f"maj@{k}": voted(settings, answers, right, k) for k in settings.ks}
    figures[f"pass@{size}"] = fmean(
        y in each[first : first + size]
        for each, y in zip(answers, right, strict=True)
        for first in begins
    )
    # 1. of each group, the answer distribution that the other groups show
    rows = [
        (each[first : first + size], shares(each[:first] + each[first + size :]), y)
        for each, y in zip(answers, right, strict=True)
        for first in begins
    ]
    figures["predicted"] = {
        f"maj@{k}": fmean(
            expected_accuracy(p, y, k, n_draws=N_DRAWS, seed=number)
            for number, (_, p, y) in enumerate(rows)
        )
        for k in settings.ks
    }
    # 2. the groups whose question has a wrong mode, by the others; and all other groups
    for name, is_wrong in (("wrong mode", True), ("other modes", False)):
        some = [(group, y) for group, p, y in rows if is_wrong_mode(p, y) == is_wrong]
        figures[name] = {"share": len(some) / len(rows)} | {
            f"maj@{k}": fmean(
                majority(group[i : i + k]).answer == y
                for group, y in some
                for i in range(0, size, k)
            )
            for k in settings.ks
            if some
        }
    return figures


def of_renamed(
    settings: Settings, solver: Transformer, problems: Sequence[Problem], seed: int
) -> Answers:
    """Answers to renamed problems, translated back; each group has its own renamings."""
    rng, n_each = random.Random(f"names {seed}"), settings.group // settings.n_prompts
    n_names = settings.n_prompts * settings.n_groups
    names = [["".join(rng.sample(THINGS, 5)) for _ in range(n_names)] for _ in problems]
    asked = [
        problem.renamed(each)
        for problem, some in zip(problems, names, strict=True)
        for each in some
    ]
    texts = settings.texts(solver, asked, n_each, seed)
    back = [str.maketrans(each, THINGS) for some in names for each in some]
    answers = [
        [answer and answer.translate(table) for answer in map(read_answer, some)]
        for some, table in zip(texts, back, strict=True)
    ]
    return [
        [answer for some in answers[first : first + n_names] for answer in some]
        for first in range(0, len(answers), n_names)
    ]


# --- verifiers ----------------------------------------------------------------------------------
def of_verifiers(
    settings: Settings,
    solver: Transformer,
    problems: Sequence[Problem],
    texts: Texts,
    answers: Answers,
    seed: int,
) -> dict[str, Any]:
    """The groups vote once more, with scores as weights; and the best of each group answers."""
    others = settings.problems(settings.n_learned, f"verifier {seed}")
    learned = settings.texts(solver, others, settings.n_each, 10 * seed + 3)
    if settings.with_solutions:
        learned = [[*some, p.completion(STYLE)] for p, some in zip(others, learned, strict=True)]
    right, figures = [problem.answer for problem in problems], {}
    true = [answer == y for some, y in zip(answers, right, strict=True) for answer in some]
    for level in verify.LEVELS:
        readings, labels = (
            [each for pair in _pairs(others, learned) for each in of(*pair, level)]
            for of in (verify.readings_of, verify.labels_of)
        )
        config = replace(settings.verifier, seed=seed, batch_size=BATCH_SIZES[level])
        verifier = verify.train_verifier(readings, labels, config)
        chains = [verify.readings_of(*pair, level) for pair in _pairs(problems, texts)]
        scores = verifier.scores(chains)
        figures[f"{level}-level, judged rightly"] = fmean(
            (score > 0.5) == good for score, good in zip(scores, true, strict=True)
        )
        for name, choose in (("vote", _by_weight), ("best", _best)):
            figures[f"{level}-level, {name}"] = _chosen(settings, choose, answers, scores, right)
    return figures


def _pairs(problems: Sequence[Problem], texts: Texts) -> list[tuple[Problem, str]]:
    return [(p, text) for p, some in zip(problems, texts, strict=True) for text in some]


def _by_weight(answers: Sequence[str | None], scores: Sequence[float]) -> str | None:
    return weighted(answers, scores).answer


def _best(answers: Sequence[str | None], scores: Sequence[float]) -> str | None:
    pairs = [pair for pair in zip(scores, answers, strict=True) if pair[1] is not None]
    return max(pairs, key=lambda pair: pair[0])[1] if pairs else None


def _chosen(
    settings: Settings,
    choose: Callable[[Sequence[str | None], Sequence[float]], str | None],
    answers: Answers,
    scores: Sequence[float],
    right: Sequence[str],
) -> float:
    """The share of groups whose choice is right."""
    size = settings.group
    n_each = size * settings.n_groups
    return fmean(
        choose(each[i : i + size], scores[number * n_each + i : number * n_each + i + size]) == y
        for number, (each, y) in enumerate(zip(answers, right, strict=True))
        for i in range(0, n_each, size)
    )


def _print(figures: dict[str, Any], settings: Settings) -> None:
    rows = figures["seeds"]
    keys = [f"maj@{k}" for k in settings.ks]
    _line(rows, "greedy", lambda row: row["greedy"])
    for key in (*keys, f"pass@{settings.group}"):
        _line(rows, key, lambda row, key=key: row["votes"][key])
    for key in keys:
        _line(rows, f"{key}, predicted", lambda row, key=key: row["votes"]["predicted"][key])
    for name in ("wrong mode", "other modes"):
        for key in ("share", *keys):
            _line(rows, f"{name}, {key}", lambda row, n=name, key=key: row["votes"][n].get(key))
    for key in keys:
        _line(rows, f"renamed, {key}", lambda row, key=key: row["renamed"][key])
    for key in rows[0]["verifiers"]:
        _line(rows, key, lambda row, key=key: row["verifiers"][key])


def _line(rows: Sequence[dict], name: str, of: Callable[[dict], float | None]) -> None:
    values = [value for row in rows if (value := of(row)) is not None]
    shown = "  ".join(f"{100 * value:5.1f}" for value in values)
    print(f"{name:>34}  " + (f"{100 * fmean(values):5.1f} %   seeds {shown}" if values else "none"))
