"""`minillm bench overtrain`: does a model that was trained longer lose more when it is rounded?

One shape, of 133,000 parameters, learns English stories and facts of the town for 1, 4 and 16 times
as many tokens. Each length is a run of its own: the same rate, warmed up over its first tenth and
falling to its end along a cosine. Three seeds, of first weights, of the tokenizer and of the order
of the rows. Then the matrices of the blocks are rounded to nearest, on symmetric grids with a scale
a row; the table of tokens is kept. Told is how many nats a token the held-out loss rises.

    steps      200      800     3200      of 1,024 tokens
    tokens     1.5        6       25      for each parameter

The longest run reads its rows several times over; so "longer" is not only more text, though a model
so small hardly learns them by heart.

Paper: Kumar et al. 2024, "Scaling Laws for Precision", arXiv:2411.04330: the loss that rounding
costs grows with the tokens of pre-training, as a power of them, and falls with the number of
parameters; in the end more tokens make the rounded model worse. Catalan-Tatjer, Ajroldi and Geiping
2025, arXiv:2510.06213, put it down to the falling learning rate rather than to the tokens.
Differs: models of 30 M to 1.7 B parameters, up to 26 B tokens and GPTQ there.

Chapter: app
"""

from dataclasses import replace
from statistics import fmean
from typing import Any

import torch

from minillm.bench._run import Finished
from minillm.data.packing import Packed
from minillm.lab.track import track
from minillm.quant import outliers
from minillm.quant.apply import quantize
from minillm.quant.plan import plan
from minillm.quant.rtn import Grid
from minillm.recipes import run as parts
from minillm.recipes.data import TownData
from minillm.recipes.quantizing import loss
from minillm.recipes.recipe import ModelShape, Recipe, Training
from minillm.train.loop import train
from minillm.train.losses import language_loss

N_STEPS = 200  # of the shortest run
TIMES = (1, 4, 16)
BITS = (8, 4, 3, 2)
SEEDS = (0, 1, 2)
RECIPE = Recipe(
    name="overtrain",
    data=TownData(languages=("en",), story_blocks=60, fact_blocks=60, held_out_blocks=2),
    model=ModelShape(vocab_size=512, context_length=64, d_model=64, n_layers=2, n_heads=2),
    training=Training(batch_size=16, learning_rate=4e-3),
)
QUICK_DATA = replace(RECIPE.data, story_blocks=4, fact_blocks=2, held_out_blocks=1)


def run(*, quick: bool = False, finished: Finished | None = None) -> dict[str, Any]:
    """Train, round, and print the table.

    Args:
        quick: runs of 4 steps, one seed, little text; its figures mean nothing.
        finished: runs that are not to be repeated.

    Returns:
        "runs", each with its seed, its steps, its loss in float and by bits, and how far its
        weights reach; "rise", by bits and by length, a number of nats for each seed.
    """
    finished = Finished() if finished is None else finished
    recipe = replace(RECIPE, data=QUICK_DATA) if quick else RECIPE
    shortest, seeds = (4, SEEDS[:1]) if quick else (N_STEPS, SEEDS)
    lengths = [shortest * times for times in TIMES]
    runs = []
    for seed in seeds:
        texts: list[Packed] = []
        for n_steps in track(lengths, f"seed {seed}"):
            of_run = of_length(replace(recipe, seed=seed), n_steps)

            def measure(of_run: Recipe = of_run, texts: list[Packed] = texts) -> dict[str, Any]:
                if not texts:  # the same for all lengths, and not needed where all is finished
                    texts += parts.corpus(of_run)[1:]
                return trained(of_run, *texts)

            name = f"seed {seed}, {n_steps} steps"
            runs.append({"seed": seed, "n_steps": n_steps} | finished(name, measure))
    rise = {
        str(bits): {str(n): rises(runs, bits, n) for n in lengths} for bits in BITS
    }  # JSON has no keys but texts
    figures = {"runs": runs, "rise": rise}
    _print(figures, lengths)
    return figures


def of_length(recipe: Recipe, n_steps: int) -> Recipe:
    """The recipe for so many steps, a tenth of them to warm up.

    Example:
        >>> of_length(RECIPE, 800).training.warmup_steps
        80
    """
    how = replace(recipe.training, n_steps=n_steps, warmup_steps=n_steps // 10)
    return replace(recipe, training=replace(how, evaluate_every=n_steps))


def trained(recipe: Recipe, training: Packed, held_out: Packed) -> dict[str, Any]:
    """Train, and what rounding does to the model.

    Args:
        recipe: of the run.
        training, held_out: its rows.

    Returns:
        "float", the held-out loss; "losses", by bits; "weight_peak" and "weight_kurtosis", the mean
        over the matrices of the blocks; "n_tokens", that were read.
    """
    state = parts.begin(recipe)
    for _ in train(state, language_loss, training.batch_at, recipe.training.loop()):
        pass
    model = state.model.eval()
    ranges = outliers.ranges(model, held_out.rows(range(8)).tokens)
    of_blocks = [each for name, each in ranges.items() if name.startswith("blocks")]
    return {
        "float": loss(model, held_out),
        "losses": {
            str(bits): loss(quantize(model, plan(model, "rtn", Grid(bits=bits))).model, held_out)
            for bits in BITS
        },
        "weight_peak": fmean(each.weight_peak for each in of_blocks),
        "weight_kurtosis": fmean(each.weight_kurtosis for each in of_blocks),
        "n_tokens": recipe.training.n_steps * recipe.training.batch_size * training.context_length,
        "n_parameters": sum(parameter.numel() for parameter in model.parameters()),
    }


def rises(runs: list[dict[str, Any]], bits: int, n_steps: int) -> list[float]:
    """Nats that rounding costs runs of such a length, one a seed."""
    return [
        each["losses"][str(bits)] - each["float"] for each in runs if each["n_steps"] == n_steps
    ]


def _print(figures: dict[str, Any], lengths: list[int]) -> None:
    runs = figures["runs"]
    print(f"{runs[0]['n_parameters']:,} parameters; torch {torch.__version__}")
    print(
        f"{'steps':>6}  {'tokens each':>11}  {'loss':>6}  {'reach':>5}  {'kurtosis':>8}  rise, nats"
    )
    for n in lengths:
        some = [each for each in runs if each["n_steps"] == n]
        a_parameter = some[0]["n_tokens"] / some[0]["n_parameters"]
        keys = "float", "weight_peak", "weight_kurtosis"
        mean, peak, kurtosis = (fmean(each[key] for each in some) for key in keys)
        print(f"{n:>6}  {a_parameter:>11.1f}  {mean:6.3f}  {peak:5.1f}  {kurtosis:8.1f}")
        for bits in BITS:
            rise = figures["rise"][str(bits)][str(n)]
            each = ", ".join(f"{value:.4f}" for value in rise)
            print(f"{'':46}{bits} bits: {fmean(rise):.4f}  ({each})")
