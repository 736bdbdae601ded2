from functools import partial

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from minillm.mixers.mamba import MambaConfig
from minillm.model.attention import AttentionConfig
from minillm.model.cache import KVCache
from minillm.model.config import TransformerConfig
from minillm.quant import rtn, store
from minillm.quant.kv import KVGrid, QuantizedKVCache, new_cache, pack, unpack
from minillm.serve.sample import SampleConfig, generate

GRIDS = {
    "8 bits": KVGrid(bits=8, group_size=4, undo_tokens=2),
    "4 bits": KVGrid(bits=4, group_size=4, undo_tokens=2),
    "2 bits, asymmetric": KVGrid(bits=2, group_size=4, undo_tokens=2, symmetric=False),
    "by token": KVGrid(bits=4, group_size=4, undo_tokens=2, keys_by="token"),
}
ALL_GRIDS = pytest.mark.parametrize("grid", GRIDS.values(), ids=GRIDS.keys())


def some(n_tokens, batch_size=2, seed=0):
    """Keys and values of so many tokens: two heads of 8 numbers, one channel large."""
    generator = torch.Generator().manual_seed(seed)
    x = torch.randn(2, batch_size, 2, n_tokens, 8, generator=generator)
    return (x * torch.tensor([1.0, 1, 1, 30, 1, 1, 1, 1])).unbind()


def small(grid=GRIDS["4 bits"], max_length=40, batch_size=2):
    return QuantizedKVCache(batch_size, 2, max_length, 8, grid)


def same(pair, other):
    return all(torch.equal(x, y) for x, y in zip(pair, other, strict=True))


# --- by hand -----------------------------------------------------------------------------------
def test_two_codes_of_4_bits_stand_in_a_byte_and_four_of_2_bits():
    assert pack(torch.tensor([[1, 2], [15, 8]], dtype=torch.uint8), 4).tolist() == [[33], [143]]
    assert pack(torch.tensor([1, 2, 3, 0], dtype=torch.uint8), 2).tolist() == [1 + 8 + 48]


def test_keys_share_a_scale_by_channel_values_by_token_and_no_group_is_begun_early():
    cache = QuantizedKVCache(1, 1, 8, 2, KVGrid(bits=4, group_size=2))
    k = torch.tensor([[70.0, 0.7], [24.0, 0.32], [9.0, 0.41]]).reshape(1, 1, 3, 2)
    keys, values = cache.append(k[:, :, :1], k[:, :, :1])
    assert torch.equal(keys, k[:, :, :1])  # half a group
    keys, values = cache.append(k[:, :, 1:], k[:, :, 1:])
    expected = torch.tensor([[70.0, 0.7], [20.0, 0.3], [9.0, 0.41]])  # scales 10 and 0.1
    assert torch.allclose(keys[0, 0], expected, rtol=1e-3)
    assert torch.allclose(values[0, 0, :, 0], k[0, 0, :, 0], rtol=1e-3)
    assert not values[0, 0, :, 1].any()  # 0.7 is nothing where 70 is 7 scales


def test_bytes_are_those_of_codes_scales_and_floats():
    cache = QuantizedKVCache(3, 4, 128, 32, KVGrid(bits=8))  # groups of 32
    n_rows = 3 * 4
    assert cache.values.n_bytes == n_rows * 128 * (32 + 2)
    assert cache.keys.n_bytes == n_rows * 4 * 32 * (32 + 2)
    assert cache.residual.nbytes == n_rows * (31 + 8) * 32 * 4
    in_16_bits = KVCache(3, 4, 128, 32, torch.float16).n_bytes
    assert (cache.keys.n_bytes + cache.values.n_bytes) / in_16_bits == 0.53125
    in_4_bits = QuantizedKVCache(3, 4, 128, 32, KVGrid(bits=4))
    assert (in_4_bits.n_bytes - in_4_bits.residual.nbytes) / in_16_bits == 0.28125
    zeros = QuantizedKVCache(3, 4, 128, 32, KVGrid(symmetric=False)).n_bytes - cache.n_bytes
    assert zeros == n_rows * 2 * 128 * 2


