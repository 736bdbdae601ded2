"""minillm.bench.scratchpad: when a run ends, what it counts, and that it runs to the end."""

import json
from dataclasses import replace

import pytest

from minillm.bench import scratchpad as bench
from minillm.bench._run import Finished
from minillm.reason.solver import SolverConfig, pairs_of
from minillm.town.addition import FORMATS, Sum, is_held_out


def a_run(n_sums, reached=True, n_right=9):
    curve = [[n_sums, n_right, n_right]]
    return {"n_sums": n_sums, "n_tokens": 3 * n_sums, "reached": reached, "curve": curve}


def test_no_sum_that_is_asked_is_in_a_training_and_all_formats_learn_the_same():
    asked = bench.questions(100)
    assert len(asked) == 100 and asked == bench.questions(128)[:100]
    assert all(map(is_held_out, asked))
    steps = [pairs_of(bench.SOURCE, style, SolverConfig(seed=7))(3) for style in FORMATS]
    assert [[question for question, _ in pairs] for pairs in steps] == [
        [question for question, _ in steps[0]]
    ] * 3


def test_answers_are_read_in_their_format_and_steps_only_where_there_are_some(monkeypatch):
    asked = [Sum(29, 57), Sum(95, 17), Sum(44, 44)]
    good = [each.completion("scratchpad") for each in asked]

    def write(texts):
        monkeypatch.setattr(bench, "solve", lambda *_, **__: [[text] for text in texts])

    write([good[0], good[1].replace("1 + 1 =", "1 + 0 ="), good[2].replace("; 8 8", "; 8 9")])
    assert bench.n_right(None, asked, "scratchpad") == (2, 1)
    write(["6 8 .", "1 1 2 .", "8 8"])
    assert bench.n_right(None, asked, "reversed") == (1, 1)


@pytest.mark.parametrize(("n_right", "n_steps", "reached"), [(19, 4, True), (18, 7, False)])
def test_a_run_ends_at_95_percent_or_at_its_limit_and_counts_what_it_has_read(
    monkeypatch, n_right, n_steps, reached
):
    rights = iter([0, n_right, n_right, n_right])
    monkeypatch.setattr(bench, "n_right", lambda *_: (next(rights), 0))
    work = bench.Work(n_steps=7, every=2, n_questions=20)
    run = bench.learned("plain", 3e-3, 5, work)
    assert run["reached"] is reached and run["n_sums"] == 64 * n_steps
    pairs_at = pairs_of(bench.SOURCE, "plain", SolverConfig(seed=5))
    texts = [" ".join(pair) for step in range(n_steps) for pair in pairs_at(step)]
    assert run["n_tokens"] == sum(len(text.split()) for text in texts)
    assert [each[0] for each in run["curve"]] == [64 * n for n in (2, 4, 6, 7) if n <= n_steps]


def test_what_was_not_reached_has_no_ratio_and_what_plain_did_not_reach_is_a_bound():
    half = bench.against([a_run(4), a_run(6)], [a_run(8), a_run(8, reached=False)])
    assert half == {"sums": 0.625, "tokens": 0.625, "bound": True}
    never = bench.against([a_run(4), a_run(4, reached=False)], [a_run(8), a_run(8)])
    assert never == {"sums": None, "tokens": None, "bound": False}


def test_the_rate_is_the_one_that_needs_fewest_sums_of_seed_0(monkeypatch, capsys):
    by_rate = {1e-3: a_run(9), 3e-3: a_run(5), 6e-3: a_run(3, reached=False)}
    monkeypatch.setattr(bench, "QUICK", replace(bench.QUICK, rates=tuple(by_rate), seeds=(1, 2)))
    calls = []

    def learned(style, rate, seed, work):
        calls.append((style, rate, seed))
        return by_rate[rate] | {"n_asked": 20}

    monkeypatch.setattr(bench, "learned", learned)
    figures = bench.run(quick=True)
    assert all(figures[style]["rate"] == 3e-3 for style in FORMATS)
    assert [call for call in calls if call[2]] == [(s, 3e-3, n) for s in FORMATS for n in (1, 2)]
    assert bench._slowness(a_run(5)) < bench._slowness(a_run(3, reached=False))
    assert bench._slowness(a_run(9, False, 8)) < bench._slowness(a_run(9, False, 7))
    by_rate[3e-3] = a_run(5, reached=False)
    by_rate[1e-3] = a_run(9, reached=False)
    bench.run(quick=True)
    assert "more than" in capsys.readouterr().out


def test_it_runs_from_end_to_end_and_repeats_nothing(monkeypatch, tmp_path, capsys):
    record = tmp_path / "a.json"
    figures = bench.run(quick=True, finished=Finished(record))
    assert json.loads(json.dumps(figures)) == figures
    assert figures["plain"]["runs"][0]["n_sums"] == 128
    monkeypatch.setattr(bench, "learned", lambda *_: 1 / 0)  # must not be called
    assert bench.run(quick=True, finished=Finished(record)) == figures
    assert "scratchpad" in capsys.readouterr().out
