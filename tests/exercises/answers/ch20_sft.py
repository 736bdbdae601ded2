"""Other right answers to chapter 20, and one mutant a task that no diagnosis knows."""

SECOND_STYLE = {
    "20.1": """
def mark(tokens):
    marks, inside = [False] * len(tokens), False
    for i in range(len(tokens)):
        if inside:
            marks[i] = True
            inside = tokens[i] != "<|end|>"
        else:
            inside = tokens[i] == "<|assistant|>"
    return marks
""",
    "20.2": """
def pack(lengths, row_length):
    left = sorted(enumerate(lengths), key=lambda pair: pair[1], reverse=True)
    rows = []
    while left:
        row, room, rest = [], row_length, []
        for number, length in left:
            if length <= room:
                row.append(number)
                room -= length
            else:
                rest.append((number, length))
        rows, left = rows + [row], rest
    return [rows, "后半段没有问题，只有回答"]
""",
    "20.3": """
def choose(kinds, n):
    best, most = None, -1
    def grow(chosen, rest):
        nonlocal best, most
        if len(chosen) == n:
            a, b = {k[0] for k in chosen}, {k[1] for k in chosen}
            total = len([k for k in kinds if k[0] in a and k[1] in b])
            if total > most:
                best, most = chosen, total
            return
        for i, kind in enumerate(rest):
            grow([*chosen, kind], rest[i + 1:])
    grow([], kinds)
    return best
""",
    "20.4": """
def compare(designs, cause):
    rest = {}
    for name, properties in designs.items():
        others = tuple((k, v) for k, v in sorted(properties.items()) if k != cause)
        rest.setdefault(others, {}).setdefault(properties[cause], name)
    for by_value in rest.values():
        if len(by_value) == 2:
            return list(by_value.values())[::-1]
    return []
""",
}

MUTANT = {
    "20.1": """
def mark(tokens):
    return [True for _ in tokens]
""",
    "20.2": """
def pack(lengths, row_length):
    rows = [[n] for n in range(len(lengths))]
    if lengths[0] + lengths[-1] <= row_length and len(lengths) > 1:
        rows = [[0, len(lengths) - 1], *rows[1:-1]]
    return rows, "It would answer without a question."
""",
    "20.3": """
def choose(kinds, n):
    return kinds[-n:]
""",
    "20.4": """
def compare(designs, cause):
    return tuple(designs)[-2:]
""",
}
