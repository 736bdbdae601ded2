"""A memory stream (记忆流): all that an agent has seen, and what of it to think of now.

An agent sees thousands of things, and a model reads a few. Every memory gets three numbers. Recency
says how lately it was seen, importance how much it matters, relevance how much it has to do with
the question. Three formulas that stand in three sources make one score of them:

=============  =====================================  ============================================
formula        where                                  score
=============  =====================================  ============================================
`product`      a slide prints "*" between the three   recency · importance · relevance
`park_sum`     the paper                              recency + importance + relevance
`released_sum` the code that was published with it    0.5 recency + 2 importance + 3 relevance,
                                                      where the oldest memory is the most recent
=============  =====================================  ============================================

The slide's own figures are sums: 0.91 + 0.63 + 0.80 = 2.34, whereas 0.91 · 0.63 · 0.80 = 0.46. On
its three memories sum and product agree about the order. On these, no two formulas do. The
question, at 100 h, is "What is new at the mill?", and a star marks the highest score:

    at    memory                          recency  importance  relevance  product    sum  released
     0 h  Bao sleeps                         0.00        0.00       0.00     0.00   0.00      0.50
    30 h  the mill is shut                   0.28        0.14       1.00     0.04   1.43    ★ 3.62
    70 h  Joe is going to paint the mill     0.74        0.43       0.73   ★ 0.23   1.90      3.21
    90 h  Mei is going to marry              1.00        1.00       0.19     0.19 ★ 2.19      2.57

**Scale.** Each of the three columns is first moved and stretched so that its lowest value is 0 and
its highest 1 (min-max scaling). So a product is 0 for whatever is lowest in any of the three.

**Reflection.** When enough that matters has happened, the agent asks itself a few questions,
retrieves memories for each, and stores what it concludes as a memory that names its evidence.

Paper: Park et al. 2023, "Generative Agents", arXiv:2304.03442, sections 4.1 and 4.2. The decay is
0.995 an hour in the UIST version, and 0.99 in the first one. The released code is
joonspk-research/generative_agents, `retrieve.py`: its class has 0.99 a rank, the files of its
agents (three of 25 were read) have 0.995. It never retrieves a memory with the word "idle" in it.
Code read; the paper's two versions read in copies.
Differs: relevance is the cosine of tf-idf vectors, in place of a model's embeddings; importance is
given, in place of asked from a model; a question leads to one insight, in place of five, as
important as the most important memory of its evidence. The threshold is the paper's; the files of
the released agents have 250.

Chapter: 29
"""

import json
import math
import os
from collections import Counter
from collections.abc import Callable, Collection, Sequence
from dataclasses import asdict, dataclass, fields, replace
from pathlib import Path
from typing import final

from minillm.agents.retrieve import words_of
from minillm.lab.files import set_aside, write_whole
from minillm.lab.text_file import parse_json

DECAY = 0.995  # an hour, or a rank
THRESHOLD = 150  # importance between two reflections
LATEST = 1e9  # hours
RELEASED_WEIGHTS = (0.5, 2.0, 3.0)  # of recency, importance, relevance


# --- what is remembered ---------------------------------------------------------------------------
@final
@dataclass(frozen=True)
class Memory:
    """Something seen, done, heard or concluded.

    Args:
        text: in words.
        created_at: hours since the beginning.
        importance: 1 for brushing teeth to 10 for a great fire.
        last_seen_at: hours when it was last retrieved; None: never.
        evidence: of a conclusion, the numbers of the memories that it rests on.

    Raises:
        ValueError: an empty text; an importance or a time out of range; a time before creation.
    """

    text: str
    created_at: float
    importance: float
    last_seen_at: float | None = None
    evidence: tuple[int, ...] = ()

    def __post_init__(self) -> None:
        times = self.created_at, self.seen_or_created_at
        if not (self.text.strip() and 1 <= self.importance <= 10 and 0 <= times[0] <= LATEST):
            raise ValueError(
                "a memory needs a text, a time in hours of at least 0, and an importance from 1 "
                f"to 10; got {self.text!r}, {self.created_at} and {self.importance}"
            )
        if not times[0] <= times[1] <= LATEST:
            raise ValueError(f"a memory of {times[0]} h cannot be seen at {times[1]} h, before it")

    @property
    def seen_or_created_at(self) -> float:
        """Hours when it was last retrieved, or created if it never was."""
        return self.created_at if self.last_seen_at is None else self.last_seen_at


