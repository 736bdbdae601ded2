"""Training in mixed precision (混合精度): products of matrices in bfloat16, all else in float32.

A processor with instructions for bfloat16 multiplies matrices of it up to twice as fast; one
without imitates them, and takes many times as long. torch calls it autocast: while a pass runs,
each product of matrices takes its weights and inputs as copies in bfloat16, and adds up in float32.

    weights, optimizer, residual stream, norms, loss      float32
    products of matrices, attention, and their gradients  bfloat16

Weights have to stay in float32: an update of a thousandth of a weight is lost in bfloat16, which
keeps less than three digits (chapter 05). The loss needs no scaling, since bfloat16 has the range
of float32.

It also depends on the size: a small model's time goes into other work than products. `minillm
doctor` measures this machine's gain; `minillm bench precision` measures time and loss.

Paper: Micikevicius et al. 2018, "Mixed Precision Training", arXiv:1710.03740, section 3.1 (master
weights); Kalamkar et al. 2019, arXiv:1905.12322 (bfloat16 without loss scaling).
Differs: logits are multiplied in float32 (`minillm.train.losses.cross_entropy`).

Chapter: 18
"""

from collections.abc import Callable
from typing import TypeVar

import torch
from torch import nn

from minillm.optim.step import Total

Batch = TypeVar("Batch")
Loss = Callable[[nn.Module, Batch], Total]
PRECISIONS = ("fp32", "bf16")


def in_precision(loss: Loss, precision: str) -> Loss:
    """The same loss, its pass computed as `precision` says.

    Args:
        loss: of a model in float32 and a batch, as `minillm.train.loop.train` takes it.
        precision: "fp32" gives the loss itself; "bf16" multiplies matrices in bfloat16.

    Raises:
        ValueError: another precision.

    Example:
        >>> from minillm.optim.step import Total
        >>> layer = nn.Linear(1, 1, bias=False)
        >>> _ = nn.init.constant_(layer.weight, 1.001)  # the nearest of bfloat16 is 1
        >>> def loss(model, x):
        ...     return Total(model(x).float().sum(), torch.tensor(1))
        >>> total = in_precision(loss, "bf16")(layer, torch.ones(1, 1))
        >>> total.nats.item(), layer.weight.dtype
        (1.0, torch.float32)
    """
    if precision not in PRECISIONS:
        raise ValueError(f"precision must be one of {', '.join(PRECISIONS)}; got {precision!r}")
    if precision == "fp32":
        return loss

    def mixed(model: nn.Module, batch: Batch) -> Total:
        device = next(model.parameters()).device.type
        with torch.autocast(device, dtype=torch.bfloat16):
            return loss(model, batch)

    return mixed
