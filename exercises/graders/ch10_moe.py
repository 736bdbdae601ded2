"""What `@task` runs for chapter 10.

Chapter: 10
"""

import math
from collections import Counter
from collections.abc import Callable

import torch
from torch import Tensor

from minillm.lab.grade import Diagnosis, Grader, as_number, as_tensor


def grade_top_k_weights(answer):
    """Three tokens by hand, on which each mistake shows; other k, large logits, the gradient."""
    table = torch.tensor([[1.0, 4, 2, 3], [12, 1, 6, 5], [2, 3, 1, 14]])
    logits, router_probabilities = table.log(), table / table.sum(dim=1, keepdim=True)
    experts, weights = _experts_and_weights(answer, logits, 2)
    top = router_probabilities.topk(2)
    right = top.indices
    over_tokens = logits.softmax(dim=0)
    _tell(
        experts.float(),
        (right.flip(1), "the experts rise: the one with the largest p comes first."),
        (right.sort().values, "these are in the order of their numbers; the largest p is first."),
        (
            router_probabilities.topk(2, largest=False).indices,
            "these are the k experts with the SMALLEST p.",
        ),
        (
            over_tokens.topk(2).indices,
            "your softmax runs over the tokens; it is over the experts of each token, dim=-1.",
        ),
        (right + 1, "experts are counted from 0."),
        (
            router_probabilities.mean(dim=0).topk(2).indices.expand(3, 2),
            "every token gets the same experts; each chooses by its own p.",
        ),
    )
    _agree(experts.float(), right, "the experts are wrong")
    share = top.values / top.values.sum(dim=1, keepdim=True)
    chosen, raw, strange = logits.gather(1, right), table.gather(1, right), logits.sigmoid()
    strange = strange.gather(1, right)
    _tell(
        weights,
        (
            top.values,
            "the weights are p itself; divide by the sum of the k, so that they sum to 1.",
        ),
        (share.flip(1), "the weights stand in another order than their experts."),
        (torch.full((3, 2), 0.5), "all experts count the same in yours; p says how much."),
        (
            top.values / top.values.sum(dim=0),
            "you divide by a sum over the tokens; each TOKEN's weights sum to 1.",
        ),
        (top.values / top.values.sum(), "you divide by the sum over all tokens; each has its own."),
        (top.values.softmax(dim=1), "a softmax of p is a second softmax; divide p by its sum."),
        (chosen, "these are the logits; p is their softmax."),
        (chosen / chosen.sum(dim=1, keepdim=True), "you divide logits by their sum; it is p's."),
        (raw, "that is exp(logits); divide by the sum of the k."),
        (share.log(), "these are logarithms of the weights."),
        (strange, "that is a sigmoid; p is a softmax."),
        (strange / strange.sum(dim=1, keepdim=True), "that is a sigmoid; p is a softmax."),
    )
    _agree(weights, share, "the experts are right, the weights are not")

    torch.manual_seed(0)
    logits = torch.randn(4, 5)
    for top_k in (3, 1, 5):
        experts, weights = _experts_and_weights(answer, logits, top_k)
        share, right = logits.softmax(dim=1).topk(top_k)
        what = f"right for k = 2; for 4 tokens, 5 experts and k = {top_k}"
        _agree(experts.float(), right, f"{what} the experts are wrong")
        _agree(weights, share / share.sum(dim=1, keepdim=True), f"{what} the weights are wrong")
    large = torch.tensor([[1000.0, 999.0, 0.0], [-1000.0, -998.0, -997.0]])
    _, weights = _experts_and_weights(answer, large, 2)
    if not bool(weights.isfinite().all()):
        raise Diagnosis(
            "logits of 1000 or -1000 come out as 0 / 0 or infinite: take torch.softmax, which "
            "subtracts the largest first."
        )
    rows = torch.tensor([[1.0, 0.0], [1.0, 0.0]]).softmax(dim=1)
    _agree(weights, rows, "logits near 1000 and -1000 come out wrong")

    leaf = logits.clone().requires_grad_()
    share = leaf.softmax(dim=1).topk(3).values
    _same_gradients(
        as_tensor(answer(leaf, 3)[1]), share / share.sum(dim=1, keepdim=True), {"the logits": leaf}
    )


