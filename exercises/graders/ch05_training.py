"""What `@task` runs for chapter 05.

Chapter: 05
"""

import math
import random
import statistics

import torch
from torch import Tensor

from minillm.lab.grade import Diagnosis, Grader, as_number, as_tensor
from minillm.optim.schedule import Cosine


def grade_masked_log_probs(answer):
    """Two tokens by hand, padding of every kind, large logits, the gradient."""
    logits = torch.tensor([[[3.0, 1.0], [2.0, 2.0]]]).log()
    all_count = torch.ones(1, 2, dtype=torch.bool)
    got = _log_probs(answer, logits, torch.tensor([[0, 1]]), all_count)
    if got.numel() == 1:
        raise Diagnosis("return a number for each token; yours is one for all of them.")
    if got.shape == (1, 2, 1):
        raise Diagnosis("an axis of 1 is left at the end; the result is [B, T].")
    if got.shape != (1, 2):
        raise Diagnosis(f"for logits [1, 2, 2] the result is [1, 2]; yours is {[*got.shape]}.")
    if _near(got, [3 / 4, 1 / 2]):
        raise Diagnosis("these are probabilities; return their logarithms.")
    if _near(got, [math.log(4 / 3), math.log(2)]):
        raise Diagnosis(
            "this is the loss, -log p; here log p is asked for, which is never above 0."
        )
    if _near(got, [math.log(3), math.log(2)]):
        raise Diagnosis("these are the logits; log p is the logit minus logsumexp of its place.")
    if _near(got, [math.log(3 / 5), math.log(2 / 3)]):
        raise Diagnosis("your softmax runs over the places of the text; it is dim=-1, the words.")
    if _near(got, [0, 0]):
        raise Diagnosis("your softmax runs over the rows of the batch; it is dim=-1, the words.")
    if _near(got, [math.log2(3 / 4), -1]):
        raise Diagnosis("that is in bits; take the natural logarithm.")
    if _near(got, [0, math.log(1 / 2)]):
        raise Diagnosis("id 0 is a word like any other: `loss_mask` alone says what is left out.")
    if not _near(got, [math.log(3 / 4), math.log(1 / 2)]):
        raise Diagnosis(
            "p = 3/4 and 1/2 give log p = -0.2877 and -0.6931; yours gives "
            f"{[round(number, 4) for number in got.flatten().tolist()]}."
        )

    torch.manual_seed(0)
    logits, ids = torch.randn(2, 3, 5), torch.tensor([[1, 4, 0], [0, 2, 3]])
    loss_mask = torch.tensor([[True, False, True], [True, True, False]])
    right = torch.where(loss_mask, logits.log_softmax(-1).gather(-1, ids[..., None])[..., 0], 0)
    got = _log_probs(answer, logits, ids.masked_fill(~loss_mask, 0), loss_mask)
    if got.shape != (2, 3):
        raise Diagnosis(f"for logits [2, 3, 5] the result is [2, 3]; yours is {[*got.shape]}.")
    if bool((got[~loss_mask] != 0).any()):
        if not _log_probs(answer, logits, ids.masked_fill(~loss_mask, -100), loss_mask)[
            ~loss_mask
        ].any():
            raise Diagnosis("you leave out ids of -100; what counts is said by `loss_mask` alone.")
        raise Diagnosis("where `loss_mask` is False the result is exactly 0; yours is not.")
    _agree(got, right, "2 rows of 3 tokens come out wrong")
    forbidden = logits.clone()
    forbidden[~loss_mask, 0] = -math.inf
    got = _log_probs(answer, forbidden, ids.masked_fill(~loss_mask, 0), loss_mask)
    if got.isnan().any():
        raise Diagnosis(
            "0 · -inf is NaN: do not multiply by the mask, choose with torch.where or masked_fill."
        )
    _agree(got, right, "wrong where a token that does not count has a logit of -inf")
    for padding_id in (-100, 50_000):
        try:
            got = _log_probs(answer, logits, ids.masked_fill(~loss_mask, padding_id), loss_mask)
        except (IndexError, RuntimeError):
            raise Diagnosis(
                f"your look-up fails at the padding {padding_id}: where `loss_mask` is False, put "
                "an id that exists before you look up."
            ) from None
        _agree(got, right, f"wrong with the padding {padding_id}")

    large = torch.tensor([[[1000.0, 0.0], [1000.0, 0.0]]])
    got = _log_probs(answer, large, torch.tensor([[0, 1]]), all_count).flatten().tolist()
    if not math.isfinite(got[0]):
        raise Diagnosis(
            "exp(1000) overflows: take log_softmax or logsumexp, which subtract the highest first."
        )
    if not math.isfinite(got[1]):
        raise Diagnosis(
            "a softmax of exp(-1000) is 0 and its log -inf; log_softmax does both at once: -1000."
        )
    if not math.isclose(got[1], -1000, rel_tol=1e-3):
        raise Diagnosis(f"logits 1000 and 0, token 1: log p is -1000; yours is {got[1]:.4g}.")

    leaf = logits.clone().requires_grad_()
    got = as_tensor(answer(leaf, ids.masked_fill(~loss_mask, 0), loss_mask))
    if not got.requires_grad:
        raise Diagnosis(
            "no gradient flows through your result; .item(), .detach(), no_grad and torch.tensor "
            "cut it off."
        )
    (gradient,) = torch.autograd.grad(got.sum(), leaf)
    one_hot = torch.nn.functional.one_hot(ids, 5)
    _agree(
        gradient,
        (one_hot - logits.softmax(-1)) * loss_mask[..., None],
        "the gradient comes out wrong",
    )


