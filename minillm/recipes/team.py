"""Who trains a recipe: one process, or a team of ranks after a plan.

A run asks its team for what differs: how the state is cut and put together, which rows are this
rank's, what all ranks agree on. All else, files and checkpoints too, is the same for all teams: a
checkpoint always holds the whole state, written by rank 0, so that it is read by any other team.

Chapter: app
"""

import os
import sys
from collections.abc import Callable
from contextlib import redirect_stdout
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol, final

import torch

from minillm.data.packing import Batch
from minillm.optim.step import Total
from minillm.recipes import parent
from minillm.recipes import recipe as recipes
from minillm.recipes.chat_data import Chats
from minillm.train.loop import TrainState
from minillm.train.losses import language_loss

if TYPE_CHECKING:
    from minillm.parallel.mesh import Plan


class Team(Protocol):
    """What a run asks of those who train it."""

    first: bool  # whether this rank writes and prints
    n_shares: int  # of each batch
    loss: Callable[[Any, Batch], Total]

    def shard(self, state: TrainState) -> TrainState:
        """This rank's part of a plain state, which is not used afterwards."""

    def fill(self, plain: TrainState, state: TrainState) -> TrainState:
        """The plain state of all parts together; `plain` has the right shapes."""

    def share(self, batch: Batch) -> Batch:
        """This rank's rows of a batch."""

    def total(self, values: list[float]) -> list[float]:
        """Sums over the shares of a batch."""

    def agree(self, flag: bool) -> bool:
        """Whether the flag is up on any rank; all ranks ask at the same moment."""

    def same(self, number: int) -> bool:
        """Whether all ranks give the same number."""


@final
class Alone:
    """One process, which has everything."""

    first, n_shares, loss = True, 1, staticmethod(language_loss)

    def shard(self, state: TrainState) -> TrainState:
        """The state."""
        return state

    def fill(self, plain: TrainState, state: TrainState) -> TrainState:
        """The state, which is whole."""
        return state

    def share(self, batch: Batch) -> Batch:
        """The batch."""
        return batch

    def total(self, values: list[float]) -> list[float]:
        """The numbers."""
        return values

    def agree(self, flag: bool) -> bool:
        """The flag."""
        return flag

    def same(self, number: int) -> bool:
        """True."""
        return True


@final
class Ranks:
    """This rank among those that train together after a plan.

    Args:
        plan: from `minillm.parallel.mesh.parse`.
        batch_size: rows of a batch, which a pipeline cuts into micro-batches.
    """

    def __init__(self, plan: "Plan", batch_size: int):
        from torch import distributed

        from minillm.parallel.collectives import TorchCollectives

        self.plan, mesh, rank = plan, plan.mesh, distributed.get_rank()
        self.first, self.n_shares = rank == 0, mesh.dp
        self.groups = mesh.groups()
        self.data = TorchCollectives(self.groups["dp"])
        self.loss, self.reduction = _loss(plan, batch_size), None

    def shard(self, state: TrainState) -> TrainState:
        """The part of the state that the plan gives this rank."""
        from minillm.parallel import fsdp, pipeline, tensor, zero
        from minillm.parallel.collectives import TorchCollectives
        from minillm.parallel.data import DataParallel

        mesh, others = self.plan.mesh, self.data if self.plan.mesh.dp > 1 else None
        if self.plan.data == "fsdp":
            state = fsdp.shard(state)
        elif self.plan.data == "zero":
            state = zero.shard(state, self.data, self.plan.stage)
        elif mesh.tp > 1:
            state = tensor.shard(state, TorchCollectives(self.groups["tp"]), others)
        elif mesh.pp > 1:
            state = pipeline.shard(state, self.groups["pp"], others)
        else:
            state.reduction = DataParallel(self.data)
        self.reduction = state.reduction
        return state

    def fill(self, plain: TrainState, state: TrainState) -> TrainState:
        """Gathered from all ranks."""
        from minillm.parallel import fsdp, pipeline, tensor, zero

        mesh = self.plan.mesh
        ways = {"fsdp": fsdp.fill, "zero": zero.fill, "dp": None}
        fill = (
            tensor.fill if mesh.tp > 1 else pipeline.fill if mesh.pp > 1 else ways[self.plan.data]
        )
        if fill is None:
            return state
        fill(plain, state)
        return plain

    def share(self, batch: Batch) -> Batch:
        """Rows r, r + N, … of the N ranks along dp."""
        from minillm.parallel.data import share

        return share(batch, self.data.rank, self.n_shares)

    def total(self, values: list[float]) -> list[float]:
        """Sums over the ranks along dp."""
        return self.reduction.total(torch.tensor(values, dtype=torch.float64)).tolist()

    def agree(self, flag: bool) -> bool:
        """Whether any rank raised it."""
        return any(self._all(flag))

    def same(self, number: int) -> bool:
        """Whether all ranks give the same number."""
        return len(set(self._all(number))) == 1

    def _all(self, value: Any) -> list[Any]:
        from torch import distributed

        values = [None] * distributed.get_world_size()
        distributed.all_gather_object(values, value)
        return values


