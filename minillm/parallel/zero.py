"""ZeRO (零冗余优化器): what every data-parallel rank would hold in full is cut into N parts.

Mixed-precision training with AdamW keeps 16 bytes for each of Ψ parameters: a weight and a gradient
of 2 bytes, and in float32 a master copy (主权重) of the weight and the two moments, 12 bytes. Data
parallel ranks hold all 16, and all hold the same. ZeRO's stages cut one more thing each into N:

    stage    weights    gradients    optimizer state    bytes a rank
    0        2 Ψ        2 Ψ          12 Ψ               16 Ψ            (data parallel)
    1        2 Ψ        2 Ψ          12 Ψ / N           4 Ψ + 12 Ψ / N
    2        2 Ψ        2 Ψ / N      12 Ψ / N           2 Ψ + 14 Ψ / N
    3        2 Ψ / N    2 Ψ / N      12 Ψ / N           16 Ψ / N

Parameters go in **units**: one a block, and one for the rest. A unit's parameters are laid end to
end in one vector, which is filled up with zeros and cut into N parts; rank r has part r. A step:

    1. forward, backward      stage 3: a unit's weights are gathered when its block is reached,
                              and let go behind it, on the way there and on the way back
    2. gradients              a unit's are summed over the ranks: stages 2 and 3 as soon as the
                              unit has them all, keeping this rank's part; before that at the end
    3. update                 each rank updates its part, with its part of the state
    4. weights                stages 1 and 2: the new parts are gathered

The update of a part must be the part of the update. So the rule works number by number (AdamW,
Lion, SGD). Rules that look at a matrix as a whole (Muon, Adafactor, CAME) are refused.

Paper: Rajbhandari et al. 2020, "ZeRO", arXiv:1910.02054, sections 3.1 (16 Ψ), 5 and figure 1.
Zhao et al. 2023, "PyTorch FSDP", arXiv:2304.11277, section 3.2 (a vector for each unit).
Differs: gathering does not run beside computing; the unit of embedding, head and last norm stays
gathered from the forward pass to the end of the backward pass, as in FSDP.

Chapter: 15
"""

from collections.abc import Sequence
from copy import deepcopy
from functools import partial
from typing import final

import torch
from jaxtyping import Float
from torch import Tensor, nn

from minillm.experts.hash_routing import HashedMoE
from minillm.experts.moe import MoE
from minillm.optim.adamw import AdamW
from minillm.optim.lion import Lion
from minillm.parallel.collectives import Collectives
from minillm.parallel.data import filled_up
from minillm.train.loop import TrainState

#: Optimizers that update each number by itself.
NUMBER_BY_NUMBER = (torch.optim.AdamW, torch.optim.Adam, torch.optim.SGD, AdamW, Lion)


def bytes_per_rank(n_parameters: float, n_ranks: int, stage: int) -> float:
    """The table above: bytes of weights, gradients and optimizer state that a rank holds.

    Args:
        n_parameters: Ψ.
        n_ranks: N.
        stage: 0 to 3.

    Raises:
        ValueError: another stage, a number of ranks below 1.

    Example:
        >>> [bytes_per_rank(7.5e9, 64, stage) / 1e9 for stage in range(4)]  # the paper's figure 1
        [120.0, 31.40625, 16.640625, 1.875]
    """
    if stage not in range(4) or n_ranks < 1:
        raise ValueError(f"stages are 0 to 3, ranks at least 1; got {stage} and {n_ranks}")
    weights, gradients, state = 2, 2, 12
    # each stage cuts one more into N
    state = state / n_ranks if stage >= 1 else state
    gradients = gradients / n_ranks if stage >= 2 else gradients
    weights = weights / n_ranks if stage >= 3 else weights
    return n_parameters * (weights + gradients + state)


