"""What `@task` runs for chapter 09.

Chapter: 09
"""

import inspect
import math
from collections.abc import Callable
from types import ModuleType
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode

from minillm.lab.grade import Diagnosis, Grader, as_number, as_tensor


def grade_sparse_mask(answer):
    """Seven tokens, on which each mistake shows; then edges: no sinks, a window of one, of all."""
    _refuse(answer, "minillm.model.masks", "minillm.mixers.sparse")
    n, window, sinks = 7, 3, 2
    got = as_tensor(answer(n, window, sinks))
    if got.shape != (n, n):
        raise Diagnosis(
            f"7 tokens need a table [7, 7], a row for each query and a column for each key; yours "
            f"is {[*got.shape]}."
        )
    if got.dtype != torch.bool:
        raise Diagnosis(f"the table must be of bool; yours is of {got.dtype}.")
    query, key = torch.arange(n)[:, None], torch.arange(n)[None, :]
    distance = query - key
    behind, first = distance >= 0, (key < sinks).expand(n, n)
    near, written = behind & (distance < window), behind & first
    right = near | written
    around = distance.abs() < window
    for wrong, what in (
        (~right, "True means MAY look; yours says who may not."),
        (right.T, "turned over: rows are queries, columns are keys, and nobody looks ahead."),
        (
            near | first,
            "the sinks are seen before they are written: token 0 must not look at token 1.",
        ),
        (
            (distance < window) | written,
            "whoever comes later is a negative number of places back, and that is below the "
            "window, too: ask for a distance of 0 or more.",
        ),
        (around | written, "your window reaches forwards, too: abs() makes the future the past."),
        (
            (behind & (distance <= window)) | written,
            "your window holds one too many: the token itself is one of the `window` tokens.",
        ),
        (
            (behind & (distance < window - 1)) | written,
            "your window holds too few: a token sees itself and the window - 1 before it. The "
            "sinks take no place in it.",
        ),
        (right & (distance > 0), "a token may look at itself, too."),
        (
            ((distance > 0) & (distance <= window)) | written,
            "the window begins with the token itself; yours begins one place before it.",
        ),
        (
            ((distance > 0) & (distance < window)) | written,
            "in your window a token does not see itself.",
        ),
        (near, "the sinks are forgotten: a later token sees the first n_sinks, however far back."),
        (
            near | (query < sinks),
            "the first n_sinks are seen by all, they do not see all: key, not query.",
        ),
        (written, "the window is forgotten: only the sinks are seen."),
        (behind, "that is the plain causal mask; beyond the window only the sinks are seen."),
        (near & first, "a token sees window OR sinks; you join them with `and`."),
        (
            near | (behind & (key <= sinks)),
            "one sink too many: they stand at the places 0 to n_sinks - 1.",
        ),
        (
            near | (behind & (key < sinks - 1)),
            "one sink too few: they stand at the places 0 to n_sinks - 1.",
        ),
        (
            near | (behind & (distance >= n - sinks)),
            "the sinks are counted from the text's beginning, not from its end.",
        ),
    ):
        if torch.equal(got, wrong):
            raise Diagnosis(what)
    for n, window, sinks in (
        (7, 3, 2),
        (5, 1, 0),
        (6, 1, 1),
        (6, 3, 1),
        (4, 9, 2),
        (6, 2, 9),
        (8, 3, 3),
        (1, 1, 1),
    ):
        call = f"sparse_mask({n}, {window}, {sinks})"
        got = as_tensor(answer(n, window, sinks))
        if got.shape != (n, n):
            raise Diagnosis(f"{call} must be [{n}, {n}]; yours is {[*got.shape]}.")
        for i in range(n):
            for j in range(n):
                allowed = j <= i and (i - j < window or j < sinks)
                if bool(got[i, j]) != allowed:
                    must = "must" if allowed else "must not"
                    raise Diagnosis(f"{call}: token {i} {must} look at token {j}.")


