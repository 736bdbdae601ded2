r"""Calls of tools (工具调用) through a server: the client offers functions, the model names one.

    the client offers   calculate(expression), look_up(person, relation)
    the model writes    <|call|>{"name":"calculate","arguments":{"expression":"3 * 4"}}<|end|>
    the client is sent  {"id": "call_7f…", "type": "function", "function":
                         {"name": "calculate", "arguments": "{\"expression\":\"3 * 4\"}"}}
    the client runs it, and sends the conversation again, with the result as one more message

The server runs nothing. A model that was tuned for tools begins a call with a special token of its
own, so its first token says which of the two an answer is:

    tool_choice    first token             what follows
    "auto"         any                     after the call token a call, after any other text
    "required"     the call token alone    a call
    "none"         any but the call token  text

A call is written under the JSON schema of the client's functions (`minillm.serve.constrain`), so
its name is always one that was offered, and its arguments always fit.

Paper: OpenAI's API reference, "tools" and "tool_choice" of chat completions, as its client's types
state it.
Differs: the model does not read what the functions are for: it knows the tools of its own training,
and others are known to the constraint alone. One call at a time. `strict` changes nothing, since
every call keeps to its schema. Of the forms of `tool_choice`, "allowed_tools" is refused.

Chapter: 17
"""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, final

import torch
from jaxtyping import Bool
from torch import Tensor

from minillm.lab.text_file import parse_json
from minillm.serve.constrain import Constraint
from minillm.serve.refusal import RequestError, shown
from minillm.serve.schema import spell

MOST_FUNCTIONS = 128
NAME = re.compile(r"[A-Za-z0-9_-]{1,64}")


@final
@dataclass(frozen=True)
class Function:
    """A function that a client offers.

    Args:
        name: of it.
        parameters: the JSON schema of an object, its arguments.
    """

    name: str
    parameters: Mapping[str, Any] = field(hash=False)


@final
@dataclass(frozen=True)
class Offer:
    """What a client offers.

    Args:
        functions: that may be called; none where the answer must be text.
        required: whether the answer must be a call.
    """

    functions: tuple[Function, ...] = ()
    required: bool = False


# --- what the client says -------------------------------------------------------------------------
def offer(body: Mapping[str, Any]) -> Offer:
    """The fields `tools` and `tool_choice` of a request.

    Raises:
        RequestError: a tool that is no function, two of one name, a choice of none that is there.

    Example:
        >>> tools = [{"type": "function", "function": {"name": "now"}}]
        >>> offer({"tools": tools, "tool_choice": "required"})
        Offer(functions=(Function(name='now', parameters={'type': 'object', 'properties': {}}),), \
required=True)
    """
    tools = [] if body.get("tools") is None else body["tools"]
    if not isinstance(tools, list) or len(tools) > MOST_FUNCTIONS:
        raise RequestError(
            f"tools must be a list of up to {MOST_FUNCTIONS} functions; got {shown(tools)}",
            param="tools",
        )
    functions = {}
    for n, each in enumerate(tools):
        function = _function(each, f"tools.{n}")
        if function.name in functions:
            raise RequestError(
                f"two functions have the name {function.name!r}; give each its own",
                param=f"tools.{n}.function.name",
            )
        functions[function.name] = function
    match body.get("tool_choice"):
        case "none":
            return Offer()
        case None | "auto":
            return Offer((*functions.values(),))
        case "required" if functions:
            return Offer((*functions.values(),), True)
        case {"type": "function", "function": {"name": str(name)}} if name in functions:
            return Offer((functions[name],), True)
    raise RequestError(
        'tool_choice must be "none", "auto", "required", or {"type": "function", "function": '
        f'{{"name": "…"}}}} with one of {[*functions]}, the names in tools; got '
        f"{shown(body['tool_choice'])}",
        param="tool_choice",
    )


