"""What ranks do in `test_micro_batches`."""

import weakref

import torch
from torch import distributed
from torch.distributed.pipelining import PipelineStage, Schedule1F1B

from minillm.data.packing import Batch
from minillm.model.attention import Context
from minillm.parallel.micro_batches import Passes, Pipelined
from minillm.parallel.pipeline import Stage, shard
from minillm.parallel.schedule import Timeline, gpipe
from minillm.train.losses import cross_entropy
from tests.parallel.rank_functions_pipeline import batch_at, state


def backward_first(*numbers: int) -> list:
    """An order in which nobody can begin."""
    return gpipe(*numbers)[::-1]


def two_ranks() -> dict:
    """All of a test's facts, in one launch."""
    stage = shard(state()).model
    facts = {
        "rows": refusal(lambda: Pipelined(3)(stage, batch_at(0))),
        "deadlock": refusal(lambda: Pipelined(2, backward_first)(stage, batch_at(0))),
        "multiplied": refusal(lambda: (0.5 * Pipelined(2)(stage, batch_at(0)).nats).backward()),
        "activations": activations(stage),
        "torch": against_torch(),
    }
    with torch.no_grad():  # 3 does not divide 8 rows, but nothing has to be alike there
        facts["held out"] = Pipelined(3)(stage, batch_at(0)).nats.item()
        facts["forward only"] = [str(event.action) for event in stage.events]
    facts["again"] = Pipelined(4)(stage, batch_at(0)).nats.item()
    facts["order"] = [str(event.action) for event in stage.events]
    facts["live"], facts["alive"] = Timeline(stage.events).live[-1], stage.most_alive
    return facts


def refusal(attempt) -> str | None:
    try:
        attempt()
    except ValueError as error:
        return str(error)


def activations(stage: Stage) -> list[int]:
    """After each action of a batch: of how many micro-batches activations still exist."""
    produced, counts = [], []
    ffn = list(stage.blocks.values())[-1].ffn
    watch = ffn.down.register_forward_hook(lambda _, x, y: produced.append(weakref.ref(x[0])))
    do = Passes.do

    def counting(self, action, arrived):
        result = do(self, action, arrived)
        counts.append(sum(each() is not None for each in produced))
        return result

    Passes.do = counting
    Pipelined(4)(stage, batch_at(0))
    Passes.do = do
    watch.remove()
    return counts


class AsTorchWants(torch.nn.Module):
    """A stage that takes one tensor."""

    def __init__(self, stage: Stage):
        super().__init__()
        self.stage = stage

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        context = Context(positions=torch.arange(x.shape[1]))
        return self.stage(x, context, None if self.stage.is_first else x)


def against_torch() -> list[float]:
    """Of torch's own 1F1B over the same stages: the differences of the loss and of gradients."""
    rows = batch_at(0)
    batch = Batch(rows.tokens, rows.targets, torch.zeros_like(rows.tokens))
    ours, theirs = shard(state()).model, shard(state()).model

    def loss(hidden, targets):
        return cross_entropy(hidden.flatten(0, 1), theirs.head.weight, targets.flatten()).nats

    total, losses = Pipelined(4)(ours, batch).nats.detach(), []
    piece = PipelineStage(AsTorchWants(theirs), ours.number, 2, torch.device("cpu"))
    schedule = Schedule1F1B(piece, 4, loss_fn=loss, scale_grads=False)
    if ours.is_first:
        schedule.step(batch.tokens)
    else:
        schedule.step(target=batch.targets, losses=losses)
    theirs_total = torch.stack(losses).sum().detach() if losses else torch.zeros_like(total)
    distributed.broadcast(theirs_total, src=1)
    pairs = zip(ours.parameters(), theirs.parameters(), strict=True)
    gradients = [((a.grad - b.grad).abs().max() / b.grad.abs().max()).item() for a, b in pairs]
    return [abs(1 - (total / theirs_total).item()), max(gradients)]
