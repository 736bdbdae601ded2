"""The config.json of Llama and its relatives, read and written: their names for our numbers.

    vocab_size                vocab_size            num_attention_heads   n_heads
    hidden_size               width              num_key_value_heads   n_kv_heads
    num_hidden_layers         n_layers           head_dim              d_head
    intermediate_size         d_ff       rms_norm_eps          norm_epsilon
    max_position_embeddings   context_length     sliding_window        window_tokens
    tie_word_embeddings       tied_embeddings    rope_parameters       rope

Three of transformers' model types consist of our parts. A Mistral is a Llama whose tokens may see
the last few thousand only; a Qwen 3 norms its queries and keys, and some of its layers may have
such a window.

A config can ask for more than our parts do. What would change a single logit is refused by name,
and so is every key that is not known here: a model is never loaded by halves.

Chapter: 04
"""

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from minillm.formats.hf_rope import read_rope, to_rope
from minillm.formats.json_file import count, flag, number
from minillm.model.attention import Attention, AttentionConfig
from minillm.model.config import TransformerConfig
from minillm.model.ffn import SwiGLUConfig

CLASSES = {
    "llama": "LlamaForCausalLM",
    "mistral": "MistralForCausalLM",
    "qwen3": "Qwen3ForCausalLM",
}
NEEDED = {
    "vocab_size",
    "hidden_size",
    "intermediate_size",
    "num_hidden_layers",
    "num_attention_heads",
    "max_position_embeddings",
}
#: What a type must say too: where it is silent, transformers takes the value of one large model.
NEEDED_BY = {
    "llama": set(),
    "mistral": {"num_key_value_heads", "sliding_window"},
    "qwen3": {"num_key_value_heads", "head_dim"},
}
KNOWN = {
    "model_type",
    "num_key_value_heads",
    "head_dim",
    "rms_norm_eps",
    "tie_word_embeddings",
    "initializer_range",
    "rope_parameters",
    "rope_scaling",
    "rope_theta",
    "partial_rotary_factor",
}
KNOWN_BY = {
    "llama": set(),
    "mistral": set(),
    "qwen3": {"use_sliding_window", "sliding_window", "max_window_layers", "layer_types"},
}
#: Keys of which our parts know one meaning.
ONLY = {
    "attention_bias": (False,),
    "mlp_bias": (False,),
    "hidden_act": ("silu", "swish"),
    "rope_interleaved": (False,),
    "quantization_config": (None,),
}
#: Keys that change no logit: who wrote the file, how the model was trained, when it is to stop.
BESIDE = {
    "_name_or_path",
    "architectures",
    "attention_dropout",
    "bos_token_id",
    "dtype",
    "eos_token_id",
    "is_llama_config",
    "pad_token_id",
    "pretraining_tp",
    "torch_dtype",
    "transformers.js_config",
    "transformers_version",
    "use_cache",
}
#: What is larger was not meant; it is refused before lists and tables grow to that length.
MOST_LAYERS, MOST_HEAD_WIDTH = 1_000, 65_536


