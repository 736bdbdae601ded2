import pytest
from hypothesis import given
from hypothesis import strategies as st

from minillm.parallel.schedule import (
    Action,
    Event,
    Timeline,
    gpipe,
    one_forward_one_backward,
    simulate,
)

stages, micro_batches = st.integers(1, 8), st.integers(1, 16)
schedules = st.sampled_from([gpipe, one_forward_one_backward])


def orders(schedule, n_stages, n_micro):
    return [schedule(stage, n_stages, n_micro) for stage in range(n_stages)]


def short(order):
    return " ".join(f"{kind[0].upper()}{n}" for kind, n in order)


# --- by hand --------------------------------------------------------------------------------------
def test_1f1b_begins_a_backward_pass_as_soon_as_it_can():
    first, second, third = orders(one_forward_one_backward, 3, 4)
    assert short(first) == "F0 F1 F2 B0 F3 B1 B2 B3"
    assert short(second) == "F0 F1 B0 F2 B1 F3 B2 B3"
    assert short(third) == "F0 B0 F1 B1 F2 B2 F3 B3"
    assert short(one_forward_one_backward(0, 4, 2)) == "F0 F1 B0 B1"  # fewer than stages


def test_times_are_those_of_a_drawing():
    timeline = simulate(orders(gpipe, 2, 2), forward_seconds=1, backward_seconds=2)
    begins = {(event.stage, short([event.action])): event.start for event in timeline.events}
    assert begins == {
        **{(0, "F0"): 0, (0, "F1"): 1, (0, "B0"): 5, (0, "B1"): 7},
        **{(1, "F0"): 1, (1, "F1"): 2, (1, "B0"): 3, (1, "B1"): 5},
    }
    assert (timeline.seconds, timeline.bubble) == (9, pytest.approx(1 / 3))


def test_a_message_takes_its_time_and_only_who_needs_it_waits():
    # F0 0-1, sent until 1.5, F0 1.5-2.5, B0 -4.5, sent until 5, B0 5-7
    one = simulate(orders(gpipe, 2, 1), send_seconds=0.5)
    assert [(event.start, event.end) for event in one.events] == [
        (0, 1),
        (1.5, 2.5),
        (2.5, 4.5),
        (5, 7),
    ]
    two = simulate(orders(gpipe, 2, 2), send_seconds=0.5)
    assert Event(0, Action("forward", 1), 1, 2) in two.events  # while F0 is sent


def test_a_timeline_may_begin_at_any_time():
    forward, backward = Action("forward", 0), Action("backward", 0)
    timeline = Timeline([Event(0, forward, 10, 11), Event(0, backward, 13, 14)])
    assert (timeline.seconds, timeline.bubble, timeline.live) == (4, 0.5, [1])


# --- laws -----------------------------------------------------------------------------------------
@given(schedules, stages, micro_batches, st.floats(0.1, 5), st.floats(0.1, 5))
def test_the_bubble_is_p_minus_1_of_m_plus_p_minus_1(schedule, p, m, forward, backward):
    timeline = simulate(orders(schedule, p, m), forward, backward)
    assert timeline.bubble == pytest.approx((p - 1) / (m + p - 1), abs=1e-9)
    assert timeline.seconds == pytest.approx((m + p - 1) * (forward + backward))


@given(stages, micro_batches)
def test_gpipe_keeps_m_micro_batches_and_1f1b_at_most_p_minus_s(p, m):
    assert simulate(orders(gpipe, p, m)).live == [m] * p
    expected = [min(p - stage, m) for stage in range(p)]
    assert simulate(orders(one_forward_one_backward, p, m)).live == expected


@given(schedules, stages, micro_batches, st.floats(0, 2))
def test_no_action_begins_before_its_stage_and_its_neighbour_are_done(schedule, p, m, send):
    timeline = simulate(orders(schedule, p, m), send_seconds=send)
    ends = {(event.stage, event.action): event.end for event in timeline.events}
    assert len(ends) == 2 * m * p
    free = [0.0] * p
    for stage, action, start, end in timeline.events:
        assert start >= free[stage]
        before = ends.get((stage - action.step, action))
        assert before is None or start >= before + send
        free[stage] = end


# --- bad input ------------------------------------------------------------------------------------
def test_a_deadlock_names_who_waits_for_whom():
    late = [("backward", 0), ("forward", 0)]
    with pytest.raises(ValueError, match="stage 1 waits to do backward 0 for forward 0 of stage 1"):
        simulate([gpipe(0, 2, 1), late])
    missing = [gpipe(0, 2, 2), gpipe(1, 2, 1)]
    with pytest.raises(
        ValueError, match="stage 0 waits to do backward 1 for backward 1 of stage 1"
    ):
        simulate(missing)


@pytest.mark.parametrize(
    ("attempt", "words"),
    [
        (lambda: gpipe(2, 2, 4), "stage 2 of 2"),
        (lambda: one_forward_one_backward(0, 2, 0), "0 micro-batches"),
        (lambda: simulate([[("sideways", 0)]]), "sideways 0 is neither"),
        (lambda: simulate([[("forward", 0)] * 2]), "forward 0 stands there twice"),
        (lambda: simulate([gpipe(0, 1, 1)], backward_seconds=0), "backward 0"),
        (lambda: Timeline([]), "at least one event"),
    ],
)
def test_what_is_no_schedule_is_refused(attempt, words):
    with pytest.raises(ValueError, match=words):
        attempt()
