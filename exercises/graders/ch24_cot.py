"""What `@task` runs for chapter 24.

Chapter: 24
"""

import math
from functools import partial
from random import Random

from minillm.lab.diagnose import check_sentence, held, split_sentence
from minillm.lab.grade import Diagnosis, Grader


# --- 24.1 -----------------------------------------------------------------------------------------
def parts_of(start, swaps, *, chained=True):
    """The steps of a right chain, and its answer."""
    things, parts = list(start), []
    for a, b in swaps:
        things = list(things if chained else start)
        things[a - 1], things[b - 1] = things[b - 1], things[a - 1]
        parts.append([f"{a}-{b}", *things])
    return [*parts, ["=", *things, "."]]


def slip(start, swaps, chain, *, first=1, rows=False, steps=False, luck=False, chained=True):
    """The first wrong part of a chain; the options are mistakes."""
    words, parts = chain.split(), parts_of(start, swaps, chained=chained)
    if luck and words[-7:] == parts[-1]:
        return 0
    for number, part in enumerate(parts[:-1] if steps else parts):
        end = None if number == len(swaps) else 6 * number + 6
        written = words[6 * number : end]
        if (written[1:] != part[1:]) if rows else (written != part):
            return number + first
    return 0


def chain(*parts):
    """A chain of its parts, words without blanks where a row is."""
    return " ".join(word if "-" in word else " ".join(word) for word in " ".join(parts).split())


TWO, FOUR = ("CABED", [(1, 3), (2, 4)]), ("EDCBA", [(2, 3), (1, 3), (2, 4), (1, 2)])
CHAINS = [
    (*TWO, chain("1-3 BACED", "2-4 BECAD", "= BECAD .")),
    (*TWO, chain("1-3 BACED", "2-4 BACED", "= BACED .")),
    (*TWO, chain("1-3 BACED", "2-4 BECAD", "= BACED .")),
    (*TWO, chain("1-3 BACDE", "2-4 BECAD", "= BECAD .")),
    (*TWO, chain("1-3 BACED", "2-5 BECAD", "= BECAD .")),
    (*TWO, chain("1-3 BACED", "= BACED .")),
    (*TWO, chain("1-3 BACED", "2-4 BECAD")),
    (*FOUR, chain("2-3 ECDBA", "1-3 DCEBA", "2-4 DBECA", "1-2 BDECA", "= BDECA .")),
    (*FOUR, chain("2-3 ECDBA", "1-3 DCEBA", "2-4 DBEAC", "1-2 BDEAC", "= BDEAC .")),
]
CHAINS_WRONG = [
    (partial(slip, **options), message)
    for options, message in (
        ({"first": 0}, "steps are counted from 1: the first part has the number 1."),
        ({"rows": True}, "a step with a right row and another swap than the one due is wrong."),
        ({"steps": True}, 'the answer is a part, too: compare what stands from "=" on.'),
        ({"luck": True}, "a right answer does not make the steps before it right."),
        ({"chained": False}, "each swap is done to what the one before it has left."),
    )
]


# --- 24.2 -----------------------------------------------------------------------------------------
def best_prompt(prompts, documents, least, *, key=lambda share, n: (share, n), trust=True):
    """The prompt with the largest key; the options are mistakes."""
    options = {}
    for prompt in prompts:
        steps = [shows for begins, shows in documents if begins == prompt]
        if len(steps) >= (least if trust else 1):
            options[prompt] = key(sum(steps) / len(steps), len(steps))
    return max(options, key=options.get, default=None) or "nothing"


def texts(**counts):
    """Documents by how they begin: how many with steps, and how many without."""
    return [
        (name, shows)
        for name, n in counts.items()
        for shows, k in ((True, n[0]), (False, n[1]))
        for _ in range(k)
    ]


FEW = texts(think=(20, 0), quick=(0, 90), sums=(30, 30), plainly=(1, 0), thus=(4, 0))
NAMES = ["quick", "plainly", "sums", "thus", "think", "please"]
DOCUMENTS = [
    (["think", "answer"], texts(think=(1, 0), answer=(0, 1)), 1),
    (NAMES, FEW, 10),
    (NAMES[::-1], FEW, 2),
    (["quick", "sums"], FEW, 10),
    (["please", "plainly"], FEW, 2),
    (["a", "b"], texts(a=(9, 1), b=(90, 10)), 5),
    (["b", "a"], texts(a=(50, 50), b=(8, 2)), 5),
]
DOCUMENTS_WRONG = [
    (
        partial(best_prompt, key=lambda share, n: share * n),
        "you count documents with steps. A prompt that often goes without steps does not ask for "
        "them: take the share.",
    ),
    (
        partial(best_prompt, trust=False),
        "a prompt with too few documents cannot be trusted, even if all of them show steps.",
    ),
    (
        partial(best_prompt, key=lambda share, n: n),
        "the most frequent beginning need not be one that steps follow.",
    ),
    (
        partial(best_prompt, key=lambda share, n: share),
        "of two prompts with the same share take the one with more documents.",
    ),
]


# --- 24.3 -----------------------------------------------------------------------------------------
SCATTERED = 1 - 0.6**5 - 4 * 0.4 * 0.6**4  # two right ones or more, or one that comes first
AGREEING = sum(math.comb(5, n) * 0.4**n * 0.6 ** (5 - n) for n in (3, 4, 5))
ONCE = 1 - 0.6**5
NO_TIES = SCATTERED - 0.4 * 0.6**4
WHY = "why votes help in one case and do harm in the other"
BECAUSE = "wrong answers that scatter cannot win"
VOTES_WRONG = [
    ((0.4, 0.4), "that is one sample's share; let five of them vote."),
    ((AGREEING, SCATTERED), "the two are exchanged: (a) is where wrong answers scatter."),
    ((ONCE, AGREEING), "in (a) you count that the right answer is there; it must also win."),
    ((NO_TIES, AGREEING), "if five answers are all different, the first wins; it may be right."),
    ((AGREEING, AGREEING), "in (a) no two wrong answers are the same, so each has one vote."),
]


