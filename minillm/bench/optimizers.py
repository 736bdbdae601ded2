"""`minillm bench optimizers`: five optimizers, each tuned with the same number of runs.

A comparison is fair if none of its sides was tuned more than the others. Here each optimizer gets
twelve runs: six learning rates, a factor of 2 apart, around what its paper advises, times two
settings of a second option. The best of the twelve is then run with three other seeds, on sentences
that none has seen.

All learn the town's grammar with the small GPT of chapter 04 (two blocks, width 64), 200 steps of
64 sentences, the rate falling along a cosine. Told is by how many percent the price of a held-out
sentence lies above what the grammar itself pays, and how many bytes the optimizer remembers for
each byte of the model.

Paper: Sivaprasad et al. 2020, "Optimizer Benchmarking Needs to Account for Hyperparameter Tuning",
arXiv:1910.11758; Schmidt et al. 2021, "Descending through a Crowded Valley", arXiv:2007.01547.

Chapter: app
"""

import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from itertools import product
from typing import Any, final

import numpy as np
import torch
from torch import Tensor

from minillm.lab.track import track
from minillm.model import transformer
from minillm.model.config import tiny
from minillm.model.transformer import Transformer
from minillm.optim.adafactor import Adafactor
from minillm.optim.adamw import AdamW
from minillm.optim.came import CAME
from minillm.optim.groups import groups, hidden_matrices_and_others, matrices_and_others
from minillm.optim.lion import Lion
from minillm.optim.muon import Muon
from minillm.optim.schedule import Cosine
from minillm.optim.step import Total
from minillm.text.bpe import train as learn
from minillm.town.grammar import town_grammar
from minillm.town.world import World
from minillm.train.loop import LoopConfig, TrainState, train

END, PAD = "<|endoftext|>", "<|pad|>"
N_STEPS, WARMUP_STEPS = 200, 10
SEEDS = (1, 2, 3)  # of the runs that are told; the search has seed 0
N_HELD_OUT = 8  # blocks


# --- what is searched ----------------------------------------------------------------------------
def around(middle: float) -> tuple[float, ...]:
    """Six rates, a factor of 2 apart.

    Example:
        >>> around(0.004)
        (0.001, 0.002, 0.004, 0.008, 0.016, 0.032)
    """
    return tuple(middle * 2.0**power for power in range(-2, 4))


@final
@dataclass(frozen=True, kw_only=True)
class Search:
    """Twelve runs of an optimizer.

    Args:
        build: (model, learning rate, second option) to optimizer.
        rates: six.
        option: the name of the second option.
        values: two of it.
    """

    build: Callable[[Transformer, float, Any], torch.optim.Optimizer]
    rates: tuple[float, ...]
    option: str
    values: tuple[Any, Any]


def decaying(model: Transformer, weight_decay: float) -> list[dict]:
    """Matrices decay, gains do not."""
    matrices, others = matrices_and_others(model)
    return groups(model, (matrices, {"weight_decay": weight_decay}), (others, {}))


def adamw(model: Transformer, rate: float, square_beta: float) -> AdamW:
    """With β₂ as its second option."""
    return AdamW(decaying(model, 0.1), lr=rate, betas=(0.9, square_beta), weight_decay=0.0)


def adafactor(model: Transformer, rate: float, clip: float) -> Adafactor:
    """With its clip as second option."""
    return Adafactor(decaying(model, 0.1), lr=rate, clip=clip)


def came(model: Transformer, rate: float, unstable_beta: float) -> CAME:
    """With β₃ as its second option: below a thousand steps 0.9999 is a trap."""
    return CAME(decaying(model, 0.1), lr=rate, betas=(0.9, 0.99, unstable_beta))


def lion(model: Transformer, rate: float, weight_decay: float) -> Lion:
    """With weight decay as its second option: its authors advise more of it."""
    return Lion(decaying(model, weight_decay), lr=rate, betas=(0.9, 0.99))


def muon(model: Transformer, rate: float, others_rate: float) -> Muon:
    """With AdamW's rate for whatever is no hidden matrix as its second option."""
    matrices, others = hidden_matrices_and_others(model)
    return Muon(matrices, others, lr=rate, weight_decay=0.1, others_lr=others_rate)


SEARCHES = {
    "AdamW": Search(build=adamw, rates=around(4e-3), option="beta 2", values=(0.95, 0.99)),
    "Adafactor": Search(build=adafactor, rates=around(4e-3), option="clip", values=(1.0, 2.0)),
    "CAME": Search(build=came, rates=around(2e-3), option="beta 3", values=(0.99, 0.999)),
    "Lion": Search(build=lion, rates=around(8e-4), option="weight decay", values=(0.1, 0.5)),
    "Muon": Search(build=muon, rates=around(2e-2), option="AdamW's rate", values=(4e-3, 1e-2)),
}


