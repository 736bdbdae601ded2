"""CAME by hand, entry by entry, against its authors' code, by its laws; and its first-step trap."""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from minillm.model.config import small
from minillm.optim.adafactor import root_mean_square
from minillm.optim.came import (
    CAME,
    CAMEMatrix,
    CAMEVector,
    came_state,
    came_update,
    confidence,
)
from minillm.train.checkpoint import load, save
from minillm.train.run_state import pack, unpack

SHAPES = [(3, 5), (4,), (), (2, 3, 4)]
HALVES = (0.5, 0.75, 0.75)  # betas for paper: √(1 - 0.75) is 1/2


def numbers(*shape, seed=0, dtype=torch.float64):
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(shape, generator=generator, dtype=torch.float64).to(dtype)


def gradients(shape, n_steps, seed=0):
    return [numbers(*shape, seed=100 * seed + t) for t in range(n_steps)]


def confident_updates(each, **options):
    state, found = came_state(each[0]), []
    for gradient in each:
        confident_update, state = came_update(gradient, state, **options)
        found.append(confident_update)
    return found


def lengths(each, beta3):
    """The root mean square of each step's direction."""
    found = confident_updates(each, betas=(0.9, 0.999, beta3))
    return [root_mean_square(confident_update).item() for confident_update in found]


def take(optimizer, weight, each):
    for gradient in each:
        weight.grad = gradient.clone()
        optimizer.step()


def close(found, expected, tolerance=1e-12):
    size = expected.abs().max().item()
    torch.testing.assert_close(found, expected, rtol=0, atol=tolerance * size)


# --- by hand -----------------------------------------------------------------------------------
def test_two_steps_of_a_matrix():
    # G² = [[1, 4], [4, 1]] has means of 2.5. r = c = 2.5 / 4, G / √V has an RMS of 2 and is
    # clipped: û = G / √2.5. m = û / 2, U = û² / 4 = G² / 10 has means of 1/4, R = C = 1/16
    gradient = torch.tensor([[1.0, 2.0], [2.0, 1.0]], dtype=torch.float64)
    update = [x / math.sqrt(2.5) for x in (1, 2, 2, 1)]
    confident_update, state = came_update(gradient, came_state(gradient), betas=HALVES)
    assert state.rows.tolist() == state.columns.tolist() == pytest.approx([0.625, 0.625])
    assert state.momentum.flatten().tolist() == pytest.approx([u / 2 for u in update])
    assert state.unstable_rows.tolist() == pytest.approx([1 / 16, 1 / 16])
    assert state.unstable_columns.tolist() == pytest.approx([1 / 16, 1 / 16])
    # √S is 1/4: m / √S = 2 û
    assert confident_update.flatten().tolist() == pytest.approx([2 * u for u in update])
    # again: m = 3/4 û, U = û² / 16 has means of 1/16, so R and C stay, and 3/4 û / (1/4) = 3 û
    confident_update, state = came_update(gradient, state, betas=HALVES)
    assert state.unstable_rows.tolist() == pytest.approx([1 / 16, 1 / 16])
    assert confident_update.flatten().tolist() == pytest.approx([3 * u for u in update])


def test_confidence_is_less_where_updates_lie_further_from_the_momentum():
    # U = [[4, 1], [16, 4]] has rank one, and with β₃ = 0 S is U
    update = torch.tensor([[3.0, 1.0], [-3.0, 2.0]], dtype=torch.float64)
    momentum = torch.tensor([[1.0, 0.0], [1.0, 0.0]], dtype=torch.float64)
    old = torch.zeros(2, dtype=torch.float64)
    trust, rows, columns = confidence(update, momentum, old, old, beta=0.0)
    assert trust.flatten().tolist() == pytest.approx([1 / 2, 1, 1 / 4, 1 / 2])
    assert (rows.tolist(), columns.tolist()) == ([2.5, 10.0], [10.0, 2.5])


def test_where_the_update_is_the_momentum_epsilon_stands_alone():
    same = torch.ones(2, 2, dtype=torch.float64)
    old = torch.zeros(2, dtype=torch.float64)
    trust, _, _ = confidence(same, same, old, old, beta=0.75, epsilon=0.04)
    assert trust.flatten().tolist() == pytest.approx([10.0] * 4)  # 1 / √(0.04 / 4)


