"""What `@task` runs for chapter 06.

Chapter: 06
"""

import math
from functools import partial

import torch

from minillm.lab.diagnose import (
    check_sentence,
    held,
    hold,
    measured,
    randn,
    shown,
    split_sentence,
    swapped,
)
from minillm.lab.grade import Diagnosis, Grader, as_number
from minillm.optim.adafactor import factored
from minillm.optim.adamw import AdamWState, adamw_update


# --- 6.1 ------------------------------------------------------------------------------------------
def sign(c):
    return float((c > 0) - (c < 0))


def lion(sequences, betas, *, of=sign, by_new=False, far=abs):
    ends = []
    for gradients in sequences:
        weight = mean = 0.0
        for g in gradients:
            new = betas[1] * mean + (1 - betas[1]) * g
            weight -= of(new if by_new else betas[0] * mean + (1 - betas[0]) * g)
            mean = new
        ends.append(weight)
    distances = [far(end) for end in ends]
    return distances.index(max(distances)), ends


def numbers_of(got):
    """An index and a list, whatever kinds of numbers they are."""
    if isinstance(got, tuple | list) and len(got) == 2 and isinstance(got[1], tuple | list):
        return int(as_number(got[0])), [as_number(end) for end in got[1]]
    return got


LION = [
    ([[3.0, -1.0], [0.0, 5.0]], (0.9, 0.99)),
    (
        [[2.0] * 5 + [-1.0], [50.0, -50.0] * 3, [100.0, -1.0, -1.0, -1.0, -1.0, -1.0]],
        (0.9, 0.99),
    ),
    ([[-1.0, -1.0, 2.0], [1.0, -3.0, 0.25, 0.25], [-2.0, -3.0, -1.0], [4.0, 4.0]], (0.6, 0.9)),
]
LION_WRONG = [
    (
        lambda sequences, betas: lion(sequences, betas[::-1]),
        "β₁ and β₂ are exchanged: β₁ decides the sign, β₂ is for what is kept.",
    ),
    (
        partial(lion, by_new=True),
        "you update m before c is computed; c takes m as the step before left it.",
    ),
    (partial(lion, of=float), "the weight moves by c itself; Lion takes its sign."),
    (partial(lion, of=lambda c: -sign(c)), "the weight goes along the sign; subtract it."),
    (
        partial(lion, of=lambda c: 1.0 if c >= 0 else -1.0),
        "where c is 0 the weight must stay; the sign of 0 is 0.",
    ),
    (
        partial(lion, far=float),
        "the ends are right; furthest is meant on either side of 0, so compare abs(end).",
    ),
]


# --- 6.2 ------------------------------------------------------------------------------------------
def kept(v, factor, *, power=0.5, worst=torch.max, long=True, short=True, divided=True, cheap=True):
    rebuilt = factored(v.mean(dim=1), v.mean(dim=0)) * (1 if divided else v.mean())
    ratio = (v / rebuilt) ** power
    off = [worst(ratio)] * long + [worst(1 / ratio)] * short
    few = sum(v.shape) < v.numel() or not cheap
    return "factored" if few and max(off) <= factor else "whole"


ONE_LARGE = torch.tensor([[1.0, 1.0, 1.0], [1.0, 1.0, 9.0]])
KEPT = [
    (ONE_LARGE, 1.5),
    (ONE_LARGE, 1.6),
    (torch.tensor([[1.0, 3.0], [2.0, 6.0], [4.0, 12.0]]), 1.1),
    (torch.tensor([[1.0, 1.0, 1.0], [1.0, 1.0, 0.01]]), 2.0),
    (torch.tensor([[3.0, 5.0], [9.0, 15.0]]), 1.5),
    (torch.tensor([[1.0, 2.0, 3.0]]), 1.5),
    (torch.tensor([[0.5, 1.0, 1.5], [0.5, 1.0, 1.5]]), 1.5),  # of mean 1
]
KEPT_WRONG = [
    (partial(kept, power=1), "you compare v itself; a step is divided by the root of it."),
    (
        partial(kept, long=False),
        "a step may also come out too long: where the rebuilt v is smaller.",
    ),
    (
        partial(kept, short=False),
        "a step may also come out too short: where the rebuilt v is larger.",
    ),
    (partial(kept, worst=torch.mean), "you take the mean; NO weight's step may be off by more."),
    (partial(kept, divided=False), "R[i] · C[j] is as large as v²; divide by the mean of R."),
    (
        partial(kept, cheap=False),
        "a single row, or a 2 × 2 matrix, has as many means as numbers or more: 'whole'.",
    ),
]


