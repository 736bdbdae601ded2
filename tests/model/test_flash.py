import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.nn.functional import scaled_dot_product_attention

from minillm.measure.memory_meter import Meter, peak_elements
from minillm.model.attention import attend
from minillm.model.flash import flash_attention, flash_backward, flash_forward, online_softmax_sum
from minillm.model.masks import causal as may_look_back


def naive(q, k, v, causal=False):
    """`attend` with the mask that `flash_attention(causal=True)` means."""
    if not causal:
        return attend(q, k, v).values
    positions = torch.arange(k.shape[2])
    return attend(q, k, v, may_look_back(positions[k.shape[2] - q.shape[2] :], positions)).values


def random_qkv(T, S, H=1, G=1, K=8, B=1, dtype=torch.float64, seed=0):
    generator = torch.Generator().manual_seed(seed)
    shapes = [(B, H, T, K), (B, G, S, K), (B, G, S, K)]
    return [
        torch.randn(shape, generator=generator, dtype=dtype).requires_grad_() for shape in shapes
    ]


def with_gradients(function, q, k, v):
    """Values, and the gradients of q, k, v for a gradient of the values that differs everywhere."""
    values = function(q, k, v)
    weight = torch.linspace(-1, 1, values.numel(), dtype=values.dtype).cos().view_as(values)
    return [values.detach(), *torch.autograd.grad((values * weight).sum(), (q, k, v))]


def furthest(found, expected):
    """The largest difference, as a share of the largest expected value."""
    return ((found - expected).abs().max() / expected.abs().max()).item()


# --- by hand -----------------------------------------------------------------------------------
@pytest.mark.parametrize("tile", [1, 2, 3, 100])
def test_an_online_softmax_of_three_numbers(tile):
    # exp: 1, 2, 3; weights 1/6, 2/6, 3/6; 1/6 · 6 + 2/6 · 12 + 3/6 · 18 = 14
    scores = [0.0, math.log(2), math.log(3)]
    assert online_softmax_sum(scores, [6, 12, 18], tile) == pytest.approx(14, rel=1e-12)
    assert online_softmax_sum(scores[::-1], [18, 12, 6], tile) == pytest.approx(14, rel=1e-12)


@pytest.mark.parametrize("tile", [1, 2])
def test_scores_that_overflow_exp_are_no_trouble(tile):
    assert online_softmax_sum([1000.0, 1000.0], [1, 3], tile) == 2
    assert online_softmax_sum([-1000.0, 1000.0, -1000.0], [1, 2, 3], tile) == 2
    assert online_softmax_sum([-5000.0], [7], tile) == 7


@pytest.mark.parametrize("tile", [1, 2])
def test_one_query_and_two_keys_with_gradients(tile):
    # K = 1, so scores are 2 log 2 and 0, weights 4/5 and 1/5, the value 4/5 · 5 + 1/5 · 10 = 6.
    q = torch.tensor([2.0]).reshape(1, 1, 1, 1).requires_grad_()
    k = torch.tensor([math.log(2), 0]).reshape(1, 1, 2, 1).requires_grad_()
    v = torch.tensor([5.0, 10]).reshape(1, 1, 2, 1).requires_grad_()
    values = flash_attention(q, k, v, tile_tokens=tile)
    assert values.item() == pytest.approx(6)
    values.sum().backward()
    assert v.grad.flatten().tolist() == pytest.approx([0.8, 0.2])
    # Of the scores: weight · (v - value) = 4/5 · (5 - 6) and 1/5 · (10 - 6); then times q, or k.
    assert k.grad.flatten().tolist() == pytest.approx([-1.6, 1.6])
    assert q.grad.item() == pytest.approx(-0.8 * math.log(2))


def test_causal_queries_are_the_last_of_the_tokens():
    # All scores 0: means over what is seen. Two queries, four keys: places 2 and 3.
    q, k = torch.zeros(1, 1, 2, 1), torch.zeros(1, 1, 4, 1)
    v = torch.tensor([0.0, 3, 6, 91]).reshape(1, 1, 4, 1)
    for tile in (1, 2, 3, 4, 5):
        values = flash_attention(q, k, v, causal=True, tile_tokens=tile)
        assert values.flatten().tolist() == pytest.approx([3, 25])


