from dataclasses import replace

import pytest
import torch
from torch import nn
from transformers import MixtralConfig
from transformers.models.mixtral.modeling_mixtral import MixtralSparseMoeBlock

from minillm.experts.moe import (
    MoE,
    MoEConfig,
    active_parameters,
    auxiliary_loss,
    balance_by_bias,
    moe_loss,
    moe_naive,
    routed,
)
from minillm.experts.routing import load_balance, shares, z_loss
from minillm.model import count
from minillm.model.attention import AttentionConfig, Context
from minillm.model.config import TransformerConfig
from minillm.model.ffn import SwiGLU, SwiGLUConfig
from minillm.model.transformer import loss
from minillm.serve.sample import SampleConfig, generate
from minillm.train.plain import fit


def numbers(*shape, seed=0):
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def filled(layer, seed=0):
    """The layer with weights of a size that shows (first weights are small)."""
    with torch.no_grad():
        for i, parameter in enumerate(layer.parameters()):
            parameter.copy_(0.3 * numbers(*parameter.shape, seed=seed + i))
    return layer


MOE = MoEConfig(n_experts=4, d_expert=8)
CONFIG = TransformerConfig(
    vocab_size=19, context_length=32, d_model=16, n_layers=2, ffn=MOE, initial_std=0.3
)
TOKENS = torch.randint(19, (3, 9), generator=torch.Generator().manual_seed(0))
KINDS = pytest.mark.parametrize(
    "config",
    [
        MOE,
        replace(MOE, norm_topk=False, n_shared=2),
        replace(MOE, capacity_factor=0.7),
        replace(MOE, router="switch", top_k=1),
        replace(MOE, router="expert_choice"),
    ],
    ids=["top_k", "shared", "limited", "switch", "expert_choice"],
)


def steer(layer, *rows):
    """The router that reads these numbers from x."""
    with torch.no_grad():
        layer.router.weight.copy_(torch.tensor(rows))


# --- by hand -----------------------------------------------------------------------------------
def test_two_experts_answer_and_are_weighed_three_to_one():
    layer = filled(MoEConfig(n_experts=3, d_expert=4).build(2))
    steer(layer, [3.0**0.5, 0], [0, 0], [-9.0, 0])
    x = torch.tensor([[[1.0, 0.5]]])
    weight = torch.tensor([3.0**0.5, 0.0]).softmax(dim=0)
    expected = weight[0] * layer.experts[0](x)[0] + weight[1] * layer.experts[1](x)[0]
    y, routing = layer(x)
    torch.testing.assert_close(y, expected)
    assert routing.experts.tolist() == [0, 1]


def test_who_finds_no_place_gets_nothing_and_passes_unchanged():
    layer = filled(MoEConfig(n_experts=2, top_k=1, router="switch", capacity_factor=1.0).build(2))
    steer(layer, [1.0, 0], [0, 0])
    x = torch.tensor([[[1.0, 0.5], [2.0, 0.5]], [[3.0, 1.0], [4.0, 1.0]]])
    y, routing = layer(x)  # 4 tokens, 2 places, all ask for expert 0
    assert (y.abs().sum(dim=-1) > 0).tolist() == [[True, True], [False, False]]
    assert routing.n_dropped == 2
    torch.testing.assert_close(
        y[0], torch.tensor([1.0, 2.0]).sigmoid()[:, None] * layer.experts[0](x)[0][0]
    )


def test_the_bias_for_the_choice_sends_tokens_elsewhere():
    layer = MoEConfig(n_experts=3, top_k=1).build(4)
    layer.expert_bias.copy_(torch.tensor([0.0, 2.0, 0.0]))
    assert layer(numbers(2, 5, 4))[1].tokens_per_expert.tolist() == [0, 10, 0]
    assert "expert_bias" in layer.state_dict()
    assert not isinstance(layer.expert_bias, nn.Parameter)


def test_defaults_are_no_limit_a_quarter_more_and_as_many_as_there_are():
    x = numbers(4, 16, 8)
    assert MoEConfig().build(8).capacity_factor is None
    assert MoEConfig(router="switch", top_k=1).build(8).capacity_factor == 1.25
    chosen = MoEConfig(router="expert_choice").build(8)(x)[1]
    assert chosen.tokens_per_expert.tolist() == [16] * 8  # 64 tokens, 2 each, over 8 experts


