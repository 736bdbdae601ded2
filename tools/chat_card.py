"""The card of a model that was tuned to follow requests: what it gets right, and what it cannot do.

Chapter: app
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import final

from minillm.bench.prompts import N_TOKENS as N_STEP_TOKENS
from minillm.bench.prompts import unseen
from minillm.formats.tokenizer_json import JsonTokenizer
from minillm.model.transformer import Transformer
from minillm.reason.prompt import with_trigger
from minillm.reason.vote import majority
from minillm.recipes.voting import TEMPERATURE
from minillm.serve.sample import SampleConfig
from minillm.serve.template import ChatTemplate, Message
from minillm.town.market import Problem, read_answer
from minillm.town.request_words import SEEN_WORDINGS, UNSEEN_WORDING
from minillm.town.requests import HELD_OUT, SEEN, Request, RequestSource, grade
from minillm.town.world import World
from minillm.train import manifest
from minillm.tune.chat import answers
from minillm.zoo import checkpoints
from tools import agent_card, tool_card
from tools.life_card import LANGUAGES, described, losses_by_kind

N_REQUESTS = 500  # of each kind, in each language
N_TOKENS = 96  # of an answer, at most
N_PROBLEMS, N_VOTES = 256, 10  # problems in each language; answers to each
SPLITS = {  # combinations and wordings of each kind of request
    "combinations it has seen, on other lists": (SEEN, SEEN_WORDINGS),
    "combinations it has never seen": (tuple(sorted(HELD_OUT)), SEEN_WORDINGS),
    "in a wording it has never seen": (SEEN, (UNSEEN_WORDING,)),
}
SEEN_SPLIT = next(iter(SPLITS))
#: What differs between the kinds of data.
WORDS = {
    "requests": {
        "read": "conversations",
        "more": "",
        "learned": "It learned the answers' tokens alone.",
        "loss": "nats a token of an answer",
        "turns": "three turns",
        "unknown": "It does not say",
        "cost": """ Tuning has cost it nearly all that its
parent could write: no text of that kind was mixed in.""",
    },
    "steps": {
        "read": "conversations and texts",
        "more": """ It also read
shop problems (`minillm.town.market`), some asked for the answer, and as many others, with "Let's
think step by step." or 请一步一步地思考。 behind the question, asked for the steps; and texts of
its parent once more, so that they are not forgotten.""",
        "learned": "Of conversations it learned the answers' tokens alone.",
        "loss": "nats a learned token, of answers and texts",
        "turns": "two turns",
        "unknown": "It does not say",
        "cost": "",
    },
    "tools": {
        "read": "conversations and texts",
        "more": """ It also read
questions with numbers (`minillm.town.sums`), half of which need a calculator, and questions about
people of many towns (`minillm.recipes.look_ups`), each with its calls and what the tools gave; and
texts of its parent once more, so that they are not forgotten.""",
        "learned": """Of conversations it learned the tokens of calls and answers
alone: not what the tools gave.""",
        "loss": "nats a learned token, of calls, answers and texts",
        "turns": "two turns",
        "unknown": "Unless a tool fails, it does not say",
        "cost": "",
    },
}
WORDS["agent"] = WORDS["tools"] | {
    "more": """ It also read
decisions on errands in many towns, each with a thought and a call, and lessons from failures
(`minillm.agents.errands`), in English alone; and texts of its parent once more, so that they are
not forgotten.""",
    "learned": """Of conversations it learned the tokens of thoughts, calls and
answers alone.""",
    "loss": "nats a learned token, of thoughts, calls, answers and texts",
    "turns": "three turns",
    "unknown": "It does not say",
}
OUTSIDE = (  # what one might ask it, and nobody taught it
    "What is the capital of France?",
    "Please write a poem about the sea.",
    "Hello! How are you?",
    "The list: plums, pears, buns. Sort it by length.",
)


@final
@dataclass(frozen=True, kw_only=True)
class Shares:
    """Of requests, the shares that are right.

    Args:
        both: content and form.
        content: the right words in the right order, in whatever form.
        form: the form and the language that were asked for, whatever it says.
        ended: answers that the model ended by itself.
    """

    both: float
    content: float
    form: float
    ended: float


def card(
    note: manifest.Manifest, model: Transformer, tokenizer: JsonTokenizer, template: ChatTemplate
) -> str:
    """What it has read, what it gets right and what it cannot do."""
    table = "\n".join(
        f"| {split}, {name} | "
        + " | ".join(f"{100 * x:.1f} %" for x in (s.both, s.content, s.form, s.ended))
        + " |"
        for split in SPLITS
        for language, name in LANGUAGES.items()
        for s in [shares(model, tokenizer, template, requests(split, language))]
    )
    base, base_tokenizer = checkpoints.load(note.config["parent"])
    before, after = losses_by_kind(base, base_tokenizer), losses_by_kind(model, tokenizer)
    kept = "\n".join(
        f"| {kind}, {name} | {before[kind][i]:.3f} | {after[kind][i]:.3f} |"
        for kind in before
        for i, name in enumerate(LANGUAGES.values())
    )
    asked = [[Message("user", text)] for text in OUTSIDE]
    outside = "\n".join(
        f"- *{text}*: {each.text!r}"
        for text, each in zip(
            OUTSIDE, answers(model, tokenizer, asked, template, n_tokens=40), strict=True
        )
    )
    data = note.config["data"]
    words = WORDS[data["kind"]]
    unknown = words["unknown"]
    n_requests, n_letters = 64 * data["request_blocks"], 64 * data["letter_blocks"]
    problems = ""
    if data["kind"] == "steps":
        problems = problem_table(model, tokenizer, template)
    if data["kind"] == "tools":
        texts = [each.text for language in LANGUAGES for each in requests(SEEN_SPLIT, language)]
        problems = tool_card.tables(model, tokenizer, template, texts)
    if data["kind"] == "agent":
        problems = agent_card.table(model, tokenizer, template)
    return f"""# {note.name}

