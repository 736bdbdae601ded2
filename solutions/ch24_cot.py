"""Worked answers to chapter 24, Chain of thought.

Chapter: 24
"""

from minillm.lab.task import task


@task("24.1", minutes=6)
def first_slip(start, swaps, chain):
    """Find the first part of a chain that is wrong.

    The parts are its steps, numbered from 1, and as one more the answer. A step is right if it is
    the swap that is due and the row that this swap leaves. So in a right chain of two swaps part 1
    and 2 are steps, and part 3 is "=", the answer and ".". A part that is missing is wrong.

    中文：找出思维链中第一个出错的部分。各部分是从 1 开始编号的步骤，最后再加上答案。一步要写对应做
    的交换，以及交换之后的一行。缺少的部分也算错。全都正确时返回 0。

    Args:
        start: string, what lies under cups 1 to 5, such as "CABED".
        swaps: list of pairs of cups that change places, one after the other; cups are counted
            from 1, and the smaller number comes first.
        chain: string, what a model has written, words with blanks between them.

    Returns:
        Number of the first wrong part, 0 if there is none. For "CABED", [(1, 3), (2, 4)] and
        "1-3 B A C E D 2-4 B A C E D = B A C E D .": 2.
    """
    # BEGIN SOLUTION
    things, right = list(start), []
    for a, b in swaps:
        things[a - 1], things[b - 1] = things[b - 1], things[a - 1]
        right.append([f"{a}-{b}", *things])
    right.append(["=", *things, "."])
    words = chain.split()
    for number, part in enumerate(right, 1):
        last = number == len(right)
        written = words[6 * (number - 1) :] if last else words[6 * (number - 1) : 6 * number]
        if written != part:
            return number
    return 0
    # END SOLUTION


@task("24.2", minutes=5)
def choose(prompts, documents, least):
    """Decide: which prompt makes a model write steps?

    You know how the documents begin from which the model learned, and whether steps follow. After
    a prompt it mostly does what its documents do. So take the prompt after which steps are most
    likely. Trust a prompt only if at least `least` documents begin with it. Of equally good ones
    take the one with more documents, and of these the first.

    中文：哪个提示语最能让模型写出步骤？已知训练文档的开头，以及其后有没有步骤。只考虑至少在 least
    篇文档开头出现过的提示语；一样好时取文档较多的，再一样时取在前的；一个都没有时返回 None。

    Args:
        prompts: list of strings.
        documents: list of pairs (how it begins, whether steps follow).
        least: at least 1.

    Returns:
        One of the prompts, or None if none can be trusted. For ["think", "answer"], the documents
        [("think", True), ("answer", False)] and 1: "think".
    """
    # BEGIN SOLUTION
    best, most = None, (-1, 0)
    for prompt in prompts:
        steps = [shows for begins, shows in documents if begins == prompt]
        if len(steps) >= least and (sum(steps) / len(steps), len(steps)) > most:
            best, most = prompt, (sum(steps) / len(steps), len(steps))
    return best
    # END SOLUTION


@task("24.3", minutes=6)
def five_votes():
    """Predict, measure and explain what five votes bring.

    A model's sample is right with probability 0.4, each independently of the others. Five samples
    vote. Of answers with equally many votes the one that came first wins. How often is the vote
    right, (a) if no two wrong answers are ever the same, (b) if all wrong answers are the same?
    Predict both. Then measure: draw at least 20,000 votes for each.

    中文：每个样本答对的概率是 0.4，相互独立。五个样本投票，票数相同时先出现的答案胜出。(a) 错误
    答案各不相同，(b) 错误答案全都一样，投票答对的比例各是多少？先预测，再模拟，并用一句话解释。

    Returns:
        (float, float, str): the shares of right votes in (a) and in (b), from 0 to 1, and a
        sentence: why do votes help in one case and do harm in the other?
    """
    # BEGIN SOLUTION
    from random import Random

    rng, n = Random(0), 50_000
    shares = []
    for scattered in (True, False):
        right = 0
        for _ in range(n):
            answers = [
                "right" if rng.random() < 0.4 else (i if scattered else "wrong") for i in range(5)
            ]
            right += max(answers, key=answers.count) == "right"  # max takes the first
        shares.append(right / n)
    return *shares, "Right answers agree with each other; wrong ones that scatter cannot win."
    # END SOLUTION


@task("24.4", minutes=6)
def stop_after(answers):
    """Decide how few samples are enough.

    The answers of a model's samples come in one by one, and all of them are to vote. The most
    votes win; of equally many, the answer that was first given. None is a sample without an
    answer, and has no vote. Each sample costs time. So stop as soon as the winner is certain,
    whatever the other samples would have answered.

    中文：样本的答案一个个到来。票多者胜，票数相同时先出现的胜出；None 没有答案，不计票。一旦无论
    后面的样本答什么胜者都不会改变，就可以停止。返回此时已用的样本数。

    Args:
        answers: list of strings or None, at least one, in the order in which they come.

    Returns:
        How many of them you need. For ["x", "x", "y", "x", "y"]: 4, since then x has three votes
        of five. With one sample less, y could still win with the last two.
    """
    # BEGIN SOLUTION
    for n in range(1, len(answers)):
        votes = [answer for answer in answers[:n] if answer is not None]
        if votes:
            first = max(votes, key=votes.count)
            left = len(answers) - n
            rivals = {each: votes.count(each) for each in votes if each != first}
            # a rival that was there before the winner needs only as many votes, others one more
            needs = {
                each: votes.count(first) - count + (votes.index(each) > votes.index(first))
                for each, count in rivals.items()
            }
            needs["a new one"] = votes.count(first) + 1
            if left < min(needs.values()):
                return n
    return len(answers)
    # END SOLUTION
