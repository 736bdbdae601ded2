"""Mixtral's config.json, and where the tensors of its checkpoint stand in our model.

A Mixtral is a Mistral with experts in place of every feed-forward part. So its attention, norms,
tables and rotation are read as a Mistral's (`minillm.formats.hf_config`, `convert_names`), and
only this is new:

    num_local_experts      n_experts         intermediate_size     d_expert
    num_experts_per_tok    top_k

    ours                              theirs, in folders of the hub
    blocks.0.ffn.router               model.layers.0.block_sparse_moe.gate
    blocks.0.ffn.experts.3.gate_up    model.layers.0.block_sparse_moe.experts.3.w1, .w3
    blocks.0.ffn.experts.3.down       model.layers.0.block_sparse_moe.experts.3.w2

transformers 5 holds the experts of a layer stacked, and `save_original_format=False` writes them
so: mlp.gate.weight, mlp.experts.gate_up_proj [E, 2F, D], mlp.experts.down_proj [E, D, F].

Paper: Jiang et al. 2024, "Mixtral", arXiv:2401.04088, section 2.1 and table 1.
Differs: no noise on the router. Theirs adds some in training if router_jitter_noise is above 0,
which it is not by default; such a config is refused.

Chapter: 10
"""

from collections.abc import Mapping
from dataclasses import replace
from typing import Any, NamedTuple

from minillm.experts.moe import MoEConfig
from minillm.formats import hf_config, hf_names
from minillm.formats.hf_names import Place
from minillm.formats.json_file import count
from minillm.model.config import TransformerConfig
from minillm.model.ffn import SwiGLUConfig

KIND, CLASS = "mixtral", "MixtralForCausalLM"
EXPERTS = {"num_local_experts", "num_experts_per_tok"}
#: Where a config is silent of one, transformers takes the value of one large model.
NEEDED = hf_config.NEEDED | EXPERTS | {"num_key_value_heads", "rms_norm_eps", "rope_theta"}
#: Keys of a Mixtral alone; the last two say how it is trained and what it hands out besides.
OWN = EXPERTS | {"router_jitter_noise", "router_aux_loss_coef", "output_router_logits"}
#: What a Mixtral's experts are, of all that a `MoEConfig` can ask for.
ONLY = {"router": "top_k", "norm_topk": True, "capacity_factor": None, "n_shared": 0}
MOST_EXPERTS = 100_000  # of all layers; refused before lists grow to that length


