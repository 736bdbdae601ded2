"""Training with products in bfloat16."""

from dataclasses import replace

import pytest
import torch

from minillm.data.packing import Packed
from minillm.mixers.linear_attention import LinearAttentionConfig
from minillm.mixers.mamba import MambaConfig
from minillm.model.config import tiny
from minillm.model.transformer import loss as row_loss
from minillm.optim.step import take_step
from minillm.train.autocast import in_precision
from minillm.train.losses import cross_entropy_naive, language_loss

DOCUMENTS = torch.randint(1, 50, (40, 9), generator=torch.Generator().manual_seed(0)).tolist()
PACKED = Packed(DOCUMENTS, end_id=0, context_length=16, batch_size=4)
ROWS = torch.tensor(DOCUMENTS[:8])  # a recurrent mixer takes one document a row
mixed = in_precision(language_loss, "bf16")


def begun(config=tiny(50)):  # noqa: B008  # a frozen value
    model = config.build(seed=0)
    return model, torch.optim.AdamW(model.parameters(), lr=1e-2)


def test_float32_is_the_loss_itself():
    assert in_precision(language_loss, "fp32") is language_loss


def test_products_are_in_bfloat16_and_weights_gradients_and_logits_in_float32():
    model, _ = begun()
    dtypes, hidden = set(), []
    model.blocks[0].mixer.qkv.register_forward_hook(lambda *given: dtypes.add(given[2].dtype))
    model.norm.register_forward_hook(lambda *given: hidden.append(given[2].detach()))
    total = mixed(model, PACKED.batch_at(0))
    total.nats.backward()
    assert dtypes == {torch.bfloat16}
    assert {weight.grad.dtype for weight in model.parameters()} == {torch.float32}
    # from the same last states, the loss is that of float32 to its last digits
    batch, table = PACKED.batch_at(0), model.head.weight.detach()
    exact = cross_entropy_naive(hidden[0].float().flatten(0, 1), table, batch.targets.flatten())
    assert total.nats.item() == pytest.approx(exact.nats.item(), rel=1e-5)
    assert not torch.equal(hidden[0], model.hidden(batch.tokens, context=batch.context()))


@pytest.mark.parametrize("mixer", [None, LinearAttentionConfig(), MambaConfig()])
def test_a_training_s_loss_stays_near_that_of_float32(mixer):
    config = tiny(50) if mixer is None else replace(tiny(50), mixer=mixer)
    losses = {}
    for precision in ("fp32", "bf16"):
        model, optimizer = begun(config)
        loss = in_precision(row_loss, precision)
        for _ in range(4):
            take_step(model, optimizer, [loss(model, ROWS)])
        losses[precision] = row_loss(model, ROWS).mean.item()
    assert losses["fp32"] < 3.7  # of 3.9
    assert losses["bf16"] == pytest.approx(losses["fp32"], rel=0.02)


def test_another_precision_is_refused():
    with pytest.raises(ValueError, match="precision must be one of fp32, bf16; got 'fp16'"):
        in_precision(language_loss, "fp16")
