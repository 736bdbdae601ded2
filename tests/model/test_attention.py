import math
from dataclasses import replace

import pytest
import torch
from einops import rearrange, repeat
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn
from transformers import LlamaConfig, MistralConfig, Qwen3Config
from transformers.models.llama.modeling_llama import LlamaAttention, LlamaRotaryEmbedding
from transformers.models.mistral.modeling_mistral import MistralAttention
from transformers.models.qwen3.modeling_qwen3 import Qwen3Attention

from minillm.model.attention import Attention, AttentionConfig, Context, attend, attend_fast
from minillm.model.masks import causal, document, padding, prefix, window
from minillm.model.rope import RopeConfig

WIDTH = 16
VARIANTS = {
    "plain": AttentionConfig(),
    "grouped": AttentionConfig(n_kv_heads=2),
    "multi-query": AttentionConfig(n_kv_heads=1),
    "no positions": AttentionConfig(rope=None),
    "window": AttentionConfig(window_tokens=3),
    "all of it": AttentionConfig(n_kv_heads=2, d_head=6, qk_norm=True, window_tokens=4),
}


def random(*shape, seed=0, dtype=torch.float64):
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=dtype)


def qkv(batch_size=2, n_heads=4, n_kv_heads=2, n_queries=5, n_keys=5, d_head=3, seed=0):
    q = random(batch_size, n_heads, n_queries, d_head, seed=seed)
    k, v = random(2, batch_size, n_kv_heads, n_keys, d_head, seed=seed + 1)
    return q, k, v


def built(config, d_model=WIDTH, seed=0, dtype=torch.float64):
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        layer = config.build(d_model, context_length=32, dtype=dtype)
        if layer.q_norm is not None:  # ones hide whether they are used
            nn.init.uniform_(layer.q_norm, 0.5, 2)
            nn.init.uniform_(layer.k_norm, 0.5, 2)
        return layer


def indices(n_tokens, first=0):
    return Context(positions=torch.arange(first, first + n_tokens))


def close(given, expected, tolerance=1e-12):
    torch.testing.assert_close(
        given, expected, rtol=0, atol=tolerance * expected.abs().max().item()
    )


# --- by hand -----------------------------------------------------------------------------------
def test_a_query_takes_four_fifths_where_its_key_fits_by_log_four():
    # K = 4: scores are q · k / 2. Here log 4 and 0, so the weights are 4/5 and 1/5.
    q = torch.tensor([2.0, 0, 0, 0]).reshape(1, 1, 1, 4)
    k = torch.tensor([[math.log(4), 5, 5, 5], [0, 7, 7, 7]]).reshape(1, 1, 2, 4)
    v = torch.tensor([[10.0, 0, 0, 0], [0, 20, 0, 0]]).reshape(1, 1, 2, 4)
    values, weights = attend(q, k, v)
    assert weights.flatten().tolist() == pytest.approx([0.8, 0.2])
    assert values.flatten().tolist() == pytest.approx([8, 4, 0, 0])


def test_each_key_head_serves_neighbouring_query_heads():
    q = torch.zeros(1, 4, 1, 1)
    k = torch.zeros(1, 2, 1, 1)
    v = torch.tensor([10.0, 20.0]).reshape(1, 2, 1, 1)
    assert attend(q, k, v).values.flatten().tolist() == [10, 10, 20, 20]
    assert attend_fast(q, k, v).flatten().tolist() == [10, 10, 20, 20]


def test_what_may_not_be_seen_has_weight_exactly_zero():
    q, k, v = qkv()
    mask = causal(torch.arange(5), torch.arange(5))
    for scale in (1, 1e4):  # however little the query likes what it may see
        weights = attend(scale * q, k, v, mask).weights
        assert (weights[..., ~mask] == 0).all()
        close(weights.sum(dim=-1), torch.ones(2, 4, 5).double())
    assert (attend(q, k, v, mask).weights[..., mask] > 0).all()


