"""Adafactor by hand, entry by entry, against torch's and transformers', and by its laws."""

import math

import pytest
import torch
import transformers
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from minillm.model.config import small
from minillm.optim.adafactor import (
    Adafactor,
    AdafactorMatrix,
    AdafactorVector,
    adafactor_state,
    adafactor_update,
    clipped,
    factored,
    over_root,
    relative_size,
    root_mean_square,
)
from minillm.train.checkpoint import load, save
from minillm.train.run_state import pack, unpack

SHAPES = [(3, 5), (4,), (), (2, 3, 4)]
ROOT_10 = math.sqrt(10)


def numbers(*shape, seed=0, dtype=torch.float64):
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(shape, generator=generator, dtype=torch.float64).to(dtype)


def gradients(shape, n_steps, seed=0):
    """They grow, so that updates are clipped."""
    return [1.2**t * numbers(*shape, seed=100 * seed + t) for t in range(n_steps)]


def take(optimizer, weight, each):
    for gradient in each:
        weight.grad = gradient.clone()
        optimizer.step()


def memory_of(optimizer):
    """All that it remembers but for the count of steps."""
    values = [x for state in optimizer.state.values() for x in state.values()]
    return [x for x in values if isinstance(x, torch.Tensor)]


def close(found, expected, tolerance=1e-12):
    size = expected.abs().max().item()
    torch.testing.assert_close(found, expected, rtol=0, atol=tolerance * size)


# --- by hand -----------------------------------------------------------------------------------
def test_a_gradient_whose_squares_have_rank_one_becomes_its_signs_at_step_1():
    # G² = [[1, 4], [9, 36]]: R = 2.5, 22.5; C = 5, 20; mean(R) = 12.5; V = G²
    gradient = torch.tensor([[1.0, -2.0], [3.0, 6.0]], dtype=torch.float64)
    update, state = adafactor_update(gradient, adafactor_state(gradient), 1)
    assert state.rows.tolist() == pytest.approx([2.5, 22.5])
    assert state.columns.tolist() == pytest.approx([5, 20])
    assert update.flatten().tolist() == pytest.approx([1, -1, 1, 1])


def test_two_steps_of_a_matrix_the_second_is_clipped():
    # G² = [[1, 4], [4, 1]]: all means are 2.5, so V is 2.5 everywhere, and RMS(G / √2.5) is 1
    gradient = torch.tensor([[1.0, 2.0], [2.0, 1.0]], dtype=torch.float64)
    update, state = adafactor_update(gradient, adafactor_state(gradient), 1, decay_power=1)
    assert update.flatten().tolist() == pytest.approx([x / math.sqrt(2.5) for x in (1, 2, 2, 1)])
    # twice G, β = 1 - 1/2: V = 2.5 / 2 + 10 / 2 = 6.25; U = 2 G / 2.5 has an RMS of √1.6
    update, state = adafactor_update(2 * gradient, state, 2, decay_power=1)
    assert state.rows.tolist() == state.columns.tolist() == pytest.approx([6.25, 6.25])
    assert update.flatten().tolist() == pytest.approx(
        [x / math.sqrt(1.6) for x in (0.8, 1.6, 1.6, 0.8)]
    )


def test_a_clip_with_room_for_it_leaves_an_update_as_it_is():
    gradient, means = torch.tensor([[2.0, 4.0], [4.0, 2.0]]), torch.tensor([2.5, 2.5])
    old = AdafactorMatrix(means, means)
    update, _ = adafactor_update(gradient, old, 2, decay_power=1, clip=1.3)  # √1.6 is 1.26
    assert update.flatten().tolist() == pytest.approx([0.8, 1.6, 1.6, 0.8])


def test_a_vector_keeps_each_square():
    gradient = torch.tensor([1.0, -3.0], dtype=torch.float64)
    update, state = adafactor_update(gradient, adafactor_state(gradient), 1)
    assert (state.full.tolist(), update.tolist()) == ([1.0, 9.0], pytest.approx([1, -1]))
    # β = 1 - 2^-0.8 = 0.4257: the squares are now (9, 1)
    update, state = adafactor_update(gradient.flip(0), state, 2, clip=9.0)
    share = 2**-0.8
    v = [(1 - share) * 1 + share * 9, (1 - share) * 9 + share * 1]
    assert state.full.tolist() == pytest.approx(v)
    assert update.tolist() == pytest.approx([-3 / math.sqrt(v[0]), 1 / math.sqrt(v[1])])


