"""Lists of the town's goods and people, in the forms in which lists are written.

    commas     plums, pears         李子、梨          translated: the same in the other language
    lines      plums⏎pears          numbered: 1. plums⏎2. pears
    json       ["plums", "pears"]   brackets: (plums, pears)   （李子、梨）

`write` writes a list in a form, and `read` reads it back or says that it is in another form.

Paper: none.
Differs: none.

Chapter: 20
"""

import json
import random
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import final

from minillm.town.world import World

FORMS = ("commas", "lines", "numbered", "json", "brackets", "translated")
OTHER = {"en": "zh", "zh": "en"}
SEPARATOR = {"en": ", ", "zh": "、"}
N_PEOPLE = 20  # the most famous, who stand on lists
FEWEST, MOST = 3, 6  # on a list
SHARE_PEOPLE = 0.3  # of the lists, which name people and not goods
_WORD = re.compile(r"[^\W\d_]+(?: [^\W\d_]+)*")


@final
@dataclass(frozen=True)
class Item:
    """Something on a list, or a word of an answer, in both languages."""

    english: str
    chinese: str

    def say(self, language: str) -> str:
        """In one of them."""
        return self.chinese if language == "zh" else self.english


def draw_items(world: World, rng: random.Random) -> tuple[tuple[Item, ...], tuple[Item, ...]]:
    """Three to six goods or people for a list, and all others of that kind."""
    if rng.random() < SHARE_PEOPLE:
        stock = [Item(person.name, person.chinese) for person in world.people[:N_PEOPLE]]
    else:
        stock = [Item(good.general, good.chinese) for good in world.goods]
    rng.shuffle(stock)
    n = rng.randint(FEWEST, MOST)
    return tuple(stock[:n]), tuple(stock[n:])


def answer_language(language: str, form: str) -> str:
    """The language of a list in a form, for whoever speaks a language.

    Example:
        >>> answer_language("en", "json"), answer_language("en", "translated")
        ('en', 'zh')
    """
    return OTHER[language] if form == "translated" else language


def write(words: Sequence[str], form: str, language: str) -> str:
    """Words in a form; "translated" is commas, and its words are those of the other language.

    Example:
        >>> write(["plums", "pears"], "numbered", "en"), write(["李子", "梨"], "brackets", "zh")
        ('1. plums\\n2. pears', '（李子、梨）')
    """
    joined = SEPARATOR[language].join(words)
    match form:
        case "lines":
            return "\n".join(words)
        case "numbered":
            return "\n".join(f"{number}. {word}" for number, word in enumerate(words, 1))
        case "json":
            return json.dumps(list(words), ensure_ascii=False)
        case "brackets":
            return f"（{joined}）" if language == "zh" else f"({joined})"
    return joined


def read(text: str, form: str, language: str) -> tuple[str, ...] | None:
    """The words of an answer in a form, or None if it is not in that form and language.

    Example:
        >>> read("(plums, pears)", "brackets", "en"), read("plums, pears", "brackets", "en")
        (('plums', 'pears'), None)
    """
    match form:
        case "lines":
            words = text.split("\n")
        case "numbered":
            words = [line.partition(". ")[2] for line in text.split("\n")]
        case "json":
            words = _read_json(text)
        case "brackets":
            words = text[1:-1].split(SEPARATOR[language])
        case _:
            words = text.split(SEPARATOR[language])
    plain = all(_WORD.fullmatch(word) and word.isascii() == (language == "en") for word in words)
    same = form == "json" or write(words, form, language) == text
    return tuple(words) if words and plain and same else None


def _read_json(text: str) -> list[str]:
    """The texts of a JSON list, however it is spaced; none if it is something else."""
    try:
        words = json.loads(text)
    except (ValueError, RecursionError):
        return []
    good = isinstance(words, list) and all(isinstance(word, str) for word in words)
    return words if good else []