def grade_linear_attention(answer):
    """Four tokens by hand; other widths; then what is built, and how the work grows."""
    q = torch.tensor([[1.0, 2.0], [3.0, 1.0], [1.0, 4.0], [2.0, 1.0]])
    k = torch.tensor([[2.0, 1.0], [1.0, 5.0], [4.0, 3.0], [1.0, 2.0]])
    v = torch.tensor([[6.0, -2.0], [1.0, 4.0], [-3.0, 5.0], [2.0, 7.0]])
    got = _kept(answer, q, k, v)
    if got.shape == (2, 2):
        raise Diagnosis("for 4 tokens y is [4, 2]: that is one table, S; each token reads from it.")
    if got.shape == (2,):
        raise Diagnosis("for 4 tokens y is [4, 2]; you give that of a single token.")
    if got.shape != (4, 2):
        raise Diagnosis(f"4 tokens and values of width 2 give a [4, 2]; yours is {[*got.shape]}.")
    outer = torch.einsum("tn,tk->tnk", k, v)
    s, z = outer.cumsum(dim=0), k.cumsum(dim=0)

    def read(states: Tensor, keys: Tensor = q) -> Tensor:
        return torch.einsum("tnk,tn->tk", states, keys)

    def weight(totals: Tensor) -> Tensor:
        return (totals * q).sum(dim=1, keepdim=True)

    right, all_s, all_z = read(s) / weight(z), s[-1:].expand_as(s), z[-1:].expand_as(z)
    for numerator, denominator, what in (
        (s - outer, z - k, "a token does not see itself: S and z are read before it is written."),
        (s - outer, z, "S is read before the token is written into it, z after."),
        (s, z - k, "z is read before the token is added to it, S after."),
    ):
        if _near(got[1:], (read(numerator) / weight(denominator))[1:]):
            raise Diagnosis(what)
    if not bool(got.isfinite().all()):
        raise Diagnosis("something is 0 / 0: write k_t and v_t first, then read S and z.")
    plain = (q @ k.T).masked_fill(torch.ones(4, 4, dtype=torch.bool).triu(1), -math.inf)
    _tell(
        got,
        (read(s), "you forget to divide: the weights of a token must sum to 1. By z · q_t."),
        (
            read(all_s) / weight(all_z),
            "every token sees the whole text, the future, too: read S and z at each token, before "
            "the next. (A table that is changed in place and put in a list stays one table.)",
        ),
        (read(s) / weight(all_z), "you divide by the sum of ALL keys; z holds those so far."),
        (
            read(all_s) / weight(z),
            "z is that of the moment, S that of the whole text: the future is seen. (A table that "
            "is changed in place and put in a list stays one table.)",
        ),
        (read(s) / weight(k), "z is the newest key alone; it is the sum of all keys so far."),
        (v, "that is v: S holds the newest token alone. It is the sum of all so far."),
        (
            read(s) / torch.arange(1, 5)[:, None],
            "you divide by the number of tokens; divide by their weights, z · q_t.",
        ),
        (read(s) / z.sum(dim=1, keepdim=True), "you divide by the sum of z; it is z · q_t."),
        (
            read(s) / weight(torch.ones_like(z)),
            "you divide by the sum of q_t; it is z · q_t.",
        ),
        (
            read(s.mT) / weight(z),
            "your table is turned over: S is k_t v_tᵀ, a row for each feature, read by Sᵀ q_t.",
        ),
        (
            read(torch.einsum("tn,tk->tnk", q, v).cumsum(dim=0), k)
            / (q.cumsum(dim=0) * k).sum(dim=1, keepdim=True),
            "q and k are exchanged: the key is written, the query reads.",
        ),
        (
            _attended(torch.nn.functional.elu(q) + 1, torch.nn.functional.elu(k) + 1, v),
            "q and k are features already; do not apply elu(x) + 1 once more.",
        ),
        (_attended(q.exp(), k.exp(), v), "q and k are features already; do not take exp of them."),
        (
            plain.softmax(dim=-1) @ v,
            "that is softmax attention; here a weight is q_t · k_s itself.",
        ),
        ((plain / math.sqrt(2)).softmax(dim=-1) @ v, "that is softmax attention, with its √K."),
    )
    _agree(got, right, "4 tokens come out wrong")

    torch.manual_seed(0)
    q, k, v = torch.rand(9, 3) + 0.1, torch.rand(9, 3) + 0.1, torch.randn(9, 5)
    got = _kept(answer, q, k, v)
    if got.shape != (9, 5):
        raise Diagnosis(
            f"9 tokens with 3 features and values of width 5 give a [9, 5]; yours is "
            f"{[*got.shape]}."
        )
    _agree(got, _attended(q, k, v), "right for 4 tokens, wrong for 9 with 3 features")
    elements = []
    for n_tokens in (256, 512):
        q, k, v = torch.rand(n_tokens, 2) + 0.1, torch.rand(n_tokens, 2) + 0.1, torch.ones(n_tokens)
        v = v[:, None] * torch.randn(3)
        with _Work() as work:
            answer(q, k, v)
        if work.largest >= n_tokens**2 // 2:
            raise Diagnosis(
                f"right, but for {n_tokens} tokens you build a table of {work.largest:,} numbers, "
                "each token with each. Keep S and z in its place."
            )
        elements.append(work.elements)
    if elements[1] > 3 * elements[0]:
        raise Diagnosis(
            "right, but for twice as many tokens you do nearly four times the work: is the past "
            "read again for each token, as k[:t + 1], or a result copied each time it grows?"
        )


