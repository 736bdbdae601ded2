"""minillm.train.recall: small models of given mixers that learn to answer."""

import pytest
import torch

from minillm.data.recall import Needle, Pairs, accuracy
from minillm.mixers.linear_attention import LinearAttentionConfig
from minillm.mixers.mamba import MambaConfig
from minillm.model.attention import AttentionConfig
from minillm.optim.muon import Muon
from minillm.train import recall
from minillm.train.recall import learned, muon, of_mixers, right_share

LINEAR = LinearAttentionConfig(n_heads=1, d_head=4)


# --- by hand ------------------------------------------------------------------------------------
def test_each_block_has_its_mixer_and_all_else_is_the_same():
    model = of_mixers([LINEAR, AttentionConfig(n_heads=1)], vocab_size=20, context_length=12)
    assert [type(block.mixer).__name__ for block in model.blocks] == [
        "LinearAttention",
        "Attention",
    ]
    other = of_mixers([LINEAR, LINEAR], vocab_size=20, context_length=12)
    assert torch.equal(model.embedding.weight, other.embedding.weight)
    assert model.embedding.weight.shape == (20, 64)


def test_the_rate_of_what_muon_does_not_take_is_half_and_both_fall_to_zero(monkeypatch):
    optimizers, rates = [], []

    def kept(*args, **options):
        optimizers.append(Muon(*args, **options))
        return optimizers[0]

    def loss(model, batch):
        rates.append([group["lr"] for group in optimizers[0].param_groups])
        return recall_loss(model, batch)

    recall_loss = recall.recall_loss
    monkeypatch.setattr(recall, "Muon", kept)
    monkeypatch.setattr(recall, "recall_loss", loss)
    learned([LINEAR], {Pairs(n_pairs=2): 4}, n_steps=4, rate=0.04)
    matrices, others = zip(*rates, strict=True)
    assert matrices == pytest.approx((0.04, 0.03, 0.02, 0.01))
    assert others == pytest.approx((0.02, 0.015, 0.01, 0.005))


def test_muon_gets_the_matrices_of_the_blocks():
    model = of_mixers([MambaConfig(d_state=2)], vocab_size=20, context_length=12)
    matrices, others = muon(model, 0.02).param_groups
    assert sum(map(torch.numel, matrices["params"] + others["params"])) == sum(
        map(torch.numel, model.parameters())
    )
    assert all(weight.ndim == 2 for weight in matrices["params"])


# --- twin ---------------------------------------------------------------------------------------
def test_what_is_counted_right_are_four_blocks_of_the_seed_that_nobody_learns():
    model, source = of_mixers([LINEAR], vocab_size=128, context_length=24), Pairs(n_pairs=8)
    shares = [accuracy(model, source.block(i, seed="held out")) for i in range(4)]
    assert right_share(model, source) == pytest.approx(sum(shares) / 4)
    assert sum(shares) > 0


# --- law ----------------------------------------------------------------------------------------
def test_a_seed_decides_everything_and_every_mixer_reads_the_same_rows(monkeypatch):
    rows = []

    def loss(model, batch):
        rows[-1].append(batch.tokens)
        return recall_loss(model, batch)

    recall_loss = recall.recall_loss
    monkeypatch.setattr(recall, "recall_loss", loss)
    sources = {Pairs(n_pairs=2): 8, Pairs(n_pairs=4): 4}
    models = []
    for mixer, seed in ((LINEAR, 0), (LINEAR, 0), (AttentionConfig(n_heads=1), 0), (LINEAR, 1)):
        rows.append([])
        models.append(learned([mixer], sources, n_steps=6, rate=0.02, seed=seed))
    one, again, attention, other = rows
    for tokens, same, read in zip(one, again, attention, strict=True):
        assert torch.equal(tokens, same)
        assert torch.equal(tokens, read)
    assert {tuple(tokens.shape) for tokens in one} == {(8, 6), (4, 12)}
    assert not all(
        a.shape == b.shape and torch.equal(a, b) for a, b in zip(one, other, strict=True)
    )
    assert torch.equal(models[0].head.weight, models[1].head.weight)
    assert not torch.equal(models[0].head.weight, models[3].head.weight)


# --- bad input ----------------------------------------------------------------------------------
def test_no_mixer_no_source_and_sources_of_two_vocabularies_are_refused():
    with pytest.raises(ValueError, match="at least one mixer"):
        of_mixers([], vocab_size=20, context_length=12)
    with pytest.raises(ValueError, match=r"at least one; got \[\]"):
        learned([LINEAR], {}, n_steps=1, rate=0.02)
    with pytest.raises(ValueError, match=r"same vocab_size.*got \[34, 128\]"):
        learned([LINEAR], {Pairs(n_pairs=2): 1, Needle(distance=2): 1}, n_steps=1, rate=0.02)
