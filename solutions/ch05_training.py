"""Worked answers to chapter 05, Training you can trust.

Chapter: 05
"""

from minillm.lab.task import task


@task("5.1", minutes=8)
def masked_log_probs(logits, targets, loss_mask):
    """log p of each target token, and exactly 0 where a token does not count.

    p is the softmax of a position's logits, over the last axis. Where `loss_mask` is False,
    `targets` may hold anything, such as -100 for padding: it must not be looked up. No result may
    be NaN, -inf only where a target is impossible, and training uses the gradient.

    中文：对最后一维做 softmax，返回每个目标词元的自然对数概率。loss_mask 为 False 处必须恰好是 0；
    那里的 targets 可以是任意数（例如填充值 -100），不能拿去查表。结果不得为 NaN，只有不可能的目标
    才可为 -inf（两个 logits 相差超过 104 时，先 softmax 再 log 会得到 -inf）；训练要用它的梯度。

    Args:
        logits: tensor [B, T, V], as large as 1,000; -inf for an impossible token.
        targets: tensor of integers [B, T].
        loss_mask: tensor of bool [B, T].

    Returns:
        tensor [B, T]: log(3/4) for the logits (log 3, 0) and target 0. Gradients flow through it.
    """
    # BEGIN SOLUTION
    import torch

    ids = targets.masked_fill(~loss_mask, 0)
    log_probs = logits.log_softmax(dim=-1).gather(-1, ids[..., None])[..., 0]
    return torch.where(loss_mask, log_probs, 0.0)
    # END SOLUTION


@task("5.2", minutes=8)
def accumulated_gradient(weight, parts, nats):
    """The gradient of one large batch, from micro-batches that do not fit into memory together.

    The gradient of the mean loss per token: the nats of all parts ÷ the tokens of all parts. Call
    nats once for each part, and go backward before the next call, so that only one part's graph is
    alive.

    中文：梯度累积。几个微批次不能同时放进内存，但要得到把它们并成一个大批次时的梯度：平均每个词元的
    损失，即所有部分的 nats 之和除以词元总数（大于 0）。每个部分只调用一次 nats，并在下一次调用之前
    完成反向传播。

    Args:
        weight: tensor [D] with requires_grad; weight.grad is None, and must be so at the end.
        parts: a list of micro-batches, of unequal numbers of tokens; in all at least one.
        nats: nats(weight, part) gives (the part's sum of -log p, its number of tokens, perhaps 0).

    Returns:
        tensor [D], the gradient.
    """
    # BEGIN SOLUTION
    n_tokens = 0
    for part in parts:
        loss, n = nats(weight, part)
        loss.backward()  # adds to weight.grad, and frees this part's graph
        n_tokens += n
    gradient, weight.grad = weight.grad, None
    return gradient / n_tokens
    # END SOLUTION


@task("5.3", minutes=12)
def learning_rate(step, n_steps, warmup_steps, peak, final):
    """A straight line up, then half a cosine down.

    Step 0 gets peak / warmup_steps, each step as much more, and step warmup_steps - 1 the peak.
    From that step on half a cosine falls, to final · peak at the last step, n_steps - 1, and there
    it stays. Without a warm-up, step 0 has the peak.

    中文：预热：第 0 步为 peak / warmup_steps，直线上升，第 warmup_steps - 1 步达到 peak。从这一步
    起沿半个余弦下降，到最后一步（n_steps - 1）降为 final · peak，此后保持不变。warmup_steps 可以
    为 0，此时第 0 步就是 peak。

    Args:
        step: counted from 0; it may lie behind the end.
        n_steps: at least 2, and more than warmup_steps.
        warmup_steps: 0 or more.
        peak: the highest learning rate.
        final: a share of the peak, from 0 to 1.

    Returns:
        a number: halfway down it is peak · (1 + final) / 2.
    """
    # BEGIN SOLUTION
    import math

    top, last = max(warmup_steps - 1, 0), n_steps - 1
    if step < top:
        return peak * (step + 1) / warmup_steps
    share = min(1.0, (step - top) / (last - top))
    return peak * (final + (1 - final) * (1 + math.cos(math.pi * share)) / 2)
    # END SOLUTION


@task("5.4", minutes=8)
def first_update_after_a_reset():
    """Predict, measure, explain: what does AdamW do first, when its state is gone?

    A run goes on with a new AdamW: m, v and its count of steps begin again at zero. How far
    does the first step move a weight, in learning rates? Guess. Measure it with torch.optim.AdamW,
    weight_decay=0 and one weight, for gradients of 0.001 and 1,000 (far below, ε counts).

    中文：先猜，再测，再解释。训练换上新的 AdamW 继续，两个滑动平均和步数都从零开始。第一步会把一个
    权重移动多少个学习率？用 torch.optim.AdamW（weight_decay=0）测一测，梯度取 0.001 和 1000
    （远小于此时 ε 有影响）。

    Returns:
        (float, str): how many learning rates, and one sentence that says why.
    """
    # BEGIN SOLUTION
    import torch

    weight = torch.nn.Parameter(torch.zeros(2))
    optimizer = torch.optim.AdamW([weight], lr=0.5, weight_decay=0.0)
    weight.grad = torch.tensor([0.001, 1000.0])
    optimizer.step()
    return weight.abs().mean().item() / 0.5, (
        "After one step both averages, corrected for their start, hold this one gradient: g / √g² "
        "is 1 up to the sign, however small or large g is."
    )
    # END SOLUTION


