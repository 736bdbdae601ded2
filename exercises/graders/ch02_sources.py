"""What `@task` runs for chapter 02.

Chapter: 02
"""

import math
import time
from fractions import Fraction

import numpy as np

from minillm.baselines.ngram import KneserNey, continuation_counts
from minillm.lab.diagnose import held, hold
from minillm.lab.grade import Diagnosis, Grader, as_number
from minillm.town.dialects import Markov, dialects
from minillm.train.plain import token_rows


def _on_arrays(answer):
    """The answer with arrays for lists, which must stay as they are, and a float for a number."""

    def called(*case):
        given = [np.array(each) if isinstance(each, list) else each for each in case]
        got = answer(*given)
        for before, after in zip(case, given, strict=True):
            if isinstance(before, list) and not np.array_equal(before, after):
                raise Diagnosis("you change the array that was given; work on a copy of it.")
        return got if isinstance(got, str) else as_number(got)

    return called


LOG_2 = math.log(2)


# --- 2.1 ------------------------------------------------------------------------------------------
def bits_per_byte(log_probs, n_bytes, nats_per_bit=LOG_2):
    return float(-sum(log_probs) / nats_per_bit / n_bytes)


def bits_of_the_product(log_probs, n_bytes):
    product = math.prod(math.exp(each) for each in log_probs)
    return -math.log2(product) / n_bytes if product else math.inf


TEXTS = [
    ([math.log(1 / 8), math.log(1 / 2)], 5),
    ([math.log(1 / 2)] * 5, 5),
    ([math.log(1 / 8), math.log(1 / 2)] * 2, 10),
    ([math.log(1 / 2)] * 6, 4),
    ([math.log(1 / 4)] * 2_000, 500),
]
BITS_WRONG = [
    (
        lambda logs, n: -bits_per_byte(logs, n),
        "logarithms of probabilities are negative: take minus.",
    ),
    (lambda logs, n: bits_per_byte(logs, n, 1), "these are nats; one bit is log 2 nats."),
    (
        lambda logs, n: bits_per_byte(logs, 1),
        "these are the bits of the whole text: one twice as long gets twice as many.",
    ),
    (
        lambda logs, n: bits_per_byte(logs, len(logs)),
        "you divide by the tokens, so whoever cuts into more of them looks better. Divide by what "
        "both models share: the bytes.",
    ),
    (lambda logs, n: bits_per_byte(logs, n, 1 / math.log(2)), "divide by log 2; you multiply."),
    (
        bits_of_the_product,
        "the product of 2,000 probabilities is 0 for a computer: add their logarithms instead.",
    ),
]


# --- 2.2 ------------------------------------------------------------------------------------------
def entropy_rate(chain, weights=None):
    chain = np.array(chain)
    n = len(chain)
    equations = np.vstack([chain.T - np.eye(n), np.ones(n)])
    pi = np.linalg.lstsq(equations, np.append(np.zeros(n), 1), rcond=None)[0]
    rows = -(chain * np.log(np.where(chain > 0, chain, 1))).sum(axis=1)
    return float(rows @ (pi if weights is None else np.full(n, weights)))


def rate_with_zeros(chain):
    return math.nan if 0 in np.array(chain) else entropy_rate(chain)


def rate_soon(chain):
    """π after a hundred lazy steps."""
    chain = np.array(chain)
    pi = np.full(len(chain), 1 / len(chain))
    for _ in range(100):
        pi = (pi + pi @ chain) / 2
    return float(pi @ -(chain * np.log(np.where(chain > 0, chain, 1))).sum(axis=1))


CHAINS = [([[0.9, 0.1], [0.1, 0.9]],), ([[0.9, 0.1], [0.5, 0.5]],)]
ALTERNATING = [[0.0, 0.5, 0.5], [1.0, 0.0, 0.0], [1.0, 0.0, 0.0]]
LONG_MEMORY = [[0.9999, 0.0001, 0.0], [0.0, 0.5, 0.5], [0.001, 0.499, 0.5]]
RATE_WRONG = [
    (lambda c: entropy_rate(c) / math.log(2), "these are bits; use the natural logarithm."),
    (lambda c: -entropy_rate(c), "an entropy is never negative: it is MINUS the sum of p log p."),
    (
        lambda c: entropy_rate(c, 1),
        "you add the rows' entropies; weight them by π, which sums to one.",
    ),
    (
        lambda c: entropy_rate(c, 1 / len(c)),
        "you weight all rows alike. (Or your π solves P · π = π; it must be π · P = π.)",
    ),
]


