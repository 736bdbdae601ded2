"""Worked answers to chapter 18, Quantization.

Chapter: 18
"""

from minillm.lab.task import task


@task("18.1", minutes=6)
def round_rows(weight, bits):
    """Round a matrix to symmetric grids, one for each row, and return the numbers that come out.

    Each row has a scale of its own: its grid has 0 in the middle, and its largest code stands for
    the row's largest |weight|. A row of zeros stays a row of zeros.

    中文：把矩阵舍入到对称网格，每行一个网格，返回舍入后的数。每行有自己的缩放因子：网格以 0 为中
    心，最大的编码对应该行绝对值最大的权重。全零的行保持全零。

    Args:
        weight: tensor [rows, columns].
        bits: of a code, 2 or more.

    Returns:
        Tensor [rows, columns]. For [[1.5, -0.5, 0.2], [0.0, 6.0, -2.5]] and 3 bits:
        [[1.5, -0.5, 0], [0, 6, -2]].
    """
    # BEGIN SOLUTION
    largest = weight.abs().amax(dim=1, keepdim=True)
    scale = largest / (2 ** (bits - 1) - 1)
    codes = (weight / scale.masked_fill(scale == 0, 1)).round()
    return codes * scale
    # END SOLUTION


@task("18.2", minutes=8)
def place_bits(matrices, budget):
    """Decide: how is each matrix stored, so that the loss rises least within a budget of bytes?

    A choice is (bits, group): codes of so many bits, and a scale of 16 bits for each group of so
    many weights. Each choice raises the loss by so much. Take it that the rises of several
    matrices add up. There are two to four matrices with two to four choices each, so you may try
    all combinations.

    中文：在字节预算之内，每个矩阵怎样存储，损失的增加才最少？一个选择是 (bits, group)：每个编码
    bits 位，每 group 个权重共用一个 16 位的缩放因子。每个选择使损失增加若干；假定各矩阵的增加量可
    以相加。矩阵有两到四个，每个有两到四种选择，可以逐一尝试所有组合。

    Args:
        matrices: list of (n_weights, rises); rises is a dict {(bits, group): rise of the loss}.
        budget: bytes for all of them, scales included; the cheapest choices fit.

    Returns:
        List of (bits, group), one for each matrix. For
        [(640, {(8, 128): 0.0, (4, 128): 0.2}), (2560, {(8, 128): 0.0, (4, 128): 0.3})] and 2000
        bytes: [(8, 128), (4, 128)], which take 650 and 1320.
    """

    # BEGIN SOLUTION
    from itertools import product

    def n_bytes(n_weights, bits, group):
        return n_weights * (bits + 16 / group) / 8

    best, least = None, float("inf")
    for choices in product(*(rises for _, rises in matrices)):
        pairs = list(zip(matrices, choices, strict=True))
        total = sum(n_bytes(n, *choice) for (n, _), choice in pairs)
        rise = sum(rises[choice] for (_, rises), choice in pairs)
        if total <= budget and rise < least:
            best, least = list(choices), rise
    return best
    # END SOLUTION


@task("18.3", minutes=8)
def move_others(row, H, rounded):
    """The first weight of a row was rounded. Move the others so that the outputs change least.

    H[j, k] is the sum of x_j · x_k over the calibration inputs x. If the row changes by d, then the
    squared change of its outputs, over all these inputs, is d · H · d. The others may become any
    numbers; they are rounded later. (At the least, the derivative by each of them is 0.)

    中文：一行的第一个权重已被舍入。移动其余权重，使输出变化最小。H[j, k] 是校准输入中 x_j · x_k 之
    和；若该行改变 d，输出变化的平方和就是 d · H · d。其余权重可取任何数，以后再舍入。

    Args:
        row: tensor of n weights, in float64.
        H: tensor [n, n], symmetric and invertible, in float64.
        rounded: what the first weight has become.

    Returns:
        Tensor of n - 1 numbers. For (0.4, 0.4), H = [[1, 0.5], [0.5, 1]] and rounded = 0: (0.6,).
    """
    # BEGIN SOLUTION
    error = row[0] - rounded
    return row[1:] + error * H[1:, 1:].inverse() @ H[1:, 0]
    # END SOLUTION


@task("18.4", minutes=7)
def times_as_fast(n_texts, bits, bytes_per_second, operations_per_second):
    """Predict: how many times as fast is a decode step with weights of so many bits as with 32?

    A step for n_texts texts fetches each weight once, and does two operations with it for each
    text. Fetching and computing go on at the same time, so the slower of the two decides. What a
    weight costs to turn into a number is left out. Then explain: what becomes of the gain as
    n_texts grows, and why?

    中文：权重为 bits 位时，一步解码比 32 位快多少倍？一步要把每个权重取一次，并为每个文本做两次运
    算。取数与计算同时进行，较慢的一方决定时间；编码变回数的开销不计。再解释：n_texts 增大时，收益
    怎样，为什么？

    Args:
        n_texts: 1 or more.
        bits: of a weight, scales included.
        bytes_per_second: that are fetched.
        operations_per_second: that are computed.

    Returns:
        (float, str): the factor, and a sentence that names what becomes the limit. With 10e9 bytes
        and 20e9 operations a second and 8 bits: 4 for 1 text, 2 for 2 texts.
    """

    # BEGIN SOLUTION
    def seconds(n_bits):
        return max(n_bits / 8 / bytes_per_second, 2 * n_texts / operations_per_second)

    why = "Each text adds operations but no bytes, so with many texts computing takes the time."
    return seconds(32) / seconds(bits), why
    # END SOLUTION