def test_a_key_value_head_serves_neighbouring_queries():
    q, k = torch.zeros(1, 4, 1, 1), torch.zeros(1, 2, 1, 1)
    v = torch.tensor([1.0, 2]).reshape(1, 2, 1, 1)
    assert flash_attention(q, k, v).flatten().tolist() == [1, 1, 2, 2]


def test_logsumexp_is_what_the_sum_of_exp_would_be():
    q, k, v = random_qkv(T=3, S=5, K=4)
    scores = (q @ k.mT / 2).detach()
    _, logsumexp = flash_forward(q.detach(), k.detach(), v.detach(), False, tile_tokens=2)
    assert furthest(logsumexp.exp(), scores.exp().sum(dim=-1, keepdim=True)) < 1e-14


# --- twin --------------------------------------------------------------------------------------
SHAPES = [(7, 7), (5, 12), (1, 9), (12, 5), (16, 16)]
TILES = [1, 3, 4, 7, 64]  # some divide the lengths, some do not, one is larger


@pytest.mark.parametrize("causal", [False, True])
@pytest.mark.parametrize(("H", "G"), [(2, 2), (6, 2), (4, 1)])
@pytest.mark.parametrize(("dtype", "bound"), [(torch.float64, 1e-10), (torch.float32, 1e-5)])
def test_tiled_is_naive_and_so_are_its_gradients(causal, H, G, dtype, bound):
    for T, S in SHAPES:
        if causal and T > S:
            continue
        q, k, v = random_qkv(T, S, H, G, B=2, dtype=dtype)
        expected = with_gradients(lambda q, k, v: naive(q, k, v, causal), q, k, v)
        for tile in TILES:
            found = with_gradients(
                lambda q, k, v: flash_attention(q, k, v, causal=causal, tile_tokens=tile),  # noqa: B023
                q,
                k,
                v,
            )
            for a, b in zip(found, expected, strict=True):
                assert a.dtype == dtype and a.shape == b.shape
                assert furthest(a, b) <= bound


def test_at_the_usual_tile_float32_keeps_its_five_digits_over_a_thousand_tokens():
    q, k, v = random_qkv(T=500, S=1000, H=2, G=1, K=16, dtype=torch.float32)
    expected = with_gradients(lambda q, k, v: naive(q, k, v, causal=True), q, k, v)
    found = with_gradients(lambda q, k, v: flash_attention(q, k, v, causal=True), q, k, v)
    assert max(furthest(a, b) for a, b in zip(found, expected, strict=True)) <= 1e-5


def test_large_scores_give_what_float64_gives():
    # Rows whose scores rise and fall by hundreds from tile to tile; exp alone would overflow.
    q, k, v = (x.detach().float() for x in random_qkv(T=20, S=20, K=4))
    q, k = q * 10, k * 100
    expected = naive(q.double(), k.double(), v.double())
    assert (q @ k.mT).max() > 500
    assert furthest(flash_attention(q, k, v, tile_tokens=3).double(), expected) <= 1e-4


def test_columns_of_one_projection_are_taken_as_they_lie():
    # q, k and v as a layer makes them: no tensor of its own, strides of the whole.
    torch.manual_seed(0)
    x = torch.randn(2, 9, 3 * 2 * 4, dtype=torch.float64, requires_grad=True)
    results = []
    for function in (flash_attention, naive):
        q, k, v = x.view(2, 9, 3, 2, 4).permute(2, 0, 3, 1, 4)
        values = function(q, k, v, causal=True)
        (gradient,) = torch.autograd.grad(values.sum(), x)
        results.append((values, gradient))
    (found, gradient), (expected, its_gradient) = results
    assert furthest(found, expected) <= 1e-10
    assert furthest(gradient, its_gradient) <= 1e-10


