"""What `@task` runs for chapter 05.

Chapter: 05
"""

import math
import statistics
from functools import partial

import torch
from torch import Tensor

from minillm.lab.diagnose import (
    check_sentence,
    held,
    hold,
    measured,
    randn,
    same_gradient,
)
from minillm.lab.grade import Diagnosis, Grader, as_number, as_tensor

NAN, INF = math.nan, math.inf


# --- 5.1 ------------------------------------------------------------------------------------------
def log_probs(logits, targets, mask, *, dim=-1, in_two_steps=False):
    ids = targets.masked_fill(~mask, 0)[..., None]
    log_p = logits.softmax(dim).log() if in_two_steps else logits.log_softmax(dim)
    return torch.where(mask, log_p.gather(-1, ids)[..., 0], 0.0)


def log_probs_of_all(logits, targets, mask):
    return log_probs(logits, targets, torch.ones_like(mask))


BOTH = torch.ones(1, 2, dtype=torch.bool)
MASK = torch.tensor([[True, False, True], [True, True, False]])
IDS = torch.tensor([[1, 4, 0], [0, 2, 3]]).masked_fill(~MASK, 0)
LOGITS = randn(2, 3, 5)
LOG_PROBS = [
    (torch.tensor([[[3.0, 1.0], [2.0, 2.0]]]).log(), torch.tensor([[0, 1]]), BOTH),
    (LOGITS, IDS, MASK),
    (LOGITS.masked_fill(~MASK[..., None] & (torch.arange(5) == 0), -INF), IDS, MASK),
    (torch.tensor([[[1000.0, 0.0], [1000.0, 0.0]]]), torch.tensor([[0, 1]]), BOTH),
]
LOG_PROBS_WRONG = [
    (lambda x, t, m: -log_probs(x, t, m), "this is the loss, -log p; log p is never above 0."),
    (
        lambda x, t, m: torch.where(m, log_probs(x, t, m).exp(), 0.0),
        "these are probabilities; return their logarithms.",
    ),
    (log_probs_of_all, "where `loss_mask` is False the result is exactly 0; yours is not."),
    (
        lambda x, t, m: log_probs_of_all(x, t, m) * m,
        "0 · -inf is NaN, and so is then the whole loss: do not multiply by the mask, choose with "
        "torch.where.",
    ),
    (partial(log_probs, dim=1), "your softmax runs over the positions; it is over the vocabulary."),
    (
        partial(log_probs, in_two_steps=True),
        "a softmax of exp(-1000) is 0, its log -inf, and the gradient NaN, also behind a "
        "torch.where; log_softmax does both at once: -1000.",
    ),
]


def grade_masked_log_probs(answer):
    """Four cases, padding that is no id, and the gradient."""
    held(log_probs, LOG_PROBS, LOG_PROBS_WRONG, read=_values)(answer)
    for padding in (-100, 50_000):
        case = (LOGITS, IDS.masked_fill(~MASK, padding), MASK)
        try:
            held(log_probs, [case], read=_values)(answer)
        except (IndexError, RuntimeError):
            raise Diagnosis(
                f"your look-up fails at the padding {padding}: where `loss_mask` is False, put an "
                "id that exists before you look up."
            ) from None
    same_gradient(lambda x: answer(x, IDS, MASK), lambda x: log_probs(x, IDS, MASK), LOGITS)


def _values(got):
    return as_tensor(got).detach()


# --- 5.2 ------------------------------------------------------------------------------------------
def accumulated(weight, parts, nats, *, by=sum, means=False):
    total, counts = 0, []
    for part in parts:
        loss, n_tokens = nats(weight, part)
        total += torch.autograd.grad(loss, weight)[0] / (n_tokens if means else 1)
        counts.append(n_tokens)
    return total / by(counts)


def weighted_sum(weight, part):
    return (part @ weight).sum(), len(part)


def squares(weight, part):
    """A token is a row; rows of zeros are padding."""
    scores, counts = part @ weight, part.any(dim=1)
    return ((scores.exp() + scores**2) * counts).sum(), int(counts.sum())


