"""A model made from a model: what it takes over, what its manifest says, what is refused."""

import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from minillm.formats import hf
from minillm.formats.json_file import read_object
from minillm.quant.store import QUANTIZATION
from minillm.recipes import parent, recipe, run
from minillm.recipes.recipe import ModelShape
from minillm.serve import template
from minillm.train import checkpoint, manifest
from minillm.tune.chat import TEMPLATE, answers, save_template
from tests.recipes import tiny_parent
from tests.recipes.tiny_parent import CONFIG, TEXT

TRAINING = {
    "n_steps": 4,
    "warmup_steps": 1,
    "batch_size": 2,
    "optimizer": "muon",
    "evaluate_every": 2,
    "save_every": 2,
}


@pytest.fixture(scope="module")
def base(tmp_path_factory):
    return tiny_parent.write(tmp_path_factory.mktemp("models") / "base")


def read_on(base, folder, **change):
    file = folder / "letters.txt"
    file.write_text("\n\n".join([TEXT * 3] * 8), encoding="utf-8")
    data = {"kind": "text", "files": [str(file)]}
    return recipe.of({"name": "child", "parent": base, "data": data, "training": TRAINING} | change)


def chat(base, folder, n=12, **change):
    file = folder / "chats.jsonl"
    line = '{"messages": [{"role": "user", "content": "Mei?"}, {"role": "assistant", "content": '
    file.write_text("".join(f'{line}"{TEXT[: 9 + i]}"}}]}}\n' for i in range(n)), encoding="utf-8")
    data = {"kind": "chat", "files": [str(file)], "held_out": 0.2}
    return recipe.of({"name": "child", "parent": base, "data": data, "training": TRAINING} | change)


@pytest.fixture
def quick(monkeypatch):
    monkeypatch.setattr(run.run_log, "draw", lambda log, path: path.touch())


def weights(model):
    return torch.cat([each.flatten() for each in model.parameters()])


# --- what is taken over --------------------------------------------------------------------------
def test_a_child_begins_with_its_parents_weights_shape_and_tokenizer(base, tmp_path):
    child = parent.adopted(read_on(base, tmp_path))
    assert (child.model.vocab_size, child.model.d_model, child.model.n_heads) == (290, 16, 2)
    assert torch.equal(weights(run.begin(child).model), weights(hf.load(base)))
    tokenizer, training, _ = run.corpus(child)
    assert tokenizer.encode(TEXT) == tiny_parent.TOKENIZER.encode(TEXT)
    assert training.context_length == 32
    assert parent.adopted(child) == child
    assert recipe.of(child.as_dict()) == child


def test_a_shape_may_say_what_is_so_and_a_context_may_be_shorter(base, tmp_path):
    child = parent.adopted(read_on(base, tmp_path, model={"context_length": 16, "d_model": 16}))
    assert child.model == replace(parent.shape_of(base), context_length=16)
    assert run.begin(child).model.context_length == 16


def test_without_a_parent_nothing_changes():
    plain = recipe.Recipe(name="mine")
    assert parent.adopted(plain) is plain
    assert not {"parent", "parent_sha256"} & plain.as_dict().keys()


def test_a_shipped_model_is_a_parent_by_its_name():
    assert parent.shape_of("town-1m") == replace(
        recipe.find("town-1m").model, n_kv_heads=4, d_ff=344, zero_residual_projections=False
    )


def test_continued_pre_training_leaves_a_model_with_the_parents_tokenizer(base, tmp_path, quick):
    folder = run.run(read_on(base, tmp_path), tmp_path / "run")
    assert (folder / hf.TOKENIZER).read_bytes() == Path(base, hf.TOKENIZER).read_bytes()
    assert hf.end_ids(folder) == hf.end_ids(base)
    assert not torch.equal(weights(hf.load(folder)), weights(hf.load(base)))
    assert not (folder / template.FILE).exists()
    note = manifest.load(tmp_path / "run" / "manifest.json")
    assert note.config["parent"] == "base"
    assert note.config["parent_sha256"] == parent.weights_sha256(Path(base))


# --- conversations -------------------------------------------------------------------------------
def test_a_chat_run_leaves_a_model_that_can_be_talked_to(base, tmp_path, quick):
    folder = run.run(chat(base, tmp_path), tmp_path / "run")
    tokenizer = hf.load_tokenizer(folder)
    assert template.load(folder, tokenizer) == TEMPLATE
    ends = hf.end_ids(folder)
    assert ends == (*hf.end_ids(base), tokenizer.special_ids["<|end|>"])
    assert read_object(folder / hf.CONFIG)["eos_token_id"] == ends[0]
    [one] = answers(hf.load(folder), tokenizer, [[template.Message("user", "Mei?")]], n_tokens=3)
    assert isinstance(one.text, str)
    lines = (tmp_path / "run" / "log.jsonl").read_text(encoding="utf-8").splitlines()
    log = [json.loads(line) for line in lines]
    assert log[-1]["held_out"] < log[0]["held_out"]


