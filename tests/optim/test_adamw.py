"""AdamW is torch's, number for number, and remembers two numbers a weight."""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from minillm.optim.adamw import AdamW, AdamWState, adamw_update
from minillm.train.checkpoint import load, save
from minillm.train.run_state import pack, unpack

DEFAULT = (0.9, 0.999)


def numbers(*shape, seed=0, dtype=torch.float64):
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(shape, generator=generator, dtype=torch.float64).to(dtype)


def weight(*values, dtype=torch.float64):
    return nn.Parameter(torch.tensor(values, dtype=dtype))


def updates(gradients, *, first=1, betas=DEFAULT, epsilon=1e-8):
    """Of one gradient after the other, from moments of zero on."""
    moments, found = AdamWState(torch.zeros_like(gradients[0]), torch.zeros_like(gradients[0])), []
    for step, gradient in enumerate(gradients, start=first):
        update, moments = adamw_update(gradient, moments, step, betas=betas, epsilon=epsilon)
        found.append(update)
    return found


def network(seed=0):
    torch.manual_seed(seed)
    return nn.Sequential(nn.Linear(2, 3), nn.Tanh(), nn.Linear(3, 1))


def optimizer_of(model):
    groups = [
        {"params": [p for p in model.parameters() if p.ndim == 2], "weight_decay": 0.1},
        {"params": [p for p in model.parameters() if p.ndim < 2], "betas": (0.8, 0.95)},
    ]
    return AdamW(groups, lr=0.05, weight_decay=0.0)


def take(model, optimizer, steps):
    for step in steps:
        for group in optimizer.param_groups:
            group["lr"] = 0.05 / (1 + step)
        optimizer.zero_grad()
        x = torch.sin(torch.arange(8.0) + step).reshape(4, 2)
        (model(x) - x.sum(1, keepdim=True)).square().mean().backward()
        optimizer.step()


def all_of(model, optimizer):
    """Everything that a run's next step depends on."""
    state = [optimizer.state[parameter] for parameter in model.parameters()]
    return (
        [p.detach().clone() for p in model.parameters()]
        + [m[key].clone() for m in state for key in ("mean", "square")]
        + [torch.tensor(m["step"]) for m in state]
    )


def equal(one, other):
    return all(torch.equal(a, b) for a, b in zip(one, other, strict=True))


# --- by hand -----------------------------------------------------------------------------------
def test_the_first_direction_is_the_sign_of_the_gradient_however_large_it_is():
    [update] = updates([torch.tensor([1e6, -3.0, 1e-4, 0.0], dtype=torch.float64)])
    assert update.tolist() == pytest.approx([1.0, -1.0, 1 / 1.0001, 0.0])  # ε = 1e-8


def test_two_steps_on_paper():
    first, second = updates(
        [torch.tensor([1.0]), torch.tensor([3.0])], betas=(0.5, 0.75), epsilon=1.0
    )
    assert first.item() == 0.5  # m̂ = v̂ = 1, and ε = 1
    # m = 1/2 · 1/2 + 1/2 · 3 = 7/4, m̂ = 7/3; v = 3/4 · 1/4 + 1/4 · 9 = 39/16, v̂ = 39/7
    assert second.item() == pytest.approx((7 / 3) / (math.sqrt(39 / 7) + 1))
    _, moments = adamw_update(
        torch.tensor([3.0]),
        AdamWState(torch.tensor([0.5]), torch.tensor([0.25])),
        2,
        betas=(0.5, 0.75),
    )
    assert (moments.mean.item(), moments.square.item()) == (7 / 4, 39 / 16)


def test_gradients_that_agree_give_one_and_those_that_contradict_each_other_almost_nothing():
    same = updates([torch.ones(1, dtype=torch.float64)] * 200)[-1].item()
    turning = updates([torch.tensor([(-1.0) ** k]) for k in range(200)])[-1].item()
    assert same == pytest.approx(1.0)
    assert abs(turning) == pytest.approx(0.1 / 1.9, rel=1e-4)  # 0.1 (1 - 0.9 + 0.81 - ...)


def test_twelve_gradients_after_many_zeros_go_beyond_the_bound_of_the_paper():
    # moments of zero stay zero, so the 5000 steps need not be taken; then m = 1 - 0.9¹² and
    # v = 1 - 0.999¹²
    found = updates([torch.ones(1, dtype=torch.float64)] * 12, first=5001)
    by_hand = (1 - 0.9**12) / math.sqrt((1 - 0.999**12) / (1 - 0.999**5012))
    assert found[-1].item() == pytest.approx(by_hand)
    assert found[-1].item() == pytest.approx(6.55, abs=0.01)
    paper = (1 - 0.9) / math.sqrt(1 - 0.999)
    assert found[0].item() < paper < found[1].item()  # it holds for a lone gradient


