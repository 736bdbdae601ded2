"""What `@task` runs for chapter 03.

Chapter: 03
"""

import math

import torch
from torch import Tensor

from minillm.lab.grade import Diagnosis, Grader, as_number, as_tensor
from minillm.model import flash, rope


def grade_look(answer):
    """Against torch's own attention; each check shows one mistake."""
    # One query, K = 4, two keys with scores 2 log 2 and 0: weights 4/5 and 1/5... over √4.
    q = torch.tensor([[2.0, 0.0, 0.0, 0.0]])
    k = torch.tensor([[2 * math.log(2), 0.0, 0.0, 0.0], [0.0, 1.0, 0.0, 0.0]])
    v = torch.tensor([[10.0], [20.0]])
    got = _kept(answer, q, k, v)
    if got.shape != (1, 1):
        raise Diagnosis(f"1 query and values of width 1 give a [1, 1]; yours is {[*got.shape]}.")
    number = got.item()
    if math.isclose(number, 10 * 16 / 17 + 20 / 17, rel_tol=1e-4):
        raise Diagnosis("the scores are not divided by √K.")
    if math.isclose(number, (10 * 2 + 20) / 3, rel_tol=1e-4):
        raise Diagnosis("you divide by K; divide by its square root.")
    if math.isclose(number, 10 * 2 * math.log(2), rel_tol=1e-4):
        raise Diagnosis(
            "there is no softmax: the weights of a query must be positive and sum to 1."
        )
    if math.isclose(number, 30.0, rel_tol=1e-4):
        raise Diagnosis("your softmax runs over the queries; it must run over the keys (dim=-1).")
    torch.manual_seed(0)
    q, k, v = torch.randn(3, 4), torch.randn(5, 4), torch.randn(5, 2)
    right, got = _reference(q, k, v), _kept(answer, q, k, v)
    if got.shape != right.shape:
        raise Diagnosis(f"3 queries, 5 keys, values of width 2: [3, 2]; yours is {[*got.shape]}.")
    if torch.allclose(got, _reference(q * math.sqrt(2), k, v), atol=1e-5):
        raise Diagnosis("divide by the root of the keys' width, 4 here, not the values', 2.")
    if not torch.allclose(got, right, atol=1e-5):
        raise Diagnosis("3 random queries and 5 keys come out wrong; is a sum over the wrong axis?")
    got = _kept(answer, 1000 * q, k, v)
    if got.isnan().any():
        raise Diagnosis(
            "scores of 1,000 overflow in exp: subtract the highest of each query first, or use "
            "torch's softmax."
        )
    if not torch.allclose(got, _reference(1000 * q, k, v), atol=1e-4):
        raise Diagnosis("right for small scores, wrong for large ones.")


def grade_causal(answer):
    """Small tables, also for the newest queries only."""
    positions = torch.arange(3)
    got = answer(positions, positions)
    if not isinstance(got, Tensor):
        raise Diagnosis("return a tensor; comparing two tensors gives one.")
    if got.dtype != torch.bool:
        raise Diagnosis(f"the table must be of bool; yours is of {got.dtype}.")
    if got.shape == (3,):
        raise Diagnosis("a row for each query and a column for each key: add an axis to each.")
    if torch.equal(got, positions[:, None] > positions):
        raise Diagnosis("a token may look at itself, too.")
    if torch.equal(got, positions[:, None] <= positions):
        raise Diagnosis("turned over: rows are queries, columns are keys, and nobody looks ahead.")
    if torch.equal(got, positions[:, None] < positions):
        raise Diagnosis("True means MAY look; yours says who may not.")
    for queries, keys in (
        (torch.tensor([1, 2]), torch.arange(3)),
        (torch.tensor([4]), torch.arange(5)),
        (torch.tensor([0, 1]), torch.tensor([1, 0])),
        (torch.tensor([7, 9]), torch.tensor([6, 8, 10])),
    ):
        right, got = queries[:, None] >= keys, answer(queries, keys)
        if got.shape != right.shape:
            raise Diagnosis(
                f"{len(queries)} queries and {len(keys)} keys need a table {[*right.shape]}; yours "
                f"is {[*got.shape]}. With a cache, queries are only the newest places."
            )
        if not torch.equal(got, right):
            raise Diagnosis(
                f"queries at {queries.tolist()} and keys at {keys.tolist()} must give "
                f"{right.int().tolist()}; yours gives {got.int().tolist()}. Compare the positions "
                "themselves, not where they stand in the list."
            )


