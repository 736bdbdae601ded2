"""`minillm bench train`: the speedrun, our recipe `shakespeare` against nanoGPT's for a CPU.

Both learn the same text by the letter: its first 90 %, in order as it stands; the last 10 % is
held out and read in rows of each model's own context. The two take turns, a tenth of their
steps each, so that a slow moment of the machine hits both. Only steps are timed, evaluations are
not, and what is counted are the seconds that a processor worked: on an idle machine with one thread
those of the clock. Told are

- *loss at equal time*: ours when it has trained for as long as nanoGPT did in all;
- *time at equal loss*: when ours was first as good as nanoGPT was in the end.

Both in nats a letter, also where ours reads tokens of several letters (`--recipe
shakespeare-tokens`): then the loss of all held-out tokens is divided by their letters. Between
evaluations a straight line is drawn.

Paper: Karpathy 2022, https://github.com/karpathy/nanoGPT (the recipe to beat); Jordan et al. 2024,
https://github.com/KellerJordan/modded-nanogpt (the idea of a speedrun).

Chapter: app
"""

import math
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from itertools import pairwise
from pathlib import Path
from typing import final

import numpy as np
import torch
from torch import Tensor, nn

from minillm.data.packing import Packed
from minillm.optim.schedule import Schedule
from minillm.optim.step import Total
from minillm.recipes import nanogpt
from minillm.recipes import run as parts
from minillm.recipes.data import END
from minillm.recipes.recipe import Recipe, find, reading, shortened
from minillm.text.tokenizer import Tokenizer
from minillm.train.loop import LoopConfig, TrainState, train
from minillm.train.losses import language_loss

#: What our held-out loss is to reach, in at most nanoGPT's time; and the stretch.
TARGET, STRETCH = 1.60, 1.55
N_TURNS = 10
EVALUATED_ROWS = 128  # at once


@final
@dataclass
class Runner:
    """A recipe under way.

    Args:
        name: of the recipe.
        steps: takes a step each time it is asked for the next.
        n_steps: in all.
        evaluate: held-out nats a letter, now; in rows of so many letters, None for its own.
        n_parameters: of its model.
        seconds: of a processor, all steps so far.
        curve: (seconds, held-out loss).
    """

    name: str
    steps: Iterator
    n_steps: int
    evaluate: Callable[..., float]
    n_parameters: int
    seconds: float = 0.0
    curve: list[tuple[float, float]] = field(default_factory=list)

    def turn(self, n_steps: int) -> None:
        """Take so many steps, and look at the loss."""
        began = time.process_time()
        for _ in range(n_steps):
            next(self.steps)
        self.seconds += time.process_time() - began
        self.curve.append((self.seconds, self.evaluate()))


