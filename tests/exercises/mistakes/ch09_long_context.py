"""Answers for the graders of chapter 09: other right ones, typical mistakes, and a mutant."""

SECOND_STYLE = {
    "9.1": """
import torch
def sparse_mask(n_tokens, window, n_sinks):
    table = torch.zeros(n_tokens, n_tokens, dtype=torch.bool)
    for place in range(n_tokens):
        table[place, max(0, place + 1 - window) : place + 1] = True
        table[place, : min(n_sinks, place + 1)] = True
    return table
""",
    "9.2": """
import torch
def linear_attention(q, k, v):
    one = torch.cat([v, torch.ones(len(v), 1)], dim=1)
    sums = (k.unsqueeze(2) * one.unsqueeze(1)).cumsum(0)
    read = torch.bmm(q.unsqueeze(1), sums).squeeze(1)
    return read[:, :-1] / read[:, -1:]
""",
    "9.3": """
import torch
def wkv_step(k, v, decay, bonus, state):
    keys = torch.stack([state[2], bonus + k])
    weights = keys.softmax(dim=0)
    values = torch.stack([state[0], v])
    counts = torch.stack([state[1], torch.ones_like(v)])
    wkv = (weights * values).sum(0) / (weights * counts).sum(0)
    faded = torch.stack([state[2] - decay, k])
    maximum = faded.amax(0)
    weights = torch.exp(faded - maximum)
    return [wkv, [(weights * values).sum(0), (weights * counts).sum(0), maximum]]
""",
    "9.4": """
import torch
def delta_rule(q, k, v, beta):
    # what each token adds under its key, for all at once: a triangle of equations
    share = beta[:, None]
    seen = (share * (k @ k.T)).tril(-1) + torch.eye(len(k))
    added = torch.linalg.solve_triangular(seen, share * v, upper=False)
    return (q @ k.T).tril() @ added
""",
    "9.5": """
def when_the_state_is_smaller():
    width, heads = 64, 4
    of_a_head = width // heads
    state = heads * of_a_head * (of_a_head + 1)
    return float(state // (2 * width) + 1), "缓存每个词元要存两个长度为六十四的向量，状态不变。"
""",
}

