"""The card of a model that was tuned to follow requests: what it gets right, and what it cannot do.

Chapter: app
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import final

from minillm.formats.tokenizer_json import JsonTokenizer
from minillm.model.transformer import Transformer
from minillm.serve.template import ChatTemplate, Message
from minillm.town.request_words import SEEN_WORDINGS, UNSEEN_WORDING
from minillm.town.requests import HELD_OUT, SEEN, Request, RequestSource, grade
from minillm.town.world import World
from minillm.train import manifest
from minillm.tune.chat import answers
from minillm.zoo import checkpoints
from tools.life_card import LANGUAGES, described, losses_by_kind

N_REQUESTS = 500  # of each kind, in each language
N_TOKENS = 96  # of an answer, at most
SPLITS = {  # combinations and wordings of each kind of request
    "combinations it has seen, on other lists": (SEEN, SEEN_WORDINGS),
    "combinations it has never seen": (tuple(sorted(HELD_OUT)), SEEN_WORDINGS),
    "in a wording it has never seen": (SEEN, (UNSEEN_WORDING,)),
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
    return f"""# {note.name}

{described(note, model)}
It is `{note.config["parent"]}`, tuned to answer; `minillm chat --model {note.name}` talks to it.

**What it has read.** Beside what its parent has read, {note.n_tokens:,} tokens of conversations:
in each of two languages {64 * data["request_blocks"]:,} requests with their right answers
(`minillm.town.requests`) and {64 * data["letter_blocks"]:,} letters with their replies. A program
made them. It learned the answers' tokens alone. Seed, recipe and hashes of data and parent stand
in `manifest.json`, and `minillm train {note.name}` makes it again.

**What it gets right.** Held-out loss {note.losses["final"]:.3f} nats a token of an answer. Of
{N_REQUESTS} requests of each kind in each language, answered greedily and graded by the executor:

| requests | right | right content | right form | ended by itself |
|---|---|---|---|---|
{table}

A request combines an operation, its kind of argument and a form of the answer. About a quarter of
the combinations was kept out of its training; of these it has met each part, but never together.

**What became of what its parent knew.** Nats a token of texts that are no conversations:

| texts | before | after |
|---|---|---|
{kept}

**What it cannot do.** Anything that is not asked as in the town's requests and letters, and much
that is: the table says how much. It knows no word that the town does not use. It does not say that
it does not know; it answers anyway, in the style of what it has learned:

{outside}

It remembers nothing but the conversation, and was trained on conversations of up to three turns,
none of which speaks of another: it cannot go back to what was said. It is no source of facts about
anything, and its answers are checked by nobody but you. Tuning has cost it nearly all that its
parent could write: no text of that kind was mixed in. The weights are kept in bfloat16 and cast to
float32 when they are loaded; but for the held-out loss of the run, the figures are of these rounded
weights.
"""


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
