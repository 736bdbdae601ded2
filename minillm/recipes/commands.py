"""`minillm train …`, `sweep`, `chat`, `serve`, `quantize`, `export`: the recipes.

Chapter: app
"""

from dataclasses import replace
from pathlib import Path
from typing import Annotated

import typer
from typer.core import TyperGroup


class _Recipes(TyperGroup):
    """`train NAME`: what is no command of the group is the name of a recipe or a TOML file."""

    def resolve_command(self, ctx, args):
        """The command, and what is left for it."""
        if args and args[0] not in self.commands and not args[0].startswith("-"):
            args = ["recipe", *args]
        return super().resolve_command(ctx, args)


train_app = typer.Typer(
    cls=_Recipes,
    help="Train a model or a tokenizer.\n\nA model is trained by the name of a recipe, such as "
    "`minillm train town-1m`, or by a TOML file.",
    no_args_is_help=True,
    rich_markup_mode=None,
)


@train_app.command("tokenizer")
def train_tokenizer(
    files: Annotated[
        list[Path], typer.Argument(metavar="FILES...", help="Text files or folders, UTF-8.")
    ],
    vocab: Annotated[
        int, typer.Option(help="Tokens in all: 256 bytes, merges, special tokens.")
    ] = 4096,
    out: Annotated[Path, typer.Option(help="Folder for tokenizer.json.")] = Path("tokenizer"),
    special: Annotated[
        list[str] | None, typer.Option(help="A special token; may be given several times.")
    ] = None,
) -> None:
    """Learn a byte-pair vocabulary from text.

    It is written as tokenizer.json, which the tokenizers library and transformers read too.
    """
    from minillm.recipes.tokenizer import run

    run(files, vocab_size=vocab, out=out, special_tokens=tuple(special or ("<|endoftext|>",)))


@train_app.command("recipe")
def train_recipe(
    recipe: Annotated[
        str, typer.Argument(metavar="NAME|FILE.toml", help="A recipe's name, or a file with one.")
    ],
    out: Annotated[
        Path | None, typer.Option(help="Folder of the run; by default runs/NAME.")
    ] = None,
    steps: Annotated[int | None, typer.Option(help="Another number of steps.")] = None,
    seed: Annotated[int | None, typer.Option(help="Another seed.")] = None,
    text: Annotated[
        Path | None, typer.Option(help="Another file to read, for a recipe of texts or chats.")
    ] = None,
    ranks: Annotated[
        int | None, typer.Option(help="Processes that train together; torchrun brings its own.")
    ] = None,
    plan: Annotated[
        str | None,
        typer.Option(help='What is cut: "dp=2", "zero=3", "fsdp=2", "tp=2", "pp=2", "tp=2,dp=2".'),
    ] = None,
) -> None:
    """Train a model; Ctrl-C saves, and the same command goes on.

    The word `recipe` may be left out: minillm train town-1m. A TOML file may say as little as its
    name, [data] kind = "text" and files = ["letters.txt"]; what it leaves out has a default.
    With parent = "town-base" (or a folder) the model is made from that one, and learns to chat from
    [data] kind = "chat" and files = ["chats.jsonl"].

    With --ranks 2 two processes train one model, each on half of every batch, and end with the same
    weights up to rounding. Checkpoints are whole: another number of ranks, or one, may go on. On
    several machines: torchrun --nnodes 2 ... -m minillm train NAME --plan fsdp=16.
    """
    from minillm.recipes import recipe as recipes
    from minillm.recipes import team

    chosen = recipes.find(recipe)
    if seed is not None:
        chosen = replace(chosen, seed=seed)
    if text is not None:
        chosen = recipes.reading(chosen, text)
    if steps is not None:
        chosen = recipes.shortened(chosen, steps)
    team.train(chosen, out or Path("runs", chosen.name), ranks, plan)


def sweep(
    file: Annotated[
        Path, typer.Argument(metavar="FILE.toml", help="A recipe, and a [grid] of its settings.")
    ],
    out: Annotated[
        Path | None, typer.Option(help="Folder of the sweep; by default runs/NAME.")
    ] = None,
    processes: Annotated[
        int | None, typer.Option(min=1, help="Runs at a time; by default one a core.")
    ] = None,
) -> None:
    """Train a recipe once for every point of a grid.

    FILE.toml says recipe = "town-1m" (or a file, or a table), and in [grid] lists of values such as
    seed = [0, 1] and model.d_model = [32, 64]: every combination is a run, each on a core of its
    own. Ctrl-C stops, and the same command goes on; finished runs are not repeated. At the end
    there are a table, a CSV and a figure. The exit status is 1 if a run failed.
    """
    from minillm.recipes import sweep_file

    runs = sweep_file.run(file, out, processes=processes)
    raise typer.Exit(0 if all(run.status == "finished" for run in runs) else 1)


