"""Verifiers (验证器): a second model reads a solution and says how likely it is right.

A majority vote counts a careless chain like a careful one. A verifier is trained on sampled chains
whose labels are known, G for good and B for bad. Its probability of G is then the weight of a chain
in the vote (`minillm.reason.vote.weighted`). There are two levels:

    answer-level   reads the whole at once, and learns one thing: is the answer right?
        C A B E D 1-3 2-4 ?  │ 1-3 B A C E D 2-4 B A C E D = B A C E D .         B
    step-level     reads one step at a time: the swap that is due, what lies there, what was written
        1-3 C A B E D        │ 1-3 B A C E D                                     G
        2-4 B A C E D        │ 2-4 B A C E D                                     B
        ?   B A C E D        │ = B A C E D .                                     G
                                             the chain's probability is the product

Each word right of the line is a place to learn from: a step is good as far as its words are the
right ones. The labels are two more tokens, and stand as targets in a `Batch` whose loss mask leaves
out what was given. So a verifier is a transformer like the solver, trained by the same loop.

Paper: Li et al. 2022, "Making Large Language Models Better Reasoners with Step-Aware Verifier"
(DIVERSE), arXiv:2206.02336, section 2.2 (verifier, voting verifier) and 2.3 (step-aware verifier).
Cobbe et al. 2021, arXiv:2110.14168, section 4.1, learns a label at every token (from memory).
Differs: theirs is one large pre-trained model that reads the whole chain, with the labels of all
steps as an auxiliary loss, and the answer's probability as the weight. Ours begin from nothing; the
step-level one is given each step by itself with the swap that is due, so it need not search, and
the probabilities of the steps are multiplied. Step labels come of comparing chains there, and are
exact here. Good and bad readings are drawn equally often, and the probabilities are put right for
it afterwards: with π the share of good readings, p π ÷ (p π + (1 - p)(1 - π)).

Chapter: 24
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import accumulate
from operator import and_
from random import Random
from typing import final

import numpy as np
import torch

from minillm.data.packing import Batch
from minillm.model.transformer import Transformer
from minillm.reason.solver import SolverConfig, Words, muon
from minillm.town import cups
from minillm.train.losses import language_loss
from minillm.train.plain import fit

LEVELS = ("answer", "step")
AT_ONCE = 2048  # readings
Labels = tuple[bool, ...]


@final
@dataclass(frozen=True)
class Reading:
    """What a verifier reads at once.

    Args:
        given: words that are not judged.
        written: words that are.
    """

    given: str
    written: str


def readings_of(problem: cups.Problem, text: str, level: str) -> list[Reading]:
    """A chain in the format "steps" as a verifier of this level reads it.

    Args:
        problem: whose question was asked.
        text: what was written after it, right or not, ended or not.
        level: "answer" or "step".

    Raises:
        ValueError: nothing was written; another level.

    Example:
        >>> problem = cups.Problem("CABED", ((1, 3),))
        >>> for each in readings_of(problem, "1-3 B A C E D = B A C E D .", "step"):
        ...     print(each.given, "|", each.written)
        1-3 C A B E D | 1-3 B A C E D
        ? B A C E D | = B A C E D .
    """
    if not text.strip() or level not in LEVELS:
        raise ValueError(
            f"a chain needs at least one word, and the level must be one of {', '.join(LEVELS)}; "
            f"got {len(text.split())} words and {level!r}"
        )
    if level == "answer":
        return [Reading(problem.question(), text)]
    swaps = [f"{a}-{b}" for a, b in problem.swaps]
    steps, answer = _steps(text)
    # 1. before the first step lies what the question says, before each other one what was written
    before = [[*problem.start], *(step[1:] for step in steps)]
    # 2. the swap that is due; a step too many has none
    due = [*swaps, *["?"] * len(steps)]
    readings = [
        Reading(" ".join([swap, *things]), " ".join(step))
        for swap, things, step in zip(due, before, steps, strict=False)
    ]
    # 3. the answer is one more step; it comes too early where a swap is still due
    asks = due[len(steps)] if len(steps) < len(swaps) else "?"
    return readings + [Reading(" ".join([asks, *before[-1]]), answer)] * bool(answer)


def labels_of(problem: cups.Problem, text: str, level: str) -> list[Labels]:
    """The exact labels of each reading, one for each word that was written.

    Args:
        problem, text, level: as for `readings_of`.

    Example:
        >>> problem = cups.Problem("CABED", ((1, 3),))
        >>> for labels in labels_of(problem, "1-3 B A E C D = B A E C D .", "step"):
        ...     print("".join("BG"[label] for label in labels))
        GGGBBB
        GGGGGGG
    """
    readings = readings_of(problem, text, level)
    if level == "answer":
        return [(cups.read_answer(text) == problem.answer,) * len(text.split())]
    return [_so_far_right(reading) for reading in readings]


def _steps(text: str) -> tuple[list[list[str]], str]:
    """Steps of six words, the last of them perhaps cut off, and the answer, from "=" on."""
    written, equals, after = text.partition("=")
    words = written.split()
    return [words[i : i + 6] for i in range(0, len(words), 6)], f"{equals}{after}".strip()


def _so_far_right(reading: Reading) -> Labels:
    due, *things = reading.given.split()
    state, written = "".join(things), reading.written.split()
    expected = ["=", *state, "."]
    if due != "?":
        cups_of = tuple(int(cup) for cup in due.split("-"))
        is_whole = sorted(state) == sorted(cups.THINGS)
        expected = [due, *cups.swap(state, cups_of)] if is_whole else []
    right = [n < len(expected) and word == expected[n] for n, word in enumerate(written)]
    right[-1] &= len(written) == len(expected)
    return tuple(accumulate(right, and_))


# --- the model ----------------------------------------------------------------------------------
def batch_of(readings: Sequence[Reading], labels: Sequence[Labels], words: Words = cups) -> Batch:
    """Readings as rows, filled up on the right; targets are labels, and what is given has none.

    Args:
        readings: B of them.
        labels: of each, one for each word that was written.
        words: the tokenizer, of V words; the label BAD is token V, GOOD is V + 1.

    Example:
        >>> batch = batch_of([Reading("A ?", "B C")], [(True, False)])
        >>> batch.tokens.tolist(), (batch.targets - len(cups.VOCABULARY)).tolist()
        ([[5, 1, 6, 7]], [[-48, -48, 1, 0]])
        >>> batch.loss_mask.int().tolist()
        [[0, 0, 1, 1]]
    """
    rows = [(words.encode(each.given), words.encode(each.written)) for each in readings]
    shape = len(rows), max(len(given) + len(written) for given, written in rows)
    tokens, targets = (np.zeros(shape, dtype=np.int64) for _ in range(2))
    loss_mask = np.zeros(shape, dtype=bool)
    for row, ((given, written), good) in enumerate(zip(rows, labels, strict=True)):
        end = len(given) + len(written)
        tokens[row, :end] = given + written
        targets[row, len(given) : end] = len(words.VOCABULARY) + np.array(good)
        loss_mask[row, len(given) : end] = True
    # padding stands behind every word, where a causal model cannot see it
    documents = torch.zeros(shape, dtype=torch.long)
    return Batch(*map(torch.from_numpy, (tokens, targets)), documents, torch.from_numpy(loss_mask))


@final
@dataclass(frozen=True)
class Verifier:
    """A model that gives a reading a probability of being good.

    Args:
        model: whose last two tokens are the labels BAD and GOOD; trained on equally many of both.
        share_good: π, of the readings as they come; 0.5 leaves the model's probabilities as they
            are.
        words: its tokenizer.
    """

    model: Transformer
    share_good: float = 0.5
    words: Words = cups

    @torch.no_grad()
    def probabilities(self, readings: Sequence[Reading]) -> list[float]:
        """p(GOOD) at the last word of each.

        Args:
            readings: of any lengths that the context has room for.
        """
        probabilities: list[float] = []
        for first in range(0, len(readings), AT_ONCE):
            some = readings[first : first + AT_ONCE]
            unknown = [(False,) * len(each.written.split()) for each in some]
            batch = batch_of(some, unknown, self.words)
            ends = torch.tensor([*map(_n_words, some)]) - 1
            logits = self.model(batch.tokens)[torch.arange(len(some)), ends]
            # 1. among the two labels alone: all other tokens are impossible here
            good = logits[:, len(self.words.VOCABULARY) :].softmax(dim=-1)[:, 1]
            # 2. put right for how often readings are good
            likely, unlikely = good * self.share_good, (1 - good) * (1 - self.share_good)
            probabilities += (likely / (likely + unlikely)).tolist()
        return probabilities

    def scores(self, chains: Sequence[Sequence[Reading]]) -> list[float]:
        """Of each chain the product of the probabilities of its readings, 0 to 1.

        Args:
            chains: `readings_of` each.
        """
        every = iter(self.probabilities([reading for chain in chains for reading in chain]))
        return [math.prod(next(every) for _ in chain) for chain in chains]


def train_verifier(
    readings: Sequence[Reading],
    labels: Sequence[Labels],
    config: SolverConfig | None = None,
    *,
    context_length: int = 160,
    words: Words = cups,
) -> Verifier:
    """A verifier that has learned from labelled readings, good and bad ones equally often.

    Args:
        readings: of chains that were sampled for other problems than those to be voted on.
        labels: `labels_of` the chains.
        config: size and length of training, those of a solver; None for its values.
        context_length: of the model; a longer reading is refused.
        words: the tokenizer.

    Raises:
        ValueError: no reading, or not as many labels; readings that are all good or all bad, of
            which nothing can be learned.
    """
    config = SolverConfig() if config is None else config
    _check(readings, labels, context_length)
    kinds = [[n for n, each in enumerate(labels) if each[-1] == kind] for kind in (True, False)]
    model = config.build(context_length, words, n_more=2)
    mean = sum(map(_n_words, readings)) / len(readings)

    def batch_at(step: int) -> Batch:
        rng = Random(f"verifier/{config.seed}/{step}")
        some = [rng.choice(kinds[n % 2]) for n in range(config.batch_size)]
        return batch_of([readings[n] for n in some], [labels[n] for n in some], words)

    fit(
        model,
        language_loss,
        batch_at,
        max(1, round(config.n_tokens / mean / config.batch_size)),
        config.learning_rate,
        make_optimizer=muon,
        seed=config.seed,
        label="verifier",
    )
    return Verifier(model.eval(), len(kinds[0]) / len(labels), words)


def _n_words(reading: Reading) -> int:
    return len(f"{reading.given} {reading.written}".split())


def _check(readings: Sequence[Reading], labels: Sequence[Labels], context_length: int) -> None:
    if not readings or len(readings) != len(labels):
        raise ValueError(
            "a verifier learns from at least one reading, each with labels; got "
            f"{len(readings)} readings and labels for {len(labels)}. Label them with `labels_of`"
        )
    for number, (reading, good) in enumerate(zip(readings, labels, strict=True)):
        n_written = len(reading.written.split())
        if n_written != len(good) or _n_words(reading) > context_length:
            raise ValueError(
                "a reading needs a label for each word that was written, and at most "
                f"{context_length} words, the context_length; reading {number} has "
                f"{_n_words(reading)} words, {n_written} of them written, and {len(good)} labels"
            )
    kinds = {good[-1] for good in labels}
    if len(kinds) < 2:
        raise ValueError(
            f"a verifier learns from good and bad readings; all are "
            f"{'good' if kinds == {True} else 'bad'}. Sample chains at a higher temperature, or of "
            "a solver that is neither perfect nor hopeless"
        )
