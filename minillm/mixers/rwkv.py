"""RWKV's time mixing (时间混合): an average of all values so far, that a recurrence can carry.

Attention weighs each value by how well its key fits the query. RWKV has no query. A token's key
says how much it weighs for whoever comes, and each of C channels forgets at a pace of its own:

    wkv_t = (Σ_(i<t) e^(k_i - (t-1-i) w) v_i + e^(k_t + u) v_t) / (the same sum without v)

w > 0 is the decay (衰减): with each token that passes a weight shrinks by e^(-w). u, the bonus, is
for the newest token, which has not been written yet. So wkv is a softmax over the places up to t,
channel by channel. The newest token says by its receptance r how much it takes:

    y_t = W_output (sigmoid(r_t) ⊙ wkv_t)

r, k and v are made from a mixture of this token and the one before, μ x_t + (1 - μ) x_(t-1), with
a μ for each of the three and each number (token shift).

Numerator and denominator need nothing of the past but their own last values, so two numbers a
channel carry a text of any length. Only e^k overflows: e^89 is beyond float32. So both are kept
divided by e^m, where m is the greatest exponent so far, after its decay:

    m_t = max(m_(t-1) - w, k_t)
    a_t = e^(m_(t-1) - w - m_t) a_(t-1) + e^(k_t - m_t) v_t          b_t likewise, 1 in place of v

Three forms give the same:

    wkv_naive        the softmax, with a table of T × T weights for each channel
    wkv_recurrent    token by token, in the memory of one: what writes text
    wkv              m first, then a and b are two scans (`minillm.mixers.scan`): what trains

Paper: Peng et al. 2023, "RWKV: Reinventing RNNs for the Transformer Era", arXiv:2305.13048, section
3.1 (token shift, the wkv operator, output gating), and the appendices on time mixing as an RNN cell
(a, b and m; their p is m) and on first values.
Differs: w is e^(log_decay), as in their code, so that it stays above 0. First values of decay,
bonus and μ change with depth in theirs; a layer does not know its depth here, so all begin as
their first. Matrices are drawn as in all models here; theirs begin at zero. Channel mixing, their
feed-forward part, is left out: any FFN may follow.

Chapter: 09
"""

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NamedTuple, final

import torch
from jaxtyping import Float
from torch import Tensor, nn

from minillm.mixers.recurrent_state import State, checked, writes
from minillm.mixers.scan import scan
from minillm.model.attention import Context

NOTHING = -1e38  # the key of what is not there: e^(NOTHING - k) is 0, and NOTHING - NOTHING is not


# --- the maths ----------------------------------------------------------------------------------
class Sums(NamedTuple):
    """The recurrent state [B, C]: two exponentially decaying sums, divided by e^m.

    `wkv` also uses it with a time axis, [B, T, C]: the state before each token.

    Args:
        numerator: a, Σ e^(k_i - (t-i) w - m) v_i.
        denominator: b, the same without v.
        maximum: m. No gradient passes it: a e^m and b e^m do not depend on how it is chosen.
    """

    numerator: Float[Tensor, "*B C"]
    denominator: Float[Tensor, "*B C"]
    maximum: Float[Tensor, "*B C"]


class WKV(NamedTuple):
    """What the tokens were given, and what the next ones need.

    Args:
        values: wkv of each token.
        sums: after the last token.
    """

    values: Float[Tensor, "B T C"]
    sums: Sums


def nothing_yet(like: Float[Tensor, "*B C"]) -> Sums:
    """The sums before the first token, of a tensor's shape, type and device."""
    zeros = torch.zeros_like(like)
    return Sums(zeros, zeros, torch.full_like(like, NOTHING))


