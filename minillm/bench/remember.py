"""`minillm bench remember`: which formula retrieves the right memories of a villager's days?

A villager has lived for ten days in a town and remembers some 650 things. Then come 48 questions,
each of which has three right memories. They are known because the days were made that way; no
score has a say in what is right. There are twelve questions of each kind:

========  ================================  ===================================  =================
kind      question                          right                                among
========  ================================  ===================================  =================
news      Any news from Lan?                where she lives, for whom she works  what was so
                                            and who her friend is, as it is now  before; purchases
prices    What does a plum cost?            the three sightings of the price     sightings of an
                                            that holds now                       older price
events    What happened at the mill?        a fire, a theft, a feast, …,         who walks past
                                            whenever they were                   the mill
talk      Who talks about riddles?          three talks, whenever they were      all the rest
========  ================================  ===================================  =================

So news need all three of recency, importance and relevance; prices need no importance, events no
recency, and talk nothing but relevance. One formula has to serve them all. A question shares with
the memories only words that name what it is about, and "a", "at", "the" and "talks about". Every
right memory has such a word. So a formula that demands relevance, as the product does, has an
advantage here that it may not have with embeddings, whose cosine is never quite 0.

Importance is what the kind of memory deserves, as a model may rate it: 1 for an idle desk, 8 for a
fire, plus or minus 1 by chance. Nothing was retrieved before the questions come, so a memory's
recency is that of its creation.

Three single numbers are compared with three formulas; with the released one after its recency is
put right; and with a weighted sum whose weights are the best of 27 on the days of two other towns.

Paper: Park et al. 2023, "Generative Agents", arXiv:2304.03442. It gives no recall of its retrieval.
Differs: synthetic days; relevance by words, in place of a model's embeddings.

Chapter: app
"""

import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import combinations, product
from statistics import fmean
from typing import Any, final

from minillm.agents import memory
from minillm.agents.memory import Memory, Score
from minillm.bench._run import Finished
from minillm.lab.track import track
from minillm.town.folk import common_likes
from minillm.town.world import World

SEEDS = (1, 2, 3, 4, 5)
OTHER_SEEDS = ("choose 1", "choose 2")  # the towns that weights are chosen on
N_DAYS, N_SUBJECTS, N_TRIVIA, K = 10, 12, 400, 3
NOW = 24.0 * N_DAYS  # hours, when the questions come
MORE = 30  # memories that the released code retrieves
KINDS = ("news", "prices", "events", "talk")
COLUMNS = (*KINDS, "all", "all of 30")
SINGLE = ("recency", "importance", "relevance")
FORMULAS = ("product", "sum", "released")
STEPS = (0.5, 1.0, 3.0)  # weights to choose from
TRIVIA = (
    ("{person} walks past {place}", 1),
    ("{person} buys a {good}", 2),
    ("{person} says good morning", 1),
    ("{person} talks about the weather", 2),
    ("the desk is idle", 1),
    ("the bed is idle", 1),
)
EVENTS = (
    ("there is a fire at {place}", 9),
    ("thieves break in at {place}", 8),
    ("somebody is hurt at {place}", 8),
    ("a feast is held at {place}", 7),
    ("the roof falls in at {place}", 8),
)


@final
@dataclass(frozen=True)
class Question:
    """A question with the numbers of its three right memories."""

    kind: str
    text: str
    right: frozenset[int]


@final
@dataclass(frozen=True)
class Days:
    """What somebody remembers, in the order in which it came, and questions about it."""

    memories: tuple[Memory, ...]
    questions: tuple[Question, ...]


def run(*, quick: bool = False, finished: Finished | None = None) -> dict[str, Any]:
    """Measure, and print the table.

    Args:
        quick: one town, and weights of two; its figures mean nothing.
        finished: results that are there already.

    Returns:
        "weights", the chosen ones, of recency, importance and relevance; "rows", of each town the
        recall@3 of each way and kind, and how often two formulas retrieve the same three; "means"
        over the towns; "gains", of each other way's mean recall@3 above the best single number's.
    """
    finished = Finished() if finished is None else finished
    steps = STEPS[:2] if quick else STEPS
    others = OTHER_SEEDS[:1] if quick else OTHER_SEEDS
    weights = finished("weights", lambda: choose_weights([days(seed) for seed in others], steps))
    rows = [
        finished(f"seed {seed}", partial(measure, seed, weights))
        for seed in track(SEEDS[:1] if quick else SEEDS, "remember")
    ]
    names = rows[0]["recall"]
    means = {
        name: {kind: fmean(row["recall"][name][kind] for row in rows) for kind in COLUMNS}
        for name in names
    }
    best = max(means[name]["all"] for name in SINGLE)
    gains = {name: means[name]["all"] - best for name in names if name not in SINGLE}
    figures = {"weights": weights, "rows": rows, "means": means, "gains": gains}
    _print(figures)
    return figures


