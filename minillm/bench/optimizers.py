"""`minillm bench optimizers`: eight optimizers, each tuned with the same number of runs.

A comparison is fair if none of its sides was tuned more than the others. Here each optimizer gets
twelve runs: six learning rates, a factor of 2 apart, times two settings of a second option; plain
SGD, which has none, gets twelve rates, a factor of √2 apart. The best of the twelve is then run
with three other seeds, on sentences that none has seen.

Equal counting is not equal effort. What a second option is worth differs: AdamW's β₂ moves its best
result by half a percent of the entropy, Muon's `others_lr`, a second learning rate, by five. Weight
decay is 0 for SGD, momentum and RMSProp (`minillm.optim.build` says why), 0.1 or searched for the
others.

All learn the town's grammar with the small GPT of chapter 04 (two blocks, d_model 64), 200 steps of
64 sentences, gradients clipped at a norm of 1, the rate falling along a cosine
(`minillm.train.compare`). Printed is by how many percent the loss of held-out sentences lies above
the entropy of the grammar, and how many bytes the optimizer keeps for each byte of the model.

Paper: Sivaprasad et al. 2020, "Optimizer Benchmarking Needs to Account for Hyperparameter Tuning",
arXiv:1910.11758; Schmidt et al. 2021, "Descending through a Crowded Valley", arXiv:2007.01547.

Chapter: app
"""

from dataclasses import dataclass
from itertools import product
from typing import Any, final

import torch

from minillm.bench._run import Finished
from minillm.lab.track import track
from minillm.optim.build import build
from minillm.train.compare import Task, attempt, sentences

N_STEPS = 200
SEEDS = (1, 2, 3)  # of the runs that are printed; the search has seed 0


def around(middle: float) -> tuple[float, ...]:
    """Six rates, a factor of 2 apart.

    Example:
        >>> around(0.004)
        (0.001, 0.002, 0.004, 0.008, 0.016, 0.032)
    """
    return tuple(middle * 2.0**power for power in range(-2, 4))


@final
@dataclass(frozen=True, kw_only=True)
class Search:
    """Twelve runs of an optimizer.

    Args:
        rates: six, or twelve if there is no second option.
        option: the name of the second option, as `minillm.optim.build` has it; "" if there is none.
        values: two of it.
    """

    rates: tuple[float, ...]
    option: str = ""
    values: tuple[float | None, ...] = (None,)


#: Rates around what each paper advises; decay and the rest as `minillm.optim.build` has them.
SEARCHES = {
    "SGD": Search(rates=tuple(0.25 * 2 ** (n / 2) for n in range(12))),
    "momentum": Search(rates=around(1.0), option="beta1", values=(0.9, 0.95)),
    "RMSProp": Search(rates=around(4e-3), option="beta2", values=(0.95, 0.99)),
    "AdamW": Search(rates=around(4e-3), option="beta2", values=(0.95, 0.99)),
    "Adafactor": Search(rates=around(4e-3), option="clip", values=(1.0, 2.0)),
    "CAME": Search(rates=around(2e-3), option="beta3", values=(0.99, 0.999)),
    "Lion": Search(rates=around(8e-4), option="weight_decay", values=(0.1, 0.5)),
    "Muon": Search(rates=around(2e-2), option="others_lr", values=(4e-3, 1e-2)),
}


def run(quick: bool = False, finished: Finished | None = None) -> dict[str, Any]:
    """Search, run the best again with other seeds, print the table.

    Args:
        quick: two steps and two runs each, to see that it works; its figures mean nothing.
        finished: runs that are not to be repeated.

    Returns:
        For each optimizer: "runs", the search, a list of [rate, value, percent]; "rate", "value"
        and "option", the best; "loss_above_entropy" of three other seeds, in percent; "state",
        bytes for each byte of the model.
    """
    finished = finished or Finished()
    task, n_steps = (sentences(n_held_out=1), 2) if quick else (sentences(), N_STEPS)
    print(
        f"{n_steps} steps, the grammar's entropy is {task.floor:.3f} nats a token; "
        f"torch {torch.__version__}, threads: {torch.get_num_threads()}"
    )
    print(f"{'':<10} {'state':>6} {'rate':>8} {'second option':<20} above the entropy, 3 seeds")
    figures = {}
    for name, search in SEARCHES.items():

        def measured(rate: float, value: float | None, seed: int, name: str = name) -> list[float]:
            key = f"{name}, rate {rate}, option {value}, seed {seed}"
            return finished(key, lambda: _run(task, name, rate, value, seed, n_steps))

        trials = list(product(search.rates, search.values))[: 2 if quick else None]
        runs = [[*trial, measured(*trial, seed=0)[0]] for trial in track(trials, name)]
        rate, value, _ = min(runs, key=lambda trial: trial[2])
        again = [measured(rate, value, seed) for seed in SEEDS[: 1 if quick else None]]
        figures[name] = {
            "runs": runs,
            "rate": rate,
            "option": search.option,
            "value": value,
            "loss_above_entropy": [above for above, _ in again],
            "state": again[0][1],
        }
        option = f"{search.option} {value}" if search.option else ""
        above = ", ".join(f"{above:.2f} %" for above, _ in again)
        print(f"{name:<10} {again[0][1]:>6.3f} {rate:>8.2g} {option:<20} {above}", flush=True)
    return figures


def _run(
    task: Task, name: str, rate: float, value: float | None, seed: int, n_steps: int
) -> list[float]:
    """Percent above the entropy, and bytes of state for each byte of the model."""
    options = {} if value is None else {SEARCHES[name].option: value}
    done = attempt(
        task, lambda model: build(model, name, rate, **options), n_steps=n_steps, seed=seed
    )
    return [done.above_entropy, done.state]
