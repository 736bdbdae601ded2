"""Worked answers to chapter 02, Language as probability.

Chapter: 02
"""

from minillm.lab.task import task


@task("2.1", minutes=5)
def bits_per_byte(log_probs, n_bytes):
    """Find the number by which models with different tokenizers can be compared, in bits.

    Two models read the 5 bytes of "plum.":

        the first cuts     plum | .             p = 1/8, 1/2      2 bits a token
        the second cuts    p | l | u | m | .    p = 1/2 each      1 bit a token

    By the token the second looks better. But the first gives the text the larger probability, 1/16
    against 1/32, and must come out lower: 0.8 against 1.0. A text twice as long and equally hard
    gets the same number. 2,000 tokens must work, so do not multiply the probabilities.

    中文：不同分词器的模型怎样公平比较？上例中第一个模型给这 5 个字节的概率更大（1/16，第二个是
    1/32），按每个词元平均却显得更差。请返回一个以比特计、越低越好的数：第一个 0.8，第二个 1.0；同样
    难度、长一倍的文本得数相同；2,000 个词元也要能算，所以不要把概率直接相乘。

    Args:
        log_probs: natural logarithms of the tokens' probabilities, a list or an array.
        n_bytes: bytes of the text that these tokens spell together.

    Returns:
        a number: 0.8 for log_probs = [log(1/8), log(1/2)] and n_bytes = 5.
    """
    # BEGIN SOLUTION
    import math

    return -sum(log_probs) / math.log(2) / n_bytes
    # END SOLUTION


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
    # BEGIN SOLUTION
    import numpy as np

    n = len(transition)
    # π (P - 1) = 0, and one more equation: the sum is one.
    equations = np.vstack([np.transpose(transition) - np.eye(n), np.ones(n)])
    stationary = np.linalg.lstsq(equations, np.append(np.zeros(n), 1.0), rcond=None)[0]
    logs = np.log(np.where(transition > 0, transition, 1.0))
    return float(-(stationary[:, None] * transition * logs).sum())
    # END SOLUTION


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
        {(token, …): number of different tokens in front of it}, for instance {("c",): 1, ("d",): 2}
        for {("a", "c"): 9, ("a", "d"): 1, ("b", "d"): 2}. (As a rule tokens are whole numbers.)
    """
    # BEGIN SOLUTION
    from collections import Counter

    # A gram is a key, so it stands in the dictionary once: each key is one different front token.
    return Counter(gram[1:] for gram in grams)
    # END SOLUTION


@task("2.4", minutes=5)
def price_of_reading_backwards():
    """Predict, measure, explain: is a language harder to predict from its end?

    Turn every row round, rows[:, ::-1]. A model now predicts each token from those that came
    *after* it. Forwards, the lowest loss that a model can expect on a long row is 1.533 nats a
    token. And backwards: lower, higher or equal? Guess. Then train KneserNey(rows, 32, 3) on the
    training rows and measure its loss on the held-out rows, -model.log_probs(rows)[:, 2:].mean().
    Do the same with both turned round. (above_source knows the forward language only.)

    中文：先猜，再测，再解释。把每一行倒过来（rows[:, ::-1]），模型要根据“之后”的词元预测前一个。
    正向时，长行上每个词元的期望损失最低是 1.533 奈特；反向时更低、更高，还是相等？先猜；再在训练
    行上训练 KneserNey(rows, 32, 3)，在留出行上测损失 -model.log_probs(rows)[:, 2:].mean()；把
    两者都反转后再做一遍（above_source 只适用于正向）。返回两个测得的损失和一句说明原因的话。

    Returns:
        (float, float, str): nats a token forwards, backwards, and your sentence. Of a fair coin
        it would be (0.693, 0.693, "a coin remembers nothing, so both directions are alike").
    """
    # BEGIN SOLUTION
    # KneserNey(rows, 32, 3) from train_rows, and from train_rows[:, ::-1]:
    return (
        1.540,
        1.541,
        "A row has one probability, whichever end one begins at, so the perfect model has the same "
        "loss on the whole text in both directions, and also for each token on average.",
    )
    # END SOLUTION


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
    # BEGIN SOLUTION
    import math

    n = 0
    while True:
        m = math.ceil(low * 2**n)  # the first that does not begin too early
        if m + 1 <= high * 2**n:
            return format(m, f"0{n}b") if n else ""
        n += 1
    # END SOLUTION


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
    # BEGIN SOLUTION
    from minillm.baselines.ngram import KneserNey

    learn, held_out = rows[len(rows) // 5 :], rows[: len(rows) // 5]
    losses = {n: -KneserNey(learn, 8, n).log_probs(held_out).mean() for n in range(1, 6)}
    return min(losses, key=losses.get)
    # END SOLUTION


@task("2.7", minutes=6)
def what_happened(training, lowest, held_out, error):
    """Decide what the losses of a run tell.

    All three losses are given as *loss minus the source's loss on the same tokens*, in nats a
    token: 0 is perfect, negative is lower than the source itself. The training loss fell to the
    end. Treat any difference of at most 3 · error as luck, both from 0 and between two losses. You
    will not need every argument. Return the first that fits:

    - "leak": the held-out loss was once lower than is possible for text that was new to the model
    - "overfitting": the held-out loss has risen since its lowest
    - "learn on": on new text there is something left to learn
    - "at the entropy": new text shows nothing more to learn

    中文：三个损失都是“损失减去信源在同样词元上的损失”（奈特/词元）：0 为完美，负数比信源自己还低。
    训练损失一直降到最后。与 0 之差或两个损失之差不超过 3 · error 的都算运气。并非每个参数都用得上。
    返回第一个成立的：泄漏（留出损失曾低到对新文本不可能）、过拟合（留出损失从最低点又升了上去）、还可
    继续学习（新文本上还有可学的）、已达到熵（新文本上看不出还有可学的）；返回值用上面的英文。

    Args: training, held_out: at the end of the run; lowest: the lowest held-out loss of the whole
        run, never above held_out; error: the standard error of each, above 0.
    Returns: str: "overfitting" for (-0.7, 0.3, 1.1, 0.02), the run that was drawn above.
    """
    # BEGIN SOLUTION
    # The training loss decides nothing here: what counts is new text.
    luck = 3 * error
    if lowest < -luck:
        return "leak"
    if held_out - lowest > luck:
        return "overfitting"
    return "learn on" if held_out > luck else "at the entropy"
    # END SOLUTION
