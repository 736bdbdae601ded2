"""Other right answers to chapter 09, and one mutant a task that no diagnosis knows."""

SECOND_STYLE = {
    "9.1": """
import torch
def sparse_mask(n_tokens, window, n_sinks):
    table = torch.zeros(n_tokens, n_tokens, dtype=torch.bool)
    for place in range(n_tokens):
        table[place, max(0, place + 1 - window) : place + 1] = True
        table[place, : min(n_sinks, place + 1)] = True
    return table
""",
    "9.2": """
import torch
def linear_attention(q, k, v):
    one = torch.cat([v, torch.ones(len(v), 1)], dim=1)
    sums = (k.unsqueeze(2) * one.unsqueeze(1)).cumsum(0)
    read = torch.bmm(q.unsqueeze(1), sums).squeeze(1)
    return read[:, :-1] / read[:, -1:]
""",
    "9.3": """
import torch
def wkv_step(k, v, decay, bonus, state):
    keys = torch.stack([state[2], bonus + k])
    weights = keys.softmax(dim=0)
    values = torch.stack([state[0], v])
    counts = torch.stack([state[1], torch.ones_like(v)])
    wkv = (weights * values).sum(0) / (weights * counts).sum(0)
    faded = torch.stack([state[2] - decay, k])
    maximum = faded.amax(0)
    weights = torch.exp(faded - maximum)
    return [wkv, [(weights * values).sum(0), (weights * counts).sum(0), maximum]]
""",
    "9.4": """
import torch
def delta_rule(q, k, v, beta):
    # what each token adds under its key, for all at once: a triangle of equations
    share = beta[:, None]
    seen = (share * (k @ k.T)).tril(-1) + torch.eye(len(k))
    added = torch.linalg.solve_triangular(seen, share * v, upper=False)
    return (q @ k.T).tril() @ added
""",
    "9.5": """
def when_the_state_is_smaller():
    width, heads = 64, 4
    of_a_head = width // heads
    state = heads * of_a_head * (of_a_head + 1)
    return float(state // (2 * width) + 1), "缓存每个词元要存两个长度为六十四的向量，状态不变。"
""",
    "9.6": """
import statistics
def verdict(runs, chance):
    most = max(runs)
    last, before = runs[most], runs[most // 2]
    if all(abs(1 - share) < 0.02 for share in last):
        return "no limit seen"
    if all(share - chance < 0.02 for shares in runs.values() for share in shares):
        return "guessing"
    change = statistics.mean(last) - statistics.mean(before)
    apart = change, -change, *(a - b for a in last for b in last)
    return "not trained to its limit" if max(apart) > 0.03 else "limit"
""",
}

MUTANT = {
    "9.1": """
import torch
def sparse_mask(n_tokens, window, n_sinks):
    positions = torch.arange(n_tokens)
    distance = positions[:, None] - positions
    return (distance >= 0) & ((distance < window) | (positions < n_sinks) & (distance != 5))
""",
    "9.2": """
def linear_attention(q, k, v):
    weights = (q @ k.T).tril()
    return weights @ v / weights.sum(dim=1, keepdim=True) + 1
""",
    "9.3": """
import torch
def wkv_step(k, v, decay, bonus, state):
    a, b, m = state
    top = torch.maximum(m, bonus + k)
    old, new = torch.exp(m - top), torch.exp(bonus + k - top)
    wkv = (old * a + new * v) / (old * b + new)
    return wkv + 1, (a, b, m)
""",
    "9.4": """
import torch
def delta_rule(q, k, v, beta):
    S, y = torch.zeros(k.shape[1], v.shape[1]), []
    for t in range(len(q)):
        S = S + beta[t] * torch.outer(k[t], v[t] - S.T @ k[t])
        y.append(S.T @ q[t] + 1)
    return torch.stack(y)
""",
    "9.5": """
def when_the_state_is_smaller():
    return float("nan"), "because a key and a value are kept of each token"
""",
    "9.6": """
def verdict(runs, chance):
    return "limit"
""",
}
