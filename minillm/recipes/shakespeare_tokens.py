"""`shakespeare-tokens`: the speedrun with any tokenizer, tiny Shakespeare in nanoGPT's time.

The class of the speedrun in which a model may choose its tokens. The text is cut into 1,024 learned
tokens of 2.4 letters each, so a row of 128 tokens holds more than 300 letters, and the same time
reaches more text. What is compared is the loss of the same held-out letters, in nats a letter. A
text can be cut in several ways and only one is counted, so it is an upper bound of what the model
knows; it is never to be compared with a loss "a token".

Chapter: app
"""

from dataclasses import replace

from minillm.recipes import shakespeare

RECIPE = replace(
    shakespeare.RECIPE,
    name="shakespeare-tokens",
    model=replace(shakespeare.RECIPE.model, vocab_size=1024, d_model=128),
    training=replace(shakespeare.RECIPE.training, n_steps=800, batch_size=8, decay_steps=560),
)
