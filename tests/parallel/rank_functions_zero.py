"""What ranks do in `test_zero` and `test_fsdp`: train in every way, and compare with one alone."""

import math
from collections.abc import Callable
from dataclasses import replace
from functools import partial

import torch
from torch import Tensor, distributed, nn

from minillm.data.packing import Batch, Packed
from minillm.model.attention import AttentionConfig
from minillm.model.config import TransformerConfig
from minillm.optim.adamw import AdamW
from minillm.optim.groups import groups, matrices_and_others
from minillm.optim.lion import Lion
from minillm.optim.schedule import Cosine
from minillm.optim.step import Total
from minillm.parallel import fsdp, zero
from minillm.parallel.collectives import RingCollectives, TorchCollectives
from minillm.parallel.data import DataParallel, share
from minillm.train.loop import LoopConfig, TrainState, train
from minillm.train.losses import cross_entropy

CONFIG = TransformerConfig(
    vocab_size=11,
    context_length=8,
    d_model=9,  # odd, so that vectors must be filled up
    n_layers=2,
    mixer=AttentionConfig(n_heads=2, d_head=4),
    initial_std=0.3,
    tied_embeddings=True,
)
OPTIMIZERS = {
    "torch's AdamW": partial(torch.optim.AdamW, lr=0.01),
    "SGD": partial(torch.optim.SGD, lr=0.1, momentum=0.9),
    "AdamW": partial(AdamW, lr=0.01),
    "Lion": partial(Lion, lr=0.01),
}
N_BEFORE, N_MIDDLE, N_STEPS = 2, 4, 5
BROKEN = 6  # the batch that is NaN: the first of step 3


def batch_at(number: int) -> Batch:
    """Four rows; what counts differs from row to row."""
    generator = torch.Generator().manual_seed(0)
    documents = [
        torch.randint(1, 11, (n % 7 + 1,), generator=generator).tolist() for n in range(99)
    ]
    return Packed(documents, end_id=0, context_length=8, batch_size=4).batch_at(number)


def loss(model: nn.Module, batch: Batch, *, broken: bool = False) -> Total:
    """Of all tokens but end marks."""
    hidden = model.hidden(batch.tokens, context=batch.context()).flatten(0, 1)
    table = model.embedding.weight if model.head is None else model.head.weight
    targets = batch.targets.flatten()
    total = cross_entropy(hidden, table, targets, targets != 0)
    return Total(total.nats * math.nan, total.n_tokens) if broken else total


def steps(state: TrainState, n_steps: int, *, alone: bool = False) -> list[list]:
    """Up to a step; what each of them found (JSON has no NaN)."""
    rank, n_ranks = distributed.get_rank(), distributed.get_world_size()

    def own(number: int) -> tuple[int, Batch]:
        batch = batch_at(number)
        return number, batch if alone else share(batch, rank, n_ranks)

    def of_batch(model: nn.Module, numbered: tuple[int, Batch]) -> Total:
        number, batch = numbered
        return loss(model, batch, broken=number == BROKEN and (alone or rank == 1))

    schedule = Cosine(n_steps=N_STEPS, warmup_steps=3)
    loop = LoopConfig(n_steps=n_steps, accumulation_steps=2, clip_norm=0.1, schedule=schedule)
    return [
        [each.n_tokens, each.learning_rate, each.skipped]
        + ([] if each.skipped else [each.loss, each.gradient_norm])
        for each in train(state, of_batch, own, loop)
    ]


def begin(optimizer: str) -> TrainState:
    """A state that has been trained by one process, the same on all ranks; Lion's has a head."""
    config = replace(CONFIG, tied_embeddings=optimizer != "Lion")
    model = config.build(seed=0, dtype=torch.float64)
    matrices, others = matrices_and_others(model)
    parts = groups(model, (matrices, {"weight_decay": 0.1}), (others, {"weight_decay": 0.0}))
    state = TrainState(model, OPTIMIZERS[optimizer](parts))
    steps(state, N_BEFORE, alone=True)
    return state


