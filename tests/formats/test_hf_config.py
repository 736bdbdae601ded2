from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from transformers import AutoConfig, LlamaConfig, MistralConfig, Qwen3Config

from minillm.formats.hf_config import read_config, to_config
from minillm.measure.metrics import n_parameters
from minillm.model.attention import AttentionConfig
from minillm.model.config import TransformerConfig
from minillm.model.ffn import MLPConfig, SwiGLUConfig
from minillm.model.rope import Llama3Scaling, PositionInterpolation, RopeConfig

LLAMA = {
    "model_type": "llama",
    "vocab_size": 50,
    "hidden_size": 16,
    "intermediate_size": 24,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "max_position_embeddings": 32,
}
MISTRAL = LLAMA | {"model_type": "mistral", "num_key_value_heads": 2, "sliding_window": 5}
QWEN3 = LLAMA | {"model_type": "qwen3", "num_key_value_heads": 2, "head_dim": 8}
WINDOW = {"use_sliding_window": True, "sliding_window": 5}
FULL, SLIDING = "full_attention", "sliding_attention"
OURS = TransformerConfig(vocab_size=50, context_length=32, d_model=16, n_layers=3)


# --- by hand -----------------------------------------------------------------------------------
def test_each_number_has_its_place():
    content = LLAMA | {
        "num_key_value_heads": 2,
        "head_dim": 6,
        "rms_norm_eps": 1e-5,
        "rope_theta": 500.0,
        "tie_word_embeddings": True,
        "initializer_range": 0.1,
    }
    assert read_config(content) == TransformerConfig(
        vocab_size=50,
        context_length=32,
        d_model=16,
        n_layers=3,
        mixer=AttentionConfig(
            n_heads=4,
            n_kv_heads=2,
            d_head=6,
            rope=RopeConfig(base=500.0),
            norm_epsilon=1e-5,
        ),
        ffn=SwiGLUConfig(d_ff=24),
        norm_epsilon=1e-5,
        tied_embeddings=True,
        initial_std=0.1,
    )


def test_a_llama_that_says_little_has_as_many_kv_heads_as_heads_and_two_tables():
    config = read_config(LLAMA)
    assert config.mixer == AttentionConfig(n_heads=4, n_kv_heads=4, d_head=4)
    assert (config.tied_embeddings, config.norm_epsilon) == (False, 1e-6)
    nulls = LLAMA | {"num_key_value_heads": None, "head_dim": None, "rope_scaling": None}
    assert read_config(nulls) == config


def test_a_mistral_is_a_llama_with_a_window():
    llama = read_config(LLAMA | {"num_key_value_heads": 2})
    assert read_config(MISTRAL).mixer == replace(llama.mixer, window_tokens=5)
    assert read_config(MISTRAL | {"sliding_window": None}) == llama


def test_a_qwen3_norms_its_queries_and_keys_by_the_epsilon_of_all_norms():
    mixer = read_config(QWEN3 | {"rms_norm_eps": 1e-5}).mixer
    assert (mixer.qk_norm, mixer.norm_epsilon, mixer.d_head) == (True, 1e-5, 8)


@pytest.mark.parametrize(
    "said, windows",
    [
        ({}, [None] * 3),
        ({"sliding_window": 5}, [None] * 3),  # not in use
        ({"use_sliding_window": True, "sliding_window": None}, [None] * 3),
        (WINDOW | {"max_window_layers": 2}, [None, None, 5]),
        (WINDOW | {"max_window_layers": 0}, [5, 5, 5]),
        (WINDOW | {"max_window_layers": 28}, [None] * 3),
        (
            WINDOW | {"max_window_layers": 0, "layer_types": [SLIDING, FULL, SLIDING]},
            [5, None, 5],  # the list is newer and rules
        ),
        ({"layer_types": [FULL] * 3}, [None] * 3),
    ],
)  # fmt: skip
def test_some_layers_of_a_qwen3_may_have_a_window(said, windows):
    config = read_config(QWEN3 | said)
    assert [mixer.window_tokens for mixer in config.mixers] == windows
    assert isinstance(config.mixer, tuple) == (len(set(windows)) > 1)


