"""Directions are kept and lengths made equal; matrices that go together go as if alone."""

import copy
import math

import pytest
import torch
import torch.optim._muon
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from minillm.model.config import TransformerConfig
from minillm.optim.adamw import AdamWState, adamw_update
from minillm.optim.groups import hidden_matrices_and_others
from minillm.optim.muon import (
    COEFFICIENTS,
    Muon,
    muon_update,
    newton_schulz,
    newton_schulz_naive,
    step_scale,
)
from minillm.train.checkpoint import load, save
from minillm.train.run_state import pack, unpack

BOTH = pytest.mark.parametrize("orthogonal", [newton_schulz_naive, newton_schulz])
A, B, C = COEFFICIENTS


def numbers(*shape, seed=0, dtype=torch.float64):
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(shape, generator=generator, dtype=torch.float64).to(dtype)


def with_values(rows, columns, values, seed=0):
    """U S Vᵀ, and U Vᵀ."""
    u, _, v = torch.linalg.svd(numbers(rows, columns, seed=seed), full_matrices=False)
    return u * values @ v, u @ v


def close(found, expected, tolerance):
    atol = tolerance * expected.abs().max().item()
    torch.testing.assert_close(found, expected, rtol=0, atol=atol)


def parameters(*shapes, dtype=torch.float64):
    return [nn.Parameter(numbers(*shape, seed=n, dtype=dtype)) for n, shape in enumerate(shapes, 1)]


def give_gradients(given, step):
    for n, parameter in enumerate(given):
        parameter.grad = numbers(*parameter.shape, seed=100 * step + n, dtype=parameter.dtype)


SHAPES = [(6, 2), (4, 4), (6, 2), (2, 6), (4, 4), (6, 2), (2, 6), (3, 3)]


def model_and_optimizer():
    torch.manual_seed(0)
    model = TransformerConfig(vocab_size=11, d_model=8, n_layers=2).build(seed=0)
    return model, Muon(*hidden_matrices_and_others(model), weight_decay=0.1, others_lr=0.01)


def take(model, optimizer, steps):
    for step in steps:
        tokens = (torch.arange(10).reshape(2, 5) * (step + 1)) % 11
        optimizer.zero_grad()
        model(tokens).square().mean().backward()
        optimizer.step()


# --- by hand -----------------------------------------------------------------------------------
@BOTH
def test_one_step_is_the_polynomial_of_each_singular_value(orthogonal):
    x = orthogonal(torch.tensor([[3.0, 0.0], [0.0, 4.0]]).double(), n_steps=1)
    for found, s in zip(x.diagonal().tolist(), (0.6, 0.8), strict=True):
        assert found == pytest.approx(A * s + B * s**3 + C * s**5)
    assert x[0, 1] == x[1, 0] == 0


@BOTH
def test_a_matrix_of_zeros_stays_zeros_and_a_short_one_is_divided_by_epsilon(orthogonal):
    assert orthogonal(torch.zeros(2, 5)).tolist() == [[0.0] * 5] * 2
    # 1e-9 / 1e-7 is 0.01, whose powers count for little
    x = orthogonal(torch.tensor([[1e-9, 0.0, 0.0]]).double(), n_steps=1)
    assert x.tolist() == [pytest.approx([0.01 * A + 1e-6 * B + 1e-10 * C, 0.0, 0.0])]


@BOTH
def test_other_coefficients_and_another_epsilon_are_heard(orthogonal):
    # Newton's own: s becomes 1.5 s - 0.5 s³; (1, 0, 0) is divided by 2
    x = orthogonal(torch.eye(1, 3), coefficients=(1.5, -0.5, 0.0), n_steps=1, epsilon=2.0)
    assert x.tolist() == [pytest.approx([0.75 - 0.0625, 0.0, 0.0])]


def test_the_scale_of_a_step_follows_rows_and_columns():
    assert step_scale(9, 1) == 3.0
    assert step_scale(1, 9) == 1.0
    assert step_scale(9, 4, "match_adamw") == step_scale(4, 9, "match_adamw") == 0.2 * 3


