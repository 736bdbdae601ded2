from dataclasses import replace

import pytest
import torch
from transformers import AutoConfig, AutoModelForCausalLM

from minillm.formats.hf_config import to_config
from minillm.formats.hf_names import Place, places, rows
from minillm.model.attention import AttentionConfig
from minillm.model.config import TransformerConfig
from minillm.model.ffn import MLPConfig, SwiGLUConfig

GROUPED = AttentionConfig(n_heads=4, n_kv_heads=2, d_head=6)
CONFIG = TransformerConfig(
    vocab_size=19, d_model=8, n_layers=2, mixer=GROUPED, ffn=SwiGLUConfig(d_ff=5)
)
KINDS = {
    "llama": CONFIG,
    "tied": replace(CONFIG, tied_embeddings=True),
    "mistral": replace(CONFIG, mixer=replace(GROUPED, window_tokens=3)),
    "qwen3": replace(CONFIG, mixer=replace(GROUPED, qk_norm=True)),
}


# --- by hand -----------------------------------------------------------------------------------
def test_a_block_of_theirs_stands_in_ours_row_by_row():
    there = places(replace(CONFIG, n_layers=1))
    layer, block = "model.layers.0", "blocks.0"
    assert there == {
        "model.embed_tokens.weight": Place("embedding.weight", 0, (19, 8)),
        f"{layer}.input_layernorm.weight": Place(f"{block}.mixer_norm.weight", 0, (8,)),
        # 4 heads of 6 numbers ask, 2 are kept
        f"{layer}.self_attn.q_proj.weight": Place(f"{block}.mixer.qkv.weight", 0, (24, 8)),
        f"{layer}.self_attn.k_proj.weight": Place(f"{block}.mixer.qkv.weight", 24, (12, 8)),
        f"{layer}.self_attn.v_proj.weight": Place(f"{block}.mixer.qkv.weight", 36, (12, 8)),
        f"{layer}.self_attn.o_proj.weight": Place(f"{block}.mixer.output.weight", 0, (8, 24)),
        f"{layer}.post_attention_layernorm.weight": Place(f"{block}.ffn_norm.weight", 0, (8,)),
        f"{layer}.mlp.gate_proj.weight": Place(f"{block}.ffn.gate_up.weight", 0, (5, 8)),
        f"{layer}.mlp.up_proj.weight": Place(f"{block}.ffn.gate_up.weight", 5, (5, 8)),
        f"{layer}.mlp.down_proj.weight": Place(f"{block}.ffn.down.weight", 0, (8, 5)),
        "model.norm.weight": Place("norm.weight", 0, (8,)),
        "lm_head.weight": Place("head.weight", 0, (19, 8)),
    }


def test_rows_are_a_view_that_can_be_written():
    state = {"qkv": torch.zeros(4, 2), "norm": torch.zeros(3)}
    rows(state, Place("qkv", 1, (2, 2))).fill_(1)
    rows(state, Place("norm", 0, (3,))).fill_(2)
    assert state["qkv"].tolist() == [[0, 0], [1, 1], [1, 1], [0, 0]]
    assert state["norm"].tolist() == [2, 2, 2]


# --- reference ---------------------------------------------------------------------------------
@pytest.mark.parametrize("config", KINDS.values(), ids=KINDS)
def test_names_and_shapes_are_those_of_transformers(config):
    said = to_config(config)
    with torch.device("meta"):
        theirs = AutoModelForCausalLM.from_config(AutoConfig.for_model(**said))
    expected = {name: tuple(p.shape) for name, p in theirs.named_parameters()}
    assert {name: place.shape for name, place in places(config).items()} == expected


# --- law ---------------------------------------------------------------------------------------
@pytest.mark.parametrize("config", KINDS.values(), ids=KINDS)
def test_every_row_of_ours_belongs_to_exactly_one_of_theirs(config):
    state = config.build().state_dict()
    for tensor in state.values():
        tensor.zero_()
    for place in places(config).values():
        assert rows(state, place).shape == place.shape
        rows(state, place).add_(1)
    assert {name for name, tensor in state.items() if not (tensor == 1).all()} == set()


# --- bad input ---------------------------------------------------------------------------------
def test_a_model_that_transformers_does_not_have_has_no_names():
    with pytest.raises(ValueError, match="none has an FFN of MLPConfig"):
        places(replace(CONFIG, ffn=MLPConfig()))
