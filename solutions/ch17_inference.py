"""Worked answers to chapter 17, Inference.

Chapter: 17
"""

from minillm.lab.task import task


@task("17.1", minutes=6)
def count_steps(lengths, n_slots):
    """How many steps until all answers are written, with static and with continuous batching?

    Answer n takes lengths[n] steps. At most n_slots run at once, and they start in the order of
    the list. Static: the first n_slots start together; the next n_slots start when all of these are
    done. Continuous: as soon as an answer is done, the next request has its slot in the next step.

    中文：第 n 个回答需要 lengths[n] 步；最多同时运行 n_slots 个，按列表顺序开始。静态批处理：前
    n_slots 个一起开始，全部完成后下一批才开始。连续批处理：某个回答一完成，下一步就由排在最前的请求
    接用它的槽位。两种方式各要多少步？

    Args:
        lengths: list of ints, 1 or more each.
        n_slots: 1 or more.

    Returns:
        (static, continuous), two ints. For [3, 1, 1, 2] and 2 slots: (5, 4).
    """
    # BEGIN SOLUTION
    batches = [lengths[n : n + n_slots] for n in range(0, len(lengths), n_slots)]
    static = sum(map(max, batches))
    ends = [0] * n_slots  # when each slot is free
    for length in lengths:
        first = ends.index(min(ends))
        ends[first] += length
    return static, max(ends)
    # END SOLUTION


@task("17.2", minutes=9)
def admit(tokens, stored, free, block_size):
    """Decide: may a request start now? Then how much does it read, and what does it take?

    Its prompt needs a block for each block_size tokens, the last one perhaps not full. A full block
    can be shared instead of read if it is stored with all blocks before it. The last token is
    always read: its output chooses the next. A shared block that nobody holds is free and stored
    at once; holding it takes it off the free ones. If the free ones are too few, it must wait.

    中文：提示每 block_size 个词元占一块，最后一块可能不满。若某个满块连同它之前的所有块都已存储，
    就可共享而不必再读。最后一个词元总要读，因为要用它的输出选下一个词元。无人持有的已存块同时也是
    空闲块，一旦共享就不再空闲。空闲块不够时，请求必须等待。

    Args:
        tokens: tuple of ints, the prompt.
        stored: dict, from a beginning of some text (a tuple, whole blocks) to its last block.
        free: set of the blocks that nobody holds.
        block_size: tokens a block.

    Returns:
        (n_read, n_taken): tokens that it reads, and blocks that are no longer free when it has
        started; or () if it waits. Blocks of 2, stored {(7, 3): 5}, the prompt
        (7, 3, 9): (1, 1) with free {0}, (1, 2) with free {0, 5}, () with free {5}.
    """
    # BEGIN SOLUTION
    shared = []
    while block_size * (len(shared) + 1) < len(tokens):  # the last token stays unread
        beginning = tokens[: block_size * (len(shared) + 1)]
        if beginning not in stored:
            break
        shared.append(stored[beginning])
    n_blocks = -(-len(tokens) // block_size)
    n_taken = n_blocks - len(shared) + len(free & set(shared))
    if n_taken > len(free):
        return ()
    return len(tokens) - block_size * len(shared), n_taken
    # END SOLUTION


@task("17.3", minutes=6)
def judge(p, q, guess):
    """Make a guess that was drawn from q into a token that has the distribution p.

    With which probability is the guess accepted? And if it is not, from which distribution is the
    token drawn that replaces it? No token may come out too often, and as many guesses as possible
    are to be accepted. Where q is smaller than p the guess can always stay.

    中文：从 q 抽出的猜测 guess，要变成服从 p 的词元。以多大概率接受它？若不接受，替换它的词元服从
    什么分布？任何词元都不能出现得太多，且应尽可能多地接受。q 小于 p 的地方，猜测总可以保留。

    Args:
        p, q: tensors of V probabilities, each summing to 1, not equal.
        guess: the token, with q above 0.

    Returns:
        (accepted, replacement): a number, and a tensor of V probabilities. For p = (0.5, 0.5),
        q = (0.8, 0.2) and guess 0: 0.625 and (0, 1).
    """
    # BEGIN SOLUTION
    accepted = min(1.0, float(p[guess] / q[guess]))
    lacking = (p - q).clamp(min=0)  # what q gives too rarely
    return accepted, lacking / lacking.sum()
    # END SOLUTION


@task("17.4", minutes=8)
def n_for_prompts(n_machines, read_seconds, step_seconds, batch_size, n_tokens, gap_seconds):
    """Decide: all machines do both, or how many of them only read prompts?

    A prompt takes read_seconds. A decode step takes step_seconds and gives up to batch_size texts a
    token each; an answer is n_tokens steps. No gap may exceed gap_seconds (a step alone does not).
    All doing both: a prompt is read between two steps, so a gap may be a step and a prompt; a
    request costs a machine its prompt and 1/batch_size of its steps. Apart: k read only, the others
    decode only, and the slower group decides how many requests a second are served. Which k serves
    most, of equals the smallest? Why can k > 0 be best, though the work is the same?

    中文：读一个提示用 read_seconds；一步解码用 step_seconds，最多给 batch_size 个文本各一个词元；回
    答要 n_tokens 步。间隔不得超过 gap_seconds。混合：提示在两步间读，间隔可达一步加一个提示；请求占
    用一台机器它的提示加步数的 1/batch_size。分离：k 台只读，其余只解码，较慢的一组决定每秒请求数。
    哪个 k 最好（相同取最小）？工作量相同，为什么 k > 0 可能更好？

    Args:
        n_machines: 2 or more; all other numbers as above, seconds and counts.

    Returns:
        (int, str): k, 0 for all doing both; and a sentence, at least four words. With 4 machines,
        1 s, 0.1 s, 10 rows and 100 tokens: k = 0 if gap_seconds is 2, k = 2 if it is 0.5.
    """
    # BEGIN SOLUTION
    a_second = batch_size / (step_seconds * n_tokens)  # requests that one machine decodes

    def served(k):
        return min(k / read_seconds, (n_machines - k) * a_second)

    why = (
        "Apart does no less work; but together no rate keeps the promise once a prompt is too long."
    )
    if step_seconds + read_seconds <= gap_seconds:
        return 0, why  # together no machine ever waits for the other group
    return max(range(1, n_machines), key=served), why
    # END SOLUTION
