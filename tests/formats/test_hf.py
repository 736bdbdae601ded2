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
from transformers import (
    AutoModelForCausalLM,
    AutoTokenizer,
    LlamaConfig,
    MistralConfig,
    Qwen3Config,
)
from transformers.utils import logging

from minillm.formats.hf import end_ids, load, load_tokenizer, save
from minillm.model.attention import AttentionConfig
from minillm.model.config import TransformerConfig
from minillm.model.ffn import MLPConfig, SwiGLUConfig
from minillm.model.rope import Llama3Scaling, NtkScaling, PositionInterpolation, RopeConfig
from minillm.text.bpe import train
from minillm.text.fast import FastTokenizer

WHOLE, INDEX = "model.safetensors", "model.safetensors.index.json"
Q = "model.layers.0.self_attn.q_proj.weight"
END = "<|endoftext|>"
TOKENIZER = train(
    ["the hen sees the hens and the ten men 村里的人看人 "] * 9, 280, special_tokens=(END,)
)


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


TOKENS = torch.randint(50, (2, 24), generator=torch.Generator().manual_seed(0))

# --- by hand -----------------------------------------------------------------------------------
TINY = TransformerConfig(
    vocab_size=2,
    context_length=8,
    d_model=2,
    n_layers=1,
    mixer=AttentionConfig(n_heads=1),
    ffn=SwiGLUConfig(d_ff=1),
)


def test_a_model_of_thirty_numbers_is_written_number_by_number(tmp_path):
    model = TINY.build()
    with torch.no_grad():
        for n, parameter in enumerate(model.parameters()):
            parameter.copy_(100 * n + torch.arange(parameter.numel()).reshape(parameter.shape))
    names = [name for name, _ in model.named_parameters()]
    assert names[0] == "embedding.weight" and names[2] == "blocks.0.mixer.qkv.weight"
    save(model, tmp_path / "new" / "model")
    said = load_file(tmp_path / "new" / "model" / WHOLE)
    attention = "model.layers.0.self_attn"
    assert said["model.embed_tokens.weight"].tolist() == [[0, 1], [2, 3]]
    assert said[f"{attention}.q_proj.weight"].tolist() == [[200, 201], [202, 203]]
    assert said[f"{attention}.k_proj.weight"].tolist() == [[204, 205], [206, 207]]
    assert said[f"{attention}.v_proj.weight"].tolist() == [[208, 209], [210, 211]]
    gate_up = 100.0 * names.index("blocks.0.ffn.gate_up.weight")
    assert said["model.layers.0.mlp.gate_proj.weight"].tolist() == [[gate_up, gate_up + 1]]
    assert said["model.layers.0.mlp.up_proj.weight"].tolist() == [[gate_up + 2, gate_up + 3]]
    head = 100.0 * names.index("head.weight")
    assert said["lm_head.weight"].tolist() == [[head, head + 1], [head + 2, head + 3]]


def test_the_ids_that_end_a_text_are_one_or_many_and_generation_rules(tmp_path):
    assert end_ids(tmp_path) == ()
    for file, said, expected in [
        ("config.json", {"eos_token_id": None}, ()),
        ("config.json", {"eos_token_id": 7}, (7,)),
        ("generation_config.json", {}, (7,)),
        ("generation_config.json", {"eos_token_id": [3, 4]}, (3, 4)),
    ]:
        (tmp_path / file).write_text(json.dumps(said), encoding="utf-8")
        assert end_ids(tmp_path) == expected
    for wrong in ("7", True, [7, None], -1, 1.0, []):
        text = json.dumps({"eos_token_id": wrong})
        (tmp_path / "generation_config.json").write_text(text, encoding="utf-8")
        with pytest.raises(ValueError, match=r"generation_config\.json says eos_token_id"):
            end_ids(tmp_path)


# --- twin --------------------------------------------------------------------------------------
OURS = TransformerConfig(
    vocab_size=50,
    context_length=32,
    d_model=16,
    n_layers=3,
    mixer=AttentionConfig(n_heads=4),
    ffn=SwiGLUConfig(d_ff=24),
)
GROUPED = AttentionConfig(n_heads=4, n_kv_heads=2)
NORMED = AttentionConfig(n_heads=4, n_kv_heads=2, d_head=8, qk_norm=True)