def test_decay_takes_its_share_of_the_weight_and_is_no_part_of_the_gradient():
    w = weight(2.0)
    optimizer = AdamW([w], lr=0.5, weight_decay=0.1)
    w.grad = torch.zeros_like(w)
    optimizer.step()
    assert w.item() == pytest.approx(1.9)  # 2 - 0.5 · 0.1 · 2
    assert (optimizer.state[w]["mean"].item(), optimizer.state[w]["square"].item()) == (0.0, 0.0)


def test_the_learning_rate_is_read_from_the_group_at_every_step():
    w = weight(0.0)
    optimizer = AdamW([w], lr=1.0, weight_decay=0.0)
    places = []
    for lr in (0.5, 0.0, 0.25):
        optimizer.param_groups[0]["lr"] = lr
        w.grad = torch.ones_like(w)
        optimizer.step()
        places.append(w.item())
    assert places == pytest.approx([-0.5, -0.5, -0.75])
    assert optimizer.state[w]["step"] == 3  # also at a learning rate of 0


def test_a_parameter_without_a_gradient_is_left_out_and_counts_its_own_steps():
    early, late = weight(0.0), weight(0.0)
    optimizer = AdamW([early, late], lr=0.5, weight_decay=0.1)
    early.grad = torch.ones_like(early)
    optimizer.step()
    assert late.item() == 0.0
    assert late not in optimizer.state
    late.grad = torch.ones_like(late)
    optimizer.step()
    assert (optimizer.state[early]["step"], optimizer.state[late]["step"]) == (2, 1)
    assert late.item() == pytest.approx(-0.5)


def test_in_bfloat16_the_mean_square_never_falls():
    for dtype, left in ((torch.bfloat16, 1.0), (torch.float32, 0.999)):
        moments = AdamWState(torch.ones(1, dtype=dtype), torch.ones(1, dtype=dtype))
        _, moments = adamw_update(torch.zeros(1, dtype=dtype), moments, 9)
        assert moments.square.item() == pytest.approx(left, abs=1e-6)


def test_the_closure_has_gradients_and_its_loss_is_handed_back():
    w = weight(3.0)
    optimizer = AdamW([w], lr=0.5, weight_decay=0.0)

    def closure():
        optimizer.zero_grad()
        loss = w.square().sum()
        loss.backward()
        return loss

    assert optimizer.step(closure).item() == 9.0
    assert w.item() == pytest.approx(2.5)
    assert w.requires_grad
    assert w.grad_fn is None
    assert optimizer.step() is None


# --- twin --------------------------------------------------------------------------------------
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16])
def test_the_class_is_the_update_in_a_loop(dtype):
    w = nn.Parameter(numbers(4, 3, dtype=dtype))
    optimizer = AdamW([w], lr=0.1, betas=(0.7, 0.9), epsilon=1e-3, weight_decay=0.2)
    by_hand, moments = w.detach().clone(), AdamWState(*torch.zeros(2, 4, 3, dtype=dtype))
    for step in range(1, 8):
        w.grad = numbers(4, 3, seed=step, dtype=dtype)
        optimizer.step()
        update, moments = adamw_update(w.grad, moments, step, betas=(0.7, 0.9), epsilon=1e-3)
        by_hand = (by_hand * (1 - 0.1 * 0.2)).add(update, alpha=-0.1)
    state = optimizer.state[w]
    assert equal([w.detach(), state["mean"], state["square"]], [by_hand, *moments])
    assert {t.dtype for t in (w, update, *moments, state["mean"], state["square"])} == {dtype}


def test_the_update_changes_nothing_it_was_given_and_keeps_the_types_of_the_moments():
    given = [numbers(3, seed=k, dtype=torch.bfloat16).abs() for k in range(3)]
    before = [tensor.clone() for tensor in given]
    _, moments = adamw_update(given[0], AdamWState(given[1], given[2]), 3)
    assert equal(given, before)
    assert not equal(moments, given[1:])
    _, moments = adamw_update(given[0].float(), AdamWState(given[1], given[2]), 3)
    assert {tensor.dtype for tensor in moments} == {torch.bfloat16}