def test_who_may_look_nowhere_takes_zeros_and_spoils_no_gradient():
    mask = causal(torch.arange(5), torch.arange(5)) & padding(
        torch.tensor([[False, False, True, True, True], [True] * 5])
    )
    for attention in (lambda *args: attend(*args).values, attend_fast):
        q, k, v = (x.requires_grad_() for x in qkv())
        values = attention(q, k, v, mask)
        assert (values[0, :, :2] == 0).all()
        assert (values[0, :, 2:] != 0).all() and (values[1] != 0).all()
        values.sum().backward()
        assert all(x.grad.isfinite().all() for x in (q, k, v))
        assert (q.grad[0, :, :2] == 0).all() and (v.grad[0, :, :2] == 0).all()
    assert (attend(*qkv(), mask).weights[0, :, :2] == 0).all()


@pytest.mark.parametrize(
    ("config", "n_parameters"),
    [
        (AttentionConfig(), 4 * 16 * 16),
        (AttentionConfig(n_kv_heads=1), 16 * (4 + 2) * 4 + 16 * 16),
        (AttentionConfig(n_kv_heads=2, d_head=8), 16 * (4 + 4) * 8 + 32 * 16),
        (AttentionConfig(qk_norm=True), 4 * 16 * 16 + 2 * 4),
    ],
)
def test_parameters_are_as_many_as_counted_on_paper(config, n_parameters):
    layer = config.build(WIDTH)
    assert sum(parameter.numel() for parameter in layer.parameters()) == n_parameters
    assert set(layer.state_dict()) == {name for name, _ in layer.named_parameters()}


# --- twin --------------------------------------------------------------------------------------
MASKS = {
    "none": lambda: None,
    "causal": lambda: causal(torch.arange(5), torch.arange(5)),
    "window and padding": lambda: (
        window(torch.arange(5), torch.arange(5), 2)
        & padding(torch.tensor([[False, False, True, True, True], [True] * 5]))
    ),
    "prefix": lambda: prefix(torch.arange(5), torch.arange(5), torch.tensor([3, 1])),
    "a head each": lambda: random(2, 4, 5, 5, seed=9) > 0,
}


@pytest.mark.parametrize("mask", MASKS)
@pytest.mark.parametrize("n_kv_heads", [1, 2, 4])
def test_the_fast_path_gives_the_values_and_gradients_of_the_plain_one(mask, n_kv_heads):
    ours, theirs = [], []
    for results, attention in (
        (ours, lambda *args: attend(*args).values),
        (theirs, attend_fast),
    ):
        inputs = [x.requires_grad_() for x in qkv(n_kv_heads=n_kv_heads)]
        values = attention(*inputs, MASKS[mask]())
        (values * random(2, 4, 5, 3, seed=5)).sum().backward()
        results += [values.detach(), *(x.grad for x in inputs)]
    for plain, fast in zip(ours, theirs, strict=True):
        close(fast, plain)


def test_causal_without_a_mask_is_the_causal_mask():
    q, k, v = qkv()
    close(attend_fast(q, k, v, causal=True), attend(q, k, v, MASKS["causal"]()).values)


@given(st.integers(1, 3), st.integers(1, 3), st.integers(1, 6), st.integers(1, 6))
@settings(max_examples=40, deadline=None)
def test_grouped_heads_are_repeated_heads(n_kv_heads, group, n_queries, n_keys):
    q, k, v = qkv(
        n_heads=n_kv_heads * group, n_kv_heads=n_kv_heads, n_queries=n_queries, n_keys=n_keys
    )
    values, weights = attend(q, k, v)
    whole = attend(q, *(repeat(x, "B G S K -> B (G R) S K", R=group) for x in (k, v)))
    close(values, whole.values)
    close(weights, whole.weights)