def turned(scaling, base=500.0):
    return replace(OURS, mixer=replace(GROUPED, rope=RopeConfig(base=base, scaling=scaling)))


KINDS = {
    "plain": OURS,
    "left open": TransformerConfig(vocab_size=50, context_length=32, d_model=24, n_layers=1),
    "grouped": replace(OURS, mixer=GROUPED, norm_epsilon=1e-3),
    "one kv head, tied": replace(
        OURS, mixer=AttentionConfig(n_heads=4, n_kv_heads=1), tied_embeddings=True
    ),
    "wide heads": replace(OURS, mixer=replace(GROUPED, d_head=10)),
    "heads do not divide the width": replace(
        OURS, mixer=AttentionConfig(n_heads=3, n_kv_heads=1, d_head=6)
    ),
    "interpolated": turned(PositionInterpolation(2.0)),
    "ntk": turned(NtkScaling(3.0)),
    "llama3": turned(Llama3Scaling(factor=4.0, original_context_length=16)),
    "window": replace(OURS, mixer=replace(GROUPED, window_tokens=5)),
    "normed": replace(OURS, mixer=NORMED, norm_epsilon=1e-6, tied_embeddings=True),
    "normed, some windows": replace(
        OURS, mixer=(NORMED, replace(NORMED, window_tokens=5), NORMED), norm_epsilon=1e-6
    ),
}
ALL_KINDS = pytest.mark.parametrize("config", KINDS.values(), ids=KINDS)


@ALL_KINDS
def test_a_model_comes_back_as_it_was(config, tmp_path):
    model = randomise(config.build())
    save(model, tmp_path)
    again = load(tmp_path)
    for (name, left), (other, right) in zip(
        model.state_dict().items(), again.state_dict().items(), strict=True
    ):
        assert name == other
        assert torch.equal(left, right)
    with torch.no_grad():
        assert_close(again(TOKENS), model(TOKENS), 1e-6)


def test_shards_hold_the_same_model_as_one_file(tmp_path):
    model = randomise(KINDS["grouped"].build())
    save(model, tmp_path, max_shard_bytes=2000)
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
    for name, tensor in model.state_dict().items():
        assert torch.equal(again.state_dict()[name], tensor)
    assert again.blocks[0].mixer.rotations.table.dtype == dtype


def test_a_shorter_context_saves_rotations_and_changes_no_logit(tmp_path):
    model = randomise(OURS.build())
    save(model, tmp_path)
    short = load(tmp_path, context_length=8)
    assert short.context_length == short.config.context_length == 8
    assert len(short.blocks[0].mixer.rotations.table) == 8
    with torch.no_grad():
        assert_close(short(TOKENS[:, :8]), model(TOKENS[:, :8]), 1e-6)


def test_a_second_table_and_old_angles_are_read_over_if_they_add_nothing(tmp_path):
    model = randomise(KINDS["one kv head, tied"].build())
    save(model, tmp_path)
    tensors = load_file(tmp_path / WHOLE)
    tensors["lm_head.weight"] = tensors["model.embed_tokens.weight"].clone()
    tensors["model.layers.1.self_attn.rotary_emb.inv_freq"] = torch.ones(2)
    save_file(tensors, tmp_path / WHOLE)
    with torch.no_grad():
        assert torch.equal(load(tmp_path)(TOKENS), model(TOKENS))
    tensors["lm_head.weight"][7, 7] += 1e-3
    save_file(tensors, tmp_path / WHOLE)
    with pytest.raises(
        ValueError, match=r"both ends, but model\.safetensors: lm_head\.weight is anothe"
    ):
        load(tmp_path)


