import math
from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from transformers import MixtralConfig

from minillm.experts.moe import MoEConfig
from minillm.formats.hf_config import read_config as read_mistral
from minillm.formats.hf_mixtral_names import places, read_config, to_config
from minillm.formats.hf_names import Place
from minillm.formats.json_file import read_object
from minillm.model.attention import AttentionConfig
from minillm.model.config import TransformerConfig
from minillm.model.ffn import MLPConfig, SwiGLUConfig
from minillm.model.rope import RopeConfig

MIXTRAL = {
    "model_type": "mixtral",
    "vocab_size": 50,
    "hidden_size": 16,
    "intermediate_size": 24,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 32,
    "rms_norm_eps": 1e-5,
    "rope_theta": 500.0,
    "num_local_experts": 4,
    "num_experts_per_tok": 2,
}
OURS = TransformerConfig(
    vocab_size=50, d_model=16, n_layers=2, ffn=MoEConfig(n_experts=3, d_expert=24)
)


# --- by hand -----------------------------------------------------------------------------------
def test_each_number_has_its_place():
    mixer = AttentionConfig(
        n_heads=4, n_kv_heads=2, d_head=4, rope=RopeConfig(base=500.0), norm_epsilon=1e-5
    )
    assert read_config(MIXTRAL) == TransformerConfig(
        vocab_size=50,
        context_length=32,
        d_model=16,
        n_layers=3,
        mixer=mixer,
        ffn=MoEConfig(n_experts=4, top_k=2, d_expert=24),
        norm_epsilon=1e-5,
    )


def test_the_published_mixtral_has_the_parameters_that_its_paper_counts():
    content = {
        "architectures": ["MixtralForCausalLM"],
        "attention_dropout": 0.0,
        "bos_token_id": 1,
        "eos_token_id": 2,
        "hidden_act": "silu",
        "hidden_size": 4096,
        "initializer_range": 0.02,
        "intermediate_size": 14336,
        "max_position_embeddings": 32768,
        "model_type": "mixtral",
        "num_attention_heads": 32,
        "num_experts_per_tok": 2,
        "num_hidden_layers": 32,
        "num_key_value_heads": 8,
        "num_local_experts": 8,
        "output_router_logits": False,
        "rms_norm_eps": 1e-05,
        "rope_theta": 1000000.0,
        "router_aux_loss_coef": 0.02,
        "sliding_window": None,
        "tie_word_embeddings": False,
        "torch_dtype": "bfloat16",
        "transformers_version": "4.36.0.dev0",
        "use_cache": True,
        "vocab_size": 32000,
    }
    attention, expert = 2 * 4096 * (4096 + 1024), 3 * 4096 * 14336
    layer = attention + 8 * expert + 8 * 4096 + 2 * 4096
    total = 32 * layer + 2 * 32000 * 4096 + 4096
    assert total == 46_702_792_704  # "47B"
    for stacked in (False, True):
        there = places(read_config(content), stacked=stacked)
        assert sum(math.prod(theirs.shape) for theirs in there.values()) == total


def test_an_experts_three_matrices_are_rows_of_two_of_ours():
    there, start = places(OURS), "model.layers.1.block_sparse_moe"
    ours = "blocks.1.ffn.experts.2"
    assert there[f"{start}.gate.weight"].places == (
        Place("blocks.1.ffn.router.weight", 0, (3, 16)),
    )
    for theirs, name, first_row, shape in [
        ("w1", "gate_up", 0, (24, 16)),
        ("w2", "down", 0, (16, 24)),
        ("w3", "gate_up", 24, (24, 16)),
    ]:
        found = there[f"{start}.experts.2.{theirs}.weight"]
        assert found == (shape, (Place(f"{ours}.{name}.weight", first_row, shape),))


