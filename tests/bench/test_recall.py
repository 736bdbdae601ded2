"""minillm.bench.recall: the benchmark runs, and its search decides as its text says."""

import math
from dataclasses import replace

import numpy as np
import pytest
import torch

from minillm.bench import recall as bench
from minillm.bench._run import Finished
from minillm.data.recall import Pairs
from minillm.measure.metrics import n_parameters
from minillm.mixers.mamba import MambaConfig
from minillm.optim.muon import Muon

#: Numbers kept of a row of 192 tokens; "shifted" is the convolution's, one token of width 64.
SHIFTED = 64
KEPT = {
    "attention": (2 * 192 * 64 + SHIFTED,),
    "linear, small": (16 * 16 + 16 + SHIFTED,),
    "linear, large": (64 * 64 + 64 + SHIFTED,),
    "retention, small": (4 * 8 * 16 + SHIFTED,),
    "retention, large": (4 * 32 * 16 + SHIFTED,),
    "RWKV, small": (3 * 64 + 64,),
    "RWKV, large": (3 * 256 + 64,),
    "Mamba, small": (128 * 4 + 3 * 128,),
    "Mamba, large": (128 * 16 + 3 * 128,),
    "linear twice": (16 * 16 + 16 + SHIFTED,) * 2,
    "attention, then linear": (2 * 192 * 64 + SHIFTED, 16 * 16 + 16 + SHIFTED),
    "linear, then attention": (16 * 16 + 16 + SHIFTED, 2 * 192 * 64 + SHIFTED),
}
WORK = bench.Work(n_steps=(300, 600, 1200, 2400), seeds=(1, 3), rates=(0.01, 0.02, 0.04))


def searching(share, work=WORK, finished=None):
    """What the search finds where a run is pretended, and the runs: (rate, steps, seed)."""
    runs = []

    def score(name, rate, n_steps, seed):
        runs.append((rate, n_steps, seed))
        return [share(rate, n_steps) + seed / 1000] * 5

    return bench.searched("Mamba, small", score, work, finished or Finished()), runs


def peak(best):
    """A share that falls by 10 points with each factor of 2 away from the best rate."""
    return lambda rate, n_steps: 0.9 - 0.1 * abs(math.log2(rate / best))


# --- by hand ------------------------------------------------------------------------------------
def test_what_each_contender_keeps_is_known():
    assert list(KEPT) == list(bench.CONTENDERS)
    for name, numbers in KEPT.items():
        caches = bench.contender(name, 0).new_cache(1, 192)
        assert tuple(cache.n_bytes for cache in caches) == tuple(4 * n for n in numbers), name


def test_the_two_that_copy_differ_in_one_thing():
    selective, constant = bench.COPIERS.values()
    assert len(selective) == len(constant) == 2
    for one, other in zip(selective, constant, strict=True):
        assert one == replace(other, selective=True) == MambaConfig()
        assert not other.selective


@pytest.mark.parametrize(
    ("best", "tried"),
    [
        (0.02, [0.01, 0.02, 0.04]),
        (0.0025, [0.00125, 0.0025, 0.005, 0.01, 0.02, 0.04]),
        (0.08, [0.01, 0.02, 0.04, 0.08, 0.16]),
    ],
)
def test_a_best_rate_at_the_edge_is_not_believed_before_one_beyond_it(best, tried):
    results, runs = searching(peak(best))
    first = sorted(rate for rate, n_steps, seed in runs if (n_steps, seed) == (300, 0))
    assert first == pytest.approx(tried)
    assert results["rate"] == pytest.approx(best)


def test_the_best_rate_is_that_of_the_mean_over_the_lengths():
    def score(name, rate, n_steps, seed):
        return {0.01: [0.3] * 5, 0.02: [0.5] * 5, 0.04: [0.9, 0.3, 0.3, 0.3, 0.3]}[rate]

    results = bench.searched("RWKV, small", score, replace(WORK, n_steps=(300,)), Finished())
    assert results["rate"] == 0.02


@pytest.mark.parametrize(
    ("by_steps", "n_steps", "settled", "most"),
    [
        ({300: 0.3, 600: 0.4, 1200: 0.41, 2400: 0.9}, 1200, True, 1200),  # 1 point: enough
        ({300: 0.3, 600: 0.4, 1200: 0.425, 2400: 0.426}, 2400, True, 2400),  # 2.5: not yet
        ({300: 0.3, 600: 0.4, 1200: 0.5, 2400: 0.6}, 2400, False, 2400),
        ({300: 0.4, 600: 0.3, 1200: 0.9, 2400: 0.9}, 300, True, 600),  # a worse one replaces none
    ],
)
def test_steps_double_until_that_adds_less_than_two_points(by_steps, n_steps, settled, most):
    results, runs = searching(lambda rate, steps: by_steps[steps] - abs(rate - 0.02))
    assert (results["n_steps"], results["settled"]) == (n_steps, settled)
    assert max(steps for _, steps, seed in runs if seed == 0) == most


def test_longer_runs_take_half_the_rate_where_that_is_better():
    results, runs = searching(lambda rate, steps: 0.1 * math.log2(steps) - abs(rate - 6 / steps))
    assert [run for run in runs if run[1] == 600] == [(0.02, 600, 0), (0.01, 600, 0)]
    assert (results["rate"], results["n_steps"]) == (0.0025, 2400)


