"""What the ranks of chapter 15 run: the same three steps in every way, with bytes counted.

Everything is compared with one process that has the whole batch, on the same rank. The model is a
small transformer; the rows are random tokens, since what is learned does not matter here.

Chapter: 15
"""

import time
from collections.abc import Callable
from typing import Any

import torch
from jaxtyping import Int
from torch import Tensor, distributed, nn

from minillm.model.config import TransformerConfig
from minillm.model.transformer import loss
from minillm.optim.groups import groups, matrices_and_others
from minillm.parallel import fsdp, zero
from minillm.parallel.collectives import RingCollectives
from minillm.parallel.data import DataParallel, share
from minillm.train.loop import LoopConfig, TrainState, train

N_STEPS, N_ROWS, N_TOKENS, VOCAB_SIZE = 3, 8, 32, 256


def begin(dtype: torch.dtype = torch.float32) -> TrainState:
    """The model with its first weights, and AdamW; the same on every rank."""
    config = TransformerConfig(
        vocab_size=VOCAB_SIZE, d_model=64, n_layers=4, context_length=N_TOKENS, tied_embeddings=True
    )
    model = config.build(seed=0, dtype=dtype)
    matrices, others = matrices_and_others(model)
    parts = groups(model, (matrices, {"weight_decay": 0.1}), (others, {"weight_decay": 0.0}))
    return TrainState(model, torch.optim.AdamW(parts, lr=1e-3))


def batch_at(step: int) -> Int[Tensor, "B T"]:
    """The rows of a step: all of them, before they are shared out."""
    generator = torch.Generator().manual_seed(step)
    return torch.randint(0, VOCAB_SIZE, (N_ROWS, N_TOKENS), generator=generator)


def steps(state: TrainState, *, alone: bool = False, accumulation_steps: int = 1) -> list[float]:
    """Three steps; the losses. A rank looks at its share of the rows, one alone at all of them."""
    rank, n_ranks = distributed.get_rank(), distributed.get_world_size()
    own = batch_at if alone else lambda step: share(batch_at(step), rank, n_ranks)
    config = LoopConfig(n_steps=N_STEPS, accumulation_steps=accumulation_steps)
    return [metrics.loss for metrics in train(state, loss, own, config)]


def ring_sum(n_numbers: int) -> dict[str, Any]:
    """Our ring's all-reduce of a vector that differs from rank to rank: 1, 2, 3, … times 10ʳᵃⁿᵏ.

    Returns:
        `sum`: what this rank ends with; `bytes_sent` and `n_messages`.
    """
    collectives = RingCollectives()
    own = torch.arange(1.0, n_numbers + 1) * 10**collectives.rank
    total = collectives.all_reduce(own)
    traffic = collectives.traffic
    return {
        "sum": total.tolist(),
        "bytes_sent": traffic.n_bytes,
        "n_messages": traffic.n_messages,
    }


def equality() -> dict[str, dict[str, float]]:
    """How far each way's weights end from those of one process, in the largest of its weights.

    Returns:
        For "dp", "zero 0" … "zero 3" and "fsdp" the difference, in "float64" and in "float32". In
        "bfloat16", with master copies, the stages of ZeRO against stage 0.
    """
    differences: dict[str, dict[str, float]] = {}
    for dtype in (torch.float64, torch.float32):
        alone = begin(dtype)
        steps(alone, alone=True)
        reference = nn.utils.parameters_to_vector(alone.model.parameters())
        for name, weights in _trained(_ways(), dtype):
            of_way = differences.setdefault(name, {})
            of_way[str(dtype).removeprefix("torch.")] = _difference(weights, reference)
    stages = dict(_trained(_ways()[1:5], torch.bfloat16))
    for name, weights in stages.items():
        differences[name]["bfloat16"] = _difference(weights, stages["zero 0"])
    return differences


def _trained(ways: list, dtype: torch.dtype) -> list[tuple[str, Tensor]]:
    """The weights that each way ends with, in float32 at least."""
    results = []
    for name, cut, fill in ways:
        state, plain = cut(begin(dtype)), begin(torch.promote_types(dtype, torch.float32))
        steps(state)
        whole = fill(plain, state).model
        results.append((name, nn.utils.parameters_to_vector(whole.parameters()).detach()))
    return results


