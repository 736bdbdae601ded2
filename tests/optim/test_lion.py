"""Lion goes one step of one length, and remembers one number a weight."""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from minillm.optim.lion import Lion, lion_update
from minillm.train.checkpoint import load, save
from minillm.train.run_state import pack, unpack


def numbers(*shape, seed=0, dtype=torch.float64):
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(shape, generator=generator, dtype=torch.float64).to(dtype)


def weight(*values, dtype=torch.float64):
    return nn.Parameter(torch.tensor(values, dtype=dtype))


def updates(gradients, **options):
    """Of one gradient after the other, from a mean of zero on; and the last mean."""
    mean, found = torch.zeros_like(gradients[0]), []
    for gradient in gradients:
        update, mean = lion_update(gradient, mean, **options)
        found.append(update)
    return found, mean


def network(seed=0):
    torch.manual_seed(seed)
    return nn.Sequential(nn.Linear(2, 3), nn.Tanh(), nn.Linear(3, 1))


def optimizer_of(model):
    groups = [
        {"params": [p for p in model.parameters() if p.ndim == 2], "weight_decay": 0.5},
        {"params": [p for p in model.parameters() if p.ndim < 2], "betas": (0.8, 0.95)},
    ]
    return Lion(groups, lr=0.01)


def take(model, optimizer, steps):
    for step in steps:
        for group in optimizer.param_groups:
            group["lr"] = 0.01 / (1 + step)
        optimizer.zero_grad()
        x = torch.sin(torch.arange(8.0) + step).reshape(4, 2)
        (model(x) - x.sum(1, keepdim=True)).square().mean().backward()
        optimizer.step()


def all_of(model, optimizer):
    """Everything that a run's next step depends on."""
    means = [optimizer.state[parameter]["mean"].clone() for parameter in model.parameters()]
    return [parameter.detach().clone() for parameter in model.parameters()] + means


def equal(one, other):
    return all(torch.equal(a, b) for a, b in zip(one, other, strict=True))


# --- by hand -----------------------------------------------------------------------------------
def test_the_sign_is_of_what_lies_between_mean_and_gradient_and_the_mean_takes_less_of_it():
    mean = torch.tensor([1.0, 1.0, -1.0, 0.0], dtype=torch.float64)
    gradient = torch.tensor([-8.0, -10.0, 10.0, 0.5], dtype=torch.float64)
    update, after = lion_update(gradient, mean)
    # c = 0.9 m + 0.1 g: 0.1, -0.1, 0.1, 0.05
    assert update.tolist() == [1.0, -1.0, 1.0, 1.0]
    # 0.99 m + 0.01 g
    assert after.tolist() == pytest.approx([0.91, 0.89, -0.89, 0.005])


def test_three_steps_on_paper_with_decay():
    w = weight(1.0)
    optimizer = Lion([w], lr=0.1, betas=(0.5, 0.75), weight_decay=0.5)
    places, means = [], []
    for gradient in (4.0, -0.5, -3.0):  # c: 2, then 0.5 - 0.25, then 0.3125 - 1.5
        w.grad = torch.full_like(w, gradient)
        optimizer.step()
        places.append(w.item())
        means.append(optimizer.state[w]["mean"].item())
    # 1 - 0.1 (1 + 0.5); 0.85 - 0.1 (1 + 0.425); 0.7075 - 0.1 (-1 + 0.35375)
    assert places == pytest.approx([0.85, 0.7075, 0.772125], rel=1e-14)
    # 0.25 · 4; 0.75 - 0.125; 0.46875 - 0.75
    assert means == [1.0, 0.625, -0.28125]


def test_a_sum_of_zero_has_the_sign_zero_and_only_decay_moves_its_weight():
    # of the first weight nothing is known, of the second mean and gradient cancel
    w = weight(2.0, 2.0)
    optimizer = Lion([w], lr=0.5, betas=(0.5, 0.5), weight_decay=0.1)
    for gradient in ([0.0, 2.0], [0.0, -1.0]):
        before = w.detach().clone()
        w.grad = torch.tensor(gradient, dtype=torch.float64)
        optimizer.step()
    torch.testing.assert_close(w.detach(), before * (1 - 0.5 * 0.1), rtol=1e-14, atol=0)
    assert optimizer.state[w]["mean"].tolist() == [0.0, 0.0]
    update, _ = lion_update(torch.zeros(2), torch.zeros(2))
    assert update.tolist() == [0.0, 0.0]


