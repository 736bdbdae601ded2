"""Other right answers to chapter 24, and one mutant a task that no diagnosis knows."""

SECOND_STYLE = {
    "24.1": """
def first_slip(start, swaps, chain):
    text, state = "", start
    for a, b in swaps:
        one, other = state[a - 1], state[b - 1]
        state = state.replace(one, "?").replace(other, one).replace("?", other)
        text += f"{a}-{b} {' '.join(state)} "
    right, words = (text + "= " + " ".join(state) + " .").split(), chain.split()
    if words == right:
        return 0
    n = 0
    while n < min(len(words), len(right)) and words[n] == right[n]:
        n += 1
    return min(n // 6, len(swaps)) + 1
""",
    "24.2": """
def choose(prompts, documents, least):
    from fractions import Fraction
    table = {}
    for begins, shows in documents:
        n, k = table.get(begins, (0, 0))
        table[begins] = n + 1, k + bool(shows)
    good = [p for p in prompts[::-1] if table.get(p, (0, 0))[0] >= least]
    good.sort(key=lambda p: (Fraction(table[p][1], table[p][0]), table[p][0]))
    return good[-1] if good else None
""",
    "24.3": """
def five_votes():
    from itertools import product
    from math import prod
    a = b = 0.0
    for rights in product((0, 1), repeat=5):
        p = prod(0.4 if r else 0.6 for r in rights)
        n = sum(rights)
        b += p * (n >= 3)
        a += p * (n >= 2 or rights[0] == 1)
    return [a, b, "对的答案总是相同，错的答案分散时赢不了"]
""",
    "24.4": """
def stop_after(answers):
    def winner(some):
        table = {}
        for each in some:
            if each is not None:
                table[each] = table.get(each, 0) + 1
        return max(table, key=table.get) if table else None
    for n in range(1, len(answers) + 1):
        head, left = answers[:n], len(answers) - n
        options = [object(), *{each for each in head if each is not None}]
        if left == 0:
            return n
        now = winner(head)
        if now is not None and all(winner(head + [o] * left) == now for o in options):
            return n
""",
}

MUTANT = {
    "24.1": """
def first_slip(start, swaps, chain):
    return len(swaps)
""",
    "24.2": """
def choose(prompts, documents, least):
    return prompts[0]
""",
    "24.3": """
def five_votes():
    return 0.9, 0.1, "because five are more than one"
""",
    "24.4": """
def stop_after(answers):
    return (len(answers) + 1) // 2
""",
}
