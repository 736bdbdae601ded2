from dataclasses import dataclass, replace

import pytest
import torch
from torch import nn

from minillm.model import count
from minillm.model.attention import Attention, AttentionConfig
from minillm.model.config import TransformerConfig, medium, small, tiny
from minillm.model.ffn import MLP, MLPConfig, SwiGLU, SwiGLUConfig
from minillm.model.rope import RopeConfig
from minillm.model.transformer import Transformer

TOY = TransformerConfig(vocab_size=19, context_length=16, d_model=8, n_layers=2)
SHAPES = pytest.mark.parametrize(
    "config",
    [
        TOY,
        replace(TOY, tied_embeddings=True, ffn=MLPConfig()),
        replace(TOY, mixer=AttentionConfig(n_heads=2, n_kv_heads=1, d_head=6, qk_norm=True)),
    ],
    ids=["toy", "tied-mlp", "gqa-qk-norm"],
)


def n_parameters(model):
    return sum(parameter.numel() for parameter in model.parameters())


def state(model):
    return {name: tensor.clone() for name, tensor in model.state_dict().items()}


@dataclass(frozen=True)
class Noted:
    """A config of another kind: it notes what it is asked to build, and draws for itself."""

    calls: list

    def build(self, *arguments, **factory_kwargs):
        self.calls.append((arguments, factory_kwargs))
        part = nn.Module()
        part.own = nn.Parameter(torch.randn(3, 3, **factory_kwargs))
        part.output = nn.Linear(4, 4, **factory_kwargs)
        part.inner = nn.Linear(4, 4, **factory_kwargs)
        return part


# --- by hand -----------------------------------------------------------------------------------
def test_every_parameter_of_a_toy_is_where_it_should_be():
    config = replace(TOY, n_layers=1, mixer=AttentionConfig(n_heads=4, n_kv_heads=2))
    shapes = {name: tuple(p.shape) for name, p in config.build().named_parameters()}
    assert shapes == {
        "embedding.weight": (19, 8),
        "blocks.0.mixer_norm.weight": (8,),
        "blocks.0.mixer.qkv.weight": (8 + 4 + 4, 8),
        "blocks.0.mixer.output.weight": (8, 8),
        "blocks.0.ffn_norm.weight": (8,),
        "blocks.0.ffn.gate_up.weight": (2 * 24, 8),
        "blocks.0.ffn.down.weight": (8, 24),
        "norm.weight": (8,),
        "head.weight": (19, 8),
    }


def test_tied_embeddings_save_one_table():
    tied = replace(TOY, tied_embeddings=True).build()
    assert tied.head is None
    assert n_parameters(TOY.build()) - n_parameters(tied) == 19 * 8


def test_a_part_is_exchanged_by_naming_its_config_and_a_tuple_gives_each_block_its_own():
    config = replace(
        TOY,
        mixer=(AttentionConfig(window_tokens=3), AttentionConfig(rope=None)),
        ffn=(MLPConfig(), SwiGLUConfig()),
    )
    first, second = config.build().blocks
    assert (first.mixer.window_tokens, second.mixer.window_tokens) == (3, None)
    assert (first.mixer.rotations is None, second.mixer.rotations is None) == (False, True)
    assert (type(first.ffn), type(second.ffn)) == (MLP, SwiGLU)
    assert config.mixers == config.mixer
    assert TOY.mixers == (AttentionConfig(),) * 2


def test_builders_are_told_width_context_device_and_type():
    mixer, ffn = Noted([]), Noted([])
    replace(TOY, mixer=mixer, ffn=ffn).build(dtype=torch.float64)
    factory_kwargs = {"device": "cpu", "dtype": torch.float64}
    assert mixer.calls == [((8, 16), factory_kwargs)] * 2
    assert ffn.calls == [((8,), factory_kwargs)] * 2


def test_all_norms_have_the_configs_epsilon():
    model = replace(TOY, norm_epsilon=0.25).build()
    norms = [model.norm, *(n for b in model.blocks for n in (b.mixer_norm, b.ffn_norm))]
    assert [norm.epsilon for norm in norms] == [0.25] * 5


