"""A neural language model (神经语言模型) over the last n tokens: counts replaced by coordinates.

A table of n-grams has a row of its own for every context, and learns nothing about `red plums` from
`red pears`. Here every token is a point in a space of width D, learned with the rest; contexts that
lie near each other get similar predictions, seen or not. With x the points of the last n tokens put
end to end (词嵌入, embeddings), the network is

    y = b + W x + U tanh(d + H x)                log p(next token) = y - log Σ exp(y)

and W is left out where there are no direct connections. (In chapter 02 H is an entropy; so in its
text and in `forward` H and d are M1 and b1, U and b are M2 and b2.) The parameters are counted on
paper: (V + 1) D for the points, F (n D + 1) for d and H, V (F + 1) for b and U, and V n D for W.

What stands where, as in every model of this course: the output at place t predicts the token
*after* place t. So that the first token can be predicted too, a row begins with a start mark, the
id V, which is read but never predicted; places before it are start marks as well.

Paper: Bengio, Ducharme, Vincent and Jauvin 2003, "A Neural Probabilistic Language Model", JMLR 3,
equation (1). Theirs to ours: |V| is V, m is D, h is F, n - 1 is `context_length`, C is `points`.

Differs: x begins with the oldest token, theirs with the latest (columns of H and W change places,
nothing more); torch's initial weights; AdamW without weight decay in place of stochastic gradient
descent with it.

Chapter: 02
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import final

import numpy as np
import torch
from einops import rearrange
from jaxtyping import Float, Int
from torch import Tensor, nn

from minillm.optim.step import Total

CHUNK_TOKENS = 2**15  # predicted at a time where no gradient is wanted


@final
@dataclass(frozen=True, kw_only=True)
class NeuralConfig:
    """What a network is built from.

    Args:
        vocab_size: V, token ids 0 to V - 1; the start mark is V.
        context_length: n, how many tokens it sees.
        d_model: D, of a token's point.
        d_ff: F.
        direct: whether points are connected to the output directly, too (W).

    Raises:
        ValueError: a number below 1.

    Example:
        >>> model = NeuralConfig(vocab_size=32, context_length=2, d_model=8, d_ff=64).build()
        >>> sum(parameter.numel() for parameter in model.parameters())  # 33·8 + 64·17 + 32·65
        3432
    """

    vocab_size: int
    context_length: int = 4
    d_model: int = 32
    d_ff: int = 256
    direct: bool = False

    def __post_init__(self):
        for name in ("vocab_size", "context_length", "d_model", "d_ff"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} must be at least 1; got {getattr(self, name)}")

    def build(self, seed: int = 0) -> "Neural":
        """The network with its first, random weights; torch's own random state is put back."""
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            return Neural(
                self.vocab_size, self.context_length, self.d_model, self.d_ff, self.direct
            )


@final
class Neural(nn.Module):
    """The network: `model(tokens)` gives log p of what follows each place; see the module.

    Args:
        vocab_size, context_length, d_model, d_ff, direct: as in `NeuralConfig`.
    """

    def __init__(self, vocab_size: int, context_length: int, d_model: int, d_ff: int, direct: bool):
        super().__init__()
        self.vocab_size, self.context_length = vocab_size, context_length
        self.points = nn.Embedding(vocab_size + 1, d_model)
        self.hidden = nn.Linear(context_length * d_model, d_ff)
        self.output = nn.Linear(d_ff, vocab_size)
        self.direct = (
            nn.Linear(context_length * d_model, vocab_size, bias=False) if direct else None
        )

    def forward(self, tokens: Int[Tensor, "B T"]) -> Float[Tensor, "B T V"]:
        """log p(next token | the last n up to here), in nats, at each place.

        Args:
            tokens: ids 0 to V - 1, or V where the row begins; see `with_start`.
        """
        # B rows of T tokens; V tokens in the vocabulary; embeddings of D numbers
        # 1. the last n tokens at each position, n = context_length, [B T n]
        padded = nn.functional.pad(tokens, (self.context_length - 1, 0), value=self.vocab_size)
        windows = padded.unfold(1, self.context_length, 1)
        # 2. `points` are the embeddings; `rearrange` puts n of them side by side: x, [B T nD]
        x = rearrange(self.points(windows), "B T n D -> B T (n D)")
        # 3. y = M2 tanh(M1 x + b1) + b2, a score for each next token, [B T V]
        y = self.output(torch.tanh(self.hidden(x)))
        if self.direct is not None:  # a short cut from x to y, not used in chapter 02
            y = y + self.direct(x)
        # 4. log p = y - log Σ exp y
        return y.log_softmax(dim=-1)

    @torch.no_grad()
    def log_probs(self, rows: np.ndarray) -> np.ndarray:
        """log p of each token given those before it, in nats: [B, T] → [B, T], or [T] → [T].

        Raises:
            ValueError: a token outside the vocabulary; another shape.
        """
        tokens = _checked(rows, self.vocab_size)
        table = torch.atleast_2d(tokens)
        batch_size = max(1, CHUNK_TOKENS // max(1, table.shape[1]))
        parts = [token_log_probs(self, part) for part in table.split(batch_size)]
        return torch.cat(parts).reshape(tokens.shape).double().numpy()

    @torch.no_grad()
    def next_token(self, prefix: Sequence[int]) -> np.ndarray:
        """Probability of each token after a prefix, [V].

        Raises:
            ValueError: a token outside the vocabulary.
        """
        last = prefix[max(0, len(prefix) - self.context_length) :]
        tokens = _checked(np.asarray(last, dtype=np.int64), self.vocab_size)
        log_p = self(with_start(tokens[None], self.vocab_size))[0, -1].double()
        return log_p.softmax(dim=-1).numpy()


def with_start(tokens: Int[Tensor, "B T"], start: int) -> Int[Tensor, "B S"]:
    """Put a start mark before each row, S = T + 1.

    Example:
        >>> with_start(torch.tensor([[3, 1], [0, 2]]), start=4).tolist()
        [[4, 3, 1], [4, 0, 2]]
    """
    return nn.functional.pad(tokens, (1, 0), value=start)


def token_log_probs(model: Neural, tokens: Int[Tensor, "B T"]) -> Float[Tensor, "B T"]:
    """log p of each token given those before it, with its gradient; the first follows the mark."""
    predicted = model(with_start(tokens, model.vocab_size)[:, :-1])
    return predicted.gather(-1, tokens[..., None])[..., 0]


def loss(model: Neural, tokens: Int[Tensor, "B T"]) -> Total:
    """Sum of -log p over all tokens of a batch, in nats: what `fit` makes small."""
    return Total(-token_log_probs(model, tokens).sum(), tokens.numel())


def _checked(rows: np.ndarray, vocab_size: int) -> Int[Tensor, "..."]:
    rows = np.asarray(rows)
    if rows.ndim not in (1, 2) or rows.dtype.kind not in "iu":
        raise ValueError(
            "tokens must be integers, [T] or [B, T]; got the shape "
            f"{list(rows.shape)} of {rows.dtype}"
        )
    if rows.size and (rows.min() < 0 or rows.max() >= vocab_size):
        raise ValueError(
            f"tokens must be from 0 to {vocab_size - 1}; got {int(rows.min())} to {int(rows.max())}"
        )
    return torch.from_numpy(rows.astype(np.int64))
