"""What `@task` runs for chapter 10.

Chapter: 10
"""

import math
from collections import Counter

import torch

from minillm.lab.diagnose import (
    NO_GRADIENT,
    check_sentence,
    held,
    hold,
    measured,
    randn,
    same_gradient,
)
from minillm.lab.grade import Diagnosis, Grader, as_tensor


# --- 10.1 -----------------------------------------------------------------------------------------
def routed(logits, top_k, *, over=-1, largest=True):
    weights, experts = logits.softmax(dim=over).topk(top_k, dim=-1, largest=largest)
    return experts, weights / weights.sum(dim=-1, keepdim=True)


def routed_by_p(logits, top_k):
    return routed(logits, top_k)[0], logits.softmax(dim=-1).topk(top_k, dim=-1).values


def routed_without_softmax(logits, top_k):
    experts = routed(logits, top_k)[0]
    chosen = logits.exp().gather(-1, experts)
    return experts, chosen / chosen.sum(dim=-1, keepdim=True)


def routed_evenly(logits, top_k):
    return routed(logits, top_k)[0], torch.full((len(logits), top_k), 1 / top_k)


TABLE = torch.tensor([[1.0, 4, 2, 3], [12, 1, 6, 5], [2, 3, 1, 14]])
LARGE = torch.tensor([[1000.0, 999.0, 0.0], [-1000.0, -998.0, -997.0]])
ROUTED = [(TABLE.log(), 2), (randn(4, 5), 3), (randn(4, 5), 1), (LARGE, 2)]
ROUTED_WRONG = [
    (routed_by_p, "your weights do not sum to 1 for each token; they are p itself."),
    (
        lambda x, k: routed(x, k, over=0),
        "your softmax runs over the tokens; it is over the experts of each token, dim=-1.",
    ),
    (lambda x, k: routed(x, k, largest=False), "these are the k experts with the SMALLEST p."),
    (routed_evenly, "all count the same in yours; who is twice as probable counts twice as much."),
    (
        routed_without_softmax,
        "exp of a logit of 1000 is infinite; torch.softmax subtracts the largest first.",
    ),
    (lambda x, k: (routed(x, k)[0], routed(x, k)[1].detach()), NO_GRADIENT),
]


def grade_top_k_weights(answer):
    """By hand, other k, large logits; the experts can be indexed with; the gradient."""
    hold(answer, routed, ROUTED, ROUTED_WRONG[:-1], ("the experts", "the weights"))
    if as_tensor(answer(TABLE.log(), 2)[0]).is_floating_point():
        raise Diagnosis("the experts are numbers to index with; yours are floats, not integers.")
    same_gradient(lambda x: answer(x, 3)[1], lambda x: routed(x, 3)[1], randn(4, 5))


# --- 10.2 -----------------------------------------------------------------------------------------
def balance(logits, *, over=-1, f_of=None, p_of=None):
    n_tokens, n_experts = logits.shape
    p = logits.softmax(dim=over)
    f = torch.bincount(logits.argmax(dim=-1), minlength=n_experts) / n_tokens
    of = {"f": f, "P": p.mean(dim=0)}
    return n_experts * (of[f_of or "f"] * of[p_of or "P"]).sum()


def balance_of_the_chosen(logits):
    n_tokens, n_experts = logits.shape
    chosen = torch.nn.functional.one_hot(logits.argmax(dim=-1), n_experts)
    own = (logits.softmax(dim=-1) * chosen).sum(dim=0) / n_tokens
    return n_experts * (chosen.float().mean(dim=0) * own).sum()


IDLE = randn(6, 4) - 9 * torch.eye(4)[3]  # no token is routed to the last expert
BALANCE = [
    (torch.tensor([[6.0, 10, 4], [2, 3, 15], [5, 3, 1], [1, 7, 2], [4, 6, 2]]).log(),),
    (IDLE,),
    (torch.tensor([[1000.0, -1000.0], [999.0, 1000.0], [1000.0, 0.0]]),),
]
BALANCE_WRONG = [
    (
        lambda x: balance(x) / x.shape[1],
        "balanced, yours gives 1 / E, not 1 (is it a mean over the experts?).",
    ),
    (
        lambda x: balance(x, f_of="P"),
        "you push in proportion to P; it is to be f, which COUNTS the tokens that are routed to e.",
    ),
    (
        lambda x: balance(x, p_of="f"),
        "you use the count f alone; through it no gradient flows, so it cannot push.",
    ),
    (lambda x: balance(x, over=0), "your softmax runs over the tokens; it is over the experts."),
    (balance_of_the_chosen, "P is the mean of ALL p of an expert, not of its own tokens' alone."),
    (lambda x: balance(x).detach(), NO_GRADIENT),
]