def grade_wkv_step(answer):
    """One step of five channels by hand; several steps; keys far beyond what exp can hold."""
    # channel by channel: the past weighs more, less, much more; the bonus is negative; it decides
    k = torch.tensor([0.5, 2.0, -1.0, 1.0, 1.5])
    v = torch.tensor([3.0, -2.0, 4.0, 5.0, -1.0])
    decay = torch.tensor([0.25, 0.5, 0.75, 1.5, 0.4])
    bonus = torch.tensor([0.7, 0.3, 0.6, -0.9, 1.2])
    past = (
        torch.tensor([2.0, 1.5, -3.0, 4.0, 6.0]),
        torch.tensor([1.6, 1.2, 1.9, 2.5, 3.0]),
        torch.tensor([1.0, 0.5, 0.8, 1.2, 2.0]),
    )
    wkv, state = _stepped(answer, k, v, decay, bonus, past)
    a, b, m = past

    def mean(old: Tensor, new: Tensor) -> Tensor:
        return (old * a + new * v) / (old * b + new)

    old, new = m.exp(), (bonus + k).exp()
    top = torch.maximum(m, bonus + k)
    after = torch.maximum(m - decay, k)
    faded, added = (m - decay - after).exp(), (k - after).exp()
    right_a, right_b = faded * a + added * v, faded * b + added
    if wkv.isnan().any():
        raise Diagnosis("wkv is NaN for small keys already; what is subtracted in the exponents?")
    _tell(
        wkv,
        (
            mean(old, k.exp()),
            "the bonus is missing, or cancels: for itself the token weighs e^(bonus + k).",
        ),
        (mean(old, bonus.exp()), "the newest value weighs e^(bonus + k); your k is missing."),
        (
            mean(old, (k - bonus).exp()),
            "the bonus is subtracted from k, or added to the past; add it to k alone.",
        ),
        (mean(old, bonus * k.exp()), "the bonus is added to k, in the exponent; yours multiplies."),
        (
            mean((m - decay).exp(), new),
            "the past is faded before it is read; read first, the decay belongs to the new state.",
        ),
        (
            mean((m - decay).exp(), k.exp()),
            "you read the new state; wkv is read from the given one, with the bonus.",
        ),
        (
            (right_a + (bonus + k - after).exp() * v) / (right_b + (bonus + k - after).exp()),
            "the newest token is counted twice: read before it is written.",
        ),
        (
            mean(torch.ones(5), (bonus + k - top).exp()),
            "the past is not rescaled: numerator and denominator were divided by e^maximum, so "
            "multiply them by e^(maximum - top).",
        ),
        (
            mean(torch.ones(5), new),
            "numerator and denominator were divided by e^maximum; yours are taken as they stand.",
        ),
        (mean((m - top).exp(), new), "the newest value is not rescaled: e^(bonus + k - top)."),
        (
            mean((m - top).exp(), (k - top).exp()),
            "the bonus is missing in the weight of the newest token, e^(bonus + k - top).",
        ),
        (
            (m - top).exp() * a + (bonus + k - top).exp() * v,
            "that is the numerator alone; divide by the denominator, which has no v.",
        ),
        (a / b, "that is the past alone; the newest token is read, too."),
        (v, "that is v, the newest value alone; the past is read, too."),
    )
    _agree(wkv, mean(old, new), "wkv is wrong")

    got_a, got_b, got_m = state
    _tell(
        got_m,
        (m, "the maximum is what it was; it becomes max(maximum - decay, k)."),
        (
            torch.maximum(m, k),
            "the old maximum is not faded: max(maximum - decay, k).",
        ),
        (torch.maximum(m + decay, k), "the maximum grows by the decay; it is maximum - decay."),
        (top, "that is the maximum for reading; the one that is kept has decay and no bonus."),
        (
            torch.maximum(m - decay, bonus + k),
            "the bonus goes into the new maximum; it is for reading only.",
        ),
        (
            torch.maximum(m, k) - decay,
            "the newest key is faded, too; it begins to fade with the next token.",
        ),
        (m - decay, "the new maximum must not be below the newest key: max(maximum - decay, k)."),
        (k, "the new maximum is the newest key; the past may be greater: max(maximum - decay, k)."),
        (m * (-decay).exp(), "the maximum is an exponent: subtract the decay from it."),
    )
    _agree(got_m, after, "wkv is right, the new maximum is wrong")
    for name, got, old_sum, what in (
        ("numerator", got_a, a, v),
        ("denominator", got_b, b, torch.ones(5)),
    ):
        _tell(
            got,
            (old_sum, f"the {name} is what it was; write the newest token into it."),
            (
                (m - after).exp() * old_sum + added * what,
                f"no decay is in the {name}: the old part is times e^(maximum - decay - next).",
            ),
            (
                (m + decay - after).exp() * old_sum + added * what,
                f"in the {name} the past grows: e^(-decay) of it is left, so subtract the decay.",
            ),
            (
                (m - decay - after).exp() * old_sum + (k - decay - after).exp() * what,
                f"in the {name} the newest token is faded, too; it begins with the next.",
            ),
            (
                (m - after).exp() * old_sum + (k - decay - after).exp() * what,
                f"in the {name} the newest token is faded in place of the past.",
            ),
            (
                faded * old_sum + (bonus + k - after).exp() * what,
                f"the bonus goes into the {name}; it is for reading only.",
            ),
            (
                (-decay).exp() * old_sum + added * what,
                f"the old {name} is not rescaled from the OLD maximum to the new: it is times "
                "e^(maximum - decay - next).",
            ),
            (old_sum + added * what, f"the old {name} is neither faded nor rescaled."),
            (
                faded * old_sum + k.exp() * what,
                f"in the {name} the newest token is not rescaled: e^(k - next).",
            ),
            (
                (m - decay).exp() * old_sum + k.exp() * what,
                f"the new {name} is not divided by e^next, as the new maximum says it is.",
            ),
            (
                decay * (m - after).exp() * old_sum + added * what,
                f"in the {name} you multiply by the decay; e^(-decay) of the past is left.",
            ),
            (
                (m - top).exp() * old_sum + (bonus + k - top).exp() * what,
                f"that is the {name} as it was read; with decay and without bonus it is written.",
            ),
        )
        if name == "denominator":
            _tell(
                got,
                (faded * b + added * v, "the denominator is the sum of weights: without v."),
                (faded * b, "the newest token is missing in the denominator: add e^(k - next)."),
                (faded * b + 1, "the denominator takes in e^(k - next), which is not always 1."),
            )
        else:
            _tell(
                got,
                (
                    faded * a + added,
                    "the numerator is the sum of weight times value; v is missing.",
                ),
                (faded * a + v, "in the numerator v has the weight e^(k - next)."),
            )
        right = right_a if name == "numerator" else right_b
        _agree(got, right, f"wkv and the new maximum are right, the new {name} is wrong")

    torch.manual_seed(0)
    for scale, what in (
        (1.0, "right for one step; from the beginning on"),
        (1000.0, "right for small keys; with keys from -1000 to 1000"),
    ):
        keys, values = scale * (2 * torch.rand(6, 4) - 1), torch.randn(6, 4)
        keys[:, 0] = scale  # all the same, so every token counts
        keys[:, 1] = -scale
        decay, bonus = torch.rand(4) + 0.1, torch.randn(4)
        state = (torch.zeros(4), torch.zeros(4), torch.full((4,), -1e38))
        for t in range(6):
            wkv, state = _stepped(answer, keys[t], values[t], decay, bonus, state)
            if not all(bool(part.isfinite().all()) for part in (wkv, *state)):
                if bool(wkv[0].isfinite()) and all(bool(part[0].isfinite()) for part in state):
                    raise Diagnosis(
                        "keys of -1000 give 0 / 0, since e^-1000 is 0 in a float: subtract the "
                        "maximum in the exponent, before exp."
                    )
                raise Diagnosis(
                    "keys of 1000 overflow, e^89 is beyond a float: subtract the maximum in the "
                    "exponent, before exp."
                )
            right = _wkv(keys[: t + 1], values[: t + 1], decay, bonus)
            if not torch.allclose(wkv, right, rtol=1e-3, atol=1e-3):  # 1000.3 is not exact
                _agree(wkv, right, f"{what} wkv is wrong at step {t + 1}")