def grade_load_balance(answer):
    """Five tokens by hand, on which each mistake shows; an idle expert, large logits, gradients."""
    table = torch.tensor([[6.0, 10, 4], [2, 3, 15], [5, 3, 1], [1, 7, 2], [4, 6, 2]])
    logits, router_probabilities = table.log(), table / table.sum(dim=1, keepdim=True)
    got = _one_number(answer, logits)
    mean_fit, chosen = (
        router_probabilities.mean(dim=0),
        torch.nn.functional.one_hot(router_probabilities.argmax(dim=1), 3),
    )
    f = chosen.float().mean(dim=0)
    right = 3 * (f * mean_fit).sum()
    own = (router_probabilities * chosen).sum(dim=0)
    lowest = torch.bincount(router_probabilities.argmin(dim=1), minlength=3) / 5
    firsts = torch.bincount(table.argmax(dim=0), minlength=3)
    _tell(
        got,
        (right / 3, "E is missing: Σ f · P is 1 / E in even use (as a mean over experts gives)."),
        (right / 9, "take the sum over the experts, not the mean, and multiply it by E."),
        (3 * (mean_fit**2).sum(), "your f is made of p; f COUNTS the tokens that ask for e."),
        (3 * (f**2).sum(), "your P counts; it is the mean of p, or no gradient could flow."),
        (5 * right, "f and P are shares: one of yours is a sum over the tokens, not a mean."),
        (25 * right, "f and P are shares; yours are both sums over the tokens."),
        (torch.tensor(0.6), "your softmax runs over the tokens; it is over the experts, dim=-1."),
        (3 * (f * logits.mean(dim=0)).sum(), "your P is the mean of logits; it is that of p."),
        (3 * (f * own / 5).sum(), "P is the mean of ALL p of an expert, not of the chosen alone."),
        (
            3 * (f * own / chosen.sum(dim=0)).sum(),
            "P is the mean over ALL tokens, not over those that ask for the expert.",
        ),
        (3 * (lowest * mean_fit).sum(), "f counts where the logit is LARGEST; yours, smallest."),
        (
            3 * (firsts / firsts.sum() * mean_fit).sum(),
            "your argmax runs over the tokens; each token asks for one expert: dim=-1.",
        ),
        (
            3 * (firsts / 5 * mean_fit).sum(),
            "your argmax runs over the tokens; each token asks for one expert: dim=-1.",
        ),
        (-right, "this is to be made small: there is no minus."),
        (0.01 * right, "α is not asked for; the loss is to be 1 in even use."),
        (0.01 * right / 3, "neither α nor a division by E is asked for."),
        (right - 1, "nothing is subtracted: in even use the loss is 1."),
        (right.log(), "no logarithm is asked for."),
        ((f - mean_fit).square().sum(), "that is a distance of f and P; multiply them."),
    )
    _agree(got, right, "for 5 tokens and 3 experts the loss is wrong")

    torch.manual_seed(0)
    logits = torch.randn(6, 4)
    logits[:, 3] -= 9  # nobody asks for the last expert
    try:
        got = _one_number(answer, logits)
    except (RuntimeError, IndexError, ValueError):
        raise Diagnosis(
            "it fails where nobody asks for the last expert: f has a 0 there; bincount needs "
            "minlength, and one_hot num_classes."
        ) from None
    _agree(got, _balance(logits), "with an expert for which nobody asks the loss is wrong")
    alike = torch.eye(4) * 0.125
    _agree(
        _one_number(answer, alike), torch.tensor(1.0), "in even use the loss is 1, whatever p is"
    )
    large = torch.tensor([[1000.0, -1000.0], [999.0, 1000.0], [1000.0, 0.0]])
    got = _one_number(answer, large)
    if not bool(got.isfinite()):
        raise Diagnosis(
            "exp(1000) overflows: take torch.softmax, which subtracts the largest first."
        )
    _agree(got, _balance(large), "with logits of 1000 the loss is wrong")

    leaf = logits.clone().requires_grad_()
    _same_gradients(as_tensor(answer(leaf)), _balance(leaf), {"the logits": leaf})