@final
@dataclass(frozen=True)
class Stream:
    """Memories in the order in which they came; a memory's number is its position, from 0.

    Raises:
        ValueError: a memory's evidence comes after it.

    Example:
        >>> stream = Stream().add(Memory("Bao bakes", 8, 2)).add(Memory("the mill is shut", 9, 7))
        >>> stream.seen([0], 12).memories[0]
        Memory(text='Bao bakes', created_at=8, importance=2, last_seen_at=12, evidence=())
    """

    memories: tuple[Memory, ...] = ()

    def __post_init__(self) -> None:
        for number, memory in enumerate(self.memories):
            if memory.evidence and not 0 <= min(memory.evidence) <= max(memory.evidence) < number:
                raise ValueError(
                    f"the evidence of memory {number} must have lower numbers; got "
                    f"{memory.evidence}"
                )

    def add(self, memory: Memory) -> "Stream":
        """The stream with one more memory."""
        return Stream((*self.memories, memory))

    def seen(self, numbers: Collection[int], now: float) -> "Stream":
        """The stream after some memories were retrieved.

        Args:
            numbers: of these memories.
            now: in hours.
        """
        return Stream(
            tuple(
                replace(memory, last_seen_at=now) if number in numbers else memory
                for number, memory in enumerate(self.memories)
            )
        )


# --- three numbers for each memory ----------------------------------------------------------------
def recency(memories: Sequence[Memory], now: float, decay: float = DECAY) -> list[float]:
    """How lately each was seen: decay ^ (hours since it was retrieved, or created), 0 to 1.

    Args:
        memories: of a stream.
        now: in hours, not before any of them.
        decay: what is left after an hour.

    Raises:
        ValueError: a memory from the future.

    Example:
        >>> [round(value, 2) for value in recency([Memory("a", 0, 1), Memory("b", 99, 1)], 100)]
        [0.61, 0.99]
    """
    if late := [memory for memory in memories if memory.seen_or_created_at > now]:
        raise ValueError(
            f"now must not be before a memory; got {now} h, and {late[0].text!r} was seen at "
            f"{late[0].seen_or_created_at} h"
        )
    return [decay ** (now - memory.seen_or_created_at) for memory in memories]


def recency_by_rank(
    memories: Sequence[Memory], decay: float = DECAY, *, newest_first: bool = False
) -> list[float]:
    """The released code's recency: decay ^ rank, 1 for the first memory, whatever the hours.

    It puts the oldest memory first. So the oldest one counts as the most recent.

    Args:
        memories: of a stream.
        decay: from one rank to the next.
        newest_first: the other way round, as was probably meant.

    Example:
        >>> recency_by_rank([Memory("a", 0, 1), Memory("b", 99, 1)], decay=0.5)
        [0.5, 0.25]
    """
    times = [memory.seen_or_created_at for memory in memories]
    order = sorted(range(len(times)), key=lambda number: times[number])
    if newest_first:
        order.reverse()
    ranks = {number: rank for rank, number in enumerate(order, 1)}
    return [decay ** ranks[number] for number in range(len(times))]


def relevance(memories: Sequence[Memory], query: str) -> list[float]:
    """How much each has to do with a query: the cosine of their tf-idf vectors, 0 to 1.

    A vector has one coordinate for each word: how often the text has it, times ln(1 + N / n), where
    n of the N memories have the word. So a rare word counts for more.

    Args:
        memories: of a stream.
        query: in words; a word that no memory has counts for nothing.

    Example:
        >>> mill = [Memory("Joe is at the mill", 1, 1), Memory("Bao is asleep", 2, 1)]
        >>> [round(value, 2) for value in relevance(mill, "What is new at the mill?")]
        [0.88, 0.14]
    """
    counts = [Counter(words_of(memory.text)) for memory in memories]
    n_with = Counter(word for count in counts for word in count)
    idf = {word: math.log(1 + len(counts) / n) for word, n in n_with.items()}
    vectors = [{word: n * idf[word] for word, n in count.items()} for count in counts]
    asked = {word: n * idf[word] for word, n in Counter(words_of(query)).items() if word in idf}
    return [_cosine(vector, asked) for vector in vectors]


def _cosine(a: dict[str, float], b: dict[str, float]) -> float:
    """The cosine of two vectors; 0 if one of them is empty."""
    norm = math.hypot(*a.values()) * math.hypot(*b.values())
    return sum(value * b.get(word, 0.0) for word, value in a.items()) / norm if norm else 0.0


# --- one score ------------------------------------------------------------------------------------
#: Memories, the relevance of each, and the time in hours → the score of each.
Score = Callable[[Sequence[Memory], Sequence[float], float], list[float]]


