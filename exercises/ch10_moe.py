"""Tasks of chapter 10, Mixture of experts.

Chapter: 10
"""

from minillm.lab.task import task


@task("10.1", minutes=6)
def top_k_weights(logits, top_k):
    """Which k experts each token passes, and how much each of them counts.

        p = softmax(logits)                              over the experts, for each token
        experts = the k with the largest p, the largest first
        weights = their p, divided by the sum of these k

    The gradient must find its way through the weights: that is how the router learns. No two
    logits of a token are equal here.

    中文：top-k 路由。对每个词元，在所有专家上做 softmax 得到 p；选出 p 最大的 k 个专家，按 p 从大到
    小排列；权重是这 k 个 p 除以它们的和，所以每个词元的权重之和为 1。返回（专家编号, 权重），编号是
    从 0 开始的整数。梯度要能经过权重传回 logits，不得改动传入的张量。

    Args:
        logits: tensor [N, E], of each token for each expert.
        top_k: k, from 1 to E.

    Returns:
        (tensor [N, k] of integers, tensor [N, k]): the experts' numbers, from 0 on, and their
        weights. The logits log 1, log 3 and log 6 of one token with k = 2 give the experts
        [[2, 1]] and the weights [[0.6667, 0.3333]].
    """
    raise NotImplementedError


@task("10.2", minutes=8)
def load_balance(logits):
    """Switch's auxiliary loss: 1 when the experts are in even use, E when one has everything.

        f_e = the share of the tokens whose largest logit is that of expert e
        P_e = the mean over all tokens of p_e, with p = softmax(logits)
        loss = E · Σ f_e · P_e                                          the sum over the experts

    f counts, so it has no gradient; P has one, and is pushed down where f is large. No two logits
    of a token are equal here.

    Fedus et al. 2021, "Switch Transformers", arXiv:2101.03961, equations (4) to (6), without α.

    中文：Switch 的负载均衡损失。f_e 是选中专家 e 的词元（logit 在 e 处最大）所占的比例，P_e 是全部
    词元的 p_e 的均值，p 是在专家上的 softmax。损失 = E · Σ f_e · P_e：各专家用得一样多时为 1，全部
    词元挤到一个专家时可以大到 E。f 是计数，没有梯度；梯度经过 P 传回 logits。返回一个标量张量，不得
    改动传入的张量。

    Args:
        logits: tensor [N, E], of each token for each expert.

    Returns:
        tensor []: the loss, with its gradient. Three tokens with p = (0.8, 0.2), (0.6, 0.4) and
        (0.2, 0.8) have f = (2/3, 1/3) and P = (1.6/3, 1.4/3), so the loss is 1.0222.
    """
    raise NotImplementedError


@task("10.3", minutes=12)
def mix(x, experts, weights, functions):
    """What a layer of experts gives: for each token, the weighted sum of its k experts' answers.

        y[n] = Σ_j weights[n, j] · f(x[n])          with f = functions[experts[n, j]]

    An expert is called once, with the rows of all tokens that ask for it (in any order), and not
    at all where no token does: that is what a mixture saves. So no call for each token.

    中文：混合专家层的输出。词元 n 的输出是它的 k 个专家的回答按权重相加。每个专家函数接收 [n, D]，
    返回 [n, D]：把要用它的词元收集起来，最多只调用一次；没有词元要用的专家不得调用。结果要放回词元
    原来的位置。梯度要能传到 x、权重和专家，不得改动传入的张量。

    Args:
        x: tensor [N, D], the tokens.
        experts: tensor [N, k] of integers; a token's k experts differ.
        weights: tensor [N, k].
        functions: a list of E functions, each from a tensor [n, D] to a tensor [n, D].

    Returns:
        tensor [N, D], of the type of x: y, in the order of the tokens. x = [[1], [2]], experts =
        [[0, 1], [1, 2]], weights = [[0.75, 0.25], [0.5, 0.5]] and functions that multiply by 10,
        100 and 1000 give [[32.5], [1100]]: two rows for the second function, one for the others.
    """
    raise NotImplementedError


@task("10.4", minutes=12)
def sinkhorn_routing(logits, n_rounds):
    """Balance without a loss: scale the table of tokens and experts until both sides are served.

        start    plan = exp(logits)
        a round  every column times a number of its own, so that it sums to N / E: even use;
                 then every row times a number of its own, so that it sums to 1: one token

    After enough rounds both hold at once. (The rows come last; so a factor that all columns have in
    common cancels.) Logits of 1000 and of -1000 must work: work with the
    logarithm of the plan, where a factor is something to subtract, and take exp at the very end.

    Clark et al. 2022, "Unified Scaling Laws for Routed Language Models", arXiv:2202.01169, route
    with such a plan (their S-BASE): a token goes where its row of the plan is largest. It looks at
    the whole batch, later tokens with it, as expert choice does.

    中文：用 Sinkhorn 算法做均衡的路由。从 plan = exp(logits) 出发，每一轮先把每一列乘上一个数，使列
    和为 N / E（各专家用得一样多），再把每一行乘上一个数，使行和为 1（一个词元只有一份）。先列后行，
    共 n_rounds 轮，返回最后的 plan。logits 可能是 ±1000：请在对数域里计算（logsumexp），最后再取
    exp。不得改动传入的张量。

    Args:
        logits: tensor [N, E], of each token for each expert.
        n_rounds: how many rounds, at least 1.

    Returns:
        tensor [N, E]: the plan, after its rows were scaled. One round for exp(logits) =
        [[4, 1], [2, 1]] gives [[0.5714, 0.4286], [0.4, 0.6]]: both tokens like expert 0 better,
        and the second, which likes it less, now goes to expert 1.
    """
    raise NotImplementedError


@task("10.5", minutes=8)
def share_without_a_place():
    """Predict, measure, explain: as many places as tokens. How many tokens find none?

    64 tokens, 8 experts. Each token asks for one expert, at random, all equally likely. Each expert
    has 8 places: a capacity factor of 1. Which share of the tokens finds no place, in the mean over
    many draws? Guess; then measure it with minillm.experts.routing.route_switch(logits, capacity=8)
    and its n_dropped, for random logits; then return the share and one sentence that says why.

    中文：先猜，再测，再解释。64 个词元、8 个专家，每个词元随机选一个专家，概率相同；每个专家的容量
    是 8 个位置（容量因子为 1），位置总数正好等于词元数。平均有多大比例的词元没有位置而被丢弃？用随
    机的 logits 调用 minillm.experts.routing.route_switch(logits, capacity=8)，看它的
    n_dropped，多抽几次取平均。返回（这个比例，一句解释）。

    Returns:
        (float, str): the share of the tokens, from 0 to 1, and your sentence.
    """
    raise NotImplementedError
