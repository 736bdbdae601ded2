from minillm.recipes.town_1m import RECIPE


def test_it_is_a_million_parameters_and_reads_in_two_languages():
    n_parameters = sum(p.numel() for p in RECIPE.model.config().build().parameters())
    assert 0.9e6 < n_parameters < 1.2e6
    assert RECIPE.data.languages == ("en", "zh")


def test_its_rows_hold_whole_stories_and_it_reads_them_a_few_times():
    how = RECIPE.training
    n_read = how.n_steps * how.batch_size * RECIPE.model.context_length
    n_stories = 64 * RECIPE.data.story_blocks * len(RECIPE.data.languages)
    assert 2 < n_read / (50 * n_stories) < 10  # of about fifty tokens each