# --- reference ---------------------------------------------------------------------------------
SHAPE = {
    "vocab_size": 50,
    "hidden_size": 16,
    "intermediate_size": 24,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "max_position_embeddings": 32,
    "attn_implementation": "eager",
}
LINEAR = {"rope_type": "linear", "rope_theta": 500.0, "factor": 2.0}
LLAMA3 = {
    "rope_type": "llama3",
    "rope_theta": 500.0,
    "factor": 4.0,
    "low_freq_factor": 1.0,
    "high_freq_factor": 4.0,
    "original_max_position_embeddings": 16,
}
TWO = {"num_key_value_heads": 2}
SLIDING = {"use_sliding_window": True, "sliding_window": 5, "max_window_layers": 2}
THEIRS = {
    "llama": LlamaConfig(**SHAPE),
    "llama, grouped, tied": LlamaConfig(**SHAPE, **TWO, tie_word_embeddings=True),
    "llama, wide heads": LlamaConfig(**SHAPE, **TWO, head_dim=10, rms_norm_eps=1e-3),
    "llama, linear": LlamaConfig(**SHAPE, **TWO, rope_parameters=LINEAR),
    "llama, llama3": LlamaConfig(**SHAPE, **TWO, rope_parameters=LLAMA3),
    "mistral": MistralConfig(**SHAPE, **TWO, sliding_window=None),
    "mistral, window": MistralConfig(**SHAPE, num_key_value_heads=1, sliding_window=5),
    "qwen3": Qwen3Config(**SHAPE, **TWO, head_dim=8, rms_norm_eps=1e-3),
    "qwen3, some windows, tied": Qwen3Config(
        **SHAPE, **TWO, **SLIDING, head_dim=4, tie_word_embeddings=True
    ),
}


@pytest.fixture(scope="module", params=THEIRS)
def written(request, tmp_path_factory):
    """A folder that transformers wrote, and the logits of its model."""
    model = randomise(AutoModelForCausalLM.from_config(THEIRS[request.param]))
    folder = tmp_path_factory.mktemp("theirs")
    model.save_pretrained(folder)
    return folder, logits(model)


def logits(theirs):
    with torch.no_grad():
        return theirs(TOKENS).logits


def test_what_transformers_wrote_gives_the_same_logits_here(written):
    folder, expected = written
    model = load(folder)
    with torch.no_grad():
        assert_close(model(TOKENS), expected)
        cache = model.new_cache(batch_size=2)
        parts = [model(part, cache=cache) for part in TOKENS.split(7, dim=1)]
        assert_close(torch.cat(parts, dim=1), expected)


def test_shards_of_bfloat16_that_transformers_wrote_give_the_same_logits_here(tmp_path):
    model = randomise(AutoModelForCausalLM.from_config(THEIRS["llama, grouped, tied"]))
    model.to(torch.bfloat16).save_pretrained(tmp_path, max_shard_size="3KB")
    assert len(list(tmp_path.glob("model-*-of-*.safetensors"))) > 1
    theirs = AutoModelForCausalLM.from_pretrained(tmp_path, dtype=torch.float32)
    with torch.no_grad():
        assert_close(load(tmp_path)(TOKENS), logits(theirs))


@ALL_KINDS
def test_what_is_written_here_gives_the_same_logits_in_transformers(config, tmp_path):
    model = randomise(config.build())
    save(model, tmp_path, max_shard_bytes=2**32 if config.tied_embeddings else 9000)
    theirs, report = AutoModelForCausalLM.from_pretrained(tmp_path, output_loading_info=True)
    assert {what: names for what, names in report.items() if names} == {}
    with torch.no_grad():
        assert_close(logits(theirs), model(TOKENS))


def test_transformers_reads_the_type_and_the_end_of_text(tmp_path):
    config = replace(OURS, vocab_size=300)
    save(randomise(config.build()).bfloat16(), tmp_path, TOKENIZER, end_token=END)
    theirs = AutoModelForCausalLM.from_pretrained(tmp_path)
    assert theirs.dtype == torch.bfloat16
    assert theirs.generation_config.eos_token_id == theirs.config.eos_token_id == 279
    assert (theirs.config.bos_token_id, theirs.config.pad_token_id) == (None, None)
    assert end_ids(tmp_path) == (279,)
    save(config.build(), tmp_path, TOKENIZER)
    assert AutoModelForCausalLM.from_pretrained(tmp_path).generation_config.eos_token_id is None
    assert end_ids(tmp_path) == ()


def test_transformers_reads_the_tokenizer_and_what_it_writes_is_read_here(tmp_path):
    save(replace(OURS, vocab_size=300).build(), tmp_path / "ours", TOKENIZER, end_token=END)
    theirs = AutoTokenizer.from_pretrained(tmp_path / "ours")
    assert (theirs.eos_token, theirs.eos_token_id) == (END, 279)
    theirs.save_pretrained(tmp_path / "theirs")
    for folder in ("ours", "theirs"):
        ours = load_tokenizer(tmp_path / folder)
        assert ours.vocab_size == TOKENIZER.vocab_size
        for text in ("the hens see the men", " 村里的人 看12345人\n\n\tnaïve 🙂", ""):
            assert theirs(text)["input_ids"] == ours.encode(text) == TOKENIZER.encode(text)
            assert theirs.decode(ours.encode(text)) == text
        marked = f"the hen{END}the"
        assert theirs(marked)["input_ids"] == ours.encode(marked, allowed_special={END})