# --- reference ---------------------------------------------------------------------------------
@pytest.mark.parametrize("causal", [False, True])
@pytest.mark.parametrize("G", [4, 2, 1])
def test_it_is_torch_s_scaled_dot_product_attention(causal, G):
    q, k, v = random_qkv(T=9, S=14, H=4, G=G, B=2)
    seen = torch.ones(9, 14, dtype=torch.bool).tril(diagonal=14 - 9) if causal else None
    expected = with_gradients(
        lambda q, k, v: scaled_dot_product_attention(q, k, v, attn_mask=seen, enable_gqa=True),
        q,
        k,
        v,
    )
    found = with_gradients(
        lambda q, k, v: flash_attention(q, k, v, causal=causal, tile_tokens=4), q, k, v
    )
    for a, b in zip(found, expected, strict=True):
        assert furthest(a, b) <= 1e-10


# --- law ---------------------------------------------------------------------------------------
@pytest.mark.parametrize("causal", [False, True])
@pytest.mark.parametrize(("T", "S", "H", "G"), [(3, 5, 2, 1), (4, 4, 1, 1)])
def test_gradients_are_those_of_small_differences(T, S, H, G, causal):
    q, k, v = random_qkv(T, S, H, G, K=2)
    torch.autograd.gradcheck(
        lambda q, k, v: flash_attention(q, k, v, causal=causal, tile_tokens=2), (q, k, v)
    )


@given(
    st.integers(1, 10),
    st.integers(0, 6),
    st.integers(1, 12),
    st.sampled_from([(1, 1), (2, 1), (3, 3)]),
    st.booleans(),
)
@settings(max_examples=60, deadline=None)
def test_any_lengths_and_any_tile_give_the_same(T, n_earlier, tile, heads, causal):
    q, k, v = (x.detach() for x in random_qkv(T, T + n_earlier, *heads, K=2))
    found = flash_attention(q, k, v, causal=causal, tile_tokens=tile)
    assert furthest(found, naive(q, k, v, causal)) <= 1e-10


@given(st.lists(st.tuples(st.floats(-50, 50), st.floats(-50, 50)), min_size=1, max_size=9))
def test_an_online_softmax_is_the_softmax(pairs):
    scores, values = map(list, zip(*pairs, strict=True))
    weights = torch.tensor(scores, dtype=torch.float64).softmax(dim=0)
    expected = (weights * torch.tensor(values, dtype=torch.float64)).sum().item()
    for tile in (1, 2, 5):
        assert online_softmax_sum(scores, values, tile) == pytest.approx(expected, abs=1e-10)


def test_a_tile_that_nobody_may_see_is_never_read():
    q, k, v = (x.detach() for x in random_qkv(T=8, S=8))
    expected = flash_attention(q, k, v, causal=True, tile_tokens=4)[:, :, :4]
    k[:, :, 4:], v[:, :, 4:] = math.nan, math.nan
    found = flash_attention(q, k, v, causal=True, tile_tokens=4)
    assert found[:, :, :4].equal(expected)
    assert found[:, :, 4:].isnan().all()
    logsumexp = torch.zeros(1, 1, 8, 1).double()
    grad = torch.ones_like(q)
    grad_q, _, _ = flash_backward(q, k, v, found, logsumexp, grad, True, tile_tokens=4)
    assert grad_q[:, :, :4].isfinite().all()


# --- law: memory -------------------------------------------------------------------------------
SIZES = [64, 128, 256, 512, 1024, 2048]


def peaks(function, sizes, backward, K=2):
    found = []
    for n in sizes:
        q, k, v = random_qkv(n, n, K=K, dtype=torch.float32)

        def run(q=q, k=k, v=v):
            if backward:
                function(q, k, v).sum().backward()
            else:
                function(q.detach(), k.detach(), v.detach())

        found.append(peak_elements(run))
    return found


def slope(sizes, counts):
    """The exponent a in counts = c · sizes^a, by least squares of the logarithms."""
    return np.polyfit(np.log(sizes), np.log(counts), 1)[0]