def grade_accumulated_gradient(answer):
    """Two parts by hand, then four of unequal size against one large batch."""

    def weighted_sum(weight, part):
        return (part @ weight).sum()

    weight = torch.ones(2, requires_grad=True)
    parts = [torch.tensor([[8.0, 0.0]]), torch.tensor([[1.0, 0.0], [1.0, 0.0], [2.0, 3.0]])]
    got = _gradient(answer, weight, parts, weighted_sum)
    for numbers, what in (
        (
            (14 / 3, 1 / 2),
            "that is the mean of the parts' means: 3 tokens weigh as much as 1 does.",
        ),
        ((28 / 3, 1), "that is the sum of the parts' means; divide once, by all tokens."),
        ((12, 3), "that is the gradient of the sum; divide by how many tokens there are in all."),
        ((6, 3 / 2), "you divide by the number of parts; divide by that of all tokens."),
        ((4, 1), "you divide by the tokens of the last part only; count those of all parts."),
        ((4, 3), "that is the last part alone; add up all parts."),
        ((4 / 3, 1), "that is the last part's mean; add up all parts."),
        ((1, 3 / 4), "all tokens are counted, but the gradient is the last part's only."),
        ((5, 3 / 4), "the first part counts twice: weight.grad adds up by itself."),
    ):
        if _near(got, numbers):
            raise Diagnosis(what)
    if not _near(got, (3, 3 / 4)):
        raise Diagnosis(
            "1 token with the gradient (8, 0) and 3 with (4, 3) together give (3, 0.75) a token; "
            f"yours gives {got.tolist()}."
        )
    if weight.grad is not None:
        raise Diagnosis(
            "a gradient is left in weight.grad, and the next step would add to it; set it to None, "
            "or use torch.autograd.grad."
        )
    if not torch.equal(weight, torch.ones(2)):
        raise Diagnosis("weight itself has changed; only its gradient is asked for.")

    def squares(weight, part):
        scores = part @ weight
        return ((scores.exp() + scores**2) * part.any(dim=1)).sum()

    torch.manual_seed(0)
    weight = torch.randn(3, requires_grad=True)
    parts = [torch.randn(5, 3), torch.randn(1, 3), torch.zeros(2, 3), torch.randn(7, 3)]
    (right,) = torch.autograd.grad(squares(weight, torch.cat(parts)) / 13, weight)
    got = _gradient(answer, weight, parts, squares)
    if got.isnan().any():
        raise Diagnosis("a part may have no token: do not divide by the tokens of a single part.")
    if _near(got, (right * 13 / 15).tolist()):
        raise Diagnosis("count the tokens as nats does; not every row of a part need be one.")
    _agree(got, right, "right for two parts, wrong for four with 5, 1, 0 and 7 tokens")


