"""Tasks of chapter 15, Sharding the data.

Chapter: 15
"""

from minillm.lab.task import task


@task("15.1", minutes=15)
def ring_sum(chunks, rank):
    """Add up the vectors of all ranks, sending chunks round a ring: the steps of one rank.

    Your vector is cut into N chunks, one for each rank. In each step every rank sends one chunk to
    its right neighbour, rank + 1 (the last one's is rank 0), and gets one from its left:

        arrived = yield chunk        hands `chunk` to the right, and gets what the left has sent

    First N - 1 steps with partial sums: to what arrives, add your own chunk of the same number, and
    send that on. Then N - 1 steps with finished sums, unchanged. Which chunk does each rank send
    first? Do not change tensors that you are given, nor those that arrive.

    中文：N 个进程排成环，每个进程的向量切成 N 块。每一步，每个进程向右邻居（rank + 1，最后一个的
    右邻居是 0）发一块，同时收到左邻居的一块：arrived = yield chunk。先用 N - 1 步传部分和（收到后
    加上自己编号相同的一块，再往下传），再用 N - 1 步传算好的和。不得改动传入或收到的张量。

    Args:
        chunks: list of N tensors, this rank's vector.
        rank: 0 to N - 1.

    Returns:
        list of N tensors: all chunks of the sum, in order, after exactly 2 (N - 1) yields.
    """
    raise NotImplementedError


@task("15.2", minutes=8)
def cards_needed(n_parameters, card_bytes, stage):
    """How many cards does a model need, so that weights, gradients and state fit?

    A rank holds 16 bytes a parameter in mixed precision with AdamW: 2 for the weight, 2 for its
    gradient, 12 for the optimizer. Stage 1 cuts the optimizer's part into N, stage 2 the gradients
    too, stage 3 the weights too; stage 0 cuts nothing. Each card is one rank. Return the smallest N
    for which a rank's bytes are at most card_bytes, or math.inf if no N is large enough.
    (Activations come on top; here they are left out.)

    中文：混合精度加 AdamW 时，每个参数占 16 字节：权重 2，梯度 2，优化器 12。ZeRO 第一阶段把优化器
    部分切成 N 份，第二阶段连梯度一起切，第三阶段连权重一起切；第零阶段不切。每张卡是一个进程。
    返回放得下（不超过 card_bytes）的最小卡数 N；无论多少张都放不下时返回 math.inf。激活
    值不计。

    Args:
        n_parameters: Ψ.
        card_bytes: memory of a card.
        stage: 0 to 3.

    Returns:
        int or math.inf: 10 parameters on cards of 60 bytes need 3 cards in stage 3 (160 ÷ 3 is
        53.3 on each), 6 in stage 1 (40 + 120 ÷ 6 = 60), and fit on none in stage 0.
    """
    raise NotImplementedError


@task("15.3", minutes=10)
def sharded_step(weights, gradients, memories, rule):
    """One step of ZeRO's stage 1, with all ranks in one process.

    N ranks have the same weights, a vector, and each the gradient of its own rows. The gradient of
    the batch is their sum. Cut it into N equal parts, in order: rank r updates part r, and keeps
    what it must remember for that part alone. Where N does not divide the length, fill up with
    zeros before you cut, and take them away again. The result is that of updating all at once.

        update, memory = rule(gradient, memory)      of a vector; number by number

    中文：在一个进程里模拟 ZeRO 第一阶段的一步。N 个进程有相同的权重（一个向量），各自有一份梯度，总
    梯度是它们的和。每个进程只更新自己的那一段，并且只为这一段保存优化器状态。各段一样长：长度不能被
    N 整除时用零补齐，最后再去掉。rule(gradient, memory) 逐个数地计算，返回 (更新量, 新状态)。

    Args:
        weights: tensor [n].
        gradients: list of N tensors [n], one a rank.
        memories: list of N, what rule gave each rank in the last step; [None] * N at first.
        rule: called once for each rank, with its part of the summed gradient and its memory.

    Returns:
        (new weights [n], new memories): weights minus the updates.
    """
    raise NotImplementedError


@task("15.4", minutes=10)
def bytes_sent(n_parameters, n_ranks, stage, n_micro):
    """Predict, measure, explain: what does a rank send in a step that has several backward passes?

    A step makes n_micro forward and backward passes, and one update. Numbers that are sent have 2
    bytes. A reduce-scatter or an all-gather of n numbers sends (N - 1)/N · n of them, an all-reduce
    both. Ask of each stage: can a rank keep the gradients of one pass until the last one, or has it
    no room? Are the weights there when a pass needs them? What do others need after the update?

    中文：一步有 n_micro 次前向和反向，一次更新；传输的数都是 2 字节。n 个数的 reduce-scatter 或
    all-gather 各发送 (N - 1)/N · n 个数，all-reduce 是两者之和。对每个阶段想一想：一次反向的梯度能
    留到最后吗，还是没地方放？前向和反向时权重在不在？更新之后别人需要什么？网络慢时你选哪一阶段，为什么？

    Args:
        n_parameters: Ψ, which N divides.
        n_ranks: N.
        stage: 0 to 3.
        n_micro: backward passes in the step.

    Returns:
        (float, str): bytes of one step, and a sentence: which stage on a slow network, and why. In
        English or Chinese, at least five words.
    """
    raise NotImplementedError
