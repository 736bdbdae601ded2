"""minillm.bench.remember: right memories are right, ways to score, chosen weights, a whole run."""

import json
import re

import pytest

from minillm.agents import memory
from minillm.agents.memory import Memory
from minillm.bench import remember as bench
from minillm.bench._run import Finished
from minillm.bench.remember import Days, Question


@pytest.fixture(scope="module")
def ten():
    return bench.days("test")


def parts(ten, kind):
    """Of each question of a kind: what it asks about, its right texts, and all others in order."""
    for question in ten.questions:
        if question.kind == kind:
            about = re.fullmatch(
                r"Any news from (.*)\?|What does (.*) cost\?|What happened at (.*)\?|"
                r"Who talks about (.*)\?",
                question.text,
            )
            right = sorted(question.right)
            yield about[about.lastindex], right, [ten.memories[n].text for n in right]


# --- by hand --------------------------------------------------------------------------------------
def test_news_are_the_newest_of_three_kinds_about_somebody(ten):
    texts = [each.text for each in ten.memories]
    for person, right, _ in parts(ten, "news"):
        newest = [
            max(n for n, text in enumerate(texts) if text.startswith(f"{person} has {what}"))
            for what in ("moved to", "begun to work for", "made friends with")
        ]
        assert sorted(newest) == right


def test_the_price_that_holds_now_was_seen_last_and_three_times(ten):
    texts = [each.text for each in ten.memories]
    for good, right, three in parts(ten, "prices"):
        sightings = [n for n, text in enumerate(texts) if text.startswith(f"{good} costs ")]
        assert sightings[-3:] == right and len({*three}) == 1
        assert texts[sightings[-4]] != three[0]


def test_events_and_talks_are_all_there_are(ten):
    texts = [each.text for each in ten.memories]
    starts = tuple(text.split("{")[0] for text, _ in bench.EVENTS)
    for place, right, _ in parts(ten, "events"):
        all_there = [n for n, t in enumerate(texts) if t.startswith(starts) and t.endswith(place)]
        assert all_there == right
    for subject, right, _ in parts(ten, "talk"):
        assert [n for n, text in enumerate(texts) if text.endswith(f"about {subject}")] == right


def test_days_are_a_pure_function_with_three_right_memories_a_question(ten):
    assert ten == bench.days("test") != bench.days("other")
    assert {len(question.right) for question in ten.questions} == {3}
    hours = [each.created_at for each in ten.memories]
    assert hours == sorted(hours) and hours[-1] < bench.NOW


def test_the_released_formula_prefers_the_oldest_and_the_mended_one_the_newest():
    some = [Memory("a", 1.0, 1), Memory("a", 2.0, 1)]
    assert memory.best(memory.released_sum(some, [0.0, 0.0], 3), 1) == [0]
    assert memory.best(bench.newest_first(some, [0.0, 0.0], 3), 1) == [1]
    assert bench.weighted((1, 0, 0))(some, [0.9, 0.0], 3) == [0.0, 1.0]


def test_weights_are_those_with_the_most_right_memories():
    texts = ["a fire", "a feast", "the mill", "the mill is shut", "the mill burns"]
    some = tuple(Memory(text, float(n), 9 - 2 * n) for n, text in enumerate(texts))
    town = Days(some, (Question("talk", "the mill?", frozenset({2, 3, 4})),))
    assert bench.choose_weights([town], (0.0, 1.0)) == [0.0, 0.0, 1.0]


def test_it_runs_from_end_to_end_and_repeats_nothing(monkeypatch, tmp_path, capsys):
    monkeypatch.setattr(bench, "N_TRIVIA", 20)
    monkeypatch.setattr(bench, "N_SUBJECTS", 3)
    figures = bench.run(quick=True, finished=Finished(tmp_path / "a.json"))
    assert json.loads(json.dumps(figures)) == figures
    (row,) = figures["rows"]
    for recall in row["recall"].values():
        assert recall["all"] == pytest.approx(sum(recall[kind] for kind in bench.KINDS) / 4)
        assert recall["all"] <= recall["all of 30"] <= 1
    singles = [figures["means"][name]["all"] for name in bench.SINGLE]
    assert figures["gains"]["sum"] == figures["means"]["sum"]["all"] - max(singles)
    monkeypatch.setattr(bench, "days", None)  # would fail if it were called
    assert bench.run(quick=True, finished=Finished(tmp_path / "a.json")) == figures
    assert "product and sum retrieve the same three" in capsys.readouterr().out
