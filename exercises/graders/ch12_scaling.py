"""What `@task` runs for chapter 12.

Chapter: 12
"""

import json
import math
from functools import cache

import numpy as np

from minillm.lab.diagnose import check_sentence, hold, shown, split_sentence
from minillm.lab.grade import Diagnosis, Grader, as_number
from minillm.lab.project import root
from minillm.train.budget import Budget
from minillm.train.laws import chinchilla, isoflop_minimum, power_law


# --- 12.1 -----------------------------------------------------------------------------------------
def unseen(probabilities, n_draws):
    return sum(p * (1 - p) ** n_draws for p in probabilities)


def _zipf(n_facts):
    weights = [1 / k**2 for k in range(1, n_facts + 1)]
    return [weight / sum(weights) for weight in weights]


UNSEEN = [([0.5, 0.5], 2), ([0.75, 0.25], 1), (_zipf(5), 3), (_zipf(500), 200), (_zipf(7), 0)]
UNSEEN_WRONG = [
    (
        lambda p, n: sum((1 - each) ** n for each in p) / len(p),
        "this is the share of facts that were not told. A question asks for fact k with "
        "probability p_k, so facts that are often asked for count more.",
    ),
    (
        lambda p, n: 1 - unseen(p, n),
        "this is how often the fact WAS told; the question is how often it was not.",
    ),
    (
        lambda p, n: sum(each * max(1 - n * each, 0) for each in p),
        "1 - n·p is too simple: it counts a fact twice that two sentences tell. Multiply: not in "
        "the first, and not in the second, …",
    ),
    (lambda p, n: unseen(p, n + 1), "one sentence too many: after 0 sentences nothing is known."),
    (
        lambda p, n: (1 - sum(each * each for each in p)) ** n,
        "a mean comes too early: each fact has its own chance to be missed; average at the end.",
    ),
]


# --- 12.2 -----------------------------------------------------------------------------------------
def lowest(sizes, losses, *, x=np.log, back=np.exp, edges=True, bends=True, order=sorted):
    first, *_, last = order(sizes)
    if edges and sizes[int(np.argmin(losses))] in (first, last):
        return math.nan
    at = x(np.array(sizes, dtype=float))
    bend, slope, _ = np.polyfit(at - at.mean(), losses, 2)
    place = float(back(at.mean() - slope / (2 * bend)))
    inside = bend > 0 and min(sizes) < place < max(sizes)
    return place if inside or not bends else math.nan


SIZES = [
    ([100, 1000, 10_000], [3.0, 2.0, 3.0]),
    ([1000, 2000, 4000, 8000], [2.9, 2.5, 2.4, 2.6]),
    ([8000, 1000, 4000, 2000], [2.6, 2.9, 2.4, 2.5]),  # in another order
    ([4000, 500, 64_000, 16_000], [2.5, 3.5, 2.6, 2.3]),
    ([100, 1000, 10_000], [2.0, 2.5, 3.1]),  # the smallest is best
    ([100, 1000, 10_000, 100_000], [4.0, 3.0, 2.5, 2.4]),  # the largest is best
    ([10, 100, 1000, 10_000, 100_000], [3.0, 2.9, 3.3, 3.2, 3.1]),  # bends the wrong way
]
SIZES_WRONG = [
    (
        lambda n, y: math.nan if math.isnan(lowest(n, y)) else float(n[int(np.argmin(y))]),
        "this is the best size that was tried; the lowest point of the parabola may lie beside it.",
    ),
    (
        lambda n, y: lowest(n, y, x=lambda v: v, back=lambda v: v),
        "your parabola is over N; over log N, since sizes are multiplied, not added.",
    ),
    (
        lambda n, y: math.log(lowest(n, y)),
        "this is log N; the size itself is asked for.",
    ),
    (
        lambda n, y: lowest(n, y, order=list),
        "you take the first and the last of the list for the smallest and the largest size; the "
        "list may be in any order.",
    ),
    (
        lambda n, y: lowest(n, y, edges=False),
        "the smallest or the largest size is the best here: nobody knows what lies beyond it, so "
        "there is no answer.",
    ),
    (
        lambda n, y: lowest(n, y, bends=False),
        "this parabola has no lowest point between the sizes: the answer is nan.",
    ),
]


