import math
from dataclasses import replace
from itertools import pairwise

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.optim.lr_scheduler import ConstantLR, CosineAnnealingLR, LinearLR, SequentialLR
from transformers import get_constant_schedule_with_warmup, get_wsd_schedule

from minillm.optim.schedule import Constant, Cosine, WarmupStableDecay


def factors(schedule, n_steps):
    return [schedule(step) for step in range(n_steps)]


def torchs(n_steps, *parts):
    """The factors of torch's schedulers: pairs of a function of the optimizer, and its steps."""
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=1.0)
    made = [make(optimizer) for make, _ in parts]
    ends = [sum(steps for _, steps in parts[: i + 1]) for i in range(len(parts) - 1)]
    schedule = SequentialLR(optimizer, made, milestones=ends)
    found = []
    for _ in range(n_steps):
        found.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        schedule.step()
    return found


# --- by hand -----------------------------------------------------------------------------------
@pytest.mark.parametrize(
    "schedule",
    [
        Constant(warmup_steps=4),
        Cosine(n_steps=9, warmup_steps=4),
        WarmupStableDecay(n_steps=9, warmup_steps=4, decay_steps=5),
    ],
)
def test_the_warm_up_climbs_by_quarters_to_the_peak(schedule):
    assert factors(schedule, 4) == [0.25, 0.5, 0.75, 1.0]
    assert factors(replace(schedule, warmup_steps=0), 1)[0] >= 0.8


def test_a_constant_stays():
    assert factors(Constant(), 3) == [1.0] * 3
    assert Constant(warmup_steps=2)(10**9) == 1.0


def test_a_cosine_is_at_half_its_way_at_half_its_time_and_stays_at_its_end():
    schedule = Cosine(n_steps=5, final=0.2)
    slope = 0.4 * math.cos(math.pi / 4)
    expected = [1.0, 0.6 + slope, 0.6, 0.6 - slope, 0.2, 0.2, 0.2]
    assert factors(schedule, 7) == pytest.approx(expected)


def test_a_cosine_falls_from_the_last_step_of_the_warm_up():
    assert factors(Cosine(n_steps=6, warmup_steps=4, final=0.0), 7) == pytest.approx(
        [0.25, 0.5, 0.75, 1.0, 0.5, 0.0, 0.0]
    )


def test_the_plateau_ends_where_the_last_steps_begin_to_fall():
    schedule = WarmupStableDecay(n_steps=7, warmup_steps=2, decay_steps=2, final=0.5)
    assert factors(schedule, 9) == [0.5, 1.0, 1.0, 1.0, 1.0, 0.75, 0.5, 0.5, 0.5]
    # a run that is nothing but warm-up and decay
    assert factors(WarmupStableDecay(n_steps=4, warmup_steps=2, decay_steps=2), 4) == [
        0.5,
        1.0,
        0.5,
        0.0,
    ]
    assert factors(WarmupStableDecay(n_steps=4, decay_steps=4), 4) == [0.75, 0.5, 0.25, 0.0]


def test_runs_without_a_way_down_stay_at_the_peak():
    assert factors(Cosine(n_steps=1), 3) == [1.0] * 3
    assert factors(Cosine(n_steps=2, warmup_steps=2), 4) == [0.5, 1.0, 1.0, 1.0]


# --- reference ---------------------------------------------------------------------------------
@pytest.mark.parametrize("warmup_steps", [1, 2, 7])
def test_a_cosine_is_torchs_after_a_line(warmup_steps):
    n_steps = 20
    theirs = torchs(
        n_steps,
        (
            lambda o: LinearLR(o, 1 / warmup_steps, 1.0, total_iters=max(warmup_steps - 1, 1)),
            warmup_steps - 1,
        ),
        (lambda o: CosineAnnealingLR(o, n_steps - warmup_steps, eta_min=0.1), 0),
    )
    ours = factors(Cosine(n_steps=n_steps, warmup_steps=warmup_steps, final=0.1), n_steps)
    assert ours == pytest.approx(theirs)


def test_warm_up_plateau_and_decay_are_three_of_torchs():
    theirs = torchs(
        15,
        (lambda o: LinearLR(o, 1 / 4, 1.0, total_iters=3), 3),
        (lambda o: ConstantLR(o, 1.0), 6),
        (lambda o: LinearLR(o, 1.0, 0.1, total_iters=5), 0),
    )
    schedule = WarmupStableDecay(n_steps=15, warmup_steps=4, decay_steps=5, final=0.1)
    assert factors(schedule, 15) == pytest.approx(theirs)


