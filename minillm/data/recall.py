"""Recall (回忆): three tasks that ask a mixer what it has kept of what it read.

Whoever moves into the town is told who lives where, once, and is asked later. Attention looks it up
in the text itself. A mixer with a state of fixed size must have kept it in there:

    Pairs           Mei 12, Bao 7, Su 3; Su? Mei? Bao?     keep all of them, and find one by its key
    SelectiveCopy   · · c · a · · b say say say            keep what matters, pass over the rest
    Needle          · · · [fact a] · · · · · ask           keep one thing over a distance

All is numbers here: ids of tokens drawn alike, so there is no language to learn and nothing but the
row itself says the answer. The right answer is always there, so accuracy 1 and loss 0 can be
reached; `chance` is what guessing reaches, and `n_bits` how much a state must hold for them all.

A model reads `tokens`; after some of them (`loss_mask`) it is asked for the next one (`targets`),
which
is not shown to it: a row asks all its questions in one pass, and no answer helps with another.

Paper: Arora et al. 2023, "Zoology", arXiv:2312.04927, section 3 (multi-query associative recall,
MQAR, our `Pairs`); Gu and Dao 2023, "Mamba", arXiv:2312.00752, section 4.1.1 (selective copying,
after Jing et al. 2019, "Gated Orthogonal Recurrent Units"); Mohtashami and Jaggi 2023, "Landmark
Attention", arXiv:2305.16300 (a fact in noise, theirs a pass key).
Differs: the questions of `Pairs` follow one another, where those of Zoology stand among padding, at
distances drawn from a power law; and two keys may have the same value. In `SelectiveCopy` a blank
has an id of its own, and so has "say"; sizes are ours. `Needle` is numbers in place of sentences.

Chapter: 09
"""

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol, final

import numpy as np
import torch
from jaxtyping import Bool, Int
from torch import Tensor, nn

from minillm.model.transformer import Transformer
from minillm.optim.step import Total
from minillm.town.chance import BLOCK_ROWS, generator

IGNORE_INDEX = -100  # what torch's cross_entropy passes over, too

# --- what is asked ------------------------------------------------------------------------------


@final
@dataclass(frozen=True, eq=False)
class Questions:
    """Rows to read, what is asked about them, and the facts behind it; all int64.

    Args:
        tokens: what the model reads.
        targets: the token that is wanted after each place, -100 where nothing is asked.
        facts: of each row what there is to keep, in the order of the row. Pairs: key and value;
            SelectiveCopy: place and symbol; Needle: the value's place, and the value.

    Raises:
        ValueError: tokens and targets of different shapes, or nothing is asked.
    """

    tokens: Int[Tensor, "B T"]
    targets: Int[Tensor, "B T"]
    facts: Int[Tensor, "B N 2"]

    def __post_init__(self):
        if self.tokens.shape != self.targets.shape or not bool(self.loss_mask.any()):
            raise ValueError(
                "each token needs a target or -100, and at least one must be asked; got tokens "
                f"{list(self.tokens.shape)} and targets {list(self.targets.shape)}, of which "
                f"{int(self.loss_mask.sum())} are asked"
            )

    @property
    def loss_mask(self) -> Bool[Tensor, "B T"]:
        """After which tokens something is asked."""
        return self.targets != IGNORE_INDEX


class Source(Protocol):
    """What questions come from: the same index and seed, the same 64 rows."""

    def block(self, index: int, seed: int | str = 0) -> Questions:
        """64 rows of (the source's numbers, seed, index) alone."""


