import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from minillm.train.precision import (
    BF16,
    FP8_E4M3,
    FP16,
    FP32,
    Format,
    LossScale,
    round_to,
    rounded_gradients,
    share_lost,
)

FORMATS = [FP16, BF16, FP8_E4M3, FP32]
SIXTEEN = pytest.mark.parametrize(
    ("format", "dtype"), [(FP16, torch.float16), (BF16, torch.bfloat16)]
)


def rounded(x, format):
    return round_to(torch.tensor(x, dtype=torch.float64), format).tolist()


def every_number(dtype):
    """All finite numbers of a type of 8 or 16 bits, in float64."""
    bits = torch.arange(2 ** (8 * dtype.itemsize))
    bits = bits.to(torch.uint8) if dtype.itemsize == 1 else (bits - 2**15).to(torch.int16)
    numbers = bits.view(dtype).double()
    return numbers[numbers.isfinite()].unique()


def random_bits(n, seed=0):
    """Numbers of float32 of every size, NaN and inf too."""
    generator = torch.Generator().manual_seed(seed)
    bits = torch.randint(-(2**31), 2**31, (n,), generator=generator).to(torch.int32)
    return bits.view(torch.float32)


def assert_same(ours, theirs):
    """Number by number, NaN like NaN, and 0 not like -0."""
    assert ours.dtype == theirs.dtype
    torch.testing.assert_close(ours, theirs, rtol=0, atol=0, equal_nan=True)
    numbers = ~theirs.isnan()
    assert torch.equal(ours[numbers].signbit(), theirs[numbers].signbit())


# --- by hand -----------------------------------------------------------------------------------
def test_the_limits_of_the_formats():
    assert (FP16.largest, FP16.smallest_normal, FP16.smallest, FP16.epsilon) == (
        65504.0,
        2.0**-14,
        2.0**-24,
        2.0**-10,
    )
    assert (BF16.smallest_normal, BF16.smallest, BF16.epsilon) == (2.0**-126, 2.0**-133, 2.0**-7)
    assert BF16.largest == 255 * 2.0**120
    assert (FP8_E4M3.largest, FP8_E4M3.smallest_normal, FP8_E4M3.smallest, FP8_E4M3.epsilon) == (
        448.0,
        2.0**-6,
        2.0**-9,
        0.125,
    )
    assert Format("E5M2", 5, 2).largest == 57344.0


def test_halves_go_to_the_even_neighbour():
    # after 1 the numbers of FP16 are 1/1024 apart, after 2048 they are 2 apart
    assert rounded([2049.0, 2051.0, 2049.001, 2048.999], FP16) == [2048.0, 2052.0, 2050.0, 2048.0]
    assert rounded([1 + 1 / 2048, 1 + 3 / 2048], FP16) == [1.0, 1 + 2 / 1024]
    assert rounded([257.0, 259.0], BF16) == [256.0, 260.0]
    assert rounded([17.0, 19.0, -17.0], FP8_E4M3) == [16.0, 20.0, -16.0]


def test_below_half_the_smallest_number_is_zero_with_its_sign():
    tiny = 2.0**-24
    found = rounded([tiny, tiny / 2, 0.51 * tiny, 1.5 * tiny, 2.5 * tiny, -tiny / 2, -0.0], FP16)
    assert found == [tiny, 0.0, tiny, 2 * tiny, 2 * tiny, 0.0, 0.0]
    assert [math.copysign(1, x) for x in found] == [1, 1, 1, 1, 1, -1, -1]


def test_half_a_step_beyond_the_largest_number_lies_infinity():
    found = rounded([65504.0, 65519.99, 65520.0, -65520.0, math.inf, -math.inf, 1e308], FP16)
    assert found == [65504.0, 65504.0, math.inf, -math.inf, math.inf, -math.inf, math.inf]
    assert math.isnan(rounded([math.nan], FP16)[0])


def test_a_format_without_infinities_stays_at_its_largest_number():
    assert rounded([464.0, 1e9, -500.0, math.inf, -math.inf], FP8_E4M3) == [
        448.0,
        448.0,
        -448.0,
        448.0,
        -448.0,
    ]
    assert math.isnan(rounded([math.nan], FP8_E4M3)[0])


def test_from_float64_it_rounds_once_where_torch_rounds_twice():
    x = torch.tensor([1 + 2**-11 + 2**-40], dtype=torch.float64)  # just above the half
    assert round_to(x, FP16).item() == 1 + 2**-10
    assert x.half().item() == 1.0  # float32 dropped what was above, then a half went to even


def test_the_share_lost_is_of_what_was_not_zero_before():
    gradient = torch.tensor([[1e-8, 1e-3], [0.0, -1e-9]])
    assert share_lost(gradient, FP16) == pytest.approx(2 / 3)
    assert share_lost(gradient, BF16) == 0.0
    assert share_lost(torch.zeros(3), FP16) == 0.0
    assert share_lost(torch.tensor([1.0, math.nan, math.inf]), FP16) == 0.0


