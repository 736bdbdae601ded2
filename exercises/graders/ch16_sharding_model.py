"""What `@task` runs for chapter 16.

Chapter: 16
"""

import torch
from torch.nn.functional import silu

from minillm.lab.diagnose import check_sentence, hold, randn, same, shown, split_sentence
from minillm.lab.grade import Diagnosis, Grader
from minillm.parallel.schedule import simulate


# --- 16.1 -----------------------------------------------------------------------------------------
def _swiglu(x, gate_up, down):
    gate, up = (x @ gate_up.T).chunk(2, dim=-1)
    return (silu(gate) * up) @ down.T


def grade_part_of_ffn(answer):
    """Parts of 1/P of the numbers whose results add up to the whole layer's."""
    for n_ranks, d, f in ((2, 4, 6), (3, 6, 12), (1, 2, 4)):
        gate_up, down, x = randn(2 * f, d), randn(d, f, seed=1), randn(5, d, seed=2)
        given = gate_up.clone(), down.clone()
        parts = [answer(*given, rank, n_ranks) for rank in range(n_ranks)]
        for part in parts:
            _check_part(part, d, f, n_ranks)
        total = sum(_swiglu(x, *part) for part in parts)
        if torch.allclose(total, _swiglu(x, gate_up, down), atol=1e-4):
            continue
        own = sorted(row for part in parts for row in part[0].tolist())
        if own != sorted(gate_up.tolist()):
            raise Diagnosis(
                "the ranks' rows of gate_up are not all its rows, each once; which ones has rank 1?"
            )
        gates = {tuple(row) for row in gate_up[:f].tolist()}
        if any(
            tuple(row) not in gates for part in parts for row in part[0][: f // n_ranks].tolist()
        ):
            raise Diagnosis(
                "some rank's rows of gate are not rows of gate: gate_up is two matrices, one above "
                "the other; cut each of them by itself, and put the two parts together."
            )
        raise Diagnosis(
            "shapes are right, but the ranks' sum is not the layer's y: a rank must keep the same "
            "of the F numbers in gate, in up and in down."
        )


def _check_part(part, d, f, n_ranks):
    if not isinstance(part, tuple | list) or len(part) != 2:
        raise Diagnosis("return two matrices, (gate_up, down).")
    if not all(isinstance(each, torch.Tensor) and each.ndim == 2 for each in part):
        raise Diagnosis("gate_up and down must be matrices, tensors of two axes.")
    shapes, few = [tuple(each.shape) for each in part], f // n_ranks
    if n_ranks > 1 and shapes == [(2 * f, d), (d, f)]:
        raise Diagnosis("each rank keeps all of both matrices; it may keep 1/P of each.")
    if shapes[0] == (2 * f, d // n_ranks) and n_ranks > 1:
        raise Diagnosis(
            "you cut gate_up by its inputs. Then a rank has parts of sums, and silu of a part is "
            "no part of the silu: they would have to be added up in between."
        )
    if shapes[0] != (2 * few, d):
        raise Diagnosis(f"a rank's gate_up should be [{2 * few}, {d}]; yours is {[*shapes[0]]}.")
    if shapes[1] == (d // n_ranks, f) and n_ranks > 1:
        raise Diagnosis(
            f"you cut down by its outputs. Then it needs all {f} numbers in between, and a rank "
            f"has {few} of them."
        )
    if shapes[1] != (d, few):
        raise Diagnosis(f"a rank's down should be [{d}, {few}]; yours is {[*shapes[1]]}.")


def _both(gate_up, down, rank, n, *, gate_axis=0, down_axis=1, turned=0, first=False):
    """The right parts, and some that are wrong in one thing."""
    if gate_axis:
        gate_up = gate_up.chunk(n, dim=1)[rank]
    else:
        place = 0 if first else rank
        gate_up = torch.cat([each.chunk(n)[place] for each in gate_up.chunk(2)])
    return gate_up, down.chunk(n, dim=down_axis)[(rank + turned) % n]


FFN_WRONG = [
    (
        lambda gate_up, down, rank, n: (gate_up.chunk(n)[rank], down.chunk(n, dim=1)[rank]),
        "some rank's rows of gate are not rows of gate",
    ),
    (lambda *given: _both(*given, gate_axis=1), "you cut gate_up by its inputs"),
    (lambda *given: _both(*given, down_axis=0), "you cut down by its outputs"),
    (lambda gate_up, down, rank, n: (gate_up, down), "each rank keeps all of both"),
    (lambda *given: _both(*given, turned=1), "shapes are right"),
    (lambda *given: _both(*given, first=True), "the ranks' rows of gate_up"),
]


# --- 16.2 -----------------------------------------------------------------------------------------
def grade_order_1f1b(answer):
    """All stages' orders, played through: complete, none waits for ever, quick, and keeping few."""
    for n_stages, n_micro in ((2, 4), (4, 8), (4, 2), (1, 3)):
        here = f"with {n_stages} stages and {n_micro} micro-batches"
        orders = [answer(stage, n_stages, n_micro) for stage in range(n_stages)]
        due = {(kind, n) for kind in ("forward", "backward") for n in range(n_micro)}
        for stage, order in enumerate(orders):
            _check_complete(order, due, f"{here}, stage {stage}")
        try:
            timeline = simulate(orders)
        except ValueError as error:
            raise Diagnosis(
                f"{here} the step never ends: {str(error).partition(': ')[2]}"
            ) from None
        kept, seconds = timeline.live, (n_micro + n_stages - 1) * 3
        for stage, most in enumerate(kept):
            if most > n_stages - stage:
                raise Diagnosis(
                    f"{here}, stage {stage} keeps {most} micro-batches at once; it may keep "
                    f"{n_stages - stage}. Each forward pass before the first backward is one more."
                )
        if timeline.seconds > seconds:
            raise Diagnosis(
                f"{here} a step takes {timeline.seconds} seconds, and could take {seconds}: some "
                "stage does too few forward passes before its first backward, and then waits."
            )


def _check_complete(order, due, here):
    if not isinstance(order, list) or not all(
        isinstance(each, tuple | list) and len(each) == 2 for each in order
    ):
        raise Diagnosis('return a list of pairs such as ("forward", 0).')
    actions = [tuple(each) for each in order]
    if strange := [each for each in actions if each not in due]:
        raise Diagnosis(f"{here}: there is no {strange[0][0]} pass of {strange[0][1]} to do.")
    if missing := sorted(due - set(actions)):
        raise Diagnosis(f"{here}: the {missing[0][0]} pass of {missing[0][1]} is missing.")
    if len(actions) > len(due):
        raise Diagnosis(f"{here}: some pass stands there twice.")


def _order(p, m, first, *, rest=True):
    order = [("forward", n) for n in range(first)]
    for n in range(first, m):
        order += [("forward", n), ("backward", n - first)]
    return order + [("backward", n) for n in range(m - first, m)] * rest


ORDER_WRONG = [
    (lambda s, p, m: _order(p, m, m), "with 2 stages and 4 micro-batches, stage 0 keeps 4"),
    (
        lambda s, p, m: _order(p, m, min(p - s, m)),
        "with 2 stages and 4 micro-batches, stage 0 keeps 3",
    ),
    (lambda s, p, m: _order(p, m, 0), "with 2 stages and 4 micro-batches a step takes"),
    (
        lambda s, p, m: _order(p, m, min(p - s - 1, m), rest=False),
        "with 2 stages and 4 micro-batches, stage 0: the backward pass of 3 is missing",
    ),
    (lambda s, p, m: _order(p, m, p - s - 1), "with 4 stages and 2 micro-batches, stage 0"),
    (
        lambda s, p, m: [each for n in range(m) for each in (("backward", n), ("forward", n))],
        "with 2 stages and 4 micro-batches the step never ends",
    ),
]


# --- 16.3 -----------------------------------------------------------------------------------------
def shortest(n_rows, n_stages, fixed, *, n_waiting=None, equal=True):
    waiting = n_stages - 1 if n_waiting is None else n_waiting
    fitting = [m for m in range(1, n_rows + 1) if n_rows % m == 0 or not equal]
    return float(min(fitting, key=lambda m: (m + waiting) * (fixed + n_rows / m)))


MICRO = [(4, 2, 0), (32, 4, 2), (32, 4, 0.25), (64, 8, 3), (12, 3, 1.5), (64, 2, 40), (12, 4, 2.5)]
MICRO_WRONG = [
    (
        lambda rows, p, fixed: float(rows),
        "one row a micro-batch is best only if a pass has no fixed time.",
    ),
    (
        lambda rows, p, fixed: shortest(rows, p, fixed, n_waiting=0),
        "you leave the bubble out: with one micro-batch only one stage works at a time.",
    ),
    (
        lambda rows, p, fixed: shortest(rows, p, fixed, n_waiting=p),
        "in a step each stage waits for p - 1 passes, not for p.",
    ),
    (
        lambda rows, p, fixed: shortest(rows, p, fixed, equal=False),
        "m must divide the rows, so that micro-batches are equal.",
    ),
]
WHY = "why neither few nor many micro-batches are best"


def grade_best_n_micro(answer):
    """The number in all cases; the sentence must be there."""
    sentences = []

    def number(*case):
        (value,), sentence = split_sentence(answer(*case))
        sentences.append(sentence)
        return value

    hold(number, shortest, MICRO, MICRO_WRONG)
    check_sentence(sentences[0], WHY)


# --- 16.4 -----------------------------------------------------------------------------------------
def _plans(n_ranks, n_layers, n_rows, layer_gb, row_gb, card_gb, send, *, bubble=True, alive=min):
    """(seconds, plan, GB) of every plan."""
    for tp in range(1, n_ranks + 1):
        for pp in range(1, n_ranks // tp + 1):
            dp = n_ranks // (tp * pp)
            if dp * tp * pp != n_ranks or n_layers % pp or n_rows % dp:
                continue
            for m in range(1, n_rows // dp + 1):
                if n_rows % (dp * m) == 0:
                    rows, layers = n_rows // (dp * m), n_layers // pp
                    holds = layers * (layer_gb + alive(pp, m) * rows * row_gb) / tp
                    a_layer = rows / tp + (send if tp > 1 else 0)
                    n_passes = m + pp - 1 if bubble else m
                    yield n_passes * layers * a_layer, (dp, tp, pp, m), holds


def plan(*case, memory=True, **options):
    fitting = [each for each in _plans(*case, **options) if each[2] <= case[5] or not memory]
    return min(fitting)[1] if fitting else ()


PLANS = [
    (2, 2, 4, 4, 1, 10, 1),
    (2, 2, 4, 4, 1, 9, 1),
    (2, 2, 4, 4, 1, 3, 1),
    (4, 4, 16, 8, 1, 12, 0.5),
    (8, 8, 32, 6, 1, 14, 0.25),
    (8, 8, 32, 6, 1, 9, 0.25),
    (4, 4, 4, 8, 4, 20, 0.5),
    (8, 4, 16, 8, 2, 20, 0.125),
]
PLANS_WRONG = [
    (
        lambda *case: plan(*case, memory=False),
        "the fastest plan is no use if a rank holds more than its card has.",
    ),
    (
        lambda *case: plan(*case, bubble=False),
        "you leave the bubble out: a step is m + pp - 1 passes of a stage.",
    ),
    (
        lambda *case: plan(*case, alive=lambda pp, m: m),
        "you keep all m micro-batches alive; under 1F1B stage 0 keeps at most pp of them.",
    ),
    (
        lambda *case: plan(*case, alive=lambda pp, m: 1),
        "you keep one micro-batch alive; stage 0 of 1F1B keeps pp, or m if there are fewer.",
    ),
    (
        lambda *case: plan(*case[:6], 0),
        "you leave out what tp sends: send_seconds for each layer and micro-batch.",
    ),
]


def grade_fastest_plan(answer):
    """Any plan is right that fits and takes the least time; mistakes are known by their choices."""
    rights = [plan(*case) for case in PLANS]
    got = [answer(*case) for case in PLANS]
    for each in got:
        if each is None:
            raise Diagnosis("your function returns nothing; is there a `return`?")
        if not isinstance(each, tuple | list) or len(each) not in (0, 4):
            raise Diagnosis("return (dp, tp, pp, m), or () if nothing fits.")
    problems = [_problem(*each) for each in zip(PLANS, got, rights, strict=True)]
    if not any(problems):
        return
    for wrong, message in PLANS_WRONG:
        if all(same(tuple(own), wrong(*case)) for own, case in zip(got, PLANS, strict=True)):
            raise Diagnosis(message)
    raise Diagnosis(next(filter(None, problems)))


def _problem(case, got, right):
    here = f"for ({', '.join(map(shown, case))})"
    known = {each: (seconds, holds) for seconds, each, holds in _plans(*case)}
    if not got:
        return f"{here} something fits: {right}." if right else ""
    if tuple(got) not in known:
        return f"{here} {tuple(got)} does not divide ranks, layers and rows."
    seconds, holds = known[tuple(got)]
    if holds > case[5]:
        return f"{here} {tuple(got)} holds {shown(holds)} GB a rank, more than the card's."
    least = known[right][0]
    if seconds > least + 1e-9:
        return f"{here} {tuple(got)} takes {shown(seconds)} s; a plan of {shown(least)} s fits."
    return ""


GRADERS = {
    "16.1": Grader(
        function="part_of_ffn",
        level="everyone",
        grade=grade_part_of_ffn,
        wrong=FFN_WRONG,
        target="minillm.parallel.tensor.slice_of",
        hints=(
            "silu must get finished numbers, not parts of sums. Which cut of gate_up gives those?",
            "Then a rank has F/P of the F numbers in between. Which columns of down do they meet?",
            "gate, up = gate_up.chunk(2); cut both by rows, the same ones; cut down by columns.",
        ),
    ),
    "16.2": Grader(
        function="order_1f1b",
        level="everyone",
        grade=grade_order_1f1b,
        wrong=ORDER_WRONG,
        target="minillm.parallel.schedule.one_forward_one_backward",
        hints=(
            "The last stage can do backward 0 right behind forward 0. How many forward passes can "
            "the stage before it do until that gradient comes?",
            "Stage s first does p - s - 1 forward passes (or all m, if there are fewer); then "
            "forward and backward in turns.",
            "At the end as many backward passes are left over as there were forward passes first.",
        ),
    ),
    "16.3": Grader(
        function="best_n_micro",
        level="stretch",
        grade=grade_best_n_micro,
        wrong=[
            *(
                ((lambda *c, f=wrong: (f(*c), "because it is so")), text)
                for wrong, text in MICRO_WRONG
            ),
            (lambda *case: (shortest(*case), ""), f"now say in a sentence {WHY}."),
        ],
        hints=(
            "How long is a pass of a stage, and how many passes is the step long, waiting and all?",
            "Time goes as (m + p - 1) · (fixed_seconds + n_rows / m).",
            "Try all m that divide n_rows; min(…, key=…) takes the best.",
        ),
        model_answer=(
            "Few micro-batches: p - 1 passes of waiting are long, since each pass is. Many: each "
            "of the m passes has its fixed time. In between the two are balanced, near the root of "
            "(p - 1) · n_rows / fixed_seconds."
        ),
    ),
    "16.4": Grader(
        function="fastest_plan",
        level="stretch",
        grade=grade_fastest_plan,
        wrong=PLANS_WRONG,
        target="minillm.parallel.plan.best_plan",
        hints=(
            "Three loops: tp, pp, m; dp follows. Skip what does not divide.",
            "rows = n_rows / (dp · m) in a micro-batch; layers = n_layers / pp in a stage; a pass "
            "of a stage takes layers · (rows / tp + send_seconds if tp > 1).",
            "m + pp - 1 passes; layers · (layer_gb + min(pp, m) · rows · row_gb) / tp on a rank.",
        ),
    ),
}
