"""What `@task` runs for chapter 01.

Chapter: 01
"""

from itertools import product

from minillm.lab.grade import Diagnosis, Grader
from minillm.text import bpe, lattice, tokenizer

TEXT = "Mei sells plums; 小梅卖李子。 Grüße aus dem Dorf 🏡!"
PIECES = {
    b"a": -2.0, b"b": -2.5, b"c": -3.0, b"ab": -3.0, b"abc": -6.5, b"bc": -3.2, b"cab": -4.0,
}  # fmt: skip


def short_rows(ids):
    """Every row of at most six of these ids, the shortest first."""
    return [list(row) for n in range(7) for row in product(ids, repeat=n)]


def grade_merge_pair(answer):
    """Equal to the library's on all short rows of two ids, after rows that show one mistake."""
    ids = [1, 2, 3, 3, 1, 2]
    got = answer(ids, (1, 2), 9)
    if ids != [1, 2, 3, 3, 1, 2]:
        raise Diagnosis("you change the list that was given; build a new one.")
    if got is None:
        raise Diagnosis("your function returns nothing; is there a `return`?")
    got = list(got)
    if got == [9, 3, 3, 1, 2]:
        raise Diagnosis("you merge the first occurrence only; go on behind it.")
    if got == [9, 3, 3]:
        raise Diagnosis("your result loses the end of the row: the last pair is a pair too.")
    if list(answer([1, 2, 3], (1, 2), 9)) == [9]:
        raise Diagnosis("your result loses the last id when it is in no pair: the 3 of [1, 2, 3].")
    if list(answer([7, 7, 7], (7, 7), 9)) == [9, 9]:
        raise Diagnosis("in [7, 7, 7] you use the middle 7 twice; go on BEHIND a merged pair.")
    if list(answer([7, 7, 7], (7, 7), 9)) == [7, 9]:
        raise Diagnosis("you go from right to left: [7, 7, 7] must become [9, 7].")
    if list(answer([2, 1], (1, 2), 9)) == [9]:
        raise Diagnosis("(2, 1) is not (1, 2): order matters.")
    if list(answer([1, 2], (1, 2), 9)) == [1, 2]:
        raise Diagnosis("[1, 2] is left as it is: a list never equals a tuple; is that it?")
    for row in short_rows([1, 2]):
        for pair in ((1, 2), (1, 1)):
            right, got = bpe.merge_pair(row, pair, 9), list(answer(list(row), pair, 9))
            if got != right:
                raise Diagnosis(f"{row} with {pair} -> 9 must give {right}; yours gives {got}.")


def grade_merge_word(answer):
    """Equal to the library's on all short words of a, b and c: order, repetition and depth."""
    new_ids = {(98, 99): 256, (97, 98): 257, (257, 257): 258, (97, 256): 259}
    if answer(b"abc", new_ids) == [257, 99]:
        raise Diagnosis(
            "you merge from left to right; of the pairs in b'abc', (b, c) was learned first."
        )
    got = answer(b"abab", new_ids)
    if got == [257, 257]:
        raise Diagnosis("you stop too early: after (a, b) twice, the pair (257, 257) is known.")
    if got == [257, 97, 98]:
        raise Diagnosis("you merge one place and stop: (a, b) stands twice in b'abab'.")
    got = answer(b"xyz", new_ids)
    if got is None:
        raise Diagnosis("a word in which no pair is known must come back as its bytes.")
    if isinstance(got, bytes):
        raise Diagnosis("return a list of ids: list(word) to begin with.")
    if answer(b"", new_ids) != []:
        raise Diagnosis("an empty word is an empty list of ids.")
    if answer(b"abc", dict(reversed(new_ids.items()))) == [257, 99]:
        raise Diagnosis(
            "you go by the order of the dictionary; the first to be learned has the smallest id."
        )
    for word in map(bytes, short_rows(b"abc")):
        right, got = tokenizer.merge_word(word, new_ids), answer(word, new_ids)
        if list(got) != right:
            raise Diagnosis(f"{word} must become {right}; yours gives {list(got)}.")


