"""`minillm train …` and `minillm sweep`: the commands that train.

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
        Path | None, typer.Option(help="Another file to read, for a recipe that reads text.")
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
