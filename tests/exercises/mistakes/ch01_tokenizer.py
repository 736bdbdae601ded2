"""Answers for the graders of chapter 01: other right ones, typical mistakes, and a mutant."""

SECOND_STYLE = {
    "1.1": """
def merge_pair(ids, pair, new_id):
    rest, out = list(ids)[::-1], []
    while rest:
        out.append(rest.pop())
        if rest and (out[-1], rest[-1]) == pair:
            rest.pop()
            out[-1] = new_id
    return out
""",
    "1.2": """
def merge_word(word, new_ids):
    ids = list(word)
    for new_id, pair in sorted((n, p) for p, n in new_ids.items()):
        i = 0
        while i < len(ids) - 1:
            if (ids[i], ids[i + 1]) == pair:
                ids[i : i + 2] = [new_id]
            i += 1
    return ids
""",
    "1.4": """
import codecs
def stream_text(pieces):
    decoder = codecs.getincrementaldecoder("utf-8")()
    yield from filter(None, map(decoder.decode, pieces))
""",
    "1.3": """
def tokens_of_a_stranger():
    return len("我住在村里".encode()), "一次合并也用不上"
""",
    "1.5": """
from functools import lru_cache
def best_segmentation(word, log_prob, longest):
    table = {0: (0.0, None)}
    for end in range(1, len(word) + 1):
        ways = []
        for size in range(1, min(longest, end) + 1):
            piece = word[end - size : end]
            if piece in log_prob:
                ways.append((table[end - size][0] + log_prob[piece], piece))
        table[end] = max(ways)
    out = []
    while word:
        out.insert(0, table[len(word)][1])
        word = word[: -len(out[0])]
    return out
""",
}