def test_a_parents_own_template_is_kept(tmp_path, quick):
    base = tiny_parent.write(tmp_path / "base")
    own = replace(TEMPLATE, separator="\n")
    save_template(base, own)
    folder = run.run(chat(base, tmp_path), tmp_path / "run")
    assert template.load(folder, hf.load_tokenizer(folder)) == own


@pytest.mark.parametrize("kind", [read_on, chat])
def test_a_run_that_was_stopped_ends_with_the_same_bits(base, tmp_path, quick, monkeypatch, kind):
    whole = run.run(kind(base, tmp_path), tmp_path / "whole")
    save, saved = checkpoint.save, []

    def save_once(*args):
        if saved:
            raise OSError("no space left")
        saved.append(save(*args))

    monkeypatch.setattr(checkpoint, "save", save_once)
    with pytest.raises(OSError, match="no space"):
        run.run(kind(base, tmp_path), tmp_path / "run")
    monkeypatch.undo()
    monkeypatch.setattr(run.run_log, "draw", lambda log, path: path.touch())
    folder = run.run(kind(base, tmp_path), tmp_path / "run")
    assert torch.equal(weights(hf.load(folder)), weights(hf.load(whole)))


# --- what is refused -----------------------------------------------------------------------------
@pytest.mark.parametrize(
    ("model", "message"),
    [
        ({"d_model": 64}, r"\[model\] must say what is so.* d_model is 64 here and 16 there"),
        ({"zero_residual_projections": True}, "zero_residual_projections is True here and False"),
        ({"context_length": 64}, "context_length may be at most the parent's, 32,.* got 64"),
        ({"depth": 2}, r"\[model\] has no key depth"),
    ],
)
def test_a_shape_that_is_not_the_parents_is_refused(base, tmp_path, model, message):
    with pytest.raises(ValueError, match=message):
        parent.adopted(read_on(base, tmp_path, model=model))


def test_a_whole_shape_is_compared_too(base, tmp_path):
    child = replace(read_on(base, tmp_path), model=ModelShape(context_length=8))
    with pytest.raises(ValueError, match="vocab_size is 1024 here and 290 there"):
        parent.adopted(child)


def test_a_parent_that_is_not_there_or_quantized_is_refused(tmp_path):
    with pytest.raises(ValueError, match=r"shipped model, .*town-1m.*; there is no nobody"):
        parent.adopted(read_on("nobody", tmp_path))
    (tmp_path / "small").mkdir()
    (tmp_path / "small" / QUANTIZATION).write_text("{}", encoding="utf-8")
    with pytest.raises(ValueError, match="is quantized; name the model"):
        parent.folder(str(tmp_path / "small"))


def test_another_parent_under_the_same_name_is_refused(tmp_path, quick):
    base = tiny_parent.write(tmp_path / "base")
    run.run(read_on(base, tmp_path), tmp_path / "run")
    pinned = parent.adopted(read_on(base, tmp_path))
    tiny_parent.write(tmp_path / "base", seed=1)
    with pytest.raises(ValueError, match=r"another recipe \(config.parent_sha256"):
        run.run(read_on(base, tmp_path), tmp_path / "run")
    with pytest.raises(ValueError, match="must have the SHA-256 that child names"):
        parent.adopted(pinned)


def test_chat_needs_the_templates_special_tokens(tmp_path):
    plain = tiny_parent.bpe.train(TEXT * 20, 270, special_tokens=[tiny_parent.END])
    base = tiny_parent.write(tmp_path / "base", plain)
    with pytest.raises(ValueError, match=r"cannot have the usual one: .*lacks.*such as town-base"):
        run.corpus(parent.adopted(chat(base, tmp_path)))


def test_texts_need_a_token_that_ends_them(tmp_path):
    base = tiny_parent.write(tmp_path / "base")
    for name in (hf.CONFIG, hf.GENERATION):
        content = read_object(Path(base, name)) | {"eos_token_id": None}
        Path(base, name).write_text(json.dumps(content), encoding="utf-8")
    with pytest.raises(ValueError, match=r"names no token that ends a text.*eos_token_id into gen"):
        run.corpus(parent.adopted(read_on(base, tmp_path)))


def test_the_parent_is_never_written_over(tmp_path):
    base = tiny_parent.write(tmp_path / "model")
    child = parent.adopted(read_on(base, tmp_path))
    with pytest.raises(ValueError, match="holds the parent; name another folder with --out"):
        parent.save(CONFIG.build(), Path(base), child)
