"""minillm.train.by_heart: it fails as often as one that is tried out, and falls as theory says."""

import numpy as np
import pytest

from minillm.train.by_heart import by_heart_error, zipf
from minillm.train.laws import power_law


# --- by hand ------------------------------------------------------------------------------------
def test_a_learner_by_heart_fails_as_often_as_one_that_is_tried_out():
    p, rng = zipf(50, 1.0), np.random.default_rng(0)
    failed = []
    for _ in range(2000):
        unseen = np.ones(50, dtype=bool)
        unseen[rng.choice(50, size=20, p=p)] = False
        failed.append(p[unseen].sum())
    assert by_heart_error(p, 20) == pytest.approx(np.mean(failed), rel=0.02)


# --- law ----------------------------------------------------------------------------------------
@pytest.mark.parametrize(("alpha", "slope"), [(1.0, -0.5), (0.5, -1 / 3), (2.0, -2 / 3)])
def test_a_learner_by_heart_falls_as_theory_says(alpha, slope):
    draws = [16, 64, 256, 1024, 4096]
    errors = [by_heart_error(zipf(10**6, alpha), n) for n in draws]
    assert power_law(draws, errors).exponent == pytest.approx(slope, abs=0.01)


# --- bad input ----------------------------------------------------------------------------------
@pytest.mark.parametrize(("n_facts", "alpha"), [(0, 1.0), (5, 0.0), (5, float("inf"))])
def test_a_world_without_facts_or_without_fame_is_refused(n_facts, alpha):
    with pytest.raises(ValueError, match=f"one fact, and alpha above 0; got {n_facts} and {alpha}"):
        zipf(n_facts, alpha)