@pytest.mark.parametrize(
    ("preset", "d_model", "n_layers", "in_blocks"),
    # a block: 4 D² + 3 D F + 2 D
    [
        (tiny, 64, 2, 2 * (4 * 64**2 + 3 * 64 * 176 + 128)),
        (small, 128, 4, 4 * (4 * 128**2 + 3 * 128 * 344 + 256)),
        (medium, 320, 6, 6 * (4 * 320**2 + 3 * 320 * 856 + 640)),
    ],
)
def test_presets_have_the_sizes_that_they_say(preset, d_model, n_layers, in_blocks):
    config = preset(100)
    assert (config.vocab_size, config.d_model, config.n_layers) == (100, d_model, n_layers)
    model = config.build(device="meta")
    assert n_parameters(model.blocks) == in_blocks
    said = {tiny: 0.1e6, small: 0.8e6, medium: 7.4e6}[preset]
    assert in_blocks == pytest.approx(said, rel=0.05)


# --- reference ---------------------------------------------------------------------------------
@pytest.mark.parametrize(
    ("n_layers", "d_model", "n_heads", "n_kv_heads", "ffn_width", "vocab_size"),
    [(2, 24, 6, 3, 56, 101), (32, 4096, 32, 8, 14336, 128256)],
    ids=["toy", "llama-3-8b"],
)
def test_parameters_are_those_of_chapter_00s_formula(
    n_layers, d_model, n_heads, n_kv_heads, ffn_width, vocab_size
):
    config = TransformerConfig(
        vocab_size=vocab_size,
        context_length=64,
        d_model=d_model,
        n_layers=n_layers,
        mixer=AttentionConfig(
            n_heads=n_heads, n_kv_heads=n_kv_heads, rope=RopeConfig(base=500000.0)
        ),
        ffn=SwiGLUConfig(d_ff=ffn_width),
    )
    model = config.build(device="meta", dtype=torch.bfloat16)
    assert n_parameters(model) == count.llama_parameters(
        n_layers=n_layers,
        d_model=d_model,
        n_heads=n_heads,
        n_kv_heads=n_kv_heads,
        ffn_width=ffn_width,
        vocabulary_size=vocab_size,
    )


def test_a_gpt_block_is_the_rule_of_thumb_and_two_norms():
    model = replace(TOY, ffn=MLPConfig()).build()
    rule = count.block_parameters_rule_of_thumb(n_layers=2, d_model=8)
    assert n_parameters(model.blocks) == rule + 2 * 2 * 8


# --- law ---------------------------------------------------------------------------------------
@SHAPES
def test_first_weights_are_a_pure_function_of_the_seed(config):
    torch.manual_seed(1)
    once = state(config.build(seed=3))
    torch.manual_seed(2)
    torch.randn(5)
    again, other = state(config.build(seed=3)), state(config.build(seed=4))
    assert all(torch.equal(once[name], again[name]) for name in once)
    drawn = [name for name in once if "norm" not in name]
    assert not any(torch.equal(once[name], other[name]) for name in drawn)


def test_what_a_part_draws_for_itself_is_decided_by_the_seed_and_kept():
    def own(seed):
        config = replace(TOY, mixer=Noted([]), ffn=Noted([]))
        parts = [
            part for block in config.build(seed=seed).blocks for part in (block.mixer, block.ffn)
        ]
        return [part.own.detach() for part in parts]

    torch.manual_seed(1)
    once = own(3)
    torch.manual_seed(2)
    again, other = own(3), own(4)
    assert all(torch.equal(a, b) for a, b in zip(once, again, strict=True))
    assert not any(torch.equal(a, b) for a, b in zip(once, other, strict=True))
    assert len({tensor.sum().item() for tensor in once}) == 4
    assert torch.stack(once).std().item() == pytest.approx(1, abs=0.4)  # not drawn again


def test_torchs_own_random_state_stays_untouched():
    torch.manual_seed(5)
    before = torch.get_rng_state()
    TOY.build(seed=7)
    assert torch.equal(torch.get_rng_state(), before)
    TOY.build(seed=7, device="meta")
    assert torch.equal(torch.get_rng_state(), before)


def test_matrices_are_normal_and_those_that_add_to_the_stream_are_narrower_with_depth():
    config = replace(TOY, vocab_size=512, d_model=64, n_layers=8, initial_std=0.05)
    model = config.build(seed=1)
    spreads = {name: p.std().item() for name, p in model.named_parameters() if p.ndim == 2}
    for name, spread in spreads.items():
        adds = name.endswith(("mixer.output.weight", "ffn.down.weight"))
        assert spread == pytest.approx(0.05 / 4 if adds else 0.05, rel=0.04), name  # √(2·8) = 4
        mean = model.get_parameter(name).mean().item()
        assert abs(mean) < 4 * spread / model.get_parameter(name).numel() ** 0.5
    assert sum(spread < 0.02 for spread in spreads.values()) == 16
    gains = [p for name, p in model.named_parameters() if p.ndim == 1]
    assert len(gains) == 17
    assert all((gain == 1).all() for gain in gains)