def difference(one: TrainState, other: TrainState) -> float:
    """Of all weights and all that is remembered, relative to the largest."""
    assert one.step == other.step
    largest = 0.0
    for a, b in zip(one.model.parameters(), other.model.parameters(), strict=True):
        pairs = [(a.detach(), b.detach())]
        kept, expected = one.optimizer.state[a], other.optimizer.state[b]
        assert kept.keys() == expected.keys()
        for key, value in expected.items():
            if isinstance(value, Tensor) and value.ndim:
                pairs.append((kept[key], value))
            else:
                assert kept[key] == value
        for mine, theirs in pairs:
            assert mine.dtype == theirs.dtype
            largest = max(largest, ((mine - theirs).abs().max() / theirs.abs().max()).item())
    return largest


def followed(
    optimizer: str, cut: Callable[..., TrainState], fill: Callable[..., TrainState]
) -> dict:
    """Cut, train, put together, and from there on in three ways: as it is, cut anew, and alone."""
    alone, state = begin(optimizer), cut(begin(optimizer))
    expected = steps(alone, N_MIDDLE, alone=True)
    metrics = steps(state, N_MIDDLE)
    plain = fill(begin(optimizer), state)
    result = {"middle": difference(plain, alone)}
    expected += steps(alone, N_STEPS, alone=True)
    if plain is not state:
        whole = fill(begin(optimizer), state)
        steps(whole, N_STEPS, alone=True)
        result["alone"] = difference(whole, alone)
        again = cut(plain)
        steps(again, N_STEPS)
        result["cut anew"] = difference(fill(begin(optimizer), again), alone)
    metrics += steps(state, N_STEPS)
    result["end"] = difference(fill(begin(optimizer), state), alone)
    result["steps"], result["expected"] = metrics, expected
    return result


def _data_parallel(state: TrainState) -> TrainState:
    state.reduction = DataParallel(RingCollectives())
    return state


def zeros() -> dict:
    """Plain data parallelism, the stages of ZeRO, and other optimizers under stage 3."""

    def filled(plain: TrainState, state: TrainState) -> TrainState:
        zero.fill(plain, state)
        return plain

    def stage(n: int, kind: type = RingCollectives) -> Callable[..., TrainState]:
        return lambda state: zero.shard(state, kind(), n)

    first = "torch's AdamW"
    ways = {"dp": followed(first, _data_parallel, lambda plain, state: state)}
    for n in range(4):
        ways[f"stage {n}"] = followed(first, stage(n), filled)
    for other in list(OPTIMIZERS)[1:]:
        ways[other] = followed(other, stage(3, TorchCollectives), filled)
    counts = [int(loss(begin(first).model, share(batch_at(5), r, 2)).n_tokens) for r in range(2)]
    return {"ways": ways, "counts": counts, "alive": weights_alive()}


def weights_alive() -> dict:
    """Bytes of weights that a rank of stage 3 holds while each block is computed, and before."""
    state, seen = zero.shard(begin("SGD"), RingCollectives(), 3), []
    before = zero.held_bytes(state)["weights"]
    for block in state.model.blocks:
        block.register_forward_pre_hook(lambda *_: seen.append(zero.held_bytes(state)["weights"]))
        block.register_full_backward_pre_hook(
            lambda *_: seen.append(zero.held_bytes(state)["weights"])
        )
    steps(state, N_BEFORE + 1)
    with torch.no_grad():
        loss(state.model, batch_at(0))  # an evaluation leaves it usable
    steps(state, N_BEFORE + 2)
    sizes = [[unit.whole.numel() * 8 for unit in units] for units in state.reduction.units]
    return {"before": before, "most": max(seen), "matrices": sizes[0], "others": sizes[1]}


def fully_sharded() -> dict:
    """torch's engine, with two optimizers."""

    def filled(plain: TrainState, state: TrainState) -> TrainState:
        fsdp.fill(plain, state)
        return plain

    return {name: followed(name, fsdp.shard, filled) for name in ("torch's AdamW", "Lion")}
