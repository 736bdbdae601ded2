"""`minillm bench cot`: which form of a chain of thought a model learns from, at equal tokens.

One model a format and seed: a solver of 0.1 million parameters, trained on problems of 1 to 8
swaps. All see equally many tokens, so the model without steps, whose texts are short, sees more
problems. Asked are new problems of each length, greedily.

*rates*    The four formats of `minillm.town.cups` at two learning rates, one seed: each format is
           to be judged at the better one.
*formats*  Each format at its better rate, three seeds.
*layers*   Bare answers by models of 1, 2 and 4 layers, one seed: if what is missing without steps
           is depth, more layers should manage more swaps.

Paper: Feng et al. 2023, arXiv:2305.15408, and Li et al. 2024, arXiv:2402.12875, for serial
problems; Pfau et al. 2024, arXiv:2404.15758, for dots. From memory.
Differs: sizes, lengths and texts are ours.

Chapter: app
"""

from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from itertools import islice, product
from typing import Any

from minillm.bench._run import Finished
from minillm.lab.track import track
from minillm.measure.evaluate import Score
from minillm.measure.metrics import n_parameters
from minillm.reason import solver
from minillm.reason.solver import SolverConfig
from minillm.town import cups
from minillm.town.cups import CupSource

SEEDS = (0, 1, 2)
LENGTHS = tuple(range(1, 9))
STYLES = ("direct", "dots", "states", "steps")
RATES = (0.005, 0.02)
#: The better of the two, by "rates".
BETTER = {"direct": 0.005, "dots": 0.005, "states": 0.02, "steps": 0.02}
LAYERS = (1, 2, 4)
N_QUESTIONS = 256  # of each length


def run(*, quick: bool = False, finished: Finished | None = None) -> dict[str, Any]:
    """Measure, and print the table.

    Args:
        quick: hardly any training, one seed, few questions; its figures mean nothing.
        finished: results that are there already.

    Returns:
        Of "rates", "formats" and "layers" a list of rows: format, seed, rate, layers, parameters,
        and of each length how many answers are right.
    """
    finished = Finished() if finished is None else finished
    seeds, lengths, n_questions = SEEDS, LENGTHS, N_QUESTIONS
    if quick:
        seeds, lengths, n_questions = seeds[:1], lengths[:2], 4
    config = SolverConfig(n_tokens=4_000) if quick else SolverConfig()
    at = {style: replace(config, learning_rate=rate) for style, rate in BETTER.items()}
    ways = {
        "rates": [
            (style, replace(config, learning_rate=rate)) for rate, style in product(RATES, STYLES)
        ],
        "formats": [
            (style, replace(at[style], seed=seed)) for seed, style in product(seeds, STYLES)
        ],
        "layers": [("direct", replace(at["direct"], n_layers=n)) for n in LAYERS],
    }
    figures: dict[str, Any] = {}
    for name, some in ways.items():
        figures[name] = []
        for style, own in track(some, name):
            key = f"{style}, rate {own.learning_rate}, seed {own.seed}"
            key += f", {own.n_layers} layers" if own.n_layers != config.n_layers else ""
            work = partial(measure, style, own, lengths, n_questions)
            figures[name].append(finished(key, work) | {"layers": own.n_layers})
        _print(name, figures[name])
    return figures


def measure(
    style: str, config: SolverConfig, lengths: Sequence[int], n_questions: int
) -> dict[str, Any]:
    """Train a model on problems of these lengths in one format, and ask it for each."""
    model = solver.train(solver.pairs_of(CupSource(tuple(lengths)), style, config), config)
    return {
        "format": style,
        "seed": config.seed,
        "rate": config.learning_rate,
        "parameters": n_parameters(model),
        "right": {
            str(n): {"n_right": n_right(model, n, style, n_questions), "n": n_questions}
            for n in lengths
        },
    }


def n_right(model: solver.Transformer, n_swaps: int, style: str, n_questions: int) -> int:
    """How many of the test's questions of one length are answered rightly."""
    questions = list(islice(CupSource((n_swaps,)).problems("test"), n_questions))
    return round(n_questions * solver.accuracy(model, questions, style))


def _print(name: str, rows: Sequence[dict[str, Any]]) -> None:
    print(f"\n{name}: % right by the number of swaps; guessing {100 * cups.GUESSING:.1f}")
    print(
        f"  {'format':8} {'rate':>6} layers seed  " + "".join(f"{n:>6}" for n in rows[0]["right"])
    )
    for row in rows:
        shares = "".join(f"{100 * Score(**cell).share:6.1f}" for cell in row["right"].values())
        print(f"  {row['format']:8} {row['rate']:>6} {row['layers']:>6} {row['seed']:>4}  {shares}")
