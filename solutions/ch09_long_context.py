"""Worked answers to chapter 09, Long context.

Chapter: 09
"""

from minillm.lab.task import task


@task("9.1", minutes=6)
def sparse_mask(n_tokens, window, n_sinks):
    """Who may look at whom, when a text is too long for everyone to see everything.

    A token sees itself and the window - 1 tokens before it. It also sees the first n_sinks tokens
    of the text, the sinks, however far back they are. It never sees a token that comes later, not
    even a sink.

    中文：每个词元可以看自己和它前面的 window - 1 个词元，还可以看全文最开头的 n_sinks 个词元（称为
    sink，即“注意力汇聚点”），无论它们隔得多远。任何词元都不能看后面的词元，后面的 sink 也不行。
    返回布尔表：每行一个查询，每列一个键，True 表示可以看。

    Args:
        n_tokens: T, how many tokens the text has; at least 1.
        window: how many of the last tokens one sees, itself with them; at least 1.
        n_sinks: how many at the beginning all later tokens see; may be 0. This and window may be
            larger than n_tokens.

    Returns:
        tensor of bool [T, T], True = may look; a row for each query, a column for each key. 5
        tokens with a window of 2 and 1 sink, as numbers: [[1, 0, 0, 0, 0], [1, 1, 0, 0, 0],
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
    """Causal attention without a softmax: the past is a sum that does not grow.

    S is a table [N, K] and z a vector [N], both 0 before the first token. For each token in turn:

        S ← S + k_t v_tᵀ
        z ← z + k_t
        y_t = Sᵀ q_t / (z · q_t)

    So y_t is a mean of the values up to t, weighted by q_t · k_s; a token sees itself. No table of
    T × T numbers is built, and no token reads the keys of earlier ones again: for twice as many
    tokens it is twice the work.

    中文：线性注意力。状态是一个 [N, K] 的表 S 和一个长度为 N 的向量 z，开始时都是 0。每来一个词元，
    先把 k_t v_tᵀ 加进 S、把 k_t 加进 z，再读出 y_t = Sᵀ q_t / (z · q_t)，所以词元也能看到自己。不要
    构造 T × T 的表，也不要为每个词元重读以前的键：文本加倍，计算量也只加倍。q 和 k 已经是正的特征，
    不用再变换。不得改动传入的张量。

    Args:
        q: tensor [T, N], features of the queries, all above 0 (φ has been applied already).
        k: tensor [T, N], features of the keys, all above 0.
        v: tensor [T, K], the values.

    Returns:
        tensor [T, K]; those given are left as they are. k = [[3], [1]] and v = [[4], [8]] give
        [[4], [5]], whatever q is: (3 · 4 + 1 · 8) / (3 + 1) is 5.
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


