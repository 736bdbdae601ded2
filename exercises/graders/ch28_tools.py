"""What `@task` runs for chapter 28.

Chapter: 28
"""

import math
from dataclasses import dataclass, field
from functools import partial

from minillm.lab.diagnose import check_sentence, held, split_sentence
from minillm.lab.grade import Diagnosis, Grader


# --- 28.1 -----------------------------------------------------------------------------------------
@dataclass
class Writer:
    """A model that writes its turns one after the other; the last one again and again."""

    turns: tuple[str, ...]
    calls: int = field(default=0, compare=False)

    def __call__(self, text):
        self.calls += 1
        if self.calls > 40:
            raise Diagnosis("your loop never ends: stop after `most_calls` calls.")
        return self.turns[min(text.count(";"), len(self.turns) - 1)]


def product(expression):
    """A calculator that can only multiply."""
    a, sign, b = expression.split() if expression.count(" ") == 2 else ("", "", "")
    if sign != "*" or not (a + b).isdigit():
        raise ValueError(f"not a product: {expression}")
    return str(int(a) * int(b))


def loop(write, question, calculate, most_calls, *, more=0, start="[ ", call=True, **mistakes):
    """The loop; the options are mistakes."""
    text = question
    for n_run in range(most_calls + more + 1):
        words = write(text)
        text = text if words.endswith("]") and not call else f"{text} {words}"
        if not words.endswith("]") or n_run >= min(most_calls + more, mistakes.get("once", 99)):
            break
        try:
            result = calculate(words.strip(start + " ]"))
        except ValueError:
            result = "error"
        text = f"{text} {result} ;"
    return words if mistakes.get("last") else text


CALLS = [
    (Writer(turns), question, product, most_calls)
    for turns, question, most_calls in (
        (("[ 347 * 582 ]", "201954 ."), "347 times 582 ?", 4),
        (("Mei .",), "who says 3 times 4 ?", 4),
        (("[ 2 * 3 ]", "[ 6 * 7 ]", "42 ."), "2 times 3 times 7 ?", 2),
        (("[ 2 + 3 ]", "[ 2 3 ]", "nobody knows ."), "2 and 3 ?", 4),
        (("[ 2 * 3 ]",), "2 times 3 ?", 3),
        (("[ 2 * 3 ]", "6 ."), "2 times 3 ?", 0),
    )
]
CALLS_WRONG = [
    (partial(loop, **options), message)
    for options, message in (
        ({"start": ""}, "calculate is given the brackets, too; give it what stands between them."),
        ({"call": False}, "the call itself must stay in the text, before its result."),
        ({"once": 1}, "after a result the model may call again: you run one call only."),
        ({"more": 1}, "you run one call more than `most_calls`."),
        ({"last": True}, "give the whole text, from the question to the answer."),
    )
]


# --- 28.2 -----------------------------------------------------------------------------------------
TOO_LONG = "you compute a number that is far too long, and look at its length only then."


class Watched(int):
    """A base whose powers and products refuse to become too long."""

    limit, n_steps = 0, 0

    def watched(self, value, n_steps=0):
        result = Watched(value)
        result.limit, result.n_steps = self.limit, n_steps
        return result

    def checked(self, n_digits):
        if n_digits > 2 * self.limit + 2:
            raise Diagnosis(TOO_LONG)

    def __abs__(self):
        return self.watched(abs(int(self)), self.n_steps)

    def __pow__(self, other, modulus=None):
        self.checked(int(other) * math.log10(max(1, abs(int(self)))))
        return self.watched(pow(int(self), int(other), modulus))

    def __mul__(self, other):
        n_steps = max(self.n_steps, getattr(other, "n_steps", 0)) + 1
        if n_steps > 20_000:
            raise Diagnosis("you multiply once for each unit of the exponent; use **.")
        self.checked((int(self).bit_length() + int(other).bit_length()) * math.log10(2) - 2)
        return self.watched(int(self) * int(other), n_steps)

    __rmul__ = __mul__


