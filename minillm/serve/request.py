"""What is asked of the engine, and what it gives: a request, its events, its completion; its load.

Chapter: 17
"""

from dataclasses import dataclass, field
from typing import NamedTuple, final

from minillm.serve.constrain import Constraint
from minillm.serve.sample import SampleConfig


@final
@dataclass(frozen=True, kw_only=True)
class Request:
    """A prompt, and how it is to be continued.

    Args:
        prompt: token ids.
        n_tokens: how many to write at most.
        config: how tokens are chosen.
        stop_ids: tokens that end it.
        stop: texts that end it, if the engine has a tokenizer; they are not part of the answer.
        seed: decides all its random choices: those of row 0 of `generate` with this seed.
        n_logprobs: k, to be told the log-probability of each token, and of the k likeliest; None
            for neither.
        constraint: what its tokens must spell, see `minillm.serve.constrain`.
    """

    prompt: tuple[int, ...]
    n_tokens: int
    config: SampleConfig = field(default_factory=SampleConfig)
    stop_ids: tuple[int, ...] = ()
    stop: tuple[str, ...] = ()
    seed: int = 0
    n_logprobs: int | None = None
    constraint: Constraint | None = None


class Logprobs(NamedTuple):
    """The model's own log p of a token, before any filter, in nats.

    Args:
        chosen: of the token that was taken.
        top: the k likeliest tokens and theirs.
    """

    chosen: float
    top: tuple[tuple[int, float], ...]


class Event(NamedTuple):
    """What a step gave one request.

    Args:
        number: the request's, from `submit`.
        token: the new token; None where it was one of `stop_ids`, or the request was cancelled.
        text: the characters that are certain now, perhaps none.
        finish_reason: "stop", "length" or "cancelled" with the last event, else None.
        logprobs: of the token, if they were asked for.
    """

    number: int
    token: int | None
    text: str = ""
    finish_reason: str | None = None
    logprobs: Logprobs | None = None


@dataclass(kw_only=True)
class Completion:
    """All that one request was given.

    Args:
        tokens: without those that ended it; with a stop text, up to the token that completed it.
        text: without the stop text.
        finish_reason: see `Event`.
        logprobs: of each token, if they were asked for.
    """

    tokens: list[int] = field(default_factory=list)
    text: str = ""
    finish_reason: str | None = None
    logprobs: list[Logprobs] = field(default_factory=list)

    def add(self, event: Event) -> None:
        """Take in an event of this request."""
        if event.token is not None:
            self.tokens.append(event.token)
        if event.logprobs is not None:
            self.logprobs.append(event.logprobs)
        self.text += event.text
        self.finish_reason = event.finish_reason


class Load(NamedTuple):
    """How busy an engine is.

    Args:
        n_waiting, n_running: requests.
        n_blocks_used, n_blocks: of the cache.
        n_preemptions: how often a request was stopped for lack of blocks, so far.
        n_shared_tokens: prompt tokens that were not read since their blocks were there, so far.
    """

    n_waiting: int
    n_running: int
    n_blocks_used: int
    n_blocks: int
    n_preemptions: int
    n_shared_tokens: int
