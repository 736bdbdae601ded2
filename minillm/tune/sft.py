"""Supervised fine-tuning (SFT, 有监督微调): a model that goes on with texts learns to answer.

It is pre-training's loop on other data. Three things differ:

- the loss counts the assistant's tokens alone (`minillm.tune.chat`);
- a row holds whole conversations. Cut in two, the second half would be an answer without its
  question, and a model that learns from it learns to answer without having been asked;
- the steps are few, and their learning rate decides what is forgotten. The rates of
  this course were chosen for right answers. That of matrices is twice the one at which `town-base`
  was made; after it, hardly a text goes on as before (`minillm bench instruct`). A tenth of the
  rates costs less.

    row 0    <|user|> … <|end|> <|assistant|> … │ <|user|> … <|end|> <|assistant|> … │ · · padding
    loss        ·   ·     ·          ·        ✓ │    ·   ·     ·          ·        ✓ │ · ·

Conversations in one row do not see each other, and padding is seen by nobody and not learned.

Paper: Wei et al. 2021, "Finetuned Language Models Are Zero-Shot Learners", arXiv:2109.01652,
section 2.4 (packing); from memory.
Differs: whole conversations, and a mask between them.

Chapter: 20
"""

import copy
from collections.abc import Sequence
from dataclasses import dataclass
from typing import final

import numpy as np
import torch

from minillm.data.packing import Batch, epoch_order
from minillm.model.transformer import Transformer
from minillm.optim.groups import hidden_matrices_and_others
from minillm.optim.muon import Muon
from minillm.optim.schedule import WarmupStableDecay
from minillm.train.loop import LoopConfig, TrainState, train
from minillm.train.losses import language_loss
from minillm.tune.chat import Example


@final
class Conversations:
    """Conversations as rows, and the batch of each step; the counterpart of `data.packing.Packed`.

    Args:
        examples: to learn from.
        context_length: T, tokens in a row.
        batch_size: B, rows in a batch.
        seed: of the order.

    Raises:
        ValueError: no example; one that is longer than a row; a count below 1.

    Example:
        >>> one = Example((7, 1, 8, 2, 9), (False, False, False, True, True))
        >>> batch = Conversations([one], context_length=5, batch_size=1).batch_at(0)
        >>> batch.tokens.tolist(), batch.targets.tolist()
        ([[7, 1, 8, 2, 0]], [[1, 8, 2, 9, 0]])
        >>> batch.loss_mask.int().tolist(), batch.documents.tolist()
        ([[0, 0, 1, 1, 0]], [[0, 0, 0, 0, 1]])
    """

    def __init__(
        self, examples: Sequence[Example], *, context_length: int, batch_size: int, seed: int = 0
    ):
        if not examples or context_length < 1 or batch_size < 1:
            raise ValueError(
                "there must be an example, and context_length and batch_size of at least 1; got "
                f"{len(examples)} examples, {context_length} and {batch_size}"
            )
        for number, each in enumerate(examples):
            if len(each.ids) - 1 > context_length:
                raise ValueError(
                    f"a conversation must fit into a row of {context_length} + 1 tokens; example "
                    f"{number} has {len(each.ids)}. Shorten it or leave it out"
                )
        self.context_length, self.batch_size, self.seed = context_length, batch_size, seed
        #: All tokens, one conversation after the other.
        self.stream = np.concatenate([np.asarray(each.ids, dtype=np.int64) for each in examples])
        self._rows = _fill(examples, epoch_order(len(examples), seed, 0), context_length)
        #: How many rows there are.
        self.n_places = len(self._rows)

    def batch_at(self, step: int) -> Batch:
        """The batch of a step; the same for whoever asks, in any order.

        Raises:
            ValueError: a step below 0.
        """
        if step < 0:
            raise ValueError(f"steps are counted from 0; got {step}")
        numbers = range(step * self.batch_size, (step + 1) * self.batch_size)
        return self.rows(
            [
                epoch_order(self.n_places, self.seed, n // self.n_places)[n % self.n_places]
                for n in numbers
            ]
        )

    def rows(self, numbers: Sequence[int]) -> Batch:
        """The rows of these numbers, 0 to `n_places` - 1."""
        tokens = np.zeros((len(numbers), self.context_length), dtype=np.int64)
        targets, loss_mask = np.zeros_like(tokens), np.zeros_like(tokens, dtype=bool)
        documents = np.zeros_like(tokens)
        for row, number in enumerate(numbers):
            begin = 0
            for order, each in enumerate(self._rows[number]):
                # each token but the last is read, each but the first is predicted
                here = slice(begin, begin + len(each.ids) - 1)
                tokens[row, here], targets[row, here] = each.ids[:-1], each.ids[1:]
                loss_mask[row, here] = each.loss_mask[1:]
                documents[row, here] = order
                begin = here.stop
            documents[row, begin:] = len(self._rows[number])  # padding
        return Batch(*map(torch.from_numpy, (tokens, targets, documents, loss_mask)))


def _fill(
    examples: Sequence[Example], order: Sequence[int], context_length: int
) -> list[list[Example]]:
    """Rows of whole conversations, one after the other until the next has no room."""
    rows: list[list[Example]] = []
    left = 0
    for number in order:
        length = len(examples[number].ids) - 1
        if length > left:
            rows.append([])
            left = context_length
        rows[-1].append(examples[number])
        left -= length
    return rows


@final
@dataclass(frozen=True, kw_only=True)
class SFTConfig:
    """How a model is fine-tuned.

    Args:
        n_steps: in all.
        batch_size: rows a step.
        matrix_rate: Muon's, for the matrices of the blocks, at its highest.
        learning_rate: AdamW's, for the rest, at its highest.
        warmup_steps: until these are reached; the last half of the steps leads straight down to 0.
        weight_decay: of matrices.
        seed: of the order of the examples.
    """

    n_steps: int = 200
    batch_size: int = 16
    matrix_rate: float = 0.02
    learning_rate: float = 4e-3
    warmup_steps: int = 10
    weight_decay: float = 0.0
    seed: int = 0


def fine_tune(
    model: Transformer, examples: Sequence[Example], config: SFTConfig | None = None
) -> Transformer:
    """A copy of the model that has learned from conversations; the model itself stays as it is.

    Args:
        model: to begin from.
        examples: `minillm.tune.chat.example` of each conversation.
        config: how; None for the values of `SFTConfig`.

    Raises:
        ValueError: what `Conversations` refuses; a count below its range.
    """
    config = SFTConfig() if config is None else config
    tuned = copy.deepcopy(model)
    matrices, others = hidden_matrices_and_others(tuned)
    optimizer = Muon(
        matrices,
        others,
        lr=config.matrix_rate,
        weight_decay=config.weight_decay,
        others_lr=config.learning_rate,
        others_betas=(0.9, 0.95),
    )
    data = Conversations(
        examples,
        context_length=model.config.context_length,
        batch_size=config.batch_size,
        seed=config.seed,
    )
    schedule = WarmupStableDecay(
        n_steps=config.n_steps,
        warmup_steps=min(config.warmup_steps, config.n_steps // 2),
        decay_steps=max(1, config.n_steps // 2),
    )
    loop = LoopConfig(n_steps=config.n_steps, schedule=schedule)
    for _ in train(TrainState(tuned, optimizer), language_loss, data.batch_at, loop):
        pass
    return tuned