def test_a_tokenizer_with_more_ids_than_the_model_has_rows_is_refused(tmp_path):
    save(replace(OURS, vocab_size=TOKENIZER.vocab_size).build(), tmp_path, TOKENIZER)
    assert load_tokenizer(tmp_path).vocab_size == TOKENIZER.vocab_size
    small = {"vocab_size": TOKENIZER.vocab_size - 1, "eos_token_id": 279}
    (tmp_path / "config.json").write_text(json.dumps(small), encoding="utf-8")
    for read, file in ((load_tokenizer, "tokenizer.json"), (end_ids, "config.json")):
        with pytest.raises(
            ValueError, match=rf"^{file} has the id 279, but the model's table has 27"
        ):
            read(tmp_path)


# --- law ---------------------------------------------------------------------------------------
def test_saving_again_leaves_nothing_of_the_older_model(tmp_path):
    large = randomise(OURS.build())
    small = randomise(replace(OURS, n_layers=1).build())
    (tmp_path / "notes.txt").write_text("kept", encoding="utf-8")
    save(large, tmp_path, max_shard_bytes=2000)
    save(small, tmp_path)
    names = ["config.json", "generation_config.json", WHOLE, "notes.txt"]
    assert sorted(os.listdir(tmp_path)) == sorted(names)
    assert load(tmp_path).config.n_layers == 1
    save(large, tmp_path, max_shard_bytes=5000)
    save(large, tmp_path, max_shard_bytes=9000)  # fewer shards
    assert load(tmp_path).config.n_layers == 3
    assert not (tmp_path / WHOLE).exists()


def test_what_a_killed_save_has_left_is_gone_after_the_next(tmp_path, monkeypatch):
    folder, left = tmp_path / "model", []

    def killed(beside, directory):
        left.append(beside.name)
        shutil.copytree(beside, tmp_path / "left")
        raise KeyboardInterrupt

    with monkeypatch.context() as patched, pytest.raises(KeyboardInterrupt):
        patched.setattr("minillm.formats.hf._move", killed)
        save(OURS.build(), folder, max_shard_bytes=2000)
    assert os.listdir(folder) == []
    (tmp_path / "left").rename(folder / left[0])  # as SIGKILL leaves it
    save(OURS.build(), folder)
    assert sorted(os.listdir(folder)) == ["config.json", "generation_config.json", WHOLE]


def test_a_save_that_fails_leaves_the_older_model(tmp_path, monkeypatch):
    save(randomise(OURS.build()), tmp_path)
    before = sorted(os.listdir(tmp_path))

    def full(*_, **__):
        raise OSError("no space left on device")

    monkeypatch.setattr("minillm.formats.hf.write_whole", full)  # after the weights
    with pytest.raises(OSError, match="no space"):
        save(randomise(OURS.build(), seed=1), tmp_path)
    assert sorted(os.listdir(tmp_path)) == before
    expected = randomise(OURS.build()).state_dict()
    assert torch.equal(load(tmp_path).embedding.weight, expected["embedding.weight"])


class CutOff(BaseException):
    """What no program expects."""


@pytest.mark.parametrize("n_moved", range(6))
def test_a_save_that_is_cut_off_leaves_a_whole_model_or_none(tmp_path, monkeypatch, n_moved):
    old, new = randomise(OURS.build()), randomise(OURS.build(), seed=1)
    save(old, tmp_path, max_shard_bytes=20_000)
    assert len(os.listdir(tmp_path)) == 5  # two shards and an index, two configs
    moved, move = [], Path.replace

    def move_some(path, target):
        if len(moved) == n_moved:
            raise CutOff
        moved.append(target)
        return move(path, target)

    monkeypatch.setattr(Path, "replace", move_some)
    if n_moved == 5:
        save(new, tmp_path, max_shard_bytes=20_000)
        assert torch.equal(load(tmp_path).embedding.weight, new.embedding.weight)
        return
    with pytest.raises(CutOff):
        save(new, tmp_path, max_shard_bytes=20_000)
    with pytest.raises(ValueError, match=r"there is no config\.json in"):
        load(tmp_path)


