"""Recipes are values: read from TOML, kept in manifests, and strict about every key."""

import math
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from minillm.optim.schedule import Cosine
from minillm.recipes import recipe
from minillm.recipes.chat_data import ChatData, RequestData, StepsData
from minillm.recipes.data import LifeData, TextData, TownData
from minillm.recipes.recipe import ModelShape, Recipe, Training
from minillm.train.loop import LoopConfig

SMALL = {"name": "mine", "training": {"n_steps": 20, "warmup_steps": 2}}


# --- by hand -----------------------------------------------------------------------------------
def test_a_file_says_what_it_wants_otherwise_and_the_rest_has_a_default(tmp_path):
    path = tmp_path / "mine.toml"
    path.write_text(
        'name = "mine"\n[data]\nkind = "text"\nfiles = ["letters.txt"]\n[model]\nd_model = 64\n'
        "[training]\nlearning_rate = 1\n",
        encoding="utf-8",
    )
    found = recipe.find(str(path))
    assert found == Recipe(
        name="mine",
        data=TextData(files=("letters.txt",)),
        model=ModelShape(d_model=64),
        training=Training(learning_rate=1),
    )


def test_the_shape_becomes_a_transformer_with_all_its_numbers():
    config = ModelShape(vocab_size=300, d_model=32, n_layers=3, n_heads=2, n_kv_heads=1).config()
    model = config.build()
    assert (config.vocab_size, config.context_length, config.tied_embeddings) == (300, 128, True)
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


def test_a_plateau_and_a_straight_way_down_or_half_a_cosine():
    falls = Training(n_steps=10, warmup_steps=2, decay_steps=4).schedule()
    assert [falls(step) for step in range(10)] == [0.5, 1, 1, 1, 1, 1, 0.75, 0.5, 0.25, 0]
    assert Training().schedule() == Cosine(n_steps=1000, warmup_steps=100)


def test_the_loop_is_told_all_that_is_its_own():
    how = Training(
        n_steps=20, warmup_steps=2, accumulation_steps=3, clip_norm=0.5, evaluate_every=7
    )
    assert how.loop() == LoopConfig(
        n_steps=20,
        schedule=Cosine(n_steps=20, warmup_steps=2),
        accumulation_steps=3,
        clip_norm=0.5,
        evaluate_every=7,
    )


def test_norms_of_queries_and_keys_and_another_feed_forward_are_built():
    plain = ModelShape(d_model=32, n_layers=1).config().build().blocks[0]
    assert (plain.mixer.q_norm, type(plain.ffn).__name__) == (None, "SwiGLU")
    other = ModelShape(d_model=32, n_layers=1, qk_norm=True, feed_forward="relu2")
    block = other.config().build().blocks[0]
    assert block.mixer.q_norm is not None
    assert (type(block.ffn).__name__, block.ffn.activation) == ("MLP", "relu2")


def test_a_feed_forward_may_have_a_size_of_its_own_and_older_manifests_do_not_name_it():
    for feed_forward in ("swiglu", "relu2"):
        shape = ModelShape(d_model=32, n_layers=1, feed_forward=feed_forward, d_ff=96)
        assert shape.config().build().blocks[0].ffn.down.weight.shape == (32, 96)
    assert Recipe(name="mine", model=shape).as_dict()["model"]["d_ff"] == 96
    assert "d_ff" not in Recipe(name="mine").as_dict()["model"]


def test_fewer_steps_get_a_shorter_way_down():
    mine = Recipe(name="mine", training=Training(warmup_steps=0, decay_steps=600))
    assert recipe.shortened(mine, 100).training.decay_steps == 60
    assert recipe.shortened(mine, 1).training.decay_steps == 1
    assert recipe.shortened(mine, 3000).training.decay_steps == 1800
    # nothing between the way up and the way down: a tenth of 950 no longer fits
    full = replace(mine, training=Training(warmup_steps=50, decay_steps=950))
    found = recipe.shortened(full, 100).training
    assert (found.warmup_steps, found.decay_steps) == (10, 90)


