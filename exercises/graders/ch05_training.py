"""What `@task` runs for chapter 05.

Chapter: 05
"""

import math
import statistics

import torch
from torch import Tensor

from minillm.lab.diagnose import hold, same, shown
from minillm.lab.grade import Diagnosis, Grader, as_number, as_tensor

NAN, INF = math.nan, math.inf


# --- 5.1 ------------------------------------------------------------------------------------------
def log_probs(logits, targets, loss_mask, *, dim=-1):
    ids = targets.masked_fill(~loss_mask, 0)[..., None]
    picked = logits.log_softmax(dim).gather(-1, ids)[..., 0]
    return torch.where(loss_mask, picked, 0.0)


def log_probs_of_all(logits, targets, loss_mask):
    return log_probs(logits, targets, torch.ones_like(loss_mask))


def log_probs_in_two_steps(logits, targets, loss_mask):
    p = logits.softmax(-1).gather(-1, targets[..., None])[..., 0]
    return torch.where(loss_mask, p.log(), 0.0)


MASK = torch.tensor([[True, False, True], [True, True, False]])
IDS = torch.tensor([[1, 4, 0], [0, 2, 3]]).masked_fill(~MASK, 0)
LOGITS = torch.randn(2, 3, 5, generator=torch.Generator().manual_seed(0))
FORBIDDEN = LOGITS.masked_fill(~MASK[..., None] & (torch.arange(5) == 0), -INF)
LOG_PROBS = [
    (
        torch.tensor([[[3.0, 1.0], [2.0, 2.0]]]).log(),
        torch.tensor([[0, 1]]),
        torch.ones(1, 2, dtype=torch.bool),
    ),
    (LOGITS, IDS, MASK),
    (FORBIDDEN, IDS, MASK),
    (
        torch.tensor([[[1000.0, 0.0], [1000.0, 0.0]]]),
        torch.tensor([[0, 1]]),
        torch.ones(1, 2, dtype=torch.bool),
    ),
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
        "0 · -inf is NaN: do not multiply by the mask, choose with torch.where or masked_fill.",
    ),
    (
        lambda x, t, m: log_probs(x, t, m, dim=1),
        "your softmax runs over the positions of the text; it is dim=-1, the vocabulary.",
    ),
    (
        log_probs_in_two_steps,
        "a softmax of exp(-1000) is 0 and its log -inf; log_softmax does both at once: -1000.",
    ),
]


def grade_masked_log_probs(answer):
    """Four cases, padding that is no id, and the gradient."""

    def numbers(logits, targets, loss_mask):
        return as_tensor(answer(logits, targets, loss_mask)).detach()

    hold(numbers, log_probs, LOG_PROBS, LOG_PROBS_WRONG)
    for padding in (-100, 50_000):
        try:
            hold(numbers, log_probs, [(LOGITS, IDS.masked_fill(~MASK, padding), MASK)])
        except (IndexError, RuntimeError):
            raise Diagnosis(
                f"your look-up fails at the padding {padding}: where `loss_mask` is False, put an "
                "id that exists before you look up."
            ) from None
    leaf = LOGITS.clone().requires_grad_()
    got = as_tensor(answer(leaf, IDS, MASK))
    if not got.requires_grad:
        raise Diagnosis("no gradient flows; .item(), .detach() and torch.tensor cut it off.")
    right = (torch.nn.functional.one_hot(IDS, 5) - LOGITS.softmax(-1)) * MASK[..., None]
    if not same(torch.autograd.grad(got.sum(), leaf)[0], right):
        raise Diagnosis("the numbers are right, and their gradient is not.")


# --- 5.2 ------------------------------------------------------------------------------------------
def gradients(weight, parts, nats):
    """The gradient and the number of tokens of each part."""
    pairs = []
    for part in parts:
        loss, n = nats(weight, part)
        pairs.append((torch.autograd.grad(loss, weight)[0], n))
    return zip(*pairs, strict=True)


def accumulated(weight, parts, nats):
    g, n = gradients(weight, parts, nats)
    return sum(g) / sum(n)


def accumulated_means(weight, parts, nats, *, divided=True):
    g, n = gradients(weight, parts, nats)
    total = sum(each / tokens for each, tokens in zip(g, n, strict=True))
    return total / len(parts) if divided else total


