import pytest
import torch

from minillm.quant import measured
from minillm.recipes import quantizing
from minillm.zoo import checkpoints


@pytest.fixture(scope="module")
def town():
    model, tokenizer = checkpoints.load("town-50k")
    return model, tokenizer, measured.town_texts(tokenizer, model.context_length)


def test_the_texts_and_the_loss_are_those_of_minillm_quantize(town):
    model, tokenizer, texts = town
    end_ids = tuple(tokenizer.special_ids.values())
    others = quantizing.rows_of(model, tokenizer, end_ids, quantizing.TOWN)
    assert (texts.held_out.stream == others.held_out.stream).all()
    assert torch.equal(texts.calibration(seed=1), others.calibration(seed=1))
    other = quantizing.loss(model, others.held_out)
    assert measured.loss(model, texts.held_out) == pytest.approx(other, rel=1e-5)


def test_inputs_give_the_matrix_what_it_gives_back(town):
    model, _, texts = town
    tokens, name = texts.held_out.rows([0, 1]).tokens, "blocks.0.mixer.qkv"
    x = measured.inputs_of(model, name, tokens)
    with torch.inference_mode():
        block = model.blocks[0]
        by_hand = block.mixer_norm(model.embedding(tokens)).flatten(0, 1)
    assert torch.allclose(x, by_hand, atol=1e-5 * by_hand.abs().max())
    assert not model.get_submodule(name)._forward_pre_hooks


def test_times_are_of_every_contender_and_bytes_are_counted():
    times = measured.time_products(64, 256, (1, 2), n_repeats=1, n_times=1)
    assert [*times] == ["float32", "int8", "int4"]
    assert times["float32"].n_bytes == 4 * 64 * 256
    assert all(0 < seconds < 10 for each in times.values() for seconds in each.seconds.values())