MASK = """import torch
def sparse_mask(n_tokens, window, n_sinks):
    query = torch.arange(n_tokens)[:, None]
    key = torch.arange(n_tokens)[None, :]
    behind = query - key
    near = (behind >= 0) & (behind < window)
    sinks = (behind >= 0) & (key < n_sinks)
    return near | sinks
"""
LINEAR = """import torch
def linear_attention(q, k, v):
    S, z, y = torch.zeros(k.shape[1], v.shape[1]), torch.zeros(k.shape[1]), []
    for t in range(len(q)):
        S = S + torch.outer(k[t], v[t])
        z = z + k[t]
        y.append(S.T @ q[t] / (z @ q[t]))
    return torch.stack(y)
"""
WKV = """import torch
def wkv_step(k, v, decay, bonus, state):
    a, b, m = state
    top = torch.maximum(m, bonus + k)
    old, new = torch.exp(m - top), torch.exp(bonus + k - top)
    wkv = (old * a + new * v) / (old * b + new)
    after = torch.maximum(m - decay, k)
    faded, added = torch.exp(m - decay - after), torch.exp(k - after)
    a, b = faded * a + added * v, faded * b + added
    return wkv, (a, b, after)
"""
DELTA = """import torch
def delta_rule(q, k, v, beta):
    S, y = torch.zeros(k.shape[1], v.shape[1]), []
    for t in range(len(q)):
        found = S.T @ k[t]
        S = S + beta[t] * torch.outer(k[t], v[t] - found)
        y.append(S.T @ q[t])
    return torch.stack(y)
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


def _tokens(result):
    return f"def when_the_state_is_smaller():\n    return {result}\n"


mask, linear, step, delta = _but(MASK), _but(LINEAR), _but(WKV), _but(DELTA)
NEAR = "(behind >= 0) & (behind < window)"
SINKS = "(behind >= 0) & (key < n_sinks)"
READ = "y.append(S.T @ q[t] / (z @ q[t]))"
LATER = "\n    return torch.stack(y)"
WRITE = "beta[t] * torch.outer(k[t], v[t] - found)"
BECAUSE = '"because a key and a value are kept of each token"'

# Task -> (what the learner did, a phrase of the diagnosis that must come).
MISTAKES = {
    "9.1": [
        (mask(("return near | sinks", "return ~(near | sinks)")), "who may not"),
        (mask(("query - key", "key - query"), ("(key < n_", "(query < n_")), "turned over"),
        (mask((SINKS, "key < n_sinks")), "before they are written"),
        (mask((NEAR, "behind < window")), "a distance of 0 or more"),
        (mask((NEAR, "behind.abs() < window")), "reaches forwards"),
        (mask(("behind < window", "behind <= window")), "one too many: the token"),
        (mask(("behind < window", "behind < window - 1")), "holds too few"),
        (mask(("near | sinks", "(near | sinks) & (behind > 0)")), "may look at itself, too"),
        (mask((NEAR, "(behind >= 1) & (behind <= window)")), "one place before it"),
        (mask((NEAR, "(behind > 0) & (behind < window)")), "does not see itself"),
        (mask(("return near | sinks", "return near")), "sinks are forgotten"),
        (mask((SINKS, "query < n_sinks")), "key, not query"),
        (mask(("return near | sinks", "return sinks")), "window is forgotten"),
        (mask(("return near | sinks", "return behind >= 0")), "plain causal"),
        (mask(("near | sinks", "near & sinks")), "with `and`"),
        (mask(("key < n_sinks", "key <= n_sinks")), "one sink too many"),
        (mask(("key < n_sinks", "key < n_sinks - 1")), "one sink too few"),
        (mask(("key < n_sinks", "behind >= n_tokens - n_sinks")), "not from its end"),
        (mask(("near | sinks", "(near | sinks).float()")), "must be of bool"),
        (mask(("near | sinks", "(near | sinks)[-1]")), "a row for each query"),
        (mask(("return near | sinks", "near | sinks")), "returns nothing"),
        (mask(("near | sinks", "(near | sinks).tolist()")), "return a tensor"),
        (
            mask(("key < n_sinks", "key < max(n_sinks, 1)")),
            "sparse_mask(5, 1, 0): token 1 must not look at token 0",
        ),
        (
            mask(("near | sinks", "near | (sinks & (n_sinks < window))")),
            "sparse_mask(6, 1, 1): token 1 must look at token 0",
        ),
        (
            mask(("near | sinks", "(near | sinks)[:, : max(window, n_sinks) + 4]")),
            "must be [6, 6]",
        ),
        (
            "import torch\n"
            "def sparse_mask(n_tokens, window, n_sinks):\n"
            "    from minillm.mixers.patterns import Sinks, Window, any_of\n"
            "    places = torch.arange(n_tokens)\n"
            "    patterns = Window(n_tokens=window), Sinks(n_tokens=n_sinks)\n"
            "    return any_of(patterns, places, places).tril()\n",
            "uses minillm.mixers.patterns.any_of itself",
        ),
        (
            "import torch\n"
            "def sparse_mask(n_tokens, window, n_sinks):\n"
            "    from minillm.mixers import sparse\n"
            "    return sparse.Window(n_tokens=window)\n",
            "uses minillm.mixers.sparse itself",
        ),
        (
            "import torch\n"
            "from minillm.model.masks import window as near\n"
            "def sparse_mask(n_tokens, window, n_sinks):\n"
            "    places = torch.arange(n_tokens)\n"
            "    return near(places, places, window) | (places < n_sinks).tril()\n",
            "uses minillm.model.masks itself",
        ),
    ],
    "9.2": [
        (linear((" / (z @ q[t])", "")), "you forget to divide"),
        (linear(("z @ q[t]", "k.sum(0) @ q[t]")), "the sum of ALL keys"),
        (
            linear((f"        {READ}", f"    y = [{READ[9:-1]} for t in range(len(q))]")),
            "the whole text, the future",
        ),
        (
            linear(
                ("S = S + torch", "S += torch"),
                (READ, "y.append((S, z))"),
                (LATER, "\n    return torch.stack([s.T @ r / (u @ r) for (s, u), r in zip(y, q)])"),
            ),
            "z is that of the moment",
        ),
        (
            linear(
                ("        S = S +", "        y.append(S.T @ q[t] / (z @ q[t]))\n        S = S +"),
                (f"z = z + k[t]\n        {READ}", "z = z + k[t]"),
            ),
            "a token does not see itself",
        ),
        (
            linear(
                ("        S = S +", "        read = S.T @ q[t]\n        S = S +"),
                ("S.T @ q[t] / (z", "read / (z"),
            ),
            "S is read before",
        ),
        (
            linear(
                ("        S = S +", "        weight = z @ q[t]\n        S = S +"),
                ("(z @ q[t])", "weight"),
            ),
            "z is read before",
        ),
        (linear(("z = z + k[t]", "z = k[t]")), "z is the newest key alone"),
        (linear(("S = S + ", "S = "), ("z = z + k[t]", "z = k[t]")), "that is v"),
        (linear(("(z @ q[t])", "(t + 1)")), "the number of tokens"),
        (linear(("(z @ q[t])", "z.sum()")), "the sum of z"),
        (linear(("(z @ q[t])", "q[t].sum()")), "the sum of q_t"),
        (linear(("S.T @", "S @")), "turned over"),
        (
            linear(
                ("outer(k[t]", "outer(q[t]"),
                ("z + k[t]", "z + q[t]"),
                ("S.T @ q[t] / (z @ q[t])", "S.T @ k[t] / (z @ k[t])"),
            ),
            "q and k are exchanged",
        ),
        (
            linear(
                (
                    "    S, z",
                    "    q, k = (torch.nn.functional.elu(x) + 1 for x in (q, k))\n    S, z",
                )
            ),
            "do not apply elu",
        ),
        (linear(("    S, z", "    q, k = q.exp(), k.exp()\n    S, z")), "do not take exp"),
        (
            "import torch\n"
            "def linear_attention(q, k, v):\n"
            "    hidden = torch.ones(len(q), len(q), dtype=torch.bool).triu(1)\n"
            "    return (q @ k.T).masked_fill(hidden, float('-inf')).softmax(-1) @ v\n",
            "that is softmax attention; here",
        ),
        (
            "from torch.nn.functional import scaled_dot_product_attention as attend\n"
            "def linear_attention(q, k, v):\n"
            "    return attend(q[None], k[None], v[None], is_causal=True)[0]\n",
            "with its √K",
        ),
        (linear((LATER, "\n    return S")), "that is one table, S"),
        (linear((LATER, "\n    return y[-1]")), "that of a single token"),
        (linear((LATER, "\n    return torch.stack(y).T")), "give a [4, 2]"),
        (linear((LATER, "\n    return y")), "return a tensor"),
        (linear((LATER, "")), "returns nothing"),
        (
            linear(("torch.zeros(k.shape[1]), []", "k[0], []"), ("z = z + k[t]", "z += k[t]")),
            "you change the tensors",
        ),
        (linear(("(z @ q[t])", "(z @ q[t] * (1 - (t > 7)))")), "wrong for 9 with 3 features"),
        (
            linear((LATER, "\n    return torch.stack(y)[:, : k.shape[1]]")),
            "9 tokens with 3 features",
        ),
        (linear(("(z @ q[t])", "(z @ q[t] * (t > 0))")), "something is 0 / 0"),
        (
            "def linear_attention(q, k, v):\n"
            "    weights = (q @ k.T).tril()\n"
            "    return weights @ v / weights.sum(1, keepdim=True)\n",
            "you build a table of",
        ),
        (
            "import torch\n"
            "def linear_attention(q, k, v):\n"
            "    y = []\n"
            "    for t in range(len(q)):\n"
            "        weights = k[: t + 1] @ q[t]\n"
            "        y.append(weights @ v[: t + 1] / weights.sum())\n"
            "    return torch.stack(y)\n",
            "nearly four times the work",
        ),
        (
            "def linear_attention(q, k, v):\n"
            "    from minillm.mixers.linear_attention import attend_linear\n"
            "    return attend_linear(q[None, None], k[None, None], v[None, None]).values[0, 0]\n",
            "uses minillm.mixers.linear_attention.attend_linear itself",
        ),
    ],
    "9.3": [
        (
            step(
                ("torch.maximum(m, bonus + k)", "torch.maximum(m, k)"),
                ("bonus + k - top", "k - top"),
            ),
            "the bonus is missing, or cancels",
        ),
        (step(("exp(bonus + k - top)", "exp(bonus - top)")), "your k is missing"),
        (WKV.replace("bonus + k", "k - bonus"), "the bonus is subtracted"),
        (step(("exp(bonus + k - top)", "exp(k - top) * bonus")), "yours multiplies"),
        (step(("exp(m - top)", "exp(m - decay - top)")), "faded before it is read"),
        (
            step(
                ("    return wkv", "    wkv = a / b\n    return wkv"),
            ),
            "you read the new state",
        ),
        (
            step(
                (
                    "    return wkv",
                    "    own = torch.exp(bonus + k - after)\n"
                    "    wkv = (a + own * v) / (b + own)\n    return wkv",
                ),
            ),
            "counted twice",
        ),
        (
            step(("(old * a + new * v) / (old * b + new)", "(a + new * v) / (b + new)")),
            "the past is not",
        ),
        (
            step(
                (
                    "old, new = torch.exp(m - top), torch.exp(bonus + k - top)",
                    "old, new = 1, torch.exp(bonus + k)",
                )
            ),
            "taken as they stand",
        ),
        (step(("exp(bonus + k - top)", "exp(bonus + k)")), "the newest value is not rescaled"),
        (step((" / (old * b + new)", "")), "that is the numerator alone"),
        (step(("(old * a + new * v) / (old * b + new)", "a / b")), "that is the past alone"),
        (step(("(old * a + new * v) / (old * b + new)", "v")), "the newest value alone"),
        (step(("(a, b, after)", "(a, b, m)")), "the maximum is what it was"),
        (step(("torch.maximum(m - decay, k)", "torch.maximum(m, k)")), "the old maximum is not"),
        (
            step(("torch.maximum(m - decay, k)", "torch.maximum(m + decay, k)")),
            "grows by the decay",
        ),
        (step(("after = torch.maximum(m - decay, k)", "after = top")), "the maximum for reading"),
        (
            step(("torch.maximum(m - decay, k)", "torch.maximum(m - decay, bonus + k)")),
            "the bonus goes into the new maximum",
        ),
        (
            step(("torch.maximum(m - decay, k)", "torch.maximum(m, k) - decay")),
            "the newest key is faded, too",
        ),
        (step(("torch.maximum(m - decay, k)", "m - decay")), "must not be below"),
        (step(("torch.maximum(m - decay, k)", "k")), "the past may be greater"),
        (step(("torch.maximum(m - decay, k)", "m * torch.exp(-decay)")), "an exponent: subtract"),
        (step(("(a, b, after)", "(state[0], b, after)")), "the numerator is what it was"),
        (step(("(a, b, after)", "(a, state[1], after)")), "the denominator is what it was"),
        (step(("exp(m - decay - after)", "exp(m - after)")), "no decay is in the numerator"),
        (step(("faded * b", "torch.exp(m - after) * b")), "no decay is in the denominator"),
        (step(("exp(m - decay - after)", "exp(m + decay - after)")), "the past grows"),
        (step(("exp(k - after)", "exp(k - decay - after)")), "the newest token is faded, too"),
        (
            step(
                ("exp(m - decay - after)", "exp(m - after)"),
                ("exp(k - after)", "exp(k - decay - after)"),
            ),
            "in place of the past",
        ),
        (step(("exp(k - after)", "exp(bonus + k - after)")), "the bonus goes into the numerator"),
        (
            step(("    faded", "    m = after\n    faded")),
            "not rescaled from the OLD maximum",
        ),
        (step(("faded * a + added * v, faded * b", "a + added * v, b")), "neither faded nor"),
        (step(("exp(k - after)", "exp(k)")), "in the numerator the newest token is not rescaled"),
        (
            step(("exp(m - decay - after)", "exp(m - decay)"), ("exp(k - after)", "exp(k)")),
            "not divided by e^next",
        ),
        (
            step(("exp(m - decay - after)", "exp(m - after) * decay")),
            "you multiply by the decay",
        ),
        (
            step(("faded * a + added * v, faded * b + added", "old * a + new * v, old * b + new")),
            "that is the numerator as it was read",
        ),
        (step(("faded * b + added", "faded * b + added * v")), "the sum of weights: without v"),
        (step(("faded * b + added", "faded * b")), "missing in the denominator"),
        (step(("faded * b + added", "faded * b + 1")), "which is not always 1"),
        (step(("faded * a + added * v", "faded * a + added")), "v is missing"),
        (step(("faded * a + added * v", "faded * a + v")), "v has the weight"),
        (
            step(
                (
                    "torch.exp(m - top), torch.exp(bonus + k - top)",
                    "torch.exp(m), torch.exp(bonus + k)",
                )
            ),
            "keys of 1000 overflow",
        ),
        (
            step(
                (
                    "torch.exp(m - top), torch.exp(bonus + k - top)",
                    "torch.exp(m.clamp(max=40)), torch.exp((bonus + k).clamp(max=40))",
                )
            ),
            "keys of -1000 give 0 / 0",
        ),
        (step(("torch.exp(m - top)", "torch.log(m - top)")), "NaN for small keys"),
        (step(("    a, b = faded * a", "    a *= faded\n    a, b = a")), "you change the tensors"),
        (step(("wkv, (a, b, after)", "wkv, a, b, after")), "return 2 things"),
        (step(("(a, b, after)", "(a, b)")), "the new state is 3 tensors"),
        (step(("(a, b, after)", "(a, b, after.max())")), "the maximum is [5]"),
        (step(("    return wkv", "    print(wkv)\n    wkv")), "returns nothing"),
        (step(("return wkv,", "return wkv.tolist(),")), "return a tensor"),
        (
            step(("    top =", "    k, given = k.clamp(-50, 50), k\n    top =")),
            "with keys from -1000 to 1000 wkv is wrong",
        ),
        (
            "def wkv_step(k, v, decay, bonus, state):\n"
            "    from minillm.mixers.rwkv import Sums, wkv_recurrent\n"
            "    found, sums = wkv_recurrent(k[None, None], v[None, None], decay, bonus,\n"
            "                                Sums(*(part[None] for part in state)))\n"
            "    return found[0, 0], tuple(part[0] for part in sums)\n",
            "uses minillm.mixers.rwkv.wkv_recurrent itself",
        ),
    ],
    "9.4": [
        (delta(("v[t] - found", "v[t]")), "add without taking out"),
        (delta((WRITE, "torch.outer(k[t], v[t])")), "that is linear attention"),
        (delta(("beta[t] * ", "")), "β is missing: it says"),
        (delta((WRITE, "torch.outer(k[t], beta[t] * v[t] - found)")), "all of the old out and"),
        (delta((WRITE, "torch.outer(k[t], v[t] - beta[t] * found)")), "β of the old out and"),
        (delta(("beta[t] *", "(1 - beta[t]) *")), "REPLACED"),
        (delta(("beta[t] *", "beta[t] ** 2 *")), "multiplied in twice"),
        (
            delta(
                ("        y.append(S.T @ q[t])\n", ""),
                ("        found", "        y.append(S.T @ q[t])\n        found"),
            ),
            "read before you write",
        ),
        (
            delta(
                (
                    f"found = S.T @ k[t]\n        S = S + {WRITE}",
                    "S = S + beta[t] * torch.outer(k[t], v[t])\n"
                    "        S = S - beta[t] * torch.outer(k[t], S.T @ k[t])",
                )
            ),
            "take out with the new S",
        ),
        (delta(("v[t] - found", "v[t] + found")), "is added once more"),
        (delta(("v[t] - found", "found - v[t]")), "the wrong sign"),
        (delta(("S.T @ k[t]", "S @ k[t]")), "yours is S k_t"),
        (delta(("S.T @ q[t]", "S @ q[t]")), "yours is S q_t"),
        (delta(("outer(k[t], v[t] - found)", "outer(v[t] - found, k[t])")), "turned over where"),
        (
            delta((f"S + {WRITE}", "(1 - beta[t]) * S + beta[t] * torch.outer(k[t], v[t])")),
            "all of S fades",
        ),
        (
            delta((f"S + {WRITE}", "beta[t] * torch.outer(k[t], v[t])")),
            "the newest token alone",
        ),
        (delta((f"S + {WRITE}", WRITE)), "S is replaced by the difference"),
        (
            delta(
                ("S = S + ", "S += "),
                ("y.append(S.T @ q[t])", "y.append(S)"),
                (LATER, "\n    return torch.einsum('tnk,tn->tk', torch.stack(y), q)"),
            ),
            "every token sees the last S",
        ),
        (
            delta(("y.append(S.T @ q[t])", "y.append(S.T @ q[t] / (k[: t + 1].sum(0) @ q[t]))")),
            "divided by the weights",
        ),
        (delta(("y.append(S.T @ q[t])", "y.append(v[t] - found)")), "that is v_t - Sᵀ k_t"),
        (delta(("S.T @ q[t]", "S.T.mv(k[t])")), "you read with the key"),
        (
            delta(
                ("S.T @ k[t]", "S.T.mv(q[t])"),
                ("outer(k[t]", "outer(q[t]"),
                ("S.T @ q[t]", "S.T @ k[t]"),
            ),
            "q and k are exchanged",
        ),
        (delta(("S.T @ k[t]", "S.T.mv(q[t])")), "what the query finds"),
        (delta((WRITE, f"{WRITE} / S.sum()")), "NaN or infinite"),
        (delta((LATER, "\n    return S")), "that is one table, S"),
        (delta((LATER, "\n    return torch.stack(y).T")), "give a [4, 2]"),
        (delta((LATER, "\n    return y")), "return a tensor"),
        (delta((LATER, "")), "returns nothing"),
        (
            delta(("v[t] - found", "v[t].sub_(found)")),
            "you change the tensors",
        ),
        (
            delta(("beta[t] *", "(beta[t] if beta[t] > 0.1 else 0.1) *")),
            "with β = 0 it changes nothing",
        ),
        (
            delta(("S = S +", "S = (0.9 if t > 3 else 1.0) * S +")),
            "right for 4 tokens, wrong for 40",
        ),
        (
            delta((LATER, "\n    return torch.stack(y)[:, : k.shape[1]]")),
            "give a [40, 5]",
        ),
    ],
    "9.5": [
        (_tokens(f"1, {BECAUSE}"), "at 1 token the cache"),
        (_tokens(f"8, {BECAUSE}"), "it is still the larger"),
        (_tokens(f"8.5, {BECAUSE}"), "tokens come whole"),
        (_tokens(f"17, {BECAUSE}"), "a key AND a value"),
        (_tokens(f"3, {BECAUSE}"), "the state of one head;"),
        (_tokens(f"33, {BECAUSE}"), "one head of 64 numbers"),
        (_tokens(f"35, {BECAUSE}"), "the cache of one head against"),
        (_tokens(f"64, {BECAUSE}"), "64 is the width"),
        (_tokens(f"1088, {BECAUSE}"), "so many numbers"),
        (_tokens(f"4352, {BECAUSE}"), "so many bytes"),
        (_tokens(f"128, {BECAUSE}"), "what one token takes"),
        (_tokens(f"12, {BECAUSE}"), "12 is not it"),
        (_tokens("9"), "return two things"),
        (_tokens("9, 'less'"), "say in a sentence"),
        (_tokens(f"'nine', {BECAUSE}"), "return one number"),
        (_tokens(f"None, {BECAUSE}"), "the number is None"),
    ],
}

MUTANT = {
    "9.1": mask(("near | sinks", "near | (sinks & (behind != 5))")),
    "9.2": linear((LATER, "\n    return torch.stack(y) + 1")),
    "9.3": step(("return wkv,", "return wkv + 1,")),
    "9.4": delta((LATER, "\n    return torch.stack(y) + 1")),
    "9.5": _tokens(f"float('nan'), {BECAUSE}"),
}
