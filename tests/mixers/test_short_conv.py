import copy
from dataclasses import replace

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from minillm.mixers.recurrent_state import State
from minillm.mixers.short_conv import ShiftedConfig, convolve
from minillm.model.attention import AttentionConfig, Context
from minillm.model.cache import KVCache
from minillm.model.config import TransformerConfig
from minillm.model.masks import causal, document, padding, window
from minillm.serve.sample import SampleConfig, generate

WIDTH = 8
VARIANTS = {
    "attention": ShiftedConfig(mixer=AttentionConfig(n_heads=2)),
    "four tokens": ShiftedConfig(mixer=AttentionConfig(n_heads=2, rope=None), n_tokens=4),
    "window": ShiftedConfig(mixer=AttentionConfig(n_heads=2, window_tokens=3), n_tokens=3),
    "twice": ShiftedConfig(mixer=ShiftedConfig(mixer=AttentionConfig(n_heads=2)), n_tokens=3),
}
ALL_VARIANTS = pytest.mark.parametrize("config", VARIANTS.values(), ids=VARIANTS.keys())


def random(*shape, seed=0, dtype=torch.float64):
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=dtype)


def built(config, seed=0):
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        return config.build(WIDTH, context_length=32, dtype=torch.float64)


def indices(n_tokens, first=0):
    return Context(positions=torch.arange(first, first + n_tokens))


def language_model(config, n_layers=2):
    """With weights large enough to make a difference."""
    config = TransformerConfig(
        vocab_size=19, context_length=32, d_model=WIDTH, n_layers=n_layers, mixer=config
    )
    model = config.build(seed=0)
    with torch.no_grad():
        for seed, parameter in enumerate(model.parameters()):
            parameter.copy_(random(*parameter.shape, seed=seed) * 0.5 + (parameter.ndim == 1))
    return model


def close(given, expected, tolerance=1e-12):
    torch.testing.assert_close(
        given, expected, rtol=0, atol=tolerance * expected.abs().max().item()
    )


def read_in_pieces(layer, x, cuts, cache):
    """x read piece by piece, cut before these tokens."""
    found = []
    for first, end in zip([0, *cuts], [*cuts, x.shape[1]], strict=True):
        found.append(layer(x[:, first:end], indices(end - first, first), cache))
    return torch.cat(found, dim=1)


# --- by hand -----------------------------------------------------------------------------------
def test_each_token_is_added_up_with_the_two_before_it():
    x = torch.tensor([1.0, 2.0, 4.0, 8.0]).reshape(1, 4, 1)
    weight = torch.tensor([100.0, 10.0, 1.0]).reshape(3, 1)
    y, last = convolve(x, weight)
    # 0·100 + 0·10 + 1, 0·100 + 1·10 + 2, 1·100 + 2·10 + 4, 2·100 + 4·10 + 8
    assert y.flatten().tolist() == [1, 12, 124, 248]
    assert last.flatten().tolist() == [4, 8]
    y, last = convolve(torch.tensor([[[3.0]]]), weight, before=last)
    assert y.flatten().tolist() == [4 * 100 + 8 * 10 + 3]
    assert last.flatten().tolist() == [8, 3]


def test_each_number_has_weights_of_its_own_and_rows_do_not_meet():
    x = torch.tensor([[[1.0, 1.0], [1.0, 1.0]], [[2.0, 0.0], [0.0, 2.0]]])
    y, _ = convolve(x, torch.tensor([[1.0, 10.0], [100.0, 1000.0]]))
    assert y.tolist() == [[[100, 1000], [101, 1010]], [[200, 0], [2, 2000]]]


def test_of_a_long_text_only_the_last_tokens_stay_in_memory():
    _, last = convolve(random(1, 1000, 4), random(3, 4))
    assert last.untyped_storage().nbytes() == 2 * 4 * 8
    layer = built(VARIANTS["four tokens"])
    cache = layer.new_cache(1, 32)
    with torch.no_grad():
        layer(random(1, 20, WIDTH), indices(20), cache)
    assert cache.shift["last"].untyped_storage().nbytes() == cache.shift.n_bytes


