"""`minillm bench lookup`: questions over two facts, from memory and with a look-up (查表).

    question     job of mother of lai tao ?
    closed book  baker .
    look-up      [ mother of lai tao ] he yun ; [ job of he yun ] baker ; baker .

Two small models are trained from the beginning. Both read the same questions with their answers:
every single fact of a town, and four fifths of the questions over two facts. The first model writes
the answer at once, so it must keep the facts in its weights. The second one writes a call, reads
what the look-up gives up to ";", and goes on. What the look-up gives is not learned: its loss is
masked.

The exam has the other fifth of the questions over two facts. Both facts of each were read in
training, but never together. A second exam is about another town. Its names are rows of the same
syllables, but none of its facts was in any training, so the closed-book model can only guess. The
best guess that knows no name is printed beside both: the most frequent answer of the training
questions with the same first word.

A row with calls is about three times as long. So both models read equally many tokens, and the
closed-book model sees each fact about three times as often. Both have two learning rates to choose
from; the better one counts, by the mean right share of the first exam.

Paper: Qin et al. 2023, "Tool Learning with Foundation Models", arXiv:2304.08354 (tools in place of
memory); Press et al. 2022, "Measuring and Narrowing the Compositionality Gap", arXiv:2210.03350
(questions over two facts, both of which a model knows one by one). From memory.
Differs: models of 0.1 M parameters that are trained for this task alone; all calls are shown in
training; the look-up is a table of exactly the facts that are asked for.

Chapter: app
"""

import random
import re
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from statistics import fmean
from typing import Any, final

from minillm.bench._run import Finished
from minillm.lab.track import track
from minillm.model.transformer import Transformer
from minillm.reason.solver import Pair, SolverConfig, train
from minillm.serve.sample import SampleConfig, generate
from minillm.town.names import SYLLABLES, syllables
from minillm.town.world import World

CONTEXT_LENGTH = 48
RELATIVES = ("mother", "father", "child")  # the eldest child
ATTRIBUTES = ("job", "likes", "birthplace")
NOTHING = "nothing"  # what the look-up gives for a call that it has no fact for
ARMS = ("closed book", "look-up")
EXAMS = ("single facts", "trained on", "held out", "new town")
GREEDY = SampleConfig(temperature=0)
MOST_TURNS = 3  # two calls and an answer
TURN_TOKENS = 8  # at most
Facts = Mapping[str, str]  # {"mother of lai tao": "he yun"}


# --- a town as a table, and questions about it ----------------------------------------------------
def facts_of(world: World) -> dict[str, str]:
    """The facts of a town as words with blanks between them; a name is its syllables.

    Args:
        world: not the reader's village, whose names are no rows of syllables.

    Example:
        >>> facts = facts_of(World(1))
        >>> facts["child of lai tao"], facts["job of lai tao"]
        ('tao da', 'potter')
    """
    facts = {}
    for person in world.people:
        of = f"of {_words(person.name)}"
        for name in person.parents:
            relative = "mother" if world.person(name).pronoun == "she" else "father"
            facts[f"{relative} {of}"] = _words(name)
        if person.children:
            facts[f"child {of}"] = _words(person.children[0])
        values = zip(ATTRIBUTES, (person.job, person.likes, person.born_in), strict=True)
        facts |= {f"{name} {of}": value.lower() for name, value in values if value}
    return facts


def _words(name: str) -> str:
    return " ".join(syllables(name))


def _name(call: str) -> str:
    return call.partition(" of ")[2]


def over_two(facts: Facts) -> list[str]:
    """All questions whose answer takes two facts: an attribute of a relative.

    Example:
        >>> over_two({"mother of ya nan": "mi bo", "job of mi bo": "baker", "job of ya nan": "-"})
        ['job of mother of ya nan']
    """
    return [
        f"{attribute} of {call}"
        for call, relative in facts.items()  # no attribute is the name of somebody
        for attribute in ATTRIBUTES
        if f"{attribute} of {relative}" in facts
    ]


def solution(question: str, facts: Facts) -> list[tuple[str, str]]:
    """The calls that lead to the answer, each with its result; the last result is the answer.

    Example:
        >>> solution("job of mother of ya nan", {"mother of ya nan": "mi bo", "job of mi bo": "-"})
        [('mother of ya nan', 'mi bo'), ('job of mi bo', '-')]
    """
    if question in facts:
        return [(question, facts[question])]
    attribute, _, call = question.partition(" of ")
    relative = facts[call]
    second = f"{attribute} of {relative}"
    return [(call, relative), (second, facts[second])]


