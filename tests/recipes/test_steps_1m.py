from minillm.recipes import parent, recipe, run
from minillm.recipes.chat_data import StepsData
from minillm.recipes.recipe import Recipe
from minillm.recipes.steps_1m import RECIPE
from minillm.town.requests import BLOCK


def test_it_is_made_from_the_base_as_chat_1m_is():
    chat = recipe.find("chat-1m")
    assert recipe.find("steps-1m") is RECIPE
    assert (RECIPE.parent, RECIPE.model, RECIPE.special_tokens) == ("town-base", None, ())
    assert RECIPE.training == chat.training
    assert RECIPE.data.languages == chat.data.languages == ("en", "zh")


def test_it_reads_its_rows_about_once():
    how, data = RECIPE.training, RECIPE.data
    # a conversation has 1.5 turns of 57 tokens, a text 43; five or six fill a row of 256
    n_turns = 2 * BLOCK * (2 * data.problem_blocks + data.request_blocks + data.letter_blocks)
    n_texts = 11 * BLOCK * data.replay_blocks
    n_examples = 1.15 * (45 * n_turns + 44 * n_texts) / 256
    assert 0.8 < how.n_steps * how.batch_size / n_examples < 1.5


def test_conversations_and_texts_of_the_base_are_learned_from_together():
    data = StepsData(
        problem_blocks=1, request_blocks=1, letter_blocks=0, replay_blocks=1, held_out_blocks=1,
        languages=("zh",),
    )  # fmt: skip
    mine = parent.adopted(Recipe(name="mine", parent="town-base", data=data))
    tokenizer, *parts = run.corpus(mine)
    ids = {token: tokenizer.special_ids[token] for token in ("<|endoftext|>", "<|user|>")}
    for rows in parts:
        assert (rows.stream == ids["<|endoftext|>"]).sum() == 2 * 6 * BLOCK
        assert (rows.stream == ids["<|user|>"]).sum() == 3 * BLOCK
