"""Collectives (集合通信): what all ranks do together, each with a tensor of its own.

                 before (N = 2)                    after
    all-gather       [a]  [b]                  [a, b]  [a, b]         every rank gets every part
    reduce-scatter   [a, b]  [c, d]            [a + c]  [b + d]       every rank gets one sum
    all-reduce       [a, b]  [c, d]            [a + c, b + d] twice   every rank gets every sum

An all-reduce is a reduce-scatter and then an all-gather. In a **ring** each rank sends to its right
neighbour only, and gets from the left, all at the same time. What is sent is one of N chunks:

    reduce-scatter   N - 1 times: send a partial sum on, add your own chunk to the one that comes
    all-gather       N - 1 times: send on what came last

so a rank sends (N - 1)/N of the tensor in each half, however many ranks there are.

Here the steps of a ring are a generator: `arrived = yield chunk` hands a chunk to the right and
gets what came from the left. Who drives the generators decides where the ranks live:

    in_lockstep([...])    all of them in this process, one after the other
    exchange(steps)       each in a process of its own, with messages between them

Paper: Patarasuk and Yuan 2009, "Bandwidth optimal all-reduce algorithms for clusters of
workstations", JPDC 69(2), section 3.
Differs: chunks are numbered so that rank r ends with chunk r.

Chapter: 15
"""

from collections.abc import Generator, Sequence
from dataclasses import dataclass
from typing import NamedTuple, Protocol, final

import torch
from jaxtyping import Float
from torch import Tensor, distributed
from torch.distributed import ProcessGroup

Steps = Generator[Tensor, Tensor, Tensor]  # yields what goes right, gets what came from the left


# --- the rings, wherever their ranks live --------------------------------------------------------
def reduce_scatter_steps(x: Float[Tensor, "n"], rank: int, n_ranks: int) -> Steps:
    """The ring's reduce-scatter: chunk `rank` of the sum of all ranks' x.

    Args:
        x: this rank's numbers, of a length that N divides; not changed.
        rank: 0 to N - 1.
        n_ranks: N.

    Raises:
        ValueError: N does not divide the length.

    Example:
        >>> two = [torch.tensor([1.0, 2.0]), torch.tensor([10.0, 20.0])]
        >>> in_lockstep([reduce_scatter_steps(x, rank, 2) for rank, x in enumerate(two)])
        Lockstep(results=[tensor([11.]), tensor([22.])], bytes_sent=[4, 4])
    """
    chunks = _chunks(x, n_ranks)
    partial = chunks[(rank - 1) % n_ranks]
    for step in range(n_ranks - 1):
        arrived = yield partial  # the left neighbour's partial sum, of the chunk before
        partial = arrived + chunks[(rank - step - 2) % n_ranks]
    return partial.clone() if n_ranks == 1 else partial


def all_gather_steps(part: Float[Tensor, "n"], rank: int, n_ranks: int) -> Steps:
    """The ring's all-gather: every rank's part, one behind the other.

    Args:
        part: this rank's numbers; of one length on all ranks.
        rank, n_ranks: r and N.

    Example:
        >>> two = [torch.tensor([11.0]), torch.tensor([22.0])]
        >>> in_lockstep([all_gather_steps(x, rank, 2) for rank, x in enumerate(two)]).results
        [tensor([11., 22.]), tensor([11., 22.])]
    """
    chunks = [part] * n_ranks
    for step in range(n_ranks - 1):
        arrived = yield chunks[(rank - step) % n_ranks]  # at first one's own
        chunks[(rank - step - 1) % n_ranks] = arrived
    return torch.cat(chunks)


def all_reduce_steps(x: Float[Tensor, "n"], rank: int, n_ranks: int) -> Steps:
    """The ring's all-reduce: the sum of all ranks' x.

    Args:
        x, rank, n_ranks: as for `reduce_scatter_steps`.

    Example:
        >>> three = [torch.arange(3.0) + 10 * rank for rank in range(3)]
        >>> rings = in_lockstep([all_reduce_steps(x, rank, 3) for rank, x in enumerate(three)])
        >>> rings.results[2], rings.bytes_sent  # 4 sends of one number of 4 bytes
        (tensor([30., 33., 36.]), [16, 16, 16])
    """
    part = yield from reduce_scatter_steps(x, rank, n_ranks)
    return (yield from all_gather_steps(part, rank, n_ranks))


