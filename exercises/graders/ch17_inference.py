"""What `@task` runs for chapter 17.

Chapter: 17
"""

import torch

from minillm.lab.diagnose import check_sentence, held, hold, split_sentence
from minillm.lab.grade import Grader


# --- 17.1 -----------------------------------------------------------------------------------------
def steps(lengths, n_slots, *, order=list, slot=None, static=None):
    """Steps under both; the options are mistakes."""
    lengths = order(lengths)
    batches = [lengths[n : n + n_slots] for n in range(0, len(lengths), n_slots)]
    ends = [0] * n_slots
    for n, length in enumerate(lengths):
        ends[slot(n, n_slots) if slot else ends.index(min(ends))] += length
    return static(batches) if static else sum(map(max, batches)), max(ends)


STEPS = [
    ([3, 1, 1, 2], 2),
    ([5], 3),
    ([1, 9, 1, 1, 1, 1, 1, 1], 2),
    ([4, 2, 2, 7, 1, 1, 6, 3, 2, 8], 3),
    ([2, 2, 2, 2, 2], 4),
    ([1, 2, 3, 4, 10], 1),
]
STEPS_WRONG = [
    (
        lambda lengths, n: (steps(lengths, n)[0], -(-sum(lengths) // n)),
        "sum ÷ slots holds only while no slot is empty; at the end the last answers run alone.",
    ),
    (
        lambda lengths, n: steps(lengths, n, slot=lambda place, n: place % n),
        "a request does not wait for slot number n % n_slots, but takes the first that is free.",
    ),
    (
        lambda lengths, n: steps(lengths, n, static=lambda b: len(b) * max(map(max, b))),
        "a static batch lasts as long as its own longest answer, not as the longest of all.",
    ),
    (
        lambda lengths, n: steps(lengths, n, order=lambda each: sorted(each, reverse=True)),
        "requests start in the order of the list; nobody knows how long an answer will be.",
    ),
    (
        lambda lengths, n: (steps(lengths, n)[0], steps([x + 1 for x in lengths], n)[1] - 1),
        "a freed slot is used in the very next step; you leave it empty for one.",
    ),
    (lambda *case: steps(*case)[::-1], "you return the two in the other order: static first."),
]


# --- 17.2 -----------------------------------------------------------------------------------------
def admission(tokens, stored, free, size, *, last=1, gaps=False, share=True, full=False, both=0):
    """Tokens read and blocks taken; the options are mistakes."""
    ends = [n for n in range(size, len(tokens) - last + 1, size)] if share else []
    shared = []
    for end in ends:
        if tokens[:end] in stored:
            shared.append(stored[tokens[:end]])
        elif not gaps:
            break
    n_blocks = len(tokens) // size if full else -(-len(tokens) // size)
    of_shared = {0: len(free & set(shared)), 1: 0, 2: len(shared)}[both]
    n_taken = n_blocks - len(shared) + of_shared
    return (len(tokens) - size * len(shared), n_taken) if n_taken <= len(free) else ()


AB = {(7, 3): 5, (7, 3, 9, 4): 6}
TAIL = {(7, 3, 9, 4): 6, (1, 2): 3}  # its first block was needed for something else
ADMIT = [
    ((7, 3, 9), {(7, 3): 5}, {0}, 2),
    ((7, 3, 9), {(7, 3): 5}, {0, 5}, 2),
    ((7, 3, 9), {(7, 3): 5}, {5}, 2),
    ((7, 3, 9, 4), AB, {1, 2}, 2),
    ((7, 3, 9, 4, 8), AB, {0, 1, 2}, 2),
    ((7, 3, 9, 4, 8), AB, {5, 6}, 2),
    ((7, 3, 9, 4, 8), TAIL, {0, 1, 6}, 2),
    ((8, 8, 8, 8, 8), AB, {0, 1}, 2),
    ((1, 2, 3), {}, {0, 1}, 4),
    ((1,), {}, set(), 4),
]
ADMIT_WRONG = [
    (
        lambda *case: admission(*case, last=0),
        "a prompt that is stored whole, and ends with a block, leaves you no token to read; then "
        "nothing says what comes next (nano-vllm, issue 144).",
    ),
    (
        lambda *case: admission(*case, both=1),
        "a shared block that nobody holds is one of the free ones; you count it twice, as shared "
        "and as free (nano-vllm, issues 211 and 233).",
    ),
    (
        lambda *case: admission(*case, both=2),
        "a shared block that another text holds is not free, so holding it takes nothing.",
    ),
    (
        lambda *case: admission(*case, gaps=True),
        "you share a block although one before it is missing: keys and values would have a hole.",
    ),
    (lambda *case: admission(*case, full=True), "the last block counts too if it is not full."),
    (lambda *case: admission(*case, share=False), "you read what is stored already."),
]


# --- 17.3 -----------------------------------------------------------------------------------------
def verdict(p, q, guess, *, ratio=None, lacking=None, sums=True):
    """Acceptance and replacement; the options are mistakes."""
    accepted = ratio(p[guess], q[guess]) if ratio else min(1.0, float(p[guess] / q[guess]))
    residual = lacking(p, q) if lacking else (p - q).clamp(min=0)
    return float(accepted), residual / residual.sum() if sums else residual


def _case(p, q, guess):
    return torch.tensor(p), torch.tensor(q), guess


VERDICTS = [
    _case([0.5, 0.5], [0.8, 0.2], 0),
    _case([0.5, 0.5], [0.8, 0.2], 1),
    _case([0.6, 0.3, 0.1], [0.2, 0.3, 0.5], 2),
    _case([0.1, 0.4, 0.2, 0.3], [0.4, 0.1, 0.25, 0.25], 0),
    _case([0.0, 1.0], [0.5, 0.5], 0),
]
VERDICTS_WRONG = [
    (
        lambda *case: verdict(*case, lacking=lambda p, q: p),
        "you replace with a token from p. Tokens that q gives too rarely then stay too rare: their "
        "share is missing from the accepted ones, and p does not make up for it.",
    ),
    (
        lambda *case: verdict(*case, lacking=lambda p, q: (p - q).abs()),
        "|p - q| also replaces with tokens of which q gives too many already.",
    ),
    (
        lambda *case: verdict(*case, lacking=lambda p, q: (q - p).clamp(min=0)),
        "q - p is what there is too much of; the replacement must be what there is too little of.",
    ),
    (
        lambda *case: verdict(*case, sums=False),
        "the replacement must be a distribution: its probabilities sum to 1.",
    ),
    (
        lambda *case: verdict(*case, ratio=lambda p, q: min(1.0, float(q / p)) if p else 1.0),
        "q / p is the wrong way round: a guess that q gives too often must be the one that falls.",
    ),
    (
        lambda *case: verdict(*case, ratio=lambda p, q: p),
        "accepted with probability p(guess), right guesses fall too often; only the surplus of q "
        "over p has to.",
    ),
]


# --- 17.4 -----------------------------------------------------------------------------------------
def readers(n, read, step, batch_size, n_tokens, gap, *, limit=True, rows=True, slower=min):
    """How many machines read only; the options are mistakes."""
    if limit and step + read <= gap:
        return 0.0
    a_second = (batch_size if rows else 1) / (step * n_tokens)
    return float(max(range(1, n), key=lambda k: slower(k / read, (n - k) * a_second)))


FLEETS = [
    (4, 1.0, 0.1, 10, 100, 2.0),
    (4, 1.0, 0.1, 10, 100, 0.5),
    (8, 0.5, 0.02, 32, 300, 0.1),
    (8, 0.1, 0.02, 16, 500, 0.1),
    (6, 0.08, 0.02, 16, 200, 0.1),
    (10, 2.0, 0.05, 20, 50, 0.2),
    (12, 0.25, 0.025, 16, 400, 0.27),
]
FLEETS_WRONG = [
    (
        lambda *case: readers(*case, limit=False),
        "all doing both keeps every machine busy, and is best where the gap allows it: k = 0.",
    ),
    (
        lambda *case: 0.0,
        "all doing both serves most, but not within gap_seconds once a prompt lies between steps.",
    ),
    (
        lambda *case: readers(*case, rows=False),
        "a decode step serves batch_size rows, not one.",
    ),
    (
        lambda *case: readers(*case, slower=lambda a, b: a + b),
        "a request needs both groups: the slower of them counts, not their sum.",
    ),
    (
        lambda *case: case[0] / 2.0 if readers(*case) else 0.0,
        "half of the machines is right only if both groups then serve equally many.",
    ),
]
WHY = "why reading apart can be best, though the work is the same"


def grade_n_for_prompts(answer):
    """The number in all cases; the sentence must be there."""
    sentences = []

    def number(*case):
        (value,), sentence = split_sentence(answer(*case))
        sentences.append(sentence)
        return value

    hold(number, readers, FLEETS, FLEETS_WRONG)
    check_sentence(sentences[0], WHY)


GRADERS = {
    "17.1": Grader(
        function="count_steps",
        level="everyone",
        grade=held(steps, STEPS, STEPS_WRONG, names=("static", "continuous")),
        wrong=STEPS_WRONG,
        hints=(
            "Static: cut the list into batches. How long does each last?",
            "Continuous: keep a list of the steps at which each slot is free, all 0 at first.",
            "The next request goes to the slot with the least, and adds its length there. "
            "At the end the largest number is the answer.",
        ),
    ),
    "17.2": Grader(
        function="admit",
        level="everyone",
        grade=held(admission, ADMIT, ADMIT_WRONG),
        wrong=ADMIT_WRONG,
        target="minillm.serve.blocks.BlockPool",
        hints=(
            "Count the stored blocks from the beginning, and stop at the first that is missing, or "
            "that would contain the last token.",
            "All blocks of the prompt: len(tokens) / block_size, rounded up. Those not shared are "
            "taken from the free ones; and so are the shared ones that are free.",
            "n_taken = n_blocks - n_shared + number of shared blocks in `free`.",
        ),
    ),
    "17.3": Grader(
        function="judge",
        level="stretch",
        grade=held(verdict, VERDICTS, VERDICTS_WRONG, names=("accepted", "replacement")),
        wrong=VERDICTS_WRONG,
        target="minillm.serve.speculate.accept",
        hints=(
            "Token x is guessed in a share q(x) of the cases. In which share may it come out?",
            "So of these guesses p(x) ÷ q(x) stay, or all. What is still lacking of x then?",
            "min(1, p/q); and max(0, p - q) of each token, divided by their sum.",
        ),
    ),
    "17.4": Grader(
        function="n_for_prompts",
        level="stretch",
        grade=grade_n_for_prompts,
        wrong=[
            *(
                ((lambda *c, f=wrong: (f(*c), "because it is so")), text)
                for wrong, text in FLEETS_WRONG
            ),
            (lambda *case: (readers(*case), ""), f"now say in a sentence {WHY}."),
        ],
        hints=(
            "Together: is the longest gap, a step and a prompt, within the promise? Then k = 0.",
            "A machine that reads serves 1 / read_seconds requests a second; one that decodes "
            "batch_size / (step_seconds · n_tokens).",
            "max over k of min(k / read_seconds, (n_machines - k) · …).",
        ),
        model_answer=(
            "Together each machine is always busy, so no split serves more. But a prompt between "
            "two steps makes a gap, and beyond gap_seconds such a service keeps its promise at no "
            "rate at all. Apart nobody waits for another's prompt; the price is that one of the "
            "two groups is idle part of the time."
        ),
    ),
}