def grade_stream_text(answer):
    """Every way to cut the text into pieces gives whole characters, early."""
    data = TEXT.encode()

    def stream(size):
        return answer(data[i : i + size] for i in range(0, len(data), size))

    first = stream(1)
    if first is None or isinstance(first, str):
        raise Diagnosis(
            f"your function must yield, one text after the other; it returns a "
            f"{type(first).__name__}."
        )
    got = list(first)
    if any("�" in text for text in got):
        raise Diagnosis(
            "you show � for half a character; hold its bytes back until the rest comes."
        )
    if "" in got:
        raise Diagnosis("you yield an empty text; yield nothing where nothing is complete.")
    if "".join(got) != TEXT:
        raise Diagnosis(f"joined, your texts are {''.join(got)!r}; they must be {TEXT!r}.")
    for size in range(2, 8):
        if "".join(stream(size)) != TEXT:
            raise Diagnosis(
                f"right for pieces of 1 byte, wrong for pieces of {size}, in which more than one "
                "character may end."
            )
    seen = []

    def watched():
        yield b"I live in "
        seen.append("".join(shown))
        yield b"the " + "村".encode()[:2]
        seen.append("".join(shown))
        yield "村".encode()[2:] + b" " + "🏡".encode()[:3]
        seen.append("".join(shown))
        yield "🏡".encode()[3:]

    shown = []
    for text in answer(watched()):
        shown.append(text)
    if seen[0] != "I live in ":
        raise Diagnosis("you wait until the stream ends; a reader wants each text as it comes.")
    if seen[1] != "I live in the ":
        raise Diagnosis(
            "a piece may be whole text and then half a character: "
            "b'the \\xe6\\x9d' completes 'the '."
        )
    if seen[2] != "I live in the 村 ":
        raise Diagnosis("up to three bytes may have to wait: 🏡 has four, and you keep too few.")


def grade_tokens_of_a_stranger(answer):
    """The number is graded; the sentence must be there."""
    got = answer()
    if not isinstance(got, tuple) or len(got) != 2:
        raise Diagnosis(
            f'return two things, the number and your sentence, as in `return 7, "because ..."`; '
            f"you return {got!r:.40}."
        )
    number, sentence = got
    if isinstance(number, str):
        raise Diagnosis(f"return the number as a number, not as the text {number!r}.")
    if number == 5:
        raise Diagnosis("five would be one token a character; who taught the vocabulary 村?")
    if number < 15:
        raise Diagnosis("fewer than 15 needs a merge of Chinese bytes; English text has none.")
    if number == 120:
        raise Diagnosis("a larger vocabulary never costs more tokens here; train one and count.")
    if number != 15:
        raise Diagnosis("train one: len(train(english, 8192, ...).encode('我住在村里')).")
    if not isinstance(sentence, str):
        raise Diagnosis(
            f"the number is right; your sentence must be text, and is {sentence!r:.40}."
        )
    if len(sentence) < 8:
        raise Diagnosis("the number is right; now say in a sentence why.")


class Counted(dict):
    """Pieces that count how often they are looked up, and stop who asks too often.

    A clock would do the same, but not the same on every machine.
    """

    def __init__(self, n_left, diagnosis):
        super().__init__(PIECES)
        self.n_left, self.diagnosis = n_left, diagnosis

    def count(self):
        self.n_left -= 1
        if self.n_left == 0:
            raise Diagnosis(self.diagnosis)

    def __contains__(self, token):
        self.count()
        return super().__contains__(token)

    def get(self, token, default=None):
        self.count()
        return super().get(token, default)


