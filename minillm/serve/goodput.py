"""Goodput (有效吞吐): how many requests a second a machine serves in time.

Throughput counts tokens; who had to wait too long for them does not show in it. So two promises are
made, the service-level objective (服务水平目标, SLO): a longest time to first token, TTFT, and a
longest time per output token, TPOT. **Goodput** is the highest rate of arrivals, per machine, at
which at least 90 % of the requests have both kept:

    attainment   1.00  1.00  0.99  0.95  0.91 | 0.74  0.31        share of requests served in time
    rate          0.5   1.0   1.5   2.0   2.4 |  2.5   3.0        requests a second and machine

It is found by bisection (二分法). `best` takes the best of several fleets, so that each way of
serving is compared at its own best: how machines are split, how large a chunk is.

Paper: Zhong et al. 2024, "DistServe", arXiv:2401.09670, section 1 ("the maximum request rate that
can be served adhering to the SLO attainment goal (say, 90%) for each GPU provisioned"; TPOT is the
mean over a request's tokens but the first); Patel et al. 2023, "Splitwise", arXiv:2311.18677, table
6 (limits as multiples of what a request takes alone: at the 90th percentile 3 for TTFT and 1.5
between tokens); Agrawal et al. 2024, "Sarathi-Serve", arXiv:2403.02310, section 5.1 (a limit on the
99th percentile of the gaps, 5 times a decode step).
Differs: Splitwise demands nine percentiles at once, Sarathi-Serve one of all gaps together; here
each request meets its limits or does not, as with DistServe.

Chapter: 17
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Literal, NamedTuple, final

import numpy as np

from minillm.serve.costs import Costs
from minillm.serve.disaggregate import Fleet, Served, Trace, apart, chunked, prefill_first, simulate

Lengths = Literal["fixed", "geometric"]
SEEDS = (0, 1, 2)
GOAL = 0.9  # of the requests
WHOLE = (512, 1)  # most tokens of prompts in one pass, where prompts are read whole
CHUNKS = (256, 128, 512, 64, 1024)  # most tokens of a step, where they are not
MOST_AT_ONCE = 4096  # requests on a machine; who serves more than that, serves any number
N_LIFETIMES = 20  # a trace lasts so many times what a request takes alone, or longer


@final
@dataclass(frozen=True, kw_only=True)
class Workload:
    """Requests that arrive independently of each other (Poisson arrivals, 泊松到达).

    Args:
        n_prompt, n_tokens: mean lengths of prompts and of answers.
        prompts, answers: "fixed", all of the mean length, or "geometric", as if each token were
            the last with the same probability.
        n_requests: of a trace.

    Raises:
        ValueError: a count below 1, or lengths of another kind.

    Example:
        >>> trace = Workload(n_prompt=8, n_tokens=2, n_requests=3).draw(rate=10.0, seed=0)
        >>> [round(float(seconds), 3) for seconds in trace.arrivals], trace.n_prompt.tolist()
        ([0.068, 0.17, 0.172], [8, 8, 8])
    """

    n_prompt: int
    n_tokens: int
    prompts: Lengths = "fixed"
    answers: Lengths = "geometric"
    n_requests: int = 500

    def __post_init__(self):
        if min(self.n_prompt, self.n_tokens, self.n_requests) < 1:
            raise ValueError(f"a workload has lengths and requests of at least 1; got {self}")
        if strange := {self.prompts, self.answers} - {"fixed", "geometric"}:
            raise ValueError(f"lengths are fixed or geometric; got {', '.join(strange)}")

    def draw(self, rate: float, seed: int) -> Trace:
        """A trace; for another rate the same requests, closer together or farther apart.

        Args:
            rate: requests a second.
            seed: of all that is random.
        """
        if not rate > 0:
            raise ValueError(f"requests arrive at a rate above 0 a second; got {rate}")
        # A stream for each, so that a longer trace begins with the requests of a shorter one.
        waits, *streams = (np.random.default_rng([seed, number]) for number in range(3))
        arrivals = waits.exponential(size=self.n_requests).cumsum() / rate
        kinds = ((self.prompts, self.n_prompt), (self.answers, self.n_tokens))
        lengths = (
            np.full(self.n_requests, mean)
            if kind == "fixed"
            else rng.geometric(1 / mean, self.n_requests)
            for rng, (kind, mean) in zip(streams, kinds, strict=True)
        )
        return Trace(arrivals, *lengths)


@final
@dataclass(frozen=True, kw_only=True)
class SLO:
    """What a request is promised, in seconds.

    Args:
        ttft_seconds: the longest time to first token.
        tpot_seconds: the longest mean gap between its tokens.
        gap_seconds: of its gaps 99 % may not be longer.

    Raises:
        ValueError: a limit that is not above 0.
    """

    ttft_seconds: float
    tpot_seconds: float
    gap_seconds: float = math.inf

    def __post_init__(self):
        if not min(self.ttft_seconds, self.tpot_seconds, self.gap_seconds) > 0:
            raise ValueError(f"the limits of an SLO are seconds above 0; got {self}")

    def attainment(self, served: Served) -> float:
        """The share of requests that had all of it.

        Example:
            >>> times = (np.array([1.0, 2.0]), np.array([1.5, 5.0]), np.array([4.0, 5.0]))
            >>> served = Served(arrivals=np.array([0, 1, 2]), token_times=times, busy=(3.0,))
            >>> SLO(ttft_seconds=1, tpot_seconds=1).attainment(served)  # the first; gap; TTFT
            0.3333333333333333
        """
        in_time = (served.ttft <= self.ttft_seconds) & (served.tpot <= self.tpot_seconds)
        if self.gap_seconds < math.inf:
            late = [(gaps > self.gap_seconds).sum() / max(gaps.size, 1) for gaps in served.gaps]
            in_time &= np.array(late) <= 0.01
        return float(in_time.mean())


def relative(
    costs: Costs, workload: Workload, *, ttft: float, tpot: float, gap: float = math.inf
) -> SLO:
    """Limits as multiples of what a request of mean lengths takes when it is alone.

    Args:
        costs: of a machine.
        workload: its mean lengths count.
        ttft: times the pass over the prompt.
        tpot, gap: times a decode step of one row, half of its answer in the cache.
    """
    alone = costs.decode(1, workload.n_prompt + workload.n_tokens // 2)
    return SLO(
        ttft_seconds=ttft * costs.prefill(workload.n_prompt),
        tpot_seconds=tpot * alone,
        gap_seconds=gap * alone,
    )


# --- the highest rate -----------------------------------------------------------------------------
def goodput(
    workload: Workload,
    costs: Costs,
    fleet: Fleet,
    slo: SLO,
    *,
    seeds: Sequence[int] = SEEDS,
    beat: float = 0.0,
    precision: float = 0.03,
) -> float:
    """The highest rate at which the fleet keeps its promise, in requests a second and machine.

    Args:
        workload, costs, fleet, slo: what comes, what it takes, who serves, what is promised.
        seeds: of the traces; the middle half of each is judged, and all of them together.
        beat: a rate to be better than; one that is not better by `precision` gives 0 at once.
        precision: relative.

    Returns:
        The rate, or 0 where not even very few requests are served in time, or `beat` is not beaten.

    Raises:
        ValueError: no seed, a precision that is not above 0; a promise that no rate breaks.
    """
    if not seeds or not precision > 0:
        raise ValueError(f"goodput needs a seed and a precision above 0; got {seeds}, {precision}")

    alone = costs.prefill(workload.n_prompt)
    alone += workload.n_tokens * costs.decode(1, workload.n_prompt)

    def is_kept(rate: float) -> bool:
        # long enough for as many to leave as to come, before the first one is judged
        n_requests = max(workload.n_requests, math.ceil(N_LIFETIMES * alone * rate * n_machines))
        missed = 0.0
        for seed in seeds:
            trace = replace(workload, n_requests=n_requests).draw(rate * n_machines, seed)
            missed += 1 - slo.attainment(simulate(trace, costs, fleet).middle())
            if missed > (1 - GOAL) * len(seeds):
                return False
        return True

    n_machines, low = fleet.n_machines, beat * (1 + precision) or 1 / alone
    # 1. a rate that it keeps, and twice that, which it does not
    if not is_kept(low):
        if beat:
            return 0.0
        while not is_kept(low := low / 2):
            if low * alone < 1e-3:
                return 0.0
    high = 2 * low
    while is_kept(high):
        low, high = high, 2 * high
        if high * alone > MOST_AT_ONCE:
            raise ValueError(
                f"the promise is kept even at {low:.3g} requests a second and machine, thousands "
                "of them at once, so no rate is the highest: set limits that can be missed, and "
                "give tokens a cost"
            )
    # 2. halve the interval
    while high > low * (1 + precision):
        middle = math.sqrt(low * high)
        low, high = (middle, high) if is_kept(middle) else (low, middle)
    return low


class Best(NamedTuple):
    """A fleet and its goodput."""

    fleet: Fleet
    goodput: float


def best(
    workload: Workload,
    costs: Costs,
    fleets: Sequence[Fleet],
    slo: SLO,
    *,
    seeds: Sequence[int] = SEEDS,
) -> Best:
    """The fleet with the highest goodput; one that is no better costs one try.

    Args:
        workload, costs, slo, seeds: as for `goodput`.
        fleets: to choose from; the likeliest first is fastest.
    """
    top = Best(fleets[0], 0.0)
    for fleet in fleets:
        rate = goodput(workload, costs, fleet, slo, seeds=seeds, beat=top.goodput)
        if rate > top.goodput:
            top = Best(fleet, rate)
    return top


# --- three ways -----------------------------------------------------------------------------------
class Comparison(NamedTuple):
    """Each way of serving at its best."""

    prefill_first: Best
    chunked: Best
    apart: Best


def candidates(workload: Workload, costs: Costs, n_machines: int) -> dict[str, list[Fleet]]:
    """The fleets that are tried for each way of serving, the likeliest first.

    Where prompts are read whole: one at a time, or together up to 512 tokens. Chunked: five budgets
    of a step. Apart: every split of the machines, those first that share the work best.

    Args:
        workload, costs: whose mean lengths say which split is likely.
        n_machines: 2 or more.

    Example:
        >>> costs = Costs(fixed=1.0, prompt_token=0.5, row=0.0)
        >>> fleets = candidates(Workload(n_prompt=100, n_tokens=10), costs, 4)
        >>> [len(each) for each in fleets.values()], fleets["apart"][0].n_prefill
        ([2, 5, 6], 3)
    """
    if n_machines < 2:
        raise ValueError(f"apart needs at least 2 machines, one of each kind; got {n_machines}")
    n_prompt, n_tokens = workload.n_prompt, workload.n_tokens
    prompt_seconds = costs.prefill(n_prompt)
    answer_seconds = n_tokens * costs.decode(16, 16 * (n_prompt + n_tokens // 2)) / 16
    likely = n_machines * prompt_seconds / (prompt_seconds + answer_seconds)
    splits = sorted(range(1, n_machines), key=lambda n_prefill: abs(n_prefill - likely))
    return {
        "prefill_first": [prefill_first(n_machines, size) for size in WHOLE],
        "chunked": [chunked(n_machines, size) for size in CHUNKS],
        "apart": [apart(n, n_machines - n, size) for size in WHOLE for n in splits],
    }


def compare(
    workload: Workload, costs: Costs, slo: SLO, n_machines: int, *, seeds: Sequence[int] = SEEDS
) -> Comparison:
    """The three ways of serving with equally many machines, each searched for its best.

    Args:
        workload, costs, slo, seeds: as for `goodput`.
        n_machines: of each.
    """
    fleets = candidates(workload, costs, n_machines)
    return Comparison(
        **{way: best(workload, costs, each, slo, seeds=seeds) for way, each in fleets.items()}
    )


def tail_gap(
    workload: Workload, costs: Costs, fleet: Fleet, rate: float, *, seeds: Sequence[int] = SEEDS
) -> float:
    """The 99th percentile of all gaps between tokens, in seconds; NaN where there is no gap.

    Args:
        workload, costs, fleet: as for `goodput`.
        rate: requests a second and machine.
        seeds: of the traces; gaps of the middle half of each count.
    """
    served = [
        simulate(workload.draw(rate * fleet.n_machines, seed), costs, fleet) for seed in seeds
    ]
    gaps = np.concatenate([gaps for each in served for gaps in each.middle().gaps])
    return float(np.percentile(gaps, 99)) if gaps.size else math.nan
