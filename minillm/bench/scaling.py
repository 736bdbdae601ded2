"""`minillm bench scaling`: the runs behind chapter 12, on all cores.

All learn the same source (`minillm.train.scale`), with fresh rows and one pass. N counts all
parameters, and a run takes 6 · N · D operations.

    1. Search, at 1.5e10, 6e10 and 2.4e11 operations: each of five widths begins with a rate of 0.01
       and 16 rows a batch. Four neighbours are tried, with a third and three times of the rate, and
       with half and twice the rows. The best takes its place, until no neighbour is better.
    2. Bowls: the same three amounts of compute, six widths each, three other seeds. A run takes
       the best setting of its compute, and of the width that is nearest to its own.
    3. Market: runs of at most 2.4e10 operations, of many sizes and lengths, one seed. The game of
       the chapter sells them.
    4. Fixed data: 131,072 tokens, read once, by ever larger models; three seeds.
    5. Shapes: about 62,000 parameters in 1, 2, 4 and 8 blocks, each with its own search of rates;
       three seeds.
    6. Abilities: models of 1, 2 and 4 blocks read rows of which every fourth says its first half
       twice. Some come to the same loss; how many tokens do they copy rightly?

Runs are processes with one thread each. After a stop the same command goes on.

Paper: Hoffmann et al. 2022, arXiv:2203.15556; Kaplan et al. 2020, arXiv:2001.08361, section 3.1
(shapes); Liu et al. 2022, arXiv:2210.14199 (equal loss, other abilities).

Chapter: app
"""

import math
from collections.abc import Iterable
from dataclasses import dataclass
from itertools import product
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, NamedTuple, final

from minillm.model.count import training_flops
from minillm.town.chance import BLOCK_ROWS
from minillm.train.scale import counts, shape, tokens_for, trained
from minillm.train.sweep import sweep

RATES = (0.0003, 0.001, 0.003, 0.01, 0.03, 0.09)  # of AdamW, a factor of 3 apart
ASKED = ("d_model", "n_tokens", "rate", "batch_size", "n_layers")  # of a run, besides its seed


class Setting(NamedTuple):
    """How a size is trained."""

    rate: float
    batch_size: int


START = Setting(0.01, 16)


@final
@dataclass(frozen=True, kw_only=True)
class Work:
    """How much is done.

    Args:
        searched: compute of the search, in operations.
        widths: of the search.
        bowls: compute to widths.
        seeds: of bowls, fixed data and shapes.
        market: widths and numbers of tokens that are sold.
        largest_sale: operations.
        fixed: tokens that stay, and the widths that grow.
        rates: that each shape tries.
        shapes: (blocks, width).
        shape_flops: operations of each shape.
        copying: (blocks, width) and numbers of tokens of the models that copy.
    """

    searched: tuple[float, ...] = (1.5e10, 6e10, 2.4e11)
    widths: tuple[int, ...] = (12, 16, 24, 32, 48)
    bowls: tuple[tuple[float, tuple[int, ...]], ...] = (
        (1.5e10, (8, 12, 16, 24, 32, 48)),
        (6e10, (8, 12, 16, 24, 32, 48)),
        (2.4e11, (16, 24, 32, 48, 64, 96)),
    )
    seeds: tuple[int, ...] = (1, 2, 3)
    market: tuple[tuple[int, ...], tuple[int, ...]] = (
        (8, 12, 16, 24, 32, 48),
        tuple(2**k for k in range(13, 20)),
    )
    largest_sale: float = 2.4e10
    fixed: tuple[int, tuple[int, ...]] = (2**17, (8, 12, 16, 24, 32, 48, 64, 96))
    rates: tuple[float, ...] = (0.003, 0.01, 0.03)
    shapes: tuple[tuple[int, int], ...] = ((1, 64), (2, 48), (4, 32), (8, 24))
    shape_flops: float = 6e10
    copying: tuple[tuple[tuple[int, int], ...], tuple[int, ...]] = (
        ((1, 64), (2, 48), (4, 32)),
        (2**16, 2**17, 2**18, 2**19),
    )


