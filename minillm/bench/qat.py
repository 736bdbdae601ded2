"""`minillm bench qat`: what training at 2 bits takes back, and which part of QuantGPT does it.

All matrices of `town-1m` and its table of tokens get 2 bits: three numbers, one scale a matrix, and
a row of the table. Each variant below is trained from the same weights, with the same number of
steps on the same rows, in the same order for each seed. On the first seed it is trained at each of
a few learning rates; with the best of them by held-out loss, on the other seeds. So the rate is
chosen on the rows that are measured, for every variant alike.

    ce                      γ is learned, the loss is that of the text; no teacher
    kd                      γ is learned, the teacher's probabilities instead of the text
    kd + contrastive        and the contrastive loss of the last hidden states: QuantGPT
    full, min-max           the same loss, α = max|w|
    full, PACT              the same loss, α is learned itself

Beside them stand models that were not trained: "rtn" with α = max|w|, "clipped" with α = γ·mean|w|
as the learned ones begin, and "rtn, 4 numbers", an asymmetric grid a row, which takes more bytes.

- *Recovered*: the part of rtn's loss above the float model's that is gone; 1 is all of it. rtn at
  2 bits is worse than guessing, so this is a low bar. *More* is the loss above the float model's as
  a share of it, and says more. *Of ce*: the part that is gone of ce's loss above the float model's.
- *Alike*: the mean cosine of two rows of the table (1: all the same), and of two last hidden states
  of the first held-out rows. The paper sees in their likeness the reason why rounding fails.

What differs between seeds is which rows are read when; the first weights are the teacher's.

Paper: Tao et al. 2022, QuantGPT, arXiv:2203.10705, sections 3 and 5.
Differs: models, data and sizes; activations in float.

Chapter: app
"""

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from statistics import fmean
from typing import Any, final

import torch
from torch import Tensor, nn

from minillm.bench._run import Finished
from minillm.bench.model import verdict
from minillm.data.packing import Batch
from minillm.model.transformer import Transformer
from minillm.optim.build import build
from minillm.optim.schedule import Cosine
from minillm.quant.apply import QuantizedModel, quantize
from minillm.quant.plan import plan
from minillm.quant.qat import QATConfig, distillation, finish, mean_cosine, prepare
from minillm.quant.rtn import Grid
from minillm.recipes import quantizing
from minillm.recipes.data import TownData
from minillm.train.loop import LoopConfig, TrainState, train
from minillm.train.losses import language_loss
from minillm.zoo import checkpoints

FULL = QATConfig(bits=2)
#: Scaling and loss of each; a loss of None is the text's.
VARIANTS: dict[str, tuple[QATConfig, QATConfig | None]] = {
    "ce": (FULL, None),
    "kd": (FULL, replace(FULL, contrastive_weight=0.0)),
    "kd + contrastive": (FULL, FULL),
    "full, min-max": (replace(FULL, scaling="max"), FULL),
    "full, PACT": (replace(FULL, scaling="clip"), FULL),
}
TARGETS = {
    "recovered": ("at least", 0.7),
    "times_smaller": ("at least", 12.0),
    "kd_helps": ("at least", 0.2),
}
ALIKE_ROWS = 8  # of held-out text, whose hidden states are compared


@final
@dataclass(frozen=True, kw_only=True)
class Work:
    """How much is done.

    Args:
        data: to train on; its held-out part is that of `quantizing.TOWN`.
        n_steps: of each run.
        batch_size: rows of a step.
        rates: of AdamW, among which each variant chooses.
        seeds: of the order of rows.
        warmup_steps: of each run; then a cosine down to a tenth.
    """

    data: TownData = field(
        default_factory=lambda: replace(quantizing.TOWN, story_blocks=24, fact_blocks=4)
    )
    n_steps: int = 150
    batch_size: int = 8
    rates: tuple[float, ...] = (1e-4, 3e-4, 1e-3, 3e-3, 1e-2)
    seeds: tuple[int, ...] = (0, 1, 2)
    warmup_steps: int = 10