def min_max(values: Sequence[float]) -> list[float]:
    """Values from 0 for the lowest to 1 for the highest (min-max scaling); equal ones are 0.5.

    Example:
        >>> min_max([1, 2, 5]), min_max([3, 3])
        ([0.0, 0.25, 1.0], [0.5, 0.5])
    """
    low, high = min(values, default=0), max(values, default=0)
    if high == low:
        return [0.5] * len(values)
    return [(value - low) / (high - low) for value in values]


def weighted_sum(
    columns: Sequence[Sequence[float]], weights: Sequence[float] = (1, 1, 1)
) -> list[float]:
    """The sum of a memory's numbers, each times its weight.

    Args:
        columns: recency, importance and relevance, a value for each memory.
        weights: of the columns.

    Example:
        >>> slide = [(0.91, 0.87, 0.85), (0.63, 0.63, 0.73), (0.80, 0.71, 0.62)]
        >>> [round(score, 2) for score in weighted_sum(slide)]
        [2.34, 2.21, 2.2]
        >>> [round(math.prod(row), 2) for row in zip(*slide)]
        [0.46, 0.39, 0.38]
    """
    rows = zip(*columns, strict=True)
    return [sum(w * value for w, value in zip(weights, row, strict=True)) for row in rows]


def scaled(
    memories: Sequence[Memory], relevances: Sequence[float], now: float
) -> list[list[float]]:
    """Recency, importance and relevance as columns, each from 0 to 1.

    Args:
        memories: of a stream.
        relevances: of each to the query, on any scale.
        now: in hours.
    """
    importances = [memory.importance for memory in memories]
    return [min_max(values) for values in (recency(memories, now), importances, relevances)]


def product(memories: Sequence[Memory], relevances: Sequence[float], now: float) -> list[float]:
    """The slide's formula as it is printed: the product of the three scaled numbers.

    A memory needs all three: whatever is lowest in one of them has 0.

    Args:
        memories: of a stream.
        relevances: of each to the query, on any scale.
        now: in hours.
    """
    return [math.prod(row) for row in zip(*scaled(memories, relevances, now), strict=True)]


def park_sum(memories: Sequence[Memory], relevances: Sequence[float], now: float) -> list[float]:
    """The paper's formula: the sum of the three scaled numbers, 0 to 3.

    What a memory lacks in one number it can make up for in another.

    Args:
        memories: of a stream.
        relevances: of each to the query, on any scale.
        now: in hours.
    """
    return weighted_sum(scaled(memories, relevances, now))


def released_sum(
    memories: Sequence[Memory], relevances: Sequence[float], now: float
) -> list[float]:
    """The released code's formula: weights 0.5, 2 and 3, and the oldest counts as most recent.

    Args:
        memories: of a stream.
        relevances: of each to the query, on any scale.
        now: in hours; does not matter, since recency goes by rank.
    """
    _, *others = scaled(memories, relevances, now)
    return weighted_sum([min_max(recency_by_rank(memories)), *others], RELEASED_WEIGHTS)


def retrieve(
    stream: Stream, query: str, now: float, k: int = 3, score: Score = park_sum
) -> list[int]:
    """The numbers of the k memories with the highest scores, the best first.

    Who reads them, says so with `Stream.seen`.

    Args:
        stream: what is remembered.
        query: what the agent thinks of.
        now: in hours.
        k: at least 1.
        score: one of the three formulas.

    Returns:
        At most k numbers. Of equal scores, the memory that came first comes first.

    Raises:
        ValueError: k below 1; a memory from the future.

    Example:
        >>> stream = Stream((Memory("Joe is at the mill", 1, 2), Memory("Bao is asleep", 2, 1)))
        >>> retrieve(stream, "Where is Joe?", 3, k=1)
        [0]
    """
    if k < 1:
        raise ValueError(f"k must be at least 1; got {k}")
    return best(score(stream.memories, relevance(stream.memories, query), now), k)


def best(scores: Sequence[float], k: int) -> list[int]:
    """The numbers of the k highest scores, the best first."""
    return sorted(range(len(scores)), key=lambda number: -scores[number])[:k]


# --- reflection -----------------------------------------------------------------------------------
def importance_since_reflection(stream: Stream) -> float:
    """The sum of the importance of all memories after the last conclusion.

    Example:
        >>> memories = Memory("a", 1, 5), Memory("b", 1, 5, evidence=(0,)), Memory("c", 2, 8)
        >>> importance_since_reflection(Stream(memories))
        8.0
    """
    total = 0.0
    for memory in reversed(stream.memories):
        if memory.evidence:
            break
        total += memory.importance
    return total