@task("5.5", minutes=12)
def spikes(norms, window, factor):
    """Which steps should be left out, because their gradient is out of all proportion?

    A step is a spike if its norm is above `factor` times the median of the last `window` good
    norms. Good are the norms of earlier steps that were no spikes. As long as there are fewer than
    `window` of them, any finite norm is good. NaN and infinity are always spikes.

    中文：找出梯度范数异常的步。若某一步的范数大于（不含等于）factor × 最近 window 个“好”范数的
    中位数，它就是尖峰。之前不是尖峰的步，其范数才算“好”。“好”范数不足 window 个时，任何有限的
    范数都算好。NaN 和无穷大总是尖峰。个数为偶数时，中位数是中间两个数的平均。

    Args:
        norms: a list of floats, the gradient norm of each step; leave it as it is.
        window: how many good norms, at least 1. The median of an even number of them is the mean
            of the two in the middle.
        factor: for instance 3.0.

    Returns:
        list of the spikes' step numbers, in order: spikes([1, 1, 1, 9, 2], 3, 3.0) is [3].
    """
    # BEGIN SOLUTION
    import math
    import statistics

    good, spikes = [], []
    for step, norm in enumerate(norms):
        usual = statistics.median(good[-window:]) if len(good) >= window else math.inf
        if not math.isfinite(norm) or norm > factor * usual:
            spikes.append(step)
        else:
            good.append(norm)
    return spikes
    # END SOLUTION


@task("5.6", minutes=8)
def better_model(a, b):
    """Decide from evaluations which language model is the better one, if that can be said, and why.

    Each model was trained with several seeds, and each run was evaluated. Tokenizers and numbers
    of runs may differ. Losses of different texts prove nothing. A model is the better one if each
    of its runs has fewer bits per byte than every run of the other, however small the gap; but
    only if two equal models would show such an order, whichever is first, at most one time in 20.

    中文：每个语言模型用几个随机种子各训练一次，每次都做了评测；分词器和运行次数可能不同。判断哪个更好，
    并说明理由。文本不同就无法比较。只有当一个模型的每一次运行的每字节比特数都低于另一个模型的所有运行
    （差距大小不论），并且两个同样好的模型偶然出现这种次序（不论谁在前）的机会不超过 1/20 时，才能说
    它更好。

    Args:
        a, b: each a list of evaluations, one for each seed: dicts with "text" (the name of the
            held-out text), "nats" (the sum of -log p over the whole text), "n_tokens" and
            "n_bytes".

    Returns:
        (str, str): "a", "b" or "cannot tell", and one sentence that says why.
    """
    # BEGIN SOLUTION
    import math

    # nats per byte; ÷ log 2 would make bits of them, and change no order
    bits_a, bits_b = ([run["nats"] / run["n_bytes"] for run in runs] for runs in (a, b))
    if len({run["text"] for run in [*a, *b]}) > 1:
        return "cannot tell", "They read different texts, and one text may be the easier."
    # of all ways to split the runs between a and b, two have one side wholly below the other
    if 2 / math.comb(len(a) + len(b), len(a)) > 1 / 20:
        return "cannot tell", "With so few runs any order comes too often by chance."
    if max(bits_a) < min(bits_b):
        return "a", "Every run of a has fewer bits per byte than any run of b."
    if max(bits_b) < min(bits_a):
        return "b", "Every run of b has fewer bits per byte than any run of a."
    return "cannot tell", "Their runs overlap, so another seed could turn the order round."
    # END SOLUTION


@task("5.7", minutes=8)
def loss_scale(sizes):
    """Decide how a run is to be saved from float16's two ends: by which scale, or not at all.

    Its gradients have these sizes. Multiplied by the scale, none may lie above float16's largest
    number, 65,504, and none below its smallest, 2⁻²⁴. Take the largest power of two that does
    both. If none does, float16 is the wrong format.

    中文：给出一次训练中各梯度的大小（绝对值）。选择损失缩放的倍数：乘上之后，没有一个超过 65504，
    也没有一个小于 2⁻²⁴。取满足两者的最大的 2 的幂；若不存在，返回 "bfloat16"。

    Args:
        sizes: a list of floats above 0.

    Returns:
        a number, a power of two (it may be below 1), or the word "bfloat16".
    """
    # BEGIN SOLUTION
    import math

    scale = 2.0 ** math.floor(math.log2(65504 / max(sizes)))
    return scale if scale * min(sizes) >= 2.0**-24 else "bfloat16"
    # END SOLUTION
