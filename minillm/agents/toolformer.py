"""Toolformer's filter (调用的筛选): keep a call if its result makes the text behind it likelier.

    Mei buys 7 plums at 2 coins each and 6 pears at 13 coins each. What does Mei pay? Answer:| 92.

    before "Answer:"          loss of what stands behind |
    no call                   1.40   L(ε)
    Steps: 14 + 78.           1.75   the call alone
    Steps: 14 + 78 = 92.      0.00   L⁺, the call and its result
    gain                      1.40   min(1.40, 1.75) - 0.00: kept, if that is at least τ

    Steps: 7 · 2.             1.53
    Steps: 7 · 2 = 14.        5.11   gain 1.40 - 5.11 < 0: not kept; 14 is not what follows

Nobody says which calls are good. The model itself judges: a result that it could use has lowered
its loss on the true text. The call alone is compared too, since the words of a call may help
without any result.

Let x₁ … xₙ be the tokens of the text and i the first that counts. With a call z,

    L_i(z) = - Σ_{j=i}^{n} w_{j-i} · log p(x_j | z, x₁ … x_{j-1})
    w_t = w̃_t / Σ_s w̃_s,    w̃_t = max(0, 1 - 0.2 t)        so 5 tokens count: ⅓, 4/15, ⅕, 2/15, 1/15
    L⁺ = L_i(call with result),    L⁻ = min(L_i(ε), L_i(call alone)),    kept if L⁻ - L⁺ ≥ τ

**Where the call stands.** In the paper z stands before the whole text, as a prefix, because their
model has never read a text with a call in its middle, and would be confused by one. Here `place`
says where it stands. A prefix is place 0. A model that has read worked steps before an answer can
be given a call there.

**What the filter cannot see.** A call can lower a loss by no more than that loss. Where the model
knows what follows, and its loss is below τ, no call is kept, useful or not.

Paper: Schick et al. 2023, "Toolformer: Language Models Can Teach Themselves to Use Tools",
arXiv:2302.04761: section 2 (the losses, the threshold, the prefix), section 4.1 (the weights) and
appendix A (τ = 1, for the calculator 0.5). Equations and thresholds checked in summaries of the
paper; the numbers of the sections from memory.
Differs: the place of the call is free; candidates are given, where theirs are sampled from the
model; the model is not fine-tuned on what is kept.

Chapter: 28
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import final

import torch
from jaxtyping import Float
from torch import Tensor

from minillm.formats.tokenizer_json import JsonTokenizer
from minillm.model.transformer import Transformer
from minillm.train.losses import token_log_probs

DECAY = 0.2  # of the weight, for each token
AT_ONCE = 48  # rows of one forward pass


@final
@dataclass(frozen=True, kw_only=True)
class Candidate:
    """A call that a text might have.

    Args:
        text: without the call; may spell special tokens.
        position: in characters; the losses count from here on.
        call: how the call reads alone, such as "Steps: 3 · 4. ".
        with_result: how it reads with its result, such as "Steps: 3 · 4 = 12. ".
        place: in characters, where the call stands, not behind the position; 0 is a prefix.

    Raises:
        ValueError: a position with nothing before or behind it; a place that is not before it.
    """

    text: str
    position: int
    call: str
    with_result: str
    place: int = 0

    def __post_init__(self) -> None:
        if not 0 < self.position < len(self.text):
            raise ValueError(
                f"position must lie inside the text, from 1 to {len(self.text) - 1}, so that there "
                f"is something to read and something to predict; got {self.position}"
            )
        if not 0 <= self.place <= self.position:
            raise ValueError(
                f"place must lie from 0 to the position, {self.position}: a call behind it is not "
                f"seen; got {self.place}"
            )

    def before(self, call: str) -> str:
        """What is read before the position, with a call in its place.

        Example:
            >>> each = Candidate(text="pays 12.", position=4, call="3 · 4. ", with_result="-")
            >>> each.before(each.call), each.after
            ('3 · 4. pays', ' 12.')
        """
        return self.text[: self.place] + call + self.text[self.place : self.position]

    @property
    def after(self) -> str:
        """What is to be predicted."""
        return self.text[self.position :]


@final
@dataclass(frozen=True)
class CallLosses:
    """The three weighted losses of one candidate, in nats.

    Args:
        without: L(ε), no call.
        call: the call alone.
        with_result: L⁺, the call and its result.

    Example:
        >>> losses = CallLosses(0.9, 0.8, 0.1)
        >>> round(losses.gain, 6), losses.keep(0.5), losses.keep(1.0)
        (0.7, True, False)
    """

    without: float
    call: float
    with_result: float

    @property
    def gain(self) -> float:
        """L⁻ - L⁺."""
        return min(self.without, self.call) - self.with_result

    def keep(self, threshold: float) -> bool:
        """Whether the result lowers the loss by the threshold τ at least."""
        return self.gain >= threshold


def weights(decay: float = DECAY) -> Float[Tensor, "T"]:
    """w_t, as long as they are above 0; they sum to one.

    Raises:
        ValueError: a decay outside of ]0, 1].

    Example:
        >>> weights(0.5)  # 1 and 0.5, divided by 1.5
        tensor([0.6667, 0.3333])
    """
    if not 0 < decay <= 1:
        raise ValueError(f"decay must be above 0 and at most 1; got {decay}")
    falling = 1 - decay * torch.arange(1 + int(1 / decay))
    falling = falling[falling > 1e-6]  # 1 - 0.2 · 5 is not quite 0
    return falling / falling.sum()


def weighted_loss(log_probs: Float[Tensor, "T"], decay: float = DECAY) -> float:
    """L_i(z) = -Σ_t w_t · log p, in nats; a text that ends early has fewer terms.

    Args:
        log_probs: of the tokens from the position on.
        decay: of the weights.

    Example:
        >>> weighted_loss(torch.tensor([-3.0, -6.0, -100.0]), decay=0.5)  # 3 · 2/3 + 6 · 1/3
        4.0
    """
    falling = weights(decay)[: len(log_probs)]
    return -(falling * log_probs[: len(falling)]).sum().item()


def call_losses(
    model: Transformer, tokenizer: JsonTokenizer, candidates: Sequence[Candidate]
) -> list[CallLosses]:
    """The losses of each candidate: without a call, with the call alone, with its result.

    Args:
        model: the judge.
        tokenizer: its own.
        candidates: texts with calls.

    Raises:
        ValueError: a text that is longer than the model's context.
    """
    # 1. what is read, and what is to be predicted
    rows = [
        (each.before(call), each.after)
        for each in candidates
        for call in ("", each.call, each.with_result)
    ]
    # 2. many candidates share their text without a call
    unique = list(dict.fromkeys(rows))
    losses = [
        loss
        for first in range(0, len(unique), AT_ONCE)
        for loss in _losses(model, tokenizer, unique[first : first + AT_ONCE])
    ]
    loss_of = dict(zip(unique, losses, strict=True))
    # 3. three of each
    return [
        CallLosses(*(loss_of[row] for row in rows[3 * i : 3 * i + 3]))
        for i in range(len(candidates))
    ]


@torch.no_grad()
def _losses(
    model: Transformer, tokenizer: JsonTokenizer, rows: Sequence[tuple[str, str]]
) -> list[float]:
    n_weights, special = len(weights()), tuple(tokenizer.special_ids)
    both = [
        (tokenizer.encode(read, special), tokenizer.encode(after, special)[:n_weights])
        for read, after in rows
    ]
    length = max(len(read) + len(after) for read, after in both)
    if length > model.context_length:
        raise ValueError(
            f"a text with its call must have at most {model.context_length} tokens, the context "
            f"of the model; got {length}: take a shorter text"
        )
    # padding stands behind every token that counts, where a causal model cannot see it
    tokens = torch.tensor(
        [read + after + [0] * (length - len(read + after)) for read, after in both]
    )
    log_probs = token_log_probs(model(tokens)[:, :-1], tokens[:, 1:])
    return [
        weighted_loss(row[len(read) - 1 : len(read) + len(after) - 1])
        for row, (read, after) in zip(log_probs, both, strict=True)
    ]
