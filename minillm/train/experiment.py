"""A small experiment: texts as rows of tokens, a model for them, and a loss on held-out text.

A model's loss on what it has learned says little, so a part of the texts is held out (留出). The
tokenizer belongs to what is learned: it sees the training part alone.

    training texts    → tokenizer, rows of T tokens, batch after batch
    held-out texts    → rows of T tokens, by the same tokenizer → Σ -log p, and of how many tokens

The end mark has the id behind the tokenizer's last.

Chapter: 05
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import final

import torch

from minillm.data.corpus import python_documentation
from minillm.data.packing import Packed
from minillm.model.config import tiny
from minillm.model.transformer import Transformer
from minillm.optim.step import Total
from minillm.text.bpe import train as learn
from minillm.text.tokenizer import Tokenizer
from minillm.town.stories import StorySource
from minillm.town.world import World
from minillm.train.loop import TrainState
from minillm.train.losses import language_loss

EVERY = 5  # of a text's paragraphs, one in so many is held out
EVALUATED_ROWS = 64  # at once


@final
@dataclass(frozen=True, eq=False)
class Experiment:
    """Rows to learn from, rows that no model learns from, and the model that learns.

    Args:
        tokenizer: learned from the training texts.
        training: their rows; `training.batch_at(step)` is the batch of a step.
        held_out: the other rows.
        n_bytes: of the held-out texts, in UTF-8.
    """

    tokenizer: Tokenizer
    training: Packed
    held_out: Packed
    n_bytes: int

    @property
    def end_id(self) -> int:
        """The mark between two texts."""
        return self.tokenizer.vocab_size

    def state(self, learning_rate: float, *, seed: int = 0) -> TrainState:
        """Two blocks of width 64 with their first weights, and AdamW without weight decay.

        Args:
            learning_rate: the highest of the run.
            seed: of the weights.
        """
        config = replace(tiny(self.end_id + 1), context_length=self.training.context_length)
        model = config.build(seed=seed)
        optimizer = torch.optim.AdamW(model.parameters(), lr=learning_rate, weight_decay=0.0)
        return TrainState(model, optimizer)

    @torch.no_grad()
    def evaluate(self, model: Transformer) -> Total:
        """The loss of all held-out rows together."""
        numbers = range(self.held_out.n_places)
        parts = (numbers[i : i + EVALUATED_ROWS] for i in range(0, len(numbers), EVALUATED_ROWS))
        totals = (language_loss(model, self.held_out.rows(some)) for some in parts)
        return sum(totals, Total(torch.zeros(()), 0))


def texts(
    training: Sequence[str],
    held_out: Sequence[str],
    *,
    vocab_size: int,
    batch_size: int = 16,
    context_length: int = 64,
    seed: int = 0,
) -> Experiment:
    """An experiment with any texts.

    Args:
        training: each a document of its own.
        held_out: likewise.
        vocab_size: of the tokenizer; 256 is bytes.
        batch_size: rows a batch.
        context_length: tokens a row.
        seed: of the order of the rows.

    Raises:
        ValueError: too little text for a row on each side.

    Example:
        >>> toy = texts(["a", "bb"], ["ccc"], vocab_size=256, context_length=4)
        >>> toy.training.stream.tolist(), toy.end_id, toy.n_bytes
        ([256, 97, 256, 98, 98, 256], 256, 3)
    """
    tokenizer = learn("\n".join(training), vocab_size)
    rows = [
        Packed(
            [tokenizer.encode(text) for text in part],
            end_id=tokenizer.vocab_size,
            context_length=context_length,
            batch_size=batch_size,
            seed=seed,
        )
        for part in (training, held_out)
    ]
    return Experiment(tokenizer, *rows, sum(len(text.encode()) for text in held_out))


def story_texts(n_blocks: int, language: str = "en", *, seed: int | str = 0) -> list[str]:
    """Stories of the town as texts, 64 a block; the same seed gives the same stories.

    Args:
        n_blocks: the blocks 0 to n_blocks - 1 of the stream.
        language: "en", "zh" or "both".
        seed: of the stream.

    Example:
        >>> len(story_texts(2)), story_texts(1, seed="held out") == story_texts(1)
        (128, False)
    """
    source = StorySource(World(), language)
    return [story.text for index in range(n_blocks) for story in source.block(index, seed=seed)]


def stories(n_blocks: int = 12, *, batch_size: int = 16, seed: int = 0) -> Experiment:
    """English stories of the town, 64 a block, under 512 tokens; one more block is held out.

    Args:
        n_blocks: of the training part.
        batch_size: rows of 64 tokens a batch.
        seed: of the order of the rows.

    Example:
        >>> stories(n_blocks=1).training.batch_at(0).tokens.shape
        torch.Size([16, 64])
    """
    training, held_out = story_texts(n_blocks), story_texts(1, seed="held out")
    return texts(training, held_out, vocab_size=512, batch_size=batch_size, seed=seed)


def documentation(vocab_size: int, *, seed: int = 0) -> Experiment:
    """Python's own documentation, of which every fifth paragraph is held out.

    A paragraph that occurs twice counts once. The text differs from one Python to the next.

    Args:
        vocab_size: of the tokenizer; 256 is bytes.
        seed: of the order of the rows.

    Raises:
        ValueError: this Python was installed without it.
    """
    paragraphs = list(dict.fromkeys(python_documentation().split("\n\n")))
    training = [p for n, p in enumerate(paragraphs) if n % EVERY != EVERY - 1]
    held_out = paragraphs[EVERY - 1 :: EVERY]
    return texts(["\n\n".join(training)], ["\n\n".join(held_out)], vocab_size=vocab_size, seed=seed)
