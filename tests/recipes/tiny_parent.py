"""A parent of a few thousand weights, for tests of recipes that are made from one."""

from minillm.formats import hf
from minillm.model.attention import AttentionConfig
from minillm.model.config import TransformerConfig
from minillm.recipes.data import END
from minillm.text import bpe
from minillm.tune.chat import TEMPLATE

TEXT = "Mei sells red plums. Bao waits at the mill. "
TOKENIZER = bpe.train(TEXT * 20, 290, special_tokens=[END, *TEMPLATE.special_tokens])
CONFIG = TransformerConfig(
    vocab_size=290,
    context_length=32,
    d_model=16,
    n_layers=1,
    mixer=AttentionConfig(n_heads=2),
    tied_embeddings=True,
)


def write(folder, tokenizer=TOKENIZER, seed=0):
    """The parent as a folder; its path."""
    hf.save(CONFIG.build(seed=seed), folder, tokenizer, end_token=END)
    return str(folder)
