"""Streaming (流式注意力): a trained model reads a text of any length in a fixed memory.

A window of keys alone does not do. A softmax must give its weights to somebody, and a trained model
that finds nothing gives them to the first tokens, which all later ones could always see: they are
sinks (注意力汇). When a window moves past them, the weights go where they were never meant to. So
the first n_sinks tokens are kept for ever, and of the others the last window_tokens - n_sinks:

    sinks 0 1 · window of 4    token 9 sees    0 1 8 9        of the text
                               at places       0 1 2 3        of the cache

Places are counted in the cache, not in the text. So no rotation goes beyond window_tokens, however
long the text becomes; and keys are kept unrotated, since their places change as the window moves.

Turning both arrows by one angle changes no score. So token t, at place min(t, window_tokens - 1),
sees the tokens of the window at their distances in the text, as ever, and only the sinks at others:
min(t, window_tokens - 1) - j. That is why `Streaming` can read many tokens at once: one table of
scores for the window, another for the sinks, with queries turned anew, and one softmax over both.
`attend_streaming_naive` does it as it is told above, token by token.

Paper: Xiao, Tian, Chen, Han and Lewis 2023, "Efficient Streaming Language Models with Attention
Sinks", arXiv:2309.17453, section 3.2 and figure 4. Theirs to ours: their cache of "4+1020" is
n_sinks = 4 and window_tokens = 1024.
Differs: many tokens at once, with the same result.

Chapter: 09
"""

import copy
import math
import sys
from typing import Any, final

import torch
from einops import einsum, rearrange
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from minillm.mixers.recurrent_state import State, checked, writes
from minillm.model.attention import Attention, Context, attend_fast
from minillm.model.masks import causal, window
from minillm.model.rope import rotate
from minillm.model.transformer import Transformer, shifted

PIECE_TOKENS = 512  # that a model reads at once where a whole text is given
LEAST_PIECE_TOKENS = 64  # that a layer reads at once; more where the window is larger


def streaming(model: Transformer, n_sinks: int, window_tokens: int) -> Transformer:
    """A copy of a trained model that reads texts of any length; nothing is trained.

    The copy shares no memory with the model. Its `context_length` has no end, and its `config` is
    None, since none builds it.

    Args:
        model: whose mixers are all `Attention`.
        n_sinks: how many first tokens are kept for ever; 0 for a window alone.
        window_tokens: how many tokens are kept, the sinks with them; at most those for which the
            model has rotations.

    Raises:
        ValueError: window_tokens not above n_sinks, or beyond the rotations; another mixer.

    Example:
        >>> from minillm.model.config import tiny
        >>> model = streaming(tiny(vocab_size=50).build(), n_sinks=4, window_tokens=16)
        >>> cache = model.new_cache(batch_size=1)
        >>> with torch.no_grad():
        ...     logits = model(torch.arange(1000)[None] % 50, cache=cache)
        >>> logits.shape, cache[0].n_tokens, cache[0].n_bytes  # 2·64·16 numbers of 4, and a count
        (torch.Size([1, 1000, 50]), 1000, 8200)
    """
    for place, block in enumerate(model.blocks):
        if not isinstance(block.mixer, Attention):
            raise ValueError(
                "only keys and values can be kept or dropped one by one, so every mixer must be "
                f"Attention; that of block {place} is {type(block.mixer).__name__}"
            )
    copied = copy.deepcopy(model)
    for block in copied.blocks:
        block.mixer = Streaming(block.mixer, n_sinks, window_tokens)
    copied.context_length, copied.config = sys.maxsize, None
    return copied


@torch.no_grad()
def streamed_losses(model: Transformer, tokens: Int[Tensor, "B T"]) -> Float[Tensor, "B N"]:
    """-log p(token | those before it), in nats, of every token but the first: [B, T - 1].

    The text is read in pieces, so that memory does not grow with it.

    Args:
        model: from `streaming`, or any other whose context the text does not pass.
        tokens: rows of ids.

    Raises:
        ValueError: rows of one token: there is nothing to predict.

    Example:
        >>> from minillm.model.config import tiny
        >>> model = streaming(tiny(vocab_size=50).build(), n_sinks=1, window_tokens=16)
        >>> losses = streamed_losses(model, torch.arange(1000)[None] % 50)
        >>> losses.shape, round(losses.mean().item(), 1)  # log 50 is 3.9: it knows nothing yet
        (torch.Size([1, 999]), 3.9)
    """
    inputs, targets = shifted(tokens)
    cache = model.new_cache(*inputs.shape)
    losses = []
    pairs = zip(inputs.split(PIECE_TOKENS, dim=1), targets.split(PIECE_TOKENS, dim=1), strict=True)
    for read, target in pairs:
        logits = model(read, cache=cache).float().transpose(1, 2)
        losses.append(nn.functional.cross_entropy(logits, target.long(), reduction="none"))
    return torch.cat(losses, dim=1)