# Numbers of models that were published, as their config.json gives them, and what they count.
PUBLISHED = {
    "Llama-3.2-1B": (
        {
            "architectures": ["LlamaForCausalLM"],
            "attention_bias": False,
            "attention_dropout": 0.0,
            "bos_token_id": 128000,
            "eos_token_id": 128001,
            "head_dim": 64,
            "hidden_act": "silu",
            "hidden_size": 2048,
            "initializer_range": 0.02,
            "intermediate_size": 8192,
            "max_position_embeddings": 131072,
            "mlp_bias": False,
            "model_type": "llama",
            "num_attention_heads": 32,
            "num_hidden_layers": 16,
            "num_key_value_heads": 8,
            "pretraining_tp": 1,
            "rms_norm_eps": 1e-05,
            "rope_scaling": {
                "factor": 32.0,
                "high_freq_factor": 4.0,
                "low_freq_factor": 1.0,
                "original_max_position_embeddings": 8192,
                "rope_type": "llama3",
            },
            "rope_theta": 500000.0,
            "tie_word_embeddings": True,
            "torch_dtype": "bfloat16",
            "transformers_version": "4.45.0.dev0",
            "use_cache": True,
            "vocab_size": 128256,
        },
        1_235_814_400,
    ),
    "Mistral-7B-v0.1": (
        {
            "architectures": ["MistralForCausalLM"],
            "bos_token_id": 1,
            "eos_token_id": 2,
            "hidden_act": "silu",
            "hidden_size": 4096,
            "initializer_range": 0.02,
            "intermediate_size": 14336,
            "max_position_embeddings": 32768,
            "model_type": "mistral",
            "num_attention_heads": 32,
            "num_hidden_layers": 32,
            "num_key_value_heads": 8,
            "rms_norm_eps": 1e-05,
            "rope_theta": 10000.0,
            "sliding_window": 4096,
            "tie_word_embeddings": False,
            "torch_dtype": "bfloat16",
            "transformers_version": "4.34.0.dev0",
            "use_cache": True,
            "vocab_size": 32000,
        },
        7_241_732_096,
    ),
    "Qwen3-0.6B": (
        {
            "architectures": ["Qwen3ForCausalLM"],
            "attention_bias": False,
            "attention_dropout": 0.0,
            "bos_token_id": 151643,
            "eos_token_id": 151645,
            "head_dim": 128,
            "hidden_act": "silu",
            "hidden_size": 1024,
            "initializer_range": 0.02,
            "intermediate_size": 3072,
            "max_position_embeddings": 40960,
            "max_window_layers": 28,
            "model_type": "qwen3",
            "num_attention_heads": 16,
            "num_hidden_layers": 28,
            "num_key_value_heads": 8,
            "rms_norm_eps": 1e-06,
            "rope_scaling": None,
            "rope_theta": 1000000,
            "sliding_window": None,
            "tie_word_embeddings": True,
            "torch_dtype": "bfloat16",
            "transformers_version": "4.51.0",
            "use_cache": True,
            "use_sliding_window": False,
            "vocab_size": 151936,
        },
        596_049_920,
    ),
}


@pytest.mark.parametrize("content, n", PUBLISHED.values(), ids=PUBLISHED)
def test_published_models_have_as_many_parameters_as_was_published(content, n):
    config = replace(read_config(content), context_length=8)
    assert n_parameters(config.build(device="meta")) == n


# --- reference ---------------------------------------------------------------------------------
THEIRS = {
    "llama": LlamaConfig(**{k: v for k, v in LLAMA.items() if k != "model_type"}),
    "llama-everything": LlamaConfig(
        vocab_size=50,
        hidden_size=16,
        intermediate_size=24,
        num_hidden_layers=3,
        num_attention_heads=4,
        num_key_value_heads=1,
        head_dim=6,
        max_position_embeddings=32,
        rms_norm_eps=1e-5,
        tie_word_embeddings=True,
        rope_parameters={"rope_type": "linear", "rope_theta": 500.0, "factor": 2.0},
    ),
    "mistral": MistralConfig(**{k: v for k, v in MISTRAL.items() if k != "model_type"}),
    "qwen3": Qwen3Config(
        **{k: v for k, v in QWEN3.items() if k != "model_type"},
        use_sliding_window=True,
        sliding_window=5,
        max_window_layers=1,
    ),
}


@pytest.mark.parametrize("name", THEIRS)
def test_transformers_reads_of_ours_what_it_had_written(name):
    THEIRS[name].architectures = [f"{type(THEIRS[name]).__name__[:-6]}ForCausalLM"]
    said = THEIRS[name].to_diff_dict()  # what its config.json holds
    ours = read_config(said)
    kind, told = said.pop("model_type"), to_config(ours)
    again = AutoConfig.for_model(told.pop("model_type"), **told).to_dict()
    assert again.pop("model_type") == kind
    assert {key: (said[key], again.get(key)) for key in said if said[key] != again.get(key)} == {}


