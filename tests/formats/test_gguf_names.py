from dataclasses import replace

import gguf
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from minillm.experts.moe import MoEConfig
from minillm.formats.gguf_names import (
    gguf_name,
    model_metadata,
    model_tensors,
    pair_neighbours,
)
from minillm.formats.hf_names import places
from minillm.model.attention import AttentionConfig
from minillm.model.config import TransformerConfig
from minillm.model.ffn import MLPConfig
from minillm.model.rope import NtkScaling, PositionInterpolation, RopeConfig, rotate, tables

LLAMA = TransformerConfig(vocab_size=50, d_model=16, n_layers=2, tied_embeddings=True)
QWEN = replace(LLAMA, mixer=AttentionConfig(qk_norm=True), tied_embeddings=False)


# --- by hand --------------------------------------------------------------------------------------
def test_metadata_has_the_sizes_of_the_model():
    scaling = NtkScaling(factor=2.0)  # only another base: 100 · 2^(8/6)
    rope = RopeConfig(base=100.0, scaling=scaling)
    mixer = AttentionConfig(n_heads=4, n_kv_heads=2, d_head=8, rope=rope)
    config = TransformerConfig(
        vocab_size=50, context_length=32, d_model=24, n_layers=3, norm_epsilon=1e-5, mixer=mixer
    )
    values = list(model_metadata(config).values())
    base = pytest.approx(251.98, abs=0.01)
    assert values == ["llama", 32, 24, 3, 64, 4, 2, 8, 8, 1e-5, 8, base, 50]


def test_queries_and_keys_are_dealt_out_anew_for_a_llama_alone():
    for config, is_llama in ((LLAMA, True), (QWEN, False)):
        model = config.build()
        tensors, qkv = model_tensors(model), model.blocks[1].mixer.qkv.weight
        for name, matrix in zip(("attn_q", "attn_k", "attn_v"), qkv.chunk(3), strict=True):
            theirs = tensors[f"blk.1.{name}.weight"]
            turned = is_llama and name != "attn_v"
            assert torch.equal(theirs, pair_neighbours(matrix, 4) if turned else matrix)
            assert torch.equal(theirs, matrix) != turned
    assert "output.weight" in tensors and "output.weight" not in model_tensors(LLAMA.build())


# --- reference ------------------------------------------------------------------------------------
@pytest.mark.parametrize(("config", "kind"), [(LLAMA, "LLAMA"), (QWEN, "QWEN3")])
def test_names_are_those_of_the_gguf_package(config, kind):
    table = gguf.get_tensor_name_map(gguf.MODEL_ARCH[kind], config.n_layers)
    for name in places(config):
        assert gguf_name(name) == f"{table.get_name(name.removesuffix('.weight'))}.weight"
    metadata, groups = model_metadata(config), filter(callable, vars(gguf.Keys).values())
    keys = {key for group in groups for key in vars(group).values() if isinstance(key, str)}
    assert set(metadata) <= {key.replace("{arch}", kind.lower()) for key in keys}
    assert metadata["general.architecture"] == kind.lower()


# --- laws -----------------------------------------------------------------------------------------
@settings(max_examples=30, deadline=None)
@given(st.integers(1, 3), st.integers(1, 4), st.integers(0, 50))
def test_neighbours_turned_give_the_scores_of_halves_turned(n_heads, n_pairs, position):
    d_head = 2 * n_pairs
    generator = torch.Generator().manual_seed(position)
    q, k = torch.randn(2, n_heads * d_head, 1, generator=generator, dtype=torch.float64)
    theta = 100.0 ** (-torch.arange(n_pairs, dtype=torch.float64) / n_pairs)
    cos, sin = (table[-1] for table in tables(theta, position + 1, dtype=torch.float64))
    halves = rotate(q.reshape(n_heads, 1, d_head), cos, sin).flatten(1)
    pairs = torch.view_as_complex(pair_neighbours(q, d_head).reshape(n_heads, n_pairs, 2))
    turned = torch.polar(torch.ones_like(theta), position * theta) * pairs  # as llama.cpp turns
    neighbours = torch.view_as_real(turned).flatten(1)
    scores = neighbours @ pair_neighbours(k, d_head).reshape(n_heads, d_head).mT
    torch.testing.assert_close(
        scores,
        halves @ k.reshape(n_heads, d_head).mT,
        rtol=1e-5,
        atol=1e-5,  # tables in float32
    )


# --- what can be wrong ----------------------------------------------------------------------------
@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"ffn": MoEConfig(n_experts=2)}, "none has an FFN of MoEConfig"),
        ({"ffn": MLPConfig()}, "none has an FFN of MLPConfig"),
        ({"mixer": AttentionConfig(window_tokens=8)}, "llama and qwen3 have not windows"),
        (
            {"mixer": AttentionConfig(rope=RopeConfig(scaling=PositionInterpolation(2.0)))},
            "have not a scaled rotation, PositionInterpolation",
        ),
    ],
)
def test_what_the_architectures_have_not_is_refused_by_name(change, words):
    with pytest.raises(ValueError, match=words):
        model_metadata(replace(LLAMA, **change))


def test_a_model_that_is_not_what_its_config_says_is_refused():
    model = LLAMA.build()
    model.blocks[0].ffn.down.register_buffer("scales", torch.ones(2))
    with pytest.raises(ValueError, match=r"quantized already.*blocks\.0\.ffn\.down\.scales"):
        model_tensors(model)
    model = LLAMA.build()
    torch.nn.init.constant_(model.norm.weight, float("nan"))
    with pytest.raises(ValueError, match=r"model\.norm\.weight: 16 of 16 numbers"):
        model_tensors(model)
    model.config = None
    with pytest.raises(ValueError, match="this one has none"):
        model_tensors(model)