PARTS = [torch.tensor([[8.0, 0.0]]), torch.tensor([[1.0, 0.0], [1.0, 0.0], [2.0, 3.0]])]
ACCUMULATED = [
    (torch.ones(2, requires_grad=True), PARTS, weighted_sum),
    (randn(3).requires_grad_(), [randn(5, 3), torch.zeros(2, 3), randn(7, 3, seed=1)], squares),
]
ACCUMULATED_WRONG = [
    (
        partial(accumulated, means=True, by=len),
        "that is the mean of the parts' means: 3 tokens weigh as much as 1 does.",
    ),
    (
        partial(accumulated, by=lambda counts: 1),
        "that is the gradient of the sum; divide by how many tokens there are in all.",
    ),
    (
        partial(accumulated, by=len),
        "you divide by the number of parts; divide by that of all tokens.",
    ),
    (
        lambda w, p, f: accumulated(w, p, f, by=lambda counts: sum(map(len, p))),
        "count the tokens as nats does; not every row of a part need be one.",
    ),
]


class _Watch(torch.autograd.Function):
    """The same weight; tells when the backward pass has arrived at it."""

    generate_vmap_rule = True

    @staticmethod
    def forward(weight, alive):
        alive[0] += 1
        return weight.clone()

    @staticmethod
    def setup_context(ctx, inputs, output):
        ctx.alive = inputs[1]

    @staticmethod
    def backward(ctx, gradient):
        ctx.alive[0] -= 1
        return gradient, None


def grade_accumulated_gradient(answer):
    """Two batches; nats looks at what it is given and at what is still alive."""

    def watched(weight, parts, nats):
        alive, seen = [0], []

        def watching(given, part):
            seen.append(next((i for i, own in enumerate(parts) if part is own), None))
            if seen[-1] is None or seen.count(seen[-1]) > 1:
                raise Diagnosis("call nats once for each part, with the part itself.")
            if not (isinstance(given, Tensor) and given.requires_grad and torch.is_grad_enabled()):
                raise Diagnosis("no gradient can flow: the weight is detached, or no_grad is on.")
            if alive[0] > 0:
                raise Diagnosis(
                    "the last part's graph was still alive when nats was called again: all parts "
                    "would be in memory together. Go backward after each part."
                )
            return nats(_Watch.apply(given, alive), part)

        got = as_tensor(answer(weight, list(parts), watching))
        if weight.grad is not None:
            raise Diagnosis("a gradient is left in weight.grad, and the next step would add to it.")
        if got.requires_grad:
            raise Diagnosis("your result has a graph of its own; a gradient is plain numbers.")
        return got

    hold(watched, accumulated, ACCUMULATED, ACCUMULATED_WRONG)


# --- 5.3 ------------------------------------------------------------------------------------------
def half_cosine(share):
    return (1 + math.cos(math.pi * share)) / 2


def cosine(step, n_steps, warmup_steps, peak, final, *, low=None, late=0, shape=half_cosine, end=1):
    top, last = max(warmup_steps - 1, 0), n_steps - 1 + late
    if step < top:
        return peak * (step + 1) / warmup_steps
    low = final if low is None else low
    return peak * (low + (1 - low) * shape(min(end, (step - top) / (last - top))))


def cosine_from_zero(step, n_steps, warmup_steps, *rates):
    if step < warmup_steps:
        return rates[0] * step / warmup_steps
    return cosine(step, n_steps, warmup_steps, *rates)


