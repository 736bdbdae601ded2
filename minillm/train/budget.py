"""A compute budget (算力预算): it sells runs until its operations are spent.

    budget = Budget(6e10)
    loss = budget.buy(3752, 32_768, run)                run(3752, 32_768), if there is enough left

A run takes 6 · N · D operations (`minillm.model.count.training_flops`).

Chapter: 12
"""

import math
from collections.abc import Callable
from typing import Any, final

from minillm.model.count import training_flops


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