@ALL_VARIANTS
def test_bytes_are_those_of_the_last_tokens_and_of_the_cache_behind(config):
    layer = built(config)
    cache, behind = layer.new_cache(3, 16), built(config.mixer).new_cache(3, 16)
    n_bytes = 3 * (config.n_tokens - 1) * WIDTH * 8 + behind.n_bytes
    assert cache.n_bytes == n_bytes
    with torch.no_grad():
        layer(random(3, 9, WIDTH), indices(9), cache)
    assert (cache.n_bytes, cache.n_tokens) == (n_bytes, 9)


def test_parameters_are_one_number_a_place_and_number_more_than_the_mixers():
    config = VARIANTS["four tokens"]
    n_parameters = [
        sum(p.numel() for p in c.build(WIDTH).parameters()) for c in (config, config.mixer)
    ]
    assert n_parameters[0] == n_parameters[1] + 4 * WIDTH
    weight = built(ShiftedConfig(mixer=config.mixer, n_tokens=4)).weight
    assert 0.3 < weight.abs().max() <= 0.5  # torch's bound for one channel of four: 1/√4
    assert (weight < 0).any() and (weight > 0).any()


def test_a_seed_decides_the_first_weights_and_the_models_std_does_not():
    config = TransformerConfig(vocab_size=9, d_model=WIDTH, n_layers=2, mixer=VARIANTS["attention"])
    weight, again = (config.build(seed=0).blocks[0].mixer.weight for _ in range(2))
    assert torch.equal(weight, again)
    other = replace(config, initial_std=1e-9).build(seed=0).blocks[0].mixer
    assert torch.equal(weight, other.weight) and other.mixer.output.weight.abs().max() < 1e-8
    assert not torch.equal(weight, config.build(seed=1).blocks[0].mixer.weight)
    assert not torch.equal(weight, config.build(seed=0).blocks[1].mixer.weight)


def test_device_and_dtype_are_arguments():
    layer = VARIANTS["attention"].build(WIDTH, device="meta", dtype=torch.bfloat16)
    assert {(p.device.type, p.dtype) for p in layer.parameters()} == {("meta", torch.bfloat16)}
    assert layer.new_cache(2, 4).shift["last"].dtype == torch.bfloat16


# --- twin --------------------------------------------------------------------------------------
@ALL_VARIANTS
def test_it_is_the_mixer_behind_on_the_convolved_tokens(config):
    layer, x = built(config), random(2, 7, WIDTH)
    expected = layer.mixer(convolve(x, layer.weight).values, indices(7))
    assert torch.equal(layer(x, indices(7)), expected)


@ALL_VARIANTS
@pytest.mark.parametrize("cuts", [[], [1], [2, 3, 7], [*range(1, 9)], [0, 4, 4]])
@torch.no_grad()
def test_read_in_pieces_a_text_is_read_as_a_whole(config, cuts):
    layer, x = built(config), random(2, 9, WIDTH)
    cache = layer.new_cache(2, 9)
    close(read_in_pieces(layer, x, cuts, cache), layer(x, indices(9)))
    assert cache.n_tokens == cache.mixer.n_tokens == 9


@ALL_VARIANTS
@torch.no_grad()
def test_a_model_writes_token_by_token_what_it_reads_as_a_whole(config):
    model = language_model(config)
    tokens = torch.randint(19, (3, 12), generator=torch.Generator().manual_seed(0))
    cache = model.new_cache(3)
    parts = [model(tokens[:, :5], cache=cache)]
    parts += [model(tokens[:, [place]], cache=cache) for place in range(5, 12)]
    close(torch.cat(parts, dim=1), model(tokens), 1e-5)


@ALL_VARIANTS
def test_prompts_of_different_lengths_are_each_continued_as_if_alone(config):
    model, prompts = language_model(config), [[5, 6, 7, 8, 9], [3, 4], [11], [0, 0, 18]]
    together = generate(model, prompts, SampleConfig(), n_tokens=8, seed=3)
    for row, prompt in enumerate(prompts):
        alone = generate(model, [prompt], SampleConfig(), n_tokens=8, seed=3, first_row=row)
        assert together[row] == alone[0]
    assert len({tuple(row) for row in together}) > 1


