"""What people say about each other, which need not be so: rumours and a liar.

A share `rumours` of all (person, relation) pairs has a rumour about it: one wrong answer that goes
round the town, which half of the people believe. The liar, if there is one, always gives a wrong
answer. Everything that is said comes with the truth beside it. What is said is a pure function of
the world and of who speaks about what, so the same question gets the same answer.

Chapter: 02
"""

import random
from dataclasses import dataclass
from functools import lru_cache
from typing import final

from minillm.town.folk import Person
from minillm.town.world import World


@final
@dataclass(frozen=True)
class Telling:
    """Who said what, and whether it is so.

    Args:
        speaker, subject: names.
        relation: one of `minillm.town.world.RELATIONS`.
        said: the answer given.
        true: all answers that are right.
    """

    speaker: str
    subject: str
    relation: str
    said: str
    true: tuple[str, ...]

    @property
    def is_true(self) -> bool:
        """Whether the answer is right."""
        return self.said in self.true


def liar_of(world: World) -> Person | None:
    """The one who never says what is so, or None if the town has no liar.

    Example:
        >>> liar_of(World()) is None
        True
    """
    if not world.liar:
        return None
    return world.rng("liar").choice([person for person in world.people if person.age > 5])


def tell(world: World, speaker: str, subject: str, relation: str) -> Telling:
    """What `speaker` answers when asked about `subject`.

    Of several right answers (all goods that Mei sells) the speaker gives one.

    Raises:
        ValueError: an unknown name or relation, or nothing is so: the relation has no answer.

    Example:
        >>> tell(World(), "Bao", "Mei", "lives-in").said
        'Plum Lane'
        >>> gossip = World(rumours=1.0)
        >>> said = [tell(gossip, p.name, "Mei", "likes").is_true for p in gossip.people]
        >>> 30 < sum(said) < 70
        True
    """
    world.person(speaker)
    true = world.objects(subject, relation)
    if not true:
        raise ValueError(f"nothing to tell: {subject} has no {relation} in this town")
    said = world.rng(f"says/{speaker}/{subject}/{relation}").choice(true)
    liar = liar_of(world)
    rumour = world.rng(f"rumour/{subject}/{relation}")
    goes_round, wrong = rumour.random() < world.rumours, _wrong(world, true, relation, rumour)
    believes = world.rng(f"believes/{speaker}/{subject}/{relation}").random() < 0.5
    if liar is not None and liar.name == speaker:
        said = _wrong(world, true, relation, world.rng(f"lie/{subject}/{relation}"))
    elif goes_round and believes and speaker != subject:
        said = wrong
    return Telling(speaker, subject, relation, said, true)


def _wrong(world: World, true: tuple[str, ...], relation: str, rng: random.Random) -> str:
    """Another person's answer to the same question."""
    return rng.choice([answer for answer in _answers(world, relation) if answer not in true])


@lru_cache(maxsize=64)
def _answers(world: World, relation: str) -> list[str]:
    found = {answer for person in world.people for answer in world.objects(person, relation)}
    return sorted(found)
