"""Conversations that a recipe reads: your own files, or requests and letters of the town.

    {"messages": [{"role": "user", "content": "Who is Mei?"},
                  {"role": "assistant", "content": "A baker."}]}          one a line

A model learns from them to answer, so they are for a recipe with a parent. How they become tokens
stands in `minillm.tune.chat`, how these become batches in `minillm.tune.sft`.

Chapter: app
"""

import math
import random
from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar, NamedTuple, final

from minillm.serve.template import ChatTemplate, Encoder, Message
from minillm.town.letters import BLOCK, Letter, LetterSource
from minillm.town.requests import RequestSource
from minillm.town.world import World
from minillm.tune.chat import Conversation, Example, example, read_conversations

MOST_TURNS = 3  # of a conversation about requests


class Named(NamedTuple):
    """A conversation, and where it stands.

    Args:
        place: for messages to people, such as "chats.jsonl, conversation 3".
        messages: of it.
    """

    place: str
    messages: Conversation


@final
@dataclass(frozen=True, kw_only=True)
class ChatData:
    """Your own conversations, JSON Lines in UTF-8.

    Args:
        files: read one after the other.
        held_out: the last share of all conversations, for evaluation.
    """

    kind: ClassVar[str] = "chat"
    files: tuple[str, ...] = ()
    held_out: float = 0.05

    def __post_init__(self):
        if isinstance(self.files, str) or not self.files:
            raise ValueError(
                'conversations must be in files, a list such as ["chats.jsonl"]; got files = '
                f"{self.files!r}"
            )
        if not 0 < self.held_out < 1:
            raise ValueError(f"held_out must be a share between 0 and 1; got {self.held_out}")

    def conversations(self, part: str, template: ChatTemplate) -> list[Named]:
        """Those to train on, or "held out".

        Raises:
            ValueError: fewer than 2 conversations; a line that is none (file and number are said).
        """
        every = [
            Named(f"{file}, conversation {number}", messages)
            for file in self.files
            for number, messages in enumerate(read_conversations(file, template), 1)
        ]
        if len(every) < 2:
            raise ValueError(
                "training needs at least 2 conversations, one of them to be held out; "
                f"{', '.join(self.files)} has {len(every)}"
            )
        n_held_out = min(max(1, round(self.held_out * len(every))), len(every) - 1)
        return every[-n_held_out:] if part == "held out" else every[:-n_held_out]


@final
@dataclass(frozen=True, kw_only=True)
class RequestData:
    """Requests of the town with their right answers, and letters with their replies.

    A request is the user's message, its answer the assistant's, and a conversation has one to three
    such turns, none of which speaks of another: a model that met only conversations of one turn
    would not know what to do in the second. Combinations and wordings that are
    kept for evaluation (`minillm.town.requests`) occur in neither part. Of a letter, the first half
    is the user's message, and the reply the assistant's: so questions about the town are answered
    too, as long as they are letters.

    Args:
        world: its seed; None for Tinytown.
        languages: of both.
        request_blocks, letter_blocks: 64 turns each, in each language.
        held_out_blocks: of requests in each language, for evaluation; letters come in the share
            that they have in training, so that the two losses are of the same mixture.
    """

    kind: ClassVar[str] = "requests"
    world: str | None = None
    languages: tuple[str, ...] = ("en", "zh")
    request_blocks: int = 100
    letter_blocks: int = 10
    held_out_blocks: int = 2

    def __post_init__(self):
        if self.request_blocks < 1 or self.held_out_blocks < 1 or self.letter_blocks < 0:
            raise ValueError(
                "request_blocks and held_out_blocks must be at least 1 and letter_blocks at least "
                f"0; got {self.request_blocks}, {self.held_out_blocks} and {self.letter_blocks}"
            )

    def conversations(self, part: str, template: ChatTemplate) -> list[Named]:
        """Those to train on, or "held out"; in the same words for every template."""
        world = World() if self.world is None else World(seed=self.world)
        held_out = part == "held out"
        n_requests = self.held_out_blocks if held_out else self.request_blocks
        n_letters = round(BLOCK * n_requests * self.letter_blocks / self.request_blocks)
        pairs = [
            (f"request {index}", request.text, request.answer)
            for language in self.languages
            for index in range(n_requests)
            for request in RequestSource(world, language).block(index, part)
        ]
        pairs += [
            ("letter", *letter.text.split("\n\n"))
            for language in self.languages
            for letter in _letters(LetterSource(world, language), n_letters, f"{part}, chat")
        ]
        # 1. in an order of chance, so that languages and kinds follow each other as they come
        rng = random.Random(f"turns/{world.seed}/{part}")
        rng.shuffle(pairs)
        # 2. conversations of one to three turns
        conversations = []
        while pairs:
            turns = [pairs.pop() for _ in range(min(rng.randint(1, MOST_TURNS), len(pairs)))]
            messages = tuple(
                message
                for _, asks, answers in turns
                for message in (Message("user", asks), Message("assistant", answers))
            )
            conversations.append(Named(", ".join(place for place, _, _ in turns), messages))
        return conversations


def _letters(source: LetterSource, n_letters: int, seed: str) -> list[Letter]:
    n_blocks = math.ceil(n_letters / BLOCK)
    return [each for index in range(n_blocks) for each in source.block(index, seed)][:n_letters]


def examples(
    conversations: Sequence[Named],
    template: ChatTemplate,
    tokenizer: Encoder,
    context_length: int,
) -> list[Example]:
    """Conversations as tokens; all of them are looked at before any is learned from.

    Args:
        conversations: of a part.
        template, tokenizer: of the model.
        context_length: T; a conversation may have T tokens and its last end.

    Raises:
        ValueError: one is too long, or is refused by `minillm.tune.chat.example`; says which.
    """
    every = []
    for place, messages in conversations:
        try:
            one = example(messages, tokenizer, template)
        except ValueError as error:
            raise ValueError(f"{place}: {error}") from None
        if len(one.ids) > context_length + 1:
            raise ValueError(
                f"{place} has {len(one.ids)} tokens, and a conversation must fit into the context "
                f"of {context_length} and one more; shorten it or take it out"
            )
        every.append(one)
    return every
