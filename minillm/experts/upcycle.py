"""Sparse upcycling (稀疏升级): a dense model becomes a mixture of experts and forgets nothing.

Training experts from nothing wastes what a dense model already knows. So every expert begins as a
copy of the dense feed-forward part, and only the router is new. Whatever the router chooses, and
however it weighs, the weights of a token sum to 1, and so

    Σ w_e expert_e(x) = Σ w_e ffn(x) = ffn(x)

The model says at first exactly what the dense one said. The copies then part, since each is sent
other tokens. What the optimizer kept of the dense weights is as good for their copies
(`upcycle_state`).

Paper: Komatsuzaki et al. 2022, "Sparse Upcycling", arXiv:2212.05055, section 2.1 and figure 1
(the copies), section 3.1 and appendix B (weights that sum to 1).
Differs: token choice in every layer, where their encoders let experts choose; no limit on an
expert's tokens.

Chapter: 10
"""

import re
from collections.abc import Sequence
from dataclasses import replace

import torch

from minillm.experts.moe import MoEConfig
from minillm.model.ffn import SwiGLU
from minillm.model.transformer import Transformer


def upcycle(
    model: Transformer,
    config: MoEConfig,
    *,
    layers: Sequence[int] | None = None,
    seed: int = 0,
) -> Transformer:
    """A new model with experts in place of feed-forward parts; the old one stays as it is.

    Args:
        model: dense, built by `TransformerConfig`, with `SwiGLU` where experts are to be.
        config: of the experts; its d_expert is the dense part's, or None for that.
        layers: which blocks get experts, counted from 0; None for all.
        seed: of the routers, which are drawn as first weights are.

    Returns:
        A model that gives the same logits, on the same device and in the same dtype.

    Raises:
        ValueError: a model without a config; a layer that is not there or no SwiGLU; experts of
            another width; a config with which the logits would be others: another router than
            top_k, weights that do not sum to 1, a capacity, shared experts.

    Example:
        >>> import torch
        >>> from minillm.model.config import TransformerConfig
        >>> dense = TransformerConfig(vocab_size=50, d_model=16, n_layers=2).build(seed=0)
        >>> sparse = upcycle(dense, MoEConfig(n_experts=4), layers=[1])
        >>> tokens = torch.tensor([[7, 3, 9]])
        >>> torch.allclose(sparse(tokens), dense(tokens), atol=1e-5)
        True
        >>> [type(block.ffn).__name__ for block in sparse.blocks]
        ['SwiGLU', 'MoE']
    """
    _check_same(config)
    if model.config is None:
        raise ValueError(
            "upcycle builds the new model from the old one's config; got a model without one. "
            "Build it by TransformerConfig.build"
        )
    chosen = _checked_layers(layers, len(model.blocks))
    ffns = list(model.config.ffns)
    for layer in chosen:
        ffns[layer] = replace(config, d_expert=_expert_width(model, layer, config))
    weight = model.embedding.weight
    grown = replace(model.config, ffn=tuple(ffns)).build(seed, weight.device, weight.dtype)
    dense = model.state_dict()
    for layer in chosen:
        for name, value in model.blocks[layer].ffn.state_dict().items():
            del dense[f"blocks.{layer}.ffn.{name}"]
            for expert in range(config.n_experts):
                dense[f"blocks.{layer}.ffn.experts.{expert}.{name}"] = value
        fresh = grown.blocks[layer].ffn.state_dict(prefix=f"blocks.{layer}.ffn.")
        dense |= {name: value for name, value in fresh.items() if name not in dense}
    grown.load_state_dict(dense)
    return grown.train(model.training)


def upcycle_state(
    optimizer: torch.optim.Optimizer,
    model: Transformer,
    new_optimizer: torch.optim.Optimizer,
    new_model: Transformer,
) -> None:
    """Give every weight of an upcycled model the optimizer state of the weight it is a copy of.

    The routers are new and have no state yet.

    Args:
        optimizer: of the dense model.
        model: the dense model.
        new_optimizer: of the same class, changed in place.
        new_model: what `upcycle` made of the dense model.

    Example:
        >>> from minillm.model.config import TransformerConfig
        >>> dense = TransformerConfig(vocab_size=50, d_model=16, n_layers=1).build(seed=0)
        >>> sparse = upcycle(dense, MoEConfig(n_experts=4))
        >>> old, new = (torch.optim.AdamW(m.parameters()) for m in (dense, sparse))
        >>> dense(torch.tensor([[7, 3, 9]])).sum().backward()
        >>> old.step()
        >>> upcycle_state(old, dense, new, sparse)
        >>> len(old.state), len(new.state)  # gate_up and down four times, each once before
        (9, 15)
    """
    weights = dict(model.named_parameters())
    for name, weight in new_model.named_parameters():
        source = weights.get(re.sub(r"\.experts\.\d+\.", ".", name))
        if source is not None and source in optimizer.state:
            state = optimizer.state[source]
            new_optimizer.state[weight] = {
                key: value.clone() if isinstance(value, torch.Tensor) else value
                for key, value in state.items()
            }


def _check_same(config: MoEConfig) -> None:
    needed = {"router": "top_k", "norm_topk": True, "capacity_factor": None, "n_shared": 0}
    for name, value in needed.items():
        if getattr(config, name) != value:
            raise ValueError(
                f"the logits stay the same only if a token's weights sum to 1: upcycle needs "
                f"{name}={value!r}; got {getattr(config, name)!r}"
            )


def _checked_layers(layers: Sequence[int] | None, n_layers: int) -> list[int]:
    chosen = list(range(n_layers)) if layers is None else list(layers)
    if not chosen or not all(0 <= layer < n_layers for layer in chosen):
        raise ValueError(
            f"layers must name at least one block, from 0 to {n_layers - 1}; got {chosen}"
        )
    return sorted(set(chosen))


def _expert_width(model: Transformer, layer: int, config: MoEConfig) -> int:
    ffn = model.blocks[layer].ffn
    if not isinstance(ffn, SwiGLU):
        raise ValueError(
            f"experts are copies of a SwiGLU; block {layer} has {type(ffn).__name__}. Leave it out "
            "of layers"
        )
    d_ff = ffn.down.in_features
    if config.d_expert not in (None, d_ff):
        raise ValueError(
            f"a copy is as wide as the FFN that it is a copy of: d_expert must be {d_ff} in block "
            f"{layer}, or None; got {config.d_expert}"
        )
    return d_ff