def accumulated_divided(weight, parts, nats, by):
    g, n = gradients(weight, parts, nats)
    return sum(g) / by(n)


def weighted_sum(weight, part):
    return (part @ weight).sum(), len(part)


def squares(weight, part):
    """A token is a row; rows of zeros are padding."""
    scores, counts = part @ weight, part.any(dim=1)
    return ((scores.exp() + scores**2) * counts).sum(), int(counts.sum())


_draw = torch.Generator().manual_seed(0)
ACCUMULATED = [
    (
        torch.ones(2, requires_grad=True),
        [torch.tensor([[8.0, 0.0]]), torch.tensor([[1.0, 0.0], [1.0, 0.0], [2.0, 3.0]])],
        weighted_sum,
    ),
    (
        torch.randn(3, generator=_draw).requires_grad_(),
        [torch.randn(5, 3, generator=_draw), torch.zeros(2, 3), torch.randn(7, 3, generator=_draw)],
        squares,
    ),
]
ACCUMULATED_WRONG = [
    (accumulated_means, "that is the mean of the parts' means: 3 tokens weigh as much as 1 does."),
    (
        lambda w, p, f: accumulated_means(w, p, f, divided=False),
        "that is the sum of the parts' means; divide once, by all tokens.",
    ),
    (
        lambda w, p, f: accumulated_divided(w, p, f, lambda n: 1),
        "that is the gradient of the sum; divide by how many tokens there are in all.",
    ),
    (
        lambda w, p, f: accumulated_divided(w, p, f, len),
        "you divide by the number of parts; divide by that of all tokens.",
    ),
    (
        lambda w, p, f: accumulated_divided(w, p, f, lambda n: n[-1]),
        "you divide by the tokens of the last part only; count those of all parts.",
    ),
    (
        lambda w, p, f: accumulated_divided(w, p, f, lambda n: sum(map(len, p))),
        "count the tokens as nats does; not every row of a part need be one.",
    ),
]


class _Watch(torch.autograd.Function):
    """The same weight; tells when the way back has arrived at it."""

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
def cosine(step, n_steps, warmup_steps, peak, final, *, turn=math.pi, late=0, cut=True, to=None):
    top, last = max(warmup_steps - 1, 0), n_steps - 1 + late
    if step < top:
        return peak * (step + 1) / warmup_steps
    share = (step - top) / (last - top)
    share = min(1.0, share) if cut else share
    low = final if to is None else to
    return peak * (low + (1 - low) * (1 + math.cos(turn * share)) / 2)


def cosine_from_zero(step, n_steps, warmup_steps, peak, final):
    if step < warmup_steps:
        return peak * step / warmup_steps
    return cosine(step, n_steps, warmup_steps, peak, final)


def straight_line(step, n_steps, warmup_steps, peak, final):
    top, last = max(warmup_steps - 1, 0), n_steps - 1
    if step < top:
        return peak * (step + 1) / warmup_steps
    return peak * (1 - (1 - final) * min(1.0, (step - top) / (last - top)))


