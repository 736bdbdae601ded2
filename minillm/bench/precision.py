"""`minillm bench precision`: training with products in bfloat16 against float32.

*Time.* A step (forward, backward, AdamW) of dense models of two sizes on random tokens, 1,024 of
them; medians, both precisions in turns.

*Loss.* A small model learns the town from the same first weights and batches in both precisions,
for three seeds. Both are evaluated in float32.

Paper: Micikevicius et al. 2018, "Mixed Precision Training", arXiv:1710.03740, section 4.
Differs: bfloat16, our models and data.

Chapter: app
"""

from dataclasses import replace
from statistics import fmean
from typing import Any

import torch

from minillm.bench._run import Finished
from minillm.bench.bpe import race
from minillm.data.packing import Batch, Packed
from minillm.lab.track import track
from minillm.model.config import TransformerConfig
from minillm.optim.step import take_step
from minillm.recipes import run as parts
from minillm.recipes.data import TownData
from minillm.recipes.recipe import ModelShape, Recipe, Training
from minillm.train.autocast import PRECISIONS, in_precision
from minillm.train.loop import TrainState, train
from minillm.train.losses import language_loss

SEEDS = (0, 1, 2)
SHAPES = {"1 M": (128, 4), "10 M": (320, 8)}  # d_model and layers; 0.9 and 10.2 M in all
RECIPE = Recipe(
    name="precision",
    data=TownData(languages=("en",), story_blocks=20, fact_blocks=10),
    model=ModelShape(vocab_size=512, d_model=64, n_layers=2, qk_norm=True, initial_std=0.08),
    training=Training(n_steps=300, batch_size=8, optimizer="muon", warmup_steps=50),
)


def run(*, quick: bool = False, finished: Finished | None = None) -> dict[str, Any]:
    """Measure, and print both tables.

    Args:
        quick: a tiny model, few steps, one seed; its figures mean nothing.
        finished: results that are there already.
    """
    finished = Finished() if finished is None else finished
    shapes, n_repeats = ({"tiny": (32, 1)}, 1) if quick else (SHAPES, 9)
    times = {name: seconds(*shape, n_repeats) for name, shape in shapes.items()}
    recipe, seeds = RECIPE, SEEDS
    if quick:
        data = replace(RECIPE.data, story_blocks=1, fact_blocks=0, held_out_blocks=1)
        how = replace(RECIPE.training, n_steps=4, warmup_steps=1)
        recipe, seeds = replace(RECIPE, data=data, training=how), SEEDS[:1]
    texts = parts.corpus(recipe)[1:]
    losses = {
        precision: [
            finished(
                f"{precision}, seed {seed}",
                lambda precision=precision, seed=seed: trained(recipe, precision, seed, *texts),
            )
            for seed in track(seeds, precision)
        ]
        for precision in PRECISIONS
    }
    more = fmean(losses["bf16"]) / fmean(losses["fp32"]) - 1
    for name, each in times.items():
        print(
            f"{name}: {1000 * each['fp32']:.0f} ms a step in fp32, {1000 * each['bf16']:.0f} in "
            f"bf16: {each['fp32'] / each['bf16']:.2f} times as fast"
        )
    for precision, each in losses.items():
        print(f"held-out loss, {precision}: {', '.join(f'{loss:.4f}' for loss in each)}")
    print(f"mean of the seeds: bf16 {more:+.2%}")
    return {"seconds": times, "losses": losses, "more": more}


def seconds(d_model: int, n_layers: int, n_repeats: int) -> dict[str, float]:
    """Of a step, by precision: the median."""
    config = TransformerConfig(
        vocab_size=1024, context_length=128, d_model=d_model, n_layers=n_layers
    )
    drawn = torch.randint(1, 1024, (8, 128), generator=torch.Generator().manual_seed(0))
    packed = Packed(drawn.tolist(), end_id=0, context_length=128, batch_size=8)

    def stepping(precision: str, batch: Batch):
        state = TrainState(model := config.build(seed=0), torch.optim.AdamW(model.parameters()))
        loss = in_precision(language_loss, precision)
        return lambda: take_step(state.model, state.optimizer, [loss(state.model, batch)])

    steps = {precision: stepping(precision, packed.batch_at(0)) for precision in PRECISIONS}
    race(steps, 1)  # the first makes buffers
    return race(steps, n_repeats)


def trained(recipe: Recipe, precision: str, seed: int, training: Packed, held_out: Packed) -> float:
    """Held-out nats a token after a training."""
    state, how = parts.begin(replace(recipe, seed=seed)), recipe.training
    loss = in_precision(language_loss, precision)
    for _ in train(state, loss, training.batch_at, replace(how.loop(), evaluate_every=0)):
        pass
    with torch.inference_mode():
        return parts.held_out_loss(state.model, held_out)