def _chunks(x: Tensor, n_ranks: int) -> list[Tensor]:
    if x.ndim != 1 or x.numel() % n_ranks:
        raise ValueError(
            f"a ring of {n_ranks} ranks needs a vector whose length {n_ranks} divides; got the "
            f"shape {list(x.shape)}. Flatten it, and fill it up with zeros"
        )
    return list(x.chunk(n_ranks)) if x.numel() else [x] * n_ranks


class Lockstep(NamedTuple):
    """What became of rings whose ranks live in one process.

    Args:
        results: of each rank.
        bytes_sent: by each rank.
    """

    results: list[Tensor]
    bytes_sent: list[int]


def in_lockstep(ranks: Sequence[Steps]) -> Lockstep:
    """Drive the steps of all ranks in this process: after each, everything moves one to the right.

    Args:
        ranks: the steps of rank 0, 1, …; all take the same number.

    Raises:
        ValueError: some have ended while others still send.
    """
    results: list[Tensor | None] = [None] * len(ranks)
    sent = [0] * len(ranks)
    arriving: list[Tensor | None] = [None] * len(ranks)
    while True:
        outgoing: list[Tensor | None] = [None] * len(ranks)
        for rank, steps in enumerate(ranks):
            try:
                outgoing[rank] = steps.send(arriving[rank])
                sent[rank] += outgoing[rank].numel() * outgoing[rank].element_size()
            except StopIteration as end:
                results[rank] = end.value
        n_sending = sum(each is not None for each in outgoing)
        if not n_sending:
            return Lockstep(results, sent)
        if n_sending < len(ranks):
            raise ValueError(
                f"{n_sending} of {len(ranks)} ranks still send while the others have ended; all "
                "ranks of a ring take the same number of steps"
            )
        arriving = [outgoing[rank - 1] for rank in range(len(ranks))]  # rank 0's left is the last


# --- between processes ---------------------------------------------------------------------------
@final
@dataclass
class Traffic:
    """How much this rank has sent.

    Args:
        n_bytes: of tensors.
        n_messages: how many.
    """

    n_bytes: int = 0
    n_messages: int = 0


def exchange(
    steps: Steps, group: ProcessGroup | None = None, traffic: Traffic | None = None
) -> Tensor:
    """Drive this rank's steps, with real messages to the right and from the left.

    Args:
        steps: of this rank.
        group: the ranks of the ring; None for all.
        traffic: what is sent is added to it.
    """
    n_ranks, rank = distributed.get_world_size(group), distributed.get_rank(group)
    arrived = None
    while True:
        try:
            outgoing = steps.send(arrived).contiguous()
        except StopIteration as end:
            return end.value
        arrived = torch.empty_like(outgoing)
        # both at once: if all sent first and received afterwards, all would wait for ever
        both = [
            distributed.P2POp(
                distributed.isend, outgoing, group=group, group_peer=(rank + 1) % n_ranks
            ),
            distributed.P2POp(
                distributed.irecv, arrived, group=group, group_peer=(rank - 1) % n_ranks
            ),
        ]
        for work in distributed.batch_isend_irecv(both):
            work.wait()
        if traffic is not None:
            traffic.n_bytes += outgoing.numel() * outgoing.element_size()
            traffic.n_messages += 1


class Collectives(Protocol):
    """What sharded training asks of the ranks that share its data."""

    rank: int
    n_ranks: int

    def all_reduce(self, x: Float[Tensor, "n"]) -> Float[Tensor, "n"]:
        """The sum of all ranks' x; N divides its length."""

    def reduce_scatter(self, x: Float[Tensor, "n"]) -> Float[Tensor, "n/N"]:
        """This rank's part of that sum."""

    def all_gather(self, part: Float[Tensor, "n/N"]) -> Float[Tensor, "n"]:
        """All ranks' parts."""