def head_by_head(layer, config, x, mask):
    """The whole layer with loops: a row, a head, a token at a time; rotation by complex numbers."""
    n_kv_heads = config.n_kv_heads or config.n_heads
    n, d_model = config.n_heads, layer.d_head
    matrices = layer.qkv.weight.split(d_model)  # one a head: queries, then keys, then values
    theta = 10000.0 ** (-torch.arange(0, d_model, 2, dtype=torch.float64) / d_model)

    def prepared(vector, norm, place):
        if norm is not None:
            vector = vector / (vector.square().mean() + config.norm_epsilon).sqrt() * norm
        if config.rope is None:
            return vector
        pairs = torch.complex(*vector.chunk(2)) * torch.exp(1j * place * theta)
        return torch.cat((pairs.real, pairs.imag))

    rows = []
    for row in x:
        heads = []
        for head in range(n):
            group = head * n_kv_heads // n
            q, k, v = (row @ matrices[i].T for i in (head, n + group, n + n_kv_heads + group))
            q = torch.stack([prepared(q[t], layer.q_norm, t) for t in range(len(row))])
            k = torch.stack([prepared(k[t], layer.k_norm, t) for t in range(len(row))])
            scores = (q @ k.T / d_model**0.5).masked_fill(~mask, -math.inf)
            heads.append(scores.softmax(dim=-1) @ v)
        rows.append(torch.cat(heads, dim=-1) @ layer.output.weight.T)
    return torch.stack(rows)


@pytest.mark.parametrize("name", VARIANTS)
def test_a_layer_is_its_heads_one_by_one(name):
    config = VARIANTS[name]
    layer, x = built(config), random(2, 7, WIDTH)
    mask = window(torch.arange(7), torch.arange(7), config.window_tokens or 7)
    close(layer(x, indices(7)), head_by_head(layer, config, x, mask))


@pytest.mark.parametrize("name", VARIANTS)
@given(sizes=st.lists(st.integers(1, 4), min_size=1, max_size=5))
@settings(max_examples=10, deadline=None)
def test_cached_is_uncached_token_by_token_and_in_chunks(name, sizes):
    layer, n_tokens = built(VARIANTS[name]), sum(sizes)
    x = random(2, n_tokens, WIDTH)
    whole = layer(x, indices(n_tokens))
    for chunks in (sizes, [1] * n_tokens):
        cache, parts = layer.new_cache(2, max_length=n_tokens), []
        with torch.no_grad():
            for part in x.split(chunks, dim=1):
                parts.append(layer(part, indices(part.shape[1], cache.n_tokens), cache))
        close(torch.cat(parts, dim=1), whole)


@pytest.mark.parametrize("name", VARIANTS)
def test_cached_is_uncached_in_float32_to_a_hundred_thousandth(name):
    layer = built(VARIANTS[name], dtype=torch.float32)
    x = random(2, 20, WIDTH, dtype=torch.float32)
    cache = layer.new_cache(2, max_length=20)
    with torch.no_grad():
        parts = [
            layer(part, indices(part.shape[1], cache.n_tokens), cache)
            for part in x.split([9, 5, 1, 1, 4], dim=1)
        ]
        close(torch.cat(parts, dim=1), layer(x, indices(20)), 1e-5)


@pytest.mark.parametrize("name", ["grouped", "window", "all of it"])
def test_a_row_filled_up_on_the_left_is_the_row_alone(name):
    layer, n_tokens = built(VARIANTS[name]), 8
    x, n_fill = random(2, n_tokens, WIDTH), torch.tensor([3, 0])
    is_token = torch.arange(n_tokens) >= n_fill[:, None]
    positions = (torch.arange(n_tokens) - n_fill[:, None]).clamp(min=0)
    cache, parts = layer.new_cache(2, max_length=n_tokens), []
    with torch.no_grad():
        for chunk in torch.arange(n_tokens).split([5, 1, 2]):
            keys = torch.arange(chunk[-1].item() + 1)
            context = Context(
                positions=positions[:, chunk],
                mask=causal(chunk, keys) & padding(is_token[:, keys]),
            )
            parts.append(layer(x[:, chunk], context, cache))
        together = torch.cat(parts, dim=1)
        alone = [layer(x[[0], 3:], indices(5))[0], layer(x[[1]], indices(8))[0]]
    close(together[0, 3:], alone[0])
    close(together[1], alone[1])


def test_texts_packed_into_one_row_are_the_texts_alone():
    layer = built(VARIANTS["grouped"])
    x = random(1, 7, WIDTH)
    ids, positions = torch.tensor([[0, 0, 0, 1, 1, 1, 1]]), torch.tensor([[0, 1, 2, 0, 1, 2, 3]])
    mask = causal(torch.arange(7), torch.arange(7)) & document(ids, ids)
    together = layer(x, Context(positions=positions, mask=mask))
    close(together[:, :3], layer(x[:, :3], indices(3)))
    close(together[:, 3:], layer(x[:, 3:], indices(4)))


