"""Answers for the graders of chapter 03: other right ones, typical mistakes, and a mutant."""

SECOND_STYLE = {
    "3.1": """
import torch
def look(q, k, v):
    rows = []
    for query in q:
        scores = torch.stack([(query * key).sum() for key in k]) / len(query) ** 0.5
        weights = torch.exp(scores - scores.max())
        rows.append((weights[:, None] * v).sum(dim=0) / weights.sum())
    return torch.stack(rows)
""",
    "3.2": """
import torch
def causal(query_positions, key_positions):
    return torch.tensor([[int(n) <= int(m) for n in key_positions] for m in query_positions])
""",
    "3.3": """
import torch
def turn(x, position, base=10000.0):
    half = len(x) // 2
    z = torch.complex(x[:half].double(), x[half:].double())
    theta = torch.tensor([position / base ** (2 * i / len(x)) for i in range(half)]).double()
    z = z * torch.polar(torch.ones_like(theta), theta)
    return torch.cat([z.real, z.imag]).to(x.dtype)
""",
    "3.4": """
import numpy as np
def online_softmax_sum(scores, values, tile=1):
    m, parts = -np.inf, np.zeros(2)
    place = 0
    while place < len(scores):
        s = np.array(scores[place : place + tile], dtype=float)
        v = np.array(values[place : place + tile], dtype=float)
        new = max(m, s.max())
        w = np.exp(s - new)
        parts = parts * np.exp(m - new) + np.array([w.sum(), w @ v])
        m, place = new, place + tile
    return parts[1] / parts[0]
""",
    "3.5": """
def price_of_forgetting():
    return 128.5, "文本加倍，倍数也大约加倍，所以总代价是长度的平方。"
""",
}

#: More right answers, of styles that a grader was or might be wrong about.
OTHER_STYLES = {
    "3.4": [
        """
import math
def online_softmax_sum(scores, values, tile=1):
    m, total, weighted = -math.inf, 0.0, 0.0
    for s, v in zip(scores, values):
        m, before = max(m, s), m
        kept, new = math.exp(before - m), math.exp(s - m)
        total, weighted = total * kept + new, weighted * kept + new * v
    return weighted / total
""",
        """
import itertools, math
def online_softmax_sum(scores, values, tile=1):
    m, total, weighted = -math.inf, 0.0, 0.0
    pairs = zip(scores, values)
    while part := list(itertools.islice(pairs, tile)):
        new = max(m, max(s for s, _ in part))
        total, weighted, m = total * math.exp(m - new), weighted * math.exp(m - new), new
        total += sum(math.exp(s - m) for s, _ in part)
        weighted += sum(math.exp(s - m) * v for s, v in part)
    return weighted / total
""",
        """
import math
def online_softmax_sum(scores, values, tile=1):
    m, total, weighted = -math.inf, 0.0, 0.0
    for end in range(len(scores), 0, -tile):
        begin = max(0, end - tile)
        new = max(m, max(scores[begin:end]))
        total, weighted, m = total * math.exp(m - new), weighted * math.exp(m - new), new
        for i in range(begin, end):
            w = math.exp(scores[i] - m)
            total, weighted = total + w, weighted + w * values[i]
    return weighted / total
""",
    ]
}

