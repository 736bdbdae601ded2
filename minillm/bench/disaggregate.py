"""`minillm bench disaggregate`: prefill and decode on the same machines, or apart?

Three ways to serve, each with 8 machines and at its best (`minillm.serve.goodput.candidates`):

    prefill first    all machines do both; a new prompt is read at once, and the rows wait
    chunked          all do both; prompts are read in parts, beside the rows
    apart            some read prompts, the others decode; the cache is sent over

They are compared by goodput: requests a second and machine of which 90 % have both what they were
promised, first token and mean gap. A promise is a multiple of what a request takes alone. *Strict*:
3 times for the first token and 1.5 times for the mean gap, Splitwise's limits for 90 % of requests
(table 6). *Even*: 3 and 5 times, and 99 % of a request's gaps within 5 times, as with
Sarathi-Serve.
For one pair of lengths further promises are tried, and one change of the machines at a time.

Machines, none of them real but the first two's passes:

    town-1m        the shipped model; random-10m: another with random weights. Their passes are
                   timed on this CPU, one thread, and a line is fitted; a cache moves as fast as
                   memory is copied, as between two processes of one computer
    a100-13b       arithmetic: a model of 13 billion parameters on a card of A100's data sheet, of
                   whose 312 TFLOP/s half and of whose 2.04 TB/s memory 80 % are reached, and a link
                   of 300 GB/s. Nothing of it is measured

Prompts have a fixed length, answers a geometric one. All of the maps' cells have the same three
seeds. Printed are the ratios of goodput, apart ÷ the other two.

Chapter: app
"""

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any, final

from minillm.bench._run import Finished
from minillm.model.config import medium
from minillm.model.transformer import Transformer
from minillm.serve.costs import Costs, copy_seconds, fit, measure, roofline
from minillm.serve.disaggregate import simulate
from minillm.serve.goodput import SEEDS, Workload, candidates, compare, relative, tail_gap
from minillm.zoo import checkpoints

PROMISES = {
    "strict": {"ttft": 3.0, "tpot": 1.5},
    "even": {"ttft": 3.0, "tpot": 5.0, "gap": 5.0},
}
CARD = {
    "n_parameters": 13e9,
    "n_layers": 40,
    "d_model": 5120,
    "flops_per_second": 0.5 * 312e12,
    "memory_bytes_per_second": 0.8 * 2.039e12,
    "link_bytes_per_second": 300e9,
    "memory_bytes": 72e9,
}
N_MACHINES = 8
CONTEXT_LENGTH = 512  # of the models that are timed
PROMPTS, BATCH_SIZES = (16, 64, 128, 256, 384), (1, 2, 4, 8, 16)  # that are timed
#: By machine and promise: lengths of prompts, lengths of answers.
GRIDS = {
    ("a100-13b", "strict"): ((128, 256, 512, 1024, 2048), (16, 32, 64, 128, 256)),
    ("a100-13b", "even"): ((128, 512, 2048), (16, 64, 256)),
    ("town-1m", "strict"): ((32, 64, 128, 256), (8, 32, 128)),
    ("random-10m", "strict"): ((32, 64, 128, 256), (8, 32, 128)),
}
FIGURE_1 = (512, 64)  # DistServe's first example: 2.1 times the goodput with 2 cards and 1
TIMES = ((2.0, 3.0, 6.0), (1.25, 1.5, 2.0, 3.0, 5.0))  # promises: TTFT, TPOT
TARGETS = {"goodput_ratio": 1.5, "gap_ratio": 2.0}  # apart against prefill first, at least
WAYS = ("prefill_first", "chunked", "apart")


@final
@dataclass(frozen=True, kw_only=True)
class Work:
    """How much is done.

    Args:
        n_machines: of every fleet.
        seeds: of the traces.
        n_requests: of a trace, at least.
        n_repeats: of timing.
        sizes: how many of the lengths, batch sizes and multiples are taken.
    """

    n_machines: int = N_MACHINES
    seeds: tuple[int, ...] = SEEDS
    n_requests: int = 500
    n_repeats: int = 7
    sizes: int | None = None


QUICK = Work(n_machines=2, seeds=(0,), n_requests=40, n_repeats=1, sizes=1)


