"""The recipe of the speedrun with any tokenizer: the same text, other tokens."""

from minillm.recipes import recipe, shakespeare
from minillm.recipes.shakespeare_tokens import RECIPE


def test_it_reads_the_same_text_as_shakespeare_in_learned_tokens():
    assert recipe.find("shakespeare-tokens") is RECIPE
    assert RECIPE.data == shakespeare.RECIPE.data
    assert RECIPE.model.vocab_size == 1024
