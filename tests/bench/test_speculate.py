"""minillm.bench.speculate: the benchmark runs, and its arithmetic is right."""

import pytest

from minillm.bench import speculate as bench
from minillm.serve.draft import ModelDraft
from minillm.serve.speculate import Call
from minillm.zoo import checkpoints

#: Numbers that a run may have given: one seed, γ of 1 and 2.
FIGURES = {
    "greedy": {
        "tokens_per_call": {"1": [1.5, 1.7], "2": [1.8, 2.0]},
        "expected": {"1": 1.6, "2": 2.0},
    },
    "sampled": {
        "tokens_per_call": {"1": [1.4], "2": [1.5]},
        "expected": {"1": 1.4, "2": 1.6},
    },
}


# --- by hand ------------------------------------------------------------------------------------
def test_passes_that_the_end_of_the_text_cut_short_do_not_count():
    calls = [Call((4, 5, 6), 2, 2), Call((7, 8), 2, 1), Call((9, 9), 1, 1), Call((9,), 0, 0)]
    assert bench.mean_tokens(calls, n_drafted=2) == 2.5


def test_the_worse_temperature_and_the_largest_error_count():
    found = bench.summary(FIGURES)
    assert found["tokens_per_call"] == pytest.approx(1.5)
    assert found["formula_error"] == pytest.approx(1 - 1.5 / 1.6)


def test_seeds_have_stories_of_their_own_and_every_other_one_is_chinese():
    _, tokenizer = checkpoints.load(bench.TARGET)
    work = bench.Work(n_prompts=4)
    texts = [
        [tokenizer.decode(story[1:]) for story in bench.stories_of(tokenizer, seed, work)]
        for seed in (0, 1)
    ]
    assert [text.isascii() for text in texts[0]] == [True, False, True, False]
    assert not {*texts[0]} & {*texts[1]}


# --- law ----------------------------------------------------------------------------------------
def test_a_draft_that_is_the_target_has_a_rate_of_one_and_all_its_tokens():
    model, tokenizer = checkpoints.load(bench.TARGET)
    work = bench.QUICK
    prompts = [story[:12] for story in bench.stories_of(tokenizer, 0, work)]
    found = bench.gained(model, ModelDraft(model), prompts, bench.CONFIGS["sampled"], 0, work)
    assert found["alpha"] == pytest.approx(1)
    assert found["tokens_per_call"] == {"1": 2, "2": 3}


def test_a_quick_run_returns_and_prints_every_figure(capsys):
    figures = bench.run(quick=True)
    printed = capsys.readouterr().out
    assert set(figures) == {*bench.CONFIGS, "same", "lookup", "time", *bench.TARGETS}
    for name in bench.CONFIGS:
        (alpha,) = figures[name]["alpha"]
        assert 0 <= alpha <= 1
        assert f"{name}: α {alpha:.3f}" in printed
        assert list(figures[name]["tokens_per_call"]) == ["1", "2"]
    assert figures["same"] == 1
    for name in ("speedup", "expected", "pass"):
        assert min(figures["time"][name].values()) > 0
    for name, target in bench.TARGETS.items():
        assert f"{name}: {figures[name]:.3f}   {bench.verdict(figures[name], *target)}" in printed