def grade_entropy_rate(answer):
    """Two chains of two symbols, then one that alternates, and one that settles very slowly."""
    rate = _on_arrays(answer)
    hold(rate, entropy_rate, CHAINS, RATE_WRONG)
    got = rate(ALTERNATING)
    if math.isnan(got):
        raise Diagnosis("0 · log 0 is NaN for a computer; a probability of zero adds nothing.")
    if not math.isclose(got, math.log(2) / 2, rel_tol=1e-3):
        raise Diagnosis(
            f"{ALTERNATING} has {math.log(2) / 2:.4f} nats, half its time being at 0; yours gives "
            f"{got:.4g}. If you multiply π again and again: that never settles here."
        )
    if not math.isclose(rate(LONG_MEMORY), entropy_rate(LONG_MEMORY), rel_tol=1e-3):
        raise Diagnosis(
            "for a source that changes its mind once in 10,000 steps yours is wrong: π had no time "
            "to settle. Solve the equations."
        )


# --- 2.3 ------------------------------------------------------------------------------------------
def sums_by(grams, key=lambda gram: gram[1:], weight=lambda count: 1):
    totals = {}
    for gram, count in grams.items():
        totals[key(gram)] = totals.get(key(gram), 0) + weight(count)
    return totals


GRAMS = [
    ({(0, 2): 9, (0, 3): 1, (1, 3): 2},),
    ({(0, 1, 2): 5, (3, 1, 2): 1, (0, 1, 3): 2, (0, 2, 2): 1, (1, 2, 2): 4, (2, 2, 2): 7},),
    ({},),
]
COUNTS_WRONG = [
    (
        lambda grams: sums_by(grams, weight=lambda count: count),
        "you add up how often they were seen; count how many DIFFERENT tokens stood in front.",
    ),
    (
        lambda grams: sums_by(grams, key=lambda gram: gram[:-1]),
        "you leave out the newest token; leave out the oldest, the first.",
    ),
    (
        lambda grams: sums_by(grams, key=lambda gram: gram[1]),
        "keep the keys tuples, also of one token: gram[1:], not gram[1].",
    ),
    (
        lambda grams: sums_by(grams, key=lambda gram: gram[-1:]),
        "of three tokens two remain, not one: gram[1:], not gram[-1:].",
    ),
]


def grade_continuation_counts(answer):
    """A Counter is a dictionary, too."""

    def as_dict(grams):
        got = answer(grams)
        return dict(got) if isinstance(got, dict) else got

    hold(as_dict, lambda grams: dict(continuation_counts(grams)), GRAMS, COUNTS_WRONG)


# --- 2.4 ------------------------------------------------------------------------------------------
ENTROPY = 1.5329  # of the market square, in nats a token
BACKWARDS_WRONG = [
    (
        lambda: (2.222, 2.223, "both directions have the same product"),
        "these are bits; nats are asked for.",
    ),
    (
        lambda: (0.002, -2.703, "backwards it is far easier"),
        "above_source subtracts the source's forward loss",
    ),
    (lambda: (1.54, 1.2, "the end tells how it began"), "lower than forwards? Then reading"),
    (
        lambda: (1.54, 1.746, "causes come before effects"),
        "train one, KneserNey(train_rows[:, ::-1], 32, 3)",
    ),
    (lambda: (1.54, 1.541, "same"), "the numbers are right; now say in a sentence why."),
    (lambda: (1.541, "it is the same product"), "return three things: both losses"),
]


def grade_reading_backwards(answer):
    """Both numbers are graded; the sentence must be there."""
    got = answer()
    if not (isinstance(got, tuple | list) and len(got) == 3):
        raise Diagnosis("return three things: both losses that you measured, and your sentence.")
    forwards, backwards, sentence = as_number(got[0]), as_number(got[1]), got[2]
    if math.isclose(backwards, ENTROPY / math.log(2), rel_tol=0.02):
        raise Diagnosis("these are bits; nats are asked for.")
    if min(forwards, backwards) < 0.1:
        raise Diagnosis(
            "above_source subtracts the source's forward loss; measure the loss itself, "
            "-model.log_probs(rows)[:, 2:].mean()."
        )
    if not ENTROPY * 0.985 <= forwards < ENTROPY * 1.03:
        raise Diagnosis(
            f"forwards order 3 has about 1.54 nats a token; yours {forwards:.4g}. Train on "
            "train_rows, and measure on held_out."
        )
    if backwards < ENTROPY * 0.985:
        raise Diagnosis(
            "lower than forwards? Then reading backwards would compress the same text further."
        )
    if not backwards < ENTROPY * 1.03:
        raise Diagnosis(
            "train one, KneserNey(train_rows[:, ::-1], 32, 3), and measure it on the reversed "
            "held-out rows: its loss is lower than that."
        )
    if not isinstance(sentence, str) or (len(sentence.split()) < 4 and len(sentence) < 8):
        raise Diagnosis("the numbers are right; now say in a sentence why.")


