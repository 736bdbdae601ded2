"""`minillm bench levers`: what makes instruction tuning generalise, by a factorial design.

*factorial*  Four levers, each low or high: how many combinations are trained (one of each
             operation, or all), how many different examples (500 or all), how many wordings (1 or
             4), and the base (small or `town-base`). All 16 settings would take twice as long, so 8
             are run, a **half-fraction** 2^(4-1): the base is large where the product of the other
             three, each -1 or +1, is +1. Each lever is high in 4 of 8, and low in the other 4 with
             the other levers balanced; the difference of the two means is its **main effect**
             (主效应).

             Aliasing: base = combinations × examples × wordings. So a main effect cannot be told
             from the interaction of the other three, and the interaction of two levers not from
             that of the other two. The design has resolution IV.
             Asked are requests whose combination is new, or the wording, or both, or neither.

*diverse*    The small base tuned on 14 operations against `town-base` tuned on 2, with equal FLOPs.
             Asked are the two operations that nobody trained, "last" and "prepend", whose nearest
             relatives are the two of the narrow training, "first" and "append"; and combinations
             that are held out. Small and narrow, and large and diverse, are run as well, so that
             size and diversity can be told apart.

The small base is trained here: 900 steps where `town-base` has 4,000, on a quarter of its texts.
So "the base" is a lever of size and of pre-training at once, and in *diverse* the large model has
more of both: what the small one wins, it wins in spite of that.

Paper: Chung et al. 2022, "Scaling Instruction-Finetuned Language Models", arXiv:2210.11416 (tasks
and size); Box, Hunter and Hunter, "Statistics for Experimenters", chapter on fractional factorials.
Both from memory.
Differs: models, data and sizes; steps instead of a chain of thought.

Chapter: app
"""

from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import cache, partial
from itertools import product
from pathlib import Path
from statistics import fmean
from typing import Any

from minillm.bench._run import Finished
from minillm.bench._tuned import QUESTIONS, Base, conversations, counts, gains, open_base, some
from minillm.data.packing import Packed
from minillm.formats import hf
from minillm.lab.track import track
from minillm.measure.evaluate import Score
from minillm.measure.metrics import flops_per_token, n_parameters
from minillm.recipes import run as recipe_run
from minillm.recipes import town_base
from minillm.recipes.recipe import Recipe
from minillm.town.requests import COMBINATIONS, HELD_OUT, KINDS, SEEN, Combination
from minillm.train.loop import train
from minillm.train.losses import language_loss

LEVERS = ("combinations", "examples", "wordings", "base")
FEW_EXAMPLES = 500
UNSEEN_WORDING = (4,)
NARROW = ("first", "append")
UNSEEN = ("last", "prepend")  # operations that neither training has
SMALL = replace(
    town_base.RECIPE,
    name="town-small",
    model=replace(town_base.RECIPE.model, d_model=64, d_ff=176),
    training=replace(town_base.RECIPE.training, n_steps=900, decay_steps=400, warmup_steps=50),
    data=replace(
        town_base.RECIPE.data,
        story_blocks=60,
        fact_blocks=75,
        market_blocks=50,
        worked_blocks=55,
        list_blocks=90,
        letter_blocks=40,
    ),
)


def run(
    *,
    quick: bool = False,
    finished: Finished | None = None,
    only: str | None = None,
    base: Base | None = None,
    folder: Path | None = None,
) -> dict[str, Any]:
    """Measure, and print the tables.

    Args:
        quick: 2 steps, one seed, few questions; its figures mean nothing.
        finished: results that are there already.
        only: "factorial" or "diverse"; None for both.
        base: the large one; None for `town-base`.
        folder: where the small base is kept until the record is written; None for nowhere.

    Returns:
        Of each experiment its "rows", one a seed and way, and what is concluded from them.

    Raises:
        ValueError: no such experiment; there is no base.
    """
    if only not in (None, *EXPERIMENTS):
        raise ValueError(f"there is no experiment {only!r}; there are {', '.join(EXPERIMENTS)}")
    finished = Finished() if finished is None else finished
    large = open_base() if base is None else base
    large = large.quick() if quick else large
    recipe = quick_recipe(SMALL) if quick else SMALL
    small = cache(partial(small_base, large, recipe, folder))  # only if it is needed
    figures: dict[str, Any] = {}
    for name in EXPERIMENTS if only is None else [only]:
        ways, measure, conclude = EXPERIMENTS[name]
        rows = [
            finished(f"{name}, {way}, seed {seed}", partial(measure, large, small, way, seed))
            | {"seed": seed}
            for seed in track(large.seeds, name)
            for way in ways
        ]
        figures[name] = {"rows": rows} | conclude(rows)
        _print(name, figures[name])
    return figures


