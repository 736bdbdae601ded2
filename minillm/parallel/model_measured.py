"""What the ranks of chapter 16 run: a model cut along its matrices and along its depth.

As in `minillm.parallel.measured`, rank 0 also trains alone on the whole, and what comes out is
compared. The model is that of chapter 15; the rows are documents of random tokens.

Chapter: 16
"""

from typing import Any

import torch
from torch import Tensor, distributed, nn

from minillm.data.packing import Batch, Packed
from minillm.experts.moe import MoEConfig
from minillm.model.attention import Context
from minillm.parallel import pipeline, tensor
from minillm.parallel.collectives import RingCollectives, TorchCollectives, Traffic
from minillm.parallel.data import share
from minillm.parallel.expert import AllToAll, ExpertParallel, own_experts
from minillm.parallel.measured import N_ROWS, N_STEPS, N_TOKENS, VOCAB_SIZE, begin
from minillm.parallel.micro_batches import Pipelined
from minillm.parallel.plan import Cluster, ModelShape
from minillm.parallel.schedule import gpipe, one_forward_one_backward
from minillm.parallel.sequence import ring_attention
from minillm.train.loop import LoopConfig, TrainState, train
from minillm.train.losses import language_loss

SCHEDULES = {"GPipe": gpipe, "1F1B": one_forward_one_backward}

#: GPT-3 with a batch of 3.1 million tokens, and 64 A100 in eight machines. Half of the peak and
#: both bandwidths are assumptions, typical of data sheets.
GPT3 = ModelShape(
    n_layers=96,
    d_model=12288,
    n_heads=96,
    vocab_size=50257,
    context_length=2048,
    batch_size=1536,
    stores_scores=False,
)
A100S = Cluster(
    n_ranks=64,
    ranks_per_machine=8,
    peak_flops_per_second=312e12,
    utilisation=0.5,
    inside_bytes_per_second=300e9,
    between_bytes_per_second=25e9,
)


def batch_at(step: int) -> Batch:
    """The rows of a step."""
    numbers = torch.Generator().manual_seed(0)
    documents = [torch.randint(1, VOCAB_SIZE, (20,), generator=numbers).tolist() for _ in range(64)]
    packed = Packed(documents, end_id=0, context_length=N_TOKENS, batch_size=N_ROWS)
    return packed.batch_at(step)


def _losses(state: TrainState, loss: Any) -> list[float]:
    return [metrics.loss for metrics in train(state, loss, batch_at, LoopConfig(n_steps=N_STEPS))]


def _vector(state: TrainState) -> Tensor:
    return nn.utils.parameters_to_vector(state.model.parameters()).detach()


def difference(one: Tensor, other: Tensor) -> float:
    """The largest, in the largest number of the second.

    Example:
        >>> difference(torch.tensor([3.0, 4.0]), torch.tensor([2.0, 4.0]))
        0.25
    """
    return ((one - other).abs().max() / other.abs().max()).item()


# --- along the matrices --------------------------------------------------------------------------
def tensor_parallel(sequence: bool = False) -> dict[str, Any]:
    """Three steps with every matrix cut, and the collectives of one block, by torch's own count.

    Args:
        sequence: whether the stream between the parts is cut too, by tokens.

    Returns:
        `float64`, `float32`: how far the weights end from those of one process, in the largest of
        its weights. `forward`, `backward`: how many collectives of each kind a block calls.
        `held`, `whole`: parameters of a block, on this rank and in all. `sent`: bytes that this
        rank sends in a block's forward pass, by our rings. `stream`: tokens of a row that a block
        reads on this rank.
    """
    result: dict[str, Any] = {}
    for dtype in (torch.float64, torch.float32):
        alone, plain = begin(dtype), begin(dtype)
        _losses(alone, language_loss)
        cut = tensor.shard(begin(dtype), TorchCollectives(), sequence=sequence)
        _losses(cut, tensor.loss)
        tensor.fill(plain, cut)
        result[str(dtype).removeprefix("torch.")] = difference(_vector(plain), _vector(alone))
    return result | _one_block(sequence)


def _one_block(sequence: bool) -> dict[str, Any]:
    from torch.distributed.tensor.debug import CommDebugMode

    ring, whole = RingCollectives(), begin().model
    of_torch, of_ring = (
        tensor.shard(begin(), collectives, sequence=sequence).model
        for collectives in (TorchCollectives(), ring)
    )
    n_tokens = N_TOKENS // ring.n_ranks if sequence else N_TOKENS
    x = torch.zeros(N_ROWS, n_tokens, 64, requires_grad=True)
    context = Context(positions=torch.arange(N_TOKENS))
    with CommDebugMode() as forward:
        y, _ = of_torch.blocks[0](x, context)
    with CommDebugMode() as backward:
        y.sum().backward()
    of_ring.blocks[0](x, context)
    held, in_all = (
        sum(p.numel() for p in model.blocks[0].parameters()) for model in (of_torch, whole)
    )
    return {
        "forward": _counts(forward),
        "backward": _counts(backward),
        "held": held,
        "whole": in_all,
        "sent": ring.traffic.n_bytes,
        "stream": n_tokens,
    }


