import math
from dataclasses import replace

import pytest
import torch

from minillm.optim.step import Total
from minillm.train import experiment
from minillm.train.experiment import documentation, stories, story_texts, texts
from minillm.train.losses import language_loss

WORDS = ["plums and pears " * 9, "the mill and the well " * 9]


def test_the_tokenizer_learns_from_the_training_texts_alone():
    one, other = (texts(WORDS, [kept * 20], vocab_size=270) for kept in ("zzz ", "qqq "))
    assert one.tokenizer.encode("plums zzz qqq") == other.tokenizer.encode("plums zzz qqq")
    assert len(one.tokenizer.encode(" zzz")) == 4


def test_the_held_out_loss_is_that_of_all_rows_in_whatever_chunks(monkeypatch):
    toy = texts(WORDS, WORDS, vocab_size=256, context_length=8)
    model = toy.state(0.01).model
    whole = language_loss(model, toy.held_out.rows(range(toy.held_out.n_places)))
    monkeypatch.setattr(experiment, "EVALUATED_ROWS", 3)
    parts = toy.evaluate(model)
    assert isinstance(parts, Total)
    assert parts.n_tokens == whole.n_tokens == 8 * toy.held_out.n_places
    assert math.isclose(parts.nats.item(), whole.nats.item(), rel_tol=1e-5)


def test_the_seed_decides_the_first_weights_and_adamw_decays_none():
    toy = texts(WORDS, WORDS, vocab_size=256, context_length=8)
    first, again, other = (toy.state(0.01, seed=seed).model.state_dict() for seed in (0, 0, 1))
    assert all(torch.equal(first[name], again[name]) for name in first)
    assert not torch.equal(first["embedding.weight"], other["embedding.weight"])
    assert toy.state(0.01).optimizer.param_groups[0]["weight_decay"] == 0


def test_stories_that_are_held_out_are_none_of_those_that_are_learned():
    town = stories(n_blocks=2)
    learned, held_out = (
        set(town.tokenizer.decode(ids[ids != town.end_id].tolist()).split("."))
        for ids in (town.training.stream, town.held_out.stream)
    )
    whole = [story for story in held_out if len(story) > 60]
    assert not learned & set(whole)
    assert town.end_id == 512


def test_story_texts_are_the_blocks_of_a_stream_and_what_the_shipped_model_read():
    from minillm.recipes.town_1m import RECIPE

    assert story_texts(2)[:64] == story_texts(1) != story_texts(1, seed="held out")
    read = replace(RECIPE.data, story_blocks=1, fact_blocks=0).documents("train")
    assert read == story_texts(1, seed="train") + story_texts(1, "zh", seed="train")


def test_documentation_keeps_a_fifth_of_the_paragraphs_apart():
    bytes_alone = documentation(256)
    share = bytes_alone.n_bytes / (len(bytes_alone.training.stream) + bytes_alone.n_bytes)
    assert 0.15 < share < 0.25


def test_too_little_held_out_text_is_refused():
    with pytest.raises(ValueError, match="context_length=64"):
        texts(WORDS, ["short"], vocab_size=256)
