"""What `@task` runs for chapter 02.

Chapter: 02
"""

import math
import time
from fractions import Fraction

import numpy as np

from minillm.baselines import ngram
from minillm.lab.grade import Diagnosis, Grader

COIN = np.array([[0.9, 0.1], [0.1, 0.9]])
SUN_AND_RAIN = np.array([[0.9, 0.1], [0.5, 0.5]])
ALTERNATING = np.array([[0.0, 0.5, 0.5], [1.0, 0.0, 0.0], [1.0, 0.0, 0.0]])
LONG_MEMORY = np.array([[0.9999, 0.0001, 0.0], [0.0, 0.5, 0.5], [0.001, 0.499, 0.5]])
FLOOR = 1.5329  # of the market square, in nats a token


def grade_bits_per_byte(answer):
    """Numbers that can be worked out on paper."""
    four_bits = np.log([1 / 8, 1 / 2])
    got = _number(answer(four_bits, 2))
    if math.isclose(got, -2.0):
        raise Diagnosis("a price is positive; logarithms of probabilities are not: take minus.")
    if math.isclose(got, 2 * math.log(2)):
        raise Diagnosis("these are nats a byte; one bit is log 2 nats.")
    if math.isclose(got, 4.0):
        raise Diagnosis("these are the bits of the whole text; divide by its bytes.")
    if math.isclose(got, 2 * math.log(2) ** 2):
        raise Diagnosis("to get bits, divide by log 2; you multiply.")
    for log_probs, n_bytes, right in (
        (four_bits, 2, 2.0),
        (four_bits, 8, 0.5),
        (np.log([0.25]), 8, 0.25),
        (np.log([0.5] * 6), 4, 1.5),
        ([math.log(0.5)] * 2, 1, 2.0),
    ):
        got = _number(answer(log_probs, n_bytes))
        if n_bytes == 8 and len(log_probs) == 2 and math.isclose(got, 2.0):
            raise Diagnosis("you divide by the number of tokens; divide by n_bytes.")
        if not math.isclose(got, right, rel_tol=1e-6):
            probabilities = [round(math.exp(log_p), 4) for log_p in log_probs]
            raise Diagnosis(
                f"tokens of probability {probabilities} on {n_bytes} bytes cost {right} bits a "
                f"byte; yours gives {got:.4g}."
            )
    got = _number(answer([math.log(0.25)] * 2_000, 500))
    if not math.isclose(got, 8.0, rel_tol=1e-6):
        raise Diagnosis(
            f"2,000 tokens of probability ¼ on 500 bytes are 8 bits a byte; yours gives {got:.4g}: "
            "the product of so many probabilities is 0 for a computer: add their logarithms."
        )


def grade_entropy_rate(answer):
    """Chains of which the rate is known on paper, and one that alternates."""
    got = _rate(answer, COIN)
    if math.isclose(got, 0.3251 / math.log(2), rel_tol=1e-3):
        raise Diagnosis("these are bits; the answer is wanted in nats: use the natural logarithm.")
    if math.isclose(got, 2 * 0.3251, rel_tol=1e-3):
        raise Diagnosis("you add the rows' entropies; weight them by π, which sums to one.")
    if math.isclose(got, -0.3251, rel_tol=1e-3):
        raise Diagnosis("an entropy is never negative: it is MINUS the sum of p log p.")
    got = _rate(answer, SUN_AND_RAIN)
    if math.isclose(got, _rows(SUN_AND_RAIN).mean(), rel_tol=1e-6):
        raise Diagnosis(
            "you weight all rows alike; in [[0.9, 0.1], [0.5, 0.5]] the source stands at the first "
            "symbol five times of six. (Or your π solves P · π = π; it must be π · P = π.)"
        )
    if math.isclose(got, _rows(SUN_AND_RAIN) @ [1 / 6, 5 / 6], rel_tol=1e-6):
        raise Diagnosis("your π has its symbols swapped; is the transition matrix turned over?")
    _same_rate(got, _rows(SUN_AND_RAIN) @ [5 / 6, 1 / 6], "[[0.9, 0.1], [0.5, 0.5]]")
    got = _rate(answer, ALTERNATING)
    if math.isnan(got):
        raise Diagnosis("0 · log 0 is NaN for a computer; a probability of zero costs nothing.")
    if not math.isclose(got, math.log(2) / 2, rel_tol=1e-3):
        raise Diagnosis(
            "[[0, ½, ½], [1, 0, 0], [1, 0, 0]] goes away from 0 and back for ever: half its time "
            f"it stands at 0, so the rate is {math.log(2) / 2:.4f}; yours is {got:.4g}. "
            "If you multiply π again and again: that never settles here."
        )
    got = _rate(answer, LONG_MEMORY)
    if not math.isclose(got, _rows(LONG_MEMORY) @ _stationary(LONG_MEMORY), rel_tol=1e-3):
        raise Diagnosis(
            "for a source that changes its mind once in 10,000 steps yours is wrong: π had no time "
            "to settle. Multiply far more often, or solve the equations."
        )


