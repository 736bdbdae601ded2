"""Recipes are values: read from TOML, kept in manifests, and strict about every key."""

import pytest

from minillm.recipes import recipe
from minillm.recipes.recipe import ModelShape, Recipe, TextData, TownData, Training

SMALL = {"name": "mine", "training": {"n_steps": 20, "warmup_steps": 2}}


# --- by hand -----------------------------------------------------------------------------------
def test_a_file_says_what_it_wants_otherwise_and_the_rest_has_a_default(tmp_path):
    path = tmp_path / "mine.toml"
    path.write_text(
        'name = "mine"\n[data]\nkind = "text"\nfiles = ["letters.txt"]\n[model]\nwidth = 64\n'
        "[training]\nlearning_rate = 1\n",
        encoding="utf-8",
    )
    found = recipe.find(str(path))
    assert found == Recipe(
        name="mine",
        data=TextData(files=("letters.txt",)),
        model=ModelShape(width=64),
        training=Training(learning_rate=1),
    )


def test_the_shape_becomes_a_transformer_with_all_its_numbers():
    config = ModelShape(n_vocab=300, width=32, n_layers=3, n_heads=2, n_kv_heads=1).config()
    model = config.build()
    assert (config.n_vocab, config.context_tokens, config.tied_embeddings) == (300, 128, True)
    assert len(model.blocks) == 3
    assert model.blocks[0].mixer.n_kv_heads == 1
    assert model.head is None


def test_a_shipped_recipe_is_found_by_name():
    found = recipe.find("town-1m")
    assert found.name == "town-1m"
    n_parameters = sum(p.numel() for p in found.model.config().build().parameters())
    assert 0.9e6 < n_parameters < 1.2e6


def test_fewer_steps_get_a_shorter_warm_up():
    assert recipe.shortened(Recipe(name="mine"), 2000).training.warmup_steps == 100
    assert recipe.shortened(Recipe(name="mine"), 50).training.schedule()(4) == 1.0


def test_documents_of_a_file_are_parted_by_blank_lines_and_the_last_are_held_out(tmp_path):
    file = tmp_path / "letters.txt"
    file.write_text("one\ntwo\n\n\nthree\n\n four \n\nfive\n", encoding="utf-8")
    data = TextData(files=(str(file),), held_out=0.25)
    assert data.documents("train") == ["one\ntwo", "three", "four"]
    assert data.documents("held out") == ["five"]


def test_the_town_gives_stories_in_each_language_and_facts_in_all():
    data = TownData(story_blocks=2, fact_blocks=3, held_out_blocks=1)
    train, held_out = data.documents("train"), data.documents("held out")
    assert (len(train), len(held_out)) == (2 * 2 * 64 + 3 * 64, 2 * 64 + 64)
    assert train[0].isascii()
    assert not train[128].isascii()
    assert not set(train[:256]) & set(held_out[:128])
    assert TownData(world="Ann", story_blocks=1).documents("train")[0] != train[0]


# --- law ---------------------------------------------------------------------------------------
@pytest.mark.parametrize(
    "each",
    [
        Recipe(name="mine", seed=3),
        Recipe(name="mine", data=TextData(files=("a.txt", "b.txt"))),
        Recipe(name="mine", data=TownData(world="Ann", languages=("zh",))),
        recipe.find("town-1m"),
    ],
)
def test_what_a_manifest_keeps_of_a_recipe_is_the_recipe(each):
    assert recipe.of(each.as_dict()) == each


# --- what stops it -----------------------------------------------------------------------------
@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"sed": 1}, "a recipe has no key sed; there are name, seed, data"),
        ({"model": {"depth": 2}}, r"\[model\] has no key depth; there are n_vocab"),
        ({"model": 3}, r"\[model\] must be a table of names and values; got 3"),
        ({"model": {"width": "wide"}}, "model.width must be a whole number; got 'wide'"),
        ({"model": {"width": True}}, "model.width must be a whole number; got True"),
        ({"model": {"tied_embeddings": 1}}, "model.tied_embeddings must be true or false; got 1"),
        ({"model": {"width": 30}}, "n_heads must divide it"),
        ({"training": {"clip_norm": "no"}}, "training.clip_norm must be a number; got 'no'"),
        ({"training": {"n_steps": 10}}, "warmup_steps"),
        ({"training": {"save_every": 0}}, "evaluate_every and save_every must be at least 1"),
        ({"training": {"learning_rate": 0}}, "learning_rate must be above 0"),
        ({"data": {"kind": "web"}}, "data.kind must be one of town, text; got 'web'"),
        ({"data": {"kind": "text"}}, r"\[data\] needs 'files'"),
        ({"data": {"kind": "text", "files": "a.txt"}}, "files must be a list such as"),
        ({"data": {"kind": "text", "files": ["a"], "held_out": 1.0}}, "share between 0 and 1"),
        ({"data": {"story_blocks": 0}}, "story_blocks and held_out_blocks must be at least 1"),
        ({"seed": -1}, "seed must be at least 0; got -1"),
        ({"name": "../mine"}, "letters, digits, - and _ only; got '../mine'"),
    ],
)
def test_what_a_recipe_cannot_be_is_said(change, message):
    with pytest.raises(ValueError, match=message):
        built = recipe.of(SMALL | change)
        built.model.config().build()


def test_a_recipe_needs_a_name():
    with pytest.raises(ValueError, match="a recipe needs 'name'"):
        recipe.of({})


def test_a_file_that_is_missing_or_no_toml_is_named(tmp_path):
    with pytest.raises(ValueError, match=r"there is no file .*mine\.toml"):
        recipe.find(str(tmp_path / "mine.toml"))
    path = tmp_path / "mine.toml"
    path.write_text("name = ", encoding="utf-8")
    with pytest.raises(ValueError, match=r"mine\.toml: Invalid value"):
        recipe.find(str(path))
    path.write_text('name = "mine"\nsteps = 3', encoding="utf-8")
    with pytest.raises(ValueError, match=r"mine\.toml: a recipe has no key steps"):
        recipe.find(str(path))


def test_a_name_that_is_no_recipe_is_told_those_there_are():
    with pytest.raises(ValueError, match=r"there is no recipe 'town-2m'; there are .*town-1m"):
        recipe.find("town-2m")


def test_one_document_alone_cannot_be_held_out(tmp_path):
    file = tmp_path / "letters.txt"
    file.write_text("one\ntwo\n", encoding="utf-8")
    with pytest.raises(ValueError, match="at least 2 documents"):
        TextData(files=(str(file),)).documents("train")