def test_a_vector_has_a_momentum_and_no_confidence():
    # v = (9, 16) / 4: G / √v = (2, -2) is clipped to (1, -1), m is half of that
    gradient = torch.tensor([3.0, -4.0], dtype=torch.float64)
    confident_update, state = came_update(gradient, came_state(gradient), betas=HALVES)
    assert state.full.tolist() == pytest.approx([9 / 4, 4])
    assert confident_update.tolist() == state.momentum.tolist() == pytest.approx([0.5, -0.5])
    confident_update, _ = came_update(gradient, state, betas=HALVES, clip=0.5)  # m = 1/4 + 1/4
    assert confident_update.tolist() == pytest.approx([0.5, -0.5])


def test_the_class_takes_lr_times_the_direction_and_the_decay():
    weight = nn.Parameter(torch.tensor([3.0, 2.0], dtype=torch.float64))
    optimizer = CAME([weight], lr=0.1, betas=HALVES, weight_decay=0.5)
    take(optimizer, weight, [torch.tensor([3.0, -4.0]).double()])  # the direction is 0.5, -0.5
    assert weight.tolist() == pytest.approx([3 - 0.1 * (0.5 + 1.5), 2 - 0.1 * (-0.5 + 1.0)])


def test_a_row_and_a_column_without_gradient_stay_where_they_are_in_float32():
    gradient = torch.tensor([[0.0, 0.0], [0.0, 5.0]])
    for confident_update in confident_updates([gradient] * 3):
        assert confident_update[0].tolist() == [0, 0]
        assert confident_update[1, 0] == 0
        assert confident_update[1, 1] > 1


# --- by hand: the first-step trap ----------------------------------------------------------------
@pytest.mark.parametrize(
    ("betas", "factor"),
    [
        ((0.9, 0.999, 0.9999), 11.111),  # 0.1 / (0.9 · 0.01): in place of Adam's 1
        ((0.9, 0.999, 0.999), 3.5136),
        ((0.9, 0.999, 0.99), 1.1111),
        ((0.5, 0.9, 0.9999), 100.0),  # 0.5 / (0.5 · 0.01)
        ((0.5, 0.75, 0.75), 2.0),
    ],
)
def test_the_first_step_is_1_minus_beta1_by_beta1_by_the_root_of_1_minus_beta3(betas, factor):
    beta1, _, beta3 = betas
    exact = (1 - beta1) / (beta1 * math.sqrt(1 - beta3))
    assert exact == pytest.approx(factor, rel=1e-4)
    gradient = torch.tensor([[1.0, -2.0], [3.0, 6.0]], dtype=torch.float64)  # G² has rank one
    [confident_update] = confident_updates([gradient], betas=betas)
    assert confident_update.flatten().tolist() == pytest.approx([exact, -exact, exact, exact])


@pytest.mark.parametrize("beta3", [0.9999, 0.999, 0.99])
def test_steps_under_one_gradient_grow_as_its_momentum_and_instability_say(beta3):
    # û = ±1 at all steps, m = 1 - β₁^t and U = β₁^(2t)
    found = lengths([torch.tensor([[1.0, -2.0], [3.0, 6.0]]).double()] * 50, beta3)
    instability = 0.0
    for t, length in enumerate(found, start=1):
        instability = beta3 * instability + (1 - beta3) * 0.9 ** (2 * t)
        assert length == pytest.approx((1 - 0.9**t) / math.sqrt(instability))
    assert found[-1] == pytest.approx({0.9999: 48.3, 0.999: 15.6, 0.99: 6.03}[beta3], rel=1e-2)


def test_a_smaller_beta3_makes_the_first_steps_under_noise_shorter():
    each = gradients((16, 16), 250)
    longest, first_ten, last = {}, {}, {}
    for beta3 in (0.9999, 0.999, 0.99):
        found = lengths(each, beta3)
        longest[beta3], first_ten[beta3] = max(found), sum(found[:10]) / 10
        last[beta3] = sum(found[-50:]) / 50
        assert longest[beta3] == found[0]
    assert [longest[b] for b in longest] == pytest.approx([11.1, 3.51, 1.11], rel=1e-2)
    assert first_ten[0.9999] > 3 * first_ten[0.999] > 9 * first_ten[0.99]
    # where it settles: √((1 - β₁) / 2) / β₁; 0.99 is there by now, 0.9999 far from it
    settled = math.sqrt(0.1 / 2) / 0.9
    assert last[0.99] == pytest.approx(settled, rel=0.1)
    assert last[0.9999] > 4 * settled
    # and so the first step is √(2 (1 - β₁) / (1 - β₃)) times too long
    assert longest[0.9999] / settled == pytest.approx(math.sqrt(0.2 / 0.0001), rel=1e-3)  # 44.7
    assert longest[0.99] / settled == pytest.approx(math.sqrt(0.2 / 0.01), rel=1e-3)  # 4.5


