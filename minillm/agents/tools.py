"""Tools (工具): a model writes a call, a program runs it, and the result is put into its text.

    user     What is 347 times 582?
    call     {"name":"calculate","arguments":{"expression":"347 * 582"}}      the model writes this,
    result   201954                                                        a program this,
    answer   It is 201954.                                                 and the model this

A model can only write tokens, so a call (工具调用, tool call) is text like any other. Three
agreements make it more: the text names a function and its arguments; a token ends it, at which the
model is stopped; what the function returns is written behind it, and then the model goes on. It
reads the result as if it had been part of the text from the beginning.

**A registry from type hints.** `tool(function)` takes the name, the type hints and the docstring of
a Python function and makes of them what a model and a checker need:

========================================  ======================================================
of the function                           in the JSON schema of the arguments
========================================  ======================================================
`expression: str`                         "string"; `int` "integer"; `float` "number"; `bool`
`relation: Literal["home", "job"]`        one of these ("enum")
`names: list[str]`                        "array" of strings
no default value                          "required"
a line under `Args:`                      "description"
========================================  ======================================================

**Nothing that a model writes may stop the program.** `Toolbox.call` never raises: a text that is no
call, an unknown tool, a wrong argument, a tool that raises, hangs or returns a megabyte each give a
`Result` with ok False, whose text says what was wrong, for the model to read. One thing it cannot
bound: a tool that keeps Python's own lock, as a huge power does. So tools bound their own work.

Paper: Schick et al. 2023, "Toolformer", arXiv:2302.04761, section 2 (calls as text, results spliced
in); Parisi et al. 2022, "TALM", arXiv:2205.12255. From memory.
Differs: a call names its arguments in JSON, as OpenAI's function calling does.

Chapter: 28
"""

import inspect
import json
import re
import threading
import typing
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, final

from minillm.lab.text_file import parse_json
from minillm.model.transformer import Transformer
from minillm.reason.solver import AT_ONCE, GREEDY, Words
from minillm.serve.sample import generate
from minillm.serve.template import Message

TYPES = {str: "string", int: "integer", float: "number", bool: "boolean"}
#: What `json.loads` makes of each type; bool is an int for Python, and no number here.
VALUES = {"string": str, "integer": int, "number": (int, float), "boolean": bool, "array": list}
MOST_CHARACTERS = 2000  # of a result
MOST_SECONDS = 10.0  # of a tool
MOST_OF_A_CALL = 10_000  # characters
CALL, END_CALL, END_RESULT = "[", "]", ";"  # of a solver's calls


# --- a tool, from a function ----------------------------------------------------------------------
@final
@dataclass(frozen=True, kw_only=True)
class Tool:
    """A function that a model may call.

    Args:
        name: of the function.
        description: what it does, for the model to read.
        parameters: the JSON schema of its arguments, an object.
        function: is called with the arguments by their names.
    """

    name: str
    description: str
    parameters: Mapping[str, Any]
    function: Callable[..., Any]

    def check(self, arguments: Mapping[str, Any]) -> None:
        """Refuse arguments that do not follow the schema.

        Raises:
            ValueError: one that is missing, unknown or of another type.
        """
        properties = self.parameters["properties"]
        takes = f"{self.name} takes {', '.join(properties) or 'no arguments'}"
        if unknown := [name for name in arguments if name not in properties]:
            raise ValueError(f"{takes}; got {unknown[0]!r}")
        if missing := [name for name in self.parameters["required"] if name not in arguments]:
            raise ValueError(f"{takes}; {missing[0]!r} is missing")
        for name, value in arguments.items():
            _check_value(name, value, properties[name])


