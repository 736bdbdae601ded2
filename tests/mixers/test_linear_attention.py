from dataclasses import replace

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from minillm.mixers.feature_maps import EluFeatures, FavorFeatures
from minillm.mixers.linear_attention import (
    LinearAttentionConfig,
    attend_linear,
    outer_chunked,
    outer_parallel,
    outer_recurrent,
)
from minillm.model.attention import AttentionConfig, Context
from minillm.model.config import TransformerConfig
from minillm.model.masks import causal, padding, window
from minillm.model.rope import RopeConfig
from minillm.serve.sample import SampleConfig, generate

WIDTH = 16
FORMS = {"parallel": outer_parallel, "recurrent": outer_recurrent, "chunked": outer_chunked}
BY_EVERY_FORM = pytest.mark.parametrize("form", FORMS.values(), ids=FORMS)
VARIANTS = {
    "elu": LinearAttentionConfig(),
    "favor": LinearAttentionConfig(features=FavorFeatures(12), d_head=6),
    "short": LinearAttentionConfig(n_heads=8, chunk_tokens=4),
    "rotated": LinearAttentionConfig(rope=RopeConfig(), chunk_tokens=3),
}


def random(*shape, seed=0, dtype=torch.float64):
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=dtype)


def qkv(n_tokens=7, batch_size=2, n_heads=3, n_features=5, d_model=4, seed=0, dtype=torch.float64):
    q, k = random(2, batch_size, n_heads, n_tokens, n_features, seed=seed, dtype=dtype)
    return q, k, random(batch_size, n_heads, n_tokens, d_model, seed=seed + 1, dtype=dtype)


def one_head(*numbers):
    return torch.tensor(numbers).reshape(1, 1, len(numbers), 1)


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


# --- by hand -----------------------------------------------------------------------------------
@BY_EVERY_FORM
def test_two_tokens_by_hand(form):
    # S: 0·½ + 3·10 = 30, then 30/2 + 5·100 = 515; y: 2·30, 4·515
    y, state = form(
        one_head(2.0, 4.0), one_head(3.0, 5.0), one_head(10.0, 100.0), torch.tensor([0.5])
    )
    assert y.flatten().tolist() == [60, 2060]
    assert state.flatten().tolist() == [515]


@BY_EVERY_FORM
def test_a_first_state_fades_before_the_first_token_is_added(form):
    before = torch.tensor([[[[8.0]]]])
    y, state = form(
        one_head(1.0, 1.0), one_head(1.0, 1.0), one_head(2.0, 0.0), torch.tensor([0.5]), before
    )
    assert y.flatten().tolist() == [6, 3]  # 8/2 + 2, then 6/2
    assert state.flatten().tolist() == [3]
    y, _ = form(one_head(1.0), one_head(1.0), one_head(2.0), None, before)  # no decay
    assert y.item() == 10


@BY_EVERY_FORM
def test_a_filler_writes_nothing_and_lets_nothing_fade(form):
    is_token = torch.tensor([[True, False, True]])
    y, state = form(
        one_head(1.0, 1.0, 1.0),
        one_head(1.0, 7.0, 1.0),
        one_head(8.0, 9.0, 1.0),
        torch.tensor([0.5]),
        None,
        is_token,
    )
    assert y.flatten().tolist()[::2] == [8, 5]
    assert state.item() == 5


def test_a_mean_weighted_by_three_and_one():
    # (3·4 + 1·8) / (3 + 1); whatever factor the query has cancels
    y, state = attend_linear(one_head(1.0, 100.0), one_head(3.0, 1.0), one_head(4.0, 8.0))
    assert y.flatten().tolist() == [4, 5]
    assert state.flatten().tolist() == [20, 4]