# --- the config ---------------------------------------------------------------------------------
def read_config(content: Mapping[str, Any]) -> TransformerConfig:
    """Our config of the model that a Mixtral's config.json describes.

    Raises:
        ValueError: another model type; a key that is missing or unknown, or that has a value which
            our parts cannot give it.

    Example:
        >>> content = {
        ...     "model_type": "mixtral", "vocab_size": 50, "max_position_embeddings": 32,
        ...     "hidden_size": 16, "intermediate_size": 24, "num_hidden_layers": 1,
        ...     "num_attention_heads": 4, "num_key_value_heads": 2, "rms_norm_eps": 1e-5,
        ...     "rope_theta": 1e6, "num_local_experts": 4, "num_experts_per_tok": 2,
        ... }
        >>> ffn = read_config(content).ffn
        >>> ffn.n_experts, ffn.top_k, ffn.d_expert
        (4, 2, 24)
        >>> read_config(content | {"router_jitter_noise": 0.1})
        Traceback (most recent call last):
            ...
        ValueError: the config says router_jitter_noise: 0.1; minillm's router adds no noise
    """
    _check_kind(content)
    keys = {
        key
        for part in (content, content.get("rope_parameters"), content.get("rope_scaling"))
        if isinstance(part, Mapping)
        for key, value in part.items()
        if value is not None
    }
    if missing := NEEDED - keys:
        raise ValueError(f"the config of a {KIND} must say {', '.join(sorted(missing))}")
    if content.get("router_jitter_noise") not in (None, 0):
        raise ValueError(
            f"the config says router_jitter_noise: {content['router_jitter_noise']!r}; minillm's "
            "router adds no noise"
        )
    mistral = {key: value for key, value in content.items() if key not in OWN}
    mistral |= {"model_type": "mistral", "architectures": None}
    try:
        config = hf_config.read_config({"sliding_window": None} | mistral)
    except ValueError as error:
        raise ValueError(f"a {KIND} is read as a mistral with experts, and {error}") from None
    n_experts = count(content, "num_local_experts", most=MOST_EXPERTS // config.n_layers)
    experts = MoEConfig(
        n_experts=n_experts,
        top_k=count(content, "num_experts_per_tok", most=n_experts),
        d_expert=count(content, "intermediate_size"),
    )
    return replace(config, ffn=experts)


def _check_kind(content: Mapping[str, Any]) -> None:
    kind = content.get("model_type")
    if isinstance(kind, str) and kind in hf_config.CLASSES:
        raise ValueError(
            f"the config says model_type: {kind!r}, which has no experts; read it with "
            "minillm.formats.hf"
        )
    if kind != KIND:
        raise ValueError(f"the config says model_type: {kind!r}; this reader is for {KIND!r} alone")
    if content.get("architectures") not in (None, [CLASS]):
        raise ValueError(
            f"the config says architectures: {content['architectures']!r}; of a {KIND}, minillm "
            f"has the parts of a {CLASS}, which predicts tokens"
        )


def to_config(config: TransformerConfig) -> dict[str, Any]:
    """What a Mixtral's config.json says of our model, for transformers 4 and 5.

    Raises:
        ValueError: no Mixtral is like that, and why.

    Example:
        >>> content = to_config(TransformerConfig(vocab_size=50, ffn=MoEConfig(n_experts=4)))
        >>> content["model_type"], content["num_local_experts"], content["intermediate_size"]
        ('mixtral', 4, 344)
    """
    mistral = _without_experts(config)
    try:
        content = hf_config.to_config(mistral)
    except ValueError as error:
        raise ValueError(f"a {KIND} has a mistral's attention, and {error}") from None
    if content["model_type"] == "qwen3":
        raise ValueError(no_such("qk_norm"))
    content.setdefault("sliding_window", None)
    experts = config.ffns[0]
    return content | {
        "architectures": [CLASS],
        "model_type": KIND,
        "num_local_experts": experts.n_experts,
        "num_experts_per_tok": experts.top_k,
    }


def _without_experts(config: TransformerConfig) -> TransformerConfig:
    """The same with one expert's feed-forward part in each block, which chapter 04 knows."""
    if other := [part for part in config.ffns if not isinstance(part, MoEConfig)]:
        raise ValueError(no_such(f"an FFN of {type(other[0]).__name__}"))
    if len(set(config.ffns)) > 1:
        raise ValueError(no_such("layers with different experts"))
    experts = config.ffns[0]
    for name, value in ONLY.items():
        if getattr(experts, name) != value:
            raise ValueError(no_such(f"{name}={getattr(experts, name)!r}, only {value!r}"))
    return replace(config, ffn=SwiGLUConfig(d_ff=experts.d_expert))


def no_such(what: str) -> str:
    """What to say of a model that has what no Mixtral has."""
    return (
        f"transformers' {KIND} has not {what}; keep such a model's state_dict in a safetensors "
        "file, and its config in your code"
    )


# --- the names ----------------------------------------------------------------------------------
class Theirs(NamedTuple):
    """One tensor of a checkpoint.

    Args:
        shape: of it.
        places: where it stands among ours; if several, where each of its slices stands.
    """

    shape: tuple[int, ...]
    places: tuple[Place, ...]


def places(config: TransformerConfig, *, stacked: bool = False) -> dict[str, Theirs]:
    """For every tensor of a Mixtral's checkpoint, by its name there, its places in our model.

    Args:
        config: of a model with experts.
        stacked: the form in which all experts of a layer are one tensor.

    Raises:
        ValueError: what `to_config` refuses.

    Example:
        >>> ffn = MoEConfig(n_experts=2, d_expert=24)
        >>> config = TransformerConfig(vocab_size=50, d_model=16, n_layers=1, ffn=ffn)
        >>> places(config)["model.layers.0.block_sparse_moe.experts.1.w3.weight"].places
        (Place(ours='blocks.0.ffn.experts.1.gate_up.weight', first_row=24, shape=(24, 16)),)
        >>> places(config, stacked=True)["model.layers.0.mlp.experts.down_proj"].shape
        (2, 16, 24)
    """
    content = to_config(config)
    d_model, d_ff = content["hidden_size"], content["intermediate_size"]
    n_experts = content["num_local_experts"]
    place_of = {
        name: Theirs(place.shape, (place,))
        for name, place in hf_names.places(_without_experts(config)).items()
        if ".mlp." not in name
    }
    of_an_expert = [  # of ours, of theirs, the first row, the shape
        ("gate_up", "w1", 0, (d_ff, d_model)),
        ("gate_up", "w3", d_ff, (d_ff, d_model)),
        ("down", "w2", 0, (d_model, d_ff)),
    ]
    if stacked:
        of_an_expert = [
            ("gate_up", "gate_up_proj", 0, (2 * d_ff, d_model)),
            ("down", "down_proj", 0, (d_model, d_ff)),
        ]
    for layer in range(config.n_layers):
        ours = f"blocks.{layer}.ffn"
        theirs = f"model.layers.{layer}.{'mlp' if stacked else 'block_sparse_moe'}"
        gate = Place(f"{ours}.router.weight", 0, (n_experts, d_model))
        place_of[f"{theirs}.gate.weight"] = Theirs(gate.shape, (gate,))
        for part, name, first_row, shape in of_an_expert:
            slices = tuple(
                Place(f"{ours}.experts.{expert}.{part}.weight", first_row, shape)
                for expert in range(n_experts)
            )
            if stacked:
                place_of[f"{theirs}.experts.{name}"] = Theirs((n_experts, *shape), slices)
                continue
            for expert, place in enumerate(slices):
                place_of[f"{theirs}.experts.{expert}.{name}.weight"] = Theirs(shape, (place,))
    return place_of