def tool(function: Callable[..., Any]) -> Tool:
    """A tool from a function's name, type hints and docstring.

    Args:
        function: its parameters are str, int, float, bool, a Literal of texts, or lists of these.

    Raises:
        ValueError: a parameter without a type hint, or with another one; no docstring.

    Example:
        >>> def double(n: int) -> str:
        ...     '''Twice a number.
        ...
        ...     Args:
        ...         n: the number.
        ...     '''
        ...     return str(2 * n)
        >>> double = tool(double)
        >>> double.description, double.parameters["properties"]
        ('Twice a number.', {'n': {'type': 'integer', 'description': 'the number.'}})
    """
    name, text = function.__name__, inspect.getdoc(function)
    if not text:
        raise ValueError(f"{name} needs a docstring: a model knows of a tool what it says")
    hints, lines = typing.get_type_hints(function), _descriptions(text)
    properties, required = {}, []
    for key, parameter in inspect.signature(function).parameters.items():
        schema = _schema(f"{name}'s {key}", hints.get(key))
        properties[key] = schema | ({"description": lines[key]} if key in lines else {})
        if parameter.default is parameter.empty:
            required.append(key)
    parameters = {
        "type": "object",
        "properties": properties,
        "required": required,
        "additionalProperties": False,
    }
    first = " ".join(text.split("\n\n")[0].split())
    return Tool(name=name, description=first, parameters=parameters, function=function)


def _schema(where: str, hint: Any) -> dict[str, Any]:
    """The JSON schema of a type hint."""
    if hint in TYPES:
        return {"type": TYPES[hint]}
    origin, inner = typing.get_origin(hint), typing.get_args(hint)
    if origin is Literal and all(isinstance(value, str) for value in inner):
        return {"type": "string", "enum": [*inner]}
    if origin is list:
        return {"type": "array", "items": _schema(where, inner[0])}
    raise ValueError(
        f"{where} must have the type hint str, int, float, bool, a Literal of texts, or a list of "
        f"these; got {'none' if hint is None else hint}"
    )


def _descriptions(docstring: str) -> dict[str, str]:
    """What stands behind each name under "Args:"."""
    section = re.search(r"^Args:\n((?:[ \t]+.*\n?|\n)*)", docstring, re.MULTILINE)
    if section is None:
        return {}
    body = inspect.cleandoc("\n" + section[1])
    entries = re.findall(r"^(\w+):((?:.*)(?:\n[ \t]+.*)*)", body, re.MULTILINE)
    return {name: " ".join(text.split()) for name, text in entries}


def _check_value(where: str, value: Any, schema: Mapping[str, Any]) -> None:
    if "enum" in schema and value not in schema["enum"]:
        raise ValueError(f"{where} must be one of {', '.join(schema['enum'])}; got {value!r}")
    kind = schema["type"]
    if not isinstance(value, VALUES[kind]) or (kind != "boolean" and isinstance(value, bool)):
        raise ValueError(f"{where} must be of type {kind}; got {_spell(value)}")
    if kind == "array":
        for number, each in enumerate(value):
            _check_value(f"{where}[{number}]", each, schema["items"])


# --- a call and its result ------------------------------------------------------------------------
@final
@dataclass(frozen=True)
class Call:
    """What a model asks for: a function by its name, and arguments by theirs."""

    name: str
    arguments: Mapping[str, Any]

    @property
    def text(self) -> str:
        """As a model writes it: JSON without blanks.

        Example:
            >>> Call("double", {"n": 4}).text
            '{"name":"double","arguments":{"n":4}}'
        """
        return _spell({"name": self.name, "arguments": dict(self.arguments)})


@final
@dataclass(frozen=True)
class Result:
    """What comes back: a text for the model, and whether the tool did what it was asked to."""

    text: str
    ok: bool


def read_call(text: str) -> Call:
    """A call from what a model wrote.

    Raises:
        ValueError: it is no JSON object with a name and arguments.

    Example:
        >>> read_call('{"name": "double", "arguments": {"n": 4}}')
        Call(name='double', arguments={'n': 4})
    """
    form = 'a call must be JSON such as {"name":"calculate","arguments":{"expression":"3 * 4"}}'
    try:
        if len(text) > MOST_OF_A_CALL:
            raise ValueError(f"at most {MOST_OF_A_CALL} characters; it has {len(text)}")
        content = parse_json(text)
    except ValueError as error:
        raise ValueError(f"{form}; got {_cut(text, 100)!r} ({_cut(str(error), 100)})") from None
    match content:
        case {"name": str(name), "arguments": dict(arguments), **rest} if not rest:
            return Call(name, arguments)
    raise ValueError(f"{form}, with these two names and no other; got {_cut(text, 100)!r}")


def _spell(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False, separators=(",", ":"))


def _cut(text: str, most: int) -> str:
    """A text that is not longer than that, and says so where it was."""
    if len(text) <= most:
        return text
    return f"{text[:most]} … (cut: {len(text)} characters, of which {most} are shown)"


