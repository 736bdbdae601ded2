"""`minillm bench instruct_lab`: four questions to fine-tuning on requests, with rivals.

*pairs*    Requests that come with their minimal pair ("all of them", "all of them but plums"),
           against as many requests that are each of another pair. Asked are pairs, on new lists,
           and a pair is right if both its requests are. Both ways draw from one list of pairs, so
           operations and forms are equally frequent.
*json*     `chat-1m` answers in JSON without a constraint, and with two of chapter 17: the
           schema of a list of texts, whose style has no spaces, and a grammar in the style of the
           training data. Asked are combinations that were trained, and such that were not.
*persona*  Mei and Bao sell the same goods at different prices. A system message says who speaks,
           or nobody does. A leak is the other one's price. Without a message nobody can know who
           is meant, so half of all prices are then leaks, whatever the model does.
*prompts*  Tuned on wordings 0 and 1 or on 2 and 3, and asked in each of these and in wording 4.

Each is repeated with three seeds, which draw other requests and another order. All begin from
`town-base`; within an experiment all take equally many steps. Requests are in English.

Paper: Ouyang et al. 2022, arXiv:2203.02155 (the distribution of prompts); Willard and Louf 2023,
arXiv:2307.09702 (constrained decoding). Both from memory.
Differs: models, data and sizes.

Chapter: app
"""

import json
import random
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from itertools import islice
from operator import itemgetter
from typing import Any

from minillm.bench._run import Finished
from minillm.bench._tuned import (
    N_TOKENS,
    QUESTIONS,
    Base,
    conversation,
    conversations,
    counts,
    gains,
    is_right,
    mean,
    open_base,
    pairs_of,
    some,
)
from minillm.lab.track import track
from minillm.measure.evaluate import Score, evaluate
from minillm.model.transformer import Transformer
from minillm.serve import constrain
from minillm.serve.engine import Engine, EngineConfig
from minillm.serve.request import Request as EngineRequest
from minillm.serve.sample import SampleConfig
from minillm.serve.template import Message, encode
from minillm.town.requests import HELD_OUT, SEEN, Request
from minillm.town.world import World
from minillm.tune.chat import TEMPLATE, Conversation
from minillm.zoo import checkpoints

N_PAIRED = (4000,)  # examples
N_STEPS = 150  # of a tuning of "pairs" and "prompts"
LIST_OF_TEXTS = {"type": "array", "items": {"type": "string"}}
#: A list of texts with a space after each comma, as the training data have it.
SPACED_LIST = r"""
root   ::= "[" string (", " string)* "]"
string ::= "\"" [^"\\\x00-\x1F]+ "\""
"""
PRICES = range(2, 10)
ASKED_WORDING = 4
PERSONA_STEPS = 30  # of 256 short conversations, enough to know all by heart
PRICE_QUESTIONS = (
    "The price of {x}?",
    "Give me the price of {x}.",
    "Say what you ask for {x}.",
    "How many coins for {x}?",
    "Write down the price of {x}.",  # asked only
)


def run(
    *,
    quick: bool = False,
    finished: Finished | None = None,
    only: str | None = None,
    base: Base | None = None,
) -> dict[str, Any]:
    """Measure, and print the tables.

    Args:
        quick: 2 steps, one seed, few questions; its figures mean nothing.
        finished: results that are there already.
        only: one of `EXPERIMENTS`; None for all.
        base: to begin from; None for `town-base`, and for `chat-1m` where nothing is tuned.

    Returns:
        For each experiment "rows", one a seed and way, and what is concluded from them.

    Raises:
        ValueError: no such experiment; there is no base.
    """
    if only is not None and only not in EXPERIMENTS:
        raise ValueError(f"there is no experiment {only!r}; there are {', '.join(EXPERIMENTS)}")
    finished = Finished() if finished is None else finished
    tuned = base
    if base is None:
        base = replace(open_base(), n_steps=N_STEPS)
        tuned = open_base(checkpoints.folder("chat-1m"))
    figures = {}
    for name in EXPERIMENTS if only is None else [only]:
        measure, conclude = EXPERIMENTS[name]
        start = tuned if name == "json" else base
        start = start.quick() if quick else start
        rows = [
            finished(f"{name}, {way}, seed {seed}", partial(measure, start, way, seed))
            | {"seed": seed}
            for seed in track(start.seeds, name)
            for way in WAYS[name]
        ]
        figures[name] = {"rows": rows} | conclude(rows)
        _print(name, figures[name])
    return figures


