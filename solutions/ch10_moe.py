"""Worked answers to chapter 10, Mixture of experts.

Chapter: 10
"""

from minillm.lab.task import task


@task("10.1", minutes=6)
def top_k_weights(logits, top_k):
    """Decide for every token which experts it is routed to, and how much each answer counts.

    Take the top_k most probable ones, the most probable first; experts are numbered from 0. Their
    weights sum to 1 for each token, and who is twice as probable counts twice as much. Logits of
    1000 must work. The gradient must reach the logits through the weights, since that is how the
    router learns. Do not change the tensor that you are given.

    中文：对每个词元，选出路由概率最大的 top_k 个专家，按概率从大到小排列。它们的权重之和为 1，概率
    大一倍的专家，权重也大一倍。logits 为 1000 时也要能算。梯度要能经过权重传回 logits，不得改动传入
    的张量。专家编号从 0 开始。

    Args:
        logits: tensor [N, E]; no two of a token are equal.
        top_k: from 1 to E.

    Returns:
        (integers [N, top_k], weights [N, top_k]). The token above, with logits log 1, log 3 and log
        6, gives [[2, 1]] and [[0.6667, 0.3333]] for top_k = 2.
    """
    # BEGIN SOLUTION
    weights, experts = logits.softmax(dim=-1).topk(top_k, dim=-1)
    return experts, weights / weights.sum(dim=-1, keepdim=True)
    # END SOLUTION


@task("10.2", minutes=8)
def load_balance(logits):
    """Design the penalty for unbalanced use: the simplest number that meets three demands.

    1. It pushes every P_e down, in proportion to f_e: who has twice the tokens is pushed twice as
       hard. So its gradient comes through P alone, and it is linear in P. The P sum to 1, so not
       all can fall: the one that is pushed hardest falls, and the least pushed rises.
    2. Balanced, with every f and P equal to 1/E, it is 1, whatever E is.
    3. If one expert gets all tokens, with p = 1, it is E.

    Do not change the tensor that you are given.

    中文：为“专家用得不均匀”设计一个惩罚项。f_e 是选中专家 e 的词元（logit 在 e 处最大）所占比例，
    P_e 是全部词元的 p_e 的均值。要求：一、它把每个 P_e 往下压，力度与 f_e 成正比，所以梯度只经过
    P，且对 P 是线性的。P 之和为 1，不会都下降：压得最重的下降，压得最轻的上升。二、完全均匀（f 与
    P 都是 1/E）时等于 1。三、一个专家以 p = 1 得到全部词元时等于 E。不得改动传入的张量。

    Args:
        logits: tensor [N, E], for one expert a token: the one with the largest; no two are equal.

    Returns:
        tensor []. Three tokens with p = (0.8, 0.2), (0.6, 0.4) and (0.2, 0.8) have f = (2/3, 1/3)
        and P = (1.6/3, 1.4/3); their penalty is 1.0222.
    """
    # BEGIN SOLUTION
    import torch

    n_tokens, n_experts = logits.shape
    tokens_per_expert = torch.bincount(logits.argmax(dim=-1), minlength=n_experts)
    mean_probabilities = logits.softmax(dim=-1).mean(dim=0)
    return n_experts * (tokens_per_expert / n_tokens * mean_probabilities).sum()
    # END SOLUTION