def wkv_naive(
    k: Float[Tensor, "B T C"],
    v: Float[Tensor, "B T C"],
    decay: Float[Tensor, "C"],
    bonus: Float[Tensor, "C"],
    first: Sums | None = None,
) -> WKV:
    """The average as it is written, from a table [B, T, S, C]: what the other forms must give.

    What was before stands in the table as one more token at place -1, whose key is the maximum,
    whose value is the numerator, and which counts as often as the denominator says.

    Args:
        k, v: keys and values.
        decay: w, above 0: e^(-w) of a weight is left after a token.
        bonus: u, added to the newest token's key.
        first: the sums of earlier tokens; None where there are none.

    Example:
        >>> k, v = torch.zeros(1, 3, 1), torch.tensor([4.0, 8.0, 5.0]).reshape(1, 3, 1)
        >>> decay, bonus = torch.tensor([math.log(2)]), torch.zeros(1)  # a half is left
        >>> wkv_naive(k, v, decay, bonus).values.flatten()  # 4, (4 + 8) / 2, (2 + 8 + 5) / 2.5
        tensor([4., 6., 6.])
    """
    first = nothing_yet(k[:, 0]) if first is None else first
    k = torch.cat((first.maximum[:, None], k), dim=1)
    v = torch.cat((first.numerator[:, None], v), dim=1)
    count = torch.cat((first.denominator[:, None], torch.ones_like(v[:, 1:])), dim=1)
    # 1. exponents [B T S C]: k_i - (t - 1 - i) w for earlier tokens, k_t + u for the token itself
    written = torch.arange(-1, v.shape[1] - 1, device=k.device)[None, :, None]  # i
    reader = written[:, 1:].transpose(0, 1)  # t
    exponents = k[:, None] - (reader - 1 - written) * decay
    exponents = exponents.where(written < reader, -math.inf)
    exponents = torch.where(written == reader, k[:, None] + bonus, exponents)
    # 2. the weighted mean Σ e^exponent v / Σ e^exponent
    weights = torch.exp(exponents - exponents.amax(dim=2, keepdim=True).detach())
    values = (weights * v[:, None]).sum(dim=2) / (weights * count[:, None]).sum(dim=2)

    # 3. the state that the next token finds
    exponents = k - (written[:, -1:] - written) * decay
    maximum = exponents.amax(dim=1).detach()
    weights = torch.exp(exponents - maximum[:, None])
    return WKV(values, Sums((weights * v).sum(dim=1), (weights * count).sum(dim=1), maximum))


def wkv_recurrent(
    k: Float[Tensor, "B T C"],
    v: Float[Tensor, "B T C"],
    decay: Float[Tensor, "C"],
    bonus: Float[Tensor, "C"],
    first: Sums | None = None,
) -> WKV:
    """Token by token: each reads the sums with itself added, then is written into them.

    Args:
        k, v, decay, bonus, first: as for `wkv_naive`.

    Example:
        >>> k = torch.tensor([1000.0, 0.0]).reshape(1, 2, 1)  # e^1000 is beyond any float
        >>> v = torch.tensor([3.0, 5.0]).reshape(1, 2, 1)
        >>> wkv_recurrent(k, v, torch.ones(1), torch.zeros(1)).values.flatten()
        tensor([3., 3.])
    """
    past = nothing_yet(k[:, 0]) if first is None else first
    values = []
    for k_now, v_now in zip(k.unbind(dim=1), v.unbind(dim=1), strict=True):
        # 1. read: (a + e^(u + k) v) / (b + e^(u + k)), [B C]
        values.append(_read(past, k_now, v_now, bonus))
        # 2. write: a ← e^(-w) a + e^k v and b ← e^(-w) b + e^k, both kept divided by e^m
        maximum = torch.maximum(past.maximum - decay, k_now).detach()
        stays, new = _weights(past.maximum, maximum, k_now, decay)
        past = Sums(
            stays * past.numerator + new * v_now,
            stays * past.denominator + new,
            maximum,
        )
    return WKV(torch.stack(values, dim=1), past)