def row(question: str, facts: Facts, arm: str) -> Pair:
    """A text to learn from, in turns: read, learned, read, learned, ….

    Example:
        >>> row("job of mi bo", {"job of mi bo": "baker"}, "look-up")
        ('job of mi bo ?', '[ job of mi bo ]', 'baker ;', 'baker .')
    """
    steps = solution(question, facts)
    calls = [turn for call, result in steps for turn in (f"[ {call} ]", f"{result} ;")]
    answer = f"{steps[-1][1]} ."
    return (f"{question} ?", *(calls if arm == "look-up" else ()), answer)


@final
@dataclass(frozen=True)
class TownWords:
    """A vocabulary: one token a word; `minillm.reason.solver.Words`.

    Args:
        VOCABULARY: the first is padding.
    """

    VOCABULARY: tuple[str, ...]

    def encode(self, text: str) -> list[int]:
        """The token ids of words."""
        return [self.VOCABULARY.index(word) for word in text.split()]

    def decode(self, ids: Sequence[int]) -> str:
        """Words of token ids, with blanks between them."""
        return " ".join(self.VOCABULARY[number] for number in ids)


def words_of(*tables: Facts) -> TownWords:
    """The words of some towns, all syllables, and the signs."""
    values = sorted(
        {word for facts in tables for value in facts.values() for word in value.split()}
    )
    signs = ("_", "?", ".", "[", "]", ";", "of", NOTHING)
    return TownWords(tuple(dict.fromkeys((*signs, *RELATIVES, *ATTRIBUTES, *SYLLABLES, *values))))


# --- trainings and exams --------------------------------------------------------------------------
@final
@dataclass(frozen=True, kw_only=True)
class Work:
    """How much is done.

    Args:
        n_people: of each town.
        n_tokens: read in a training.
        n_questions: in each exam, at most.
        share_held_out: of the questions over two facts.
        rates: learning rates, of which the better counts.
        seeds: each has two towns of its own.
    """

    n_people: int = 300
    n_tokens: int = 500_000
    n_questions: int = 256
    share_held_out: float = 0.2
    rates: tuple[float, ...] = (0.01, 0.02)
    seeds: tuple[int, ...] = (1, 2, 3)


QUICK = Work(n_people=30, n_tokens=1500, n_questions=4, rates=(0.02,), seeds=(1,))


@final
@dataclass(frozen=True)
class Exam:
    """Questions about a town.

    Args:
        questions: without the question mark.
        facts: of the town.
    """

    questions: Sequence[str]
    facts: Facts


def run(quick: bool = False, finished: Finished | None = None) -> dict[str, Any]:
    """Train both, examine both, and print the table.

    Args:
        quick: a few steps; its figures mean nothing.
        finished: runs that are not to be repeated.

    Returns:
        "closed book" and "look-up": a list of rows for each rate, a row a seed, see `of_arm`;
        "guessing", of each seed; "better", of each arm the rate that counts.
    """
    work, finished = QUICK if quick else Work(), finished or Finished()
    size = f"{work.n_people} people, {work.n_tokens} tokens"
    figures: dict[str, Any] = {"guessing": [guessing(work, seed) for seed in work.seeds]}
    for arm in ARMS:
        figures[arm] = {
            str(rate): [
                finished(
                    f"{arm}, {size}, {rate}, seed {seed}", partial(of_arm, arm, rate, seed, work)
                )
                for seed in track(work.seeds, f"{arm}, {rate}")
            ]
            for rate in work.rates
        }
    figures["better"] = {
        arm: max(figures[arm], key=lambda rate: share(figures[arm][rate], "held out"))
        for arm in ARMS
    }
    _print(figures)
    return figures


def split(work: Work, seed: int) -> tuple[list[str], dict[str, Exam]]:
    """The questions that are trained on, and the exams.

    Args:
        work: how large the towns are.
        seed: of the towns and of what is held out.
    """
    here, there = (facts_of(World(town, n_people=work.n_people)) for town in (seed, f"new {seed}"))
    # 1. few names are in both towns: in the new one nobody has the name of somebody known
    known = set(map(_name, here))
    new = {call: fact for call, fact in there.items() if _name(call) not in known}
    # 2. in an order of their own
    rng = random.Random(f"lookup/{seed}")
    single, questions, others = (
        rng.sample(every, len(every)) for every in (list(here), over_two(here), over_two(new))
    )
    # 3. what is held out
    n_held_out = round(work.share_held_out * len(questions))
    held_out, trained = questions[:n_held_out], questions[n_held_out:]
    sets = zip(EXAMS, (single, trained, held_out, others), (here, here, here, new), strict=True)
    exams = {name: Exam(some[: work.n_questions], facts) for name, some, facts in sets}
    return [*here, *trained], exams


