"""`minillm bench leaderboard`: six tasks of the town, several models, and how sure the order is.

    task         asked                                        right is                 guessing
    easy         a request, trained combination and wording   content and form         about 0
    held out     a request, its combination not trained       content and form         about 0
    facts        four sentences about one person              the likeliest is true    1 in 4
    arithmetic   a shop problem, the answer at once           the number               a few %
    lists        a text about a list, the last words missing  the words                about 0
    word order   a sentence, and two neighbours exchanged     the likelier is whole    1 in 2

All models get the same questions, in English. Requests are asked in a model's chat template, if it
has one, and as plain text if not: a base was never shown a request, and its score there says no
more than that. A prompt that leaves no room for 48 tokens in a model's context counts as wrong.
Beside the models stand the *oracle*, who carries requests out and knows the town, in the place
where public leaderboards have a human; and the *guesser*, who gives the answer of another question,
or any option.

**How sure.** Each score has its 95 % interval, and so has the macro average of the six. Then the
questions of every task are drawn again, 1,000 times, and the models ordered each time: the share
of orders that differ from the one in the table says how much the table's order is worth.

Paper: Yao et al. 2021, "CUGE: A Chinese Language Understanding and Generation Evaluation
Benchmark", arXiv:2112.13610 (from memory), for averages over tasks of different kinds.
Differs: tasks, models and sizes; their scores have no intervals.

Chapter: app
"""

import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import pairwise
from pathlib import Path
from typing import Any, final

import numpy as np
import torch

from minillm.bench import _tuned
from minillm.bench._run import Finished
from minillm.formats.tokenizer_json import JsonTokenizer
from minillm.measure.evaluate import (
    Estimate,
    Result,
    choose_by_log_prob,
    difference,
    evaluate,
    macro_average,
)
from minillm.model.transformer import Transformer
from minillm.serve import template
from minillm.serve.sample import SampleConfig, generate
from minillm.serve.template import ChatTemplate, Message
from minillm.town.facts import Fact, FactTable
from minillm.town.list_stories import ListSource
from minillm.town.market import MarketSource
from minillm.town.requests import HELD_OUT, SEEN, Request
from minillm.town.stories import StorySource
from minillm.town.world import World
from minillm.train.losses import token_log_probs
from minillm.tune import chat
from minillm.zoo import checkpoints

N_QUESTIONS = 100
N_OPTIONS = 4
N_TOKENS = 48  # of an answer, at most
N_RESAMPLES = 1000
SEED = "leaderboard"
TASKS = ("easy", "held out", "facts", "arithmetic", "lists", "word order")
MODELS = ("town-1m", "town-base", "chat-1m")
AT_ONCE = 50  # questions


@final
@dataclass(frozen=True)
class Question:
    """What is asked in one task.

    Args:
        prompt: to be answered or continued; empty where options are whole texts.
        truth: the right answer, or option.
        options: to choose from; none where the answer is written.
        request: behind it, if it is one.
    """

    prompt: str
    truth: str
    options: tuple[str, ...] = ()
    request: Request | None = None


Answerer = Callable[[Sequence[Question]], Sequence[str]]


def run(
    *,
    quick: bool = False,
    finished: Finished | None = None,
    models: dict[str, Path] | None = None,
) -> dict[str, Any]:
    """Measure, and print the tables.

    Args:
        quick: 4 questions a task; its figures mean nothing.
        finished: results that are there already.
        models: folders by name; None for those of `MODELS` that are shipped or trained here.

    Returns:
        "right", for each who answers and task, whether each answer is; "macro", the averages with
        intervals; "order", see `order`.
    """
    finished = Finished() if finished is None else finished
    n = 4 if quick else N_QUESTIONS
    tasks = questions(n)
    answerers: dict[str, Callable[[], Answerer]] = {
        name: partial(open_answerer, place) for name, place in (models or present()).items()
    }
    answerers |= {"oracle": lambda: oracle, "guesser": lambda: guesser}
    right = {
        name: {
            task: finished(
                f"{name}, {task}, {n} questions", partial(_right, name, opened, tasks[task])
            )
            for task in tasks
        }
        for name, opened in answerers.items()
    }
    results = {
        name: [Result(name, tuple(tasks[task]), (), tuple(each[task])) for task in tasks]
        for name, each in right.items()
    }
    macro = {name: macro_average([each.score for each in some]) for name, some in results.items()}
    figures = {
        "right": right,
        "macro": {name: vars(each) for name, each in macro.items()},
        "order": order(
            {name: some for name, some in results.items() if name in (models or MODELS)}
        ),
    }
    _print(results, macro, figures["order"])
    return figures


def _right(name: str, opened: Callable[[], Answerer], asked: Sequence[Question]) -> list[bool]:
    return list(evaluate(asked, opened(), is_right, name=name).right)


