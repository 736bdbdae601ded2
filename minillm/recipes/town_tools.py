"""The town's tools: a calculator, and what is known of its people; for chat, servers and training.

    calculate("347 * 582")            → 201954
    look_up("Mei", "lives-in")        → Plum Lane
    look_up("小梅", "sells")           → 李子、梨
    look_up("Ada", "lives-in")        → an error: nobody of that name is here

A model that was trained on many towns cannot know the facts of the next one. It can learn what to
look up, and to say what comes back (`minillm.recipes.look_ups`).

Chapter: app
"""

from collections.abc import Callable
from typing import Literal

from minillm.agents.calculator import calculate
from minillm.agents.tools import Toolbox, tool
from minillm.town.folk import Person
from minillm.town.paraphrases import OCCUPATIONS, PLURAL
from minillm.town.tinytown import LIKES, OWNS
from minillm.town.world import World

MOST_CHARACTERS = 200  # of a result: the town's models read 256 tokens
Relation = Literal[
    "lives-in",
    "works-as",
    "mother",
    "father",
    "parent-of",
    "likes",
    "sells",
    "owns",
    "born-in",
]
#: The result where the town has nothing to say.
NOTHING = {"en": "nothing", "zh": "没有"}


def town_toolbox(world: World) -> Toolbox:
    """The tools of a town.

    Args:
        world: in which things are looked up.

    Example:
        >>> toolbox = town_toolbox(World())
        >>> toolbox.call('{"name":"look_up","arguments":{"person":"Mei","relation":"likes"}}').text
        'thunder'
    """
    return Toolbox((tool(calculate), tool(look_up_in(world))), most_characters=MOST_CHARACTERS)


def look_up_in(world: World) -> Callable[[str, Relation], str]:
    """The function `look_up` of a town."""
    people = {name: person for person in world.people for name in (person.name, person.chinese)}

    def look_up(person: str, relation: Relation) -> str:
        """Look up what is known of somebody in the town.

        Args:
            person: the name, in English or in Chinese, which is then the language of the result.
            relation: what to look up; "parent-of" gives the children.

        Raises:
            ValueError: nobody of that name is in the town.
        """
        language = "en" if person.isascii() else "zh"
        if person not in people:
            raise ValueError(f"nobody called {person!r} is in this town")
        things = _objects(world, people[person], relation)
        joined = (", " if language == "en" else "、").join(
            phrase(world, relation, thing, language) for thing in things
        )
        return joined or NOTHING[language]

    return look_up


def _objects(world: World, who: Person, relation: str) -> tuple[str, ...]:
    if relation not in ("mother", "father"):
        return world.objects(who, relation)
    pronoun = "she" if relation == "mother" else "he"
    return tuple(name for name in who.parents if world.person(name).pronoun == pronoun)


def phrase(world: World, relation: str, thing: str, language: str) -> str:
    """What stands on the other end of a relation, in words.

    Args:
        world: the town.
        relation: one of `Relation`.
        thing: as the world calls it.
        language: "en" or "zh".

    Example:
        >>> [phrase(World(), "lives-in", "well", language) for language in ("en", "zh")]
        ['the well', '水井']
    """
    match relation, language:
        case (("lives-in" | "born-in"), "en"):
            return thing if thing.endswith(" Lane") else f"the {thing}"
        case (("lives-in" | "born-in"), "zh"):
            return world.place(thing).chinese
        case (("mother" | "father" | "parent-of"), "zh"):
            return world.person(thing).chinese
        case "sells", _:
            good = world.good(thing)
            return good.general if language == "en" else good.chinese
        case "works-as", "zh":
            return OCCUPATIONS[thing]
        case "likes", "zh":
            return LIKES[thing]
        case "owns", "zh":
            return OWNS[thing]
        case (("works-as" | "owns"), "en"):
            return _with_article(thing)
    return thing


def _with_article(thing: str) -> str:
    if thing in PLURAL:
        return "the orchard's trees" if thing == "orchard's trees" else thing
    return f"{'an' if thing[0] in 'aeiou' else 'a'} {thing}"
