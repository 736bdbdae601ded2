"""minillm.bench.votes: groups that vote, predictions from the others, and a run to the end."""

import json
from dataclasses import replace

from minillm.bench import votes as bench
from minillm.bench._run import Finished
from minillm.town.cups import Problem

SETTINGS = replace(bench.Settings(), group=4, n_groups=2)
A, B = "ABCDE", "BACDE"


def test_every_set_of_k_votes_once():
    answers = [[A, B, B, A, None, None, A, None]]
    assert bench.voted(SETTINGS, answers, [A], 1) == 3 / 8
    assert bench.voted(SETTINGS, answers, [A], 2) == 2 / 4  # A B | B A | None None | A None
    assert bench.voted(SETTINGS, answers, [A], 4) == 1.0  # A B B A is a tie: the first given


def test_a_group_is_judged_by_the_other_groups_alone():
    # the first group is all right, the second all wrong: each is predicted from the other
    figures = bench.of_votes(SETTINGS, [[A] * 4 + [B] * 4], [A])
    assert figures["maj@4"] == figures["predicted"]["maj@4"] == figures["pass@4"] == 0.5
    assert figures["wrong mode"] == {"share": 0.5, "maj@1": 1.0, "maj@4": 1.0}
    assert figures["other modes"] == {"share": 0.5, "maj@1": 0.0, "maj@4": 0.0}


def test_a_vote_weighs_each_chain_of_its_group_and_the_best_answers_alone():
    answers, scores = [[A, B, B, B, A, B, B, B]], [0.9, 0.2, 0.2, 0.2, 0.3, 0.5, 0.1, 0.1]
    assert bench._chosen(SETTINGS, bench._by_weight, answers, scores, [A]) == 0.5
    assert bench._chosen(SETTINGS, bench._best, answers, scores, [A]) == 0.5
    assert bench._best([A, None], [0.1, 0.2]) == A  # who has no answer is not asked
    assert bench._best([None], [0.2]) is None


def test_answers_to_renamed_problems_are_translated_back(monkeypatch):
    problems = [Problem("CABED", ((1, 3),)), Problem("ABCDE", ((2, 5),))]

    def right(settings, model, asked, n, seed):
        assert len({problem.start for problem in asked}) > 2  # they are renamed indeed
        return [[problem.completion("steps")] * n for problem in asked]

    monkeypatch.setattr(bench.Settings, "texts", right)
    settings = replace(SETTINGS, n_prompts=2)
    answers = bench.of_renamed(settings, None, problems, seed=0)
    assert answers == [[problem.answer] * 8 for problem in problems]


def test_it_runs_from_end_to_end_and_repeats_nothing(monkeypatch, tmp_path, capsys):
    record = tmp_path / "a.json"
    figures = bench.run(quick=True, finished=Finished(record))
    assert json.loads(json.dumps(figures)) == figures
    (row,) = figures["seeds"]
    assert set(row["verifiers"]) == {
        f"{level}-level, {what}"
        for level in ("answer", "step")
        for what in ("judged rightly", "vote", "best")
    }
    monkeypatch.setattr(bench, "of_seed", None)  # would fail if it were called
    assert bench.run(quick=True, finished=Finished(record)) == figures
    assert "maj@8, predicted" in capsys.readouterr().out
