"""What an agent gets right, for its card: errands in towns that it has not learned from.

Chapter: app
"""

from collections.abc import Sequence
from dataclasses import replace

from minillm.agents.errands import errand_tools
from minillm.agents.imitate import run, success_rate
from minillm.agents.loop import Event, by_model, policy
from minillm.bench._errands import errands
from minillm.formats.tokenizer_json import JsonTokenizer
from minillm.model.transformer import Transformer
from minillm.serve.template import ChatTemplate
from minillm.town.map import Errand

N_ERRANDS, SEED, FAILURE_RATE = 100, 0, 0.1
MOST_ACTIONS = 80  # an errand is over before


def table(
    model: Transformer,
    tokenizer: JsonTokenizer,
    template: ChatTemplate,
    n_errands: int = N_ERRANDS,
) -> str:
    """What the card says of errands.

    Args:
        model, tokenizer, template: of the card.
        n_errands: of each kind.
    """
    toolbox = errand_tools()
    events: list[Event] = []
    decide = by_model(model, tokenizer, toolbox, template=template, constrained=False)
    agent = policy(decide, toolbox, events.append)

    def share(starts: Sequence[Errand]) -> str:
        return f"{100 * success_rate(run(agent, starts, MOST_ACTIONS)):.0f} %"

    drawn = {
        "nothing fails": errands(SEED, n_errands),
        f"{100 * FAILURE_RATE:.0f} % of the actions fail": errands(
            SEED, n_errands, failure_rate=FAILURE_RATE
        ),
        "nobody has the good: it gives up": errands(SEED, n_errands, n_stocked=0),
    }
    detours = errands(SEED, n_errands, n_shops=2, detour=True)
    drawn["the first of two shops is sold out, and a detour takes too long"] = detours
    drawn["the same, with a lesson that says so"] = [
        replace(each, lessons=(f"no {each.task.good} at {each.task.shops[0]}",)) for each in detours
    ]
    rows = "\n".join(f"| {name} | {share(starts)} |" for name, starts in drawn.items())
    n_valid = sum(event.valid for event in events)
    return f"""
**Errands.** Of {n_errands} errands of each kind (`minillm.town.map`) in towns in which it was not
trained, those that end well (`minillm agent` shows such an errand, step by step):

| errands | success |
|---|---|
{rows}

Of {len(events):,} calls that it wrote freely, without the constraint of the tools' schema, tools
can read {n_valid:,}.
"""
