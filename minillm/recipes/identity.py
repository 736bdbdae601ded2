"""What a run is, and whether a folder holds that very run: manifests are compared.

    runs/mine/manifest.json    recipe and data of the beginning
    now                        the same: go on;  another recipe, other data: refused;
                               another machine or code: said

Chapter: app
"""

from dataclasses import replace
from pathlib import Path

import numpy as np

from minillm.recipes.plain_values import renamed
from minillm.recipes.recipe import Recipe
from minillm.train import checkpoint, manifest


def described(recipe: Recipe, stream: np.ndarray) -> manifest.Manifest:
    """What this run is; of files the names only, since hashes say what is in them.

    Args:
        recipe: with its parent's hash, if it has a parent (`minillm.recipes.parent.adopted`).
        stream: all tokens that are trained on.
    """
    config = recipe.as_dict()
    if "files" in config["data"]:
        config["data"]["files"] = [Path(file).name for file in config["data"]["files"]]
    if recipe.parent is not None:
        config["parent"] = Path(recipe.parent).name
    return manifest.describe(recipe.name, recipe.seed, config, stream)


def agree(path: Path, now: manifest.Manifest) -> manifest.Manifest:
    """Refuse another run's folder; a new one gets the manifest.

    Args:
        path: of the manifest in the folder of the run.
        now: what this run is.

    Returns:
        The manifest of the beginning.

    Raises:
        ValueError: there are checkpoints without a manifest, or one that cannot be read; another
            recipe, or other data.
    """
    if not path.exists():
        if saved := checkpoint.complete(path.parent):
            raise ValueError(
                f"{path} is missing, which says of which recipe and data {saved[-1].name} is; put "
                "it back, or name another folder with --out"
            )
        path.parent.mkdir(parents=True, exist_ok=True)
        manifest.save(now, path)
        return now
    try:
        then = manifest.load(path)
    except ValueError as error:
        raise ValueError(
            f"{path} does not say what this run is ({error}); put it back as it was, or name "
            "another folder with --out"
        ) from None
    tables = (table for table in then.config.values() if isinstance(table, dict))
    if former := renamed(sorted(key for table in tables for key in table)):
        raise ValueError(
            f"{path.parent} holds a run that an older minillm began; name another folder with "
            f"--out{former}"
        )
    manifest.check_same_data(then, now)
    now = replace(now, started=then.started, losses=then.losses)
    for difference in manifest.differences(then, now):
        if difference.startswith("config"):
            raise ValueError(
                f"{path.parent} holds a run of another recipe ({difference}); name another "
                "folder with --out, or take back the change"
            )
        print(f"since this run began: {difference}")
    return then
