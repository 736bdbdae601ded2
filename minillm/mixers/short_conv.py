"""A short convolution (短卷积): each token is mixed with the few before it, number by number.

What a mixer of this chapter writes into its state for a token it makes from that token alone. To
remember "after A came B" it must meet A and B together, so all of them are given a glimpse of what
stands directly before:

    y_t = w_0 ⊙ x_(t-n+1) + … + w_(n-1) ⊙ x_t          one weight for each place and number

`convolve` is that sum. RWKV (n = 2) and Mamba (n = 4) have it built in; `Shifted` puts it in front
of any other mixer, attention with them, so that mixers can be compared on equal terms.

Paper: Peng et al. 2023, "RWKV", arXiv:2305.13048, section 3.1 (token shift); Fu et al. 2022, "H3",
arXiv:2212.14052, section 3.1 (the shift, and why recall needs it); Gu and Dao 2023, "Mamba",
arXiv:2312.00752, section 3.4.
Differs: none; `Shifted` is ours, as in the comparisons of Arora et al. 2023, "Zoology",
arXiv:2312.04927.

Chapter: 09
"""

from dataclasses import dataclass, field
from typing import Any, NamedTuple, final

import torch
from jaxtyping import Float
from torch import Tensor, nn

from minillm.mixers.recurrent_state import State, checked, writes
from minillm.model.attention import AttentionConfig, Context, Mixer
from minillm.model.config import MixerConfig

LAST_TOKENS = "Shifted.shift"  # the kind of one half of its cache


class Convolved(NamedTuple):
    """The mixed tokens, and what the next ones will need of these.

    Args:
        values: y.
        last: the last n - 1 tokens of x, to be given as `before` next time.
    """

    values: Float[Tensor, "B T D"]
    last: Float[Tensor, "B n D"]


def convolve(
    x: Float[Tensor, "B T D"],
    weight: Float[Tensor, "n D"],
    before: Float[Tensor, "B m D"] | None = None,
) -> Convolved:
    """Each token with the n - 1 before it, weighted and added up.

    Args:
        x: the tokens.
        weight: of each place and number; the last row is for the token itself.
        before: the n - 1 tokens that stand before x; None for zeros, the beginning of a text.

    Returns:
        y, and a copy of the last n - 1 tokens: a view would keep all of x in memory.

    Raises:
        ValueError: not n - 1 tokens before x.

    Example:
        >>> x = torch.tensor([[[1.0], [2.0], [4.0]]])
        >>> y, last = convolve(x, weight=torch.tensor([[10.0], [1.0]]))
        >>> y.flatten().tolist(), last.flatten().tolist()  # 0·10 + 1, 1·10 + 2, 2·10 + 4
        ([1.0, 12.0, 24.0], [4.0])
    """
    n_before = len(weight) - 1
    if before is None:
        before = x.new_zeros(len(x), n_before, x.shape[2])
    if before.shape[1] != n_before:
        raise ValueError(
            f"a convolution over {len(weight)} tokens needs {n_before} before the first; got "
            f"{before.shape[1]}. Take them from `last` of the same weights"
        )
    row = torch.cat((before, x), dim=1)
    n_tokens = x.shape[1]
    values = weight[n_before] * x
    for place in range(n_before):
        values = values + weight[place] * row[:, place : place + n_tokens]
    return Convolved(values, row[:, n_tokens:].clone())


