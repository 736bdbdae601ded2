"""Answers for the graders of chapter 05: other right ones, typical mistakes, and a mutant."""

SECOND_STYLE = {
    "5.1": """
import torch.nn.functional as F
def masked_log_probs(logits, wanted, counted):
    targets = wanted.clone()
    targets[~counted] = -1
    loss = F.cross_entropy(logits.flatten(0, 1), targets.flatten(), ignore_index=-1,
                           reduction="none")
    return -loss.view(wanted.shape)
""",
    "5.2": """
def accumulated_gradient(weight, parts, nats):
    count = 0
    for part in parts:
        loss, n = nats(weight, part)
        loss.backward()
        count += n
    gradient, weight.grad = weight.grad, None
    return gradient / count
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
    return out
""",
}


def _log_probs(body):
    return "import torch\ndef masked_log_probs(logits, wanted, counted):\n" + body


def _gradient(body):
    return "import torch\ndef accumulated_gradient(weight, parts, nats):\n" + body


def _rate(body):
    return (
        "import math\ndef learning_rate(step, n_steps, warmup_steps, peak, final):\n"
        "    top, last = max(warmup_steps - 1, 0), n_steps - 1\n" + body
    )


def _falling(formula, share="min(1.0, (step - top) / (last - top))"):
    return _rate(
        "    if step < top:\n"
        "        return peak * (step + 1) / warmup_steps\n"
        f"    share = {share}\n"
        f"    return {formula}\n"
    )


def _update(result):
    return f"def first_update_after_a_reset():\n    return {result}\n"


def _spikes(body):
    return (
        "import math\nimport statistics\ndef spikes(norms, window, factor):\n"
        "    good, found = [], []\n"
        "    for step, norm in enumerate(norms):\n" + body + "    return found\n"
    )


def _judged(usual, spike="not math.isfinite(norm) or norm > factor * usual"):
    return _spikes(
        f"        usual = {usual} if len(good) >= window else math.inf\n"
        f"        if {spike}:\n"
        "            found.append(step)\n"
        "        else:\n"
        "            good.append(norm)\n"
    )


BECAUSE = '"because both averages hold this one gradient"'
MEDIAN = "statistics.median(good[-window:])"
LOOK_UP = (
    "    ids = wanted.masked_fill(~counted, 0)[..., None]\n"
    "    picked = logits.log_softmax(-1).gather(-1, ids)[..., 0]\n"
)

