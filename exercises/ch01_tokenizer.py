"""Tasks of chapter 01, Tokenizers.

Chapter: 01
"""

from minillm.lab.task import task


@task("1.1", minutes=8)
def merge_pair(ids, pair, new_id):
    """Replace every occurrence of a pair of neighbours by one new id.

    Go from left to right. Where the pair stands, write new_id and go on behind it; elsewhere keep
    the id. In [7, 7, 7] the pair (7, 7) occurs once, at the start: the result is [new_id, 7].

    中文：从左到右扫描。遇到这一对相邻的 id，就写入 new_id，并从这一对之后继续；否则保留原来的
    id。在 [7, 7, 7] 中，(7, 7) 只替换一次（开头），结果是 [new_id, 7]。

    Args:
        ids: a list of ids; it must not be changed.
        pair: (left, right).
        new_id: what to write in their place.

    Returns:
        a new list of ids.
    """
    raise NotImplementedError


@task("1.2", minutes=12)
def merge_word(word, new_ids):
    """Encode one word: replay the merges on it in the order in which they were learned.

    As long as some pair of neighbours is in new_ids, merge the pair whose new id is smallest (it
    was learned first), everywhere in the word. Stop when no pair is known.

    中文：只要还有相邻的一对在 new_ids 中，就先合并新 id 最小的那一对（它学得最早），在整个词中
    都替换；直到没有可合并的对为止。

    Args:
        word: bytes, or a list of ids.
        new_ids: {(left, right): new id}.

    Returns:
        list of ids, for instance merge_word(b"abab", {(97, 98): 256, (256, 256): 257}) == [257].
    """
    raise NotImplementedError


@task("1.3", minutes=6)
def tokens_of_a_stranger():
    """Predict, measure, explain: 我住在村里 under a larger vocabulary that knows only English.

    Under 1,024 tokens learned from English alone, the five characters cost 15 tokens. How many do
    they cost when that English vocabulary is eight times as large? Guess, then train one, then
    return the number and one sentence that says why.

    中文：先猜，再测，再解释。在只从英文学到的 1024 个词元下，“我住在村里”要用 15 个词元。
    如果这个英文词表扩大到八倍，需要多少个词元？返回这个数，并用一句话说明原因。

    Returns:
        (int, str): the number of tokens, and your sentence.
    """
    raise NotImplementedError


@task("1.4", minutes=15)
def stream_text(tokens):
    """Turn a stream of tokens into text as it comes, without ever showing half a character.

    A token may end in the middle of a character. For each piece, yield the text that is complete
    by now, and hold back the bytes that wait for more. Yield nothing for a piece that completes
    nothing. All input is whole UTF-8 in the end.

    中文：一个词元可能在一个字符的中间结束。对每个到来的片段，产出目前已经完整的文字，把不完整的
    字节留到下一次；如果没有新的完整文字，就什么也不产出。所有片段合起来是合法的 UTF-8。

    Args:
        tokens: an iterable of bytes, one for each token, in order.

    Yields:
        str, never empty, never with "�". Joined, they are the whole text.
    """
    raise NotImplementedError


@task("1.5", minutes=20)
def best_segmentation(word, log_prob, longest):
    """Cut a word into its likeliest pieces (the Viterbi algorithm).

    Each piece has a log-probability; a segmentation's is the sum over its pieces. Find the
    segmentation with the largest sum, without trying them all: the best way to each position goes
    through the best way to an earlier one.

    中文：每个片段有一个对数概率，一种切分的得分是各片段之和。找出得分最高的切分，但不要枚举所有
    切分：到达每个位置的最优路径，必定经过某个更早位置的最优路径（维特比算法）。

    Args:
        word: bytes; every single byte of it is in log_prob.
        log_prob: {piece: natural logarithm of its probability}, pieces are bytes.
        longest: bytes in the longest piece.

    Returns:
        list of pieces; joined, they are the word. A word of 2,000 bytes takes well under a second.
    """
    raise NotImplementedError
