"""How a fact is said: four ways in English and four in Chinese for each relation.

The same thing said in other words (换一种说法) is how one finds out whether a model has learned the
fact or the sentence. In each relation some ways name the object before the subject, so that a model
is asked in both directions.

Paper: none.
Differs: none.

Chapter: 02
"""

from collections.abc import Collection, Mapping

from minillm.town.folk import Person
from minillm.town.tinytown import JOBS, LIKES, OWNS
from minillm.town.world import RELATIONS, World

# s subject, o object, O the same at the beginning of a sentence; at: "in Plum Lane", "at the well".
PARAPHRASES = {
    "en": {
        "lives-in": (
            "{s} lives {at}.",
            "The home of {s} is {at}.",
            "{At} lives {s}.",
            "You will find {s} at home {at}.",
        ),
        "works-as": (
            "{s} is {o}.",
            "The work of {o} is what {s} does all day.",
            "Ask what {s} is, and people say: {o}.",
            "{s} spends the day as {o}.",
        ),
        "parent-of": (
            "{s} is the {parent} of {o}.",
            "{o} is a child of {s}.",
            "One of {o}'s parents is {s}.",
            "{s} has a child called {o}.",
        ),
        "likes": (
            "{s} likes {o}.",
            "{s} is fond of {o}.",
            "What {s} likes is {o}.",
            "For {o}, {s} would walk a mile.",
        ),
        "sells": (
            "{s} sells {o}.",
            "You can buy {o} from {s}.",
            "If you need {o}, go to {s}.",
            "{s} has {o} for sale.",
        ),
        "owns": (
            "{s} owns {o}.",
            "{O} {belongs} to {s}.",
            "What {s} owns is {o}.",
            "{s} is the owner of {o}.",
        ),
        "born-in": (
            "{s} was born {at}.",
            "{s} came into the world {at}.",
            "The birthplace of {s} is {o}.",
            "It was {at} that {s} was born.",
        ),
    },
    "zh": {
        "lives-in": (
            "{s}住在{o}。",
            "{s}的家在{o}。",
            "{o}是{s}住的地方。",
            "住在{o}的人里有{s}。",
        ),
        "works-as": (
            "{s}是{o}。",
            "{s}的身份是{o}。",
            "问起{s}是做什么的，人人都说是{o}。",
            "说到{o}，大家会想到{s}。",
        ),
        "parent-of": (
            "{s}是{o}的{parent}。",
            "{o}是{s}的孩子。",
            "{s}有个孩子叫{o}。",
            "{o}的{parent}叫{s}。",
        ),
        "likes": (
            "{s}喜欢{o}。",
            "{s}最爱的是{o}。",
            "{o}是{s}最喜欢的。",
            "让{s}高兴的是{o}。",
        ),
        "sells": ("{s}卖{o}。", "想买{o}，去找{s}。", "{o}可以在{s}那里买到。", "{s}那儿有{o}卖。"),
        "owns": ("{s}有{one}。", "{o}是{s}的。", "{s}自己有{one}。", "{o}的主人是{s}。"),
        "born-in": (
            "{s}出生在{o}。",
            "{s}是在{o}出生的。",
            "{s}的出生地是{o}。",
            "{o}是{s}出生的地方。",
        ),
    },
}
N_PARAPHRASES = 4
# What counts one of a thing in Chinese (量词); "个" for the rest.
MEASURES = {
    "头": ("毛驴",),
    "条": ("船", "毯子"),
    "只": ("鹅", "狗", "山羊", "母鸡", "鸭子", "鹦鹉", "兔子"),
    "架": ("梯子", "望远镜"),
    "把": ("雨伞", "胡琴"),
    "面": ("鼓", "镜子"),
    "盏": ("灯笼",),
    "辆": ("手推车",),
    "副": ("棋盘",),
    "座": ("钟",),
}
PLURAL = ("orchard's trees", "three cats")
# Nobody lives in a well: where a place is not something to be inside of, people are beside it.
BESIDE = {"水井": "水井边", "渡口": "渡口边", "石桥": "石桥边", "后山": "后山上"}
OCCUPATIONS = {
    **{job: chinese for job, (chinese, _) in JOBS.items()},
    **{f"{job}'s helper": f"{chinese}的帮手" for job, (chinese, _) in JOBS.items()},
    "pupil": "小学生",
}


