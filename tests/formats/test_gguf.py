import json
from dataclasses import replace

import pytest
import torch
from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer
from transformers.utils import logging

from minillm.formats.gguf import save
from minillm.formats.gguf_blocks import decode, encode
from minillm.formats.gguf_file import load, read
from minillm.formats.hf_config import to_config
from minillm.formats.tokenizer_json import JsonTokenizer
from minillm.model.attention import AttentionConfig
from minillm.model.config import TransformerConfig
from minillm.model.ffn import SwiGLUConfig
from minillm.text.bpe import train
from minillm.text.fast import to_tokenizers_json

END = "<|endoftext|>"
CORPUS = ["the hen's eggs, 12 of them, 345 in all! 村里的人看人。\n\n"] * 9
TOKENIZER = JsonTokenizer(json.loads(to_tokenizers_json(train(CORPUS, 280, special_tokens=(END,)))))
LLAMA = TransformerConfig(
    vocab_size=288,  # some rows more than there are tokens
    context_length=64,
    d_model=64,
    n_layers=2,
    mixer=AttentionConfig(n_heads=4, n_kv_heads=2),
    ffn=SwiGLUConfig(d_ff=86),  # rows that 32 does not divide
)
QWEN = replace(LLAMA, mixer=replace(LLAMA.mixer, qk_norm=True), tied_embeddings=True)


@pytest.fixture(scope="module", autouse=True)
def no_bars():
    logging.disable_progress_bar()
    yield
    logging.enable_progress_bar()


def built(config):
    """A model with weights, gains too, that are large enough to make a difference."""
    generator = torch.Generator().manual_seed(0)
    model = config.build().eval()
    with torch.no_grad():
        for parameter in model.parameters():
            drawn = torch.randn(parameter.shape, generator=generator)
            parameter.copy_(0.3 * drawn + (parameter.ndim == 1))
    return model


@pytest.mark.parametrize("kind", ["F32", "Q8_0", "Q4_0"])
@pytest.mark.parametrize("config", [LLAMA, QWEN], ids=["llama", "qwen3"])
def test_transformers_reads_the_model_and_predicts_the_same(config, kind, tmp_path):
    model = built(config)
    entries = save(model, tmp_path / "a.gguf", TOKENIZER, end_ids=(279,), kind=kind)
    assert entries == read(tmp_path / "a.gguf")[1]
    (tmp_path / "config.json").write_text(json.dumps(to_config(config)), encoding="utf-8")
    theirs = AutoModelForCausalLM.from_pretrained(
        tmp_path,
        gguf_file="a.gguf",
        # transformers drops the size of a Qwen's heads, which is in the file
        config=AutoConfig.from_pretrained(tmp_path) if config is QWEN else None,
        dtype=torch.float32,
    )
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.ndim == 2:
                each = "F16" if parameter.shape[1] % 32 and kind != "F32" else kind
                parameter.copy_(decode(encode(parameter, each), each))
        tokens = torch.randint(0, 280, (2, 20), generator=torch.Generator().manual_seed(1))
        expected = model(tokens)
        logits = theirs.eval()(tokens).logits
    assert expected.std() > 0.1
    torch.testing.assert_close(logits, expected, rtol=0, atol=1e-5 * expected.abs().max().item())


def test_transformers_reads_the_tokenizer_and_gives_the_same_ids(tmp_path):
    save(LLAMA.build(), tmp_path / "a.gguf", TOKENIZER, end_ids=(279,), name="hen")
    assert read(tmp_path / "a.gguf")[0]["general.name"] == "hen"
    theirs = AutoTokenizer.from_pretrained(tmp_path, gguf_file="a.gguf")
    assert (theirs.eos_token, theirs.eos_token_id) == (END, 279)
    for text in (
        "the hen's  eggs,\n\t 12 of\n\n them 345 ",
        " 村里的人 isn't\r\n (here)!",
        "1 22 333",
    ):
        assert theirs(text).input_ids == TOKENIZER.encode(text)
    assert theirs(f"the{END} hen").input_ids == TOKENIZER.encode(f"the{END} hen", {END})


def test_matrices_have_the_type_that_is_asked_for_and_norms_are_float32(tmp_path):
    entries = save(built(QWEN), tmp_path / "a.gguf", TOKENIZER, end_ids=(279,), kind="BF16")
    assert {e.kind for e in entries.values() if len(e.shape) == 2} == {"BF16"}
    assert {e.kind for name, e in entries.items() if "norm" in name} == {"F32"}
    entries = save(built(QWEN), tmp_path / "a.gguf", TOKENIZER, end_ids=(279,), kind="Q8_0")
    stayed = [name for name, entry in entries.items() if entry.kind == "F16"]
    assert stayed == ["blk.0.ffn_down.weight", "blk.1.ffn_down.weight"]
    down = built(QWEN).blocks[0].ffn.down.weight
    assert torch.equal(load(entries[stayed[0]]), down.half().float())
    with pytest.raises(ValueError, match=r"kind must be one of F32, .*; got 'q8'"):
        save(built(QWEN), tmp_path / "a.gguf", TOKENIZER, end_ids=(279,), kind="q8")