# --- ten days -------------------------------------------------------------------------------------
def days(seed: int | str) -> Days:
    """The memories of ten days in a town, and 48 questions.

    Args:
        seed: of the town and of all that happens in it.

    Example:
        >>> ten = days(1)
        >>> question = ten.questions[0]
        >>> question.text
        'Any news from Daihai?'
        >>> for number in sorted(question.right):
        ...     print(ten.memories[number].text)
        Daihai has moved to the market square
        Daihai has made friends with Bipei
        Daihai has begun to work for Senni
    """
    world, rng = World(seed, n_people=60), random.Random(f"remember/{seed}")
    people = [person.called for person in world.people]
    places = [_with_article(place.name) for place in world.places]
    goods = [good.name for good in world.goods]
    events: list[tuple[float, str, int, tuple[str, str] | None]] = []

    def add(text: str, importance: int, first: float = 0, last: float = N_DAYS, of=None) -> None:
        """Something at a waking hour of a day from the first to the last, right for a question."""
        day = int(rng.uniform(first, last))
        rating = min(10, max(1, importance + rng.choice((-1, 0, 1))))
        events.append((24 * day + rng.uniform(6, 22), text, rating, of))

    questions = {}
    for _ in range(N_TRIVIA):
        text, importance = rng.choice(TRIVIA)
        some = {"person": rng.choice(people[:20]), "place": rng.choice(places)}
        add(text.format(**some, good=rng.choice(goods)), importance)
    for person in rng.sample(people[:20], N_SUBJECTS):
        of = ("news", f"Any news from {person}?")
        for text, values, importance in (
            ("{} has moved to {}", places, 7),
            ("{} has begun to work for {}", people[20:40], 7),
            ("{} has made friends with {}", people[40:], 5),
        ):
            *before, now = rng.sample(values, rng.choice((2, 3)))
            change = rng.randint(2, N_DAYS - 1)
            for value in before:
                add(text.format(person, value), importance, 0, change)
            add(text.format(person, now), importance, change, change + 1, of)
    for good in rng.sample(goods, N_SUBJECTS):
        of = ("prices", f"What does a {good} cost?")
        old, new = rng.sample(range(1, 20), 2)
        change = rng.randint(3, N_DAYS - 1)
        for _ in range(rng.randint(3, 8)):
            add(f"a {good} costs {old} coins", 2, 0, change)
        for _ in range(K):
            add(f"a {good} costs {new} coins", 2, change, N_DAYS, of)
    for place in rng.sample(places, N_SUBJECTS):
        for text, importance in rng.sample(EVENTS, K):
            of = ("events", f"What happened at {place}?")
            add(text.format(place=place), importance, of=of)
    for subject in rng.sample(common_likes(), N_SUBJECTS):
        for person in rng.sample(people[:20], K):
            add(f"{person} talks about {subject}", 3, of=("talk", f"Who talks about {subject}?"))

    events.sort(key=lambda event: event[0])
    for number, (_, _, _, of) in enumerate(events):
        if of is not None:
            questions.setdefault(of, set()).add(number)
    return Days(
        tuple(Memory(text, hour, importance) for hour, text, importance, _ in events),
        tuple(
            Question(kind, text, frozenset(questions[kind, text]))
            for kind, text in sorted(questions, key=lambda of: KINDS.index(of[0]))
        ),
    )


def _with_article(place: str) -> str:
    return place if place[0].isupper() else f"the {place}"