@final
class Unit:
    """Parameters that are sent together: one vector, cut into N parts.

    Args:
        parameters: by name, of one type.
        collectives: of the ranks.
        stage: 0 to 3.
    """

    def __init__(self, parameters: dict[str, nn.Parameter], collectives: Collectives, stage: int):
        self.parameters, self.collectives, self.stage = parameters, collectives, stage
        n_ranks, rank = collectives.n_ranks, collectives.rank
        flat = torch.cat([parameter.detach().flatten() for parameter in parameters.values()])
        self.whole = filled_up(flat, n_ranks)
        # 1. the parameters become views of the vector
        for parameter, values in zip(parameters.values(), self.split(self.whole), strict=True):
            parameter.data = values
        # 2. this rank's part of the weights, and its master copy in float32 at least
        n_parts, number = (n_ranks, rank) if stage >= 1 else (1, 0)
        self.weights = self.whole.chunk(n_parts)[number]
        if stage == 3:  # the vector will be let go, so the part needs memory of its own
            self.weights = self.weights.clone()
        master = torch.promote_types(flat.dtype, torch.float32)
        self.part = nn.Parameter(self.weights.to(master))  # the same memory, if that is its type
        # 3. no gradients yet
        self.gradients: Tensor | None = None  # of the vector; in stages 2 and 3 only until reduced
        self.gradient: Tensor | None = None  # of this rank's part, summed over the ranks
        self.n_missing = len(parameters)
        self.release()

    def split(self, vector: Tensor) -> list[Tensor]:
        """The pieces of a vector that belong to the parameters, in their shapes."""
        shapes = [parameter.shape for parameter in self.parameters.values()]
        pieces = vector[: sum(shape.numel() for shape in shapes)].split(
            [shape.numel() for shape in shapes]
        )
        return [piece.view(shape) for piece, shape in zip(pieces, shapes, strict=True)]

    # --- weights ---------------------------------------------------------------------------------
    def gather(self) -> None:
        """Stage 3: fetch the other ranks' parts, where they are not here already."""
        storage = self.whole.untyped_storage()
        if not storage.nbytes():
            storage.resize_(self.whole.numel() * self.whole.element_size())
            self.whole.copy_(self.collectives.all_gather(self.weights))

    def release(self) -> None:
        """Stage 3: give the vector's memory back. Views stay views: `gather` fills it again."""
        if self.stage == 3:
            self.whole.untyped_storage().resize_(0)

    def publish(self) -> None:
        """After an update: weights are the master copies, rounded to their own type."""
        self.weights.copy_(self.part.detach())
        if self.stage in (1, 2):
            self.whole.copy_(self.collectives.all_gather(self.weights))
        self.gradients = self.gradient = None
        self.release()

    # --- gradients -------------------------------------------------------------------------------
    def collect(self, parameter: nn.Parameter, place: int) -> None:
        """Take a parameter's gradient; with the last one, stages 2 and 3 send and forget them."""
        if self.gradients is None:
            self.gradients = torch.zeros_like(self.whole)
        self.split(self.gradients)[place].add_(parameter.grad)
        parameter.grad = None
        self.n_missing -= 1
        if not self.n_missing:  # of this backward pass
            self._complete()

    def _complete(self) -> None:
        self.n_missing = len(self.parameters)
        if self.stage >= 2:
            part = self.collectives.reduce_scatter(self.gradients)
            self.gradient = part if self.gradient is None else self.gradient + part
            self.gradients = None
        self.release()

    def summed(self) -> Tensor | None:
        """The gradient of this rank's part, summed over all ranks, in the master copy's type."""
        if self.stage >= 2 and self.gradients is not None:  # some parameter was not used
            self._complete()
        if self.gradients is not None and self.stage == 0:
            self.gradient = self.gradients = self.collectives.all_reduce(self.gradients)
        if self.gradients is not None and self.stage == 1:
            self.gradient = self.collectives.reduce_scatter(self.gradients)
        return None if self.gradient is None else self.gradient.to(self.part.dtype)


