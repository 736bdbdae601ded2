"""minillm.bench.rivals: small models are trained like the large one, and weighed with it."""

import pytest

from minillm.bench import rivals as bench
from minillm.bench._run import Finished
from minillm.recipes import town_1m, town_50k


def test_rates_grow_as_the_width_shrinks_like_those_of_the_shipped_draft():
    recipe = bench.recipe_of(32)
    assert recipe.training.matrix_rate == town_50k.RECIPE.training.matrix_rate
    assert recipe.training.learning_rate == town_50k.RECIPE.training.learning_rate
    assert recipe.data == town_1m.RECIPE.data
    n_parameters = [
        sum(
            weight.numel()
            for weight in bench.recipe_of(d_model).model.config().build().parameters()
        )
        for d_model in bench.WIDTHS
    ]
    assert n_parameters == [323_352, 541_728]


def test_a_rival_is_trained_and_stored_in_8_bits_with_its_table(tmp_path, capsys):
    finished = Finished()
    finished.results = {
        "town-50k": {"n_parameters": 58_080, "float": 0.93, "loss": 0.93, "bytes": 62_144}
    }
    figures = bench.run(quick=True, finished=finished, folder=tmp_path)
    rival = figures["width-72"]
    assert rival["loss"] == pytest.approx(rival["float"], rel=0.01)
    assert rival["n_parameters"] < rival["bytes"] < 1.3 * rival["n_parameters"]
    assert (tmp_path / "width-72" / "model" / "config.json").exists()
    assert "town-50k: 58,080 parameters" in capsys.readouterr().out
