"""What `@task` runs for chapter 20.

Chapter: 20
"""

from itertools import combinations, product
from random import Random

from minillm.lab.diagnose import check_sentence, held
from minillm.lab.grade import Diagnosis, Grader

# --- 20.1 -----------------------------------------------------------------------------------------
ROLES = ("<|system|>", "<|user|>", "<|assistant|>")
END = "<|end|>"


def marked(
    tokens, *, ends=("<|assistant|>",), own=("<|assistant|>",), prefix=False, last=False, shift=0
):
    """True where the model learns; the options are mistakes."""
    marks, role = [], None
    for token in tokens:
        if token in ROLES:
            role = token
            marks.append(prefix and role in own)
        elif token == END:
            marks.append(role in ends)
            role = None
        else:
            marks.append(role in own)
    if last and True in marks:
        begin = max(i for i, token in enumerate(tokens) if token == "<|assistant|>")
        marks = [each and i > begin for i, each in enumerate(marks)]
    return marks[shift:] + [False] * shift


def talk(*messages):
    """Tokens of (role, words), (role, words), …"""
    return [t for role, words in messages for t in (f"<|{role}|>", *words.split(), END)]


TALKS = [
    (talk(("user", "Hi"), ("assistant", "Yes")),),
    (talk(("user", "Turn it around"), ("assistant", "buns , plums")),),
    (talk(("system", "You are Mei"), ("user", "plums ?"), ("assistant", "2 coins")),),
    (talk(("user", "a"), ("assistant", "b c"), ("user", "d e"), ("assistant", "f")),),
]
TALKS_WRONG = [
    (
        lambda tokens: marked(tokens, ends=()),
        "the end of an answer is not marked: a model that never learns to write it never stops.",
    ),
    (
        lambda tokens: marked(tokens, ends=ROLES),
        "the user's messages end, too, but it is the program that ends them.",
    ),
    (
        lambda tokens: marked(tokens, ends=ROLES, own=ROLES),
        "you mark all that is said: the model would learn to ask like the user as well.",
    ),
    (
        lambda tokens: marked(tokens, prefix=True),
        "<|assistant|> is written by the program, so the model need not learn it.",
    ),
    (
        lambda tokens: marked(tokens, last=True),
        "a conversation may have several answers: mark all of them.",
    ),
    (
        lambda tokens: marked(tokens, shift=1),
        "you are one token early: mark a token itself, not the place from which it is predicted.",
    ),
]


# --- 20.2 -----------------------------------------------------------------------------------------
def packed(lengths, row_length, *, longest_first=True, look_back=True, ends=0):
    """Rows of whole conversations; the options are mistakes."""
    order, rows, room = range(len(lengths)), [], []
    for number in sorted(order, key=lambda n: -lengths[n] if longest_first else n):
        length = lengths[number] + ends
        fits = [
            i for i, left in enumerate(room) if left >= length and (look_back or i == len(room) - 1)
        ]
        if not fits:
            rows.append([])
            room.append(row_length)
            fits = [-1]
        rows[fits[0]].append(number)
        room[fits[0]] -= length
    return rows


ROWS = [
    ([5, 3, 4], 8),
    ([7], 8),
    ([4, 5, 4, 3], 8),
    ([3, 3, 5, 5], 8),
    ([6, 2, 6, 2, 6, 2, 1], 8),
    ([Random(0).randint(20, 60) for _ in range(40)], 128),
]
WHY = "what a model would learn from the second half of a conversation"
NEXT = "you look at the last row alone: a short one may still fit into a row before it."
FIRST = "in the order given, short ones take the room of long ones: begin with the longest."
ALONE = "a row for each conversation is mostly padding, which costs as much time as text."
OVER = "a row has more tokens than it has room for."
ONCE = "each conversation must stand in one row, and in no other."


