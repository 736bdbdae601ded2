import copy
from dataclasses import replace

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from minillm.experts.hash_routing import (
    HashedMoE,
    HashedMoEConfig,
    expert_loads,
    expert_table,
    extract_domain,
    hashed_naive,
)
from minillm.model.attention import AttentionConfig, Context
from minillm.model.config import TransformerConfig
from minillm.model.ffn import SwiGLU, SwiGLUConfig
from minillm.model.transformer import loss
from minillm.serve.sample import SampleConfig, generate, stream

VOCAB = 20
MOE = HashedMoEConfig(vocab_size=VOCAB, n_domains=3, experts_per_domain=4, d_expert=8)
MODEL = TransformerConfig(
    vocab_size=VOCAB,
    context_length=32,
    d_model=16,
    n_layers=3,
    mixer=AttentionConfig(n_heads=2),
    ffn=(SwiGLUConfig(), MOE, replace(MOE, seed=1)),  # dense below, experts above, as in the paper
    initial_std=0.3,
)


def told(domains, tokens=None, **others):
    return Context(domains=torch.as_tensor(domains), tokens=tokens, **others)


def numbers(*shape, seed=0):
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def texts(batch_size=3, n_tokens=9, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return torch.randint(VOCAB, (batch_size, n_tokens), generator=generator)


def zipf(vocab_size):
    return 1 / torch.arange(1, vocab_size + 1)


def spread(table, frequencies):
    loads = expert_loads(table, frequencies, 4)
    return (loads.amax(-1) / loads.mean(-1)).max().item()


class Scaling(nn.Module):
    """In the place of an expert: times a number."""

    def __init__(self, factor):
        super().__init__()
        self.factor = factor

    def forward(self, x, context=None):
        return self.factor * x, None


# --- by hand -----------------------------------------------------------------------------------
def test_the_most_frequent_token_goes_first_and_each_to_the_lightest_expert():
    # 7 | 5, then 4 to the lighter: 7 | 9, then 3 and 1: 10 | 9, 10 | 10
    frequencies = torch.tensor([4.0, 7.0, 1.0, 5.0, 3.0])
    table = expert_table(5, 1, 2, frequencies=frequencies)
    assert table.tolist() == [[1, 0, 1, 1, 0]]
    assert expert_loads(table, frequencies, 2).tolist() == [[10.0, 10.0]]


def test_a_domain_has_its_own_frequencies_and_its_own_experts():
    frequencies = torch.tensor([[9.0, 1.0, 1.0], [1.0, 1.0, 9.0]])
    table = expert_table(3, 2, 2, frequencies=frequencies)
    # the 9 has an expert for itself, the other two share one
    assert table[0, 1] == table[0, 2] != table[0, 0]
    assert table[1, 0] == table[1, 1] != table[1, 2]
    assert sorted(table[0].unique().tolist() + table[1].unique().tolist()) == [0, 1, 2, 3]


def test_the_domain_of_the_text_and_the_id_of_the_token_choose_and_nothing_else_does():
    # experts multiply by 1, 2 (domain 0) and 10, 20 (domain 1); the weight is 1
    experts = [Scaling(factor) for factor in (1.0, 2.0, 10.0, 20.0)]
    layer = HashedMoE(experts, torch.tensor([[0, 1, 1], [3, 2, 3]]))
    tokens, x = torch.tensor([[0, 1, 2], [0, 1, 2]]), torch.ones(2, 3, 1)
    assert layer.experts_of(tokens, torch.tensor([0, 1])).tolist() == [[0, 1, 1], [3, 2, 3]]
    y, routing = layer(x, told([0, 1], tokens))
    assert y.flatten().tolist() == [1, 2, 2, 20, 10, 20]
    assert routing is None


def test_each_seed_deals_other_cards_and_each_domain_has_its_own():
    table = expert_table(100, 2, 4, seed=0)
    assert torch.equal(table, expert_table(100, 2, 4, seed=0))
    assert not torch.equal(table, expert_table(100, 2, 4, seed=1))
    assert not torch.equal(table[0], table[1] - 4)


def test_tokens_that_never_occur_are_dealt_out_too():
    frequencies = torch.zeros(41)
    frequencies[7] = 5.0
    table = expert_table(41, 1, 4, frequencies=frequencies)
    others = torch.cat((table[0, :7], table[0, 8:]))
    assert torch.bincount(others).tolist() == [10, 10, 10, 10]


# --- twin --------------------------------------------------------------------------------------
def test_sorted_by_expert_is_one_token_after_the_other_with_all_gradients():
    layer = MOE.build(d_model=8)
    context = told([0, 2, 2], texts())
    chosen = layer.experts_of(context.tokens, context.domains)
    outcomes = []
    for forward in (
        lambda x: layer(x, context)[0],
        lambda x: hashed_naive(x, chosen, layer.experts),
    ):
        layer.zero_grad()
        x = numbers(3, 9, 8).requires_grad_()
        y = forward(x)
        y.backward(numbers(3, 9, 8, seed=1))
        gradients = [p.grad for p in layer.parameters() if p.grad is not None]
        outcomes.append((y.detach(), x.grad, *gradients))
    assert len(outcomes[0]) == len(outcomes[1]) > 2
    for fast, naive in zip(*outcomes, strict=True):
        torch.testing.assert_close(fast, naive, rtol=0, atol=1e-6 * naive.abs().max().item())


def test_token_by_token_and_in_pieces_is_the_whole():
    model, tokens, context = MODEL.build(seed=0), texts(3, 11), told([2, 0, 1])
    whole = model(tokens, context=context)
    for pieces in ([1] * 11, [4, 1, 6]):
        cache, found = model.new_cache(batch_size=3), []
        for part in tokens.split(pieces, dim=1):
            found.append(model(part, context=context, cache=cache))
        torch.testing.assert_close(
            torch.cat(found, dim=1), whole, rtol=0, atol=1e-5 * whole.abs().max().item()
        )


@pytest.mark.parametrize("domain", [0, 1, 2])
def test_an_extracted_domain_gives_the_logits_of_the_whole_model(domain):
    model, tokens = MODEL.build(seed=0), texts()
    small = extract_domain(model, domain)
    whole = model(tokens, context=told([domain] * 3))
    for alone in (small(tokens), small(tokens, context=told([0] * 3))):
        torch.testing.assert_close(alone, whole, rtol=0, atol=1e-6 * whole.abs().max().item())
    other = model(tokens, context=told([(domain + 1) % 3] * 3))
    assert not torch.allclose(other, whole, rtol=0, atol=1e-3)


def test_each_prompt_is_written_on_by_the_experts_of_its_domain():
    model, prompts, greedy = (
        MODEL.build(seed=0),
        [[7, 3, 9, 1], [4], [4]],
        SampleConfig(temperature=0),
    )
    together = generate(model, prompts, greedy, n_tokens=8, context=told([1, 0, 2]))
    for prompt, domain, row in zip(prompts, (1, 0, 2), together, strict=True):
        small = extract_domain(model, domain)
        assert generate(small, [prompt], greedy, n_tokens=8) == [row]
        assert [*stream(model, prompt, greedy, n_tokens=8, context=told([domain]))] == row
    assert together[1] != together[2]


# --- reference ---------------------------------------------------------------------------------
def test_with_one_domain_and_one_expert_it_is_the_plain_transformer_and_its_loss():
    lone = HashedMoEConfig(vocab_size=VOCAB, n_domains=1, experts_per_domain=1, d_expert=24)
    hashed = replace(MODEL, ffn=lone).build(seed=0)
    plain = replace(MODEL, ffn=SwiGLUConfig(d_ff=24)).build(seed=1)
    weights = {name.replace("experts.0.", ""): p for name, p in hashed.named_parameters()}
    plain.load_state_dict(weights, strict=False)
    tokens, context = texts(), told([0] * 3)
    torch.testing.assert_close(hashed(tokens, context=context), plain(tokens))
    torch.testing.assert_close(loss(hashed, tokens, context=context), loss(plain, tokens))


def test_a_context_of_ones_own_is_heard():
    model, tokens = MODEL.build(seed=0), texts()
    y = model(tokens, context=told([0] * 3, mask=torch.eye(9, dtype=torch.bool)))
    one = model(tokens[:, 4:5], context=told([0] * 3))  # a token that sees itself alone
    torch.testing.assert_close(y[:, 4:5], one)


# --- law ---------------------------------------------------------------------------------------
@given(st.integers(1, 60), st.integers(1, 3), st.integers(1, 7), st.integers(0, 99))
@settings(max_examples=40, deadline=None)
def test_without_frequencies_experts_have_as_many_tokens_or_one_more(
    vocab_size, n_domains, n_experts, seed
):
    table = expert_table(vocab_size, n_domains, n_experts, seed=seed)
    for domain, row in enumerate(table):
        counts = torch.bincount(row - domain * n_experts, minlength=n_experts)
        assert len(counts) == n_experts
        assert counts.max() - counts.min() <= 1


@given(
    st.lists(st.integers(0, 1000), min_size=8, max_size=60).filter(any),
    st.integers(1, 8),
    st.integers(0, 99),
)
@settings(max_examples=60, deadline=None)
def test_no_expert_is_above_the_mean_by_more_than_the_heaviest_token(counts, n_experts, seed):
    frequencies = torch.tensor(counts, dtype=torch.float64)
    table = expert_table(len(counts), 1, n_experts, frequencies=frequencies, seed=seed)
    loads = expert_loads(table, frequencies, n_experts)
    assert loads.shape == (1, n_experts)
    assert loads.sum() == frequencies.sum()
    mean = loads.mean()
    # the last token of an expert found it at most as heavy as the mean of the rest
    assert loads.max() <= mean + frequencies.max() * (1 - 1 / n_experts) + 1e-9
    if frequencies.max() >= mean:  # nothing can be lighter than that token
        assert loads.max() < 2 * frequencies.max()


def test_frequencies_balance_what_equal_counts_do_not():
    # Zipf: the first of 2000 tokens is 12 % of all and fits into one of 4 experts
    by_count = expert_table(2000, 1, 4)
    by_work = expert_table(2000, 1, 4, frequencies=zipf(2000))
    assert spread(by_count, zipf(2000)) > 1.15
    assert spread(by_work, zipf(2000)) <= 1.001


def test_each_layer_of_a_model_may_have_a_table_of_its_own():
    model = MODEL.build(seed=0)
    assert not torch.equal(model.blocks[1].ffn.table, model.blocks[2].ffn.table)


def test_the_table_is_saved_with_the_weights_and_taken_from_them():
    model = MODEL.build(seed=0)
    again = replace(MODEL, ffn=(SwiGLUConfig(), replace(MOE, seed=7), replace(MOE, seed=8)))
    again = again.build(seed=1)
    tokens, context = texts(), told([0, 1, 2])
    again.load_state_dict(model.state_dict())
    assert torch.equal(again(tokens, context=context), model(tokens, context=context))


def test_an_extracted_domain_has_a_share_of_the_experts_and_can_be_saved_and_built_anew():
    config = replace(
        MODEL,
        ffn=replace(
            MOE, frequencies=tuple(tuple((i + d) % 5 + 1.0 for i in range(VOCAB)) for d in range(3))
        ),
    )
    model = config.build(seed=0).eval()
    before = copy.deepcopy(model.state_dict())
    small = extract_domain(model, 2)

    def n(model, part):
        return sum(
            p.numel() for name, p in model.named_parameters() if (".experts." in name) == part
        )

    assert n(small, False) == n(model, False)
    assert 3 * n(small, True) == n(model, True) > 0
    assert not any(module.training for module in small.modules())
    built = small.config.build(seed=5)
    built.load_state_dict(small.state_dict())
    assert torch.equal(built(texts()), small(texts()))
    with torch.no_grad():  # a copy: the whole model stays as it is
        for parameter in small.parameters():
            parameter.zero_()
    assert all(torch.equal(before[name], value) for name, value in model.state_dict().items())


def test_only_experts_of_the_domain_that_was_read_get_gradients():
    model = MODEL.build(seed=0)
    loss(model, texts(8, 20), context=told([1] * 8)).nats.backward()
    for block in model.blocks[1:]:
        touched = [expert.down.weight.grad is not None for expert in block.ffn.experts]
        assert touched == [False] * 4 + [True] * 4 + [False] * 4


def test_an_empty_batch_goes_through():
    empty = torch.empty(0, dtype=torch.int64)
    y, _ = MOE.build(d_model=8)(torch.empty(0, 3, 8), told(empty, empty.view(0, 3)))
    assert y.shape == (0, 3, 8)


def test_device_and_dtype_are_arguments():
    layer = MOE.build(8, device="meta", dtype=torch.bfloat16)
    assert {(p.device.type, p.dtype) for p in layer.parameters()} == {("meta", torch.bfloat16)}
    assert layer.table.is_meta
    layer = MOE.build(8, dtype=torch.bfloat16)
    assert layer(numbers(3, 9, 8).bfloat16(), told([0] * 3, texts()))[0].dtype == torch.bfloat16
    assert all(isinstance(expert, SwiGLU) for expert in layer.experts)


# --- what stops it -----------------------------------------------------------------------------
def ask(domains):
    return MODEL.build(seed=0)(texts(), context=told(domains))


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (lambda: expert_table(0, 1, 1), "vocab_size must be at least 1; got 0"),
        (lambda: replace(MOE, n_domains=0), "n_domains must be at least 1; got 0"),
        (lambda: replace(MOE, experts_per_domain=-1), "experts_per_domain must be at least 1"),
        (lambda: replace(MOE, d_expert=0), "d_ff must be at least 1; got 0"),
        (
            lambda: replace(MOE, frequencies=(1.0,) * 19),
            "one number a token, [20], or one row a domain, [3, 20]; got the shape [19]",
        ),
        (lambda: expert_table(2, 1, 1, frequencies=torch.tensor([2.0, -1.0])), "from -1 to 2"),
        (lambda: expert_table(2, 1, 1, frequencies=torch.zeros(2)), "in each domain above 0"),
        (lambda: expert_table(1, 1, 1, frequencies=torch.tensor([torch.inf])), "finite numbers"),
        (lambda: expert_loads(expert_table(4, 1, 2), torch.ones(3), 2), "got the shape [3]"),
        (
            lambda: MODEL.build(seed=0)(texts()),
            "[3]; got None. Call model(tokens, context=Context(",
        ),
        (lambda: MOE.build(8)(numbers(2, 3, 8)), "the id of each token, [2, 3]; got None"),
        (
            lambda: MOE.build(8)(numbers(2, 3, 8), told([0, 0], texts(2, 2))),
            "the id of each token, [2, 3]; got [2, 2]",
        ),
        (lambda: ask([0, 3, 1]), "the domains 0 to 2; got [0, 1, 3]"),
        (lambda: ask([0, -1, 1]), "the domains 0 to 2; got [-1, 0, 1]"),
        (lambda: ask([0, 1]), "one number a text, [3]; got [2]"),
        (lambda: extract_domain(MODEL.build(), 3), "the domains 0 to 2; got [3]"),
        (lambda: extract_domain(MODEL.build(), -1), "the domains 0 to 2; got [-1]"),
        (lambda: extract_domain(replace(MODEL, ffn=SwiGLUConfig()).build(), 0), "FFNs are SwiGLU"),
    ],
)
def test_bad_input_is_named(call, words):
    with pytest.raises(ValueError) as error:
        call()
    assert words in str(error.value)