def test_gradients_that_vanish_in_float16_are_saved_by_a_scale():
    # ∂/∂a = 2e-8, below half of 2^-24; ∂/∂b = 3, which is a number of float16
    a, b = torch.ones(2, requires_grad=True), torch.ones((), requires_grad=True)

    def found(format, scale=1.0):
        return rounded_gradients(2e-8 * a.sum() + 3 * b, [a, b], format, scale)

    assert [gradient.tolist() for gradient in found(FP16)] == [[0.0, 0.0], 3.0]
    small, large = found(FP16, scale=2.0**10)
    assert small.tolist() == [344 * 2.0**-24 / 2**10] * 2  # 2e-8 · 2^10 is 343.6 times 2^-24
    assert large.item() == 3.0
    assert found(FP16, scale=2.0**15)[1].item() == math.inf  # 98304 is beyond 65504
    assert found(BF16)[0].tolist() == pytest.approx([2e-8, 2e-8], rel=2**-8)
    assert a.grad is None


def test_a_scale_is_halved_by_an_overflow_and_doubled_by_patience():
    state = LossScale(scale=4.0, growth_every=3)
    scales = []
    for overflowed in (True, True, True, False, False, True, False, False, False, False):
        state = state.after(overflowed)
        scales.append(state.scale)
    assert scales == [2.0, 1.0, 1.0, 1.0, 1.0, 1.0, 1.0, 1.0, 2.0, 2.0]
    assert state == LossScale(scale=2.0, growth_every=3, n_good=1)


# --- reference ---------------------------------------------------------------------------------
@SIXTEEN
def test_every_number_its_halves_and_what_lies_beside_them_are_cast_as_by_torch(format, dtype):
    numbers = every_number(dtype)
    assert numbers.max().item() == format.largest
    assert numbers[numbers > 0].min().item() == format.smallest
    assert torch.equal(round_to(numbers, format), numbers)  # the format's own are left alone
    halves = (numbers[1:] + numbers[:-1]) / 2
    spots = torch.cat([numbers, halves]).float()  # float32 has one bit more, so it holds them
    away = torch.full_like(spots, math.inf)
    for x in (spots, torch.nextafter(spots, away), torch.nextafter(spots, -away)):
        assert_same(round_to(x, format), x.to(dtype).float())


@SIXTEEN
def test_millions_of_numbers_of_every_size_are_cast_as_by_torch(format, dtype):
    x = random_bits(2_000_000)
    assert_same(round_to(x, format), x.to(dtype).float())


def test_eight_bits_are_cast_as_by_torch():
    numbers = every_number(torch.float8_e4m3fn)
    assert numbers.abs().max().item() == FP8_E4M3.largest
    halves = (numbers[1:] + numbers[:-1]) / 2
    spots = torch.cat([numbers, halves]).float()
    away = torch.full_like(spots, math.inf)
    dense = torch.exp2(torch.linspace(-12, 8.8, 200_000))
    for x in (spots, torch.nextafter(spots, away), torch.nextafter(spots, -away), dense, -dense):
        x = x[x.abs() <= 464]  # beyond, versions of torch differ
        assert_same(round_to(x, FP8_E4M3), x.to(torch.float8_e4m3fn).float())


def test_float64_is_rounded_to_float32_as_by_torch_and_float32_stays():
    generator = torch.Generator().manual_seed(0)
    fraction = 1 + torch.rand(200_000, generator=generator, dtype=torch.float64)
    exponent = torch.randint(-160, 135, (200_000,), generator=generator).double()
    x = fraction * torch.exp2(exponent)
    assert_same(round_to(x, FP32), x.float().double())
    x = random_bits(200_000)
    assert_same(round_to(x, FP32), x)


@pytest.mark.parametrize(
    ("format", "dtype"), [(FP16, torch.float16), (BF16, torch.bfloat16), (FP32, torch.float32)]
)
def test_the_limits_are_those_of_torch(format, dtype):
    known = torch.finfo(dtype)
    ours = (format.largest, format.smallest_normal, format.smallest, format.epsilon)
    assert ours == (known.max, known.tiny, known.tiny * known.eps, known.eps)
    assert str(dtype) == f"torch.{format.name}"


def test_the_scale_is_that_of_torchs_grad_scaler():
    weight = torch.zeros(1, requires_grad=True)
    optimizer = torch.optim.SGD([weight], lr=0.0)
    scaler = torch.amp.GradScaler("cpu", init_scale=2.0**6, growth_interval=3)
    state = LossScale(scale=2.0**6, growth_every=3)
    for overflowed in [False] * 7 + [True, True, False, False, True] + [False] * 3:
        optimizer.zero_grad()
        scaler.scale(weight.sum()).backward()
        if overflowed:
            weight.grad.fill_(math.inf)
        scaler.step(optimizer)
        scaler.update()
        state = state.after(overflowed)
        assert state.scale == scaler.get_scale()


