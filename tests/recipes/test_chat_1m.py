from minillm.recipes import recipe
from minillm.recipes.chat_1m import RECIPE
from minillm.town.requests import BLOCK


def test_it_is_made_from_the_base_and_takes_over_its_shape():
    assert recipe.find("chat-1m") is RECIPE
    assert (RECIPE.parent, RECIPE.model) == ("town-base", None)
    assert RECIPE.special_tokens == ()


def test_it_reads_its_conversations_in_two_languages_a_few_times():
    how, data = RECIPE.training, RECIPE.data
    assert data.languages == ("en", "zh")
    # rows of 256 tokens hold six conversations of about 39
    n_conversations = 2 * BLOCK * (data.request_blocks + data.letter_blocks)
    assert 1 < how.n_steps * how.batch_size / (n_conversations / 6.1) < 5
    assert how.warmup_steps + how.decay_steps <= how.n_steps


def test_it_takes_fewer_steps_than_its_base_and_they_are_of_one_size():
    base, how = recipe.find("town-base").training, RECIPE.training
    assert how.n_steps < base.n_steps / 2
    assert how.batch_size * how.accumulation_steps == base.batch_size
