from dataclasses import replace

import pytest
import torch
from transformers import MixtralConfig
from transformers.models.mixtral.modeling_mixtral import MixtralSparseMoeBlock

from minillm.experts.moe import MoEConfig, active_parameters
from minillm.experts.upcycle import upcycle, upcycle_state
from minillm.model.config import TransformerConfig
from minillm.model.ffn import MLPConfig, SwiGLUConfig
from minillm.model.transformer import Transformer, loss

CONFIG = TransformerConfig(
    vocab_size=19, context_length=32, d_model=16, n_layers=3, initial_std=0.3
)
TOKENS = torch.randint(19, (2, 9), generator=torch.Generator().manual_seed(0))


def dense(seed=0, **changes):
    return replace(CONFIG, **changes).build(seed=seed)


# --- by hand -----------------------------------------------------------------------------------
def test_every_expert_is_a_copy_and_the_router_is_new_and_small():
    model = dense(initial_std=0.02)
    before = {name: value.clone() for name, value in model.state_dict().items()}
    sparse = upcycle(model, MoEConfig(n_experts=3), layers=[0, 2], seed=1)
    assert [type(block.ffn).__name__ for block in sparse.blocks] == ["MoE", "SwiGLU", "MoE"]
    for layer in (0, 2):
        ffn = sparse.blocks[layer].ffn
        for expert in ffn.experts:
            for name, value in expert.state_dict().items():
                assert torch.equal(value, before[f"blocks.{layer}.ffn.{name}"])
        assert 0.01 < ffn.router.weight.std() < 0.03
        assert not ffn.expert_bias.any()
    routers = [sparse.blocks[layer].ffn.router.weight for layer in (0, 2)]
    assert not torch.equal(*routers)
    other = upcycle(model, MoEConfig(n_experts=3), layers=[0, 2], seed=2)
    assert not torch.equal(other.blocks[0].ffn.router.weight, routers[0])
    for name, value in model.state_dict().items():  # and the old model stays as it is
        assert torch.equal(value, before[name])


def test_of_two_experts_one_is_idle_and_the_rest_is_one_router_more():
    model = dense(n_layers=1)
    sparse = upcycle(model, MoEConfig(n_experts=2, top_k=1))
    total, active = active_parameters(sparse)
    in_dense = sum(p.numel() for p in model.parameters())
    in_ffn = sum(p.numel() for p in model.blocks[0].ffn.parameters())
    assert (total, active) == (in_dense + in_ffn + 2 * 16, in_dense + 2 * 16)


# --- twin --------------------------------------------------------------------------------------
@pytest.mark.parametrize("top_k", [1, 2, 4])
@pytest.mark.parametrize("layers", [None, [1]], ids=["all", "one"])
def test_the_logits_are_those_of_the_dense_model(top_k, layers):
    model = dense()
    sparse = upcycle(model, MoEConfig(n_experts=4, top_k=top_k), layers=layers)
    expected = model(TOKENS)
    largest = expected.abs().max().item()
    torch.testing.assert_close(sparse(TOKENS), expected, rtol=0, atol=1e-5 * largest)


def test_a_width_of_its_own_a_mode_a_dtype_and_tied_tables_are_taken_over():
    config = replace(CONFIG, ffn=SwiGLUConfig(d_ff=5), tied_embeddings=True)
    model = config.build(dtype=torch.float64).eval()
    sparse = upcycle(model, MoEConfig(n_experts=2))
    assert not sparse.training
    assert sparse.config.ffns == (MoEConfig(n_experts=2, d_expert=5),) * 3
    torch.testing.assert_close(sparse(TOKENS), model(TOKENS), rtol=0, atol=1e-12)