# --- twin --------------------------------------------------------------------------------------
@given(
    n_tokens=st.integers(1, 20),
    chunk=st.integers(1, 24),
    faded=st.booleans(),
    begun=st.booleans(),
    filled=st.booleans(),
    seed=st.integers(0, 99),
)
@settings(max_examples=60, deadline=None)
def test_three_forms_are_one_function(n_tokens, chunk, faded, begun, filled, seed):
    q, k, v = qkv(n_tokens, seed=seed)
    decay = torch.tensor([1.0, 0.9, 0.01]).double() if faded else None
    state = random(2, 3, 5, 4, seed=seed + 2) if begun else None
    is_token = random(2, n_tokens, seed=seed) > -0.5 if filled else None
    expected = outer_parallel(q, k, v, decay, state, is_token)
    for given_ in (
        outer_recurrent(q, k, v, decay, state, is_token),
        outer_chunked(q, k, v, decay, state, is_token, chunk),
    ):
        for a, b in zip(given_, expected, strict=True):
            torch.testing.assert_close(a, b, rtol=0, atol=1e-12 * (1 + b.abs().max().item()))


@pytest.mark.parametrize("chunk", [1, 7, 32, 97, 100])
@pytest.mark.parametrize("smallest", [1e-6, 0.5])
def test_strong_fading_over_long_chunks_stays_exact_in_float32(chunk, smallest):
    q, k, v = qkv(97, dtype=torch.float32)
    decay = torch.tensor([smallest, 0.9, 1.0])
    expected = outer_recurrent(q, k, v, decay)
    for form in (outer_parallel(q, k, v, decay), outer_chunked(q, k, v, decay, chunk_tokens=chunk)):
        for a, b in zip(form, expected, strict=True):
            close(a, b, 1e-5)


def test_gradients_are_those_of_the_recurrence():
    gradients = []
    for form in FORMS.values():
        inputs = [*qkv(9), torch.tensor([1.0, 0.9, 0.3]).double(), random(2, 3, 5, 4, seed=5)]
        inputs = [x.clone().requires_grad_() for x in inputs]
        options = {"chunk_tokens": 4} if form is outer_chunked else {}
        y, state = form(*inputs, torch.tensor([[True] * 9, [False] * 3 + [True] * 6]), **options)
        (y.square().sum() + state.sin().sum()).backward()
        gradients.append([x.grad for x in inputs])
    for others in gradients[1:]:
        for given_, expected in zip(others, gradients[0], strict=True):
            close(given_, expected, 1e-10)


@pytest.mark.parametrize("name", VARIANTS)
def test_a_layer_trains_as_the_explicit_weights_would(name):
    config, x = VARIANTS[name], random(2, 9, WIDTH)
    gradients = []
    for explicit in (True, False):
        layer = built(config)
        if explicit:
            q, k, v = layer.project(x, torch.arange(9))
            weights = (q @ k.mT).tril()
            found = weights / weights.sum(dim=-1, keepdim=True) @ v
            y = layer.output(found.transpose(1, 2).flatten(2))
        else:
            y = layer(x, positions(9))
        y.sin().sum().backward()
        gradients.append([y.detach(), *(p.grad for p in layer.parameters())])
    for given_, expected in zip(*gradients, strict=True):
        close(given_, expected, 1e-9)


