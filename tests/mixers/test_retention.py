import math
from dataclasses import replace

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from minillm.mixers.linear_attention import (
    LinearAttentionConfig,
    outer_chunked,
    outer_parallel,
    outer_recurrent,
)
from minillm.mixers.retention import RetentionConfig, paper_decays
from minillm.model.attention import AttentionConfig, Context
from minillm.model.config import TransformerConfig
from minillm.model.masks import causal, padding, window
from minillm.model.rope import RopeConfig
from minillm.serve.sample import SampleConfig, generate

WIDTH = 16
VARIANTS = {
    "plain": RetentionConfig(),
    "wide values": RetentionConfig(n_heads=2, d_head=4, value_width=7, chunk_tokens=4),
    "fast and never": RetentionConfig(decays=(1.0, 0.5, 0.1, 1e-4), chunk_tokens=3),
    "no rotation": RetentionConfig(rope=None, chunk_tokens=5),
}


def random(*shape, seed=0, dtype=torch.float64):
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=dtype)


def built(config, seed=0, dtype=torch.float64):
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        return config.build(WIDTH, context_length=32, dtype=dtype)


def positions(n_tokens, first=0):
    return Context(positions=torch.arange(first, first + n_tokens))


def model_of(config):
    model = TransformerConfig(
        vocab_size=40, context_length=32, d_model=WIDTH, n_layers=2, mixer=config, initial_std=0.3
    )
    return model.build(seed=1)


def close(given, expected, tolerance=1e-12):
    torch.testing.assert_close(
        given, expected, rtol=0, atol=tolerance * expected.abs().max().item()
    )


def finished(layer, values, gate):
    """What a layer makes of its heads' sums: norm, gate, output, by other means than its own."""
    batch_size, n_heads, n_tokens, d_model = values.shape
    flat = values.transpose(1, 2).reshape(batch_size * n_tokens, n_heads * d_model)
    normed = torch.nn.functional.group_norm(flat, n_heads, eps=layer.norm_epsilon)
    normed = normed.reshape(batch_size, n_tokens, n_heads * d_model)
    return (gate * torch.sigmoid(gate) * normed) @ layer.output.weight.T


# --- by hand -----------------------------------------------------------------------------------
def test_the_first_four_decays_are_those_of_the_paper():
    assert paper_decays(4) == (31 / 32, 63 / 64, 127 / 128, 255 / 256)
    assert RetentionConfig(n_heads=2).build(WIDTH).decays == (31 / 32, 63 / 64)
    assert RetentionConfig(n_heads=2, decays=(0.5, 1)).build(WIDTH).decays == (0.5, 1)


def test_two_tokens_of_a_layer_by_hand():
    # D = K = 2, no rotation, γ = 1/2; q, k, v and gate are x itself, and so is W_O's product
    layer = RetentionConfig(n_heads=1, decays=(0.5,), rope=None, norm_epsilon=1e-12).build(2)
    with torch.no_grad():
        layer.qkvg.weight.copy_(torch.eye(2).repeat(4, 1))
        layer.output.weight.copy_(torch.eye(2))
    cache = layer.new_cache(1, 2)
    y = layer(torch.tensor([[[1.0, 0.0], [1.0, 2.0]]]), positions(2), cache)[0]
    # Token 0: y ~ (1, 0), normed (1, -1), times swish(1), swish(0). Token 1: q·k_0 = 1, q·k_1 = 5:
    # (1, 0)/2 + 5 (1, 2) = (5.5, 10), normed (-1, 1), times swish(1), swish(2).
    swish = [z / (1 + math.exp(-z)) for z in (1, 2)]
    assert y.tolist()[0] == pytest.approx([swish[0], 0])
    assert y.tolist()[1] == pytest.approx([-swish[0], swish[1]])
    # S: half of (1, 0)(1, 0)ᵀ and all of (1, 2)(1, 2)ᵀ, by √2
    state = [number * math.sqrt(2) for number in cache["sum"].flatten().tolist()]
    assert state == pytest.approx([1.5, 2, 2, 4])