# --- twin --------------------------------------------------------------------------------------
@ALL_GRIDS
def test_a_group_is_what_rtn_makes_of_it(grid):
    k, v = some(8)
    keys, values = small(grid).append(k, v)
    blocks = k.unflatten(2, (-1, 4))  # B G n s K
    by_channel = grid.keys_by == "channel"
    blocks = blocks.transpose(-1, -2) if by_channel else blocks
    rounded = {}
    for name, x in (("keys", blocks), ("values", v)):
        scale, zero = rtn.scale_of(x, grid.bits, grid.symmetric)
        rounded[name] = rtn.decode(rtn.encode(x, scale, zero, grid.bits), scale, zero)
        reach = 0.51 if grid.symmetric else 1.01  # a zero point is rounded, too
        assert ((rounded[name] - x).abs() <= reach * scale[..., None]).all()
    again = rounded["keys"].transpose(-1, -2) if by_channel else rounded["keys"]
    assert torch.equal(keys, again.flatten(2, 3))
    assert torch.equal(values, rounded["values"])


@given(st.sampled_from([8, 4, 2]), st.integers(1, 3), st.integers(0, 99))
def test_codes_are_packed_as_in_a_folder(bits, n_blocks, seed):
    generator = torch.Generator().manual_seed(seed)
    codes = torch.randint(2**bits, (n_blocks, 8), dtype=torch.uint8, generator=generator)
    packed = pack(codes, bits)
    assert torch.equal(packed.flatten(), store.pack(codes, bits))
    assert torch.equal(unpack(packed, bits), codes)


@ALL_GRIDS
def test_rows_are_kept_in_the_order_asked_for(grid):
    cache, other = small(grid, batch_size=3), small(grid)
    k, v = some(11, batch_size=3)
    cache.append(k, v)
    cache.keep([2, 0])
    other.append(k[[2, 0]], v[[2, 0]])
    more = some(3, seed=1)
    assert same(cache.append(*more), other.append(*more))
    assert cache.n_bytes == other.n_bytes


# --- law ---------------------------------------------------------------------------------------
steps = st.lists(
    st.one_of(
        st.tuples(st.just("append"), st.integers(0, 9)),
        st.tuples(st.just("undo"), st.integers(0, 2)),
        st.tuples(st.just("reset"), st.none()),
    ),
    max_size=8,
)


@given(st.sampled_from(list(GRIDS.values())), steps)
@settings(max_examples=50, deadline=None)
def test_what_is_read_depends_on_the_tokens_alone(grid, steps):
    cache, plain, most = small(grid, max_length=80), some(0), 0
    for seed, (name, n) in enumerate(steps):
        if name == "append":
            more = some(n, seed=seed)
            plain = [torch.cat(pair, dim=2) for pair in zip(plain, more, strict=True)]
            assert same(cache.append(*more), small(grid, max_length=80).append(*plain))
            most = max(most, cache.n_tokens)
        elif name == "undo":  # as many as undo_tokens, in one cut or in several
            cache.truncate(min(cache.n_tokens, max(0, most - n)))
        else:
            cache.reset()
            most = 0
        plain = [x[:, :, : cache.n_tokens] for x in plain]


@pytest.mark.parametrize("n_undone", [1, 2])
def test_a_guess_that_filled_a_group_is_taken_back(n_undone):
    cache, other = small(), small()
    (k, v), more = some(8), some(1, seed=1)
    cache.append(k, v)
    cache.truncate(8 - n_undone)
    other.append(*(x[:, :, : 8 - n_undone] for x in (k, v)))
    assert same(cache.append(*more), other.append(*more))


