"""The state of a run: what a checkpoint is filled with, and how a run goes on from it.

`pack` copies parameters, buffers, the optimizer's memory and options, and torch's random state;
`unpack` puts them back. With `batch_at(step)` a pure function there is nothing else, and 10 steps
are the same, bit for bit, as 5, save, load and 5.

Paper: Mohan, Phanishayee and Chidambaram 2021, "CheckFreq", FAST, section 3, on resuming in the
middle of an epoch.
Differs: CheckFreq writes while training goes on; here training waits.

Chapter: 05
"""

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from minillm.train.checkpoint import Checkpoint
from minillm.train.manifest import is_plain


def pack(
    model: nn.Module, optimizer: torch.optim.Optimizer
) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """The state of a run: all that `unpack` needs to go on as if nothing had happened.

    Everything is copied, so training on does not change it. Tied parameters are stored once, under
    the first of their names. Not stored: gradients, and the random state of a GPU.

    Args:
        model: any module; its parameters and persistent buffers are stored.
        optimizer: one that remembers a dict of tensors and plain values for each parameter, as
            torch's do (but for LBFGS).

    Returns:
        Tensors "model.<name>", "optimizer.<parameter's name>.<key>" and "random.torch"; and a dict
        with the one key "packed", to be part of the record: `{"evaluation": 1.5, **packed}`.

    Raises:
        ValueError: the model has state that is no tensor; the optimizer has a parameter that is not
            the model's, or remembers what is neither tensor nor plain JSON.

    Example:
        >>> line = nn.Linear(1, 1, bias=False)
        >>> tensors, packed = pack(line, torch.optim.SGD(line.parameters(), lr=0.1))
        >>> list(tensors), packed["packed"]["groups"][0]["options"]["lr"]
        (['model.weight', 'random.torch'], 0.1)
    """
    named = _named(model)
    groups, state = _groups(named, optimizer), {}
    tensors = {f"model.{name}": _copy(tensor) for name, tensor in named.items()}
    tensors["random.torch"] = torch.get_rng_state()
    for name in (name for name in named if named[name] in optimizer.state):
        of_parameter = optimizer.state[named[name]]
        held = [key for key, value in of_parameter.items() if isinstance(value, Tensor)]
        tensors |= {f"optimizer.{name}.{key}": _copy(of_parameter[key]) for key in held}
        values = {key: value for key, value in of_parameter.items() if key not in held}
        state[name] = {"tensors": held, "values": values}
    if wrong := [about for about in (*groups, *state.values()) if not is_plain(about)]:
        raise ValueError(
            "an optimizer may have options in plain JSON, and remember tensors and plain JSON of a "
            f"parameter; this one has {wrong[0]}"
        )
    return tensors, {"packed": {"groups": groups, "state": state}}


def unpack(checkpoint: Checkpoint, model: nn.Module, optimizer: torch.optim.Optimizer) -> None:
    """Put a packed state back, in place; all is checked before anything is changed.

    The optimizer gets the options of the checkpoint, the learning rate too.

    Args:
        checkpoint: whose record holds what `pack` gave.
        model: of the same shapes and types; it may be on another device.
        optimizer: of the same class, over the same parameters in the same groups.

    Raises:
        ValueError: a name is missing or unexpected, a shape or type is another, the optimizer is of
            another kind or has other groups; says which.
    """
    tensors, packed = checkpoint.tensors, checkpoint.record.get("packed")
    if not isinstance(packed, dict):
        how = "save its tensors, and its dict as part of the record: {'evaluation': 1.5, **packed}"
        raise ValueError(f"{checkpoint.path} does not hold what pack(model, optimizer) gave; {how}")
    named, state = _named(model), packed["state"]
    expected = {f"model.{name}": tensor for name, tensor in named.items()}
    expected["random.torch"] = torch.get_rng_state()
    memories = {f"optimizer.{name}.{key}" for name in state for key in state[name]["tensors"]}
    _check_tensors(tensors, expected, memories)
    _check_groups(packed["groups"], _groups(named, optimizer))
    memories = {named[name]: _memory(name, tensors, packed, named[name]) for name in state}
    # Nothing has been changed so far, and nothing below can fail.
    with torch.no_grad():
        for name, tensor in named.items():
            tensor.copy_(tensors[f"model.{name}"])
    optimizer.state.clear()
    optimizer.state.update(memories)
    for group, saved in zip(optimizer.param_groups, packed["groups"], strict=True):
        for key, value in saved["options"].items():
            group[key] = tuple(value) if isinstance(group.get(key), tuple) else value
    torch.set_rng_state(tensors["random.torch"])


