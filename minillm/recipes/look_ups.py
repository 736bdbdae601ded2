"""Questions about people of a town, and what must be looked up to answer them.

    Where does Mei live?                     look_up(Mei, lives-in)
                                             → Plum Lane       The home of Mei is Plum Lane.
    What does the mother of Dou sell?        look_up(Dou, mother)     → Mei
                                             look_up(Mei, sells)      → plums, pears
                                                               Mei sells plums, pears.

The second question has two hops (两跳): the second call needs the result of the first. Some
questions are about somebody who is not in the town, or about something that nobody knows; then the
right answer says that.

Chapter: app
"""

import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TypeVar, final

from minillm.recipes.town_tools import NOTHING, Relation, look_up_in
from minillm.town.chance import block_rng
from minillm.town.folk import Person
from minillm.town.world import World

T = TypeVar("T")
BLOCK = 64
N_FAMOUS = 20  # who are asked about more often
#: How often each kind comes: one hop, two hops, somebody who is not there.
KINDS = {"one hop": 0.52, "two hops": 0.4, "stranger": 0.08}
# s somebody, named or described
ASKS = {
    "en": {
        "lives-in": (
            "Where does {s} live?", "Where is the home of {s}?", "Please tell me where {s} lives.",
        ),
        "works-as": (
            "What is the work of {s}?", "What does {s} do all day?",
            "Please tell me what {s} works as.",
        ),
        "mother": ("Who is the mother of {s}?", "What is the mother of {s} called?"),
        "father": ("Who is the father of {s}?", "What is the father of {s} called?"),
        "parent-of": ("Who are the children of {s}?", "What are the children of {s} called?"),
        "likes": ("What does {s} like?", "What is {s} fond of?", "Please tell me what {s} likes."),
        "sells": (
            "What does {s} sell?", "What can I buy from {s}?", "Please tell me what {s} sells.",
        ),
        "owns": ("What does {s} own?", "What belongs to {s}?", "Please tell me what {s} owns."),
        "born-in": ("Where was {s} born?", "What is the birthplace of {s}?"),
    },
    "zh": {
        "lives-in": ("{s}住在哪里？", "{s}的家在哪里？", "请告诉我{s}住在哪里。"),
        "works-as": ("{s}是做什么的？", "{s}的身份是什么？", "请告诉我{s}是做什么的。"),
        "mother": ("{s}的妈妈是谁？", "{s}的妈妈叫什么？"),
        "father": ("{s}的爸爸是谁？", "{s}的爸爸叫什么？"),
        "parent-of": ("{s}的孩子是谁？", "{s}的孩子叫什么？"),
        "likes": ("{s}喜欢什么？", "{s}最爱的是什么？", "请告诉我{s}喜欢什么。"),
        "sells": ("{s}卖什么？", "可以从{s}那里买到什么？", "请告诉我{s}卖什么。"),
        "owns": ("{s}有什么？", "什么是{s}的？", "请告诉我{s}有什么。"),
        "born-in": ("{s}出生在哪里？", "{s}的出生地是哪里？"),
    },
}  # fmt: skip
# o the result of the last call
ANSWERS = {
    "en": {
        "lives-in": "The home of {s} is {o}.",
        "works-as": "{s} is {o}.",
        "mother": "The mother of {s} is {o}.",
        "father": "The father of {s} is {o}.",
        "parent-of": "The children of {s}: {o}.",
        "likes": "{s} likes {o}.",
        "sells": "{s} sells {o}.",
        "owns": "{s} owns {o}.",
        "born-in": "The birthplace of {s} is {o}.",
    },
    "zh": {
        "lives-in": "{s}的家在{o}。",
        "works-as": "{s}是{o}。",
        "mother": "{s}的妈妈是{o}。",
        "father": "{s}的爸爸是{o}。",
        "parent-of": "{s}的孩子：{o}。",
        "likes": "{s}喜欢{o}。",
        "sells": "{s}卖{o}。",
        "owns": "{s}有{o}。",
        "born-in": "{s}的出生地是{o}。",
    },
}
PARENT = {
    "mother": {"en": "the mother of {s}", "zh": "{s}的妈妈"},
    "father": {"en": "the father of {s}", "zh": "{s}的爸爸"},
}
UNKNOWN = {"en": "Nothing is known of that.", "zh": "这个没有人知道。"}


