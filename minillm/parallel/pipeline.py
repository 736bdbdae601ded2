"""Pipeline parallelism (流水线并行): each rank has some of the blocks, and passes the stream on.

A model's blocks are cut into p **stages**, one a rank: the first has the table of tokens too, the
last the final norm and the head. Only neighbours talk, and of a batch they send two tensors of
[B T D]: the stream on the way there, its gradient on the way back. An all-reduce in every block, as
tensor parallelism has it, sends far more. What it costs is waiting (`minillm.parallel.schedule`).

**Tied tables.** Where one table both reads and predicts tokens, first and last stage each hold it.
Its gradient is the sum of both stages': they exchange theirs every step, and take the same step. In
the norm of the gradient it counts once.

    state = shard(state, group)               this rank's stage
    loss = Pipelined(n_micro=4)               `minillm.parallel.micro_batches`, for `language_loss`
    train(state, loss, batch_at, config)      the loop of chapter 05, unchanged

A stage has its parameters whole, so each step's update is the plain one.

Paper: Huang et al. 2019, "GPipe", arXiv:1811.06965, section 2 (cells in consecutive partitions).
Exchange of tied tables: Megatron-LM's code. From memory.
Differs: stages are even in blocks, not in estimated time.

Chapter: 16
"""

from copy import deepcopy
from dataclasses import replace
from itertools import pairwise
from typing import final

import torch
from jaxtyping import Float, Int
from torch import Tensor, distributed, nn
from torch.distributed import ProcessGroup

from minillm.experts.hash_routing import HashedMoE
from minillm.experts.moe import MoE
from minillm.model.attention import Context
from minillm.model.transformer import Transformer
from minillm.optim.step import Alone, Reduction
from minillm.parallel.collectives import Collectives
from minillm.parallel.data import DataParallel
from minillm.parallel.schedule import Event
from minillm.parallel.zero import NUMBER_BY_NUMBER
from minillm.train.loop import TrainState


def stage_blocks(n_blocks: int, n_stages: int) -> list[range]:
    """Which blocks each stage has: as even as can be, the longer ones first.

    The last stage has the head to compute besides.

    Args:
        n_blocks: of the model.
        n_stages: p.

    Raises:
        ValueError: more stages than blocks, or none.

    Example:
        >>> stage_blocks(n_blocks=5, n_stages=2)
        [range(0, 3), range(3, 5)]
    """
    if not 1 <= n_stages <= n_blocks:
        raise ValueError(
            f"each stage of a pipeline needs at least one block; got {n_stages} stages (pp) for "
            f"{n_blocks} blocks. Take at most pp={n_blocks}, or a deeper model"
        )
    size, n_longer = divmod(n_blocks, n_stages)
    begins = [stage * size + min(stage, n_longer) for stage in range(n_stages + 1)]
    return [range(begin, end) for begin, end in pairwise(begins)]


# --- one stage -----------------------------------------------------------------------------------
@final
class Stage(nn.Module):
    """One rank's blocks of a transformer; parameters are called as in the whole model.

    Made by `shard`.

    Args:
        model: the whole one, whose parts are used, not copied.
        group: the stages, in order.

    Attributes:
        most_alive: the most micro-batches whose activations were kept here at once.
        events: what was done when, in the last batch.
    """

    def __init__(self, model: Transformer, group: ProcessGroup | None):
        super().__init__()
        self.group = group
        self.number = distributed.get_rank(group)
        self.n_stages = distributed.get_world_size(group)
        self.is_first, self.is_last = self.number == 0, self.number == self.n_stages - 1
        self.d_model, self.is_tied = model.embedding.embedding_dim, model.head is None
        own = stage_blocks(len(model.blocks), self.n_stages)[self.number]
        has_table = self.is_first or (self.is_last and self.is_tied)
        self.embedding = model.embedding if has_table else None
        self.blocks = nn.ModuleDict({str(n): model.blocks[n] for n in own})
        self.norm, self.head = (model.norm, model.head) if self.is_last else (None, None)
        self.most_alive, self.events = 0, list[Event]()

    def forward(
        self,
        tokens: Int[Tensor, "B T"],
        context: Context,
        stream: Float[Tensor, "B T D"] | None,
    ) -> Float[Tensor, "B T D"]:
        """The stream behind this stage.

        Args:
            tokens: which the first stage reads.
            context: with their positions.
            stream: from the stage before; None at the first.
        """
        x = self.embedding(tokens) if self.is_first else stream
        for block in self.blocks.values():
            x, _ = block(x, replace(context, tokens=tokens))
        return self.norm(x) if self.is_last else x


