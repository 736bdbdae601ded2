from minillm.recipes import town_1m
from minillm.recipes.town_50k import RECIPE


def test_it_is_a_sixteenth_of_its_target_and_reads_as_much_at_once():
    shapes = RECIPE.model, town_1m.RECIPE.model
    sizes = [sum(p.numel() for p in shape.config().build().parameters()) for shape in shapes]
    assert 14 < sizes[1] / sizes[0] < 18
    assert shapes[0].context_length == shapes[1].context_length


def test_what_makes_a_tokenizer_is_that_of_its_target():
    def makes_it(recipe):
        return recipe.seed, recipe.data, recipe.model.vocab_size

    assert makes_it(RECIPE) == makes_it(town_1m.RECIPE)
