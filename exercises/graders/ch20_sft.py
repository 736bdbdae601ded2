"""What `@task` runs for chapter 20.

Chapter: 20
"""

from functools import partial
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
    (partial(marked, **options), message)
    for options, message in (
        ({"ends": ()}, "the end of an answer is not marked: such a model never stops."),
        ({"ends": ROLES}, "the user's messages end, too, but it is the program that ends them."),
        ({"ends": ROLES, "own": ROLES}, "you mark all that is said: it would learn to ask, too."),
        ({"prefix": True}, "<|assistant|> is written by the program: it need not be learned."),
        ({"last": True}, "a conversation may have several answers: mark all of them."),
        ({"shift": 1}, "you are one token early: mark a token, not the one before it."),
    )
]


# --- 20.2 -----------------------------------------------------------------------------------------
def packed(lengths, row_length, *, longest_first=True, look_back=True):
    """Rows of whole conversations; the options are mistakes."""
    order, rows, room = range(len(lengths)), [], []
    for number in sorted(order, key=lambda n: -lengths[n] if longest_first else n):
        length = lengths[number]
        first = 0 if look_back else len(room) - 1
        fits = [i for i, left in enumerate(room) if left >= length and i >= first]
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
    n_used, sentences = [], []
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
        n_used.append(len([row for row in rows if row]))
        sentences.append(sentence)
    for mistake, message in ROWS_WRONG[:3]:
        if n_used == [len(mistake(*case)[0]) for case in ROWS]:
            raise Diagnosis(message)
    for (lengths, row_length), own in zip(ROWS, n_used, strict=True):
        if own > (best := len(packed(lengths, row_length))):
            raise Diagnosis(f"for {lengths} and {row_length}, {best} rows are enough, not {own}.")
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
def differing(designs, pair):
    """The properties in which two training sets differ."""
    one, other = (designs[name] for name in pair)
    return {key for key in one if one[key] != other[key]}


def in_order(pair):
    """The two names, sorted; None is left for `held` to refuse."""
    return pair and tuple(sorted(pair))


def compared(designs, cause, can_tell=lambda differ, cause: differ == {cause}):
    """The first two, sorted, whose differing properties can tell; () if there are none."""
    pairs = (pair for pair in combinations(designs, 2) if can_tell(differing(designs, pair), cause))
    return tuple(sorted(next(pairs, ())))


def nearest(designs, cause):
    """A mistake: two that differ in the cause, and in as little else as possible."""
    pairs = [pair for pair in combinations(designs, 2) if cause in differing(designs, pair)]
    return tuple(sorted(min(pairs, key=lambda pair: len(differing(designs, pair)), default=())))


def training_set(*values):
    """What is to be known of a training set and of the training on it."""
    return dict(zip(("evolved", "several steps", "examples", "rate"), values, strict=True))


EASY, HARDER = training_set(False, False, 3000, 0.02), training_set(False, True, 3000, 0.02)
EVOLVED = HARDER | {"evolved": True}
THREE = {"seeds": EASY, "evolved": EVOLVED, "drawn": HARDER}
UNEQUAL = {"A": EVOLVED, "B": HARDER | {"examples": 750}, "C": EASY | {"examples": 750}}
DESIGNS = [
    ({"seeds": EASY, "evolved": EVOLVED}, "evolved"),
    (THREE, "evolved"),
    (THREE, "several steps"),
    (UNEQUAL, "evolved"),
    (UNEQUAL, "several steps"),
    (UNEQUAL | {"D": EVOLVED | {"examples": 750}}, "evolved"),
    ({"A": EVOLVED, "B": EASY | {"rate": 0.002}, "C": EASY, "D": EVOLVED}, "rate"),
]
AMOUNTS = {"examples", "rate"}
DESIGNS_WRONG = [
    (
        lambda *case: compared(*case, lambda differ, cause: cause in differ),
        "two of yours differ in more than the cause: if one does better, you cannot say why.",
    ),
    (
        lambda *case: compared(*case, lambda differ, _: len(differ) == 1),
        "that two differ in one thing is not enough: it must be the cause that you ask about.",
    ),
    (
        lambda *case: compared(*case, lambda d, cause: cause in d and not d - AMOUNTS - {cause}),
        "how many examples there are, and the learning rate, must be equal, too.",
    ),
    (nearest, "where no two differ in the cause alone, none can tell, however near they come: ()."),
    (lambda *_: (), "some of these can tell: look for two that differ in the cause alone."),
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
        function="compare",
        level="everyone",
        grade=held(compared, DESIGNS, DESIGNS_WRONG, read=in_order),
        wrong=DESIGNS_WRONG,
        hints=(
            "If one of two does better, what may be the reason? Everything in which they differ.",
            "So look for two that differ in the cause, and in nothing else.",
            "itertools.combinations(designs, 2) gives every two names; compare their properties.",
        ),
    ),
}