def chat(
    model: Annotated[
        Path,
        typer.Option(metavar="DIR", help="Folder of a model, or the name of a shipped one."),
    ] = Path("chat-1m"),
    once: Annotated[
        str | None, typer.Option(metavar="TEXT", help="Answer this one message, and end.")
    ] = None,
    system: Annotated[
        str | None, typer.Option(metavar="TEXT", help="What stands before the conversation.")
    ] = None,
    temperature: Annotated[
        float | None,
        typer.Option(
            help="0 for the likeliest token always, 1 for the model's own chances; by default 0, "
            "or 0.8 with --votes."
        ),
    ] = None,
    seed: Annotated[
        int, typer.Option(help="Another number, other answers, at a temperature above 0.")
    ] = 0,
    max_tokens: Annotated[
        int | None,
        typer.Option(help="Of an answer; by default up to 512, or what the context allows."),
    ] = None,
    steps: Annotated[
        bool,
        typer.Option("--steps", help='Ask for a chain of thought: "Let\'s think step by step."'),
    ] = False,
    votes: Annotated[
        int | None,
        typer.Option(metavar="N", help="Sample 2 to 64 answers; what most of them say is given."),
    ] = None,
) -> None:
    """Talk to a model that was tuned for chat.

    Ctrl-C ends an answer; at the prompt it says how to leave, and twice it leaves. /help lists the
    commands. Through a pipe each line is a message, and standard output has the answers alone; what
    cannot be answered ends the program with status 2.

    steps-1m solves problems of the town's shop, and --steps shows how. --votes 10 samples ten
    answers, tells how many named which number, and gives the first of the majority's.

    tools-1m calls a calculator, and looks up people of the town: where they live, what they sell.
    Each call is a line on standard error.
    """
    from minillm.recipes import chatting

    chatting.run(
        model,
        once=once,
        system=system,
        temperature=temperature,
        seed=seed,
        max_tokens=max_tokens,
        steps=steps,
        votes=votes,
    )


def serve(
    model: Annotated[
        Path,
        typer.Option(metavar="DIR", help="Folder of a model, or the name of a shipped one."),
    ] = Path("town-1m"),
    host: Annotated[
        str, typer.Option(help="Address to listen at; another than your own machine's needs a key.")
    ] = "127.0.0.1",
    port: Annotated[int, typer.Option(help="Port to listen at; 0 takes one that is free.")] = 8000,
    api_key: Annotated[
        str | None,
        typer.Option(envvar="MINILLM_API_KEY", help="What clients must show, as a bearer token."),
    ] = None,
    max_batch: Annotated[int, typer.Option(min=1, help="Requests that run at once.")] = 16,
    queue: Annotated[int, typer.Option(min=0, help="Requests that may wait beside them.")] = 48,
    threads: Annotated[
        int | None, typer.Option(min=1, help="Threads to compute with; by default OMP_NUM_THREADS.")
    ] = None,
) -> None:
    """Serve a model to programs that speak OpenAI's API, with a page to talk to it.

    Ctrl-C stops: answers in the works have some seconds to finish; a second Ctrl-C stops at once.
    """
    from minillm.lab.threads import threads as usual_threads
    from minillm.recipes import serving

    serving.run(
        model,
        host=host,
        port=port,
        api_key=api_key,
        max_batch=max_batch,
        queue=queue,
        threads=threads or usual_threads(),
    )


def quantize(
    model: Annotated[
        Path,
        typer.Option(metavar="DIR", help="Folder of a model, or the name of a shipped one."),
    ],
    out: Annotated[Path, typer.Option(help="Folder to make.")],
    method: Annotated[
        str, typer.Option(help="rtn rounds to nearest; gptq, looking at inputs; nf4, unevenly.")
    ] = "gptq",
    bits: Annotated[int | None, typer.Option(help="8, 4, 3 or 2 a weight; by default 4.")] = None,
    group: Annotated[
        int | None, typer.Option(help="Neighbours of a row with one scale; by default all.")
    ] = None,
    asymmetric: Annotated[
        bool, typer.Option("--asymmetric", help="From the lowest weight to the highest.")
    ] = False,
    clip: Annotated[
        bool, typer.Option("--clip", help="Scales of least error; the largest weights are cut.")
    ] = False,
    table_bits: Annotated[
        int | None, typer.Option(help="8, 4, 3 or 2 for the tables of tokens; by default float.")
    ] = None,
    text: Annotated[
        Path | None, typer.Option(help="Text for the loss, and for gptq; by default the town's.")
    ] = None,
) -> None:
    """Write a model in fewer bits a weight.

    Prints what becomes of each matrix, and bytes and held-out loss before and after; then sample
    and serve take the folder. With --text, blank lines end documents, and the last twentieth of
    them is held out. What is there already is never replaced.
    """
    from minillm.recipes import quantizing

    quantizing.run(
        model,
        out,
        method=method,
        bits=bits,
        group=group,
        asymmetric=asymmetric,
        clip=clip,
        table_bits=table_bits,
        text=text,
    )


def export(
    model: Annotated[
        Path,
        typer.Option(metavar="DIR", help="Folder of a model, or the name of a shipped one."),
    ],
    out: Annotated[Path, typer.Option(help="File (gguf) or folder (hf) to make.")],
    form: Annotated[
        str, typer.Option("--format", help="gguf for llama.cpp, or hf for transformers.")
    ] = "gguf",
    kind: Annotated[
        str, typer.Option("--type", help="f32, f16, bf16; for gguf also q8_0 (8 bits), q4_0 (4).")
    ] = "f32",
) -> None:
    """Write a model in another program's format.

    A GGUF file holds model and tokenizer, for llama.cpp and what is built on it. q8_0 and q4_0
    round the weights in blocks of 32; what 32 does not divide stays f16. What is there already is
    never replaced.
    """
    from minillm.recipes import export as exporting

    print("\n".join(exporting.run(model, form=form, kind=kind, out=out)))