def grade_learning_rate(answer):
    """Ten steps, four of them warm-up: each number that a mistake gives; then the library's."""

    def at(step, n_steps=10, warmup_steps=4):
        try:
            return as_number(answer(step, n_steps, warmup_steps, 0.8, 0.1))
        except ZeroDivisionError:
            raise Diagnosis(
                f"with warmup_steps={warmup_steps} and n_steps={n_steps} you divide by 0 at step "
                f"{step}; how many steps go up, how many down?"
            ) from None

    first, top, last = at(0), at(3), at(9)
    if _close(first, 0):
        raise Diagnosis("step 0 gets nothing, and so is lost; its share is 1 / warmup_steps.")
    if _close(first, 0.8):
        raise Diagnosis("step 0 of 4 warm-up steps gets a quarter of the peak, not all of it.")
    if _close(first, 0.25):
        raise Diagnosis("that is the share of the peak; multiply by the peak.")
    if _close(first, 0.16):
        raise Diagnosis(
            "you share the climb into 5 parts; with 4 warm-up steps step 3 is the peak."
        )
    if not _close(first, 0.2):
        raise Diagnosis(
            f"with 4 warm-up steps and the peak 0.8 step 0 gets 0.2; yours {first:.4g}."
        )
    if not _close(top, 0.8):
        raise Diagnosis(f"step 3, the last of 4 warm-up steps, gets the peak; yours {top:.4g}.")
    if _close(at(4), 0.8) and _close(last, 0.8):
        raise Diagnosis("yours stays at the peak; after the warm-up half a cosine falls.")
    if _close(at(4), 0.8):
        raise Diagnosis(
            "step 3 has the peak, so step 4 is on its way down already; yours has the peak twice."
        )
    for number, what in (
        (0.1, "`final` is a share: the last step gets final · peak."),
        (0.0, "you fall to 0; the last step gets final · peak."),
        (0.8, "that is a whole cosine, down and up again; half of one goes from 0 to π."),
        (_on_the_way(6 / 7), "the last step is n_steps - 1; yours would be there a step later."),
        (_on_the_way(1, 180), "cos takes radians: half a cosine goes from 0 to π, not to 180."),
        (_on_the_way(1, 1), "cos takes radians: half a cosine goes from 0 to π, not to 1."),
    ):
        if _close(last, number):
            raise Diagnosis(what)
    if not _close(last, 0.08):
        raise Diagnosis(f"step 9, the last of 10, gets 0.1 · 0.8 = 0.08; yours {last:.4g}.")
    if _close(at(6), 0.4):
        raise Diagnosis("the cosine itself falls to final · peak; yours falls to 0 and is cut off.")
    if _close(at(6), 0.08 + 0.72 * math.sqrt(0.5)):
        raise Diagnosis("that is a quarter of a cosine, steepest at its end; take half of one.")
    if _close(at(5), _on_the_way(0, 0) - 0.72 / 3):
        raise Diagnosis("you fall in a straight line; the task wants half a cosine.")
    for late in (10, 15, 100):
        if not _close(at(late), 0.08):
            raise Diagnosis(f"after the end the rate stays at 0.08; at step {late} yours is not.")
    if not _close(at(0, n_steps=5, warmup_steps=0), 0.8):
        raise Diagnosis("without a warm-up step 0 has the peak.")
    for n_steps, warmup_steps in ((10, 4), (5, 0), (2, 0), (2, 1), (50, 1), (50, 7), (300, 299)):
        factor = Cosine(n_steps=n_steps, warmup_steps=warmup_steps, final=0.1)
        for step in range(n_steps + 5):
            got, right = at(step, n_steps, warmup_steps), 0.8 * factor(step)
            if not _close(got, right):
                raise Diagnosis(
                    f"n_steps={n_steps}, warmup_steps={warmup_steps}, peak 0.8, final 0.1: step "
                    f"{step} gets {right:.4g}; yours {got:.4g}."
                )


def grade_first_update_after_a_reset(answer):
    """The number is graded; the sentence must be there."""
    got = answer()
    if not (isinstance(got, tuple | list) and len(got) == 2):
        raise Diagnosis('return two things: the number and your sentence, as in 2.0, "because …".')
    number, sentence = got
    if number is None:
        raise Diagnosis("the number is None; measure, and put it there.")
    number = as_number(number)
    if number == 0:
        raise Diagnosis("averages that begin at zero have the gradient in them after one step.")
    if math.isclose(number, -1, abs_tol=1e-3):
        raise Diagnosis("how far is asked for, not which way: without a sign.")
    if math.isclose(number, 0.1, rel_tol=1e-3):
        raise Diagnosis("0.1 is what the first average takes of the gradient; it is corrected.")
    if math.isclose(number, 0.1 / math.sqrt(0.001), rel_tol=1e-2) or math.isclose(
        number, 0.1 / math.sqrt(0.05), rel_tol=1e-2
    ):
        raise Diagnosis("that is m / √v as they are; AdamW divides each by 1 - βᵗ before.")
    if 0 < number < 0.01:
        raise Diagnosis("that is how far the weight moves; divide it by the learning rate.")
    if 0.01 <= number < 0.999:
        raise Diagnosis(
            "so far moves a step in the middle of a run, or one with a tiny gradient; measure the "
            "first step of a new torch.optim.AdamW, with weight_decay=0."
        )
    if not math.isclose(number, 1, abs_tol=1e-3):
        raise Diagnosis(
            f"{number:.4g} is not it: one weight, weight.grad = a number, one step of a new "
            "torch.optim.AdamW with weight_decay=0; how many learning rates did it move?"
        )
    if not isinstance(sentence, str) or (len(sentence.split()) < 4 and len(sentence) < 8):
        raise Diagnosis("the number is right; now say in a sentence why the gradient drops out.")


