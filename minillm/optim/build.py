"""Any optimizer of this chapter by its name, for the parameters of a model.

    build(model, "AdamW", 0.004, beta2=0.99)

Three of torch's stand beside ours, as steps of a ladder: plain SGD, SGD with momentum, RMSProp.

Weight decay (权重衰减) pulls matrices towards zero, θ ← θ - lr · λ · θ, and leaves alone what is no
matrix, such as the gains of a norm. It is 0 for SGD, momentum and RMSProp: their λ is part of the
gradient, and means something else at every learning rate.

Paper: Loshchilov and Hutter 2019, arXiv:1711.05101, section 2, on decay inside and outside of the
gradient.
Differs: none.

Chapter: 06
"""

import inspect
from collections.abc import Callable
from typing import Any

import torch
from torch import nn

from minillm.optim.adafactor import Adafactor
from minillm.optim.adamw import AdamW
from minillm.optim.came import CAME
from minillm.optim.groups import groups, hidden_matrices_and_others, matrices_and_others
from minillm.optim.lion import Lion
from minillm.optim.muon import Muon


def build(
    model: nn.Module, name: str, learning_rate: float, **options: float
) -> torch.optim.Optimizer:
    """An optimizer for all parameters of a model.

    Args:
        model: whose parameters it changes.
        name: one of `NAMES`.
        learning_rate: Muon's is of the matrices in the blocks.
        options: of that optimizer, as the signature of its function below has them.

    Raises:
        ValueError: another name, or an option that this optimizer does not have.

    Example:
        >>> from minillm.model.config import TransformerConfig
        >>> model = TransformerConfig(vocab_size=50, d_model=16, n_layers=1).build(seed=0)
        >>> optimizer = build(model, "AdamW", 0.01, weight_decay=0.1)
        >>> [(len(group["params"]), group["weight_decay"]) for group in optimizer.param_groups]
        [(6, 0.1), (3, 0.0)]
    """
    if name not in NAMES:
        raise ValueError(f"there is no optimizer {name!r}; there are {', '.join(NAMES)}")
    known = list(inspect.signature(NAMES[name]).parameters)[2:]
    if unknown := sorted(options.keys() - set(known)):
        raise ValueError(
            f"{name} has no option {', '.join(unknown)}; it has {', '.join(known) or 'none'}"
        )
    return NAMES[name](model, learning_rate, **options)


def _sgd(model: nn.Module, lr: float) -> torch.optim.SGD:
    return torch.optim.SGD(model.parameters(), lr=lr)


def _momentum(model: nn.Module, lr: float, beta1: float = 0.9) -> torch.optim.SGD:
    return torch.optim.SGD(model.parameters(), lr=lr, momentum=beta1, dampening=beta1)


def _rmsprop(model: nn.Module, lr: float, beta2: float = 0.99) -> torch.optim.RMSprop:
    return torch.optim.RMSprop(model.parameters(), lr=lr, alpha=beta2)


def _adamw(model: nn.Module, lr: float, beta2: float = 0.99, weight_decay: float = 0.1) -> AdamW:
    return AdamW(_decaying(model, weight_decay), lr=lr, betas=(0.9, beta2), weight_decay=0.0)


def _adafactor(
    model: nn.Module, lr: float, clip: float = 1.0, weight_decay: float = 0.1
) -> Adafactor:
    return Adafactor(_decaying(model, weight_decay), lr=lr, clip=clip)


def _came(model: nn.Module, lr: float, beta3: float = 0.999, weight_decay: float = 0.1) -> CAME:
    return CAME(_decaying(model, weight_decay), lr=lr, betas=(0.9, 0.99, beta3))


def _lion(model: nn.Module, lr: float, weight_decay: float = 0.1) -> Lion:
    return Lion(_decaying(model, weight_decay), lr=lr, betas=(0.9, 0.99))


def _muon(model: nn.Module, lr: float, others_lr: float = 1e-2, weight_decay: float = 0.1) -> Muon:
    matrices, others = hidden_matrices_and_others(model)
    return Muon(matrices, others, lr=lr, weight_decay=weight_decay, others_lr=others_lr)


def _decaying(model: nn.Module, weight_decay: float) -> list[dict[str, Any]]:
    matrices, others = matrices_and_others(model)
    return groups(model, (matrices, {"weight_decay": weight_decay}), (others, {}))


NAMES: dict[str, Callable[..., torch.optim.Optimizer]] = {
    "SGD": _sgd,
    "momentum": _momentum,
    "RMSProp": _rmsprop,
    "AdamW": _adamw,
    "Adafactor": _adafactor,
    "CAME": _came,
    "Lion": _lion,
    "Muon": _muon,
}
