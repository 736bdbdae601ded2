"""The command line: ``minillm --help``.

Chapter: app
"""

import json
import sys
from dataclasses import replace
from pathlib import Path
from typing import Annotated

import typer

from minillm.lab.program import program
from minillm.recipes.agent_commands import agent, tools_app
from minillm.recipes.commands import chat, export, quantize, serve, sweep, train_app

app = typer.Typer(
    name="minillm",
    help="A course on large language models, measured on your own laptop.",
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)
app.add_typer(train_app, name="train")
app.add_typer(tools_app, name="tools")
app.command()(sweep)
app.command()(chat)
app.command()(agent)
app.command()(serve)
app.command()(quantize)
app.command()(export)
TaskId = Annotated[str, typer.Argument(metavar="TASK", help="Chapter and number, such as 1.2.")]
Word = Annotated[str | None, typer.Argument(metavar="[WORD]", help="English, Chinese, or code.")]


def main() -> None:
    """Run the command line; what a person can get wrong is one sentence and exit status 2."""
    for stream in (sys.stdout, sys.stderr):
        # A pipe on Windows may know neither ✔ nor Chinese: write \\uNNNN there, do not stop.
        stream.reconfigure(errors="backslashreplace")
    try:
        with program("minillm"):
            app()
    except ValueError as error:
        print(f"minillm: {error}", file=sys.stderr)
        sys.exit(2)
    except SystemExit as end:
        if end.code == 130:  # what typer makes of a stop by the keyboard, without a word
            print("\nminillm: stopped.", file=sys.stderr)
        raise


@app.command("map")
def show_map() -> None:
    """Print the modules of the library in reading order.

    Each with its chapter, its lines of code, and one clause.
    """
    from minillm.lab.map import table

    print(table())


@app.command()
def doctor() -> None:
    """Say what this machine is and what the course will take."""
    from minillm.agents.sandbox import diagnosis
    from minillm.lab.doctor import report

    report([diagnosis()])


@app.command()
def glossary(word: Word = None) -> None:
    """Say what a term means and what it is called in the code.

    Without a word: all terms, in the order in which the chapters explain them. A word that the
    course does not use leads to the one that it does: try `minillm glossary n_vocab`.
    """
    from minillm.lab.glossary import text

    print(text(word))


@app.command()
def check(
    tasks: Annotated[
        list[str] | None,
        typer.Argument(metavar="[TASK...]", help="Such as 1.2, or a chapter: 1. By default all."),
    ] = None,
) -> None:
    """Grade your answers in my/exercises.

    The exit status is 0 if all are solved, else 1.
    """
    from minillm.lab.task import check as check_task

    results = [check_task(task) for task in _tasks(tasks or _finished())]
    sys.exit(0 if all(result.status == "done" for result in results) else 1)


@app.command()
def hint(
    task: TaskId,
    level: Annotated[int | None, typer.Option(help="1, 2 or 3; by default the next one.")] = None,
) -> None:
    """Print the next hint of a task; there are three."""
    from minillm.lab.task import hint as print_hint

    print_hint(task, level)


@app.command()
def solution(task: TaskId) -> None:
    """Print the worked answer of a task, and mark it as seen."""
    from minillm.lab.task import solution as print_solution

    print_solution(task)


@app.command()
def progress() -> None:
    """Print which tasks are solved."""
    from minillm.lab.progress import table

    print(table())


@app.command()
def start(
    at: Annotated[
        str | None,
        typer.Option(
            metavar="TASK", help="Solve every task before this one: where a workshop begins."
        ),
    ] = None,
) -> None:
    """Fill my/ with the chapters, outputs cleared.

    Your own work is never overwritten: what is new comes beside it.
    """
    from minillm.lab.start import fill, first_notebook

    messages = fill(at)
    print("\n".join(messages) if messages else "my/ is up to date")
    print(f"Next: make learn, or jupyter lab {first_notebook()}")


@app.command()
def claims(
    as_json: Annotated[
        bool, typer.Option("--json", help="The whole ledger, for programs.")
    ] = False,
    only: Annotated[str | None, typer.Argument(metavar="ID", help="One claim, in full.")] = None,
) -> None:
    """Print the claims ledger and what was measured.

    The measurements are read from the stored notebooks.
    """
    from minillm.lab import ledger

    if as_json:
        print(json.dumps(ledger.as_data(only), indent=1))
    else:
        print(ledger.in_full(only) if only else ledger.table())


@app.command()
def reproduce(
    claim: Annotated[str, typer.Argument(metavar="ID", help="A claim's id; see minillm claims.")],
) -> None:
    """Measure a claim again, now, on this machine."""
    from minillm.lab.reproduce import reproduce as run_again

    print("\n".join(run_again(claim)))


