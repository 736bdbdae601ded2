"""Worked answers to chapter 09, Long context.

Chapter: 09
"""

from minillm.lab.task import task


@task("9.1", minutes=6)
def sparse_mask(n_tokens, window, n_sinks):
    """Which tokens may look at which, when a text is too long for all to see all.

    A token sees the last `window` tokens: itself and the window - 1 before it. It also sees the
    first n_sinks tokens of the text, called sinks, however far back they are. It never sees a later
    token, not even a sink.

    中文：每个词元可以看最近的 window 个词元（自己和它前面的 window - 1 个），还可以看全文最开头的
    n_sinks 个词元（称为 sink，即“注意力汇聚点”），无论它们隔得多远。任何词元都不能看后面的词元，
    后面的 sink 也不行。返回布尔表：每行一个查询，每列一个键，True 表示可以看。

    Args:
        n_tokens: T, at least 1.
        window: at least 1; may be larger than n_tokens.
        n_sinks: may be 0, and larger than n_tokens.

    Returns:
        tensor of bool [T, T], True = may look; a row for each query, a column for each key. With 5
        tokens, a window of 2 and 1 sink, row 3 is [1, 0, 1, 1, 0]: token 3 sees itself, token 2
        before it, and the sink. The whole table: [[1, 0, 0, 0, 0], [1, 1, 0, 0, 0],
        [1, 1, 1, 0, 0], [1, 0, 1, 1, 0], [1, 0, 0, 1, 1]].
    """
    # BEGIN SOLUTION
    import torch

    positions = torch.arange(n_tokens)
    distance = positions[:, None] - positions[None, :]
    is_sink = positions[None, :] < n_sinks
    return (distance >= 0) & ((distance < window) | is_sink)
    # END SOLUTION


@task("9.2", minutes=10)
def linear_attention(q, k, v):
    """Causal attention without a softmax, in time that grows only in proportion to the text.

    y_t is the mean of the values up to token t, where value s has the weight q_t · k_s:

        y_t = Σ_{s≤t} (q_t · k_s) v_s  /  Σ_{s≤t} (q_t · k_s)

    A table of all T × T weights would give that, but is not allowed; nor is it allowed that token t
    reads keys or values of earlier tokens again. For twice as many tokens it must be twice the
    work. So find out what has to be carried along from token to token: how many numbers, and of
    which shape?

    中文：没有 softmax 的因果注意力：y_t 是前 t 个值的加权平均，第 s 个值的权重是 q_t · k_s（自己也
    算在内）。不得构造 T × T 的权重表，第 t 个词元也不得重读以前的键和值：文本加倍，计算量只能加倍。
    从一个词元到下一个，需要带着走的是什么，形状如何？q 和 k 已经是正的特征，不用再变换。不得改动
    传入的张量。

    Args:
        q: tensor [T, N], the queries, as features: all above 0.
        k: tensor [T, N], the keys, as features: all above 0.
        v: tensor [T, K], the values.

    Returns:
        tensor [T, K]; those given are left as they are. Two tokens by hand: k = [[3, 1], [1, 1]],
        v = [[4], [8]] and q = [[1, 1], [1, 2]]. The second query gives the weights 3 + 2 = 5 and
        1 + 2 = 3, so y = [[4], [5.5]], since (5 · 4 + 3 · 8) / (5 + 3) is 5.5.
    """
    # BEGIN SOLUTION
    import torch

    state = torch.zeros(k.shape[1], v.shape[1])
    total = torch.zeros(k.shape[1])
    rows = []
    for q_now, k_now, v_now in zip(q, k, v, strict=True):
        state = state + k_now[:, None] * v_now[None, :]
        total = total + k_now
        rows.append(q_now @ state / (q_now @ total))
    return torch.stack(rows)
    # END SOLUTION


