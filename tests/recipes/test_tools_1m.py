from minillm.recipes import parent, recipe, run
from minillm.recipes.chat_data import ToolData
from minillm.recipes.recipe import Recipe
from minillm.recipes.tools_1m import RECIPE
from minillm.town.requests import BLOCK


def test_it_is_made_from_the_base_as_chat_1m_is():
    chat = recipe.find("chat-1m")
    assert recipe.find("tools-1m") is RECIPE
    assert (RECIPE.parent, RECIPE.model, RECIPE.special_tokens) == ("town-base", None, ())
    assert RECIPE.training == chat.training
    assert RECIPE.data.languages == chat.data.languages == ("en", "zh")


def test_calls_results_and_texts_of_the_base_are_read_together():
    data = ToolData(
        sum_blocks=1, look_up_blocks=1, request_blocks=1, letter_blocks=0, replay_blocks=1,
        held_out_blocks=1, languages=("zh",),
    )  # fmt: skip
    mine = parent.adopted(Recipe(name="mine", parent="town-base", data=data))
    tokenizer, *parts = run.corpus(mine)
    ids = {token: tokenizer.special_ids[token] for token in ("<|endoftext|>", "<|user|>")}
    call, result = (tokenizer.special_ids[token] for token in ("<|call|>", "<|result|>"))
    for rows in parts:
        assert (rows.stream == ids["<|endoftext|>"]).sum() == 2 * 6 * BLOCK
        assert (rows.stream == ids["<|user|>"]).sum() == 3 * BLOCK
        assert (rows.stream == call).sum() == (rows.stream == result).sum() > BLOCK
    batch = parts[0].rows(range(parts[0].n_places))
    assert batch.loss_mask[batch.targets == call].all()  # the model decides to call
    assert not batch.loss_mask[batch.targets == result].any()
