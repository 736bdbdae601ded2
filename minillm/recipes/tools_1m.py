"""`tools-1m`: `town-base`, tuned to call tools: a calculator, and what is known of people.

It is asked for products of three digits, which it cannot work out, and for facts of towns that it
has never seen, and learns what to ask the tools. It also learns when not to: many questions have
the same words and need no tool. Beside them stand the requests and letters of `chat-1m` and texts
of `town-base`.

What it gets right stands in its card, beside its weights in `minillm/zoo`. Steps and learning rates
are those of `chat-1m`.

Chapter: app
"""

from dataclasses import replace

from minillm.recipes import chat_1m
from minillm.recipes.chat_data import ToolData

RECIPE = replace(
    chat_1m.RECIPE,
    name="tools-1m",
    data=ToolData(
        sum_blocks=90,
        look_up_blocks=100,
        request_blocks=100,
        letter_blocks=10,
        replay_blocks=16,
    ),
)