def attend_streaming_naive(
    q: Float[Tensor, "B H T K"],
    k: Float[Tensor, "B G T K"],
    v: Float[Tensor, "B G T K"],
    cos: Float[Tensor, "P K"],
    sin: Float[Tensor, "P K"],
    n_sinks: int,
    window_tokens: int,
) -> Float[Tensor, "B H T K"]:
    """What every token of a text finds in its cache, one token after the other.

    Args:
        q, k, v: not rotated.
        cos, sin: of the places 0 to window_tokens - 1 at least; see `minillm.model.rope.tables`.
        n_sinks, window_tokens: as for `streaming`.
    """
    outputs = []
    for token in range(q.shape[2]):
        first_near = max(n_sinks, token + 1 - (window_tokens - n_sinks))
        kept = [*range(min(n_sinks, token + 1)), *range(first_near, token + 1)]
        n_kept = len(kept)
        query = rotate(
            q[:, :, token : token + 1], cos[n_kept - 1 : n_kept], sin[n_kept - 1 : n_kept]
        )
        keys = rotate(k[:, :, kept], cos[:n_kept], sin[:n_kept])
        outputs.append(attend_fast(query, keys, v[:, :, kept]))
    return torch.cat(outputs, dim=2)


@final
class Streaming(nn.Module):
    """Trained attention over sinks and a window: a `Mixer`.

    Args:
        attention: the layer; it becomes part of this one, with more rotations than it had.
        n_sinks, window_tokens: as for `streaming`.

    Raises:
        ValueError: as for `streaming`; attention with a window of its own.
    """

    def __init__(self, attention: Attention, n_sinks: int, window_tokens: int):
        super().__init__()
        _check(attention, n_sinks, window_tokens)
        self.attention, self.n_sinks, self.window_tokens = attention, n_sinks, window_tokens
        self.n_near = window_tokens - n_sinks
        self.piece_tokens = max(window_tokens, LEAST_PIECE_TOKENS)
        attention.reserve(window_tokens + self.piece_tokens)  # a piece stands behind a window

    @property
    def kind(self) -> str:
        """Whose cache it is: with another window a cache means something else."""
        return f"Streaming with n_sinks={self.n_sinks} and window_tokens={self.window_tokens}"

    def new_cache(self, batch_size: int, max_length: int) -> State:
        """Keys and values of window_tokens tokens a row, whatever the max_length."""
        weight, G, K = (getattr(self.attention, name) for name in ("qkv", "n_kv_heads", "d_head"))
        factory_kwargs = {"dtype": weight.weight.dtype, "device": weight.weight.device}
        parts = {
            name: torch.zeros(batch_size, G, n_tokens, K, **factory_kwargs)
            for name, n_tokens in (
                ("sink_keys", self.n_sinks),
                ("sink_values", self.n_sinks),
                ("keys", self.n_near),
                ("values", self.n_near),
            )
        }
        n_read = torch.zeros(batch_size, dtype=torch.int64, device=factory_kwargs["device"])
        return State(self.kind, {**parts, "n_read": n_read})

    def forward(
        self, x: Float[Tensor, "B T D"], context: Context, cache: Any = None
    ) -> Float[Tensor, "B T D"]:
        """What each token found among the sinks and the last tokens.

        Args:
            x: the tokens.
            context: its mask says which tokens are padding; positions are not read.
            cache: from `new_cache`; these tokens are written into it.

        Raises:
            ValueError: a cache of another mixer, what `minillm.mixers.recurrent_state.writes`
                refuses.
        """
        batch_size, n_tokens, _ = x.shape
        is_token = writes(context.mask, batch_size, n_tokens)
        if is_token is None:
            is_token = torch.ones(batch_size, n_tokens, dtype=torch.bool, device=x.device)
        cache = self.new_cache(batch_size, n_tokens) if cache is None else cache
        state = checked(cache, self.kind, batch_size)
        pieces = zip(
            x.split(self.piece_tokens, dim=1),
            is_token.split(self.piece_tokens, dim=1),
            strict=True,
        )
        values = torch.cat([self._read(piece, mine, state) for piece, mine in pieces], dim=2)
        return self.attention.output(values.transpose(1, 2).flatten(2))

    def _read(
        self, x: Float[Tensor, "B T D"], is_token: Bool[Tensor, "B T"], state: State
    ) -> Float[Tensor, "B H T K"]:
        """A piece of at most piece_tokens: what it finds; and it is written into the state."""
        n_new, n_near, device = x.shape[1], self.n_near, x.device
        unturned = torch.zeros(n_new, dtype=torch.int64, device=device)  # an angle of 0
        q, k, v = self.attention.project(x, unturned)
        new_places = is_token.cumsum(dim=1)  # behind the tokens before this piece: 1, 2, …
        in_text = state["n_read"][:, None] + new_places - 1

        # sinks: a slot takes the token with its number, if that has come
        slots = torch.arange(self.n_sinks, device=device).expand(len(x), -1)
        comes = (is_token[:, :, None] & (in_text[:, :, None] == slots[:, None])).to(k.dtype)
        sink_keys = state["sink_keys"] + einsum(comes, k, "B T S, B G T K -> B G S K")
        sink_values = state["sink_values"] + einsum(comes, v, "B T S, B G T K -> B G S K")
        query_places = in_text.clamp(0, self.window_tokens - 1)
        to_sinks = self._scores(self._turned(q, query_places), self._turned(sink_keys, slots))
        sees_sinks = causal(in_text, slots)

        # the window: the tokens before this piece, then the piece
        keys = torch.cat((state["keys"], k), dim=2)
        values = torch.cat((state["values"], v), dim=2)
        before = torch.arange(n_near, device=device).expand(len(x), -1)
        positions = torch.cat((before, n_near - 1 + new_places), dim=1)
        key_in_text = positions + (state["n_read"][:, None] - n_near)
        is_key = torch.cat((torch.ones_like(before, dtype=torch.bool), is_token), dim=1)
        to_near = self._scores(
            self._turned(q, positions[:, n_near:]), self._turned(keys, positions)
        )
        kept_here = is_key & (key_in_text >= self.n_sinks)
        sees_near = window(in_text, key_in_text, n_near) & kept_here[:, None, None]

        scores, mask = (
            torch.cat((to_sinks, to_near), dim=-1),
            torch.cat((sees_sinks, sees_near), -1),
        )
        weights = scores.masked_fill(~mask, -math.inf).softmax(dim=-1).masked_fill(~mask, 0)
        weights = rearrange(weights, "B (G R) T S -> B G R T S", G=k.shape[1])
        outputs = weights @ torch.cat((sink_values, values), dim=2)[:, :, None]

        # what stays: the last tokens, padding left out, in their order
        last = is_key.int().argsort(dim=1, stable=True)[:, -n_near:]
        last = last[:, None, :, None].expand(-1, k.shape[1], -1, k.shape[3])
        state.update(
            n_new,
            sink_keys=sink_keys,
            sink_values=sink_values,
            keys=keys.gather(2, last),
            values=values.gather(2, last),
            n_read=state["n_read"] + is_token.sum(dim=1),
        )
        return rearrange(outputs, "B G R T K -> B (G R) T K")

    def _turned(self, x: Float[Tensor, "B H T K"], positions: Int[Tensor, "B T"]) -> Tensor:
        rotations = self.attention.rotations
        return x if rotations is None else rotations(x, positions)

    def _scores(self, q: Float[Tensor, "B H T K"], k: Float[Tensor, "B G S K"]) -> Tensor:
        q = rearrange(q, "B (G R) T K -> B G R T K", G=k.shape[1])
        scores = q @ k[:, :, None].mT / math.sqrt(q.shape[-1])
        return rearrange(scores, "B G R T S -> B (G R) T S")


def _check(attention: Attention, n_sinks: int, window_tokens: int) -> None:
    if not 0 <= n_sinks < window_tokens:
        raise ValueError(
            "window_tokens counts the sinks too and must be above n_sinks, and n_sinks at least 0; "
            f"got n_sinks={n_sinks} and window_tokens={window_tokens}"
        )
    if attention.window_tokens is not None:
        raise ValueError(
            "a layer of windowed attention forgets by itself; got one with "
            f"window_tokens={attention.window_tokens}. Streaming is for layers that see everything"
        )
    n_prepared = None if attention.rotations is None else len(attention.rotations.table)
    if n_prepared is not None and window_tokens > n_prepared:
        raise ValueError(
            f"this model has rotations for {n_prepared} places, those it was trained for, and a "
            f"place in the cache must be one of them; got window_tokens={window_tokens}. Choose at "
            f"most {n_prepared}"
        )
