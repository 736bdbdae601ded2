"""`minillm bench sizes`: four sizes learn the same texts; what does each of them become able to do?

Every model learns four parts of equal tokens at once, in one vocabulary (`WORDS`), and every text
of a part ends in an answer that is right or wrong:

============  ====================================================================================
steps         swaps of cups, and the word "way" after the question: each swap with what it leaves,
              then the answer. One to four swaps are learned, four are asked
direct        the same kind of question without that word: the answer at once
context       which things have which numbers, and one of these things: its number. The things
              after it follow with theirs, and then those before it, to learn from; only the first
              number is an answer. Each text has other numbers: nothing can be known by heart
instructions  the name of an operation and a list: the list that comes of it. Eight operations,
              lists of three to six things; one length of each operation is in no training
============  ====================================================================================

Two questions are answered. **Does the size matter?** Spearman's rank correlation of size and
accuracy, with steps and at once. Models that only guess differ by chance, and ranks would take that
for an order; so what guessing could reach as well counts as guessing, and such sizes tie. **From
which size on?** For each part the size at which half of the answers are right, between two sizes
in a straight line over log parameters. An answer has several tokens and all must be right, so the
share of right tokens is kept too: it tells what was on its way before the answer was right.

All sizes read the same texts, with the same learning rate. A size that fails has failed at this
amount of training; more of it moves the curves.

Paper: Wei et al. 2022, "Emergent Abilities of Large Language Models", arXiv:2206.07682 (few-shot
prompting, instruction following, step by step); Wei et al. 2022, "Inverse scaling can become
U-shaped", arXiv:2211.02011 (with a chain of thought accuracy rises with the size). From memory.
Differs: 0.01 to 0.1 M parameters, each of which has learned the three tasks on purpose.

Chapter: app
"""

import math
import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property, partial
from statistics import StatisticsError, correlation, fmean
from typing import Any, final

from minillm.bench._run import Finished
from minillm.data.packing import Batch
from minillm.lab.track import track
from minillm.model.transformer import Transformer
from minillm.optim.step import Total
from minillm.reason.solver import Pair, SolverConfig, batch_of, muon, solve
from minillm.town import cups
from minillm.train.losses import language_loss
from minillm.train.plain import fit

SWAPS_LEARNED, SWAPS_ASKED = (1, 2, 3, 4), (4,)
WITH_STEPS = "way"  # after a question: the whole way is asked for
GOODS = ("plums", "pears", "buns", "tea", "rice", "salt", "silk", "rope", "nails", "eggs")
N_PAIRS = 4  # things in a text of "context", each with a number up to 9
LENGTHS = (3, 4, 5, 6)  # of lists
OPERATIONS: dict[str, Callable[[list[str]], list[str]]] = {
    "copy": lambda things: things,
    "reverse": lambda things: things[::-1],
    "rotate": lambda things: [*things[1:], things[0]],
    "back": lambda things: [things[-1], *things[:-1]],
    "ends": lambda things: [things[-1], *things[1:-1], things[0]],
    "first": lambda things: things[:1],
    "last": lambda things: things[-1:],
    "rest": lambda things: things[1:],
}
COMBINATIONS = tuple((operation, length) for operation in OPERATIONS for length in LENGTHS)
#: One length of each operation, and each length twice.
HELD_OUT = tuple((operation, LENGTHS[n % len(LENGTHS)]) for n, operation in enumerate(OPERATIONS))
SEEN = tuple(each for each in COMBINATIONS if each not in HELD_OUT)
PARTS = ("steps", "direct", "context", "instructions")
ASKED = (*PARTS, "held out")
CURVES = ("steps", "context", "instructions", "held out")  # where one half is sought
CONTEXT_LENGTH = 48
CHANCE = 0.01  # what guessing reaches more rarely than this is no guessing


@final
@dataclass(frozen=True)
class WordList:
    """A vocabulary whose words have blanks between them; the first one is padding.

    Args:
        VOCABULARY: each word once.

    Example:
        >>> words = WordList(("_", "a", "b"))
        >>> words.encode("b a"), words.decode([2, 1])
        ([2, 1], 'b a')
    """

    VOCABULARY: tuple[str, ...]

    @cached_property
    def _ids(self) -> dict[str, int]:
        return {word: number for number, word in enumerate(self.VOCABULARY)}

    def encode(self, text: str) -> list[int]:
        """Token ids of words.

        Raises:
            KeyError: a word that is not there.
        """
        return [self._ids[word] for word in text.split()]

    def decode(self, ids: Sequence[int]) -> str:
        """Words of token ids."""
        return " ".join(self.VOCABULARY[number] for number in ids)


