"""Other right answers to chapter 06, and one mutant a task that no diagnosis knows."""

SECOND_STYLE = {
    "6.1": """
import torch
def furthest_with_lion(sequences, betas):
    ends = []
    for sequence in sequences:
        kept, moved = torch.zeros(()), torch.zeros(())
        for g in map(torch.tensor, sequence):
            moved = moved - torch.lerp(g, kept, betas[0]).sign()
            kept = torch.lerp(g, kept, betas[1])
        ends.append(moved.item())
    return max(range(len(ends)), key=lambda i: ends[i] ** 2), tuple(ends)
""",
    "6.2": """
import math
def whole_or_factored(v, factor):
    table = v.tolist()
    n, m = len(table), len(table[0])
    if n + m >= n * m:
        return "whole"
    r = [sum(row) / m for row in table]
    c = [sum(column) / n for column in zip(*table)]
    for i in range(n):
        for j in range(m):
            V = r[i] * c[j] * n / sum(r)
            if abs(math.log(table[i][j] / V)) > 2 * math.log(factor):
                return "whole"
    return "factored"
""",
    "6.3": """
import torch
def confident_direction(update, momentum, rows, columns, beta, epsilon):
    u = (momentum - update).square().add(epsilon)
    r = torch.lerp(rows, u.mean(-1), 1 - beta)
    c = torch.lerp(columns, u.mean(-2), 1 - beta)
    trust = torch.outer(r.rsqrt(), c.rsqrt()) * r.mean().sqrt()
    return momentum * trust, r, c
""",
    "6.4": """
def first_step_of_came():
    b1, _, b3 = 0.9, 0.999, 0.9999
    u = 1.0
    m = (1 - b1) * u
    s = (1 - b3) * (u - m) ** 2
    return m / s**0.5, "滑动平均从零开始而没有修正，分母太小。"
""",
    "6.5": """
import torch
def adam_mini_update(gradient, mean, square, step, betas, epsilon):
    b1, b2 = betas
    m = mean.lerp(gradient, 1 - b1)
    v = torch.stack([b2 * old + (1 - b2) * (row @ row) / len(row)
                     for old, row in zip(square, gradient)])
    rate = (1 - b2**step) ** 0.5 / (v.sqrt() + epsilon * (1 - b2**step) ** 0.5)
    return torch.einsum("ij,i->ij", m, rate) / (1 - b1**step), m, v
""",
    "6.6": """
import math
def rounds_of_newton_schulz(strength):
    def cubic(s): return s * (3 - s * s) / 2
    def quintic(s): return s * (3.4445 + s * s * (2.0315 * s * s - 4.775))
    found = []
    for polynomial in (cubic, quintic):
        path = [strength]
        while path[-1] < 0.5:
            path.append(polynomial(path[-1]))
        found.append(len(path) - 1)
    return [*found, "很小的数，三次方几乎为零，只剩第一项的系数。"]
""",
    "6.7": """
def fair_verdict(search_a, search_b, again_a, again_b):
    def finished(search):
        losses = [search[rate] for rate in sorted(search)]
        return 0 < losses.index(min(losses)) < len(losses) - 1
    if not (finished(search_a) and finished(search_b)):
        return "search more"
    together = sorted([(x, "A") for x in again_a] + [(x, "B") for x in again_b])
    names = "".join(name for _, name in together)
    if names in ("A" * len(again_a) + "B" * len(again_b), "B" * len(again_b) + "A" * len(again_a)):
        return names[0]
    return "cannot tell"
""",
}

MUTANT = {
    "6.1": """
def furthest_with_lion(sequences, betas):
    ends = [float(-len(gradients)) for gradients in sequences]
    return ends.index(min(ends)), ends
""",
    "6.2": """
def whole_or_factored(v, factor):
    return "whole"
""",
    "6.3": """
def confident_direction(update, momentum, rows, columns, beta, epsilon):
    u = (update - momentum) ** 2 + epsilon
    r = beta * rows + (1 - beta) * u.mean(dim=1)
    c = beta * columns + (1 - beta) * u.mean(dim=0)
    return momentum / ((r[:, None] * c / r.mean()).sqrt() + 1), r, c
""",
    "6.4": """
def first_step_of_came():
    return float("nan"), "because nothing is corrected at all"
""",
    "6.5": """
def adam_mini_update(gradient, mean, square, step, betas, epsilon):
    m = betas[0] * mean + (1 - betas[0]) * gradient
    v = betas[1] * square + (1 - betas[1]) * (gradient**2).mean(dim=1)
    root = (v / (1 - betas[1] ** step)).sqrt() + epsilon
    return m / (1 - betas[0] ** step) / root[:, None] + 1, m, v
""",
    "6.6": """
def rounds_of_newton_schulz(strength):
    return 7, 3, "the powers vanish when s is small"
""",
    "6.7": """
def fair_verdict(search_a, search_b, again_a, again_b):
    return "cannot tell"
""",
}
