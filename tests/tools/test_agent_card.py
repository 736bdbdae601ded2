"""What the card of an agent says is what was counted."""

from minillm.agents.errands import call_of, thought
from minillm.agents.loop import Decision
from minillm.bench import _errands
from minillm.town.map import right_action
from tools import agent_card


def test_the_table_counts_errands_that_end_well_and_calls_that_tools_can_read(monkeypatch):
    drawn = []

    def errands(*args, **options):
        drawn.extend(_errands.errands(*args, **options))
        return drawn[-args[1] :]

    def decide(views):  # the oracle, but for lessons; and every errand's first call is none
        states = {}
        for start in drawn:
            while not start.done:
                states[start.view()] = start
                start = start.after(right_action(start))
        every = [states.get(view) for view in views]
        return [
            Decision(thought(each), call_of(right_action(each)).text) if each else Decision("", "{")
            for each in every
        ]

    monkeypatch.setattr(agent_card, "errands", errands)
    monkeypatch.setattr(agent_card, "by_model", lambda *args, **options: decide)
    monkeypatch.setattr(agent_card, "FAILURE_RATE", 0.0)
    text = agent_card.table(None, None, None, n_errands=2)
    assert "| nothing fails | 100 % |" in text
    assert "| nobody has the good: it gives up | 100 % |" in text
    assert "| the first of two shops is sold out, and a detour takes too long | 0 % |" in text
    assert "| the same, with a lesson that says so | 0 % |" in text  # views it does not know
    assert "Of 2 errands of each kind" in text
