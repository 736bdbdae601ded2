"""`shakespeare`: the speedrun, tiny Shakespeare by the letter in nanoGPT's wall-clock.

A million letters, the last tenth held out. The text is ASCII, so a letter is a byte and the
vocabulary is that of bytes. `minillm bench train` runs it beside nanoGPT's own recipe.

The text is Karpathy's (char-rnn, 2015); it is downloaded once, or given as a file:
`minillm train shakespeare --text FILE`.

Chapter: app
"""

from minillm.recipes.data import TextData
from minillm.recipes.recipe import ModelShape, Recipe, Training

RECIPE = Recipe(
    name="shakespeare",
    data=TextData(
        url="https://raw.githubusercontent.com/karpathy/char-rnn/master/data/tinyshakespeare/input.txt",
        sha256="86c4e6aa9db7c042ec79f339dcb96d42b0075e16b8fc2e86bf0ca57e2dc565ed",
        ends="file",
        held_out=0.1,
    ),
    model=ModelShape(
        vocab_size=257,
        context_length=128,
        d_model=96,
        qk_norm=True,
        tied_embeddings=False,
        initial_std=0.08,
        zero_residual_projections=True,
    ),
    training=Training(
        n_steps=800,
        batch_size=16,
        optimizer="muon",
        learning_rate=1e-2,
        weight_decay=0.0,
        warmup_steps=0,
        decay_steps=560,
        evaluate_every=200,
        save_every=400,
    ),
)