def test_a_token_passes_two_of_four_experts():
    total, active = active_parameters(CONFIG.build())
    expert = count.ffn_parameters(d_model=16, ffn_width=8, n_matrices=3)
    assert total - active == 2 * 2 * expert
    assert total == sum(p.numel() for p in CONFIG.build().parameters())
    dense = replace(CONFIG, ffn=SwiGLUConfig(d_ff=2 * 8)).build()
    routers = 2 * 4 * 16
    assert active_parameters(dense) == (active - routers, active - routers)


def test_parameters_are_those_of_chapter_00():
    config = TransformerConfig(
        vocab_size=19,
        d_model=16,
        n_layers=3,
        mixer=AttentionConfig(n_heads=2, n_kv_heads=1),
        ffn=MOE,
    )
    expected = count.mixtral_parameters(
        n_layers=3,
        d_model=16,
        n_heads=2,
        n_kv_heads=1,
        ffn_width=8,
        vocabulary_size=19,
        n_experts=4,
        n_active_experts=2,
    )
    assert active_parameters(config.build()) == expected


# --- twin --------------------------------------------------------------------------------------
def pair_by_pair(x, layer):
    """What the layer's routing means, one token and one expert after the other."""
    flat, routing = x.flatten(0, 1), layer.route(x.flatten(0, 1))
    rows = list(torch.zeros_like(flat) if layer.shared is None else layer.shared(flat)[0])
    pairs = zip(routing.tokens.tolist(), routing.experts.tolist(), routing.weights, strict=True)
    for token, expert, weight in pairs:
        rows[token] = rows[token] + weight * layer.experts[expert](flat[token])[0]
    return torch.stack(rows).view(x.shape)


def assert_same_with_all_gradients(layer, mix):
    outcomes = []
    for forward in (lambda x: layer(x)[0], mix):
        x = numbers(2, 9, 16, seed=9).requires_grad_()
        y = forward(x)
        found = torch.autograd.grad((y * numbers(2, 9, 16, seed=8)).sum(), [x, *layer.parameters()])
        outcomes.append((y.detach(), *found))
    for fast, naive in zip(*outcomes, strict=True):
        torch.testing.assert_close(fast, naive, rtol=0, atol=1e-5 * naive.abs().max().item())


@KINDS
def test_slice_by_slice_is_pair_by_pair_with_all_gradients(config):
    layer = filled(config.build(16))
    layer.expert_bias.copy_(0.03 * numbers(4))
    assert_same_with_all_gradients(layer, lambda x: pair_by_pair(x, layer))


@pytest.mark.parametrize("top_k", [1, 2, 4])
def test_the_layer_is_the_loop_over_experts_with_all_gradients(top_k):
    layer = filled(replace(MOE, top_k=top_k).build(16))
    router, experts = layer.router.weight, layer.experts
    assert_same_with_all_gradients(
        layer, lambda x: moe_naive(x.flatten(0, 1), router, experts, top_k).view(x.shape)
    )


def test_one_expert_is_the_dense_layer_bit_for_bit():
    layer = filled(MoEConfig(n_experts=1, top_k=1).build(16))
    dense = SwiGLUConfig().build(16)
    dense.load_state_dict(layer.experts[0].state_dict())
    x = numbers(3, 5, 16)
    assert torch.equal(layer(x)[0], dense(x)[0])


def test_shared_experts_are_added_for_every_token():
    with_shared = filled(replace(MOE, n_shared=2).build(16))
    without = MOE.build(16)
    without.load_state_dict(
        {k: v for k, v in with_shared.state_dict().items() if not k.startswith("shared")}
    )
    x = numbers(3, 5, 16)
    shared = with_shared.shared
    assert shared.down.in_features == 2 * 8
    # one SwiGLU as wide as both is both: the first 8 numbers and the last 8
    both = torch.zeros(3, 5, 16)
    gate, up = shared.gate_up.weight.chunk(2)
    for rows in (slice(0, 8), slice(8, 16)):
        one = SwiGLU(16, 8)
        with torch.no_grad():
            one.gate_up.weight.copy_(torch.cat((gate[rows], up[rows])))
            one.down.weight.copy_(shared.down.weight[:, rows])
        both = both + one(x)[0]
    torch.testing.assert_close(with_shared(x)[0], without(x)[0] + both)