def test_the_class_takes_lr_times_the_direction_and_the_decay():
    # the direction is all 1 and RMS(weight) is 3
    for floor, size in ((None, 1.0), (1e-3, 3.0), (5.0, 5.0)):
        weight = nn.Parameter(torch.tensor([[3.0, -3.0]], dtype=torch.float64))
        optimizer = Adafactor([weight], lr=0.1, weight_decay=0.5, scale_floor=floor)
        take(optimizer, weight, [torch.full((1, 2), 7.0).double()])
        expected = [3 - 0.1 * (size + 1.5), -3 - 0.1 * (size - 1.5)]
        assert weight.tolist()[0] == pytest.approx(expected)


def test_the_small_parts():
    assert root_mean_square(torch.tensor([3.0, 4.0, 0.0, 0.0])).item() == 2.5
    assert clipped(torch.tensor([3.0, -3.0]), clip=1.5).tolist() == [1.5, -1.5]
    assert clipped(torch.tensor([3.0, -3.0]), clip=4.0).tolist() == [3, -3]
    assert relative_size(torch.tensor([3.0, -3.0])).item() == 3
    assert relative_size(torch.zeros(3), floor=0.25).item() == 0.25


def test_a_row_and_a_column_without_gradient_stay_where_they_are_in_float32():
    # ε₁² = 1e-60 is 0 in float32, and 0 / √0 is no number
    gradient = torch.tensor([[0.0, 0.0], [0.0, 5.0]])
    update, state = adafactor_update(gradient, adafactor_state(gradient), 1)
    assert factored(state.rows, state.columns)[0, 0] == 0
    assert update.tolist() == [[0, 0], [0, 1]]


# --- twin --------------------------------------------------------------------------------------
def matrix_by_entries(each, clip=1.0):
    """Algorithm 4 on lists, with sums as in the paper; the last direction."""
    n, m = each[0].shape
    R, C = [0.0] * n, [0.0] * m
    for t, gradient in enumerate(each, start=1):
        g, beta = gradient.tolist(), 1 - t**-0.8
        for i in range(n):
            R[i] = beta * R[i] + (1 - beta) * sum(g[i][j] ** 2 + 1e-30 for j in range(m))
        for j in range(m):
            C[j] = beta * C[j] + (1 - beta) * sum(g[i][j] ** 2 + 1e-30 for i in range(n))
        U = [[g[i][j] / math.sqrt(R[i] * C[j] / sum(R)) for j in range(m)] for i in range(n)]
        size = math.sqrt(sum(u * u for row in U for u in row) / (n * m))
        update = [[u / max(1.0, size / clip) for u in row] for row in U]
    return torch.tensor(update, dtype=torch.float64), size


def test_six_steps_are_algorithm_4_entry_by_entry():
    each, state, sizes = gradients((3, 5), 6), adafactor_state(numbers(3, 5)), []
    for t, gradient in enumerate(each, start=1):
        update, state = adafactor_update(gradient, state, t)
        expected, size = matrix_by_entries(each[:t])
        sizes.append(size)
        close(update, expected)
    assert min(sizes) < 1 < max(sizes)  # some were clipped and some not


def test_over_root_is_a_division_by_the_root_of_factored():
    rows, columns = numbers(2, 3).square(), numbers(2, 4, seed=1).square()
    x = numbers(2, 3, 4, seed=2)
    close(over_root(x, rows, columns), x / factored(rows, columns).sqrt())