{described(note, model)}
It is `{note.config["parent"]}`, tuned to answer; `minillm chat --model {note.name}` talks to it.

**What it has read.** Beside what its parent has read, {note.n_tokens:,} tokens of {words["read"]}:
in each of two languages {n_requests:,} requests with their right answers
(`minillm.town.requests`) and {n_letters:,} letters with their replies.{words["more"]} A program
made them. {words["learned"]} Seed, recipe and hashes of data and parent stand
in `manifest.json`, and `minillm train {note.name}` makes it again.

**What it gets right.** Held-out loss {note.losses["final"]:.3f} {words["loss"]}. Of
{N_REQUESTS} requests of each kind in each language, answered greedily and graded by the executor:

| requests | right | right content | right form | ended by itself |
|---|---|---|---|---|
{table}

A request combines an operation, its kind of argument and a form of the answer. About a quarter of
the combinations was kept out of its training; of these it has met each part, but never together.
{problems}
**What became of what its parent knew.** Nats a token of texts that are no conversations:

| texts | before | after |
|---|---|---|
{kept}

**What it cannot do.** Anything that is not asked as in the town's requests and letters, and much
that is: the table says how much. It knows no word that the town does not use. {unknown} that
it does not know; it answers anyway, in the style of what it has learned:

{outside}

It remembers nothing but the conversation, and was trained on conversations of up to
{words["turns"]}, none of which speaks of another: it cannot go back to what was said. It is no
source of facts about anything, and its answers are checked by nobody but you.{words["cost"]}
The weights are kept in bfloat16 and cast to float32 when they are loaded; but for the held-out loss
of the run, the figures are of these rounded weights.
"""


def problem_table(model: Transformer, tokenizer: JsonTokenizer, template: ChatTemplate) -> str:
    """How often problems are solved that nobody trained it on, asked in three ways."""
    rows = "\n".join(
        f"| {name} | " + " | ".join(f"{100 * share:.1f} %" for share in ways) + " |"
        for language, name in LANGUAGES.items()
        for ways in [solved(model, tokenizer, template, unseen(N_PROBLEMS, language))]
    )
    return f"""
**Problems of the shop.** Of {N_PROBLEMS} in each language whose questions neither it nor its parent
was trained on, right answers: asked for the answer alone, and with the trigger, both greedily; and
with the trigger by the majority of {N_VOTES} answers at temperature {TEMPERATURE}. An answer that
does not end, or names no number, counts as wrong and has no vote.

| problems | the answer alone | with the trigger | with the trigger, {N_VOTES} votes |
|---|---|---|---|
{rows}
"""


def solved(
    model: Transformer,
    tokenizer: JsonTokenizer,
    template: ChatTemplate,
    problems: Sequence[Problem],
) -> tuple[float, ...]:
    """Shares of right answers: without the trigger, with it, and with it by votes."""

    def numbers(texts: Sequence[str], temperature: float = 0.0) -> list[int | None]:
        asked = [[Message("user", text)] for text in texts]
        how = SampleConfig(temperature=temperature)
        given = answers(model, tokenizer, asked, template, n_tokens=N_STEP_TOKENS, config=how)
        return [read_answer(each.text) if each.ended else None for each in given]

    steps = [with_trigger(each.question) for each in problems]
    sampled = numbers([text for text in steps for _ in range(N_VOTES)], TEMPERATURE)
    polls = [sampled[i : i + N_VOTES] for i in range(0, len(sampled), N_VOTES)]
    ways = (
        numbers([each.question for each in problems]),
        numbers(steps),
        [majority(each).answer for each in polls],
    )
    return tuple(
        sum(number == each.answer for number, each in zip(way, problems, strict=True)) / len(way)
        for way in ways
    )


def requests(split: str, language: str) -> list[Request]:
    """The requests of a split that a card is about; no training stream has their seed."""
    combinations, wordings = SPLITS[split]
    source = RequestSource(World(), language)
    every = [
        request
        for index in range(-(-N_REQUESTS // 64))
        for request in source.block(index, "card", combinations=combinations, wordings=wordings)
    ]
    return every[:N_REQUESTS]


def shares(
    model: Transformer,
    tokenizer: JsonTokenizer,
    template: ChatTemplate,
    asked: Sequence[Request],
) -> Shares:
    """What is right of greedy answers to these requests."""
    conversations = [[Message("user", request.text)] for request in asked]
    given = answers(model, tokenizer, conversations, template, n_tokens=N_TOKENS)
    grades = [grade(request, each.text) for request, each in zip(asked, given, strict=True)]
    n = len(asked)
    return Shares(
        both=sum(each.right for each in grades) / n,
        content=sum(each.content for each in grades) / n,
        form=sum(each.form for each in grades) / n,
        ended=sum(each.ended for each in given) / n,
    )
