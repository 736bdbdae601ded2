"""The open question of a town, with clues that together leave one person.

The answer is not written here: a mystery keeps only a seal (SHA-256) of the name. So it can say
whether an accusation is right without giving the answer away to someone who reads the code.

Chapter: 02
"""

import hashlib
import random
from collections.abc import Sequence
from dataclasses import dataclass
from typing import final

_TINYTOWN_CLUES = (
    "The clapper was taken between eleven and midnight on 9 October: the bell struck eleven and "
    "never struck twelve.",
    "There are two ways over the river, the bridge and the ferry, and there is one boat.",
    "From eight that evening until noon the bridge was under water; from seven the ferry was "
    "chained at the pottery; nobody has ever swum the river at that height. No stranger was "
    "there.",
    "The clock tower stands on the west bank. On the east bank that night were Joe, Lan, Bean, Jun "
    "and Hu.",
    "The oak door was locked and unharmed, and the windows are as wide as a hand.",
    "There are three keys: Ann's, round her neck; the town hall's, on its hook; and Granny Tan's.",
    "The town hall's key hung before the eyes of Dan, Bao, Kai and Mei from eight until it was "
    "light.",
    "Granny Tan gave her key to Doctor Su on 6 October. At eleven she was at the tea house with "
    "Ming, and her knees cannot climb sixty-one steps.",
    "The clapper hangs from one bolt, which only a number nine spanner turns.",
    "One such spanner hangs in the mill, on the east bank, and never leaves it.",
    "The other belongs to the library. From 8 to 11 October it was lent to Doctor Su.",
    "In the clinic that night there were Doctor Su and Miss Lin. Nobody knocked. The front door "
    "went a little after eleven struck, and again some time later.",
    "Miss Lin's ankle was broken on the 5th; until the 12th she could not put the foot to the "
    "floor.",
    "Ann would not have the bell stopped, though she had not slept since the 6th because of it.",
    "Old Wen was alone in the library all night, with neither key nor spanner.",
    "Next morning the lock was changed. The new one has a single key, which Ann never takes off.",
    "The clapper weighs nine kilos. All winter the clinic's front door has been held by something "
    "short and heavy, wrapped in a towel.",
)  # fmt: skip
_TINYTOWN_SUSPECTS = (
    *("Mei", "Bao", "Joe", "Hu", "Ann", "Wen", "Lin"),
    *("Jun", "Tan", "Kai", "Su", "Dan", "Ming", "Lan"),
)


def seal(name: str) -> str:
    """What is kept of the answer.

    Example:
        >>> seal("Mei") == seal(" mei ")
        True
    """
    plain = " ".join(name.lower().split())
    return hashlib.sha256(f"who took it? {plain}".encode()).hexdigest()


@final
@dataclass(frozen=True)
class Mystery:
    """A question, what is known about it, who it could have been, and the seal of the answer."""

    question: str
    chinese: str
    clues: tuple[str, ...]
    suspects: tuple[str, ...]
    sealed: str

    def accuse(self, name: str) -> bool:
        """Whether it was that person.

        Raises:
            ValueError: nobody of that name is a suspect.
        """
        if name not in self.suspects:
            raise ValueError(f"{name!r} is no suspect; there are {', '.join(self.suspects)}")
        return seal(name) == self.sealed


def tinytown_mystery() -> Mystery:
    """The reader's mystery: who took the clapper out of the bell.

    Example:
        >>> tinytown_mystery().accuse("Joe")
        False
    """
    return Mystery(
        "Who took the brass clapper out of the bell in the clock tower?",
        "谁拿走了钟楼大钟里的铜钟舌？",
        _TINYTOWN_CLUES,
        _TINYTOWN_SUSPECTS,
        "f828c92f01525983d7ac3a57d81ab1afb59e566b1217fca0e845cd067b1a5c39",
    )


def invent_mystery(suspects: Sequence[str], rng: random.Random) -> Mystery:
    """The same question for another town: who was near, who had a key, and who had a spanner.

    Each clue holds for several people, and one person is in all three.

    Raises:
        ValueError: fewer than three suspects.

    Example:
        >>> mystery = invent_mystery(["Ada", "Bob", "Cid", "Dee"], random.Random(1))
        >>> [name for name in mystery.suspects if mystery.accuse(name)]
        ['Bob']
        >>> mystery.clues[0]
        'On the west bank that night were Ada and Bob.'
    """
    if len(suspects) < 3:
        raise ValueError(f"a mystery needs at least 3 suspects; got {len(suspects)}")
    culprit = rng.choice(list(suspects))
    holds = {clue: {culprit} for clue in range(3)}
    for name in suspects:
        if name != culprit:  # out of at least one of the three
            for clue in rng.sample(range(3), rng.randint(0, 2)):
                holds[clue].add(name)
    groups = [_list([name for name in suspects if name in holds[clue]]) for clue in range(3)]
    return Mystery(
        "Who took the brass clapper out of the bell in the clock tower?",
        "谁拿走了钟楼大钟里的铜钟舌？",
        (
            f"On the west bank that night {groups[0]}.",
            f"With a key to the tower {groups[1]}.",
            f"With a number nine spanner {groups[2]}.",
        ),
        tuple(suspects),
        seal(culprit),
    )


def _list(people: Sequence[str]) -> str:
    if len(people) == 1:
        return f"was only {people[0]}"
    return f"were {', '.join(people[:-1])} and {people[-1]}"