def _function(tool: Any, where: str) -> Function:
    if not isinstance(tool, dict) or not isinstance(tool.get("function"), dict):
        raise RequestError(
            'a tool must be {"type": "function", "function": {"name": "…", "parameters": {…}}}; '
            f"got {shown(tool)}",
            param=where,
        )
    function = tool["function"]
    name, parameters = function.get("name"), function.get("parameters")
    if tool.get("type") != "function" or not isinstance(name, str) or not NAME.fullmatch(name):
        raise RequestError(
            "a tool must have the type 'function', and its function a name of up to 64 letters, "
            f"digits, _ and -; got {shown(tool.get('type'))} and {shown(name)}",
            param=f"{where}.function.name",
        )
    if parameters is None:
        parameters = {"type": "object", "properties": {}}
    if not isinstance(parameters, dict) or parameters.get("type") != "object":
        raise RequestError(
            'parameters must be the JSON schema of an object, {"type": "object", "properties": '
            f"{{…}}}}; got {shown(parameters)}",
            param=f"{where}.function.parameters",
        )
    return Function(name, parameters)


# --- what the model may write ---------------------------------------------------------------------
def call_schema(functions: Sequence[Function]) -> dict[str, Any]:
    """The JSON schema of all calls of some functions, at least one.

    Example:
        >>> schema = call_schema([Function("now", {"type": "object", "properties": {}})])
        >>> schema["anyOf"][0]["properties"]["name"]
        {'const': 'now'}
    """
    calls = [
        {
            "type": "object",
            "properties": {"name": {"const": each.name}, "arguments": dict(each.parameters)},
            "required": ["name", "arguments"],
        }
        for each in functions
    ]
    return {"anyOf": calls}


@final
@dataclass(frozen=True)
class CallOrText:
    """The `Constraint` on an answer whose first token decides what it is.

    Args:
        call_id: the token that begins a call.
        calls: what may follow that.
        text: what else an answer may be; None where it must be a call.
    """

    call_id: int
    calls: Constraint
    text: Constraint | None

    def allowed(self) -> Bool[Tensor, "V"]:
        """The call token, and what may begin a text."""
        mask = torch.zeros_like(self.calls.allowed()) if self.text is None else self.text.allowed()
        mask[self.call_id] = True
        return mask

    def after(self, token: int) -> Constraint:
        """The constraint on the rest, when this token has been written.

        Raises:
            ValueError: that token was not allowed.
        """
        if token == self.call_id:
            return self.calls
        if self.text is None:
            raise ValueError(f"token {token} is not allowed here; {self.call_id} alone is")
        return self.text.after(token)


@final
@dataclass(frozen=True)
class AnyText:
    """The `Constraint` on a text that may be any, but for one token.

    Args:
        vocab_size: V.
        without: the token that is not allowed.
    """

    vocab_size: int
    without: int

    def allowed(self) -> Bool[Tensor, "V"]:
        """All tokens but the one."""
        return torch.arange(self.vocab_size) != self.without

    def after(self, token: int) -> "AnyText":
        """The same; ValueError for the one token."""
        if token == self.without:
            raise ValueError(f"token {token} is not allowed here; all others are")
        return self


# --- calls as text --------------------------------------------------------------------------------
def call_text(name: str, arguments: Mapping[str, Any]) -> str:
    """A call as a model writes it.

    Raises:
        ValueError: a number that JSON does not have.

    Example:
        >>> call_text("look_up", {"person": "胡"})
        '{"name":"look_up","arguments":{"person":"胡"}}'
    """
    return spell({"name": name, "arguments": dict(arguments)})


def split_call(text: str) -> tuple[str, dict[str, Any]] | None:
    """The name and the arguments of a call; None if it does not stand there to its end.

    Example:
        >>> split_call('{"name":"now","arguments":{}}'), split_call('{"name":"now","arg')
        (('now', {}), None)
    """
    try:
        content = parse_json(text)
    except ValueError:
        return None
    match content:
        case {"name": str(name), "arguments": dict(arguments)}:
            return name, arguments
    return None