def present() -> dict[str, Path]:
    """The models that are here, shipped or trained."""
    places = {
        name: checkpoints.folder(name)
        if name in checkpoints.names()
        else Path("runs", name, "model")
        for name in MODELS
    }
    return {name: place for name, place in places.items() if place.is_dir()}


# --- the six tasks ------------------------------------------------------------------------------
def questions(n: int = N_QUESTIONS) -> dict[str, list[Question]]:
    """n questions of each task, always the same.

    Example:
        >>> questions(1)["word order"][0].options[0] == questions(1)["word order"][0].truth
        True
    """
    world, rng = World(), random.Random(SEED)
    unseen = {"combinations": sorted(HELD_OUT)}
    every: dict[str, list[Question]] = {
        "easy": [_of_request(r) for r in _tuned.some(n, SEED, combinations=SEEN)],
        "held out": [_of_request(r) for r in _tuned.some(n, SEED, **unseen)],
    }
    every |= {name: [] for name in TASKS[2:]}
    table, index = FactTable(world), 0
    while len(every["lists"]) < n or len(every["facts"]) < n:
        for sentence in table.block(index, SEED, languages=("en",)):
            every["facts"].append(_of_fact(table, sentence.fact, sentence.paraphrase, rng))
        for problem in MarketSource(world).block(index, SEED):
            question = problem.direct.rpartition(str(problem.answer))[0].rstrip()
            every["arithmetic"].append(Question(question, str(problem.answer)))
        for story in ListSource(world).block(index, SEED):
            prompt, _, rest = story.text.rpartition(":")
            if story.sentences[-1][0] not in ("count", "contains"):  # they have no colon
                every["lists"].append(Question(f"{prompt}:", rest.strip().rstrip(".")))
        for tale in StorySource(world).block(index, SEED):
            every["word order"].append(
                _of_sentence(tale.text.split(". ")[0].rstrip(".") + ".", rng)
            )
        index += 1
    return {name: some[:n] for name, some in every.items()}


def _of_request(request: Request) -> Question:
    return Question(request.text, request.answer, request=request)


def _of_fact(table: FactTable, fact: Fact, paraphrase: int, rng: random.Random) -> Question:
    """A fact, and the same sentence with objects that others have."""
    own = {
        each.object
        for each in table.facts
        if (each.subject, each.relation) == (fact.subject, fact.relation)
    }
    others = sorted({each.object for each in table.facts if each.relation == fact.relation} - own)
    wrong = [
        Fact(fact.subject, fact.relation, thing)
        for thing in rng.sample([each for each in others if each != fact.subject], N_OPTIONS - 1)
    ]
    options = [table.say(each, "en", paraphrase) for each in (fact, *wrong)]
    return Question("", options[0], tuple(options))


def _of_sentence(sentence: str, rng: random.Random) -> Question:
    """A sentence, and the same with two neighbouring words exchanged."""
    words = sentence.split()
    i = rng.choice([i for i in range(len(words) - 1) if words[i] != words[i + 1]])
    words[i : i + 2] = words[i + 1], words[i]
    return Question("", sentence, (sentence, " ".join(words)))


def is_right(question: Question, answer: str) -> bool:
    """By the executor for a request; else the truth itself, word for word.

    Example:
        >>> is_right(Question("1 + 1?", "2"), " 2"), is_right(Question("1 + 1?", "2"), "3")
        (True, False)
    """
    if question.request is not None:
        return _tuned.is_right(question.request, answer)
    return answer.strip() == question.truth


# --- who answers --------------------------------------------------------------------------------
def oracle(asked: Sequence[Question]) -> list[str]:
    """Whoever knows everything."""
    return [each.truth for each in asked]


def guesser(asked: Sequence[Question]) -> list[str]:
    """Whoever knows the task and not the question: any option, or another question's answer."""
    rng = random.Random(f"guesser/{len(asked)}")
    return [
        rng.choice(each.options or [other.truth for other in asked if other is not each])
        for each in asked
    ]


def open_answerer(place: Path) -> Answerer:
    """A model as one who answers.

    Args:
        place: its folder.
    """
    model, tokenizer, end_ids = checkpoints.open_model(place)
    return partial(model_answers, model, tokenizer, template.load(place, tokenizer), end_ids)


