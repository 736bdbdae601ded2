"""`minillm agent`, `minillm tools …`: a model that acts, and what models can call.

Chapter: app
"""

from pathlib import Path
from typing import Annotated

import typer

tools_app = typer.Typer(
    help="What the town's models can call.", no_args_is_help=True, rich_markup_mode=None
)


def agent(
    model: Annotated[
        Path,
        typer.Option(metavar="DIR", help="Folder of a model, or the name of a shipped one."),
    ] = Path("agent-1m"),
    task: Annotated[
        str | None,
        typer.Option(help='Such as "bring plums to Joe"; by default one by chance.'),
    ] = None,
    trace: Annotated[
        Path | None, typer.Option(help="File to make; by default a new one in runs.")
    ] = None,
    seed: Annotated[int, typer.Option(help="Another number, another errand.")] = 0,
    world: Annotated[
        str | None, typer.Option(metavar="SEED", help="Another town than Tinytown.")
    ] = None,
    calls: Annotated[int, typer.Option(help="The budget: the model writes at most so many.")] = 40,
    failures: Annotated[float, typer.Option(help="How often an action fails, 0 to 1.")] = 0.1,
    slow: Annotated[bool, typer.Option("--slow", help="Wait a second after each step.")] = False,
) -> None:
    """Let a model run an errand in the town, step by step.

    Printed are what the model reads (later on, the lines that are new), its thought, its call, and
    the result. The trace has the same as JSON, a line for each call; a file that is there already
    is never replaced. Ctrl-C ends the errand, and the trace keeps what happened.

    Start and shops follow from the seed. Now and then nobody has the good; then it is right to give
    up. The exit status is 1 if the errand did not end well.
    """
    from minillm.recipes import acting

    ended_well = acting.run(
        model,
        task=task,
        trace=trace,
        seed=seed,
        world=world,
        calls=calls,
        failures=failures,
        slow=slow,
    )
    raise typer.Exit(0 if ended_well else 1)


@tools_app.command("serve")
def serve_tools(
    transport: Annotated[
        str, typer.Option(help="stdio, for a client that starts this program; or http.")
    ] = "stdio",
    host: Annotated[
        str, typer.Option(help="Address to listen at with http, of this machine alone.")
    ] = "127.0.0.1",
    port: Annotated[
        int, typer.Option(help="Port to listen at with http; 0 takes one that is free.")
    ] = 8001,
    unsafe: Annotated[
        bool,
        typer.Option(
            "--unsafe", help="Offer run_python even where the system does not confine it."
        ),
    ] = False,
) -> None:
    """Serve the town's tools to programs that speak the Model Context Protocol (MCP).

    They are calculate, look_up and run_python. A client that starts programs itself is told: the
    command is minillm, its arguments are tools serve.
    """
    from minillm.recipes import tools_server

    tools_server.run(transport=transport, host=host, port=port, unsafe=unsafe)
