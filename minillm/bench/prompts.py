"""`minillm bench prompts`: what a prompt brings out, and what tuning on requests does to it.

Asked are English problems of the shop whose questions no model here was trained on.

- **prompts**: three models, whose weights stay as they are, are asked in several ways: by the
  question alone, with the trigger behind it, and after two solved problems, which show their steps
  or their answers alone, in one order and in the other. `town-base` gets them as plain text, and
  also with the word behind the question that begins steps, or the answer, in its own texts.
  `chat-1m` and `steps-1m` get them as conversations, solved problems as earlier turns. Told is how
  often the answer is right, and how often steps were written at all.
- **tuning**: `town-base` is tuned on requests, none of which is about the shop, and asked again in
  its own plain form. And with replay: a fifth of the tokens it reads are its old texts, the number
  of steps stays the same. Three seeds.

Solved problems are such as have at most 60 tokens, so that two of them, a question and an answer
fit into the context; most of these have one or two steps.

Paper: Kojima et al. 2022, arXiv:2205.11916 (the trigger); Wei et al. 2022, arXiv:2201.11903
(few-shot, with and without steps, and the order of examples); Ouyang et al. 2022, arXiv:2203.02155
(tuning costs skills, and pre-training mixed in brings them back). From memory.
Differs: 1.0 M parameters, two examples in place of eight. Ouyang et al. mix texts into
reinforcement learning, not into fine-tuning.

Chapter: app
"""

import random
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import cache
from itertools import chain, count, islice
from pathlib import Path
from typing import Any

from minillm.bench import _tuned
from minillm.bench._run import Finished
from minillm.bench._tuned import QUESTIONS, Base, conversations, counts, open_base, some
from minillm.lab.track import track
from minillm.measure.evaluate import Score
from minillm.model.transformer import Transformer
from minillm.reason.prompt import few_shot, with_label, with_trigger
from minillm.recipes import steps_1m, town_base
from minillm.recipes.chat_data import direct_turn, text_examples, worked_turn
from minillm.recipes.data import END
from minillm.serve.sample import SampleConfig, generate
from minillm.serve.template import Message
from minillm.town.market import MarketSource, Problem, read_answer
from minillm.town.world import World
from minillm.tune import chat
from minillm.tune.chat import Conversation, Example
from minillm.tune.sft import SFTConfig, fine_tune
from minillm.zoo import checkpoints

N_SHOTS, SHOT_TOKENS = 2, 60  # solved problems, and tokens of one at most
N_TOKENS = 72  # of an answer, at most; the longest with its steps has about 65
TUNE_STEPS = 200  # 16 rows each
REPLAY = 0.2  # of the tokens that are read
PARTS_OF_BASE = 40  # replayed texts are drawn from one in 40 of its blocks
Shots = Sequence[Problem]
Exam = Sequence[tuple[Shots, Problem]]  # problems that are asked, each with its solved ones
#: How a text for the base begins: the question, after some solved problems.
PLAIN: dict[str, Callable[[Shots, Problem], str]] = {
    "question": lambda shots, each: each.question,
    "trigger": lambda shots, each: with_trigger(each.question),
    "Answer:": lambda shots, each: with_label(each.question, steps=False),
    "Steps:": lambda shots, each: with_label(each.question, steps=True),
    "shots, answers": lambda shots, each: few_shot(shots, each.question, steps=False),
    "shots, answers, reversed": lambda shots, each: few_shot(
        shots[::-1], each.question, steps=False
    ),
    "shots, steps": lambda shots, each: few_shot(shots, each.question, steps=True),
    "shots, steps, reversed": lambda shots, each: few_shot(shots[::-1], each.question, steps=True),
}
#: The same as conversations, for models that were tuned for chat.
CHAT: dict[str, Callable[[Shots, Problem], Conversation]] = {
    "question": lambda shots, each: _talk([], each.question, steps=False),
    "trigger": lambda shots, each: _talk([], with_trigger(each.question), steps=True),
    "shots, answers": lambda shots, each: _talk(shots, each.question, steps=False),
    "shots, answers, reversed": lambda shots, each: _talk(shots[::-1], each.question, steps=False),
    "shots, steps": lambda shots, each: _talk(shots, each.question, steps=True),
    "shots, steps, reversed": lambda shots, each: _talk(shots[::-1], each.question, steps=True),
}
TUNED = ("chat-1m", "steps-1m")
TUNINGS = {"requests": 0.0, "replay": REPLAY}  # the share of replay


