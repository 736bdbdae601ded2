"""Configs as JSON and back: what a model of any parts is built from, as data.

A config is a frozen dataclass of numbers, texts, tuples and other configs. As JSON it is an object
that says which one it `is`:

    {"is": "TransformerConfig", "vocab_size": 50, …, "mixer": {"is": "MambaConfig", …}, …}

Which names may stand there is a list in the code. So a file can name a part, and never a program.

Chapter: 18
"""

from collections.abc import Iterable, Mapping
from dataclasses import fields, is_dataclass
from typing import Any

from minillm.experts.hash_routing import HashedMoEConfig
from minillm.experts.lookup import LookupFFNConfig
from minillm.experts.moe import MoEConfig
from minillm.mixers import patterns
from minillm.mixers.feature_maps import EluFeatures, FavorFeatures
from minillm.mixers.linear_attention import LinearAttentionConfig
from minillm.mixers.mamba import MambaConfig
from minillm.mixers.retention import RetentionConfig
from minillm.mixers.rwkv import RWKVConfig
from minillm.mixers.short_conv import ShiftedConfig
from minillm.mixers.sparse import SparseAttentionConfig
from minillm.model import rope
from minillm.model.attention import AttentionConfig
from minillm.model.config import TransformerConfig
from minillm.model.ffn import MLPConfig, SwiGLUConfig

LARGEST = 2**24  # of whole numbers that are no seeds: nothing is ever so long or so wide
#: Of a model of this library.
MODEL_PARTS = (
    TransformerConfig, AttentionConfig, SwiGLUConfig, MLPConfig, MoEConfig, HashedMoEConfig,
    LookupFFNConfig, LinearAttentionConfig, EluFeatures, FavorFeatures, RetentionConfig, RWKVConfig,
    MambaConfig, ShiftedConfig, SparseAttentionConfig, patterns.Window, patterns.Sinks,
    patterns.Strided, patterns.Random, patterns.Global, patterns.Hierarchical, rope.RopeConfig,
    rope.PositionInterpolation, rope.NtkScaling, rope.Llama3Scaling,
)  # fmt: skip


def to_json(value: Any, parts: Iterable[type] = MODEL_PARTS) -> Any:
    """A config as what `json` writes.

    Args:
        value: of one of `parts`, or a number, a text, a tuple.
        parts: the dataclasses that may be written.

    Raises:
        ValueError: something else, within it too.

    Example:
        >>> to_json((rope.PositionInterpolation(2.0), None))
        [{'is': 'PositionInterpolation', 'factor': 2.0}, None]
    """
    if is_dataclass(value) and type(value) in parts:
        content = {each.name: to_json(getattr(value, each.name), parts) for each in fields(value)}
        return {"is": type(value).__name__, **content}
    if isinstance(value, tuple | list):
        return [to_json(each, parts) for each in value]
    if value is None or isinstance(value, bool | int | float | str):
        return value
    raise ValueError(f"{value!r} cannot be written as JSON; the parts that can are {_names(parts)}")


def from_json(content: Any, parts: Iterable[type] = MODEL_PARTS) -> Any:
    """A config from what `json` read; nothing but its class is called.

    Args:
        content: as `to_json` gives it.
        parts: the dataclasses that may be named.

    Raises:
        ValueError: an unknown part; a field that is missing, unknown, or refused by the part.

    Example:
        >>> config = TransformerConfig(vocab_size=50, mixer=MambaConfig(d_state=4))
        >>> from_json(to_json(config)) == config
        True
    """
    if isinstance(content, list):
        return tuple(from_json(each, parts) for each in content)
    if not isinstance(content, Mapping):
        return content
    if large := {k: v for k, v in content.items() if k != "seed" and _is_large(v)}:
        raise ValueError(f"whole numbers are at most {LARGEST:,} there; got {large}")
    part = {each.__name__: each for each in parts}.get(str(content.get("is")))
    if part is None:
        raise ValueError(f"a part is one of {_names(parts)}; got {content.get('is')!r}")
    values = {key: from_json(each, parts) for key, each in content.items() if key != "is"}
    if wrong := values.keys() ^ {each.name for each in fields(part)}:
        raise ValueError(f"{part.__name__} has other fields; they differ in {sorted(wrong)}")
    try:
        return part(**values)
    except (TypeError, AttributeError) as error:
        raise ValueError(f"{part.__name__} has a field of the wrong kind: {error}") from None


def _is_large(value: Any) -> bool:
    return isinstance(value, int) and abs(value) > LARGEST


def _names(parts: Iterable[type]) -> str:
    return ", ".join(each.__name__ for each in parts)
