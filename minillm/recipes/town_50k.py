"""`town-50k`: a small draft model for `town-1m`, with its tokenizer and its texts.

It guesses what `town-1m` would write next, so that `minillm.serve.speculate` need not ask the
larger model for every token. What it has learned and what not stands in its card, beside its
weights in `minillm/zoo`.

Chapter: app
"""

from dataclasses import replace

from minillm.recipes import town_1m

RECIPE = replace(
    town_1m.RECIPE,  # seed, data and vocabulary too: these make the tokenizer
    name="town-50k",
    model=replace(town_1m.RECIPE.model, d_model=32, n_layers=2, n_heads=2),
    training=replace(
        town_1m.RECIPE.training,
        n_steps=12_000,
        decay_steps=4000,
        learning_rate=16e-3,
        matrix_rate=0.04,
        evaluate_every=1000,
        save_every=1000,
    ),
)