def grade_mix(answer):
    """Four tokens by hand, with functions that count; then seven, idle functions, gradients."""
    x = torch.tensor([[1.0, 2.0], [3.0, -1.0], [-2.0, 0.5], [0.25, 4.0]])
    experts = torch.tensor([[0, 2], [2, 0], [3, 2], [0, 3]])
    weights = torch.tensor([[0.75, 0.25], [0.625, 0.375], [0.875, 0.125], [0.5625, 0.4375]])

    def each(rows: Tensor) -> Tensor:
        """What each pair's function says: [N, k, D]."""
        factor = (experts + 1)[..., None]
        return factor * rows**2 + experts[..., None]

    plain = [lambda rows, e=e: (e + 1) * rows**2 + e for e in range(4)]
    got, calls = _mixed(answer, x, experts, weights, plain)
    _called_well(calls, experts)
    if got.shape == (4, 2, 2):
        raise Diagnosis("an axis for the k experts is left; add up a token's k answers.")
    if got.shape != x.shape:
        raise Diagnosis(f"y has the shape of x, {[*x.shape]}; yours has {[*got.shape]}.")
    answers = each(x[:, None])
    terms = weights[..., None] * answers
    right = terms.sum(dim=1)
    by_expert = experts.argsort(dim=1)[..., None].expand(4, 2, 2)
    last = terms.gather(1, by_expert)[:, -1]
    order = experts.flatten().argsort(stable=True)
    sorted_answers = answers.flatten(0, 1)[order].view(4, 2, 2)
    sorted_terms = terms.flatten(0, 1)[order].view(4, 2, 2)
    _tell(
        got,
        (answers.sum(dim=1), "the weights are missing; a token's k answers do not count the same."),
        (answers.mean(dim=1), "that is the mean of the k answers; use the weights."),
        (right / 2, "you divide by k; the weights sum to 1 already."),
        (
            (weights.flip(1)[..., None] * answers).sum(dim=1),
            "each answer has the weight of the token's OTHER expert.",
        ),
        (
            (weights[:, :1, None] * answers).sum(dim=1),
            "both answers have the weight of the first; the pair (n, j) has weights[n, j].",
        ),
        (
            last,
            "the later expert overwrites the earlier one: add to the token's row, y[tokens] +=.",
        ),
        (terms[:, -1], "only a token's last expert is left in y; add up all k."),
        (terms[:, 0], "only a token's first expert is left in y; add up all k."),
        (
            each(weights[..., None] * x[:, None]).sum(dim=1),
            "the weight multiplies what goes into the expert; it is for what comes out.",
        ),
        (right + x, "x is added; y is the experts' part alone."),
        (
            sorted_terms.sum(dim=1),
            "the answers stand in the order of the experts; put them back to their tokens.",
        ),
        (
            (weights[..., None] * sorted_answers).sum(dim=1),
            "the answers stand in the order of the experts; put them back to their tokens.",
        ),
        (
            torch.zeros(4, 2),
            "y stays 0: y[tokens] is a copy, and what is added to it is lost; use index_add.",
        ),
    )
    _agree(got, right, "the right functions are called, y is wrong")

    torch.manual_seed(0)
    x = torch.randn(7, 3, dtype=torch.float64, requires_grad=True)
    asked_for = torch.tensor([0, 1, 2, 3, 5])  # nobody asks for 4
    experts = torch.stack([asked_for[torch.randperm(5)[:3]] for _ in range(7)])
    weights = torch.randn(7, 3, dtype=torch.float64).softmax(dim=1).requires_grad_()
    inner = torch.randn(6, 3, 3, dtype=torch.float64, requires_grad=True)
    functions = [lambda rows, e=e: (rows @ inner[e]).tanh() for e in range(6)]
    got, calls = _mixed(answer, x, experts, weights, functions)
    _called_well(calls, experts)
    if got.shape != x.shape:
        raise Diagnosis(f"y has the shape of x, {[*x.shape]}; yours has {[*got.shape]}.")
    if got.dtype != x.dtype:
        raise Diagnosis("x is float64 and y is not: build y with torch.zeros_like(x).")
    answers = torch.einsum("nd,nkde->nke", x, inner[experts]).tanh()
    right = (weights[..., None] * answers).sum(dim=1)
    _agree(got.detach(), right.detach(), "right for k = 2; 7 tokens with k = 3 come out wrong")
    _same_gradients(got, right, {"the weights": weights, "the experts' matrices": inner, "x": x})
    with torch.no_grad():
        one = torch.full((7, 1), 2)
        got, calls = _mixed(answer, x, one, torch.ones_like(weights[:, :1]), functions)
        _called_well(calls, one)
        _agree(got, functions[2](x), "where all tokens have one expert, y is wrong")