@pytest.mark.parametrize("mask", [None, torch.eye(9, dtype=torch.bool)[None, None]])
def test_the_pass_that_keeps_routings_is_the_pass(mask):
    model = replace(CONFIG, ffn=(SwiGLUConfig(), MOE)).build(seed=0)
    context = Context(mask=mask)
    found = routed(model, TOKENS, context=context)
    assert torch.equal(found.logits, model(TOKENS, context=context))
    assert found.routings[0] is None
    assert found.routings[1].logits.shape == (27, 4)


def test_token_by_token_and_in_rows_of_any_length_it_writes_what_it_would_alone():
    model = CONFIG.build(seed=0)
    with torch.no_grad():
        whole, cache = model(TOKENS), model.new_cache(3)
        pieces = [model(TOKENS[:, a:b], cache=cache) for a, b in ((0, 1), (1, 6), (6, 9))]
    largest = whole.abs().max().item()
    torch.testing.assert_close(torch.cat(pieces, dim=1), whole, rtol=0, atol=1e-5 * largest)
    prompts, greedy = [[7, 3, 9, 1], [4]], SampleConfig(temperature=0)
    together = generate(model, prompts, greedy, n_tokens=8)
    alone = [generate(model, [prompt], greedy, n_tokens=8)[0] for prompt in prompts]
    assert together == alone


# --- reference ---------------------------------------------------------------------------------
@pytest.mark.parametrize("implementation", ["eager", "grouped_mm"])
def test_it_is_a_layer_of_transformers_mixtral(implementation):
    config = MixtralConfig(
        hidden_size=16, intermediate_size=8, num_local_experts=4, num_experts_per_tok=2
    )
    config._experts_implementation = implementation
    ours, theirs = filled(MOE.build(16)), MixtralSparseMoeBlock(config)
    with torch.no_grad():
        theirs.gate.weight.copy_(ours.router.weight)
        theirs.experts.gate_up_proj.copy_(torch.stack([e.gate_up.weight for e in ours.experts]))
        theirs.experts.down_proj.copy_(torch.stack([e.down.weight for e in ours.experts]))
    x = numbers(2, 11, 16, seed=9)
    expected = theirs(x)
    largest = expected.abs().max().item()
    torch.testing.assert_close(ours(x)[0], expected, rtol=0, atol=1e-5 * largest)


# --- law ---------------------------------------------------------------------------------------
def test_where_tokens_choose_without_limit_each_works_by_itself():
    layer, x = filled(MOE.build(16)), numbers(2, 3, 16, seed=9)
    before, _ = layer(x)
    x[1, 1] += 1
    others = torch.tensor([[True, True, True], [True, False, True]])
    after = layer(x)[0]
    torch.testing.assert_close(after[others], before[others])
    assert not torch.allclose(after[1, 1], before[1, 1])


def test_experts_without_tokens_are_skipped_and_get_no_gradient():
    layer = filled(MoEConfig(n_experts=3, top_k=1).build(2))
    steer(layer, [9.0, 9.0], [0, 0], [0, 0])
    layer(torch.ones(1, 4, 2))[0].sum().backward()
    assert layer.experts[0].down.weight.grad.abs().sum() > 0
    assert layer.experts[1].down.weight.grad is None


def test_the_loss_is_the_dense_one_with_the_mean_of_the_blocks_auxiliary_losses():
    model = replace(CONFIG, n_layers=3, ffn=(SwiGLUConfig(), MOE, MOE)).build(seed=0)
    plain = loss(model, TOKENS).mean
    _, first, second = routed(model, TOKENS[:, :-1]).routings
    torch.testing.assert_close(moe_loss(model, TOKENS, balance_weight=0.0, z=0.0).mean, plain)
    expected = plain + 0.2 * (load_balance(first) + load_balance(second)) / 2
    torch.testing.assert_close(moe_loss(model, TOKENS, balance_weight=0.2, z=0.0).mean, expected)
    expected = plain + 0.3 * (z_loss(first) + z_loss(second)) / 2
    torch.testing.assert_close(moe_loss(model, TOKENS, balance_weight=0.0, z=0.3).mean, expected)


def test_fit_trains_it():
    model = replace(CONFIG, initial_std=0.02).build(seed=0)
    losses = fit(model, moe_loss, lambda step: TOKENS, 20, 1e-2)
    assert losses[-1] < losses[0] - 0.5


