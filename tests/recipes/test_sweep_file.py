"""`minillm sweep FILE.toml`: what a file says is trained, and what it says wrongly is refused."""

import json
import sys

import pytest

from minillm import cli
from minillm.recipes import sweep_file
from minillm.recipes.recipe import of
from minillm.recipes.run import run as train
from minillm.train import manifest
from minillm.train import sweep as sweep_module
from minillm.train.sweep import points

MINE = """
[recipe]
name = "mine"
data = { story_blocks = 1, fact_blocks = 1, held_out_blocks = 1, languages = ["en"] }
model = { vocab_size = 400, d_model = 16, n_layers = 1, n_heads = 2, context_length = 32 }
training = { n_steps = 4, warmup_steps = 1, batch_size = 4, evaluate_every = 4, save_every = 3 }
[grid]
"""
GRID = "seed = [1]\nmodel.d_model = [16, 24]\n"


@pytest.fixture
def command(tmp_path, monkeypatch):
    """The exit status of `minillm sweep` for a file's text."""
    monkeypatch.chdir(tmp_path)

    def run(text, *words):
        (tmp_path / "mine.toml").write_text(text, encoding="utf-8")
        monkeypatch.setattr(sys, "argv", ["minillm", "sweep", "mine.toml", *words])
        with pytest.raises(SystemExit) as end:
            cli.main()
        return end.value.code or 0

    return run


def no_processes(monkeypatch, *ends):
    monkeypatch.setattr(sweep_module, "_processed", lambda *_: iter(ends))


# --- trained ------------------------------------------------------------------------------------
def test_each_point_is_trained_as_by_itself_and_once(command, tmp_path, monkeypatch, capsys):
    assert command(MINE + GRID, "--processes", "1") == 0
    text = capsys.readouterr().out
    assert "2 runs, 0 of them finished; 1 at a time" in text
    recipe, grid = sweep_file.parts(sweep_file.read_toml(tmp_path / "mine.toml"))
    alone = sweep_file.changed(recipe, {"seed": 1, "model.d_model": 24})
    train(alone, tmp_path / "alone")
    folder = tmp_path / "runs" / "mine"
    run = sweep_module.read(folder, points(grid)[1])
    loss = manifest.load(tmp_path / "alone" / "manifest.json").losses["final"]
    assert run.result["loss"] == loss
    assert run.result["n_tokens"] == 4 * 4 * 32
    assert run.result["flops"] == 6 * run.result["n_parameters"] * 4 * 4 * 32
    assert (folder / run.name / "model").is_dir()
    assert {"table.csv", "figure.png"} <= {path.name for path in folder.iterdir()}
    # again: nothing is trained, and the end is the same
    no_processes(monkeypatch)
    capsys.readouterr()
    assert command(MINE + GRID) == 0
    assert "2 runs, 2 of them finished" in capsys.readouterr().out
    # where only the result was lost, the run goes on from its checkpoint and has it again
    settings = {"seed": 1, "model.d_model": 24}
    again = sweep_file.train_one(recipe.as_dict(), folder / run.name, **settings)
    assert again == run.result
    assert "going on from step-" in capsys.readouterr().out


def test_a_run_that_failed_is_said_and_is_the_exit_status(command, monkeypatch, capsys):
    run, other = points({"seed": [1], "model.d_model": [16, 24]})
    replaced = {"status": "failed", "error": "ValueError: no luck"}
    no_processes(monkeypatch, sweep_module.replace(run, **replaced))
    monkeypatch.setattr(sweep_file, "_draw", lambda *_: pytest.fail("nothing to draw"))
    assert command(MINE + GRID) == 1
    text = capsys.readouterr().out
    assert "ValueError: no luck" in text
    assert f"{run.name} failed; what it printed: " in text
    assert other.name not in text


def test_a_law_is_told_where_one_size_was_varied(tmp_path, monkeypatch, capsys):
    done = [
        sweep_module.replace(run, status="finished", result=result)
        for run, result in zip(
            points({"model.d_model": [1, 2, 3]}),
            [{"loss": 8 / 10**n, "n_parameters": 100**n, "n_tokens": 7} for n in range(3)],
            strict=True,
        )
    ]
    sweep_file._draw(done, tmp_path / "figure.png")
    assert "loss = 8 · n_parameters^-0.500" in capsys.readouterr().out
    other = [sweep_module.replace(run, result={"loss": 1.0}) for run in done]
    sweep_file._draw(other, tmp_path / "figure.png")
    assert capsys.readouterr().out.startswith("loss over model.d_model: ")


# --- refused ------------------------------------------------------------------------------------
@pytest.mark.parametrize(
    ("text", "words"),
    [
        (MINE, "mine.toml: the grid is empty; it must name a setting"),
        (MINE + "seed = []", "seed needs a list with at least one value"),
        (MINE + "seed = 1", "seed needs a list"),
        (MINE + GRID + "[more]", "mine.toml: a sweep has no key more; there are recipe, grid"),
        ('recipe = "town-1m"', "mine.toml: a sweep needs grid"),
        ('recipe = "town-2m"\n[grid]', "there is no recipe 'town-2m'"),
        ("recipe = 3\n[grid]", "recipe must be a name, a file or a table; got 3"),
        ("grid = 3\nrecipe = 'town-1m'", "[grid] must be a table"),
        ("[recipe]\nsize = 3\n[grid]", "a recipe has no key size"),
        (MINE + "model.width = [3]", "with model.width = 3: [model] has no key width"),
        (MINE + "optimizer.rate = [3]", "a recipe has no table [optimizer]"),
        (MINE + "threads = [2]", "threads cannot be swept"),
        (MINE + "model.d_model = [16, 17]", "with model.d_model = 17: "),
        ("x = ", "mine.toml is no TOML"),
    ],
)
def test_what_is_no_sweep_is_a_sentence_before_anything_runs(
    text, words, command, tmp_path, capsys
):
    assert command(text) == 2
    assert words in capsys.readouterr().err
    assert not (tmp_path / "runs").exists()


def test_a_recipe_or_a_text_that_has_changed_since_is_refused(
    command, monkeypatch, capsys, tmp_path
):
    no_processes(monkeypatch)
    text = 'recipe = { name = "mine", seed = 0, data = { kind = "text", files = ["a.txt"] } }\n'
    (tmp_path / "a.txt").write_text("one\n\ntwo\n", encoding="utf-8")
    grid = "[grid]\nmodel.d_model = [16]\n"
    assert command(text + grid) == 1  # nothing was run
    assert command(text.replace("seed = 0", "seed = 1") + grid) == 2
    assert "another sweep (the sweep.about.recipe.seed: 0 then, 1 now)" in capsys.readouterr().err
    assert command(text + grid + "seed = [0, 1]") == 1  # more of the same
    (tmp_path / "a.txt").write_text("one\n\nthree\n", encoding="utf-8")
    assert command(text + grid) == 2
    assert "the sweep.about.recipe.data.sha256" in capsys.readouterr().err
    kept = json.loads((tmp_path / "runs" / "mine" / "sweep.json").read_text(encoding="utf-8"))
    assert str(tmp_path) not in json.dumps(kept)


def test_changes_reach_the_recipe():
    recipe = of({"name": "mine"})
    other = sweep_file.changed(recipe, {"seed": 3, "training.n_steps": 2000, "data.world": "sea"})
    assert (other.seed, other.training.n_steps, other.data.world) == (3, 2000, "sea")
    assert other.model == recipe.model