def run(*, quick: bool = False, finished: Finished | None = None) -> dict[str, Any]:
    """Ask, tune, ask again, and print two tables.

    Args:
        quick: few questions and steps, one seed; its figures mean nothing.
        finished: runs that are not to be repeated.

    Returns:
        "prompts": for each model and way the shares "right" and "steps". "before": of the base in
        its own form. "tuning": a list of runs, with the same and "requests".
    """
    finished = Finished() if finished is None else finished
    base = replace(open_base(), n_steps=TUNE_STEPS)
    base = base.quick() if quick else base
    exam = exam_for(base)
    figures: dict[str, Any] = {"prompts": {"town-base": {}}}
    for way in track(PLAIN, "town-base"):
        figures["prompts"]["town-base"][way] = finished(
            f"town-base, {way}", lambda w=way: asked_plainly(base, base.model, w, exam)
        )
    for name in TUNED:
        model = base.model if quick else _tuned_model(name)
        figures["prompts"][name] = {
            way: finished(f"{name}, {way}", lambda m=model, w=way: asked_in_chat(base, m, w, exam))
            for way in track(CHAT, name)
        }
    figures["before"] = finished("before", lambda: skills(base, base.model, exam))
    figures["tuning"] = [
        {"seed": seed, "way": way}
        | finished(f"{way}, seed {seed}", lambda w=way, s=seed: of_tuning(base, w, s, exam))
        for seed in track(base.seeds, "tuning")
        for way in TUNINGS
    ]
    _print(figures)
    return figures


def _tuned_model(name: str) -> Transformer:
    trained = Path("runs") / name / "model"
    return open_base(checkpoints.folder(name) if name in checkpoints.names() else trained).model


# --- problems -----------------------------------------------------------------------------------
def unseen(n: int, language: str = "en") -> list[Problem]:
    """The first n problems of a stream whose questions stand in no training data."""
    source, read = MarketSource(World(), language), read_questions(language)
    stream = (each for index in count() for each in source.block(index, QUESTIONS))
    return list(islice((each for each in stream if each.question not in read), n))


@cache
def read_questions(language: str) -> frozenset[str]:
    """Questions in a language that `town-base` or `steps-1m` was trained on."""
    base, steps = town_base.RECIPE.data, steps_1m.RECIPE.data
    streams = {
        "train": base.market_blocks,
        "train, worked": base.worked_blocks,
        "train, chat": steps.problem_blocks,
        "train, chat, worked": steps.problem_blocks,
    }
    source = MarketSource(World(), language)
    return frozenset(
        each.question
        for seed, n_blocks in streams.items()
        for index in range(n_blocks)
        for each in source.block(index, seed)
    )


def exam_for(base: Base) -> Exam:
    """Unseen problems, each with solved ones of its own, none of which is long."""
    source = MarketSource(World())
    stream = (each for index in count() for each in source.block(index, "shots"))
    short = (each for each in stream if len(base.tokenizer.encode(each.worked)) <= SHOT_TOKENS)
    return [(list(islice(short, N_SHOTS)), each) for each in unseen(base.n_questions)]


def _talk(shots: Shots, asked: str, *, steps: bool) -> Conversation:
    """Solved problems as turns, with their steps or without, and what is asked."""
    answer_of = worked_turn if steps else direct_turn
    turns = [_tuned.conversation(shot.question, answer_of(shot)[1]) for shot in shots]
    return (*chain.from_iterable(turns), Message("user", asked))


# --- asking -------------------------------------------------------------------------------------
def asked_plainly(base: Base, model: Transformer, way: str, exam: Exam) -> dict[str, Any]:
    """How a text goes on that begins in that way."""
    prompts = [PLAIN[way](*each) for each in exam]
    label = way if way.endswith(":") else ""
    return _graded(exam, [label + text for text in continued(base, model, prompts)])


