"""minillm.train.laws: laws that are known are found again, and doubt is as large as it is."""

import math

import numpy as np
import pytest
from scipy.optimize import curve_fit
from scipy.stats import linregress

from minillm.train.laws import (
    Chinchilla,
    chinchilla,
    isoflop_minimum,
    power_law,
    size_law,
)

SIZES = np.geomspace(1e3, 1e6, 8)
#: Hoffmann et al. 2022, as printed; and one that leans far over.
LAWS = [
    Chinchilla(1.69, 406.4, 0.34, 410.7, 0.28),
    Chinchilla(0.5, 20.0, 0.2, 2000.0, 0.7),
]


RUNS = [(1000, 2.2), (4000, 2.0), (16_000, 2.3), (64_000, 2.9)]


def bowls(budgets=(6e10, 2.4e11, 1e12), sizes=SIZES):
    """Sizes and tokens of runs, each of which costs one of the budgets."""
    n_parameters = np.tile(sizes, len(budgets))
    return n_parameters, np.repeat(budgets, len(sizes)) / 6 / n_parameters


# --- by hand ------------------------------------------------------------------------------------
def test_a_parabola_through_three_points_by_hand():
    # log10 N = 3, 4, 5: 2 + (log10 N − 4.25)² is 3.5625, 2.0625, 2.5625
    lowest = isoflop_minimum([1000, 10_000, 100_000], [3.5625, 2.0625, 2.5625])
    assert lowest.is_interior
    assert lowest.n_parameters == pytest.approx(10**4.25, rel=1e-9)
    assert lowest.loss == pytest.approx(2, rel=1e-9)


@pytest.mark.parametrize(
    ("losses", "size", "words"),
    [
        ([2.0, 2.5, 4.0], 1000, "is the smallest; add smaller"),
        ([4.0, 2.5, 2.0], 100_000, "is the largest; add larger"),
        ([3.0, 2.9, 2.95], 10_000, "14,678 parameters"),  # interior, by a little
        ([2.5, 2.4, 1.0], 100_000, "is the largest"),  # bent the other way
    ],
)
def test_a_minimum_at_the_edge_is_none_and_says_so(losses, size, words):
    lowest = isoflop_minimum([1000, 10_000, 100_000], losses)
    assert lowest.is_interior == (size == 10_000)
    assert lowest.is_interior or (lowest.n_parameters, lowest.loss) == (size, min(losses))
    assert words in str(lowest)


def test_a_lowest_size_without_a_bowl_around_it_is_no_minimum():
    lowest = isoflop_minimum([1e3, 1e4, 1e5, 1e6, 1e7], [1.0, 9.0, 0.9, 9.0, 1.0])
    assert not lowest.is_interior
    assert "no lowest point of a parabola" in str(lowest)


# --- beside scipy -------------------------------------------------------------------------------
def test_with_a_known_floor_it_is_the_line_of_least_squares():
    y = 1.5 + 30 * SIZES**-0.3 * np.exp(0.1 * np.random.default_rng(0).normal(size=8))
    law, line = power_law(SIZES, y, floor=1.5), linregress(np.log(SIZES), np.log(y - 1.5))
    assert law.exponent == pytest.approx(line.slope, rel=1e-9)
    assert math.log(law.coefficient) == pytest.approx(line.intercept, rel=1e-9)
    above = power_law(SIZES, y - 1.5)
    assert above.r2 == pytest.approx(line.rvalue**2, rel=1e-9)
    assert above.interval == pytest.approx(law.interval, rel=1e-9)


def test_with_a_fitted_floor_it_is_scipys_curve():
    y = (1.5 + 30 * SIZES**-0.3) * (1 + 0.01 * np.random.default_rng(0).normal(size=8))
    law = power_law(SIZES, y, floor=None)
    theirs, _ = curve_fit(lambda x, f, c, e: f + c * x**e, SIZES, y, (1, 10, -0.5), sigma=y)
    ours = (law.floor, law.coefficient, law.exponent)
    assert ours == pytest.approx(tuple(theirs), rel=1e-3)
    assert law.interval[0] < law.exponent < law.interval[1]
    assert law.predict(SIZES) == pytest.approx(theirs[0] + theirs[1] * SIZES ** theirs[2], rel=1e-4)