def wkv(
    k: Float[Tensor, "B T C"],
    v: Float[Tensor, "B T C"],
    decay: Float[Tensor, "C"],
    bonus: Float[Tensor, "C"],
    first: Sums | None = None,
) -> WKV:
    """All tokens at once, but for m, a and b, which are found token by token without a graph.

    Args:
        k, v, decay, bonus, first: as for `wkv_naive`.
    """
    first = nothing_yet(k[:, 0]) if first is None else first
    maxima = _maxima(k, decay, first.maximum)
    before, after = maxima[:, :-1], maxima[:, 1:]
    stays, new = _weights(before, after, k, decay)
    numerators = scan(stays, new * v, first.numerator)
    denominators = scan(stays, new, first.denominator)
    past = Sums(
        torch.cat((first.numerator[:, None], numerators[:, :-1]), dim=1),
        torch.cat((first.denominator[:, None], denominators[:, :-1]), dim=1),
        before,
    )
    # Clones, since a view of the last place would keep all places in memory.
    last = Sums(numerators[:, -1].clone(), denominators[:, -1].clone(), after[:, -1].clone())
    return WKV(_read(past, k, v, bonus), last)


def _read(past: Sums, k: Tensor, v: Tensor, bonus: Tensor) -> Tensor:
    """The quotient, the newest token with its bonus; of one token or of all at their places."""
    own = k + bonus
    greatest = torch.maximum(past.maximum, own).detach()
    old, new = torch.exp(past.maximum - greatest), torch.exp(own - greatest)
    return (old * past.numerator + new * v) / (old * past.denominator + new)


def _weights(before: Tensor, after: Tensor, k: Tensor, decay: Tensor) -> tuple[Tensor, Tensor]:
    """What stays of the sums, and what a new value weighs, when the maximum becomes `after`."""
    # In this order: before - after is exact, and so makes good what rounding did to `after`.
    return torch.exp((before - after) - decay), torch.exp(k - after)


@torch.no_grad()
def _maxima(k: Tensor, decay: Tensor, first: Tensor) -> Tensor:
    """m before the first token, after it, …: [B, T + 1, C].

    m_t = max_i (k_i + i w) - t w would need no loop, but t w grows without bound, and with it what
    rounding takes; and torch's cummax is no faster.
    """
    maxima = [first]
    for k_now in k.unbind(dim=1):
        maxima.append(torch.maximum(maxima[-1] - decay, k_now))
    return torch.stack(maxima, dim=1)


# --- one layer ----------------------------------------------------------------------------------
@final
@dataclass(frozen=True, kw_only=True)
class RWKVConfig:
    """What a layer of RWKV's time mixing is built from.

    Args:
        d_state: C, how many averages are kept; None for the model's width.

    Raises:
        ValueError: a width below 1.

    Example:
        >>> layer = RWKVConfig(d_state=12).build(d_model=8)
        >>> {name: list(p.shape) for name, p in layer.named_parameters() if "." not in name}
        {'mixtures': [3, 8], 'log_decay': [12], 'bonus': [12]}
        >>> layer.new_cache(batch_size=1, max_length=10**9).n_bytes  # 4 · (8 + 3 · 12)
        176
    """

    d_state: int | None = None

    def __post_init__(self):
        _check_width("d_state", self.d_state)

    def build(
        self,
        d_model: int,
        context_length: int = 2048,
        *,
        device: torch.device | str = "cpu",
        dtype: torch.dtype = torch.float32,
    ) -> "RWKV":
        """The layer for a model of that width; texts may be of any length."""
        _check_width("d_model", d_model)
        return RWKV(d_model, self.d_state or d_model, device=device, dtype=dtype)