def test_parameters_are_as_many_as_counted_on_paper():
    def n_parameters(config):
        return sum(p.numel() for p in config.build(WIDTH).parameters())

    assert n_parameters(RetentionConfig()) == 5 * 16 * 16
    # the paper's own shape: values and gate twice as wide, 8 D² in all
    assert n_parameters(RetentionConfig(value_width=8)) == 8 * 16 * 16


# --- twin --------------------------------------------------------------------------------------
@pytest.mark.parametrize("name", VARIANTS)
def test_a_layer_is_the_parallel_form_with_all_its_gradients(name):
    config, x, gradients = VARIANTS[name], random(2, 11, WIDTH), []
    for naive in (True, False):
        layer = built(config)
        if naive:
            q, k, v, gate = layer.project(x, torch.arange(11))
            y = finished(layer, outer_parallel(q, k, v, torch.tensor(layer.decays)).values, gate)
        else:
            y = layer(x, positions(11))
        y.sin().sum().backward()
        gradients.append([y.detach(), *(p.grad for p in layer.parameters())])
    for given_, expected in zip(*gradients, strict=True):
        close(given_, expected, 1e-6)


@given(st.integers(1, 20), st.integers(1, 24), st.integers(0, 99))
@settings(max_examples=30, deadline=None)
def test_three_forms_and_all_chunks_agree_with_the_papers_decays_in_float32(n_tokens, chunk, seed):
    layer = built(RetentionConfig(chunk_tokens=chunk), dtype=torch.float32)
    x = random(2, n_tokens, WIDTH, seed=seed, dtype=torch.float32)
    q, k, v, _ = layer.project(x, torch.arange(n_tokens))
    decays = torch.tensor(layer.decays)
    expected = outer_parallel(q, k, v, decays)
    for form in (
        outer_recurrent(q, k, v, decays),
        outer_chunked(q, k, v, decays, chunk_tokens=chunk),
    ):
        close(form.values, expected.values, 1e-5)
        close(form.state, expected.state, 1e-5)


