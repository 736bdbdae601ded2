"""`town-1m`: about a million parameters, on stories and facts of Tinytown in two languages.

What it has learned and what not stands in its card, beside its weights in `minillm/zoo`.

Chapter: app
"""

from minillm.recipes.data import TownData
from minillm.recipes.recipe import ModelShape, Recipe, Training

RECIPE = Recipe(
    name="town-1m",
    data=TownData(story_blocks=500, fact_blocks=100),
    # std of about 1/√width; the customary 0.02 is for widths near a thousand
    model=ModelShape(
        vocab_size=1024, qk_norm=True, initial_std=0.08, zero_residual_projections=True
    ),
    training=Training(
        n_steps=6000,
        batch_size=16,
        optimizer="muon",
        learning_rate=4e-3,
        matrix_rate=0.01,
        warmup_steps=50,
        decay_steps=2000,
        evaluate_every=500,
        save_every=500,
    ),
)
