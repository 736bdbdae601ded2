"""Tasks of chapter 03, Attention.

Chapter: 03
"""

from minillm.lab.task import task


@task("3.1", minutes=10)
def look(q, k, v):
    """One head of attention, for one row of tokens: softmax(q kᵀ / √K) v.

    Each query is compared with every key (a dot product, divided by √K). The softmax of a query's
    scores are its weights: positive, together 1. The result of a query is the sum of all values,
    each times its weight.

    中文：每个查询与每个键做点积，再除以 √K；对一个查询的所有得分做 softmax，得到权重（均为正，
    和为 1）；结果是所有值按权重相加。得分可能很大，不要让指数溢出。

    Args:
        q: tensor [T, K], the queries.
        k: tensor [S, K], the keys.
        v: tensor [S, W], the values; W may be another width.

    Returns:
        tensor [T, W]. Scores may be as large as 1,000: the result must not be NaN.
    """
    raise NotImplementedError


@task("3.2", minutes=6)
def causal(query_positions, key_positions):
    """Who may look at whom, when nobody may look ahead.

    A query at place m may look at a key at place n if n is not later than m: at itself, and at all
    that stands before it.

    中文：位置 m 的查询可以看位置 n 的键，当且仅当 n 不晚于 m（可以看自己）。返回布尔表：每行一个
    查询，每列一个键。查询可能只是最后几个位置，所以行数和列数可以不同。

    Args:
        query_positions: tensor of integers [T]. With a cache these are only the newest places.
        key_positions: tensor of integers [S].

    Returns:
        tensor of bool [T, S], True = may look. For queries at (1, 2) and keys at (0, 1, 2):
        [[True, True, False], [True, True, True]].
    """
    raise NotImplementedError


@task("3.3", minutes=15)
def turn(x, position, base=10000.0):
    """Rotary positions for one query or key: turn each pair of its numbers.

    x has K numbers, K even. Pair i is (x[i], x[i + K/2]), a point in the plane. Turn it
    anticlockwise by the angle position · base^(-2i/K), in radians:

        first  ← first · cos - second · sin
        second ← first · sin + second · cos        (with the old first)

    中文：把长度为 K（偶数）的向量看成 K/2 个平面上的点，第 i 对是 (x[i], x[i + K/2])，逆时针旋转
    position · base^(-2i/K) 弧度。不得改动 x 本身；位置 0 时不转动。

    Args:
        x: tensor [K].
        position: a whole number, the token's place.
        base: the largest turn takes about 2π · base tokens.

    Returns:
        tensor [K]; x itself is left as it is. At position 0 nothing turns.
    """
    raise NotImplementedError


@task("3.4", minutes=20)
def online_softmax_sum(scores, values, tile=1):
    """Σ softmax(scores)ᵢ · valuesᵢ, reading a few numbers at a time and never looking back.

    Keep three numbers: the highest score so far, the sum of exp(score - highest), and the sum of
    exp(score - highest) · value. When a tile brings a higher score, multiply both sums by
    exp(old highest - new highest) before adding the tile.

    中文：只读一遍，每次读 tile 个数。保留三个量：目前最大得分、exp(得分 - 最大) 之和、
    exp(得分 - 最大)·值 之和。出现更大的得分时，先把两个和都乘以 exp(旧最大 - 新最大)，
    再加入新的一块。不得先求全部得分的最大值。

    Args:
        scores: a sequence of finite numbers, possibly very large.
        values: as many numbers.
        tile: how many are read at a time; the last tile may be shorter.

    Returns:
        a number: online_softmax_sum([0, 0, log 3], [10, 20, 30]) is 24.0 (weights 1/5, 1/5, 3/5).
        Slice scores and values by tiles; never take the maximum of all of them.
    """
    raise NotImplementedError


@task("3.5", minutes=6)
def price_of_forgetting():
    """Predict, measure, explain: what does writing cost without a cache?

    A model writes 256 tokens, beginning from a prompt of one token. Without a cache it reads the
    whole text again for every new token: 1 token, then 2, and so on up to 256. With a cache it
    reads each token once. How many times as many tokens does it read without a cache? Guess; then
    count; then return the ratio and one sentence that says how it grows when the text is twice as
    long.

    中文：先猜，再数，再解释。从一个词元开始写 256 个词元：没有缓存时，每写一个新词元都要把全文
    重读一遍（1、2、…、256 个词元）；有缓存时，每个词元只读一次。前者读的词元是后者的多少倍？文本
    长度加倍时，这个倍数怎样变化？返回（倍数，一句解释）。

    Returns:
        (float, str): the ratio, and your sentence.
    """
    raise NotImplementedError
