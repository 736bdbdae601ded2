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
from minillm.formats.tokenizer_json import JsonTokenizer
from minillm.lab.threads import use_threads
from minillm.lab.track import track
from minillm.model.transformer import Transformer, zero_residual_projections
from minillm.optim.groups import groups, hidden_matrices_and_others, matrices_and_others
from minillm.optim.muon import Muon
from minillm.recipes import chat_data, parent, run_log
from minillm.recipes.chat_data import AgentData, Chats, StepsData, ToolData
from minillm.recipes.data import END
from minillm.recipes.identity import agree, described
from minillm.recipes.recipe import Recipe, Training
from minillm.recipes.team import Alone, Team
from minillm.text import bpe
from minillm.text.tokenizer import Tokenizer
from minillm.train import checkpoint, manifest, run_state
from minillm.train.autocast import in_precision
from minillm.train.loop import TrainState, train
from minillm.train.stop import Stop
from minillm.tune.sft import Conversations

LEARNED_CHARACTERS = 1_000_000  # how much of the text the tokenizer is learned from
EVALUATED_ROWS = 64  # at once
PARTS = {"train": "the part to train on", "held out": "the held-out part"}
Rows = Packed | Conversations
AnyTokenizer = Tokenizer | JsonTokenizer
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
    recipe = parent.adopted(recipe)
    use_threads(recipe.threads)
    print(f"{recipe.name}: reading")
    tokenizer, training, held_out = corpus(recipe)
    state = begin(recipe)
    about = described(recipe, training.stream)
    began = agree(folder / "manifest.json", about) if team.first else about
    team.agree(False)  # the others wait here: what the first refuses, nobody begins
    resume(folder, state)
    if not team.same(state.step):
        raise ValueError(
            f"the ranks would begin at different steps, this one at {state.step}; all machines "
            f"must see the same folder {folder}: put it on a shared disk"
        )
    n_parameters = sum(parameter.numel() for parameter in state.model.parameters())
    how = recipe.training
    n_epochs = how.n_steps * how.accumulation_steps * how.batch_size / training.n_places
    print(
        f"{n_parameters:,} parameters, {len(training.stream):,} tokens to read, "
        f"{n_epochs:.1f} times over; step {state.step:,} of {how.n_steps:,}"
    )
    state = team.shard(state)
    log = _steps(recipe, folder, state, training, held_out, team)
    whole = team.fill(begin(recipe), state)
    if not team.first:
        return folder / "model"
    final = log[-1]
    manifest.save(replace(began, losses={"final": final["held_out"]}), folder / "manifest.json")
    run_log.draw(log, folder / "loss.png")
    if recipe.parent is None:
        hf.save(whole.model, folder / "model", tokenizer, end_token=END)
    else:
        parent.save(whole.model, folder / "model", recipe)
    is_chat = isinstance(recipe.data, Chats)
    command = "chat" if is_chat else 'sample "..."'
    print(
        f"held-out loss {final['held_out']:.3f} nats a token; the model is in {folder / 'model'}:\n"
        f"  minillm {command} --model {folder / 'model'}"
    )
    return folder / "model"


# --- what a run is made of ----------------------------------------------------------------------
def corpus(recipe: Recipe) -> tuple[AnyTokenizer, Rows, Rows]:
    """The tokenizer, and both parts: to train on, and held out.

    The tokenizer is that of the parent, or learned from a million characters of what is trained on.

    Args:
        recipe: with its parent's shape, if it has a parent (`minillm.recipes.parent.adopted`).

    Raises:
        ValueError: a part is too short for one row, or too poor for the vocabulary; a conversation
            that is none, or too long. Says which.
    """
    if isinstance(recipe.data, Chats):
        return _conversations(recipe)
    texts = {part: recipe.data.documents(part) for part in PARTS}
    if recipe.parent is None:
        tokenizer = _learned(recipe, texts["train"])
        end_id = tokenizer.special_ids[END]
    else:
        tokenizer, end_id = parent.tokenizer_and_end(recipe)
    packed = []
    for part, name in PARTS.items():
        with _named(f"{name} of {recipe.name} ({len(texts[part]):,} documents)"):
            ids = [tokenizer.encode(text) for text in texts[part]]
            packed.append(Packed(ids, end_id=end_id, **_batches(recipe)))
    return tokenizer, *packed


def _learned(recipe: Recipe, texts: list[str]) -> Tokenizer:
    order = np.random.default_rng(recipe.seed).permutation(len(texts))
    mixed, n_characters = [], 0
    for number in order:  # some of everything
        mixed.append(recipe.data.to_learn_tokens_from(texts[number]))
        n_characters += len(mixed[-1])
        if n_characters > LEARNED_CHARACTERS:
            break
    with _named(f"the tokenizer of {recipe.name}, learned from the part to train on"):
        return bpe.train(
            "\n".join(mixed),
            recipe.model.vocab_size,
            special_tokens=[END, *recipe.special_tokens],
        )


def _conversations(recipe: Recipe) -> tuple[JsonTokenizer, Conversations, Conversations]:
    tokenizer, end_id = parent.tokenizer_and_end(recipe)
    template = parent.template_of(recipe, tokenizer)
    packed = []
    for part, name in PARTS.items():
        with _named(f"{name} of {recipe.name}"):
            conversations = recipe.data.conversations(part, template)
            examples = chat_data.examples(
                conversations, template, tokenizer, recipe.model.context_length
            )
            if isinstance(recipe.data, StepsData | ToolData | AgentData):
                texts = recipe.data.texts(part)
                examples += chat_data.text_examples(
                    texts, tokenizer, end_id, recipe.model.context_length
                )
            packed.append(Conversations(examples, **_batches(recipe)))
    return tokenizer, *packed


def _batches(recipe: Recipe) -> dict[str, int]:
    return {
        "context_length": recipe.model.context_length,
        "batch_size": recipe.training.batch_size,
        "seed": recipe.seed,
    }


@contextmanager
def _named(whose: str) -> Iterator[None]:
    """What is refused within says whose it is."""
    try:
        yield
    except ValueError as error:
        raise ValueError(f"{whose}: {error}") from None


def begin(recipe: Recipe) -> TrainState:
    """The model with its first weights, and an optimizer that lets nothing but matrices decay."""
    how = recipe.training
    if recipe.parent is not None:
        model = parent.first_weights(recipe)
    else:
        model = recipe.model.config().build(seed=recipe.seed)
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


def resume(folder: Path, state: TrainState) -> None:
    """Put the state where the newest whole checkpoint stands, if there is one."""
    saved, refused = checkpoint.newest(folder)
    for reason in refused:
        print(f"not used: {reason}")
    if saved is not None:
        run_state.unpack(saved, state.model, state.optimizer)
        state.step = saved.step
        print(f"going on from {saved.path.name}")


def held_out_loss(model: Transformer, held_out: Rows, team: Team | None = None) -> float:
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
    training: Rows,
    held_out: Rows,
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


def _told(line: dict, how: Training) -> str:
    return (
        f"step {line['step']:,} of {how.n_steps:,}: loss {line['loss']:.3f}, held out "
        f"{line['held_out']:.3f}, {line['seconds']:.0f} s"
    )


def _say(line: str) -> None:
    from tqdm import tqdm

    tqdm.write(line)  # above the bar
