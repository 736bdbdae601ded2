import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from transformers import LlamaConfig
from transformers.modeling_rope_utils import ROPE_INIT_FUNCTIONS
from transformers.models.llama.modeling_llama import LlamaRotaryEmbedding, apply_rotary_pos_emb

from minillm.model.rope import (
    Llama3Scaling,
    NtkScaling,
    PositionInterpolation,
    RopeConfig,
    frequencies,
    rotate,
    rotate_naive,
    tables,
)

THOUSAND = 1000.0  # with K = 6: θ is 1, 1/10, 1/100


def random(*shape, seed=0, dtype=torch.float64):
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=dtype)


def tables64(theta, n_positions):
    return tables(theta, n_positions, dtype=torch.float64)


# --- by hand -----------------------------------------------------------------------------------
def test_the_first_pair_turns_one_radian_a_token_and_the_others_slower():
    assert frequencies(6, THOUSAND).tolist() == pytest.approx([1, 0.1, 0.01], rel=1e-15)
    assert frequencies(2).tolist() == [1.0]
    assert frequencies(128)[-1].item() == pytest.approx(10000 ** (-126 / 128))


def test_a_quarter_turn_sends_three_four_to_minus_four_three():
    theta = torch.tensor([math.pi / 2, math.pi], dtype=torch.float64)
    # the pairs are (3, 4) and (1, 2); at position 1 the second makes half a turn
    x = torch.tensor([[3.0, 1.0, 4.0, 2.0]] * 2, dtype=torch.float64)
    turned = rotate(x, *tables64(theta, 2))
    assert turned[0].tolist() == [3, 1, 4, 2]
    assert turned[1].tolist() == pytest.approx([-4, -1, 3, -2], abs=1e-15)


def test_interpolation_puts_place_2m_where_place_m_was():
    plain, _ = RopeConfig(base=THOUSAND).tables(6, 10)
    halved, _ = RopeConfig(base=THOUSAND, scaling=PositionInterpolation(2.0)).tables(6, 20)
    assert torch.equal(halved[::2], plain)
    assert not torch.equal(halved[:10], plain)


def test_ntk_scaling_slows_the_slowest_pair_by_the_factor_and_the_fastest_not_at_all():
    # the base is multiplied by 8^(6/4)
    theta = NtkScaling(8.0).frequencies(6, THOUSAND)
    assert theta.tolist() == pytest.approx([1, 0.1 / 8**0.5, 0.01 / 8], rel=1e-12)


def test_llama_3_scaling_leaves_fast_pairs_slows_slow_ones_and_mixes_between():
    # in 200 tokens they turn 31.8, 3.18 and 0.318 times: above 4, between, below 1
    scaling = Llama3Scaling(
        factor=8.0, low_freq_factor=1.0, high_freq_factor=4.0, original_context_length=200
    )
    share = (200 * 0.1 / (2 * math.pi) - 1) / (4 - 1)
    expected = [1, share * 0.1 + (1 - share) * 0.1 / 8, 0.01 / 8]
    assert scaling.frequencies(6, THOUSAND).tolist() == pytest.approx(expected, rel=1e-12)
    assert 0.7 < share < 0.75


def test_a_config_without_scaling_is_the_plain_formula_in_float32():
    cos, sin = RopeConfig().tables(8, 5)
    assert cos.dtype == sin.dtype == torch.float32
    assert cos.shape == sin.shape == (5, 8)
    assert torch.equal(RopeConfig().frequencies(8), frequencies(8, 10000.0))


# --- twin --------------------------------------------------------------------------------------
@given(st.integers(1, 8), st.integers(1, 9), st.integers(0, 99))
@settings(max_examples=60, deadline=None)
def test_rotation_is_multiplication_of_complex_numbers(n_pairs, n_tokens, seed):
    theta = frequencies(2 * n_pairs, base=50.0)
    x = random(2, 3, n_tokens, 2 * n_pairs, seed=seed)
    angles = torch.outer(torch.arange(n_tokens).double(), theta)
    turned = rotate(x, *tables64(theta, n_tokens))
    torch.testing.assert_close(turned, rotate_naive(x, angles), rtol=0, atol=1e-13)