@pytest.mark.parametrize("shape", SHAPES)
def test_the_class_is_the_update_in_a_loop(shape):
    weight = nn.Parameter(numbers(*shape, seed=9))
    expected, new_state = weight.detach().clone(), adafactor_state(weight)
    optimizer = Adafactor([weight], lr=0.1, decay_power=0.5, clip=0.7, weight_decay=0.2)
    for t, gradient in enumerate(gradients(shape, 5), start=1):
        take(optimizer, weight, [gradient])
        update, new_state = adafactor_update(gradient, new_state, t, decay_power=0.5, clip=0.7)
        expected = expected - 0.1 * (update + 0.2 * expected)
    close(weight.detach(), expected)
    state = optimizer.state[weight]
    assert (list(state), state["step"]) == (["step", *new_state._fields], 5)


# --- reference ---------------------------------------------------------------------------------
def after(optimizer, shape, n_steps=20):
    """Where a weight is led, and where it began; ours and theirs get the same gradients."""
    weight = nn.Parameter(0.1 * numbers(*shape, seed=9))
    take(optimizer([weight]), weight, gradients(shape, n_steps))
    return weight.detach()


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("scale_floor", [None, 1e-3])
def test_it_is_torchs(shape, scale_floor):
    # Theirs always multiplies by max(ε₂, RMS(weight)), and holds lr below 1/√t. With ε₂ of 1 and a
    # smaller weight the factor is 1, and 0.01 is below 1/√20. Their ε₁ is a floor, ours is added:
    # at 1e-30 neither is seen.
    theirs = after(
        lambda weights: torch.optim.Adafactor(
            weights, lr=0.01, eps=(1e-30, scale_floor or 1.0), d=1.0, weight_decay=0.1
        ),
        shape,
    )
    assert root_mean_square(theirs) < 1
    ours = after(
        lambda weights: Adafactor(weights, lr=0.01, scale_floor=scale_floor, weight_decay=0.1),
        shape,
    )
    close(ours, theirs)


@pytest.mark.parametrize("shape", [(3, 5), (4,), (2, 3, 4)])
@pytest.mark.parametrize("scale_floor", [None, 1e-3])
def test_it_is_transformers(shape, scale_floor):
    # Their weight decay is multiplied by max(ε₂, RMS(weight)), too, so it is compared without.
    decay = 0.1 if scale_floor is None else 0.0
    theirs = after(
        lambda weights: transformers.Adafactor(
            weights,
            lr=0.03,
            scale_parameter=scale_floor is not None,
            relative_step=False,
            weight_decay=decay,
        ),
        shape,
    )
    ours = after(
        lambda weights: Adafactor(weights, lr=0.03, scale_floor=scale_floor, weight_decay=decay),
        shape,
    )
    close(ours, theirs)


# --- law ---------------------------------------------------------------------------------------
sides = st.integers(1, 6)


@given(sides, sides, st.integers(0, 99))
@settings(max_examples=50, deadline=None)
def test_a_matrix_of_rank_one_is_rebuilt_and_any_other_keeps_its_means(n, m, seed):
    rank_one = torch.outer(numbers(n, seed=seed).exp(), numbers(m, seed=seed + 1).exp())
    close(factored(rank_one.mean(dim=1), rank_one.mean(dim=0)), rank_one)
    other = numbers(n, m, seed=seed).exp()
    rebuilt = factored(other.mean(dim=1), other.mean(dim=0))
    close(rebuilt.mean(dim=1), other.mean(dim=1))
    close(rebuilt.mean(dim=0), other.mean(dim=0))
    assert torch.linalg.matrix_rank(rebuilt) == 1


@given(sides, sides, st.integers(0, 99), st.floats(1e-3, 1e3), st.floats(0.1, 3))
@settings(max_examples=50, deadline=None)
def test_the_size_of_the_gradients_is_forgotten_and_no_direction_is_longer_than_clip(
    n, m, seed, factor, clip
):
    state = scaled = adafactor_state(numbers(n, m))
    for t, gradient in enumerate(gradients((n, m), 3, seed), start=1):
        update, state = adafactor_update(gradient, state, t, clip=clip)
        other, scaled = adafactor_update(factor * gradient, scaled, t, clip=clip)
        close(other, update, 1e-10)
        assert root_mean_square(update) <= clip * (1 + 1e-12)


