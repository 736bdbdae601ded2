"""`minillm bench instruct`: how many instructions, how many examples, and what examples are worth.

Three experiments on `town-base`, English requests, three seeds each:

- **count**: it is tuned on 4, 12, 36 or 77 kinds of instruction (combinations of operation,
  argument and form), with as many examples and steps in all, and asked requests of kinds that no
  tuning had. These are counted apart: kinds of which it has met the operation and the form, and
  kinds of which one of the two is new.
- **form**: it is tuned on 30, 300 or 3,000 examples, with as many steps. Told is how often an
  answer ends and has the form that was asked for, how often it is right, and what became of the
  skill that lies below: going on with a text about a list, as in pre-training, without any
  conversation. All is done once more at a tenth of the learning rates.
- **shots**: requests with none or up to four solved ones of their kind before them, as the context
  has room, to the base as plain text, to the tuned model as turns of a conversation.

Paper: Wei et al. 2021, arXiv:2109.01652, section 4.1 (more instruction clusters, better unseen
ones); Zhang et al. 2024, arXiv:2402.10891 (a threshold in the number of instructions); Zhou et al.
2023, "LIMA", arXiv:2305.11206 (few examples give the form); Brown et al. 2020, arXiv:2005.14165
(shots). Numbers of sections from memory.
Differs: 1.0 M parameters; what is right is decided by a program.

Chapter: app
"""

import random
from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from statistics import fmean
from typing import Any

from minillm.bench import _tuned
from minillm.bench._run import Finished
from minillm.bench._tuned import QUESTIONS, Base, counts, open_base, some
from minillm.lab.track import track
from minillm.measure.evaluate import Score
from minillm.model.transformer import Transformer
from minillm.recipes.data import END
from minillm.serve.sample import SampleConfig, generate
from minillm.serve.template import Message
from minillm.town.list_stories import BEGINNINGS, say
from minillm.town.lists import SEPARATOR, draw_items
from minillm.town.requests import (
    HELD_OUT,
    KINDS,
    SEEN,
    Combination,
    Request,
    draw_argument,
    execute,
    grade,
)
from minillm.town.world import World
from minillm.tune import chat
from minillm.tune.sft import SFTConfig, fine_tune
from minillm.zoo import checkpoints

KINDS_OF_INSTRUCTION = (4, 12, 36, len(SEEN))
EXAMPLES = (30, 300, 3000)
COUNT_STEPS, FORM_STEPS = 200, 60  # of a tuning, 16 rows each
GENTLE = 0.1  # of the learning rates
N_SHOTS, ROOM = 4, 56  # solved requests at most; tokens that are left for an answer
PARTS = ("both met", "one is new")


def run(*, quick: bool = False, finished: Finished | None = None) -> dict[str, Any]:
    """Tune, ask, and print three tables.

    Args:
        quick: few steps and questions, one seed; its figures mean nothing.
        finished: runs that are not to be repeated.

    Returns:
        "base", its skill; "count", "form" and "gentle form", a list of runs each. Runs of "count"
        that had all kinds hold "shots" too. "chat-1m shots", of the shipped model.
    """
    finished = Finished() if finished is None else finished
    base = replace(open_base(), n_steps=COUNT_STEPS)
    base = base.quick() if quick else base
    figures: dict[str, Any] = {"base": finished("base", lambda: skill(base, base.model))}
    for name, sizes, measure in (
        ("count", KINDS_OF_INSTRUCTION, of_count),
        ("form", EXAMPLES, of_form),
        ("gentle form", EXAMPLES, partial(of_form, rate=GENTLE)),
    ):
        figures[name] = [
            {"seed": seed, "n": n}
            | finished(f"{name} {n}, seed {seed}", lambda n=n, s=seed, m=measure: m(base, n, s))
            for seed in track(base.seeds, name)
            for n in (sizes[-1:] if quick else sizes)
        ]
    figures["chat-1m shots"] = finished(
        "chat-1m shots", lambda: of_shots(base, base.model if quick else _chat_1m(), 0)
    )
    _print(figures)
    return figures


def _chat_1m() -> Transformer:
    return open_base(checkpoints.folder("chat-1m")).model