@task("9.3", minutes=12)
def wkv_step(k, v, decay, bonus, state):
    """One token of RWKV's average, which must not overflow, however large a key is.

    RWKV (Peng et al. 2023, arXiv:2305.13048) averages values, each channel by itself:

        wkv_t = (Σ_{i<t} e^(k_i - (t-1-i) w) v_i + e^(u + k_t) v_t)
              / (Σ_{i<t} e^(k_i - (t-1-i) w)     + e^(u + k_t))

    So an earlier value weighs e^(its key), and loses the factor e^(-w), the decay, with each token
    that has come since. The newest value weighs e^(u + k_t): u is its bonus, for this once only.

    After token t the two sums over all i ≤ t, with the exponents k_i - (t - i) w and no bonus, are
    what the next token needs. But e^1000 is beyond any float. So what is kept is the largest of
    those exponents, the maximum, and both sums divided by e^maximum. Write the step from one token
    to the next. Keys of ±1000 must give neither inf nor NaN.

    中文：RWKV 的一步（逐通道）。较早的值以 e^(它的键) 为权重，此后每过一个词元，权重乘以 e^(-w)
    （w 即 decay）；最新的值自己以 e^(u + k_t) 为权重，u 即 bonus，只用这一次。t 之后保存的是：所有
    i ≤ t 的指数 k_i - (t - i) w 中最大的一个（maximum），以及除以 e^maximum 之后的分子和分母（不含
    bonus）。写出从一个词元到下一个的计算。键可能大到 ±1000，结果不得是 inf 或 NaN。返回（wkv，新的
    状态），不得改动传入的张量。

    Args:
        k: tensor [C], the key of each channel, from -1,000 to 1,000.
        v: tensor [C], the value.
        decay: tensor [C], w, above 0.
        bonus: tensor [C], u, of any sign.
        state: (numerator, denominator, maximum) of the tokens before, each a tensor [C]; before the
            first token (0, 0, -1e38).

    Returns:
        (tensor [C], (tensor [C], tensor [C], tensor [C])): wkv and the new state. With a decay of
        log 2 and no bonus, k = 0 and v = 4 as first token give 4 and the state (4, 1, 0); k = 0
        and v = 8 after it give (4 + 8) / 2 = 6 and the state (4 / 2 + 8, 1 / 2 + 1, 0), which is
        (10, 1.5, 0).
    """
    # BEGIN SOLUTION
    import torch

    numerator, denominator, maximum = state
    top = torch.maximum(maximum, bonus + k)
    old, new = (maximum - top).exp(), (bonus + k - top).exp()
    wkv = (old * numerator + new * v) / (old * denominator + new)

    following = torch.maximum(maximum - decay, k)
    old, new = (maximum - decay - following).exp(), (k - following).exp()
    return wkv, (old * numerator + new * v, old * denominator + new, following)
    # END SOLUTION


@task("9.4", minutes=12)
def delta_rule(q, k, v, beta):
    """DeltaNet: a new value replaces what is stored under its key, in place of adding to it.

    The memory is a table S [N, K], all 0 before the first token. What it has stored under a key k
    is Sᵀ k, K numbers. For each token in turn:

        - read what is stored under its key;
        - replace the share β of that by as large a share of the new value. Then (1 - β) of the
          old and β of the new are stored under this key. What is stored under a key at right angles
          to it must stay as it was;
        - read with the query, Sᵀ q: that is y, and it is not divided by anything.

    How must S be changed for that? In linear attention k vᵀ is added, and two values under one
    key become their sum.

    Schlag, Irie and Schmidhuber 2021, "Linear Transformers Are Secretly Fast Weight Programmers",
    arXiv:2102.11174, section 4.2.

    中文：DeltaNet 的增量规则。记忆是一个表 S，开始时全为 0；键 k 下存的内容是 Sᵀ k。每来一个词元：
    先读出它的键下已存的内容，再把其中 β 的份额换成新值的同样份额（于是旧的剩 1 - β，新的占 β；与它
    垂直的键下的内容不变），最后用查询读出 y = Sᵀ q，不除以任何数。键的长度都是 1。应当怎样改动 S？
    不得改动传入的张量。

    Args:
        q: tensor [T, N], the queries.
        k: tensor [T, N], the keys, each of length 1.
        v: tensor [T, K], the values.
        beta: tensor [T], from 0 to 1: the share of the old that is replaced.

    Returns:
        tensor [T, K]; those given are left as they are. The key (1, 0) twice, with the values
        [5] and [7], read by q = (1, 0), gives [[5], [7]] with β = 1; with β = 0.5 it gives
        [[2.5], [4.75]], since half of 0 and half of 5 is 2.5, and half of 2.5 and half of 7 is
        4.75.
    """
    # BEGIN SOLUTION
    import torch

    state = torch.zeros(k.shape[1], v.shape[1])
    rows = []
    for q_now, k_now, v_now, share in zip(q, k, v, beta, strict=True):
        missing = v_now - k_now @ state
        state = state + share * torch.outer(k_now, missing)
        rows.append(q_now @ state)
    return torch.stack(rows)
    # END SOLUTION


