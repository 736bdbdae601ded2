"""`minillm sweep FILE.toml`: a recipe, trained once for every point of a grid.

    recipe = "town-1m"                          a recipe's name, or a file as for `minillm train`,
                                                or a table [recipe] with what such a file says
    [grid]
    seed = [0, 1, 2]
    model.d_model = [32, 64]
    training.learning_rate = [0.003, 0.01]      every combination: 12 runs

They are trained side by side, a core each. Beside what `minillm.train.sweep` keeps, the folder has
table.csv and figure.png at the end, and each run's own folder is one of `minillm train`: stopped
runs go on, and their models can be sampled from.

Chapter: app
"""

import hashlib
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

from minillm.lab.files import write_whole
from minillm.lab.text_file import read_text, read_toml
from minillm.recipes import recipe as recipes
from minillm.recipes.chat_data import ChatData
from minillm.recipes.data import TextData
from minillm.recipes.parent import adopted
from minillm.recipes.recipe import Recipe
from minillm.train.sweep import Run, cores, points, read, sweep
from minillm.train.sweep_results import csv_text, draw, law, table, varied

KEYS = ("recipe", "grid")
SIZES = ("n_parameters", "n_tokens")  # what a loss may have a law of


def run(file: Path, out: Path | None = None, *, processes: int | None = None) -> list[Run]:
    """Train what the file says, or what is left of it, and write table and figure.

    Args:
        file: as above.
        out: folder of the sweep; by default runs/NAME, where the file is NAME.toml.
        processes: at a time; by default one a core.

    Returns:
        the runs; some may have failed.

    Raises:
        ValueError: a file that is none, a setting that no recipe has, a run that its recipe
            refuses (all before the first run); a folder of another sweep.
    """
    content = read_toml(file)
    try:
        recipe, grid = parts(content)
        recipe = adopted(recipe)
        runs = points(grid)
        shapes = {}
        for each in runs:
            shapes.setdefault(changed(recipe, each.settings).model, each.settings)
        for shape, settings in shapes.items():
            with _named(settings):
                shape.config().build(seed=0)  # says what is wrong with it
    except ValueError as error:
        raise ValueError(f"{file}: {error}") from None
    out = out or Path("runs", file.stem)
    n_finished = sum(read(out, each).status == "finished" for each in runs)
    at_a_time = min(processes or cores(), len(runs))
    print(f"{len(runs)} runs, {n_finished} of them finished; {at_a_time} at a time, in {out}")
    common = {"recipe": recipe.as_dict()}
    runs = sweep(train_one, grid, out, common=common, about=about(recipe), processes=processes)
    print(table(runs))
    write_whole(out / "table.csv", csv_text(runs))
    print(f"the same as {out / 'table.csv'}")
    if any(each.status == "finished" for each in runs):
        _draw(runs, out / "figure.png")
    for each in runs:
        if each.status == "failed":
            print(f"{each.name} failed; what it printed: {out / each.name / 'output.txt'}")
    return runs


def parts(content: Mapping[str, Any]) -> tuple[Recipe, dict[str, Any]]:
    """The recipe of a sweep and its grid, in which a setting of a table has a dotted name.

    Raises:
        ValueError: a key that a sweep does not have, no recipe, no grid.

    Example:
        >>> recipe, grid = parts({"recipe": "town-1m", "grid": {"model": {"d_model": [32, 64]}}})
        >>> recipe.name, grid
        ('town-1m', {'model.d_model': [32, 64]})
    """
    if unknown := sorted(content.keys() - {*KEYS}):
        raise ValueError(f"a sweep has no key {', '.join(unknown)}; there are {', '.join(KEYS)}")
    if missing := [key for key in KEYS if key not in content]:
        raise ValueError(f"a sweep needs {' and '.join(missing)}")
    named, grid = content["recipe"], content["grid"]
    if not isinstance(grid, dict):
        raise ValueError(f"[grid] must be a table of settings and lists of values; got {grid!r}")
    if isinstance(named, dict):
        recipe = recipes.of(named)
    elif isinstance(named, str):
        recipe = recipes.find(named)
    else:
        raise ValueError(f"recipe must be a name, a file or a table; got {named!r}")
    return recipe, _flat(grid)


