"""Planning (自动规划): of all ways to cut a model over many ranks, the fastest that fits.

A model is cut into dp copies that share the batch, each of pp stages of layers, each stage over tp
ranks, with dp · tp · pp = the number of ranks; and each copy's part of the batch into m
micro-batches. A step is m slots of a pipeline, pp - 1 idle ones (the bubble), and at the end the
gradients of all copies are added up:

    seconds = (m + pp - 1) · (compute + tp's all-reduces + to the next stage) + dp's all-reduce

    bytes a rank = 16 · parameters / (tp · pp)  +  activations of min(pp, m) micro-batches

`best_plan_naive` tries every cut, `best_plan` leaves out those that cannot win.

Paper: Narayanan et al. 2021, "Efficient Large-Scale Language Model Training on GPU Clusters Using
Megatron-LM", arXiv:2104.04473, sections 2.2.1 (bubble (p - 1) / m), 3.1 to 3.3 and 3.5 (recompute);
section numbers from memory. Korthikanti et al. 2022, "Reducing Activation Recomputation",
arXiv:2205.05198, equation (2): activations of a block; from memory, and the same in a public
calculator.
Differs: arithmetic alone, nothing is measured. No sending runs beside computing. The work is 6 ·
parameters · tokens, so attention's scores are left out of time, and all parameters are shared out
evenly, those of the embedding too. Small products are as quick as large ones; that makes one
sequence a micro-batch look better than it is. No interleaved stages.

Chapter: 16
"""

import itertools
import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import NamedTuple, final

from minillm.model.count import block_parameters_rule_of_thumb, gpt_parameters, training_flops
from minillm.parallel.collectives import ring_seconds
from minillm.parallel.memory_plan import LayerCost
from minillm.parallel.zero import bytes_per_rank