def grade_delta_rule(answer):
    """Four tokens with keys of length 1 by hand; a value replaced; more tokens, other widths."""
    q = torch.tensor([[1.0, 2.0], [3.0, 1.0], [-1.0, 2.0], [2.0, 1.0]])
    k = torch.tensor([[1.0, 0.0], [0.6, 0.8], [-0.8, 0.6], [0.28, 0.96]])
    v = torch.tensor([[6.0, -2.0], [1.0, 4.0], [-3.0, 5.0], [2.0, 7.0]])
    beta = torch.tensor([0.8, 0.5, 0.25, 0.9])
    got = _kept(answer, q, k, v, beta)
    if got.shape == (2, 2):
        raise Diagnosis("for 4 tokens y is [4, 2]: that is one table, S; each token reads from it.")
    if got.shape != (4, 2):
        raise Diagnosis(f"4 tokens and values of width 2 give a [4, 2]; yours is {[*got.shape]}.")

    def ran(write: Callable[..., Tensor]) -> _Run:
        return _run(q, k, v, beta, write)

    def found(write: Callable[..., Tensor]) -> Tensor:
        return ran(write).after

    # s: the table; k, v, b: of this token; K: what is found under the key before
    def delta(s: Tensor, k: Tensor, v: Tensor, b: Tensor) -> Tensor:
        return s + b * torch.outer(k, v - k @ s)

    def whole_added(s: Tensor, k: Tensor, v: Tensor, b: Tensor) -> Tensor:
        s = s + b * torch.outer(k, v)
        return s - b * torch.outer(k, k @ s)

    right = ran(delta)
    weights = torch.einsum("tn,tn->t", k.cumsum(dim=0), q)[:, None]
    _tell(
        got,
        (
            found(lambda s, k, v, b: s + b * torch.outer(k, v)),
            "you add without taking out what is stored under the key: v_t - Sᵀ k_t.",
        ),
        (
            found(lambda s, k, v, b: s + torch.outer(k, v)),
            "that is linear attention: nothing is taken out, and β is missing.",
        ),
        (
            found(lambda s, k, v, b: s + torch.outer(k, v - k @ s)),
            "β is missing: it says how much of the old is replaced.",
        ),
        (
            found(lambda s, k, v, b: s + torch.outer(k, b * v - k @ s)),
            "β is for the whole difference; yours takes all of the old out and puts β v_t in.",
        ),
        (
            found(lambda s, k, v, b: s + torch.outer(k, v - b * (k @ s))),
            "β is for the whole difference; yours takes β of the old out and puts all of v_t in.",
        ),
        (
            found(lambda s, k, v, b: s + (1 - b) * torch.outer(k, v - k @ s)),
            "β says how much of the old is REPLACED, not how much is kept.",
        ),
        (
            found(lambda s, k, v, b: s + b**2 * torch.outer(k, v - k @ s)),
            "β is multiplied in twice.",
        ),
        (right.before, "you read before you write: y_t is of S_t, with this token in it."),
        (
            found(whole_added),
            "you take out with the new S: what is found under the key must be read before v_t is "
            "put there.",
        ),
        (
            found(lambda s, k, v, b: s + b * torch.outer(k, v + k @ s)),
            "what is found under the key is added once more; subtract it.",
        ),
        (
            found(lambda s, k, v, b: s - b * torch.outer(k, v - k @ s)),
            "the difference has the wrong sign: v_t less what is found.",
        ),
        (
            found(lambda s, k, v, b: s + b * torch.outer(k, v - s @ k)),
            "what is found under the key is Sᵀ k_t; yours is S k_t.",
        ),
        (
            torch.einsum("tnk,tk->tn", right.tables, q),
            "y_t is Sᵀ q_t; yours is S q_t.",
        ),
        (
            found(lambda s, k, v, b: s + b * torch.outer(v - k @ s, k)),
            "your table is turned over where you write: a row for each number of k_t, k_t (…)ᵀ.",
        ),
        (
            found(lambda s, k, v, b: (1 - b) * s + b * torch.outer(k, v)),
            "all of S fades; only what is stored under this key is to be taken out.",
        ),
        (
            found(lambda s, k, v, b: b * torch.outer(k, v)),
            "S holds the newest token alone; it is S_(t-1) plus the difference.",
        ),
        (
            found(lambda s, k, v, b: b * torch.outer(k, v - k @ s)),
            "S is replaced by the difference; add it to S_(t-1).",
        ),
        (
            q @ right.tables[-1],
            "every token sees the last S, and so the future. (A table that is changed in place and "
            "put in a list stays one table.)",
        ),
        (right.after / weights, "y is divided by the weights, as in task 9.2; here by nothing."),
        (right.errors, "that is v_t - Sᵀ k_t, the difference; y_t is Sᵀ q_t, read with the query."),
        (
            torch.einsum("tnk,tn->tk", right.tables, k),
            "you read with the key; y_t is read with the query, Sᵀ q_t.",
        ),
        (
            _run(k, q, v, beta, delta).after,
            "q and k are exchanged: the key is written, the query reads.",
        ),
        (
            _run(q, k, v, beta, delta, seen=q).after,
            "you take out what the query finds; take out what is stored under the key.",
        ),
    )
    if not bool(got.isfinite().all()):
        raise Diagnosis("there are NaN or infinite numbers in it; nothing is divided here.")
    _agree(got, right.after, "4 tokens come out wrong")

    one = torch.tensor([[1.0, 0.0], [0.0, 1.0], [1.0, 0.0], [0.0, 1.0]])
    got = _kept(answer, one[[0, 1, 0, 1]], one, v, torch.tensor([1.0, 1.0, 1.0, 0.0]))
    _agree(
        got,
        v[[0, 1, 2, 1]],
        "with β = 1 the second value under a key replaces the first, with β = 0 it changes nothing",
    )
    torch.manual_seed(0)
    q, v, beta = torch.randn(40, 3), torch.randn(40, 5), torch.rand(40)
    k = torch.nn.functional.normalize(torch.randn(40, 3), dim=1)
    got = _kept(answer, q, k, v, beta)
    if got.shape != (40, 5):
        raise Diagnosis(
            f"40 tokens with keys of 3 numbers and values of 5 give a [40, 5]; yours is "
            f"{[*got.shape]}."
        )
    right = _run(q, k, v, beta, delta).after
    if not torch.allclose(got, right, rtol=1e-3, atol=1e-4):
        _agree(got, right, "right for 4 tokens, wrong for 40 with keys of 3 numbers")


