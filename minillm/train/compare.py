"""The same model and the same batches, under one optimizer after the other.

A `Task` is what a comparison holds fixed: a model with its first weights, the batches in their
order, and a held-out loss. `attempt` trains once and says what came out:

    task = sentences()                                       the town's grammar, its floor known
    attempt(task, lambda model: build(model, "AdamW", 0.004), n_steps=200, seed=1)

Whoever compares must search equally long on each side; `minillm bench optimizers` does.

Paper: Sivaprasad et al. 2020, "Optimizer Benchmarking Needs to Account for Hyperparameter Tuning",
arXiv:1910.11758.

Chapter: 06
"""

import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any, NamedTuple, final

import numpy as np
import torch
from torch import nn

from minillm.data.packing import Packed
from minillm.lab.track import track
from minillm.model import transformer
from minillm.model.config import tiny
from minillm.model.transformer import Transformer
from minillm.optim.schedule import Cosine
from minillm.optim.step import Total
from minillm.text.bpe import train as learn
from minillm.town.grammar import town_grammar
from minillm.town.world import World
from minillm.train.loop import LoopConfig, TrainState, train
from minillm.train.losses import language_loss

END, PAD = "<|endoftext|>", "<|pad|>"
MOST_WARMUP_STEPS = 10
EVALUATED_ROWS = 64  # at once


@final
@dataclass(frozen=True, kw_only=True)
class Task:
    """What every optimizer of a comparison is given.

    Args:
        model: seed to a model with its first weights.
        batch_at: (step, seed) to a batch.
        loss: of a model on a batch.
        held_out: batches that no run learns from.
        floor: the loss of the source itself, in nats a token; 0 if nobody knows.
    """

    model: Callable[[int], Transformer]
    batch_at: Callable[[int, int], Any]
    loss: Callable[[nn.Module, Any], Total]
    held_out: list[Any]
    floor: float = 0.0

    @torch.no_grad()
    def held_out_loss(self, model: nn.Module) -> float:
        """Nats a token of all held-out batches together."""
        return sum((self.loss(model, batch) for batch in self.held_out), Total(0.0, 0)).mean.item()


class Attempt(NamedTuple):
    """What a run came to.

    Args:
        loss: held out, nats a token; infinite if the run broke.
        above_entropy: by how many percent the loss lies above the floor; infinite if there is none.
        curve: the training loss of each step, nats a token.
        state: bytes that the optimizer keeps for each byte of the model.
    """

    loss: float
    above_entropy: float
    curve: list[float]
    state: float


def sentences(*, n_held_out: int = 8) -> Task:
    """Chapter 04's task: the town's grammar, 64 sentences a batch, a GPT of 166,208 weights.

    Args:
        n_held_out: blocks of 64 sentences.

    Example:
        >>> task = sentences(n_held_out=1)
        >>> len(task.batch_at(0, 1)), round(task.floor, 2)  # sentences, nats a token
        (64, 1.95)
    """
    grammar = town_grammar(World())
    reading = (s.text for i in range(150) for s in grammar.block(i, seed="tokenizer"))
    tokenizer = learn("\n".join(reading), 1024, special_tokens=[END, PAD])
    end, pad = (tokenizer.special_ids[name] for name in (END, PAD))

    def rows(block: list) -> torch.Tensor:
        """A row a sentence, an end mark before and behind, padded to the longest."""
        ids = [[end, *tokenizer.encode(sentence.text), end] for sentence in block]
        longest = max(map(len, ids))
        return torch.tensor([row + [pad] * (longest - len(row)) for row in ids])

    blocks = [grammar.block(i, seed="held out") for i in range(n_held_out)]
    held_out = [rows(block) for block in blocks]
    n_tokens = sum(int((block[:, 1:] != pad).sum()) for block in held_out)
    entropy = -float(np.sum([sentence.log_prob for block in blocks for sentence in block]))
    return Task(
        model=lambda seed: _small(tokenizer.vocab_size, seed),
        batch_at=lambda step, seed: rows(grammar.block(step, seed=f"train {seed}")),
        loss=lambda model, tokens: transformer.loss(model, tokens, ignore=pad),
        held_out=held_out,
        floor=entropy / n_tokens,
    )


