"""What `@task` runs for chapter 09.

Chapter: 09
"""

import math

import numpy as np
import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode

from minillm.lab.diagnose import hold, shown
from minillm.lab.grade import Diagnosis, Grader, as_number, as_tensor
from minillm.mixers.rwkv import Sums, wkv_recurrent


def _random(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


# --- 9.1 ------------------------------------------------------------------------------------------
def mask(n_tokens, window, n_sinks, *, least=0, abs_=False, reads=None):
    positions = torch.arange(n_tokens)
    distance = positions[:, None] - positions[None, :]
    near = ((distance.abs() if abs_ else distance) < window) & (distance >= least)
    return near | ((positions < n_sinks) & ((distance >= 0) if reads is None else reads))


MASKS = [(7, 3, 2), (5, 1, 0), (6, 1, 1), (4, 9, 2), (6, 2, 9), (1, 1, 1)]
MASKS_WRONG = [
    (lambda *a: ~mask(*a), "True means MAY look; yours says who may not."),
    (lambda *a: mask(*a).T, "turned over: rows are queries, columns are keys."),
    (
        lambda n, w, s: mask(n, w, s, reads=True),
        "the sinks are seen before they are written: token 0 must not look at token 1.",
    ),
    (
        lambda n, w, s: mask(n, w, s, least=-n),
        "a later token has a negative distance, which is below the window, too: ask for 0 or more.",
    ),
    (lambda n, w, s: mask(n, w + 1, s), "one too many: the token itself is one of the `window`."),
    (lambda n, w, s: mask(n, w, 0), "the sinks are forgotten; all later tokens see them."),
]


def grade_sparse_mask(answer):
    """A table by hand, and edges: no sinks, a window of one, of all. It must be of bool."""
    hold(answer, mask, MASKS, MASKS_WRONG)
    if (kind := as_tensor(answer(7, 3, 2)).dtype) != torch.bool:
        raise Diagnosis(f"the table must be of bool; yours is of {kind}.")


# --- 9.2 ------------------------------------------------------------------------------------------
def attended(q, k, v, *, sees=0, divided=True):
    weights = (q @ k.T).tril(sees)
    return weights @ v / (weights.sum(dim=1, keepdim=True) if divided else 1)


def attended_token_by_token(q, k, v):
    parts = range(1, len(q) + 1)
    return torch.stack([attended(q[t - 1 : t], k[:t], v[:t], sees=t) for t in parts])[:, 0]


def attended_in_numpy(q, k, v):
    q, k, v = (x.numpy() for x in (q, k, v))
    weights = [k[: t + 1] @ query for t, query in enumerate(q)]
    return torch.tensor(np.stack([w @ v[: len(w)] / w.sum() for w in weights]))


def _features(n_tokens: int, n_features: int, width: int) -> tuple[Tensor, Tensor, Tensor]:
    q, k = (_random(n_tokens, n_features, seed=seed).abs() + 0.1 for seed in (0, 1))
    return q, k, _random(n_tokens, width, seed=2)


ATTENDED = [_features(4, 2, 2), _features(9, 3, 5)]
UNCOUNTED = "right, but the work of lists, single numbers and numpy cannot be counted: use tensors."
ATTENDED_WRONG = [
    (
        lambda q, k, v: attended(q, k, v, divided=False),
        "you forget to divide by the sum of the weights.",
    ),
    (
        lambda q, k, v: attended(q, k, v, sees=-1),
        "a token does not see itself: take it in before you read.",
    ),
    (
        lambda q, k, v: attended(q, k, v, sees=len(q)),
        "every token sees the whole text, the future, too. (A table that is changed in place and "
        "put in a list stays one table.)",
    ),
    (attended, "right, but for 512 tokens you build a table of"),
    (attended_token_by_token, "right, but for twice as many tokens you do nearly four times"),
    (attended_in_numpy, UNCOUNTED),
]
OUT_OF_TORCH = {"numpy", "__array__", "tolist", "item", "__float__"}


class _Work(TorchFunctionMode):
    """Counts the elements of all results of torch's operations, those of parts among them.

    A part, k[:t + 1], takes no memory; but whoever takes one is about to read it. What shows a
    whole tensor once more, as k.T does, does not count.
    """

    def __init__(self):
        super().__init__()
        self.elements = self.largest = 0
        self.left_torch = False

    def __torch_function__(self, func, types, args=(), kwargs=None):
        result = func(*args, **(kwargs or {}))
        self.left_torch |= getattr(func, "__name__", "") in OUT_OF_TORCH
        given = {(part.data_ptr(), part.numel()) for part in args if isinstance(part, Tensor)}
        for part in result if isinstance(result, list | tuple) else [result]:
            if isinstance(part, Tensor) and (part.data_ptr(), part.numel()) not in given:
                self.elements += part.numel()
                self.largest = max(self.largest, part.numel())
        return result


def grade_linear_attention(answer):
    """Four tokens, nine of other widths; then what is built, and how the work grows."""
    hold(answer, attended, ATTENDED, ATTENDED_WRONG[:-3])
    works = []
    for n_tokens in (256, 512):
        inputs = _features(n_tokens, 2, 3)
        with _Work() as work:
            answer(*inputs)
        works.append(work)
    if works[0].left_torch:
        raise Diagnosis(UNCOUNTED)
    if works[1].largest >= 512**2 // 2:
        raise Diagnosis(
            f"right, but for 512 tokens you build a table of {works[1].largest:,} numbers, each "
            "token with each. What can be carried along in its place?"
        )
    if works[1].elements > 3 * works[0].elements:
        raise Diagnosis(
            "right, but for twice as many tokens you do nearly four times the work: is the past "
            "read again for each token, as k[:t + 1], or a result copied each time it grows?"
        )


# --- 9.3 ------------------------------------------------------------------------------------------
def stepped(k, v, decay, bonus, state):
    values, sums = wkv_recurrent(k[None, None], v[None, None], decay, bonus, Sums(*state))
    return values[0, 0], *(part[0] for part in sums)


def wkv_of(k, v, bonus, state, *, rescaled=True):
    numerator, denominator, maximum = state
    top = torch.maximum(maximum, bonus + k)
    old = (maximum - top).exp() if rescaled else 1
    new = (bonus + k - top).exp()
    return (old * numerator + new * v) / (old * denominator + new)


def stepped_with_bare_exp(k, v, decay, bonus, state):
    numerator, denominator, maximum = state
    weights = torch.stack([maximum.exp(), (bonus + k).exp()])
    wkv = (weights * torch.stack([numerator, v])).sum(0)
    wkv = wkv / (weights * torch.stack([denominator, torch.ones_like(v)])).sum(0)
    return wkv, *stepped(k, v, decay, bonus, state)[1:]


def stepped_bonus_kept(k, v, decay, bonus, state):
    return stepped(k, v, decay, bonus, state)[0], *stepped(k + bonus, v, decay, bonus, state)[1:]


def stepped_faded_first(k, v, decay, bonus, state):
    faded = (*state[:2], state[2] - decay)
    return wkv_of(k, v, bonus, faded), *stepped(k, v, decay, bonus, state)[1:]


NUMBERS = [0.5, 2, -1, 1], [3, -2, 4, 5], [0.25, 0.5, 0.75, 1.5], [0.7, 0.3, 0.6, -0.9]
K, V, DECAY, BONUS = (torch.tensor(row, dtype=torch.float32) for row in NUMBERS)
PAST = tuple(torch.tensor(row) for row in ([2, 1.5, -3, 4], [1.6, 1.2, 1.9, 2.5], [1, 0.5, 0.8, 2]))
FIRST = (torch.zeros(4), torch.zeros(4), torch.full((4,), -1e38))
LARGE = torch.tensor([1000.0, -1000.0, 1000.0, -1000.0])
STEPPED = [
    (K, V, DECAY, BONUS, PAST),
    (K, V, DECAY, BONUS, FIRST),
    (LARGE, V, DECAY, BONUS, FIRST),
    (LARGE, V, DECAY, BONUS, (*PAST[:2], LARGE)),
    (LARGE, V, DECAY, BONUS, (*PAST[:2], -LARGE)),
]
OVERFLOW = "e^1000 is beyond a float, and e^-1000 is 0: subtract a maximum BEFORE you take exp."
STEPPED_WRONG = [
    (
        lambda k, v, w, u, s: (wkv_of(k, v, 0 * u, s), *stepped(k, v, w, u, s)[1:]),
        "the bonus is missing: for itself the newest value weighs e^(u + k).",
    ),
    (stepped_bonus_kept, "the bonus goes into the new state; it is for this token's wkv only."),
    (stepped_faded_first, "the past fades before it is read; its decay comes after this token."),
    (
        lambda k, v, w, u, s: (wkv_of(k, v, u, s, rescaled=False), *stepped(k, v, w, u, s)[1:]),
        "the old sums were divided by e^maximum; bring them to the scale of the newest value.",
    ),
    (
        lambda k, v, w, u, s: stepped(k, v, 0 * w, u, s),
        "nothing fades: old exponents fall by the decay, in the maximum and in both sums.",
    ),
    (stepped_with_bare_exp, OVERFLOW),
]


def grade_wkv_step(answer):
    """One step of four channels, from a past and from none, with small keys and with large."""
    names = ("wkv", "the numerator", "the denominator", "the maximum")

    def flat(*case):
        got = answer(*case)
        if isinstance(got, tuple | list) and len(got) == 2 and len(got[1]) == 3:
            return got[0], *got[1]
        raise Diagnosis("return wkv, and the new state: (numerator, denominator, maximum).")

    hold(flat, stepped, STEPPED[:2], STEPPED_WRONG[:-1], names)
    for case in STEPPED[2:]:
        if not all(as_tensor(part).isfinite().all() for part in flat(*case)):
            raise Diagnosis(OVERFLOW)
    hold(flat, stepped, STEPPED, names=names)


# --- 9.4 ------------------------------------------------------------------------------------------
def replaced(q, k, v, beta, *, write=lambda s, k, v, b: s + b * torch.outer(k, v - k @ s), first=0):
    tables = [torch.zeros(k.shape[1], v.shape[1])]
    for token in zip(k, v, beta, strict=True):
        tables.append(write(tables[-1], *token))
    return torch.stack([q_now @ s for q_now, s in zip(q, tables[1 - first :], strict=False)])


def written(write):
    return lambda q, k, v, beta: replaced(q, k, v, beta, write=write)


def _keys(n_tokens: int, n_features: int, width: int) -> tuple[Tensor, ...]:
    q, k, v = _features(n_tokens, n_features, width)
    return q - 1, torch.nn.functional.normalize(k - 1, dim=1), v, _random(n_tokens).sigmoid()


TWICE = torch.tensor([[1.0, 0.0], [0.0, 1.0], [1.0, 0.0], [0.0, 1.0]])
REPLACED = [
    (TWICE, TWICE, torch.tensor([[5.0], [3], [7], [9]]), torch.tensor([1.0, 1, 0.5, 0])),
    _keys(4, 2, 2),
    _keys(40, 3, 5),
]
REPLACED_WRONG = [
    (
        written(lambda s, k, v, b: s + b * torch.outer(k, v)),
        "you only add, as linear attention does; take out what is stored under the key.",
    ),
    (
        written(lambda s, k, v, b: s + torch.outer(k, b * v - k @ s)),
        "you take out ALL that is stored under the key; only the share β is to go.",
    ),
    (
        written(lambda s, k, v, b: s + torch.outer(k, v - b * (k @ s))),
        "you put in ALL of the new value; only the share β of it is to come.",
    ),
    (
        written(lambda s, k, v, b: (1 - b) * s + b * torch.outer(k, v)),
        "all of S fades; what is stored under other keys must stay.",
    ),
    (
        written(lambda s, k, v, b: s + (1 - b) * torch.outer(k, v - k @ s)),
        "β says how much of the old is REPLACED, not how much is kept.",
    ),
    (
        lambda q, k, v, b: replaced(q, k, v, b, first=1),
        "you read before you write: y is read from S with this token in it.",
    ),
]


# --- 9.5 ------------------------------------------------------------------------------------------
TOKENS = [
    (8, "measure both at that length: is the state the smaller one there?"),
    (8.5, "that is where the two lines cross; tokens come whole."),
    (17, "how many vectors does a token leave in the cache of attention? You count one of them."),
    (3, "that is the state of one head against the cache of four; count four heads of both."),
    (1088, "so many numbers has the state; how many tokens have as many in the cache?"),
]
BECAUSE = "because the cache grows and the state does not"
TOKENS_WRONG = [((lambda n=number: (n, BECAUSE)), message) for number, message in TOKENS]
TOKENS_WRONG.append((lambda: (9, "so"), "now say in a sentence where the number comes from."))


def grade_when_the_state_is_smaller(answer):
    """The number is graded; the sentence must be there."""
    got = answer()
    if not (isinstance(got, tuple | list) and len(got) == 2):
        raise Diagnosis('return two things: the number and your sentence, as in 2, "because …".')
    number, sentence = as_number(got[0]), got[1]
    for wrong, message in TOKENS:
        if math.isclose(number, wrong):
            raise Diagnosis(message)
    if number != 9:
        raise Diagnosis(
            f"{shown(number)} it is not: print new_cache(1, n).n_bytes of both layers for several "
            "n. At which n is the state's for the first time the smaller?"
        )
    if not isinstance(sentence, str) or (len(sentence.split()) < 4 and len(sentence) < 8):
        raise Diagnosis(TOKENS_WRONG[-1][1])


# --- 9.6 ------------------------------------------------------------------------------------------
def judged(
    runs, chance, *, perfect=0.95, chances=True, since=-2, seeds=True, falls=True, order=sorted
):
    steps = order(runs)
    before, last = runs[steps[since]], runs[steps[-1]]
    if min(last) > perfect:
        return "no limit seen"
    if chances and max(map(max, runs.values())) < chance + 0.05:
        return "guessing"
    change = sum(last) / len(last) - sum(before) / len(before)
    if (abs(change) if falls else change) > 0.05 or (seeds and max(last) - min(last) > 0.05):
        return "not trained to its limit"
    return "limit"


JUDGED = [
    ({300: [0.31, 0.315], 600: [0.312, 0.309]}, 0.016),  # limit
    ({300: [0.1, 0.105], 600: [0.45, 0.452], 1200: [0.455, 0.45]}, 0.016),  # limit: long flat
    ({1200: [0.7, 0.705], 600: [0.5, 0.502], 300: [0.3, 0.305]}, 0.016),  # it still rises
    ({300: [0.45, 0.455, 0.45], 600: [0.3, 0.6, 0.455]}, 0.016),  # the seeds disagree
    ({300: [0.25, 0.25], 600: [0.251, 0.999]}, 0.25),  # one seed found it
    ({300: [0.25, 0.252], 600: [0.251, 0.249]}, 0.25),  # guessing
    ({300: [0.6, 0.605], 600: [0.3, 0.302]}, 0.016),  # it falls: it held more before
    ({300: [0.5, 0.502], 600: [0.017, 0.015]}, 0.016),  # it falls to chance
    ({300: [0.995, 0.998], 600: [0.999, 0.997]}, 0.016),  # no limit
    ({600: [0.995, 0.998], 300: [0.6, 0.605]}, 0.016),  # no limit, though it still rises
]
JUDGED_WRONG = [
    (
        lambda r, c: judged(r, c, chances=False),
        "a flat curve at chance is called a limit; a mixer that guesses has shown nothing.",
    ),
    (
        lambda r, c: judged(r, c, since=0),
        "you compare the longest runs with the shortest; whether the LAST doubling added something "
        "is the question.",
    ),
    (
        lambda r, c: judged(r, c, seeds=False),
        "you take the mean alone; where the seeds disagree by much, one found what others did not.",
    ),
    (
        lambda r, c: judged(r, c, falls=False),
        "a fall is called a limit; the shorter runs show that it can hold more than that.",
    ),
    (
        lambda r, c: judged(r, c, order=list),
        "you take the runs in the order in which they stand; sort the numbers of steps.",
    ),
    (
        lambda r, c: judged(r, c, perfect=1),
        "nearly everything is right, and you look for a limit; the questions were too easy for it.",
    ),
]


def _held(right, cases, wrong):
    return lambda answer: hold(answer, right, cases, wrong)


GRADERS = {
    "9.1": Grader(
        function="sparse_mask",
        level="everyone",
        grade=grade_sparse_mask,
        wrong=MASKS_WRONG,
        target="minillm.mixers.patterns.any_of",
        hints=(
            "positions[:, None] - positions[None, :] says how far each key is behind its query.",
            "Causal: a distance of 0 or more. In the window: one below window. A sink: a key's "
            "position below n_sinks.",
            "(distance >= 0) & ((distance < window) | (positions[None, :] < n_sinks))",
        ),
    ),
    "9.2": Grader(
        function="linear_attention",
        level="everyone",
        grade=grade_linear_attention,
        wrong=ATTENDED_WRONG,
        target="minillm.mixers.linear_attention.attend_linear",
        hints=(
            "In both sums q_t is the same for every s. What is left of each if it is taken out?",
            "(q · k) v is q @ torch.outer(k, v): so a sum of tables [N, K] serves every query. And "
            "what serves the denominator?",
            "A loop: add torch.outer(k_now, v_now) to the table and k_now to the total, then "
            "q_now @ table / (q_now @ total); torch.stack at the end.",
        ),
    ),
    "9.3": Grader(
        function="wkv_step",
        level="stretch",
        grade=grade_wkv_step,
        wrong=[
            ((lambda *a, f=wrong: (f(*a)[0], f(*a)[1:])), message)
            for wrong, message in STEPPED_WRONG
        ],
        target="minillm.mixers.rwkv.wkv_recurrent",
        hints=(
            "Write it without any maximum first: the old sums are numerator · e^maximum and "
            "denominator · e^maximum. Read with the bonus; then fade, and add without it.",
            "A fraction stays the same if both parts are divided by e^top. Choose top so that no "
            "exponent is above 0: the larger of maximum and bonus + k.",
            "The new maximum is torch.maximum(maximum - decay, k): the old sums are multiplied by "
            "e^(maximum - decay - new maximum), and what is added weighs e^(k - new maximum).",
        ),
    ),
    "9.4": Grader(
        function="delta_rule",
        level="stretch",
        grade=_held(replaced, REPLACED, REPLACED_WRONG),
        wrong=REPLACED_WRONG,
        hints=(
            "For a table S [N, K], k_now @ S is what is stored under the key, [K].",
            "Adding torch.outer(k_now, x) to S adds x to what is stored under k_now, since its "
            "length is 1. By which x does (1 - β) · old + β · new differ from old?",
            "S = S + beta_now * torch.outer(k_now, v_now - k_now @ S); then q_now @ S.",
        ),
    ),
    "9.5": Grader(
        function="when_the_state_is_smaller",
        level="everyone",
        grade=grade_when_the_state_is_smaller,
        wrong=TOKENS_WRONG,
        hints=(
            "AttentionConfig(n_heads=4).build(64).new_cache(1, n).n_bytes for n = 1, 2, 3, …",
            "Which of the two depends on n? Count its numbers for one token.",
            "Which sums does task 9.2 carry along, and of which shapes? For each of four heads.",
        ),
        model_answer=(
            "9. The cache has 2 · 64 = 128 numbers a token, the state 4 · 16 · (16 + 1) = 1,088 "
            "from the first token on: 1,088 ÷ 128 = 8.5, so at 8 tokens the cache is the smaller "
            "and at 9 the state. With heads of width K the state is worth (K + 1) ÷ 2 tokens, "
            "whatever the number of heads: 64.5 tokens for heads of 128. A longer text has more "
            "keys and values than the state has numbers, so something of it must be lost."
        ),
    ),
    "9.6": Grader(
        function="verdict",
        level="everyone",
        grade=_held(judged, JUDGED, JUDGED_WRONG),
        wrong=JUDGED_WRONG,
        hints=(
            "What must be true before you may say limit? That twice the steps changed nothing, and "
            "that all seeds came to the same. Two lists decide: the most steps, and half as many.",
            "Ask first whether nearly all is right (the lowest of the longest runs), then whether "
            "any run at all is above chance, then about the two means and the spread of the seeds.",
            "before, last = (runs[n] for n in sorted(runs)[-2:]). If the means differ by more than "
            "0.05, up or down, or max(last) - min(last) does: not trained to its limit.",
        ),
    ),
}