def _difference(weights: Tensor, reference: Tensor) -> float:
    return ((weights - reference).abs().max() / reference.abs().max()).item()


def _ways() -> list[tuple[str, Callable[..., Any], Callable[..., Any]]]:
    def data_parallel(state: TrainState) -> TrainState:
        state.reduction = DataParallel(RingCollectives())
        return state

    def filled(fill: Callable[..., None]) -> Callable[..., TrainState]:
        return lambda plain, state: fill(plain, state) or plain

    ways = [("dp", data_parallel, lambda plain, state: state)]
    for stage in range(4):
        cut = lambda state, stage=stage: zero.shard(state, RingCollectives(), stage)  # noqa: E731
        ways.append((f"zero {stage}", cut, filled(zero.fill)))
    return [*ways, ("fsdp", fsdp.shard, filled(fsdp.fill))]


def bytes_of_stages(accumulation_steps: int = 1) -> list[dict[str, Any]]:
    """What a rank holds and sends in each stage, in mixed precision (bfloat16 and float32).

    Returns:
        For each stage `n_parameters`; `weights`, `gradients`, `optimizer`: bytes held when the
        backward pass of the last step is over; `most_weights`: the most at any moment of the step;
        `sent`: bytes that this rank sent in one step.
    """
    return [_bytes_of(stage, accumulation_steps) for stage in range(4)]


def _bytes_of(stage: int, accumulation_steps: int) -> dict[str, Any]:
    collectives = RingCollectives()
    state = zero.shard(begin(torch.bfloat16), collectives, stage)
    seen, n_parameters = {}, sum(p.shape.numel() for p in state.model.parameters())
    most = 0

    def note_most(*_: Any) -> None:  # a block is about to be computed, its weights are there
        nonlocal most
        most = max(most, zero.held_bytes(state)["weights"])

    for block in state.model.blocks:
        block.register_forward_pre_hook(note_most)
        block.register_full_backward_pre_hook(note_most)
    summed = state.reduction.gradients

    def note_held(model: nn.Module) -> list[Tensor]:  # the backward pass is over
        seen.update(zero.held_bytes(state))
        return summed(model)

    state.reduction.gradients = note_held
    steps(state, accumulation_steps=accumulation_steps)
    return {
        "n_parameters": n_parameters,
        **seen,
        "most_weights": most,
        "sent": collectives.traffic.n_bytes / N_STEPS,
    }


def ring_times(sizes: list[int], repeats: int = 60) -> list[list[float]]:
    """Seconds of our ring's all-reduce for vectors of so many float32 numbers: the least.

    Returns:
        [bytes, seconds] for each size.
    """
    collectives, results = RingCollectives(), []
    for size in sizes:
        x, seconds = torch.ones(size), []
        for _ in range(repeats):
            distributed.barrier()
            began = time.perf_counter()
            collectives.all_reduce(x)
            seconds.append(time.perf_counter() - began)
        results.append([4.0 * size, min(seconds)])
    return results


def fit_ring(times: list[list[float]], n_ranks: int) -> tuple[float, float]:
    """Latency α in seconds and bandwidth β in bytes a second that fit measured rings best.

    Least squares of the relative error, so that small messages count as much as large ones.

    Example:
        >>> from minillm.parallel.collectives import ring_seconds
        >>> exact = [[b, ring_seconds(b, 2, latency=1e-4, bandwidth=1e9)] for b in (1e3, 1e5, 1e7)]
        >>> latency, bandwidth = fit_ring(exact, 2)
        >>> round(latency, 6), round(bandwidth / 1e9, 3)
        (0.0001, 1.0)
    """
    n_bytes, seconds = torch.tensor(times, dtype=torch.float64).T
    n_messages = 2 * (n_ranks - 1)
    # seconds = n_messages · α + n_messages · bytes / N · (1 / β), each line divided by its seconds
    lines = torch.stack([torch.full_like(n_bytes, n_messages), n_messages * n_bytes / n_ranks], 1)
    solution = torch.linalg.lstsq(lines / seconds[:, None], torch.ones_like(seconds)[:, None])
    latency, inverse = solution.solution.flatten().tolist()
    return latency, 1 / inverse
