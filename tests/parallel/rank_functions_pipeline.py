"""What ranks do in `test_pipeline`."""

from dataclasses import replace

import torch
from torch import distributed

from minillm.data.packing import Batch, Packed
from minillm.model.attention import AttentionConfig
from minillm.model.config import TransformerConfig
from minillm.optim.adamw import AdamW
from minillm.parallel.collectives import TorchCollectives
from minillm.parallel.data import share
from minillm.parallel.mesh import Mesh
from minillm.parallel.micro_batches import Pipelined
from minillm.parallel.pipeline import fill, shard
from minillm.parallel.schedule import gpipe, one_forward_one_backward
from minillm.train.loop import LoopConfig, TrainState, train
from minillm.train.losses import language_loss

CONFIG = TransformerConfig(
    vocab_size=12,
    context_length=8,
    d_model=16,
    n_layers=3,
    mixer=AttentionConfig(n_heads=2),
    initial_std=0.3,
)


def state(config: TransformerConfig = CONFIG, kind: type = AdamW) -> TrainState:
    """The same on all ranks, in float64; the tables have a group of their own."""
    model = config.build(seed=1, dtype=torch.float64)
    tables = {id(model.embedding.weight)} | ({id(model.head.weight)} if model.head else set())
    rest = [each for each in model.parameters() if id(each) not in tables]
    groups = [
        {"params": [each for each in model.parameters() if id(each) in tables], "lr": 0.02},
        {"params": rest},  # at a middle stage the other group is empty
    ]
    return TrainState(model, kind(groups, lr=0.01, weight_decay=0.1))


def batch_at(step: int) -> Batch:
    """Eight rows of several documents each."""
    numbers = torch.Generator().manual_seed(0)
    documents = [torch.randint(1, 12, (5,), generator=numbers).tolist() for _ in range(60)]
    return Packed(documents, end_id=0, context_length=8, batch_size=8).batch_at(step)


def steps(of: TrainState, loss, batches, n_steps: int) -> list[list[float]]:
    """Loss and gradient norm of each step, which looks at two batches."""
    loop = LoopConfig(n_steps=n_steps, clip_norm=0.2, accumulation_steps=2)
    return [[each.loss, each.gradient_norm] for each in train(of, loss, batches, loop)]


def difference(ours: list[torch.Tensor], theirs: list[torch.Tensor]) -> float:
    """The largest of all, relative to the largest number of each tensor."""
    pairs = zip(ours, theirs, strict=True)
    return max(((a - b).abs().max() / b.abs().max()).item() for a, b in pairs)


def columns(table: list[list[float]]) -> list[torch.Tensor]:
    return [*torch.tensor(table, dtype=torch.float64).T]


def remembered(of: TrainState) -> list[torch.Tensor]:
    """Weights, and what the optimizer keeps of each."""
    memory = [of.optimizer.state[each] for each in of.model.parameters()]
    kept = [torch.as_tensor(value) for each in memory for value in each.values()]
    return [each.detach() for each in of.model.parameters()] + [each.double() for each in kept]


def twin(
    schedule, n_micro: int, mesh: Mesh, config: TransformerConfig = CONFIG, kind: type = AdamW
) -> dict:
    """A step alone and three steps in stages, against four alone; then all goes on alone."""
    groups, place = mesh.groups(), mesh.place(distributed.get_rank())
    plain, whole, first = state(config, kind), state(config, kind), state(config, kind)
    of_plain = steps(plain, language_loss, batch_at, 4)
    of_whole = steps(first, language_loss, batch_at, 1)
    data = TorchCollectives(groups["dp"]) if mesh.dp > 1 else None
    ours = shard(first, groups["pp"], data)
    loss = Pipelined(n_micro, schedule)
    of_whole += steps(ours, loss, lambda n: share(batch_at(n), place["dp"], mesh.dp), 4)
    held_out = share(batch_at(9), place["dp"], mesh.dp)
    with torch.no_grad():
        through = loss(ours.model, held_out)
        alone = language_loss(plain.model, held_out)
    fill(whole, ours)
    filled = difference(remembered(whole), remembered(plain))
    steps(plain, language_loss, batch_at, 5)
    steps(whole, language_loss, batch_at, 5)
    return {
        "steps": difference(columns(of_whole), columns(of_plain)),
        "filled": filled,
        "gone on": difference(remembered(whole), remembered(plain)),
        "held out": abs(1 - (through.nats / alone.nats).item()),
        "held-out tokens": [int(through.n_tokens), int(alone.n_tokens)],
        "alive": ours.model.most_alive,
        "parts": sorted({name.partition(".")[0] for name, _ in ours.model.named_parameters()}),
        "blocks": sorted(map(int, ours.model.blocks)),
    }


def two_ranks() -> dict:
    """Two stages, by schedule, table and optimizer."""
    mesh, tied = Mesh(pp=2), replace(CONFIG, tied_embeddings=True)
    return {
        "gpipe": twin(gpipe, 4, mesh),
        "1f1b": twin(one_forward_one_backward, 4, mesh),
        "tied": twin(one_forward_one_backward, 8, mesh, tied),
        "torch's AdamW": twin(one_forward_one_backward, 2, mesh, tied, torch.optim.AdamW),
    }


def four_ranks() -> dict:
    """Four stages, and two pipelines of two stages side by side."""
    deep = replace(CONFIG, n_layers=4, tied_embeddings=True)
    return {
        "gpipe": twin(gpipe, 8, Mesh(pp=4), deep),
        "1f1b": twin(one_forward_one_backward, 8, Mesh(pp=4), deep),
        "pp=2,dp=2": twin(one_forward_one_backward, 4, Mesh(pp=2, dp=2), deep),
    }
