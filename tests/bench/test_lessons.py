"""minillm.bench.lessons: which shop has it, what each kind of lesson is worth, a whole run."""

import json
from dataclasses import replace

from minillm.agents.errands import NOTHING
from minillm.agents.imitate import follow
from minillm.bench import lessons as bench
from minillm.bench._errands import Agent, oracle
from minillm.bench._run import Finished
from minillm.town.map import SLACK, right_action


def test_the_first_shop_is_sold_out_always_or_in_every_other_errand():
    always, half = (bench.starts_of(case, 10, 0) for case in bench.CASES)
    for n, (one, other) in enumerate(zip(always, half, strict=True)):
        assert one.task.stocked == {one.task.shops[1]}
        assert other.task.stocked == {one.task.shops[n % 2]}
        assert one.view() == other.view()
        assert other.task.most_steps == other.task.n_shortest + SLACK


def test_the_oracle_is_right_after_a_true_lesson_and_wrong_after_a_false_one():
    always, half = (bench.measure(oracle(), case, 10, 0) for case in bench.CASES)
    names = ("own", "rule", "none", "another's", "false")
    assert [always["second"][name] for name in names] == [1, 1, 0, 0, 0]
    assert [half["second"][name] for name in names] == [1, 1, 0.5, 0.5, 0.5]
    names = ("another's, all", "false, all", "second shop, all")
    assert [always["second"][name] for name in names] == [0, 0, 1]
    assert [half["second"][name] for name in names] == [0.5, 0, 0.5]
    assert (always["first"], half["first"], half["n_lessons"], half["right"]) == (0, 0.5, 5, 1)


def test_who_writes_nothing_gains_nothing():
    agent = Agent(oracle().act, lambda questions: [NOTHING for _ in questions])
    row = bench.measure(agent, "always", 4, 0)
    assert (row["second"]["own"], row["second"]["rule"], row["right"]) == (0, 1, 0)
    assert row["examples"] == [NOTHING] * 4


def test_a_lesson_is_heeded_until_the_first_shop_is_asked():
    def deaf(states, n_actions):
        return [right_action(replace(state, lessons=())) for state in states]

    for act, heeded in ((deaf, 0), (follow(right_action), 1)):
        agent = Agent(lambda note, act=act: act, list)
        assert bench.measure(agent, "always", 6, 0)["heeded"] == heeded


def test_only_a_lesson_about_this_good_at_the_first_shop_turns_the_oracle():
    assert bench.turns(oracle(), 10, 0) == {kind: kind == "first shop" for kind in bench.KINDS}
    away = Agent(lambda note: lambda states, n: [second(state) for state in states], list)
    assert bench.turns(away, 10, 0) == dict.fromkeys(bench.KINDS, 1)


def second(state):
    return bench.step_to_take(state, state.task.shops[1])


def test_another_errands_lesson_is_of_the_next_one():
    assert bench._others(["a", "b", "c"]) == ["b", "c", "a"]


def test_it_runs_from_end_to_end_and_repeats_nothing(monkeypatch, tmp_path, capsys):
    monkeypatch.setattr(bench, "open_agent", oracle)
    figures = bench.run(quick=True, finished=Finished(tmp_path / "a.json"))
    assert json.loads(json.dumps(figures)) == figures
    assert [(row["agent"], row["case"]) for row in figures["rows"]] == [
        (agent, case) for agent in ("oracle", "model") for case in bench.CASES
    ]
    assert [row["agent"] for row in figures["first decisions"]] == ["oracle", "model"]
    for name in ("measure", "turns"):
        monkeypatch.setattr(bench, name, lambda *how: 1 / 0)
    assert bench.run(quick=True, finished=Finished(tmp_path / "a.json")) == figures
    assert "of 2 own lessons, 100.0 % are those of the rule" in capsys.readouterr().out