def batch_at(source: Source, batch_size: int, seed: int | str = 0) -> Callable[[int], Questions]:
    """`batch_at` for `minillm.train.plain.fit`: each step has the next batch_size rows.

    Rows are counted through all blocks: step 0 has the rows 0 to batch_size - 1, and so on. So no
    row comes twice, and the questions of another seed are for judging.

    Args:
        source: where the rows come from.
        batch_size: B; the 64 rows of a block are drawn at once, so 64 or a multiple is cheapest.
        seed: of the blocks.

    Raises:
        ValueError: batch_size below 1.

    Example:
        >>> questions_at = batch_at(Pairs(n_pairs=4), batch_size=32)
        >>> first, second = questions_at(0), questions_at(1)  # the two halves of block 0
        >>> both = torch.cat((first.tokens, second.tokens))
        >>> torch.equal(both, Pairs(n_pairs=4).block(0).tokens)
        True
    """
    if batch_size < 1:
        raise ValueError(f"a batch needs batch_size of at least 1; got {batch_size}")

    def questions_at(step: int) -> Questions:
        first, end = step * batch_size, (step + 1) * batch_size
        numbers = range(first // BLOCK_ROWS, (end - 1) // BLOCK_ROWS + 1)
        blocks = [source.block(number, seed) for number in numbers]
        skipped = first % BLOCK_ROWS
        rows = slice(skipped, skipped + batch_size)
        return Questions(
            torch.cat([block.tokens for block in blocks])[rows],
            torch.cat([block.targets for block in blocks])[rows],
            torch.cat([block.facts for block in blocks])[rows],
        )

    return questions_at


# --- the three sources --------------------------------------------------------------------------


@final
@dataclass(frozen=True, kw_only=True)
class Pairs:
    """Who lives where: keys with their values, then keys alone, in any order.

        k1 v1 k2 v2 … kp vp  k2 kp k1 …        after each of the last, its value is wanted

    The keys of a row are different ones, and each question asks for another of them. Who knows
    which values the row has, but not whose they are, is right about once in n_pairs.

    Args:
        n_pairs: p, how many are told.
        n_keys: ids 0 to n_keys - 1.
        n_values: ids n_keys to n_keys + n_values - 1.
        n_questions: how many are asked; None for all p.

    Raises:
        ValueError: a number below 1, more pairs than keys, or more questions than pairs.

    Example:
        >>> source = Pairs(n_pairs=3, n_keys=10, n_values=10)
        >>> questions = source.block(0)
        >>> questions.tokens[0].tolist(), questions.targets[0, 6:].tolist()
        ([4, 13, 8, 13, 6, 19, 6, 4, 8], [19, 13, 13])
        >>> questions.facts[0].tolist()
        [[4, 13], [8, 13], [6, 19]]
    """

    n_pairs: int
    n_keys: int = 64
    n_values: int = 64
    n_questions: int | None = None

    def __post_init__(self):
        _refuse_below_one(
            n_pairs=self.n_pairs,
            n_keys=self.n_keys,
            n_values=self.n_values,
            n_questions=self._n_asked,
        )
        if self.n_pairs > self.n_keys:
            raise ValueError(
                "each pair of a row has a key of its own, so n_pairs can be at most n_keys; got "
                f"{self.n_pairs} pairs and {self.n_keys} keys"
            )
        if self._n_asked > self.n_pairs:
            raise ValueError(
                "each question asks for another pair, so n_questions can be at most n_pairs; got "
                f"{self.n_questions} questions and {self.n_pairs} pairs"
            )

    @property
    def vocab_size(self) -> int:
        """V: keys and values."""
        return self.n_keys + self.n_values

    @property
    def context_length(self) -> int:
        """T, tokens a row."""
        return 2 * self.n_pairs + self._n_asked

    @property
    def chance(self) -> float:
        """Accuracy of guessing among all values."""
        return 1 / self.n_values

    @property
    def n_bits(self) -> float:
        """What a state must hold at the least: a value for each key, were the keys known."""
        return self.n_pairs * math.log2(self.n_values)

    def block(self, index: int, seed: int | str = 0) -> Questions:
        """64 rows of (the source's numbers, seed, index) alone.

        Raises:
            ValueError: a negative index.
        """
        numbers = (self.n_pairs, self.n_keys, self.n_values, self._n_asked)
        rng = _rng("pairs", numbers, seed, index)
        keys = _some_of(rng, self.n_keys, self.n_pairs)
        values = self.n_keys + rng.integers(self.n_values, size=keys.shape)
        queried = _some_of(rng, self.n_pairs, self._n_asked)
        pairs = np.stack((keys, values), axis=2)
        tokens = np.concatenate(
            (pairs.reshape(BLOCK_ROWS, -1), np.take_along_axis(keys, queried, axis=1)), axis=1
        )
        targets = np.full_like(tokens, IGNORE_INDEX)
        targets[:, 2 * self.n_pairs :] = np.take_along_axis(values, queried, axis=1)
        return _questions(tokens, targets, pairs)

    @property
    def _n_asked(self) -> int:
        return self.n_pairs if self.n_questions is None else self.n_questions


@final
@dataclass(frozen=True, kw_only=True)
class SelectiveCopy:
    """A few symbols among blanks, then the order to say them again.

        · · c · a · · · b ·  say say say        after each "say", the next symbol: c, a, b

    The places differ from row to row. A mixer that treats all tokens alike keeps the blanks as
    well; one that selects can spend its state on the symbols alone.

    Args:
        n_tokens: how many tokens are read before the first "say", blanks and symbols together.
        n_copied: how many of them are symbols; as many times "say" follows.
        n_symbols: ids 0 to n_symbols - 1. A blank is n_symbols, "say" n_symbols + 1.

    Raises:
        ValueError: a number below 1, or more symbols to copy than places.

    Example:
        >>> questions = SelectiveCopy(n_tokens=6, n_copied=2, n_symbols=9).block(0)
        >>> questions.tokens[0].tolist(), questions.targets[0, 6:].tolist()
        ([9, 9, 4, 0, 9, 9, 10, 10], [4, 0])
        >>> questions.facts[0].tolist()
        [[2, 4], [3, 0]]
    """

    n_tokens: int
    n_copied: int = 8
    n_symbols: int = 16

    def __post_init__(self):
        _refuse_below_one(n_tokens=self.n_tokens, n_copied=self.n_copied, n_symbols=self.n_symbols)
        if self.n_copied > self.n_tokens:
            raise ValueError(
                "each symbol needs a position, so n_copied can be at most n_tokens; got "
                f"{self.n_copied} symbols and {self.n_tokens} positions"
            )

    @property
    def vocab_size(self) -> int:
        """V: symbols, blank and "say"."""
        return self.n_symbols + 2

    @property
    def context_length(self) -> int:
        """T, tokens a row."""
        return self.n_tokens + self.n_copied

    @property
    def chance(self) -> float:
        """Accuracy of guessing among all symbols."""
        return 1 / self.n_symbols

    @property
    def n_bits(self) -> float:
        """What a state must hold: the symbols in their order."""
        return self.n_copied * math.log2(self.n_symbols)

    def block(self, index: int, seed: int | str = 0) -> Questions:
        """64 rows of (the source's numbers, seed, index) alone.

        Raises:
            ValueError: a negative index.
        """
        rng = _rng("copy", (self.n_tokens, self.n_copied, self.n_symbols), seed, index)
        blank, say = self.n_symbols, self.n_symbols + 1
        positions = np.sort(_some_of(rng, self.n_tokens, self.n_copied), axis=1)
        symbols = rng.integers(self.n_symbols, size=positions.shape)
        tokens = np.full((BLOCK_ROWS, self.context_length), blank)
        tokens[:, self.n_tokens :] = say
        np.put_along_axis(tokens, positions, symbols, axis=1)
        targets = np.full_like(tokens, IGNORE_INDEX)
        targets[:, self.n_tokens :] = symbols
        return _questions(tokens, targets, np.stack((positions, symbols), axis=2))


@final
@dataclass(frozen=True, kw_only=True)
class Needle:
    """One marked fact, much noise, and the question what it was.

        · · · [fact a] · · · · · ask        a stands `distance` tokens before "ask"

    Args:
        distance: from the value to the question; 1 where it stands directly before.
        n_values: ids 0 to n_values - 1. "Fact" is n_values + n_noise, "ask" one more.
        n_noise: noise is drawn from so many ids, which follow those of the values. 0 draws it
            from the values themselves: then only the mark tells the fact from the noise, and a
            mixer must find what stands behind it.
        n_before: tokens of noise before the fact; for rows of T tokens at every distance, take
            T - distance - 2.

    Raises:
        ValueError: distance or n_values below 1, or a negative number of noise.

    Example:
        >>> questions = Needle(distance=3, n_values=10, n_noise=10, n_before=2).block(0)
        >>> questions.tokens[0].tolist(), questions.targets[0, -1].item()
        ([10, 19, 20, 9, 18, 14, 21], 9)
        >>> questions.facts[0].tolist()
        [[3, 9]]
    """

    distance: int
    n_values: int = 16
    n_noise: int = 16
    n_before: int = 8

    def __post_init__(self):
        _refuse_below_one(distance=self.distance, n_values=self.n_values)
        if min(self.n_noise, self.n_before) < 0:
            raise ValueError(
                f"n_noise and n_before must be at least 0; got {self.n_noise} and {self.n_before}"
            )

    @property
    def vocab_size(self) -> int:
        """V: values, padding, "fact" and "ask"."""
        return self.n_values + self.n_noise + 2

    @property
    def context_length(self) -> int:
        """T, tokens a row."""
        return self.n_before + self.distance + 2

    @property
    def chance(self) -> float:
        """Accuracy of guessing among all values."""
        return 1 / self.n_values

    @property
    def n_bits(self) -> float:
        """What a state must hold: one value."""
        return math.log2(self.n_values)

    def block(self, index: int, seed: int | str = 0) -> Questions:
        """64 rows of (the source's numbers, seed, index) alone.

        Raises:
            ValueError: a negative index.
        """
        numbers = (self.distance, self.n_values, self.n_noise, self.n_before)
        rng = _rng("needle", numbers, seed, index)
        fact = self.n_values + self.n_noise
        first, end = (self.n_values, fact) if self.n_noise else (0, self.n_values)
        tokens = rng.integers(first, end, size=(BLOCK_ROWS, self.context_length))
        values = rng.integers(self.n_values, size=BLOCK_ROWS)
        place = self.n_before + 1
        tokens[:, place - 1] = fact
        tokens[:, place] = values
        tokens[:, -1] = fact + 1
        targets = np.full_like(tokens, IGNORE_INDEX)
        targets[:, -1] = values
        facts = np.stack((np.full(BLOCK_ROWS, place), values), axis=1)
        return _questions(tokens, targets, facts[:, None])


# --- how well a model does ----------------------------------------------------------------------


def recall_loss(model: Transformer, questions: Questions) -> Total:
    """Sum of -log p(target) over all that is asked, in nats: what `fit` makes small.

    Only the places that are asked are given logits; all that stands before them costs no head.

    Args:
        model: reads the tokens.
        questions: on the model's device.

    Example:
        >>> from minillm.model.config import tiny
        >>> source = Pairs(n_pairs=4)
        >>> model = tiny(source.vocab_size).build(seed=0)  # knows nothing yet: log 128 = 4.85
        >>> round(recall_loss(model, source.block(0)).mean.item(), 1)
        4.9
    """
    logits, targets = _answers(model, questions)
    upcast = logits.to(torch.promote_types(logits.dtype, torch.float32))
    return Total(nn.functional.cross_entropy(upcast, targets, reduction="sum"), targets.numel())


@torch.no_grad()
def accuracy(model: Transformer, questions: Questions) -> float:
    """The share of all that is asked in which the target is the likeliest token.

    Args:
        model: reads the tokens; whether it is in train or eval mode is the caller's say.
        questions: on the model's device.

    Raises:
        ValueError: logits that are NaN, of which none is the largest.
    """
    logits, targets = _answers(model, questions)
    if logits.isnan().any():
        raise ValueError(
            "some logits of the model are NaN, so it gives no answer; look at its weights, or "
            "train it with a smaller learning rate"
        )
    return (logits.argmax(dim=-1) == targets).float().mean().item()


def _answers(model: Transformer, questions: Questions) -> tuple[Tensor, Tensor]:
    """Logits [N, V] and targets [N] of the N positions that are asked."""
    loss_mask = questions.loss_mask
    hidden = model.hidden(questions.tokens)[loss_mask]
    return model.logits(hidden[None])[0], questions.targets[loss_mask]


# --- how they are drawn -------------------------------------------------------------------------


def _rng(name: str, numbers: tuple[int, ...], seed: int | str, index: int) -> np.random.Generator:
    """A generator that belongs to (the source's numbers, seed, index)."""
    if index < 0:
        raise ValueError(f"index must be at least 0, the number of a block; got {index}")
    return generator(f"recall/{name}", *numbers, seed, index)


def _some_of(rng: np.random.Generator, n: int, n_drawn: int) -> np.ndarray:
    """In each row, n_drawn different ones of 0 … n - 1, in random order: [64, n_drawn].

    Each number is given a random weight; the lightest are drawn. All rows are sorted at once.
    """
    return rng.random((BLOCK_ROWS, n)).argsort(axis=1)[:, :n_drawn]


def _questions(tokens: np.ndarray, targets: np.ndarray, facts: np.ndarray) -> Questions:
    return Questions(*(torch.from_numpy(array) for array in (tokens, targets, facts)))


def _refuse_below_one(**numbers: int) -> None:
    for name, number in numbers.items():
        if number < 1:
            raise ValueError(f"{name} must be at least 1; got {number}")
