"""Conversations that a recipe reads: your own files, or what the town asks and answers.

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
from itertools import islice
from typing import Any, ClassVar, NamedTuple, final

from minillm.agents.errands import block as errand_block
from minillm.reason.prompt import with_trigger
from minillm.recipes.data import LifeData
from minillm.recipes.tool_turns import tool_turns
from minillm.serve.template import ChatTemplate, Encoder
from minillm.town.letters import BLOCK, LetterSource
from minillm.town.market import MarketSource, Problem
from minillm.town.requests import RequestSource
from minillm.town.world import World
from minillm.tune.chat import (
    TEMPLATE,
    TOOL_TEMPLATE,
    Conversation,
    Example,
    example,
    read_conversations,
    turn_messages,
)

MOST_TURNS = 3  # of a conversation about requests
MOST_TURNS_WITH_STEPS = 2  # of one that may hold problems with steps: three need not fit
HOME = 4  # one block of questions in so many is of the town of the requests
MOST_CALLS = 2  # of tools, in a conversation: a third need not fit
#: Where it comes from, what is asked, calls of tools and their results in turns, what is answered.
Turn = tuple[str, ...]


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
    template: ClassVar[ChatTemplate] = TEMPLATE
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
    template: ClassVar[ChatTemplate] = TEMPLATE
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
        n_blocks = self.held_out_blocks if part == "held out" else self.request_blocks
        return _in_conversations(self.turns(part, n_blocks), _world(self.world), part, MOST_TURNS)

    def turns(self, part: str, n_blocks: int) -> list[Turn]:
        """Requests and letters, each with its answer, in no order in particular.

        Args:
            part: "train" or "held out".
            n_blocks: of requests, in each language.
        """
        world = _world(self.world)
        n_letters = round(BLOCK * n_blocks * self.letter_blocks / self.request_blocks)
        turns = [
            (f"request {index}", request.text, request.answer)
            for language in self.languages
            for index in range(n_blocks)
            for request in RequestSource(world, language).block(index, part)
        ]
        return turns + [
            ("letter", *letter.text.split("\n\n"))
            for language in self.languages
            for letter in _first(LetterSource(world, language), n_letters, f"{part}, chat")
        ]


@final
@dataclass(frozen=True, kw_only=True)
class StepsData:
    """Shop problems asked for the answer or for the steps, requests, letters, and a base's texts.

    Half of the problems are asked as they are, and answered at once. The other half, other problems
    of the same kinds, have the trigger of `minillm.reason.prompt` behind the question, and their
    steps stand before the answer:

        … What does Mei pay?                               Answer: 12.
        … What does Mei pay? Let's think step by step.     Steps: 3 · 4 = 12. Answer: 12.

    They are turns of the same conversations as requests and letters (see `RequestData`), each of
    one turn or two.

    **Replay** (回放). Beside the conversations the model reads on in the texts of `town-base`, as
    they were, so that it does not unlearn them. In these every token is learned.

    Args:
        world: its seed; None for Tinytown.
        languages: of all.
        problem_blocks: 64 problems each, in each language; as many of both halves.
        request_blocks, letter_blocks: as in `RequestData`.
        replay_blocks: of the base's texts, the first so many blocks of each of its kinds.
        held_out_blocks: of requests in each language, for evaluation; all else comes in the share
            that it has in training.
    """

    kind: ClassVar[str] = "steps"
    template: ClassVar[ChatTemplate] = TEMPLATE
    world: str | None = None
    languages: tuple[str, ...] = ("en", "zh")
    problem_blocks: int = 100
    request_blocks: int = 100
    letter_blocks: int = 10
    replay_blocks: int = 10
    held_out_blocks: int = 2

    def __post_init__(self):
        _check_blocks(self, "problem_blocks")

    def conversations(self, part: str, template: ChatTemplate) -> list[Named]:
        """Those to train on, or "held out"; in the same words for every template."""
        n_blocks = self.held_out_blocks if part == "held out" else self.request_blocks
        n_problems = round(BLOCK * n_blocks * self.problem_blocks / self.request_blocks)
        turns = _requests_of(self).turns(part, n_blocks)
        for language in self.languages:
            source = MarketSource(_world(self.world), language)
            direct = _first(source, n_problems, f"{part}, chat")
            worked = _first(source, n_problems, f"{part}, chat, worked")
            turns += [("problem", *direct_turn(problem)) for problem in direct]
            turns += [("problem with steps", *worked_turn(problem)) for problem in worked]
        return _in_conversations(turns, _world(self.world), part, MOST_TURNS_WITH_STEPS)

    def texts(self, part: str) -> list[str]:
        """Those of the base that are read again: of its training, or of what was held out."""
        return _replayed(self, part)


@final
@dataclass(frozen=True, kw_only=True)
class ToolData:
    """Sums and questions about people, answered with the town's tools; requests, letters, texts.

    Sums (`minillm.town.sums`) need the calculator, or look as if they did and need nothing.
    Questions about people (`minillm.recipes.look_ups`) need one look-up or two. Most blocks are of
    a town each, so that facts cannot be learned by heart: what can be learned is what to look up.
    Every fourth is of `world`, whose names have tokens of their own. The results are those of the
    tools themselves (`minillm.recipes.town_tools`):

        user       What is 347 times 582?
        call       {"name":"calculate","arguments":{"expression":"347 * 582"}}
        result     201954
        assistant  201954

    They are turns of the same conversations as requests and letters (see `RequestData`), each of
    one turn or two. Beside these the model reads on in texts of `town-base`, as for `StepsData`.

    Args:
        world: its seed, of requests, letters, texts and each fourth block of questions; None for
            Tinytown.
        languages: of all.
        sum_blocks, look_up_blocks: 64 questions each, in each language.
        request_blocks, letter_blocks: as in `RequestData`.
        replay_blocks: of the base's texts, the first so many blocks of each of its kinds.
        held_out_blocks: of requests in each language, for evaluation; all else comes in the share
            that it has in training.
    """

    kind: ClassVar[str] = "tools"
    template: ClassVar[ChatTemplate] = TOOL_TEMPLATE
    world: str | None = None
    languages: tuple[str, ...] = ("en", "zh")
    sum_blocks: int = 100
    look_up_blocks: int = 100
    request_blocks: int = 100
    letter_blocks: int = 10
    replay_blocks: int = 10
    held_out_blocks: int = 2

    def __post_init__(self):
        _check_blocks(self, "sum_blocks", "look_up_blocks")

    def conversations(self, part: str, template: ChatTemplate) -> list[Named]:
        """Those to train on, or "held out"; in the same words for every template."""
        n_blocks = self.held_out_blocks if part == "held out" else self.request_blocks
        turns = _requests_of(self).turns(part, n_blocks)
        share = n_blocks / self.request_blocks
        for kind, n_all in (("sum", self.sum_blocks), ("look-up", self.look_up_blocks)):
            for index in range(max(1, round(n_all * share))):
                world = _town_of_block(_world(self.world), part, index)
                turns += [
                    (kind, *turn)
                    for language in self.languages
                    for turn in tool_turns(kind, world, language, f"{part}, chat, {index}")
                ]
        return _in_conversations(turns, _world(self.world), part, MOST_TURNS_WITH_STEPS)

    def texts(self, part: str) -> list[str]:
        """Those of the base that are read again: of its training, or of what was held out."""
        return _replayed(self, part)


@final
@dataclass(frozen=True, kw_only=True)
class AgentData:
    """Decisions of an agent on errands, and lessons from failures; requests, letters, and texts.

    A decision (`minillm.agents.errands`) is a conversation of its own: the view, a thought, a call.
    As for `ToolData`, most blocks are of a town each, and every fourth is of `world`; and beside
    these the model reads on in texts of `town-base`.

    Args:
        world: its seed; None for Tinytown.
        languages: of requests, letters and texts; errands are in English.
        errand_blocks: 64 decisions or lessons each.
        request_blocks, letter_blocks: as in `RequestData`.
        replay_blocks: of the base's texts, the first so many blocks of each of its kinds.
        held_out_blocks: of requests in each language, for evaluation; all else comes in the share
            that it has in training.
    """

    kind: ClassVar[str] = "agent"
    template: ClassVar[ChatTemplate] = TOOL_TEMPLATE
    world: str | None = None
    languages: tuple[str, ...] = ("en", "zh")
    errand_blocks: int = 100
    request_blocks: int = 100
    letter_blocks: int = 10
    replay_blocks: int = 10
    held_out_blocks: int = 2

    def __post_init__(self):
        _check_blocks(self, "errand_blocks")

    def conversations(self, part: str, template: ChatTemplate) -> list[Named]:
        """Those to train on, or "held out"; in the same words for every template."""
        n_blocks = self.held_out_blocks if part == "held out" else self.request_blocks
        turns = _requests_of(self).turns(part, n_blocks)
        home = _world(self.world)
        errands = [
            Named(f"errand {index}", messages)
            for index in range(max(1, round(self.errand_blocks * n_blocks / self.request_blocks)))
            for messages in errand_block(_town_of_block(home, part, index), index, part)
        ]
        return errands + _in_conversations(turns, home, part, MOST_TURNS)

    def texts(self, part: str) -> list[str]:
        """Those of the base that are read again: of its training, or of what was held out."""
        return _replayed(self, part)


#: Data that are conversations, from which a model that can write already learns to answer.
Chats = ChatData | RequestData | StepsData | ToolData | AgentData


def _check_blocks(data: StepsData | ToolData | AgentData, *names: str) -> None:
    """Refuse too few blocks.

    Args:
        data: of a recipe.
        names: of its fields that must be at least 1.
    """
    _requests_of(data)  # says what is wrong with requests, letters and what is held out
    counts = [getattr(data, name) for name in names]
    if min(counts) < 1 or data.replay_blocks < 0:
        raise ValueError(
            f"{' and '.join(names)} must be at least 1 and replay_blocks at least 0; got "
            f"{', '.join(map(str, counts))} and {data.replay_blocks}"
        )


def _requests_of(data: StepsData | ToolData | AgentData) -> RequestData:
    return RequestData(
        world=data.world,
        languages=data.languages,
        request_blocks=data.request_blocks,
        letter_blocks=data.letter_blocks,
        held_out_blocks=data.held_out_blocks,
    )


def _replayed(data: StepsData | ToolData | AgentData, part: str) -> list[str]:
    if not data.replay_blocks:
        return []
    n = data.replay_blocks
    if part == "held out":
        n = max(1, round(n * data.held_out_blocks / data.request_blocks))
    kinds = ("story", "fact", "market", "worked", "list", "letter")
    how = {f"{kind}_blocks": n for kind in kinds} | {"held_out_blocks": n}
    return LifeData(world=data.world, languages=data.languages, **how).documents(part)


def direct_turn(problem: Problem) -> tuple[str, str]:
    """What is asked and what is answered, if the answer alone is to be given.

    Example:
        >>> from minillm.town.market import Step
        >>> direct_turn(Problem("total", "3 plums at 4?", (Step(3, "·", 4),), "en", 0))
        ('3 plums at 4?', 'Answer: 12.')
    """
    return problem.question, problem.direct.removeprefix(problem.question).strip()


def worked_turn(problem: Problem) -> tuple[str, str]:
    """What is asked and what is answered, if the steps are to be shown.

    Example:
        >>> from minillm.town.market import Step
        >>> worked_turn(Problem("total", "3 plums at 4?", (Step(3, "·", 4),), "en", 0))
        ("3 plums at 4? Let's think step by step.", 'Steps: 3 · 4 = 12. Answer: 12.')
    """
    asked = with_trigger(problem.question, problem.language)
    return asked, problem.worked.removeprefix(problem.question).strip()


# --- parts --------------------------------------------------------------------------------------
def _town_of_block(home: World, part: str, index: int) -> World:
    """A town of its own for most blocks: what stands in their facts cannot be learned by heart."""
    return home if index % HOME == HOME - 1 else World(f"{part}, town {index}")


def _world(seed: str | None) -> World:
    return World() if seed is None else World(seed=seed)


def _first(source: LetterSource | MarketSource, n: int, seed: str) -> list[Any]:
    """The first n letters or problems of a stream."""
    every = (item for index in range(math.ceil(n / BLOCK)) for item in source.block(index, seed))
    return list(islice(every, n))


def _in_conversations(turns: list[Turn], world: World, part: str, most_turns: int) -> list[Named]:
    # 1. in an order of chance, so that languages and kinds follow each other as they come
    rng = random.Random(f"turns/{world.seed}/{part}")
    rng.shuffle(turns)
    # 2. conversations of one turn up to most_turns
    conversations = []
    while turns:
        some = [turns.pop() for _ in range(min(rng.randint(1, most_turns), len(turns)))]
        while sum(len(turn) - 3 for turn in some) > 2 * MOST_CALLS:  # each with its result
            turns.append(some.pop())
        messages = tuple(message for _, *turn in some for message in turn_messages(turn))
        conversations.append(Named(", ".join(turn[0] for turn in some), messages))
    return conversations


# --- as tokens ----------------------------------------------------------------------------------
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


def text_examples(
    texts: Sequence[str], tokenizer: Encoder, end_id: int, context_length: int
) -> list[Example]:
    """Texts as tokens, as in pre-training: the end of a text before and behind, and all learned.

    Args:
        texts: no conversations.
        tokenizer: of the model.
        end_id: of the token that ends a text.
        context_length: T; what a text has beyond T tokens and one more is left out.

    Example:
        >>> from minillm.text.tokenizer import Tokenizer
        >>> text_examples(["ab"], Tokenizer(()), 0, context_length=8)
        [Example(ids=(0, 97, 98, 0), loss_mask=(False, True, True, True))]
    """
    rows = [(end_id, *tokenizer.encode(text), end_id)[: context_length + 1] for text in texts]
    return [Example(ids, (False,) + (True,) * (len(ids) - 1)) for ids in rows]