def test_the_balance_loss_takes_tokens_from_a_favourite():
    at_the_end = {}
    for balance_weight in (0.0, 1.0):
        model = replace(CONFIG, n_layers=1, ffn=replace(MOE, top_k=1, norm_topk=False)).build()
        router = model.blocks[0].ffn.router.weight
        with torch.no_grad():  # all tokens have something in common, and expert 0 likes it
            model.embedding.weight[:, 0] = 3.0
            router[0, 0] = 1.0
        for parameter in model.parameters():  # only the router may change
            parameter.requires_grad = parameter is router
        fit(
            model,
            lambda model, tokens, balance_weight=balance_weight: moe_loss(
                model, tokens, balance_weight=balance_weight, z=0
            ),
            lambda step: TOKENS,
            20,
            5e-2,
        )
        at_the_end[balance_weight] = shares(routed(model, TOKENS).routings[0]).max().item()
    assert at_the_end[1.0] < at_the_end[0.0] - 0.1
    assert at_the_end[1.0] < 0.45


def test_the_bias_moves_after_a_step_in_every_layer_of_experts():
    model = replace(CONFIG, n_layers=3, ffn=(SwiGLUConfig(), MOE, MOE)).build(seed=0)
    routings = routed(model, TOKENS).routings
    balance_by_bias(model, routings, rate=0.01)
    for block, routing in zip(model.blocks[1:], routings[1:], strict=True):
        expected = 0.01 * (0.25 - shares(routing)).sign()
        torch.testing.assert_close(block.ffn.expert_bias, expected)
    first = [shares(routing).max().item() for routing in routings[1:]]
    for _ in range(25):
        balance_by_bias(model, routed(model, TOKENS).routings, rate=0.01)
    last = [shares(routing).max().item() for routing in routed(model, TOKENS).routings[1:]]
    assert all(after < before for before, after in zip(first, last, strict=True))


@KINDS
def test_device_dtype_and_values(config):
    with torch.device("meta"):  # a default device changes nothing
        assert {p.device.type for p in config.build(8).parameters()} == {"cpu"}
    layer = config.build(8, device="meta", dtype=torch.bfloat16)
    assert {(p.device.type, p.dtype) for p in layer.parameters()} == {("meta", torch.bfloat16)}
    assert layer.expert_bias.dtype == torch.float32
    y, _ = config.build(8, dtype=torch.bfloat16)(numbers(2, 3, 8).bfloat16())
    assert (y.dtype, y.shape) == (torch.bfloat16, (2, 3, 8))
    assert config == MoEConfig(**vars(config))
    assert all(m.bias is None for m in layer.modules() if isinstance(m, nn.Linear))


def test_what_print_shows():
    assert "(router): Linear(in_features=8, out_features=4, bias=False)" in str(MOE.build(8))
    assert "top_k, top_k=2, capacity_factor=None" in str(MOE.build(8))


# --- what stops it -----------------------------------------------------------------------------
def biased(config, n_routings):
    model = replace(CONFIG, ffn=config).build()
    balance_by_bias(model, routed(model, TOKENS).routings[:n_routings], rate=0.1)


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (lambda: MoEConfig(n_experts=2, top_k=3), "got top_k=3, n_experts=2"),
        (lambda: MoEConfig(top_k=0), "top_k must be at least 1"),
        (lambda: MoEConfig(router="hash"), "one of top_k, switch, expert_choice; got 'hash'"),
        (lambda: MoEConfig(router="switch"), "sends a token to one expert; got top_k=2"),
        (lambda: MoEConfig(d_expert=0), "d_expert must be at least 1; got 0"),
        (lambda: MoEConfig(n_shared=-1), "n_shared must be at least 0; got -1"),
        (lambda: MoEConfig(capacity_factor=0.0), "factor=0.0"),
        (lambda: MoE(8, [SwiGLU(8, 4)], top_k=2), "got top_k=2, n_experts=1"),
        (lambda: routed(CONFIG.build(), torch.zeros(1, 33).long()), "up to 32 tokens"),
        (lambda: moe_loss(CONFIG.build(), TOKENS[:, :1]), "got rows of 1"),
        (lambda: auxiliary_loss([None, None]), "none of 2 did"),
        (lambda: biased(MOE, 1), "one a block, 2 here; got 1"),
        (lambda: biased(replace(MOE, router="expert_choice"), 2), "with 'expert_choice'"),
    ],
)
def test_bad_input_is_named(call, words):
    with pytest.raises(ValueError) as error:
        call()
    assert words in str(error.value)