@final
class Zero:
    """A sharded model and its optimizer; what a step asks of them (`Reduction`).

    Made by `shard`.

    Args:
        units: by the optimizer's groups.
        collectives: of the ranks that share the data.
    """

    def __init__(self, units: Sequence[Sequence[Unit]], collectives: Collectives):
        self.units, self.collectives = units, collectives

    def gradients(self, model: nn.Module) -> list[Tensor]:
        """The gradients of this rank's parts, summed over the ranks."""
        for unit in self._all():
            unit.part.grad = unit.summed()
        return [unit.part.grad for unit in self._all() if unit.part.grad is not None]

    def total(self, values: Float[Tensor, "n"]) -> Float[Tensor, "n"]:
        """Sums over the ranks."""
        whole = self.collectives.all_reduce(filled_up(values, self.collectives.n_ranks))
        return whole[: values.numel()]

    def norm(self, gradients: list[Tensor]) -> float:
        """The length of the gradient of all ranks' parts together."""
        square = torch.nn.utils.get_total_norm(gradients).double().square().reshape(1)
        if self._all()[0].stage >= 1:
            square = self.total(square)
        return square.sqrt().item()

    def clear(self) -> None:
        """After a step, also after one that was skipped: no gradients, and weights as they are."""
        for unit in self._all():
            unit.part.grad = None
            unit.publish()

    def _all(self) -> list[Unit]:
        return [unit for units in self.units for unit in units]


def shard(state: TrainState, collectives: Collectives, stage: int) -> TrainState:
    """Cut a plain state of training into this rank's part of it.

    Args:
        state: of a model with `blocks`; the same on all ranks. It must not be used afterwards.
        collectives: of the ranks that share the data.
        stage: 0 to 3.

    Returns:
        The state to train with: the same model, an optimizer of this rank's parts, and the
        `Reduction` of its steps.

    Raises:
        ValueError: an optimizer that does not update number by number; a stage that is none; a
            mixture of experts.
    """
    if stage not in range(4):
        raise ValueError(f"ZeRO has the stages 0 to 3; got {stage}")
    routed = [n for n, b in enumerate(state.model.blocks) if isinstance(b.ffn, MoE | HashedMoE)]
    if routed:
        raise ValueError(
            f"block {routed[0]} is a mixture of experts: each rank's tokens use others, so "
            "ranks would send different units; train it with plain data parallelism (dp)"
        )
    kind = type(state.optimizer)
    if kind not in NUMBER_BY_NUMBER:
        raise ValueError(
            f"{kind.__name__} looks at whole matrices, and a rank has only a part of them; ZeRO "
            f"works with {', '.join(sorted({each.__name__ for each in NUMBER_BY_NUMBER}))}. Plain "
            "data parallelism (dp) keeps matrices whole, and works with all"
        )
    model, former = state.model, state.optimizer
    blocks = [{id(p) for p in block.parameters()} for block in model.blocks]
    named = {id(parameter): name for name, parameter in model.named_parameters()}
    units: list[list[Unit]] = []
    groups = []
    for group in former.param_groups:
        # 1. a unit for each block's parameters in this group, and one for those of no block
        shares: dict[int, dict[str, nn.Parameter]] = {}
        for parameter in group["params"]:
            owner = next((n for n, ids in enumerate(blocks) if id(parameter) in ids), len(blocks))
            shares.setdefault(owner, {})[named[id(parameter)]] = parameter
        of_group = []
        for owner, parameters in sorted(shares.items()):
            unit = Unit(parameters, collectives, stage)
            _watch(model, None if owner == len(blocks) else model.blocks[owner], unit)
            of_group.append(unit)
        units.append(of_group)
        groups.append({**group, "params": [unit.part for unit in of_group]})
    # 2. an optimizer of the same kind and options, for this rank's parts alone
    optimizer = kind(groups)
    for unit in (unit for of_group in units for unit in of_group):
        _cut_state(unit, former, optimizer)
    former.state.clear()
    return TrainState(model, optimizer, state.step, reduction=Zero(units, collectives))