def _copy(tensor: Tensor) -> Tensor:
    return tensor.detach().to("cpu", copy=True, memory_format=torch.contiguous_format)


def _named(model: nn.Module) -> dict[str, Tensor]:
    """Parameters and persistent buffers, each once, under the first of its names."""
    saved, first = set(model.state_dict()), {}
    everything = dict(model.named_parameters(remove_duplicate=False))
    everything |= dict(model.named_buffers(remove_duplicate=False))
    if other := saved - set(everything):
        raise ValueError(f"the model has state that is no parameter or buffer: {sorted(other)}")
    for name in (name for name in everything if name in saved):
        first.setdefault(id(everything[name]), name)
    return {name: everything[name] for name in first.values()}


def _groups(named: Mapping[str, Tensor], optimizer: torch.optim.Optimizer) -> list[dict]:
    names, groups = {id(tensor): name for name, tensor in named.items()}, []
    kind = f"{type(optimizer).__module__}.{type(optimizer).__qualname__}"
    for group in optimizer.param_groups:
        if strange := [list(p.shape) for p in group["params"] if id(p) not in names]:
            mend = f"{strange}; build it from model.parameters()"
            raise ValueError(f"the optimizer has parameters that are not this model's, of {mend}")
        options = {key: value for key, value in group.items() if key != "params"}
        options |= {key: list(value) for key, value in options.items() if type(value) is tuple}
        parameters = [names[id(parameter)] for parameter in group["params"]]
        groups.append({"optimizer": kind, "parameters": parameters, "options": options})
    return groups


def _check_tensors(
    tensors: Mapping[str, Tensor], expected: Mapping[str, Tensor], memories: set[str]
) -> None:
    names = {name for name in tensors if name.startswith(("model.", "optimizer.", "random."))}
    if wrong := names ^ {*expected, *memories}:
        parts = {"Missing": wrong - names, "Unexpected": wrong & names}
        message = ". ".join(f"{part}: {', '.join(sorted(parts[part])) or 'none'}" for part in parts)
        raise ValueError(
            f"the checkpoint is of another model. {message}. Build it from the run's manifest"
        )
    for name, tensor in expected.items():
        for what in ("shape", "dtype"):
            saved, here = (getattr(each, what) for each in (tensors[name], tensor))
            if saved != here:
                saved, here = (list(x) if what == "shape" else x for x in (saved, here))
                raise ValueError(
                    f"the checkpoint holds {name.removeprefix('model.')} of {saved}, this model "
                    f"has {here}: it was saved from another {what}; build the model from the run's "
                    "manifest"
                )


def _check_groups(saved: list[dict], here: list[dict]) -> None:
    for what in ("optimizer", "parameters"):
        old, new = ([group[what] for group in groups] for groups in (saved, here))
        if old != new:
            raise ValueError(
                f"the checkpoint's groups have the {what} {old}, and those of this optimizer "
                f"{new}; build it from the run's manifest"
            )


def _memory(
    name: str, tensors: Mapping[str, Tensor], packed: Mapping[str, Any], parameter: Tensor
) -> dict[str, Any]:
    [options] = [g["options"] for g in packed["groups"] if name in g["parameters"]]
    # torch keeps a count of steps on the CPU, unless one of these options is on
    wholly = options.get("capturable") or options.get("fused")
    state = dict(packed["state"][name]["values"])
    for key in packed["state"][name]["tensors"]:
        tensor = tensors[f"optimizer.{name}.{key}"]
        state[key] = tensor.to(parameter.device if tensor.ndim or wholly else "cpu", copy=True)
    return state