QUICK = Work(
    data=replace(quantizing.TOWN, languages=("en",), story_blocks=1, held_out_blocks=1),
    n_steps=2,
    batch_size=2,
    rates=(1e-3,),
    seeds=(0,),
    warmup_steps=1,
)


def run(*, quick: bool = False, finished: Finished | None = None) -> dict[str, Any]:
    """Train and measure every variant, and print the table.

    Args:
        quick: two steps each, on little text; its figures mean little.
        finished: runs that are there already.
    """
    work = QUICK if quick else Work()
    finished = Finished() if finished is None else finished
    model, tokenizer, end_ids = checkpoints.open_model(checkpoints.folder("town-1m"))
    texts = quantizing.rows_of(model, tokenizer, end_ids, work.data)
    figures = measure(model, texts, work, finished)
    print_table(figures)
    return figures


def measure(
    model: Transformer, texts: quantizing.Texts, work: Work, finished: Finished
) -> dict[str, Any]:
    """All figures: `rows`, one a model, bytes, and the names of `TARGETS`.

    Args:
        model: in float, the teacher.
        texts: to train on and to measure with.
        work: how much.
        finished: runs that are there already.
    """
    untrained = {
        "float": lambda: model,
        "rtn": lambda: finish(prepare(model, replace(FULL, scaling="max"))).model,
        "clipped": lambda: finish(prepare(model, FULL)).model,
        "rtn, 4 numbers": lambda: _four_numbers(model).model,
    }
    rows = [
        {"name": name, "runs": [finished(name, lambda make=make: _looked_at(make(), texts))]}
        for name, make in untrained.items()
    ]
    for name in VARIANTS:
        first = {
            rate: _run(model, texts, name, rate, work.seeds[0], work, finished)
            for rate in work.rates
        }
        rate = min(first, key=lambda rate: first[rate]["loss"])
        others = [_run(model, texts, name, rate, seed, work, finished) for seed in work.seeds[1:]]
        by_rate = {str(rate): each["loss"] for rate, each in first.items()}
        rows.append({"name": name, "runs": [first[rate], *others], "rate": rate, "rates": by_rate})
    small = finish(prepare(model, FULL)).plan
    sizes = {"bytes_before": small.bytes_before, "bytes_after": small.bytes_after}
    return {
        **_summary(rows),
        **sizes,
        "times_smaller": small.bytes_before / small.bytes_after,
        "tokens_a_run": work.n_steps * work.batch_size * model.context_length,
    }


def _run(
    model: Transformer,
    texts: quantizing.Texts,
    name: str,
    rate: float,
    seed: int,
    work: Work,
    finished: Finished,
) -> dict[str, Any]:
    """One variant trained and measured, unless it is there already."""

    def train_and_look() -> dict[str, Any]:
        student = trained(model, texts, name, rate, seed, work)
        return _looked_at(finish(student).model, texts)

    what = f"{name}, rate {rate:g}, seed {seed}, {work.n_steps} steps of {work.batch_size} rows"
    result = finished(what, train_and_look)
    print(f"{what}: loss {result['loss']:.4f}", flush=True)
    return result


def trained(
    model: Transformer,
    texts: quantizing.Texts,
    name: str,
    rate: float,
    seed: int,
    work: Work,
) -> Transformer:
    """The student of a variant after all its steps.

    Args:
        model: the teacher.
        texts: whose training rows are read, each once before any comes twice.
        name: of the variant.
        rate: AdamW's learning rate.
        seed: of the order of rows.
        work: how much.
    """
    scaling, distil = VARIANTS[name]
    loss: Callable[[nn.Module, Batch], Any] = (
        language_loss if distil is None else distillation(model, distil)
    )
    generator = torch.Generator().manual_seed(seed)
    order = torch.randperm(texts.training.n_places, generator=generator)

    def batch_at(step: int) -> Batch:
        numbers = torch.arange(step * work.batch_size, (step + 1) * work.batch_size)
        return texts.training.rows(order[numbers % len(order)].tolist())

    student = prepare(model, scaling)
    optimizer = build(student, "AdamW", rate, beta2=0.95, weight_decay=0.0)
    schedule = Cosine(n_steps=work.n_steps, warmup_steps=work.warmup_steps)
    config = LoopConfig(n_steps=work.n_steps, schedule=schedule)
    for _ in train(TrainState(student, optimizer), loss, batch_at, config):
        pass
    return student


