import math
from dataclasses import replace

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from minillm.measure.memory_meter import Meter
from minillm.mixers.patterns import Global, Hierarchical, Random, Sinks, Strided, Window, any_of
from minillm.mixers.recurrent_state import State
from minillm.mixers.sparse import (
    SparseAttentionConfig,
    attend_blocks,
    block_layout,
    n_multiplied,
)
from minillm.model.attention import AttentionConfig, Context, attend
from minillm.model.cache import KVCache
from minillm.model.config import TransformerConfig
from minillm.model.masks import causal, document, padding
from minillm.serve.sample import SampleConfig, generate

PATTERNS = (
    Window(n_tokens=3),
    Sinks(n_tokens=1),
    Random(n_blocks=1, block_tokens=2, seed=3),
    Global(every=7),
)
CONFIG = SparseAttentionConfig(
    attention=AttentionConfig(n_heads=4, n_kv_heads=2), patterns=PATTERNS, block_tokens=4
)


def random(*shape, seed=0, dtype=torch.float64):
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=dtype)


def qkv(n_queries, n_keys, seed=0):
    q = random(2, 4, n_queries, 3, seed=seed)
    k, v = random(2, 2, 2, n_keys, 3, seed=seed + 1)
    return q, k, v


def mask_of(*patterns):
    return lambda queries, keys: any_of(patterns, queries, keys) & causal(queries, keys)


def built(config=CONFIG, seed=0, dtype=torch.float64):
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        return config.build(16, context_length=64, dtype=dtype)


def indices(n_tokens, mask=None):
    return Context(positions=torch.arange(n_tokens), mask=mask)


def close(given, expected, tolerance=1e-12):
    torch.testing.assert_close(
        given, expected, rtol=0, atol=tolerance * max(1.0, expected.abs().max().item())
    )


# --- by hand -----------------------------------------------------------------------------------
def test_a_window_of_two_in_blocks_of_three_needs_the_diagonal_and_what_is_left_of_it():
    layout = block_layout(Window(n_tokens=2).mask, 8, 8, block_tokens=3)
    assert layout.int().tolist() == [[1, 0, 0], [1, 1, 0], [0, 1, 1]]
    # 3·3, 3·3 + 3·3, and of the last two queries 2·3 + 2·2
    assert n_multiplied(layout, 8, 8, block_tokens=3) == 9 + 18 + 10


def test_queries_are_the_last_of_the_keys():
    layout = block_layout(mask_of(Window(n_tokens=2)), 2, 7, block_tokens=3)
    assert layout.int().tolist() == [[0, 1, 1]]  # places 5 and 6 see 4, 5 and 6
    assert n_multiplied(layout, 2, 7, block_tokens=3) == 2 * 3 + 2 * 1


def test_a_query_takes_the_mean_of_the_values_its_pattern_allows():
    q, k = torch.zeros(2, 1, 1, 6, 1)
    v = torch.tensor([1.0, 2, 4, 8, 16, 32]).reshape(1, 1, 6, 1)
    found = attend_blocks(q, k, v, mask_of(Window(n_tokens=2), Sinks(n_tokens=1)), 2)
    expected = [1, 3 / 2, 7 / 3, 13 / 3, 25 / 3, 49 / 3]
    assert found.flatten().tolist() == pytest.approx(expected)


def test_who_sees_nobody_takes_zeros():
    q, k, v = qkv(7, 7)
    found = attend_blocks(q, k, v, lambda a, b: (a[:, None] > 3) & (b < 2), 2)
    assert (found[:, :, :4] == 0).all() and (found[:, :, 4:] != 0).all()


def test_parameters_and_cache_are_those_of_attention():
    layer, plain = built(), CONFIG.attention.build(16)
    names = {name.removeprefix("attention."): p.shape for name, p in layer.named_parameters()}
    assert names == {name: p.shape for name, p in plain.named_parameters()}
    cache = layer.new_cache(3, 10)
    assert isinstance(cache, KVCache)
    assert cache.n_bytes == 2 * 3 * 2 * 10 * 4 * 8  # k and v, B, G, tokens, K, float64


