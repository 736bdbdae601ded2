"""Put a finished run into the zoo: bfloat16 weights, tokenizer, manifest, and a card.

python -m tools.ship runs/town-1m

A model that is made from another is shipped after it: `town-base`, then `minillm train chat-1m`,
which begins from the shipped weights, then `chat-1m`; likewise `steps-1m`, `tools-1m` and
`agent-1m`.
"""

import json
import shutil
import sys
from collections import Counter
from pathlib import Path

import torch

from minillm.formats import hf
from minillm.formats.tokenizer_json import JsonTokenizer
from minillm.lab.files import write_whole
from minillm.lab.threads import use_threads
from minillm.model.transformer import Transformer
from minillm.recipes.data import END
from minillm.serve import template
from minillm.serve.sample import SampleConfig, generate
from minillm.serve.template import ChatTemplate
from minillm.town.stories import WEIGHTS
from minillm.town.story_check import check
from minillm.town.world import World
from minillm.train import manifest
from minillm.zoo.checkpoints import HERE
from tools import chat_card, life_card

N_STORIES, AT_ONCE, TEMPERATURE = 1000, 100, 0.5
OTHER_TEMPERATURES = (0.3, 1.0)
KINDS = {  # in the checker's words, the first that fits
    "never introduced": "someone or something that was never introduced",
    "fits nobody": "a pronoun that fits nobody",
    "already": "going to where one is",
    "is with": "a thing that another has",
    "lies": "a thing that lies elsewhere",
    " is at ": "a person who is elsewhere",
    " is in ": "a person who is elsewhere",
}
#: A paragraph for the card of a model that is not there to be read for its own sake.
PURPOSES = {
    "town-50k": """
**What it is for.** It is a draft: it guesses what `town-1m` would write next, for
`minillm.serve.speculate`. It has read the same texts and has the same tokenizer. Its own stories
are worse than those of `town-1m`; the figures below say by how much. How many of its guesses are
accepted stands in `course/records/speculate.json`.
"""
}


def ship(run: Path) -> None:
    """Write `minillm/zoo/NAME` from the run's folder."""
    use_threads()
    note = manifest.load(run / "manifest.json")
    model = hf.load(run / "model")
    tokenizer = hf.load_tokenizer(run / "model")
    place = HERE / note.name
    hf.save(model.to(torch.bfloat16), place)
    for name in ("tokenizer.json", "tokenizer_config.json", "generation_config.json"):
        shutil.copy(run / "model" / name, place / name)
    if (run / "model" / template.FILE).is_file():
        shutil.copy(run / "model" / template.FILE, place / template.FILE)
    config = json.loads((run / "model" / "config.json").read_text(encoding="utf-8"))
    write_whole(place / "config.json", json.dumps(config | {"dtype": "bfloat16"}, indent=2) + "\n")
    manifest.save(note, place / "manifest.json")
    text = card(note, hf.load(place), tokenizer, template.load(place, tokenizer))
    write_whole(place / "CARD.md", text)
    print(f"{place.name} is in the zoo; its card:\n\n{text}")


def card(
    note: manifest.Manifest,
    model: Transformer,
    tokenizer: JsonTokenizer,
    chat_template: ChatTemplate | None,
) -> str:
    """What the model has read, what it can do and what it cannot, after the kind of its data."""
    kind = note.config["data"]["kind"]
    if kind == "town":
        stories = judged(model, tokenizer, TEMPERATURE)
        others = {each: share_good(judged(model, tokenizer, each)) for each in OTHER_TEMPERATURES}
        return story_card(note, model, stories, others)
    if kind == "life":
        return life_card.card(note, model, tokenizer)
    if kind in chat_card.WORDS:
        return chat_card.card(note, model, tokenizer, chat_template)
    raise ValueError(
        f"cards are of town, life, {', '.join(chat_card.WORDS)}; {note.name} has read {kind}"
    )


def share_good(stories: list) -> float:
    """Percent of the stories that are complete and free of contradiction."""
    return 100 * sum(r.consistent and r.finished for _, r in stories) / len(stories)