def grade_continuation_counts(answer):
    """Kinds, not occurrences; and the oldest token goes."""
    san, los, francisco, angeles = range(4)
    grams = {(san, francisco): 9, (san, angeles): 1, (los, angeles): 2}
    before = dict(grams)
    got = answer(grams)
    if grams != before:
        raise Diagnosis("you change the dictionary that was given.")
    if not isinstance(got, dict):
        raise Diagnosis("return a dictionary: what remains of a gram -> how many surroundings.")
    if got == {(francisco,): 9, (angeles,): 3}:
        raise Diagnosis(
            "you add up how often they were seen; count how many DIFFERENT tokens stood in front."
        )
    if got == {(san,): 2, (los,): 1}:
        raise Diagnosis("you leave out the newest token; leave out the oldest, the first.")
    if got and all(not isinstance(key, tuple) for key in got):
        raise Diagnosis("keep the keys tuples, also of one token: gram[1:], not gram[1].")
    longer = {(0, 1, 2): 5, (3, 1, 2): 1, (0, 1, 3): 2, (0, 2, 2): 1, (1, 2, 2): 4, (2, 2, 2): 7}
    for case in (grams, longer, {(0, 0): 1}, {}):
        right, got = dict(ngram.continuation_counts(case)), dict(answer(dict(case)))
        if got != right:
            raise Diagnosis(f"{case} must give {right}; yours gives {got}.")


def grade_price_of_reading_backwards(answer):
    """The number is graded; the sentence must be there."""
    got = answer()
    if not (isinstance(got, tuple | list) and len(got) == 2):
        raise Diagnosis('return two things: the number and your sentence, as in 2.0, "because …".')
    nats, sentence = got
    nats = _number(nats)
    if not math.isfinite(nats):
        raise Diagnosis(f"the number must be finite; yours is {nats}.")
    if math.isclose(nats, FLOOR / math.log(2), rel_tol=0.02):
        raise Diagnosis("these are bits; the answer is wanted in nats.")
    if math.isclose(nats, math.log(32), rel_tol=0.02):
        raise Diagnosis(
            "3.47 nats is pure guessing among 32 symbols; but the next symbols do tell something "
            "about this one. Train a model on the reversed rows."
        )
    if nats < FLOOR * 0.985:
        raise Diagnosis(
            "less than forwards? Then one could read the whole text backwards and pay less for the "
            "same text."
        )
    if nats > FLOOR * 1.03:
        raise Diagnosis(
            "train one, KneserNey(train_rows[:, ::-1], 32, 3), and grade it on held_out[:, ::-1]: "
            "it pays less than that, so the floor is lower still."
        )
    if not isinstance(sentence, str) or (len(sentence.split()) < 4 and len(sentence) < 8):
        raise Diagnosis("the number is right; now say in a sentence why.")


def grade_shortest_code(answer):
    """Every short interval, and one far too narrow for floats."""
    half, third = Fraction(1, 2), Fraction(1, 3)
    got = answer(third, 2 * third)
    if not isinstance(got, str):
        raise Diagnosis('return the bits as text, such as "011".')
    if got == "1":
        raise Diagnosis(
            '"1" names 1/2 to 1, and 2/3 to 1 lies outside; all its numbers must be inside.'
        )
    if got == "100":
        raise Diagnosis("both 011 and 100 lie inside 1/3 to 2/3; of those, take the smaller m.")
    if got == "11":
        raise Diagnosis("m = 3 of 8 needs three digits: 011. A leading 0 is a bit like any other.")
    if got in ("010", "0101", "01010", "010101"):
        raise Diagnosis("these are digits of `low` itself: where they end, they name too much.")
    if answer(Fraction(0), Fraction(1)) == "0":
        raise Diagnosis("0 to 1 is everything: the shortest row is the empty one.")
    cases = [(Fraction(a, 12), Fraction(b, 12)) for a in range(12) for b in range(a + 1, 13)]
    for low, high in cases:
        right, got = _shortest_code(low, high), answer(low, high)
        if got != right:
            if isinstance(got, str) and right[: len(got)] == got and (low, high) != (third, half):
                raise Diagnosis(
                    f"for {low} to {high} your bits {got!r} name numbers that lie outside."
                )
            raise Diagnosis(f"{low} to {high} is named by {right!r}; yours gives {got!r}.")
    low = Fraction(2, 7)
    began = time.process_time()  # a busy machine is no fault of the answer
    answer(low, low + Fraction(1, 10**5))
    if (seconds := time.process_time() - began) > 0.1:
        raise Diagnosis(
            f"an interval of 1/100,000 takes you {seconds:.1f} s: do you try row after row? Only "
            "the lengths must be tried, m follows."
        )
    try:
        got = answer(low, low + Fraction(1, 10**200))
    except (OverflowError, ZeroDivisionError) as error:
        raise Diagnosis("an interval of 10^-200 is too narrow for floats; stay exact.") from error
    if got != _shortest_code(low, low + Fraction(1, 10**200)):
        raise Diagnosis(
            "an interval of 10^-200 comes out wrong: floats are too coarse, stay exact."
        )