# --- 12.3 -----------------------------------------------------------------------------------------
def _bowls(exponent, factor):
    """Bowls of three prices whose lowest points are on a power law; no size is the best itself."""
    bowls = {}
    for flops in (1e10, 1e11, 1e12):
        best = factor * flops**exponent
        sizes = [round(best * 2.2**step * 1.3) for step in range(-3, 3)]
        bowls[flops] = [(n, 2 + 50 * flops**-0.2 + 0.1 * math.log(n / best) ** 2) for n in sizes]
    return bowls


def _exponent(bowls, best=lambda runs: isoflop_minimum(*zip(*runs, strict=True)).n_parameters):
    return power_law(list(bowls), [best(runs) for runs in bowls.values()]).exponent


BOWLS = [_bowls(0.62, 0.004), _bowls(0.7, 0.0005)]
BOWLS_WRONG = [
    (
        lambda bowls: 1 - _exponent(bowls),
        "this is the exponent of the tokens, which take the rest; N's is asked for.",
    ),
    (
        lambda bowls: _exponent(bowls, lambda runs: isoflop_minimum(*zip(*runs, strict=True)).loss),
        "this is the exponent of the lowest losses; that of the best sizes is asked for.",
    ),
    (
        lambda bowls: (
            power_law(
                list(bowls),
                [isoflop_minimum(*zip(*runs, strict=True)).n_parameters for runs in bowls.values()],
            ).coefficient
        ),
        "this is the coefficient of the law; its exponent is asked for.",
    ),
]
WHY = "why counting otherwise moves the exponent"


def grade_counted_otherwise(answer):
    """The exponent on two sets of bowls; the sentence must be there."""
    for bowls in BOWLS:
        (number,), sentence = split_sentence(answer(bowls))
        for wrong, message in BOWLS_WRONG:
            if math.isclose(number, wrong(bowls), rel_tol=0.01):
                raise Diagnosis(message)
        if not math.isclose(number, _exponent(bowls), rel_tol=0.02):
            raise Diagnosis(
                f"{shown(number)} is not it: find the best N of each bowl with isoflop_minimum, "
                "then power_law(prices, sizes).exponent."
            )
    check_sentence(sentence, WHY)


# --- 12.4 -----------------------------------------------------------------------------------------
WINS = 0.03


@cache
def _record():
    path = root() / "course" / "records" / "scaling.json"
    return json.loads(path.read_text(encoding="utf-8"))["figures"]


@cache
def games():
    """For two sealed runs: the market, the sealed run and its mean loss, the floor."""
    figures = _record()
    market = {(run["n_parameters"], run["n_tokens"]): run["loss"] for run in figures["market"]}
    games = []
    for width in (48, 32):
        runs = [r for r in figures["bowls"] if r["flops"] > 2e11 and r["d_model"] == width]
        sealed = runs[0]["n_parameters"], runs[0]["n_tokens"]
        games.append((market, sealed, float(np.mean([r["loss"] for r in runs])), runs[0]["floor"]))
    return games


BUDGET = 6e10


def _played(answer, market, sealed, floor):
    """The forecast, and what was bought for it."""
    budget = Budget(BUDGET)

    def buy(n_parameters, n_tokens):
        if (n_parameters, n_tokens) not in market:
            raise Diagnosis(
                f"{n_parameters:,} parameters and {n_tokens:,} tokens are not for sale."
            )
        return budget.buy(n_parameters, n_tokens, lambda *run: market[run])

    return as_number(answer(list(market), buy, sealed, floor)), budget.runs


def grade_forecast(answer):
    """Two sealed runs, each with a budget of its own."""
    for market, sealed, loss, floor in games():
        number, runs = _played(answer, market, sealed, floor)
        if not runs:
            raise Diagnosis("you bought nothing; buy(N, D) gives the loss of a run.")
        best = min(each[2] for each in runs)
        if math.isclose(number, best):
            raise Diagnosis(
                "this is the best loss that you bought; ten times the compute buys more."
            )
        if number < floor:
            raise Diagnosis(
                "your forecast is below the floor; did you fit what lies above it, and forget to "
                "add it again?"
            )
        off = number / loss - 1
        if abs(off) > WINS:
            raise Diagnosis(
                f"your forecast is {100 * abs(off):.1f} % too {'high' if off > 0 else 'low'}; "
                f"within {100 * WINS:.0f} % wins. The best that you bought was "
                f"{100 * (best / loss - 1):.1f} % too high."
            )


