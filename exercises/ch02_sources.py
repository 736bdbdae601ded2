"""Tasks of chapter 02, Language as probability.

Chapter: 02
"""

from minillm.lab.task import task


@task("2.1", minutes=5)
def bits_per_byte(log_probs, n_bytes):
    """What a model needs for a text, in bits for each byte of it.

    log_probs holds the natural logarithm of each token's probability. One bit is log 2 nats.

    中文：log_probs 是每个词元概率的自然对数（单位奈特），1 比特等于 log 2 奈特。返回平均每个字节
    需要多少比特。

    Args:
        log_probs: array of numbers, one a token, in nats.
        n_bytes: bytes of the text that the tokens spell.

    Returns:
        a number: bits_per_byte([log(1/8), log(1/2)], n_bytes=2) is 2.0 (3 bits and 1 bit).
    """
    raise NotImplementedError


@task("2.2", minutes=15)
def entropy_rate(transition):
    """The entropy rate of a source that looks at its last symbol only.

    transition[i, j] is the probability of j after i. After a long time the source stands at i with
    a probability π(i) that no longer changes: π = π · transition, and Σ π = 1. The next symbol then
    has the entropy of row i. The rate is the mean of the rows' entropies, weighted by π.

    中文：transition[i, j] 是 i 之后出现 j 的概率。先求平稳分布 π（π = π · transition，各项之和为
    1），再用 π 对每一行的熵加权平均，得到熵率（单位奈特）。概率为 0 的项对熵没有贡献；有的信源
    会来回交替，简单的反复相乘不会收敛。

    Args:
        transition: array [V, V]; each row sums to one; some probabilities may be zero; the source
            may alternate for ever, as in [[0, 1], [1, 0]].

    Returns:
        nats a symbol: 0.3251 for [[0.9, 0.1], [0.1, 0.9]].
    """
    raise NotImplementedError


@task("2.3", minutes=6)
def continuation_counts(grams):
    """After how many different tokens does each shorter gram occur?

    For each gram, leave out its oldest (first) token. Of what remains, count how many *different*
    tokens were seen in front of it. How often they were seen does not matter.

    中文：对每个 n 元组，去掉最前面的一个词元；对剩下的部分，数一数它前面出现过多少种不同的
    词元。出现的次数不重要。

    Args:
        grams: {(token, …, token): how often it was seen}, all of one length of at least 2.

    Returns:
        {(token, …): number of different tokens in front of it}, for instance
        {(2,): 1, (3,): 2} for {(0, 2): 9, (0, 3): 1, (1, 3): 2}.
    """
    raise NotImplementedError


@task("2.4", minutes=8)
def price_of_reading_backwards():
    """Predict, measure, explain: is a language harder to predict from its end?

    Read every row of the market square backwards. A model now predicts each token from those that
    came *after* it. What is the lowest loss that any model can expect on a long text, in nats a
    token? Guess; then train a Kneser-Ney model of order 3 on the reversed training rows and measure
    it on the reversed held-out rows; then decide, and say in one sentence why.

    中文：先猜，再测，再解释。把每一行倒过来读：模型要根据“之后”的词元预测前一个。在长文本上，任何
    模型每个词元的期望损失最低是多少奈特？先猜；再在反转的训练行上训练 3 阶 Kneser-Ney 模型，在反转
    的留出行上评测；然后给出这个下限，并用一句话说明原因。

    Returns:
        (float, str): nats a token, and your sentence.
    """
    raise NotImplementedError


@task("2.5", minutes=20)
def shortest_code(low, high):
    """The shortest row of bits that names a place inside an interval.

    The bits b1 b2 … bn name all numbers whose binary digits begin with 0.b1b2…bn: from m / 2^n up
    to, but not including, (m + 1) / 2^n, where m is the row of bits read as a whole number. Find
    the shortest row whose numbers all lie in the interval from low up to, but not including, high.
    If several are equally short, take the smallest m. The interval may be extremely narrow: compute
    with whole numbers or fractions, not with floats.

    中文：比特串 b1…bn 代表所有以 0.b1…bn 开头的二进制小数，即 [m/2ⁿ, (m+1)/2ⁿ)。找出整个落在
    [low, high) 之内的最短比特串；若有多个，取 m 最小的。区间可能极窄，请用整数或分数计算，不要用
    浮点数。

    Args:
        low, high: fractions.Fraction, 0 <= low < high <= 1, possibly very close together.

    Returns:
        str of "0" and "1", for instance "01" for 1/4 to 1/2, "011" for 1/3 to 2/3, "" for 0 to 1.
    """
    raise NotImplementedError


@task("2.6", minutes=10)
def choose_order(rows):
    """Decide: which order of n-gram model is the best for new text of this source?

    Of Kneser-Ney models of order 1 to 5 that learn from all these rows, one has the lowest loss on
    new text. You get neither the source nor any new text. How you decide is up to you.

    中文：决定：用这些行训练 1 到 5 阶的 Kneser-Ney 模型，哪一阶在新文本上的损失最低？既没有信源，
    也没有新文本；如何判断由你决定。

    Args:
        rows: array [rows, T] of tokens from 0 to 7; the rows are independent.

    Returns:
        int: the order, 1 to 5.
    """
    raise NotImplementedError


@task("2.7", minutes=6)
def what_happened(training, held_out, error):
    """Decide what the losses of a run tell. Up to three standard errors count as luck.

    - "leak": even the held-out data are no longer new to the model
    - "overfitting": the model has memorised its training text
    - "learn on": nothing is wrong, and there is something left to learn
    - "at the entropy": nothing is wrong, and this sample shows nothing more to learn

    中文：根据损失判断发生了什么：泄漏、过拟合、还可继续学习、已达到熵。三个标准误以内算作运气。

    Args:
        training, held_out: loss minus the source's own loss on the same tokens, in nats a token.
        error: the standard error of each of the two.

    Returns:
        str: one of the four.
    """
    raise NotImplementedError
