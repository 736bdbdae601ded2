"""A run from a recipe: what its folder holds, what is made again, and what it refuses."""

import json
import shutil
from dataclasses import replace
from functools import cache

import pytest
import torch

from minillm.formats import hf
from minillm.recipes import recipe, run
from minillm.train import checkpoint, manifest

MINE = recipe.of(
    {
        "name": "mine",
        "data": {"story_blocks": 1, "fact_blocks": 1, "held_out_blocks": 1, "languages": ["en"]},
        "model": {
            "vocab_size": 400,
            "d_model": 16,
            "n_layers": 1,
            "n_heads": 2,
            "context_length": 32,
        },
        "training": {
            "n_steps": 8,
            "warmup_steps": 2,
            "batch_size": 4,
            "evaluate_every": 4,
            "save_every": 3,
        },
    }
)


CORPUS = run.corpus


@cache
def parts():
    return CORPUS(MINE)


def corpus(mine):
    return parts() if mine.data == MINE.data else CORPUS(mine)


@pytest.fixture(autouse=True)
def cheap(monkeypatch):
    """The town of MINE is written once, and no picture is drawn but that of `finished`."""
    monkeypatch.setattr(run, "corpus", corpus)
    monkeypatch.setattr(run.run_log, "draw", lambda log, path: path.touch())


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    folder = tmp_path_factory.mktemp("runs") / "mine"
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(run, "corpus", corpus)
        run.run(MINE, folder)
    return folder


def weights(folder):
    model = hf.load(folder / "model")
    return torch.cat([parameter.flatten() for parameter in model.parameters()])


# --- by hand -----------------------------------------------------------------------------------
def test_a_run_leaves_a_manifest_a_log_a_picture_checkpoints_and_a_model(finished):
    names = {path.name for path in finished.iterdir()}
    assert {"manifest.json", "log.jsonl", "loss.png", "model"} <= names
    assert [path.name for path in checkpoint.complete(finished)][-1] == "step-00000008"
    log = [json.loads(line) for line in (finished / "log.jsonl").read_text().splitlines()]
    assert [line["step"] for line in log] == [4, 8]
    note = manifest.load(finished / "manifest.json")
    assert note.losses == {"final": log[-1]["held_out"]}
    assert recipe.of(note.config) == MINE
    assert (finished / "loss.png").read_bytes().startswith(b"\x89PNG")
    tokenizer = hf.load_tokenizer(finished / "model")
    assert tokenizer.decode(tokenizer.encode("Mei is at the mill.")) == "Mei is at the mill."
    assert len(hf.end_ids(finished / "model")) == 1


def test_matrices_decay_and_gains_do_not():
    state = run.begin(MINE)
    matrices, gains = state.optimizer.param_groups
    assert (matrices["weight_decay"], gains["weight_decay"]) == (0.1, 0.0)
    assert {p.ndim for p in gains["params"]} == {1}
    n_grouped = sum(p.numel() for group in (matrices, gains) for p in group["params"])
    assert n_grouped == sum(p.numel() for p in state.model.parameters())


@pytest.mark.parametrize("tied", [True, False])
def test_muon_gets_the_matrices_of_the_blocks_and_adamw_the_rest(tied):
    how = replace(MINE.training, optimizer="muon", learning_rate=0.004, matrix_rate=0.03)
    mine = replace(MINE, model=replace(MINE.model, tied_embeddings=tied), training=how)
    state = run.begin(mine)
    matrices, others = state.optimizer.param_groups
    block = state.model.blocks[0]
    assert (matrices["kind"], matrices["lr"], matrices["weight_decay"]) == ("muon", 0.03, 0.1)
    assert (others["kind"], others["lr"], others["weight_decay"]) == ("adamw", 0.004, 0.0)
    assert others["betas"] == run.BETAS
    assert any(p is block.ffn.down.weight for p in matrices["params"])
    assert any(p is state.model.embedding.weight for p in others["params"])
    grouped = [id(p) for group in (matrices, others) for p in group["params"]]
    assert sorted(grouped) == sorted(id(p) for p in state.model.parameters())


@pytest.mark.parametrize("silent", [True, False])
def test_blocks_begin_by_adding_nothing_where_that_is_asked(silent):
    model = run.begin(
        replace(MINE, model=replace(MINE.model, zero_residual_projections=silent))
    ).model
    tokens = torch.tensor([[3, 1, 4, 1, 5]])
    with torch.no_grad():
        without_blocks = model.logits(model.norm(model.embedding(tokens)))
        assert torch.equal(model(tokens), without_blocks) == silent


def _log(folder):
    return [json.loads(line) for line in (folder / "log.jsonl").read_text().splitlines()]


def _evaluations(folder):
    return [(line["step"], line["held_out"]) for line in _log(folder)]


def test_a_finished_run_is_only_written_out_again(finished, capsys):
    before = weights(finished)
    run.run(MINE, finished)
    assert "step 8 of 8" in capsys.readouterr().out
    assert torch.equal(weights(finished), before)


def test_a_damaged_checkpoint_is_passed_over_and_made_again(finished, tmp_path, capsys):
    folder = tmp_path / "mine"
    shutil.copytree(finished, folder)
    (folder / "step-00000008" / "state.safetensors").write_bytes(b"torn")
    capsys.readouterr()
    run.run(MINE, folder)
    said = capsys.readouterr().out
    assert "not used: step-00000008" in said
    assert "going on from step-00000006" in said
    assert torch.equal(weights(folder), weights(finished))