# --- 6.3 ------------------------------------------------------------------------------------------
def confident(update, momentum, rows, columns, beta, epsilon, *, power=2, divided=None):
    unstable = (update - momentum).abs() ** power + epsilon
    r = beta * rows + (1 - beta) * unstable.mean(dim=1)
    c = beta * columns + (1 - beta) * unstable.mean(dim=0)
    return (momentum if divided is None else divided) / factored(r, c).sqrt(), r, c


def confident_mixed_twice(update, momentum, rows, columns, beta, epsilon):
    new = 0.9 * momentum + 0.1 * update
    return confident(update, new, rows, columns, beta, epsilon, divided=momentum)


CONFIDENT = [
    (
        torch.tensor([[4.0, -3.0], [3.0, 2.0]]),
        torch.tensor([[2.0, 1.0], [2.0, -1.0]]),
        torch.tensor([6.0, 2.0]),
        torch.tensor([3.0, 5.0]),
        0.75,
        0.5,
    ),
    (randn(3, 5), 0.1 * randn(3, 5), torch.zeros(3), torch.zeros(5), 0.9999, 1e-16),
    (randn(3, 5), randn(3, 5), torch.zeros(3), torch.zeros(5), 0.9, 1e-16),  # û = m
]
CONFIDENT_WRONG = [
    (
        lambda u, m, r, c, b, e: confident(u, m, r, c, b, e, divided=u),
        "û is divided; it is m, which the confidence shortens.",
    ),
    (lambda u, m, r, c, b, e: confident(u, m, r, c, b, e, power=1), "û - m is not squared."),
    (
        lambda u, m, r, c, b, e: confident(u, m, r, c, b, 0.0),
        "ε is missing in U; without it, û = m would give 0 / 0.",
    ),
    (confident_mixed_twice, "m has taken in this update already; do not mix û in once more."),
]


# --- 6.4 ------------------------------------------------------------------------------------------
FIRST_STEP = measured(
    0.1 / (0.9 * math.sqrt(1e-4)),
    [
        (1.0, "that is Adam's first step, whose averages are corrected for their start at 0."),
        (10.0, "that leaves out the 0.9: û - m is 0.9 û after the first step, not û."),
        (0.001, "that is m / S; CAME divides by the root of S."),
    ],
    "build CAME with lr=1.0, give a matrix of zeros a gradient of ones, take one step, and look "
    "how far it went; without a sign.",
    "what makes the step so long",
)


# --- 6.5 ------------------------------------------------------------------------------------------
def adam_mini(gradient, mean, square, step, betas, eps, *, over=1, corrected=1, inside=0, power=2):
    squares = (gradient**2).mean(dim=over) if power == 2 else gradient.mean(dim=over) ** 2
    m = betas[0] * mean + (1 - betas[0]) * gradient
    v = betas[1] * square + (1 - betas[1]) * squares
    one, two = (1 - betas[0] ** step, 1 - betas[1] ** step) if corrected else (1.0, 1.0)
    root = (v / two + eps).sqrt() if inside else (v / two).sqrt() + eps
    return (m / one) / root[:, None], m, v


def grade_adam_mini_update(answer):
    """The second step by hand, a longer one; and rows of one weight are Adam's."""
    hold(answer, adam_mini, MINI, MINI_WRONG, ("the direction", "m", "v"))
    g, m, v = randn(4, 1), randn(4, 1, seed=1), randn(4, seed=2).abs() + 1
    adam, _ = adamw_update(g, AdamWState(m, v[:, None]), 7)
    got = answer(g, m, v, 7, (0.9, 0.999), 1e-8)[0]
    if not torch.allclose(got, adam, rtol=1e-4):
        raise Diagnosis(f"with one weight a row this is Adam: {shown(adam)}; yours: {shown(got)}.")


MINI = [
    (
        torch.tensor([[3.0, -1.0], [2.0, 6.0]]),
        torch.tensor([[1.0, 2.0], [-1.0, 1.0]]),
        torch.tensor([2.0, 6.0]),
        2,
        (0.6, 0.8),
        0.25,
    ),
    (randn(3, 3), torch.zeros(3, 3), torch.zeros(3), 1, (0.9, 0.999), 1e-8),
]
MINI_WRONG = [
    (
        partial(adam_mini, over=0),
        "your v has a number a column; a row's weights share one: the mean over dim=1.",
    ),
    (partial(adam_mini, corrected=0), "m and v are not corrected for their start at 0."),
    (
        partial(adam_mini, power=1),
        "square first, then take the mean: numbers of both signs cancel in yours.",
    ),
    (partial(adam_mini, inside=1), "ε is inside the root; it is added to √v̂."),
]