# --- the state of training -----------------------------------------------------------------------
@final
class PipelineParallel:
    """Gradients, sums and norm where each rank has a stage (`Reduction`).

    Args:
        stage: this rank's.
        data: the `Reduction` of the ranks that have the same stage, and other rows of each batch.
    """

    def __init__(self, stage: Stage, data: Reduction):
        self.stage, self.data = stage, data

    def gradients(self, model: nn.Module) -> list[Tensor]:
        """This stage's, summed over the data-parallel ranks; a tied table's over both stages."""
        gradients = self.data.gradients(model)
        stage = self.stage
        if stage.is_tied and stage.is_first != stage.is_last:
            own = stage.embedding.weight.grad
            other, peer = torch.empty_like(own), stage.n_stages - 1 if stage.is_first else 0
            messages = [
                distributed.P2POp(how, tensor, group=stage.group, group_peer=peer)
                for how, tensor in ((distributed.isend, own.clone()), (distributed.irecv, other))
            ]
            for work in distributed.batch_isend_irecv(messages):
                work.wait()
            own += other
        return gradients

    def total(self, values: Float[Tensor, "n"]) -> Float[Tensor, "n"]:
        """Sums over the data-parallel ranks; all stages have the last one's numbers already."""
        return self.data.total(values)

    def norm(self, gradients: list[Tensor]) -> float:
        """Of all stages together; a tied table counts at the first."""
        stage = self.stage
        if stage.is_tied and stage.is_last and not stage.is_first:
            gradients = [each for each in gradients if each is not stage.embedding.weight.grad]
        square = torch.nn.utils.get_total_norm(gradients).double().square()
        distributed.all_reduce(square, group=stage.group)
        return square.sqrt().item()

    def clear(self) -> None:
        """Nothing is left over."""


def shard(
    state: TrainState, group: ProcessGroup | None = None, data: Collectives | None = None
) -> TrainState:
    """Cut a plain state of training into this rank's stage of it.

    Args:
        state: of a `Transformer`; the same on all ranks. It must not be used afterwards.
        group: the stages, in order; None for all ranks.
        data: of the ranks that have the same stage, where there are several pipelines side by side;
            each then reads its own share of a batch.

    Returns:
        The state to train with: a `Stage`, an optimizer of its parameters with what it remembers of
        them, and the `Reduction` of its steps.

    Raises:
        ValueError: more stages than blocks; blocks with a mixture of experts; an optimizer that
            does not update number by number.
    """
    model, former = state.model, state.optimizer
    if type(former) not in NUMBER_BY_NUMBER:
        raise ValueError(
            f"{type(former).__name__} remembers of each matrix what only its own rule knows, and "
            "`fill` could not put it together; pp works with "
            f"{', '.join(sorted({each.__name__ for each in NUMBER_BY_NUMBER}))}"
        )
    routed = [n for n, block in enumerate(model.blocks) if isinstance(block.ffn, MoE | HashedMoE)]
    if routed:
        raise ValueError(
            f"pp passes on the stream alone, and not how experts were chosen; block {routed[0]} is "
            "a mixture of experts. Train it with dp, or with dense feed-forward layers"
        )
    # 1. this rank's part of the model
    stage = Stage(model, group)
    own = {id(parameter) for parameter in stage.parameters()}
    # 2. an optimizer of the same kind and options for its parameters; groups may become empty
    optimizer = type(former)(
        [
            {**group, "params": [each for each in group["params"] if id(each) in own]}
            for group in former.param_groups
        ]
    )
    for parameter in stage.parameters():
        if parameter in former.state:
            optimizer.state[parameter] = former.state[parameter]
    former.state.clear()
    reduction = PipelineParallel(stage, Alone() if data is None else DataParallel(data))
    return TrainState(stage, optimizer, state.step, reduction=reduction)


def fill(plain: TrainState, state: TrainState) -> None:
    """Put the stages' states together again; all ranks call this, and all get the whole.

    Args:
        plain: of the same model and optimizer, as before the cut; filled in place.
        state: from `shard`.
    """
    stage, own = state.model, dict(state.model.named_parameters())
    plain.step = state.step
    groups = zip(plain.optimizer.param_groups, state.optimizer.param_groups, strict=True)
    for plain_group, group in groups:
        plain_group |= {key: value for key, value in group.items() if key != "params"}
    # 1. all optimizers of a kind remember the same things of each parameter: see any of one's own
    kinds = next(iter(state.optimizer.state.values()), {})
    for name, parameter in plain.model.named_parameters():
        # 2. the stage that has a parameter sends it to all, and what is remembered of it
        owner = _owner(name, len(plain.model.blocks), stage.n_stages)
        mine = own[name] if owner == stage.number else None
        parameter.data.copy_(_from(owner, None if mine is None else mine.data, parameter, stage))
        for key, example in kinds.items():
            value = deepcopy(example)  # a count of steps, the same everywhere
            if isinstance(example, Tensor) and example.ndim:
                like = torch.empty_like(parameter, dtype=example.dtype)
                held = None if mine is None else state.optimizer.state[mine][key]
                value = _from(owner, held, like, stage)
            plain.optimizer.state[parameter][key] = value


def _owner(name: str, n_blocks: int, n_stages: int) -> int:
    """The stage that has a parameter; of a tied table, the first."""
    part, _, rest = name.partition(".")
    if part == "blocks":
        number = int(rest.partition(".")[0])
        parts = stage_blocks(n_blocks, n_stages)
        return next(stage for stage, blocks in enumerate(parts) if number in blocks)
    return 0 if part == "embedding" else n_stages - 1


def _from(owner: int, value: Tensor | None, like: Tensor, stage: Stage) -> Tensor:
    """The owner's tensor, on all stages."""
    tensor = torch.empty_like(like) if value is None else value.clone()
    distributed.broadcast(tensor.detach(), group=stage.group, group_src=owner)
    return tensor.detach()
