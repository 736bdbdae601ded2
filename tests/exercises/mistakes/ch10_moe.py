"""Answers for the graders of chapter 10: other right ones, typical mistakes, and a mutant."""

SECOND_STYLE = {
    "10.1": """
import torch
def top_k_weights(logits, top_k):
    experts = logits.argsort(dim=1, descending=True)[:, :top_k]
    chosen = torch.take_along_dim(logits, experts, dim=1)
    return [experts, torch.exp(chosen - chosen.logsumexp(1, keepdim=True))]
""",
    "10.2": """
import torch
def load_balance(logits):
    n, e = logits.shape
    p = torch.nn.functional.softmax(logits, 1)
    best = torch.nn.functional.one_hot(logits.max(1).indices, e).to(p.dtype)
    return torch.einsum("ne,me->", best, p) * e / n**2
""",
    "10.3": """
import torch
def mix(x, experts, weights, functions):
    k = experts.shape[1]
    order = experts.flatten().argsort()
    counts = torch.bincount(experts.flatten(), minlength=len(functions)).tolist()
    parts = x[order // k].split(counts)
    said = [f(part) for f, part in zip(functions, parts) if len(part)]
    back = torch.cat(said)[order.argsort()].unflatten(0, experts.shape)
    return torch.einsum("nk,nkd->nd", weights, back)
""",
    "10.4": """
import torch
def sinkhorn_routing(logits, n_rounds):
    scores = logits.double()
    of_token = torch.zeros(len(logits), dtype=torch.float64)
    for _ in range(n_rounds):  # each column to 1: the rows come last, so N / E cancels
        of_expert = -torch.logsumexp(scores + of_token[:, None], 0)
        of_token = -torch.logsumexp(scores + of_expert, 1)
    return (scores + of_token[:, None] + of_expert).exp().to(logits.dtype)
""",
    "10.5": """
from math import comb
def share_without_a_place():
    chance = [comb(64, n) * 7 ** (64 - n) / 8**64 for n in range(65)]
    over = sum(c * max(0, n - 8) for n, c in enumerate(chance))
    return over * 8 / 64, "有的专家被选了不止八次，有的位置却空着。"
""",
}

TOP_K = """import torch
def top_k_weights(logits, top_k):
    p = logits.softmax(dim=-1)
    values, experts = p.topk(top_k, dim=-1)
    weights = values / values.sum(dim=-1, keepdim=True)
    return experts, weights
"""
BALANCE = """import torch
def load_balance(logits):
    n_tokens, n_experts = logits.shape
    p = logits.softmax(dim=-1)
    best = logits.argmax(dim=-1)
    f = torch.bincount(best, minlength=n_experts) / n_tokens
    mean = p.mean(dim=0)
    return n_experts * (f * mean).sum()
"""
MIX = """import torch
def mix(x, experts, weights, functions):
    y = torch.zeros_like(x)
    for e, function in enumerate(functions):
        tokens, places = (experts == e).nonzero(as_tuple=True)
        if len(tokens) > 0:
            answers = function(x[tokens])
            answers = answers * weights[tokens, places][:, None]
            y = y.index_add(0, tokens, answers)
    return y
"""
# as most would write it at first, without logarithms, but for the numbers that this can hold
PLAN = """import torch
def sinkhorn_routing(logits, n_rounds):
    n, e = logits.shape
    plan = logits.double().exp()
    for _ in range(n_rounds):
        plan = plan * (n / e) / plan.sum(dim=0)
        plan = plan / plan.sum(dim=1, keepdim=True)
    return plan
"""
LOGS = """import math, torch
def sinkhorn_routing(logits, n_rounds):
    n, e = logits.shape
    plan = logits
    for _ in range(n_rounds):
        plan = plan - plan.logsumexp(0) + math.log(n / e)
        plan = plan - plan.logsumexp(1, keepdim=True)
    return plan.exp()
"""


def _but(source):
    """The right answer with some of its text replaced."""

    def changed(*swaps):
        text = source
        for old, new in swaps:
            assert text.count(old) == 1, f"{old!r} stands {text.count(old)} times in the answer"
            text = text.replace(old, new)
        return text

    return changed


def _share(result):
    return f"def share_without_a_place():\n    return {result}\n"