@final
@dataclass(frozen=True, kw_only=True)
class ModelShape:
    """A GPT, and the batch that it learns from in a step.

    Args:
        n_layers, d_model, n_heads, vocab_size: of the model.
        context_length: tokens of each sequence.
        batch_size: sequences of a step, all ranks together.
        stores_scores: whether attention's scores are kept for the backward pass; in tiles (chapter
            03) they are not.

    Raises:
        ValueError: a count below 1, heads that do not divide d_model.
    """

    n_layers: int
    d_model: int
    n_heads: int
    vocab_size: int
    context_length: int
    batch_size: int
    stores_scores: bool = True

    def __post_init__(self) -> None:
        counts = [value for name, value in vars(self).items() if name != "stores_scores"]
        if min(counts) < 1 or self.d_model % self.n_heads:
            raise ValueError(f"counts must be at least 1, and n_heads divide d_model; got {self}")

    @property
    def n_parameters(self) -> int:
        """Of all layers, embeddings and norms."""
        return gpt_parameters(
            n_layers=self.n_layers,
            d_model=self.d_model,
            vocabulary_size=self.vocab_size,
            context_length=self.context_length,
        )

    def stream_bytes(self, n_sequences: int) -> int:
        """Of the residual stream between two blocks, in 16 bits: what is sent, and kept."""
        return 2 * n_sequences * self.context_length * self.d_model

    def activation_bytes(self, n_sequences: int, tp: int = 1) -> int:
        """Of one block, all that its backward pass needs: s b h (10 + 24 / t + 5 a s / (h t)).

        Example:
            >>> gpt3 = ModelShape(n_layers=96, d_model=12288, n_heads=96, vocab_size=50257,
            ...                   context_length=2048, batch_size=1536)
            >>> gpt3.activation_bytes(1) / 1e9, gpt3.activation_bytes(1, tp=8) / 1e9  # GB
            (2.868903936, 0.578813952)

        Differs: no sequence parallelism; without stored scores the last term is gone.
        """
        numbers = n_sequences * self.context_length * self.d_model  # s b h
        scores = 5 * self.n_heads * n_sequences * self.context_length**2 * self.stores_scores
        return 10 * numbers + -(-(24 * numbers + scores) // tp)


@final
@dataclass(frozen=True, kw_only=True)
class Cluster:
    """Ranks in machines, and how fast they are.

    Args:
        n_ranks: in all.
        ranks_per_machine: joined by the faster links.
        peak_flops_per_second: of a rank, by the data sheet.
        utilisation: the share of it that matrix products reach.
        inside_bytes_per_second: that a rank sends within its machine.
        between_bytes_per_second: that a rank sends to another machine.
        latency_seconds: of a message without content.

    Raises:
        ValueError: machines that are not all full; a speed not above 0.
    """

    n_ranks: int
    ranks_per_machine: int
    peak_flops_per_second: float
    utilisation: float
    inside_bytes_per_second: float
    between_bytes_per_second: float
    latency_seconds: float = 1e-5

    def __post_init__(self) -> None:
        if min(vars(self).values()) <= 0 or self.utilisation > 1:
            raise ValueError(
                f"all must be above 0, and utilisation at most 1 (0.5 for 50 %); got {self}"
            )
        if self.n_ranks % min(self.n_ranks, self.ranks_per_machine):
            raise ValueError(
                f"{self.n_ranks} ranks do not fill machines of {self.ranks_per_machine}; give a "
                "multiple"
            )

    def all_reduce_seconds(self, n_bytes: float, n_ranks: int, span: int) -> float:
        """Of a ring of ranks that lie within `span` neighbours."""
        bandwidth = self.bandwidth(span)
        return ring_seconds(n_bytes, n_ranks, latency=self.latency_seconds, bandwidth=bandwidth)

    def bandwidth(self, span: int) -> float:
        """Bytes a second of the slowest link within `span` neighbours."""
        if span <= self.ranks_per_machine:
            return self.inside_bytes_per_second
        return self.between_bytes_per_second


@final
@dataclass(frozen=True, kw_only=True, order=True)
class ThreeD:
    """A way to cut a model and its batch; the lesser of two is the faster one.

    Args:
        seconds: of a step.
        n_bytes: that each rank holds: weights, gradients, optimizer state and activations.
        dp, tp, pp: ranks that share the batch, a layer, the layers.
        n_micro_batches: m, of each of the dp copies.
        recompute: whether only the inputs of blocks are kept.
    """

    seconds: float
    n_bytes: int
    dp: int
    tp: int
    pp: int
    n_micro_batches: int
    recompute: bool


class Cut(NamedTuple):
    """What a `ThreeD` decides; see there."""

    dp: int
    tp: int
    pp: int
    n_micro_batches: int
    recompute: bool


def estimate(shape: ModelShape, cluster: Cluster, cut: Cut, *, zero_stage: int = 0) -> ThreeD:
    """The time and memory of one cut.

    Args:
        shape, cluster: as for `best_plan`.
        cut: that divides the model and its batch.
        zero_stage: 0 or 1.

    Example:
        >>> tiny = ModelShape(n_layers=4, d_model=8, n_heads=2, vocab_size=16,
        ...                   context_length=4, batch_size=8)
        >>> pair = Cluster(n_ranks=2, ranks_per_machine=2, peak_flops_per_second=1e9,
        ...                utilisation=1, inside_bytes_per_second=1e9,
        ...                between_bytes_per_second=1e9, latency_seconds=1e-12)
        >>> one = estimate(tiny, pair, Cut(1, 1, 2, n_micro_batches=1, recompute=False))
        >>> many = estimate(tiny, pair, Cut(1, 1, 2, n_micro_batches=8, recompute=False))
        >>> round(one.seconds / many.seconds, 4)  # 1 + bubble: 2 / 1 against 9 / 8
        1.7778

    Paper: Narayanan et al. 2021: bubble, section 2.2.1; 4 all-reduces of b s h numbers a block and
        micro-batch, section 3.2; at most pp micro-batches alive, section 2.2.1 (1F1B).
    """
    dp, tp, pp, m, recompute = cut
    n_sequences = shape.batch_size // (dp * m)
    n_layers, parameters = shape.n_layers // pp, shape.n_parameters / (tp * pp)
    stream = shape.stream_bytes(n_sequences)
    # 1. a slot of the pipeline: one micro-batch, forward and back, in one stage
    slot = _slot_compute_seconds(shape, cluster, cut)
    # 1a. tp: two all-reduces a block forward, two back, two more where it is recomputed
    n_all_reduces = n_layers * (6 if recompute else 4)
    slot += n_all_reduces * cluster.all_reduce_seconds(stream, tp, span=tp)
    # 1b. pp: to the next stage, and the gradient back
    if pp > 1:
        slot += 2 * (cluster.latency_seconds + stream / cluster.bandwidth(cluster.n_ranks))
    # 2. m slots, pp - 1 idle ones, and the gradients' all-reduce over dp
    seconds = (m + pp - 1) * slot
    seconds += cluster.all_reduce_seconds(2 * parameters, dp, span=tp * dp)
    # 3. memory: 16 bytes a parameter, and activations of the micro-batches that are under way
    under_way = min(pp, m)
    block = shape.activation_bytes(n_sequences, tp)
    activations = under_way * n_layers * (stream if recompute else block)
    if recompute:  # one block at a time is whole again
        activations += block
    n_bytes = math.ceil(bytes_per_rank(parameters, dp, zero_stage)) + activations
    return ThreeD(seconds=seconds, n_bytes=n_bytes, **cut._asdict())


def _slot_compute_seconds(shape: ModelShape, cluster: Cluster, cut: Cut) -> float:
    n_tokens = shape.batch_size // (cut.dp * cut.n_micro_batches) * shape.context_length
    flops = training_flops(n_parameters=shape.n_parameters, n_tokens=n_tokens)
    flops = flops * 4 / 3 if cut.recompute else flops  # forward, twice back, and forward again
    speed = cluster.peak_flops_per_second * cluster.utilisation
    return flops / (cut.tp * cut.pp) / speed


def _bound_seconds(shape: ModelShape, cluster: Cluster, cut: Cut) -> float:
    """`estimate` without any communication."""
    return (cut.n_micro_batches + cut.pp - 1) * _slot_compute_seconds(shape, cluster, cut)


def best_plan(
    shape: ModelShape, cluster: Cluster, limit_bytes: float, *, zero_stage: int = 0
) -> ThreeD:
    """The fastest cut of all that keep to the limit of memory.

    Cuts are tried in the order of a bound that no communication can beat: their computing and the
    pipeline's bubble alone. Once that is above the best time so far, none of the rest can win.

    Args:
        shape: of the model and its batch.
        cluster: whose ranks are all used. Neighbours are first those of tp, then dp, then pp.
        limit_bytes: of a rank's memory.
        zero_stage: 1 also cuts the optimizer state over the dp copies; 2 and 3 would send gradients
            or weights with each micro-batch.

    Raises:
        ValueError: nothing fits, with the cut that needs the least; a stage other than 0 and 1.

    Example:
        >>> gpt3 = ModelShape(n_layers=96, d_model=12288, n_heads=96, vocab_size=50257,
        ...                   context_length=2048, batch_size=1536)
        >>> a100 = Cluster(n_ranks=64, ranks_per_machine=8, peak_flops_per_second=312e12,
        ...                utilisation=0.5, inside_bytes_per_second=300e9,
        ...                between_bytes_per_second=25e9)
        >>> plan = best_plan(gpt3, a100, limit_bytes=80e9)
        >>> plan.dp, plan.tp, plan.pp, plan.n_micro_batches, plan.recompute
        (1, 2, 32, 1536, True)
        >>> round(plan.n_bytes / 1e9, 1), round(plan.seconds)  # GB a rank, seconds a step
        (50.0, 461)
        >>> round(plan.seconds * 300e9 / (1536 * 2048) / 86400)  # days for 300 billion tokens
        508
        >>> round(best_plan(gpt3, a100, limit_bytes=1e12).seconds * 300e9 / (1536 * 2048) / 86400)
        377

        Without a limit it would be 377 days, and computing alone takes 364: what makes them 508 is
        that blocks are recomputed, which 80 GB do not allow to leave out.
    """
    best = nearest = None
    cuts = list(_cuts(shape, cluster, zero_stage))
    # 1. the least time that each cut can take, lowest first
    for bound, cut in sorted((_bound_seconds(shape, cluster, cut), cut) for cut in cuts):
        # 2. none of those that follow can be faster
        if best is not None and bound > best.seconds:
            break
        # 3. the whole time and memory of this one
        plan = estimate(shape, cluster, cut, zero_stage=zero_stage)
        nearest = plan if nearest is None or plan.n_bytes < nearest.n_bytes else nearest
        if plan.n_bytes <= limit_bytes and (best is None or plan < best):
            best = plan
    return _fitting(best, nearest, limit_bytes)


def best_plan_naive(
    shape: ModelShape, cluster: Cluster, limit_bytes: float, *, zero_stage: int = 0
) -> ThreeD:
    """The same by trying all: what `best_plan` must equal."""
    allowed = set(_cuts(shape, cluster, zero_stage))
    plans = [
        estimate(shape, cluster, cut, zero_stage=zero_stage)
        for degrees in itertools.product(range(1, cluster.n_ranks + 1), repeat=3)
        if math.prod(degrees) == cluster.n_ranks
        for m in range(1, shape.batch_size + 1)
        for recompute in (False, True)
        if (cut := Cut(*degrees, m, recompute)) in allowed
    ]
    best = min((plan for plan in plans if plan.n_bytes <= limit_bytes), default=None)
    nearest = min(plans, key=lambda plan: plan.n_bytes, default=None)
    return _fitting(best, nearest, limit_bytes)


def _cuts(shape: ModelShape, cluster: Cluster, zero_stage: int) -> Iterator[Cut]:
    """All that divide heads, layers, batch and machines."""
    if zero_stage not in (0, 1):
        raise ValueError(
            f"zero_stage must be 0 or 1; got {zero_stage}. Under stages 2 and 3 each micro-batch "
            "would send gradients or weights, which this model of time does not know"
        )
    inside = min(cluster.n_ranks, cluster.ranks_per_machine)
    for tp in _divisors(math.gcd(inside, shape.n_heads)):
        for pp in _divisors(math.gcd(cluster.n_ranks // tp, shape.n_layers)):
            dp = cluster.n_ranks // (tp * pp)
            if shape.batch_size % dp == 0:
                for m in _divisors(shape.batch_size // dp):
                    yield Cut(dp, tp, pp, m, recompute=False)
                    yield Cut(dp, tp, pp, m, recompute=True)


def _divisors(n: int) -> list[int]:
    return [divisor for divisor in range(1, n + 1) if n % divisor == 0]


def _fitting(best: ThreeD | None, nearest: ThreeD | None, limit_bytes: float) -> ThreeD:
    if best is not None:
        return best
    if nearest is None:
        raise ValueError(
            "no cut uses all ranks: tp must divide heads and a machine's ranks, pp the layers, and "
            "dp the batch. Give another number of ranks, or another batch_size"
        )
    raise ValueError(
        f"nothing fits into {limit_bytes / 1e9:.3g} GB a rank. The nearest needs "
        f"{nearest.n_bytes / 1e9:.3g} GB: dp={nearest.dp}, tp={nearest.tp}, pp={nearest.pp}, "
        f"{nearest.n_micro_batches} micro-batches, recompute={nearest.recompute}. More ranks, "
        "zero_stage=1 or a smaller batch need less"
    )


def block_cost(
    shape: ModelShape,
    cluster: Cluster,
    *,
    n_sequences: int,
    host_bytes_per_second: float | None = None,
) -> LayerCost:
    """What a block's activations cost on one card that has the whole block: for `memory_plan`.

    Args:
        shape, cluster: of the model, and of the cards.
        n_sequences: that a card reads at once.
        host_bytes_per_second: of the bus to the host's memory; None for no offloading.

    Example:
        GPT-3 on 64 A100 with ZeRO stage 3, a sequence a card. A card holds 43.65 GB of state, and
        26.2 GB are left for activations, of which there are 275 GB. So 7 blocks are kept, 89 are
        recomputed, and a step's computing takes 1.31 times as long:

        >>> from minillm.parallel.memory_plan import memory_plan
        >>> gpt3 = ModelShape(n_layers=96, d_model=12288, n_heads=96, vocab_size=50257,
        ...                   context_length=2048, batch_size=1536)
        >>> a100 = Cluster(n_ranks=64, ranks_per_machine=8, peak_flops_per_second=312e12,
        ...                utilisation=0.5, inside_bytes_per_second=300e9,
        ...                between_bytes_per_second=25e9)
        >>> block = block_cost(gpt3, a100, n_sequences=1, host_bytes_per_second=25e9)
        >>> state = bytes_per_rank(gpt3.n_parameters, 64, stage=3)
        >>> gathered = 2 * 2 * gpt3.n_parameters / 96  # this block's weights and the next one's
        >>> left = int(80e9 - state - gathered - block.activation_bytes)  # one is recomputed
        >>> round(state / 1e9, 2), round(left / 1e9, 1), round(96 * block.activation_bytes / 1e9)
        (43.65, 26.2, 275)
        >>> plan = memory_plan([block] * 96, left)
        >>> [plan.choices.count(name) for name in ("keep", "recompute", "offload")]
        [7, 89, 0]
        >>> round(1 + plan.seconds / (3 * 96 * block.forward_seconds), 2)
        1.31

    Differs: a product's 2 operations a parameter and token, as in `minillm.model.count`.
    """
    parameters = block_parameters_rule_of_thumb(n_layers=1, d_model=shape.d_model)
    flops = 2 * parameters * n_sequences * shape.context_length
    activations = shape.activation_bytes(n_sequences)
    bus = math.inf if host_bytes_per_second is None else 2 * activations / host_bytes_per_second
    return LayerCost(
        activation_bytes=activations,
        input_bytes=shape.stream_bytes(n_sequences),
        forward_seconds=flops / (cluster.peak_flops_per_second * cluster.utilisation),
        offload_seconds=bus,
    )
