"""What a client of an OpenAI-style server asks for: the body of a request, checked.

    POST /v1/completions         {"model": "town-1m", "prompt": "Mei stands", "max_tokens": 20}
    POST /v1/chat/completions    {"model": "town-1m", "messages": [{"role": "user", …}]}

Programs that speak this protocol are many, so a server that speaks it serves them all. Two rules:

**Nothing is ignored.** A field that would change the answer is obeyed or refused by name (400): a
client that asks for a penalty and gets none, without a word, cannot know why. What changes nothing,
such as `user` or a penalty of 0, passes.

**An error says which field.** Its form is OpenAI's (`minillm.serve.refusal`).

Messages are read in `minillm.serve.conversation`, tools in `minillm.serve.tool_calls`.

Paper: OpenAI's API reference, "Chat Completions" and "Completions", as its client's types state it.
Differs: what is listed in `HARMLESS` must have the value named there; `response_format` is read by
both; `store` is refused, since nothing is kept.

Chapter: 17
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, final

import numpy as np

from minillm.serve.conversation import Conversation, conversation
from minillm.serve.refusal import RequestError, shown
from minillm.serve.sample import SampleConfig
from minillm.serve.tool_calls import Offer, offer

#: Values at which a field changes nothing; None for any. Null never changes anything.
HARMLESS: dict[str, tuple | None] = {
    "user": None, "metadata": None, "safety_identifier": None, "prompt_cache_key": None,
    "prompt_cache_options": None, "prompt_cache_retention": None, "parallel_tool_calls": None,
    "service_tier": ("auto", "default"), "store": (False,), "presence_penalty": (0,),
    "frequency_penalty": (0,), "logit_bias": ({},), "functions": ([],),
    "function_call": ("none", "auto"), "modalities": (["text"],), "best_of": (1,),
    "echo": (False,), "suffix": ("",),
}  # fmt: skip
COMMON = {
    "model", "max_tokens", "temperature", "top_p", "stop", "seed", "n", "stream",
    "stream_options", "logprobs", "response_format",
}  # fmt: skip
CHAT = COMMON | {
    "messages", "max_completion_tokens", "top_logprobs", "tools", "tool_choice",
}  # fmt: skip
COMPLETION = COMMON | {"prompt"}
MOST_CHOICES = 8
MOST_STOPS = 4
DEFAULT_TOKENS = 16  # of a completion; a chat answer may fill the context

Ids = tuple[int, ...]


@final
@dataclass(frozen=True, kw_only=True)
class Call:
    """A request of a client, checked.

    Args:
        chat: whether it is a chat completion.
        model: the name of the model that is asked for.
        prompts: texts, token ids, or (one, for chat) conversations to write on after.
        n_tokens: tokens to write at most; None for as many as the context allows.
        config: how tokens are chosen.
        stop: texts that end an answer.
        seed: decides all random choices; None to draw one.
        n: answers to each prompt.
        stream: send the text as it comes.
        include_usage: let a last chunk of the stream have the counts of tokens.
        n_logprobs: how many of the likeliest tokens to name at each; None for no log-probabilities.
        schema: a JSON schema that the answer must keep to; None for text.
        tools: functions that the answer may call.
    """

    chat: bool
    model: str
    prompts: tuple[str | Ids | Conversation, ...]
    n_tokens: int | None = None
    config: SampleConfig = field(default_factory=SampleConfig)
    stop: tuple[str, ...] = ()
    seed: int | None = None
    n: int = 1
    stream: bool = False
    include_usage: bool = False
    n_logprobs: int | None = None
    schema: dict | None = None
    tools: Offer = field(default_factory=Offer)


def choice_seed(seed: int, choice: int) -> int:
    """The seed of one of several answers: the request's own for the first, another for each other.

    Example:
        >>> choice_seed(7, 0), choice_seed(7, 1) == choice_seed(8, 0)
        (7, False)
    """
    if choice == 0:
        return seed
    return int(np.random.SeedSequence([seed, choice]).generate_state(1, np.uint64)[0])


def parse(body: Any, *, chat: bool) -> Call:
    """Check the JSON value of a request's body.

    Args:
        body: the value.
        chat: whether it came to /v1/chat/completions.

    Raises:
        RequestError: with the name of the field, what was required and what was received.

    Example:
        >>> call = parse({"model": "m", "prompt": "Mei", "temperature": 0}, chat=False)
        >>> call.prompts, call.n_tokens, call.config.temperature
        (('Mei',), 16, 0.0)
    """
    if not isinstance(body, dict):
        raise RequestError(f"the body must be a JSON object; got a {type(body).__name__}")
    _refuse_unknown(body, CHAT if chat else COMPLETION)
    stream = _flag(body, "stream")
    return Call(
        chat=chat,
        model=_model(body),
        prompts=(conversation(body),) if chat else _prompts(body),
        n_tokens=_n_tokens(body, chat),
        config=_sampling(body),
        stop=_stop(body),
        seed=_seed(body),
        n=_integer(body, "n", 1, MOST_CHOICES, default=1),
        stream=stream,
        include_usage=_include_usage(body, stream),
        n_logprobs=_n_logprobs(body, chat),
        schema=_schema(body),
        tools=offer(body) if chat else Offer(),
    )


# --- the fields ---------------------------------------------------------------------------------
def _refuse_unknown(body: Mapping[str, Any], known: set[str]) -> None:
    for key in body.keys() - known:
        values = HARMLESS.get(key, ())
        if body[key] is not None and values is not None and body[key] not in values:
            more = f", or say {values[0]!r}" if values else ""
            raise RequestError(
                f"this server does not know the field {key!r}, or does not do what it says, and "
                f"without it the answer would not be the one that you ask for: leave it out{more}",
                param=key,
            )


def _model(body: Mapping[str, Any]) -> str:
    name = body.get("model")
    if not isinstance(name, str) or not name:
        raise RequestError(
            f"model must be the name of a model, as /v1/models lists it; got {shown(name)}",
            param="model",
        )
    return name


def _prompts(body: Mapping[str, Any]) -> tuple[str | Ids, ...]:
    """A text, a list of texts, a list of ids, or a list of such lists."""
    match body.get("prompt"):
        case str(text):
            return (text,)
        case [*texts] if texts and all(isinstance(text, str) for text in texts):
            return tuple(texts)
        case [*ids] if _are_ids(ids):
            return (tuple(ids),)
        case [*rows] if rows and all(isinstance(row, list) and _are_ids(row) for row in rows):
            return tuple(tuple(row) for row in rows)
    raise RequestError(
        "prompt must be a text, a list of texts, a list of token ids, or a list of such lists, "
        f"none of them empty; got {shown(body.get('prompt'))}",
        param="prompt",
    )


def _are_ids(values: list) -> bool:
    return bool(values) and all(type(value) is int for value in values)


def _n_tokens(body: Mapping[str, Any], chat: bool) -> int | None:
    given = {
        key: _integer(body, key, 1, 2**31, default=None)
        for key in ("max_tokens", "max_completion_tokens")
        if body.get(key) is not None
    }
    if len(set(given.values())) > 1:
        raise RequestError(
            f"max_tokens and max_completion_tokens are one thing; got {given}", param="max_tokens"
        )
    return next(iter(given.values()), None if chat else DEFAULT_TOKENS)


def _sampling(body: Mapping[str, Any]) -> SampleConfig:
    temperature = _number(body, "temperature", 0, 2)
    try:
        return SampleConfig(temperature=temperature, top_p=_number(body, "top_p", 0, 1))
    except ValueError as error:  # 0 keeps no token
        raise RequestError(str(error), param="top_p") from None


def _stop(body: Mapping[str, Any]) -> tuple[str, ...]:
    stop = body.get("stop")
    texts = [] if stop is None else [stop] if isinstance(stop, str) else stop
    right = isinstance(texts, list) and all(isinstance(text, str) and text for text in texts)
    if not right or len(texts) > MOST_STOPS:
        raise RequestError(
            f"stop must be a text or a list of up to {MOST_STOPS} texts, none empty; got "
            f"{shown(stop)}",
            param="stop",
        )
    return tuple(texts)


def _seed(body: Mapping[str, Any]) -> int | None:
    seed = _integer(body, "seed", -(2**63), 2**63 - 1, default=None)
    return None if seed is None else seed % 2**64


def _include_usage(body: Mapping[str, Any], stream: bool) -> bool:
    options = body.get("stream_options")
    if options is None:
        return False
    known = {"include_usage", "include_obfuscation"}
    if not stream or not isinstance(options, dict) or not options.keys() <= known:
        raise RequestError(
            'stream_options must be {"include_usage": true}, and come with "stream": true; got '
            f"{options!r}",
            param="stream_options",
        )
    return _flag(options, "include_usage")


def _n_logprobs(body: Mapping[str, Any], chat: bool) -> int | None:
    if not chat:
        return _integer(body, "logprobs", 0, 5, default=None)
    n_top = _integer(body, "top_logprobs", 0, 20, default=None)
    if _flag(body, "logprobs"):
        return n_top or 0
    if n_top is not None:
        raise RequestError('top_logprobs needs "logprobs": true', param="top_logprobs")
    return None


def _schema(body: Mapping[str, Any]) -> dict | None:
    match body.get("response_format"):
        case None | {"type": "text"}:
            return None
        case {"type": "json_object"}:
            return {"type": "object"}
        case {"type": "json_schema", "json_schema": {"schema": {**schema}}}:
            return schema
    raise RequestError(
        'response_format must be {"type": "text"}, {"type": "json_object"}, or {"type": '
        '"json_schema", "json_schema": {"name": "…", "schema": {…}}}',
        param="response_format",
    )


# --- kinds of values ----------------------------------------------------------------------------
def _flag(body: Mapping[str, Any], key: str) -> bool:
    value = body.get(key)
    if value not in (None, True, False) or type(value) is int:
        raise RequestError(f"{key} must be true or false; got {shown(value)}", param=key)
    return bool(value)


def _integer(
    body: Mapping[str, Any], key: str, least: int, most: int, default: int | None
) -> int | None:
    value = body.get(key)
    if value is None:
        return default
    if type(value) is not int or not least <= value <= most:
        raise RequestError(
            f"{key} must be a whole number from {least} to {most}; got {shown(value)}", param=key
        )
    return value


def _number(body: Mapping[str, Any], key: str, least: float, most: float) -> float:
    """A number; 1 where the body says nothing."""
    value = 1 if body.get(key) is None else body[key]
    if type(value) not in (int, float) or math.isnan(value) or not least <= value <= most:
        raise RequestError(
            f"{key} must be a number from {least} to {most}; got {shown(value)}", param=key
        )
    return float(value)
