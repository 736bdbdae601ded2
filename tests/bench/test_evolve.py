"""minillm.bench.evolve: four ways of as many examples, two tests, and what wrong answers are."""

from collections import Counter
from dataclasses import replace

import pytest

from minillm.bench import evolve as bench
from minillm.bench._run import Finished
from minillm.bench._tuned import QUESTIONS, Base
from minillm.town.chains import HELD_OUT_PAIRS, chain, needs_every_step, step_pairs
from minillm.town.lists import Item
from minillm.town.requests import HELD_OUT
from tests.bench.test__tuned import a_base

ITEMS = Item("plums", "李子"), Item("pears", "梨"), Item("buns", "小圆面包")
BASE = a_base(context_length=512, n_steps=1, n_examples=80, n_questions=6, seeds=(0, 1))


def test_all_ways_have_as_many_examples_and_the_control_as_many_steps():
    ways = {arm: bench.examples(BASE, arm, 3) for arm in bench.ARMS}
    assert all(len(instructions) == 80 for instructions, _ in ways.values())
    (seeds, about_seeds), (evolved, about), (kept, about_kept), (drawn, about_drawn) = ways.values()
    assert about_seeds == {"steps": {"1": 80}}
    assert evolved[:20] == kept[:20] == seeds[:20]
    assert about["origins"]["seed"] == 20
    assert sum(about["origins"].values()) == 80
    assert set(about_kept["eliminated"]) <= {"cannot be done"} < set(about["eliminated"])
    assert about_drawn == {"steps": about["steps"]}
    assert Counter(len(each.steps) for each in drawn) == {
        int(n): share for n, share in about["steps"].items()
    }
    assert len({each.text for each in drawn}) == 80


def test_what_does_not_fit_into_the_context_is_thrown_out():
    tight = a_base(context_length=130, n_examples=80)
    _, about = bench.examples(tight, "evolved", 0)
    assert about["eliminated"]["too long"] > 0
    assert "too long" not in bench.examples(BASE, "evolved", 0)[1]["eliminated"]


@pytest.mark.parametrize(
    ("answer", "name"),
    [
        ("buns, plums", "right"),
        ("小圆面包、李子", "other form"),
        ("plums, buns", "first step alone"),
        ("buns, pears, plums", "last step alone"),
        ("pears", "else"),
        ("", "no end"),
    ],
)
def test_what_an_answer_to_two_steps_is(answer, name):
    asked = chain([("without", (2,)), ("reverse", ())], ITEMS)
    assert bench.outcome(asked, answer) == name


def test_a_last_step_that_cannot_stand_alone_is_no_outcome():
    tea = Item("tea", "茶")
    asked = chain([("append", (tea,)), ("before", (tea,))], ITEMS)
    assert bench.outcome(asked, "pears") == "else"
    assert bench.outcome(asked, "plums, pears, buns, tea") == "first step alone"


def test_both_tests_are_asked_of_what_was_tuned_and_no_run_is_done_twice(monkeypatch, capsys):
    asked, tuned = [], []

    def tune(base, conversations, *, seed=0):
        tuned.append((len(conversations), seed))
        return tuned[-1]

    def answers(base, model, conversations):
        asked.append([each[-1].content for each in conversations])
        assert model == tuned[-1]
        truth = {each.text: each.answer for each in hard + easy}
        return [truth[text] if n < 3 + model[1] else "" for n, text in enumerate(asked[-1])]

    hard = bench.chains(6, QUESTIONS, pairs=HELD_OUT_PAIRS)
    easy = bench.some(6, QUESTIONS, combinations=sorted(HELD_OUT))
    assert all(set(step_pairs(each.steps)) <= HELD_OUT_PAIRS for each in hard)
    assert all(needs_every_step(each) for each in hard)
    monkeypatch.setattr(Base, "tune", tune)
    monkeypatch.setattr(Base, "answers", answers)
    finished = Finished()
    figures = bench.run(base=BASE, finished=finished)
    assert asked[:2] == [[each.text for each in hard], [each.text for each in easy]]
    assert tuned == [(80, seed) for seed in (0, 1) for _ in bench.ARMS]
    assert figures["rows"][0]["outcomes"]["right"] == figures["rows"][0]["outcomes"]["no end"] == 3
    assert figures["means"]["easy"] == pytest.approx(dict.fromkeys(bench.ARMS, 7 / 12))
    assert bench.run(base=BASE, finished=finished) == figures
    assert len(tuned) == 8
    assert "hard test, all seeds" in capsys.readouterr().out
    quick = bench.run(base=replace(BASE), quick=True)
    assert [row["hard"]["n"] for row in quick["rows"]] == [4] * 4


def test_gains_are_those_of_the_evolved_seed_by_seed():
    right = {"seeds": (10, 20), "evolved": (40, 40), "kept": (30, 50), "drawn": (40, 45)}
    rows = [
        {"arm": arm, "hard": {"n_right": n, "n": 100}, "easy": {"n_right": 50, "n": 100}}
        for arm, both in right.items()
        for n in both
    ]
    figures = bench.conclude(rows)
    assert figures["means"]["hard"]["seeds"] == pytest.approx(0.15)
    assert figures["gains"]["hard"]["seeds"]["each"] == pytest.approx([0.3, 0.2])
    assert figures["gains"]["hard"]["drawn"]["mean"] == pytest.approx(-0.025)
    assert figures["gains"]["easy"].keys() == {"seeds", "kept", "drawn"}