def model_answers(
    model: Transformer,
    tokenizer: JsonTokenizer,
    chat_template: ChatTemplate | None,
    end_ids: tuple[int, ...],
    asked: Sequence[Question],
) -> list[str]:
    """A model's answers: the likeliest option, or what it writes, greedily.

    Args:
        model, tokenizer: that belong together.
        chat_template: for requests; None to ask them as plain text.
        end_ids: that end a text and stand before one.
        asked: questions of one task.
    """
    if asked[0].options:
        log_prob = partial(log_probs, model, tokenizer, end_ids)
        return [q.options[choose_by_log_prob(q.prompt, q.options, log_prob)] for q in asked]
    if asked[0].request is not None and chat_template is not None:
        talks = [(Message("user", each.prompt),) for each in asked]
        every = chat.answers(model, tokenizer, talks, chat_template, n_tokens=N_TOKENS)
        return [each.text if each.ended else "" for each in every]
    texts = [""] * len(asked)
    prompts = [[*end_ids[:1], *tokenizer.encode(each.prompt)] for each in asked]
    has_room = [i for i, ids in enumerate(prompts) if len(ids) + N_TOKENS <= model.context_length]
    for first in range(0, len(has_room), AT_ONCE):
        numbers = has_room[first : first + AT_ONCE]
        rows = generate(
            model,
            [prompts[i] for i in numbers],
            SampleConfig(temperature=0),
            n_tokens=N_TOKENS,
            stop_ids=end_ids,
        )
        for i, row in zip(numbers, rows, strict=True):
            texts[i] = tokenizer.decode(row)
    return [
        text if each.request is not None else up_to_stop(text)
        for each, text in zip(asked, texts, strict=True)
    ]


def up_to_stop(text: str) -> str:
    """A continuation up to the end of its sentence.

    Example:
        >>> up_to_stop(" plums, pears. Without pears: plums.")
        'plums, pears'
    """
    return text.partition(".")[0].strip()


@torch.no_grad()
def log_probs(
    model: Transformer,
    tokenizer: JsonTokenizer,
    end_ids: tuple[int, ...],
    prompt: str,
    options: Sequence[str],
) -> list[float]:
    """ln p of each whole text, the end of the text before it as its beginning.

    The prompt is alike in all, so what it costs does not change which is the likeliest.
    """
    rows = [[*end_ids[:1], *tokenizer.encode(prompt + option)] for option in options]
    longest = max(map(len, rows))
    tokens = torch.tensor([row + [0] * (longest - len(row)) for row in rows])
    is_token = torch.tensor([[i < len(row) for i in range(1, longest)] for row in rows])
    logits = model(tokens[:, :-1])
    return token_log_probs(logits, tokens[:, 1:], is_token).sum(dim=1).tolist()


# --- how sure is the order? ---------------------------------------------------------------------
def order(results: dict[str, list[Result]]) -> dict[str, Any]:
    """The models by macro average, and how often other questions would order them differently.

    Args:
        results: of each model, one a task.

    Returns:
        "models", the best first; "another", the share of resamples with another order; "swapped",
        for each two neighbours, the share in which the second is above the first, with equals
        counted as half.

    Example:
        >>> strong, weak = (Result(n, (1, 2), (), r) for n, r in (("a", (1, 1)), ("b", (0, 0))))
        >>> order({"b": [weak], "a": [strong]})
        {'models': ['a', 'b'], 'another': 0.0, 'swapped': {'b over a': 0.0}}
    """
    names = sorted(results, key=lambda name: -_macro(results[name]))
    rng = np.random.default_rng(0)
    totals = np.zeros((N_RESAMPLES, len(names)))
    for same_task in zip(*(results[name] for name in names), strict=True):
        right = np.array([each.right for each in same_task], dtype=float)  # [models, questions]
        n = right.shape[1]
        drawn = rng.multinomial(n, np.full(n, 1 / n), size=N_RESAMPLES)  # how often each
        totals += drawn @ right.T / n
    steps = totals[:, :-1] - totals[:, 1:]
    swapped = (steps < 0).mean(axis=0) + (steps == 0).mean(axis=0) / 2
    return {
        "models": names,
        "another": float((steps < 0).any(axis=1).mean()),
        "swapped": {
            f"{lower} over {upper}": float(share)
            for (upper, lower), share in zip(pairwise(names), swapped, strict=True)
        },
    }


def _macro(results: Sequence[Result]) -> float:
    return macro_average([each.score for each in results]).value


# --- the tables ---------------------------------------------------------------------------------
def _print(
    results: dict[str, list[Result]], macro: dict[str, Estimate], ordered: dict[str, Any]
) -> None:
    for name, some in results.items():
        print(f"\n{name}")
        for task, result in zip(TASKS, some, strict=True):
            print(f"  {task:12}  {result.score}")
        print(f"  {'average':12}  {macro[name]}")
    print(f"\nother questions give another order: {ordered['another']:.1%}")
    for pair, share in ordered["swapped"].items():
        print(f"  {pair}: {share:.1%}")
    names = ordered["models"]
    for upper, lower in pairwise(names):
        for one, other, task in zip(results[upper], results[lower], TASKS, strict=True):
            gap = difference(one, other)
            sure = "" if gap.low > 0 or gap.high < 0 else "   the interval holds 0"
            print(f"  {upper} − {lower}, {task:12}  {gap}{sure}")