# --- the three experiments ----------------------------------------------------------------------
def of_count(base: Base, n: int, seed: int) -> dict[str, Any]:
    """Tuned on n kinds of instruction: right answers to kinds that were there, and to new ones."""
    kinds = chosen(n, seed)
    model = _tuned_on(base, some(base.n_examples, f"tune {seed}", combinations=kinds), seed)
    held_out = some(base.n_questions, QUESTIONS, combinations=sorted(HELD_OUT))
    right = base.ask(model, held_out).right
    met = [is_met(request, kinds) for request in held_out]
    figures = {
        "seen": counts(base.ask(model, some(base.n_questions, QUESTIONS, combinations=kinds))),
        "held out": _share(right),
        PARTS[0]: _count(right, met),
        PARTS[1]: _count(right, [not each for each in met]),
    }
    return figures | ({"shots": of_shots(base, model, seed)} if n == len(SEEN) else {})


def of_form(base: Base, n: int, seed: int, rate: float = 1.0) -> dict[str, Any]:
    """Tuned on n examples: form and end, right answers, and the skill below.

    Args:
        base, n, seed: see above.
        rate: times the usual learning rates.
    """
    usual = SFTConfig()
    config = replace(
        usual,
        n_steps=min(base.n_steps, FORM_STEPS),
        matrix_rate=rate * usual.matrix_rate,
        learning_rate=rate * usual.learning_rate,
        seed=seed,
    )
    conversations = _tuned.conversations(some(n, f"tune {seed}"))
    examples = [chat.example(each, base.tokenizer) for each in conversations]
    model = fine_tune(base.model, examples, config)
    requests = some(base.n_questions, QUESTIONS)
    answers = chat.answers(model, base.tokenizer, [_asked(each) for each in requests])
    grades = [grade(*pair) for pair in zip(requests, (each.text for each in answers), strict=True)]
    return {
        "form": _share(a.ended and g.form for a, g in zip(answers, grades, strict=True)),
        "ended": _share(each.ended for each in answers),
        "right": _share(a.ended and g.right for a, g in zip(answers, grades, strict=True)),
        "skill": skill(base, model),
    }


def of_shots(base: Base, model: Transformer, seed: int) -> dict[str, Any]:
    """None or four solved requests of the same kind before the one that is asked."""
    rows = {}
    for name, kinds in (("seen", SEEN), ("held out", sorted(HELD_OUT))):
        asked = some(base.n_questions, f"{QUESTIONS} {seed}", combinations=kinds)
        shots = [
            fitting(
                base,
                some(N_SHOTS, f"shots {seed} {number}", combinations=(each.combination,)),
                each,
            )
            for number, each in enumerate(asked)
        ]
        rows[f"n_shots, {name}"] = fmean(map(len, shots))
        for n_shots in (0, N_SHOTS):
            before = [each[:n_shots] for each in shots]
            rows[f"base, {name}, {n_shots}"] = _plainly(base, base.model, before, asked)
            talks = [
                tuple(message for shot in some_shots for message in _solved(shot)) + _asked(each)
                for some_shots, each in zip(before, asked, strict=True)
            ]
            texts = base.answers(model, talks)
            rows[f"tuned, {name}, {n_shots}"] = _share(
                grade(request, text).right for request, text in zip(asked, texts, strict=True)
            )
    return rows


# --- parts --------------------------------------------------------------------------------------
def chosen(n: int, seed: int) -> tuple[Combination, ...]:
    """n kinds of instruction, by chance; more of a seed have all that fewer have.

    Example:
        >>> set(chosen(4, seed=0)) < set(chosen(8, seed=0))
        True
    """
    return tuple(random.Random(f"kinds {seed}").sample(sorted(SEEN), len(SEEN))[:n])


def is_met(request: Request, kinds: Sequence[Combination]) -> bool:
    """Whether its operation, with such an argument, and its form stand among these kinds."""
    operation, argument, form = request.combination
    return (operation, argument) in {each[:2] for each in kinds} and form in {
        each[2] for each in kinds
    }


def fitting(base: Base, shots: list[Request], request: Request) -> list[Request]:
    """As many of the solved requests as leave room for an answer in the context."""
    room = base.model.config.context_length - ROOM
    while shots and len(base.tokenizer.encode(_as_text(shots, request))) + 6 * len(shots) > room:
        shots = shots[1:]
    return shots


def _as_text(shots: Sequence[Request], request: Request) -> str:
    solved = "".join(f"{each.text}\n{each.answer}\n\n" for each in shots)
    return f"{solved}{request.text}\n"


