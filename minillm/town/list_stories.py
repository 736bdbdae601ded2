"""Texts about lists: somebody writes one, and a few sentences say what is so of it.

    Mei writes a list: plums, pears, buns. There are three. Bao reads it backwards: buns, pears,
    plums. Without pears: plums, buns.

Nobody asks for anything in these texts. But whoever can go on with them can copy, turn around,
count and leave out, and knows the forms of lists. So they are what a model should have read before
it is taught to follow requests (`minillm.town.requests`): one can then measure whether the tuning
taught it the skill, or only the form in which it is asked for.

The first list is in any of the forms; what is said of it is with commas, in the language of the
text, but for one sentence that says the list in the other language.

Paper: none.
Differs: none.

Chapter: 20
"""

import random
from dataclasses import dataclass
from typing import final

from minillm.town.chance import block_rng
from minillm.town.lists import FORMS, OTHER, SEPARATOR, Item, answer_language, draw_items, write
from minillm.town.steps import KINDS, Argument, draw_argument, execute, say_argument
from minillm.town.world import World

BLOCK = 64
N_PEOPLE = 20
FEWEST, MOST = 2, 4  # sentences about a list
SHARE_COMMAS = 0.5  # of the lists; the rest are in one of the other forms
BEGINNINGS = {
    "en": ("{a} writes a list:", "This is the list of {a}:", "On the list of {a}:"),
    "zh": ("{a}写了一张单子：", "这是{a}的单子：", "{a}的单子上有："),
}
# w: what comes out; x, y: the argument; a: a person
SENTENCES = {
    "en": {
        "all": "{a} copies it: {w}.",
        "all-but": "All but {x}: {w}.",
        "reverse": "{a} reads it backwards: {w}.",
        "count": "There are {w}.",
        "first": "{X}: {w}.",
        "last": "{X}: {w}.",
        "nth": "{X}: {w}.",
        "without": "Without {x}: {w}.",
        "skip": "Without {x}: {w}.",
        "replace": "With {y} in place of {x}: {w}.",
        "swap": "{X} and {y} change places: {w}.",
        "contains": "Does it name {x}? {W}.",
        "append": "With {x} at the end: {w}.",
        "prepend": "With {x} at the beginning: {w}.",
        "after": "After {x}: {w}.",
        "before": "Before {x}: {w}.",
        "translated": "In Chinese: {w}.",
    },
    "zh": {
        "all": "{a}抄了一遍：{w}。",
        "all-but": "除了{x}：{w}。",
        "reverse": "{a}倒着念：{w}。",
        "count": "一共{w}个。",
        "first": "{x}：{w}。",
        "last": "{x}：{w}。",
        "nth": "{x}：{w}。",
        "without": "没有{x}：{w}。",
        "skip": "没有{x}：{w}。",
        "replace": "用{y}代替{x}：{w}。",
        "swap": "{x}和{y}对调：{w}。",
        "contains": "有{x}吗？{w}。",
        "append": "末尾加上{x}：{w}。",
        "prepend": "开头加上{x}：{w}。",
        "after": "{x}后面：{w}。",
        "before": "{x}前面：{w}。",
        "translated": "英文：{w}。",
    },
}


@final
@dataclass(frozen=True)
class ListStory:
    """A text about a list, and its truth.

    Args:
        text: the list and the sentences.
        language: "en" or "zh".
        items: the list.
        form: of the list, one of `FORMS`.
        sentences: (operation, argument) of each; "translated" says the list in the other language.
    """

    text: str
    language: str
    items: tuple[Item, ...]
    form: str
    sentences: tuple[tuple[str, Argument], ...]


@final
@dataclass(frozen=True)
class ListSource:
    """Texts about lists without end, in blocks of 64.

    Args:
        world: the town.
        language: "en" or "zh"; one seed gives the same lists in both.

    Raises:
        ValueError: another language.

    Example:
        >>> ListSource(World()).block(0)[0].text[:40]
        'Wen writes a list: (Tan, Ruipei, Kai, Hu'
    """

    world: World
    language: str = "en"

    def __post_init__(self) -> None:
        if self.language not in OTHER:
            raise ValueError(f'language must be "en" or "zh"; got {self.language!r}')

    def block(self, index: int, seed: int | str = 0) -> list[ListStory]:
        """The 64 texts number 64·index to 64·index + 63 of a stream.

        Args:
            index: 0, 1, 2, …
            seed: another seed, another stream.

        Raises:
            ValueError: a negative index.
        """
        rng = block_rng(f"lists/{self.world.seed}/{seed}/{index}", index)
        return [self._story(rng) for _ in range(BLOCK)]

    def _story(self, rng: random.Random) -> ListStory:
        language = self.language
        items, others = draw_items(self.world, rng)
        form = "commas" if rng.random() < SHARE_COMMAS else rng.choice(FORMS[1:])
        people = rng.sample(self.world.people[:N_PEOPLE], 2)
        a, b = (p.chinese if language == "zh" else p.name for p in people)
        # 1. the list
        spoken = answer_language(language, form)
        beginning = rng.choice(BEGINNINGS[language]).format(a=a)
        written = write([item.say(spoken) for item in items], form, spoken)
        if form in ("lines", "numbered"):
            parts = [f"{beginning}\n{written}\n"]
        else:
            stop, gap = ("。", "") if language == "zh" else (".", " ")
            parts = [f"{beginning}{gap}{written}{stop}"]
        # 2. what is so of it
        sentences = []
        for operation in rng.sample((*KINDS, "translated"), rng.randint(FEWEST, MOST)):
            argument: Argument = ()
            if operation != "translated":
                argument = draw_argument(
                    rng, operation, rng.choice(KINDS[operation]), items, others
                )
            sentences.append((operation, argument))
            parts.append(say(operation, argument, items, language, b))
        text = ("" if language == "zh" else " ").join(parts).replace("\n ", "\n")
        return ListStory(text, language, items, form, tuple(sentences))


def say(
    operation: str, argument: Argument, items: tuple[Item, ...], language: str, person: str
) -> str:
    """What is so of a list, as a sentence.

    Example:
        >>> plums, pears = Item("plums", "李子"), Item("pears", "梨")
        >>> say("reverse", (), (plums, pears), "en", "Bao")
        'Bao reads it backwards: pears, plums.'
    """
    spoken = answer_language(language, operation)
    result = items if operation == "translated" else execute(operation, argument, items)
    w = SEPARATOR[spoken].join(item.say(spoken) for item in result)
    x, y = (*say_argument(operation, argument, language), "", "")[:2]
    sentence = SENTENCES[language][operation]
    return sentence.format(a=person, w=w, W=_begin(w), x=x, X=_begin(x), y=y)


def _begin(text: str) -> str:
    return text[:1].upper() + text[1:]