# --- laws ---------------------------------------------------------------------------------------
@pytest.mark.parametrize("floor", [0.0, 1.5, None])
@pytest.mark.parametrize("exponent", [-0.076, -0.5, 0.54])
def test_without_noise_the_law_is_found_again(floor, exponent):
    y = (floor or 0.0) + 30 * SIZES**exponent
    law = power_law(SIZES, y, floor=floor)
    assert law.exponent == pytest.approx(exponent, rel=0.02)
    assert law.predict(1e7) == pytest.approx((floor or 0.0) + 30 * 1e7**exponent, rel=0.02)
    assert law.r2 == pytest.approx(1, abs=1e-6)
    assert law.interval == pytest.approx((exponent, exponent), rel=0.02)


def test_the_interval_covers_the_truth_as_often_as_it_says():
    rng = np.random.default_rng(3)
    laws = [
        power_law(SIZES, 30 * SIZES**-0.3 * np.exp(0.01 * rng.normal(size=8)), seed=seed)
        for seed in range(400)
    ]
    covers = np.mean([law.interval[0] <= -0.3 <= law.interval[1] for law in laws])
    assert 0.93 <= covers <= 0.98  # 95 % are promised; without studentizing it is 89 to 92 %


def test_the_interval_of_a_fitted_floor_covers_too_and_is_wider():
    rng, covers, wider = np.random.default_rng(4), 0, 0
    for seed in range(20):
        y = (1.5 + 30 * SIZES**-0.3) * np.exp(0.01 * rng.normal(size=8))
        law = power_law(SIZES, y, floor=None, n_resamples=200, seed=seed)
        known = power_law(SIZES, y, floor=1.4).interval
        covers += law.interval[0] <= -0.3 <= law.interval[1]
        wider += law.interval[1] - law.interval[0] > known[1] - known[0]
    assert covers >= 17
    assert wider >= 15


@pytest.mark.parametrize("truth", LAWS)
def test_without_noise_predictions_and_optima_are_found_again(truth):
    n_parameters, n_tokens = bowls()
    law = chinchilla(n_parameters, n_tokens, truth.predict(n_parameters, n_tokens))
    for name in ("E", "A", "alpha", "B", "beta"):
        assert getattr(law, name) == pytest.approx(getattr(truth, name), rel=0.02)
    assert law.optimum(1e14) == pytest.approx(truth.optimum(1e14), rel=0.02)
    assert law.predict(1e7, 1e10) == pytest.approx(truth.predict(1e7, 1e10), rel=0.02)


def runs_of(exponent, seed, noise=0.02, bend=0.05, n_seeds=3):
    """Bowls of three prices whose best size grows with a known exponent."""
    rng = np.random.default_rng(seed)
    bowls = {}
    for flops in (1e10, 1e11, 1e12):
        best = 5000 * (flops / 1e10) ** exponent
        beside = {1e10: 0.7, 1e11: 1.6, 1e12: 1.2}[flops]  # the best is nobody's middle
        sizes = np.repeat(beside * best * 2.0 ** np.arange(-3, 3), n_seeds)
        losses = 1 + bend * np.log(sizes / best) ** 2 + noise * rng.standard_normal(len(sizes))
        bowls[flops] = list(zip(sizes.tolist(), losses.tolist(), strict=True))
    return bowls


def test_the_best_sizes_grow_as_they_do_and_the_interval_grows_with_the_noise():
    assert size_law(runs_of(0.6, 0, noise=0)).exponent == pytest.approx(0.6, abs=1e-9)
    quiet, loud = (size_law(runs_of(0.6, 0, noise)).interval for noise in (0.01, 0.04))
    assert quiet[1] - quiet[0] < loud[1] - loud[0]


def test_the_interval_of_the_best_sizes_covers_the_truth_nearly_as_often_as_it_says():
    laws = [size_law(runs_of(0.6, seed), n_resamples=200, seed=seed) for seed in range(100)]
    covered = sum(law.interval[0] <= 0.6 <= law.interval[1] for law in laws)
    assert covered >= 85


