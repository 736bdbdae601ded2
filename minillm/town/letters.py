"""Letters between people of the town: somebody writes what is so, asks for something, and gets it.

    Hello Bao! Mei sells plums. Please bring me buns and eggs. Your friend Hu.

    Hello Hu! Here you have buns and eggs. Your friend Bao.

A request occurs in these texts as it does in life, and what answers it follows. There is no role,
no mark and no form of instructions: this is text to pre-train on (预训练), not to tune with.

The facts are those of the town, and so are the answers: who sells something, what it costs, where
somebody lives. Things that are asked for are given, in the same order.

Paper: none.
Differs: none.

Chapter: 20
"""

import random
from dataclasses import dataclass
from functools import cached_property
from typing import final

from minillm.town.facts import Fact, FactTable
from minillm.town.world import World

BLOCK = 64
N_PEOPLE = 20  # the most famous, who write
MOST_THINGS = 4  # asked for
KINDS = ("things", "cost", "seller", "home")
# f from whom, t to whom; fact, asks, gives: sentences
LETTERS = {
    "en": (
        "Dear {t},\n{fact} {asks}\nYours, {f}.\n\nDear {f},\n{gives}\nYours, {t}.",
        "To {t}:\n{asks} {fact}\nGreetings, {f}.\n\nTo {f}:\n{gives}\nGreetings, {t}.",
        "Hello {t}! {fact} {asks} Your friend {f}.\n\nHello {f}! {gives} Your friend {t}.",
    ),
    "zh": (
        "亲爱的{t}：\n{fact}{asks}\n你的{f}。\n\n亲爱的{f}：\n{gives}\n你的{t}。",
        "给{t}：\n{asks}{fact}\n祝好，{f}。\n\n给{f}：\n{gives}\n祝好，{t}。",
        "{t}你好！{fact}{asks}你的朋友{f}。\n\n{f}你好！{gives}你的朋友{t}。",
    ),
}
# what is asked, and what answers it; x what it is about, y the answer
ASKS = {
    "en": {
        "things": ("Please bring me {x}.", "Here you have {y}."),
        "cost": ("What does one {x} cost?", "One {x} costs {y}."),
        "seller": ("Who sells {x}?", "{y} sells {x}."),
        "home": ("Where does {x} live?", "{y}"),
    },
    "zh": {
        "things": ("请带给我{x}。", "给你{y}。"),
        "cost": ("一{x}多少钱？", "一{x}{y}。"),
        "seller": ("谁卖{x}？", "{y}卖{x}。"),
        "home": ("{x}住在哪里？", "{y}"),
    },
}


@final
@dataclass(frozen=True)
class Letter:
    """A letter with its reply, and the truth.

    Args:
        text: both, with a blank line between them.
        language: "en" or "zh".
        sender, receiver: names of people.
        fact: that the sender tells.
        kind: of the request: "things", "cost", "seller" or "home".
        about: names of the goods or of the person asked about.
        answer: names of the goods, the coins, the name of the seller or of the place.
    """

    text: str
    language: str
    sender: str
    receiver: str
    fact: Fact
    kind: str
    about: tuple[str, ...]
    answer: tuple[str, ...]


@final
@dataclass(frozen=True)
class LetterSource:
    """Letters without end, in blocks of 64.

    Args:
        world: the town.
        language: "en" or "zh"; one seed tells the same in both.

    Raises:
        ValueError: another language.

    Example:
        >>> letter = LetterSource(World()).block(0)[0]
        >>> letter.kind, letter.about, letter.answer
        ('seller', ('pencil',), ('Wen',))
    """

    world: World
    language: str = "en"

    def __post_init__(self) -> None:
        if self.language not in LETTERS:
            raise ValueError(f'language must be "en" or "zh"; got {self.language!r}')

    def block(self, index: int, seed: int | str = 0) -> list[Letter]:
        """The 64 letters number 64·index to 64·index + 63 of a stream.

        Args:
            index: 0, 1, 2, …
            seed: another seed, another stream.

        Raises:
            ValueError: a negative index.
        """
        facts = self._table.block(index, f"letters/{seed}", languages=(self.language,))
        rng = random.Random(f"letters/{self.world.seed}/{seed}/{index}")
        return [self._letter(rng, each.fact, each.text) for each in facts]

    @cached_property
    def _table(self) -> FactTable:
        return FactTable(self.world)

    def _letter(self, rng: random.Random, fact: Fact, text: str) -> Letter:
        world, language = self.world, self.language
        sender, receiver, third = rng.sample(world.people[:N_PEOPLE], 3)
        goods = rng.sample(world.goods, rng.randint(1, MOST_THINGS))
        kind, way = rng.choice(KINDS), rng.randrange(len(LETTERS[language]))
        seller = next(person for person in world.people if goods[0].name in person.sells)
        # 1. what is so
        names = tuple(good.name for good in goods)
        about = {"things": names, "home": (third.name,)}.get(kind, names[:1])
        answer = {
            "things": names,
            "cost": (str(goods[0].price),),
            "seller": (seller.name,),
            "home": (third.home,),
        }[kind]
        # 2. how it is said
        chinese = language == "zh"
        words = [good.chinese if chinese else good.general for good in goods]
        coins = f"{goods[0].price} coin{'s' * (goods[0].price > 1)}"
        x = {
            "things": _listed(words, language),
            "cost": f"{goods[0].measure}{goods[0].chinese}" if chinese else goods[0].name,
            "seller": words[0],
            "home": third.chinese if chinese else third.name,
        }[kind]
        y = {
            "things": x,
            "cost": f"{goods[0].price}块" if chinese else coins,
            "seller": seller.chinese if chinese else seller.name,
            "home": self._table.say(Fact(third.name, "lives-in", third.home), language),
        }[kind]
        asks, gives = (each.format(x=x, y=y) for each in ASKS[language][kind])
        f, t = (p.chinese if chinese else p.name for p in (sender, receiver))
        letter = LETTERS[language][way].format(f=f, t=t, fact=text, asks=asks, gives=gives)
        who = sender.name, receiver.name
        return Letter(letter, language, *who, fact, kind, about, answer)


def _listed(words: list[str], language: str) -> str:
    """With "and" before the last one."""
    comma, joins = ("、", "和") if language == "zh" else (", ", " and ")
    return joins.join([comma.join(words[:-1]), words[-1]] if len(words) > 1 else words)