def grade_spikes(answer):
    """A short list of norms for each mistake, then random ones."""
    bad, one = [1.0, 1.0, 1.0, 9.0, 2.0], [1.0, 1.0, 1.0]
    got = _found(answer, bad, 3)
    if got == [9.0]:
        raise Diagnosis("return the numbers of the steps, not their norms.")
    if got == [4]:
        raise Diagnosis("steps are counted from 0: enumerate(norms) does that.")
    if got == [0, 1, 2, 4]:
        raise Diagnosis("these are the steps to keep; return those to leave out.")
    if got == []:
        raise Diagnosis("after 3 good norms, `window` is full: norm 9 after 1, 1, 1 is a spike.")
    if got != [3]:
        raise Diagnosis(f"1, 1, 1, 9, 2 with window 3 and factor 3 gives [3]; yours gives {got}.")
    if _found(answer, [1.0, 50.0, 1.0], 3):
        raise Diagnosis("fewer than `window` good norms were seen: no finite norm is a spike yet.")
    if _found(answer, [*one, 3.0], 3):
        raise Diagnosis("a spike is ABOVE factor times the median; exactly as much is good.")
    if _found(answer, [1.0, 1.0, 9.0], 2) != [2]:
        raise Diagnosis("a step must not be part of the median that it is measured by.")
    got = _found(answer, [*one, *[9.0] * 4], 3)
    if got == [3, 4]:
        raise Diagnosis("spikes get into your median: after three of them, 9 looks usual.")
    if got != [3, 4, 5, 6]:
        raise Diagnosis(
            "the last 3 GOOD norms count, however far back they lie: after 1, 1, 1 each 9 is a "
            f"spike; yours finds {got}."
        )
    if 3 not in _found(answer, [*one, math.nan, 1.0], 3):
        raise Diagnosis("NaN > x is False for every x: ask with math.isfinite.")
    if _found(answer, [math.nan, math.inf, *one, 9.0], 3) != [0, 1, 5]:
        raise Diagnosis("NaN and infinity are spikes from the first step on, and never good.")
    if _found(answer, [*[1.0] * 5, *[2.5] * 3, 5.0], 3):
        raise Diagnosis("take the last `window` good norms only, not all; norms change slowly.")
    if _found(answer, [1.0, 1.0, 2.9, 4.0], 3) != [3]:
        raise Diagnosis("the median of 1, 1, 2.9 is 1, and 4 is above 3; is yours a mean?")
    if _found(answer, [1.0, 2.9, 1.0, 4.0], 3) != [3]:
        raise Diagnosis("the median of 1, 2.9, 1 is 1: put them in order of size first.")
    if _found(answer, [5.0, 5.0, 5.0, 1.0, 1.0, 1.0, 4.0], 3) != [6]:
        raise Diagnosis("the LAST good norms, in the order of the steps; do not sort all of them.")
    if _found(answer, [1.0, 3.0, 6.5], 2) != [2] or _found(answer, [1.0, 3.0, 5.0], 2):
        raise Diagnosis(
            "the median of two, 1 and 3, is the mean of both, 2; use statistics.median."
        )
    draw = random.Random(0)
    for _ in range(60):
        window = draw.randint(1, 6)
        norms = [math.exp(draw.gauss(0, 0.7)) for _ in range(draw.randint(0, 25))]
        norms = [draw.choice([math.nan, math.inf]) if draw.random() < 0.1 else n for n in norms]
        right, got = _spikes(norms, window, 2.0), _found(answer, norms, window, 2.0)
        if got != right:
            shown = ", ".join(f"{norm:.3g}" for norm in norms)
            raise Diagnosis(
                f"norms {shown} with window {window} and factor 2 give {right}; yours gives {got}."
            )


def _log_probs(answer, logits: Tensor, targets: Tensor, loss_mask: Tensor) -> Tensor:
    given = [logits.clone(), targets.clone(), loss_mask.clone()]
    got = as_tensor(answer(*given))
    if not all(map(torch.equal, given, (logits, targets, loss_mask))):
        raise Diagnosis("you change the tensors that were given; build new ones.")
    return got.detach().to(logits.dtype)


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


