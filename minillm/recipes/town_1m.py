"""`town-1m`: about a million parameters, on stories and facts of Tinytown in two languages.

In this time it learns the language and not yet to keep track: its sentences are the town's, and
almost every story contradicts itself (`minillm.town.story_check`).

Chapter: roof
"""

from minillm.recipes.recipe import ModelShape, Recipe, TownData, Training

RECIPE = Recipe(
    name="town-1m",
    data=TownData(story_blocks=500, fact_blocks=100),
    # about 1/√width; the customary 0.02 is for widths near a thousand
    model=ModelShape(n_vocab=2048, initial_std=0.08),
    training=Training(
        n_steps=5000, n_rows=16, learning_rate=3e-3, evaluate_every=500, save_every=500
    ),
)
