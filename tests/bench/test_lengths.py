"""minillm.bench.lengths: numbers that move, steps up to the first wrong one, and a whole run."""

import json
import random
from itertools import islice

import pytest

from minillm.bench import lengths as bench
from minillm.bench._run import Finished
from minillm.reason.solver import SolverConfig
from minillm.town.cups import MOST_SWAPS, CupSource


def numbers(text):
    return [int(word[1:]) for word in text.split() if word.startswith("#")]


def test_numbers_begin_at_one_or_anywhere_and_question_and_steps_agree():
    pairs = {way: bench.pairs_at(way, SolverConfig(seed=3))(0) for way in bench.WAYS}
    assert not any("#" in question + after for question, after in pairs["steps"])
    assert all(numbers(question)[0] == 1 for question, _ in pairs["numbered"])
    begins = set()
    for (question, after), (plain, _) in zip(pairs["anywhere"], pairs["numbered"], strict=True):
        assert numbers(question) == numbers(after)
        assert bench.moved(question, 1 - numbers(question)[0]) == plain
        begins.add(numbers(question)[0])
        assert numbers(question)[-1] <= MOST_SWAPS
    assert len(begins) > 5
    assert pairs["anywhere"] == bench.pairs_at("anywhere", SolverConfig(seed=3))(0)


def test_all_numbers_up_to_the_last_are_learned_only_where_they_begin_anywhere():
    moves = [bench.drawn_move(random.Random(n), "anywhere", 6) for n in range(200)]
    assert {min(moves), max(moves)} == {0, MOST_SWAPS - 6}
    assert {bench.drawn_move(random.Random(n), "numbered", 6) for n in range(20)} == {0}


@pytest.mark.parametrize("way", bench.WAYS)
def test_who_solves_them_all_is_right_at_every_step_and_who_stops_is_not(monkeypatch, way):
    style = bench.WAYS[way]
    problems = list(islice(CupSource((7,)).problems("questions"), 3))

    def write(n_swaps):
        def solve(model, asked, n_tokens):
            texts = []
            for question, problem in zip(asked, problems, strict=True):
                by = numbers(question)[0] - 1 if style == "indexed" else 0
                assert bench.moved(problem.question(style), by) == question
                steps = " ".join(problem.steps(style)[:n_swaps])
                texts.append([bench.moved(f"{steps} = {' '.join(problem.answer)} .", by)])
            return texts

        monkeypatch.setattr(bench, "solve", solve)
        return bench.answers(None, way, 7, 3)

    assert write(7) == (3, 7.0)
    assert write(4) == (3, 4.0)  # the answers are right by luck


def test_it_runs_from_end_to_end_and_repeats_nothing(monkeypatch, tmp_path, capsys):
    record = tmp_path / "a.json"
    figures = bench.run(quick=True, finished=Finished(record))
    assert json.loads(json.dumps(figures)) == figures
    assert all(len(figures[way][0]["n_right"]) == 2 for way in bench.WAYS)
    monkeypatch.setattr(bench, "learned", lambda *_: 1 / 0)  # must not be called
    assert bench.run(quick=True, finished=Finished(record)) == figures
    assert "anywhere" in capsys.readouterr().out
