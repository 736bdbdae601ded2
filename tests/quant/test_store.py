import json
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from minillm.experts.moe import MoEConfig
from minillm.formats import hf
from minillm.lab.files import write_whole
from minillm.mixers.mamba import MambaConfig
from minillm.model.config import TransformerConfig
from minillm.quant.apply import quantize
from minillm.quant.plan import plan
from minillm.quant.rtn import BITS, Grid
from minillm.quant.store import is_quantized, load, pack, save, unpack

SMALL = TransformerConfig(vocab_size=40, context_length=32, d_model=32, n_layers=2)
KINDS = {
    "dense": SMALL,
    "tied": replace(SMALL, tied_embeddings=True),
    "moe": replace(SMALL, ffn=MoEConfig(n_experts=3, d_expert=24)),
    "mamba": replace(SMALL, mixer=MambaConfig()),
}
FORMS = [
    ("rtn", Grid(bits=8, granularity="tensor")),
    ("gptq", Grid(bits=3, granularity=8, symmetric=False)),
    ("nf4", None),
]
TOKENS = torch.randint(40, (4, 30), generator=torch.Generator().manual_seed(1))


def quantized(config=SMALL, method="rtn", grid=None, **options):
    model = config.build(seed=0)
    return quantize(model, plan(model, method, grid, **options), TOKENS)


@pytest.fixture
def folder(tmp_path):
    save(quantized(), tmp_path / "q")
    return tmp_path / "q"


def change(file, **keys):
    write_whole(file, json.dumps(json.loads(file.read_text(encoding="utf-8")) | keys))


# --- by hand --------------------------------------------------------------------------------------
def test_codes_of_3_bits_cross_the_bounds_of_bytes():
    codes = torch.tensor([[1, 2, 3], [4, 5, 6]])
    packed = pack(codes, bits=3)
    assert packed.tolist() == [0b11_010_001, 0b0_101_100_0, 0b11]
    assert unpack(packed, 3, 6).tolist() == [1, 2, 3, 4, 5, 6]
    with pytest.raises(ValueError, match="7 codes of 8 bits do not take 3 bytes"):
        unpack(packed, 8, 7)