def asked_in_chat(base: Base, model: Transformer, way: str, exam: Exam) -> dict[str, Any]:
    """What is answered in a conversation of that way."""
    talks = [CHAT[way](*each) for each in exam]
    answers = chat.answers(model, base.tokenizer, talks, n_tokens=N_TOKENS)
    return _graded(exam, [each.text if each.ended else "" for each in answers])


def continued(base: Base, model: Transformer, prompts: Sequence[str]) -> list[str]:
    """How each text goes on, greedily, up to a blank line or the end of a document or an answer."""
    end_id, texts = base.tokenizer.special_ids[END], []
    stop_ids = (end_id, *chat.TEMPLATE.stop_ids(base.tokenizer))
    ids = [[end_id, *base.tokenizer.encode(prompt)] for prompt in prompts]
    for first in range(0, len(ids), chat.AT_ONCE):
        texts += generate(
            model,
            ids[first : first + chat.AT_ONCE],
            SampleConfig(temperature=0),
            n_tokens=N_TOKENS,
            stop_ids=stop_ids,
        )
    return [base.tokenizer.decode(each).partition("\n\n")[0] for each in texts]


def _graded(exam: Exam, texts: Sequence[str]) -> dict[str, Any]:
    right = [read_answer(text) == each.answer for (_, each), text in zip(exam, texts, strict=True)]
    return {"right": _share(right), "steps": _share([" = " in text for text in texts])}


def _share(right: Sequence[bool]) -> dict[str, int]:
    return {"n_right": sum(right), "n": len(right)}


# --- tuning on requests -------------------------------------------------------------------------
def of_tuning(base: Base, way: str, seed: int, exam: Exam) -> dict[str, Any]:
    """Tuned on requests in one of two ways: what it still solves in its own plain form."""
    config = SFTConfig(n_steps=base.n_steps, seed=seed)
    talks = conversations(some(base.n_examples, f"tune {seed}"))
    examples = [chat.example(each, base.tokenizer) for each in talks]
    model = fine_tune(base.model, examples + replayed(base, examples, TUNINGS[way], seed), config)
    return skills(base, model, exam) | {
        "requests": counts(base.ask(model, some(base.n_questions, QUESTIONS)))
    }


def skills(base: Base, model: Transformer, exam: Exam) -> dict[str, Any]:
    """Problems in the base's own form, with steps, with the answer alone, and as it likes."""
    return {
        way: asked_plainly(base, model, way, exam)["right"]
        for way in ("Steps:", "Answer:", "question")
    }


def replayed(base: Base, examples: Sequence[Example], share: float, seed: int) -> list[Example]:
    """Texts of the base, so many that they are this share of all tokens.

    Args:
        base: its tokenizer, and the length of its context.
        examples: that they are mixed with.
        share: 0 or more, below 1.
        seed: of which texts.
    """
    if share == 0:
        return []
    blocks = {
        name: max(1, value // PARTS_OF_BASE)
        for name, value in vars(town_base.RECIPE.data).items()
        if name.endswith("_blocks") and name != "held_out_blocks"
    }
    texts = replace(town_base.RECIPE.data, **blocks).documents("train")
    random.Random(f"replay {seed}").shuffle(texts)
    n_missing = share / (1 - share) * sum(len(each.ids) for each in examples)
    chosen = []
    for text in texts:
        if n_missing <= 0:
            break
        chosen += text_examples(
            [text], base.tokenizer, base.tokenizer.special_ids[END], base.model.context_length
        )
        n_missing -= len(chosen[-1].ids)
    return chosen


# --- the tables ---------------------------------------------------------------------------------
def _print(figures: dict[str, Any]) -> None:
    print(f"{'':>10}  {'way':26}  {'right':>24}  wrote steps")
    for name, ways in figures["prompts"].items():
        for way, row in ways.items():
            right, steps = Score(**row["right"]), Score(**row["steps"])
            print(f"{name:>10}  {way:26}  {right!s:>24}  {steps.share:.0%}")
    rows = [{"way": "before", "seed": ""} | figures["before"], *figures["tuning"]]
    for row in rows:
        cells = (f"{key} {Score(**value)}" for key, value in row.items() if isinstance(value, dict))
        print(f"{row['way']:>10} {row['seed']:>2}  " + "  ".join(cells))