WORDS = WordList(tuple(dict.fromkeys((*cups.VOCABULARY, *GOODS, *OPERATIONS))))


@final
@dataclass(frozen=True, kw_only=True)
class Work:
    """How much is done.

    Args:
        sizes: d_model of each; two blocks, four heads.
        n_steps: of each training.
        n_tokens: of each part in a step, about.
        learning_rate: Muon's.
        n_questions: of each part.
        seeds: one training of each size for each.
    """

    sizes: tuple[int, ...] = (16, 24, 32, 64)
    n_steps: int = 1000
    n_tokens: int = 350
    learning_rate: float = 0.02
    n_questions: int = 400
    seeds: tuple[int, ...] = (0, 1, 2)


QUICK = Work(sizes=(8, 16), n_steps=2, n_tokens=60, n_questions=4, seeds=(0,))


def run(quick: bool = False, finished: Finished | None = None) -> dict[str, Any]:
    """Train, ask, and print three tables.

    Args:
        quick: two steps of two small models; its figures mean nothing.
        finished: runs that are not to be repeated.

    Returns:
        "runs", what `learned` returns, one a size and seed; "spearman" for "steps" and "direct",
        and "half" for each of `CURVES`: a number for each of the "seeds", and one for their "mean".
    """
    work, finished = QUICK if quick else Work(), finished or Finished()
    runs = [
        finished(
            f"{d_model}, {seed}, {work.n_steps} steps of {work.n_tokens}, {work.learning_rate:g}",
            partial(learned, d_model, seed, work),
        )
        for seed in track(work.seeds, "sizes")
        for d_model in work.sizes
    ]
    figures = {"runs": runs} | conclude(runs)
    _print(figures)
    return figures


def learned(d_model: int, seed: int, work: Work) -> dict[str, Any]:
    """One training, and its answers.

    Args:
        d_model: the size.
        seed: of first weights and texts.
        work: how long, and how much is asked.

    Returns:
        "n_parameters", both tables included; for each of `ASKED` what `graded` returns.
    """
    model = SolverConfig(d_model=d_model, seed=seed).build(CONTEXT_LENGTH, WORDS)
    sizes = {part: texts_a_step(part, work.n_tokens) for part in PARTS}

    def batches_at(step: int) -> list[Batch]:
        return [
            batch_of(pairs(part, n, f"training {seed} {step}"), WORDS) for part, n in sizes.items()
        ]

    fit(
        model,
        _loss,
        batches_at,
        work.n_steps,
        work.learning_rate,
        make_optimizer=muon,
        seed=seed,
        label=f"{d_model}, seed {seed}",
    )
    model.eval()
    return {
        "d_model": d_model,
        "n_parameters": sum(each.numel() for each in model.parameters()),
        "seed": seed,
    } | {
        part: graded(model, pairs(part, work.n_questions, "questions", n_swaps=SWAPS_ASKED))
        for part in ASKED
    }


# --- texts --------------------------------------------------------------------------------------
def pairs(part: str, n: int, seed: str, *, n_swaps: Sequence[int] = SWAPS_LEARNED) -> list[Pair]:
    """Questions of a part, and what is to be written after each.

    Args:
        part: one of `ASKED`.
        n: how many.
        seed: of the drawing.
        n_swaps: how many swaps of cups there may be.

    Example:
        >>> pairs("context", 1, "an example")[0][1].split()[:3]
        ['#2', 'silk', '#8']
    """
    rng = random.Random(f"sizes/{part}/{seed}")
    draw: Callable[[], Pair] = partial(_instruction, part, rng)
    if part in ("steps", "direct"):
        draw = partial(_cups, part, rng, n_swaps)
    elif part == "context":
        draw = partial(_context, rng)
    return [draw() for _ in range(n)]


