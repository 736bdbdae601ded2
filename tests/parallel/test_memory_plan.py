import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from minillm.parallel.memory_plan import (
    LayerCost,
    MemoryPlan,
    memory_plan,
    memory_plan_greedy,
    memory_plan_naive,
)

# seconds in eighths: sums have no rounding, so equal is equal
EIGHTHS = st.integers(0, 80).map(lambda n: n / 8)


@st.composite
def costs(draw):
    whole = draw(st.integers(0, 60))
    return LayerCost(
        activation_bytes=whole,
        input_bytes=draw(st.integers(0, whole)),
        forward_seconds=draw(EIGHTHS),
        offload_seconds=draw(st.one_of(st.just(math.inf), EIGHTHS)),
    )


def smallest(layers):
    return sum(min(option.n_bytes for option in layer.options()) for layer in layers)


def test_by_hand_three_layers_of_which_one_may_stay():
    layers = [
        LayerCost(activation_bytes=10, input_bytes=1, forward_seconds=s) for s in (3.0, 5.0, 4.0)
    ]
    assert memory_plan(layers, 12) == MemoryPlan(
        choices=("recompute", "keep", "recompute"), n_bytes=12, seconds=7.0
    )
    assert memory_plan(layers, 30).seconds == 0


@settings(max_examples=150, deadline=None)
@given(st.lists(costs(), min_size=1, max_size=6), st.integers(0, 120))
def test_dynamic_programming_equals_brute_force_and_is_never_worse_than_greedy(layers, spare):
    limit = smallest(layers) + spare
    plan = memory_plan(layers, limit)
    assert plan.seconds == memory_plan_naive(layers, limit).seconds
    assert plan.seconds <= memory_plan_greedy(layers, limit).seconds
    assert plan.n_bytes <= limit


def test_twelve_layers_equal_brute_force_over_all_531441_plans():
    layers = [
        LayerCost(
            activation_bytes=7 * (n % 5) + 9,
            input_bytes=n % 4,
            forward_seconds=(n * 13 % 11) / 8,
            offload_seconds=(n * 7 % 10) / 4,
        )
        for n in range(12)
    ]
    n_bytes, seconds = np.zeros(1), np.zeros(1)  # of all plans of the layers so far
    for layer in layers:
        options = layer.options()
        n_bytes = np.add.outer(n_bytes, [option.n_bytes for option in options]).ravel()
        seconds = np.add.outer(seconds, [option.seconds for option in options]).ravel()
    assert len(seconds) == 531441
    for limit in (0, 40, 100, 131, 200, 300):
        plan = memory_plan(layers, limit)
        assert plan.seconds == seconds[n_bytes <= limit].min()
        assert plan.n_bytes <= limit


@settings(max_examples=100, deadline=None)
@given(st.lists(costs(), min_size=1, max_size=5), st.integers(0, 120), st.integers(2, 13))
def test_a_coarse_unit_may_miss_the_best_but_keeps_the_limit(layers, spare, unit):
    limit = smallest(layers) + spare + unit * len(layers)  # so that rounding up leaves room
    plan = memory_plan(layers, limit, unit_bytes=unit)
    assert plan.n_bytes <= limit
    assert plan.seconds >= memory_plan_naive(layers, limit).seconds


def test_rounding_up_can_cost_the_best_plan():
    layers = [LayerCost(activation_bytes=5, input_bytes=0, forward_seconds=1.0)] * 2
    assert memory_plan(layers, 10).seconds == 0
    assert memory_plan(layers, 10, unit_bytes=4).seconds == 1.0  # 8 + 8 do not fit into 8


def test_the_default_unit_keeps_the_table_small_and_exact():
    layer = LayerCost(activation_bytes=3 * 2**30, input_bytes=2**30, forward_seconds=1.0)
    assert memory_plan([layer] * 96, 100 * 2**30).choices.count("keep") == 2
    assert memory_plan([layer] * 96, 10**15).choices == ("keep",) * 96


@pytest.mark.parametrize("plan", [memory_plan, memory_plan_naive, memory_plan_greedy])
def test_a_limit_below_the_smallest_options_is_refused_with_the_bytes(plan):
    layers = [LayerCost(activation_bytes=9, input_bytes=4, forward_seconds=1.0)] * 3
    with pytest.raises(ValueError, match=r"smallest option of each, 12 bytes; got 3 .* 11 bytes"):
        plan(layers, 11)
    with pytest.raises(ValueError, match="at least one layer"):
        plan([], 11)


def test_bad_costs_tables_and_units_are_refused():
    with pytest.raises(ValueError, match=r"input_bytes must be .* got 4 and 3"):
        LayerCost(activation_bytes=3, input_bytes=4, forward_seconds=1.0)
    with pytest.raises(ValueError, match="forward_seconds must be"):
        LayerCost(activation_bytes=3, input_bytes=1, forward_seconds=math.inf)
    odd = [
        LayerCost(activation_bytes=10**9 + n, input_bytes=1, forward_seconds=1.0) for n in (0, 1)
    ]
    with pytest.raises(ValueError, match="larger unit_bytes, such as 1999999"):
        memory_plan(odd, 1_999_999_999)
    with pytest.raises(ValueError, match="smaller unit_bytes"):
        memory_plan(odd, 1000, unit_bytes=999)
