from dataclasses import replace

import pytest
import torch

from minillm.data.corpus import reader
from minillm.experts.moe import MoEConfig, auxiliary_loss, routed
from minillm.model.ffn import SwiGLUConfig
from minillm.train.compare import real_text
from minillm.train.losses import language_loss
from minillm.train.sparse_text import learned, sparse_loss

FFN = MoEConfig(n_experts=4, top_k=1, d_expert=8, norm_topk=False)


@pytest.fixture(scope="module")
def task():
    return real_text(reader("en"), vocab_size=256)


# --- twin ---------------------------------------------------------------------------------------
def test_the_sparse_loss_is_the_language_loss_and_the_auxiliary_losses_a_token(task):
    model = replace(task.model(0).config, ffn=FFN).build(seed=0)
    batch = task.batch_at(0, 0)
    total, language = sparse_loss(model, batch), language_loss(model, batch)
    auxiliary = auxiliary_loss(routed(model, batch.tokens, context=batch.context()).routings)
    assert total.n_tokens == language.n_tokens
    torch.testing.assert_close(total.mean, language.mean + auxiliary)


# --- law ----------------------------------------------------------------------------------------
def test_a_dense_and_a_sparse_model_learn_and_are_judged_without_auxiliary_losses(task):
    for ffn, routes in ((SwiGLUConfig(d_ff=8), False), (FFN, True)):
        untrained = replace(task.model(0).config, ffn=ffn).build(seed=0)
        loss = learned(ffn, task, n_steps=3, routes=routes)
        assert loss < task.held_out_loss(untrained)
        assert loss == learned(ffn, task, n_steps=3, routes=routes)


# --- what stops it ------------------------------------------------------------------------------
def test_a_dense_model_has_no_sparse_loss(task):
    with pytest.raises(ValueError, match="need a block that routes"):
        sparse_loss(task.model(0), task.batch_at(0, 0))
