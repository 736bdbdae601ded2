"""What `@task` runs for chapter 18.

Chapter: 18
"""

from itertools import product

import torch

from minillm.lab.diagnose import check_sentence, held, hold, randn, split_sentence
from minillm.lab.grade import Diagnosis, Grader


# --- 18.1 -----------------------------------------------------------------------------------------
def rounded(
    weight, bits, *, steps=None, largest=None, nearest=torch.round, codes=False, guard=True
):
    """Each row on its grid; the options are mistakes."""
    reach = largest(weight) if largest else weight.abs().amax(dim=1, keepdim=True)
    scale = reach / (steps(bits) if steps else 2 ** (bits - 1) - 1)
    number = nearest(weight / (torch.where(scale > 0, scale, 1) if guard else scale))
    return number if codes else number * scale


def _matrix(seed, bits, rows=3, columns=8):
    """Rows whose scales are powers of two, so that a scale in 16 bits is the same."""
    weight = randn(rows, columns, seed=seed)
    weight = weight / weight.abs().amax(dim=1, keepdim=True) * (2 ** (bits - 1) - 1)
    return weight * 2.0 ** torch.arange(-2, rows - 2)[:, None]


MATRICES = [
    (torch.tensor([[1.5, -0.5, 0.2], [0.0, 6.0, -2.5]]), 3),
    (torch.tensor([[0.25, -1.75, 0.9], [0.0, 0.0, 0.0]]), 4),
    (_matrix(0, 2), 2),
    (_matrix(1, 8), 8),
    (_matrix(2, 5, rows=1), 5),
]
MATRICES_WRONG = [
    (
        lambda *case: rounded(*case, guard=False),
        "a row of zeros has the scale 0, and 0 / 0 is NaN.",
    ),
    (
        lambda *case: rounded(*case, largest=lambda w: w.abs().max()),
        "each row has a scale of its own; you share one among all of the matrix.",
    ),
    (
        lambda *case: rounded(*case, steps=lambda bits: 2 ** (bits - 1)),
        "there is one code too many on the positive side: 3 bits reach from -3 to 3.",
    ),
    (
        lambda *case: rounded(*case, largest=lambda w: w.amax(dim=1, keepdim=True)),
        "the largest weight may be negative: the scale comes from the largest |weight|.",
    ),
    (
        lambda *case: rounded(*case, nearest=torch.trunc),
        "you cut off the fraction; take the nearest whole number, which halves the error.",
    ),
    (
        lambda *case: rounded(*case, codes=True),
        "you return codes; multiply by the scale to get numbers back.",
    ),
]


# --- 18.2 -----------------------------------------------------------------------------------------
def taken(matrices, choices, scales=True):
    """Bytes of these choices."""
    pairs = zip(matrices, choices, strict=True)
    return sum(n * (bits + 16 * scales / group) / 8 for (n, _), (bits, group) in pairs)


def rise(matrices, choices):
    """Of the loss, with these choices."""
    return sum(r[choice] for (_, r), choice in zip(matrices, choices, strict=True))


def placed(matrices, budget, *, scales=True, alike=False):
    """The best choices within a budget; the options are mistakes."""
    fitting = [
        choices
        for choices in product(*(rises for _, rises in matrices))
        if taken(matrices, choices, scales) <= budget and not (alike and len({*choices}) > 1)
    ]
    return list(min(fitting, key=lambda each: rise(matrices, each)))


def greedy(matrices, budget, gain):
    """From the cheapest on, again and again the change of most gain that still fits."""
    choices = [min(r, key=lambda c, n=n: taken([(n, r)], [c])) for n, r in matrices]
    while True:
        changes = []
        for place, (n, rises) in enumerate(matrices):
            for choice in rises:
                after = [*choices[:place], choice, *choices[place + 1 :]]
                saved = rises[choices[place]] - rises[choice]
                more = taken([(n, rises)], [choice]) - taken([(n, rises)], [choices[place]])
                if saved > 0 and taken(matrices, after) <= budget:
                    changes.append((gain(saved, more), after))
        if not changes:
            return choices
        choices = max(changes)[1]


