"""`minillm tools serve`: the town's tools for other programs (Model Context Protocol, MCP).

    a client    {"method": "tools/list"}                                  which tools are there?
    the server  {"tools": [{"name": "calculate", "inputSchema": {…}}, …]}
    a client    {"method": "tools/call", "params": {"name": "calculate", "arguments": {…}}}
    the server  {"content": [{"type": "text", "text": "201954"}], "isError": false}

A program with a language model in it (an editor, an assistant) can use tools of others if both
speak one protocol. Here the tools are those of `minillm chat --model tools-1m`, and `run_python`
(`minillm.agents.sandbox`). What a tool cannot do, or a wrong call, is a result with `isError` true,
for the client's model to read; it never ends the server. Long results are cut, see `Toolbox`.

**Who may ask.** With `stdio` the client starts the server, and speaks to it over its standard
input and output. With `http` the server listens at an address of this machine alone: the protocol's
keys (OAuth) are not built here, so no other machine is let in, and no web page of a stranger, whose
requests name another host.

Paper: "Model Context Protocol", specification of 2026-07-28, tools; as the package `mcp` 2 has it.
Differs: tools alone, no resources and no prompts.

Chapter: app
"""

import asyncio
import sys
from typing import Any

from minillm.agents import sandbox
from minillm.agents.tools import Call, Toolbox, tool
from minillm.recipes.serving import check_installed, listen
from minillm.recipes.town_tools import town_toolbox
from minillm.town.world import World

NAME = "minillm"
TRANSPORTS = ("stdio", "http")
HOSTS = ("127.0.0.1", "localhost", "::1")
SECONDS_TO_FINISH = 2  # after Ctrl-C, for calls that are being answered
McpServer = Any  # mcp's MCPServer, which is an extra


def run(*, transport: str, host: str, port: int, unsafe: bool) -> None:
    """Serve the town's tools until the client goes away (stdio) or Ctrl-C comes (http).

    Args:
        transport: "stdio" or "http".
        host, port: to listen at; 0 for a port that is free. For "http" alone.
        unsafe: offer `run_python` also where the system does not confine it.

    Raises:
        ValueError: mcp is not installed; another transport; a host that is not this machine's own;
            a port that is taken.
    """
    check_installed(["mcp"], extra="agents")
    if transport not in TRANSPORTS:
        raise ValueError(f"--transport must be one of {', '.join(TRANSPORTS)}; got {transport!r}")
    if host not in HOSTS:  # for these mcp checks the header Host
        raise ValueError(
            f"--host must be one of {', '.join(HOSTS)}, since this server asks for no key; got "
            f"{host!r}. From elsewhere it can be reached through a tunnel, such as ssh -L"
        )
    toolbox = offered(World(), unsafe=unsafe)
    if transport == "stdio":
        server(toolbox).run("stdio")
        return
    import uvicorn

    with listen(host, port) as listening:
        address = f"http://{f'[{host}]' if ':' in host else host}:{listening.getsockname()[1]}/mcp"
        print(f"{', '.join(toolbox.tools)}, at {address} (Ctrl-C stops the server)", flush=True)
        config = uvicorn.Config(
            server(toolbox).streamable_http_app(host=host),
            log_level="warning",
            timeout_graceful_shutdown=SECONDS_TO_FINISH,
        )
        uvicorn.Server(config).run([listening])


def offered(world: World, *, unsafe: bool = False) -> Toolbox:
    """The tools that are served: those of a town, and `run_python` where the system confines it.

    Args:
        world: the town.
        unsafe: whether to offer `run_python` anywhere.

    Example:
        >>> [*offered(World(), unsafe=True).tools]
        ['calculate', 'look_up', 'run_python']
    """
    tools = [*town_toolbox(world).tools.values()]
    absent = [name for name, is_held in sandbox.protections().items() if not is_held]
    if absent and not unsafe:
        print(
            f"run_python is left out: this system has no protection of {', '.join(absent)}; "
            "--unsafe offers it all the same",
            file=sys.stderr,
        )
        return Toolbox(tools)

    def run_python(code: str) -> str:
        """Run Python code in a sandbox: no network, no files of yours, some seconds.

        Args:
            code: its standard library is there; what it prints comes back.

        Raises:
            ValueError: with what was printed, and the error or the limit that ended it.
        """
        outcome = sandbox.run_python(code, unsafe=unsafe)
        if not outcome.ok:
            raise ValueError(outcome.text)
        return outcome.text

    return Toolbox([*tools, tool(run_python)])


def server(toolbox: Toolbox) -> McpServer:
    """An MCP server of some tools; its schemas are the toolbox's own.

    Args:
        toolbox: what it serves.
    """
    from mcp.server import MCPServer
    from mcp.types import CallToolResult, TextContent
    from mcp.types import Tool as Listed

    class Server(MCPServer):
        """The tools of a toolbox, in place of functions that mcp would read itself."""

        async def list_tools(self) -> list[Listed]:
            return [
                Listed(name=each.name, description=each.description, input_schema=each.parameters)
                for each in toolbox.tools.values()
            ]

        async def call_tool(
            self, name: str, arguments: dict[str, Any], context: Any = None
        ) -> CallToolResult:
            # a tool may take seconds, and other clients need not wait for it
            result = await asyncio.to_thread(toolbox.call, Call(name, arguments))
            return CallToolResult(
                content=[TextContent(type="text", text=result.text)], is_error=not result.ok
            )

    return Server(NAME, log_level="WARNING")