@pytest.mark.parametrize("name", VARIANTS)
@given(cuts=st.lists(st.integers(1, 5), min_size=1, max_size=6))
@settings(max_examples=6, deadline=None)
def test_piece_by_piece_is_the_whole(name, cuts):
    model, n_tokens = model_of(VARIANTS[name]), sum(cuts)
    tokens = torch.randint(40, (2, n_tokens), generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        whole, cache = model(tokens), model.new_cache(2)
        parts = [model(piece, cache=cache) for piece in tokens.split(cuts, dim=1)]
    close(torch.cat(parts, dim=1), whole, 1e-5)


@pytest.mark.parametrize("name", VARIANTS)
def test_prompts_of_different_lengths_are_written_on_as_each_alone(name):
    model, greedy = model_of(VARIANTS[name]), SampleConfig(temperature=0)
    prompts = [[3, 1, 4, 1, 5, 9, 2], [6], [5, 3, 5]]
    together = generate(model, prompts, greedy, n_tokens=8)
    alone = [generate(model, [prompt], greedy, n_tokens=8)[0] for prompt in prompts]
    assert together == alone
    assert len({tuple(row) for row in alone}) > 1


@pytest.mark.parametrize("name", VARIANTS)
def test_fillers_anywhere_leave_all_else_as_it_is_and_spoil_no_gradient(name):
    layer, x = built(VARIANTS[name]), random(1, 4, WIDTH)
    is_token = torch.tensor([[False, True, True, False, True, True, False]])
    filled = random(1, 7, WIDTH, seed=3).requires_grad_()
    row = filled.detach().clone()
    row[is_token] = x[0]
    row.requires_grad_()
    keys = torch.arange(7)
    context = Context(
        positions=torch.tensor([[0, 0, 1, 0, 2, 3, 0]]),
        mask=causal(keys, keys) & padding(is_token),
    )
    cache = layer.new_cache(1, 32)
    y = layer(row, context, cache)
    alone = layer.new_cache(1, 32)
    close(y[is_token], layer(x, positions(4), alone)[0])
    close(cache["sum"], alone["sum"])
    y.sum().backward()
    assert row.grad.isfinite().all()
    assert (y[0, 0] == 0).all()  # it sees nothing


# --- reference ---------------------------------------------------------------------------------
def test_values_are_weighed_by_products_of_features_as_in_the_papers_first_form():
    q, k, v = (x.abs() for x in qkv())
    y, _ = attend_linear(q, k, v, chunk_tokens=3)
    for t in range(7):
        weights = [(q[..., t, :] * k[..., s, :]).sum(dim=-1, keepdim=True) for s in range(t + 1)]
        mean = sum(w * v[..., s, :] for s, w in enumerate(weights)) / sum(weights)
        close(y[..., t, :], mean)


def test_with_many_random_features_the_layer_is_attention():
    attention, x = built(AttentionConfig()), 0.4 * random(2, 8, WIDTH)
    expected = attention(x, positions(8))
    misses = []
    for features in (FavorFeatures(4096), EluFeatures()):
        layer = built(LinearAttentionConfig(features=features, rope=RopeConfig()))
        layer.qkv.load_state_dict(attention.qkv.state_dict())
        layer.output.load_state_dict(attention.output.state_dict())
        misses.append((layer(x, positions(8)) - expected).abs().max() / expected.abs().max())
    assert misses[0] < 0.02 < misses[1]  # others make another layer of the same weights


# --- law ---------------------------------------------------------------------------------------
@pytest.mark.parametrize("name", VARIANTS)
@given(place=st.integers(0, 8))
@settings(max_examples=5, deadline=None)
def test_a_changed_token_is_noticed_by_itself_and_all_later_ones(name, place):
    layer, x = built(VARIANTS[name]), random(1, 9, WIDTH)
    changed = x.clone()
    changed[0, place] += 1
    difference = (layer(x, positions(9)) - layer(changed, positions(9))).abs().amax(dim=-1)[0]
    assert (difference[:place] == 0).all()
    assert (difference[place:] > 1e-9).all()


@pytest.mark.parametrize("name", VARIANTS)
def test_the_state_is_as_large_as_counted_after_any_number_of_tokens(name):
    layer = built(VARIANTS[name])
    cache = layer.new_cache(3, 32)
    H, N, K = layer.n_heads, layer.features.n_features, layer.d_head
    for n_new in (0, 1, 5, 20):
        if n_new:
            layer(random(3, n_new, WIDTH), positions(n_new, cache.n_tokens), cache)
        assert cache.n_bytes == layer.state_bytes(3) == 3 * H * N * (K + 1) * 8
    assert cache.n_tokens == 26


def test_rotations_grow_with_the_cache_that_is_asked_for():
    layer = built(VARIANTS["rotated"])
    before = layer.rotations.table
    layer.reserve(32)
    assert layer.rotations.table is before
    layer.new_cache(1, max_length=50)
    assert len(layer.rotations.table) == 50
    assert torch.equal(layer.rotations.table[:32], before)


@pytest.mark.parametrize("name", VARIANTS)
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_a_layer_lives_where_and_as_it_was_built(name, dtype):
    layer = VARIANTS[name].build(WIDTH, device="meta", dtype=dtype)
    cache = layer.new_cache(2, 8)
    context = Context(positions=torch.empty(2, 3, device="meta", dtype=torch.int64))
    y = layer(torch.empty(2, 3, WIDTH, device="meta", dtype=dtype), context, cache)
    for tensor in (y, *layer.parameters(), *layer.buffers()):
        assert (tensor.dtype, tensor.device.type) == (dtype, "meta")
    assert (cache["sum"].dtype, cache["sum"].device.type) == (torch.float32, "meta")
    assert cache.n_bytes == layer.state_bytes(2)


@BY_EVERY_FORM
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_a_sum_in_16_bits_goes_on_where_a_number_of_16_bits_would_stop(form, dtype):
    ones = torch.ones(1, 1, 3000, 1, dtype=dtype)  # 256 + 1 is 256 in bfloat16, 2048 in float16
    y, state = form(ones, ones, ones)
    assert (state.item(), state.dtype) == (3000, torch.float32)
    assert (y[0, 0, -1].item(), y.dtype) == (torch.tensor(3000.0).to(dtype).item(), dtype)


@pytest.mark.parametrize("n_tokens", [1, 3])
def test_a_mean_of_large_numbers_in_16_bits_is_still_a_mean(n_tokens):
    large = torch.full((1, 1, n_tokens, 1), 300.0, dtype=torch.float16)  # 300 · 300 is beyond it
    y, state = attend_linear(large, large, large)
    assert y.flatten().tolist() == [300] * n_tokens
    assert state.flatten().tolist() == [90_000 * n_tokens, 300 * n_tokens]


# --- what stops it -----------------------------------------------------------------------------
def with_cache_of(config):
    layer = built(LinearAttentionConfig())
    return layer(random(2, 3, WIDTH), positions(3), built(config).new_cache(2, 8))


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (lambda: LinearAttentionConfig(n_heads=0), "n_heads must be at least 1; got 0"),
        (lambda: LinearAttentionConfig(d_head=0), "d_head must be at least 1; got 0"),
        (lambda: LinearAttentionConfig(chunk_tokens=0), "chunk_tokens must be at least 1"),
        (lambda: outer_chunked(*qkv(), chunk_tokens=0), "chunk_tokens must be at least 1"),
        (lambda: LinearAttentionConfig(n_heads=3).build(16), "got d_model=16 and n_heads=3"),
        (lambda: LinearAttentionConfig().build(0), "d_model must be at least 1"),
        (lambda: with_cache_of(AttentionConfig()), "LinearAttention needs a cache from its own"),
        (
            lambda: built(LinearAttentionConfig())(
                random(3, 2, WIDTH), positions(2), built(LinearAttentionConfig()).new_cache(2, 8)
            ),
            "is for 2 rows; got tokens of 3",
        ),
        (
            lambda: built(LinearAttentionConfig())(
                random(1, 4, WIDTH),
                replace(positions(4), mask=window(torch.arange(4), torch.arange(4), 2)),
            ),
            "causal & padding only",
        ),
        (
            lambda: built(VARIANTS["rotated"])(random(1, 33, WIDTH), positions(33)),
            "prepared for 32 of them; got 33 tokens",
        ),
    ],
)
def test_bad_input_is_named(call, words):
    with pytest.raises(ValueError) as error:
        call()
    assert words in str(error.value)