def reflect(
    stream: Stream,
    now: float,
    ask: Callable[[Sequence[Memory]], Sequence[str]],
    conclude: Callable[[str, Sequence[Memory]], str],
    *,
    k: int = 3,
    threshold: float = THRESHOLD,
) -> Stream:
    """The stream with conclusions, if more has happened since the last ones than a threshold.

    Args:
        stream: what is remembered.
        now: in hours.
        ask: reads the last 100 memories and gives questions; a model, or a rule.
        conclude: reads a question and its evidence, and gives an insight in words.
        k: memories a question.
        threshold: of the importance since the last reflection.
    """
    if importance_since_reflection(stream) <= threshold:
        return stream
    # 1. questions about what has happened
    questions = ask(stream.memories[-100:])
    # 2. evidence for each, from the whole stream
    evidence = [retrieve(stream, question, now, k) for question in questions]
    # 3. an insight a question, stored with its evidence
    insights = []
    for question, numbers in zip(questions, evidence, strict=True):
        memories = [stream.memories[number] for number in numbers]
        importance = max(memory.importance for memory in memories)
        insights.append(
            Memory(conclude(question, memories), now, importance, evidence=tuple(numbers))
        )
    stream = stream.seen({number for numbers in evidence for number in numbers}, now)
    return Stream((*stream.memories, *insights))


# --- a file ---------------------------------------------------------------------------------------
def append(path: str | os.PathLike, memory: Memory) -> None:
    """Add a memory to a file, as one line of JSON; what the file has is not touched.

    Args:
        path: of the file, which is made if there is none.
        memory: the next one.
    """
    line = _line(memory).encode()
    with open(path, "a+b") as file:
        file.seek(0)
        is_cut_off = not (b"\n" + file.read()).endswith(b"\n")
        file.write(b"\n" * is_cut_off + line)  # a line that a kill cut off spoils no other
        file.flush()
        os.fsync(file.fileno())


def write(path: str | os.PathLike, stream: Stream) -> None:
    """Write a whole stream, whole or not at all, as after memories were seen."""
    write_whole(path, "".join(map(_line, stream.memories)))


def read(path: str | os.PathLike) -> Stream:
    """The stream of a file.

    Raises:
        ValueError: there is no file; lines are damaged, with their numbers from 1.
    """
    memories, damaged = _read(path)
    if damaged:
        number, reason = next(iter(damaged.items()))
        more = f", and {len(damaged) - 1} lines more" if len(damaged) > 1 else ""
        raise ValueError(
            f"{path}, line {number} is damaged{more}: {reason}. Correct it; or call "
            f"mend({str(path)!r}), which keeps the file under another name and goes on with the "
            f"{len(memories)} good lines"
        )
    return Stream(tuple(memories.values()))


def mend(path: str | os.PathLike) -> Stream:
    """The good lines of a damaged file, which is kept under another name; evidence stays right.

    Raises:
        ValueError: there is no file.
    """
    memories, _ = _read(path)
    new = {old: number for number, old in enumerate(memories)}
    stream = Stream(
        tuple(
            replace(memory, evidence=tuple(new[n] for n in memory.evidence if n in new and n < old))
            for old, memory in memories.items()
        )
    )
    set_aside(path)
    write(path, stream)
    return stream


def _line(memory: Memory) -> str:
    return json.dumps(asdict(memory), ensure_ascii=False) + "\n"


def _read(path: str | os.PathLike) -> tuple[dict[int, Memory], dict[int, str]]:
    """Memories by their number, damaged ones left out; and by line number what is damaged."""
    if not Path(path).is_file():
        raise ValueError(f"there is no file {path}; append writes one")
    memories: dict[int, Memory] = {}
    damaged: dict[int, str] = {}
    lines = enumerate(Path(path).read_bytes().split(b"\n"), 1)
    for number, (at, line) in enumerate((at, line) for at, line in lines if line.strip()):
        try:
            memories[number] = _memory(line)
        except ValueError as error:
            damaged[at] = str(error)
    return memories, damaged


def _memory(line: bytes) -> Memory:
    """A line of a file as a memory."""
    content = parse_json(line.decode())
    match content:
        case {
            "text": str(),
            "created_at": int() | float(),
            "importance": int() | float(),
            "last_seen_at": int() | float() | None,
            "evidence": [*evidence],
        } if len(content) == len(fields(Memory)) and all(type(n) is int for n in evidence):
            return Memory(**content | {"evidence": tuple(evidence)})
    names = ", ".join(field.name for field in fields(Memory))
    raise ValueError(f"a memory must be an object with {names}; got {str(content)[:80]}")
