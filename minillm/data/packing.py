"""Packing (打包): documents of many lengths, cut into rows of one length, and nothing filled up.

All documents are laid into one stream, an end mark before each and one behind the last, and the
stream is cut every T tokens. Of a row, each token but the last is read and each but the first is
predicted, so neighbouring rows share one token:

    stream     ■ Mei sells plums ■ Bao waits ■            T = 4
    row 0      ■ Mei sells plums                read
                 Mei sells plums ■              targets
    row 1      ■ Bao waits ■ …

The mark ■ ends one document and begins the next: as a token to predict it belongs to the first, as
a token to read to the second. `Batch.documents` numbers what is read so, and `Batch.context` makes
of it the mask and the positions by which no token sees another document. Without the mask the model
must learn by itself that what stands before a mark does not matter.

**Which rows a step gets** is a function of (seed, step) alone. In each epoch every row comes once,
in an order of its own; batch after batch takes the next `batch_size`. So a run that was stopped
knows where it stood in the data from the number of its step.

Paper: Brown et al. 2020, "Language Models are Few-Shot Learners", arXiv:2005.14165, appendix B
(packing, without a mask); Raffel et al. 2020, arXiv:1910.10683, section 3.1.2.
Differs: none.

Chapter: 05
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import final

import numpy as np
import torch
from jaxtyping import Bool, Int
from torch import Tensor

from minillm.model.attention import Context
from minillm.model.masks import causal, document


@final
@dataclass(frozen=True, eq=False)
class Batch:
    """What a step looks at.

    Args:
        tokens: what is read.
        targets: the token after each of them.
        documents: the number of each token's document, counted along the row from 0.
        loss_mask: which targets are to be learned; None for all of them.
    """

    tokens: Int[Tensor, "B T"]
    targets: Int[Tensor, "B T"]
    documents: Int[Tensor, "B T"]
    loss_mask: Bool[Tensor, "B T"] | None = None

    def context(self) -> Context:
        """Each token sees its own document only, and counts its place from where that begins."""
        indices = torch.arange(self.tokens.shape[1])
        if not self.documents.any():  # one document in each row: plainly causal
            return Context(positions=indices)
        begins = torch.ones_like(self.documents, dtype=torch.bool)
        begins[:, 1:] = self.documents[:, 1:] != self.documents[:, :-1]
        first = (indices * begins).cummax(dim=1).values  # place at which a token's document begins
        mask = causal(indices, indices) & document(self.documents, self.documents)
        return Context(positions=indices - first, mask=mask)


@final
class Packed:
    """A corpus as rows, and the batch of each step.

    Args:
        documents: token ids of each; none of them holds the end mark.
        end_id: the mark that stands between documents.
        context_length: T.
        batch_size: B, how many rows a batch has; more than there are means that some come twice.
        seed: of the order.

    Raises:
        ValueError: no document, an empty one, one that holds the end mark; fewer tokens than one
            row needs; a count below 1.

    Example:
        >>> packed = Packed([[5, 6, 7], [8, 9]], end_id=0, context_length=4, batch_size=1)
        >>> packed.stream.tolist(), packed.n_places
        ([0, 5, 6, 7, 0, 8, 9, 0], 1)
        >>> batch = packed.batch_at(0)
        >>> batch.tokens.tolist(), batch.targets.tolist()
        ([[0, 5, 6, 7]], [[5, 6, 7, 0]])
    """

    def __init__(
        self,
        documents: Sequence[Sequence[int]] | Sequence[np.ndarray],
        *,
        end_id: int,
        context_length: int,
        batch_size: int,
        seed: int = 0,
    ):
        if context_length < 1 or batch_size < 1:
            raise ValueError(
                "context_length and batch_size must be at least 1; got "
                f"{context_length} and {batch_size}"
            )
        self.stream = _stream(documents, end_id)
        self.context_length, self.batch_size, self.seed = context_length, batch_size, seed
        self._document = np.cumsum(self.stream == end_id)
        #: How many rows there are; up to T - 1 tokens at the end of the stream belong to none.
        self.n_places = (len(self.stream) - 1) // context_length
        if not self.n_places:
            raise ValueError(
                f"the documents have {len(self.stream)} tokens with their marks, and one row of "
                f"context_length={context_length} needs {context_length + 1}: the last is only "
                "predicted. Add text, or choose a smaller context_length"
            )

    def batch_at(self, step: int) -> Batch:
        """The batch of a step; the same for whoever asks, in any order.

        Raises:
            ValueError: a step below 0.
        """
        if step < 0:
            raise ValueError(f"steps are counted from 0; got {step}")
        targets = range(step * self.batch_size, (step + 1) * self.batch_size)
        return self.rows(
            [
                epoch_order(self.n_places, self.seed, n // self.n_places)[n % self.n_places]
                for n in targets
            ]
        )

    def rows(self, numbers: Sequence[int]) -> Batch:
        """The rows of these numbers, 0 to `n_places` - 1, in the order of the text.

        Raises:
            ValueError: no number, or one of a row that is not there.
        """
        numbers = np.asarray(numbers, dtype=np.int64)
        if not numbers.size or numbers.min() < 0 or numbers.max() >= self.n_places:
            raise ValueError(
                f"there are rows 0 to {self.n_places - 1}; got {numbers.tolist() or 'none'}"
            )
        indices = numbers[:, None] * self.context_length + np.arange(self.context_length)
        documents = self._document[indices]
        return Batch(
            tokens=torch.from_numpy(self.stream[indices]),
            targets=torch.from_numpy(self.stream[indices + 1]),
            documents=torch.from_numpy(documents - documents[:, :1]),
        )


def _stream(documents: Sequence, end_id: int) -> np.ndarray:
    if not len(documents):
        raise ValueError("a corpus must have at least one document; got none")
    mark = np.array([end_id], dtype=np.int64)
    parts = [mark]
    for number, ids in enumerate(documents):
        ids = np.asarray(ids, dtype=np.int64)
        if not ids.size:
            raise ValueError(f"document {number} is empty; leave it out")
        if (ids == end_id).any():
            raise ValueError(
                f"document {number} holds the end mark, {end_id}, at place "
                f"{int((ids == end_id).argmax())}; marks are set between documents, not by them"
            )
        parts += [ids, mark]
    return np.concatenate(parts)


@lru_cache(maxsize=4)
def epoch_order(n_places: int, seed: int, epoch: int) -> np.ndarray:
    """The order of the rows 0 to n_places - 1 in an epoch: a function of seed and epoch alone."""
    return np.random.default_rng([seed, epoch]).permutation(n_places)
