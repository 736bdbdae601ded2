"""`steps-1m`: `town-base`, tuned to solve shop problems step by step when it is asked to.

A question of the shop is answered at once; with "Let's think step by step." behind it, the steps
come first. It learns from equally many problems of both kinds, and from the requests and letters of
`chat-1m`, so that it still does what it is asked. Texts of `town-base`, read again, are 21 % of the
tokens that it reads, and 45 % of those that it learns, since of a conversation the answers alone
are learned.

What it gets right stands in its card, beside its weights in `minillm/zoo`. Steps and learning rates
are those of `chat-1m`.

Chapter: app
"""

from dataclasses import replace

from minillm.recipes import chat_1m
from minillm.recipes.chat_data import StepsData

RECIPE = replace(
    chat_1m.RECIPE,
    name="steps-1m",
    data=StepsData(problem_blocks=100, request_blocks=200, letter_blocks=20, replay_blocks=22),
)