def bounded(base, exponent, most_digits, *, judge=None, digits=None, most=math.inf):
    """The power, unless it is too long; the options are mistakes."""
    base, exponent = int(base), int(exponent)
    if judge is not None:
        return base**exponent if judge(base, exponent) <= most_digits else "refused"
    if exponent > most or (abs(base).bit_length() - 1) * exponent > 4 * most_digits:
        return "refused"
    result = base**exponent
    long = digits(result) > most_digits if digits else abs(result) >= 10**most_digits
    return "refused" if long else result


def by_logarithm(base, exponent):
    """Digits by a float, which rounds."""
    return math.floor(exponent * math.log10(abs(base))) + 1 if base else 1


ROWS = """
10 19 20, 10 20 20, 9 9 9, 9 9 8, -7 3 3, 12 3 4, 999999999999999 2 30, 3 2000 955, 3 2000 954,
7 500000 50, 1 1000000000000 1, -1 1000000000001 1, 0 1000000000000 5, 0 0 1
"""
POWERS = [(Watched(b), e, most) for b, e, most in (map(int, r.split()) for r in ROWS.split(","))]
for base, _, most_digits in POWERS:
    base.limit = most_digits
POWERS_WRONG = [
    (
        partial(bounded, judge=lambda base, exponent: len(str(abs(base))) * exponent),
        "you refuse powers that are short enough: digits of the base times the exponent is more "
        "than the power has. A bound that refuses must be one from below.",
    ),
    (
        partial(bounded, judge=lambda base, exponent: (len(str(abs(base))) - 1) * exponent + 1),
        "you let powers pass that are too long: a bound from below only says which ones to "
        "refuse. Compute the others, and look.",
    ),
    (
        partial(bounded, judge=by_logarithm),
        "a logarithm is rounded: near the border compute the power, and count its digits.",
    ),
    (partial(bounded, digits=lambda power: len(str(power))), "the minus sign is no digit."),
    (
        partial(bounded, most=10_000),
        "powers of 0, 1 and -1 stay short, however large the exponent is.",
    ),
]


def computed_first(base, exponent, most_digits):
    """The mistake that the task is about."""
    result = base**exponent
    return result if abs(result) < 10**most_digits else None


# --- 28.3 -----------------------------------------------------------------------------------------
def threshold(gains, useful, least, *, stop=False, better=None, alone=False, recall=False, more=0):
    """The lowest threshold that is precise enough; the options are mistakes."""
    best, most = None, 0.0
    order = sorted(range(len(gains)), key=lambda i: -gains[i])
    for rank, i in enumerate(order):
        kept = [useful[j] for j in order if gains[j] >= gains[i] + more]
        if alone:
            kept = [useful[j] for j in order[: rank + 1]]
        share = sum(kept) / max(1, sum(useful) if recall else len(kept))
        if share >= least and (not better or share > most):
            best, most = gains[i], share
        elif stop and share < least:
            break
    return "none" if best is None else best


SAMPLES = [
    ([2.0, 1.0, 0.5, 0.1], [True, False, True, False], 0.6),
    ([2.0, 1.0, 0.5, 0.1], [True, False, True, False], 0.9),
    ([3.0, 2.5, 1.5, 1.0, 0.2], [False, True, True, True, False], 0.75),
    ([0.5, 1.0, 1.0, 2.0, 0.5], [True, True, False, True, False], 0.7),
    ([1.0, 0.4, 0.4], [True, True, False], 0.8),
    ([1.0, 0.3], [False, False], 0.5),
    ([0.1, 0.2, 0.3, 0.4, -0.5], [True, False, True, True, True], 0.75),
]
SAMPLES_WRONG = [
    (partial(threshold, **options), message)
    for options, message in (
        ({"stop": True}, "go on after a bad threshold: a lower one may be precise enough again."),
        ({"better": True}, "it need only be precise enough: then keep as many calls as you can."),
        ({"alone": True}, "a threshold keeps all calls of the same gain, or none of them."),
        ({"recall": True}, "divide by the number of calls that are kept, not of useful ones."),
        ({"more": 1e-9}, "a call whose gain equals the threshold is kept."),
    )
]


# --- 28.4 -----------------------------------------------------------------------------------------
def success(q, p=0.9, n_needed=6, n_left=10, lost=False):
    """The exact share of successes."""
    if n_needed == 0 or n_left == 0:
        return float(n_needed == 0)
    go = partial(success, q, p, n_left=n_left - 1)
    if lost:
        return q * go(n_needed=n_needed) + (1 - q) * go(n_needed=n_needed, lost=True)
    return p * go(n_needed=n_needed - 1) + (1 - p) * go(n_needed=n_needed, lost=True)