# --- reference ---------------------------------------------------------------------------------
@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float64, 1e-12), (torch.float32, 1e-6)])
def test_fifty_steps_are_those_of_torch_in_several_groups_at_a_changing_rate(dtype, tolerance):
    shapes = [(4, 3), (7,), (), (2, 2, 2)]
    ours, theirs = (
        [nn.Parameter(numbers(*shape, seed=k, dtype=dtype)) for k, shape in enumerate(shapes)]
        for _ in range(2)
    )

    def build(kind, weights, name):
        return kind(
            [
                {"params": weights[:2], "weight_decay": 0.3, "lr": 0.1},
                {"params": weights[2:3], "betas": (0.5, 0.8), name: 1e-3},
                {"params": weights[3:], "weight_decay": 0.0},
            ],
            lr=0.02,
        )

    pair = build(AdamW, ours, "epsilon"), build(torch.optim.AdamW, theirs, "eps")
    peaks = [group["lr"] for group in pair[0].param_groups]
    for step in range(50):
        for optimizer, weights in zip(pair, (ours, theirs), strict=True):
            for group, peak in zip(optimizer.param_groups, peaks, strict=True):
                group["lr"] = peak * (1 + math.cos(step / 16)) / 2
            for k, w in enumerate(weights):
                gradient = 10.0 ** (k - 2) * numbers(*w.shape, seed=100 * k + step, dtype=dtype)
                w.grad = None if (k, step % 7) == (1, 3) else gradient
            optimizer.step()
    for mine, other in zip(ours, theirs, strict=True):
        own, torchs = pair[0].state[mine], pair[1].state[other]
        assert own["step"] == torchs["step"].item()
        names = {"mean": "exp_avg", "square": "exp_avg_sq"}
        couples = [(mine, other), *((own[a], torchs[b]) for a, b in names.items())]
        for found, expected in couples:
            atol = tolerance * expected.abs().max().item()
            torch.testing.assert_close(found, expected, rtol=0, atol=atol)


# --- law ---------------------------------------------------------------------------------------
@given(
    st.lists(st.floats(-1e3, 1e3).filter(lambda g: abs(g) > 1e-3 or g == 0), min_size=1),
    st.floats(0.0, 0.99),
    st.floats(0.5, 0.999),
)
@settings(max_examples=100, deadline=None)
def test_no_direction_is_longer_than_cauchy_and_schwarz_allow(gradients, beta1, beta2):
    found = updates([torch.tensor([g], dtype=torch.float64) for g in gradients],
                       betas=(beta1, beta2))  # fmt: skip
    for step, update in enumerate(found, start=1):
        assert abs(update.item()) <= longest(step, beta1, beta2) * (1 + 1e-9)


def longest(step, beta1, beta2):
    """√(sum of w² / u), if m̂ = sum of w g and v̂ = sum of u g²."""
    w = [(1 - beta1) * beta1**age / (1 - beta1**step) for age in range(step)]
    u = [(1 - beta2) * beta2**age / (1 - beta2**step) for age in range(step)]
    return math.sqrt(sum(a * a / b for a, b in zip(w, u, strict=True)))


def test_gradients_that_grow_by_the_ratio_of_the_betas_reach_that_length():
    beta1, beta2 = DEFAULT
    growing = [torch.tensor([(beta1 / beta2) ** (60 - k)], dtype=torch.float64) for k in range(60)]
    assert updates(growing)[-1].item() == pytest.approx(longest(60, *DEFAULT), rel=1e-6)
    limit = (1 - beta1) / math.sqrt((1 - beta2) * (1 - beta1**2 / beta2))
    after_zeros = updates(growing, first=20_001)[-1].item()
    assert after_zeros == pytest.approx(limit, rel=1e-3)
    assert limit == pytest.approx(7.27, abs=0.01)


@given(st.integers(-30, 30), st.integers(1, 12), st.integers(0, 99))
@settings(max_examples=50, deadline=None)
def test_the_scale_of_the_gradients_is_forgotten_and_their_sign_is_not(power, n_steps, seed):
    gradients = [numbers(5, seed=seed + k) for k in range(n_steps)]
    plain = updates(gradients, epsilon=0.0)
    scaled = updates([g * 2.0**power for g in gradients], epsilon=0.0)
    turned = updates([-g for g in gradients], epsilon=0.0)
    assert equal(scaled, plain)  # a power of two changes no digit
    assert equal(turned, [-d for d in plain])