def grade_five_votes(answer):
    """Both shares within 0.02, and a sentence."""
    got, sentence = split_sentence(answer(), n_numbers=2)

    def near(pair):
        return all(abs(own - each) <= 0.02 for own, each in zip(got, pair, strict=True))

    for pair, message in VOTES_WRONG:
        if near(pair):
            raise Diagnosis(message)
    if not near((SCATTERED, AGREEING)):
        raise Diagnosis(
            f"{got[0]:.2f} and {got[1]:.2f} are not both right: draw five samples, let them vote, "
            "and do it 20,000 times for each case."
        )
    check_sentence(sentence, WHY)


# --- 24.4 -----------------------------------------------------------------------------------------
def certain_after(answers, *, ties=True, half=False, none=False, always=False, late=False):
    """Samples until the winner is certain; the options are mistakes."""
    final = [each for each in answers if none or each is not None]
    for n in range(1, len(answers)):
        votes = [each for each in answers[:n] if none or each is not None]
        if not votes:
            continue
        first, left = max(votes, key=votes.count), len(answers) - n
        count = votes.count(first)
        before = [each for each in votes if votes.index(each) < votes.index(first)]
        rivals = {each: votes.count(each) + left for each in {*votes, "new"} if each != first}
        if half:
            safe = count > len(answers) / 2
        elif late:
            safe = first == max(final, key=final.count)
        elif always:
            safe = all(reach <= count for reach in rivals.values())
        else:
            safe = all(
                reach < count or (ties and reach == count and each not in before)
                for each, reach in rivals.items()
            )
        if safe:
            return n
    return len(answers)


DRAWS = [[Random(n).choice(["x", "x", "y", "z", None]) for _ in range(9)] for n in range(12)]
ANSWERS = [
    (each,)
    for each in (
        ["x", "x", "y", "x", "y"],
        ["x"],
        ["y", "x", "x", "y"],
        ["y", "x", "x", "x", "y", "y"],
        ["x", "x", None, None],
        [None, None, None],
        ["x", "y", "z", "x", "x", "w"],
        *DRAWS,
    )
]
ANSWERS_WRONG = [
    (
        partial(certain_after, half=True),
        "more than half of all votes is more than you need when the others are split or have no "
        "answer.",
    ),
    (
        partial(certain_after, ties=False),
        "if a rival can only draw level, and came later, the winner is certain already.",
    ),
    (
        partial(certain_after, always=True),
        "a rival that was given first wins by drawing level: look at who came first.",
    ),
    (partial(certain_after, none=True), "None is no answer: it has no vote, and cannot win."),
    (
        partial(certain_after, late=True),
        "you look at samples that have not come yet: stop when none of them can change it.",
    ),
    (lambda answers: len(answers), "some of these are decided before the last sample."),
]

GRADERS = {
    "24.1": Grader(
        function="first_slip",
        level="everyone",
        grade=held(slip, CHAINS, CHAINS_WRONG),
        wrong=CHAINS_WRONG,
        target="minillm.town.cups.right_steps",
        hints=(
            "Work out the right chain first: a list of parts, each a list of words.",
            "things[a - 1], things[b - 1] = things[b - 1], things[a - 1] does one swap.",
            "Every step has six words: words[6 * n : 6 * n + 6]. The answer is all the rest.",
        ),
    ),
    "24.2": Grader(
        function="choose",
        level="everyone",
        grade=held(best_prompt, DOCUMENTS, DOCUMENTS_WRONG, read=lambda got: got or "nothing"),
        wrong=DOCUMENTS_WRONG,
        hints=(
            "For each prompt, collect whether steps follow in the documents that begin with it.",
            "The share of True is sum(steps) / len(steps); first see that there are enough.",
            "Compare pairs (share, number of documents): Python compares the share first.",
        ),
    ),
    "24.3": Grader(
        function="five_votes",
        level="stretch",
        grade=grade_five_votes,
        wrong=[
            *((lambda pair=pair: (*pair, BECAUSE), message) for pair, message in VOTES_WRONG),
            (lambda: (SCATTERED, AGREEING, ""), f"now say in a sentence {WHY}."),
        ],
        target="minillm.reason.vote.expected_accuracy",
        hints=(
            "A sample: 'right' if rng.random() < 0.4, otherwise a wrong answer.",
            "In (a) give each wrong answer its own name, such as the number of the sample.",
            "max(answers, key=answers.count) gives the most frequent, of several the first.",
        ),
        model_answer=(
            "The right answer is one and the same, so right samples add up. Wrong samples that "
            "scatter have one vote each, and two right ones beat them. If all are wrong in the "
            "same way, they add up just as well, and there are more of them."
        ),
    ),
    "24.4": Grader(
        function="stop_after",
        level="stretch",
        grade=held(certain_after, ANSWERS, ANSWERS_WRONG),
        wrong=ANSWERS_WRONG,
        hints=(
            "After n samples find the winner so far, and how many samples are left.",
            "Each rival may get all that are left. So may an answer that nobody gave yet.",
            "A rival that came before the winner needs as many votes, a later one needs one more.",
        ),
    ),
}