NEVER, OFTEN = 100 * success(0.0), 100 * success(0.9)  # in %
WHY = "what the policy of (b) knows that the other does not"
BECAUSE = "it has learned what to do after a mistake"
EPISODES_WRONG = [
    ((90.0, 90.0), "that is the share of right actions; six of them are needed."),
    ((OFTEN, NEVER), "the two are exchanged: with q = 0 a mistake is the end."),
    ((NEVER, 100.0), "in (b) an episode ends after ten actions, whether it has succeeded or not."),
    ((NEVER / 100, OFTEN / 100), "give both in %, such as 50.0 for one half."),
    ((NEVER, NEVER), "in (b) a mistake is not the end: with q = 0.9 it can come back."),
]


def grade_off_the_path(answer):
    """Both within 2 points, and a sentence."""
    got, sentence = split_sentence(answer(), n_numbers=2)

    def near(pair):
        return all(abs(own - each) <= 2.0 for own, each in zip(got, pair, strict=True))

    for pair, message in EPISODES_WRONG:
        if near(pair):
            raise Diagnosis(message)
    if not near((NEVER, OFTEN)):
        raise Diagnosis(
            f"{got[0]:.1f} and {got[1]:.1f} % are not both right: draw episodes of at most ten "
            "actions, and keep two things, how many were right and whether it is off the path."
        )
    check_sentence(sentence, WHY)


GRADERS = {
    "28.1": Grader(
        function="run_calls",
        level="everyone",
        grade=held(loop, CALLS, CALLS_WRONG),
        wrong=CALLS_WRONG,
        target="minillm.agents.tools.converse",
        hints=(
            "Keep one text, which begins as the question. Each turn adds what the model writes.",
            'words.strip("[] ") takes off the brackets; then try calculate, except ValueError.',
            "Go round most_calls + 1 times: in the last round a call is added, and not run.",
        ),
    ),
    "28.2": Grader(
        function="power",
        level="stretch",
        grade=held(
            bounded,
            POWERS,
            POWERS_WRONG,
            read=lambda got: (
                "refused" if got is None else int(got) if isinstance(got, int) else got
            ),
        ),
        wrong=[*POWERS_WRONG, (computed_first, TOO_LONG)],
        target="minillm.agents.calculator.calculate",
        hints=(
            "First find a bound that costs nothing: how long is the power at least?",
            "With b = abs(base).bit_length() the base is at least 2 ** (b - 1). So the power is "
            "at least 2 ** ((b - 1) * exponent).",
            "Refuse if this bound is above 10 ** most_digits, by comparing bits. All others are "
            "less than twice as long as they may be: compute and look.",
        ),
    ),
    "28.3": Grader(
        function="choose_threshold",
        level="everyone",
        grade=held(
            threshold, SAMPLES, SAMPLES_WRONG, read=lambda got: "none" if got is None else got
        ),
        wrong=SAMPLES_WRONG,
        hints=(
            "Try each of the gains as the threshold, and work out what it keeps.",
            "The precision is sum(kept) / len(kept), with the judgements of the calls it keeps.",
            "A lower threshold keeps more. So the lowest one that is precise enough is best.",
        ),
    ),
    "28.4": Grader(
        function="off_the_path",
        level="stretch",
        grade=grade_off_the_path,
        wrong=[
            *((lambda pair=pair: (*pair, BECAUSE), message) for pair, message in EPISODES_WRONG),
            (lambda: (NEVER, OFTEN, ""), f"now say in a sentence {WHY}."),
        ],
        hints=(
            "An episode has two variables: how many actions on the path were right, and whether "
            "it is off the path.",
            "On the path: with 0.9 one more is right, else it is lost. Lost: with q it is back.",
            "Count an episode as soon as six are right; give up after ten actions.",
        ),
        model_answer=(
            "It knows the way back. With q = 0 every mistake is the end, and six right actions in "
            "a row have probability 0.9 ** 6 = 0.53. With q = 0.9 a mistake costs two actions as "
            "a rule, and there are four to spare: 94 % succeed."
        ),
    ),
}
