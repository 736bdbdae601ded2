"""minillm.bench.kv: what is measured is what the docstring says, on models of one block."""

from functools import partial

import pytest
import torch

from minillm.bench import kv as bench
from minillm.bench._run import Finished
from minillm.data.packing import Packed
from minillm.model.attention import AttentionConfig
from minillm.model.config import TransformerConfig
from minillm.quant import kv
from minillm.quant.kv import KVGrid


@pytest.fixture(scope="module")
def model():
    mixer = AttentionConfig(n_heads=2, qk_norm=True)
    config = TransformerConfig(
        vocab_size=20, context_length=64, d_model=16, n_layers=1, mixer=mixer, initial_std=0.5
    )
    return config.build(seed=0)


@pytest.fixture(scope="module")
def texts():
    documents = torch.randint(1, 20, (9, 25), generator=torch.Generator().manual_seed(0))
    return Packed(documents.tolist(), end_id=0, context_length=40, batch_size=1)


def test_token_by_token_with_floats_the_loss_is_that_of_one_pass(model, texts):
    batch = texts.rows([0, 1])
    nats = bench.nats_by_token(model, batch, model.new_cache)
    with torch.no_grad():
        logits = model(batch.tokens, context=batch.context()).flatten(0, 1)
    expected = torch.nn.functional.cross_entropy(logits, batch.targets.flatten())
    assert nats.mean().item() == pytest.approx(expected.item(), rel=1e-5)
    other = bench.nats_by_token(model, batch, partial(kv.new_cache, model, grid=KVGrid(bits=4)))
    assert not torch.allclose(other, nats, rtol=1e-3)


def test_planted_channels_change_no_product_and_only_keys_by_token_suffer(model, texts):
    batch, planted = texts.rows([0]), bench.planted(model, 16.0)
    errors = {}
    for which, each in (("as it is", model), ("planted", planted)):
        exact = bench.nats_by_token(each, batch, each.new_cache)
        for name in bench.PLANTED:
            nats = bench.nats_by_token(each, batch, bench.cache_of(each, name))
            errors[which, name] = (nats - exact).abs().mean().item()
    by_channel, by_token = ("4 bits", "4 bits, keys by token")
    same = errors["as it is", by_channel]
    assert errors["planted", by_channel] == pytest.approx(same, rel=1e-3) and same > 0
    assert errors["planted", by_token] > 1.25 * errors["as it is", by_token]
    uneven = bench.key_errors(planted, batch)["largest_over_median"]
    assert len(uneven) == 1 and uneven[0] > 8


def test_losses_are_told_beside_that_of_floats_and_measured_once(model, texts):
    work = bench.Work(n_held_out=1)
    rows = bench.losses(model, texts, ["8 bits"], work, finished := Finished(), "here, ")
    assert list(finished.results) == ["here, loss, float", "here, loss, 8 bits"]
    assert rows["float"] == {"loss": finished.results["here, loss, float"], "more": 0}
    assert 0 < abs(rows["8 bits"]["more"]) < 0.01


def test_a_text_counts_up_to_its_first_difference(model):
    rows = bench.written(model, [[3, 4], [5, 6], [7, 8]], n_tokens=40)
    assert tuple(rows) == bench.WRITTEN
    for row in rows.values():
        assert row["texts"] <= row["tokens"] <= 1
        assert (row["margin"] is None) == (row["texts"] == 1)
    assert rows["8 bits"]["tokens"] >= rows["4 bits"]["tokens"]


def test_choices_are_compared_after_the_same_text(model, texts):
    same = bench.same_choices(model, texts.rows([0, 1]))
    assert tuple(same) == bench.WRITTEN
    assert 0.5 < same["4 bits"] < same["8 bits"] <= 1


def test_shares_are_those_of_codes_and_scales(model):
    shares = bench.shares(TransformerConfig(vocab_size=9).build(device="meta"))  # K is 32
    assert shares["8 bits"]["codes"] == 0.53125
    assert shares["4 bits"]["codes"] == shares["4 bits, keys by token"]["codes"] == 0.28125
    assert shares["8 bits"]["128"] > shares["8 bits"]["4096"] > 0.53125