# Task -> (what the learner did, a phrase of the diagnosis that must come).
MISTAKES = {
    "1.1": [
        (
            """
def merge_pair(ids, pair, new_id):
    out, i = [], 0
    while i < len(ids):
        if ids[i : i + 2] == pair:
            out.append(new_id); i += 2
        else:
            out.append(ids[i]); i += 1
    return out
""",
            "a list never equals a tuple",
        ),
        (
            """
def merge_pair(ids, pair, new_id):
    for i in range(len(ids) - 1):
        if (ids[i], ids[i + 1]) == pair:
            return ids[:i] + [new_id] + ids[i + 2:]
    return ids
""",
            "first occurrence only",
        ),
        (
            """
def merge_pair(ids, pair, new_id):
    out = []
    for i in range(len(ids)):
        if i + 1 < len(ids) and (ids[i], ids[i + 1]) == pair:
            out.append(new_id)
        elif not (i > 0 and (ids[i - 1], ids[i]) == pair):
            out.append(ids[i])
    return out
""",
            "use the middle 7 twice",
        ),
        (
            """
def merge_pair(ids, pair, new_id):
    i = 0
    while i < len(ids) - 1:
        if (ids[i], ids[i + 1]) == pair:
            ids[i : i + 2] = [new_id]
        i += 1
    return ids
""",
            "you change the list",
        ),
        (
            """
def merge_pair(ids, pair, new_id):
    out, i = list(ids), len(ids) - 2
    while i >= 0:
        if (out[i], out[i + 1]) == pair:
            out[i : i + 2] = [new_id]
            i -= 1
        i -= 1
    return out
""",
            "right to left",
        ),
        (
            """
def merge_pair(ids, pair, new_id):
    out, i = [], 0
    while i < len(ids) - 2:
        if (ids[i], ids[i + 1]) == pair:
            out.append(new_id); i += 2
        else:
            out.append(ids[i]); i += 1
    return out
""",
            "loses the end",
        ),
        (
            """
def merge_pair(ids, pair, new_id):
    out, i = [], 0
    while i < len(ids) - 1:
        if (ids[i], ids[i + 1]) == pair:
            out.append(new_id); i += 2
        else:
            out.append(ids[i]); i += 1
    return out
""",
            "loses the last id when it is in no pair",
        ),
        (
            """
def merge_pair(ids, pair, new_id):
    out = list(ids)
    for i in range(len(out) - 1):
        if (out[i], out[i + 1]) == pair:
            out[i : i + 2] = [new_id, None]
    out = [i for i in out if i is not None]
""",
            "returns nothing",
        ),
        (
            """
def merge_pair(ids, pair, new_id):
    out = []
    for i in ids:
        if out and {out[-1], i} == set(pair):
            out[-1] = new_id
        else:
            out.append(i)
    return out
""",
            "order matters",
        ),
        (
            """
def merge_pair(ids, pair, new_id):
    out = []
    for i in range(0, len(ids), 2):
        out += [new_id] if tuple(ids[i : i + 2]) == pair else ids[i : i + 2]
    return out
""",
            "[1, 1, 2] with (1, 2) -> 9 must give [1, 9]; yours gives [1, 1, 2]",
        ),
        (
            """
def merge_pair(ids, pair, new_id):
    found = [i for i in range(len(ids) - 1) if (ids[i], ids[i + 1]) == pair]
    found = [i for i in found if i - 1 not in found]
    gone = [i + 1 for i in found]
    return [new_id if i in found else ids[i] for i in range(len(ids)) if i not in gone]
""",
            "must give [9, 9]; yours gives [9, 1, 1]",
        ),
        (
            """
def merge_pair(ids, pair, new_id):
    out, i = [], 0
    while i < len(ids):
        if i + 1 < len(ids) and ids[i] == pair[0] and ids[i + 1] in pair:
            out.append(new_id); i += 2
        else:
            out.append(ids[i]); i += 1
    return out
""",
            "[1, 1] with (1, 2) -> 9 must give [1, 1]; yours gives [9]",
        ),
    ],
    "1.2": [
        (
            """
def merge_word(word, new_ids):
    ids = list(word)
    i = 0
    while i < len(ids) - 1:
        if (ids[i], ids[i + 1]) in new_ids:
            ids[i : i + 2] = [new_ids[ids[i], ids[i + 1]]]
            i = 0
        else:
            i += 1
    return ids
""",
            "from left to right",
        ),
        (
            """
def merge_word(word, new_ids):
    ids = list(word)
    known = [new_ids[p] for p in zip(ids, ids[1:]) if p in new_ids]
    if not known:
        return ids
    best, out, i = min(known), [], 0
    while i < len(ids):
        if new_ids.get(tuple(ids[i : i + 2])) == best:
            out.append(best); i += 2
        else:
            out.append(ids[i]); i += 1
    return out
""",
            "stop too early",
        ),
        (
            """
def merge_word(word, new_ids):
    ids = list(word)
    known = [p for p in zip(ids, ids[1:]) if p in new_ids]
    if known:
        first = min(known, key=new_ids.get)
        i = list(zip(ids, ids[1:])).index(first)
        ids[i : i + 2] = [new_ids[first]]
    return ids
""",
            "merge one place and stop",
        ),
        (
            """
def merge_word(word, new_ids):
    if not any(p in new_ids for p in zip(word, word[1:])):
        return None
    ids = list(word)
    for new_id, pair in sorted((n, p) for p, n in new_ids.items()):
        i = 0
        while i < len(ids) - 1:
            if (ids[i], ids[i + 1]) == pair:
                ids[i : i + 2] = [new_id]
            i += 1
    return ids
""",
            "come back as its bytes",
        ),
        (
            """
def merge_word(word, new_ids):
    ids = list(word)
    for new_id, pair in sorted((n, p) for p, n in new_ids.items()):
        i = 0
        while i < len(ids) - 1:
            if (ids[i], ids[i + 1]) == pair:
                ids[i : i + 2] = [new_id]
            i += 1
    return ids if max(ids, default=0) > 255 else word
""",
            "return a list of ids",
        ),
        (
            """
def merge_word(word, new_ids):
    if len(word) < 2:
        return word
    ids = list(word)
    for new_id, pair in sorted((n, p) for p, n in new_ids.items()):
        i = 0
        while i < len(ids) - 1:
            if (ids[i], ids[i + 1]) == pair:
                ids[i : i + 2] = [new_id]
            i += 1
    return ids
""",
            "an empty word is an empty list",
        ),
        (
            """
def merge_word(word, new_ids):
    ids, merged = list(word), True
    while merged:
        merged = False
        for pair, new_id in new_ids.items():
            if pair in zip(ids, ids[1:]):
                i = list(zip(ids, ids[1:])).index(pair)
                ids[i : i + 2] = [new_id]
                merged = True
                break
    return ids
""",
            "the order of the dictionary",
        ),
        (
            """
def merge_word(word, new_ids):
    ids = list(word)
    for new_id, pair in sorted((n, p) for p, n in new_ids.items()):
        for i in range(len(ids) - 2, -1, -1):
            if tuple(ids[i : i + 2]) == pair:
                ids[i : i + 2] = [new_id]
    return ids
""",
            "b'ababab' must become [258, 257]; yours gives [257, 258]",
        ),
    ],
    "1.4": [
        (
            """
def stream_text(pieces):
    waiting = b""
    for piece in pieces:
        waiting += piece
        try:
            text = waiting.decode()
        except UnicodeDecodeError:
            continue
        if text:
            yield text
        waiting = b""
""",
            "whole text and then half a character",
        ),
        (
            """
def stream_text(pieces):
    waiting = b""
    for piece in pieces:
        waiting += piece
        for held in range(3):
            try:
                text = waiting[: len(waiting) - held].decode()
            except UnicodeDecodeError:
                continue
            if text:
                yield text
            waiting = waiting[len(waiting) - held :]
            break
""",
            "up to three bytes may have to wait",
        ),
        (
            """
def stream_text(pieces):
    waiting = b""
    for piece in pieces:
        waiting += piece
        first = waiting[0] if waiting else 0
        size = 1 + (first >= 0xC0) + (first >= 0xE0) + (first >= 0xF0)
        if len(waiting) >= size:
            yield waiting[:size].decode()
            waiting = waiting[size:]
""",
            "wrong for pieces of 2",
        ),
        (
            "def stream_text(pieces):\n"
            "    for piece in pieces:\n"
            "        yield piece.decode('utf-8', 'replace')",
            "hold its bytes back",
        ),
        (
            "def stream_text(pieces):\n    yield b''.join(pieces).decode()",
            "wait until the stream ends",
        ),
        (
            "def stream_text(pieces):\n    return b''.join(pieces).decode()",
            "it returns a str",
        ),
        (
            "def stream_text(pieces):\n    print(b''.join(pieces).decode())",
            "it returns a NoneType",
        ),
        (
            "import codecs\n"
            "def stream_text(pieces):\n"
            "    decoder = codecs.getincrementaldecoder('utf-8')()\n"
            "    for piece in pieces:\n"
            "        yield decoder.decode(piece)",
            "yield an empty text",
        ),
        (
            "def stream_text(pieces):\n"
            "    for piece in pieces:\n"
            "        text = piece.decode('utf-8', 'ignore')\n"
            "        if text:\n"
            "            yield text",
            "joined, your texts are",
        ),
    ],
    "1.3": [
        (
            'def tokens_of_a_stranger():\n    return 5, "one token for each of the five"',
            "who taught",
        ),
        (
            'def tokens_of_a_stranger():\n    return 9, "a larger vocabulary knows more"',
            "fewer than 15",
        ),
        (
            'def tokens_of_a_stranger():\n    return 120, "eight times fifteen is more"',
            "never costs more",
        ),
        (
            'def tokens_of_a_stranger():\n    return 21, "as many as the English sentence"',
            "train one",
        ),
        ('def tokens_of_a_stranger():\n    return "15", "bytes"', "not as the text '15'"),
        ("def tokens_of_a_stranger():\n    return 15", "you return 15."),
        (
            'def tokens_of_a_stranger():\n    return 15, 15, "before and after"',
            "you return (15, 15,",
        ),
        ("def tokens_of_a_stranger():\n    return 15, 1.0", "must be text, and is 1.0"),
        ('def tokens_of_a_stranger():\n    return 15, "because"', "say in a sentence why"),
    ],
    "1.5": [
        (
            """
def best_segmentation(word, log_prob, longest):
    out, i = [], 0
    while i < len(word):
        size = next(s for s in range(longest, 0, -1) if word[i : i + s] in log_prob)
        out.append(word[i : i + size]); i += len(out[-1])
    return out
""",
            "the longest piece is not the likeliest",
        ),
        (
            """
def best_segmentation(word, log_prob, longest):
    out, i = [], 0
    while i < len(word):
        sizes = [s for s in range(1, longest + 1) if word[i : i + s] in log_prob]
        sizes = [s for s in sizes if i + s <= len(word)]
        size = max(sizes, key=lambda s: log_prob[word[i : i + s]] / s)
        out.append(word[i : i + size]); i += size
    return out
""",
            "take the best next piece",
        ),
        (
            """
def best_segmentation(word, log_prob, longest):
    best = [(0.0, 0)] + [(float("-inf"), 0)] * len(word)
    for end in range(1, len(word) + 1):
        for start in range(max(0, end - longest), end):
            score = best[start][0] + log_prob.get(word[start:end], float("-inf"))
            best[end] = max(best[end], (score, start))
    out, end = [], len(word)
    while end > 0:
        out.append(word[best[end][1] : end]); end = best[end][1]
    return out
""",
            "turn them round",
        ),
        (
            """
def best_segmentation(word, log_prob, longest):
    def cuts(rest):
        if not rest:
            return [(0.0, [])]
        found = []
        for size in range(1, longest + 1):
            if rest[:size] in log_prob and size <= len(rest):
                first = rest[:size]
                found += [(log_prob[first] + s, [first, *p]) for s, p in cuts(rest[size:])]
        return found
    return max(cuts(word))[1]
""",
            "do you try all segmentations",
        ),
        (
            """
def best_segmentation(word, log_prob, longest):
    best = [(0.0, 0)] + [(float("-inf"), 0)] * len(word)
    for end in range(1, len(word) + 1):
        for start in range(end):
            piece = word[start:end]
            score = best[start][0] + log_prob.get(piece, float("-inf"))
            if len(piece) <= longest:
                best[end] = max(best[end], (score, start))
    out, end = [], len(word)
    while end > 0:
        out.append(word[best[end][1] : end]); end = best[end][1]
    return out[::-1]
""",
            "look back so far from each position and no further",
        ),
        (
            """
from functools import cache
def best_segmentation(word, log_prob, longest):
    @cache
    def best(start):
        if start == len(word):
            return 0.0, 0
        ends = range(start + 1, min(start + longest, len(word)) + 1)
        known = [end for end in ends if word[start:end] in log_prob]
        return max((log_prob[word[start:end]] + best(end)[0], end) for end in known)
    out, start = [], 0
    while start < len(word):
        end = best(start)[1]
        out.append(word[start:end]); start = end
    return out
""",
            "calls itself 2,000 deep",
        ),
        (
            """
def best_segmentation(word, log_prob, longest):
    best = [(0.0, 0)] + [(float("-inf"), 0)] * len(word)
    for end in range(1, len(word) + 1):
        for start in range(end):
            score = best[start][0] + log_prob.get(word[start:end], float("-inf"))
            best[end] = max(best[end], (score, start))
    out, end = [], len(word)
    while end > 0:
        out.append(word[best[end][1] : end]); end = best[end][1]
    return out[::-1]
""",
            "you ignore `longest`",
        ),
        (
            """
def best_segmentation(word, log_prob, longest):
    best = [(0.0, 0)] + [(float("-inf"), 0)] * len(word)
    for end in range(1, len(word) + 1):
        for start in range(max(0, end - longest), end):
            score = best[start][0] + log_prob.get(word[start:end], float("-inf"))
            best[end] = max(best[end], (score, start))
    out, end = [], len(word)
    while best[end][1] > 0:
        out.append(word[best[end][1] : end]); end = best[end][1]
    return out[::-1]
""",
            "your pieces of b'a' spell b''",
        ),
        (
            """
def best_segmentation(word, log_prob, longest):
    best = [(0.0, 0)] * (len(word) + 1)
    for end in range(1, len(word) + 1):
        for start in range(max(0, end - longest), end):
            score = best[start][0] + log_prob.get(word[start:end], float("-inf"))
            best[end] = max(best[end], (score, start))
    out, end = [], len(word)
    while end > 0:
        out.append(word[best[end][1] : end]); end = best[end][1]
    return out[::-1]
""",
            "is none of the pieces",
        ),
        (
            """
def best_segmentation(word, log_prob, longest):
    best = [(0.0, 0)] + [(float("inf"), 0)] * len(word)
    for end in range(1, len(word) + 1):
        for start in range(max(0, end - longest), end):
            score = best[start][0] + log_prob.get(word[start:end], float("inf"))
            best[end] = min(best[end], (score, start))
    out, end = [], len(word)
    while end > 0:
        out.append(word[best[end][1] : end]); end = best[end][1]
    return out[::-1]
""",
            "b'ab': [b'ab'] scores -3.0, yours [b'a', b'b'] only -4.5",
        ),
        (
            """
def best_segmentation(word, log_prob, longest):
    best = [(0.0, [])]
    for end in range(1, len(word) + 1):
        ways = [(w, best[end - len(w)]) for w in log_prob if word[:end].endswith(w)]
        best.append(max((s + log_prob[w], [*p, w]) for w, (s, p) in ways))
    return best[-1]
""",
            "yours is a tuple",
        ),
    ],
}

# One wrong answer a task for which no grader has a message of its own.
MUTANT = {
    "1.1": "def merge_pair(ids, pair, new_id):\n    return [new_id if i == 1 else i for i in ids]",
    "1.2": "def merge_word(word, new_ids):\n    return [256] * len(word)",
    "1.4": "def stream_text(pieces):\n    yield from ['Mei', ' sells']",
    "1.3": 'def tokens_of_a_stranger():\n    return 21, "that is what the English one has"',
    "1.5": (
        "def best_segmentation(word, log_prob, longest):\n"
        "    return [word[i : i + 1] for i in range(len(word))]"
    ),
}