def _cups(part: str, rng: random.Random, n_swaps: Sequence[int]) -> Pair:
    start = "".join(rng.sample(cups.THINGS, len(cups.THINGS)))
    problem = cups.Problem(start, tuple(rng.choices(cups.SWAPS, k=rng.choice(n_swaps))))
    question = problem.question()
    asked = f"{question} {WITH_STEPS}" if part == "steps" else question
    return asked, problem.completion(part)


def _context(rng: random.Random) -> Pair:
    things, numbers = rng.sample(GOODS, N_PAIRS), rng.sample(range(1, 10), N_PAIRS)
    listed = [f"{thing} #{number}" for thing, number in zip(things, numbers, strict=True)]
    first = rng.randrange(N_PAIRS)
    thing, after = " ".join(listed[first:] + listed[:first]).split(maxsplit=1)
    return f"{' '.join(listed)} ? {thing}", f"{after} ."


def _instruction(part: str, rng: random.Random) -> Pair:
    operation, length = rng.choice(HELD_OUT if part == "held out" else SEEN)
    things = rng.sample(GOODS, length)
    after = OPERATIONS[operation](things)
    return f"{operation} {' '.join(things)} ?", f"= {' '.join(after)} ."


def texts_a_step(part: str, n_tokens: int) -> int:
    """So many texts of a part have about so many tokens, and at least one.

    Example:
        >>> texts_a_step("steps", 670), texts_a_step("direct", 670)
        (21, 43)
    """
    lengths = [len(" ".join(pair).split()) for pair in pairs(part, 256, "lengths")]
    return max(1, round(n_tokens / fmean(lengths)))


def _loss(model: Transformer, batches: Sequence[Batch]) -> Total:
    first, *others = (language_loss(model, batch) for batch in batches)
    return sum(others, first)


# --- answers ------------------------------------------------------------------------------------
def graded(model: Transformer, asked: Sequence[Pair]) -> dict[str, int]:
    """Right answers of a model, and right tokens of its answers.

    Args:
        model: a solver that has `WORDS`.
        asked: questions, and what is to be written after them.

    Returns:
        "n_right" of "n" answers, greedily chosen; "n_tokens_right" of "n_tokens" stand where the
        right answer has them, its full stop included.
    """
    n_tokens = max(len(after.split()) for _, after in asked)
    texts = solve(model, [question for question, _ in asked], n_tokens=n_tokens, words=WORDS)
    both = [(answer(text), answer(after)) for (text,), (_, after) in zip(texts, asked, strict=True)]
    return {
        "n_right": sum(given == right for given, right in both),
        "n": len(both),
        "n_tokens_right": sum(
            a == b for given, right in both for a, b in zip(given, right, strict=False)
        ),
        "n_tokens": sum(len(right) for _, right in both),
    }


def answer(text: str) -> list[str]:
    """The words after the last "="; the first word of all where there is no such sign.

    Example:
        >>> answer("1-3 B A C E D = B A C E D ."), answer("#5 tea #2 .")
        (['B', 'A', 'C', 'E', 'D', '.'], ['#5'])
    """
    _, equals, after = text.rpartition("=")
    return after.split() if equals else text.split()[:1]