QUICK = Work(
    searched=(1e8,),
    widths=(8,),
    rates=(0.01, 0.03),
    bowls=((1e8, (8, 12)),),
    seeds=(1,),
    market=((8,), (2**11, 2**12)),
    fixed=(2**11, (8, 12)),
    shapes=((1, 8), (2, 8)),
    shape_flops=1e8,
    copying=(((1, 8),), (2**11,)),
)


def run(quick: bool = False, folder: Path | None = None) -> dict[str, Any]:
    """Run the benchmark, print its tables, and return every figure.

    Args:
        quick: half a minute, tiny runs, to see that it works; its figures mean nothing.
        folder: keeps every finished run, which is not repeated; None keeps none.

    Returns:
        `settings`: the best `rate` and `batch_size` for each compute and width of the search.
        `searched`, `bowls`, `market`, `fixed`, `shapes`, `copying`: lists of runs, each with its
        settings and what `minillm.train.scale.trained` gives.

    Raises:
        ValueError: a run failed; says of which settings.
    """
    work = QUICK if quick else Work()
    if folder is not None:
        return _Scaling(work, folder).figures()
    with TemporaryDirectory() as own:
        return _Scaling(work, Path(own)).figures()


def one(run: dict[str, Any]) -> dict[str, Any]:
    """A run of the sweep: what `minillm.train.scale.trained` gives for these settings."""
    return trained(**run)


class _Scaling:
    """The steps of the benchmark, one after the other."""

    def __init__(self, work: Work, folder: Path):
        self.work, self.folder = work, folder
        self.best: dict[tuple[float, int], Setting] = {}  # of a compute and a width
        self.searched: list[dict[str, Any]] = []

    def figures(self) -> dict[str, Any]:
        """Everything, in the order of the docstring above."""
        work = self.work
        self.search()
        print_runs("search", self.searched)
        n_fixed, widths = work.fixed
        market = [self.of_tokens(*each, seed=0) for each in product(*work.market)]
        wanted = {
            "bowls": [
                self.of_flops(flops, width, seed=seed)
                for flops, widths in work.bowls
                for width in widths
                for seed in work.seeds
            ],
            "market": [run for run in market if flops_of(run) <= work.largest_sale],
            "fixed": [
                self.of_tokens(width, n_fixed, seed=seed) for width in widths for seed in work.seeds
            ],
            "shapes": [
                self.of_flops(work.shape_flops, width, how=how, n_layers=n_layers, seed=0)
                for n_layers, width in work.shapes
                for how in self.rates_of(width)
            ],
            "copying": [
                self.of_tokens(width, n_tokens, n_layers=n_layers, seed=work.seeds[0], repeats=True)
                for (n_layers, width), n_tokens in product(*work.copying)
            ],
        }
        runs = iter(self.measured(run for part in wanted.values() for run in part))
        figures = {name: [next(runs) for _ in part] for name, part in wanted.items()}
        figures["shapes"] += self.best_shapes(figures["shapes"])
        for name, part in figures.items():
            print_runs(name, part)
        settings = [
            {"flops": flops, "d_model": width, **how._asdict()}
            for (flops, width), how in self.best.items()
        ]
        return {"settings": settings, "searched": self.searched, **figures}

    def search(self) -> None:
        """For each compute and width, climb from `START` to a setting with no better neighbour."""
        losses: dict[tuple, float] = {}  # (compute, width), setting
        self.best = {at: START for at in product(self.work.searched, self.work.widths)}
        moved = list(self.best)
        while moved:
            tried = {at: [self.best[at], *neighbours(self.best[at])] for at in moved}
            wanted = [(at, how) for at in moved for how in tried[at] if (at, how) not in losses]
            runs = self.measured(self.of_flops(*at, how=how, seed=0) for at, how in wanted)
            self.searched += runs
            losses.update(zip(wanted, map(loss_of, runs), strict=True))
            better = {at: min(tried[at], key=lambda how: losses[at, how]) for at in moved}
            moved = [at for at in moved if better[at] != self.best[at]]
            self.best |= better

    def setting(self, flops: float, width: int) -> Setting:
        """Of the search nearest in compute, and there of the nearest width."""
        return self.best[nearest(self.work.searched, flops), nearest(self.work.widths, width)]

    def of_flops(
        self, flops: float, width: int, *, how: Setting | None = None, n_layers: int = 2, seed: int
    ) -> dict[str, Any]:
        """A run that takes so many operations."""
        how = how or self.setting(flops, width)
        n_parameters = counts(shape(width, n_layers)).everything
        n_tokens = tokens_for(flops, n_parameters, how.batch_size)
        return settings_of(width, n_tokens, how, n_layers=n_layers, seed=seed)

    def of_tokens(self, width: int, n_tokens: int, **others: Any) -> dict[str, Any]:
        """A run of so many tokens."""
        n_parameters = counts(shape(width, others.get("n_layers", 2))).everything
        flops = training_flops(n_parameters=n_parameters, n_tokens=n_tokens)
        return settings_of(width, n_tokens, self.setting(flops, width), **others)

    def rates_of(self, width: int) -> list[Setting]:
        """What a shape is searched with."""
        batch_size = self.setting(self.work.shape_flops, width).batch_size
        return [Setting(rate, batch_size) for rate in self.work.rates]

    def best_shapes(self, tried: list[dict[str, Any]]) -> list[dict[str, Any]]:
        """Each shape at the best of its rates, on all seeds."""
        same = {(run["n_layers"], run["d_model"]): [] for run in tried}
        for run in tried:
            same[run["n_layers"], run["d_model"]].append(run)
        chosen = [min(runs, key=loss_of) for runs in same.values()]
        return self.measured(
            {name: run[name] for name in ASKED} | {"seed": seed}
            for run in chosen
            for seed in self.work.seeds
        )

    def measured(self, runs: Iterable[dict[str, Any]]) -> list[dict[str, Any]]:
        """The runs with what they came to; one that is asked for twice runs once."""
        runs = list(runs)
        different = {str(run): run for run in sorted(runs, key=flops_of, reverse=True)}
        if not runs:
            return []
        swept = sweep(one, {"run": [*different.values()]}, self.folder, about={"bench": "scaling"})
        for each in swept:
            if each.status != "finished":
                raise ValueError(f"a run failed: {each.error}; its settings: {each.settings}")
        results = {str(each.settings["run"]): each.result for each in swept}
        return [run | results[str(run)] for run in runs]