LONG, SHORT = (4, 128), (4, 32)
MODEL = [
    (640, {(8, 128): 0.0, LONG: 0.2}),
    (2560, {(8, 128): 0.0, LONG: 0.3}),
]
THREE = [
    (1280, {(8, 128): 0.0, SHORT: 0.11, LONG: 0.12, (2, 32): 0.9}),
    (2560, {(8, 128): 0.0, SHORT: 0.15, LONG: 0.19, (2, 32): 0.7}),
    (2560, {(8, 128): 0.0, SHORT: 0.05, LONG: 0.08, (2, 32): 0.1}),
]
KNAPSACK = [
    (1280, {(8, 128): 0.0, LONG: 0.13}),
    (1920, {(8, 128): 0.0, LONG: 0.16}),
    (1920, {(8, 128): 0.0, LONG: 0.15}),
]
BUDGETS = [
    (MODEL, 2000),
    (MODEL, 3300),
    (MODEL, 1660),
    (THREE, 3200),
    (THREE, 3560),
    (THREE, 4000),
    (KNAPSACK, 4560),
    (KNAPSACK, 3990),
]
BUDGETS_WRONG = [
    (
        lambda *case: placed(*case, scales=False),
        "scales take bytes, too: 16 bits a group, and you are over the budget.",
    ),
    (
        lambda *case: placed(*case, alike=True),
        "the same choice for all fits, but a mixture loses less: bytes are worth more in some "
        "matrices than in others.",
    ),
    (
        lambda *case: greedy(*case, lambda saved, more: saved),
        "you serve the matrix that suffers most first; it may be large, and the same bytes save "
        "more elsewhere.",
    ),
    (
        lambda *case: greedy(*case, lambda saved, more: saved / more),
        "loss saved for each byte is a good rule, and can leave bytes unused: compare whole "
        "placements.",
    ),
    (
        lambda matrices, budget: [min(r, key=r.get) for _, r in matrices],
        "that takes the best choice of each matrix, whatever the budget.",
    ),
]


# --- 18.3 -----------------------------------------------------------------------------------------
def moved(row, H, first, *, sign=1, step=None):
    """The other weights after one was rounded; the options are mistakes."""
    by = step(H) if step else torch.linalg.solve(H[1:, 1:], H[1:, 0])
    return row[1:] + sign * (row[0] - first) * by


def _inputs(n, seed):
    x = randn(4 * n, n, seed=seed).double() @ (randn(n, n, seed=seed + 1).double() + 1)
    return x.T @ x / n


PAIR = torch.tensor([[1.0, 0.5], [0.5, 1.0]]).double()
MOVES = [
    (torch.tensor([0.4, 0.4]).double(), PAIR, 0.0),
    (torch.tensor([0.4, 0.4]).double(), torch.diag(torch.tensor([2.0, 3.0])).double(), 1.0),
    (torch.tensor([0.7, -0.3, 0.2]).double(), _inputs(3, 5), 1.0),
    (randn(6, seed=3).double(), _inputs(6, 8), -0.5),
]
MOVES_WRONG = [
    (
        lambda *case: moved(*case, sign=-1),
        "the sign: what the first weight lost, the others must gain.",
    ),
    (
        lambda *case: moved(*case, step=lambda H: H[1:, 0] / H.diagonal()[1:]),
        "each of the others is moved as if it were alone, so what they share is made good twice: "
        "solve with their whole block of H.",
    ),
    (
        lambda *case: moved(*case, step=lambda H: H[1:, 0] / H[0, 0]),
        "divided by H[0, 0], the first weight would move for the others; you want the reverse.",
    ),
    (
        lambda *case: moved(*case, step=lambda H: H[1:, 0]),
        "H[1:, 0] says how far the others are like the first; the size of their own inputs "
        "counts as well.",
    ),
    (
        lambda *case: moved(*case, step=lambda H: 0 * H[1:, 0]),
        "nothing moves: that is round to nearest.",
    ),
    (
        lambda *case: moved(*case, sign=-1, step=lambda H: torch.linalg.inv(H)[1:, 0]),
        "a column of the inverse of all of H must still be divided by its first number.",
    ),
]


# --- 18.4 -----------------------------------------------------------------------------------------
def faster(n_texts, bits, fetched, computed, *, rows=True, both=max, turn=1):
    """Seconds of a weight in 32 bits ÷ in fewer; the options are mistakes."""
    compute = 2 * (n_texts if rows else 1) / computed
    return (both(4 / fetched, compute) / both(bits / 8 / fetched, compute)) ** turn


