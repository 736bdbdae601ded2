"""`minillm bench outliers`: why rounding hurts, and whether GPTQ helps more where it hurts more.

*Outliers.* Some are planted into `town-1m` (`minillm.quant.outliers`), besides those that it has,
and leave what it computes as it was: 2 % of the channels between values and output, and between up
and down, times s on one side and divided by s on the other. Which channels is drawn three times.
Then all 16 matrices of the blocks are rounded to nearest, and by GPTQ, on symmetric grids with a
scale a row.

    s = 8, 32       outliers among the inputs of a matrix, small weights for them
    s = 1/8         outliers among its weights, which make the grid coarse for all of a row
    closed          the part of rtn's loss that gptq takes back: 1 is all of it
    ordered         the columns of the largest inputs are rounded first

Without planted ones, GPTQ is run with three draws of 64 calibration rows; with them, each draw of
channels has a draw of rows of its own. The loss is that of one block of held-out stories in each
language, and one of facts: half the text of `minillm bench quant`.

*Causes.* How far the numbers of each matrix reach, and what happens if only one kind of matrix is
rounded, to 2 bits with a scale for the matrix and with one a row. Of the table of tokens it is also
told how alike its rows are: the mean cosine of two of them.

Paper: Frantar et al. 2022, "GPTQ", arXiv:2210.17323; Tao et al. 2022, "QuantGPT", arXiv:2203.10705,
section 3: embeddings that become alike, and ranges that differ from module to module.
Differs: models, data and sizes; the outliers are planted.

Chapter: app
"""

from collections.abc import Callable, Iterator
from dataclasses import replace
from fractions import Fraction
from functools import partial
from statistics import fmean
from typing import Any

import torch
from torch import Tensor

from minillm.bench._run import Finished
from minillm.lab.track import track
from minillm.model.transformer import Transformer
from minillm.quant import outliers
from minillm.quant.apply import quantize
from minillm.quant.plan import Plan, plan
from minillm.quant.rtn import Grid
from minillm.recipes import quantizing
from minillm.zoo import checkpoints

BITS = (4, 3, 2)
SCALES = (1, 8, 32, Fraction(1, 8))  # 1: none
SHARE = 0.02  # of the channels
SEEDS = (0, 1, 2)
TOWN = replace(quantizing.TOWN, held_out_blocks=1)
QUICK_TOWN = replace(TOWN, languages=("en",), story_blocks=1, fact_blocks=0)
KINDS = ("qkv", "output", "gate_up", "down", "embedding")
N_LOOKED_AT = 16  # rows of text, to see how far inputs reach


def run(*, quick: bool = False, finished: Finished | None = None) -> dict[str, Any]:
    """Measure, and print the tables.

    Args:
        quick: 4 bits, one seed, little text; its figures mean little.
        finished: results that are there already.

    Returns:
        "losses", a row for each s, number of bits and method; "ranges", of each matrix before
        planting; "planted", the largest of them with each s; "alone", a row for each kind.
    """
    finished = Finished() if finished is None else finished
    model, tokenizer, end_ids = checkpoints.open_model(checkpoints.folder("town-1m"))
    texts = quantizing.rows_of(model, tokenizer, end_ids, QUICK_TOWN if quick else TOWN)
    bits, scales, seeds = (BITS[:1], SCALES[:2], SEEDS[:1]) if quick else (BITS, SCALES, SEEDS)
    base = finished("float", lambda: quantizing.loss(model, texts.held_out))
    rows = texts.training.rows(range(N_LOOKED_AT)).tokens
    figures = {
        "base": base,
        "ranges": {name: each._asdict() for name, each in outliers.ranges(model, rows).items()},
        "planted": {str(s): _largest(_planted(model, s, 0), rows) for s in scales},
        "alone": alone(model, texts, base, finished),
        "losses": [
            row
            for s in track(scales, "outliers")
            for row in losses(model, texts, s, base, bits, seeds, finished)
        ],
    }
    _print(figures)
    return figures


def _planted(model: Transformer, s: Fraction | int, seed: int) -> Transformer:
    return model if s == 1 else outliers.plant(model, share=SHARE, scale=float(s), seed=seed)


def _largest(model: Transformer, tokens: Tensor) -> dict[str, float]:
    """The largest of each measure over all matrices of the blocks."""
    ranges = outliers.ranges(model, tokens)
    of_blocks = [each._asdict() for name, each in ranges.items() if name.startswith("blocks")]
    return {measure: max(each[measure] for each in of_blocks) for measure in of_blocks[0]}


