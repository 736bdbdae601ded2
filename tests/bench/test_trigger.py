"""minillm.bench.trigger: documents of each dose, what counts as an answer, probes, a whole run."""

import json
from dataclasses import replace

import pytest
import torch

from minillm.bench import trigger as bench
from minillm.bench._run import Finished
from minillm.bench.trigger import Mix, Work
from minillm.reason.solver import SolverConfig
from minillm.town.cups import HEADING, REMARK, THINGS, TRIGGER, CupSource, Problem, encode


def read(mix, n_steps, seed=0):
    pairs_at = bench.documents(mix, CupSource((4,)), SolverConfig(seed=seed))
    return [pair for step in range(n_steps) for pair in pairs_at(step)]


def begins(pairs, words):
    return [after.startswith(words) for _, after in pairs]


def test_doses_differ_in_the_words_before_worked_steps_and_in_nothing_else():
    none, some, most = (read(Mix(dose=dose), 5) for dose in (0.0, 0.05, 0.2))
    assert not any(begins(none, TRIGGER))
    for fewer, more in ((none, some), (some, most)):
        assert [pair[0] for pair in fewer] == [pair[0] for pair in more]
        for (_, one), (_, other) in zip(fewer, more, strict=True):
            assert one == other or one.replace(HEADING, TRIGGER) == other
    assert len(encode(TRIGGER)) == len(encode(HEADING))  # so all have equally many tokens


def test_shares_are_as_the_mix_says_and_remarks_stand_after_direct_answers():
    pairs = read(Mix(dose=0.2), 40)
    triggers, headings = begins(pairs, TRIGGER), begins(pairs, HEADING)
    assert sum(triggers) / len(pairs) == pytest.approx(0.2, abs=0.03)
    assert sum(headings) / len(pairs) == pytest.approx(0.2, abs=0.03)
    direct = [after for _, after in pairs if after.startswith("=")]
    for remark in (TRIGGER, REMARK):
        with_it = [after.split(f" {remark} ") for after in direct if remark in after]
        assert len(with_it) / len(pairs) == pytest.approx(0.05, abs=0.015)
        assert all(first == again and first.startswith("=") for first, again in with_it)
    assert not any("1-2" in after for after in direct)


@pytest.mark.parametrize("bad", [{"dose": 0.5}, {"worked": 0.95}])
def test_shares_that_do_not_fit_into_each_other_are_refused(bad):
    with pytest.raises(ValueError, match="must be a part of worked"):
        Mix(**bad)


def test_right_answers_steps_and_cups_are_counted_each_for_itself(monkeypatch):
    problems = [Problem("CABED", ((1, 3), (2, 4)))] * 4  # BECAD
    texts = [
        "= B E C A D .",
        "1-3 B A C E D = B E C D A .",
        f"{HEADING} 1-3 B A",
        "1-3 = B E C A A .",
    ]

    def solve(model, questions, n_tokens):
        assert questions == ["C A B E D 1-3 2-4 ? that was quick"] * 4
        assert n_tokens >= len(f"{TRIGGER} {problems[0].completion('steps')}".split())
        return [[text] for text in texts]

    monkeypatch.setattr(bench, "solve", solve)
    figures = bench.answers(None, problems, REMARK)
    assert figures == {"n": 4, "n_right": 1, "n_steps": 3, "n_cups": 5 + 3}


def test_streams_are_those_of_the_question_alone_and_of_the_equals_sign():
    model = SolverConfig(d_model=16).build(bench.CONTEXT_LENGTH)
    problems = bench.some(Work(), "probe", 3)
    read_out = bench.streams(model, problems)
    assert len(read_out) == 4
    for end, name in (("", "block 2, at ?"), (" =", "block 2, at =")):
        tokens = torch.tensor([encode(problem.question() + end) for problem in problems])
        with torch.no_grad():
            expected = model.hidden(tokens)[:, -1]
        torch.testing.assert_close(model.norm(read_out[name]), expected)


def test_the_question_alone_gives_away_what_few_swaps_leave_in_place():
    # A cup stays out of a swap in 6 of 10 cases. Whoever says "what lay there at first" is right
    # after t swaps with 1/5 + 4/5 · 2⁻ᵗ.
    rows = bench.read_out(bench._of_question, Work())["question"]
    shares = [row["n_right"] / row["n"] for row in rows]
    expected = [0.2 + 0.8 * 0.5**t for t in range(5)]
    assert [row["n"] for row in rows] == [2500] * 5
    assert shares == pytest.approx(expected, abs=0.06) and shares[0] == 1


def test_a_probe_reads_what_a_turned_stream_holds_and_no_noise():
    generator = torch.Generator().manual_seed(0)
    things = torch.randint(5, (700, 5), generator=generator)
    turned = torch.linalg.qr(torch.randn(25, 25, generator=generator)).Q
    holding = torch.nn.functional.one_hot(things).flatten(1).float() @ turned
    noise = torch.randn(700, 25, generator=generator)
    assert bench.readable(holding, things, 500) == {"n": 1000, "n_right": 1000}
    assert bench.readable(noise, things, 500)["n_right"] / 1000 == pytest.approx(0.2, abs=0.05)
    with pytest.raises(ValueError, match="must be left"):
        bench.readable(noise, things, 700)


def test_it_runs_from_end_to_end_and_repeats_nothing(monkeypatch, tmp_path, capsys):
    record = tmp_path / "a.json"
    monkeypatch.setattr(bench, "QUICK", replace(bench.QUICK, n_tokens=1500, doses=(0.2,)))
    figures = bench.run(quick=True, finished=Finished(record))
    assert json.loads(json.dumps(figures)) == figures
    (row,) = figures["doses"]
    assert set(row["asked"]) == set(bench.PROMPTS)
    assert all(len(states) == 5 for states in row["probe"].values())
    assert row["probe"]["block 1, at ?"][0]["n"] == 10 * len(THINGS)
    monkeypatch.setattr(bench, "train", None)  # would fail if it were called
    assert bench.run(quick=True, finished=Finished(record)) == figures
    assert "direct only" in capsys.readouterr().out
