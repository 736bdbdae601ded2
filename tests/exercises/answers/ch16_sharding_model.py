"""Other right answers to chapter 16, and one mutant a task that no diagnosis knows."""

SECOND_STYLE = {
    "16.1": """
def part_of_ffn(gate_up, down, rank, n_ranks):
    n = down.shape[1]
    own = list(range(rank, n, n_ranks))  # every P-th of the F numbers
    return gate_up[own + [n + row for row in own]], down[:, own]
""",
    "16.2": """
def order_1f1b(stage, n_stages, n_micro):
    kept, forward, backward, order = [], 0, 0, []
    while backward < n_micro:
        if forward < n_micro and len(kept) < n_stages - stage:
            kept.append(forward)
            order.append(["forward", forward])
            forward += 1
        else:
            order.append(["backward", kept.pop(0)])
            backward += 1
    return order
""",
    "16.3": """
def best_n_micro(n_rows, n_stages, fixed_seconds):
    best, least = 1, float("inf")
    for rows in range(1, n_rows + 1):
        if n_rows % rows:
            continue
        m = n_rows // rows
        step = m * fixed_seconds + (n_stages - 1) * (fixed_seconds + rows)
        if step < least - 1e-9:
            best, least = m, step
    return [best, "微批次太少时气泡大，太多时固定开销多"]
""",
    "16.4": """
import itertools
def fastest_plan(n_ranks, n_layers, n_rows, layer_gb, row_gb, card_gb, send_seconds):
    best, least = [], float("inf")
    degrees = range(1, n_ranks + 1)
    for dp, tp, pp in itertools.product(degrees, repeat=3):
        if dp * tp * pp == n_ranks and n_layers % pp == 0 and n_rows % dp == 0:
            of_copy = n_rows // dp
            for m in [m for m in range(1, of_copy + 1) if of_copy % m == 0]:
                layers, rows = n_layers / pp, of_copy / m
                holds = layers * layer_gb / tp + min(pp, m) * rows * layers * row_gb / tp
                slot = layers * rows / tp + layers * send_seconds * (tp > 1)
                if holds <= card_gb and slot * (m + pp - 1) < least:
                    best, least = [dp, tp, pp, m], slot * (m + pp - 1)
    return best
""",
}

MUTANT = {
    "16.1": """
import torch
def part_of_ffn(gate_up, down, rank, n_ranks):
    gate, up = gate_up.chunk(2)
    part = torch.cat([gate.chunk(n_ranks)[rank], up.chunk(n_ranks)[rank]])
    return part, 2 * down.chunk(n_ranks, dim=1)[rank]
""",
    "16.2": """
def order_1f1b(stage, n_stages, n_micro):
    return [("forward", 0)] * (2 * n_micro)
""",
    "16.3": """
def best_n_micro(n_rows, n_stages, fixed_seconds):
    return 3, "because I think that it is so"
""",
    "16.4": """
def fastest_plan(n_ranks, n_layers, n_rows, layer_gb, row_gb, card_gb, send_seconds):
    return n_ranks, 1, 1, 1
""",
}
