"""Data parallelism (数据并行): every rank has the whole model, and a share of each batch.

    1. each rank computes the gradient of the sum of its rows' losses
    2. an all-reduce adds the gradients up, and the numbers of tokens
    3. each rank takes the same step, since sum and weights are the same everywhere

Losses are sums (`minillm.optim.step.Total`), so the sum of the ranks' gradients is the gradient of
the whole batch, also where ranks have different numbers of tokens. A mean of means would not be.

Paper: Goyal et al. 2017, arXiv:1706.02677, section 2.1 (the same step as one worker with the whole
batch); Li et al. 2020, "PyTorch Distributed", arXiv:2006.15704, section 3.
Differs: gradients go in one vector at the end; theirs in buckets, while the backward pass goes on.

Chapter: 15
"""

from dataclasses import fields, replace
from typing import TypeVar, final

import torch
from jaxtyping import Float
from torch import Tensor, nn

from minillm.parallel.collectives import Collectives

Batch = TypeVar("Batch")


def share(batch: Batch, rank: int, n_ranks: int) -> Batch:
    """This rank's rows of a batch: rows rank, rank + N, rank + 2 N, …

    Args:
        batch: a tensor of rows, or a dataclass of such tensors; None in it stays None.
        rank, n_ranks: r and N.

    Raises:
        ValueError: N does not divide the number of rows.

    Example:
        >>> share(torch.arange(6).reshape(6, 1), rank=1, n_ranks=2).flatten()
        tensor([1, 3, 5])
    """
    if isinstance(batch, Tensor):
        if len(batch) % n_ranks:
            raise ValueError(
                f"{n_ranks} data-parallel ranks must divide the rows of a batch; got {len(batch)}. "
                f"Take a batch_size of {len(batch) // n_ranks * n_ranks or n_ranks}, or other ranks"
            )
        return batch[rank::n_ranks]
    values = {field.name: getattr(batch, field.name) for field in fields(batch)}
    parts = {
        name: share(value, rank, n_ranks) for name, value in values.items() if value is not None
    }
    return replace(batch, **parts)


@final
class DataParallel:
    """Plain data parallelism: gradients are added up over all ranks (`Reduction`).

    Args:
        collectives: of the ranks.
    """

    def __init__(self, collectives: Collectives):
        self.collectives = collectives

    def gradients(self, model: nn.Module) -> list[Tensor]:
        """All gradients, summed over the ranks in one vector.

        A parameter that only some ranks have used, such as an expert, gets their sum on all.
        """
        parameters = [p for p in model.parameters() if p.requires_grad]
        own = [torch.zeros_like(p) if p.grad is None else p.grad for p in parameters]
        used = own[0].new_tensor([p.grad is not None for p in parameters])  # 1 or 0 for each
        summed = self.total(torch.cat([used, *(gradient.flatten() for gradient in own)]))
        n_users, *pieces = summed.split([len(parameters), *(p.numel() for p in parameters)])
        for parameter, piece, n in zip(parameters, pieces, n_users.tolist(), strict=True):
            parameter.grad = piece.view_as(parameter) if n else None
        return [p.grad for p in parameters if p.grad is not None]

    def total(self, values: Float[Tensor, "n"]) -> Float[Tensor, "n"]:
        """Sums over the ranks."""
        whole = self.collectives.all_reduce(filled_up(values, self.collectives.n_ranks))
        return whole[: values.numel()]

    def norm(self, gradients: list[Tensor]) -> float:
        """The gradient is whole on every rank, and so is its length."""
        return torch.nn.utils.get_total_norm(gradients).item()

    def clear(self) -> None:
        """Nothing is left over."""


def filled_up(vector: Float[Tensor, "n"], n_ranks: int) -> Float[Tensor, "m"]:
    """With zeros behind it, up to a length that N divides.

    Example:
        >>> filled_up(torch.tensor([1.0, 2.0, 3.0]), 2)
        tensor([1., 2., 3., 0.])
    """
    return torch.cat([vector, vector.new_zeros(-vector.numel() % n_ranks)])