# --- minimal pairs ------------------------------------------------------------------------------
def pair_requests(n: int, seed: int, *, together: bool) -> list[Request]:
    """Requests to tune on: both of each pair, or one of each of twice as many pairs.

    Args:
        n: how many requests, an even number.
        seed: of the stream of pairs, and of which one is taken.
        together: whether both of a pair are taken.
    """
    pairs, rng = list(islice(pairs_of(seed), n)), random.Random(f"one of each pair/{seed}")
    if together:
        return [request for both in pairs[: n // 2] for request in both]
    return [rng.choice(both) for both in pairs]


def measure_pairs(base: Base, way: tuple[str, int], seed: int) -> dict[str, Any]:
    """Tune on pairs or on single requests, and ask both requests of each pair."""
    kind, n = way[0], min(way[1], base.n_examples)
    model = base.tune(conversations(pair_requests(n, seed, together=kind == "pairs")), seed=seed)
    asked = list(islice(pairs_of(QUESTIONS), base.n_questions // 2))
    right = base.ask(model, [request for both in asked for request in both]).right
    both = [first and second for first, second in zip(right[::2], right[1::2], strict=True)]
    return {
        "way": kind,
        "n_examples": way[1],
        "single": {"n_right": sum(right), "n": len(right)},
        "both": {"n_right": sum(both), "n": len(both)},
    }


def conclude_pairs(rows: list[dict[str, Any]]) -> dict[str, Any]:
    """The gain in pairs of which both are right, for each number of examples."""
    shares = {
        (way, n): [
            _share(row, "both") for row in rows if (row["way"], row["n_examples"]) == (way, n)
        ]
        for way, n in WAYS["pairs"]
    }
    return {f"gain, {n}": gains(shares["pairs", n], shares["single", n]) for n in N_PAIRED}


# --- JSON, with and without a constraint --------------------------------------------------------
def measure_json(base: Base, way: str, seed: int) -> dict[str, Any]:
    """Ask a tuned model for JSON: "seen" and "held out" combinations, in three ways."""
    model = base.model
    row: dict[str, Any] = {"way": way}
    for part, combinations in (("seen", SEEN), ("held out", sorted(HELD_OUT))):
        in_json = [each for each in combinations if each[2] == "json"]
        asked = some(base.n_questions, f"{QUESTIONS} {seed}", combinations=in_json)
        for name, constraint in constraints(base).items():
            result = evaluate(
                asked, partial(constrained_answers, base, model, constraint), is_right
            )
            parsed = [is_list_of_texts(text) for text in result.answers]
            parseable = {"n_right": sum(parsed), "n": len(parsed)}
            row[f"{part}, {name}"] = {"right": counts(result), "parseable": parseable}
    return row


def is_list_of_texts(text: str) -> bool:
    """Whether a program can read it as a JSON list of texts, whatever they are.

    Example:
        >>> is_list_of_texts('["plums","?!"]'), is_list_of_texts('["plums"')
        (True, False)
    """
    try:
        listed = json.loads(text)
    except ValueError:
        return False
    return isinstance(listed, list) and all(isinstance(each, str) for each in listed)


def constraints(base: Base) -> dict[str, constrain.Constraint | None]:
    """None, the schema's, and the grammar's in the style of the training data."""
    stop_ids = TEMPLATE.stop_ids(base.tokenizer)
    vocab_size = base.model.config.vocab_size
    return {
        "free": None,
        "schema": constrain.json_schema(LIST_OF_TEXTS, base.tokenizer, stop_ids, vocab_size),
        "grammar": constrain.grammar(SPACED_LIST, base.tokenizer, stop_ids, vocab_size),
    }


def constrained_answers(
    base: Base,
    model: Transformer,
    constraint: constrain.Constraint | None,
    asked: Sequence[Request],
) -> list[str]:
    """What a tuned model answers under a constraint, greedily; "" where it came to no end."""
    engine = Engine(model, base.tokenizer, EngineConfig(max_batch=32))
    prompts = [encode([Message("user", each.text)], TEMPLATE, base.tokenizer) for each in asked]
    how = {"n_tokens": N_TOKENS, "config": SampleConfig(temperature=0), "constraint": constraint}
    stop_ids = TEMPLATE.stop_ids(base.tokenizer)
    completions = engine.run(EngineRequest(prompt=p, stop_ids=stop_ids, **how) for p in prompts)
    return [each.text if each.finish_reason == "stop" else "" for each in completions]


def conclude_json(rows: list[dict[str, Any]]) -> dict[str, Any]:
    """Mean shares of what is parseable and right, for each part and constraint."""
    figures: dict[str, Any] = {}
    for key in [key for key in rows[0] if ", " in key]:
        cells = [row[key] for row in rows]
        figures[key] = {what: mean(cells, itemgetter(what)) for what in ("parseable", "right")}
    return figures


# --- personas -----------------------------------------------------------------------------------
def prices_of(seed: int) -> dict[str, dict[str, int]]:
    """A price for each good of the town in each shop, never the same in both."""
    rng = random.Random(f"two shops/{seed}")
    both = {good.general: rng.sample(PRICES, 2) for good in World().goods}
    return {
        person: {good: prices[i] for good, prices in both.items()}
        for i, person in enumerate(("Mei", "Bao"))
    }


def shop_talk(
    prices: dict[str, dict[str, int]], wordings: Sequence[int], *, system: bool
) -> list[Conversation]:
    """All goods asked for in both shops, with or without a system message that says whose it is."""
    return [
        conversation(
            PRICE_QUESTIONS[wording].format(x=good),
            f"{coins} coins.",
            f"You are {person}." if system else None,
        )
        for person, own in prices.items()
        for good, coins in own.items()
        for wording in wordings
    ]


def measure_persona(base: Base, way: str, seed: int) -> dict[str, Any]:
    """Tune on both shops' prices, and ask for each in a wording that was not trained."""
    prices, system = prices_of(seed), way == "system message"
    base = replace(base, n_steps=min(PERSONA_STEPS, base.n_steps))
    model = base.tune(shop_talk(prices, range(ASKED_WORDING), system=system), seed=seed)
    row: dict[str, Any] = {"way": way}
    for name, has_system in {way: system, "left out": False}.items():
        asked = shop_talk(prices, [ASKED_WORDING], system=has_system)
        own = [messages[-1].content for messages in asked]
        others = own[len(own) // 2 :] + own[: len(own) // 2]  # the other shop's, good by good
        answers = base.answers(model, [messages[:-1] for messages in asked])
        row[name] = {
            what: {"n_right": sum(map(str.__eq__, map(str.strip, answers), texts)), "n": len(own)}
            for what, texts in (("own", own), ("leak", others))
        }
    return row


def conclude_persona(rows: list[dict[str, Any]]) -> dict[str, Any]:
    """The mean share of own and leaked prices: with a message, trained without, and left out."""
    parts = {
        "with": ("system message", "system message"),
        "without": ("no message", "no message"),
        "trained with, asked without": ("system message", "left out"),
    }
    figures: dict[str, Any] = {}
    for name, (way, key) in parts.items():
        cells = [row[key] for row in rows if row["way"] == way]
        figures[name] = {what: mean(cells, itemgetter(what)) for what in ("own", "leak")}
    return figures


# --- wordings -----------------------------------------------------------------------------------
def measure_prompts(base: Base, way: tuple[int, ...], seed: int) -> dict[str, Any]:
    """Tune on two wordings, and ask in these, in two others, and in wording 4."""
    spoken = [each for each in SEEN if each[2] != "commas"]  # those are not always asked for
    training = some(base.n_examples, seed, wordings=way, combinations=spoken)
    model = base.tune(conversations(training), seed=seed)
    return {"way": list(way)} | {
        f"asked in {wordings}": counts(
            base.ask(
                model, some(base.n_questions, QUESTIONS, wordings=wordings, combinations=spoken)
            )
        )
        for wordings in (*WAYS["prompts"], (ASKED_WORDING,))
    }


def conclude_prompts(rows: list[dict[str, Any]]) -> dict[str, Any]:
    """What matched wordings bring over mismatched ones, whichever are asked."""
    first, second = WAYS["prompts"]
    shares = {
        (way, asked): [_share(row, f"asked in {asked}") for row in rows if row["way"] == list(way)]
        for way in WAYS["prompts"]
        for asked in WAYS["prompts"]
    }
    return {
        f"gain, asked in {asked}": gains(shares[asked, asked], shares[other, asked])
        for asked, other in ((second, first), (first, second))
    }


def _share(row: dict[str, Any], key: str) -> float:
    return Score(**row[key]).share


EXPERIMENTS: dict[str, tuple[Callable[..., dict], Callable[..., dict]]] = {
    "pairs": (measure_pairs, conclude_pairs),
    "json": (measure_json, conclude_json),
    "persona": (measure_persona, conclude_persona),
    "prompts": (measure_prompts, conclude_prompts),
}
WAYS: dict[str, Sequence[Any]] = {
    "pairs": [(way, n) for n in N_PAIRED for way in ("pairs", "single")],
    "json": ["chat-1m"],
    "persona": ["system message", "no message"],
    "prompts": [(0, 1), (2, 3)],
}


# --- the tables ---------------------------------------------------------------------------------
def _print(name: str, figures: dict[str, Any]) -> None:
    print(f"\n{name}")
    for row in figures["rows"]:
        where = f"  seed {row['seed']}, {row['way']}, {row.get('n_examples', '')}"
        for key, cell in row.items():
            if isinstance(cell, dict):
                print(f"{where:40}  {key:28}  {_cell(cell)}")
    for key, each in figures.items():
        if key != "rows":
            values = each.get("each", [])
            shown = ", ".join(f"{what} {v:.1%}" for what, v in each.items() if what != "each")
            print(f"  {key}: {shown}" + f"  {[f'{v:+.1%}' for v in values]}" * bool(values))


def _cell(cell: dict[str, Any]) -> str:
    if "n" in cell:
        return str(Score(**cell))
    return ", ".join(f"{what} {Score(**score)}" for what, score in cell.items())
