"""Other right answers to chapter 17, and one mutant a task that no diagnosis knows."""

SECOND_STYLE = {
    "17.1": """
import heapq
def count_steps(lengths, n_slots):
    static, waiting = 0, list(lengths)
    while waiting:
        batch, waiting = waiting[:n_slots], waiting[n_slots:]
        static += max(batch)
    waiting, running, n = list(lengths), [], 0
    while waiting or running:
        while waiting and len(running) < n_slots:
            running.append(waiting.pop(0))
        running = [left - 1 for left in running if left > 1]
        n += 1
    return [static, n]
""",
    "17.2": """
def admit(tokens, stored, free, block_size):
    n_shared, was_free, place = 0, 0, block_size
    while place <= len(tokens) - 1 and tokens[:place] in stored:
        was_free += stored[tokens[:place]] in free
        n_shared, place = n_shared + 1, place + block_size
    n_read = len(tokens) - n_shared * block_size
    needs = (n_read + block_size - 1) // block_size + was_free
    return [n_read, needs] if len(free) >= needs else []
""",
    "17.3": """
import torch
def judge(p, q, guess):
    surplus = torch.relu(p - q)
    stays = p[guess].item() / q[guess].item()
    return stays if stays < 1 else 1.0, surplus * (1 / surplus.sum())
""",
    "17.4": """
def n_for_prompts(n_machines, read_seconds, step_seconds, batch_size, n_tokens, gap_seconds):
    if read_seconds + step_seconds <= gap_seconds:
        return [0, "合在一起没有机器空闲，间隔也够短"]
    best, most = 0, 0.0
    for k in range(1, n_machines):
        rate = min(k / read_seconds, (n_machines - k) * batch_size / n_tokens / step_seconds)
        if rate > most + 1e-12:
            best, most = k, rate
    return [best, "提示太长时，混合会让间隔超过承诺"]
""",
}

MUTANT = {
    "17.1": """
def count_steps(lengths, n_slots):
    return sum(lengths), max(lengths)
""",
    "17.2": """
def admit(tokens, stored, free, block_size):
    return len(tokens), 1
""",
    "17.3": """
def judge(p, q, guess):
    return 0.5, (p + q) / 2
""",
    "17.4": """
def n_for_prompts(n_machines, read_seconds, step_seconds, batch_size, n_tokens, gap_seconds):
    return 1, "because I think that it is so"
""",
}