RATES = [
    (step, n_steps, warmup_steps, 0.8, 0.1)
    for n_steps, warmup_steps in ((10, 4), (5, 0), (2, 1), (50, 7))
    for step in range(0, n_steps + 5, 1 + n_steps // 20)
]
RATES_WRONG = [
    (cosine_from_zero, "step 0 gets nothing, and so is lost; its share is 1 / warmup_steps."),
    (straight_line, "you fall in a straight line; the task wants half a cosine."),
    (lambda *a: cosine(*a, to=0.0), "you fall to 0; the last step has final · peak."),
    (lambda *a: cosine(*a, turn=2 * math.pi), "that is a whole cosine, down and up again."),
    (lambda *a: cosine(*a, late=1), "you arrive a step later; the last step is n_steps - 1."),
    (lambda *a: cosine(*a, cut=False), "after the end the rate stays; your cosine goes on."),
]


# --- 5.4 ------------------------------------------------------------------------------------------
BECAUSE = "because both averages hold this one gradient"
UPDATE_WRONG = [
    (lambda: (0.0, BECAUSE), "averages that begin at zero have the gradient in them after a step."),
    (lambda: (-1.0, BECAUSE), "how far is asked for, not which way: without a sign."),
    (lambda: (3.162, BECAUSE), "that is m / √v as they are; AdamW divides each by 1 - βᵗ before."),
    (lambda: (0.001, BECAUSE), "that is how far the weight moves; divide by the learning rate."),
    (lambda: (0.23, BECAUSE), "so far goes a step in the middle of a run; measure the first."),
    (lambda: (1.0, "Adam"), "now say in a sentence why the size of the gradient drops out."),
]


def grade_first_update_after_a_reset(answer):
    """The number is graded; the sentence must be there."""
    got = answer()
    if not (isinstance(got, tuple | list) and len(got) == 2):
        raise Diagnosis('return two things: the number and your sentence, as in 2.0, "because …".')
    number, sentence = as_number(got[0]), got[1]
    messages = [message for _, message in UPDATE_WRONG]
    for between, message in zip(
        ((0, 0), (-1.001, -0.999), (3.1, 3.3), (1e-9, 0.0999), (0.1, 0.998)), messages, strict=False
    ):
        if between[0] <= number <= between[1]:
            raise Diagnosis(message)
    if not math.isclose(number, 1, abs_tol=1e-3):
        raise Diagnosis(
            f"{shown(number)} is not it: one weight, weight.grad = a number, one step of a new "
            "torch.optim.AdamW with weight_decay=0; how many learning rates did it move?"
        )
    if not isinstance(sentence, str) or (len(sentence.split()) < 4 and len(sentence) < 8):
        raise Diagnosis(messages[-1])


# --- 5.5 ------------------------------------------------------------------------------------------
def spikes(norms, window, factor, *, usual=statistics.median, from_=0, above=float.__gt__, all_=0):
    good, found = [], []
    for step, norm in enumerate(norms, from_):
        last = good if all_ else good[-window:]
        limit = factor * usual(last) if len(good) >= window else INF
        if not math.isfinite(norm) or above(norm, limit):
            found.append(step)
        else:
            good.append(norm)
    return found


def spikes_among_all(norms, window, factor):
    """Spikes get into the median."""
    found = []
    for step, norm in enumerate(norms):
        usual = statistics.median(norms[step - window : step]) if step >= window else INF
        if not math.isfinite(norm) or norm > factor * usual:
            found.append(step)
    return found


def spikes_but_nan(norms, window, factor):
    return spikes([1.0 if math.isnan(norm) else norm for norm in norms], window, factor)


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
    (lambda n, w, f: spikes(n, w, f, from_=1), "steps are counted from 0: enumerate does that."),
    (
        lambda n, w, f: spikes(n, w, f, above=float.__ge__),
        "a spike is ABOVE factor times the median; exactly as much is good.",
    ),
    (spikes_among_all, "spikes get into your median: after three of them, 9 looks usual."),
    (
        lambda n, w, f: spikes(n, w, f, all_=1),
        "take the last `window` good norms only, not all; norms change slowly.",
    ),
    (
        lambda n, w, f: spikes(n, w, f, usual=statistics.mean),
        "the median of 1, 1, 2.9 is 1, and 4 is above 3; is yours a mean?",
    ),
    (spikes_but_nan, "NaN > x is False for every x: ask with math.isfinite."),
]


# --- 5.6 ------------------------------------------------------------------------------------------
LOG_2 = math.log(2)


def better(a, b, spread, *, by="n_bytes", unit=LOG_2, texts=True, noise=True):
    bits_a, bits_b = (each["nats"] / unit / each[by] for each in (a, b))
    if (texts and a["text"] != b["text"]) or (noise and abs(bits_a - bits_b) <= spread):
        return "cannot tell"
    return "a" if bits_a < bits_b else "b"


def _evaluation(bits, n_tokens, text="Python's documentation", n_bytes=1000):
    nats = bits * n_bytes * LOG_2
    return {"text": text, "nats": nats, "n_tokens": n_tokens, "n_bytes": n_bytes}


