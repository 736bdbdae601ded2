"""`chat-1m`: `town-base`, tuned to do what one asks of it in two languages.

It learns from the town's requests with their right answers, and from letters with their replies.
What it has learned and what not stands in its card, beside its weights in `minillm/zoo`: requests
of combinations and in wordings that it has never seen are kept for that.

A quarter of the base's steps, at rates that were tried on 200 of them.

Chapter: app
"""

from minillm.recipes.chat_data import RequestData
from minillm.recipes.recipe import Recipe, Training

RECIPE = Recipe(
    name="chat-1m",
    parent="town-base",
    data=RequestData(request_blocks=400, letter_blocks=40),
    training=Training(
        n_steps=1000,
        batch_size=16,
        optimizer="muon",
        learning_rate=4e-3,
        matrix_rate=0.02,
        warmup_steps=30,
        decay_steps=500,
        evaluate_every=200,
        save_every=200,
    ),
)