@final
class Toolbox:
    """The tools that a model may use.

    Args:
        tools: of different names.
        most_characters: of a result; what is longer is cut.
        most_seconds: that a tool may take. One that takes longer is left alone: its thread cannot
            be stopped, and ends with the program at the latest. What may hang, such as code that a
            model wrote, belongs into a process of its own, see `minillm.agents.sandbox`.

    Raises:
        ValueError: no tool, or two of one name.

    Example:
        >>> from minillm.agents.calculator import calculate
        >>> toolbox = Toolbox([tool(calculate)])
        >>> toolbox.call(Call("calculate", {"expression": "347 * 582"}))
        Result(text='201954', ok=True)
        >>> toolbox.call('{"name":"add","arguments":{}}')
        Result(text='there is no tool add; there are calculate', ok=False)
    """

    def __init__(
        self,
        tools: Sequence[Tool],
        most_characters: int = MOST_CHARACTERS,
        most_seconds: float = MOST_SECONDS,
    ):
        self.tools = {each.name: each for each in tools}
        self.most_characters, self.most_seconds = most_characters, most_seconds
        if not tools or len(self.tools) < len(tools):
            raise ValueError(
                "a toolbox needs at least one tool, and a name for each; got "
                f"{[each.name for each in tools]}"
            )

    def call(self, call: str | Call) -> Result:
        """Run a call, whatever it is; nothing but Ctrl-C comes through.

        Args:
            call: a `Call`, or the text that a model wrote.

        Returns:
            What the tool returned, or what was wrong.
        """
        try:
            # 1. which tool, with which arguments
            call = read_call(call) if isinstance(call, str) else call
            if call.name not in self.tools:
                raise ValueError(
                    f"there is no tool {_cut(call.name, 100)}; there are {', '.join(self.tools)}"
                )
            chosen = self.tools[call.name]
            chosen.check(call.arguments)
        except ValueError as error:
            return self._result(str(error), ok=False)
        # 2. what it returns, if it returns in time
        results: list[Result] = []

        def run() -> None:
            try:
                value = chosen.function(**call.arguments)
                text = value if isinstance(value, str) else _spell(value)
                results.append(self._result(text, ok=True))
            except (Exception, SystemExit) as error:  # whatever a tool does
                kind = "" if isinstance(error, ValueError) else f"{type(error).__name__}: "
                results.append(self._result(f"{chosen.name} failed: {kind}{error}", ok=False))

        thread = threading.Thread(target=run, daemon=True)
        thread.start()
        thread.join(self.most_seconds)
        late = f"{chosen.name} was given up after {self.most_seconds:g} seconds"
        return results[0] if results else self._result(late, ok=False)

    def _result(self, text: str, ok: bool) -> Result:
        # half a surrogate pair is no character, and no tokenizer can read it
        whole = text.encode("utf-8", errors="replace").decode("utf-8")
        return Result(_cut(whole, self.most_characters), ok)

    def schema(self) -> dict[str, Any]:
        """The JSON schema of all valid calls, for `minillm.serve.constrain.json_schema`."""
        return {
            "anyOf": [
                {
                    "type": "object",
                    "properties": {"name": {"const": each.name}, "arguments": each.parameters},
                    "required": ["name", "arguments"],
                }
                for each in self.tools.values()
            ]
        }

    def function_specs(self) -> list[dict[str, Any]]:
        """The tools as OpenAI's interface lists them."""
        return [
            {
                "type": "function",
                "function": {
                    "name": each.name,
                    "description": each.description,
                    "parameters": each.parameters,
                },
            }
            for each in self.tools.values()
        ]