# --- 2.5 ------------------------------------------------------------------------------------------
def shortest_code(low, high, least=0, largest=False, pad=True):
    n = least
    while math.ceil(low * 2**n) + 1 > high * 2**n:
        n += 1
    m = math.floor(high * 2**n) - 1 if largest else math.ceil(low * 2**n)
    return format(m, f"0{n}b" if pad else "b") if n else ""


def code_of_a_point(low, high):
    """Digits of a number inside, though what they name reaches outside."""
    n = max(0, math.ceil(-math.log2(high - low)) - 1)
    return format(math.ceil(low * 2**n), f"0{n}b") if n else ""


INTERVALS = [(Fraction(a, 12), Fraction(b, 12)) for a in range(12) for b in range(a + 1, 13)]
CODE_WRONG = [
    (code_of_a_point, "all numbers that your bits name must be inside, not only the first."),
    (lambda a, b: shortest_code(a, b, largest=True), "of equally short rows take the smaller m."),
    (
        lambda a, b: shortest_code(a, b, pad=False),
        "m of n bits needs n digits: a leading 0 is a bit.",
    ),
    (lambda a, b: shortest_code(a, b, least=1), "0 to 1 is everything: its shortest row is empty."),
    (lambda a, b: shortest_code(a, b) + "0", "that is a bit more than is needed."),
]


def grade_shortest_code(answer):
    """Every interval of twelfths, and two far too narrow for floats or for trying every row."""
    hold(answer, shortest_code, INTERVALS, CODE_WRONG)
    low = Fraction(2, 7)
    began = time.process_time()  # a busy machine is no fault of the answer
    answer(low, low + Fraction(1, 10**5))
    if (seconds := time.process_time() - began) > 0.1:
        raise Diagnosis(
            f"an interval of 1/100,000 takes you {seconds:.1f} s: do you try row after row? Only "
            "the lengths must be tried, m follows."
        )
    try:
        right = answer(low, low + Fraction(1, 10**200)) == shortest_code(
            low, low + Fraction(1, 10**200)
        )
    except (OverflowError, ZeroDivisionError):
        right = False
    if not right:
        raise Diagnosis("an interval of 10^-200 is too narrow for floats; stay exact.")


# --- 2.6 ------------------------------------------------------------------------------------------
def losses_of_orders(learn, held_out):
    return {n: -KneserNey(learn, 8, n).log_probs(held_out).mean() for n in range(1, 6)}


def best_order(rows, best=min, held_out=0.2):
    rows = np.array(rows)
    n = int(held_out * len(rows))
    losses = losses_of_orders(rows[n:], rows[:n] if n else rows)
    return float(best(losses, key=losses.get))


def order_cases():
    """Sources of order 0 to 3, and enough of each that any fair choice finds the same."""
    base = dialects(n_symbols=8, order=1)[0].stationary
    sources = [Markov(base, np.tile(base, (8, 1)))]
    sources += [
        dialects(n_districts=3, n_symbols=8, order=k)[i] for k, i in ((1, 0), (2, 2), (3, 1))
    ]
    sizes = (2**11, 2**11, 2**13, 2**13)
    return [
        (token_rows(source, n, seed="grade", row_length=32).tolist(),)
        for source, n in zip(sources, sizes, strict=True)
    ]


ORDER_WRONG = [
    (
        lambda rows: best_order(rows, held_out=0),
        "you measure on the rows that the models learned from, where the longest order wins. "
        "Hold some rows out.",
    ),
    (lambda rows: best_order(rows, best=max), "that order has the HIGHEST loss; lower is better."),
    (lambda rows: best_order(rows) - 1, "you count orders from 0; the unigram model has order 1."),
    (lambda rows: 3.0, "you give 3 for every text; try the orders on each."),
]


def grade_choose_order(answer):
    """Four sources, of which a fair choice finds the order."""
    hold(_on_arrays(answer), best_order, order_cases(), ORDER_WRONG)


# --- 2.7 ------------------------------------------------------------------------------------------
def verdict(training, lowest, held_out, error, *, errors=3, first="leak", leak_by="held out"):
    luck = errors * error
    risen = held_out - lowest > luck
    if first == "overfitting" and risen:
        return "overfitting"
    if (training if leak_by == "training" else lowest) < -luck:
        return "leak"
    return "overfitting" if risen else "learn on" if held_out > luck else "at the entropy"


def verdict_by_memory(training, lowest, held_out, error):
    """Overfitting for a training loss below the source's, whatever becomes of new text."""
    if lowest >= -3 * error > training:
        return "overfitting"
    return verdict(training, lowest, lowest, error)