def grade_turn(answer):
    """Quarter turns by hand, then the library, and the relative law."""
    x = torch.tensor([3.0, 4.0], dtype=torch.float64)
    kept = x.clone()
    got = as_tensor(answer(x, 0))
    if not torch.equal(x, kept):
        raise Diagnosis("x itself is changed; build a new tensor.")
    if got.shape != (2,) or not torch.allclose(got, x):
        raise Diagnosis("at position 0 nothing turns: the result must be x.")
    got = as_tensor(answer(x, 1)).to(x.dtype)
    if not torch.equal(x, kept):
        raise Diagnosis("x itself is changed; build a new tensor.")
    right = _turned(x, 1, 10000.0)
    if torch.allclose(got, _turned(x, -1, 10000.0)):
        raise Diagnosis("you turn clockwise; the minus stands before second · sin.")
    c, s = math.cos(1), math.sin(1)
    first = 3 * c - 4 * s
    if torch.allclose(got, torch.tensor([first, first * s + 4 * c], dtype=torch.float64)):
        raise Diagnosis("the second line needs the OLD first; yours was overwritten already.")
    if not torch.allclose(got, right):
        raise Diagnosis(f"[3, 4] at position 1 is {right.tolist()}; yours is {got.tolist()}.")
    x = torch.tensor([1.0, 2.0, 3.0, 4.0], dtype=torch.float64)
    got, right = as_tensor(answer(x, 5, 100.0)).to(x.dtype), _turned(x, 5, 100.0)
    if got.shape == right.shape:
        neighbours = x[[0, 2, 1, 3]]
        if torch.allclose(got[[0, 2, 1, 3]], _turned(neighbours, 5, 100.0)):
            raise Diagnosis("your pairs are neighbours; ours are x[i] with x[i + K/2].")
        if torch.allclose(got, _turned(x, 5, 10000.0)):
            raise Diagnosis("`base` is ignored.")
        if torch.allclose(got, _turned(x, 5, 100.0**0.5)):
            raise Diagnosis("the angle is base^(-2i/K); yours falls half as fast: -i/K.")
    if got.shape != right.shape or not torch.allclose(got, right):
        raise Diagnosis(
            f"[1, 2, 3, 4] at position 5 with base 100 is {right.tolist()}; yours is "
            f"{got.tolist()}."
        )
    torch.manual_seed(0)
    q, k = torch.randn(16, dtype=torch.float64), torch.randn(16, dtype=torch.float64)
    scores = [(as_tensor(answer(q, m)) @ as_tensor(answer(k, m - 7))).item() for m in (7, 503)]
    if not math.isclose(*scores, abs_tol=1e-3):
        raise Diagnosis("a query and a key 7 places apart must score the same wherever they stand.")


def grade_online_softmax_sum(answer):
    """By hand, every tile size, and what must not be done: looking at everything."""
    third = math.log(3)
    got = as_number(answer([0, 0, third], [10, 20, 30]))
    if math.isclose(got, 120.0, rel_tol=1e-6):
        raise Diagnosis("you forget to divide by the sum of the weights.")
    if not math.isclose(got, 24.0, rel_tol=1e-6):
        raise Diagnosis(
            f"scores 0, 0, log 3 and values 10, 20, 30 give 24; yours gives {got:.4g}. Are BOTH "
            "sums put right when a higher score comes?"
        )
    if not math.isclose(as_number(answer([third, 0, 0], [30, 20, 10])), 24.0, rel_tol=1e-6):
        raise Diagnosis("wrong when the highest score comes first.")
    scores = [0.3, -1.2, 4.0, 2.5, 3.9, -0.7, 5.5]
    values = [1.0, -2.0, 0.5, 3.0, 2.0, -1.0, 0.25]
    right = flash.online_softmax_sum(scores, values, 7)
    for tile in (1, 2, 3, 7, 10):
        got = as_number(answer(scores, values, tile))
        if not math.isclose(got, right, rel_tol=1e-6):
            whole = len(scores) - len(scores) % tile
            if tile < 7 and math.isclose(
                got, flash.online_softmax_sum(scores[:whole], values[:whole]), rel_tol=1e-6
            ):
                raise Diagnosis("the last tile is shorter; you leave it out.")
            raise Diagnosis(f"right by single numbers, wrong in tiles of {tile}.")
    try:
        got = as_number(answer([1000.0, 1001.0, 999.0], [1.0, 2.0, 3.0], 2))
    except OverflowError:
        raise Diagnosis("exp(1000) overflows: subtract the highest score before exp.") from None
    right = flash.online_softmax_sum([1.0, 2.0, 0.0], [1.0, 2.0, 3.0])
    if not math.isclose(got, right, rel_tol=1e-5):
        raise Diagnosis("scores near 1,000 must give what scores near 1 give.")
    try:
        got = as_number(answer([-1000.0, -1001.0], [1.0, 2.0]))
    except ZeroDivisionError:
        got = math.nan
    if not math.isclose(got, flash.online_softmax_sum([1.0, 0.0], [1.0, 2.0]), rel_tol=1e-6):
        raise Diagnosis("all scores may be far below 0: begin with -inf, not with 0.")
    tapes = _Tape([0.1] * 64), _Tape([1.0] * 64)
    tapes[0].other, tapes[1].other = tapes[1], tapes[0]
    answer(*tapes, 4)
    if (lead := max(tape.lead for tape in tapes)) > 4:
        raise Diagnosis(
            f"you read {lead} numbers more of one list than of the other; with tile=4 take "
            "scores[begin:begin + 4] and their values, then go on."
        )
    if (back := max(tape.back for tape in tapes)) > 4:
        raise Diagnosis(
            f"you look {back} numbers back; with tile=4 the three numbers that you keep must do."
        )