def test_they_are_those_of_transformers_one_step_on():
    # theirs begins at 0, a step without effect, and so lags by one
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=1.0)
    for theirs, ours in (
        (get_constant_schedule_with_warmup(optimizer, 5), Constant(warmup_steps=5)),
        (
            get_wsd_schedule(optimizer, 5, 7, num_stable_steps=9, decay_type="linear"),
            WarmupStableDecay(n_steps=5 + 9 + 7, warmup_steps=5, decay_steps=7),
        ),
    ):
        (factor,) = theirs.lr_lambdas
        assert factors(ours, 25) == pytest.approx([factor(step + 1) for step in range(25)])


# --- law ---------------------------------------------------------------------------------------
@st.composite
def runs(draw):
    """Warm-up, plateau, decay and the final share."""
    steps = [draw(st.integers(low, 40)) for low in (0, 0, 1)]
    return *steps, draw(st.floats(0, 1))


@given(runs())
@settings(max_examples=150, deadline=None)
def test_factors_climb_then_fall_within_zero_and_one_and_never_leap(run):
    warmup_steps, plateau, decay_steps, final = run
    n_steps = warmup_steps + plateau + decay_steps
    common = {"n_steps": n_steps, "warmup_steps": warmup_steps, "final": final}
    climb = 1 / max(warmup_steps, 1)
    peak = max(warmup_steps - 1, 0)
    falls = {
        WarmupStableDecay(**common, decay_steps=decay_steps): (1 - final) / decay_steps,
        # the steepest part of half a cosine is π/2 times as steep as a straight line
        Cosine(**common): math.pi / 2 * (1 - final) / max(n_steps - 1 - peak, 1),
        Constant(warmup_steps=warmup_steps): 0.0,
    }
    for schedule, fall in falls.items():
        found = factors(schedule, n_steps + 5)
        assert all(0 <= factor <= 1 for factor in found)
        changes = [after - before for before, after in pairwise(found)]
        assert all(change == pytest.approx(climb) for change in changes[:peak])
        assert all(-fall - 1e-9 <= change <= 1e-12 for change in changes[peak:])
        assert set(found[n_steps - 1 :]) == {found[n_steps - 1]}
        if fall and n_steps - 1 > peak:
            assert found[n_steps - 1] == pytest.approx(final, abs=1e-12)


@given(runs(), st.integers(1, 50))
@settings(max_examples=100, deadline=None)
def test_a_longer_run_changes_nothing_before_the_decay_begins(run, longer):
    warmup_steps, plateau, decay_steps, final = run
    n_steps = warmup_steps + plateau + decay_steps
    short = WarmupStableDecay(
        n_steps=n_steps, warmup_steps=warmup_steps, decay_steps=decay_steps, final=final
    )
    long = replace(short, n_steps=n_steps + longer)
    before = warmup_steps + plateau
    assert factors(long, before) == factors(short, before)
    # and the decay is the same, only later
    for step in range(before, n_steps):
        assert long(step + longer) == short(step)


def test_a_cosine_knows_its_end_from_the_beginning():
    assert Cosine(n_steps=200)(50) > Cosine(n_steps=100)(50)


# --- what stops it -----------------------------------------------------------------------------
@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda: Constant(warmup_steps=-1), "at least 0; got -1"),
        (lambda: Cosine(n_steps=0), "n_steps=0, warmup_steps=0"),
        (lambda: Cosine(n_steps=5, warmup_steps=6), "n_steps=5, warmup_steps=6"),
        (lambda: Cosine(n_steps=5, warmup_steps=-1), "warmup_steps=-1"),
        (lambda: Cosine(n_steps=5, final=1.1), "from 0 to 1; got 1.1"),
        (lambda: Cosine(n_steps=5, final=-0.1), "from 0 to 1; got -0.1"),
        (lambda: Cosine(n_steps=5, final=math.nan), "from 0 to 1; got nan"),
        (lambda: WarmupStableDecay(n_steps=5, decay_steps=0), "decay_steps=0. .* Constant"),
        (
            lambda: WarmupStableDecay(n_steps=5, warmup_steps=3, decay_steps=3),
            "n_steps=5, warmup_steps=3, decay_steps=3",
        ),
        (lambda: WarmupStableDecay(n_steps=5, decay_steps=2, final=2.0), "got 2.0"),
    ],
)
def test_numbers_that_make_no_schedule_are_named(make, words):
    with pytest.raises(ValueError, match=words):
        make()


@pytest.mark.parametrize(
    "schedule",
    [Constant(), Cosine(n_steps=1), Cosine(n_steps=9), WarmupStableDecay(n_steps=2, decay_steps=2)],
)
def test_there_is_no_step_before_the_first(schedule):
    with pytest.raises(ValueError, match="counted from 0; got -1"):
        schedule(-1)