def real_text(text: str, *, vocab_size: int = 512) -> Task:
    """Any text, of which every fifth paragraph is held out; 16 rows of 64 tokens a batch.

    Args:
        text: paragraphs with blank lines between them; one that occurs twice counts once.
        vocab_size: of the tokenizer, which is learned from the training part; 256 for bytes.

    Raises:
        ValueError: too little text for a row on each side.

    Example:
        >>> from minillm.data.corpus import reader
        >>> task = real_text(reader("en"), vocab_size=256)
        >>> task.batch_at(0, 1).tokens.shape
        torch.Size([16, 64])
    """
    paragraphs = list(dict.fromkeys(text.split("\n\n")))
    parts = [
        "\n\n".join(p for n, p in enumerate(paragraphs) if (n % 5 == 4) == late)
        for late in (False, True)
    ]
    tokenizer = learn(parts[0], vocab_size)
    learned, unseen = (
        Packed([tokenizer.encode(part)], end_id=vocab_size, context_length=64, batch_size=16)
        for part in parts
    )
    numbers = range(unseen.n_places)
    return Task(
        model=lambda seed: _small(vocab_size + 1, seed),
        batch_at=lambda step, seed: learned.batch_at(step + 10_000 * seed),  # of a later epoch
        loss=language_loss,
        held_out=[
            unseen.rows(numbers[first : first + EVALUATED_ROWS])
            for first in range(0, unseen.n_places, EVALUATED_ROWS)
        ],
    )


def _small(vocab_size: int, seed: int) -> Transformer:
    config = replace(tiny(vocab_size), context_length=64, tied_embeddings=True)
    return replace(config, initial_std=0.1).build(seed=seed)


def attempt(
    task: Task,
    make_optimizer: Callable[[Transformer], torch.optim.Optimizer],
    *,
    n_steps: int = 200,
    seed: int = 0,
    label: str = "training",
) -> Attempt:
    """Train once, with a short warm-up and then half a cosine down to 0.

    Args:
        task: what is learned.
        make_optimizer: for the model, with the highest learning rate of the run.
        n_steps: of the run.
        seed: of first weights and batches.
        label: of the bar.
    """
    model = task.model(seed)
    optimizer = make_optimizer(model)
    warmup_steps = min(MOST_WARMUP_STEPS, n_steps // 2)
    schedule = Cosine(n_steps=n_steps, warmup_steps=warmup_steps, final=0.0)
    config = LoopConfig(n_steps=n_steps, schedule=schedule)
    run = train(
        TrainState(model, optimizer), task.loss, lambda step: task.batch_at(step, seed), config
    )
    curve = []
    try:
        for metrics in track(run, label, total=n_steps):
            curve.append(metrics.loss)
        loss = task.held_out_loss(model)
    except ValueError:  # the loop gives up on a run whose loss is no number any more
        loss = math.inf
    loss = loss if math.isfinite(loss) else math.inf  # NaN would be no worse than any
    above = 100 * (loss / task.floor - 1) if task.floor else math.inf
    return Attempt(loss, above, curve, state_bytes(optimizer) / weight_bytes(model))


def state_bytes(optimizer: torch.optim.Optimizer) -> int:
    """Bytes of all tensors that an optimizer keeps between two steps.

    Example:
        >>> weight = nn.Parameter(torch.zeros(10))
        >>> optimizer = torch.optim.SGD([weight], lr=0.1, momentum=0.9)
        >>> weight.grad = torch.ones(10)
        >>> optimizer.step()
        >>> state_bytes(optimizer)  # the momentum: 10 numbers of 4 bytes
        40
    """
    kept = (value for state in optimizer.state.values() for value in state.values())
    return sum(value.nbytes for value in kept if isinstance(value, torch.Tensor))


def weight_bytes(model: nn.Module) -> int:
    """Bytes of all parameters, one that is used twice counted once.

    Example:
        >>> weight_bytes(nn.Linear(10, 2))
        88
    """
    return sum(parameter.nbytes for parameter in model.parameters())