# --- what is concluded --------------------------------------------------------------------------
def conclude(runs: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """Rank correlations and sizes at one half, by seed and of all seeds together.

    Args:
        runs: of the same sizes for each seed.
    """
    seeds = {run["seed"]: [each for each in runs if each["seed"] == run["seed"]] for run in runs}
    sizes = [run["n_parameters"] for run in next(iter(seeds.values()))]
    mean = [[each for each in runs if each["n_parameters"] == size] for size in sizes]

    def each(part: str, measure: Callable[..., float | None], share: Callable) -> dict[str, Any]:
        by_seed = [[share([run], part) for run in some] for some in seeds.values()]
        together = [share(some, part) for some in mean]
        return {
            "seeds": [measure(sizes, shares) for shares in by_seed],
            "mean": measure(sizes, together),
        }

    return {
        "spearman": {part: each(part, spearman, beyond_guessing) for part in ("steps", "direct")},
        "half": {part: each(part, size_at_half, share) for part in CURVES},
    }


def share(runs: Sequence[dict[str, Any]], part: str, what: str = "n") -> float:
    """The share of right answers of some runs together; of right tokens, if `what` is n_tokens."""
    return sum(run[part][f"{what}_right"] for run in runs) / sum(run[part][what] for run in runs)


def beyond_guessing(runs: Sequence[dict[str, Any]], part: str) -> float:
    """The share of right answers; that of guessing, where guessing could reach as much.

    Args:
        runs: together.
        part: "steps" or "direct".

    Example:
        >>> few, more = ({"direct": {"n_right": n, "n": 300}} for n in (10, 30))
        >>> beyond_guessing([few], "direct") == cups.GUESSING, beyond_guessing([more], "direct")
        (True, 0.1)
    """
    n_right, n = (sum(run[part][key] for run in runs) for key in ("n_right", "n"))
    p = cups.GUESSING
    fewer = math.fsum(_binomial(n, k, p) for k in range(n_right))
    return n_right / n if 1 - fewer < CHANCE else p


def _binomial(n: int, k: int, p: float) -> float:
    """The probability of k of n, by logarithms: the coefficients are beyond floats."""
    log_comb = math.lgamma(n + 1) - math.lgamma(k + 1) - math.lgamma(n - k + 1)
    return math.exp(log_comb + k * math.log(p) + (n - k) * math.log1p(-p))


def ranks(values: Sequence[float]) -> list[float]:
    """Of each value its rank from 1 on; equal ones share the mean of theirs.

    Example:
        >>> ranks([0.2, 0.9, 0.2])
        [1.5, 3.0, 1.5]
    """
    return [sum(v < x for v in values) + (1 + sum(v == x for v in values)) / 2 for x in values]


def spearman(x: Sequence[float], y: Sequence[float]) -> float:
    """Spearman's rank correlation, -1 to 1; 0 where all values of one are equal: nothing rises.

    Example:
        >>> spearman([1, 2, 3, 4], [0.1, 0.3, 0.2, 0.9])
        0.8
    """
    try:
        return round(correlation(ranks(x), ranks(y)), 12)
    except StatisticsError:
        return 0.0


def size_at_half(sizes: Sequence[float], shares: Sequence[float]) -> float | None:
    """The size from which on at least half is right, in a straight line over log size.

    Args:
        sizes: rising.
        shares: one a size.

    Returns:
        Parameters; None where that is not within the range.

    Example:
        >>> size_at_half([10, 100, 1000], [0.0, 0.4, 0.6]), size_at_half([10, 100], [0.6, 0.9])
        (316.2, None)
    """
    # the last size below one half, and the next
    below = [number for number, share in enumerate(shares) if share < 0.5]
    if not below or below[-1] == len(shares) - 1:
        return None
    low, high = below[-1], below[-1] + 1
    part = (0.5 - shares[low]) / (shares[high] - shares[low])
    return round(sizes[low] * (sizes[high] / sizes[low]) ** part, 1)


def _print(figures: dict[str, Any]) -> None:
    runs = figures["runs"]
    for what, title in (("n", "right answers"), ("n_tokens", "right tokens of the answers")):
        print(f"{title} in %, all seeds together, and the lowest and highest of a seed")
        print(f"{'d_model':>8} {'parameters':>10}" + "".join(f"{part:>20}" for part in ASKED))
        for d_model in dict.fromkeys(run["d_model"] for run in runs):
            some = [run for run in runs if run["d_model"] == d_model]
            cells = "".join(f"{_cell(some, part, what):>20}" for part in ASKED)
            print(f"{d_model:>8} {some[0]['n_parameters']:>10,}{cells}")
    print("Spearman of size and right answers: all seeds together, and each")
    for part, row in figures["spearman"].items():
        print(f"{part:>14} {row['mean']:6.2f}    " + "  ".join(f"{x:.2f}" for x in row["seeds"]))
    print("parameters at which one half is right: all seeds together, and each")
    for part, row in figures["half"].items():
        sizes = [
            "not in the range" if x is None else f"{x:,.0f}" for x in [row["mean"], *row["seeds"]]
        ]
        print(f"{part:>14} {sizes[0]:>10}    " + "  ".join(sizes[1:]))


def _cell(some: Sequence[dict[str, Any]], part: str, what: str) -> str:
    each = [100 * share([run], part, what) for run in some]
    return f"{100 * share(some, part, what):.1f} ({min(each):.0f}–{max(each):.0f})"