STEPS = [
    (1, 8, 10e9, 20e9),
    (2, 8, 10e9, 20e9),
    (16, 4.5, 10e9, 20e9),
    (1, 4.5, 2e12, 3e14),
    (64, 4, 2e12, 1e14),
    (3, 16, 12e9, 30e9),
]
STEPS_WRONG = [
    (lambda *case: 32 / case[1], "that holds only while fetching takes longer than computing."),
    (
        lambda *case: faster(*case, both=lambda a, b: a + b),
        "both go on at the same time: the slower counts, not their sum.",
    ),
    (
        lambda *case: faster(*case, rows=False),
        "every text adds its own operations.",
    ),
    (lambda *case: faster(*case, turn=-1), "the other way round: the old time ÷ the new."),
]
WHY = "what becomes of the gain with many texts, and why"
LIMIT = ("comput", "operation", "arithm", "multipl", "flop", "计算", "运算", "算力")


def grade_times_as_fast(answer):
    """The number in all cases; the sentence must name what takes the time."""
    sentences = []

    def number(*case):
        (value,), sentence = split_sentence(answer(*case))
        sentences.append(sentence)
        return value

    hold(number, faster, STEPS, STEPS_WRONG)
    check_sentence(sentences[0], WHY)
    if not any(word in sentences[0].lower() for word in LIMIT):
        raise Diagnosis("the number is right; your sentence does not yet say what takes the time.")


GRADERS = {
    "18.1": Grader(
        function="round_rows",
        level="everyone",
        grade=held(rounded, MATRICES, MATRICES_WRONG),
        wrong=MATRICES_WRONG,
        target="minillm.quant.rtn.quantize",
        hints=(
            "A scale for each row: its largest |weight| ÷ the largest code, 2 ** (bits - 1) - 1. "
            "amax(dim=1, keepdim=True) keeps the shape.",
            "Divide by the scale, take the nearest whole number, multiply by the scale.",
            "Where a row's scale is 0, divide by 1 instead: torch.where.",
        ),
    ),
    "18.2": Grader(
        function="place_bits",
        level="everyone",
        grade=held(placed, BUDGETS, BUDGETS_WRONG),
        wrong=BUDGETS_WRONG,
        hints=(
            "Write a function for the bytes of one choice: n_weights · (bits + 16 / group) / 8.",
            "There are few matrices and few choices: look at all combinations (itertools.product).",
            "Of those whose bytes fit, take the one whose rises sum to the least.",
        ),
    ),
    "18.3": Grader(
        function="move_others",
        level="stretch",
        grade=held(moved, MOVES, MOVES_WRONG),
        wrong=MOVES_WRONG,
        target="minillm.quant.gptq.quantize",
        hints=(
            "Write d = (-error, m), error = row[0] - rounded, and m the moves of the others.",
            "d · H · d = error² H00 - 2 error (m · H10) + m · H11 · m. Its slope in m is 0 where a "
            "linear system holds.",
            "H11 m = error · H10: torch.linalg.solve(H[1:, 1:], H[1:, 0]).",
        ),
    ),
    "18.4": Grader(
        function="times_as_fast",
        level="stretch",
        grade=grade_times_as_fast,
        wrong=[
            *(
                ((lambda *c, f=wrong: (f(*c), "because computing takes longer")), text)
                for wrong, text in STEPS_WRONG
            ),
            (lambda *case: (faster(*case), ""), f"now say in a sentence {WHY}."),
            (
                lambda *case: (faster(*case), "because it is simply so"),
                "the number is right; your sentence does not yet say what takes the time.",
            ),
        ],
        hints=(
            "Look at one weight: how long does it take to fetch its bits?",
            "And to compute with it: 2 · n_texts operations.",
            "The slower of the two, with 32 bits, ÷ the slower of the two with fewer.",
        ),
        model_answer=(
            "Each text adds operations but no bytes. So from some number of texts on, computing "
            "takes longer than fetching, and fewer bytes gain nothing: the factor falls from "
            "32 ÷ bits to 1."
        ),
    ),
}