def grade_sinkhorn_routing(answer):
    """Four tokens and three experts by hand, many rounds, logits of 1000 and of -1000."""
    table = torch.tensor([[8.0, 1, 1], [6, 3, 1], [4, 2, 2], [5, 1, 4]])
    logits, even = table.log(), 4 / 3
    got = _plan(answer, logits, 2)
    if got.shape == (3, 4):
        raise Diagnosis("your plan is [E, N]; its rows are the tokens, [N, E].")
    if got.shape != (4, 3):
        raise Diagnosis(f"for 4 tokens and 3 experts the plan is [4, 3]; yours is {[*got.shape]}.")

    def columns(plan: Tensor) -> Tensor:
        return plan * even / plan.sum(dim=0)

    def rows(plan: Tensor) -> Tensor:
        return plan / plan.sum(dim=1, keepdim=True)

    def after(plan: Tensor, n_rounds: int) -> Tensor:
        for _ in range(n_rounds):
            plan = rows(columns(plan))
        return plan

    right = after(table, 2)
    together, of_old = table, table
    for _ in range(2):
        together = together / together.sum(dim=1, keepdim=True) / together.sum(dim=0) * even
        of_old = of_old * even / table.sum(dim=0)
        of_old = of_old / table.sum(dim=1, keepdim=True)
    _tell(
        got,
        (rows(table), "that is a softmax: the rows alone. Scale the columns, too."),
        (columns(table), "only the columns are scaled; then every row is, so that it sums to 1."),
        (columns(table) / even, "only the columns are scaled; each row is to sum to 1."),
        (columns(right), "the rows come last in a round: each token is sent once, exactly."),
        (right.log(), "that is the logarithm of the plan; take exp at the end."),
        (
            columns(rows(columns(rows(table)))),
            "rows first, then columns; it is the other way round, so the rows come out exact.",
        ),
        (
            columns(rows(columns(rows(table)))) / even,
            "your columns sum to 1 and come last; they sum to N / E, and the rows come last.",
        ),
        (after(rows(table), 2), "you begin with a softmax, which scales rows; begin with exp."),
        (
            after(table / table.amax(dim=1, keepdim=True), 2),
            "you subtract each row's own maximum first, which scales the rows; the columns come "
            "first. One maximum for the whole table changes nothing.",
        ),
        (after(table, 1), "that is one round; there are to be n_rounds."),
        (after(table, 3), "that is a round too many."),
        (
            together,
            "you compute both factors of a round before either is used; the rows are summed after "
            "the columns have been scaled.",
        ),
        (of_old, "the sums are taken once, before the loop; each round needs its own."),
        (right * even, "each row sums to N / E; a row is one token: 1."),
        (right / 4, "your whole plan sums to 1; each row does."),
        (right / 3, "each row sums to 1 / E; a row is one token: 1."),
        (after(logits, 2), "that scales the logits themselves; the plan begins with exp(logits)."),
        (
            torch.nn.functional.one_hot(right.argmax(dim=1), 3).float(),
            "that is where the tokens go; the plan itself is asked for.",
        ),
    )
    _agree(got, right, "two rounds for 4 tokens and 3 experts are wrong")

    torch.manual_seed(0)
    logits = 2 * torch.randn(6, 3)
    got = _plan(answer, logits, 50)
    if bool(got.isnan().any()):
        raise Diagnosis("after 50 rounds the plan is NaN.")
    what = "after 50 rounds for 6 tokens and 3 experts"
    _agree(got.sum(dim=1), torch.ones(6), f"{what} the rows' sums are wrong")
    _agree(got.sum(dim=0), torch.full((3,), 2.0), f"{what} the columns' sums are wrong")
    _agree(got, _after_rounds(logits, 50), f"{what} the plan is wrong")
    large = torch.tensor([[1000.0, 999.0], [1000.0, 998.0]])
    got = _plan(answer, large, 3)
    if not bool(got.isfinite().all()):
        raise Diagnosis(
            "exp(1000) is infinite: subtract the largest logit first, or better, work with the "
            "logarithm of the plan and torch.logsumexp."
        )
    _agree(got, _after_rounds(large, 3), "with logits of 1000 the plan is wrong")
    far = torch.tensor([[1000.0, -1000.0], [1000.0, -1000.0]])
    got = _plan(answer, far, 3)
    if not bool(torch.allclose(got, torch.full((2, 2), 0.5), atol=1e-3)):
        raise Diagnosis(
            "logits of 1000 and -1000: exp(-2000) is 0, and no factor brings a column of zeros "
            "back. Keep the logarithm of the plan, and take exp at the very end."
        )


