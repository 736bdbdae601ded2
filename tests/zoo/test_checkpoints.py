"""The shipped models are small, whole, and what their cards say."""

import re
from dataclasses import replace

import pytest
import torch

from minillm.recipes import parent, recipe
from minillm.serve.sample import SampleConfig, generate
from minillm.town.story_check import check
from minillm.town.world import World
from minillm.zoo import checkpoints

ALL = pytest.mark.parametrize("name", checkpoints.names())


@pytest.fixture(scope="module")
def town():
    return checkpoints.load("town-1m")


@ALL
def test_a_model_is_small_and_has_its_papers(name):
    files = {path.name: path.stat().st_size for path in checkpoints.folder(name).iterdir()}
    assert files["model.safetensors"] <= 3_000_000
    assert {"config.json", "tokenizer.json", "manifest.json", "CARD.md"} <= files.keys()


@ALL
def test_its_manifest_is_that_of_its_recipe(name):
    note = checkpoints.described(name)
    # of a child it names the weights that it began with: those of the shipped parent
    now = parent.adopted(recipe.find(name))
    assert recipe.of(note.config) == replace(now, threads=1)  # which belong to the machine
    assert note.losses["final"] > 0


@ALL
def test_its_card_says_the_loss_and_the_size_that_it_has(name):
    model, _ = checkpoints.load(name)
    n_parameters = sum(parameter.numel() for parameter in model.parameters())
    text = checkpoints.card(name)
    assert f"{n_parameters:,} parameters" in text
    assert f"{checkpoints.described(name).losses['final']:.3f} nats" in text


def test_it_loads_in_float32(town):
    model, tokenizer = town
    assert model.embedding.weight.dtype == torch.float32
    assert tokenizer.vocab_size == len(model.embedding.weight)


def test_a_draft_has_the_tokenizer_and_the_texts_of_its_target():
    files = [checkpoints.folder(name) / "tokenizer.json" for name in ("town-1m", "town-50k")]
    assert files[0].read_bytes() == files[1].read_bytes()
    notes = [checkpoints.described(name) for name in ("town-1m", "town-50k")]
    assert notes[0].data_hash == notes[1].data_hash


def test_its_stories_are_read_by_the_checker_and_mostly_free_of_contradiction(town):
    model, tokenizer = town
    (end,) = tokenizer.special_ids.values()
    share = re.search(r"(\d+(?:\.\d+)?) % of 1,000", checkpoints.card("town-1m"))
    rows = generate(
        model, [[end]] * 64, SampleConfig(temperature=0.5), n_tokens=120, stop_ids=[end]
    )
    texts = [tokenizer.decode(row) for row in rows]
    stories = [text for text in texts if text.count(".") + text.count("。") > 2]
    assert len(stories) >= 32
    reports = [check(text, World()) for text in stories]
    good = sum(report.consistent and report.finished for report in reports) / len(stories)
    # 64 draws lie within four standard errors of the card's 1,000
    spread = 4 * (float(share[1]) / 100 * (1 - float(share[1]) / 100) / len(stories)) ** 0.5
    assert abs(good - float(share[1]) / 100) <= max(spread, 0.1)


def test_a_model_that_is_not_there_is_named_with_those_that_are():
    with pytest.raises(ValueError, match=r"the zoo has no model 'town-2m'; it has .*town-1m, "):
        checkpoints.load("town-2m")
