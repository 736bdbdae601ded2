"""Answers for the graders of chapter 02: other right ones, typical mistakes, and a mutant."""

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
    return 1.56, "联合概率从哪一端展开都一样，所以总代价相同。"
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
}

# Task -> (what the learner did, a phrase of the diagnosis that must come).
MISTAKES = {
    "2.1": [
        (
            """
import math
def bits_per_byte(log_probs, n_bytes):
    return sum(log_probs) / math.log(2) / n_bytes
""",
            "take minus",
        ),
        (
            """
def bits_per_byte(log_probs, n_bytes):
    return -sum(log_probs) / n_bytes
""",
            "nats a byte",
        ),
        (
            """
import math
def bits_per_byte(log_probs, n_bytes):
    return -sum(log_probs) / math.log(2)
""",
            "divide by its bytes",
        ),
        (
            """
import math
def bits_per_byte(log_probs, n_bytes):
    return -sum(log_probs) / math.log(2) / len(log_probs)
""",
            "by the number of tokens",
        ),
        (
            """
import math
def bits_per_byte(log_probs, n_bytes):
    return -sum(log_probs) * math.log(2) / n_bytes
""",
            "you multiply",
        ),
        (
            """
import math
def bits_per_byte(log_probs, n_bytes):
    return round(-sum(log_probs) / math.log(2) / n_bytes)
""",
            "yours gives 0",
        ),
        (
            """
def bits_per_byte(log_probs, n_bytes):
    print(log_probs)
""",
            "returns nothing",
        ),
        (
            """
import math
def bits_per_byte(log_probs, n_bytes):
    return [-log_p / math.log(2) / n_bytes for log_p in log_probs]
""",
            "return one number",
        ),
        (
            """
import numpy as np
def bits_per_byte(log_probs, n_bytes):
    with np.errstate(all="ignore"):
        return -np.log2(np.prod(np.exp(log_probs))) / n_bytes
""",
            "add their logarithms",
        ),
    ],
    "2.2": [
        (
            """
import numpy as np
def entropy_rate(transition):
    transition[transition == 0] = 1
    transition -= np.eye(len(transition))
    return 0.0
""",
            "work on a copy",
        ),
        (
            """
import numpy as np
def entropy_rate(transition):
    rows = -(transition * np.log(np.where(transition > 0, transition, 1))).sum(1)
    return rows.mean()
""",
            "weight all rows alike",
        ),
        (
            """
import numpy as np
def entropy_rate(transition):
    return -(transition * np.log(np.where(transition > 0, transition, 1))).sum()
""",
            "you add the rows' entropies",
        ),
        (
            """
import numpy as np
def entropy_rate(transition):
    rows = -(transition * np.log2(np.where(transition > 0, transition, 1))).sum(1)
    return rows.mean()
""",
            "these are bits",
        ),
        (
            """
import numpy as np
def entropy_rate(transition):
    rows = (transition * np.log(np.where(transition > 0, transition, 1))).sum(1)
    return rows.mean()
""",
            "never negative",
        ),
        (
            """
import numpy as np
def entropy_rate(transition):
    pi = np.ones(len(transition)) / len(transition)
    for _ in range(10000):
        pi = pi @ transition
    rows = -(transition * np.log(np.where(transition > 0, transition, 1))).sum(1)
    return pi @ rows
""",
            "never settles",
        ),
        (
            """
import numpy as np
def entropy_rate(transition):
    n = len(transition)
    equations = np.vstack([transition.T - np.eye(n), np.ones(n)])
    pi = np.linalg.lstsq(equations, np.append(np.zeros(n), 1.0), rcond=None)[0]
    with np.errstate(all="ignore"):
        rows = -(transition * np.log(transition)).sum(1)
    return pi @ rows
""",
            "0 · log 0",
        ),
        (
            """
import numpy as np
def entropy_rate(transition):
    pi = np.ones(len(transition)) / len(transition)
    for _ in range(200):
        pi = (pi + pi @ transition) / 2
    rows = -(transition * np.log(np.where(transition > 0, transition, 1))).sum(1)
    return pi @ rows
""",
            "no time to settle",
        ),
        (
            """
import numpy as np
def entropy_rate(transition):
    n = len(transition)
    equations = np.vstack([transition.T - np.eye(n), np.ones(n)])
    pi = np.linalg.lstsq(equations, np.append(np.zeros(n), 1.0), rcond=None)[0][::-1]
    rows = -(transition * np.log(np.where(transition > 0, transition, 1))).sum(1)
    return pi @ rows
""",
            "symbols swapped",
        ),
        (
            """
import numpy as np
def entropy_rate(transition):
    pi = transition[0]
    rows = -(transition * np.log(np.where(transition > 0, transition, 1))).sum(1)
    return pi @ rows
""",
            "nats a symbol",
        ),
    ],
    "2.3": [
        (
            """
def continuation_counts(grams):
    out = {}
    for gram, count in grams.items():
        out[gram[1:]] = out.get(gram[1:], 0) + count
    return out
""",
            "how many DIFFERENT",
        ),
        (
            """
def continuation_counts(grams):
    out = {}
    for gram in grams:
        out[gram[:-1]] = out.get(gram[:-1], 0) + 1
    return out
""",
            "leave out the oldest",
        ),
        (
            """
def continuation_counts(grams):
    out = {}
    for gram in grams:
        out[gram[1]] = out.get(gram[1], 0) + 1
    return out
""",
            "keep the keys tuples",
        ),
        (
            """
def continuation_counts(grams):
    out = {}
    for gram in grams:
        out[gram[-1:]] = out.get(gram[-1:], 0) + 1
    return out
""",
            "must give",
        ),
        (
            """
def continuation_counts(grams):
    out = {}
    while grams:
        gram, _ = grams.popitem()
        out[gram[1:]] = out.get(gram[1:], 0) + 1
    return out
""",
            "you change the dictionary",
        ),
        (
            """
def continuation_counts(grams):
    return sorted(gram[1:] for gram in grams)
""",
            "return a dictionary",
        ),
    ],
    "2.4": [
        (
            """
def price_of_reading_backwards():
    return 1.533
""",
            "return two things",
        ),
        (
            """
def price_of_reading_backwards():
    return 3.47, "because it cannot know anything from the end"
""",
            "pure guessing",
        ),
        (
            """
def price_of_reading_backwards():
    return 2.45, "because causes come before effects, so it is harder"
""",
            "floor is lower still",
        ),
        (
            """
def price_of_reading_backwards():
    return 1.2, "because the end already tells how it began, I think"
""",
            "less than forwards",
        ),
        (
            """
def price_of_reading_backwards():
    return 2.21, "because the whole row has the same probability"
""",
            "these are bits",
        ),
        (
            """
def price_of_reading_backwards():
    return float("nan"), "because nobody can know what came before"
""",
            "must be finite",
        ),
        (
            """
def price_of_reading_backwards():
    return 1.533, "same"
""",
            "say in a sentence",
        ),
    ],
    "2.5": [
        (
            """
def shortest_code(low, high):
    n = 0
    while True:
        for m in range(2**n):
            if low * 2**n <= m and m + 1 <= high * 2**n:
                return format(m, f"0{n}b") if n else ""
        n += 1
""",
            "do you try row after row",
        ),
        (
            """
import math
def shortest_code(low, high):
    n = max(0, math.ceil(-math.log2(high - low)) - 1)
    return format(math.ceil(low * 2**n), f"0{n}b") if n else ""
""",
            "all its numbers must be inside",
        ),
        (
            """
import math
def shortest_code(low, high):
    n = 0
    while math.floor(high * 2**n) - 1 < low * 2**n:
        n += 1
    return format(math.floor(high * 2**n) - 1, f"0{n}b") if n else ""
""",
            "take the smaller m",
        ),
        (
            """
import math
def shortest_code(low, high):
    n = 0
    while math.ceil(low * 2**n) + 1 > high * 2**n:
        n += 1
    return format(math.ceil(low * 2**n), "b") if n else ""
""",
            "A leading 0",
        ),
        (
            """
def shortest_code(low, high):
    bits, width = "", high - low
    while 2 ** -len(bits) > width / 2:
        low = low * 2
        bits += str(int(low))
        low -= int(low)
    return bits or "0"
""",
            "digits of `low`",
        ),
        (
            """
import math
def shortest_code(low, high):
    n = 1
    while math.ceil(low * 2**n) + 1 > high * 2**n:
        n += 1
    return format(math.ceil(low * 2**n), f"0{n}b")
""",
            "the empty one",
        ),
        (
            """
import math
def shortest_code(low, high):
    n = 0
    low, high = float(low), float(high)
    while math.ceil(low * 2**n) + 1 > high * 2**n and n < 1000:
        n += 1
    return format(math.ceil(low * 2**n), f"0{n}b") if n else ""
""",
            "too coarse",
        ),
        (
            """
import math
def shortest_code(low, high):
    n = 0
    low, high = float(low), float(high)
    while math.ceil(low * 2**n) + 1 > high * 2**n:
        n += 1
    return format(math.ceil(low * 2**n), f"0{n}b") if n else ""
""",
            "too narrow for floats",
        ),
        (
            """
import math
def shortest_code(low, high):
    n = 0
    while math.ceil(low * 2**n) + 1 > high * 2**n:
        n += 1
    return int(format(math.ceil(low * 2**n), f"0{n}b"), 2) if n else 0
""",
            "as text",
        ),
    ],
}

MUTANT = {
    "2.1": "def bits_per_byte(log_probs, n_bytes):\n    return 2.0",
    "2.2": "def entropy_rate(transition):\n    return 0.3251",
    "2.3": "def continuation_counts(grams):\n    return {(2,): 1, (3,): 2}",
    "2.4": (
        'def price_of_reading_backwards():\n    return 100.0, "nobody can read backwards at all"'
    ),
    "2.5": 'def shortest_code(low, high):\n    return "0110"',
}
