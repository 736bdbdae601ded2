"""minillm.bench._errands: errands of other towns, agents, an agent that remembers its decisions."""

from minillm.agents.errands import call_of, demonstration
from minillm.agents.imitate import run
from minillm.agents.loop import Decision, Event
from minillm.bench import _errands
from minillm.town.map import right_action


def test_errands_are_of_ten_towns_in_turn_or_of_one():
    many = _errands.errands(0, 22)
    towns = [errand.task.world.seed for errand in many]
    assert len({*towns}) == 10 and towns[:10] == towns[10:20] and towns[0] == "exam 0.0"
    assert many == _errands.errands(0, 22) and many[0] != many[10]
    assert not {*towns} & {each.task.world.seed for each in _errands.errands(1, 22)}
    assert {e.task.world.seed for e in _errands.errands(0, 3, town="x")} == {"x"}


def test_the_oracle_reports_what_its_demonstrations_show():
    events: list[Event] = []
    (start,) = _errands.errands(0, 1, failure_rate=0.3)
    (trace,) = run(_errands.oracle().act(events.append), [start])
    assert trace.success and {event.result == "ok" for event in events} == {True, False}
    assert len(events) == len(trace.actions)
    for state, event in zip(trace.states, events, strict=False):
        written = [message.content for message in demonstration(state)]
        assert [event.view, event.thought, event.call, event.result] == written


def test_who_remembers_is_asked_once_about_each_view():
    asked = []

    def decide(views):
        asked.extend(views)
        return [Decision(f"{view}!", "") for view in views]

    remembering = _errands.once(decide)
    assert [each.thought for each in remembering(["a", "b", "a"])] == ["a!", "b!", "a!"]
    assert [each.thought for each in remembering(["c", "a"])] == ["c!", "a!"]
    assert asked == ["a", "b", "c"]


def test_a_model_acts_with_a_constraint_and_without(monkeypatch):
    start = _errands.errands(0, 1)
    wishes = []

    def by_model(model, tokenizer, toolbox, *, constrained):
        wishes.append(constrained)
        call = call_of(right_action(start[0])).text
        return lambda views: [Decision("", call if constrained else "{") for _ in views]

    monkeypatch.setattr(_errands, "by_model", by_model)
    monkeypatch.setattr(_errands.checkpoints, "load", lambda name: (None, None))
    monkeypatch.setattr(_errands, "write_by_model", lambda model, tokenizer: by_model)
    agent, valid = _errands.open_agent(), []
    for act in (agent.act, agent.act_freely):
        run(act(lambda event: valid.append(event.valid)), start, 1)
    assert valid == wishes == [True, False] and agent.reflect is by_model