top_k, balance, mixed = _but(TOP_K), _but(BALANCE), _but(MIX)
plan, logs = _but(PLAN), _but(LOGS)
BECAUSE = '"because chance is not even"'
COLUMNS = "        plan = plan * (n / e) / plan.sum(dim=0)\n"
ROWS = "        plan = plan / plan.sum(dim=1, keepdim=True)\n"
SHARED = "values / values.sum(dim=-1, keepdim=True)"
WEIGHED = "            answers = answers * weights[tokens, places][:, None]\n"

# Task -> (what the learner did, a phrase of the diagnosis that must come).
MISTAKES = {
    "10.1": [
        (top_k((SHARED, "values")), "the weights are p itself"),
        (
            top_k(("softmax(dim=-1)", "softmax(dim=0)")),
            "your softmax runs over the tokens",
        ),
        (top_k(("top_k, dim=-1", "top_k, dim=0")), "each expert chose its tokens"),
        (
            top_k(("return experts, weights", "return experts.flip(1), weights.flip(1)")),
            "the experts rise",
        ),
        (
            top_k(
                ("    weights =", "    experts = experts.sort().values\n    weights ="),
                ("values / values.sum", "p.gather(1, experts) / values.sum"),
            ),
            "in the order of their numbers",
        ),
        (top_k(("top_k, dim=-1", "top_k, dim=-1, largest=False")), "the SMALLEST p"),
        (top_k(("return experts,", "return experts.float(),")), "yours are floats"),
        (top_k(("return experts, weights", "return weights, experts")), "the experts first"),
        (top_k(("return experts,", "return experts + 1,")), "counted from 0"),
        (
            top_k(
                ("logits.softmax(dim=-1)", "logits.softmax(dim=-1).mean(0).expand(logits.shape)")
            ),
            "the same experts",
        ),
        (top_k(("return experts, weights", "return experts, weights.flip(1)")), "another order"),
        (top_k((SHARED, "torch.full_like(values, 1 / top_k)")), "all experts count the same"),
        (top_k((SHARED, "values / values.sum(dim=0)")), "you divide by a sum over the tokens"),
        (top_k((SHARED, "values / values.sum()")), "the sum over all tokens"),
        (top_k((SHARED, "values.softmax(dim=-1)")), "a second softmax"),
        (top_k((SHARED, "logits.gather(1, experts)")), "these are the logits"),
        (top_k(("logits.softmax(dim=-1)", "logits")), "you divide logits by their sum"),
        (top_k((SHARED, "logits.gather(1, experts).exp()")), "that is exp(logits)"),
        (top_k((SHARED, "logits.gather(1, experts).log_softmax(-1)")), "logarithms of the weights"),
        (top_k(("logits.softmax(dim=-1)", "logits.sigmoid()")), "that is a sigmoid"),
        (
            top_k(("return experts, weights", "return experts, p * (p >= values[:, -1:])")),
            "the weights are [N, E]",
        ),
        (top_k(("topk(top_k,", "topk(2,")), "and k = 3, the experts are [4, 3]"),
        (
            top_k(("return experts, weights", "return experts.squeeze(1), weights.squeeze(1)")),
            "and k = 1, the experts are [4, 1]",
        ),
        (
            top_k(("logits.softmax(dim=-1)", "logits.exp() / logits.exp().sum(-1, keepdim=True)")),
            "0 / 0 or infinite",
        ),
        (top_k(("logits.softmax(dim=-1)", "logits.detach().softmax(dim=-1)")), "no gradient flows"),
        (top_k(("    p =", "    logits -= logits.amax()\n    p =")), "you change the tensors"),
        (top_k(("return experts, weights", "return experts")), "return 2 things"),
        (top_k(("return experts, weights", "print(experts)")), "returns nothing"),
        (
            "from minillm.experts.routing import route_top_k\n"
            "def top_k_weights(logits, top_k):\n"
            "    routing = route_top_k(logits, top_k)\n"
            "    return routing.experts.view(-1, top_k), routing.weights.view(-1, top_k)\n",
            "write what it does",
        ),
    ],
    "10.2": [
        (balance(("n_experts * (f", "(f")), "E is missing"),
        (balance(("n_experts * (f * mean).sum()", "(f * mean).mean()")), "not the mean, and mul"),
        (
            balance(("torch.bincount(best, minlength=n_experts) / n_tokens", "p.mean(dim=0)")),
            "of p;",
        ),
        (balance(("p.mean(dim=0)", "f + 0 * p.mean(dim=0)")), "your P counts"),
        (balance((" / n_tokens", "")), "one of yours is a sum"),
        (balance((" / n_tokens", ""), ("p.mean(dim=0)", "p.sum(dim=0)")), "yours are both sums"),
        (balance(("softmax(dim=-1)", "softmax(dim=0)")), "your softmax runs over the tokens"),
        (balance(("p.mean(dim=0)", "logits.mean(dim=0)")), "your P is the mean of logits"),
        (
            balance(
                (
                    "p.mean(dim=0)",
                    "(p * torch.nn.functional.one_hot(best, n_experts)).mean(dim=0)",
                )
            ),
            "not of the chosen alone",
        ),
        (
            balance(
                (
                    "p.mean(dim=0)",
                    "torch.stack([p[best == e, e].mean() for e in range(n_experts)])",
                )
            ),
            "not over those that ask",
        ),
        (balance(("logits.argmax(dim=-1)", "logits.argmin(dim=-1)")), "yours, smallest"),
        (balance(("logits.argmax(dim=-1)", "logits.argmax(dim=0)")), "your argmax runs over"),
        (balance(("return n_experts", "return -n_experts")), "there is no minus"),
        (balance(("return n_experts", "return 0.01 * n_experts")), "α is not asked for"),
        (balance(("return n_experts", "return 0.01")), "neither α nor"),
        (balance((").sum()", ").sum() - 1")), "nothing is subtracted"),
        (
            balance(
                (
                    "return n_experts * (f * mean).sum()",
                    "return (n_experts * (f * mean).sum()).log()",
                )
            ),
            "no logarithm",
        ),
        (balance(("n_experts * (f * mean)", "((f - mean) ** 2)")), "a distance of f and P"),
        (balance((".sum()", "")), "a number for each expert"),
        (balance((").sum()", ").sum()[None]")), "the loss is one number"),
        (balance((", minlength=n_experts", "")), "nobody asks for the last expert"),
        (
            balance(
                ("logits.softmax(dim=-1)", "logits.exp() / logits.exp().sum(-1, keepdim=True)")
            ),
            "exp(1000) overflows",
        ),
        (balance(("p.mean(dim=0)", "p.mean(dim=0).detach()")), "no gradient flows"),
        (balance((").sum()", ").sum().item()")), "return a tensor; yours is float"),
        (balance(("    p =", "    logits -= logits.amax()\n    p =")), "you change the tensors"),
        (balance(("    return ", "    loss = ")), "returns nothing"),
        (
            "from minillm.experts import routing\n"
            "def load_balance(logits):\n"
            "    return routing.load_balance(routing.route_top_k(logits, 1))\n",
            "write what it does",
        ),
    ],
    "10.3": [
        (
            """import torch
def mix(x, experts, weights, functions):
    rows = []
    for n in range(len(x)):
        terms = [weights[n, j] * functions[e](x[n : n + 1])[0]
                 for j, e in enumerate(experts[n].tolist())]
        rows.append(sum(terms))
    return torch.stack(rows)
""",
            "8 calls with one row each",
        ),
        (
            """import torch
def mix(x, experts, weights, functions):
    every = torch.stack([function(x) for function in functions], dim=1)
    chosen = every.gather(1, experts[..., None].expand(*experts.shape, x.shape[1]))
    return (weights[..., None] * chosen).sum(dim=1)
""",
            "function 0 is given 4 rows, and 3 tokens ask for it",
        ),
        (
            """import torch
def mix(x, experts, weights, functions):
    y = torch.zeros_like(x)
    for j in range(experts.shape[1]):
        for e, function in enumerate(functions):
            tokens = (experts[:, j] == e).nonzero()[:, 0]
            if len(tokens):
                y = y.index_add(0, tokens, weights[tokens, j, None] * function(x[tokens]))
    return y
""",
            "function 0 is called 2 times",
        ),
        (
            mixed(("(experts == e)", "(experts[:, :1] == e)")),
            "look for it in all columns",
        ),
        (mixed(("if len(tokens) > 0:", "if True:")), "called with no rows"),
        (mixed(("function(x[tokens])", "function(x[tokens][0])")), "a function takes rows"),
        (mixed((WEIGHED, "")), "the weights are missing"),
        (
            mixed((WEIGHED, "            answers = answers / experts.shape[1]\n")),
            "that is the mean of the k answers",
        ),
        (mixed(("return y", "return y / experts.shape[1]")), "you divide by k"),
        (mixed(("weights[tokens, places]", "weights[tokens, 1 - places]")), "OTHER expert"),
        (mixed(("weights[tokens, places]", "weights[tokens, 0]")), "the weight of the first"),
        (
            mixed(("y = y.index_add(0, tokens, answers)", "y[tokens] = answers")),
            "overwrites the earlier one",
        ),
        (
            """import torch
def mix(x, experts, weights, functions):
    n, k = experts.shape
    terms = torch.zeros(n, k, x.shape[1])
    for e, function in enumerate(functions):
        tokens, places = (experts == e).nonzero(as_tuple=True)
        if len(tokens):
            terms[tokens, places] = weights[tokens, places, None] * function(x[tokens])
    return terms[:, -1]
""",
            "only a token's last expert",
        ),
        (
            """import torch
def mix(x, experts, weights, functions):
    n, k = experts.shape
    terms = torch.zeros(n, k, x.shape[1])
    for e, function in enumerate(functions):
        tokens, places = (experts == e).nonzero(as_tuple=True)
        if len(tokens):
            terms[tokens, places] = weights[tokens, places, None] * function(x[tokens])
    return terms[:, 0]
""",
            "only a token's first expert",
        ),
        (
            """import torch
def mix(x, experts, weights, functions):
    n, k = experts.shape
    terms = torch.zeros(n, k, x.shape[1])
    for e, function in enumerate(functions):
        tokens, places = (experts == e).nonzero(as_tuple=True)
        if len(tokens):
            terms[tokens, places] = weights[tokens, places, None] * function(x[tokens])
    return terms
""",
            "an axis for the k experts",
        ),
        (
            mixed(
                ("function(x[tokens])", "function(weights[tokens, places, None] * x[tokens])"),
                (WEIGHED, ""),
            ),
            "it is for what comes out",
        ),
        (mixed(("torch.zeros_like(x)", "x.clone()")), "x is added"),
        (
            """import torch
def mix(x, experts, weights, functions):
    said = []
    for e, function in enumerate(functions):
        tokens, places = (experts == e).nonzero(as_tuple=True)
        if len(tokens):
            said.append(weights[tokens, places, None] * function(x[tokens]))
    return torch.cat(said).view(*experts.shape, -1).sum(dim=1)
""",
            "in the order of the experts",
        ),
        (
            mixed(("y = y.index_add(0, tokens, answers)", "y[tokens].add_(answers)")),
            "y stays 0",
        ),
        (mixed(("return y", "return y.sum(dim=0)")), "y has the shape of x"),
        (
            mixed(
                ("torch.zeros_like(x)", "torch.zeros(x.shape)"),
                ("answers)\n", "answers.float())\n"),
            ),
            "x is float64 and y is not",
        ),
        (mixed(("return y", "return y.detach()")), "no gradient flows"),
        (mixed(("weights[tokens,", "weights.detach()[tokens,")), "reaches the weights"),
        (mixed(("function(x[tokens])", "function(x.detach()[tokens])")), "no gradient reaches x;"),
        (
            mixed(("answers = function(x[tokens])", "answers = function(x[tokens]).detach()")),
            "reaches the experts' matrices",
        ),
        (mixed(("torch.zeros_like(x)", "x.zero_()")), "you change the tensors"),
        (mixed(("return y", "print(y)")), "returns nothing"),
        (
            "from minillm.experts.moe import moe_naive\n"
            "def mix(x, experts, weights, functions):\n"
            "    return moe_naive(x, functions)\n",
            "write what it does",
        ),
    ],
    "10.4": [
        (plan((COLUMNS, "")), "that is a softmax"),
        (plan((ROWS, "")), "only the columns are scaled; then"),
        (plan((ROWS, ""), (" * (n / e)", "")), "only the columns are scaled; each row"),
        (plan((COLUMNS + ROWS, ROWS + COLUMNS)), "rows first, then columns"),
        (
            plan((COLUMNS + ROWS, ROWS + COLUMNS.replace(" * (n / e)", ""))),
            "your columns sum to 1",
        ),
        (
            plan(("return plan", "return plan * (n / e) / plan.sum(dim=0)")),
            "the rows come last in a round",
        ),
        (plan(("return plan", "return plan.log()")), "the logarithm of the plan; take"),
        (plan(("logits.double().exp()", "logits.softmax(dim=1)")), "you begin with a softmax"),
        (
            plan(("logits.double()", "(logits - logits.amax(dim=1, keepdim=True))")),
            "each row's own maximum",
        ),
        (plan(("for _ in range(n_rounds)", "for _ in range(1)")), "that is one round;"),
        (plan(("range(n_rounds)", "range(n_rounds + 1)")), "a round too many"),
        (
            plan(
                (COLUMNS, "        rows = plan.sum(dim=1, keepdim=True)\n" + COLUMNS),
                (ROWS, ROWS.replace("plan.sum(dim=1, keepdim=True)", "rows")),
            ),
            "before either is used",
        ),
        (
            plan(
                ("    for", "    start = plan\n    for"),
                (COLUMNS, COLUMNS.replace("plan.sum", "start.sum")),
                (ROWS, ROWS.replace("plan.sum", "start.sum")),
            ),
            "taken once, before the loop",
        ),
        (plan(("return plan", "return plan * (n / e)")), "each row sums to N / E"),
        (plan(("return plan", "return plan / n")), "your whole plan sums to 1"),
        (plan(("return plan", "return plan / e")), "each row sums to 1 / E"),
        (plan(("logits.double().exp()", "logits.double()")), "scales the logits themselves"),
        (
            plan(("return plan", "return torch.eye(e)[plan.argmax(dim=1)]")),
            "that is where the tokens go",
        ),
        (plan(("return plan", "return plan.T")), "your plan is [E, N]"),
        (plan(("return plan", "return plan.argmax(dim=1)")), "the plan is [4, 3]"),
        (PLAN, "exp(1000) is infinite"),
        (
            plan(("logits.double()", "(logits - logits.max())")),
            "no factor brings a column of zeros back",
        ),
        (
            plan(("range(n_rounds)", "range(min(n_rounds, 2))")),
            "the columns' sums are wrong",
        ),
        (plan(("logits.double()", "logits.sub_(logits.max())")), "you change the tensors"),
        (plan(("return plan", "print(plan)")), "returns nothing"),
    ],
    "10.5": [
        (_share(f"0, {BECAUSE}"), "as many places as tokens"),
        (_share(f"13.05, {BECAUSE}"), "in percent"),
        (_share(f"8.36, {BECAUSE}"), "divide by 64"),
        (_share(f"1.044, {BECAUSE}"), "divide by its 8 places"),
        (_share(f"0.0163, {BECAUSE}"), "one expert's part"),
        (_share(f"0.125, {BECAUSE}"), "1/8 is the share of one expert"),
        (_share(f"0.875, {BECAUSE}"), "if all ask for ONE expert"),
        (_share(f"1, {BECAUSE}"), "1 would be all tokens"),
        (_share(f"0.8695, {BECAUSE}"), "that finds a place"),
        (_share(f"0.407, {BECAUSE}"), "so many EXPERTS"),
        (_share(f"0.538, {BECAUSE}"), "so many tokens ask for an expert"),
        (_share(f"0.3436, {BECAUSE}"), "8 tokens and one place"),
        (_share(f"0.368, {BECAUSE}"), "that is for one place an expert"),
        (_share(f"0.0453, {BECAUSE}"), "a factor of 1.25"),
        (_share(f"0.2, {BECAUSE}"), "0.2 is not it"),
        (_share("0.13"), "return two things"),
        (_share('0.13, "chance"'), "say in a sentence"),
        (_share(f"'some', {BECAUSE}"), "return one number"),
        (_share(f"None, {BECAUSE}"), "the number is None"),
    ],
}

MUTANT = {
    "10.1": top_k((SHARED, "values / (values.sum(dim=-1, keepdim=True) + 0.125)")),
    "10.2": balance((").sum()", ").sum() + 0.25")),
    "10.3": mixed(("return y", "return y + 1")),
    "10.4": logs(("return plan.exp()", "return plan.exp() + 0.125")),
    "10.5": _share(f"float('nan'), {BECAUSE}"),
}
