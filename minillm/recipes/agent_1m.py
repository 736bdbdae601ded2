"""`agent-1m`: `town-base`, tuned to run errands in a town: view, thought, call.

It learns from decisions of an oracle (`minillm.agents.errands`), in many towns, on the shortest way
and where something went wrong. It also learns to write a lesson after a failure, and to heed one.
Beside these stand the requests and letters of `chat-1m` and texts of `town-base`.

What it gets right stands in its card, beside its weights in `minillm/zoo`. Learning rates are
those of `chat-1m`, and there are twice as many steps. Two trainings came before. After 1,000, with
few lessons among the data, it ran errands without a mistake and hardly ever heeded a lesson. After
1,500, with many lessons, but hardly any about other goods in the same shops, it heeded whatever
named a shop.

Chapter: app
"""

from dataclasses import replace

from minillm.recipes import chat_1m
from minillm.recipes.chat_data import AgentData

RECIPE = replace(
    chat_1m.RECIPE,
    name="agent-1m",
    data=AgentData(
        errand_blocks=480,
        request_blocks=60,
        letter_blocks=6,
        replay_blocks=16,
    ),
    training=replace(chat_1m.RECIPE.training, n_steps=2000),
)
