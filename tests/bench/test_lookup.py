"""minillm.bench.lookup: facts, rows, exams that hold out what they should, a whole run."""

import json

import pytest

from minillm.bench import lookup as bench
from minillm.bench._run import Finished
from minillm.bench.lookup import Exam, Work
from minillm.town.world import World

FACTS = {
    "mother of ya nan": "mi bo",
    "child of mi bo": "ya nan",
    "job of mi bo": "tea house keeper",
    "likes of mi bo": "rain",
    "likes of ya nan": "kites",
}


# --- by hand --------------------------------------------------------------------------------------
def test_questions_over_two_facts_are_those_whose_facts_are_there():
    questions = ["job of mother of ya nan", "likes of mother of ya nan", "likes of child of mi bo"]
    assert bench.over_two(FACTS) == questions


def test_both_models_read_the_same_question_and_answer():
    question = "job of mother of ya nan"
    assert bench.row(question, FACTS, "closed book") == (f"{question} ?", "tea house keeper .")
    assert bench.row(question, FACTS, "look-up") == (
        f"{question} ?",
        "[ mother of ya nan ]",
        "mi bo ;",
        "[ job of mi bo ]",
        "tea house keeper ;",
        "tea house keeper .",
    )


def test_facts_are_those_of_the_town():
    world = World(1, n_people=60)
    facts = bench.facts_of(world)
    mothers = [call for call in facts if call.startswith("mother")]
    assert mothers
    for call in mothers:
        child, mother = (
            world.person(name.replace(" ", "").capitalize())
            for name in (call.removeprefix("mother of "), facts[call])
        )
        assert mother.name in child.parents and mother.pronoun == "she"
        assert facts[f"likes of {facts[call]}"] == mother.likes.lower()


# --- law ------------------------------------------------------------------------------------------
def test_what_is_held_out_is_in_no_training_but_both_its_facts_are():
    questions, exams = bench.split(Work(n_people=100), 1)
    held_out, new = exams["held out"], exams["new town"]
    assert held_out.questions and not set(held_out.questions) & set(questions)
    for question in held_out.questions:
        assert {call for call, _ in bench.solution(question, held_out.facts)} <= set(questions)
    assert not set(new.facts) & set(questions)
    assert set(exams["trained on"].questions) <= set(questions)


def test_words_come_back_and_those_of_the_new_town_are_known():
    _, exams = bench.split(Work(n_people=60), 1)
    words = bench.words_of(*(exam.facts for exam in exams.values()))
    for exam in exams.values():
        for turn in bench.row(exam.questions[0], exam.facts, "look-up"):
            assert words.decode(words.encode(turn)) == turn


# --- what is written is read by the look-up -------------------------------------------------------
def test_calls_are_answered_and_counted_apart_from_answers(monkeypatch):
    question, words = "job of mother of ya nan", bench.words_of(FACTS)
    monkeypatch.setattr(bench, "generate", lambda model, prompts, *_, **__: model.pop(0))

    def counts(*turns):
        model = [[words.encode(turn)] for turn in turns]
        row = bench.right_answers(model, Exam([question], FACTS), words)
        assert row["n"] == 1
        return row["n_right"], row["n_called"]

    right = ("[ mother of ya nan", "[ job of mi bo", "tea house keeper")
    assert counts(*right) == (1, 1)
    assert counts(*right[:2], "rain") == (0, 1)
    assert counts("[ job of mi bo", "tea house keeper") == (1, 0)
    assert counts("tea house keeper") == (1, 0)
    assert counts("[ father of ya nan", "[ job of mi bo", "[ job of mi bo") == (0, 0)


def test_a_call_without_a_fact_gives_nothing(monkeypatch):
    words = bench.words_of(FACTS)
    turns = [[words.encode("[ job of ya nan")], [words.encode("rain")]]
    monkeypatch.setattr(bench, "generate", lambda *_, **__: turns.pop(0))
    (text,) = bench.write(None, ["job of ya nan"], words, lambda call: FACTS.get(call, "nothing"))
    assert text == "[ job of ya nan ] nothing ; rain ."


def test_the_guess_is_the_most_frequent_answer(monkeypatch):
    often, rarely = "likes of child of mi bo", "likes of mother of ya nan"
    single = "likes of mi bo"  # rain, as the rare one
    exams = {"held out": Exam([often], FACTS), "new town": Exam([rarely], FACTS)}
    monkeypatch.setattr(
        bench, "split", lambda work, seed: ([rarely, often, often, single, single], exams)
    )
    monkeypatch.setattr(bench, "ATTRIBUTES", ("likes",))
    assert bench.guessing(Work(), 1) == {"held out": 1.0, "new town": 0.0}


def test_it_runs_from_end_to_end_and_repeats_nothing(monkeypatch, tmp_path, capsys):
    record = tmp_path / "a.json"
    figures = bench.run(quick=True, finished=Finished(record))
    assert json.loads(json.dumps(figures)) == figures
    assert figures["better"] == dict.fromkeys(bench.ARMS, "0.02")
    (row,) = figures["look-up"]["0.02"]
    assert row["held out"]["n"] == pytest.approx(4, abs=1)
    monkeypatch.setattr(bench, "train", None)  # would fail if it were called
    assert bench.run(quick=True, finished=Finished(record)) == figures
    assert "guessing, new town" in capsys.readouterr().out
