"""`minillm bench shares`: what each change between nanoGPT's recipe and ours is worth.

`minillm bench train` says that ours is better. It does not say why: the two recipes differ in a
dozen numbers and parts. Here they are changed in groups, and each side of a comparison gets the
same search of one learning rate: four of them, and further ones, a factor of 2 apart, for as long
as the best is the smallest or the largest that was tried. Muon has a second rate, of what it leaves
to AdamW, which is not searched but fixed at 0.01.

                              AdamW                         Muon
    nanoGPT as published      its rate of 0.001             -
    the same, rate tuned      searched                      -
    our shape and schedule    searched                      searched
    and our blocks            searched                      searched

*Shape and schedule*: rows of 128 letters in place of 64, 16 rows in place of 12, width 96 in place
of 128, 800 steps in place of 2,000 (so 1.64 and 1.54 million letters are read), no warm-up, and
a rate that falls in a straight line over the last 560 steps. *Blocks*: RoPE, RMSNorm, SwiGLU,
QK-norm, a head of its own, first weights of 0.08, residual projections of zero; and each row of the
text once an epoch, where nanoGPT draws rows from anywhere. Weight decay is 0.1
for AdamW and 0 for Muon everywhere.

The search has seed 0. The best rate of each is run again with two more seeds. All are evaluated in
rows of 64 letters, and those that learned from 128 also in rows of 128. After a
stop the same command goes on.

Chapter: app
"""

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any, final

import torch
from torch import nn

from minillm.bench._run import Finished
from minillm.bench.train import Runner, chosen, of_nanogpt, of_recipe
from minillm.optim.muon import Muon
from minillm.recipes import nanogpt
from minillm.recipes.recipe import Recipe

ADAMW_RATES = (2e-3, 4e-3, 8e-3, 1.6e-2)
MUON_RATES = (1e-2, 2e-2, 4e-2, 8e-2)
OTHERS_RATE = 1e-2  # AdamW's, for what Muon does not take
SEEDS = (0, 1, 2)  # the first is the search's


@final
@dataclass(frozen=True, kw_only=True)
class Side:
    """One side of the comparison.

    Args:
        name: as the record has it.
        rates: that are tried first; one alone is not searched.
        build: (rate, seed) to a run that has not begun.
    """

    name: str
    rates: tuple[float, ...]
    build: Callable[[float, int], Runner]


def sides(ours: Recipe, theirs: nanogpt.Recipe) -> list[Side]:
    """All six, in the order of the table."""
    letters = {part: ours.data.documents(part)[0] for part in ("train", "held out")}
    how = ours.training
    shaped = replace(
        theirs,
        context_length=ours.model.context_length,
        d_model=ours.model.d_model,
        batch_size=how.batch_size,
        n_steps=how.n_steps,
    )

    def published(rate: float, seed: int) -> Runner:
        share = theirs.final_rate / theirs.learning_rate
        tuned = replace(theirs, learning_rate=rate, final_rate=rate * share)
        return of_nanogpt(letters, tuned, seed)

    def their_blocks(make: Callable, rate: float, seed: int) -> Runner:
        return of_nanogpt(
            letters, shaped, seed, make_optimizer=partial(make, rate), schedule=how.schedule()
        )

    def our_blocks(optimizer: str, rate: float, seed: int) -> Runner:
        changed = replace(how, optimizer=optimizer)
        if optimizer == "adamw":
            changed = replace(changed, learning_rate=rate, weight_decay=theirs.weight_decay)
        else:
            changed = replace(changed, learning_rate=OTHERS_RATE, matrix_rate=rate)
        return of_recipe(replace(ours, seed=seed, training=changed))

    def adamw(rate: float, model: nn.Module) -> torch.optim.Optimizer:
        return nanogpt.optimizer(model, replace(shaped, learning_rate=rate))

    return [
        Side(name="nanoGPT as published", rates=(theirs.learning_rate,), build=published),
        Side(name="nanoGPT, rate tuned", rates=ADAMW_RATES, build=published),
        Side(name="our shape, AdamW", rates=ADAMW_RATES, build=partial(their_blocks, adamw)),
        Side(name="our shape, Muon", rates=MUON_RATES, build=partial(their_blocks, muon)),
        Side(name="our blocks, AdamW", rates=ADAMW_RATES, build=partial(our_blocks, "adamw")),
        Side(name="our blocks, Muon", rates=MUON_RATES, build=partial(our_blocks, "muon")),
    ]


def muon(rate: float, model: nn.Module) -> Muon:
    """Muon for the matrices of nanoGPT's blocks, AdamW for its tables and gains."""
    linear = [module for module in model.blocks.modules() if isinstance(module, nn.Linear)]
    hidden = {id(module.weight) for module in linear}
    return Muon(
        [module.weight for module in linear],
        [p for p in model.parameters() if id(p) not in hidden],
        lr=rate,
        others_lr=OTHERS_RATE,
    )


def run(
    quick: bool = False, text: str | Path | None = None, finished: Finished | None = None
) -> dict[str, Any]:
    """Run both sides of everything, and return the table.

    Args:
        quick: few steps and one rate each, to see that it works; its figures mean nothing.
        text: a file; None for tiny Shakespeare, which is downloaded once.
        finished: runs that are not to be repeated.

    Returns:
        For each side "rate", the best with seed 0, and its "runs": {"rate", "seed", "loss" (nats a
        letter in rows of 64), "own" (in rows as it was trained on), "s", "n_parameters"}.
    """
    finished = finished or Finished()
    ours, theirs = chosen(quick, text, 0)
    figures = {}
    for side in sides(ours, theirs):

        def measured(rate: float, seed: int, side: Side = side) -> dict[str, float]:
            name = f"{side.name}, rate {rate}, seed {seed}"
            return finished(name, lambda: _run(side, rate, seed, theirs.context_length))

        rates = list(side.rates[: 1 if quick else None])
        runs = [measured(rate, SEEDS[0]) for rate in rates]
        best = min(runs, key=lambda each: each["loss"])["rate"]
        while len(rates) > 1 and best in (min(rates), max(rates)):  # a better may lie beyond
            rates.append(best / 2 if best == min(rates) else best * 2)
            runs.append(measured(rates[-1], SEEDS[0]))
            best = min(runs, key=lambda each: each["loss"])["rate"]
        runs += [measured(best, seed) for seed in SEEDS[1 : 1 if quick else None]]
        figures[side.name] = {"rate": best, "runs": runs}
    return figures


def _run(side: Side, rate: float, seed: int, context_length: int) -> dict[str, float]:
    runner = side.build(rate, seed)
    runner.turn(runner.n_steps)
    figures = {
        "rate": rate,
        "seed": seed,
        "loss": runner.evaluate(context_length),
        "own": runner.curve[-1][1],
        "s": runner.seconds,
        "n_parameters": runner.n_parameters,
    }
    print(
        f"{side.name:<22} rate {rate:<6g} seed {seed}  {figures['loss']:.4f} nats a letter, "
        f"{figures['own']:.4f} in its own rows, {figures['s']:.0f} s",
        flush=True,
    )
    return figures