@ALL_GRIDS
def test_cut_to_whole_groups_it_is_as_if_the_rest_had_never_come(grid):
    cache = small(grid)
    k, v = some(21)
    cache.append(k, v)
    cache.truncate(8)
    other = small(grid)
    other.append(k[:, :, :8], v[:, :, :8])
    more = some(6, seed=1)
    assert same(cache.append(*more), other.append(*more))


def test_a_deeper_cut_goes_on_with_what_the_codes_stood_for():
    cache = small()
    k, v = some(20)
    before, _ = cache.append(k, v)
    cache.truncate(9)
    keys, values = cache.append(k[:, :, 9:10], v[:, :, 9:10])
    assert torch.equal(keys[:, :, :9], before[:, :, :9])  # token 8 had been of a group
    assert torch.equal(keys[:, :, 9:], k[:, :, 9:10])
    assert same([values], [small().append(k, v)[1][:, :, :10]])


# --- in a model --------------------------------------------------------------------------------
@pytest.mark.parametrize("window_tokens", [None, 5])
def test_a_model_writes_with_it_and_in_8_bits_hardly_otherwise(window_tokens):
    mixer = AttentionConfig(n_heads=4, n_kv_heads=2, window_tokens=window_tokens)
    config = TransformerConfig(
        vocab_size=50, context_length=32, d_model=32, n_layers=2, mixer=mixer
    )
    model, greedy = config.build(seed=0), SampleConfig(temperature=0)
    make = partial(new_cache, model, grid=KVGrid(group_size=4))
    prompts = [[7, 3, 9, 4, 4, 1], [5]]
    rows = generate(model, prompts, greedy, n_tokens=12, new_cache=make)
    assert rows[0] == generate(model, prompts[:1], greedy, n_tokens=12, new_cache=make)[0]
    tokens = torch.tensor([prompts[0] + rows[0]])
    with torch.no_grad():
        cache, whole = make(1, 32), model(tokens)
        parts = [model(tokens[:, n : n + 1], cache=cache) for n in range(tokens.shape[1])]
    error = (torch.cat(parts, dim=1) - whole).abs().max()
    assert 0 < error < 0.02 * whole.abs().max()


def test_other_mixers_keep_what_they_keep():
    config = TransformerConfig(
        vocab_size=50, d_model=32, n_layers=2, mixer=(MambaConfig(), AttentionConfig(n_heads=2))
    )
    state, codes = new_cache(config.build(), 1, 8)
    assert type(state).__name__ == "State"
    assert isinstance(codes, QuantizedKVCache) and codes.shape == (1, 2, 8, 16)


# --- bad input ---------------------------------------------------------------------------------
@pytest.mark.parametrize(
    ("call", "words"),
    [
        (lambda: KVGrid(bits=3), "bits must be 8, 4 or 2"),
        (lambda: KVGrid(bits=4, group_size=5), "a multiple of 2 at 4 bits; got 5"),
        (lambda: KVGrid(undo_tokens=-1), "undo_tokens must be at least 0; got -1"),
        (lambda: QuantizedKVCache(1, 1, 8, 6, KVGrid(bits=2)), "d_head must be at least 1 and"),
        (lambda: small(max_length=4).append(*some(5)), "keeps 0; 5 more do not fit"),
        (lambda: small().append(*some(1, batch_size=3)), "keeps [2 rows, 2 heads, tokens, 8]"),
        (
            lambda: new_cache(
                TransformerConfig(vocab_size=9, d_model=8, n_layers=1, mixer=MambaConfig()).build(),
                1,
            ),
            "no mixer of this model keeps keys and values that could be quantized: Mamba",
        ),
    ],
)
def test_bad_input_is_named(call, words):
    with pytest.raises(ValueError) as error:
        call()
    assert words in str(error.value)


def test_nan_stays_nan():
    k, v = some(4, batch_size=1)
    k[0, 0, 1, 2] = torch.nan
    keys, _ = small(batch_size=1).append(k, v)
    assert keys[0, 0, :, 2].isnan().all() and keys.isnan().sum() == 4
