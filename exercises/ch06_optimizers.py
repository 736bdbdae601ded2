"""Tasks of chapter 06, Optimizers.

Chapter: 06
"""

from minillm.lab.task import task


@task("6.1", minutes=8)
def furthest_with_lion(sequences, betas):
    """Find which sequence of gradients moves Lion furthest, and where each one ends.

    One weight begins at 0, and so does m. Lion takes one step for each gradient of a sequence, with
    a learning rate of 1 and no weight decay. The next sequence begins at 0 again. Before you run
    it: with betas (0.9, 0.99), which of these ends furthest from 0? Guess.

        A: 2, 2, 2, 2, 2, -1      B: 50, -50, 50, -50, 50, -50      C: 100, -1, -1, -1, -1, -1

    中文：哪一串梯度使 Lion 走得最远？只有一个权重，它和 m 都从 0 开始；每个梯度走一步 Lion，学习率
    为 1，没有权重衰减；下一串又从 0 开始。先猜：betas 为 (0.9, 0.99) 时，上面的 A、B、C 中哪一串
    最后离 0 最远？返回（最后离 0 最远的那一串的序号，各串最后的权重的列表）。序号从 0 数起；正负
    方向都算；一样远时取靠前的。

    Args:
        sequences: a list of lists of numbers, the gradients in their order.
        betas: (β₁, β₂).

    Returns:
        (int, list of float): which sequence ends furthest from 0, on either side (counted from 0,
        the first of them if several do), and the weight at the end of each. [[3, -1], [0, 5]] with
        betas (0.9, 0.99) gives (1, [0, -1]): the first goes one step and comes back.
    """
    raise NotImplementedError


@task("6.2", minutes=8)
def whole_or_factored(v, factor):
    """Decide how to keep the second moment v of one matrix: whole, or by its rows and columns.

    Rebuild v from its row means and its column means, as above. A weight's step is its gradient
    divided by √v; with the rebuilt v some steps come out too long or too short. Factor v if every
    step is at least 1 / factor times and at most factor times as long as with the true v (exactly
    that is still allowed), and if the means are fewer numbers than v has.

    中文：决定一个矩阵的二阶矩 v 该怎样保存。由 v 各行、各列的均值还原出 v（见上文）。权重的步长是
    梯度除以 √v；用还原的 v，有的步会过长或过短。与用真正的 v 时相比，若每个权重的步至少是
    1 / factor 倍，至多是 factor 倍（恰好相等也算），并且均值的个数少于 v 的个数，就返回
    "factored"，否则返回 "whole"。不得改动 v。

    Args:
        v: tensor [n, m], every number above 0.
        factor: above 1, for instance 1.5.

    Returns:
        "factored" or "whole". v = [[1, 1, 1], [1, 1, 9]] is rebuilt as [[0.43, 0.43, 2.14],
        [1.57, 1.57, 7.86]]. The worst step is the first weight's, √(1 / 0.43) = 1.53 times as
        long: "whole" for a factor of 1.5, "factored" for 1.6.
    """
    raise NotImplementedError


@task("6.3", minutes=10)
def confident_direction(update, momentum, rows, columns, beta, epsilon):
    """CAME's confidence: a short step where updates lie far from their running mean.

        U = (û - m)² + ε                       the instability, number by number
        R, C ← the running means, with β, of U's row means and of its column means
        S[i, j] = R[i] · C[j] / mean(R)        of the new R and C
        direction = m / √S

    中文：CAME 的置信度。û 是这一步的更新量，m 是它的滑动平均（已经包含 û，不要再更新）。不稳定度
    U = (û - m)² + ε 按行、按列的均值记成 R 和 C 的滑动平均，再像 Adafactor 那样还原成 S，方向是
    m / √S。不得改动传入的张量。

    Args:
        update, momentum: û and m, tensors [n, m]; m has taken in this update.
        rows, columns: R and C of the step before, tensors [n] and [m].
        beta, epsilon: β and ε; ε counts where û = m.

    Returns:
        (tensor [n, m], tensor [n], tensor [m]): the direction, and the new R and C. û = [[4, 0]],
        m = [[2, 1]], R = [1.5] and C = [2, 1] with β = 0.5 and ε = 0 give R = [2], C = [3, 1] and
        the direction [[1.1547, 1]], since 2 / √3 is 1.1547.
    """
    raise NotImplementedError