# Task -> (what the learner did, a phrase of the diagnosis that must come).
MISTAKES = {
    "3.1": [
        ("def look(q, k, v):\n    return (q @ k.T).softmax(-1) @ v", "not divided by √K"),
        (
            "def look(q, k, v):\n    return (q @ k.T / q.shape[-1]).softmax(-1) @ v",
            "divide by its square root",
        ),
        (
            "def look(q, k, v):\n    return (q @ k.T / q.shape[-1] ** 0.5) @ v",
            "there is no softmax",
        ),
        (
            "def look(q, k, v):\n    return (q @ k.T / q.shape[-1] ** 0.5).softmax(0) @ v",
            "runs over the queries",
        ),
        (
            "def look(q, k, v):\n"
            "    weights = (q @ k.T / q.shape[-1] ** 0.5).exp()\n"
            "    return weights @ v / weights.sum(-1, keepdim=True)",
            "overflow in exp",
        ),
        (
            "def look(q, k, v):\n"
            "    weights = (q @ k.T / q.shape[-1] ** 0.5).exp()\n"
            "    return weights @ v / weights.sum()",
            "wrong axis",
        ),
        (
            "def look(q, k, v):\n    q /= q.shape[-1] ** 0.5\n    return (q @ k.T).softmax(-1) @ v",
            "build new ones",
        ),
        (
            "def look(q, k, v):\n"
            "    s = q @ k.T / (v.shape[-1] if v.shape[-1] > 1 else 4) ** 0.5\n"
            "    return s.softmax(-1) @ v",
            "not the values'",
        ),
        (
            "def look(q, k, v):\n    return (q @ k.T / q.shape[-1] ** 0.5).softmax(-1)",
            "values of width 1 give",
        ),
        (
            "def look(q, k, v):\n"
            "    s = (q @ k.T / q.shape[-1] ** 0.5).clamp(max=20)\n"
            "    return s.softmax(-1) @ v",
            "wrong for large ones",
        ),
        (
            "def look(q, k, v):\n"
            "    return ((q @ k.T / q.shape[-1] ** 0.5).softmax(-1) @ v)[:, :1]",
            "3 queries, 5 keys",
        ),
        ("def look(q, k, v):\n    (q @ k.T / 2).softmax(-1) @ v", "returns nothing"),
        (
            "def look(q, k, v):\n    return ((q @ k.T / 2).softmax(-1) @ v).tolist()",
            "return a tensor",
        ),
    ],
    "3.2": [
        (
            "def causal(query_positions, key_positions):\n"
            "    return query_positions[:, None] > key_positions",
            "look at itself",
        ),
        (
            "def causal(query_positions, key_positions):\n"
            "    return query_positions[:, None] <= key_positions",
            "turned over",
        ),
        (
            "def causal(query_positions, key_positions):\n"
            "    return query_positions[:, None] < key_positions",
            "True means MAY look",
        ),
        (
            "def causal(query_positions, key_positions):\n"
            "    return query_positions >= key_positions",
            "add an axis",
        ),
        (
            "import torch\n"
            "def causal(query_positions, key_positions):\n"
            "    n, m = len(query_positions), len(key_positions)\n"
            "    return torch.ones(n, m).tril().bool()",
            "Compare the positions",
        ),
        (
            "import torch\n"
            "def causal(query_positions, key_positions):\n"
            "    n = len(key_positions)\n"
            "    return torch.ones(n, n).tril().bool()",
            "only the newest places",
        ),
        (
            "def causal(query_positions, key_positions):\n"
            "    return (query_positions[:, None] >= key_positions).float()",
            "must be of bool",
        ),
        (
            "def causal(query_positions, key_positions):\n"
            "    return [[n <= m for n in key_positions] for m in query_positions]",
            "return a tensor",
        ),
    ],
    "3.3": [
        (
            """
import torch
def turn(x, position, base=10000.0):
    h = len(x) // 2
    a = position * base ** (-2 * torch.arange(h).double() / len(x))
    return torch.cat([x[:h] * a.cos() + x[h:] * a.sin(), x[h:] * a.cos() - x[:h] * a.sin()])
""",
            "clockwise",
        ),
        (
            """
import torch
def turn(x, position, base=10000.0):
    x = x.clone()
    h = len(x) // 2
    a = position * base ** (-2 * torch.arange(h).double() / len(x))
    x[:h] = x[:h] * a.cos() - x[h:] * a.sin()
    x[h:] = x[:h] * a.sin() + x[h:] * a.cos()
    return x
""",
            "the OLD first",
        ),
        (
            """
import torch
def turn(x, position, base=10000.0):
    out = x.clone()
    a = position * base ** (-2 * torch.arange(len(x) // 2).double() / len(x))
    out[0::2] = x[0::2] * a.cos() - x[1::2] * a.sin()
    out[1::2] = x[0::2] * a.sin() + x[1::2] * a.cos()
    return out
""",
            "neighbours",
        ),
        (
            """
import torch
def turn(x, position, base=10000.0):
    h = len(x) // 2
    a = position * 10000.0 ** (-2 * torch.arange(h).double() / len(x))
    return torch.cat([x[:h] * a.cos() - x[h:] * a.sin(), x[:h] * a.sin() + x[h:] * a.cos()])
""",
            "`base` is ignored",
        ),
        (
            """
import torch
def turn(x, position, base=10000.0):
    h = len(x) // 2
    a = position * base ** (-torch.arange(h).double() / len(x))
    return torch.cat([x[:h] * a.cos() - x[h:] * a.sin(), x[:h] * a.sin() + x[h:] * a.cos()])
""",
            "half as fast",
        ),
        (
            """
import torch
def turn(x, position, base=10000.0):
    h = len(x) // 2
    a = (position + 1) * base ** (-2 * torch.arange(h).double() / len(x))
    return torch.cat([x[:h] * a.cos() - x[h:] * a.sin(), x[:h] * a.sin() + x[h:] * a.cos()])
""",
            "nothing turns",
        ),
        (
            """
import torch
def turn(x, position, base=10000.0):
    h = len(x) // 2
    a = position * base ** (-2 * torch.arange(h).double() / len(x))
    first, second = x[:h].clone(), x[h:].clone()
    x[:h] = first * a.cos() - second * a.sin() + 0 * position
    x[h:] = first * a.sin() + second * a.cos() + 1e-9
    return x
""",
            "x itself is changed",
        ),
        (
            """
import torch
def turn(x, position, base=10000.0):
    h = len(x) // 2
    a = position / (1 + torch.arange(h).double())
    return torch.cat([x[:h] * a.cos() - x[h:] * a.sin(), x[:h] * a.sin() + x[h:] * a.cos()])
""",
            "with base 100",
        ),
        (
            """
import torch
def turn(x, position, base=10000.0):
    h = len(x) // 2
    a = (position % 100) * base ** (-2 * torch.arange(h).double() / len(x))
    return torch.cat([x[:h] * a.cos() - x[h:] * a.sin(), x[:h] * a.sin() + x[h:] * a.cos()])
""",
            "7 places apart",
        ),
        (
            """
import math, torch
def turn(x, position, base=10000.0):
    h = len(x) // 2
    a = math.radians(position) * base ** (-2 * torch.arange(h).double() / len(x))
    return torch.cat([x[:h] * a.cos() - x[h:] * a.sin(), x[:h] * a.sin() + x[h:] * a.cos()])
""",
            "[3, 4] at position 1",
        ),
    ],
    "3.4": [
        (
            """
import math
def online_softmax_sum(scores, values, tile=1):
    m, total, weighted = -math.inf, 0.0, 0.0
    for b in range(0, len(scores), tile):
        old, m = m, max(m, *scores[b:b + tile])
        for s, v in zip(scores[b:b + tile], values[b:b + tile]):
            total += math.exp(s - m)
            weighted += math.exp(s - m) * v
    return weighted / total
""",
            "Are BOTH",
        ),
        (
            """
import math
def online_softmax_sum(scores, values, tile=1):
    m, weighted = -math.inf, 0.0
    for b in range(0, len(scores), tile):
        old, m = m, max(m, *scores[b:b + tile])
        weighted *= math.exp(old - m)
        for s, v in zip(scores[b:b + tile], values[b:b + tile]):
            weighted += math.exp(s - m) * v
    return weighted * math.exp(m)
""",
            "forget to divide",
        ),
        (
            """
import math
def online_softmax_sum(scores, values, tile=1):
    total = sum(math.exp(s) for s in scores)
    return sum(math.exp(s) * v for s, v in zip(scores, values)) / total
""",
            "exp(1000) overflows",
        ),
        (
            """
import math
def online_softmax_sum(scores, values, tile=1):
    m = max(scores)
    total = sum(math.exp(s - m) for s in scores)
    return sum(math.exp(s - m) * v for s, v in zip(scores, values)) / total
""",
            "64 numbers more of one list",
        ),
        (
            """
import math
def online_softmax_sum(scores, values, tile=1):
    m = max(s for s, _ in zip(scores, values))
    total = sum(math.exp(s - m) for s, _ in zip(scores, values))
    return sum(math.exp(s - m) * v for s, v in zip(scores, values)) / total
""",
            "you look 64 numbers back",
        ),
        (
            """
import math
def online_softmax_sum(scores, values, tile=1):
    m, total, weighted = -math.inf, 0.0, 0.0
    for b in range(0, len(scores) - len(scores) % tile, tile):
        old, m = m, max(m, *scores[b:b + tile])
        total *= math.exp(old - m)
        weighted *= math.exp(old - m)
        for s, v in zip(scores[b:b + tile], values[b:b + tile]):
            total += math.exp(s - m)
            weighted += math.exp(s - m) * v
    return weighted / total
""",
            "last tile is shorter",
        ),
        (
            """
import math
def online_softmax_sum(scores, values, tile=1):
    m, total, weighted = 0.0, 1e-300, 0.0
    for b in range(0, len(scores), tile):
        old, m = m, max(m, *scores[b:b + tile])
        total *= math.exp(old - m)
        weighted *= math.exp(old - m)
        for s, v in zip(scores[b:b + tile], values[b:b + tile]):
            total += math.exp(s - m)
            weighted += math.exp(s - m) * v
    return weighted / total
""",
            "begin with -inf",
        ),
        (
            """
import math
def online_softmax_sum(scores, values, tile=1):
    m, total, weighted = -math.inf, 0.0, 0.0
    for b in range(0, len(scores), tile):
        old, m = m, max(m, scores[b])
        total *= math.exp(old - m) if tile == 1 else 1
        weighted *= math.exp(old - m) if tile == 1 else 1
        for s, v in zip(scores[b:b + tile], values[b:b + tile]):
            total += math.exp(s - m)
            weighted += math.exp(s - m) * v
    return weighted / total
""",
            "wrong in tiles of 2",
        ),
        (
            """
import math
def online_softmax_sum(scores, values, tile=1):
    m, total, weighted = -math.inf, 0.0, 0.0
    for b in range(0, len(scores), tile):
        new = max(scores[b:b + tile])
        kept = math.exp(m - new) if new > m else 0.0 if m == -math.inf else 1.0
        m = new
        total *= kept
        weighted *= kept
        for s, v in zip(scores[b:b + tile], values[b:b + tile]):
            total += math.exp(s - m)
            weighted += math.exp(s - m) * v
    return weighted / total
""",
            "highest score comes first",
        ),
    ],
    "3.5": [
        (
            'def price_of_forgetting():\n    return 256, "it reads everything each time, I think"',
            "at first it is only one",
        ),
        (
            'def price_of_forgetting():\n    return 32896, "the sum of all numbers up to there"',
            "read in all",
        ),
        (
            'def price_of_forgetting():\n    return 127.5, "half of the length, less a half"',
            "the prompt is read",
        ),
        (
            'def price_of_forgetting():\n    return 2.0, "twice as long is twice as much"',
            "count: sum",
        ),
        ("def price_of_forgetting():\n    return 128.5", "return two things"),
        ('def price_of_forgetting():\n    return 128.5, "square"', "say in a sentence"),
    ],
}

MUTANT = {
    "3.1": "def look(q, k, v):\n    return q[:, :1] * 0 + v[:, :1].sum()",
    "3.2": (
        "import torch\n"
        "def causal(query_positions, key_positions):\n"
        "    return torch.ones(len(query_positions), len(key_positions), dtype=torch.bool)"
    ),
    "3.3": "def turn(x, position, base=10000.0):\n    return x if position == 0 else -x",
    "3.4": "def online_softmax_sum(scores, values, tile=1):\n    return sum(values) / len(values)",
    "3.5": (
        'def price_of_forgetting():\n    return float("nan"), "nobody can count that far, surely"'
    ),
}