def grade_when_the_state_is_smaller(answer):
    """The number is graded; the sentence must be there."""
    got = answer()
    if not (isinstance(got, tuple | list) and len(got) == 2):
        raise Diagnosis('return two things: the number and your sentence, as in 2, "because …".')
    number, sentence = got
    if number is None:
        raise Diagnosis("the number is None; measure, and put it there.")
    number = as_number(number)
    for wrong, what in (
        ((0, 1), "at 1 token the cache has 128 numbers, the state 1,088 from the beginning on."),
        (
            (8,),
            "at 8 tokens the cache has 1,024 numbers and the state 1,088: with its normaliser, "
            "4 · 16 numbers, it is still the larger.",
        ),
        ((8.5,), "that is where the two lines cross; tokens come whole: from which on?"),
        (
            (16, 17, 18),
            "a token leaves a key AND a value in the cache, 2 · 64 numbers; you count one of them.",
        ),
        (
            (2, 2.125, 3),
            "that is the state of one head; there are four, each with a table and a normaliser.",
        ),
        (
            (32, 32.5, 33),
            "that would be one head of 64 numbers; four heads of 16 have four smaller tables.",
        ),
        (
            (34, 35),
            "that is the cache of one head against the state of four; count four heads of both.",
        ),
        (
            (64, 65),
            "64 is the width; how many numbers has the state, how many has a token's cache?",
        ),
        ((1088, 1024), "so many numbers has the state; how many tokens have as many in the cache?"),
        ((4352, 4096), "so many bytes has the state; how many tokens have as many in the cache?"),
        (
            (128, 512),
            "that is what one token takes in the cache; the state is as large as how many?",
        ),
    ):
        if any(math.isclose(number, each, abs_tol=1e-3) for each in wrong):
            raise Diagnosis(what)
    if number != 9:
        raise Diagnosis(
            f"{number:.4g} is not it: print new_cache(1, n).n_bytes of both layers for n = 1, 2, … "
            "At which n is the state's for the first time the smaller one?"
        )
    if not isinstance(sentence, str) or (len(sentence.split()) < 4 and len(sentence) < 8):
        raise Diagnosis("the number is right; now say in a sentence where it comes from.")