def test_torchs_random_state_is_neither_read_nor_changed(tmp_path):
    save(OURS.build(), tmp_path)
    before = torch.get_rng_state()
    load(tmp_path)
    assert torch.equal(torch.get_rng_state(), before)


# --- bad input ---------------------------------------------------------------------------------
@pytest.fixture(scope="module")
def good(tmp_path_factory):
    folder = tmp_path_factory.mktemp("good")
    save(randomise(KINDS["grouped"].build()), folder)
    return folder


@pytest.fixture
def spoil(good, tmp_path):
    """Copy a good folder, change some tensors (None takes one away), and give the copy."""

    def spoiled(**changes):
        folder = tmp_path / "spoiled"
        shutil.copytree(good, folder)
        tensors = load_file(folder / WHOLE)
        for name, tensor in changes.items():
            tensors[name] = tensor
        kept = {name: tensor for name, tensor in tensors.items() if tensor is not None}
        save_file(kept, folder / WHOLE)
        return folder

    return spoiled


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf")])
def test_a_weight_that_is_no_number_is_refused_with_its_name(spoil, value):
    spoilt = torch.zeros(16, 16)
    spoilt[3, 3] = value
    with pytest.raises(ValueError, match=rf"^{WHOLE}: {Q}: 1 of 256 numbers are NaN or infinite"):
        load(spoil(**{Q: spoilt}))


def test_a_weight_that_a_type_cannot_hold_is_refused_with_its_name(spoil):
    folder = spoil(**{Q: torch.full((16, 16), 1e6)})
    load(folder, dtype=torch.bfloat16)
    with pytest.raises(ValueError, match=rf"^{WHOLE}: {Q}: 256 of 256 numbers are too large for"):
        load(folder, dtype=torch.float16)


def test_missing_and_unexpected_tensors_are_listed(spoil):
    bias = "model.layers.2.self_attn.q_proj.bias"
    folder = spoil(**{Q: None, "model.norm.weight": None, bias: torch.zeros(16)})
    message = f"Missing: {Q}, model.norm.weight. Unexpected: {bias}"
    with pytest.raises(ValueError, match=re.escape(message) + "$"):
        load(folder)


def test_a_config_with_more_layers_than_the_files_is_refused(spoil):
    folder = spoil()
    change(folder, num_hidden_layers=1000)
    with pytest.raises(ValueError, match=r"Missing: .* and 8953 more\. Unexpected: none"):
        load(folder)


def test_a_wrong_shape_is_named_with_both(spoil):
    with pytest.raises(ValueError, match=rf"{Q} has shape \[16, 8\]; .* should have \[16, 16\]"):
        load(spoil(**{Q: torch.zeros(16, 8)}))


@pytest.mark.parametrize("dtype", [torch.int8, torch.int64, torch.float8_e4m3fn])
def test_numbers_of_another_type_are_refused(spoil, dtype):
    with pytest.raises(ValueError, match=rf"{Q} holds numbers of type .*; minillm reads F64, F32"):
        load(spoil(**{Q: torch.zeros(16, 16).to(dtype)}))


def change(folder, **said):
    content = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    (folder / "config.json").write_text(json.dumps(content | said), encoding="utf-8")


def test_what_the_config_asks_and_we_lack_is_said_with_the_file(spoil):
    folder = spoil()
    change(folder, attention_bias=True)
    with pytest.raises(ValueError, match=r"config\.json: the config says attention_bias: True"):
        load(folder)


def test_a_text_too_long_for_its_rotations_asks_for_a_shorter_one(spoil):
    folder = spoil()
    change(folder, max_position_embeddings=2**27)
    with pytest.raises(ValueError, match=r"134,217,728 tokens would take 12,884,901,888 bytes"):
        load(folder)
    assert load(folder, context_length=9).context_length == 9
    with pytest.raises(ValueError, match="context_length must be a whole number of at least 1"):
        load(folder, context_length=0)


def test_a_damaged_file_is_refused(spoil):
    folder = spoil()
    os.truncate(folder / WHOLE, (folder / WHOLE).stat().st_size - 1)
    with pytest.raises(ValueError, match=r"model\.safetensors is cut off or damaged"):
        load(folder)
    os.truncate(folder / "config.json", 40)
    with pytest.raises(ValueError, match=r"config\.json is not JSON in UTF-8, or is cut off"):
        load(folder)


