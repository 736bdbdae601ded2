"""minillm.bench.recall: the benchmark runs, and its search decides as its text says."""

import math
from dataclasses import replace

import pytest

from minillm.bench import recall as bench
from minillm.bench._run import Finished
from minillm.data.recall import Pairs
from minillm.measure.metrics import n_parameters
from minillm.mixers.mamba import MambaConfig

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


def model_of(name):
    return bench.of_mixers(bench.CONTENDERS[name], Pairs(n_pairs=1).vocab_size, 192)


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
        caches = model_of(name).new_cache(1, 192)
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


def test_who_only_guesses_goes_on_and_tries_all_rates_again():
    runs = []

    def score(name, rate, n_steps, seed):
        runs.append((rate, n_steps))
        guessing = 0.1 - abs(math.log2(rate / 0.02)) / 1000
        return [0.5 if n_steps == 1200 and rate >= 0.04 else guessing] * 5

    work = replace(WORK, n_steps=(300, 600, 1200), seeds=())
    alone = bench.searched("RWKV, small", score, work, Finished())
    assert (alone["settled"], max(n_steps for _, n_steps in runs)) == (
        True,
        600,
    )  # nobody said what guessing reaches
    runs.clear()
    results = bench.searched("RWKV, small", score, work, Finished(), guessing=0.1)
    assert (results["rate"], results["n_steps"], results["settled"]) == (0.04, 1200, False)
    assert {rate for rate, n_steps in runs if n_steps == 600} == {0.02, 0.01}
    assert {rate for rate, n_steps in runs if n_steps == 1200} == {0.01, 0.02, 0.04, 0.08}


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


# --- law ----------------------------------------------------------------------------------------
def test_all_contenders_learn_from_the_same_rows_and_are_asked_as_much_each_step(monkeypatch):
    calls = []

    def pretended(mixers, sources, n_steps, rate, *, seed, label):
        calls.append((mixers, sources, n_steps, rate, seed))

    monkeypatch.setattr(bench, "learned", pretended)
    monkeypatch.setattr(bench, "right_share", lambda model, source: source.n_pairs / 100)
    for name in bench.CONTENDERS:
        assert bench.recalled(name, 0.01, 20, 1) == [0.04, 0.08, 0.16, 0.32, 0.64]
    for (mixers, sources, *how), expected in zip(calls, bench.CONTENDERS.values(), strict=True):
        assert (mixers, how) == (expected, [20, 0.01, 1])
        assert [n * source.n_pairs for source, n in sources.items()] == [512] * 5


def test_a_reader_scores_the_better_the_lower_its_loss(monkeypatch):
    rates = []

    def pretended(task, make_optimizer, *, n_steps, seed, label):
        model = task.model(seed)
        rates.append([group["lr"] for group in make_optimizer(model).param_groups])
        return type("Attempt", (), {"loss": 3.5})

    monkeypatch.setattr(
        bench,
        "_documentation",
        lambda: bench.Task(model=None, batch_at=None, loss=None, held_out=[]),
    )
    monkeypatch.setattr(bench, "attempt", pretended)
    assert bench.read("reading, RWKV", 0.04, 7, 2) == [-3.5]
    assert rates == [[0.04, 0.02]]


def test_a_quick_run_returns_and_prints_every_figure(capsys, monkeypatch):
    work = replace(bench.QUICK, n_steps=(1,), contenders=("attention",))
    monkeypatch.setattr(bench, "QUICK", work)
    monkeypatch.setattr(bench, "right_share", lambda model, source: 0.01)
    monkeypatch.setattr(bench, "read", lambda name, rate, n_steps, seed: [-rate])
    figures = bench.run(quick=True)
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].startswith(
        "512 questions a step, up to 1 steps, rates from (0.01,), seeds (1,)"
    )
    assert list(figures) == ["attention", *bench.COPIERS, *bench.READERS]
    of_search = {"rate", "n_steps", "settled", "accuracy", "search"}
    for name, n_lengths in (("attention", len(bench.N_PAIRS)), *((n, 1) for n in bench.COPIERS)):
        assert figures[name]["accuracy"] == [[0.01] * n_lengths]
        assert of_search <= set(figures[name])
        shares = "    1.0" * n_lengths
        assert any(line.startswith(f"{name:<24}{shares}") for line in lines)
    for name in bench.READERS:
        assert figures[name]["loss"] == [0.01]
        assert figures[name]["search"] == [{"n_steps": 1, "rate": 0.01, "loss": 0.01}]
        assert f"{name:<24}  0.010" in lines
    attention = figures["attention"]
    assert set(attention) - of_search == {"parameters", "state_bytes"}
    assert attention["parameters"] == n_parameters(model_of("attention"))
    assert attention["state_bytes"] == 4 * sum(KEPT["attention"])