@ALL_VARIANTS
@torch.no_grad()
def test_a_filled_up_row_is_read_as_without_its_fillers_whole_and_in_pieces(config):
    layer, x = built(config), random(2, 6, WIDTH)
    is_token = torch.tensor([[False] * 4 + [True] * 2, [True] * 6])
    positions = (is_token.cumsum(dim=1) - 1).clamp(min=0)
    mask = causal(torch.arange(6), torch.arange(6)) & padding(is_token)
    alone = layer(x[:1, 4:], indices(2))
    whole = layer(x, Context(positions=positions, mask=mask))
    close(whole[:1, 4:], alone)
    close(whole[1:], layer(x[1:], indices(6)))
    cache = layer.new_cache(2, 6)
    for first, end in ((0, 3), (3, 5), (5, 6)):  # the first piece has padding alone in row 0
        context = Context(positions=positions[:, first:end], mask=mask[:, :, first:end, :end])
        found = layer(x[:, first:end], context, cache)
        close(found[is_token[:, first:end]], whole[:, first:end][is_token[:, first:end]])


# --- reference ---------------------------------------------------------------------------------
@pytest.mark.parametrize("n_tokens", [1, 2, 5])
def test_it_is_torchs_convolution_with_a_group_for_each_number(n_tokens):
    x, weight = random(3, 11, 6).requires_grad_(), random(n_tokens, 6, seed=1).requires_grad_()
    ours = convolve(x, weight).values
    filled = nn.functional.pad(x.transpose(1, 2), (n_tokens - 1, 0))
    theirs = nn.functional.conv1d(filled, weight.T[:, None], groups=6).transpose(1, 2)
    close(ours, theirs)
    direction = random(3, 11, 6, seed=2)
    ours = torch.autograd.grad(ours, (x, weight), direction)
    theirs = torch.autograd.grad(theirs, (x, weight), direction)
    for our, their in zip(ours, theirs, strict=True):
        close(our, their)


# --- law ---------------------------------------------------------------------------------------
@given(
    st.integers(1, 5),
    st.lists(st.integers(0, 4), min_size=1, max_size=5),
    st.integers(0, 99),
)
@settings(max_examples=50, deadline=None)
def test_convolved_in_pieces_is_convolved_as_a_whole(n_tokens, lengths, seed):
    x, weight = random(2, sum(lengths), 3, seed=seed), random(n_tokens, 3, seed=seed + 1)
    whole, before, pieces = convolve(x, weight), None, []
    for piece in x.split(lengths, dim=1):
        values, before = convolve(piece, weight, before)
        pieces.append(values)
    torch.testing.assert_close(torch.cat(pieces, dim=1), whole.values, rtol=0, atol=1e-12)
    assert torch.equal(before, whole.last)


def test_a_token_reaches_the_next_ones_and_none_before():
    x = random(1, 6, 3).requires_grad_()
    for place in range(6):
        values = convolve(x, torch.ones(3, 3).double()).values
        (reached,) = torch.autograd.grad(values[0, place].sum(), x)
        expected = [float(max(0, place - 2) <= source <= place) for source in range(6)]
        assert reached[0, :, 0].tolist() == expected


@torch.no_grad()
def test_rows_that_are_kept_go_on_as_if_they_had_been_alone():
    layer, x = built(VARIANTS["twice"]), random(3, 8, WIDTH)
    cache, whole = layer.new_cache(3, 8), layer(x, indices(8))
    layer(x[:, :5], indices(5), cache)
    cache.keep([2, 0])
    close(layer(x[[2, 0], 5:], indices(3, 5), cache), whole[[2, 0], 5:])


@torch.no_grad()
def test_after_reset_a_text_is_read_as_the_first_one():
    layer, x = built(VARIANTS["twice"]), random(2, 6, WIDTH)
    cache = layer.new_cache(2, 8)
    for forget in (cache.reset, lambda: cache.truncate(0)):
        layer(random(2, 7, WIDTH, seed=1), indices(7), cache)
        forget()
        assert cache.n_tokens == 0
        close(layer(x, indices(6), cache), layer(x, indices(6)))
        cache.reset()


@torch.no_grad()
def test_a_cache_goes_back_by_its_copy():
    layer, x = built(VARIANTS["twice"]), random(2, 6, WIDTH)
    cache = layer.new_cache(2, 8)
    layer(x[:, :4], indices(4), cache)
    kept = copy.deepcopy(cache)
    layer(random(2, 3, WIDTH, seed=1), indices(3, 4), cache)
    close(layer(x[:, 4:], indices(2, 4), kept), layer(x, indices(6))[:, 4:])