# Task -> (what the learner did, a phrase of the diagnosis that must come).
MISTAKES = {
    "5.1": [
        (_log_probs(LOOK_UP + "    return picked[counted].mean()\n"), "a number for each token"),
        (
            _log_probs(
                "    ids = wanted.masked_fill(~counted, 0)[..., None]\n"
                "    picked = logits.softmax(-1).gather(-1, ids)[..., 0]\n"
                "    return torch.where(counted, picked, 0.0)\n"
            ),
            "return their logarithms",
        ),
        (
            _log_probs(LOOK_UP + "    return torch.where(counted, -picked, 0.0)\n"),
            "this is the loss",
        ),
        (
            _log_probs(
                "    ids = wanted.masked_fill(~counted, 0)[..., None]\n"
                "    return torch.where(counted, logits.gather(-1, ids)[..., 0], 0.0)\n"
            ),
            "minus logsumexp",
        ),
        (
            _log_probs(
                LOOK_UP.replace("softmax(-1)", "softmax(1)")
                + "    return torch.where(counted, picked, 0.0)\n"
            ),
            "runs over the places",
        ),
        (
            _log_probs(
                LOOK_UP.replace("softmax(-1)", "softmax(0)")
                + "    return torch.where(counted, picked, 0.0)\n"
            ),
            "runs over the rows",
        ),
        (
            "import math\n"
            + _log_probs(LOOK_UP + "    return torch.where(counted, picked / math.log(2), 0.0)\n"),
            "that is in bits",
        ),
        (
            _log_probs(LOOK_UP + "    return torch.where(wanted > 0, picked, 0.0)\n"),
            "id 0 is a word",
        ),
        (
            _log_probs(LOOK_UP + "    return torch.where(counted, picked, 0.0)[..., None]\n"),
            "axis of 1 is left",
        ),
        (
            _log_probs(LOOK_UP + "    return torch.where(counted, picked, 0.0).T\n"),
            "the result is [1, 2]",
        ),
        (
            _log_probs(LOOK_UP + "    return torch.where(counted, picked, 0.0).flatten()[None]\n"),
            "the result is [2, 3]",
        ),
        (_log_probs(LOOK_UP + "    return picked\n"), "the result is exactly 0"),
        (
            _log_probs(
                "    ids = wanted.clamp(min=0)[..., None]\n"
                "    picked = logits.log_softmax(-1).gather(-1, ids)[..., 0]\n"
                "    return torch.where(wanted != -100, picked, 0.0)\n"
            ),
            "ids of -100",
        ),
        (_log_probs(LOOK_UP + "    return picked * counted\n"), "0 · -inf"),
        (
            _log_probs(
                "    picked = logits.log_softmax(-1).gather(-1, wanted[..., None])[..., 0]\n"
                "    return torch.where(counted, picked, 0.0)\n"
            ),
            "fails at the padding -100",
        ),
        (
            _log_probs(
                "    ids = wanted.clamp(min=0)[..., None]\n"
                "    picked = logits.log_softmax(-1).gather(-1, ids)[..., 0]\n"
                "    return torch.where(counted, picked, 0.0)\n"
            ),
            "fails at the padding 50000",
        ),
        (
            _log_probs(
                "    wanted[~counted] = 0\n"
                "    picked = logits.log_softmax(-1).gather(-1, wanted[..., None])[..., 0]\n"
                "    return torch.where(counted, picked, 0.0)\n"
            ),
            "you change the tensors",
        ),
        (
            _log_probs(
                "    p = logits.exp() / logits.exp().sum(-1, keepdim=True)\n"
                "    ids = wanted.masked_fill(~counted, 0)[..., None]\n"
                "    return torch.where(counted, p.gather(-1, ids)[..., 0].log(), 0.0)\n"
            ),
            "exp(1000) overflows",
        ),
        (
            _log_probs(
                "    ids = wanted.masked_fill(~counted, 0)[..., None]\n"
                "    picked = logits.softmax(-1).gather(-1, ids)[..., 0].log()\n"
                "    return torch.where(counted, picked, 0.0)\n"
            ),
            "its log -inf",
        ),
        (
            _log_probs(
                "    ids = wanted.masked_fill(~counted, 0)[..., None]\n"
                "    picked = (logits.softmax(-1).gather(-1, ids)[..., 0] + 1e-9).log()\n"
                "    return torch.where(counted, picked, 0.0)\n"
            ),
            "log p is -1000",
        ),
        (
            _log_probs(
                "    out = torch.zeros(wanted.shape)\n"
                "    for b, t in counted.nonzero().tolist():\n"
                "        out[b, t] = logits[b, t].log_softmax(-1)[wanted[b, t]].item()\n"
                "    return out\n"
            ),
            "no gradient flows",
        ),
        (_log_probs(LOOK_UP + "    torch.where(counted, picked, 0.0)\n"), "returns nothing"),
    ],
    "5.2": [
        (
            _gradient(
                "    total = torch.zeros_like(weight)\n"
                "    for part in parts:\n"
                "        loss, n = nats(weight, part)\n"
                "        total += torch.autograd.grad(loss / n, weight)[0]\n"
                "    return total / len(parts)\n"
            ),
            "mean of the parts' means",
        ),
        (
            _gradient(
                "    for part in parts:\n"
                "        loss, n = nats(weight, part)\n"
                "        (loss / n).backward()\n"
                "    total, weight.grad = weight.grad, None\n"
                "    return total\n"
            ),
            "sum of the parts' means",
        ),
        (
            _gradient(
                "    for part in parts:\n"
                "        nats(weight, part)[0].backward()\n"
                "    total, weight.grad = weight.grad, None\n"
                "    return total\n"
            ),
            "gradient of the sum",
        ),
        (
            _gradient(
                "    for part in parts:\n"
                "        nats(weight, part)[0].backward()\n"
                "    total, weight.grad = weight.grad, None\n"
                "    return total / len(parts)\n"
            ),
            "divide by the number of parts",
        ),
        (
            _gradient(
                "    for part in parts:\n"
                "        loss, n = nats(weight, part)\n"
                "        loss.backward()\n"
                "    total, weight.grad = weight.grad, None\n"
                "    return total / n\n"
            ),
            "tokens of the last part only",
        ),
        (
            _gradient(
                "    for part in parts:\n"
                "        total = torch.autograd.grad(nats(weight, part)[0], weight)[0]\n"
                "    return total\n"
            ),
            "the last part alone",
        ),
        (
            _gradient(
                "    for part in parts:\n"
                "        weight.grad = None\n"
                "        loss, n = nats(weight, part)\n"
                "        (loss / n).backward()\n"
                "    total, weight.grad = weight.grad, None\n"
                "    return total\n"
            ),
            "the last part's mean",
        ),
        (
            _gradient(
                "    n_tokens = 0\n"
                "    for part in parts:\n"
                "        loss, n = nats(weight, part)\n"
                "        total = torch.autograd.grad(loss, weight)[0]\n"
                "        n_tokens += n\n"
                "    return total / n_tokens\n"
            ),
            "all tokens are counted",
        ),
        (
            _gradient(
                "    total, n_tokens = torch.zeros_like(weight), 0\n"
                "    for part in parts:\n"
                "        loss, n = nats(weight, part)\n"
                "        loss.backward()\n"
                "        total += weight.grad\n"
                "        n_tokens += n\n"
                "    weight.grad = None\n"
                "    return total / n_tokens\n"
            ),
            "the first part counts twice",
        ),
        (
            _gradient(
                "    n_tokens = 0\n"
                "    for part in parts:\n"
                "        loss, n = nats(weight, part)\n"
                "        loss.backward()\n"
                "        n_tokens += n\n"
                "    return weight.grad / n_tokens\n"
            ),
            "left in weight.grad",
        ),
        (
            _gradient(
                "    loss, n_tokens = 0, 0\n"
                "    for part in parts:\n"
                "        some, n = nats(weight, part)\n"
                "        loss, n_tokens = loss + some, n_tokens + n\n"
                "    return torch.autograd.grad(loss / n_tokens, weight)[0]\n"
            ),
            "still alive",
        ),
        (
            _gradient(
                "    loss, n = nats(weight, torch.cat(parts))\n"
                "    return torch.autograd.grad(loss / n, weight)[0]\n"
            ),
            "give nats one of the parts",
        ),
        (
            _gradient(
                "    with torch.no_grad():\n"
                "        n_tokens = sum(nats(weight, part)[1] for part in parts)\n"
                "    for part in parts:\n"
                "        (nats(weight, part)[0] / n_tokens).backward()\n"
                "    total, weight.grad = weight.grad, None\n"
                "    return total\n"
            ),
            "no gradient can flow",
        ),
        (
            _gradient(
                "    total, n_tokens = torch.zeros_like(weight), 0\n"
                "    for part in parts:\n"
                "        total += torch.autograd.grad(nats(weight, part)[0], weight)[0]\n"
                "        n_tokens += nats(weight, part)[1]\n"
                "    return total / n_tokens\n"
            ),
            "called twice",
        ),
        (
            _gradient(
                "    loss, n = nats(weight, parts[0])\n"
                "    return torch.autograd.grad(loss / n, weight)[0]\n"
            ),
            "was called for 1",
        ),
        (
            _gradient(
                "    total, n_tokens = 0, 0\n"
                "    for part in parts:\n"
                "        loss, n = nats(weight, part)\n"
                "        total = total + torch.autograd.grad(loss, weight, create_graph=True)[0]\n"
                "        n_tokens += n\n"
                "    return total / n_tokens + 0 * weight\n"
            ),
            "a graph of its own",
        ),
        (
            _gradient(
                "    total, n_tokens = 0, 0\n"
                "    for part in parts:\n"
                "        loss, n = nats(weight, part)\n"
                "        total += torch.autograd.grad(loss, weight)[0].sum()\n"
                "        n_tokens += n\n"
                "    return total / n_tokens\n"
            ),
            "the shape of weight",
        ),
        (
            _gradient(
                "    total, n_tokens = torch.zeros_like(weight), 0\n"
                "    for part in parts:\n"
                "        loss, n = nats(weight, part)\n"
                "        total += n * torch.autograd.grad(loss / n, weight)[0]\n"
                "        n_tokens += n\n"
                "    return total / n_tokens\n"
            ),
            "a part may have no token",
        ),
        (
            _gradient(
                "    n_tokens = sum(len(part) for part in parts)\n"
                "    for part in parts:\n"
                "        (nats(weight, part)[0] / n_tokens).backward()\n"
                "    total, weight.grad = weight.grad, None\n"
                "    return total\n"
            ),
            "count the tokens as nats does",
        ),
        (
            _gradient(
                "    total, n_tokens = torch.zeros_like(weight), 0\n"
                "    for part in parts:\n"
                "        loss, n = nats(weight, part)\n"
                "        total += torch.autograd.grad(loss, weight)[0]\n"
                "        n_tokens += n\n"
                "    with torch.no_grad():\n"
                "        weight -= 0.1 * total / n_tokens\n"
                "    return total / n_tokens\n"
            ),
            "weight itself has changed",
        ),
        (
            _gradient(
                "    for part in parts:\n"
                "        nats(weight, part)[0].backward()\n"
                "    weight.grad /= sum(len(part) for part in parts)\n"
            ),
            "returns nothing",
        ),
    ],
    "5.3": [
        (
            _rate(
                "    if step < warmup_steps:\n"
                "        return peak * step / warmup_steps\n"
                "    share = min(1.0, (step - top) / (last - top))\n"
                "    return peak * (final + (1 - final) * (1 + math.cos(math.pi * share)) / 2)\n"
            ),
            "is lost",
        ),
        (
            _rate(
                "    share = min(1.0, step / last)\n"
                "    return peak * (final + (1 - final) * (1 + math.cos(math.pi * share)) / 2)\n"
            ),
            "a quarter of the peak",
        ),
        (
            _falling("final + (1 - final) * (1 + math.cos(math.pi * share)) / 2").replace(
                "peak * (step", "(step"
            ),
            "multiply by the peak",
        ),
        (
            _rate(
                "    if step < warmup_steps:\n"
                "        return peak * (step + 1) / (warmup_steps + 1)\n"
                "    share = min(1.0, (step - top) / (last - top))\n"
                "    return peak * (final + (1 - final) * (1 + math.cos(math.pi * share)) / 2)\n"
            ),
            "into 5 parts",
        ),
        (
            _rate("    return peak * min(1.0, (step + 1) / max(1, warmup_steps))\n"),
            "stays at the peak",
        ),
        (
            _falling(
                "peak * (final + (1 - final) * (1 + math.cos(math.pi * share)) / 2)",
                "max(0.0, min(1.0, (step - warmup_steps) / (last - warmup_steps)))",
            ),
            "the peak twice",
        ),
        (
            _falling("final + (peak - final) * (1 + math.cos(math.pi * share)) / 2"),
            "`final` is a share",
        ),
        (_falling("peak * (1 + math.cos(math.pi * share)) / 2"), "you fall to 0"),
        (
            _falling("peak * (final + (1 - final) * (1 + math.cos(2 * math.pi * share)) / 2)"),
            "a whole cosine",
        ),
        (
            _falling(
                "peak * (final + (1 - final) * (1 + math.cos(math.pi * share)) / 2)",
                "min(1.0, (step - top) / (n_steps - top))",
            ),
            "a step later",
        ),
        (
            _falling("peak * (final + (1 - final) * (1 + math.cos(180 * share)) / 2)"),
            "not to 180",
        ),
        (_falling("peak * (final + (1 - final) * (1 + math.cos(share)) / 2)"), "not to 1."),
        (
            _falling("peak * max(final, (1 + math.cos(math.pi * share)) / 2)"),
            "is cut off",
        ),
        (
            _falling("peak * (final + (1 - final) * math.cos(math.pi / 2 * share))"),
            "a quarter of a cosine",
        ),
        (_falling("peak * (1 - (1 - final) * share)"), "straight line"),
        (
            _falling(
                "peak * (final + (1 - final) * (1 + math.cos(math.pi * share)) / 2)",
                "(step - top) / (last - top)",
            ),
            "after the end",
        ),
        (
            _rate(
                "    up = (step + 1) / warmup_steps\n"
                "    share = min(1.0, max(0.0, (step - top) / (last - top)))\n"
                "    return peak * min(up, final + (1 - final) "
                "* (1 + math.cos(math.pi * share)) / 2)\n"
            ),
            "you divide by 0",
        ),
        (
            _rate(
                "    top = warmup_steps - 1\n"
                "    if step < top:\n"
                "        return peak * (step + 1) / warmup_steps\n"
                "    share = min(1.0, (step - top) / (last - top))\n"
                "    return peak * (final + (1 - final) * (1 + math.cos(math.pi * share)) / 2)\n"
            ),
            "without a warm-up",
        ),
        (
            _falling("peak * (final + (1 - final) * (1 + math.cos(math.pi * share)) / 2)").replace(
                "return peak * (step + 1) / warmup_steps",
                "return 0.2 + peak * step / warmup_steps",
            ),
            "n_steps=50, warmup_steps=7",
        ),
        (_rate("    peak * (step + 1) / warmup_steps\n"), "returns nothing"),
        (
            "from minillm.optim.schedule import Cosine\n"
            "def learning_rate(step, n_steps, warmup_steps, peak, final):\n"
            "    rule = Cosine(n_steps=n_steps, warmup_steps=warmup_steps, final=final)\n"
            "    return peak * rule(step)\n",
            "write what it does",
        ),
    ],
    "5.4": [
        (_update(f"0.0, {BECAUSE}"), "after one step"),
        (_update(f"-1.0, {BECAUSE}"), "which way"),
        (_update(f"0.1, {BECAUSE}"), "what the first average takes"),
        (_update(f"3.1623, {BECAUSE}"), "divides each by"),
        (_update(f"0.001, {BECAUSE}"), "divide it by the learning rate"),
        (_update(f"0.23, {BECAUSE}"), "in the middle of a run"),
        (_update(f"10, {BECAUSE}"), "is not it"),
        (_update("1.0"), "return two things"),
        (_update('1.0, "Adam"'), "say in a sentence"),
        (_update(f"'one', {BECAUSE}"), "return one number"),
        (_update(f"None, {BECAUSE}"), "the number is None"),
    ],
    "5.5": [
        (_judged(MEDIAN).replace("found.append(step)", "found.append(norm)"), "not their norms"),
        (_judged(MEDIAN).replace("enumerate(norms)", "enumerate(norms, 1)"), "counted from 0"),
        (
            _judged(MEDIAN).replace(
                "return found", "return [s for s in range(len(norms)) if s not in found]"
            ),
            "the steps to keep",
        ),
        (_judged(MEDIAN).replace("len(good) >= window", "len(good) > window"), "is full"),
        (
            _judged(MEDIAN).replace(
                "return found", "return [s in found for s in range(len(norms))]"
            ),
            "True or False",
        ),
        (_judged(MEDIAN).replace("len(good) >= window", "good"), "fewer than `window`"),
        (
            _judged(MEDIAN, "not math.isfinite(norm) or norm >= factor * usual"),
            "ABOVE factor times",
        ),
        (
            _judged("statistics.median([*good, norm][-window:])"),
            "must not be part of the median",
        ),
        (
            _spikes(
                "        usual = math.inf\n"
                "        if step >= window:\n"
                "            usual = statistics.median(good[-window:])\n"
                "        if not math.isfinite(norm) or norm > factor * usual:\n"
                "            found.append(step)\n"
                "        good.append(norm)\n"
            ),
            "spikes get into your median",
        ),
        (
            _spikes(
                "        near = [norms[s] for s in range(max(0, step - window), step)\n"
                "                if s not in found]\n"
                "        usual = statistics.median(near) if near and step >= window else math.inf\n"
                "        if not math.isfinite(norm) or norm > factor * usual:\n"
                "            found.append(step)\n"
            ),
            "however far back",
        ),
        (_judged(MEDIAN, "norm > factor * usual"), "math.isfinite"),
        (
            _judged(
                MEDIAN, "len(good) >= window and (not math.isfinite(norm) or norm > factor * usual)"
            ),
            "from the first step on",
        ),
        (_judged("statistics.median(good)"), "norms change slowly"),
        (_judged("statistics.mean(good[-window:])"), "is yours a mean"),
        (_judged("good[-window:][window // 2]"), "in order of size"),
        (_judged("(good.sort(), statistics.median(good[-window:]))[1]"), "do not sort all"),
        (_judged("sorted(good[-window:])[window // 2]"), "the mean of both"),
        (_judged("statistics.median(good[-window - 1:])"), "with window"),
        (
            "import math, statistics\n"
            "def spikes(norms, window, factor):\n"
            "    found, step, shift = [], 0, 0\n"
            "    while step < len(norms):\n"
            "        good = norms[max(0, step - window):step]\n"
            "        limit = factor * statistics.median(good) if step >= window else math.inf\n"
            "        if norms[step] < math.inf and norms[step] <= limit:\n"
            "            step += 1\n"
            "        else:\n"
            "            found.append(step + shift)\n"
            "            shift += 1\n"
            "            del norms[step]\n"
            "    return found\n",
            "you change the list",
        ),
        (_judged(MEDIAN).replace("return found", "print(found)"), "returns nothing"),
    ],
}

MUTANT = {
    "5.1": _log_probs("    return logits[..., 0] * 0 - 0.5\n"),
    "5.2": _gradient(
        "    for part in parts:\n"
        "        nats(weight, part)[0].backward()\n"
        "    weight.grad = None\n"
        "    return torch.tensor([3.0, 0.5])\n"
    ),
    "5.3": _rate("    return 0.33 * peak\n"),
    "5.4": _update(f"float('nan'), {BECAUSE}"),
    "5.5": "def spikes(norms, window, factor):\n    return [3, 4] if len(norms) == 5 else []\n",
}
