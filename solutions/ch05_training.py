"""Worked answers to chapter 05, Training you can trust.

Chapter: 05
"""

from minillm.lab.task import task


@task("5.1", minutes=8)
def masked_log_probs(logits, targets, loss_mask):
    """log p of each wanted token, and exactly 0 where a token does not count.

    The probabilities at a position are the softmax of its logits, over the last axis. Where
    `loss_mask` is False, `targets` may hold anything, even a value such as -100 that marks
    padding: it must not be looked up.

    中文：对最后一维做 softmax 得到概率，返回每个目标词元的自然对数概率。loss_mask 为 False 的位置
    必须恰好是 0；那里的 targets 可以是任意数（例如填充值 -100），不能拿去查表。logits 可能大到
    1000，也可能含 -inf（不可能出现的词），结果都不得为 NaN；训练要用它的梯度；不得改动传入的张量。

    Args:
        logits: tensor [B, T, V], as large as 1,000; -inf for a word that cannot be.
        targets: tensor of integers [B, T]; ids below V where they count.
        loss_mask: tensor of bool [B, T].

    Returns:
        tensor [B, T], never NaN, through which gradients flow: log(3/4) for the logits (log 3, 0)
        and token 0. The inputs are left as they are.
    """
    # BEGIN SOLUTION
    import torch

    ids = targets.masked_fill(~loss_mask, 0)
    log_probs = logits.log_softmax(dim=-1).gather(-1, ids[..., None])[..., 0]
    return torch.where(loss_mask, log_probs, 0.0)
    # END SOLUTION


@task("5.2", minutes=8)
def accumulated_gradient(weight, parts, nats):
    """The gradient of one large batch, from parts that do not fit into memory together.

    Of the loss per token, that is: all nats of all parts, divided by all tokens of all parts. The
    parts differ in how many tokens they have. Between two parts no graph may stay alive, so that
    the memory is that of one part.

    中文：梯度累积。几个部分不能同时放进内存，但要得到把它们并成一个大批次时的梯度：损失是所有部分
    的 nats 之和除以所有部分的词元总数。各部分词元数不同。每个部分只调用一次 nats，调用下一次之前
    必须已经反向传播，释放上一次的计算图。结束时 weight.grad 仍为 None，weight 不变。

    Args:
        weight: tensor [D] with requires_grad; weight.grad is None.
        parts: a list of batches.
        nats: a function; nats(weight, part) gives (the sum of -log p over the part's tokens, a
            scalar tensor, and how many tokens these are, an int, perhaps 0). Call it once for each
            part.

    Returns:
        tensor [D]. weight.grad is None again at the end, and weight is what it was.
    """
    # BEGIN SOLUTION
    import torch

    total, n_tokens = torch.zeros_like(weight), 0
    for part in parts:
        loss, n = nats(weight, part)
        total += torch.autograd.grad(loss, weight)[0]
        n_tokens += n
    return total / n_tokens
    # END SOLUTION


@task("5.3", minutes=8)
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


@task("5.4", minutes=10)
def first_update_after_a_reset():
    """Predict, measure, explain: what does AdamW do first, when its memory is gone?

    A run is stopped in the middle and goes on from its weights alone: AdamW's two averages begin
    again at zero, and so does its count of steps. How far does the first step then move a weight,
    in learning rates? (No weight decay; the gradient is anything but tiny.) Guess; then measure it
    with torch.optim.AdamW and one weight, for a small gradient and a large one; then return the
    number and one sentence that says why.

    中文：先猜，再测，再解释。训练中断后只用权重继续，AdamW 的两个滑动平均和步数都从零开始。第一步会
    把一个权重移动多少个学习率？（没有权重衰减，梯度不是极小。）用 torch.optim.AdamW 和一个权重测
    一测，小梯度和大梯度都试试。返回（这个数，一句解释）。

    Returns:
        (float, str): how many learning rates, and your sentence.
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