def run(quick: bool = False, finished: Finished | None = None) -> dict[str, Any]:
    """Run the benchmark, print its maps, and return every figure.

    Args:
        quick: two machines, one cell a map and one seed, to see that it works; its figures mean
            nothing.
        finished: parts that are not to be computed again.

    Returns:
        "costs": of each machine, in seconds, with the fit's "error". "maps": for each machine and
        promise, the cells (see `cell`); "promises": cells of `FIGURE_1` for other promises;
        "changes": the same with one thing changed; "seeds": with each seed alone; "saturated":
        tokens/s and machine of each way where all requests come at once. "targets": for the two
        of `TARGETS` the best cell of the strict map of a100-13b, and in how many it is reached.
    """
    finished, work = finished or Finished(), QUICK if quick else Work()
    machines = {
        name: finished(f"costs of {name}", lambda name=name: timed(name, work))
        for name in ("town-1m", "random-10m")
    }
    machines["a100-13b"] = {**asdict(roofline(**CARD)), "error": 0.0}
    for name, values in machines.items():
        costs = of(values)
        print(
            f"{name}: prefill of 128 {1000 * costs.prefill(128):.1f} ms, a step of 1 row "
            f"{1000 * costs.decode(1, 128):.1f} ms, of 16 {1000 * costs.decode(16, 2048):.1f} ms; "
            f"fitted to {values['error']:.0%}"
        )
    figures: dict[str, Any] = {"costs": machines, "maps": {}}
    for (name, promise), grid in GRIDS.items():
        key = f"{name}, {promise}"
        prompts, answers = (lengths[: work.sizes] for lengths in grid)
        figures["maps"][key] = [
            finished(
                f"{key}, {n_prompt}, {n_tokens}",
                lambda lengths=(n_prompt, n_tokens), name=name, promise=promise: cell(
                    lengths, of(machines[name]), PROMISES[promise], work
                ),
            )
            for n_prompt in prompts
            for n_tokens in answers
        ]
        print_cells(key, figures["maps"][key], ("n_prompt", "n_tokens"))
    figures |= around_figure_1(finished, work)
    figures["targets"] = targets(figures["maps"]["a100-13b, strict"])
    return figures


# --- machines -------------------------------------------------------------------------------------
def timed(name: str, work: Work) -> dict[str, float]:
    """Costs of a model on this CPU as plain JSON, with the fit's error."""
    model = built(name)
    costs, error = fit(
        measure(
            model,
            prompts=PROMPTS[: work.sizes],
            batch_sizes=BATCH_SIZES,
            n_repeats=work.n_repeats,
        )
    )
    costs = replace(costs, transfer_token=copy_seconds(model, 256))
    return {**asdict(costs), "error": error}


def built(name: str) -> Transformer:
    """A model with room for longer texts than it was trained on: times do not depend on weights."""
    if name == "random-10m":
        return replace(medium(4096), context_length=CONTEXT_LENGTH).build(seed=0).eval()
    shipped, _ = checkpoints.load(name)
    model = replace(shipped.config, context_length=CONTEXT_LENGTH).build()
    model.load_state_dict(shipped.state_dict(), strict=False)
    return model.eval()


def of(values: dict[str, float | None]) -> Costs:
    """Costs from plain JSON, in which infinity is None."""
    values = {key: value for key, value in values.items() if key != "error"}
    return Costs(**{key: math.inf if value is None else value for key, value in values.items()})


# --- cells ----------------------------------------------------------------------------------------
def cell(
    lengths: tuple[int, int], costs: Costs, times: dict[str, float], work: Work, **changes: str
) -> dict[str, Any]:
    """One comparison of the three ways.

    Args:
        lengths: tokens of prompts and answers.
        costs: of a machine.
        times: the promise, in multiples of what a request takes alone.
        work: how much is done.
        changes: of the workload.

    Returns:
        The lengths and times; for each way "goodput", "n_prefill" and "step_tokens" of its best
        fleet, and "gap_p99", the 99th percentile of all gaps in seconds, for all of them at the
        rate of apart's goodput; "over_prefill_first" and "over_chunked", apart's goodput ÷ theirs,
        and "gap_ratio", prefill first's gap_p99 ÷ apart's; None where nobody is served in time.
    """
    n_prompt, n_tokens = lengths
    workload = Workload(n_prompt=n_prompt, n_tokens=n_tokens, n_requests=work.n_requests, **changes)
    slo = relative(costs, workload, **times)
    tops = compare(workload, costs, slo, work.n_machines, seeds=work.seeds)._asdict()
    rate = tops["apart"].goodput
    figures: dict[str, Any] = {"n_prompt": n_prompt, "n_tokens": n_tokens, **times}
    for way, (fleet, goodput) in tops.items():
        gap = tail_gap(workload, costs, fleet, rate, seeds=work.seeds) if rate else None
        figures[way] = {
            "goodput": goodput,
            "n_prefill": fleet.n_prefill,
            "step_tokens": fleet.step_tokens,
            "gap_p99": gap,
        }
    for other in ("prefill_first", "chunked"):
        figures[f"over_{other}"] = _ratio(tops["apart"].goodput, tops[other].goodput)
    gaps = [figures[way]["gap_p99"] for way in ("prefill_first", "apart")]
    figures["gap_ratio"] = _ratio(*gaps) if rate else None
    return figures