def test_the_papers_pairs_of_neighbours_are_ours_after_a_permutation():
    theta = frequencies(6, THOUSAND)
    x, position = random(6), 7
    matrix = torch.zeros(6, 6).double()  # equation (15): 2 × 2 rotations along the diagonal
    for pair, angle in enumerate((position * theta).tolist()):
        block = slice(2 * pair, 2 * pair + 2)
        matrix[block, block] = torch.tensor(
            [[math.cos(angle), -math.sin(angle)], [math.sin(angle), math.cos(angle)]],
            dtype=torch.float64,
        )
    neighbours_first = [0, 2, 4, 1, 3, 5]  # the pair (x0, x1) becomes (first half, second half)
    cos, sin = tables64(theta, 8)
    ours = rotate(x[None, neighbours_first], cos[7:], sin[7:])[0]
    torch.testing.assert_close(ours, (matrix @ x)[neighbours_first], rtol=0, atol=1e-14)
    unpermuted = rotate(x[None], cos[7:], sin[7:])[0]
    assert (unpermuted - matrix @ x).abs().max() > 0.1


def test_tables_may_differ_from_row_to_row():
    cos, sin = tables64(frequencies(4), 9)
    x, positions = random(2, 3, 2, 4), torch.tensor([[0, 1], [5, 6]])
    both = rotate(x, cos[positions][:, None], sin[positions][:, None])
    for row in range(2):
        one = rotate(x[row], cos[positions[row]], sin[positions[row]])
        assert torch.equal(both[row], one)


# --- reference ---------------------------------------------------------------------------------
def llama(d_head, base, n_positions=64, **scaling):
    return LlamaConfig(
        hidden_size=2 * d_head,
        num_attention_heads=2,
        max_position_embeddings=n_positions,
        rope_parameters={"rope_type": "default", "rope_theta": base, **scaling},
    )


LLAMA_3 = {
    "factor": 8.0,
    "low_freq_factor": 1.0,
    "high_freq_factor": 4.0,
    "original_max_position_embeddings": 32,
}
SCALINGS = {
    "default": ({}, None),
    "linear": ({"rope_type": "linear", "factor": 4.0}, PositionInterpolation(4.0)),
    "llama3": (
        {"rope_type": "llama3", **LLAMA_3},
        Llama3Scaling(
            factor=8.0, low_freq_factor=1.0, high_freq_factor=4.0, original_context_length=32
        ),
    ),
}


@pytest.mark.parametrize("name", SCALINGS)
@pytest.mark.parametrize(("d_head", "base"), [(8, 10000.0), (16, 500000.0)])
def test_transformers_turns_queries_and_keys_in_the_same_way(name, d_head, base):
    theirs, ours = SCALINGS[name]
    embedding = LlamaRotaryEmbedding(llama(d_head, base, **theirs))
    rope = RopeConfig(base=base, scaling=ours)
    theta = rope.frequencies(d_head)
    torch.testing.assert_close(theta.float(), embedding.inv_freq, rtol=1e-6, atol=0)
    if ours is not None:
        assert not torch.allclose(theta, frequencies(d_head, base), rtol=0.1)
    q = random(2, 2, 64, d_head, dtype=torch.float32)
    k = random(2, 1, 64, d_head, seed=1, dtype=torch.float32)
    cos, sin = embedding(q, torch.arange(64)[None])
    turned = apply_rotary_pos_emb(q, k, cos, sin)
    for x, expected in zip((q, k), turned, strict=True):
        largest = expected.abs().max().item()
        torch.testing.assert_close(
            rotate(x, *rope.tables(d_head, 64)), expected, rtol=0, atol=1e-5 * largest
        )


@pytest.mark.parametrize("times", [2, 4])
def test_transformers_dynamic_ntk_is_ours_for_a_text_that_is_so_many_times_longer(times):
    config = llama(8, 10000.0, rope_type="dynamic", factor=1.0)
    theirs, _ = ROPE_INIT_FUNCTIONS["dynamic"](config, "cpu", seq_len=64 * times)
    ours = NtkScaling(float(times)).frequencies(8, 10000.0)
    torch.testing.assert_close(ours.float(), theirs, rtol=1e-6, atol=0)


