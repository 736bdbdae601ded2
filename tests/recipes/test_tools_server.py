"""The real MCP client against our server: in memory, over stdio and over HTTP."""

import asyncio
import http.client
import socket
import sys
import threading

import pytest
import uvicorn
from mcp import Client, StdioServerParameters, stdio_client

from minillm.agents import sandbox
from minillm.agents.tools import Toolbox, tool
from minillm.recipes.tools_server import offered, run, server
from minillm.town.world import World

USUAL = {"host": "127.0.0.1", "port": 0, "unsafe": False}


def repeat(text: str, n: int = 2) -> str:
    """Say a text several times.

    Args:
        text: what.
        n: how often.
    """
    if n < 0:
        raise ValueError("n must be 0 or more")
    return text * n


def crash() -> str:
    """Divide by zero."""
    return str(1 / 0)


TOOLBOX = Toolbox([tool(repeat), tool(crash)])


def asked(place, *calls):
    """What a client is told: the tools, and of each call whether it failed, and the text."""

    async def ask():
        async with Client(place) as client:
            listed = (await client.list_tools()).tools
            results = [await client.call_tool(name, arguments) for name, arguments in calls]
        return listed, [(result.is_error, result.content[0].text) for result in results]

    return asyncio.run(ask())


# --- by hand --------------------------------------------------------------------------------------
def test_the_client_sees_our_schemas_and_is_given_our_results():
    calls = [("repeat", {"text": text}) for text in ("红", "<|end|>")]
    listed, results = asked(server(TOOLBOX), *calls)
    assert [(each.name, each.description, each.input_schema) for each in listed] == [
        (each.name, each.description, each.parameters) for each in TOOLBOX.tools.values()
    ]
    assert results == [(False, "红红"), (False, "<|end|><|end|>")]


def test_what_goes_wrong_is_a_result_and_the_server_goes_on():
    _, results = asked(
        server(TOOLBOX),
        ("repeat", {"text": "a", "n": -1}),
        ("crash", {}),
        ("repeat", {}),
        ("repeat", {"text": 7}),
        ("no_such_tool", {}),
        ("repeat", {"text": "ab"}),
    )
    assert [failed for failed, _ in results] == [True] * 5 + [False]
    texts = [text for _, text in results]
    assert texts[0] == "repeat failed: n must be 0 or more"
    assert "ZeroDivisionError" in texts[1]
    assert "'text' is missing" in texts[2]
    assert "no_such_tool" in texts[4]


def test_a_megabyte_is_cut_and_says_so():
    _, [(failed, text)] = asked(server(TOOLBOX), ("repeat", {"text": "a", "n": 2**20}))
    assert not failed
    assert len(text) < 2200
    assert "1048576 characters" in text


def test_clients_do_not_wait_for_a_slow_tool():
    gate = threading.Event()

    def wait() -> str:
        """Wait until somebody opens."""
        gate.wait(9)
        return "open"

    def let() -> str:
        """Open."""
        gate.set()
        return "opened"

    async def both():
        async with Client(server(Toolbox([tool(wait), tool(let)]))) as client:
            return await asyncio.gather(client.call_tool("wait", {}), client.call_tool("let", {}))

    assert [result.content[0].text for result in asyncio.run(both())] == ["open", "opened"]


def test_code_is_run_where_the_system_confines_it_or_who_serves_says_so(monkeypatch, capsys):
    cases = (True, False, True), (False, False, False), (False, True, True)
    for held, unsafe, is_offered in cases:
        monkeypatch.setattr(sandbox, "protections", lambda held=held: {"network": held})
        assert ("run_python" in offered(World(), unsafe=unsafe).tools) == is_offered
    assert "has no protection of network; --unsafe" in capsys.readouterr().err
    monkeypatch.undo()
    toolbox = offered(World(), unsafe=True)
    code = [("run_python", {"code": code}) for code in ("print(6 * 7)", "print(1); 1 / 0")]
    _, results = asked(server(toolbox), *code)
    assert results[0] == (False, "42")
    assert results[1][0]
    assert "division by zero" in results[1][1]


# --- as a program ---------------------------------------------------------------------------------
def test_over_stdio_the_towns_tools_answer():
    words = ["-m", "minillm", "tools", "serve"]
    place = stdio_client(StdioServerParameters(command=sys.executable, args=words))
    calls = [
        ("calculate", {"expression": "347 * 582"}),
        ("look_up", {"person": "Mei", "relation": "likes"}),
        ("look_up", {"person": "Nobody", "relation": "likes"}),
    ]
    listed, results = asked(place, *calls)
    assert {"calculate", "look_up"} <= {each.name for each in listed}
    assert [failed for failed, _ in results] == [False, False, True]
    assert results[0][1] == "201954"


def test_over_http_too_but_not_for_a_name_of_another_machine():
    listening = socket.create_server(("127.0.0.1", 0))
    app = server(TOOLBOX).streamable_http_app(host="127.0.0.1")
    running = uvicorn.Server(uvicorn.Config(app, log_config=None))
    thread = threading.Thread(target=running.run, args=([listening],))
    thread.start()
    try:
        port = listening.getsockname()[1]
        _, results = asked(f"http://127.0.0.1:{port}/mcp", ("repeat", {"text": "ab"}))
        assert results == [(False, "abab")]
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=100)
        connection.request(
            "POST", "/mcp", "{}", {"host": "mei.org", "content-type": "application/json"}
        )
        answer = connection.getresponse()
        assert (answer.status, answer.read()) == (421, b"Invalid Host header")
        connection.close()
    finally:
        running.should_exit = True
        thread.join(100)


# --- bad input ------------------------------------------------------------------------------------
def test_what_cannot_be_served_is_said():
    with pytest.raises(ValueError, match="one of stdio, http; got 'ftp'"):
        run(transport="ftp", **USUAL)
    with pytest.raises(ValueError, match=r"must be one of 127.* got '0\.0\.0\.0'"):
        run(transport="http", **(USUAL | {"host": "0.0.0.0"}))


def test_without_mcp_it_says_what_to_type(monkeypatch):
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(ValueError, match=r"needs mcp; .* 'minillm\[agents\]'"):
        run(transport="stdio", **USUAL)