def test_project_and_attend_are_the_layer_with_its_weights_in_view():
    layer, x = built(VARIANTS["all of it"]), random(2, 4, WIDTH)
    values, weights = attend(*layer.project(x, torch.arange(4)), causal(*[torch.arange(4)] * 2))
    close(layer.output(rearrange(values, "B H T K -> B T (H K)")), layer(x, indices(4)))
    assert weights.shape == (2, 4, 4, 4)


# --- reference ---------------------------------------------------------------------------------
@pytest.mark.parametrize("mask", MASKS)
def test_torchs_own_attention_gives_the_same_values(mask):
    q, k, v = qkv()
    expected = nn.functional.scaled_dot_product_attention(
        q, k, v, attn_mask=MASKS[mask](), enable_gqa=True
    )
    close(attend(q, k, v, MASKS[mask]()).values, expected)


def test_torchs_multi_head_layer_gives_the_same_output_and_weights():
    layer, x = built(VARIANTS["no positions"]), random(2, 5, WIDTH)
    theirs = nn.MultiheadAttention(WIDTH, 4, bias=False, batch_first=True, dtype=torch.float64)
    with torch.no_grad():
        theirs.in_proj_weight.copy_(layer.qkv.weight)
        theirs.out_proj.weight.copy_(layer.output.weight)
    mask = causal(torch.arange(5), torch.arange(5))
    expected, weights = theirs(x, x, x, attn_mask=~mask, average_attn_weights=False)
    close(layer(x, indices(5)), expected)
    close(attend(*layer.project(x, torch.arange(5)), mask).weights, weights)


FAMILIES = {
    "llama": (LlamaConfig, LlamaAttention, AttentionConfig(n_kv_heads=2)),
    "mistral": (
        MistralConfig,
        MistralAttention,
        AttentionConfig(n_kv_heads=2, d_head=6, window_tokens=3),
    ),
    "qwen3": (
        Qwen3Config,
        Qwen3Attention,
        AttentionConfig(n_kv_heads=1, d_head=8, qk_norm=True, norm_epsilon=1e-5),
    ),
}


@pytest.mark.parametrize("family", FAMILIES)
def test_the_layers_of_transformers_give_the_same_output(family):
    config_class, attention_class, config = FAMILIES[family]
    config = replace(config, rope=RopeConfig(base=1000.0))
    layer = built(config, dtype=torch.float32)
    theirs = config_class(
        hidden_size=WIDTH,
        num_attention_heads=4,
        num_key_value_heads=config.n_kv_heads,
        head_dim=layer.d_head,
        sliding_window=config.window_tokens,
        rms_norm_eps=config.norm_epsilon,
        attention_bias=False,
        attn_implementation="eager",
        rope_parameters={"rope_type": "default", "rope_theta": 1000.0},
    )
    reference = attention_class(theirs, layer_idx=0)
    sizes = [n * layer.d_head for n in (4, config.n_kv_heads, config.n_kv_heads)]
    matrices = zip("qkv", layer.qkv.weight.split(sizes), strict=True)
    weights = {f"{letter}_proj.weight": matrix for letter, matrix in matrices}
    weights["o_proj.weight"] = layer.output.weight
    if config.qk_norm:
        weights |= {"q_norm.weight": layer.q_norm, "k_norm.weight": layer.k_norm}
    reference.load_state_dict(weights)
    x = random(2, 7, WIDTH, dtype=torch.float32)
    mask = window(torch.arange(7), torch.arange(7), config.window_tokens or 7)
    expected, _ = reference(
        x,
        position_embeddings=LlamaRotaryEmbedding(theirs)(x, torch.arange(7)[None]),
        attention_mask=torch.zeros(7, 7).masked_fill(~mask, -math.inf)[None, None],
    )
    close(layer(x, indices(7)), expected, 1e-5)