def test_what_is_not_a_number_stops_its_weight_for_good_and_no_other():
    gradients = [torch.tensor([math.nan, 1.0]), torch.ones(2), torch.ones(2)]
    found, mean = updates(gradients)
    assert [update.tolist() for update in found] == [[0.0, 1.0]] * 3
    assert mean.isnan().tolist() == [True, False]


def test_near_its_best_value_a_weight_goes_to_and_fro_until_the_rate_is_small():
    w = weight(0.75)
    optimizer = Lion([w], lr=0.5, betas=(0.0, 0.0))
    places = []
    for lr in (0.5, 0.5, 0.5, 0.5, 0.125, 0.125):
        optimizer.param_groups[0]["lr"] = lr
        w.grad = 2 * w.detach()  # of w²
        optimizer.step()
        places.append(w.item())
    assert places == [0.25, -0.25, 0.25, -0.25, -0.125, 0.0]


def test_a_parameter_without_a_gradient_is_left_out():
    moved, left = weight(1.0), weight(1.0)
    optimizer = Lion([moved, left], lr=0.5, weight_decay=0.1)
    moved.grad = torch.ones_like(moved)
    optimizer.step()
    assert left.item() == 1.0
    assert set(optimizer.state) == {moved}


def test_the_closure_has_gradients_and_its_loss_is_handed_back():
    w = weight(3.0)
    optimizer = Lion([w], lr=0.5)

    def closure():
        optimizer.zero_grad()
        loss = w.square().sum()
        loss.backward()
        return loss

    assert optimizer.step(closure).item() == 9.0
    assert w.item() == 2.5
    assert w.requires_grad
    assert w.grad_fn is None
    assert optimizer.step() is None


# --- twin --------------------------------------------------------------------------------------
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16])
def test_the_class_is_the_update_in_a_loop(dtype):
    w = nn.Parameter(numbers(4, 3, dtype=dtype))
    optimizer = Lion([w], lr=0.1, betas=(0.7, 0.9), weight_decay=0.2)
    by_hand, mean = w.detach().clone(), torch.zeros(4, 3, dtype=dtype)
    for step in range(1, 8):
        w.grad = numbers(4, 3, seed=step, dtype=dtype)
        optimizer.step()
        update, mean = lion_update(w.grad, mean, betas=(0.7, 0.9))
        by_hand = (by_hand * (1 - 0.1 * 0.2)).add(update, alpha=-0.1)
    assert equal([w.detach(), optimizer.state[w]["mean"]], [by_hand, mean])
    assert {tensor.dtype for tensor in (w, update, mean, optimizer.state[w]["mean"])} == {dtype}


def test_the_update_changes_nothing_it_was_given_and_keeps_the_type_of_the_mean():
    given_ones = [numbers(3, seed=k, dtype=torch.bfloat16) for k in range(2)]
    before = [tensor.clone() for tensor in given_ones]
    _, mean = lion_update(*given_ones)
    assert equal(given_ones, before)
    assert not torch.equal(mean, before[1])
    assert lion_update(given_ones[0].float(), given_ones[1])[1].dtype == torch.bfloat16


# --- reference ---------------------------------------------------------------------------------
class Plain:
    """Algorithm 2 once more, of one weight, in Python's own numbers."""

    def __init__(self, theta):
        self.theta, self.m = theta, 0.0

    def step(self, g, eta, beta1, beta2, decay):
        c = beta1 * self.m + (1 - beta1) * g
        sign = 0 if c == 0 else math.copysign(1, c)
        self.theta = self.theta - eta * (sign + decay * self.theta)
        self.m = beta2 * self.m + (1 - beta2) * g