# --- 6.6 ------------------------------------------------------------------------------------------
TEXTBOOK, MUONS = (1.5, -0.5, 0.0), (3.4445, -4.7750, 2.0315)


def rounds(s, coefficients, *, at_least=0):
    a, b, c = coefficients
    n_rounds = 0
    while s < 0.5 or n_rounds < at_least:
        s, n_rounds = a * s + b * s**3 + c * s**5, n_rounds + 1
    return n_rounds


def both(s, **how):
    return rounds(s, TEXTBOOK, **how), rounds(s, MUONS, **how)


ROUNDS = [(0.3,), (0.001,), (0.1,), (0.5,), (1.0,)]
ROUNDS_WRONG = [
    (lambda s: both(s)[::-1], "the textbook's polynomial comes first, then Muon's."),
    (lambda s: both(s, at_least=1), "you count a round that is not needed: for 0.5 it is 0."),
    (
        lambda s: tuple(n - 1 if n else 0 for n in both(s)),
        "you stop one round early: count until s is at least 0.5.",
    ),
]


def grade_rounds_of_newton_schulz(answer):
    """The counts are graded; the sentence must be there."""

    def counts(strength):
        numbers, sentence = split_sentence(answer(strength), 2)
        check_sentence(sentence, "why Muon's polynomial is faster")
        return tuple(map(int, numbers))

    names = ("the textbook's rounds", "Muon's rounds")
    hold(counts, both, ROUNDS, ROUNDS_WRONG, names)


# --- 6.7 ------------------------------------------------------------------------------------------
def verdict(search_a, search_b, again_a, again_b, *, edges=True, first=False, means=False):
    for search in (search_a, search_b) if edges else ():
        if min(search, key=search.get) in (min(search), max(search)):
            return "search more"
    if first:
        return "A" if min(search_a.values()) < min(search_b.values()) else "B"
    if means:
        return "A" if sum(again_a) / len(again_a) < sum(again_b) / len(again_b) else "B"
    if max(again_a) < min(again_b):
        return "A"
    return "B" if max(again_b) < min(again_a) else "cannot tell"


GOOD = {0.02: 2.4, 0.01: 2.5, 0.04: 2.6}
EDGE = {0.04: 2.2, 0.01: 2.5, 0.02: 2.4}
BROKEN = {0.01: 2.45, 0.005: 2.7, 0.02: math.inf}
VERDICTS = [
    (GOOD, GOOD, [2.4, 2.5], [2.6, 2.7]),
    (GOOD, GOOD, [2.4, 2.5], [2.45, 2.7]),
    (GOOD, BROKEN, [2.8, 2.7], [2.45, 2.5]),  # the search said A
    (EDGE, GOOD, [2.2, 2.3], [2.6, 2.7]),
    (GOOD, EDGE, [2.4, 2.5], [2.2, 2.3]),
    (BROKEN, GOOD, [2.5, 2.6], [2.3, 2.55]),
]
VERDICTS_WRONG = [
    (
        partial(verdict, first=True),
        "you let the search decide; its best loss is flattered by the choice. Take the new seeds.",
    ),
    (
        partial(verdict, edges=False),
        "one search ended at its smallest or largest rate, and you give a verdict all the same.",
    ),
    (
        partial(verdict, means=True),
        "you compare means alone; where the new losses overlap, it is 'cannot tell'.",
    ),
    (swapped(verdict, "A", "B"), "A and B are exchanged: the lower loss is the better."),
]


