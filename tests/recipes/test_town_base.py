from minillm.recipes.town_base import RECIPE
from minillm.tune.chat import TEMPLATE


def n_parameters():
    return sum(p.numel() for p in RECIPE.model.config().build(device="meta").parameters())


def test_it_has_at_most_one_and_a_half_million_parameters_which_are_three_megabytes():
    # 1,536 · 128 embeddings; a block has 4 · 128² + 3 · 128 · 352 weights and its norms
    matrices = 1536 * 128 + 4 * (4 * 128**2 + 3 * 128 * 352)
    assert matrices <= n_parameters() < matrices + 5_000
    assert 2 * n_parameters() < 3e6


def test_its_matrices_can_be_quantized_in_blocks_of_32():
    assert RECIPE.model.d_ff % 32 == RECIPE.model.d_model % 32 == 0
    block = RECIPE.model.config().build(device="meta").blocks[0]
    assert block.ffn.down.weight.shape == (128, 352)


def test_it_reads_everything_in_two_languages_a_few_times():
    how, data = RECIPE.training, RECIPE.data
    n_read = how.n_steps * how.batch_size * RECIPE.model.context_length
    # tokens of a text, measured with a vocabulary of 1,536
    tokens = {"story": 59, "market": 28, "worked": 57, "list": 47, "letter": 39}
    stream = sum(128 * n * getattr(data, f"{kind}_blocks") for kind, n in tokens.items())
    assert data.languages == ("en", "zh")
    assert 2 < n_read / (stream + 64 * 9 * data.fact_blocks) < 4


def test_one_core_needs_less_than_an_hour():
    # it reads about 6,500 tokens a second at a million parameters; measured 2,488 s in all
    how = RECIPE.training
    n_read = how.n_steps * how.batch_size * RECIPE.model.context_length
    assert n_read * n_parameters() / (6500 * 1e6) < 3600
    assert RECIPE.threads == 1


def test_special_tokens_of_later_models_are_reserved():
    assert set(TEMPLATE.special_tokens) < set(RECIPE.special_tokens)
