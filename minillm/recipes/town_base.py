"""`town-base`: the base of the second half of the course, from which its later models descend.

It has read all texts of the town in two languages: stories, facts, shop arithmetic with and without
its steps, lists and letters. There are no instructions among them: what follows an instruction is
made from it. Its d_ff is a multiple of 32, so that it can be quantized in blocks of 32.

The steps are so many that two cores need less than an hour; learning rates are those of `town-1m`.

Chapter: app
"""

from minillm.recipes.data import LifeData
from minillm.recipes.recipe import ModelShape, Recipe, Training

RECIPE = Recipe(
    name="town-base",
    data=LifeData(
        story_blocks=250,
        fact_blocks=300,
        market_blocks=200,
        worked_blocks=220,
        list_blocks=350,
        letter_blocks=150,
    ),
    # std of about 1/√d_model, as in town-1m
    model=ModelShape(
        vocab_size=1536,
        context_length=256,
        n_layers=4,
        d_ff=352,
        qk_norm=True,
        initial_std=0.08,
        zero_residual_projections=True,
    ),
    training=Training(
        n_steps=4000,
        batch_size=16,
        optimizer="muon",
        learning_rate=4e-3,
        matrix_rate=0.01,
        warmup_steps=100,
        decay_steps=1500,
        evaluate_every=500,
        save_every=500,
    ),
    special_tokens=(
        "<|system|>",
        "<|user|>",
        "<|assistant|>",
        "<|end|>",
        "<|call|>",
        "<|result|>",
        "<|think|>",
        "<|spare|>",
    ),
)