# --- the loop ---------------------------------------------------------------------------------
def converse(
    write: Callable[[Sequence[Message]], Message],
    messages: Sequence[Message],
    toolbox: Toolbox,
    *,
    most_calls: int = 8,
) -> list[Message]:
    """Let a model write, run its calls, and let it go on, until it answers.

    Args:
        write: the model: from all messages so far, its next one, of the role "call" or "assistant".
        messages: what was said so far.
        toolbox: runs the calls.
        most_calls: the next one is not run, and ends the conversation.

    Returns:
        All messages: behind each call one of the role "result", and at the end the assistant's.

    Raises:
        ValueError: `write` gives another role; most_calls is below 0.

    Example:
        >>> def write(messages):  # one call, then the result as the answer
        ...     if messages[-1].role == "result":
        ...         return Message("assistant", messages[-1].content)
        ...     return Message("call", Call("double", {"n": 4}).text)
        >>> def double(n: int) -> str:
        ...     "Twice a number."
        ...     return str(2 * n)
        >>> converse(write, [Message("user", "Twice 4?")], Toolbox([tool(double)]))[-1]
        Message(role='assistant', content='8')
    """
    if most_calls < 0:
        raise ValueError(f"most_calls must be at least 0; got {most_calls}")
    messages = [*messages]
    for n_calls in range(most_calls + 1):
        # 1. the model writes
        message = write(tuple(messages))
        messages.append(message)
        if message.role == "assistant":
            return messages
        if message.role != "call":
            raise ValueError(f'a model writes a "call" or as "assistant"; got {message.role!r}')
        # 2. the program answers
        if n_calls < most_calls:
            messages.append(Message("result", toolbox.call(message.content).text))
    # 3. an endless loop of calls ends here
    end = f"not run: at most {most_calls} calls are allowed"
    stop = f"(stopped: no answer after {most_calls} calls)"
    return [*messages, Message("result", end), Message("assistant", stop)]


def write_with_calls(
    model: Transformer,
    questions: Sequence[str],
    run: Callable[[str], str],
    words: Words,
    *,
    most_calls: int = 1,
    n_tokens: int | None = None,
) -> list[str]:
    """What a solver writes after each question, where a program continues each of its calls.

        What is 3 4 7 times 5 8 2 ?  [ 3 4 7 * 5 8 2 ]  2 0 1 9 5 4 ;  2 0 1 9 5 4 .
        the question                 the model          run            the model

    The same agreements with three words: "[" begins a call, at "]" the model is stopped, and ";"
    ends the result.

    Args:
        model: a solver, see `minillm.reason.solver`.
        questions: all are answered together, greedily.
        run: from the words between "[" and "]" those that are put behind them.
        words: the model's tokenizer; knows "[", "]", ";" and ".".
        most_calls: for each question; a later one is not continued, so that answer has no ".".
        n_tokens: of each turn of the model at most; None for what the context has room for.

    Returns:
        The whole text after each question, calls and results in it. One that never came to a full
        stop has none at its end.

    Raises:
        ValueError: what `generate` refuses; a result with a word that the model does not know.
    """
    texts, going = [""] * len(questions), [*range(len(questions))]
    for n_calls in range(most_calls + 1):
        # 1. all that are not finished go on, to "." or "]"
        prompts = [words.encode(f"{questions[row]} {texts[row]}") for row in going]
        for row, ids in zip(going, _turns(model, prompts, words, n_tokens), strict=True):
            texts[row] = f"{texts[row]} {words.decode(ids)}".strip()
        going = [row for row in going if texts[row].endswith(END_CALL)]
        if not going or n_calls == most_calls:
            break
        # 2. behind each call its result; who has no room left stays without an answer
        for row in going:
            call = texts[row].rpartition(CALL)[2].removesuffix(END_CALL).strip()
            texts[row] += f" {run(call)} {END_RESULT}"
        room = model.context_length
        going = [r for r in going if len(words.encode(f"{questions[r]} {texts[r]}")) < room]
    return texts


def _turns(
    model: Transformer, prompts: Sequence[list[int]], words: Words, n_tokens: int | None
) -> list[list[int]]:
    """What a model writes after each prompt, with the "." or "]" that ends it."""
    turns: list[list[int]] = []
    for first in range(0, len(prompts), AT_ONCE):
        some = prompts[first : first + AT_ONCE]
        room = model.context_length - max(map(len, some))
        most = room if n_tokens is None else min(room, n_tokens)
        rows = generate(model, some, GREEDY, n_tokens=most, stop_ids=words.encode(f". {END_CALL}"))
        # `generate` leaves out the token that ended a row: it is the one that comes next
        short = [n for n, row in enumerate(rows) if len(row) < most]
        if short:
            ends = generate(model, [some[n] + rows[n] for n in short], GREEDY, n_tokens=1)
            for n, end in zip(short, ends, strict=True):
                rows[n] += end
        turns += rows
    return turns