@task("10.3", minutes=15)
def mix(x, experts, weights, functions):
    """What an MoE layer gives: for each token, the weighted sum of its k experts' answers.

        y[n] = Σ_j weights[n, j] · f(x[n])          with f = functions[experts[n, j]]

    An expert is called once, with the rows of all its tokens (in any order), and not at all if it
    has none. The gradient must reach x, the weights and the experts. Do not change the tensors
    that you are given.

    中文：混合专家层的输出。词元 n 的输出是它的 k 个专家的回答按权重相加。把要用同一专家的词元收集
    起来，每个专家最多调用一次；没有词元的专家不得调用。结果要放回词元原来的位置。梯度要能传到 x、
    权重和专家，不得改动传入的张量。

    Args:
        x, weights: tensors [N, D] (the tokens) and [N, k].
        experts: integers [N, k]; a token's k experts differ.
        functions: E functions, each from a tensor [n, D] to a tensor [n, D].

    Returns:
        tensor [N, D], of the dtype of x. x = [[1], [2]], experts = [[0, 1], [1, 2]], weights =
        [[0.75, 0.25], [0.5, 0.5]] and functions that multiply by 10, 100 and 1000 give
        [[32.5], [1100]]: the second function gets two rows, the others one.
    """
    # BEGIN SOLUTION
    y = x.new_zeros(x.shape)
    for e, function in enumerate(functions):
        tokens, rank = (experts == e).nonzero(as_tuple=True)
        if len(tokens):
            answers = weights[tokens, rank, None] * function(x[tokens])
            y = y.index_add(0, tokens, answers)
    return y
    # END SOLUTION


@task("10.4", minutes=12)
def sinkhorn_routing(logits, n_rounds):
    """Balance without a loss: scale the table of tokens and experts until both sides are served.

        start    plan = exp(logits)
        a round  every column times a number of its own, so that it sums to N / E: balanced;
                 then every row times a number of its own, so that it sums to 1: one token

    After enough rounds both hold at once. Logits of 1000 and of -1000 must work: keep the logarithm
    of the plan, where a factor is something to subtract, and take exp at the very end. Do not
    change the logits. A token goes where its row of the plan is largest (Clark et al. 2022).

    中文：均衡路由。从 plan = exp(logits) 出发，每一轮先把每一列乘上一个数，使列和为 N / E，
    再把每一行乘上一个数，使行和为 1；共 n_rounds 轮，返回最后的 plan。logits 可能是 ±1000：请在对数
    域里计算（logsumexp），最后再取 exp。不得改动传入的张量。

    Args:
        logits: tensor [N, E].
        n_rounds: at least 1.

    Returns:
        tensor [N, E]. One round for exp(logits) = [[4, 1], [2, 1]] gives [[0.5714, 0.4286],
        [0.4, 0.6]]: both tokens prefer expert 0; the second, which does so less, goes to expert 1.
    """
    # BEGIN SOLUTION
    import math

    n_tokens, n_experts = logits.shape
    plan = logits
    for _ in range(n_rounds):
        plan = plan - plan.logsumexp(dim=0, keepdim=True) + math.log(n_tokens / n_experts)
        plan = plan - plan.logsumexp(dim=1, keepdim=True)
    return plan.exp()
    # END SOLUTION


@task("10.5", minutes=8)
def share_without_a_place():
    """Predict, measure, explain: as much room as tokens. How many tokens find none?

    64 tokens, 8 experts. Each token is routed to one expert, at random, all equally likely. Each
    expert has room for 8: a capacity factor of 1. Which share of the tokens finds no room, in the
    mean over many draws? Guess; then measure it with
    minillm.experts.routing.route_switch(logits, capacity=8) and its n_dropped, for random logits;
    then return the share and one sentence that says why.

    中文：先猜，再测，再解释。64 个词元、8 个专家，每个词元随机选一个专家，概率相同；每个专家的容量
    是 8 个位置（容量因子为 1），位置总数正好等于词元数。平均有多大比例的词元没有位置而被丢弃？用随
    机的 logits 调用 minillm.experts.routing.route_switch(logits, capacity=8)，看它的
    n_dropped，多抽几次取平均。返回（这个比例，一句解释）。

    Returns:
        (float, str): the share of the tokens, from 0 to 1, and your sentence.
    """
    # BEGIN SOLUTION
    import torch

    from minillm.experts.routing import route_switch

    n_draws, dropped = 500, 0
    for _ in range(n_draws):
        dropped += route_switch(torch.randn(64, 8), capacity=8).n_dropped
    return dropped / (64 * n_draws), (
        "Chance gives some experts more than 8 tokens and others fewer, and room that stays empty "
        "at one expert is of no use to those who stand before another."
    )
    # END SOLUTION