@task("6.4", minutes=8)
def first_step_of_came():
    """Predict, measure, explain: how far does CAME's very first step go?

    A weight is a matrix, and its gradient is the same number everywhere. AdamW's first step would
    move each weight by one learning rate. By how many does CAME's, with its default betas (0.9,
    0.999, 0.9999) and no weight decay? Guess; then measure it with minillm.optim.came.CAME, for a
    small gradient and a large one; then return the number and one sentence that says why.

    中文：先猜，再测，再解释。权重是一个矩阵，梯度处处相同。AdamW 的第一步会把每个权重移动一个学习
    率；用默认的三个 beta（0.9, 0.999, 0.9999）、没有权重衰减时，CAME 的第一步移动多少个学习率？
    用 minillm.optim.came.CAME 测一测，小梯度和大梯度都试试。返回（这个数，一句解释）。

    Returns:
        (float, str): how many learning rates, without a sign, and your sentence.
    """
    raise NotImplementedError


@task("6.5", minutes=10)
def adam_mini_update(gradient, mean, square, step, betas, epsilon):
    """Adam-mini's direction for a matrix: one second moment a row in place of one a weight.

        m ← β₁ m + (1 - β₁) g                                    a number a weight, as in Adam
        v ← β₂ v + (1 - β₂) · (the mean of g² over the row)      a number a row
        direction = m̂ / (√v̂ + ε)       m̂ = m / (1 - β₁ᵗ), v̂ = v / (1 - β₂ᵗ)

    中文：Adam-mini 对一个矩阵的更新方向。m 和 Adam 一样；v 每一行（一个神经元的全部权重）只存一个
    数：这一行 g² 的均值的滑动平均。两者都做偏差修正，ε 加在根号之外。返回的 m 和 v 是未修正的。

    Args:
        gradient, mean: g and m, tensors [rows, columns]; m is 0 before the first step.
        square: v, tensor [rows]; zeros before the first step.
        step: t, from 1 on.
        betas, epsilon: (β₁, β₂), and ε.

    Returns:
        (tensor [rows, columns], tensor [rows, columns], tensor [rows]): the direction, m and v.
        The first step with g = [[1, 7], [-3, 3]] has the direction [[0.2, 1.4], [-1, 1]], since
        √((1 + 49) / 2) is 5.
    """
    raise NotImplementedError


@task("6.6", minutes=8)
def rounds_of_newton_schulz(strength):
    """Predict, measure, explain: how many rounds until a weak direction is strong?

        the textbook's round      s ← 1.5 s - 0.5 s³
        Muon's round              s ← 3.4445 s - 4.7750 s³ + 2.0315 s⁵

    Begin with s = strength. With each of the two, count the rounds until s is at least 0.5 for the
    first time. Guess for 0.001 first. Then explain: what is s³ when s is small?

    中文：先猜，再测，再解释。从 s = strength 开始，两种多项式各需要多少轮才能第一次让 s 不小于
    0.5？（一开始就够则为 0 轮。）返回（教科书的轮数, Muon 的轮数, 一句解释）。

    Args:
        strength: s before the first round, above 0 and at most 1.

    Returns:
        (int, int, str): the textbook's rounds, Muon's, and one sentence that says why one is
        faster. For strength = 0.3 the rounds are 2 and 1; for 0.5 they are 0 and 0.
    """
    raise NotImplementedError


@task("6.7", minutes=8)
def fair_verdict(search_a, search_b, again_a, again_b):
    """Decide which of two optimizers may be called better, if any; see the three thoughts above.

    中文：判断两个优化器中哪一个可以说更好。若某一方的最佳学习率在所试范围的边上，返回
    "search more"；只有新种子的损失可以作判断；若两组新损失的范围有重叠，返回 "cannot tell"；
    否则返回 "A" 或 "B"（损失低的一方）。

    Args:
        search_a: losses of A's search by rate, such as {0.01: 2.5, 0.02: 2.4, 0.04: 2.6}, in any
            order; a run that broke has the loss infinity. No two are equal.
        search_b: the same of B.
        again_a, again_b: losses at the best rate of each, with seeds that had no part in it.

    Returns:
        "A", "B", "cannot tell" or "search more". With the search above for both, and again_a =
        [2.4, 2.5], it is "A" for again_b = [2.6, 2.7] and "cannot tell" for again_b = [2.45, 2.7].
    """
    raise NotImplementedError