@torch.inference_mode()
def _looked_at(model: Transformer, texts: quantizing.Texts) -> dict[str, float]:
    """Held-out loss, and how alike rows of the table and hidden states are."""
    batch = texts.held_out.rows(range(min(ALIKE_ROWS, texts.held_out.n_places)))
    hidden: Tensor = model.hidden(batch.tokens, context=batch.context())
    return {
        "loss": quantizing.loss(model, texts.held_out),
        "table_cosine": mean_cosine(model.embedding.weight),
        "hidden_cosine": mean_cosine(hidden.flatten(0, 1)),
    }


def _four_numbers(model: Transformer) -> QuantizedModel:
    grid = Grid(bits=2, granularity="channel", symmetric=False)
    return quantize(model, plan(model, "rtn", grid, tables=True))


def _summary(rows: list[dict[str, Any]]) -> dict[str, Any]:
    """Means over the seeds, shares of what was lost, and what each ingredient gains of them."""
    for row in rows:
        for figure in row["runs"][0]:
            row[figure] = fmean(each[figure] for each in row["runs"])
    by_name = {row["name"]: row for row in rows}
    base, lost = by_name["float"]["loss"], by_name["rtn"]["loss"] - by_name["float"]["loss"]
    after_ce = by_name["ce"]["loss"] - base
    for row in rows:
        row["more"] = row["loss"] / base - 1
        row["recovered"] = 1 - (row["loss"] - base) / lost
        row["of_ce"] = 1 - (row["loss"] - base) / after_ce
    recovered = {name: row["recovered"] for name, row in by_name.items()}
    full = recovered["kd + contrastive"]
    return {
        "rows": rows,
        "recovered": full,
        "kd_helps": recovered["kd"] - recovered["ce"],
        "contrast_helps": full - recovered["kd"],
        "scaling_helps": full - recovered["full, min-max"],
        "gamma_helps": full - recovered["full, PACT"],
    }


def print_table(figures: dict[str, Any]) -> None:
    """Print what `measure` gave."""
    print(
        f"{'model':17} {'rate':>6} {'loss':>8} {'more':>10} {'recovered':>9} {'of ce':>8} "
        f"{'alike: table':>12} {'hidden':>6}"
    )
    for row in figures["rows"]:
        rate = f"{row['rate']:g}" if "rate" in row else ""
        each = [one["loss"] for one in row["runs"]]
        seeds = f"  {min(each):.4f} to {max(each):.4f}" if len(each) > 1 else ""
        print(
            f"{row['name']:17} {rate:>6} {row['loss']:8.4f} {row['more']:+10.1%} "
            f"{row['recovered']:9.1%} {row['of_ce']:8.1%} {row['table_cosine']:12.3f} "
            f"{row['hidden_cosine']:6.3f}{seeds}"
        )
    print(
        f"bytes: {figures['bytes_before']:,} → {figures['bytes_after']:,}, scales included; "
        f"{figures['tokens_a_run']:,} tokens a run"
    )
    for name, (bound, target) in TARGETS.items():
        print(f"{name} {figures[name]:.3f}: {verdict(figures[name], bound, target)}")
    for name in ("contrast_helps", "scaling_helps", "gamma_helps"):
        print(f"{name} {figures[name]:+.4f} of rtn's loss")
