"""What is so in a town, as triples, said in many ways, and how often each is heard.

A fact (事实) is a triple (subject, relation, object): (Mei, likes, thunder). A table holds all the
facts of a town. Who is spoken of is drawn by fame, which follows Zipf's law, and then one of that
person's facts evenly:

    p(fact) = fame(subject) / number of the subject's facts

**Bits stored.** Someone who knows the language of towns but nothing of this one needs, to know all,

    bits = Σ over (subject, relation) of log2 C(N_r, m)

where m is how many objects the subject has there (that number is taken as known) and N_r how many
are possible: 18 places, 25 occupations (12 jobs, their helpers, pupil), all other people, all that
may be liked, owned or sold. For a single object this is log2 N_r.

Chapter: 02
"""

import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import final

import numpy as np

from minillm.town.chance import BLOCK_ROWS, generator
from minillm.town.folk import Person
from minillm.town.paraphrases import N_PARAPHRASES, OCCUPATIONS, say
from minillm.town.tinytown import LIKES, OWNS
from minillm.town.world import RELATIONS, World


@final
@dataclass(frozen=True, order=True)
class Fact:
    """Something that is so; names and things as the world calls them.

    Args:
        subject: a person's name.
        relation: one of `minillm.town.world.RELATIONS`.
        object: a place, occupation, person, good, or what is liked or owned.
    """

    subject: str
    relation: str
    object: str


@final
@dataclass(frozen=True)
class Sentence:
    """A fact in words, and the truth beside it.

    Args:
        text: one sentence.
        fact: what it says.
        language: "en" or "zh".
        paraphrase: which of the ways to say it, from 0.
    """

    text: str
    fact: Fact
    language: str
    paraphrase: int


@final
@dataclass(frozen=True)
class FactTable:
    """All facts of a town.

    Args:
        world: the town.
        day: as of which day; matters only if the world's `change_rate` is not 0.

    Raises:
        ValueError: a day before 0.

    Example:
        >>> table = FactTable(World())
        >>> table.facts[0]
        Fact(subject='Mei', relation='lives-in', object='Plum Lane')
        >>> table.say(table.facts[0], "en", 2), table.say(table.facts[0], "zh", 0)
        ('In Plum Lane lives Mei.', '小梅住在李子巷。')
    """

    world: World
    day: int = 0

    def __post_init__(self):
        if self.day < 0:
            raise ValueError(f"days are counted from 0; got {self.day}")

    @cached_property
    def people(self) -> dict[str, Person]:
        """{name: person}, as of the day."""
        return {person.name: person for person in self.world.on_day(self.day)}

    @cached_property
    def facts(self) -> tuple[Fact, ...]:
        """Everything that is so: the most famous first, each in the order of RELATIONS."""
        return tuple(
            Fact(person.name, relation, thing)
            for person in self.people.values()
            for relation in RELATIONS
            for thing in self.world.objects(person, relation)
        )

    @cached_property
    def probabilities(self) -> np.ndarray:
        """How likely each of `facts` is the one that is said; sums to one."""
        n_facts = Counter(fact.subject for fact in self.facts)
        fame = dict(zip(self.people, self.world.fame, strict=True))
        weights = np.array([fame[fact.subject] / n_facts[fact.subject] for fact in self.facts])
        return weights / weights.sum()

    @cached_property
    def n_possible(self) -> dict[str, int]:
        """N_r: how many objects each relation may have, for someone who knows no fact."""
        n_places = len(self.world.places)
        return {
            "lives-in": n_places,
            "works-as": len(OCCUPATIONS),
            "parent-of": len(self.people) - 1,
            "likes": len(LIKES),
            "sells": len(self.world.goods),
            "owns": len(OWNS),
            "born-in": n_places,
        }

    def bits(self) -> dict[str, float]:
        """Bits stored in each relation: Σ log2 C(N_r, m) over its subjects; see the module.

        Example:
            >>> bits = FactTable(World()).bits()
            >>> round(bits["likes"]), round(sum(bits.values())) > 2000  # 103 people x log2 32
            (515, True)
        """
        bits = dict.fromkeys(RELATIONS, 0.0)
        for (_, relation), m in Counter((f.subject, f.relation) for f in self.facts).items():
            bits[relation] += math.log2(math.comb(self.n_possible[relation], m))
        return bits

    def probability(self, fact: Fact) -> float:
        """How likely this fact is the one that is said.

        Raises:
            ValueError: it is not so in this town.
        """
        if fact not in self._place_of:
            raise ValueError(
                f"not a fact of this town: {fact}; world.objects(subject, relation) tells what is"
            )
        return float(self.probabilities[self._place_of[fact]])

    def say(self, fact: Fact, language: str = "en", paraphrase: int = 0) -> str:
        """Put a fact, or something that is not so, into words.

        Raises:
            ValueError: a language, paraphrase, person, relation or object that does not exist.
        """
        words = (fact.subject, fact.relation, fact.object)
        return say(self.world, self.people, words, language, paraphrase)

    def block(
        self,
        index: int,
        seed: int | str = 0,
        *,
        languages: Sequence[str] = ("en", "zh"),
        paraphrases: Sequence[int] = range(N_PARAPHRASES),
    ) -> tuple[Sentence, ...]:
        """64 sentences that depend on the table, seed, index and the choices alone.

        Facts are drawn with their probabilities, independently; language and paraphrase evenly
        from those given, which do not change the facts: hold some back for an exam.

        Raises:
            ValueError: a negative index, or a language or paraphrase that does not exist.

        Example:
            >>> sentence = FactTable(World()).block(0)[0]
            >>> sentence.fact in FactTable(World()).facts
            True
        """
        if index < 0:
            raise ValueError(f"index must be at least 0; got {index}")
        if not languages or not paraphrases:
            raise ValueError("name at least one language and one paraphrase")
        rng = generator("facts", str(self.world.seed), seed, index)
        which = self._cumulated.searchsorted(rng.random(BLOCK_ROWS), "right")
        in_language = rng.random(BLOCK_ROWS) * len(languages)
        in_way = rng.random(BLOCK_ROWS) * len(paraphrases)
        sentences = []
        for number, a, b in zip(which, in_language.astype(int), in_way.astype(int), strict=True):
            fact, language, way = self.facts[number], languages[a], paraphrases[b]
            sentences.append(Sentence(self.say(fact, language, way), fact, language, way))
        return tuple(sentences)

    @cached_property
    def _place_of(self) -> dict[Fact, int]:
        return {fact: number for number, fact in enumerate(self.facts)}

    @cached_property
    def _cumulated(self) -> np.ndarray:
        sums = self.probabilities.cumsum()
        return sums / sums[-1]