def test_the_rotation_is_written_for_transformers_4_too():
    mixer = AttentionConfig(rope=RopeConfig(base=500.0, scaling=PositionInterpolation(2.0)))
    content = to_config(replace(OURS, mixer=mixer))
    assert content["rope_theta"] == 500.0
    assert content["rope_scaling"] == {"rope_type": "linear", "factor": 2.0}
    del content["rope_parameters"]  # which 4 does not know
    assert read_config(content).mixer.rope == mixer.rope
    assert to_config(OURS)["rope_scaling"] is None


# --- law ---------------------------------------------------------------------------------------
COUNTS = st.integers(1, 4)
ROPES = st.sampled_from(
    [
        RopeConfig(),
        RopeConfig(base=77.0, scaling=PositionInterpolation(3.0)),
        RopeConfig(scaling=Llama3Scaling(factor=2.0, original_context_length=9)),
    ]
)


@st.composite
def configs(draw):
    n_layers, n_kv_heads, epsilon = draw(COUNTS), draw(COUNTS), draw(st.sampled_from([1e-6, 1e-5]))
    mixer = AttentionConfig(
        n_heads=n_kv_heads * draw(COUNTS),
        n_kv_heads=n_kv_heads,
        d_head=2 * draw(COUNTS),
        rope=draw(ROPES),
        qk_norm=draw(st.booleans()),
        norm_epsilon=epsilon,
    )
    windows = [draw(st.sampled_from([None, 5]))] * n_layers
    if mixer.qk_norm:
        windows = draw(st.lists(st.sampled_from([None, 5]), min_size=n_layers, max_size=n_layers))
    mixers = tuple(replace(mixer, window_tokens=window) for window in windows)
    return TransformerConfig(
        vocab_size=draw(COUNTS),
        context_length=draw(COUNTS),
        d_model=draw(COUNTS),
        n_layers=n_layers,
        mixer=mixers[0] if len(set(windows)) == 1 else mixers,
        ffn=SwiGLUConfig(d_ff=draw(COUNTS)),
        norm_epsilon=epsilon,
        tied_embeddings=draw(st.booleans()),
        initial_std=draw(st.sampled_from([0.02, 0.5])),
    )


@settings(max_examples=60, deadline=None)
@given(configs())
def test_what_is_written_is_read_back(config):
    assert read_config(to_config(config)) == config


def test_what_a_config_leaves_open_is_written_as_it_was_decided():
    content = to_config(replace(OURS, d_model=24))
    assert (content["num_key_value_heads"], content["head_dim"]) == (4, 6)
    assert content["intermediate_size"] == 64  # 8/3 of 24
    shapes = [
        [(name, p.shape) for name, p in c.build(device="meta").named_parameters()]
        for c in (replace(OURS, d_model=24), read_config(content))
    ]
    assert shapes[0] == shapes[1]


# --- bad input ---------------------------------------------------------------------------------
REFUSED = {
    "attention_bias": ({"attention_bias": True}, "attention_bias: True; .* have only False"),
    "mlp_bias": ({"mlp_bias": True}, "mlp_bias: True"),
    "activation": ({"hidden_act": "gelu"}, "hidden_act: 'gelu'; .* only 'silu' or 'swish'"),
    "quantised": (
        {"quantization_config": {"quant_method": "gptq"}},
        r"quantization_config: \{'quant_method': 'gptq'\}; .* only None",
    ),
    "pairs": ({"rope_interleaved": True}, "rope_interleaved: True"),
    "experts": ({"num_local_experts": 8}, "of a llama what minillm does not know: num_local_exp"),
    "unknown": ({"b": 1, "a": 2}, "what minillm does not know: a, b. Take out of it"),
    "another's window": ({"sliding_window": 4}, "does not know: sliding_window"),
    "a window of its own": ({"layer_types": [FULL] * 3}, "does not know: layer_types"),
    "own code": ({"auto_map": {}}, "does not know: auto_map"),
    "a classifier": (
        {"architectures": ["LlamaForSequenceClassification"]},
        "architectures: .* minillm has the parts of a LlamaForCausalLM",
    ),
    "two": ({"architectures": ["LlamaForCausalLM", "X"]}, "architectures"),
    "yarn": ({"rope_scaling": {"rope_type": "yarn", "factor": 2.0}}, "rope_type: 'yarn'"),
    "text": ({"hidden_size": "16"}, "hidden_size must be a whole number .* got '16'"),
    "many layers": ({"num_hidden_layers": 10**9}, "num_hidden_layers must be .* 1 to 1,000; got"),
    "wide heads": ({"head_dim": 10**9}, "head_dim must be .* from 1 to 65,536; got 1000000000"),
    "widest heads": ({"hidden_size": 2**30}, "head_dim must be .* 65,536; got 268435456"),
    "a long text": ({"max_position_embeddings": 10**12}, "max_position_embeddings must be"),
    "no division": ({"hidden_size": 18}, "must divide hidden_size; the config says 4 and 18"),
    "groups": ({"num_key_value_heads": 3}, "n_kv_heads must divide n_heads; got 3 and 4"),
    "a flag": ({"tie_word_embeddings": "yes"}, "tie_word_embeddings must be true or false"),
    "epsilon": ({"rms_norm_eps": float("nan")}, "rms_norm_eps must be a finite number above 0"),
}  # fmt: skip