def test_the_gradient_counts_in_the_momentum_and_once_more_ahead_of_it():
    gradient, momentum = numbers(2, 3), numbers(2, 3, seed=1)
    before = gradient.clone(), momentum.clone()
    update, new = muon_update(gradient, momentum, beta=0.75)
    close(new, 0.75 * momentum + 0.25 * gradient, 1e-15)
    close(update, newton_schulz(0.75 * new + 0.25 * gradient), 1e-12)
    assert torch.equal(gradient, before[0])  # nothing given is changed
    assert torch.equal(momentum, before[1])


def test_weight_decay_shrinks_by_lr_times_itself_whatever_the_scale():
    weight = nn.Parameter(torch.full((4, 1), 10.0).double())
    weight.grad = torch.zeros(4, 1).double()
    optimizer = Muon([weight], lr=0.5, weight_decay=0.1)
    optimizer.step()
    assert weight.tolist() == [[9.5]] * 4


def test_the_first_step_of_a_row_and_of_a_gain():
    row, gain = nn.Parameter(torch.zeros(1, 2).double()), nn.Parameter(torch.ones(2).double())
    row.grad, gain.grad = torch.tensor([[3.0, 4.0]]).double(), torch.tensor([5.0, -5.0]).double()
    Muon([row], [gain], lr=0.1, n_steps=1, others_lr=0.5).step()
    length = A + B + C
    assert row.tolist() == [pytest.approx([-0.1 * 0.6 * length, -0.1 * 0.8 * length])]
    assert gain.tolist() == pytest.approx([0.5, 1.5])


def test_the_learning_rate_is_read_at_every_step_and_groups_have_their_own():
    first, second = parameters((3, 3), (3, 3))
    groups = [{"params": [first], "lr": 0.0, "initial_lr": 0.0}, {"params": [second]}]
    optimizer = Muon(groups, lr=0.1)
    before = first.detach().clone(), second.detach().clone()
    give_gradients([first, second], 0)
    optimizer.step()
    assert torch.equal(first, before[0])
    assert not torch.equal(second, before[1])
    optimizer.param_groups[0]["lr"] = 0.1
    optimizer.step()
    assert not torch.equal(first, before[0])


def test_what_has_no_gradient_is_left_out():
    first, second = parameters((3, 3), (3, 3))
    bare, gain = parameters((2,), (2,))
    optimizer = Muon([first, second], [bare, gain])
    give_gradients([second, gain], 0)
    before = first.detach().clone(), bare.detach().clone()
    optimizer.step()
    assert torch.equal(first, before[0])
    assert torch.equal(bare, before[1])
    assert set(optimizer.state) == {second, gain}


def test_a_closure_is_called_with_gradients_on_and_its_loss_is_given_back():
    [weight] = parameters((2, 2))
    optimizer = Muon([weight])

    def closure():
        optimizer.zero_grad()
        loss = weight.square().sum()
        loss.backward()
        return loss

    expected = weight.square().sum().item()
    assert optimizer.step(closure).item() == pytest.approx(expected)
    assert optimizer.step() is None


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16])
def test_state_is_one_number_a_matrix_weight_and_two_for_others_in_their_type(dtype):
    matrices, others = parameters(*SHAPES, dtype=dtype), parameters((5,), (7, 2), dtype=dtype)
    optimizer = Muon(matrices, others)
    give_gradients([*matrices, *others], 0)
    optimizer.step()
    for part, factor in ((matrices, 1), (others, 2)):
        for parameter in part:
            held = [v for v in optimizer.state[parameter].values() if isinstance(v, torch.Tensor)]
            assert {tensor.dtype for tensor in held} == {dtype}
            n_bytes = sum(tensor.untyped_storage().nbytes() for tensor in held)
            assert n_bytes == factor * parameter.nbytes
    assert [set(optimizer.state[p]) for p in (matrices[0], others[0])] == [
        {"momentum"},
        {"step", "mean", "square"},
    ]
    assert type(optimizer.state[others[0]]["step"]) is int