# --- twin -----------------------------------------------------------------------------------------
@given(st.sampled_from(BITS), st.lists(st.integers(0, 255), min_size=1, max_size=40))
def test_all_bits_at_once_are_as_one_large_number(bits, numbers):
    codes = [number % 2**bits for number in numbers]
    total = sum(code << bits * n for n, code in enumerate(codes))
    expected = total.to_bytes(-(-len(codes) * bits // 8), "little")
    packed = pack(torch.tensor(codes, dtype=torch.uint8), bits)
    assert packed.numpy().tobytes() == expected
    assert np.array_equal(unpack(packed, bits, len(codes)).numpy(), codes)


# --- laws -----------------------------------------------------------------------------------------
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(("method", "grid"), FORMS, ids=[form[0] for form in FORMS])
def test_a_model_comes_back_with_the_same_logits_bit_for_bit(kind, method, grid, tmp_path):
    small, done = quantized(KINDS[kind], method, grid, tables=kind == "tied")
    save((small, done), tmp_path / "deep" / "q")
    again, its_plan = load(tmp_path / "deep" / "q")
    assert its_plan == done
    with torch.no_grad():
        assert torch.equal(again(TOKENS), small(TOKENS))
    n_bytes = sum(part.nbytes for part in again.state_dict().values())
    assert n_bytes >= done.bytes_after  # a code takes a byte in memory
    assert done.bytes_after < done.bytes_before


def test_the_file_has_the_bytes_that_the_plan_says(folder):
    _, done = load(folder)
    size = (folder / "model.safetensors").stat().st_size
    header = int.from_bytes((folder / "model.safetensors").read_bytes()[:8], "little")
    assert size - header - 8 == done.bytes_after


def test_a_model_in_bfloat16_comes_back_as_it_was(tmp_path):
    small, done = quantized()
    small.to(torch.bfloat16)
    save((small, done), tmp_path / "q")
    again, _ = load(tmp_path / "q")
    with torch.no_grad():
        assert torch.equal(again(TOKENS), small(TOKENS))
    assert again(TOKENS).dtype == torch.bfloat16


def test_what_stands_beside_the_model_comes_along(tmp_path):
    beside = tmp_path / "from"
    beside.mkdir()
    for name in ("tokenizer.json", "CARD.md"):
        write_whole(beside / name, "{}")
    save(quantized(), tmp_path / "q", beside=beside)
    assert sorted(path.name for path in (tmp_path / "q").iterdir()) == [
        *["config.json", "model.safetensors", "quantization.json", "tokenizer.json"]
    ]


# --- what is refused ------------------------------------------------------------------------------
def test_a_folder_is_whole_or_not_there_and_none_is_replaced(folder, tmp_path, monkeypatch):
    with pytest.raises(ValueError, match="exists, and nothing is ever replaced"):
        save(quantized(), folder)
    monkeypatch.setattr("minillm.quant.store._digest", lambda path: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        save(quantized(), tmp_path / "new")
    assert [path.name for path in tmp_path.iterdir()] == ["q"]
    monkeypatch.setattr("shutil.disk_usage", lambda path: SimpleNamespace(free=0))
    with pytest.raises(ValueError, match="has 0 left"):
        save(quantized(), tmp_path / "new")


def test_a_model_that_is_not_what_its_config_says_is_not_saved(tmp_path):
    small, done = quantized()
    with pytest.raises(ValueError, match=r"plan say; they differ in blocks\.0"):
        save((SMALL.build(), done), tmp_path / "q")
    small.config = None
    with pytest.raises(ValueError, match="needs the config"):
        save((small, done), tmp_path / "q")


def test_another_version_and_another_program_are_refused(folder):
    assert is_quantized(folder)
    change(folder / "quantization.json", version=2)
    with pytest.raises(ValueError, match="version 1; it says 'minillm quantized' and 2"):
        load(folder)
    change(folder / "quantization.json", format="awq")
    with pytest.raises(ValueError, match=r"'awq'.*another program's"):
        load(folder)
    with pytest.raises(ValueError, match="model_type: 'minillm quantized'"):
        hf.load(folder)
    (folder / "quantization.json").write_bytes(b"\x80pickle")
    with pytest.raises(ValueError, match="is a pickle"):
        load(folder)


def test_damage_anywhere_is_named(folder):
    file = folder / "model.safetensors"
    data = file.read_bytes()
    file.write_bytes(data[:-1] + bytes([data[-1] ^ 1]))
    with pytest.raises(ValueError, match="is damaged, or of another model"):
        load(folder)
    file.write_bytes(data[:-1])
    with pytest.raises(ValueError, match="cut off or damaged"):
        load(folder)
    file.unlink()
    with pytest.raises(ValueError, match=r"no model\.safetensors"):
        load(folder)


@pytest.mark.parametrize(
    ("key", "value", "words"),
    [
        ("d_model", 64, "a matrix blocks.0.mixer.qkv"),
        ("vocab_size", 41, "is of F32 .40, 32.; by config.json .* F32 .41, 32."),
        ("n_layers", 10_000, "too few tensors for a model of 10,000 layers"),
        ("n_layers", 2**30, "at most 16,777,216"),
        ("context_length", 2**24, "would take"),
        ("d_model", "many", "d_model must be a whole number"),
        ("mixer", 3, "mixer must be a config"),
        ("mixer", {"is": "Popen"}, "a part is one of"),
    ],
)
def test_a_config_that_does_not_fit_is_refused_before_any_memory_is_taken(
    folder, key, value, words, monkeypatch
):
    content = json.loads((folder / "config.json").read_text(encoding="utf-8"))["config"]
    change(folder / "config.json", config=content | {key: value})
    monkeypatch.setattr("minillm.formats.safetensors_file.read", lambda entries: 1 / 0)
    monkeypatch.setattr("minillm.quant.store.MOST_BUFFER_BYTES", 2**20)
    with pytest.raises(ValueError, match=words):
        load(folder)


def test_a_plan_that_does_not_fit_is_refused(folder):
    note = json.loads((folder / "quantization.json").read_text(encoding="utf-8"))
    lines = note["plan"]["lines"]
    grid = {"is": "Grid", "bits": 3, "granularity": "channel", "symmetric": True, "clip": False}
    for wrong, words in (
        ({"grid": grid}, "U8"),
        ({"grid": None}, "describe no model"),
        ({"shape": [96]}, r"has a matrix blocks\.0\.mixer\.qkv"),
        ({"shape": None}, r"has a matrix blocks\.0\.mixer\.qkv"),
        ({"name": "embedding"}, "Missing|Unexpected|has a matrix"),
        ({"method": "kept"}, "Missing: "),
    ):
        changed = [lines[0], lines[1] | wrong, *lines[2:]]
        change(folder / "quantization.json", plan=note["plan"] | {"lines": changed})
        with pytest.raises(ValueError, match=words):
            load(folder)
    change(folder / "quantization.json", plan=None, dtype="int8")
    with pytest.raises(ValueError, match="must hold a Plan"):
        load(folder)
    change(folder / "quantization.json", plan=note["plan"])
    with pytest.raises(ValueError, match="dtype 'int8'"):
        load(folder)