@task("9.5", minutes=8)
def when_the_state_is_smaller():
    """Predict, measure, explain: how long must a text be until a fixed state pays?

    Two layers of width 64, each with 4 heads of width 16:

        attention           keeps the keys and values of all tokens
        linear attention    keeps, for each head, the sums that task 9.2 carries along

    From how many tokens on is the state of the second smaller than the cache of the first?

        1. Guess.
        2. Measure new_cache(1, n).n_bytes of both, for
           minillm.model.attention.AttentionConfig(n_heads=4).build(64) and
           minillm.mixers.linear_attention.LinearAttentionConfig(n_heads=4).build(64).
        3. Return the number of tokens, and one sentence that says why it is that number.

    中文：先猜，再测，再解释。两层宽度都是 64，都有 4 个宽度为 16 的头：普通注意力保存所有词元的键和
    值；线性注意力的每个头只保存 9.2 题里带着走的那些和。文本从多少个词元起，后者的状态比前者的缓存
    小？用上面两种层的 new_cache(1, n).n_bytes 测一测。返回（词元数，一句解释）。

    Returns:
        (int, str): the fewest tokens at which the state has fewer bytes than the cache, and your
        sentence.
    """
    # BEGIN SOLUTION
    from minillm.mixers.linear_attention import LinearAttentionConfig
    from minillm.model.attention import AttentionConfig

    attention = AttentionConfig(n_heads=4).build(64)
    linear = LinearAttentionConfig(n_heads=4).build(64)
    n_tokens = 1
    while attention.new_cache(1, n_tokens).n_bytes <= linear.new_cache(1, n_tokens).n_bytes:
        n_tokens += 1
    return n_tokens, (
        "Each token adds a key and a value, 128 numbers, to the cache; the state has 4 · 16 · 17 = "
        "1,088 numbers from the first token on, which is 8.5 tokens' worth."
    )
    # END SOLUTION


@task("9.6", minutes=8)
def verdict(runs, chance):
    """What may be concluded about a mixer from its training runs? A decision.

    A mixer answers 31 % of the questions. Is that all it can hold, or was it not trained for long
    enough? The runs decide: some seeds at some number of steps, then the same with twice the steps,
    and so on. Give the first of these verdicts that applies:

        "no limit seen"              in the longest runs nearly everything is right
        "guessing"                   even the longest runs are no better than chance: it learned
                                     nothing, so nothing is known about what it can hold
        "not trained to its limit"   the last doubling of the steps still added something; or the
                                     seeds of the longest runs disagree by much, so one of them
                                     found what the others did not
        "limit"                      none of these: this is what it can hold in this set-up

    What counts as "something" or "much" is your choice. All graded cases are clear: numbers that
    are compared differ by less than 1 point (0.01) or by more than 10 points (0.1).

    中文：从训练记录能对一个模型下什么结论？runs 把训练步数对应到各个随机种子的正确率，每个步数是前
    一个的两倍；chance 是瞎猜的正确率。按顺序给出第一个成立的结论："no limit seen"：最长的训练几乎
    全对；"guessing"：最长的训练也不比瞎猜好，什么也没学到，所以容量未知；"not trained to its
    limit"：最后一次加倍步数仍有提高，或者最长训练的各个种子相差很大；"limit"：以上都不是，这就是它
    在这种设置下能记住的。阈值自定：评分用的例子，相比的数或者相差不到 1 个百分点，或者超过 10 个。

    Args:
        runs: dict, number of steps → list of accuracies, shares from 0 to 1, one for each seed. At
            least two numbers of steps, each twice the one below it; they may stand in any order.
        chance: the accuracy of guessing.

    Returns:
        str: one of the four. {300: [0.31, 0.31], 600: [0.60, 0.61]} with a chance of 0.02 gives
        "not trained to its limit": the last doubling added 29 points.
    """
    # BEGIN SOLUTION
    before, last = (runs[n_steps] for n_steps in sorted(runs)[-2:])
    if min(last) > 0.95:
        return "no limit seen"
    if max(last) < chance + 0.05:
        return "guessing"
    gain = sum(last) / len(last) - sum(before) / len(before)
    if gain > 0.05 or max(last) - min(last) > 0.05:
        return "not trained to its limit"
    return "limit"
    # END SOLUTION