# --- twin --------------------------------------------------------------------------------------
@pytest.mark.parametrize("shape", [(1, 1), (4, 4), (5, 4), (4, 8), (9, 2), (2, 3, 7), (2, 2, 6, 3)])
@pytest.mark.parametrize("n_steps", [1, 2, 5, 12])
def test_fast_is_naive(shape, n_steps):
    matrix = numbers(*shape)
    naive = newton_schulz_naive(matrix, n_steps=n_steps)
    fast = newton_schulz(matrix, n_steps=n_steps)
    assert fast.shape == matrix.shape
    close(fast, naive, 1e-10)


@pytest.mark.parametrize("rank", [1, 3, 16])
def test_fast_is_naive_in_float32_too_where_directions_are_missing(rank):
    matrix = (numbers(16, rank) @ numbers(rank, 64, seed=1)).float()
    naive = newton_schulz_naive(matrix.double())
    close(newton_schulz(matrix).double(), naive, 2e-3)


@pytest.mark.parametrize(
    ("dtype", "n_steps"), [(torch.bfloat16, 5), (torch.bfloat16, 12), (torch.float32, 20)]
)
def test_rounding_grows_no_direction_beyond_bounds_where_directions_are_missing(dtype, n_steps):
    matrix = (numbers(16, 2) @ numbers(2, 64, seed=1)).to(dtype)
    lengths = torch.linalg.svdvals(newton_schulz(matrix, n_steps=n_steps).float())
    assert lengths.max() < 1.25


def test_stacked_matrices_go_as_if_alone():
    together, alone = parameters(*SHAPES), parameters(*SHAPES)
    stacked = Muon(together, lr=0.1, weight_decay=0.01)
    singles = [Muon([parameter], lr=0.1, weight_decay=0.01) for parameter in alone]
    for step in range(4):
        give_gradients(together, step)
        give_gradients(alone, step)
        stacked.step()
        for single in singles:
            single.step()
    for a, b, single in zip(together, alone, singles, strict=True):
        close(a.detach(), b.detach(), 1e-6)
        close(stacked.state[a]["momentum"], single.state[b]["momentum"], 1e-6)


@pytest.mark.parametrize("scale", ["original", "match_adamw"])
def test_the_class_is_the_pure_updates_in_a_loop(scale):
    matrices, others = parameters((6, 2), (4, 4), (6, 2)), parameters((5,), (3, 2))
    optimizer = Muon(
        matrices, others, lr=0.1, beta=0.9, weight_decay=0.2, scale=scale, n_steps=3,
        others_lr=0.05, others_betas=(0.8, 0.9), others_epsilon=1e-3, others_weight_decay=0.3,
    )  # fmt: skip
    weights = [p.detach().clone() for p in (*matrices, *others)]
    memories = [torch.zeros_like(w) for w in weights[:3]]
    memories += [AdamWState(torch.zeros_like(w), torch.zeros_like(w)) for w in weights[3:]]
    for step in range(1, 5):
        give_gradients([*matrices, *others], step)
        for n, parameter in enumerate((*matrices, *others)):
            if n < 3:
                update, memories[n] = muon_update(
                    parameter.grad, memories[n], beta=0.9, scale=scale, n_steps=3
                )
                weights[n] -= 0.1 * (update + 0.2 * weights[n])
            else:
                update, memories[n] = adamw_update(
                    parameter.grad, memories[n], step, betas=(0.8, 0.9), epsilon=1e-3
                )
                weights[n] -= 0.05 * (update + 0.3 * weights[n])
        optimizer.step()
    for parameter, weight in zip((*matrices, *others), weights, strict=True):
        close(parameter.detach(), weight, 1e-12)


# --- reference ---------------------------------------------------------------------------------
@pytest.mark.parametrize("theirs", ["original", "match_rms_adamw"])
def test_it_is_torch_muon_where_that_computes_in_float64(theirs, monkeypatch):
    monkeypatch.setattr(torch.Tensor, "bfloat16", torch.Tensor.double)
    ours, reference = parameters(*SHAPES), parameters(*SHAPES)
    scale = {"match_rms_adamw": "match_adamw"}.get(theirs, theirs)
    a = Muon(ours, lr=0.1, beta=0.9, weight_decay=0.2, scale=scale)
    b = torch.optim.Muon(reference, lr=0.1, momentum=0.9, weight_decay=0.2, adjust_lr_fn=theirs)
    for step in range(5):
        give_gradients(ours, step)
        give_gradients(reference, step)
        a.step()
        b.step()
    for mine, other in zip(ours, reference, strict=True):
        close(mine.detach(), other.detach(), 1e-10)