def grade_share_without_a_place(answer):
    """The number is graded; the sentence must be there. What is right is known exactly."""
    got = answer()
    if not (isinstance(got, tuple | list) and len(got) == 2):
        raise Diagnosis('return two things: the share and your sentence, as in 0.5, "because …".')
    number, sentence = got
    if number is None:
        raise Diagnosis("the number is None; measure, and put it there.")
    number = as_number(number)
    turned_away = _over(8)  # tokens that one expert turns away, in the mean: 1.044
    right = turned_away / 8
    overfull = sum(_chance(n) for n in range(9, 65))
    beside_overfull = sum(_chance(n) * n for n in range(9, 65)) / 8
    for wrong, what in (
        (0, "there are as many places as tokens, but chance does not fill them evenly; measure."),
        (1, "1 would be all tokens; how many does one expert turn away, of the 8 it has room for?"),
        (1 / 8, "1/8 is the share of one expert; if you measured it, take more draws."),
        (7 / 8, "56 of 64 are dropped if all ask for ONE expert: draw logits for each token."),
    ):
        if abs(number - wrong) < 1e-9:
            raise Diagnosis(what)
    for wrong, d_model, what in (
        (100 * right, 0.16, "that is in percent; a share lies between 0 and 1."),
        (64 * right, 0.16, "that is how many tokens find no place; divide by 64."),
        (turned_away, 0.16, "so many tokens does one expert turn away; divide by its 8 places."),
        (right / 8, 0.16, "that is one expert's part of the share; add up all 8 experts."),
        (1 - right, 0.026, "that is the share that finds a place; how many do not?"),
        (overfull, 0.05, "so many EXPERTS are asked for by more than 8; how many tokens drop out?"),
        (
            beside_overfull,
            0.05,
            "so many tokens ask for an expert that is overfull; 8 of them get a place there.",
        ),
        ((7 / 8) ** 8, 0.01, "that is for 8 tokens and one place an expert; here they are 64."),
        (1 / math.e, 0.01, "that is for one place an expert; here each has 8."),
        (_over(10) / 8, 0.1, "that is with 10 places, a factor of 1.25; here it is 1: 8 places."),
    ):
        if abs(number - wrong) < d_model * wrong:
            raise Diagnosis(what)
    # one draw scatters by 0.038, so the mean of 50 by 0.0054
    if not abs(number - right) < 0.022:
        raise Diagnosis(
            f"{number:.4g} is not it: route_switch(torch.randn(64, 8), capacity=8).n_dropped / 64, "
            "in the mean over 50 draws or more; a single draw may give 0.05 or 0.2."
        )
    if not isinstance(sentence, str) or (len(sentence.split()) < 4 and len(sentence) < 8):
        raise Diagnosis("the share is right; now say in a sentence why places alone do not help.")


def _untouched(answer, *given):
    """What the answer returns; what was given must stay as it is."""
    copies = [part.clone() if isinstance(part, Tensor) else part for part in given]
    got = answer(*copies)
    for part, copy in zip(given, copies, strict=True):
        if isinstance(part, Tensor) and not torch.equal(part, copy):
            raise Diagnosis("you change the tensors that were given; build new ones.")
    return got