def test_stacked_the_experts_of_a_layer_are_two_tensors_one_slice_an_expert():
    there = places(OURS, stacked=True)
    assert len(there) == 3 + 2 * (6 + 3)  # tables and norm; a layer's attention and norms, experts
    found = there["model.layers.0.mlp.experts.gate_up_proj"]
    assert found.shape == (3, 48, 16)
    names = [f"blocks.0.ffn.experts.{n}.gate_up.weight" for n in range(3)]
    assert found.places == tuple(Place(name, 0, (48, 16)) for name in names)


# --- twin --------------------------------------------------------------------------------------
@pytest.mark.parametrize("stacked", [False, True])
def test_every_row_of_the_model_has_one_place_in_either_form(stacked):
    state = OURS.build(device="meta").state_dict()
    expected = [
        (name, row, *tensor.shape[1:])
        for name, tensor in state.items()
        for row in range(len(tensor))
        if not name.endswith("expert_bias")
    ]
    found = [
        (place.ours, place.first_row + row, *place.shape[1:])
        for theirs in places(OURS, stacked=stacked).values()
        for place in theirs.places
        for row in range(place.shape[0])
    ]
    assert sorted(found) == sorted(expected)


def test_all_but_the_experts_is_read_as_a_mistrals():
    beside = {"num_local_experts", "num_experts_per_tok"}
    mistral = {key: value for key, value in MIXTRAL.items() if key not in beside}
    for said in (
        {"sliding_window": None},
        {"sliding_window": 5},
        {"sliding_window": 5, "head_dim": 6, "tie_word_embeddings": True},
    ):
        expected = read_mistral(mistral | said | {"model_type": "mistral"})
        assert replace(read_config(MIXTRAL | said), ffn=expected.ffn) == expected


# --- reference ---------------------------------------------------------------------------------
def test_what_transformers_makes_of_our_config_is_read_back_as_it_was(tmp_path):
    config = read_config(MIXTRAL | {"sliding_window": 5, "head_dim": 6})
    content = to_config(config)
    theirs = MixtralConfig(**content)
    for key in ("num_local_experts", "num_experts_per_tok", "sliding_window", "head_dim"):
        assert getattr(theirs, key) == content[key]
    theirs.save_pretrained(tmp_path)
    assert read_config(read_object(tmp_path / "config.json")) == config


# --- law ---------------------------------------------------------------------------------------
@settings(deadline=None, max_examples=40)
@given(st.data())
def test_a_config_comes_back_as_it_was(data):
    n_kv_heads = data.draw(st.sampled_from([1, 2, 4]))
    epsilon = data.draw(st.sampled_from([1e-6, 1e-5]))
    n_experts = data.draw(st.integers(1, 9))
    config = TransformerConfig(
        vocab_size=data.draw(st.integers(1, 99)),
        context_length=data.draw(st.integers(1, 99)),
        d_model=16,
        n_layers=data.draw(st.integers(1, 3)),
        mixer=AttentionConfig(
            n_heads=4,
            n_kv_heads=n_kv_heads,
            d_head=data.draw(st.sampled_from([2, 4, 10])),
            rope=RopeConfig(base=data.draw(st.sampled_from([100.0, 1e6]))),
            window_tokens=data.draw(st.sampled_from([None, 1, 7])),
            norm_epsilon=epsilon,
        ),
        ffn=MoEConfig(
            n_experts=n_experts,
            top_k=data.draw(st.integers(1, n_experts)),
            d_expert=data.draw(st.integers(1, 99)),
        ),
        norm_epsilon=epsilon,
        tied_embeddings=data.draw(st.booleans()),
    )
    assert read_config(to_config(config)) == config


def test_what_changes_no_logit_is_read_over():
    beside = {"router_aux_loss_coef": 0.02, "output_router_logits": True, "use_cache": False}
    zero = {"router_jitter_noise": 0.0, "architectures": ["MixtralForCausalLM"]}
    assert read_config(MIXTRAL | beside | zero) == read_config(MIXTRAL)