def run(
    quick: bool = False,
    text: str | Path | None = None,
    seed: int = 0,
    recipe: str = "shakespeare",
) -> dict[str, float]:
    """Run both, print the table, and return every figure.

    Args:
        quick: few steps on little text, to see that it works; its figures mean nothing.
        text: a file; None for tiny Shakespeare, which is downloaded once.
        seed: of first weights and order.
        recipe: ours, by its name or file.

    Returns:
        `nanogpt_loss`, `nanogpt_s`, `loss` and `s` (ours, at the end), `loss_at_equal_time`,
        `s_at_equal_loss` (NaN if it was never reached), `n_held_out` letters; of both the
        milliseconds a step, `ms`, `nanogpt_ms`, and (seconds, loss), `curve`, `nanogpt_curve`.

    Raises:
        ValueError: no such file, too little text, or letters that are more than a byte; the
            download is not the file that was meant.
        ConnectionError: there is no net, and no `text`.
    """
    ours, theirs = chosen(quick, text, seed, recipe)
    letters = {part: ours.data.documents(part)[0] for part in ("train", "held out")}
    if strange := sorted(set("".join(letters.values())) - set(map(chr, range(128)))):
        raise ValueError(
            "ours reads bytes and nanoGPT letters, which are the same in ASCII only; the text has "
            f"{strange[0]!r} and {len(strange)} such letters in all. Choose another text"
        )
    print(
        f"{len(letters['train']):,} letters to learn from, {len(letters['held out']):,} held out; "
        f"torch {torch.__version__}, threads: {torch.get_num_threads()}"
    )
    runners = [of_nanogpt(letters, theirs, seed), of_recipe(ours)]
    for turn in range(N_TURNS):
        for runner in runners:
            begin, end = (runner.n_steps * n // N_TURNS for n in (turn, turn + 1))
            runner.turn(end - begin)
        print(
            f"{100 * (turn + 1) // N_TURNS:>4} %  "
            + "   ".join(f"{r.name} {r.curve[-1][1]:.3f} after {r.seconds:.0f} s" for r in runners),
            flush=True,
        )
    return figures_of(*runners, n_held_out=len(letters["held out"]), quick=quick)


def chosen(
    quick: bool, text: str | Path | None, seed: int, name: str = "shakespeare"
) -> tuple[Recipe, nanogpt.Recipe]:
    """Both recipes, for that text."""
    ours, theirs = replace(find(name), seed=seed), nanogpt.Recipe()
    if text is not None:
        ours = reading(ours, text)
    if quick:
        ours = shortened(ours, N_TURNS)
        ours = replace(ours, model=replace(ours.model, d_model=32, n_layers=1))
        theirs = replace(theirs, d_model=32, n_layers=1, n_steps=N_TURNS, warmup_steps=2)
    return ours, theirs


def of_nanogpt(
    letters: dict[str, str],
    theirs: nanogpt.Recipe,
    seed: int,
    *,
    make_optimizer: Callable[[nn.Module], torch.optim.Optimizer] | None = None,
    schedule: Schedule | None = None,
) -> Runner:
    """nanoGPT's: rows from anywhere in the text, its model, its schedule, torch's AdamW.

    Args:
        letters: "train" and "held out".
        theirs: the numbers.
        seed: of first weights and rows.
        make_optimizer: another for its model; with `schedule` it is no longer their recipe.
        schedule: another.
    """
    number = {letter: i for i, letter in enumerate(sorted(set("".join(letters.values()))))}
    learned, held_out = (
        torch.tensor([number[letter] for letter in letters[part]]) for part in ("train", "held out")
    )
    n_tokens = theirs.context_length
    for part, text in letters.items():
        if len(text) < n_tokens + 2:
            raise ValueError(
                f"the part {part!r} of the text has {len(text)} letters, and nanoGPT's rows need "
                f"at least {n_tokens + 2}; choose a longer text"
            )
    model = nanogpt.NanoGPT(len(number), theirs, seed)

    def batch_at(step: int) -> Tensor:
        drawn = np.random.default_rng((seed, step)).integers(
            len(learned) - n_tokens, size=(theirs.batch_size, 1)
        )
        return learned[torch.from_numpy(drawn + np.arange(n_tokens + 1))]

    def loss(model: nn.Module, rows: Tensor) -> Total:
        logits = model(rows[:, :-1]).flatten(0, 1)
        nats = nn.functional.cross_entropy(logits, rows[:, 1:].flatten(), reduction="sum")
        return Total(nats, torch.tensor(rows[:, 1:].numel()))

    def evaluate(context_length: int = n_tokens) -> float:
        n_places = (len(held_out) - 1) // context_length
        rows = held_out[: n_places * context_length + 1]
        rows = rows.unfold(0, context_length + 1, context_length)
        with torch.no_grad():
            totals = [loss(model, part) for part in rows.split(EVALUATED_ROWS)]
        return sum(total.nats.item() for total in totals) / (n_places * context_length)

    optimizer = make_optimizer(model) if make_optimizer else nanogpt.optimizer(model, theirs)
    config = LoopConfig(
        n_steps=theirs.n_steps,
        schedule=schedule or theirs.schedule(),
        clip_norm=theirs.clip_norm,
    )
    return Runner(
        name="nanoGPT",
        steps=train(TrainState(model, optimizer), loss, batch_at, config),
        n_steps=theirs.n_steps,
        evaluate=evaluate,
        n_parameters=sum(p.numel() for p in model.parameters()),
    )


def of_recipe(ours: Recipe) -> Runner:
    """Ours, by the parts of `minillm train`."""
    tokenizer, training, held_out = parts.corpus(ours)
    state, how = parts.begin(ours), ours.training

    def evaluate(context_length: int = ours.model.context_length) -> float:
        rows = held_out
        if context_length != held_out.context_length:
            shape = replace(ours.model, context_length=context_length)
            rows = parts.corpus(replace(ours, model=shape))[2]
        return parts.held_out_loss(state.model, rows) * tokens_a_letter(rows, tokenizer)

    return Runner(
        name=ours.name,
        steps=train(state, language_loss, training.batch_at, how.loop()),
        n_steps=how.n_steps,
        evaluate=evaluate,
        n_parameters=sum(p.numel() for p in state.model.parameters()),
    )


def tokens_a_letter(packed: Packed, tokenizer: Tokenizer) -> float:
    """How many tokens of all rows stand for one letter; marks of an end count as tokens only."""
    targets = packed.stream[1 : packed.n_places * packed.context_length + 1]
    ids = targets[targets != tokenizer.special_ids[END]].tolist()
    return len(targets) / len(tokenizer.decode(ids))


def figures_of(theirs: Runner, ours: Runner, n_held_out: int, quick: bool) -> dict[str, float]:
    """Print the table."""
    at_equal_time = loss_at(ours.curve, theirs.seconds)
    at_equal_loss = seconds_at(ours.curve, theirs.curve[-1][1])
    print(f"\n{'':<14} {'parameters':>10} {'steps':>6} {'ms a step':>9} {'seconds':>8} {'loss':>6}")
    for runner in (theirs, ours):
        print(
            f"{runner.name:<14} {runner.n_parameters:>10,} {runner.n_steps:>6,} "
            f"{1000 * runner.seconds / runner.n_steps:>9.1f} {runner.seconds:>8.1f} "
            f"{runner.curve[-1][1]:>6.3f}"
        )
    print(f"loss at equal time, {theirs.seconds:.0f} s: {at_equal_time:.3f}")
    share = f"{at_equal_loss:.0f} s, {at_equal_loss / theirs.seconds:.2f} of nanoGPT's"
    reached = "never reached" if math.isnan(at_equal_loss) else share
    print(f"time at equal loss, {theirs.curve[-1][1]:.3f}: {reached}")
    if not quick:
        in_time = ours.seconds <= theirs.seconds
        for name, bound in (("target", TARGET), ("stretch", STRETCH)):
            met = in_time and ours.curve[-1][1] <= bound
            print(f"{name}: at most {bound} in no more time: {'met' if met else 'MISSED'}")
    return {
        "nanogpt_loss": theirs.curve[-1][1],
        "nanogpt_s": theirs.seconds,
        "nanogpt_ms": 1000 * theirs.seconds / theirs.n_steps,
        "loss": ours.curve[-1][1],
        "s": ours.seconds,
        "ms": 1000 * ours.seconds / ours.n_steps,
        "loss_at_equal_time": at_equal_time,
        "s_at_equal_loss": at_equal_loss,
        "n_held_out": n_held_out,
        "nanogpt_curve": theirs.curve,
        "curve": ours.curve,
    }


def loss_at(curve: list[tuple[float, float]], seconds: float) -> float:
    """The loss after so many seconds; the last one, if it ended before.

    Example:
        >>> loss_at([(1.0, 3.0), (3.0, 2.0)], 2.0)
        2.5
    """
    return float(np.interp(seconds, *zip(*curve, strict=True)))


def seconds_at(curve: list[tuple[float, float]], loss: float) -> float:
    """When the loss was first so low; NaN if never.

    Example:
        >>> seconds_at([(1.0, 3.0), (3.0, 2.0), (5.0, 1.0)], 2.5)
        2.0
    """
    if curve[0][1] <= loss:
        return curve[0][0]
    for (s, high), (t, low) in pairwise(curve):
        if low <= loss:
            return s + (t - s) * (high - loss) / (high - low)
    return math.nan
