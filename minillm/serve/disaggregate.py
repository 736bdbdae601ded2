"""Prefill and decode on the same machines or apart (全量增量推理分离部署): a simulator of a fleet.

A pass that reads a long prompt takes as long as many decode steps. What happens to the rows that a
machine decodes while a prompt arrives (P: the prompt's pass, d: a decode step, time to the right)?

    prefill first      d d d [PPPPPPPPPPPP] d d d        the rows stall: one long gap
    chunked            d d d [dP][dP][dP][dP] d d        a part of the prompt in each step
    apart, prefill         [PPPPPPPPPPPP]                no rows here
           decode      d d d d d d d d d d d d d         no prompts here; the cache is sent over

Each machine batches continuously: a request joins the rows as soon as its prompt is read, and
leaves them with its last token. What a request sees is its **time to first token** (首词元延迟,
TTFT), from its arrival on, and the **gaps** between its tokens (词元间延迟, inter-token latency),
whose mean is its **time per output token** (TPOT).

Nothing here computes anything: `simulate` adds up `minillm.serve.costs.Costs`. Events are arrivals
and ends of passes. The same trace and fleet always give the same times.

Paper: Zhong et al. 2024, "DistServe", arXiv:2401.09670, section 1 (TTFT, TPOT), section 2.3 (how
the phases disturb each other) and section 4.1 (a simulator finds the best split); Patel et al.
2023, "Splitwise", arXiv:2311.18677, section 5.2 (another); Agrawal et al. 2024, "Sarathi-Serve",
arXiv:2403.02310, section 3.2 (prefill first stalls decoding) and algorithm 3 (chunks), which
`minillm.serve.scheduler` does with a model. That it is latency which is won is what vLLM's
documentation of its own way says: "Disaggregated prefill DOES NOT improve throughput."
Differs: a request takes all places of its prompt and answer when it is admitted, so nobody is
preempted; caches that wait to be sent take no place on the machine that sends them; machines are
one card each, never sharded; a cache is sent when its prompt is read, not layer by layer.

Chapter: 17
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple, final

import numpy as np

from minillm.serve.costs import Costs
from minillm.serve.machine import Job, Machine


# --- what arrives ---------------------------------------------------------------------------------
class Trace(NamedTuple):
    """Requests in the order of their arrival.

    Args:
        arrivals: seconds.
        n_prompt: tokens of each prompt.
        n_tokens: of each answer, the first token included.
    """

    arrivals: Sequence[float]
    n_prompt: Sequence[int]
    n_tokens: Sequence[int]


# --- who serves -----------------------------------------------------------------------------------
@final
@dataclass(frozen=True, kw_only=True)
class Fleet:
    """Machines, and what each does with a prompt; made by one of the three functions below.

    Args:
        n_machines: all of them.
        n_prefill: of which read prompts only, while the others decode only; 0: all do both.
        chunked: whether prompts are read in parts, beside the rows that decode.
        step_tokens: the most tokens in one pass. Unchunked, whole prompts are read together as long
            as they stay within, and a longer one alone.

    Raises:
        ValueError: no machine that decodes; no token a step.
    """

    n_machines: int
    n_prefill: int = 0
    chunked: bool = False
    step_tokens: int = 512

    def __post_init__(self):
        if not 0 <= self.n_prefill < self.n_machines or self.step_tokens < 1:
            raise ValueError(
                "a fleet has at least one machine that decodes, and passes of at least one token; "
                f"got {self.n_prefill} of {self.n_machines} that read prompts only, and "
                f"{self.step_tokens} step_tokens"
            )


def prefill_first(n_machines: int, step_tokens: int = 512) -> Fleet:
    """All do both; a prompt that waits is read at once, whole, and the rows wait for it."""
    return Fleet(n_machines=n_machines, step_tokens=step_tokens)


def chunked(n_machines: int, step_tokens: int) -> Fleet:
    """All do both; a step has all rows and as much of a prompt as step_tokens allow."""
    return Fleet(n_machines=n_machines, chunked=True, step_tokens=step_tokens)


def apart(n_prefill: int, n_decode: int, step_tokens: int = 512) -> Fleet:
    """Some read prompts only, the others decode only."""
    if n_prefill < 1:
        raise ValueError(f"apart needs at least one machine to read prompts; got {n_prefill}")
    return Fleet(n_machines=n_prefill + n_decode, n_prefill=n_prefill, step_tokens=step_tokens)


# --- all of them ----------------------------------------------------------------------------------
@final
@dataclass(frozen=True, kw_only=True)
class Served:
    """What a trace's requests saw.

    Args:
        arrivals: seconds, of each request.
        token_times: of each request the seconds at which its tokens came.
        busy: seconds that each machine computed; those that read prompts only come first.
    """

    arrivals: np.ndarray
    token_times: tuple[np.ndarray, ...]
    busy: tuple[float, ...]

    @property
    def ttft(self) -> np.ndarray:
        """Time to first token of each request, in seconds from its arrival."""
        return np.array([times[0] for times in self.token_times]) - self.arrivals

    @property
    def gaps(self) -> tuple[np.ndarray, ...]:
        """Of each request the seconds from each token to the next, one fewer than tokens."""
        return tuple(np.diff(times) for times in self.token_times)

    @property
    def tpot(self) -> np.ndarray:
        """Time per output token: the mean gap of each request, 0 where there is no gap."""
        return np.array([(t[-1] - t[0]) / max(len(t) - 1, 1) for t in self.token_times])

    @property
    def throughput(self) -> float:
        """Tokens a second, from the first arrival to the last token."""
        seconds = max(times[-1] for times in self.token_times) - self.arrivals[0]
        return float(sum(map(len, self.token_times)) / seconds)

    def middle(self) -> "Served":
        """The middle half of the requests, which came neither to an empty fleet nor to the last."""
        n = len(self.arrivals)
        part = slice(n // 4, n - n // 4)
        return Served(
            arrivals=self.arrivals[part], token_times=self.token_times[part], busy=self.busy
        )


def simulate(trace: Trace, costs: Costs, fleet: Fleet) -> Served:
    """Play a trace through: who has which token when.

    A request goes to the machine that has the fewest. Where prefill is apart, its cache is sent to
    such a machine as soon as its prompt is read; a machine sends one after the other, and computes
    on meanwhile.

    Args:
        trace: the requests.
        costs: of any machine; all are alike.
        fleet: the machines.

    Raises:
        ValueError: no request, one without a token or larger than a machine's caches, or arrivals
            out of order.

    Example:
        >>> costs = Costs(fixed=1.0, prompt_token=0.25, row=0.0)
        >>> trace = Trace([0.0, 1.5], n_prompt=[4, 16], n_tokens=[3, 1])
        >>> served = simulate(trace, costs, prefill_first(1))
        >>> [times.tolist() for times in served.token_times]  # read 0-2, 1st 2-3, read 3-8, …
        [[2.0, 8.0, 9.0], [7.0]]
        >>> served = simulate(trace, costs, apart(1, 1))
        >>> [times.tolist() for times in served.token_times]
        [[2.0, 3.0, 4.0], [7.0]]
    """
    _check(trace, costs)
    lengths = zip(trace.n_prompt, trace.n_tokens, strict=True)
    jobs = [Job(number, int(p), int(t)) for number, (p, t) in enumerate(lengths)]
    if not fleet.n_prefill:
        machines = _serve(costs, fleet, fleet.n_machines, trace.arrivals, jobs)
    else:
        # 1. one pool gives each request its first token and no other
        prompts = [Job(job.number, job.n_prompt, n_tokens=1) for job in jobs]
        readers = _serve(costs, fleet, fleet.n_prefill, trace.arrivals, prompts)
        # 2. their caches are sent, where there are tokens to come
        come = []
        for prompt in sorted(prompts, key=lambda prompt: prompt.first):
            job, machine = jobs[prompt.number], prompt.machine
            job.first, job.n_read, job.machine = prompt.first, prompt.n_read, machine
            if job.n_tokens > 1:
                machine.link = max(machine.link, prompt.first)
                machine.link += costs.transfer_token * job.n_prompt
                come.append((machine.link, job.number))
        # 3. the other pool decodes
        come.sort()
        times, rest = [time for time, _ in come], [jobs[number] for _, number in come]
        machines = readers + _serve(costs, fleet, fleet.n_machines - fleet.n_prefill, times, rest)
    ends = {id(machine): np.array(machine.ends) for machine in machines}
    token_times = tuple(
        np.append(job.first, ends[id(job.machine)][job.begin : job.begin + job.n_tokens - 1])
        for job in jobs
    )
    busy = tuple(machine.busy for machine in machines)
    return Served(arrivals=np.array(trace.arrivals), token_times=token_times, busy=busy)


def _serve(
    costs: Costs,
    fleet: Fleet,
    n_machines: int,
    arrivals: Sequence[float],
    jobs: Sequence[Job],
) -> list[Machine]:
    """Play one pool of machines through; jobs come in the order of time."""
    machines = [Machine(costs, fleet.chunked, fleet.step_tokens) for _ in range(n_machines)]
    for now, job in zip(arrivals, jobs, strict=True):
        for machine in machines:
            machine.advance(now)
        min(machines, key=lambda machine: machine.load(now)).submit(job, now)
    for machine in machines:
        machine.advance(math.inf)
    return machines


def _check(trace: Trace, costs: Costs) -> None:
    arrivals, n_prompt, n_tokens = map(np.asarray, trace)
    if not len(arrivals) == len(n_prompt) == len(n_tokens) > 0:
        raise ValueError("a trace has at least one request, each with an arrival and two lengths")
    if (np.diff(arrivals) < 0).any() or min(n_prompt.min(), n_tokens.min()) < 1:
        raise ValueError(
            "requests come in the order of their arrival, with at least one token in each prompt "
            f"and answer; got {trace}"
        )
    if (longest := int((n_prompt + n_tokens).max()) - 1) > costs.cache_tokens:
        raise ValueError(
            f"a request needs {longest} places in a machine's caches, which have "
            f"{int(costs.cache_tokens)}: it could never be served; shorten it or raise cache_tokens"
        )