# --- reference ---------------------------------------------------------------------------------
def test_a_layer_of_transformers_mixtral_that_holds_the_copies_is_the_dense_layer():
    theirs = MixtralConfig(
        hidden_size=16,
        intermediate_size=24,
        num_local_experts=4,
    )
    block = MixtralSparseMoeBlock(theirs)
    model = dense(n_layers=1, ffn=SwiGLUConfig(d_ff=24))
    ours = upcycle(model, MoEConfig(n_experts=4)).blocks[0].ffn
    with torch.no_grad():
        block.gate.weight.copy_(ours.router.weight)
        block.experts.gate_up_proj.copy_(torch.stack([e.gate_up.weight for e in ours.experts]))
        block.experts.down_proj.copy_(torch.stack([e.down.weight for e in ours.experts]))
    x = torch.randn(2, 5, 16, generator=torch.Generator().manual_seed(0))
    expected = block(x)
    torch.testing.assert_close(model.blocks[0].ffn(x)[0], expected, rtol=0, atol=1e-5)
    torch.testing.assert_close(ours(x)[0], expected, rtol=0, atol=1e-5)


# --- law ---------------------------------------------------------------------------------------
def test_after_a_step_the_copies_part_and_the_dense_model_has_not_moved():
    model = dense()
    expected = model(TOKENS)
    sparse = upcycle(model, MoEConfig(n_experts=2, top_k=1), layers=[0])
    loss(sparse, TOKENS).nats.backward()
    with torch.no_grad():
        for parameter in sparse.parameters():
            if parameter.grad is not None:
                parameter -= 0.1 * parameter.grad
    first, second = sparse.blocks[0].ffn.experts
    assert not torch.equal(first.down.weight, second.down.weight)
    assert torch.equal(model(TOKENS), expected)


def test_every_copy_has_the_optimizer_state_of_its_source_and_a_router_has_none():
    model = dense(ffn=SwiGLUConfig(d_ff=5))
    sparse = upcycle(model, MoEConfig(n_experts=3), layers=[1])
    old, new = (torch.optim.AdamW(m.parameters(), lr=0.1) for m in (model, sparse))
    loss(model, TOKENS).nats.backward()
    old.step()
    upcycle_state(old, model, new, sparse)
    weights, copies = dict(model.named_parameters()), dict(sparse.named_parameters())
    assert copies["blocks.1.ffn.router.weight"] not in new.state
    assert len(new.state) == len(copies) - 1
    pairs = [
        (f"blocks.1.ffn.experts.{e}.down.weight", "blocks.1.ffn.down.weight") for e in range(3)
    ]
    for copy, source in [*pairs, ("blocks.0.ffn.down.weight",) * 2, ("embedding.weight",) * 2]:
        for key, value in old.state[weights[source]].items():
            assert torch.equal(new.state[copies[copy]][key], value)
            assert new.state[copies[copy]][key] is not value
    loss(sparse, TOKENS).nats.backward()
    new.step()  # the router's begins by itself


# --- what stops it -----------------------------------------------------------------------------
def bare():
    return Transformer(19, 16, dense().blocks, context_length=32)


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (lambda: upcycle(bare(), MoEConfig()), "got a model without one"),
        (lambda: upcycle(dense(ffn=MLPConfig()), MoEConfig()), "block 0 has MLP"),
        (
            lambda: upcycle(upcycle(dense(), MoEConfig()), MoEConfig(), layers=[2]),
            "block 2 has MoE",
        ),
        (
            lambda: upcycle(dense(), MoEConfig(d_expert=8)),
            "d_expert must be 48 in block 0, or None; got 8",
        ),
        (
            lambda: upcycle(dense(), MoEConfig(router="switch", top_k=1)),
            "needs router='top_k'; got 'switch'",
        ),
        (lambda: upcycle(dense(), MoEConfig(norm_topk=False)), "norm_topk=True; got False"),
        (lambda: upcycle(dense(), MoEConfig(capacity_factor=2.0)), "capacity_factor=None; got 2.0"),
        (lambda: upcycle(dense(), MoEConfig(n_shared=1)), "n_shared=0; got 1"),
        (lambda: upcycle(dense(), MoEConfig(), layers=[3]), "from 0 to 2; got [3]"),
        (lambda: upcycle(dense(), MoEConfig(), layers=[-1]), "from 0 to 2; got [-1]"),
        (lambda: upcycle(dense(), MoEConfig(), layers=[]), "at least one block"),
    ],
)
def test_bad_input_is_named(call, words):
    with pytest.raises(ValueError) as error:
        call()
    assert words in str(error.value)