def grade_best_segmentation(answer):
    """As likely as the library's cut on all short words of a, b and c, with few questions."""

    def score(tokens):
        return sum(PIECES[token] for token in tokens)

    got = answer(b"abcab", PIECES, 3)
    if not isinstance(got, list):
        raise Diagnosis(f"return the list of pieces; yours is a {type(got).__name__}.")
    if got == [b"cab", b"ab"]:
        raise Diagnosis("your pieces come last first; you walked back, so turn them round.")
    for word in map(bytes, short_rows(b"abc")):
        right, got = lattice.best_segmentation(word, PIECES, 3), answer(word, PIECES, 3)
        if b"".join(got) != word:
            raise Diagnosis(f"your pieces of {word} spell {b''.join(got)}.")
        if unknown := [token for token in got if token not in PIECES]:
            raise Diagnosis(f"{unknown[0]} is none of the pieces: log_prob has no entry for it.")
        if got == [b"abc"]:
            raise Diagnosis("the longest piece is not the likeliest: abc -6.5, a + bc -5.2.")
        if got == [b"ab", b"c"]:
            raise Diagnosis("you take the best next piece; the best whole may begin with a worse.")
        if score(got) < score(right) - 1e-9:
            raise Diagnosis(
                f"{word}: {right} scores {score(right):.1f}, yours {got} only {score(got):.1f}."
            )
    if answer(b"abc", {**PIECES, b"abc": -0.1}, 2) == [b"abc"]:
        raise Diagnosis(
            "you ignore `longest`: told that it is 2, you still use a piece of 3 bytes."
        )
    all_of_them = (
        "for 21 bytes you look up 630 pieces: do you try all segmentations? Keep the best way to "
        "each position instead."
    )
    answer(b"abc" * 7, Counted(30 * 21, all_of_them), 3)
    too_far = (
        "for 2,000 bytes you look up 60,000 pieces: a piece has at most `longest` bytes, 3 here, "
        "so look back so far from each position and no further."
    )
    try:
        answer(b"abcab" * 400, Counted(30 * 2000, too_far), 3)
    except RecursionError:
        raise Diagnosis(
            "for 2,000 bytes your function calls itself 2,000 deep, and Python stops at about "
            "1,000; go through the positions in a loop, from left to right."
        ) from None


GRADERS = {
    "1.1": Grader(
        function="merge_pair",
        level="everyone",
        grade=grade_merge_pair,
        target="minillm.text.bpe.merge_pair",
        hints=(
            "Walk with an index i, because a merged pair takes two steps and any other id one.",
            "If ids[i] and ids[i + 1] are the pair: append new_id, i += 2. Else: append ids[i].",
            "Mind the end: ids[i + 1] exists only while i + 1 < len(ids).",
        ),
    ),
    "1.2": Grader(
        function="merge_word",
        level="everyone",
        grade=grade_merge_word,
        target="minillm.text.tokenizer.merge_word",
        hints=(
            "Look at all pairs of neighbours; which of them is in new_ids with the smallest id?",
            "Loop: find that pair, replace it everywhere (task 1.1), stop when there is none.",
            "known = [new_ids[p] for p in zip(ids, ids[1:]) if p in new_ids]; merge min(known).",
        ),
    ),
    "1.3": Grader(
        function="tokens_of_a_stranger",
        level="everyone",
        grade=grade_tokens_of_a_stranger,
        hints=(
            "What must a text contain for BPE to learn the merge of two bytes?",
            "train(english, 8192) learns from English alone; encode the five characters with it.",
            "No English text contains the bytes of 村 side by side. So how many merges apply?",
        ),
        model_answer=(
            "A merge is learned only where its two bytes stand side by side in the text. No "
            "English text puts the bytes of 村 side by side, so none of its merges ever applies, "
            "whether there are seven hundred or seven million of them: 15 bytes, 15 tokens."
        ),
    ),
    "1.4": Grader(
        function="stream_text",
        level="stretch",
        grade=grade_stream_text,
        hints=(
            "Keep a variable of bytes that wait. Add each piece to it, then ask what is whole.",
            "At most three bytes can be waiting: try to decode all, then all but 1, 2, 3.",
            "codecs.getincrementaldecoder('utf-8')() does it; can you do without?",
        ),
    ),
    "1.5": Grader(
        function="best_segmentation",
        level="stretch",
        grade=grade_best_segmentation,
        target="minillm.text.lattice.best_segmentation",
        hints=(
            "best[j] = the best score of any cut of the first j bytes. best[0] = 0.",
            "best[j] = max over i of best[i] + log_prob[word[i:j]]; remember which i it was.",
            "At the end walk back: j = len(word), piece word[i:j], then j = i; reverse the list.",
        ),
    ),
}
