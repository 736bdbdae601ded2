"""FSDP2: torch's own engine for ZeRO's stage 3, which goes to many machines and GPUs.

`fully_shard` cuts every parameter of a block along its first axis, a part a rank, gathers a block
before it is computed and lets it go behind it. What `minillm.parallel.zero` does with vectors,
FSDP2 does with DTensors, and overlaps sending with computing. Weights come out the same.

Paper: Zhao et al. 2023, "PyTorch FSDP", arXiv:2304.11277; Liang et al. 2024, "TorchTitan",
arXiv:2410.06511, section 2.2 (FSDP2).
Differs: none; it is torch's.

Chapter: 15
"""

from copy import deepcopy
from typing import final

import torch
from jaxtyping import Float
from torch import Tensor, distributed, nn

from minillm.parallel.zero import NUMBER_BY_NUMBER
from minillm.train.loop import TrainState

READ_BY_CALLERS = ("hidden",)  # what else than forward begins a pass through the model


@final
class FullySharded:
    """What a step asks of a model under FSDP2 (`Reduction`)."""

    def gradients(self, model: nn.Module) -> list[Tensor]:
        """This rank's parts; FSDP2 has averaged them, and a step wants sums."""
        gradients = [p.grad for p in model.parameters() if p.grad is not None]
        for gradient in gradients:
            gradient *= distributed.get_world_size()
        return gradients

    def total(self, values: Float[Tensor, "n"]) -> Float[Tensor, "n"]:
        """Sums over the ranks."""
        total = values.clone()
        distributed.all_reduce(total)
        return total

    def norm(self, gradients: list[Tensor]) -> float:
        """Of all ranks' parts together; DTensors know where their parts are."""
        return torch.nn.utils.get_total_norm(gradients).full_tensor().item()

    def clear(self) -> None:
        """Nothing is left over."""


def shard(state: TrainState) -> TrainState:
    """Hand a plain state of training over to FSDP2, on all ranks.

    Args:
        state: of a model with `blocks`; the same on all ranks. It must not be used afterwards.

    Raises:
        ValueError: an optimizer that does not update number by number.
    """
    from torch.distributed.device_mesh import init_device_mesh
    from torch.distributed.fsdp import fully_shard, register_fsdp_forward_method
    from torch.distributed.tensor import Shard, distribute_tensor

    model, former = state.model, state.optimizer
    if type(former) not in NUMBER_BY_NUMBER:
        names = ", ".join(sorted({each.__name__ for each in NUMBER_BY_NUMBER}))
        raise ValueError(
            f"{type(former).__name__} looks at whole matrices, and a rank has only a part of them; "
            f"fsdp works with {names}"
        )
    device = next(model.parameters()).device.type
    mesh = init_device_mesh(device, (distributed.get_world_size(),))
    names = {id(parameter): name for name, parameter in model.named_parameters()}
    groups = [
        {**group, "params": [names[id(p)] for p in group["params"]]}
        for group in former.param_groups
    ]
    memory = {names[id(parameter)]: former.state[parameter] for parameter in former.state}
    # 1. one unit a block, and the rest; each parameter becomes a DTensor
    for block in model.blocks:
        fully_shard(block, mesh=mesh)
    fully_shard(model, mesh=mesh)
    for method in READ_BY_CALLERS:
        register_fsdp_forward_method(model, method)
    # 2. the optimizer anew, over the DTensors, and its memory cut as they are
    named = dict(model.named_parameters())
    optimizer = type(former)(
        [{**group, "params": [named[n] for n in group["params"]]} for group in groups]
    )
    for name, kept in memory.items():
        optimizer.state[named[name]] = {
            key: distribute_tensor(value, mesh, [Shard(0)])
            if isinstance(value, Tensor) and value.ndim
            else value
            for key, value in kept.items()
        }
    return TrainState(model, optimizer, state.step, reduction=FullySharded())


def fill(plain: TrainState, state: TrainState) -> None:
    """Put an FSDP2 state together again; all ranks call this, and all get it.

    Args:
        plain: of the same model and optimizer, as before the cut; filled in place.
        state: from `shard`.
    """
    from torch.distributed.fsdp import FSDPModule

    for module in state.model.modules():
        if isinstance(module, FSDPModule):
            module.reshard()  # an evaluation may have left it gathered
    named = dict(plain.model.named_parameters())
    plain.step = state.step
    for plain_group, group in zip(
        plain.optimizer.param_groups, state.optimizer.param_groups, strict=True
    ):
        plain_group |= {key: value for key, value in group.items() if key != "params"}
    for name, parameter in state.model.named_parameters():
        named[name].data.copy_(parameter.full_tensor())
        for key, value in state.optimizer.state[parameter].items():
            whole = isinstance(value, Tensor) and value.ndim
            plain.optimizer.state[named[name]][key] = (
                value.full_tensor() if whole else deepcopy(value)
            )
