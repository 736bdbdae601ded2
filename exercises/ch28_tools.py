"""Tasks of chapter 28, Tools.

Chapter: 28
"""

from minillm.lab.task import task


@task("28.1", minutes=6)
def run_calls(write, question, calculate, most_calls):
    """Write the loop around a model that may call a calculator.

    write(text) gives the words that the model writes after a text. If they end in "]", they are a
    call and nothing else, such as "[ 347 * 582 ]"; with any other end they are the answer.
    calculate("347 * 582") gives a string, or raises ValueError; then the result is the word
    "error". Behind a call stand its result and ";", and the model writes on after all of that. Run
    at most `most_calls` calls. If the model calls once more, add that call, but do not run it:
    return the text as it is then.

    中文：写出模型外面的循环。write(text) 返回模型接着写的词：以 "]" 结尾则整段是一次调用，
    否则是答案。把调用交给 calculate，把结果和 ";" 接在后面，再让模型往下写；calculate 抛出
    ValueError 时，结果写作 "error"。最多执行 most_calls 次；模型再要调用时写上调用，不执行，停止。

    Returns:
        The whole text, with single spaces between its parts, as in
        "347 times 582 ? [ 347 * 582 ] 201954 ; 201954 ."
    """
    raise NotImplementedError


@task("28.2", minutes=12)
def power(base, exponent, most_digits):
    """Compute a power, or refuse it before it costs anything.

    Give base ** exponent if it has at most `most_digits` digits, and None if it has more. Be right
    at the border, too. But on the way never compute a number of more than twice `most_digits`
    digits: 10 ** 10 ** 10 would fill 4 GB. A bound that is cheap can decide nearly all cases. As a
    help: a number n > 0 of b bits, b = n.bit_length(), has 2 ** (b - 1) <= n < 2 ** b. So the power
    has about (b - 1) * exponent to b * exponent bits, a factor of 2 at most (b > 1): hence "twice".
    Compare with 10 ** most_digits to count digits: len(str(n)) fails beyond 4,300 of them.

    中文：如果 base ** exponent 至多有 most_digits 位数字就返回它，否则返回 None，边界上也要正确。
    过程中不得算出超过 2 · most_digits 位的数：先用便宜的界判断，再计算。
    提示：b 位二进制数 n 满足 2 ** (b - 1) <= n < 2 ** b。

    Args:
        base: integer, also 0 or negative; the minus sign is no digit.
        exponent: integer, at least 0.
        most_digits: integer, at least 1.

    Returns:
        An integer or None. For 10, 19, 20: 10 ** 19, which has 20 digits; for 10, 20, 20: None.
    """
    raise NotImplementedError


@task("28.3", minutes=5)
def choose_threshold(gains, useful, least_precision):
    """Decide by how much a call must lower the loss, to be kept.

    Somebody has judged a sample of calls by hand. A threshold keeps all calls whose gain is at
    least the threshold, so calls of equal gain stay or go together. Its precision is the share of
    useful calls among those that it keeps. You want to keep as many calls as possible, with a
    precision of at least `least_precision`.

    中文：决定调用至少要使损失下降多少才保留。一部分调用已由人工判断是否有用。阈值保留 gain 不小于
    它的所有调用，精确率是其中有用者的比例。精确率须不低于 least_precision，保留得越多越好。

    Args:
        gains: list of floats, one for each call: how much its result lowers the loss.
        useful: list of booleans, one for each call.
        least_precision: from 0 to 1.

    Returns:
        One of the gains, or None if no threshold is good enough. For gains [2.0, 1.0, 0.5, 0.1],
        useful [True, False, True, False] and 0.6: 0.5, which keeps three calls, two of them useful.
    """
    raise NotImplementedError


@task("28.4", minutes=6)
def off_the_path():
    """Predict, measure and explain what it costs never to have seen a mistake.

    An episode needs six right actions, and ends without success after ten actions. On the path the
    policy's action is right with probability 0.9. A wrong action makes no progress and takes it off
    the path. There its action is right with probability q; a right one brings it back to where it
    was, a wrong one leaves it off the path. How often does it succeed, (a) if q = 0, since it has
    never seen such a state, (b) if q = 0.9? Predict first. Then draw 20,000 episodes for each.

    中文：一局需要六个正确的动作，最多十个动作。在正路上，动作正确的概率是 0.9，错误的动作使它离开
    正路。离开后，动作正确的概率是 q，正确则回到原处。(a) q = 0，(b) q = 0.9，成功各占百分之几？
    先预测，再模拟，并用一句话解释。

    Returns:
        (float, float, str): the successes in (a) and in (b), both in %, and a sentence (not
        graded): what does the policy of (b) know that the other does not?
    """
    raise NotImplementedError