GRADERS = {
    "6.1": Grader(
        function="furthest_with_lion",
        level="everyone",
        grade=held(lion, LION, LION_WRONG, ("the sequence", "the ends"), numbers_of),
        wrong=LION_WRONG,
        target="minillm.optim.lion.lion_update",
        hints=(
            "Two loops: over the sequences, with weight = m = 0.0; inside it over the gradients.",
            "c first, from the old m; then the weight, against the sign of c; m comes last.",
            "(c > 0) - (c < 0) is the sign of c, 0 included; compare abs(end) in the end.",
        ),
        model_answer=(
            "C, at -6; A ends at -4 and B at 0. A large gradient stays in m for about a hundred "
            "steps: after the 100, 0.9 m is about 0.9 and a newest gradient of -1 adds only -0.1, "
            "so the sign stays, though five of the six gradients point the other way. In A the one "
            "gradient of -1 turns the sign at once, since m has come to no more than 0.1 by then."
        ),
    ),
    "6.2": Grader(
        function="whole_or_factored",
        level="everyone",
        grade=held(kept, KEPT, KEPT_WRONG),
        wrong=KEPT_WRONG,
        target="minillm.optim.adafactor.factored",
        hints=(
            "R = v.mean(dim=1), C = v.mean(dim=0); rebuilt: R[:, None] * C[None, :] / R.mean().",
            "A step is g / √v, and then g / √rebuilt. How many times as long is that?",
            "(v / rebuilt).sqrt(): hold its max to factor and its min to 1 / factor; then count.",
        ),
    ),
    "6.3": Grader(
        function="confident_direction",
        level="stretch",
        grade=held(confident, CONFIDENT, CONFIDENT_WRONG, ("the direction", "R", "C")),
        wrong=CONFIDENT_WRONG,
        target="minillm.optim.came.confidence",
        hints=(
            "instability = (update - momentum) ** 2 + epsilon; nothing happens to momentum.",
            "R ← beta * R + (1 - beta) * instability.mean(dim=1); C the same, with dim=0.",
            "momentum / (rows[:, None] * columns[None, :] / rows.mean()).sqrt(), the new ones.",
        ),
    ),
    "6.4": Grader(
        function="first_step_of_came",
        level="everyone",
        **FIRST_STEP,
        hints=(
            "weight = torch.nn.Parameter(torch.zeros(2, 3)), weight.grad = torch.ones(2, 3).",
            "One optimizer.step() with lr=0.5: how far is the weight from 0, divided by 0.5?",
            "m = 0.1 û, so û - m = 0.9 û. What is the root of 0.0001 · (0.9 û)²? Now m / √S.",
        ),
        model_answer=(
            "11.1, which is (1 - β₁) / (β₁ √(1 - β₃)) = 0.1 / (0.9 · 0.01), whatever the gradient. "
            "All of CAME's averages begin at 0 and none is corrected. After one step the momentum "
            "has 1/10 of the update, and the running instability 1/10,000 of its value; its root, "
            "by which the momentum is divided, has 1/100. Update clipping does not help: it comes "
            "before that division. With β₃ = 0.999 it is 3.5, with 0.99 it is 1.1; and while the "
            "gradients stay the same, it goes on to grow (48 at step 50). So CAME wants a warm-up, "
            "and in a short run a smaller β₃."
        ),
    ),
    "6.5": Grader(
        function="adam_mini_update",
        level="stretch",
        grade=grade_adam_mini_update,
        wrong=MINI_WRONG,
        hints=(
            "(gradient**2).mean(dim=1) is [rows]; averaged with β₂ it is v.",
            "For this step only: mean / (1 - beta1**step) and square / (1 - beta2**step).",
            "root[:, None] makes [rows, 1] of [rows]: each row of m̂ is divided by its own number.",
        ),
    ),
    "6.6": Grader(
        function="rounds_of_newton_schulz",
        level="everyone",
        grade=grade_rounds_of_newton_schulz,
        wrong=[
            (lambda s, n=wrong: (*n(s), "the powers vanish for small s"), message)
            for wrong, message in ROUNDS_WRONG
        ],
        hints=(
            "A while loop: as long as s < 0.5, replace s and add one to the count.",
            "Do it for (a, b, c) = (1.5, -0.5, 0) and again for (3.4445, -4.7750, 2.0315).",
            "For s = 0.001, s³ is a billionth. What is left of each polynomial?",
        ),
        model_answer=(
            "16 and 6 rounds for 0.001. When s is small, s³ and s⁵ are nothing beside s, so a "
            "round of the textbook's multiplies s by 1.5 and one of Muon's by 3.4445: log(500) ÷ "
            "log(1.5) is 15.3, and log(500) ÷ log(3.4445) is 5.0. The price is at the other end: "
            "Muon's values never settle at 1, they go on to move between 0.7 and 1.2."
        ),
    ),
    "6.7": Grader(
        function="fair_verdict",
        level="stretch",
        grade=held(verdict, VERDICTS, VERDICTS_WRONG),
        wrong=VERDICTS_WRONG,
        hints=(
            "min(search, key=search.get) is the rate with the lowest loss.",
            "Compare that rate with min(search) and max(search), for both searches, first of all.",
            "A is better if max(again_a) < min(again_b): its worst run beats B's best.",
        ),
    ),
}