def _gradient(answer, weight: Tensor, parts: list[Tensor], sum_of) -> Tensor:
    """The answer's gradient; nats looks at what it is given and at what is still alive.

    A token is a row of a part; rows of zeros are padding.
    """
    alive, seen = [0], []

    def nats(given, part):
        place = next((i for i, own in enumerate(parts) if part is own), None)
        if place is None:
            raise Diagnosis(
                "give nats one of the parts, as it stands in the list; all together do not fit."
            )
        if not (isinstance(given, Tensor) and given.requires_grad and torch.is_grad_enabled()):
            raise Diagnosis(
                "no gradient can flow: the weight was detached, or torch.no_grad is on."
            )
        if place in seen:
            raise Diagnosis("nats is called twice for a part; each call is a whole pass forward.")
        if alive[0] > 0:
            raise Diagnosis(
                "the last part's graph was still alive when nats was called again: all parts would "
                "be in memory together. Go backward after each part."
            )
        seen.append(place)
        return sum_of(_Watch.apply(given, alive), part), int(part.any(dim=1).sum())

    got = as_tensor(answer(weight, list(parts), nats))
    if len(seen) < len(parts):
        raise Diagnosis(f"there are {len(parts)} parts, and nats was called for {len(seen)}.")
    if got.requires_grad:
        raise Diagnosis("your result has a graph of its own; a gradient is plain numbers.")
    if got.shape != weight.shape:
        raise Diagnosis(
            f"the result has the shape of weight, {[*weight.shape]}; yours {[*got.shape]}."
        )
    return got.to(weight.dtype).clone()


def _on_the_way(share: float, half_turn: float = math.pi) -> float:
    """From 0.8 down to 0.08, with whatever someone takes for π."""
    return 0.08 + 0.72 * (1 + math.cos(half_turn * share)) / 2


def _close(got: float, right: float) -> bool:
    return math.isclose(got, right, rel_tol=1e-4, abs_tol=1e-9)


def _found(answer, norms: list[float], window: int, factor: float = 3.0) -> list:
    given = list(norms)
    got = answer(given, window, factor)
    if got is None:
        raise Diagnosis("your function returns nothing; is there a `return`?")
    if not isinstance(got, list | tuple):
        raise Diagnosis(f"return a list of step numbers; yours is {type(got).__name__}.")
    if any(isinstance(step, bool) for step in got):
        raise Diagnosis("return the numbers of the steps, not True or False for each.")
    # by identity, since NaN equals nothing
    if [id(norm) for norm in given] != [id(norm) for norm in norms]:
        raise Diagnosis("you change the list of norms that was given; keep the good ones apart.")
    return list(got)


def _spikes(norms: list[float], window: int, factor: float) -> list[int]:
    good, found = [], []
    for step, norm in enumerate(norms):
        limit = factor * statistics.median(good[-window:]) if len(good) >= window else math.inf
        if norm < math.inf and norm <= limit:  # NaN is neither
            good.append(norm)
        else:
            found.append(step)
    return found


def _near(got: Tensor, numbers) -> bool:
    right = torch.tensor([float(number) for number in numbers])
    return torch.allclose(got.flatten().float(), right, rtol=1e-4, atol=1e-6)


def _agree(got: Tensor, right: Tensor, what: str) -> None:
    if got.shape != right.shape or not torch.allclose(got, right, rtol=1e-4, atol=1e-5):
        targets, found = (
            [round(number, 3) for number in tensor.flatten().tolist()] for tensor in (right, got)
        )
        raise Diagnosis(f"{what}: {targets} would be right; yours gives {found}.")


GRADERS = {
    "5.1": Grader(
        function="masked_log_probs",
        level="everyone",
        grade=grade_masked_log_probs,
        target="minillm.train.losses.token_log_probs",
        hints=(
            "logits.log_softmax(dim=-1) is stable; .gather(-1, ids[..., None]) picks one of V.",
            "Before the look-up: ids = wanted.masked_fill(~counted, 0), so that each id exists.",
            "Afterwards: torch.where(counted, picked[..., 0], 0.0)",
        ),
    ),
    "5.2": Grader(
        function="accumulated_gradient",
        level="everyone",
        grade=grade_accumulated_gradient,
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
        grade=grade_learning_rate,
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
        grade=grade_spikes,
        hints=(
            "Two lists: the good norms so far, and the numbers of the steps that were none.",
            "statistics.median(good[-window:]), but only if len(good) >= window.",
            "A spike: not math.isfinite(norm), or norm > factor * median. Else good.append(norm).",
        ),
    ),
}