# --- twin --------------------------------------------------------------------------------------
@pytest.mark.parametrize("block_tokens", [1, 4, 5, 64])
@pytest.mark.parametrize(("n_queries", "n_keys"), [(1, 1), (13, 13), (6, 13), (16, 16)])
def test_blocks_give_the_values_and_gradients_of_the_mask(n_queries, n_keys, block_tokens):
    keys = torch.arange(n_keys)
    queries = keys[n_keys - n_queries :]
    results = []
    for way in ("mask", "blocks"):
        inputs = [x.requires_grad_() for x in qkv(n_queries, n_keys)]
        if way == "mask":
            found = attend(*inputs, mask_of(*PATTERNS)(queries, keys)).values
        else:
            found = attend_blocks(*inputs, mask_of(*PATTERNS), block_tokens)
        found.backward(random(*found.shape, seed=5))
        results.append([found.detach(), *(x.grad for x in inputs)])
    for naive, fast in zip(*results, strict=True):
        close(fast, naive)


@pytest.mark.parametrize("n_tokens", [5, 12, 13, 30])
def test_a_layer_by_blocks_is_the_layer_by_mask_with_its_gradients(n_tokens):
    results = []
    for block_tokens in (4, 1000):  # 1000: never more than three blocks, so by mask
        layer = built(replace(CONFIG, block_tokens=block_tokens))
        x = random(2, n_tokens, 16).requires_grad_()
        y = layer(x, indices(n_tokens))
        y.backward(random(*y.shape, seed=5))
        results.append([y.detach(), x.grad, *(p.grad for p in layer.parameters())])
    for fast, naive in zip(*results, strict=True):
        close(fast, naive)


@pytest.mark.parametrize("cuts", [[1] * 30, [7, 1, 15, 7], [29, 1], [30]])
def test_token_by_token_and_in_pieces_it_is_the_whole(cuts):
    layer, x = built(), random(2, 30, 16)
    with torch.no_grad():
        whole, cache, found, first = layer(x, indices(30)), layer.new_cache(2, 30), [], 0
        for piece in x.split(cuts, dim=1):
            end = first + piece.shape[1]
            found.append(layer(piece, Context(positions=torch.arange(first, end)), cache))
            first = end
    close(torch.cat(found, dim=1), whole)


def test_with_a_window_of_the_whole_text_it_is_attention():
    layer = built(replace(CONFIG, patterns=(Window(n_tokens=30),)))
    x = random(2, 30, 16)
    close(layer(x, indices(30)), layer.attention(x, indices(30)))


@pytest.mark.parametrize("block_tokens", [2, 64])
def test_a_window_as_a_pattern_is_the_window_of_attention(block_tokens):
    layer = built(
        replace(CONFIG, patterns=(Window(n_tokens=5),), block_tokens=block_tokens), seed=1
    )
    plain = replace(CONFIG.attention, window_tokens=5).build(16, dtype=torch.float64)
    plain.load_state_dict(layer.attention.state_dict())
    x = random(2, 30, 16)
    close(layer(x, indices(30)), plain(x, indices(30)))


# --- reference ---------------------------------------------------------------------------------
@pytest.mark.parametrize(
    "pattern", [*PATTERNS, Strided(stride=4), Hierarchical(fan=2)], ids=lambda p: type(p).__name__
)
def test_it_is_torchs_attention_with_the_mask(pattern):
    q, k, v = qkv(22, 22)
    keys = torch.arange(22)
    mask = mask_of(pattern, Window(n_tokens=1))
    expected = nn.functional.scaled_dot_product_attention(
        q, k.repeat_interleave(2, dim=1), v.repeat_interleave(2, dim=1), mask(keys, keys)
    )
    close(attend_blocks(q, k, v, mask, block_tokens=4), expected)


# --- law ---------------------------------------------------------------------------------------
@given(st.integers(1, 40), st.integers(1, 40), st.integers(1, 50), st.integers(0, 99))
@settings(max_examples=30, deadline=None)
def test_any_mask_length_and_block_gives_the_result_of_the_mask(n_queries, more, block, seed):
    n_keys = n_queries + more - 1
    table = torch.rand(n_keys, n_keys, generator=torch.Generator().manual_seed(seed)) < 0.1
    q, k, v = qkv(n_queries, n_keys, seed)
    expected = attend(q, k, v, table[n_keys - n_queries :]).values
    torch.testing.assert_close(attend_blocks(q, k, v, lambda a, b: table[a][:, b], block), expected)


def test_what_is_multiplied_grows_as_the_text_and_less_than_a_block_square_is_alive():
    multiplied, peaks, mask = [], [], mask_of(Window(n_tokens=16))
    for n_tokens in (128, 512):
        q, k, v = qkv(n_tokens, n_tokens)
        layout = block_layout(mask, n_tokens, n_tokens, 16)
        multiplied.append(n_multiplied(layout, n_tokens, n_tokens, 16))
        with Meter() as meter, torch.no_grad():
            attend_blocks(q, k, v, mask, 16, layout)
        peaks.append(meter.peak)
    assert multiplied == [(2 * n - 1) * 16 * 16 for n in (8, 32)]
    assert math.log(peaks[1] / peaks[0], 4) < 1.05  # as q, k and v do; scores would be 16 times
    assert peaks[1] < 512 * 512