@pytest.mark.parametrize("backward", [False, True])
@pytest.mark.parametrize("causal", [False, True])
def test_the_peak_of_naive_attention_grows_as_the_square(causal, backward):
    found = peaks(lambda q, k, v: naive(q, k, v, causal), SIZES, backward)
    assert slope(SIZES, found) == pytest.approx(2, abs=0.02)


@pytest.mark.parametrize(("causal", "backward"), [(False, False), (True, True)])
def test_the_peak_of_tiled_attention_does_not(causal, backward):
    found = peaks(
        lambda q, k, v: flash_attention(q, k, v, causal=causal, tile_tokens=128), SIZES, backward
    )
    assert slope(SIZES, found) <= 1.1


@pytest.mark.parametrize("causal", [False, True])
@pytest.mark.parametrize("K", [2, 16])
def test_each_further_token_costs_its_value_a_logsumexp_and_three_gradients(causal, K):
    for backward, n_elements in ((False, K + 1), (True, K + 1 + 3 * K)):
        short, long = peaks(
            lambda q, k, v: flash_attention(q, k, v, causal=causal, tile_tokens=32),
            [64, 144],
            backward,
            K,
        )
        assert long - short == (144 - 64) * n_elements


def test_no_tensor_holds_all_scores():
    n, K = 512, 4
    q, k, v = random_qkv(n, n, K=K)
    with Meter() as meter:
        flash_attention(q, k, v).sum().backward()
    assert meter.largest == 64 * 64  # one tile
    q.grad = k.grad = v.grad = None
    with Meter() as meter:
        naive(q, k, v).sum().backward()
    assert meter.largest == n * n


# --- bad input ---------------------------------------------------------------------------------
def zeros(*shape):
    return torch.zeros(shape)


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (
            lambda: flash_attention(zeros(1, 3, 2, 4), zeros(1, 2, 2, 4), zeros(1, 2, 2, 4)),
            "H a multiple of G; got [1, 3, 2, 4], [1, 2, 2, 4]",
        ),
        (
            lambda: flash_attention(zeros(1, 2, 2, 4), zeros(1, 0, 2, 4), zeros(1, 0, 2, 4)),
            "H a multiple of G",
        ),
        (
            lambda: flash_attention(zeros(1, 1, 2, 4), zeros(1, 1, 0, 4), zeros(1, 1, 0, 4)),
            "at least one key",
        ),
        (
            lambda: flash_attention(
                zeros(1, 1, 3, 4), zeros(1, 1, 2, 4), zeros(1, 1, 2, 4), causal=True
            ),
            "T = 3, S = 2. Pass the keys of all tokens",
        ),
        (
            lambda: flash_attention(*[zeros(1, 1, 2, 4)] * 3, tile_tokens=0),
            "at least 1 token; got 0",
        ),
        (lambda: online_softmax_sum([], []), "at least one"),
        (lambda: online_softmax_sum([1.0], [1.0, 2.0]), "equally many"),
        (lambda: online_softmax_sum([1.0, -math.inf], [1.0, 2.0]), "left out of both"),
        (lambda: online_softmax_sum([1.0], [1.0], tile=0), "at least 1 token; got 0"),
    ],
)
def test_bad_input_is_named(call, words):
    with pytest.raises(ValueError) as error:
        call()
    assert words in str(error.value)


def test_shapes_that_do_not_fit_are_named_without_the_tests_own_check():
    plain = flash_attention.__wrapped__  # as a learner calls it: beartype stands before it here
    for k, v in ((zeros(2, 1, 2, 4), zeros(2, 1, 2, 4)), (zeros(1, 1, 2, 4), zeros(1, 1, 3, 4))):
        with pytest.raises(ValueError, match="with q's B and K"):
            plain(zeros(1, 1, 2, 4), k, v)


def test_gradients_of_gradients_are_refused():
    q, k, v = random_qkv(T=2, S=2)
    with pytest.raises(ValueError, match="no gradients of gradients"):
        torch.autograd.grad(flash_attention(q, k, v).sum(), q, create_graph=True)


def test_no_query_gives_no_value():
    q, k, v = random_qkv(T=0, S=3)
    assert flash_attention(q, k, v, causal=True).shape == (1, 1, 0, 8)
