"""The kinds of file that are read, each with a good one, its reader, and what nothing seals in it.

What a kind means is what its reader gives: for weights their bits, for a tokenizer the ids of some
text and the bytes of every token.

Chapter: app
"""

import hashlib
import json
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, final

import numpy as np
import tokenizers
import torch
from tokenizers import decoders, models, normalizers, processors

from minillm.data.corpus import fetch
from minillm.experts.moe import MoEConfig
from minillm.formats import hf, hf_mixtral, safetensors_file
from minillm.formats.tokenizer_json import JsonTokenizer
from minillm.lab import claims, glossary
from minillm.lab.answers import read_answers
from minillm.lab.files import write_whole
from minillm.lab.project import read_json, read_progress, read_syllabus
from minillm.model.config import TransformerConfig
from minillm.model.transformer import Transformer
from minillm.recipes import recipe
from minillm.recipes.data import TextData
from minillm.text.tokenizer import Tokenizer
from minillm.train import checkpoint, manifest

END = "<|endoftext|>"
TOKENIZER = Tokenizer(((104, 105), (32, 256), (230, 157), (258, 145)), (END, "<|pad|>"))
TEXT = "Mei sells plums.\n\nBao waits 12 hours.\n\n小梅住在村里。\n\nhi hi hi 村\n"
SHA256 = hashlib.sha256(TEXT.encode()).hexdigest()
WHOLE, INDEX = safetensors_file.WHOLE, safetensors_file.INDEX
#: Of a config: numbers of which any would do, and what changes no logit.
SHAPELESS = (
    "rope_theta", "rope_parameters.rope_theta", "rms_norm_eps", "max_position_embeddings",
    "initializer_range", "num_experts_per_tok", "num_attention_heads", "head_dim",
    "num_key_value_heads", "vocab_size", "sliding_window",
)  # fmt: skip
#: Of a tokenizer: the spelling of tokens, their merges, and the pattern.
SPELLING = ("model.vocab.*", "model.merges.*", "added_tokens.*.content", "pre_tokenizer.*Regex")
FLAGS = ("added_tokens.*", "pre_tokenizer.*", "decoder.*", "normalizer.*", "model.*", "post_*")


@final
@dataclass(frozen=True, kw_only=True)
class Kind:
    """A kind of file.

    Args:
        name: of it.
        file: its path in the folder.
        make: writes a good one, and what belongs to it, into an empty folder.
        read: what it means to the product that reads it.
        form: "json", "toml", "safetensors", "text" or "bytes".
        free: patterns of values that nothing seals: another value of the same type is another file.
        open: patterns of values in place of which any may stand.
        unbounded: patterns of numbers of which none is too large.
        optional: patterns of free numbers that may be null, too.
    """

    name: str
    file: str
    make: Callable[[Path], object]
    read: Callable[[Path], Any]
    form: str = "json"
    free: tuple[str, ...] = ()
    open: tuple[str, ...] = ()
    unbounded: tuple[str, ...] = ()
    optional: tuple[str, ...] = ()