@final
class RingCollectives:
    """The rings above between processes, with everything that this rank sends counted.

    Args:
        group: the ranks; None for all.
    """

    def __init__(self, group: ProcessGroup | None = None):
        self.group, self.traffic = group, Traffic()
        self.rank, self.n_ranks = distributed.get_rank(group), distributed.get_world_size(group)

    def all_reduce(self, x: Tensor) -> Tensor:
        """See `all_reduce_steps`."""
        return exchange(all_reduce_steps(x, self.rank, self.n_ranks), self.group, self.traffic)

    def reduce_scatter(self, x: Tensor) -> Tensor:
        """See `reduce_scatter_steps`."""
        return exchange(reduce_scatter_steps(x, self.rank, self.n_ranks), self.group, self.traffic)

    def all_gather(self, part: Tensor) -> Tensor:
        """See `all_gather_steps`."""
        return exchange(all_gather_steps(part, self.rank, self.n_ranks), self.group, self.traffic)


@final
class TorchCollectives:
    """torch's own, which choose their algorithm themselves (gloo, nccl): the fast ones.

    Args:
        group: the ranks; None for all.
    """

    def __init__(self, group: ProcessGroup | None = None):
        self.group = group
        self.rank, self.n_ranks = distributed.get_rank(group), distributed.get_world_size(group)

    def all_reduce(self, x: Tensor) -> Tensor:
        """The sum of all ranks' x, in a new tensor."""
        total = x.clone()
        distributed.all_reduce(total, group=self.group)
        return total

    def reduce_scatter(self, x: Tensor) -> Tensor:
        """This rank's part of the sum."""
        part = x.new_empty(x.numel() // self.n_ranks)
        _reduce_scatter(part, x.contiguous(), group=self.group)
        return part

    def all_gather(self, part: Tensor) -> Tensor:
        """All ranks' parts, one behind the other."""
        whole = part.new_empty(part.numel() * self.n_ranks)
        _all_gather(whole, part.contiguous(), group=self.group)
        return whole


# torch 2.13 has new names for two of them, and warns of the old ones
_reduce_scatter = (
    getattr(distributed, "reduce_scatter_single", None) or distributed.reduce_scatter_tensor
)
_all_gather = getattr(distributed, "all_gather_single", None) or distributed.all_gather_into_tensor


def whoami() -> list[int]:
    """This rank's number, and how many there are: the least that a run can tell."""
    return [distributed.get_rank(), distributed.get_world_size()]


# --- what it takes -------------------------------------------------------------------------------
def ring_seconds(
    n_bytes: float, n_ranks: int, *, latency: float, bandwidth: float, n_rounds: int = 2
) -> float:
    """The α-β model of a ring's time: so many messages, so many bytes.

        seconds = rounds · (N - 1) · (α + bytes / N / β)

    Args:
        n_bytes: of the tensor.
        n_ranks: N.
        latency: α, seconds of a message without content.
        bandwidth: β, bytes a second.
        n_rounds: 2 for an all-reduce, 1 for either half of it.

    Paper: Thakur, Rabenseifner and Gropp 2005, "Optimization of Collective Communication
        Operations in MPICH", IJHPCA 19(1), section 3 (the model).
    Differs: no time for adding up.

    Example:
        >>> round(ring_seconds(1e9, 8, latency=1e-5, bandwidth=1e10), 3)  # 1 GB, 8 ranks, 10 GB/s
        0.175
    """
    return n_rounds * (n_ranks - 1) * (latency + n_bytes / n_ranks / bandwidth)


def tokens_to_hide(
    flops_per_second: float, bandwidth: float, n_ranks: int, *, n_rounds: float = 2
) -> float:
    """Tokens a rank and step at which computing takes as long as sending: the crossover.

    A step computes 6 Ψ operations a token, and sends rounds · (N - 1)/N · Ψ numbers of 2 bytes. Ψ
    cancels out:

        tokens = rounds · (N - 1)/N · 2 / bandwidth · operations a second / 6

    Args:
        flops_per_second: that a rank really reaches.
        bandwidth: bytes a second between neighbours.
        n_ranks: N.
        n_rounds: 2 for data parallelism and stages 1 and 2, 3 for stage 3.

    Example:
        >>> round(tokens_to_hide(150e12, 25e9, 64))  # half of an A100's peak, 25 GB/s
        3938
    """
    seconds_of_a_parameter = n_rounds * (n_ranks - 1) / n_ranks * 2 / bandwidth
    return seconds_of_a_parameter * flops_per_second / 6
