"""Worked answers to chapter 20, Instruction tuning.

Chapter: 20
"""

from minillm.lab.task import task


@task("20.1", minutes=6)
def mark(tokens):
    """Which tokens of a conversation is the model to learn to predict?

    A conversation is a list of tokens. Each message begins with the token of its role,
    `<|system|>`, `<|user|>` or `<|assistant|>`, and stops with `<|end|>`. The program writes
    everything up to and including `<|assistant|>`; what follows is written by the model.

    中文：一段对话中，模型要学习预测哪些词元？每条消息以角色词元开头，以 `<|end|>` 结束。直到
    `<|assistant|>`（含）都由程序写出，其后由模型写出。

    Args:
        tokens: list of strings.

    Returns:
        List of True and False, one for each token. For ["<|user|>", "Hi", "<|end|>",
        "<|assistant|>", "Yes", "<|end|>"] the last two are True.
    """
    # BEGIN SOLUTION
    marks, role = [], None
    for token in tokens:
        marks.append(role == "<|assistant|>")
        if token in ("<|system|>", "<|user|>", "<|assistant|>"):
            role = token
        elif token == "<|end|>":
            role = None
    return marks
    # END SOLUTION


@task("20.2", minutes=7)
def pack(lengths, row_length):
    """Fill as few rows as you can with whole conversations, and explain why none is cut.

    A conversation is never cut: it stands in one row. The order is yours. The very best filling is
    not needed: a simple rule decides how many rows are allowed, and the hints lead to it.
    Then explain: what would the model learn from the second half of a conversation that was cut?

    中文：用完整的对话填满尽量少的行，对话不可切断，顺序自定。不必求最优：允许的行数由一个简单的
    规则决定，提示会引向它。再解释：如果对话被切断，模型会从后半段学到什么？

    Args:
        lengths: tokens of each conversation, none longer than a row.
        row_length: tokens that a row has room for.

    Returns:
        (list of lists, str): the numbers of the conversations in each row, counted from 0, and
        your sentence. For [5, 3, 4] and 8: [[0, 1], [2]].
    """
    # BEGIN SOLUTION
    rows, room = [], []
    for number in sorted(range(len(lengths)), key=lambda n: -lengths[n]):
        fits = [row for row, left in enumerate(room) if left >= lengths[number]]
        if not fits:
            rows.append([])
            room.append(row_length)
            fits = [len(rows) - 1]
        rows[fits[0]].append(number)
        room[fits[0]] -= lengths[number]
    return rows, "It would learn to answer without having read the question."
    # END SOLUTION


@task("20.3", minutes=6)
def choose(kinds, n):
    """Decide: for which n kinds of instruction do you write examples?

    A kind is a pair (operation, form), such as ("reverse", "json"). A kind counts as covered if its
    operation stands in some kind that you chose, and its form in some kind that you chose. Cover as
    many as one can. (Uncovered: 0 to 6 % right with 4 or 12 kinds. Covered: not enough either.)

    中文：给哪 n 种指令写示例？一种指令是 (操作, 格式)。若它的操作和格式都在所选的某种指令里出
    现过，就算被覆盖。请覆盖尽量多的种类。（4 或 12 种时，未覆盖的答对 0–6%；仅覆盖也不够。）

    Args:
        kinds: list of pairs that there are.
        n: how many you may choose, at least 1. There are at most nine kinds, so you may try all
            choices.

    Returns:
        List of n different pairs of `kinds`. For the four kinds ("a", "json"), ("a", "lines"),
        ("b", "json"), ("b", "lines") and n = 2: ("a", "json") and ("b", "lines") cover all four.
    """

    # BEGIN SOLUTION
    from itertools import combinations

    def covered(chosen):
        operations, forms = ({pair[i] for pair in chosen} for i in (0, 1))
        return sum(a in operations and b in forms for a, b in kinds)

    return list(max(combinations(kinds, n), key=covered))
    # END SOLUTION


@task("20.4", minutes=5)
def compare(designs, cause):
    """Choose two training sets whose comparison can tell whether `cause` helps.

    Two models are tuned, one on each set, and asked the same questions. If one does better, you
    want to know that the cause is the reason, and nothing else. At most one pair can tell.

    中文：选出两个训练集，使二者的比较能够说明 cause 是否有用：若其中一个更好，原因只能是 cause。
    若任何两个都说明不了，返回 ()。

    Args:
        designs: dict from the name of each set to a dict of its properties. Every set has the same
            names of properties; the values may differ.
        cause: the name of one property.

    Returns:
        The two names, in any order, or () if no two can tell. For the sets {"A": {"evolved": True,
        "examples": 30}, "B": {"evolved": False, "examples": 30}} and "evolved": ("A", "B").
    """
    # BEGIN SOLUTION
    from itertools import combinations

    for a, b in combinations(designs, 2):
        differ = [key for key in designs[a] if designs[a][key] != designs[b][key]]
        if differ == [cause]:
            return a, b
    return ()
    # END SOLUTION