# --- law ---------------------------------------------------------------------------------------
@given(
    st.integers(2, 8),
    st.integers(1, 23),
    st.lists(st.floats(allow_nan=False, allow_infinity=False), min_size=2, max_size=20),
)
@settings(max_examples=150, deadline=None)
def test_rounding_is_odd_keeps_order_comes_near_and_changes_nothing_twice(
    n_exponent, n_mantissa, x
):
    format = Format("any", n_exponent, n_mantissa)
    x = torch.tensor(x, dtype=torch.float64).sort().values
    y = round_to(x, format)
    assert torch.equal(round_to(y, format), y)
    assert torch.equal(round_to(-x, format), -y)
    assert (y[1:] >= y[:-1]).all()
    inside = x.abs() <= format.largest
    most = (x.abs() * format.epsilon).clamp(min=format.smallest) / 2
    assert ((y - x).abs() <= most)[inside].all()


@given(st.integers(-20, 20), st.integers(0, 99))
@settings(max_examples=50, deadline=None)
def test_a_power_of_two_costs_no_digits_within_the_range(power, seed):
    x = torch.randn(20, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    scale = 2.0**power
    torch.testing.assert_close(round_to(x * scale, BF16) / scale, round_to(x, BF16), rtol=0, atol=0)


def test_gradients_of_float32_are_those_of_autograd():
    weight = torch.randn(4, generator=torch.Generator().manual_seed(0)).requires_grad_()
    (expected,) = torch.autograd.grad(weight.sin().sum(), weight)
    (found,) = rounded_gradients(weight.sin().sum(), [weight], FP32, scale=2.0**10)
    assert torch.equal(found, expected)
    assert not found.requires_grad


def test_with_its_scale_a_run_in_float16_goes_where_float32_goes():
    # the gradients are about 1e-8, so unscaled float16 stands still
    expected = torch.linspace(-1, 1, 8)

    def run(format, state):
        weight, n_skipped = torch.zeros(8, requires_grad=True), 0
        for _ in range(60):
            loss = 1e-8 * (weight - expected).square().sum()
            (gradient,) = rounded_gradients(loss, [weight], format, state.scale)
            overflowed = not gradient.isfinite().all()
            state, n_skipped = state.after(overflowed), n_skipped + overflowed
            if not overflowed:
                weight = (weight - 1e7 * gradient).detach().requires_grad_()
        return weight.detach(), n_skipped

    fixed = LossScale(scale=1.0, growth_every=1000)
    exact, _ = run(FP32, fixed)
    torch.testing.assert_close(exact, expected, rtol=0, atol=1e-3)
    stuck, _ = run(FP16, fixed)
    assert torch.equal(stuck, torch.zeros(8))
    saved, n_skipped = run(FP16, LossScale(scale=2.0**45))
    torch.testing.assert_close(saved, expected, rtol=0, atol=2e-3)
    assert n_skipped >= 1  # it began too high, and found its way down


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("format", FORMATS)
def test_type_and_shape_stay_and_what_was_given_too(format, dtype):
    x = torch.full((2, 0, 3), 0.1, dtype=dtype), torch.full((2, 3), 1 / 3, dtype=dtype)
    for given_one in x:
        y = round_to(given_one.requires_grad_(), format)
        assert (y.dtype, y.shape, y.requires_grad) == (dtype, given_one.shape, False)
    assert (x[1] == torch.tensor(1 / 3, dtype=dtype)).all()


# --- what stops it -----------------------------------------------------------------------------
@pytest.mark.parametrize(
    ("call", "words"),
    [
        (lambda: Format("tiny", 1, 3), "tiny needs 2 to 8 bits .* got 1 and 3"),
        (lambda: Format("upcast", 9, 3), "got 9 and 3"),
        (lambda: Format("open", 8, 3, has_infinities=False), "2 to 7 bits"),
        (lambda: Format("flat", 4, 0), "got 4 and 0"),
        (lambda: Format("float64", 8, 52), "got 8 and 52"),
        (lambda: round_to(torch.ones(1, dtype=torch.float16), FP16), "got torch.float16"),
        (lambda: LossScale(scale=0.5), r"at least 1.*scale=0\.5"),
        (lambda: LossScale(scale=math.inf), "scale=inf"),
        (lambda: LossScale(growth_every=0), "growth_every=0"),
        (lambda: LossScale(growth_every=3, n_good=3), "n_good=3"),
        (lambda: rounded_gradients(torch.ones(()), [], FP16, 0.0), "above 0; got 0.0"),
        (lambda: rounded_gradients(torch.ones(()), [], FP16, math.inf), "got inf"),
    ],
)
def test_bad_input_is_named(call, words):
    with pytest.raises(ValueError, match=words):
        call()
