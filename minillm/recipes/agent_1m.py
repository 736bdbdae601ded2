"""`agent-1m`: `town-base`, tuned to run errands in a town: view, thought, call.

It learns from decisions of an oracle (`minillm.agents.errands`), in many towns, on the shortest way
and where something went wrong. It also learns to write a lesson after a failure, and to heed one.
Beside these stand the requests and letters of `chat-1m` and texts of `town-base`.

What it gets right stands in its card, beside its weights in `minillm/zoo`. Learning rates are
those of `chat-1m`, and there are half as many steps more. Two other trainings were tried. After
1,000 steps, with few lessons among the data, the agent ran errands without a mistake and hardly
ever heeded a lesson. After 2,000, with as many lessons about other goods in the same shops as about
the good of the errand, it had the lower loss, and still heeded hardly any. This one heeds most
lessons that name a shop, whatever good they speak of (`minillm bench lessons`).

Chapter: app
"""

from dataclasses import replace

from minillm.recipes import chat_1m
from minillm.recipes.chat_data import AgentData

RECIPE = replace(
    chat_1m.RECIPE,
    name="agent-1m",
    data=AgentData(
        errand_blocks=420,
        request_blocks=60,
        letter_blocks=6,
        replay_blocks=16,
    ),
    training=replace(chat_1m.RECIPE.training, n_steps=1500),
)
