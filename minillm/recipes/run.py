"""Train a model from a recipe, in a folder that a stopped run goes on from.

    runs/NAME/manifest.json      what the run is: recipe, data, code, machine; its losses at the end
    runs/NAME/step-…/            checkpoints: the newest three, and the best
    runs/NAME/log.jsonl          a line for each evaluation
    runs/NAME/loss.png           the same as a picture
    runs/NAME/model/             the finished model, for `minillm sample` and for transformers

What is missing of the last three is made again, as far as it can be; a log that is damaged is kept
under another name. Without its manifest nobody knows what a run is, so it is refused.

Ctrl-C, or a polite kill, waits until the step is complete and saves a checkpoint; the second one
ends at once, and saves nothing. The same command goes on from the newest checkpoint that is whole;
it refuses to, if the recipe or the data have changed.

Chapter: app
"""

import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch

from minillm.data.packing import Packed
from minillm.formats import hf
from minillm.lab.threads import use_threads
from minillm.lab.track import track
from minillm.model.transformer import Transformer, zero_residual_projections
from minillm.optim.groups import groups, hidden_matrices_and_others, matrices_and_others
from minillm.optim.muon import Muon
from minillm.recipes import run_log
from minillm.recipes.data import END
from minillm.recipes.recipe import Recipe, Training, renamed
from minillm.recipes.team import Alone, Team
from minillm.text import bpe
from minillm.text.tokenizer import Tokenizer
from minillm.train import checkpoint, manifest, run_state
from minillm.train.autocast import in_precision
from minillm.train.loop import TrainState, train
from minillm.train.stop import Stop

LEARNED_CHARACTERS = 1_000_000  # how much of the text the tokenizer is learned from
EVALUATED_ROWS = 64  # at once
BETAS = (0.9, 0.95)  # AdamW's, of every recipe
STOPPING = "\nstopping after this step; Ctrl-C again ends at once, without saving\n"


def run(recipe: Recipe, folder: Path, team: Team | None = None) -> Path:
    """Train, or go on training, and return the folder of the finished model.

    Args:
        recipe: what to train.
        folder: of this run; made if it is missing. All ranks of a team see the same one.
        team: who trains it, see `minillm.recipes.team`; None for this process alone.

    Raises:
        ValueError: a folder with another run in it, or with data or recipe that have changed;
            what the parts refuse.
        KeyboardInterrupt: Ctrl-C, after a checkpoint was saved; SystemExit for a SIGTERM.
    """
    team = Alone() if team is None else team
    use_threads(recipe.threads)
    print(f"{recipe.name}: reading")
    tokenizer, training, held_out = corpus(recipe)
    state = begin(recipe)
    about = described(recipe, training)
    began = _agree(folder / "manifest.json", about) if team.first else about
    team.agree(False)  # the others wait here: what the first refuses, nobody begins
    resume(folder, state)
    if not team.same(state.step):
        raise ValueError(
            f"the ranks would begin at different steps, this one at {state.step}; all machines "
            f"must see the same folder {folder}: put it on a shared disk"
        )
    n_parameters = sum(parameter.numel() for parameter in state.model.parameters())
    n_tokens = (
        recipe.training.batch_size
        * recipe.training.accumulation_steps
        * recipe.model.context_length
    )
    print(
        f"{n_parameters:,} parameters, {len(training.stream):,} tokens to read, "
        f"{recipe.training.n_steps * n_tokens / len(training.stream):.1f} times over; "
        f"step {state.step:,} of {recipe.training.n_steps:,}"
    )
    state = team.shard(state)
    log = _steps(recipe, folder, state, training, held_out, team)
    whole = team.fill(begin(recipe), state)
    if not team.first:
        return folder / "model"
    final = log[-1]
    manifest.save(replace(began, losses={"final": final["held_out"]}), folder / "manifest.json")
    run_log.draw(log, folder / "loss.png")
    hf.save(whole.model, folder / "model", tokenizer, end_token=END)
    print(
        f"held-out loss {final['held_out']:.3f} nats a token; the model is in {folder / 'model'}:\n"
        f'  minillm sample --model {folder / "model"} "..."'
    )
    return folder / "model"


