"""`minillm bench parallel`: a step of each plan, beside torch's own engines doing the same.

    ours      dp · zero=1 · zero=2 · zero=3 · tp · pp
    torch's   DDP · FSDP2 · DTensor (tensor parallelism of the blocks)

All train one model with AdamW on the same rows: the batch is the same for any number of ranks, so
each rank has less to do. One thread a rank, float32, gloo. What is told is the least time of a step
after two steps to warm up, of the slowest rank; and the bytes of weights and optimizer state that
rank 0 holds between steps. Ways take turns in separate launches, so that none is favoured by a
moment when the machine does something else.

A pair is compared where both do the same: dp with DDP, zero=3 with FSDP2, tp with DTensor.

Chapter: app
"""

import time
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, distributed, nn

from minillm.data.packing import Batch, Packed
from minillm.model.config import TransformerConfig
from minillm.optim.groups import groups, matrices_and_others
from minillm.optim.step import Total, take_step
from minillm.parallel import fsdp, mesh, pipeline, tensor, zero
from minillm.parallel.cluster import run as in_ranks
from minillm.parallel.collectives import TorchCollectives
from minillm.parallel.data import DataParallel, share
from minillm.parallel.micro_batches import Pipelined
from minillm.train.loop import LoopConfig, TrainState, train
from minillm.train.losses import language_loss

#: d_model, blocks, context_length, rows of a batch.
SIZES = {"small": (64, 4, 64, 16), "large": (192, 4, 128, 16)}
QUICK_SIZES = {"tiny": (16, 4, 16, 4)}
OURS = ("dp", "zero=1", "zero=2", "zero=3", "tp", "pp")
PAIRS = {"dp": "DDP", "zero=3": "FSDP2", "tp": "DTensor"}
TARGET = 1.3  # our time ÷ torch's on 2 ranks, at most


def run(quick: bool = False) -> dict[str, Any]:
    """Run the benchmark, print its table, and return every figure.

    Args:
        quick: a tiny model and two steps, to see that it works; its figures mean nothing.

    Returns:
        For each size, number of ranks and way, such as `small_2_zero=3`: `milliseconds` and
        `megabytes`; and for each pair on 2 ranks `small_dp_by_DDP`, our time ÷ torch's.
    """
    sizes, counts = (QUICK_SIZES, (1, 2)) if quick else (SIZES, (1, 2, 4))
    figures: dict[str, Any] = {}
    for name, size in sizes.items():
        print(f"{name}: d_model {size[0]}, {size[1]} blocks, {size[3]} rows of {size[2]} tokens")
        print("  way        ranks   ms a step   MB a rank")
        for n_ranks in counts:
            ways = ("alone",) if n_ranks == 1 else (*OURS, *PAIRS.values())
            for way in ways:
                steps = 4 if quick else 25
                ranks = in_ranks(timed, n_ranks, way=way, size=list(size), n_steps=steps)
                slowest = max(result["milliseconds"] for result in ranks)
                key = f"{name}_{n_ranks}_{way}"
                figures[key] = {"milliseconds": slowest, "megabytes": ranks[0]["megabytes"]}
                print(f"  {way:9s}{n_ranks:7d}{slowest:12.1f}{ranks[0]['megabytes']:12.2f}")
        for ours, theirs in PAIRS.items():
            ratio = (
                figures[f"{name}_2_{ours}"]["milliseconds"]
                / figures[f"{name}_2_{theirs}"]["milliseconds"]
            )
            figures[f"{name}_{ours}_by_{theirs}"] = ratio
            verdict = "met" if ratio <= TARGET else "missed"
            print(f"  {ours} ÷ {theirs} on 2 ranks: {ratio:.2f} (at most {TARGET}: {verdict})")
        alone = figures[f"{name}_1_alone"]["milliseconds"]
        fastest = min(
            value["milliseconds"] for key, value in figures.items() if key.startswith(f"{name}_2_")
        )
        print(f"  the fastest on 2 ranks takes {fastest / alone:.2f} of the time of one process")
    return figures


# --- of a rank -----------------------------------------------------------------------------------
def timed(way: str, size: list[int], n_steps: int) -> dict[str, float]:
    """Milliseconds of a step and megabytes held, of this rank."""
    d_model, n_layers, context_length, batch_size = size
    state = _begin(d_model, n_layers, context_length)
    documents = torch.randint(1, 256, (64, context_length)).tolist()
    rows = Packed(documents, end_id=0, context_length=context_length, batch_size=batch_size, seed=0)
    step = (_ours if way in (*OURS, "alone") else _theirs)(way, state, rows)
    times = []
    for number in range(n_steps):
        distributed.barrier()
        began = time.perf_counter()
        step(number)
        times.append(1000 * (time.perf_counter() - began))
    return {"milliseconds": min(times[2:]), "megabytes": step.megabytes()}


class Step:
    """One step, and what the rank holds after it."""

    def __init__(self, take: Callable[[int], None], tensors: Callable[[], list[Tensor]]):
        self.take, self.tensors = take, tensors

    def __call__(self, number: int) -> None:
        """Take the step of this number."""
        self.take(number)

    def megabytes(self) -> float:
        """Of weights and optimizer state; what shares memory counts once."""
        local = [t.to_local() if hasattr(t, "to_local") else t for t in self.tensors()]
        storages = {each.untyped_storage()._cdata: each.untyped_storage() for each in local}
        return sum(each.nbytes() for each in storages.values()) / 1e6


