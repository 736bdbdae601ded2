"""Reward models (奖励模型): a transformer that reads a text and gives it one number, its score.

    question : where does Mei live ?  quote : Mei lives in Plum Lane  answer : Plum Lane      2.1
    question : where does Mei live ?  quote : Bao lives in Mill Road  answer : Mill Road     -1.7
                                                                                     ↑ last token

Nobody says what the numbers should be. All that is known is which of two texts is the better one,
and the model of Bradley and Terry makes of two scores the probability of that:

    p(a is better than b)  =  σ(score(a) - score(b))  =  1 / (1 + e^(score(b) - score(a)))

The loss is -log of this probability for the one that *was* better. Only differences count, so a
score has no zero of its own: 1.0 may be poor for one question and good for another.

The transformer is the one that writes; in place of its table of logits stands one row of numbers,
and it is read at the last token, which has seen all the others.

Paper: Bradley and Terry 1952, "Rank Analysis of Incomplete Block Designs"; Nakano et al. 2021,
"WebGPT", arXiv:2112.09332, section 3.2 (the last layer of the cloned model replaced by one that
gives a scalar; the difference of two scores is the logit of the preference). From memory.
Differs: theirs begins from the cloned model and learns from people's comparisons, ties as one half;
which model ours begins from is the caller's choice, and there are no ties.

Chapter: 22
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import final

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from minillm.model.transformer import Transformer
from minillm.optim.step import Total

AT_ONCE = 1024  # texts that are scored together


def bradley_terry(
    better: Float[Tensor, "*pairs"], worse: Float[Tensor, "*pairs"]
) -> Float[Tensor, "*pairs"]:
    """-log σ(better - worse): the loss of each comparison, in nats.

    Args:
        better, worse: the scores of the two.

    Example:
        >>> bradley_terry(torch.tensor([1.0, 3.0]), torch.tensor([1.0, 0.0]))  # log 2, nearly 0
        tensor([0.6931, 0.0486])
    """
    return -nn.functional.logsigmoid(better - worse)


@final
class RewardModel(nn.Module):
    """A transformer with a scalar head.

    Args:
        transformer: its own logits are not used; a copy, if the first one is still needed.

    Example:
        >>> from minillm.model.config import TransformerConfig
        >>> model = TransformerConfig(vocab_size=50, d_model=16, n_layers=2).build(seed=0)
        >>> scores(RewardModel(model), [[7, 3, 9], [4]])  # the head begins at zero
        [0.0, 0.0]
    """

    def __init__(self, transformer: Transformer):
        super().__init__()
        self.transformer = transformer
        weight = transformer.embedding.weight
        self.score = nn.Linear(
            weight.shape[1], 1, bias=False, device=weight.device, dtype=weight.dtype
        )
        nn.init.zeros_(self.score.weight)

    def forward(self, tokens: Int[Tensor, "B T"], last: Int[Tensor, "B"]) -> Float[Tensor, "B"]:
        """The score of each row, read at its last token.

        Args:
            tokens: filled up on the right.
            last: the place of each row's last token.
        """
        hidden = self.transformer.hidden(tokens)  # [B, T, D]
        return self.score(hidden[torch.arange(len(last)), last]).squeeze(-1)


@final
@dataclass(frozen=True)
class Comparisons:
    """Pairs of texts, of which one was better, as rows.

    Args:
        tokens: 2 · B rows filled up on the right: the better ones, then the worse ones in the same
            order.
        last: the place of each row's last token.
    """

    tokens: Int[Tensor, "rows T"]
    last: Int[Tensor, "rows"]


def right_pad(rows: Sequence[Sequence[int]]) -> tuple[Int[Tensor, "B T"], Int[Tensor, "B"]]:
    """Rows filled up with 0 on the right, where no token sees it, and their last places.

    Raises:
        ValueError: no row, or one without a token.

    Example:
        >>> tokens, last = right_pad([[5, 6, 7], [3]])
        >>> tokens.tolist(), last.tolist()
        ([[5, 6, 7], [3, 0, 0]], [2, 0])
    """
    if not rows or not all(len(row) for row in rows):
        raise ValueError("there must be at least one text, and each must have at least one token")
    longest = max(map(len, rows))
    tokens = torch.tensor([[*row, *[0] * (longest - len(row))] for row in rows])
    return tokens, torch.tensor([len(row) - 1 for row in rows])


def comparisons(pairs: Sequence[tuple[Sequence[int], Sequence[int]]]) -> Comparisons:
    """A batch of comparisons.

    Args:
        pairs: the token ids of the better text and of the worse one.
    """
    return Comparisons(*right_pad([better for better, _ in pairs] + [worse for _, worse in pairs]))


def preference_loss(model: RewardModel, batch: Comparisons) -> Total:
    """The sum of `bradley_terry` over a batch, and of how many comparisons; for `fit`."""
    better, worse = model(batch.tokens, batch.last).chunk(2)
    return Total(bradley_terry(better, worse).sum(), len(better))


@torch.no_grad()
def scores(model: RewardModel, rows: Sequence[Sequence[int]]) -> list[float]:
    """The score of each text.

    Args:
        model: trained, or not.
        rows: token ids.

    Raises:
        ValueError: as for `right_pad`.
    """
    return [
        score
        for first in range(0, len(rows), AT_ONCE)
        for score in model(*right_pad(rows[first : first + AT_ONCE])).tolist()
    ]