# --- twin --------------------------------------------------------------------------------------
def matrix_by_entries(each, betas, clip=1.0):
    """Algorithm 2 on lists, with sums as in the paper; the last direction."""
    n, m = each[0].shape
    over_rows, over_columns, entries = range(n), range(m), [0.0] * m
    beta1, beta2, beta3 = betas
    r, c, R, C = [0.0] * n, [0.0] * m, [0.0] * n, [0.0] * m
    momentum = [entries[:] for _ in over_rows]
    for gradient in each:
        g = gradient.tolist()
        for i in over_rows:
            r[i] = beta2 * r[i] + (1 - beta2) * sum(g[i][j] ** 2 + 1e-30 for j in over_columns)
        for j in over_columns:
            c[j] = beta2 * c[j] + (1 - beta2) * sum(g[i][j] ** 2 + 1e-30 for i in over_rows)
        u = [[g[i][j] / math.sqrt(r[i] * c[j] / sum(r)) for j in over_columns] for i in over_rows]
        size = math.sqrt(sum(x * x for row in u for x in row) / (n * m))
        u = [[x / max(1.0, size / clip) for x in row] for row in u]
        U = [entries[:] for _ in over_rows]
        for i in over_rows:
            for j in over_columns:
                momentum[i][j] = beta1 * momentum[i][j] + (1 - beta1) * u[i][j]
                U[i][j] = (u[i][j] - momentum[i][j]) ** 2 + 1e-16
        for i in over_rows:
            R[i] = beta3 * R[i] + (1 - beta3) * sum(U[i])
        for j in over_columns:
            C[j] = beta3 * C[j] + (1 - beta3) * sum(U[i][j] for i in over_rows)
        confident_update = [
            [momentum[i][j] / math.sqrt(R[i] * C[j] / sum(R)) for j in over_columns]
            for i in over_rows
        ]
    return torch.tensor(confident_update, dtype=torch.float64)


@pytest.mark.parametrize("betas", [(0.9, 0.999, 0.9999), (0.3, 0.6, 0.8)])
def test_six_steps_are_algorithm_2_entry_by_entry(betas):
    each = gradients((3, 5), 6)
    for clip in (1.0, 0.8):
        for t, confident_update in enumerate(
            confident_updates(each, betas=betas, clip=clip), start=1
        ):
            close(confident_update, matrix_by_entries(each[:t], betas, clip))


@pytest.mark.parametrize("shape", SHAPES)
def test_the_class_is_the_update_in_a_loop(shape):
    weight = nn.Parameter(numbers(*shape, seed=9))
    expected, new_state = weight.detach().clone(), came_state(weight)
    options = {"betas": (0.8, 0.9, 0.95), "clip": 0.7, "epsilons": (1e-20, 1e-10)}
    optimizer = CAME([weight], lr=0.1, weight_decay=0.2, **options)
    for gradient in gradients(shape, 5):
        take(optimizer, weight, [gradient])
        confident_update, new_state = came_update(gradient, new_state, **options)
        expected = expected - 0.1 * (confident_update + 0.2 * expected)
    close(weight.detach(), expected)
    assert list(optimizer.state[weight]) == list(new_state._fields)  # no step is counted


# --- reference ---------------------------------------------------------------------------------
# Where the authors' CAME.py (github.com/yangluo7/CAME, commit b368dc0) led weights of 0 in float64
# in three steps with lr=1 and weight_decay=0.25, its other options as they are. The package
# is no dependency of ours.
THEIRS = {
    (2, 3): [
        [-36.212383932185986, -2.6435971410532266, -9.176132715936047],
        [8.007991407466408, 18.216638167712347, 40.884865501466976],
    ],
    (3,): [-0.38700169172690024, -0.018707441115548312, -0.17650876308579228],
}