# --- theirs to ours -----------------------------------------------------------------------------
def read_config(content: Mapping[str, Any]) -> TransformerConfig:
    """Our config of the model that a config.json describes.

    Args:
        content: what the file holds; of transformers 4 or 5, which name the rotation differently.

    Raises:
        ValueError: another model type; a key that is missing or unknown, or that has a value which
            our parts cannot give it.

    Example:
        >>> content = {
        ...     "model_type": "llama", "vocab_size": 50, "max_position_embeddings": 32,
        ...     "hidden_size": 16, "intermediate_size": 24, "num_hidden_layers": 1,
        ...     "num_attention_heads": 4, "num_key_value_heads": 2,
        ... }
        >>> read_config(content).mixer.n_kv_heads
        2
        >>> read_config(content | {"attention_bias": True})
        Traceback (most recent call last):
            ...
        ValueError: the config says attention_bias: True; minillm's parts have only False
    """
    kind = content.get("model_type")
    if not isinstance(kind, str) or kind not in CLASSES:
        raise ValueError(
            f"the config says model_type: {kind!r}; minillm has the parts of {', '.join(CLASSES)}"
        )
    _check_keys(content, kind)
    n_layers = count(content, "num_hidden_layers", most=MOST_LAYERS)
    d_model, n_heads = count(content, "hidden_size"), count(content, "num_attention_heads")
    if content.get("head_dim") is None and d_model % n_heads:
        raise ValueError(
            "without a head_dim, num_attention_heads must divide hidden_size; the config says "
            f"{n_heads} and {d_model}"
        )
    epsilon = number(content, "rms_norm_eps", 1e-6)
    mixer = AttentionConfig(
        n_heads=n_heads,
        n_kv_heads=count(content, "num_key_value_heads", n_heads),
        d_head=count(content, "head_dim", d_model // n_heads, most=MOST_HEAD_WIDTH),
        rope=read_rope(content),
        qk_norm=kind == "qwen3",
        norm_epsilon=epsilon,
    )
    windows = _read_windows(content, kind, n_layers)
    mixers = tuple(replace(mixer, window_tokens=window) for window in windows)
    return TransformerConfig(
        vocab_size=count(content, "vocab_size"),
        context_length=count(content, "max_position_embeddings"),
        d_model=d_model,
        n_layers=n_layers,
        mixer=mixers[0] if len(set(windows)) == 1 else mixers,
        ffn=SwiGLUConfig(d_ff=count(content, "intermediate_size")),
        norm_epsilon=epsilon,
        tied_embeddings=flag(content, "tie_word_embeddings"),
        initial_std=number(content, "initializer_range", 0.02),
    )


def _check_keys(content: Mapping[str, Any], kind: str) -> None:
    for key, values in ONLY.items():
        if key in content and content[key] not in values:
            raise ValueError(
                f"the config says {key}: {content[key]!r}; minillm's parts have only "
                f"{' or '.join(map(repr, values))}"
            )
    needed = NEEDED | NEEDED_BY[kind]
    if missing := needed - set(content):
        raise ValueError(f"the config of a {kind} must say {', '.join(sorted(missing))}")
    if unknown := set(content) - needed - KNOWN - KNOWN_BY[kind] - set(ONLY) - BESIDE:
        raise ValueError(
            f"the config says of a {kind} what minillm does not know: {', '.join(sorted(unknown))}"
            ". Take out of it what you know to change no logit"
        )
    if content.get("architectures") not in (None, [CLASSES[kind]]):
        raise ValueError(
            f"the config says architectures: {content['architectures']!r}; of a {kind}, minillm "
            f"has the parts of a {CLASSES[kind]}, which predicts tokens"
        )


def _read_windows(content: Mapping[str, Any], kind: str, n_layers: int) -> list[int | None]:
    """How many tokens a token sees, in each layer; None for all."""
    window = None
    if kind == "mistral" or flag(content, "use_sliding_window"):
        window = content.get("sliding_window")
        window = None if window is None else count(content, "sliding_window")
    types = content.get("layer_types") if kind == "qwen3" else None
    if types is None:
        n_full = 0  # of the first layers
        if kind == "qwen3" and window is not None:
            n_full = count(content, "max_window_layers", least=0)
        return [None if layer < n_full else window for layer in range(n_layers)]
    sees = {"full_attention": None}
    if window is not None:
        sees["sliding_attention"] = window
    known = isinstance(types, list) and all(isinstance(t, str) and t in sees for t in types)
    if not known or len(types) != n_layers:
        raise ValueError(
            f"layer_types must name one of {', '.join(sees)} for each of the {n_layers} layers"
            f"{'' if window else ', as there is no sliding_window in use'}; the config says {types}"
        )
    return [sees[name] for name in types]


# --- ours to theirs -----------------------------------------------------------------------------
def to_config(config: TransformerConfig) -> dict[str, Any]:
    """What a config.json says of our model, for transformers 4 and 5.

    Raises:
        ValueError: transformers has no such model among the three types, and why.

    Example:
        >>> content = to_config(TransformerConfig(vocab_size=50))
        >>> content["model_type"], content["intermediate_size"], content["rope_parameters"]
        ('llama', 344, {'rope_type': 'default', 'rope_theta': 10000.0})
    """
    layers, d_ff = _attentions(config), _hidden_width(config)
    kind, rope = _kind(config, layers), to_rope(config.mixers[0].rope, layers[0].d_head)
    scaling = {key: value for key, value in rope.items() if key != "rope_theta"}
    content = {
        "architectures": [CLASSES[kind]],
        "model_type": kind,
        "vocab_size": config.vocab_size,
        "hidden_size": config.d_model,
        "intermediate_size": d_ff,
        "num_hidden_layers": config.n_layers,
        "num_attention_heads": layers[0].n_heads,
        "num_key_value_heads": layers[0].n_kv_heads,
        "head_dim": layers[0].d_head,
        "hidden_act": "silu",
        "max_position_embeddings": config.context_length,
        "rms_norm_eps": config.norm_epsilon,
        "tie_word_embeddings": config.tied_embeddings,
        "initializer_range": config.initial_std,
        "rope_parameters": rope,  # for transformers 5; the next two are for 4
        "rope_theta": rope["rope_theta"],
        "rope_scaling": None if rope["rope_type"] == "default" else scaling,
    }
    windows = [layer.window_tokens for layer in layers]
    if kind == "mistral":
        content["sliding_window"] = windows[0]
    elif kind == "qwen3":
        content |= _to_windows(windows)
    return content


def _attentions(config: TransformerConfig) -> list[Attention]:
    """Each block's attention, without its weights: what a config left open is decided there."""
    parts = config.mixers
    if other := [part for part in parts if not isinstance(part, AttentionConfig)]:
        raise ValueError(_no_such(f"a mixer of {type(other[0]).__name__}"))
    built = {part: part.build(config.d_model, 1, device="meta") for part in set(parts)}
    layers = [built[part] for part in parts]
    alike = {(layer.n_heads, layer.n_kv_heads, layer.d_head) for layer in layers}
    if len(alike) > 1 or len({part.rope for part in parts}) > 1:
        raise ValueError(_no_such("layers with different heads or rotations"))
    if parts[0].rope is None:
        raise ValueError(_no_such("attention without rotations, rope=None"))
    return layers


def _hidden_width(config: TransformerConfig) -> int:
    parts = config.ffns
    if other := [part for part in parts if not isinstance(part, SwiGLUConfig)]:
        raise ValueError(_no_such(f"an FFN of {type(other[0]).__name__}"))
    widths = {part.build(config.d_model, device="meta").down.in_features for part in parts}
    if len(widths) > 1:
        raise ValueError(_no_such(f"FFNs of different widths, {sorted(widths)}"))
    return widths.pop()


def _kind(config: TransformerConfig, layers: list[Attention]) -> str:
    windows = {layer.window_tokens for layer in layers}
    epsilons = {layer.qk_norm_epsilon for layer in layers}
    if epsilons == {config.norm_epsilon}:
        if len(windows - {None}) > 1:
            raise ValueError(_no_such(f"windows of different lengths, {sorted(windows - {None})}"))
        return "qwen3"
    if epsilons != {None}:
        raise ValueError(
            _no_such("qk_norm in some layers only, or with another epsilon than the other norms")
        )
    if len(windows) > 1:
        raise ValueError(_no_such("windows in some layers only, without qk_norm"))
    # transformers refuses a Llama whose heads do not divide its width; its Mistral is the same.
    plain = windows == {None} and config.d_model % layers[0].n_heads == 0
    return "llama" if plain else "mistral"


def _to_windows(windows: list[int | None]) -> dict[str, Any]:
    names = ["full_attention" if window is None else "sliding_attention" for window in windows]
    return {
        "use_sliding_window": windows != [None] * len(windows),
        "sliding_window": max((window for window in windows if window is not None), default=None),
        "layer_types": names,
        "max_window_layers": [*names, "sliding_attention"].index("sliding_attention"),
    }


def _no_such(what: str) -> str:
    return (
        f"of transformers' {', '.join(CLASSES)} none has {what}; keep such a model's state_dict in "
        "a safetensors file, and its config in your code"
    )
