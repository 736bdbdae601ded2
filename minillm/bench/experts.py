"""`minillm bench experts`: more experts, the same work for a token: how many steps does it save?

The task is that of `minillm.train.districts`: eight dialects, a small model, an FFN of 24 hidden
neurons. Unless its name says otherwise, a contender sends a token through one such FFN in each of
two blocks: the dense one always through the same, the others through one of E experts. So each does
the same multiplications for a token, but for the router's own E · D. All learn from the same rows
in the same order, with AdamW at a constant rate. Printed is the loss on held-out rows above the
entropy, and after which share of the steps a contender was as good as the dense one at its end,
with the same seed. Some are also run with two other rates, with seed 0, to see who was favoured by
the common one. Steps are timed afterwards, all contenders taking turns, and the least time of each
is printed: the machine may have other work.

With one expert a token, the answer is weighted by p (`norm_topk=False`): else the router would
learn nothing from the loss. At first p is about 1/E, so the experts begin quietly.

    no balance    neither auxiliary loss
    by bias       the z-loss alone; experts are balanced by a bias on the choice, after each step
    two           two experts are active, with weights that sum to 1: twice the work of an FFN
    dense, 48     twice the work of an FFN, too
    hashed        an expert for each district, by a table; the domain is given, nothing is routed

Up-cycled contenders are dense for the first half of the steps, then eight copies:

    up-cycled, weight 1    one expert; its weight is always 1, and the router learns from the
                           auxiliary losses alone; a new optimizer, warmed up again
    up-cycled              one expert, weighted by p, the copies' answers times 8
    up-cycled, two         two experts; the router has a gradient
    up-cycled, two, kept   the same with the optimizer's state kept, and no second warm-up

Paper: Fedus et al. 2021, "Switch", arXiv:2101.03961, section 3.1 (experts against steps);
Komatsuzaki et al. 2022, arXiv:2212.05055 (up-cycling); Wang et al. 2024, arXiv:2408.15664 (bias).
Differs: no expert's capacity is limited, so no token is dropped; sources whose entropy is known.

Chapter: app
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from statistics import fmean
from time import perf_counter
from typing import Any, final

import numpy as np
import torch

from minillm.bench._run import Finished
from minillm.experts import moe
from minillm.experts.hash_routing import HashedMoE
from minillm.lab.track import track
from minillm.model.count import ParameterCount
from minillm.model.ffn import SwiGLUConfig
from minillm.model.transformer import Transformer
from minillm.train import districts
from minillm.train.districts import BATCH_ROWS, DENSE, HASHED, Contender, Rows, experts

SEEDS = (1, 2, 3)
TWO = experts(8, top_k=2, norm_topk=True)
#: By name; the dense one is first, since the others are compared with it.
CONTENDERS: dict[str, Contender] = {
    "dense": Contender(ffn=DENSE),
    "8": Contender(ffn=experts(8)),
    "8, two": Contender(ffn=TWO),
    "8, up-cycled, two": Contender(ffn=TWO, from_dense=True),
    "8, up-cycled, two, kept": Contender(ffn=TWO, from_dense=True, keep_state=True),
    "8, up-cycled": Contender(ffn=experts(8), from_dense=True),
    "8, up-cycled, weight 1": Contender(ffn=experts(8, norm_topk=True), from_dense=True),
    "dense, 48": Contender(ffn=SwiGLUConfig(d_ff=48)),
    "8, no balance": Contender(ffn=experts(8), balance_weight=0.0, z=0.0),
    "8, by bias": Contender(ffn=experts(8), balance_weight=0.0, bias_rate=0.01),
    "32": Contender(ffn=experts(32)),
    "32, no balance": Contender(ffn=experts(32), balance_weight=0.0, z=0.0),
    "hashed": Contender(ffn=HASHED),
    **{str(n): Contender(ffn=experts(n)) for n in (2, 4, 16)},
}
#: Run with other rates, too.
SEARCHED = ("dense", "8", "8, two", "8, up-cycled, two, kept")
RATES = (0.005, 0.01, 0.02)


@final
@dataclass(frozen=True, kw_only=True)
class Work:
    """How much is done.

    Args:
        n_steps: of each run.
        every: so many steps lie between two measurements.
        seeds: of the runs.
        n_pool: rows to learn from, for each seed.
        n_held_out: rows to judge by.
        n_rounds: of timing.
    """

    n_steps: int = 500
    every: int = 20
    seeds: tuple[int, ...] = SEEDS
    n_pool: int = 16_384
    n_held_out: int = 512
    n_rounds: int = 40


QUICK = Work(n_steps=4, every=2, seeds=(1,), n_pool=64, n_held_out=32, n_rounds=4)


def least_ms(pool: Rows, n_rounds: int) -> dict[str, float]:
    """Of each contender the least milliseconds of a step; all take turns.

    The first 3 rounds do not count. Up-cycled ones are timed with their experts.
    """
    rng = np.random.default_rng(0)
    rows = torch.from_numpy(rng.integers(len(pool.tokens), size=(n_rounds, BATCH_ROWS)))
    runs = {}
    for name, contender in CONTENDERS.items():
        model = districts.built(contender.ffn, seed=0)
        optimizer = torch.optim.AdamW(model.parameters(), lr=0.01, weight_decay=0.0, fused=True)
        runs[name] = districts.steps(model, optimizer, contender, pool, rows)
    took: dict[str, list[float]] = {name: [] for name in CONTENDERS}
    for _ in track(range(n_rounds), "timing"):
        for name, run in runs.items():
            start = perf_counter()
            next(run)
            took[name].append(1000 * (perf_counter() - start))
    return {name: min(each[3:]) for name, each in took.items()}


# --- what is printed ----------------------------------------------------------------------------
def crossing(curve: Sequence[float], goal: float) -> float | None:
    """After which share of the steps a curve first reached the goal, on straight lines; or None.

    Args:
        curve: its values after equal numbers of steps, the last at the end.
        goal: reached by a value that is not above it. If the first one has, that is the share.

    Example:
        >>> crossing([4.0, 2.0, 1.0, 0.5], goal=3.0)  # in the middle of 1/4 and 2/4
        0.375
        >>> crossing([4.0, 2.0], goal=1.0) is None
        True
    """
    for i, value in enumerate(curve):
        if value <= goal:
            back = (goal - value) / (curve[i - 1] - value) if i else 0.0
            return (i + 1 - back) / len(curve)
    return None


def parameters(model: Transformer) -> ParameterCount:
    """`active_parameters`, which counts hashed experts as all active, and here all but one idle."""
    total, active = moe.active_parameters(model)
    for block in model.blocks:
        if isinstance(block.ffn, HashedMoE):
            active -= sum(p.numel() for p in block.ffn.experts[1:].parameters())
    return ParameterCount(total, active)


# --- the benchmark ------------------------------------------------------------------------------
def run(quick: bool = False, finished: Finished | None = None) -> dict[str, dict[str, Any]]:
    """Run the benchmark, print its table, and return every figure.

    Args:
        quick: a few seconds, four steps of each, to see that it works; its figures mean nothing.
        finished: runs that are not to be repeated.

    Returns:
        For each contender: `curves` (loss above the entropy for each seed), `steps` (for each seed
        the share of the steps after which it was as good as the dense one at its end; None if
        never), `ms` (least time of a step), `parameters` and `active`. For those that route or
        hash: `shares` (the last block with the first seed: of each district's tokens, which share
        each expert got), `information` (of district and expert in the last block divided by log 8,
        for each seed; 1 if the expert tells the district), `largest_share` (of all tokens, what the
        busiest expert of any block got, for each seed) and `idle` (experts of both blocks with less
        than a tenth of an even share, for each seed). For some `search`: the loss above the entropy
        of each rate, with seed 0.
    """
    finished, work = finished or Finished(), QUICK if quick else Work()
    held_out = districts.rows(work.n_held_out, "held out")
    print(
        f"{work.n_steps} steps of {BATCH_ROWS} rows, seeds {work.seeds}; the dialects' own loss is "
        f"{held_out.nll:.3f} nats a token; torch {torch.__version__}, "
        f"threads: {torch.get_num_threads()}"
    )
    titles = "parameters  active  above  steps  district  largest  idle"
    print(" " * 25 + titles)

    def measured(key: str, contender: Contender, seed: int) -> dict[str, Any]:
        return finished(key, lambda: _run(contender, seed, work, held_out))

    figures: dict[str, dict[str, Any]] = {}
    for name, contender in CONTENDERS.items():
        runs = [measured(f"{name}, seed {seed}", contender, seed) for seed in work.seeds]
        dense = figures["dense"]["curves"] if figures else [each["curve"] for each in runs]
        figures[name] = figures_of(runs, [curve[-1] for curve in dense])
        print(line(name, figures[name]), flush=True)
    for name in SEARCHED:
        rates = RATES[: 1 if quick else None]
        sides = {rate: replace(CONTENDERS[name], rate=rate) for rate in rates}
        figures[name]["search"] = {
            str(rate): measured(f"{name}, rate {rate}", side, 0)["curve"][-1]
            for rate, side in sides.items()
        }
        print(f"{name:<25}", ", ".join(f"{r}: {x:.3f}" for r, x in figures[name]["search"].items()))
    pool = districts.rows(work.n_pool, "train", work.seeds[0])
    for name, ms in finished("ms", lambda: least_ms(pool, work.n_rounds)).items():
        figures[name]["ms"] = ms
        print(f"{name:<25}{ms:7.1f} ms a step, ÷ dense: {ms / figures['dense']['ms']:.2f}")
    return figures


def _run(contender: Contender, seed: int, work: Work, held_out: Rows) -> dict[str, Any]:
    """One run as JSON: its curve, parameters, and how its tokens were routed."""
    pool = districts.rows(work.n_pool, "train", seed)
    model, curve = districts.trained(
        contender, pool, n_steps=work.n_steps, seed=seed, held_out=held_out, every=work.every
    )
    tables = districts.sent(model, held_out)
    total, active = parameters(model)
    return {
        "curve": curve,
        "parameters": total,
        "active": active,
        "tables": [table.tolist() for table in tables],
    }


def figures_of(runs: Sequence[dict[str, Any]], goals: Sequence[float]) -> dict[str, Any]:
    """The figures of a contender, as `run` returns them, but for `ms` and `search`.

    Args:
        runs: one a seed.
        goals: where the dense one ended, with each seed.
    """
    curves = [each["curve"] for each in runs]
    figures: dict[str, Any] = {
        "curves": curves,
        "steps": [crossing(curve, goal) for curve, goal in zip(curves, goals, strict=True)],
        "parameters": runs[0]["parameters"],
        "active": runs[0]["active"],
    }
    tables = [[torch.tensor(table) for table in each["tables"]] for each in runs]
    if tables[0]:
        last = tables[0][-1]
        shares = [[block.sum(dim=0) / block.sum() for block in blocks] for blocks in tables]
        figures["shares"] = (last / last.sum(dim=1, keepdim=True)).tolist()
        figures["information"] = [districts.information(blocks[-1]) for blocks in tables]
        figures["largest_share"] = [
            max(block.max().item() for block in blocks) for blocks in shares
        ]
        figures["idle"] = [
            sum(int((block < 0.1 / len(block)).sum()) for block in blocks) for blocks in shares
        ]
    return figures


def line(name: str, figures: dict[str, Any]) -> str:
    """A contender in the table: means of all seeds."""
    end = fmean(curve[-1] for curve in figures["curves"])
    steps = "never" if None in figures["steps"] else f"{100 * fmean(figures['steps']):.0f} %"
    shown = f"{name:<25}{figures['parameters']:>10,}{figures['active']:>8,}{end:>7.3f}{steps:>7}"
    if "shares" not in figures:
        return shown
    means = [fmean(figures[key]) for key in ("information", "largest_share", "idle")]
    return shown + "{:>10.2f}{:>9.2f}{:>6.1f}".format(*means)