def say(
    world: World,
    people: Mapping[str, Person],
    triple: tuple[str, str, str],
    language: str = "en",
    paraphrase: int = 0,
) -> str:
    """Put a triple into words, whether it is so or not.

    Args:
        world: the town; how people, places and goods are called.
        people: {name: person} of the day.
        triple: subject, relation, object, as the world calls them.
        language: "en" or "zh".
        paraphrase: 0 to 3.

    Raises:
        ValueError: a language, paraphrase, person, relation or object that does not exist.

    Example:
        >>> world = World()
        >>> people = {person.name: person for person in world.people}
        >>> say(world, people, ("Hu", "owns", "boat"), "en", 1)
        'A boat belongs to Hu.'
        >>> say(world, people, ("Hu", "owns", "boat"), "zh", 0)
        '老胡有一条船。'
    """
    subject, relation, thing = triple
    if language not in PARAPHRASES:
        raise ValueError(f'facts are told in "en" (English) and "zh" (Chinese); got {language!r}')
    if relation not in RELATIONS:
        raise ValueError(f"no relation {relation!r}; there are {', '.join(RELATIONS)}")
    if not 0 <= paraphrase < N_PARAPHRASES:
        raise ValueError(f"paraphrase must be 0 to {N_PARAPHRASES - 1}; got {paraphrase}")

    def person(name: str) -> Person:
        return people[name] if name in people else world.person(name)  # which says who is there

    who = person(subject)
    if language == "en":
        words = _english(world, who, relation, thing)
        if relation == "parent-of":
            words["o"] = person(thing).called
    else:
        words = _chinese(world, who, relation, thing)
        words["s"] = person(who.called).chinese
        if relation == "parent-of":
            words["o"] = person(person(thing).called).chinese
    words["O"] = _begin(words["o"])
    return PARAPHRASES[language][relation][paraphrase].format_map(words)


def _english(world: World, who: Person, relation: str, thing: str) -> dict[str, str]:
    words = {"s": who.called, "o": thing, "belongs": "belongs"}
    match relation:
        case "lives-in" | "born-in":
            in_lane = world.place(thing).name.endswith(" Lane")
            words["o"] = thing if in_lane else f"the {thing}"
            words["at"] = f"{'in' if in_lane else 'at'} {words['o']}"
            words["At"] = _begin(words["at"])
        case "works-as":
            words["o"] = _one(_known(thing, OCCUPATIONS, relation))
        case "parent-of":
            words["parent"] = "mother" if who.pronoun == "she" else "father"
        case "sells":
            words["o"] = world.good(thing).general
        case "likes":
            _known(thing, LIKES, relation)
        case "owns":
            _known(thing, OWNS, relation)
            if thing in PLURAL:
                words["belongs"] = "belong"
            words["o"] = _one(thing)
    return words


def _chinese(world: World, who: Person, relation: str, thing: str) -> dict[str, str]:
    words = {}
    match relation:
        case "lives-in" | "born-in":
            chinese = world.place(thing).chinese
            words["o"] = BESIDE.get(chinese, chinese)
        case "works-as":
            words["o"] = OCCUPATIONS[_known(thing, OCCUPATIONS, relation)]
        case "parent-of":
            words["parent"] = "妈妈" if who.pronoun == "she" else "爸爸"
        case "sells":
            words["o"] = world.good(thing).chinese
        case "likes":
            words["o"] = LIKES[_known(thing, LIKES, relation)]
        case "owns":
            words["o"] = OWNS[_known(thing, OWNS, relation)]
            measure = next((m for m, things in MEASURES.items() if words["o"] in things), "个")
            words["one"] = words["o"] if thing in PLURAL else f"一{measure}{words['o']}"
    return words


def _known(thing: str, known: Collection[str], relation: str) -> str:
    if thing not in known:
        some = ", ".join(sorted(known)[:20]) + (", …" if len(known) > 20 else "")
        raise ValueError(f"{thing!r} cannot be the object of {relation}; there is {some}")
    return thing


def _one(thing: str) -> str:
    """With its article."""
    if thing == "orchard's trees":
        return f"the {thing}"
    if thing in PLURAL:
        return thing
    return f"{'an' if thing[0] in 'aeiou' else 'a'} {thing}"


def _begin(words: str) -> str:
    return words[0].upper() + words[1:]
