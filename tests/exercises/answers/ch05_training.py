"""Other right answers to chapter 05, and one mutant a task that no diagnosis knows."""

SECOND_STYLE = {
    "5.1": """
import torch.nn.functional as F
def masked_log_probs(logits, targets, loss_mask):
    ids = targets.clone()
    ids[~loss_mask] = -1
    loss = F.cross_entropy(logits.flatten(0, 1), ids.flatten(), ignore_index=-1,
                           reduction="none")
    return -loss.view(targets.shape)
""",
    "5.2": """
import torch
def accumulated_gradient(weight, parts, nats):
    total, count = torch.zeros_like(weight), 0
    for part in parts:
        loss, n = nats(weight, part)
        total += torch.autograd.grad(loss, weight)[0]
        count += n
    return total / count
""",
    "5.3": """
def learning_rate(step, n_steps, warmup_steps, peak, final):
    from math import cos, pi
    if warmup_steps > 0 and step + 1 <= warmup_steps:
        return (step + 1) * peak / warmup_steps
    begin = warmup_steps - 1 if warmup_steps else 0
    if step >= n_steps - 1:
        return final * peak
    angle = pi * (step - begin) / (n_steps - 1 - begin)
    low = final * peak
    return (peak + low) / 2 + (peak - low) / 2 * cos(angle)
""",
    "5.4": """
def first_update_after_a_reset():
    g, m, v = 0.37, 0.0, 0.0
    m = 0.9 * m + 0.1 * g
    v = 0.999 * v + 0.001 * g**2
    ratio = (m / (1 - 0.9)) / (v / (1 - 0.999)) ** 0.5
    return ratio, "修正后的平均就是这一次的梯度，大小被约掉了。"
""",
    "5.5": """
from collections import deque
import numpy as np
def spikes(norms, window, factor):
    recent = deque(maxlen=window)
    out = []
    for i in range(len(norms)):
        bad = not np.isfinite(norms[i])
        if not bad and len(recent) == window:
            bad = norms[i] > factor * np.median(recent)
        if bad:
            out.append(i)
            continue
        recent.append(norms[i])
    return tuple(out)
""",
    "5.6": """
import math
def better_model(a, b):
    def bits(runs):
        return sorted(math.log2(math.e) * run["nats"] / run["n_bytes"] for run in runs)
    if {run["text"] for run in a} != {run["text"] for run in b}:
        return ["cannot tell", "文本不同，无法比较两个模型。"]
    ways = math.factorial(len(a) + len(b)) // math.factorial(len(a)) // math.factorial(len(b))
    if 40 > ways:
        return ["cannot tell", "运行次数太少，次序可能只是偶然。"]
    if bits(a)[-1] < bits(b)[0]:
        return ["a", "a 的每一次运行都低于 b 的所有运行。"]
    if bits(b)[-1] < bits(a)[0]:
        return ["b", "b 的每一次运行都低于 a 的所有运行。"]
    return ["cannot tell", "两者的运行结果有重叠，换一个种子就可能反过来。"]
""",
    "5.7": """
def loss_scale(sizes):
    low, high = min(sizes), max(sizes)
    powers = [2.0**k for k in range(-150, 150)]
    fit = [p for p in powers if p * high <= 65504 and p * low >= 2.0**-24]
    return int(fit[-1]) if fit and fit[-1] >= 1 else fit[-1] if fit else "bfloat16"
""",
}

MUTANT = {
    "5.1": """
def masked_log_probs(logits, targets, loss_mask):
    return logits[..., 0] * 0 - 0.5
""",
    "5.2": """
import torch
def accumulated_gradient(weight, parts, nats):
    for part in parts:
        nats(weight, part)[0].backward()
    weight.grad = None
    return torch.full_like(weight, 3.0)
""",
    "5.3": """
def learning_rate(step, n_steps, warmup_steps, peak, final):
    return 0.33 * peak
""",
    "5.4": """
def first_update_after_a_reset():
    return float("nan"), "because both averages hold this one gradient"
""",
    "5.5": """
def spikes(norms, window, factor):
    return [3, 4] if len(norms) == 5 else []
""",
    "5.6": """
def better_model(a, b):
    return "a", "because it comes first in the alphabet"
""",
    "5.7": """
def loss_scale(sizes):
    return 2.0**15
""",
}