@ALL_VARIANTS
def test_every_parameter_is_reached_by_the_gradient(config):
    layer = built(config)
    layer(random(2, 5, WIDTH), indices(5)).square().sum().backward()
    assert all((p.grad != 0).any() for p in layer.parameters())


# --- what stops it -----------------------------------------------------------------------------
@pytest.mark.parametrize("n_tokens", [1, 0, -3])
def test_one_token_alone_cannot_be_mixed(n_tokens):
    with pytest.raises(ValueError, match=rf"n_tokens must be at least 2.*got {n_tokens}"):
        ShiftedConfig(n_tokens=n_tokens)


def test_what_the_mixer_refuses_to_build_is_refused():
    with pytest.raises(ValueError, match="n_heads"):
        ShiftedConfig(mixer=AttentionConfig(n_heads=3)).build(WIDTH)


@pytest.mark.parametrize("n_before", [0, 1, 3])
def test_as_many_tokens_as_the_weights_need_must_stand_before(n_before):
    with pytest.raises(ValueError, match=f"over 3 tokens needs 2 before the first; got {n_before}"):
        convolve(random(1, 4, 2), random(3, 2), random(1, n_before, 2))


def test_a_cache_of_another_mixer_is_refused():
    layer, x = built(VARIANTS["attention"]), random(2, 3, WIDTH)
    own = layer.new_cache(2, 8)
    for cache, of in (
        (KVCache(2, 2, 8, 4), "KVCache"),
        (State("RWKV", {"sum": torch.zeros(2, 3)}), "RWKV"),
        (own.shift, "Shifted.shift"),
        (own.mixer, "KVCache"),
    ):
        with pytest.raises(ValueError, match=f"Shifted needs a cache from its own.*one of {of}"):
            layer(x, indices(3), cache)
    with pytest.raises(ValueError, match="needs 1 before the first; got 3"):
        layer(x, indices(3), built(VARIANTS["four tokens"]).new_cache(2, 8))


def test_a_cache_of_another_batch_is_refused():
    layer = built(VARIANTS["attention"])
    with pytest.raises(ValueError, match="is for 2 rows; got tokens of 3"):
        layer(random(3, 3, WIDTH), indices(3), layer.new_cache(2, 8))


@torch.no_grad()
def test_tokens_that_do_not_fit_leave_the_cache_as_it_was():
    layer, x = built(VARIANTS["attention"]), random(2, 8, WIDTH)
    cache = layer.new_cache(2, 8)
    layer(x[:, :6], indices(6), cache)
    with pytest.raises(ValueError, match="places for 8 tokens a row and keeps 6; 3 more"):
        layer(random(2, 3, WIDTH), indices(3, 6), cache)
    close(layer(x[:, 6:], indices(2, 6), cache), layer(x, indices(8))[:, 6:])


@torch.no_grad()
def test_a_cache_cannot_go_back_a_few_tokens_and_neither_half_does():
    layer = built(VARIANTS["attention"])
    cache = layer.new_cache(2, 8)
    layer(random(2, 5, WIDTH), indices(5), cache)
    with pytest.raises(ValueError, match=r"taken in 5 tokens.*truncate\(3\)"):
        cache.truncate(3)
    with pytest.raises(ValueError, match="out of 0 to 1"):
        cache.keep([2])
    assert cache.n_tokens == cache.mixer.n_tokens == 5 and cache.shift.batch_size == 2


@pytest.mark.parametrize(
    "mask",
    [
        window(torch.arange(4), torch.arange(4), 2),
        causal(torch.arange(4), torch.arange(4)) & document(*[torch.tensor([[1, 1, 2, 2]])] * 2),
        torch.ones(4, 4, dtype=torch.bool),
    ],
    ids=["window", "documents", "all see all"],
)
def test_masks_that_a_convolution_cannot_follow_are_refused(mask):
    layer = built(VARIANTS["attention"])
    with pytest.raises(ValueError, match="causal & padding only"):
        layer(random(1, 4, WIDTH), Context(positions=torch.arange(4), mask=mask))