def test_fifty_steps_are_those_of_a_second_writing_in_several_groups_at_a_changing_rate():
    shapes = [(4, 3), (7,), (), (2, 2, 2)]
    ours = [nn.Parameter(numbers(*shape, seed=k)) for k, shape in enumerate(shapes)]
    plain = [[Plain(value) for value in w.flatten().tolist()] for w in ours]
    own = [(0.03, (0.9, 0.99), 0.3), (0.001, (0.95, 0.98), 0.0), (0.01, (0.0, 0.5), 1.0)]
    members = [0, 0, 1, 2]  # the group of each
    optimizer = Lion(
        {"params": [w for w, member in zip(ours, members, strict=True) if member == number],
         "lr": lr, "betas": betas, "weight_decay": decay}
        for number, (lr, betas, decay) in enumerate(own)
    )  # fmt: skip
    for step in range(50):
        factor = (1 + math.cos(step / 16)) / 2
        for group, (lr, _, _) in zip(optimizer.param_groups, own, strict=True):
            group["lr"] = lr * factor
        for k, w in enumerate(ours):
            w.grad = 10.0 ** (k - 2) * numbers(*w.shape, seed=100 * k + step)
            if k == 1:
                w.grad[0] = 0.0  # a weight that never has a gradient
            lr, betas, decay = own[members[k]]
            for one, g in zip(plain[k], w.grad.flatten().tolist(), strict=True):
                one.step(g, lr * factor, *betas, decay)
        optimizer.step()
    for w, ones in zip(ours, plain, strict=True):
        mean = optimizer.state[w]["mean"].flatten().tolist()
        assert w.flatten().tolist() == pytest.approx([one.theta for one in ones], rel=1e-12)
        assert mean == pytest.approx([one.m for one in ones], rel=1e-12, abs=1e-15)


# --- law ---------------------------------------------------------------------------------------
@given(st.integers(1, 12), st.integers(0, 20), st.integers(0, 99))
@settings(max_examples=50, deadline=None)
def test_the_largest_change_of_a_weight_is_the_learning_rate_exactly(n_steps, halvings, seed):
    lr = 2.0**-halvings  # of weights that are multiples of it every sum is exact
    w = nn.Parameter((numbers(5, seed=seed) * 8).round())
    optimizer = Lion([w], lr=lr)
    for step in range(n_steps):
        before = w.detach().clone()
        w.grad = numbers(5, seed=seed + step)
        w.grad[0] = 0.0
        optimizer.step()
        assert (w.detach() - before).abs().tolist() == [0.0, lr, lr, lr, lr]


@given(st.integers(-60, 60), st.integers(1, 12), st.integers(0, 99))
@settings(max_examples=50, deadline=None)
def test_the_scale_of_the_gradients_does_not_matter_and_their_sign_does(power, n_steps, seed):
    gradients = [numbers(5, seed=seed + k) for k in range(n_steps)]
    plain, mean = updates(gradients)
    scaled, scaled_mean = updates([g * 2.0**power for g in gradients])
    turned, _ = updates([-g for g in gradients])
    assert equal(scaled, plain)  # a power of two changes no digit
    assert torch.equal(scaled_mean, mean * 2.0**power)
    assert equal(turned, [-d for d in plain])


@given(st.integers(1, 9), st.integers(1, 9), st.integers(0, 99))
@settings(max_examples=30, deadline=None)
def test_every_weight_is_for_itself(n_first, n_second, seed):
    gradients = [numbers(n_first + n_second, seed=seed + k) for k in range(3)]
    whole, _ = updates(gradients)
    first, _ = updates([gradient[:n_first] for gradient in gradients])
    second, _ = updates([gradient[n_first:] for gradient in gradients])
    assert equal([torch.cat(both) for both in zip(first, second, strict=True)], whole)


@given(st.floats(0.0, 0.999), st.integers(0, 99))
@settings(max_examples=30, deadline=None)
def test_with_equal_betas_it_is_the_sign_of_the_mean_itself(beta, seed):
    gradients = [numbers(5, seed=seed + k) for k in range(6)]
    found, mean = updates(gradients, betas=(beta, beta))
    assert torch.equal(found[-1], mean.sign())


def test_ten_steps_are_five_and_a_checkpoint_and_five(tmp_path):
    with torch.random.fork_rng(devices=[]):
        model = network()
        optimizer = optimizer_of(model)
        take(model, optimizer, range(5))
        path = save(tmp_path, 5, *pack(model, optimizer))
        halfway = all_of(model, optimizer)
        take(model, optimizer, range(5, 10))
        other = network(seed=7)
        other_optimizer = optimizer_of(other)
        unpack(load(path), other, other_optimizer)
        take(other, other_optimizer, range(5, 10))
    assert equal(all_of(other, other_optimizer), all_of(model, optimizer))
    assert not equal(halfway, all_of(model, optimizer))