def _bought(offers, buy):
    runs = []
    for offer in sorted(offers, key=math.prod):
        try:
            runs.append((*offer, buy(*offer)))
        except ValueError:
            break
    return runs


def _law_of(offers, buy, floor):
    sizes, tokens, losses = zip(*_bought(offers, buy), strict=True)
    return chinchilla(sizes, tokens, [loss - floor for loss in losses])


FORECASTS_WRONG = [
    (lambda offers, buy, sealed, floor: 3.0, "you bought nothing"),
    (
        lambda offers, buy, sealed, floor: min(loss for _, _, loss in _bought(offers, buy)),
        "this is the best loss that you bought",
    ),
    (
        lambda offers, buy, sealed, floor: _law_of(offers, buy, floor).predict(*sealed),
        "your forecast is below the floor",
    ),
    (
        lambda offers, buy, sealed, floor: (
            0.5 * (floor + min(loss for _, _, loss in _bought(offers, buy))) + 0.2
        ),
        "your forecast is",
    ),
]


GRADERS = {
    "12.1": Grader(
        function="unseen_share",
        level="everyone",
        grade=lambda answer: hold(answer, unseen, UNSEEN, UNSEEN_WRONG),
        wrong=UNSEEN_WRONG,
        target="minillm.train.by_heart.by_heart_error",
        hints=(
            "Take one fact first. With which probability does one sentence not tell it? And two "
            "sentences, drawn independently?",
            "(1 - p_k) ** n_draws is the probability that fact k was never told. And how often is "
            "it asked for?",
            "sum(p * (1 - p) ** n_draws for p in probabilities)",
        ),
    ),
    "12.2": Grader(
        function="best_size",
        level="everyone",
        grade=lambda answer: hold(answer, lowest, SIZES, SIZES_WRONG),
        wrong=SIZES_WRONG,
        target="minillm.train.laws.isoflop_minimum",
        hints=(
            "Ask first whether the best size is the smallest or the largest; then there is no "
            "answer. The list need not be sorted.",
            "np.polyfit(x, losses, 2) gives a, b, c of a·x² + b·x + c. Where is its slope 0? And "
            "when is that its highest point?",
            "x = np.log(n_parameters); the lowest point is at x = -b / (2a) if a > 0; N = exp(x). "
            "If that lies outside of the sizes, return nan, too.",
        ),
    ),
    "12.3": Grader(
        function="counted_otherwise",
        level="stretch",
        grade=grade_counted_otherwise,
        wrong=[
            *(((lambda b, f=wrong: (f(b), "it is so")), text) for wrong, text in BOWLS_WRONG),
            (lambda bowls: (_exponent(bowls), ""), f"now say in a sentence {WHY}."),
        ],
        hints=(
            "For each bowl: isoflop_minimum(sizes, losses).n_parameters.",
            "zip(*runs) turns a list of pairs into the sizes and the losses.",
            "power_law(list of prices, list of best sizes).exponent",
        ),
        model_answer=(
            "The exponent rises. The two tables of the vocabulary grow with the width, the blocks "
            "with its square; so the tables are a large part of a small model and a small part of "
            "a large one. Leaving them out makes the smallest best model much smaller and the "
            "largest hardly, so the best size seems to grow faster. At the size of Chinchilla the "
            "tables are too small to matter."
        ),
    ),
    "12.4": Grader(
        function="forecast",
        level="stretch",
        grade=grade_forecast,
        wrong=FORECASTS_WRONG,
        hints=(
            "Which runs on sale are most like the sealed one? The cheapest tell least about it, and"
            " there is little money: begin with the largest sizes.",
            "You know the floor: give it to the law (floor=floor). Either a law of N and D for all "
            "that you bought, or only a line over the tokens of the sealed run's own size.",
            "own = the offers of sealed[0] parameters; buy them all; power_law(tokens, losses, "
            "floor=floor).predict(sealed[1])",
        ),
    ),
}
