"""`minillm bench calls`: three-digit products with and without a calculator, and when to call it.

Small models are trained from the beginning on the same questions (`minillm.town.sums`). Half of
them ask for a product of two three-digit numbers; the others need no calculator. What the models
learn to write after a question differs:

=========  =====================================================================================
bare       2 0 1 9 5 4 .
masked     [ 3 4 7 * 5 8 2 ]  *2 0 1 9 5 4 ;*  2 0 1 9 5 4 .      the result is only read
unmasked   [ 3 4 7 * 5 8 2 ]   2 0 1 9 5 4 ;   2 0 1 9 5 4 .      the result is learned too
=========  =====================================================================================

All read equally many tokens, results included. Bare answers are trained with two learning rates,
and the better one counts.

**When to call.** A call is right where the question needs one: precision, recall and F1, on
combinations of a statement and a question that were learned from, and on those held out. Two lines
to compare with: who always calls, and who never does.

**What unmasked results teach.** The answers are the same as long as the calculator works. So it is
taken away. Each question that needs a call is asked twice more:

- *alone*: the model is not stopped at "]", and writes on by itself. Does it write a number of its
  own where the result should be, how often is that number right, and does its answer repeat it?
- *error*: in place of the result stands "error ;", which no model has seen in training. Does it
  answer with a number all the same, and how often is that right?

Paper: Schick et al. 2023, "Toolformer", arXiv:2302.04761 (a calculator, among others); Parisi et
al. 2022, "TALM", arXiv:2205.12255. From memory.
Differs: models of 0.1 M parameters that know nothing but these questions.

Chapter: app
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import islice
from statistics import fmean
from typing import Any, final

from minillm.agents.calculator import calculate
from minillm.agents.tools import write_with_calls
from minillm.bench._run import Finished
from minillm.lab.track import track
from minillm.model.transformer import Transformer
from minillm.reason.solver import Pair, SolverConfig, solve, train
from minillm.town.sums import (
    BLOCK,
    END_RESULT,
    FAILURE,
    STYLES,
    Question,
    SumSource,
    SumWords,
    read_answer,
    score,
)
from minillm.town.world import World

CONTEXT_LENGTH = 64
RATE, OTHER_RATE = 0.02, 0.005


@final
@dataclass(frozen=True, kw_only=True)
class Work:
    """How much is done.

    Args:
        n_tokens: read in a training.
        n_questions: to each model, in combinations learned from and in those held out.
        seeds: a training each, for every style.
    """

    n_tokens: int = 1_000_000
    n_questions: int = 512
    seeds: tuple[int, ...] = (0, 1, 2)


QUICK = Work(n_tokens=5000, n_questions=32, seeds=(0,))


def run(quick: bool = False, finished: Finished | None = None) -> dict[str, Any]:
    """Train, ask, take the calculator away, and print three tables.

    Args:
        quick: two steps; its figures mean nothing.
        finished: runs that are not to be repeated.

    Returns:
        "n_tokens"; "bare", "masked" and "unmasked", rows of `of_style`; "other rate", the bare ones
        that were not better.
    """
    work, finished = QUICK if quick else Work(), finished or Finished()

    def rows(style: str, rate: float) -> list[dict[str, Any]]:
        label = f"{style}, rate {rate}, {work.n_tokens} tokens, {work.n_questions} questions"
        return [
            finished(f"{label}, seed {seed}", partial(of_style, style, rate, seed, work))
            for seed in track(work.seeds, label)
        ]

    groups = {style: rows(style, RATE) for style in STYLES}
    bare = sorted((groups["bare"], rows("bare", OTHER_RATE)), key=_products)
    figures = {"n_tokens": work.n_tokens, **groups, "bare": bare[1], "other rate": bare[0]}
    _print(figures)
    return figures


def of_style(style: str, rate: float, seed: int, work: Work) -> dict[str, Any]:
    """One model: trained, asked with the calculator, and without it.

    Returns:
        "rate" and "seed"; "seen" and "held out", a `Score` each with its "f1", and "needs", the
        share of questions that need a call; but for "bare" also "alone" and "error", see
        `without_result`.
    """
    source = SumSource(World())
    words = SumWords(source)
    config = SolverConfig(n_tokens=work.n_tokens, learning_rate=rate, seed=seed)
    model = train(
        rows_of(source, style, config),
        config,
        context_length=CONTEXT_LENGTH,
        words=words,
        label=f"{style}, rate {rate}, seed {seed}",
    )
    row: dict[str, Any] = {"rate": rate, "seed": seed}
    for name in ("seen", "held out"):
        stream = source.questions("test", held_out=name == "held out")
        questions = [*islice(stream, work.n_questions)]
        texts = write_with_calls(model, [q.text for q in questions], in_words, words)
        both = score(questions, texts)
        needs = sum(q.needs_call for q in questions) / len(questions)
        row[name] = {"needs": needs, **both._asdict(), "f1": both.f1}
    if style != "bare":
        needing = [q for q in islice(source.questions("test"), work.n_questions) if q.needs_call]
        for name, result in (("alone", ""), ("error", f"{FAILURE} {END_RESULT}")):
            row[name] = without_result(model, needing, result, words)
    return row


def rows_of(source: SumSource, style: str, config: SolverConfig) -> Callable[[int], list[Pair]]:
    """The training rows of each step; all styles of one seed have the same questions.

    Args:
        source: of the questions.
        style: one of `STYLES`.
        config: whose batch size, a multiple of 64, and seed decide which questions a step has.
    """
    n_blocks = max(1, config.batch_size // BLOCK)

    def rows_at(step: int) -> list[Pair]:
        blocks = range(step * n_blocks, (step + 1) * n_blocks)
        stream = f"training {config.seed}"
        return [q.turns(style) for index in blocks for q in source.block(index, stream)]

    return rows_at


def in_words(call: str) -> str:
    """The calculator for a model that writes single digits.

    Example:
        >>> in_words("3 4 7 * 5 8 2"), in_words("3 4 7 *")
        ('2 0 1 9 5 4', 'error')
    """
    try:
        return " ".join(calculate(call.replace(" ", "")))
    except ValueError:
        return FAILURE


def without_result(
    model: Transformer, questions: Sequence[Question], result: str, words: SumWords
) -> dict[str, int]:
    """What a model writes behind a right call when no calculator answers.

    Args:
        model: has learned to call.
        questions: that need a call.
        result: what stands behind "]"; with nothing the model writes a result itself, or not.
        words: its tokenizer.

    Returns:
        Of "n" questions: "n_results", in which a number of its own stands before ";";
        "n_right_results"; "n_answers" that are a number; "n_right_answers"; and "n_repeated",
        answers that repeat a result of its own.
    """
    prompts = [f"{q.text} {q.turns()[1]} {result}".strip() for q in questions]
    # a result and an answer have at most 6 digits, ";" and "."
    texts = [text for (text,) in solve(model, prompts, n_tokens=14, words=words)]
    results = [_number(t.partition(END_RESULT)[0]) if END_RESULT in t else None for t in texts]
    answers = [_number(read_answer(text) or "") for text in texts]
    right = [question.answer for question in questions]
    return {
        "n": len(questions),
        "n_results": sum(each is not None for each in results),
        "n_right_results": sum(a == b for a, b in zip(results, right, strict=True)),
        "n_answers": sum(each is not None for each in answers),
        "n_right_answers": sum(a == b for a, b in zip(answers, right, strict=True)),
        "n_repeated": sum(a is not None and a == b for a, b in zip(results, answers, strict=True)),
    }


def _number(text: str) -> str | None:
    digits = text.replace(" ", "")
    return digits if digits.isdecimal() else None


# --- tables -------------------------------------------------------------------------------------
def _products(rows: Sequence[dict[str, Any]]) -> float:
    return fmean(row["seen"]["products"] for row in rows)


def _print(figures: dict[str, Any]) -> None:
    print(f"after {figures['n_tokens']} tokens; the mean of the seeds, in %")
    keys = ("products", "others", "precision", "recall", "f1")
    for name in ("seen", "held out"):
        print(f"{'combinations ' + name:>20}" + "".join(f"{key:>12}" for key in keys))
        for style in (*STYLES, "other rate"):
            shares = [100 * fmean(row[name][key] for row in figures[style]) for key in keys]
            label = f"{style}, {figures[style][0]['rate']}"
            print(f"{label:>20}" + "".join(f"{share:12.1f}" for share in shares))
        needs = figures["masked"][0][name]["needs"]
        print(f"F1 of who always calls: {200 * needs / (1 + needs):.1f}; of who never does: 0")
    print("questions that need a call, without a calculator, in %")
    columns = ("n_results", "n_right_results", "n_answers", "n_right_answers", "n_repeated")
    print(f"{'':>20}" + "".join(f"{key[2:].replace('_', ' '):>16}" for key in columns))
    for style in ("masked", "unmasked"):
        for name in ("alone", "error"):
            rows = [row[name] for row in figures[style]]
            shares = [100 * fmean(row[key] / row["n"] for row in rows) for key in columns]
            print(f"{style + ', ' + name:>20}" + "".join(f"{share:16.1f}" for share in shares))
