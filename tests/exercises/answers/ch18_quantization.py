"""Other right answers to chapter 18, and one mutant a task that no diagnosis knows."""

SECOND_STYLE = {
    "18.1": """
import torch
def round_rows(weight, bits):
    n, rows = (1 << (bits - 1)) - 1, []
    for row in weight.tolist():
        top = max(abs(w) for w in row)
        scale = torch.tensor(top / n).half().item()  # as the library stores it
        rows.append([round(w / scale) * scale if top else 0.0 for w in row])
    return torch.tensor(rows)
""",
    "18.2": """
def place_bits(matrices, budget):
    def best(matrices, left):
        if not matrices:
            return 0.0, []
        n, rises = matrices[0]
        plans = []
        for (bits, group), rise in rises.items():
            after = left - n * bits / 8 - 2 * n / group
            tail = best(matrices[1:], after) if after >= 0 else None
            if tail is not None:
                plans.append((rise + tail[0], [(bits, group)] + tail[1]))
        return min(plans) if plans else None
    return best(matrices, budget)[1]
""",
    "18.3": """
import torch
def move_others(row, H, rounded):
    inverse = torch.linalg.inv(H)
    return (row - (row[0] - rounded) / inverse[0, 0] * inverse[:, 0])[1:]
""",
    "18.4": """
def times_as_fast(n_texts, bits, bytes_per_second, operations_per_second):
    ratio = 2 * n_texts * bytes_per_second / operations_per_second  # bytes worth of computing
    return [max(4, ratio) / max(bits / 8, ratio), "文本多时，时间由计算决定，收益消失"]
""",
}

MUTANT = {
    "18.1": """
def round_rows(weight, bits):
    return weight.round()
""",
    "18.2": """
def place_bits(matrices, budget):
    return [(3, 17) for _ in matrices]
""",
    "18.3": """
def move_others(row, H, rounded):
    return row[1:] * 2
""",
    "18.4": """
def times_as_fast(n_texts, bits, bytes_per_second, operations_per_second):
    return 1.0, "because I think that it is so"
""",
}