@given(st.permutations(range(4)), st.permutations(range(5)), st.integers(0, 99))
@settings(max_examples=25, deadline=None)
def test_the_order_of_rows_and_columns_does_not_matter(rows, columns, seed):
    state = shuffled = adafactor_state(numbers(4, 5))
    for t, gradient in enumerate(gradients((4, 5), 3, seed), start=1):
        update, state = adafactor_update(gradient, state, t)
        other, shuffled = adafactor_update(gradient[rows][:, columns], shuffled, t)
    close(other, update[rows][:, columns])


def test_of_a_stack_each_matrix_is_factored_by_itself():
    gradient = numbers(2, 3, 4)
    update, state = adafactor_update(gradient, adafactor_state(gradient), 1, clip=1e9)
    for i in range(2):
        alone, its = adafactor_update(gradient[i], adafactor_state(gradient[i]), 1, clip=1e9)
        close(update[i], alone)
        close(state.rows[i], its.rows)
        close(state.columns[i], its.columns)


@pytest.mark.parametrize("shape", SHAPES)
def test_the_update_changes_nothing_it_was_given(shape):
    gradient, state = numbers(*shape), adafactor_state(numbers(*shape))
    for t in (1, 2):
        before = [x.clone() for x in (gradient, *state)]
        update, new = adafactor_update(gradient, state, t)
        assert all(map(torch.equal, before, (gradient, *state)))
        update.add_(1.0)  # nor is what it returns a part of its memory
        assert torch.equal(adafactor_update(gradient, state, t)[1][0], new[0])
        state = new


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16])
def test_memory_has_the_type_of_its_parameter(dtype):
    model = nn.Linear(3, 2, dtype=dtype)
    optimizer = Adafactor(model.parameters())
    model(numbers(4, 3, dtype=dtype)).square().mean().backward()
    optimizer.step()
    tensors = memory_of(optimizer)
    assert {x.dtype for x in (*tensors, model.weight)} == {dtype}
    assert all(x.isfinite().all() for x in (*tensors, model.weight))


def test_bytes_are_rows_and_columns_of_matrices_and_all_of_a_vector():
    model = small(vocab_size=300).build()
    shapes = [list(p.shape) for p in model.parameters()]
    expected = 4 * sum(map(sum, shapes))  # n + m of a matrix, n of a vector
    optimizer = Adafactor(model.parameters())
    for parameter in model.parameters():
        parameter.grad = torch.ones_like(parameter)
    optimizer.step()
    n_bytes = sum(x.nbytes for x in memory_of(optimizer))
    of_adamw = 8 * sum(p.numel() for p in model.parameters())
    assert (n_bytes, of_adamw) == (expected, 8 * 868_480)
    assert n_bytes == 40_928  # 0.0059 of AdamW's
    assert n_bytes <= 0.02 * of_adamw


def network(seed=0):
    torch.manual_seed(seed)
    return nn.Sequential(nn.Linear(2, 3), nn.Tanh(), nn.Linear(3, 1))


def with_groups(model):
    first, last = model[0].parameters(), model[2].parameters()
    groups = [{"params": first, "scale_floor": 1e-3}, {"params": last, "lr": 0.02}]
    return Adafactor(groups, lr=0.05, weight_decay=0.1)


def train(model, optimizer, steps):
    for step in steps:
        x = torch.sin(torch.arange(8.0) + step).reshape(4, 2)
        optimizer.zero_grad()
        model(x).square().mean().backward()
        optimizer.step()


@pytest.mark.parametrize("way", ["run_state", "state_dict"])
def test_ten_steps_are_five_and_five_bit_for_bit(way, tmp_path):
    whole, half, rest = network(), network(), network(seed=1)
    train(whole, with_groups(whole), range(10))
    optimizer, fresh = with_groups(half), with_groups(rest)
    train(half, optimizer, range(5))
    if way == "run_state":
        unpack(load(save(tmp_path, 5, *pack(half, optimizer))), rest, fresh)
    else:
        rest.load_state_dict(half.state_dict())
        fresh.load_state_dict(optimizer.state_dict())
    train(rest, fresh, range(5, 10))
    for expected, found in zip(whole.parameters(), rest.parameters(), strict=True):
        assert torch.equal(expected, found)


