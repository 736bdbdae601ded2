import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from transformers.cache_utils import DynamicCache

from minillm.model.cache import KVCache
from minillm.model.count import gib, kv_cache_bytes


def some(n_tokens, batch_size=2, seed=0):
    """Keys and values of so many tokens: two heads, three numbers each."""
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(2, batch_size, 2, n_tokens, 3, generator=generator).unbind()


def small(max_length=8, batch_size=2):
    return KVCache(batch_size, n_kv_heads=2, max_length=max_length, d_head=3)


# --- by hand -----------------------------------------------------------------------------------
def test_what_was_appended_comes_back_in_order():
    cache = small(batch_size=1)
    k, v = some(3, batch_size=1)
    keys, values = cache.append(k[:, :, :2], v[:, :, :2])
    assert torch.equal(keys, k[:, :, :2]) and torch.equal(values, v[:, :, :2])
    keys, values = cache.append(k[:, :, 2:], v[:, :, 2:])
    assert torch.equal(keys, k) and torch.equal(values, v)
    assert cache.n_tokens == 3


def test_nothing_is_copied_and_nothing_moves():
    cache = small()
    k, v = some(3)
    first, _ = cache.append(k, v)
    second, _ = cache.append(k, v)
    assert first.data_ptr() == second.data_ptr() == cache.keys.data_ptr()
    assert torch.equal(first, k)


def test_gpt_3_would_keep_18_gib_for_one_conversation():
    layer = KVCache(1, 96, 4096, 128, dtype=torch.float16, device="meta")
    assert gib(96 * layer.n_bytes) == 18
    grouped = KVCache(1, 8, 4096, 128, dtype=torch.float16, device="meta")
    assert layer.n_bytes == 12 * grouped.n_bytes


def test_rows_are_kept_in_the_order_asked_for():
    cache = small(batch_size=3)
    k, v = some(2, batch_size=3)
    cache.append(k, v)
    cache.keep([2, 0, 2, 1])  # as a beam search does
    keys, values = cache.append(*some(1, batch_size=4, seed=1))
    assert torch.equal(keys[:, :, :2], k[[2, 0, 2, 1]])
    assert torch.equal(values[:, :, :2], v[[2, 0, 2, 1]])
    cache.keep(torch.tensor([3]))
    assert cache.n_bytes == small(batch_size=1).n_bytes
    assert torch.equal(cache.append(*some(1, batch_size=1))[0][:, :, :2], k[[1]])


def test_guesses_are_taken_back_and_written_over():
    cache = small()
    k, v = some(5)
    cache.append(k, v)
    cache.truncate(2)
    other = some(1, seed=1)
    keys, values = cache.append(*other)
    assert torch.equal(keys, torch.cat((k[:, :, :2], other[0]), dim=2))
    assert torch.equal(values, torch.cat((v[:, :, :2], other[1]), dim=2))
    cache.reset()
    assert cache.n_tokens == 0
    assert torch.equal(cache.append(*other)[0], other[0])


# --- twin --------------------------------------------------------------------------------------
steps = st.lists(
    st.one_of(
        st.tuples(st.just("append"), st.integers(0, 4)),
        st.tuples(st.just("truncate"), st.floats(0, 1)),
        st.tuples(st.just("keep"), st.lists(st.integers(0, 99), min_size=1, max_size=3)),
        st.tuples(st.just("reset"), st.none()),
    ),
    max_size=8,
)


@given(steps)
@settings(max_examples=100, deadline=None)
def test_it_is_concatenation_without_the_copies(steps):
    cache, plain = small(max_length=32), some(0)
    for seed, (name, argument) in enumerate(steps):
        if name == "append":
            more = some(argument, batch_size=len(plain[0]), seed=seed)
            plain = [torch.cat(pair, dim=2) for pair in zip(plain, more, strict=True)]
            for kept, expected in zip(cache.append(*more), plain, strict=True):
                assert torch.equal(kept, expected)
        elif name == "truncate":
            n_tokens = int(argument * plain[0].shape[2])
            cache.truncate(n_tokens)
            plain = [x[:, :, :n_tokens] for x in plain]
        elif name == "keep":
            rows = [row % len(plain[0]) for row in argument]
            cache.keep(rows)
            plain = [x[rows] for x in plain]
        else:
            cache.reset()
            plain = [x[:, :, :0] for x in plain]
        assert cache.n_tokens == plain[0].shape[2]


# --- reference ---------------------------------------------------------------------------------
def test_transformers_cache_gives_the_same_tensors():
    ours, theirs = small(), DynamicCache()
    for seed, n_tokens in enumerate([3, 1, 2]):
        k, v = some(n_tokens, seed=seed)
        expected = theirs.update(k, v, 0)
        for kept, theirs_now in zip(ours.append(k, v), expected, strict=True):
            assert torch.equal(kept, theirs_now)


# --- law ---------------------------------------------------------------------------------------
@given(
    st.integers(1, 4),
    st.integers(1, 4),
    st.integers(1, 20),
    st.integers(1, 8),
    st.sampled_from([torch.float32, torch.float16, torch.bfloat16, torch.float64]),
)
@settings(max_examples=50, deadline=None)
def test_its_bytes_are_the_formulas(batch_size, n_kv_heads, max_length, d_head, dtype):
    cache = KVCache(batch_size, n_kv_heads, max_length, d_head, dtype)
    assert cache.n_bytes == kv_cache_bytes(
        n_layers=1,
        n_kv_heads=n_kv_heads,
        d_head=d_head,
        n_tokens=max_length,
        n_sequences=batch_size,
        bytes_per_element=dtype.itemsize,
    )
    assert cache.n_bytes == sum(x.untyped_storage().nbytes() for x in (cache.keys, cache.values))


# --- bad input ---------------------------------------------------------------------------------
def full():
    cache = small(max_length=4)
    cache.append(*some(3))
    return cache


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (lambda: full().append(*some(2)), "keeps 3; 2 more do not fit"),
        (lambda: full().append(*some(2)), "max_length of at least 5"),
        (lambda: full().append(*some(1, batch_size=3)), "keeps [2 rows, 2 heads, tokens, 3]"),
        (lambda: full().append(*(x[:, :1] for x in some(1))), "got keys [2, 1, 1, 3]"),
        (lambda: full().append(*(x[..., :2] for x in some(1))), "got keys [2, 2, 1, 2]"),
        (lambda: full().truncate(4), "keeps 0 to 3 tokens, those there are; got 4"),
        (lambda: full().truncate(-1), "got -1"),
        (lambda: full().keep([]), "at least one row out of 0 to 1; got []"),
        (lambda: full().keep([0, 2]), "got [0, 2]"),
        (lambda: full().keep([-1]), "got [-1]"),
        (lambda: small(batch_size=0), "must be at least 1; got 0, 2, 8 and 3"),
        (lambda: small(max_length=0), "got 2, 2, 0 and 3"),
    ],
)
def test_bad_input_is_named(call, words):
    with pytest.raises(ValueError) as error:
        call()
    assert words in str(error.value)


def test_a_refused_append_changes_nothing():
    cache = full()
    before = cache.keys.clone()
    with pytest.raises(ValueError, match="do not fit"):
        cache.append(*some(2))
    assert cache.n_tokens == 3
    assert torch.equal(cache.keys[:, :, :3], before[:, :, :3])