@task("10.6", minutes=8)
def model_to_serve(models, memory_gb, bandwidth_gb_s, tokens_per_s, n_readers):
    """Decide: which model do you take for this machine and its readers, and why?

    All parameters lie in memory, two bytes each. In a step each reader gets a token; what is needed
    is read from memory once for all, and that takes all the time. Tokens choose independently, each
    expert with probability `part`. So an expert is read if at least one of the n readers needs it;
    take the expected share that is read. Of models that fit and are fast enough take the lowest
    loss. Say with how many readers a sparse model is as fast as a dense one of its active size.

    中文：全部参数放进内存，每个两字节。每一步 n 位读者各得一个词元；用到的权重从内存读一遍，供所有
    读者共用，时间全花在这里。词元独立选专家，选中每个专家的概率为 part；至少一位读者用到的才读，按
    期望比例算。取放得下、够快的模型中损失最低的。再说：几位读者时稀疏与同激活参数的稠密一样快？

    Args:
        models: name to (billions that every token uses, billions in all experts together, `part`
            of the experts that one token uses, loss).
        memory_gb, bandwidth_gb_s: gigabytes of memory, and gigabytes read in a second.
        tokens_per_s, n_readers: what each reader needs at least; how many read at the same time.

    Returns:
        (str, str): a name or "none", your sentence. {"dense": (13, 0, 1, 2.0), "sparse": (2, 44,
        1/4, 1.8)}, 64 GB, 900 GB/s, 30 tokens/s, one reader: "dense"; with 100 GB "sparse".
    """
    # BEGIN SOLUTION
    possible = {}
    for name, (always, in_experts, part, loss) in models.items():
        needed = 1 - (1 - part) ** n_readers  # an expert: by at least one of the readers
        read_gb = 2 * (always + in_experts * needed)
        if 2 * (always + in_experts) <= memory_gb and read_gb * tokens_per_s <= bandwidth_gb_s:
            possible[name] = loss
    return min(possible, key=possible.get) if possible else "none", (
        "For one reader, since only the active parameters are read; of many readers somebody needs "
        "each expert, so all are read at each step."
    )
    # END SOLUTION


@task("10.7", minutes=10)
def smallest_capacity_factor(counts, factors, most_dropped):
    """Decide: how much room do the experts need?

    An expert has room for capacity = factor · tokens / experts tokens, rounded up. What comes
    beyond that is dropped. Room costs memory, so you want the smallest factor with which no batch
    loses more than the share `most_dropped` of its tokens.

    中文：决定容量系数。每个专家的容量是 系数 × 词元数 ÷ 专家数（向上取整），超出的词元被丢弃。在给
    定的系数中返回最小的一个，使每个批次被丢弃的比例都不超过 most_dropped；没有时返回 "none"。

    Args:
        counts: for each batch a list: how many tokens are routed to each expert.
        factors: the factors to choose from, in no order.
        most_dropped: a share of a batch's tokens, from 0 to 1.

    Returns:
        float, or "none". [[3, 1], [2, 2]] drops 1 of 4 tokens of its first batch with factor 1
        (room for 2) and none with 1.25 (room for 2.5, so 3). So with the factors [2.0, 1.25, 1.0]
        and most_dropped = 0.1 the answer is 1.25.
    """
    # BEGIN SOLUTION
    import math

    def dropped(batch, factor):
        room = math.ceil(factor * sum(batch) / len(batch))
        return sum(max(0, n - room) for n in batch) / sum(batch)

    enough = [f for f in factors if max(dropped(b, f) for b in counts) <= most_dropped]
    return min(enough) if enough else "none"
    # END SOLUTION
