"""smolagents' own ToolCallingAgent, offline, on a scripted model and on models of ours."""

import json
from dataclasses import replace

import pytest
import smolagents
from smolagents import ToolCallingAgent

from minillm.agents.calculator import calculate
from minillm.agents.tools import Toolbox
from minillm.agents.tools import tool as our_tool
from minillm.recipes.agent_model import agent_model, open_agent_model, writer
from minillm.serve.template import Message
from minillm.serve.tool_calls import call_schema, call_text, offer
from minillm.town.sums import SumSource
from minillm.town.world import World
from minillm.zoo import checkpoints
from tests.serve.caller import TOOLS, caller

TASK = "What is 347 times 582?"
CALL = call_text("calculate", {"expression": "347 * 582"})


def sell(fruit: str, n: int | None = None) -> str:
    """Sell fruit.

    Args:
        fruit: which.
        n: how many; all by default.
    """
    return f"{fruit} is sold"


def agent_of(write, *functions, **how):
    """An agent that says nothing on the terminal."""
    tools = [smolagents.tool(function) for function in functions or (calculate,)]
    model = agent_model(write, "toy")
    return ToolCallingAgent(tools=tools, model=model, verbosity_level=-1, **how)


def scripted(*replies):
    """A stand-in that writes these messages in turn, and what it was shown each time."""
    shown = []

    def write(talk, tools):
        shown.append((list(map(tuple, talk)), tools))
        return Message(*replies[len(shown) - 1])

    return write, shown


# --- by hand --------------------------------------------------------------------------------------
def test_an_agent_calls_reads_the_result_and_answers():
    write, shown = scripted(("call", CALL), ("assistant", "It is 201954."))
    assert agent_of(write).run(TASK) == "It is 201954."
    (first, tools), (second, _) = shown
    assert first == [("user", TASK)]
    assert second == [("user", TASK), ("call", CALL), ("result", "201954")]
    assert [each.name for each in tools.functions] == ["calculate"]


def test_what_a_tool_refuses_is_a_result_without_smolagents_words_around_it():
    wrong = call_text("calculate", {"expression": "2 ** 10 ** 9"})
    write, shown = scripted(("call", wrong), ("assistant", "I cannot."))
    assert agent_of(write).run(TASK) == "I cannot."
    *_, (role, text) = shown[1][0]
    assert role == "result"
    assert "Error executing tool 'calculate'" in text
    assert "Now let's retry" not in text


def test_a_call_that_was_cut_is_noted_and_another_is_asked_for():
    write, shown = scripted(("call", CALL[:20]), ("call", CALL), ("assistant", "201954"))
    agent = agent_of(write)
    assert agent.run(TASK) == "201954"
    assert "parsing tool call" in str(agent.memory.steps[1].error)
    assert shown[1][0] == [("user", TASK), ("assistant", CALL[:20])]


def test_a_second_task_sees_the_first_one():
    write, shown = scripted(("call", CALL), ("assistant", "201954"), ("assistant", "Yes."))
    agent = agent_of(write)
    agent.run(TASK)
    assert agent.run("Sure?", reset=False) == "Yes."
    talk = [("user", TASK), ("call", CALL), ("result", "201954"), ("assistant", "201954")]
    assert shown[2][0] == [*talk, ("user", "Sure?")]


def test_an_argument_that_may_be_left_out_is_not_required():
    write, shown = scripted(("call", call_text("sell", {"fruit": "plum"})), ("assistant", "Done."))
    assert agent_of(write, sell).run("Sell plums.") == "Done."
    ((function,),) = [tools.functions for _, tools in shown[:1]]
    assert function.parameters["required"] == ["fruit"]
    assert function.parameters["properties"]["n"].keys() == {"type", "description"}


# --- twin -----------------------------------------------------------------------------------------
def test_the_schema_of_calls_is_that_of_the_toolbox():
    toolbox = Toolbox([our_tool(calculate)])
    functions = offer({"tools": toolbox.function_specs()}).functions
    assert call_schema(functions) == toolbox.schema()


# --- models of ours -------------------------------------------------------------------------------
def test_a_model_in_an_engine_writes_calls_that_fit_the_agents_tools():
    write, offered = writer(*caller()), offer({"tools": TOOLS})
    message = write((Message("user", "Sell!"),), offered)
    assert message.role == "call"
    assert json.loads(message.content)["arguments"]["fruit"] in ("plum", "红")
    assert write((Message("user", "Sell!"),), replace(offered, functions=())).role == "assistant"


@pytest.mark.skipif("tools-1m" not in checkpoints.names(), reason="tools-1m is not shipped yet")
def test_the_shipped_model_calls_the_calculator():
    source = SumSource(World(), "en")
    question = next(each for each in source.block(0, seed=7) if each.needs_call)
    model = open_agent_model("tools-1m")
    tools = [smolagents.tool(calculate)]
    agent = ToolCallingAgent(tools=tools, model=model, verbosity_level=-1, max_steps=3)
    assert question.answer in agent.run(question.text)


# --- bad input ------------------------------------------------------------------------------------
def test_what_it_cannot_do_is_refused():
    model = agent_model(scripted()[0], "toy")
    with pytest.raises(ValueError, match="messages and tools alone"):
        model.generate([], response_format={"type": "json_object"})
    image = smolagents.ChatMessage("user", [{"type": "image", "image": "…"}])
    with pytest.raises(ValueError, match="reads text only"):
        model.generate([image])


def test_without_smolagents_it_says_what_to_type(monkeypatch):
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(ValueError, match=r"needs smolagents; .* 'minillm\[agents\]'"):
        open_agent_model("tools-1m")