def test_ten_steps_are_five_and_torchs_own_state_dicts_and_five(tmp_path):
    with torch.random.fork_rng(devices=[]):
        model, other = network(), network(seed=7)
        optimizer, other_optimizer = optimizer_of(model), optimizer_of(other)
        take(model, optimizer, range(5))
        torch.save([model.state_dict(), optimizer.state_dict()], tmp_path / "five.pt")
        take(model, optimizer, range(5, 10))
        weights, state = torch.load(tmp_path / "five.pt", weights_only=True)
        other.load_state_dict(weights)
        other_optimizer.load_state_dict(state)
        take(other, other_optimizer, range(5, 10))
    assert equal(all_of(other, other_optimizer), all_of(model, optimizer))


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16])
def test_it_remembers_the_bytes_of_the_parameters_once_and_nothing_else(dtype):
    model = network().to(dtype)
    optimizer = optimizer_of(model)
    for parameter in model.parameters():
        parameter.grad = torch.ones_like(parameter)
    optimizer.step()
    n_bytes = sum(state["mean"].nbytes for state in optimizer.state.values())
    assert n_bytes == sum(parameter.nbytes for parameter in model.parameters())
    assert [list(state) for state in optimizer.state.values()] == [["mean"]] * 4


# --- what stops it -----------------------------------------------------------------------------
WRONG = [
    ({"lr": -0.1}, r"lr must be at least 0, and finite; got -0\.1"),
    ({"lr": math.nan}, "lr must be at least 0, and finite; got nan"),
    ({"lr": math.inf}, "lr must be at least 0, and finite; got inf"),
    ({"betas": (1.0, 0.9)}, r"each at least 0 and below 1; got \(1\.0, 0\.9\)"),
    ({"betas": (0.9, -0.1)}, r"each at least 0 and below 1; got \(0\.9, -0\.1\)"),
    ({"betas": (0.9,)}, r"betas must be two numbers.*got \(0\.9,\)"),
    ({"weight_decay": -0.1}, r"weight_decay must be at least 0, and finite; got -0\.1"),
    ({"weight_decay": math.nan}, "weight_decay must be at least 0, and finite; got nan"),
]


@pytest.mark.parametrize(("options", "message"), WRONG)
def test_an_option_out_of_range_is_refused_in_every_group(options, message):
    with pytest.raises(ValueError, match=message):
        Lion([weight(1.0)], **options)
    with pytest.raises(ValueError, match=message):
        Lion([{"params": [weight(1.0)]}, {"params": [weight(1.0)], **options}])
    optimizer = Lion([weight(1.0)])
    with pytest.raises(ValueError, match=message):
        optimizer.add_param_group({"params": [weight(1.0)], **options})
    assert len(optimizer.param_groups) == 1


def test_the_bounds_themselves_are_allowed():
    optimizer = Lion([weight(1.0)], lr=0.0, betas=(0.0, 0.0), weight_decay=0.0)
    assert optimizer.param_groups[0]["betas"] == (0.0, 0.0)


def test_a_sparse_gradient_is_refused_with_a_way_out():
    w = nn.Parameter(numbers(2, 2))
    before = w.detach().clone()
    w.grad = torch.eye(2, dtype=torch.float64).to_sparse()
    with pytest.raises(
        ValueError, match=r"dense and real; got one of torch\.sparse_.*sparse=False"
    ):
        Lion([w]).step()
    assert torch.equal(w, before)


def test_complex_weights_are_refused_and_not_wrong():
    w = nn.Parameter(torch.ones(2, dtype=torch.complex64))
    w.grad = torch.ones_like(w)
    with pytest.raises(ValueError, match=r"dense and real; got one of .* torch\.complex64"):
        Lion([w]).step()


def test_the_update_refuses_a_mean_of_another_shape():
    with pytest.raises(ValueError, match=r"of one shape; got \[3\] and \[1\]"):
        lion_update(torch.ones(3), torch.ones(1))
