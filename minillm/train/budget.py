"""A compute budget (算力预算): it sells runs until its operations are spent.

    budget = Budget(6e10)
    loss = budget.buy(3752, 32_768, run)                run(3752, 32_768), if there is enough left

A run takes 6 · N · D operations (`minillm.model.count.training_flops`).

Chapter: 12
"""

import math
from collections.abc import Callable, Collection, Iterable
from typing import Any, final

from minillm.model.count import training_flops


def price_list(offers: Collection[tuple[int, int]]) -> str:
    """A table of what runs cost, in billions of operations: a row a size, a column a length.

    Args:
        offers: (n_parameters, n_tokens) of each run that is for sale.

    Example:
        >>> print(price_list([(1000, 10_000), (1000, 20_000), (5000, 10_000)]))
        parameters   10,000   20,000 tokens
             1,000     0.06     0.12
             5,000     0.30        -
    """
    lengths = sorted({n_tokens for _, n_tokens in offers})
    lines = ["parameters" + "".join(f"{n_tokens:>9,}" for n_tokens in lengths) + " tokens"]
    for size in sorted({n_parameters for n_parameters, _ in offers}):
        costs = [
            f"{training_flops(n_parameters=size, n_tokens=n_tokens) / 1e9:.2f}"
            if (size, n_tokens) in offers
            else "-"
            for n_tokens in lengths
        ]
        lines.append(f"{size:>10,}" + "".join(f"{cost:>9}" for cost in costs))
    return "\n".join(lines)


@final
class Budget:
    """Operations that runs are bought with, until there are no more.

    Args:
        flops: of all runs together.
        smallest_run: operations of the smallest that can be bought.

    Raises:
        ValueError: no operations; fewer than the smallest run takes.

    Example:
        >>> budget = Budget(1e6)
        >>> budget.buy(100, 1000, lambda n_parameters, n_tokens: 2.5)  # 600,000 operations
        2.5
        >>> budget.left, budget.runs
        (400000.0, [(100, 1000, 2.5)])
    """

    def __init__(self, flops: float, *, smallest_run: float = 0.0):
        if not 0 < flops < math.inf:
            raise ValueError(f"flops must be a number above 0; got {flops!r}")
        self.flops = float(flops)
        self.spent = 0.0
        self.runs: list[tuple[int, int, Any]] = []
        if flops < smallest_run:
            raise ValueError(
                f"a budget of {flops:g} operations buys no run: the smallest takes {smallest_run:g}"
            )

    @property
    def left(self) -> float:
        """Operations that are not spent."""
        return self.flops - self.spent

    def buy(self, n_parameters: int, n_tokens: int, run: Callable[[int, int], Any]) -> Any:
        """Run and pay 6 · N · D operations; a run that ends in an error costs nothing.

        Args:
            n_parameters: N.
            n_tokens: D.
            run: takes both, and gives what the run came to.

        Raises:
            ValueError: it costs more than is left; nothing is run, and nothing is paid.
        """
        cost = training_flops(n_parameters=n_parameters, n_tokens=n_tokens)
        if cost > self.left:
            n_affordable = int(self.left / training_flops(n_parameters=n_parameters, n_tokens=1))
            raise ValueError(
                f"{n_parameters:,} parameters and {n_tokens:,} tokens take {cost:.3g} operations, "
                f"and {self.left:.3g} of {self.flops:.3g} are left: enough for "
                f"{n_affordable:,} tokens with as many parameters"
            )
        result = run(n_parameters, n_tokens)
        self.spent += cost
        self.runs.append((n_parameters, n_tokens, result))
        return result

    def buy_in_order(
        self, offers: Iterable[tuple[int, int]], run: Callable[[int, int], Any]
    ) -> list[tuple[int, int, Any]]:
        """Buy one offer after the other; what costs more than is left is passed over.

        Args:
            offers: (n_parameters, n_tokens) of each, the most wanted first.
            run: as for `buy`.

        Returns:
            What was bought: parameters, tokens, and what the run came to.

        Example:
            >>> Budget(1e6).buy_in_order([(100, 1000), (100, 900), (10, 1000)], lambda n, d: 2.5)
            [(100, 1000, 2.5), (10, 1000, 2.5)]
        """
        n_before = len(self.runs)
        for n_parameters, n_tokens in offers:
            if training_flops(n_parameters=n_parameters, n_tokens=n_tokens) <= self.left:
                self.buy(n_parameters, n_tokens, run)
        return self.runs[n_before:]
