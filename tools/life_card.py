"""The card of a base model: what it has read, its losses by kind of text, and what it can write on.

Chapter: app
"""

from minillm.data.packing import Packed
from minillm.formats.tokenizer_json import JsonTokenizer
from minillm.model.transformer import Transformer
from minillm.recipes.data import END
from minillm.recipes.run import held_out_loss
from minillm.serve.sample import SampleConfig, generate
from minillm.town.facts import FactTable
from minillm.town.letters import LetterSource
from minillm.town.list_stories import ListSource
from minillm.town.market import MarketSource, read_answer
from minillm.town.stories import StorySource
from minillm.town.story_check import check
from minillm.town.world import World
from minillm.train import manifest

LANGUAGES = {"en": "English", "zh": "Chinese"}
N_BLOCKS = 3  # of 64 texts each, of every kind in each language
AT_ONCE, TEMPERATURE = 64, 0.5
KINDS = {  # what a text is called: its source, the seed of what is held out, and which text of it
    "stories": (StorySource, "held out", "text"),
    "shop arithmetic, the answer alone": (MarketSource, "held out", "direct"),
    "shop arithmetic with its steps": (MarketSource, "held out, worked", "worked"),
    "lists": (ListSource, "held out", "text"),
    "letters": (LetterSource, "held out", "text"),
}


def card(note: manifest.Manifest, model: Transformer, tokenizer: JsonTokenizer) -> str:
    """What it has read, what it can do and what it cannot."""
    losses = losses_by_kind(model, tokenizer)
    table = "\n".join(
        f"| {kind} | " + " | ".join(f"{loss:.3f}" for loss in row) + " |"
        for kind, row in losses.items()
    )
    right, whole = (
        ", ".join(
            f"{LANGUAGES[each]} {100 * share(model, tokenizer, each):.0f} %" for each in LANGUAGES
        )
        for share in (share_of_answers, share_of_stories)
    )
    return f"""# {note.name}

{described(note, model)}
It is a base: the course's later models are made from it, and it is not there to be talked to.

**What it has read.** {note.n_tokens:,} tokens of Tinytown in English and Chinese: stories, facts,
shop arithmetic with and without its steps, lists of things and letters between people. A program
made them; there is no text by people. **There are no instructions among them.** Seed, recipe and
a hash of the data stand in `manifest.json`, and `minillm train {note.name}` makes it again.

**How well it has learned them.** Held-out loss {note.losses["final"]:.3f} nats a token. By kind of
text, {64 * N_BLOCKS} texts of each, drawn anew (the facts in them are those that it has read):

| kind | {" | ".join(LANGUAGES.values())} |
|---|{"---|" * len(LANGUAGES)}
{table}

**What it can do.** Write such texts on. Of {64 * N_BLOCKS} held-out problems of the shop in each
language, which it went on with as it liked, greedily, its answer was right in: {right}. Of as many
stories, begun with a held-out first sentence and written on at temperature {TEMPERATURE}, complete
and free of contradiction by `minillm.town.story_check`: {whole}.

**What it cannot do.** Follow an instruction, or answer a question that is not asked as in its
texts. It knows no word that the town does not use. Its tokens `<|user|>`, `<|assistant|>` and the
like are reserved: no text had them, so their vectors mean nothing yet. The weights are kept in
bfloat16 and cast to float32 when they are loaded; but for the held-out loss of the run, the
figures above are of these rounded weights.
"""


def described(note: manifest.Manifest, model: Transformer) -> str:
    """The model's shape, in words."""
    config = model.config
    n_parameters = sum(parameter.numel() for parameter in model.parameters())
    return (
        f"{n_parameters:,} parameters: a Llama-like transformer (RMSNorm, rotary positions, "
        f"SwiGLU, norms on\nqueries and keys), {config.n_layers} blocks of width {config.d_model}, "
        f"a context of {config.context_length} tokens, a vocabulary of\n{config.vocab_size:,}."
    )


def losses_by_kind(model: Transformer, tokenizer: JsonTokenizer) -> dict[str, list[float]]:
    """Nats a token of held-out texts of each kind, one for each of `LANGUAGES`."""
    facts = FactTable(World())
    texts = {
        kind: [
            [getattr(each, form) for each in _blocks(source, language, seed)]
            for language in LANGUAGES
        ]
        for kind, (source, seed, form) in KINDS.items()
    } | {
        "facts": [
            [
                each.text
                for index in range(N_BLOCKS)
                for each in facts.block(index, seed="held out", languages=(language,))
            ]
            for language in LANGUAGES
        ]
    }
    return {
        kind: [_loss(model, tokenizer, of_language) for of_language in both]
        for kind, both in texts.items()
    }


def _loss(model: Transformer, tokenizer: JsonTokenizer, texts: list[str]) -> float:
    packed = Packed(
        [tokenizer.encode(text) for text in texts],
        end_id=tokenizer.special_ids[END],
        context_length=model.config.context_length,
        batch_size=1,
    )
    return held_out_loss(model, packed)


def share_of_answers(model: Transformer, tokenizer: JsonTokenizer, language: str) -> float:
    """Of held-out problems of the shop, those with a right answer, written on greedily."""
    problems = _blocks(MarketSource, language, "held out")
    written = _written_on(model, tokenizer, [each.question for each in problems], 0)
    pairs = zip(written, problems, strict=True)
    return sum(read_answer(text) == each.answer for text, each in pairs) / len(problems)


def share_of_stories(model: Transformer, tokenizer: JsonTokenizer, language: str) -> float:
    """Of stories from a held-out first sentence, those that are complete and free of slips."""
    stop = "。" if language == "zh" else "."
    begins = [
        each.text[: each.text.index(stop) + 1]
        for each in _blocks(StorySource, language, "held out")
    ]
    reports = [check(text, World()) for text in _written_on(model, tokenizer, begins, TEMPERATURE)]
    return sum(each.consistent and each.finished for each in reports) / len(reports)


def _blocks(source: type, language: str, seed: str) -> list:
    return [
        each for index in range(N_BLOCKS) for each in source(World(), language).block(index, seed)
    ]


def _written_on(
    model: Transformer, tokenizer: JsonTokenizer, begins: list[str], temperature: float
) -> list[str]:
    """Whole texts, with what they began with."""
    end, texts = tokenizer.special_ids[END], []
    for first in range(0, len(begins), AT_ONCE):
        part = begins[first : first + AT_ONCE]
        prompts = [[end, *tokenizer.encode(begin)] for begin in part]
        written = generate(
            model,
            prompts,
            SampleConfig(temperature=temperature),
            n_tokens=model.config.context_length - max(map(len, prompts)),
            stop_ids=[end],
            first_row=first,
        )
        texts += [begin + tokenizer.decode(ids) for begin, ids in zip(part, written, strict=True)]
    return texts