# --- who retrieves what ---------------------------------------------------------------------------
def weighted(weights: Sequence[float]) -> Score:
    """A sum of the three scaled numbers with other weights.

    Args:
        weights: of recency, importance and relevance.
    """

    def score(memories: Sequence[Memory], relevances: Sequence[float], now: float) -> list[float]:
        return memory.weighted_sum(memory.scaled(memories, relevances, now), weights)

    return score


def newest_first(
    memories: Sequence[Memory], relevances: Sequence[float], now: float
) -> list[float]:
    """The released code's formula, where the newest memory is the most recent."""
    _, *others = memory.scaled(memories, relevances, now)
    ranks = memory.min_max(memory.recency_by_rank(memories, newest_first=True))
    return memory.weighted_sum([ranks, *others], memory.RELEASED_WEIGHTS)


def measure(seed: int | str, weights: Sequence[float]) -> dict[str, Any]:
    """One town: how many of the right memories each way retrieves.

    Args:
        seed: of the days.
        weights: the chosen ones.

    Returns:
        "seed"; "n_memories"; "recall", of each way the recall@3 of each kind and of "all", and the
        recall@30 of all; "same", of each two formulas how often they retrieve the same three.
    """
    ways = {
        "recency": weighted((1, 0, 0)),
        "importance": weighted((0, 1, 0)),
        "relevance": weighted((0, 0, 1)),
        "product": memory.product,
        "sum": memory.park_sum,
        "released": memory.released_sum,
        "released, newest first": newest_first,
        "sum, chosen weights": weighted(weights),
    }
    ten = days(seed)
    shares = {name: {column: [] for column in COLUMNS} for name in ways}
    same = {pair: [] for pair in combinations(FORMULAS, 2)}
    for question in ten.questions:
        relevances = memory.relevance(ten.memories, question.text)
        three = {}
        for name, score in ways.items():
            numbers = memory.best(score(ten.memories, relevances, NOW), MORE)
            three[name] = {*numbers[:K]}
            for column in (question.kind, "all"):
                shares[name][column].append(len(three[name] & question.right) / K)
            shares[name]["all of 30"].append(len({*numbers} & question.right) / K)
        for a, b in same:
            same[a, b].append(three[a] == three[b])
    return {
        "seed": seed,
        "n_memories": len(ten.memories),
        "recall": {
            name: {column: fmean(each) for column, each in columns.items()}
            for name, columns in shares.items()
        },
        "same": {f"{a} and {b}": fmean(each) for (a, b), each in same.items()},
    }


def choose_weights(towns: Sequence[Days], steps: Sequence[float] = STEPS) -> list[float]:
    """The weights of recency, importance and relevance with the best recall@3.

    Args:
        towns: that nothing else is measured on.
        steps: each weight is one of these.
    """
    grid = list(product(steps, repeat=3))
    n_right = [0] * len(grid)
    for ten in towns:
        for question in ten.questions:
            relevances = memory.relevance(ten.memories, question.text)
            columns = memory.scaled(ten.memories, relevances, NOW)
            for at, weights in enumerate(grid):
                numbers = memory.best(memory.weighted_sum(columns, weights), K)
                n_right[at] += len({*numbers} & question.right)
    return list(grid[n_right.index(max(n_right))])


def _print(figures: Mapping[str, Any]) -> None:
    print(
        "recall@3 in %, the mean of the towns (from the lowest to the highest); at last recall@30"
    )
    print(f"{'':>23}" + "".join(f"{kind:>8}" for kind in KINDS) + f"{'all':>19}{'all of 30':>11}")
    for name, means in figures["means"].items():
        cells = "".join(f"{100 * means[kind]:8.1f}" for kind in KINDS)
        each = [100 * row["recall"][name]["all"] for row in figures["rows"]]
        whole = f"{fmean(each):.1f} ({min(each):.1f}–{max(each):.1f})"
        print(f"{name:>23}{cells}{whole:>19}{100 * means['all of 30']:11.1f}")
    print("above the best single number, in points:")
    for name, gain in figures["gains"].items():
        print(f"{name:>23}{100 * gain:+8.1f}")
    print(f"chosen weights of recency, importance, relevance: {figures['weights']}")
    for pair in figures["rows"][0]["same"]:
        share = 100 * fmean(row["same"][pair] for row in figures["rows"])
        print(f"{pair} retrieve the same three: {share:.1f} %")