def _flat(table: Mapping[str, Any], before: str = "") -> dict[str, Any]:
    flat = {}
    for key, value in table.items():
        inner = isinstance(value, dict)
        flat |= _flat(value, f"{before}{key}.") if inner else {before + key: value}
    return flat


def changed(recipe: Recipe, settings: Mapping[str, Any]) -> Recipe:
    """The recipe with other settings, such as {"model.d_model": 64}.

    Raises:
        ValueError: what `minillm.recipes.recipe.of` refuses; says of which settings.

    Example:
        >>> changed(Recipe(name="mine"), {"model.d_model": 64}).model.d_model
        64
    """
    content = recipe.as_dict()
    with _named(settings):
        for name, value in settings.items():
            table, _, key = name.rpartition(".")
            if name in ("name", "threads", "parent", "parent_sha256"):
                raise ValueError(
                    f"{name} cannot be swept: all runs have one name, one thread, and one parent"
                )
            if table and not isinstance(content.get(table), dict):
                raise ValueError(f"a recipe has no table [{table}]")
            (content[table] if table else content)[key] = value
        return recipes.of(content)


@contextmanager
def _named(settings: Mapping[str, Any]) -> Iterator[None]:
    """What is refused within says with which settings."""
    try:
        yield
    except ValueError as error:
        words = ", ".join(f"{name} = {value!r}" for name, value in settings.items())
        raise ValueError(f"with {words}: {error}") from None


def about(recipe: Recipe) -> dict[str, Any]:
    """What tells this sweep from another: the recipe and what its files say, not where they are."""
    content = recipe.as_dict()
    if recipe.parent is not None:
        content["parent"] = Path(recipe.parent).name
    if isinstance(recipe.data, TextData | ChatData) and recipe.data.files:
        content["data"]["files"] = [Path(file).name for file in recipe.data.files]
        if isinstance(recipe.data, ChatData):
            parts = [read_text(file) for file in recipe.data.files]
        else:
            parts = [text for part in ("train", "held out") for text in recipe.data.documents(part)]
        digest = hashlib.sha256("\0".join(parts).encode())
        content["data"]["sha256"] = digest.hexdigest()
    return {"recipe": content}


def train_one(recipe: dict[str, Any], folder: Path, **settings: Any) -> dict[str, Any]:
    """A run of the sweep: the held-out loss, and what it took.

    Args:
        recipe: as `Recipe.as_dict` gives it.
        folder: of this run, which goes on from there.
        settings: that this run has in place of the recipe's.
    """
    from minillm.model.count import training_flops
    from minillm.recipes.run import begin
    from minillm.recipes.run import run as train
    from minillm.train import manifest

    chosen = replace(changed(recipes.of(recipe), settings), threads=1)
    n_parameters = sum(each.numel() for each in begin(chosen).model.parameters())
    how = chosen.training
    n_tokens = how.n_steps * how.accumulation_steps * how.batch_size * chosen.model.context_length
    train(chosen, folder)
    return {
        "loss": manifest.load(folder / "manifest.json").losses["final"],
        "n_parameters": n_parameters,
        "n_tokens": n_tokens,
        "flops": training_flops(n_parameters=n_parameters, n_tokens=n_tokens),
    }


def _draw(runs: list[Run], path: Path) -> None:
    """The loss over what was varied: sizes if there are any, else the first setting in numbers."""
    sizes = [name for name in SIZES if varied(runs, name)]
    numbers = [name for name in runs[0].settings if varied(runs, name)]
    x = [*sizes, *numbers, *runs[0].settings][0]
    try:
        fig = draw(runs, x, "loss", with_law=len(sizes) == 1)
    except ValueError as error:
        print(f"no figure: {error}")
        return
    fig.savefig(path)
    print(f"loss over {x}: {path}")
    if len(sizes) == 1 and (fitted := law(runs, x, "loss")):
        low, high = fitted.interval
        print(
            f"as a power law without a floor: loss = {fitted.coefficient:.3g} · {x}^"
            f"{fitted.exponent:.3f} (95 %: {low:.3f} to {high:.3f}), R² {fitted.r2:.3f}"
        )