@pytest.mark.parametrize("shape", THEIRS)
def test_three_steps_are_those_of_the_authors_code(shape):
    weight = nn.Parameter(torch.zeros(shape, dtype=torch.float64))
    places = torch.arange(1.0, weight.numel() + 1, dtype=torch.float64).reshape(shape)
    each = [torch.sin(places * t) for t in (1, 2, 3)]
    take(CAME([weight], lr=1.0, weight_decay=0.25), weight, each)
    close(weight.detach(), torch.tensor(THEIRS[shape], dtype=torch.float64))


# --- law ---------------------------------------------------------------------------------------
sides = st.integers(1, 6)


@given(sides, sides, st.integers(0, 99), st.floats(1e-3, 1e3))
@settings(max_examples=50, deadline=None)
def test_the_size_of_the_gradients_is_forgotten(n, m, seed, factor):
    each = gradients((n, m), 3, seed)
    scaled = confident_updates([factor * gradient for gradient in each])
    for confident_update, other in zip(confident_updates(each), scaled, strict=True):
        close(other, confident_update, 1e-9)


@given(st.permutations(range(4)), st.permutations(range(5)), st.integers(0, 99))
@settings(max_examples=25, deadline=None)
def test_the_order_of_rows_and_columns_does_not_matter(rows, columns, seed):
    each = gradients((4, 5), 3, seed)
    shuffled = confident_updates([gradient[rows][:, columns] for gradient in each])
    close(shuffled[-1], confident_updates(each)[-1][rows][:, columns], 1e-10)


@given(sides, sides, st.integers(0, 99))
@settings(max_examples=25, deadline=None)
def test_the_direction_has_the_signs_of_the_momentum(n, m, seed):
    state = came_state(numbers(n, m))
    for gradient in gradients((n, m), 4, seed):
        confident_update, state = came_update(gradient, state)
    assert torch.equal(confident_update.sign(), state.momentum.sign())


def test_of_a_stack_each_matrix_is_factored_by_itself():
    gradient = numbers(2, 3, 4)
    confident_update, state = came_update(gradient, came_state(gradient), clip=1e9)
    for i in range(2):
        alone, its = came_update(gradient[i], came_state(gradient[i]), clip=1e9)
        close(confident_update[i], alone)
        for together, one in zip(state, its, strict=True):
            close(together[i], one)


@pytest.mark.parametrize("shape", SHAPES)
def test_the_update_changes_nothing_it_was_given(shape):
    gradient, state = numbers(*shape), came_state(numbers(*shape))
    for _ in range(2):
        before = [x.clone() for x in (gradient, *state)]
        confident_update, new = came_update(gradient, state)
        assert all(map(torch.equal, before, (gradient, *state)))
        confident_update.add_(1.0)  # nor is what it returns a part of its memory
        assert torch.equal(came_update(gradient, state)[1].momentum, new.momentum)
        state = new


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16])
def test_memory_has_the_type_of_its_parameter(dtype):
    model = nn.Linear(3, 2, dtype=dtype)
    optimizer = CAME(model.parameters())
    model(numbers(4, 3, dtype=dtype)).square().mean().backward()
    optimizer.step()
    tensors = [x for state in optimizer.state.values() for x in state.values()]
    assert {x.dtype for x in (*tensors, model.weight)} == {dtype}
    assert all(x.isfinite().all() for x in (*tensors, model.weight))


def test_bytes_are_a_momentum_and_twice_the_rows_and_columns():
    model = small(vocab_size=300).build()
    shapes = [list(p.shape) for p in model.parameters()]
    matrices = [shape for shape in shapes if len(shape) == 2]
    vectors = [shape for shape in shapes if len(shape) == 1]
    assert len(matrices) + len(vectors) == len(shapes)
    expected = 4 * sum(n * m + 2 * n + 2 * m for n, m in matrices) + 8 * sum(n for [n] in vectors)
    optimizer = CAME(model.parameters())
    for parameter in model.parameters():
        parameter.grad = torch.ones_like(parameter)
    optimizer.step()
    n_bytes = sum(x.nbytes for state in optimizer.state.values() for x in state.values())
    of_adamw = 8 * sum(p.numel() for p in model.parameters())
    assert (n_bytes, of_adamw) == (expected, 8 * 868_480)
    assert n_bytes == 3_551_168  # 0.511 of AdamW's
    assert 0.505 <= n_bytes / of_adamw <= 0.523


def network(seed=0):
    torch.manual_seed(seed)
    return nn.Sequential(nn.Linear(2, 3), nn.Tanh(), nn.Linear(3, 1))


