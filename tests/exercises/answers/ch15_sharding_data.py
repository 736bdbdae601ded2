"""Other right answers to chapter 15, and one mutant a task that no diagnosis knows."""

SECOND_STYLE = {
    "15.1": """
from collections import deque
def ring_sum(chunks, rank):
    own = deque(enumerate(chunks))
    own.rotate(len(chunks) - rank)  # begins with my own number; the last is what I send first
    if len(own) == 1:
        return list(chunks)
    number, partial = own.pop()
    while own:
        arrived = yield partial
        number, mine = own.pop()
        partial = mine + arrived
    finished = {number: partial}
    for _ in chunks[1:]:
        partial = yield partial
        number = (number or len(chunks)) - 1
        finished[number] = partial
    return [finished[n] for n in range(len(chunks))]
""",
    "15.2": """
def cards_needed(n_parameters, card_bytes, stage):
    whole = n_parameters * (16, 4, 2, 0)[stage]
    if whole > card_bytes or (whole == card_bytes and stage):
        return float("inf")
    n = 1
    while whole + (16 * n_parameters - whole) / n > card_bytes:
        n += 1
    return n
""",
    "15.3": """
import torch
def sharded_step(weights, gradients, memories, rule):
    n_ranks = len(gradients)
    length = -(-len(weights) // n_ranks)
    total = torch.stack(gradients).sum(0)
    new, kept = weights.clone(), []
    for rank in range(n_ranks):
        first, last = rank * length, min((rank + 1) * length, len(weights))
        part = torch.zeros(length)
        if first < last:
            part[: last - first] = total[first:last]
        update, memory = rule(part, memories[rank])
        kept.append(memory)
        if first < last:
            new[first:last] -= update[: last - first]
    return new, kept
""",
    "15.4": """
def bytes_sent(n_parameters, n_ranks, stage, n_micro):
    chunk = n_parameters // n_ranks
    half = 2 * chunk * (n_ranks - 1)
    if stage < 2:
        total = 2 * half
    elif stage == 2:
        total = half * n_micro + half
    else:
        total = sum(3 * half for _ in range(n_micro))
    return [float(total), "第一阶段通信量与数据并行相同，却已切掉最大的一块内存"]
""",
}

MUTANT = {
    "15.1": """
def ring_sum(chunks, rank):
    n = len(chunks)
    sums = list(chunks)
    for s in range(n - 1):
        arrived = yield sums[(rank - s - 1) % n]
        sums[(rank - s - 2) % n] = arrived + 2 * chunks[(rank - s - 2) % n]
    for s in range(n - 1):
        sums[(rank - s - 1) % n] = yield sums[(rank - s) % n]
    return sums
""",
    "15.2": """
def cards_needed(n_parameters, card_bytes, stage):
    return 7
""",
    "15.3": """
import torch
def sharded_step(weights, gradients, memories, rule):
    n = len(gradients)
    filled = torch.cat([sum(gradients), weights.new_zeros(-len(weights) % n)])
    steps = [rule(part, memory) for part, memory in zip(filled.chunk(n), memories)]
    updates = torch.cat([update for update, _ in steps])[: len(weights)]
    return weights + updates, [memory for _, memory in steps]
""",
    "15.4": """
def bytes_sent(n_parameters, n_ranks, stage, n_micro):
    return 123.0, "because I think that it is so"
""",
}