def _loss(plan: "Plan", batch_size: int) -> Callable[[Any, Batch], Total]:
    """What a batch's loss is computed by."""
    from minillm.parallel import tensor
    from minillm.parallel.micro_batches import Pipelined

    if plan.mesh.tp > 1:
        return tensor.loss
    if plan.mesh.pp > 1:
        share, most = batch_size // plan.mesh.dp, 4 * plan.mesh.pp
        return Pipelined(max(n for n in range(1, most + 1) if share % n == 0))
    return language_loss


# --- from the command line -----------------------------------------------------------------------
def train(recipe: recipes.Recipe, folder: Path, n_ranks: int | None, plan: str | None) -> None:
    """Train a recipe alone, on ranks that are started here, or as a rank of the user's torchrun.

    Raises:
        ValueError: a plan without ranks, or for another number of them; what a run refuses.
        RankError: a rank failed or was killed; the same command goes on from the last checkpoint.
    """
    from minillm.parallel import cluster, mesh

    recipe = parent.adopted(recipe)
    if cluster.in_cluster():
        n_started = int(os.environ["WORLD_SIZE"])
        if n_ranks not in (None, n_started):
            raise ValueError(f"torchrun started {n_started} ranks; leave out --ranks {n_ranks}")
        plan = plan or f"dp={n_started}"
        _check(recipe, mesh.parse(plan, n_started))
        with cluster.joined():
            train_rank(recipe.as_dict(), str(folder), plan)
        return
    n_ranks = 1 if n_ranks is None else n_ranks
    if n_ranks == 1 and plan is None:
        from minillm.recipes.run import run

        run(recipe, folder)
        return
    cluster.check_here(n_ranks)
    plan = plan or f"dp={n_ranks}"
    _check(recipe, mesh.parse(plan, n_ranks))
    print(f"{recipe.name}: {n_ranks} ranks, {plan}")
    if n_ranks > _cores():
        print(f"{n_ranks} ranks on {_cores()} cores wait for each other: slower than {_cores()}")
    try:
        cluster.run(
            train_rank,
            n_ranks,
            time_limit=None,
            show=True,
            recipe=recipe.as_dict(),
            folder=str(folder),
            plan=plan,
        )
    except cluster.RankError as error:
        from minillm.train import checkpoint

        saved = checkpoint.complete(folder)
        begins = f"from {saved[-1].name}" if saved else "from the beginning"
        raise cluster.RankError(f"{error}\nThe same command goes on {begins}.") from None


def train_rank(recipe: dict[str, Any], folder: str, plan: str) -> None:
    """What each rank does; all but the first do it silently."""
    from torch import distributed

    from minillm.parallel import mesh
    from minillm.recipes.run import run

    chosen = recipes.of(recipe)
    parsed = mesh.parse(plan, distributed.get_world_size())
    _check(chosen, parsed)
    team = Ranks(parsed, chosen.training.batch_size)
    with open(os.devnull, "w") as nowhere, redirect_stdout(sys.stdout if team.first else nowhere):
        run(chosen, Path(folder), team)


def _check(recipe: recipes.Recipe, plan: Any) -> None:
    """Refuse before anything is started what a rank would refuse."""
    rows, dp = recipe.training.batch_size, plan.mesh.dp
    if rows % dp:
        raise ValueError(
            f"{dp} data-parallel ranks must divide the {rows} rows of a batch; take another "
            "number of ranks, or another batch_size"
        )
    if plan.mesh.tp > 1:
        from minillm.parallel import tensor

        if isinstance(recipe.data, Chats):
            raise ValueError(
                "tensor parallelism learns every token, and of conversations only the answers are "
                f"learned; train {recipe.name} with --plan dp, fsdp or pp"
            )

        tensor.check(recipe.model.config().build(seed=0, device="meta"), plan.mesh.tp)
    if plan.mesh.pp > 1:
        from minillm.parallel import pipeline

        pipeline.stage_blocks(recipe.model.n_layers, plan.mesh.pp)
    whole = plan.data == "dp" and plan.mesh.tp == plan.mesh.pp == 1
    if not whole and recipe.training.optimizer == "muon":
        raise ValueError(
            "Muon looks at whole matrices, and under this plan a rank has only a part of the "
            'model; train with optimizer = "adamw", or with --plan dp'
        )
    if not whole and recipe.training.precision != "fp32":
        raise ValueError(
            f'precision = "{recipe.training.precision}" is for whole models; train with --plan '
            'dp, or with precision = "fp32"'
        )
    if plan.mesh.tp > 1 and plan.mesh.pp > 1:
        raise ValueError(
            "tp and pp are not combined here (the planner of chapter 16 reckons with both); take "
            "one of them, with dp if you like: tp=2,dp=2"
        )


def _cores() -> int:
    from minillm.train.sweep import cores

    return cores()