def test_torch_muon_as_it_is_rounds_to_three_digits():
    matrix = numbers(8, 32)
    theirs = torch.optim._muon._zeropower_via_newtonschulz(matrix, COEFFICIENTS, 5, 1e-7)
    close(newton_schulz(matrix), theirs.double(), 0.05)


def test_others_are_torch_adamw():
    ours, reference = parameters((5,), (3, 4)), parameters((5,), (3, 4))
    [matrix] = parameters((2, 2))
    options = {"betas": (0.8, 0.9), "weight_decay": 0.2}
    a = Muon([matrix], ours, others_lr=0.1, **{f"others_{k}": v for k, v in options.items()})
    b = torch.optim.AdamW(reference, lr=0.1, **options)
    for step in range(10):
        give_gradients(ours, step)
        give_gradients(reference, step)
        a.step()
        b.step()
    for mine, other in zip(ours, reference, strict=True):
        close(mine.detach(), other.detach(), 1e-12)


def test_a_step_that_matches_adamw_has_a_root_mean_square_of_a_fifth():
    for rows, columns in ((8, 32), (32, 8), (16, 16)):
        _, exact = with_values(rows, columns, torch.ones(min(rows, columns)).double())
        size = (exact * step_scale(rows, columns, "match_adamw")).square().mean().sqrt()
        assert size.item() == pytest.approx(0.2)


# --- law ---------------------------------------------------------------------------------------
@BOTH
@given(
    st.integers(1, 12),
    st.integers(1, 40),
    st.lists(st.floats(-2.8, 0.0), min_size=12, max_size=12),
    st.integers(0, 99),
)
@settings(max_examples=60, deadline=None)
def test_directions_stay_and_lengths_come_between_68_and_121_hundredths(
    orthogonal, rows, columns, powers, seed
):
    values = 10.0 ** torch.tensor(powers[: min(rows, columns)]).double()
    values /= values.norm()
    values = values.clamp(min=0.0016)  # of the length, which this changes by at most 2e-5
    matrix, exact = with_values(rows, columns, values, seed)
    x = orthogonal(matrix)
    found = torch.linalg.svdvals(x)
    assert 0.68 <= found.min() <= found.max() <= 1.21
    # U and V are kept: what is left after (U Vᵀ)ᵀ is symmetric and has the same positive lengths
    left = x @ exact.mT if rows <= columns else exact.mT @ x
    close(left, left.mT, 1e-9)
    close(torch.linalg.eigvalsh((left + left.mT) / 2), found.flip(0), 1e-9)


@BOTH
def test_a_direction_too_short_grows_485_times_and_no_more(orthogonal):
    matrix, _ = with_values(2, 6, torch.tensor([1.0, 1e-5]).double())
    short = torch.linalg.svdvals(orthogonal(matrix))[1].item()
    assert short == pytest.approx(A**5 * 1e-5, rel=1e-4)
    assert short < 0.68


@given(st.integers(1, 6), st.integers(1, 20), st.floats(1e-3, 1e3), st.integers(0, 99))
@settings(max_examples=40, deadline=None)
def test_size_is_forgotten_turning_is_passed_on_and_so_is_transposing(rows, columns, factor, seed):
    matrix = numbers(rows, columns, seed=seed)
    x = newton_schulz(matrix)
    close(newton_schulz(factor * matrix), x, 1e-8)
    close(newton_schulz(matrix.mT), x.mT, 1e-8)
    turn, _ = torch.linalg.qr(numbers(columns, columns, seed=seed + 1))
    close(newton_schulz(matrix @ turn), x @ turn, 1e-8)


@BOTH
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16])
def test_the_type_of_the_numbers_stays(orthogonal, dtype):
    x = orthogonal(numbers(4, 9, dtype=dtype))
    assert x.dtype == dtype
    assert torch.linalg.svdvals(x.float()).min() > 0.6