def of_arm(arm: str, rate: float, seed: int, work: Work) -> dict[str, Any]:
    """One model, trained and examined.

    Returns:
        "seed"; of each exam what `right_answers` returns.
    """
    questions, exams = split(work, seed)
    facts = exams["held out"].facts
    words = words_of(*(exam.facts for exam in exams.values()))
    config = SolverConfig(n_tokens=work.n_tokens, learning_rate=rate, seed=seed)

    def rows_at(step: int) -> list[Pair]:
        rng = random.Random(f"lookup/{seed}/{step}")
        return [row(each, facts, arm) for each in rng.choices(questions, k=config.batch_size)]

    label = f"{arm}, rate {rate}, seed {seed}"
    model = train(rows_at, config, context_length=CONTEXT_LENGTH, words=words, label=label)
    figures = {name: right_answers(model, exam, words) for name, exam in exams.items()}
    return {"seed": seed, **figures}


def right_answers(model: Transformer, exam: Exam, words: TownWords) -> dict[str, int]:
    """How many questions of an exam a model answers rightly.

    Returns:
        Of "n" questions "n_right", and "n_called", those with all the right calls and no other.
    """
    texts = write(model, exam.questions, words, lambda call: exam.facts.get(call, NOTHING))
    n_right = n_called = 0
    for question, text in zip(exam.questions, texts, strict=True):
        steps = solution(question, exam.facts)
        n_right += text.rpartition("; ")[2] == f"{steps[-1][1]} ."
        n_called += re.findall(r"\[ (.*?) \]", text) == [call for call, _ in steps]
    return {"n": len(texts), "n_right": n_right, "n_called": n_called}


def write(
    model: Transformer, questions: Sequence[str], words: TownWords, look: Callable[[str], str]
) -> list[str]:
    """What a model writes after each question up to the full stop, with what its calls give.

    Args:
        model: trained on rows with calls, or without.
        questions: without the question mark.
        words: the tokenizer.
        look: gives the result of a call.
    """
    texts, open_rows, stops = (
        [""] * len(questions),
        list(range(len(questions))),
        words.encode("] ."),
    )
    for _ in range(MOST_TURNS):
        prompts = [words.encode(f"{questions[i]} ? {texts[i]}") for i in open_rows]
        turns = generate(model, prompts, GREEDY, n_tokens=TURN_TOKENS, stop_ids=stops)
        called = []
        for i, ids in zip(open_rows, turns, strict=True):
            turn, has_ended = words.decode(ids), len(ids) < TURN_TOKENS
            if turn.startswith("[") and has_ended:
                texts[i] += f"{turn} ] {look(turn[1:].strip())} ; "
                called.append(i)
            else:
                texts[i] += f"{turn} ." if has_ended else turn
        if not (open_rows := called):
            break
    return texts


def guessing(work: Work, seed: int) -> dict[str, float]:
    """How often the most frequent answer is right, in each of the two exams over two facts."""
    questions, exams = split(work, seed)
    facts = exams["held out"].facts
    counts = {attribute: Counter() for attribute in ATTRIBUTES}
    for question in questions:
        if len(calls := solution(question, facts)) == 2:
            counts[question.split()[0]][calls[-1][1]] += 1
    guess = {attribute: count.most_common(1)[0][0] for attribute, count in counts.items()}
    return {
        name: fmean(
            solution(question, exams[name].facts)[-1][1] == guess[question.split()[0]]
            for question in exams[name].questions
        )
        for name in ("held out", "new town")
    }


def share(rows: Sequence[Mapping[str, Any]], exam: str, key: str = "n_right") -> float:
    """The share of all questions of an exam, over the seeds."""
    return fmean(each[exam][key] / each[exam]["n"] for each in rows)


def _print(figures: Mapping[str, Any]) -> None:
    print("right answers in %, the mean of the seeds (from the lowest to the highest)")
    print(f"{'':>12}" + "".join(f"{exam:>20}" for exam in EXAMS))
    for arm in ARMS:
        rows = figures[arm][figures["better"][arm]]
        cells = []
        for exam in EXAMS:
            each = [100 * one[exam]["n_right"] / one[exam]["n"] for one in rows]
            cells.append(f"{fmean(each):.1f} ({min(each):.1f}–{max(each):.1f})")
        print(f"{arm:>12}" + "".join(f"{cell:>20}" for cell in cells))
    for exam in ("held out", "new town"):
        print(f"guessing, {exam}: {100 * fmean(one[exam] for one in figures['guessing']):.1f}")