RUNS = [
    (0.3, 0.31, 0.31, 0.004),
    (-0.66, 0.29, 0.73, 0.02),
    (0.1, 0.15, 0.4, 0.02),
    (-0.4, 0.25, 0.28, 0.02),
    (-1.5, -1.4, -1.4, 0.01),
    (-0.9, -0.3, 0.3, 0.02),
    (-0.003, -0.005, -0.005, 0.004),
    (0.03, 0.04, 0.055, 0.02),
]
RUNS_WRONG = [
    (
        lambda t, low, h, e: verdict(t, low, h, e, errors=0),
        "a difference of one or two standard errors is luck; you read it as news.",
    ),
    (
        lambda t, low, h, e: verdict(t, low, h, e, leak_by="training"),
        "a low TRAINING loss is memory. A leak shows in the held-out loss.",
    ),
    (
        lambda t, low, h, e: verdict(t, low, h, e, first="overfitting"),
        "one run shows both: if the held-out loss was too low, the rows are not held out, and "
        "nothing else counts: leak comes first.",
    ),
    (
        verdict_by_memory,
        "a training loss below the source's is memory; overfitting is what comes of it on new "
        "text: the held-out loss rises.",
    ),
    (
        lambda t, low, h, e: verdict(t, h, h, e),
        "you never look at the lowest held-out loss: one that rose from there is overfitting.",
    ),
    (
        lambda t, low, h, e: verdict(-t, -h, -low, e),
        "turned round: what has seen the answers has a loss that is too LOW.",
    ),
]


GRADERS = {
    "2.1": Grader(
        function="bits_per_byte",
        level="everyone",
        grade=lambda answer: hold(_on_arrays(answer), bits_per_byte, TEXTS, BITS_WRONG),
        wrong=BITS_WRONG,
        target="minillm.baselines.ngram.bits_per_byte",
        hints=(
            "What do both models have in common: the tokens, or the text and its bytes?",
            "The whole text costs minus the sum of log_probs, in nats; a bit is log 2 nats.",
            "-sum(log_probs) / math.log(2) / n_bytes",
        ),
    ),
    "2.2": Grader(
        function="entropy_rate",
        level="stretch",
        grade=grade_entropy_rate,
        wrong=[
            *RATE_WRONG,
            (
                rate_with_zeros,
                "0 · log 0 is NaN for a computer; a probability of zero adds nothing.",
            ),
            (rate_soon, "for a source that changes its mind once in 10,000 steps yours is wrong"),
        ],
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
        wrong=COUNTS_WRONG,
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
        grade=grade_reading_backwards,
        wrong=BACKWARDS_WRONG,
        hints=(
            "What is the probability of a whole row, if you may begin at either end?",
            "-KneserNey(train_rows[:, ::-1], 32, 3).log_probs(held_out[:, ::-1])[:, 2:].mean()",
            "Forwards or backwards, the factors multiply to the same probability of the same row.",
        ),
        model_answer=(
            "The chain rule may be begun at either end: p(a) p(b|a) = p(b) p(a|b). A row has one "
            "probability, so its loss is the same in both directions, and the lowest is 1.533 nats "
            "backwards, too. (A model need not reach it as easily: Papadopoulos et al. 2024, "
            '"Arrows of Time for Large Language Models", find real text slightly harder backwards.)'
        ),
    ),
    "2.5": Grader(
        function="shortest_code",
        level="stretch",
        grade=grade_shortest_code,
        wrong=CODE_WRONG,
        hints=(
            "Try n = 0, 1, 2, … bits. For each n there is one best m; you need not try all.",
            "m is the first with m / 2^n >= low: m = math.ceil(low * 2**n).",
            'Stop when (m + 1) / 2^n <= high; then format(m, f"0{n}b"), but "" for n = 0.',
        ),
    ),
    "2.6": Grader(
        function="choose_order",
        level="stretch",
        grade=grade_choose_order,
        wrong=ORDER_WRONG,
        hints=(
            "On which rows may a model be measured, if it is to be used on new ones?",
            "Keep a fifth of the rows away from all five models, and measure on those.",
            "min(losses, key=losses.get), where losses[n] is the held-out loss of order n.",
        ),
    ),
    "2.7": Grader(
        function="what_happened",
        level="everyone",
        grade=held(verdict, RUNS, RUNS_WRONG),
        wrong=RUNS_WRONG,
        hints=(
            "luck = 3 * error; between -luck and luck a difference says nothing.",
            "Which of the four numbers tells about new text? Two do; the training loss does not.",
            "Leak: lowest < -luck. Overfitting: held_out - lowest > luck. Else: held_out > luck?",
        ),
    ),
}
