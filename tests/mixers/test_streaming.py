import math
from dataclasses import replace

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from minillm.mixers.short_conv import ShiftedConfig
from minillm.mixers.streaming import (
    Streaming,
    attend_streaming_naive,
    streamed_losses,
    streaming,
)
from minillm.model.attention import AttentionConfig, Context
from minillm.model.config import TransformerConfig
from minillm.model.masks import causal, padding
from minillm.model.rope import rotate, tables
from minillm.serve.sample import SampleConfig, generate

CONFIG = TransformerConfig(
    vocab_size=50,
    context_length=16,
    d_model=16,
    n_layers=2,
    mixer=AttentionConfig(n_heads=4, n_kv_heads=2, qk_norm=True),
    initial_std=0.3,
)


def random(*shape, seed=0):
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def text(n_tokens, batch_size=2, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return torch.randint(0, 50, (batch_size, n_tokens), generator=generator)


def plain(config=CONFIG):
    return config.build(seed=1, dtype=torch.float64)


def layer(n_sinks, window_tokens, **changes):
    attention = replace(AttentionConfig(n_heads=4, n_kv_heads=2), **changes)
    with torch.random.fork_rng():
        torch.manual_seed(0)
        built = attention.build(16, context_length=16, dtype=torch.float64)
    return Streaming(built, n_sinks, window_tokens)


def positions(n_tokens):
    return Context(positions=torch.arange(n_tokens))


def close(given, expected, tolerance=1e-12):
    torch.testing.assert_close(
        given, expected, rtol=0, atol=tolerance * max(1.0, expected.abs().max().item())
    )


def flat(n_sinks, window_tokens, n_tokens):
    """What each token finds where all scores are 0 and token t's value is 2^t."""
    attention = AttentionConfig(n_heads=1, rope=None).build(1, dtype=torch.float64)
    mixer = Streaming(attention, n_sinks, window_tokens)
    with torch.no_grad():
        attention.qkv.weight.copy_(torch.tensor([[0.0], [0.0], [1.0]]))
        attention.output.weight.fill_(1)
        return mixer(2.0 ** torch.arange(n_tokens).double().view(1, -1, 1), positions(n_tokens))


# --- by hand -----------------------------------------------------------------------------------
def test_sinks_and_the_last_tokens_are_seen_and_nothing_else():
    # 1 sink, 3 in all: token 4 sees 0, 3 and 4
    expected = [1, 3 / 2, 7 / 3, (1 + 4 + 8) / 3, (1 + 8 + 16) / 3, (1 + 16 + 32) / 3]
    assert flat(1, 3, 6).flatten().tolist() == pytest.approx(expected)
    # none: a window of 2
    assert flat(0, 2, 4).flatten().tolist() == pytest.approx([1, 3 / 2, 6 / 2, 12 / 2])


def test_a_sink_stands_directly_before_the_window_and_never_further_away():
    # 1 sink, 2 in all: the sink is at place 0 and the token at 1, however many have passed
    mixer = layer(1, 2)
    x = random(1, 10, 16)
    x[0, 9] = x[0, 3]
    y = mixer(x, positions(10))
    close(y[0, 9], y[0, 3])
    x[0, 1] = x[0, 3]  # at 1 it is there the first time
    close(mixer(x, positions(10))[0, 1], y[0, 3])


def test_the_bytes_are_those_of_the_window_after_any_number_of_tokens():
    model = streaming(plain(), n_sinks=2, window_tokens=8)
    cache = model.new_cache(batch_size=3)
    expected = 2 * 3 * 2 * 8 * 4 * 8 + 3 * 8  # k and v, B, G, tokens, K, float64; a count a row
    for n_tokens in (1, 5, 40):
        with torch.no_grad():
            model(text(n_tokens, batch_size=3), cache=cache)
        assert [state.n_bytes for state in cache] == [expected] * 2
    assert cache[0].n_tokens == 46
    assert cache[0]["n_read"].tolist() == [46] * 3


def test_the_model_stays_as_it_was_and_shares_nothing_with_the_copy():
    model, tokens = plain(), text(10)
    before = model(tokens)
    copied = streaming(model, n_sinks=1, window_tokens=4)
    with torch.no_grad():
        for parameter in copied.parameters():
            parameter.zero_()
    assert torch.equal(model(tokens), before)
    assert (model.context_length, len(model.blocks[0].mixer.rotations.table)) == (16, 16)
    assert copied.config is None


# --- twin --------------------------------------------------------------------------------------
@pytest.mark.parametrize(
    ("n_sinks", "window_tokens", "n_tokens"),
    [(0, 1, 30), (0, 5, 30), (1, 2, 30), (3, 7, 140), (4, 16, 70)],
)
def test_many_tokens_at_once_are_one_token_after_the_other_with_all_gradients(
    n_sinks, window_tokens, n_tokens
):
    results = []
    for naive in (True, False):
        mixer = layer(n_sinks, window_tokens, qk_norm=True)
        x = random(2, n_tokens, 16).requires_grad_()
        if naive:
            attention = mixer.attention
            attention.reserve(n_tokens)
            qkv = attention.project(x, torch.zeros(n_tokens).long())  # not turned
            cos, sin = tables(attention.rotations.frequencies, window_tokens, dtype=torch.float64)
            found = attend_streaming_naive(*qkv, cos, sin, n_sinks, window_tokens)
            y = attention.output(found.transpose(1, 2).flatten(2))
        else:
            y = mixer(x, positions(n_tokens))
        y.backward(random(*y.shape, seed=5))
        results.append([y.detach(), x.grad, *(p.grad for p in mixer.parameters())])
    for expected, found in zip(*results, strict=True):
        close(found, expected, 1e-10)


@pytest.mark.parametrize("cuts", [[1] * 40, [3, 1, 20, 16], [39, 1]])
@pytest.mark.parametrize(("n_sinks", "window_tokens"), [(0, 6), (2, 6)])
def test_in_pieces_and_token_by_token_it_is_the_whole(cuts, n_sinks, window_tokens):
    model, tokens = streaming(plain(), n_sinks, window_tokens), text(40)
    with torch.no_grad():
        whole, cache = model(tokens), model.new_cache(2)
        pieces = [model(piece, cache=cache) for piece in tokens.split(cuts, dim=1)]
    close(torch.cat(pieces, dim=1), whole, 1e-10)


def test_losses_are_those_of_one_token_after_the_other():
    model, tokens = streaming(plain(), 2, 6), text(30)
    with torch.no_grad():
        cache, losses = model.new_cache(2), []
        for place in range(29):
            logits = model(tokens[:, place : place + 1], cache=cache)[:, 0].float()
            losses.append(
                nn.functional.cross_entropy(logits, tokens[:, place + 1], reduction="none")
            )
    torch.testing.assert_close(streamed_losses(model, tokens), torch.stack(losses, dim=1))


def test_losses_of_a_text_of_several_pieces_are_those_of_the_whole():
    model, tokens = streaming(plain(), 2, 6).float(), text(700, batch_size=1)
    with torch.no_grad():
        logits = model(tokens[:, :-1])[0]
    expected = nn.functional.cross_entropy(logits, tokens[0, 1:], reduction="none")
    torch.testing.assert_close(streamed_losses(model, tokens)[0], expected, rtol=1e-4, atol=1e-4)


# --- reference ---------------------------------------------------------------------------------
@pytest.mark.parametrize("n_sinks", [0, 3])
def test_within_the_window_it_is_the_model_itself(n_sinks):
    model, tokens = plain(), text(9)
    close(streaming(model, n_sinks, 9)(tokens), model(tokens), 1e-10)
    assert not torch.allclose(
        streaming(model, n_sinks, 8)(tokens)[:, -1], model(tokens)[:, -1], atol=1e-3
    )


def test_the_last_token_finds_what_torchs_attention_finds_in_the_row_that_is_left():
    mixer, x = layer(2, 7), random(2, 30, 16)
    left = torch.cat((x[:, :2], x[:, 25:]), dim=1)
    q, k, v = mixer.attention.project(left, torch.zeros(7).long())
    cos, sin = tables(mixer.attention.rotations.frequencies, 7, dtype=torch.float64)
    k, v = (each.repeat_interleave(2, dim=1) for each in (rotate(k, cos, sin), v))
    found = nn.functional.scaled_dot_product_attention(rotate(q, cos, sin)[:, :, -1:], k, v)
    expected = mixer.attention.output(found.transpose(1, 2).flatten(2))
    close(mixer(x, positions(30))[:, -1:], expected)


# --- law ---------------------------------------------------------------------------------------
@given(st.integers(0, 4), st.integers(1, 8), st.integers(1, 30), st.integers(1, 30))
@settings(max_examples=15, deadline=None)
def test_no_length_no_window_and_no_cut_changes_the_result(n_sinks, n_near, first, second):
    mixer, x = layer(n_sinks, n_sinks + n_near), random(1, first + second, 16)
    with torch.no_grad():
        whole, cache = mixer(x, positions(first + second)), mixer.new_cache(1, 0)
        pieces = [
            mixer(piece, positions(piece.shape[1]), cache) for piece in x.split([first, second], 1)
        ]
    close(torch.cat(pieces, dim=1), whole, 1e-10)


def test_what_has_left_the_window_changes_nothing_and_a_sink_does():
    mixer, x = layer(2, 6), random(1, 40, 16)
    before = mixer(x, positions(40))
    for place, reaches in ((1, list(range(1, 40))), (10, [10, 11, 12, 13])):
        other = x.clone()
        other[0, place] += 1
        changed = (mixer(other, positions(40)) - before).abs().amax(dim=-1)[0] > 1e-12
        assert changed.nonzero().flatten().tolist() == reaches


@pytest.mark.parametrize("n_padding", [1, 9])
def test_fillers_are_neither_sinks_nor_in_the_window(n_padding):
    mixer, x = layer(2, 6), random(2, 30, 16)
    is_token = torch.arange(30) >= torch.tensor([[n_padding], [0]])
    mask = causal(torch.arange(30), torch.arange(30)) & padding(is_token)
    x[0, :n_padding] = 1e6
    caches = [mixer.new_cache(2, 0), mixer.new_cache(1, 0)]
    together = mixer(x, Context(positions=torch.arange(30), mask=mask), caches[0])
    alone = mixer(x[:1, n_padding:], positions(30 - n_padding), caches[1])
    close(together[0, n_padding:], alone[0], 1e-10)
    for part in ("keys", "values", "sink_keys", "sink_values", "n_read"):
        close(caches[0][part][:1], caches[1][part])


def test_a_filler_between_two_tokens_is_as_if_it_were_not_there():
    mixer, x = layer(2, 6), random(1, 30, 16)
    is_token = torch.arange(30)[None] != 1
    mask = causal(torch.arange(30), torch.arange(30)) & padding(is_token)
    y = mixer(x, Context(positions=torch.arange(30), mask=mask))
    close(y[is_token], mixer(x[is_token][None], positions(29))[0], 1e-10)


def test_prompts_of_different_lengths_are_written_on_as_each_alone_beyond_the_context():
    model, greedy = streaming(plain(), 1, 6), SampleConfig(temperature=0)
    prompts = [[7, 3, 9, 4, 4, 8, 1, 2, 3, 5, 9], [4], [1, 2, 3, 4, 5]]
    together = generate(model, prompts, greedy, n_tokens=30)
    assert together == [generate(model, [each], greedy, n_tokens=30)[0] for each in prompts]


def test_without_rotations_the_window_may_be_of_any_length():
    mixer = layer(1, 100, rope=None)
    x = random(1, 30, 16)
    close(mixer(x, positions(30)), mixer.attention(x, positions(30)))


def test_a_text_of_random_tokens_costs_a_random_model_about_the_same_everywhere():
    losses = streamed_losses(streaming(plain(replace(CONFIG, initial_std=0.01)), 1, 8), text(200))
    assert losses.shape == (2, 199)
    assert losses.mean().item() == pytest.approx(math.log(50), abs=0.01)


# --- what stops it -----------------------------------------------------------------------------
SHIFTED = replace(CONFIG, mixer=(AttentionConfig(), ShiftedConfig()))
WINDOWED = replace(CONFIG, mixer=AttentionConfig(window_tokens=4))


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: streaming(plain(), 4, 4), "above n_sinks.*n_sinks=4 and window_tokens=4"),
        (lambda: streaming(plain(), -1, 4), "n_sinks at least 0; got n_sinks=-1"),
        (lambda: streaming(plain(), 0, 0), "got n_sinks=0 and window_tokens=0"),
        (lambda: streaming(plain(), 1, 17), "rotations for 16 places.*Choose at most 16"),
        (lambda: streaming(plain(SHIFTED), 1, 4), "that of block 1 is Shifted"),
        (lambda: streaming(streaming(plain(), 1, 4), 1, 4), "that of block 0 is Streaming"),
        (lambda: streaming(plain(WINDOWED), 1, 4), "forgets by itself.*window_tokens=4"),
        (lambda: streamed_losses(streaming(plain(), 1, 4), text(1)), "got rows of 1"),
        (
            lambda: streaming(plain(), 1, 4)(text(3), cache=plain().new_cache(2)),
            "needs a cache from its own new_cache; got one of KVCache",
        ),
        (
            lambda: streaming(plain(), 1, 4)(text(3), cache=streaming(plain(), 0, 4).new_cache(2)),
            "Streaming with n_sinks=1.*got one of Streaming with n_sinks=0",
        ),
        (
            lambda: streaming(plain(), 1, 4)(text(3), cache=streaming(plain(), 1, 4).new_cache(5)),
            "is for 5 rows; got tokens of 2",
        ),
    ],
)
def test_what_cannot_be_streamed_is_refused(make, message):
    with pytest.raises(ValueError, match=message):
        make()