def with_groups(model):
    first, last = model[0].parameters(), model[2].parameters()
    groups = [{"params": first, "betas": (0.8, 0.9, 0.95)}, {"params": last, "lr": 0.02}]
    return CAME(groups, lr=0.005, weight_decay=0.1)


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
    optimizer = CAME([{"params": [a]}, {"params": [b], "lr": 0.25}], lr=0.5, betas=HALVES)
    a.grad, b.grad = torch.ones(2), -torch.ones(2)
    optimizer.step()  # û is ±1, m ±1/2
    assert (a.tolist(), b.tolist()) == ([0.75, 0.75], [1.125, 1.125])
    optimizer.param_groups[0]["lr"] = 0.0
    optimizer.step()  # m is ±3/4
    assert (a.tolist(), b.tolist()) == ([0.75, 0.75], [1.3125, 1.3125])


def test_a_closure_is_called_once_with_gradients_on_and_its_loss_returned():
    used, unused = (nn.Parameter(torch.ones(2)) for _ in range(2))
    optimizer = CAME([used, unused], lr=0.5, betas=HALVES, weight_decay=0.1)

    def closure():
        loss = used.sum()
        loss.backward()
        return loss

    assert optimizer.step(closure).item() == 2.0
    assert used.tolist() == pytest.approx([0.7, 0.7])  # 1 - 0.5 (0.5 + 0.1)
    assert (unused.tolist(), unused in optimizer.state) == ([1, 1], False)  # it had no gradient
    assert optimizer.step() is None


# --- what stops it -----------------------------------------------------------------------------
@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"lr": -0.1}, "lr must be a finite number of at least 0; got -0.1"),
        ({"lr": math.nan}, "lr must be a finite number of at least 0; got nan"),
        ({"lr": None}, "lr must be a finite number of at least 0; got None"),
        ({"weight_decay": -1.0}, "weight_decay must be a finite number of at least 0; got -1.0"),
        ({"clip": 0}, "clip must be finite and above 0; got 0"),
        ({"epsilons": (1e-30, 0.0)}, r"epsilons must be finite and above 0; got \(1e-30, 0.0\)"),
        ({"epsilons": (1e-30,)}, r"epsilons must be 2 numbers; got \(1e-30,\)"),
        ({"betas": (0.9, 0.99)}, r"betas must be 3 numbers; got \(0.9, 0.99\)"),
        ({"betas": 0.9}, r"betas must be 3 numbers; got 0.9"),
        ({"betas": (0.9, 0.99, 1.0)}, r"betas must be .* not, 1, .* got \(0.9, 0.99, 1.0\)"),
        ({"betas": (0.9, -0.1, 0.9)}, r"betas must be from 0 .* got \(0.9, -0.1, 0.9\)"),
        ({"betas": (0.0, 0.9, 0.9)}, "the first above 0; .* no confidence: that is Adafactor"),
    ],
)
def test_an_option_out_of_its_range_is_refused_in_any_group(options, words):
    weights = [nn.Parameter(torch.ones(1)) for _ in range(2)]
    with pytest.raises(ValueError, match=words):
        CAME(weights, **options)
    with pytest.raises(ValueError, match=words):
        CAME([{"params": weights[:1]}, {"params": weights[1:], **options}])
    optimizer = CAME(weights[:1])
    with pytest.raises(ValueError, match=words):
        optimizer.add_param_group({"params": weights[1:], **options})
    assert len(optimizer.param_groups) == 1


def test_a_sparse_gradient_is_refused():
    table = nn.Embedding(4, 2, sparse=True)
    table(torch.tensor([1])).sum().backward()
    with pytest.raises(ValueError, match=r"dense gradients; got a sparse one, of shape \[4, 2\]"):
        CAME(table.parameters()).step()


def test_a_strange_memory_and_float16_are_refused():
    gradient = torch.ones(2, 3)
    flat = CAMEVector(torch.zeros(2, 3), torch.zeros(2, 3))
    turned = CAMEMatrix(*came_state(gradient.T))
    for state in (flat, turned):
        with pytest.raises(ValueError, match=r"\[2, 3\] needs .*'rows': \[2\], 'columns': \[3\]"):
            came_update(gradient, state)
    half = gradient.half()
    with pytest.raises(ValueError, match=r"1e-30 is lost in torch.float16; keep the weights"):
        came_update(half, came_state(half))