def test_a_pickle_is_refused_in_a_folder_or_by_itself(spoil):
    folder = spoil()
    (folder / WHOLE).unlink()
    torch.save({}, folder / "pytorch_model.bin")
    for where in (folder, folder / "pytorch_model.bin"):
        with pytest.raises(ValueError, match=r"^pytorch_model\.bin: a pickle\. Opening one runs"):
            load(where)


def test_a_shard_outside_the_folder_is_refused(spoil):
    folder = spoil()
    tensors = load_file(folder / WHOLE)
    (folder / WHOLE).rename(folder.parent / "outside.safetensors")
    index = {"weight_map": dict.fromkeys(tensors, "../outside.safetensors")}
    (folder / INDEX).write_text(json.dumps(index), encoding="utf-8")
    with pytest.raises(ValueError, match="folder of the index itself, named without any path"):
        load(folder)


def test_what_is_no_folder_of_a_model_is_named(good, tmp_path):
    with pytest.raises(ValueError, match=r"no config\.json in .*; minillm reads folders that"):
        load(tmp_path)
    with pytest.raises(ValueError, match=r"no config\.json in .*, and downloads nothing"):
        load("someone/a-model")
    with pytest.raises(ValueError, match=r"safetensors is a file; a model is a folder with config"):
        load(good / WHOLE)
    with pytest.raises(ValueError, match=r"there is no file .*tokenizer\.json"):
        load_tokenizer(good)


@pytest.mark.parametrize("dtype", [torch.int8, torch.float8_e4m3fn, torch.complex64])
def test_a_model_is_of_a_floating_type(good, dtype):
    with pytest.raises(ValueError, match=r"dtype must be one of torch\.float64, .*; got torch"):
        load(good, dtype=dtype)


def refused(tmp_path, message, model, *arguments, **options):
    with pytest.raises(ValueError, match=message):
        save(model, tmp_path / "new", *arguments, **options)
    assert not (tmp_path / "new").exists()


def test_a_model_that_could_not_be_loaded_again_is_not_saved(tmp_path):
    refused(tmp_path, "none has an FFN of MLPConfig", replace(OURS, ffn=MLPConfig()).build())
    refused(tmp_path, "on the device meta", OURS.build(device="meta"))
    model = OURS.build()
    with torch.no_grad():
        model.blocks[0].mixer.qkv.weight[0, 0] = float("nan")
    refused(tmp_path, rf"^{Q}: 1 of 256 numbers are NaN or infinite", model)
    model = OURS.build()
    model.config = None
    refused(tmp_path, "built from a config; this one has none", model)


def test_a_model_is_saved_into_a_folder_and_over_no_file(tmp_path):
    (tmp_path / "notes.txt").write_text("kept", encoding="utf-8")
    with pytest.raises(ValueError, match=r"save needs a folder, and .*notes\.txt is a file"):
        save(OURS.build(), tmp_path / "notes.txt")
    assert (tmp_path / "notes.txt").read_text(encoding="utf-8") == "kept"


def test_a_model_that_was_changed_since_it_was_built_is_not_saved(tmp_path):
    model = OURS.build()
    model.blocks[1].ffn.down = nn.Linear(24, 16)  # a bias
    refused(tmp_path, r"they differ in blocks\.1\.ffn\.down\.bias$", model)
    model = OURS.build()
    model.head = None
    refused(tmp_path, r"they differ in head\.weight$", model)
    model = OURS.build()
    model.embedding = nn.Embedding(51, 16)
    refused(tmp_path, r"they differ in embedding\.weight$", model)


def test_a_tokenizer_must_be_the_models_and_have_the_token_that_ends(tmp_path):
    model = replace(OURS, vocab_size=280).build()
    refused(tmp_path, "has 280 ids and the model 50", OURS.build(), TOKENIZER)
    refused(tmp_path, "end_token needs the tokenizer", model, end_token=END)
    refused(tmp_path, r"one of \['<\|endoftext\|>'\]", model, TOKENIZER, end_token="the")
    refused(tmp_path, "got a FastTokenizer, whose .tokenizer may", model, FastTokenizer(TOKENIZER))