def _number(got) -> float:
    if got is None:
        raise Diagnosis("your function returns nothing; is there a `return`?")
    try:
        return float(got)
    except (TypeError, ValueError):
        raise Diagnosis(f"return one number; yours is {type(got).__name__}.") from None


def _rate(answer, chain: np.ndarray) -> float:
    given = chain.copy()
    got = _number(answer(given))
    if not np.array_equal(given, chain):
        raise Diagnosis("you change the matrix that was given; work on a copy of it.")
    return got


def _rows(transition: np.ndarray) -> np.ndarray:
    logs = np.log(np.where(transition > 0, transition, 1))
    return -(transition * logs).sum(axis=1)


def _stationary(transition: np.ndarray) -> np.ndarray:
    n = len(transition)
    equations = np.vstack([transition.T - np.eye(n), np.ones(n)])
    return np.linalg.lstsq(equations, np.append(np.zeros(n), 1), rcond=None)[0]


def _same_rate(got: float, right: float, chain: str) -> None:
    if not math.isclose(got, right, rel_tol=1e-3):
        raise Diagnosis(f"{chain} pays {right:.4f} nats a symbol; yours gives {got:.4g}.")


def _shortest_code(low: Fraction, high: Fraction) -> str:
    n = 0
    while math.ceil(low * 2**n) + 1 > high * 2**n:
        n += 1
    return format(math.ceil(low * 2**n), f"0{n}b") if n else ""


GRADERS = {
    "2.1": Grader(
        function="bits_per_byte",
        level="everyone",
        grade=grade_bits_per_byte,
        target="minillm.baselines.ngram.bits_per_byte",
        hints=(
            "The price of the whole text is minus the sum of log_probs, in nats.",
            "A bit is log 2 = 0.693 nats, so a price in nats divided by log 2 is in bits.",
            "-sum(log_probs) / math.log(2) / n_bytes",
        ),
    ),
    "2.2": Grader(
        function="entropy_rate",
        level="stretch",
        grade=grade_entropy_rate,
        hints=(
            "Two steps: find π, then add up π(i) · entropy of row i.",
            "π solves a linear system: (transition.T - 1) π = 0, and one more row, Σ π = 1.",
            "np.linalg.lstsq of np.vstack([P.T - np.eye(n), np.ones(n)]) against [0, …, 0, 1].",
        ),
    ),
    "2.3": Grader(
        function="continuation_counts",
        level="everyone",
        grade=grade_continuation_counts,
        target="minillm.baselines.ngram.continuation_counts",
        hints=(
            "gram[1:] is the gram without its oldest token. Its count does not matter.",
            "Each gram is one key of the dictionary, however often it was seen.",
            "So count how many keys end in each gram[1:]: Counter(gram[1:] for gram in grams).",
        ),
    ),
    "2.4": Grader(
        function="price_of_reading_backwards",
        level="everyone",
        grade=grade_price_of_reading_backwards,
        hints=(
            "What is the probability of a whole row, if you may begin at either end?",
            "-KneserNey(train_rows[:, ::-1], 32, 3).log_probs(held_out[:, ::-1]).mean()",
            "Forwards or backwards, the factors multiply to the same probability of the same row.",
        ),
        model_answer=(
            "The chain rule may be begun at either end: p(a) p(b|a) = p(b) p(a|b). A row has one "
            "probability, so its price is the same in both directions, and the floor is 1.533 nats "
            "backwards, too. (A model need not reach it as easily: Papadopoulos et al. 2024, "
            '"Arrows of Time for Large Language Models", find real text slightly harder backwards.)'
        ),
    ),
    "2.5": Grader(
        function="shortest_code",
        level="stretch",
        grade=grade_shortest_code,
        hints=(
            "Try n = 0, 1, 2, … bits. For each n there is one best m; you need not try all.",
            "m is the first with m / 2^n >= low: m = math.ceil(low * 2**n).",
            'Stop when (m + 1) / 2^n <= high; then format(m, f"0{n}b"), but "" for n = 0.',
        ),
    ),
}
