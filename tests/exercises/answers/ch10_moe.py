"""Other right answers to chapter 10, and one mutant a task that no diagnosis knows."""

SECOND_STYLE = {
    "10.1": """
import torch
def top_k_weights(logits, top_k):
    experts = logits.argsort(dim=1, descending=True)[:, :top_k]
    chosen = torch.take_along_dim(logits, experts, dim=1)
    return [experts, torch.exp(chosen - chosen.logsumexp(1, keepdim=True))]
""",
    "10.2": """
import torch
def load_balance(logits):
    n, e = logits.shape
    p = torch.nn.functional.softmax(logits, 1)
    best = torch.nn.functional.one_hot(logits.max(1).indices, e).to(p.dtype)
    return torch.einsum("ne,me->", best, p) * e / n**2
""",
    "10.3": """
import torch
def mix(x, experts, weights, functions):
    k = experts.shape[1]
    order = experts.flatten().argsort()
    counts = torch.bincount(experts.flatten(), minlength=len(functions)).tolist()
    parts = x[order // k].split(counts)
    answers = torch.cat([f(part) for f, part in zip(functions, parts) if len(part)])
    back = answers[order.argsort()].unflatten(0, experts.shape)
    return torch.einsum("nk,nkd->nd", weights, back)
""",
    "10.4": """
import torch
def sinkhorn_routing(logits, n_rounds):
    scores = logits.double()
    of_token = torch.zeros(len(logits), dtype=torch.float64)
    for _ in range(n_rounds):  # each column to 1: the rows come last, so N / E cancels
        of_expert = -torch.logsumexp(scores + of_token[:, None], 0)
        of_token = -torch.logsumexp(scores + of_expert, 1)
    return (scores + of_token[:, None] + of_expert).exp().to(logits.dtype)
""",
    "10.5": """
from math import comb
def share_without_a_place():
    chance = [comb(64, n) * 7 ** (64 - n) / 8**64 for n in range(65)]
    over = sum(c * max(0, n - 8) for n, c in enumerate(chance))
    return over * 8 / 64, "有的专家被选了不止八次，有的位置却空着。"
""",
    "10.6": """
def model_to_serve(models, memory_gb, bandwidth_gb_s, tokens_per_s, n_readers):
    for name, (dense, sparse, part, _) in sorted(models.items(), key=lambda item: item[1][3]):
        unread = sparse
        for _ in range(n_readers):
            unread *= 1 - part
        seconds_a_step = 2 * (dense + sparse - unread) / bandwidth_gb_s
        if (dense + sparse) * 2 <= memory_gb and seconds_a_step <= 1 / tokens_per_s:
            break
    else:
        name = "none"
    return [name, "只有一位读者时才一样快：读者一多，几乎所有专家都要读。"]
""",
    "10.7": """
import numpy as np
def smallest_capacity_factor(counts, factors, most_dropped):
    counts = np.array(counts)
    for factor in sorted(factors):
        room = -(-factor * counts.sum(1) // counts.shape[1])
        dropped = np.clip(counts - room[:, None], 0, None).sum(1) / counts.sum(1)
        if (dropped <= most_dropped).all():
            return factor
    return "none"
""",
}

MUTANT = {
    "10.1": """
def top_k_weights(logits, top_k):
    values, experts = logits.softmax(dim=-1).topk(top_k, dim=-1)
    return experts, values / (values.sum(dim=-1, keepdim=True) + 0.125)
""",
    "10.2": """
import torch
def load_balance(logits):
    f = torch.bincount(logits.argmax(dim=-1), minlength=logits.shape[1]) / len(logits)
    return logits.shape[1] * (f * logits.softmax(dim=-1).mean(dim=0)).sum() + 0.25
""",
    "10.3": """
def mix(x, experts, weights, functions):
    y = x.new_ones(x.shape)
    for e, function in enumerate(functions):
        tokens, rank = (experts == e).nonzero(as_tuple=True)
        if len(tokens):
            y = y.index_add(0, tokens, weights[tokens, rank, None] * function(x[tokens]))
    return y
""",
    "10.4": """
import torch
def sinkhorn_routing(logits, n_rounds):
    plan = logits
    for _ in range(n_rounds):
        plan = plan - plan.logsumexp(0) + 0.1
        plan = plan - plan.logsumexp(1, keepdim=True) + 0.1
    return plan.exp()
""",
    "10.5": """
def share_without_a_place():
    return float("nan"), "because chance fills them unevenly"
""",
    "10.6": """
def model_to_serve(models, memory_gb, bandwidth_gb_s, tokens_per_s, n_readers):
    return "sparse", "it has the lowest loss of all"
""",
    "10.7": """
def smallest_capacity_factor(counts, factors, most_dropped):
    return min(factors)
""",
}