@final
@dataclass(frozen=True)
class Question:
    """A question about somebody, and how it is answered.

    Args:
        text: the question.
        language: "en" or "zh".
        kind: one of `KINDS`.
        calls: what to look up, one after the other: each a person and a relation.
        answer: the right one.
    """

    text: str
    language: str
    kind: str
    calls: tuple[tuple[str, str], ...]
    answer: str


@final
@dataclass(frozen=True)
class LookUpSource:
    """Questions about the people of a town without end, in blocks of 64.

    Args:
        world: the town.
        language: "en" or "zh".

    Raises:
        ValueError: another language.

    Example:
        >>> question = LookUpSource(World()).block(0)[1]
        >>> question.text, question.calls
        ('What is the father of Mihe called?', (('Mihe', 'father'),))
    """

    world: World
    language: str = "en"

    def __post_init__(self) -> None:
        if self.language not in ASKS:
            raise ValueError(f'language must be "en" or "zh"; got {self.language!r}')

    def block(self, index: int, seed: int | str = 0) -> list[Question]:
        """The 64 questions number 64·index to 64·index + 63 of a stream.

        Args:
            index: 0, 1, 2, …
            seed: another seed, another stream.

        Raises:
            ValueError: a negative index.
        """
        rng = block_rng(f"look-ups/{self.world.seed}/{self.language}/{seed}/{index}", index)
        kinds = rng.choices([*KINDS], [*KINDS.values()], k=BLOCK)
        return [self._question(rng, kind) for kind in kinds]

    def _question(self, rng: random.Random, kind: str) -> Question:
        look_up, words = self._look_up, ASKS[self.language]
        relation = rng.choice([each for each in words if kind != "two hops" or each not in PARENT])
        # 1. who is asked about, and what must be looked up; now and then it is not known
        known = self._known[relation] if rng.random() < 0.9 else self._names
        if kind == "two hops":
            parents = [each for each in self._parents if each[2] in known] or self._parents
            child, hop, parent = _choose(rng, parents)
            who = PARENT[hop][self.language].format(s=child)
            calls = ((child, hop), (parent, relation))
        else:
            who = _choose(rng, self._strangers if kind == "stranger" else known or self._names)
            calls = ((who, relation),)
        # 2. the answer, from the last of the results
        result = NOTHING[self.language] if kind == "stranger" else look_up(*calls[-1])
        answer = ANSWERS[self.language][relation].format(s=calls[-1][0], o=result)
        if result == NOTHING[self.language]:
            answer = UNKNOWN[self.language]
        asks = rng.choice(words[relation]).format(s=who)
        return Question(asks, self.language, kind, calls, answer)

    @cached_property
    def _look_up(self) -> Callable[[str, Relation], str]:
        return look_up_in(self.world)

    @cached_property
    def _names(self) -> list[str]:
        return [self._name(person) for person in self.world.people]

    @cached_property
    def _strangers(self) -> list[str]:
        elsewhere = map(self._name, World(f"beside {self.world.seed}").people)
        return [name for name in elsewhere if name not in self._names]

    @cached_property
    def _known(self) -> dict[str, list[str]]:
        """Of each relation those of whom there is something to say."""
        look_up, nothing = self._look_up, NOTHING[self.language]
        return {
            relation: [name for name in self._names if look_up(name, relation) != nothing]
            for relation in ASKS[self.language]
        }

    @cached_property
    def _parents(self) -> list[tuple[str, str, str]]:
        """A child, which parent, and that parent's name; the most famous child first."""
        return [
            (child, hop, self._look_up(child, hop))
            for child in self._names
            for hop in PARENT
            if child in self._known[hop]
        ]

    def _name(self, person: Person) -> str:
        return person.chinese if self.language == "zh" else person.name


def _choose(rng: random.Random, candidates: Sequence[T]) -> T:
    """One of some, the most famous of whom come first; half of the time one of these."""
    return rng.choice(candidates[:N_FAMOUS] if rng.random() < 0.5 else candidates)