# --- bad input ---------------------------------------------------------------------------------
@pytest.mark.parametrize(
    "said, message",
    [
        ({"router_jitter_noise": 0.1}, "router_jitter_noise: 0.1; minillm's router adds no noise"),
        ({"hidden_act": "gelu"}, "hidden_act: 'gelu'"),
        ({"attention_bias": True}, "attention_bias: True"),
        ({"quantization_config": {"bits": 4}}, "quantization_config"),
        ({"shared_expert_width": 8}, "as a mistral with .* not know: shared_expert_width"),
        ({"sliding_window": 0}, "sliding_window must be a whole number from 1"),
        ({"rope_scaling": {"rope_type": "yarn", "factor": 2.0}}, "rope_type: 'yarn'"),
        ({"num_local_experts": 0}, "num_local_experts must be a whole number from 1 to 33,333"),
        ({"num_local_experts": 2**20}, "num_local_experts must be .*; got 1048576"),
        ({"num_local_experts": True}, "num_local_experts must be .*; got True"),
        ({"num_experts_per_tok": 5}, "num_experts_per_tok must be .* from 1 to 4; got 5"),
        ({"num_experts_per_tok": 0}, "num_experts_per_tok must be .* from 1 to 4; got 0"),
        ({"architectures": ["MixtralForTokenClassification"]}, "the parts of a MixtralForCausalLM"),
        ({"model_type": "llama"}, "'llama', which has no experts; read it with minillm"),
        ({"model_type": "qwen3_moe"}, "'qwen3_moe'; this reader is for 'mixtral' alone"),
        ({"model_type": None}, "None; this reader is for 'mixtral' alone"),
        ({"model_type": ["mixtral"]}, "this reader is for 'mixtral' alone"),
    ],
)  # fmt: skip
def test_what_our_parts_cannot_do_is_refused_by_name(said, message):
    with pytest.raises(ValueError, match=message):
        read_config(MIXTRAL | said)


@pytest.mark.parametrize("key", sorted(set(MIXTRAL) - {"model_type"}))
def test_a_number_that_is_not_said_is_asked_for(key):
    for content in (
        MIXTRAL | {key: None},
        {name: value for name, value in MIXTRAL.items() if name != key},
    ):
        with pytest.raises(ValueError, match=rf"the config of a mixtral must say {key}$"):
            read_config(content)


def test_the_base_of_the_rotation_may_stand_where_either_transformers_puts_it():
    bare = {key: value for key, value in MIXTRAL.items() if key != "rope_theta"}
    new = {"rope_parameters": {"rope_type": "default", "rope_theta": 500.0}}
    assert read_config(bare | new) == read_config(MIXTRAL)
    with pytest.raises(ValueError, match="must say rope_theta"):
        read_config(bare | {"rope_parameters": {"rope_type": "default", "rope_theta": None}})


@pytest.mark.parametrize(
    "changes, message",
    [
        ({"ffn": SwiGLUConfig()}, "mixtral has not an FFN of SwiGLUConfig"),
        ({"ffn": (MoEConfig(), MLPConfig())}, "has not an FFN of MLPConfig"),
        ({"ffn": (MoEConfig(), MoEConfig(n_experts=4))}, "has not layers with different experts"),
        ({"ffn": MoEConfig(router="expert_choice")}, "router='expert_choice', only 'top_k'"),
        ({"ffn": MoEConfig(router="switch", top_k=1)}, "router='switch', only 'top_k'"),
        ({"ffn": MoEConfig(norm_topk=False)}, "norm_topk=False, only True"),
        ({"ffn": MoEConfig(capacity_factor=2.0)}, "capacity_factor=2.0, only None"),
        ({"ffn": MoEConfig(n_shared=1)}, "n_shared=1, only 0"),
        ({"mixer": AttentionConfig(qk_norm=True)}, "mixtral has not qk_norm"),
        ({"mixer": AttentionConfig(rope=None)}, "has a mistral's attention, and .* rope=None"),
    ],
)  # fmt: skip
def test_what_no_mixtral_has_is_refused_by_name(changes, message):
    with pytest.raises(ValueError, match=message):
        to_config(replace(OURS, **changes))