@pytest.mark.parametrize("name", VARIANTS)
@given(cuts=st.lists(st.integers(1, 5), min_size=1, max_size=6))
@settings(max_examples=6, deadline=None)
def test_piece_by_piece_is_the_whole(name, cuts):
    # In float64: where all products of a query are near 0 the norm makes rounding large. The sums
    # themselves are held to 1e-5 in float32 above.
    model, n_tokens = model_of(VARIANTS[name]).double(), sum(cuts)
    tokens = torch.randint(40, (2, n_tokens), generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        whole, cache = model(tokens), model.new_cache(2)
        parts = [model(piece, cache=cache) for piece in tokens.split(cuts, dim=1)]
    close(torch.cat(parts, dim=1), whole, 1e-10)


@pytest.mark.parametrize("name", VARIANTS)
def test_prompts_of_different_lengths_are_written_on_as_each_alone(name):
    model, greedy = model_of(VARIANTS[name]), SampleConfig(temperature=0)
    prompts = [[3, 1, 4, 1, 5, 9, 2], [6], [5, 3, 5]]
    together = generate(model, prompts, greedy, n_tokens=8)
    alone = [generate(model, [prompt], greedy, n_tokens=8)[0] for prompt in prompts]
    assert together == alone
    assert len({tuple(row) for row in alone}) > 1


@pytest.mark.parametrize("name", VARIANTS)
def test_fillers_anywhere_neither_write_nor_let_anything_fade(name):
    layer, x = built(VARIANTS[name]), random(1, 4, WIDTH)
    is_token = torch.tensor([[False, True, True, False, True, True, False]])
    row = random(1, 7, WIDTH, seed=3)
    row[is_token] = x[0]
    row.requires_grad_()
    keys = torch.arange(7)
    context = Context(
        positions=torch.tensor([[0, 0, 1, 0, 2, 3, 0]]),
        mask=causal(keys, keys) & padding(is_token),
    )
    cache, alone = layer.new_cache(1, 32), layer.new_cache(1, 32)
    y = layer(row, context, cache)
    close(y[is_token], layer(x, positions(4), alone)[0], 1e-9)
    close(cache["sum"], alone["sum"])
    y.sum().backward()
    assert row.grad.isfinite().all()
    assert (y[0, 0] == 0).all()  # it sees nothing


# --- reference ---------------------------------------------------------------------------------
def test_the_papers_recurrence_gives_the_same():
    layer, x = built(VARIANTS["wide values"]), random(2, 9, WIDTH)
    q, k, v, gate = layer.project(x, torch.arange(9))
    gamma = 1 - 2.0 ** (-5 - torch.arange(2).double())
    past, outputs = torch.zeros(2, 2, 4, 7).double(), []
    for n in range(9):  # S_n = γ S_(n-1) + K_nᵀ V_n, Q_n S_n
        past = gamma[None, :, None, None] * past + k[:, :, n].unsqueeze(-1) * v[:, :, n].unsqueeze(
            -2
        )
        outputs.append((q[:, :, n].unsqueeze(-1) * past).sum(dim=-2))
    close(layer(x, positions(9)), finished(layer, torch.stack(outputs, dim=2), gate), 1e-9)


def test_the_papers_complex_numbers_give_the_same_sums():
    # equation (5): q e^(inθ) and k e^(-imθ), γ^(n-m); a pair of ours is one complex number
    layer, x = built(VARIANTS["plain"]), random(1, 6, WIDTH)
    unturned = built(replace(VARIANTS["plain"], rope=None))
    q, k, v, gate = unturned.project(x, torch.arange(6))
    theta = RopeConfig().frequencies(4)
    q, k = (torch.complex(*part.chunk(2, dim=-1)) for part in (q, k))
    values = torch.zeros_like(v)
    for n in range(6):
        for m in range(n + 1):
            turned = q[:, :, n] * torch.polar(torch.ones(2).double(), n * theta)
            other = k[:, :, m] * torch.polar(torch.ones(2).double(), m * theta)
            score = (turned * other.conj()).real.sum(dim=-1, keepdim=True)
            fading = torch.tensor(paper_decays(4)).double()[:, None] ** (n - m)
            values[:, :, n] += fading * score * v[:, :, m]
    close(layer(x, positions(6)), finished(layer, values, gate), 1e-6)


# --- law ---------------------------------------------------------------------------------------
@pytest.mark.parametrize("name", VARIANTS)
@given(place=st.integers(0, 8))
@settings(max_examples=5, deadline=None)
def test_a_changed_token_is_noticed_by_itself_and_later_ones_alone(name, place):
    layer, x = built(VARIANTS[name]), random(1, 9, WIDTH)
    changed = x.clone()
    changed[0, place] += 1
    difference = (layer(x, positions(9)) - layer(changed, positions(9))).abs().amax(dim=-1)[0]
    assert (difference[:place] == 0).all()
    assert (difference[place:] > 1e-9).all()


@given(st.integers(0, 400))
@settings(max_examples=15, deadline=None)
def test_a_text_that_begins_later_is_read_alike(shift):
    layer, x = built(VARIANTS["plain"]), random(2, 6, WIDTH)
    layer.reserve(406)
    close(layer(x, positions(6, shift)), layer(x, positions(6)), 1e-7)


@given(st.floats(0.01, 100), st.integers(0, 99))
@settings(max_examples=20, deadline=None)
def test_the_size_of_the_values_is_forgotten_by_the_norm(size, seed):
    layer, x = built(replace(VARIANTS["plain"], norm_epsilon=1e-20)), random(1, 6, WIDTH, seed=seed)
    before = layer(x, positions(6))
    with torch.no_grad():
        layer.qkvg.weight[32:48] *= size  # the rows of v
    close(layer(x, positions(6)), before, 1e-8)


@pytest.mark.parametrize("name", VARIANTS)
def test_the_state_is_as_large_as_counted_after_any_number_of_tokens(name):
    layer = built(VARIANTS[name])
    cache = layer.new_cache(3, 32)
    H, K, Kv = layer.n_heads, layer.d_head, layer.value_width
    for n_new in (0, 1, 5, 20):
        if n_new:
            layer(random(3, n_new, WIDTH), positions(n_new, cache.n_tokens), cache)
        assert cache.n_bytes == layer.state_bytes(3) == 3 * H * K * Kv * 8
    assert cache.n_tokens == 26


def test_rotations_grow_with_the_cache_that_is_asked_for():
    layer = built(VARIANTS["plain"])
    layer.new_cache(1, max_length=50)
    assert len(layer.rotations.table) == 50


def test_a_pace_as_slow_as_the_eighth_heads_survives_sixteen_bits():
    layer = RetentionConfig(n_heads=8).build(WIDTH, dtype=torch.bfloat16)
    assert len(set(layer.decays)) == 8 and layer.decays[7] < 1
    q = k = v = torch.ones(1, 8, 1000, 2, dtype=torch.bfloat16)
    state = outer_chunked(q, k, v, torch.tensor(layer.decays)).state[0, :, 0, 0].float()
    assert (state[1:] > state[:-1]).all()  # the slower, the more is kept


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_a_layer_lives_where_and_as_it_was_built(dtype):
    layer = VARIANTS["wide values"].build(WIDTH, device="meta", dtype=dtype)
    cache = layer.new_cache(2, 8)
    context = Context(positions=torch.empty(2, 3, device="meta", dtype=torch.int64))
    y = layer(torch.empty(2, 3, WIDTH, device="meta", dtype=dtype), context, cache)
    for tensor in (y, *layer.parameters(), *layer.buffers()):
        assert (tensor.dtype, tensor.device.type) == (dtype, "meta")
    assert (cache["sum"].dtype, cache["sum"].device.type) == (torch.float32, "meta")
    assert cache.n_bytes == layer.state_bytes(2)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_heads_that_never_forget_add_up_thousands_of_tokens_of_16_bits(dtype):
    config = RetentionConfig(decays=(1.0,) * 4, rope=None)
    layer, x = built(config, dtype=torch.float32), 40 * torch.ones(1, 3000, WIDTH)
    expected = layer.new_cache(1, 3000)
    layer(x, positions(3000), expected)
    layer = layer.to(dtype)
    cache = layer.new_cache(1, 3000)
    y = layer(x.to(dtype), positions(3000), cache)
    assert y.isfinite().all()
    close(cache["sum"], expected["sum"], 0.03)


# --- what stops it -----------------------------------------------------------------------------
def with_cache_of(config, batch_size=2):
    layer = built(RetentionConfig())
    return layer(random(2, 3, WIDTH), positions(3), built(config).new_cache(batch_size, 8))


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (lambda: RetentionConfig(n_heads=0), "n_heads must be at least 1; got 0"),
        (lambda: RetentionConfig(value_width=0), "value_width must be at least 1; got 0"),
        (lambda: RetentionConfig(chunk_tokens=0), "chunk_tokens must be at least 1; got 0"),
        (lambda: RetentionConfig(norm_epsilon=0.0), "norm_epsilon must be a finite number above"),
        (lambda: RetentionConfig(decays=(0.5,)), "one γ a head, 4 here"),
        (lambda: RetentionConfig(n_heads=1, decays=(0.0,)), "above 0 and at most 1"),
        (lambda: RetentionConfig(n_heads=1, decays=(1.5,)), "got (1.5,)"),
        (lambda: RetentionConfig(n_heads=3).build(16), "got d_model=16 and n_heads=3"),
        (lambda: RetentionConfig().build(12), "d_head must be even and at least 2; got 3"),
        (lambda: with_cache_of(LinearAttentionConfig()), "got one of LinearAttention"),
        (lambda: with_cache_of(AttentionConfig()), "got one of KVCache"),
        (lambda: with_cache_of(RetentionConfig(), batch_size=3), "is for 3 rows; got tokens of 2"),
        (
            lambda: built(RetentionConfig())(
                random(1, 4, WIDTH),
                replace(positions(4), mask=window(torch.arange(4), torch.arange(4), 2)),
            ),
            "causal & padding only",
        ),
        (
            lambda: built(RetentionConfig())(random(1, 33, WIDTH), positions(33)),
            "prepared for 32 of them; got 33 tokens",
        ),
    ],
)
def test_bad_input_is_named(call, words):
    with pytest.raises(ValueError) as error:
        call()
    assert words in str(error.value)
