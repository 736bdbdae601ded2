import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from minillm.mixers.feature_maps import (
    EluFeatures,
    FavorFeatures,
    draw_omega,
    favor,
)


def random(*shape, seed=0):
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def omega(n_features, d_head, orthogonal, seed):
    generator = torch.Generator().manual_seed(seed)
    return draw_omega(n_features, d_head, orthogonal, generator).double()


def estimates(q, k, n_features, orthogonal, n_draws):
    """Of exp(q · k), by n_draws sets of directions, each of whole blocks."""
    drawn = omega(n_draws * n_features, len(q), orthogonal, seed=0)  # blocks know nothing of others
    products = favor(q, drawn) * favor(k, drawn) * n_draws
    return products.reshape(n_draws, n_features).sum(dim=1)


def weights(features, q, k):
    """Of each query, how much of each key: φ(q) · φ(k), summing to 1."""
    phi_q, phi_k = features.build(q.shape[-1], dtype=q.dtype)(q, k)
    products = phi_q @ phi_k.mT
    return products / products.sum(dim=-1, keepdim=True)


# --- by hand -----------------------------------------------------------------------------------
def test_elu_and_one_is_a_line_above_zero_and_exp_below():
    x = torch.tensor([3.0, 0.0, -math.log(4)]).reshape(1, 1, 1, 3)
    for phi in EluFeatures().build(3)(x, x):
        assert phi.flatten().tolist() == pytest.approx([4, 1, 0.25])


def test_favor_on_two_directions_by_hand():
    # x = (1, 2): |x|²/2 is 2.5; the directions give 1 and -2; √m is √2
    phi = favor(torch.tensor([1.0, 2.0]), torch.tensor([[1.0, 0.0], [0.0, -1.0]]))
    assert phi.tolist() == pytest.approx(
        [math.exp(1 - 2.5) / math.sqrt(2), math.exp(-2 - 2.5) / math.sqrt(2)]
    )


@pytest.mark.parametrize(
    ("features", "n_features"),
    [(EluFeatures(), 6), (FavorFeatures(10), 10)],
)
def test_features_are_as_many_as_said(features, n_features):
    built = features.build(6)
    x = random(1, 2, 3, 6).float()
    assert built.n_features == n_features
    assert [phi.shape for phi in built(x, x)] == [(1, 2, 3, n_features)] * 2


def test_orthogonal_directions_stand_at_right_angles_within_a_block():
    drawn = omega(10, 4, True, seed=3)
    directions = drawn / drawn.norm(dim=1, keepdim=True)
    for block in directions.split(4):
        torch.testing.assert_close(
            block @ block.T, torch.eye(len(block)).double(), rtol=0, atol=1e-6
        )
    assert (directions[:4] @ directions[4:8].T).abs().max() > 0.1
    free = omega(10, 4, False, seed=3)
    assert (free[0] @ free[1]).abs() > 0.1


# --- twin --------------------------------------------------------------------------------------
def test_the_layers_favor_weighs_as_the_plain_one_does():
    q, k = 2 * random(2, 1, 1, 7, 8)
    built = FavorFeatures(16, seed=5).build(8, dtype=torch.float64)
    plain = favor(q / 8**0.25, built.omega) @ favor(k / 8**0.25, built.omega).mT
    torch.testing.assert_close(
        weights(FavorFeatures(16, seed=5), q, k), plain / plain.sum(dim=-1, keepdim=True)
    )


def test_a_query_of_any_size_neither_overflows_nor_vanishes():
    q, k = random(2, 1, 1, 5, 8).float()
    built = FavorFeatures(16).build(8)
    for size in (1e-3, 1, 1e3):
        phi_q, _ = built(size * q, k)
        assert phi_q.isfinite().all()
        assert (phi_q.amax(dim=-1) == 1).all()
    assert (favor(1e3 * q, built.omega) == 0).all()  # as it would be without


def test_the_maximum_changes_no_gradient():
    gradients = []
    built = FavorFeatures(16).build(4, dtype=torch.float64)
    for plain in (True, False):
        q, k = (x.clone().requires_grad_() for x in random(2, 1, 1, 5, 4))
        phi_q, phi_k = built(q, k)
        if plain:
            phi_q = favor(q / 4**0.25, built.omega)
        products = phi_q @ phi_k.mT
        (products / products.sum(dim=-1, keepdim=True)).square().sum().backward()
        gradients.append((q.grad, k.grad))
    torch.testing.assert_close(gradients[0], gradients[1])


# --- reference ---------------------------------------------------------------------------------
@pytest.mark.parametrize("orthogonal", [False, True])
def test_favor_is_right_on_average(orthogonal):
    q, k = 0.6 * random(2, 4, seed=1)
    found = estimates(q, k, 8, orthogonal, n_draws=8000)
    standard_error = found.std() / math.sqrt(len(found))
    assert standard_error < 0.02 * found.mean()
    assert abs(found.mean() - (q @ k).exp()) < 4 * standard_error


def test_the_error_falls_as_one_over_the_root_of_the_features():
    q, k = 0.5 * random(2, 4, seed=2)
    counts = [4, 16, 64, 256]
    errors = []
    for n_features in counts:
        found = estimates(q, k, n_features, False, n_draws=1000)
        errors.append((found - (q @ k).exp()).square().mean().sqrt().log())
    x, y = torch.tensor(counts).double().log(), torch.stack(errors)
    x, y = x - x.mean(), y - y.mean()
    assert (x @ y / (x @ x)).item() == pytest.approx(-0.5, abs=0.1)


def test_orthogonal_directions_vary_less():
    q, k = 0.3 * random(2, 8, seed=5)  # larger ones have too heavy a tail to be measured
    free, orthogonal = (
        estimates(q, k, 8, kind, n_draws=20000).var().item() for kind in (False, True)
    )
    assert orthogonal < 0.9 * free


def test_with_many_features_the_weights_are_those_of_softmax():
    q, k = 0.5 * random(2, 1, 1, 6, 4, seed=4)
    softmax = (q @ k.mT / math.sqrt(4)).softmax(dim=-1)
    torch.testing.assert_close(
        weights(FavorFeatures(4096), q, k), softmax, rtol=0, atol=0.05 * softmax.max().item()
    )


# --- law ---------------------------------------------------------------------------------------
@given(st.integers(1, 12), st.integers(1, 9), st.booleans(), st.integers(0, 99))
@settings(max_examples=40, deadline=None)
def test_a_seed_means_the_same_directions_and_another_seed_others(m, d_model, orthogonal, seed):
    def drawn(seed):
        return FavorFeatures(m, orthogonal=orthogonal, seed=seed).build(d_model).omega

    before = torch.random.get_rng_state()
    assert drawn(seed).shape == (m, d_model)
    assert torch.equal(drawn(seed), drawn(seed))
    assert not torch.equal(drawn(seed), drawn(seed + 1))
    assert torch.equal(torch.random.get_rng_state(), before)


def test_directions_go_where_the_layer_is():
    built = FavorFeatures(4).build(6, device="meta", dtype=torch.bfloat16)
    assert (built.omega.device.type, built.omega.dtype) == ("meta", torch.bfloat16)
    with torch.device("meta"):  # a default device changes nothing
        assert FavorFeatures(4).build(6).omega.device.type == "cpu"


# --- what stops it -----------------------------------------------------------------------------
def test_no_features_are_refused():
    with pytest.raises(ValueError, match=r"n_features must be at least 1.*got 0"):
        FavorFeatures(0)
