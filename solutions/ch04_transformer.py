"""Worked answers to chapter 04, The transformer.

Chapter: 04
"""

from minillm.lab.task import task


@task("4.1", minutes=6)
def rms_norm(x, weight, epsilon=1e-6):
    """Scale each token's numbers to a root mean square of 1, then by a learned weight.

    For each token, on the last axis: divide by the square root of (the mean of the squares +
    epsilon), then multiply number by number with the weight.

    中文：对每个词元（最后一维）：先除以 √(平方的均值 + epsilon)，再逐个乘以可学习的权重。

    Args:
        x: tensor [..., D].
        weight: tensor [D].
        epsilon: keeps a token of zeros from a division by zero.

    Returns:
        tensor [..., D]: [1, 7] with weight [1, 1] gives [0.2, 1.4], since √((1 + 49) / 2) is 5.
    """
    # BEGIN SOLUTION
    mean_square = (x**2).mean(dim=-1, keepdim=True)
    return x / (mean_square + epsilon).sqrt() * weight
    # END SOLUTION


@task("4.2", minutes=8)
def swiglu(x, gate, up, down):
    """Llama's feed-forward part: W_down (silu(W_gate x) ⊙ W_up x).

    silu(z) = z / (1 + exp(-z)) is applied number by number, and ⊙ multiplies number by number. Each
    matrix is stored with a row for each number that comes out, so W x is x @ W.T.

    中文：silu(z) = z / (1 + exp(-z))，逐个元素计算；⊙ 是逐元素相乘。矩阵按“每个输出一行”存放，
    所以 W x 写成 x @ W.T。

    Args:
        x: tensor [..., D].
        gate: tensor [F, D].
        up: tensor [F, D].
        down: tensor [D, F].

    Returns:
        tensor [..., D].
    """
    # BEGIN SOLUTION
    import torch

    opened = x @ gate.T
    opened = opened * torch.sigmoid(opened)
    return (opened * (x @ up.T)) @ down.T
    # END SOLUTION


@task("4.3", minutes=10)
def parameters_of_llama_3_8b():
    """Predict, measure, explain: how many parameters has "Llama 3 8B", to the last one?

    Its shape: vocabulary 128,256, two tables (not tied), width 4,096, 32 blocks, 32 heads, 8
    key/value heads of width 128, SwiGLU of hidden width 14,336, RMSNorm twice a block and once at
    the end, no biases. Guess first; then count on paper, or build it on the device "meta", which
    holds shapes and no numbers: TransformerConfig(...).build(device="meta"). Return the number and
    one sentence: which part holds most of them?

    中文：先猜，再测，再解释。按上面的结构，Llama 3 8B 一共有多少个参数（精确到个位）？可以在纸上
    算，也可以在不占内存的 "meta" 设备上建出来再数。返回这个数，并用一句话说明大部分参数在哪里。

    Returns:
        (int, str): the number of parameters, and your sentence.
    """
    # BEGIN SOLUTION
    tables = 2 * 128_256 * 4_096
    attention = 2 * 4_096 * 32 * 128 + 2 * 4_096 * 8 * 128
    feed_forward = 3 * 4_096 * 14_336
    blocks = 32 * (attention + feed_forward + 2 * 4_096)
    return tables + blocks + 4_096, (
        "The feed-forward parts hold 5.6 of 8.0 billion, about 70 per cent; attention with its few "
        "key/value heads holds only 17 per cent, the two tables 13."
    )
    # END SOLUTION


@task("4.4", minutes=15)
def top_p(logits, share):
    """Keep the fewest tokens that together have probability p; rule out the rest.

    Put the tokens in order of probability. A token stays if those before it have not reached p yet:
    so the token that reaches p stays too, and one stays always. What is ruled out gets -inf, what
    stays keeps its logit, and every token keeps its place.

    中文：按概率从大到小排列。若排在它前面的词元合起来还没有达到 p，这个词元就保留（恰好使总和达到
    p 的那个也保留，至少保留一个）。被排除的词元的 logit 设为 -inf，其余不变，位置不变。

    Args:
        logits: tensor [V] or [rows, V]; softmax(dim=-1) makes them probabilities.
        share: p, above 0 and at most 1.

    Returns:
        tensor like logits. Of probabilities 0.2, 0.5, 0.3 and p = 0.7 the last two stay.
    """
    # BEGIN SOLUTION
    import torch

    ordered, positions = logits.sort(dim=-1, descending=True)
    cumulative = ordered.softmax(dim=-1).cumsum(dim=-1)
    before = torch.cat([torch.zeros_like(cumulative[..., :1]), cumulative[..., :-1]], dim=-1)
    kept = ordered.masked_fill(before >= share, float("-inf"))
    return torch.empty_like(logits).scatter(-1, positions, kept)
    # END SOLUTION


@task("4.5", minutes=25)
def beam_search(next_token, n_beams, end, n_steps):
    """Find a likely text by keeping the best few beginnings (beam search).

    Begin with the empty text. In each step go on with every beginning that has not ended, by every
    token; of all these and the texts that have ended, keep the n_beams likeliest. Stop when none is
    left to go on with, or after n_steps. A text has ended when its last token is `end`. With
    n_beams = 1 that is greedy writing; more beams may find a text whose first token was not the
    likeliest.

    中文：束搜索。从空文本开始；每一步把每个未结束的开头接上每个可能的词元，与已结束的文本放在一起，
    只保留概率最大的 n_beams 个。最后一个词元是 end 的文本算已结束。全部结束或达到 n_steps 步时
    停止，返回（词元元组，概率），end 包含在内。n_beams = 1 就是贪心。

    Args:
        next_token: a function; next_token(prefix) gives {token: probability} for a tuple of tokens.
        n_beams: how many beginnings are kept.
        end: the token that ends a text.
        n_steps: how many tokens at most.

    Returns:
        (tuple of tokens, probability): the likeliest text that was kept. The end token is part of
        it.
    """
    # BEGIN SOLUTION
    beams = [((), 1.0)]
    for _ in range(n_steps):
        running = [beam for beam in beams if not beam[0] or beam[0][-1] != end]
        if not running:
            break
        ended = [beam for beam in beams if beam[0] and beam[0][-1] == end]
        longer = [
            ((*tokens, token), probability * chance)
            for tokens, probability in running
            for token, chance in next_token(tokens).items()
        ]
        beams = sorted(ended + longer, key=lambda beam: -beam[1])[:n_beams]
    return max(beams, key=lambda beam: beam[1])
    # END SOLUTION