BETTER = [
    (_evaluation(2.0, 1000), _evaluation(1.5, 300), 0.05),
    (_evaluation(1.5, 300), _evaluation(2.0, 1000), 0.05),
    (_evaluation(1.5, 300), _evaluation(1.2, 300, "the town's stories"), 0.05),
    (_evaluation(1.5, 300), _evaluation(1.54, 280), 0.05),
    (_evaluation(1.5, 300), _evaluation(1.56, 280), 0.05),
]
BETTER_WRONG = [
    (
        lambda a, b, s: better(a, b, s, by="n_tokens"),
        "you compare by the token; the tokens of two tokenizers are not worth the same.",
    ),
    (
        lambda a, b, s: better(a, b, s, texts=False),
        "two different texts prove nothing: one of them may be the easier.",
    ),
    (
        lambda a, b, s: better(a, b, s, noise=False),
        "a difference of at most `spread` could be another seed's: 'cannot tell'.",
    ),
    (
        lambda a, b, s: {"a": "b", "b": "a"}.get(said := better(a, b, s), said),
        "a and b are exchanged: fewer bits are better.",
    ),
    (
        lambda a, b, s: better(a, b, s, unit=1.0),
        "`spread` is in bits, and you compare it with nats: divide by log 2.",
    ),
]


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
        lambda s: scale_for(s, tested=False),
        "with your scale the smallest of some runs is still lost: then it is 'bfloat16'.",
    ),
    (scale_for_the_smallest, "that is the SMALLEST power of two that saves all; take the largest."),
    (
        lambda s: scale_for(s, up=math.ceil),
        "your scale takes the largest number beyond 65,504: round the power of two down.",
    ),
    (
        lambda s: scale_for(s, up=lambda power: power),
        "take a power of two: it changes no digit of the gradients.",
    ),
    (
        lambda s: scale_for(s, smallest=2.0**-14),
        "float16 goes on below 2⁻¹⁴ with fewer digits; its smallest number is 2⁻²⁴.",
    ),
]


# --- all ------------------------------------------------------------------------------------------
def _held(right, cases, wrong):
    return lambda answer: hold(answer, right, cases, wrong)


def _rate(answer):
    """A learning rate is a number, of whatever type."""
    hold(lambda *case: as_number(answer(*case)), cosine, RATES, RATES_WRONG)


def _spikes(answer):
    """Step numbers in a list, or in a tuple."""
    hold(answer, spikes, SPIKES, SPIKES_WRONG)


def _scale(answer):
    """A number of whatever type, or a word."""

    def called(sizes):
        got = answer(sizes)
        return got if isinstance(got, str) else as_number(got)

    hold(called, scale_for, SIZES, SIZES_WRONG)


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
            "torch.autograd.grad(loss, weight)[0] is a part's gradient, and frees its graph.",
            "For each part: total += its gradient, n_tokens += n. Then total / n_tokens.",
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
        grade=_rate,
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
        grade=grade_first_update_after_a_reset,
        wrong=UPDATE_WRONG,
        hints=(
            "weight = torch.nn.Parameter(torch.zeros(1)); set weight.grad; one optimizer.step().",
            "m = (1 - β₁) g and v = (1 - β₂) g²; then m is divided by 1 - β₁ and v by 1 - β₂.",
            "g / √g² is 1 or -1: the step is one learning rate, whatever g is.",
        ),
        model_answer=(
            "1.0. After one step the corrected averages are g and g², and g / √g² is ±1: every "
            "weight moves by a whole learning rate, also where the gradient is nothing but noise. "
            "In the middle of a run noise cancels in the first average: of pure noise a step makes "
            "about 0.2 learning rates. So a run that goes on without its optimizer's state begins "
            "with a jolt, and later goes another way: a checkpoint holds both averages and the "
            "step."
        ),
    ),
    "5.5": Grader(
        function="spikes",
        level="stretch",
        grade=_spikes,
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
        grade=_held(better, BETTER, BETTER_WRONG),
        wrong=BETTER_WRONG,
        hints=(
            "What do both models have in common, whatever their tokenizers: tokens, or bytes?",
            "bits a byte = nats / log 2 / n_bytes, for each of the two.",
            "'cannot tell' first: other texts, or abs(bits_a - bits_b) <= spread.",
        ),
    ),
    "5.7": Grader(
        function="loss_scale",
        level="stretch",
        grade=_scale,
        wrong=SIZES_WRONG,
        hints=(
            "Only two of the sizes matter, the largest and the smallest.",
            "The largest decides: 2 ** floor(log2(65504 / max(sizes))).",
            "The smallest judges: scale * min(sizes) must be at least 2**-24, or it is 'bfloat16'.",
        ),
    ),
}