def grade_pack(answer):
    """Rows that hold everything once, as few as those of the rule; and a sentence."""
    sentences, rights, others = [], [], {NEXT: [], FIRST: [], ALONE: []}
    for lengths, row_length in ROWS:
        result = answer(list(lengths), row_length)
        if not (isinstance(result, tuple | list) and len(result) == 2):
            raise Diagnosis('return the rows and your sentence, as in [[0, 1], [2]], "It would …".')
        rows, sentence = result
        try:
            numbers = [n for row in rows for n in row]
            totals = [sum(lengths[n] for n in row) for row in rows]
        except (TypeError, IndexError):
            raise Diagnosis("rows must be lists of the conversations' numbers, from 0.") from None
        if sorted(numbers) != [*range(len(lengths))]:
            raise Diagnosis(ONCE)
        if max(totals) > row_length:
            raise Diagnosis(OVER)
        sentences.append(sentence)
        best = len(packed(lengths, row_length))
        rights.append(len(rows) <= best)
        n = len([row for row in rows if row])
        others[NEXT].append(
            n == len(packed(lengths, row_length, longest_first=False, look_back=False))
        )
        others[FIRST].append(n == len(packed(lengths, row_length, longest_first=False)))
        others[ALONE].append(n == len(lengths))
    if not all(rights):
        for message, same in others.items():
            if all(same):
                raise Diagnosis(message)
        lengths, row_length = ROWS[rights.index(False)]
        best = len(packed(lengths, row_length))
        raise Diagnosis(f"for {lengths} and {row_length}, {best} rows are enough; yours are more.")
    check_sentence(sentences[0], WHY)


SENTENCE = "It would answer without having been asked."
ROWS_WRONG = [
    (lambda *c: (packed(*c, longest_first=False, look_back=False), SENTENCE), NEXT),
    (lambda *c: (packed(*c, longest_first=False), SENTENCE), FIRST),
    (lambda lengths, _: ([[n] for n in range(len(lengths))], SENTENCE), ALONE),
    (lambda lengths, _: ([[*range(len(lengths))]], SENTENCE), OVER),
    (lambda *c: (packed(*c)[:1], SENTENCE), ONCE),
    (lambda *c: (packed(*c), ""), f"now say in a sentence {WHY}."),
]


# --- 20.3 -----------------------------------------------------------------------------------------
def n_covered(kinds, chosen):
    """Kinds whose operation and form were both chosen."""
    operations, forms = ({pair[i] for pair in chosen} for i in (0, 1))
    return sum(operation in operations and form in forms for operation, form in kinds)


FOUR = [*product("ab", ("json", "lines"))]
NINE = [*product("abc", ("json", "lines", "commas"))]
UNEVEN = [*zip("ccdbbbc", "2424121", strict=True)]
CHOICES = [(FOUR, 2), (NINE, 3), (NINE, 2), (UNEVEN, 2), (UNEVEN, 3), (UNEVEN, 1), (FOUR, 4)]


def spread(kinds, n, place):
    """One kind for each operation (place 0) or form (place 1), then the rest in order."""
    firsts = list({pair[place]: pair for pair in reversed(kinds)}.values())[::-1]
    return [*firsts, *(pair for pair in kinds if pair not in firsts)][:n]


def frequent(kinds, n):
    """The kinds whose operation and form are the most frequent."""
    return sorted(kinds, key=lambda pair: -sum((pair[i] == k[i]) for k in kinds for i in (0, 1)))[
        :n
    ]


CHOICES_WRONG = [
    (
        lambda kinds, n: kinds[:n],
        "the first n may all share an operation: choose, do not take what comes.",
    ),
    (
        lambda kinds, n: spread(kinds, n, 0),
        "each operation once is not enough, if all of them come in one form: the other forms stay "
        "unmet.",
    ),
    (
        lambda kinds, n: spread(kinds, n, 1),
        "each form once is not enough, if all of them come with one operation.",
    ),
    (frequent, "what is most frequent is much alike: two such kinds cover little together."),
]


def grade_choose(answer):
    """As many covered as by the best choice."""
    got = []
    for kinds, n in CHOICES:
        chosen = answer(list(kinds), n)
        try:
            chosen = [tuple(pair) for pair in chosen]
        except TypeError:
            raise Diagnosis("return a list of pairs (operation, form).") from None
        if len(chosen) != n or len({*chosen}) != n or not {*chosen} <= {*kinds}:
            raise Diagnosis(f"return {n} different pairs that stand in kinds.")
        got.append(n_covered(kinds, chosen))
    best = [max(n_covered(kinds, each) for each in combinations(kinds, n)) for kinds, n in CHOICES]
    if got == best:
        return
    for mistake, message in CHOICES_WRONG:
        if got == [n_covered(kinds, mistake(kinds, n)) for kinds, n in CHOICES]:
            raise Diagnosis(message)
    case = next(i for i in range(len(best)) if got[i] != best[i])
    kinds, n = CHOICES[case]
    raise Diagnosis(f"{n} of {kinds} can cover {best[case]} kinds; yours cover {got[case]}.")