@final
@dataclass(frozen=True, kw_only=True)
class ShiftedConfig:
    """What a mixer behind a short convolution is built from.

    Args:
        mixer: the config of the mixer that is given the mixed tokens.
        n_tokens: how many tokens are mixed, the newest with them.

    Raises:
        ValueError: n_tokens below 2, which would mix nothing.

    Example:
        >>> layer = ShiftedConfig(mixer=AttentionConfig(n_heads=2)).build(d_model=8)
        >>> {name: list(p.shape) for name, p in layer.named_parameters()}
        {'weight': [2, 8], 'mixer.qkv.weight': [24, 8], 'mixer.output.weight': [8, 8]}
    """

    mixer: MixerConfig = field(default_factory=AttentionConfig)
    n_tokens: int = 2

    def __post_init__(self):
        if self.n_tokens < 2:
            raise ValueError(
                "n_tokens must be at least 2, the newest token and one before it; got "
                f"{self.n_tokens}"
            )

    def build(
        self,
        d_model: int,
        context_length: int = 2048,
        *,
        device: torch.device | str = "cpu",
        dtype: torch.dtype = torch.float32,
    ) -> "Shifted":
        """The layer for a model of that width; see `AttentionConfig.build`."""
        factory_kwargs = {"device": device, "dtype": dtype}
        mixer = self.mixer.build(d_model, context_length, **factory_kwargs)
        return Shifted(d_model, mixer, self.n_tokens, **factory_kwargs)


@final
class Shifted(nn.Module):
    """A mixer behind a short convolution: a `Mixer`.

    Args:
        d_model: D.
        mixer: that is given the mixed tokens.
        n_tokens: how many are mixed.
        device, dtype: of the convolution's weights, which begin as torch's own do for one.
    """

    def __init__(
        self,
        d_model: int,
        mixer: Mixer,
        n_tokens: int = 2,
        *,
        device: torch.device | str = "cpu",
        dtype: torch.dtype = torch.float32,
    ):
        super().__init__()
        bound = n_tokens**-0.5
        weight = torch.empty(n_tokens, d_model, device=device, dtype=dtype).uniform_(-bound, bound)
        self.weight = nn.Parameter(weight)
        self.mixer = mixer

    def new_cache(self, batch_size: int, max_length: int) -> "ShiftedCache":
        """The last tokens, and an empty cache of the mixer behind."""
        n_before = len(self.weight) - 1
        last = self.weight.new_zeros(batch_size, n_before, self.weight.shape[1])
        return ShiftedCache(
            State(LAST_TOKENS, {"last": last}),
            self.mixer.new_cache(batch_size, max_length),
        )

    def forward(
        self, x: Float[Tensor, "B T D"], context: Context, cache: Any = None
    ) -> Float[Tensor, "B T D"]:
        """What the mixer makes of the mixed tokens.

        Fillers must stand before a row's first token or after its last: one between two tokens
        would count as a token of zeros.

        Raises:
            ValueError: a cache of another mixer, what `minillm.mixers.recurrent_state.writes`
                refuses, and what the mixer behind refuses.
        """
        is_token = writes(context.mask, len(x), x.shape[1])
        if is_token is not None:
            x = x * is_token[..., None]  # as at a text's beginning: zeros stand before it
        if cache is None:
            return self.mixer(convolve(x, self.weight).values, context, None)
        if not isinstance(cache, ShiftedCache):
            checked(cache, "Shifted", len(x))
        state = checked(cache.shift, LAST_TOKENS, len(x))
        mixed = convolve(x, self.weight, state["last"])
        y = self.mixer(mixed.values, context, cache.mixer)
        state.update(x.shape[1], last=mixed.last)
        return y


@final
class ShiftedCache:
    """What `Shifted` keeps: the last tokens, and the cache of the mixer behind it.

    Args:
        shift: the last tokens.
        mixer: the cache of the mixer behind.
    """

    def __init__(self, shift: State, mixer: Any):
        self.shift, self.mixer = shift, mixer

    @property
    def n_tokens(self) -> int:
        """How many tokens it has taken in."""
        return self.shift.n_tokens

    @property
    def n_bytes(self) -> int:
        """Bytes of both."""
        return self.shift.n_bytes + self.mixer.n_bytes

    def reset(self) -> None:
        """Forget all tokens."""
        self.shift.reset()
        self.mixer.reset()

    def truncate(self, n_tokens: int) -> None:
        """As `State.truncate`: the tokens before the last ones are gone."""
        self.shift.truncate(n_tokens)
        self.mixer.truncate(n_tokens)

    def keep(self, rows: Any) -> None:
        """Keep these rows, in this order, in both."""
        self.shift.keep(rows)
        self.mixer.keep(rows)