# --- the small base -----------------------------------------------------------------------------
def small_base(large: Base, recipe: Recipe, folder: Path | None) -> Base:
    """The base of a recipe with the tokenizer of the large one; from its folder if it is there.

    Args:
        large: whose tokenizer, tests and seeds it has.
        recipe: shape, texts and steps.
        folder: of which its own is a part; None to keep nothing.
    """
    place = None if folder is None else folder / recipe.name
    if place is not None and (place / hf.CONFIG).is_file():
        return replace(large, model=hf.load(place))
    state = recipe_run.begin(recipe)
    tokenizer, how = large.tokenizer, recipe.training
    packed = Packed(
        [tokenizer.encode(text) for text in recipe.data.documents("training")],
        end_id=tokenizer.special_ids["<|endoftext|>"],
        context_length=recipe.model.context_length,
        batch_size=how.batch_size,
        seed=recipe.seed,
    )
    steps = train(state, language_loss, packed.batch_at, how.loop())
    for _ in track(steps, recipe.name, total=how.n_steps):
        pass
    if place is not None:
        hf.save(state.model, place)
    return replace(large, model=state.model)


def quick_recipe(recipe: Recipe) -> Recipe:
    """The same with hardly any text, and two steps."""
    kinds = ("story", "fact", "market", "worked", "list", "letter")
    data = replace(recipe.data, **{f"{kind}_blocks": 1 for kind in kinds}, languages=("en",))
    return replace(
        recipe,
        data=data,
        training=replace(recipe.training, n_steps=2, warmup_steps=1, decay_steps=1),
    )


# --- four levers --------------------------------------------------------------------------------
def design() -> list[tuple[int, ...]]:
    """The 8 settings of the levers, each -1 or +1.

    Example:
        >>> design()[0], design()[-1]
        ((-1, -1, -1, -1), (1, 1, 1, 1))
    """
    return [(a, b, c, a * b * c) for a, b, c in product((-1, 1), repeat=3)]


def few_combinations() -> list[Combination]:
    """One combination of each operation that is not held out, with all forms among them."""
    chosen = []
    for number, operation in enumerate(KINDS):
        own = [each for each in SEEN if each[0] == operation]
        chosen.append(own[number % len(own)])
    return chosen