@pytest.mark.parametrize("truth", LAWS)
def test_a_known_floor_is_kept_and_the_rest_found(truth):
    n_parameters, n_tokens = bowls()
    losses = truth.predict(n_parameters, n_tokens)
    law = chinchilla(n_parameters, n_tokens, losses, floor=truth.E)
    assert math.isclose(law.E, truth.E)
    assert law.alpha == pytest.approx(truth.alpha, rel=0.02)
    assert law.predict(1e6, 1e8) == pytest.approx(truth.predict(1e6, 1e8), rel=1e-3)
    wrong = chinchilla(n_parameters, n_tokens, losses, floor=0.9 * truth.E)
    assert math.isclose(wrong.E, 0.9 * truth.E)


def test_one_run_that_went_wrong_does_not_bend_the_law():
    n_parameters, n_tokens = bowls()
    losses = LAWS[0].predict(n_parameters, n_tokens)
    losses[5] *= 1.5
    law = chinchilla(n_parameters, n_tokens, losses)
    assert law.predict(1e7, 1e10) == pytest.approx(LAWS[0].predict(1e7, 1e10), rel=0.02)


@pytest.mark.parametrize("truth", LAWS)
def test_no_other_size_is_better_than_the_optimum(truth):
    best = truth.optimum(1e12)
    assert 6 * best.n_parameters * best.n_tokens == pytest.approx(1e12)
    for factor in (0.9, 1.1):
        assert truth.predict(best.n_parameters * factor, best.n_tokens / factor) > best.loss
    tenfold = truth.optimum(1e13)
    assert tenfold.n_parameters / best.n_parameters == pytest.approx(10**truth.size_exponent)


# --- refused ------------------------------------------------------------------------------------
@pytest.mark.parametrize(
    ("call", "words"),
    [
        (lambda: power_law([1, 2], [3, 2]), "at least 3 different x are needed; got 2"),
        (lambda: power_law([2, 2, 2], [3, 2, 1]), "different x are needed; got 1"),
        (lambda: power_law([1, 2, 3], [3, 2, 1], floor=None), "at least 4 different x"),
        (lambda: power_law([1, 2, 3], [3, -2, 1]), "y must be .* number 2 of 3 is -2"),
        (lambda: power_law([1, 2, 3], [3, math.nan, 1]), "number 2 of 3 is nan. Leave out"),
        (lambda: power_law([1, 2, 3], [3, 2]), "one of each for every run; got 3 x, 2 y"),
        (lambda: power_law([[1, 2, 3]], [3, 2, 1]), "got the shape"),
        (lambda: power_law([1, 2, 3], [3, 2, 1], floor=1.0), "y is 1, and the floor 1. If a loss"),
        (lambda: isoflop_minimum([1, 1, 2], [3, 2, 1]), "at least 3 different n_parameters"),
        (lambda: isoflop_minimum([1, 2, 3], [3, math.inf, 1]), "losses must be .* is inf"),
        (
            lambda: chinchilla([1, 2, 3, 1, 2], [1, 2, 3, 3, 4], [3, 2, 1, 2, 2]),
            "at least 6 different runs are needed; got 5",
        ),
        (lambda: chinchilla([1, 2] * 3, range(1, 7), [1] * 6), "3 different n_parameters"),
        (lambda: chinchilla(SIZES, 20 * SIZES, SIZES**-0.1), "grow together in all these runs"),
        (lambda: size_law({1e9: RUNS, 1e10: RUNS}), "at least 3 different x are needed; got 2"),
        (
            lambda: size_law({1e9: RUNS, 1e10: RUNS, 1e11: RUNS[1:]}),
            r"at 1e\+11 operations there is no minimum: .* is the smallest; add smaller ones",
        ),
        (
            lambda: chinchilla(*bowls(), np.full(24, 2.0), floor=2.0),
            "every loss must be above the floor, .* loss is 2, and the floor 2",
        ),
        (lambda: LAWS[0].optimum(5.0), "5 operations are too few: the best run would have"),
        (lambda: LAWS[0].optimum(math.nan), "flops must be a number above 0; got nan"),
    ],
)
def test_what_is_no_law_is_refused_in_a_sentence(call, words):
    with pytest.raises(ValueError, match=words):
        call()