def grade_price_of_forgetting(answer):
    """The number is graded; the sentence must be there."""
    got = answer()
    if not (isinstance(got, tuple | list) and len(got) == 2):
        raise Diagnosis('return two things: the ratio and your sentence, as in 2.0, "because …".')
    ratio, sentence = got
    ratio = as_number(ratio)
    if math.isclose(ratio, 256):
        raise Diagnosis("256 would be the whole text every time; at first it is only one token.")
    if math.isclose(ratio, 32896):
        raise Diagnosis("that is how many are read in all; divide by the 256 that a cache reads.")
    if math.isclose(ratio, 127.5):
        raise Diagnosis("1 + 2 + … + 256, not 0 + 1 + … + 255: the prompt is read, too.")
    if not math.isclose(ratio, 128.5):
        raise Diagnosis("count: sum(range(1, 257)) tokens without a cache, 256 with one.")
    if not isinstance(sentence, str) or (len(sentence.split()) < 4 and len(sentence) < 8):
        raise Diagnosis("the number is right; now say in a sentence how it grows.")


class _Tape(list):
    """A list that remembers how it was read, in whatever order.

    ``lead`` is how many numbers more were read here than in the other list, ``back`` how many had
    been read since when one was read again; each at its largest.
    """

    def __init__(self, numbers):
        super().__init__(numbers)
        self.read_as, self.lead, self.back, self.other = {}, 0, 0, self

    def __getitem__(self, place):
        positions = range(len(self))[place]
        for each in positions if isinstance(place, slice) else [positions]:
            self.read_as.setdefault(each, len(self.read_as))
            self.back = max(self.back, len(self.read_as) - self.read_as[each])
        self.lead = max(self.lead, len(self.read_as) - len(self.other.read_as))
        return super().__getitem__(place)

    def __iter__(self):
        return (self[place] for place in range(len(self)))


def _kept(answer, *inputs: Tensor) -> Tensor:
    given = [tensor.clone() for tensor in inputs]
    got = as_tensor(answer(*given))
    if not all(map(torch.equal, given, inputs)):
        raise Diagnosis("you change the tensors that were given; build new ones.")
    return got.to(inputs[0].dtype)


def _reference(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    return torch.nn.functional.scaled_dot_product_attention(q[None], k[None], v[None])[0]


def _turned(x: Tensor, position: int, base: float) -> Tensor:
    return rope.rotate_naive(x[None], position * rope.frequencies(len(x), base)[None])[0]


GRADERS = {
    "3.1": Grader(
        function="look",
        level="everyone",
        grade=grade_look,
        hints=(
            "q @ k.T is a table of all dot products: a row for each query, a column for each key.",
            "Divide it by √K, take the softmax of each ROW: (...).softmax(dim=-1).",
            "The weights [T, S] times the values [S, W] are the result: weights @ v.",
        ),
    ),
    "3.2": Grader(
        function="causal",
        level="everyone",
        grade=grade_causal,
        target="minillm.model.masks.causal",
        hints=(
            "Compare every query's place with every key's place; >= on tensors gives bools.",
            "x[:, None] is a column, x[None, :] a row; compared, they make a table.",
            "query_positions[:, None] >= key_positions[None, :]",
        ),
    ),
    "3.3": Grader(
        function="turn",
        level="stretch",
        grade=grade_turn,
        hints=(
            "First the angles: position * base ** (-2 * i / K) for i = 0, 1, …, K/2 - 1.",
            "first = x[:K // 2], second = x[K // 2:]; keep both before you compute anything.",
            "torch.cat([first * cos - second * sin, first * sin + second * cos])",
        ),
    ),
    "3.4": Grader(
        function="online_softmax_sum",
        level="stretch",
        grade=grade_online_softmax_sum,
        target="minillm.model.flash.online_softmax_sum",
        hints=(
            "Begin with highest = -inf and both sums 0. exp(-inf) is 0, so the first tile is easy.",
            "kept = exp(before - highest), with highest already the new one; both sums times kept.",
            "weights = [exp(s - highest) for s in tile]; total += sum(weights); the rest likewise.",
        ),
    ),
    "3.5": Grader(
        function="price_of_forgetting",
        level="everyone",
        grade=grade_price_of_forgetting,
        hints=(
            "Without a cache: 1 + 2 + 3 + … + 256 tokens are read.",
            "1 + 2 + … + n is n (n + 1) / 2; divide by n.",
            "sum(range(1, 257)) / 256",
        ),
        model_answer=(
            "1 + 2 + … + n is n (n + 1) / 2, so the ratio is (n + 1) / 2: 128.5 for 256 tokens, "
            "and about twice that for a text twice as long. Reading again, the tokens read grow "
            "with the square of the length; with the cache they grow with the length, and it is "
            "paid in memory. (The scores are a square in all, either way.)"
        ),
    ),
}