# --- with and without outliers ------------------------------------------------------------------
def losses(
    model: Transformer,
    texts: quantizing.Texts,
    s: Fraction | int,
    base: float,
    all_bits: tuple[int, ...],
    seeds: tuple[int, ...],
    finished: Finished,
) -> Iterator[dict[str, Any]]:
    """A row for each number of bits and method; "closed" of each seed stands in the GPTQ's.

    Args:
        model: in float, without outliers.
        texts: to measure the loss on, and to calibrate with.
        s: of the outliers; 1 for none.
        base: loss of the model as it is.
        all_bits: of a code.
        seeds: of channels and of calibration rows.
        finished: results that are there already.
    """
    for bits in all_bits:
        grid, nearest = Grid(bits=bits), []
        for method, ordered in (("rtn", False), ("gptq", False), ("gptq", True)):

            def measure(seed: int, method: str = method, ordered: bool = ordered) -> float:
                other = _planted(model, s, seed)
                chosen = plan(other, method, grid, ordered=ordered)  # noqa: B023
                rows = texts.calibration(seed) if method == "gptq" else None
                return quantizing.loss(quantize(other, chosen, rows).model, texts.held_out)

            name = f"{method}{', ordered' if ordered else ''}"
            some = seeds[:1] if s == 1 and method == "rtn" else seeds  # else all are the same
            each = [
                finished(f"s {s}, {bits} bits, {name}, seed {seed}", partial(measure, seed))
                for seed in some
            ]
            row = {"s": str(s), "bits": bits, "method": name, "losses": each}
            row |= {"loss": fmean(each), "more": fmean(each) / base - 1}
            if method == "rtn":
                nearest = each * (len(seeds) // len(each))
            else:
                pairs = list(zip(each, nearest, strict=True))
                row["closed"] = [(rtn - moved) / (rtn - base) for moved, rtn in pairs]
            yield row


# --- causes -------------------------------------------------------------------------------------
def alone(
    model: Transformer, texts: quantizing.Texts, base: float, finished: Finished
) -> list[dict[str, Any]]:
    """A row for each kind of matrix: the loss if it alone is rounded to 2 bits.

    Args:
        model: in float.
        texts: to measure the loss on.
        base: loss of the model as it is.
        finished: results that are there already.
    """
    rows = []
    for granularity in ("tensor", "channel"):
        chosen = plan(model, "rtn", Grid(bits=2, granularity=granularity), tables=True)
        for kind in (*KINDS, "all"):

            def measure(part: Plan) -> dict[str, float]:
                small = quantize(model, part).model
                loss = quantizing.loss(small, texts.held_out)
                return {"loss": loss, "alike": mean_cosine(small.embedding.weight)}

            part = chosen if kind == "all" else only(chosen, lambda name, k=kind: name.endswith(k))
            each = finished(f"{granularity}, {kind} alone", partial(measure, part))
            more = each["loss"] / base - 1
            rows.append({"granularity": granularity, "kind": kind, "more": more} | each)
    return [{"granularity": "float", "kind": "all", "alike": _alike(model)}, *rows]


def _alike(model: Transformer) -> float:
    return mean_cosine(model.embedding.weight)


def only(whole: Plan, wanted: Callable[[str], bool]) -> Plan:
    """The plan with all other matrices kept.

    Args:
        whole: a plan.
        wanted: whether the matrix of this name is to be quantized.
    """
    return replace(
        whole,
        lines=tuple(
            line
            if wanted(line.name)
            else replace(line, method="kept", grid=None, bytes_after=line.bytes_before)
            for line in whole.lines
        ),
    )


@torch.no_grad()
def mean_cosine(table: Tensor) -> float:
    """Of every two rows of a table, in the mean; 1 where all point the same way.

    Example:
        >>> mean_cosine(torch.tensor([[1.0, 0.0], [0.0, 2.0], [3.0, 0.0]]))  # 0, 0 and 1
        0.3333333432674408
    """
    rows = torch.nn.functional.normalize(table.float(), dim=-1)
    n = len(rows)
    of_all = rows.sum(dim=0).square().sum()  # of every row with every row, itself too
    return ((of_all - rows.square().sum()) / (n * (n - 1))).item()


# --- the tables ---------------------------------------------------------------------------------
def _print(figures: dict[str, Any]) -> None:
    print("largest over mean, kurtosis, largest channel over the mean one")
    print(f"{'':21}  {'weights':>23}  {'inputs':>23}")
    cells = [(f"s = {s}, most", each) for s, each in figures["planted"].items()]
    for name, each in [*figures["ranges"].items(), *cells]:
        some = [f"{value:7.1f}" for value in each.values() if value is not None]
        print(f"{name:21}  {' '.join(some[:3])}  {' '.join(some[3:])}")
    print(f"\n{'2 bits, a scale a':17}  {'only':9}  {'more':>10}  mean cosine of two tokens")
    for row in figures["alone"]:
        more = f"{row['more']:+10.2%}" if "more" in row else " " * 10
        print(f"{row['granularity']:17}  {row['kind']:9}  {more}  {row['alike']:.4f}")
    print(f"\n{'s':>4}  {'bits':>4}  {'method':13}  {'loss':>7}  {'more':>9}  closed")
    for row in figures["losses"]:
        closed = ", ".join(f"{each:.0%}" for each in row.get("closed", ()))
        print(
            f"{row['s']:>4}  {row['bits']:>4}  {row['method']:13}  {row['loss']:7.4f}  "
            f"{row['more']:+9.2%}  {closed}"
        )
