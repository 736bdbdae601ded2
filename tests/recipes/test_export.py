import os
import shutil
import sys
from itertools import islice, takewhile
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

from minillm import cli
from minillm.experts.moe import MoEConfig
from minillm.formats import gguf_file, hf, hf_mixtral
from minillm.model.config import TransformerConfig
from minillm.quant import store
from minillm.recipes.export import run
from minillm.serve.sample import SampleConfig, stream
from minillm.text.tokenizer import Tokenizer
from minillm.zoo import checkpoints

TOWN = Path("town-1m")


def export(monkeypatch, *words):
    """The exit status of `minillm export …`."""
    monkeypatch.setattr(sys, "argv", ["minillm", "export", *map(str, words)])
    with pytest.raises(SystemExit) as end:
        cli.main()
    return end.value.code or 0


# --- by hand --------------------------------------------------------------------------------------
def test_a_gguf_file_is_written_and_what_stayed_f16_is_named(tmp_path, monkeypatch, capsys):
    out = tmp_path / "town.gguf"
    words = ("--model", "town-1m", "--format", "gguf", "--type", "q4_0", "--out", out)
    assert export(monkeypatch, *words) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].startswith(f"{out}: {out.stat().st_size:,} bytes; in float32")
    tables, blocks, downs = 1024 * 128, 4 * (4 * 128 + 2 * 344) * 128, 4 * 128 * 344
    assert [line.split()[:4] for line in lines[1:4]] == [
        ["Q4_0", "25", "tensors", f"{(tables + blocks) * 18 // 32:,}"],
        ["F32", "17", "tensors", f"{4 * (9 * 128 + 4 * 2 * 32):,}"],
        ["F16", "4", "tensors", f"{2 * downs:,}"],
    ]
    assert "32 does not divide blk.*.ffn_down.weight: rows of 344" in lines[3]
    assert "other ids than here for some numbers" in lines[4]
    assert gguf_file.read(out)[0]["general.name"] == "town-1m"
    assert os.listdir(tmp_path) == ["town.gguf"]


def test_a_folder_in_the_type_of_the_zoo_is_that_of_the_zoo(tmp_path):
    (line,) = run(TOWN, form="hf", kind="bf16", out=tmp_path / "town")
    assert line.startswith(f"{tmp_path / 'town'}: 1,")
    for path in checkpoints.folder("town-1m").iterdir():
        if path.name not in ("manifest.json", "CARD.md"):  # how it was made
            assert (tmp_path / "town" / path.name).read_bytes() == path.read_bytes()
    assert os.listdir(tmp_path) == ["town"]


def test_a_model_with_experts_becomes_a_folder_but_no_gguf_file(tmp_path):
    config = TransformerConfig(vocab_size=257, d_model=16, n_layers=1, ffn=MoEConfig(n_experts=2))
    hf_mixtral.save(config.build(), tmp_path / "moe", Tokenizer((), ("<|end|>",)))
    run(tmp_path / "moe", form="hf", kind="f16", out=tmp_path / "again")
    again = hf_mixtral.load(tmp_path / "again").blocks[0].ffn.router.weight
    assert torch.equal(again, config.build().blocks[0].ffn.router.weight.half().float())
    with pytest.raises(ValueError, match="none has an FFN of MoEConfig"):
        run(tmp_path / "moe", form="gguf", kind="f32", out=tmp_path / "moe.gguf")
    assert sorted(os.listdir(tmp_path)) == ["again", "moe"]


# --- reference ------------------------------------------------------------------------------------
def test_llama_cpp_reads_the_file_and_writes_the_same_text(tmp_path):
    llama_cpp = pytest.importorskip("llama_cpp")
    run(TOWN, form="gguf", kind="f32", out=tmp_path / "town.gguf")
    theirs = llama_cpp.Llama(str(tmp_path / "town.gguf"), n_ctx=128, verbose=False)
    model, tokenizer, end_ids = checkpoints.open_model(TOWN)
    for prompt in ("Mei", "Hu has 12 eggs.\n", "村里"):
        ids = tokenizer.encode(prompt)
        assert theirs.tokenize(prompt.encode(), special=False) == ids
        written = theirs.generate(ids, temp=0.0, repeat_penalty=1.0)
        written = takewhile(lambda id: id != theirs.token_eos(), islice(written, 60))
        greedy = SampleConfig(temperature=0.0)
        ours = stream(model, ids, greedy, n_tokens=60, stop_ids=end_ids, seed=0)
        assert list(written) == [id for id in ours if id not in end_ids]
    assert theirs.token_eos() == end_ids[0]


# --- what can be wrong ----------------------------------------------------------------------------
@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("--format", "onnx", "--out", "new"), "--format must be one of gguf, hf; got 'onnx'"),
        (("--type", "q5_k", "--out", "new"), "--type of gguf must be one of f32, .* got 'q5_k'"),
        (("--out", "there"), "there is there already; take another --out"),
        (("--out", "no/where.gguf"), "there is no folder no to write where.gguf into"),
        (("--out", "new", "--model", "nowhere"), "there is no config.json in nowhere"),
        (("--out", "new", "--model", "cut"), "model.safetensors is cut off or damaged"),
        (("--out", "new", "--model", "coded"), "coded is quantized already, and no format here"),
        (("--out", "new", "--model", "mute"), "needs 1 to 3 ids that end a text; got"),
    ],
)
def test_what_cannot_be_exported_is_one_sentence_and_nothing_is_written(
    words, message, tmp_path, monkeypatch, capsys
):
    monkeypatch.chdir(tmp_path)
    Path("there").write_text("mine", encoding="utf-8")
    model = TransformerConfig(vocab_size=256, d_model=16, n_layers=1).build()
    hf.save(model, "mute", Tokenizer(()))
    shutil.copytree("mute", "cut")
    Path("cut/model.safetensors").write_bytes(Path("mute/model.safetensors").read_bytes()[:-9])
    shutil.copytree("mute", "coded")
    Path("coded", store.QUANTIZATION).write_text("{}", encoding="utf-8")
    before = sorted(os.listdir())
    words = words if "--model" in words else ("--model", "town-1m", *words)
    assert export(monkeypatch, *words) == 2
    error = capsys.readouterr().err
    assert error.count("\n") == 1
    with pytest.raises(ValueError, match=message):
        raise ValueError(error)
    assert sorted(os.listdir()) == before
    assert Path("there").read_text(encoding="utf-8") == "mine"


@pytest.mark.parametrize("form", ["gguf", "hf"])
def test_a_disk_that_is_too_full_is_named_and_keeps_what_it_has(form, tmp_path, monkeypatch):
    monkeypatch.setattr(shutil, "disk_usage", lambda folder: SimpleNamespace(free=1_000_000))
    with pytest.raises(ValueError, match=r"takes [0-9,]+ bytes, and the disk of .* has 1,000,000"):
        run(TOWN, form=form, kind="f32", out=tmp_path / "town")
    assert os.listdir(tmp_path) == []


def test_a_number_that_is_too_large_for_the_type_leaves_nothing_behind(tmp_path):
    model = TransformerConfig(vocab_size=257, d_model=16, n_layers=1).build()
    torch.nn.init.constant_(model.head.weight, 1e6)
    hf.save(model, tmp_path / "large", Tokenizer((), ("<|end|>",)), end_token="<|end|>")
    for form, words in (("gguf", "output.weight: F16 cannot hold"), ("hf", "lm_head.weight")):
        with pytest.raises(ValueError, match=words):
            run(tmp_path / "large", form=form, kind="f16", out=tmp_path / "out")
    assert os.listdir(tmp_path) == ["large"]
