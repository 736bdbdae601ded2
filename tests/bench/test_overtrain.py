"""minillm.bench.overtrain: longer runs of one recipe, and what rounding costs each."""

from dataclasses import replace

import pytest

from minillm.bench import overtrain as bench
from minillm.bench._run import Finished
from minillm.data.packing import Packed
from minillm.optim.schedule import Cosine


def test_a_longer_run_has_the_same_schedule_stretched():
    short, long = (bench.of_length(bench.RECIPE, n) for n in (200, 3200))
    assert replace(short, training=long.training) == long
    assert short.training.schedule() == Cosine(n_steps=200, warmup_steps=20)
    assert long.training.schedule() == Cosine(n_steps=3200, warmup_steps=320)
    assert short.training.learning_rate == long.training.learning_rate


def test_a_run_is_trained_and_rounded_to_every_number_of_bits():
    recipe, documents = bench.of_length(bench.RECIPE, 10), [list(range(1, 40))] * 60
    rows = Packed(documents, end_id=0, context_length=64, batch_size=16)
    result = bench.trained(recipe, rows, rows)
    assert result["n_tokens"] == 10 * 16 * 64
    assert result["losses"].keys() == {"8", "4", "3", "2"}
    assert result["float"] < 6.0  # the logarithm of 512 is 6.24
    assert result["losses"]["8"] == pytest.approx(result["float"], rel=1e-2)
    assert result["losses"]["2"] > result["float"]


def test_what_is_finished_is_not_trained_again_and_rises_are_printed(capsys):
    finished = Finished()
    for n in (4, 16, 64):
        losses = {"8": 2.0, "4": 2.0, "3": 2.5, "2": 2.0 + n}
        about = {"weight_peak": 5.0, "weight_kurtosis": 3.0, "n_tokens": 100, "n_parameters": 50}
        finished.results[f"seed 0, {n} steps"] = {"float": 2.0, "losses": losses} | about
    figures = bench.run(quick=True, finished=finished)
    assert figures["rise"]["2"] == {"4": [4.0], "16": [16.0], "64": [64.0]}
    assert figures["rise"]["3"]["4"] == [0.5]
    assert "2 bits: 64.0000  (64.0000)" in capsys.readouterr().out
