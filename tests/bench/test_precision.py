"""minillm.bench.precision: the benchmark runs, and its figures are what was measured."""

import pytest

from minillm.bench import precision as bench
from minillm.bench._run import Finished


def test_times_and_losses_of_both_precisions_are_told(capsys):
    finished = Finished()
    finished.results = {"bf16, seed 0": 9.0}  # is not measured again
    figures = bench.run(quick=True, finished=finished)
    assert figures["losses"]["bf16"] == [9.0]
    loss = figures["losses"]["fp32"][0]
    assert 4 < loss < 7  # log 512 is 6.2
    assert figures["more"] == pytest.approx(9 / loss - 1)
    assert min(figures["seconds"]["tiny"].values()) > 0
    printed = capsys.readouterr().out
    assert f"held-out loss, fp32: {loss:.4f}" in printed
    assert f"bf16 {figures['more']:+.2%}" in printed


def test_a_training_in_bfloat16_is_another_one_and_comes_near():
    from dataclasses import replace

    how = replace(bench.RECIPE.training, n_steps=3, warmup_steps=1)
    data = replace(bench.RECIPE.data, story_blocks=1, fact_blocks=0, held_out_blocks=1)
    recipe = replace(bench.RECIPE, data=data, training=how)
    texts = bench.parts.corpus(recipe)[1:]
    exact, rounded = (bench.trained(recipe, each, 0, *texts) for each in ("fp32", "bf16"))
    assert exact != rounded
    assert rounded == pytest.approx(exact, rel=0.01)