def _counts(comm: Any) -> dict[str, int]:
    counts = comm.get_comm_counts().items()
    return {str(op).split(".")[-1].strip("_"): n for op, n in counts}


# --- along the depth -----------------------------------------------------------------------------
def pipelined(n_micro: int) -> dict[str, dict[str, Any]]:
    """Three steps through as many stages as there are ranks, under both schedules, in float64.

    Args:
        n_micro: micro-batches of a batch.

    Returns:
        For "alone", "GPipe" and "1F1B" the `losses`. For the schedules also `weights`: how far they
        end from those of one process; `most_alive`: the most micro-batches that were kept at each
        stage at once; `events`: of the last batch, [stage, kind, micro-batch, start, end].
    """
    alone = begin(torch.float64)
    result: dict[str, dict[str, Any]] = {"alone": {"losses": _losses(alone, language_loss)}}
    for name, schedule in SCHEDULES.items():
        plain, cut = begin(torch.float64), pipeline.shard(begin(torch.float64))
        losses = _losses(cut, Pipelined(n_micro, schedule))
        stage = cut.model
        events = [[e.stage, *e.action, e.start, e.end] for e in stage.events]
        pipeline.fill(plain, cut)
        result[name] = {
            "losses": losses,
            "weights": difference(_vector(plain), _vector(alone)),
            "most_alive": _of_all(stage.most_alive),
            "events": [event for of_stage in _of_all(events) for event in of_stage],
        }
    return result


def _of_all(value: Any) -> list[Any]:
    """Each rank's value, on all ranks."""
    values = [None] * distributed.get_world_size()
    distributed.all_gather_object(values, value)
    return values


# --- along the tokens, and along the experts -----------------------------------------------------
def ring(n_tokens: int = 256) -> dict[str, float]:
    """Attention over a text of which each rank has a part, against the whole text on one.

    Returns:
        `values`, `gradients`: the largest differences. `sent`: bytes that this rank sent forward,
        and `all_keys`: bytes of all keys and values.
    """
    rank, n_ranks, traffic = distributed.get_rank(), distributed.get_world_size(), Traffic()
    torch.manual_seed(0)
    text = [torch.randn(1, 2, n_tokens, 16) for _ in range(3)]
    towards = torch.randn(1, 2, n_tokens, 16)

    def own(x: Tensor) -> Tensor:
        return x.chunk(n_ranks, dim=2)[rank]

    whole = [x.clone().requires_grad_() for x in text]
    values = nn.functional.scaled_dot_product_attention(*whole, is_causal=True)
    (values * towards).sum().backward()
    mine = [own(x).clone().requires_grad_() for x in text]
    of_ring = ring_attention(*mine, traffic=traffic)
    sent = traffic.n_bytes
    (of_ring * own(towards)).sum().backward()
    pairs = zip(mine, whole, strict=True)
    return {
        "values": difference(of_ring, own(values)),
        "gradients": max(difference(x.grad, own(y.grad)) for x, y in pairs),
        "sent": sent,
        "all_keys": text[1].nbytes + text[2].nbytes,
    }


def experts() -> dict[str, Any]:
    """A layer of eight experts dealt out, two a token, against the single layer, in float64.

    Returns:
        `output`, `gradients`: the largest differences, of this rank's tokens and of its experts.
        `held`, `whole`: parameters of experts on this rank, and in all. `pairs`: of a token of this
        rank and an expert; `away`: those whose expert is on another rank. `sent`: bytes that this
        rank sent forward.
    """
    rank, n_ranks = distributed.get_rank(), distributed.get_world_size()
    config = MoEConfig(n_experts=8, top_k=2, d_expert=32)
    torch.manual_seed(0)
    single, x = config.build(16, dtype=torch.float64), torch.randn(4, 32, 16, dtype=torch.float64)
    torch.manual_seed(0)
    ranks = AllToAll()
    dealt = ExpertParallel(config.build(16, dtype=torch.float64), ranks)
    expected, _ = single(x)
    expected.square().sum().backward()
    y, routing = dealt(share(x, rank, n_ranks))
    sent = ranks.traffic.n_bytes
    y.square().sum().backward()
    mine, by_expert = own_experts(8, rank, n_ranks), routing.tokens_per_expert.tolist()
    named = dict(single.named_parameters())
    return {
        "output": difference(y, share(expected, rank, n_ranks)),
        "gradients": max(
            difference(parameter.grad, named[name].grad)
            for name, parameter in dealt.named_parameters()
            if name.startswith("experts")
        ),
        "held": sum(p.numel() for p in dealt.experts.parameters()),
        "whole": sum(p.numel() for p in single.experts.parameters()),
        "pairs": sum(by_expert),
        "away": sum(by_expert) - sum(by_expert[e] for e in mine),
        "sent": sent,
    }
