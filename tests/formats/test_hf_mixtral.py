import json
import os
import re
import shutil
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import nn
from transformers import AutoModelForCausalLM, AutoTokenizer, MixtralConfig
from transformers.utils import logging

from minillm.experts.moe import MoEConfig
from minillm.formats import hf
from minillm.formats.hf_mixtral import load, save
from minillm.model.attention import AttentionConfig
from minillm.model.config import TransformerConfig
from minillm.model.rope import RopeConfig
from minillm.serve.sample import SampleConfig, generate
from minillm.text.bpe import train
from minillm.text.fast import FastTokenizer

WHOLE, INDEX = "model.safetensors", "model.safetensors.index.json"
MOE = "model.layers.0.block_sparse_moe"
W1 = f"{MOE}.experts.1.w1.weight"
END = "<|endoftext|>"
TOKENIZER = train(["the hen sees the hens and the ten men 村里 "] * 9, 280, special_tokens=(END,))
TOKENS = torch.randint(50, (2, 24), generator=torch.Generator().manual_seed(0))


@pytest.fixture(scope="module", autouse=True)
def no_bars():
    logging.disable_progress_bar()
    yield
    logging.enable_progress_bar()


def randomise(model, seed=0):
    """Weights, gains too, that are large enough to make a difference."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in model.parameters():
            drawn = torch.randn(parameter.shape, generator=generator)
            parameter.copy_(0.4 * drawn + (parameter.ndim == 1))
    return model.eval()


def assert_close(found, expected, tolerance=1e-4):
    """Equal up to a share of the largest value."""
    assert expected.std() > 0.1  # else it says nothing
    atol = tolerance * expected.abs().max().item()
    torch.testing.assert_close(found, expected, rtol=0, atol=atol)


def logits(model):
    with torch.no_grad():
        found = model(TOKENS)
    return found if isinstance(found, torch.Tensor) else found.logits


def change(folder, **said):
    content = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    (folder / "config.json").write_text(json.dumps(content | said), encoding="utf-8")


# --- by hand -----------------------------------------------------------------------------------
def test_a_model_of_few_numbers_is_written_number_by_number(tmp_path):
    config = TransformerConfig(
        vocab_size=2,
        context_length=8,
        d_model=2,
        n_layers=1,
        mixer=AttentionConfig(n_heads=1),
        ffn=MoEConfig(n_experts=2, top_k=1, d_expert=1),
    )
    model = config.build()
    with torch.no_grad():
        for n, parameter in enumerate(model.blocks[0].ffn.parameters()):
            parameter.copy_(10 * n + torch.arange(parameter.numel()).reshape(parameter.shape))
    save(model, tmp_path / "new" / "model")
    said = load_file(tmp_path / "new" / "model" / WHOLE)
    found = {name: tensor.tolist() for name, tensor in said.items() if name.startswith(MOE)}
    assert found == {
        f"{MOE}.gate.weight": [[0, 1], [2, 3]],
        f"{MOE}.experts.0.w1.weight": [[10, 11]],  # the gate
        f"{MOE}.experts.0.w3.weight": [[12, 13]],  # what it lets through
        f"{MOE}.experts.0.w2.weight": [[20], [21]],
        f"{MOE}.experts.1.w1.weight": [[30, 31]],
        f"{MOE}.experts.1.w3.weight": [[32, 33]],
        f"{MOE}.experts.1.w2.weight": [[40], [41]],
    }


# --- twin --------------------------------------------------------------------------------------
OURS = TransformerConfig(
    vocab_size=50,
    context_length=32,
    d_model=16,
    n_layers=3,
    mixer=AttentionConfig(n_heads=4, n_kv_heads=2, rope=RopeConfig(base=1e6)),
    ffn=MoEConfig(n_experts=4, d_expert=24),
)
KINDS = {
    "two of four": OURS,
    "left open": TransformerConfig(
        vocab_size=50, context_length=32, d_model=24, n_layers=1, ffn=MoEConfig(n_experts=3)
    ),
    "one of five, tied": replace(
        OURS, ffn=MoEConfig(n_experts=5, top_k=1, d_expert=12), tied_embeddings=True
    ),
    "all of three, window": replace(
        OURS,
        mixer=replace(OURS.mixer, window_tokens=5),
        ffn=MoEConfig(n_experts=3, top_k=3, d_expert=8),
    ),
    "a single expert": replace(OURS, ffn=MoEConfig(n_experts=1, top_k=1, d_expert=8)),
    "heads do not divide the width": replace(
        OURS, mixer=AttentionConfig(n_heads=3, n_kv_heads=1, d_head=6), norm_epsilon=1e-3
    ),
}
ALL_KINDS = pytest.mark.parametrize("config", KINDS.values(), ids=KINDS)


@ALL_KINDS
def test_a_model_comes_back_as_it_was(config, tmp_path):
    model = randomise(config.build())
    save(model, tmp_path)
    again = load(tmp_path).state_dict()
    assert list(again) == list(model.state_dict())
    assert all(torch.equal(again[name], tensor) for name, tensor in model.state_dict().items())


def test_shards_hold_the_same_model_as_one_file(tmp_path):
    model = randomise(OURS.build())
    save(model, tmp_path, max_shard_bytes=9000)
    files = sorted(os.listdir(tmp_path))
    assert INDEX in files and WHOLE not in files and len(files) > 6
    again = load(tmp_path).state_dict()
    assert all(torch.equal(again[name], tensor) for name, tensor in model.state_dict().items())


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float64])
def test_a_type_is_kept_in_the_file_and_changed_on_loading(dtype, tmp_path):
    model = randomise(OURS.build()).to(dtype)
    save(model, tmp_path)
    assert {tensor.dtype for tensor in load_file(tmp_path / WHOLE).values()} == {dtype}
    assert {p.dtype for p in load(tmp_path).parameters()} == {torch.float32}
    again = load(tmp_path, dtype=dtype)
    for name, tensor in model.named_parameters():
        assert torch.equal(again.state_dict()[name], tensor)
    assert again.blocks[0].ffn.expert_bias.dtype == torch.promote_types(dtype, torch.float32)


def test_a_shorter_context_saves_rotations_and_changes_no_logit(tmp_path):
    model = randomise(OURS.build())
    save(model, tmp_path)
    short = load(tmp_path, context_length=24)
    assert short.context_length == len(short.blocks[0].mixer.rotations.table) == 24
    assert_close(logits(short), logits(model), 1e-6)


def test_old_angles_of_the_rotation_are_read_over(tmp_path):
    model = randomise(OURS.build())
    save(model, tmp_path)
    angles = {"model.layers.1.self_attn.rotary_emb.inv_freq": torch.ones(2)}
    save_file(load_file(tmp_path / WHOLE) | angles, tmp_path / WHOLE)
    assert torch.equal(logits(load(tmp_path)), logits(model))


# --- reference ---------------------------------------------------------------------------------
SHAPE = {
    "vocab_size": 50,
    "hidden_size": 16,
    "intermediate_size": 24,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 32,
    "attn_implementation": "eager",
}
LINEAR = {"rope_type": "linear", "rope_theta": 500.0, "factor": 2.0}
THEIRS = {
    "two of eight": MixtralConfig(**SHAPE),
    "three of four, window": MixtralConfig(
        **SHAPE, num_local_experts=4, num_experts_per_tok=3, sliding_window=5
    ),
    "one of two, tied, wide heads, linear": MixtralConfig(
        **SHAPE,
        num_local_experts=2,
        num_experts_per_tok=1,
        tie_word_embeddings=True,
        head_dim=10,
        rope_parameters=LINEAR,
        rms_norm_eps=1e-3,
    ),
    "a single expert": MixtralConfig(**SHAPE, num_local_experts=1, num_experts_per_tok=1),
}


@pytest.fixture(scope="module", params=THEIRS)
def theirs(request):
    return randomise(AutoModelForCausalLM.from_config(THEIRS[request.param]))


@pytest.mark.parametrize("one_by_one", [True, False])
def test_what_transformers_wrote_in_either_form_gives_the_same_logits_here(
    theirs, one_by_one, tmp_path
):
    theirs.save_pretrained(tmp_path, save_original_format=one_by_one)
    written = load_file(tmp_path / WHOLE)
    assert any(name.endswith("experts.0.w1.weight") for name in written) == one_by_one
    assert any(name.endswith("mlp.experts.gate_up_proj") for name in written) != one_by_one
    model, expected = load(tmp_path), logits(theirs)
    assert_close(logits(model), expected)
    with torch.no_grad():
        cache = model.new_cache(batch_size=2)
        parts = [model(part, cache=cache) for part in TOKENS.split(7, dim=1)]
    assert_close(torch.cat(parts, dim=1), expected)


def test_eight_tokens_are_generated_as_transformers_generates_them(theirs, tmp_path):
    theirs.save_pretrained(tmp_path)
    prompts = TOKENS[:, :9]
    with torch.no_grad():
        expected = theirs.generate(
            prompts,
            attention_mask=torch.ones_like(prompts),
            max_new_tokens=8,
            do_sample=False,
            eos_token_id=None,
            pad_token_id=0,
        )
    model, greedy = load(tmp_path), SampleConfig(temperature=0.0)
    assert generate(model, prompts.tolist(), greedy, n_tokens=8) == expected[:, 9:].tolist()


def test_shards_of_bfloat16_that_transformers_wrote_give_the_same_logits_here(tmp_path):
    model = randomise(AutoModelForCausalLM.from_config(THEIRS["two of eight"]))
    model.to(torch.bfloat16).save_pretrained(tmp_path, max_shard_size="9KB")
    assert len(list(tmp_path.glob("model-*-of-*.safetensors"))) > 1
    again = AutoModelForCausalLM.from_pretrained(tmp_path, dtype=torch.float32)
    assert_close(logits(load(tmp_path)), logits(again))


@ALL_KINDS
def test_what_is_written_here_gives_the_same_logits_in_transformers(config, tmp_path):
    model = randomise(config.build())
    save(model, tmp_path, max_shard_bytes=2**32 if config.tied_embeddings else 9000)
    theirs, report = AutoModelForCausalLM.from_pretrained(tmp_path, output_loading_info=True)
    assert type(theirs).__name__ == "MixtralForCausalLM"
    assert {what: names for what, names in report.items() if names} == {}
    assert_close(logits(theirs), logits(model))


def test_transformers_reads_the_type_the_tokenizer_and_the_end_of_text(tmp_path):
    config = replace(OURS, vocab_size=300)
    save(randomise(config.build()).bfloat16(), tmp_path, TOKENIZER, end_token=END)
    theirs = AutoModelForCausalLM.from_pretrained(tmp_path)
    assert theirs.dtype == torch.bfloat16
    assert theirs.generation_config.eos_token_id == theirs.config.eos_token_id == 279
    assert hf.end_ids(tmp_path) == (279,)
    ours, their_tokenizer = (
        hf.load_tokenizer(tmp_path),
        AutoTokenizer.from_pretrained(tmp_path),
    )
    text = "the hens see 村里"
    assert their_tokenizer(text)["input_ids"] == ours.encode(text) == TOKENIZER.encode(text)
    assert (their_tokenizer.eos_token, their_tokenizer.model_max_length) == (END, 32)
    save(config.build(), tmp_path, TOKENIZER)
    assert hf.end_ids(tmp_path) == ()


# --- law ---------------------------------------------------------------------------------------
def test_saving_again_leaves_nothing_of_the_older_model(tmp_path):
    large, small = OURS.build(), replace(OURS, n_layers=1).build()
    (tmp_path / "notes.txt").write_text("kept", encoding="utf-8")
    save(large, tmp_path, max_shard_bytes=9000)
    save(small, tmp_path)
    names = ["config.json", "generation_config.json", WHOLE, "notes.txt"]
    assert sorted(os.listdir(tmp_path)) == sorted(names)
    assert load(tmp_path).config.n_layers == 1
    save(large, tmp_path, max_shard_bytes=20_000)
    assert load(tmp_path).config.n_layers == 3


def test_a_save_that_fails_leaves_the_older_model(tmp_path, monkeypatch):
    old = OURS.build()
    save(old, tmp_path)
    before = sorted(os.listdir(tmp_path))

    def full(*_, **__):
        raise OSError("no space left on device")

    monkeypatch.setattr("minillm.formats.hf.write_whole", full)  # after the weights
    with pytest.raises(OSError, match="no space"):
        save(OURS.build(seed=1), tmp_path)
    assert sorted(os.listdir(tmp_path)) == before
    assert torch.equal(load(tmp_path).embedding.weight, old.embedding.weight)


class CutOff(BaseException):
    """What no program expects."""


@pytest.mark.parametrize("n_moved", range(4))
def test_a_save_that_is_cut_off_leaves_a_whole_model_or_none(tmp_path, monkeypatch, n_moved):
    old, new = OURS.build(), OURS.build(seed=1)
    save(old, tmp_path)
    assert len(os.listdir(tmp_path)) == 3  # weights, two configs
    moved, move = [], Path.replace

    def move_some(path, target):
        if len(moved) == n_moved:
            raise CutOff
        moved.append(target)
        return move(path, target)

    monkeypatch.setattr(Path, "replace", move_some)
    if n_moved == 3:
        save(new, tmp_path)
        assert torch.equal(load(tmp_path).embedding.weight, new.embedding.weight)
        return
    with pytest.raises(CutOff):
        save(new, tmp_path)
    with pytest.raises(ValueError, match=r"there is no config\.json in"):
        load(tmp_path)


# --- bad input ---------------------------------------------------------------------------------
@pytest.fixture(scope="module")
def good(tmp_path_factory):
    folder = tmp_path_factory.mktemp("good")
    save(randomise(OURS.build()), folder)
    return folder


@pytest.fixture
def spoil(good, tmp_path):
    """Copy a good folder, change some tensors (None takes one away), and give the copy."""

    def spoiled(**changes):
        folder = tmp_path / "spoiled"
        shutil.copytree(good, folder)
        tensors = load_file(folder / WHOLE) | changes
        kept = {name: tensor for name, tensor in tensors.items() if tensor is not None}
        save_file(kept, folder / WHOLE)
        return folder

    return spoiled


def test_missing_and_unexpected_tensors_are_listed(spoil):
    fifth = f"{MOE}.experts.4.w1.weight"
    folder = spoil(**{W1: None, f"{MOE}.gate.weight": None, fifth: torch.zeros(24, 16)})
    message = f"Missing: {W1}, {MOE}.gate.weight. Unexpected: {fifth}"
    with pytest.raises(ValueError, match=re.escape(message) + "$"):
        load(folder)


def test_a_config_with_other_experts_than_the_files_is_refused(spoil):
    folder = spoil()
    change(folder, num_local_experts=100)
    with pytest.raises(ValueError, match=r"Missing: .* and 844 more\. Unexpected: none"):
        load(folder)
    change(folder, num_local_experts=3)
    with pytest.raises(ValueError, match=rf"Missing: none\. Unexpected: {MOE}\.experts\.3\.w1"):
        load(folder)


def test_both_forms_at_once_are_refused(spoil):
    stacked = "model.layers.0.mlp.experts.down_proj"
    with pytest.raises(ValueError, match=rf"Missing: .*mlp.*Unexpected: {MOE}"):
        load(spoil(**{stacked: torch.zeros(4, 16, 24)}))


def test_a_wrong_shape_is_named_with_both(spoil, tmp_path):
    with pytest.raises(ValueError, match=rf"{W1} has shape \[16, 24\]; .* should have \[24, 16\]"):
        load(spoil(**{W1: torch.zeros(16, 24)}))
    model = AutoModelForCausalLM.from_config(THEIRS["two of eight"])
    model.save_pretrained(tmp_path / "stacked", save_original_format=False)
    tensors = load_file(tmp_path / "stacked" / WHOLE)
    name = "model.layers.2.mlp.experts.gate_up_proj"
    tensors[name] = tensors[name].transpose(1, 2).contiguous()
    save_file(tensors, tmp_path / "stacked" / WHOLE)
    with pytest.raises(ValueError, match=r"has shape \[8, 16, 48\]; .* should have \[8, 48, 16\]"):
        load(tmp_path / "stacked")


def test_a_weight_that_is_no_number_or_too_large_is_refused_with_its_name(spoil):
    spoilt = torch.full((24, 16), 1e6)
    folder = spoil(**{W1: spoilt})
    with pytest.raises(
        ValueError, match=rf"{W1}: 384 of 384 numbers are too large for torch.float"
    ):
        load(folder, dtype=torch.float16)
    spoilt[3, 3] = float("nan")
    shutil.rmtree(folder)
    with pytest.raises(
        ValueError, match=rf"safetensors: {W1}: 1 of 384 numbers are NaN or infinite"
    ):
        load(spoil(**{W1: spoilt}))


@pytest.mark.parametrize("dtype", [torch.int8, torch.float8_e4m3fn])
def test_numbers_of_another_type_are_refused(spoil, dtype):
    with pytest.raises(ValueError, match=rf"{W1} holds numbers of type .*; minillm reads F64, F32"):
        load(spoil(**{W1: torch.zeros(24, 16).to(dtype)}))
    with pytest.raises(ValueError, match=r"dtype must be one of torch\.float64, .*; got torch"):
        load("anywhere", dtype=dtype)


def test_what_the_config_asks_and_we_lack_is_said_with_the_file(spoil):
    folder = spoil()
    change(folder, router_jitter_noise=0.01)
    with pytest.raises(ValueError, match=r"config\.json: the config says router_jitter_noise: 0.0"):
        load(folder)


def test_a_text_too_long_for_its_rotations_asks_for_a_shorter_one(spoil):
    folder = spoil()
    change(folder, max_position_embeddings=2**27)
    with pytest.raises(ValueError, match=r"134,217,728 tokens would take 12,884,901,888 bytes"):
        load(folder)
    assert load(folder, context_length=9).context_length == 9


def test_the_folder_of_a_llama_is_for_the_other_reader_and_ours_is_not(good, tmp_path):
    hf.save(TransformerConfig(vocab_size=50, d_model=16, n_layers=1).build(), tmp_path)
    with pytest.raises(ValueError, match=r"'llama', which has no experts; .* minillm.formats.hf"):
        load(tmp_path)
    with pytest.raises(ValueError, match="model_type: 'mixtral'"):
        hf.load(good)


def test_what_is_no_folder_of_a_model_is_named(good, spoil, tmp_path):
    with pytest.raises(ValueError, match=r"no config\.json in .*, and downloads nothing"):
        load(tmp_path)
    with pytest.raises(ValueError, match=r"safetensors is a file; a model is a folder with config"):
        load(good / WHOLE)
    folder = spoil()
    (folder / WHOLE).unlink()
    torch.save({}, folder / "pytorch_model.bin")
    for where in (folder, folder / "pytorch_model.bin"):
        with pytest.raises(ValueError, match=r"^pytorch_model\.bin: a pickle\. Opening one runs"):
            load(where)


def refused(tmp_path, message, model, *arguments, **options):
    with pytest.raises(ValueError, match=message):
        save(model, tmp_path / "new", *arguments, **options)
    assert not (tmp_path / "new").exists()


def test_a_model_that_could_not_be_loaded_again_is_not_saved(tmp_path):
    shared = replace(OURS, ffn=MoEConfig(n_shared=1))
    refused(tmp_path, "mixtral has not n_shared=1, only 0", shared.build())
    refused(tmp_path, "on the device meta", OURS.build(device="meta"))
    model = OURS.build()
    with torch.no_grad():
        model.blocks[0].ffn.experts[1].gate_up.weight[0, 0] = float("nan")
    refused(tmp_path, rf"^{W1}: 1 of 384 numbers are NaN or infinite", model)
    model = OURS.build()
    model.config = None
    refused(tmp_path, "built from a config; this one has none", model)
    (tmp_path / "notes.txt").write_text("kept", encoding="utf-8")
    with pytest.raises(ValueError, match=r"save needs a folder, and .*notes\.txt is a file"):
        save(OURS.build(), tmp_path / "notes.txt")


def test_experts_that_are_chosen_with_a_bias_are_not_saved(tmp_path):
    model = OURS.build()
    model.blocks[1].ffn.expert_bias[2] = 0.01
    refused(
        tmp_path, r"has not a bias on the choice of experts, as blocks\.1\.ffn\.expert_bias", model
    )


def test_a_model_that_was_changed_since_it_was_built_is_not_saved(tmp_path):
    model = OURS.build()
    model.blocks[1].ffn.experts[0].down = nn.Linear(24, 16)  # a bias
    refused(tmp_path, r"they differ in blocks\.1\.ffn\.experts\.0\.down\.bias$", model)
    model = OURS.build()
    model.embedding = nn.Embedding(51, 16)
    refused(tmp_path, r"they differ in embedding\.weight$", model)


def test_a_tokenizer_must_be_the_models_and_have_the_token_that_ends(tmp_path):
    model = replace(OURS, vocab_size=280).build()
    refused(tmp_path, "has 280 ids and the model 50", OURS.build(), TOKENIZER)
    refused(tmp_path, "end_token needs the tokenizer", model, end_token=END)
    refused(tmp_path, r"one of \['<\|endoftext\|>'\]", model, TOKENIZER, end_token="the")
    refused(tmp_path, "got a FastTokenizer, whose .tokenizer may", model, FastTokenizer(TOKENIZER))