def story_card(
    note: manifest.Manifest, model: Transformer, stories: list, others: dict[float, float]
) -> str:
    """What it has read, what it can do and what it cannot, from the first thousand stories."""
    good = [report.consistent and report.finished for _, report in stories]
    n_sentences = sum(report.n_sentences for _, report in stories)
    n_problems = sum(len(report.problems) for _, report in stories)
    n_readable = n_sentences - sum(len(report.unreadable) for _, report in stories)
    languages = {
        "English": [text.isascii() for text, _ in stories],
        "Chinese": [not text.isascii() for text, _ in stories],
    }
    shares = ", ".join(
        f"{name} {100 * sum(map(min, good, chosen)) / sum(chosen):.1f} %"
        for name, chosen in languages.items()
    )
    eventful = [any(event.kind in WEIGHTS for event in report.events) for _, report in stories]
    n_eventful, n_good = sum(eventful), sum(map(min, good, eventful))
    examples = "\n".join(
        f"- {text}" + "".join(f"\n  - *{problem}*" for problem in report.problems)
        for text, report in stories[:6]
    )
    cooler = ", ".join(f"at {each} {share:.1f} %" for each, share in others.items())
    n_parameters = sum(parameter.numel() for parameter in model.parameters())
    kinds = Counter(_kind(problem) for _, report in stories for problem in report.problems)
    frequent = "; ".join(f"{kind} {n}" for kind, n in kinds.most_common(5))
    return f"""# {note.name}

A storyteller of {n_parameters:,} parameters: a Llama-like transformer (RMSNorm, rotary positions,
SwiGLU, norms on queries and keys), {model.config.n_layers} blocks of width {model.config.d_model},
a context of {model.config.context_length} tokens, a vocabulary of {model.config.vocab_size:,}.
{PURPOSES.get(note.name, "")}
**What it has read.** {note.n_tokens:,} tokens of Tinytown: stories with a tracked state
(`minillm.town.stories`) and facts (`minillm.town.facts`), in English and Chinese, made by a
program; no text by people. Seed, recipe and a hash of the data stand in `manifest.json`, and
`minillm train {note.name}` makes it again.

**How well it has learned them.** Held-out loss {note.losses["final"]:.3f} nats a token. Of 1,000
stories that it wrote at temperature {TEMPERATURE}, read by `minillm.town.story_check`:

- {share_good(stories):.1f} % of 1,000 are complete and free of contradiction ({shares});
- of the {n_eventful} in which something happens (the others tell who is where, twice),
  {100 * n_good / n_eventful:.1f} %;
- at other temperatures, of all: {cooler};
- {n_problems / n_sentences:.3f} problems a sentence; by kind: {frequent};
- {100 * n_readable / n_sentences:.1f} % of the sentences are in one of the stories' wordings.

**What it cannot do.** Anything else. It knows no word that the town does not use, answers no
question, and follows no instruction. The weights are kept in bfloat16 and cast to float32 when they
are loaded; the figures above are of these rounded weights.

The first it wrote, and what the checker found:

{examples}
"""


def _kind(problem: str) -> str:
    """What sort of slip a sentence of the checker tells of."""
    for words, kind in KINDS.items():
        if words in problem:
            return kind
    return "said otherwise"


def judged(model, tokenizer, temperature: float) -> list:
    """The first thousand stories that it writes, with the checker's reports."""
    end = tokenizer.special_ids[END]
    found, row = [], 0
    while len(found) < N_STORIES:
        written = generate(
            model,
            [[end]] * AT_ONCE,
            SampleConfig(temperature=temperature),
            n_tokens=model.context_length - 2,
            stop_ids=[end],
            first_row=row,
        )
        row += AT_ONCE
        texts = [tokenizer.decode(ids) for ids in written]
        # what has fewer than three sentences is one of its facts, not a story
        found += [text for text in texts if text.count(".") + text.count("。") > 2]
    return [(text, check(text, World())) for text in found[:N_STORIES]]


if __name__ == "__main__":
    from minillm.lab.program import program

    with program("tools.ship"):
        ship(Path(sys.argv[1]))
