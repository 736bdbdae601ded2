"""Groups of parameters: which weight gets which options, and no weight forgotten.

torch's optimizers take a list of groups, each with options of its own, and believe whatever they
are told: a weight that is in no group is never trained, without a word. `groups` makes the same
list and compares it with the model first. Every parameter must be in one part, and in one only.

Two cuts are common. `matrices_and_others` goes by the number of axes alone, for weight decay.
`hidden_matrices_and_others` goes by where a weight stands in the model, for Muon. Neither looks at
how a parameter's name is spelled.

Chapter: 06
"""

from collections.abc import Iterable
from typing import Any

from torch import nn


def groups(
    model: nn.Module, *parts: tuple[Iterable[nn.Parameter], dict[str, Any]]
) -> list[dict[str, Any]]:
    """What torch's optimizers take, once every parameter of the model is known to be covered.

    A tensor that stands in the model under two names is one parameter, and a part may name it
    twice. One that requires no gradient (frozen, 冻结) may be left out; where a part has it, it
    stays there, and an optimizer passes over it for as long as it has no gradient.

    Args:
        model: whose parameters must all be somewhere.
        parts: parameters with their options, such as `(model.parameters(), {"lr": 0.1})`.

    Returns:
        `{"params": [...], **options}` a part, in their order. A part without parameters is left
        out.

    Raises:
        ValueError: names what no part has, what two parts have, and what is not the model's; an
            option is named "params".

    Example:
        >>> model = nn.Sequential(nn.Linear(3, 2), nn.Linear(2, 2))
        >>> matrices, others = matrices_and_others(model)
        >>> decay, none = {"weight_decay": 0.1}, {"weight_decay": 0.0}
        >>> parts = groups(model, (matrices, decay), (others, none))
        >>> [(len(group["params"]), group["weight_decay"]) for group in parts]
        [(2, 0.1), (2, 0.0)]
    """
    if any("params" in options for _, options in parts):
        raise ValueError('an option is named "params", which is where the parameters themselves go')
    names = _names(model)
    # by id, since == of tensors compares their numbers; a dict also keeps one of two that are tied
    held = [{id(parameter): parameter for parameter in parameters} for parameters, _ in parts]
    every = {key: parameter for part in held for key, parameter in part.items()}
    trained = [p for p in model.parameters() if p.requires_grad]
    missing = [f"{names[id(p)]} {list(p.shape)}" for p in trained if id(p) not in every]
    twice = [
        f"{names.get(key, 'a parameter of')} {list(parameter.shape)}"
        for key, parameter in every.items()
        if sum(key in part for part in held) > 1
    ]
    strange = [f"one of {list(p.shape)}" for key, p in every.items() if key not in names]
    problems = [
        f"{what} {', '.join(which)}"
        for what, which in (
            ("no part has", missing),
            ("more than one part has", twice),
            ("not the model's:", strange),
        )
        if which
    ]
    if problems:
        raise ValueError(
            f"{'; '.join(problems)}; every parameter of the model that requires a gradient must be "
            "in one part, and in one only"
        )
    return [
        {"params": list(part.values()), **options}
        for part, (_, options) in zip(held, parts, strict=True)
        if part
    ]


def matrices_and_others(model: nn.Module) -> tuple[list[nn.Parameter], list[nn.Parameter]]:
    """The parameters of two axes or more, which weight decay is for, and all others.

    A matrix of n² numbers can fit noise, and decay makes it pay for what it holds. A gain of a norm
    or a bias has n numbers, too few for that, and 0 is not where it ought to be: a gain begins at 1
    and lets its place through, one that has decayed mutes it.

    Args:
        model: any module.

    Returns:
        Both in the order of `model.parameters()`.

    Example:
        >>> [[list(p.shape) for p in part] for part in matrices_and_others(nn.Linear(3, 2))]
        [[[2, 3]], [[2]]]

    Paper: Brown et al. 2020, arXiv:2005.14165, appendix B, decays with 0.1 and does not say what;
        to spare gains and biases is the custom of their successors' code.
    """
    everything = list(model.parameters())
    return [p for p in everything if p.ndim >= 2], [p for p in everything if p.ndim < 2]


def hidden_matrices_and_others(model: nn.Module) -> tuple[list[nn.Parameter], list[nn.Parameter]]:
    """The weights of every `nn.Linear` in `model.blocks`, which Muon is for, and all others.

    A hidden matrix turns one stream of numbers into another, and all its directions are alike in
    kind. The table of tokens is no such map: each of its rows is a token's own. The head has a row
    a token too. Both stand outside of the blocks, and are others, as are gains and biases, and a
    weight of a block that is also used outside.

    Args:
        model: with an `nn.ModuleList` named `blocks`, as `minillm.model.transformer` has it.

    Returns:
        Both in the order of `model.parameters()`.

    Raises:
        ValueError: there are no such blocks.

    Example:
        >>> from minillm.model.config import TransformerConfig
        >>> model = TransformerConfig(vocab_size=50, d_model=16, n_layers=1).build(seed=0)
        >>> hidden, others = hidden_matrices_and_others(model)
        >>> [list(p.shape) for p in hidden]
        [[48, 16], [16, 16], [96, 16], [16, 48]]
        >>> [list(p.shape) for p in others]
        [[50, 16], [16], [16], [16], [50, 16]]

    Paper: Jordan et al. 2024, "Muon", on hidden layers.
    Differs: a weight that is a bare `nn.Parameter` is no `nn.Linear`'s, so it is among the others.
    """
    blocks = getattr(model, "blocks", None)
    if not isinstance(blocks, nn.ModuleList):
        raise ValueError(
            "what is hidden is what stands in model.blocks, an nn.ModuleList, and "
            f"{type(model).__name__} has none; choose its matrices by hand"
        )
    within = {id(module) for module in blocks.modules()}
    outside = {
        id(parameter)
        for module in model.modules()
        if id(module) not in within
        for parameter in module.parameters(recurse=False)
    }
    linear = (module for module in blocks.modules() if isinstance(module, nn.Linear))
    hidden = {id(module.weight) for module in linear} - outside
    everything = list(model.parameters())
    return [p for p in everything if id(p) in hidden], [
        p for p in everything if id(p) not in hidden
    ]


def _names(model: nn.Module) -> dict[int, str]:
    """Of each parameter all its names: "embedding.weight = head.weight" where two are tied."""
    names: dict[int, list[str]] = {}
    for name, parameter in model.named_parameters(remove_duplicate=False):
        names.setdefault(id(parameter), []).append(name)
    return {key: " = ".join(names_of_one) for key, names_of_one in names.items()}