def grade_load_balance(answer):
    """By hand, with an idle expert, with large logits; the gradient."""
    hold(answer, balance, BALANCE, BALANCE_WRONG[:-1])
    same_gradient(answer, balance, IDLE)


# --- 10.3 -----------------------------------------------------------------------------------------
def mixed(x, experts, weights, functions, *, rank_of=lambda rank: rank, inside=False, add=True):
    y = x.new_zeros(x.shape)
    for e, function in enumerate(functions):
        tokens, rank = (experts == e).nonzero(as_tuple=True)
        if len(tokens):
            scale = weights[tokens, rank_of(rank), None]
            answers = function(scale * x[tokens]) if inside else scale * function(x[tokens])
            y = y.index_add(0, tokens, answers) if add else y.index_copy(0, tokens, answers)
    return y


def mixed_in_the_experts_order(x, experts, weights, functions):
    order, k = experts.flatten().argsort(stable=True), experts.shape[1]
    counts = torch.bincount(experts.flatten(), minlength=len(functions)).tolist()
    parts = x[order // k].split(counts)
    answers = torch.cat([f(part) for f, part in zip(functions, parts, strict=True) if len(part)])
    return (weights[..., None] * answers.view(*experts.shape, -1)).sum(dim=1)


def mixed_token_by_token(x, experts, weights, functions):
    rows = [
        sum(w * functions[e](row[None])[0] for e, w in zip(es.tolist(), ws, strict=True))
        for row, es, ws in zip(x, experts, weights, strict=True)
    ]
    return torch.stack(rows)


SQUARES = [lambda rows, e=e: (e + 1) * rows**2 + e for e in range(4)]
INNER = randn(6, 3, 3).double()
CURVES = [lambda rows, e=e: (rows @ INNER[e]).tanh() for e in range(6)]
MIXED = [
    (
        torch.tensor([[1.0, 2.0], [3.0, -1.0], [-2.0, 0.5], [0.25, 4.0]]),
        torch.tensor([[0, 2], [2, 0], [3, 2], [0, 3]]),  # nobody is routed to 1
        torch.tensor([[0.75, 0.25], [0.625, 0.375], [0.875, 0.125], [0.5625, 0.4375]]),
        SQUARES,
    ),
    (
        randn(7, 3).double(),
        torch.stack(
            [torch.tensor([0, 1, 2, 3, 5])[randn(5, seed=n).argsort()[:3]] for n in range(7)]
        ),
        randn(7, 3, seed=1).double().softmax(dim=1),
        CURVES,
    ),
]
MIXED_WRONG = [
    (
        lambda x, e, w, f: mixed(x, e, torch.ones_like(w), f),
        "the weights are missing; a token's k answers do not count the same.",
    ),
    (
        lambda x, e, w, f: mixed(x, e, w, f, rank_of=torch.zeros_like),
        "all answers have the weight of the first; the pair (n, j) has weights[n, j].",
    ),
    (
        lambda x, e, w, f: mixed(x, e, w, f, add=False),
        "the later expert overwrites the earlier one: add to the token's row.",
    ),
    (
        lambda x, e, w, f: mixed(x, e, w, f, inside=True),
        "the weight multiplies what goes into the expert; it is for what comes out.",
    ),
    (
        mixed_in_the_experts_order,
        "the answers stand in the order of the experts; put them back to their tokens.",
    ),
    (mixed_token_by_token, "function"),
]


def grade_mix(answer):
    """By hand and longer, with functions that count their rows; the gradients."""

    def with_its_calls(x, experts, weights, functions):
        calls = []

        def counting(e):
            return lambda rows: (calls.append((e, len(rows))), functions[e](rows))[1]

        y = answer(x, experts, weights, [counting(e) for e in range(len(functions))])
        needed, times = Counter(experts.flatten().tolist()), Counter(e for e, _ in calls)
        for e, n in calls:
            if times[e] > 1 or n != needed[e]:
                raise Diagnosis(
                    f"function {e} is called {times[e]} times, here with {n} rows; {needed[e]} "
                    "tokens are routed to it: one call with all of them, no call where it is 0."
                )
        return y

    hold(with_its_calls, mixed, MIXED, MIXED_WRONG[:-1])
    x, experts, weights, functions = MIXED[1]
    for place, leaf in ((0, x), (2, weights)):
        given = [x, experts, weights, functions]

        def own(leaf, of, place=place, given=given):
            return of(*[leaf if n == place else each for n, each in enumerate(given)])

        same_gradient(lambda t, own=own: own(t, answer), lambda t, own=own: own(t, mixed), leaf)


# --- 10.4 -----------------------------------------------------------------------------------------
def plan(logits, n_rounds, *, columns=True, rows_first=False):
    n_tokens, n_experts = logits.shape
    log_plan = logits.double()
    for _ in range(n_rounds):
        for dim in (1, 0) if rows_first else (0, 1):
            if dim or columns:
                log_plan = log_plan - log_plan.logsumexp(dim=dim, keepdim=True)
                log_plan = log_plan + (0 if dim else math.log(n_tokens / n_experts))
    return log_plan.exp()


def plan_without_logarithms(logits, n_rounds):
    scaled = logits.double().exp()
    for _ in range(n_rounds):
        scaled = scaled / scaled.sum(dim=0) * len(logits) / logits.shape[1]
        scaled = scaled / scaled.sum(dim=1, keepdim=True)
    return scaled


PLAN = [
    (torch.tensor([[8.0, 1, 1], [6, 3, 1], [4, 2, 2], [5, 1, 4]]).log().double(), 2),
    (2 * randn(6, 3).double(), 50),
    (torch.tensor([[1000.0, 999.0], [1000.0, 998.0]]).double(), 3),
    (torch.tensor([[1000.0, -1000.0], [1000.0, -1000.0]]).double(), 3),
]
PLAN_WRONG = [
    (
        lambda x, n: plan(x, n, columns=False),
        "that is a softmax: the rows alone. Scale the columns, too.",
    ),
    (
        lambda x, n: plan(x, n, rows_first=True),
        "rows first, then columns; it is the other way round, so the rows come out exact.",
    ),
    (lambda x, n: plan(x, 1), "that is one round; there are to be n_rounds."),
    (lambda x, n: plan(x.softmax(dim=1), n), "you begin with a softmax; begin with exp(logits)."),
    (
        plan_without_logarithms,
        "exp(1000) is infinite: keep the logarithm of the plan, and take exp at the very end.",
    ),
]


# --- 10.5 -----------------------------------------------------------------------------------------
def _over(room: int) -> float:
    """How many tokens one expert of 8 turns away, in the mean, if 64 come at random."""
    return sum(math.comb(64, n) * 7 ** (64 - n) / 8**64 * (n - room) for n in range(room + 1, 65))


SHARE = _over(8) / 8
SHARES = measured(
    SHARE,
    [
        (0.0, "there is as much room as tokens, but chance does not fill it evenly; measure."),
        (100 * SHARE, "that is in percent; a share lies between 0 and 1."),
        (64 * SHARE, "that is how many tokens find no room; divide by 64."),
        (1 - SHARE, "that is the share that finds room; how many do not?"),
        (_over(10) / 8, "that is with room for 10, a factor of 1.25; here it is 1: room for 8."),
    ],
    "route_switch(torch.randn(64, 8), capacity=8).n_dropped / 64, in the mean over 50 draws or "
    "more.",
    "why as much room as tokens is not enough",
    tolerance=0.16,  # one draw scatters by 0.038, the mean of 50 by 0.0054
)


# --- 10.6 -----------------------------------------------------------------------------------------
WHY = "for how many readers a sparse model is as fast as a dense one of its active size"
BECAUSE = "for one reader only the active parameters are read"


def needed(part, n_readers):
    """The part of the experts that at least one reader needs, in the mean."""
    return 1 - (1 - part) ** n_readers


def serve(models, memory, bandwidth, speed, n_readers, *, read=needed, fits=lambda part: 1):
    possible = {}
    for name, (always, experts, part, loss) in models.items():
        stored = always + experts * fits(part)
        loaded = always + experts * read(part, n_readers)
        if 2 * stored <= memory and 2 * loaded * speed <= bandwidth:
            possible[name] = loss
    return min(possible, key=possible.get) if possible else "none", BECAUSE


def serve_each(models, memory, bandwidth, speed, n_readers):
    """As if what two readers need were read twice."""
    return serve(models, memory, bandwidth / n_readers, speed, 1)


MODELS = {"small": (3, 0, 1, 2.4), "dense": (13, 0, 1, 2.0), "sparse": (2, 44, 1 / 4, 1.8)}
MODELS |= {"many": (1, 120, 1 / 30, 1.9), "large": (70, 0, 1, 1.7)}
SERVE = [
    (MODELS, 64.0, 900.0, 30.0, 1),  # dense: sparse has room for its active part alone
    (MODELS, 100.0, 900.0, 30.0, 1),  # sparse; read whole, it would be too slow
    (MODELS, 300.0, 900.0, 30.0, 1),  # sparse: large is too slow, many is worse
    (MODELS, 300.0, 200.0, 15.0, 1),  # many: the others read too much
    (MODELS, 48.0, 250.0, 15.0, 1),  # small
    (MODELS, 4.0, 900.0, 30.0, 1),  # none
    (MODELS, 300.0, 900.0, 20.0, 2),  # sparse, because both readers may choose the same expert
    (MODELS, 300.0, 900.0, 30.0, 3),  # many: with few readers few of its experts are read
    (MODELS, 300.0, 900.0, 30.0, 8),  # dense, which is read once for all
    (MODELS, 300.0, 3000.0, 30.0, 32),  # sparse, read whole
]
SERVE_WRONG = [
    (
        lambda *a: serve(*a, fits=lambda part: part),
        "you let a model in whose ACTIVE parameters fit; all of them have to lie in memory.",
    ),
    (
        lambda *a: serve(*a, read=lambda part, n: 1),
        "you read ALL parameters at each step; an expert that no reader needs is not read.",
    ),
    (
        lambda *a: serve(*a, read=lambda part, n: part),
        "you reckon with one reader; an expert is read if ANY of the readers needs it.",
    ),
    (
        lambda *a: serve(*a, read=lambda part, n: min(1, n * part)),
        "your readers all choose different experts; some choose the same, which is read once.",
    ),
    (serve_each, "you read the weights once for EACH reader; what several need is read once."),
    (lambda *a: (serve(*a)[0], ""), f"now say in a sentence {WHY}."),
]


def grade_model_to_serve(answer):
    """The names are graded; the sentence must be there."""
    sentences = []

    def named(*case):
        got = answer(*case)
        if not (isinstance(got, tuple | list) and len(got) == 2):
            raise Diagnosis('return the name and your sentence, as in "dense", "because …".')
        sentences.append(got[1])
        return got[0], BECAUSE

    hold(named, serve, SERVE, SERVE_WRONG[:-1], ("the name", "the sentence"))
    for sentence in sentences:
        check_sentence(sentence, WHY)


# --- 10.7 -----------------------------------------------------------------------------------------
def factor_of(counts, factors, most, *, over=max, rounded=math.ceil, choose=min, whole=False):
    def dropped(batch, factor):
        room = rounded(factor * sum(batch) / len(batch))
        return sum((n if whole else n - room) for n in batch if n > room) / sum(batch)

    enough = [f for f in factors if over([dropped(b, f) for b in counts]) <= most]
    return choose(enough) if enough else "none"


def _mean(values):
    return sum(values) / len(values)


FACTORS = [2.0, 1.25, 3.0, 1.0, 1.5]
FACTOR = [
    ([[3, 1], [2, 2]], FACTORS, 0.1),
    ([[10, 6, 8, 8], [16, 2, 4, 10]], FACTORS, 0.07),  # its second batch needs 2
    ([[9, 7, 8, 8], [10, 8, 8, 6]], FACTORS, 0.07),
    ([[9, 1, 1, 1]], FACTORS, 0.0),
    ([[16, 0, 0, 0]], FACTORS, 0.1),  # nothing is enough
]
FACTOR_WRONG = [
    (
        lambda *a: factor_of(*a, over=_mean),
        "you take the mean over batches; NO batch may lose more than that.",
    ),
    (
        lambda *a: factor_of(*a, rounded=math.floor),
        "you round the room down; it is rounded up: room for 2.5 is room for 3.",
    ),
    (
        lambda *a: factor_of(*a, choose=lambda enough: enough[0]),
        "you take the first factor that is enough; the list is in no order.",
    ),
    (lambda *a: factor_of(*a, choose=max), "you take the largest factor; room costs memory."),
    (
        lambda *a: factor_of(*a, whole=True),
        "you count all tokens of a full expert; those for which there is room are not dropped.",
    ),
]


GRADERS = {
    "10.1": Grader(
        function="top_k_weights",
        level="everyone",
        grade=grade_top_k_weights,
        wrong=ROUTED_WRONG,
        target="minillm.experts.routing.route_top_k",
        hints=(
            "logits.softmax(dim=-1) is p; tensor.topk gives values and indices at once, in order.",
            "values, experts = logits.softmax(dim=-1).topk(top_k, dim=-1)",
            "values / values.sum(dim=-1, keepdim=True) are the weights; the experts come first.",
        ),
    ),
    "10.2": Grader(
        function="load_balance",
        level="everyone",
        grade=grade_load_balance,
        wrong=BALANCE_WRONG,
        target="minillm.experts.routing.load_balance",
        hints=(
            "Linear in P, with f as factors: add up f · P. Which factor makes it 1 if balanced?",
            "f: torch.bincount(logits.argmax(dim=-1), minlength=n_experts), divided by the tokens.",
            "P is logits.softmax(dim=-1).mean(dim=0), and the loss n_experts * (f * P).sum().",
        ),
    ),
    "10.3": Grader(
        function="mix",
        level="stretch",
        grade=grade_mix,
        wrong=MIXED_WRONG,
        target="minillm.experts.moe.moe_naive",
        hints=(
            "A loop over the experts, not over the tokens: who is routed to expert e?",
            "tokens, rank = (experts == e).nonzero(as_tuple=True); where there are none, go on.",
            "y = y.index_add(0, tokens, weights[tokens, rank, None] * function(x[tokens]))",
        ),
    ),
    "10.4": Grader(
        function="sinkhorn_routing",
        level="stretch",
        grade=held(plan, PLAN, PLAN_WRONG),
        wrong=PLAN_WRONG,
        hints=(
            "The logarithm of the plan is logits at first; to scale is to subtract there.",
            "Columns: plan - plan.logsumexp(dim=0, keepdim=True) + math.log(n_tokens / n_experts)",
            "Rows: plan - plan.logsumexp(dim=1, keepdim=True); after all rounds plan.exp().",
        ),
    ),
    "10.5": Grader(
        function="share_without_a_place",
        level="everyone",
        **SHARES,
        hints=(
            "route_switch(torch.randn(64, 8), capacity=8).n_dropped is the count of one draw.",
            "Add it up over 500 draws, and divide by 500 · 64.",
            "Of 8 experts with room for 8, how many get exactly 8 tokens, when chance decides?",
        ),
        model_answer=(
            "0.13: of 64 tokens 8.4 find no room. An expert gets 8 tokens in the mean, but that "
            "scatters by √7 = 2.6, and only every seventh expert gets exactly 8. One that gets "
            "more drops 2.6 tokens in the mean, while as much room stays empty elsewhere. With a "
            "factor of 1.25, room for 10 here, 4.5 % are dropped. Large batches help: of 512 "
            "tokens with room for 64 it is 4.7 %. And all this is for a router without "
            "favourites: if all tokens are routed to one expert, 7 of 8 are dropped."
        ),
    ),
    "10.6": Grader(
        function="model_to_serve",
        level="everyone",
        grade=grade_model_to_serve,
        wrong=SERVE_WRONG,
        hints=(
            "Two conditions: what is stored (everything), and what is read in a step.",
            "One reader does without an expert with the chance 1 - part; and all n_readers, "
            "who choose independently? Only then it is not read.",
            "read = always + in_experts * (1 - (1 - part) ** n_readers), in billions; 2 * read * "
            "tokens_per_s is at most bandwidth_gb_s.",
        ),
        model_answer=(
            "All parameters are stored: memory is asked for 2 · 46 = 92 GB. But for one reader's "
            "token only the 13 billion active ones are read, 26 GB, exactly as for a dense model "
            "of 13 billion: with 900 GB/s both write 34 tokens a second. With n readers an expert "
            "stays unread only with the chance (3/4)ⁿ. Two readers need 42 GB a step, 8 need 83 "
            "GB, 32 all 92; the dense model is read once for all, 26 GB. So the sparse model is "
            "as fast for one reader, and slower with each that joins. (With hundreds of tokens "
            "for each expert multiplying takes longer than reading; that is another reckoning.)"
        ),
    ),
    "10.7": Grader(
        function="smallest_capacity_factor",
        level="stretch",
        grade=held(factor_of, FACTOR, FACTOR_WRONG),
        wrong=FACTOR_WRONG,
        hints=(
            "room = math.ceil(factor * sum(batch) / len(batch)); max(0, n - room) are dropped.",
            "A factor is good enough if the worst batch is: max over the batches.",
            "min of all factors that are good enough, or 'none' if there is none.",
        ),
    ),
}