def test_a_parts_matrices_are_drawn_too_and_its_biases_are_zero():
    mixer = replace(TOY, mixer=Noted([]), ffn=Noted([])).build().blocks[0].mixer
    assert mixer.output.bias.tolist() == mixer.inner.bias.tolist() == [0.0] * 4
    # torch itself would draw from ±1/2; ours: 0.02 and 0.02 / √4
    assert mixer.inner.weight.abs().max().item() < 0.1
    assert mixer.output.weight.abs().max().item() < 0.05


def test_a_seed_means_the_same_weights_in_every_type():
    plain, half, double = (
        state(TOY.build(seed=3, dtype=dtype))
        for dtype in (torch.float32, torch.bfloat16, torch.float64)
    )
    for name, weight in plain.items():
        assert half[name].dtype == torch.bfloat16
        assert torch.equal(half[name], weight.bfloat16())
        assert torch.equal(double[name], weight.double())


def test_a_default_device_changes_nothing():
    expected = state(TOY.build(seed=3))
    with torch.device("meta"):
        model = TOY.build(seed=3)
    assert {tensor.device.type for tensor in (*model.parameters(), *model.buffers())} == {"cpu"}
    assert all(torch.equal(expected[name], weight) for name, weight in state(model).items())


def test_a_model_without_numbers_has_the_same_tensors():
    model, real = TOY.build(device="meta", dtype=torch.bfloat16), TOY.build()
    assert {tensor.device.type for tensor in (*model.parameters(), *model.buffers())} == {"meta"}
    assert {p.dtype for p in model.parameters()} == {torch.bfloat16}
    shapes = [[(n, p.shape) for n, p in m.named_parameters()] for m in (model, real)]
    assert shapes[0] == shapes[1]


def test_a_model_without_numbers_may_be_larger_than_any_memory():
    model = replace(TOY, vocab_size=2**22, d_model=2**20).build(
        device="meta"
    )  # tables of 16 TiB each
    assert model.embedding.weight.nbytes == 2**44


def test_a_model_is_made_on_the_cpu_and_taken_to_its_device(monkeypatch):
    taken = []
    monkeypatch.setattr(Transformer, "to", lambda self, device: taken.append((self, device)))
    TOY.build(device="cuda:1")
    [(model, device)] = taken
    assert device == "cuda:1"
    assert model.head.weight.std().item() == pytest.approx(0.02, rel=0.3)  # with its weights


def test_a_config_is_a_value_and_the_model_remembers_its_own():
    assert replace(TOY, d_model=8) == TOY != replace(TOY, d_model=16)
    assert hash(replace(TOY, d_model=8)) == hash(TOY)
    assert TOY.build().config == TOY
    with pytest.raises(AttributeError):
        TOY.d_model = 9
    assert all(isinstance(block.mixer, Attention) for block in TOY.build().blocks)


# --- bad input ---------------------------------------------------------------------------------
@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"vocab_size": 0}, "vocab_size must be a whole number of at least 1; got 0"),
        ({"context_length": -1}, "context_length must be a whole number of at least 1; got -1"),
        ({"d_model": 8.0}, "d_model must be a whole number of at least 1; got 8.0"),
        ({"n_layers": True}, "n_layers must be a whole number of at least 1; got True"),
        ({"norm_epsilon": 0.0}, "norm_epsilon must be a finite number above 0; got 0.0"),
        ({"initial_std": float("nan")}, "initial_std must be a finite number above 0; got nan"),
        ({"mixer": (AttentionConfig(),)}, "n_layers = 2; got a tuple of 1"),
        ({"ffn": (SwiGLUConfig(),) * 3}, "n_layers = 2; got a tuple of 3"),
        ({"ffn": "swiglu"}, "ffn must be a config, an object with a build(width, ...); got 'swi"),
        ({"mixer": (AttentionConfig(), None)}, "mixer must be a config, an object with a build"),
    ],
)
def test_bad_input_is_named(changes, words):
    with pytest.raises(ValueError) as error:
        replace(TOY, **changes)
    assert words in str(error.value)


def test_what_a_part_refuses_is_said_when_it_is_built():
    with pytest.raises(ValueError, match="d_model=8 and n_heads=3"):
        replace(TOY, mixer=AttentionConfig(n_heads=3)).build()