def skill(base: Base, model: Transformer) -> dict[str, int]:
    """How often a text about a list goes on rightly: no conversation, the form of pre-training.

    A tuned model may end its words as an answer is ended, and not with a period: that counts too.

    Mei writes a list: plums, pears, buns. Bao reads it backwards:   →   buns, pears, plums.
    """
    world, rng, stories = World(), random.Random(QUESTIONS), []
    for _ in range(base.n_questions):
        items, others = draw_items(world, rng)
        operation = rng.choice(list(KINDS))
        argument = draw_argument(rng, operation, rng.choice(KINDS[operation]), items, others)
        listed = SEPARATOR["en"].join(item.english for item in items)
        beginning = BEGINNINGS["en"][0].format(a="Mei")
        sentence = say(operation, argument, items, "en", "Bao")
        answer = ", ".join(item.english for item in execute(operation, argument, items))
        prompt = f"{beginning} {listed}. {sentence[: -len(answer) - 1]}".rstrip()
        stories.append((prompt, answer.lower()))
    texts = _continued(base, model, [prompt for prompt, _ in stories], end=".")
    return _share(
        text.strip().lower() == answer for text, (_, answer) in zip(texts, stories, strict=True)
    )


def _plainly(
    base: Base, model: Transformer, shots: Sequence[Sequence[Request]], asked: Sequence[Request]
) -> dict[str, int]:
    """Right answers of a model that only goes on with texts."""
    prompts = [_as_text(*each) for each in zip(shots, asked, strict=True)]
    texts = _continued(base, model, prompts, end="\n\n")
    return _share(grade(each, text).right for each, text in zip(asked, texts, strict=True))


def _continued(base: Base, model: Transformer, prompts: Sequence[str], end: str) -> list[str]:
    """How each text goes on, up to `end`, the end of a document, or that of an answer."""
    end_id, texts = base.tokenizer.special_ids[END], []
    stop_ids = (end_id, *chat.TEMPLATE.stop_ids(base.tokenizer))
    ids = [[end_id, *base.tokenizer.encode(prompt)] for prompt in prompts]
    for first in range(0, len(ids), chat.AT_ONCE):
        rows = ids[first : first + chat.AT_ONCE]
        texts += generate(
            model,
            rows,
            SampleConfig(temperature=0),
            n_tokens=min(ROOM, model.config.context_length - max(map(len, rows))),
            stop_ids=stop_ids,
        )
    return [base.tokenizer.decode(each).partition(end)[0] for each in texts]


def _tuned_on(base: Base, requests: Sequence[Request], seed: int) -> Transformer:
    return base.tune(_tuned.conversations(requests), seed=seed)


def _asked(request: Request) -> chat.Conversation:
    return (Message("user", request.text),)


def _solved(request: Request) -> chat.Conversation:
    return (*_asked(request), Message("assistant", request.answer))


def _share(right: Any) -> dict[str, int]:
    right = list(right)
    return {"n_right": sum(right), "n": len(right)}


def _count(right: Sequence[bool], chosen: Sequence[bool]) -> dict[str, int]:
    return _share(each for each, is_chosen in zip(right, chosen, strict=True) if is_chosen)


def _print(figures: dict[str, Any]) -> None:
    print(f"skill of the base: {Score(**figures['base'])}")
    for name in ("count", "form", "gentle form"):
        keys = [key for key in figures[name][0] if key not in ("seed", "n", "shots")]
        print(f"{name:>6}  " + "  ".join(f"{key:>12}" for key in keys))
        for n in sorted({row["n"] for row in figures[name]}):
            rows = [row for row in figures[name] if row["n"] == n]
            print(f"{n:>6}  " + "  ".join(f"{_shares(rows, key):>12}" for key in keys))
    shots = [row["shots"] for row in figures["count"] if "shots" in row]
    print("shots; last, chat-1m, whose conversations had up to three turns")
    for key in (key for key in shots[0] if not key.startswith("n_shots")):
        print(f"{key:>22}  {_shares(shots, key):>12}  {_shares([figures['chat-1m shots']], key)}")


def _shares(rows: Sequence[dict[str, Any]], key: str) -> str:
    shares = [row[key]["n_right"] / row[key]["n"] for row in rows if row[key]["n"]]
    spread = f"{100 * min(shares):.0f}–{100 * max(shares):.0f}" if shares else "none"
    return f"{100 * fmean(shares):.1f} ({spread})" if shares else spread
