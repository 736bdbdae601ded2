"""A solver (解题模型): a small transformer that learns to write a solution after a question.

    read      C A B E D 1-3 2-4 ? 1-3 B A C E D 2-4 B E C A D = B E C A D
    loss      · · · · ·  ·   ·  ✓  ✓  ✓ ✓ ✓ ✓ ✓  ✓  ✓ ✓ ✓ ✓ ✓ ✓ ✓ ✓ ✓ ✓

A mark ✓ stands where the prediction of the next word counts. A row is a tuple of texts in turns:
the first is only read, the second learned, the third only read, and so on. Most rows have two. In
chapter 28 a calculator writes the third, "1 2 ;":

    read      3 times 4 ? [ 3 * 4 ] 1 2 ; 1 2
    loss      · ·     · ✓ ✓ ✓ ✓ ✓ · · · ✓ ✓ ✓

Nothing of it knows of cups or of steps. Whether a model *thinks in steps* (思维链, chain of
thought) is decided by the texts it learns from: the same model learns from questions with bare
answers, and from questions with steps.

**Equal tokens.** A solution with steps is longer than a bare answer. Trained for equally many
steps of the optimizer, the model with the longer texts would see more. So a run is as long as its
tokens: `n_tokens`, of which each step reads `batch_size` rows.

Paper: Nye et al. 2021, "Show Your Work", arXiv:2112.00114; Wei et al. 2022, arXiv:2201.11903. From
memory.
Differs: theirs are large models that are fine-tuned or prompted; here one is trained from the
beginning for one task.

Chapter: 24
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol, final

import numpy as np
import torch

from minillm.data.packing import Batch
from minillm.model.config import TransformerConfig
from minillm.model.transformer import Transformer
from minillm.optim.groups import hidden_matrices_and_others
from minillm.optim.muon import Muon
from minillm.serve.sample import SampleConfig, generate
from minillm.town import cups
from minillm.train.losses import language_loss
from minillm.train.plain import fit

GREEDY = SampleConfig(temperature=0)
AT_ONCE = 512  # rows that are answered together
#: A question, and what is to be written after it; then what is read, what is to be written, …
Pair = tuple[str, ...]


class Words(Protocol):
    """Words to token ids and back; `minillm.town.cups` is one."""

    VOCABULARY: tuple[str, ...]

    def encode(self, text: str) -> list[int]:
        """Token ids of words."""

    def decode(self, ids: Sequence[int]) -> str:
        """Words of token ids."""


@final
@dataclass(frozen=True, kw_only=True)
class SolverConfig:
    """How large a solver is, and how it is trained.

    Args:
        d_model, n_layers: of the transformer.
        n_tokens: that are read in training, those of the questions too, padding not.
        batch_size: pairs a step.
        learning_rate: Muon's, for the matrices of the blocks, of the first step; it falls in a
            straight line to 0. The rest is AdamW's, at a fifth of it.
        seed: of the first weights.

    Raises:
        ValueError: fewer than one token or pair.
    """

    d_model: int = 64
    n_layers: int = 2
    n_tokens: int = 2_500_000
    batch_size: int = 64
    learning_rate: float = 0.02
    seed: int = 0

    def __post_init__(self) -> None:
        if self.n_tokens < 1 or self.batch_size < 1:
            raise ValueError(
                "n_tokens and batch_size must be at least 1; got "
                f"{self.n_tokens} and {self.batch_size}"
            )

    def build(self, context_length: int, words: Words = cups, *, n_more: int = 0) -> Transformer:
        """A model with its first weights.

        Args:
            context_length: T.
            words: the tokenizer.
            n_more: tokens behind those of the tokenizer.
        """
        return TransformerConfig(
            vocab_size=len(words.VOCABULARY) + n_more,
            context_length=context_length,
            d_model=self.d_model,
            n_layers=self.n_layers,
        ).build(seed=self.seed)


def batch_of(pairs: Sequence[Pair], words: Words = cups) -> Batch:
    """Texts in turns as rows, filled up on the right; every second text is learned.

    Args:
        pairs: B questions and what comes after them: read, learned, read, learned, ….
        words: their tokenizer; id 0 is padding.

    Raises:
        ValueError: no pair, an empty question, nothing after it.

    Example:
        >>> batch = batch_of([("A 1-2 ?", "B .")])
        >>> batch.tokens.tolist(), batch.targets.tolist(), batch.loss_mask.int().tolist()
        ([[5, 10, 1, 6]], [[10, 1, 6, 3]], [[0, 0, 1, 1]])
        >>> batch_of([("A ?", "B C", "D", "E .")]).loss_mask.int().tolist()
        [[0, 1, 1, 0, 1, 1]]
    """
    if not pairs or not all(len(pair) > 1 and pair[0].strip() for pair in pairs):
        raise ValueError("a batch needs at least one pair, and each pair a question")
    rows = [[words.encode(text) for text in pair] for pair in pairs]
    length = max(sum(map(len, turns)) for turns in rows) - 1
    tokens, targets = (np.zeros((len(rows), length), dtype=np.int64) for _ in range(2))
    loss_mask = np.zeros((len(rows), length), dtype=bool)
    for row, turns in enumerate(rows):
        ids = [token for turn in turns for token in turn]
        learned = [number % 2 == 1 for number, turn in enumerate(turns) for _ in turn]
        # each token but the last is read, each but the first is predicted
        tokens[row, : len(ids) - 1], targets[row, : len(ids) - 1] = ids[:-1], ids[1:]
        loss_mask[row, : len(ids) - 1] = learned[1:]
    # padding stands behind every token that counts, where a causal model cannot see it
    documents = torch.zeros(len(rows), length, dtype=torch.long)
    return Batch(*map(torch.from_numpy, (tokens, targets)), documents, torch.from_numpy(loss_mask))


def train(
    pairs_at: Callable[[int], Sequence[Pair]],
    config: SolverConfig | None = None,
    *,
    context_length: int = 160,
    words: Words = cups,
    watch: Callable[[Transformer], object] | None = None,
    label: str = "training",
) -> Transformer:
    """A solver that has learned from pairs of question and solution.

    Args:
        pairs_at: the pairs of a step, a pure function of the step; `pairs_of` makes one.
        config: None for the values of `SolverConfig`.
        context_length: of the model; a longer pair is refused.
        words: the tokenizer of the pairs.
        watch: is given the model before each step.
        label: what the bar says.

    Raises:
        ValueError: a pair that does not fit; what `batch_of` refuses.
    """
    config = SolverConfig() if config is None else config
    model = config.build(context_length, words)
    first = batch_of(pairs_at(0), words)
    if first.tokens.shape[1] > context_length:
        raise ValueError(
            f"pairs must have at most {context_length} tokens, the context_length; got "
            f"{first.tokens.shape[1]}"
        )
    n_steps = max(1, round(config.n_tokens / _n_read(pairs_at, words)))
    fit(
        model,
        language_loss,
        lambda step: batch_of(pairs_at(step), words),
        n_steps,
        config.learning_rate,
        make_optimizer=muon,
        watch=watch,
        seed=config.seed,
        label=label,
    )
    return model.eval()


def muon(model: Transformer, learning_rate: float) -> Muon:
    """Muon for the matrices of the blocks, and AdamW at a fifth of its rate for the rest."""
    matrices, others = hidden_matrices_and_others(model)
    rest = learning_rate / 5
    return Muon(
        matrices,
        others,
        lr=learning_rate,
        weight_decay=0.0,
        others_lr=rest,
        others_betas=(0.9, 0.95),
    )


def _n_read(pairs_at: Callable[[int], Sequence[Pair]], words: Words, n_steps: int = 8) -> float:
    """Tokens that a step reads, the mean of the first few."""
    pairs = [pair for step in range(n_steps) for pair in pairs_at(step)]
    return sum(len(words.encode(" ".join(pair))) for pair in pairs) / n_steps


def pairs_of(
    source: cups.CupSource, style: str, config: SolverConfig | None = None
) -> Callable[[int], list[Pair]]:
    """The pairs of each step: problems of a source, written in one format.

    Args:
        source: of the problems.
        style: one of `cups.FORMATS`.
        config: whose batch size and seed decide which problems a step has.
    """
    config = SolverConfig() if config is None else config

    def pairs_at(step: int) -> list[Pair]:
        first, last = step * config.batch_size, (step + 1) * config.batch_size
        problems = [
            problem
            for index in range(first // cups.BLOCK, -(-last // cups.BLOCK))
            for problem in source.block(index, f"training {config.seed}")
        ]
        offset = first - first // cups.BLOCK * cups.BLOCK
        some = problems[offset : offset + config.batch_size]
        return [(problem.question(style), problem.completion(style)) for problem in some]

    return pairs_at


def solve(
    model: Transformer,
    questions: Sequence[str],
    sampling: SampleConfig = GREEDY,
    *,
    n_samples: int = 1,
    n_tokens: int | None = None,
    words: Words = cups,
    seed: int = 0,
) -> list[list[str]]:
    """What a model writes after each question, up to the full stop: `n_samples` texts for each.

    Args:
        model: a solver.
        questions: a prompt may end in the beginning of a solution.
        sampling: how tokens are chosen; greedy, every sample of a question would be the same.
        n_samples: for each question.
        n_tokens: at most; None for what the context has room for.
        words: the tokenizer.
        seed: of the samples.

    Returns:
        For each question its texts; one that never came to a full stop has none at its end.

    Raises:
        ValueError: no question; several samples of greedy; what `generate` refuses.
    """
    if not questions or n_samples < 1:
        raise ValueError(f"there must be a question and n_samples of at least 1; got {n_samples}")
    if n_samples > 1 and sampling.temperature == 0:
        raise ValueError(
            "at temperature 0 all samples of a question are the same; give a temperature such as "
            f"0.8, or n_samples=1; got n_samples={n_samples}"
        )
    prompts = [words.encode(question) for question in questions for _ in range(n_samples)]
    longest = max(map(len, prompts))
    n_tokens = model.context_length - longest if n_tokens is None else n_tokens
    stop = words.encode(".")
    texts: list[str] = []
    for first in range(0, len(prompts), AT_ONCE):
        some = prompts[first : first + AT_ONCE]
        rows = generate(
            model, some, sampling, n_tokens=n_tokens, stop_ids=stop, seed=seed, first_row=first
        )
        texts += [words.decode([*row, *stop] if len(row) < n_tokens else row) for row in rows]
    return [texts[i : i + n_samples] for i in range(0, len(texts), n_samples)]


def accuracy(
    model: Transformer, problems: Sequence[cups.Problem], style: str, *, prompt: str = ""
) -> float:
    """The share of problems whose greedy answer is right, 0 to 1.

    Args:
        model: a solver.
        problems: that it was not trained on.
        style: how they are asked.
        prompt: words that stand after each question, such as `cups.TRIGGER`.
    """
    questions = [f"{problem.question(style)} {prompt}".strip() for problem in problems]
    # no more tokens than a right solution has: who needs more has no answer
    n_tokens = max(len(problem.completion(style).split()) for problem in problems)
    answers = [cups.read_answer(text) for (text,) in solve(model, questions, n_tokens=n_tokens)]
    pairs = zip(problems, answers, strict=True)
    return sum(answer == problem.answer for problem, answer in pairs) / len(problems)