# --- 20.4 -----------------------------------------------------------------------------------------
def reason(evolved, original, pool, max_length, *, skip="", words=False):
    """Why it is thrown out; the options are mistakes."""
    (text, answer), length = evolved, len(evolved[0]) + len(evolved[1] or "") * (not words)
    reasons = {
        "cannot be done": answer is None,
        "same text": text == original[0],
        "same answer": answer == original[1],
        "in the pool": text in pool,
        "too long": length > max_length,
    }
    return next((name for name, holds in reasons.items() if holds and name != skip), "keep")


SEED = ("Name them.", "tea, buns")
EVOLVED = [
    (("Name them. As JSON.", '["tea", "buns"]'), SEED, {SEED[0]}, 60),
    (("Name them. Then drop salt.", None), SEED, {SEED[0]}, 60),
    (("Name them all, please.", "tea, buns"), SEED, {SEED[0]}, 60),
    (("Name the first.", "tea"), SEED, {SEED[0], "Name the first."}, 60),
    (("Name them.", "buns, tea"), SEED, set(), 60),
    (("Turn them around.", "buns, tea"), SEED, {SEED[0]}, 25),
    (("Turn them around.", "buns, tea"), SEED, {SEED[0]}, 26),
    (("Name the first.", "tea"), ("Name the one.", "tea"), {"Name the first."}, 5),
]
EVOLVED_WRONG = [
    (
        lambda *case: reason(*case, skip="same answer"),
        "an instruction with its original's answer is kept: a model that ignores what is new in it "
        "is right, and learns to ignore it.",
    ),
    (
        lambda *case: reason(*case, skip="cannot be done"),
        "an instruction that nobody can answer is kept: look for an answer that is None.",
    ),
    (
        lambda *case: reason(*case, skip="in the pool"),
        "copies are kept: a pool of them teaches one thing many times.",
    ),
    (
        lambda *case: reason(*case, skip="same text"),
        "the original itself may be missing from the pool; compare with its text as well.",
    ),
    (
        lambda *case: reason(*case, words=True),
        "the answer takes room, too: add its characters to the text's.",
    ),
    (
        lambda *case: reason(*case) == "keep",
        'return the reason or "keep"; True and False say too little.',
    ),
]

GRADERS = {
    "20.1": Grader(
        function="mark",
        level="everyone",
        grade=held(marked, TALKS, TALKS_WRONG),
        wrong=TALKS_WRONG,
        target="minillm.tune.chat.example",
        hints=(
            "Go through the tokens once, and remember whose message you are in.",
            "A token counts if the message is the assistant's, and the token is not its role.",
            "<|end|> counts where it ends the assistant's message; after it nobody speaks.",
        ),
    ),
    "20.2": Grader(
        function="pack",
        level="stretch",
        grade=grade_pack,
        wrong=ROWS_WRONG,
        target="minillm.tune.sft.Conversations",
        hints=(
            "sorted(range(len(lengths)), key=lambda n: -lengths[n]) gives the longest first.",
            "Keep the room that is left in each row, and take the first row with enough.",
            "No row has enough: begin a new one.",
        ),
        model_answer=(
            "The second half is an answer, or the rest of one, without its question. From such "
            "rows a model learns to answer what nobody asked it, that is, to guess."
        ),
    ),
    "20.3": Grader(
        function="choose",
        level="stretch",
        grade=grade_choose,
        wrong=CHOICES_WRONG,
        hints=(
            "Write a function that says how many kinds a choice covers.",
            "covered: the operation is among the chosen operations, the form among chosen forms.",
            "itertools.combinations(kinds, n) gives all choices; take the max by that function.",
        ),
    ),
    "20.4": Grader(
        function="why_not",
        level="everyone",
        grade=held(reason, EVOLVED, EVOLVED_WRONG),
        wrong=EVOLVED_WRONG,
        target="minillm.tune.evolve.keep",
        hints=(
            "Take text and answer apart: text, answer = evolved.",
            'Check the reasons in their order, and return the first that holds, or "keep".',
            "The original is a pair, too: original[0] is its text, original[1] its answer.",
        ),
    ),
}
