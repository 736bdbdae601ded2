"""minillm.bench.prompts: unseen questions, ways to ask, replay, and that it runs to the end."""

import json

import pytest

from minillm.bench import prompts as bench
from minillm.bench._run import Finished
from minillm.bench._tuned import some
from minillm.town.market import MarketSource, read_answer
from minillm.town.world import World
from minillm.tune.chat import Answer
from tests.bench.test__tuned import a_base

PROBLEMS = MarketSource(World()).block(0, "test")


@pytest.fixture(autouse=True)
def few_were_read(monkeypatch):
    """Short lists in place of all training data."""
    read = frozenset(each.question for each in MarketSource(World()).block(0, bench.QUESTIONS)[::2])
    monkeypatch.setattr(bench, "read_questions", lambda language: read)
    monkeypatch.setattr(bench, "PARTS_OF_BASE", 400)
    monkeypatch.setattr(bench, "SHOT_TOKENS", 300)  # of a tokenizer of bytes


def test_what_was_read_is_not_asked():
    asked = bench.unseen(20)
    whole = MarketSource(World()).block(0, bench.QUESTIONS)
    assert asked == [each for each in whole if each.question not in bench.read_questions("en")][:20]
    assert whole[0] not in asked and whole[1] in asked


def test_every_way_asks_the_question_last_and_shows_what_it_says():
    *shots, problem = PROBLEMS[:3]
    for way, make in bench.PLAIN.items():
        shown, _, asked = make(shots, problem).rpartition("\n\n")
        assert asked.startswith(problem.question)
        assert [each.question in shown for each in shots] == [way.startswith("shots")] * 2
        assert ("Steps: " in shown) == way.startswith("shots, steps")
    for way, make in bench.CHAT.items():
        *solved, asked = make(shots, problem)
        assert asked.content.startswith(problem.question)
        assert asked.content.endswith("step by step.") == (way == "trigger")
        assert [read_answer(each.content) for each in solved[1::2]] == (
            [each.answer for each in (shots[::-1] if "reversed" in way else shots)]
            if way.startswith("shots")
            else []
        )
        assert any(" = " in each.content for each in solved) == way.startswith("shots, steps")


def test_answers_are_read_behind_the_label_and_steps_are_counted_apart(monkeypatch):
    base, asked = a_base(n_questions=4), bench.unseen(4)
    exam = bench.exam_for(base)
    assert [each for _, each in exam] == asked
    assert len({shot.question for shots, _ in exam for shot in shots}) == 8  # none comes twice
    texts = [f" {each.answer}." for each in asked[:2]] + [" 1 + 1 = 2. Answer: 9999.", "plums"]
    monkeypatch.setattr(bench, "continued", lambda *how: texts)
    row = bench.asked_plainly(base, None, "Answer:", exam)
    assert row == {"right": {"n_right": 2, "n": 4}, "steps": {"n_right": 1, "n": 4}}
    assert bench.asked_plainly(base, None, "question", exam)["right"]["n_right"] == 0
    spoken = [Answer(f"Answer: {each.answer}.", ended=i > 0) for i, each in enumerate(asked)]
    monkeypatch.setattr(bench.chat, "answers", lambda *args, **how: spoken)
    assert bench.asked_in_chat(base, None, "question", exam)["right"]["n_right"] == 3


@pytest.mark.parametrize("share", [0, 0.2])
def test_replay_is_its_share_of_all_tokens(share):
    base = a_base()
    talks = bench.conversations(some(40, 0))
    examples = [bench.chat.example(each, base.tokenizer) for each in talks]
    again = bench.replayed(base, examples, share, 0)
    sizes = [sum(len(each.ids) for each in group) for group in (again, examples)]
    assert sizes[0] / sum(sizes) == pytest.approx(share, abs=0.02)
    assert all(all(each.loss_mask[1:]) for each in again)


def test_it_runs_from_end_to_end_and_repeats_nothing(monkeypatch, tmp_path, capsys):
    monkeypatch.setattr(bench, "open_base", lambda: a_base(context_length=330))
    monkeypatch.setattr(bench, "SHOT_TOKENS", 150)
    monkeypatch.setattr(bench, "N_SHOTS", 1)
    monkeypatch.setattr(bench, "N_TOKENS", 3)
    monkeypatch.setattr(bench._tuned, "N_TOKENS", 3)
    record = tmp_path / "a.json"
    figures = bench.run(quick=True, finished=Finished(record))
    assert json.loads(json.dumps(figures)) == figures
    assert list(figures["prompts"]) == ["town-base", "chat-1m", "steps-1m"]
    assert [row["way"] for row in figures["tuning"]] == ["requests", "replay"]
    assert figures["before"]["Steps:"]["n"] == figures["tuning"][0]["requests"]["n"] == 4
    monkeypatch.setattr(bench, "skills", None)  # would fail if it were called
    assert bench.run(quick=True, finished=Finished(record)) == figures
    assert "wrote steps" in capsys.readouterr().out