def kinds() -> tuple[Kind, ...]:
    """All kinds, what a learner writes first."""
    return (
        Kind(
            name="recipe, TOML", file="mine.toml", form="toml", free=("*",),
            make=lambda folder: write_whole(folder / "mine.toml", _toml()),
            read=lambda folder: recipe.load(folder / "mine.toml"),
        ),
        Kind(
            name="text to learn", file="tales.txt", form="text", free=("*",),
            make=lambda folder: write_whole(folder / "tales.txt", TEXT),
            read=lambda folder: _documents(folder / "tales.txt"),
        ),
        Kind(
            name="answers", file="answers.py", form="text", free=("*",),
            make=lambda folder: write_whole(folder / "answers.py", "def f(n):\n    return n\n"),
            read=lambda folder: read_answers(folder / "answers.py"),
        ),
        Kind(
            name="progress.json", file="progress.json",
            free=("*",), unbounded=("*.tries", "*.hints"),
            make=lambda folder: write_whole(folder / "progress.json", json.dumps(PROGRESS)),
            read=lambda folder: read_progress(folder / "progress.json"),
        ),
        Kind(  # a guess that is none is left out, so that a plot is never stopped
            name="predictions.json", file="predictions.json", free=("*",), open=("*",),
            make=lambda folder: write_whole(folder / "predictions.json", json.dumps(GUESSES)),
            read=lambda folder: read_json(folder / "predictions.json"),
        ),
        Kind(
            name="config.json, Llama", file="config.json", free=SHAPELESS,
            make=_save_llama, read=_read_llama,
        ),
        Kind(
            name="config.json, Mixtral", file="config.json", free=SHAPELESS,
            optional=("sliding_window",), make=_save_mixtral,
            read=lambda folder: _weights(hf_mixtral.load(folder)),
        ),
        Kind(
            name="generation_config.json", file="generation_config.json", free=("eos_token_id*",),
            make=_save_llama, read=hf.end_ids,
        ),
        Kind(
            name="model.safetensors", file=WHOLE, form="safetensors", free=("numbers",),
            make=_save_llama, read=_read_llama,
        ),
        Kind(
            name="index of shards", file=INDEX,
            make=lambda folder: _save_llama(folder, 2000), read=_read_llama,
        ),
        Kind(
            name="tokenizer.json, ours", file="tokenizer.json", free=(*SPELLING, *FLAGS),
            make=_save_llama, read=_read_tokenizer,
        ),
        Kind(
            name="tokenizer.json, Llama's", file="tokenizer.json", free=(*SPELLING, *FLAGS),
            make=_save_sentencepiece, read=_read_tokenizer,
        ),
        Kind(
            name="tokenizer_config.json", file="tokenizer_config.json",
            make=_save_llama, read=_read_tokenizer,
        ),
        Kind(
            name="checkpoint.json", file="step-00000005/checkpoint.json",
            make=_save_checkpoint, read=_read_checkpoint,
        ),
        Kind(
            name="state.safetensors", file="step-00000005/state.safetensors", form="safetensors",
            make=_save_checkpoint, read=_read_checkpoint,
        ),
        Kind(
            name="manifest.json", file="manifest.json", free=("*",),
            open=("config.*", "versions.*", "machine.*"), unbounded=("seed", "n_tokens"),
            make=lambda folder: manifest.save(_manifest(), folder / "manifest.json"),
            read=lambda folder: asdict(manifest.load(folder / "manifest.json")),
        ),
        Kind(
            name="download", file=SHA256, form="bytes",
            make=lambda folder: write_whole(folder / SHA256, TEXT),
            read=lambda folder: fetch("http://127.0.0.1:9/tales", SHA256, folder).read_bytes(),
        ),
        Kind(
            name="claims.toml", file="claims.toml", form="toml", free=("*",),
            make=lambda folder: write_whole(folder / "claims.toml", _claims()),
            read=lambda folder: claims.load.__wrapped__(folder / "claims.toml"),
        ),
        Kind(
            name="glossary.toml", file="glossary.toml", form="toml", free=("*",),
            make=lambda folder: write_whole(folder / "glossary.toml", GLOSSARY),
            read=lambda folder: [*map(vars, glossary.load.__wrapped__(folder / "glossary.toml"))],
        ),
        Kind(
            name="syllabus.toml", file="syllabus.toml", form="toml", free=("*",),
            unbounded=("chapter.*.minutes",),
            make=lambda folder: write_whole(folder / "syllabus.toml", SYLLABUS),
            read=lambda folder: read_syllabus(folder / "syllabus.toml"),
        ),
        Kind(
            name="stored notebook", file="00_claims.ipynb", free=("*",), open=("*",),
            make=lambda folder: write_whole(folder / "00_claims.ipynb", json.dumps(NOTEBOOK)),
            read=lambda folder: claims.measurements(folder / "00_claims.ipynb"),
        ),
    )  # fmt: skip


# --- good files, and their readers --------------------------------------------------------------
PROGRESS = {
    "0.1": {"status": "done", "tries": 2, "hints": 1, "when": "2026-01-31T12:00:00"},
    "0.2": {"status": "wrong", "tries": 1, "seen": True, "when": "2026-01-31T12:09:00"},
}
GUESSES = {"GiB": {"guess": 18.0, "truth": 576.0, "unit": "GiB", "when": "2026-01-31T12:00:00"}}
GLOSSARY = """[[term]]
term = "vocabulary size"
chinese = "词表大小"
identifier = "vocab_size"
meaning = "How many tokens there are."
chapter = "01"
banned = ["n_vocab"]
banned_in = { width = ["model"] }
"""
SYLLABUS = """[[chapter]]
number = "00"
slug = "claims"
title = "Count before you believe"
headline = "576 GiB"
minutes = 70
needs = []
tasks = ["0.1", "0.2"]
"""
NOTEBOOK = {
    "cells": [
        {"cell_type": "markdown", "source": ["# 00"], "metadata": {}},
        {
            "cell_type": "code",
            "source": ['expect("one cache, GiB", 18.0, equals=18, claim="kv")'],
            "outputs": [{"text": ["✔ one cache, GiB: 18 (equals 18)\n"]}],
        },
    ],
    "nbformat": 4,
}