# --- law ---------------------------------------------------------------------------------------
@given(st.integers(0, 30), st.integers(0, 30), st.integers(0, 500), st.integers(0, 99))
@settings(max_examples=100, deadline=None)
def test_a_score_depends_on_the_distance_alone(m, n, shift, seed):
    cos, sin = tables64(frequencies(16), 531)
    q, k = random(2, 1, 16, seed=seed)

    def score(m, n):
        return (rotate(q, cos[[m]], sin[[m]]) * rotate(k, cos[[n]], sin[[n]])).sum().item()

    assert abs(score(m + shift, n + shift) - score(m, n)) <= 1e-10 * (q.norm() * k.norm()).item()


def test_another_distance_gives_another_score():
    cos, sin = tables64(frequencies(16), 9)
    q, k = random(1, 16), random(1, 16, seed=1)
    scores = [(rotate(q, cos[[m]], sin[[m]]) * k).sum().item() for m in range(9)]
    gaps = [abs(a - b) for place, a in enumerate(scores) for b in scores[:place]]
    assert min(gaps) > 1e-3


@given(st.integers(0, 200), st.integers(0, 200))
@settings(max_examples=50, deadline=None)
def test_turning_twice_is_turning_by_the_sum_and_keeps_the_length(m, n):
    cos, sin = tables64(frequencies(8), 401)
    x = random(1, 8)
    twice = rotate(rotate(x, cos[[m]], sin[[m]]), cos[[n]], sin[[n]])
    once = rotate(x, cos[[m + n]], sin[[m + n]])
    torch.testing.assert_close(twice, once, rtol=0, atol=1e-12)
    torch.testing.assert_close(once.norm(), x.norm(), rtol=1e-13, atol=0)


@given(st.floats(1, 64), st.integers(16, 10_000), st.integers(2, 32))
@settings(max_examples=50, deadline=None)
def test_every_remedy_slows_each_pair_by_at_most_the_factor_and_speeds_up_none(
    factor, context_length, n_pairs
):
    before = frequencies(2 * n_pairs, 10000.0)
    for scaling in (
        PositionInterpolation(factor),
        NtkScaling(factor),
        Llama3Scaling(factor=factor, original_context_length=context_length),
    ):
        slowed = before / scaling.frequencies(2 * n_pairs, 10000.0)
        assert slowed.min().item() >= 1 - 1e-9 and slowed.max().item() <= factor * (1 + 1e-9)
        assert (slowed.diff() >= -1e-9).all()  # slower pairs are slowed more


def test_far_positions_are_as_exact_as_near_ones():
    theta = frequencies(4, THOUSAND)
    cos, sin = tables(theta, 100_001)
    angles = 100_000 * theta
    torch.testing.assert_close(cos[-1, :2].double(), angles.cos(), rtol=0, atol=6e-8)
    torch.testing.assert_close(sin[-1, 2:].double(), angles.sin(), rtol=0, atol=6e-8)


# --- bad input ---------------------------------------------------------------------------------
@pytest.mark.parametrize(
    ("call", "words"),
    [
        (lambda: frequencies(7), "d_head must be even and at least 2; got 7"),
        (lambda: frequencies(0), "got 0"),
        (lambda: frequencies(8, base=1.0), "base must be a finite number above 1"),
        (lambda: frequencies(8, base=math.nan), "got nan"),
        (lambda: RopeConfig(base=0.0), "such as 10000.0; got 0.0"),
        (lambda: RopeConfig(base=math.inf), "got inf"),
        (lambda: RopeConfig().frequencies(5), "got 5"),
        (lambda: PositionInterpolation(0.5), "factor must be a finite number of at least 1"),
        (lambda: NtkScaling(math.nan), "got nan"),
        (lambda: NtkScaling(2.0).frequencies(2, 10000.0), "d_head must be at least 4; got 2"),
        (
            lambda: Llama3Scaling(
                factor=2.0, low_freq_factor=4.0, high_freq_factor=4.0, original_context_length=8
            ),
            "below high_freq_factor; got 4.0 and 4.0",
        ),
        (lambda: Llama3Scaling(factor=0.0, original_context_length=8), "got 0.0"),
        (
            lambda: Llama3Scaling(factor=2.0, original_context_length=0),
            "original_context_length must be at least 1",
        ),
    ],
)
def test_bad_input_is_named(call, words):
    with pytest.raises(ValueError) as error:
        call()
    assert words in str(error.value)