def _begin(d_model: int, n_layers: int, context_length: int) -> TrainState:
    torch.manual_seed(0)
    config = TransformerConfig(
        vocab_size=256,
        d_model=d_model,
        n_layers=n_layers,
        context_length=context_length,
        tied_embeddings=False,
    )
    model = config.build(seed=0)
    matrices, others = matrices_and_others(model)
    parts = groups(model, (matrices, {"weight_decay": 0.1}), (others, {"weight_decay": 0.0}))
    return TrainState(model, torch.optim.AdamW(parts, lr=1e-3))


def _held(state: TrainState) -> list[Tensor]:
    memory = [x for kept in state.optimizer.state.values() for x in kept.values()]
    tensors = [x for x in memory if isinstance(x, Tensor) and x.ndim]
    parts = [p for group in state.optimizer.param_groups for p in group["params"]]
    return [*state.model.parameters(), *parts, *tensors]


def _ours(way: str, state: TrainState, rows: Packed) -> Step:
    """The course's strategies, by the course's training loop."""
    collectives, loss, own = TorchCollectives(), language_loss, rows.batch_at
    rank, n_ranks = collectives.rank, collectives.n_ranks
    if way in ("dp", "zero=1", "zero=2", "zero=3"):
        own = lambda number: share(rows.batch_at(number), rank, n_ranks)  # noqa: E731
    if way == "dp":
        state.reduction = DataParallel(collectives)
    elif way.startswith("zero"):
        state = zero.shard(state, collectives, mesh.parse(way, n_ranks).stage)
    elif way == "tp":
        state, loss = tensor.shard(state, collectives), tensor.loss
    elif way == "pp":
        state, loss = pipeline.shard(state), Pipelined(4)
    steps = train(state, loss, own, LoopConfig(n_steps=10**9))
    return Step(lambda number: next(steps) and None, lambda: _held(state))


def _theirs(way: str, state: TrainState, rows: Packed) -> Step:
    """torch's engines, with the same loss, clipping and optimizer."""
    rank, n_ranks = distributed.get_rank(), distributed.get_world_size()
    own = lambda number: share(rows.batch_at(number), rank, n_ranks)  # noqa: E731
    if way == "DTensor":
        model, own = _tensor_parallel(state.model, n_ranks), rows.batch_at
    elif way == "FSDP2":
        state = fsdp.shard(state)
        model = state.model
    else:
        model = nn.parallel.DistributedDataParallel(_Loss(state.model))
    optimizer = state.optimizer
    if way == "DTensor":  # over the DTensors that the parameters have become
        optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3, weight_decay=0.1)
        state = TrainState(model, optimizer)

    def loss(batch: Batch) -> Total:
        if way == "DDP":
            return Total(model(batch.tokens, batch.targets), batch.targets.numel())
        return language_loss(model, batch)

    def take(number: int) -> None:
        totals = (loss(batch) for batch in [own(number)])
        take_step(state.model, optimizer, totals, clip_norm=1.0, reduction=_Reduced())

    return Step(take, lambda: _held(state))


class _Reduced:
    """Gradients that torch's engine has reduced, where some are DTensors and some are not."""

    def gradients(self, model: nn.Module) -> list[Tensor]:
        """All, as they are."""
        return [p.grad for p in model.parameters() if p.grad is not None]

    def total(self, values: Tensor) -> Tensor:
        """This rank's own: the same everywhere but for the printed loss, which nobody reads."""
        return values

    def norm(self, gradients: list[Tensor]) -> float:
        """Of whole gradients and of DTensors together."""
        norms = [gradient.norm() for gradient in gradients]
        norms = [norm.full_tensor() if hasattr(norm, "full_tensor") else norm for norm in norms]
        return torch.stack(norms).norm().item()

    def clear(self) -> None:
        """Nothing is left over."""


class _Loss(nn.Module):
    """A forward pass that ends with the loss, since DDP watches `forward` alone."""

    def __init__(self, model: nn.Module):
        super().__init__()
        self.model = model

    def forward(self, tokens: Tensor, targets: Tensor) -> Tensor:
        logits = self.model(tokens)
        return nn.functional.cross_entropy(logits.flatten(0, 1), targets.flatten(), reduction="sum")


def _tensor_parallel(model: nn.Module, n_ranks: int) -> nn.Module:
    """DTensor's column and row cuts of the blocks' matrices; the vocabulary stays whole."""
    from torch.distributed.device_mesh import init_device_mesh
    from torch.distributed.tensor.parallel import (
        ColwiseParallel,
        RowwiseParallel,
        parallelize_module,
    )

    for block in model.blocks:
        cuts = {
            "mixer.qkv": ColwiseParallel(),
            "mixer.output": RowwiseParallel(),
            "ffn.gate_up": ColwiseParallel(),
            "ffn.down": RowwiseParallel(),
        }
        parallelize_module(block, init_device_mesh("cpu", (n_ranks,)), cuts)
        block.mixer.n_heads //= n_ranks
        block.mixer.n_kv_heads //= n_ranks
    return model