def test_a_run_has_the_threads_of_its_recipe_and_may_go_on_with_others(
    finished, tmp_path, monkeypatch, capsys, torch_threads
):
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    assert manifest.load(finished / "manifest.json").machine["threads"] == 1
    shutil.copytree(finished, tmp_path / "mine")
    run.run(replace(MINE, threads=2), tmp_path / "mine")
    assert "since this run began: machine.threads: 1 then, 2 now" in capsys.readouterr().out
    assert torch.get_num_threads() == 2


DAMAGE = {
    "deleted": lambda data: None,
    "empty": lambda data: b"",
    "cut off": lambda data: data[:-20],
    "cut off after a line": lambda data: data[: data.index(b"\n") + 1],
    "binary garbage": lambda data: bytes(range(256)) * 4,
    "a garbled line": lambda data: data.replace(b'"step": 4', b'"step": "4"'),
    "another file": lambda data: b'{"step": 8}\n[1]\n8\n',
    "two copies": lambda data: data + data,
}


@pytest.mark.parametrize("damage", DAMAGE)
def test_a_log_that_was_lost_or_damaged_is_made_again_and_nothing_is_lost(
    finished, tmp_path, capsys, damage
):
    folder = tmp_path / "mine"
    shutil.copytree(finished, folder)
    before = (folder / "log.jsonl").read_bytes()
    after = DAMAGE[damage](before)
    (folder / "log.jsonl").unlink()
    (folder / "loss.png").unlink()
    (folder / "model" / "config.json").unlink()
    if after is not None:
        (folder / "log.jsonl").write_bytes(after)
    run.run(MINE, folder)
    said = capsys.readouterr().out
    assert "log.jsonl" in said.replace(str(folder), "")
    assert _evaluations(folder)[-1] == _evaluations(finished)[-1]
    assert manifest.load(folder / "manifest.json") == manifest.load(finished / "manifest.json")
    assert (folder / "loss.png").exists()
    assert torch.equal(weights(folder), weights(finished))
    assert (folder / "log.jsonl.damaged-1").exists() == ("damaged" in said)
    if "damaged" in said:
        assert (folder / "log.jsonl.damaged-1").read_bytes() == after
    run.run(MINE, folder)  # what was made again is whole
    assert "damaged" not in capsys.readouterr().out


# --- what it refuses ---------------------------------------------------------------------------
def test_another_recipe_or_other_data_in_the_folder_are_refused(finished, monkeypatch):
    wider = replace(MINE, training=replace(MINE.training, clip_norm=2.0))
    with pytest.raises(ValueError, match=r"run of another recipe \(config\.training\.clip_norm"):
        run.run(wider, finished)
    tokenizer, training, held_out = parts()
    monkeypatch.setattr(run, "corpus", lambda _: (tokenizer, held_out, training))
    with pytest.raises(ValueError, match="corpus of the run 'mine' has changed since"):
        run.run(MINE, finished)


@pytest.mark.parametrize(
    "damage", ["deleted", "empty", "cut off", "binary garbage", "another file"]
)
def test_without_its_manifest_nobody_knows_what_a_run_is(finished, tmp_path, damage):
    shutil.copytree(finished, tmp_path / "mine")
    file = tmp_path / "mine" / "manifest.json"
    after = DAMAGE[damage](file.read_bytes())
    file.unlink()
    if after is not None:
        file.write_bytes(after)
    with pytest.raises(ValueError, match=r"manifest\.json.*put it back.*another folder with --out"):
        run.run(MINE, tmp_path / "mine")
    assert file.exists() == (after is not None)


def test_the_folder_of_an_older_minillm_says_what_its_names_are_called_now(finished, tmp_path):
    shutil.copytree(finished, tmp_path / "mine")
    file = tmp_path / "mine" / "manifest.json"
    text = file.read_text(encoding="utf-8")
    file.write_text(text.replace('"batch_size"', '"n_rows"'), encoding="utf-8")
    with pytest.raises(ValueError, match=r"an older minillm began.*n_rows is batch_size now"):
        run.run(MINE, tmp_path / "mine")


def test_a_text_without_enough_pieces_says_which_vocabulary_it_has(tmp_path):
    file = tmp_path / "letters.txt"
    file.write_text("ab ab ab\n\nab ab\n", encoding="utf-8")
    poor = replace(MINE, data=recipe.TextData(files=(str(file),)))
    words = "tokenizer of mine, learned from the part to train on: .* ask for vocab_size=259"
    with pytest.raises(ValueError, match=words):
        run.run(poor, tmp_path / "run")


def test_a_part_that_is_too_short_says_which(tmp_path):
    file = tmp_path / "letters.txt"
    small = replace(MINE, model=replace(MINE.model, vocab_size=257))
    for held_out, name in ((0.05, "the held-out part"), (0.95, "the part to train on")):
        file.write_text("plums\n\n" * 60, encoding="utf-8")
        data = recipe.TextData(files=(str(file),), held_out=held_out)
        words = f"{name} of mine .3 documents.: the documents have 19 tokens"
        with pytest.raises(ValueError, match=words):
            run.corpus(replace(small, data=data))