def _toml() -> str:
    return (
        'name = "mine"\nseed = 3\nthreads = 1\n\n[data]\nkind = "text"\nfiles = ["tales.txt"]\n'
        'held_out = 0.1\nends = "blank line"\n\n[model]\nvocab_size = 300\nd_model = 64\n'
        "n_heads = 4\nqk_norm = true\ninitial_std = 0.02\n\n[training]\nn_steps = 200\n"
        "warmup_steps = 20\nlearning_rate = 3e-3\nweight_decay = 0.1\nclip_norm = 1.0\n"
    )


def _claims() -> str:
    facts = {field: "x" for field in claims.Claim.__dataclass_fields__}
    facts |= {"id": "kv", "evidence": "arithmetic", "verdict": "follows by arithmetic"}
    return "[[claim]]\n" + "".join(f'{key} = "{value}"\n' for key, value in facts.items())


def _documents(file: Path) -> list[str]:
    data = TextData(files=(str(file),), held_out=0.3)
    return data.documents("train") + data.documents("held out")


def _llama() -> TransformerConfig:
    return TransformerConfig(
        vocab_size=TOKENIZER.vocab_size, context_length=32, d_model=16, n_layers=1
    )


def _save_llama(folder: Path, max_shard_bytes: int = 2**32) -> None:
    model = _llama().build(seed=0)
    hf.save(model, folder, TOKENIZER, end_token=END, max_shard_bytes=max_shard_bytes)


def _save_mixtral(folder: Path) -> None:
    experts = MoEConfig(n_experts=2, top_k=1, d_expert=8, norm_topk=True)
    config = TransformerConfig(
        vocab_size=TOKENIZER.vocab_size, context_length=32, d_model=16, n_layers=1, ffn=experts
    )
    hf_mixtral.save(config.build(seed=0), folder, TOKENIZER, end_token=END)


def _read_llama(folder: Path) -> Any:
    return _weights(hf.load(folder))


def _weights(model: Transformer) -> Any:
    state = model.state_dict().items()
    return model.config, {name: tensor.numpy().tobytes() for name, tensor in state}


def _save_sentencepiece(folder: Path) -> None:
    pieces = ["<unk>", "<s>", "</s>", *(f"<0x{byte:02X}>" for byte in range(256))]
    pieces += ["▁", "h", "i", "hi", "▁hi", "村"]
    vocab = {piece: number for number, piece in enumerate(pieces)}
    theirs = tokenizers.Tokenizer(
        models.BPE(
            vocab=vocab, merges=[("h", "i"), ("▁", "hi")], unk_token="<unk>", byte_fallback=True
        )
    )
    theirs.normalizer = normalizers.Sequence(
        [normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")]
    )
    theirs.decoder = decoders.Sequence(
        [decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse(),
         decoders.Strip(" ", 1, 0)]
    )  # fmt: skip
    theirs.add_special_tokens(["<unk>", "<s>", "</s>"])
    theirs.post_processor = processors.TemplateProcessing("<s> $A", special_tokens=[("<s>", 1)])
    write_whole(folder / "tokenizer.json", theirs.to_str(pretty=True))


def _read_tokenizer(folder: Path) -> Any:
    tokenizer: JsonTokenizer = hf.load_tokenizer(folder)
    spelling = {token: tokenizer.token_bytes(token) for token in sorted(tokenizer.ids)}
    ids = tokenizer.encode(TEXT), tokenizer.decode(tokenizer.encode(TEXT))
    return ids, spelling, dict(tokenizer.special_ids), tokenizer.begin_ids


def _save_checkpoint(folder: Path) -> None:
    tensors = {"model.x": torch.arange(6.0).reshape(2, 3), "random.torch": torch.ones(4)}
    checkpoint.save(folder, 5, tensors, {"evaluation": 1.5, "note": "plum"})


def _read_checkpoint(folder: Path) -> Any:
    saved = checkpoint.load(folder / "step-00000005")
    return saved.step, saved.record, {n: t.numpy().tobytes() for n, t in saved.tensors.items()}


def _manifest() -> manifest.Manifest:
    config = recipe.Recipe(name="mine").as_dict()
    return manifest.describe("mine", 0, config, np.arange(50))