def test_a_token_that_is_not_seen_changes_nothing():
    layer, x = built(), random(1, 30, 16)
    before = layer(x, indices(30))
    x[0, 9] += 1
    changed = (layer(x, indices(30)) != before).any(dim=-1)[0].nonzero().flatten().tolist()
    keys = torch.arange(30)
    assert changed == mask_of(*PATTERNS)(keys, keys)[:, 9].nonzero().flatten().tolist()


def test_a_row_that_is_filled_up_on_the_left_finds_what_it_finds_alone():
    layer, x = built(), random(2, 20, 16)
    n_padding = torch.tensor([[6], [0]])
    is_token = torch.arange(20) >= n_padding
    mask = causal(torch.arange(20), torch.arange(20)) & padding(is_token)
    positions = (torch.arange(20) - n_padding).clamp(min=0)
    together = layer(x, Context(positions=positions, mask=mask))
    close(together[0, 6:], layer(x[:1, 6:], indices(14))[0])
    close(together[1], layer(x[1:], indices(20))[0])


@pytest.mark.parametrize("own_positions", [True, False])
def test_a_mask_is_joined_with_the_pattern_by_blocks_too(own_positions):
    ids = torch.tensor([[0] * 9 + [1] * 11])
    mask = document(ids, ids) & causal(torch.arange(20), torch.arange(20))
    positions = torch.cat((torch.arange(9), torch.arange(11)))[None]
    layer, x = built(), random(1, 20, 16)
    if own_positions:
        y = layer(x, Context(positions=positions, mask=mask))
        close(y[:, 9:], layer(x[:, 9:], indices(11)))
    else:
        y = layer(x, indices(20, mask))
    close(y[:, :9], layer(x[:, :9], indices(9)))


def test_prompts_of_different_lengths_are_written_on_as_each_alone():
    model = TransformerConfig(vocab_size=50, d_model=16, n_layers=2, mixer=CONFIG, initial_std=0.3)
    model, greedy = model.build(seed=0), SampleConfig(temperature=0)
    prompts = [[7, 3, 9, 4, 4, 8, 1, 2, 3, 5, 9], [4], [1, 2, 3, 4, 5]]
    together = generate(model, prompts, greedy, n_tokens=20)
    assert together == [generate(model, [each], greedy, n_tokens=20)[0] for each in prompts]
    with torch.no_grad():
        tokens = torch.tensor([prompts[0] + together[0]])
        whole, cache = model(tokens), model.new_cache(1)
        pieces = [model(piece, cache=cache) for piece in tokens.split([3, 1, 27], dim=1)]
    close(torch.cat(pieces, dim=1), whole, 1e-5)


def test_device_and_dtype_are_arguments():
    layer = CONFIG.build(16, device="meta", dtype=torch.bfloat16)
    weight = layer.attention.output.weight
    assert (weight.device.type, weight.dtype) == ("meta", torch.bfloat16)


# --- what stops it -----------------------------------------------------------------------------
@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: SparseAttentionConfig(patterns=()), "at least one pattern"),
        (lambda: SparseAttentionConfig(patterns=(5,)), "a pattern is an object with mask"),
        (lambda: SparseAttentionConfig(block_tokens=0), "block_tokens must be at least 1; got 0"),
        (
            lambda: SparseAttentionConfig(attention=AttentionConfig(window_tokens=9)),
            r"put Window\(n_tokens=9\) among the patterns",
        ),
        (
            lambda: attend_blocks(*qkv(3, 3), mask_of(*PATTERNS), 0),
            "block_tokens must be at least 1; got 0",
        ),
        (lambda: attend_blocks(*qkv(4, 3), mask_of(*PATTERNS), 2), "got T = 4, S = 3"),
    ],
)
def test_what_cannot_be_done_is_refused(make, message):
    with pytest.raises(ValueError, match=message):
        make()


def test_a_cache_of_another_mixer_is_refused():
    model = TransformerConfig(vocab_size=50, d_model=16, n_layers=1, mixer=CONFIG).build()
    state = State("Mamba", {"sum": torch.zeros(1, 2)})
    with pytest.raises(ValueError, match=r"attention needs a KVCache.*got a state of Mamba"):
        model(torch.tensor([[1, 2]]), cache=[state])
