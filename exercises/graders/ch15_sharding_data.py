"""What `@task` runs for chapter 15.

Chapter: 15
"""

import inspect
import math

import torch

from minillm.lab.diagnose import check_sentence, hold, randn, shown, split_sentence
from minillm.lab.grade import Diagnosis, Grader


# --- 15.1 -----------------------------------------------------------------------------------------
def _drive(answer, vectors):
    """The learner's ranks in lockstep: every rank's chunks at the end, and what each one sent."""
    n_ranks = len(vectors)
    chunks = [list(vector.chunk(n_ranks)) for vector in vectors]
    before = [vector.clone() for vector in vectors]
    ranks = [answer(own, rank) for rank, own in enumerate(chunks)]
    if not all(inspect.isgenerator(each) for each in ranks):
        raise Diagnosis(
            "ring_sum is no generator yet: `arrived = yield chunk` sends a chunk and receives one."
        )
    results, sent, arriving = [None] * n_ranks, [[] for _ in vectors], [None] * n_ranks
    for _ in range(4 * n_ranks + 2):
        outgoing = [None] * n_ranks
        for rank, steps in enumerate(ranks):
            if results[rank] is None:
                try:
                    outgoing[rank] = steps.send(arriving[rank])
                    sent[rank].append(outgoing[rank])
                except StopIteration as end:
                    results[rank] = [] if end.value is None else end.value
        if all(each is None for each in outgoing):
            break
        _check_sent(outgoing, len(vectors[0]) // n_ranks)
        # a copy: what travels between processes is a copy, too
        arriving = [outgoing[rank - 1].clone() for rank in range(n_ranks)]
    if any(not torch.equal(*pair) for pair in zip(vectors, before, strict=True)):
        raise Diagnosis("your function changes the chunks that it is given; write sums elsewhere.")
    return results, sent


def _check_sent(outgoing, n_numbers):
    for chunk in outgoing:
        if chunk is None:
            raise Diagnosis("some ranks still send while others have ended; all take 2 (N - 1).")
        if not isinstance(chunk, torch.Tensor) or chunk.numel() != n_numbers:
            raise Diagnosis(
                f"each step sends one chunk, here a tensor of {n_numbers} numbers; yours sends "
                f"{shown(chunk)}."
            )


def grade_ring_sum(answer):
    """Rings of 1 to 5 ranks: sums, numbers of steps, and typical mistakes by what comes out."""
    for n_ranks in (3, 2, 5, 1):
        vectors = [randn(2 * n_ranks, seed=rank) for rank in range(n_ranks)]
        results, sent = _drive(answer, vectors)
        n_steps, expected = 2 * (n_ranks - 1), sum(vectors)
        if len(sent[0]) != n_steps:
            half = " (that is the first half only: who has the finished chunks now?)"
            raise Diagnosis(
                f"with {n_ranks} ranks there are 2 (N - 1) = {n_steps} steps; yours takes "
                f"{len(sent[0])}{half if len(sent[0]) == n_ranks - 1 and n_ranks > 1 else ''}."
            )
        for rank, result in enumerate(results):
            if not isinstance(result, list) or len(result) != n_ranks:
                raise Diagnosis(f"return the list of all {n_ranks} chunks of the sum.")
            _check_result(torch.cat(result), expected, vectors, rank)


def _check_result(got, expected, vectors, rank):
    n_ranks = len(vectors)
    if torch.allclose(got, expected, atol=1e-5):
        return
    if torch.allclose(got, expected / n_ranks, atol=1e-5):
        raise Diagnosis("this is the mean of all ranks' vectors; the sum is asked for.")
    right = [
        torch.allclose(*pair, atol=1e-5)
        for pair in zip(got.chunk(n_ranks), expected.chunk(n_ranks), strict=True)
    ]
    pieces = torch.stack(expected.chunk(n_ranks))
    swapped = [torch.isclose(pieces, piece, atol=1e-5).all(1).any() for piece in got.chunk(n_ranks)]
    if all(swapped):
        raise Diagnosis(
            "the chunks are right and stand in the wrong order: which number has a chunk that "
            "comes from the left?"
        )
    if sum(right) == 1:
        raise Diagnosis(
            f"rank {rank} has one finished chunk, and the others are not: in the second half a "
            "finished chunk is taken over, not added to, and what has just come is sent on."
        )
    raise Diagnosis(
        f"with {n_ranks} ranks, rank {rank} ends with {sum(right)} of {n_ranks} chunks right. "
        "Follow one chunk: it begins at one rank, and each rank on its way adds its own chunk of "
        "the same number, once."
    )


def _ring(chunks, rank, *, first=-1, add=True, stop=False, again=False, mean=False, turned=0):
    """The right ring, and some that are wrong in one thing."""
    n = len(chunks)
    sums = list(chunks)
    for step in range(n - 1):
        arrived = yield sums[(rank - step + first) % n]
        c = (rank - step + first - 1) % n
        sums[c] = arrived + chunks[c] if add else arrived
    if stop:
        return sums
    for step in range(n - 1):
        arrived = yield sums[(rank - step + first + 1) % n]
        c = (rank - step + first) % n
        sums[c] = arrived + chunks[c] if again else arrived
    sums = [each / n for each in sums] if mean else sums
    return sums[turned:] + sums[:turned]


def _whole(chunks, rank):
    total = torch.cat(chunks)
    arrived = total
    for _ in range(len(chunks) - 1):
        arrived = yield arrived
        total = total + arrived
    return list(total.chunk(len(chunks)))


RING_WRONG = [
    (lambda chunks, rank: chunks, "ring_sum is no generator yet"),
    (_whole, "each step sends one chunk"),
    (
        lambda chunks, rank: _ring(chunks, rank, stop=True),
        "with 3 ranks there are 2 (N - 1) = 4 steps; yours takes 2 (that is",
    ),
    (lambda chunks, rank: _ring(chunks, rank, again=True), "rank 0 has one finished chunk"),
    (lambda chunks, rank: _ring(chunks, rank, turned=1), "the chunks are right and stand"),
    (lambda chunks, rank: _ring(chunks, rank, mean=True), "this is the mean"),
]


# --- 15.2 -----------------------------------------------------------------------------------------
def fewest(n_parameters, card_bytes, stage, *, sizes=(12, 2, 2), never=math.inf, up=math.ceil):
    divided = n_parameters * sum(sizes[:stage])
    whole = n_parameters * sum(sizes[stage:])
    if not divided:
        return 1 if whole <= card_bytes else never
    if whole >= card_bytes:
        return never
    return max(1, up(divided / (card_bytes - whole)))


CARDS = [
    (10, 60, 3),
    (10, 60, 1),
    (10, 60, 0),
    (10, 200, 0),
    (10, 30, 2),
    (10, 20, 2),
    (175e9, 80e9, 3),
    (175e9, 80e9, 1),
    (7.5e9, 80e9, 1),
    (7.5e9, 80e9, 2),
]
CARDS_WRONG = [
    (
        lambda n, card, stage: math.ceil(16 * n / card),
        "you divide all 16 bytes, as only stage 3 does; in the others each card holds a part of "
        "them in full.",
    ),
    (
        lambda n, card, stage: fewest(n, card, stage, sizes=(2, 2, 12)),
        "you cut in another order; stage 1 cuts the optimizer's 12 bytes, the largest part.",
    ),
    (
        lambda n, card, stage: fewest(n, card, stage, sizes=(4, 2, 2)),
        "the optimizer's part is 12 bytes: a master copy and two moments of 4 bytes each.",
    ),
    (
        lambda n, card, stage: fewest(n, card, stage, up=math.floor),
        "you round down, and then it does not fit; half a card is none.",
    ),
    (
        lambda n, card, stage: fewest(n, card, stage, never=0),
        "return math.inf, not 0, where no number of cards is enough.",
    ),
]


# --- 15.3 -----------------------------------------------------------------------------------------
def momentum(gradient, memory):
    memory = gradient if memory is None else 0.5 * memory + gradient
    return 0.1 * memory / (1 + memory.abs()), memory


def _two_steps(answer, n_numbers, n_ranks):
    """Weights after two steps, and the lengths that the rule was called with."""
    lengths, weights, memories = [], randn(n_numbers, seed=9), [None] * n_ranks
    for step in range(2):
        calls = []

        def rule(gradient, memory, calls=calls):
            calls.append(len(gradient))
            if memory is not None and len(memory) != len(gradient):
                raise Diagnosis(
                    "a rank got the memory of another part: give each rank the same part in each "
                    "step, and return the memories in the order of the ranks."
                )
            return momentum(gradient, memory)

        gradients = [randn(n_numbers, seed=10 * step + rank) for rank in range(n_ranks)]
        got = answer(weights.clone(), [each.clone() for each in gradients], list(memories), rule)
        if not isinstance(got, tuple) or len(got) != 2 or len(got[1]) != n_ranks:
            raise Diagnosis("return (new weights, list of the N new memories).")
        (weights, memories), lengths = got, calls
    return weights, lengths


def sharded(weights, gradients, memories, rule, *, add=sum, forget=False):
    n = len(gradients)
    filled = torch.cat([add(gradients), weights.new_zeros(-len(weights) % n)])
    steps = [rule(part, memory) for part, memory in zip(filled.chunk(n), memories, strict=True)]
    updates = torch.cat([update for update, _ in steps])[: len(weights)]
    memories = [None] * n if forget else [memory for _, memory in steps]
    return weights - updates, memories


def grade_sharded_step(answer):
    """Two steps against the whole rule; each rank must see its part alone, all equally long."""
    for n_numbers, n_ranks in ((6, 2), (7, 3), (5, 4), (4, 1)):
        expected, _ = _two_steps(sharded, n_numbers, n_ranks)
        got, lengths = _two_steps(answer, n_numbers, n_ranks)
        part = math.ceil(n_numbers / n_ranks)
        if lengths != [part] * n_ranks:
            raise Diagnosis(
                f"{n_numbers} numbers and {n_ranks} ranks: call the rule once for each rank, with "
                f"a part of {part} numbers, zeros with it; yours was called with {lengths}."
            )
        if not isinstance(got, torch.Tensor) or got.shape != expected.shape:
            raise Diagnosis(f"the new weights are a tensor of {n_numbers}; take the zeros away.")
        if torch.allclose(got, expected, atol=1e-5):
            continue
        for wrong, message in SHARDED_KNOWN:
            if torch.allclose(got, _two_steps(wrong, n_numbers, n_ranks)[0], atol=1e-5):
                raise Diagnosis(message)
        raise Diagnosis(
            f"with {n_numbers} numbers and {n_ranks} ranks the weights differ from those of one "
            f"process by up to {shown((got - expected).abs().max().item())} after two steps."
        )


SHARDED_KNOWN = [
    (
        lambda *given: sharded(*given, add=lambda g: sum(g) / len(g)),
        "you take the mean of the ranks' gradients; each is a sum over its own rows, so add them.",
    ),
    (
        lambda *given: sharded(*given, add=lambda g: g[0]),
        "you use one rank's gradient for all; a part's gradient is the sum of all ranks'.",
    ),
    (
        lambda *given: sharded(*given, forget=True),
        "the memories that you return are not used: each rank's rule needs its own of the last "
        "step.",
    ),
]


def _on_all(weights, gradients, memories, rule):
    update, memory = rule(sum(gradients), memories[0])
    return weights - update, [memory] * len(gradients)


def _uneven(weights, gradients, memories, rule):
    parts = sum(gradients).tensor_split(len(gradients))
    steps = [rule(part, memory) for part, memory in zip(parts, memories, strict=True)]
    updates = torch.cat([update for update, _ in steps])
    return weights - updates, [memory for _, memory in steps]


SHARDED_WRONG = [
    *SHARDED_KNOWN,
    (_on_all, "6 numbers and 2 ranks: call the rule once for each rank"),
    (_uneven, "7 numbers and 3 ranks: call the rule once for each rank"),
]


# --- 15.4 -----------------------------------------------------------------------------------------
def sent(n_parameters, n_ranks, stage, n_micro, *, rounds=None, number=2, ring=True):
    rounds = rounds or {0: 2, 1: 2, 2: n_micro + 1, 3: 3 * n_micro}
    share = (n_ranks - 1) / n_ranks if ring else 1
    return float(number * n_parameters * share * rounds[stage])


SENT = [(1000, 2, stage, n) for stage in range(4) for n in (1, 4)] + [(1000, 10, 3, 2)]
SENT_WRONG = [
    (
        lambda n, r, stage, m: sent(n, r, stage, m, ring=False),
        "a ring's reduce-scatter or all-gather sends (N - 1)/N of the vector: one's own chunk "
        "stays.",
    ),
    (
        lambda n, r, stage, m: sent(n, r, stage, m) / 2,
        "these are numbers; a number has 2 bytes.",
    ),
    (
        lambda n, r, stage, m: sent(n, r, stage, m, rounds={0: 2, 1: 2, 2: 2, 3: 3}),
        "right for a single backward pass; stages 2 and 3 send again after each of them.",
    ),
    (
        lambda n, r, stage, m: sent(n, r, stage, m, rounds={0: 2, 1: 2, 2: m + 1, 3: 2 * m + 1}),
        "stage 3 fetches the weights twice in each pass: on the way there and on the way back.",
    ),
    (
        lambda n, r, stage, m: sent(n, r, stage, m, rounds={0: 2, 1: 1, 2: m, 3: 3 * m}),
        "after the update stages 1 and 2 must fetch the new weights, too.",
    ),
]
WHY = "which stage you take on a slow network, and why"


def grade_bytes_sent(answer):
    """The number in all cases; the sentence must be there."""
    sentences = []

    def number(*case):
        (value,), sentence = split_sentence(answer(*case))
        sentences.append(sentence)
        return value

    hold(number, sent, SENT, SENT_WRONG)
    check_sentence(sentences[0], WHY)


GRADERS = {
    "15.1": Grader(
        function="ring_sum",
        level="everyone",
        grade=grade_ring_sum,
        wrong=RING_WRONG,
        target="minillm.parallel.collectives.all_reduce_steps",
        hints=(
            "Follow one chunk. Chunk c must be complete at rank c. So where does its partial sum "
            "begin, if it goes right N - 1 times?",
            "First half: in step s send sums[(rank - s - 1) % N]; what arrives is a partial sum of "
            "chunk (rank - s - 2) % N: add chunks[…] of that number.",
            "Second half: send sums[(rank - s) % N]; what arrives is finished chunk "
            "(rank - s - 1) % N: put it there.",
        ),
    ),
    "15.2": Grader(
        function="cards_needed",
        level="everyone",
        grade=lambda answer: hold(answer, fewest, CARDS, CARDS_WRONG),
        wrong=CARDS_WRONG,
        target="minillm.parallel.zero.bytes_per_rank",
        hints=(
            "Two sums: the bytes that every card holds in full, and those that are divided by N.",
            "whole + divided / N <= card_bytes. What if whole alone is too much?",
            "math.ceil(divided / (card_bytes - whole)); if nothing is divided it is 1 or math.inf.",
        ),
    ),
    "15.3": Grader(
        function="sharded_step",
        level="stretch",
        grade=grade_sharded_step,
        wrong=SHARDED_WRONG,
        target="minillm.parallel.zero.shard",
        hints=(
            "sum(gradients) is the gradient; torch.cat([it, zeros]) until N divides its length.",
            "-len(weights) % N zeros are missing; tensor.chunk(N) gives the parts.",
            "One rule call a part; torch.cat the updates, cut them to len(weights), subtract.",
        ),
    ),
    "15.4": Grader(
        function="bytes_sent",
        level="stretch",
        grade=grade_bytes_sent,
        wrong=[
            *(
                ((lambda *c, f=wrong: (f(*c), "because it is so")), text)
                for wrong, text in SENT_WRONG
            ),
            (lambda *case: (sent(*case), ""), f"now say in a sentence {WHY}."),
        ],
        hints=(
            "Count the rounds, each of (N - 1)/N · Ψ numbers: an all-reduce is two of them.",
            "Stage 2: one reduce-scatter a backward pass, and one all-gather at the end.",
            "Stage 3: all-gather, all-gather, reduce-scatter, for each of the n_micro passes.",
        ),
        model_answer=(
            "Stage 1, or 2 if gradients are sent once a step: stage 1 sends as little as data "
            "parallelism, however many passes a step has, and cuts the largest part of the memory. "
            "Stage 3 sends 1.5 times as much for one pass, and 1.5 · n_micro times for many."
        ),
    ),
}