@app.command()
def tokenize(
    text: Annotated[
        str,
        typer.Argument(
            metavar="TEXT", help="A sentence, in quotes; - reads it from standard input."
        ),
    ],
    tokenizer: Annotated[
        Path | None,
        typer.Option(
            help="A tokenizer.json or its folder; by default one learned now from the reader."
        ),
    ] = None,
    trace: Annotated[
        bool, typer.Option("--trace", help="Also print every merge, in order.")
    ] = False,
) -> None:
    """Show the tokens of a sentence, in colour."""
    from minillm.lab.text_file import decode
    from minillm.recipes.tokenizer import show_tokens

    if text == "-":
        text = decode(sys.stdin.buffer.read(), "standard input")
    show_tokens(text, tokenizer, trace=trace)


@app.command()
def sample(
    prompt: Annotated[
        str, typer.Argument(metavar="PROMPT", help="How the text begins, in quotes.")
    ],
    model: Annotated[
        Path,
        typer.Option(metavar="DIR", help="Folder of a model, or the name of a shipped one."),
    ],
    tokens: Annotated[
        int | None,
        typer.Option(help="Tokens to write at most; by default 200, or what the context allows."),
    ] = None,
    temperature: Annotated[
        float | None,
        typer.Option(help="Below 1 safer, above 1 wilder, 0 as --greedy. By default 0.8."),
    ] = None,
    top_k: Annotated[
        int | None, typer.Option(help="Draw from the k likeliest tokens; by default from all.")
    ] = None,
    top_p: Annotated[
        float, typer.Option(help="Draw from the likeliest that have this probability together.")
    ] = 0.95,
    min_p: Annotated[
        float, typer.Option(help="Draw from those at least this share as likely as the likeliest.")
    ] = 0.0,
    seed: Annotated[int, typer.Option(help="Another number, another text.")] = 0,
    stop: Annotated[
        list[str] | None,
        typer.Option(help="End before this text; may be given several times."),
    ] = None,
    greedy: Annotated[
        bool, typer.Option("--greedy", help="Take the likeliest token always.")
    ] = False,
    special: Annotated[bool, typer.Option("--special", help="PROMPT has special tokens.")] = False,
) -> None:
    """Write on after a prompt, as the words come.

    The text ends with the model's own end token, before a --stop, or after --tokens.
    """
    from minillm.lab.threads import use_threads
    from minillm.recipes.chatting import for_terminal
    from minillm.serve.detokenize import stream_text
    from minillm.serve.sample import SampleConfig, stream
    from minillm.zoo import checkpoints

    if greedy and temperature:
        raise ValueError(
            f"--greedy is --temperature 0, and you also said {temperature}; leave one of the two"
        )
    temperature = (0.0 if greedy else 0.8) if temperature is None else temperature
    config = SampleConfig(temperature=temperature, top_k=top_k, top_p=top_p, min_p=min_p)
    use_threads()
    transformer, tokenizer, end_ids = checkpoints.open_model(model)
    ids = checkpoints.prompt_ids(prompt, tokenizer, special=special)
    if tokens is None:
        tokens = max(1, min(200, transformer.context_length - len(ids)))
    stop_ids = end_ids or tuple(tokenizer.special_ids.values())
    suppress_tokens = checkpoints.ids_without_token(transformer, tokenizer, stop_ids)
    config = replace(config, suppress_tokens=suppress_tokens)
    written = stream(transformer, ids, config, n_tokens=tokens, stop_ids=stop_ids, seed=seed)
    parts = stream_text(written, tokenizer, stop or ())
    try:
        print(prompt, end="", flush=True)
        for part in parts:
            print(for_terminal(part), end="", flush=True)
    finally:
        print()  # also after Ctrl-C: what was written stays, on a line of its own


@app.command()
def bench(
    name: Annotated[
        str | None, typer.Argument(metavar="[NAME]", help="By default the list.")
    ] = None,
    quick: Annotated[
        bool, typer.Option("--quick", help="Small inputs: does it run at all?")
    ] = False,
    text: Annotated[
        Path | None,
        typer.Option(help="The text to learn, for `train` and `shares`; else it is downloaded."),
    ] = None,
    recipe: Annotated[
        str | None, typer.Option(help="Ours in the race of `train`; by default shakespeare.")
    ] = None,
    record: Annotated[
        Path | None, typer.Option(help="File to keep the figures in, as JSON.")
    ] = None,
) -> None:
    """Run a benchmark: ours and the field's, side by side."""
    from minillm.bench import _run

    if name is None:
        print("\n".join(f"minillm bench {each}" for each in _run.names()))
        return
    _run.run(name, record, quick=quick, text=text, recipe=recipe)


def _finished() -> list[str]:
    """The numbers of the chapters that can be opened."""
    from minillm.lab.project import syllabus

    return [chapter.number for chapter in syllabus() if chapter.finished]


def _tasks(wanted: list[str]) -> list[str]:
    """Task ids, where a chapter's number stands for all its tasks."""
    from minillm.lab.grade import find
    from minillm.lab.project import chapter

    ids = []
    for item in wanted:
        if "." in item:
            find(item)
            ids.append(item)
        else:
            tasks = chapter(item).tasks
            if not tasks:
                raise ValueError(f"chapter {chapter(item).number} has no tasks yet.")
            ids += tasks
    return ids
