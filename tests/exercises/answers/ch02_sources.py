"""Other right answers to chapter 02, and one mutant a task that no diagnosis knows."""

SECOND_STYLE = {
    "2.1": """
import numpy as np
def bits_per_byte(log_probs, n_bytes):
    bits = -np.asarray(log_probs) * np.log2(np.e)
    return bits.sum() / n_bytes
""",
    "2.2": """
import numpy as np
def entropy_rate(transition):
    # A lazy source stays where it is half the time: it has the same π, and it settles.
    lazy = (np.asarray(transition, dtype=float) + np.eye(len(transition))) / 2
    for _ in range(60):
        lazy = lazy @ lazy
        lazy = lazy / lazy.sum(axis=1, keepdims=True)
    pi = lazy[0]
    rate = 0.0
    for weight, row in zip(pi, transition):
        rate -= weight * sum(p * np.log(p) for p in row if p > 0)
    return rate
""",
    "2.3": """
def continuation_counts(grams):
    seen = {}
    for gram in grams:
        seen.setdefault(gram[1:], set()).add(gram[0])
    return {rest: len(front) for rest, front in seen.items()}
""",
    "2.4": """
def price_of_reading_backwards():
    return [1.55, 1.56, "联合概率从哪一端展开都一样，所以总代价相同。"]
""",
    "2.5": """
from fractions import Fraction
from itertools import count
def shortest_code(low, high):
    for n in count():
        cell = Fraction(1, 2**n)
        m = -(-low // cell)
        if (m + 1) * cell <= high:
            return "".join(str(m >> place & 1) for place in reversed(range(n)))
""",
    "2.6": """
import numpy as np
from minillm.baselines.ngram import KneserNey
def choose_order(rows):
    totals = np.zeros(5)
    for fold in range(4):
        kept = np.arange(len(rows)) % 4 != fold
        for place in range(5):
            model = KneserNey(rows[kept], 8, place + 1)
            totals[place] -= model.log_probs(rows[~kept]).sum()
    return int(totals.argmin()) + 1
""",
    "2.7": """
def what_happened(training, lowest, held_out, error):
    z = {"low": lowest / error, "end": held_out / error, "rise": (held_out - lowest) / error}
    verdict = "at the entropy"
    if z["end"] > 3:
        verdict = "learn on"
    if z["rise"] > 3:
        verdict = "overfitting"
    return "leak" if z["low"] < -3 else verdict
""",
}

MUTANT = {
    "2.1": "def bits_per_byte(log_probs, n_bytes):\n    return 2.0",
    "2.2": "def entropy_rate(transition):\n    return 0.3251",
    "2.3": "def continuation_counts(grams):\n    return {(2,): 1, (3,): 2}",
    "2.4": (
        'def price_of_reading_backwards():\n    return 1.54, 100.0, "nobody can read backwards"'
    ),
    "2.5": 'def shortest_code(low, high):\n    return "0110"',
    "2.6": "def choose_order(rows):\n    return 2",
    "2.7": 'def what_happened(training, lowest, held_out, error):\n    return "learn on"',
}
