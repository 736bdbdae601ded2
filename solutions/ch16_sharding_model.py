"""Worked answers to chapter 16, Sharding the model.

Chapter: 16
"""

from minillm.lab.task import task


@task("16.1", minutes=8)
def part_of_ffn(gate_up, down, rank, n_ranks):
    """One rank's part of a feed-forward layer, so that nothing is sent before the end.

    The whole layer, SwiGLU, computes of a token x, with the rows of gate above those of up,

        gate, up = (gate_up @ x).chunk(2)          F numbers each
        y = down @ (silu(gate) * up)

    Each of P ranks has x, and computes the same two lines with its own, smaller matrices, 1/P of
    each. The sum of all ranks' y, which is the only message, must be the whole layer's y. Decide
    along which axis each matrix is cut, and beware: gate_up is two matrices in one.

    中文：整层 SwiGLU 对词元 x 计算：(gate_up @ x) 的前 F 个数是 gate，后 F 个是 up，再算
    y = down @ (silu(gate) * up)。P 个进程都有 x，各用每个矩阵的 1/P 做同样的两行计算；所有进程的 y
    之和（唯一的通信）必须等于整层的 y。请决定每个矩阵沿哪个轴切；注意 gate_up 是两个矩阵叠在一起。

    Args:
        gate_up, down: tensors [2F, D] and [D, F].
        rank, n_ranks: this rank's number, 0 to P - 1, and P, which divides F and D.

    Returns:
        (gate_up, down): this rank's two matrices.
    """
    # BEGIN SOLUTION
    import torch

    gate, up = gate_up.chunk(2)
    # by outputs: a rank has finished numbers, to which silu and the product may be applied
    gate, up = gate.chunk(n_ranks)[rank], up.chunk(n_ranks)[rank]
    # by inputs: it reads just these numbers, and gives a part of each sum
    return torch.cat([gate, up]), down.chunk(n_ranks, dim=1)[rank]
    # END SOLUTION


@task("16.2", minutes=10)
def order_1f1b(stage, n_stages, n_micro):
    """The order in which one stage of a pipeline does its work, keeping as little as it can.

    Each of m micro-batches passes stages 0 to p - 1 forward, then p - 1 to 0 backward; a backward
    pass takes twice as long. Between its two passes at a stage its activations are kept there.
    Write the order for one stage, such that with all stages in their orders (1) a step takes no
    longer than with all forward passes first, and (2) stage s never keeps more than p - s
    micro-batches. It does some forward passes, and then one forward and one backward in turns. How
    many come first? Draw p = 2.

    中文：m 个微批次依次前向通过第 0 到 p - 1 段，再反向通过第 p - 1 到 0 段，反向用时是前向的两倍。
    请写出某一段的执行顺序，使得各段都按各自的顺序执行时：(1) 一步不比先做完全部前向更慢；(2) 第 s
    段同时保留的微批次不超过 p - s 个。先做几次前向，再一前一后交替。开头要做几次？请先画 p = 2。

    Args:
        stage, n_stages: s, 0 to p - 1, and p.
        n_micro: m, which may be smaller than p.

    Returns:
        list of 2 m pairs, ("forward", n) or ("backward", n), with n from 0 to m - 1.
    """
    # BEGIN SOLUTION
    n_first = min(n_stages - stage - 1, n_micro)
    order = [("forward", n) for n in range(n_first)]
    for n in range(n_first, n_micro):
        order += [("forward", n), ("backward", n - n_first)]
    return order + [("backward", n) for n in range(n_micro - n_first, n_micro)]
    # END SOLUTION


@task("16.3", minutes=8)
def best_n_micro(n_rows, n_stages, fixed_seconds):
    """Predict, measure, explain: into how many micro-batches is a batch best cut?

    A batch of n_rows rows goes through p stages in m equal micro-batches. A stage's forward pass of
    a micro-batch takes fixed_seconds, however few rows it has, and one second more for each row.
    Its backward pass takes twice as long. Under 1F1B, which m gives the shortest step? And why are
    neither few nor many micro-batches the best?

    中文：n_rows 行的一个批次切成 m 个相等的微批次，通过 p 段流水线。每段对一个微批次的前向用时是
    fixed_seconds 加上每行 1 秒，反向是它的两倍。采用 1F1B 时，哪个 m 使一步最短？为什么太少和太多都
    不好？

    Args:
        n_rows: rows of the batch; m must divide them.
        n_stages: p.
        fixed_seconds: 0 or more.

    Returns:
        (int, str): m, and a sentence: why neither few nor many. In English or Chinese, at least
        four words. With 4 rows, 2 stages and no fixed time m is 4.
    """

    # BEGIN SOLUTION
    def seconds(m):
        return (m + n_stages - 1) * 3 * (fixed_seconds + n_rows / m)

    best = min((m for m in range(1, n_rows + 1) if n_rows % m == 0), key=seconds)
    why = (
        "Few micro-batches make the bubble a large share of the step; many pay the fixed time of "
        "a pass again and again."
    )
    return best, why
    # END SOLUTION


@task("16.4", minutes=10)
def fastest_plan(n_ranks, n_layers, n_rows, layer_gb, row_gb, card_gb, send_seconds):
    """Of all ways to cut a model over N ranks, choose the fastest that fits on the cards.

    dp copies of pp stages, each layer cut over tp ranks: dp · tp · pp = N. A copy reads its
    n_rows / dp rows in m micro-batches, under 1F1B; stages have equally many layers. A layer takes
    1 / tp seconds for a row, there and back; if tp > 1, also send_seconds for each micro-batch. A
    rank holds layer_gb / tp for each layer of its stage, and row_gb / tp for each of these layers
    and each row that is alive at once at stage 0. What dp sends is left out.

    中文：模型有 dp 份，每份 pp 段，每层由 tp 个进程分担，dp · tp · pp = N。每份把 n_rows / dp 行切
    成 m 个微批次，采用 1F1B，各段层数相等。一层一行（前向加反向）用 1 / tp 秒；tp > 1 时每个微批次
    另需 send_seconds 秒。每个进程为本段每层保留 layer_gb / tp，并为每层、每个在第 0 段同时存活的行
    保留 row_gb / tp。dp 的通信不计。请选出放得下的最快方案；都放不下时返回 ()。

    Args:
        n_ranks, n_layers, n_rows: N, layers of the model, rows of a step.
        layer_gb, row_gb, card_gb, send_seconds: a rank may hold at most card_gb.

    Returns:
        (dp, tp, pp, m), or (). For 2 ranks, 2 layers, 4 rows, 4 and 1 GB, and 1 s to send: cards
        of 10 GB give (2, 1, 1, 2), 4 s; of 9 GB (1, 1, 2, 4), 5 s; of 3 GB ().
    """
    # BEGIN SOLUTION
    plans = []
    for tp in range(1, n_ranks + 1):
        for pp in range(1, n_ranks // tp + 1):
            dp = n_ranks // (tp * pp)
            if dp * tp * pp != n_ranks or n_layers % pp or n_rows % dp:
                continue
            for m in range(1, n_rows // dp + 1):
                if n_rows % (dp * m):
                    continue
                rows, layers = n_rows // (dp * m), n_layers // pp
                holds = layers * (layer_gb + min(pp, m) * rows * row_gb) / tp
                a_layer = rows / tp + (send_seconds if tp > 1 else 0)
                if holds <= card_gb:
                    plans.append(((m + pp - 1) * layers * a_layer, (dp, tp, pp, m)))
    return min(plans)[1] if plans else ()
    # END SOLUTION