class _Work(TorchFunctionMode):
    """Counts the elements of all results of torch's operations, those of parts among them.

    A part, k[:t + 1], takes no memory, so `minillm.measure.memory_meter.Meter` sees none of it; but
    whoever
    takes one is about to read it. What shows a whole tensor once more, as k.T does, counts not.
    """

    def __init__(self):
        super().__init__()
        self.elements = self.largest = 0

    def __torch_function__(self, func: Any, types: Any, args: tuple = (), kwargs: Any = None):
        result = func(*args, **(kwargs or {}))
        given = {(part.data_ptr(), part.numel()) for part in args if isinstance(part, Tensor)}
        for part in result if isinstance(result, list | tuple) else [result]:
            if isinstance(part, Tensor) and (part.data_ptr(), part.numel()) not in given:
                self.elements += part.numel()
                self.largest = max(self.largest, part.numel())
        return result


class _Run(NamedTuple):
    """What the tables give to each query, before and after the token is written.

    ``tables`` are those after each token, ``errors`` what each value is less what was found.
    """

    before: Tensor
    after: Tensor
    tables: Tensor
    errors: Tensor


def _run(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    beta: Tensor,
    write: Callable[..., Tensor],
    seen: Tensor | None = None,
) -> _Run:
    """Token by token; with `seen` it is these that say what is taken out, not the keys."""
    table = torch.zeros(k.shape[1], v.shape[1])
    before, after, tables, errors = [], [], [], []
    for t in range(len(q)):
        before.append(q[t] @ table)
        errors.append(v[t] - k[t] @ table)
        if seen is None:
            table = write(table, k[t], v[t], beta[t])
        else:
            table = table + beta[t] * torch.outer(k[t], v[t] - seen[t] @ table)
        after.append(q[t] @ table)
        tables.append(table)
    return _Run(*(torch.stack(part) for part in (before, after, tables, errors)))


