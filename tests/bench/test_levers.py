"""minillm.bench.levers: a balanced design, effects that are recovered, equal FLOPs."""

from itertools import combinations
from math import prod

import pytest
import torch

from minillm.bench import levers as bench
from minillm.bench._run import Finished
from minillm.bench._tuned import Base
from minillm.town.lists import FORMS
from minillm.town.requests import HELD_OUT, KINDS
from tests.bench.test__tuned import a_base


def rows_of(share, seeds=(0, 1, 2)):
    """What a model of these effects would measure, of 1,000 questions."""
    return [
        {"way": list(way), "seed": seed, "new": {"n_right": round(1000 * share(*way)), "n": 1000}}
        for seed in seeds
        for way in bench.design()
    ]


# --- the design ----------------------------------------------------------------------------------
def test_levers_are_balanced_one_by_one_and_two_by_two():
    settings = bench.design()
    assert len(set(settings)) == 8
    for size in (1, 2, 3):
        for columns in combinations(range(4), size):
            assert sum(prod(way[c] for c in columns) for way in settings) == 0
    assert all(prod(way) == 1 for way in settings)  # the fourth is the product of the others


def test_main_effects_are_recovered_although_half_of_the_settings_are_not_run():
    effects = bench.conclude_factorial(
        rows_of(lambda a, b, c, d: 0.5 + 0.1 * a + 0.05 * c + 0.02 * d)
    )
    means = {name.removeprefix("new: "): each["mean"] for name, each in effects.items()}
    assert [means[lever] for lever in bench.LEVERS] == pytest.approx([0.2, 0, 0.1, 0.04])
    assert effects["new: combinations"]["each"] == pytest.approx([0.2] * 3)
    assert sum(abs(mean) for mean in means.values()) == pytest.approx(0.34)  # no interaction


def test_two_interactions_are_one_column():
    for share in (lambda a, b, c, d: 0.5 + 0.1 * a * b, lambda a, b, c, d: 0.5 + 0.1 * c * d):
        effects = bench.conclude_factorial(rows_of(share))
        assert effects["new: combinations × examples or wordings × base"]["mean"] == pytest.approx(
            0.2
        )


def test_few_combinations_have_every_operation_and_every_form():
    few = bench.few_combinations()
    assert [each[0] for each in few] == list(KINDS)
    assert {each[2] for each in few} == set(FORMS)
    assert not set(few) & HELD_OUT


# --- the experiments -----------------------------------------------------------------------------
@pytest.fixture
def tunings(monkeypatch):
    """What is tuned on, without tuning or answering."""
    calls = []

    def tune(base, conversations, *, seed=0):
        calls.append((base, conversations, seed))
        return base.model

    monkeypatch.setattr(Base, "tune", tune)
    monkeypatch.setattr(Base, "answers", lambda base, model, every: [""] * len(every))
    return calls


def test_each_lever_does_what_it_is_called(tunings, monkeypatch):
    monkeypatch.setattr(bench, "FEW_EXAMPLES", 120)
    large, small = (a_base(n_examples=200, n_questions=2) for _ in range(2))
    for way in bench.design():
        bench.measure_factorial(large, lambda: small, way, 5)
    for (combos, examples, wordings, size), (base, taught, seed) in zip(
        bench.design(), tunings, strict=True
    ):
        assert len(taught) == (200 if examples > 0 else bench.FEW_EXAMPLES)
        first = sum(each[0].content.startswith("The list: ") for each in taught) / len(taught)
        assert first == (pytest.approx(0.25, abs=0.12) if wordings > 0 else 1)
        assert (base.model is large.model) == (size > 0)
        assert seed == 5
        lined = sum("\n" in each[1].content for each in taught) / len(taught)
        assert (lined < 0.4) == (combos > 0)  # of one form each, many have lines


def test_the_small_model_may_take_as_many_flops(tunings):
    large = a_base(n_steps=30, n_examples=60, n_questions=2)
    small = a_base(context_length=64, n_questions=2, n_steps=30, n_examples=60)
    ratio = bench._flops(large) / bench._flops(small)
    assert ratio > 1.2
    rows = [
        bench.measure_diverse(large, lambda: small, way, 0)
        for way in bench.EXPERIMENTS["diverse"][0]
    ]
    assert [row["n_steps"] for row in rows] == [round(30 * ratio)] * 2 + [30] * 2
    assert [len(taught) for _, taught, _ in tunings] == [round(60 * ratio)] * 2 + [60] * 2
    concluded = bench.conclude_diverse([row | {"seed": 0} for row in rows])
    assert {each["mean"] for each in concluded.values()} == {0}


def test_the_small_base_is_trained_once_and_kept(tmp_path):
    large = a_base()
    recipe = bench.quick_recipe(bench.SMALL)
    recipe = bench.replace(
        recipe,
        model=bench.replace(
            recipe.model, d_model=8, n_layers=1, d_ff=8, context_length=64, n_heads=2
        ),
        training=bench.replace(recipe.training, batch_size=2),
    )
    first = bench.small_base(large, recipe, tmp_path)
    again = bench.small_base(large, bench.replace(recipe, seed=9), tmp_path)  # not trained
    assert again.tokenizer is large.tokenizer
    for name, weight in first.model.state_dict().items():
        torch.testing.assert_close(again.model.state_dict()[name], weight)


def test_both_experiments_run_and_a_third_is_refused(tunings, monkeypatch, capsys):
    monkeypatch.setattr(bench, "small_base", lambda large, recipe, folder: large)
    figures = bench.run(quick=True, base=a_base(), finished=Finished())
    assert figures.keys() == {"factorial", "diverse"}
    assert "new: wordings: +0.0%" in capsys.readouterr().out
    with pytest.raises(ValueError, match="no experiment 'x'; there are factorial, diverse"):
        bench.run(only="x", base=a_base())