@final
class RWKV(nn.Module):
    """Token shift, the average, and a gate that says how much of it is taken: a `Mixer`.

    Channel c begins with the decay e^(-5 + 8 (c/(C-1))^0.7), from 0.7 % of a weight lost with each
    token to all of it. The bonuses are log 0.3 with -0.5, 0, 0.5 added in turn. Of D numbers the
    first are taken from the token before, the last from the token itself.

    Args:
        d_model: D.
        d_state: C.
        device, dtype: of the parameters. The sums are of float32 at least.
    """

    residual_projections = ("output",)

    def __init__(
        self,
        d_model: int,
        d_state: int,
        *,
        device: torch.device | str = "cpu",
        dtype: torch.dtype = torch.float32,
    ):
        super().__init__()
        factory_kwargs = {"device": device, "dtype": dtype}
        self.receptance = nn.Linear(d_model, d_state, bias=False, **factory_kwargs)
        self.key = nn.Linear(d_model, d_state, bias=False, **factory_kwargs)
        self.value = nn.Linear(d_model, d_state, bias=False, **factory_kwargs)
        self.output = nn.Linear(d_state, d_model, bias=False, **factory_kwargs)
        of_width = torch.arange(d_model, **factory_kwargs) / d_model
        channel = torch.arange(d_state, **factory_kwargs)
        slow_to_fast = channel / max(d_state - 1, 1)
        mixtures = torch.stack((of_width**0.5, of_width, of_width))  # of r, k, v
        self.mixtures = nn.Parameter(mixtures)
        self.log_decay = nn.Parameter(8 * slow_to_fast**0.7 - 5)
        self.bonus = nn.Parameter(math.log(0.3) + 0.5 * ((channel + 1) % 3 - 1))

    def new_cache(self, batch_size: int, max_length: int) -> State:
        """The sums of no tokens, and zeros for the token before; of one size for any text."""
        weight = self.key.weight.detach()
        last = weight.new_zeros(batch_size, 1, weight.shape[1])
        sums = nothing_yet(weight.new_zeros(batch_size, len(weight), dtype=_wide(weight.dtype)))
        return State("RWKV", {"last": last, **sums._asdict()})

    def forward(
        self, x: Float[Tensor, "B T D"], context: Context, cache: Any = None
    ) -> Float[Tensor, "B T D"]:
        """What each token takes of the average so far.

        Fillers stand on the left, as `minillm.serve.sample` puts them: the token after them sees
        zeros before it, as at a text's beginning.

        Args:
            x: the tokens.
            context: of which only the mask is read, for padding: the order is known without it.
            cache: these tokens are written into it.

        Raises:
            ValueError: a cache of another mixer or another number of rows, and what
                `minillm.mixers.recurrent_state.writes` refuses.
        """
        batch_size, n_tokens = x.shape[:2]
        is_token = writes(context.mask, batch_size, n_tokens)
        if is_token is not None:
            x = x * is_token[..., None]
        state = (
            self.new_cache(batch_size, 0) if cache is None else checked(cache, "RWKV", batch_size)
        )
        first = Sums(*(state[name] for name in Sums._fields))
        upcast = first.numerator.dtype

        before = torch.cat((state["last"], x[:, :-1]), dim=1)
        r, k, v = (torch.lerp(before, x, mixture) for mixture in self.mixtures)
        r, k, v = self.receptance(r).sigmoid(), self.key(k).to(upcast), self.value(v).to(upcast)
        if is_token is not None:
            k = k.masked_fill(~is_token[..., None], NOTHING)
        form: Callable[..., WKV] = wkv_recurrent if n_tokens == 1 else wkv
        values, sums = form(k, v, self.log_decay.to(upcast).exp(), self.bonus.to(upcast), first)
        state.update(n_tokens, last=x[:, -1:].clone(), **sums._asdict())
        return self.output(r * values.to(x.dtype))


def _wide(dtype: torch.dtype) -> torch.dtype:
    return torch.promote_types(dtype, torch.float32)


def _check_width(name: str, d_model: int | None) -> None:
    if d_model is not None and d_model < 1:
        raise ValueError(f"{name} must be at least 1; got {d_model}")
