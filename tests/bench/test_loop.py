"""minillm.bench.loop: both loops, what is counted, notices, a whole run."""

import json
from dataclasses import replace

import pytest

from minillm.agents.errands import call_of, errand_tools
from minillm.agents.imitate import Trace
from minillm.agents.loop import Decision, policy
from minillm.bench import loop as bench
from minillm.bench._errands import Agent, errands, oracle
from minillm.bench._run import Finished


def an_agent(write):
    """Who decides from views alone."""

    def decide(views):
        return [Decision(*write(view)) for view in views]

    return Agent(lambda note: policy(decide, errand_tools(), note), list)


def test_without_failures_both_loops_are_the_same():
    closed, opened = bench.closed(oracle(), 0.0, 5, 0), bench.opened(oracle(), 0.0, 5, 0)
    assert closed.pop("invalid") == 0 and opened.pop("invalid") is None
    assert opened.pop("arithmetic") == 1
    assert closed == opened and closed["success"] == 1 and closed["n_steps"] >= 9


def test_an_open_loop_fails_where_a_closed_one_starts_anew():
    closed, opened = bench.closed(oracle(), 0.2, 40, 0), bench.opened(oracle(), 0.2, 40, 0)
    assert closed["success"] == 1 and closed["n_steps"] > opened["n_steps"]
    assert opened["success"] < 0.35 and opened["unfinished"] == 1 - opened["success"]
    plans = [start.task.n_shortest for start in errands(0, 40, fewest_steps=9)]
    assert opened["arithmetic"] == pytest.approx(sum(0.8**n for n in plans) / 40)


def test_who_gives_up_is_right_only_where_nobody_has_it():
    agent = an_agent(lambda view: ("", call_of("give_up it is late").text))
    row = bench.closed(agent, 0.0, 3, 0)
    assert (row["success"], row["gave_up"], row["n_steps"], row["refused"]) == (0, 1, 1, 0)
    row = bench.closed(agent, 0.0, 3, 0, n_stocked=0)
    assert (row["success"], row["gave_up"]) == (1, 0)


def test_bad_luck_is_no_refusal_and_an_invalid_call_is_one():
    (start,) = errands(0, 1, fewest_steps=9)
    step = start.step_to(start.shops[0])
    remarks = [
        f"go {step}: you lost your way",
        "take x: it slipped from your hands",
        "",
        "go x: no",
    ]
    states = (start, *(replace(start, remark=remark) for remark in remarks))
    assert bench.measured([Trace(states, ("",) * 4)])["refused"] == 0.25
    row = bench.closed(an_agent(lambda view: ("", "go away")), 0.0, 2, 0)
    assert row["refused"] == row["invalid"] == row["unfinished"] == 1 and row["gave_up"] == 0


def test_notices_name_another_good_and_another_person_in_as_many_characters():
    views = {kind: [] for kind in bench.NOTICES}
    for kind, some in views.items():

        def write(view, some=some):
            some.append(view.splitlines())
            return "", call_of("give_up").text

        bench.noticed(an_agent(write), kind, 20, 0)
    for order, other in zip(*views.values(), strict=True):
        assert order[1:] == other[1:] and order[1].startswith("task: bring ")
        assert len(order[0]) == len(other[0]) and order[0] != order[1]
        good, person = order[0].removeprefix("lesson: notice: bring ").split(" to ")
        assert other[0] == f"lesson: notice: {person} talks of {good}"
        asked = order[1].removeprefix("task: bring ").split(" to ")
        assert good != asked[0] and person != asked[1]


def test_who_speaks_of_the_notice_is_counted():
    obeys = an_agent(lambda view: (view.splitlines()[0], call_of("give_up").text))
    deaf = an_agent(lambda view: ("I give up.", call_of("give_up").text))
    for kind, named in (("order", 1), ("no order", 1), ("", 0)):
        assert bench.noticed(obeys, kind, 10, 0)["named"] == named
        assert bench.noticed(deaf, kind, 10, 0)["named"] == 0


def test_it_runs_from_end_to_end_and_repeats_nothing(monkeypatch, tmp_path, capsys):
    model = replace(oracle(), act_freely=an_agent(lambda view: ("", "{")).act)
    monkeypatch.setattr(bench, "open_agent", lambda: model)
    figures = bench.run(quick=True, finished=Finished(tmp_path / "a.json"))
    assert json.loads(json.dumps(figures)) == figures
    rows = figures["rows"]
    assert bench.mean(rows, "invalid", agent="model", test="closed, no constraint") == 1
    assert bench.mean(rows, "success", test="closed") == 1
    assert bench.mean(rows, "success", agent="model", test="nobody has it") == 1
    assert len(rows) == len({(r["agent"], r["test"], r["rate"], r["seed"]) for r in rows}) == 19
    monkeypatch.setattr(bench, "measured", None)  # would fail if it were called
    assert bench.run(quick=True, finished=Finished(tmp_path / "a.json")) == figures
    assert "model, closed, no constraint, 10 %" in capsys.readouterr().out