@task("9.3", minutes=10)
def wkv_step(k, v, decay, bonus, state):
    """One token of RWKV's average, which must not overflow, however large a key is.

    A value weighs e^k, e^(-decay) of that weight is left after each token, and for itself the
    newest token weighs e^(bonus + k). To stay within what a float can hold, numerator and
    denominator are kept divided by e^maximum. All is taken channel by channel. First read:

        top = max(maximum, bonus + k)
        old = e^(maximum - top)                      new = e^(bonus + k - top)
        wkv = (old · numerator + new · v) / (old · denominator + new)

    then write, with the numerator, denominator and maximum that were given:

        next = max(maximum - decay, k)
        old = e^(maximum - decay - next)             new = e^(k - next)
        numerator ← old · numerator + new · v
        denominator ← old · denominator + new
        maximum ← next

    中文：RWKV 的一步（逐通道）。新词元的值以 e^k 为权重写入；每过一个词元，旧的权重乘以
    e^(-decay)；读的时候，最新的词元自己以 e^(bonus + k) 为权重。为了不溢出，分子和分母都除以
    e^maximum 后保存。先读出 wkv，再用给定的（旧的）状态算出新的状态；bonus 只用于读，不写进状态。
    键的绝对值可能大到 1000，结果不得是 inf 或 NaN。返回（wkv, 新的状态），不得改动传入的张量。

    Args:
        k: tensor [C], the key of each channel, from -1,000 to 1,000.
        v: tensor [C], the value.
        decay: tensor [C], w, above 0.
        bonus: tensor [C], u, of any sign.
        state: (numerator, denominator, maximum), each a tensor [C]; before the first token
            (0, 0, -1e38).

    Returns:
        (tensor [C], (tensor [C], tensor [C], tensor [C])): wkv and the new state. With a decay of
        log 2 and no bonus, k = 0 and v = 4 as first token give 4 and the state (4, 1, 0); k = 0
        and v = 8 after it give (4 + 8) / 2 = 6 and the state (10, 1.5, 0).
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
    """DeltaNet: what is stored under a key is taken out before the new value is put in.

    Linear attention adds: two values under one key become their sum. Here the second replaces the
    first. S is a table [N, K], 0 before the first token:

        S_t = S_(t-1) + β_t k_t (v_t - S_(t-1)ᵀ k_t)ᵀ
        y_t = S_tᵀ q_t

    S_(t-1)ᵀ k_t is what is found under the key before. Since keys have the length 1, β = 1 leaves
    just v_t there, and β = 0 changes nothing. y is not divided by anything.

    Schlag, Irie and Schmidhuber 2021, "Linear Transformers Are Secretly Fast Weight Programmers",
    arXiv:2102.11174, section 4.2. Token by token it is slow to train; how all tokens are computed
    side by side: Yang et al. 2024, arXiv:2406.06484.

    中文：DeltaNet 的增量规则。线性注意力只会累加：同一个键下写两次，得到两个值的和。这里先用
    S_(t-1)ᵀ k_t 读出这个键下已有的内容，用 v_t 减去它，差乘以 β_t 再写进去，于是第二个值会取代
    第一个。键的长度都是 1；β = 1 时完全取代，β = 0 时什么也不变。先写后读：y_t = S_tᵀ q_t，不除以
    任何数。不得改动传入的张量。

    Args:
        q: tensor [T, N], the queries.
        k: tensor [T, N], the keys, each of length 1.
        v: tensor [T, K], the values.
        beta: tensor [T], from 0 to 1: how much of the old is replaced.

    Returns:
        tensor [T, K]; those given are left as they are. The key (1, 0) twice, with the values
        [5] and [7], read by q = (1, 0), gives [[5], [7]] with β = 1; with β = 0.5 it gives
        [[2.5], [4.75]], since 2.5 + 0.5 · (7 - 2.5) is 4.75.
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

    Two layers of width 64, each with 4 heads: attention, which keeps the keys and values of all
    tokens, and linear attention with elu features, which keeps for each head a table of 16 × 16
    numbers and 16 more, its normaliser. From how many tokens on is the state the smaller of the
    two? Guess; then measure new_cache(1, n).n_bytes of both, for
    minillm.model.attention.AttentionConfig(n_heads=4).build(64) and
    minillm.mixers.linear_attention.LinearAttentionConfig(n_heads=4).build(64); then return the
    number of tokens and one sentence that says why.

    中文：先猜，再测，再解释。两层宽度都是 64，都有 4 个头：普通注意力要保存所有词元的键和值；使用
    elu 特征的线性注意力，每个头只保存一个 16 × 16 的表和 16 个数（归一化用的和）。文本从多少个词元
    起，后者的状态更小？用上面两种层的 new_cache(1, n).n_bytes 测一测。返回（词元数，一句解释）。

    Returns:
        (int, str): the fewest tokens at which the state has fewer bytes than the cache, and your
        sentence.
    """
    # BEGIN SOLUTION
    from minillm.model.attention import AttentionConfig

    attention = AttentionConfig(n_heads=4).build(64)
    state_bytes = 4 * 4 * 16 * (16 + 1)  # bytes of a number · heads · features · (values and 1)
    n_tokens = 1
    while attention.new_cache(1, n_tokens).n_bytes <= state_bytes:
        n_tokens += 1
    return n_tokens, (
        "Each token adds a key and a value, 128 numbers, to the cache; the state has 4 · 16 · 17 = "
        "1,088 numbers from the first token on, which is 8.5 tokens' worth."
    )
    # END SOLUTION