# --- what a run is made of ----------------------------------------------------------------------
def corpus(recipe: Recipe) -> tuple[Tokenizer, Packed, Packed]:
    """The tokenizer, learned from a million characters of what is trained on, and both parts.

    Raises:
        ValueError: a part is too short for one row, or too poor for the vocabulary; says which.
    """
    texts = {part: recipe.data.documents(part) for part in ("train", "held out")}
    order = np.random.default_rng(recipe.seed).permutation(len(texts["train"]))
    mixed, n_characters = [], 0
    for number in order:  # some of everything
        mixed.append(recipe.data.to_learn_tokens_from(texts["train"][number]))
        n_characters += len(mixed[-1])
        if n_characters > LEARNED_CHARACTERS:
            break
    with _named(f"the tokenizer of {recipe.name}, learned from the part to train on"):
        tokenizer = bpe.train(
            "\n".join(mixed),
            recipe.model.vocab_size,
            special_tokens=[END, *recipe.special_tokens],
        )
    packed = []
    for part, name in (("train", "the part to train on"), ("held out", "the held-out part")):
        with _named(f"{name} of {recipe.name} ({len(texts[part]):,} documents)"):
            ids = [tokenizer.encode(text) for text in texts[part]]
            packed.append(
                Packed(
                    ids,
                    end_id=tokenizer.special_ids[END],
                    context_length=recipe.model.context_length,
                    batch_size=recipe.training.batch_size,
                    seed=recipe.seed,
                )
            )
    return tokenizer, *packed


@contextmanager
def _named(whose: str) -> Iterator[None]:
    """What is refused within says whose it is."""
    try:
        yield
    except ValueError as error:
        raise ValueError(f"{whose}: {error}") from None


def begin(recipe: Recipe) -> TrainState:
    """The model with its first weights, and an optimizer that lets nothing but matrices decay."""
    model, how = recipe.model.config().build(seed=recipe.seed), recipe.training
    if recipe.model.zero_residual_projections:
        zero_residual_projections(model)
    rate, decay = how.learning_rate, how.weight_decay
    if how.optimizer == "muon":
        matrices, others = hidden_matrices_and_others(model)
        muon = Muon(
            matrices,
            others,
            lr=how.matrix_rate,
            weight_decay=decay,
            others_lr=rate,
            others_betas=BETAS,
        )
        return TrainState(model, muon)
    matrices, others = matrices_and_others(model)
    parts = groups(model, (matrices, {"weight_decay": decay}), (others, {"weight_decay": 0.0}))
    return TrainState(model, torch.optim.AdamW(parts, lr=rate, betas=BETAS))


def described(recipe: Recipe, training: Packed) -> manifest.Manifest:
    """What this run is; of files the names only, since the data's hash says what is in them."""
    config = recipe.as_dict()
    if "files" in config["data"]:
        config["data"]["files"] = [Path(file).name for file in config["data"]["files"]]
    return manifest.describe(recipe.name, recipe.seed, config, training.stream)


def resume(folder: Path, state: TrainState) -> None:
    """Put the state where the newest whole checkpoint stands, if there is one."""
    saved, refused = checkpoint.newest(folder)
    for reason in refused:
        print(f"not used: {reason}")
    if saved is not None:
        run_state.unpack(saved, state.model, state.optimizer)
        state.step = saved.step
        print(f"going on from {saved.path.name}")


def held_out_loss(model: Transformer, held_out: Packed, team: Team | None = None) -> float:
    """Nats a token of the held-out text; a team's ranks read a share each."""
    team = Alone() if team is None else team
    nats, n_tokens = 0.0, 0.0
    at_once = EVALUATED_ROWS * team.n_shares
    for first in range(0, held_out.n_places, at_once):
        rows = range(first, min(first + at_once, held_out.n_places))
        n_shared = len(rows) // team.n_shares * team.n_shares
        # a few may be left over, which all ranks read, and count for a part each
        for part, weight in ((rows[:n_shared], 1), (rows[n_shared:], 1 / team.n_shares)):
            if part:
                batch = held_out.rows(part)
                total = team.loss(model, team.share(batch) if weight == 1 else batch)
                nats += weight * total.nats.item()
                n_tokens += weight * int(total.n_tokens)
    nats, n_tokens = team.total([nats, n_tokens])
    return nats / n_tokens


