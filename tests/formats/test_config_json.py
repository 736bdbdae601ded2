import json
from dataclasses import replace

import pytest

from minillm.experts.hash_routing import HashedMoEConfig
from minillm.experts.lookup import LookupFFNConfig
from minillm.experts.moe import MoEConfig
from minillm.formats.config_json import MODEL_PARTS, from_json, to_json
from minillm.mixers.feature_maps import EluFeatures, FavorFeatures
from minillm.mixers.linear_attention import LinearAttentionConfig
from minillm.mixers.mamba import MambaConfig
from minillm.mixers.patterns import Sinks, Window
from minillm.mixers.retention import RetentionConfig
from minillm.mixers.rwkv import RWKVConfig
from minillm.mixers.short_conv import ShiftedConfig
from minillm.mixers.sparse import SparseAttentionConfig
from minillm.model.attention import AttentionConfig
from minillm.model.config import TransformerConfig, tiny
from minillm.model.ffn import MLPConfig
from minillm.model.rope import Llama3Scaling, NtkScaling, PositionInterpolation, RopeConfig

MIXERS = [
    AttentionConfig(n_kv_heads=2, qk_norm=True, rope=None),
    AttentionConfig(
        rope=RopeConfig(base=5e5, scaling=Llama3Scaling(factor=2.0, original_context_length=64))
    ),
    AttentionConfig(rope=RopeConfig(scaling=NtkScaling(2.0))),
    AttentionConfig(rope=RopeConfig(scaling=PositionInterpolation(4.0))),
    LinearAttentionConfig(features=EluFeatures()),
    LinearAttentionConfig(features=FavorFeatures(seed=2**40)),
    MambaConfig(selective=False),
    RetentionConfig(),
    RWKVConfig(),
    ShiftedConfig(mixer=MambaConfig()),
    SparseAttentionConfig(patterns=(Window(n_tokens=8), Sinks(n_tokens=2))),
]
FFNS = [
    MLPConfig(activation="relu2"),
    MoEConfig(n_experts=3, capacity_factor=1.5),
    HashedMoEConfig(vocab_size=5, n_domains=1, experts_per_domain=2, frequencies=(1.0,) * 5),
    LookupFFNConfig(n_tables=2, bits=3),
]


@pytest.mark.parametrize("part", [*MIXERS, *FFNS], ids=lambda part: type(part).__name__)
def test_a_config_is_the_same_after_a_way_through_a_file(part):
    field = "mixer" if part in MIXERS else "ffn"
    config = replace(tiny(vocab_size=5), **{field: (part, part)})
    assert from_json(json.loads(json.dumps(to_json(config)))) == config


def test_a_part_says_which_one_it_is():
    assert to_json(MLPConfig(d_ff=4)) == {"is": "MLPConfig", "d_ff": 4, "activation": "gelu"}
    assert len({part.__name__ for part in MODEL_PARTS}) == len(MODEL_PARTS)


def test_only_parts_of_the_list_are_named():
    for name in ("Path", "os.system", None, ["MLPConfig"]):
        with pytest.raises(ValueError, match=r"a part is one of TransformerConfig, .*; got"):
            from_json({"is": name})
    with pytest.raises(ValueError, match="cannot be written as JSON"):
        to_json(object())


def test_fields_that_are_missing_unknown_or_of_another_kind_are_refused():
    good = to_json(MoEConfig())
    for content in ({**good, "more": 1}, {k: v for k, v in good.items() if k != "top_k"}):
        with pytest.raises(ValueError, match="MoEConfig has other fields; they differ in"):
            from_json(content)
    with pytest.raises(ValueError, match="wrong kind"):
        from_json({**good, "top_k": "two"})
    with pytest.raises(ValueError, match="top_k must be at least 1"):
        from_json({**good, "top_k": 0})


def test_sizes_that_nobody_means_are_refused_before_anything_is_made():
    content = to_json(TransformerConfig(vocab_size=5)) | {"n_layers": 10**12}
    with pytest.raises(ValueError, match=r"at most 16,777,216 there; got \{'n_layers'"):
        from_json(content)