# --- law ---------------------------------------------------------------------------------------
@given(st.integers(1, 6), st.integers(1, 6), st.integers(0, 99))
@settings(max_examples=40, deadline=None)
def test_weights_of_a_row_sum_to_one_and_values_stay_within_what_there_is(n_queries, n_keys, seed):
    q, k, v = qkv(n_queries=n_queries, n_keys=n_keys, seed=seed)
    values, weights = attend(3 * q, 3 * k, v)
    close(weights.sum(dim=-1), torch.ones(2, 4, n_queries).double())
    largest = repeat(v.amax(dim=2), "B G K -> B (G R) T K", R=2, T=n_queries)
    assert (values <= largest + 1e-12).all()


@pytest.mark.parametrize("name", VARIANTS)
@given(place=st.integers(0, 8))
@settings(max_examples=6, deadline=None)
def test_a_changed_token_is_noticed_by_itself_and_later_ones_alone(name, place):
    layer, x = built(VARIANTS[name]), random(1, 9, WIDTH)
    changed = x.clone()
    changed[0, place] += 1
    difference = (layer(x, indices(9)) - layer(changed, indices(9))).abs().amax(dim=-1)[0]
    reach = VARIANTS[name].window_tokens or 9
    noticed = (difference > 1e-6).nonzero().flatten().tolist()
    assert noticed == list(range(place, min(place + reach, 9)))
    assert (difference[:place] <= 1e-12).all()


def test_with_every_token_in_view_all_notice():
    layer, x = built(VARIANTS["plain"]), random(1, 6, WIDTH)
    everything = replace(indices(6), mask=torch.ones(1, 1, dtype=torch.bool))
    changed = x.clone()
    changed[0, 5] += 1
    difference = (layer(x, everything) - layer(changed, everything)).abs().amax(dim=-1)
    assert (difference > 1e-6).all()


@given(st.integers(0, 500))
@settings(max_examples=30, deadline=None)
def test_a_text_that_begins_later_is_read_alike(shift):
    layer, x = built(VARIANTS["all of it"]), random(2, 6, WIDTH)
    layer.reserve(506)
    close(layer(x, indices(6, shift)), layer(x, indices(6)), 1e-10)


@given(st.permutations(range(6)))
@settings(max_examples=20, deadline=None)
def test_without_positions_and_masks_the_order_of_the_tokens_does_not_matter(order):
    layer, x = built(VARIANTS["no positions"]), random(1, 6, WIDTH)
    everything = replace(indices(6), mask=torch.ones(6, 6, dtype=torch.bool))
    close(layer(x[:, order], everything), layer(x, everything)[:, order])


def test_a_wide_window_is_none():
    layer, x = built(VARIANTS["plain"]), random(1, 6, WIDTH)
    upcast = built(replace(VARIANTS["plain"], window_tokens=6))
    assert torch.equal(upcast(x, indices(6)), layer(x, indices(6)))


def test_rotations_grow_and_those_that_were_there_stay():
    layer = AttentionConfig().build(WIDTH, context_length=4)
    before = layer.rotations.table
    layer.reserve(3)
    assert layer.rotations.table is before
    layer.new_cache(1, max_length=9)
    assert len(layer.rotations.table) == 9
    assert torch.equal(layer.rotations.table[:4], before)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float64])
def test_a_layer_lives_where_and_as_it_was_built(dtype):
    layer = VARIANTS["all of it"].build(WIDTH, device="meta", dtype=dtype)
    cache = layer.new_cache(2, 8)
    y = layer(
        torch.empty(2, 3, WIDTH, device="meta", dtype=dtype),
        Context(positions=torch.empty(2, 3, device="meta", dtype=torch.int64)),
        cache,
    )
    for tensor in (y, cache.keys, layer.rotations.table, *layer.parameters()):
        assert (tensor.dtype, tensor.device.type) == (dtype, "meta")


@pytest.mark.parametrize("name", VARIANTS)
def test_nothing_is_created_on_torchs_default_device(name):
    layer, x = built(VARIANTS[name]), random(2, 9, WIDTH)
    expected, contexts = layer(x, indices(9)), [indices(5), indices(3, 5), indices(1, 8)]
    with torch.device("meta"), torch.no_grad():  # a device that keeps no numbers
        VARIANTS[name].build(WIDTH)(torch.ones(1, 1, WIDTH, device="cpu"), contexts[-1])
        cache = layer.new_cache(2, max_length=9)
        chunks = zip(x.split([5, 3, 1], dim=1), contexts, strict=True)
        parts = [layer(part, context, cache) for part, context in chunks]
    close(torch.cat(parts, dim=1), expected)