# --- the run ------------------------------------------------------------------------------------
def _steps(
    recipe: Recipe,
    folder: Path,
    state: TrainState,
    training: Packed,
    held_out: Packed,
    team: Team,
) -> list[dict]:
    """Step to the end; the log, a line for each evaluation."""
    how = recipe.training
    log = run_log.read(folder / "log.jsonl", state.step, how.evaluate_every)
    all_metrics = train(
        state,
        in_precision(team.loss, how.precision),
        lambda step: team.share(training.batch_at(step)),
        how.loop(),
        lambda model: held_out_loss(model, held_out, team),
    )
    if team.first:
        all_metrics = track(all_metrics, recipe.name, total=how.n_steps - state.step)
    began, losses, evaluation, saved = time.perf_counter(), [], None, state.step
    stopped = False
    with Stop(STOPPING if team.first else "") as stop:
        for metrics in all_metrics:
            evaluation = metrics.evaluation
            losses.append(metrics.loss)
            if metrics.skipped:
                _say(f"step {metrics.step:,} skipped: {metrics.skipped}")
            if evaluation is not None:
                log.append(run_log.line(metrics, losses, time.perf_counter() - began))
                if team.first:
                    run_log.write(log, folder / "log.jsonl")
                    _say(_told(log[-1], how))
                losses.clear()
            if state.step % how.save_every == 0 or state.step == how.n_steps:
                _save(recipe, folder, state, evaluation, team)
                saved = state.step
            if stopped := team.agree(stop.requested):
                break
        if state.step > saved:
            _save(recipe, folder, state, evaluation, team)
    if stopped:
        print(f"\nstopped and saved at step {state.step:,}; the same command goes on from there")
        stop.end()
    if not log or log[-1]["step"] < how.n_steps:  # the file was lost, or its end
        with torch.no_grad():
            value = held_out_loss(state.model, held_out, team)
        log.append(run_log.evaluated_again(how.n_steps, value))
        if team.first:
            run_log.write(log, folder / "log.jsonl")
    return log


def _save(
    recipe: Recipe, folder: Path, state: TrainState, evaluation: float | None, team: Team
) -> None:
    whole = team.fill(begin(recipe), state)
    if not team.first:
        return
    tensors, record = run_state.pack(whole.model, whole.optimizer)
    checkpoint.save(folder, state.step, tensors, {**record, "evaluation": evaluation})


def _agree(path: Path, now: manifest.Manifest) -> manifest.Manifest:
    """Refuse another run's folder; a new one gets the manifest. Returns that of the beginning."""
    if not path.exists():
        if saved := checkpoint.complete(path.parent):
            raise ValueError(
                f"{path} is missing, which says of which recipe and data {saved[-1].name} is; put "
                "it back, or name another folder with --out"
            )
        path.parent.mkdir(parents=True, exist_ok=True)
        manifest.save(now, path)
        return now
    try:
        then = manifest.load(path)
    except ValueError as error:
        raise ValueError(
            f"{path} does not say what this run is ({error}); put it back as it was, or name "
            "another folder with --out"
        ) from None
    tables = (table for table in then.config.values() if isinstance(table, dict))
    if former := renamed(sorted(key for table in tables for key in table)):
        raise ValueError(
            f"{path.parent} holds a run that an older minillm began; name another folder with "
            f"--out{former}"
        )
    manifest.check_same_data(then, now)
    now = replace(now, started=then.started, losses=then.losses)
    for difference in manifest.differences(then, now):
        if difference.startswith("config"):
            raise ValueError(
                f"{path.parent} holds a run of another recipe ({difference}); name another "
                "folder with --out, or take back the change"
            )
        print(f"since this run began: {difference}")
    return then


def _told(line: dict, how: Training) -> str:
    return (
        f"step {line['step']:,} of {how.n_steps:,}: loss {line['loss']:.3f}, held out "
        f"{line['held_out']:.3f}, {line['seconds']:.0f} s"
    )


def _say(line: str) -> None:
    from tqdm import tqdm

    tqdm.write(line)  # above the bar