RATES = [
    (step, n_steps, warmup_steps, 0.8, 0.1)
    for n_steps, warmup_steps in ((10, 4), (5, 0), (2, 1), (50, 7))
    for step in range(0, n_steps + 5, 1 + n_steps // 20)
]
RATES_WRONG = [
    (cosine_from_zero, "step 0 gets nothing, and so is lost; its share is 1 / warmup_steps."),
    (
        partial(cosine, shape=lambda share: 1 - share),
        "you fall in a straight line; the task wants half a cosine.",
    ),
    (partial(cosine, low=0.0), "you fall to 0; the last step has final · peak."),
    (partial(cosine, late=1), "you arrive a step later; the last step is n_steps - 1."),
    (partial(cosine, end=INF), "after the end the rate stays; your cosine goes on."),
]


# --- 5.4 ------------------------------------------------------------------------------------------
UPDATE = measured(
    1.0,
    [
        (0.0, "averages that begin at zero have the gradient in them after a step."),
        (-1.0, "how far is asked for, not which way: without a sign."),
        (3.162, "that is m / √v as they are; AdamW divides each by 1 - βᵗ before."),
        (0.001, "that is how far the weight moves; divide by the learning rate."),
    ],
    "one weight, weight.grad = a number, one step of a new torch.optim.AdamW with weight_decay=0; "
    "how many learning rates did it move?",
    "why the size of the gradient drops out",
    tolerance=1e-3,
)


# --- 5.5 ------------------------------------------------------------------------------------------
def spikes(norms, window, factor, *, usual=statistics.median, above=float.__gt__):
    good, steps = [], []
    for step, norm in enumerate(norms):
        limit = factor * usual(good[-window:]) if len(good) >= window else INF
        if not math.isfinite(norm) or above(norm, limit):
            steps.append(step)
        else:
            good.append(norm)
    return steps


def spikes_among_all(norms, window, factor):
    """Spikes get into the median."""
    steps = []
    for step, norm in enumerate(norms):
        usual = statistics.median(norms[step - window : step]) if step >= window else INF
        if not math.isfinite(norm) or norm > factor * usual:
            steps.append(step)
    return steps


ONE = [1.0, 1.0, 1.0]
SPIKES = [
    ([*ONE, 9.0, 2.0], 3, 3.0),
    ([1.0, 50.0, 1.0], 3, 3.0),
    ([*ONE, 3.0], 3, 3.0),
    ([*ONE, *[9.0] * 4], 3, 3.0),
    ([*ONE, NAN, 1.0], 3, 3.0),
    ([NAN, INF, *ONE, 9.0], 3, 3.0),
    ([*[1.0] * 5, *[2.5] * 3, 5.0], 3, 3.0),
    ([1.0, 1.0, 2.9, 4.0], 3, 3.0),
    ([1.0, 3.0, 6.5], 2, 3.0),
    ([1.0, 3.0, 5.0], 2, 3.0),
    ([5.0, 5.0, 5.0, 1.0, 1.0, 1.0, 4.0], 3, 3.0),
]
SPIKES_WRONG = [
    (
        partial(spikes, above=float.__ge__),
        "a spike is ABOVE factor times the median; exactly as much is good.",
    ),
    (spikes_among_all, "spikes get into your median: after three of them, 9 looks usual."),
    (
        partial(spikes, usual=statistics.mean),
        "the median of 1, 1, 2.9 is 1, and 4 is above 3; is yours a mean?",
    ),
    (
        lambda n, *how: spikes([1.0 if math.isnan(norm) else norm for norm in n], *how),
        "NaN > x is False for every x: ask with math.isfinite.",
    ),
]


# --- 5.6 ------------------------------------------------------------------------------------------
def better(a, b, *, by="n_bytes", texts=True, orders=2, least=1, low=min, high=max):
    a_runs, b_runs = ([run["nats"] / run[by] for run in runs] for runs in (a, b))
    chance = orders / math.comb(len(a) + len(b), len(a))
    if (texts and a[0]["text"] != b[0]["text"]) or chance > 0.05 or min(len(a), len(b)) < least:
        return "cannot tell"
    if high(a_runs) < low(b_runs):
        return "a"
    return "b" if high(b_runs) < low(a_runs) else "cannot tell"


def _runs(bits, n_tokens, text="Python's documentation", n_bytes=1000):
    each = {"text": text, "n_tokens": n_tokens, "n_bytes": n_bytes}
    return [each | {"nats": bits_per_byte * n_bytes * math.log(2)} for bits_per_byte in bits]


def _explained(verdict):
    """With a sentence, as an answer has it."""
    return lambda a, b: (verdict(a, b), "because the runs say so")


BETTER = [
    (_runs((3.76, 3.68, 3.71, 3.7), 1000), _runs((2.39, 2.41, 2.36, 2.37), 290)),
    (_runs((2.39, 2.36, 2.4, 2.42), 290), _runs((3.76, 3.68, 3.71, 3.7, 3.69), 1000)),
    (_runs((2.4, 2.5, 2.4, 2.5), 400), _runs((1.2, 1.3, 1.2, 1.3), 400, "the town's stories")),
    (_runs((2.37, 2.50, 2.52, 2.51), 400), _runs((2.40, 2.42, 2.44, 2.41), 290)),
    (_runs((2.41, 2.50, 2.47, 2.49), 400), _runs((2.44, 2.43, 2.48, 2.45), 290)),
    (_runs((2.43, 2.61, 2.43), 470), _runs((2.39, 2.23, 2.39), 290)),
    (_runs((2.43, 2.61), 470), _runs((2.39, 2.23, 2.39, 2.38), 290)),
    (_runs((2.39, 2.23, 2.39), 290), _runs((2.43, 2.61, 2.43, 2.45), 470)),
    (_runs((2.39, 2.23, 2.39), 290), _runs((2.43, 2.61, 2.43, 2.45, 2.44), 470)),
]
BETTER_WRONG = [
    (
        partial(better, by="n_tokens"),
        "you compare per token; the tokens of two tokenizers are not worth the same.",
    ),
    (
        partial(better, texts=False),
        "two different texts prove nothing: one of them may be the easier.",
    ),
    (
        partial(better, low=statistics.mean, high=statistics.mean),
        "you compare means; where the runs overlap, another seed could turn the order round.",
    ),
    (
        partial(better, orders=0),
        "with three runs each, chance alone brings such an order one time in ten: ask first "
        "whether there are enough runs.",
    ),
    (
        partial(better, least=4),
        "three runs against five are enough: they can be split in 56 ways, and 2 ÷ 56 is below 1 "
        "÷ 20.",
    ),
]
NO_REASON = "now say in a sentence what decided, or why nothing can."


def grade_better_model(answer):
    """Nine pairs of models; the verdict is graded, and a reason must be there."""
    reasons = []

    def verdict(a, b):
        got = answer(a, b)
        if not (isinstance(got, tuple | list) and len(got) == 2):
            raise Diagnosis('return your verdict and your sentence, as in "a", "because …".')
        reasons.append(got[1])
        return got[0]

    hold(verdict, better, BETTER, BETTER_WRONG)
    for reason in reasons:
        check_sentence(reason, NO_REASON.removeprefix("now say in a sentence ").rstrip("."))


# --- 5.7 ------------------------------------------------------------------------------------------
def scale_for(sizes, *, up=math.floor, smallest=2.0**-24, tested=True):
    scale = 2.0 ** up(math.log2(65504 / max(sizes)))
    return scale if not tested or scale * min(sizes) >= smallest else "bfloat16"


def scale_for_the_smallest(sizes):
    scale = 2.0 ** math.ceil(math.log2(2.0**-24 / min(sizes)))
    return scale if scale * max(sizes) <= 65504 else "bfloat16"


SIZES = [
    ([1e-9, 1e-3, 0.5],),
    ([3e-4, 300_000.0],),
    ([1e-8, 1000.0],),
    ([1e-13, 0.5],),
    ([1e-10, 0.9],),
    ([0.25],),
]
SIZES_WRONG = [
    (
        partial(scale_for, tested=False),
        "with your scale the smallest of some runs is still lost: then it is 'bfloat16'.",
    ),
    (scale_for_the_smallest, "that is the SMALLEST power of two that saves all; take the largest."),
    (
        partial(scale_for, up=math.ceil),
        "your scale takes the largest number beyond 65,504: round the power of two down.",
    ),
    (
        partial(scale_for, up=float),
        "take a power of two: it changes no digit of the gradients.",
    ),
]


def _number_or_word(got):
    return got if isinstance(got, str) else as_number(got)


GRADERS = {
    "5.1": Grader(
        function="masked_log_probs",
        level="everyone",
        grade=grade_masked_log_probs,
        wrong=LOG_PROBS_WRONG,
        target="minillm.train.losses.token_log_probs",
        hints=(
            "logits.log_softmax(dim=-1) is stable; .gather(-1, ids[..., None]) picks one of V.",
            "Before the look-up: ids = targets.masked_fill(~loss_mask, 0), so that each id exists.",
            "Afterwards: torch.where(loss_mask, picked[..., 0], 0.0)",
        ),
    ),
    "5.2": Grader(
        function="accumulated_gradient",
        level="everyone",
        grade=grade_accumulated_gradient,
        wrong=ACCUMULATED_WRONG,
        hints=(
            "The gradient of a sum is the sum of the gradients; divide once, at the end.",
            "loss.backward() adds a part's gradient to weight.grad, and frees the part's graph.",
            "For each part: loss.backward(), n_tokens += n. Then weight.grad / n_tokens is the "
            "gradient; keep it, and set weight.grad = None.",
        ),
        model_answer=(
            "Sums add up, means do not: the mean of the parts' means gives every token of a short "
            "part more weight than one of a long part. Public trainers did that for years; Hugging "
            "Face's Trainer was mended in October 2024, with transformers 4.46."
        ),
    ),
    "5.3": Grader(
        function="learning_rate",
        level="everyone",
        grade=held(cosine, RATES, RATES_WRONG, read=as_number),
        wrong=RATES_WRONG,
        target="minillm.optim.schedule.Cosine",
        hints=(
            "Two cases: before step warmup_steps - 1 it is peak · (step + 1) / warmup_steps.",
            "After it, the share of the way down: (step - top) / (n_steps - 1 - top), at most 1, "
            "with top = max(warmup_steps - 1, 0).",
            "peak * (final + (1 - final) * (1 + math.cos(math.pi * share)) / 2)",
        ),
    ),
    "5.4": Grader(
        function="first_update_after_a_reset",
        level="stretch",
        **UPDATE,
        hints=(
            "weight = torch.nn.Parameter(torch.zeros(1)); set weight.grad; one optimizer.step().",
            "m = (1 - β₁) g and v = (1 - β₂) g²; then m is divided by 1 - β₁ and v by 1 - β₂.",
            "g / √g² is 1 or -1: the step is one learning rate, whatever g is.",
        ),
        model_answer=(
            "1.0. After one step m is 0.1 g and v is 0.001 g²: without the correction m / √v would "
            "be 3.16. Corrected they are g and g², and g / √g² is ±1: every weight moves by a "
            "whole learning rate, also where the gradient is nothing but noise. "
            "In the middle of a run noise cancels in the first average: of pure noise a step makes "
            "about 0.2 learning rates. So a run that goes on without its optimizer's state begins "
            "with a jolt, and later goes another way: a checkpoint holds both averages and the "
            "step."
        ),
    ),
    "5.5": Grader(
        function="spikes",
        level="stretch",
        grade=held(spikes, SPIKES, SPIKES_WRONG),
        wrong=SPIKES_WRONG,
        hints=(
            "Two lists: the good norms so far, and the numbers of the steps that were none.",
            "statistics.median(good[-window:]), but only if len(good) >= window.",
            "A spike: not math.isfinite(norm), or norm > factor * median. Else good.append(norm).",
        ),
    ),
    "5.6": Grader(
        function="better_model",
        level="everyone",
        grade=grade_better_model,
        wrong=[
            *((_explained(mistake), message) for mistake, message in BETTER_WRONG),
            (lambda a, b: (better(a, b), ""), NO_REASON),
        ],
        hints=(
            "What do both models have in common, whatever their tokenizers: tokens, or bytes?",
            "For each run nats / n_bytes (÷ log 2 for bits, which changes no order). Other texts: "
            "'cannot tell'.",
            "If 2 / math.comb(len(a) + len(b), len(a)) is above 1/20: 'cannot tell'. 'a' if "
            "max(a's runs) < min(b's runs), 'b' the other way round, else 'cannot tell'.",
        ),
        model_answer=(
            "What counts is the same text, per byte, and enough seeds. Of two models that are "
            "equally good, chance alone puts all runs of one below all of the other one time in "
            "three with two runs each, one in ten with three, and with four in 2 of the 70 ways "
            "to mix them: so four each are enough, or three against five (2 of 56). Where a "
            "mistake costs much, one in 35 is too often as well."
        ),
    ),
    "5.7": Grader(
        function="loss_scale",
        level="stretch",
        grade=held(scale_for, SIZES, SIZES_WRONG, read=_number_or_word),
        wrong=SIZES_WRONG,
        hints=(
            "Only two of the sizes matter, the largest and the smallest.",
            "The largest decides: 2 ** floor(log2(65504 / max(sizes))).",
            "The smallest judges: scale * min(sizes) must be at least 2**-24, or it is 'bfloat16'.",
        ),
    ),
}