def measure_factorial(
    large: Base, small: Callable[[], Base], way: tuple[int, ...], seed: int
) -> dict[str, Any]:
    """Tune at one setting, and ask what was trained, and what was not: combinations and wording."""
    combinations, examples, wordings, size = (level > 0 for level in way)
    base = large if size else small()
    taught = some(
        base.n_examples if examples else min(FEW_EXAMPLES, base.n_examples),
        seed,
        combinations=SEEN if combinations else few_combinations(),
        wordings=(0, 1, 2, 3) if wordings else (0,),
    )
    model = base.tune(conversations(taught), seed=seed)
    unseen = {"combinations": sorted(HELD_OUT)}
    known = {"combinations": few_combinations()}
    tests = {
        "new": unseen | {"wordings": UNSEEN_WORDING},
        "new combinations": unseen | {"wordings": (0,)},
        "new wording": known | {"wordings": UNSEEN_WORDING},
        "known": known | {"wordings": (0,)},
    }
    asked = {
        name: counts(base.ask(model, some(-(-base.n_questions // 2), QUESTIONS, **how)))
        for name, how in tests.items()
    }
    return {"way": list(way), "parameters": n_parameters(model)} | asked


def conclude_factorial(rows: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """The effects in each test, seed by seed; two levers' interactions stand for two pairs each.

    Args:
        rows: all settings of each seed.
    """
    seeds = sorted({row["seed"] for row in rows})
    first, *others = LEVERS
    signs = {name: [i] for i, name in enumerate(LEVERS)}
    signs |= {
        f"{first} × {other} or {' × '.join(each for each in others if each != other)}": [0, i]
        for i, other in enumerate(others, 1)
    }
    tests = [key for key, cell in rows[0].items() if isinstance(cell, dict)]
    effects = {}
    for test, (name, columns) in product(tests, signs.items()):
        each = [effect([row for row in rows if row["seed"] == s], columns, test) for s in seeds]
        effects[f"{test}: {name}"] = {"each": each, "mean": fmean(each)}
    return effects


def effect(rows: Sequence[dict[str, Any]], columns: Sequence[int], test: str) -> float:
    """The mean where the product of these levers is +1, less the mean where it is -1.

    Example:
        >>> rows = [{"way": [s], "new": {"n_right": 2 + s, "n": 4}} for s in (-1, 1)]
        >>> effect(rows, [0], "new")
        0.5
    """
    sides: dict[int, list[float]] = {-1: [], 1: []}
    for row in rows:
        sign = 1
        for column in columns:
            sign *= row["way"][column]
        sides[sign].append(Score(**row[test]).share)
    return fmean(sides[1]) - fmean(sides[-1])


# --- small and diverse, large and narrow ---------------------------------------------------------
def measure_diverse(
    large: Base, small: Callable[[], Base], way: tuple[str, str], seed: int
) -> dict[str, Any]:
    """Tune on many operations or on two, and ask for two others, and held-out combinations."""
    size, tasks = way
    base = large
    if size == "small":  # as many FLOPs: more steps, with as many more examples
        base = small()
        ratio = _flops(large) / _flops(base)
        base = replace(
            base,
            n_steps=round(base.n_steps * ratio),
            n_examples=round(base.n_examples * ratio),
        )
    operations = (
        NARROW if tasks == "narrow" else tuple(each for each in KINDS if each not in UNSEEN)
    )
    combinations = [each for each in SEEN if each[0] in operations]
    taught = some(base.n_examples, seed, combinations=combinations)
    model = base.tune(conversations(taught), seed=seed)
    tests = {
        "new operations": [each for each in COMBINATIONS if each[0] in UNSEEN],
        "new combinations": [each for each in sorted(HELD_OUT) if each[0] not in UNSEEN],
        "known": [each for each in SEEN if each[0] in NARROW],
    }
    asked = {
        name: counts(base.ask(model, some(base.n_questions, QUESTIONS, combinations=some_of)))
        for name, some_of in tests.items()
    }
    row = {"way": f"{size}, {tasks}", "parameters": n_parameters(model), "n_steps": base.n_steps}
    return row | asked


def _flops(base: Base) -> int:
    flops = flops_per_token(base.model, base.model.config.context_length)
    assert flops is not None  # plain transformers, both
    return flops


def conclude_diverse(rows: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """What small and diverse brings over large and narrow; and diversity alone, at each size."""
    pairs = {
        "small, diverse over large, narrow": ("small, diverse", "large, narrow"),
        "diversity, small": ("small, diverse", "small, narrow"),
        "diversity, large": ("large, diverse", "large, narrow"),
    }
    return {
        f"{name}: {test}": gains(*(_shares(rows, way, test) for way in ways))
        for name, ways in pairs.items()
        for test in ("new operations", "new combinations")
    }


def _shares(rows: Sequence[dict[str, Any]], way: str, test: str) -> list[float]:
    return [Score(**row[test]).share for row in rows if row["way"] == way]


EXPERIMENTS: dict[str, tuple[Sequence[Any], Callable[..., dict], Callable[..., dict]]] = {
    "factorial": (design(), measure_factorial, conclude_factorial),
    "diverse": (
        list(product(("small", "large"), ("diverse", "narrow"))),
        measure_diverse,
        conclude_diverse,
    ),
}


# --- the tables ---------------------------------------------------------------------------------
def _print(name: str, figures: dict[str, Any]) -> None:
    print(f"\n{name}")
    for row in figures["rows"]:
        way = row["way"] if isinstance(row["way"], str) else " ".join(f"{s:+d}" for s in row["way"])
        cells = [f"{key} {Score(**cell)}" for key, cell in row.items() if isinstance(cell, dict)]
        print(f"  seed {row['seed']}  {way:16}  {row['parameters']:>9,}  {'   '.join(cells)}")
    for key, each in figures.items():
        if key != "rows":
            print(f"  {key}: {each['mean']:+.1%}  {[f'{value:+.1%}' for value in each['each']]}")
