"""The rotation in a config.json, read and written.

transformers 5 tells it in one place, transformers 4 in two:

    "rope_parameters": {"rope_theta": 500000.0, "rope_type": "llama3", "factor": 8.0, ...}
    "rope_theta": 500000.0, "rope_scaling": {"rope_type": "llama3", "factor": 8.0, ...}

Of its types, "default", "linear" (`PositionInterpolation`) and "llama3" (`Llama3Scaling`) fix the
angles beforehand. "dynamic" and "longrope" change them with the length of the text, "yarn" scales
attention too; these are refused.

Chapter: 04
"""

from collections.abc import Callable, Mapping
from typing import Any

import torch

from minillm.formats.json_file import count, number
from minillm.model.config import TransformerConfig
from minillm.model.rope import Llama3Scaling, NtkScaling, PositionInterpolation, RopeConfig

MOST_ROTATION_BYTES = 2**31
TYPES = {
    "default": set(),
    "linear": {"factor"},
    "llama3": {"factor", "low_freq_factor", "high_freq_factor", "original_max_position_embeddings"},
}


def read_rope(content: Mapping[str, Any]) -> RopeConfig:
    """Our rotation, of what a config.json says.

    Args:
        content: the whole of it.

    Raises:
        ValueError: another type; a name that the type does not have; a value that is missing, or
            said twice and differently.

    Example:
        >>> read_rope({"rope_theta": 500.0, "rope_scaling": {"type": "linear", "factor": 2}})
        RopeConfig(base=500.0, scaling=PositionInterpolation(factor=2.0))
    """
    settings, places = _said(content)
    kind = settings.pop("rope_type", "default")
    if not isinstance(kind, str) or kind not in TYPES:
        raise ValueError(f"the config says rope_type: {kind!r}; minillm has {', '.join(TYPES)}")
    if unknown := set(settings) - TYPES[kind] - {"rope_theta"}:
        raise ValueError(
            f"the config says of a {kind} rotation what minillm does not know: "
            f"{', '.join(sorted(unknown))}"
        )

    def read(reader: Callable, key: str, *default: Any) -> Any:
        try:
            return reader(settings, key, *default)
        except ValueError as error:
            raise ValueError(f"{places.get(key, places.get('rope_type', ''))}{error}") from None

    scaling = None
    if kind == "linear":
        scaling = PositionInterpolation(read(number, "factor"))
    elif kind == "llama3":
        whole = content.get("max_position_embeddings")
        scaling = Llama3Scaling(
            factor=read(number, "factor"),
            low_freq_factor=read(number, "low_freq_factor"),
            high_freq_factor=read(number, "high_freq_factor"),
            original_context_length=read(count, "original_max_position_embeddings", whole),
        )
    return RopeConfig(base=read(number, "rope_theta", 10000.0), scaling=scaling)


def _said(content: Mapping[str, Any]) -> tuple[dict[str, Any], dict[str, str]]:
    """All that is said of the rotation, in whichever place, and the path to each name's place."""
    settings: dict[str, Any] = {}
    places: dict[str, str] = {}
    above = {key: content[key] for key in ("rope_theta", "partial_rotary_factor") if key in content}
    parts = {f"{key}.": content.get(key) for key in ("rope_parameters", "rope_scaling")}
    for place, part in {**parts, "": above}.items():
        if not isinstance(part, Mapping | None):
            raise ValueError(f"the rotation must be an object of names and values; got {part!r}")
        for name, value in (part or {}).items():
            key = "rope_type" if name == "type" else name
            places.setdefault(key, place)
            if settings.setdefault(key, value) != value:
                raise ValueError(
                    f"the config says two things of {key}: {settings[key]!r} and {value!r}"
                )
    if settings.pop("partial_rotary_factor", None) not in (None, 1):
        raise ValueError(
            "the config says partial_rotary_factor: of each head only a part is turned; minillm "
            "turns all of it"
        )
    return settings, places


def to_rope(rope: RopeConfig, d_head: int) -> dict[str, Any]:
    """What transformers 5's rope_parameters say of our rotation.

    Args:
        rope: the rotation.
        d_head: K.

    Example:
        >>> to_rope(RopeConfig(base=500.0), d_head=8)
        {'rope_type': 'default', 'rope_theta': 500.0}
    """
    settings: dict[str, Any] = {"rope_type": "default", "rope_theta": float(rope.base)}
    match rope.scaling:
        case PositionInterpolation(factor=factor):
            settings |= {"rope_type": "linear", "factor": float(factor)}
        case NtkScaling(factor=factor):  # "dynamic" grows with the text; ours is but a larger base
            settings["rope_theta"] *= factor ** (d_head / (d_head - 2))
        case Llama3Scaling() as scaling:
            settings |= {
                "rope_type": "llama3",
                "factor": float(scaling.factor),
                "low_freq_factor": float(scaling.low_freq_factor),
                "high_freq_factor": float(scaling.high_freq_factor),
                "original_max_position_embeddings": scaling.original_context_length,
            }
    return settings


def check_rotations(config: TransformerConfig, dtype: torch.dtype) -> None:
    """Refuse a context whose rotations would take the machine's memory."""
    n_numbers = sum(2 * mixer.d_head * config.context_length for mixer in config.mixers)
    n_bytes = n_numbers * dtype.itemsize
    if n_bytes > MOST_ROTATION_BYTES:
        raise ValueError(
            f"rotations for texts of {config.context_length:,} tokens would take {n_bytes:,} "
            "bytes; say how long your texts are, as by load(..., context_length=4096)"
        )