def test_ten_steps_are_five_packed_and_five_bit_for_bit(tmp_path):
    model, optimizer = model_and_optimizer()
    take(model, optimizer, range(5))
    tensors, packed = pack(model, optimizer)
    path = save(tmp_path, 5, tensors, packed)
    take(model, optimizer, range(5, 10))
    other, fresh = model_and_optimizer()
    take(other, fresh, [3])  # whatever it held is replaced
    unpack(load(path), other, fresh)
    take(other, fresh, range(5, 10))
    for a, b in zip(model.parameters(), other.parameters(), strict=True):
        assert torch.equal(a, b)


def test_ten_steps_are_five_a_state_dict_and_five_bit_for_bit():
    model, optimizer = model_and_optimizer()
    take(model, optimizer, range(5))
    saved = copy.deepcopy((model.state_dict(), optimizer.state_dict()))
    take(model, optimizer, range(5, 10))
    other, fresh = model_and_optimizer()
    other.load_state_dict(saved[0])
    fresh.load_state_dict(saved[1])
    take(other, fresh, range(5, 10))
    for a, b in zip(model.parameters(), other.parameters(), strict=True):
        assert torch.equal(a, b)


# --- what stops it -----------------------------------------------------------------------------
def test_a_gain_among_the_matrices_is_told_where_it_belongs():
    model, _ = model_and_optimizer()
    with pytest.raises(ValueError, match=r"parameters of \[\[8\].*belong to `others`.*hidden_matr"):
        Muon(model.parameters())


BAD = [
    ({"lr": -1.0}, "lr must be at least 0, and finite; got -1.0"),
    ({"lr": math.nan}, "lr must be at least 0, and finite; got nan"),
    ({"beta": 1.0}, "beta must be at least 0 and below 1; got 1.0"),
    ({"weight_decay": -0.1}, "weight_decay must be at least 0, and finite; got -0.1"),
    ({"n_steps": 0}, "n_steps must be at least 1; got 0"),
    ({"scale": "match_rms"}, "scale must be one of original, match_adamw; got 'match_rms'"),
    ({"others_lr": -1.0}, "lr must be at least 0, and finite; got -1.0"),
    ({"others_betas": (0.9, 1.0)}, "betas must be two numbers, each .* below 1; got .0.9, 1.0"),
    ({"others_betas": (0.9,)}, "betas must be two numbers"),
    ({"others_epsilon": 0.0}, "epsilon must be above 0, and finite; got 0.0"),
    ({"others_weight_decay": math.inf}, "weight_decay must be at least 0, and finite; got inf"),
]


@pytest.mark.parametrize(("options", "words"), BAD, ids=[str(options) for options, _ in BAD])
def test_an_option_out_of_its_range_is_named(options, words):
    with pytest.raises(ValueError, match=words):
        Muon(parameters((2, 2)), parameters((2,)), **options)


def test_options_of_a_group_are_checked_too():
    with pytest.raises(ValueError, match=r"beta must be at least 0 and below 1; got -0\.5"):
        Muon([{"params": parameters((2, 2)), "beta": -0.5}])
    with pytest.raises(ValueError, match=r"kind muon has the options beta.*unknown: momentum$"):
        Muon([{"params": parameters((2, 2)), "momentum": 0.9}])
    optimizer = Muon(parameters((2, 2)))
    with pytest.raises(ValueError, match='"kind" must be "muon" or "adamw"; got None'):
        optimizer.add_param_group({"params": parameters((2, 2))})
    with pytest.raises(ValueError, match=r"unknown: betas, epsilon, lr, weight_decay$"):
        optimizer.add_param_group({"params": parameters((2, 2)), "kind": "adamw"})


def test_parameters_with_names_are_refused():
    with pytest.raises(ValueError, match=r"must be tensors, without names"):
        Muon(nn.Linear(2, 2, bias=False).named_parameters())


def test_a_sparse_gradient_is_refused():
    table = nn.Embedding(4, 2, sparse=True)
    optimizer = Muon([], table.parameters())
    table(torch.tensor([1])).sum().backward()
    with pytest.raises(ValueError, match=r"dense and real; got one of torch.sparse_coo.*sparse=F"):
        optimizer.step()
