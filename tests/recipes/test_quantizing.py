import json
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

from minillm.data.packing import Packed
from minillm.formats import hf
from minillm.lab.files import write_whole
from minillm.model.config import tiny
from minillm.quant import store
from minillm.quant.nf4 import NF4Config
from minillm.quant.rtn import Grid
from minillm.recipes import quantizing
from minillm.recipes.data import TextData
from minillm.recipes.quantizing import grid_of, rows_of, run, summary
from minillm.text.tokenizer import Tokenizer
from minillm.zoo import checkpoints

USUAL = {"bits": None, "group": None, "asymmetric": False, "clip": False, "table_bits": None}


@pytest.fixture
def toy(tmp_path):
    """A folder with a model of bytes."""
    torch.manual_seed(0)
    tokenizer = Tokenizer((), ("<|endoftext|>",))
    hf.save(tiny(257).build(seed=0), tmp_path / "toy", tokenizer, end_token="<|endoftext|>")
    return tmp_path / "toy"


@pytest.fixture
def text(tmp_path):
    words = [f"{name} sells {n} plums at the market." for n in range(40) for name in ("Mei", "Bao")]
    write_whole(tmp_path / "text.txt", "\n\n".join(words))
    return tmp_path / "text.txt"


# --- by hand --------------------------------------------------------------------------------------
def test_options_become_a_grid():
    assert grid_of("gptq", None, None, asymmetric=False) == Grid(bits=4)
    assert grid_of("rtn", 2, 32, asymmetric=True) == Grid(bits=2, granularity=32, symmetric=False)
    assert grid_of("nf4", 4, None, asymmetric=False) == NF4Config()
    assert grid_of("nf4", None, 32, asymmetric=False) == NF4Config(block_size=32)
    assert grid_of("rtn", 2, None, asymmetric=False, clip=True) == Grid(bits=2, clip=True)
    for options in ((3, None, False), (None, None, True), (None, None, False, True)):
        with pytest.raises(ValueError, match="nf4 has 4 bits and its own"):
            grid_of("nf4", *options)
    with pytest.raises(ValueError, match="one of 8, 4, 3, 2; got 5"):
        grid_of("rtn", 5, None, asymmetric=False)


def test_a_summary_says_what_was_saved_and_what_it_cost():
    plan = SimpleNamespace(bytes_before=4000, bytes_after=1000, bits_per_weight=4.125)
    first, second = summary(plan, 2.0, 2.1)
    assert "4,000 → 1,000, 4.00 times fewer; 4.12 bits" in first
    assert "2.0000 → 2.1000 nats a token, +5.00%" in second


@pytest.mark.parametrize("method", ["rtn", "gptq", "nf4"])
def test_a_model_is_written_that_sample_and_serve_open(method, toy, text, tmp_path, capsys):
    out = tmp_path / "deep" / "out"
    run(
        toy,
        out,
        method=method,
        text=text,
        **{**USUAL, "table_bits": 8 if method == "rtn" else None},
    )
    printed = capsys.readouterr().out
    assert f"minillm sample --model {out}" in printed
    assert printed.count("blocks.") == 8
    before, after = printed.split("held-out loss: ")[1].split(" nats")[0].split(" → ")
    assert float(before) == pytest.approx(float(after), rel=0.02)
    model, tokenizer, end_ids = checkpoints.open_model(out)
    quantized, plan = store.load(out)
    assert (tokenizer.vocab_size, end_ids) == (257, (256,))
    assert f"{plan.bytes_before:,} → {plan.bytes_after:,}" in printed
    assert {line.method for line in plan.lines} == {"kept", method}
    tokens = torch.tensor([tokenizer.encode("Mei sells")])
    with torch.no_grad():
        assert torch.equal(model(tokens), quantized(tokens))
    texts = rows_of(model, tokenizer, end_ids, TextData(files=(str(text),)))
    assert f"{quantizing.loss(model, texts.held_out):.4f}" == after  # as it says, from the disk


def test_calibratiobatch_size_are_drawn_without_repetition_from_what_is_not_held_out():
    documents = [[n] * 3 for n in range(1, 30)]
    packed = Packed(documents, end_id=0, context_length=4, batch_size=1)
    texts = quantizing.Texts(packed, packed)
    rows = texts.calibration(seed=1, batch_size=10)
    assert rows.shape == (10, 4)
    assert len(set(map(tuple, rows.tolist()))) == 10
    assert torch.equal(rows, texts.calibration(seed=1, batch_size=10))
    assert not torch.equal(rows, texts.calibration(seed=2, batch_size=10))
    assert len(texts.calibration(batch_size=99)) == packed.n_places


# --- what is refused ------------------------------------------------------------------------------
def test_nothing_is_begun_that_cannot_end(toy, text, tmp_path, monkeypatch):
    options = {"method": "gptq", "text": text, **USUAL}
    with pytest.raises(ValueError, match="exists, and nothing is ever replaced"):
        run(toy, text, **options)
    out = tmp_path / "out"
    with pytest.raises(ValueError, match=r"blocks\.0\.mixer\.qkv has rows of 64.*groups of 1000"):
        run(toy, out, **{**options, "group": 1000})
    write_whole(text, "Mei sells plums.\n\n" * 3 + "Bao waits, and waits. " * 7)
    with pytest.raises(ValueError, match=r"too short: the documents have .* tokens"):
        run(toy, out, **options)
    monkeypatch.setattr(quantizing, "ROW_TOKENS", 16)
    with pytest.raises(ValueError, match="columns, 176; got 48 tokens"):
        run(toy, out, **options)
    assert not out.exists()
    assert {path.name for path in tmp_path.iterdir()} == {"toy", "text.txt"}


def test_a_model_that_is_quantized_already_is_refused(toy, text, tmp_path):
    run(toy, tmp_path / "once", method="nf4", text=text, **USUAL)
    with pytest.raises(ValueError, match="quantized already"):
        run(tmp_path / "once", tmp_path / "twice", method="rtn", text=text, **USUAL)


def test_a_model_without_an_end_token_is_told_so(toy, text):
    model, tokenizer, _ = checkpoints.open_model(toy)
    nameless = SimpleNamespace(special_ids={}, encode=tokenizer.encode)
    with pytest.raises(ValueError, match="no token that ends a text"):
        rows_of(model, nameless, (), TextData(files=(str(text),)))


# --- as a person meets it -------------------------------------------------------------------------
def test_the_command_takes_its_options(toy, text, tmp_path, monkeypatch, capsys):
    from minillm.cli import main

    out = tmp_path / "out"
    words = f"quantize --model {toy} --method rtn --bits 3 --group 16 --asymmetric --clip"
    monkeypatch.setattr(
        "sys.argv", ["minillm", *words.split(), "--text", str(text), "--out", str(out)]
    )
    with pytest.raises(SystemExit) as ended:
        main()
    assert not ended.value.code
    note = json.loads(Path(out, "quantization.json").read_text(encoding="utf-8"))
    grids = [line["grid"] for line in note["plan"]["lines"] if line["method"] == "rtn"]
    expected = {"is": "Grid", "bits": 3, "granularity": 16, "symmetric": False, "clip": True}
    assert grids == [expected] * 8
    monkeypatch.setattr("sys.argv", ["minillm", *words.split(), "--out", str(out)])
    with pytest.raises(SystemExit) as ended:
        main()
    assert ended.value.code == 2
    assert "exists, and nothing is ever replaced" in capsys.readouterr().err