def test_what_is_told_are_other_seeds_at_the_best_setting():
    results, runs = searching(peak(0.02))
    assert [run for run in runs if run[2]] == [(0.02, 300, 1), (0.02, 300, 3)]
    assert results["accuracy"] == [pytest.approx([0.901] * 5), pytest.approx([0.903] * 5)]
    assert [(run["n_steps"], run["rate"]) for run in results["search"]] == [
        run[1::-1] for run in runs if run[2] == 0
    ]


def test_a_finished_run_is_not_repeated_and_the_result_is_the_same(tmp_path):
    finished = Finished(tmp_path / "record.json")
    before, runs = searching(peak(0.08), finished=finished)
    after, repeated = searching(peak(0.08), finished=Finished(tmp_path / "record.json"))
    assert before == after
    assert len(runs) == len(set(runs)) == len(finished.results)
    assert repeated == []


def test_the_rate_falls_in_a_straight_line(monkeypatch):
    optimizers, seen = [], []

    def kept(*args, **kwargs):
        optimizers.append(Muon(*args, **kwargs))
        return optimizers[0]

    def batch(step):
        seen.append([group["lr"] for group in optimizers[0].param_groups])
        return Pairs(n_pairs=4).block(step)

    monkeypatch.setattr(bench, "Muon", kept)
    model = bench.contender("linear, small", 0)
    before = model.head.weight.detach().clone()
    bench.learn(model, batch, 4, 0.02, "")
    assert {group["weight_decay"] for group in optimizers[0].param_groups} == {0.0}
    hidden, others = np.transpose(seen)
    assert hidden == pytest.approx([0.02, 0.015, 0.01, 0.005])
    assert others == pytest.approx([0.01, 0.0075, 0.005, 0.0025])
    assert not torch.equal(model.head.weight, before)


# --- twin ---------------------------------------------------------------------------------------
def test_the_share_right_is_that_of_four_blocks_that_no_training_sees():
    model, source, right = bench.contender("linear, small", 0), Pairs(n_pairs=8), []
    for index in range(4):
        questions = source.block(index, seed="held out")
        best = model(questions.tokens).argmax(dim=-1)
        right += (best == questions.targets)[questions.loss_mask].tolist()
    assert len(right) == 4 * 64 * 8
    assert sum(right) > 0
    assert bench.right_share(model, source) == pytest.approx(np.mean(right))


# --- law ----------------------------------------------------------------------------------------
def test_all_contenders_read_the_same_rows_and_are_asked_as_much_each_step(monkeypatch):
    batches = []

    def pretended(model, batch, n_steps, rate, label):
        batches.append([batch(step) for step in range(n_steps)])

    monkeypatch.setattr(bench, "learn", pretended)
    monkeypatch.setattr(bench, "right_share", lambda model, source: source.n_pairs / 100)
    for name, rate, seed in (("attention", 0.01, 1), ("RWKV, small", 0.02, 1), ("attention", 1, 2)):
        assert bench.recalled(name, rate, 20, seed) == [0.04, 0.08, 0.16, 0.32, 0.64]
    one, same, other = batches
    n_pairs = [questions.facts.shape[1] for questions in one]
    assert set(n_pairs) == set(bench.N_PAIRS)
    for questions, n in zip(one, n_pairs, strict=True):
        assert questions.tokens.shape == (512 // n, 3 * n)
        assert questions.loss_mask.sum() == 512
    assert all(torch.equal(a.tokens, b.tokens) for a, b in zip(one, same, strict=True))
    assert [questions.facts.shape[1] for questions in other] != n_pairs
    alike = [(a, b) for a, b in zip(one, other, strict=True) if a.tokens.shape == b.tokens.shape]
    assert alike
    assert not any(torch.equal(a.tokens, b.tokens) for a, b in alike)


def test_a_quick_run_returns_and_prints_every_figure(capsys, monkeypatch):
    work = replace(bench.QUICK, n_steps=(1,), contenders=("attention",))
    monkeypatch.setattr(bench, "QUICK", work)
    monkeypatch.setattr(bench, "N_BLOCKS", 1)
    figures = bench.run(quick=True)
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].startswith(
        "512 questions a step, up to 1 steps, rates from (0.01,), seeds (1,)"
    )
    assert list(figures) == ["attention", *bench.COPIERS]
    of_search = {"rate", "n_steps", "settled", "accuracy", "search"}
    for name, n_lengths, guessing in (
        ("attention", len(bench.N_PAIRS), 0.1),
        *((name, 1, 0.5) for name in bench.COPIERS),
    ):
        (accuracy,) = figures[name]["accuracy"]
        assert len(accuracy) == n_lengths
        assert all(0 <= share < guessing for share in accuracy)  # one step: no better
        assert of_search <= set(figures[name])
        shares = "".join(f"{100 * share:7.1f}" for share in accuracy)
        assert any(line.startswith(f"{name:<24}{shares}") for line in lines)
    attention = figures["attention"]
    assert set(attention) - of_search == {"parameters", "state_bytes"}
    assert attention["parameters"] == n_parameters(bench.contender("attention", 0))
    assert attention["state_bytes"] == 4 * sum(KEPT["attention"])