def _watch(model: nn.Module, block: nn.Module | None, unit: Unit) -> None:
    """Tell the unit what happens to its parameters."""
    for place, parameter in enumerate(unit.parameters.values()):
        parameter.register_post_accumulate_grad_hook(partial(unit.collect, place=place))
    if unit.stage < 3:
        return
    if block is not None:
        block.register_forward_pre_hook(lambda *_: unit.gather())
        block.register_forward_hook(lambda *_: unit.release())
        block.register_full_backward_pre_hook(lambda *_: unit.gather())
        return
    # The rest is read at both ends of a pass, and stays from its first use on.
    inside = {id(module) for each in model.blocks for module in each.modules()}
    for module in model.modules():
        own = {id(parameter) for parameter in module.parameters(recurse=False)}
        if id(module) not in inside and own & {id(p) for p in unit.parameters.values()}:
            module.register_forward_pre_hook(lambda *_: unit.gather())


def _cut_state(unit: Unit, former: torch.optim.Optimizer, optimizer: torch.optim.Optimizer) -> None:
    """This rank's part of what the optimizer remembered: tensors cut as the weights are."""
    states = [former.state[parameter] for parameter in unit.parameters.values()]
    n_ranks, rank = unit.collectives.n_ranks, unit.collectives.rank
    for key, value in states[0].items():
        if isinstance(value, Tensor) and value.ndim:
            vector = filled_up(torch.cat([state[key].flatten() for state in states]), n_ranks)
            n_parts, number = (n_ranks, rank) if unit.stage >= 1 else (1, 0)
            optimizer.state[unit.part][key] = vector.chunk(n_parts)[number].clone()
        else:
            optimizer.state[unit.part][key] = value


def fill(plain: TrainState, state: TrainState) -> None:
    """Put a sharded state together again; all ranks call this, and all get it.

    Args:
        plain: of the same model and optimizer, as before the cut; filled in place.
        state: from `shard`.
    """
    zero, named = state.reduction, dict(plain.model.named_parameters())
    plain.step = state.step
    groups = zip(
        plain.optimizer.param_groups, state.optimizer.param_groups, zero.units, strict=True
    )
    for plain_group, group, units in groups:
        plain_group |= {key: value for key, value in group.items() if key != "params"}
        for unit in units:
            gather = zero.collectives.all_gather if unit.stage >= 1 else Tensor.clone
            parameters = [named[name] for name in unit.parameters]
            for parameter, values in zip(
                parameters, unit.split(gather(unit.part.data)), strict=True
            ):
                parameter.data.copy_(values)
            for key, value in state.optimizer.state[unit.part].items():
                whole = isinstance(value, Tensor) and value.ndim
                values = unit.split(gather(value)) if whole else [value] * len(parameters)
                for parameter, each in zip(parameters, values, strict=True):
                    plain.optimizer.state[parameter][key] = (
                        each.clone() if whole else deepcopy(each)
                    )


def held_bytes(state: TrainState) -> dict[str, int]:
    """Bytes of memory that this rank holds for a sharded state: weights, gradients, optimizer.

    Memory that two tensors share counts once, as what it is named first.
    """
    kinds: dict[str, list[Tensor]] = {"weights": [], "gradients": [], "optimizer": []}
    for unit in (unit for units in state.reduction.units for unit in units):
        kinds["weights"] += [unit.whole, unit.weights]
        kinds["gradients"] += [each for each in (unit.gradients, unit.gradient) if each is not None]
        memory = state.optimizer.state[unit.part].values()
        kinds["optimizer"] += [unit.part, *(x for x in memory if isinstance(x, Tensor) and x.ndim)]
    seen: set[int] = set()
    held = {}
    for kind, tensors in kinds.items():
        storages = {tensor.untyped_storage()._cdata: tensor.untyped_storage() for tensor in tensors}
        held[kind] = sum(storages[each].nbytes() for each in storages.keys() - seen)
        seen |= storages.keys()
    return held