def test_groups_have_their_own_options_and_lr_is_read_at_every_step():
    a, b = (nn.Parameter(torch.ones(2)) for _ in range(2))
    optimizer = Adafactor([{"params": [a]}, {"params": [b], "lr": 0.25}], lr=0.5)
    a.grad, b.grad = torch.ones(2), -torch.ones(2)
    optimizer.step()
    assert (a.tolist(), b.tolist()) == ([0.5, 0.5], [1.25, 1.25])
    optimizer.param_groups[0]["lr"] = 0.0
    optimizer.step()
    assert (a.tolist(), b.tolist()) == ([0.5, 0.5], [1.5, 1.5])


def test_a_closure_is_called_once_with_gradients_on_and_its_loss_returned():
    used, unused = (nn.Parameter(torch.ones(2)) for _ in range(2))
    optimizer = Adafactor([used, unused], lr=0.5, weight_decay=0.1)

    def closure():
        loss = used.sum()
        loss.backward()
        return loss

    assert optimizer.step(closure).item() == 2.0
    assert used.tolist() == pytest.approx([0.45, 0.45])
    assert (unused.tolist(), unused in optimizer.state) == ([1, 1], False)  # it had no gradient
    assert optimizer.step() is None


# --- what stops it -----------------------------------------------------------------------------
@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"lr": -0.1}, "lr must be a finite number of at least 0; got -0.1"),
        ({"lr": math.inf}, "lr must be a finite number of at least 0; got inf"),
        ({"lr": "fast"}, "lr must be a finite number of at least 0; got 'fast'"),
        ({"weight_decay": -1.0}, "weight_decay must be a finite number of at least 0; got -1.0"),
        ({"decay_power": 0.0}, "decay_power must be a finite number above 0; got 0.0"),
        ({"clip": 0}, "clip must be a finite number above 0; got 0"),
        ({"clip": math.nan}, "clip must be a finite number above 0; got nan"),
        ({"epsilon": 0.0}, "epsilon must be a finite number above 0; got 0.0"),
        ({"scale_floor": 0.0}, "scale_floor must be a finite number above 0; got 0.0"),
        ({"scale_floor": True}, "scale_floor must be a finite number above 0; got True"),
    ],
)
def test_an_option_out_of_its_range_is_refused_in_any_group(options, words):
    weights = [nn.Parameter(torch.ones(1)) for _ in range(2)]
    with pytest.raises(ValueError, match=words):
        Adafactor(weights, **options)
    with pytest.raises(ValueError, match=words):
        Adafactor([{"params": weights[:1]}, {"params": weights[1:], **options}])
    optimizer = Adafactor(weights[:1])
    with pytest.raises(ValueError, match=words):
        optimizer.add_param_group({"params": weights[1:], **options})
    assert len(optimizer.param_groups) == 1


def test_a_sparse_gradient_is_refused():
    table = nn.Embedding(4, 2, sparse=True)
    table(torch.tensor([1])).sum().backward()
    with pytest.raises(ValueError, match=r"dense gradients; got a sparse one, of shape \[4, 2\]"):
        Adafactor(table.parameters()).step()


def test_a_step_0_a_strange_memory_and_float16_are_refused():
    gradient = torch.ones(2, 3)
    with pytest.raises(ValueError, match="steps are counted from 1, where β is 0; got step=0"):
        adafactor_update(gradient, adafactor_state(gradient), 0)
    wrong = AdafactorMatrix(torch.zeros(3), torch.zeros(2)), AdafactorVector(torch.zeros(2, 3))
    for state in wrong:
        with pytest.raises(ValueError, match=r"\[2, 3\] needs .*'rows': \[2\], 'columns': \[3\]"):
            adafactor_update(gradient, state, 1)
    half = gradient.half()
    with pytest.raises(ValueError, match=r"1e-30 is lost in torch.float16; keep the weights"):
        adafactor_update(half, adafactor_state(half), 1)