def neighbours(how: Setting) -> list[Setting]:
    """Settings with the next lower and higher rate, and with half and twice the rows."""
    at = RATES.index(how.rate)
    rates = [*RATES[max(at - 1, 0) : at], *RATES[at + 1 : at + 2]]
    rows = (how.batch_size // 2, how.batch_size * 2)
    return [how._replace(rate=rate) for rate in rates] + [
        how._replace(batch_size=size) for size in rows if 1 <= size <= BLOCK_ROWS
    ]


def settings_of(width: int, n_tokens: int, how: Setting, **others: Any) -> dict[str, Any]:
    """The arguments of `trained`."""
    return {"d_model": width, "n_tokens": n_tokens, **how._asdict(), **others}


def flops_of(run: dict[str, Any]) -> int:
    """Operations of a run."""
    n_parameters = counts(shape(run["d_model"], run.get("n_layers", 2))).everything
    return training_flops(n_parameters=n_parameters, n_tokens=run["n_tokens"])


def nearest(numbers: Iterable[Any], number: float) -> Any:
    """The one that is nearest in ratio."""
    return min(numbers, key=lambda other: abs(math.log(other / number)))


def loss_of(run: dict[str, Any]) -> float:
    """Held out; infinite for a run that broke."""
    return math.inf if run["loss"] is None else run["loss"]


def print_runs(title: str, runs: Iterable[dict[str, Any]]) -> None:
    """A line a run."""
    print(title, flush=True)
    for run in runs:
        print(
            f"  {run['flops']:8.1e} operations  {run['n_parameters']:>8,} parameters in "
            f"{run.get('n_layers', 2)}  {run['n_tokens']:>11,} tokens  rate "
            f"{run['rate']:<6g} batch {run['batch_size']:<3} seed {run['seed']}  loss above the "
            f"floor {loss_of(run) - run['floor']:.4f}"
            + (f"  copied {run['copied']:.3f}" if "copied" in run else "")
        )
