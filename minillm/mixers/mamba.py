"""Mamba (选择性状态空间): a state that each token may keep, fade or write over, as it chooses.

A state space model (SSM) keeps a state h of N numbers for each channel. In the time Δ that a token
lasts, each number of the state decays at its rate A < 0 and takes in B x; the output is C h + D x:

    h_t = exp(Δ_t A) ⊙ h_(t-1) + Δ_t B_t x_t          y_t = C_t h_t + D x_t

With A = -1 a token of Δ = ln 2 leaves half of what was there. One of Δ = 0 leaves everything and
writes nothing, a large Δ clears the state for x. Where Δ, B and C are constants (before Mamba) all
tokens are treated alike, and a word to remember is worth as much as a padding token. Mamba makes
all three
from the token: it selects. Each of the E channels has a state of its own.

The layer around it makes E = expand · D numbers of a token's D, mixes each with those of the few
tokens before it, scans, opens or shuts every number by a gate, and goes back to D:

    x, z = W_in u     x = silu(convolve(x))     y = scan(x; Δ, B, C from x)     W_out (y ⊙ silu(z))

h of all tokens is N times as large as x. `selective_scan` makes it a few tokens at a time, so that
they stay in the processor's cache from the first product to the last: two to five times as fast on
one thread as all at once (N = 16). The paper's kernel does the same with a GPU's memory.

Paper: Gu and Dao 2023, "Mamba", arXiv:2312.00752, sections 2, 3.1 to 3.4, equations (1) to (4),
algorithms 1 (`selective=False`) and 2; Gu et al. 2022, "S4D", arXiv:2206.11893 (A = -1, -2, …, -N
at first). Theirs to ours: D (channels) is E, and D (the skip) is `D`.
Differs: B is discretised by Euler's rule, Δ B, as in their code, not by equation (4); the numbers
of a state stand side by side, [N, E], since a CPU is faster so; h is float32 or wider, as theirs.

Chapter: 09
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple, final

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn.functional import linear, silu, softplus

from minillm.mixers.recurrent_state import State, checked, writes
from minillm.mixers.scan import scan
from minillm.mixers.short_conv import convolve
from minillm.model.attention import Context

FIRST_DELTA = (0.001, 0.1)  # how long tokens last at first: the paper's section 3.6

# --- the maths ----------------------------------------------------------------------------------


class Discretised(NamedTuple):
    """The discretised SSM: h ← Ā h + B̄ x.

    Args:
        stays: Ā, the share of the state that is left.
        enters: B̄, the share of x that goes in.
    """

    stays: Float[Tensor, "B T N E"]
    enters: Float[Tensor, "B T N E"]


class Scanned(NamedTuple):
    """The outputs, and the state after the last token.

    Args:
        values: y.
        last: h_T.
    """

    values: Float[Tensor, "B T E"]
    last: Float[Tensor, "B N E"]


def discretise(
    delta: Float[Tensor, "B T E"],
    A: Float[Tensor, "E N"],
    B: Float[Tensor, "B T N"] | Float[Tensor, "E N"],
) -> Discretised:
    """From rates to steps: Ā = exp(Δ A), exact while x stands still (zero-order hold), B̄ = Δ B.

    Exact for B would be B (exp(Δ A) - 1) / A, equation (4), which is Δ B where Δ A is small.

    Args:
        delta: Δ, how long each token lasts for each number.
        A: rates, below 0.
        B: of each token; [E, N] where all tokens have the same.

    Example:
        >>> delta = torch.tensor([[[0.0], [math.log(2)]]])  # two tokens of one number
        >>> stays, enters = discretise(delta, A=-torch.ones(1, 1), B=10 * torch.ones(1, 2, 1))
        >>> stays.flatten(), enters.flatten()
        (tensor([1.0000, 0.5000]), tensor([0.0000, 6.9315]))
    """
    long = delta[:, :, None]
    return Discretised((long * A.T).exp(), long * _of_each_token(B, delta))


def selective_scan_naive(
    x: Float[Tensor, "B T E"],
    delta: Float[Tensor, "B T E"],
    A: Float[Tensor, "E N"],
    B: Float[Tensor, "B T N"] | Float[Tensor, "E N"],
    C: Float[Tensor, "B T N"] | Float[Tensor, "E N"],
    D: Float[Tensor, "E"],
    first: Float[Tensor, "B N E"] | None = None,
) -> Scanned:
    """Token by token, as it is written: what `selective_scan` must give.

    Args:
        x: the tokens.
        delta, A, B: as for `discretise`.
        C: how much of each number of the state is read; [E, N] where it is the same for all tokens.
        D: D, how much of x itself is added.
        first: h_0; None for zeros.

    Example:
        >>> one = torch.ones(1, 1)
        >>> x, delta = torch.tensor([[[8.0], [0.0]]]), torch.tensor([[[1.0], [math.log(2)]]])
        >>> selective_scan_naive(x, delta, A=-one, B=one, C=one, D=0 * one[0]).values.flatten()
        tensor([8., 4.])
    """
    # 1. discretise: Ā = exp(Δ A) and B̄ = Δ B, [B T N E]
    stays, enters = discretise(delta, A, B)
    C = _of_each_token(C, x)
    h = torch.zeros_like(stays[:, 0]) if first is None else first
    values = []
    for t in range(x.shape[1]):
        # 2. the state: h ← Ā h + B̄ x, [B N E]
        h = stays[:, t] * h + enters[:, t] * x[:, t, None]
        # 3. the output: y = C h + D x, [B E]
        values.append((C[:, t] * h).sum(dim=1) + D * x[:, t])
    return Scanned(torch.stack(values, dim=1), h)


def selective_scan(
    x: Float[Tensor, "B T E"],
    delta: Float[Tensor, "B T E"],
    A: Float[Tensor, "E N"],
    B: Float[Tensor, "B T N"] | Float[Tensor, "E N"],
    C: Float[Tensor, "B T N"] | Float[Tensor, "E N"],
    D: Float[Tensor, "E"],
    first: Float[Tensor, "B N E"] | None = None,
    *,
    form: Callable[[Tensor, Tensor, Tensor | None], Tensor] = scan,
    chunk_tokens: int | None = None,
) -> Scanned:
    """The same by one of the forms of `minillm.mixers.scan`.

    Args:
        x, delta, A, B, C, D, first: as for `selective_scan_naive`.
        form: `scan`, `scan_parallel`, or another that finds all h.
        chunk_tokens: for how many tokens h is made at once; None for all.

    Raises:
        ValueError: chunk_tokens below 1.
    """
    if chunk_tokens is not None and chunk_tokens < 1:
        raise ValueError(f"chunk_tokens must be None or at least 1; got {chunk_tokens}")
    n_tokens = chunk_tokens or x.shape[1]
    deltas, news = (part.split(n_tokens, dim=1) for part in (delta, delta * x))
    chunks = zip(
        deltas,
        news,
        _in_chunks(B, n_tokens, len(deltas)),
        _in_chunks(C, n_tokens, len(deltas)),
        strict=True,
    )
    values, h, rates = [], first, A.T.contiguous()
    for delta_now, new, B_now, C_now in chunks:
        every = form((delta_now[:, :, None] * rates).exp(), new[:, :, None] * B_now, h)
        values.append((C_now * every).sum(dim=2))
        h = every[:, -1]
    return Scanned(torch.cat(values, dim=1) + D * x, h)


def _of_each_token(part: Tensor, x: Tensor) -> Tensor:
    """B or C beside [B, T, N, E], whether it is made from tokens or one for all."""
    return part.T.expand(*x.shape[:2], -1, -1) if part.ndim == 2 else part.unsqueeze(-1)


def _in_chunks(part: Tensor, n_tokens: int, n_chunks: int) -> Sequence[Tensor]:
    """The same, a few tokens at a time; one for all is not repeated."""
    if part.ndim == 2:
        return (part.T.contiguous(),) * n_chunks
    return part.unsqueeze(-1).split(n_tokens, dim=1)


# --- one layer ----------------------------------------------------------------------------------
@final
@dataclass(frozen=True, kw_only=True)
class MambaConfig:
    """What a Mamba layer is built from.

    Args:
        d_state: N, how many numbers each channel keeps.
        expand: E is this times the width.
        d_conv: how many tokens are mixed in front of the scan, the newest with them.
        dt_rank: of the map from a token to its Δ; None for a 16th of the width, rounded up.
        selective: whether Δ, B and C are made from each token. False makes them constants that are
            learned, the same for all tokens: the control.
        chunk_tokens: for how many tokens h is made at once; changes time, not numbers.

    Raises:
        ValueError: a count below 1.

    Example:
        >>> layer = MambaConfig(d_state=4).build(d_model=32)  # E is 64, the dt_rank 2
        >>> {name: list(p.shape) for name, p in layer.named_parameters() if p.ndim > 1}
        ... # doctest: +NORMALIZE_WHITESPACE
        {'conv1d_weight': [4, 64], 'A_log': [64, 4], 'dt_proj_weight': [64, 2],
         'in_proj.weight': [128, 32], 'x_proj.weight': [10, 64], 'out_proj.weight': [32, 64]}
    """

    d_state: int = 16
    expand: int = 2
    d_conv: int = 4
    dt_rank: int | None = None
    selective: bool = True
    chunk_tokens: int = 8

    def __post_init__(self):
        for name in ("d_state", "expand", "d_conv", "dt_rank", "chunk_tokens"):
            value = getattr(self, name)
            if value is not None and value < 1:
                raise ValueError(f"{name} must be at least 1; got {value}")

    def build(
        self,
        d_model: int,
        context_length: int = 2048,
        *,
        device: torch.device | str = "cpu",
        dtype: torch.dtype = torch.float32,
    ) -> "Mamba":
        """The layer for a model of that width, with the first weights of the paper's code.

        Args:
            d_model: D.
            context_length: not asked for: no part of the layer is as long as the text.
            device, dtype: of its parameters.

        Raises:
            ValueError: a width below 1.
        """
        if d_model < 1:
            raise ValueError(f"d_model must be at least 1; got {d_model}")
        return Mamba(
            d_model,
            self.expand * d_model,
            self.d_state,
            d_conv=self.d_conv,
            dt_rank=(self.dt_rank or -(-d_model // 16)) if self.selective else None,
            chunk_tokens=self.chunk_tokens,
            device=device,
            dtype=dtype,
        )


@final
class Mamba(nn.Module):
    """Convolution, selective scan, gate: a `Mixer`.

    What must begin at values of its own is a bare parameter, which `initialise` leaves alone: A at
    -1 to -N, the skip at 1, and Δ between 0.001 and 0.1, spread evenly on a log scale, so that some
    numbers remember a few tokens and others hundreds.

    Args:
        d_model: D.
        d_inner: E.
        d_state: N.
        d_conv: how many tokens are mixed.
        dt_rank: of the map to Δ; None for Δ, B and C that no token changes.
        chunk_tokens: for how many tokens h is made at once.
        device, dtype: of the parameters.
    """

    residual_projections = ("out_proj",)

    def __init__(
        self,
        d_model: int,
        d_inner: int,
        d_state: int,
        *,
        d_conv: int = 4,
        dt_rank: int | None,
        chunk_tokens: int = 8,
        device: torch.device | str = "cpu",
        dtype: torch.dtype = torch.float32,
    ):
        super().__init__()
        factory_kwargs = {"device": device, "dtype": dtype}
        E, N = d_inner, d_state
        self.dt_rank, self.chunk_tokens = dt_rank, chunk_tokens
        self.in_proj = nn.Linear(
            d_model, 2 * E, bias=False, **factory_kwargs
        )  # x's rows first, then the gate's
        bound = d_conv**-0.5
        self.conv1d_weight = nn.Parameter(
            torch.empty(d_conv, E, **factory_kwargs).uniform_(-bound, bound)
        )
        self.conv1d_bias = nn.Parameter(torch.empty(E, **factory_kwargs).uniform_(-bound, bound))
        numbers = torch.arange(1, N + 1, **factory_kwargs)
        self.A_log = nn.Parameter(numbers.log().expand(E, N).clone())  # A = -exp(A_log) < 0
        self.D = nn.Parameter(torch.ones(E, **factory_kwargs))
        low, high = (math.log(bound) for bound in FIRST_DELTA)
        delta = torch.empty(E, **factory_kwargs).uniform_(low, high).exp()
        self.dt_proj_bias = nn.Parameter(delta.expm1().log())  # softplus of it is delta
        if dt_rank is None:
            self.B = nn.Parameter(torch.ones(E, N, **factory_kwargs))
            self.C = nn.Parameter(torch.empty(E, N, **factory_kwargs).normal_())
        else:
            bound = dt_rank**-0.5
            weight = torch.empty(E, dt_rank, **factory_kwargs).uniform_(-bound, bound)
            self.dt_proj_weight = nn.Parameter(weight)
            self.x_proj = nn.Linear(
                E, dt_rank + 2 * N, bias=False, **factory_kwargs
            )  # rows: for Δ, for B, C
        self.out_proj = nn.Linear(E, d_model, bias=False, **factory_kwargs)

    def new_cache(self, batch_size: int, max_length: int) -> State:
        """The inputs of the last conv_tokens - 1 tokens, and h; as large for any capacity.

        batch_size · E · ((d_conv - 1) · bytes of a parameter + N · bytes of a number of h).
        """
        E, N = self.A_log.shape
        parts = {
            "last": self.conv1d_weight.new_zeros(batch_size, len(self.conv1d_weight) - 1, E),
            "h": self.conv1d_weight.new_zeros(
                batch_size, N, E, dtype=_wide(self.conv1d_weight).dtype
            ),
        }
        return State("Mamba", parts)

    def forward(
        self, x: Float[Tensor, "B T D"], context: Context, cache: Any = None
    ) -> Float[Tensor, "B T D"]:
        """What each token reads from the state.

        Raises:
            ValueError: a cache of another mixer or batch; what
                `minillm.mixers.recurrent_state.writes` refuses.
        """
        state = None if cache is None else checked(cache, "Mamba", len(x))
        is_token = writes(context.mask, len(x), x.shape[1])
        values, gate = self.in_proj(x).chunk(2, dim=-1)
        if is_token is not None:
            values = values * is_token[..., None]  # as at a text's beginning
        mixed = convolve(values, self.conv1d_weight, None if state is None else state["last"])
        values = _wide(silu(mixed.values + self.conv1d_bias))
        delta, B, C = self.selected(values)
        if is_token is not None:
            delta = delta * is_token[..., None]  # a padding token takes no time
        scanned = selective_scan(
            values,
            delta,
            -_wide(self.A_log).exp(),
            B,
            C,
            _wide(self.D),
            None if state is None else state["h"],
            chunk_tokens=self.chunk_tokens,
        )
        if state is not None:
            # copies: views would keep all tokens of this call in memory
            state.update(x.shape[1], last=mixed.last.clone(), h=scanned.last.clone())
        return self.out_proj(scanned.values.to(gate.dtype) * silu(gate))

    def selected(
        self, values: Float[Tensor, "B T E"]
    ) -> tuple[
        Float[Tensor, "B T E"],
        Float[Tensor, "B T N"] | Float[Tensor, "E N"],
        Float[Tensor, "B T N"] | Float[Tensor, "E N"],
    ]:
        """Δ, B and C for each token: what `selective_scan` is given.

        Args:
            values: the tokens after the convolution.

        Example:
            >>> layer = MambaConfig(d_state=3).build(d_model=4)
            >>> [list(part.shape) for part in layer.selected(torch.ones(1, 5, 8))]
            [[1, 5, 8], [1, 5, 3], [1, 5, 3]]
        """
        if self.dt_rank is None:
            delta = softplus(_wide(self.dt_proj_bias)).expand_as(values)
            return delta, _wide(self.B), _wide(self.C)
        N = self.A_log.shape[1]
        projected = self.x_proj(values.to(self.x_proj.weight.dtype))
        low, B, C = projected.split((self.dt_rank, N, N), dim=-1)
        delta = softplus(_wide(linear(low, self.dt_proj_weight)) + _wide(self.dt_proj_bias))
        return delta, _wide(B), _wide(C)


def _wide(x: Tensor) -> Tensor:
    """In 16 bits 1 - 0.001 is 1: a state that fades slowly would never fade."""
    return x.to(torch.promote_types(x.dtype, torch.float32))