@pytest.mark.parametrize("name", VARIANTS)
def test_in_mixed_precision_queries_keys_and_values_have_one_type(name):
    layer = built(VARIANTS[name], dtype=torch.float32)
    x = random(1, 3, WIDTH, dtype=torch.float32)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        kinds = {part.dtype for part in layer.project(x, torch.arange(3))}
    assert kinds == {torch.bfloat16}


# --- bad input ---------------------------------------------------------------------------------
def masked(mask):
    return attend(*qkv(), mask)


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (lambda: attend(*qkv(n_heads=4, n_kv_heads=3)), "n_kv_heads must divide n_heads; got 3"),
        (lambda: attend_fast(*qkv(n_heads=4, n_kv_heads=3)), "got 3 and 4"),
        (lambda: masked(torch.ones(5, 4).bool()), "[2, 4, 5, 5]; got torch.bool of [5, 4]"),
        (lambda: masked(torch.ones(3, 1, 5, 5).bool()), "got torch.bool of [3, 1, 5, 5]"),
        (lambda: masked(torch.ones(1, 2, 4, 5, 5).bool()), "got torch.bool of [1, 2, 4, 5, 5]"),
        (lambda: attend_fast(*qkv(), causal=True, mask=torch.ones(5, 5).bool()), "a mask. Make"),
        (lambda: attend_fast(*qkv(n_keys=7), causal=True), "5 queries, 7 keys and no mask"),
        (lambda: AttentionConfig(n_heads=0), "n_heads must be at least 1; got 0"),
        (lambda: AttentionConfig(n_kv_heads=0), "n_kv_heads must be at least 1; got 0"),
        (lambda: AttentionConfig(window_tokens=0), "window_tokens must be at least 1; got 0"),
        (lambda: AttentionConfig(n_heads=4, n_kv_heads=3), "n_kv_heads must divide n_heads"),
        (lambda: AttentionConfig(n_heads=3).build(16), "got d_model=16 and n_heads=3"),
        (lambda: AttentionConfig().build(0), "d_model must be at least 1"),
        (lambda: AttentionConfig().build(12), "d_head must be even and at least 2; got 3"),
        (
            lambda: AttentionConfig().build(16, context_length=4)(
                torch.zeros(1, 5, 16), indices(5)
            ),
            "prepared for 4 of them; got 5 tokens and positions [5]",
        ),
        (
            lambda: Attention.project.__wrapped__(  # without the tests' own shape checks
                AttentionConfig().build(16), torch.zeros(1, 5, 16), torch.arange(1)
            ),
            "got 5 tokens and positions [1]",
        ),
        (lambda: AttentionConfig(norm_epsilon=0.0), "norm_epsilon must be a finite number above"),
        (
            lambda: built(AttentionConfig())(
                random(2, 3, WIDTH), indices(3), built(AttentionConfig()).new_cache(2, 2)
            ),
            "the cache has places for 2 tokens",
        ),
    ],
)
def test_bad_input_is_named(call, words):
    with pytest.raises(ValueError) as error:
        call()
    assert words in str(error.value)


def test_a_mask_of_numbers_is_refused_though_torch_would_add_it_to_the_scores():
    # as a learner calls it, without the shape checks that the tests put around it
    unchecked = attend_fast.__wrapped__
    with pytest.raises(ValueError, match=r"must be of bool, True = may look.*got torch.float64"):
        unchecked(*qkv(), torch.ones(5, 5).double())


def test_a_layer_takes_no_cache_and_no_config_for_its_own():
    layer = built(VARIANTS["plain"])
    layer(random(1, 3, WIDTH), indices(3), layer.new_cache(1, 4))
    assert not [value for value in vars(layer).values() if hasattr(value, "n_tokens")]
    assert isinstance(layer, Attention)