# --- what is learned ------------------------------------------------------------------------------
@final
class Race:
    """The town's grammar, a model, and the price it pays.

    Args:
        n_steps: of a run.
        n_held_out: blocks of 64 sentences.
    """

    def __init__(self, n_steps: int = N_STEPS, n_held_out: int = N_HELD_OUT):
        self.n_steps = n_steps
        self.grammar = town_grammar(World())
        reading = (s.text for i in range(150) for s in self.grammar.block(i, seed="tokenizer"))
        self.tokenizer = learn("\n".join(reading), 1024, special_tokens=[END, PAD])
        self.end, self.pad = (self.tokenizer.special_ids[name] for name in (END, PAD))
        held_out = [s for i in range(n_held_out) for s in self.grammar.block(i, seed="held out")]
        self.source_price = -float(np.mean([sentence.log_prob for sentence in held_out]))
        self.held_out = self.rows(held_out)

    def rows(self, sentences) -> Tensor:
        """A row a sentence, an end mark before and behind, filled up."""
        rows = [[self.end, *self.tokenizer.encode(s.text), self.end] for s in sentences]
        longest = max(map(len, rows))
        return torch.tensor([row + [self.pad] * (longest - len(row)) for row in rows])

    def batch_at(self, step: int, seed: int) -> Tensor:
        """64 sentences."""
        return self.rows(self.grammar.block(step, seed=f"train {seed}"))

    def model(self, seed: int) -> Transformer:
        """Chapter 04's, of 166,016 weights."""
        config = replace(tiny(self.tokenizer.vocab_size), context_length=64, tied_embeddings=True)
        return replace(config, initial_std=0.1).build(seed=seed)

    def loss(self, model: Transformer, tokens: Tensor) -> Total:
        """Of every token but padding."""
        return transformer.loss(model, tokens, ignore=self.pad)

    @torch.no_grad()
    def loss_above_entropy(self, model: Transformer) -> float:
        """Percent above what the grammar pays for the held-out sentences."""
        nll = self.loss(model, self.held_out).nats.item() / len(self.held_out)
        return 100 * (nll / self.source_price - 1)

    def run(self, search: Search, rate: float, value: Any, seed: int) -> dict[str, float]:
        """Train once; excess in percent, and bytes remembered for each byte of weights."""
        model = self.model(seed)
        optimizer = search.build(model, rate, value)
        warmup_steps = min(WARMUP_STEPS, self.n_steps // 2)  # fewer in a quick run
        schedule = Cosine(n_steps=self.n_steps, warmup_steps=warmup_steps, final=0.0)
        config = LoopConfig(n_steps=self.n_steps, schedule=schedule)
        try:
            for _ in train(
                TrainState(model, optimizer), self.loss, lambda n: self.batch_at(n, seed), config
            ):
                pass
            loss_above_entropy = self.loss_above_entropy(model)
        except ValueError:  # the loop gives up on a run whose loss is no number any more
            loss_above_entropy = math.inf
        loss_above_entropy = (
            loss_above_entropy if math.isfinite(loss_above_entropy) else math.inf
        )  # NaN would be no worse than any
        return {
            "loss_above_entropy": loss_above_entropy,
            "state": state_bytes(optimizer) / weight_bytes(model),
        }


def state_bytes(optimizer: torch.optim.Optimizer) -> int:
    """Bytes of all tensors that an optimizer remembers.

    Example:
        >>> weight = torch.nn.Parameter(torch.zeros(10))
        >>> optimizer = AdamW([weight])
        >>> weight.grad = torch.ones(10)
        >>> optimizer.step()
        >>> state_bytes(optimizer)
        80
    """
    memories = (value for memory in optimizer.state.values() for value in memory.values())
    return sum(value.nbytes for value in memories if isinstance(value, Tensor))


def weight_bytes(model: torch.nn.Module) -> int:
    """Bytes of all parameters."""
    return sum(parameter.nbytes for parameter in model.parameters())


# --- the benchmark --------------------------------------------------------------------------------
def run(quick: bool = False) -> dict[str, Any]:
    """Search, run the best again with other seeds, print the table.

    Args:
        quick: two steps and two runs each, to see that it works; its figures mean nothing.

    Returns:
        For each optimizer: "runs", the search, a list of [rate, value, excess]; "rate", "value" and
        "option", the best; "excess" of three other seeds, in percent; "state", bytes by byte of
        the model.
    """
    race = Race(n_steps=2, n_held_out=1) if quick else Race()
    print(
        f"{race.n_steps} steps, the grammar pays {race.source_price:.2f} nats a sentence; "
        f"torch {torch.__version__}, threads: {torch.get_num_threads()}"
    )
    print(f"{'':<10} {'state':>6} {'rate':>8} {'second option':<20} above the grammar, 3 seeds")
    figures = {}
    for name, search in SEARCHES.items():
        trials = list(product(search.rates, search.values))[: 2 if quick else None]
        runs = [
            [rate, value, race.run(search, rate, value, seed=0)["loss_above_entropy"]]
            for rate, value in track(trials, name)
        ]
        rate, value, _ = min(runs, key=lambda trial: trial[2])
        again = [race.run(search, rate, value, seed) for seed in SEEDS[: 1 if quick else None]]
        figures[name] = {
            "runs": runs,
            "rate": rate,
            "option": search.option,
            "value": value,
            "loss_above_entropy": [trial["loss_above_entropy"] for trial in again],
            "state": again[0]["state"],
        }
        excesses = ", ".join(f"{trial['loss_above_entropy']:.2f} %" for trial in again)
        print(
            f"{name:<10} {again[0]['state']:>6.3f} {rate:>8.2g} "
            f"{search.option + ' ' + str(value):<20} {excesses}"
        )
    return figures