@pytest.mark.parametrize("said, message", REFUSED.values(), ids=REFUSED)
def test_what_our_parts_do_not_do_is_named_and_refused(said, message):
    with pytest.raises(ValueError, match=message):
        read_config(LLAMA | said)


@pytest.mark.parametrize("kind", ["mixtral", "qwen3_moe", "qwen2", "gemma3", "gpt2", None, 7, []])
def test_another_model_type_is_named_and_refused(kind):
    with pytest.raises(ValueError, match=r"model_type: .* the parts of llama, mistral, qwen3"):
        read_config(LLAMA | {"model_type": kind})
    with pytest.raises(ValueError, match="model_type: None"):
        read_config({})


@pytest.mark.parametrize("content", [LLAMA, MISTRAL, QWEN3], ids=["llama", "mistral", "qwen3"])
def test_what_must_be_said_is_listed_when_it_is_missing(content):
    for key in content:
        if key != "model_type":
            with pytest.raises(ValueError, match=f"must say {key}$"):
                read_config({k: v for k, v in content.items() if k != key})
    with pytest.raises(ValueError, match=r"must say .*hidden_size, .*, vocab_size$"):
        read_config({"model_type": content["model_type"]})


@pytest.mark.parametrize(
    "said",
    [
        {"layer_types": [FULL] * 2},
        {"layer_types": [FULL, FULL, "linear_attention"]},
        {"layer_types": [FULL, FULL, ["x"]]},
        {"layer_types": "full"},
        {"layer_types": [SLIDING] * 3, "sliding_window": 5},  # not in use
    ],
)
def test_layer_types_must_name_a_known_one_for_each_layer(said):
    with pytest.raises(ValueError, match="layer_types must name one of full_attention for each of"):
        read_config(QWEN3 | said)


def test_a_window_in_use_says_where_it_begins():
    with pytest.raises(ValueError, match="max_window_layers must be a whole number from 0"):
        read_config(QWEN3 | {"use_sliding_window": True, "sliding_window": 5})
    with pytest.raises(ValueError, match="sliding_window must be a whole number from 1"):
        read_config(MISTRAL | {"sliding_window": 0})


class Rolls:
    """A mixer's config that is none of attention."""

    def build(self, d_model, context_length, *, device, dtype):
        return None


A = AttentionConfig()
NORMED = AttentionConfig(qk_norm=True)
NOT_THEIRS = {
    "mixer": ({"mixer": Rolls()}, "none has a mixer of Rolls"),
    "ffn": ({"ffn": MLPConfig()}, "none has an FFN of MLPConfig"),
    "widths": (
        {"ffn": (SwiGLUConfig(d_ff=3), SwiGLUConfig(), SwiGLUConfig())},
        r"FFNs of different widths, \[3, 48\]",
    ),
    "heads": ({"mixer": (A, A, AttentionConfig(n_heads=2))}, "different heads or rotations"),
    "rotations": (
        {"mixer": (A, A, AttentionConfig(rope=RopeConfig(base=7.0)))},
        "different heads or rotations",
    ),
    "positions": ({"mixer": AttentionConfig(rope=None)}, "attention without rotations"),
    "epsilon": ({"mixer": replace(NORMED, norm_epsilon=1e-5)}, "with another epsilon"),
    "some norms": ({"mixer": (A, NORMED, NORMED)}, "qk_norm in some layers only"),
    "some windows": ({"mixer": (A, A, replace(A, window_tokens=3))}, "windows in some layers only"),
    "windows": (
        {"mixer": (NORMED, replace(NORMED, window_tokens=3), replace(NORMED, window_tokens=4))},
        r"windows of different lengths, \[3, 4\]",
    ),
}


@pytest.mark.parametrize("changes, message", NOT_THEIRS.values(), ids=NOT_THEIRS)
def test_what_transformers_does_not_have_is_not_written(changes, message):
    with pytest.raises(ValueError, match=message):
        to_config(replace(OURS, **changes))
