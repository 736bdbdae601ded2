"""A neural language model (神经语言模型) over the last n tokens: counts replaced by coordinates.

A table of n-grams has a row of its own for every context, and learns nothing about `red plums` from
`red pears`. Here every token is a point in a space of width D, learned with the rest; contexts that
lie near each other get similar predictions, seen or not. With x the points of the last n tokens put
end to end (词嵌入, embeddings), the network is

    y = b + W x + U tanh(d + H x)                log p(next token) = y - log Σ exp(y)

and W is left out where there are no direct connections. The parameters are counted on paper:
(V + 1) D for the points, F (n D + 1) for d and H, V (F + 1) for b and U, and V n D for W.

What stands where, as in every model of this course: the output at place t predicts the token
*after* place t. So that the first token can be predicted too, a row begins with a start mark, the
id V, which is read but never predicted; places before it are start marks as well.

Paper: Bengio, Ducharme, Vincent and Jauvin 2003, "A Neural Probabilistic Language Model", JMLR 3,
equation (1). Theirs to ours: |V| is V, m is D, h is F, n - 1 is `context_tokens`, C is `points`.

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
        n_vocab: V, token ids 0 to V - 1; the start mark is V.
        context_tokens: n, how many tokens it sees.
        width: D, of a token's point.
        hidden_width: F.
        direct: whether points are connected to the output directly, too (W).

    Raises:
        ValueError: a number below 1.

    Example:
        >>> model = NeuralConfig(n_vocab=32, context_tokens=2, width=8, hidden_width=64).build()
        >>> sum(parameter.numel() for parameter in model.parameters())  # 33·8 + 64·17 + 32·65
        3432
    """

    n_vocab: int
    context_tokens: int = 4
    width: int = 32
    hidden_width: int = 256
    direct: bool = False

    def __post_init__(self):
        for name in ("n_vocab", "context_tokens", "width", "hidden_width"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} must be at least 1; got {getattr(self, name)}")

    def build(self, seed: int = 0) -> "Neural":
        """The network with its first, random weights; torch's own random state is put back."""
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            return Neural(
                self.n_vocab, self.context_tokens, self.width, self.hidden_width, self.direct
            )


@final
class Neural(nn.Module):
    """The network: `model(tokens)` gives log p of what follows each place; see the module.

    Args:
        n_vocab, context_tokens, width, hidden_width, direct: as in `NeuralConfig`.
    """

    def __init__(
        self, n_vocab: int, context_tokens: int, width: int, hidden_width: int, direct: bool
    ):
        super().__init__()
        self.n_vocab, self.context_tokens = n_vocab, context_tokens
        self.points = nn.Embedding(n_vocab + 1, width)
        self.hidden = nn.Linear(context_tokens * width, hidden_width)
        self.output = nn.Linear(hidden_width, n_vocab)
        self.direct = nn.Linear(context_tokens * width, n_vocab, bias=False) if direct else None

    def forward(self, tokens: Int[Tensor, "B T"]) -> Float[Tensor, "B T V"]:
        """log p(next token | the last n up to here), in nats, at each place.

        Args:
            tokens: ids 0 to V - 1, or V where the row begins; see `with_start`.
        """
        # 1. the last n tokens at each position, [B T n]
        padded = nn.functional.pad(tokens, (self.context_tokens - 1, 0), value=self.n_vocab)
        windows = padded.unfold(1, self.context_tokens, 1)
        # 2. their embeddings, side by side: x = (C(w_1), …, C(w_n)), [B T nD]
        x = rearrange(self.points(windows), "B T n D -> B T (n D)")
        # 3. y = b + U tanh(d + H x), a score for each next token, [B T V]
        y = self.output(torch.tanh(self.hidden(x)))
        if self.direct is not None:
            y = y + self.direct(x)
        # 4. log p = y - log Σ exp y
        return y.log_softmax(dim=-1)

    @torch.no_grad()
    def log_probs(self, rows: np.ndarray) -> np.ndarray:
        """log p of each token given those before it, in nats: [B, T] → [B, T], or [T] → [T].

        Raises:
            ValueError: a token outside the vocabulary; another shape.
        """
        tokens = _checked(rows, self.n_vocab)
        table = torch.atleast_2d(tokens)
        n_rows = max(1, CHUNK_TOKENS // max(1, table.shape[1]))
        parts = [token_log_probs(self, part) for part in table.split(n_rows)]
        return torch.cat(parts).reshape(tokens.shape).double().numpy()

    @torch.no_grad()
    def next_token(self, prefix: Sequence[int]) -> np.ndarray:
        """Probability of each token after a prefix, [V].

        Raises:
            ValueError: a token outside the vocabulary.
        """
        last = prefix[max(0, len(prefix) - self.context_tokens) :]
        tokens = _checked(np.asarray(last, dtype=np.int64), self.n_vocab)
        log_p = self(with_start(tokens[None], self.n_vocab))[0, -1].double()
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
    predicted = model(with_start(tokens, model.n_vocab)[:, :-1])
    return predicted.gather(-1, tokens[..., None])[..., 0]


def loss(model: Neural, tokens: Int[Tensor, "B T"]) -> Total:
    """Sum of -log p over all tokens of a batch, in nats: what `fit` makes small."""
    return Total(-token_log_probs(model, tokens).sum(), tokens.numel())


def _checked(rows: np.ndarray, n_vocab: int) -> Int[Tensor, "..."]:
    rows = np.asarray(rows)
    if rows.ndim not in (1, 2) or rows.dtype.kind not in "iu":
        raise ValueError(
            "tokens must be integers, [T] or [B, T]; got the shape "
            f"{list(rows.shape)} of {rows.dtype}"
        )
    if rows.size and (rows.min() < 0 or rows.max() >= n_vocab):
        raise ValueError(
            f"tokens must be from 0 to {n_vocab - 1}; got {int(rows.min())} to {int(rows.max())}"
        )
    return torch.from_numpy(rows.astype(np.int64))
