"""Worked answers to chapter 12, Scaling laws.

Chapter: 12
"""

from minillm.lab.task import task


@task("12.1", minutes=5)
def unseen_share(probabilities, n_draws):
    """How often will a question be about something that was never read?

    A world has facts; fact k is asked for with probability p_k, and a text tells facts with the
    same probabilities, each sentence one fact, drawn anew. A learner reads n_draws sentences and
    forgets nothing. With which probability is the next question about a fact that none of them
    told? Not by trying it out: a formula gives it, averaged over all texts of that length.

    中文：世界里有许多事实，第 k 个事实被问到的概率是 p_k；文本也按同样的概率讲事实，每句独立地讲一
    个。学习者读了 n_draws 句，什么也不忘。下一个问题恰好问到从没读过的事实，概率是多少（对所有这样
    长的文本取平均）？不要模拟，请用公式。

    Args:
        probabilities: list of all p_k; their sum is 1.
        n_draws: sentences that were read; may be 0.

    Returns:
        float: two facts of 0.5 and 2 sentences give 0.25.
    """
    # BEGIN SOLUTION
    # (1 - p)^n: no sentence told it; p: and it is asked for
    return sum(p * (1 - p) ** n_draws for p in probabilities)
    # END SOLUTION


@task("12.2", minutes=10)
def best_size(n_parameters, losses):
    """The best size for one compute budget: the lowest point of a parabola through the losses.

    All runs took the same number of operations. Take log N as the horizontal axis, since sizes are
    multiplied and not added, and fit the parabola of least squares (np.polyfit). Return the N of
    its lowest point, which need not be a size that was tried. But that is an answer only if the
    runs show that smaller sizes AND larger sizes are worse. If they do not, return nan.

    中文：所有训练用的计算量相同，哪个规模最好？以 log N 为横轴（规模是成倍变化的），用最小二乘拟合
    一条抛物线，返回最低点处的 N（不必是试过的规模）。只有这些训练表明更小和更大的规模都更差时，问题
    才有答案；否则返回 nan。规模各不相同，顺序任意。

    Args:
        n_parameters: list of different sizes, in any order, at least three.
        losses: list, the loss of each.

    Returns:
        float, or nan: sizes 100, 1,000 and 10,000 with losses 3, 2 and 3 give 1,000.
    """
    # BEGIN SOLUTION
    import numpy as np

    best = n_parameters[int(np.argmin(losses))]
    if best in (min(n_parameters), max(n_parameters)):
        return float("nan")
    x = np.log(n_parameters)
    middle = x.mean()  # numbers near 0 keep the fit exact
    bend, slope, _ = np.polyfit(x - middle, losses, 2)
    if bend <= 0:
        return float("nan")
    lowest = float(np.exp(middle - slope / (2 * bend)))
    return lowest if min(n_parameters) < lowest < max(n_parameters) else float("nan")
    # END SOLUTION


@task("12.3", minutes=8)
def counted_otherwise(bowls):
    """Predict, measure, explain: does the exponent depend on what you call a parameter?

    The best size grows with the compute C as a power, N ∝ C^a. In the chapter N was everything that
    a model has. Kaplan's paper counted only the blocks, without the two tables of the vocabulary.
    The runs stay the same and so do the best models; only their N is counted otherwise. Will a be
    larger or smaller? Guess first. Then find the best size of each bowl with N counted in the
    blocks (minillm.train.laws.isoflop_minimum), fit the line through them
    (minillm.train.laws.power_law), and return its exponent and a sentence that says why it moved.

    中文：先猜，再测，再解释。最优规模随计算量按幂增长：N ∝ C^a。第 5 节的 N 是全部参数；Kaplan 的论
    文只数各层的参数，不数词表的两张表。训练没有变，只是数法变了：a 会变大还是变小？先猜；再用
    isoflop_minimum 求每种计算量下的最优规模（只数各层参数），用 power_law 求指数；返回（指数，一句
    解释）。

    Args:
        bowls: dict, compute in operations → list of (parameters of the blocks, loss), one for each
            run.

    Returns:
        (float, str): a, and your sentence.
    """
    # BEGIN SOLUTION
    from minillm.train.laws import isoflop_minimum, power_law

    best = {
        flops: isoflop_minimum(*zip(*runs, strict=True)).n_parameters
        for flops, runs in bowls.items()
    }
    exponent = power_law(list(best), list(best.values())).exponent
    return exponent, (
        "The two tables are a large part of a small model and a small part of a large one: without "
        "them the small model shrinks more, so the way from small to large is longer."
    )
    # END SOLUTION


@task("12.4", minutes=16)
def forecast(offers, buy, sealed, floor):
    """The game: spend a budget, then say the loss of a run that you could not afford.

    `offers` lists the runs for sale, each (N, D): parameters and tokens. A run costs 6 · N · D
    operations, and you have 6e10. buy(N, D) pays and returns its loss, in nats a token; if too
    little is left it raises a ValueError, and nothing is paid. `sealed` is a run (N, D) of at least
    ten times the operations of the most expensive on sale. What will its loss be? Decide what to
    buy, and fit any law. The grader plays it twice: sealed runs of 67,824 and of 33,440 parameters.

    中文：游戏：用有限的预算买训练结果，预测一次买不起的训练。offers 是在售的训练 (N, D)，价格是
    6·N·D 次运算，预算为 6e10；buy(N, D) 付款并返回损失，钱不够时抛出 ValueError，不扣款。sealed 的
    计算量至少是最贵商品的十倍，请预测它的损失。买什么、用什么定律由你定。评分器玩两次：sealed 的
    参数量分别是 67,824 和 33,440。

    Args:
        offers: list of (n_parameters, n_tokens).
        buy: function (n_parameters, n_tokens) → loss.
        sealed: (n_parameters, n_tokens) of the run to predict.
        floor: the source's own loss; no model's can be lower.

    Returns:
        float: the loss of the sealed run. Within 3 % wins.
    """
    # BEGIN SOLUTION
    from minillm.train.laws import power_law

    # 1. buy the sealed run's own size at every length on sale: then only the tokens differ
    own = [
        (n_parameters, n_tokens) for n_parameters, n_tokens in offers if n_parameters == sealed[0]
    ]
    tokens = [n_tokens for _, n_tokens in own]
    losses = [buy(*run) for run in own]
    # 2. a line in log-log through what lies above the floor
    return float(power_law(tokens, losses, floor=floor).predict(sealed[1]))
    # END SOLUTION
