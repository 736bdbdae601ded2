"""`minillm bench rivals`: few bits of a large model, or 8 bits of a small one?

Smaller models are trained as `town-1m` was: its texts, tokenizer and number of steps. A model half
as wide gets rates twice as high, the rule by which `town-50k` was made; nothing else was tried for
them, and each is trained once. They are then stored in 8 bits, table of tokens and all, which costs
no loss, and are told with all their bytes beside what `minillm bench quant` makes of `town-1m`.

A width of 72 has about the bytes of `town-1m` in 2 bits with its table in 8, one of 96 those of 4.

Paper: Dettmers and Zettlemoyer 2022, "The case for 4-bit precision", arXiv:2212.09720, section 3
(models of all sizes at equal bytes).
Differs: two sizes, one seed, our texts.

Chapter: app
"""

import tempfile
from dataclasses import replace
from pathlib import Path
from typing import Any

from minillm.bench._run import Finished
from minillm.quant.apply import quantize
from minillm.quant.plan import plan
from minillm.quant.rtn import Grid
from minillm.recipes import quantizing, town_1m
from minillm.recipes import run as parts
from minillm.recipes.recipe import Recipe, shortened
from minillm.zoo import checkpoints

WIDTHS = (72, 96)


def run(
    *, quick: bool = False, finished: Finished | None = None, folder: Path | None = None
) -> dict[str, Any]:
    """Train the rivals, store them in 8 bits, and print what they reach.

    Args:
        quick: a tiny one for ten steps on little text; its figures mean nothing.
        finished: results that are there already.
        folder: for runs, which go on after a stop; None for one that is thrown away.
    """
    finished = Finished() if finished is None else finished
    with tempfile.TemporaryDirectory() as passing:
        place = Path(passing) if folder is None else folder
        rivals = [recipe_of(width) for width in WIDTHS]
        if quick:
            data = replace(town_1m.RECIPE.data, story_blocks=1, fact_blocks=1, held_out_blocks=1)
            model = replace(rivals[0].model, d_model=16, n_layers=1)
            rivals = [shortened(replace(rivals[0], data=data, model=model), 10)]
        results = [
            finished(recipe.name, lambda recipe=recipe: measured(recipe, place / recipe.name))
            for recipe in rivals
        ]
    shipped = finished("town-50k", lambda: stored(checkpoints.folder("town-50k")))
    figures = {recipe.name: each for recipe, each in zip(rivals, results, strict=True)}
    figures["town-50k"] = shipped
    for name, each in figures.items():
        print(
            f"{name}: {each['n_parameters']:,} parameters, loss {each['float']:.4f} in float32; "
            f"in 8 bits {each['bytes']:,} bytes and {each['loss']:.4f}"
        )
    return figures


def recipe_of(d_model: int) -> Recipe:
    """`town-1m`'s recipe at another width."""
    how, factor = town_1m.RECIPE.training, town_1m.RECIPE.model.d_model / d_model
    return replace(
        town_1m.RECIPE,
        name=f"width-{d_model}",
        model=replace(town_1m.RECIPE.model, d_model=d_model),
        training=replace(
            how,
            learning_rate=how.learning_rate * factor,
            matrix_rate=how.matrix_rate * factor,
            evaluate_every=1000,
        ),
    )


def measured(recipe: Recipe, folder: Path) -> dict[str, float]:
    """Train it, and store it."""
    return stored(parts.run(recipe, folder))


def stored(folder: Path) -> dict[str, float]:
    """What a model's folder reaches in float32, and in 8 bits with its table."""
    model, tokenizer, end_ids = checkpoints.open_model(folder)
    texts = quantizing.rows_of(model, tokenizer, end_ids, quantizing.TOWN)
    chosen = plan(model, "rtn", Grid(bits=8), tables=True)
    return {
        "n_parameters": sum(weight.numel() for weight in model.parameters()),
        "float": quantizing.loss(model, texts.held_out),
        "loss": quantizing.loss(quantize(model, chosen).model, texts.held_out),
        "bytes": chosen.bytes_after,
    }
