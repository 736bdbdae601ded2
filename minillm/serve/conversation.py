r"""The messages that a client sends, checked, as messages of a chat template.

    what the client sends                                          our role  content
    {"role": "developer", "content": "Be brief."}                  system    Be brief.
    {"role": "user", "content": [{"type": "text", "text": "Hi"}]}  user      Hi
    {"role": "assistant", "tool_calls": [{"id": "call_7", …}]}     call      {"name":"calculate",…}
    {"role": "tool", "tool_call_id": "call_7", "content": "12"}    result    12

A call and its result stand side by side: the result names the call by its id.

Paper: OpenAI's API reference, "messages" of chat completions, as its client's types state it.
Differs: one call a message. Where an assistant's message has a text and a call, it becomes two.

Chapter: 17
"""

from collections.abc import Mapping
from typing import Any

from minillm.lab.text_file import parse_json
from minillm.serve.refusal import RequestError, shown
from minillm.serve.template import Message
from minillm.serve.tool_calls import call_text

Conversation = tuple[Message, ...]

#: What a message of a role may have beside its role and content.
OWN = {"assistant": {"tool_calls"}, "tool": {"tool_call_id"}}


def conversation(body: Mapping[str, Any]) -> Conversation:
    """The field `messages` of a request.

    Raises:
        RequestError: with the message and the field that is wrong.

    Example:
        >>> conversation({"messages": [{"role": "user", "content": "Hi"}]})
        (Message(role='user', content='Hi'),)
    """
    messages = body.get("messages")
    if not isinstance(messages, list) or not messages:
        raise RequestError(
            'messages must be a list with at least one {"role": "user", "content": "…"}',
            param="messages",
        )
    talk: list[Message] = []
    call_id = None  # of a call whose result has not come
    for n, message in enumerate(messages):
        where = f"messages.{n}"
        role = _role(message, where)
        # 1. after a call its result, and a result after its call
        is_due, is_result = call_id is not None, role == "tool"
        if is_due != is_result or (is_result and message.get("tool_call_id") != call_id):
            raise RequestError(
                "after an assistant's call its result must come next, and nowhere else a result: "
                '{"role": "tool", "tool_call_id": "…", "content": "…"} with the id of the call, '
                f"{shown(call_id)}; got the role {shown(role)} and the id "
                f"{shown(message.get('tool_call_id'))}",
                param=f"{where}.tool_call_id",
            )
        call_id = None
        # 2. the text, and the call
        calls = message.get("tool_calls")
        if not calls or message.get("content"):
            talk.append(Message("result" if is_result else role, _text(message, where)))
        if calls:
            call_id, text = _call(calls, f"{where}.tool_calls")
            talk.append(Message("call", text))
    if call_id is not None:
        raise RequestError(
            f"the last message is a call, {shown(call_id)}; run it, and send its result after it",
            param=f"messages.{len(messages) - 1}.tool_calls",
        )
    return tuple(talk)


def _role(message: Any, where: str) -> str:
    if not isinstance(message, dict) or not isinstance(message.get("role"), str):
        raise RequestError(
            f'{where} must be an object such as {{"role": "user", "content": "…"}}', param=where
        )
    role = message["role"]
    for key in message.keys() - {"role", "content"} - OWN.get(role, set()):
        if message[key] not in (None, []):
            raise RequestError(
                f"a message of the {role[:20]} has no {key} here, and it would be lost: leave it "
                "out",
                param=f"{where}.{key}",
            )
    return "system" if role == "developer" else role


def _text(message: Mapping[str, Any], where: str) -> str:
    match message.get("content"):
        case str(text):
            return text
        case [*parts] if parts:
            return "".join(_part_text(part, f"{where}.content") for part in parts)
    raise RequestError(
        f"content must be a text, or a list of parts; got {shown(message.get('content'))}",
        param=f"{where}.content",
    )


def _part_text(part: Any, where: str) -> str:
    match part:
        case {"type": "text", "text": str(text)}:
            return text
    kind = part.get("type") if isinstance(part, dict) else part
    raise RequestError(
        'a part must be {"type": "text", "text": "…"}, since this model reads text only; got '
        f"{shown(kind)}",
        param=where,
    )


def _call(calls: Any, where: str) -> tuple[str, str]:
    """The id of a call, and the call as the model writes it."""
    match calls:
        case [{"id": str(call_id), "function": {"name": str(name), "arguments": str(text)}}]:
            pass
        case _:
            raise RequestError(
                "tool_calls must have one call, since this model makes one at a time: "
                '{"id": "…", "type": "function", "function": {"name": "…", "arguments": "{…}"}}; '
                f"got {shown(calls)}",
                param=where,
            )
    try:
        arguments = parse_json(text)
        if not isinstance(arguments, dict):
            raise ValueError(f"it is a {type(arguments).__name__}")
        return call_id, call_text(name, arguments)
    except ValueError as error:
        raise RequestError(
            f"arguments must be the text of a JSON object; got {shown(text)}: {error}",
            param=f"{where}.0.function.arguments",
        ) from None