def test_another_file_is_cut_into_documents_as_before():
    mine = recipe.find("shakespeare")
    found = recipe.reading(mine, Path("letters.txt"))
    assert found.data == TextData(files=("letters.txt",), ends="file", held_out=0.1)
    assert replace(found, data=mine.data) == mine
    chat = Recipe(name="mine", parent="town-1m", data=ChatData(files=("a.jsonl",), held_out=0.5))
    assert recipe.reading(chat, "b").data == ChatData(files=("b",), held_out=0.5)


# --- law ---------------------------------------------------------------------------------------
@pytest.mark.parametrize(
    "each",
    [
        Recipe(name="mine", seed=3),
        Recipe(name="mine", data=TextData(files=("a.txt", "b.txt"))),
        Recipe(name="mine", training=Training(optimizer="muon", decay_steps=10)),
        Recipe(name="mine", training=Training(precision="bf16")),
        Recipe(name="mine", data=TownData(world="Ann", languages=("zh",))),
        Recipe(name="mine", data=LifeData(letter_blocks=0), model=ModelShape(d_ff=64)),
        Recipe(name="mine", parent="town-1m", data=RequestData(letter_blocks=0)),
        Recipe(name="mine", parent="town-1m", data=StepsData(replay_blocks=0)),
        Recipe(name="mine", parent="a/b", parent_sha256="c", data=ChatData(files=("a",))),
        recipe.find("town-1m"),
        replace(recipe.find("town-base"), threads=1),
        recipe.find("shakespeare"),
    ],
)
def test_what_a_manifest_keeps_of_a_recipe_is_the_recipe(each):
    assert recipe.of(each.as_dict()) == each


def test_threads_belong_to_the_machine_and_not_to_what_a_manifest_keeps():
    more = recipe.of({"name": "mine", "threads": 2})
    assert more.threads == 2
    assert more.as_dict() == Recipe(name="mine").as_dict()


def test_a_manifest_from_before_there_was_a_choice_of_precision_is_still_that_of_float32():
    assert "precision" not in Recipe(name="mine").as_dict()["training"]


@given(st.data(), st.integers(1, 300), st.integers(1, 300))
def test_another_number_of_steps_always_leaves_a_schedule(data, n_before, n_steps):
    warmup_steps = data.draw(st.integers(0, n_before - 1))
    decay_steps = data.draw(st.none() | st.integers(1, n_before - warmup_steps))
    how = Training(n_steps=n_before, warmup_steps=warmup_steps, decay_steps=decay_steps)
    found = recipe.shortened(Recipe(name="mine", training=how), n_steps).training
    assert found.n_steps == n_steps
    assert found.warmup_steps <= warmup_steps
    assert (found.decay_steps is None) == (decay_steps is None)