def _ratio(above: float, below: float) -> float | None:
    return above / below if below else None


def around_figure_1(finished: Finished, work: Work) -> dict[str, Any]:
    """One pair of lengths on a100-13b: other promises, one change at a time, each seed alone."""
    card = roofline(**CARD)

    def costs(**changes: float) -> Costs:
        return roofline(**{**CARD, **changes})

    def done(label: str, *args: Any, **changes: str) -> dict[str, Any]:
        return finished(f"figure 1, {label}", lambda: cell(FIGURE_1, *args, **changes))

    promises = [
        done(f"{ttft} {tpot}", card, {"ttft": ttft, "tpot": tpot}, work)
        for ttft in TIMES[0][: work.sizes]
        for tpot in TIMES[1][: work.sizes]
    ]
    print_cells("a100-13b, 512 and 64 tokens", promises, ("ttft", "tpot"))
    strict = PROMISES["strict"]
    changes = {
        "answers of one length": done("fixed", card, strict, work, answers="fixed"),
        "a link of 25 GB/s": done("link", costs(link_bytes_per_second=25e9), strict, work),
        "5 ms more a pass": done("fixed costs", costs(fixed=0.005), strict, work),
        "a third of the TFLOP/s": done("slow", costs(flops_per_second=312e12 / 3), strict, work),
        "3 machines": done("3", card, strict, replace(work, n_machines=3)),
        "4 times the requests": done(
            "4x", card, strict, replace(work, n_requests=4 * work.n_requests)
        ),
    }
    seeds = {
        str(seed): done(f"seed {seed}", card, strict, replace(work, seeds=(seed,)))
        for seed in work.seeds
    }
    for what, each in {**changes, **{f"seed {seed}": each for seed, each in seeds.items()}}.items():
        print(f"  {what:<24} {_shown(each['over_prefill_first'])} {_shown(each['over_chunked'])}")
    saturated = finished("saturated", lambda: throughputs(FIGURE_1, card, work))
    print("all at once, tokens/s and machine: ", {k: round(v) for k, v in saturated.items()})
    return {"promises": promises, "changes": changes, "seeds": seeds, "saturated": saturated}


def throughputs(lengths: tuple[int, int], costs: Costs, work: Work) -> dict[str, float]:
    """Tokens a second and machine of each way's fastest fleet, where all requests come at once."""
    n_prompt, n_tokens = lengths
    workload = Workload(n_prompt=n_prompt, n_tokens=n_tokens, n_requests=8 * work.n_requests)
    trace = workload.draw(1e9, seed=0)
    return {
        way: max(simulate(trace, costs, fleet).throughput for fleet in fleets) / work.n_machines
        for way, fleets in candidates(workload, costs, work.n_machines).items()
    }


def targets(cells: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """For each target the highest ratio of the cells, and how many of them reach it."""
    figures = {}
    for name, key in (("goodput_ratio", "over_prefill_first"), ("gap_ratio", "gap_ratio")):
        ratios = [each[key] or 0.0 for each in cells]
        n_reached = sum(ratio >= TARGETS[name] for ratio in ratios)
        figures[name] = {"highest": max(ratios), "n_reached": n_reached, "n_cells": len(cells)}
        print(
            f"{name}: at least {TARGETS[name]:g} in {n_reached} of {len(cells)} cells, "
            f"at most {max(ratios):.2f}"
        )
    return figures


# --- what is printed ------------------------------------------------------------------------------
def print_cells(title: str, cells: Sequence[dict[str, Any]], names: tuple[str, str]) -> None:
    """Goodputs, both ratios and the gaps' ratio, a line for each cell."""
    first, second = names
    print(f"{title}: requests/s and machine of prefill first, chunked, apart; apart ÷ both; gaps")
    for each in cells:
        rates = " ".join(f"{each[way]['goodput']:7.2f}" for way in WAYS)
        ratios = " ".join(
            _shown(each[key]) for key in ("over_prefill_first", "over_chunked", "gap_ratio")
        )
        print(f"  {each[first]:>6} {each[second]:>6}  {rates}  {ratios}", flush=True)


def _shown(ratio: float | None) -> str:
    return "     –" if ratio is None else f"{ratio:6.2f}"
