"""A model of ours behind smolagents' `Model`, so that agents of that library run on it, offline.

    from smolagents import ToolCallingAgent, tool
    from minillm.agents.calculator import calculate
    from minillm.recipes.agent_model import open_agent_model

    agent = ToolCallingAgent(tools=[tool(calculate)], model=open_agent_model("tools-1m"))
    agent.run("What is 347 times 582?")

smolagents keeps what has happened as messages, and asks its model for the next one:

    smolagents                                         ours
    system         2,000 words on how to be an agent   (left out)
    user           New task: What is 347 times 582?    user     What is 347 times 582?
    assistant      {"name":"calculate",…}              call     {"name":"calculate",…}
    tool-call      Calling tools: [{'id': …}]          (left out: the same call again)
    tool-response  Observation: 201954                 result   201954

**An answer is a call, there.** A `ToolCallingAgent` goes on until its model calls the tool
`final_answer`. Our model answers in text, and this is turned into that call.

Paper: none; the package `smolagents` 1.26, `models.Model.generate`.
Differs: the system prompt is left out, since a model of 256 tokens of context has no room for it,
and has learned its tools in training. Stop texts are left out too: the model ends with a token.

Chapter: app
"""

import re
import uuid
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from minillm.recipes.serving import check_installed, open_served
from minillm.serve.conversation import Conversation
from minillm.serve.engine import Engine, EngineConfig
from minillm.serve.protocol import Call
from minillm.serve.sample import SampleConfig
from minillm.serve.served_model import ServedModel
from minillm.serve.template import Message
from minillm.serve.tool_calls import Offer, offer, split_call

FINAL = "final_answer"
#: What smolagents writes around the text of an error.
ERROR = re.compile(r"(?:Call id: [^\n]*\n)?Error:\n(.*?)\nNow let's retry: .*", re.DOTALL)
AgentModel = Any  # smolagents' Model, which is an extra

#: The next message of a conversation, of the role "call" or "assistant".
Write = Callable[[Conversation, Offer], Message]


def open_agent_model(place: str | Path = "tools-1m") -> AgentModel:
    """A model from its folder, or a shipped one by its name, for smolagents.

    Raises:
        ValueError: smolagents is not installed; a model that cannot be read.
    """
    check_installed(["smolagents"], extra="agents")
    engine, served = open_served(Path(place), EngineConfig(max_batch=1))
    return agent_model(writer(engine, served), served.name)


def writer(engine: Engine, served: ServedModel) -> Write:
    """A model as the one who writes the next message, greedily.

    Args:
        engine: with the model.
        served: what it is; calls of tools are written under the schema of what is offered.
    """

    def write(talk: Conversation, tools: Offer) -> Message:
        config = SampleConfig(temperature=0)
        call = Call(chat=True, model=served.name, prompts=(talk,), config=config, tools=tools)
        (completion,) = engine.run(served.requests(call))
        if tools.functions and completion.tokens[:1] == [served.call_id]:
            return Message("call", served.tokenizer.decode(completion.tokens[1:]))
        return Message("assistant", completion.text)

    return write


def agent_model(write: Write, name: str) -> AgentModel:
    """Who writes the next message, as a `Model` of smolagents.

    Args:
        write: the model, or a stand-in for it.
        name: its name, for smolagents' log.
    """
    from smolagents import ChatMessage, Model
    from smolagents.models import MessageRole, get_tool_json_schema

    class TownModel(Model):
        """Our messages in place of smolagents' own."""

        def generate(
            self,
            messages: Sequence[Any],
            stop_sequences: Sequence[str] | None = None,
            response_format: Mapping[str, Any] | None = None,
            tools_to_call_from: Sequence[Any] | None = None,
            **options: Any,
        ) -> Any:
            """The next message of an agent."""
            if response_format is not None or options:
                raise ValueError(
                    "this model takes messages and tools alone, as a ToolCallingAgent gives them; "
                    f"got {sorted(options) or 'response_format'}"
                )
            tools = [get_tool_json_schema(each) for each in tools_to_call_from or ()]
            own = [each for each in tools if each["function"]["name"] != FINAL]
            message = write(conversation(messages), offer({"tools": [*map(_plain, own)]}))
            call = split_call(message.content) if message.role == "call" else None
            if message.role == "assistant" and len(own) < len(tools):
                call = FINAL, {"answer": message.content}
            # a call that was cut is none; the agent notes it, and asks again
            calls = None if call is None else [_tool_call(*call)]
            return ChatMessage(MessageRole.ASSISTANT, message.content, calls)

    return TownModel(model_id=name)


def _plain(tool: dict[str, Any]) -> dict[str, Any]:
    """A tool without what JSON schema does not know: what may be null may be left out."""
    function = tool["function"]
    properties = function["parameters"]["properties"]
    plain = {
        name: {key: value for key, value in each.items() if key != "nullable"}
        for name, each in properties.items()
    }
    parameters = {**function["parameters"], "properties": plain}
    return {**tool, "function": {**function, "parameters": parameters}}


def _tool_call(name: str, arguments: Mapping[str, Any]) -> Any:
    from smolagents.models import ChatMessageToolCall, ChatMessageToolCallFunction

    function = ChatMessageToolCallFunction(arguments=dict(arguments), name=name)
    return ChatMessageToolCall(function, f"call_{uuid.uuid4().hex[:24]}", "function")


def conversation(messages: Sequence[Any]) -> Conversation:
    """The messages of an agent's memory as ours; see the table above.

    Args:
        messages: smolagents' `ChatMessage`s, with texts alone.

    Example:
        >>> from types import SimpleNamespace
        >>> task = SimpleNamespace(role="user", content="New task:\\nWho is Mei?")
        >>> conversation([task])
        (Message(role='user', content='Who is Mei?'),)
    """
    talk: list[Message] = []
    for message in messages:
        text = _text(message.content)
        match message.role:
            case "user":
                talk.append(Message("user", text.removeprefix("New task:\n")))
            case "assistant":
                talk.append(Message("call" if split_call(text) else "assistant", text))
            case "tool-response" if talk and talk[-1].role == "call":
                error = ERROR.fullmatch(text.strip())
                text = error[1] if error else text.removeprefix("Observation:\n")
                talk.append(Message("result", text))
    return tuple(talk)


def _text(content: Any) -> str:
    match content:
        case None:
            return ""
        case str():
            return content
        case [*parts] if all(part["type"] == "text" for part in parts):
            return "\n".join(part["text"] for part in parts)
    raise ValueError(f"this model reads text only; got {str(content)[:80]}")