def _experts_and_weights(answer, logits: Tensor, top_k: int) -> tuple[Tensor, Tensor]:
    got = _untouched(answer, logits, top_k)
    if got is None:
        as_tensor(got)
    if not isinstance(got, tuple | list) or len(got) != 2:
        raise Diagnosis("return 2 things, in this order: the experts, their weights.")
    experts, weights = (as_tensor(part).detach() for part in got)
    if experts.is_floating_point() and not weights.is_floating_point():
        raise Diagnosis("return the experts first, then the weights.")
    if experts.is_floating_point():
        raise Diagnosis("the experts are numbers to index with; yours are floats, not integers.")
    targets = [len(logits), top_k]
    for name, part in (("the experts", experts), ("the weights", weights)):
        if part.shape == logits.shape != (*targets,):
            raise Diagnosis(f"{name} are [N, E]; return those of the k chosen experts, [N, k].")
        if [*part.shape] == [top_k, logits.shape[1]]:
            raise Diagnosis(
                f"{name} are [k, E]: each expert chose its tokens; choose along dim=-1."
            )
        if [*part.shape] != targets:
            raise Diagnosis(
                f"for logits {[*logits.shape]} and k = {top_k}, {name} are {targets}; yours are "
                f"{[*part.shape]}."
            )
    return experts, weights.float()


def _one_number(answer, logits: Tensor) -> Tensor:
    got = as_tensor(_untouched(answer, logits)).detach().float()
    if got.shape == logits.shape[1:]:
        raise Diagnosis("you return a number for each expert; the loss is their sum.")
    if got.shape != ():
        raise Diagnosis(f"the loss is one number, of shape []; yours has {[*got.shape]}.")
    return got


def _balance(logits: Tensor) -> Tensor:
    n_tokens, n_experts = logits.shape
    f = torch.bincount(logits.argmax(dim=1), minlength=n_experts) / n_tokens
    return n_experts * (f * logits.softmax(dim=1).mean(dim=0)).sum()


def _mixed(
    answer, x: Tensor, experts: Tensor, weights: Tensor, functions: list[Callable]
) -> tuple[Tensor, list[tuple[int, int]]]:
    """What the answer returns, and which function it called with how many rows."""
    calls = []

    def counting(e: int) -> Callable:
        def function(rows):
            if not isinstance(rows, Tensor) or rows.ndim != 2 or rows.shape[1] != x.shape[1]:
                shape = [*rows.shape] if isinstance(rows, Tensor) else type(rows).__name__
                raise Diagnosis(f"a function takes rows, [n, D]; yours gave it {shape}.")
            calls.append((e, len(rows)))
            return functions[e](rows)

        return function

    given = [counting(e) for e in range(len(functions))]
    got = as_tensor(_untouched(answer, x, experts, weights, given))
    return got, calls


def _called_well(calls: list[tuple[int, int]], experts: Tensor) -> None:
    """Each function once with the rows that ask for it, or not at all."""
    tokens_per_expert = Counter(experts.flatten().tolist())
    times = Counter(e for e, _ in calls)
    if len(calls) == experts.numel() and all(n == 1 for _, n in calls):
        raise Diagnosis(
            f"{len(calls)} calls with one row each: collect the tokens of an expert, call it once."
        )
    for e, n in calls:
        if e not in tokens_per_expert and n == 0:
            raise Diagnosis(f"function {e} is called with no rows; leave out whom nobody asks for.")
        if n > tokens_per_expert[e]:
            raise Diagnosis(
                f"function {e} is given {n} rows, and {tokens_per_expert[e]} tokens ask for it: "
                "the others are work that a mixture saves."
            )
        if times[e] > 1:
            raise Diagnosis(
                f"function {e} is called {times[e]} times: look for its tokens in all k columns, "
                "then call it once."
            )
    for e, n in tokens_per_expert.items():
        got = sum(rows for called, rows in calls if called == e)
        if got < n:
            raise Diagnosis(
                f"function {e} is given {got} rows, and {n} tokens ask for it: look for it in all "
                "columns of experts."
            )


def _plan(answer, logits: Tensor, n_rounds: int) -> Tensor:
    return as_tensor(_untouched(answer, logits, n_rounds)).detach().float()


def _after_rounds(logits: Tensor, n_rounds: int) -> Tensor:
    """The plan, in logarithms."""
    n_tokens, n_experts = logits.shape
    plan = logits.double()
    for _ in range(n_rounds):
        plan = plan - plan.logsumexp(dim=0) + math.log(n_tokens / n_experts)
        plan = plan - plan.logsumexp(dim=1, keepdim=True)
    return plan.exp().float()


def _chance(n: int) -> float:
    """That n of 64 tokens ask for one of 8 experts."""
    return math.comb(64, n) * 7 ** (64 - n) / 8**64