@given(st.integers(1, 9), st.integers(1, 9), st.integers(0, 99))
@settings(max_examples=30, deadline=None)
def test_every_weight_is_for_itself(n_first, n_second, seed):
    gradients = [numbers(n_first + n_second, seed=seed + k) for k in range(3)]
    whole = updates(gradients)
    parts = [updates(list(part)) for part in
             zip(*(g.split([n_first, n_second]) for g in gradients), strict=True)]  # fmt: skip
    joined = [torch.cat(both) for both in zip(*parts, strict=True)]
    for found, expected in zip(joined, whole, strict=True):
        torch.testing.assert_close(found, expected, rtol=1e-12, atol=0)


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
def test_it_remembers_twice_the_bytes_of_the_parameters_and_a_plain_count(dtype):
    model = network().to(dtype)
    optimizer = optimizer_of(model)
    for parameter in model.parameters():
        parameter.grad = torch.ones_like(parameter)
    optimizer.step()
    new_state = [value for state in optimizer.state.values() for value in state.values()]
    n_bytes = sum(value.nbytes for value in new_state if isinstance(value, torch.Tensor))
    assert n_bytes == 2 * sum(parameter.nbytes for parameter in model.parameters())
    assert [value for value in new_state if not isinstance(value, torch.Tensor)] == [1] * 4
    assert {type(state["step"]) for state in optimizer.state.values()} == {int}
    assert {tuple(state) for state in optimizer.state.values()} == {("step", "mean", "square")}


# --- what stops it -----------------------------------------------------------------------------
WRONG = [
    ({"lr": -0.1}, r"lr must be at least 0, and finite; got -0\.1"),
    ({"lr": math.nan}, "lr must be at least 0, and finite; got nan"),
    ({"lr": math.inf}, "lr must be at least 0, and finite; got inf"),
    ({"betas": (1.0, 0.9)}, r"each at least 0 and below 1; got \(1\.0, 0\.9\)"),
    ({"betas": (0.9, -0.1)}, r"each at least 0 and below 1; got \(0\.9, -0\.1\)"),
    ({"betas": (0.9,)}, r"betas must be two numbers.*got \(0\.9,\)"),
    ({"epsilon": 0.0}, r"epsilon must be above 0, and finite; got 0\.0.*0 / 0"),
    ({"epsilon": math.inf}, "epsilon must be above 0, and finite; got inf"),
    ({"weight_decay": -0.1}, r"weight_decay must be at least 0, and finite; got -0\.1"),
    ({"weight_decay": math.nan}, "weight_decay must be at least 0, and finite; got nan"),
]


@pytest.mark.parametrize(("options", "message"), WRONG)
def test_an_option_out_of_range_is_refused_in_every_group(options, message):
    with pytest.raises(ValueError, match=message):
        AdamW([weight(1.0)], **options)
    with pytest.raises(ValueError, match=message):
        AdamW([{"params": [weight(1.0)]}, {"params": [weight(1.0)], **options}])
    optimizer = AdamW([weight(1.0)])
    with pytest.raises(ValueError, match=message):
        optimizer.add_param_group({"params": [weight(1.0)], **options})
    assert len(optimizer.param_groups) == 1


def test_the_bounds_themselves_are_allowed():
    optimizer = AdamW([weight(1.0)], lr=0.0, betas=(0.0, 0.0), weight_decay=0.0)
    assert optimizer.param_groups[0]["betas"] == (0.0, 0.0)


def test_a_sparse_gradient_is_refused_with_a_way_out():
    w = nn.Parameter(numbers(2, 2))
    before = w.detach().clone()
    w.grad = torch.eye(2, dtype=torch.float64).to_sparse()
    optimizer = AdamW([w])
    with pytest.raises(
        ValueError, match=r"dense and real; got one of torch\.sparse_.*sparse=False"
    ):
        optimizer.step()
    assert torch.equal(w, before)


def test_complex_weights_are_refused_and_not_wrong():
    w = nn.Parameter(torch.ones(2, dtype=torch.complex64))
    w.grad = torch.ones_like(w)
    with pytest.raises(ValueError, match=r"dense and real; got one of .* torch\.complex64"):
        AdamW([w]).step()


def test_the_update_refuses_a_step_of_zero_and_moments_of_another_shape():
    three, one = torch.ones(3), torch.ones(1)
    with pytest.raises(ValueError, match=r"counted from 1.*got step 0"):
        adamw_update(three, AdamWState(three, three), 0)
    for given_moments in (AdamWState(one, three), AdamWState(three, one), AdamWState(one, one)):
        with pytest.raises(ValueError, match=r"of one shape; got \[3\], "):
            adamw_update(three, given_moments, 1)