# --- what stops it -----------------------------------------------------------------------------
@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"sed": 1}, "a recipe has no key sed; there are name, seed, data"),
        (
            {"training": {"n_rows": 2, "n_batches": 3}},
            "changed: n_batches is accumulation_steps now, n_rows is batch_size now",
        ),
        ({"model": {"depth": 2}}, r"\[model\] has no key depth; there are vocab_size"),
        ({"model": 3}, r"\[model\] must be a table of names and values; got 3"),
        ({"model": {"d_model": "wide"}}, "model.d_model must be a whole number; got 'wide'"),
        ({"threads": 0}, "threads must be from 1 to 256; got 0"),
        ({"threads": 1.5}, "threads must be a whole number; got 1.5"),
        ({"model": {"d_model": True}}, "model.d_model must be a whole number; got True"),
        ({"model": {"tied_embeddings": 1}}, "model.tied_embeddings must be true or false; got 1"),
        ({"model": {"d_model": 30}}, "n_heads must divide it"),
        ({"training": {"clip_norm": "no"}}, "training.clip_norm must be a number; got 'no'"),
        ({"training": {"n_steps": 10}}, "warmup_steps"),
        ({"training": {"save_every": 0}}, "evaluate_every and save_every must be at least 1"),
        ({"training": {"learning_rate": 0}}, "matrix_rate must be above 0 .*got 0, 0.02 and 0.1"),
        ({"training": {"matrix_rate": -1}}, "matrix_rate must be above 0 .*got 0.003, -1 and 0.1"),
        ({"training": {"weight_decay": -1}}, "weight_decay at least 0"),
        ({"training": {"optimizer": "sgd"}}, 'optimizer must be "adamw" or "muon"; got \'sgd\''),
        ({"training": {"precision": "fp16"}}, "precision must be one of fp32, bf16; got 'fp16'"),
        ({"training": {"optimizer": 3}}, "training.optimizer must be a text; got 3"),
        ({"training": {"decay_steps": 0}}, "decay_steps must be at least 1"),
        ({"training": {"decay_steps": 901}}, "with the warm-up fit into n_steps"),
        (
            {"training": {"decay_steps": 2.5}},
            "training.decay_steps must be a whole number; got 2.5",
        ),
        ({"model": {"feed_forward": "silu"}}, "activation must be one of gelu, relu.*; got 'silu'"),
        ({"model": {"qk_norm": 1}}, "model.qk_norm must be true or false; got 1"),
        (
            {"model": {"zero_residual_projections": "yes"}},
            "model.zero_residual_projections must be true or false; got 'yes'",
        ),
        (
            {"data": {"kind": "web"}},
            "data.kind must be one of town, life, text, chat, .*, tools, agent; got 'web'",
        ),
        ({"data": {"kind": "chat", "files": ["a"]}}, 'already learns to answer; .*"town-base"'),
        ({"data": {"kind": "requests"}}, 'of kind "requests" are conversations'),
        ({"parent": 3}, "parent must be a text; got 3"),
        ({"parent_sha256": "0" * 64}, "is of a parent's weights; name the parent too"),
        (
            {"parent": "town-1m", "special_tokens": ["<a>"]},
            "takes over its tokenizer; leave out special_tokens, which are <a>",
        ),
        ({"data": {"kind": "text"}}, "what to read must be files, a list .*, or one url"),
        ({"data": {"kind": "text", "files": "a.txt"}}, "files must be a list of texts"),
        ({"data": {"kind": "text", "url": 3}}, "data.url must be a text; got 3"),
        ({"data": {"kind": "text", "files": ["a"], "held_out": 1.0}}, "share between 0 and 1"),
        ({"data": {"story_blocks": 0}}, "story_blocks and held_out_blocks must be at least 1"),
        ({"model": {"d_model": 10**30}}, "model.d_model must be a finite number of at most 2,147"),
        ({"training": {"weight_decay": math.nan}}, "weight_decay must be a finite number"),
        ({"training": {"clip_norm": math.inf}}, "clip_norm must be a finite number"),
        ({"model": {"n_layers": 1001}}, "n_layers must be at most 1,000; got 1,001"),
        ({"data": {"kind": "town", "languages": ["en", 7]}}, "data.languages must be a list of"),
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
    with pytest.raises(ValueError, match=r"mine\.toml is no TOML: Invalid value"):
        recipe.find(str(path))
    path.write_text('name = "mine"\nsteps = 3', encoding="utf-8")
    with pytest.raises(ValueError, match=r"mine\.toml: a recipe has no key steps"):
        recipe.find(str(path))


def test_a_name_that_is_no_recipe_is_told_those_there_are():
    with pytest.raises(ValueError, match=r"there is no recipe 'town-2m'; there are .*town-1m"):
        recipe.find("town-2m")


def test_a_recipe_that_reads_no_text_is_given_no_file():
    with pytest.raises(ValueError, match="town-1m reads no text file; its data are of kind town"):
        recipe.reading(recipe.find("town-1m"), "letters.txt")
