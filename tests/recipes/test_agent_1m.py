from minillm.recipes import parent, recipe, run
from minillm.recipes.agent_1m import RECIPE
from minillm.recipes.chat_data import AgentData
from minillm.recipes.recipe import Recipe
from minillm.town.requests import BLOCK


def test_it_is_made_from_the_base_with_the_rates_of_chat_1m():
    chat = recipe.find("chat-1m")
    assert recipe.find("agent-1m") is RECIPE
    assert (RECIPE.parent, RECIPE.model, RECIPE.special_tokens) == ("town-base", None, ())
    for name in ("optimizer", "learning_rate", "matrix_rate", "batch_size"):
        assert getattr(RECIPE.training, name) == getattr(chat.training, name)
    assert RECIPE.data.languages == chat.data.languages == ("en", "zh")


def test_calls_are_learned_and_what_comes_behind_them_is_cut():
    data = AgentData(
        errand_blocks=1, request_blocks=1, letter_blocks=0, replay_blocks=1, held_out_blocks=1,
        languages=("zh",),
    )  # fmt: skip
    mine = parent.adopted(Recipe(name="mine", parent="town-base", data=data))
    tokenizer, *parts = run.corpus(mine)
    call, result = (tokenizer.special_ids[token] for token in ("<|call|>", "<|result|>"))
    for rows in parts:
        assert BLOCK // 2 < (rows.stream == call).sum() < BLOCK
        assert not (rows.stream == result).any()  # each call ends what the model learns
    batch = parts[0].rows(range(parts[0].n_places))
    assert batch.loss_mask[batch.targets == call].all()
