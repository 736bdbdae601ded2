"""Worked answers to chapter 00, Count before you believe.

Chapter: 00
"""

from minillm.lab.task import task


@task("0.1", minutes=2)
def mended_slide():
    """Mend the slide's sentence.

    It says: "175B model + 4K context -> 576 GB memory". Return the sentence as a string in which
    nothing is missing: how many conversations at once, and the unit in which 576 is exact.

    中文：幻灯片说“1750亿模型 4k长度占用576G”。请返回补全后的句子（字符串）：同时有多少个
    对话，以及使 576 精确成立的单位。

    Returns:
        str, for instance "175B model + 4K context + ... -> 576 ..."
    """
    # BEGIN SOLUTION
    return "175B model + 4K context + batch of 32 -> 576 GiB memory"
    # END SOLUTION


@task("0.2", minutes=8)
def kv_cache_bytes(*, n_layers, n_kv_heads, d_head, n_tokens, n_sequences, bytes_per_element=2):
    """Count the bytes of a key/value cache.

    For every token of every sequence, each layer keeps one key and one value; each of the two is
    n_kv_heads vectors of d_head numbers. Return the bytes of all of them.

    中文：对每个序列的每个词元，每一层都保存一个键（key）和一个值（value）；二者各由
    n_kv_heads 个长度为 d_head 的向量组成。返回总字节数。

    Args:
        n_layers, n_kv_heads, d_head, n_tokens, n_sequences: whole numbers.
        bytes_per_element: 2 for 16-bit floats.

    Returns:
        int. GPT-3 (96 layers, 96 heads of 128), one sequence of 4,096 tokens: 18 GiB.
    """
    # BEGIN SOLUTION
    numbers_per_token = 2 * n_layers * n_kv_heads * d_head
    return numbers_per_token * n_tokens * n_sequences * bytes_per_element
    # END SOLUTION


@task("0.3", minutes=8)
def crossing_with_4_bit_weights():
    """Predict, measure, explain: the weights of the 175B model are squeezed to 4 bits each.

    The notes stay in 16 bits. From which conversation on do the notes outweigh the model now?
    (With 16-bit weights it was the 19th.) First guess, then compute, then say in one sentence
    what this means for whoever squeezes only the weights.

    中文：先猜，再算，再解释。1750亿模型的权重压缩到每个 4 比特，缓存仍为 16 比特。从第几个
    对话开始，缓存占用的内存超过模型权重？（16 比特权重时是第 19 个。）并用一句话说明：
    只压缩权重意味着什么。

    Returns:
        (int, str): the number of the conversation, and your sentence.
    """
    # BEGIN SOLUTION
    weights = 175_000_000_000 * 4 / 8
    one_conversation = 2 * 96 * 12288 * 4096 * 2
    first = int(weights // one_conversation) + 1
    return first, "The cache is untouched, so the smaller the weights, the sooner it dominates."
    # END SOLUTION


@task("0.4", minutes=12)
def conversations_that_fit(*, memory_bytes, weight_bytes, cache_bytes_each):
    """How many conversations can a machine hold at once?

    The weights are in memory once, whatever happens; what is left is for the notes. Return the
    largest whole number of conversations that fits, and 0 where not even the weights do.

    中文：权重在内存中始终只存一份，其余内存留给各个对话的缓存。返回最多能同时容纳的对话数
    （整数）；如果连权重都放不下，返回 0。

    Args:
        memory_bytes: of the whole machine.
        weight_bytes: of the model.
        cache_bytes_each: of one conversation.

    Returns:
        int, at least 0.
    """
    # BEGIN SOLUTION
    return max(0, int((memory_bytes - weight_bytes) // cache_bytes_each))
    # END SOLUTION


@task("0.5", minutes=15)
def llama_parameters(*, n_layers, d_model, n_heads, n_kv_heads, ffn_width, vocabulary_size):
    """Count a Llama-shaped model to the last parameter.

    Each layer has four attention matrices (queries and output are width x width; keys and values
    are width x (n_kv_heads * head width)), three feed-forward matrices of width x ffn_width, and
    two norms of width numbers. Around the layers stand an embedding and an output matrix
    (vocabulary_size x width each, not shared) and one last norm. There are no biases.

    中文：每层有四个注意力矩阵（查询和输出为 width x width；键和值为
    width x (n_kv_heads * 头宽)）、三个 width x ffn_width 的前馈矩阵，以及两个各含 width 个参数的
    归一化层。此外还有词嵌入矩阵和输出矩阵（各为 vocabulary_size x width，不共享），以及最后一个
    归一化层。没有偏置。

    Returns:
        int. Llama-2 7B (32 layers, width 4,096, 32 heads and 32 key/value heads, feed-forward
        11,008, vocabulary 32,000) has 6,738,415,616.
    """
    # BEGIN SOLUTION
    kv_width = d_model // n_heads * n_kv_heads
    attention = 2 * d_model * d_model + 2 * d_model * kv_width
    layer = attention + 3 * d_model * ffn_width + 2 * d_model
    return n_layers * layer + 2 * vocabulary_size * d_model + d_model
    # END SOLUTION
