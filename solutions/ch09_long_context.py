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
    n_sinks 个词元（sink，即“注意力汇聚点”），无论隔得多远；不能看后面的词元，后面的 sink 也不行。
    返回布尔表：每行一个查询，每列一个键，True 表示可以看。

    Args:
        n_tokens, window: at least 1; the window may be larger than n_tokens.
        n_sinks: may be 0, and larger than n_tokens.

    Returns:
        tensor of bool [T, T], True = may look; a row for each query, a column for each key. With 5
        tokens, a window of 2 and 1 sink: [[1, 0, 0, 0, 0], [1, 1, 0, 0, 0], [1, 1, 1, 0, 0],
        [1, 0, 1, 1, 0], [1, 0, 0, 1, 1]]. Token 3 sees itself, token 2 before it, and the sink.
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

        y_t = Σ_{s≤t} (q_t · k_s) v_s  /  Σ_{s≤t} (q_t · k_s)

    A table of all T × T weights is not allowed; nor may token t read keys or values of earlier
    tokens again: twice as many tokens must be twice the work. What has to be carried along, and of
    which shape is it? Use torch's tensors: work in lists or numpy the grader cannot count.

    中文：没有 softmax 的因果注意力：y_t 是前 t 个值的加权平均（自己也在内），权重是 q_t · k_s。不得
    构造 T × T 的表，第 t 个词元也不得重读以前的键和值：文本加倍，计算量只能加倍。带着走的是什么，
    形状如何？q 和 k 已是正的特征，不用再变换。不得改动传入的张量。请用 torch 张量：列表和 numpy 的
    运算量评分器无法统计。

    Args:
        q, k: tensors [T, N], queries and keys, as features: all above 0.
        v: tensor [T, K], the values.

    Returns:
        tensor [T, K]; those given stay as they are. k = [[3, 1], [1, 1]], v = [[4], [8]] and q =
        [[1, 1], [1, 2]] give [[4], [5.5]]: the second query has the weights 3 + 2 = 5 and 1 + 2 =
        3, and (5 · 4 + 3 · 8) / (5 + 3) is 5.5.
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
    """One token of RWKV's average (arXiv:2305.13048), which must not overflow.

        wkv_t = (Σ_{i<t} e^(k_i - (t-1-i) w) v_i + e^(u + k_t) v_t) / (the same without v)

    Kept after token t: the largest of the exponents k_i - (t-i) w, i ≤ t (the maximum), and both
    sums with those exponents (no u in them), each divided by e^maximum. Keys of ±1000 must give
    neither inf nor NaN. All is computed channel by channel.

    中文：RWKV 的一步（逐通道）。w 是衰减 decay，u 是只用一次的 bonus。t 之后保存：所有 i ≤ t 的指数
    k_i - (t-i) w 中最大的一个（maximum），以及除以 e^maximum 之后的分子和分母（不含 u）。键可能大到
    ±1000，结果不得是 inf 或 NaN。返回（wkv，新的状态），不得改动传入的张量。

    Args:
        k, v, decay, bonus: tensors [C]: k_t, v_t, w (above 0) and u.
        state: (numerator, denominator, maximum) of the tokens before, each a tensor [C]; before the
            first token (0, 0, -1e38).

    Returns:
        (wkv, (numerator, denominator, maximum)), all [C]. With w = log 2, u = 0: k = 0, v = 4 as
        first token give 4 and (4, 1, 0); k = 0, v = 8 after it give (4 + 8) / 2 = 6 and (10, 1.5,
        0), since a half of the old is left.
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
    """DeltaNet (arXiv:2102.11174): a new value replaces what is stored under its key.

    The memory is a table S [N, K], all 0 at first. Under a key k it has stored Sᵀ k. Each token
    reads what is stored under its key, and replaces the share β of that by as large a share of its
    value: (1 - β) of the old and β of the new are then stored there, and what is stored under a key
    at right angles to it stays as it was. Then its query reads: y = Sᵀ q, divided by nothing.

    中文：DeltaNet 的增量规则。记忆是表 S，开始时全为 0，键 k 下存的是 Sᵀ k。每个词元读出它的键下已
    存的内容，把其中 β 的份额换成新值的同样份额（旧的剩 1 - β，新的占 β；与它垂直的键下不变），
    再用查询读出 y = Sᵀ q，不除以任何数。不得改动传入的张量。

    Args:
        q, k: tensors [T, N], queries and keys; each key has the length 1.
        v: tensor [T, K], the values.
        beta: tensor [T], from 0 to 1: the share of the old that is replaced.

    Returns:
        tensor [T, K]. The key (1, 0) twice, with the values [5] and [7], read by q = (1, 0), gives
        [[5], [7]] with β = 1. With β = 0.5 it gives [[2.5], [4.75]]: half of 0 and half of 5, then
        half of 2.5 and half of 7.
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

    One layer of attention against one of linear attention, both of width 64, with 4 heads of width
    16. The first keeps the keys and values of all tokens; the second keeps, for each head, the sums
    that task 9.2 carries along. From how many tokens on is its state smaller than the cache? Guess;
    then measure new_cache(1, n).n_bytes of both, for
    minillm.model.attention.AttentionConfig(n_heads=4).build(64) and
    minillm.mixers.linear_attention.LinearAttentionConfig(n_heads=4).build(64). Return the number of
    tokens, and one sentence that says why it is that number.

    中文：先猜，再测，再解释。一层普通注意力，一层线性注意力，宽度都是 64，都有 4 个宽度为 16 的头：
    前者保存所有词元的键和值，后者的每个头只保存 9.2 题里带着走的那些和。文本从多少个词元起，后者的
    状态比前者的缓存小？用上面两种层的 new_cache(1, n).n_bytes 测一测。返回（词元数，一句解释）。

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
    """What do training runs say about what a mixer can hold? Return the first that is true:

    1. "no limit seen"             each of the longest runs is nearly all right 最长的训练都几乎全对
    2. "guessing"                  no run of any length is above chance 没有一次训练高于乱猜
    3. "not trained to its limit"  it may hold more than its longest runs show 可能记住更多
    4. "limit"                     the last doubling changed nothing 最后一次加倍没有变化

    What shows 3 or 4? Look at the last doubling only: the mean may rise, rest or fall, and the
    seeds of the longest runs may agree or not. One of these six cases is 4, the others are 3. You
    set what is much: numbers differ by under 1 point or more than 10.

    中文：返回第一个成立的结论。怎样区分 3 和 4？只看最后一次步数加倍：平均值可能上升、持平或下降，
    最长训练的各个种子可能一致或不一致；六种情况中只有一种是 4，其余是 3。多大算大由你定：题中的数
    相差不到 1 或超过 10 个百分点。

    Args:
        runs: dict, number of steps → accuracies (0 to 1), one a seed; in any order, steps double.
        chance: the accuracy of guessing.

    Returns:
        str: {300: [0.31, 0.31], 600: [0.60, 0.61]}, 0.02 gives "not trained to its limit".
    """
    # BEGIN SOLUTION
    before, last = (runs[n_steps] for n_steps in sorted(runs)[-2:])
    if min(last) > 0.95:
        return "no limit seen"
    if max(max(each) for each in runs.values()) < chance + 0.05:
        return "guessing"
    change = sum(last) / len(last) - sum(before) / len(before)
    seeds_disagree = max(last) - min(last) > 0.05
    # A fall, too, shows that the longest runs are not what it can hold: it held more before.
    if abs(change) > 0.05 or seeds_disagree:
        return "not trained to its limit"
    return "limit"
    # END SOLUTION
