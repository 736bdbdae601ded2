"""minillm.train.budget: runs are sold until the operations are spent."""

import math

import pytest

from minillm.train.budget import Budget


# --- by hand ------------------------------------------------------------------------------------
def test_a_budget_sells_until_it_is_spent():
    budget = Budget(1e6)
    assert budget.buy(100, 1000, lambda n, d: n + d) == 1100
    with pytest.raises(ValueError, match=r"take 6e\+05 operations, and 4e\+05 .* for 666 tokens"):
        budget.buy(100, 1000, lambda n, d: pytest.fail("it ran"))
    with pytest.raises(ZeroDivisionError):
        budget.buy(1, 1, lambda n, d: 1 / 0)
    budget.buy(100, 666, lambda n, d: 0)
    assert (budget.left, budget.spent) == (400, 999_600)
    assert budget.runs == [(100, 1000, 1100), (100, 666, 0)]
    with pytest.raises(ValueError, match="buys no run: the smallest takes 600"):
        Budget(500, smallest_run=600)


def test_offers_are_bought_in_order_and_the_too_expensive_passed_over():
    budget = Budget(1e6)
    budget.buy(1, 1, lambda n, d: 0)
    offers = [(100, 1000), (100, 900), (10, 1000)]
    assert budget.buy_in_order(offers, lambda n, d: n + d) == [(100, 1000, 1100), (10, 1000, 1010)]
    assert budget.left == 1e6 - 6 - 600_000 - 60_000


# --- bad input ----------------------------------------------------------------------------------
@pytest.mark.parametrize("flops", [0, -1e6, math.nan, math.inf])
def test_a_budget_of_nothing_is_refused(flops):
    with pytest.raises(ValueError, match=f"flops must be a number above 0; got {flops}"):
        Budget(flops)


def test_parts_of_parameters_are_not_sold():
    with pytest.raises(ValueError, match="n_parameters must be a whole number"):
        Budget(1e6).buy(1.5, 10, print)