def _over(positions: int) -> float:
    """How many tokens find no place at one expert, in the mean."""
    return sum(_chance(n) * (n - positions) for n in range(positions + 1, 65))


def _same_gradients(got: Tensor, right: Tensor, leaves: dict[str, Tensor]) -> None:
    if not got.requires_grad:
        raise Diagnosis(
            "no gradient flows through your result; .item(), .detach(), no_grad and torch.tensor "
            "cut it off."
        )
    torch.manual_seed(1)
    back = torch.randn(right.shape, dtype=right.dtype)
    for name, leaf in leaves.items():
        own, targets = (
            torch.autograd.grad((y * back).sum(), leaf, retain_graph=True, allow_unused=True)[0]
            for y in (got, right)
        )
        if own is None:
            raise Diagnosis(f"no gradient reaches {name}; .detach() or .item() cuts it off.")
        _agree(own, targets, f"the gradient of {name} comes out wrong")


def _tell(got: Tensor, *wrongs: tuple[Tensor, str]) -> None:
    for wrong, what in wrongs:
        if _near(got, wrong):
            raise Diagnosis(what)


def _near(got: Tensor, right: Tensor) -> bool:
    return got.shape == right.shape and torch.allclose(
        got, right.to(got.dtype), rtol=1e-4, atol=1e-6
    )


def _agree(got: Tensor, right: Tensor, what: str) -> None:
    if not _near(got, right):
        raise Diagnosis(f"{what}: {_shown(right)} would be right; yours gives {_shown(got)}.")


def _shown(tensor: Tensor) -> str:
    numbers = [f"{number:.4g}" for number in tensor.flatten().tolist()]
    return ", ".join(numbers[:7]) + ", …" * (len(numbers) > 7)


GRADERS = {
    "10.1": Grader(
        function="top_k_weights",
        level="everyone",
        grade=grade_top_k_weights,
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
        target="minillm.experts.routing.load_balance",
        hints=(
            "f: torch.bincount of each token's argmax, divided by the number of tokens.",
            "torch.bincount(logits.argmax(dim=-1), minlength=n_experts); the last may be idle.",
            "P is logits.softmax(dim=-1).mean(dim=0), and the loss n_experts * (f * P).sum().",
        ),
    ),
    "10.3": Grader(
        function="mix",
        level="stretch",
        grade=grade_mix,
        target="minillm.experts.moe.moe_naive",
        hints=(
            "A loop over the experts, not over the tokens: who asks for expert e, and where?",
            "tokens, places = (experts == e).nonzero(as_tuple=True); where there are none, go on.",
            "y = y.index_add(0, tokens, weights[tokens, places, None] * function(x[tokens]))",
        ),
    ),
    "10.4": Grader(
        function="sinkhorn_routing",
        level="stretch",
        grade=grade_sinkhorn_routing,
        hints=(
            "The logarithm of the plan is logits at first; to scale is to subtract there.",
            "Columns: plan - plan.logsumexp(dim=0, keepdim=True) + math.log(n_tokens / n_experts)",
            "Rows: plan - plan.logsumexp(dim=1, keepdim=True); after all rounds plan.exp().",
        ),
    ),
    "10.5": Grader(
        function="share_without_a_place",
        level="everyone",
        grade=grade_share_without_a_place,
        hints=(
            "route_switch(torch.randn(64, 8), capacity=8).n_dropped is the count of one draw.",
            "Add it up over 500 draws, and divide by 500 · 64.",
            "Of 8 experts with 8 places, how many get exactly 8 tokens, when chance decides?",
        ),
        model_answer=(
            "0.13: of 64 tokens 8.4 find no place. An expert is asked for by 8 tokens in the mean, "
            "but that scatters by √7 = 2.6, and only every seventh expert is asked for by exactly "
            "8. One that is asked for by more turns 2.6 tokens away in the mean, while as many "
            "places stay empty at others. So one gives more places than tokens: with a factor of "
            "1.25, 10 places here, 4.5 % are dropped. Large batches help: of 512 tokens with 64 "
            "places an expert it is 4.7 %. And all this is for a router without favourites: where "
            "all ask for one expert, 7 of 8 tokens are dropped. Hence the loss for balance."
        ),
    ),
}