def _attended(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    """Linear attention by its table of weights."""
    weights = (q @ k.T).tril()
    return weights @ v / weights.sum(dim=1, keepdim=True)


def _wkv(k: Tensor, v: Tensor, decay: Tensor, bonus: Tensor) -> Tensor:
    """RWKV's average at the last of T tokens [T, C], by a softmax over all."""
    exponents = k.double() - (len(k) - 2 - torch.arange(len(k)))[:, None] * decay.double()
    exponents[-1] = (k[-1] + bonus).double()
    return (exponents.softmax(dim=0) * v.double()).sum(dim=0).float()


def _stepped(
    answer, k: Tensor, v: Tensor, decay: Tensor, bonus: Tensor, state: tuple
) -> tuple[Tensor, tuple[Tensor, Tensor, Tensor]]:
    """wkv and the new state, a tuple of three; what was given must stay as it is."""
    given = [part.clone() for part in (k, v, decay, bonus, *state)]
    got = answer(*given[:4], tuple(given[4:]))
    if not all(map(torch.equal, given, (k, v, decay, bonus, *state))):
        raise Diagnosis("you change the tensors that were given; build new ones.")
    if got is None:
        as_tensor(got)
    if not isinstance(got, tuple | list) or len(got) != 2:
        raise Diagnosis("return 2 things: wkv, and the new state, which is a tuple of 3.")
    wkv, new = got
    if not isinstance(new, tuple | list) or len(new) != 3:
        raise Diagnosis("the new state is 3 tensors: (numerator, denominator, maximum).")
    found = [as_tensor(part).detach().float() for part in (wkv, *new)]
    names = ("wkv", "the numerator", "the denominator", "the maximum")
    for name, part in zip(names, found, strict=True):
        if part.shape != k.shape:
            raise Diagnosis(f"{name} is {[*k.shape]}, channel by channel; yours {[*part.shape]}.")
    return found[0], (found[1], found[2], found[3])


def _refuse(answer, *modules: str) -> None:
    """A task has one target; these modules answer it as well."""
    function = inspect.unwrap(answer)
    if not inspect.isfunction(function):
        return
    names = set(function.__code__.co_names)
    for module in modules:
        parent, _, last = module.rpartition(".")
        borrowed = module in names or {parent, last} <= names
        for name in names:
            value = function.__globals__.get(name)
            home = value.__name__ if isinstance(value, ModuleType) else None
            borrowed |= module in (home, getattr(value, "__module__", None))
        if borrowed:
            raise Diagnosis(f"this answer uses {module} itself; write what it does.")


def _kept(answer, *inputs: Tensor) -> Tensor:
    given = [tensor.clone() for tensor in inputs]
    got = as_tensor(answer(*given))
    if not all(map(torch.equal, given, inputs)):
        raise Diagnosis("you change the tensors that were given; build new ones.")
    return got.detach().float()


def _tell(got: Tensor, *wrongs: tuple[Tensor, str]) -> None:
    for wrong, what in wrongs:
        if _near(got, wrong):
            raise Diagnosis(what)


def _near(got: Tensor, right: Tensor) -> bool:
    return got.shape == right.shape and torch.allclose(got, right, rtol=1e-4, atol=1e-5)


def _agree(got: Tensor, right: Tensor, what: str) -> None:
    if not _near(got, right):
        raise Diagnosis(f"{what}: {_shown(right)} would be right; yours gives {_shown(got)}.")


def _shown(tensor: Tensor) -> str:
    numbers = [f"{number:.4g}" for number in tensor.flatten().tolist()]
    return ", ".join(numbers[:8]) + ", …" * (len(numbers) > 8)


GRADERS = {
    "9.1": Grader(
        function="sparse_mask",
        level="everyone",
        grade=grade_sparse_mask,
        target="minillm.mixers.patterns.any_of",
        hints=(
            "places[:, None] - places[None, :] says how many places each key is behind its query.",
            "Causal: a distance of 0 or more. In the window: one below window. A sink: a key's "
            "place below n_sinks.",
            "(distance >= 0) & ((distance < window) | (places[None, :] < n_sinks))",
        ),
    ),
    "9.2": Grader(
        function="linear_attention",
        level="everyone",
        grade=grade_linear_attention,
        target="minillm.mixers.linear_attention.attend_linear",
        hints=(
            "Begin with zeros [N, K] and zeros [N]; go through q, k and v token by token.",
            "k_now[:, None] * v_now[None, :] is the table k_t v_tᵀ; add it to S, and k_now to z.",
            "q_now @ S / (q_now @ z) is y_t; put all in a list, and torch.stack it at the end.",
        ),
    ),
    "9.3": Grader(
        function="wkv_step",
        level="stretch",
        grade=grade_wkv_step,
        target="minillm.mixers.rwkv.wkv_recurrent",
        hints=(
            "Two halves, both from the old state: wkv with top, then the new state with next.",
            "torch.maximum takes the greater of each pair; what stands in exp is then 0 or less.",
            "(maximum - decay - next).exp() for both old sums, (k - next).exp() for what is new.",
        ),
    ),
    "9.4": Grader(
        function="delta_rule",
        level="stretch",
        grade=grade_delta_rule,
        hints=(
            "For a table S [N, K], k_now @ S is what is found under the key, [K].",
            "missing = v_now - k_now @ S, before S is changed; then write it under the same key.",
            "S = S + beta_now * torch.outer(k_now, missing); then q_now @ S is y_t.",
        ),
    ),
    "9.5": Grader(
        function="when_the_state_is_smaller",
        level="everyone",
        grade=grade_when_the_state_is_smaller,
        hints=(
            "AttentionConfig(n_heads=4).build(64).new_cache(1, n).n_bytes for n = 1, 2, 3, …",
            "A token's key and value are 2 · 64 numbers of 4 bytes. How many has the state?",
            "4 heads, each with 16 · 16 numbers of its table and 16 of its normaliser; now divide.",
        ),
        model_answer=(
            "9. The cache has 2 · 64 = 128 numbers a token, the state 4 · 16 · (16 + 1) = 1,088 "
            "from the first token on: 1,088 / 128 = 8.5, so at 8 tokens the cache is the smaller "
            "and at 9 the state. (Without the normaliser both would have 1,024 numbers at 8 "
            "tokens, and the answer would be 9 again, by luck.) With heads of width K the state is "
            "worth (K + 1) / 2 tokens, whatever the number of heads: 64.5 tokens for heads of 128. "
            "So a state that is smaller than the cache of any longer text must forget: it has no "
            "more room than for the keys and values of so many tokens."
        ),
    ),
}
